"""The kinds of connections for threads, each to a test server, which is addressed by host name."""

import importlib
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tests.contrib.mariadb import MariadbServer
from tests.contrib.redis_server import RedisServer
from tests.contrib.servers import PATIENCE, EchoServer, PostgresServer

HOST = 'localhost'

# A manager, an endpoint, and a use of the connection that gives its release something to do.
Kind = tuple[Any, Any, Callable[[Any], None]]

# Prefixes of the names of the servers' threads.
SERVERS = ('echo-', 'http-')


def of_driver(request: pytest.FixtureRequest, make: Callable[..., Kind], **parameters: Any) -> Kind:
    """Call one of the functions below, or skip the test if its driver is not installed."""
    if make in (psycopg, psycopg2, pymysql, redis):
        pytest.importorskip(make.__name__)
    return make(request, **parameters)


def use_database(conn: Any) -> None:
    """In a transaction that is left open."""
    cursor = conn.cursor()
    cursor.execute('SELECT 6 * 7')
    assert cursor.fetchone() == (42,)
    cursor.close()


def psycopg(request: pytest.FixtureRequest, **parameters: Any) -> Kind:
    module = importlib.import_module('gcpool.contrib.psycopg')
    server: PostgresServer = request.getfixturevalue('postgres')
    return module.ConnectionManager({'db': {**server.conninfo_params, 'host': HOST}}, **parameters), 'db', use_database


def psycopg2(request: pytest.FixtureRequest, **parameters: Any) -> Kind:
    module = importlib.import_module('gcpool.contrib.psycopg2')
    server: PostgresServer = request.getfixturevalue('postgres')
    return module.DbConnectionManager({'db': {**server.dsn_params, 'host': HOST}}, **parameters), 'db', use_database


def pymysql(request: pytest.FixtureRequest, **parameters: Any) -> Kind:
    module = importlib.import_module('gcpool.contrib.pymysql')
    server: MariadbServer = request.getfixturevalue('mariadb')
    return module.DbConnectionManager({'db': {**server.params, 'host': HOST}}, **parameters), 'db', use_database


def redis(request: pytest.FixtureRequest, **parameters: Any) -> Kind:
    module = importlib.import_module('gcpool.contrib.redis')
    server: RedisServer = request.getfixturevalue('redis_server')

    def use(conn: Any) -> None:
        conn.send_command('ECHO', 'hello')
        assert conn.read_response() in (b'hello', 'hello')

    return module.RedisConnectionManager({'db': server.url.replace('127.0.0.1', HOST)}, **parameters), 'db', use


def http(request: pytest.FixtureRequest) -> Kind:
    module = importlib.import_module('gcpool.contrib.http')

    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_request(self, code: int | str = '-', size: int | str = '-') -> None:
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

    return module.HttpConnectionManager(), f'http://{HOST}:{server.server_port}', use


def use_socket(sock: Any) -> None:
    sock.settimeout(PATIENCE)
    sock.sendall(b'hello')
    assert sock.recv(100) == b'hello'


def tcp(request: pytest.FixtureRequest) -> Kind:
    module = importlib.import_module('gcpool.contrib.socket')
    server: EchoServer = request.getfixturevalue('tcp4_server')
    return module.TcpSocketConnectionManager(), (ip_address('127.0.0.1'), server.port), use_socket


def tls(request: pytest.FixtureRequest) -> Kind:
    module = importlib.import_module('gcpool.contrib.socket')
    server: EchoServer = request.getfixturevalue('tls_server')
    context: ssl.SSLContext = request.getfixturevalue('client_tls')
    return module.SslSocketConnectionManager(context), (HOST, server.port), use_socket


def unix(request: pytest.FixtureRequest) -> Kind:
    module = importlib.import_module('gcpool.contrib.unix')
    server: EchoServer = request.getfixturevalue('unix_server')
    return module.UnixSocketConnectionManager(), Path(server.listener.getsockname()), use_socket
