"""The pool of ``gcpool.threading`` with simulated threads: greenlets of one real thread.

The clock is simulated. A step is one switch of threads; which one runs next is drawn by the seed. Another thread runs
where one waits (for a lock, for a server), and, as often as the seed has drawn, where one takes or frees a lock or
reads the clock: without the GIL that may happen at any of these.

What a signal handler raises comes out of where Python code was waiting or has just been called: not out of the clock,
which compiled code reads between two steps that no handler can separate.
"""

import heapq
import itertools
import sys
import threading
import types
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from gcpool._core import OUTAGE_BEGAN
from gcpool._workers import before_fork, collector_threads, per_process, workers_threads
from gcpool.exceptions import PoolTimeout
from gcpool.threading import BaseConnectionManager, ConnectionPool, NullConnectionPool
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


# What a context raises that is entered while somebody is in it, and how often users share one.
IN_USE = 'the connection context is entered already: call connection() once more for a second one'
SHARING = 0.1

# What a signal handler raises.
SIGNAL = 'from a signal handler'


def run(steps: Any) -> Any:
    """Carry out what is written as a generator. It waits by itself."""
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return stop.value


class Fiber(greenlet):
    """A simulated thread.

    :ivar sleep: the number of its last wait; a timer of an earlier one does not wake it
    :ivar lock: what it waits for
    :ivar served: whether it has got it
    :ivar interrupted: whether a signal handler is to raise in it
    :ivar works: whether it is one of the pool's workers
    """

    def __init__(self, target: Callable[[], object], parent: greenlet):
        super().__init__(target, parent)
        self.sleep = 0
        self.lock: Lock | None = None
        self.served = False
        self.interrupted = False
        self.works = False
        # Whether it need not wait any more, and will only run after a while.
        self.late = False
        # Whether it waits, and is not among those that can run.
        self.waits = False


class Lock:
    """A simulated ``threading.Lock``."""

    __slots__ = ('locked', 'threads', 'waiting')

    def __init__(self, threads: 'Threads'):
        self.threads = threads
        self.locked = False
        self.waiting: list[Fiber] = []
        threads.interrupt_or_switch()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        threads = self.threads
        if not self.locked:
            self.locked = True
            threads.interrupt_or_switch()
            return True
        if not blocking or timeout == 0:
            threads.interrupt_or_switch()
            return False
        fiber = threads.current
        if fiber is None:
            raise RuntimeError('the simulation itself would wait for ever')
        self.waiting.append(fiber)
        fiber.lock = self
        fiber.served = False
        fiber.waits = True
        if timeout > 0:
            threads.set_timer(fiber, timeout)
        threads.switch(True)
        return fiber.served

    def release(self) -> None:
        if not self.locked:
            raise RuntimeError('release unlocked lock')
        threads = self.threads
        if self.waiting:
            # Nobody comes in between: the lock is the waiting thread's at once.
            fiber = self.waiting.pop(int(threads.draw() * len(self.waiting)))
            fiber.lock = None
            fiber.served = True
            if fiber.works and threads.lateness:
                fiber.late = True
                threads.set_timer(fiber, threads.lateness)
            else:
                threads.make_ready(fiber)
        else:
            self.locked = False
        threads.maybe_switch()


class Thread:
    """A simulated ``threading.Thread``."""

    def __init__(self, threads: 'Threads', target: Callable[[], object], name: str):
        self.threads = threads
        self.target = target
        self.name = name
        self.fiber: Fiber | None = None
        self.begun = False
        self.ended = False
        # Taken until it has begun, and who starts it waits for that.
        self.beginning = Lock(threads)
        self.beginning.locked = True
        # Taken until it has ended.
        self.at_work = Lock(threads)
        self.at_work.locked = True

    def __repr__(self) -> str:
        return self.name

    def start(self) -> None:
        self.threads.interrupt_or_switch()
        if self.threads.draw() < self.threads.world.rate['no_thread']:
            self.threads.world.threads_refused = True
            raise RuntimeError("can't start new thread")
        self.fiber = self.threads.start(self.run)
        self.fiber.works = self.name.rpartition('-')[2].isdigit()
        self.beginning.acquire()

    def run(self) -> None:
        self.begun = True
        try:
            self.beginning.release()
            self.target()
        except Interruption as exc:
            if str(exc) != SIGNAL:
                self.threads.world.fail(f'the thread {self.name} has died of what a manager raised: {exc!r}')
        self.ended = True
        self.at_work.release()

    def join(self, timeout: float) -> None:
        if self.at_work.acquire(timeout=timeout):
            self.at_work.release()

    def is_alive(self) -> bool:
        return self.begun and not self.ended and self.fiber is not None and not self.fiber.dead


