"""Each row of the table in DESIGN.md, section 1: what is asked, and each of the answers."""

import pytest

from gcpool._core import Waiter
from gcpool.exceptions import ConnectionNotAcquired
from tests.engine.support import Connection, Pool, names

# -- acquire: an entry, a ticket, evict then create, a waiter, refused ------------------------------------------------


def test_acquire_of_an_unknown_endpoint_is_answered_with_a_ticket() -> None:
    pool = Pool()
    acquire = pool.ask('a')
    assert acquire.answer == 'ticket'
    assert acquire.entry.state_name == 'creating'
    assert acquire.entry.endpoint == 'a'
    with pytest.raises(AttributeError, match='no connection yet'):
        _ = acquire.conn
    assert pool.core.size == pool.core.endpoint_size('a') == 1
    assert pool.count('idle', 'acquired', 'waiting') == (0, 0, 0)


def test_acquire_is_answered_with_an_idle_entry() -> None:
    pool = Pool()
    pool.fill('a', 1)
    acquire = pool.ask('a')
    assert acquire.answer == 'served'
    assert acquire.conn.name == 'a1'
    assert acquire.entry.state_name == 'acquired'
    assert acquire.notified == 0
    assert pool.count('size', 'idle', 'acquired') == (1, 0, 1)


def test_acquire_is_answered_with_a_ticket_while_there_is_room_and_then_with_a_waiter() -> None:
    pool = Pool(max_size=2)
    acquires = [pool.ask('a') for _ in range(4)]
    assert [acquire.answer for acquire in acquires] == ['ticket', 'ticket', 'waits', 'waits']
    assert pool.count('size', 'waiting') == (2, 2)


def test_acquire_at_the_total_cap_is_answered_with_an_idle_connection_to_close_first() -> None:
    pool = Pool(max_size=1, total_max_size=1)
    pool.fill('a', 1)
    acquire = pool.ask('b')
    assert acquire.answer == 'waits'
    assert pool.core.doomed == 1
    [doomed] = pool.take_doomed()
    assert (doomed.conn.name, doomed.endpoint, doomed.state_name) == ('a1', 'a', 'closing')
    assert acquire.answer == 'waits', 'the slot is not free before the dispose has ended'
    assert pool.core.size == 1
    pool.core.disposed(doomed, pool.now)
    assert doomed.state_name == 'gone'
    assert acquire.answer == 'ticket'
    assert acquire.notified == 1
    assert pool.core.size == pool.core.endpoint_size('b') == 1


def test_acquire_at_the_total_cap_waits_when_all_connections_are_out() -> None:
    pool = Pool(max_size=1, total_max_size=1)
    _held = pool.acquire('a')
    assert pool.ask('b').answer == 'waits'
    assert pool.core.doomed == 0


def test_acquire_is_refused_by_a_closed_pool() -> None:
    pool = Pool()
    pool.core.close()
    acquire = pool.ask('a')
    assert acquire.answer == 'refused'
    assert acquire.notified == 0
    assert pool.count('size', 'waiting', 'endpoints') == (0, 0, 0)


def test_an_idle_entry_can_be_taken_without_asking_for_more() -> None:
    pool = Pool()
    assert pool.core.try_acquire('a', pool.now) is None
    assert pool.core.size == 0
    pool.fill('a', 1)
    entry = pool.core.try_acquire('a', pool.now)
    assert entry is not None
    assert entry.conn.name == 'a1'
    assert pool.core.try_acquire('a', pool.now) is None
    pool.core.release(entry, pool.now)
    assert pool.count('idle', 'acquired') == (1, 0)


def test_nothing_is_taken_from_a_closed_pool() -> None:
    pool = Pool()
    pool.fill('a', 1)
    pool.core.close()
    assert pool.core.try_acquire('a', pool.now) is None


# -- created, failed --------------------------------------------------------------------------------------------------


def test_a_ticket_becomes_an_acquired_connection() -> None:
    pool = Pool()
    acquire = pool.ask('a')
    conn = Connection('mine')
    assert pool.core.created(acquire.entry, conn, pool.now) is True
    assert acquire.answer == 'served'
    assert acquire.conn is conn
    assert pool.core.find_acquired(conn, 'a') is acquire.entry
    assert pool.count('size', 'acquired', 'created') == (1, 1, 1)


