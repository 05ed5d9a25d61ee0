"""Connections that the pool itself creates: in the background, up to a minimum, for pinned endpoints."""

import pytest

from gcpool._core import Waiter
from tests.simulation.forking import CAN_BEGIN_ANEW, begin_anew

from .support import Acquire, Pool, names


def background(max_connecting: int = 2, max_size: int = 3, total_max_size: int = 100) -> Pool:
    return Pool(
        creates_in_background=True, max_connecting=max_connecting, max_size=max_size, total_max_size=total_max_size
    )


def test_a_waiter_gets_the_connection_that_a_worker_creates() -> None:
    pool = background()
    asker = pool.ask('a')
    assert asker.answer == 'waits'
    assert pool.worker_calls == 1
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    assert names(asker) == ['a1']
    assert pool.notified == [asker]


def test_no_more_is_created_than_there_are_waiters_for() -> None:
    pool = background(max_connecting=5, max_size=10)
    askers = [pool.ask('a') for _ in range(3)]
    assert len(pool.take_creates()) == 3
    assert pool.cancel(askers[0])
    pool.ask('a')
    assert pool.take_creates() == []


def test_max_connecting_limits_the_creates_of_each_endpoint() -> None:
    pool = background(max_size=10)
    for endpoint in 'ab':
        for _ in range(5):
            pool.kept.append(pool.ask(endpoint))
    tickets = pool.take_creates()
    assert [ticket.endpoint for ticket in tickets] == ['a', 'b', 'a', 'b']
    pool.grow(tickets[0])
    assert [ticket.endpoint for ticket in pool.take_creates()] == ['a']


def test_a_connection_that_comes_back_is_faster_than_the_create() -> None:
    pool = background()
    first = pool.ask('a')
    pool.grow(*pool.take_creates())
    waits, behind = pool.ask('a'), pool.ask('a')
    tickets = pool.take_creates()
    assert len(tickets) == 2
    pool.release(first)
    assert names(waits) == ['a1']
    pool.grow(tickets[0])
    assert names(behind) == ['a2']
    pool.grow(tickets[1])
    assert pool.count('size', 'idle', 'acquired') == (3, 1, 2)


def test_a_create_for_nobody_is_not_begun() -> None:
    pool = background()
    asker = pool.ask('a')
    assert pool.cancel(asker)
    assert pool.take_creates() == []
    assert pool.count('size', 'endpoints') == (0, 0)


def test_the_create_of_an_asker_that_gave_up_goes_to_the_next_one() -> None:
    pool = background(max_connecting=1)
    first, second = pool.ask('a'), pool.ask('a')
    (ticket,) = pool.take_creates()
    assert pool.cancel(first)
    pool.grow(ticket)
    assert names(second) == ['a1']


def test_a_failure_reaches_its_asker() -> None:
    pool = background()
    first, second = pool.ask('a'), pool.ask('a')
    of_first, of_second = pool.take_creates()
    error = OSError('refused')
    pool.grow_failed(of_second, error)
    assert (second.waiter.failed, second.waiter.error) == (True, error)
    assert first.answer == 'waits'
    pool.grow(of_first)
    assert names(first) == ['a1']
    pool.cancel(second)
    assert pool.count('size', 'create_errors') == (1, 1)


def test_a_failure_for_an_asker_that_is_gone_reaches_the_oldest_one_without_a_create() -> None:
    pool = background(max_connecting=1)
    first, second, third = (pool.ask('a') for _ in range(3))
    (ticket,) = pool.take_creates()
    pool.cancel(first)
    error = OSError('refused')
    pool.grow_failed(ticket, error)
    assert second.waiter.error is error
    assert third.answer == 'waits'
    assert len(pool.take_creates()) == 1


def test_a_failure_for_nobody_is_counted() -> None:
    pool = background()
    asker = pool.ask('a')
    (ticket,) = pool.take_creates()
    pool.cancel(asker)
    pool.grow_failed(ticket, OSError())
    assert pool.count('size', 'waiting', 'create_errors', 'endpoints') == (0, 0, 1, 0)


