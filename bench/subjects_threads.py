"""The pools for threads that are compared, each driven as its users drive it.

Every subject runs its own, unpatched acquire and release code with its default parameters (where a case is about
limits, with the limit of the case). What stands in for a server is named in each class. A library is imported when its
subject is opened, so one that is not installed is reported missing and nothing else fails.

The loops repeat from subject to subject because a shared one would have to call through another layer, which costs as
much as some of the pools.
"""

import abc
import queue
import time
import types
from collections.abc import Hashable, Iterable, Iterator
from importlib import import_module
from itertools import repeat
from typing import TYPE_CHECKING, Any, ClassVar

from .noop import ENDPOINT, Connection

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    'CONTENTION',
    'CONTEXT_MANAGER',
    'CYCLE',
    'ENDPOINT_POOLS',
    'MANY_ENDPOINTS',
    'DBUtils',
    'DictOfLists',
    'EndpointPool',
    'GcPool',
    'GenericConnectionPool',
    'Psycopg2',
    'PsycopgPool',
    'SimpleQueue',
    'SqlAlchemy',
    'Subject',
    'Urllib3',
]


class Subject(abc.ABC):
    """One pool under test."""

    name: ClassVar[str]

    def __init__(self, size: int | None = None) -> None:
        """:param size: the most connections the pool may hold; None for its default"""
        self.size = size
        #: connections made so far; a warm pool makes no more
        self.created = 0

    def make_connection(self, *_args: object, **_kwargs: object) -> Connection:
        self.created += 1
        return Connection()

    @abc.abstractmethod
    def open(self) -> None:
        """Import the library and build the pool."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the pool and all it holds."""

    @abc.abstractmethod
    def cycle(self, number: int) -> None:
        """Acquire and release a connection ``number`` times."""

    def context_manager(self, number: int) -> None:
        """Acquire and release by the pool's context manager ``number`` times."""
        raise NotImplementedError(f'{self.name} has no context manager')

    def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        """Be one of many threads on the pool: a cycle for each ticket below ``quota``.

        :param tickets: shared by the threads
        :param hold: seconds between acquire and release
        :return: how often this thread was served
        """
        raise NotImplementedError(f'{self.name} cannot wait for a connection')


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

    def open(self) -> None:
        module: Any = import_module(f'{self.package}.threading')
        subject = self

        class NoopManager(module.BaseConnectionManager):  # type: ignore[misc, name-defined, unused-ignore]
            def create(self, endpoint: Hashable, timeout: float | None = None) -> Connection:
                return subject.make_connection()

            def dispose(self, endpoint: Hashable, conn: Connection, timeout: float | None = None) -> None:
                pass

            def is_refusal(self, endpoint: Hashable, exc: BaseException) -> bool:
                # For wait_when_full.
                return False

        class CheckingManager(NoopManager):
            def check_aliveness(self, endpoint: Hashable, conn: Connection, timeout: float | None = None) -> bool:
                return True

        manager = CheckingManager() if self.checks else NoopManager()
        self.pool: Any = module.ConnectionPool(manager, **self.options)

    def close(self) -> None:
        self.pool.close()

    def cycle(self, number: int) -> None:
        acquire, release, endpoint = self.pool.acquire, self.pool.release, self.endpoint
        for _ in repeat(None, number):
            release(acquire(endpoint), endpoint)

    def context_manager(self, number: int) -> None:
        connection, endpoint = self.pool.connection, self.endpoint
        for _ in repeat(None, number):
            with connection(endpoint):
                pass

    def fresh_tuples(self, number: int) -> None:
        """Cycle with an endpoint that is a new tuple each time, equal to the one before."""
        acquire, release = self.pool.acquire, self.pool.release
        assert isinstance(self.endpoint, tuple)
        address, port = self.endpoint
        for _ in repeat(None, number):
            endpoint = (address, port)
            release(acquire(endpoint), endpoint)

    def visit(self, endpoints: Iterable[Hashable]) -> None:
        """Cycle once at each endpoint."""
        acquire, release = self.pool.acquire, self.pool.release
        for endpoint in endpoints:
            release(acquire(endpoint), endpoint)

    def fill(self, number: int) -> None:
        """Acquire ``number`` connections."""
        acquire, endpoint = self.pool.acquire, self.endpoint
        self.taken = [acquire(endpoint) for _ in repeat(None, number)]

    def empty(self) -> None:
        """Release what :py:meth:`fill` has acquired."""
        while self.taken:
            self.pool.release(self.taken.pop(), self.endpoint)

    def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        acquire, release, endpoint, sleep = self.pool.acquire, self.pool.release, self.endpoint, time.sleep
        served = 0
        while next(tickets) < quota:
            conn = acquire(endpoint)
            if hold:
                sleep(hold)
            release(conn, endpoint)
            served += 1
        return served


