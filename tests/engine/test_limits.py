"""max_size, total_max_size, and waiters: first come, first served, at one endpoint and over all."""

import functools
import math
import random

import pytest

from gcpool._core import Waiter
from tests.engine.model import KEPT_PLACE_TIME, MAX_OVERTAKING_TIME, OVERTAKING_EPOCH
from tests.engine.support import Acquire, Connection, Pool, names

# -- at one endpoint --------------------------------------------------------------------------------------------------


def test_waiters_are_served_first_come_first_served() -> None:
    pool = Pool(max_size=2)
    holders = pool.acquire_all('a', 2)
    waiters = [pool.ask('a') for _ in range(6)]
    for holder in [*holders, *waiters[:4]]:
        pool.release(holder)
    assert pool.notified == waiters
    assert names(*waiters) == ['a1', 'a2', 'a1', 'a2', 'a1', 'a2']


def test_a_thread_that_just_released_does_not_overtake_one_that_waits() -> None:
    pool = Pool(max_size=1)
    holder, waiter = pool.acquire('a'), pool.ask('a')
    pool.release(holder)
    assert pool.core.try_acquire('a', pool.now) is None
    again = pool.ask('a')
    assert (waiter.answer, again.answer) == ('served', 'waits')


def test_ten_thousand_waiters_are_served_in_order() -> None:
    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    waiters = [Acquire(pool.core, 'a', pool.notified.append) for _ in range(10_000)]
    for waiter in waiters:
        assert pool.core.request(waiter.waiter, pool.now)
    for waiter in waiters:
        pool.core.release(holder.entry, pool.now)
        assert waiter.answer == 'served'
        holder = waiter
    assert pool.notified == waiters
    assert all(waiter.notified == 1 for waiter in waiters)
    pool.core.check_invariants()
    assert pool.count('waits', 'waiting', 'created', 'acquires') == (10_000, 0, 1, 10_001)


@pytest.mark.parametrize('order', ['forwards', 'backwards', 'shuffled'])
def test_ten_thousand_waiters_are_cancelled_in_any_order_and_the_others_keep_their_places(order: str) -> None:
    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    waiters = [Acquire(pool.core, 'a', pool.notified.append) for _ in range(10_000)]
    for waiter in waiters:
        assert pool.core.request(waiter.waiter, pool.now)
    leaving = [waiter for index, waiter in enumerate(waiters) if index % 10]
    staying = [waiter for index, waiter in enumerate(waiters) if not index % 10]
    if order == 'backwards':
        leaving.reverse()
    elif order == 'shuffled':
        random.Random(1).shuffle(leaving)
    for waiter in leaving:
        assert pool.core.cancel(waiter.waiter, pool.now)
    pool.core.check_invariants()
    assert pool.count('waiting') == (1_000,)
    for waiter in staying:
        pool.core.release(holder.entry, pool.now)
        holder = waiter
    assert pool.notified == staying


def test_a_waiter_that_waits_again_comes_before_all_that_came_after_it() -> None:
    pool = Pool(max_size=3)
    holders = pool.acquire_all('a', 3)
    waiters = [pool.ask('a') for _ in range(6)]
    pool.release(*holders)
    first, second, third = waiters[:3]
    for waiter in (second, third, first):
        pool.core.reject_dead(waiter.waiter)
        pool.ask_again(waiter)
        assert waiter.answer == 'waits'
    for _ in range(3):
        dead_entry = pool.core.take_doomed_for_worker()
        assert dead_entry is not None
        pool.core.disposed(dead_entry, pool.now)
    assert [waiter.answer for waiter in waiters] == ['ticket'] * 3 + ['waits'] * 3
    assert pool.notified == [first, second, third] * 2
    assert pool.count('waits', 'waiting') == (6, 3), 'one that waits twice is one that waits'


def test_a_connection_taken_when_it_was_idle_has_a_place_in_the_queue_too() -> None:
    pool = Pool(max_size=1)
    pool.fill('a', 1)
    early = Acquire(pool.core, 'a', pool.notified.append)
    entry = pool.core.try_acquire('a', pool.now)
    assert entry is not None
    pool.core.adopt(early.waiter, entry)
    late = pool.ask('a')
    pool.core.reject_dead(early.waiter)
    pool.ask_again(early)
    assert (early.answer, late.answer) == ('waits', 'waits')
    dead_entry = pool.core.take_doomed_for_worker()
    assert dead_entry is not None
    pool.core.disposed(dead_entry, pool.now)
    assert (early.answer, late.answer) == ('ticket', 'waits')


def test_a_waiter_is_notified_with_no_lock_held() -> None:
    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    seen = []

    def look(acquire: Acquire) -> None:
        pool.core.check_invariants()
        seen.append((acquire.answer, pool.count('waiting', 'acquired')))
        other = pool.acquire('b')
        pool.release(other)
        pool.release(acquire)

    waiters = [Acquire(pool.core, 'a', look) for _ in range(3)]
    for waiter in waiters:
        pool.ask_again(waiter)
    pool.release(holder)
    assert seen == [('served', (2, 1)), ('served', (1, 1)), ('served', (0, 1))]
    assert pool.count('idle', 'acquired', 'waiting') == (2, 0, 0)


