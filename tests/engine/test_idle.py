"""Idle connections: which one is served, which is core, when each is due, and which is evicted (COMPAT.md, A)."""

import random

import pytest

from tests.conftest import FREE_THREADED
from tests.engine.support import Acquire, Pool, names

# -- the order in which they are served -------------------------------------------------------------------------------


def test_core_connections_are_served_first_in_first_out() -> None:
    pool = Pool(min_idle=3)
    first, second, third = pool.acquire_all('a', 3)
    pool.release(second, third, first)
    assert pool.drain_idle('a') == ['a2', 'a3', 'a1']


def test_core_connections_are_served_in_turn() -> None:
    pool = Pool(min_idle=3)
    pool.fill('a', 3)
    served = []
    for _ in range(7):
        acquire = pool.acquire('a')
        served += names(acquire)
        pool.release(acquire)
    assert served == ['a1', 'a2', 'a3', 'a1', 'a2', 'a3', 'a1']


def test_extra_connections_are_served_last_in_first_out() -> None:
    pool = Pool(min_idle=0)
    first, second, third = pool.acquire_all('a', 3)
    pool.release(second, third, first)
    assert pool.drain_idle('a') == ['a1', 'a3', 'a2']


def test_an_extra_connection_is_served_again_and_again() -> None:
    pool = Pool(min_idle=0)
    pool.fill('a', 3)
    for _ in range(5):
        acquire = pool.acquire('a')
        assert names(acquire) == ['a3']
        pool.release(acquire)


def test_core_connections_are_served_before_extra_ones() -> None:
    pool = Pool(min_idle=2, max_size=4)
    pool.fill('a', 4)  # the first two are released while others are in use: they are extra
    assert pool.drain_idle('a') == ['a3', 'a4', 'a2', 'a1']


def test_extra_connections_are_served_in_turn_if_the_pool_is_told_so() -> None:
    pool = Pool(min_idle=1, max_size=4, order='fifo')
    pool.fill('a', 4)
    served = []
    for _ in range(5):
        core, extra = pool.acquire_all('a', 2)
        served += names(extra)
        pool.release(core, extra)
    assert served == ['a1', 'a2', 'a3', 'a4', 'a1']
    assert pool.core.order == 'fifo'


# -- core or extra: out >= min_idle - idle core, counted after this one is back ---------------------------------------


def core_and_extra(pool: Pool) -> tuple[int, int]:
    """Return how many idle connections are core, and how many extra: those are due when their idle time is over."""
    idle = pool.stats['idle']
    pool.now += pool.core.idle_timeout
    closed = len(pool.expire())
    return idle - closed, closed


@pytest.mark.parametrize('idle_core', [0, 1, 2, 3])
@pytest.mark.parametrize('free', [0, 1, 2, 3])
@pytest.mark.parametrize('out', [0, 1, 2, 3, 4])
def test_a_released_connection_is_extra_if_those_out_fill_what_the_core_has_free(
    idle_core: int, free: int, out: int
) -> None:
    pool = Pool(min_idle=20, max_size=20)
    one, *others = pool.acquire_all('a', 1 + out + idle_core)
    pool.release(*others[out:])  # core: there is room for all
    pool.core.resize(pool.now, min_idle=idle_core + free)
    assert (pool.core.endpoint_size('a', True), pool.core.endpoint_size('a', False)) == (1 + out, idle_core)
    pool.release(one)
    assert core_and_extra(pool) == ((idle_core, 1) if out >= free else (idle_core + 1, 0))


@pytest.mark.parametrize('out', [0, 1, 3])
def test_with_keep_idle_a_connection_is_core_as_long_as_fewer_than_min_idle_are_idle(out: int) -> None:
    pool = Pool(min_idle=2, max_size=8, keep='idle')
    pool.kept += pool.acquire_all('a', out)
    pool.fill('a', 4)
    assert core_and_extra(pool) == (2, 2)
    assert pool.core.keep == 'idle'


def test_a_connection_that_is_being_created_is_not_out() -> None:
    pool = Pool(min_idle=1)
    acquire, connecting = pool.acquire('a'), pool.ask('a')
    assert connecting.answer == 'ticket'
    pool.release(acquire)
    assert core_and_extra(pool) == (1, 0)


