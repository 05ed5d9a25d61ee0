"""The pools of gcpool underneath those of :py:mod:`gcpool.contrib.sqlalchemy`.

They pool SQLAlchemy's records. A record has a DBAPI connection, or none after that was invalidated or detached; then
SQLAlchemy connects when the record is next checked out. Everything that SQLAlchemy does for a connection (the check
before use, the reset, recycling, events, invalidation) it does in the record, outside of these pools.
"""

import asyncio
import math
import weakref
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable
from contextvars import Context
from typing import Any, cast

from sqlalchemy import exc
from sqlalchemy import util as sqlalchemy_util
from sqlalchemy.pool import ConnectionPoolEntry, Pool

from gcpool._core import Waiter, load_asyncio, signal_in
from gcpool._limits import MAX_SIZE
from gcpool.exceptions import EventLoopMismatch, PoolTimeout
from gcpool.managers import SyncConnectionManager
from gcpool.threading import ConnectionPool

__all__ = ['ENDPOINT', 'AsyncRecords', 'Records']

# For the signals. SQLAlchemy has imported asyncio already.
load_asyncio()

# An engine has one database, whatever its ``creator`` connects to.
ENDPOINT = 'database'

# Its name since SQLAlchemy 2.1, which means to drop the older one.
await_: Callable[[Any], Any] = getattr(sqlalchemy_util, 'await_', None) or sqlalchemy_util.await_only


class RecordManager(SyncConnectionManager[str, ConnectionPoolEntry]):
    """Has SQLAlchemy's pool make and close its records.

    The time limit of the acquire is not passed on: ``timeout`` of SQLAlchemy's pools limits the wait for a connection,
    and not the connect.

    :param pool: the pool of SQLAlchemy, which holds this manager
    """

    default_endpoint = ENDPOINT

    def __init__(self, pool: Pool) -> None:
        self.pool = weakref.ref(pool)

    def create(self, endpoint: str, timeout: float | None = None) -> ConnectionPoolEntry:
        """Connect, with SQLAlchemy's events and log records of that."""
        # A connection is being checked out of the engine, so it exists.
        return cast('Pool', self.pool())._create_connection()  # noqa: SLF001

    def dispose(self, endpoint: str, conn: ConnectionPoolEntry, timeout: float | None = None) -> None:
        """Close the record's connection, if it has one."""
        conn.close()


class Records(ConnectionPool[str, ConnectionPoolEntry]):
    """A pool of records. Has what programs read of SQLAlchemy's queue: ``maxsize``, ``use_lifo``, ``qsize()`` and so
    on.

    The records that are kept are core connections: served in turn, and at most ``maxsize`` are idle. With ``use_lifo``
    all are extra, and :py:meth:`close_surplus` keeps the number.

    :param owner: the pool of SQLAlchemy
    :param size: the number of connections that are kept; 0 for no limit
    :param limit: maximum number of connections; None for no limit
    :param use_lifo: whether the connection returned last is served first
    :param keep_idle: whether connections are kept at all
    :param name: the name of the pool; None for a numbered one
    """

    def __init__(
        self, owner: Pool, size: int, limit: int | None, *, use_lifo: bool, keep_idle: bool, name: str | None
    ) -> None:
        limit = MAX_SIZE if limit is None else min(limit, MAX_SIZE)
        kept = 0 if use_lifo or not keep_idle else size or MAX_SIZE
        super().__init__(
            RecordManager(owner),
            min_idle=min(kept, limit),
            max_size=limit,
            total_max_size=limit,
            keep='idle',
            idle_timeout=math.inf if use_lifo and keep_idle else 0.0,
            max_lifetime=math.inf,
            name=name,
            _keeps_idle=keep_idle,
        )
        self.maxsize = size
        self.use_lifo = use_lifo
        #: What close_surplus() is for; None where the core knows how many connections are kept.
        self.most_idle = size if use_lifo and keep_idle and size else None

    def __del__(self) -> None:
        """Do not warn: engines are dropped without being closed, and the drivers close the connections."""

    def _serve(self, waiter: Waiter, timeout: float | None, found_dead: bool, since: float | None = None) -> None:
        """Wait for a connection, or make one, with the time limit and the error of SQLAlchemy's pool."""
        # A connection is being checked out of the engine, so it exists.
        owner: Any = cast('RecordManager', self._manager).pool()
        limit = owner._timeout  # noqa: SLF001
        try:
            super()._serve(waiter, None if limit == math.inf else limit, found_dead, since)
        except PoolTimeout as late:
            if late.pool != self.name:  # one of the creator's own
                raise
            raise owner._timed_out() from late  # noqa: SLF001

    def close_surplus(self) -> None:
        """After a return: close the connection that was returned last, if more are idle than are kept."""
        if self.most_idle is not None and self.qsize() > self.most_idle:
            self.close_one_idle()

    def close_one_idle(self) -> bool:
        """Close an idle connection. False if there is none."""
        record = self.try_acquire(ENDPOINT)
        if record is None:
            return False
        self.discard(record)
        return True

    @property
    def max_overflow(self) -> int:
        """Maximum number of connections beyond ``maxsize``; -1 for no limit. Can be set."""
        limit = self.max_size
        return -1 if limit == MAX_SIZE else limit - self.maxsize

    @max_overflow.setter
    def max_overflow(self, value: int) -> None:
        limit = MAX_SIZE if value == -1 or not self.maxsize else min(self.maxsize + value, MAX_SIZE)
        self.resize(max_size=limit, total_max_size=limit)

    def qsize(self) -> int:
        """Return the number of idle connections."""
        return self.get_endpoint_pool_size(ENDPOINT, False)

    def empty(self) -> bool:
        """Whether no connection is idle."""
        return not self.qsize()

    def full(self) -> bool:
        """Whether as many connections are idle as are kept."""
        return 0 < self.maxsize <= self.qsize()


