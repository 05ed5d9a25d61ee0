"""What a pool on asyncio does besides deciding: it waits, connects and checks.

``gcpool.asyncio`` builds on this module, and ``gcpool.threading``, which is generated from it, on ``_runtime_threads``.
``SyncRuntime`` there has the methods of ``AsyncRuntime``, without the awaits.
"""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from ._contexts_asyncio import AsyncContexts
from ._core import (
    UNSET,
    AsyncConnectionContext,
    AsyncPool,
    Entry,
    ReadyConnections,
    Signal,
    Waiter,
    checked_seconds,
    load_asyncio,
)
from ._creates_asyncio import AsyncCreates
from ._disposals_asyncio import set_limit, timeout_scope
from ._growing_asyncio import AsyncGrowing
from ._own_use import describe_own_use, running_hook, task_holds
from ._releases_asyncio import AsyncReleases
from ._time_limits import seconds
from ._workers.core_timer import CoreTimer
from ._workers.workers_asyncio import AsyncWorkers
from .exceptions import PoolInUse, PoolTimeout
from .managers import ConnectionT, EndpointT

__all__ = ['AsyncRuntime']

ResultT = TypeVar('ResultT')

# What a method of the manager is for, as a PoolTimeout says it.
_PHASES = {'create': 'create', 'check_aliveness': 'check'}

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
    AsyncReleases,
    Generic[EndpointT, ConnectionT],
):
    """The asyncio half of what a pool does besides deciding."""

    # In a slot, because the interpreter reads such an attribute fastest.
    __slots__ = ('_creates', '_creates_paused_until', '_ready', '_timer')

    _ready: ReadyConnections
    _timer: CoreTimer

    asynchronous = True

    def __init__(self, *args: Any, **parameters: Any):
        super().__init__(*args, **parameters)
        self._timer = CoreTimer(self)
        self._creates = set()
        self._creates_paused_until = -math.inf
        self._core.set_workers(AsyncWorkers(self).call)

    async def acquire(self, endpoint: EndpointT = UNSET, timeout: float | None = None) -> ConnectionT:
        """Take a connection out of the pool, or create one.

        :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
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
        async def release(self, conn: ConnectionT, endpoint: EndpointT = ...) -> None:
            """Return a connection to the pool. The call itself does that, whatever becomes of the coroutine it returns.

            :param conn: what :py:meth:`acquire` returned
            :param endpoint: the endpoint that the connection was acquired for; if it is given, it is compared
            :raises ConnectionNotAcquired: when it is not in use, or belongs to another endpoint; nothing is changed
                then
            :raises EventLoopMismatch: when the pool belongs to another event loop
            :raises Exception: what the manager's ``on_release`` raises; the connection is returned all the same

            As in generic-connection-pool, without a background collector this also closes connections that are due.
            """
            ...

        def release_nowait(self, conn: ConnectionT, endpoint: EndpointT = ...) -> None:
            """Return a connection to the pool from code that cannot await: a finaliser, a callback, another thread.

            After this call the connection is returned, or is on its way: a second release raises. ``on_release`` runs
            in a task of the pool, in an empty context; what it raises is logged. From another thread, the pool's event
            loop does the rest. If that no longer runs, so that no hook can be awaited, the connection is returned
            without ``on_release``: it is checked before it is served, or closed if the manager has no check.

            :param conn: what :py:meth:`acquire` returned
            :param endpoint: the endpoint that the connection was acquired for; if it is given, it is compared
            :raises ConnectionNotAcquired: when it is not in use, or belongs to another endpoint; nothing is changed
                then
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
            :raises EventLoopMismatch: when the pool belongs to another event loop
            :raises TypeError: when the endpoint is not hashable
            """
            ...

        async def discard(self, conn: ConnectionT) -> None:
            """Close a connection that was acquired, instead of returning it. The call itself takes it out of the pool.

            Awaiting waits until the connection is closed; if that is cancelled, the close goes on. No hook is called.
            The endpoint's other connections are not suspected. Inside of ``async with pool.connection()``, the end of
            the block does nothing then.

            :param conn: what :py:meth:`acquire` returned
            :raises ConnectionNotAcquired: when it is not in use; nothing is changed then
            :raises EventLoopMismatch: when the pool belongs to another event loop
            """
            ...

        def detach(self, conn: ConnectionT) -> None:
            """Keep a connection that was acquired: the pool forgets it and never closes it, and its slot is free at
            once.

            May be called in any thread. No hook is called. Inside of ``async with pool.connection()``, the end of the
            block does nothing then.

            :param conn: what :py:meth:`acquire` returned
            :raises ConnectionNotAcquired: when it is not in use, or ``close()`` has closed it; nothing is changed then
            """
            ...

        def connection(
            self, endpoint: EndpointT = ..., timeout: float | None = None, *, long: bool = False
        ) -> AsyncContext[ConnectionT]:
            """An asynchronous context manager that acquires a connection and returns it; as a decorator, around each
            call.

            When the block raises, the manager's ``is_broken`` is asked whether the exception broke the connection. A
            broken connection is closed; leaving the block waits at most 0.1 s for that, and the close goes on in the
            background. An error of ``is_broken`` is logged, and counts as a yes. Leaving raises what :py:meth:`release`
            raises: ``ConnectionNotAcquired`` if the block has returned the connection itself, and what ``on_release``
            raises.

            :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
            :param timeout: seconds that acquiring may take, as for :py:meth:`acquire`; entering raises what that raises
            :param long: whether the block may take longer than ``leak_threshold``: then it is no leak
            :raises TypeError: when ``timeout`` is not a number
            :raises ValueError: when ``timeout`` is negative or NaN
            """
            ...

        # Of BaseConnectionPool.
        def _stop_looking(self) -> None: ...
        def _timed_out(
            self, phase: str, endpoint: Any, deadline: float, timeout: float, what: str, limit: str | None = None
        ) -> PoolTimeout: ...

    async def aclose(self, timeout: float | None = None, *, wait: bool = True) -> int:
        """:py:meth:`close`, by the name that ``contextlib.aclosing`` calls."""
        return await self.close(timeout, wait=wait)

    def terminate(self) -> None:
        """Close the pool now, as ``close(0)`` does, without waiting for the closes of its connections.

        May be called anywhere: in a signal handler, by ``atexit``, in any thread, and after the event loop was closed.
        If the pool's loop is not closed, tasks in it close the connections, each within 0.1 s, as soon as it runs. If
        it is closed, the connections cannot be closed any more: the pool drops them, and the driver's finalizers close
        the sockets, often with a ResourceWarning.
        """
        core = self._core
        self._stop_looking()
        try:
            core.close()
        finally:
            try:
                core.doom_acquired()
            finally:
                self._end_closes_at_once()

    async def _refuse_to_wait_for_itself(self, method: str) -> None:
        """Raise PoolInUse if the pool would wait for a connection that the caller of a method has in use."""
        hook = running_hook(self._manager)
        if hook is not None:
            raise PoolInUse(describe_own_use(self, method, f"the manager's {hook}()"))
        task = asyncio.current_task()
        if self._core.used and task is not None:
            # What the task is in the middle of can be seen only while it waits.
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[bool] = loop.create_future()
            loop.call_soon(self._look_into_task, task, answer, context=Context())
            if await answer:
                raise PoolInUse(describe_own_use(self, method, 'a block of connection() of the same task'))

    def _look_into_task(self, task: 'asyncio.Task[Any]', answer: 'asyncio.Future[bool]') -> None:
        if not answer.done():
            answer.set_result(task_holds(task.get_coro(), self))

    async def _acquire_unready(self, endpoint: EndpointT, timeout: float | None) -> Waiter:
        """Acquire a connection if none is ready. Returns the waiter that was served it, and still owns it."""
        if endpoint is UNSET:
            endpoint = self._checked_default_endpoint()
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

    async def close(self, timeout: float | None = None, *, wait: bool = True) -> int:
        """Closes the pool: see AsyncLifecycle."""
        raise NotImplementedError

    async def _wait(
        self, signal: Signal, deadline: float | None, give_up: Callable[[Waiter], bool], waiter: Waiter
    ) -> bool:
        """Wait until notified (True), or give up when the time limit has expired (False)."""
        try:
            # Loops keep weak references to their tasks, so whatever a task waits for has to keep it alive.
            self._waits[signal] = waiter
            if deadline is None:
                self._waits.watch(signal.get_loop(), waiter, math.inf)
                await signal
                return True
            remaining = deadline - self._core.now()
            self._waits.watch(signal.get_loop(), waiter, deadline)
            if remaining > 0 and not signal.done():
                # In an empty context, for the reason that set_limit() gives.
                timer = signal.get_loop().call_later(remaining, signal, context=Context())
                try:
                    await signal
                finally:
                    timer.cancel()
        finally:
            self._waits.pop(signal, None)
        # The waiter was notified, or its time limit has expired, or both: the core knows whether it was served.
        return not give_up(waiter)

    async def _create(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        call = self._manager.create(waiter.endpoint)
        self._expect_awaitable(call, 'create')
        ticket = waiter.served
        try:
            return await self._bounded(self._connecting(waiter, call), deadline, timeout, 'create', waiter.endpoint)
        except Exception as exc:
            # Not if the connection is there, and its taking into the books failed.
            if waiter.has_ticket:
                self._note_connect_failed(ticket, exc)
            raise

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
                self._tell(None, endpoint, 'a check of a connection to %s took longer than %s', seconds(limit))
                alive = False
            waiter.check_timed_out = scope.expired()
        if alive:
            core.end_check(waiter)
        return alive

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
                what = 'connecting to' if name == 'create' else 'checking a connection to'
                raise self._timed_out(
                    _PHASES[name],
                    endpoint,
                    deadline,
                    cast('float', timeout),
                    f'{what} %s: {name}() did not end in time',
                ) from None
            raise
