"""The tasks of a pool on asyncio. Most of them close connections."""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from ._core import (
    GRACE,
    LEAST_DISPOSE_TIME,
    PARALLEL_DISPOSALS,
    AsyncPool,
    Disposal,
    Entry,
    Guarded,
    Lane,
    dispose_time,
)
from ._time_limits import seconds
from ._workers.core_timer import CoreTimer
from ._workers.loop_timer import TIMER_LATENESS

if sys.version_info >= (3, 11):
    timeout_scope = asyncio.timeout
else:
    from ._timeout310 import timeout_scope

__all__ = ['PAUSE', 'AsyncDisposals', 'is_being_cancelled', 'set_limit', 'spawn', 'timeout_scope']

ResultT = TypeVar('ResultT')

# The endings of the names of the tasks that call on_connection_dead and on_event, and the seconds that such a task gets
# to end when the pool is closed without a limit.
HOOK_TASKS = ('-dead', '-events')
HOOK_TIME = 1.0

# Seconds during which the pool creates nothing itself after one of its tasks was cancelled, as all are at the end of
# asyncio.run().
PAUSE = 0.1


def set_limit(scope: 'timeout_scope', seconds: float) -> None:
    """Set the time limit of a scope that was entered.

    A cancelled timer stays in the loop until its time. Its context is empty: otherwise the timer would keep the task's
    context alive until then, with everything that a request has put there.
    """
    Context().run(scope.reschedule, asyncio.get_running_loop().time() + seconds)


def spawn(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, ResultT], name: str
) -> 'asyncio.Task[ResultT]':
    """Create a task of the pool.

    Not with ``loop.create_task()``: a task factory is for the program's tasks. The factories of tracers
    (ddtrace, sentry-sdk) wrap each coroutine in another one. When the task is cancelled before its first step, only the
    outer coroutine ends, and the pool's own coroutine never learns of it.
    """
    return asyncio.Task(Guarded(coroutine, name), loop=loop, name=name)


def put_all_back(queue: 'deque[Disposal]') -> None:
    """Put the connections of a queue back among the doomed, because no lane takes them out of the queue any more."""
    while queue:
        queue.popleft().put_back()


def is_being_cancelled() -> bool:
    # Whether a CancelledError came from outside the task. Before 3.11 a task does not know.
    cancelling = getattr(asyncio.current_task(), 'cancelling', None)
    return cancelling is None or cancelling() > 0


