"""``is_refusal``: a server that is full is told from one that is down, with every manager of a server with a limit."""

import asyncio
import importlib
import inspect
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from gcpool._hooks import Hooks
from gcpool.asyncio import ConnectionPool as AsyncConnectionPool
from gcpool.common import PoolStats
from gcpool.contrib._mysql import is_refusal as is_refusal_of_mysql
from gcpool.contrib._postgres import is_refusal as is_refusal_of_postgres
from gcpool.contrib.http import HttpConnectionManager
from gcpool.contrib.socket import TcpSocketConnectionManager
from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.exceptions import ConnectError
from gcpool.managers import AsyncConnectionManager, SyncConnectionManager
from gcpool.threading import ConnectionPool
from tests.contrib.conftest import Run
from tests.contrib.mariadb import MariadbServer
from tests.contrib.raising import HOW_IT_IS_RAISED, Wrap
from tests.contrib.redis_server import running_redis
from tests.contrib.servers import PATIENCE, PostgresServer, closed_port

# The parameters of an endpoint whose server accepts one connection, and no more.
Full = AbstractContextManager[dict[str, Any]]


@contextmanager
def full_postgres(request: pytest.FixtureRequest, name: str) -> Iterator[dict[str, Any]]:
    server: PostgresServer = request.getfixturevalue('postgres')
    server.query(f"CREATE ROLE one_session LOGIN CONNECTION LIMIT 1 PASSWORD '{server.password}'")
    try:
        yield {**getattr(server, name), 'user': 'one_session'}
    finally:
        server.query('DROP ROLE one_session')


@contextmanager
def full_mariadb(request: pytest.FixtureRequest, name: str) -> Iterator[dict[str, Any]]:
    server: MariadbServer = request.getfixturevalue('mariadb')
    server.execute(f"CREATE USER one_session@'%' IDENTIFIED BY '{server.password}' WITH MAX_USER_CONNECTIONS 1")
    server.execute(f'GRANT ALL ON {server.database}.* TO one_session')
    try:
        yield {**server.params, 'user': 'one_session'}
    finally:
        server.execute('DROP USER one_session')


@contextmanager
def full_redis(request: pytest.FixtureRequest, name: str) -> Iterator[dict[str, Any]]:
    # Redis needs some connections itself, and so the test has this one to itself.
    with running_redis(maxclients=1) as server:
        yield {'host': server.host, 'port': server.port}


@dataclass(frozen=True)
class Kind:
    """A manager, and how a server of its own is made full."""

    manager: str
    full: Callable[[pytest.FixtureRequest, str], Full]
    params: str = ''
    wrong: tuple[str, Any] = ('password', 'wrong')


KINDS = {
    'psycopg': Kind('psycopg.ConnectionManager', full_postgres, 'conninfo_params'),
    'psycopg async': Kind('psycopg.AsyncConnectionManager', full_postgres, 'conninfo_params'),
    'psycopg2': Kind('psycopg2.DbConnectionManager', full_postgres, 'dsn_params'),
    'asyncpg': Kind('asyncpg.DbConnectionManager', full_postgres, 'dsn_params'),
    'pymysql': Kind('pymysql.DbConnectionManager', full_mariadb),
    'asyncmy': Kind('asyncmy.DbConnectionManager', full_mariadb),
    'redis': Kind('redis.RedisConnectionManager', full_redis, wrong=('db', 99)),
    'redis async': Kind('redis.AsyncRedisConnectionManager', full_redis, wrong=('db', 99)),
}
all_kinds = pytest.mark.parametrize(
    'kind',
    [
        pytest.param(kind, id=name, marks=[pytest.mark.postgres] * (kind.full is full_postgres))
        for name, kind in KINDS.items()
    ],
)


def manager_of(kind: Kind, params: Any) -> Any:
    module, _, name = kind.manager.partition('.')
    contrib = pytest.importorskip(f'gcpool.contrib.{module}', exc_type=ImportError)
    return getattr(contrib, name)({'db': params})


