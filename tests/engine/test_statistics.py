"""What stats() and endpoint_size() return."""

import gc
import threading

import pytest

from gcpool._core import COUNTERS, REASONS
from tests.engine.model import REASONS as EXPECTED_REASONS
from tests.engine.support import Connection, Pool

LIMITS = ('min_idle', 'max_size', 'total_max_size', 'min_size', 'max_waiting', 'max_workers')
GAUGES = (
    *('size', 'idle', 'in_use', 'acquired', 'creating', 'checking', 'closing', 'waiting', 'endpoints', 'suspended'),
    *LIMITS,
    'longest_held',
)
EXPECTED_COUNTERS = (
    *('asked', 'acquires', 'waits', 'timeouts', 'cancelled', 'too_many', 'created', 'create_errors', 'refused'),
    *('checks', 'checks_failed', 'dead', 'broken', 'detached', 'leaks', 'disposed'),
    *(f'closed_{reason}' for reason in EXPECTED_REASONS),
    *('wait_ns', 'create_ns', 'use_ns'),
)


def nonzero(stats: dict[str, int]) -> dict[str, int]:
    """What is not 0, but for the limits."""
    return {name: count for name, count in stats.items() if count and name not in (*LIMITS, 'longest_held')}


def test_a_new_pool_has_counted_nothing() -> None:
    assert nonzero(Pool().stats) == {}


def test_all_keys_are_always_there_and_ints() -> None:
    pool = Pool(min_idle=2, max_size=3, total_max_size=9)
    assert tuple(pool.stats) == (*GAUGES, *EXPECTED_COUNTERS)
    pool.fill('a', 2)
    assert tuple(pool.stats) == (*GAUGES, *EXPECTED_COUNTERS)
    assert {type(count) for count in pool.stats.values()} == {int}
    assert pool.count('min_idle', 'max_size', 'total_max_size') == (2, 3, 9)
    assert tuple(pool.core.endpoint_stats('a')) == GAUGES
    assert tuple(pool.core.endpoint_stats('unknown')) == GAUGES


def test_every_gauge_and_counter() -> None:
    pool = Pool(min_idle=1, max_size=2, total_max_size=4)
    first, second = pool.acquire_all('a', 2)
    waiting, leaving, late = (pool.ask('a') for _ in range(3))
    connecting, failing = pool.ask('b'), pool.ask('c')
    assert connecting.answer == 'ticket'
    pool.core.create_failed(failing.waiter, pool.now)
    assert pool.cancel(leaving)
    assert pool.core.give_up(late.waiter)
    assert nonzero(pool.stats) == {
        'size': 3,
        'in_use': 2,
        'acquired': 2,
        'creating': 1,
        'waiting': 1,
        'endpoints': 2,
        'asked': 7,
        'cancelled': 1,
        'acquires': 2,
        'created': 2,
        'create_errors': 1,
        'waits': 3,
        'timeouts': 1,
    }
    pool.release(first)  # handed over
    pool.release(second)
    assert waiting.answer == 'served'
    assert nonzero(pool.stats) == {
        'size': 3,
        'idle': 1,
        'in_use': 1,
        'acquired': 1,
        'creating': 1,
        'endpoints': 2,
        'asked': 7,
        'cancelled': 1,
        'acquires': 3,
        'created': 2,
        'create_errors': 1,
        'waits': 3,
        'timeouts': 1,
    }
    pool.core.reject_dead(waiting.waiter)
    pool.ask_again(waiting)
    assert waiting.conn.name == 'a2'
    dead_entry = pool.core.take_doomed_for_worker()
    assert dead_entry is not None
    pool.core.disposed(dead_entry, pool.now)
    assert nonzero(pool.stats) == {
        'size': 2,
        'in_use': 1,
        'acquired': 1,
        'creating': 1,
        'endpoints': 2,
        'asked': 7,
        'cancelled': 1,
        'acquires': 3,
        'created': 2,
        'create_errors': 1,
        'checks_failed': 1,
        'dead': 1,
        'disposed': 1,
        'closed_dead': 1,
        'waits': 3,
        'timeouts': 1,
    }


def reasons(pool: Pool) -> dict[str, int]:
    """How many connections were closed for each reason that there was."""
    stats = pool.stats
    counts = {name: stats[f'closed_{name}'] for name in REASONS[1:]}
    assert sum(counts.values()) == stats['disposed']
    return {name: count for name, count in counts.items() if count}


def test_the_reasons_are_those_that_are_documented() -> None:
    assert ('', *EXPECTED_REASONS) == REASONS
    assert tuple(name for name in COUNTERS if name) == EXPECTED_COUNTERS