def test_a_connection_whose_release_hook_runs_is_still_out() -> None:
    pool = Pool(min_idle=1)
    first, second = pool.acquire_all('a', 2)
    assert pool.core.begin_release(second.entry)
    pool.release(first)
    assert core_and_extra(pool) == (0, 1)
    pool.core.release(second.entry, pool.now)
    assert core_and_extra(pool) == (1, 0)


def test_without_a_core_every_idle_connection_is_extra() -> None:
    pool = Pool(min_idle=0)
    pool.fill('a', 3)
    assert core_and_extra(pool) == (0, 3)


# -- when they are due ------------------------------------------------------------------------------------------------


def test_an_extra_connection_is_due_when_it_was_idle_for_idle_timeout() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    acquire = pool.acquire('a')
    pool.now = 3.0
    pool.release(acquire)
    assert pool.core.next_due() == 13.0
    pool.now = 12.999
    assert pool.expire() == []
    pool.now = 13.0
    assert pool.expire() == ['a1']


def test_a_core_connection_is_due_at_the_end_of_its_lifetime() -> None:
    pool = Pool(min_idle=1, idle_timeout=10.0, max_lifetime=100.0)
    pool.now = 5.0
    acquire = pool.acquire('a')
    pool.now = 50.0
    pool.release(acquire)
    assert pool.core.next_due() == 105.0
    pool.now = 104.999
    assert pool.expire() == []
    pool.now = 105.0
    assert pool.expire() == ['a1']


def test_an_extra_connection_is_due_at_the_end_of_its_lifetime_if_that_comes_first() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0, max_lifetime=100.0)
    acquire = pool.acquire('a')
    pool.now = 95.0
    pool.release(acquire)
    assert pool.core.next_due() == 100.0


def test_with_an_idle_timeout_of_zero_an_extra_connection_is_due_at_once() -> None:
    pool = Pool(min_idle=0, idle_timeout=0.0)
    pool.fill('a', 3)
    assert pool.core.next_due() == 0.0
    assert pool.expire() == ['a1', 'a2', 'a3'], 'in the order of release'


def test_with_a_lifetime_of_zero_every_connection_is_used_once() -> None:
    pool = Pool(idle_timeout=0.0, max_lifetime=0.0)
    pool.fill('a', 2)
    assert pool.core.doomed == 2
    assert pool.dispose() == ['a1', 'a2']


def test_a_lifetime_reached_while_idle_is_never_served() -> None:
    pool = Pool(min_idle=2)
    pool.fill('a', 2)
    pool.now = 100.0
    assert pool.core.try_acquire('a', pool.now) is None
    acquire = pool.ask('a')
    assert acquire.answer == 'ticket'
    assert pool.dispose() == ['a1', 'a2']
    assert pool.core.size == 1


def test_a_lifetime_reached_while_idle_is_not_served_but_a_younger_connection_is() -> None:
    pool = Pool(min_idle=3)
    old = pool.acquire('a')
    pool.now = 50.0
    young = pool.acquire('a')
    pool.release(old, young)
    pool.now = 100.0
    assert pool.core.try_acquire('a', pool.now) is None, 'what has to be closed first is not done in passing'
    acquire = pool.ask('a')
    assert acquire.conn.name == 'a2'
    assert pool.dispose() == ['a1']


def test_a_slot_of_a_connection_whose_lifetime_ended_while_idle_is_free_when_it_is_closed() -> None:
    pool = Pool(min_idle=1, max_size=1)
    pool.fill('a', 1)
    pool.now = 100.0
    acquire = pool.ask('a')
    assert acquire.answer == 'waits'
    assert pool.dispose() == ['a1']
    assert acquire.answer == 'ticket'


def test_an_idle_timeout_reached_is_served_all_the_same_if_nobody_collected_it() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    pool.fill('a', 1)
    pool.now = 50.0
    assert pool.acquire('a').conn.name == 'a1'


@pytest.mark.parametrize('min_idle', [0, 1])
def test_connections_without_an_end_are_never_due_and_can_be_evicted(min_idle: int) -> None:
    forever = float('inf')
    pool = Pool(
        min_idle=min_idle, max_size=1, total_max_size=1, idle_timeout=forever, max_lifetime=forever, collects=True
    )
    pool.fill('a', 1)
    assert pool.core.next_due() is None
    pool.now = 1e300
    assert pool.expire() == []
    waiting = pool.ask('b')
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'


# -- with a collector -------------------------------------------------------------------------------------------------