async def result_of(call: Any) -> Any:
    return await call if inspect.isawaitable(call) else call


@all_kinds
def test_a_server_that_is_full(request: pytest.FixtureRequest, run: Run, kind: Kind) -> None:
    with kind.full(request, kind.params) as params:
        manager = manager_of(kind, params)

        async def main() -> None:
            conn = await result_of(manager.create('db'))
            try:
                # Often, because the server's last words may get lost where it closes the connection at once.
                for _ in range(20):
                    with pytest.raises(ConnectError) as caught:
                        await result_of(manager.create('db'))
                    assert manager.is_refusal('db', caught.value), repr(caught.value)
            finally:
                await result_of(manager.dispose('db', conn))

        run(main)


@all_kinds
def test_a_server_that_is_down_or_refuses_for_another_reason(
    request: pytest.FixtureRequest, run: Run, kind: Kind
) -> None:
    with kind.full(request, kind.params) as params, closed_port() as port:
        others = [{**params, 'port': port}, {**params, kind.wrong[0]: kind.wrong[1]}, {'host': 'no-such-host.invalid'}]

        async def main() -> None:
            for other in others:
                manager = manager_of(kind, other)
                with pytest.raises(ConnectError) as caught:
                    await result_of(manager.create('db'))
                assert not manager.is_refusal('db', caught.value), repr(caught.value)
                with pytest.raises(ConnectError) as caught:
                    await result_of(manager.create('none'))
                assert not manager.is_refusal('none', caught.value)

        run(main)


async def fill(manager: Any, conns: list[Any]) -> None:
    while len(conns) < 100:
        conns.append(await result_of(manager.create('db')))


@contextmanager
def full_for_everybody(request: pytest.FixtureRequest, name: str) -> Iterator[dict[str, Any]]:
    """A server that has no connection left at all, for users who are no administrators."""
    if name == 'params':
        mariadb: MariadbServer = request.getfixturevalue('mariadb')
        mariadb.execute('SET GLOBAL max_connections = 10')
        try:
            yield mariadb.params
        finally:
            mariadb.execute(f'SET GLOBAL max_connections = {mariadb.max_connections}')
            mariadb.wait_for_sessions(0)
        return
    postgres: PostgresServer = request.getfixturevalue('postgres')
    postgres.query(f"CREATE ROLE no_administrator LOGIN PASSWORD '{postgres.password}'")
    try:
        yield {**getattr(postgres, name), 'user': 'no_administrator'}
    finally:
        postgres.query('DROP ROLE no_administrator')


@pytest.mark.parametrize(
    'kind',
    [
        pytest.param(kind, id=name, marks=[pytest.mark.postgres] * (kind.full is full_postgres))
        for name, kind in KINDS.items()
        if kind.full is not full_redis
    ],
)
def test_a_server_that_is_full_for_everybody(request: pytest.FixtureRequest, run: Run, kind: Kind) -> None:
    with full_for_everybody(request, kind.params or 'params') as params:
        manager = manager_of(kind, params)

        async def main() -> None:
            conns: list[Any] = []
            try:
                with pytest.raises(ConnectError) as caught:
                    await fill(manager, conns)
                assert manager.is_refusal('db', caught.value), repr(caught.value)
                assert len(conns) >= 8
            finally:
                for conn in conns:
                    await result_of(manager.dispose('db', conn))

        run(main)


@all_kinds
def test_a_pool_finds_it(kind: Kind) -> None:
    manager = manager_of(kind, {})
    base = AsyncConnectionManager if isinstance(manager, AsyncConnectionManager) else SyncConnectionManager
    hooks = Hooks(manager, base)
    assert hooks.refusal == manager.is_refusal
    # Each of these managers sees in the state of a connection whether an answer is outstanding.
    assert not hooks.broken_on_cancel


def test_managers_of_what_is_never_full_have_no_such_method() -> None:
    for manager in (HttpConnectionManager(), TcpSocketConnectionManager(), SqliteConnectionManager()):
        assert Hooks(manager, SyncConnectionManager).refusal is None


