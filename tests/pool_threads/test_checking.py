# Generated from tests/pool/test_checking.py by .github/scripts/generate_threading.py; do not edit.

"""Checks: how long a user waits for them at most, and those that the pool makes in the background."""

import logging
from typing import Any

import pytest

from gcpool.exceptions import ConnectionPoolClosedError
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, CheckingManager, Gate, HookedManager, Manager, follow
from tests.support import Connection
from tests.threads.runtime import no_answer, spawn, until

CHECK = 'check_aliveness'

# Seconds of the clock that the test sets, and of the real one: what a check may take, and between two checks.
SHORT = 0.005


class Deaf(HookedManager):
    """The server of some connections does not answer.

    :ivar deaf: the names of these connections
    """

    def __init__(self, *deaf: str) -> None:
        super().__init__()
        self.deaf = set(deaf)

    def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        step = self.begin(CHECK, conn)
        self.timeouts.append(timeout)
        if conn.name in self.deaf:
            no_answer()
        alive = follow(step)
        return alive is None or alive


def checked(case: Case) -> list[str]:
    """Return which connections were checked since the last call."""
    return [call.removeprefix('check_aliveness ') for call in case.manager.take_calls() if call.startswith(CHECK)]


def at_rest(case: Case) -> None:
    """Wait until nothing is checked or closed in the background."""
    until(lambda: case.stats['checking'] == 0 and case.stats['size'] == case.stats['idle'] + case.stats['acquired'])


# ---- one check_timeout for one user -------------------------------------------------------------------------------


def test_an_outage_costs_a_user_one_check_timeout() -> None:
    manager = Deaf('a1', 'a2', 'a3')
    with Case(manager, check_timeout=SHORT, min_idle=3) as case:
        case.release(*case.acquire('a', 3))
        manager.take_calls()
        conn = case.pool.acquire('a')
        assert conn.name == 'a4'
        # Whether the others were checked by then or not: this acquire has waited for one check.
        at_rest(case)
        assert sorted(checked(case)) == ['a1', 'a2', 'a3']
        assert (case.stats['checks'], case.stats['checks_failed'], case.stats['dead']) == (3, 3, 3)
        assert manager.living == ['a4']
        case.release(conn)


@pytest.mark.parametrize('users', [1, 5])
def test_no_check_storm_after_an_outage_with_five_stale_connections(users: int) -> None:
    """psycopg_pool sleeps 1, 2, 4 s between failed checks: its first acquire took 15 s."""
    stale = [f'a{number}' for number in range(1, 6)]
    manager = Deaf(*stale)
    with Case(manager, check_timeout=SHORT, min_idle=5, max_size=10) as case:
        case.release(*case.acquire('a', 5))
        manager.take_calls()
        jobs = [spawn(case.pool.acquire, 'a') for _ in range(users)]
        conns = [job.result() for job in jobs]
        # No user waits for a second check: each that found a stale connection connects. None is checked twice.
        assert not {conn.name for conn in conns} & {*stale}
        at_rest(case)
        assert sorted(checked(case)) == stale
        assert case.stats['checks'] == case.stats['dead'] == 5
        assert case.stats['created'] == 5 + users
        case.release(*conns)


def test_at_max_size_the_user_connects_in_the_place_of_the_dead_one() -> None:
    manager = Deaf('a1', 'a2')
    with Case(manager, check_timeout=SHORT, min_idle=2, max_size=2) as case:
        case.release(*case.acquire('a', 2))
        gate = Gate()
        manager.script('dispose', gate)
        job = spawn(case.pool.acquire, 'a')
        gate.reached()
        late = spawn(case.pool.acquire, 'a')
        gate.open()
        first, second = job.result(), late.result()
        assert sorted([first.name, second.name]) == ['a3', 'a4']
        case.release(first, second)
        at_rest(case)
        assert manager.living == ['a3', 'a4']


