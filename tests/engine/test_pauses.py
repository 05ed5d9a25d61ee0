"""The core's part of drain, suspend, resume, open and wait_idle."""

import pytest

from gcpool._core import Waiter
from tests.engine.support import Acquire, Connection, Pool, names

# -- drained connections ----------------------------------------------------------------------------------------------


def test_only_the_releases_of_an_endpoint_with_drained_connections_in_use_take_the_core_s_lock() -> None:
    pool = Pool(max_size=2)
    old = pool.acquire('a')
    pool.fill('b', 1)
    pool.core.drain('a', pool.now)
    pool.core.drain('b', pool.now)
    assert pool.core.watched_endpoints == 1
    pool.fill('a', 1)
    assert pool.core.watched_endpoints == 1
    pool.release(old)
    assert pool.core.watched_endpoints == 0
    assert sorted(pool.dispose()) == ['a1', 'b1']


def test_a_drained_connection_is_not_handed_over_where_max_size_is_no_limit() -> None:
    pool = Pool(max_size=2**31 - 1, creates_in_background=True)
    old = pool.ask('a')
    pool.grow(*pool.take_creates())
    waiting = pool.ask('a')
    _tickets = pool.take_creates()
    pool.core.drain('a', pool.now)
    pool.release(old)
    assert (waiting.answer, pool.dispose()) == ('waits', ['a1'])


def test_a_drained_connection_is_known_among_later_ones_however_often_others_are_drained() -> None:
    pool = Pool(max_size=3)
    kept = pool.acquire('a')
    for _ in range(100):
        other = pool.acquire('b')
        pool.core.drain('b', pool.now)
        pool.release(other)
        pool.dispose()
    pool.core.drain('a', pool.now)
    later = pool.acquire('a')
    pool.release(kept, later)
    pool.dispose()
    assert pool.drain_idle('a') == ['a2']


@pytest.mark.parametrize('end', ['created', 'failed', 'cancelled', 'found dead', 'retired'])
def test_a_drain_is_over_when_all_that_it_found_is_gone_whatever_became_of_it(end: str) -> None:
    pool = Pool()
    acquire = pool.ask('a')
    if end in {'found dead', 'retired'}:
        pool.connect(acquire)
    pool.core.drain('a', pool.now)
    assert pool.core.watched_endpoints == 1
    if end == 'created':
        pool.connect(acquire)
        pool.release(acquire)
    elif end == 'failed':
        pool.core.create_failed(acquire.waiter, pool.now)
    elif end == 'cancelled':
        pool.cancel(acquire)
    elif end == 'found dead':
        pool.core.reject_dead(acquire.waiter)
        pool.cancel(acquire)
    else:
        pool.core.retire_to_doomed(acquire.entry, pool.now)
    assert pool.core.watched_endpoints == 0
    pool.dispose()
    pool.core.check_invariants()
    assert pool.stats['size'] == 0


def test_what_is_drained_frees_slots_for_those_who_want_one_elsewhere() -> None:
    pool = Pool(max_size=2, total_max_size=2)
    pool.fill('a', 1)
    held = pool.acquire('b')
    waiting = pool.ask('c')
    assert pool.core.doomed == 1
    second = pool.ask('d')
    pool.core.drain('b', pool.now)
    pool.release(held)
    pool.dispose()
    assert [waiting.answer, second.answer] == ['ticket', 'ticket']


def test_a_drain_that_there_is_no_memory_for_changes_nothing() -> None:
    testcapi = pytest.importorskip('_testcapi')
    pool = Pool()
    held = pool.acquire('a')
    pool.fill('a', 2)
    testcapi.set_nomemory(1, 0)
    try:
        pool.core.drain('a', pool.now)
        failed = False
    except MemoryError:
        failed = True
    finally:
        testcapi.remove_mem_hooks()
    pool.core.check_invariants()
    pool.release(held)
    assert sorted(pool.dispose()) == ([] if failed else ['a1', 'a2'])


# -- a suspended pool -------------------------------------------------------------------------------------------------


def test_waiters_are_served_from_what_has_become_idle_and_then_from_free_slots() -> None:
    pool = Pool(max_size=2)
    held = pool.acquire('a')
    assert pool.core.suspend()
    waiting = [pool.ask('a') for _ in range(4)]
    pool.release(held)
    assert pool.count('idle', 'waiting') == (1, 4)
    assert pool.notified == []
    assert pool.core.resume(pool.now)
    assert pool.notified == waiting[:2]
    assert [acquire.answer for acquire in waiting] == ['served', 'ticket', 'waits', 'waits']
    assert names(waiting[0]) == ['a1']


