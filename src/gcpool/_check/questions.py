"""What ``python -m gcpool check`` asks of a server by a connection."""

from typing import Any

__all__ = [
    'limit_of_mysql',
    'limit_of_postgres',
    'limit_of_redis',
    'ping_database',
    'ping_http',
    'ping_redis',
    'ping_sqlite',
]

# What every user may ask: pg_stat_activity hides the kind of other users' sessions.
_POSTGRES = """
    SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int
        + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int,
        (SELECT sum(numbackends)::int FROM pg_stat_database)
"""


def ping_database(conn: Any) -> None:
    """Make one round trip to a database server."""
    _row(conn, 'SELECT 1')


def ping_sqlite(conn: Any) -> None:
    """Read the database: opening a file says nothing about what is in it."""
    conn.execute('SELECT count(*) FROM sqlite_master').fetchone()


def ping_redis(conn: Any) -> None:
    """Make one round trip to a Redis server."""
    from gcpool.contrib.redis import client_of

    client_of(conn).ping()


def ping_http(conn: Any, path: str) -> None:
    """Make one request, and read the response. Its status does not count."""
    conn.request('HEAD', path)
    conn.getresponse().read()


def limit_of_postgres(conn: Any) -> str:
    """Say how many connections a PostgreSQL server has room for."""
    most, reserved, connected = _row(conn, _POSTGRES)
    return _told('max_connections', most, reserved, connected)


def limit_of_mysql(conn: Any) -> str:
    """Say how many connections a MySQL server has room for."""
    most = int(_row(conn, 'SELECT @@global.max_connections')[0])
    return _told('max_connections', most, 0, int(_row(conn, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")[1]))


def limit_of_redis(conn: Any) -> str:
    """Say how many connections a Redis server has room for."""
    from gcpool.contrib.redis import client_of

    told: Any = client_of(conn).info('clients')
    if 'maxclients' not in told:
        return 'the server does not tell its limit on connections'
    return _told('maxclients', int(told['maxclients']), 0, int(told['connected_clients']))


def _row(conn: Any, statement: str) -> Any:
    cursor = conn.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone()
    finally:
        cursor.close()


def _told(name: str, most: int, reserved: int, connected: int) -> str:
    used = max(connected - 1, 0)  # one is this connection, which is closed
    free = max(most - reserved - used, 0)
    return (
        f'{name}={most}, {reserved} reserved, {used} used by others: '
        f'there is room for {free}, so max_size of all processes together may be {free}'
    )