def test_what_the_pool_has_found_alive_is_served_without_another_check() -> None:
    manager = Deaf('a1')
    with Case(manager, check_timeout=SHORT, min_idle=2, max_size=2) as case:
        case.release(*case.acquire('a', 2))
        gate = Gate()
        manager.script('dispose', gate)
        manager.take_calls()
        conn = case.pool.acquire('a')
        assert conn.name == 'a2'
        calls = manager.take_calls()
        assert [call for call in calls if call.startswith(CHECK)] == ['check_aliveness a1', 'check_aliveness a2']
        # Nor has it waited for the close of the dead one, of which the manager is told later.
        assert 'on_connection_dead a1' not in calls
        gate.open()
        until(lambda: 'on_connection_dead a1' in manager.calls)
        case.release(conn)
        assert (case.stats['acquires'], case.stats['checks']) == (3, 2)


def test_suspects_that_are_alive_go_back_to_their_places() -> None:
    manager = Deaf('a1')
    with Case(manager, check_timeout=SHORT, check_interval=1000, min_idle=4) as case:
        case.release(*case.acquire('a', 4))
        case.clock.advance(1000)
        conn = case.pool.acquire('a')
        at_rest(case)
        assert conn.name == 'a5'
        assert sorted(checked(case)) == ['a1', 'a2', 'a3', 'a4']
        case.release(conn)
        assert [case.cycle('a') for _ in range(4)] == ['a2', 'a3', 'a4', 'a5']


def test_a_check_without_a_limit_of_its_own_is_the_acquire_s_affair() -> None:
    with Case(CheckingManager()) as case:
        case.release(*case.acquire('a', 2))
        case.manager.script(CHECK, TimeoutError('mine'))
        with pytest.raises(TimeoutError, match='mine'):
            case.pool.acquire('a')
        assert (case.stats['checking'], case.stats['idle']) == (0, 2)


def test_five_stale_connections_are_rejected_one_after_the_other_without_a_pause() -> None:
    with Case(HookedManager(), min_idle=5, max_size=6) as case:
        case.release(*case.acquire('a', 5))
        case.manager.script(CHECK, *[False] * 5)
        case.manager.take_calls()
        # A pause would take until the end of the time limit, by a clock that stands still.
        conn = case.pool.acquire('a', timeout=30)
        assert conn.name == 'a6'
        assert checked(case) == ['a1', 'a2', 'a3', 'a4', 'a5']
        case.release(conn)


# ---- check() ------------------------------------------------------------------------------------------------------


def test_check_closes_what_is_dead_and_returns_how_many() -> None:
    with Case(HookedManager(), min_idle=3) as case:
        case.release(*case.acquire('a', 3))
        case.release(*case.acquire('b', 2))
        case.manager.script(CHECK, False)
        case.manager.take_calls()
        assert case.pool.check('a') == 1
        assert sorted(call for call in case.manager.take_calls() if 'on_connection_dead' not in call) == [
            'check_aliveness a1',
            'check_aliveness a2',
            'check_aliveness a3',
            'dispose a1',
        ]
        assert (case.stats['dead'], case.stats['closed_dead'], case.stats['checks_failed']) == (1, 1, 1)
        assert case.pool.check() == 0
        assert sorted(checked(case)) == ['a2', 'a3', 'b1', 'b2']
        assert case.pool.check('c') == 0


def test_on_connection_dead_is_told_after_the_close() -> None:
    with Case(HookedManager()) as case:
        case.cycle('a')
        case.manager.script(CHECK, False)
        assert case.pool.check() == 1
        until(lambda: case.manager.calls[-1] == 'on_connection_dead a1')
        assert case.manager.calls[-3:] == ['check_aliveness a1', 'dispose a1', 'on_connection_dead a1']


def test_of_each_endpoint_one_is_checked_at_a_time_and_the_others_are_served() -> None:
    with Case(CheckingManager(), check_interval=50, min_idle=3) as case:
        case.release(*case.acquire('a', 3))
        gate = Gate()
        case.manager.script(CHECK, gate)
        job = spawn(case.pool.check, 'a')
        gate.reached()
        assert (case.stats['checking'], case.stats['idle'], case.stats['size']) == (1, 2, 3)
        assert [case.cycle('a') for _ in range(3)] == ['a2', 'a3', 'a2']
        gate.open()
        assert job.result() == 0
        assert checked(case) == ['a1', 'a2', 'a3']


