"""The pools for asyncio that are compared: the counterpart of ``subjects_threads``, under the same rules."""

import abc
import asyncio
import types
from collections.abc import Hashable, Iterable, Iterator
from importlib import import_module
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

from .noop import ENDPOINT, AsyncConnection

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    'CONTENTION',
    'CONTEXT_MANAGER',
    'CYCLE',
    'ENDPOINT_POOLS',
    'MANY_ENDPOINTS',
    'QUEUED',
    'AioSqlitePool',
    'AsyncPg',
    'AsyncioConnectionPool',
    'EndpointPool',
    'GcPool',
    'GenericConnectionPool',
    'LifoQueue',
    'PsycopgPool',
    'Subject',
]


class Subject(abc.ABC):
    """One pool under test."""

    name: ClassVar[str]

    def __init__(self, size: int | None = None) -> None:
        """:param size: the most connections the pool may hold; None for its default"""
        self.size = size
        #: connections made so far; a warm pool makes no more
        self.created = 0

    async def make_connection(self) -> AsyncConnection:
        self.created += 1
        return AsyncConnection()

    @abc.abstractmethod
    async def open(self) -> None:
        """Import the library and build the pool."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the pool and all it holds."""

    async def cycle(self, number: int) -> None:
        """Acquire and release a connection ``number`` times."""
        raise NotImplementedError(f'{self.name} has only a context manager')

    async def context_manager(self, number: int) -> None:
        """Acquire and release by the pool's context manager ``number`` times."""
        raise NotImplementedError(f'{self.name} has no context manager')

    async def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        """Be one of many tasks on the pool: a cycle for each ticket below ``quota``.

        :param tickets: shared by the tasks
        :param hold: seconds between acquire and release; 0 still gives the other tasks their turn
        :return: how often this task was served
        """
        raise NotImplementedError(f'{self.name} is not part of this case')

    async def acquire_one(self) -> Any:
        """Acquire a connection, for cases that do something between acquire and release."""
        raise NotImplementedError(f'{self.name} is not part of this case')

    async def release_one(self, conn: Any) -> None:
        """Release what ``acquire_one`` has returned."""
        raise NotImplementedError(f'{self.name} is not part of this case')


class EndpointPool(Subject):
    """gcpool and the pure-Python pool: one interface, one loop for both."""

    package: ClassVar[str]
    #: whether the manager can check connections
    checks: ClassVar[bool] = False

    def __init__(self, size: int | None = None, *, endpoint: Hashable = ENDPOINT, **options: Any) -> None:
        """:param options: parameters of the pool"""
        super().__init__(size)
        self.endpoint = endpoint
        self.options = options if size is None else {'max_size': size, **options}

    async def open(self) -> None:
        module: Any = import_module(f'{self.package}.asyncio')
        subject = self

        class NoopManager(module.BaseConnectionManager):  # type: ignore[misc, name-defined, unused-ignore]
            async def create(self, endpoint: Hashable) -> AsyncConnection:
                return await subject.make_connection()

            async def dispose(self, endpoint: Hashable, conn: AsyncConnection) -> None:
                pass

            def is_refusal(self, endpoint: Hashable, exc: BaseException) -> bool:
                # For wait_when_full.
                return False

        class CheckingManager(NoopManager):
            async def check_aliveness(self, endpoint: Hashable, conn: AsyncConnection) -> bool:
                return True

        manager = CheckingManager() if self.checks else NoopManager()
        self.pool: Any = module.ConnectionPool(manager, **self.options)

    async def close(self) -> None:
        await self.pool.close()

    async def cycle(self, number: int) -> None:
        acquire, release, endpoint = self.pool.acquire, self.pool.release, self.endpoint
        for _ in repeat(None, number):
            await release(await acquire(endpoint), endpoint)

    async def context_manager(self, number: int) -> None:
        connection, endpoint = self.pool.connection, self.endpoint
        for _ in repeat(None, number):
            async with connection(endpoint):
                pass

    async def fresh_tuples(self, number: int) -> None:
        """Cycle with an endpoint that is a new tuple each time, equal to the one before."""
        acquire, release = self.pool.acquire, self.pool.release
        assert isinstance(self.endpoint, tuple)
        address, port = self.endpoint
        for _ in repeat(None, number):
            endpoint = (address, port)
            await release(await acquire(endpoint), endpoint)

    async def visit(self, endpoints: Iterable[Hashable]) -> None:
        """Cycle once at each endpoint."""
        acquire, release = self.pool.acquire, self.pool.release
        for endpoint in endpoints:
            await release(await acquire(endpoint), endpoint)

    async def fill(self, number: int) -> None:
        """Acquire ``number`` connections."""
        acquire, endpoint = self.pool.acquire, self.endpoint
        self.taken = [await acquire(endpoint) for _ in repeat(None, number)]

    async def empty(self) -> None:
        """Release what :py:meth:`fill` has acquired."""
        while self.taken:
            await self.pool.release(self.taken.pop(), self.endpoint)

    async def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        acquire, release, endpoint, sleep = self.pool.acquire, self.pool.release, self.endpoint, asyncio.sleep
        served = 0
        while next(tickets) < quota:
            conn = await acquire(endpoint)
            await sleep(hold)
            await release(conn, endpoint)
            served += 1
        return served

    async def acquire_one(self) -> Any:
        return await self.pool.acquire(self.endpoint)

    async def release_one(self, conn: Any) -> None:
        await self.pool.release(conn, self.endpoint)


