# Generated from src/gcpool/psycopg_pool/pool_async.py by .github/scripts/generate_threading.py; do not edit.

"""The connection pool for asyncio, by the name that its module has in psycopg_pool.

The pool for threads is generated from this one.
"""

import time
from collections.abc import Callable
from logging import INFO
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, cast

from psycopg import Connection
from psycopg.errors import ConnectionTimeout
from psycopg.pq import TransactionStatus

from gcpool import exceptions
from gcpool._core import Hold, sync_returning

from ._blocks_threads import IDLE, SyncClientBlock, return_on_close
from ._connections_threads import SyncConnections
from ._engine_threads import ENDPOINT, SyncEngine, SyncManager
from ._originals import OriginalConnectionPool
from ._runtime_threads import SyncReturns, SyncTaking, answer_of, pause, ready_of, require_loop, warn_of_open
from .abc import CT, ConnectFailedCB, ConnectionCB, ConninfoParam, KwargsParam
from .base import HAS_GIL, INFINITY, UNLIMITED, AttemptWithBackoff, logger
from .errors import PoolClosed, PoolTimeout, TooManyRequests

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ['ConnectionPool']


class ConnectionPool(SyncConnections, OriginalConnectionPool[CT], Generic[CT]):
    """A pool of connections to one PostgreSQL database, with the interface of psycopg_pool.

    :param conninfo: where to connect, or a function that returns it for each connect
    :param connection_class: the class whose ``connect()`` is called
    :param kwargs: further arguments of ``connect()``, or a function that returns them
    :param min_size: the number of connections that the pool keeps
    :param max_size: the maximum number of connections; None for ``min_size``
    :param open: whether the pool is opened at once. None opens it, too, with a warning.
    :param configure: called with each new connection
    :param check: called with a connection before a client gets it; if it raises, the client gets another one
    :param reset: called with a connection that was returned, by a task or a thread of the pool
    :param name: the name of the pool in messages; None for ``pool-1``, ``pool-2`` and so on
    :param close_returns: whether ``close()`` of a connection returns it to the pool
    :param timeout: seconds that a client waits at most, unless it passes its own ``timeout``
    :param max_waiting: the maximum number of clients that wait; 0 for no limit
    :param max_lifetime: seconds after which a connection is replaced, each up to 5 % earlier
    :param max_idle: seconds after which an unused connection is closed, if there are more than ``min_size``
    :param reconnect_timeout: seconds of failing connects after which ``reconnect_failed`` is called
    :param reconnect_failed: called with the pool; may be a coroutine function on asyncio
    :param num_workers: maximum number of connections created at the same time to fill the pool
    :raises ValueError: when a size or a number is out of range
    """

    def __init__(
        self,
        conninfo: ConninfoParam = '',
        *,
        connection_class: type[CT] = cast(type[CT], Connection),  # noqa: B008
        kwargs: KwargsParam | None = None,
        min_size: int = 4,
        max_size: int | None = None,
        open: bool | None = None,  # noqa: A002
        configure: ConnectionCB[CT] | None = None,
        check: ConnectionCB[CT] | None = None,
        reset: ConnectionCB[CT] | None = None,
        name: str | None = None,
        close_returns: bool = False,
        timeout: float = 30.0,
        max_waiting: int = 0,
        max_lifetime: float = 60 * 60.0,
        max_idle: float = 10 * 60.0,
        reconnect_timeout: float = 5 * 60.0,
        reconnect_failed: ConnectFailedCB | None = None,
        num_workers: int = 3,
    ):
        self.conninfo = conninfo
        self.connection_class = connection_class
        self.kwargs = kwargs
        self._on_configure = configure
        # Django's own tests read _check.
        self._on_check = self._check = check
        self._on_reset = reset
        self._on_reconnect_failed = reconnect_failed
        self._note_parameters(
            min_size=min_size,
            max_size=max_size,
            name=name,
            close_returns=close_returns,
            timeout=timeout,
            max_waiting=max_waiting,
            max_lifetime=max_lifetime,
            max_idle=max_idle,
            reconnect_timeout=reconnect_timeout,
            num_workers=num_workers,
        )
        self._manager = SyncManager(self)
        self._engine = self._make_engine(self._manager)
        self._ready, self._taking = ready_of(self._engine), SyncTaking(self._engine)
        self._returns = SyncReturns(self._engine)
        self._resetting: dict[int, list[Any]] = {}
        if open:
            warn_of_open(self, True)
        if open is None:
            open = self._open_implicit = True  # noqa: A001
        if open:
            self._open()

    def __del__(self) -> None:
        """Do nothing: psycopg_pool stops its workers here, and those of this pool end when it is gone."""

    def _make_engine(self, manager: SyncManager) -> Any:
        return SyncEngine(manager, self)

    def _warn_of_open(self) -> None:
        warn_of_open(self, False)

    # -- the beginning and the end ------------------------------------------------------------------------------------

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Open the pool, which begins to connect. Opening an open pool does nothing.

        :param wait: whether to wait for ``min_size`` connections, as :py:meth:`wait` does
        :param timeout: seconds to wait at most
        :raises PoolClosed: when the pool was open and is closed
        :raises RuntimeError: (asyncio) when no event loop runs
        """
        self._open()
        if wait:
            self.wait(timeout)

    def _open(self) -> None:
        if not self._closed:
            return
        self._expect_unused()
        require_loop(self)
        self._pass_on_settings()
        # The engine first, which may be opened more than once: if several threads open the pool, none may see it open
        # before it serves. For the order, see _expect_unused().
        self._engine.begin(self._min_size)
        self._closed = False
        self._opened = True

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until the pool has ``min_size`` connections. Any number of callers may wait.

        :param timeout: seconds to wait at most; when they have passed, the pool is closed
        :raises PoolTimeout: when the timeout expires; its cause is the last error of a connect
        :raises PoolClosed: when the pool is closed, or is closed meanwhile
        """
        self._expect_open()
        deadline = time.monotonic() + timeout
        logger.info('waiting for the connections of the pool %r', self.name)
        try:
            self._wait_until_filled(timeout)
            if not self._returns.wait(deadline - time.monotonic()):
                raise exceptions.PoolTimeout('connections are still being reset')
        except exceptions.PoolTimeout as exc:
            self.close()
            raise PoolTimeout(f'the pool {self.name!r} was not ready after {timeout} s') from exc.__cause__
        except exceptions.ConnectionPoolClosedError:
            raise PoolClosed(f'the pool {self.name!r} is closed') from None
        logger.info('the pool %r is ready', self.name)

    def _wait_until_filled(self, timeout: float) -> None:
        if self._min_size:
            # Once more: what counts is how many there are now, not how many there were before.
            self._engine.fill(self._min_size)
            self._engine.wait(max(timeout, 0.0))

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool: clients get ``PoolClosed``, including those that wait.

        Idle connections are closed before this returns; those in use when they are returned. A server that does not
        answer delays nothing: a connect under way is abandoned.

        :param timeout: seconds to wait for the pool's tasks or threads, if positive
        """
        if self._closed:
            return
        self._engine._check_loop()
        self._closed = True
        self._engine.close_unused(timeout)
        self._returns.wait(timeout)
        logger.debug('the pool %r is closed', self.name)

    def __enter__(self) -> 'Self':
        self._open_implicit = False
        self.open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    # -- taking and returning -----------------------------------------------------------------------------------------

    if not TYPE_CHECKING:  # the original's type is enough

        def connection(self, timeout: float | None = None) -> SyncClientBlock:
            """Take a connection for a block: committed at its end, or rolled back if it raises, and returned.

            :param timeout: seconds to wait at most; None for the pool's ``timeout``
            :return: a context manager, and a decorator
            :raises PoolTimeout: when the timeout expires
            """
            return SyncClientBlock(self, timeout)

    def getconn(self, timeout: float | None = None) -> CT:
        """Take a connection, to be returned with :py:meth:`putconn`. Clients are served first come, first served.

        :param timeout: seconds to wait at most; None for the pool's ``timeout``
        :raises PoolTimeout: when the timeout expires; its cause is the last error of a connect, if connects fail
        :raises PoolClosed: when the pool is closed or not open, or is closed meanwhile
        :raises TooManyRequests: when ``max_waiting`` clients are already waiting
        """
        limit = self.timeout if timeout is None else timeout
        is_told = logger.isEnabledFor(INFO)
        if HAS_GIL:
            # As add() does, without the call.
            self._counts.values['requests_num'] += 1
        else:
            self._counts.add('requests_num')
        if (
            self._on_check is None
            and not (is_told or self._closed or self._open_implicit or self.close_returns)
            and limit > 0
            and self._manager.shrink_at == INFINITY
        ):
            ready = self._ready
            # From here on nothing is called until the client has the connection: see Hold.
            conn: CT = ready[ENDPOINT]
            if conn is not ready:
                conn._pool = self
                return conn
        return self._getconn(limit, is_told)

    def _getconn(self, limit: float, is_told: bool) -> CT:
        hold = Hold(self._engine, self._resetting)
        if is_told:
            logger.info('a connection of %r was requested', self.name)
        if self._closed or self._open_implicit:
            self._expect_open()
        if not limit > 0:
            raise self._timed_out(limit)
        check = self._on_check
        try:
            (self._take(limit, limit, hold) if check is None else self._take_checked(limit, check, hold))
            if is_told:
                logger.info('%r has served a connection', self.name)
        except BaseException:
            hold.give_up()
            raise
        conn: CT = hold.conn
        hold.conn = None
        return conn

    def _timed_out(self, limit: float) -> PoolTimeout:
        return PoolTimeout(f'the pool {self.name!r} had no connection after {limit:.2f} s')

    def _take(self, left: float, limit: float, hold: Hold) -> None:
        engine = self._engine
        try:
            hold.conn = conn = self._taking[ENDPOINT, left]
        except exceptions.PoolTimeout as exc:
            self._counts.add('requests_errors')
            raise self._timed_out(limit) from exc.__cause__
        except exceptions.TooManyRequests:
            self._counts.add('requests_errors')
            waiting = engine.get_stats(ENDPOINT)['waiting']
            raise TooManyRequests(
                f'the pool {self.name!r} has {waiting} clients waiting already: max_waiting={self.max_waiting}'
            ) from None
        except exceptions.ConnectionPoolClosedError:
            self._counts.add('requests_errors')
            raise PoolClosed(f'the pool {self.name!r} is already closed') from None
        except ConnectionTimeout as exc:
            # Of a null pool, whose clients connect.
            raise PoolTimeout(f'the pool {self.name!r} had no connection after {limit:.2f} s: {exc}') from exc
        except Exception:
            raise
        except BaseException:
            self._counts.add('requests_errors')
            raise
        try:
            conn._pool = self
            if self.close_returns:
                conn._gcpool_lease = object()
                return_on_close(conn)
            manager = self._manager
            if manager.shrink_at < INFINITY:
                manager.fewest_idle = min(manager.fewest_idle, engine._core.endpoint_size(ENDPOINT, False))
        except BaseException:
            self._take_back_cut_off(conn)
            raise

    def _take_checked(self, limit: float, check: Callable[[Any], Any], hold: Hold) -> None:
        # A connection that fails the check is closed, and the next one is tried at once, or created. Only after the
        # failure of one that was created for this client are there pauses: the next one will fail as well.
        began = time.monotonic()
        backoff: AttemptWithBackoff | None = None
        while True:
            left = limit - (time.monotonic() - began)
            if left <= 0:
                raise self._timed_out(limit)
            self._take(left, limit, hold)
            conn = hold.conn
            try:
                check(conn)
                if conn.pgconn.transaction_status not in {TransactionStatus.IDLE, TransactionStatus.INTRANS}:
                    raise RuntimeError(f'check has broken the connection: {conn}')
            except Exception as exc:
                failed_at = time.monotonic()
                logger.info('a connection failed check: %s', exc)
                self._lose(conn)
            except BaseException:
                self._take_back_cut_off(conn)
                raise
            else:
                return
            if conn._gcpool_made_at >= began:
                backoff = backoff or AttemptWithBackoff()
                resumes_at = min(failed_at + backoff.next_delay(), began + limit)
                pause(max(resumes_at - time.monotonic(), 0.0))

    @sync_returning
    def putconn(self, conn: CT) -> None:
        """Return a connection. If this is interrupted, the connection is closed.

        :raises ValueError: when it does not belong to this pool, or was already returned
        """
        if logger.isEnabledFor(INFO):
            logger.info('a connection is returned to %r', self.name)
        self._expect_own(conn)
        self._return(conn)

    def _return(self, conn: Any) -> None:
        if self._closed:
            conn._pool = None
            self._engine.release(conn, ENDPOINT)
        elif self._on_reset is not None:
            self._begin_reset(conn)
        elif conn.pgconn.transaction_status == IDLE:
            conn._pool = None
            self._engine.release(conn, ENDPOINT)
        else:
            self._take_back(conn)

    def _is_returned_as_it_is(self, conn: Any) -> bool:
        # Read by the decorator of putconn().
        return (
            conn._pool is self
            and conn.pgconn.transaction_status == IDLE
            and not self._closed
            and self._on_reset is None
            and not logger.isEnabledFor(INFO)
        )

    def _begin_reset(self, conn: Any) -> None:
        # Until the reset ends, the connection cannot be returned again. Taking the hold out of the list returns it.
        hold = Hold(self._engine, {})
        hold.conn = conn
        job = self._resetting[id(conn)] = [hold]
        self._returns.put(
            lambda cut_off: self._reset_and_take_back(conn, job, cut_off),
            lambda: self._end_reset(conn, job),
            self._num_workers,
        )

    # -- what is done to all connections ------------------------------------------------------------------------------

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        """Change the size of the pool. New connections are created at once; surplus ones are closed when returned.

        :raises ValueError: when a size is out of range
        """
        min_size, max_size = self._checked_size(min_size, max_size)
        logger.info('resizing the pool %r to min_size=%s and max_size=%s', self.name, min_size, max_size)
        most = max_size or UNLIMITED
        shrinks = min_size < self._min_size
        idle = self._engine._core.endpoint_size(ENDPOINT, False)
        self._min_size, self._max_size = min_size, max_size
        if self._closed and self._opened:
            return
        if shrinks and self._opened:
            self._engine.fill(min_size)
        self._engine.resize(min_idle=0 if self._is_null else most, max_size=most)
        if not shrinks and self._opened:
            self._engine.fill(min_size)
        self._manager.watch_size(self, idle)

    def check(self) -> None:
        """Check the connections that are idle now, one at a time, and replace those that are broken."""
        engine = self._engine
        if self._closed:
            return
        engine.fill(self._min_size)
        checked: set[int] = set()
        conn: Any
        while (conn := engine.try_acquire(ENDPOINT)) is not None:
            if id(conn) in checked:
                engine.release(conn, ENDPOINT)
                return
            checked.add(id(conn))
            try:
                self.check_connection(conn)
            except Exception as exc:
                logger.warning('check() found a broken connection, which is closed: %s: %s', exc, str(conn))
                self._lose(conn)
            except BaseException:
                self._take_back_cut_off(conn)
                raise
            else:
                engine.release(conn, ENDPOINT)

    def drain(self) -> None:
        """Replace all connections with new ones: those in use when they are returned."""
        self._engine.drain()

    def reconnect_failed(self) -> None:
        """Called when connects have failed for ``reconnect_timeout`` seconds, and again after as many more."""
        if self._on_reconnect_failed is not None:
            answer_of(self._on_reconnect_failed(self))

    # -- psycopg_pool's workers, which this pool does not have ---------------------------------------------------------

    def schedule_task(self, task: Any, delay: float) -> None:
        """Refuse, as :py:meth:`run_task` does."""
        raise NotImplementedError('gcpool.psycopg_pool has no maintenance tasks')

    @classmethod
    def worker(cls, q: Any) -> None:
        """Refuse, as :py:meth:`run_task` does."""
        raise NotImplementedError('gcpool.psycopg_pool has no maintenance tasks')
