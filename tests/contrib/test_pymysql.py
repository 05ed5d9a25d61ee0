"""The manager of PyMySQL connections, alone and in a pool, against a private MariaDB server."""

import contextlib
import logging
import pickle
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gcpool.contrib._latch import Latch
from gcpool.contrib._sockets import poller_for, shut_down
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection, UnknownEndpoint
from gcpool.threading import ConnectionPool
from tests.contrib.asking import execute, fetch
from tests.contrib.mariadb import MariadbServer, Proxy
from tests.contrib.servers import PATIENCE, closed_port, wait_for_end, wait_readable

pymysql = pytest.importorskip('pymysql')

from pymysql import converters, cursors, err  # noqa: E402
from pymysql.constants import FIELD_TYPE  # noqa: E402

from gcpool.contrib.pymysql import Connection, DbConnectionManager, DbEndpoint  # noqa: E402

# What a procedure may do before it fails.
LEFT_BY_AN_ERROR = ['START TRANSACTION', 'SET autocommit = 0', 'SET autocommit = 1']


@pytest.fixture
def manager(mariadb: MariadbServer) -> DbConnectionManager:
    return DbConnectionManager({'db': mariadb.params})


@pytest.fixture
def conn(manager: DbConnectionManager) -> Iterator[Connection]:
    conn = manager.create('db')
    yield conn
    manager.dispose('db', conn)


@pytest.fixture
def autocommitting(mariadb: MariadbServer) -> Iterator[Connection]:
    """A connection in autocommit mode."""
    manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': True}})
    conn = manager.create('db')
    yield conn
    manager.dispose('db', conn)


@pytest.fixture
def new_pool(manager: DbConnectionManager) -> Iterator[Callable[..., ConnectionPool[DbEndpoint, Connection]]]:
    pools: list[ConnectionPool[DbEndpoint, Connection]] = []

    def make(**parameters: Any) -> ConnectionPool[DbEndpoint, Connection]:
        pools.append(ConnectionPool(parameters.pop('manager', manager), acquire_timeout=PATIENCE, **parameters))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@contextlib.contextmanager
def commands_sent(conn: Connection) -> Iterator[list[bytes]]:
    """Records what is sent."""
    sent: list[bytes] = []
    write = conn._write_bytes

    def record(data: bytes) -> None:
        sent.append(data[5:])
        write(data)

    conn._write_bytes = record
    try:
        yield sent
    finally:
        del conn._write_bytes


def sock_of(conn: Connection) -> socket.socket:
    assert conn._sock is not None
    return conn._sock


def greeting_of(mariadb: MariadbServer) -> bytes:
    """What the server sends first."""
    with socket.create_connection((mariadb.host, mariadb.port)) as sock:
        wait_readable(sock)
        return sock.recv(4096)


@contextlib.contextmanager
def dripping(server: socket.socket, start: bytes) -> Iterator[None]:
    """Send a packet that never ends, byte by byte, each long before the client's limit, until the block ends."""
    stopping = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            server.sendall(start)
            while not stopping.wait(0.02):
                server.sendall(b'x')

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        # A thread that still reads sees the end.
        shut_down(server)
        thread.join(PATIENCE)
        assert not thread.is_alive()


def session_of(conn: Connection) -> int:
    return int(conn.thread_id())


def end_session(mariadb: MariadbServer, conn: Connection) -> None:
    """Have the server end a connection, and wait until that has arrived."""
    mariadb.kill_session(session_of(conn))
    wait_readable(sock_of(conn))


def start_sleeping(mariadb: MariadbServer, conn: Connection) -> tuple[threading.Thread, list[Exception]]:
    """Have a thread execute a statement that would take an hour, and return when the server is busy with it."""
    failures: list[Exception] = []

    def sleep() -> None:
        try:
            execute(conn, 'SELECT SLEEP(3600)')
        except Exception as exc:  # noqa: BLE001
            failures.append(exc)

    user = threading.Thread(target=sleep, daemon=True)
    user.start()
    mariadb.wait_for_statement(session_of(conn), 'SELECT SLEEP(3600)')
    return user, failures


def end_statement(mariadb: MariadbServer, conn: Connection) -> None:
    """Have the server end a connection in the middle of a statement, and raise what the driver raises."""
    user, failures = start_sleeping(mariadb, conn)
    mariadb.kill_session(session_of(conn))
    user.join(PATIENCE)
    assert not user.is_alive()
    raise failures[0]


