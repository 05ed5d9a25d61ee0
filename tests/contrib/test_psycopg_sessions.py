"""The sessions of psycopg's and psycopg2's connections as the server sees them: their end, their reset, their use."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool.contrib._errors import errors_in
from gcpool.exceptions import ConnectTimeout, DiscardConnection
from tests.contrib.cancelling import WAYS, Request, Way
from tests.contrib.conftest import Run, with_any_timers
from tests.contrib.raising import in_nested_groups
from tests.contrib.sampling import sampled
from tests.contrib.servers import OTHER_SESSIONS, PATIENCE, PostgresServer, running_postgres
from tests.outages.proxy import Proxy

psycopg = pytest.importorskip('psycopg')
psycopg2 = pytest.importorskip('psycopg2')

from psycopg.pq import TransactionStatus  # noqa: E402
from psycopg.types.string import StrDumper  # noqa: E402

from gcpool.contrib import psycopg as contrib  # noqa: E402
from gcpool.contrib.psycopg import AsyncConnectionManager, ConnectionManager  # noqa: E402
from gcpool.contrib.psycopg2 import DbConnectionManager  # noqa: E402

pytestmark = pytest.mark.postgres

# The margin beyond a time limit.
SLACK = 0.5


class Watch:
    """Samples of the number of clients' sessions at the server."""

    most = 0


@contextlib.contextmanager
def watched(server: PostgresServer) -> Iterator[Watch]:
    """Sample the number of clients' sessions at the server."""
    watch = Watch()

    @contextlib.contextmanager
    def opened() -> Iterator[Callable[[], None]]:
        with psycopg.connect(server.dsn, autocommit=True) as conn:

            def count() -> int:
                query = f'SELECT count(*) FROM pg_stat_activity WHERE {OTHER_SESSIONS}'
                return int(conn.execute(query.encode()).fetchone()[0])

            def look() -> None:
                watch.most = max(watch.most, count())

            # Some sessions of earlier tests may be about to end.
            deadline = time.monotonic() + PATIENCE
            while count():
                assert time.monotonic() < deadline, 'sessions of other tests do not end'
            yield look

    with sampled(opened()):
        yield watch