class GcPool(EndpointPool):
    name = package = 'gcpool'


class GenericConnectionPool(EndpointPool):
    """The pure-Python pool that gcpool replaces."""

    name = package = 'generic_connection_pool'


class DictOfLists(EndpointPool):
    """The cost of many endpoints alone: two look-ups per cycle in memory that is in no cache."""

    name = package = 'dict of lists'

    def open(self) -> None:
        self.idle: dict[Hashable, list[Connection]] = {}

    def close(self) -> None:
        self.idle.clear()

    def visit(self, endpoints: Iterable[Hashable]) -> None:
        idle = self.idle
        for endpoint in endpoints:
            if endpoint in idle:
                conn = idle[endpoint].pop()
                idle[endpoint].append(conn)
            else:
                idle[endpoint] = [self.make_connection()]


class SimpleQueue(Subject):
    """The floor: a queue in C that holds connections and does nothing else that a pool does."""

    name = 'queue.SimpleQueue'

    def open(self) -> None:
        self.queue: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for _ in range(self.size or 1):
            self.queue.put(self.make_connection())

    def close(self) -> None:
        while not self.queue.empty():
            self.queue.get()

    def cycle(self, number: int) -> None:
        get, put = self.queue.get, self.queue.put
        for _ in repeat(None, number):
            put(get())

    def context_manager(self, number: int) -> None:
        """A queue has no context manager: those of the pools are compared with this."""
        self.cycle(number)

    def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        get, put, sleep = self.queue.get, self.queue.put, time.sleep
        served = 0
        while next(tickets) < quota:
            conn = get()
            if hold:
                sleep(hold)
            put(conn)
            served += 1
        return served


class Psycopg2(Subject):
    """psycopg2.pool.ThreadedConnectionPool(1, 10).

    Faked: the connection, by psycopg2's own ``connection_factory``. The pool reads ``closed`` and
    ``info.transaction_status`` at each return; here these are plain attributes (there, C getters).
    """

    name = 'psycopg2'

    def open(self) -> None:
        pool: Any = import_module('psycopg2.pool')
        extensions: Any = import_module('psycopg2.extensions')
        subject = self

        class Psycopg2Connection(Connection):
            closed = 0
            info = types.SimpleNamespace(transaction_status=extensions.TRANSACTION_STATUS_IDLE)

            def __init__(self, dsn: str) -> None:
                subject.created += 1

        self.pool: Any = pool.ThreadedConnectionPool(1, self.size or 10, '', connection_factory=Psycopg2Connection)

    def close(self) -> None:
        self.pool.closeall()

    def cycle(self, number: int) -> None:
        getconn, putconn = self.pool.getconn, self.pool.putconn
        for _ in repeat(None, number):
            putconn(getconn())


class PsycopgPool(Subject):
    """psycopg_pool.ConnectionPool.

    Faked: the connection, by the pool's own ``connection_class``. The pool reads ``pgconn.transaction_status`` at each
    return, a plain attribute here; ``connection()`` enters the connection as well, which here does nothing (there, it
    ends the transaction).
    """

    name = 'psycopg_pool'

    def open(self) -> None:
        psycopg_pool: Any = import_module('psycopg_pool')
        pq: Any = import_module('psycopg.pq')
        subject = self

        class PsycopgConnection(Connection):
            pgconn = types.SimpleNamespace(transaction_status=pq.TransactionStatus.IDLE)

            @classmethod
            def connect(cls, conninfo: str = '', **_kwargs: object) -> 'PsycopgConnection':
                subject.created += 1
                return cls()

            def __enter__(self) -> 'Self':
                return self

            def __exit__(self, *_exc: object) -> None:
                pass

        sizes = {} if self.size is None else {'min_size': self.size, 'max_size': self.size}
        self.pool: Any = psycopg_pool.ConnectionPool(connection_class=PsycopgConnection, open=False, **sizes)
        self.pool.open(wait=True)

    def close(self) -> None:
        self.pool.close()

    def cycle(self, number: int) -> None:
        getconn, putconn = self.pool.getconn, self.pool.putconn
        for _ in repeat(None, number):
            putconn(getconn())

    def context_manager(self, number: int) -> None:
        connection = self.pool.connection
        for _ in repeat(None, number):
            with connection():
                pass

    def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        getconn, putconn, sleep = self.pool.getconn, self.pool.putconn, time.sleep
        served = 0
        while next(tickets) < quota:
            conn = getconn()
            if hold:
                sleep(hold)
            putconn(conn)
            served += 1
        return served