def test_with_a_collector_a_release_after_the_lifetime_leaves_the_connection_to_it() -> None:
    pool = Pool(collects=True)
    acquire = pool.acquire('a')
    pool.now = 100.0
    pool.release(acquire)
    assert pool.core.doomed == 0
    assert pool.core.try_acquire('a', pool.now) is None, 'it is not served any more'
    assert pool.core.next_due() == 100.0
    assert pool.expire() == ['a1']


def test_with_a_collector_a_release_after_the_lifetime_closes_the_connection_if_somebody_waits_for_its_slot() -> None:
    pool = Pool(collects=True, max_size=1)
    acquire, waiting = pool.acquire('a'), pool.ask('a')
    pool.now = 100.0
    pool.release(acquire)
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'


def test_with_a_collector_a_release_after_the_lifetime_closes_it_if_another_endpoint_waits_for_its_slot() -> None:
    pool = Pool(collects=True, max_size=1, total_max_size=1)
    acquire, waiting = pool.acquire('a'), pool.ask('b')
    pool.now = 100.0
    pool.release(acquire)
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'


# -- the expiry queue is lazy -----------------------------------------------------------------------------------------


def test_a_stale_deadline_is_looked_at_again_when_it_comes_up() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    pool.fill('a', 1)
    for _ in range(5):
        pool.now += 4.0
        pool.release(pool.acquire('a'))
    assert pool.now == 20.0
    assert pool.core.doom_due(pool.now, 5) == 0, 'its first deadline was 10, but it was used since'
    assert pool.core.next_due() == 30.0
    pool.now = 30.0
    assert pool.expire() == ['a1']


def test_a_stale_deadline_of_a_connection_that_is_out_is_none() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    pool.fill('a', 1)
    acquire = pool.acquire('a')
    pool.now = 50.0
    assert pool.core.doom_due(pool.now, 5) == 0
    assert pool.core.next_due() is None
    pool.release(acquire)
    assert pool.core.next_due() == 60.0


def test_an_extra_connection_that_becomes_core_is_due_later() -> None:
    pool = Pool(min_idle=1, idle_timeout=10.0)
    first, second = pool.acquire_all('a', 2)
    pool.release(first)  # extra: the other one is in use
    assert pool.core.next_due() == 10.0
    pool.release(second)  # core
    assert pool.drain_idle('a') == ['a2', 'a1']
    pool.release(first)  # extra again
    pool.now = 1.0
    pool.release(second)
    assert pool.core.next_due() == 10.0
    taken = pool.acquire('a')  # the core one
    again = pool.acquire('a')
    assert names(taken, again) == ['a2', 'a1']
    pool.core.resize(pool.now, min_idle=2)
    pool.release(again)  # core now
    pool.now = 10.0
    assert pool.expire() == []
    assert pool.core.next_due() == 100.0


def test_a_core_connection_that_becomes_extra_is_due_earlier() -> None:
    pool = Pool(min_idle=1, idle_timeout=10.0)
    pool.fill('a', 1)  # core, due at 100
    assert pool.core.next_due() == 100.0
    first, second = pool.acquire_all('a', 2)
    pool.now = 5.0
    pool.release(first)  # extra: the other one is in use
    assert pool.core.next_due() == 15.0
    pool.release(second)
    pool.now = 15.0
    assert pool.expire() == ['a1']


@pytest.mark.parametrize('seed', range(5))
def test_stale_deadlines_of_many_connections_come_up_in_the_order_of_the_true_ones(seed: int) -> None:
    rng = random.Random(seed)
    pool = Pool(min_idle=0, max_size=50, idle_timeout=1000.0, max_lifetime=1e6)
    idle: dict[str, tuple[float, Acquire]] = {}
    for acquire in pool.acquire_all('a', 50):
        pool.now += 1.0
        pool.release(acquire)
        idle[acquire.conn.name] = (pool.now, acquire)
    for _ in range(300):
        # Take some from the top of the stack, and release them in any order.
        taken = [pool.acquire('a') for _ in range(rng.randrange(1, 12))]
        rng.shuffle(taken)
        for acquire in taken:
            pool.now += 1.0
            pool.release(acquire)
            idle[acquire.conn.name] = (pool.now, acquire)
    order = sorted(idle, key=lambda name: idle[name][0])
    pool.now += 2000.0
    assert pool.expire() == order


# -- eviction ---------------------------------------------------------------------------------------------------------