class TestCreate:
    @pytest.mark.parametrize('timeout', [None, 20.0])
    @pytest.mark.parametrize('tls', [True, False])
    def test_connects(self, mariadb: MariadbServer, timeout: float | None, tls: bool) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'ssl_disabled': not tls}})
        conn = manager.create('db', timeout)
        assert fetch(conn, 'SELECT USER()') == f'{mariadb.user}@127.0.0.1'
        assert bool(conn.get_autocommit()) is False
        # The limit applied only to connecting.
        assert sock_of(conn).gettimeout() is None
        manager.dispose('db', conn)
        assert not conn.open

    def test_keeps_the_timeouts_of_the_parameters(self, mariadb: MariadbServer) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'read_timeout': 40, 'write_timeout': 50}})
        conn = manager.create('db', 20.0)
        assert (conn._read_timeout, conn._write_timeout) == (40, 50)
        assert fetch(conn, 'SELECT 1') == 1
        assert sock_of(conn).gettimeout() == 40
        manager.dispose('db', conn)

    def test_by_a_unix_socket(self, mariadb: MariadbServer) -> None:
        if not hasattr(socket, 'AF_UNIX'):
            pytest.skip('Python has no Unix domain sockets on this system')
        manager = DbConnectionManager(
            {'db': {'unix_socket': mariadb.socket_path, 'user': mariadb.user, 'password': mariadb.password}}
        )
        conn = manager.create('db', 20.0)
        assert sock_of(conn).family == socket.AF_UNIX
        assert manager.check_aliveness('db', conn)
        end_session(mariadb, conn)
        assert not manager.check_aliveness('db', conn)
        manager.dispose('db', conn)

    def test_of_a_unix_socket_that_is_not_there(self, tmp_path: Path) -> None:
        if not hasattr(socket, 'AF_UNIX'):
            pytest.skip('Python has no Unix domain sockets on this system')
        manager = DbConnectionManager({'db': {'unix_socket': str(tmp_path / 'none')}})
        with pytest.raises(ConnectError, match="endpoint 'db'") as caught:
            manager.create('db')
        assert isinstance(caught.value, err.OperationalError)

    @pytest.mark.parametrize('by_unix_socket', [True, False])
    def test_connects_as_the_driver_itself(self, mariadb: MariadbServer, by_unix_socket: bool) -> None:
        if by_unix_socket and not hasattr(socket, 'AF_UNIX'):
            pytest.skip('Python has no Unix domain sockets on this system')
        params = {**mariadb.params, 'unix_socket': mariadb.socket_path if by_unix_socket else None, 'read_timeout': 40}

        def details(conn: Any) -> dict[str, object]:
            with contextlib.closing(conn):
                sock = conn._sock
                return {
                    'no delay': not by_unix_socket and bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
                    'keep alive': bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
                    'timeouts': (conn._read_timeout, conn._write_timeout),
                    'TLS': isinstance(sock, ssl.SSLSocket),
                    'secure': conn._secure,
                    'host info': conn.get_host_info(),
                    'connect timeout': conn.connect_timeout,
                }

        assert details(DbConnectionManager({'db': params}).create('db', 20.0)) == details(pymysql.connect(**params))

    def test_from_an_address_that_is_not_ours(self, mariadb: MariadbServer) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'bind_address': '192.0.2.1'}})
        with pytest.raises(ConnectError) as caught:
            manager.create('db')
        assert isinstance(caught.value, err.OperationalError)

    @pytest.mark.parametrize('source', [None, 5, 'mysql://user:not-a-secret@host/db', [('db', {})]])
    def test_takes_no_source_that_is_none(self, source: Any) -> None:
        with pytest.raises(TypeError, match='params: expected a mapping of endpoints') as caught:
            DbConnectionManager(source)
        assert 'secret' not in str(caught.value)

    @pytest.mark.parametrize('value', [None, 5, 'mysql://user:not-a-secret@host/db', ['not-a-secret'], {1: 2}])
    @pytest.mark.parametrize('by_callable', [True, False])
    def test_of_parameters_that_are_none(self, value: Any, by_callable: bool) -> None:
        manager = DbConnectionManager((lambda endpoint: value) if by_callable else {'db': value})
        with pytest.raises(ConnectError, match=r"endpoint 'db' .*check its entry in params") as caught:
            manager.create('db')
        assert isinstance(caught.value, TypeError)
        assert 'secret' not in str(caught.value)

    def test_of_an_endpoint_that_the_callable_does_not_know(self) -> None:
        params: dict[str, dict[str, Any]] = {'other': {}}
        with pytest.raises(UnknownEndpoint, match="endpoint 'db'") as caught:
            DbConnectionManager(lambda endpoint: params[endpoint]).create('db')
        assert isinstance(caught.value.__cause__, KeyError)

    @pytest.mark.parametrize(
        'bad',
        [
            {'ssl_ca': 'no/such/file'},
            {'ssl': 'yes'},
            {'ssl': {'cipher': 'none'}},
            {'charset': 'none'},
            {'compress': True},
            {'conv': 5},
            {'connect_timeout': 'soon'},
            {'connect_timeout': float('nan')},
            {'read_timeout': -1},
            {'unix_socket': 5},
        ],
        ids=repr,
    )
    @pytest.mark.parametrize('timeout', [None, 20.0])
    def test_of_parameters_that_the_driver_cannot_use(self, bad: dict[str, Any], timeout: float | None) -> None:
        manager = DbConnectionManager({'db': {'host': '127.0.0.1', 'user': 'gcpool', **bad}})
        with pytest.raises(ConnectError, match=r"endpoint 'db' .*check its entry in params"):
            manager.create('db', timeout)

    def test_takes_endpoints_added_later(self, mariadb: MariadbServer) -> None:
        params: dict[str, dict[str, Any]] = {}
        manager = DbConnectionManager(params)
        params['db'] = mariadb.params
        manager.dispose('db', manager.create('db'))

    def test_asks_for_the_parameters_at_each_connect(self, mariadb: MariadbServer) -> None:
        passwords = iter(['outdated', mariadb.password])
        asked: list[str] = []

        def params(endpoint: str) -> dict[str, Any]:
            asked.append(endpoint)
            return {**mariadb.params, 'password': next(passwords)}

        manager = DbConnectionManager(params)
        with pytest.raises(ConnectError):
            manager.create('db')
        manager.dispose('db', manager.create('db'))
        assert asked == ['db', 'db']

    def test_leaves_the_parameters_alone(self, mariadb: MariadbServer) -> None:
        params = {'db': {**mariadb.params, 'connect_timeout': 30}}
        manager = DbConnectionManager(params)
        manager.dispose('db', manager.create('db', 20.0))
        assert params == {'db': {**mariadb.params, 'connect_timeout': 30}}

    def test_says_which_endpoints_there_are(self, mariadb: MariadbServer) -> None:
        manager = DbConnectionManager({'db': mariadb.params, 'other': mariadb.params})
        with pytest.raises(UnknownEndpoint, match=r"'none' is not in params, which has \['db', 'other'\]") as caught:
            manager.create('none')
        assert isinstance(caught.value, KeyError)
        assert mariadb.password not in str(caught.value)

    @pytest.mark.parametrize(
        ('params', 'number', 'advice'),
        [
            ({'password': 'wrong-secret'}, 1045, 'check user and password'),
            ({'user': 'nobody-known', 'password': 'wrong-secret'}, 1045, 'check user and password'),
            ({'database': 'mysql'}, 1044, 'check the name of the database, and whether the user may use it'),
            ({'host': 'host.invalid'}, 2003, 'check the host name: it does not resolve'),
        ],
    )
    @pytest.mark.parametrize('timeout', [None, 20.0])
    def test_says_what_to_do(
        self,
        mariadb: MariadbServer,
        open_descriptors: Callable[[], int],
        params: dict[str, Any],
        number: int,
        advice: str,
        timeout: float | None,
    ) -> None:
        manager = DbConnectionManager({'primary': {**mariadb.params, **params}})
        before = open_descriptors()
        with pytest.raises(ConnectError, match=f"endpoint 'primary' .*{advice}") as caught:
            manager.create('primary', timeout)
        assert isinstance(caught.value, err.OperationalError)
        assert type(caught.value.__cause__) is err.OperationalError
        assert caught.value.args[0] == number
        assert caught.value.endpoint == 'primary'
        assert 'secret' not in f'{caught.value} {caught.value.__cause__}'
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        del caught
        assert open_descriptors() == before

    def test_of_a_database_that_does_not_exist(self, mariadb: MariadbServer) -> None:
        mariadb.execute(f'GRANT SELECT ON `missing%`.* TO {mariadb.user}')
        manager = DbConnectionManager({'db': {**mariadb.params, 'database': 'missing'}})
        with pytest.raises(ConnectError, match='check the name of the database, or create it') as caught:
            manager.create('db')
        assert caught.value.args[0] == 1049

    def test_of_a_server_that_is_not_there(self) -> None:
        with closed_port() as port:
            manager = DbConnectionManager({'db': {'host': '127.0.0.1', 'port': port}})
            for timeout in (None, 5.0):
                with pytest.raises(ConnectError, match='check that the server is running') as caught:
                    manager.create('db', timeout)
                assert isinstance(caught.value, err.OperationalError)

    def test_of_a_server_that_has_no_room(self, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        mariadb.wait_for_sessions(0)
        mariadb.set_max_connections(10)
        conns: list[Connection] = []
        try:
            for _ in range(10):
                conns.append(manager.create('db', 20.0))  # noqa: PERF401  (those that were made are disposed of)
            with pytest.raises(ConnectError, match='raise max_connections') as caught:
                manager.create('db', 20.0)
            assert caught.value.args[0] == 1040
            manager.dispose('db', conns.pop())
            mariadb.wait_for_sessions(9)
            conns.append(manager.create('db', 20.0))
        finally:
            mariadb.set_max_connections(None)
            for conn in conns:
                manager.dispose('db', conn)

    @pytest.mark.parametrize('by_parameter', [True, False])
    def test_times_out_where_nothing_is_said(self, silent_listener: socket.socket, by_parameter: bool) -> None:
        host, port = silent_listener.getsockname()
        params = {'host': host, 'port': port, 'password': 'not-a-secret'}
        if by_parameter:
            params['connect_timeout'] = 0.05
        manager = DbConnectionManager({'db': params})
        with pytest.raises(ConnectTimeout, match=r"endpoint 'db' .*within 0\.05 s") as caught:
            manager.create('db', PATIENCE if by_parameter else 0.05)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value.__cause__, err.OperationalError)
        assert 'secret' not in f'{caught.value} {caught.value.__cause__}'
        with silent_listener.accept()[0] as conn:
            wait_for_end(conn)

    def test_says_which_limit_it_was(self, silent_listener: socket.socket) -> None:
        host, port = silent_listener.getsockname()
        manager = DbConnectionManager({'db': {'host': host, 'port': port, 'read_timeout': 0.05, 'write_timeout': 7}})
        with pytest.raises(ConnectTimeout, match=r"endpoint 'db' .* read_timeout of its parameters, 0\.05 s") as caught:
            manager.create('db', PATIENCE)
        assert caught.value.endpoint == 'db'
        assert f'{PATIENCE:g} s' not in str(caught.value)

    def test_says_so_too_when_tls_does_not_come_about(
        self, mariadb: MariadbServer, silent_listener: socket.socket
    ) -> None:
        greeting = greeting_of(mariadb)
        host, port = silent_listener.getsockname()
        params = {**mariadb.params, 'host': host, 'port': port, 'ssl': {'check_hostname': False}}
        manager = DbConnectionManager({'db': {**params, 'write_timeout': 0.05}})
        with ThreadPoolExecutor(1) as executor:
            creation = executor.submit(manager.create, 'db', PATIENCE)
            with silent_listener.accept()[0] as server:
                server.sendall(greeting)
                with pytest.raises(ConnectTimeout, match=r' write_timeout of its parameters, 0\.05 s'):
                    creation.result(PATIENCE)

    def test_counts_the_time_from_the_start(
        self, silent_listener: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host, port = silent_listener.getsockname()
        limits: list[float] = []
        limited = Connection.limited

        def note(conn: Connection, seconds: float) -> Any:
            limits.append(seconds)
            return limited(conn, seconds)

        def params(endpoint: str) -> dict[str, Any]:
            threading.Event().wait(0.2)
            return {'host': host, 'port': port}

        monkeypatch.setattr(Connection, 'limited', note)
        with pytest.raises(ConnectTimeout, match=r'within 0\.3 s'):
            DbConnectionManager(params).create('db', 0.3)
        assert len(limits) == 1
        assert limits[0] <= 0.3 - 0.2

    def test_does_not_make_settings_of_tls_for_each(
        self, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        manager = DbConnectionManager({'db': mariadb.params})

        def fail(*args: Any, **kwargs: Any) -> None:
            raise AssertionError('that takes tens of milliseconds')

        monkeypatch.setattr(ssl, 'create_default_context', fail)
        conn = manager.create('db')
        with contextlib.closing(conn):
            assert fetch(conn, "SHOW STATUS LIKE 'Ssl_version'") == 'Ssl_version'

    def test_does_not_wait_for_the_resolver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked, answered = threading.Event(), threading.Event()
        resolver: list[threading.Thread] = []

        def resolve(host: str, *args: Any, **kwargs: Any) -> Any:
            resolver.append(threading.current_thread())
            asked.set()
            answered.wait(2 * PATIENCE)
            raise socket.gaierror(socket.EAI_AGAIN, 'try again')

        monkeypatch.setattr(socket, 'getaddrinfo', resolve)
        manager = DbConnectionManager({'db': {'host': 'slow.example'}})
        with ThreadPoolExecutor(1) as executor:
            try:
                creation = executor.submit(manager.create, 'db', 0.1)
                assert asked.wait(PATIENCE)
                with pytest.raises(ConnectTimeout, match=r"endpoint 'db' .*within 0\.1 s.*'slow\.example'") as caught:
                    creation.result(PATIENCE)
                assert caught.value.__cause__ is not None
                assert caught.value.__cause__.args[0] == 2003
            finally:
                answered.set()
        resolver[0].join(PATIENCE)
        assert not resolver[0].is_alive()

    def test_does_not_wait_anew_for_each_byte(self, silent_listener: socket.socket) -> None:
        host, port = silent_listener.getsockname()
        manager = DbConnectionManager({'db': {'host': host, 'port': port}})
        with ThreadPoolExecutor(1) as executor:
            creation = executor.submit(manager.create, 'db', 0.2)
            with (
                silent_listener.accept()[0] as server,
                dripping(server, b'\xff\xff\x00\x00'),
                pytest.raises(ConnectTimeout, match=r"endpoint 'db' .*within 0\.2 s"),
            ):
                creation.result(PATIENCE)

    def test_says_no_more_of_the_limit_than_matters(self, silent_listener: socket.socket) -> None:
        host, port = silent_listener.getsockname()
        manager = DbConnectionManager({'db': {'host': host, 'port': port}})
        for timeout, said in ((0.0999984, '0.1'), (0.0004, '0.0004')):
            with pytest.raises(ConnectTimeout, match=f' within {said} s:'):
                manager.create('db', timeout)

    @pytest.mark.parametrize('timeout', [0, 0.0])
    def test_with_no_time_at_all(self, silent_listener: socket.socket, timeout: float) -> None:
        host, port = silent_listener.getsockname()
        manager = DbConnectionManager({'db': {'host': host, 'port': port}})
        with pytest.raises(ConnectTimeout):
            manager.create('db', timeout)

    @pytest.mark.parametrize('tls', [True, False])
    def test_times_out_in_the_middle_of_the_login(
        self, mariadb: MariadbServer, silent_listener: socket.socket, tls: bool
    ) -> None:
        greeting = greeting_of(mariadb)
        host, port = silent_listener.getsockname()
        manager = DbConnectionManager({'db': {**mariadb.params, 'host': host, 'port': port, 'ssl_disabled': not tls}})
        with ThreadPoolExecutor(1) as executor:
            creation = executor.submit(manager.create, 'db', 0.3)
            with silent_listener.accept()[0] as server:
                server.sendall(greeting)
                # Less than what would be sent if it got any further.
                assert wait_for_end(server) > 0
            with pytest.raises(ConnectTimeout):
                creation.result(PATIENCE)

    def test_all_answers_together_may_take_the_time(self, mariadb: MariadbServer) -> None:
        # Every answer comes within the limit, all of them together do not.
        conn = Connection(**mariadb.params, defer_connect=True)
        limits: list[float] = []
        with conn.limited(20.0):
            read = conn._read_bytes

            def note(count: int) -> bytes:
                data = read(count)
                assert conn._read_timeout is not None
                limits.append(conn._read_timeout)
                return data

            conn._read_bytes = note
            conn.connect()
        assert len(limits) > 3
        assert limits == sorted(limits, reverse=True)
        assert limits[0] < 20.0
        assert len(set(limits)) == len(limits)
        conn.end()


class TestAliveness:
    @pytest.mark.parametrize('ping', [True, False])
    @pytest.mark.parametrize('autocommit', [True, False])
    def test_of_an_idle_one(self, mariadb: MariadbServer, ping: bool, autocommit: bool) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': autocommit}}, ping=ping)
        conn = manager.create('db')
        for timeout in (None, PATIENCE):
            with commands_sent(conn) as sent:
                assert manager.check_aliveness('db', conn, timeout)
            assert sent == ([b''] if ping else [])
        assert fetch(conn, 'SELECT @@in_transaction') == 0
        manager.dispose('db', conn)
        assert not manager.check_aliveness('db', conn)

    def test_of_what_the_server_has_ended_though_there_is_no_time_to_ask(self, mariadb: MariadbServer) -> None:
        manager = DbConnectionManager({'db': mariadb.params}, ping=True)
        conn = manager.create('db')
        end_session(mariadb, conn)
        assert not manager.check_aliveness('db', conn, 0)
        manager.dispose('db', conn)

    @pytest.mark.parametrize('ping', [True, False])
    @pytest.mark.parametrize('tls', [True, False])
    def test_of_what_the_server_has_ended(self, mariadb: MariadbServer, ping: bool, tls: bool) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'ssl_disabled': not tls}}, ping=ping)
        conn = manager.create('db')
        assert fetch(conn, 'SELECT 1') == 1
        end_session(mariadb, conn)
        assert not manager.check_aliveness('db', conn)
        manager.dispose('db', conn)
        assert not conn.open

    def test_of_what_a_server_that_was_killed_has_left(self, mariadb: MariadbServer) -> None:
        manager = DbConnectionManager({'db': mariadb.params})
        conn = manager.create('db')
        mariadb.restart()
        wait_readable(sock_of(conn))
        assert not manager.check_aliveness('db', conn)
        manager.dispose('db', conn)
        manager.dispose('db', manager.create('db'))

    @pytest.mark.parametrize('configured', [None, 0.05])
    def test_of_what_does_not_answer(self, mariadb: MariadbServer, configured: float | None) -> None:
        with Proxy(mariadb.port) as proxy:
            params = {**mariadb.params, 'port': proxy.port}
            manager = DbConnectionManager({'db': params}, ping=True)
            conn = manager.create('db')
            conn._read_timeout = configured
            proxy.mute()
            assert not manager.check_aliveness('db', conn, 0.05 if configured is None else None)
            # Its answer may still come, and must not be taken for another.
            assert not conn.open
            assert not manager.check_aliveness('db', conn)
            manager.dispose('db', conn)

    def test_does_not_wait_anew_for_each_byte_of_the_answer(self, mariadb: MariadbServer) -> None:
        manager = DbConnectionManager({'db': mariadb.params}, ping=True)
        conn = manager.create('db')
        # The server's end is not read: the driver only sees it when it asks the socket.
        ours, server = socket.socketpair()
        conn.abort()
        conn._sock, conn._rfile, conn._poll = ours, ours.makefile('rb'), poller_for(ours.fileno())
        with server, ThreadPoolExecutor(1) as executor:
            checked = executor.submit(manager.check_aliveness, 'db', conn, 0.2)
            wait_readable(server)
            with dripping(server, b'\xff\xff\x00\x01'):
                assert not checked.result(PATIENCE)
        assert not conn.open

    def test_of_one_with_an_answer_that_nobody_read(self, manager: DbConnectionManager, conn: Connection) -> None:
        conn._execute_command(3, 'SELECT 1')
        wait_readable(sock_of(conn))
        assert not manager.check_aliveness('db', conn)


