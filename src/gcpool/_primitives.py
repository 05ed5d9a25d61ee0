"""What truly differs between threads and asyncio, in pairs: to wait, connect, check, dispose, work in the background.

``gcpool.asyncio`` is written over the asynchronous half; ``gcpool.threading`` is generated from it, over the other.
Each ``SyncX`` has the methods of its ``AsyncX``, without the awaits.
"""

import asyncio
import inspect
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import Context
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ._core import (
    ENDLESS,
    GRACE,
    LEAST_DISPOSE_TIME,
    AsyncPool,
    Disposal,
    Entry,
    Lane,
    Signal,
    SyncPool,
    Waiter,
    dispose_time,
    logger,
)
from .exceptions import DiscardConnection, PoolTimeout
from .managers import ConnectionT, EndpointT

if sys.version_info >= (3, 11):
    timeout_scope = asyncio.timeout
else:
    from ._timeout310 import timeout_scope

__all__ = ['AsyncRuntime', 'AsyncWorker', 'SyncRuntime', 'SyncWorker']

ResultT = TypeVar('ResultT')

if TYPE_CHECKING:
    ConnectionT_co = TypeVar('ConnectionT_co', covariant=True)
    FunctionT = TypeVar('FunctionT', bound=Callable[..., Any])
    AsyncFunctionT = TypeVar('AsyncFunctionT', bound=Callable[..., Awaitable[Any]])

    class AsyncContext(AbstractAsyncContextManager[ConnectionT_co], Protocol[ConnectionT_co]):
        """What ``connection()`` returns: a context manager, and a decorator."""

        def __call__(self, function: AsyncFunctionT, /) -> AsyncFunctionT: ...

    class SyncContext(AbstractContextManager[ConnectionT_co], Protocol[ConnectionT_co]):
        """What ``connection()`` returns: a context manager, and a decorator."""

        def __call__(self, function: FunctionT, /) -> FunctionT: ...


# How many connections are disposed of side by side.
PARALLEL_DISPOSALS = 64

# The name of the tasks that close connections, and the seconds between two looks at a connection that none of them has.
DISPOSE_TASK = 'gcpool-dispose'
UNKNOWN_LANE_PAUSE = 0.01

# The name of the tasks that call on_connection_dead, and the seconds that such a task has to end when the pool is
# closed without a limit.
TELL_DEAD_TASK = 'gcpool-dead'
TELL_DEAD_TIME = 1.0

# Seconds after which the collector of an asyncio pool goes on when its task was cancelled.
COLLECTOR_PAUSE = 0.1


def seconds(value: float | None) -> str:
    """A time limit for a message."""
    return 'no limit' if value is None else f'{value:g} s'


def not_before(deadline: float | None, earliest: float) -> float | None:
    """A deadline that is not before some time."""
    return None if deadline is None else max(deadline, earliest)


def get_deadline(now: float, timeout: float | None) -> float | None:
    """When a time limit will be over; None for never."""
    return None if timeout is None or timeout >= ENDLESS else now + timeout


def set_limit(scope: 'timeout_scope', seconds: float) -> None:
    """Set the time limit of a scope that was entered.

    A cancelled timer stays in the loop until its time. In an empty context it does not keep the task's context alive
    until then, with whatever a request has put there.
    """
    Context().run(scope.reschedule, asyncio.get_running_loop().time() + seconds)


