"""The manager of psycopg2 connections, alone, against a private PostgreSQL server."""

import contextlib
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contrib.asking import execute, fetch
from tests.contrib.servers import PATIENCE, PostgresServer, closed_port, frozen, wait_for_end, wait_readable

psycopg2 = pytest.importorskip('psycopg2')

from psycopg2 import extensions  # noqa: E402

from gcpool.contrib import _psycopg2_statements  # noqa: E402
from gcpool.contrib import psycopg2 as contrib  # noqa: E402
from gcpool.contrib._attempts import call_within  # noqa: E402
from gcpool.contrib._latch import Latch  # noqa: E402
from gcpool.contrib.psycopg2 import Connection, DbConnectionManager  # noqa: E402
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection, UnknownEndpoint  # noqa: E402
from gcpool.threading import ConnectionPool  # noqa: E402

pytestmark = pytest.mark.postgres

IDLE = extensions.TRANSACTION_STATUS_IDLE


@pytest.fixture
def manager(postgres: PostgresServer) -> DbConnectionManager:
    return DbConnectionManager({'db': postgres.dsn_params})


@pytest.fixture
def conn(manager: DbConnectionManager) -> Iterator[Connection]:
    conn = manager.create('db')
    yield conn
    manager.dispose('db', conn)


@pytest.fixture
def on_server(postgres: PostgresServer) -> Iterator[Callable[[str], Any]]:
    """Executes a query on a connection of its own."""
    conn = psycopg2.connect(**postgres.dsn_params)
    conn.autocommit = True
    yield lambda query: fetch(conn, query)
    conn.close()


@pytest.fixture
def limited_role(postgres: PostgresServer, on_server: Callable[[str], Any]) -> Iterator[str]:
    """A user that may have one session, with the password of the other one."""
    on_server('CREATE ROLE limited LOGIN CONNECTION LIMIT 1; SELECT 1')
    on_server(f"ALTER ROLE limited PASSWORD '{postgres.password}'; SELECT 1")
    yield 'limited'
    on_server('DROP ROLE limited; SELECT 1')


def kill(conn: Connection, on_server: Callable[[str], Any]) -> None:
    """Have the server end a connection, and wait until that has arrived."""
    assert on_server(f'SELECT pg_terminate_backend({conn.info.backend_pid}, 30000)')
    wait_readable(conn.fileno())