@contextlib.contextmanager
def stalled(server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(server.host, server.port) as proxy:
        try:
            yield proxy
        finally:
            proxy.passes()


def params_by(proxy: Proxy, server: PostgresServer) -> dict[str, Any]:
    return {**server.conninfo_params, 'host': proxy.host, 'port': proxy.port, 'sslmode': 'disable'}


async def by_time_limit_on_all(request: Request, at_work: Request) -> None:
    """Also for the wait for a connection."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(request(), 0.05)


class TestCap:
    """The server never has more sessions than the pool may have connections."""

    @pytest.mark.parametrize('transaction', [True, False])
    @pytest.mark.parametrize('way', [*WAYS, by_time_limit_on_all])
    def test_of_interrupted_tasks(self, run: Run, postgres: PostgresServer, way: Way, transaction: bool) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager(
                {'db': postgres.dsn}, kwargs={'autocommit': not transaction}, cancel_timeout=PATIENCE / 3
            )
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=2)

            async def interrupted() -> None:
                at_work = asyncio.Event()

                async def request() -> None:
                    async with pool.connection('db') as conn:
                        asyncio.get_running_loop().call_later(0.01, at_work.set)
                        await conn.execute('SELECT pg_sleep(3600)')

                await way(request, at_work.wait)

            for _ in range(4):
                await asyncio.gather(*(interrupted() for _ in range(8)))
            async with pool.connection('db') as conn:
                assert await (await conn.execute('SELECT 1')).fetchone() == (1,)
            await pool.close()

        with watched(postgres) as watch:
            run(main)
        assert watch.most in {1, 2}

    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    @pytest.mark.parametrize('at_work', [True, False])
    def test_of_closed_connections(self, postgres: PostgresServer, make: Callable[..., Any], at_work: bool) -> None:
        manager = make({'db': postgres.dsn}, cancel_timeout=PATIENCE / 3)
        with watched(postgres) as watch:
            for _ in range(10):
                conn = manager.create('db')
                # The first one is kept until it was sampled: others may come and go between two samples.
                deadline = time.monotonic() + PATIENCE
                while not watch.most and time.monotonic() < deadline:
                    time.sleep(0.001)
                with contextlib.ExitStack() as stack:
                    if at_work:
                        stack.enter_context(at_work_in_thread(conn))
                    manager.dispose('db', conn)
                assert conn.closed
        assert watch.most == 1

    def test_of_an_interrupted_thread(self, postgres: PostgresServer) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, cancel_timeout=PATIENCE / 3)
        pool = gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)
        with watched(postgres) as watch:
            for _ in range(5):
                with pytest.raises(KeyboardInterrupt), pool.connection('db') as conn:
                    conn.wait(interrupting(conn))
            pool.close()
        assert watch.most == 1

    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    def test_of_a_thread_that_goes_on_with_its_next_statement(
        self, postgres: PostgresServer, make: Callable[..., Any]
    ) -> None:
        manager = make({'db': postgres.dsn}, cancel_timeout=PATIENCE / 3)
        conn = manager.create('db')
        ended: list[str] = []

        def work() -> None:
            for _ in range(3):
                try:
                    conn.cursor().execute('SELECT pg_sleep(3600)')
                except (psycopg.Error, psycopg2.Error) as exc:
                    ended.append(str(exc))

        conn.autocommit = True
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        until_at_work(conn)
        manager.dispose('db', conn)
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert 'canceling statement' in ended[0]
        postgres.wait_for_sessions(0)

    def test_of_a_task_that_goes_on_with_its_next_statement(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, cancel_timeout=PATIENCE / 3)
            conn = await manager.create('db')
            ended: list[str] = []

            async def work() -> None:
                for _ in range(3):
                    try:
                        await conn.execute('SELECT pg_sleep(3600)')
                    except psycopg.Error as exc:
                        ended.append(str(exc))

            await conn.set_autocommit(True)
            task = asyncio.ensure_future(work())
            while conn.info.transaction_status != TransactionStatus.ACTIVE:  # noqa: ASYNC110  (it tells nobody)
                await asyncio.sleep(0)
            await manager.dispose('db', conn)
            await asyncio.wait_for(task, PATIENCE)
            assert 'canceling statement' in ended[0]

        run(main)
        postgres.wait_for_sessions(0)

    @pytest.mark.parametrize('asynchronous', [True, False])
    def test_with_a_libpq_that_waits(self, postgres: PostgresServer, asynchronous: bool) -> None:
        """The system's libpq, with psycopg's implementation in Python: before version 17 it cannot cancel without
        waiting."""
        program = OLD_LIBPQ_ASYNC if asynchronous else OLD_LIBPQ
        with watched(postgres) as watch:
            done = run_program(program, postgres, PSYCOPG_IMPL='python')
        if 'no pq wrapper available' in done.stderr:
            pytest.skip('this system has no libpq')
        assert done.returncode == 0, done.stderr
        assert done.stdout == 'closed\n' * 5
        assert watch.most == 1


def interrupting(conn: Any) -> Any:
    """What psycopg waits for, and in which Ctrl-C interrupts it, while a statement runs."""
    from psycopg import generators

    conn.pgconn.send_query(b'SELECT pg_sleep(3600)')
    executing = generators.execute(conn.pgconn)
    wanted = next(executing)
    interrupted = False
    while True:
        ready = yield wanted
        if not ready and not interrupted:
            interrupted = True
            raise KeyboardInterrupt
        wanted = executing.send(ready)


@contextlib.contextmanager
def at_work_in_thread(conn: Any) -> Iterator[None]:
    """A thread executes a statement that would take an hour; an error tells it when the statement was ended."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            conn.cursor().execute('SELECT pg_sleep(3600)')
        except (psycopg.Error, psycopg2.Error) as exc:
            failures.append(exc)

    # Otherwise the connection is busy with a BEGIN first.
    conn.cursor().execute('SELECT 1')
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until_at_work(conn)
    yield
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert len(failures) == 1


def until_at_work(conn: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while conn.info.transaction_status != TransactionStatus.ACTIVE:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def run_program(program: str, postgres: PostgresServer, **environment: str) -> 'subprocess.CompletedProcess[str]':
    return subprocess.run(
        [sys.executable, '-c', program, postgres.dsn],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )


OLD_LIBPQ = """
import sys, threading, time
import psycopg
from psycopg.pq import TransactionStatus
from gcpool.contrib.psycopg import ConnectionManager

manager = ConnectionManager({'db': sys.argv[1]}, kwargs={'autocommit': True}, cancel_timeout=10.0)
for _ in range(5):
    conn = manager.create('db')
    conn.pgconn.send_query(b'SELECT pg_sleep(3600)')
    assert conn.info.transaction_status == TransactionStatus.ACTIVE
    began = time.monotonic()
    manager.dispose('db', conn)
    assert time.monotonic() - began < 5
    print('closed')
"""

OLD_LIBPQ_ASYNC = """
import asyncio, sys, time
from gcpool.asyncio import ConnectionPool
from gcpool.contrib.psycopg import AsyncConnectionManager

async def main():
    manager = AsyncConnectionManager({'db': sys.argv[1]}, kwargs={'autocommit': True}, cancel_timeout=10.0)
    pool = ConnectionPool(manager, max_size=1)

    async def request():
        async with pool.connection('db') as conn:
            await conn.execute('SELECT pg_sleep(3600)')

    for _ in range(5):
        began = time.monotonic()
        try:
            await asyncio.wait_for(request(), 0.1)
        except asyncio.TimeoutError:
            print('closed')
        assert time.monotonic() - began < 5
    await pool.close()

asyncio.run(main())
"""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """The block exceeds its time limit by no more than the margin."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took <= seconds + SLACK, f'it took {took:.2f} s'


def test_a_request_to_cancel_that_may_come_late_costs_the_connection(
    run: Run, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cancel_too_late(conn: Any, *, timeout: float) -> None:
        await asyncio.sleep(timeout)
        raise psycopg.errors.CancellationTimeout

    async def main() -> None:
        manager = AsyncConnectionManager({'db': postgres.dsn}, kwargs={'autocommit': True})
        conn = await manager.create('db')
        # The statement ends by itself while the request is on its way.
        task = asyncio.ensure_future(conn.execute('SELECT pg_sleep(0.2)'))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert conn.closed
        await manager.dispose('db', conn)

    monkeypatch.setattr(psycopg.capabilities, 'has_cancel_safe', lambda: True)
    monkeypatch.setattr(psycopg.AsyncConnection, 'cancel_safe', cancel_too_late)
    run(main)


class TestTimeLimits:
    """If a server stops answering, a limit of 0.5 s ends within 1 s."""

    def test_configure(self, postgres: PostgresServer) -> None:
        with stalled(postgres) as proxy:

            def configure(conn: Any) -> None:
                proxy.holds()
                conn.execute('SELECT 1')

            manager = ConnectionManager({'db': params_by(proxy, postgres)}, configure=configure)
            pool = gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)
            with within(0.5), pytest.raises(ConnectTimeout, match='configure got no answer in time'):
                pool.acquire('db', timeout=0.5)
            assert pool.get_size() == 0
            pool.close()

    def test_configure_that_hides_the_error(self, postgres: PostgresServer) -> None:
        with stalled(postgres) as proxy:

            def configure(conn: Any) -> None:
                proxy.holds()
                with contextlib.suppress(psycopg.Error), conn.transaction():
                    conn.execute('SELECT 1')

            manager = ConnectionManager({'db': params_by(proxy, postgres)}, configure=configure)
            with within(0.5), pytest.raises(ConnectTimeout, match='configure got no answer in time'):
                manager.create('db', 0.5)

    @with_any_timers
    def test_async_configure(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            with stalled(postgres) as proxy:

                async def configure(conn: Any) -> None:
                    proxy.holds()
                    await conn.execute('SELECT 1')

                manager = AsyncConnectionManager({'db': params_by(proxy, postgres)}, configure=configure)
                pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=1)
                with within(0.5), pytest.raises(TimeoutError):
                    await pool.acquire('db', timeout=0.5)
                assert pool.get_size() == 0
                await pool.close()

        run(main)

    @pytest.mark.parametrize('in_scope', [True, False])
    @with_any_timers
    def test_a_request(self, run: Run, postgres: PostgresServer, in_scope: bool) -> None:
        async def main() -> None:
            with stalled(postgres) as proxy:
                manager = AsyncConnectionManager({'db': params_by(proxy, postgres)})
                pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=1)

                async def request() -> None:
                    async with pool.connection('db') as conn:
                        await conn.execute('SELECT 1')
                        proxy.holds()
                        await conn.execute('SELECT 1')

                with within(0.5):
                    if in_scope:
                        anyio = pytest.importorskip('anyio')
                        with anyio.move_on_after(0.5):
                            await request()
                    else:
                        with pytest.raises(asyncio.TimeoutError):
                            await asyncio.wait_for(request(), 0.5)
                await pool.close()
                assert pool.get_size() == 0

        run(main)

    @pytest.mark.parametrize('reset', ['rollback', 'full'])
    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    def test_release(self, postgres: PostgresServer, make: Callable[..., Any], reset: str) -> None:
        with stalled(postgres) as proxy:
            manager = make({'db': params_by(proxy, postgres)}, rollback_timeout=0.5, reset=reset)
            conn = manager.create('db')
            conn.cursor().execute('SELECT 1')
            proxy.holds()
            with within(0.5), pytest.raises(DiscardConnection):
                manager.on_release('db', conn)
            with within(0.0):
                manager.dispose('db', conn)

    @pytest.mark.parametrize('reset', ['rollback', 'full'])
    @with_any_timers
    def test_async_release(self, run: Run, postgres: PostgresServer, reset: Any) -> None:
        async def main() -> None:
            with stalled(postgres) as proxy:
                manager = AsyncConnectionManager({'db': params_by(proxy, postgres)}, rollback_timeout=0.5, reset=reset)
                conn = await manager.create('db')
                await conn.execute('SELECT 1')
                proxy.holds()
                with within(0.5), pytest.raises(DiscardConnection):
                    await manager.on_release('db', conn)
                with within(0.0):
                    await manager.dispose('db', conn)

        run(main)

    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    @pytest.mark.parametrize('at_work', [True, False])
    def test_dispose(self, postgres: PostgresServer, make: Callable[..., Any], at_work: bool) -> None:
        with stalled(postgres) as proxy:
            manager = make({'db': params_by(proxy, postgres)})
            conn = manager.create('db')
            with contextlib.ExitStack() as stack:
                if at_work:
                    stack.enter_context(at_work_in_thread(conn))
                proxy.holds()
                # psycopg's waiting thread is given another moment.
                with within(0.2):
                    manager.dispose('db', conn)
            assert conn.closed

    @with_any_timers
    def test_async_dispose(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            with stalled(postgres) as proxy:
                manager = AsyncConnectionManager({'db': params_by(proxy, postgres)}, kwargs={'autocommit': True})
                conn = await manager.create('db')
                user = asyncio.ensure_future(conn.execute('SELECT pg_sleep(3600)'))
                while conn.info.transaction_status != TransactionStatus.ACTIVE:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                proxy.holds()
                with within(0.2):
                    await manager.dispose('db', conn)
                with pytest.raises(psycopg.OperationalError):
                    await user

        run(main)


class TestWithoutThreads:
    """No thread can be started: for users with healthy connections nothing changes."""

    @pytest.mark.parametrize('reset', ['rollback', 'full'])
    def test_check_and_release(
        self, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, run: Run, reset: Any
    ) -> None:
        def cannot_start(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        settings: dict[str, Any] = {'ping': True, 'rollback_timeout': 20.0, 'reset': reset}
        manager = ConnectionManager({'db': postgres.dsn}, **settings)
        pool = gcpool.threading.ConnectionPool[str, Any](manager, max_size=1, check_timeout=20.0)

        async def main() -> None:
            async_manager = AsyncConnectionManager({'db': postgres.conninfo_params}, **settings)
            async_pool = gcpool.asyncio.ConnectionPool[str, Any](async_manager, max_size=1, check_timeout=20.0)
            monkeypatch.setattr(threading.Thread, 'start', cannot_start)
            pids = set()
            for _ in range(3):
                async with async_pool.connection('db') as conn:
                    await conn.execute('SELECT 1')
                    pids.add(conn.info.backend_pid)
            assert len(pids) == 1
            await async_pool.close()

        run(main)
        pids = set()
        for _ in range(3):
            with pool.connection('db') as conn:
                conn.execute('SELECT 1')
                pids.add(conn.info.backend_pid)
        assert len(pids) == 1
        pool.close()


# What a user may do to a session, and a query by whose answer the next user would notice.
DIRT: dict[str, tuple[str, str]] = {
    'role': ('SET ROLE reset_other', 'SELECT current_user'),
    'session user': ('SET SESSION AUTHORIZATION reset_other', 'SELECT session_user, current_user'),
    'setting': ("SET search_path = 'elsewhere'", 'SHOW search_path'),
    'setting of its own': ("SET my.tenant = '5'", "SELECT coalesce(current_setting('my.tenant', true), '')"),
    'read-only': ('SET default_transaction_read_only = on', 'SHOW default_transaction_read_only'),
    'encoding': ("SET client_encoding = 'LATIN1'", "SELECT 'ä'"),
    'style of dates': ("SET datestyle = 'German'", "SELECT DATE '2026-02-01'"),
    'temporary table': (
        'CREATE TEMPORARY TABLE IF NOT EXISTS reset_temp (a int)',
        "SELECT count(*) FROM pg_class WHERE relname = 'reset_temp' AND pg_table_is_visible(oid)",
    ),
    'listen': ('LISTEN reset_channel', 'SELECT count(*) FROM pg_listening_channels()'),
    'advisory lock': (
        'SELECT pg_advisory_lock(15)',
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    ),
    'cursor': (
        'DECLARE reset_cursor CURSOR WITH HOLD FOR SELECT 1',
        'SELECT count(*) FROM pg_cursors WHERE is_holdable',
    ),
    'prepared statement': (
        'PREPARE reset_prepared AS SELECT 1',
        "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'reset%'",
    ),
    'sequence': (
        "SELECT nextval('reset_sequence')",
        'SELECT CASE WHEN lastval() IS NULL THEN 0 ELSE 1 END',
    ),
    'nothing': ('SELECT 1', 'SELECT 1'),
}


# How often each is done on one connection.
TIMES = 25


class Shouting(StrDumper):
    def dump(self, obj: str) -> Any:
        return super().dump(obj.upper())


def ask(conn: Any, question: str) -> object:
    """Ask one of those questions; an error is an answer, too."""
    cursor = conn.cursor()
    try:
        cursor.execute(question)
        return cursor.fetchall()
    except (psycopg.Error, psycopg2.Error) as exc:
        return type(exc).__name__


@pytest.fixture(scope='module')
def reset_objects(postgres: PostgresServer) -> Iterator[None]:
    postgres.query('CREATE ROLE reset_other; CREATE SEQUENCE reset_sequence')
    yield
    postgres.query('DROP SEQUENCE reset_sequence; DROP ROLE reset_other')


@pytest.mark.usefixtures('reset_objects')
class TestFullReset:
    """Nothing that a user has done reaches the next one, however often, and the connection stays usable."""

    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('dirt', DIRT)
    def test_undoes(self, postgres: PostgresServer, dirt: str, autocommit: bool) -> None:
        manager = ConnectionManager(
            {'db': postgres.dsn}, kwargs={'autocommit': autocommit, 'prepare_threshold': 0}, reset='full'
        )
        self._use_many_times(manager, dirt, 'COMMIT')

    @pytest.mark.parametrize('dirt', DIRT)
    def test_undoes_with_psycopg2(self, postgres: PostgresServer, dirt: str) -> None:
        self._use_many_times(DbConnectionManager({'db': postgres.dsn}, reset='full'), dirt, 'COMMIT')

    # psycopg reads text in any encoding, and dates in any style.
    @pytest.mark.parametrize('dirt', [dirt for dirt in DIRT if dirt not in {'encoding', 'style of dates', 'nothing'}])
    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    def test_without_it_the_next_user_would_see_it(
        self, postgres: PostgresServer, make: Callable[..., Any], dirt: str
    ) -> None:
        statement, question = DIRT[dirt]
        with contextlib.closing(
            gcpool.threading.ConnectionPool[str, Any](make({'db': postgres.dsn}), max_size=1)
        ) as pool:
            with pool.connection('db') as conn:
                first = ask(conn, question)
                conn.rollback()
                conn.cursor().execute(statement)
                conn.commit()
            with pool.connection('db') as conn:
                assert ask(conn, question) != first
            assert pool.get_stats()['created'] == 1

    @staticmethod
    def _use_many_times(manager: Any, dirt: str, end: str) -> None:
        statement, question = DIRT[dirt]

        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)) as pool:
            with pool.connection('db') as conn:
                first = ask(conn, question)
            pids = set()
            for _ in range(TIMES):
                with pool.connection('db') as conn:
                    assert ask(conn, question) == first
                    conn.rollback()
                    conn.cursor().execute(statement)
                    if dirt not in {'nothing', 'cursor'}:
                        conn.commit()
                    conn.cursor().execute('SELECT 7')
                    pids.add(conn.info.backend_pid)
            assert len(pids) == 1

    @pytest.mark.parametrize('dirt', DIRT)
    def test_undoes_in_tasks(self, run: Run, postgres: PostgresServer, dirt: str) -> None:
        statement, question = DIRT[dirt]

        async def main() -> None:
            manager = AsyncConnectionManager(
                {'db': postgres.dsn}, kwargs={'autocommit': True, 'prepare_threshold': 0}, reset='full'
            )
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=1)
            answers, pids = [], set()
            for _ in range(TIMES):
                async with pool.connection('db') as conn:
                    try:
                        answers.append(await (await conn.execute(question)).fetchall())
                    except psycopg.Error as exc:
                        answers.append(type(exc).__name__)
                    await conn.execute(statement)
                    pids.add(conn.info.backend_pid)
            assert answers == answers[:1] * TIMES
            assert len(pids) == 1
            await pool.close()

        run(main)

    def test_is_one_round_trip(self, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, reset='full')
        conn = manager.create('db')
        sent: list[bytes] = []
        exchange = vars(contrib)['exchange']

        def counted(pgconn: Any, command: bytes, timeout: float | None) -> None:
            sent.append(command)
            exchange(pgconn, command, timeout)

        monkeypatch.setattr(contrib, 'exchange', counted)
        conn.execute('SELECT 1')
        manager.on_release('db', conn)
        assert len(sent) == 1
        assert sent[0].startswith(b'ROLLBACK; ')
        manager.dispose('db', conn)

    def test_leaves_what_the_parameters_and_configure_have_set(self, postgres: PostgresServer, run: Run) -> None:
        params = {**postgres.conninfo_params, 'options': '-c statement_timeout=54321 -c role=reset_other'}
        question = "SELECT current_setting('statement_timeout'), current_setting('my.own', true), current_user"
        notices: list[str] = []

        def configure(conn: Any) -> None:
            conn.execute("SET my.own = 'configured'")
            conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
            conn.commit()

        manager = ConnectionManager({'db': params}, configure=configure, reset='full')
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)) as pool:
            for number in range(1, TIMES):
                with pool.connection('db') as conn:
                    assert conn.execute(question).fetchone() == ('54321ms', 'configured', 'reset_other')
                    conn.execute(
                        "RESET my.own; SET statement_timeout = 0; RESET ROLE; DO $$ BEGIN RAISE NOTICE 'x'; END $$"
                    )
                    conn.commit()
                assert len(notices) == number

        async def configure_async(conn: Any) -> None:
            await conn.execute("SET my.own = 'configured'")
            await conn.commit()

        async def main() -> None:
            manager = AsyncConnectionManager({'db': params}, configure=configure_async, reset='full')
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=1)
            for _ in range(TIMES):
                async with pool.connection('db') as conn:
                    cursor = await conn.execute(question)
                    assert await cursor.fetchone() == ('54321ms', 'configured', 'reset_other')
                    await conn.execute('RESET my.own; SET statement_timeout = 0')
                    await conn.commit()
            await pool.close()

        run(main)

    def test_discards_what_configure_fails_for(self, postgres: PostgresServer) -> None:
        calls: list[Any] = []

        def configure(conn: Any) -> None:
            calls.append(conn)
            if len(calls) > 1:
                raise LookupError('of the test')

        manager = ConnectionManager({'db': postgres.dsn}, configure=configure, reset='full')
        conn = manager.create('db')
        with pytest.raises(DiscardConnection):
            manager.on_release('db', conn)
        manager.dispose('db', conn)

    def test_leaves_the_adapters_of_configure(self, postgres: PostgresServer, run: Run) -> None:
        def configure(conn: Any) -> None:
            conn.adapters.register_dumper(str, Shouting)

        async def configure_async(conn: Any) -> None:
            configure(conn)

        manager = ConnectionManager({'db': postgres.dsn}, configure=configure, reset='full')
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)) as pool:
            for _ in range(3):
                with pool.connection('db') as conn:
                    assert conn.execute('SELECT %s', ('a',)).fetchone() == ('A',)

        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, configure=configure_async, reset='full')
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=1)
            for _ in range(3):
                async with pool.connection('db') as conn:
                    cursor = await conn.execute('SELECT %s', ('a',))
                    assert await cursor.fetchone() == ('A',)
            await pool.close()

        run(main)

    def test_of_adapters_and_notifications(self, postgres: PostgresServer) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, kwargs={'autocommit': True}, reset='full')
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)) as pool:
            for _ in range(3):
                with pool.connection('db') as conn:
                    assert conn.execute('SELECT %s', ('a',)).fetchone() == ('a',)
                    assert list(conn.notifies(timeout=0.0)) == []
                    conn.adapters.register_dumper(str, Shouting)
                    assert conn.execute('SELECT %s', ('a',)).fetchone() == ('A',)
                    conn.execute('LISTEN reset_channel; NOTIFY reset_channel')
                    conn.execute('SELECT 1')

    def test_of_what_psycopg2_keeps(self, postgres: PostgresServer) -> None:
        from psycopg2.extras import DictCursor

        manager = DbConnectionManager({'db': postgres.dsn}, reset='full')
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)) as pool:
            for _ in range(3):
                with pool.connection('db') as conn:
                    assert not conn.autocommit
                    assert (conn.isolation_level, conn.readonly, conn.deferrable) == (None, None, None)
                    assert (conn.encoding, conn.cursor_factory) == ('UTF8', None)
                    assert (list(conn.notices), list(conn.notifies)) == ([], [])
                    conn.set_session(isolation_level='SERIALIZABLE', readonly=True, deferrable=True, autocommit=True)
                    conn.set_client_encoding('LATIN1')
                    conn.cursor_factory = DictCursor
                    cursor = conn.cursor()
                    cursor.execute("LISTEN c; DO $$ BEGIN RAISE NOTICE 'x'; END $$")
                    cursor.execute('NOTIFY c')
                    assert conn.notices
                    assert conn.notifies


@pytest.fixture(scope='module')
def successor() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        server.query('CREATE TABLE written (a int)')
        yield server


class TestUseless:
    """After some errors a connection is useless although it is alive, and so may be the endpoint's others."""

    @pytest.fixture
    def predecessor(self, postgres: PostgresServer) -> Iterator[PostgresServer]:
        postgres.query('CREATE TABLE written (a int)')
        yield postgres
        postgres.query('ALTER SYSTEM RESET default_transaction_read_only')
        postgres.query('SELECT pg_reload_conf()')
        postgres.query('SET default_transaction_read_only = off; DROP TABLE written')

    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    @pytest.mark.parametrize('grouped', [True, False])
    def test_failover(
        self, predecessor: PostgresServer, successor: PostgresServer, make: Callable[..., Any], grouped: bool
    ) -> None:
        with stalled(predecessor) as proxy:
            params = params_by(proxy, predecessor)
            pool = gcpool.threading.ConnectionPool[str, Any](make({'db': params}), max_size=4, check_interval=60.0)

            def write() -> None:
                with pool.connection('db') as conn:
                    try:
                        conn.cursor().execute('INSERT INTO written VALUES (1)')
                        conn.commit()
                    except (psycopg.Error, psycopg2.Error) as exc:
                        if not grouped:
                            raise
                        raise in_nested_groups(exc) from None

            with contextlib.ExitStack() as stack:
                pids = {stack.enter_context(pool.connection('db')).info.backend_pid for _ in range(4)}
            fail_over(predecessor, successor, proxy)
            deadline = time.monotonic() + PATIENCE
            with pytest.raises(Exception, match=r'read-only|outer') as caught:  # noqa: PT012
                # The sessions learn of it a moment later.
                while time.monotonic() < deadline:
                    write()
            assert any('read-only transaction' in str(error) for error in errors_in(caught.value))
            for _ in range(12):
                write()
            with contextlib.ExitStack() as stack:
                now = {stack.enter_context(pool.connection('db')).info.backend_pid for _ in range(4)}
            assert not pids & now
            pool.close()

    def test_failover_in_tasks(self, run: Run, predecessor: PostgresServer, successor: PostgresServer) -> None:
        async def main() -> None:
            with stalled(predecessor) as proxy:
                manager = AsyncConnectionManager({'db': params_by(proxy, predecessor)}, kwargs={'autocommit': True})
                pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=4, check_interval=60.0)

                async def write() -> None:
                    async with pool.connection('db') as conn:
                        await conn.execute('INSERT INTO written VALUES (1)')

                async with contextlib.AsyncExitStack() as stack:
                    idle = await pool.acquire('db')
                    held = [await stack.enter_async_context(pool.connection('db')) for _ in range(3)]
                    await pool.release(idle, 'db')
                    pids = {conn.info.backend_pid for conn in held}
                    fail_over(predecessor, successor, proxy)
                    deadline = time.monotonic() + PATIENCE
                    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):  # noqa: PT012
                        while time.monotonic() < deadline:
                            await write()
                    # Those in use are released after that.
                for _ in range(12):
                    await write()
                async with contextlib.AsyncExitStack() as stack:
                    held = [await stack.enter_async_context(pool.connection('db')) for _ in range(4)]
                    assert not pids & {conn.info.backend_pid for conn in held}
                await pool.close()

        run(main)

    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    def test_a_read_only_transaction_of_the_users_own(
        self, predecessor: PostgresServer, make: Callable[..., Any]
    ) -> None:
        manager = make({'db': predecessor.dsn})
        conn = manager.create('db')
        with pytest.raises((psycopg.Error, psycopg2.Error), match='read-only') as caught:
            conn.cursor().execute('SET TRANSACTION READ ONLY; INSERT INTO written VALUES (1)')
        assert not manager.is_broken('db', conn, caught.value)
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)
        manager.dispose('db', conn)

    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    def test_codes_of_the_users_own(self, postgres: PostgresServer, make: Callable[..., Any]) -> None:
        for codes, expected in (([], False), (['22012'], True)):
            manager = make({'db': postgres.dsn}, broken_codes=codes)
            conn, sibling = manager.create('db'), manager.create('db')
            with pytest.raises((psycopg.Error, psycopg2.Error)) as caught:
                conn.cursor().execute('SELECT 1/0')
            assert manager.is_broken('db', conn, in_nested_groups(caught.value)) is expected
            assert manager.check_aliveness('db', sibling) is not expected
            later = manager.create('db')
            assert manager.check_aliveness('db', later)
            for one in (conn, sibling, later):
                manager.dispose('db', one)

    @pytest.mark.parametrize('make', [ConnectionManager, DbConnectionManager])
    def test_an_error_of_one_session_leaves_the_siblings(
        self, postgres: PostgresServer, make: Callable[..., Any]
    ) -> None:
        manager = make({'db': postgres.dsn})
        conn, sibling = manager.create('db'), manager.create('db')
        with pytest.raises((psycopg.Error, psycopg2.Error)) as caught:
            conn.cursor().execute('EXECUTE unheard_of')
        assert manager.is_broken('db', conn, caught.value)
        assert manager.check_aliveness('db', sibling)
        for one in (conn, sibling):
            manager.dispose('db', one)


