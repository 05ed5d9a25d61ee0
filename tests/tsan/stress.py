"""Threads that do to a pool all that can be done, at the same time and without the GIL, for ``make tsan``.

    python stress.py CYCLES [SEED]

Each thread makes CYCLES cycles, in pools whose parameters are drawn from SEED (a new one each time); every other pool
is a core by itself. ThreadSanitizer takes two accesses for ordered where a lock stands between them, whatever it is
for. So the threads share nothing here but pools: each has random numbers and counters of its own, and the connection
manager takes no lock. Nothing is imported that is not needed, since all of Python is slow under ThreadSanitizer.

What is asserted is what the books must say in the end; the data races are ThreadSanitizer's to find.
"""

import gc
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from gcpool._core import Entry, PoolCore, Waiter
from gcpool._workers.before_fork import dismiss_idle_threads, recall_dismissed
from gcpool.exceptions import ConnectionNotAcquired, ConnectionPoolClosedError, DiscardConnection
from gcpool.threading import BaseConnectionManager, ConnectionPool

USERS = 5
# How many cycles a thread makes before it begins with the next pool.
CYCLES_IN_A_POOL = 100
# Seconds that a thread waits for another one. Nothing here takes so long unless it hangs.
PATIENCE = 120.0
# Seconds that somebody waits for a connection before giving up.
MOMENT = 0.002


class Mine(threading.local):
    """What each thread has for itself. Threads that were not told a seed (a pool's collector) have the same one."""

    def __init__(self) -> None:
        self.random = random.Random(0)
        self.counts: Counter[str] = Counter()
        # Whether the manager does not raise just now: there is nobody whom it could reach.
        self.calm = False

    def happens(self, probability: float) -> bool:
        """Throw the dice."""
        return not self.calm and self.random.random() < probability


mine = Mine()

# One context of the pool of each round, for all threads.
shared_contexts: dict[Any, Any] = {}


class Refused(Exception):
    """What the connection manager raises, and the blocks of users."""


class Connection:
    """A connection to nothing."""

    holder: object = None


