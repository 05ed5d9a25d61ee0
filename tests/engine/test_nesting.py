"""An acquire in a signal handler: its waiter interrupts the one of its thread."""

from tests.engine.support import Acquire, Pool


def ask_inside(pool: Pool, interrupted: Acquire, endpoint: object = 'a') -> Acquire:
    acquire = Acquire(pool.core, endpoint, pool.notified.append)
    acquire.waiter.interrupt(interrupted.waiter)
    pool.ask_again(acquire)
    return acquire


def test_it_stands_before_the_waiter_that_it_interrupts_and_behind_the_others() -> None:
    pool = Pool(max_size=1)
    held = pool.acquire('a')
    first, interrupted, last = (pool.ask('a') for _ in range(3))
    inside = ask_inside(pool, interrupted)
    innermost = ask_inside(pool, inside)
    order = [first, innermost, inside, interrupted, last]
    for previous, acquire in zip([held, *order], order, strict=False):
        pool.release(previous)
        assert acquire.answer == 'served'
    assert pool.notified == order


def test_what_the_interrupted_waiter_was_served_is_taken_over() -> None:
    pool = Pool(max_size=1)
    held = pool.acquire('a')
    interrupted, behind = pool.ask('a'), pool.ask('a')
    pool.release(held)
    assert interrupted.answer == 'served'
    lease_no = interrupted.entry.lease_no
    inside = ask_inside(pool, interrupted)
    assert [inside.answer, interrupted.answer] == ['served', 'nothing']
    assert inside.entry.lease_no == lease_no
    assert pool.stats['acquired'] == 1
    # It asks again, and comes before those that arrived after it.
    pool.ask_again(interrupted)
    pool.release(inside)
    assert [interrupted.answer, behind.answer] == ['served', 'waits']
    assert pool.notified == [interrupted, interrupted]


def test_a_ticket_is_taken_over_too() -> None:
    pool = Pool(max_size=1)
    held = pool.acquire('a')
    interrupted = pool.ask('a')
    pool.core.detach(held.entry, pool.now)
    assert interrupted.answer == 'ticket'
    inside = ask_inside(pool, interrupted)
    assert [inside.answer, interrupted.answer] == ['ticket', 'nothing']
    assert pool.connect(inside).name == 'a2'
    pool.release(inside)


def test_it_gives_back_what_it_took_over_when_it_is_cancelled() -> None:
    pool = Pool(max_size=1)
    held = pool.acquire('a')
    interrupted = pool.ask('a')
    pool.release(held)
    inside = ask_inside(pool, interrupted)
    pool.ask_again(interrupted)
    assert interrupted.answer == 'waits'
    pool.cancel(inside)
    assert interrupted.answer == 'served'


def test_at_another_endpoint_it_has_no_advantage() -> None:
    pool = Pool(max_size=1)
    held, other = pool.acquire('a'), pool.acquire('b')
    interrupted, waiting = pool.ask('a'), pool.ask('b')
    inside = ask_inside(pool, interrupted, 'b')
    pool.release(other)
    assert [waiting.answer, inside.answer] == ['served', 'waits']
    pool.release(held)
    assert interrupted.answer == 'served', 'and it takes nothing away'


def test_what_close_has_closed_meanwhile_is_not_taken_over() -> None:
    pool = Pool(max_size=1)
    held = pool.acquire('a')
    interrupted = pool.ask('a')
    pool.release(held)
    pool.core.close()
    assert ask_inside(pool, interrupted).answer == 'refused'
    assert interrupted.answer == 'served'
    assert pool.core.doom_acquired() == 1
    assert interrupted.answer == 'refused'


def test_a_waiter_that_has_left_is_nobody_to_come_before() -> None:
    pool = Pool(max_size=1)
    held = pool.acquire('a')
    interrupted = pool.ask('a')
    waiting = pool.ask('a')
    assert pool.cancel(interrupted)
    inside = ask_inside(pool, interrupted)
    pool.release(held)
    assert [waiting.answer, inside.answer] == ['served', 'waits']


def test_a_waiter_does_not_interrupt_itself() -> None:
    pool = Pool()
    acquire = Acquire(pool.core, 'a', pool.notified.append)
    acquire.waiter.interrupt(acquire.waiter)
    assert acquire.waiter.interrupts is None