def test_a_waiter_that_cannot_be_notified_does_not_keep_the_others_asleep() -> None:
    def fail(acquire: Acquire) -> None:
        raise RuntimeError('the loop is closed')

    pool = Pool(max_size=2)
    holders = pool.acquire_all('a', 2)
    broken = Acquire(pool.core, 'a', fail)
    pool.ask_again(broken)
    waiter = pool.ask('a')
    with pytest.raises(RuntimeError, match='the loop is closed'):
        pool.core.resize(pool.now, max_size=4)
    assert (broken.answer, waiter.answer) == ('ticket', 'ticket')
    assert pool.notified == [waiter]
    pool.core.check_invariants()
    assert not pool.cancel(broken), 'whoever made it still has it cancelled'
    pool.connect(waiter)
    pool.release(waiter, *holders)
    assert pool.core.size == 3


def test_a_release_to_a_waiter_that_cannot_be_notified_is_done_all_the_same() -> None:
    def fail(acquire: Acquire) -> None:
        raise RuntimeError('the loop is closed')

    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    broken = Acquire(pool.core, 'a', fail)
    pool.ask_again(broken)
    with pytest.raises(RuntimeError, match='the loop is closed'):
        pool.release(holder)
    assert broken.answer == 'served'
    waiter = pool.ask('a')
    pool.cancel(broken)
    assert waiter.answer == 'served'


# -- over all endpoints -----------------------------------------------------------------------------------------------


def test_a_slot_freed_at_one_endpoint_serves_a_waiter_at_another() -> None:
    pool = Pool(min_idle=0, max_size=2, total_max_size=2)
    first, second = pool.acquire_all('a', 2)
    waiting = pool.ask('b')
    assert waiting.answer == 'waits'
    pool.release(first)
    assert waiting.answer == 'waits'
    assert pool.dispose() == ['a1'], 'nobody at its own endpoint wants it, and the other one wants its slot'
    assert (waiting.answer, waiting.notified) == ('ticket', 1)
    pool.release(second)
    assert pool.count('size', 'idle') == (2, 1)


def test_slots_go_to_those_who_came_first_over_all_endpoints() -> None:
    pool = Pool(min_idle=0, max_size=3, total_max_size=3)
    holders = pool.acquire_all('a', 3)
    waiters = [pool.ask(endpoint) for endpoint in 'bcbcd']
    served = []
    for holder in holders:
        pool.core.resize(pool.now, max_size=3)
        pool.release(holder)
        pool.dispose()
        served = [waiter.answer for waiter in waiters]
    assert served == ['ticket', 'ticket', 'ticket', 'waits', 'waits']
    assert pool.notified == waiters[:3]


def test_no_more_connections_are_closed_than_somebody_waits_for() -> None:
    pool = Pool(min_idle=0, max_size=4, total_max_size=4)
    pool.fill('a', 4)
    waiting = pool.ask('b')
    assert pool.core.doomed == 1
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'
    assert pool.count('size', 'idle') == (4, 3)


def test_several_endpoints_in_need_have_several_connections_closed_side_by_side() -> None:
    pool = Pool(min_idle=0, max_size=4, total_max_size=4)
    pool.fill('a', 4)
    waiters = [pool.ask(endpoint) for endpoint in 'bcd']
    assert pool.core.doomed == 3
    assert pool.dispose() == ['a1', 'a2', 'a3']
    assert [waiter.answer for waiter in waiters] == ['ticket'] * 3
    assert pool.core.size == 4


def test_one_endpoint_with_many_waiters_has_one_connection_after_the_other_closed() -> None:
    pool = Pool(min_idle=0, max_size=4, total_max_size=4)
    pool.fill('a', 4)
    waiters = [pool.ask('b') for _ in range(3)]
    assert pool.core.doomed == 1
    assert pool.dispose() == ['a1', 'a2', 'a3']
    assert [waiter.answer for waiter in waiters] == ['ticket'] * 3
    assert pool.count('size', 'idle', 'waiting') == (4, 1, 0)


def test_what_is_being_closed_for_nobody_keeps_nothing_idle_from_being_closed_for_one_who_waits() -> None:
    pool = Pool(min_idle=0, max_size=2, total_max_size=4, idle_timeout=10)
    pool.fill('old', 2)
    pool.now = 10.0
    pool.fill('a', 2)
    pool.core.doom_due(pool.now, 100)
    assert [entry.conn.name for entry in pool.take_doomed()] == ['old1', 'old2'], 'and their disposals hang'
    waiting = pool.ask('b')
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'ticket'


@pytest.mark.parametrize('leave', ['cancel', 'give_up'])
def test_what_hangs_for_one_who_has_left_keeps_nothing_idle_from_being_closed_for_the_next_ones(leave: str) -> None:
    pool = Pool(min_idle=0, max_size=4, total_max_size=4, idle_timeout=100)
    pool.fill('a', 4)
    gone = pool.ask('b')
    [hanging] = pool.take_doomed()
    if leave == 'cancel':
        assert pool.cancel(gone)
    else:
        assert pool.core.give_up(gone.waiter)
    pool.now = 1.9
    waiting = pool.ask('b')
    assert pool.core.doomed == 0, 'there may be a slot in a moment'
    pool.now = 2.0
    others = pool.ask('b')
    assert pool.dispose() == ['a2', 'a3']
    assert [waiting.answer, others.answer] == ['ticket', 'ticket']
    pool.core.disposed(hanging, pool.now)
    pool.core.check_invariants()


