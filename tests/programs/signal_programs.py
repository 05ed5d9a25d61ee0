"""The programs that ``test_signals.py`` runs, each in a process of its own: a main thread that signals interrupt.

What is found here about the interpreter, CPython 3.10 to 3.15:

* A handler runs between bytecodes, or in the middle of a wait. So what is compiled is atomic: the release of a
  connection, and the acquire of a ready one, up to a manager's own methods.
* In ``conn = pool.acquire(endpoint)`` a handler can raise after ``acquire`` has returned and before ``conn`` is bound:
  only the pool has that connection then, and cannot know. ``close(timeout)`` closes it and counts it.
* ``with pool.connection(endpoint) as conn`` has no such gap up to 3.13: between ``__enter__`` and the block that
  ``__exit__`` guards no signals are looked for. From 3.14 on they are. What is lost then is the context, and as it dies
  it gives the connection back.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any, final

from gcpool.exceptions import PoolTimeout
from gcpool.threading import BaseConnectionManager, ConnectionPool
from tests.pool_threads.support import HookedManager, Manager
from tests.support import PATIENCE, Connection
from tests.threads.runtime import spawn, until

# How often a storm interrupts the program, unless time runs out; and how often at the least.
INTERRUPTIONS = 300 if os.environ.get('GCPOOL_QUICK') == '1' else 2000
FEWEST_INTERRUPTIONS = INTERRUPTIONS // 10


class Alarm(BaseException):
    """What the handler of SIGALRM raises."""


def on_alarm(number: int, frame: FrameType | None) -> None:
    raise Alarm


# What interrupts the main thread, and what is raised there then. For SIGINT Python has a handler.
SIGNALS: dict[str, tuple[str, type[BaseException]]] = {
    'KeyboardInterrupt': ('SIGINT', KeyboardInterrupt),
    'Alarm': ('SIGALRM', Alarm),
}


class ScriptedManager(HookedManager):
    """A script may also call a function in the middle of a method."""

    def begin(self, name: str, subject: object) -> Any:
        step = super().begin(name, subject)
        if callable(step):
            if name == 'dispose' and isinstance(subject, Connection):
                # It will not come back here, and counts as disposed of.
                subject.disposals += 1
                self.closed(subject.endpoint)
            step()
        return step


class Program:
    """A pool whose main thread is interrupted."""

    def __init__(self, name: str, **options: Any) -> None:
        signal_name, self.expected = SIGNALS[name]
        self.number: int = getattr(signal, signal_name)
        signal.signal(signal.SIGALRM, on_alarm)
        logging.getLogger('gcpool').addHandler(logging.NullHandler())
        self.was_interrupted = threading.Event()
        self.manager = ScriptedManager()
        self.pool: ConnectionPool[Any, Connection] = ConnectionPool(self.manager, **options)

    def script(self, method: str) -> None:
        """Have the next call of a method interrupted."""
        self.manager.script(method, self.interrupt)

    def interrupt(self) -> None:
        signal.raise_signal(self.number)
        raise AssertionError('nothing was raised')

    @contextlib.contextmanager
    def interrupted(self) -> Iterator[None]:
        try:
            yield
        except self.expected:
            self.was_interrupted.set()
            self.pool._core.check_invariants()
        else:
            raise AssertionError('nothing was raised')

    def interrupt_when(self, predicate: Callable[[], bool]) -> None:
        """Interrupt the main thread from outside, once something is so."""

        self.was_interrupted.clear()

        def work() -> None:
            until(predicate)
            # To that thread, so that its wait is interrupted: elsewhere than on Linux any one may get it otherwise.
            # Once more if it came between Python's last look for signals and the wait, which it does not end then.
            for _ in range(5):
                signal.pthread_kill(threading.main_thread().ident or 0, self.number)
                if self.was_interrupted.wait(PATIENCE / 5):
                    break

        spawn(work)

    def gauges(self) -> tuple[int, int, int, int]:
        """The size, and how many are idle, out, and wait."""
        stats = self.pool.get_stats()
        return stats['size'], stats['idle'], stats['acquired'], stats['waiting']

    def finish(self) -> None:
        """Close the pool and compare what was created with what was disposed of."""
        assert self.pool.close(PATIENCE) == 0
        self.pool._core.check_invariants()
        assert self.pool.get_size() == 0
        assert [(conn, conn.disposals) for conn in self.manager.connections if conn.disposals != 1] == []


# ---------------------------------------------------------------------------------------------------------------------
# Interrupted in a known place
# ---------------------------------------------------------------------------------------------------------------------


def wait_for_a_connection(name: str, timeout: float | None) -> None:
    program = Program(name, max_size=1)
    pool = program.pool
    conn = pool.acquire('a')
    program.interrupt_when(lambda: pool.get_stats()['waiting'] == 1)
    with program.interrupted():
        pool.acquire('a', timeout)
    assert program.gauges() == (1, 0, 1, 0)
    program.interrupt_when(lambda: pool.get_stats()['waiting'] == 1)
    with program.interrupted(), pool.connection('a', timeout):
        pass
    assert program.gauges() == (1, 0, 1, 0)
    # Nobody waits any more, so it stays.
    pool.release(conn, 'a')
    assert program.gauges() == (1, 1, 0, 0)
    program.finish()


def wait_for_a_slot(name: str) -> None:
    program = Program(name, max_size=1, total_max_size=1)
    pool = program.pool
    conn = pool.acquire('a')
    program.interrupt_when(lambda: pool.get_stats()['waiting'] == 1)
    with program.interrupted():
        pool.acquire('b')
    assert program.gauges() == (1, 0, 1, 0)
    pool.release(conn, 'a')
    assert pool.get_stats()['endpoints'] == 1
    assert program.manager.living == ['a1']
    program.finish()


def wait_behind_a_waiter(name: str) -> None:
    """The one behind the interrupted waiter is served in its place."""
    program = Program(name, max_size=1)
    pool = program.pool
    conn = pool.acquire('a')
    jobs = []

    def behind() -> bool:
        if pool.get_stats()['waiting'] == 1:
            jobs.append(spawn(pool.acquire, 'a'))
            until(lambda: pool.get_stats()['waiting'] == 2)
            return True
        return False

    program.interrupt_when(behind)
    with program.interrupted():
        pool.acquire('a')
    assert program.gauges() == (1, 0, 1, 1)
    pool.release(conn, 'a')
    assert jobs[0].result() is conn
    pool.release(conn, 'a')
    program.finish()


def in_create(name: str) -> None:
    program = Program(name, max_size=1, total_max_size=1)
    pool = program.pool
    program.script('create')
    with program.interrupted():
        pool.acquire('a')
    assert program.gauges() == (0, 0, 0, 0)
    program.script('create')
    with program.interrupted(), pool.connection('a'):
        pass
    assert program.gauges() == (0, 0, 0, 0)
    pool.release(pool.acquire('b'), 'b')
    program.finish()


def in_create_before_another(name: str) -> None:
    program = Program(name, max_size=1)
    pool = program.pool
    jobs = []

    def work() -> None:
        jobs.append(spawn(pool.acquire, 'a'))
        until(lambda: pool.get_stats()['waiting'] == 1)
        program.interrupt()

    program.manager.script('create', work)
    with program.interrupted():
        pool.acquire('a')
    pool.release(jobs[0].result(), 'a')
    assert program.gauges() == (1, 1, 0, 0)
    program.finish()


def on_the_way_out(name: str, method: str) -> None:
    program = Program(name, max_size=1)
    pool = program.pool
    conn = pool.acquire('a')
    pool.release(conn, 'a')
    program.script(method)
    with program.interrupted():
        pool.acquire('a')
    assert program.gauges() == (1, 1, 0, 0)
    program.script(method)
    with program.interrupted(), pool.connection('a'):
        pass
    assert program.gauges() == (1, 1, 0, 0)
    jobs = []

    def work() -> None:
        jobs.append(spawn(pool.acquire, 'a'))
        until(lambda: pool.get_stats()['waiting'] == 1)
        program.interrupt()

    program.manager.script(method, work)
    with program.interrupted():
        pool.acquire('a')
    assert jobs[0].result() is conn
    pool.release(conn, 'a')
    program.finish()


def on_acquire_of_a_new_connection(name: str) -> None:
    program = Program(name, max_size=1)
    program.script('on_acquire')
    with program.interrupted():
        program.pool.acquire('a')
    assert program.gauges() == (1, 1, 0, 0)
    program.finish()


def on_the_way_back(name: str) -> None:
    program = Program(name, max_size=1)
    pool = program.pool
    conn = pool.acquire('a')
    program.script('on_release')
    with program.interrupted():
        pool.release(conn, 'a')
    assert program.gauges() == (1, 1, 0, 0)
    program.script('on_release')
    with program.interrupted(), pool.connection('a'):
        pass
    assert program.gauges() == (1, 1, 0, 0)
    conn = pool.acquire('a')
    waiter = spawn(pool.acquire, 'a')
    until(lambda: pool.get_stats()['waiting'] == 1)
    program.script('on_release')
    with program.interrupted():
        pool.release(conn, 'a')
    assert waiter.result() is conn
    pool.release(conn, 'a')
    program.finish()


def dead(name: str, method: str) -> None:
    program = Program(name, max_size=1)
    pool = program.pool
    pool.release(pool.acquire('a'), 'a')
    program.manager.script('check_aliveness', False)
    program.script(method)
    with program.interrupted():
        pool.acquire('a')
    # A thread of the pool closes it, and may not have come to the end of that.
    until(lambda: program.gauges() == (0, 0, 0, 0))
    assert program.manager.living == []
    assert pool.get_stats()['dead'] == pool.get_stats()['disposed'] == 1
    program.finish()


def disposing_in_a_release(name: str) -> None:
    program = Program(name, max_size=4, min_idle=0, idle_timeout=0, dispose_batch_size=4)
    pool = program.pool
    with contextlib.ExitStack() as stack:
        conns = [pool.acquire('a') for _ in range(4)]
        # The three others are idle and due, and nobody has disposed of them.
        for conn in conns[1:]:
            program.manager.script('on_release', OSError())
            with contextlib.suppress(OSError):
                pool.release(conn, 'a')
        assert program.gauges() == (4, 3, 1, 0)
        program.script('dispose')
        stack.enter_context(program.interrupted())
        pool.release(conns[0], 'a')
    assert program.gauges() == (0, 0, 0, 0)
    assert program.manager.living == []
    program.finish()


def evicting(name: str) -> None:
    program = Program(name, max_size=1, total_max_size=1)
    pool = program.pool
    pool.release(pool.acquire('a'), 'a')
    program.script('dispose')
    with program.interrupted():
        pool.acquire('b')
    assert program.gauges() == (0, 0, 0, 0)
    with pool.connection('b'):
        assert program.gauges() == (1, 0, 1, 0)
    program.finish()


def closing(name: str) -> None:
    program = Program(name, max_size=4)
    pool = program.pool
    conns = [pool.acquire('a') for _ in range(4)]
    for conn in conns[:3]:
        pool.release(conn, 'a')
    # While it disposes of what is idle: it disposes of the others, and does not wait for the one that is out.
    program.script('dispose')
    with program.interrupted():
        pool.close()
    assert program.gauges() == (1, 0, 1, 0)
    # While it waits for that one.
    program.interrupt_when(lambda: '_wait' in names_of_frames())
    with program.interrupted():
        pool.close()
    program.interrupt_when(lambda: '_wait' in names_of_frames())
    with program.interrupted():
        pool.close(PATIENCE)
    assert program.gauges() == (1, 0, 1, 0)
    pool.release(conns[3], 'a')
    assert program.gauges() == (0, 0, 0, 0)
    program.finish()


def names_of_frames() -> set[str]:
    """Where the main thread is."""
    found = set()
    frame: FrameType | None = sys._current_frames()[threading.main_thread().ident or 0]
    while frame is not None:
        found.add(frame.f_code.co_name)
        frame = frame.f_back
    return found


def waking_the_collector() -> None:
    """The release that makes a connection due is interrupted while it wakes the collector."""
    manager = Manager()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        manager, min_idle=0, idle_timeout=0.001, background_collector=True
    )

    def on_call(frame: FrameType, event: str, argument: object) -> None:
        if event == 'call' and frame.f_code.co_name == 'wake':
            raise Alarm

    conn = pool.acquire('a')
    sys.setprofile(on_call)
    try:
        pool.release(conn, 'a')
    except Alarm:
        until(lambda: manager.living == [])
    else:
        raise AssertionError('nothing was raised')
    pool.close()


# ---------------------------------------------------------------------------------------------------------------------
# Handlers that acquire themselves
# ---------------------------------------------------------------------------------------------------------------------


class Nested:
    """A main thread that waits, and whose signal handler acquires.

    :param work: what the handler does
    """

    def __init__(self, work: 'Callable[[Nested], None]', **options: Any) -> None:
        self.manager = HookedManager()
        self.pool: ConnectionPool[Any, Connection] = ConnectionPool(self.manager, **options)
        self.work = work
        self.in_handler = threading.Event()
        self.seen: list[str] = []
        self.depth = 0
        signal.signal(signal.SIGALRM, self.handle)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.in_handler.is_set():
            self.depth += 1
            self.in_handler.set()
            self.work(self)

    def take(self, who: str, endpoint: str = 'a', timeout: float = PATIENCE) -> None:
        with self.pool.connection(endpoint, timeout) as conn:
            self.seen.append(f'{who} {conn.name}')

    def signal(self) -> None:
        """Have the handler run in the main thread, from another one."""
        self.in_handler.clear()
        for _ in range(5):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
            if self.in_handler.wait(PATIENCE / 5):
                return

    def until_waiting(self, count: int) -> None:
        until(lambda: self.pool.get_stats()['waiting'] == count)

    def finish(self) -> None:
        assert self.pool._waiting == {}
        assert self.pool.close(PATIENCE) == 0
        self.pool._core.check_invariants()
        assert [conn for conn in self.manager.connections if conn.disposals != 1] == []


def handler_acquires_what_comes_back() -> None:
    """The connection that comes back goes to the handler, although its thread came first."""
    program = Nested(lambda program: program.take('handler'), max_size=1)
    conn = program.pool.acquire('a')

    def other() -> None:
        program.until_waiting(1)
        program.signal()
        program.until_waiting(2)
        program.pool.release(conn)

    job = spawn(other)
    program.take('main')
    job.result()
    assert program.seen == ['handler a1', 'main a1'], program.seen
    program.finish()


def handler_acquires_what_its_thread_was_served(what: str) -> None:
    """The waiter that the handler interrupts is served first: a connection, or a slot to connect."""

    def work(program: Nested) -> None:
        if what == 'connection':
            program.pool.release(held.pop())
        else:
            program.pool.discard(held.pop())
        program.until_waiting(0)
        program.take('handler')

    program = Nested(work, max_size=1)
    held = [program.pool.acquire('a')]

    def other() -> None:
        program.until_waiting(1)
        program.signal()

    job = spawn(other)
    program.take('main')
    job.result()
    name = 'a1' if what == 'connection' else 'a2'
    assert program.seen == [f'handler {name}', f'main {name}'], program.seen
    assert program.pool.get_stats()['waits'] == 1
    program.finish()


def handlers_acquire_one_in_the_other() -> None:
    """A handler is interrupted while it waits itself: the last one is served first. Others keep their places."""

    def work(program: Nested) -> None:
        program.take(f'handler {program.depth}')

    program = Nested(work, max_size=1)
    conn = program.pool.acquire('a')

    def other() -> None:
        program.until_waiting(1)
        late = spawn(program.take, 'late')
        program.until_waiting(2)
        program.signal()
        program.until_waiting(3)
        program.signal()
        program.until_waiting(4)
        program.pool._core.check_invariants()
        program.pool.release(conn)
        late.result()

    job = spawn(other)
    program.take('main')
    job.result()
    assert program.seen == ['handler 2 a1', 'handler 1 a1', 'main a1', 'late a1'], program.seen
    program.finish()


def handler_acquires_at_another_endpoint() -> None:
    """What is idle there is served, and the waiter keeps its place."""
    program = Nested(lambda program: program.take('handler', 'b'), max_size=1)
    conn = program.pool.acquire('a')
    program.take('before', 'b')

    def other() -> None:
        program.until_waiting(1)
        program.signal()
        until(lambda: len(program.seen) == 2)
        program.pool.release(conn)

    job = spawn(other)
    program.take('main')
    job.result()
    assert program.seen == ['before b1', 'handler b1', 'main a1'], program.seen
    program.finish()


def handler_takes_over_and_the_time_is_over() -> None:
    """The interrupted acquire's own time limit still holds: the handler keeps the connection."""
    kept: list[Connection] = []

    def work(program: Nested) -> None:
        program.pool.release(held.pop())
        program.until_waiting(0)
        kept.append(program.pool.acquire('a', PATIENCE))

    program = Nested(work, max_size=1)
    held = [program.pool.acquire('a')]

    def other() -> None:
        program.until_waiting(1)
        program.signal()

    job = spawn(other)
    try:
        program.pool.acquire('a', 1.0)
    except PoolTimeout:
        pass
    else:
        raise AssertionError('it was served what the handler holds')
    job.result()
    program.pool.release(kept[0])
    program.finish()


