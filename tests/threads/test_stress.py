"""Many threads at once. Each test does a fixed number of things, and then all books must balance, however the scheduler
interleaved the threads."""

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from gcpool.exceptions import ConnectionPoolClosedError, PoolTimeout
from gcpool.threading import ConnectionPool
from tests.conftest import QUICK
from tests.pool_threads.support import Case, FlakyManager, Gate, HookedManager, Manager
from tests.support import PATIENCE, Connection, Interruption
from tests.threads.runtime import spawn, until

pytestmark = pytest.mark.stress

ROUNDS = 40 if QUICK else 300


@pytest.fixture(autouse=True)
def eager_switching() -> Iterator[None]:
    """Threads switch wherever the interpreter lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Watch:
    """Checks that no two threads use one connection at the same time.

    Findings are recorded, not raised: the pool ignores what a manager's ``dispose`` raises.
    """

    def __init__(self) -> None:
        self.collisions: list[str] = []
        self._users: dict[int, str] = {}

    @contextlib.contextmanager
    def use(self, conn: Connection, what: str) -> Iterator[None]:
        # One atomic step without a lock, which would keep the threads apart.
        other = self._users.setdefault(id(conn), mine := f'{what} by {threading.get_ident()}')
        if other is not mine:
            self.collisions.append(f'{conn}: {mine} during {other}')
        if conn.disposals and what != 'dispose':
            self.collisions.append(f'{conn}: {mine} after its dispose')
        try:
            yield
        finally:
            if other is mine:
                del self._users[id(conn)]


class WatchedManager(HookedManager):
    """Reports two calls at once for one connection, by the pool or by a client."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = Watch()

    def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        with self.watch.use(conn, 'dispose'):
            super().dispose(endpoint, conn, timeout)

    def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        with self.watch.use(conn, 'check_aliveness'):
            return super().check_aliveness(endpoint, conn, timeout)

    def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        with self.watch.use(conn, 'on_acquire'):
            super().on_acquire(endpoint, conn)

    def on_release(self, endpoint: Any, conn: Connection) -> None:
        with self.watch.use(conn, 'on_release'):
            super().on_release(endpoint, conn)


class UnreliableManager(WatchedManager, FlakyManager):
    """Also fails at random."""

    def __init__(self, random: Random) -> None:
        FlakyManager.__init__(self, random)
        self.watch = Watch()


