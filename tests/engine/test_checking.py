"""Checks by the pool: when they are due, and where a checked connection goes."""

from typing import Any

import pytest

from gcpool._core import Entry, PoolCore, Waiter
from tests.engine.support import Pool


def pool_with(**options: Any) -> Pool:
    """A pool with parameters of the core that :py:class:`Pool` does not pass on, and its wake-ups."""
    pool = Pool()
    limits = (
        options.pop('min_idle', 1),
        options.pop('max_size', 3),
        options.pop('total_max_size', 100),
        options.pop('idle_timeout', 10.0),
        options.pop('max_lifetime', 100.0),
    )
    pool.core = PoolCore(*limits, clock=pool.read_clock, **options)
    return pool


def keepalive(interval: float = 20.0, **options: Any) -> Pool:
    return pool_with(keepalive_interval=interval, random=options.pop('random', lambda: 0.0), **options)


def check_due(pool: Pool, alive: bool | None = True) -> list[str]:
    """Check what is due. Return the names, in that order."""
    pool.core.begin_due_checks(pool.now)
    checked = []
    while (entry := pool.core.take_check()) is not None:
        checked.append(entry.conn.name)
        pool.core.end_check_by_pool(entry, alive, pool.now)
        pool.core.check_invariants()
    return checked


def test_a_check_is_due_an_interval_after_the_last_use() -> None:
    pool = keepalive()
    assert pool.core.next_check() is None
    first = pool.acquire('a')
    pool.now = 5.0
    pool.release(first)
    # Nobody looked at the timer when the connection was returned.
    pool.now = 20.0
    assert check_due(pool) == []
    assert pool.core.next_check() == 25.0
    pool.now = 25.0
    assert check_due(pool) == ['a1']
    assert pool.core.next_check() == 45.0


def test_a_check_is_earlier_by_a_tenth_at_most() -> None:
    drawn = [0.0, 0.5, 0.999]
    pool = keepalive(random=lambda: drawn.pop(0), max_lifetime=1000.0)
    for endpoint in 'abc':
        pool.fill(endpoint, 1)
    due = []
    for _ in range(3):
        pool.now = pool.core.next_check()  # type: ignore[assignment]
        due.append((pool.now, check_due(pool)))
    assert [names_ for _, names_ in due] == [['c1'], ['b1'], ['a1']]
    assert [at for at, _ in due] == pytest.approx([18.002, 19.0, 20.0])


def test_of_each_endpoint_one_is_checked_at_a_time() -> None:
    pool = keepalive(min_idle=3, max_lifetime=1000.0)
    pool.fill('a', 3)
    pool.fill('b', 1)
    pool.now = 20.0
    assert pool.core.begin_due_checks(pool.now) == 2
    assert pool.count('checking', 'idle') == (2, 2)
    assert pool.core.begin_due_checks(pool.now) == 0
    entries = [pool.core.take_check(), pool.core.take_check()]
    # Those that were due, too, are put off, and nothing is due before that.
    assert pool.core.next_check() == 21.0
    pool.now = 21.0
    assert pool.core.begin_due_checks(pool.now) == 0
    for entry in entries:
        assert entry is not None
        pool.core.end_check_by_pool(entry, True, pool.now)
    pool.now = 22.0
    assert len(check_due(pool)) == 1
    pool.now = 23.0
    assert len(check_due(pool)) == 1
    assert pool.count('checks', 'acquires', 'idle') == (4, 4, 4)


def test_what_is_in_use_is_not_checked() -> None:
    pool = keepalive()
    held = pool.acquire('a')
    pool.now = 50.0
    assert check_due(pool) == []
    assert pool.core.next_check() == 70.0
    pool.release(held)
    pool.now = 69.0
    assert check_due(pool) == []


def test_the_worker_is_called_when_a_check_is_due_earlier_than_it_will_wake() -> None:
    calls: list[object] = []
    answers = [None, None, False, None]

    def wake() -> object:
        calls.append(None)
        return answers.pop(0)

    pool = keepalive(wake_checker=wake, max_lifetime=1000.0)
    pool.fill('a', 2)
    assert len(calls) == 1
    assert pool.core.next_check() == 20.0
    pool.fill('b', 1)
    assert len(calls) == 1
    assert [len(pool.drain_idle(endpoint)) for endpoint in 'ab'] == [2, 1]
    pool.core.doom_acquired()
    pool.dispose()
    assert pool.core.next_check() is None
    # The last connection is gone, and with it what the worker waited for: it may belong to a loop that has ended.
    pool.fill('c', 1)
    assert len(calls) == 2
    pool.core.next_check()
    pool.now = -100.0
    pool.fill('d', 1)
    assert len(calls) == 3
    # It could not be told, and is told again.
    pool.fill('e', 1)
    assert len(calls) == 4