# ---------------------------------------------------------------------------------------------------------------------
# Waiting, connecting, checking, disposing
# ---------------------------------------------------------------------------------------------------------------------


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

    asynchronous = True
    disposals_at_once = PARALLEL_DISPOSALS

    if TYPE_CHECKING:
        # Compiled (AsyncPool); here they get the types of the pool's endpoints and connections.
        async def acquire(self, endpoint: EndpointT, timeout: float | None = None) -> ConnectionT: ...
        async def release(self, conn: ConnectionT, endpoint: EndpointT) -> None: ...
        def connection(self, endpoint: EndpointT, timeout: float | None = None) -> AsyncContext[ConnectionT]: ...

    async def _acquire_unready(self, waiter: Waiter, timeout: float | None) -> None:
        try:
            await self._serve(waiter, self._acquire_timeout if timeout is None else timeout, False)
        except BaseException:
            # The coroutine around this does so too, but not when it is collected as part of a cycle.
            self._abandon(waiter)
            raise

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

    async def _release_after_error(self, entry: Entry, exc: BaseException) -> None:
        """The end of a context whose block raised. The entry is being released."""
        try:
            await self._judge(entry, exc)
        except BaseException:
            # Whatever came between, it was not found whole.
            entry.break_()
            self._leave_without_hook(entry)
            raise
        if entry.is_broken or (self._hooks_release and self._core.is_out(entry)):
            await self._finish_release(entry)
        elif self._release_entry(entry) is not None:
            await self._dispose_doomed()

    async def _judge(self, entry: Entry, exc: BaseException) -> None:
        """Ask the manager whether what its user's block raised broke a connection."""
        broken = True
        try:
            verdict: Any = self._manager.is_broken(entry.endpoint, entry.conn, exc)
            if inspect.isawaitable(verdict):
                verdict = await verdict
            broken = bool(verdict)
        except Exception as failure:
            logger.error(
                'is_broken() for a connection to %r failed, it is disposed of: %s: %s',
                entry.endpoint,
                type(failure).__name__,
                failure,
            )
        finally:
            if broken:
                entry.break_()

    async def _discard(self, entry: Entry) -> None:
        """Have a broken connection closed.

        Its user waits LEAST_DISPOSE_TIME for that at most, then closing goes on in the pool's tasks. Otherwise a server
        that no longer answers would keep the user waiting beyond a time limit of the user's own (``asyncio.timeout``
        around the block).
        """
        self._core.distrust_endpoint(entry)
        if not self._core.retire_to_doomed(entry):
            return
        self._doom_due()
        tasks: list[asyncio.Task[None]] = self._spawn_disposals()
        if self._hooks_dead:
            telling = spawn(self._loop, Lane(partial(self._tell_dead, entry, tasks)), TELL_DEAD_TASK)
            self._tasks.add(telling)
            telling.add_done_callback(self._tasks.discard)
            await asyncio.wait([telling], timeout=LEAST_DISPOSE_TIME)
            if telling.done() and not telling.cancelled():
                telling.result()
        elif tasks:
            await asyncio.wait(tasks, timeout=LEAST_DISPOSE_TIME)

    async def _tell_dead(
        self, entry: Entry, disposals: 'list[asyncio.Task[None]]', failure: BaseException | None
    ) -> None:
        if failure is not None:
            # The task was cancelled before its first step: the loop ends.
            raise failure
        await self._wait_until_gone(entry, disposals)
        await self._manager.on_connection_dead(entry.endpoint, entry.conn)

    async def _wait_until_gone(self, entry: Entry, disposals: 'list[asyncio.Task[None]]') -> None:
        """Wait until a connection is closed, be it by other tasks than those that were to do so.

        A lane that a signal handler interrupts leaves its connections to other lanes.
        """
        while entry.state_name != 'gone':
            if disposals:
                await asyncio.wait(disposals, return_when=asyncio.FIRST_COMPLETED)
            else:
                # A signal handler has raised while the lane was being made, and the pool does not know of it.
                await asyncio.sleep(UNKNOWN_LANE_PAUSE)
            disposals = self._spawn_disposals() or [task for task in self._tasks if task.get_name() == DISPOSE_TASK]

    async def _finish_release(self, todo: object) -> None:
        if isinstance(todo, Entry):
            if todo.is_broken:
                await self._discard(todo)
                return
            try:
                await self._manager.on_release(todo.endpoint, todo.conn)
            except DiscardConnection as exc:
                self._core.retire_to_doomed(todo)
                try:
                    logger.info('a connection to %r is disposed of: %s', todo.endpoint, exc)
                finally:
                    self._doom_due()
                    tasks = self._spawn_disposals()
                if tasks:
                    # No longer than for a broken connection: see _discard().
                    await asyncio.wait(tasks, timeout=LEAST_DISPOSE_TIME)
                return
            except BaseException as exc:
                # Disposes of nothing that is due, as in generic-connection-pool.
                self._release_unreset(todo, isinstance(exc, Exception))
                self._spawn_disposals()
                raise
            if self._release_entry(todo) is None:
                return
        await self._dispose_doomed()

    async def _wait(
        self, signal: Signal, deadline: float | None, give_up: Callable[[Waiter], bool], waiter: Waiter
    ) -> bool:
        """Wait until notified (True), or give up when the time is over (False)."""
        # Loops keep weak references to their tasks, so whatever a task waits for has to keep it alive.
        self._signals.add(signal)
        try:
            if deadline is None:
                await signal
                return True
            remaining = deadline - self._core.now()
            if remaining > 0 and not signal.done():
                # In a context of its own for the reason that set_limit() gives.
                timer = self._loop.call_later(remaining, signal, context=Context())
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

    async def _dispose_dead(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> None:
        dead_entry = waiter.dead_entry
        if dead_entry is None:
            return
        disposal: Disposal | None = None
        try:
            disposal = self._take_disposal(waiter)
            if disposal is None:
                return
            task = self._spawn_disposal(deque([disposal]), None)
        except BaseException:
            # Not when the traceback goes: whoever cleans up after this acquire is to find it.
            if disposal is not None:
                disposal.put_back()
            raise
        earliest = self._core.now() + LEAST_DISPOSE_TIME
        closing = self._wait_until_gone(dead_entry, [task])
        await self._bounded(closing, not_before(deadline, earliest), timeout, 'dispose', waiter.endpoint)

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
        return {task for task in tasks if task is not asyncio.current_task() and task.get_loop() is self._loop}

    def _begin_disposals(self, waiter: Waiter, deadline: float | None) -> float:
        """Dispose of what is doomed, without waiting for the end of it.

        :return: until when that is worth waiting for at least
        """
        self._spawn_disposals()
        return self._core.now() + LEAST_DISPOSE_TIME

    def _spawn_disposals(self, deadline: float | None = None) -> 'list[asyncio.Task[None]]':
        loop = self._bound_loop
        if loop is None or loop.is_closed():
            # A coroutine that outlived its loop. What is doomed remains so.
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
        task = spawn(loop, Lane(partial(self._dispose_in_turn, queue, deadline)), DISPOSE_TASK)
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


class SyncRuntime(SyncPool, Generic[EndpointT, ConnectionT]):
    """The half for threads of what a pool does besides deciding. Much of it is compiled (SyncPool)."""

    asynchronous = False
    # The collector leaves nothing among the doomed that a release could find there, and dispose of.
    disposals_at_once = 1

    if TYPE_CHECKING:
        # Compiled too.
        def acquire(self, endpoint: EndpointT, timeout: float | None = None) -> ConnectionT: ...
        def release(self, conn: ConnectionT, endpoint: EndpointT) -> None: ...
        def connection(self, endpoint: EndpointT, timeout: float | None = None) -> SyncContext[ConnectionT]: ...

    @contextmanager
    def _connection_by_methods(self, endpoint: EndpointT, timeout: float | None) -> Generator[ConnectionT, None, None]:
        conn = self.acquire(endpoint, timeout=timeout)
        try:
            yield conn
        except BaseException as exc:
            if self._hooks_broken:
                # None if the subclass gives out something of its own, or its user has given it back already.
                entry = self._core.entry_if_acquired(conn, endpoint)
                if entry is not None:
                    self._judge(entry, exc)
            raise
        finally:
            self.release(conn, endpoint)

    def _decorate(self, function: Callable[..., Any], endpoint: EndpointT, timeout: float | None) -> Callable[..., Any]:
        @wraps(function)
        def with_connection(*args: Any, **kwargs: Any) -> Any:
            with self.connection(endpoint, timeout):
                return function(*args, **kwargs)

        return with_connection

    def _serve(self, waiter: Waiter, timeout: float | None, found_dead: bool, since: float | None = None) -> None:
        raise NotImplementedError

    def _arm(self, waiter: Waiter) -> threading.Lock:
        # A lock that is taken is an event that happens once; looked up here, so that monkey-patching reaches it.
        lock = threading.Lock()
        lock.acquire()
        waiter.arm(lock.release)
        return lock

    def _wait(
        self, signal: threading.Lock, deadline: float | None, give_up: Callable[[Waiter], bool], waiter: Waiter
    ) -> bool:
        """Wait until notified (True), or give up when the time is over (False)."""
        if deadline is None:
            signal.acquire()
            return True
        while True:
            remaining = max(deadline - self._core.now(), 0.0)
            if signal.acquire(timeout=min(remaining, threading.TIMEOUT_MAX)):
                return True
            if remaining <= threading.TIMEOUT_MAX:
                break
        if give_up(waiter):
            return False
        # It was served in this very moment, by somebody who is about to say so.
        signal.acquire()
        return True

    def _create(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        return self._create_within(waiter, self._left(deadline))

    def _check(self, waiter: Waiter, deadline: float | None, timeout: float | None) -> bool:
        return self._check_within(waiter, self._left(deadline))

    def _begin_disposals(self, waiter: Waiter, deadline: float | None) -> float:
        self._dispose_own(waiter, deadline)
        return 0.0

    def _end_tasks(self, deadline: float | None) -> None:
        """Nothing: what is closed in threads is closed by whoever calls."""

    def _left(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(deadline - self._core.now(), 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Working in the background
# ---------------------------------------------------------------------------------------------------------------------


class AsyncWorker:
    """Runs a pool's ``_collect`` when something is due: a timer of the loop while there is nothing to do.

    It holds no strong reference to the pool, and no task waits, so that a forgotten pool is collected and a loop ends.

    :param pool: the pool; ``await pool._collect()`` returns the seconds until it is to be called again, None for never
    """

    def __init__(self, pool: Any, name: str):
        self._pool = weakref.ref(pool)
        self._timer: asyncio.TimerHandle | None = None
        #: The task that collects just now; None if none does.
        self.task: asyncio.Task[None] | None = None
        self._stopped = False
        self.wakeups = 0

    def start(self) -> None:
        """Nothing: the first connection that becomes idle wakes it."""

    def wake(self) -> None:
        """Something is due earlier than known. Called in the loop's thread."""
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pool = self._pool()
        if pool is None:
            return
        if self.task is not None and not self.task.done() and self.task.get_loop() is pool._bound_loop:
            # When it is done it looks what is due next.
            return
        self._work(pool)

    def at_work(self) -> bool:
        """Whether what is due will be closed: always, since this sets the timer if neither timer nor task is there."""
        if self._timer is None and (self.task is None or self.task.done()):
            self.wake()
        return True

    def _work(self, pool: Any, min_delay: float = 0.0) -> None:
        loop = pool._bound_loop
        if loop is None or loop.is_closed():
            # A coroutine that outlived its loop gave a connection back.
            return
        if self._timer is not None:
            self._timer.cancel()
        delay = pool._due_in()
        # In an empty context, which the collector's task inherits. The context of the task that gave back the first
        # connection may be a request's, and would be kept as long as the pool.
        self._timer = None if delay is None else loop.call_later(max(delay, min_delay), self._ring, context=Context())

    def _ring(self) -> None:
        self._timer = None
        self.wakeups += 1
        pool = self._pool()
        if pool is not None and not self._stopped:
            self.task = task = spawn(pool._bound_loop, pool._collect(), 'gcpool-collector')
            task.add_done_callback(self._ended)

    def _ended(self, task: 'asyncio.Task[Any]') -> None:
        self.task = None
        pool = self._pool()
        if pool is not None and not self._stopped:
            # Cancelled, maybe before its first step: as all tasks of a loop that ends. If this one does not, the work
            # goes on in a moment.
            self._work(pool, COLLECTOR_PAUSE if task.cancelled() else 0.0)

    def stop(self) -> None:
        """Do not work any more; what is being disposed of goes on."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SyncWorker:
    """Runs a pool's ``_collect`` when something is due: a daemon thread that sleeps until then.

    It holds no strong reference to the pool while it sleeps, and ends when the pool is gone. A thread that has died
    (somebody raised an exception in it) or stayed behind in the process that this one was forked from is replaced when
    a thread is needed. Where no thread can be started, releases do its work until one can be.

    :param pool: the pool; ``pool._collect()`` returns the seconds until it is to be called again, None for never
    """

    _getpid = staticmethod(os.getpid)

    def __init__(self, pool: Any, name: str):
        self._news = self._new_news()
        self._name = name
        self._pool = weakref.ref(pool, lambda _: self._ring(self._news))
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._complained = False
        self.wakeups = 0

    def start(self) -> None:
        """Start the thread, if one can be started."""
        self._start()

    def wake(self) -> bool:
        """Something is due earlier than known. False if there is no thread that could see to it."""
        at_work = self.at_work()
        self._ring(self._news)
        return at_work

    def at_work(self) -> bool:
        """Whether a thread sees to what is due. One is started if there is none."""
        return self._stopped or self._lives() or self._start()

    def _lives(self) -> bool:
        # The process is compared first: threading may not know of the fork, and have the thread still alive.
        return self._pid == self._getpid() and self._thread is not None and self._thread.is_alive()

    def _start(self) -> bool:
        # Two threads may come here at once: the later one's collector stays, the other collector is told, and ends.
        news = self._new_news()
        self._news, news = news, self._news
        # The thread is handed its own Thread object. It may not find that by itself: gevent's monkey-patching changes
        # what the current thread is taken to be.
        thread = threading.Thread(target=lambda: self._run(thread), name=self._name, daemon=True)
        self._thread = thread
        self._pid = self._getpid()
        try:
            thread.start()
        except (RuntimeError, MemoryError) as exc:
            # There are too many threads, or the interpreter ends: no fault of the caller, who gives a connection back.
            if not self._complained:
                logger.warning('%s cannot be started, releases do its work until it can: %s', self._name, exc)
            self._complained = True
            return False
        finally:
            self._ring(news)
        self._complained = False
        return True

    def _new_news(self) -> tuple[threading.Lock, int]:
        # A lock as an event that can be set from anywhere, also from a weak reference's callback in the middle of
        # setting it: taken while there is nothing new. It comes with the process that it belongs to.
        news = threading.Lock()
        news.acquire()
        return news, self._getpid()

    def _ring(self, news: tuple[threading.Lock, int]) -> None:
        # Of no other module anything, nothing global: the last pools go when the modules are being taken apart.
        lock, pid = news
        if pid != self._getpid():
            # The lock is that of the process that this one was forked from, and a thread of that process waits for it.
            # Where Python was not told of the fork, the lock would be handed over to that thread, which is not here.
            return
        try:
            lock.release()
        except RuntimeError:
            # It was set already, and the thread has not seen it yet.
            return

    def _run(self, thread: threading.Thread) -> None:
        news = self._news
        while True:
            pool = self._pool()
            if pool is None or self._stopped or self._thread is not thread:
                # gevent's threads outlive a fork, which has threading forget them. One that it does not know cannot
                # end in order; this makes it known.
                threading.current_thread()
                # The ring that woke it may have been for the one that took its place.
                self._ring(news)
                return
            try:
                delay = pool._collect()
            except BaseException:
                # A manager's dispose raised what is no Exception. The connection is accounted for; others will be due.
                logger.last_resort('the collector of %r goes on after an error', pool)
                delay = pool._due_in()
            del pool
            if delay is None:
                news[0].acquire()
            else:
                news[0].acquire(timeout=min(delay, threading.TIMEOUT_MAX))
            self.wakeups += 1

    def stop(self) -> None:
        """End the thread; what it is disposing of it still does."""
        self._stopped = True
        self.wake()