def test_a_check_is_no_use_and_changes_no_order() -> None:
    with Case(CheckingManager(), check_interval=1000, min_idle=2, idle_timeout=60) as case:
        case.release(*case.acquire('a', 4))
        before = case.stats
        case.clock.advance(30)
        assert case.pool.check() == 0
        assert case.stats == before | {'checks': 4}
        # The last two are core, because the first two were returned while others were out.
        assert [conn.name for conn in case.acquire('a', 4)] == ['a3', 'a4', 'a2', 'a1']
        case.release(*case.manager.connections)
        case.clock.advance(30)
        case.pool.check()
        case.clock.advance(30)
        # The extra connections were unused for 60 s.
        assert case.cycle('b') == 'b1'
        assert case.manager.living == ['a3', 'a4', 'b1']


def test_a_waiter_is_served_what_was_being_checked() -> None:
    with Case(CheckingManager(), max_size=1) as case:
        case.cycle('a')
        gate = Gate()
        case.manager.script(CHECK, gate)
        check = spawn(case.pool.check)
        gate.reached()
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        gate.open()
        conn = job.result()
        assert conn.name == 'a1'
        assert check.result() == 0
        assert checked(case) == ['a1']
        case.release(conn)


def test_the_slot_of_what_was_being_checked_goes_to_a_waiter_of_another_endpoint() -> None:
    with Case(CheckingManager(), max_size=1, total_max_size=1) as case:
        case.cycle('a')
        gate = Gate()
        case.manager.script(CHECK, gate)
        check = spawn(case.pool.check)
        gate.reached()
        job = spawn(case.pool.acquire, 'b')
        case.waiting(1)
        gate.open()
        case.release(job.result())
        assert check.result() == 0
        assert case.stats['closed_evicted'] == 1


def test_a_check_that_fails_is_logged_and_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with Case(CheckingManager(), check_interval=50, min_idle=2) as case:
        case.release(*case.acquire('a', 2))
        case.manager.script(CHECK, OSError('unclear'))
        with caplog.at_level(logging.ERROR, 'gcpool'):
            assert case.pool.check() == 0
        assert "a check of a connection to 'a' failed: OSError: unclear" in caplog.text
        assert case.stats['idle'] == 2
        case.manager.take_calls()
        # Nobody knows about the first one, which is checked when it is served.
        assert [case.cycle('a') for _ in range(2)] == ['a1', 'a2']
        assert checked(case) == ['a1']


def test_a_check_that_does_not_answer_in_time_is_dead() -> None:
    manager = Deaf('a1')
    with Case(manager, check_timeout=SHORT, min_idle=2) as case:
        case.release(*case.acquire('a', 2))
        assert case.pool.check() == 1
        at_rest(case)
        assert manager.living == ['a2']


def test_a_connection_found_dead_by_check_makes_the_others_suspect() -> None:
    with Case(CheckingManager(), check_interval=50, min_idle=3) as case:
        held, *idle = case.acquire('a', 3)
        case.release(*idle)
        case.manager.script(CHECK, False)
        assert case.pool.check() == 1
        case.release(held)
        case.manager.take_calls()
        assert [case.cycle('a') for _ in range(3)] == ['a3', 'a1', 'a3']
        assert checked(case) == ['a1']


def test_what_is_checked_when_the_pool_is_closed_is_closed() -> None:
    with Case(CheckingManager()) as case:
        case.release(*case.acquire('a', 2))
        gate = Gate()
        case.manager.script(CHECK, gate)
        check = spawn(case.pool.check)
        gate.reached()
        job = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        gate.open()
        assert job.result() == 0
        check.result()
        assert case.manager.living == []


def test_a_check_that_hangs_does_not_keep_close_beyond_its_limit() -> None:
    with Case(CheckingManager()) as case:
        case.cycle('a')
        gate = Gate()
        case.manager.script(CHECK, gate)
        check = spawn(case.pool.check)
        gate.reached()
        assert case.pool.close(timeout=0) == 0
        until(lambda: case.pool.get_size() == 0)
        gate.open()
        assert check.result() == 0