def test_without_workers_the_waiters_connect_themselves() -> None:
    pool = background()
    pool.has_workers = False
    asker = pool.ask('a')
    assert asker.answer == 'ticket'
    assert pool.core.lacks_workers
    pool.connect(asker)
    assert pool.take_creates() == []


def test_a_slot_that_was_reserved_is_not_used_if_the_creates_under_way_are_enough() -> None:
    pool = background()
    first, second = pool.ask('a'), pool.ask('a')
    ticket = pool.core.take_create(pool.now)
    assert ticket is not None
    pool.cancel(first)
    assert pool.take_creates() == []
    pool.grow(ticket)
    assert names(second) == ['a1']
    assert pool.count('size') == (1,)


def test_a_slot_that_was_reserved_is_not_used_beyond_a_lowered_limit() -> None:
    pool = background(max_connecting=3)
    for _ in range(3):
        pool.kept.append(pool.ask('a'))
    pool.core.resize(pool.now, max_size=1)
    assert len(pool.take_creates()) == 1


def test_if_workers_cannot_be_called_twice_the_waiters_connect_themselves() -> None:
    pool = background()

    def interrupt() -> bool:
        raise KeyboardInterrupt

    pool.core.set_workers(interrupt)
    waiter = Waiter('a')
    waiter.arm(lambda: None)
    with pytest.raises(KeyboardInterrupt):
        pool.core.request(waiter, pool.now)
    assert waiter.has_ticket
    pool.core.cancel(waiter, pool.now)
    assert pool.count('size') == (0,)


def test_a_slot_for_a_minimum_that_nobody_creates_goes_to_a_waiter_of_another_endpoint() -> None:
    pool = Pool(min_size=2, max_size=2, total_max_size=2)
    pool.acquire('a')
    other = pool.ask('b')
    assert other.answer == 'waits'
    pool.has_workers = False
    pool.core.ask_workers()
    pool.core.check_invariants()
    assert other.answer == 'ticket'


def test_what_was_created_for_a_waiter_is_not_closed_for_those_who_wait_longer_elsewhere() -> None:
    pool = background(max_size=1, total_max_size=1)
    askers = [pool.ask('a'), pool.ask('b')]
    for asker in askers:
        pool.now += 30.0
        for ticket in pool.take_creates():
            pool.grow(ticket)
        assert asker.answer == 'served'
        pool.release(asker)
        pool.dispose()
    assert pool.count('created') == (2,)


def test_a_connection_that_was_drained_while_it_was_created_is_closed_in_place_of_an_idle_one() -> None:
    """Its slot is for the waiter that it was created for, so that nothing else has to be closed for that."""
    pool = background(total_max_size=2)
    asker = pool.ask('b')
    pool.grow(*pool.take_creates())
    pool.release(asker)
    waits = pool.ask('a')
    (ticket,) = pool.take_creates()
    pool.core.drain('a', pool.now)
    pool.grow(ticket)
    assert pool.dispose() == ['a1']
    pool.grow(*pool.take_creates())
    assert names(waits) == ['a2']


@pytest.mark.parametrize('reconnect_timeout', [0.0, 60.0])
def test_what_could_not_be_entered_in_the_books_is_closed_in_place_of_an_idle_one(reconnect_timeout: float) -> None:
    def unlucky() -> float:
        if draws:
            raise OSError(draws.pop())
        return 0.0

    draws: list[str] = []
    pool = Pool(
        creates_in_background=True,
        max_size=3,
        total_max_size=2,
        lifetime_jitter=0.5,
        random=unlucky,
        reconnect_timeout=reconnect_timeout,
    )
    asker = pool.ask('b')
    pool.grow(*pool.take_creates())
    pool.release(asker)
    waits = pool.ask('a')
    (ticket,) = pool.take_creates()
    draws.append('unlucky')
    with pytest.raises(OSError, match='unlucky'):
        pool.grow(ticket)
    pool.core.grow_cancelled(ticket, pool.now)
    assert pool.dispose() == ['a1']
    pool.grow(*pool.take_creates())
    assert names(waits) == ['a2']


