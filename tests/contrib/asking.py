"""How a server is asked something on a connection, whichever test asks."""

from typing import Any

__all__ = ['ask', 'ask_async', 'execute', 'fetch']


def fetch(conn: Any, query: str) -> Any:
    """Execute a query on a connection of DB-API, and give the first value of the first row."""
    with conn.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return row and row[0]


def execute(conn: Any, statement: str) -> None:
    """Execute a statement on a connection of DB-API, and leave its answer unread if it has one."""
    with conn.cursor() as cursor:
        cursor.execute(statement)


def ask(conn: Any, *command: Any) -> Any:
    """Send a command on a connection of redis-py, and read the reply."""
    conn.send_command(*command)
    return conn.read_response()


async def ask_async(conn: Any, *command: Any) -> Any:
    """The same for asyncio."""
    await conn.send_command(*command)
    return await conn.read_response()