def test_check_is_refused_where_nothing_can_be_checked() -> None:
    with Case(Manager()) as case:
        case.cycle('a')
        with pytest.raises(TypeError, match=r'has no check_aliveness\(\)'):
            case.pool.check()
    with Case(CheckingManager()) as case:
        with pytest.raises(TypeError, match='hashable'):
            case.pool.check([])
        case.pool.close()
        with pytest.raises(ConnectionPoolClosedError, match='no connection can be checked'):
            case.pool.check()


# ---- keepalive_interval -------------------------------------------------------------------------------------------


def test_an_idle_connection_is_checked_when_it_was_not_used_for_the_interval() -> None:
    with Case(HookedManager(), keepalive_interval=SHORT, _random=lambda: 0.0) as case:
        case.cycle('a')
        case.manager.take_calls()
        case.clock.advance(SHORT)
        until(lambda: case.stats['checks'] == 1)
        at_rest(case)
        assert case.manager.take_calls() == ['check_aliveness a1']
        case.clock.advance(SHORT)
        until(lambda: case.stats['checks'] == 2)
        at_rest(case)
        case.manager.script(CHECK, False)
        case.clock.advance(SHORT)
        until(lambda: case.stats['size'] == 0)
        assert (case.stats['acquires'], case.stats['closed_dead']) == (1, 1)


@pytest.mark.parametrize('collector', [True, False])
def test_what_is_used_is_not_checked_and_its_use_counts(collector: bool) -> None:
    with Case(
        CheckingManager(),
        keepalive_interval=SHORT,
        check_interval=1000,
        background_collector=collector,
        min_idle=2,
        _random=lambda: 0.0,
    ) as case:
        a1, a2 = case.acquire('a', 2)
        case.release(a2)
        case.clock.advance(SHORT)
        until(lambda: case.stats['checks'] == 1)
        at_rest(case)
        assert checked(case) == ['a2']
        case.release(a1)


def test_without_a_collector_keepalive_closes_nothing_that_is_due() -> None:
    with Case(CheckingManager(), keepalive_interval=SHORT, idle_timeout=SHORT, min_idle=0, _random=lambda: 0.0) as case:
        case.cycle('a')
        case.clock.advance(SHORT)
        until(lambda: case.stats['checks'] == 1)
        at_rest(case)
        assert case.stats['idle'] == 1


def test_a_pool_without_connections_wakes_up_for_nothing() -> None:
    with Case(CheckingManager(), keepalive_interval=SHORT) as case:
        pool: ConnectionPool[Any, Any] = case.pool
        assert pool._collector is not None
        assert pool._due_in() is None
        conn = case.pool.acquire('a')
        due = pool._due_in()
        assert due is not None
        assert 0.9 * SHORT <= due <= SHORT + 1e-9
        case.pool.close(timeout=0)
        until(lambda: case.pool.get_size() == 0)
        assert pool._due_in() is None
        case.release(conn)


@pytest.mark.parametrize(
    ('options', 'kind', 'message'),
    [
        (
            {'keepalive_interval': 60, 'max_lifetime': 60},
            ValueError,
            'keepalive_interval=60.0 is not less than max_life',
        ),
        ({'keepalive_interval': -1}, ValueError, 'keepalive_interval=-1'),
        ({'keepalive_interval': '1'}, TypeError, "keepalive_interval='1'"),
        ({'lifetime_jitter': 1.5}, ValueError, 'lifetime_jitter=1.5: expected a fraction from 0 to 1'),
        ({'lifetime_jitter': float('nan')}, ValueError, 'lifetime_jitter=nan: expected a fraction from 0 to 1'),
        ({'lifetime_jitter': True}, TypeError, 'lifetime_jitter=True: expected a fraction from 0 to 1 as a float'),
        ({'max_uses': -1}, ValueError, 'max_uses=-1: expected 0 or more'),
        ({'max_uses': 1.0}, TypeError, 'max_uses=1.0: expected a number of uses as an int'),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ConnectionPool(CheckingManager(), **options)


def test_keepalive_needs_a_check() -> None:
    with pytest.raises(ValueError, match=r'keepalive_interval=5, and connection_manager .* has no check_aliveness\(\)'):
        ConnectionPool(Manager(), keepalive_interval=5)