def test_a_minimum_is_filled_later_if_no_worker_could_be_had() -> None:
    pool = Pool()
    pool.has_workers = False
    pool.core.pin('a', 1, pool.now)
    assert pool.count('size') == (0,)
    pool.has_workers = True
    assert pool.core.next_timer() == 0.2
    pool.now = 0.2
    pool.run_timers()
    pool.grow(*pool.take_creates())
    assert pool.count('idle') == (1,)
    assert pool.core.next_timer() == float('inf')


def test_a_create_counts_for_the_total_limit() -> None:
    pool = background(total_max_size=2, max_size=2)
    for endpoint in 'abc':
        pool.kept.append(pool.ask(endpoint))
    tickets = pool.take_creates()
    assert [ticket.endpoint for ticket in tickets] == ['a', 'b']
    pool.grow(tickets[0])
    pool.release(pool.kept[0])
    assert pool.dispose() == ['a1']
    assert [ticket.endpoint for ticket in pool.take_creates()] == ['c']


def test_no_slot_is_reserved_for_a_waiter_that_a_close_has_not_come_to_yet() -> None:
    """Nobody would connect for it, and close() waits until no slot is taken."""
    pool = background(max_size=1, total_max_size=1)
    asker = pool.ask('a')
    pool.grow(*pool.take_creates())

    def detach(_: object) -> None:
        if asker.entry.state_name == 'acquired':
            pool.core.detach(asker.entry, pool.now)

    waiting = [Acquire(pool.core, endpoint, detach) for endpoint in 'ab']
    for acquire in waiting:
        pool.ask_again(acquire)
    pool.core.close()
    assert [acquire.answer for acquire in waiting] == ['refused', 'refused']
    assert pool.core.reserved == 0
    assert pool.count('size') == (0,)


def test_closing_the_pool_frees_what_is_reserved_and_closes_what_arrives_late() -> None:
    pool = background()
    askers = [pool.ask('a'), pool.ask('b')]
    begun = pool.core.take_create(pool.now)
    assert begun is not None
    pool.core.close()
    pool.core.check_invariants()
    assert [asker.answer for asker in askers] == ['refused', 'refused']
    assert pool.count('size') == (1,)
    assert pool.take_creates() == []
    conn = pool.grow(begun)
    assert pool.dispose() == [conn.name]
    assert pool.count('size', 'endpoints') == (0, 0)


def test_a_closed_pool_fills_no_minimum() -> None:
    pool = Pool(min_size=2, max_size=2, total_max_size=3)
    held = pool.acquire('b')
    pool.acquire('a')
    assert [ticket.endpoint for ticket in pool.take_creates()] == ['b']
    pool.core.close()
    pool.release(held)
    assert pool.dispose() == ['b1']
    assert pool.take_creates() == []


def test_a_cancelled_create_frees_its_slot_and_is_begun_again_for_its_waiter() -> None:
    pool = background()
    asker = pool.ask('a')
    (ticket,) = pool.take_creates()
    pool.core.grow_cancelled(ticket, pool.now)
    pool.core.check_invariants()
    (again,) = pool.take_creates()
    pool.grow(again)
    assert names(asker) == ['a1']


# -- min_size --------------------------------------------------------------------------------------------------------


def test_a_used_endpoint_is_filled_up_to_its_minimum_two_at_a_time() -> None:
    pool = Pool(min_size=4, max_size=5)
    pool.acquire('a')
    tickets = pool.take_creates()
    assert len(tickets) == 2
    pool.grow(tickets[0])
    pool.grow(tickets[1])
    (last,) = pool.take_creates()
    pool.grow(last)
    assert pool.take_creates() == []
    assert pool.count('size', 'idle') == (4, 3)


def test_a_waiter_of_another_endpoint_comes_before_the_minimum() -> None:
    pool = Pool(min_size=2, max_size=2, total_max_size=2)
    pool.acquire('a')
    assert len(pool.take_creates()) == 1
    other = pool.ask('b')
    assert other.answer == 'waits'


