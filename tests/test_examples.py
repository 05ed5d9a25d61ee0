"""Every program under examples/ runs, warns of nothing and prints what it should."""

import ftplib
import importlib.util
import os
import re
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gcpool.threading import ConnectionPool
from tests.contrib.mariadb import MariadbServer, running_mariadb
from tests.contrib.redis_server import RedisServer, running_redis
from tests.contrib.servers import PATIENCE, PostgresServer, running_postgres, tcp_listener
from tests.pages import ROOT, blocks_of

EXAMPLES = Path(__file__).resolve().parents[1] / 'examples'

EXPECTED = {
    'aiosqlite_pool': r'ann: 800\nbob: 200\nacquired: 203\nconnections created, at most 4: [1234]\n',
    'async_pg_pool': r'rows and sum: \(100, 4950\)\nacquired: 102\nconnections created, at most 3: [123]\n',
    'async_pool': r'right answers: 100\nacquired: 100\nconnections created, at most 3: [123]\n',
    'async_psycopg_pool': (
        r'sum of squares: 328350\ntimed out\nsix times six: 36\nacquired: 102\nconnections left: 0\n'
    ),
    'async_redis_pool': (
        r"counted: b'100'\nnothing came\nb'my own reply'\nacquired: 103\nconnections created, at most 4: [234]\n"
    ),
    'async_stream_pool': r'lengths: \[3, 10, 2, 6, 3, 3, 2, 4\]\ntimed out: .+\nlength afterwards: 11\n',
    'async_unix_pool': r'THE SAME CONNECTION\nSERVES ONE AFTER THE OTHER\nconnections created: 1\n',
    'asyncmy_pool': (
        r'(connecting to primary\n){2,4}rows and sum: \(100, 4950\)\nacquired: 104\n'
        r'connections created, at most 4: [234]\n'
    ),
    'callables_pool': r'notes: 100\nconnections created, at most 4: [1234]\n',
    'custom_manager': (
        r'set: OK\nget: 42\nconnections created: 1\n'
        r'abandoned: timed out\nget: 42\nconnections created: 2\n'
        r'refused: wrong password\nconnections in the pool: 0\n'
    ),
    'detach_pool': r'time: noon\ntime: noon\nnews 1\nnews 2\nnews 3\ncreated, detached, closed: 2 1 1\n',
    'django_pg_pool': r'rows and sum: 100 4950\nrequests: 101\nconnections created, at most 4: [234]\n',
    'failover': (
        r'a request that began before: old server\nconnection 1 to the old server is closed\n'
        r'a request that waited: new server\nconnection 2 to the new server is closed\n'
    ),
    'graceful_shutdown': (r'still in use: 1\na new request is refused\nthe request is finished\nconnections left: 0\n'),
    'gevent_pool': (
        r'right answers: 100\nacquired: 105\nstill in use or waiting: 0\nconnections created, at most 5: [12345]\n'
    ),
    'http_pool': (r"right answers: 100\nconnections created, at most 3: [123]\nb'/half'\nnext answer is right: True\n"),
    'manager_hooks': (
        r'acquired: 3\ncreated: 2\ndisposed: 2\nfound dead: 1\nreleased: 3\nin use for some time: True\n'
    ),
    'pg_pool': r'rows and sum: \(100, 4950\)\nacquired: 103\nconnections created, at most 3: [123]\n',
    'prometheus_hooks': (
        r'gcpool_connect_seconds_count{endpoint="HOST:PORT"} 2\.0\n'
        r'gcpool_created_total{endpoint="HOST:PORT"} 2\.0\n'
        r'gcpool_disposed_total{endpoint="HOST:PORT"} 1\.0\n'
        r'gcpool_dead_total{endpoint="HOST:PORT"} 1\.0\n'
        r'gcpool_in_use{endpoint="HOST:PORT"} 1\.0\n'
        r'gcpool_pool_connections{pool="echo",state="idle"} 0\.0\n'
        r'gcpool_pool_connections{pool="echo",state="in_use"} 1\.0\n'
        r'(gcpool_pool_connections{pool="echo",state="\w+"} 0\.0\n){3}'
        r'gcpool_pool_max_connections{pool="echo"} 100\.0\n'
        r'gcpool_pool_waiting{pool="echo"} 0\.0\n'
        r'gcpool_pool_acquires_total{pool="echo"} 4\.0\n'
        r'(gcpool_pool_(timeouts|create_errors|leaks)_total{pool="echo"} 0\.0\n){3}'
        r'(gcpool_pool_closed_total{pool="echo",reason="\w+"} [01]\.0\n)+'
        r'gcpool_pool_acquire_wait_seconds_count{pool="echo"} 0\.0\n'
        r'gcpool_pool_create_seconds_count{pool="echo"} 2\.0\n'
        r'gcpool_pool_use_seconds_count{pool="echo"} 3\.0\n'
        r'in use after the end: 0\.0\n'
    ),
    'from_psycopg_pool': (r'rows and sum: \(100, 4950\)\nrequests: 102\nconnections created, at most 4: [234]\n'),
    'psycopg_pool': r'rows and sum: \(100, 4950\)\nacquired: 103\nconnections created, at most 3: [123]\n',
    'pymysql_pool': r'rows and sum: \(100, 4950\)\nacquired: 103\nconnections created, at most 3: [123]\n',
    'redis_pool': (
        r"counted and deleted: \[b'100', 1\]\nb'my own reply'\nacquired: 103\nconnections created, at most 4: [234]\n"
    ),
    'restart': (
        r'before: 20\nalarm: 127\.0\.0\.1 is away, ConnectError; waiting: \d+\ntimed out because of: ConnectError\n'
        r'during the restart: 20\nthey have waited for it: True\n'
    ),
    'sqlalchemy_pool': r'ann: 800\nbob: 200\nin use at the end: 0\nann has again: 900\n',
    'sqlite_pool': r'ann: 800\nbob: 200\nacquired: 203\nconnections created, at most 4: [1234]\n',
    'ssl_pool': (
        r'answer: hello\nprotocol: TLSv1\.[23]\nanother connection: True\nanswer: hello again\nfound dead: 1\n'
    ),
    'statsd_stats': (
        r'gcpool\.orders\.idle:1\|g\ngcpool\.orders\.in_use:0\|g\ngcpool\.orders\.waiting:0\|g\n'
        r'gcpool\.orders\.total_max_size:100\|g\ngcpool\.orders\.acquires:3\|c\ngcpool\.orders\.created:1\|c\n'
        r'counted again: False\n'
    ),
    'tcp_pool': r'right answers: 100\nacquired: 100\nconnections created, at most 2: [12]\n',
    'unix_pool': r'THE SAME CONNECTION\nSERVES ONE AFTER THE OTHER\nconnections created: 1\n',
    'warm_start': (
        r'idle before the first request: 4\nright answers: 200\nconnections created, 4 to 20: True\n'
        r'idle at the end, at least 4: True\n'
    ),
}
NEEDS = {
    'aiosqlite_pool': 'aiosqlite',
    'async_pg_pool': 'asyncpg',
    'async_psycopg_pool': 'psycopg',
    'async_redis_pool': 'redis',
    'asyncmy_pool': 'asyncmy',
    'django_pg_pool': 'django',
    'from_psycopg_pool': 'psycopg',
    'gevent_pool': 'gevent',
    'pg_pool': 'psycopg2',
    'prometheus_hooks': 'prometheus_client',
    'psycopg_pool': 'psycopg',
    'pymysql_pool': 'pymysql',
    'redis_pool': 'redis',
    'sqlalchemy_pool': 'sqlalchemy',
    'ssl_pool': 'trustme',
}
# Run by tests/test_services.py: others ask them for something.
SERVICES = {
    *('celery_fork', 'fastapi_metrics', 'fastapi_service', 'flask_service', 'gunicorn_metrics', 'gunicorn_preload'),
}