class GcPool(EndpointPool):
    name = package = 'gcpool'


class GenericConnectionPool(EndpointPool):
    """The pure-Python pool that gcpool replaces."""

    name = package = 'generic_connection_pool'


class LifoQueue(Subject):
    """asyncio's own queue, used to keep connections; it does nothing else that a pool does."""

    name = 'asyncio.LifoQueue'

    async def open(self) -> None:
        self.queue: asyncio.LifoQueue[AsyncConnection] = asyncio.LifoQueue()
        for _ in range(self.size or 1):
            await self.queue.put(await self.make_connection())

    async def close(self) -> None:
        while not self.queue.empty():
            await self.queue.get()

    async def cycle(self, number: int) -> None:
        get, put = self.queue.get, self.queue.put
        for _ in repeat(None, number):
            await put(await get())

    async def context_manager(self, number: int) -> None:
        """A queue has no context manager: those of the pools are compared with this."""
        await self.cycle(number)

    async def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        get, put, sleep = self.queue.get, self.queue.put, asyncio.sleep
        served = 0
        while next(tickets) < quota:
            conn = await get()
            await sleep(hold)
            await put(conn)
            served += 1
        return served

    async def acquire_one(self) -> Any:
        return await self.queue.get()

    async def release_one(self, conn: Any) -> None:
        await self.queue.put(conn)


class AsyncPg(Subject):
    """asyncpg.create_pool().

    Its pool accepts only real ``asyncpg.Connection`` objects. Here they are real ones, made by the pool's own
    ``connect`` parameter on a protocol that is not connected to anything: the protocol is the only thing faked. The
    query that a release sends to reset the session is switched off by ``get_reset_query``, the method that asyncpg
    documents for this, since it would be a round trip; the rest of the reset runs.
    """

    name = 'asyncpg'

    async def open(self) -> None:
        asyncpg: Any = import_module('asyncpg')
        connect_utils: Any = import_module('asyncpg.connect_utils')
        subject = self

        class IdleProtocol:
            queries_count = 0
            connected = True

            def get_settings(self) -> object:
                return types.SimpleNamespace(server_version='17.0')

            def is_connected(self) -> bool:
                return self.connected

            def is_in_transaction(self) -> bool:
                return False

            def _is_cancelling(self) -> bool:
                return False

            async def close(self, timeout: float | None) -> None:
                self.connected = False

            def abort(self) -> None:
                self.connected = False

        class AsyncPgConnection(asyncpg.Connection):  # type: ignore[misc, name-defined, unused-ignore]
            __slots__ = ()

            def get_reset_query(self) -> str:
                return ''

        # The values that asyncpg.connect() has as defaults.
        config = connect_utils._ClientConfiguration(
            command_timeout=None,
            statement_cache_size=100,
            max_cached_statement_lifetime=300,
            max_cacheable_statement_size=1024 * 15,
        )

        async def connect(*_args: object, loop: asyncio.AbstractEventLoop, **_kwargs: object) -> object:
            subject.created += 1
            return AsyncPgConnection(IdleProtocol(), None, loop, ('localhost', 5432), config, None)

        sizes = {} if self.size is None else {'min_size': self.size, 'max_size': self.size}
        self.pool: Any = await asyncpg.create_pool(connect=connect, connection_class=AsyncPgConnection, **sizes)

    async def close(self) -> None:
        await self.pool.close()

    async def cycle(self, number: int) -> None:
        acquire, release = self.pool.acquire, self.pool.release
        for _ in repeat(None, number):
            await release(await acquire())

    async def context_manager(self, number: int) -> None:
        acquire = self.pool.acquire
        for _ in repeat(None, number):
            async with acquire():
                pass

    async def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        acquire, release, sleep = self.pool.acquire, self.pool.release, asyncio.sleep
        served = 0
        while next(tickets) < quota:
            conn = await acquire()
            await sleep(hold)
            await release(conn)
            served += 1
        return served