# ---------------------------------------------------------------------------------------------------------------------
# Interrupted anywhere
# ---------------------------------------------------------------------------------------------------------------------


# What reports exceptions that nobody can catch: its own would be reported, too.
HOOKS: set[CodeType] = set()


@final
class Storm:
    """Interrupts the main thread every 50 to 200 us, at whatever bytecode it is, but for those of some functions.

    Spared is the code of the test where it could not tell what it lost, and what stands for the world outside: a
    connection that nobody got since the signal came before ``create`` returned is lost to the manager, not to the pool.

    :param spared: functions in which nothing is raised; in those that they call it is
    """

    def __init__(self, *spared: Callable[..., Any]) -> None:
        self.spared: set[CodeType] = HOOKS | {function.__code__ for function in spared}
        self.spared |= {value.__code__ for value in vars(Storm).values() if hasattr(value, '__code__')}
        self.count = 0
        self.raging = False
        self.places: set[str] = set()

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        assert frame is not None
        if not self.raging:
            return
        # Only now, so that something is done in between, however slow the machine is.
        signal.setitimer(signal.ITIMER_REAL, 0.00005 * (1 + self.count % 4))
        if frame.f_code not in self.spared:
            self.count += 1
            self.places.add(f'{os.path.basename(frame.f_code.co_filename)}:{frame.f_code.co_name}')
            raise Alarm

    def __enter__(self) -> 'Storm':
        signal.signal(signal.SIGALRM, self.on_signal)
        self.raging = True
        signal.setitimer(signal.ITIMER_REAL, 0.0001)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.raging = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def rage(self, function: Callable[[], object], place: str | None = None) -> None:
        """Call a function until it was interrupted often enough, and in a certain place."""
        deadline = time.monotonic() + PATIENCE
        # How many interruptions there is time for depends on the machine.
        while (self.count < INTERRUPTIONS or place not in {None, *self.places}) and time.monotonic() < deadline:
            try:
                function()
            except Alarm:
                # Not suppress(), which could itself be interrupted.
                continue
        assert self.count >= FEWEST_INTERRUPTIONS, f'only {self.count} interruptions'
        assert place in {None, *self.places}, f'{place} was not interrupted, but only {self.places}'


