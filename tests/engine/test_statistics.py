"""What stats() and endpoint_size() return."""

import pytest

from gcpool._core import REASONS
from tests.engine.model import REASONS as EXPECTED_REASONS
from tests.engine.support import Connection, Pool

NOTHING = {
    'size': 0,
    'idle': 0,
    'acquired': 0,
    'checking': 0,
    'waiting': 0,
    'endpoints': 0,
    'acquires': 0,
    'created': 0,
    'create_errors': 0,
    'dead': 0,
    'broken': 0,
    'disposed': 0,
    'waits': 0,
    'timeouts': 0,
    'checks': 0,
    'checks_failed': 0,
    **{f'closed_{reason}': 0 for reason in EXPECTED_REASONS},
}


def test_a_new_pool_has_counted_nothing() -> None:
    assert Pool().stats == NOTHING


def test_every_gauge_and_counter() -> None:
    pool = Pool(min_idle=1, max_size=2, total_max_size=4)
    first, second = pool.acquire_all('a', 2)
    waiting, leaving, late = (pool.ask('a') for _ in range(3))
    connecting, failing = pool.ask('b'), pool.ask('c')
    assert connecting.answer == 'ticket'
    pool.core.create_failed(failing.waiter, pool.now)
    assert pool.cancel(leaving)
    assert pool.core.give_up(late.waiter)
    assert pool.stats == NOTHING | {
        'size': 3,
        'acquired': 2,
        'waiting': 1,
        'endpoints': 2,
        'acquires': 2,
        'created': 2,
        'create_errors': 1,
        'waits': 3,
        'timeouts': 1,
    }
    pool.release(first)  # handed over
    pool.release(second)
    assert waiting.answer == 'served'
    assert pool.stats == NOTHING | {
        'size': 3,
        'idle': 1,
        'acquired': 1,
        'endpoints': 2,
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
    assert pool.stats == NOTHING | {
        'size': 2,
        'acquired': 1,
        'endpoints': 2,
        'acquires': 3,
        'created': 2,
        'create_errors': 1,
        'dead': 1,
        'disposed': 1,
        'closed_dead': 1,
        'waits': 3,
        'checks_failed': 1,
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