class TestRelease:
    def test_sends_nothing_if_there_is_nothing_to_do(self, manager: DbConnectionManager, conn: Connection) -> None:
        with commands_sent(conn) as sent:
            manager.on_release('db', conn)
        execute(conn, 'SELECT 2')
        conn.commit()
        with commands_sent(conn) as sent:
            manager.on_release('db', conn)
        assert sent == []
        execute(conn, 'SELECT 2')
        execute(conn, 'COMMIT')
        with commands_sent(conn) as sent:
            manager.on_release('db', conn)
        assert sent == []

    @pytest.mark.parametrize('statement', ['SELECT 1', 'DO 1', 'SELECT * FROM numbers'])
    def test_sends_nothing_in_autocommit_mode(self, mariadb: MariadbServer, mariadb_table: str, statement: str) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': True}})
        conn = manager.create('db')
        execute(conn, statement)
        with commands_sent(conn) as sent:
            manager.on_release('db', conn)
        assert sent == []
        manager.dispose('db', conn)

    def test_asks_once_after_a_statement_that_failed(self, autocommitting: Connection) -> None:
        manager = DbConnectionManager({})
        for then, expected in ((None, [b'']), ('SELECT 1', [b'']), ('DO 1', []), ('COMMIT', [])):
            with pytest.raises(err.ProgrammingError):
                execute(autocommitting, 'this is no SQL')
            if then:
                execute(autocommitting, then)
            with commands_sent(autocommitting) as sent:
                manager.on_release('db', autocommitting)
                manager.on_release('db', autocommitting)
            assert sent == expected

    @pytest.mark.parametrize('then', [None, 'SELECT 1'])
    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('left', LEFT_BY_AN_ERROR)
    def test_ends_what_a_statement_that_failed_has_begun(
        self, mariadb: MariadbServer, mariadb_table: str, left: str, autocommit: bool, then: str | None
    ) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': autocommit}})
        conn = manager.create('db')
        statement = f"BEGIN NOT ATOMIC {left}; INSERT INTO numbers VALUES (1); SIGNAL SQLSTATE '45000'; END"
        with pytest.raises(err.MySQLError):
            execute(conn, statement)
        if then:
            execute(conn, then)
        assert not manager.check_aliveness('db', conn)
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)
        assert fetch(conn, 'SELECT @@in_transaction') == 0
        assert fetch(conn, 'SELECT @@autocommit') == autocommit
        count = 1 if 'autocommit = 1' in left else 0
        assert mariadb.execute(f'SELECT COUNT(*) FROM {mariadb_table}') == [(count,)]
        manager.dispose('db', conn)

    @pytest.mark.parametrize('then', [None, 'SELECT 1'])
    def test_ends_what_was_begun_before_the_rows_failed(
        self, mariadb: MariadbServer, mariadb_table: str, autocommitting: Connection, then: str | None
    ) -> None:
        manager = DbConnectionManager({})
        for _ in range(2):
            cursor = autocommitting.cursor(cursors.SSCursor)
            cursor.execute(
                'BEGIN NOT ATOMIC START TRANSACTION; INSERT INTO numbers VALUES (1);'
                ' SELECT EXP(seq) FROM seq_1_to_1000; END'
            )
            with pytest.raises(err.MySQLError):
                cursor.fetchall()
            if then:
                execute(autocommitting, then)
            assert not manager.check_aliveness('db', autocommitting)
            manager.on_release('db', autocommitting)
            assert manager.check_aliveness('db', autocommitting)
            assert fetch(autocommitting, 'SELECT @@in_transaction') == 0
        assert mariadb.execute(f'SELECT COUNT(*) FROM {mariadb_table}') == [(0,)]

    @pytest.mark.parametrize('statement', ['SET autocommit = 0', 'BEGIN', 'this is no SQL'])
    def test_left_out_is_found_by_the_check(
        self, manager: DbConnectionManager, autocommitting: Connection, statement: str
    ) -> None:
        with contextlib.suppress(err.ProgrammingError):
            execute(autocommitting, statement)
        assert not manager.check_aliveness('db', autocommitting)

    @pytest.mark.parametrize('step', ['rollback', 'autocommit'])
    def test_closes_what_it_was_interrupted_at(
        self, manager: DbConnectionManager, autocommitting: Connection, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        def interrupt(*args: object) -> None:
            raise KeyboardInterrupt

        execute(autocommitting, 'SET autocommit = 0')
        execute(autocommitting, 'BEGIN')
        monkeypatch.setattr(Connection, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            manager.on_release('db', autocommitting)
        assert not autocommitting.open
        assert not manager.check_aliveness('db', autocommitting)

    @pytest.mark.parametrize('autocommit', [True, False])
    @pytest.mark.parametrize('then', [None, 'SELECT 1', 'this is no SQL'])
    def test_rolls_back_what_is_open(
        self, mariadb: MariadbServer, mariadb_table: str, autocommit: bool, then: str | None
    ) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': autocommit}})
        conn = manager.create('db')
        if autocommit:
            execute(conn, 'BEGIN')
        execute(conn, 'INSERT INTO numbers VALUES (1)')
        if then:
            with contextlib.suppress(err.ProgrammingError):
                execute(conn, then)
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)
        assert fetch(conn, 'SELECT @@in_transaction') == 0
        assert mariadb.execute(f'SELECT COUNT(*) FROM {mariadb_table}') == [(0,)]
        manager.dispose('db', conn)

    def test_ends_the_snapshot_that_a_select_began(
        self, mariadb: MariadbServer, manager: DbConnectionManager, conn: Connection, mariadb_table: str
    ) -> None:
        # The end of a result set says that a transaction is open, and PyMySQL does not read that.
        assert fetch(conn, 'SELECT COUNT(*) FROM numbers') == 0
        mariadb.execute(f'INSERT INTO {mariadb_table} VALUES (1)')
        assert fetch(conn, 'SELECT COUNT(*) FROM numbers') == 0
        manager.on_release('db', conn)
        assert fetch(conn, 'SELECT COUNT(*) FROM numbers') == 1
        conn.rollback()

    def test_ends_the_transaction_of_a_statement_that_failed(
        self, mariadb: MariadbServer, manager: DbConnectionManager, conn: Connection, mariadb_table: str
    ) -> None:
        mariadb.execute(f'INSERT INTO {mariadb_table} VALUES (1)')
        with pytest.raises(err.IntegrityError):
            execute(conn, 'INSERT INTO numbers VALUES (1)')
        manager.on_release('db', conn)
        # The failed statement's lock on the row is gone.
        mariadb.execute(f'DELETE FROM {mariadb_table}')

    @pytest.mark.parametrize('initial', [True, False])
    @pytest.mark.parametrize('by_sql', [True, False])
    def test_restores_autocommit(self, mariadb: MariadbServer, mariadb_table: str, initial: bool, by_sql: bool) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': initial}})
        conn = manager.create('db')
        if by_sql:
            execute(conn, f'SET autocommit = {int(not initial)}')
        else:
            conn.autocommit(not initial)
        execute(conn, 'BEGIN')
        execute(conn, 'INSERT INTO numbers VALUES (1)')
        manager.on_release('db', conn)
        assert conn.get_autocommit() is initial
        assert fetch(conn, 'SELECT @@autocommit') == initial
        # Switching it on would have committed.
        assert mariadb.execute(f'SELECT COUNT(*) FROM {mariadb_table}') == [(0,)]
        manager.dispose('db', conn)

    def test_takes_the_servers_autocommit_for_the_initial_one(self, mariadb: MariadbServer) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'autocommit': None}})
        conn = manager.create('db')
        assert conn.initial_autocommit is True
        with commands_sent(conn) as sent:
            manager.on_release('db', conn)
        assert sent == []
        manager.dispose('db', conn)

    def test_keeps_one_after_any_finished_command(
        self, manager: DbConnectionManager, conn: Connection, mariadb: MariadbServer
    ) -> None:
        conn.ping(reconnect=False)
        conn.show_warnings()
        conn.set_character_set('utf8mb4')
        conn.select_db(mariadb.database)
        assert conn.in_order
        conn.show_warnings()
        assert conn.in_order
        with pytest.raises(err.OperationalError):
            conn.select_db('mysql')
        assert conn.in_order
        with pytest.raises(err.OperationalError):
            conn.set_character_set('utf8mb4', 'latin1_swedish_ci')
        assert conn.in_order
        with pytest.raises(err.ProgrammingError):
            execute(conn, 'this is no SQL')
        assert conn.in_order
        with conn.cursor(cursors.SSCursor) as cursor:
            cursor.execute('SELECT seq FROM seq_1_to_1000')
            assert len(cursor.fetchall()) == 1000
        with conn.cursor(cursors.SSCursor) as cursor:
            # The cursor reads the rest when it is closed.
            cursor.execute('SELECT seq FROM seq_1_to_1000')
            assert cursor.fetchone() == (1,)
        manager.on_release('db', conn)
        assert manager.check_aliveness('db', conn)
        assert fetch(conn, 'SELECT 1') == 1

    @pytest.mark.parametrize('read', [0, 1, 1000])
    def test_discards_one_with_rows_left_unread(
        self, manager: DbConnectionManager, conn: Connection, read: int
    ) -> None:
        cursor = conn.cursor(cursors.SSCursor)
        cursor.execute('SELECT seq FROM seq_1_to_1000')
        for _ in range(read):
            assert cursor.fetchone()
        # All rows were read, but not the end of the result.
        with commands_sent(conn) as sent, pytest.raises(DiscardConnection):
            manager.on_release('db', conn)
        assert sent == []
        assert not manager.check_aliveness('db', conn)
        manager.dispose('db', conn)
        # Nothing is read from a closed connection.
        cursor.close()

    def test_discards_one_with_further_results(self, mariadb: MariadbServer) -> None:
        multi_statements = 1 << 16
        manager = DbConnectionManager({'db': {**mariadb.params, 'client_flag': multi_statements}})
        for results, discarded in ((2, True), (3, False)):
            conn = manager.create('db')
            cursor = conn.cursor()
            cursor.execute('SELECT 1; SELECT 2; SELECT 3')
            for _ in range(results - 1):
                assert cursor.nextset()
            with contextlib.ExitStack() as stack:
                if discarded:
                    stack.enter_context(pytest.raises(DiscardConnection))
                manager.on_release('db', conn)
            manager.dispose('db', conn)

    def test_discards_one_whose_further_rows_could_not_be_converted(self, mariadb: MariadbServer) -> None:
        def fail(value: str) -> None:
            raise ValueError(value)

        multi_statements = 1 << 16
        conv = {**converters.conversions, FIELD_TYPE.LONGLONG: fail}
        manager = DbConnectionManager({'db': {**mariadb.params, 'conv': conv, 'client_flag': multi_statements}})
        conn = manager.create('db')
        cursor = conn.cursor()
        cursor.execute("SELECT 'first'; SELECT seq FROM seq_1_to_3")
        with pytest.raises(ValueError, match='1'):
            cursor.nextset()
        assert not conn.in_order
        manager.dispose('db', conn)

    @pytest.mark.parametrize('rows', [1, 3])
    def test_discards_one_whose_rows_could_not_be_converted(self, mariadb: MariadbServer, rows: int) -> None:
        def fail(value: str) -> None:
            raise ValueError(value)

        conv = {**converters.conversions, FIELD_TYPE.LONG: fail, FIELD_TYPE.LONGLONG: fail}
        manager = DbConnectionManager({'db': {**mariadb.params, 'conv': conv}})
        conn = manager.create('db')
        with pytest.raises(ValueError, match='1'):
            execute(conn, f'SELECT seq FROM seq_1_to_{rows}')
        assert manager.is_broken('db', conn, ValueError())
        with pytest.raises(DiscardConnection):
            manager.on_release('db', conn)
        manager.dispose('db', conn)

    def test_discards_one_with_something_left_in_the_drivers_buffer(
        self, manager: DbConnectionManager, conn: Connection
    ) -> None:
        conn._execute_command(3, 'SELECT 1')
        wait_readable(sock_of(conn))
        conn._read_packet()
        # As if the driver took the rows for all.
        conn._awaiting_reply = False
        assert conn.is_quiet()
        assert conn.has_unread()
        with pytest.raises(DiscardConnection):
            manager.on_release('db', conn)

    def test_discards_one_that_the_user_has_closed(self, manager: DbConnectionManager) -> None:
        conn = manager.create('db')
        conn.close()
        with pytest.raises(DiscardConnection):
            manager.on_release('db', conn)
        assert not manager.check_aliveness('db', conn)
        manager.dispose('db', conn)

    def test_discards_what_the_server_has_ended(
        self, mariadb: MariadbServer, manager: DbConnectionManager, conn: Connection
    ) -> None:
        execute(conn, 'SELECT 1')
        end_session(mariadb, conn)
        with pytest.raises(DiscardConnection):
            manager.on_release('db', conn)

    def test_discards_what_cannot_be_rolled_back(
        self, mariadb: MariadbServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Proxy(mariadb.port) as proxy:
            manager = DbConnectionManager({'db': {**mariadb.params, 'port': proxy.port}})
            conn = manager.create('db')
            execute(conn, 'BEGIN')
            conn._read_timeout = 0.05
            proxy.mute()
            with (
                caplog.at_level(logging.WARNING, 'gcpool.contrib.pymysql'),
                pytest.raises(DiscardConnection) as caught,
            ):
                manager.on_release('db', conn)
            assert "'db' cannot be rolled back" in caplog.text
            assert isinstance(caught.value.__cause__, err.OperationalError)
            assert not conn.open
            manager.dispose('db', conn)


class TestBroken:
    def test_not_after_an_error_of_the_user(self, manager: DbConnectionManager, conn: Connection) -> None:
        execute(conn, 'SELECT 1')
        for exc in (ValueError(), OSError(2, 'no such file'), TimeoutError(), KeyboardInterrupt(), GeneratorExit()):
            assert not manager.is_broken('db', conn, exc)

    def test_not_after_an_answer_of_the_server(self, manager: DbConnectionManager, conn: Connection) -> None:
        for statement in ('this is no SQL', 'SELECT * FROM missing', 'SELECT 1 + (SELECT 1 UNION SELECT 2)'):
            with pytest.raises(err.MySQLError) as caught:
                execute(conn, statement)
            assert not manager.is_broken('db', conn, caught.value)
        assert fetch(conn, 'SELECT 1') == 1

    def test_after_the_server_has_ended_it(
        self, mariadb: MariadbServer, manager: DbConnectionManager, conn: Connection
    ) -> None:
        mariadb.kill_session(session_of(conn))
        wait_readable(sock_of(conn))
        assert manager.is_broken('db', conn, ValueError())
        with pytest.raises(err.MySQLError) as caught:
            execute(conn, 'SELECT 1')
        assert manager.is_broken('db', conn, caught.value)

    def test_in_the_middle_of_a_statement(
        self, mariadb: MariadbServer, manager: DbConnectionManager, conn: Connection
    ) -> None:
        user, failures = start_sleeping(mariadb, conn)
        assert manager.is_broken('db', conn, KeyboardInterrupt())
        mariadb.kill_session(session_of(conn))
        user.join(PATIENCE)
        assert not user.is_alive()
        assert manager.is_broken('db', conn, failures[0])

    @pytest.mark.parametrize(
        ('exc', 'broken'),
        [
            (err.OperationalError(2006, 'gone'), True),
            (err.OperationalError(2013, 'lost'), True),
            (err.OperationalError(1053, 'shutdown in progress'), True),
            (err.OperationalError(1927, 'killed'), True),
            (err.OperationalError(1205, 'lock wait timeout'), False),
            (err.OperationalError('without a number'), False),
            (err.InterfaceError(0, ''), True),
            (err.ProgrammingError(), False),
        ],
    )
    def test_by_what_the_error_says(
        self, manager: DbConnectionManager, conn: Connection, exc: Exception, broken: bool
    ) -> None:
        assert manager.is_broken('db', conn, exc) is broken

    def test_after_a_read_timeout(self, mariadb: MariadbServer, manager: DbConnectionManager, conn: Connection) -> None:
        conn._read_timeout = 0.05
        with pytest.raises(err.OperationalError) as caught:
            execute(conn, 'SELECT SLEEP(3600)')
        assert manager.is_broken('db', conn, caught.value)
        mariadb.kill_sessions()

    @pytest.mark.parametrize('exception', [ValueError, GeneratorExit, KeyboardInterrupt])
    def test_with_rows_left_unread(
        self, manager: DbConnectionManager, conn: Connection, exception: type[BaseException]
    ) -> None:
        cursor = conn.cursor(cursors.SSCursor)
        cursor.execute('SELECT seq FROM seq_1_to_1000')
        assert manager.is_broken('db', conn, exception())
        manager.dispose('db', conn)


class TestDispose:
    def test_says_good_bye(self, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        before = int(mariadb.execute("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")[0][1])
        conn = manager.create('db')
        manager.dispose('db', conn)
        assert not conn.open
        mariadb.wait_for_sessions(0)
        assert int(mariadb.execute("SHOW GLOBAL STATUS LIKE 'Aborted_clients'")[0][1]) == before

    def test_twice(self, manager: DbConnectionManager) -> None:
        conn = manager.create('db')
        manager.dispose('db', conn)
        manager.dispose('db', conn)
        assert not conn.open

    def test_what_the_user_has_closed(self, manager: DbConnectionManager) -> None:
        conn = manager.create('db')
        conn.close()
        manager.dispose('db', conn)

    @pytest.mark.filterwarnings("ignore:The 'reconnect' argument")
    def test_for_good(self, mariadb: MariadbServer, manager: DbConnectionManager) -> None:
        conn = manager.create('db')
        manager.dispose('db', conn)
        with pytest.raises(err.InterfaceError, match='the pool has closed this connection'):
            conn.ping(reconnect=True)
        with pytest.raises(err.InterfaceError, match='the pool has closed this connection'):
            conn.connect()
        assert not conn.open
        mariadb.wait_for_sessions(0)

    @pytest.mark.filterwarnings("ignore:The 'reconnect' argument")
    def test_for_good_while_the_user_connects_again(
        self, mariadb: MariadbServer, manager: DbConnectionManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        conn = manager.create('db')
        conn.close()
        greet = Connection._get_server_information

        def greet_and_be_disposed_of(self: Connection) -> None:
            # As if the other thread had come before there was a socket.
            sock, self._sock = self._sock, None
            manager.dispose('db', self)
            self._sock = sock
            greet(self)

        monkeypatch.setattr(Connection, '_get_server_information', greet_and_be_disposed_of)
        with pytest.raises(err.InterfaceError, match='the pool has closed this connection'):
            conn.ping(reconnect=True)
        assert not conn.open
        mariadb.wait_for_sessions(0)

    @pytest.mark.parametrize('polite', [True, False])
    def test_lets_nothing_out_in_plaintext(
        self, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch, polite: bool
    ) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'ssl': {'check_hostname': False}}})
        conn = manager.create('db')
        sock = sock_of(conn)
        assert isinstance(sock, ssl.SSLSocket)
        if not polite:
            conn._execute_command(3, 'SELECT 1')
        close = ssl.SSLSocket._real_close  # type: ignore[attr-defined]
        closed: list[ssl.SSLSocket] = []

        def send_and_close(self: ssl.SSLSocket) -> None:
            # From now on, what another thread sends goes out without encryption.
            with pytest.raises(ConnectionError):
                socket.socket.send(self, b'SELECT 2')
            closed.append(self)
            close(self)

        monkeypatch.setattr(ssl.SSLSocket, '_real_close', send_and_close)
        manager.dispose('db', conn)
        # Then comes the control connection, by which the server would end the statement.
        assert closed[0] is sock

    @pytest.mark.parametrize('tls', [True, False])
    def test_ends_a_running_statement(self, mariadb: MariadbServer, tls: bool) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'ssl_disabled': not tls}})
        conn = manager.create('db')
        user, failures = start_sleeping(mariadb, conn)
        manager.dispose('db', conn)
        user.join(PATIENCE)
        assert not user.is_alive()
        # PyMySQL may find its reader gone between two packets, and raises this error then.
        assert isinstance(failures[0], (err.OperationalError, AttributeError))
        assert not conn.open
        mariadb.kill_sessions()

    @pytest.mark.parametrize('unread', [True, False])
    def test_does_not_wait_for_a_server_that_says_nothing(
        self, mariadb: MariadbServer, open_descriptors: Callable[[], int], unread: bool
    ) -> None:
        with Proxy(mariadb.port) as proxy:
            manager = DbConnectionManager({'db': {**mariadb.params, 'port': proxy.port}})
            conn = manager.create('db')
            before = open_descriptors()
            if unread:
                conn.cursor(cursors.SSCursor).execute('SELECT seq FROM seq_1_to_100000')
            proxy.mute()
            manager.dispose('db', conn)
            assert not conn.open
            assert open_descriptors() == before - 1


