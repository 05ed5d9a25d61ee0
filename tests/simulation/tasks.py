"""The pool of ``gcpool.asyncio`` in a simulated event loop.

The clock is simulated: an hour passes in no time, and a step takes a microsecond. A step is one handle. In which order
the handles run is drawn by the seed, within what asyncio promises, since the pool relies on that, as any program may:

- handles that are scheduled in one turn of the loop run in the next one, before those that are scheduled then;
- handles that one step schedules run in the order in which it did so, those of one future included.

Other steps of one turn are those of tasks that know nothing of each other, and happen in any order. A seed may also
draw a world in which all handles run in the order of their scheduling, as in the loops of asyncio and uvloop.
"""

import asyncio
import copy
import heapq
import itertools
import sys
import types
import warnings
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from typing import Any, cast

from gcpool._core import OUTAGE_BEGAN
from gcpool.asyncio import BaseConnectionManager, ConnectionPool, NullConnectionPool
from gcpool.exceptions import PoolTimeout
from tests.simulation.taking import parameters_of_null_pool
from tests.simulation.world import (
    MASK,
    TICK,
    Connection,
    Full,
    Interruption,
    Refused,
    Steps,
    User,
    World,
    seeded_pauses,
    simulate_worlds,
    surrounding,
)

__all__ = ['simulate', 'simulate_world']

# How often a coroutine is closed that goes on awaiting after a failure.
ENDING_TRIES = 10

# The tasks in whose making a signal handler may raise.
RELEASE = '-release'
SPAWNED = ('-dispose', '-dead', '-events', '-create', RELEASE)


class Handle:
    """A callback that is scheduled; `following` is one that the same step scheduled, to run later."""

    __slots__ = ('args', 'callback', 'context', 'following')

    def __init__(self, callback: Any, args: Any, context: Context):
        self.callback = callback
        self.args = args
        self.context = context
        self.following: Handle | None = None

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None


class Timer(Handle):
    """One that is scheduled for a time."""

    __slots__ = ('time',)

    time: float

    def when(self) -> float:
        return self.time


class Task(asyncio.Task[Any]):
    """A task whose hash is the same in each run. By that sets of tasks are ordered."""

    def __init__(self, coro: Any, *, loop: Any, **options: Any):
        self._number: int = next(loop.task_numbers)
        interrupted = False
        if options.get('name', '').endswith(SPAWNED):
            rate = 0.0 if loop.world.gentle else loop.world.rate['signal']
            chance = loop.world.random()
            interrupted = chance < rate
            if chance < rate or chance > 1.0 - rate:
                # The coroutine of a release is dropped then: what is raised in its finalizer nobody gets to know.
                loop.world.gentle += options['name'].endswith(RELEASE)
            if chance > 1.0 - rate:
                raise loop.world.signal('before the task is made')
        super().__init__(coro, loop=loop, **options)
        if interrupted:
            raise loop.world.signal('after the task was made')

    def __hash__(self) -> int:
        return self._number


