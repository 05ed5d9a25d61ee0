"""Ways to ask a server something on a connection, for all tests."""

from typing import Any

__all__ = ['ask', 'ask_async', 'execute', 'fetch']


def fetch(conn: Any, query: str) -> Any:
    """Execute a query on a DB-API connection, and return the first value of the first row."""
    with conn.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
        return row and row[0]


def execute(conn: Any, statement: str) -> None:
    """Execute a statement on a DB-API connection, and leave its answer unread if it has one."""
    with conn.cursor() as cursor:
        cursor.execute(statement)


def ask(conn: Any, *command: Any) -> Any:
    """Send a command on a redis-py connection, and read the reply."""
    conn.send_command(*command)
    return conn.read_response()


async def ask_async(conn: Any, *command: Any) -> Any:
    """Send and read on a redis-py connection for asyncio."""
    await conn.send_command(*command)
    return await conn.read_response()
