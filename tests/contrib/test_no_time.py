"""An acquire that may not wait, on pools whose checks ask the server: a good connection is not thrown away for that."""

import contextlib
import importlib
from typing import Any

import pytest

from gcpool.threading import ConnectionPool
from tests.contrib.mariadb import MariadbServer
from tests.contrib.redis_server import RedisServer
from tests.contrib.servers import PATIENCE, PostgresServer


@pytest.fixture(params=['psycopg', 'psycopg2', 'pymysql', 'redis'])
def manager(request: pytest.FixtureRequest) -> Any:
    """A manager for threads that sends a ping at each check, of ``db``."""
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


def test_there_is_no_time_to_ask_and_the_connection_stays(manager: Any) -> None:
    with contextlib.closing(ConnectionPool[Any, Any](manager, max_size=1)) as pool:
        conn = pool.acquire('db', timeout=PATIENCE)
        pool.release(conn, 'db')
        with pytest.raises(TimeoutError, match="no time is left to ask whether a connection to 'db' is alive"):
            pool.acquire('db', timeout=0)
        assert pool.get_stats()['dead'] == 0
        assert pool.acquire('db', timeout=PATIENCE) is conn
        pool.release(conn, 'db')