class PsycopgPool(Subject):
    """psycopg_pool.AsyncConnectionPool.

    Faked: the connection, as in ``subjects_threads``.
    """

    name = 'psycopg_pool'

    async def open(self) -> None:
        psycopg_pool: Any = import_module('psycopg_pool')
        pq: Any = import_module('psycopg.pq')
        subject = self

        class PsycopgConnection(AsyncConnection):
            pgconn = types.SimpleNamespace(transaction_status=pq.TransactionStatus.IDLE)

            @classmethod
            async def connect(cls, conninfo: str = '', **_kwargs: object) -> 'PsycopgConnection':
                subject.created += 1
                return cls()

            async def __aenter__(self) -> 'Self':
                return self

            async def __aexit__(self, *_exc: object) -> None:
                pass

        sizes = {} if self.size is None else {'min_size': self.size, 'max_size': self.size}
        self.pool: Any = psycopg_pool.AsyncConnectionPool(connection_class=PsycopgConnection, open=False, **sizes)
        await self.pool.open(wait=True)

    async def close(self) -> None:
        await self.pool.close()

    async def cycle(self, number: int) -> None:
        getconn, putconn = self.pool.getconn, self.pool.putconn
        for _ in repeat(None, number):
            await putconn(await getconn())

    async def context_manager(self, number: int) -> None:
        connection = self.pool.connection
        for _ in repeat(None, number):
            async with connection():
                pass

    async def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        getconn, putconn, sleep = self.pool.getconn, self.pool.putconn, asyncio.sleep
        served = 0
        while next(tickets) < quota:
            conn = await getconn()
            await sleep(hold)
            await putconn(conn)
            served += 1
        return served


class AsyncioConnectionPool(Subject):
    """asyncio_connection_pool.ConnectionPool, which has only a context manager.

    Faked: the connection, by the pool's own ``strategy``.
    """

    name = 'asyncio-connection-pool'

    async def open(self) -> None:
        library: Any = import_module('asyncio_connection_pool')
        subject = self

        class NoopStrategy(library.ConnectionStrategy):  # type: ignore[misc, name-defined, unused-ignore]
            async def make_connection(self) -> AsyncConnection:
                return await subject.make_connection()

            def connection_is_closed(self, conn: AsyncConnection) -> bool:
                return False

            async def close_connection(self, conn: AsyncConnection) -> None:
                pass

        self.pool: Any = library.ConnectionPool(strategy=NoopStrategy(), max_size=self.size or 10)

    async def close(self) -> None:
        """There is nothing to call: the pool has no close()."""

    async def context_manager(self, number: int) -> None:
        connection = self.pool.get_connection
        for _ in repeat(None, number):
            async with connection():
                pass


class AioSqlitePool(Subject):
    """aiosqlitepool.SQLiteConnectionPool, which has only a context manager.

    Faked: the connection, by the pool's own ``connection_factory``. The pool sends "SELECT 1" before and a rollback
    after each use and offers no way to omit them; both return at once here.
    """

    name = 'aiosqlitepool'

    async def open(self) -> None:
        library: Any = import_module('aiosqlitepool')
        subject = self

        class SqliteConnection(AsyncConnection):
            async def execute(self, *_args: object) -> None:
                pass

            async def rollback(self) -> None:
                pass

        async def connect() -> SqliteConnection:
            subject.created += 1
            return SqliteConnection()

        self.pool: Any = library.SQLiteConnectionPool(connect)

    async def close(self) -> None:
        await self.pool.close()

    async def context_manager(self, number: int) -> None:
        connection = self.pool.connection
        for _ in repeat(None, number):
            async with connection():
                pass


ENDPOINT_POOLS: list[type[EndpointPool]] = [GcPool, GenericConnectionPool]
MANY_ENDPOINTS = ENDPOINT_POOLS
CYCLE: list[type[Subject]] = [GcPool, GenericConnectionPool, LifoQueue, AsyncPg, PsycopgPool]
CONTEXT_MANAGER: list[type[Subject]] = [
    GcPool,
    GenericConnectionPool,
    LifoQueue,
    AsyncPg,
    PsycopgPool,
    AsyncioConnectionPool,
    AioSqlitePool,
]
CONTENTION: list[type[Subject]] = [GcPool, GenericConnectionPool, LifoQueue, PsycopgPool, AsyncPg]
QUEUED: list[type[Subject]] = [GcPool, GenericConnectionPool, LifoQueue]
