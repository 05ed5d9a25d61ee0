"""HTTP connections that go wrong in the field: a table of cases for each kind."""

import contextlib
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from gcpool.contrib.http import Connection, HttpConnectionManager, HttpEndpoint
from gcpool.threading import ConnectionPool
from tests.contrib.raising import in_a_group, in_nested_groups
from tests.contrib.servers import PATIENCE, tcp_listener
from tests.contrib.test_http import Server, running


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def ask(conn: Connection, words: str) -> bytes:
    conn.request('POST', '/', words.encode())
    return conn.getresponse().read()


def leave_unread(conn: Connection) -> None:
    conn.request('POST', '/', b'mine')


def read_the_head_only(conn: Connection) -> None:
    conn.request('POST', '/', b'mine')
    conn.getresponse()


def read_half(conn: Connection) -> None:
    conn.request('POST', '/', b'mine')
    conn.getresponse().read(2)


def read_half_of_chunks(conn: Connection) -> None:
    conn.request('GET', '/chunked')
    assert conn.getresponse().read(4) == b'chun'


def close_half_of_chunks(conn: Connection) -> None:
    conn.request('GET', '/chunked')
    with conn.getresponse() as response:
        response.read(4)


def time_out_within_a_group(conn: Connection) -> None:
    conn.request('POST', '/', b'mine')
    raise in_nested_groups(TimeoutError())


def be_interrupted(conn: Connection) -> None:
    conn.request('POST', '/', b'mine')
    raise KeyboardInterrupt


def begin_another(conn: Connection) -> None:
    ask(conn, 'mine')
    conn.putrequest('POST', '/')


def send_less(conn: Connection) -> None:
    conn.putrequest('POST', '/')
    conn.putheader('Content-Length', '10')
    conn.endheaders(b'mine')


ENDINGS = [
    leave_unread,
    read_the_head_only,
    read_half,
    read_half_of_chunks,
    close_half_of_chunks,
    time_out_within_a_group,
    be_interrupted,
    begin_another,
    send_less,
]


@pytest.mark.parametrize('end', ENDINGS, ids=lambda end: end.__name__)
def test_the_next_user_reads_its_own_answer(server: Server, end: Any) -> None:
    pool = ConnectionPool[HttpEndpoint, Connection](HttpConnectionManager(timeout=PATIENCE), max_size=1)
    for _ in range(2):
        with contextlib.suppress(Exception, KeyboardInterrupt), pool.connection(server.url) as conn:
            end(conn)
        with pool.connection(server.url) as conn:
            for _ in range(2):
                words = uuid.uuid4().hex
                assert ask(conn, words) == words.encode()
    pool.close()
    server.wait_until_open(0)


def test_an_error_of_somebody_else_s_breaks_nothing(server: Server) -> None:
    # The manager knows that no answer is outstanding.
    manager = HttpConnectionManager(timeout=PATIENCE)
    conn = manager.create(server.url)
    ask(conn, 'mine')
    for error in (TimeoutError(), ConnectionResetError(), in_a_group(TimeoutError())):
        assert not manager.is_broken(server.url, conn, error)
    manager.dispose(server.url, conn)


#: Each line is one server.
SPELLINGS: list[list[Any]] = [
    [
        *('http://a', 'http://a/', 'HTTP://A:80', 'http://a:', 'http://a:080'),
        *(('http', 'a', 80), ('HTTP', 'A', 80)),
    ],
    # The resolver completes the name above by its search list, but not this one.
    ['http://a.', 'http://A.:80/', ('HTTP', 'A.', 80)],
    ['https://a', 'https://a:443/', 'HTTPS://a', ('https', 'a', 443)],
    ['http://a:443', ('http', 'a', 443)],
    ['https://a:80'],
    ['http://a.b', 'http://a.b.', 'http://A.B.:80/', ('http', 'a.B.', 80)],
    ['http://b.a', 'http://B.a'],
    ['http://[::1]', 'http://[0:0:0:0:0:0:0:1]:80', ('http', '::1', 80), ('http', '[::1]', 80)],
    # An IPv4 address that an IPv6 address maps is reached in another way.
    ['http://[::ffff:127.0.0.1]', 'http://[::FFFF:7f00:1]'],
    ['http://127.0.0.1', 'http://127.0.0.1.', ('http', '127.0.0.1', 80)],
    # Systems read these in different ways.
    *(['http://127.1'], ['http://0x7f.1'], ['http://2130706433'], ['http://010.0.0.1'], ['http://10.0.0.1']),
    # A name is not its address.
    ['http://localhost', 'http://LocalHost'],
    ['http://[fe80::1%eth0]', 'http://[FE80:0::1%eth0]'],
    # Interface names depend on the system.
    ['http://[fe80::1%ETH0]'],
    [
        'http://b\u00fccher.example',
        'http://B\u00dcCHER.example',
        'http://xn--bcher-kva.example',
        'http://bu\u0308cher.example',
    ],
    ['http://bucher.example'],
    ['http://stra\u00dfe.example', 'http://strasse.example'],
]