def test_another_connection_is_closed_for_one_who_waits_where_the_first_dispose_hangs() -> None:
    pool = Pool(min_idle=0, max_size=2, total_max_size=3, idle_timeout=1000)
    pool.fill('a', 1)
    holders = pool.acquire_all('c', 2)
    waiting = pool.ask('b')
    [hanging] = pool.take_doomed()
    for pool.now in (0.1, 1.9):
        pool.release(holders.pop())
        holders += pool.acquire_all('c', 1)
        assert pool.core.doomed == 0, 'help is on its way'
    pool.now = 2.0
    pool.release(holders.pop())
    assert pool.dispose() == ['c2']
    assert waiting.answer == 'ticket'
    pool.core.disposed(hanging, pool.now)
    pool.core.check_invariants()


def test_who_comes_and_goes_has_one_connection_closed_while_a_dispose_takes_its_time() -> None:
    pool = Pool(min_idle=0, max_size=6, total_max_size=6, idle_timeout=1000)
    pool.fill('a', 4)
    holders = pool.acquire_all('b', 2)
    for step in range(10):
        pool.now = step / 10
        waiting = pool.ask('b')
        pool.release(holders.pop(0))
        assert waiting.answer == 'served'
        holders.append(waiting)
    assert pool.core.doomed == 1


def test_one_who_needs_nothing_closed_has_another_connection_closed_where_a_dispose_hangs() -> None:
    pool = Pool(min_idle=0, max_size=3, total_max_size=3, idle_timeout=1000)
    pool.fill('a', 2)
    pool.fill('c', 1)
    waiting = pool.ask('b')
    assert len(pool.take_doomed()) == 1, 'and that hangs'
    pool.now = 5.0
    assert pool.ask('a').answer == 'served'
    assert pool.dispose() == ['c1']
    assert waiting.answer == 'ticket'


def test_what_one_frees_itself_is_closed_in_place_of_another_one_s() -> None:
    pool = Pool(min_idle=0, max_size=3, total_max_size=3, max_lifetime=10)
    pool.fill('b', 1)
    pool.now = 5.0
    pool.fill('a', 2)
    pool.now = 10.0
    waiting = pool.ask('b')
    assert pool.dispose() == ['b1']
    assert waiting.answer == 'ticket'
    assert pool.count('idle') == (2,)


# -- who disposes of what ---------------------------------------------------------------------------------------------


def doomed_by_caller_and_worker(pool: Pool) -> tuple[list[str], list[str]]:
    """Return the names that each is to close; all of them are being closed then."""
    pool.core.check_invariants()
    by_caller = [entry.conn.name for entry in iter(pool.core.take_doomed_for_caller, None)]
    by_worker = [entry.conn.name for entry in iter(pool.core.take_doomed_for_worker, None)]
    assert pool.core.doomed == 0
    return by_caller, by_worker


def test_what_an_acquire_dooms_is_a_worker_s() -> None:
    pool = Pool(min_idle=0, max_size=3, total_max_size=3, max_lifetime=10)
    pool.fill('b', 1)
    pool.now = 5.0
    pool.fill('a', 2)
    _waits = pool.ask('c')
    assert doomed_by_caller_and_worker(pool) == ([], ['b1'])
    pool.now = 15.0
    assert pool.ask('a').answer == 'waits'
    assert doomed_by_caller_and_worker(pool) == ([], ['a2', 'a1'])


@pytest.mark.parametrize('asks_again', [True, False])
def test_what_an_acquire_finds_dead_is_a_worker_s(asks_again: bool) -> None:
    pool = Pool(max_size=1)
    acquire = pool.acquire('a')
    pool.core.reject_dead(acquire.waiter)
    assert pool.core.doomed == 0, 'nobody gets its slot before the acquire has asked again'
    if asks_again:
        pool.ask_again(acquire)
    else:
        pool.cancel(acquire)
    assert doomed_by_caller_and_worker(pool) == ([], ['a1'])


def test_what_an_acquire_gives_back_and_what_it_connects_too_late_is_a_worker_s() -> None:
    pool = Pool()
    served, connecting = pool.acquire('a'), pool.ask('a')
    pool.core.close()
    assert pool.core.created(connecting.entry, Connection('a2'), pool.now) is False
    pool.cancel(served)
    assert doomed_by_caller_and_worker(pool) == ([], ['a2', 'a1'])


def test_what_a_release_dooms_and_what_else_is_closed_at_once_is_the_caller_s() -> None:
    pool = Pool(min_idle=0, max_size=4, total_max_size=8)
    first, second, third, forgotten = pool.acquire_all('a', 4)
    pool.fill('b', 2)
    pool.core.resize(pool.now, max_size=1)
    assert doomed_by_caller_and_worker(pool) == (['b1'], [])
    pool.release(first)
    assert doomed_by_caller_and_worker(pool) == (['a1'], [])
    assert pool.core.retire_to_doomed(second.entry, pool.now)
    assert doomed_by_caller_and_worker(pool) == (['a2'], [])
    pool.core.close()
    assert doomed_by_caller_and_worker(pool) == (['b2'], [])
    pool.release(third)
    assert pool.core.doom_acquired() == 1
    assert doomed_by_caller_and_worker(pool) == (['a3', 'a4'], [])
    pool.release(forgotten)


