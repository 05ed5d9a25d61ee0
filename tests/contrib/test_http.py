"""The manager of http.client's connections, alone and in pools, against servers on loopback."""

import array
import contextlib
import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, final

import pytest

from gcpool.contrib.http import Connection, HttpConnectionManager
from gcpool.exceptions import ConnectError, ConnectTimeout, DiscardConnection, UnknownEndpoint
from gcpool.threading import ConnectionPool
from tests.contrib.servers import (
    PATIENCE,
    closed_port,
    resolver_without_answer,
    tcp_listener,
    wait_for_end,
    wait_readable,
)


class Handler(BaseHTTPRequestHandler):
    """Answers with the path, or as the path says."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        body = self.path.encode()
        if self.path == '/none':
            self.send_response(204)
            self.end_headers()
            return
        self.send_response(200)
        if self.path == '/chunked':
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            self.wfile.write(b'3\r\nchu\r\n4\r\nnked\r\n0\r\n\r\n')
            return
        if self.path == '/bye':
            self.send_header('Connection', 'close')
        if self.path == '/endless':
            self.close_connection = True
            self.end_headers()
            self.wfile.write(b'until the end')
            return
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class Server(ThreadingHTTPServer):
    """An HTTP server that can close its connections."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = 'http' if tls is None else 'https'
        self.accepted = 0
        self.open: set[socket.socket] = set()
        self.changed = threading.Condition()

    @property
    def url(self) -> str:
        return f'{self.scheme}://localhost:{self.server_port}'

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.changed:
            self.accepted += 1
            self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self.changed:
            self.open.discard(request)
            self.changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # The client is gone, or does not trust the certificate: the tests look at that on the client's side.
        pass

    def hang_up(self) -> None:
        """End every connection."""
        with self.changed:
            for request in self.open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(request, socket.SHUT_RDWR)

    def wait_until_open(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.open) == count, PATIENCE)