def test_a_connection_made_for_a_pool_that_was_closed_meanwhile_is_to_be_closed() -> None:
    pool = Pool()
    acquire = pool.ask('a')
    pool.core.close()
    assert pool.core.size == 1, 'the slot stays taken while somebody is connecting'
    conn = Connection('late')
    assert pool.core.created(acquire.entry, conn, pool.now) is False
    assert pool.cancel(acquire) is False
    assert pool.dispose() == ['late']
    assert pool.count('size', 'acquired', 'created', 'disposed', 'create_errors') == (0, 0, 1, 1, 0)


def test_a_failed_ticket_frees_its_slot_and_nothing_is_counted() -> None:
    pool = Pool(max_size=1)
    acquire = pool.ask('a')
    pool.core.create_failed(acquire.waiter, pool.now)
    pool.core.check_invariants()
    assert acquire.answer == 'nothing'
    assert pool.count('size', 'acquired', 'created', 'create_errors', 'endpoints') == (0, 0, 0, 1, 0)
    assert pool.cancel(acquire) is False, 'to cancel it afterwards is allowed, and does nothing'
    assert pool.count('size', 'create_errors') == (0, 1)


def test_a_failed_ticket_wakes_the_first_waiter_with_a_ticket_of_its_own() -> None:
    pool = Pool(max_size=1)
    failing, first, second = pool.ask('a'), pool.ask('a'), pool.ask('a')
    pool.core.create_failed(failing.waiter, pool.now)
    assert (first.answer, first.notified) == ('ticket', 1)
    assert (second.answer, second.notified) == ('waits', 0)
    assert pool.core.size == 1


def test_a_failed_ticket_frees_a_slot_for_another_endpoint_at_the_total_cap() -> None:
    pool = Pool(max_size=1, total_max_size=1)
    failing, other = pool.ask('a'), pool.ask('b')
    assert other.answer == 'waits'
    pool.core.create_failed(failing.waiter, pool.now)
    assert (other.answer, other.notified) == ('ticket', 1)
    assert pool.core.endpoint_size('a') == 0


# -- release: handed to a waiter, kept idle, close it -----------------------------------------------------------------


def test_a_released_connection_is_handed_to_the_first_waiter() -> None:
    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    first, second = pool.ask('a'), pool.ask('a')
    pool.release(holder)
    assert (first.answer, first.conn.name, first.notified) == ('served', 'a1', 1)
    assert (second.answer, second.notified) == ('waits', 0)
    assert pool.notified == [first]
    assert pool.count('idle', 'acquired', 'waiting') == (0, 1, 1)
    assert pool.core.try_acquire('a', pool.now) is None, 'it is never idle on its way'


def test_a_released_connection_that_nobody_waits_for_is_kept_idle() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    pool.release(acquire)
    assert acquire.entry.state_name == 'idle'
    assert pool.core.doomed == 0
    assert pool.count('idle', 'acquired') == (1, 0)


def test_a_connection_released_to_a_closed_pool_is_to_be_closed() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    pool.core.close()
    pool.release(acquire)
    assert pool.dispose() == ['a1']
    assert pool.core.size == 0


def test_a_connection_whose_lifetime_ended_while_it_was_out_is_to_be_closed() -> None:
    pool = Pool(max_lifetime=100.0)
    acquire = pool.acquire('a')
    pool.now = 100.0
    pool.release(acquire)
    assert pool.dispose() == ['a1']


def test_a_connection_whose_lifetime_ends_in_a_moment_is_kept() -> None:
    pool = Pool(max_lifetime=100.0)
    acquire = pool.acquire('a')
    pool.now = 99.999
    pool.release(acquire)
    assert pool.core.doomed == 0
    assert pool.drain_idle('a') == ['a1']


def test_a_waiter_is_not_handed_a_connection_whose_lifetime_ended_but_its_slot() -> None:
    pool = Pool(max_size=1)
    holder, waiting = pool.acquire('a'), pool.ask('a')
    pool.now = 100.0
    pool.release(holder)
    assert waiting.answer == 'waits'
    assert pool.dispose() == ['a1']
    assert (waiting.answer, waiting.notified) == ('ticket', 1)