class SqlAlchemy(Subject):
    """sqlalchemy.pool.QueuePool.

    Faked: the DB-API connection that ``creator`` returns. ``reset_on_return=None`` spares the pool a rollback at each
    return, which would be the driver's time.
    """

    name = 'SQLAlchemy QueuePool'

    def open(self) -> None:
        sqlalchemy_pool: Any = import_module('sqlalchemy.pool')
        sizes = {} if self.size is None else {'pool_size': self.size, 'max_overflow': 0}
        self.pool: Any = sqlalchemy_pool.QueuePool(self.make_connection, reset_on_return=None, **sizes)

    def close(self) -> None:
        self.pool.dispose()

    def cycle(self, number: int) -> None:
        connect = self.pool.connect
        for _ in repeat(None, number):
            connect().close()

    def serve(self, tickets: Iterator[int], quota: int, hold: float) -> int:
        connect, sleep = self.pool.connect, time.sleep
        served = 0
        while next(tickets) < quota:
            conn = connect()
            if hold:
                sleep(hold)
            conn.close()
            served += 1
        return served


class DBUtils(Subject):
    """dbutils.pooled_db.PooledDB.

    Faked: the DB-API module. Its connection has no ``ping()``, as most have none, and a ``rollback()`` that does
    nothing, which the pool calls at each return by default.
    """

    name = 'DBUtils PooledDB'

    def open(self) -> None:
        pooled_db: Any = import_module('dbutils.pooled_db')
        module: Any = types.ModuleType('noop_dbapi')
        module.threadsafety = 1
        module.connect = self.make_connection
        module.OperationalError = module.InterfaceError = module.InternalError = type('Error', (Exception,), {})
        self.pool: Any = pooled_db.PooledDB(module)

    def close(self) -> None:
        self.pool.close()

    def cycle(self, number: int) -> None:
        connection = self.pool.connection
        for _ in repeat(None, number):
            connection().close()

    def context_manager(self, number: int) -> None:
        connection = self.pool.connection
        for _ in repeat(None, number):
            with connection():
                pass


class Urllib3(Subject):
    """urllib3.HTTPConnectionPool, by the two methods that its ``urlopen`` calls to take and give back a connection.

    Faked: the connection (``ConnectionCls``), always connected (the real one asks the socket, a system call).
    """

    name = 'urllib3'

    def open(self) -> None:
        urllib3: Any = import_module('urllib3')
        subject = self

        class Urllib3Connection(Connection):
            is_connected = True

            def __init__(self, **_kwargs: object) -> None:
                subject.created += 1

        self.pool: Any = urllib3.HTTPConnectionPool('localhost', 80)
        self.pool.ConnectionCls = Urllib3Connection

    def close(self) -> None:
        self.pool.close()

    def cycle(self, number: int) -> None:
        get, put = self.pool._get_conn, self.pool._put_conn
        for _ in repeat(None, number):
            put(get())


ENDPOINT_POOLS: list[type[EndpointPool]] = [GcPool, GenericConnectionPool]
MANY_ENDPOINTS: list[type[EndpointPool]] = [*ENDPOINT_POOLS, DictOfLists]
CYCLE: list[type[Subject]] = [
    GcPool,
    GenericConnectionPool,
    SimpleQueue,
    Psycopg2,
    PsycopgPool,
    SqlAlchemy,
    DBUtils,
    Urllib3,
]
CONTEXT_MANAGER: list[type[Subject]] = [GcPool, GenericConnectionPool, SimpleQueue, PsycopgPool, DBUtils]
CONTENTION: list[type[Subject]] = [GcPool, GenericConnectionPool, SimpleQueue, PsycopgPool, SqlAlchemy]
