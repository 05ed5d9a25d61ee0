"""What the core hashes, compares, keeps and reads, however many entries there are: costs that are counted, not
measured."""

import gc
import sys
import time
import tracemalloc

import pytest

from gcpool._core import PoolCore, Waiter
from tests.engine.support import Acquire, Connection, Pool

COUNT = 5_000


class Endpoint:
    """Counts how often endpoints are hashed and compared."""

    questions = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        Endpoint.questions += 1
        return hash(self.number)

    def __eq__(self, other: object) -> bool:
        Endpoint.questions += 1
        return isinstance(other, Endpoint) and self.number == other.number


def filled(pool: Pool) -> list[Endpoint]:
    """Create a number of endpoints, each with an idle connection; one is due after the other."""
    endpoints = [Endpoint(number) for number in range(COUNT)]
    for endpoint in endpoints:
        pool.now += 1 / 1024
        acquire = Acquire(pool.core, endpoint, lambda _: None)
        assert not pool.core.request(acquire.waiter, pool.now)
        pool.core.created(acquire.entry, Connection(f'c{endpoint.number}'), pool.now)
        pool.core.release(acquire.entry, pool.now)
    return endpoints


def test_of_many_endpoints_only_the_one_in_question_is_asked_anything() -> None:
    pool = Pool(max_size=1, total_max_size=COUNT)
    kept = filled(pool)
    for number in range(0, COUNT, 97):
        for endpoint, most in ((kept[number], 0), (Endpoint(number), 2)):
            Endpoint.questions = 0
            entry = pool.core.try_acquire(endpoint, pool.now)
            assert entry is not None
            assert Endpoint.questions <= most, 'the hash of an object that is new, and one comparison'
            assert pool.core.find_acquired(entry.conn, endpoint) is entry
            pool.core.release(entry, pool.now)
            pool.core.endpoint_size(endpoint)
            pool.core.next_due()
            pool.core.doom_due(pool.now, 10)
            assert Endpoint.questions <= most


def test_an_acquire_that_closes_what_is_due_first_asks_nothing_of_the_others() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=COUNT)
    kept = filled(pool)
    holders = []
    for number in range(10):
        waiting = Acquire(pool.core, Endpoint(COUNT + number), lambda _: None)
        Endpoint.questions = 0
        assert pool.core.request(waiting.waiter, pool.now)
        assert Endpoint.questions <= 2, 'it is looked for, and entered'
        assert pool.dispose() == [f'c{number}']
        pool.core.created(waiting.entry, Connection('in use'), pool.now)
        holders.append(waiting)
    assert pool.core.acquired == len(holders) < len(kept)


@pytest.mark.skipif(hasattr(sys, 'gettotalrefcount'), reason='objects are larger in a debug build of Python')
def test_an_endpoint_with_an_idle_connection_takes_a_few_hundred_bytes() -> None:
    core = PoolCore(1, 1, COUNT + 1, 60.0, 3600.0)
    endpoints = [('endpoint', number) for number in range(COUNT + 1)]
    conns = [object() for _ in range(COUNT + 1)]

    def connect(number: int) -> None:
        waiter = Waiter(endpoints[number])
        core.request(waiter, 0.0)
        core.created(waiter.served, conns[number], 0.0)
        core.release(waiter.served, 0.0)

    tracemalloc.start()
    try:
        connect(COUNT)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(COUNT):
            connect(number)
        gc.collect()
        taken = (tracemalloc.get_traced_memory()[0] - before) / COUNT
    finally:
        tracemalloc.stop()
    assert core.stats()['idle'] == COUNT + 1
    assert 100 < taken < 1000, 'else it was not measured, or something was added to each'


@pytest.mark.skipif(sys.platform == 'win32', reason='before 3.13 Python reads another clock there')
def test_the_time_is_that_of_the_monotonic_clock() -> None:
    core = PoolCore(1, 1, 1, 60.0, 3600.0)
    assert core.clock is None
    for _ in range(3):
        before = time.monotonic()
        now = core.now()
        # The coarse clock lags by a tick of the system's timer.
        assert before - 1.0 < now <= time.monotonic()