def test_a_wake_that_a_signal_handler_interrupts_is_made_up_for() -> None:
    calls: list[object] = []

    def wake() -> None:
        calls.append(None)
        if len(calls) == 1:
            raise KeyboardInterrupt

    pool = keepalive(wake_checker=wake)
    acquire = pool.ask('a')
    with pytest.raises(KeyboardInterrupt):
        pool.connect(acquire)
    assert len(calls) == 2
    assert acquire.conn.name == 'a1'
    pool.release(acquire)


def test_a_timer_goes_with_its_connection() -> None:
    pool = keepalive(idle_timeout=5.0, min_idle=0)
    pool.fill('a', 3)
    pool.now = 6.0
    assert pool.expire() == ['a1', 'a2', 'a3']
    assert pool.core.next_check() is None
    acquire = pool.ask('a')
    pool.core.create_failed(acquire.waiter, pool.now)
    pool.core.check_invariants()
    first = pool.acquire('a')
    other = pool.ask('a')
    with pytest.raises(ValueError, match='which the pool already holds'):
        pool.connect(other, first.conn)
    pool.cancel(other)
    pool.core.check_invariants()


def test_a_dead_connection_s_close_is_left_to_a_worker_and_its_slot_goes_to_a_waiter() -> None:
    pool = keepalive(max_size=1)
    pool.fill('a', 1)
    pool.now = 20.0
    pool.core.begin_due_checks(pool.now)
    entry = pool.core.take_check()
    assert entry is not None
    waiting = pool.ask('a')
    assert waiting.answer == 'waits'
    assert pool.core.end_check_by_pool(entry, False, pool.now)
    assert pool.core.left_to_workers == 1
    assert waiting.answer == 'waits'
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'
    assert pool.count('dead', 'closed_dead', 'checks_failed') == (1, 1, 1)


def test_workers_check_so_many_at_a_time() -> None:
    pool = keepalive(max_lifetime=1000.0)
    for endpoint in range(20):
        pool.fill(endpoint, 1)
    pool.now = 20.0
    assert pool.core.begin_due_checks(pool.now) == 20
    assert (pool.core.checks_to_begin, pool.core.left_to_workers) == (16, 20)
    begun = [pool.core.take_check() for _ in range(17)]
    assert begun[16] is None
    assert pool.core.checks_to_begin == 0
    assert begun[0] is not None
    pool.core.end_check_by_pool(begun[0], True, pool.now)
    assert pool.core.checks_to_begin == 1


def test_a_connection_that_was_handed_over_and_left_to_the_pool_counts_as_just_returned() -> None:
    pool = pool_with(min_idle=0, max_size=2)
    first, second = pool.acquire_all('a', 2)
    waiting = pool.ask('a')
    pool.release(first)
    pool.release(second)
    assert waiting.answer == 'served'
    assert pool.core.leave_check_to_pool(waiting.waiter, pool.now)
    entry = pool.core.take_check()
    assert entry is not None
    pool.core.end_check_by_pool(entry, True, pool.now)
    # Of extra connections the last one returned is served first: a1 was handed over before a2 was returned.
    assert pool.drain_idle('a') == ['a1', 'a2']


def test_a_closed_pool_checks_nothing() -> None:
    pool = keepalive(min_idle=2, max_lifetime=1000.0)
    pool.fill('a', 2)
    pool.fill('b', 1)
    held = pool.acquire('b')
    pool.now = 20.0
    assert pool.core.begin_due_checks(pool.now) == 1
    pool.core.close()
    assert pool.core.checks_to_begin == 0
    assert sorted(pool.dispose()) == ['a1', 'a2']
    assert not pool.core.leave_check_to_pool(held.waiter, pool.now)
    pool.release(held)
    assert pool.dispose() == ['b1']