class AsyncDisposals(AsyncPool):
    """Closes doomed connections, in tasks of the pool.

    If a caller closed a connection itself and was cancelled, the connection would stay half-closed, and its slot taken.
    """

    __slots__ = ()

    _timer: CoreTimer
    _creates_paused_until: float
    _spawn = staticmethod(spawn)

    if TYPE_CHECKING:

        def _spawn_checks(self) -> None: ...

    def _task_name(self, job: str) -> str:
        return f'gcpool-{self._observer.name}-{job}'

    def _spawn_job(
        self,
        begin: Callable[[BaseException | None], Coroutine[Any, Any, None]],
        job: str,
        ended: Callable[['asyncio.Task[None]'], object],
    ) -> 'asyncio.Task[None]':
        """Do one job in its own task, in an empty context. The pool keeps the task until it has ended.

        In the context of the caller, a connection would keep what the request that caused its creation has put there:
        the first request's trace would live as long as the connection.

        :param begin: see Lane
        :param job: the end of the task's name
        :param ended: called with the task when it has ended
        """
        return Context().run(self._spawn_for_caller, begin, job, ended)

    def _spawn_for_caller(
        self,
        begin: Callable[[BaseException | None], Coroutine[Any, Any, None]],
        job: str,
        ended: Callable[['asyncio.Task[None]'], object],
    ) -> 'asyncio.Task[None]':
        """The same in the context of the caller, who waits for it."""
        loop: asyncio.AbstractEventLoop = self._bound_loop  # type: ignore[assignment]
        task = spawn(loop, Lane(begin), self._task_name(job))
        self._tasks.add(task)
        task.add_done_callback(ended, context=Context())
        return task

    def _job_ended(self, task: 'asyncio.Task[None]') -> None:
        """Begin the jobs that waited for the job of a task, if ``max_workers`` limits the jobs at work."""
        self._tasks.discard(task)
        try:
            if task.cancelled():
                # The loop ends, or the pool is closed: tasks that were created now would never run. Closes are begun
                # anyway, because nothing else would close these connections.
                self._creates_paused_until = self._core.now() + PAUSE
                self._core.give_up_checks(self._core.now())
            self._begin_jobs()
        finally:
            self._timer.set(self)

    def _begin_jobs(self) -> None:
        """Begin the jobs that may begin, in the order in which workers take them."""
        try:
            # Not the method as AsyncChecks overrides it: checks come last.
            AsyncDisposals._begin_disposals(self)
        finally:
            try:
                if self._core.has_creates:
                    self._core.ask_workers()
            finally:
                if self._core.checks_to_begin:
                    self._spawn_checks()

    async def _wait_for_disposals(self, tasks: 'list[asyncio.Task[None]]') -> None:
        """The rest of a release after which connections are to be closed."""
        if tasks:
            await asyncio.wait(tasks)

    _wait_for_disposals.__qualname__ = 'ConnectionPool.release'

    async def _dispose_due(self) -> None:
        await self._dispose_doomed()

    async def _dispose_doomed(self, deadline: float | None = None) -> None:
        tasks = self._spawn_disposals(deadline)
        if tasks:
            # Each disposal is cancelled when its time limit has expired. If one continues even so, the pool does not
            # wait for it.
            patience = None if deadline is None else max(deadline - self._core.now(), 0.0) + 2 * GRACE
            await asyncio.wait(tasks, timeout=patience)

    async def _end_tasks(self, deadline: float | None) -> None:
        """Wait for the end of the pool's tasks, so that none of them outlives ``close()``.

        Tasks that are still at work when the time limit has expired are cancelled, and get GRACE seconds to end.
        """
        # Ended tasks are noted here, too: a signal handler may have raised in the callback that drops them from _tasks.
        ended: set[asyncio.Task[Any]] = set()
        while left := self._own_tasks() - ended:
            # First the tasks that close connections: an on_connection_dead may wait for this very call to end.
            closing = {task for task in left if not task.get_name().endswith(HOOK_TASKS)}
            tasks = closing or left
            patience: float | None = None if closing else HOOK_TIME
            if deadline is not None:
                patience = max(deadline - self._core.now(), LEAST_DISPOSE_TIME)
            _, at_work = await asyncio.wait(tasks, timeout=patience)
            for task in at_work:
                task.cancel()
            if at_work:
                _, at_work = await asyncio.wait(at_work, timeout=GRACE)
            if at_work:
                message = 'closing the pool: tasks that did not end when they were cancelled: %d'
                self._tell_of_pool(None, message, len(at_work), level='warning')
                return
            ended |= tasks
            # For the done callbacks of the tasks, which asyncio calls at the next turn of the loop at the latest.
            await asyncio.sleep(0)

    def _end_closes_at_once(self) -> None:
        """For terminate(), wherever it was called: close the doomed connections in the pool's loop, or drop them."""
        loop = self._bound_loop
        # Also in the loop's own thread: a signal handler may run while the loop sleeps, and this wakes it.
        if loop is None or loop.is_closed() or not self._call_in_loop(self._spawn_disposals, self._core.now()):
            self._drop_connections()

    def _drop_connections(self) -> None:
        """Forget the doomed connections: they belong to a loop that is closed, where nothing can be awaited."""
        core = self._core
        dropped = 0
        while self._tasks or core.doomed:
            while self._tasks:
                task = self._tasks.pop()
                if not task.done():
                    # asyncio would log that the task was never done. The connections that it was about to close become
                    # doomed again.
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    task.get_coro().close()
                del task
            entry = core.take_doomed()
            if entry is not None:
                core.disposed(entry, core.now())
                core.forget_closed(entry)
                dropped += 1
        if dropped:
            self._tell_of_pool(
                None, 'the event loop of the pool is closed: dropped %d of its connections', dropped, level='warning'
            )

    def _own_tasks(self) -> 'set[asyncio.Task[Any]]':
        tasks: set[asyncio.Task[Any]] = set(self._tasks)
        if self._collector is not None and self._collector.task is not None:
            tasks.add(self._collector.task)
        # A dispose that closes the pool does not wait for itself, nor does a forked child for its parent's tasks.
        return {task for task in tasks if task is not asyncio.current_task() and task.get_loop() is self._bound_loop}

    def _begin_disposals(self, deadline: float | None = None) -> None:
        # The deadline is for threads, where the caller closes connections itself if no thread can be started.
        if self._core.doomed:
            try:
                self._spawn_disposals()
            except BaseException:
                # A signal handler raised, and nothing would close these connections: once more.
                self._spawn_disposals()
                raise

    def _leave_doomed_to_workers(self) -> None:
        """For a close() that was interrupted."""
        self._begin_disposals()

    def _run_timers(self) -> None:
        """Do what is due in the core (CoreTimer), and what follows from that."""
        # A signal handler may raise in each of the calls. Then nothing else would close what the core has doomed.
        try:
            self._core.run_timers(self._core.now(), False)
        finally:
            try:
                self._begin_disposals()
            finally:
                self._timer.set(self)

    def _spawn_disposals(self, deadline: float | None = None) -> 'list[asyncio.Task[None]]':
        loop = self._bound_loop
        if loop is None or loop.is_closed():
            # A coroutine has outlived its loop. Doomed connections remain doomed.
            return []
        if self._runs_in_other_thread():
            # A coroutine of the pool is finalised in this thread. Only the loop's own thread may create tasks.
            self._call_in_loop(self._spawn_disposals, deadline)
            return []
        self._timer.set(self)
        # Each connection that is left to the pool's workers is closed in its own task. Those that a caller has doomed
        # and waits for are closed in lanes with one queue, so that a disposal that hangs delays no other.
        jobs: deque[Disposal] = deque()
        queue: deque[Disposal] = deque()
        taken: Disposal | None = None
        try:
            while (taken := self._take_disposal()) is not None:
                (jobs if taken.is_job else queue).append(taken)
            lanes = min(len(queue), PARALLEL_DISPOSALS)
            tasks = [self._spawn_disposal(self._spawn_for_caller, queue, deadline) for _ in range(lanes)]
            return tasks + [self._spawn_disposal(self._spawn_job, deque((job,)), deadline) for job in jobs]
        except BaseException:
            # A signal handler raised. Lanes that were spawned already find these connections among the doomed.
            try:
                if taken is not None:
                    taken.put_back()
                put_all_back(queue)
                put_all_back(jobs)
            finally:
                # There may be no other call that begins them, and acquires without a time limit wait for these slots.
                loop.call_later(TIMER_LATENESS, self._begin_disposals, context=Context())
            raise

    def _spawn_disposal(
        self,
        make_task: Callable[..., 'asyncio.Task[None]'],
        queue: 'deque[Disposal]',
        deadline: float | None,
        last_lanes: 'set[asyncio.Task[None]] | None' = None,
    ) -> 'asyncio.Task[None]':
        begin = partial(self._dispose_in_turn, queue, deadline, last_lanes)
        return make_task(begin, 'dispose', partial(self._lane_ended, queue))

    def _spawn_last_lanes(self, queue: 'deque[Disposal]', last_lanes: 'set[asyncio.Task[None]]') -> None:
        """Close a queue in concurrent lanes in a loop that ends. Only the lane that creates them waits for them."""
        at_work = sum(not lane.done() for lane in last_lanes)
        for _ in range(min(len(queue), PARALLEL_DISPOSALS - 1 - at_work)):
            last_lanes.add(self._spawn_disposal(self._spawn_job, queue, self._core.now(), last_lanes))

    async def _wait_for_last_lanes(self, last_lanes: 'set[asyncio.Task[None]]') -> BaseException | None:
        """Wait for all of them, and for those that they create. Returns the exception that interrupted this, if any."""
        try:
            while at_work := [lane for lane in last_lanes if not lane.done()]:
                await asyncio.wait(at_work)
        except asyncio.CancelledError as exc:
            # Cancelled once more: by a close(), which waits for these lanes itself, or by a caller that waits for none.
            return exc
        return None

    def _lane_ended(self, queue: 'deque[Disposal]', task: 'asyncio.Task[None]') -> None:
        # If a signal handler raised between two lines of the lane, disposals may be left in the queue. They become
        # doomed again, where the other lanes find them.
        put_all_back(queue)
        # Last: a signal handler may raise in it, and must not keep the disposals from becoming doomed again.
        self._job_ended(task)

    def _next_disposal(self, queue: 'deque[Disposal]', goes_on: bool, loop_ends: bool) -> Disposal | None:
        if queue:
            return queue.popleft()
        # A lane of a close with a time limit also closes what was doomed meanwhile, within that limit. So does a lane
        # in a loop that ends: a new task would never run there.
        return self._take_disposal(loop_ends) if goes_on or loop_ends else None

    async def _dispose_in_turn(
        self,
        queue: 'deque[Disposal]',
        deadline: float | None,
        last_lanes: 'set[asyncio.Task[None]] | None',
        failure: BaseException | None,
    ) -> None:
        # A failure that comes before the first step is a cancellation. So the loop ends: it has cancelled this lane, or
        # the lane that has created this one as one of its last lanes, and that waits for all of them.
        loop_ends = failure is not None or last_lanes is not None
        is_maker = last_lanes is None
        taken: Disposal | None = None
        left: Disposal | None = None
        try:
            while (taken := self._next_disposal(queue, deadline is not None, loop_ends)) is not None:
                if loop_ends:
                    # The loop waits for this task: without a limit it could wait for ever. The loop will not wait for
                    # new tasks, so no cancelled acquire may create one for the rest.
                    deadline = self._core.now()
                    while (left := self._take_disposal(True)) is not None:
                        queue.append(left)
                    last_lanes = set() if last_lanes is None else last_lanes
                    self._spawn_last_lanes(queue, last_lanes)
                elif self._core.doomed:
                    # More connections are doomed, and this disposal may hang: other tasks close those.
                    self._spawn_disposals(deadline)
                try:
                    await self._dispose(taken, deadline)
                except GeneratorExit:
                    raise
                except BaseException as exc:
                    # Acquires may be waiting for the other slots: continue, and raise this afterwards.
                    failure = failure or exc
                    loop_ends = loop_ends or (isinstance(exc, asyncio.CancelledError) and is_being_cancelled())
                finally:
                    taken.put_back()
            if is_maker and last_lanes:
                interruption = await self._wait_for_last_lanes(last_lanes)
                failure = failure or interruption
        finally:
            # The loop was closed, so that nothing can be awaited any more, or a signal handler raised. The disposals
            # become doomed again now, where other lanes find them, not only when the traceback is freed.
            for disposal in (taken, left):
                if disposal is not None:
                    disposal.put_back()
            put_all_back(queue)
        if failure is not None:
            raise failure

    async def _dispose(self, disposal: Disposal, deadline: float | None) -> None:
        if disposal.entry is None:
            # The lane was given up, which ended the disposal, and then ran anyway.
            return
        timeout = self._dispose_timeout
        if deadline is not None:
            left = dispose_time(deadline, self._core.now())
            timeout = left if timeout is None else min(timeout, left)
        entry: Entry = disposal.entry
        begun = self._core.now()
        error: BaseException | None = None
        try:
            if timeout is None:
                await disposal
            else:
                async with timeout_scope(None) as scope:
                    set_limit(scope, timeout)
                    await disposal
        except asyncio.TimeoutError as exc:
            # The exception of the time limit has no text. Before 3.11 it is not of Python's own class.
            error = TimeoutError(str(exc) or f'the limit was {seconds(timeout)}')
            error.__cause__ = exc
        except Exception as exc:
            error = exc
        self._note_closed(entry, begun, error)
