"""The end of a pool: nothing new, no waiter left, and every connection disposed of exactly once."""

import pytest

from gcpool._core import Entry, Waiter
from gcpool.exceptions import ConnectionNotAcquired
from tests.engine.support import Acquire, Connection, Pool


def test_a_closed_pool_says_so_and_stays_closed() -> None:
    pool = Pool()
    assert not pool.core.closed
    for _ in range(3):
        pool.core.close()
        pool.core.check_invariants()
        assert pool.core.closed
    assert pool.ask('a').answer == 'refused'


def test_close_refuses_those_who_wait_at_every_endpoint_in_their_order() -> None:
    pool = Pool(max_size=1)
    for endpoint in 'abc':
        pool.kept.append(pool.acquire(endpoint))
    waiters = {endpoint: [pool.ask(endpoint) for _ in range(4)] for endpoint in 'abc'}
    pool.core.close()
    pool.core.check_invariants()
    assert len(pool.notified) == 12
    for endpoint in 'abc':
        assert [acquire for acquire in pool.notified if acquire.endpoint == endpoint] == waiters[endpoint]
        assert {waiter.answer for waiter in waiters[endpoint]} == {'refused'}
    assert pool.count('waiting', 'size', 'acquired', 'timeouts') == (0, 3, 3, 0)
    for acquire in pool.notified:
        assert pool.cancel(acquire) is False
        assert acquire.notified == 1


def test_close_refuses_those_who_wait_for_a_slot() -> None:
    pool = Pool(max_size=1, total_max_size=1)
    holder = pool.acquire('a')
    waiting = pool.ask('b')
    pool.core.close()
    assert waiting.answer == 'refused'
    assert pool.count('endpoints') == (1,)
    pool.release(holder)
    assert pool.dispose() == ['a1']
    assert pool.count('size', 'endpoints') == (0, 0)


def test_close_closes_what_is_idle_and_keeps_what_is_out_until_it_comes_back() -> None:
    pool = Pool(min_idle=1, max_size=4)
    pool.fill('b', 2)
    out = pool.acquire('a')
    pool.core.close()
    assert sorted(pool.dispose()) == ['b1', 'b2']
    assert pool.count('size', 'acquired') == (1, 1)
    pool.release(out)
    assert pool.dispose() == ['a1']
    assert pool.core.size == 0
    assert pool.core.next_due() is None


def test_close_leaves_to_its_closer_what_is_being_closed() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    pool.fill('a', 2)
    pool.now = 10.0
    assert pool.core.doom_due(pool.now, 1) == 1
    [closing] = pool.take_doomed()
    pool.core.close()
    assert pool.core.doomed == 1
    assert pool.dispose() == ['a2']
    pool.core.disposed(closing, pool.now)
    assert pool.count('size', 'disposed', 'created') == (0, 2, 2)


def test_close_wakes_everybody_even_if_somebody_cannot_be() -> None:
    def fail(acquire: Acquire) -> None:
        raise RuntimeError(f'cannot wake {acquire.endpoint}')

    pool = Pool(min_idle=1, max_size=2)
    endpoints = [f'e{number}' for number in range(20)]
    _out = [pool.acquire_all(endpoint, 2) for endpoint in endpoints]
    pool.fill('idle', 1)
    broken = [Acquire(pool.core, endpoint, fail) for endpoint in endpoints[5:15]]
    waiters = [Acquire(pool.core, endpoint, pool.notified.append) for endpoint in endpoints]
    for acquire in broken + waiters:
        pool.ask_again(acquire)
    with pytest.raises(RuntimeError, match='cannot wake'):
        pool.core.close()
    pool.core.check_invariants()
    assert {acquire.answer for acquire in broken + waiters} == {'refused'}
    assert len(pool.notified) == 20
    assert pool.dispose() == ['idle1']


def test_an_acquire_in_progress_is_refused_when_it_asks_again() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    pool.core.reject_dead(acquire.waiter)
    pool.core.close()
    pool.ask_again(acquire)
    assert acquire.answer == 'refused'
    assert pool.cancel(acquire) is False
    assert pool.dispose() == ['a1']
    assert pool.core.size == 0


def test_a_failed_create_after_close_frees_the_last_slot() -> None:
    pool = Pool()
    acquire = pool.ask('a')
    pool.core.close()
    pool.core.create_failed(acquire.waiter, pool.now)
    assert pool.count('size', 'endpoints', 'create_errors') == (0, 0, 1)


def test_resize_and_expired_on_a_closed_pool_do_no_harm() -> None:
    pool = Pool(min_idle=0)
    holder = pool.acquire('a')
    pool.fill('b', 1)
    pool.core.close()
    pool.core.resize(pool.now, max_size=1, total_max_size=1)
    pool.now = 1000.0
    assert pool.core.doom_due(pool.now, 10) == 0, 'it is closed already'
    pool.core.check_invariants()
    assert pool.dispose() == ['b1']
    pool.release(holder)
    assert pool.dispose() == ['a1']