class TestInAPool:
    def test_serves_no_connection_that_was_in_doubt(
        self, mariadb: MariadbServer, new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]]
    ) -> None:
        pool = new_pool(max_size=1)
        with pool.connection('db') as first:
            cursor = first.cursor(cursors.SSCursor)
            cursor.execute('SELECT seq FROM seq_1_to_1000')
        assert not first.open
        second = pool.acquire('db')
        pool.release(second, 'db')
        with pytest.raises(err.OperationalError), pool.connection('db'):
            end_statement(mariadb, second)
        assert not second.open
        with pool.connection('db') as third:
            assert fetch(third, 'SELECT 3') == 3
        with pool.connection('db') as fourth:
            assert fourth is third
        assert pool.get_stats()['created'] == 3
        mariadb.wait_for_sessions(1)

    @pytest.mark.parametrize('left', LEFT_BY_AN_ERROR)
    def test_loses_nothing_of_who_comes_after_an_error(
        self,
        mariadb: MariadbServer,
        mariadb_table: str,
        new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]],
        left: str,
    ) -> None:
        pool = new_pool(max_size=1, manager=DbConnectionManager({'db': {**mariadb.params, 'autocommit': True}}))
        with pytest.raises(err.MySQLError), pool.connection('db') as first:
            execute(first, f"BEGIN NOT ATOMIC {left}; SIGNAL SQLSTATE '45000'; END")
        with pool.connection('db') as second:
            execute(second, 'INSERT INTO numbers VALUES (2)')
        assert second is first
        assert mariadb.execute(f'SELECT n FROM {mariadb_table}') == [(2,)]

    def test_goes_on_after_the_server_was_restarted(
        self, mariadb: MariadbServer, new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]]
    ) -> None:
        pool = new_pool(max_size=3)
        with pool.connection('db') as first, pool.connection('db') as second:
            assert first is not second
        mariadb.kill()
        try:
            for conn in (first, second):
                wait_readable(sock_of(conn))
            with pytest.raises(ConnectError), pool.connection('db'):
                pass
        finally:
            mariadb.start()
        with pool.connection('db') as third:
            assert fetch(third, 'SELECT 3') == 3
        assert not first.open
        assert not second.open
        mariadb.wait_for_sessions(1)

    def test_counts_nothing_for_what_could_not_be_made(
        self, mariadb: MariadbServer, new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]]
    ) -> None:
        pool = new_pool(max_size=1, manager=DbConnectionManager({'db': {**mariadb.params, 'password': 'wrong'}}))
        for endpoint in ('db', 'none'):
            for _ in range(2):
                with pytest.raises(ConnectError, match=repr(endpoint)):
                    pool.acquire(endpoint)
        assert pool.get_size() == 0

    def test_many_threads(
        self, mariadb: MariadbServer, new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]]
    ) -> None:
        pool = new_pool(max_size=3)

        def ask(number: int) -> int:
            with pool.connection('db') as conn:
                return int(fetch(conn, f'SELECT {number}'))

        with ThreadPoolExecutor(12) as executor:
            assert list(executor.map(ask, range(200))) == list(range(200))
        pool.close()
        mariadb.wait_for_sessions(0)


