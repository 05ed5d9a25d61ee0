"""What a pool for threads does besides deciding: it waits, connects, checks, closes. Much is compiled (SyncPool).

``gcpool.threading`` is generated from ``gcpool.asyncio``. It builds on this module as that builds on
``_runtime_asyncio``.
"""

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from . import _long_waits
from ._contexts_threads import SyncContexts
from ._core import LEAST_DISPOSE_TIME, Entry, SyncPool, Waiter
from ._growing_threads import SyncGrowing
from ._own_use import describe_own_use, running_hook, thread_holds
from ._workers import before_fork
from ._workers.workers_threads import SyncWorkers
from .exceptions import PoolInUse
from .managers import ConnectionT, EndpointT

__all__ = ['SyncRuntime']

if TYPE_CHECKING:
    ConnectionT_co = TypeVar('ConnectionT_co', covariant=True)
    FunctionT = TypeVar('FunctionT', bound=Callable[..., Any])

    class SyncContext(AbstractContextManager[ConnectionT_co], Protocol[ConnectionT_co]):
        """What ``connection()`` returns: a context manager, and a decorator."""

        def __call__(self, function: FunctionT, /) -> FunctionT: ...


# Seconds that the workers get to end when the pool is closed without a limit. They have nothing more to close.
IDLE_THREADS_TIME = 10.0