def test_a_check_that_outlasts_a_forced_close_changes_nothing() -> None:
    pool = keepalive()
    pool.fill('a', 1)
    pool.now = 20.0
    pool.core.begin_due_checks(pool.now)
    entry = pool.core.take_check()
    assert entry is not None
    pool.core.close()
    assert pool.core.doom_acquired() == 0
    assert pool.dispose() == ['a1']
    assert not pool.core.end_check_by_pool(entry, False, pool.now)
    pool.core.check_invariants()
    assert pool.core.checks_to_begin == 0


@pytest.mark.parametrize('alive', [True, None, False])
def test_a_connection_that_is_drained_while_it_is_checked_is_closed(alive: bool | None) -> None:
    pool = keepalive()
    pool.fill('a', 1)
    pool.now = 20.0
    assert pool.core.begin_due_checks(pool.now) == 1
    entry = pool.core.take_check()
    assert entry is not None
    pool.core.drain('a', pool.now)
    assert pool.core.watched_endpoints == 1
    pool.core.check_invariants()
    later = pool.acquire('a')
    assert pool.core.end_check_by_pool(entry, alive, pool.now) is (alive is False)
    assert entry.reason == ('dead' if alive is False else 'drained')
    assert pool.dispose() == ['a1']
    assert pool.core.watched_endpoints == 0
    pool.release(later)
    assert pool.drain_idle('a') == ['a2']
    pool.core.check_invariants()


def test_a_connection_that_is_drained_while_it_is_checked_is_not_handed_over() -> None:
    pool = pool_with(max_size=1)
    pool.fill('a', 1)
    (entry,) = pool.core.idle_entries('a')[0]
    assert pool.core.begin_check_of_idle(entry)
    waiting = pool.ask('a')
    pool.core.drain('a', pool.now)
    pool.core.end_check_by_pool(entry, True, pool.now)
    assert waiting.answer == 'waits'
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'


@pytest.mark.parametrize('idle_only', [False, True])
def test_a_drain_closes_what_waits_for_a_check(idle_only: bool) -> None:
    pool = keepalive()
    pool.fill('a', 1)
    pool.fill('b', 1)
    pool.now = 20.0
    assert pool.core.begin_due_checks(pool.now) == 2
    pool.core.drain('a', pool.now, idle_only)
    assert pool.core.watched_endpoints == 0
    assert pool.dispose() == ['a1']
    entry = pool.core.take_check()
    assert entry is not None
    assert entry.conn.name == 'b1'
    assert pool.core.take_check() is None
    pool.core.end_check_by_pool(entry, True, pool.now)
    pool.core.check_invariants()
    assert pool.stats['closed_drained'] == 1


def test_a_drain_of_what_is_idle_leaves_alone_what_is_being_checked() -> None:
    pool = keepalive()
    pool.fill('a', 2)
    first = pool.core.idle_entries('a')[0][0]
    assert pool.core.begin_check_of_idle(first)
    pool.core.drain('a', pool.now, True)
    assert pool.dispose() == ['a2']
    pool.core.end_check_by_pool(first, True, pool.now)
    assert pool.drain_idle('a') == ['a1']


def test_a_suspended_pool_begins_no_check_and_the_checker_is_woken_when_it_goes_on() -> None:
    woken: list[None] = []
    pool = keepalive(wake_checker=lambda: woken.append(None))
    pool.fill('a', 2)
    pool.fill('b', 1)
    pool.now = 20.0
    assert pool.core.begin_due_checks(pool.now) == 2
    begun = pool.core.take_check()
    assert begun is not None
    pool.core.suspend()
    # What has waited for its check is idle again, and not known to be alive. The check that has begun goes on.
    assert pool.core.take_check() is None
    assert pool.count('idle', 'checking') == (2, 1)
    pool.core.end_check_by_pool(begun, True, pool.now)
    pool.now = 60.0
    assert pool.core.begin_due_checks(pool.now) == 0
    assert pool.core.next_check() is None
    before = len(woken)
    assert pool.core.resume(pool.now)
    assert len(woken) == before + 1
    assert pool.core.begin_due_checks(pool.now) == 2
    pool.core.check_invariants()


def test_a_check_that_waited_when_the_pool_was_suspended_is_made_before_the_connection_is_served() -> None:
    pool = keepalive()
    pool.fill('a', 1)
    pool.now = 20.0
    assert pool.core.begin_due_checks(pool.now) == 1
    pool.core.suspend()
    pool.core.resume(pool.now)
    assert pool.core.needs_check(pool.acquire('a').waiter, pool.now, 1000.0)


