"""The managers of TCP and TLS sockets for threads, alone, against real servers."""

import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from gcpool.contrib import _attempts, _sockets
from gcpool.contrib import socket as contrib
from gcpool.contrib.socket import (
    SslSocketConnectionManager,
    TcpEndpoint,
    TcpSocketConnectionManager,
    socket_nonblocking,
    socket_timeout,
)
from tests.contrib.servers import (
    CLOSE_NOTIFY,
    HANG_UP,
    LAST_WORDS,
    PATIENCE,
    RESET,
    EchoServer,
    closed_port,
    full_listener,
    linux_only,
    needs_pollrdhup,
    resolver_without_answer,
    wait_for_end,
    wait_readable,
)

LOOPBACK = IPv4Address('127.0.0.1')

TcpPair = tuple[TcpSocketConnectionManager, TcpEndpoint, socket.socket]
TlsPair = tuple[SslSocketConnectionManager, tuple[str, int], ssl.SSLSocket]


def endpoint_of(server: EchoServer) -> TcpEndpoint:
    host, port = server.listener.getsockname()[:2]
    return ip_address(host), port


def echo(sock: socket.socket, message: bytes) -> bytes:
    sock.settimeout(PATIENCE)
    sock.sendall(message)
    return sock.recv(1024)


@pytest.fixture
def tcp_pair(tcp4_server: EchoServer) -> Iterator[TcpPair]:
    manager = TcpSocketConnectionManager()
    endpoint = endpoint_of(tcp4_server)
    sock = manager.create(endpoint)
    yield manager, endpoint, sock
    manager.dispose(endpoint, sock)


