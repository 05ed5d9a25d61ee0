"""A connection that is ready or nothing; discard and detach; a pool that keeps no idle connections."""

import gc
import weakref
from typing import Any

import pytest

from gcpool._core import Entry, PoolCore, Waiter
from gcpool.exceptions import ConnectionNotAcquired, ConnectionPoolClosedError
from tests.engine.support import Acquire, Connection, Pool
from tests.engine.test_statistics import nonzero


def ready(pool: Pool, endpoint: object, interval: float = 0.0) -> str | None:
    """The name of the connection that is ready; the test keeps it checked out."""
    entry = pool.core.take_ready(endpoint, pool.now, interval)
    pool.core.check_invariants()
    return None if entry is None else entry.conn.name


def fill_one_by_one(pool: Pool, count: int, seconds: float) -> None:
    """Idle connections, each used later than the one before it."""
    acquires = pool.acquire_all('a', count)
    for acquire in acquires:
        pool.now += seconds
        pool.release(acquire)


# ---- ready or nothing ---------------------------------------------------------------------------------------------


def test_nothing_is_ready_in_a_new_pool_and_the_endpoint_stays_unknown() -> None:
    pool = Pool()
    assert ready(pool, 'a') is None
    assert pool.stats['endpoints'] == 0


def test_the_one_is_ready_that_would_be_served_next() -> None:
    pool = Pool(min_idle=2, max_size=4)
    pool.fill('a', 4)
    assert [ready(pool, 'a') for _ in range(5)] == ['a3', 'a4', 'a2', 'a1', None]
    assert pool.stats['acquires'] == 8


def test_one_whose_lifetime_is_over_is_not_ready_and_nothing_is_doomed() -> None:
    pool = Pool(min_idle=3, max_lifetime=10.0)
    first = pool.acquire('a')
    pool.now = 5.0
    second = pool.acquire('a')
    pool.release(first, second)
    pool.now = 10.0
    assert ready(pool, 'a') == 'a2', 'the one behind it still lives'
    assert ready(pool, 'a') is None
    assert pool.core.doomed == 0
    assert pool.expire() == ['a1']


def test_of_those_that_are_checked_after_an_interval_one_is_ready_that_was_used_within_it() -> None:
    pool = Pool(min_idle=3, idle_timeout=100.0)
    fill_one_by_one(pool, 3, seconds=2.0)
    pool.now += 1.0
    assert [ready(pool, 'a', interval=4.0) for _ in range(3)] == ['a2', 'a3', None]
    assert ready(pool, 'a', interval=6.0) == 'a1'


def test_extra_ones_are_ready_behind_core_ones_that_are_to_be_checked() -> None:
    pool = Pool(min_idle=1, idle_timeout=100.0)
    fill_one_by_one(pool, 3, seconds=2.0)
    assert [ready(pool, 'a', interval=3.0) for _ in range(3)] == ['a3', 'a2', None]


def test_a_suspect_is_not_ready() -> None:
    pool = Pool(min_idle=3)
    dead, other = pool.acquire_all('a', 2)
    pool.release(other)
    pool.core.reject_dead(dead.waiter)
    assert ready(pool, 'a', interval=60.0) is None
    assert ready(pool, 'a') == 'a2', 'nothing is ever checked: nothing is suspect'


def test_nothing_is_ready_where_somebody_waits() -> None:
    pool = Pool(max_size=1)
    first = pool.acquire('a')
    waiting = pool.ask('a')
    assert ready(pool, 'a') is None
    pool.release(first)
    assert waiting.answer == 'served'
    assert ready(pool, 'a') is None


def test_a_closed_pool_says_so() -> None:
    pool = Pool()
    pool.fill('a', 1)
    pool.core.close()
    for endpoint in ('a', 'b'):
        with pytest.raises(ConnectionPoolClosedError, match=f"the pool is closed: no connection to '{endpoint}'"):
            ready(pool, endpoint)


@pytest.mark.parametrize('filled', [False, True])
def test_an_endpoint_must_be_hashable(filled: bool) -> None:
    pool = Pool()
    if filled:
        pool.fill('a', 1)
    with pytest.raises(TypeError, match='expected a hashable object'):
        ready(pool, [])


def test_a_spelling_that_was_never_seen_is_found() -> None:
    core = PoolCore(1, 2, 2, 10.0, 100.0, normalize=str.lower)
    waiter = Waiter('a')
    core.request(waiter, 0.0)
    entry = waiter.served
    core.created(entry, Connection('a1'), 0.0)
    del waiter.served
    core.release(entry, 0.0)
    assert core.take_ready('A', 0.0, 0.0) is entry
    assert core.take_ready('A', 0.0, 0.0) is None


# ---- discard and detach -------------------------------------------------------------------------------------------


