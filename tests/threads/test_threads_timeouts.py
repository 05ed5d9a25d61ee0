"""Which time limits a manager for threads is passed: the time that the caller has left."""

import logging
import math
from fractions import Fraction

import pytest

from tests.pool_threads.support import Case, CheckingManager, Gate, HookedManager, Manager
from tests.support import Clock, Connection
from tests.threads.runtime import spawn, until


@pytest.mark.parametrize(
    ('timeout', 'told'),
    [(None, None), (10, 10.0), (0, 0.0), (2.5, 2.5), (Fraction(5, 2), 2.5), (math.inf, None), (1e10, None)],
)
def test_create_is_told_the_time_limit_of_the_acquire(timeout: float | None, told: float | None) -> None:
    with Case() as case:
        case.release(case.pool.acquire('a', timeout=timeout))
        assert case.manager.timeouts == [told]


def test_create_is_told_the_acquire_timeout_of_the_pool() -> None:
    with Case(acquire_timeout=7) as case:
        conn = case.pool.acquire('a')
        other = case.pool.acquire('a', timeout=3)
        with case.pool.connection('a'), case.pool.connection('a', timeout=2):
            assert case.manager.timeouts == [7.0, 3.0, 7.0, 2.0]
        case.release(conn, other)


def test_create_is_told_what_the_wait_before_it_has_left() -> None:
    with Case(max_size=1, total_max_size=1) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'b', timeout=1000)
        case.waiting(1)
        case.clock.advance(400)
        case.release(conn)
        case.release(job.result())
        # The dispose of a1 has no limit.
        assert case.manager.timeouts == [None, None, 600.0]


def test_a_manager_is_never_told_less_than_nothing() -> None:
    with Case(max_size=1, total_max_size=1) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'b', timeout=1000)
        case.waiting(1)
        case.clock.advance(5000)
        case.release(conn)
        case.release(job.result())
        assert case.manager.timeouts[-1] == 0.0


@pytest.mark.parametrize('manager_class', [CheckingManager, HookedManager])
@pytest.mark.parametrize(('timeout', 'told'), [(None, None), (10, 10.0), (0, 0.0)])
def test_check_aliveness_is_told_the_time_limit_of_the_acquire(
    timeout: float | None, told: float | None, manager_class: type[Manager]
) -> None:
    with Case(manager_class()) as case:
        case.cycle('a')
        case.release(case.pool.acquire('a', timeout=timeout))
        assert case.manager.timeouts == [None, told]


def test_the_check_of_the_next_connection_is_told_what_is_left_after_the_first() -> None:
    with Case(CheckingManager(), min_idle=2) as case:
        case.release(*case.acquire('a', 2))
        gate = Gate(False)
        case.manager.script('check_aliveness', gate)
        case.manager.timeouts.clear()
        job = spawn(case.pool.acquire, 'a', timeout=1000)
        gate.reached()
        case.clock.advance(300)
        gate.open()
        case.release(job.result())
        # The dead connection is closed beside that, and is not passed the acquire's limit.
        until(lambda: case.manager.living == ['a2'])
        case.manager.timeouts.remove(None)
        assert case.manager.timeouts == [1000.0, 700.0]


@pytest.mark.parametrize(
    ('dispose_timeout', 'told'), [(None, None), (0, 0.0), (5, 5.0), (1e10, None), (math.inf, None)]
)
def test_dispose_is_told_the_dispose_timeout_of_the_pool(dispose_timeout: float | None, told: float | None) -> None:
    with Case(min_idle=0, idle_timeout=0, dispose_timeout=dispose_timeout) as case:
        case.cycle('a')
        assert case.manager.timeouts == [None, told]


def test_the_dispose_of_a_dead_connection_is_told_the_dispose_timeout_and_not_what_the_acquire_has_left() -> None:
    with Case(CheckingManager(), dispose_timeout=2.0, max_size=1) as case:
        case.cycle('a')
        case.manager.script('check_aliveness', False)
        case.manager.take_calls()
        case.manager.timeouts.clear()
        case.release(case.pool.acquire('a', timeout=5.0))
        assert case.manager.take_calls() == ['check_aliveness a1', 'dispose a1', 'create a']
        assert case.manager.timeouts == [5.0, 2.0, 5.0]


