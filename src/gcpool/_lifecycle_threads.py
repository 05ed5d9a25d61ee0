# Generated from src/gcpool/_lifecycle_asyncio.py by .github/scripts/generate_threading.py; do not edit.

"""How a pool is opened and closed, resized, drained and suspended.

The half for threads is generated from the half for asyncio.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Generic

from ._core import Waiter
from ._limits import Limits, check_kept
from ._parameters import check_flag, check_optional_seconds
from ._serving_threads import SyncServing
from ._time_limits import get_deadline, seconds
from .common import ALL_ENDPOINTS, AllEndpoints
from .exceptions import (
    ConnectionPoolClosedError,
    ConnectionPoolNotFound,
    PoolInUse,
    PoolNotSuspended,
    make_pool_timeout,
)
from .managers import ConnectionT, EndpointT

__all__ = ['SyncLifecycle']

if TYPE_CHECKING:
    from typing_extensions import Self


class SyncLifecycle(SyncServing[EndpointT, ConnectionT], Generic[EndpointT, ConnectionT]):
    """Opens, closes, resizes, drains and suspends a pool."""

    __slots__ = ()

    # -- the beginning and the end ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Serve acquires, if the pool was built with ``open=False``. Opening an open pool does nothing.

        This takes no time, connects to nothing, and may be called in any thread and any event loop.

        :raises ConnectionPoolClosedError: when the pool is closed: a closed pool cannot be opened again
        """
        if self._core.closed:
            raise ConnectionPoolClosedError(
                f'{self!r} is closed and cannot be opened again: expected a new pool for more connections'
            )
        if self._core.open(self._core.now()) and self._collector is not None and self._core.collects:
            self._collector.start()

    def __enter__(self) -> 'Self':
        self.open()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(self._close_timeout)

    def close(self, timeout: float | None = None, *, wait: bool = True) -> int:
        """Close the pool: refuse new acquires, fail the waiting ones, close every connection.

        Waits for connections in use and closes each when it is returned. Connections still in use when the timeout
        expires are closed anyway, and their release does nothing. Closing a closed pool waits in the same way. After
        this returns, no task, timer or thread of the pool is at work. On asyncio, closes that are running when the
        timeout expires are cancelled; a close that continues, or that runs in a thread, is logged.

        :param timeout: seconds to wait for connections in use, and to close the others; 0 to not wait, None for no
            limit. After the timeout each close still gets 0.1 s, or 1 ms once the call is nearly 0.5 s late.
        :param wait: False to return at once: tasks or threads of the pool close the idle connections, and those in use
            when they are returned
        :return: how many connections were still in use when the timeout expired (psycopg_pool logs a warning); with
            ``wait=False``, how many are in use
        :raises TypeError: when ``timeout`` is not a number, or ``wait`` not a bool; the pool is not closed then
        :raises ValueError: when ``timeout`` is negative or NaN, or given with ``wait=False``; the pool is not closed
            then
        :raises PoolInUse: when this would wait for its own caller, without a limit: inside a block of
            ``pool.connection()``, or inside a method of the manager that the pool calls; the pool is not closed then
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop; the pool is not closed then
        :raises BaseException: what ``dispose`` raises, unless it is an Exception, which is logged. Threads get it after
            the other connections are closed. On asyncio, tasks of the pool close: a SystemExit is logged, and a
            KeyboardInterrupt ends the event loop's run.
        """
        core = self._core
        limit = check_optional_seconds('timeout', timeout)
        if not check_flag('wait', wait):
            if timeout is not None:
                raise ValueError(f'timeout={timeout!r} with wait=False: expected one of the two')
            self._check_loop()
            self._stop_serving()
            return core.used
        deadline = get_deadline(core.now(), limit)
        waiter = Waiter(None)
        signal = self._arm(waiter)
        if deadline is None:
            try:
                self._refuse_to_wait_for_itself('close')
            except PoolInUse:
                raise
            except BaseException:
                # A close that is cancelled later leaves the pool closed, too.
                self._stop_serving()
                raise
        try:
            core.close()
            self._end_checks()
            self._stop_looking()
            self._dispose_doomed(deadline)
        except BaseException:
            # Tasks or threads of the pool close what this call no longer does.
            try:
                self._stop_serving()
            finally:
                self._leave_doomed_to_workers()
            raise
        try:
            emptied = not core.watch_empty(waiter)
            if not emptied:
                message = 'closing the pool: waiting for %d connections to be returned or closed'
                self._tell_of_pool(None, message, core.size)
                emptied = self._wait(signal, deadline, core.unwatch, waiter)
        except BaseException:
            core.unwatch(waiter)
            raise
        unreleased = 0
        if not emptied:
            unreleased = core.doom_acquired()
            if unreleased:
                self._tell_of_pool(
                    None,
                    'closing the pool: %d connections were not released within %s',
                    unreleased,
                    seconds(timeout),
                    level='warning',
                )
            self._dispose_doomed(deadline)
        self._end_tasks(deadline)
        return unreleased

    def _stop_serving(self) -> None:
        """Close the pool without waiting for anything."""
        try:
            self._and_close(self._core.close, True)
        finally:
            # A signal handler may raise in close(), where it wakes the waiters.
            self._end_checks()
            self._stop_looking()

    # -- the limits ---------------------------------------------------------------------------------------------------

    def resize(
        self,
        *,
        min_idle: int | None = None,
        max_size: int | None = None,
        total_max_size: int | None = None,
        min_size: int | None = None,
        max_waiting: int | None = None,
        max_workers: int | None = None,
    ) -> None:
        """Change the limits while the pool is in use. All of them are checked together before anything is changed.

        When a limit is raised, acquires that wait are served at once. Idle connections beyond a lowered limit are
        closed before this returns, connections in use beyond it when they are returned. A limit that was never given
        continues to adapt to the others.

        :param min_idle: as for the pool; None leaves it unchanged
        :param max_size: the same
        :param total_max_size: the same
        :param min_size: the same
        :param max_waiting: the same; acquires that are already waiting continue to wait
        :param max_workers: the same; work that has begun continues
        :raises TypeError: when one is of a wrong type
        :raises ValueError: when one is out of range, or contradicts another one
        :raises ConnectionPoolClosedError: when the pool is closed
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop
        """
        core = self._core
        self._arm(Waiter(None))  # refuses another event loop
        resized = False
        while not resized:
            known: Limits = self._known_limits()
            limits = known.changed(
                min_idle=min_idle,
                max_size=max_size,
                total_max_size=total_max_size,
                min_size=min_size,
                max_waiting=max_waiting,
                max_workers=max_workers,
            )
            check_kept('min_size', limits.min_size, core.max_lifetime)
            if core.closed:
                raise ConnectionPoolClosedError(
                    f'{self._observer.pool_text} is closed: its limits can no longer be changed'
                )
            try:
                # False if another call has changed them in between: these were checked against the old ones.
                resized = core.resize(core.now(), **limits.as_dict(), limits=limits, expected=known)
            finally:
                self._dispose_doomed()
        self._begin_jobs()
        self._tell_of_pool('resized', 'the limits are %s', self._known_limits().as_dict())

    # -- drain --------------------------------------------------------------------------------------------------------

    def drain(self, endpoint: EndpointT | AllEndpoints = ALL_ENDPOINTS, *, idle_only: bool = False) -> None:
        """Replace the connections of an endpoint, or of all endpoints, with new ones; for example after a failover.

        A connection that exists now, or is being created, is not served again: an idle one is closed by a task or
        thread of the pool, without this waiting for it; one in use is closed when it is returned. Acquires that wait
        keep their places, and get new connections. Drained connections that are not closed yet count as before.
        Draining a closed pool does nothing.

        :param endpoint: the endpoint whose connections are replaced; all endpoints if not given
        :param idle_only: whether only idle connections are closed: those in use, and those that the pool is checking in
            the background, are left alone
        :raises TypeError: when the endpoint is not hashable, or ``idle_only`` is not a bool
        :raises ConnectionPoolNotFound: when the pool does not know the endpoint: it was never used, or it was forgotten
            because it has no connections and no waiters, and was not warmed up
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop
        """
        core = self._core
        check_flag('idle_only', idle_only)
        self._check_loop()
        if endpoint is ALL_ENDPOINTS:
            self._and_close(core.drain_all, core.now(), idle_only)
            self._tell_of_pool('drained', 'all endpoints are drained')
        elif not self._drain_known(endpoint, idle_only) and not core.closed:
            raise ConnectionPoolNotFound(
                f'endpoint={self._observer.text(endpoint)}: {self._observer.pool_text} does not know it: expected an '
                'endpoint that has connections or waiters, or that was warmed up'
            )

    def _drain_known(self, endpoint: EndpointT | AllEndpoints, idle_only: bool) -> bool:
        known: bool = self._and_close(self._core.drain, endpoint, self._core.now(), idle_only)
        if known:
            self._tell('drained', endpoint, '%s is drained')
        return known

    def forget(self, endpoint: EndpointT) -> None:
        """Undo :py:meth:`warm_up`, and drain the endpoint: it is forgotten when its last connection is closed.

        An endpoint that is used again gets new connections, up to ``min_size`` if that is set. Forgetting an endpoint
        that the pool does not know does nothing.

        :param endpoint: the endpoint
        :raises TypeError: when the endpoint is not hashable
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop
        """
        core = self._core
        self._check_loop()
        self._and_close(core.pin, endpoint, 0, core.now())
        self._drain_known(endpoint, False)

    # -- suspend ------------------------------------------------------------------------------------------------------

    def suspend(self, *, fail: bool = False) -> None:
        """Stop serving acquires until :py:meth:`resume`.

        Acquires wait, and their timeouts keep running. Connections that are returned become idle, even if an acquire
        waits for one. An acquire that is connecting or checking already gets its connection: :py:meth:`wait_idle` waits
        for it, too. Suspending a suspended pool changes only ``fail``. May be called in any thread.

        :param fail: whether acquires raise ``PoolSuspended`` at once instead of waiting. As in HikariCP, that holds for
            acquires that begin after this; those that are already waiting keep their places and continue to wait.
        :raises TypeError: when ``fail`` is not a bool
        :raises ConnectionPoolClosedError: when the pool is closed
        """
        # This dooms connections that waited for a check, and whose lifetime has expired.
        if not self._and_close(self._core.suspend, check_flag('fail', fail)):
            raise ConnectionPoolClosedError(f'{self!r} is closed: expected an open pool to suspend')
        self._tell_of_pool('suspended', 'the pool is suspended')

    def resume(self) -> None:
        """End :py:meth:`suspend`: serve the waiting acquires, first come, first served. May be called in any thread.

        :raises PoolNotSuspended: when the pool is not suspended
        """
        # This dooms connections whose lifetime has expired, or whose slots others need.
        if not self._and_close(self._core.resume, self._core.now()):
            raise PoolNotSuspended(f'{self!r} is not suspended: expected suspend() before resume()')
        self._tell_of_pool('resumed', 'the pool is resumed')

    def wait_idle(self, timeout: float | None = None) -> None:
        """Wait until no connection is in use or being created.

        Without :py:meth:`suspend`, that may last for a moment only.

        :param timeout: seconds to wait; None for no limit
        :raises PoolTimeout: when the timeout expires
        :raises PoolInUse: when this would wait for its own caller, without a limit, as for :py:meth:`close`
        :raises TypeError: when ``timeout`` is not a number
        :raises ValueError: when ``timeout`` is negative or NaN
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop
        """
        core = self._core
        deadline = get_deadline(core.now(), check_optional_seconds('timeout', timeout))
        self._check_loop()
        if deadline is None:
            self._refuse_to_wait_for_itself('wait_idle')
        while True:
            waiter = Waiter(None)
            signal = self._arm(waiter)
            try:
                if not core.watch_use(waiter):
                    return
                if not self._wait(signal, deadline, core.unwatch, waiter):
                    raise make_pool_timeout(
                        f'{self._observer.pool_text}: {core.used} connections were still in use after '
                        f'{seconds(timeout)}',
                        self._observer.name,
                        timeout,
                    )
            except BaseException:
                core.unwatch(waiter)
                raise
