"""The pools for SQLAlchemy under real engines: each driver, its sessions, disconnects, forks."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('sqlalchemy')

import sqlalchemy as sa
from sqlalchemy import event, exc, orm
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from gcpool.contrib.sqlalchemy import AsyncQueuePool, QueuePool
from tests.contrib.conftest import Run
from tests.contrib.dbapi import pass_a_tick
from tests.contrib.servers import PATIENCE, PostgresServer
from tests.support import program_environment

THREADS = 8
ROUNDS = 4
# Of the engines, for the server.
NAME = 'of sqlalchemy'


class Base(orm.DeclarativeBase):
    pass


class Visit(Base):
    __tablename__ = 'sqlalchemy_visits'

    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str] = orm.mapped_column(sa.String(20))


# What has to be installed for it, and the fixture of the server.
DRIVERS = {
    'sqlite+pysqlite': ('sqlite3', None),
    'postgresql+psycopg': ('psycopg', 'postgres'),
    'postgresql+psycopg2': ('psycopg2', 'postgres'),
    'mysql+pymysql': ('pymysql', 'mariadb'),
}
ASYNC_DRIVERS = {
    'sqlite+aiosqlite': ('aiosqlite', None),
    'postgresql+asyncpg': ('asyncpg', 'postgres'),
    'postgresql+psycopg_async': ('psycopg', 'postgres'),
    'mysql+asyncmy': ('asyncmy', 'mariadb'),
}


# Their adapted connections hand the driver's to a coroutine function.
WITH_RUN_ASYNC = ('sqlite+aiosqlite', 'postgresql+asyncpg', 'postgresql+psycopg_async')


def marked(drivers: dict[str, tuple[str, str | None]]) -> list[Any]:
    return [
        pytest.param(name, marks=pytest.mark.postgres if server == 'postgres' else ())
        for name, (_, server) in drivers.items()
    ]


def url_for(driver: str, request: pytest.FixtureRequest) -> sa.URL:
    """Where a driver connects to: a server's database, or a file of SQLite."""
    module, fixture = {**DRIVERS, **ASYNC_DRIVERS}[driver]
    pytest.importorskip(module)
    if fixture is None:
        return sa.URL.create(driver, database=str(request.getfixturevalue('tmp_path') / 'visits.db'))
    server = request.getfixturevalue(fixture)
    query = {'ssl_disabled': 'true'} if driver == 'mysql+pymysql' else {}
    return sa.URL.create(driver, server.user, server.password, server.host, server.port, server.database, query)


def cut_off(url: sa.URL, request: pytest.FixtureRequest) -> None:
    """Have the server end all sessions of the engine."""
    if url.get_backend_name() == 'mysql':
        request.getfixturevalue('mariadb').kill_sessions()
    else:
        request.getfixturevalue('postgres').query(
            'SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity '
            f"WHERE application_name = '{NAME}' AND pid <> pg_backend_pid()"
        )


@pytest.fixture
def url(request: pytest.FixtureRequest) -> sa.URL:
    return url_for(request.param, request)


@pytest.fixture
def engine(url: sa.URL) -> Iterator[sa.Engine]:
    engine = sa.create_engine(url, poolclass=QueuePool, pool_size=2, max_overflow=1)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    yield engine
    Base.metadata.drop_all(engine)
    engine.dispose()


def pool_of(engine: 'sa.Engine | AsyncEngine') -> Any:
    return engine.pool


