"""What stats() and endpoint_size() return."""

import pytest

from tests.engine.support import Pool

NOTHING = {
    'size': 0,
    'idle': 0,
    'acquired': 0,
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
    'too_many': 0,
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
        'waits': 3,
        'timeouts': 1,
    }


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
