"""What a pool on asyncio does besides deciding: it waits, connects, checks, and ends releases that have a hook.

``gcpool.asyncio`` builds on this module, and ``gcpool.threading``, which is generated from it, on ``_runtime_threads``.
``SyncRuntime`` there has the methods of ``AsyncRuntime``, without the awaits.
"""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ._checks_asyncio import AsyncChecks
from ._contexts_asyncio import AsyncContexts
from ._core import (
    LEAST_DISPOSE_TIME,
    AsyncConnectionContext,
    AsyncPool,
    Entry,
    Lane,
    Lease,
    ReadyConnections,
    Signal,
    Waiter,
    checked_seconds,
    load_asyncio,
    logger,
)
from ._creates_asyncio import AsyncCreates, AsyncWorkers
from ._disposals_asyncio import DEAD_HOOK_TASK, set_limit, spawn, timeout_scope
from ._growing_asyncio import AsyncGrowing
from ._time_limits import seconds
from ._workers.core_timer import CoreTimer
from .exceptions import DiscardConnection, PoolTimeout
from .managers import ConnectionT, EndpointT

__all__ = ['AsyncRuntime']

ResultT = TypeVar('ResultT')

load_asyncio()

if TYPE_CHECKING:
    ConnectionT_co = TypeVar('ConnectionT_co', covariant=True)
    AsyncFunctionT = TypeVar('AsyncFunctionT', bound=Callable[..., Awaitable[Any]])

    class AsyncContext(AbstractAsyncContextManager[ConnectionT_co], Protocol[ConnectionT_co]):
        """What ``connection()`` returns: a context manager, and a decorator."""

        def __call__(self, function: AsyncFunctionT, /) -> AsyncFunctionT: ...