class TestSocketTimeout:
    def test_is_restored(self) -> None:
        with socket.socket() as sock:
            sock.settimeout(7.0)
            with socket_timeout(sock, 0.5):
                assert sock.gettimeout() == 0.5
            assert sock.gettimeout() == 7.0

    def test_is_restored_after_an_error(self) -> None:
        with socket.socket() as sock:
            with pytest.raises(ZeroDivisionError), socket_timeout(sock, 0.5):
                raise ZeroDivisionError
            assert sock.gettimeout() is None

    def test_of_none_changes_nothing(self) -> None:
        with socket.socket() as sock:
            sock.settimeout(7.0)
            with socket_timeout(sock, None):
                assert sock.gettimeout() == 7.0

    @pytest.mark.parametrize('timeout', [0, -1])
    def test_of_zero_and_less_still_is_a_timeout(self, timeout: float) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with pytest.raises(TimeoutError), socket_timeout(ours, timeout):
                ours.recv(1)
            assert ours.gettimeout() is None

    def test_lets_the_socket_be_closed_in_the_block(self) -> None:
        sock = socket.socket()
        with socket_timeout(sock, 1.0):
            sock.close()
        assert sock.fileno() == -1

    def test_nonblocking_is_restored(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(7.0)
            with pytest.raises(BlockingIOError), socket_nonblocking(ours):
                ours.recv(1)
            assert ours.gettimeout() == 7.0

    def test_nonblocking_lets_the_socket_be_closed_in_the_block(self) -> None:
        sock = socket.socket()
        with socket_nonblocking(sock):
            sock.close()
        assert sock.fileno() == -1


class TestTcpCreate:
    def test_connects(self, tcp_server: EchoServer) -> None:
        manager = TcpSocketConnectionManager()
        endpoint = endpoint_of(tcp_server)
        sock = manager.create(endpoint)
        assert sock.getpeername()[:2] == (str(endpoint[0]), endpoint[1])
        assert echo(sock, b'hello') == b'hello'
        manager.dispose(endpoint, sock)
        tcp_server.wait_until_open(0)

    @pytest.mark.parametrize('timeout', [None, 5.0, 0])
    def test_leaves_the_default_timeout(self, tcp4_server: EchoServer, timeout: float | None) -> None:
        with TcpSocketConnectionManager().create(endpoint_of(tcp4_server), timeout) as sock:
            assert sock.gettimeout() == socket.getdefaulttimeout()

    def test_refused_leaves_nothing_open(self, open_descriptors: Callable[[], int]) -> None:
        with closed_port() as port:
            before = open_descriptors()
            with pytest.raises(ConnectionRefusedError):
                TcpSocketConnectionManager().create((LOOPBACK, port), PATIENCE)
            assert open_descriptors() == before

    @linux_only
    @pytest.mark.parametrize('timeout', [0, 0.05])
    def test_without_an_answer_times_out(self, open_descriptors: Callable[[], int], timeout: float) -> None:
        with full_listener(socket.AF_INET, ('127.0.0.1', 0)) as listener:
            before = open_descriptors()
            with pytest.raises(TimeoutError):
                TcpSocketConnectionManager().create((LOOPBACK, listener.getsockname()[1]), timeout)
            assert open_descriptors() == before

    @pytest.mark.parametrize('endpoint', [('127.0.0.1', 80), (b'127.0.0.1', 80), LOOPBACK, (LOOPBACK,), None])
    def test_says_what_an_endpoint_is(self, endpoint: TcpEndpoint) -> None:
        with pytest.raises(TypeError, match=r'IPv4Address or IPv6Address, port\), .*, got .*'):
            TcpSocketConnectionManager().create(endpoint)


class TestTcpDispose:
    def test_wakes_who_waits(self, tcp4_server: EchoServer) -> None:
        manager = TcpSocketConnectionManager()
        sock = manager.create(endpoint_of(tcp4_server))
        about_to_wait = threading.Event()
        received: list[bytes | OSError] = []

        def wait() -> None:
            about_to_wait.set()
            try:
                received.append(sock.recv(1))
            except OSError as exc:
                # It came too late: the socket was closed already.
                received.append(exc)

        waiter = threading.Thread(target=wait, daemon=True)
        waiter.start()
        assert about_to_wait.wait(PATIENCE)
        manager.dispose(endpoint_of(tcp4_server), sock)
        waiter.join(PATIENCE)
        assert not waiter.is_alive()
        assert len(received) == 1

    def test_of_what_the_peer_has_reset(self, tcp_pair: TcpPair) -> None:
        manager, endpoint, sock = tcp_pair
        sock.sendall(RESET)
        wait_readable(sock)
        manager.dispose(endpoint, sock)
        assert sock.fileno() == -1

    def test_of_what_the_user_has_closed(self, tcp_pair: TcpPair) -> None:
        manager, endpoint, sock = tcp_pair
        sock.close()
        manager.dispose(endpoint, sock)
        assert sock.fileno() == -1


class TestTcpAliveness:
    def test_of_an_idle_one(self, tcp_pair: TcpPair) -> None:
        manager, endpoint, sock = tcp_pair
        assert manager.check_aliveness(endpoint, sock)
        assert echo(sock, b'hello') == b'hello'
        assert manager.check_aliveness(endpoint, sock, 0)

    @pytest.mark.parametrize('timeout', [None, 0.0, 7.0])
    @pytest.mark.parametrize('waiting', [b'', b'unread'])
    def test_neither_waits_nor_changes_the_timeout_nor_reads(
        self,
        tcp_pair: TcpPair,
        timeout: float | None,
        waiting: bytes,
    ) -> None:
        manager, endpoint, sock = tcp_pair
        if waiting:
            sock.sendall(waiting)
            wait_readable(sock)
        sock.settimeout(timeout)
        assert manager.check_aliveness(endpoint, sock)
        assert sock.gettimeout() == timeout
        if waiting:
            assert sock.recv(100) == waiting

    @pytest.mark.parametrize('order', [HANG_UP, RESET])
    def test_of_what_the_peer_has_closed(
        self,
        tcp_pair: TcpPair,
        order: bytes,
    ) -> None:
        manager, endpoint, sock = tcp_pair
        sock.sendall(order)
        wait_readable(sock)
        assert not manager.check_aliveness(endpoint, sock)

    @needs_pollrdhup
    def test_of_what_the_peer_has_closed_after_some_data(
        self,
        tcp_pair: TcpPair,
        tcp4_server: EchoServer,
    ) -> None:
        manager, endpoint, sock = tcp_pair
        sock.sendall(LAST_WORDS)
        tcp4_server.wait_until_open(0)
        wait_readable(sock)
        assert not manager.check_aliveness(endpoint, sock)

    def test_of_a_closed_one(self, tcp_pair: TcpPair) -> None:
        manager, endpoint, sock = tcp_pair
        sock.close()
        assert not manager.check_aliveness(endpoint, sock)

    def test_of_a_descriptor_closed_behind_its_back(self) -> None:
        manager = TcpSocketConnectionManager()
        ours, theirs = socket.socketpair()
        theirs.close()
        socket.close(ours.fileno())
        assert not manager.check_aliveness((LOOPBACK, 1), ours)
        ours.detach()

    @pytest.mark.skipif(sys.platform == 'win32', reason='descriptors have no small numbers there')
    def test_of_a_descriptor_beyond_what_select_takes(self, tcp_pair: TcpPair) -> None:
        import fcntl
        import resource

        manager, endpoint, sock = tcp_pair
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 4096
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        try:
            with socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 2000)) as high:
                assert high.fileno() >= 2000
                assert manager.check_aliveness(endpoint, high)
                high.sendall(HANG_UP)
                wait_readable(sock)
                assert not manager.check_aliveness(endpoint, high)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=['TLS 1.2', 'TLS 1.3'])