class Endpoint:
    """Equal to another one of its number, and made anew all the time."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return self.number % 3

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and self.number == other.number


ENDPOINTS: tuple[object, ...] = ('a', 'b', ('c', 1), ('d', 2))


def some_endpoint() -> object:
    """One of a few that are used all the time, an equal one, another spelling, or one that comes and goes."""
    n = mine.random.randrange(12)
    if n < 4:
        return ENDPOINTS[n]
    if n < 6:
        return ''.join(('', 'ab'[n - 4]))
    if n < 8:
        return 'AB'[n - 6] + ' ' * mine.random.randrange(12)
    if n < 10:
        return Endpoint(mine.random.randrange(4))
    return 'fresh', mine.random.randrange(40)


def spelled(endpoint: Any) -> Any:
    """What an endpoint counts as."""
    return endpoint.lower().strip() if isinstance(endpoint, str) else endpoint


class PlainManager(BaseConnectionManager[Any, Connection]):
    """What every manager does."""

    def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        if mine.happens(0.05):
            raise Refused
        return Connection()

    def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        if conn.holder is not None and timeout is None:
            raise AssertionError('a connection is disposed of while somebody has it')
        if mine.happens(0.05):
            raise Refused


class HookedManager(PlainManager):
    """With every hook that there is."""

    def normalize(self, endpoint: Any) -> Any:
        return spelled(endpoint)

    def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        if mine.happens(0.02):
            raise TimeoutError
        return not mine.happens(0.1)

    def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        if mine.happens(0.03):
            raise Refused

    def on_release(self, endpoint: Any, conn: Connection) -> None:
        if mine.happens(0.03):
            raise DiscardConnection
        if mine.happens(0.03):
            raise Refused

    def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        if mine.happens(0.1):
            raise Refused
        return mine.happens(0.5)

    def on_connection_dead(self, endpoint: Any, conn: Connection) -> None:
        if mine.happens(0.1):
            raise Refused


# ---------------------------------------------------------------------------------------------------------------------
# The pool for threads
# ---------------------------------------------------------------------------------------------------------------------


def new_pool(draw: random.Random) -> ConnectionPool[Any, Connection]:
    """A pool whose endpoints compete for the total cap, mostly, and whose connections are soon due."""
    idle_timeout = draw.choice((0.0, 0.001, 60.0))
    return ConnectionPool(
        draw.choice((PlainManager, HookedManager, HookedManager))(),
        min_idle=draw.choice((0, 1, 2)),
        max_size=draw.choice((2, 3)),
        total_max_size=draw.choice((3, 5, 40)),
        idle_timeout=idle_timeout,
        max_lifetime=idle_timeout + draw.choice((0.003, 60.0)),
        background_collector=draw.random() < 0.6,
        check_interval=draw.choice((0.0, 0.001)),
        check_timeout=draw.choice((None, 1.0)),
        acquire_timeout=10 * MOMENT,
    )


def use(pool: ConnectionPool[Any, Connection]) -> None:
    """Acquire a connection and give it back, in each of the ways that there are."""
    endpoint = some_endpoint()
    timeout = mine.random.choice((None, None, 0, MOMENT))
    way = mine.random.randrange(11)
    if way < 2:
        conn = pool.acquire(endpoint, timeout)
        hold(conn)
        pool.release(conn, endpoint)
        if way == 1:
            # By now somebody else may have it.
            pool._core.entry_if_acquired(conn, endpoint)
    elif way < 5:
        with pool.connection(endpoint, timeout) as conn:
            hold(conn)
            if way == 4:
                raise Refused
    elif way == 5:
        # Entered and never left: it is given back when the context goes.
        context = pool.connection(endpoint, timeout)
        context.__enter__()
        mine.calm = True
        del context
        mine.calm = False
    elif way == 6:
        with pool.connection(endpoint, timeout) as conn:
            pool.release(conn, endpoint)
    elif way == 7:
        # Holds one while it waits for another one, so that others have to wait for long, or in vain.
        with pool.connection(endpoint, timeout), pool.connection(some_endpoint(), timeout) as conn:
            hold(conn)
    elif way < 10:
        use_together(pool)
    else:

        @pool.connection(endpoint, timeout)
        def call() -> None:
            raise Refused

        call()


def use_together(pool: ConnectionPool[Any, Connection]) -> None:
    """Enter a context that others are entering and leaving: of each round one has it."""
    context = shared_contexts.setdefault(pool, pool.connection('a', MOMENT))
    for _ in range(10):
        try:
            context.__enter__()
        except RuntimeError as exc:
            if 'entered already' not in str(exc):
                raise
            mine.counts['entered already'] += 1
        # Whether by this thread or another one it was entered.
        time.sleep(0)
        leave_together(context)


def leave_together(context: Any) -> None:
    try:
        context.__exit__(None, None, None)
    except RuntimeError as exc:
        if isinstance(exc, ConnectionNotAcquired):
            raise
        mine.counts['not entered'] += 1


def hold(conn: Connection) -> None:
    """See that nobody else has it."""
    assert conn.holder is None, 'two have one connection'
    conn.holder = me = threading.get_ident()
    assert conn.holder == me, 'two have one connection'
    conn.holder = None


def use_pool(pool: ConnectionPool[Any, Connection]) -> None:
    for _ in range(CYCLES_IN_A_POOL):
        mine.counts['cycles'] += 1
        try:
            use(pool)
            if mine.happens(0.002):
                pool.close(mine.random.choice((0, MOMENT)))
        except ConnectionPoolClosedError:
            return
        except (Refused, TimeoutError, ConnectionNotAcquired) as exc:
            mine.counts[type(exc).__name__] += 1
        if mine.happens(0.01):
            make_and_drop_pool()
        if mine.happens(0.003):
            # As before a fork: the idle threads end, of this pool and others, and come back.
            dismiss_idle_threads()
            recall_dismissed()


def make_and_drop_pool() -> None:
    """All pools are in one list, for forked children, and the thread of a collector ends when its pool goes."""
    mine.calm = True
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        PlainManager(), background_collector=mine.random.random() < 0.3
    )
    pool.release(pool.acquire('a'), 'a')
    mine.calm = False
    mine.counts['pools'] += 1


def look_at_pool(pool: ConnectionPool[Any, Connection]) -> None:
    """Read all that can be read. Most of it several times, since what takes a lock hides what comes before it."""
    for _ in range(10):
        repr(pool)
        assert pool.get_size() >= 0
        assert pool.is_full in {True, False}
        assert pool.min_idle + pool.max_size + pool.total_max_size > 0
    stats = pool.get_stats()
    assert 0 <= stats['size'] - (stats['created'] - stats['disposed']) <= 40
    pool.get_endpoint_pool_size(some_endpoint(), mine.random.choice((None, True, False)))


def disturb_pool(pool: ConnectionPool[Any, Connection]) -> None:
    """Change limits, do the collector's work, replace a method as tracers do, and collect garbage."""
    pool._core.resize(
        pool._core.now(),
        min_idle=mine.random.choice((0, 1, 2)),
        max_size=mine.random.choice((2, 3)),
        total_max_size=mine.random.choice((3, 5, 40)),
    )
    pool._dispose_doomed()
    pool._core.next_due()
    if mine.happens(0.2):
        pool.acquire = pool.acquire  # type: ignore[method-assign]
        del pool.acquire
    if mine.happens(0.01):
        gc.collect()