# -- waiting for the pool to be empty ---------------------------------------------------------------------------------


class Closer:
    """A waiter for the pool to be empty."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.notified = 0
        self.waiter = Waiter(None)
        self.waiter.arm(self.notify)

    def notify(self) -> None:
        self.pool.core.check_invariants()
        assert self.pool.core.size == 0
        self.notified += 1

    def watch(self) -> bool:
        return self.pool.core.watch_empty(self.waiter)

    def unwatch(self) -> bool:
        return self.pool.core.unwatch(self.waiter)


def test_nobody_has_to_wait_for_an_empty_pool() -> None:
    pool = Pool()
    closer = Closer(pool)
    assert closer.watch() is False
    assert closer.unwatch() is False
    assert closer.notified == 0


@pytest.mark.parametrize('last', ['disposed', 'failed'])
def test_all_who_wait_for_the_pool_to_be_empty_are_notified_once(last: str) -> None:
    pool = Pool()
    acquire = pool.ask('a')
    if last == 'disposed':
        pool.connect(acquire)
    closers = [Closer(pool) for _ in range(3)]
    assert [closer.watch() for closer in closers] == [True] * 3
    pool.core.close()
    assert [closer.notified for closer in closers] == [0] * 3
    if last == 'disposed':
        pool.release(acquire)
        [entry] = pool.take_doomed()
        assert [closer.notified for closer in closers] == [0] * 3, 'its dispose has not ended'
        pool.core.disposed(entry, pool.now)
    else:
        pool.core.create_failed(acquire.waiter, pool.now)
    assert [closer.notified for closer in closers] == [1] * 3
    assert [closer.unwatch() for closer in closers] == [False] * 3


@pytest.mark.parametrize('leaving', [(0,), (1,), (2,), (0, 2), (2, 1), (0, 1, 2)])
def test_one_who_stops_waiting_for_the_pool_to_be_empty_is_not_notified(leaving: tuple[int, ...]) -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    closers = [Closer(pool) for _ in range(3)]
    assert all(closer.watch() for closer in closers)
    for index in leaving:
        assert closers[index].unwatch() is True
        assert closers[index].unwatch() is False
    pool.core.close()
    pool.release(acquire)
    pool.dispose()
    assert [closer.notified for closer in closers] == [0 if index in leaving else 1 for index in range(3)]


def test_a_pool_may_become_empty_and_be_used_again() -> None:
    pool = Pool(min_idle=0, idle_timeout=0.0)
    closer = Closer(pool)
    for round_ in range(3):
        acquire = pool.acquire('a')
        assert closer.watch() is True
        pool.release(acquire)
        pool.expire()
        assert closer.notified == round_ + 1


def test_a_slot_that_somebody_waits_for_leaves_the_pool_not_empty() -> None:
    pool = Pool(max_size=1)
    acquire, waiting = pool.ask('a'), pool.ask('a')
    closer = Closer(pool)
    assert closer.watch()
    pool.core.create_failed(acquire.waiter, pool.now)
    assert (waiting.answer, closer.notified) == ('ticket', 0)
    pool.core.create_failed(waiting.waiter, pool.now)
    assert closer.notified == 1


# -- closing what is out ----------------------------------------------------------------------------------------------


def closed_over(pool: Pool, count: int = 1) -> list[Acquire]:
    """Acquires whose connections were doomed while in use."""
    acquires = pool.acquire_all('a', count)
    pool.core.close()
    assert pool.core.doom_acquired() == count
    pool.core.check_invariants()
    return acquires


def test_what_is_out_is_closed_all_the_same() -> None:
    pool = Pool()
    acquires = [*pool.acquire_all('a', 2), pool.acquire('b')]
    pool.fill('c', 1)
    pool.core.close()
    assert pool.core.doom_acquired() == 3
    pool.core.check_invariants()
    assert pool.count('size', 'acquired', 'idle') == (4, 0, 0)
    assert [pool.core.still_holds(acquire.waiter) for acquire in acquires] == [False] * 3
    assert sorted(pool.dispose()) == ['a1', 'a2', 'b1', 'c1']
    assert pool.core.size == 0
    assert pool.core.doom_acquired() == 0
    assert [acquire.entry.state_name for acquire in acquires] == ['gone'] * 3


def test_what_is_out_belongs_to_its_holder_until_then() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    assert pool.core.still_holds(acquire.waiter)
    pool.core.close()
    assert pool.core.still_holds(acquire.waiter)


WHEN = ['doomed', 'being closed', 'closed']


def reach(pool: Pool, when: str) -> list[Entry]:
    """Bring the doomed connections to a stage of their end. Return those that are being closed."""
    if when == 'doomed':
        return []
    entries = pool.take_doomed()
    if when == 'being closed':
        return entries
    for entry in entries:
        pool.core.disposed(entry, pool.now)
    return []


def finish(pool: Pool, closing: list[Entry], count: int) -> None:
    for entry in closing:
        pool.core.disposed(entry, pool.now)
        pool.core.check_invariants()
    pool.dispose()
    pool.core.check_invariants()
    assert pool.count('size', 'created', 'disposed', 'endpoints') == (0, count, count, 0)


@pytest.mark.parametrize('when', WHEN)
def test_the_release_of_what_was_closed_over_its_holder_does_nothing(when: str) -> None:
    pool = Pool()
    [acquire] = closed_over(pool)
    conn = acquire.conn
    closing = reach(pool, when)
    before = pool.stats
    assert pool.core.find_acquired(conn, 'a') is None
    pool.core.check_invariants()
    assert pool.stats == before
    finish(pool, closing, 1)
    with pytest.raises(ConnectionNotAcquired):
        pool.core.find_acquired(conn, 'a')


@pytest.mark.parametrize('when', WHEN)
def test_the_second_release_of_what_was_closed_over_its_holder_is_an_error(when: str) -> None:
    pool = Pool()
    [acquire] = closed_over(pool)
    conn = acquire.conn
    closing = reach(pool, when)
    assert pool.core.find_acquired(conn, 'a') is None
    with pytest.raises(ConnectionNotAcquired):
        pool.core.find_acquired(conn, 'a')
    finish(pool, closing, 1)


@pytest.mark.parametrize('when', WHEN)
def test_what_was_closed_over_its_holder_and_given_to_the_wrong_endpoint_is_an_error(when: str) -> None:
    pool = Pool()
    [acquire] = closed_over(pool)
    closing = reach(pool, when)
    with pytest.raises(ConnectionNotAcquired, match="'b'"):
        pool.core.find_acquired(acquire.conn, 'b')
    assert pool.core.find_acquired(acquire.conn, 'a') is None
    finish(pool, closing, 1)


@pytest.mark.parametrize('way', ['release', 'begin_release', 'cancel', 'reject_dead', 'hook'])
@pytest.mark.parametrize('when', WHEN)
def test_what_was_closed_over_its_holder_is_let_go_by_every_way_back(way: str, when: str) -> None:
    pool = Pool()
    acquire, other = pool.acquire_all('a', 2)
    entry, conn = acquire.entry, acquire.conn
    if way == 'hook':
        assert pool.core.begin_release(entry) is True
    pool.core.close()
    assert pool.core.doom_acquired() == 2
    closing = reach(pool, when)
    if way in {'release', 'hook'}:
        pool.core.release(entry, pool.now)
    elif way == 'begin_release':
        assert pool.core.begin_release(entry) is False
    elif way == 'cancel':
        assert pool.cancel(acquire) is False
    elif way == 'reject_dead':
        pool.core.reject_dead(acquire.waiter)
        assert acquire.waiter.dead_entry is None, 'it is disposed of by whoever closed the pool'
        pool.ask_again(acquire)
        assert acquire.answer == 'refused'
        pool.cancel(acquire)
    pool.core.check_invariants()
    with pytest.raises(ConnectionNotAcquired):
        pool.core.find_acquired(conn, 'a')
    assert pool.core.find_acquired(other.conn, 'a') is None
    finish(pool, closing, 2)
    assert entry.state_name == 'gone'


def test_a_waiter_that_was_handed_what_is_then_closed_is_refused() -> None:
    pool = Pool(max_size=1)
    holder, waiting = pool.acquire('a'), pool.ask('a')
    pool.release(holder)
    assert waiting.answer == 'served'
    pool.core.close()
    assert pool.core.doom_acquired() == 1
    assert waiting.answer == 'refused', 'nothing is served whose dispose has begun'
    assert pool.cancel(waiting) is False
    finish(pool, [], 1)


def test_what_is_released_while_the_others_are_doomed_is_disposed_of_once() -> None:
    pool = Pool(max_size=100)
    acquires = pool.acquire_all('a', 100)
    pool.core.close()
    for acquire in acquires[::2]:
        pool.core.release(acquire.entry, pool.now)
    assert pool.core.doom_acquired() == 50
    for acquire in acquires:
        if acquire in acquires[1::2]:
            assert pool.core.find_acquired(acquire.conn, 'a') is None
        else:
            with pytest.raises(ConnectionNotAcquired, match='closing'):
                pool.core.find_acquired(acquire.conn, 'a')
    assert len(set(pool.dispose())) == 100
    assert pool.count('size', 'disposed') == (0, 100)


def test_dooming_what_is_out_leaves_tickets_to_their_holders() -> None:
    pool = Pool()
    ticket = pool.ask('a')
    pool.core.close()
    assert pool.core.doom_acquired() == 0
    late = Connection('late')
    assert pool.core.created(ticket.entry, late, pool.now) is False
    pool.cancel(ticket)
    finish(pool, [], 1)
