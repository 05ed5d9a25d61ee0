"""Every program under examples/ runs, warns of nothing and prints what it should."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contrib.mariadb import MariadbServer, running_mariadb
from tests.contrib.redis_server import RedisServer, running_redis
from tests.contrib.servers import PostgresServer, running_postgres

EXAMPLES = Path(__file__).resolve().parents[1] / 'examples'

EXPECTED = {
    'aiosqlite_pool': r'ann: 800\nbob: 200\nacquired: 203\nconnections made, at most 4: [1234]\n',
    'async_pg_pool': r'rows and sum: \(100, 4950\)\nacquired: 102\nconnections made, at most 3: [123]\n',
    'async_pool': r'right answers: 100\nacquired: 100\nconnections made, at most 3: [123]\n',
    'async_psycopg_pool': (
        r'sum of squares: 328350\ntimed out\nsix times six: 36\nacquired: 102\nconnections left: 0\n'
    ),
    'async_redis_pool': (
        r"counted: b'100'\nnothing came\nb'my own reply'\nacquired: 103\nconnections made, at most 4: [234]\n"
    ),
    'async_stream_pool': r'lengths: \[3, 10, 2, 6, 3, 3, 2, 4\]\ntimed out: .+\nlength afterwards: 11\n',
    'async_unix_pool': r'THE SAME CONNECTION\nSERVES ONE AFTER THE OTHER\nconnections made: 1\n',
    'asyncmy_pool': (
        r'(connecting to primary\n){2,4}rows and sum: \(100, 4950\)\nacquired: 104\n'
        r'connections made, at most 4: [234]\n'
    ),
    'custom_manager': (
        r'set: OK\nget: 42\nconnections made: 1\n'
        r'given up: timed out\nget: 42\nconnections made: 2\n'
        r'refused: wrong password\nconnections in the pool: 0\n'
    ),
    'gevent_pool': (
        r'right answers: 100\nacquired: 105\nstill out or waiting: 0\nconnections made, at most 5: [12345]\n'
    ),
    'http_pool': (r"right answers: 100\nconnections made, at most 3: [123]\nb'/half'\nnext answer is right: True\n"),
    'manager_hooks': (
        r'acquired: 3\ncreated: 2\ndisposed: 2\nfound dead: 1\nreleased: 3\nin use for some time: True\n'
    ),
    'pg_pool': r'rows and sum: \(100, 4950\)\nacquired: 103\nconnections made, at most 3: [123]\n',
    'prometheus_hooks': (
        r'gcpool_connect_seconds_count{endpoint="HOST:PORT"} 2\.0\n'
        r'gcpool_created_total{endpoint="HOST:PORT"} 2\.0\n'
        r'gcpool_disposed_total{endpoint="HOST:PORT"} 1\.0\n'
        r'gcpool_dead_total{endpoint="HOST:PORT"} 1\.0\n'
        r'gcpool_in_use{endpoint="HOST:PORT"} 1\.0\n'
        r'gcpool_pool_size{pool="echo"} 1\.0\n'
        r'gcpool_pool_idle{pool="echo"} 0\.0\n'
        r'gcpool_pool_acquired{pool="echo"} 1\.0\n'
        r'gcpool_pool_waiting{pool="echo"} 0\.0\n'
        r'gcpool_pool_endpoints{pool="echo"} 1\.0\n'
        r'gcpool_pool_acquires_total{pool="echo"} 4\.0\n'
        r'(gcpool_pool_\w+_total{pool="echo"} [012]\.0\n)+'
        r'in use after the end: 0\.0\n'
    ),
    'psycopg_pool': r'rows and sum: \(100, 4950\)\nacquired: 103\nconnections made, at most 3: [123]\n',
    'pymysql_pool': r'rows and sum: \(100, 4950\)\nacquired: 103\nconnections made, at most 3: [123]\n',
    'redis_pool': (
        r"counted and deleted: \[b'100', 1\]\nb'my own reply'\nacquired: 103\nconnections made, at most 4: [234]\n"
    ),
    'sqlite_pool': r'ann: 800\nbob: 200\nacquired: 203\nconnections made, at most 4: [1234]\n',
    'ssl_pool': (
        r'answer: hello\nprotocol: TLSv1\.[23]\nanother connection: True\nanswer: hello again\nfound dead: 1\n'
    ),
    'tcp_pool': r'right answers: 100\nacquired: 100\nconnections made, at most 2: [12]\n',
    'unix_pool': r'THE SAME CONNECTION\nSERVES ONE AFTER THE OTHER\nconnections made: 1\n',
}
NEEDS = {
    'aiosqlite_pool': 'aiosqlite',
    'async_pg_pool': 'asyncpg',
    'async_psycopg_pool': 'psycopg',
    'async_redis_pool': 'redis',
    'asyncmy_pool': 'asyncmy',
    'gevent_pool': 'gevent',
    'pg_pool': 'psycopg2',
    'prometheus_hooks': 'prometheus_client',
    'psycopg_pool': 'psycopg',
    'pymysql_pool': 'pymysql',
    'redis_pool': 'redis',
    'ssl_pool': 'trustme',
}
# Run by tests/test_services.py: others ask them for something.
SERVICES = {'celery_fork', 'fastapi_service', 'flask_service', 'gunicorn_preload'}


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
    if 'my' in name:
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