def tls_manager(request: pytest.FixtureRequest, client_tls: ssl.SSLContext) -> SslSocketConnectionManager:
    client_tls.minimum_version = client_tls.maximum_version = request.param
    return SslSocketConnectionManager(client_tls)


class Times:
    """A clock that returns the times that the test has set, in order, and then the last of them again."""

    def __init__(self, *times: float) -> None:
        self._times = list(times)

    def monotonic(self) -> float:
        return self._times.pop(0) if len(self._times) > 1 else self._times[0]


class TestTlsCreate:
    def test_connects(self, tls_manager: SslSocketConnectionManager, tls_server: EchoServer) -> None:
        endpoint = ('localhost', tls_server.port)
        sock = tls_manager.create(endpoint, 10.0)
        assert sock.gettimeout() == socket.getdefaulttimeout()
        assert sock.getpeercert()
        assert echo(sock, b'hello') == b'hello'
        tls_manager.dispose(endpoint, sock)
        tls_server.wait_until_open(0)

    def test_closes_when_the_certificate_is_of_another_host(
        self, client_tls: ssl.SSLContext, tls_server: EchoServer
    ) -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            SslSocketConnectionManager(client_tls).create(('127.0.0.1', tls_server.port), 10.0)
        tls_server.wait_until_open(0)
        assert tls_server.accepted == 1

    def test_closes_when_the_peer_speaks_no_tls(self, client_tls: ssl.SSLContext, tcp4_server: EchoServer) -> None:
        with pytest.raises(ssl.SSLError):
            SslSocketConnectionManager(client_tls).create(('localhost', tcp4_server.port), 10.0)
        tcp4_server.wait_until_open(0)
        assert tcp4_server.accepted == 1

    @pytest.mark.parametrize('timeout', [0, 0.05])
    def test_closes_when_the_handshake_times_out(
        self, client_tls: ssl.SSLContext, silent_listener: socket.socket, timeout: float
    ) -> None:
        with pytest.raises(TimeoutError):
            SslSocketConnectionManager(client_tls).create(('127.0.0.1', silent_listener.getsockname()[1]), timeout)
        with silent_listener.accept()[0] as conn:
            wait_for_end(conn)

    def test_has_one_deadline_for_connecting_and_handshake(
        self, client_tls: ssl.SSLContext, silent_listener: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # At the start, before connecting, before the handshake: by then all but 50 ms of the hour have passed.
        monkeypatch.setattr(_attempts, 'time', Times(0.0, 0.0, 3599.95))
        with pytest.raises(TimeoutError):
            SslSocketConnectionManager(client_tls).create(('127.0.0.1', silent_listener.getsockname()[1]), 3600.0)
        with silent_listener.accept()[0] as conn:
            wait_for_end(conn)

    @pytest.mark.skipif(sys.platform == 'win32', reason='signals do not interrupt a system call there')
    def test_closes_when_interrupted_in_the_handshake(
        self, client_tls: ssl.SSLContext, silent_listener: socket.socket
    ) -> None:
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        ended = threading.Event()

        def interrupt() -> None:
            with silent_listener.accept()[0] as conn:
                conn.settimeout(PATIENCE)
                # The client has begun the handshake, and waits.
                conn.recv(1)
                signal.pthread_kill(main_thread, signal.SIGINT)
                wait_for_end(conn)
                ended.set()

        interrupter = threading.Thread(target=interrupt, daemon=True)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            SslSocketConnectionManager(client_tls).create(('127.0.0.1', silent_listener.getsockname()[1]), PATIENCE)
        interrupter.join(PATIENCE)
        assert ended.is_set()

    def test_refused_leaves_nothing_open(self, client_tls: ssl.SSLContext, open_descriptors: Callable[[], int]) -> None:
        manager = SslSocketConnectionManager(client_tls)
        with closed_port() as port:
            before = open_descriptors()
            with pytest.raises(ConnectionRefusedError):
                manager.create(('127.0.0.1', port), PATIENCE)
            assert open_descriptors() == before

    def test_tries_the_addresses_in_turn(
        self, client_tls: ssl.SSLContext, tls_server: EchoServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closed_port() as refused:
            resolve_to(monkeypatch, ('127.0.0.1', refused), ('127.0.0.1', tls_server.port))
            with SslSocketConnectionManager(client_tls).create(('localhost', 1), PATIENCE) as sock:
                assert sock.getpeername() == ('127.0.0.1', tls_server.port)

    def test_gives_each_address_its_share_of_the_time(
        self, client_tls: ssl.SSLContext, tls_server: EchoServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limits: list[float | None] = []

        def note(sock: socket.socket, timeout: float | None) -> AbstractContextManager[None]:
            limits.append(timeout)
            return socket_timeout(sock, timeout)

        for module in (contrib, _sockets):
            monkeypatch.setattr(module, 'socket_timeout', note)
        # The clock stands still.
        monkeypatch.setattr(_attempts, 'time', Times(0.0))
        manager = SslSocketConnectionManager(client_tls)
        with closed_port() as port:
            refused = '127.0.0.1', port
            resolve_to(monkeypatch, refused, refused, ('127.0.0.1', tls_server.port))
            # Of 60 seconds: a third, half of the rest, all of it; and the handshake.
            manager.create(('localhost', 1), 60.0).close()
            assert limits == [20.0, 30.0, 60.0, 60.0]
            # Less than 2 seconds are too short to be worth trying, so an address gets 2 seconds, or all that is left if
            # that is less.
            limits.clear()
            manager.create(('localhost', 1), 5.0).close()
            assert limits == [2.0, 2.5, 5.0, 5.0]

    def test_says_so_when_the_name_has_no_address(
        self, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolve_to(monkeypatch)
        with pytest.raises(OSError, match="'localhost'"):
            SslSocketConnectionManager(client_tls).create(('localhost', 1), 10.0)

    def test_does_not_wait_for_the_resolver(self, client_tls: ssl.SSLContext) -> None:
        with resolver_without_answer() as host:
            for timeout in (0.05, 0, -1.0):
                with pytest.raises(TimeoutError, match=f"the host name '{host}' was not resolved within 0.25 seconds"):
                    SslSocketConnectionManager(client_tls).create((host, 1), timeout)

    def test_resolves_in_a_thread_only_if_it_has_to(
        self, client_tls: ssl.SSLContext, tls_server: EchoServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolvers: list[threading.Thread] = []
        resolve = socket.getaddrinfo

        def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
            resolvers.append(threading.current_thread())
            return resolve('127.0.0.1', *args, **kwargs)

        monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
        client_tls.check_hostname = False
        me = threading.current_thread()
        for host, timeout, in_a_thread in [
            ('localhost', None, False),
            ('127.0.0.1', 20.0, False),
            ('::1', 20.0, False),
            ('localhost', 20.0, True),
            # Not an address of four bytes.
            ('host', 20.0, True),
        ]:
            SslSocketConnectionManager(client_tls).create((host, tls_server.port), timeout).close()
            resolver = resolvers.pop()
            assert (resolver is not me) == in_a_thread
            if in_a_thread:
                resolver.join(PATIENCE)
                assert not resolver.is_alive()
        assert not resolvers

    def test_a_name_that_is_none(self, client_tls: ssl.SSLContext) -> None:
        for timeout in (None, 20.0):
            with pytest.raises(socket.gaierror):
                SslSocketConnectionManager(client_tls).create(('no-such-host.invalid', 1), timeout)
            with pytest.raises(UnicodeError):
                SslSocketConnectionManager(client_tls).create(('x' * 70 + '.invalid', 1), timeout)

    @pytest.mark.parametrize('endpoint', [(LOOPBACK, 80), 'localhost', ('localhost',), None])
    def test_says_what_an_endpoint_is(self, client_tls: ssl.SSLContext, endpoint: tuple[str, int]) -> None:
        with pytest.raises(TypeError, match=r'expected an endpoint \(host name, port\), .*, got .*'):
            SslSocketConnectionManager(client_tls).create(endpoint)

    @pytest.mark.parametrize('context', [None, True, 'default'])
    def test_says_what_it_needs(self, context: ssl.SSLContext) -> None:
        with pytest.raises(TypeError, match=f'must be an ssl.SSLContext, not {context!r}'):
            SslSocketConnectionManager(context)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Make any host name resolve to some IPv4 addresses."""
    infos = [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, '', address) for address in addresses]
    monkeypatch.setattr(socket, 'getaddrinfo', lambda *args, **kwargs: infos)


@pytest.fixture
def tls_pair(tls_manager: SslSocketConnectionManager, tls_server: EchoServer) -> Iterator[TlsPair]:
    endpoint = ('localhost', tls_server.port)
    sock = tls_manager.create(endpoint, 10.0)
    yield tls_manager, endpoint, sock
    tls_manager.dispose(endpoint, sock)


class TestTlsAliveness:
    def test_of_a_new_one(self, tls_pair: TlsPair) -> None:
        manager, endpoint, sock = tls_pair
        if sock.version() == 'TLSv1.3':
            # The session tickets.
            wait_readable(sock)
        assert manager.check_aliveness(endpoint, sock)
        assert echo(sock, b'hello') == b'hello'
        assert manager.check_aliveness(endpoint, sock)

    @pytest.mark.parametrize('timeout', [None, 0.0, 7.0])
    def test_neither_waits_nor_changes_the_timeout_nor_reads(self, tls_pair: TlsPair, timeout: float | None) -> None:
        manager, endpoint, sock = tls_pair
        assert echo(sock, b'hello') == b'hello'
        sock.sendall(b'unread')
        wait_readable(sock)
        sock.settimeout(timeout)
        assert manager.check_aliveness(endpoint, sock)
        assert sock.gettimeout() == timeout
        assert sock.recv(100) == b'unread'

    def test_of_what_is_partly_read(self, tls_pair: TlsPair) -> None:
        manager, endpoint, sock = tls_pair
        assert echo(sock, b'hello') == b'hello'
        sock.sendall(b'partly read')
        assert sock.recv(6) == b'partly'
        assert sock.pending()
        assert manager.check_aliveness(endpoint, sock)
        assert sock.recv(100) == b' read'

    @pytest.mark.parametrize('order', [HANG_UP, RESET, CLOSE_NOTIFY])
    def test_of_what_the_peer_has_closed(self, tls_pair: TlsPair, order: bytes) -> None:
        manager, endpoint, sock = tls_pair
        assert echo(sock, b'hello') == b'hello'
        sock.sendall(order)
        wait_readable(sock)
        assert not manager.check_aliveness(endpoint, sock)

    def test_of_a_closed_one(self, tls_pair: TlsPair) -> None:
        manager, endpoint, sock = tls_pair
        sock.close()
        assert not manager.check_aliveness(endpoint, sock)
        manager.dispose(endpoint, sock)


def record(kind: int, length: int) -> bytes:
    return bytes((kind, 3, 3)) + length.to_bytes(2, 'big') + bytes(length)


@pytest.mark.parametrize(
    ('records', 'version', 'found'),
    [
        pytest.param(record(23, 250) * 2 + record(23, 19), 'TLSv1.3', True, id='alert behind the tickets'),
        pytest.param(record(23, 250) * 2, 'TLSv1.3', False, id='tickets'),
        pytest.param(record(23, 22), 'TLSv1.3', False, id='key update'),
        pytest.param(record(23, 19), 'TLSv1.2', False, id='data as long as an alert of another version'),
        pytest.param(record(23, 30) + record(21, 26), 'TLSv1.2', True, id='alert behind data'),
        pytest.param(record(23, 250) + record(21, 26)[:4], 'TLSv1.2', False, id='part of a header'),
        pytest.param(record(23, 5000)[:4096], 'TLSv1.3', False, id='more than is looked at'),
    ],
)
def test_alerts_are_told_by_their_records(records: bytes, version: str, found: bool) -> None:
    assert _sockets._has_tls_alert(records, version == 'TLSv1.3') is found