@pytest.mark.parametrize(
    ('dispose_timeout', 'timeout', 'told'),
    [
        (None, None, None),
        (5, None, 5.0),
        (None, 3, 3.0),
        (5, 3, 3.0),
        (2, 3, 2.0),
        (None, 0, 0.1),
        (5, 0, 0.1),
        (None, 1e10, None),
        (math.inf, None, None),
    ],
)
def test_the_disposals_of_close_are_told_what_is_left_and_at_least_a_tenth_of_a_second(
    dispose_timeout: float | None, timeout: float | None, told: float | None
) -> None:
    with Case(dispose_timeout=dispose_timeout) as case:
        case.cycle('a')
        case.pool.close(timeout=timeout)
        assert case.manager.timeouts == [None, told]


class SlowManager(Manager):
    """Takes all its time to dispose of a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()

    def dispose(self, endpoint: str, conn: Connection, timeout: float | None = None) -> None:
        super().dispose(endpoint, conn, timeout)
        assert timeout is not None
        self.clock.advance(timeout)


@pytest.mark.parametrize('timeout', [0, 2.0])
def test_a_close_is_not_made_late_by_each_dispose_that_takes_all_its_time(timeout: float) -> None:
    manager = SlowManager()
    with Case(manager, min_idle=40, max_size=80) as case:
        manager.clock = case.clock
        conns = case.acquire('a', 80)
        case.release(*conns[:40])
        begin = case.clock()
        assert case.pool.close(timeout=timeout) == 40
        assert case.manager.living == []
        assert 0.4 < case.clock() - begin - timeout < 0.6
        assert min(limit for limit in case.manager.timeouts if limit is not None) > 0
        case.release(*conns[40:])


def test_a_dispose_that_gives_up_is_logged_and_the_connection_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    with Case(min_idle=0, idle_timeout=0, dispose_timeout=5) as case:
        case.manager.script('dispose', TimeoutError())
        case.cycle('a')
        assert case.pool.get_size() == 0
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert errors == [f"{case.pool.name}: closing a connection to 'a' timed out: the limit was 5 s [idle]"]


def test_a_time_limit_longer_than_the_system_can_wait_is_kept() -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a', timeout=1e300)
        case.waiting(1)
        case.release(conn)
        case.release(job.result())


@pytest.mark.parametrize(
    ('timeout', 'check_timeout', 'told'),
    [
        (None, 2.5, 2.5),
        (10, 2.5, 2.5),
        (2.5, 10, 2.5),
        (0, 10, 0.0),
        (10, None, 10.0),
        (None, math.inf, None),
        (None, 1e10, None),
    ],
)
def test_check_aliveness_is_told_the_shorter_one_of_two_limits(
    timeout: float | None, check_timeout: float | None, told: float | None
) -> None:
    with Case(CheckingManager(), check_timeout=check_timeout) as case:
        case.cycle('a')
        case.release(case.pool.acquire('a', timeout=timeout))
        assert case.manager.timeouts == [None, told]


@pytest.mark.parametrize('manager_class', [CheckingManager, HookedManager])
def test_a_connection_that_does_not_answer_within_the_check_timeout_is_dead(manager_class: type[Manager]) -> None:
    with Case(manager_class(), check_timeout=2.5) as case:
        case.cycle('a')
        case.manager.script('check_aliveness', TimeoutError('no answer'))
        assert case.cycle('a') == 'a2'
        assert case.stats['dead'] == 1


def test_a_check_that_takes_all_the_time_of_the_acquire_ends_it() -> None:
    with Case(CheckingManager(), check_timeout=10) as case:
        case.cycle('a')
        case.manager.script('check_aliveness', TimeoutError('no answer'))
        with pytest.raises(TimeoutError, match='no answer'):
            case.pool.acquire('a', timeout=5)
        assert (case.stats['dead'], case.stats['idle']) == (0, 1)


def test_a_check_of_what_was_waited_for_is_bounded_too() -> None:
    with Case(CheckingManager(), max_size=1, check_timeout=2.5) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.manager.script('check_aliveness', TimeoutError('no answer'))
        case.release(conn)
        other = job.result()
        assert other.name == 'a2'
        case.release(other)