def test_what_is_lost_is_replaced_when_its_slot_is_free() -> None:
    pool = Pool(min_size=2, max_size=2)
    pool.acquire('a')
    pool.grow(*pool.take_creates())
    pool.now = 100.0
    assert pool.core.doom_due(pool.now, 10) == 1
    assert pool.take_creates() == []
    assert pool.dispose() == ['a2']
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    assert pool.count('size', 'idle') == (2, 1)


def test_the_only_connection_of_a_used_endpoint_is_replaced() -> None:
    pool = Pool(min_size=1)
    held = pool.acquire('a')
    pool.core.retire(held.entry, pool.now)
    pool.core.disposed(held.entry, pool.now)
    pool.core.check_invariants()
    pool.grow(*pool.take_creates())
    assert pool.count('size', 'idle') == (1, 1)


@pytest.mark.parametrize('how', ['broken', 'too old'])
def test_what_is_lost_after_a_long_use_is_replaced(how: str) -> None:
    pool = Pool(min_size=1, idle_timeout=10.0, max_lifetime=100.0)
    held = pool.acquire('a')
    if how == 'broken':
        pool.now = 50.0
        pool.core.retire(held.entry, pool.now)
        pool.core.disposed(held.entry, pool.now)
    else:
        pool.now = 100.0
        pool.release(held)
        pool.dispose()
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    # As if it was returned when the use ended: the endpoint is not live for longer because of it.
    pool.now += 10.0
    assert pool.expire() == ['a2']


def test_an_endpoint_is_not_used_because_a_connection_to_it_was_created_and_closed() -> None:
    pool = Pool(min_size=2, idle_timeout=10.0, max_size=2)
    pool.release(pool.acquire('a'))
    (ticket,) = pool.take_creates()
    pool.core.drain('a', pool.now)
    pool.now = 9.0
    pool.grow(ticket)
    assert sorted(pool.dispose()) == ['a1', 'a2']
    tickets = pool.take_creates()
    assert len(tickets) == 2
    for ticket in tickets:
        pool.grow(ticket)
    pool.now = 10.0
    assert sorted(pool.expire()) == ['a3', 'a4']


def test_an_endpoint_out_of_use_shrinks_to_nothing() -> None:
    pool = Pool(min_size=3)
    first = pool.acquire('a')
    for ticket in pool.take_creates():
        pool.grow(ticket)
    pool.now = 5.0
    pool.release(first)
    pool.now = 14.9
    assert pool.expire() == []
    pool.now = 15.0
    assert pool.expire() == ['a2', 'a3', 'a1']
    assert pool.take_creates() == []
    assert pool.count('size', 'endpoints') == (0, 0)


def test_while_one_connection_is_in_use_the_others_are_kept() -> None:
    pool = Pool(min_size=2)
    pool.acquire('a')
    pool.grow(*pool.take_creates())
    for second in range(0, 99, 7):
        pool.now = float(second)
        assert pool.expire() == []
    pool.now = 100.0
    assert pool.expire() == ['a2']


def test_an_endpoint_is_live_since_its_last_use_though_another_connection_was_returned_last() -> None:
    pool = Pool(min_size=2, max_size=2)
    first = pool.acquire('a')
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    second = pool.acquire('a')
    waiting = pool.ask('a')
    pool.now = 1.0
    pool.release(first)
    assert waiting.answer == 'served'
    pool.now = 5.0
    pool.release(second)
    # The first one was used until 1, and is returned now: it is the last of those that are idle.
    assert pool.core.leave_check_to_pool(waiting.waiter, pool.now)
    entry = pool.core.take_check()
    assert entry is not None
    pool.core.end_check_by_pool(entry, True, pool.now)
    assert pool.count('idle') == (2,)
    pool.cancel(waiting)
    pool.now = 14.0
    assert pool.expire() == []
    pool.now = 15.0
    assert sorted(pool.expire()) == ['a1', 'a2']