# -- doom_due(now, limit), and when to ask again ----------------------------------------------------------------------


def test_expired_dooms_what_is_due_and_next_due_says_when_to_ask_again() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    first, second, third = pool.acquire_all('a', 3)
    for acquire in (second, first, third):
        pool.release(acquire)
        pool.now += 1.0
    assert pool.core.next_due() == 10.0
    pool.now = 9.999
    assert pool.core.doom_due(pool.now, 5) == 0
    pool.now = 11.0
    assert pool.core.doom_due(pool.now, 5) == 2
    assert pool.dispose() == ['a2', 'a1'], 'in the order of their deadlines'
    assert pool.core.next_due() == 12.0
    assert third.entry.state_name == 'idle'
    assert pool.core.doom_due(pool.now, 5) == 0


def test_expired_dooms_no_more_than_its_limit() -> None:
    pool = Pool(min_idle=0, max_size=5)
    pool.fill('a', 5)
    pool.now = 50.0
    assert pool.core.doom_due(pool.now, 2) == 2
    assert pool.core.doomed == 2
    assert pool.core.doom_due(pool.now, 2) == 2
    assert pool.core.doom_due(pool.now, 2) == 1


@pytest.mark.parametrize(('size', 'most'), [(1, 2), (2, 2), (3, 3), (6, 3), (7, 4), (14, 4), (15, 5), (30, 5), (31, 6)])
def test_a_limit_of_zero_means_the_logarithm_of_the_size(size: int, most: int) -> None:
    pool = Pool(min_idle=0, max_size=size)
    pool.fill('a', size)
    pool.now = 50.0
    assert pool.core.doom_due(pool.now, 0) == min(size, most)


def test_next_due_is_none_when_nothing_is_idle() -> None:
    pool = Pool()
    assert pool.core.next_due() is None
    acquire = pool.acquire('a')
    assert pool.core.next_due() is None
    pool.release(acquire)
    assert pool.core.next_due() == 100.0
    pool.kept.append(pool.acquire('a'))
    assert pool.core.next_due() is None


# -- cancel: gone, or it had been served already ----------------------------------------------------------------------


def test_a_cancelled_waiter_is_gone_and_nobody_hands_it_anything() -> None:
    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    first, second, third = (pool.ask('a') for _ in range(3))
    assert pool.cancel(second) is True
    assert second.answer == 'nothing'
    assert pool.count('waiting') == (2,)
    pool.release(holder)
    pool.release(first)
    assert (second.answer, second.notified) == ('nothing', 0)
    assert third.answer == 'served'


def test_a_cancelled_waiter_that_was_served_passes_the_connection_on() -> None:
    pool = Pool(max_size=1)
    holder, first, second = pool.acquire('a'), pool.ask('a'), pool.ask('a')
    pool.release(holder)
    assert first.answer == 'served'
    assert pool.cancel(first) is False, 'it was notified: it was not waiting any more'
    assert first.answer == 'nothing'
    assert (second.answer, second.conn.name, second.notified) == ('served', 'a1', 1)


def test_a_cancelled_waiter_that_was_served_gives_back_what_nobody_waits_for() -> None:
    pool = Pool(max_size=1)
    holder, waiting = pool.acquire('a'), pool.ask('a')
    pool.release(holder)
    assert pool.cancel(waiting) is False
    assert pool.count('idle', 'acquired') == (1, 0)
    assert pool.drain_idle('a') == ['a1']


def test_a_cancelled_waiter_that_was_served_a_ticket_passes_the_slot_on() -> None:
    pool = Pool(max_size=1)
    holder, first, second = pool.ask('a'), pool.ask('a'), pool.ask('a')
    pool.core.create_failed(holder.waiter, pool.now)
    assert first.answer == 'ticket'
    assert pool.cancel(first) is False
    assert (second.answer, second.notified) == ('ticket', 1)
    assert pool.core.size == 1