class StormManager(BaseConnectionManager[str, object]):
    """Its connections are made and lost in one step each, as far as signals are concerned, with pauses around."""

    def __init__(self) -> None:
        self.disposals: dict[object, int] = {}
        self.calls = 0

    def pause(self) -> None:
        """Some bytecodes."""
        for _ in range(10):
            self.calls += 1

    def create(self, endpoint: str, timeout: float | None = None) -> object:
        self.pause()
        conn = object()
        self.disposals[conn] = 0
        return conn

    def dispose(self, endpoint: str, conn: object, timeout: float | None = None) -> None:
        self.disposals[conn] += 1
        self.pause()


class StormHookedManager(StormManager):
    """Finds some connections dead."""

    def check_aliveness(self, endpoint: str, conn: object, timeout: float | None = None) -> bool:
        self.pause()
        return self.calls % 7 != 0

    def on_acquire(self, endpoint: str, conn: object) -> None:
        self.pause()

    def on_release(self, endpoint: str, conn: object) -> None:
        self.pause()

    def on_connection_dead(self, endpoint: str, conn: object) -> None:
        self.pause()


# In these nothing is raised; in pause(), which they call, it is.
SPARED: list[Callable[..., Any]] = [StormManager.create, StormManager.dispose]


def be_quiet() -> None:
    """Have nothing logged (the locks of logging do not survive a storm), and what storms break in finalizers not
    reported."""
    logging.getLogger('gcpool').disabled = True
    report, print_exception = sys.unraisablehook, sys.excepthook

    def report_others(unraisable: 'sys.UnraisableHookArgs') -> None:
        if unraisable.exc_type is not Alarm:
            report(unraisable)

    def print_others(kind: type[BaseException], exc: BaseException, traceback: TracebackType | None) -> None:
        if kind is not Alarm:
            print_exception(kind, exc, traceback)

    HOOKS.update({report_others.__code__, print_others.__code__})
    sys.unraisablehook = report_others
    # Compiled finalizers print what they raise before they report it.
    sys.excepthook = print_others


