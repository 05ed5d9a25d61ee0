"""How many jobs the core hands out to workers at a time."""

import pytest

from gcpool._core import Entry
from tests.engine.support import Pool


def doomed(count: int, max_workers: int = 0) -> Pool:
    """A pool that has so many connections for workers to close."""
    pool = Pool(max_size=1, total_max_size=1000, max_workers=max_workers)
    for endpoint in range(count):
        pool.fill(endpoint, 1)
    pool.core.drain_all(pool.now)
    assert pool.core.left_to_workers == count
    return pool


def take_closes(pool: Pool) -> list[Entry]:
    taken = []
    while (entry := pool.core.take_doomed_for_worker()) is not None:
        taken.append(entry)
    pool.core.check_invariants()
    return taken


def test_without_a_bound_64_closes_and_16_checks_are_at_work_at_most() -> None:
    pool = doomed(100)
    assert pool.core.jobs_to_begin == 64
    taken = take_closes(pool)
    assert len(taken) == pool.core.jobs_at_work == 64
    pool.core.disposed(taken[0], pool.now, True)
    assert (pool.core.jobs_to_begin, pool.core.jobs_at_work) == (1, 63)


@pytest.mark.parametrize(('max_workers', 'closes'), [(1, 1), (2, 1), (3, 2), (8, 7), (100, 64)])
def test_closes_leave_one_of_the_workers(max_workers: int, closes: int) -> None:
    pool = doomed(80, max_workers=max_workers)
    assert pool.core.jobs_to_begin == closes
    assert len(take_closes(pool)) == closes
    assert pool.core.jobs_to_begin == 0


@pytest.mark.parametrize('how', ['closed', 'put back'])
def test_a_job_that_ends_makes_room(how: str) -> None:
    pool = doomed(3, max_workers=2)
    [entry] = take_closes(pool)
    if how == 'closed':
        pool.core.disposed(entry, pool.now, True)
    else:
        pool.core.doom_again(entry)
    assert pool.core.jobs_at_work == 0
    assert len(take_closes(pool)) == 1


def test_what_a_caller_takes_is_no_job() -> None:
    pool = doomed(3, max_workers=1)
    entry = pool.core.take_doomed()
    assert entry is not None
    assert pool.core.jobs_at_work == 0
    pool.core.disposed(entry, pool.now)
    assert pool.core.jobs_at_work == 0


def test_creates_leave_one_of_the_workers_and_slots_stay_reserved() -> None:
    pool = Pool(creates_in_background=True, max_size=5, total_max_size=5, max_workers=3)
    waiters = [pool.ask('a') for _ in range(4)]
    assert pool.core.jobs_to_begin == 2
    tickets = pool.take_creates()
    assert len(tickets) == pool.core.jobs_at_work == 2
    assert pool.core.reserved == 2
    for ticket in tickets:
        pool.grow(ticket)
    assert pool.core.jobs_at_work == 0
    for ticket in pool.take_creates():
        pool.grow(ticket)
    assert len(waiters) == 4


def test_a_create_that_fails_or_is_given_up_makes_room() -> None:
    pool = Pool(creates_in_background=True, max_size=5, total_max_size=5, max_workers=1)
    pool.kept = [pool.ask('a') for _ in range(3)]
    [ticket] = pool.take_creates()
    pool.core.grow_failed(ticket, OSError(), OSError(), False, pool.now)
    assert pool.core.jobs_at_work == 0
    [ticket] = pool.take_creates()
    pool.core.grow_cancelled(ticket, pool.now)
    assert pool.core.jobs_at_work == 0


def test_the_close_of_what_a_check_has_found_dead_is_a_job_of_its_own() -> None:
    pool = Pool(max_size=1, total_max_size=9, keepalive_interval=10.0, random=lambda: 0.0, max_workers=1)
    pool.fill('a', 1)
    pool.now = 20.0
    assert pool.core.begin_due_checks(pool.now) == 1
    entry = pool.core.take_check()
    assert entry is not None
    assert pool.core.jobs_at_work == 1
    assert pool.core.end_check_by_pool(entry, False, pool.now)
    assert pool.core.jobs_at_work == 0
    assert pool.core.jobs_to_begin == 1
    pool.core.check_invariants()


def test_the_bound_can_be_changed() -> None:
    pool = doomed(9, max_workers=2)
    assert len(take_closes(pool)) == 1
    assert pool.core.resize(pool.now, max_workers=5)
    assert pool.core.max_workers == 5
    assert len(take_closes(pool)) == 3
    assert pool.core.resize(pool.now, max_workers=1)
    assert pool.core.jobs_to_begin == 0
    assert pool.core.resize(pool.now, max_workers=0)
    assert len(take_closes(pool)) == 5
