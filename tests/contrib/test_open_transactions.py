"""A transaction that is rolled back although its user's block did not raise is told once a pool."""

import inspect
import logging
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool as AsyncConnectionPool
from gcpool.threading import ConnectionPool
from tests.contrib.conftest import Run

TEXT = 'orders: a transaction on a connection to'

POSTGRES = pytest.mark.postgres


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    # Without those of an event loop in debug mode.
    return [
        record for record in caplog.records if record.name.startswith('gcpool') and record.levelno >= logging.WARNING
    ]


async def result_of(call: Any) -> Any:
    return await call if inspect.isawaitable(call) else call


async def with_a_cursor(conn: Any, statement: str) -> None:
    cursor = conn.cursor()
    await result_of(cursor.execute(statement))
    await result_of(cursor.close())


async def by_itself(conn: Any, statement: str) -> None:
    await result_of(conn.execute(statement))


class Kind:
    """A manager, and how its connections begin a transaction.

    :param name: of the manager
    :param fixture: of the server; None for a file
    :param attribute: of the server, with the parameters
    :param statements: begin a transaction
    :param commit: ends it; None for the connection's method
    :param execute: executes a statement
    """

    def __init__(
        self,
        name: str,
        fixture: str | None,
        attribute: str,
        statements: list[str],
        commit: str | None = None,
        execute: Callable[[Any, str], Any] = with_a_cursor,
    ) -> None:
        self.name = name
        self.fixture = fixture
        self.attribute = attribute
        self.statements = statements
        self.commit_statement = commit
        self.execute = execute

    def manager(self, request: pytest.FixtureRequest, **parameters: Any) -> Any:
        module, _, kind = self.name.partition('.')
        contrib = pytest.importorskip(f'gcpool.contrib.{module}', exc_type=ImportError)
        if self.fixture is None:
            return getattr(contrib, kind)(**parameters)
        params = getattr(request.getfixturevalue(self.fixture), self.attribute)
        return getattr(contrib, kind)({'db': params}, **parameters)

    def endpoint(self, request: pytest.FixtureRequest) -> str:
        if self.fixture is not None:
            return 'db'
        path: Path = request.getfixturevalue('tmp_path') / 'test.db'
        with sqlite3.connect(path) as conn:
            conn.execute('CREATE TABLE IF NOT EXISTS t (n)')
        conn.close()
        return str(path)

    async def begin(self, conn: Any) -> None:
        for statement in self.statements:
            await self.execute(conn, statement)

    async def commit(self, conn: Any) -> None:
        if self.commit_statement is None:
            await result_of(conn.commit())
        else:
            await self.execute(conn, self.commit_statement)


SELECT, INSERT, BEGIN = ['SELECT 1'], ['INSERT INTO t VALUES (1)'], ['BEGIN']

KINDS = {
    'psycopg': Kind('psycopg.ConnectionManager', 'postgres', 'conninfo_params', SELECT),
    'psycopg async': Kind('psycopg.AsyncConnectionManager', 'postgres', 'conninfo_params', SELECT),
    'psycopg2': Kind('psycopg2.DbConnectionManager', 'postgres', 'dsn_params', SELECT),
    'asyncpg': Kind('asyncpg.DbConnectionManager', 'postgres', 'dsn_params', BEGIN, 'COMMIT', by_itself),
    'pymysql': Kind('pymysql.DbConnectionManager', 'mariadb', 'params', BEGIN),
    'asyncmy': Kind('asyncmy.DbConnectionManager', 'mariadb', 'params', BEGIN),
    'sqlite3': Kind('sqlite3.SqliteConnectionManager', None, '', INSERT),
    'aiosqlite': Kind('aiosqlite.SqliteConnectionManager', None, '', INSERT, None, by_itself),
}


def parameters(*without: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        'kind',
        [
            pytest.param(kind, id=name, marks=[POSTGRES] * (kind.fixture == 'postgres'))
            for name, kind in KINDS.items()
            if name not in without
        ],
    )


def pool_of(manager: Any) -> Any:
    is_async = inspect.iscoroutinefunction(manager.create)
    return (AsyncConnectionPool if is_async else ConnectionPool)(
        manager, max_size=1, acquire_timeout=30.0, name='orders'
    )


async def use(pool: Any, endpoint: str, do: Callable[[Any], Any]) -> None:
    context = pool.connection(endpoint)
    if hasattr(context, '__aenter__'):
        async with context as conn:
            await do(conn)
    else:
        with context as conn:
            await do(conn)


# asyncpg says so itself, through the loop's handler of exceptions, each time; here that fails the test.
@parameters('asyncpg')
@pytest.mark.parametrize('by_hand', [False, True])
def test_is_told_once(
    request: pytest.FixtureRequest, run: Run, caplog: pytest.LogCaptureFixture, kind: Kind, by_hand: bool
) -> None:
    manager = kind.manager(request)
    endpoint = kind.endpoint(request)

    async def main() -> None:
        pool = pool_of(manager)
        for _ in range(3):
            if by_hand:
                conn = await result_of(pool.acquire(endpoint))
                await kind.begin(conn)
                await result_of(pool.release(conn, endpoint))
            else:
                await use(pool, endpoint, kind.begin)
        await result_of(pool.close())

    run(main)
    [record] = told(caplog)
    assert record.levelno == logging.WARNING
    assert record.name == 'gcpool'
    assert record.getMessage().startswith(f'{TEXT} {endpoint!r} was rolled back, because it was left open: commit it')
    assert 'autocommit' in record.getMessage()