class Manager(BaseConnectionManager[int, Connection]):
    """Has the world do it. Of the hooks it has those that the world has drawn.

    :param threads: who call it
    """

    def __init__(self, threads: 'Threads'):
        self.threads = threads
        self.world = world = threads.world
        if world.has_spellings:
            self.normalize = lambda endpoint: endpoint % 100  # type: ignore[method-assign]
        if world.settings.get('wait_when_full'):
            self.is_refusal = lambda endpoint, exc: isinstance(exc, Full)  # type: ignore[method-assign]
        for name in world.hooks:
            setattr(self, name, self.hook(getattr(world, name)))
        if world.checks:
            self.check_aliveness = self.check  # type: ignore[method-assign]

    def check(self, endpoint: int, conn: Connection, timeout: float | None = None) -> bool:
        with self.threads.at_work():
            alive: bool = run(self.world.check_aliveness(conn, timeout))
            return alive

    def hook(self, call: Callable[..., Steps]) -> Callable[..., Any]:
        return lambda endpoint, conn, *args: run(call(conn, *args))

    def create(self, endpoint: int, timeout: float | None = None) -> Connection:
        with self.threads.at_work():
            conn: Connection = run(self.world.create(self.world.servers[endpoint], timeout))
        return conn

    def dispose(self, endpoint: int, conn: Connection, timeout: float | None = None) -> None:
        with self.threads.at_work():
            run(self.world.dispose(conn, timeout))


class Pool(ConnectionPool[int, Connection]):
    """The pool. The world learns from it which failures it has taken note of."""

    threads: 'Threads'

    def _tell_failure(self, endpoint: Any, error: BaseException, news: int, refusal: bool) -> None:
        # Otherwise others may have come in between, and begun the next attempt.
        if self.threads.releases_at_once:
            self.threads.world.note_failure(endpoint, error, bool(news & OUTAGE_BEGAN))
        super()._tell_failure(endpoint, error, news, refusal)


class NullPool(Pool, NullConnectionPool[int, Connection]):
    """One that keeps no connections."""