def test_a_short_lifetime_does_not_keep_an_unused_endpoint() -> None:
    pool = Pool(min_size=2, idle_timeout=10.0, max_lifetime=4.0)
    pool.release(pool.acquire('a'))
    pool.grow(*pool.take_creates())
    for _ in range(40):
        pool.now += 1.0
        pool.expire()
        for ticket in pool.take_creates():
            pool.grow(ticket)
    assert pool.count('size', 'endpoints') == (0, 0)


def test_100_000_endpoints_seen_once_do_not_stay_with_min_size() -> None:
    pool = Pool(min_size=1, total_max_size=100_000)
    # Without a look at all invariants after each of them.
    for endpoint in range(100_000):
        acquire = Acquire(pool.core, endpoint, pool.notified.append)
        pool.core.request(acquire.waiter, pool.now)
        pool.core.created(acquire.entry, object(), pool.now)
        pool.core.release(acquire.entry, pool.now)
    assert pool.count('size', 'endpoints') == (100_000, 100_000)
    pool.now = 10.0
    pool.core.doom_due(pool.now, 100_000)
    assert pool.count('size', 'closing') == (100_000, 100_000)
    while (entry := pool.core.take_doomed()) is not None:
        pool.core.disposed(entry, pool.now)
    pool.core.check_invariants()
    assert pool.count('size', 'endpoints') == (0, 0)
    assert pool.take_creates() == []


def test_a_raised_minimum_is_filled() -> None:
    pool = Pool(min_size=1, max_size=3)
    pool.acquire('a')
    pool.core.resize(pool.now, min_size=3)
    pool.core.check_invariants()
    assert len(pool.take_creates()) == 2


# -- pinned endpoints ------------------------------------------------------------------------------------------------


def test_a_pinned_endpoint_is_filled_and_kept() -> None:
    pool = Pool()
    pool.core.pin('a', 2, pool.now)
    pool.core.check_invariants()
    for ticket in pool.take_creates():
        pool.grow(ticket)
    assert pool.count('size', 'idle') == (2, 2)
    pool.now = 99.0
    assert pool.expire() == []
    pool.now = 100.0
    assert pool.expire() == ['a1', 'a2']
    assert len(pool.take_creates()) == 2


def test_an_unpinned_endpoint_is_forgotten() -> None:
    pool = Pool()
    pool.core.pin('a', 1, pool.now)
    (ticket,) = pool.take_creates()
    pool.grow_failed(ticket, OSError())
    assert pool.count('size', 'endpoints') == (0, 1)
    pool.core.pin('a', 0, pool.now)
    pool.now = 20.0
    pool.run_timers()
    pool.now = 60.0
    pool.run_timers()
    assert pool.count('size', 'endpoints') == (0, 0)
    assert pool.core.next_timer() == float('inf')


def test_an_endpoint_without_connections_is_known_however_it_is_spelled() -> None:
    pool = Pool()
    error = OSError('refused')
    one, another = ('a', 1), ('a', int('1'))
    assert one is not another
    pool.core.pin(one, 1, pool.now)
    (ticket,) = pool.take_creates()
    pool.grow_failed(ticket, error)
    assert pool.core.endpoint_stats(another)['endpoints'] == 1
    assert pool.core.last_connect_error(another, pool.now) is error
    pool.core.pin(another, 0, pool.now)
    pool.now = 1.0
    pool.run_timers()
    assert pool.take_creates() == []


def test_idle_connections_expire_when_their_endpoint_is_unpinned() -> None:
    pool = Pool(min_idle=0)
    pool.core.pin('a', 3, pool.now)
    tickets = pool.take_creates()
    pool.grow(tickets[0])
    pool.grow(tickets[1])
    pool.grow(*pool.take_creates())
    held = pool.acquire('a')
    pool.core.pin('a', 0, pool.now)
    pool.core.check_invariants()
    pool.now = 1.0
    pool.release(held)
    pool.now = 10.0
    assert sorted(pool.expire()) == ['a2', 'a3']
    pool.now = 11.0
    assert pool.expire() == ['a1']
    assert pool.count('endpoints') == (0,)