@pytest.mark.parametrize('for_worker', [True, False])
def test_what_is_due_and_what_the_end_of_a_close_dooms_is_closed_by_whoever_asks(for_worker: bool) -> None:
    pool = Pool(min_idle=0, max_size=2, total_max_size=3)
    pool.fill('a', 2)
    pool.now = 1.0
    pool.fill('b', 1)
    waiting = [pool.ask('c'), pool.ask('c')]
    [closing] = pool.take_doomed()
    assert closing.conn.name == 'a1'
    pool.core.disposed(closing, pool.now, for_worker)
    assert [acquire.answer for acquire in waiting] == ['ticket', 'waits']
    pool.core.doom_due(100.0, 1, for_worker)
    assert doomed_by_caller_and_worker(pool) == (([], ['a2', 'b1']) if for_worker else (['a2', 'b1'], []))


def test_a_closed_connection_is_told_to_those_who_wait_for_that() -> None:
    pool = Pool(min_idle=0, idle_timeout=10)
    pool.fill('a', 2)
    told: list[str] = []
    pool.core.doom_due(10.0, 2)
    first, second = pool.take_doomed()
    watchers = {name: Waiter(None) for name in ('of the first', 'of the second', 'left', 'of the pool')}
    for name, watcher in watchers.items():
        watcher.arm(functools.partial(told.append, name))
    assert pool.core.watch_gone(watchers['of the first'], first)
    assert pool.core.watch_gone(watchers['of the second'], second)
    assert pool.core.watch_gone(watchers['left'], first)
    assert pool.core.watch_empty(watchers['of the pool'])
    assert pool.core.unwatch(watchers['left'])
    pool.core.disposed(first, 10.0)
    assert told == ['of the first']
    assert pool.core.unwatch(watchers['of the first']) is False
    pool.core.disposed(second, 10.0)
    assert sorted(told[1:]) == ['of the pool', 'of the second']
    assert pool.core.watch_gone(Waiter(None), first) is False


def test_a_waiter_at_the_cap_of_its_endpoint_has_nothing_closed_elsewhere() -> None:
    pool = Pool(min_idle=0, max_size=2, total_max_size=4)
    pool.fill('b', 2)
    _held = pool.acquire_all('a', 2)
    assert pool.ask('a').answer == 'waits'
    assert pool.core.doomed == 0


def test_a_closed_connection_is_handed_to_nobody_and_its_slot_not_before_the_dispose_has_ended() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=1)
    pool.fill('a', 1)
    first = pool.ask('b')
    [doomed] = pool.take_doomed()
    second = pool.ask('a')
    assert (first.answer, second.answer) == ('waits', 'waits')
    assert pool.core.size == 1
    pool.core.disposed(doomed, pool.now)
    assert (first.answer, second.answer) == ('ticket', 'waits')


def test_a_waiter_that_leaves_while_a_connection_is_closed_for_it_leaves_a_free_slot() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=1)
    pool.fill('a', 1)
    waiting = pool.ask('b')
    assert pool.cancel(waiting)
    assert pool.dispose() == ['a1']
    assert pool.count('size', 'endpoints') == (0, 0)
    assert pool.ask('c').answer == 'ticket'


# -- nobody waits for ever --------------------------------------------------------------------------------------------


def keep_busy(pool: Pool, endpoint: str, holder: Acquire, until: Acquire, turns: int, turn_time: float = 0.0) -> int:
    """Pass a connection on from one acquire to the next that already waits, till another acquire has a ticket."""
    for turn in range(turns):
        pool.now += turn_time
        following = pool.ask(endpoint)
        pool.release(holder)
        pool.dispose()
        if until.answer == 'ticket':
            return turn
        assert following.answer == 'served'
        holder = following
    raise AssertionError(f'not served in {turns} turns of {endpoint!r}')


def test_an_endpoint_without_connections_is_not_starved_by_a_busy_one() -> None:
    pool = Pool(max_size=2, total_max_size=2)
    first, second = pool.acquire_all('busy', 2)
    early = pool.ask('busy')
    waiting = pool.ask('other')
    assert waiting.answer == 'waits'
    pool.release(first)
    assert early.answer == 'served', 'it came first'
    assert keep_busy(pool, 'busy', second, waiting, 3) == 0


def test_an_endpoint_without_connections_is_not_starved_behind_one_whose_connections_are_out() -> None:
    pool = Pool(max_size=2, total_max_size=2)
    _held = pool.acquire('slow')
    holder = pool.acquire('busy')
    behind_slow = pool.ask('slow')
    waiting = pool.ask('other')
    assert keep_busy(pool, 'busy', holder, behind_slow, 100, 0.125) > 2, 'it had a connection of its own to wait for'
    pool.connect(behind_slow)
    assert waiting.answer == 'waits'
    pool.release(behind_slow)
    pool.dispose()
    assert waiting.answer == 'ticket'


@pytest.mark.parametrize('patience', [None, 5], ids=['waits on', 'times out and comes again'])
def test_nobody_is_overtaken_for_longer_than_a_bounded_time(patience: int | None) -> None:
    pool = Pool(max_size=10, total_max_size=10, max_lifetime=1e9)
    _held = pool.acquire_all('slow', 9)
    holder, waiting = pool.acquire('busy'), pool.ask('slow')
    # A connection changes hands once a minute, for an hour.
    for turn in range(1, 61):
        pool.now += 60.0
        following = pool.ask('busy')
        pool.release(holder)
        pool.dispose()
        if waiting.answer == 'ticket':
            return
        assert following.answer == 'served'
        holder = following
        if patience is not None and turn % patience == 0:
            assert pool.core.give_up(waiting.waiter)
            waiting = pool.ask('slow')
    raise AssertionError('nobody at this endpoint was served for an hour')


