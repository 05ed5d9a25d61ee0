"""The managers of psycopg 3 connections, alone and in pools, against a private PostgreSQL server."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection, PoolTimeout, UnknownEndpoint
from tests.asyncio_.runtime import until
from tests.contrib.cancelling import cancel
from tests.contrib.conftest import Run
from tests.contrib.servers import PATIENCE, PostgresServer, closed_port, frozen, wait_for_end, wait_readable

psycopg = pytest.importorskip('psycopg')

from psycopg.pq import TransactionStatus  # noqa: E402
from psycopg.rows import dict_row  # noqa: E402

from gcpool.contrib import _psycopg_statements as statements  # noqa: E402
from gcpool.contrib import psycopg as contrib  # noqa: E402
from gcpool.contrib.psycopg import (  # noqa: E402
    AsyncConnection,
    AsyncConnectionManager,
    Connection,
    ConnectionManager,
)

pytestmark = pytest.mark.postgres

IDLE = TransactionStatus.IDLE


@pytest.fixture
def manager(postgres: PostgresServer) -> 'ConnectionManager[str, Any]':
    return ConnectionManager({'db': postgres.conninfo_params})


@pytest.fixture
def conn(manager: 'ConnectionManager[str, Any]') -> 'Iterator[Connection[Any]]':
    conn = manager.create('db')
    yield conn
    manager.dispose('db', conn)


@pytest.fixture
def on_server(postgres: PostgresServer) -> Iterator[Callable[[str], Any]]:
    """Executes a query on a connection of its own."""
    with psycopg.Connection.connect(postgres.dsn, autocommit=True) as conn:

        def execute(query: str) -> Any:
            cursor = conn.execute(query.encode())
            row = cursor.fetchone() if cursor.description else None
            return row and row[0]

        yield execute


@pytest.fixture
def limited_role(postgres: PostgresServer, on_server: Callable[[str], Any]) -> Iterator[str]:
    """A user that may have one session, with the password of the other one."""
    on_server(f"CREATE ROLE limited3 LOGIN CONNECTION LIMIT 1 PASSWORD '{postgres.password}'")
    yield 'limited3'
    on_server('DROP ROLE limited3')


def kill(conn: Any, on_server: Callable[[str], Any]) -> None:
    """Have the server end a connection, and wait until that has arrived."""
    assert on_server(f'SELECT pg_terminate_backend({conn.info.backend_pid}, 30000)')
    wait_readable(conn.fileno())


def last_query(conn: Any, on_server: Callable[[str], Any]) -> Any:
    return on_server(f'SELECT query FROM pg_stat_activity WHERE pid = {conn.info.backend_pid}')


def fetch(conn: 'Connection[Any]', query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    return row and row[0]


# Invalid parameters, and what the error says about them. Each leads to the server, or nowhere.
BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({'password': 'wrong'}, 'check user, password'),
    ({'user': 'nobody-knows'}, 'check user, password'),
    ({'dbname': 'none'}, 'check the name of the database'),
    ({'host': 'no-such-host.invalid'}, 'check the host name'),
    ({'prot': 'x'}, 'check its entry in conninfo'),
    ({'connect_timeout': [1]}, 'check its entry in conninfo'),
    ({'connect_timeout': float('inf')}, 'check its entry in conninfo'),
]

# What a user may do to a connection, and a release undoes; the first by a setter that only the synchronous connection
# has.
CHANGES: list[Callable[[Any], Any]] = [
    lambda conn: setattr(conn, 'autocommit', True),
    lambda conn: setattr(conn, 'row_factory', dict_row),
    lambda conn: setattr(conn, 'prepare_threshold', None),
    lambda conn: conn.add_notice_handler(print),
]

# Invalid conninfo.
NO_CONNINFO: list[Any] = [None, 5, [1], {1: 2}, {'conninfo': 5}, {'context': 5}]


def shows(error: object, text: str, known: set[int] | None = None) -> bool:
    """Whether a text is in the repr of an error, or of anything that its attributes lead to."""
    known = set() if known is None else known
    if id(error) in known:
        return False
    known.add(id(error))
    inner = list(getattr(error, '__dict__', {}).values())
    if isinstance(error, BaseException):
        inner += [error.__cause__, error.__context__, error.args]
    elif isinstance(error, dict):
        inner += [*error.keys(), *error.values()]
    elif isinstance(error, (list, tuple, set)):
        inner += error
    return text in repr(error) or any(shows(one, text, known) for one in inner)


class TestCreate:
    @pytest.mark.parametrize('timeout', [None, 20.0])
    def test_connects(self, postgres: PostgresServer, timeout: float | None) -> None:
        manager = ConnectionManager({'db': postgres.conninfo_params})
        conn = manager.create('db', timeout)
        assert fetch(conn, 'SELECT current_user') == postgres.user
        manager.dispose('db', conn)
        assert conn.closed
        assert not conn.broken

    def test_takes_strings_parameters_and_callables(self, postgres: PostgresServer) -> None:
        sources: list[Any] = [
            {'db': postgres.dsn},
            {'db': {'conninfo': postgres.dsn, 'autocommit': True}},
            {'db': postgres.conninfo_params},
            {'db': lambda endpoint: postgres.dsn},
            lambda endpoint: {'db': postgres.dsn}[endpoint],
            lambda endpoint: {**postgres.conninfo_params, 'application_name': endpoint},
        ]
        for source in sources:
            manager = ConnectionManager[str, Connection[Any]](
                source, kwargs={'application_name': 'of the test'}, connection_class=Connection
            )
            for timeout in (None, 20.0):
                conn = manager.create('db', timeout)
                expected = 'db' if source is sources[-1] else 'of the test'
                assert fetch(conn, 'SHOW application_name') == expected
                manager.dispose('db', conn)

    def test_asks_for_credentials_at_each_connect(self, postgres: PostgresServer) -> None:
        passwords = iter(['wrong', postgres.password])
        manager = ConnectionManager({'db': lambda _endpoint: {**postgres.conninfo_params, 'password': next(passwords)}})
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager)) as pool:
            with pytest.raises(ConnectError):
                pool.acquire('db', timeout=20.0)
            with pool.connection('db', timeout=20.0) as conn:
                assert fetch(conn, 'SELECT 1') == 1

    def test_takes_a_class_and_configures(self, postgres: PostgresServer) -> None:
        class Special(Connection[Any]):
            pass

        def configure(conn: 'Connection[Any]') -> None:
            conn.autocommit = True
            conn.execute('SET application_name = configured')

        manager = ConnectionManager({'db': postgres.dsn}, connection_class=Special, configure=configure)
        conn = manager.create('db', 20.0)
        assert type(conn) is Special
        assert fetch(conn, 'SHOW application_name') == 'configured'
        manager.on_release('db', conn)
        assert conn.autocommit
        manager.dispose('db', conn)

    def test_closes_what_cannot_be_configured(self, postgres: PostgresServer) -> None:
        made: list[Any] = []

        def fail(conn: 'Connection[Any]') -> None:
            made.append(conn)
            raise LookupError('of the test')

        manager = ConnectionManager({'db': postgres.dsn}, configure=fail)
        with pytest.raises(LookupError, match='of the test'):
            manager.create('db')
        assert made[0].closed

    def test_says_so_when_configure_leaves_a_transaction_open(self, postgres: PostgresServer) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, configure=lambda conn: conn.execute('SELECT 1'))
        with pytest.raises(ConnectError, match="endpoint 'db' in status INTRANS"):
            manager.create('db')

    @pytest.mark.parametrize('source', [None, b'postgresql://localhost', 5])
    def test_refuses_what_is_no_source(self, source: Any) -> None:
        for kind in (ConnectionManager, AsyncConnectionManager):
            with pytest.raises(TypeError, match='conninfo: expected a mapping of endpoints'):
                kind(source)

    def test_a_connection_class_that_is_an_alias(self, postgres: PostgresServer, run: Run) -> None:
        def configure(conn: Any) -> None:
            conn.row_factory = dict_row

        async def configure_async(conn: Any) -> None:
            conn.row_factory = dict_row

        manager = ConnectionManager(
            {'db': postgres.dsn}, connection_class=Connection[dict[str, Any]], configure=configure
        )
        conn = manager.create('db')
        assert conn.execute('SELECT 1 AS a').fetchone() == {'a': 1}
        manager.dispose('db', conn)

        async def main() -> None:
            manager = AsyncConnectionManager(
                {'db': postgres.dsn}, connection_class=AsyncConnection[dict[str, Any]], configure=configure_async
            )
            conn = await manager.create('db')
            cursor = await conn.execute('SELECT 1 AS a')
            assert await cursor.fetchone() == {'a': 1}
            await manager.dispose('db', conn)

        run(main)

    @pytest.mark.parametrize('make', [ConnectionManager, AsyncConnectionManager])
    def test_refuses_other_bad_parameters(self, make: Callable[..., object]) -> None:
        other: Any = psycopg.AsyncConnection if make is ConnectionManager else psycopg.Connection
        for connection_class in (5, object, other):
            with pytest.raises(
                TypeError, match=r'connection_class=.*: expected psycopg\.(Async)?Connection or a subclass'
            ):
                make({}, connection_class=connection_class)

    def test_a_limit_may_be_infinite(self, postgres: PostgresServer) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, rollback_timeout=float('inf'))
        conn = manager.create('db')
        conn.execute('SELECT 1')
        manager.on_release('db', conn)
        manager.dispose('db', conn)

    @pytest.mark.parametrize('found', NO_CONNINFO)
    def test_refuses_what_is_no_conninfo(self, found: Any) -> None:
        for source in ({'db': found}, lambda endpoint: found):
            with pytest.raises(TypeError, match=r"endpoint 'db' .*expected a.* entry in conninfo") as caught:
                ConnectionManager(source).create('db')
            assert isinstance(caught.value, ConnectError)

    def test_an_endpoint_that_a_callable_does_not_know(self) -> None:
        known = {'db': 'host=db'}
        with pytest.raises(UnknownEndpoint, match=r"'none' is not known to the callable in conninfo"):
            ConnectionManager(known.__getitem__).create('none')

    def test_does_not_await(self, postgres: PostgresServer) -> None:
        async def parameters(endpoint: str) -> dict[str, Any]:
            return postgres.conninfo_params

        async def configure(conn: object) -> None:
            raise AssertionError

        source: Any = parameters
        with pytest.raises(ConnectError, match='returned an awaitable, which only the managers for asyncio await'):
            ConnectionManager(source).create('db')
        with pytest.raises(TypeError, match='configure: expected a plain function, got a coroutine function'):
            ConnectionManager({'db': postgres.dsn}, configure=configure)
        made: list[Any] = []

        def hidden(conn: 'Connection[Any]') -> object:
            made.append(conn)
            return configure(conn)

        with pytest.raises(TypeError, match='configure returned an awaitable'):
            ConnectionManager({'db': postgres.dsn}, configure=hidden).create('db')
        assert made[0].closed

    @pytest.mark.parametrize('timeout', [None, 20.0])
    @pytest.mark.parametrize('as_text', [True, False])
    @pytest.mark.parametrize('hosts', ['127.0.0.1', '127.0.0.1,127.0.0.1'])
    def test_no_attribute_of_the_error_has_the_password(
        self, postgres: PostgresServer, timeout: float | None, as_text: bool, hosts: str
    ) -> None:
        params = {**postgres.conninfo_params, 'host': hosts, 'password': 'of-the-wrong-one'}
        conninfo = ' '.join(f'{name}={value}' for name, value in params.items())
        manager = ConnectionManager({'db': conninfo if as_text else params})
        with pytest.raises(ConnectError, match='check user, password') as caught:
            manager.create('db', timeout)
        assert not shows(caught.value, 'of-the-wrong-one')
        assert caught.value.__cause__.pgconn is None  # type: ignore[union-attr]

    def test_says_which_endpoints_there_are(self, postgres: PostgresServer) -> None:
        manager = ConnectionManager({'db': postgres.dsn})
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager)) as pool:
            with pytest.raises(UnknownEndpoint, match=r"'none' is not in conninfo, which has \['db'\]") as caught:
                pool.acquire('none')
            assert pool.get_size() == 0
        assert isinstance(caught.value, KeyError)
        assert postgres.password not in str(caught.value)

    @pytest.mark.parametrize('timeout', [None, 20.0])
    @pytest.mark.parametrize(('changes', 'advice'), BAD_INPUT)
    def test_says_what_to_do(
        self, postgres: PostgresServer, changes: dict[str, Any], advice: str, timeout: float | None
    ) -> None:
        manager = ConnectionManager({'db': {**postgres.conninfo_params, **changes}})
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager)) as pool:
            with pytest.raises(psycopg.Error, match=rf"endpoint 'db' .*; {advice}") as caught:
                pool.acquire('db', timeout=timeout)
            assert pool.get_size() == 0
        assert isinstance(caught.value, ConnectError)
        assert caught.value.endpoint == 'db'
        assert isinstance(caught.value.__cause__, psycopg.Error)
        assert postgres.password not in str(caught.value)

    def test_refused(self) -> None:
        with closed_port() as port:
            manager = ConnectionManager({'db': {'host': '127.0.0.1', 'port': port}})
            for timeout in (None, 5.0):
                with pytest.raises(psycopg.OperationalError, match=r"'db' .* refused.* server is running") as caught:
                    manager.create('db', timeout)
                assert isinstance(caught.value, ConnectError)

    def test_too_many_connections(self, postgres: PostgresServer, limited_role: str) -> None:
        manager = ConnectionManager({'db': {**postgres.conninfo_params, 'user': limited_role}})
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager)) as pool:
            conn = pool.acquire('db', timeout=20.0)
            with pytest.raises(psycopg.OperationalError, match='lower max_size') as caught:
                pool.acquire('db', timeout=20.0)
            assert isinstance(caught.value, ConnectError)
            assert pool.get_size() == 1
            pool.release(conn, 'db')

    @pytest.mark.parametrize('timeout', [None, 20.0])
    @pytest.mark.parametrize('conninfo', ['not-a-secret', 'postgresql://gcpool:not-a-secret@[::1'])
    def test_shows_nothing_of_a_string_that_cannot_be_read(self, conninfo: str, timeout: float | None) -> None:
        with pytest.raises(ConnectError, match=r"endpoint 'db' .* check its entry in conninfo") as caught:
            ConnectionManager({'db': conninfo}).create('db', timeout)
        assert isinstance(caught.value.__cause__, psycopg.ProgrammingError)
        assert 'not-a-secret' not in ''.join(traceback.format_exception(caught.value))

    @pytest.mark.parametrize('timeout', [None, 20.0])
    def test_says_so_when_a_limit_is_no_number(self, timeout: float | None) -> None:
        with pytest.raises(ConnectError, match=r"'db' .* bad value for connect_timeout: 'soon'"):
            ConnectionManager({'db': {'connect_timeout': 'soon', 'host': '127.0.0.1'}}).create('db', timeout)

    def test_times_out(self, silent_listener: socket.socket) -> None:
        host, port = silent_listener.getsockname()
        manager = ConnectionManager({'db': {'host': host, 'port': port, 'password': 'not-a-secret'}})
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager)) as pool:
            with pytest.raises(ConnectTimeout, match=r"endpoint 'db' .* within ") as caught:
                pool.acquire('db', timeout=0.3)
            assert pool.get_size() == 0
        assert caught.value.endpoint == 'db'
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert 'not-a-secret' not in ''.join(traceback.format_exception(caught.value))
        with silent_listener.accept()[0] as conn:
            wait_for_end(conn)

    def test_says_so_when_the_limit_was_its_own(self, silent_listener: socket.socket) -> None:
        host, port = silent_listener.getsockname()
        manager = ConnectionManager({'db': {'host': host, 'port': port, 'connect_timeout': 1}})
        with pytest.raises(ConnectTimeout, match='in time') as caught:
            manager.create('db')
        assert isinstance(caught.value.__cause__, psycopg.errors.ConnectionTimeout)

    @pytest.mark.parametrize(
        ('timeout', 'params', 'expected'),
        [
            (0, {}, 1),
            (3.2, {}, 4),
            (5.0, {'connect_timeout': 3}, 3),
            (5.0, {'connect_timeout': '3'}, 3),
            (5.0, {'connect_timeout': 0}, 5),
            (5.0, {'connect_timeout': 9}, 5),
            (5.0, {'conninfo': 'host=localhost connect_timeout=3'}, 3),
            (5.0, {'conninfo': 'host=localhost'}, 5),
        ],
    )
    def test_passes_the_shorter_limit_on(self, timeout: float, params: dict[str, Any], expected: int) -> None:
        passed: dict[str, Any] = {}

        class Refusing(Connection[Any]):
            @classmethod
            def connect(cls, conninfo: str = '', **kwargs: Any) -> Any:
                passed.update(kwargs)
                raise psycopg.OperationalError('of the test')

        with pytest.raises(ConnectError, match='of the test'):
            ConnectionManager({'db': params}, connection_class=Refusing).create('db', timeout)
        assert passed['connect_timeout'] == expected

    def test_heeds_the_limit_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('PGCONNECT_TIMEOUT', '3')
        self.test_passes_the_shorter_limit_on(5.0, {}, 3)

    def test_closes_what_comes_too_late(self, postgres: PostgresServer) -> None:
        may_connect, made = threading.Event(), []
        closed = threading.Event()

        class Slow(Connection[Any]):
            @classmethod
            def connect(cls, conninfo: str = '', **kwargs: Any) -> Any:
                assert may_connect.wait(PATIENCE)
                made.append(super().connect(conninfo, **kwargs))
                return made[0]

            def close(self) -> None:
                super().close()
                closed.set()

        manager = ConnectionManager({'db': postgres.dsn}, connection_class=Slow)
        with pytest.raises(ConnectTimeout):
            manager.create('db', 0.01)
        may_connect.set()
        assert closed.wait(PATIENCE)
        assert made[0].closed


class TestAliveness:
    @pytest.mark.parametrize('ping', [True, False])
    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('timeout', [None, 20.0])
    def test_of_an_idle_one(
        self,
        postgres: PostgresServer,
        on_server: Callable[[str], Any],
        ping: bool,
        autocommit: bool,
        timeout: float | None,
    ) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, kwargs={'autocommit': autocommit}, ping=ping)
        conn = manager.create('db')
        conn.execute('SELECT 2')
        conn.rollback()
        assert manager.check_aliveness('db', conn, timeout)
        assert conn.info.transaction_status == IDLE
        # An empty statement shows up as one.
        assert last_query(conn, on_server) == ('' if ping else 'SELECT 2' if autocommit else 'ROLLBACK')
        assert fetch(conn, 'SELECT 1') == 1
        manager.dispose('db', conn)
        assert not manager.check_aliveness('db', conn)

    @pytest.mark.parametrize('ping', [True, False])
    def test_of_what_the_server_has_ended(
        self, postgres: PostgresServer, on_server: Callable[[str], Any], ping: bool
    ) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, ping=ping)
        conn = manager.create('db')
        kill(conn, on_server)
        assert not manager.check_aliveness('db', conn, 20.0)
        manager.dispose('db', conn)
        assert conn.closed

    @pytest.mark.parametrize('ping', [True, False])
    def test_finds_the_end_behind_what_the_server_says(
        self,
        postgres: PostgresServer,
        on_server: Callable[[str], Any],
        monkeypatch: pytest.MonkeyPatch,
        ping: bool,
    ) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, ping=ping)
        conn = manager.create('db')
        # If the kernel does not report the end before everything was read; with ping, before the question is sent.
        monkeypatch.setattr(statements, 'poll_once', lambda fd: (not ping, False))
        kill(conn, on_server)
        assert not manager.check_aliveness('db', conn, 20.0)
        assert conn.closed

    def test_does_not_read_for_ever(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vars(conn)['gcpool_session'], 'poll', lambda _: True)
        monkeypatch.setattr(statements, 'poll_once', lambda fd: (True, False))
        assert manager.check_aliveness('db', conn)

    @pytest.mark.parametrize('ping', [True, False])
    def test_takes_in_what_the_server_says_unasked(
        self, postgres: PostgresServer, on_server: Callable[[str], Any], ping: bool
    ) -> None:
        heard: list[str] = []
        manager = ConnectionManager(
            {'db': postgres.dsn},
            kwargs={'autocommit': True},
            configure=lambda conn: conn.add_notify_handler(lambda notification: heard.append(notification.payload)),
            ping=ping,
        )
        conn = manager.create('db')
        conn.execute('LISTEN gcpool')
        on_server("SELECT 1 FROM pg_notify('gcpool', 'hello')")
        wait_readable(conn.fileno())
        assert manager.check_aliveness('db', conn, 20.0)
        assert fetch(conn, 'SELECT 1') == 1
        assert heard == ['hello']
        manager.dispose('db', conn)

    def test_a_ping_that_is_not_answered_closes(self, postgres: PostgresServer) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, ping=True)
        conn = manager.create('db')
        with frozen(conn.info.backend_pid):
            assert not manager.check_aliveness('db', conn, 0.05)
            assert conn.closed
        assert not manager.check_aliveness('db', conn, 0.05)

    def test_interrupted_closes(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(conn: object) -> bool:
            raise KeyboardInterrupt

        monkeypatch.setattr(vars(conn)['gcpool_session'], 'poll', lambda _: True)
        monkeypatch.setattr(contrib, 'is_connected', interrupt)
        with pytest.raises(KeyboardInterrupt):
            manager.check_aliveness('db', conn)
        assert conn.closed

    def test_of_one_in_a_transaction(self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]') -> None:
        conn.execute('SELECT 1')
        assert not manager.check_aliveness('db', conn)

    def test_of_one_with_an_answer_unread(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]'
    ) -> None:
        conn.pgconn.send_query(b'SELECT 1')
        conn.pgconn.flush()
        wait_readable(conn.fileno())
        assert not manager.check_aliveness('db', conn)


class TestRelease:
    def test_sends_nothing_if_there_is_nothing_to_mend(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', on_server: Callable[[str], Any]
    ) -> None:
        conn.execute('SELECT 2')
        conn.commit()
        conn.autocommit = True
        manager.on_release('db', conn)
        assert last_query(conn, on_server) == 'COMMIT'

    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('failed', [True, False])
    @pytest.mark.parametrize('rollback_timeout', [None, 3600.0])
    def test_rolls_back_what_is_open(
        self, postgres: PostgresServer, autocommit: bool, failed: bool, rollback_timeout: float | None
    ) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, rollback_timeout=rollback_timeout)
        conn = manager.create('db')
        conn.autocommit = autocommit
        if autocommit:
            conn.execute('BEGIN')
        conn.execute('CREATE TABLE left_open (n int)')
        # Lives as long as the transaction.
        conn.execute('DECLARE at_the_server CURSOR FOR SELECT generate_series(1, 1000)')
        if failed:
            with pytest.raises(psycopg.errors.DivisionByZero):
                conn.execute('SELECT 1/0')
        manager.on_release('db', conn)
        assert conn.info.transaction_status == IDLE
        assert manager.check_aliveness('db', conn)
        assert fetch(conn, "SELECT to_regclass('left_open')") is None
        assert fetch(conn, 'SELECT count(*) FROM pg_cursors') == 0
        manager.dispose('db', conn)

    def test_takes_settings_back(self, postgres: PostgresServer) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, kwargs={'prepare_threshold': 7})
        conn: Any = manager.create('db')
        conn.autocommit = True
        conn.read_only = True
        conn.deferrable = True
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        conn.prepare_threshold = None
        conn.prepared_max = 3
        conn.row_factory = dict_row
        conn.cursor_factory = psycopg.ClientCursor
        conn.execute('SELECT 1')
        manager.on_release('db', conn)
        taken_back = [conn.autocommit, conn.read_only, conn.deferrable, conn.isolation_level]
        assert taken_back == [False, None, None, None]
        assert conn.prepare_threshold == 7
        assert conn.prepared_max == 100
        assert conn.execute('SELECT 1').fetchone() == (1,)
        assert type(conn.cursor()) is psycopg.Cursor
        manager.dispose('db', conn)

    def test_takes_handlers_back(self, postgres: PostgresServer, on_server: Callable[[str], Any]) -> None:
        heard: list[str] = []

        def hear_all(told: Any) -> None:
            heard.append(f'all: {told.message_primary}')

        def hear_one(told: Any) -> None:
            heard.append(f'one: {told}')

        manager = ConnectionManager({'db': postgres.dsn}, configure=lambda conn: conn.add_notice_handler(hear_all))
        conn = manager.create('db')
        conn.remove_notice_handler(hear_all)
        conn.add_notice_handler(hear_one)
        conn.add_notify_handler(hear_one)
        conn.autocommit = True
        conn.execute('LISTEN gcpool')
        manager.on_release('db', conn)
        conn.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
        on_server("SELECT 1 FROM pg_notify('gcpool', 'hello')")
        conn.execute('SELECT 1')
        assert heard == ['all: hello']
        manager.dispose('db', conn)

    def test_leaves_the_settings_of_another_managers_connection(
        self, manager: 'ConnectionManager[str, Any]', postgres: PostgresServer
    ) -> None:
        with psycopg.Connection.connect(postgres.dsn) as conn:
            conn.autocommit = True
            manager.on_release('db', conn)
            assert conn.autocommit

    def check_discards(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', why: str, broken: bool = True
    ) -> None:
        assert manager.is_broken('db', conn, KeyboardInterrupt()) is broken
        # An interrupted release may have left it so.
        assert not manager.check_aliveness('db', conn)
        with pytest.raises(DiscardConnection, match=why):
            manager.on_release('db', conn)
        manager.dispose('db', conn)
        assert conn.closed
        assert not manager.check_aliveness('db', conn)

    def test_discards_what_a_user_has_closed(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', caplog: pytest.LogCaptureFixture
    ) -> None:
        conn.close()
        self.check_discards(manager, conn, "'db' was returned closed")
        assert not caplog.text

    def test_discards_what_the_server_has_ended(
        self,
        manager: 'ConnectionManager[str, Any]',
        conn: 'Connection[Any]',
        on_server: Callable[[str], Any],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        conn.execute('SELECT 1')
        kill(conn, on_server)
        self.check_discards(manager, conn, 'cannot be rolled back', broken=False)
        assert "discarding a connection to 'db'" in caplog.text

    def test_discards_what_is_not_rolled_back_in_time(self, postgres: PostgresServer) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, rollback_timeout=0.05)
        conn = manager.create('db')
        conn.execute('SELECT 1')
        with frozen(conn.info.backend_pid):
            self.check_discards(manager, conn, 'cannot be rolled back', broken=False)

    def test_discards_one_with_an_answer_unread(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', caplog: pytest.LogCaptureFixture
    ) -> None:
        conn.pgconn.send_query(b'SELECT 1')
        self.check_discards(manager, conn, 'in the middle of a statement')
        assert 'in the middle of a statement' in caplog.text

    def test_discards_one_in_the_middle_of_a_stream(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]'
    ) -> None:
        rows: Any = conn.cursor().stream('SELECT generate_series(1, 100000)')
        assert next(rows) == (1,)
        self.check_discards(manager, conn, 'in the middle of a statement')
        rows.close()

    @pytest.mark.parametrize('direction', ['TO STDOUT', 'FROM STDIN'])
    def test_discards_one_in_the_middle_of_a_copy(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', direction: str
    ) -> None:
        conn.execute('CREATE TEMPORARY TABLE copied AS SELECT generate_series(1, 100000) n')
        copying = conn.cursor().copy(f'COPY copied {direction}'.encode())
        copying.__enter__()
        self.check_discards(manager, conn, 'in the middle of a statement')
        with contextlib.suppress(psycopg.Error):
            copying.__exit__(None, None, None)

    def test_discards_one_in_pipeline_mode(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]'
    ) -> None:
        pipeline = conn.pipeline()
        pipeline.__enter__()
        self.check_discards(manager, conn, 'in pipeline mode')
        with contextlib.suppress(psycopg.Error):
            pipeline.__exit__(None, None, None)

    def test_discards_one_that_waits_for_notifications(
        self, postgres: PostgresServer, on_server: Callable[[str], Any]
    ) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, kwargs={'autocommit': True})
        conn = manager.create('db')
        conn.execute('LISTEN gcpool')
        on_server("SELECT 1 FROM pg_notify('gcpool', 'hello')")
        notifications = conn.notifies()
        assert next(notifications).payload == 'hello'
        self.check_discards(manager, conn, 'in use')
        notifications.close()

    def test_discards_one_in_a_transaction_block(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]'
    ) -> None:
        block = conn.transaction()
        block.__enter__()
        self.check_discards(manager, conn, r'in a transaction\(\) block')
        with contextlib.suppress(psycopg.Error):
            block.__exit__(None, None, None)

    @pytest.mark.parametrize('end', ['COMMIT', 'ROLLBACK'])
    def test_discards_one_in_a_transaction_block_that_is_over_at_the_server(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', end: str
    ) -> None:
        block = conn.transaction()
        block.__enter__()
        conn.execute(end.encode())
        assert conn.info.transaction_status == IDLE
        self.check_discards(manager, conn, r'in a transaction\(\) block')
        with contextlib.suppress(psycopg.Error):
            block.__exit__(None, None, None)

    def test_discards_one_in_a_two_phase_commit_and_leaves_it_prepared(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', on_server: Callable[[str], Any]
    ) -> None:
        conn.tpc_begin('gcpool-test-3')
        conn.execute('SELECT 1')
        conn.tpc_prepare()
        self.check_discards(manager, conn, 'in a two-phase commit')
        assert on_server("SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'gcpool-test-3'") == 1
        on_server("ROLLBACK PREPARED 'gcpool-test-3'")

    def test_closes_when_interrupted(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        conn.execute('SELECT 1')
        monkeypatch.setattr(contrib, 'exchange', interrupt)
        with pytest.raises(KeyboardInterrupt):
            manager.on_release('db', conn)
        assert conn.closed

    @pytest.mark.parametrize('ping', [True, False])
    def test_a_check_finds_what_was_not_taken_back(self, postgres: PostgresServer, ping: bool) -> None:
        manager = ConnectionManager({'db': postgres.dsn}, ping=ping)
        for change in CHANGES:
            conn = manager.create('db')
            assert manager.check_aliveness('db', conn)
            change(conn)
            assert not manager.check_aliveness('db', conn)
            manager.on_release('db', conn)
            assert manager.check_aliveness('db', conn)
            manager.dispose('db', conn)

    def test_a_check_leaves_the_settings_of_another_managers_connection(
        self, manager: 'ConnectionManager[str, Any]', postgres: PostgresServer
    ) -> None:
        with psycopg.Connection.connect(postgres.dsn) as conn:
            conn.autocommit = True
            assert manager.check_aliveness('db', conn)


class TestIsBroken:
    def test_not_after_an_error_of_a_statement(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]'
    ) -> None:
        with pytest.raises(psycopg.errors.DivisionByZero) as caught:
            conn.execute('SELECT 1/0')
        assert not manager.is_broken('db', conn, caught.value)
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)

    def test_after_the_server_has_ended_it(
        self, manager: 'ConnectionManager[str, Any]', conn: 'Connection[Any]', on_server: Callable[[str], Any]
    ) -> None:
        kill(conn, on_server)
        with pytest.raises(psycopg.OperationalError) as caught:
            conn.execute('SELECT 1')
        assert manager.is_broken('db', conn, caught.value)


def start_sleeping(conn: 'Connection[Any]') -> tuple[threading.Thread, list[Exception]]:
    """Have a thread execute a statement that would take an hour, and return when the connection is busy with it."""
    failures: list[Exception] = []
    # psycopg's own BEGIN would make the connection busy only for a moment.
    conn.execute('SELECT 1')

    def sleep() -> None:
        try:
            conn.execute('SELECT pg_sleep(3600)')
        except psycopg.Error as exc:
            failures.append(exc)

    user = threading.Thread(target=sleep, daemon=True)
    user.start()
    deadline = time.monotonic() + PATIENCE
    while conn.info.transaction_status != TransactionStatus.ACTIVE:
        assert time.monotonic() < deadline
    return user, failures


class TestDispose:
    def test_twice(self, manager: 'ConnectionManager[str, Any]') -> None:
        conn = manager.create('db')
        manager.dispose('db', conn)
        manager.dispose('db', conn)
        assert conn.closed

    def test_ends_a_running_statement(self, manager: 'ConnectionManager[str, Any]') -> None:
        conn = manager.create('db')
        user, failures = start_sleeping(conn)
        assert manager.is_broken('db', conn, KeyboardInterrupt())
        manager.dispose('db', conn)
        user.join(PATIENCE)
        assert not user.is_alive()
        assert len(failures) == 1
        assert conn.closed

    @pytest.mark.parametrize('busy', [True, False])
    def test_does_not_wait_for_a_server_that_says_nothing(
        self, manager: 'ConnectionManager[str, Any]', busy: bool
    ) -> None:
        conn = manager.create('db')
        with frozen(conn.info.backend_pid):
            if busy:
                conn.pgconn.send_query(b'SELECT 1')
            manager.dispose('db', conn)
            assert conn.closed

    def test_closes_the_socket_of_a_lost_connection(
        self, manager: 'ConnectionManager[str, Any]', on_server: Callable[[str], Any]
    ) -> None:
        conn = manager.create('db')
        fd = conn.fileno()
        kill(conn, on_server)
        manager.dispose('db', conn)
        with pytest.raises(OSError, match='Bad file descriptor'):
            socket.socket(fileno=fd)


class TestInPool:
    def test_serves_the_same_connection_again(self, manager: 'ConnectionManager[str, Any]') -> None:
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)) as pool:
            with pool.connection('db') as first:
                assert fetch(first, 'SELECT 1') == 1
            with pool.connection('db') as second:
                assert second is first
                assert second.info.transaction_status == IDLE

    def test_replaces_what_the_server_has_ended(
        self, manager: 'ConnectionManager[str, Any]', on_server: Callable[[str], Any]
    ) -> None:
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)) as pool:
            with pool.connection('db') as first:
                fetch(first, 'SELECT 1')
            kill(first, on_server)
            with pool.connection('db') as second:
                assert second is not first
                assert fetch(second, 'SELECT 1') == 1
            assert first.closed
            assert pool.get_size() == 1

    def test_discards_what_is_in_doubt(self, manager: 'ConnectionManager[str, Any]') -> None:
        with contextlib.closing(gcpool.threading.ConnectionPool[str, Any](manager, max_size=1)) as pool:
            with pool.connection('db') as left_busy:
                left_busy.pgconn.send_query(b'SELECT 1')
            assert left_busy.closed
            assert pool.get_size() == 0
            used: list[Connection[Any]] = []
            with contextlib.suppress(LookupError), pool.connection('db') as failed:
                used.append(failed)
                failed.pgconn.send_query(b'SELECT 1')
                raise LookupError
            assert used[0].closed
            with pool.connection('db') as kept:
                fetch(kept, 'SELECT 1')
            with contextlib.suppress(LookupError), pool.connection('db') as again:
                assert again is kept
                fetch(again, 'SELECT 1')
                raise LookupError
            with pool.connection('db') as again:
                assert again is kept

    def test_serves_many(self, manager: 'ConnectionManager[str, Any]') -> None:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(20):
                    with pool.connection('db') as conn:
                        assert fetch(conn, 'SELECT 6 * 7') == 42
            except BaseException as exc:
                failures.append(exc)
                raise

        with contextlib.closing(
            gcpool.threading.ConnectionPool[str, Any](manager, max_size=3, acquire_timeout=PATIENCE)
        ) as pool:
            threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE)
            assert not any(thread.is_alive() for thread in threads)
            assert pool.get_stats()['created'] <= 3
        assert not failures


@pytest.fixture
def async_manager(postgres: PostgresServer) -> 'AsyncConnectionManager[str, Any]':
    return AsyncConnectionManager({'db': postgres.conninfo_params})


@contextlib.asynccontextmanager
async def connected(
    manager: 'AsyncConnectionManager[str, Any]',
) -> 'AsyncIterator[AsyncConnection[Any]]':
    conn = await manager.create('db')
    try:
        yield conn
    finally:
        await manager.dispose('db', conn)


async def async_fetch(conn: 'AsyncConnection[Any]', query: str) -> Any:
    row = await (await conn.execute(query.encode())).fetchone()
    return row and row[0]


async def async_kill(conn: Any, on_server: Callable[[str], Any]) -> None:
    await asyncio.to_thread(kill, conn, on_server)


async def until_active(conn: 'AsyncConnection[Any]') -> None:
    """Let the loop turn until a statement has been sent."""
    while conn.info.transaction_status != TransactionStatus.ACTIVE:  # noqa: ASYNC110  (psycopg has no event for it)
        await asyncio.sleep(0)


class TestAsyncCreate:
    def test_takes_strings_parameters_and_callables(self, run: Run, postgres: PostgresServer) -> None:
        async def parameters(endpoint: str) -> dict[str, Any]:
            await asyncio.sleep(0)
            return {**postgres.conninfo_params, 'application_name': endpoint}

        sources: list[Any] = [
            {'db': postgres.dsn},
            {'db': {'conninfo': postgres.dsn, 'autocommit': True}},
            {'db': lambda endpoint: postgres.dsn},
            lambda endpoint: {'db': postgres.dsn}[endpoint],
            {'db': parameters},
            parameters,
        ]

        async def main() -> None:
            for source in sources:
                manager = AsyncConnectionManager[str, AsyncConnection[Any]](
                    source, kwargs={'application_name': 'of the test'}, connection_class=AsyncConnection
                )
                async with connected(manager) as conn:
                    expected = 'db' if sources.index(source) >= 4 else 'of the test'
                    assert await async_fetch(conn, 'SHOW application_name') == expected
                assert conn.closed

        run(main)

    def test_configures(self, run: Run, postgres: PostgresServer) -> None:
        async def configure(conn: 'AsyncConnection[Any]') -> None:
            await conn.set_autocommit(True)
            await conn.execute('SET application_name = configured')

        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, configure=configure)
            async with connected(manager) as conn:
                assert await async_fetch(conn, 'SHOW application_name') == 'configured'
                await manager.on_release('db', conn)
                assert conn.autocommit

        run(main)

    @pytest.mark.parametrize('cancelled', [True, False])
    def test_closes_what_is_not_configured(self, run: Run, postgres: PostgresServer, cancelled: bool) -> None:
        made: list[Any] = []

        async def main() -> None:
            configuring = asyncio.Event()

            async def configure(conn: 'AsyncConnection[Any]') -> None:
                made.append(conn)
                configuring.set()
                if not cancelled:
                    raise LookupError('of the test')
                await asyncio.Event().wait()

            manager = AsyncConnectionManager({'db': postgres.dsn}, configure=configure)
            task = asyncio.ensure_future(manager.create('db'))
            await configuring.wait()
            if cancelled:
                await cancel(task)
            else:
                with pytest.raises(LookupError, match='of the test'):
                    await task
            assert made[0].closed

        run(main)

    def test_says_so_when_configure_leaves_a_transaction_open(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, configure=lambda conn: conn.execute('SELECT 1'))
            with pytest.raises(ConnectError, match="endpoint 'db' in status INTRANS"):
                await manager.create('db')

        run(main)

    @pytest.mark.parametrize('found', NO_CONNINFO)
    def test_refuses_what_is_no_conninfo(self, run: Run, found: Any) -> None:
        async def look_up(endpoint: str) -> Any:
            return found

        sources: list[Any] = [{'db': found}, {'db': look_up}, look_up]

        async def main() -> None:
            for source in sources:
                with pytest.raises(TypeError, match=r"endpoint 'db' .*expected a.* entry in conninfo") as caught:
                    await AsyncConnectionManager[str, AsyncConnection[Any]](
                        source, connection_class=AsyncConnection
                    ).create('db')
                assert isinstance(caught.value, ConnectError)

        run(main)

    def test_an_endpoint_that_a_callable_does_not_know(self, run: Run) -> None:
        known = {'db': 'host=db'}

        async def look_up(endpoint: str) -> str:
            return known[endpoint]

        async def main() -> None:
            for source in (known.__getitem__, look_up):
                with pytest.raises(UnknownEndpoint, match=r"'none' is not known to the callable in conninfo"):
                    await AsyncConnectionManager(source).create('none')

        run(main)

    def test_no_attribute_of_the_error_has_the_password(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': {**postgres.conninfo_params, 'password': 'of-the-wrong-one'}})
            with pytest.raises(ConnectError, match='check user, password') as caught:
                await manager.create('db')
            assert not shows(caught.value, 'of-the-wrong-one')
            assert caught.value.__cause__.pgconn is None  # type: ignore[union-attr]

        run(main)

    def test_says_which_endpoints_there_are(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn})
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager)
            with pytest.raises(UnknownEndpoint, match=r"'none' is not in conninfo, which has \['db'\]"):
                await pool.acquire('none')
            assert pool.get_size() == 0
            await pool.close()

        run(main)

    @pytest.mark.parametrize(('changes', 'advice'), BAD_INPUT)
    def test_says_what_to_do(self, run: Run, postgres: PostgresServer, changes: dict[str, Any], advice: str) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': {**postgres.conninfo_params, **changes}})
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager)
            with pytest.raises(psycopg.Error, match=rf"endpoint 'db' .*; {advice}") as caught:
                await pool.acquire('db', timeout=20.0)
            assert pool.get_size() == 0
            await pool.close()
            assert isinstance(caught.value, ConnectError)
            assert caught.value.endpoint == 'db'
            assert isinstance(caught.value.__cause__, psycopg.Error)
            assert postgres.password not in str(caught.value)

        run(main)

    def test_refused(self, run: Run) -> None:
        async def main(port: int) -> None:
            manager = AsyncConnectionManager({'db': {'host': '127.0.0.1', 'port': port}})
            with pytest.raises(psycopg.OperationalError, match=r"'db' .* refused.* server is running") as caught:
                await manager.create('db')
            assert isinstance(caught.value, ConnectError)

        with closed_port() as port:
            run(lambda: main(port))

    def test_too_many_connections(self, run: Run, postgres: PostgresServer, limited_role: str) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': {**postgres.conninfo_params, 'user': limited_role}})
            async with connected(manager):
                with pytest.raises(psycopg.OperationalError, match='lower max_size') as caught:
                    await manager.create('db')
                assert isinstance(caught.value, ConnectError)

        run(main)

    def test_times_out(self, run: Run, silent_listener: socket.socket) -> None:
        async def main() -> None:
            host, port = silent_listener.getsockname()
            manager = AsyncConnectionManager({'db': {'host': host, 'port': port}})
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager)
            with pytest.raises(PoolTimeout) as caught:
                await pool.acquire('db', timeout=0.05)
            assert pool.get_size() == 0
            await pool.close()
            # While the error exists.
            await asyncio.to_thread(accept_and_wait_for_end, silent_listener)
            assert caught.value is not None

        run(main)

    def test_says_so_when_the_limit_was_its_own(self, run: Run, silent_listener: socket.socket) -> None:
        async def main() -> None:
            host, port = silent_listener.getsockname()
            manager = AsyncConnectionManager({'db': {'host': host, 'port': port, 'connect_timeout': 1}})
            with pytest.raises(ConnectTimeout, match="'db' could be made in time") as caught:
                await manager.create('db')
            assert isinstance(caught.value.__cause__, psycopg.errors.ConnectionTimeout)

        run(main)

    def test_cancelled_leaves_nothing_open(self, run: Run, silent_listener: socket.socket) -> None:
        async def main() -> None:
            host, port = silent_listener.getsockname()
            manager = AsyncConnectionManager({'db': {'host': host, 'port': port, 'sslmode': 'disable'}})
            task = asyncio.ensure_future(manager.create('db'))
            conn, _ = await asyncio.to_thread(silent_listener.accept)
            with conn:
                await asyncio.to_thread(wait_readable, conn)
                await cancel(task)
                await asyncio.to_thread(wait_for_end, conn)

        run(main)


def accept_and_wait_for_end(listener: socket.socket) -> None:
    with listener.accept()[0] as conn:
        wait_for_end(conn)


class TestAsyncAliveness:
    @pytest.mark.parametrize('ping', [True, False])
    def test_of_an_idle_one(
        self, run: Run, postgres: PostgresServer, on_server: Callable[[str], Any], ping: bool
    ) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, ping=ping)
            async with connected(manager) as conn:
                await conn.execute('SELECT 2')
                await conn.rollback()
                assert await manager.check_aliveness('db', conn)
                assert last_query(conn, on_server) == ('' if ping else 'ROLLBACK')
                assert conn.info.transaction_status == IDLE
                assert await async_fetch(conn, 'SELECT 1') == 1
            assert not await manager.check_aliveness('db', conn)

        run(main)

    @pytest.mark.parametrize('ping', [True, False])
    def test_of_what_the_server_has_ended(
        self, run: Run, postgres: PostgresServer, on_server: Callable[[str], Any], ping: bool
    ) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, ping=ping)
            async with connected(manager) as conn:
                await async_kill(conn, on_server)
                assert not await manager.check_aliveness('db', conn)

        run(main)

    def test_with_ping_finds_an_end_that_the_kernel_does_not_know(
        self,
        run: Run,
        postgres: PostgresServer,
        on_server: Callable[[str], Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(statements, 'poll_once', lambda fd: (False, False))

        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, ping=True)
            async with connected(manager) as conn:
                await async_kill(conn, on_server)
                assert not await manager.check_aliveness('db', conn)
                assert conn.closed

        run(main)

    def test_cancelled_closes(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, ping=True)
            async with connected(manager) as conn:
                with frozen(conn.info.backend_pid):
                    task = asyncio.ensure_future(manager.check_aliveness('db', conn))
                    await until_active(conn)
                    await cancel(task)
                    assert conn.closed
                    assert not await manager.check_aliveness('db', conn)

        run(main)


class TestAsyncRelease:
    def test_sends_nothing_if_there_is_nothing_to_mend(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]', on_server: Callable[[str], Any]
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                await conn.execute('SELECT 2')
                await conn.commit()
                await conn.set_autocommit(True)
                await async_manager.on_release('db', conn)
                assert not conn.autocommit
                assert last_query(conn, on_server) == 'COMMIT'

        run(main)

    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('failed', [True, False])
    @pytest.mark.parametrize('rollback_timeout', [None, 3600.0])
    def test_rolls_back_what_is_open(
        self, run: Run, postgres: PostgresServer, autocommit: bool, failed: bool, rollback_timeout: float | None
    ) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, rollback_timeout=rollback_timeout)
            async with connected(manager) as conn:
                await conn.set_autocommit(autocommit)
                if autocommit:
                    await conn.execute('BEGIN')
                await conn.execute('CREATE TABLE left_open (n int)')
                if failed:
                    with pytest.raises(psycopg.errors.DivisionByZero):
                        await conn.execute('SELECT 1/0')
                await manager.on_release('db', conn)
                assert conn.info.transaction_status == IDLE
                assert await manager.check_aliveness('db', conn)
                assert await async_fetch(conn, "SELECT to_regclass('left_open')") is None

        run(main)

    def test_takes_settings_back(self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]') -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                await conn.set_autocommit(True)
                await conn.set_read_only(True)
                await conn.set_deferrable(True)
                await conn.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
                conn.prepared_max = 3
                conn.row_factory = dict_row
                conn.add_notice_handler(print)
                await conn.execute('SELECT 1')
                await async_manager.on_release('db', conn)
                assert not conn.autocommit
                assert [conn.read_only, conn.deferrable, conn.isolation_level] == [None, None, None]
                assert conn.prepared_max == 100
                with pytest.raises(ValueError, match='not in list'):
                    conn.remove_notice_handler(print)
                assert await (await conn.execute('SELECT 1')).fetchone() == (1,)

        run(main)

    async def check_discards(
        self,
        manager: 'AsyncConnectionManager[str, Any]',
        conn: 'AsyncConnection[Any]',
        why: str,
        broken: bool = True,
    ) -> None:
        assert await manager.is_broken('db', conn, asyncio.CancelledError()) is broken
        # An interrupted release may have left it so.
        assert not await manager.check_aliveness('db', conn)
        with pytest.raises(DiscardConnection, match=why):
            await manager.on_release('db', conn)
        await manager.dispose('db', conn)
        assert conn.closed
        assert not await manager.check_aliveness('db', conn)

    def test_discards_what_is_closed(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]', on_server: Callable[[str], Any]
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                await conn.close()
                await self.check_discards(async_manager, conn, "'db' was returned closed")
            async with connected(async_manager) as conn:
                await conn.execute('SELECT 1')
                await async_kill(conn, on_server)
                await self.check_discards(async_manager, conn, 'cannot be rolled back', broken=False)

        run(main)

    def test_discards_one_in_the_middle_of_a_stream(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]'
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                rows: Any = conn.cursor().stream('SELECT generate_series(1, 100000)')
                assert await rows.__anext__() == (1,)
                await self.check_discards(async_manager, conn, 'in the middle of a statement')
                await rows.aclose()

        run(main)

    def test_discards_one_in_the_middle_of_a_copy(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]'
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                copying = conn.cursor().copy('COPY (SELECT generate_series(1, 100000)) TO STDOUT')
                await copying.__aenter__()
                await self.check_discards(async_manager, conn, 'in the middle of a statement')
                with contextlib.suppress(psycopg.Error):
                    await copying.__aexit__(None, None, None)

        run(main)

    def test_discards_one_in_pipeline_mode(self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]') -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                pipeline = conn.pipeline()
                await pipeline.__aenter__()
                await self.check_discards(async_manager, conn, 'in pipeline mode')
                with contextlib.suppress(psycopg.Error):
                    await pipeline.__aexit__(None, None, None)

        run(main)

    def test_discards_what_is_not_rolled_back_in_time(self, run: Run, postgres: PostgresServer) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, rollback_timeout=0.05)
            async with connected(manager) as conn:
                await conn.execute('SELECT 1')
                with frozen(conn.info.backend_pid):
                    await self.check_discards(manager, conn, 'cannot be rolled back', broken=False)

        run(main)

    @pytest.mark.parametrize('end', [None, 'COMMIT', 'ROLLBACK'])
    def test_discards_one_in_a_transaction_block(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]', end: str | None
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                block = conn.transaction()
                await block.__aenter__()
                if end is not None:
                    await conn.execute(end.encode())
                    assert conn.info.transaction_status == IDLE
                await self.check_discards(async_manager, conn, r'in a transaction\(\) block')
                with contextlib.suppress(psycopg.Error):
                    await block.__aexit__(None, None, None)

        run(main)

    def test_cancelled_closes_without_waiting_for_the_server(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]'
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                await conn.execute('SELECT 1')
                with frozen(conn.info.backend_pid):
                    task = asyncio.ensure_future(async_manager.on_release('db', conn))
                    await until_active(conn)
                    await cancel(task)
                    assert conn.closed

        run(main)

    @pytest.mark.parametrize('ping', [True, False])
    def test_a_check_finds_what_was_not_taken_back(self, run: Run, postgres: PostgresServer, ping: bool) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.dsn}, ping=ping)
            for change in (None, *CHANGES[1:]):
                async with connected(manager) as conn:
                    assert await manager.check_aliveness('db', conn)
                    if change is None:
                        await conn.set_autocommit(True)
                    else:
                        change(conn)
                    assert not await manager.check_aliveness('db', conn)
                    await manager.on_release('db', conn)
                    assert await manager.check_aliveness('db', conn)

        run(main)


class TestAsyncIsBroken:
    def test_after_an_error(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]', on_server: Callable[[str], Any]
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                with pytest.raises(psycopg.errors.DivisionByZero) as failed:
                    await conn.execute('SELECT 1/0')
                assert not await async_manager.is_broken('db', conn, failed.value)
                await async_manager.on_release('db', conn)
                await async_kill(conn, on_server)
                with pytest.raises(psycopg.OperationalError) as lost:
                    await conn.execute('SELECT 1')
                assert await async_manager.is_broken('db', conn, lost.value)

        run(main)

    def test_not_after_a_cancelled_statement_that_the_server_has_ended(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]', on_server: Callable[[str], Any]
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                await conn.execute('SELECT 1')
                task = asyncio.ensure_future(conn.execute('SELECT pg_sleep(3600)'))
                # A cancellation before the server begins the statement has no effect.
                asleep = f"pid = {conn.info.backend_pid} AND wait_event = 'PgSleep'"
                while not on_server(f'SELECT count(*) FROM pg_stat_activity WHERE {asleep}'):  # noqa: ASYNC110
                    await asyncio.sleep(0)
                await cancel(task)
                assert not await async_manager.is_broken('db', conn, asyncio.CancelledError())
                await async_manager.on_release('db', conn)
                assert await async_fetch(conn, 'SELECT 1') == 1

        run(main)


class TestAsyncDispose:
    def test_twice(self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]') -> None:
        async def main() -> None:
            conn = await async_manager.create('db')
            await async_manager.dispose('db', conn)
            await async_manager.dispose('db', conn)
            assert conn.closed

        run(main)

    def test_ends_a_running_statement(self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]') -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                await conn.execute('SELECT 1')
                user = asyncio.ensure_future(conn.execute('SELECT pg_sleep(3600)'))
                await until_active(conn)
                await async_manager.dispose('db', conn)
                with pytest.raises(psycopg.OperationalError):
                    await user
                assert conn.closed

        run(main)

    @pytest.mark.parametrize('cancelled', [True, False])
    def test_does_not_wait_for_a_server_that_says_nothing(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]', cancelled: bool
    ) -> None:
        async def main() -> None:
            async with connected(async_manager) as conn:
                rows: Any = conn.cursor().stream('SELECT generate_series(1, 100000)')
                await rows.__anext__()
                with frozen(conn.info.backend_pid):
                    task = asyncio.ensure_future(async_manager.dispose('db', conn))
                    await asyncio.sleep(0)
                    if cancelled:
                        await cancel(task)
                    await asyncio.wait((task,))
                    assert conn.closed
                await rows.aclose()

        run(main)


class TestAsyncInPool:
    @pytest.mark.parametrize('left', ['settings', 'a pipeline', 'notifications', 'a transaction()'])
    def test_does_not_serve_what_a_release_that_was_left_out_has_not_tidied_up(
        self, run: Run, postgres: PostgresServer, left: str
    ) -> None:
        async def main() -> None:
            manager = AsyncConnectionManager({'db': postgres.conninfo_params}, kwargs={'autocommit': True})
            pool = gcpool.asyncio.ConnectionPool[str, Any](manager, max_size=1)
            conn = await pool.acquire('db')
            held: Any = None
            if left == 'settings':
                conn.row_factory = dict_row
            elif left == 'a pipeline':
                held = conn.pipeline()
                await held.__aenter__()
            elif left == 'notifications':
                await conn.execute('LISTEN gcpool')
                await conn.execute('NOTIFY gcpool')
                held = conn.notifies()
                await held.__anext__()
            else:
                held = conn.transaction()
                await held.__aenter__()
                await conn.execute('COMMIT')
            release = asyncio.ensure_future(pool.release(conn, 'db'))
            # Before its first step.
            release.cancel()
            await asyncio.wait((release,))
            async with pool.connection('db') as other:
                assert other is not conn
                assert await async_fetch(other, 'SELECT 1') == 1
            if left == 'notifications':
                await held.aclose()
            elif held is not None:
                # Its result does not matter any more.
                with contextlib.suppress(psycopg.Error):
                    await held.__aexit__(None, None, None)
            await pool.close()

        run(main)

    def test_serves_many(self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]') -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[str, Any](async_manager, max_size=3, acquire_timeout=PATIENCE)

            async def work() -> None:
                for _ in range(10):
                    async with pool.connection('db') as conn:
                        assert await async_fetch(conn, 'SELECT 6 * 7') == 42

            await asyncio.gather(*(work() for _ in range(8)))
            assert pool.get_stats()['created'] <= 3
            await pool.close()

        run(main)

    def test_discards_what_is_in_doubt(self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]') -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[str, Any](async_manager, max_size=1)
            async with pool.connection('db') as left_busy:
                left_busy.pgconn.send_query(b'SELECT 1')
            # Leaving the block does not wait longer than 0.1 s for the end of the connection.
            await until(lambda: pool.get_size() == 0)
            assert left_busy.closed
            used: list[AsyncConnection[Any]] = []
            with contextlib.suppress(LookupError):
                async with pool.connection('db') as failed:
                    used.append(failed)
                    failed.pgconn.send_query(b'SELECT 1')
                    raise LookupError
            await until(lambda: pool.get_size() == 0)
            assert used[0].closed
            await pool.close()

        run(main)

    def test_replaces_what_the_server_has_ended(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]', on_server: Callable[[str], Any]
    ) -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[str, Any](async_manager, max_size=1)
            async with pool.connection('db') as first:
                await async_fetch(first, 'SELECT 1')
            await async_kill(first, on_server)
            async with pool.connection('db') as second:
                assert second is not first
                assert await async_fetch(second, 'SELECT 1') == 1
            assert first.closed
            assert pool.get_size() == 1
            await pool.close()

        run(main)

    def test_cancelled_at_any_moment_leaks_nothing(
        self, run: Run, async_manager: 'AsyncConnectionManager[str, Any]', postgres: PostgresServer
    ) -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[str, Any](async_manager, max_size=2)

            async def work() -> None:
                async with pool.connection('db') as conn:
                    await async_fetch(conn, 'SELECT 1')

            for turns in range(25):
                task = asyncio.ensure_future(work())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait((task,))
            async with pool.connection('db') as conn:
                assert await async_fetch(conn, 'SELECT 6 * 7') == 42
                assert conn.info.transaction_status == TransactionStatus.INTRANS
            assert await pool.get_endpoint_pool_size('db', acquired=True) == 0
            await pool.close()
            assert pool.get_size() == 0

        before = postgres.count_sessions()
        run(main)
        gc.collect()
        postgres.wait_for_sessions(before)


def test_the_log_has_no_secrets(postgres: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    manager = ConnectionManager({'db': postgres.dsn})
    with caplog.at_level(logging.DEBUG, 'gcpool'):
        conn = manager.create('db', 20.0)
        conn.pgconn.send_query(b'SELECT 1')
        with pytest.raises(DiscardConnection):
            manager.on_release('db', conn)
        manager.dispose('db', conn)
    assert "'db'" in caplog.text
    assert postgres.password not in caplog.text


def test_says_what_to_install_where_there_is_no_libpq(tmp_path: Path) -> None:
    (tmp_path / 'psycopg.py').write_text("raise ImportError('no pq wrapper available.')\n")
    script = """if True:
        try:
            import gcpool.contrib.psycopg
        except ImportError as exc:
            print(exc.name, exc, exc.__cause__, sep='|')
    """
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    shown = subprocess.run(
        [sys.executable, '-c', script],
        env={**os.environ, 'PYTHONPATH': path},
        stdout=subprocess.PIPE,
        check=True,
        timeout=PATIENCE,
        text=True,
    ).stdout
    name, message, cause = shown.strip().split('|')
    assert name == 'psycopg'
    assert 'pip install "gcpool[psycopg]" "psycopg[binary]"' in message
    assert cause == 'no pq wrapper available.'
