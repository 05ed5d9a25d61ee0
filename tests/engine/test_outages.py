"""An endpoint that cannot be connected to: one attempt at a time, pauses, refusals, and failing at once."""

import pytest

from gcpool._core import MAY_ASK_AGAIN, OUTAGE_BEGAN, REACHED_WAITER, RECONNECT_FAILED

from .support import Acquire, Pool, names

ERROR = OSError('connection refused')


def reconnecting(reconnect_timeout: float = 60.0) -> Pool:
    return Pool(reconnect_timeout=reconnect_timeout)


def fail(pool: Pool, acquire: Acquire, *, is_refusal: bool = False) -> int:
    """The connect of an acquire fails, and it asks again if it may."""
    news = pool.core.connect_failed(acquire.waiter, ERROR, is_refusal, True, pool.now)
    pool.core.check_invariants()
    if news & MAY_ASK_AGAIN:
        pool.ask_again(acquire)
    return news


def test_an_acquire_waits_while_the_pool_tries_again() -> None:
    pool = reconnecting()
    asker = pool.ask('a')
    assert fail(pool, asker) == OUTAGE_BEGAN | MAY_ASK_AGAIN
    assert asker.answer == 'waits'
    assert pool.take_creates() == []
    assert pool.core.next_timer() == pytest.approx(0.010)
    pool.now = pool.core.next_timer()
    pool.run_timers()
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    assert names(asker) == ['a1']
    assert pool.core.ended_outage(asker.entry) == pytest.approx(0.010)
    assert pool.core.ended_outage(asker.entry) is None


def test_there_is_one_attempt_at_a_time() -> None:
    pool = reconnecting()
    askers = [pool.ask('a') for _ in range(3)]
    for asker in askers:
        fail(pool, asker)
    assert [asker.answer for asker in askers] == ['waits'] * 3
    pauses = []
    for _ in range(12):
        due = pool.core.next_timer()
        pauses.append(round(due - pool.now, 6))
        pool.now = due
        pool.run_timers()
        (ticket,) = pool.take_creates()
        pool.run_timers()
        assert pool.take_creates() == []
        pool.grow_failed(ticket, ERROR)
    assert pauses == [0.01] * 4 + [0.02, 0.04, 0.08] + [0.1] * 5


def test_an_acquire_that_is_turned_away_when_a_pause_is_over_keeps_nobody_waiting() -> None:
    pool = Pool(reconnect_timeout=60.0, max_waiting=1)
    asker = pool.ask('a')
    fail(pool, asker)
    pool.now = 0.020
    # Before anybody has run the timers.
    assert pool.ask('a').answer == 'turned away'
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    assert asker.answer == 'served'


def test_slots_that_were_reserved_before_the_outage_are_no_further_attempts() -> None:
    pool = Pool(reconnect_timeout=60.0, creates_in_background=True, max_connecting=3)
    askers = [pool.ask('a') for _ in range(3)]
    ticket = pool.core.take_create(pool.now)
    assert ticket is not None
    pool.grow_failed(ticket, ERROR)
    assert pool.take_creates() == []
    pool.now = pool.core.next_timer()
    pool.run_timers()
    (attempt,) = pool.take_creates()
    pool.grow(attempt)
    assert [asker.answer for asker in askers] == ['served', 'waits', 'waits']
    assert len(pool.take_creates()) == 2


def test_an_endpoint_that_was_unpinned_during_an_attempt_can_be_pinned_again() -> None:
    pool = Pool()
    pool.core.pin('a', 1, pool.now)
    (first,) = pool.take_creates()
    pool.grow_failed(first, ERROR)
    pool.now = 1.0
    pool.run_timers()
    (attempt,) = pool.take_creates()
    pool.core.pin('a', 0, pool.now)
    pool.grow_failed(attempt, ERROR)
    pool.core.pin('a', 1, pool.now)
    pool.now = 20.0
    pool.run_timers()
    pool.grow(*pool.take_creates())
    assert pool.count('idle') == (1,)


