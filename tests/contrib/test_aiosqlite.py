"""The manager of aiosqlite's connections, alone and in pools, with real files."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import gcpool.asyncio
from gcpool.exceptions import ConnectError, DiscardConnection
from tests.contrib.cancelling import cancel
from tests.contrib.conftest import Run
from tests.contrib.raising import HOW_IT_IS_RAISED
from tests.contrib.servers import PATIENCE

aiosqlite = pytest.importorskip('aiosqlite')

from gcpool.contrib.aiosqlite import BROKEN_CODES, Connection, SqliteConnectionManager, SqliteEndpoint  # noqa: E402

#: Keeps a thread busy until it is interrupted.
ENDLESS = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n'

AUTOCOMMIT = [
    None,
    pytest.param(True, marks=pytest.mark.since_python(3, 12)),
    pytest.param(False, marks=pytest.mark.since_python(3, 12)),
]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith('Thread-'):
            thread.join(PATIENCE)
            assert not thread.is_alive(), f'{thread} does not end'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / 'test.db'
    with sqlite3.connect(path) as conn:
        conn.execute('CREATE TABLE t (n INTEGER)')
    conn.close()
    return path


@pytest.fixture
def manager() -> SqliteConnectionManager:
    return SqliteConnectionManager()


async def fetch(conn: Connection, statement: str) -> Any:
    async with conn.execute(statement) as cursor:
        row = await cursor.fetchone()
        return row and row[0]


async def start_endless(conn: Connection) -> 'asyncio.Task[Any]':
    """A task that waits for a statement that does not end, and that the thread has begun."""
    begun = threading.Event()

    def begin() -> int:
        begun.set()
        return 1

    await conn.create_function('begin', 0, begin)
    task = asyncio.ensure_future(fetch(conn, ENDLESS.replace('SELECT 1 ', 'SELECT begin() ')))
    assert await asyncio.get_running_loop().run_in_executor(None, begun.wait, PATIENCE)
    return task


class TestCreate:
    def test_opens(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            for endpoint in (path, str(path)):
                conn = await manager.create(endpoint)
                assert await fetch(conn, 'SELECT count(*) FROM t') == 0
                assert await manager.check_aliveness(endpoint, conn)
                await manager.dispose(endpoint, conn)

        run(main)

    def test_parameters(self, path: Path, run: Run) -> None:
        async def main() -> None:
            manager = SqliteConnectionManager(
                uri=True, pragmas={'foreign_keys': True}, isolation_level='IMMEDIATE', timeout=3.0
            )
            conn = await manager.create(f'file:{path}?mode=ro')
            assert await fetch(conn, 'PRAGMA foreign_keys') == 1
            assert await fetch(conn, 'PRAGMA busy_timeout') == 3000
            assert conn.isolation_level == 'IMMEDIATE'
            with pytest.raises(sqlite3.OperationalError, match='readonly'):
                await conn.execute('INSERT INTO t VALUES (1)')
            await manager.dispose('x', conn)

        run(main)
        with pytest.raises(ValueError, match='is not the name of a pragma'):
            SqliteConnectionManager(pragmas={'x; DROP TABLE t': 1})

    def test_a_directory_that_does_not_exist(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        endpoint = path.parent / 'none' / 'test.db'

        async def main() -> None:
            with pytest.raises(ConnectError, match='check that its directory exists') as caught:
                await manager.create(endpoint)
            assert isinstance(caught.value, sqlite3.OperationalError)
            assert repr(endpoint) in str(caught.value)

        run(main)

    def test_no_path(self, manager: SqliteConnectionManager, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match='PathLike'):
                await manager.create(5)  # type: ignore[arg-type]

        run(main)

    def test_a_file_that_is_no_database(self, tmp_path: Path, run: Run) -> None:
        endpoint = tmp_path / 'text'
        endpoint.write_text('no database at all, but long enough to be looked at' * 100)

        async def main() -> None:
            with pytest.raises(ConnectError, match='check that the file is an SQLite database') as caught:
                await SqliteConnectionManager(pragmas={'journal_mode': 'wal'}).create(endpoint)
            assert isinstance(caught.value, sqlite3.DatabaseError)

        run(main)

    def test_locked_and_cancelled(self, path: Path, run: Run) -> None:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute('BEGIN EXCLUSIVE')

        async def main() -> None:
            with pytest.raises(ConnectError, match='give the manager a longer timeout') as caught:
                await SqliteConnectionManager(timeout=0.05, pragmas={'journal_mode': 'wal'}).create(path)
            assert isinstance(caught.value, sqlite3.OperationalError)
            manager = SqliteConnectionManager(timeout=PATIENCE, pragmas={'journal_mode': 'wal'})
            task = asyncio.ensure_future(manager.create(path))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(task, 0.05)
            # Nothing waits for the thread; it closes the database once it is open.
            holder.execute('ROLLBACK')
            holder.close()

        run(main)

    def test_cancelled_before_it_has_begun(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            for turns in range(4):
                task = asyncio.ensure_future(manager.create(path))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    conn = await task
                except asyncio.CancelledError:
                    pass
                else:
                    await manager.dispose(path, conn)

        run(main)


class TestState:
    def test_nothing_to_mend(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            conn = await manager.create(path)
            await conn.execute('INSERT INTO t VALUES (1)')
            await conn.commit()
            begun = conn._begun
            await manager.on_release(path, conn)
            assert await manager.check_aliveness(path, conn)
            assert not await manager.is_broken(path, conn, ValueError())
            # Nothing was handed to the thread.
            assert conn._begun == begun
            await manager.dispose(path, conn)

        run(main)

    @pytest.mark.parametrize('autocommit', AUTOCOMMIT)
    def test_rolls_back(self, path: Path, run: Run, autocommit: bool | None) -> None:
        async def main() -> None:
            manager = SqliteConnectionManager(autocommit=autocommit)
            conn = await manager.create(path)
            if autocommit:
                await conn.execute('BEGIN')
            await conn.execute('INSERT INTO t VALUES (1)')
            assert conn.in_transaction
            assert not await manager.is_broken(path, conn, ValueError())
            await manager.on_release(path, conn)
            assert autocommit is False or not conn.in_transaction
            assert await fetch(conn, 'SELECT count(*) FROM t') == 0
            await manager.dispose(path, conn)

        run(main)

    def test_closes_cursors(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            conn = await manager.create(path)
            cursor = await conn.execute('SELECT 1 UNION SELECT 2')
            assert await cursor.fetchone() == (1,)
            await manager.on_release(path, conn)
            with pytest.raises(sqlite3.ProgrammingError, match='closed cursor'):
                await cursor.fetchone()
            assert await manager.check_aliveness(path, conn)
            await manager.dispose(path, conn)

        run(main)

    def test_cancelled_in_a_statement(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            conn = await manager.create(path)
            await cancel(await start_endless(conn))
            assert await manager.is_broken(path, conn, asyncio.CancelledError())
            with pytest.raises(DiscardConnection, match='is still executing a statement'):
                await manager.on_release(path, conn)
            assert not await manager.check_aliveness(path, conn)
            await manager.dispose(path, conn)
            assert not conn._thread.is_alive()

        run(main)

    def test_closed_by_its_user(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            conn = await manager.create(path)
            await conn.close()
            with pytest.raises(ValueError, match='active connection'):
                await conn.execute('SELECT 1')
            assert not conn.is_busy
            assert not await manager.check_aliveness(path, conn)
            assert await manager.is_broken(path, conn, ValueError())
            with pytest.raises(DiscardConnection, match='is closed'):
                await manager.on_release(path, conn)
            await manager.dispose(path, conn)

        run(main)

    @pytest.mark.skipif(sys.platform == 'win32', reason='an open file cannot be replaced')
    def test_a_file_that_was_replaced(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            conn = await manager.create(path)
            sqlite3.connect(path.with_name('new.db')).close()
            path.with_name('new.db').touch()
            os.replace(path.with_name('new.db'), path)
            assert not await manager.check_aliveness(path, conn)
            await manager.dispose(path, conn)

        run(main)

    def test_a_rollback_that_fails(
        self, manager: SqliteConnectionManager, path: Path, run: Run, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> None:
            conn = await manager.create(path)
            await conn.execute('INSERT INTO t VALUES (1)')
            await conn.set_authorizer(lambda *what: sqlite3.SQLITE_DENY)
            with (
                caplog.at_level(logging.WARNING, 'gcpool.contrib.aiosqlite'),
                pytest.raises(DiscardConnection, match='cannot be rolled back'),
            ):
                await manager.on_release(path, conn)
            assert 'cannot be rolled back' in caplog.text
            await manager.dispose(path, conn)

        run(main)


class TestDispose:
    def test_twice(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            conn = await manager.create(path)
            await manager.dispose(path, conn)
            assert not conn._thread.is_alive()
            await manager.dispose(path, conn)
            assert not await manager.check_aliveness(path, conn)
            with pytest.raises(ValueError, match=r'closed|active connection'):
                await conn.execute('SELECT 1')

        run(main)

    def test_interrupts(self, manager: SqliteConnectionManager, path: Path, run: Run) -> None:
        async def main() -> None:
            conn = await manager.create(path)
            task = await start_endless(conn)
            await manager.dispose(path, conn)
            with pytest.raises(sqlite3.OperationalError, match='interrupted'):
                await task
            assert not conn._thread.is_alive()

        run(main)

    def test_does_not_wait_for_what_cannot_be_interrupted(self, path: Path, run: Run) -> None:
        async def main() -> None:
            manager = SqliteConnectionManager(close_timeout=0.05)
            conn = await manager.create(path)
            begun, go_on = threading.Event(), threading.Event()

            def hold() -> int:
                begun.set()
                return int(go_on.wait(PATIENCE))

            await conn.create_function('hold', 0, hold)
            task = asyncio.ensure_future(fetch(conn, 'SELECT hold()'))
            assert await asyncio.get_running_loop().run_in_executor(None, begun.wait, PATIENCE)
            began = time.monotonic()
            await manager.dispose(path, conn)
            assert time.monotonic() - began < PATIENCE / 2
            assert conn._thread.is_alive()
            go_on.set()
            # Either the statement was interrupted, or its cursor cannot be used any more.
            with contextlib.suppress(sqlite3.OperationalError, ValueError):
                await task
            await asyncio.get_running_loop().run_in_executor(None, conn._thread.join, PATIENCE)
            assert not conn._thread.is_alive()

        run(main)


class TestPool:
    def test_tasks(self, path: Path, run: Run, open_descriptors: Callable[[], int]) -> None:
        async def main() -> None:
            before = open_descriptors()
            manager = SqliteConnectionManager(timeout=PATIENCE, pragmas={'journal_mode': 'wal'})
            pool = gcpool.asyncio.ConnectionPool[SqliteEndpoint, Connection](manager, max_size=3)
            try:
                # SQLite does not wait when two connections switch to the log at the same time.
                async with pool.connection(path, PATIENCE) as conn:
                    assert await fetch(conn, 'PRAGMA journal_mode') == 'wal'

                async def insert(number: int) -> None:
                    async with pool.connection(path, PATIENCE) as conn:
                        await conn.execute('INSERT INTO t VALUES (?)', (number,))
                        if number % 2:
                            await conn.commit()

                await asyncio.gather(*(insert(number) for number in range(40)))
                async with pool.connection(path, PATIENCE) as conn:
                    assert await fetch(conn, 'SELECT count(*) FROM t') == 20
                assert pool.get_stats()['created'] <= 3

                async def run_for_ever() -> None:
                    async with pool.connection(path, PATIENCE) as conn:
                        disturbed.append(conn)
                        task = await start_endless(conn)
                        begun.set()
                        await task

                disturbed: list[Connection] = []
                begun = asyncio.Event()
                runner = asyncio.ensure_future(run_for_ever())
                await begun.wait()
                await cancel(runner)
                async with pool.connection(path, PATIENCE) as conn:
                    assert conn not in disturbed
                    assert await fetch(conn, 'SELECT count(*) FROM t') == 20
            finally:
                await pool.close()
            assert not disturbed[0]._thread.is_alive()
            assert open_descriptors() == before

        run(main)

    def test_a_database_that_cannot_be_opened_counts_for_nothing(
        self, manager: SqliteConnectionManager, tmp_path: Path, run: Run
    ) -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[SqliteEndpoint, Connection](manager, max_size=1)
            for _ in range(3):
                with pytest.raises(ConnectError):
                    await pool.acquire(tmp_path / 'none' / 'x.db', PATIENCE)
            assert pool.get_size() == 0
            await pool.close()

        run(main)


@pytest.mark.parametrize('close_timeout', [None, float('inf')])
def test_may_wait_for_the_close_without_limit(path: Path, run: Run, close_timeout: float | None) -> None:
    async def main() -> None:
        manager = SqliteConnectionManager(close_timeout=close_timeout)
        conn = await manager.create(path)
        await manager.dispose(path, conn)
        assert conn.raw is None

    run(main)


@pytest.mark.parametrize('autocommit', AUTOCOMMIT)
@pytest.mark.parametrize('left', ['a transaction', 'a cursor'])
def test_what_a_release_that_was_left_out_has_not_tidied_up_is_nobody_else_s(
    path: Path, run: Run, left: str, autocommit: bool | None
) -> None:
    async def main() -> None:
        pool = gcpool.asyncio.ConnectionPool(SqliteConnectionManager(autocommit=autocommit))
        conn = await pool.acquire(path)
        await pool.release(conn, path)
        async with pool.connection(path) as other:
            assert other is conn
        await pool.acquire(path)
        if left == 'a transaction':
            if autocommit:
                await conn.execute('BEGIN')
            await conn.execute('INSERT INTO t VALUES (1)')
        else:
            cursor = await conn.execute('SELECT 1 UNION ALL SELECT 2')
            assert await cursor.fetchone() is not None
        release = asyncio.ensure_future(pool.release(conn, path))
        # Before its first step.
        release.cancel()
        await asyncio.wait((release,))
        async with pool.connection(path) as other:
            assert other is not conn
            assert await fetch(other, 'SELECT count(*) FROM t') == 0
        assert pool.get_stats()['dead'] == 1
        await pool.close()

    run(main)


@pytest.mark.parametrize('how', ['closed before its first step', 'dropped context'])
def test_a_transaction_that_was_left_open_is_nobody_else_s(path: Path, run: Run, how: str) -> None:
    """For a release that did not reach its hook, which would have rolled it back."""

    async def main() -> None:
        pool = gcpool.asyncio.ConnectionPool(SqliteConnectionManager(), check_interval=3600.0)
        await pool.release(await pool.acquire(path), path)
        context = pool.connection(path)
        conn = await (context.__aenter__() if how == 'dropped context' else pool.acquire(path))
        await conn.execute('INSERT INTO t VALUES (1)')
        assert conn.in_transaction
        if how != 'dropped context':
            pool.release(conn, path).close()
        del context
        assert pool.get_stats()['idle'] == 1
        async with pool.connection(path) as other:
            assert other is not conn
            assert not other.in_transaction
        assert pool.get_stats()['dead'] == 1
        await pool.close()

    run(main)


#: Holds the write lock, and does not end until it is interrupted.
ENDLESS_WRITE = (
    'INSERT INTO t SELECT 1 FROM (WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT n FROM r)'
)


def can_write(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as conn:
        try:
            conn.execute('BEGIN EXCLUSIVE')
        except sqlite3.OperationalError:
            return False
        return True


async def limited(seconds: float, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Have asyncio cancel it when the timeout expires."""
    if sys.version_info >= (3, 11):
        async with asyncio.timeout(seconds):
            await work()
    else:
        await asyncio.wait_for(work(), seconds)


