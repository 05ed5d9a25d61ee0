"""Threads that really run at the same time. With the GIL these are tests of threads like others; without it, every
count that is too low, and every entry at a wrong place, shows that something was read or written without its lock.
"""

import itertools
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from gcpool._core import PoolCore, Waiter
from gcpool.exceptions import ConnectionPoolClosedError
from gcpool.threading import BaseConnectionManager, ConnectionPool
from tests.conftest import FREE_THREADED, QUICK, gil_is_on
from tests.support import PATIENCE, dropped_pools, program_environment
from tests.threads.runtime import spawn, until

THREADS = 8
CYCLES = 1000 if QUICK else 20000


@pytest.fixture(autouse=True)
def eager_switching() -> Iterator[None]:
    """With the GIL threads take turns wherever the interpreter lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Connection:
    """Knows who has it."""

    holder: object = None
    disposals = 0


class Manager(BaseConnectionManager[Any, Connection]):
    """Takes no lock: that would put the threads in order."""

    def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        return Connection()

    def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        assert conn.holder is None
        conn.disposals += 1


def run_in_parallel(function: Callable[[int], object], threads: int = THREADS) -> None:
    """Run a function in several threads, which begin together and are told which one they are."""
    start = threading.Barrier(threads)

    def run(number: int) -> None:
        start.wait(PATIENCE)
        function(number)

    for job in [spawn(run, number) for number in range(threads)]:
        job.result()


def check(pool: ConnectionPool[Any, Connection], acquires: int) -> None:
    """Compare the accounts, at rest."""
    pool._core.check_invariants()
    stats = pool.get_stats()
    assert stats['acquires'] == acquires
    assert stats['created'] - stats['disposed'] == stats['size'] == stats['idle']
    assert stats['waiting'] == stats['acquired'] == 0
    pool.close()
    assert pool.get_size() == 0
    pool._core.check_invariants()


def use(pool: ConnectionPool[Any, Connection], endpoint: object, me: object, cycles: int = CYCLES) -> None:
    """Acquire and release, by turns with a context, and see that nobody else is there."""
    for n in range(cycles):
        if n % 2:
            conn = pool.acquire(endpoint)
            assert conn.holder is None
            conn.holder = me
            assert conn.holder is me
            conn.holder = None
            pool.release(conn, endpoint)
        else:
            with pool.connection(endpoint) as conn:
                assert conn.holder is None
                assert conn.disposals == 0
                conn.holder = me
                assert conn.holder is me
                conn.holder = None


def test_importing_the_package_leaves_the_gil_off() -> None:
    """Or on, where it is on anyway. Python warns when an extension switches it on."""
    program = (
        'import sys, gcpool, gcpool.asyncio, gcpool.threading, gcpool._core\n'
        'print(getattr(sys, "_is_gil_enabled", lambda: True)())'
    )
    finished = subprocess.run(
        [sys.executable, '-W', 'error', '-c', program],
        env={name: value for name, value in program_environment().items() if name != 'PYTHON_GIL'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (0, f'{not FREE_THREADED}\n')


def test_the_gil_is_off_in_the_tests() -> None:
    """So that they show what they are for."""
    assert gil_is_on() is not FREE_THREADED


def test_cycles_on_different_endpoints() -> None:
    pool: ConnectionPool[Any, Connection] = ConnectionPool(Manager(), max_size=2, total_max_size=2 * THREADS)
    run_in_parallel(lambda me: use(pool, ('endpoint', me), me))
    assert pool.get_size() == THREADS
    check(pool, THREADS * CYCLES)


@pytest.mark.parametrize('max_size', [1, 3, THREADS])
def test_cycles_on_one_endpoint(max_size: int) -> None:
    pool: ConnectionPool[Any, Connection] = ConnectionPool(Manager(), max_size=max_size)
    run_in_parallel(lambda me: use(pool, 'endpoint', me))
    assert pool.get_size() <= max_size
    check(pool, THREADS * CYCLES)


def test_cycles_on_one_endpoint_that_each_thread_has_an_object_of_its_own_for() -> None:
    """The pool remembers one of them by its address, and by turns another one."""
    pool: ConnectionPool[Any, Connection] = ConnectionPool(Manager(), max_size=THREADS)
    run_in_parallel(lambda me: use(pool, tuple('endpoint'), me))
    assert pool.get_stats()['endpoints'] == 1
    check(pool, THREADS * CYCLES)


def test_cycles_that_make_each_endpoint_known_and_forgotten_again() -> None:
    """Whoever finds an endpoint, by its address or its hash, may find one that is about to be forgotten."""
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        Manager(), min_idle=0, idle_timeout=0, max_size=2, total_max_size=4
    )
    endpoints = ['a', 'b']
    cycles = CYCLES // 5

    def work(me: int) -> None:
        for n in range(cycles):
            endpoint = endpoints[n % 2] if n % 3 else ('fresh', n % 5)
            with pool.connection(endpoint) as conn:
                assert conn.holder is None
                conn.holder = me
                assert pool.get_endpoint_pool_size(endpoint) >= 1
                conn.holder = None

    run_in_parallel(work)
    check(pool, THREADS * cycles)


def test_the_histograms_lose_nothing() -> None:
    """Uses at different endpoints end at the same time, and are counted in one histogram."""
    ticks = itertools.count()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        Manager(), _clock=lambda: next(ticks) * 1.0, max_lifetime=1e9
    )
    cycles = CYCLES // 5
    popped = 0

    def work(me: int) -> None:
        nonlocal popped
        if me == 0:
            for _ in range(cycles // 10):
                popped += pool.pop_stats().histograms['use'].count
        else:
            use(pool, me, me, cycles)

    run_in_parallel(work)
    assert popped + pool.pop_stats().histograms['use'].count == (THREADS - 1) * cycles
    pool.close()


def test_cycles_that_evict_each_other_s_connections() -> None:
    pool: ConnectionPool[Any, Connection] = ConnectionPool(Manager(), max_size=2, total_max_size=THREADS // 2)
    run_in_parallel(lambda me: use(pool, me, me, CYCLES // 10))
    check(pool, THREADS * (CYCLES // 10))


def test_cycles_beside_a_collector_and_those_who_look() -> None:
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        Manager(), min_idle=1, max_size=4, idle_timeout=0.0001, max_lifetime=0.001, background_collector=True
    )
    cycles = CYCLES // 5

    def work(me: int) -> None:
        if me < 2:
            for _ in range(cycles):
                stats = pool.get_stats()
                assert 0 <= stats['idle'] <= 8
                assert 0 <= pool.get_endpoint_pool_size(me) <= 4
                pool._core.next_due()
        else:
            use(pool, me % 2, me, cycles)

    run_in_parallel(work)
    until(lambda: pool.get_size() == 0)
    check(pool, (THREADS - 2) * cycles)


class CoreUser:
    """Goes through every transition that the core has, and counts what it is told.

    :param core: the core
    :param seed: decides what is done
    """

    endpoints = tuple(('endpoint', n) for n in range(4))

    def __init__(self, core: PoolCore, seed: int) -> None:
        self.core = core
        self.random = Random(seed)
        self.now = 0.0
        self.counts: Counter[str] = Counter()

    def step(self) -> None:
        self.now += self.random.random() * 0.1
        waiter = Waiter(self.random.choice(self.endpoints))
        signal = threading.Semaphore(0)
        waiter.arm(signal.release)
        queued = self.core.request(waiter, self.now)
        self.dispose()
        if queued:
            self.counts['waits'] += 1
            if self.leaves(waiter):
                self.dispose()
                return
            assert signal.acquire(timeout=PATIENCE)
        if not waiter.has_ticket or self.creates(waiter):
            self.core.release(waiter.served, self.now)
        if self.random.random() < 0.1:
            self.core.doom_due(self.now, 2)
        self.dispose()

    def leaves(self, waiter: Waiter) -> bool:
        """Whether it does not wait to the end."""
        fate = self.random.random()
        if fate < 0.3:
            if not self.core.give_up(waiter):
                return False
            self.counts['timeouts'] += 1
            return True
        if fate < 0.5:
            # Whatever it was served meanwhile goes to somebody else.
            if not self.core.cancel(waiter, self.now):
                self.counts['served too late'] += 1
            return True
        return False

    def creates(self, waiter: Waiter) -> bool:
        """Whether it becomes a connection."""
        if self.random.random() < 0.2:
            self.core.create_failed(waiter, self.now)
            self.counts['create_errors'] += 1
            return False
        self.core.created(waiter.served, Connection(), self.now)
        self.counts['created'] += 1
        return True

    def dispose(self) -> None:
        while (entry := self.core.take_doomed()) is not None:
            self.core.disposed(entry, self.now)
            self.counts['disposed'] += 1


def test_the_core_s_counters_lose_nothing() -> None:
    core = PoolCore(1, 3, 5, 1.0, 2.0)
    users = [CoreUser(core, seed) for seed in range(THREADS)]

    def work(me: int) -> None:
        for _ in range(CYCLES // 4):
            users[me].step()

    run_in_parallel(work)
    # Each user has a clock of its own.
    core.check_invariants(one_clock=False)
    counts: Counter[str] = sum((user.counts for user in users), Counter())
    stats = core.stats()
    assert {name: stats[name] for name in ('waits', 'timeouts', 'created', 'disposed')} == {
        name: counts[name] for name in ('waits', 'timeouts', 'created', 'disposed')
    }
    # A ticket that somebody was served too late counts as one that failed.
    assert 0 <= stats['create_errors'] - counts['create_errors'] <= counts['served too late']
    assert stats['created'] - stats['disposed'] == stats['size'] == stats['idle']
    assert min(counts.values()) > 0


def test_waiters_are_dropped_while_others_serve_them() -> None:
    """Whoever has a slot to give away finds waiters in the queue whose destructors wait for the lock of the queue."""
    core = PoolCore(1, 1, 2, 60.0, 60.0)

    def work(me: int) -> None:
        for n in range(CYCLES):
            waiters = [Waiter(('endpoint', n % 2)) for _ in range(3)]
            for waiter in waiters:
                # It takes a while, so that whoever calls it still has the waiter when a destructor goes on.
                waiter.arm(lambda: sum(range(30)))
                if not core.request(waiter, 0.0):
                    core.create_failed(waiter, 0.0)

    run_in_parallel(work)
    core.check_invariants()
    stats = core.stats()
    assert stats['create_errors'] + stats['waits'] >= 3 * THREADS * CYCLES
    assert (stats['size'], stats['waiting'], stats['endpoints']) == (0, 0, 0)


def test_statistics_are_of_one_moment() -> None:
    """Everything that was created and not disposed of is among the connections, whenever somebody looks."""
    pool: ConnectionPool[Any, Connection] = ConnectionPool(Manager(), max_size=1, total_max_size=2)

    def work(me: int) -> None:
        if me < THREADS - 2:
            use(pool, me, me, CYCLES // 20)
        else:
            for _ in range(CYCLES // 20):
                stats = pool.get_stats()
                assert 0 <= stats['size'] - (stats['created'] - stats['disposed']) <= 2

    run_in_parallel(work)
    check(pool, (THREADS - 2) * (CYCLES // 20))


def test_pools_are_made_and_dropped_by_all_threads_at_once() -> None:
    """All of them are in one list, for forked children."""

    def work(me: int) -> None:
        for n in range(CYCLES // 100):
            pool: ConnectionPool[Any, Connection] = ConnectionPool(Manager(), background_collector=n % 10 == 0)
            use(pool, me, me, 2)
            if n % 3:
                pool.close()

    with dropped_pools():
        run_in_parallel(work)


def test_a_pool_is_closed_by_some_while_others_use_it() -> None:
    def once(turn: int) -> None:
        pool: ConnectionPool[Any, Connection] = ConnectionPool(Manager(), max_size=2, total_max_size=5)
        refused: list[int] = []

        def work(me: int) -> None:
            if me == turn % THREADS or me == 0:
                until(lambda: pool.get_stats()['acquires'] >= turn % 50)
                assert pool.close(PATIENCE) == 0
                return
            try:
                while True:
                    use(pool, me % 3, me, 1)
            except ConnectionPoolClosedError:
                refused.append(me)

        run_in_parallel(work)
        assert len(refused) >= THREADS - 2
        assert pool.get_size() == 0
        pool._core.check_invariants()

    for turn in range(20 if QUICK else 60):
        once(turn)