@pytest.fixture(scope='module')
def postgres() -> Iterator[PostgresServer]:
    """The server for the examples that need one."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope='module')
def mariadb() -> Iterator[MariadbServer]:
    """The server for the examples that need one."""
    with running_mariadb() as server:
        yield server


@pytest.fixture(scope='module')
def redis_server() -> Iterator[RedisServer]:
    """The server for the examples that need one."""
    with running_redis() as server:
        yield server


def test_every_example_is_listed() -> None:
    assert {path.stem for path in EXAMPLES.glob('*.py')} == set(EXPECTED) | SERVICES


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=pytest.mark.postgres if 'pg' in name else ()) for name in EXPECTED],
)
def test_example(name: str, request: pytest.FixtureRequest) -> None:
    if 'unix' in name and not hasattr(socket, 'AF_UNIX'):
        pytest.skip('Python has no Unix domain sockets on this system')
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f'{NEEDS[name]} is not installed')
    environment = dict(os.environ)
    if 'pg' in name:
        environment['GCPOOL_EXAMPLE_DSN'] = request.getfixturevalue('postgres').dsn
    if name in {'asyncmy_pool', 'pymysql_pool'}:
        environment['GCPOOL_EXAMPLE_MYSQL'] = request.getfixturevalue('mariadb').url
    if 'redis' in name:
        environment['GCPOOL_EXAMPLE_REDIS'] = request.getfixturevalue('redis_server').url

    result = subprocess.run(
        [sys.executable, '-W', 'error', str(EXAMPLES / f'{name}.py')],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )

    assert (result.returncode, result.stderr) == (0, '')
    assert re.fullmatch(EXPECTED[name], result.stdout), result.stdout


# ---------------------------------------------------------------------------------------------------------------------
# The managers of one's own that are shown, when an acquire leaves them no time
# ---------------------------------------------------------------------------------------------------------------------


def shown_on(page: str, name: str, alone: bool = False) -> dict[str, Any]:
    """What the blocks of a page define, up to the one that defines ``name``; of that one only the definitions.

    :param page: where
    :param name: a class
    :param alone: whether the block needs none of those before it
    """
    namespace: dict[str, Any] = {}
    for block in blocks_of((ROOT / page).read_text(encoding='utf-8')):
        if block.language == 'python' and (name in block.code or not alone):
            exec(block.code.partition('\n\n\npool = ')[0], namespace)
        if name in namespace:
            return namespace
    raise AssertionError(f'{page} does not define {name}')


def ftp_manager() -> Any:
    return shown_on('docs/managers.md', 'FtpConnectionManager', alone=True)['FtpConnectionManager']()


def line_manager() -> Any:
    return shown_on('docs/managers.md', 'LineConnectionManager')['LineConnectionManager']()


def store_manager() -> Any:
    spec = importlib.util.spec_from_file_location('custom_manager', EXAMPLES / 'custom_manager.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.StoreConnectionManager('open-sesame')


class Answers(socketserver.StreamRequestHandler):
    """What all three protocols take for an answer: of a store, of an FTP server (which speaks first), of any line."""

    def handle(self) -> None:
        if self.server.speaks_first:  # type: ignore[attr-defined]
            self.wfile.write(b'220 welcome\r\n')
        for line in self.rfile:
            words = line.split()
            self.wfile.write({b'AUTH': b'OK\n', b'PING': b'PONG\n'}.get(words[0], b'200 well\r\n'))


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    speaks_first = False


@contextmanager
def answering(manager: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server for a manager; gives the endpoint."""
    with Server(('127.0.0.1', 0), Answers) as server:
        server.speaks_first = type(manager).__name__ == 'FtpConnectionManager'
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True)
        thread.start()
        try:
            yield endpoint_on(server.server_address[1], manager, monkeypatch)
        finally:
            server.shutdown()
            thread.join(PATIENCE)