class DriverError(Exception):
    """A driver's error of a server of PostgreSQL."""

    def __init__(self, text: str, sqlstate: str | None) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


AT = 'connection to server at "127.0.0.1", port 5432 failed: '


@HOW_IT_IS_RAISED
@pytest.mark.parametrize(
    ('text', 'sqlstate', 'refused'),
    [
        ('zu viele Verbindungen', '53300', True),
        (f'{AT}FATAL:  sorry, too many clients already', None, True),
        (f'{AT}FATAL:  too many connections for role "x"', None, True),
        (f'{AT}FATAL:  too many connections for database "x"', None, True),
        (f'{AT}FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute', None, True),
        (f'{AT}Connection refused\n{AT}FATAL:  sorry, too many clients already', None, True),
        (f'{AT}FATAL:  no more connections allowed (max_client_conn)', None, True),
        ('no more connections allowed (max_client_conn)', '08P01', True),
        (f'{AT}Connection refused', None, False),
        (f'{AT}FATAL:  database "sorry, too many clients already" does not exist', None, False),
        ('sorry, too many clients already', '28P01', False),
        ('out of memory', '53200', False),
        ('', None, False),
    ],
)
def test_what_postgresql_says(wrap: Wrap, text: str, sqlstate: str | None, refused: bool) -> None:
    assert is_refusal_of_postgres(wrap(DriverError(text, sqlstate))) is refused


@HOW_IT_IS_RAISED
@pytest.mark.parametrize(
    ('number', 'refused'), [(1040, True), (1203, True), (1226, True), (1045, False), (2003, False), ('x', False)]
)
def test_what_mysql_says(wrap: Wrap, number: Any, refused: bool) -> None:
    assert is_refusal_of_mysql(wrap(OSError(number, 'said'))) is refused


def test_an_error_without_a_code_of_postgresql_is_none() -> None:
    assert not is_refusal_of_postgres(RuntimeError('FATAL:  sorry, too many clients already'))


@pytest.mark.parametrize('name', ['psycopg2', 'psycopg', 'asyncpg'])
def test_the_attribute_with_the_code_is_the_driver_s(name: str) -> None:
    driver = pytest.importorskip(name)
    error = driver.PostgresError if name == 'asyncpg' else driver.Error
    assert hasattr(error('said'), 'pgcode' if name == 'psycopg2' else 'sqlstate')
    assert importlib.import_module(f'gcpool.contrib.{name}').BROKEN_CODES


@all_kinds
def test_a_pool_waits_where_the_server_is_full(request: pytest.FixtureRequest, run: Run, kind: Kind) -> None:
    with kind.full(request, kind.params) as params:
        manager = manager_of(kind, params)
        is_async = inspect.iscoroutinefunction(manager.create)

        async def main() -> None:
            if is_async:
                pool = AsyncConnectionPool[Any, Any](manager, max_size=3, acquire_timeout=PATIENCE, wait_when_full=True)

                async def use() -> None:
                    async with pool.connection('db'):
                        await asyncio.sleep(0.01)

                await asyncio.gather(*(use() for _ in range(5)))
                stats = pool.get_stats()
                assert await pool.close() == 0
            else:
                stats = await asyncio.to_thread(in_threads, manager)
            # And perhaps one that is being created: a probe.
            assert (stats['idle'], stats['acquired'], stats['acquires']) == (1, 0, 5)

        run(main)


def in_threads(manager: Any) -> PoolStats:
    pool = ConnectionPool[Any, Any](manager, max_size=3, acquire_timeout=PATIENCE, wait_when_full=True)

    def use() -> None:
        with pool.connection('db'):
            time.sleep(0.01)

    with ThreadPoolExecutor(5) as executor:
        for future in [executor.submit(use) for _ in range(5)]:
            future.result()
    stats = pool.get_stats()
    assert pool.close() == 0
    return stats