@pytest.mark.parametrize(
    ('patience', 'another_asks'),
    [(math.inf, False), (0.5, False), (0.125, False), (0.5, True), (0.125, True)],
    ids=['waits on', 'gives up now and then', 'gives up often', 'another asks now and then', 'another asks often'],
)
@pytest.mark.parametrize('began', [100.0, 100.1, 100.29])
def test_an_endpoint_is_overtaken_for_its_bound_at_most_and_for_two_thirds_of_it_at_least(
    patience: float, another_asks: bool, began: float
) -> None:
    """Also if another acquire asks and does not wait, between a waiter that gives up and the next one."""
    pool = Pool(max_size=10, total_max_size=10, max_lifetime=1e9)
    pool.now = began
    _held = pool.acquire_all('slow', 9)
    holder, waiting, waits_since = pool.acquire('busy'), pool.ask('slow'), pool.now
    while waiting.answer == 'waits' and pool.now - began <= MAX_OVERTAKING_TIME:
        pool.now += 1 / 64
        if pool.now - waits_since >= patience:
            pool.cancel(waiting)
            if another_asks:
                pool.cancel(pool.ask('slow'))
            waiting, waits_since = pool.ask('slow'), pool.now
        following = pool.ask('busy')
        pool.release(holder)
        pool.dispose()
        holder = following
    assert 2 * OVERTAKING_EPOCH <= pool.now - began <= MAX_OVERTAKING_TIME + 1 / 64


def test_one_who_waits_beside_another_endpoint_s_long_holds_gets_the_next_connection_that_is_returned() -> None:
    """However few were served meanwhile: what counts is the time, not who overtook."""
    pool = Pool(max_size=4, total_max_size=4, max_lifetime=1e9)
    _held = pool.acquire_all('light', 1)
    holders = pool.acquire_all('saturated', 3)
    waiting, others = pool.ask('light'), [pool.ask('saturated') for _ in range(20)]
    pool.now += 30.0
    pool.release(holders[0])
    assert pool.dispose() == ['saturated1']
    assert (waiting.answer, {acquire.answer for acquire in others}) == ('ticket', {'waits'})


def test_two_tenants_at_the_total_limit_wait_for_a_bounded_time_whoever_is_saturated() -> None:
    """Sixty clients of one hold each connection for 0.5 s, all at once or one after the other."""
    for spread in (0.0, 0.05):
        pool = Pool(max_size=10, total_max_size=10, max_lifetime=1e9)
        light = pool.acquire('light')
        # When each of the other nine connections comes back, and who waits for one.
        busy = [(0.5 + spread * number, acquire) for number, acquire in enumerate(pool.acquire_all('saturated', 9))]
        queue = [pool.ask('saturated') for _ in range(51)]
        asked_at, longest, served = 0.0, 0.0, 0
        waiting = pool.ask('light')
        pool.now = 0.25
        while served < 20:
            at, holder = min(busy, key=lambda item: item[0])
            busy.remove((at, holder))
            pool.now = at
            pool.release(holder)
            queue.append(pool.ask('saturated'))
            pool.dispose()
            if waiting.answer in {'ticket', 'served'}:
                longest = max(longest, pool.now - asked_at)
                served += 1
                pool.cancel(waiting)
                pool.dispose()
                asked_at, waiting = pool.now, pool.ask('light')
            for acquire in [acquire for acquire in queue if acquire.answer in {'ticket', 'served'}]:
                queue.remove(acquire)
                if acquire.answer == 'ticket':
                    pool.connect(acquire)
                busy.append((pool.now + 0.5, acquire))
        assert longest <= MAX_OVERTAKING_TIME + 0.5
        pool.release(light)


def test_those_who_were_overtaken_for_long_are_not_overtaken_for_as_long_again_one_by_one() -> None:
    pool = Pool(max_size=10, total_max_size=10, max_lifetime=1e9)
    _held = pool.acquire_all('slow', 6)
    holders, waiting = pool.acquire_all('busy', 4), [pool.ask('slow') for _ in range(3)]
    while waiting[0].answer == 'waits':
        pool.now += 0.125
        following = pool.ask('busy')
        pool.release(holders.pop(0))
        pool.dispose()
        holders.append(following)
    for _ in range(2):
        holders.append(pool.ask('busy'))
        pool.release(holders.pop(0))
        pool.dispose()
    assert [acquire.answer for acquire in waiting] == ['ticket'] * 3


def test_an_endpoint_without_connections_whose_waiters_time_out_gets_its_turn() -> None:
    """All the others have come before its present waiter each time, but not before the first one."""
    pool = Pool(min_idle=0, max_size=1, total_max_size=1, max_lifetime=1e9)
    holder, waiting = pool.acquire(0), [pool.ask(endpoint) for endpoint in range(1, 6)]
    impatient = pool.ask('impatient')
    for _ in range(6):
        pool.now += 4.0
        assert pool.core.give_up(impatient.waiter, pool.now)
        waiting.append(pool.ask(holder.endpoint))
        impatient = pool.ask('impatient')
        pool.release(holder)
        pool.dispose()
        if impatient.answer == 'ticket':
            return
        holder = waiting.pop(0)
        pool.connect(holder)
    raise AssertionError('each endpoint had its turn, and it had none')