def test_spellings() -> None:
    normalize = HttpConnectionManager().normalize
    found = [{normalize(endpoint) for endpoint in endpoints} for endpoints in SPELLINGS]
    assert [len(forms) for forms in found] == [1] * len(SPELLINGS)
    forms = [forms.pop() for forms in found]
    assert len(set(forms)) == len(SPELLINGS)
    assert [normalize(form) for form in forms] == forms
    assert normalize('http://a:8080') == 'http://a:8080'


@pytest.mark.parametrize(
    'endpoint',
    ['ftp://a', 'http://user@a', 'http://a b', 'a', 1, None, ('http', 'a', '80'), 'http://a/path', b'http://a'],
)
def test_what_is_no_endpoint_stays_what_it_is(endpoint: Any) -> None:
    assert HttpConnectionManager().normalize(endpoint) is endpoint


def test_connects_to_the_spelling_that_counts(server: Server) -> None:
    manager = HttpConnectionManager(timeout=PATIENCE)
    for endpoint in (f'HTTP://LocalHost:{server.server_port}/', ('HTTP', '127.0.0.1.', server.server_port)):
        conn = manager.create(endpoint)
        assert ask(conn, 'mine') == b'mine'
        manager.dispose(endpoint, conn)


@pytest.mark.parametrize('tls', [False, True])
def test_a_name_that_keeps_its_dot(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """It is resolved with the dot, which neither the certificate nor the Host header has."""
    resolve, resolved = socket.getaddrinfo, []

    def getaddrinfo(name: str, *args: Any, **kwargs: Any) -> Any:
        resolved.append(name)
        return resolve('127.0.0.1', *args, **kwargs)

    monkeypatch.setattr(socket, 'getaddrinfo', getaddrinfo)
    manager = HttpConnectionManager(timeout=PATIENCE, ssl_context=client_tls)
    with running(server_tls if tls else None) as server:
        endpoint = manager.normalize(f'{server.scheme}://LOCALHOST.:{server.server_port}')
        conn = manager.create(endpoint)
        assert ask(conn, 'mine') == b'mine'
        assert (resolved, conn.host) == (['localhost.'], 'localhost')
        manager.dispose(endpoint, conn)


@pytest.mark.parametrize('step', ['acquire', 'request'])
def test_limits_with_a_server_that_says_nothing(step: str) -> None:
    # TLS, so that connecting waits for an answer.
    with tcp_listener() as listener:
        port = listener.getsockname()[1]
        pool = ConnectionPool[HttpEndpoint, Connection](HttpConnectionManager(timeout=0.5), max_size=1)
        endpoint = ('https' if step == 'acquire' else 'http', '127.0.0.1', port)
        began = time.monotonic()
        with pytest.raises(TimeoutError), pool.connection(endpoint, 0.3 if step == 'acquire' else PATIENCE) as conn:
            ask(conn, 'mine')
        assert time.monotonic() - began < (0.3 if step == 'acquire' else 0.5) + 0.5
        assert pool.get_size() == 0
        pool.close()


def test_a_response_that_comes_byte_by_byte_takes_its_time() -> None:
    # What docs/drivers/http.md promises: the limit applies to each wait.
    def serve() -> None:
        with listener.accept()[0] as conn:
            conn.recv(10_000)
            for byte in b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok':
                conn.sendall(bytes([byte]))
                time.sleep(0.02)

    with tcp_listener() as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        manager = HttpConnectionManager(timeout=0.5)
        endpoint = f'http://127.0.0.1:{listener.getsockname()[1]}'
        conn = manager.create(endpoint)
        began = time.monotonic()
        assert ask(conn, 'mine') == b'ok'
        assert time.monotonic() - began > 0.5
        manager.dispose(endpoint, conn)
        thread.join(PATIENCE)


def test_the_recipe_many_times_on_one_connection(server: Server) -> None:
    # The limit in docs/drivers/http.md.
    pool = ConnectionPool[HttpEndpoint, Connection](HttpConnectionManager(timeout=PATIENCE), max_size=1)
    for _ in range(25):
        with pool.connection(server.url) as conn:
            words = uuid.uuid4().hex
            conn.request('POST', '/', words.encode())
            response = conn.getresponse()
            assert response.read() == words.encode()
            assert response.status == 200
    assert server.accepted == 1
    pool.close()


def test_one_server_in_several_spellings_has_one_connection(server: Server) -> None:
    port = server.server_port
    pool = ConnectionPool[HttpEndpoint, Connection](HttpConnectionManager(timeout=PATIENCE), max_size=1)
    spellings: list[HttpEndpoint] = [
        f'http://localhost:{port}',
        f'HTTP://LOCALHOST:{port}/',
        ('http', 'LocalHost', port),
        ('HTTP', 'LOCALHOST', port),
    ]
    for endpoint in spellings * 3:
        with pool.connection(endpoint) as conn:
            assert ask(conn, 'mine') == b'mine'
    assert server.accepted == 1
    assert pool.get_size() == 1
    pool.close()