@pytest.mark.parametrize('fail', [False, True])
def test_an_acquire_that_leaves_a_check_to_a_suspended_pool_waits(fail: bool) -> None:
    pool = pool_with()
    pool.fill('a', 1)
    held = pool.acquire('a')
    pool.core.suspend(fail)
    assert pool.core.leave_check_to_pool(held.waiter, pool.now)
    assert pool.count('idle', 'checking') == (1, 0)
    assert pool.core.checks_to_begin == 0
    assert pool.core.request(held.waiter, pool.now)
    assert held.waiter.queued
    pool.core.resume(pool.now)
    assert pool.core.needs_check(held.waiter, pool.now, 1000.0)
    pool.core.check_invariants()


# ---- what is counted ------------------------------------------------------------------------------------------------


def test_an_acquire_that_leaves_its_check_to_the_pool_is_asked_once_and_uses_nothing_until_it_is_served() -> None:
    pool = pool_with(max_size=1)
    pool.fill('a', 1)
    asked = pool.stats['asked']
    held = pool.acquire('a')
    pool.now = 5.0
    assert pool.core.leave_check_to_pool(held.waiter, pool.now)
    assert pool.count('asked', 'acquires', 'checking', 'in_use') == (asked + 1, 1, 1, 0)
    assert pool.core.request(held.waiter, pool.now)
    assert pool.count('asked', 'waiting') == (asked + 1, 1)
    entry = pool.core.take_check()
    assert entry is not None
    pool.now = 7.0
    pool.core.end_check_by_pool(entry, True, pool.now)
    assert held.waiter.held is entry
    assert pool.count('asked', 'acquires', 'checks', 'use_ns') == (asked + 1, 2, 1, 0)
    pool.now = 8.0
    pool.core.release(entry, pool.now)
    assert pool.stats['use_ns'] == 1_000_000_000
    del held.waiter.served


@pytest.mark.parametrize('end', ['cancelled', 'dropped'])
def test_an_acquire_that_has_left_its_check_to_the_pool_and_ends_is_asked_once(end: str) -> None:
    pool = pool_with()
    pool.fill('a', 1)
    asked = pool.stats['asked']
    held = pool.acquire('a')
    assert pool.core.leave_check_to_pool(held.waiter, pool.now)
    if end == 'cancelled':
        pool.cancel(held)
    else:
        del held.waiter
    assert pool.stats['asked'] == asked + 1
    pool.core.give_up_checks(pool.now)
    pool.core.check_invariants()


def test_a_watcher_of_uses_is_told_when_the_last_one_leaves_its_check_to_the_pool() -> None:
    pool = pool_with()
    pool.fill('a', 1)
    held = pool.acquire('a')
    told: list[Waiter] = []
    watcher = Waiter(None)
    watcher.arm(lambda: told.append(watcher))
    assert pool.core.watch_use(watcher)
    assert pool.core.leave_check_to_pool(held.waiter, pool.now)
    assert told == [watcher]
    pool.cancel(held)


def test_the_uses_of_a_connection_that_the_pool_itself_created_are_limited() -> None:
    pool = Pool(max_uses=2, creates_in_background=True)
    asker = pool.ask('a')
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    pool.release(asker)
    pool.release(pool.acquire('a'))
    assert pool.dispose() == ['a1']
    assert pool.stats['closed_max_uses'] == 1


def test_an_entry_that_no_pool_has_served_is_refused() -> None:
    pool = Pool()
    with pytest.raises(RuntimeError, match='expected an entry that a pool has served'):
        pool.core.begin_check_of_idle(Entry())
    with pytest.raises(RuntimeError, match='expected an entry that a pool has served'):
        pool.core.end_check_by_pool(Entry(), True, 0.0)


def test_a_detached_connection_has_no_check_to_come() -> None:
    core = PoolCore(1, 3, 9, 10.0, 100.0, clock=lambda: 0.0, keepalive_interval=2.0, random=lambda: 0.0)
    waiter = Waiter('a')
    core.request(waiter, 0.0)
    core.created(waiter.served, object(), 0.0)
    assert core.next_check() is not None
    assert core.detach(waiter.served, 0.0)
    assert core.next_check() is None
    core.check_invariants()