@pytest.mark.parametrize(
    ('waited', 'away', 'first'),
    [(1.0, KEPT_PLACE_TIME / 2 - 1.0, True), (1.0, KEPT_PLACE_TIME, False), (0.0, 0.0, False)],
    ids=['back in time', 'back too late', 'did not wait'],
)
def test_a_place_is_kept_for_a_time_for_the_next_one_who_waits(waited: float, away: float, first: bool) -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=1, max_lifetime=1e9)
    holder, early = pool.acquire('held'), pool.ask('a')
    pool.now += waited
    other = pool.ask('b')
    assert pool.core.give_up(early.waiter, pool.now)
    assert pool.count('endpoints') == (2,), 'its endpoint is forgotten'
    pool.now += away
    again = pool.ask('a')
    pool.release(holder)
    pool.dispose()
    assert (again.answer, other.answer) == (('ticket', 'waits') if first else ('waits', 'ticket'))


def test_a_place_goes_to_the_next_in_the_queue_and_to_one_who_comes_back_to_its_head() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=2, max_lifetime=1e9)
    _held = pool.acquire('x')
    dead = pool.acquire('a')
    first, other, second = pool.ask('a'), pool.ask('b'), pool.ask('a')
    pool.now += 1.0
    pool.cancel(first)
    pool.core.reject_dead(dead.waiter)
    pool.ask_again(dead)
    assert pool.dispose() == ['a1']
    assert (dead.answer, other.answer, second.answer) == ('ticket', 'waits', 'waits'), 'a has the place of its first'
    pool.connect(dead)
    pool.now += 1.0
    pool.release(dead)
    assert (other.answer, second.answer) == ('waits', 'waits'), 'second has its own place again, after that of b'
    pool.dispose()
    assert (other.answer, second.answer) == ('ticket', 'waits')


def test_a_waiter_that_is_served_a_dead_connection_keeps_the_place_that_it_has_inherited() -> None:
    pool = Pool(min_idle=0, max_size=2, total_max_size=2, max_lifetime=1e9)
    dead = pool.acquire('a')
    _held = pool.acquire('b')
    first, other = pool.ask('a'), pool.ask('b')
    pool.now += 1.0
    assert pool.core.give_up(first.waiter, pool.now)
    heir = pool.ask('a')
    pool.release(dead)
    assert names(heir) == ['a1']
    pool.core.reject_dead(heir.waiter)
    pool.ask_again(heir)
    assert pool.dispose() == ['a1']
    assert (heir.answer, other.answer) == ('ticket', 'waits')


def test_an_endpoint_with_connections_of_its_own_is_expected_to_serve_itself() -> None:
    pool = Pool(max_size=2, total_max_size=2)
    holder, other = pool.acquire('a'), pool.acquire('b')
    at_a, at_b = pool.ask('a'), pool.ask('b')
    for _ in range(50):
        pool.release(other)
        assert names(at_b) == ['b1']
        other, at_b = at_b, pool.ask('b')
        pool.release(holder)
        assert names(at_a) == ['a1']
        holder, at_a = at_a, pool.ask('a')
    assert pool.count('created', 'disposed') == (2, 0)


def test_the_core_says_when_to_look_again_and_only_while_a_close_is_waited_for() -> None:
    pool = Pool(max_size=2, total_max_size=2)
    pool.fill('a', 1)
    pool.fill('b', 1)
    pool.now = 10.5
    assert pool.core.relief_ends_at() == math.inf
    waiting = pool.ask('x')
    [hanging] = pool.take_doomed()
    assert pool.core.relief_ends_at() == 12.0
    pool.core.expire_relief(11.75)
    assert (pool.core.doomed, pool.core.relief_ends_at()) == (0, 12.0)
    pool.core.expire_relief(12.0)
    assert pool.core.left_to_workers == 1
    assert pool.core.relief_ends_at() == 14.0
    pool.dispose()
    assert waiting.answer == 'ticket'
    assert pool.core.relief_ends_at() == math.inf
    pool.core.disposed(hanging, 12.0)
    assert pool.core.relief_ends_at() == math.inf


# -- many endpoints in need -------------------------------------------------------------------------------------------


def test_endpoints_that_come_to_want_a_slot_without_a_request_have_room_among_those_that_do() -> None:
    """The heap of endpoints that want a slot has room for every endpoint that has waiters, not just for those in it."""
    busy, size = 30, 4
    pool = Pool(min_idle=0, max_size=size, total_max_size=busy * size)
    holders = {endpoint: pool.acquire_all(endpoint, size) for endpoint in range(busy)}
    waiting = [pool.ask(f'z{index}') for index in range(6) for _ in range(size)]
    own = [pool.ask(endpoint) for endpoint in range(busy)]
    pool.now = 100.0  # their lifetimes are over: a released connection is closed
    for endpoint in range(busy):
        pool.release(holders[endpoint][0])
        pool.dispose()
    served = [acquire.answer for acquire in waiting + own]
    assert served == ['ticket'] * busy + ['waits'] * (len(waiting) + len(own) - busy)
    for endpoint in range(busy):
        pool.release(holders[endpoint][1])
    pool.dispose()
    assert [acquire.answer for acquire in waiting + own] == ['ticket'] * (len(waiting) + len(own))