async def closed(pool: 'gcpool.asyncio.ConnectionPool[Any, Any]') -> None:
    """Wait until the connections of a pool are closed. Leaving a block with a broken connection waits only a moment for
    that."""
    deadline = time.monotonic() + PATIENCE
    while pool.get_size():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class TestTimeLimits:
    """What docs/drivers/sqlite.md and docs/recovery.md promise: 0.5 s of margin."""

    LIMIT = 0.5
    MARGIN = 0.5

    @pytest.mark.parametrize('queued', [0, 3])
    def test_a_statement_at_work_ends_with_its_slot(self, path: Path, run: Run, queued: int) -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[SqliteEndpoint, Connection](SqliteConnectionManager(), max_size=1)
            conns = set()

            async def request() -> None:
                async with pool.connection(path) as conn:
                    conns.add(conn)
                    # What is queued after it would not end either.
                    await asyncio.gather(*(conn.execute(ENDLESS_WRITE) for _ in range(1 + queued)))

            for _ in range(3):
                began = time.monotonic()
                with pytest.raises(asyncio.TimeoutError):
                    await limited(self.LIMIT, request)
                assert time.monotonic() - began < self.LIMIT + self.MARGIN
                # The lock is free at the same time as the slot.
                await closed(pool)
                assert can_write(path)
            assert len(conns) == 3
            await pool.close()

        run(main)

    def test_a_statement_that_waits_for_a_lock(self, path: Path, run: Run) -> None:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute('BEGIN EXCLUSIVE')

        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[SqliteEndpoint, Connection](
                SqliteConnectionManager(timeout=5.0), max_size=1
            )

            async def request() -> None:
                async with pool.connection(path) as conn:
                    await conn.execute('INSERT INTO t VALUES (1)')

            began = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await limited(self.LIMIT, request)
            assert time.monotonic() - began < self.LIMIT + self.MARGIN
            await closed(pool)
            await pool.close()

        run(main)
        holder.close()

    def test_an_acquire_that_waits_for_a_lock(self, path: Path, run: Run) -> None:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute('BEGIN EXCLUSIVE')
        before = set(threading.enumerate())

        async def main() -> None:
            manager = SqliteConnectionManager(timeout=3600.0, pragmas={'journal_mode': 'wal', 'foreign_keys': 1})
            pool = gcpool.asyncio.ConnectionPool[SqliteEndpoint, Connection](manager, max_size=2)
            for _ in range(10):
                began = time.monotonic()
                with pytest.raises(asyncio.TimeoutError):
                    await pool.acquire(path, timeout=0.1)
                assert time.monotonic() - began < 0.1 + self.MARGIN
            holder.execute('ROLLBACK')
            async with pool.connection(path, PATIENCE) as conn:
                assert await fetch(conn, 'PRAGMA journal_mode') == 'wal'
                assert await fetch(conn, 'PRAGMA foreign_keys') == 1
            await pool.close()

        # They do not wait for an hour.
        run(main)
        deadline = time.monotonic() + 2.0
        for thread in set(threading.enumerate()) - before:
            thread.join(max(deadline - time.monotonic(), 0))
            assert not thread.is_alive() or not thread.name.startswith('Thread-')
        holder.close()

    @pytest.mark.parametrize('name', ['busy_timeout', 'main.Busy_Timeout'])
    def test_the_busy_timeout_is_that_of_the_pragmas_or_the_manager(self, path: Path, run: Run, name: str) -> None:
        async def main() -> None:
            for pragmas, expected in (({name: 20000, 'foreign_keys': 1}, 20000), ({'foreign_keys': 1}, 3000)):
                conn = await SqliteConnectionManager(timeout=3.0, pragmas=pragmas).create(path)
                assert await fetch(conn, 'PRAGMA busy_timeout') == expected
                await SqliteConnectionManager().dispose(path, conn)

        run(main)