class TestCreate:
    @pytest.mark.parametrize('timeout', [None, 20.0])
    def test_connects(self, postgres: PostgresServer, timeout: float | None) -> None:
        manager = DbConnectionManager({'db': postgres.dsn_params})
        conn = manager.create('db', timeout)
        assert fetch(conn, 'SELECT current_user') == postgres.user
        manager.dispose('db', conn)
        assert conn.closed

    def test_takes_a_dsn(self, postgres: PostgresServer) -> None:
        manager = DbConnectionManager({'db': {'dsn': postgres.dsn, 'application_name': 'of the test'}})
        conn = manager.create('db', 20.0)
        assert fetch(conn, 'SHOW application_name') == 'of the test'
        manager.dispose('db', conn)

    def test_takes_endpoints_added_later(self, postgres: PostgresServer) -> None:
        params: dict[str, dict[str, Any]] = {}
        manager = DbConnectionManager(params)
        params['db'] = postgres.dsn_params
        manager.dispose('db', manager.create('db'))

    def test_takes_a_string(self, postgres: PostgresServer) -> None:
        manager = DbConnectionManager({'db': postgres.dsn})
        for timeout in (None, 20.0):
            conn = manager.create('db', timeout)
            assert fetch(conn, 'SELECT current_user') == postgres.user
            manager.dispose('db', conn)

    def test_takes_callables(self, postgres: PostgresServer) -> None:
        sources: list[Any] = [
            {'db': lambda endpoint: postgres.dsn},
            lambda endpoint: {'db': postgres.dsn}[endpoint],
            lambda endpoint: {**postgres.dsn_params, 'application_name': endpoint},
        ]
        for source in sources:
            manager = DbConnectionManager(source)
            conn = manager.create('db', 20.0)
            assert fetch(conn, 'SHOW application_name') == ('db' if source is sources[-1] else '')
            manager.dispose('db', conn)
        with pytest.raises(UnknownEndpoint, match="'none' is not known to the callable in dsn_params"):
            DbConnectionManager(sources[1]).create('none')

    @pytest.mark.parametrize('source', [None, b'postgresql://localhost', 5])
    def test_refuses_what_is_no_source(self, source: Any) -> None:
        with pytest.raises(TypeError, match='dsn_params: expected a mapping of endpoints'):
            DbConnectionManager(source)

    @pytest.mark.parametrize('found', [None, 5, [1], {1: 2}])
    def test_refuses_what_are_no_parameters(self, found: Any) -> None:
        async def look_up(endpoint: str) -> Any:
            raise AssertionError

        sources: list[Any] = [{'db': found}, lambda endpoint: found, look_up]
        for source in sources:
            with pytest.raises(TypeError, match=r"endpoint 'db' .* check its entry in dsn_params") as caught:
                DbConnectionManager(source).create('db')
            assert isinstance(caught.value, ConnectError)

    @pytest.mark.parametrize('name', ['async', 'async_'])
    def test_refuses_an_asynchronous_connection(self, postgres: PostgresServer, name: str) -> None:
        manager = DbConnectionManager({'db': {**postgres.dsn_params, name: 1}})
        with pytest.raises(ConnectError, match=r"endpoint 'db' .* check its entry in dsn_params") as caught:
            manager.create('db')
        assert isinstance(caught.value, ValueError)
        conn = DbConnectionManager({'db': {**postgres.dsn_params, name: 0}}).create('db')
        assert not conn.async_
        conn.close()

    @pytest.mark.parametrize('connect_timeout', [[1], float('inf'), 'soon'])
    def test_a_limit_that_is_no_number(self, connect_timeout: Any) -> None:
        manager = DbConnectionManager({'db': {'host': '127.0.0.1', 'connect_timeout': connect_timeout}})
        with pytest.raises(ConnectError, match=r"endpoint 'db' .* check its entry in dsn_params"):
            manager.create('db', 20.0)

    def test_says_which_endpoints_there_are(self, postgres: PostgresServer) -> None:
        manager = DbConnectionManager({'db': postgres.dsn_params, 'other': postgres.dsn_params})
        with pytest.raises(
            UnknownEndpoint, match=r"endpoint 'none' is not in dsn_params, which has \['db', 'other'\]"
        ) as caught:
            manager.create('none')
        assert isinstance(caught.value, KeyError)
        assert caught.value.endpoint == 'none'
        assert postgres.password not in str(caught.value)

    def test_refused_is_the_drivers_error(self) -> None:
        with closed_port() as port:
            manager = DbConnectionManager({'db': {'host': '127.0.0.1', 'port': port}})
            for timeout in (None, 5.0):
                with pytest.raises(psycopg2.OperationalError, match=r"'db' .* refused.* server is running") as caught:
                    manager.create('db', timeout)
                assert isinstance(caught.value, ConnectError)
                assert type(caught.value.__cause__) is psycopg2.OperationalError

    @pytest.mark.parametrize(
        ('changes', 'advice'),
        [
            ({'password': 'wrong'}, 'check user, password'),
            ({'user': 'nobody-knows'}, 'check user, password'),
            ({'database': 'none'}, 'check the name of the database'),
            ({'host': 'no-such-host.invalid'}, 'check the host name'),
        ],
    )
    def test_says_what_to_do(self, postgres: PostgresServer, changes: dict[str, Any], advice: str) -> None:
        manager = DbConnectionManager({'db': {**postgres.dsn_params, **changes}})
        with contextlib.closing(ConnectionPool[str, Connection](manager)) as pool:
            with pytest.raises(psycopg2.OperationalError, match=f"endpoint 'db' .*; {advice}") as caught:
                pool.acquire('db', timeout=20.0)
            assert pool.get_size() == 0
        assert isinstance(caught.value, ConnectError)
        assert caught.value.endpoint == 'db'
        assert type(caught.value.__cause__) is psycopg2.OperationalError
        assert postgres.password not in str(caught.value)

    def test_too_many_connections(
        self, postgres: PostgresServer, on_server: Callable[[str], Any], limited_role: str
    ) -> None:
        manager = DbConnectionManager({'db': {**postgres.dsn_params, 'user': limited_role}})
        conn = manager.create('db')
        with pytest.raises(psycopg2.OperationalError, match='lower max_size') as caught:
            manager.create('db', 20.0)
        assert isinstance(caught.value, ConnectError)
        manager.dispose('db', conn)

    @pytest.mark.parametrize('timeout', [None, 20.0])
    @pytest.mark.parametrize(
        'params',
        [{'dsn': 'not-a-secret'}, {'dsn': 'postgresql://gcpool:not-a-secret@[::1'}, {'port': '1', 'x': 'y'}],
    )
    def test_shows_nothing_of_parameters_that_cannot_be_read(
        self, params: dict[str, Any], timeout: float | None
    ) -> None:
        manager = DbConnectionManager({'db': params})
        with pytest.raises(ConnectError, match=r"endpoint 'db' .* check its entry in dsn_params") as caught:
            manager.create('db', timeout)
        assert caught.value.__cause__ is not None
        shown = ''.join(traceback.format_exception(caught.value))
        assert 'not-a-secret' not in shown

    def test_times_out(self, silent_listener: socket.socket) -> None:
        host, port = silent_listener.getsockname()
        manager = DbConnectionManager({'db': {'host': host, 'port': port, 'password': 'not-a-secret'}})
        with pytest.raises(ConnectTimeout, match=r"endpoint 'db' .* 0\.01 s:") as caught:
            manager.create('db', 0.01)
        assert isinstance(caught.value.__cause__, psycopg2.OperationalError)
        assert 'not-a-secret' not in f'{caught.value} {caught.value.__cause__}'
        assert caught.value.endpoint == 'db'
        with silent_listener.accept()[0] as conn:
            wait_for_end(conn)

    def test_says_so_when_the_limit_was_its_own(self, silent_listener: socket.socket) -> None:
        host, port = silent_listener.getsockname()
        manager = DbConnectionManager({'db': {'host': host, 'port': port, 'connect_timeout': 1}})
        with pytest.raises(ConnectTimeout, match='in time') as caught:
            manager.create('db')
        assert isinstance(caught.value.__cause__, psycopg2.OperationalError)

    def test_closes_what_comes_too_late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        may_connect, closed = threading.Event(), threading.Event()

        def connect(**kwargs: Any) -> Any:
            assert may_connect.wait(PATIENCE)
            return SimpleNamespace(close=closed.set)

        monkeypatch.setattr(psycopg2, 'connect', connect)
        with pytest.raises(ConnectTimeout):
            DbConnectionManager({'db': {'host': 'x'}}).create('db', 0.01)
        may_connect.set()
        assert closed.wait(PATIENCE)

    def test_connects_where_no_thread_can_be_started(
        self, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, 'start', start)
        manager = DbConnectionManager({'db': postgres.dsn_params})
        manager.dispose('db', manager.create('db', 20.0))

    @pytest.mark.parametrize(
        ('timeout', 'params', 'expected'),
        [
            (0, {}, 1),
            (0.5, {}, 1),
            (3.0, {}, 3),
            (3.2, {}, 4),
            (5.0, {'connect_timeout': 3}, 3),
            (5.0, {'connect_timeout': '3'}, 3),
            (5.0, {'connect_timeout': 0}, 5),
            (5.0, {'connect_timeout': 9}, 5),
            (5.0, {'dsn': 'host=localhost connect_timeout=3'}, 3),
            (5.0, {'dsn': 'host=localhost'}, 5),
        ],
    )
    def test_passes_the_shorter_limit_on(
        self, monkeypatch: pytest.MonkeyPatch, timeout: float, params: dict[str, Any], expected: int
    ) -> None:
        passed: dict[str, Any] = {}
        monkeypatch.setattr(psycopg2, 'connect', recording(passed))
        DbConnectionManager({'db': params}).create('db', timeout)
        assert passed == {**params, 'connect_timeout': expected}

    def test_without_a_limit_changes_no_parameter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        passed: dict[str, Any] = {}
        monkeypatch.setattr(psycopg2, 'connect', recording(passed))
        DbConnectionManager({'db': {'dbname': 'x', 'connect_timeout': 7}}).create('db')
        assert passed == {'dbname': 'x', 'connect_timeout': 7}