def test_only_the_pools_own_connects_tell_that_an_outage_lasts() -> None:
    pool = reconnecting(reconnect_timeout=0.5)
    asker = pool.ask('a')
    fail(pool, asker)
    pool.has_workers = False
    pool.now = 0.6
    pool.run_timers()
    pool.core.ask_workers()
    assert asker.answer == 'ticket'
    pool.has_workers = True
    assert fail(pool, asker) == MAY_ASK_AGAIN
    pool.now = 2.0
    pool.run_timers()
    (attempt,) = pool.take_creates()
    assert pool.grow_failed(attempt, ERROR) == RECONNECT_FAILED


def test_nobody_waits_the_pauses_double_up_to_five_seconds() -> None:
    pool = reconnecting()
    pool.core.pin('a', 1, pool.now)
    pauses = []
    for _ in range(12):
        (ticket,) = pool.take_creates()
        pool.grow_failed(ticket, ERROR)
        pauses.append(round(pool.core.next_timer() - pool.now, 6))
        pool.now = pool.core.next_timer()
        pool.run_timers()
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.0, 5.0, 5.0]


def test_somebody_who_asks_shortens_the_pause() -> None:
    pool = reconnecting()
    pool.core.pin('a', 1, pool.now)
    for _ in range(10):
        (ticket,) = pool.take_creates()
        pool.grow_failed(ticket, ERROR)
        failed_at = pool.now
        pool.now = pool.core.next_timer()
        pool.run_timers()
    (ticket,) = pool.take_creates()
    pool.grow_failed(ticket, ERROR)
    failed_at = pool.now
    calls = pool.worker_calls
    pool.kept.append(pool.ask('a'))
    assert pool.core.next_timer() == pytest.approx(failed_at + 0.1)
    assert pool.worker_calls == calls + 1


def test_an_acquire_that_finds_the_pause_over_has_those_served_who_wait() -> None:
    pool = Pool(reconnect_timeout=60.0, max_waiting=1)
    asker = pool.ask('a')
    fail(pool, asker)
    pool.now = 1.0  # nobody has run the timers
    assert pool.ask('a').answer == 'turned away'
    pool.grow(*pool.take_creates())
    assert names(asker) == ['a1']


def test_the_outage_is_told_once_after_reconnect_timeout() -> None:
    pool = reconnecting(reconnect_timeout=0.5)
    asker = pool.ask('a')
    told: list[float] = [fail(pool, asker) & RECONNECT_FAILED]
    while pool.now < 2.0:
        pool.now = pool.core.next_timer()
        pool.run_timers()
        (ticket,) = pool.take_creates()
        if pool.grow_failed(ticket, ERROR) & RECONNECT_FAILED:
            told.append(pool.now)
    assert told == [0, 0.5]


def test_the_outage_may_be_told_again_after_each_reconnect_timeout() -> None:
    pool = reconnecting(reconnect_timeout=0.5)
    pool.core.set_pace(0.010, 5.0, True, 0)
    asker = pool.ask('a')
    fail(pool, asker)
    told = []
    while pool.now < 2.0:
        pool.now = pool.core.next_timer()
        pool.run_timers()
        (ticket,) = pool.take_creates()
        if pool.grow_failed(ticket, ERROR) & RECONNECT_FAILED:
            told.append(round(pool.now, 6))
    # Two attempts are not nearer to each other than the shortest pause.
    assert told == pytest.approx([0.5, 1.0, 1.5, 2.0], abs=0.011)