def fail_over(predecessor: PostgresServer, successor: PostgresServer, proxy: Proxy) -> None:
    """The server becomes read-only, and the address now leads to another one."""
    assert predecessor.password == successor.password
    predecessor.query('ALTER SYSTEM SET default_transaction_read_only = on')
    predecessor.query('SELECT pg_reload_conf()')
    proxy.server_address = successor.host, successor.port


class TestStalePlans:
    """A table that prepared statements use was changed."""

    @pytest.fixture
    def table(self, postgres: PostgresServer) -> Iterator[str]:
        postgres.query('CREATE TABLE changing (a int)')
        yield 'changing'
        postgres.query('DROP TABLE changing')

    def test_in_threads(self, postgres: PostgresServer, table: str) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, kwargs={'autocommit': True, 'prepare_threshold': 0})
        with contextlib.closing(
            gcpool.threading.ConnectionPool[str, Any](manager, max_size=3, check_interval=60.0)
        ) as pool:

            def use() -> set[int]:
                with contextlib.ExitStack() as stack:
                    conns = [stack.enter_context(pool.connection('db')) for _ in range(3)]
                    for conn in conns:
                        conn.execute('SELECT * FROM changing')
                    return {conn.info.backend_pid for conn in conns}

            before = use()
            postgres.query('ALTER TABLE changing ADD COLUMN b int')
            with pytest.raises(psycopg.errors.FeatureNotSupported), pool.connection('db') as conn:
                conn.execute('SELECT * FROM changing')
            assert all(len(use()) == 3 for _ in range(3))
            after = use()
            # The other connections are refreshed, not closed.
            assert len(before & after) == 2

    def test_in_tasks(self, run: Run, postgres: PostgresServer, table: str) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, kwargs={'autocommit': True, 'prepare_threshold': 0})
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=3, check_interval=60.0)

            async def use() -> set[int]:
                async with contextlib.AsyncExitStack() as stack:
                    conns = [await stack.enter_async_context(pool.connection('db')) for _ in range(3)]
                    for conn in conns:
                        await conn.execute('SELECT * FROM changing')
                    return {conn.info.backend_pid for conn in conns}

            before = await use()
            postgres.query('ALTER TABLE changing ADD COLUMN b int')
            with pytest.raises(psycopg.errors.FeatureNotSupported):
                async with pool.connection('db') as conn:
                    await conn.execute('SELECT * FROM changing')
            for _ in range(3):
                await use()
            after = await use()
            assert len(before & after) == 2
            await pool.close()

        run(main)

    def test_prepared_by_sql(self, postgres: PostgresServer, table: str) -> None:
        manager = DbConnectionManager({'db': postgres.dsn})
        conn = manager.create('db')
        conn.autocommit = True
        cursor = conn.cursor()
        cursor.execute('PREPARE of_user AS SELECT * FROM changing')
        cursor.execute('EXECUTE of_user')
        postgres.query('ALTER TABLE changing ADD COLUMN b int')
        with pytest.raises(psycopg2.errors.FeatureNotSupported) as caught:
            cursor.execute('EXECUTE of_user')
        assert manager.is_broken('db', conn, caught.value)
        manager.dispose('db', conn)


