"""The manager of SQLite databases, alone, against real files."""

import contextlib
import gc
import itertools
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gcpool.contrib import sqlite3 as contrib
from gcpool.contrib.sqlite3 import BROKEN_CODES, PooledConnection, SqliteConnectionManager, SqliteEndpoint
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection
from gcpool.threading import ConnectionPool
from tests.contrib.raising import HOW_IT_IS_RAISED
from tests.contrib.servers import PATIENCE

# Some tests do not exist before the Python version that they need; a skipped test would look like a fault.
HAS_AUTOCOMMIT = sys.version_info >= (3, 12)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with a table ``t`` of a hundred numbers."""
    path = tmp_path / 'test.db'
    conn = sqlite3.connect(path)
    conn.execute('CREATE TABLE t (n INTEGER PRIMARY KEY, data BLOB)')
    conn.executemany('INSERT INTO t (data) VALUES (?)', [(b'data',)] * 100)
    conn.commit()
    conn.close()
    return path


@pytest.fixture
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that keeps the database locked until it is rolled back."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute('BEGIN EXCLUSIVE')
    yield conn
    conn.close()


def can_write(path: Path) -> bool:
    conn = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        conn.execute('BEGIN EXCLUSIVE')
    except sqlite3.OperationalError:
        return False
    finally:
        conn.close()
    return True


def value_of(conn: sqlite3.Connection, pragma: str) -> Any:
    return conn.execute(f'PRAGMA {pragma}').fetchone()[0]


class TestCreate:
    @pytest.mark.parametrize('as_text', [True, False])
    def test_opens(self, path: Path, as_text: bool) -> None:
        endpoint = str(path) if as_text else path
        manager = SqliteConnectionManager()
        conn = manager.create(endpoint)
        assert conn.execute('SELECT count(*) FROM t').fetchone() == (100,)
        manager.dispose(endpoint, conn)

    def test_opens_uris(self, path: Path) -> None:
        manager = SqliteConnectionManager(uri=True)
        conn = manager.create(f'file:{path}?mode=ro')
        with pytest.raises(sqlite3.OperationalError, match='readonly'):
            conn.execute('DELETE FROM t')
        manager.dispose('', conn)

    def test_shares_a_database_in_memory(self) -> None:
        manager = SqliteConnectionManager(uri=True)
        endpoint = 'file:gcpool-test?mode=memory&cache=shared'
        first = manager.create(endpoint)
        first.execute('CREATE TABLE t (n)')
        second = manager.create(endpoint)
        assert second.execute('SELECT count(*) FROM t').fetchone() == (0,)
        for conn in (first, second):
            assert manager.check_aliveness(endpoint, conn)
            manager.dispose(endpoint, conn)

    def test_passes_its_parameters_on(self, path: Path) -> None:
        class Connection(PooledConnection):
            pass

        manager = SqliteConnectionManager(
            timeout=1.5,
            detect_types=sqlite3.PARSE_COLNAMES,
            isolation_level='IMMEDIATE',
            factory=Connection,
            cached_statements=7,
        )
        conn = manager.create(path)
        assert type(conn) is Connection
        assert conn.isolation_level == 'IMMEDIATE'
        assert value_of(conn, 'busy_timeout') == 1500
        sqlite3.register_converter('shout', bytes.upper)
        assert conn.execute('SELECT \'quiet\' AS "it [shout]"').fetchone() == (b'QUIET',)
        manager.dispose(path, conn)

    def test_sets_pragmas(self, path: Path) -> None:
        manager = SqliteConnectionManager(
            pragmas={
                'journal_mode': 'wal',
                'main.synchronous': 'NORMAL',
                'foreign_keys': True,
                'recursive_triggers': False,
                'cache_size': -3000,
                'application_id': 12,
            }
        )
        conn = manager.create(path, 5.0)
        assert value_of(conn, 'journal_mode') == 'wal'
        assert value_of(conn, 'synchronous') == 1
        assert value_of(conn, 'foreign_keys') == 1
        assert value_of(conn, 'recursive_triggers') == 0
        assert value_of(conn, 'cache_size') == -3000
        assert value_of(conn, 'application_id') == 12
        assert value_of(conn, 'busy_timeout') == 5000
        assert not conn.in_transaction
        manager.dispose(path, conn)

    @pytest.mark.parametrize('name', ['', 'a b', 'a;b', "a'", 'a.b.c', '1a'])
    def test_says_what_is_no_pragma(self, name: str) -> None:
        with pytest.raises(ValueError, match='is not the name of a pragma'):
            SqliteConnectionManager(pragmas={name: 1})

    def test_quotes_values_of_pragmas(self, path: Path) -> None:
        manager = SqliteConnectionManager(pragmas={'journal_mode': "wal'; DROP TABLE t; --"})
        conn = manager.create(path)
        assert conn.execute('SELECT count(*) FROM t').fetchone() == (100,)
        assert value_of(conn, 'journal_mode') == 'delete'
        manager.dispose(path, conn)

    def test_failed_leaves_nothing_open(self, tmp_path: Path, open_descriptors: Callable[[], int]) -> None:
        (tmp_path / 'text').write_text('this is not a database, and long enough not to be taken for an empty one' * 20)
        manager = SqliteConnectionManager(pragmas={'journal_mode': 'wal'})
        before = open_descriptors()
        with pytest.raises(sqlite3.DatabaseError):
            manager.create(tmp_path / 'text', 5.0)
        assert open_descriptors() == before
        with pytest.raises(sqlite3.OperationalError):
            manager.create(tmp_path / 'no directory' / 'test.db')
        assert open_descriptors() == before

    @pytest.mark.parametrize('timeout', [0, 0.05])
    def test_locked_times_out(
        self, path: Path, locked: sqlite3.Connection, open_descriptors: Callable[[], int], timeout: float
    ) -> None:
        manager = SqliteConnectionManager(timeout=PATIENCE, pragmas={'journal_mode': 'wal'})
        before = open_descriptors()
        with pytest.raises(TimeoutError, match='was locked') as caught:
            manager.create(path, timeout)
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        # Where closing a file drops its locks, SQLite delays it while they are held.
        locked.rollback()
        assert open_descriptors() == before

    def test_locked_is_an_error_if_the_time_is_not_over(
        self, path: Path, locked: sqlite3.Connection, open_descriptors: Callable[[], int]
    ) -> None:
        manager = SqliteConnectionManager(timeout=0, pragmas={'journal_mode': 'wal'})
        before = open_descriptors()
        with pytest.raises(sqlite3.OperationalError, match='locked'):
            manager.create(path, PATIENCE)
        locked.rollback()
        assert open_descriptors() == before

    def test_gives_the_busy_timeout_back(self, path: Path) -> None:
        manager = SqliteConnectionManager(timeout=9.0, pragmas={'foreign_keys': True})
        conn = manager.create(path, 0.5)
        assert value_of(conn, 'busy_timeout') == 9000
        manager.dispose(path, conn)

    @pytest.mark.parametrize('name', ['busy_timeout', 'main.Busy_Timeout'])
    @pytest.mark.parametrize('timeout', [None, 0.5, 30.0])
    def test_a_busy_timeout_of_the_pragmas_stays(self, path: Path, name: str, timeout: float | None) -> None:
        manager = SqliteConnectionManager(pragmas={name: 20000, 'foreign_keys': True})
        conn = manager.create(path, timeout)
        assert value_of(conn, 'busy_timeout') == 20000
        manager.dispose(path, conn)

    def test_a_busy_timeout_of_the_pragmas_does_not_outlast_the_time(
        self, path: Path, locked: sqlite3.Connection
    ) -> None:
        milliseconds = int(PATIENCE * 1000)
        manager = SqliteConnectionManager(timeout=0, pragmas={'busy_timeout': milliseconds, 'journal_mode': 'wal'})
        with pytest.raises(ConnectTimeout, match='was locked'):
            manager.create(path, 0.05)

    @pytest.mark.parametrize('timeout', [None, 0.5])
    def test_takes_an_infinite_limit_for_the_longest(self, path: Path, timeout: float | None) -> None:
        manager = SqliteConnectionManager(timeout=float('inf'), pragmas={'foreign_keys': True})
        conn = manager.create(path, timeout)
        assert value_of(conn, 'busy_timeout') == 2147483000
        manager.dispose(path, conn)

    @pytest.mark.parametrize(('endpoint', 'kind'), [(7, TypeError), ('a\0b', ValueError)])
    def test_says_what_is_no_path(self, endpoint: Any, kind: type[Exception]) -> None:
        with pytest.raises(kind, match=r'no connection to endpoint .*; check the path') as caught:
            SqliteConnectionManager().create(endpoint)
        assert isinstance(caught.value, ConnectError)
        assert caught.value.endpoint == endpoint

    @pytest.mark.parametrize('factory', [sqlite3.Connection, sqlite3.connect, None])
    def test_says_what_a_factory_is(self, factory: type[PooledConnection]) -> None:
        with pytest.raises(TypeError, match='factory must be a subclass of PooledConnection, not'):
            SqliteConnectionManager(factory=factory)

    def test_needs_thread_safety(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite3, 'threadsafety', 0)
        with pytest.raises(sqlite3.NotSupportedError, match='thread safety'):
            SqliteConnectionManager()

    def test_says_that_autocommit_is_newer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(contrib, '_HAS_AUTOCOMMIT', False)
        with pytest.raises(ValueError, match=r'autocommit=True needs Python 3\.12'):
            SqliteConnectionManager(autocommit=True)

    @pytest.mark.parametrize('autocommit', [True, False] if HAS_AUTOCOMMIT else [None])
    def test_sets_autocommit_after_the_pragmas(self, path: Path, autocommit: bool | None) -> None:
        manager = SqliteConnectionManager(autocommit=autocommit, pragmas={'journal_mode': 'wal', 'foreign_keys': 1})
        conn = manager.create(path, 5.0)
        # With False a transaction is always open.
        assert conn.in_transaction is (autocommit is False)
        assert value_of(conn, 'journal_mode') == 'wal'
        assert value_of(conn, 'foreign_keys') == 1
        manager.dispose(path, conn)

    def test_is_for_any_thread(self, path: Path) -> None:
        manager = SqliteConnectionManager()
        conns: list[PooledConnection] = []
        creator = threading.Thread(target=lambda: conns.append(manager.create(path)))
        creator.start()
        creator.join(PATIENCE)
        (conn,) = conns
        conn.execute('INSERT INTO t DEFAULT VALUES')
        manager.on_release(path, conn)
        assert manager.check_aliveness(path, conn)
        manager.dispose(path, conn)


@pytest.fixture(
    params=[
        pytest.param({}, id='legacy'),
        pytest.param({'isolation_level': None}, id='no isolation level'),
        *(pytest.param({'autocommit': on}, id=f'autocommit={on}') for on in (True, False) if HAS_AUTOCOMMIT),
    ]
)
def manager(request: pytest.FixtureRequest) -> SqliteConnectionManager:
    """A manager for each way to begin transactions."""
    return SqliteConnectionManager(**request.param)


class TestRelease:
    def test_keeps_what_was_committed(self, manager: SqliteConnectionManager, path: Path) -> None:
        conn = manager.create(path)
        conn.execute('DELETE FROM t WHERE n > 50')
        conn.commit()
        manager.on_release(path, conn)
        assert conn.execute('SELECT count(*) FROM t').fetchone() == (50,)
        manager.dispose(path, conn)

    def test_rolls_back_what_was_not(self, manager: SqliteConnectionManager, path: Path) -> None:
        conn = manager.create(path)
        if not conn.in_transaction:
            conn.execute('BEGIN')
        conn.execute('DELETE FROM t')
        assert not can_write(path)
        manager.on_release(path, conn)
        assert can_write(path)
        assert manager.check_aliveness(path, conn)
        assert conn.execute('SELECT count(*) FROM t').fetchone() == (100,)
        manager.dispose(path, conn)

    def test_executes_nothing_if_there_is_nothing_to_roll_back(self, path: Path) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(path)
        statements: list[str] = []
        conn.set_trace_callback(statements.append)
        manager.on_release(path, conn)
        assert manager.check_aliveness(path, conn)
        assert statements == []
        manager.dispose(path, conn)

    @pytest.mark.parametrize('by_cursor', [True, False])
    def test_closes_a_result_that_was_not_read_to_the_end(
        self, manager: SqliteConnectionManager, path: Path, by_cursor: bool
    ) -> None:
        conn = manager.create(path)
        cursor = (conn.cursor() if by_cursor else conn).execute('SELECT n FROM t ORDER BY n')
        assert next(cursor) == (1,)
        assert not can_write(path)
        manager.on_release(path, conn)
        assert can_write(path)
        with pytest.raises(sqlite3.ProgrammingError, match='closed cursor'):
            next(cursor)
        manager.dispose(path, conn)

    if sys.version_info >= (3, 11):

        def test_closes_a_blob(self, manager: SqliteConnectionManager, path: Path) -> None:
            conn = manager.create(path)
            blob = conn.blobopen('t', 'data', 1)
            assert not can_write(path)
            manager.on_release(path, conn)
            assert can_write(path)
            with pytest.raises(sqlite3.ProgrammingError, match='closed blob'):
                blob.read()
            manager.dispose(path, conn)

    def test_lets_a_user_have_closed_it(self, path: Path) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(path)
        conn.close()
        with pytest.raises(DiscardConnection, match='is closed'):
            manager.on_release(path, conn)
        assert not manager.check_aliveness(path, conn)
        manager.dispose(path, conn)

    def test_serves_no_closed_one(self, path: Path) -> None:
        # Not even where it would not be checked.
        pool = ConnectionPool[SqliteEndpoint, PooledConnection](SqliteConnectionManager(), check_interval=3600.0)
        with pool.connection(path) as conn:
            conn.close()
        with pool.connection(path) as conn:
            assert conn.execute('SELECT 1').fetchone() == (1,)
        pool.close()

    def test_forgets_cursors_that_nobody_holds(self, path: Path) -> None:
        conn = SqliteConnectionManager().create(path)
        assert isinstance(conn, PooledConnection)
        for _ in range(1000):
            conn.execute('SELECT n FROM t').fetchone()
        gc.collect()
        assert len(conn._given_out) == 0
        conn.close()

    def test_closes_what_cannot_be_rolled_back(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        class Stubborn(PooledConnection):
            def rollback(self) -> None:
                raise sqlite3.OperationalError('disk I/O error')

        manager = SqliteConnectionManager(factory=Stubborn)
        conn = manager.create(path)
        conn.execute('DELETE FROM t')
        with (
            caplog.at_level(logging.WARNING, 'gcpool.contrib.sqlite3'),
            pytest.raises(DiscardConnection, match='cannot be rolled back'),
        ):
            manager.on_release(path, conn)
        assert 'disk I/O error' in caplog.text
        assert not manager.check_aliveness(path, conn)
        assert can_write(path)

    def test_interrupted_leaves_nothing_that_would_be_served(self, path: Path) -> None:
        class Interrupted(PooledConnection):
            def rollback(self) -> None:
                raise KeyboardInterrupt

        manager = SqliteConnectionManager(factory=Interrupted)
        conn = manager.create(path)
        conn.execute('DELETE FROM t')
        with pytest.raises(KeyboardInterrupt):
            manager.on_release(path, conn)
        assert not manager.check_aliveness(path, conn)
        assert can_write(path)


class TestAliveness:
    def test_leaves_no_transaction(self, path: Path) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(path)
        assert manager.check_aliveness(path, conn)
        assert not conn.in_transaction
        assert can_write(path)
        manager.dispose(path, conn)

    @pytest.mark.parametrize('left', ['a transaction', 'a cursor'])
    @pytest.mark.parametrize('autocommit', [None, True, False] if HAS_AUTOCOMMIT else [None])
    def test_of_one_whose_release_was_interrupted(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, left: str, autocommit: bool | None
    ) -> None:
        def interrupted(conn: object) -> bool:
            raise KeyboardInterrupt

        pool = ConnectionPool[SqliteEndpoint, PooledConnection](SqliteConnectionManager(autocommit=autocommit))
        conn = pool.acquire(path)
        pool.release(conn, path)
        with pool.connection(path) as other:
            assert other is conn
        pool.acquire(path)
        if left == 'a transaction':
            if autocommit:
                conn.execute('BEGIN')
            conn.execute('DELETE FROM t')
        else:
            cursor = conn.execute('SELECT n FROM t')
            assert cursor.fetchone() is not None
        with monkeypatch.context() as patch:
            patch.setattr(contrib, 'is_closed', interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.release(conn, path)
        with pool.connection(path) as other:
            assert other is not conn
            assert other.execute('SELECT count(*) FROM t').fetchone() == (100,)
        # Nothing holds the lock, although the first user still has the connection: a thread of the pool closed it.
        until(lambda: can_write(path))
        assert pool.get_stats()['dead'] == 1
        pool.close()

    def test_does_not_wait_for_a_lock(self, path: Path, locked: sqlite3.Connection) -> None:
        manager = SqliteConnectionManager(timeout=3600.0)
        conn = manager.create(path)
        assert manager.check_aliveness(path, conn, 0)
        manager.dispose(path, conn)

    @pytest.mark.skipif(sys.platform == 'win32', reason='a file that is open cannot be replaced there')
    @pytest.mark.parametrize(
        'row_factory',
        [sqlite3.Row, lambda cursor, row: {'file': row[0], 'n': row[-1]}, lambda cursor, row: row[0]],
        ids=['Row', 'dict', 'scalar'],
    )
    def test_of_one_whose_rows_are_no_tuples(self, path: Path, row_factory: Any) -> None:
        class Special(PooledConnection):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.row_factory = row_factory

        manager = SqliteConnectionManager(factory=Special, pragmas={'foreign_keys': True})
        conn = manager.create(path, 0.5)
        assert conn.row_factory is row_factory
        assert manager.check_aliveness(path, conn)
        path.unlink()
        assert not manager.check_aliveness(path, conn)
        manager.dispose(path, conn)

    @pytest.mark.skipif(sys.platform == 'win32', reason='a file that is open cannot be replaced there')
    @pytest.mark.parametrize('replaced', [True, False])
    @pytest.mark.parametrize('uri', [True, False])
    def test_of_one_whose_file_is_gone(self, path: Path, replaced: bool, uri: bool) -> None:
        manager = SqliteConnectionManager(uri=uri)
        endpoint = path.as_uri() if uri else path
        conn = manager.create(endpoint)
        if replaced:
            other = path.with_name('other.db')
            sqlite3.connect(other).close()
            os.replace(other, path)
        else:
            path.unlink()
        assert not manager.check_aliveness(endpoint, conn)
        manager.dispose(endpoint, conn)

    @pytest.mark.parametrize('endpoint', [':memory:', ''])
    def test_of_one_without_a_file(self, endpoint: str) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(endpoint)
        assert manager.check_aliveness(endpoint, conn)
        manager.dispose(endpoint, conn)
        assert not manager.check_aliveness(endpoint, conn)


class TestDispose:
    def test_closes(self, path: Path) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(path)
        manager.dispose(path, conn)
        with pytest.raises(sqlite3.ProgrammingError, match='closed database'):
            conn.execute('SELECT 1')
        manager.dispose(path, conn)

    def test_of_one_in_use_lets_its_user_end(self, path: Path, open_descriptors: Callable[[], int]) -> None:
        manager = SqliteConnectionManager()
        before = open_descriptors()
        conn = manager.create(path)
        manager.on_acquire(path, conn)
        conn.execute('DELETE FROM t WHERE n = 1')
        manager.dispose(path, conn)
        conn.commit()
        with pytest.raises(sqlite3.ProgrammingError, match='closed database'):
            conn.execute('DELETE FROM t WHERE n = 2')
        assert open_descriptors() == before
        with pytest.raises(DiscardConnection, match='is closed'):
            manager.on_release(path, conn)
        again = manager.create(path)
        assert again.execute('SELECT min(n) FROM t').fetchone() == (2,)
        manager.dispose(path, again)

    def test_of_one_in_use_closes_when_its_user_lets_go(self, path: Path, open_descriptors: Callable[[], int]) -> None:
        manager = SqliteConnectionManager()
        before = open_descriptors()
        conn = manager.create(path)
        manager.on_acquire(path, conn)
        conn.execute('DELETE FROM t')
        manager.dispose(path, conn)
        assert not can_write(path)
        del conn
        assert open_descriptors() == before
        assert can_write(path)

    def test_of_one_given_back_closes_at_once(self, path: Path, open_descriptors: Callable[[], int]) -> None:
        manager = SqliteConnectionManager()
        before = open_descriptors()
        conn = manager.create(path)
        manager.on_acquire(path, conn)
        manager.on_release(path, conn)
        manager.dispose(path, conn)
        assert open_descriptors() == before

    def test_interrupts_a_running_statement(self, path: Path) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(path)
        manager.on_acquire(path, conn)
        running = threading.Event()
        failures: list[sqlite3.Error] = []
        numbers = itertools.count()

        def count() -> int:
            running.set()
            return next(numbers)

        conn.create_function('count_on', 0, count)

        def run() -> None:
            try:
                # Would run for ever.
                conn.execute(
                    'WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT count_on() FROM r) SELECT sum(n) FROM r'
                ).fetchone()
            except sqlite3.OperationalError as exc:
                failures.append(exc)

        user = threading.Thread(target=run, daemon=True)
        user.start()
        assert running.wait(PATIENCE)
        manager.dispose(path, conn)
        user.join(PATIENCE)
        assert not user.is_alive()
        assert str(failures) == "[OperationalError('interrupted')]"


ENDLESS_WRITE = (
    'INSERT INTO t (data) SELECT 1 FROM (WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT n FROM r)'
)


class TestWorkInAnotherThread:
    """A user returns the connection while another thread, started by the user, is executing a statement with it."""

    @pytest.mark.parametrize('raised', [True, False])
    def test_is_ended_before_the_slot_is_free(self, path: Path, raised: bool) -> None:
        pool = ConnectionPool[SqliteEndpoint, PooledConnection](SqliteConnectionManager(), max_size=1)
        failures: list[str] = []

        def work(conn: PooledConnection) -> None:
            try:
                conn.execute(ENDLESS_WRITE)
            except sqlite3.Error as exc:
                failures.append(str(exc))

        def begin(conn: PooledConnection) -> threading.Thread:
            worker = threading.Thread(target=work, args=(conn,), daemon=True)
            worker.start()
            until(lambda: not can_write(path))
            return worker

        for _ in range(10):
            context = pool.connection(path)
            conn = context.__enter__()
            worker = begin(conn)
            began = time.monotonic()
            error = LookupError() if raised else None
            context.__exit__(type(error) if error else None, error, None)
            # The lock is free at the same time as the slot.
            assert can_write(path)
            assert time.monotonic() - began < 1.5
            worker.join(PATIENCE)
            assert not worker.is_alive()
            with pool.connection(path) as other:
                assert other is not conn
                assert other.execute('SELECT count(*) FROM t').fetchone() == (100,)
        assert failures == ['interrupted'] * 10
        pool.close()

    def test_that_cannot_be_interrupted_is_not_waited_for(self, path: Path) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(path)
        manager.on_acquire(path, conn)
        begun, go_on = threading.Event(), threading.Event()

        def hold() -> int:
            begun.set()
            return int(go_on.wait(PATIENCE))

        def work() -> None:
            with contextlib.suppress(sqlite3.Error):
                conn.execute('SELECT hold() FROM t').fetchall()

        conn.create_function('hold', 0, hold)
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        assert begun.wait(PATIENCE)
        with pytest.raises(DiscardConnection, match='another thread is executing a statement'):
            manager.on_release(path, conn)
        began = time.monotonic()
        manager.dispose(path, conn, 0.1)
        assert time.monotonic() - began < 0.6
        go_on.set()
        worker.join(PATIENCE)
        assert not worker.is_alive()
        with pytest.raises(sqlite3.ProgrammingError, match='closed database'):
            conn.execute('SELECT 1')

    def test_does_not_fail_the_check(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(conn: object) -> bool:
            raise KeyboardInterrupt

        pool = ConnectionPool[SqliteEndpoint, PooledConnection](SqliteConnectionManager())
        conn = pool.acquire(path)

        def work() -> None:
            with contextlib.suppress(sqlite3.Error):
                conn.execute(ENDLESS_WRITE)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        until(lambda: not can_write(path))
        with monkeypatch.context() as patch:
            patch.setattr(contrib, 'is_closed', interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.release(conn, path)
        with pool.connection(path) as other:
            assert other is not conn
            # A thread of the pool closed it for the acquire.
            until(lambda: can_write(path))
        worker.join(PATIENCE)
        pool.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


# What a user may leave behind, and how the next user would see it.
LEFTOVERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    'pragma': (lambda conn: conn.execute('PRAGMA foreign_keys = 0'), lambda conn: value_of(conn, 'foreign_keys')),
    'pragma not set by the manager': (
        lambda conn: conn.execute('PRAGMA query_only = 1'),
        lambda conn: value_of(conn, 'query_only'),
    ),
    'busy timeout': (lambda conn: conn.execute('PRAGMA busy_timeout = 1'), lambda conn: value_of(conn, 'busy_timeout')),
    'temporary table': (
        lambda conn: conn.execute('CREATE TEMP TABLE left_table (n)'),
        lambda conn: conn.execute('SELECT count(*) FROM temp.sqlite_master').fetchone(),
    ),
    'attached database': (
        lambda conn: conn.execute("ATTACH ':memory:' AS left_database"),
        lambda conn: len(conn.execute('PRAGMA database_list').fetchall()),
    ),
    'function': (
        lambda conn: conn.create_function('upper', 1, lambda _text: 'left'),
        lambda conn: conn.execute("SELECT upper('x')").fetchone(),
    ),
    'collation': (
        lambda conn: conn.create_collation('nocase', lambda _a, _b: 0),
        lambda conn: conn.execute("SELECT 'a' = 'b' COLLATE nocase").fetchone(),
    ),
    'row factory': (lambda conn: setattr(conn, 'row_factory', sqlite3.Row), lambda conn: conn.row_factory),
    'text factory': (lambda conn: setattr(conn, 'text_factory', bytes), lambda conn: conn.text_factory),
    'isolation level': (lambda conn: setattr(conn, 'isolation_level', None), lambda conn: conn.isolation_level),
    'authorizer': (
        lambda conn: conn.set_authorizer(lambda *what: sqlite3.SQLITE_IGNORE),
        lambda conn: conn.execute('SELECT n FROM t').fetchone(),
    ),
    'last id': (
        lambda conn: conn.execute('INSERT INTO t (data) VALUES (1)'),
        lambda conn: conn.execute('SELECT last_insert_rowid()').fetchone(),
    ),
    'transaction': (
        lambda conn: conn.execute('DELETE FROM t'),
        lambda conn: conn.execute('SELECT count(*) FROM t').fetchone(),
    ),
}


class TestFullReset:
    @pytest.mark.parametrize('left', LEFTOVERS)
    def test_nothing_reaches_the_next_user(self, path: Path, left: str) -> None:
        leave, show = LEFTOVERS[left]
        manager = SqliteConnectionManager(reset='full', pragmas={'foreign_keys': 1})
        pool = ConnectionPool[SqliteEndpoint, PooledConnection](manager, max_size=1)
        with pool.connection(path) as conn:
            expected = show(conn)
        for _ in range(20):
            with pool.connection(path) as conn:
                assert show(conn) == expected
                leave(conn)
        with pool.connection(path) as conn:
            assert show(conn) == expected
        pool.close()

    @pytest.mark.parametrize('left', [left for left in LEFTOVERS if left != 'transaction'])
    def test_the_next_user_would_see_it(self, path: Path, left: str) -> None:
        leave, show = LEFTOVERS[left]
        pool = ConnectionPool[SqliteEndpoint, PooledConnection](SqliteConnectionManager(pragmas={'foreign_keys': 1}))
        with pool.connection(path) as conn:
            before = show(conn)
            leave(conn)
        with pool.connection(path) as conn:
            assert show(conn) != before
        pool.close()

    def test_a_release_that_was_cut_off(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(conn: object) -> bool:
            raise KeyboardInterrupt

        pool = ConnectionPool[SqliteEndpoint, PooledConnection](SqliteConnectionManager(reset='full'), max_size=1)
        conn = pool.acquire(path)
        conn.execute('PRAGMA foreign_keys = 1')
        with monkeypatch.context() as patch:
            patch.setattr(contrib, 'is_closed', interrupted)
            with pytest.raises(KeyboardInterrupt):
                pool.release(conn, path)
        with pool.connection(path) as other:
            assert other is not conn
            assert value_of(other, 'foreign_keys') == 0
        assert pool.get_stats()['dead'] == 1
        pool.close()


def of_code(code: int) -> sqlite3.Error:
    """An error as Python 3.11 builds it."""
    exc = sqlite3.OperationalError('said by SQLite')
    exc.sqlite_errorcode = code  # type: ignore[attr-defined,unused-ignore]
    return exc


class TestBrokenCodes:
    @HOW_IT_IS_RAISED
    @pytest.mark.parametrize('code', sorted({*BROKEN_CODES, 8 | 4 << 8, 10 | 13 << 8}))
    def test_each_breaks(self, path: Path, code: int, wrap: Any) -> None:
        manager = SqliteConnectionManager()
        conn, later_used = manager.create(path), manager.create(path)
        assert manager.is_broken(path, conn, wrap(of_code(code)))
        assert not manager.check_aliveness(path, later_used)
        with pytest.raises(DiscardConnection, match='older than an error of broken_codes'):
            manager.on_release(path, later_used)
        new = manager.create(path)
        assert manager.check_aliveness(path, new)
        for one in (conn, later_used, new):
            manager.dispose(path, one)

    @pytest.mark.parametrize(
        ('text', 'is_broken'),
        [
            ('attempt to write a readonly database', True),
            ('disk I/O error', True),
            ('database disk image is malformed', True),
            ('file is not a database', True),
            ('database is locked', False),
            ('near "FORM": syntax error', False),
        ],
    )
    def test_each_is_known_by_its_text(self, path: Path, text: str, is_broken: bool) -> None:
        """An error as Python 3.10 builds it."""
        manager = SqliteConnectionManager()
        conn = manager.create(path)
        assert manager.is_broken(path, conn, sqlite3.DatabaseError(text)) is is_broken
        manager.dispose(path, conn)

    @HOW_IT_IS_RAISED
    def test_others_do_not(self, path: Path, wrap: Any) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(path)
        for exc in (of_code(5), of_code(19), of_code(13), ValueError('disk I/O error'), sqlite3.ProgrammingError()):
            assert not manager.is_broken(path, conn, wrap(exc))
        assert manager.check_aliveness(path, conn)
        manager.dispose(path, conn)

    @pytest.mark.parametrize('code', sorted(BROKEN_CODES))
    def test_a_database_in_memory_is_kept(self, code: int) -> None:
        manager = SqliteConnectionManager()
        conn = manager.create(':memory:')
        assert not manager.is_broken(':memory:', conn, of_code(code))
        assert manager.check_aliveness(':memory:', conn)
        manager.dispose(':memory:', conn)

    def test_may_be_replaced(self, path: Path) -> None:
        manager = SqliteConnectionManager(broken_codes=(19,))
        conn = manager.create(path)
        assert [manager.is_broken(path, conn, of_code(code)) for code in (8, 19 | 8 << 8)] == [False, True]
        manager.dispose(path, conn)

    @pytest.mark.parametrize('how', ['query_only', 'overwritten'])
    def test_real_ones(self, path: Path, how: str) -> None:
        """Also where Python does not have the code."""
        good = path.read_bytes()
        pool = ConnectionPool[SqliteEndpoint, PooledConnection](SqliteConnectionManager(), max_size=2)
        first, second = pool.acquire(path), pool.acquire(path)
        for conn in (first, second):
            assert conn.execute('SELECT count(*) FROM t').fetchone() == (100,)
            if how == 'query_only':
                conn.execute('PRAGMA query_only = 1')
            pool.release(conn, path)
        if how == 'overwritten':
            path.write_bytes(b'no database at all' * 1000)
        with pytest.raises(sqlite3.DatabaseError), pool.connection(path) as conn:  # noqa: PT012
            conn.execute('DELETE FROM t')
            conn.execute('SELECT * FROM t').fetchall()
        path.write_bytes(good)
        for conn in [pool.acquire(path), pool.acquire(path)]:
            assert conn not in (first, second)
            conn.execute('DELETE FROM t')
            pool.release(conn, path)
        stats = pool.get_stats()
        assert (stats['broken'], stats['dead']) == (1, 1)
        pool.close()


class TestEndpoints:
    @pytest.mark.parametrize(
        'spelling',
        [
            'test.db',
            './test.db',
            './/./test.db',
            b'test.db',
            Path('test.db'),
            lambda path: path,
            str,
            bytes,
            lambda path: f'{path.parent}/./{path.name}',
            lambda path: f'{path.parent}//{path.name}',
        ],
    )
    def test_spellings_of_one_file(self, path: Path, monkeypatch: pytest.MonkeyPatch, spelling: Any) -> None:
        monkeypatch.chdir(path.parent)
        endpoint: Any = spelling(path) if callable(spelling) else spelling
        normalized = SqliteConnectionManager().normalize(endpoint)
        assert normalized == str(path)
        assert SqliteConnectionManager().normalize(normalized) == normalized

    @pytest.mark.parametrize(
        'endpoint',
        [':memory:', '', 'file:test.db', 'file:/x/../test.db?mode=ro', 'file:name?mode=memory&cache=shared', 7, None],
    )
    @pytest.mark.parametrize('uri', [True, False])
    def test_what_stays_as_it_is(self, endpoint: Any, uri: bool) -> None:
        assert SqliteConnectionManager(uri=uri).normalize(endpoint) == endpoint

    @pytest.mark.skipif(sys.platform == 'win32', reason='links need a privilege there')
    def test_what_may_be_two_databases(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(path.parent)
        elsewhere = path.parent / 'one' / 'two'
        elsewhere.mkdir(parents=True)
        Path('link.db').symlink_to('test.db')
        Path('directory').symlink_to(elsewhere)
        # The last one is test.db of the directory `one`.
        endpoints = ['test.db', 'link.db', 'TEST.db', './:memory:', ':memory:', 'directory/../test.db']
        assert len({SqliteConnectionManager().normalize(endpoint) for endpoint in endpoints}) == len(endpoints)

    @pytest.mark.skipif(sys.platform == 'win32', reason='a current directory cannot be removed there')
    def test_without_a_current_directory(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory = path.parent / 'gone'
        directory.mkdir()
        monkeypatch.chdir(directory)
        directory.rmdir()
        manager = SqliteConnectionManager()
        assert manager.normalize('test.db') == 'test.db'
        with pytest.raises(ConnectError):
            manager.create('test.db')

    @pytest.mark.skipif(sys.platform == 'win32', reason='links need a privilege there')
    @pytest.mark.parametrize('of_directory', [True, False])
    def test_a_link_that_leads_elsewhere_by_now(self, path: Path, of_directory: bool) -> None:
        other = path.parent / 'new' / path.name
        other.parent.mkdir()
        sqlite3.connect(other).close()
        other.touch()
        link = path.parent / 'current'
        endpoint = link / path.name if of_directory else link
        link.symlink_to(path.parent if of_directory else path)
        manager = SqliteConnectionManager()
        conn = manager.create(endpoint)
        assert manager.check_aliveness(endpoint, conn)
        link.unlink()
        link.symlink_to(other.parent if of_directory else other)
        assert not manager.check_aliveness(endpoint, conn)
        manager.dispose(endpoint, conn)


def test_the_managers_of_the_page_leave_nothing_to_the_next_user(capsys: pytest.CaptureFixture[str]) -> None:
    """What docs/drivers/sqlite.md shows, many times."""
    pytest.importorskip('aiosqlite')
    pages = pytest.importorskip('tests.pages', exc_type=ModuleNotFoundError)
    page = pages.ROOT / 'docs' / 'drivers' / 'sqlite.md'
    namespace: dict[str, Any] = {'__name__': 'page'}
    blocks = [block for block in pages.blocks_of(page.read_text(encoding='utf-8')) if block.language == 'python']
    used = 0
    for block in blocks:
        exec(compile('\n' * block.line + block.code, str(page), 'exec', dont_inherit=True), namespace)
        path = namespace['path']
        for name in ('manager', 'isolated'):
            manager = namespace.get(name)
            if not isinstance(manager, SqliteConnectionManager) or not path.exists():
                continue
            pool = ConnectionPool[SqliteEndpoint, PooledConnection](manager, max_size=1)
            for _ in range(25):
                with pool.connection(path) as conn:
                    assert conn.execute('SELECT sum(price) FROM item').fetchone() == (115,)
                    assert not conn.in_transaction
                    if name == 'isolated':
                        assert conn.row_factory is None
                        conn.row_factory = sqlite3.Row
                    cursor = conn.execute('SELECT name FROM item')
                    assert cursor.fetchone() is not None
                    conn.execute('DELETE FROM item')
            assert pool.get_stats()['created'] == (1 if name == 'manager' else 25)
            pool.close()
            used += 1
    assert used >= 2
    capsys.readouterr()
