"""What a pool on asyncio does besides deciding: it waits, connects, checks and closes in tasks.

``gcpool.asyncio`` is written over this module, and ``gcpool.threading``, generated from it, over ``_runtime_threads``.
``SyncRuntime`` there has the methods of ``AsyncRuntime``, without the awaits.
"""

import asyncio
import inspect
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ._core import (
    GRACE,
    LEAST_DISPOSE_TIME,
    AsyncConnectionContext,
    AsyncPool,
    Disposal,
    Entry,
    Lane,
    Lease,
    ReadyConnections,
    Signal,
    Waiter,
    dispose_time,
    load_asyncio,
    logger,
)
from ._time_limits import seconds
from ._workers import PARALLEL_DISPOSALS
from .exceptions import DiscardConnection, PoolTimeout
from .managers import ConnectionT, EndpointT

if sys.version_info >= (3, 11):
    timeout_scope = asyncio.timeout
else:
    from ._timeout310 import timeout_scope

__all__ = ['AsyncRuntime']

ResultT = TypeVar('ResultT')

load_asyncio()

if TYPE_CHECKING:
    ConnectionT_co = TypeVar('ConnectionT_co', covariant=True)
    AsyncFunctionT = TypeVar('AsyncFunctionT', bound=Callable[..., Awaitable[Any]])

    class AsyncContext(AbstractAsyncContextManager[ConnectionT_co], Protocol[ConnectionT_co]):
        """What ``connection()`` returns: a context manager, and a decorator."""

        def __call__(self, function: AsyncFunctionT, /) -> AsyncFunctionT: ...


# The name of the tasks that call on_connection_dead, and the seconds that such a task has to end when the pool is
# closed without a limit.
TELL_DEAD_TASK = 'gcpool-dead'
TELL_DEAD_TIME = 1.0


def set_limit(scope: 'timeout_scope', seconds: float) -> None:
    """Set the time limit of a scope that was entered.

    A cancelled timer stays in the loop until its time. In an empty context it does not keep the task's context alive
    until then, with whatever a request has put there.
    """
    Context().run(scope.reschedule, asyncio.get_running_loop().time() + seconds)


def spawn(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, ResultT], name: str
) -> 'asyncio.Task[ResultT]':
    """Make a task of the pool's own.

    Not with ``loop.create_task()``: a task factory is for the program's tasks. The factories of tracers
    (ddtrace, sentry-sdk) wrap each coroutine in another one. When the task is cancelled before its first step, only the
    outer coroutine ends, and the pool's own never learns of it.
    """
    return asyncio.Task(coroutine, loop=loop, name=name)


def put_all_back(queue: 'deque[Disposal]') -> None:
    """Put the connections of a queue back among the doomed: nobody takes them out of the queue any more."""
    while queue:
        queue.popleft().put_back()


def _is_being_cancelled() -> bool:
    # Whether a CancelledError came from outside. Before 3.11 a task does not tell.
    cancelling = getattr(asyncio.current_task(), 'cancelling', None)
    return cancelling is None or cancelling() > 0