def give_up_reading(pool: ConnectionPool[DbEndpoint, Connection]) -> None:
    def request() -> None:
        with pool.connection('db') as conn:
            conn._read_timeout = 0.05
            execute(conn, 'SELECT SLEEP(3600)')

    with pytest.raises(err.OperationalError):
        request()


def leave_rows_unread(pool: ConnectionPool[DbEndpoint, Connection]) -> None:
    with pool.connection('db') as conn:
        # A cursor reads them when it is collected.
        cursor = conn.cursor(cursors.SSCursor)
        cursor.execute("SELECT IF(seq < 100, REPEAT('x', 10000), SLEEP(3600)) FROM seq_1_to_200")
        # Long enough to be sampled.
        threading.Event().wait(0.05)


def close_in_another_thread(pool: ConnectionPool[DbEndpoint, Connection]) -> None:
    def request() -> None:
        with pool.connection('db') as conn:
            closer = threading.Timer(0.05, conn.close)
            closer.start()
            try:
                execute(conn, 'SELECT SLEEP(3600)')
            finally:
                closer.join()

    with pytest.raises((err.MySQLError, AttributeError, ValueError)):
        request()


class TestStatementsAtWork:
    """What the server's own list of sessions shows while statements are abandoned."""

    @pytest.mark.parametrize('way', [give_up_reading, leave_rows_unread, close_in_another_thread])
    @pytest.mark.parametrize('by_tls', [False, True], ids=['plain', 'tls'])
    def test_are_never_more_than_the_pool_may_have(
        self,
        mariadb: MariadbServer,
        new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]],
        way: Callable[[ConnectionPool[DbEndpoint, Connection]], None],
        by_tls: bool,
    ) -> None:
        manager = DbConnectionManager({'db': {**mariadb.params, 'ssl_disabled': not by_tls}})
        pool = new_pool(manager=manager, max_size=2)
        with mariadb.watched() as watch, ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(way, pool) for _ in range(8)]:
                done.result(PATIENCE)
            assert mariadb.statements() == []
        assert 1 <= watch.most_at_work <= 2
        # The server may list a session that has said good-bye beside the next one.
        assert watch.most_control <= 2

    def test_when_a_pool_is_closed_over_its_users(
        self, mariadb: MariadbServer, new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]]
    ) -> None:
        pool = new_pool(max_size=3)
        users = [start_sleeping(mariadb, pool.acquire('db')) for _ in range(3)]
        pool.close(timeout=0)
        assert mariadb.statements() == []
        for user, failures in users:
            user.join(PATIENCE)
            assert not user.is_alive()
            assert failures

    @pytest.mark.skipif(not hasattr(signal, 'pthread_kill'), reason='this system has no signals for threads')
    def test_when_the_user_is_interrupted(
        self, mariadb: MariadbServer, new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]]
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            pytest.skip('signals are handled by the main thread')
        pool = new_pool(max_size=1)

        def interrupt(conn: Connection) -> None:
            mariadb.wait_for_statement(session_of(conn), 'SELECT SLEEP(3600)')
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        def request() -> None:
            with pool.connection('db') as conn:
                interrupter = threading.Thread(target=interrupt, args=(conn,))
                interrupter.start()
                try:
                    execute(conn, 'SELECT SLEEP(3600)')
                finally:
                    interrupter.join(PATIENCE)

        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                request()
            assert mariadb.statements() == []
            assert pool.get_size() == 0

    def test_go_on_if_the_manager_is_told_so(
        self, mariadb: MariadbServer, new_pool: Callable[..., ConnectionPool[DbEndpoint, Connection]]
    ) -> None:
        give_up_reading(new_pool(manager=DbConnectionManager({'db': mariadb.params}, close_timeout=0)))
        assert mariadb.statements() == ['SELECT SLEEP(3600)']
        mariadb.kill_sessions()

    def test_in_a_child_that_was_forked_while_one_was_ended(self, manager: DbConnectionManager) -> None:
        # The turn of a thread that does not exist any more.
        manager._queues['db', -1] = {Latch(): None}
        conn = manager.create('db')
        conn._begin_statement(None, 3)
        began = time.monotonic()
        manager.dispose('db', conn)
        assert time.monotonic() - began < 1.0


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Fails if the block exceeds its limit by more than half a second."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + 0.5