class Loop:
    """As much of an event loop as a pool and its users need."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step = 0
        self.timers: list[tuple[float, int, Timer]] = []
        self.timer_numbers = itertools.count()
        self.task_numbers = itertools.count()
        # The handles of this turn, and those of the next: of each step that scheduled some, the first.
        self.turn: list[Handle] = []
        self.next_turn: list[Handle] = []
        # The last handle that the current step has scheduled.
        self.last: Handle | None = None

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        handle = Handle(callback, args, copy_context() if context is None else context)
        if self.last is None:
            self.next_turn.append(handle)
        else:
            self.last.following = handle
        self.last = handle
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        timer = Timer(callback, args, copy_context() if context is None else context)
        timer.time = when
        heapq.heappush(self.timers, (when, next(self.timer_numbers), timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_future(self) -> 'asyncio.Future[Any]':
        loop: Any = self
        return asyncio.Future(loop=loop)

    def create_task(self, coro: Any, **options: Any) -> 'asyncio.Task[Any]':
        return Task(coro, loop=self, **options)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def begin_turn(self) -> bool:
        """Make the handles that are due those of this turn. False if none is: everything waits."""
        turn = self.turn
        self.turn, self.next_turn = self.next_turn, turn
        timers = self.timers
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            if timer.callback is not None:
                self.turn.append(timer)
        return bool(self.turn)

    def advance(self) -> bool:
        """Let time pass until the next timer is due. False if there is none."""
        timers = self.timers
        while timers:
            when, _, timer = timers[0]
            if timer.callback is not None:
                self.now = max(self.now, when)
                return True
            heapq.heappop(timers)
        return False


class Manager(BaseConnectionManager[int, Connection]):
    """Has the world do it. Of the hooks it has those that the world has drawn.

    :param world: the world
    """

    def __init__(self, world: World):
        servers = world.servers
        # Set on the instance: no further call between the pool and the world.
        self.create = lambda endpoint: world.create(servers[endpoint])  # type: ignore[method-assign]
        self.dispose = lambda endpoint, conn: world.dispose(conn)  # type: ignore[method-assign]
        if world.has_spellings:
            self.normalize = lambda endpoint: endpoint % 100  # type: ignore[method-assign]
        if world.settings.get('wait_when_full'):
            self.is_refusal = lambda endpoint, exc: isinstance(exc, Full)  # type: ignore[method-assign]
        for name in world.hooks:
            setattr(self, name, self.hook(getattr(world, name)))

    def hook(self, call: Any) -> Any:
        return lambda endpoint, conn, *args: call(conn, *args)

    async def create(self, endpoint: int) -> Connection:
        raise NotImplementedError

    async def dispose(self, endpoint: int, conn: Connection) -> None:
        raise NotImplementedError


class Pool(ConnectionPool[int, Connection]):
    """The pool. The world learns from it which failures it has taken note of."""

    world: World

    async def _tell_failure(self, endpoint: Any, error: BaseException, news: int, refusal: bool) -> None:
        self.world.note_failure(endpoint, error, bool(news & OUTAGE_BEGAN))
        await super()._tell_failure(endpoint, error, news, refusal)


class NullPool(Pool, NullConnectionPool[int, Connection]):
    """One that keeps no connections."""


def wake(future: 'asyncio.Future[Any]') -> None:
    if not future.done():
        future.set_result(None)


class Tasks(Loop):
    """One world on asyncio: its loop, and what the world asks of its runtime.

    :param seed: of the world
    :param traffic: steps after which the faults stop, if the seed has not drawn less
    :param without: faults that do not happen
    """

    asynchronous = True
    releases_at_once = True
    interruptions: tuple[type[BaseException], ...] = (asyncio.CancelledError, Interruption)
    timeouts: tuple[type[BaseException], ...] = (PoolTimeout,)

    def __init__(self, seed: int, traffic: int, without: Container[str]):
        super().__init__()
        self.hung: list[asyncio.Future[Any]] = []
        # The tasks that a fork has left in the parent's loop.
        self.left: list[asyncio.Task[Any]] = []
        self.world = World(seed, self, traffic, without)
        self.trace = 0
        settings = dict(self.world.settings)
        if 'reconnect_failed' in settings:
            settings['reconnect_failed'] = lambda pool, *args: self.world.reconnect_failed(*args)
        with seeded_pauses(self.world):
            self.pool = self.make_pool(settings)
        self.pool.world = self.world

    def make_pool(self, settings: dict[str, Any]) -> Pool:
        options: Any = {'_clock': self.world.time, **settings}
        if self.world.taking.keeps_nothing:
            pool: Pool = NullPool(Manager(self.world), **parameters_of_null_pool(options))
        else:
            pool = Pool(Manager(self.world), **options)
        self.world.taking.watch_leaks(pool)
        return pool

    # -- what the world asks for ----------------------------------------------------------------------------------

    def acquire(self, endpoint: int, timeout: float | None) -> Any:
        return self.pool.acquire(endpoint, timeout).__await__()

    def release(self, conn: Connection, endpoint: int) -> Any:
        return self.pool.release(conn, endpoint).__await__()

    def release_anywhere(self, conn: Connection) -> Any:
        return self.pool.release(conn).__await__()

    def release_nowait(self, conn: Connection, endpoint: int) -> None:
        gentle = self.world.gentle
        try:
            self.pool.release_nowait(conn, endpoint)
        finally:
            self.world.gentle = gentle

    def discard(self, conn: Connection) -> Any:
        return self.pool.discard(conn).__await__()

    def nap(self, seconds: float) -> Any:
        if seconds <= 0.0:
            return None
        future = self.create_future()
        self.call_later(seconds, wake, future)
        future._asyncio_future_blocking = True
        return future

    def hang(self, seconds: float) -> Any:
        future = self.nap(seconds)
        self.hung.append(future)
        return future

    def wake_hung(self) -> None:
        for future in self.hung:
            wake(future)
        self.hung.clear()

    def cancel(self, user: User) -> None:
        user.task.cancel()

    def recover(self) -> None:
        if sys.version_info >= (3, 11):
            task = asyncio.current_task()
            while task is not None and task.cancelling():
                task.uncancel()

    def disturb_worker(self) -> None:
        """Cancel one of the pool's own tasks."""
        tasks = self.own(self.pool._tasks)
        collector = self.pool._collector
        if collector is not None and collector.task is not None:
            tasks.append(collector.task)
        if tasks:
            self.world.dice.choice(tasks).cancel()

    def own(self, items: 'Iterable[Any]') -> list[Any]:
        """What is of this loop, of the pool's tasks and the like."""
        return [item for item in items if item.get_loop() is self]

    def has_collector(self) -> bool:
        return self.pool._core.collects

    def workers_are_busy(self) -> bool:
        return False

    def late_workers(self) -> int:
        return 0

    def left_behind(self) -> list[Any]:
        """The tasks of the pool's own that go on, and the timers of its collector that are in the loop."""
        timer = getattr(self.pool._collector, '_timer', self)
        timers = [handle.callback for *_, handle in self.timers if getattr(handle.callback, '__self__', None) is timer]
        return [*(task for task in self.pool._own_tasks() if not task.done()), *timers]

    def stall(self, seconds: float) -> None:
        self.now += seconds

    def spawn(self, steps: Callable[[], Steps]) -> 'asyncio.Task[Any]':
        return self.create_task(carry_out(steps))

    def close_pool(self, timeout: float | None) -> Any:
        return self.pool.close(timeout).__await__()

    def resize_pool(self, max_size: int, total_max_size: int) -> Steps:
        self.pool._core.resize(self.now, max_size=max_size, total_max_size=total_max_size)
        self.pool._spawn_disposals()
        yield from ()

    def wait_until_filled(self, timeout: float | None) -> Any:
        return self.pool.wait(timeout).__await__()

    def drain_pool(self, endpoint: int, idle_only: bool) -> Any:
        return self.pool.drain(endpoint, idle_only=idle_only).__await__()

    def idle_connections(self, endpoint: int) -> list[Connection]:
        return [entry.conn for entries in self.pool._core.idle_entries(endpoint) for entry in entries]

    def forget_endpoint(self, endpoint: int) -> Any:
        return self.pool.forget(endpoint).__await__()

    def within(self, endpoint: int, timeout: float | None, block: Callable[[Connection], Any]) -> Any:
        return self.enter_and_leave(endpoint, timeout, block).__await__()

    async def enter_and_leave(self, endpoint: int, timeout: float | None, block: Callable[[Connection], Any]) -> None:
        async with self.pool.connection(endpoint, timeout) as conn:
            await block(conn)

    def forgetful(self, user: User, endpoint: int, timeout: float | None) -> Steps:
        """Leave undone what a careful program does."""
        world = self.world
        kind = world.dice.randrange(6)
        if kind < 2:
            # A time limit may cancel the task in the moment in which the coroutine that it is for is closed.
            user.cancels += 1
            conn = yield from self.acquire_by_hand(endpoint, timeout, at_once=kind == 0)
            if conn is not None:
                yield from world.use_and_release(user, conn, endpoint)
            return
        context = None
        if kind == 2:
            context = self.pool.connection(endpoint, timeout)
            conn = yield from context.__aenter__().__await__()
        else:
            conn = yield from self.acquire(endpoint, timeout)
        user.doing = 'using'
        world.take(user, conn, endpoint)
        try:
            yield from world.use(user, conn)
        finally:
            world.leave_tidy(conn, judged=False)
            world.put(conn)
            if kind < 4:
                # What a signal handler raises in a finalizer only the standard error output gets to know.
                world.gentle += 1
                if kind == 2:
                    # Entered, and never left.
                    context = None
                else:
                    # Never awaited.
                    forgotten = self.pool.release(conn, endpoint)
                    del forgotten
                world.gentle -= 1
            elif kind == 4:
                # Cancelled before its first step.
                self.create_task(self.pool.release(conn, endpoint)).cancel()
            else:
                # Closed before its first step.
                coroutine: Any = self.pool.release(conn, endpoint)
                coroutine.close()
        yield None

    def acquire_by_hand(self, endpoint: int, timeout: float | None, at_once: bool) -> Steps:
        """Begin to acquire, and close the coroutine in the middle. Where that comes too late, there is a connection."""
        coroutine: Any = self.pool.acquire(endpoint, timeout)
        try:
            awaited = coroutine.send(None)
            if at_once:
                if awaited is not None:
                    awaited._asyncio_future_blocking = False
            else:
                for _ in range(self.world.dice.randrange(1, 4)):
                    yield awaited
                    awaited = coroutine.send(None)
                if awaited is not None:
                    awaited._asyncio_future_blocking = False
        except StopIteration as stop:
            return stop.value
        finally:
            coroutine.close()
        yield None
        return None

    # -- running ----------------------------------------------------------------------------------------------------

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio reports: of the pool's tasks, what a manager has raised, and only that."""
        exc = context.get('exception')
        if not isinstance(exc, (Refused, Interruption)):
            self.world.fail(f'asyncio reports {context}')

    def run_world(self) -> None:
        world = self.world
        world.living = len(world.users)
        for user in world.users:
            world.start_user(user)
        self.run_until_gone().end_world()

    def end_world(self) -> None:
        world = self.world
        world.living = 1
        self.spawn(world.end)
        self.run_until_gone()
        # What is left is that of nobody: the naps of those who were cancelled.
        world.living = -1
        while not self.run_turns() and self.advance():
            pass
        if left := self.own((*self.pool._tasks, *self.pool._waits)):
            world.fail(f'a closed pool has left {left}')
        world.judge_end()

    def run_until_gone(self) -> 'Tasks':
        """Run until everybody is gone.

        :return: the runtime that they were in at last: a forked child has another loop
        """
        world = self.world
        runtime = self
        while not runtime.run_turns():
            if world.forking:
                runtime = runtime.fork()
                continue
            world.judge_rest()
            if not runtime.advance():
                world.judge_stuck()
            world.judge()
        return runtime

    def fork(self) -> 'Tasks':
        """Go on as a forked child does: in another loop, while nobody runs what is left in this one."""
        child = copy.copy(self)
        child.timers, child.turn, child.next_turn, child.last, child.hung = [], [], [], None, []
        # What finds this loop when it is finalised later finds nobody who runs it.
        self.create_task = child.create_task  # type: ignore[method-assign]
        left: list[Any] = sorted(asyncio.all_tasks(cast(asyncio.AbstractEventLoop, self)), key=hash)
        for task in left:
            task._log_destroy_pending = False
        self.left += left
        asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, child))
        self.world.go_on_in_child(child)
        child.spawn(child.finalise)
        return child

    def finalise(self) -> Steps:
        """Do to the parent's tasks what a child's garbage collector does at some time."""
        while self.left:
            yield self.nap(self.world.random() * 0.02 - 0.01)
            coroutine: Any = self.left.pop(0).get_coro()
            self.world.finalising_since = Interruption.count
            try:
                coroutine.close()
            except Interruption:
                continue
            except RuntimeError as exc:
                # If a signal handler raises meanwhile, the user takes that for all there is, and goes on.
                if 'ignored GeneratorExit' not in str(exc):
                    raise
            finally:
                self.world.finalising_since = None

    def end(self) -> None:
        """End what is left after a failure: the garbage collector would do so when there is no loop any more."""
        for task in (*asyncio.all_tasks(cast(asyncio.AbstractEventLoop, self)), *self.left):
            coroutine: Any = task.get_coro()
            for _ in range(ENDING_TRIES):
                # What it awaits on its way out it does not get.
                with suppress(BaseException):
                    coroutine.close()
                    break

    def run_turns(self) -> bool:
        """Run until everybody is gone (True), or everything waits (False)."""
        world = self.world
        draw = world.random
        shuffled = world.turns_shuffled
        trace = self.trace
        step = self.step
        event = world.next_event
        try:
            while self.begin_turn():
                turn = self.turn
                while turn:
                    count = len(turn)
                    index = int(draw() * count) if shuffled and count > 1 else 0
                    handle = turn[index]
                    if handle.following is not None:
                        turn[index] = handle.following
                    elif shuffled:
                        turn[index] = turn[-1]
                        turn.pop()
                    else:
                        del turn[0]
                    step += 1
                    self.now += TICK
                    trace = (trace * 0x9E3779B1 + count * 64 + index) & MASK
                    self.last = None
                    if handle.callback is not None:
                        try:
                            handle.context.run(handle.callback, *handle.args)
                        except Interruption:
                            # A signal handler's. It ends the loop's run, which then goes on.
                            pass
                        except BaseException as exc:  # noqa: BLE001 - as a loop: it goes on
                            world.fail(f'{exc!r} in {handle.callback!r}')
                    if world.failure:
                        self.step = step
                        world.judge()
                    if step >= event:
                        self.last = None
                        event = world.make_event(step)
                        if world.forking:
                            return False
                if not world.living and not world.closers:
                    return True
            return False
        finally:
            self.trace = trace
            self.step = step


