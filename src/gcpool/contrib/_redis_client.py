# redis-py has type hints for half of its methods.
# mypy: allow-untyped-calls
"""redis-py's clients on one connection, each valid until the connection is returned."""

import weakref
from typing import Any, cast

import redis
import redis.asyncio
from redis.maint_notifications import MaintNotificationsConfig

from gcpool.contrib._redis_asyncio import AsyncPooledConnection
from gcpool.contrib._redis_session import Session
from gcpool.contrib._redis_threads import PooledConnection

__all__ = ['async_client_of', 'async_pooled', 'client_of', 'pooled']


def pooled(conn: PooledConnection) -> PooledConnection:
    """Return a connection, if the manager of this package created it.

    :raise TypeError: the manager did not create it
    """
    if not isinstance(conn, PooledConnection):
        raise TypeError(f'{conn!r} was not made by RedisConnectionManager')
    return conn


def async_pooled(conn: AsyncPooledConnection) -> AsyncPooledConnection:
    """Return a connection for asyncio, likewise."""
    if not isinstance(conn, AsyncPooledConnection):
        raise TypeError(f'{conn!r} was not made by AsyncRedisConnectionManager')
    return conn


class _OneConnection(redis.ConnectionPool):
    """Serves as the pool of a redis-py client."""

    def __init__(self, conn: PooledConnection) -> None:
        super().__init__(
            connection_class=type(conn),
            max_connections=1,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **conn.parameters,
        )
        self._conn = weakref.ref(conn)
        self.is_lent = self.is_given_back = False

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        conn = self._conn()
        _check_that_it_may_be_lent(conn, self)
        self.is_lent = True
        return conn

    def release(self, connection: Any) -> None:
        self.is_lent = False

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Keep the connection: it belongs to its pool."""


class _OneAsyncConnection(redis.asyncio.ConnectionPool):
    """Serves as the pool of a redis-py client for asyncio."""

    def __init__(self, conn: AsyncPooledConnection) -> None:
        super().__init__(connection_class=type(conn), max_connections=1, **conn.parameters)
        self._conn = weakref.ref(conn)
        self.is_lent = self.is_given_back = False

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        conn = self._conn()
        _check_that_it_may_be_lent(conn, self)
        self.is_lent = True
        return conn

    async def release(self, connection: Any) -> None:
        self.is_lent = False

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Keep the connection: it belongs to its pool."""


def _check_that_it_may_be_lent(conn: Session | None, lender: _OneConnection | _OneAsyncConnection) -> None:
    if conn is None:
        raise redis.ConnectionError('the connection was closed by its pool')
    if lender.is_given_back:
        raise redis.ConnectionError('the connection was returned to its pool, and this client with it')
    if lender.is_lent:
        raise redis.MaxConnectionsError(
            'this client has one connection, which its pipeline with WATCH or its pubsub holds: use them one at a time'
        )


def client_of(conn: PooledConnection) -> redis.Redis:
    """Return a client of redis-py that uses this one connection.

    ``client_of(conn).get('key')``. Use the client while the connection is acquired, in one thread. Pipelines work. A
    pubsub works too, but makes the connection unfit. Closing the client is not needed and does nothing.

    :param conn: a connection created by :py:class:`gcpool.contrib.redis.RedisConnectionManager`
    :return: the same client each time, until the connection is returned; after that the client raises
        ``redis.ConnectionError``
    """
    return cast('redis.Redis', pooled(conn).client(redis.Redis, _OneConnection))


def async_client_of(conn: AsyncPooledConnection) -> redis.asyncio.Redis:
    """Return a client of redis-py for asyncio that uses this one connection.

    ``await async_client_of(conn).get('key')``. Use the client while the connection is acquired, in one task at a time.
    Pipelines work. A pubsub works too, but makes the connection unfit. Closing the client is not needed and does
    nothing.

    :param conn: a connection created by :py:class:`gcpool.contrib.redis.AsyncRedisConnectionManager`
    :return: the same client each time, until the connection is returned; after that the client raises
        ``redis.ConnectionError``
    """
    return cast('redis.asyncio.Redis', async_pooled(conn).client(redis.asyncio.Redis, _OneAsyncConnection))