def test_the_room_among_those_that_want_a_slot_outlives_those_that_leave() -> None:
    count = 300
    pool = Pool(max_size=1, total_max_size=count)
    holders = [Acquire(pool.core, endpoint, pool.notified.append) for endpoint in range(count)]
    for acquire in holders:
        assert pool.core.request(acquire.waiter, pool.now) is False
    own = [Acquire(pool.core, endpoint, pool.notified.append) for endpoint in range(count)]
    others = [Acquire(pool.core, -1 - index, pool.notified.append) for index in range(count)]
    for acquire in own + others:
        assert pool.core.request(acquire.waiter, pool.now) is True
    for acquire in others:
        assert pool.core.cancel(acquire.waiter, pool.now) is True
    pool.core.check_invariants()
    pool.core.resize(pool.now, max_size=2)  # now all want a slot, and there is none
    pool.core.check_invariants()
    pool.core.resize(pool.now, total_max_size=2 * count)
    pool.core.check_invariants()
    assert pool.notified == own


# -- max_waiting ------------------------------------------------------------------------------------------------------


def test_the_one_too_many_is_turned_away_and_the_others_are_served() -> None:
    pool = Pool(max_size=1, max_waiting=2)
    holder = pool.acquire('a')
    waiters = [pool.ask('a') for _ in range(2)]
    too_many = pool.ask('a')
    assert (too_many.answer, too_many.notified, pool.cancel(too_many)) == ('turned away', 0, False)
    assert pool.count('waiting', 'waits', 'too_many', 'timeouts') == (2, 2, 1, 0)
    pool.release(holder)
    late = pool.ask('a')
    assert (waiters[0].answer, late.answer) == ('served', 'waits'), 'one has left the queue'


def test_max_waiting_is_that_of_each_endpoint_and_counts_those_at_the_total_limit() -> None:
    pool = Pool(max_size=1, total_max_size=2, max_waiting=1)
    _held = pool.acquire('a'), pool.acquire('b')
    asked = [pool.ask(endpoint) for endpoint in 'aabbcc']
    assert [acquire.answer for acquire in asked] == ['waits', 'turned away'] * 3
    assert pool.count('waiting', 'too_many') == (3, 3)


def test_who_is_served_at_once_is_not_turned_away() -> None:
    pool = Pool(max_size=2, total_max_size=3, max_waiting=1)
    held = pool.acquire_all('a', 2)
    waiting = pool.ask('a')
    assert pool.acquire('b').answer == 'served'
    pool.release(held[0])
    assert waiting.answer == 'served'
    pool.release(waiting)
    assert pool.acquire('a').answer == 'served'
    assert pool.count('too_many') == (0,)


@pytest.mark.parametrize('waited', [True, False])
def test_one_who_asks_again_after_a_dead_connection_is_never_turned_away(waited: bool) -> None:
    pool = Pool(max_size=1, max_waiting=1)
    holder = pool.acquire('a')
    if waited:
        dead = pool.ask('a')
        pool.release(holder)
    else:
        pool.release(holder)
        dead = Acquire(pool.core, 'a', pool.notified.append)
        entry = pool.core.try_acquire('a', pool.now)
        assert entry is not None
        pool.core.adopt(dead.waiter, entry)
    waiting = pool.ask('a')
    assert (dead.answer, waiting.answer) == ('served', 'waits')
    pool.core.reject_dead(dead.waiter)
    pool.ask_again(dead)
    assert (dead.answer, waiting.answer) == ('waits', 'waits')
    pool.dispose()
    assert (dead.answer, waiting.answer) == ('ticket', 'waits')


def test_a_higher_max_waiting_lets_more_wait_and_a_lower_one_sends_nobody_away() -> None:
    pool = Pool(max_size=1, max_waiting=1)
    holder, waiting = pool.acquire('a'), pool.ask('a')
    pool.core.resize(pool.now, max_waiting=2)
    other = pool.ask('a')
    pool.core.resize(pool.now, max_waiting=1)
    assert (waiting.answer, other.answer, pool.ask('a').answer) == ('waits', 'waits', 'turned away')
    pool.core.resize(pool.now, max_waiting=0)
    assert pool.ask('a').answer == 'waits'
    assert pool.core.max_waiting == 0
    pool.release(holder)
    assert waiting.answer == 'served'


# -- resize -----------------------------------------------------------------------------------------------------------


def test_a_higher_max_size_serves_those_who_wait() -> None:
    pool = Pool(max_size=1)
    _held = pool.acquire('a')
    waiters = [pool.ask('a') for _ in range(3)]
    pool.core.resize(pool.now, max_size=3)
    pool.core.check_invariants()
    assert [waiter.answer for waiter in waiters] == ['ticket', 'ticket', 'waits']
    assert pool.notified == waiters[:2]
    assert pool.core.max_size == 3


def test_a_higher_total_max_size_serves_those_who_wait_at_any_endpoint() -> None:
    pool = Pool(max_size=2, total_max_size=2)
    _held = pool.acquire_all('a', 2)
    waiters = [pool.ask(endpoint) for endpoint in 'bcb']
    pool.core.resize(pool.now, total_max_size=4)
    pool.core.check_invariants()
    assert [waiter.answer for waiter in waiters] == ['ticket', 'ticket', 'waits']


def test_a_higher_max_size_has_idle_connections_of_others_closed_at_the_total_cap() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=2)
    pool.fill('b', 1)
    _held = pool.acquire('a')
    waiting = pool.ask('a')
    assert pool.core.doomed == 0
    pool.core.resize(pool.now, max_size=2)
    assert pool.dispose() == ['b1']
    assert waiting.answer == 'ticket'