def test_the_pauses_and_the_times_may_be_set() -> None:
    pool = reconnecting()
    pool.core.set_pace(1.0, 4.0, False, 0)
    pool.core.pin('a', 1, pool.now)
    pauses = []
    for _ in range(5):
        (ticket,) = pool.take_creates()
        pool.grow_failed(ticket, ERROR)
        due = pool.core.next_timer()
        pauses.append(due - pool.now)
        pool.now = due
        pool.run_timers()
    assert pauses == [1.0, 2.0, 4.0, 4.0, 4.0]
    pool.core.set_times(7.0, 30.0)
    assert (pool.core.max_lifetime, pool.core.reconnect_timeout) == (7.0, 30.0)
    with pytest.raises(ValueError, match='whether it is 0 cannot be changed'):
        pool.core.set_times(7.0, 0.0)
    assert pool.core.reconnect_timeout == 30.0


def test_somebody_who_is_no_waiter_ends_the_pause() -> None:
    pool = reconnecting()
    pool.core.set_pace(1.0, 4.0, False, 0)
    pool.core.retry_now('a', pool.now)
    pool.core.pin('a', 1, pool.now)
    (ticket,) = pool.take_creates()
    pool.core.retry_now('a', pool.now)
    assert pool.take_creates() == []
    pool.grow_failed(ticket, ERROR)
    assert pool.take_creates() == []
    pool.core.retry_now('a', pool.now)
    (again,) = pool.take_creates()
    pool.core.retry_now('a', pool.now)
    assert pool.take_creates() == []
    pool.grow(again)
    assert pool.count('idle') == (1,)


def test_fills_may_have_a_limit_of_their_own() -> None:
    pool = Pool(creates_in_background=True, max_connecting=1, max_size=6)
    pool.core.set_pace(0.010, 5.0, False, 3)
    pool.core.pin('a', 5, pool.now)
    fills = pool.take_creates()
    assert len(fills) == 3
    for ticket in fills:
        pool.grow(ticket)
    more = pool.take_creates()
    assert len(more) == 2
    for ticket in more:
        pool.grow(ticket)
    users = [pool.ask('a') for _ in range(5)]
    askers = [pool.ask('a') for _ in range(3)]
    assert [user.answer for user in users] == ['served'] * 5
    # For those who wait, the other limit holds.
    assert len(pool.take_creates()) == 1
    assert [asker.answer for asker in askers] == ['waits'] * 3


def test_a_success_ends_the_outage_for_all() -> None:
    pool = reconnecting()
    askers = [pool.ask('a') for _ in range(3)]
    for asker in askers:
        fail(pool, asker)
    pool.now = 1.0
    pool.run_timers()
    pool.grow(*pool.take_creates())
    assert [asker.answer for asker in askers] == ['served', 'ticket', 'ticket']
    assert pool.core.next_timer() == float('inf')


def test_other_endpoints_notice_nothing() -> None:
    pool = reconnecting()
    fail(pool, pool.ask('a'))
    assert names(pool.acquire('b')) == ['b1']


def test_a_connection_that_comes_back_is_served_in_an_outage() -> None:
    pool = reconnecting()
    held = pool.acquire('a')
    asker = pool.ask('a')
    fail(pool, asker)
    pool.release(held)
    assert names(asker) == ['a1']


def test_without_waiters_no_attempt_is_made_and_the_outage_is_forgotten() -> None:
    pool = reconnecting()
    asker = pool.ask('a')
    fail(pool, asker)
    pool.cancel(asker)
    pool.now = 1.0
    pool.run_timers()
    assert pool.take_creates() == []
    assert pool.count('endpoints') == (1,)
    pool.now = 12.0
    pool.run_timers()
    assert pool.count('endpoints') == (0,)
    assert pool.core.next_timer() == float('inf')


def test_an_attempt_that_is_given_up_is_made_again() -> None:
    pool = reconnecting()
    asker = pool.ask('a')
    fail(pool, asker)
    pool.now = 1.0
    pool.run_timers()
    (ticket,) = pool.take_creates()
    pool.core.grow_cancelled(ticket, pool.now)
    pool.core.check_invariants()
    assert len(pool.take_creates()) == 1