def recording(passed: dict[str, Any]) -> Callable[..., object]:
    """Makes no connection, but records its parameters."""

    class Nothing:
        pass

    def connect(**kwargs: Any) -> Nothing:
        passed.update(kwargs)
        return Nothing()

    return connect


def never(result: object) -> None:
    pytest.fail(f'{result!r} was undone')


class TestCallWithin:
    def test_gives_the_result_or_the_error(self) -> None:
        assert call_within(lambda: 42, never, PATIENCE) == 42
        for error in (ValueError('its own'), TimeoutError('its own')):

            def fail(error: Exception = error) -> None:
                raise error

            with pytest.raises(type(error), match='its own') as caught:
                call_within(fail, never, PATIENCE)
            assert caught.value is error

    @pytest.mark.parametrize('too_late', [True, False])
    def test_interrupted_undoes(self, monkeypatch: pytest.MonkeyPatch, too_late: bool) -> None:
        self.interrupt(monkeypatch, KeyboardInterrupt(), too_late)
        may_end, undone = threading.Event(), threading.Event()
        if not too_late:
            may_end.set()
        with pytest.raises(KeyboardInterrupt):
            call_within(lambda: may_end.wait(PATIENCE), lambda result: undone.set(), PATIENCE)
        may_end.set()
        assert undone.wait(PATIENCE)

    def test_takes_what_comes_at_the_last_moment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.interrupt(monkeypatch, None, too_late=False)
        assert call_within(lambda: 42, never, PATIENCE) == 42

    def interrupt(self, monkeypatch: pytest.MonkeyPatch, exc: BaseException | None, too_late: bool) -> None:
        """Have the first wait for a result end with an exception (None: in vain): before there is one, or after."""
        wait, waits = Latch.wait, []

        def interrupted(latch: Latch, timeout: float | None) -> bool:
            waits.append(latch)
            if len(waits) > 1:
                return wait(latch, timeout)
            if not too_late:
                assert wait(latch, PATIENCE)
            if exc is None:
                return False
            raise exc

        monkeypatch.setattr(Latch, 'wait', interrupted)