class Threads:
    """One world with threads: their scheduler, and what the world asks of its runtime.

    :param seed: of the world
    :param traffic: steps after which the faults stop, if the seed has not drawn less
    :param without: faults that do not happen
    """

    asynchronous = False
    interruptions: tuple[type[BaseException], ...] = (Interruption,)
    timeouts: tuple[type[BaseException], ...] = (PoolTimeout, TimeoutError)

    def __init__(self, seed: int, traffic: int, without: Container[str]):
        self.now = 1000.0
        self.step = 0
        self.trace = 0
        self.main = getcurrent()
        self.current: Fiber | None = None
        self.fibers: list[Fiber] = []
        # The threads that a fork has left in the parent.
        self.left: list[Fiber] = []
        self.process = 1
        self.ready: list[Fiber] = []
        self.timers: list[tuple[float, int, Fiber, int]] = []
        self.timer_numbers = itertools.count()
        self.hung: list[tuple[Fiber, int]] = []
        self.ending = False
        # A fiber that has been chosen, and has not begun.
        self.beginner: Fiber | None = None
        self.world: World = World(seed, self, traffic, without)
        self.draw = self.world.random
        # How often a thread is switched away from where it need not wait, and how often a handler raises there.
        self.switchiness = self.world.dice.choice((0.0, 0.02, 0.1, 0.3))
        self.releases_at_once = not self.switchiness
        # How long a worker waits for a job.
        self.idle_time = self.world.dice.choice((0.0, 0.01, 1.0))
        # Seconds after which a worker runs that was woken, as on a busy machine.
        self.lateness = self.world.dice.choice((0.0, 0.0, 0.01, 0.1))
        # The workers that are in the middle of a job.
        self.at_work_now: set[Fiber] = set()
        # Contexts that several users share, by the arguments of connection().
        self.shared: dict[tuple[int, float | None], Any] = {}
        self.nervousness = self.world.rate['signal'] * 0.05

    def build(self) -> None:
        """Make the pool, where its locks and threads are simulated."""
        self.world.gentle += 1
        settings = dict(self.world.settings)
        if 'reconnect_failed' in settings:
            settings['reconnect_failed'] = self.reconnect_failed
        with seeded_pauses(self.world):
            self.pool = self.make_pool(settings)
        self.pool.threads = self
        self.world.gentle -= 1

    def make_pool(self, settings: dict[str, Any]) -> Pool:
        options: Any = {'_clock': self.clock, **settings}
        if self.world.taking.keeps_nothing:
            pool: Pool = NullPool(Manager(self), **parameters_of_null_pool(options))
        else:
            pool = Pool(Manager(self), **options)
        self.world.taking.watch_leaks(pool)
        return pool

    # -- scheduling -------------------------------------------------------------------------------------------------

    def start(self, target: Callable[[], object]) -> Fiber:
        fiber = Fiber(target, self.main)
        self.fibers.append(fiber)
        self.ready.append(fiber)
        return fiber

    def make_ready(self, fiber: Fiber) -> None:
        """It need not wait any more, whatever it waited for."""
        if fiber.lock is not None:
            fiber.lock.waiting.remove(fiber)
            fiber.lock = None
        fiber.late = False
        fiber.waits = False
        fiber.sleep += 1
        self.ready.append(fiber)

    def set_timer(self, fiber: Fiber, seconds: float) -> None:
        heapq.heappush(self.timers, (self.now + seconds, next(self.timer_numbers), fiber, fiber.sleep))

    def switch(self, interruptible: bool) -> None:
        """Let another thread run, until this one is chosen again. It is ready, or waits."""
        fiber = self.current
        following = self.choose()
        if following is not fiber:
            self.current = following
            if following:
                following.switch()
            else:
                # If it is to begin, then on the stack of the simulation. On that of this thread it would count the
                # frames below as its own; and so would the next one that it begins.
                self.beginner = following
                self.main.switch()
        if self.ending:
            raise GreenletExit
        if interruptible and fiber is not None and fiber.interrupted:
            fiber.interrupted = False
            raise Interruption(SIGNAL)

    def choose(self) -> Fiber | None:
        """Make a step: who runs next? None: the simulation itself, since all wait or a rule was broken."""
        if self.world.failure:
            return None
        ready = self.ready
        if not ready:
            return None
        self.step = step = self.step + 1
        self.now += TICK
        count = len(ready)
        index = int(self.draw() * count)
        fiber = ready[index]
        ready[index] = ready[-1]
        ready.pop()
        self.trace = (self.trace * 0x9E3779B1 + count * 64 + index) & MASK
        if step >= self.world.next_event:
            self.world.make_event(step)
            if self.world.forking:
                ready.append(fiber)
                return None
        timers = self.timers
        while timers and timers[0][0] <= self.now:
            self.ring()
        return fiber

    def ring(self) -> None:
        _, _, fiber, sleep = heapq.heappop(self.timers)
        if fiber.sleep == sleep and fiber.waits:
            self.make_ready(fiber)

    def advance(self) -> bool:
        """Let time pass until somebody can run. False if nobody ever can."""
        while self.timers:
            self.now = max(self.now, self.timers[0][0])
            self.ring()
            if self.ready:
                return True
        return False

    def maybe_switch(self) -> None:
        """Another thread may run here, and a signal handler cannot."""
        fiber = self.current
        if fiber is not None and not self.ending and self.draw() < self.switchiness:
            self.ready.append(fiber)
            self.switch(False)

    def interrupt_or_switch(self) -> None:
        """Another thread may run here, or a signal handler raise."""
        fiber = self.current
        if fiber is None or self.ending:
            return
        chance = self.draw()
        if chance < self.switchiness:
            self.ready.append(fiber)
            self.switch(not self.world.gentle)
        elif chance > 1.0 - self.nervousness and not self.world.calm and not self.world.gentle:
            raise self.world.signal(SIGNAL)

    def come_late(self) -> None:
        """A worker is about to end, and on a busy machine that takes a while."""
        fiber = self.current
        if fiber is None or self.ending or not self.lateness or self.draw() < 0.5:
            self.maybe_switch()
        else:
            fiber.late = fiber.waits = True
            self.set_timer(fiber, self.lateness)
            self.switch(False)

    def clock(self) -> float:
        self.maybe_switch()
        return self.now

    # -- what the world asks for ----------------------------------------------------------------------------------

    def nap(self, seconds: float) -> None:
        fiber = self.current
        if fiber is None or self.ending:
            raise GreenletExit
        if seconds <= 0.0:
            self.ready.append(fiber)
        else:
            fiber.waits = True
            self.set_timer(fiber, seconds)
        self.switch(not self.world.gentle)

    def hang(self, seconds: float) -> None:
        if self.current is not None:
            self.hung.append((self.current, self.current.sleep))
        self.nap(seconds)

    def wake_hung(self) -> None:
        for fiber, sleep in self.hung:
            if fiber.sleep == sleep and fiber.waits:
                self.make_ready(fiber)
        self.hung.clear()

    def interrupt(self, fiber: Fiber) -> None:
        fiber.interrupted = True
        if fiber.waits:
            self.make_ready(fiber)

    def cancel(self, user: User) -> None:
        self.interrupt(user.task)

    def recover(self) -> None:
        return

    def disturb_worker(self) -> None:
        """Have an exception raised in a thread of the pool's own. It may die of that."""
        fibers = [
            thread.fiber for thread in self.known_threads() if thread.fiber in self.fibers and not thread.fiber.dead
        ]
        if fibers:
            self.interrupt(min(fibers, key=self.fibers.index))

    def has_collector(self) -> bool:
        collector = self.pool._collector
        return collector is not None and self.pool._core.collects and collector._lives()

    def workers_are_busy(self) -> bool:
        most = self.world.max_workers
        process = self.pool._workers._per_process.get()
        at_work = [thread for thread in process.threads() if thread.is_alive() and thread not in process.waiting]
        return 0 < most <= len(at_work)

    def late_workers(self) -> int:
        return sum(fiber.late for fiber in self.fibers)

    def left_behind(self) -> list[Any]:
        return [thread for thread in self.known_threads() if thread.fiber in self.fibers and thread.is_alive()]

    def known_threads(self) -> list[Any]:
        """Those that the pool has. In a forked child it may still have those of the parent."""
        processes = self.pool._workers._per_process._by_pid.values()
        threads = [thread for process in processes for thread in process.threads()]
        collector = self.pool._collector
        return threads if collector is None else [*threads, *(each.thread for each in collector._threads)]

    def stall(self, seconds: float) -> None:
        self.now += seconds

    def spawn(self, steps: Callable[[], Steps]) -> Fiber:
        return self.start(lambda: run(steps()))

    def acquire(self, endpoint: int, timeout: float | None) -> Steps:
        yield from ()
        return self.pool.acquire(endpoint, timeout)

    def release(self, conn: Connection, endpoint: int) -> Steps:
        yield from ()
        return self.pool.release(conn, endpoint)

    def release_anywhere(self, conn: Connection) -> Steps:
        yield from ()
        return self.pool.release(conn)

    def release_nowait(self, conn: Connection, endpoint: int) -> None:
        # Only asyncio has one that does not wait.
        self.pool.release(conn, endpoint)

    def discard(self, conn: Connection) -> Steps:
        yield from ()
        return self.pool.discard(conn)

    def close_pool(self, timeout: float | None) -> Steps:
        yield from ()
        return self.pool.close(timeout)

    def drain_pool(self, endpoint: int, idle_only: bool) -> Steps:
        yield from ()
        self.pool.drain(endpoint, idle_only=idle_only)

    def idle_connections(self, endpoint: int) -> list[Connection]:
        # Before they are closed, another thread may acquire one.
        return []

    def forget_endpoint(self, endpoint: int) -> Steps:
        yield from ()
        self.pool.forget(endpoint)

    def resize_pool(self, max_size: int, total_max_size: int) -> Steps:
        self.world.resizing += 1
        interruption = None
        try:
            self.pool._core.resize(self.now, max_size=max_size, total_max_size=total_max_size)
            self.pool._dispose_doomed()
        except Refused:
            pass
        except Interruption as exc:
            interruption = exc
        finally:
            self.world.resizing -= 1
        if interruption is not None:
            self.world.judge_interrupted('resizing', interruption)
        yield from ()

    def wait_until_filled(self, timeout: float | None) -> Steps:
        yield from ()
        return self.pool.wait(timeout)

    def within(self, endpoint: int, timeout: float | None, block: Callable[[Connection], Any]) -> Steps:
        context = self.pool.connection(endpoint, timeout)
        if not self.world.calm and self.draw() < SHARING:
            context = self.shared.setdefault((endpoint, timeout), context)
        try:
            with context as conn:
                run(block(conn))
        except RuntimeError as exc:
            if context is not self.shared.get((endpoint, timeout)) or str(exc) != IN_USE:
                raise
            raise Refused('somebody else is in the context') from exc
        yield from ()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A dispose, a create, or a check by the pool is at work. Not more of the workers may be than there are to be.

        Where no thread can be started, one that ends closes as a caller does.
        """
        fiber = self.current
        if fiber is None or not fiber.works:
            yield
            return
        self.at_work_now.add(fiber)
        if len(self.at_work_now) > (self.world.max_workers or 64) and not self.world.threads_refused:
            self.world.fail(f'{len(self.at_work_now)} workers are at work, of at most {self.world.max_workers or 64}')
        try:
            yield
        finally:
            self.at_work_now.discard(fiber)

    def reconnect_failed(self, pool: Any, endpoint: int, exc: BaseException) -> None:
        # By a worker whose job has ended.
        run(self.world.reconnect_failed(endpoint, exc))

    def forgetful(self, user: User, endpoint: int, timeout: float | None) -> Steps:
        """Enter a context, and never leave it."""
        world = self.world
        context = self.pool.connection(endpoint, timeout)
        conn = context.__enter__()
        user.doing = 'using'
        world.take(user, conn, endpoint)
        try:
            yield from world.use(user, conn)
        finally:
            world.leave_tidy(conn, judged=False)
            world.put(conn)
            user.doing = 'leaving'
            # The hooks run in a finalizer, and what they raise only the standard error output gets to know.
            world.gentle += 1
            del context
            world.gentle -= 1

    # -- running ----------------------------------------------------------------------------------------------------

    def run_world(self) -> None:
        world = self.world
        self.build()
        world.living = len(world.users)
        for user in world.users:
            world.start_user(user)
        self.run_until(lambda: not world.living and not world.closers)
        world.living = 1
        self.spawn(world.end)
        self.run_until(lambda: not world.living)
        self.run_until(lambda: not self.ready and not self.late_workers())
        alive = [fiber for fiber in self.fibers if not fiber.dead]
        if alive:
            world.fail(f'{len(alive)} threads are left')
        world.judge_end()

    def run_until(self, done: Callable[[], bool]) -> None:
        world = self.world
        while not done():
            if world.forking:
                self.fork()
            if not self.ready:
                world.judge_rest()
                self.judge_collectors()
                if not self.advance():
                    world.judge_stuck()
            world.judge()
            fiber = self.choose()
            while fiber is not None:
                self.current = fiber
                fiber.switch()
                fiber, self.beginner = self.beginner, None
            self.current = None
            world.judge()

    def judge_collectors(self) -> None:
        """All threads wait. Where two have started a collector at once, one of the collectors has ended, or is still in
        the middle of a dispose."""
        collector = self.pool._collector
        if collector is None:
            return
        idle = [each for each in collector._threads if each.thread in before_fork.idle_threads]
        if sum(each.runs_in(self.process) for each in idle) > 1:
            self.world.fail('there are two collectors')

    def fork(self) -> None:
        """Go on as a forked child does: with one thread, which may have a connection, or with a new one."""
        world = self.world
        holders = {conn.user for conn in world.open}
        survivors = [user for user in world.users if user.doing == 'thinking' or user in holders]
        survivor = world.dice.choice(survivors) if survivors and world.random() < 0.7 else None
        kept = None if survivor is None else survivor.task
        for fiber in self.fibers:
            if fiber is not kept and not fiber.dead:
                if fiber.lock is not None:
                    fiber.lock.waiting.remove(fiber)
                    fiber.lock = None
                self.left.append(fiber)
        self.fibers = [] if kept is None else [kept]
        self.ready = [fiber for fiber in self.ready if fiber is kept]
        self.timers = [timer for timer in self.timers if timer[2] is kept]
        heapq.heapify(self.timers)
        self.hung.clear()
        self.at_work_now.clear()
        self.shared.clear()
        self.process += 1
        world.go_on_in_child(self, survivor)

    def end(self) -> None:
        """End the threads that are left after a failure, or of a parent.

        None of them waits any more, or lets another one run, before it ends: destructors, which may read the clock,
        could not raise what would end it.
        """
        self.ending = True
        for fiber in (*self.fibers, *self.left):
            if not fiber.dead:
                self.current = fiber
                fiber.throw()


@contextmanager
def simulated_threading(threads: Threads) -> Iterator[None]:
    """Put simulated locks and threads in the place of those that the pool uses."""
    simulated = types.SimpleNamespace(
        Lock=lambda: Lock(threads),
        Thread=lambda *, target, name, daemon: Thread(threads, target, name),
        TIMEOUT_MAX=threading.TIMEOUT_MAX,
        current_thread=threading.current_thread,
        get_ident=lambda: id(getcurrent()),
        # None of them is the main thread, which has others start its threads.
        main_thread=lambda: None,
    )
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith('gcpool.') and getattr(module, 'threading', None) is threading
    ]
    for module in modules:
        module.threading = simulated  # type: ignore[attr-defined]
    idle_time, workers_threads.IDLE_TIME = workers_threads.IDLE_TIME, threads.idle_time
    must_stay = workers_threads.SyncWorkers._must_stay

    def must_stay_and_switch(*args: Any) -> bool:
        # Between its last look for a job and its end a worker uses neither a lock nor the clock.
        stays = must_stay(*args)
        if stays:
            threads.maybe_switch()
        else:
            threads.come_late()
        return stays

    workers_threads.SyncWorkers._must_stay = must_stay_and_switch  # type: ignore[method-assign, assignment]
    of_process: tuple[Any, ...] = collector_threads.SyncCollector, per_process.PerProcess
    getpids = [owner.__dict__['_getpid'] for owner in of_process]
    for owner in of_process:
        owner._getpid = staticmethod(lambda: threads.process)
    # A simulated thread that is never run again stays among the idle ones.
    idle, before_fork.idle_threads = before_fork.idle_threads, {}
    try:
        yield
    finally:
        threads.end()
        workers_threads.IDLE_TIME = idle_time
        workers_threads.SyncWorkers._must_stay = must_stay  # type: ignore[method-assign]
        for owner, getpid in zip(of_process, getpids, strict=True):
            owner._getpid = getpid
        before_fork.idle_threads = idle
        for module in modules:
            module.threading = threading  # type: ignore[attr-defined]


def simulate_world(seed: int, traffic: int, without: Container[str] = ()) -> tuple[int, int]:
    """Run one world.

    :param seed: of the world
    :param traffic: steps after which the faults stop, if the seed has not drawn less
    :param without: faults that do not happen
    :return: the trace hash, and the number of steps
    :raises SimulationError: when a rule was broken
    """
    threads = Threads(seed, traffic, without)
    with surrounding(threads.world), simulated_threading(threads):
        threads.run_world()
    return (threads.trace ^ threads.world.trace) & MASK, threads.step


def simulate(seed: int, steps: int, without: Container[str] = ()) -> str:
    """Run worlds until at least so many steps were made; see :py:func:`simulate_worlds`."""
    return simulate_worlds(simulate_world, seed, steps, without)