def test_the_connection_is_evicted_that_was_unused_for_longest_over_all_endpoints() -> None:
    """Core or extra, whichever is due first."""
    pool = Pool(min_idle=1, max_size=2, total_max_size=5, idle_timeout=10.0, max_lifetime=100.0)
    pool.fill('a', 1)  # core: due at 100
    pool.now = 20.0
    first, second = pool.acquire_all('b', 2)
    pool.release(first, second)  # extra: due at 30; core: due at 120
    pool.now = 25.0
    third, fourth = pool.acquire_all('c', 2)
    pool.release(third, fourth)  # extra: due at 35; core: due at 125
    pool.now = 26.0
    pool.release(pool.acquire('a'))  # still due at 100
    pool.now = 27.0
    pool.release(pool.acquire('b'))  # the core one, still due at 120
    evicted = []
    for endpoint in 'vwxyz':
        assert pool.ask(endpoint).answer == 'waits'
        evicted += pool.dispose()
    assert evicted == ['b1', 'c1', 'c2', 'a1', 'b2']


def test_what_is_due_is_closed_in_the_order_of_the_deadlines_after_evictions_too() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=4, idle_timeout=10.0, max_lifetime=30.0)
    for endpoint in 'abcd':
        pool.fill(endpoint, 1)
        pool.now += 1.0
    pool.kept.append(pool.acquire('e'.replace('e', 'a')))
    waiting = pool.ask('e')
    assert pool.dispose() == ['b1']
    pool.connect(waiting)
    pool.release(waiting)
    pool.release(pool.kept.pop())
    assert pool.core.next_due() == 12.0
    pool.now = 30.0
    assert pool.expire() == ['c1', 'd1', 'e1', 'a1']


@pytest.mark.parametrize('min_idle', [0, 1])
def test_a_host_that_every_request_needs_keeps_its_connection_among_many_new_ones(min_idle: int) -> None:
    pool = Pool(min_idle=min_idle, max_size=2, total_max_size=10, idle_timeout=60.0, max_lifetime=3600.0)
    for number in range(1000):
        for endpoint in ('hot', number):
            acquire = pool.ask(endpoint)
            pool.dispose()
            if acquire.answer == 'ticket':
                pool.connect(acquire)
            pool.now += 0.001
            pool.release(acquire)
    assert pool.count('created', 'disposed') == (1001, 991)


@pytest.mark.parametrize('seed', range(20))
def test_evictions_are_in_the_order_of_use_whatever_happens_in_between(seed: int) -> None:
    rng = random.Random(seed)
    size = 30
    pool = Pool(min_idle=seed % 3, max_size=3, total_max_size=size, idle_timeout=50.0, max_lifetime=1e6)
    used: dict[str, float] = {}
    out: list[Acquire] = []
    for step in range(600):
        pool.now += 1.0
        choice = rng.randrange(8)
        if choice < 4 and len(out) < size - 2:
            acquire = pool.ask(rng.randrange(15))
            oldest = min(used, key=lambda name: used[name], default='')
            closed = pool.dispose()
            assert closed in ([], [oldest])
            for name in closed:
                del used[name]
            if acquire.answer == 'waits':
                pool.cancel(acquire)
                continue
            if acquire.answer == 'ticket':
                pool.connect(acquire)
            used.pop(acquire.conn.name, None)
            out.append(acquire)
        elif choice < 7 and out:
            acquire = out.pop(rng.randrange(len(out)))
            used[acquire.conn.name] = pool.now
            pool.release(acquire)
        elif choice == 7 and step % 5 == 0:
            for name in pool.expire(2):
                del used[name]
    assert len(used) + len(out) == pool.core.size


def test_a_connection_that_is_not_due_is_evicted_too() -> None:
    pool = Pool(min_idle=1, max_size=1, total_max_size=1)
    pool.fill('a', 1)
    assert pool.core.next_due() == 100.0
    waiting = pool.ask('b')
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'


def test_deadlines_that_tie_are_in_the_order_of_release_at_one_endpoint() -> None:
    pool = Pool(min_idle=0, max_size=3, total_max_size=3)
    first, second, third = pool.acquire_all('a', 3)
    pool.release(second, third, first)
    evicted = []
    for endpoint in 'xyz':
        pool.kept.append(pool.ask(endpoint))
        evicted += pool.dispose()
    assert evicted == ['a2', 'a3', 'a1']


