"""Parameters that a driver rejects: a typed error that names the endpoint, whatever the driver raises."""

import importlib
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from gcpool import asyncio as for_asyncio
from gcpool import threading as for_threads
from gcpool.exceptions import ConnectError
from tests.contrib import servers
from tests.contrib.conftest import Run

PASSWORD = 'not-a-secret'

# For each module: its managers (for threads, for asyncio), and its name for the database's parameter.
MANAGERS = {
    'psycopg': ('ConnectionManager', 'AsyncConnectionManager', 'dbname'),
    'psycopg2': ('DbConnectionManager', None, 'dbname'),
    'asyncpg': (None, 'DbConnectionManager', 'database'),
    'pymysql': ('DbConnectionManager', None, 'database'),
    'asyncmy': (None, 'DbConnectionManager', 'database'),
    'redis': ('RedisConnectionManager', 'AsyncRedisConnectionManager', 'db'),
}

BAD: dict[str, dict[str, Any]] = {
    'unknown parameter': {'hots': 'x'},
    'empty label': {'host': 'a..b'},
    'long label': {'host': 'x' * 70 + '.invalid'},
    'port out of range': {'port': 65536},
    'no port': {'port': 'http'},
}


@pytest.fixture
def closed_port() -> Iterator[int]:
    with servers.closed_port() as port:
        yield port


def manager_of(driver: str, index: int, params: dict[str, Any] | str) -> Any:
    pytest.importorskip(driver)
    module = importlib.import_module(f'gcpool.contrib.{driver}')
    return getattr(module, str(MANAGERS[driver][index]))({'db': params})


def parameters(driver: str, port: int, bad: dict[str, Any]) -> dict[str, Any]:
    user = 'username' if driver == 'redis' else 'user'
    return {'host': '127.0.0.1', 'port': port, user: 'gcpool', 'password': PASSWORD, MANAGERS[driver][2]: 0, **bad}


def check(exc: ConnectError) -> None:
    assert exc.endpoint == 'db'
    assert "endpoint 'db'" in str(exc)
    assert exc.__cause__ is not None
    # What a traceback shows, and everything that the errors refer to.
    for error in (exc, exc.__cause__):
        assert PASSWORD not in repr(error)
    assert PASSWORD not in ''.join(traceback.format_exception(exc))


RUNS = [(driver, index) for driver, names in MANAGERS.items() for index in (0, 1) if names[index] is not None]


@pytest.mark.parametrize('bad', BAD)
@pytest.mark.parametrize(('driver', 'index'), RUNS)
def test_names_the_endpoint(run: Run, closed_port: int, driver: str, index: int, bad: str) -> None:
    check(failure(run, manager_of(driver, index, parameters(driver, closed_port, BAD[bad]))))


@pytest.mark.parametrize(('driver', 'index'), RUNS)
def test_shows_no_password_that_cannot_be_encoded(run: Run, closed_port: int, driver: str, index: int) -> None:
    params = parameters(driver, closed_port, {'password': PASSWORD + '\udcff'})
    check(failure(run, manager_of(driver, index, params)))


@pytest.mark.parametrize('password', ['@not-a-secret', 'not-a-secret/', 'x@not-a-secret'])
@pytest.mark.parametrize(('driver', 'index'), [run for run in RUNS if run[0] in ('psycopg', 'psycopg2', 'asyncpg')])
def test_shows_no_password_that_was_not_escaped(
    run: Run, closed_port: int, driver: str, index: int, password: str
) -> None:
    dsn = f'postgresql://gcpool:{password}@127.0.0.1:{closed_port}/db'
    check(failure(run, manager_of(driver, index, dsn)))


def failure(run: Run, manager: Any) -> ConnectError:
    """What acquiring a connection raises, leaving nothing behind."""
    if isinstance(manager, for_asyncio.BaseConnectionManager):

        async def main() -> ConnectError:
            pool = for_asyncio.ConnectionPool[str, Any](manager)
            with pytest.raises(ConnectError) as caught:
                await pool.acquire('db', timeout=20.0)
            assert pool.get_size() == 0
            await pool.close()
            return caught.value

        return run(main)
    pool = for_threads.ConnectionPool[str, Any](manager)
    with pytest.raises(ConnectError) as caught:
        pool.acquire('db', timeout=20.0)
    assert pool.get_size() == 0
    pool.close()
    return caught.value