def stress_pool(draw: random.Random) -> None:
    pool = new_pool(draw)
    in_parallel(draw, pool, use_pool, [look_at_pool, disturb_pool])
    shared_contexts.clear()
    for _ in range(2):
        attempt(lambda: pool.close(PATIENCE))
    assert pool.get_size() == 0
    workers = [*pool._workers.stop(), *([] if pool._collector is None else pool._collector.stop())]
    assert not workers, 'threads of the pool are at work when it is closed'
    pool._core.check_invariants()


# ---------------------------------------------------------------------------------------------------------------------
# The core by itself
# ---------------------------------------------------------------------------------------------------------------------


class CoreCase:
    """A core whose users leave their waiters to one another to be dropped."""

    def __init__(self, draw: random.Random) -> None:
        self.told = threading.Semaphore(0)
        self.core = PoolCore(
            draw.choice((0, 1)),
            draw.choice((1, 2)),
            draw.choice((2, 4)),
            draw.choice((0.0, 0.001, 60.0)),
            60.0,
            collects=draw.random() < 0.3,
            wake_collector=self.told.release,
            normalize=draw.choice((None, spelled)),
        )
        # Whoever puts one in drops the one that was there.
        self.left: list[object] = [None] * 3


class Ring:
    """What tells a waiter that it was served."""

    __slots__ = ('lock',)

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()

    def __call__(self) -> None:
        self.lock.release()


def ask_core(case: CoreCase) -> None:
    core = case.core
    waiter = Waiter(some_endpoint())
    ring = Ring()
    waiter.arm(ring)
    entry = core.try_acquire(waiter.endpoint, core.now())
    if entry is not None:
        core.adopt(waiter, entry)
    elif core.request(waiter, core.now()) and not wait(case, waiter, ring):
        return
    if mine.happens(0.3):
        dispose(core)
    if waiter.refused:
        raise ConnectionPoolClosedError
    if waiter.has_ticket:
        if mine.happens(0.1):
            leave(case, waiter)
            return
        if mine.happens(0.1):
            core.create_failed(waiter, core.now())
            return
        if not core.created(waiter.served, Connection(), core.now()):
            return
    give_back(case, waiter)


def wait(case: CoreCase, waiter: Waiter, ring: Ring) -> bool:
    """Whether it was served; if not, it is through."""
    core = case.core
    way = mine.random.randrange(8)
    mine.counts['waits'] += 1
    if way == 0:
        leave(case, waiter)
        return False
    if way == 1:
        # Not while it is queued, that is not cancelled: only whoever serves it looks at it any more.
        del waiter
        return False
    if way == 2:
        core.cancel(waiter, core.now())
        return False
    dispose(core)
    if ring.lock.acquire(timeout=MOMENT):
        return True
    if not core.give_up(waiter):
        assert ring.lock.acquire(timeout=PATIENCE), 'somebody who was served is not told so'
        return True
    return False


def leave(case: CoreCase, waiter: Waiter) -> None:
    """Have another thread drop it."""
    mine.counts['left'] += 1
    case.left[mine.random.randrange(len(case.left))] = waiter


def give_back(case: CoreCase, waiter: Waiter) -> None:
    core = case.core
    entry = waiter.served
    way = mine.random.randrange(10)
    hold(entry.conn)
    if way == 0:
        core.begin_check(waiter)
        core.reject_dead(waiter)
        if mine.happens(0.5):
            core.request(waiter, core.now())
        core.cancel(waiter, core.now())
    elif way == 1:
        core.cancel(waiter, core.now())
    elif way == 2:
        core.distrust_endpoint(entry)
        if core.retire(entry, core.now()):
            core.disposed(entry, core.now())
    elif way == 3:
        core.retire_to_doomed(entry, core.now())
    elif way == 4:
        entry.break_()
        if core.begin_release(entry) and core.is_checked_out(entry):
            core.mark_unchecked(entry)
            core.release(entry, core.now())
    else:
        if core.needs_check(waiter, core.now(), 0.001):
            core.begin_check(waiter)
            core.end_check(waiter)
        found = core.find_acquired(entry.conn, waiter.endpoint)
        if found is not None and core.still_holds(waiter):
            core.release(found, core.now())
            look_at_entry(entry)


def look_at_entry(entry: Entry) -> None:
    """By now it may be anybody's."""
    repr(entry)
    assert entry.state_name
    assert entry.lease_no > 0
    assert entry.is_broken in {True, False}


def dispose(core: PoolCore) -> None:
    take = mine.random.choice((core.take_doomed, core.take_doomed_for_caller, core.take_doomed_for_worker))
    while (entry := take()) is not None:
        if mine.happens(0.1):
            core.doom_again(entry)
            return
        if mine.happens(0.1):
            watcher = Waiter(None)
            watcher.arm(bool)
            core.watch_gone(watcher, entry)
            if mine.happens(0.5):
                core.unwatch(watcher)
        core.disposed(entry, core.now(), mine.happens(0.5))