def test_lifetimes_that_tie_are_in_the_order_of_release_at_one_endpoint() -> None:
    pool = Pool(min_idle=3, max_size=3, total_max_size=3)
    first, second, third = pool.acquire_all('a', 3)
    pool.release(second, third, first)
    taken = pool.acquire('a')
    assert names(taken) == ['a2']
    pool.release(taken)
    pool.now = 100.0
    assert pool.expire() == ['a3', 'a1', 'a2']


@pytest.mark.parametrize('min_idle', [0, 1])
def test_deadlines_that_tie_are_in_the_order_of_release_over_all_endpoints(min_idle: int) -> None:
    pool = Pool(min_idle=min_idle, max_size=1, total_max_size=4)
    held = [pool.acquire(endpoint) for endpoint in 'abcd']
    pool.release(held[2], held[0], held[3], held[1])
    evicted = []
    for endpoint in 'vwxy':
        pool.kept.append(pool.ask(endpoint))
        evicted += pool.dispose()
    if FREE_THREADED:  # releases at several endpoints share no counter there: ties are in any order
        evicted.sort(key=lambda name: 'cadb'.index(name[0]))
    assert evicted == ['c1', 'a1', 'd1', 'b1']


def test_an_eviction_looks_at_stale_deadlines_again() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=2, idle_timeout=10.0)
    pool.fill('a', 1)  # due at 10
    pool.now = 1.0
    pool.fill('b', 1)  # due at 11
    pool.now = 5.0
    pool.release(pool.acquire('a'))  # due at 15
    pool.kept.append(pool.ask('c'))
    assert pool.dispose() == ['b1']


def test_a_connection_that_is_out_is_not_evicted() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=2)
    pool.fill('a', 1)
    pool.fill('b', 1)
    pool.kept.append(pool.acquire('a'))
    pool.kept.append(pool.ask('c'))
    assert pool.dispose() == ['b1']
    waiting = pool.ask('d')
    assert waiting.answer == 'waits'
    assert pool.core.doomed == 0


# -- the collector is woken -------------------------------------------------------------------------------------------


class Collector:
    """Does what a facade's worker does: asks when to wake up, and sleeps until then or until it is woken."""

    def __init__(self, **limits: float) -> None:
        self.wakes = 0
        self.pool = Pool(collects=True, wake_collector=self.wake, **limits)  # type: ignore[arg-type]

    def wake(self) -> None:
        self.pool.core.check_invariants()  # it is called with no lock held
        self.wakes += 1


def test_the_collector_is_woken_by_the_first_deadline_and_by_earlier_ones_only() -> None:
    collector = Collector(min_idle=1, max_size=4, idle_timeout=10.0)
    pool = collector.pool
    assert pool.core.next_due() is None
    first, second, third = pool.acquire_all('a', 3)
    assert collector.wakes == 0
    pool.release(first)  # extra: due at 10
    assert collector.wakes == 1
    assert pool.core.next_due() == 10.0
    pool.now = 1.0
    pool.release(second)  # extra: due at 11
    pool.release(third)  # core: due at 100
    assert collector.wakes == 1
    for _ in range(5):
        pool.now += 1.0
        pool.release(pool.acquire('a'))
    assert collector.wakes == 1, 'a collector that sleeps till the earliest deadline is not woken for later ones'
    pool.now = 10.0
    assert pool.expire() == ['a1']
    assert collector.wakes == 1


def test_the_collector_is_woken_once_for_one_deadline() -> None:
    collector = Collector(min_idle=0, idle_timeout=10.0)
    pool = collector.pool
    first, second = pool.acquire_all('a', 2)
    pool.release(first)
    pool.release(second)
    assert collector.wakes == 1, 'it was told once and has not asked since'


def test_the_collector_is_woken_when_a_deadline_comes_before_the_one_it_sleeps_for() -> None:
    collector = Collector(min_idle=1, max_size=2, idle_timeout=10.0)
    pool = collector.pool
    pool.fill('a', 1)
    assert pool.core.next_due() == 100.0
    assert collector.wakes == 1
    first, second = pool.acquire_all('a', 2)
    pool.release(first)  # extra: due at 10
    assert collector.wakes == 2
    pool.release(second)
    assert collector.wakes == 2


def test_the_collector_is_not_woken_for_connections_without_an_end() -> None:
    forever = float('inf')
    collector = Collector(min_idle=1, idle_timeout=forever, max_lifetime=forever)
    collector.pool.fill('a', 2)
    assert collector.wakes == 0