class AsyncRuntime(AsyncPool, Generic[EndpointT, ConnectionT]):
    """The asyncio half of what a pool does besides deciding."""

    # The interpreter reads an attribute fastest that has a slot.
    __slots__ = ('_ready',)

    _ready: ReadyConnections

    asynchronous = True
    _spawn = staticmethod(spawn)

    async def acquire(self, endpoint: EndpointT, timeout: float | None = None) -> ConnectionT:
        """Take a connection out of the pool, or create one.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds that all of it may take: waiting, checking, connecting. 0 is for not waiting, not even
            for a close: then only what is idle, or connected at once, can be had. None means the pool's
            ``acquire_timeout``.
        :return: a connection that nobody else has, to be given back with :py:meth:`release`
        :raises PoolTimeout: (a TimeoutError, and what ``asyncio.TimeoutError`` catches) when the time is over
        :raises ConnectionPoolClosedError: when the pool is closed, or is while this waits
        :raises EventLoopMismatch: when the pool belongs to another event loop
        :raises TypeError: when the endpoint is not hashable, or ``timeout`` is no number
        :raises ValueError: when ``timeout`` is negative or NaN
        :raises Exception: what the connection manager raises; nothing is lost then, nor when this is cancelled

        As in generic-connection-pool; those who wait are served first come, first served.
        """
        if timeout is not None:
            timeout = self._checked_timeout(timeout)
        # What was taken is not lost to a signal handler that raises: no call comes after it (see ReadyConnections), and
        # no jump, at which CPython 3.10 looks for signals, too.
        ready = self._ready
        conn: ConnectionT = ready[endpoint]
        if conn is not ready:
            return conn
        # Here and not in a coroutine of its own: when that returns after something was thrown into it (a time limit of
        # a check, say), CPython 3.10 and 3.12 look for signals before this one goes on.
        waiter = Waiter(endpoint)
        try:
            await self._serve(waiter, self._acquire_timeout if timeout is None else timeout, False)
            conn = waiter.served.conn
            del waiter.served
            return conn
        except BaseException:
            self._abandon(waiter)
            raise

    # In the warning about a coroutine that was never awaited.
    acquire.__qualname__ = 'ConnectionPool.acquire'
    _own_methods = acquire, AsyncPool.release

    if TYPE_CHECKING:
        # Compiled (AsyncPool); here they get the types of the pool's endpoints and connections.
        async def release(self, conn: ConnectionT, endpoint: EndpointT) -> None: ...
        def connection(self, endpoint: EndpointT, timeout: float | None = None) -> AsyncContext[ConnectionT]: ...

    async def _enter(self, context: AsyncConnectionContext, endpoint: EndpointT, timeout: float | None) -> Any:
        waiter = Waiter(endpoint)
        try:
            await self._serve(waiter, self._acquire_timeout if timeout is None else timeout, False)
            # No call: see acquire().
            context.waiter = waiter
            return context.conn
        except BaseException:
            self._abandon(waiter)
            raise

    _enter.__qualname__ = 'ConnectionPool.connection'

    @asynccontextmanager
    async def _connection_by_methods(
        self, endpoint: EndpointT, timeout: float | None
    ) -> AsyncGenerator[ConnectionT, None]:
        conn = await self.acquire(endpoint, timeout=timeout)
        try:
            yield conn
        except BaseException as exc:
            if self._hooks_broken:
                # None if the subclass gives out something of its own, or its user has given it back already.
                entry = self._core.entry_if_acquired(conn, endpoint)
                if entry is not None:
                    entry.break_()
                    await self._judge(entry, exc)
            raise
        finally:
            await self.release(conn, endpoint)

    def _decorate(
        self, function: Callable[..., Awaitable[Any]], endpoint: EndpointT, timeout: float | None
    ) -> Callable[..., Awaitable[Any]]:
        @wraps(function)
        async def with_connection(*args: Any, **kwargs: Any) -> Any:
            async with self.connection(endpoint, timeout):
                return await function(*args, **kwargs)

        return with_connection

    async def _serve(self, waiter: Waiter, timeout: float | None, found_dead: bool, since: float | None = None) -> None:
        raise NotImplementedError

    async def _wait_until_closed(
        self, entry: Entry, deadline: float | None = None, timeout: float | None = None
    ) -> None:
        raise NotImplementedError

    async def _release_after_error(self, lease: Lease, exc: BaseException) -> None:
        """The end of a context whose block raised. The connection is being released, and broken."""
        entry = lease.held
        await self._judge(entry, exc)
        if entry.is_broken:
            await self._discard(lease)
        elif self._hooks_release and lease.is_out:
            await self._finish_release(lease)
        elif self._give_back(lease):
            await self._dispose_doomed()

    async def _release_in_loop(self, lease: Lease) -> None:
        """A release that was called outside of the pool's loop."""
        rest = self._leave_in_loop(lease)
        if rest is not None:
            await rest

    async def _wait_for_disposals(self, tasks: 'list[asyncio.Task[None]]') -> None:
        """What is left of a release that had to have connections closed."""
        if tasks:
            await asyncio.wait(tasks)

    async def _judge(self, entry: Entry, exc: BaseException) -> None:
        """Ask the manager whether what its user's block raised broke the connection. Until then it counts as broken."""
        try:
            verdict: Any = self._manager.is_broken(entry.endpoint, entry.conn, exc)
            if inspect.isawaitable(verdict):
                verdict = await verdict
            if not verdict:
                entry.mark_sound()
        except Exception as failure:
            logger.error(
                'is_broken() for a connection to %r failed, it is disposed of: %s: %s',
                entry.endpoint,
                type(failure).__name__,
                failure,
            )

    async def _discard(self, lease: Lease) -> None:
        """Have a broken connection closed.

        Its user waits LEAST_DISPOSE_TIME for that at most, then closing goes on in the pool's tasks. Otherwise a server
        that no longer answers would keep the user waiting beyond a time limit of the user's own (``asyncio.timeout``
        around the block).
        """
        entry = lease.held
        if not self._retire(lease, True):
            return
        self._doom_due()
        tasks: list[asyncio.Task[None]] = self._spawn_disposals()
        if self._hooks_dead:
            telling = spawn(asyncio.get_running_loop(), Lane(partial(self._tell_dead, entry)), TELL_DEAD_TASK)
            self._tasks.add(telling)
            telling.add_done_callback(self._tasks.discard)
            await asyncio.wait([telling], timeout=LEAST_DISPOSE_TIME)
            if telling.done() and not telling.cancelled():
                telling.result()
        elif tasks:
            await asyncio.wait(tasks, timeout=LEAST_DISPOSE_TIME)

    async def _tell_dead(self, entry: Entry, failure: BaseException | None) -> None:
        if failure is not None:
            # The task was cancelled before its first step: the loop ends.
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
            # Disposes of nothing that is due, as in generic-connection-pool.
            self._release_unreset(lease, isinstance(exc, Exception))
            self._spawn_disposals()
            raise
        else:
            if self._give_back(lease):
                await self._dispose_doomed()

    async def _discard_unreset(self, lease: Lease, why: DiscardConnection) -> None:
        endpoint = lease.held.endpoint
        self._retire(lease, False)
        try:
            logger.info('a connection to %r is disposed of: %s', endpoint, why)
        finally:
            self._doom_due()
            tasks = self._spawn_disposals()
        if tasks:
            # No longer than for a broken connection: see _discard().
            await asyncio.wait(tasks, timeout=LEAST_DISPOSE_TIME)

    # In the warning about a coroutine that was never awaited.
    for rest_of_release in (_release_after_error, _release_in_loop, _wait_for_disposals, _discard, _finish_release):
        rest_of_release.__qualname__ = 'ConnectionPool.release'
    del rest_of_release

    async def _wait(
        self, signal: Signal, deadline: float | None, give_up: Callable[[Waiter], bool], waiter: Waiter
    ) -> bool:
        """Wait until notified (True), or give up when the time is over (False)."""
        try:
            # Loops keep weak references to their tasks, so whatever a task waits for has to keep it alive.
            self._signals.add(signal)
            if deadline is None:
                await signal
                return True
            remaining = deadline - self._core.now()
            if remaining > 0 and not signal.done():
                # In a context of its own for the reason that set_limit() gives.
                timer = signal.get_loop().call_later(remaining, signal, context=Context())
                try:
                    await signal
                finally:
                    timer.cancel()
        finally:
            self._signals.discard(signal)
        # Notified, or the time is over, or both: whether it was served is decided in the core.
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
            alive = bool(await self._bounded(call, deadline, timeout, 'check_aliveness', endpoint))
        else:
            scope = timeout_scope(None)
            try:
                async with scope:
                    set_limit(scope, limit)
                    alive = bool(await call)
                # What swallows its cancellation has not answered in time either.
                alive = alive and not scope.expired()
            except (TimeoutError, asyncio.TimeoutError):
                if not scope.expired():
                    raise
                logger.info('a check of a connection to %r took longer than %s', endpoint, seconds(limit))
                alive = False
        if alive:
            core.end_check(waiter)
        return alive

    def _expect_awaitable(self, call: object, name: str) -> None:
        if not inspect.isawaitable(call):
            raise TypeError(f'{name}() of {self._manager!r} returned {call!r}: expected an awaitable')

    async def _bounded(
        self, call: Awaitable[ResultT], deadline: float | None, timeout: float | None, name: str, endpoint: object
    ) -> ResultT:
        # Awaited in the caller's own task: one of its own (wait_for) may end with a connection in the moment in which
        # its caller is cancelled.
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
                    f'{name}() for endpoint {endpoint!r} was not done when the {seconds(timeout)} of acquire were over'
                ) from None
            raise

    # Disposals run in tasks of their own: a caller that is cancelled does not leave a connection half-closed, nor its
    # slot taken.

    async def _dispose_due(self) -> None:
        await self._dispose_doomed()

    async def _dispose_doomed(self, deadline: float | None = None) -> None:
        tasks = self._spawn_disposals(deadline)
        if tasks:
            # Each disposal is cancelled in time. A disposal that goes on even so is not waited for.
            patience = None if deadline is None else max(deadline - self._core.now(), 0.0) + 2 * GRACE
            await asyncio.wait(tasks, timeout=patience)

    async def _end_tasks(self, deadline: float | None) -> None:
        """Wait for the end of the pool's own tasks, so that none of them outlives ``close()``.

        Tasks that are still at work when the time is over are cancelled, and get GRACE seconds to end.
        """
        # Noted here, too: a signal handler may have raised in the callback that drops an ended task from the list.
        ended: set[asyncio.Task[Any]] = set()
        while left := self._own_tasks() - ended:
            # First the tasks that close connections: an on_connection_dead that waits for this call ends after it only.
            closing = {task for task in left if task.get_name() != TELL_DEAD_TASK}
            tasks = closing or left
            patience: float | None = None if closing else TELL_DEAD_TIME
            if deadline is not None:
                patience = max(deadline - self._core.now(), LEAST_DISPOSE_TIME)
            _, at_work = await asyncio.wait(tasks, timeout=patience)
            for task in at_work:
                task.cancel()
            if at_work:
                _, at_work = await asyncio.wait(at_work, timeout=GRACE)
            if at_work:
                logger.warning('closing the pool: tasks that go on although they were cancelled: %d', len(at_work))
                return
            ended |= tasks
            # The done callbacks of the tasks: asyncio calls them at the next turn of the loop at the latest.
            await asyncio.sleep(0)

    def _own_tasks(self) -> 'set[asyncio.Task[Any]]':
        tasks: set[asyncio.Task[Any]] = set(self._tasks)
        if self._worker is not None and self._worker.task is not None:
            tasks.add(self._worker.task)
        # A dispose that closes the pool does not wait for itself, nor a forked child for what its parent does.
        return {task for task in tasks if task is not asyncio.current_task() and task.get_loop() is self._bound_loop}

    def _begin_disposals(self, deadline: float | None) -> None:
        if self._core.doomed:
            self._spawn_disposals()

    def _spawn_disposals(self, deadline: float | None = None) -> 'list[asyncio.Task[None]]':
        loop = self._bound_loop
        if loop is None or loop.is_closed():
            # A coroutine that outlived its loop. What is doomed remains so.
            return []
        if self._runs_in_other_thread():
            # A coroutine that is finalised there.
            loop.call_soon_threadsafe(self._spawn_disposals, deadline)
            return []
        # One queue for all lanes: a disposal that hangs holds up none of the others.
        queue: deque[Disposal] = deque()
        taken: Disposal | None = None
        try:
            while (taken := self._take_disposal()) is not None:
                queue.append(taken)
            return [self._spawn_disposal(queue, deadline) for _ in range(min(len(queue), PARALLEL_DISPOSALS))]
        except BaseException:
            # A signal handler raised. Lanes that were begun find these connections among the doomed.
            if taken is not None:
                taken.put_back()
            put_all_back(queue)
            raise

    def _spawn_disposal(self, queue: 'deque[Disposal]', deadline: float | None) -> 'asyncio.Task[None]':
        loop: asyncio.AbstractEventLoop = self._bound_loop  # type: ignore[assignment]
        task = spawn(loop, Lane(partial(self._dispose_in_turn, queue, deadline)), 'gcpool-dispose')
        self._tasks.add(task)
        task.add_done_callback(partial(self._lane_ended, queue))
        return task

    def _lane_ended(self, queue: 'deque[Disposal]', task: 'asyncio.Task[None]') -> None:
        self._tasks.discard(task)
        # If a signal handler raised between two lines of the lane, maybe the first, disposals are left in the queue.
        # They go back among the doomed, where the other lanes find them.
        put_all_back(queue)
        if self._core.doomed:
            self._spawn_disposals()

    async def _dispose_in_turn(
        self, queue: 'deque[Disposal]', deadline: float | None, failure: BaseException | None
    ) -> None:
        # A failure before the first step is a cancellation.
        loop_ends = failure is not None
        taken: Disposal | None = None
        try:
            while (taken := queue.popleft() if queue else self._take_disposal()) is not None:
                if loop_ends:
                    # It cancels this, and waits for it: it must not wait for ever.
                    deadline = self._core.now()
                elif self._core.doomed:
                    # The end of one may doom several, and this one may hang: the others are closed beside it.
                    self._spawn_disposals(deadline)
                try:
                    await self._dispose(taken, deadline)
                except GeneratorExit:
                    raise
                except BaseException as exc:
                    # Somebody may be waiting for each of the other slots: first go on.
                    failure = failure or exc
                    loop_ends = loop_ends or (isinstance(exc, asyncio.CancelledError) and _is_being_cancelled())
                finally:
                    taken.put_back()
        finally:
            # Its loop was closed, and nothing can be awaited any more, or a signal handler raised: back they go, now
            # and not when the traceback goes. If other lanes are left, they find them among the doomed.
            if taken is not None:
                taken.put_back()
            put_all_back(queue)
        if failure is not None:
            raise failure

    async def _dispose(self, disposal: Disposal, deadline: float | None) -> None:
        if disposal.entry is None:
            # Its lane was given up, and then it ran all the same.
            return
        timeout = self._dispose_timeout
        if deadline is not None:
            left = dispose_time(deadline, self._core.now())
            timeout = left if timeout is None else min(timeout, left)
        endpoint = disposal.endpoint
        try:
            if timeout is None:
                await disposal
            else:
                async with timeout_scope(None) as scope:
                    set_limit(scope, timeout)
                    await disposal
        except (TimeoutError, asyncio.TimeoutError) as exc:
            # That of the time limit has no text.
            reason = str(exc) or f'the limit was {seconds(timeout)}'
            logger.error('disposing of a connection to %r timed out: %s', endpoint, reason)
        except Exception as exc:
            logger.error('disposing of a connection to %r failed: %s: %s', endpoint, type(exc).__name__, exc)
        else:
            logger.debug('connection to %r disposed of', endpoint)