FORGOTTEN = {
    'psycopg': """
import sys
from gcpool.threading import ConnectionPool
from gcpool.contrib.psycopg import ConnectionManager
pool = ConnectionPool(ConnectionManager({'db': sys.argv[1]}), background_collector=True)
with pool.connection('db', timeout=20.0) as conn:
    conn.execute('SELECT 1')
out = pool.acquire('db', timeout=20.0)
print('done')
""",
    'psycopg2': """
import sys
from gcpool.threading import ConnectionPool
from gcpool.contrib.psycopg2 import DbConnectionManager
pool = ConnectionPool(DbConnectionManager({'db': sys.argv[1]}, rollback_timeout=20.0), background_collector=True)
with pool.connection('db', timeout=20.0) as conn:
    conn.cursor().execute('SELECT 1')
out = pool.acquire('db', timeout=20.0)
print('done')
""",
    'psycopg in tasks': """
import asyncio, sys
from gcpool.asyncio import ConnectionPool
from gcpool.contrib.psycopg import AsyncConnectionManager

async def main():
    pool = ConnectionPool(AsyncConnectionManager({'db': sys.argv[1]}), background_collector=True)
    async with pool.connection('db', timeout=20.0) as conn:
        await conn.execute('SELECT 1')
    out = await pool.acquire('db', timeout=20.0)
    print('done')

asyncio.run(main())
""",
}


@pytest.mark.parametrize('kind', FORGOTTEN)
def test_a_program_that_forgets_close_ends(postgres: PostgresServer, kind: str) -> None:
    done = run_program(FORGOTTEN[kind], postgres)
    assert (done.returncode, done.stdout) == (0, 'done\n'), done.stderr
