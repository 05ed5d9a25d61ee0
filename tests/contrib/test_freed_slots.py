"""After ``dispose`` the server has freed the connection's slot: with a server's limit equal to the pool's, no reconnect
is refused."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool as AsyncConnectionPool
from gcpool.exceptions import DiscardConnection
from gcpool.threading import ConnectionPool
from tests.contrib.servers import PostgresServer

pytestmark = pytest.mark.postgres

LIMIT = 2
RECONNECTS = 200

KINDS = {
    'psycopg.ConnectionManager': 'conninfo_params',
    'psycopg.AsyncConnectionManager': 'conninfo_params',
    'psycopg2.DbConnectionManager': 'dsn_params',
    'asyncpg.DbConnectionManager': 'dsn_params',
}


@pytest.fixture
def limited_role(postgres: PostgresServer) -> Iterator[str]:
    """A user that may have two sessions, with the password of the other one."""
    postgres.query(f"CREATE ROLE two_sessions LOGIN CONNECTION LIMIT {LIMIT} PASSWORD '{postgres.password}'")
    yield 'two_sessions'
    postgres.query('DROP ROLE two_sessions')


async def result_of(call: Any) -> Any:
    return await call if inspect.isawaitable(call) else call


@pytest.mark.parametrize('name', KINDS)
def test_no_reconnect_is_refused(postgres: PostgresServer, limited_role: str, name: str) -> None:
    module, _, kind = name.partition('.')
    contrib = pytest.importorskip(f'gcpool.contrib.{module}', exc_type=ImportError)
    manager_class = getattr(contrib, kind)

    class Replacing(manager_class):  # type: ignore[valid-type, misc]
        """Has the pool close each connection that is returned."""

        def on_release(self, endpoint: Any, conn: Any) -> Any:
            raise DiscardConnection

    manager: Any = Replacing({'db': {**getattr(postgres, KINDS[name]), 'user': limited_role}})
    is_async = inspect.iscoroutinefunction(manager.create)
    pool: Any = (AsyncConnectionPool if is_async else ConnectionPool)(manager, max_size=LIMIT, acquire_timeout=30.0)

    async def main() -> None:
        kept = await result_of(pool.acquire('db'))
        pids = set()
        for number in range(RECONNECTS):
            conn = await result_of(pool.acquire('db'))
            pids.add(backend_of(conn))
            if number % 2:
                await begin(conn)
            await result_of(pool.release(conn, 'db'))
        assert len(pids) == RECONNECTS
        await result_of(pool.release(kept, 'db'))
        await result_of(pool.close())

    asyncio.run(main())


def backend_of(conn: Any) -> int:
    if hasattr(conn, 'get_server_pid'):
        return int(conn.get_server_pid())
    return int(conn.info.backend_pid)


async def begin(conn: Any) -> None:
    if hasattr(conn, 'execute'):
        await result_of(conn.execute('BEGIN'))
    else:
        conn.cursor().execute('SELECT 1')