class TestEngine:
    @pytest.mark.parametrize('url', marked(DRIVERS), indirect=True)
    def test_sessions_in_threads(self, engine: sa.Engine) -> None:
        make_session = orm.sessionmaker(engine)

        def work(index: int) -> None:
            for number in range(ROUNDS):
                # SQLite has one writer at a time.
                with make_session.begin() as session:
                    session.connection(execution_options={'isolation_level': 'AUTOCOMMIT'})
                    session.add(Visit(name=f'{index}.{number}'))

        with ThreadPoolExecutor(THREADS) as executor:
            list(executor.map(work, range(THREADS)))
        with make_session() as session:
            names = session.scalars(sa.select(Visit.name)).all()
        assert sorted(names) == sorted(f'{index}.{number}' for index in range(THREADS) for number in range(ROUNDS))
        stats = pool_of(engine)._pool.get_stats()
        assert (stats['in_use'], stats['size'] <= 2) == (0, True)

    @pytest.mark.parametrize('url', marked(DRIVERS), indirect=True)
    def test_what_a_block_leaves_open_is_rolled_back(self, engine: sa.Engine) -> None:
        with engine.connect() as conn:
            conn.execute(sa.insert(Visit).values(id=1, name='ann'))
        with engine.connect() as conn:
            assert conn.scalar(sa.select(sa.func.count()).select_from(Visit)) == 0
            assert pool_of(engine).checkedout() == 1
        assert pool_of(engine).checkedin() == 1

    @pytest.mark.parametrize('url', marked(DRIVERS), indirect=True)
    def test_pre_ping(self, url: sa.URL) -> None:
        engine = sa.create_engine(url, poolclass=QueuePool, pool_pre_ping=True)
        for _ in range(3):
            with engine.connect() as conn:
                assert conn.scalar(sa.text('SELECT 1')) == 1
        assert pool_of(engine).checkedin() == 1
        engine.dispose()

    @pytest.mark.parametrize('url', marked({key: value for key, value in DRIVERS.items() if value[1]}), indirect=True)
    @pytest.mark.parametrize('pre_ping', [False, True])
    def test_a_disconnect(self, url: sa.URL, pre_ping: bool, request: pytest.FixtureRequest) -> None:
        arguments = {} if url.get_backend_name() == 'mysql' else {'application_name': NAME}
        engine = sa.create_engine(url, poolclass=QueuePool, pool_pre_ping=pre_ping, connect_args=arguments)
        conns = [engine.connect() for _ in range(3)]
        for conn in conns:
            conn.close()
        pass_a_tick()
        cut_off(url, request)
        if not pre_ping:
            with pytest.raises(exc.DBAPIError) as caught, engine.connect() as conn:
                conn.execute(sa.text('SELECT 1'))
            assert caught.value.connection_invalidated
        # One error, or none: all the others are replaced before they are used.
        conns = [engine.connect() for _ in range(3)]
        assert [conn.scalar(sa.text('SELECT 1')) for conn in conns] == [1, 1, 1]
        for conn in conns:
            conn.close()
        assert (pool_of(engine).checkedin(), pool_of(engine).checkedout()) == (3, 0)
        engine.dispose()

    @pytest.mark.postgres
    @pytest.mark.parametrize('url', ['postgresql+psycopg'], indirect=True)
    def test_dispose_leaves_no_session(self, url: sa.URL, postgres: PostgresServer) -> None:
        engine = sa.create_engine(url, poolclass=QueuePool, connect_args={'application_name': NAME})
        held = engine.connect()
        assert postgres.count_sessions(NAME) == 1
        conns = [engine.connect() for _ in range(2)]
        for conn in conns:
            conn.close()
        old = pool_of(engine)
        engine.dispose()
        assert pool_of(engine) is not old
        # It still works, and is closed with its pool.
        assert held.scalar(sa.text('SELECT 1')) == 1
        held.close()
        assert old.checkedin() == 1
        old.dispose()
        postgres.wait_for_sessions(0, NAME)

    @pytest.mark.parametrize('url', marked({'sqlite+pysqlite': DRIVERS['sqlite+pysqlite']}), indirect=True)
    def test_detach(self, url: sa.URL) -> None:
        engine = sa.create_engine(url, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0)
        with engine.connect() as mine:
            mine.detach()
            with engine.connect() as other:
                assert mine.scalar(sa.text('SELECT 1')) == other.scalar(sa.text('SELECT 1'))
        engine.dispose()