def test_the_collector_is_called_when_an_endpoint_is_unpinned() -> None:
    calls: list[int] = []
    pool = Pool(min_idle=0, collects=True, wake_collector=lambda: calls.append(1), max_lifetime=float('inf'))
    pool.core.pin('a', 1, pool.now)
    pool.grow(*pool.take_creates())
    assert pool.core.next_due() is None
    del calls[:]
    pool.core.pin('a', 0, pool.now)
    assert calls == [1]


def test_what_is_returned_after_its_endpoint_was_unpinned_expires_while_others_are_in_use() -> None:
    pool = Pool(min_size=2, min_idle=0, max_size=3)
    first = pool.acquire('a')
    pool.core.pin('a', 3, pool.now)
    for _ in range(2):
        for ticket in pool.take_creates():
            pool.grow(ticket)
    second = pool.acquire('a')
    pool.core.pin('a', 0, pool.now)
    pool.now = 1.0
    pool.release(second)
    pool.core.check_invariants()
    due = pool.core.next_due()
    assert due is not None
    assert due <= 11.0
    pool.release(first)


def test_who_waits_for_a_pinned_endpoint_is_told_when_the_limit_is_lowered_to_what_it_has() -> None:
    pool = Pool(max_size=3)
    pool.core.pin('a', 3, pool.now)
    tickets = pool.take_creates()
    pool.grow(tickets[0])
    notified: list[int] = []
    watcher = Waiter(None)
    watcher.arm(lambda: notified.append(1))
    assert pool.core.watch_filled(watcher)
    pool.core.resize(pool.now, max_size=1)
    pool.dispose()
    assert pool.take_creates() == []
    assert notified == []
    pool.grow(tickets[1])
    assert notified == [1]