class PlainWatchedManager(Manager):
    """Overrides no hook, so that the pool takes its shortest paths."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = Watch()


def check_books(pool: ConnectionPool[Any, Connection], manager: Any) -> None:
    """Compare what the manager saw with what it may see. At rest, with the pool closed."""
    assert manager.watch.collisions == []
    pool._core.check_invariants()
    assert [(conn, conn.disposals) for conn in manager.connections if conn.disposals != 1] == []
    assert manager.open.total() == 0
    assert manager.total_peak <= pool.total_max_size
    assert max(manager.peak.values(), default=0) <= pool.max_size
    stats = pool.get_stats()
    assert stats['size'] == stats['waiting'] == stats['endpoints'] == 0
    assert stats['created'] == stats['disposed'] == len(manager.connections)


def run_threads(*functions: Callable[[], None]) -> None:
    """Run functions in parallel, starting at the same moment, to their ends."""
    start = threading.Barrier(len(functions))

    def run(function: Callable[[], None]) -> None:
        start.wait(PATIENCE)
        function()

    for job in [spawn(run, function) for function in functions]:
        job.result()


def run_behind(pool: ConnectionPool[Any, Connection], *functions: Callable[[], None]) -> None:
    """Run functions in parallel while every slot is taken, and free the slots once one of them waits.

    However the threads are scheduled, some of them have waited then.
    """
    held: list[tuple[str, Connection]] = []
    while len(held) < pool.total_max_size:
        endpoint = f'held {len(held)}'
        with contextlib.suppress(OSError, Interruption):
            held.append((endpoint, pool.acquire(endpoint, PATIENCE)))

    def begin() -> None:
        until(lambda: pool.get_stats()['waiting'] > 0)
        for endpoint, conn in held:
            with contextlib.suppress(OSError, Interruption):
                pool.release(conn, endpoint)

    run_threads(begin, *functions)
    assert pool.get_stats()['waits'] > 0


ENDPOINTS = 'abcde'
THREADS = 20


class Client:
    """Acquires connections in each possible way, uses them, and releases them."""

    def __init__(self, pool: ConnectionPool[Any, Connection], manager: Any, seed: int, cycles: int) -> None:
        self.pool = pool
        self.manager = manager
        self.random = Random(seed)
        self.cycles = cycles
        self.outcomes: Counter[str] = Counter()

    def __call__(self) -> None:
        for _ in range(self.cycles):
            endpoint = self.random.choice(ENDPOINTS)
            # The timeouts end some waits, at unpredictable points.
            timeout = self.random.choice([None, None, 0, 0.0005, 5.0])
            way = self.random.choice([self.raw, self.context, self.failing_context])
            try:
                way(endpoint, timeout)
                self.outcomes['served'] += 1
            except (OSError, Interruption) as exc:
                self.outcomes[type(exc).__name__] += 1

    def use(self, conn: Connection) -> None:
        with self.manager.watch.use(conn, 'client'):
            for _ in range(self.random.randrange(3)):
                time.sleep(0)

    def raw(self, endpoint: str, timeout: float | None) -> None:
        conn = self.pool.acquire(endpoint, timeout)
        self.use(conn)
        self.pool.release(conn, endpoint)

    def context(self, endpoint: str, timeout: float | None) -> None:
        with self.pool.connection(endpoint, timeout) as conn:
            self.use(conn)

    def failing_context(self, endpoint: str, timeout: float | None) -> None:
        with contextlib.suppress(KeyError), self.pool.connection(endpoint, timeout) as conn:
            self.use(conn)
            raise KeyError


@pytest.mark.parametrize('seed', range(1 if QUICK else 3))
@pytest.mark.parametrize('collector', [False, True])
def test_failing_hooks_tiny_lifetimes_and_the_total_cap_break_no_rule(collector: bool, seed: int) -> None:
    manager = UnreliableManager(Random(seed))
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        manager,
        min_idle=1,
        max_size=4,
        total_max_size=8,
        idle_timeout=0.0005,
        max_lifetime=0.003,
        background_collector=collector,
    )
    clients = [Client(pool, manager, 1000 * seed + n, ROUNDS) for n in range(THREADS)]
    run_behind(pool, *clients)
    pool._core.check_invariants()
    assert pool.get_stats()['acquired'] == pool.get_stats()['waiting'] == 0

    manager.forget_script()
    assert pool.close(timeout=PATIENCE) == 0
    until(lambda: pool.get_size() == 0)
    check_books(pool, manager)
    outcomes: Counter[str] = sum((client.outcomes for client in clients), Counter())
    assert sum(outcomes.values()) == THREADS * ROUNDS
    assert outcomes['served'] > 0
    assert outcomes['OSError'] > 0


@pytest.mark.parametrize('collector', [False, True])
@pytest.mark.parametrize('max_size', [1, 3])
def test_threads_on_few_connections_are_each_alone_with_theirs(max_size: int, collector: bool) -> None:
    manager = PlainWatchedManager()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        manager, max_size=max_size, total_max_size=max_size, background_collector=collector
    )

    held = [pool.acquire('a') for _ in range(max_size)]

    def begin() -> None:
        # However the threads are scheduled, each has waited once.
        until(lambda: pool.get_stats()['waiting'] == THREADS)
        for conn in held:
            pool.release(conn, 'a')

    def work() -> None:
        for _ in range(2 * ROUNDS):
            with pool.connection('a') as conn, manager.watch.use(conn, 'client'):
                time.sleep(0)

    run_threads(begin, *[work] * THREADS)
    assert pool.get_stats()['acquires'] == THREADS * 2 * ROUNDS + max_size
    assert pool.get_stats()['waits'] >= THREADS
    assert len(manager.connections) <= max_size
    pool.close()
    check_books(pool, manager)


def test_nobody_is_left_waiting_where_every_slot_has_to_come_from_another_endpoint() -> None:
    """Each thread has an endpoint of its own, and there are two connections for all of them."""
    manager = PlainWatchedManager()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(manager, max_size=2, total_max_size=2, min_idle=1)

    def client(endpoint: str) -> Callable[[], None]:
        def work() -> None:
            for _ in range(ROUNDS):
                with pool.connection(endpoint) as conn, manager.watch.use(conn, 'client'):
                    time.sleep(0)

        return work

    run_behind(pool, *[client(f'endpoint {n}') for n in range(16)])
    assert pool.get_stats()['acquires'] == 16 * ROUNDS + 2
    pool.close()
    check_books(pool, manager)


def test_endpoints_come_and_go_under_every_thread() -> None:
    """Endpoints that are equal but not the same object, forgotten as soon as they have no connections."""
    manager = PlainWatchedManager()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        manager, min_idle=0, idle_timeout=0, max_size=2, total_max_size=6
    )

    def work() -> None:
        for n in range(ROUNDS):
            endpoint = ('host', n % 5)
            conn = pool.acquire(endpoint)
            with manager.watch.use(conn, 'client'):
                time.sleep(0)
                assert pool.get_endpoint_pool_size(('host', n % 5)) >= 1
            pool.release(conn, ('host', n % 5))

    run_threads(*[work] * 12)
    assert pool.get_stats()['endpoints'] <= 5
    assert pool.get_stats()['acquires'] == 12 * ROUNDS
    pool.close()
    check_books(pool, manager)


# ---------------------------------------------------------------------------------------------------------------------
# Fairness
# ---------------------------------------------------------------------------------------------------------------------


def queue_up(case: Case, count: int, served: list[int]) -> list[Any]:
    """Queue threads one after the other; each records when it is served, and releases the connection."""

    def client(number: int) -> None:
        with case.pool.connection('a'):
            served.append(number)

    jobs = []
    for number in range(count):
        jobs.append(spawn(client, number))
        case.waiting(number + 1)
    return jobs


def test_threads_are_served_in_the_order_of_their_arrival() -> None:
    served: list[int] = []
    with Case(max_size=1) as case:
        (conn,) = case.acquire('a', 1)
        jobs = queue_up(case, 32, served)
        case.release(conn)
        for job in jobs:
            job.result()
        assert served == list(range(32))


def test_threads_are_served_in_the_order_of_their_arrival_when_connections_come_back_in_any_order() -> None:
    served: list[int] = []
    with Case(max_size=8) as case:
        conns = case.acquire('a', 8)
        Random(0).shuffle(conns)
        turns = [Gate() for _ in range(32)]

        def client(number: int) -> None:
            with case.pool.connection('a'):
                served.append(number)
                turns[number].go_through()

        jobs = []
        for number in range(32):
            jobs.append(spawn(client, number))
            case.waiting(number + 1)
        for count, conn in enumerate(conns, 1):
            case.release(conn)
            until(lambda count=count: len(served) == count)  # type: ignore[misc]
        for number in range(24):
            # Of those that have a connection, any one may finish first.
            turns[(number * 5) % 8 + number - number % 8].open()
            until(lambda count=number + 9: len(served) == count)  # type: ignore[misc]
        for turn in turns:
            turn.open()
        for job in jobs:
            job.result()
        assert served == list(range(32))


def test_a_thread_that_just_released_does_not_overtake_one_that_waits() -> None:
    with Case(max_size=1) as case:
        (conn,) = case.acquire('a', 1)
        for _ in range(ROUNDS):
            waiter = spawn(case.pool.acquire, 'a')
            case.waiting(1)
            case.release(conn)
            with pytest.raises(PoolTimeout):
                case.pool.acquire('a', 0)
            assert waiter.result() is conn
        case.release(conn)


def test_nobody_is_served_twice_before_all_who_waited_are_served_once(
    record_property: Callable[[str, object], None],
) -> None:
    """32 threads share 8 connections, a fixed number of times; how evenly is recorded."""
    total = 32 * ROUNDS
    counts = [0] * 32
    with Case(max_size=8) as case:
        conns = case.acquire('a', 8)
        log: list[int] = []

        def client(number: int) -> None:
            while len(log) < total:
                with case.pool.connection('a'):
                    log.append(number)
                    counts[number] += 1
                    time.sleep(0)

        jobs = [spawn(client, number) for number in range(32)]
        case.waiting(32)
        case.release(*conns)
        for job in jobs:
            job.result()
        assert sum(counts) == len(log) >= total
        assert min(counts) >= 1
        jain = sum(counts) ** 2 / (32 * sum(count**2 for count in counts))
        record_property('jain', jain)
        print(f'served at least {min(counts)} times, at most {max(counts)}: Jain index {jain:.3f}')


# ---------------------------------------------------------------------------------------------------------------------
# Hand-off
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('timeout', [0, 1e-6, 0.0001, 0.0005])
def test_a_release_in_the_moment_in_which_a_time_limit_runs_out_loses_nothing(timeout: float) -> None:
    manager = PlainWatchedManager()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(manager, max_size=1)
    outcomes: list[str] = []
    for _ in range(ROUNDS):
        conn = pool.acquire('a')

        def wait() -> None:
            try:
                with pool.connection('a', timeout) as conn, manager.watch.use(conn, 'client'):
                    outcomes.append('served')
            except PoolTimeout:
                outcomes.append('timed out')

        run_threads(wait, wait, lambda conn=conn: pool.release(conn, 'a'))  # type: ignore[misc]
        stats = pool.get_stats()
        assert (stats['size'], stats['idle'], stats['waiting']) == (1, 1, 0)
        pool._core.check_invariants()
    assert len(outcomes) == 2 * ROUNDS
    pool.close()
    check_books(pool, manager)


def close_acquire_and_release(timeout: float | None) -> None:
    manager = WatchedManager()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(manager, max_size=2, total_max_size=3)
    still_out: list[int] = []
    out = [(pool.acquire(endpoint), endpoint) for endpoint in 'aab']
    pool.release(*out.pop())
    outcomes: list[str] = []

    def acquire(endpoint: str) -> Callable[[], None]:
        def work() -> None:
            try:
                conn = pool.acquire(endpoint)
            except ConnectionPoolClosedError:
                outcomes.append('refused')
            else:
                outcomes.append('served')
                pool.release(conn, endpoint)

        return work

    def release() -> None:
        for conn, endpoint in out:
            pool.release(conn, endpoint)

    def close() -> None:
        still_out.append(pool.close(timeout))

    run_threads(acquire('a'), acquire('a'), acquire('b'), acquire('c'), release, close)
    assert len(outcomes) == 4
    # A connection closed while in use may be in a hook of its user's release at that moment.
    if still_out == [0]:
        assert manager.watch.collisions == []
    manager.watch.collisions.clear()
    until(lambda: pool.get_size() == 0)
    check_books(pool, manager)


@pytest.mark.parametrize('timeout', [None, 0, 0.0005])
def test_close_acquire_and_release_at_once_leave_nothing_behind(timeout: float | None) -> None:
    for _ in range(ROUNDS):
        close_acquire_and_release(timeout)


def close_over_clients(seed: int) -> None:
    manager = UnreliableManager(Random(seed))
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        manager, max_size=3, total_max_size=6, idle_timeout=0.0005, max_lifetime=0.003
    )
    refused: list[int] = []

    def client(number: int) -> Callable[[], None]:
        def work() -> None:
            random = Random(f'{seed} {number}')
            while True:
                endpoint = random.choice(ENDPOINTS)
                try:
                    with pool.connection(endpoint, random.choice([None, 0.0005])):
                        time.sleep(0)
                except ConnectionPoolClosedError:
                    refused.append(number)
                    return
                except (OSError, Interruption):
                    continue

        return work

    def close() -> None:
        until(lambda: len(manager.connections) > 20)
        pool.close(0)

    run_threads(close, *[client(number) for number in range(10)])
    assert sorted(refused) == list(range(10))
    until(lambda: pool.get_size() == 0)
    manager.watch.collisions.clear()
    check_books(pool, manager)


def test_a_pool_is_closed_over_every_client_in_the_middle_of_its_work() -> None:
    """close(0) while connections are created, checked, used, released and disposed of."""
    for seed in range(ROUNDS // 4):
        close_over_clients(seed)


def test_limits_change_under_every_thread() -> None:
    manager = PlainWatchedManager()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(manager, min_idle=1, max_size=4, total_max_size=10)
    random = Random(0)

    def work() -> None:
        endpoints = Random(threading.get_ident())
        for _ in range(ROUNDS):
            with pool.connection(endpoints.choice(ENDPOINTS)) as conn, manager.watch.use(conn, 'client'):
                time.sleep(0)

    def resize() -> None:
        for _ in range(ROUNDS):
            max_size = random.randrange(1, 6)
            pool._core.resize(
                pool._core.now(),
                min_idle=random.randrange(max_size + 1),
                max_size=max_size,
                total_max_size=max_size + random.randrange(6),
            )
            # The clients dispose of what close() doomed, or, when they have finished, close() does.
            pool._dispose_doomed()
            time.sleep(0)

    run_threads(resize, *[work] * THREADS)
    pool._core.check_invariants()
    assert pool.get_stats()['acquires'] == THREADS * ROUNDS
    pool._core.resize(pool._core.now(), max_size=1000, total_max_size=1000)
    pool.close()
    check_books(pool, manager)


def test_statistics_and_sizes_can_be_read_while_everything_changes() -> None:
    manager = UnreliableManager(Random(0))
    pool: ConnectionPool[Any, Connection] = ConnectionPool(
        manager, min_idle=1, max_size=3, total_max_size=6, idle_timeout=0.0005, max_lifetime=0.003
    )
    clients = [Client(pool, manager, n, ROUNDS // 2) for n in range(8)]
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            stats = pool.get_stats()
            assert 0 <= stats['size'] <= 6
            assert min(stats.values()) >= 0
            assert 0 <= pool.get_size() <= 6
            for endpoint in ENDPOINTS:
                assert 0 <= pool.get_endpoint_pool_size(endpoint, acquired=True) <= 3
                assert 0 <= pool.get_endpoint_pool_size(endpoint) <= 3
            assert isinstance(repr(pool), str)
            assert pool._core.next_due() is None or pool.is_full in {True, False}
            time.sleep(0)

    reader = spawn(read)
    run_threads(*clients)
    done.set()
    reader.result()
    pool.close()
    check_books(pool, manager)