def test_cancelling_twice_does_nothing_more() -> None:
    pool = Pool(max_size=1)
    holder, waiting = pool.acquire('a'), pool.ask('a')
    assert pool.cancel(waiting) is True
    assert pool.cancel(waiting) is False
    assert pool.cancel(holder) is False
    assert pool.cancel(holder) is False
    assert pool.count('idle', 'acquired', 'waiting') == (1, 0, 0)


def test_a_waiter_that_asked_for_nothing_can_be_cancelled() -> None:
    pool = Pool()
    assert pool.core.cancel(Waiter('a'), pool.now) is False
    pool.core.check_invariants()


def test_a_waiter_whose_time_is_over_is_gone_unless_it_was_served_in_this_moment() -> None:
    pool = Pool(max_size=1)
    holder, first, second = pool.acquire('a'), pool.ask('a'), pool.ask('a')
    pool.release(holder)
    assert pool.core.give_up(first.waiter) is False
    assert first.answer == 'served'
    assert pool.core.give_up(second.waiter) is True
    assert second.answer == 'nothing'
    assert pool.count('timeouts', 'waiting') == (1, 0)
    pool.release(first)
    assert second.notified == 0


def test_a_waiter_that_was_refused_does_not_time_out() -> None:
    pool = Pool(max_size=1)
    pool.kept.append(pool.acquire('a'))
    waiting = pool.ask('a')
    pool.core.close()
    assert pool.core.give_up(waiting.waiter) is False
    assert waiting.answer == 'refused'
    assert pool.count('timeouts') == (0,)


# -- what was served is dead ------------------------------------------------------------------------------------------


def test_a_dead_connection_is_disposed_of_and_the_next_idle_one_served() -> None:
    pool = Pool(min_idle=2)
    pool.fill('a', 2)
    acquire = pool.ask('a')
    assert acquire.conn.name == 'a1'
    pool.core.reject_dead(acquire.waiter)
    pool.core.check_invariants()
    assert acquire.answer == 'nothing'
    dead_entry = acquire.waiter.dead_entry
    assert dead_entry is not None
    assert dead_entry.state_name == 'closing'
    pool.ask_again(acquire)
    assert (acquire.answer, acquire.conn.name) == ('served', 'a2')
    assert acquire.waiter.dead_entry is None
    assert pool.core.take_doomed_for_worker() is dead_entry
    pool.core.disposed(dead_entry, pool.now)
    assert pool.count('size', 'dead', 'disposed') == (1, 1, 1)


def test_the_slot_of_a_dead_connection_goes_to_the_acquire_that_found_it_before_all_that_wait() -> None:
    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    first, second = pool.ask('a'), pool.ask('a')
    pool.release(holder)
    third = pool.ask('a')
    pool.core.reject_dead(first.waiter)
    pool.ask_again(first)
    assert first.answer == 'waits'
    dead_entry = pool.core.take_doomed_for_worker()
    assert dead_entry is not None
    pool.core.disposed(dead_entry, pool.now)
    assert (first.answer, second.answer, third.answer) == ('ticket', 'waits', 'waits')
    pool.connect(first)
    pool.release(first)
    pool.release(second)
    assert names(second, third) == ['a2', 'a2']


def test_a_cancelled_acquire_leaves_its_dead_connection_to_be_closed() -> None:
    pool = Pool(max_size=1)
    acquire = pool.acquire('a')
    pool.core.reject_dead(acquire.waiter)
    assert pool.cancel(acquire) is False
    assert acquire.waiter.dead_entry is None
    assert pool.dispose() == ['a1']
    assert pool.core.size == 0


def test_a_cancelled_acquire_that_waits_again_leaves_its_dead_connection_to_be_closed() -> None:
    pool = Pool(max_size=1)
    acquire = pool.acquire('a')
    pool.core.reject_dead(acquire.waiter)
    pool.ask_again(acquire)
    assert acquire.answer == 'waits'
    assert pool.cancel(acquire) is True
    assert pool.dispose() == ['a1']
    assert pool.count('size', 'endpoints') == (0, 0)


def test_a_connection_found_dead_cannot_be_given_back() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    conn = acquire.conn
    pool.core.reject_dead(acquire.waiter)
    with pytest.raises(ConnectionNotAcquired, match='closing'):
        pool.core.find_acquired(conn, 'a')
    pool.core.check_invariants()