@contextlib.contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server(tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(PATIENCE)
            server.hang_up()
            server.wait_until_open(0)


@pytest.fixture(params=['http', 'https'])
def server(request: pytest.FixtureRequest, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> Iterator[Server]:
    with running(server_tls if request.param == 'https' else None) as server:
        yield server


@pytest.fixture
def manager(client_tls: ssl.SSLContext) -> HttpConnectionManager:
    return HttpConnectionManager(timeout=PATIENCE, ssl_context=client_tls)


@pytest.fixture
def conn(server: Server, manager: HttpConnectionManager) -> Iterator[Connection]:
    conn = manager.create(server.url)
    yield conn
    manager.dispose(server.url, conn)


@final
class Script:
    """A server that answers the head of each request on its one connection with the next of some byte strings.

    None in place of a string makes it wait for the connection's end, and for another connection.
    """

    def __init__(self, *answers: bytes | None) -> None:
        self._listener = tcp_listener()
        self.url = f'http://127.0.0.1:{self._listener.getsockname()[1]}'
        self._answers = answers
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> 'Script':
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        answers = iter(self._answers)
        while True:
            with self._listener.accept()[0] as conn:
                conn.settimeout(PATIENCE)
                again = self._answer(conn, answers)
                wait_for_end(conn)
            if not again:
                return

    def _answer(self, conn: socket.socket, answers: Iterator[bytes | None]) -> bool:
        for answer in answers:
            if answer is None:
                return True
            received = b''
            while b'\r\n\r\n' not in received:
                data = conn.recv(65536)
                if not data:
                    return False
                received += data
            conn.sendall(answer)
        return False


def get(conn: Connection, path: str) -> bytes:
    conn.request('GET', path)
    return conn.getresponse().read()


def read_to_end(response: http.client.HTTPResponse, way: str) -> None:
    """Read a response in one of the possible ways."""
    buffer = bytearray(3)
    steps: dict[str, Callable[[], object]] = {
        'read': response.read,
        'read some': lambda: response.read(3),
        'read1': lambda: response.read1(3),
        'readinto': lambda: response.readinto(buffer),
        'readline': response.readline,
        'iterate': lambda: list(response),
        'close': response.close,
    }
    while steps[way]():
        pass


def start_upload(conn: Connection, *headers: Any) -> None:
    """Send the head of a request."""
    conn.putrequest('POST', '/')
    for name, *values in headers:
        conn.putheader(name, *values)
    conn.endheaders()


def send_body(conn: Connection, block: Any) -> None:
    """Send a body of 123 bytes in some way, also from something that can be read only once."""
    made: dict[Any, Callable[[], Any]] = {
        io.BytesIO: lambda: io.BytesIO(b'123'),
        io.StringIO: lambda: io.StringIO('123'),
        iter: lambda: iter([b'123']),
    }
    conn.send(next((make() for kind, make in made.items() if block is kind), block))


def check_fit(manager: HttpConnectionManager, conn: Connection) -> None:
    assert not manager.is_broken('http://x', conn, ValueError())
    manager.on_release('http://x', conn)
    assert manager.check_aliveness('http://x', conn)


def check_unfit(manager: HttpConnectionManager, conn: Connection, reason: str) -> None:
    assert manager.is_broken('http://x', conn, ValueError())
    with pytest.raises(DiscardConnection, match=f"'http://x' is unfit: {reason}"):
        manager.on_release('http://x', conn)
    assert not manager.check_aliveness('http://x', conn)


class TestCreate:
    @pytest.mark.parametrize('timeout', [None, 20.0])
    def test_endpoints(self, server: Server, manager: HttpConnectionManager, timeout: float | None) -> None:
        for endpoint in (server.url, server.url + '/', (server.scheme, 'localhost', server.server_port)):
            conn = manager.create(endpoint, timeout)
            assert get(conn, '/x') == b'/x'
            assert conn.sock.gettimeout() == PATIENCE
            manager.dispose(endpoint, conn)
        server.wait_until_open(0)

    @pytest.mark.parametrize(
        ('endpoint', 'expected'),
        [
            ('http://example.com', ('example.com', 80)),
            ('https://example.com/', ('example.com', 443)),
            ('http://[::1]:8080', ('::1', 8080)),
            (('https', 'example.com', 8443), ('example.com', 8443)),
        ],
    )
    def test_where_to(
        self, monkeypatch: pytest.MonkeyPatch, manager: HttpConnectionManager, endpoint: Any, expected: Any
    ) -> None:
        asked: list[Any] = []

        def connect(host: str, port: int, deadline: float | None) -> socket.socket:
            asked.append((host, port))
            raise ConnectionRefusedError

        monkeypatch.setattr('gcpool.contrib._http_connection.connect_tcp', connect)
        with pytest.raises(ConnectionRefusedError):
            manager.create(endpoint)
        assert asked == [expected]

    @pytest.mark.parametrize(
        'endpoint',
        [
            *('ftp://localhost', 'localhost', 'http://', 'http://localhost/path', 'http://localhost:x', 'http://[::1'),
            *('http://localhost?query', ('http', 'localhost'), ('ftp', 'localhost', 80), ('http', '', 80), 80),
            *('http://local host', 'http://local\nhost', 'http://local\x7fhost', 'http://localhost\t:80'),
            *(('http', 'local host', 80), ('http', 'local\0host', 80), ('http', b'localhost', 80)),
            *('http://localhost:0', 'http://localhost:65536', 'http://localhost:-1'),
            *(('http', 'localhost', port) for port in (0, -1, 65536, 99999, True, '80', 80.0, None)),
            *(([], 'localhost', 80), (None, 'localhost', 80)),
        ],
    )
    def test_no_endpoint(self, manager: HttpConnectionManager, endpoint: Any) -> None:
        expected = "write 'http://host:port'.* the port is an int from 1 to 65535"
        with pytest.raises(UnknownEndpoint, match=expected) as caught:
            manager.create(endpoint)
        assert caught.value.endpoint == endpoint
        assert repr(endpoint) in str(caught.value)

    def test_password_in_the_endpoint(self, manager: HttpConnectionManager) -> None:
        with pytest.raises(UnknownEndpoint, match='Authorization') as caught:
            manager.create('http://me:not-a-secret@localhost')
        assert 'secret' not in str(caught.value)

    def test_refused(self, manager: HttpConnectionManager) -> None:
        with closed_port() as port, pytest.raises(ConnectError, match='check that the server is running') as caught:
            manager.create(('http', '127.0.0.1', port), 20.0)
        assert isinstance(caught.value, ConnectionRefusedError)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)

    def test_host_that_does_not_resolve(self, manager: HttpConnectionManager) -> None:
        with pytest.raises(ConnectError, match='does not resolve') as caught:
            manager.create('http://no-such-host.invalid', 20.0)
        assert isinstance(caught.value, socket.gaierror)
        with pytest.raises(ConnectError, match='check the host name'):
            manager.create('http://' + 'x' * 100)

    def test_certificate_that_is_not_trusted(self, server_tls: ssl.SSLContext) -> None:
        with running(server_tls) as server:
            with pytest.raises(ConnectError, match='its certificate is trusted') as caught:
                HttpConnectionManager().create(server.url, 20.0)
            assert isinstance(caught.value, ssl.SSLCertVerificationError)
            server.wait_until_open(0)

    @pytest.mark.parametrize(('own', 'given'), [(0.2, None), (0.2, 20.0), (20.0, 0.2), (None, 0.2)])
    def test_times_out(
        self, silent_listener: socket.socket, client_tls: ssl.SSLContext, own: float | None, given: float | None
    ) -> None:
        manager = HttpConnectionManager(timeout=own, ssl_context=client_tls)
        with pytest.raises(ConnectTimeout, match=r'could be made within 0\.2 s'):
            manager.create(('https', '127.0.0.1', silent_listener.getsockname()[1]), given)
        with silent_listener.accept()[0] as conn:
            wait_for_end(conn)

    def test_does_not_wait_for_the_resolver(self) -> None:
        pool = ConnectionPool[Any, Connection](HttpConnectionManager())
        with resolver_without_answer() as host:
            with pytest.raises(ConnectTimeout, match='was not resolved within'):
                pool.acquire(f'http://{host}', timeout=0.05)
            with pytest.raises(ConnectTimeout, match='was not resolved within'):
                HttpConnectionManager(timeout=0.05).create(f'http://{host}')
        pool.close()

    @pytest.mark.parametrize(
        ('parameters', 'kind'),
        [
            ({'timeout': 'x'}, TypeError),
            ({'timeout': True}, TypeError),
            ({'timeout': 0}, ValueError),
            ({'timeout': -1}, ValueError),
            ({'timeout': float('nan')}, ValueError),
            ({'ssl_context': 5}, TypeError),
        ],
    )
    def test_parameters_that_are_none(self, parameters: Any, kind: type[Exception]) -> None:
        with pytest.raises(kind, match=next(iter(parameters))):
            HttpConnectionManager(**parameters)

    def test_a_timeout_without_an_end(self, server: Server, client_tls: ssl.SSLContext) -> None:
        manager = HttpConnectionManager(timeout=float('inf'), ssl_context=client_tls)
        conn = manager.create(server.url)
        assert get(conn, '/x') == b'/x'
        manager.dispose(server.url, conn)


class TestState:
    def test_unused(self, manager: HttpConnectionManager, conn: Connection) -> None:
        check_fit(manager, conn)
        # With TLS 1.3 a ticket may have come in the meantime.
        assert get(conn, '/x') == b'/x'
        check_fit(manager, conn)

    @pytest.mark.parametrize('path', ['/x', '/chunked', '/none', '/'])
    def test_read_to_its_end(self, server: Server, manager: HttpConnectionManager, conn: Connection, path: str) -> None:
        for _ in range(3):
            get(conn, path)
            check_fit(manager, conn)
        assert server.accepted == 1

    @pytest.mark.parametrize(('method', 'path'), [('HEAD', '/x'), ('GET', '/none')])
    def test_nothing_to_read(
        self, server: Server, manager: HttpConnectionManager, conn: Connection, method: str, path: str
    ) -> None:
        for _ in range(2):
            conn.request(method, path)
            conn.getresponse()
            check_fit(manager, conn)
        assert get(conn, '/x') == b'/x'
        assert server.accepted == 1

    def test_a_body_that_was_sent(self, manager: HttpConnectionManager, conn: Connection) -> None:
        conn.request('POST', '/', b'x' * 100_000)
        assert len(conn.getresponse().read()) == 100_000
        check_fit(manager, conn)

    @pytest.mark.parametrize('path', ['/x', '/chunked'])
    @pytest.mark.parametrize('amount', [0, 1])
    def test_half_read(self, manager: HttpConnectionManager, conn: Connection, path: str, amount: int) -> None:
        conn.request('GET', path)
        response = conn.getresponse()
        assert len(response.read(amount)) == amount
        check_unfit(manager, conn, 'a response was not read to its end')

    @pytest.mark.parametrize(
        'head', [b'Content-Length: 10\r\n\r\n12345', b'Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n']
    )
    def test_closed_half_read(self, manager: HttpConnectionManager, head: bytes) -> None:
        # The rest is yet to come, so nothing of it can be seen.
        answer = b'HTTP/1.1 200 OK\r\n' + head
        with Script(answer, b'HTTP/1.1 204 No Content\r\n\r\n') as script:
            conn = manager.create(script.url)
            conn.request('GET', '/')
            with conn.getresponse() as response:
                assert response.read(5) == b'12345'
            check_unfit(manager, conn, 'a response was closed before its end')
            # Nor does another request on it make it fit.
            get(conn, '/')
            check_unfit(manager, conn, 'a response was closed before its end')
            manager.dispose(script.url, conn)

    @pytest.mark.parametrize('path', ['/x', '/chunked', '/none'])
    def test_closed_at_its_end(self, manager: HttpConnectionManager, conn: Connection, path: str) -> None:
        conn.request('GET', path)
        with conn.getresponse() as response:
            response.read()
        check_fit(manager, conn)
        conn.request('HEAD', path)
        with conn.getresponse():
            pass
        check_fit(manager, conn)

    def test_no_response_asked_for(self, manager: HttpConnectionManager, conn: Connection) -> None:
        conn.request('GET', '/x')
        check_unfit(manager, conn, 'a request was begun')

    def test_half_a_request(self, manager: HttpConnectionManager, conn: Connection) -> None:
        conn.putrequest('GET', '/x')
        check_unfit(manager, conn, 'a request was begun')

    @pytest.mark.parametrize('path', ['/a b', '/\n'])
    def test_a_request_that_was_refused(self, manager: HttpConnectionManager, conn: Connection, path: str) -> None:
        with pytest.raises(http.client.InvalidURL):
            conn.request('GET', path)
        check_unfit(manager, conn, 'a request was begun')

    def test_a_second_request_before_the_response(self, manager: HttpConnectionManager, conn: Connection) -> None:
        start_upload(conn, ('Content-Length', '5'))
        conn.send(b'123')
        with pytest.raises(http.client.CannotSendRequest):
            conn.putrequest('GET', '/')
        conn.send(b'45')
        assert conn.getresponse().read() == b'12345'
        check_fit(manager, conn)

    @pytest.mark.parametrize(
        'sent',
        [
            *([], [b''], [b'123'], [b'12', b'3'], [b'123', b'456'], [['1', '2'], [b'12', b'34']]),
            *([array.array('I', [1])], [io.BytesIO], [io.StringIO], [iter]),
        ],
    )
    def test_less_or_more_of_a_body_than_was_announced(self, manager: HttpConnectionManager, sent: list[Any]) -> None:
        with Script(b'HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno') as script:
            conn = manager.create(script.url)
            start_upload(conn, ('Content-Length', '5'))
            for block in sent:
                with contextlib.suppress(TypeError):
                    send_body(conn, block)
            assert conn.getresponse().read() == b'no'
            check_unfit(manager, conn, 'a request was not sent as its header announced it')
            manager.dispose(script.url, conn)

    @pytest.mark.parametrize(
        'sent',
        [
            *([b'12345'], [b'12', b'345'], [[b'1', b'2345']], [memoryview(b'12345')]),
            *([b'1', array.array('I', [0x20202020])], [io.BytesIO, b'45'], [b'12', io.StringIO], [iter, b'45']),
        ],
    )
    def test_a_body_as_it_was_announced(
        self, manager: HttpConnectionManager, conn: Connection, sent: list[Any]
    ) -> None:
        start_upload(conn, ('content-length', 5))
        for block in sent:
            send_body(conn, block)
        assert len(conn.getresponse().read()) == 5
        check_fit(manager, conn)
        assert get(conn, '/x') == b'/x'

    @pytest.mark.parametrize(
        'headers',
        [
            [('Content-Length', '5'), ('Content-Length', '5')],
            [('Content-Length', '5', '5')],
            [('Content-Length', 'five')],
            [('Content-Length', '-5')],
            [('Content-Length', '9' * 5000)],
            [('Content-Length', '5'), ('Transfer-Encoding', 'chunked')],
            [(b'Transfer-Encoding', b'gzip')],
            [],
        ],
    )
    def test_a_body_whose_length_is_anybody_s_guess(self, manager: HttpConnectionManager, headers: list[Any]) -> None:
        with Script(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno') as script:
            conn = manager.create(script.url)
            start_upload(conn, *headers)
            conn.send(b'12345')
            assert conn.getresponse().read() == b'no'
            check_unfit(manager, conn, 'a request was not sent as its header announced it')
            manager.dispose(script.url, conn)

    def test_a_body_that_the_server_did_not_want(self, manager: HttpConnectionManager) -> None:
        with Script(b'HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno') as script:
            conn = manager.create(script.url)
            start_upload(conn, ('Content-Length', '5'), ('Expect', '100-continue'))
            assert conn.getresponse().read() == b'no'
            check_unfit(manager, conn, 'a request was not sent as its header announced it')
            # Nor does sending it after all: the server may take it for something else.
            conn.send(b'12345')
            check_unfit(manager, conn, 'a request was not sent as its header announced it')
            manager.dispose(script.url, conn)

    def test_a_body_that_the_server_wanted(self, manager: HttpConnectionManager) -> None:
        answer = b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
        with Script(answer) as script:
            conn = manager.create(script.url)
            conn.request('POST', '/', b'12345', {'Expect': '100-continue'})
            assert conn.getresponse().read() == b'ok'
            check_fit(manager, conn)
            manager.dispose(script.url, conn)

    @pytest.mark.parametrize(
        'sent',
        [
            [b'0\r\n\r\n'],
            [b'3\r\nabc\r\n0\r\n\r\n'],
            [b'00A;x=y\r\n0\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n'],
            [b'3\r\nabc\r\n0\r\nName: value\r\nOther: x\r\n\r\n'],
            [b'1', b'0\r', b'\n0123456789', b'abcdef\r', b'\n0', b'\r\n', b'\r', b'\n'],
        ],
    )
    def test_a_chunked_body(self, manager: HttpConnectionManager, sent: list[bytes]) -> None:
        self.check_chunked(manager, sent)

    @pytest.mark.parametrize(
        'sent',
        [
            [],
            [b'3\r\nabc\r\n'],
            [b'3\r\nabc\r\n0\r\n'],
            # The end of the body is in a chunk.
            [b'A\r\nabc\r\n0\r\n\r\n'],
            [b'3\r\nabc\r\n0\r\nName: value\r\n'],
            [b'0\r\n\r\n', b'GET'],
            [b'3\r\nabcde\r\n0\r\n\r\n'],
            [b'x\r\n\r\n0\r\n\r\n'],
            [b'3\nabc\n0\n\n'],
            [b'1' * 100_000],
        ],
    )
    def test_a_chunked_body_without_its_end(self, manager: HttpConnectionManager, sent: list[bytes]) -> None:
        self.check_chunked(manager, sent, 'a request was not sent as its header announced it')

    def check_chunked(self, manager: HttpConnectionManager, sent: list[bytes], reason: str | None = None) -> None:
        with Script(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok') as script:
            conn = manager.create(script.url)
            start_upload(conn, ('Transfer-Encoding', 'Chunked'))
            for block in sent:
                conn.send(block)
            assert conn.getresponse().read() == b'ok'
            if reason is None:
                check_fit(manager, conn)
            else:
                check_unfit(manager, conn, reason)
            manager.dispose(script.url, conn)

    @pytest.mark.parametrize(
        'body', [[b'abc', b'', b'def'], io.StringIO('abcdef'), io.BytesIO(b'')], ids=['list', 'text', 'empty']
    )
    def test_a_body_that_http_client_sends_in_chunks(self, manager: HttpConnectionManager, body: Any) -> None:
        with Script(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok') as script:
            conn = manager.create(script.url)
            conn.request('POST', '/', body)
            assert conn.getresponse().read() == b'ok'
            check_fit(manager, conn)
            manager.dispose(script.url, conn)

    def test_a_body_that_breaks_off(self, manager: HttpConnectionManager) -> None:
        def chunks() -> Iterator[bytes]:
            yield b'abc'
            raise ZeroDivisionError

        with Script(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok') as script:
            conn = manager.create(script.url)
            with pytest.raises(ZeroDivisionError):
                conn.request('POST', '/', chunks())
            assert conn.getresponse().read() == b'ok'
            check_unfit(manager, conn, 'a request was not sent as its header announced it')
            manager.dispose(script.url, conn)

    def test_bytes_that_belong_to_no_request(self, manager: HttpConnectionManager, conn: Connection) -> None:
        conn.send(b'GET')
        check_unfit(manager, conn, 'something was sent on it outside of a request')

    def test_by_way_of_a_proxy(self, manager: HttpConnectionManager) -> None:
        with Script(None, b'HTTP/1.1 200 OK\r\n\r\n', b'HTTP/1.1 204 No Content\r\n\r\n') as script:
            conn = manager.create(script.url)
            conn.close()
            conn.set_tunnel('example.com', 80)
            get(conn, '/')
            check_unfit(manager, conn, 'it goes through a proxy')
            manager.dispose(script.url, conn)

    @pytest.mark.parametrize('rest', [b'', b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'])
    def test_an_interim_response(self, manager: HttpConnectionManager, rest: bytes) -> None:
        with Script(b'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n' + rest, b'HTTP/1.1 204 No\r\n\r\n') as script:
            conn = manager.create(script.url)
            conn.request('GET', '/')
            response = conn.getresponse()
            assert (response.status, response.read()) == (103, b'')
            check_unfit(manager, conn, r'an interim response was read \(103\)')
            # Nor does another request on it make it fit.
            get(conn, '/')
            check_unfit(manager, conn, r'an interim response was read \(103\)')
            manager.dispose(script.url, conn)

    @pytest.mark.parametrize(
        'answer',
        [
            b'Content-Length: 10\r\n\r\n12345',
            b'Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n',
            b'Transfer-Encoding: chunked\r\n\r\n5\r\n123',
            b'Transfer-Encoding: chunked\r\n\r\n',
            # The server has not hung up, but may send anything next.
            b'Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\nsize\r\n',
            b'Transfer-Encoding: chunked\r\n\r\nsize\r\n',
        ],
    )
    @pytest.mark.parametrize('way', ['read', 'read some', 'read1', 'readinto', 'readline', 'iterate', 'close'])
    def test_a_response_that_was_cut_short(self, manager: HttpConnectionManager, way: str, answer: bytes) -> None:
        with tcp_listener() as listener:
            host, port = listener.getsockname()
            conn = manager.create(('http', host, port))
            with listener.accept()[0] as accepted:
                accepted.settimeout(PATIENCE)
                conn.request('GET', '/')
                assert accepted.recv(65536)
                accepted.sendall(b'HTTP/1.1 200 OK\r\n' + answer)
                if not answer.endswith(b'size\r\n'):
                    accepted.shutdown(socket.SHUT_WR)
                response = conn.getresponse()
                with contextlib.suppress(http.client.IncompleteRead, ValueError):
                    read_to_end(response, way)
                check_unfit(manager, conn, 'a response was (not read|closed|cut)')
                # A closed connection is as unfit as before.
                response.close()
                check_unfit(manager, conn, 'a response was (closed|cut)')
                manager.dispose('http://x', conn)

    @pytest.mark.parametrize(
        'answer',
        [
            b'200 OK\r\nContent-Length: 5\r\n\r\n12345',
            b'200 OK\r\nContent-Length: 0\r\n\r\n',
            b'200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n',
            b'200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n',
            b'204 No Content\r\n\r\n',
            b'304 Not Modified\r\nContent-Length: 5\r\n\r\n',
        ],
    )
    @pytest.mark.parametrize('way', ['read', 'read some', 'read1', 'readinto', 'readline'])
    def test_a_response_that_came_in_full(self, manager: HttpConnectionManager, way: str, answer: bytes) -> None:
        with Script(b'HTTP/1.1 ' + answer, b'HTTP/1.1 ' + answer) as script:
            conn = manager.create(script.url)
            for _ in range(2):
                conn.request('GET', '/')
                read_to_end(conn.getresponse(), way)
                check_fit(manager, conn)
            manager.dispose('http://x', conn)

    def test_a_response_that_did_not_come_in_time(self, manager: HttpConnectionManager) -> None:
        with Script(b'HTTP/1.1 200 OK\r\n') as script:
            conn = manager.create(script.url)
            conn.sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                get(conn, '/')
            check_unfit(manager, conn, 'a request was begun')
            manager.dispose(script.url, conn)

    @pytest.mark.parametrize('path', ['/bye', '/endless'])
    def test_the_last_response(self, manager: HttpConnectionManager, conn: Connection, path: str) -> None:
        assert get(conn, path)
        check_unfit(manager, conn, 'it is closed')

    def test_the_last_response_half_read(self, server: Server, manager: HttpConnectionManager) -> None:
        conn = manager.create(server.url)
        conn.request('GET', '/bye')
        response = conn.getresponse()
        response.read(1)
        check_unfit(manager, conn, 'it is closed')
        # The response holds the socket.
        manager.dispose(server.url, conn)
        assert response.isclosed()
        server.wait_until_open(0)

    def test_connecting_again_by_itself(self, server: Server, manager: HttpConnectionManager, conn: Connection) -> None:
        get(conn, '/bye')
        assert get(conn, '/x') == b'/x'
        check_fit(manager, conn)
        assert server.accepted == 2

    def test_closed_while_idle(self, server: Server, manager: HttpConnectionManager, conn: Connection) -> None:
        get(conn, '/x')
        manager.on_release(server.url, conn)
        server.hang_up()
        wait_readable(conn.sock)
        assert not manager.check_aliveness(server.url, conn)

    @pytest.mark.parametrize('surplus', [b'H', b'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx'])
    @pytest.mark.parametrize('body', [b'Content-Length: 2\r\n\r\nok', b'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n'])
    def test_more_than_the_response(self, manager: HttpConnectionManager, body: bytes, surplus: bytes) -> None:
        with Script(b'HTTP/1.1 200 OK\r\n' + body + surplus) as script:
            conn = manager.create(script.url)
            get(conn, '/')
            check_unfit(manager, conn, 'there is data after the response')
            manager.dispose(script.url, conn)

    def test_bytes_that_come_later(self, server: Server, manager: HttpConnectionManager, conn: Connection) -> None:
        get(conn, '/x')
        manager.on_release(server.url, conn)
        conn.sock.sendall(b'GET /y HTTP/1.1\r\n\r\n')
        wait_readable(conn.sock)
        assert not manager.check_aliveness(server.url, conn)

    def test_another_protocol(self, manager: HttpConnectionManager) -> None:
        with Script(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n') as script:
            conn = manager.create(script.url)
            get(conn, '/')
            check_unfit(manager, conn, 'it was switched to another protocol')
            manager.dispose(script.url, conn)

    def test_timeout_of_the_user(self, manager: HttpConnectionManager, conn: Connection) -> None:
        conn.timeout = 1.0
        conn.sock.settimeout(1.0)
        get(conn, '/x')
        check_fit(manager, conn)
        assert (conn.timeout, conn.sock.gettimeout()) == (PATIENCE, PATIENCE)


class TestDispose:
    def test_twice(self, server: Server, manager: HttpConnectionManager) -> None:
        conn = manager.create(server.url)
        manager.dispose(server.url, conn)
        manager.dispose(server.url, conn, 0.0)
        assert not manager.check_aliveness(server.url, conn)
        server.wait_until_open(0)

    def test_it_does_not_connect_again(self, server: Server, manager: HttpConnectionManager) -> None:
        conn = manager.create(server.url)
        manager.dispose(server.url, conn)
        with pytest.raises(http.client.NotConnected, match='closed by its pool'):
            conn.request('GET', '/x')
        # The server may be about to accept it.
        assert server.accepted <= 1

    def test_ends_a_wait(self, manager: HttpConnectionManager) -> None:
        with Script(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n') as script:
            conn = manager.create(script.url)
            conn.request('GET', '/')
            response = conn.getresponse()
            outcomes: list[bytes | Exception] = []
            begun = threading.Event()

            def read() -> None:
                begun.set()
                try:
                    outcomes.append(response.read())
                except (http.client.HTTPException, OSError, ValueError, AttributeError) as exc:
                    outcomes.append(exc)

            user = threading.Thread(target=read, daemon=True)
            user.start()
            assert begun.wait(PATIENCE)
            manager.dispose(script.url, conn)
            user.join(PATIENCE)
            assert not user.is_alive()
            # If it had not begun to wait, the response was closed already and has nothing.
            assert outcomes == [b''] or isinstance(outcomes[0], Exception)

    def test_of_a_stranger(self, manager: HttpConnectionManager) -> None:
        with pytest.raises(TypeError, match='was not made by HttpConnectionManager'):
            manager.dispose('http://x', http.client.HTTPConnection('x'))


class TestPool:
    def test_keeps_alive(self, server: Server, manager: HttpConnectionManager) -> None:
        pool = ConnectionPool[Any, Connection](manager, max_size=2, acquire_timeout=PATIENCE)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for number in range(20):
                    with pool.connection(server.url) as conn:
                        assert get(conn, f'/{number}') == f'/{number}'.encode()
            except BaseException as exc:  # noqa: BLE001  (handed to the test)
                failures.append(exc)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not failures
        assert server.accepted <= 2
        pool.close()
        server.wait_until_open(0)

    def test_a_connection_that_the_server_ends_is_not_broken(
        self, server: Server, manager: HttpConnectionManager
    ) -> None:
        pool = ConnectionPool[Any, Connection](manager, acquire_timeout=PATIENCE)
        for _ in range(2):
            with pool.connection(server.url) as conn:
                assert get(conn, '/bye')
        stats = pool.get_stats()
        assert (server.accepted, stats['closed_discarded'], stats['broken']) == (2, 2, 0)
        with pool.connection(server.url) as conn:
            conn.request('GET', '/bye')
            conn.getresponse().read(1)
        assert pool.get_stats()['broken'] == 1
        pool.close()

    def test_replaces_what_is_unfit(self, server: Server, manager: HttpConnectionManager) -> None:
        pool = ConnectionPool[Any, Connection](manager, max_size=1, acquire_timeout=PATIENCE)

        def half_read() -> None:
            with pool.connection(server.url) as conn:
                conn.request('GET', '/some')
                conn.getresponse().read(1)

        def fail() -> None:
            with pool.connection(server.url) as conn:
                conn.request('GET', '/some')
                raise ZeroDivisionError

        def finish() -> None:
            with pool.connection(server.url) as conn:
                assert get(conn, '/bye') == b'/bye'

        uses: list[Callable[[], None]] = [half_read, fail, finish, server.hang_up]
        for used, use in enumerate(uses):
            if use is fail:
                with pytest.raises(ZeroDivisionError):
                    use()
            else:
                use()
            with pool.connection(server.url) as conn:
                assert get(conn, '/x') == b'/x'
                assert get(conn, '/y') == b'/y'
            assert server.accepted == used + 2
        pool.close()
        server.wait_until_open(0)