class AsyncRuntime(
    AsyncContexts[EndpointT, ConnectionT],
    AsyncGrowing[EndpointT, ConnectionT],
    AsyncCreates,
    AsyncChecks,
    Generic[EndpointT, ConnectionT],
):
    """The asyncio half of what a pool does besides deciding."""

    # In a slot, because the interpreter reads such an attribute fastest.
    __slots__ = ('_creates_paused_until', '_ready', '_timer')

    _ready: ReadyConnections
    _timer: CoreTimer

    asynchronous = True

    def __init__(self, *args: Any, **parameters: Any):
        super().__init__(*args, **parameters)
        self._timer = CoreTimer(self)
        self._creates_paused_until = -math.inf
        self._core.set_workers(AsyncWorkers(self).call)

    async def acquire(self, endpoint: EndpointT, timeout: float | None = None) -> ConnectionT:
        """Take a connection out of the pool, or create one.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds for the whole call: waiting, checking and connecting. 0 does not wait, not even for a
            close: it succeeds only if a connection is idle, or can be created at once. None uses the pool's
            ``acquire_timeout``.
        :return: a connection for the caller's exclusive use, to be returned with :py:meth:`release`
        :raises PoolTimeout: (a TimeoutError, and what ``asyncio.TimeoutError`` catches) when the timeout expires
        :raises ConnectionPoolClosedError: when the pool is closed, or is closed while this waits
        :raises EventLoopMismatch: when the pool belongs to another event loop
        :raises TypeError: when the endpoint is not hashable, or ``timeout`` is not a number
        :raises ValueError: when ``timeout`` is negative or NaN
        :raises Exception: what the connection manager raises; no connection is lost then, nor if this is cancelled

        As in generic-connection-pool. Waiters are served first come, first served.
        """
        if timeout is not None:
            timeout = checked_seconds('timeout', timeout)
        # After the connection was taken, there is no call (see ReadyConnections) and no jump, at which CPython 3.10
        # looks for signals, too: a signal handler that raised there would lose the connection.
        ready = self._ready
        conn: ConnectionT = ready[endpoint]
        if conn is not ready:
            return conn
        # If a signal handler raises before the last line, the waiter is freed, and gives back what it was served.
        waiter = await self._acquire_unready(endpoint, timeout)
        conn = waiter.served.conn
        del waiter.served
        return conn

    # The warning about a coroutine that was never awaited shows this name.
    acquire.__qualname__ = 'ConnectionPool.acquire'
    _own_methods = acquire, AsyncPool.release

    if TYPE_CHECKING:
        # Compiled (AsyncPool); here they get the types of the pool's endpoints and connections.
        async def release(self, conn: ConnectionT, endpoint: EndpointT) -> None: ...
        def connection(self, endpoint: EndpointT, timeout: float | None = None) -> AsyncContext[ConnectionT]: ...

    async def _acquire_unready(self, endpoint: EndpointT, timeout: float | None) -> Waiter:
        """Acquire a connection if none is ready. Returns the waiter that was served it, and still owns it."""
        waiter = Waiter(endpoint)
        try:
            await self._serve(waiter, self._acquire_timeout if timeout is None else timeout, False)
        except BaseException:
            self._abandon(waiter)
            raise
        return waiter

    async def _enter(self, context: AsyncConnectionContext, endpoint: EndpointT, timeout: float | None) -> Any:
        # An assignment and not a call, at whose end a signal handler could raise: see ReadyConnections.
        context.waiter = await self._acquire_unready(endpoint, timeout)
        return context.conn

    _enter.__qualname__ = 'ConnectionPool.connection'

    async def _answer_of(self, answer: Any) -> Any:
        # is_broken() may be a coroutine function or not.
        return await answer if inspect.isawaitable(answer) else answer

    async def _serve(self, waiter: Waiter, timeout: float | None, found_dead: bool, since: float | None = None) -> None:
        raise NotImplementedError

    async def _wait_until_closed(
        self, entry: Entry, deadline: float | None = None, timeout: float | None = None
    ) -> None:
        raise NotImplementedError

    async def _release_after_error(self, lease: Lease, exc: BaseException) -> None:
        """The end of a context whose block raised. The connection is RELEASING, and counts as broken."""
        entry = lease.held
        await self._judge(entry, exc)
        if entry.is_broken:
            # A coroutine that is closed cannot await anything.
            await self._discard(lease, waits=not isinstance(exc, GeneratorExit))
        elif self._hooks_release and lease.is_checked_out:
            await self._finish_release(lease)
        elif self._finish_in_core(lease):
            await self._dispose_doomed()

    async def _release_in_loop(self, lease: Lease) -> None:
        """A release that was called outside of the pool's loop."""
        remaining = self._start_release_in_loop(lease)
        if remaining is not None:
            await remaining

    async def _discard(self, lease: Lease, waits: bool = True) -> None:
        """Have a broken connection closed.

        Its user waits for that for at most LEAST_DISPOSE_TIME; then the pool's tasks go on. Otherwise a server that no
        longer answers would keep the user waiting beyond a time limit of the user's own (``asyncio.timeout`` around the
        block).
        """
        entry = lease.held
        if not self._retire(lease, True):
            return
        self._doom_due()
        tasks: list[asyncio.Task[None]] = self._spawn_disposals()
        if not waits:
            if self._hooks_dead:
                self._tell_when_closed(entry)
        elif self._hooks_dead:
            hook = spawn(asyncio.get_running_loop(), Lane(partial(self._run_dead_hook, entry)), DEAD_HOOK_TASK)
            self._tasks.add(hook)
            hook.add_done_callback(self._tasks.discard)
            await asyncio.wait([hook], timeout=LEAST_DISPOSE_TIME)
            if hook.done() and not hook.cancelled():
                hook.result()
        elif tasks:
            await asyncio.wait(tasks, timeout=LEAST_DISPOSE_TIME)

    async def _run_dead_hook(self, entry: Entry, failure: BaseException | None) -> None:
        if failure is not None:
            # The task was cancelled before its first step, because the loop ends.
            raise failure
        await self._wait_until_closed(entry)
        await self._manager.on_connection_dead(entry.endpoint, entry.conn)

    async def _finish_release(self, lease: Lease) -> None:
        """What is left of a release that has a hook to run first."""
        entry = lease.held
        try:
            await self._manager.on_release(entry.endpoint, entry.conn)
        except DiscardConnection as exc:
            await self._discard_unreset(lease, exc)
        except BaseException as exc:
            # Closes no connections that are due, as in generic-connection-pool.
            self._release_unreset(lease, isinstance(exc, Exception))
            self._spawn_disposals()
            raise
        else:
            if self._finish_in_core(lease):
                await self._dispose_doomed()

    async def _discard_unreset(self, lease: Lease, why: DiscardConnection) -> None:
        endpoint = lease.held.endpoint
        self._retire(lease, False)
        try:
            logger.info('on_release asked to close a connection to %r: %s', endpoint, why)
        finally:
            self._doom_due()
            tasks = self._spawn_disposals()
        if tasks:
            # For no longer than for a broken connection: see _discard().
            await asyncio.wait(tasks, timeout=LEAST_DISPOSE_TIME)

    # The warning about a coroutine that was never awaited shows this name.
    for rest_of_release in (_release_after_error, _release_in_loop, _discard, _finish_release):
        rest_of_release.__qualname__ = 'ConnectionPool.release'
    del rest_of_release

    async def _wait(
        self, signal: Signal, deadline: float | None, give_up: Callable[[Waiter], bool], waiter: Waiter
    ) -> bool:
        """Wait until notified (True), or give up when the time limit has expired (False)."""
        try:
            # Loops keep weak references to their tasks, so whatever a task waits for has to keep it alive.
            self._signals.add(signal)
            if deadline is None:
                await signal
                return True
            remaining = deadline - self._core.now()
            if remaining > 0 and not signal.done():
                # In an empty context, for the reason that set_limit() gives.
                timer = signal.get_loop().call_later(remaining, signal, context=Context())
                try:
                    await signal
                finally:
                    timer.cancel()
        finally:
            self._signals.discard(signal)
        # The waiter was notified, or its time limit has expired, or both: the core knows whether it was served.
        return not give_up(waiter)

    async def _create(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        call = self._manager.create(waiter.endpoint)
        self._expect_awaitable(call, 'create')
        return await self._bounded(self._connecting(waiter, call), deadline, timeout, 'create', waiter.endpoint)

    async def _check(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        core = self._core
        endpoint = waiter.endpoint
        core.begin_check(waiter)
        call = self._manager.check_aliveness(endpoint, waiter.served.conn)
        limit = self._check_timeout
        self._expect_awaitable(call, 'check_aliveness')
        if limit is None or (deadline is not None and deadline <= core.now() + limit):
            alive = self._is_alive(await self._bounded(call, deadline, timeout, 'check_aliveness', endpoint))
        else:
            scope = timeout_scope(None)
            try:
                async with scope:
                    set_limit(scope, limit)
                    alive = self._is_alive(await call)
                # A check that swallows its cancellation and returns has not answered in time either.
                alive = alive and not scope.expired()
            except (TimeoutError, asyncio.TimeoutError):
                if not scope.expired():
                    raise
                logger.info('a check of a connection to %r took longer than %s', endpoint, seconds(limit))
                alive = False
            waiter.check_timed_out = scope.expired()
        if alive:
            core.end_check(waiter)
        return alive

    def _expect_awaitable(self, call: object, name: str) -> None:
        if not inspect.isawaitable(call):
            raise TypeError(f'{name}() of {self._manager!r} returned {call!r}: expected an awaitable')

    async def _bounded(
        self, call: Awaitable[ResultT], deadline: float | None, timeout: float | None, name: str, endpoint: object
    ) -> ResultT:
        # Awaited in the caller's own task. In a task of its own (wait_for), create() may return a connection at the
        # moment when the caller is cancelled, and the connection would be lost.
        if deadline is None:
            return await call
        scope = timeout_scope(None)
        try:
            async with scope:
                set_limit(scope, max(deadline - self._core.now(), 0.0))
                return await call
        except (TimeoutError, asyncio.TimeoutError):
            if scope.expired():
                raise PoolTimeout(
                    f'{name}() for endpoint {endpoint!r} did not end within the acquire timeout of {seconds(timeout)}'
                ) from None
            raise