class SyncRuntime(
    SyncContexts[EndpointT, ConnectionT], SyncGrowing[EndpointT, ConnectionT], Generic[EndpointT, ConnectionT]
):
    """The threads' half of what a pool does besides deciding. Much of it is compiled (SyncPool)."""

    asynchronous = False

    if TYPE_CHECKING:
        # Compiled (SyncPool); here they get the types of the pool's endpoints and connections.
        def acquire(self, endpoint: EndpointT = ..., timeout: float | None = None) -> ConnectionT:
            """Take a connection out of the pool, or create one.

            :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
            :param timeout: seconds for the whole call: waiting, checking and connecting. 0 does not wait, not even for
                a close: it succeeds only if a connection is idle, or can be created at once. None uses the pool's
                ``acquire_timeout``.
            :return: a connection for the caller's exclusive use, to be returned with :py:meth:`release`
            :raises PoolTimeout: (a TimeoutError) when the timeout expires
            :raises ConnectionPoolClosedError: when the pool is closed, or is closed while this waits
            :raises TypeError: when the endpoint is not hashable, or ``timeout`` is not a number
            :raises ValueError: when ``timeout`` is negative or NaN
            :raises Exception: what the connection manager raises; no connection is lost then

            As in generic-connection-pool. Waiters are served first come, first served.
            """
            ...

        def release(self, conn: ConnectionT, endpoint: EndpointT = ...) -> None:
            """Return a connection to the pool.

            :param conn: what :py:meth:`acquire` returned
            :param endpoint: the endpoint that the connection was acquired for; if it is given, it is compared
            :raises ConnectionNotAcquired: when it is not in use, or belongs to another endpoint; nothing is changed
                then
            :raises Exception: what the manager's ``on_release`` raises; the connection is returned all the same

            As in generic-connection-pool, without a background collector this also closes connections that are due.
            """
            ...

        def try_acquire(self, endpoint: EndpointT = ...) -> ConnectionT | None:
            """Take an idle connection that is ready for use, or nothing. Neither waits nor connects, checks or closes.

            Waiters come first. A connection whose check is due, or whose lifetime is over, is not taken, nor is any if
            the manager has an ``on_acquire``, or checks each connection (``check_interval=0``): then this always
            returns None.

            :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
            :return: a connection, to be returned with :py:meth:`release`, or None
            :raises ConnectionPoolClosedError: when the pool is closed
            :raises TypeError: when the endpoint is not hashable
            """
            ...

        def discard(self, conn: ConnectionT) -> None:
            """Close a connection that was acquired, instead of returning it. It is closed when this returns.

            No hook is called. The endpoint's other connections are not suspected. Inside of ``with pool.connection()``,
            the end of the block does nothing then.

            :param conn: what :py:meth:`acquire` returned
            :raises ConnectionNotAcquired: when it is not in use; nothing is changed then
            """
            ...

        def detach(self, conn: ConnectionT) -> None:
            """Keep a connection that was acquired: the pool forgets it and never closes it, and its slot is free at
            once.

            No hook is called. Inside of ``with pool.connection()``, the end of the block does nothing then.

            :param conn: what :py:meth:`acquire` returned
            :raises ConnectionNotAcquired: when it is not in use, or ``close()`` has closed it; nothing is changed then
            """
            ...

        def connection(
            self, endpoint: EndpointT = ..., timeout: float | None = None, *, long: bool = False
        ) -> SyncContext[ConnectionT]:
            """A context manager that acquires a connection and returns it; as a decorator, around each call.

            When the block raises, the manager's ``is_broken`` is asked whether the exception broke the connection. A
            broken connection is closed. An error of ``is_broken`` is logged, and counts as a yes. Leaving raises what
            :py:meth:`release` raises: ``ConnectionNotAcquired`` if the block has returned the connection itself, and
                what ``on_release`` raises.

            :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
            :param timeout: seconds that acquiring may take, as for :py:meth:`acquire`; entering raises what that raises
            :param long: whether the block may take longer than ``leak_threshold``: then it is no leak
            :raises TypeError: when ``timeout`` is not a number
            :raises ValueError: when ``timeout`` is negative or NaN
            """
            ...

        # Of BaseConnectionPool.
        def _stop_looking(self) -> None: ...

    _own_methods = SyncPool.acquire, SyncPool.release

    def __init__(self, *args: Any, **parameters: Any):
        super().__init__(*args, **parameters)
        self._waiting: dict[int, Waiter] = {}
        self._workers = SyncWorkers(self, f'gcpool-{self._observer.name}')
        self._core.set_workers(self._workers.call)

    def _answer_of(self, answer: Any) -> Any:
        return answer

    def _expect_awaitable(self, call: Any, name: str) -> Any:
        # Only asyncio expects one.
        return call

    def _serve(self, waiter: Waiter, timeout: float | None, found_dead: bool, since: float | None = None) -> None:
        raise NotImplementedError

    def _arm(self, w: Waiter) -> threading.Lock:
        # A taken lock serves as an event that happens once. It is looked up here, so that monkey-patching reaches it.
        lock = threading.Lock()
        lock.acquire()
        w.arm(lock.release)
        if self._waiting:
            # Set if this runs in a signal handler, and its thread waits in this pool.
            w.interrupt(self._waiting.get(threading.get_ident()))
        return lock

    def _wait(
        self, signal: threading.Lock, deadline: float | None, give_up: Callable[[Waiter], bool], waiter: Waiter
    ) -> bool:
        """Wait until notified (True), or give up when the time limit has expired (False).

        While a close counts as relief, this expires it when it stops counting: the close may hang. If no thread can be
        started, this makes attempts to connect at their time, too. A long wait is logged.
        """
        core = self._core
        # The thread that was to make the next attempt may have died, and no other one could be started then.
        if not core.lacks_workers and core.next_timer() < core.relief_ends_at():
            lacks_workers = not self._workers.keep_one_for_timers()
        else:
            lacks_workers = core.lacks_workers
        limit = math.inf if deadline is None else deadline
        # Infinite for a wait that is not an acquire's.
        log_at = waiter.waits_from + _long_waits.LONG_WAIT
        relief_ends_at = math.inf
        thread = threading.get_ident()
        interrupted = self._waiting.get(thread)
        try:
            self._waiting[thread] = waiter
            while True:
                lacks_workers = lacks_workers or core.lacks_workers
                relief_ends_at = core.next_timer() if lacks_workers else core.relief_ends_at()
                remaining = max(min(limit, relief_ends_at, log_at) - core.now(), 0.0)
                if signal.acquire(timeout=-1 if remaining == math.inf else min(remaining, threading.TIMEOUT_MAX)):
                    return True
                if log_at < min(limit, relief_ends_at):
                    log_at = math.inf
                    self._waits.log_of_thread(self, waiter)
                elif relief_ends_at < limit:
                    core.run_timers(core.now(), False)
                    # If no thread can be started, this acquire closes, and is not late because of that.
                    self._begin_disposals(deadline)
                elif remaining <= threading.TIMEOUT_MAX:
                    break
        finally:
            if interrupted is None:
                self._waiting.pop(thread, None)
            else:
                self._waiting[thread] = interrupted
            # This acquire no longer expires the relief, nor does a waiter that began to wait before the close.
            if relief_ends_at < math.inf and core.relief_ends_at() < math.inf:
                self._workers.keep_one_for_timers()
        if give_up(waiter):
            return False
        # The waiter was served at this very moment, and is about to be notified.
        signal.acquire()
        return True

    def _create(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        return self._create_within(waiter, self._left(deadline))

    def _check(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        return self._check_within(waiter, self._left(deadline))

    def _check_groups(self, groups: list[list[Entry]]) -> int:
        """Check idle connections, one after the other. Returns how many were dead, and are closed."""
        return sum(self._check_idle(entry) for group in groups for entry in group)

    def _tell_when_closed(self, entry: Entry) -> None:
        # Whoever closes the connection calls on_connection_dead.
        entry.mark_to_be_told()

    def _end_checks(self) -> None:
        # A check in a thread cannot be cut off.
        pass

    def _dispose_due(self) -> None:
        self._begin_disposals()

    def _begin_jobs(self) -> None:
        # For a worker that ends, maybe of an exception that somebody raised in it, and when more may be at work.
        self._begin_disposals()
        core = self._core
        if core.has_creates:
            core.ask_workers()
        elif core.next_timer() < math.inf:
            self._workers.keep_one_for_timers()

    def _end_tasks(self, deadline: float | None) -> None:
        """Wait for the end of the pool's threads, so that none of them outlives ``close()``."""
        patience = IDLE_THREADS_TIME if deadline is None else max(deadline - self._core.now(), LEAST_DISPOSE_TIME)
        until = self._core.now() + patience
        at_work = 0
        # The collector first: it may have called another worker.
        for workers in (self._collector, self._workers):
            if workers is None:
                continue
            waited_for: list[threading.Thread] = []
            threads = workers.stop()
            # A thread may have started another one before it ended.
            while {*threads}.difference(waited_for):
                for thread in threads:
                    thread.join(max(until - self._core.now(), 0.0))
                waited_for += threads
                threads = workers.stop()
            # One that is idle has been told to end. On a busy machine it may not have noticed.
            at_work += len({*threads}.difference(before_fork.idle_threads))
        if at_work:
            self._tell_of_pool(
                None, 'closing the pool: threads that are still closing a connection: %d', at_work, level='warning'
            )
        self._end_events(until)

    def _end_events(self, until: float) -> None:
        # After the threads that close: what they tell is told, too. Not longer than a close of a connection may take.
        events = self._observer.events
        for thread in [] if events is None else events.threads():
            thread.join(max(until - self._core.now(), 0.0))

    def terminate(self) -> None:
        """Close the pool now, as ``close(0)`` does, without waiting for its threads.

        May be called anywhere: in a signal handler, by ``atexit``, and in any thread. It closes the connections itself,
        each within 0.1 s, or within 1 ms once it has taken nearly 0.5 s, if the manager keeps to its time limits. It
        neither starts nor joins a thread, because a signal handler may have interrupted just that.
        """
        core = self._core
        now = core.now()
        self._stop_looking()
        self._workers.stop()
        try:
            core.close()
        finally:
            try:
                core.doom_acquired()
            finally:
                self._dispose_doomed(now)

    def _refuse_to_wait_for_itself(self, method: str) -> None:
        """Raise PoolInUse if the pool would wait for a connection that the caller of a method has in use."""
        hook = running_hook(self._manager)
        if hook is not None:
            raise PoolInUse(describe_own_use(self, method, f"the manager's {hook}()"))
        if self._core.used and thread_holds(self):
            raise PoolInUse(describe_own_use(self, method, 'a block of connection() of the same thread'))

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(deadline - self._core.now(), 0.0)