FORK = """
import os, sys
import sqlalchemy as sa
from gcpool.contrib.sqlalchemy import QueuePool

engine = sa.create_engine(sys.argv[1], poolclass=QueuePool, pool_size=2, max_overflow=0, pool_timeout=5)
WHO = sa.text('SELECT pg_backend_pid()')
with engine.connect() as conn, engine.connect() as other:
    parents = {conn.scalar(WHO), other.scalar(WHO)}
held = engine.connect()
parents.add(held.scalar(WHO))

child = os.fork()
if child == 0:
    if sys.argv[2] == 'dispose':
        engine.dispose(close=False)     # as SQLAlchemy's documentation says
    assert engine.pool.checkedin() == 0, engine.pool.status()
    with engine.connect() as conn, engine.connect() as other:
        assert not {conn.scalar(WHO), other.scalar(WHO)} & parents
    assert engine.pool.checkedin() == 2, engine.pool.status()
    engine.dispose()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert held.scalar(WHO) in parents
with engine.connect() as conn:
    assert conn.scalar(WHO) in parents
held.close()
engine.dispose()
print('done')
"""


@pytest.mark.postgres
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
@pytest.mark.parametrize('url', ['postgresql+psycopg'], indirect=True)
@pytest.mark.parametrize('how', ['nothing', 'dispose'])
def test_a_forked_child_has_its_own_connections(url: sa.URL, how: str) -> None:
    result = subprocess.run(
        [sys.executable, '-W', 'error', '-c', FORK, url.render_as_string(hide_password=False), how],
        env=program_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, '', 'done\n')


FORK_ASYNC = """
import asyncio, os, sys
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from gcpool.contrib.sqlalchemy import AsyncQueuePool

engine = create_async_engine(sys.argv[1], poolclass=AsyncQueuePool)

async def who():
    async with engine.connect() as conn:
        return await conn.scalar(sa.text('SELECT pg_backend_pid()'))

loop = asyncio.new_event_loop()
parents = loop.run_until_complete(who())
child = os.fork()
if child == 0:
    # In a loop of its own.
    assert asyncio.run(who()) != parents
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert loop.run_until_complete(who()) == parents
loop.run_until_complete(engine.dispose())
loop.close()
print('done')
"""


@pytest.mark.postgres
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
@pytest.mark.parametrize('url', ['postgresql+asyncpg'], indirect=True)
def test_a_forked_child_has_its_own_connections_and_loop(url: sa.URL) -> None:
    result = subprocess.run(
        [sys.executable, '-c', FORK_ASYNC, url.render_as_string(hide_password=False)],
        env=program_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, '', 'done\n')