def test_the_gauges_of_an_endpoint() -> None:
    pool = Pool(max_size=3)
    pool.fill('a', 2)
    pool.kept.append(pool.acquire('a'))
    connecting = pool.acquire('b'), pool.acquire('b'), pool.ask('b'), pool.ask('b')
    assert pool.core.retire(connecting[0].entry, pool.now)
    assert nonzero(pool.core.endpoint_stats('a')) == {'size': 2, 'idle': 1, 'in_use': 1, 'acquired': 1, 'endpoints': 1}
    assert nonzero(pool.core.endpoint_stats('b')) == {
        'size': 3,
        'in_use': 1,
        'acquired': 1,
        'creating': 1,
        'closing': 1,
        'waiting': 1,
        'endpoints': 1,
    }
    assert nonzero(pool.core.endpoint_stats('c')) == {}
    with pytest.raises(TypeError, match='expected a hashable object'):
        pool.core.endpoint_stats([])


def test_a_pop_begins_the_counters_anew_and_leaves_the_gauges() -> None:
    pool = Pool(max_size=2)
    pool.fill('a', 2)
    pool.kept.append(pool.acquire('a'))
    before = pool.stats
    assert pool.core.stats(True) == before
    gauges = {'size': 2, 'idle': 1, 'in_use': 1, 'acquired': 1, 'endpoints': 1}
    assert nonzero(pool.stats) == gauges
    pool.fill('a', 1)
    assert nonzero(pool.stats) == gauges | {'asked': 1, 'acquires': 1}
    assert pool.core.stats(True) == pool.stats | {'asked': 1, 'acquires': 1}
    assert nonzero(pool.core.stats(True)) == gauges


def test_pops_at_the_same_time_show_each_acquire_once() -> None:
    pool = Pool(max_size=8, total_max_size=8)
    pool.fill('a', 1)
    pool.core.stats(True)
    rounds = 2_000
    popped: list[int] = []
    busy = [True]

    def pop() -> None:
        while busy:
            popped.append(pool.core.stats(True)['acquires'])

    poppers = [threading.Thread(target=pop) for _ in range(2)]
    for popper in poppers:
        popper.start()
    for _ in range(rounds):
        entry = pool.core.try_acquire('a', pool.now)
        assert entry is not None
        pool.core.release(entry, pool.now)
    busy.clear()
    for popper in poppers:
        popper.join(60)
    assert sum(popped) + pool.core.stats(True)['acquires'] == rounds


def test_what_was_asked_for_is_counted_however_it_ended() -> None:
    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    cancelled, late, served, dropped = (pool.ask('a') for _ in range(4))
    failed = pool.ask('b')
    pool.core.create_failed(failed.waiter, pool.now)
    pool.cancel(failed)
    assert pool.core.give_up(late.waiter)
    pool.cancel(late)
    pool.cancel(cancelled)
    dropped.waiter = None  # type: ignore[assignment]
    gc.collect()
    pool.release(holder)
    assert served.answer == 'served'
    pool.core.close()
    refused = pool.ask('a')
    assert refused.answer == 'refused'
    pool.cancel(refused)
    with pytest.raises(TypeError):
        pool.ask([])
    assert pool.count('asked', 'acquires', 'waits', 'timeouts', 'cancelled', 'create_errors') == (7, 2, 4, 1, 2, 1)


def test_an_acquire_between_two_connections_is_still_asked_for() -> None:
    """The counters never go down, but for that of the acquires that were served."""
    pool = Pool(max_size=1)
    pool.fill('a', 1)
    acquire = pool.acquire('a')
    assert pool.count('asked', 'acquires') == (2, 2)
    pool.core.begin_check(acquire.waiter)
    pool.core.reject_dead(acquire.waiter)
    assert pool.count('asked', 'acquires', 'checks', 'checks_failed', 'dead') == (2, 1, 1, 1, 1)
    pool.ask_again(acquire)
    pool.dispose()
    assert acquire.answer == 'ticket'
    assert pool.count('asked', 'acquires') == (2, 1)
    pool.connect(acquire)
    assert pool.count('asked', 'acquires') == (2, 2)