def test_a_lower_max_size_closes_what_is_idle_beyond_it() -> None:
    pool = Pool(min_idle=2, max_size=5)
    pool.fill('a', 5)
    pool.core.resize(pool.now, max_size=3)
    pool.core.check_invariants()
    assert sorted(pool.dispose()) == ['a1', 'a2']
    assert pool.core.endpoint_size('a') == 3
    pool.core.resize(pool.now, max_size=1)
    assert len(pool.dispose()) == 2
    assert pool.core.endpoint_size('a') == 1


def test_a_lower_max_size_closes_what_is_out_beyond_it_when_it_comes_back() -> None:
    pool = Pool(min_idle=0, max_size=4)
    holders = pool.acquire_all('a', 4)
    pool.core.resize(pool.now, max_size=2)
    assert pool.core.doomed == 0
    pool.release(*holders[:3])
    assert pool.core.doomed == 2, 'those that are being closed are gone soon: no more than needed'
    assert pool.dispose() == ['a1', 'a2']
    pool.release(holders[3])
    assert pool.core.doomed == 0
    assert pool.count('size', 'idle') == (2, 2)


def test_a_lower_max_size_makes_waiters_wait_until_there_is_room_again() -> None:
    pool = Pool(max_size=3)
    holders = pool.acquire_all('a', 3)
    waiting = pool.ask('a')
    pool.core.resize(pool.now, max_size=1)
    pool.release(holders[0])
    assert waiting.answer == 'waits'
    assert pool.dispose() == ['a1']
    assert waiting.answer == 'waits'
    pool.release(holders[1])
    pool.dispose()
    assert waiting.answer == 'waits'
    pool.release(holders[2])
    assert names(waiting) == ['a3']


def test_a_lower_total_max_size_closes_what_was_unused_for_longest() -> None:
    pool = Pool(min_idle=0, max_size=2, total_max_size=6, idle_timeout=10.0)
    for endpoint in 'bca':
        pool.fill(endpoint, 1)
        pool.now += 1.0
    pool.core.resize(pool.now, total_max_size=1, max_size=1)
    pool.core.check_invariants()
    assert pool.dispose() == ['b1', 'c1']
    assert pool.core.size == 1


def test_a_lower_total_max_size_closes_what_is_out_beyond_it_when_it_comes_back() -> None:
    pool = Pool(max_size=2, total_max_size=4)
    holders = [pool.acquire(endpoint) for endpoint in 'abcd']
    pool.core.resize(pool.now, total_max_size=2)
    pool.release(*holders)
    assert pool.core.doomed == 2
    assert pool.dispose() == ['a1', 'b1']
    assert pool.core.size == 2


def test_a_lower_total_max_size_and_then_a_higher_one_serves_those_who_wait() -> None:
    pool = Pool(max_size=2, total_max_size=3)
    holders = pool.acquire_all('a', 2)
    pool.core.resize(pool.now, total_max_size=1)
    waiting = pool.ask('b')
    pool.release(*holders)
    assert pool.dispose() == ['a1', 'a2']
    assert waiting.answer == 'ticket'
    again = pool.ask('c')
    assert again.answer == 'waits'
    pool.core.resize(pool.now, total_max_size=2)
    assert again.answer == 'ticket'


def test_min_idle_can_be_changed() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    pool.core.resize(pool.now, min_idle=1)
    pool.fill('a', 1)
    assert pool.core.min_idle == 1
    assert pool.core.next_due() == 100.0
    pool.core.resize(pool.now, min_idle=0)
    pool.release(pool.acquire('a'))
    assert pool.core.next_due() == 10.0


def test_a_lower_min_idle_makes_idle_core_connections_extra_and_wakes_the_collector() -> None:
    woken: list[float] = []
    pool = Pool(min_idle=3, max_size=4, collects=True, wake_collector=lambda: woken.append(pool.now))
    pool.fill('a', 4)
    assert pool.core.next_due() == 10.0, 'the first that was returned is extra'
    pool.now = 10.0
    assert pool.expire() == ['a1']
    assert pool.core.next_due() == 100.0
    woken.clear()
    pool.core.resize(pool.now, min_idle=1)
    pool.core.check_invariants()
    assert woken == [10.0]
    assert pool.expire() == ['a2', 'a3']
    assert pool.core.next_due() == 100.0


@pytest.mark.parametrize(('keep', 'left'), [('size', 2), ('idle', 3)])
def test_a_higher_min_idle_keeps_extra_connections_that_are_idle(keep: str, left: int) -> None:
    pool = Pool(min_idle=0, max_size=5, keep=keep)
    pool.fill('a', 4)
    _held = pool.acquire('a')
    pool.core.resize(pool.now, min_idle=3)
    pool.core.check_invariants()
    pool.now = 10.0
    pool.expire()
    assert pool.count('idle', 'acquired') == (left, 1)
    assert pool.drain_idle('a') == ['a1', 'a2', 'a3'][3 - left :]


def test_limits_are_changed_only_by_one_who_knows_them() -> None:
    pool = Pool(max_size=3)
    first, second = object(), object()
    assert pool.core.limits is None
    assert pool.core.resize(pool.now, max_size=4, limits=first)
    assert not pool.core.resize(pool.now, max_size=5, limits=second)
    assert (pool.core.limits is first, pool.core.max_size) == (True, 4)
    assert pool.core.resize(pool.now, max_size=5, limits=second, expected=first)
    assert (pool.core.limits is second, pool.core.max_size) == (True, 5)