def make_pool(hooks: bool, **options: Any) -> tuple[ConnectionPool[str, object], StormManager]:
    manager = StormHookedManager() if hooks else StormManager()
    return ConnectionPool(manager, **options), manager


def check_after_storm(pool: ConnectionPool[str, object], manager: StormManager, lost: int = 0) -> None:
    """Compare the accounts, close the pool, compare them again.

    :param lost: how many connections the program has lost
    """
    # What was closed for an acquire, other threads close.
    until(lambda: pool.get_size() == pool.get_stats()['idle'] + lost)
    pool._core.check_invariants()
    stats = pool.get_stats()
    assert stats['waiting'] == 0, stats
    assert stats['acquired'] == lost, stats
    assert sum(1 for count in manager.disposals.values() if count == 0) == stats['size']
    assert pool.close(PATIENCE if lost == 0 else 0) == lost
    assert set(manager.disposals.values()) == {1}
    assert pool.get_size() == 0


class Rivals:
    """Threads that use the pool too. No signal interrupts them.

    :param count: how many
    """

    def __init__(self, pool: ConnectionPool[str, object], count: int) -> None:
        self._pool = pool
        self._done = threading.Event()
        self._jobs = [spawn(self._work, 'ab'[number % 2]) for number in range(count)]

    def _work(self, endpoint: str) -> None:
        while not self._done.is_set():
            with self._pool.connection(endpoint):
                time.sleep(0)

    def stop(self) -> None:
        self._done.set()
        for job in self._jobs:
            job.result()