class TestUselessness:
    """See :py:mod:`gcpool.contrib.sqlite3`, whose tests have the details; these check that the hook is called."""

    @HOW_IT_IS_RAISED
    @pytest.mark.parametrize('code', sorted({*BROKEN_CODES, 8 | 4 << 8}))
    def test_codes(self, manager: SqliteConnectionManager, path: Path, run: Run, code: int, wrap: Any) -> None:
        exc: Any = sqlite3.OperationalError('said by SQLite')
        exc.sqlite_errorcode = code
        other: Any = sqlite3.OperationalError('said by SQLite')
        other.sqlite_errorcode = 5

        async def main() -> None:
            first, second = await manager.create(path), await manager.create(path)
            assert not await manager.is_broken(path, first, wrap(other))
            assert await manager.check_aliveness(path, second)
            assert await manager.is_broken(path, first, wrap(exc))
            assert not await manager.check_aliveness(path, second)
            with pytest.raises(DiscardConnection, match='older than an error of broken_codes'):
                await manager.on_release(path, second)
            new = await manager.create(path)
            assert await manager.check_aliveness(path, new)
            for conn in (first, second, new):
                await manager.dispose(path, conn)

        run(main)

    def test_a_full_reset(self, path: Path, run: Run) -> None:
        async def main() -> None:
            manager = SqliteConnectionManager(reset='full', pragmas={'foreign_keys': 1})
            pool = gcpool.asyncio.ConnectionPool[SqliteEndpoint, Connection](manager, max_size=1)
            for _ in range(20):
                async with pool.connection(path) as conn:
                    assert await fetch(conn, 'PRAGMA foreign_keys') == 1
                    assert await fetch(conn, 'SELECT count(*) FROM temp.sqlite_master') == 0
                    assert await fetch(conn, "SELECT upper('x')") == 'X'
                    assert conn.row_factory is None
                    await conn.execute('CREATE TEMP TABLE left_table (n)')
                    await conn.execute('PRAGMA foreign_keys = 0')
                    await conn.create_function('upper', 1, lambda _text: 'left')
                    conn.row_factory = sqlite3.Row
                    await conn.execute('INSERT INTO t VALUES (1)')
            async with pool.connection(path) as conn:
                assert await fetch(conn, 'SELECT count(*) FROM t') == 0
            await pool.close()

        run(main)

    def test_a_full_reset_after_a_release_that_was_cut_off(self, path: Path, run: Run) -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[SqliteEndpoint, Connection](SqliteConnectionManager(reset='full'))
            conn = await pool.acquire(path)
            await conn.execute('PRAGMA foreign_keys = 1')
            # Before its first step.
            pool.release(conn, path).close()
            async with pool.connection(path) as other:
                assert other is not conn
                assert await fetch(other, 'PRAGMA foreign_keys') == 0
            await pool.close()

        run(main)

    @pytest.mark.parametrize('endpoint', ['test.db', './test.db', b'test.db', Path('test.db'), ':memory:', ''])
    def test_spellings(
        self, manager: SqliteConnectionManager, path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: Any
    ) -> None:
        monkeypatch.chdir(path.parent)
        assert manager.normalize(endpoint) == (endpoint if endpoint in (':memory:', '') else str(path))
