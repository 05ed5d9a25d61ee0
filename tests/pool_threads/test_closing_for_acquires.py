# Generated from tests/pool/test_closing_for_acquires.py by .github/scripts/generate_threading.py; do not edit.

"""What an acquire needs closed is closed beside it: it keeps its timeout, and is served when the close ends."""

import pytest

from gcpool.exceptions import PoolTimeout
from tests.pool_threads.support import Case, CheckingManager, Gate, HookedManager, Manager
from tests.threads.runtime import spawn, until


@pytest.mark.parametrize('timeout', [0, 0.01])
def test_an_acquire_keeps_its_time_limit_while_a_dispose_hangs_that_it_needs(timeout: float) -> None:
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        with pytest.raises(PoolTimeout, match="waiting for a slot for 'b'"):
            case.pool.acquire('b', timeout=timeout)
        gate.reached()
        assert case.pool.get_size() == 1
        gate.open()
        assert case.cycle('b') == 'b1'


@pytest.mark.parametrize(
    ('manager_class', 'message'),
    [
        (CheckingManager, "waiting for a connection to 'a': max_size=1 reached"),
        (HookedManager, "waiting for a dead connection to 'a' to be closed"),
    ],
)
@pytest.mark.parametrize('timeout', [0, 0.01])
def test_an_acquire_keeps_its_time_limit_while_the_dispose_of_a_dead_connection_hangs(
    timeout: float, manager_class: type[Manager], message: str
) -> None:
    with Case(manager_class(), max_size=1) as case:
        case.cycle('a')
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        with pytest.raises(PoolTimeout, match=message):
            case.pool.acquire('a', timeout=timeout)
        gate.reached()
        assert case.pool.get_size() == 1
        gate.open()
        assert case.cycle('a') == 'a2'


def test_an_acquire_that_has_a_connection_of_another_endpoint_closed_is_served_when_the_close_ends() -> None:
    with Case(max_size=1, total_max_size=2) as case:
        case.cycle('a')
        held = case.pool.acquire('b')
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.pool.acquire, 'c')
        gate.reached()
        late = spawn(case.pool.acquire, 'd')
        case.waiting(2)
        assert case.pool.get_size() == 2
        gate.open()
        c1 = job.result()
        assert case.manager.take_calls() == ['create a', 'create b', 'dispose a1', 'create c']
        assert not late.done
        case.release(held)
        case.release(c1, late.result())


def test_connections_are_closed_beside_one_that_hangs() -> None:
    with Case(max_size=1, total_max_size=3) as case:
        for endpoint in 'abc':
            case.cycle(endpoint)
        gates = Gate(), Gate()
        case.manager.script('dispose', *gates)
        jobs = []
        for endpoint, gate in zip('xy', gates, strict=True):
            jobs.append(spawn(case.pool.acquire, endpoint))
            gate.reached()
        jobs.append(spawn(case.pool.acquire, 'z'))
        case.release(jobs.pop(0).result())
        for gate in gates:
            gate.open()
        case.release(*[job.result() for job in jobs])


def test_without_on_connection_dead_an_acquire_does_not_wait_for_a_dead_connection() -> None:
    with Case(CheckingManager(), min_idle=2, max_size=2) as case:
        case.release(*case.acquire('a', 2))
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        a2 = case.pool.acquire('a')
        assert a2.name == 'a2'
        gate.reached()
        gate.open()
        case.release(a2)


def test_on_connection_dead_is_called_by_the_acquire_after_the_end_of_the_dispose() -> None:
    with Case(HookedManager(), min_idle=2, max_size=2) as case:
        case.release(*case.acquire('a', 2))
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        case.manager.take_calls()
        job = spawn(case.pool.acquire, 'a')
        gate.reached()
        case.cycle('b')
        assert 'on_connection_dead a1' not in case.manager.calls
        gate.open()
        case.release(job.result())
        calls = [call for call in case.manager.take_calls() if not call.endswith((' b', ' b1'))]
        assert calls == [
            'check_aliveness a1',
            'dispose a1',
            'on_connection_dead a1',
            'check_aliveness a2',
            'on_acquire a2',
            'on_release a2',
        ]


def test_what_on_connection_dead_raises_reaches_the_acquire_and_loses_nothing() -> None:
    with Case(HookedManager(), min_idle=2, max_size=2) as case:
        case.release(*case.acquire('a', 2))
        case.manager.script('check_aliveness', False)
        case.manager.script('on_connection_dead', OSError('no'))
        with pytest.raises(OSError, match='no'):
            case.pool.acquire('a')
        assert case.stats['acquired'] == 0
        assert case.manager.living == ['a2']
        assert case.cycle('a') == 'a2'


def test_a_dead_connection_of_an_acquire_that_is_refused_is_closed() -> None:
    with Case(HookedManager()) as case:
        case.cycle('a')
        gate = Gate(False)
        case.manager.script('check_aliveness', gate)
        job = spawn(case.pool.acquire, 'a')
        gate.reached()
        closing = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        gate.open()
        with pytest.raises(Exception, match='is closed'):
            job.result()
        assert closing.result() == 0
        assert case.manager.living == []


# -- a close that hangs ------------------------------------------------------------------------------------------------

# A close is waited for until the next but one full second of the pool's clock. The test waits for that, too.
ALMOST_A_SECOND = 0.95


def test_who_waits_for_a_close_that_hangs_has_another_connection_closed_though_nobody_comes_by() -> None:
    with Case(total_max_size=3, max_size=3) as case:
        for endpoint in 'abc':
            case.cycle(endpoint)
        gates = Gate(), Gate()
        case.manager.script('dispose', *gates)
        case.clock.advance(ALMOST_A_SECOND)
        job = spawn(case.pool.acquire, 'x')
        for gate in gates:
            gate.reached()
            case.clock.advance(2)
        x1 = job.result()
        assert case.pool.get_size() == 3
        for gate in gates:
            gate.open()
        case.release(x1)


def test_who_waited_before_a_release_began_a_close_that_hangs_has_another_connection_closed() -> None:
    with Case(total_max_size=2, max_size=2) as case:
        a1, b1 = case.pool.acquire('a'), case.pool.acquire('b')
        job = spawn(case.pool.acquire, 'x')
        case.waiting(1)
        gate = Gate()
        case.manager.script('dispose', gate)
        case.clock.advance(ALMOST_A_SECOND)
        hanging = spawn(case.release, a1)
        gate.reached()
        case.release(b1)
        assert case.stats['idle'] == 1
        case.clock.advance(2)
        x1 = job.result()
        gate.open()
        hanging.result()
        case.release(x1)


def test_who_waits_is_not_forgotten_when_the_one_gives_up_whose_dead_connection_hangs_in_its_close() -> None:
    with Case(CheckingManager(), total_max_size=2, max_size=2) as case:
        case.cycle('a')
        b1 = case.pool.acquire('b')
        case.clock.advance(ALMOST_A_SECOND)
        check, close = Gate(False), Gate()
        case.manager.script('check_aliveness', check)
        case.manager.script('dispose', close)
        impatient = spawn(case.pool.acquire, 'a', timeout=0.05)
        check.reached()
        job = spawn(case.pool.acquire, 'x')
        case.waiting(1)
        check.open()
        close.reached()
        with pytest.raises(PoolTimeout):
            impatient.result()
        case.release(b1)
        assert case.stats['idle'] == 1
        case.clock.advance(2)
        x1 = job.result()
        close.open()
        case.release(x1)