def test_the_last_error_is_known_while_the_outage_lasts() -> None:
    pool = reconnecting()
    asker = pool.ask('a')
    fail(pool, asker)
    assert pool.core.last_connect_error('a', 99.0) is ERROR
    pool.now = 1.0
    pool.run_timers()
    pool.grow(*pool.take_creates())
    assert pool.core.last_connect_error('a', 0.0) is ERROR
    assert pool.core.last_connect_error('a', 0.5) is None


# -- a server that is full -------------------------------------------------------------------------------------------


def test_a_refused_acquire_waits_for_a_connection_that_comes_back() -> None:
    pool = Pool(min_size=0, max_connecting=0)
    held = pool.acquire('a')
    asker = pool.ask('a')
    assert fail(pool, asker, is_refusal=True) == OUTAGE_BEGAN | MAY_ASK_AGAIN
    assert pool.core.next_timer() == pytest.approx(0.050)
    pool.release(held)
    assert names(asker) == ['a1']


def test_a_full_server_is_asked_again_when_a_connection_was_closed() -> None:
    pool = Pool(min_size=0)
    held = pool.acquire('a')
    asker = pool.ask('a')
    fail(pool, asker, is_refusal=True)
    assert pool.core.retire(held.entry, pool.now)
    assert pool.take_creates() == []
    pool.core.disposed(held.entry, pool.now)
    pool.core.check_invariants()
    (ticket,) = pool.take_creates()
    pool.grow(ticket)
    assert names(asker) == ['a2']


def test_one_waiter_probes_a_full_server_at_growing_pauses() -> None:
    pool = Pool(min_size=0)
    askers = [pool.ask('a') for _ in range(2)]
    for asker in askers:
        fail(pool, asker, is_refusal=True)
    pauses = []
    for _ in range(7):
        pauses.append(round(pool.core.next_timer() - pool.now, 6))
        pool.now = pool.core.next_timer()
        pool.run_timers()
        (ticket,) = pool.take_creates()
        assert not pool.grow_failed(ticket, ERROR, is_refusal=True) & REACHED_WAITER
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_refusal_in_the_pause_of_an_outage_holds_acquires_back() -> None:
    pool = Pool(min_size=2)
    first = pool.ask('a')
    assert fail(pool, first) == OUTAGE_BEGAN
    pool.cancel(first)
    second = pool.ask('a')
    assert second.answer == 'ticket'
    fail(pool, second, is_refusal=True)
    assert second.answer == 'waits'


@pytest.mark.parametrize('has_time', [True, False])
def test_a_refusal_is_counted_whether_or_not_the_acquire_has_time_left(has_time: bool) -> None:
    pool = Pool(min_size=0)
    asker = pool.ask('a')
    pool.core.connect_failed(asker.waiter, ERROR, True, has_time, pool.now)
    pool.cancel(asker)
    assert pool.count('create_errors', 'refused') == (1, 1)


def test_an_endpoint_was_full_once_and_that_is_over() -> None:
    pool = Pool(min_size=0, max_connecting=0)
    asker = pool.ask('a')
    fail(pool, asker, is_refusal=True)
    pool.now = 1.0
    pool.run_timers()
    pool.grow(*pool.take_creates())
    other = pool.ask('a')
    assert fail(pool, other) == 0
    pool.cancel(other)
    assert pool.core.next_timer() == float('inf')


# -- fail_fast -------------------------------------------------------------------------------------------------------


def failing_fast() -> Pool:
    return Pool(fails_fast=True)


def test_in_an_outage_an_acquire_fails_at_once() -> None:
    pool = failing_fast()
    first = pool.ask('a')
    assert fail(pool, first) == OUTAGE_BEGAN
    pool.cancel(first)
    late = pool.ask('a')
    assert late.waiter.endpoint_is_down
    assert late.waiter.error is ERROR
    assert pool.count('size', 'waiting') == (0, 0)