def storm_over_contexts(hooks: bool, rival_count: int) -> None:
    be_quiet()
    pool, manager = make_pool(hooks, max_size=2, total_max_size=3, idle_timeout=0.0005, max_lifetime=0.002)
    rivals = Rivals(pool, rival_count)

    def cycles() -> None:
        while True:
            with pool.connection('a') as conn:
                assert manager.disposals[conn] == 0
            with pool.connection('b', 0.0005):
                pass

    def cycles_until_time_is_over() -> None:
        with contextlib.suppress(PoolTimeout):
            cycles()

    with Storm(storm_over_contexts, *SPARED) as storm:
        storm.rage(cycles_until_time_is_over, 'signal_programs.py:cycles')
    rivals.stop()
    check_after_storm(pool, manager)


def storm_over_acquires(hooks: bool, rival_count: int) -> None:
    be_quiet()
    # Without hooks and anything to create or dispose of it would hardly ever be in Python code.
    pool, manager = make_pool(hooks, max_size=2, total_max_size=3, min_idle=int(hooks), idle_timeout=0)
    rivals = Rivals(pool, rival_count)

    def cycle() -> None:
        for endpoint, timeout in (('a', None), ('b', 0.0005), ('c', 1.0)):
            try:
                conn = pool.acquire(endpoint, timeout)
            except PoolTimeout:
                continue
            pool.release(conn, endpoint)

    # Not in the lines of cycle(), where what acquire() has returned could be lost.
    with Storm(storm_over_acquires, cycle, *SPARED) as storm:
        storm.rage(cycle)
    rivals.stop()
    assert len(storm.places) > 1
    check_after_storm(pool, manager)