@parameters('asyncpg')
def test_each_pool_of_a_manager_tells(
    request: pytest.FixtureRequest, run: Run, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    manager = kind.manager(request)
    endpoint = kind.endpoint(request)

    async def main() -> None:
        for _ in range(2):
            pool = pool_of(manager)
            await use(pool, endpoint, kind.begin)
            await result_of(pool.close())

    run(main)
    assert len(told(caplog)) == 2


@POSTGRES
def test_asyncpg_is_told_beside_what_it_says_itself(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    import asyncio

    kind = KINDS['asyncpg']
    manager = kind.manager(request)
    said: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
        pool = pool_of(manager)
        for _ in range(3):
            await use(pool, 'db', kind.begin)
        await pool.close()

    asyncio.run(main())
    assert [record.getMessage().partition(' was rolled')[0] for record in told(caplog)] == [f"{TEXT} 'db'"]
    assert len(said) == 3


class Mine(Exception):
    """Raised by a block."""


@parameters('asyncpg')
def test_is_not_told_where_an_exception_is_on_its_way(
    request: pytest.FixtureRequest, run: Run, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    manager = kind.manager(request)
    endpoint = kind.endpoint(request)

    async def fail(conn: Any) -> None:
        await kind.begin(conn)
        raise Mine

    async def main() -> None:
        pool = pool_of(manager)
        with pytest.raises(Mine):
            await use(pool, endpoint, fail)

        async def release_in_the_end() -> None:
            conn = await result_of(pool.acquire(endpoint))
            try:
                await fail(conn)
            finally:
                await result_of(pool.release(conn, endpoint))

        with pytest.raises(Mine):
            await release_in_the_end()
        # Nothing of that is left behind.
        assert pool.get_size() == 1
        assert not told(caplog)
        await use(pool, endpoint, kind.begin)
        assert len(told(caplog)) == 1
        await result_of(pool.close())

    run(main)


@parameters()
def test_is_not_told_of_what_was_committed(
    request: pytest.FixtureRequest, run: Run, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    manager = kind.manager(request)
    endpoint = kind.endpoint(request)

    async def do(conn: Any) -> None:
        await kind.begin(conn)
        await kind.commit(conn)

    async def main() -> None:
        pool = pool_of(manager)
        await use(pool, endpoint, do)
        await result_of(pool.close())

    run(main)
    assert not told(caplog)


@parameters('asyncpg', 'sqlite3', 'aiosqlite', 'pymysql', 'asyncmy')
def test_is_not_told_of_a_transaction_that_has_failed(
    request: pytest.FixtureRequest, run: Run, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    manager = kind.manager(request)

    async def do(conn: Any) -> None:
        with pytest.raises(Exception, match='division by zero'):
            await kind.execute(conn, 'SELECT 1 / 0')

    async def main() -> None:
        pool = pool_of(manager)
        await use(pool, 'db', do)
        await result_of(pool.close())

    run(main)
    assert not told(caplog)


@parameters('asyncpg', 'sqlite3', 'aiosqlite')
def test_is_told_with_a_full_reset_too(
    request: pytest.FixtureRequest, run: Run, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    manager = kind.manager(request, reset='full')

    async def main() -> None:
        pool = pool_of(manager)
        for _ in range(2):
            await use(pool, 'db', kind.begin)
        await result_of(pool.close())

    run(main)
    assert [record.getMessage().partition(' was rolled')[0] for record in told(caplog)] == [f"{TEXT} 'db'"]


if sys.version_info >= (3, 12):  # the parameter autocommit is new there

    @pytest.mark.parametrize('name', ['sqlite3', 'aiosqlite'])
    def test_is_not_told_where_a_transaction_is_always_open(
        request: pytest.FixtureRequest, run: Run, caplog: pytest.LogCaptureFixture, name: str
    ) -> None:
        kind = KINDS[name]
        manager = kind.manager(request, autocommit=False)
        endpoint = kind.endpoint(request)

        async def main() -> None:
            pool = pool_of(manager)
            await use(pool, endpoint, kind.begin)
            await result_of(pool.close())

        run(main)
        assert not told(caplog)


@POSTGRES
def test_shows_no_password(request: pytest.FixtureRequest, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    contrib = pytest.importorskip('gcpool.contrib.psycopg', exc_type=ImportError)
    server = request.getfixturevalue('postgres')

    async def main() -> None:
        pool: Any = ConnectionPool(contrib.ConnectionManager(lambda dsn: dsn))
        with pool.connection(server.dsn) as conn:
            conn.execute('SELECT 1')
        pool.close()

    run(main)
    assert f"'{server.host}:{server.port}/{server.database}'" in caplog.text
    assert server.password not in caplog.text