def test_one_acquire_at_a_time_probes() -> None:
    pool = failing_fast()
    first = pool.ask('a')
    fail(pool, first)
    pool.cancel(first)
    pool.now = 1.0
    pool.run_timers()
    probe = pool.ask('a')
    assert probe.answer == 'ticket'
    assert pool.ask('a').waiter.endpoint_is_down
    pool.connect(probe)
    assert pool.ask('a').answer == 'ticket'


def test_an_acquire_probes_though_nobody_has_run_the_timers() -> None:
    pool = failing_fast()
    first = pool.ask('a')
    fail(pool, first)
    pool.cancel(first)
    pool.now = 1.0
    assert pool.ask('a').answer == 'ticket'


def test_idle_connections_are_served_in_an_outage_and_those_in_use_waited_for() -> None:
    pool = failing_fast()
    held = pool.acquire('a')
    failing = pool.ask('a')
    fail(pool, failing)
    pool.cancel(failing)
    waits = pool.ask('a')
    assert waits.answer == 'waits'
    pool.release(held)
    assert names(waits) == ['a1']
    pool.release(waits)
    assert pool.acquire('a').answer == 'served'


def test_those_who_wait_for_nothing_fail_with_the_first_one() -> None:
    pool = Pool(fails_fast=True, max_connecting=1)
    first, second = pool.ask('a'), pool.ask('a')
    fail(pool, first)
    pool.cancel(first)
    assert second.waiter.endpoint_is_down
    assert second.waiter.error is ERROR
    assert pool.notified == [second]


def test_a_connect_in_the_background_fails_its_asker_and_those_who_wait_for_nothing() -> None:
    pool = Pool(fails_fast=True, creates_in_background=True, max_connecting=2)
    askers = [pool.ask('a') for _ in range(3)]
    tickets = pool.take_creates()
    assert pool.grow_failed(tickets[0], ERROR) == OUTAGE_BEGAN | REACHED_WAITER
    assert askers[0].waiter.failed
    assert askers[1].answer == 'waits'
    assert askers[2].waiter.endpoint_is_down
    pool.grow_failed(tickets[1], ERROR)
    assert askers[1].waiter.failed


def test_who_waits_for_a_connection_in_use_fails_when_that_breaks() -> None:
    pool = failing_fast()
    held = pool.acquire('a')
    failing = pool.ask('a')
    fail(pool, failing)
    pool.cancel(failing)
    waits = pool.ask('a')
    assert pool.core.retire(held.entry, pool.now)
    pool.core.disposed(held.entry, pool.now)
    pool.core.check_invariants()
    assert waits.waiter.endpoint_is_down


def test_a_dead_connection_is_closed_for_nobody_if_its_acquire_makes_the_attempt() -> None:
    pool = Pool(fails_fast=True, max_size=3)
    held, asker = pool.acquire('a'), pool.acquire('a')
    failing = pool.ask('a')
    fail(pool, failing)
    pool.cancel(failing)
    waits = pool.ask('a')
    assert waits.answer == 'waits'
    pool.core.reject_dead(asker.waiter)
    pool.now = 0.020
    pool.ask_again(asker)
    assert (asker.answer, waits.answer) == ('ticket', 'waits')
    # Others at the endpoint wait for the end of the attempt, and not for a slot.
    assert pool.core.relief_ends_at() == float('inf')
    pool.release(held)
    assert names(waits) == ['a1']


def test_where_the_server_is_only_full_an_acquire_waits() -> None:
    pool = failing_fast()
    asker = pool.ask('a')
    fail(pool, asker, is_refusal=True)
    assert [asker.answer, pool.ask('a').answer] == ['waits', 'waits']


def test_when_the_pause_is_over_an_acquire_waits_for_a_slot() -> None:
    pool = Pool(fails_fast=True, max_size=1, total_max_size=1)
    first = pool.ask('a')
    fail(pool, first)
    pool.cancel(first)
    pool.fill('b', 1)
    pool.now = 1.0
    asker = pool.ask('a')
    assert asker.answer == 'waits'
    assert pool.dispose() == ['b1']
    assert asker.answer == 'ticket'