class TestAliveness:
    @pytest.mark.parametrize('ping', [True, False])
    @pytest.mark.parametrize('autocommit', [True, False])
    def test_of_an_idle_one(self, postgres: PostgresServer, ping: bool, autocommit: bool) -> None:
        manager = DbConnectionManager({'db': postgres.dsn_params}, ping=ping)
        conn = manager.create('db')
        conn.autocommit = autocommit
        assert manager.check_aliveness('db', conn, 1.0)
        assert conn.autocommit is autocommit
        assert conn.info.transaction_status == IDLE
        assert conn.status == extensions.STATUS_READY
        assert fetch(conn, 'SELECT 1') == 1
        manager.dispose('db', conn)
        assert not manager.check_aliveness('db', conn)

    @pytest.mark.parametrize('ping', [True, False])
    def test_sends_something_only_with_ping(
        self, postgres: PostgresServer, on_server: Callable[[str], Any], ping: bool
    ) -> None:
        manager = DbConnectionManager({'db': postgres.dsn_params}, ping=ping)
        conn = manager.create('db')
        execute(conn, 'SELECT 2')
        conn.rollback()
        assert manager.check_aliveness('db', conn)
        last = on_server(f'SELECT query FROM pg_stat_activity WHERE pid = {conn.info.backend_pid}')
        assert last == ('SELECT 1' if ping else 'ROLLBACK')
        manager.dispose('db', conn)

    @pytest.mark.parametrize('ping', [True, False])
    def test_of_what_the_server_has_ended(
        self, postgres: PostgresServer, on_server: Callable[[str], Any], ping: bool
    ) -> None:
        manager = DbConnectionManager({'db': postgres.dsn_params}, ping=ping)
        conn = manager.create('db')
        kill(conn, on_server)
        assert not manager.check_aliveness('db', conn)
        manager.dispose('db', conn)
        assert conn.closed

    def test_a_ping_that_is_not_answered_closes(self, postgres: PostgresServer) -> None:
        manager = DbConnectionManager({'db': postgres.dsn_params}, ping=True)
        conn = manager.create('db')
        with frozen(conn.info.backend_pid):
            assert not manager.check_aliveness('db', conn, 0.05)
        assert conn.closed
        assert not manager.check_aliveness('db', conn)

    def test_interrupted_closes(
        self, manager: DbConnectionManager, conn: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(conn: Connection) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(contrib, 'is_connected', interrupt)
        with pytest.raises(KeyboardInterrupt):
            manager.check_aliveness('db', conn)
        assert conn.closed

    def test_of_one_in_a_transaction(self, manager: DbConnectionManager, conn: Connection) -> None:
        execute(conn, 'SELECT 1')
        assert not manager.check_aliveness('db', conn)

    def test_takes_in_what_the_server_says_unasked(
        self, manager: DbConnectionManager, conn: Connection, on_server: Callable[[str], Any]
    ) -> None:
        conn.autocommit = True
        execute(conn, 'LISTEN gcpool')
        on_server("SELECT 1 FROM pg_notify('gcpool', 'hello')")
        wait_readable(conn.fileno())
        assert manager.check_aliveness('db', conn)
        assert [notification.payload for notification in conn.notifies] == ['hello']
        assert fetch(conn, 'SELECT 1') == 1

    def test_finds_the_end_behind_what_the_server_says(
        self,
        manager: DbConnectionManager,
        conn: Connection,
        on_server: Callable[[str], Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # If the kernel does not report the end before everything was read.
        monkeypatch.setattr(_psycopg2_statements, 'poll_once', lambda fd: (True, False))
        kill(conn, on_server)
        assert not manager.check_aliveness('db', conn)

    def test_does_not_read_for_ever(
        self, manager: DbConnectionManager, conn: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_psycopg2_statements, 'poll_once', lambda fd: (True, False))
        assert manager.check_aliveness('db', conn)


class TestRelease:
    def test_sends_nothing_if_there_is_nothing_to_roll_back(
        self, manager: DbConnectionManager, conn: Connection, on_server: Callable[[str], Any]
    ) -> None:
        execute(conn, 'SELECT 2')
        conn.commit()
        manager.on_release('db', conn)
        assert on_server(f'SELECT query FROM pg_stat_activity WHERE pid = {conn.info.backend_pid}') == 'COMMIT'

    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('failed', [True, False])
    def test_rolls_back_what_is_open(
        self, manager: DbConnectionManager, conn: Connection, autocommit: bool, failed: bool
    ) -> None:
        conn.autocommit = autocommit
        if autocommit:
            execute(conn, 'BEGIN')
        execute(conn, 'CREATE TABLE left_open (n int)')
        if failed:
            with pytest.raises(psycopg2.errors.DivisionByZero):
                execute(conn, 'SELECT 1/0')
        manager.on_release('db', conn)
        assert conn.info.transaction_status == IDLE
        assert manager.check_aliveness('db', conn)
        assert fetch(conn, "SELECT to_regclass('left_open')") is None

    def test_mends_what_sql_has_ended(self, manager: DbConnectionManager, conn: Connection) -> None:
        execute(conn, 'SELECT 1')
        execute(conn, 'COMMIT')
        assert not manager.check_aliveness('db', conn)
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)

    def test_discards_what_a_user_has_closed(self, manager: DbConnectionManager) -> None:
        conn = manager.create('db')
        conn.close()
        with pytest.raises(DiscardConnection, match="'db' was returned closed"):
            manager.on_release('db', conn)
        assert not manager.check_aliveness('db', conn)
        manager.dispose('db', conn)

    def test_discards_what_the_server_has_ended(
        self,
        manager: DbConnectionManager,
        conn: Connection,
        on_server: Callable[[str], Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        execute(conn, 'SELECT 1')
        kill(conn, on_server)
        with caplog.at_level(logging.WARNING, 'gcpool.contrib.psycopg2'), pytest.raises(DiscardConnection) as caught:
            manager.on_release('db', conn)
        assert "'db'" in caplog.text
        assert isinstance(caught.value.__cause__, psycopg2.Error)
        assert conn.closed

    def test_discards_what_is_not_rolled_back_in_time(self, postgres: PostgresServer) -> None:
        manager = DbConnectionManager({'db': postgres.dsn_params}, rollback_timeout=0.05)
        conn = manager.create('db')
        execute(conn, 'SELECT 1')
        manager_with_time = DbConnectionManager({'db': postgres.dsn_params}, rollback_timeout=3600.0)
        manager_with_time.on_release('db', conn)
        execute(conn, 'SELECT 1')
        with frozen(conn.info.backend_pid), pytest.raises(DiscardConnection):
            manager.on_release('db', conn)
        manager.dispose('db', conn)

    def test_a_time_limit_that_a_signal_kept_from_ending_leaves_the_descriptors_next_owner_alone(
        self, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shut_downs: list[Callable[[], object]] = []

        class Limit:
            happened = False

            def __init__(self, shut_down: Callable[[], object], seconds: float) -> None:
                shut_downs.append(shut_down)

            def end(self) -> None:
                pass

        monkeypatch.setattr('gcpool.contrib._watchdog.CutOff', Limit)
        manager = DbConnectionManager({'db': postgres.dsn_params}, rollback_timeout=PATIENCE)
        conn = manager.create('db')
        execute(conn, 'SELECT 1')
        manager.on_release('db', conn)
        descriptor = conn.fileno()
        ours, peer = socket.socketpair()
        with ours, peer:
            manager.dispose('db', conn)
            os.dup2(ours.fileno(), descriptor)
            try:
                shut_downs[0]()
                ours.sendall(b'x')
                peer.settimeout(PATIENCE)
                assert peer.recv(1) == b'x'
            finally:
                os.close(descriptor)

    def test_discards_one_in_a_two_phase_commit_and_leaves_it_prepared(
        self, manager: DbConnectionManager, on_server: Callable[[str], Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        conn = manager.create('db')
        conn.tpc_begin('gcpool-test')
        execute(conn, 'SELECT 1')
        conn.tpc_prepare()
        assert not manager.check_aliveness('db', conn)
        with caplog.at_level(logging.WARNING, 'gcpool.contrib.psycopg2'), pytest.raises(DiscardConnection):
            manager.on_release('db', conn)
        assert 'two-phase' in caplog.text
        manager.dispose('db', conn)
        assert on_server("SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'gcpool-test'") == 1
        on_server_conn = manager.create('db')
        on_server_conn.tpc_rollback('gcpool-test')
        manager.dispose('db', on_server_conn)

    def test_discards_one_in_the_middle_of_a_statement(
        self, manager: DbConnectionManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        conn = manager.create('db')
        user, failures = start_sleeping(conn)
        with caplog.at_level(logging.WARNING, 'gcpool.contrib.psycopg2'), pytest.raises(DiscardConnection):
            manager.on_release('db', conn)
        assert 'a statement is being executed' in caplog.text
        manager.dispose('db', conn)
        user.join(PATIENCE)
        assert not user.is_alive()
        assert len(failures) == 1
        assert conn.closed

    def test_closes_when_interrupted(
        self, manager: DbConnectionManager, conn: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(conn: Connection) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(contrib, 'roll_back', interrupt)
        execute(conn, 'SELECT 1')
        with pytest.raises(KeyboardInterrupt):
            manager.on_release('db', conn)
        assert conn.closed

    def test_leaves_what_was_set_on_the_connection(self, manager: DbConnectionManager, conn: Connection) -> None:
        """As in generic-connection-pool."""

        class Special(extensions.cursor):
            pass

        conn.set_session(isolation_level='SERIALIZABLE', readonly=True, deferrable=True, autocommit=True)
        conn.cursor_factory = Special
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)
        assert (conn.autocommit, conn.readonly, conn.deferrable) == (True, True, True)
        assert conn.isolation_level == extensions.ISOLATION_LEVEL_SERIALIZABLE
        assert conn.cursor_factory is Special


class TestIsBroken:
    def test_not_after_an_error_of_a_statement(self, manager: DbConnectionManager, conn: Connection) -> None:
        with pytest.raises(psycopg2.errors.DivisionByZero) as caught:
            execute(conn, 'SELECT 1/0')
        assert not manager.is_broken('db', conn, caught.value)
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)

    def test_after_the_server_has_ended_it(
        self, manager: DbConnectionManager, conn: Connection, on_server: Callable[[str], Any]
    ) -> None:
        kill(conn, on_server)
        with pytest.raises(psycopg2.OperationalError) as caught:
            execute(conn, 'SELECT 1')
        assert manager.is_broken('db', conn, caught.value)

    def test_while_a_statement_is_being_executed(self, manager: DbConnectionManager) -> None:
        conn = manager.create('db')
        user, _ = start_sleeping(conn)
        assert manager.is_broken('db', conn, KeyboardInterrupt())
        manager.dispose('db', conn)
        user.join(PATIENCE)
        assert not user.is_alive()
        assert manager.is_broken('db', conn, KeyboardInterrupt())


def start_sleeping(conn: Connection) -> tuple[threading.Thread, list[Exception]]:
    """Have a thread execute a statement that would take an hour, and return when the connection is busy with it.

    The transaction is open before: psycopg2's own BEGIN would make the connection busy only for a moment.
    """
    failures: list[Exception] = []
    execute(conn, 'SELECT 1')
    assert conn.info.transaction_status == extensions.TRANSACTION_STATUS_INTRANS

    def sleep() -> None:
        try:
            execute(conn, 'SELECT pg_sleep(3600)')
        except psycopg2.Error as exc:
            failures.append(exc)

    user = threading.Thread(target=sleep, daemon=True)
    user.start()
    deadline = time.monotonic() + PATIENCE
    while conn.info.transaction_status != extensions.TRANSACTION_STATUS_ACTIVE:
        assert time.monotonic() < deadline
    return user, failures


class TestDispose:
    def test_twice(self, manager: DbConnectionManager) -> None:
        conn = manager.create('db')
        manager.dispose('db', conn)
        manager.dispose('db', conn)
        assert conn.closed

    def test_ends_a_running_statement(self, manager: DbConnectionManager) -> None:
        conn = manager.create('db')
        user, failures = start_sleeping(conn)
        manager.dispose('db', conn)
        user.join(PATIENCE)
        assert not user.is_alive()
        assert len(failures) == 1
        assert conn.closed