class TestTimeLimits:
    """When the server stalls, or sends byte by byte, a limit is exceeded by at most half a second."""

    @pytest.fixture(params=['mute', 'drip'])
    def stall(
        self, request: pytest.FixtureRequest, mariadb: MariadbServer
    ) -> Iterator[tuple[Proxy, Callable[[], None]]]:
        with Proxy(mariadb.port) as proxy:
            yield proxy, getattr(proxy, request.param)
        mariadb.kill_sessions()

    @pytest.mark.parametrize('init_command', [None, 'SELECT SLEEP(60)'])
    def test_of_an_acquire_that_creates(
        self, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], init_command: str | None
    ) -> None:
        proxy, begin = stall
        params = {**mariadb.params, 'port': proxy.port, 'init_command': init_command}
        pool = ConnectionPool[DbEndpoint, Connection](DbConnectionManager({'db': params}), max_size=1)
        if init_command is None:
            begin()
        with limited(0.5), pytest.raises(TimeoutError):
            pool.acquire('db', timeout=0.5)
        assert pool.get_size() == 0
        pool.close()

    @pytest.mark.parametrize('by', ['check_timeout', 'acquire'])
    def test_of_a_check(self, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], by: str) -> None:
        proxy, begin = stall
        manager = DbConnectionManager({'db': {**mariadb.params, 'port': proxy.port}}, ping=True)
        check_timeout = 0.3 if by == 'check_timeout' else None
        pool = ConnectionPool[DbEndpoint, Connection](manager, max_size=1, check_timeout=check_timeout)
        with pool.connection('db'):
            pass
        begin()
        with limited(0.5), pytest.raises(TimeoutError):
            pool.acquire('db', timeout=0.5)
        pool.close()

    @pytest.mark.parametrize('reset', ['rollback', 'full'])
    def test_of_what_a_release_sends(
        self, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], reset: Any
    ) -> None:
        proxy, begin = stall
        params = {**mariadb.params, 'port': proxy.port}
        manager = DbConnectionManager({'db': params}, reset=reset, rollback_timeout=0.3)
        pool = ConnectionPool[DbEndpoint, Connection](manager, max_size=1)
        conn = pool.acquire('db')
        execute(conn, 'BEGIN')
        begin()
        # Closing takes no time then.
        with limited(0.3):
            pool.release(conn, 'db')
        assert pool.get_size() == 0
        pool.close()

    @pytest.mark.parametrize('at_work', [True, False])
    @pytest.mark.parametrize('by', ['close_timeout', 'dispose_timeout'])
    def test_of_closing(
        self, mariadb: MariadbServer, stall: tuple[Proxy, Callable[[], None]], by: str, at_work: bool
    ) -> None:
        proxy, begin = stall
        manager = DbConnectionManager(
            {'db': {**mariadb.params, 'port': proxy.port}}, close_timeout=0.3 if by == 'close_timeout' else 60
        )
        pool = ConnectionPool[DbEndpoint, Connection](
            manager, max_size=4, dispose_timeout=0.3 if by == 'dispose_timeout' else None
        )
        users = [start_sleeping(mariadb, pool.acquire('db')) for _ in range(4 * at_work)]
        if not at_work:
            pool.release(pool.acquire('db'), 'db')
        begin()
        # For all of them together: after the first one the server is known to be silent.
        with limited(0.3):
            pool.close(timeout=0)
        for user, _ in users:
            user.join(PATIENCE)
            assert not user.is_alive()