@contextmanager
def pool_of(manager: Any) -> Iterator[ConnectionPool[Any, Any]]:
    """A pool that is closed at the end, also over a connection that a failed test has out."""
    pool = ConnectionPool[Any, Any](manager)
    try:
        yield pool
    finally:
        pool.close(0.0)


def endpoint_on(port: int, manager: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    if type(manager).__name__ != 'FtpConnectionManager':
        return '127.0.0.1', port
    monkeypatch.setattr(ftplib.FTP, 'port', port)
    return '127.0.0.1'


def timeout_of(conn: Any) -> float | None:
    sock: socket.socket = getattr(conn, 'sock', None) or conn._sock
    return sock.gettimeout()


SHOWN = [ftp_manager, line_manager, store_manager]


@pytest.mark.parametrize('make', SHOWN)
def test_without_time_a_manager_connects_or_times_out(make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make()
    with answering(manager, monkeypatch) as endpoint, pool_of(manager) as pool:
        try:
            conn = pool.acquire(endpoint, timeout=0)
        except TimeoutError:
            assert pool.get_size() == 0
        else:
            pool.release(conn, endpoint)
        with pool.connection(endpoint, timeout=PATIENCE):
            assert pool.get_size() == 1


@pytest.mark.parametrize('make', [ftp_manager, store_manager])
def test_without_time_a_manager_does_not_wait_for_an_answer(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make()
    with tcp_listener() as listener, pool_of(manager) as pool:
        endpoint = endpoint_on(listener.getsockname()[1], manager, monkeypatch)
        with pytest.raises(TimeoutError):
            pool.acquire(endpoint, timeout=0)
        assert pool.get_size() == 0
        listener.settimeout(PATIENCE)
        with listener.accept()[0] as conn:
            conn.settimeout(PATIENCE)
            while conn.recv(1024):
                pass


@pytest.mark.parametrize('make', [ftp_manager, store_manager])
def test_without_time_a_manager_holds_nothing_against_a_connection(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make()
    with answering(manager, monkeypatch) as endpoint, pool_of(manager) as pool:
        with pool.connection(endpoint, timeout=PATIENCE) as first:
            pass
        with pytest.raises(TimeoutError):
            pool.acquire(endpoint, timeout=0)
        assert pool.get_size() == 1
        with pool.connection(endpoint, timeout=PATIENCE) as second:
            assert second is first


@pytest.mark.parametrize('make', [ftp_manager, line_manager])
def test_what_is_left_of_the_acquire_does_not_become_the_timeout_of_the_connection(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make()
    with answering(manager, monkeypatch) as endpoint, pool_of(manager) as pool:
        # Made, and checked.
        for _ in range(2):
            with pool.connection(endpoint, timeout=PATIENCE - 1.0) as conn:
                assert timeout_of(conn) == 10.0
                assert getattr(conn, 'timeout', 10.0) == 10.0
        assert pool.get_stats()['created'] == 1


def test_an_ftp_connection_that_its_user_has_closed_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = ftp_manager()
    with answering(manager, monkeypatch) as endpoint, pool_of(manager) as pool:
        with pool.connection(endpoint, timeout=PATIENCE) as first:
            first.close()
        with pool.connection(endpoint, timeout=PATIENCE) as second:
            assert second is not first
            assert second.voidcmd('NOOP') == '200 well'