def starting_a_thread() -> None:
    """An acquire has a closer started, and is interrupted at each place in turn where a handler may run."""
    be_quiet()
    now = 0.0

    def clock() -> float:
        return now

    count, interrupted = 0, True
    while interrupted:
        count, interrupted = count + 1, False
        pool, manager = make_pool(False, max_size=2, idle_timeout=1.0, max_lifetime=1.0, _clock=clock)
        pool.release(pool.acquire('a'), 'a')
        now += 1.0
        try:
            # The clock that is used otherwise is compiled.
            with interrupted_at(count, clock, *SPARED):
                conn = pool.acquire('a')
        except Alarm:
            interrupted = True
        else:
            pool.release(conn, 'a')
        # Threads begin and end.
        spawn(pool.get_size).result()
        check_after_storm(pool, manager, pool.get_stats()['acquired'])
    assert count > 20, count


@contextlib.contextmanager
def interrupted_at(count: int, *functions: Callable[..., Any]) -> Iterator[None]:
    """Raise an Alarm in the block, after ``count`` entries into Python code and ends of compiled calls.

    A profiler stands for the signal: from CPython 3.14 on what is compiled may also be the entry into a ``with``.

    :param count: entries and ends, of which the last one is interrupted; nothing is raised if there are fewer
    :param functions: in these nothing is raised; in those that they call it is
    """
    spared = {function.__code__ for function in functions}

    def on_event(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if event in {'call', 'c_return'} and frame.f_code not in spared:
            count -= 1
            if not count:
                raise Alarm

    sys.setprofile(on_event)
    try:
        yield
    finally:
        sys.setprofile(None)


def storm_over_careless_callers() -> None:
    be_quiet()
    pool, manager = make_pool(hooks=False, max_size=10**6, total_max_size=10**6)

    def cycles() -> None:
        while True:
            conn = pool.acquire('a')
            try:
                manager.pause()
            finally:
                pool.release(conn, 'a')

    with Storm(storm_over_careless_callers, *SPARED) as storm:
        storm.rage(cycles)
    check_after_storm(pool, manager, lost=pool.get_stats()['acquired'])


def storm_over_closing(hooks: bool) -> None:
    be_quiet()
    storm = Storm(storm_over_closing, *SPARED)
    while storm.count < INTERRUPTIONS // 10:
        pool, manager = make_pool(hooks, max_size=100)
        conns = [pool.acquire('a') for _ in range(100)]
        for conn in conns[2:]:
            pool.release(conn, 'a')
        releaser = spawn(pool.release, conns[1], 'a')
        with storm:
            try:
                while True:
                    pool.close(0.0003)
            except Alarm:
                # To be closed to the end by the next call.
                pass
        releaser.result()
        pool.close(0)
        pool.release(conns[0], 'a')
        pool._core.check_invariants()
        assert pool.get_size() == 0
        assert set(manager.disposals.values()) == {1}


def storm_over_a_collector() -> None:
    be_quiet()
    pool, manager = make_pool(
        False, max_size=3, min_idle=0, idle_timeout=0.0005, max_lifetime=0.01, background_collector=True
    )

    def cycles() -> None:
        while True:
            with pool.connection('a'), pool.connection('a'):
                pass

    with Storm(storm_over_a_collector, *SPARED) as storm:
        storm.rage(cycles)
    # It goes on to dispose of what is due: of everything.
    until(lambda: pool.get_size() == 0)
    check_after_storm(pool, manager)