def take_out(pool: Pool, entry: Entry, how: str) -> bool:
    out = pool.core.detach(entry, pool.now) if how == 'detach' else pool.core.discard(entry, pool.now, how == 'doom')
    pool.core.check_invariants()
    return out


def finish(pool: Pool, entry: Entry, how: str) -> None:
    """Close what was discarded."""
    if how == 'doom':
        assert pool.dispose() == [entry.conn.name]
    elif how == 'discard':
        assert pool.core.doomed == 0, 'its caller closes it'
        pool.core.disposed(entry, pool.now)
    pool.core.check_invariants()


@pytest.mark.parametrize('how', ['discard', 'doom', 'detach'])
def test_what_its_user_takes_out_is_gone_and_counted(how: str) -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    conn, entry = acquire.conn, acquire.entry
    assert take_out(pool, entry, how)
    assert entry.is_given_up
    finish(pool, entry, how)
    assert entry.state_name == 'gone'
    assert entry.reason == (None if how == 'detach' else 'discarded')
    expected = {'asked': 1, 'acquires': 1, 'created': 1}
    expected |= {'detached': 1} if how == 'detach' else {'disposed': 1, 'closed_discarded': 1}
    assert nonzero(pool.stats) == expected
    with pytest.raises(ConnectionNotAcquired, match='does not belong to the pool, or is closed'):
        pool.core.find_acquired(conn, 'a')


@pytest.mark.parametrize('how', ['discard', 'doom', 'detach'])
def test_of_two_that_take_it_out_or_return_it_one_wins(how: str) -> None:
    pool = Pool()
    entry = pool.acquire('a').entry
    assert take_out(pool, entry, how)
    for call in (pool.core.discard, pool.core.detach, pool.core.release):
        with pytest.raises(ConnectionNotAcquired, match=r'is not acquired: its state is (closing|gone)'):
            call(entry, pool.now)
    assert pool.stats['acquired'] == 0
    finish(pool, entry, how)


@pytest.mark.parametrize('how', ['discard', 'doom', 'detach'])
def test_what_is_being_returned_or_is_idle_cannot_be_taken_out(how: str) -> None:
    pool = Pool()
    entry = pool.acquire('a').entry
    assert pool.core.begin_release(entry)
    with pytest.raises(ConnectionNotAcquired, match='its state is releasing'):
        take_out(pool, entry, how)
    pool.core.release(entry, pool.now)
    with pytest.raises(ConnectionNotAcquired, match='its state is idle'):
        take_out(pool, entry, how)
    assert not entry.is_given_up
    assert ready(pool, 'a') == 'a1'


@pytest.mark.parametrize('how', ['discard', 'doom', 'detach'])
def test_the_end_of_the_lease_does_nothing_after_that(how: str) -> None:
    pool = Pool()
    entry = pool.acquire('a').entry
    lease_no = entry.lease_no
    take_out(pool, entry, how)
    assert pool.core.begin_release(entry, lease_no) is False
    pool.core.release(entry, pool.now, lease_no)
    assert pool.core.retire(entry, pool.now, lease_no) is False
    finish(pool, entry, how)
    assert pool.core.begin_release(entry, lease_no) is False
    assert pool.stats['size'] == 0
    with pytest.raises(ConnectionNotAcquired, match='another user has acquired it since'):
        pool.core.release(entry, pool.now, lease_no + 1)


def test_a_discard_does_not_make_the_others_suspect() -> None:
    pool = Pool()
    first, second = pool.acquire_all('a', 2)
    pool.release(second)
    take_out(pool, first.entry, 'doom')
    assert ready(pool, 'a', interval=60.0) == 'a2'


def test_the_slot_of_what_is_detached_is_free_at_once_and_goes_to_the_first_waiter() -> None:
    pool = Pool(max_size=1)
    first = pool.acquire('a')
    waiting, second = pool.ask('a'), pool.ask('a')
    take_out(pool, first.entry, 'detach')
    assert [waiting.answer, second.answer] == ['ticket', 'waits']
    assert pool.notified == [waiting]


def test_the_slot_of_what_is_detached_goes_to_another_endpoint_at_the_total_limit() -> None:
    pool = Pool(max_size=2, total_max_size=2)
    first, _other = pool.acquire_all('a', 2)
    waiting = pool.ask('b')
    take_out(pool, first.entry, 'detach')
    assert waiting.answer == 'ticket'


def test_the_slot_of_what_is_discarded_is_free_when_it_is_closed() -> None:
    pool = Pool(max_size=1)
    first = pool.acquire('a')
    waiting = pool.ask('a')
    take_out(pool, first.entry, 'discard')
    assert waiting.answer == 'waits'
    pool.core.disposed(first.entry, pool.now)
    assert waiting.answer == 'ticket'