def test_the_times_of_waiting_connecting_and_use() -> None:
    pool = Pool(max_size=1)
    first = pool.ask('a')
    pool.now = 1.0
    pool.core.begin_create(first.entry, pool.now)
    pool.now = 3.0
    pool.connect(first)  # 2 s
    second, third = pool.ask('a'), pool.ask('a')
    pool.now = 7.0
    pool.release(first)  # used for 4 s
    pool.now = 7.5
    pool.core.end_wait(second.waiter, pool.now)  # 4.5 s
    pool.core.end_wait(second.waiter, 100.0)  # no longer waits
    pool.now = 8.0
    assert pool.core.give_up(third.waiter)  # 5 s
    pool.cancel(third)
    pool.now = 9.0
    pool.release(second)  # used for 2 s, since it was handed over
    assert pool.count('wait_ns', 'create_ns', 'use_ns') == (9_500_000_000, 2_000_000_000, 6_000_000_000)
    pool.now = 20.0
    pool.kept.append(pool.acquire('a'))
    pool.core.reject_dead(pool.kept[0].waiter)
    pool.cancel(pool.kept[0])
    pool.dispose()  # the endpoint is forgotten
    assert pool.count('wait_ns', 'create_ns', 'use_ns') == (9_500_000_000, 2_000_000_000, 6_000_000_000)
    failing = pool.ask('a')
    pool.core.begin_create(failing.entry, pool.now)
    pool.now = 21.0
    pool.core.create_failed(failing.waiter, pool.now)
    assert pool.count('create_ns', 'create_errors') == (3_000_000_000, 1)


def test_a_close_that_has_not_ended_is_not_counted_and_its_reason_is_known() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    pool.fill('a', 1)
    pool.now = 10.0
    assert pool.core.doom_due(pool.now, 1) == 1
    assert reasons(pool) == {}
    (entry,) = pool.take_doomed()
    assert entry.reason == 'idle'
    pool.core.disposed(entry, pool.now)
    assert reasons(pool) == {'idle': 1}
    assert entry.reason == 'idle'


def test_a_connection_in_use_has_no_reason() -> None:
    assert Pool().acquire('a').entry.reason is None


def test_closed_at_the_end_of_their_idle_time_or_of_their_lifetime() -> None:
    pool = Pool(min_idle=1, max_size=3, idle_timeout=10.0, max_lifetime=30.0)
    pool.fill('a', 3)
    pool.now = 10.0
    assert len(pool.expire()) == 2
    assert reasons(pool) == {'idle': 2}
    pool.now = 30.0
    assert len(pool.expire()) == 1
    assert reasons(pool) == {'idle': 2, 'lifetime': 1}


def test_an_extra_connection_of_which_both_times_are_over_was_too_old() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0, max_lifetime=30.0)
    pool.fill('a', 1)
    pool.now = 40.0
    assert pool.expire() == ['a1']
    assert reasons(pool) == {'lifetime': 1}


@pytest.mark.parametrize('released', [False, True])
def test_closed_at_the_end_of_its_lifetime_by_a_release_or_an_acquire(released: bool) -> None:
    pool = Pool(max_lifetime=30.0)
    holder = pool.acquire('a')
    if released:
        pool.release(holder)
        pool.now = 30.0
        pool.ask('a')
    else:
        pool.now = 30.0
        pool.release(holder)
    pool.dispose()
    assert reasons(pool) == {'lifetime': 1}


def test_closed_because_another_endpoint_needs_the_slot() -> None:
    pool = Pool(total_max_size=2)
    pool.fill('a', 1)
    holder = pool.acquire('a')
    busy = pool.acquire('b')
    pool.release(holder)
    pool.kept.append(pool.ask('c'))  # evicts the idle one
    assert pool.dispose() == ['a1']
    pool.kept.append(pool.ask('d'))
    pool.release(busy)  # whose slot somebody waits for
    assert pool.dispose() == ['b1']
    assert reasons(pool) == {'evicted': 2}


def test_closed_because_a_limit_was_lowered() -> None:
    pool = Pool(min_idle=0, max_size=3, total_max_size=6)
    pool.fill('a', 2)
    holder = pool.acquire('a')
    pool.fill('b', 2)
    pool.core.resize(pool.now, max_size=1)
    assert reasons(pool) == {}
    assert len(pool.dispose()) == 2
    pool.core.resize(pool.now, total_max_size=0)
    pool.dispose()
    pool.release(holder)
    pool.dispose()
    assert reasons(pool) == {'shrunk': 4}


def test_closed_with_the_pool() -> None:
    pool = Pool()
    returned, kept = pool.acquire_all('a', 2)
    pool.fill('b', 1)
    connecting = pool.ask('c')
    pool.core.close()
    pool.release(returned)
    assert not pool.core.created(connecting.entry, Connection('c1'), pool.now)
    assert pool.core.doom_acquired() == 1
    pool.dispose()
    assert reasons(pool) == {'pool_closed': 4}
    pool.release(kept)