class AsyncRecords(Records):
    """A pool of records for an asyncio engine.

    SQLAlchemy's asyncio engine runs synchronous code in greenlets, which switch to their task where they await. So does
    this pool, and it connects and closes in the greenlet of its caller, as SQLAlchemy's own pool does: a program sees
    its events in the same order, its context variables and its cancellations, and no tasks of the pool are left at the
    end of the loop. A return of a record with no connection awaits nothing: a finaliser may do that without a greenlet,
    and in any thread.

    The pool of :py:mod:`gcpool.asyncio` would do it differently: it connects in its own coroutines, where a record
    would need a greenlet for each, and it does nothing without a running loop. SQLAlchemy's pools need no loop for what
    awaits nothing, and programs rely on that when they start and end.
    """

    # The loop in which the connections were made.
    _loop: asyncio.AbstractEventLoop | None = None

    def enter_loop(self) -> None:
        """Check that the running loop is that of the connections. If there are none, the pool moves to this loop."""
        loop = running_loop()
        if loop is self._loop or loop is None:
            return
        if self._loop is not None and self.get_size():
            state = ', which is closed' if self._loop.is_closed() else ''
            raise EventLoopMismatch(
                f'the connections of this engine belong to the event loop {self._loop!r}{state}; it was now used from '
                f'{loop!r}: expected one engine for each event loop, or `await engine.dispose()` before the loop ends'
            )
        self._loop = loop

    def _arm(self, w: Waiter) -> Any:
        # Without a running loop, a wait is refused: see _wait().
        loop = running_loop()
        if loop is None:
            return None
        signal = signal_in(loop)
        w.arm(signal)
        return signal

    def _wait(self, signal: Any, deadline: float | None, give_up: Callable[[Waiter], bool], waiter: Waiter) -> bool:
        """Wait until notified (True), or give up when the time limit has expired (False). As on asyncio."""
        if signal is None:
            raise exc.MissingGreenlet(
                'the pool of an asyncio engine has to wait for a connection, but no event loop runs here: expected a '
                'call by way of AsyncEngine, AsyncConnection or AsyncSession'
            )
        try:
            # Loops keep weak references to their tasks, so whatever a task waits for has to keep it alive.
            self._waits[signal] = waiter
            if deadline is None:
                self._waits.watch(signal.get_loop(), waiter, math.inf)
                await_(signal)
                return True
            left = deadline - self._core.now()
            self._waits.watch(signal.get_loop(), waiter, deadline)
            if left > 0 and not signal.done():
                # In an empty context: a timer refers to its context until it is due, and so to what that holds.
                timer = signal.get_loop().call_later(left, signal, context=Context())
                try:
                    await_(signal)
                finally:
                    timer.cancel()
        finally:
            self._waits.pop(signal, None)
        return not give_up(waiter)