def test_a_released_connection_is_not_handed_over_nor_taken_by_who_comes() -> None:
    pool = Pool(max_size=1)
    held = pool.acquire('a')
    waiting = pool.ask('a')
    pool.core.suspend()
    pool.release(held)
    assert pool.core.try_acquire('a', pool.now) is None
    assert pool.ask('a').answer == 'waits'
    assert waiting.answer == 'waits'


def test_no_slot_is_given_and_nothing_evicted_while_the_pool_is_suspended() -> None:
    pool = Pool(max_size=1, total_max_size=1)
    pool.fill('a', 1)
    pool.core.suspend()
    waiting = pool.ask('b')
    pool.core.expire_relief(pool.now + 5)
    assert pool.core.doomed == 0
    pool.core.resize(pool.now, max_size=2, total_max_size=2)
    assert waiting.answer == 'waits'
    pool.core.resume(pool.now)
    assert waiting.answer == 'ticket'


def test_a_connection_beyond_a_lowered_limit_is_closed_in_a_suspended_pool() -> None:
    pool = Pool(max_size=2)
    held = pool.acquire_all('a', 2)
    pool.core.suspend()
    pool.core.resize(pool.now, max_size=1)
    pool.release(*held)
    assert pool.dispose() == ['a1']


def test_a_connection_that_is_too_old_at_the_end_of_a_suspension_is_closed_in_place_of_another_one() -> None:
    pool = Pool(max_size=2, total_max_size=2, max_lifetime=100.0)
    pool.fill('a', 1)
    pool.now = 50.0
    pool.fill('b', 1)
    pool.core.suspend()
    waiting = pool.ask('a')
    pool.now = 120.0
    pool.core.resume(pool.now)
    (entry,) = pool.take_doomed()
    assert entry.conn.name == 'a1'
    pool.core.disposed(entry, pool.now)
    assert waiting.answer == 'ticket'
    assert pool.count('idle') == (1,)


def test_a_pool_that_is_suspended_again_while_it_is_resumed_serves_no_more() -> None:
    pool = Pool(max_size=1)
    held = [pool.acquire(endpoint) for endpoint in 'ab']
    pool.core.suspend()
    waiting = [Acquire(pool.core, endpoint, lambda _: pool.core.suspend()) for endpoint in 'ab']
    for acquire in waiting:
        pool.ask_again(acquire)
    pool.release(*held)
    pool.core.resume(pool.now)
    assert pool.core.is_suspended
    late = pool.ask('a')
    assert late.answer == 'waits'
    pool.core.check_invariants()


def test_a_refused_waiter_says_why() -> None:
    pool = Pool()
    pool.core.suspend(True)
    assert pool.ask('a').waiter.refusal == 'suspended'
    pool.core.close()
    assert pool.ask('a').waiter.refusal == 'closed'


# -- opening ----------------------------------------------------------------------------------------------------------


def test_a_pool_opens_once_and_not_after_its_end() -> None:
    pool = Pool()
    assert pool.core.opened
    assert not pool.core.open(pool.now)
    pool.core.close()
    assert not pool.core.open(pool.now)


# -- the end of all use -----------------------------------------------------------------------------------------------


def test_a_watcher_of_uses_is_told_once_and_one_that_is_dropped_is_forgotten() -> None:
    pool = Pool()
    held = pool.acquire('a')
    told: list[str] = []
    watchers = []

    def watch(name: str) -> None:
        watcher = Waiter(None)
        watcher.arm(lambda: told.append(name))
        assert pool.core.watch_use(watcher)
        watchers.append(watcher)

    for name in ('first', 'second', 'dropped'):
        watch(name)
    del watchers[2]
    assert pool.core.use_watchers == 2
    assert pool.core.unwatch(watchers[1])
    assert not pool.core.unwatch(watchers[1])
    pool.release(held)
    assert told == ['first']
    assert pool.core.watched_endpoints == 0
    assert not pool.core.watch_use(Waiter(None))


def test_an_entry_without_a_pool_cannot_be_forgotten() -> None:
    pool = Pool()
    held = pool.acquire('a')
    pool.core.close()
    assert pool.core.doom_acquired() == 1
    assert [entry.conn for entry in pool.take_doomed()] == [held.conn]
    pool.core.disposed(held.entry, pool.now)
    assert pool.core.entry_if_acquired(held.conn, 'a') is None
    pool.core.forget_closed(held.entry)
    assert isinstance(held.conn, Connection)
    pool.core.check_invariants()