def use_core(case: CoreCase) -> None:
    core = case.core
    for _ in range(CYCLES_IN_A_POOL):
        mine.counts['cycles'] += 1
        try:
            ask_core(case)
        except ConnectionPoolClosedError:
            return
        except ConnectionNotAcquired:
            mine.counts['ConnectionNotAcquired'] += 1
        if mine.happens(0.1):
            core.doom_due(core.now(), 2, mine.happens(0.5))
            core.next_due()
        if mine.happens(0.002):
            core.close()
            core.doom_acquired()
        dispose(core)


def look_at_core(case: CoreCase) -> None:
    core = case.core
    for _ in range(10):
        assert core.size >= 0
        assert core.doomed >= 0
        assert core.left_to_workers >= 0
        assert core.closed in {True, False}
        assert core.min_idle + core.max_size + core.total_max_size > 0
    assert min(core.stats().values()) >= 0
    assert core.acquired >= 0
    core.endpoint_size(some_endpoint(), mine.random.choice((None, True, False)))
    core.entry_if_acquired(None, 'a')


def disturb_core(case: CoreCase) -> None:
    core = case.core
    core.resize(core.now(), max_size=mine.random.choice((1, 2)), total_max_size=mine.random.choice((2, 4)))
    watcher = Waiter(None)
    watcher.arm(bool)
    if core.watch_empty(watcher):
        core.unwatch(watcher)
    dispose(core)
    if mine.happens(0.01):
        gc.collect()


def stress_core(draw: random.Random) -> None:
    case = CoreCase(draw)
    core = case.core
    in_parallel(draw, case, use_core, [look_at_core, disturb_core])
    case.left.clear()
    core.close()
    # What a waiter held that was dropped is out for good.
    core.doom_acquired()
    while (entry := core.take_doomed()) is not None:
        core.disposed(entry, core.now())
    assert core.size == 0
    core.check_invariants()


# ---------------------------------------------------------------------------------------------------------------------


def attempt(function: Callable[[], object]) -> None:
    """Call it again where the manager's dispose raised what is no business of this program."""
    try:
        function()
    except Refused:
        function()


total: Counter[str] = Counter()
unraisable_in: list[str] = []


class Course:
    """Whether the users are still at it. Set once: a lock would put the threads in order."""

    goes_on = True


def in_parallel(
    draw: random.Random, subject: Any, use: Callable[[Any], None], others: Sequence[Callable[[Any], None]]
) -> None:
    """Have USERS threads use something, and call each of the others again and again meanwhile, in a thread of its own.

    Raises what the first of them raised.
    """
    start = threading.Barrier(USERS + len(others))
    course = Course()
    counts: list[Counter[str]] = []
    failures: list[BaseException] = []

    def call_again_and_again(function: Callable[[Any], None]) -> None:
        while course.goes_on:
            function(subject)
            mine.counts[function.__name__] += 1
            time.sleep(0.0002)  # leaves the processors to the users

    def run(function: Callable[[Any], None], argument: Any, seed: int) -> None:
        mine.random.seed(seed)
        try:
            start.wait(PATIENCE)
            function(argument)
        except BaseException as exc:  # noqa: BLE001 - the main thread raises it
            failures.append(exc)
        counts.append(mine.counts)

    def spawn(function: Callable[[Any], None], argument: Any) -> threading.Thread:
        thread = threading.Thread(target=run, args=(function, argument, draw.getrandbits(32)), daemon=True)
        thread.start()
        return thread

    users = [spawn(use, subject) for _ in range(USERS)]
    beside = [spawn(call_again_and_again, function) for function in others]
    deadline = time.monotonic() + PATIENCE
    for threads in (users, beside):
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
            assert not thread.is_alive(), 'a thread does not end'
        course.goes_on = False
    for each in counts:
        total.update(each)
    if failures:
        raise failures[0]


def main() -> None:
    """Run the command line."""
    cycles = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1_000_000)
    print(f'seed {seed}', flush=True)
    draw = random.Random(seed)
    logging.disable()
    sys.unraisablehook = lambda unraisable: unraisable_in.append(repr(unraisable.object))
    assert not getattr(sys, '_is_gil_enabled', lambda: True)(), 'the GIL is on'
    for n in range(max(cycles // CYCLES_IN_A_POOL, 2)):
        (stress_pool if n % 2 else stress_core)(draw)
    assert not unraisable_in, f'exceptions that nobody could catch: {unraisable_in}'
    print(f'{total["cycles"]} cycles by {USERS} threads, with two others beside them: {dict(total)}')


if __name__ == '__main__':
    main()
