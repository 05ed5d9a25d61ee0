"""The pools for asyncio that are compared on real servers: the counterpart of ``servers_threads``."""

import abc
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from importlib import import_module
from time import perf_counter_ns
from typing import Any, ClassVar

from .noop import ENDPOINT
from .servers_subjects import CountedPool

__all__ = [
    'AsyncPg',
    'AsyncPgWithoutReset',
    'DropIn',
    'GcPool',
    'GenericConnectionPool',
    'PsycopgPool',
    'RedisBlockingPool',
    'RedisPool',
    'Subject',
    'asyncpg_subjects',
    'fetch',
    'psycopg_subjects',
    'redis_get',
    'redis_subjects',
    'select',
    'serve',
]


class Subject(CountedPool, abc.ABC):
    """A pool that can be opened, closed, and asked for connections."""

    @abc.abstractmethod
    async def open(self) -> None:
        """Import the library and build the pool."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the pool and all it holds."""

    @abc.abstractmethod
    def connection(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """Take a connection, waiting for it, and release it."""


class EndpointPool(Subject):
    """gcpool and the pure-Python pool: one interface, and the same manager for both."""

    package: ClassVar[str]

    def __init__(self, make_manager: Callable[[], Any], note: str = '', **options: Any) -> None:
        """:param make_manager: makes a manager of gcpool
        :param note: what that does with a connection
        :param options: parameters of the pool
        """
        super().__init__()
        self.note = note
        self._make_manager = make_manager
        self._options = options

    async def open(self) -> None:
        manager = self._make_manager()
        create = manager.create

        async def counted_create(endpoint: Hashable) -> Any:
            self.count_connection()
            return await create(endpoint)

        manager.create = counted_create
        module: Any = import_module(f'{self.package}.asyncio')
        self.pool: Any = module.ConnectionPool(self.adapt(manager, module), **self._options)

    def variant(self, kind: Callable[..., Any], **options: Any) -> Any:
        """Return another subject, with the same manager and some more parameters of the pool."""
        return kind(self._make_manager, self.note, **self._options, **options)

    def adapt(self, manager: Any, module: Any) -> Any:
        return manager

    async def close(self) -> None:
        await self.pool.close()

    def connection(self) -> contextlib.AbstractAsyncContextManager[Any]:
        context: contextlib.AbstractAsyncContextManager[Any] = self.pool.connection(ENDPOINT)
        return context


class GcPool(EndpointPool):
    name = package = 'gcpool'


class GenericConnectionPool(EndpointPool):
    """The pure-Python pool that gcpool replaces, with gcpool's manager behind its own base class."""

    name = package = 'generic_connection_pool'

    def adapt(self, manager: Any, module: Any) -> Any:
        class Adapted(module.BaseConnectionManager):  # type: ignore[misc, name-defined, unused-ignore]
            async def create(self, endpoint: Hashable) -> Any:
                return await manager.create(endpoint)

            async def dispose(self, endpoint: Hashable, conn: Any) -> None:
                await manager.dispose(endpoint, conn)

            async def check_aliveness(self, endpoint: Hashable, conn: Any) -> bool:
                alive: bool = await manager.check_aliveness(endpoint, conn)
                return alive

            async def on_release(self, endpoint: Hashable, conn: Any) -> None:
                await manager.on_release(endpoint, conn)

        return Adapted()


class AsyncPg(Subject):
    """asyncpg.create_pool()."""

    name = 'asyncpg'
    note = 'looks at the connection; resets the session at each return, a round trip'

    def __init__(self, dsn: str, **options: Any) -> None:
        """:param options: parameters of the pool"""
        super().__init__()
        self._dsn = dsn
        self._options = options

    async def open(self) -> None:
        asyncpg: Any = import_module('asyncpg')
        self.pool: Any = await asyncpg.create_pool(self._dsn, init=self._count, **self._options)

    async def _count(self, _conn: Any) -> None:
        self.count_connection()

    async def close(self) -> None:
        await self.pool.close()

    def connection(self) -> contextlib.AbstractAsyncContextManager[Any]:
        context: contextlib.AbstractAsyncContextManager[Any] = self.pool.acquire()
        return context


class AsyncPgWithoutReset(AsyncPg):
    """asyncpg's pool with ``reset`` replaced, so that a return costs the same as with gcpool."""

    name = 'asyncpg without its reset'
    note = 'looks at the connection; rolls back if a transaction is open'

    def __init__(self, dsn: str, **options: Any) -> None:
        super().__init__(dsn, reset=self._leave, **options)

    @staticmethod
    async def _leave(_conn: Any) -> None:
        pass


class PsycopgPool(Subject):
    """psycopg_pool.AsyncConnectionPool."""

    name = package = 'psycopg_pool'
    note = 'no check; commits in its context manager and rolls back if a transaction is open'

    def __init__(self, conninfo: str, **options: Any) -> None:
        """:param options: parameters of the pool"""
        super().__init__()
        self._conninfo = conninfo
        self._options = options

    async def open(self) -> None:
        psycopg_pool: Any = import_module(self.package)
        options = dict(self._options)
        base = options.pop('connection_class', None) or import_module('psycopg').AsyncConnection
        subject = self

        class CountedConnection(base):  # type: ignore[misc, valid-type, unused-ignore]
            @classmethod
            async def connect(cls, *args: Any, **kwargs: Any) -> Any:
                subject.count_connection()
                return await super().connect(*args, **kwargs)

        self.pool: Any = psycopg_pool.AsyncConnectionPool(
            self._conninfo, connection_class=CountedConnection, open=False, **options
        )
        await self.pool.open(wait=True)

    async def close(self) -> None:
        await self.pool.close()

    def connection(self) -> contextlib.AbstractAsyncContextManager[Any]:
        context: contextlib.AbstractAsyncContextManager[Any] = self.pool.connection()
        return context


class DropIn(PsycopgPool):
    """gcpool.psycopg_pool.AsyncConnectionPool."""

    name = 'gcpool.psycopg_pool'
    package = 'gcpool.psycopg_pool'


class RedisPool(Subject):
    """redis.asyncio.ConnectionPool, which never waits: every task has its own connection."""

    name = 'redis ConnectionPool (as many as tasks)'
    note = 'looks for unread data; nothing at the return'
    pool_class = 'ConnectionPool'
    bounded = False

    def __init__(self, address: tuple[str, int], **options: Any) -> None:
        """:param options: parameters of the pool"""
        super().__init__()
        self._address = address
        self._options = options

    async def open(self) -> None:
        redis: Any = import_module('redis.asyncio')
        subject = self

        class CountedConnection(redis.Connection):  # type: ignore[misc, name-defined, unused-ignore]
            async def on_connect(self, *args: Any, **kwargs: Any) -> Any:
                subject.count_connection()
                return await super().on_connect(*args, **kwargs)

        host, port = self._address
        pool_class = getattr(redis, self.pool_class)
        self.pool: Any = pool_class(connection_class=CountedConnection, host=host, port=port, **self._options)

    async def close(self) -> None:
        await self.pool.disconnect()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        conn = await self.pool.get_connection()
        try:
            yield conn
        finally:
            await self.pool.release(conn)


class RedisBlockingPool(RedisPool):
    """redis.asyncio.BlockingConnectionPool."""

    name = pool_class = 'BlockingConnectionPool'
    bounded = True


def serve(
    subject: Subject, query: Callable[[Any], Awaitable[None]], waits: list[list[int]]
) -> Callable[[Iterator[int], int, float], Awaitable[int]]:
    """Return what each of many tasks does: for each ticket take a connection, query, release it.

    :param waits: receives the nanoseconds of each acquire, one list per worker
    """

    async def work(tickets: Iterator[int], quota: int, _hold: float) -> int:
        own: list[int] = []
        while next(tickets) < quota:
            asked = perf_counter_ns()
            async with subject.connection() as conn:
                own.append(perf_counter_ns() - asked)
                await query(conn)
        waits.append(own)
        return len(own)

    return work


def psycopg_subjects(conninfo: str, size: int) -> list[Subject]:
    def make_manager() -> Any:
        contrib: Any = import_module('gcpool.contrib.psycopg')
        return contrib.AsyncConnectionManager({ENDPOINT: conninfo}, kwargs={'autocommit': True})

    note = 'looks at the socket; rolls back if a transaction is open, takes settings back, discards what is in doubt'
    return [
        GcPool(make_manager, note, max_size=size),
        PsycopgPool(conninfo, min_size=size, max_size=size, kwargs={'autocommit': True}),
        GenericConnectionPool(make_manager, note, max_size=size),
    ]


def asyncpg_subjects(dsn: str, size: int) -> list[Subject]:
    def make_manager() -> Any:
        contrib: Any = import_module('gcpool.contrib.asyncpg')
        return contrib.DbConnectionManager({ENDPOINT: {'dsn': dsn}})

    note = 'looks at the connection; rolls back if a transaction is open'
    return [
        GcPool(make_manager, note, max_size=size),
        AsyncPg(dsn, min_size=size, max_size=size),
        AsyncPgWithoutReset(dsn, min_size=size, max_size=size),
        GenericConnectionPool(make_manager, note, max_size=size),
    ]


def redis_subjects(address: tuple[str, int], size: int) -> list[Subject]:
    def make_manager() -> Any:
        contrib: Any = import_module('gcpool.contrib.redis')
        return contrib.AsyncRedisConnectionManager({ENDPOINT: {'host': address[0], 'port': address[1]}})

    note = 'looks at the socket; discards it if replies are unread or its session was altered'
    return [
        GcPool(make_manager, note, max_size=size),
        RedisBlockingPool(address, max_connections=size),
        RedisPool(address),
        GenericConnectionPool(make_manager, note, max_size=size),
    ]


def select(statement: str, answer: object) -> Callable[[Any], Awaitable[None]]:
    """Make a function that sends a statement by a psycopg connection and looks at the answer."""

    async def query(conn: Any) -> None:
        cursor = await conn.execute(statement)
        if (row := await cursor.fetchone()) != (answer,):
            raise RuntimeError(f'{statement} gave {row}')

    return query


def fetch(statement: str, answer: object) -> Callable[[Any], Awaitable[None]]:
    """Make a function that sends a statement by an asyncpg connection and looks at the answer."""

    async def query(conn: Any) -> None:
        if (value := await conn.fetchval(statement)) != answer:
            raise RuntimeError(f'{statement} gave {value}')

    return query


def redis_get(key: str, answer: bytes) -> Callable[[Any], Awaitable[None]]:
    """Make a function that gets a key by a redis-py connection and looks at the answer."""

    async def query(conn: Any) -> None:
        await conn.send_command('GET', key)
        if (value := await conn.read_response()) != answer:
            raise RuntimeError(f'GET {key} gave {value!r}')

    return query
