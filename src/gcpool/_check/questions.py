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
        (SELECT sum(numbackends)::int FROM pg_stat_database),
        CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END,
        (SELECT count(*)::int FROM pg_stat_activity WHERE usename = session_user),
        CASE WHEN rolsuper THEN -1 ELSE datconnlimit END,
        (SELECT numbackends FROM pg_stat_database WHERE datname = current_database())
    FROM pg_roles, pg_database WHERE rolname = session_user AND datname = current_database()
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
    """Say how many connections a PostgreSQL server has room for: by its own limit, or the role's, or the database's."""
    most, reserved, connected, of_role, by_role, of_database, in_database = _row(conn, _POSTGRES)
    limits = [
        ('max_connections={}, {} reserved', most, reserved, connected),
        ('CONNECTION LIMIT={} of the role', of_role, 0, by_role),
        ('CONNECTION LIMIT={} of the database', of_database, 0, in_database),
    ]
    # A limit of -1 is none, and superusers have none but the first.
    return min((_room(*limit) for limit in limits if limit[1] >= 0), key=lambda room: room[0])[1]


def limit_of_mysql(conn: Any) -> str:
    """Say how many connections a MySQL server has room for."""
    most = int(_row(conn, 'SELECT @@global.max_connections')[0])
    connected = int(_row(conn, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")[1])
    return _room('max_connections={}', most, 0, connected)[1]


def limit_of_redis(conn: Any) -> str:
    """Say how many connections a Redis server has room for."""
    from gcpool.contrib.redis import client_of

    told: Any = client_of(conn).info('clients')
    if 'maxclients' not in told:
        return 'the server does not tell its limit on connections'
    return _room('maxclients={}', int(told['maxclients']), 0, int(told['connected_clients']))[1]


def _row(conn: Any, statement: str) -> Any:
    cursor = conn.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone()
    finally:
        cursor.close()


def _room(text: str, most: int, reserved: int, connected: int) -> tuple[int, str]:
    """Return how many connections a limit leaves room for, and how that is said."""
    used = max(connected - 1, 0)  # one is this connection, which is closed
    free = max(most - reserved - used, 0)
    return free, (
        f'{text.format(most, reserved)}, {used} used by others: '
        f'there is room for {free}, so max_size of all processes together may be {free}'
    )
