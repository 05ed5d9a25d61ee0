"""No thread can be started (a limit of the container, or of the system): healthy connections are served and kept."""

import contextlib
import importlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gcpool.contrib import _watchdog
from gcpool.threading import ConnectionPool
from tests.contrib.mariadb import MariadbServer
from tests.contrib.redis_server import RedisServer
from tests.contrib.servers import PATIENCE, EchoServer, PostgresServer

# A manager, an endpoint, and how a connection is used so that its release has something to do.
Case = tuple[Any, Any, Callable[[Any], None]]

# Threads of the tests' own servers.
SERVERS = ('echo-', 'http-')


def use_database(conn: Any) -> None:
    """In a transaction that is left open."""
    cursor = conn.cursor()
    cursor.execute('SELECT 6 * 7')
    assert cursor.fetchone() == (42,)
    cursor.close()


def psycopg(request: pytest.FixtureRequest, **parameters: Any) -> Case:
    module = importlib.import_module('gcpool.contrib.psycopg')
    server: PostgresServer = request.getfixturevalue('postgres')
    return module.ConnectionManager({'db': server.dsn}, **parameters), 'db', use_database


def psycopg2(request: pytest.FixtureRequest, **parameters: Any) -> Case:
    module = importlib.import_module('gcpool.contrib.psycopg2')
    server: PostgresServer = request.getfixturevalue('postgres')
    return module.DbConnectionManager({'db': server.dsn_params}, **parameters), 'db', use_database


def pymysql(request: pytest.FixtureRequest, **parameters: Any) -> Case:
    module = importlib.import_module('gcpool.contrib.pymysql')
    server: MariadbServer = request.getfixturevalue('mariadb')
    return module.DbConnectionManager({'db': {**server.params, 'host': 'localhost'}}, **parameters), 'db', use_database


def redis(request: pytest.FixtureRequest, **parameters: Any) -> Case:
    module = importlib.import_module('gcpool.contrib.redis')
    server: RedisServer = request.getfixturevalue('redis_server')

    def use(conn: Any) -> None:
        conn.send_command('ECHO', 'hello')
        assert conn.read_response() in (b'hello', 'hello')

    return module.RedisConnectionManager({'db': server.url}, **parameters), 'db', use


def http(request: pytest.FixtureRequest) -> Case:
    module = importlib.import_module('gcpool.contrib.http')

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def process_request(self, request: Any, client_address: Any) -> None:
            arguments = (request, client_address)
            threading.Thread(
                target=self.process_request_thread, args=arguments, name='http-handler', daemon=True
            ).start()

    server = Server(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name='http-server', daemon=True)

    def stop() -> None:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()

    thread.start()
    request.addfinalizer(stop)

    def use(conn: Any) -> None:
        conn.request('GET', '/')
        assert conn.getresponse().read() == b''

    return module.HttpConnectionManager(), f'http://localhost:{server.server_port}', use


def use_socket(sock: Any) -> None:
    sock.settimeout(PATIENCE)
    sock.sendall(b'hello')
    assert sock.recv(100) == b'hello'


def tcp(request: pytest.FixtureRequest) -> Case:
    module = importlib.import_module('gcpool.contrib.socket')
    server: EchoServer = request.getfixturevalue('tcp4_server')
    return module.TcpSocketConnectionManager(), (ip_address('127.0.0.1'), server.port), use_socket


def tls(request: pytest.FixtureRequest) -> Case:
    module = importlib.import_module('gcpool.contrib.socket')
    server: EchoServer = request.getfixturevalue('tls_server')
    context: ssl.SSLContext = request.getfixturevalue('client_tls')
    return module.SslSocketConnectionManager(context), ('localhost', server.port), use_socket


def unix(request: pytest.FixtureRequest) -> Case:
    module = importlib.import_module('gcpool.contrib.unix')
    server: EchoServer = request.getfixturevalue('unix_server')
    return module.UnixSocketConnectionManager(), Path(server.listener.getsockname()), use_socket


CASES = [
    *((kind, {}) for kind in (tcp, tls, http)),
    *([(unix, {})] if hasattr(socket, 'AF_UNIX') else []),
    *((kind, parameters) for kind in (pymysql, redis) for parameters in ({}, {'ping': True})),
    *(
        (kind, parameters)
        for kind in (psycopg, psycopg2)
        for parameters in ({}, {'ping': True}, {'rollback_timeout': 10.0}, {'ping': True, 'rollback_timeout': 10.0})
    ),
]


@contextlib.contextmanager
def no_thread_can_be_started() -> Iterator[list[str]]:
    """Refuse all but the servers of the tests; gives the names of those that were refused."""
    refused = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith(SERVERS):
            start(thread)
            return
        refused.append(thread.name)
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, 'start', refuse)
        # A watchdog that is there already would do.
        patch.setattr(_watchdog._Watchdog, '_current', None)
        yield refused


@pytest.mark.parametrize(
    ('kind', 'parameters'), CASES, ids=[' '.join((kind.__name__, *parameters)) for kind, parameters in CASES]
)
def test_healthy_connections_are_served_and_kept(
    request: pytest.FixtureRequest, kind: Callable[..., Case], parameters: dict[str, Any]
) -> None:
    if kind.__name__ in ('psycopg', 'psycopg2', 'pymysql', 'redis'):
        pytest.importorskip(kind.__name__)
    manager, endpoint, use = kind(request, **parameters)
    with no_thread_can_be_started():
        pool = ConnectionPool[Any, Any](manager, max_size=1, acquire_timeout=PATIENCE, check_timeout=PATIENCE)
        first = pool.acquire(endpoint)
        pool.release(first, endpoint)
        for _ in range(3):
            with pool.connection(endpoint) as conn:
                assert conn is first
                use(conn)
        stats = pool.get_stats()
        assert (stats['created'], stats['disposed'], stats['dead']) == (1, 0, 0)
        pool.close()


def test_a_name_is_resolved_in_the_thread_that_asks(request: pytest.FixtureRequest) -> None:
    manager, endpoint, use = tls(request)
    with no_thread_can_be_started() as refused:
        sock = manager.create(endpoint, PATIENCE)
    assert len(refused) == 1
    use(sock)
    manager.dispose(endpoint, sock)
