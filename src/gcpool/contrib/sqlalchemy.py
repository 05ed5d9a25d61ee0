"""Pools for SQLAlchemy engines: ``create_engine(url, poolclass=QueuePool)``."""

from typing import TYPE_CHECKING, Any, cast

try:
    import sqlalchemy
except ModuleNotFoundError as missing:
    raise ImportError(
        'gcpool.contrib.sqlalchemy needs SQLAlchemy: pip install "gcpool[sqlalchemy]"', name=missing.name
    ) from missing

if int(sqlalchemy.__version__.partition('.')[0]) < 2:
    raise ImportError(
        f'gcpool.contrib.sqlalchemy needs SQLAlchemy 2.0 or later, but {sqlalchemy.__version__} is installed: '
        'pip install "gcpool[sqlalchemy]"',
        name='sqlalchemy',
    )

from sqlalchemy import exc
from sqlalchemy import pool as _pools

from gcpool.contrib._sqlalchemy_options import check_count, check_flag, check_timeout, refuse_unknown
from gcpool.contrib._sqlalchemy_records import ENDPOINT, AsyncRecords, Records

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ['AsyncQueuePool', 'QueuePool']


class QueuePool(_pools.QueuePool):
    """SQLAlchemy's ``QueuePool`` on gcpool's engine, for ``create_engine(url, poolclass=QueuePool)``.

    Has the parameters, methods and errors of the original, and is an instance of it. Threads that wait are served first
    come, first served.

    :param creator: a function that connects, and returns a DBAPI connection; ``create_engine`` passes it
    :param pool_size: the number of idle connections that are kept; 0 for no limit, also for the connections in use
    :param max_overflow: maximum number of connections beyond ``pool_size``; -1 for no limit. Those are closed when they
        are returned, unless an acquire waits for one.
    :param timeout: seconds that a checkout waits at most for a connection to be returned; None for no limit. Connecting
        does not count.
    :param use_lifo: whether the connection returned last is served first, so that those that are not needed stay unused
    :param keep_idle: False to keep no idle connections, as ``sqlalchemy.pool.NullPool`` keeps none: a connection that
        is returned is closed, unless an acquire waits for one. ``pool_size`` and ``max_overflow`` still limit their
        number.
    :param options: those of ``sqlalchemy.pool.Pool``: ``recycle``, ``pre_ping``, ``reset_on_return``, ``echo``,
        ``logging_name``, ``events``, ``dialect``
    :raises TypeError: when a parameter has a wrong type, or does not exist
    :raises ValueError: when ``timeout`` is negative or NaN
    :raises sqlalchemy.exc.ArgumentError: when another parameter is out of range
    """

    # The log records come where programs expect them: under ``sqlalchemy.pool``.
    _sqla_logger_namespace = 'sqlalchemy.pool.impl.QueuePool'

    _records_class: type[Records] = Records
    _keep_idle: bool = True

    def __init__(
        self,
        creator: 'Callable[..., Any]',
        pool_size: int = 5,
        max_overflow: int = 10,
        timeout: float | None = 30.0,
        use_lifo: bool = False,
        # Not keyword-only: create_engine() does not find those.
        keep_idle: bool = True,
        **options: Any,
    ) -> None:
        refuse_unknown(type(self).__name__, options)
        size = check_count('pool_size', pool_size, 0, 'no limit')
        # As in the original, it means nothing where there is no limit.
        overflow = check_count('max_overflow', max_overflow, -1, 'no limit') if size else -1
        # SQLAlchemy does not annotate that it may be None.
        self._timeout = cast('float', check_timeout(timeout))
        limit = None if size == 0 or overflow == -1 else size + overflow
        self._keep_idle = check_flag('keep_idle', keep_idle)
        # Not the __init__ of SQLAlchemy's QueuePool: that builds a queue.
        _pools.Pool.__init__(self, creator, **options)
        self._pool = pool = self._records_class(  # pyright: ignore[reportIncompatibleVariableOverride]
            self, size, limit, use_lifo=bool(use_lifo), keep_idle=keep_idle, name=options.get('logging_name')
        )
        # A checkout costs three calls less where the methods below would only call these. A subclass may have its own.
        if type(self)._do_get is QueuePool._do_get:  # noqa: SLF001
            self._do_get = pool.acquire  # type: ignore[method-assign]
        if pool.most_idle is None and type(self)._do_return_conn is QueuePool._do_return_conn:  # noqa: SLF001
            self._return_conn = pool.release  # type: ignore[method-assign, assignment]

    if TYPE_CHECKING:
        # Instead of SQLAlchemy's queue.
        _pool: Records  # type: ignore[assignment]

    # -- checkout and checkin -----------------------------------------------------------------------------------------

    def _do_get(self) -> 'ConnectionPoolEntry':
        return self._pool.acquire()

    def _timed_out(self) -> exc.TimeoutError:
        return exc.TimeoutError(
            f'QueuePool limit of size {self.size()} overflow {self.overflow()} reached, '
            f'connection timed out, timeout {self._timeout:0.2f}',
            code='3o7r',
        )

    def _do_return_conn(self, record: 'ConnectionPoolEntry') -> None:
        pool = self._pool
        pool.release(record)
        if pool.most_idle is not None:
            pool.close_surplus()

    # -- the life of the pool -----------------------------------------------------------------------------------------

    def recreate(self) -> 'QueuePool':
        """Return a new pool with the same parameters. Connects to nothing, and starts nothing."""
        self.logger.info('Pool recreating')
        # A subclass may not have the others.
        others: dict[str, Any] = {} if self._keep_idle else {'keep_idle': False}
        return self.__class__(
            self._creator,
            pool_size=self.size(),
            max_overflow=self._max_overflow,
            timeout=self._timeout,
            use_lifo=self._pool.use_lifo,
            recycle=self._recycle,
            pre_ping=self._pre_ping,
            reset_on_return=self._reset_on_return,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            dialect=self._dialect,
            _dispatch=self.dispatch,
            **others,
        )

    def dispose(self) -> None:
        """Close the idle connections. Those in use stay open, and the pool remains usable."""
        while self._pool.close_one_idle():
            pass
        self.logger.info('Pool disposed. %s', self.status())

    # -- what programs read -------------------------------------------------------------------------------------------

    def size(self) -> int:
        """Return ``pool_size``."""
        return self._pool.maxsize

    def timeout(self) -> float:
        """Return the seconds that a checkout waits at most; None for no limit."""
        return self._timeout

    def checkedin(self) -> int:
        """Return the number of idle connections."""
        return self._pool.qsize()

    def checkedout(self) -> int:
        """Return the number of connections in use, including those being created or closed."""
        stats = self._pool.get_stats(ENDPOINT)
        return stats['size'] - stats['idle']

    def overflow(self) -> int:
        """Return the number of connections beyond ``pool_size``; negative while there are fewer."""
        return self._overflow if self.size() else 0

    def status(self) -> str:
        """Describe the pool in one line, as SQLAlchemy's does."""
        return (
            f'Pool size: {self.size()}  Connections in pool: {self.checkedin()} '
            f'Current Overflow: {self.overflow()} Current Checked out connections: {self.checkedout()}'
        )

    @property
    def _overflow(self) -> int:  # type: ignore[override]
        return self._pool.get_size() - self.size()

    @property
    def _max_overflow(self) -> int:
        return self._pool.max_overflow

    @_max_overflow.setter
    def _max_overflow(self, value: int) -> None:
        self._pool.max_overflow = check_count('max_overflow', value, -1, 'no limit')


class AsyncQueuePool(QueuePool, _pools.AsyncAdaptedQueuePool):
    """The same for asyncio engines: ``create_async_engine(url, poolclass=AsyncQueuePool)``.

    The engine belongs to the event loop that used it first, as its connections do. Used in another one, it raises
    :py:exc:`gcpool.exceptions.EventLoopMismatch`, unless it has no connections.
    """

    _sqla_logger_namespace = 'sqlalchemy.pool.impl.AsyncAdaptedQueuePool'

    _records_class = AsyncRecords

    if TYPE_CHECKING:
        _pool: AsyncRecords  # type: ignore[assignment]

    def _do_get(self) -> 'ConnectionPoolEntry':
        self._pool.enter_loop()
        return super()._do_get()