class TestAsyncEngine:
    @pytest.mark.parametrize('url', marked(ASYNC_DRIVERS), indirect=True)
    def test_sessions_in_tasks(self, url: sa.URL, run: Run) -> None:
        async def main() -> None:
            engine = create_async_engine(url, poolclass=AsyncQueuePool, pool_size=2, max_overflow=1)
            async with engine.begin() as conn:
                await conn.run_sync(Base.metadata.drop_all)
                await conn.run_sync(Base.metadata.create_all)
            make_session = async_sessionmaker(engine, class_=AsyncSession)

            async def work(index: int) -> None:
                for number in range(ROUNDS):
                    async with make_session.begin() as session:
                        await session.connection(execution_options={'isolation_level': 'AUTOCOMMIT'})
                        session.add(Visit(name=f'{index}.{number}'))

            await asyncio.gather(*map(work, range(THREADS)))
            async with make_session() as session:
                names = (await session.scalars(sa.select(Visit.name))).all()
            assert sorted(names) == sorted(f'{index}.{number}' for index in range(THREADS) for number in range(ROUNDS))
            pool = pool_of(engine)
            assert (pool.checkedout(), pool.checkedin() <= 2) == (0, True)
            async with engine.begin() as conn:
                await conn.run_sync(Base.metadata.drop_all)
            await engine.dispose()
            assert pool.checkedin() == 0

        run(main)

    @pytest.mark.parametrize('url', marked({key: ASYNC_DRIVERS[key] for key in WITH_RUN_ASYNC}), indirect=True)
    def test_events_may_await_what_the_driver_does(self, url: sa.URL, run: Run) -> None:
        events: list[str] = []

        async def main() -> None:
            engine = create_async_engine(url, poolclass=AsyncQueuePool, pool_size=1)
            pool = engine.sync_engine.pool

            @event.listens_for(pool, 'connect')
            def connect(conn: Any, _record: Any) -> None:
                events.append('connect')
                conn.run_async(lambda driver_conn: driver_conn.execute('SELECT 1'))

            @event.listens_for(pool, 'checkout')
            def checkout(conn: Any, _record: Any, _proxy: Any) -> None:
                events.append('checkout')
                conn.run_async(lambda driver_conn: driver_conn.execute('SELECT 2'))

            for name in ('checkin', 'close', 'reset', 'invalidate'):
                event.listen(pool, name, lambda *_arguments, name=name: events.append(name))
            async with engine.connect() as conn:
                events.append('use')
                await conn.invalidate()
            async with engine.connect():
                events.append('use')
            await engine.dispose()

        run(main)
        first = ['connect', 'checkout', 'use', 'invalidate', 'close', 'checkin']
        assert events == [*first, 'connect', 'checkout', 'use', 'reset', 'checkin', 'close']

    @pytest.mark.parametrize(
        'url', marked({key: value for key, value in ASYNC_DRIVERS.items() if value[1]}), indirect=True
    )
    @pytest.mark.parametrize('pre_ping', [False, True])
    def test_a_disconnect(self, url: sa.URL, pre_ping: bool, request: pytest.FixtureRequest) -> None:
        arguments: dict[str, Any] = {'application_name': NAME}
        if url.get_driver_name() == 'asyncpg':
            arguments = {'server_settings': arguments}
        elif url.get_backend_name() == 'mysql':
            arguments = {}

        async def main() -> None:
            engine = create_async_engine(
                url, poolclass=AsyncQueuePool, pool_pre_ping=pre_ping, connect_args=arguments, pool_size=3
            )
            conns = [await engine.connect() for _ in range(3)]
            for conn in conns:
                await conn.close()
            pass_a_tick()
            await asyncio.to_thread(cut_off, url, request)
            if not pre_ping:
                with pytest.raises(exc.DBAPIError):
                    async with engine.connect() as conn:
                        await conn.execute(sa.text('SELECT 1'))
            conns = [await engine.connect() for _ in range(3)]
            for conn in conns:
                assert await conn.scalar(sa.text('SELECT 1')) == 1
                await conn.close()
            assert (pool_of(engine).checkedin(), pool_of(engine).checkedout()) == (3, 0)
            await engine.dispose()

        asyncio.run(main())

    @pytest.mark.postgres
    @pytest.mark.parametrize('url', ['postgresql+asyncpg'], indirect=True)
    def test_a_cancelled_statement_loses_no_connection(self, url: sa.URL, postgres: PostgresServer, run: Run) -> None:
        async def main() -> None:
            engine = create_async_engine(
                url,
                poolclass=AsyncQueuePool,
                pool_size=1,
                max_overflow=0,
                pool_timeout=PATIENCE,
                connect_args={'server_settings': {'application_name': NAME}},
            )

            async def sleep() -> None:
                async with engine.connect() as conn:
                    await conn.execute(sa.text('SELECT pg_sleep(60)'))

            for _ in range(2):
                task = asyncio.create_task(sleep())
                await asyncio.to_thread(postgres.wait_for_a_sleeper, NAME)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with engine.connect() as conn:
                assert await conn.scalar(sa.text('SELECT 1')) == 1
            assert (pool_of(engine).checkedin(), pool_of(engine).checkedout()) == (1, 0)
            await engine.dispose()

        run(main)
        postgres.wait_for_sessions(0, NAME)

    @pytest.mark.parametrize('url', ['sqlite+aiosqlite'], indirect=True)
    def test_an_engine_of_an_application_in_one_loop_for_each_test(self, url: sa.URL) -> None:
        engine = create_async_engine(url, poolclass=AsyncQueuePool)

        async def one_test() -> None:
            async with engine.connect() as conn:
                assert await conn.scalar(sa.text('SELECT 1')) == 1
            await engine.dispose()

        for _ in range(3):
            asyncio.run(one_test())


def test_files_of_sqlite_are_closed(tmp_path: Path) -> None:
    engine = sa.create_engine(f'sqlite:///{tmp_path}/a.db', poolclass=QueuePool)
    with engine.connect() as conn:
        conn.execute(sa.text('PRAGMA journal_mode=wal'))
        conn.execute(sa.text('CREATE TABLE t (n INTEGER)'))
        conn.commit()
    engine.dispose()
    # The last connection that is closed tidies up.
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.db']
