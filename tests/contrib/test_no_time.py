"""An acquire that may not wait, on pools whose checks ask the server: a healthy idle connection is served."""

import contextlib
import importlib
from typing import Any

import pytest

from gcpool.contrib._sockets import time_to_answer
from gcpool.threading import ConnectionPool
from tests.contrib.mariadb import MariadbServer
from tests.contrib.redis_server import RedisServer
from tests.contrib.servers import PATIENCE, PostgresServer


@pytest.fixture(params=['psycopg', 'psycopg2', 'pymysql', 'redis'])
def manager(request: pytest.FixtureRequest) -> Any:
    """A manager for threads that sends a ping at each check of ``db``."""
    pytest.importorskip(request.param)
    module = importlib.import_module(f'gcpool.contrib.{request.param}')
    if request.param == 'psycopg':
        postgres: PostgresServer = request.getfixturevalue('postgres')
        return module.ConnectionManager({'db': postgres.dsn}, ping=True)
    if request.param == 'psycopg2':
        return module.DbConnectionManager({'db': request.getfixturevalue('postgres').dsn_params}, ping=True)
    if request.param == 'pymysql':
        mariadb: MariadbServer = request.getfixturevalue('mariadb')
        return module.DbConnectionManager({'db': mariadb.params}, ping=True)
    redis_server: RedisServer = request.getfixturevalue('redis_server')
    return module.RedisConnectionManager({'db': redis_server.url}, ping=True)


def test_a_server_has_a_moment_to_answer(manager: Any) -> None:
    with contextlib.closing(ConnectionPool[Any, Any](manager, max_size=1)) as pool:
        conn = pool.acquire('db', timeout=PATIENCE)
        pool.release(conn, 'db')
        told = []
        check = manager.check_aliveness

        def note(endpoint: str, conn: Any, timeout: float | None = None) -> bool:
            told.append(timeout)
            # Without a limit: this machine may be busy.
            return bool(check(endpoint, conn, PATIENCE if time_to_answer(timeout) == 0.05 else timeout))

        manager.check_aliveness = note
        assert pool.acquire('db', timeout=0) is conn
        assert told == [0]
        pool.release(conn, 'db')
