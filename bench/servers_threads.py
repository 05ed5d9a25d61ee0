"""The pools for threads that are compared on real servers, each used as its users use it.

A subject is imported when it is opened, so that a missing one is reported and nothing else fails. Each says in ``note``
what it does when a connection is taken and returned: all of this is the pool's default.
"""

import abc
import contextlib
import queue
import threading
from collections.abc import Callable, Hashable, Iterator
from importlib import import_module
from time import perf_counter_ns
from typing import Any, ClassVar

from .noop import ENDPOINT
from .servers_subjects import CountedPool

__all__ = [
    'DropIn',
    'GcPool',
    'GenericConnectionPool',
    'NoPool',
    'PsycopgPool',
    'RedisBlockingPool',
    'RedisPool',
    'SqlAlchemy',
    'SqlAlchemyDropIn',
    'Subject',
    'psycopg_subjects',
    'redis_get',
    'redis_subjects',
    'select',
    'serve',
]


class Subject(CountedPool, abc.ABC):
    """A pool that can be opened, closed, and asked for connections."""

    @abc.abstractmethod
    def open(self) -> None:
        """Import the library and build the pool."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close the pool and all it holds."""

    @abc.abstractmethod
    def connection(self) -> contextlib.AbstractContextManager[Any]:
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

    def open(self) -> None:
        manager = self._make_manager()
        create = manager.create

        def counted_create(endpoint: Hashable, timeout: float | None = None) -> Any:
            self.count_connection()
            return create(endpoint, timeout)

        manager.create = counted_create
        module: Any = import_module(f'{self.package}.threading')
        self.pool: Any = module.ConnectionPool(self.adapt(manager, module), **self._options)

    def variant(self, kind: Callable[..., Any], **options: Any) -> Any:
        """Return another subject, with the same manager and some more parameters of the pool."""
        return kind(self._make_manager, self.note, **self._options, **options)

    def adapt(self, manager: Any, module: Any) -> Any:
        return manager

    def close(self) -> None:
        self.pool.close()

    def connection(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self.pool.connection(ENDPOINT)
        return context


class GcPool(EndpointPool):
    name = package = 'gcpool'


class GenericConnectionPool(EndpointPool):
    """The pure-Python pool that gcpool replaces, with gcpool's manager behind its own base class."""

    name = package = 'generic_connection_pool'

    def adapt(self, manager: Any, module: Any) -> Any:
        class Adapted(module.BaseConnectionManager):  # type: ignore[misc, name-defined, unused-ignore]
            def create(self, endpoint: Hashable, timeout: float | None = None) -> Any:
                return manager.create(endpoint, timeout)

            def dispose(self, endpoint: Hashable, conn: Any, timeout: float | None = None) -> None:
                manager.dispose(endpoint, conn, timeout)

            def check_aliveness(self, endpoint: Hashable, conn: Any, timeout: float | None = None) -> bool:
                alive: bool = manager.check_aliveness(endpoint, conn, timeout)
                return alive

            def on_release(self, endpoint: Hashable, conn: Any) -> None:
                manager.on_release(endpoint, conn)

        return Adapted()


class PsycopgPool(Subject):
    """psycopg_pool.ConnectionPool."""

    name = package = 'psycopg_pool'
    note = 'no check; commits in its context manager and rolls back if a transaction is open'

    def __init__(self, conninfo: str, **options: Any) -> None:
        """:param options: parameters of the pool"""
        super().__init__()
        self._conninfo = conninfo
        self._options = options

    def open(self) -> None:
        psycopg_pool: Any = import_module(self.package)
        options = dict(self._options)
        base = options.pop('connection_class', None) or import_module('psycopg').Connection
        subject = self

        class CountedConnection(base):  # type: ignore[misc, valid-type, unused-ignore]
            @classmethod
            def connect(cls, *args: Any, **kwargs: Any) -> Any:
                subject.count_connection()
                return super().connect(*args, **kwargs)

        self.pool: Any = psycopg_pool.ConnectionPool(
            self._conninfo, connection_class=CountedConnection, open=False, **options
        )
        self.pool.open(wait=True)

    def close(self) -> None:
        self.pool.close()

    def connection(self) -> contextlib.AbstractContextManager[Any]:
        context: contextlib.AbstractContextManager[Any] = self.pool.connection()
        return context


class SqlAlchemy(Subject):
    """sqlalchemy.pool.QueuePool, without an engine: the queries go to the driver's connection itself."""

    name = 'SQLAlchemy QueuePool'
    package = 'sqlalchemy.pool'
    note = "no check; calls the connection's rollback(), which costs no round trip if no transaction is open"

    def __init__(self, creator: Callable[[], Any], **options: Any) -> None:
        """:param options: parameters of the pool"""
        super().__init__()
        self._creator = creator
        self._options = options

    def open(self) -> None:
        sqlalchemy_pool: Any = import_module(self.package)
        self.pool: Any = sqlalchemy_pool.QueuePool(self._create, **self._options)

    def _create(self) -> Any:
        self.count_connection()
        return self._creator()

    def close(self) -> None:
        self.pool.dispose()

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        proxy = self.pool.connect()
        try:
            yield proxy.dbapi_connection
        finally:
            proxy.close()


class SqlAlchemyDropIn(SqlAlchemy):
    """gcpool.contrib.sqlalchemy.QueuePool."""

    name = "gcpool's QueuePool"
    package = 'gcpool.contrib.sqlalchemy'


class NoPool(Subject):
    """A connection for each thread: speed and fairness where only the machine is shared."""

    name = 'no pool: a connection for each thread'
    note = 'nothing'
    bounded = False

    def __init__(self, connect: Callable[[], Any], threads: int) -> None:
        """:param threads: how many there are at the same time; the connections are made before"""
        super().__init__()
        self._connect = connect
        self._threads = threads

    def open(self) -> None:
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(self._threads):
            self._free.put(self._connect())
            self.count_connection()
        self._of_thread = threading.local()

    def close(self) -> None:
        for _ in range(self._threads):
            self._free.get().close()

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        if not hasattr(self._of_thread, 'lent'):
            self._of_thread.lent = _Lent(self._free)
        yield self._of_thread.lent.conn


class _Lent:
    """A connection that is released when its thread has ended."""

    def __init__(self, free: 'queue.SimpleQueue[Any]') -> None:
        self._free = free
        self.conn = free.get()

    def __del__(self) -> None:
        self._free.put(self.conn)


class DropIn(PsycopgPool):
    """gcpool.psycopg_pool.ConnectionPool."""

    name = 'gcpool.psycopg_pool'
    package = 'gcpool.psycopg_pool'


class RedisPool(Subject):
    """redis.ConnectionPool, which never waits: every thread has its own connection."""

    name = 'redis ConnectionPool (as many as threads)'
    note = 'looks at the socket; nothing at the return'
    pool_class = 'ConnectionPool'
    bounded = False

    def __init__(self, address: tuple[str, int], **options: Any) -> None:
        """:param options: parameters of the pool"""
        super().__init__()
        self._address = address
        self._options = options

    def open(self) -> None:
        redis: Any = import_module('redis')
        subject = self

        class CountedConnection(redis.Connection):  # type: ignore[misc, name-defined, unused-ignore]
            def on_connect(self, *args: Any, **kwargs: Any) -> Any:
                subject.count_connection()
                return super().on_connect(*args, **kwargs)

        host, port = self._address
        pool_class = getattr(redis, self.pool_class)
        self.pool: Any = pool_class(connection_class=CountedConnection, host=host, port=port, **self._options)

    def close(self) -> None:
        self.pool.disconnect()

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        conn = self.pool.get_connection()
        try:
            yield conn
        finally:
            self.pool.release(conn)


class RedisBlockingPool(RedisPool):
    """redis.BlockingConnectionPool."""

    name = pool_class = 'BlockingConnectionPool'
    bounded = True


def serve(
    subject: Subject, query: Callable[[Any], None], waits: list[list[int]]
) -> Callable[[Iterator[int], int, float], int]:
    """Return what each of many threads does: for each ticket take a connection, query, release it.

    :param waits: receives the nanoseconds of each acquire, one list per worker
    """

    def work(tickets: Iterator[int], quota: int, _hold: float) -> int:
        own: list[int] = []
        while next(tickets) < quota:
            asked = perf_counter_ns()
            with subject.connection() as conn:
                own.append(perf_counter_ns() - asked)
                query(conn)
        waits.append(own)
        return len(own)

    return work


def psycopg_subjects(conninfo: str, size: int, threads: int) -> list[Subject]:
    """:param threads: how many threads share the pools"""

    def make_manager() -> Any:
        contrib: Any = import_module('gcpool.contrib.psycopg')
        return contrib.ConnectionManager({ENDPOINT: conninfo}, kwargs={'autocommit': True})

    def connect() -> Any:
        return import_module('psycopg').connect(conninfo, autocommit=True)

    note = 'looks at the socket; rolls back if a transaction is open, takes settings back, discards what is in doubt'
    return [
        GcPool(make_manager, note, max_size=size),
        PsycopgPool(conninfo, min_size=size, max_size=size, kwargs={'autocommit': True}),
        SqlAlchemy(connect, pool_size=size, max_overflow=0),
        GenericConnectionPool(make_manager, note, max_size=size),
        NoPool(connect, threads),
    ]


def redis_subjects(address: tuple[str, int], size: int) -> list[Subject]:
    def make_manager() -> Any:
        contrib: Any = import_module('gcpool.contrib.redis')
        return contrib.RedisConnectionManager({ENDPOINT: {'host': address[0], 'port': address[1]}})

    note = 'looks at the socket; discards it if replies are unread or its session was altered'
    return [
        GcPool(make_manager, note, max_size=size),
        RedisBlockingPool(address, max_connections=size),
        RedisPool(address),
        GenericConnectionPool(make_manager, note, max_size=size),
    ]


def select(statement: str, answer: object) -> Callable[[Any], None]:
    """Make a function that sends a statement by a psycopg connection and looks at the answer."""

    def query(conn: Any) -> None:
        if (row := conn.execute(statement).fetchone()) != (answer,):
            raise RuntimeError(f'{statement} gave {row}')

    return query


def redis_get(key: str, answer: bytes) -> Callable[[Any], None]:
    """Make a function that gets a key by a redis-py connection and looks at the answer."""

    def query(conn: Any) -> None:
        conn.send_command('GET', key)
        if (value := conn.read_response()) != answer:
            raise RuntimeError(f'GET {key} gave {value!r}')

    return query