@pytest.mark.skipif(not CAN_BEGIN_ANEW, reason='no process shares the memory of another one there')
def test_a_forked_child_pins_all_endpoints_though_a_signal_handler_raises() -> None:
    pool = Pool(min_idle=0)
    for endpoint in 'ab':
        pool.core.pin(endpoint, 1, pool.now)
    begin_anew(pool.core)
    calls: list[int] = []

    def interrupt_once() -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return True

    pool.core.set_workers(interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        pool.core.request(Waiter('c'), pool.now)
    assert sorted(ticket.endpoint for ticket in pool.take_creates()) == ['a', 'b']


def test_the_connections_of_an_unpinned_endpoint_are_due_after_their_idle_time() -> None:
    called: list[float] = []
    pool = Pool(min_size=1, wake_collector=lambda: called.append(pool.now))
    pool.core.pin('a', 2, pool.now)
    for ticket in pool.take_creates():
        pool.grow(ticket)
    assert pool.core.next_due() == 100.0
    called.clear()
    pool.core.pin('a', 0, pool.now)
    assert called == [0.0]
    pool.now = 10.0
    assert sorted(pool.expire()) == ['a1', 'a2']
    pool.run_timers()
    assert pool.count('size', 'endpoints') == (0, 0)


def test_a_release_to_a_pinned_endpoint_does_not_change_what_is_due() -> None:
    called: list[float] = []
    pool = Pool(min_size=1, wake_collector=lambda: called.append(pool.now))
    pool.core.pin('a', 2, pool.now)
    for ticket in pool.take_creates():
        pool.grow(ticket)
    called.clear()
    for pool.now in (1.0, 20.0, 21.0):
        pool.core.release(pool.acquire('a').entry, pool.now)
        pool.core.check_invariants()
        assert pool.core.next_due() == 100.0
    assert called == []
    pool.core.pin('a', 0, pool.now)
    pool.now = 32.0
    assert sorted(pool.expire()) == ['a1', 'a2']


def test_several_may_wait_until_all_are_filled() -> None:
    pool = Pool()
    pool.core.pin('a', 1, pool.now)
    pool.core.pin('b', 2, pool.now)
    notified = []
    watchers = [Waiter(None) for _ in range(3)]
    for watcher in watchers:
        watcher.arm(lambda: notified.append(1))
        assert pool.core.watch_filled(watcher)
    assert sorted(pool.core.unfilled_endpoints()) == [('a', 0, 1), ('b', 0, 2)]
    tickets = pool.take_creates()
    for ticket in tickets[:-1]:
        pool.grow(ticket)
    assert notified == []
    pool.grow(tickets[-1])
    assert notified == [1, 1, 1]
    assert not pool.core.watch_filled(Waiter(None))


def test_what_was_filled_once_is_not_waited_for_again() -> None:
    pool = Pool()
    pool.core.pin('a', 1, pool.now)
    pool.grow(*pool.take_creates())
    pool.now = 100.0
    pool.expire()
    assert not pool.core.watch_filled(Waiter(None))


def test_a_watcher_may_give_up_and_is_woken_by_a_close() -> None:
    pool = Pool()
    pool.core.pin('a', 1, pool.now)
    notified = []
    gives_up, stays = Waiter(None), Waiter(None)
    stays.arm(lambda: notified.append('stays'))
    assert pool.core.watch_filled(gives_up)
    assert pool.core.watch_filled(stays)
    assert pool.core.unwatch(gives_up)
    pool.core.close()
    assert notified == ['stays']
    assert not pool.core.watch_filled(Waiter(None))


@pytest.mark.parametrize('size', [1, 3])
def test_a_pin_is_no_more_than_max_size(size: int) -> None:
    pool = Pool(max_size=size)
    pool.core.pin('a', 5, pool.now)
    tickets = pool.take_creates()
    while tickets:
        pool.grow(tickets.pop())
        tickets += pool.take_creates()
    assert pool.count('size') == (size,)


def test_a_minimum_may_be_set_later() -> None:
    pool = Pool()
    pool.acquire('a')
    pool.core.resize(pool.now, min_size=2)
    pool.core.check_invariants()
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    pool.acquire('b')
    assert [ticket.endpoint for ticket in pool.take_creates()] == ['b']


def test_a_minimum_that_is_set_later_is_filled_where_the_only_connection_is_being_checked() -> None:
    pool = Pool()
    pool.fill('a', 1)
    (held,) = pool.acquire_all('a', 1)
    entry = held.entry
    pool.release(held)
    assert pool.core.begin_check_of_idle(entry)
    pool.core.resize(pool.now, min_size=2)
    pool.core.check_invariants()
    pool.grow(*pool.take_creates())
    assert not pool.core.end_check_by_pool(entry, True, pool.now)
    assert pool.count('idle') == (2,)


def test_a_connection_under_check_when_its_endpoint_is_pinned_counts_as_used_then() -> None:
    pool = Pool(min_idle=0)
    pool.fill('a', 1)
    (held,) = pool.acquire_all('a', 1)
    entry = held.entry
    pool.release(held)
    assert pool.core.begin_check_of_idle(entry)
    pool.now = 5.0
    pool.core.pin('a', 1, pool.now)
    pool.core.check_invariants()
    pool.now = 6.0
    assert pool.core.end_check_by_pool(entry, False, pool.now)
    assert pool.dispose() == ['a1']
    pool.now = 7.0
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    # The new one counts as used at 5.
    pool.core.pin('a', 0, pool.now)
    pool.now = 14.0
    assert pool.expire() == []
    pool.now = 15.0
    assert pool.expire() == ['a2']


def test_a_minimum_that_is_set_later_keeps_the_time_of_the_last_use() -> None:
    pool = Pool(max_size=2)
    first, second = pool.acquire_all('a', 2)
    waiting = pool.ask('a')
    pool.now = 1.0
    pool.release(first)
    pool.now = 5.0
    pool.release(second)
    assert pool.core.leave_check_to_pool(waiting.waiter, pool.now)
    entry = pool.core.take_check()
    assert entry is not None
    pool.core.end_check_by_pool(entry, True, pool.now)
    pool.cancel(waiting)
    pool.core.resize(pool.now, min_size=2)
    pool.core.check_invariants()
    pool.now = 14.0
    assert pool.expire() == []
    pool.now = 15.0
    assert sorted(pool.expire()) == ['a1', 'a2']