def test_closed_as_unfit() -> None:
    pool = Pool()
    dead, broken, discarded = pool.acquire_all('a', 3)
    pool.core.reject_dead(dead.waiter)
    pool.cancel(dead)
    assert pool.core.retire_to_doomed(broken.entry, pool.now)
    assert pool.core.retire_to_doomed(discarded.entry, pool.now, discarded=True)
    pool.dispose()
    assert reasons(pool) == {'dead': 1, 'broken': 1, 'discarded': 1}
    assert pool.count('dead', 'broken') == (1, 2)


def test_an_acquire_is_counted_once_however_many_dead_connections_it_was_served() -> None:
    pool = Pool(min_idle=3)
    pool.fill('a', 3)
    assert pool.count('acquires', 'created') == (3, 3)
    acquire = pool.ask('a')
    for _ in range(3):
        pool.core.reject_dead(acquire.waiter)
        pool.ask_again(acquire)
        dead_entry = pool.core.take_doomed_for_worker()
        assert dead_entry is not None
        pool.core.disposed(dead_entry, pool.now)
    assert acquire.answer == 'ticket'
    pool.connect(acquire)
    assert pool.count('acquires', 'created', 'dead', 'disposed') == (4, 4, 3, 3)


def test_an_acquire_that_waits_several_times_is_counted_once() -> None:
    pool = Pool(max_size=1)
    holder, waiting = pool.acquire('a'), pool.ask('a')
    for _ in range(3):
        pool.release(holder)
        assert waiting.answer == 'served'
        pool.core.reject_dead(waiting.waiter)
        pool.ask_again(waiting)
        assert waiting.answer == 'waits'
        dead_entry = pool.core.take_doomed_for_worker()
        assert dead_entry is not None
        pool.core.disposed(dead_entry, pool.now)
        assert waiting.answer == 'ticket'
        holder = waiting
        pool.connect(holder)
        waiting = pool.ask('a')
    assert pool.count('waits', 'acquires') == (4, 4)


def test_the_sizes_of_an_endpoint() -> None:
    pool = Pool(min_idle=1, max_size=9)
    sizes = pool.core.endpoint_size
    pool.fill('a', 3)
    first = pool.acquire('a')
    pool.core.begin_release(pool.acquire('a').entry)
    pool.now = 100.0  # so that the idle one is closed
    connecting = pool.ask('a')
    assert connecting.answer == 'ticket'
    assert pool.core.doomed == 1
    assert (sizes('a'), sizes('a', True), sizes('a', False)) == (4, 2, 0)
    assert (sizes('a', None), sizes('b'), sizes('b', True), sizes('b', False)) == (4, 0, 0, 0)
    pool.connect(connecting)
    pool.release(connecting)
    pool.release(first)
    assert (sizes('a'), sizes('a', True), sizes('a', False)) == (4, 1, 1)
    pool.dispose()
    assert (sizes('a'), sizes('a', True), sizes('a', False)) == (2, 1, 1)


@pytest.mark.parametrize('total', [1, 2, 7])
def test_the_total_is_the_sum_over_the_endpoints(total: int) -> None:
    pool = Pool(max_size=2, total_max_size=100)
    for number in range(total):
        pool.fill(number, 1 + number % 2)
    assert pool.core.size == sum(pool.core.endpoint_size(number) for number in range(total)) == pool.stats['size']


def test_a_row_for_each_endpoint() -> None:
    pool = Pool(max_size=2, total_max_size=9)
    assert pool.core.endpoint_rows() == []
    pool.fill('a', 2)
    _held = pool.acquire_all('b', 1)
    pool.ask('c')
    rows = pool.core.endpoint_rows()
    assert sorted(rows) == [
        ('a', 2, 0, 0, 0, 0, 0),
        ('b', 0, 1, 0, 0, 0, 0),
        ('c', 0, 0, 1, 0, 0, 0),
    ]
    names = ('idle', 'in_use', 'creating', 'checking', 'closing', 'waiting')
    assert {endpoint: tuple(pool.core.endpoint_stats(endpoint)[name] for name in names) for endpoint, *_ in rows} == {
        endpoint: tuple(counts) for endpoint, *counts in rows
    }


def test_the_counters_since_a_pool_was_built_know_no_pop() -> None:
    pool = Pool()
    pool.fill('a', 1)
    popped = pool.core.stats(True)
    pool.fill('a', 1)
    since_built = pool.core.stats(since_built=True)
    assert since_built['acquires'] == popped['acquires'] + pool.core.stats()['acquires']
    assert since_built.histograms['use'].count == since_built['acquires'] > popped['acquires'] > 0