def test_what_is_detached_leaves_the_expiry_queue_and_the_next_one_is_due() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    pool.fill('a', 2)
    acquire = pool.acquire('a')
    take_out(pool, acquire.entry, 'detach')
    pool.now = 10.0
    assert pool.expire() == ['a1']
    assert pool.core.next_due() is None


def test_what_is_detached_is_held_by_nobody() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    conn: Any = acquire.conn
    found = weakref.ref(conn)
    take_out(pool, acquire.entry, 'detach')
    del acquire, conn
    pool.kept.clear()
    gc.collect()
    assert found() is None


def test_what_was_detached_may_come_back_as_a_new_connection() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    conn = acquire.conn
    take_out(pool, acquire.entry, 'detach')
    again = pool.ask('b')
    assert pool.connect(again, conn) is conn
    pool.release(again)
    assert ready(pool, 'b') == 'a1'


def test_the_pool_is_empty_when_the_last_one_is_detached() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    waiter = Waiter(None)
    told: list[bool] = []
    waiter.arm(lambda: told.append(True))
    assert pool.core.watch_empty(waiter)
    pool.core.close()
    take_out(pool, acquire.entry, 'detach')
    assert told == [True]
    assert pool.core.size == 0


def test_what_close_has_closed_cannot_be_detached_and_a_discard_of_it_does_nothing() -> None:
    pool = Pool()
    first, second = pool.acquire_all('a', 2)
    pool.core.close()
    assert pool.core.doom_acquired() == 2
    with pytest.raises(ConnectionNotAcquired, match='was closed by close'):
        take_out(pool, first.entry, 'detach')
    assert not first.entry.is_given_up
    assert pool.core.find_acquired(first.conn, 'a') is None, 'its release still does nothing'
    lease_no = second.entry.lease_no
    assert take_out(pool, second.entry, 'discard') is False
    assert pool.core.begin_release(second.entry, lease_no) is False, 'nor does the end of the context'
    assert sorted(pool.dispose()) == ['a1', 'a2']
    assert pool.stats['closed_pool_closed'] == 2


# ---- a pool that keeps none ---------------------------------------------------------------------------------------


class NullPool(Pool):
    """Closes what nobody waits for when it is returned."""

    def __init__(self, max_size: int = 2, total_max_size: int = 100, max_lifetime: float = 100.0) -> None:
        super().__init__()
        self.core = PoolCore(0, max_size, total_max_size, 10.0, max_lifetime, clock=self.read_clock, keeps_idle=False)


def test_a_returned_connection_that_nobody_waits_for_is_closed() -> None:
    pool = NullPool()
    first = pool.acquire('a')
    pool.release(first)
    assert pool.dispose() == ['a1']
    assert nonzero(pool.stats) == {
        'asked': 1,
        'acquires': 1,
        'created': 1,
        'disposed': 1,
        'closed_idle': 1,
    }
    assert pool.core.next_due() is None
    assert pool.acquire('a').conn.name == 'a2'


def test_a_returned_connection_is_handed_to_the_oldest_waiter_of_its_endpoint() -> None:
    pool = NullPool(max_size=1)
    first, other = pool.acquire('a'), pool.acquire('b')
    waiting = [pool.ask('a') for _ in range(3)]
    pool.release(other)
    assert pool.dispose() == ['b1'], 'those who wait elsewhere do not keep it open'
    pool.release(first)
    assert [acquire.answer for acquire in waiting] == ['served', 'waits', 'waits']
    assert waiting[0].conn.name == 'a1'


def test_at_the_total_limit_a_returned_connection_is_closed_for_another_endpoint() -> None:
    pool = NullPool(max_size=1, total_max_size=1)
    first = pool.acquire('a')
    waiting = pool.ask('b')
    pool.release(first)
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'


def test_one_whose_lifetime_is_over_is_closed_though_somebody_waits() -> None:
    pool = NullPool(max_size=1, max_lifetime=5.0)
    first = pool.acquire('a')
    waiting = pool.ask('a')
    pool.now = 5.0
    pool.release(first)
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'
    assert pool.stats['closed_lifetime'] == 1


def test_what_an_acquire_did_not_pass_on_is_closed() -> None:
    pool = NullPool()
    acquire = pool.acquire('a')
    assert pool.cancel(acquire) is False
    assert pool.core.left_to_workers == 1
    assert pool.dispose() == ['a1']


def test_nothing_is_ever_ready() -> None:
    pool = NullPool()
    acquires: list[Acquire] = pool.acquire_all('a', 2)
    pool.release(*acquires)
    assert ready(pool, 'a') is None
    assert sorted(pool.dispose()) == ['a1', 'a2']