@types.coroutine
def as_awaitable(steps: Callable[[], Steps]) -> Generator[Any, Any, Any]:
    return (yield from steps())


async def carry_out(steps: Callable[[], Steps]) -> Any:
    """A coroutine of what is written as a generator: tasks of Python 3.12 take nothing else."""
    return await as_awaitable(steps)


@contextmanager
def simulated_asyncio(tasks: Tasks) -> Iterator[None]:
    """Have asyncio know of the loop, and the pool make tasks whose order in a set is always the same."""
    former = asyncio.Task
    asyncio.Task = Task  # type: ignore[misc, assignment]
    loop: Any = tasks
    asyncio._set_running_loop(loop)
    try:
        with warnings.catch_warnings():
            # That a coroutine was never awaited.
            warnings.simplefilter('ignore', RuntimeWarning)
            yield
    finally:
        asyncio._set_running_loop(None)
        asyncio.Task = former  # type: ignore[misc]


def simulate_world(seed: int, traffic: int, without: Container[str] = ()) -> tuple[int, int]:
    """Run one world.

    :param seed: of the world
    :param traffic: steps after which the faults stop, if the seed has not drawn less
    :param without: faults that do not happen
    :return: the trace hash, and the number of steps
    :raises SimulationError: when a rule was broken
    """
    tasks = Tasks(seed, traffic, without)
    with surrounding(tasks.world), simulated_asyncio(tasks):
        try:
            tasks.run_world()
        except BaseException:
            cast(Tasks, tasks.world.runtime).end()
            raise
    tasks = cast(Tasks, tasks.world.runtime)
    result = (tasks.trace ^ tasks.world.trace) & MASK, tasks.step
    # Before Python 3.12 a pool keeps its loop where the garbage collector does not see it, and this one keeps the pool.
    vars(tasks).clear()
    return result


def simulate(seed: int, steps: int, without: Container[str] = ()) -> str:
    """Run worlds until at least so many steps were made; see :py:func:`simulate_worlds`."""
    return simulate_worlds(simulate_world, seed, steps, without)
