# Generated from tests/pool/test_close.py by .github/scripts/generate_threading.py; do not edit.

"""Closing: in time, with connections in use, waiters and running operations; and what a closed pool still does."""

import logging

import pytest

from gcpool.exceptions import BaseError, ConnectionNotAcquired, ConnectionPoolClosedError
from tests.pool_threads.support import Case, CheckingManager, Gate, HookedManager, Manager
from tests.support import Interruption
from tests.threads.runtime import spawn, until


def test_close_disposes_of_all_idle_connections() -> None:
    with Case(min_idle=1) as case:
        for endpoint in 'abc':
            case.release(*case.acquire(endpoint, 3))
        assert case.pool.close() == 0
        assert case.manager.living == []
        assert case.pool.get_size() == 0


def test_close_of_a_pool_that_was_never_used_returns_at_once() -> None:
    with Case(HookedManager()) as case:
        assert case.pool.close() == 0
        assert case.manager.calls == []


@pytest.mark.parametrize('timeout', [0, 0.01])
@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
def test_close_with_connections_out_returns_in_time_closes_them_and_reports_them(
    manager_class: type[Manager], timeout: float, caplog: pytest.LogCaptureFixture
) -> None:
    with Case(manager_class()) as case:
        out = [*case.acquire('a', 2), *case.acquire('b', 1)]
        case.cycle('c')
        assert case.pool.close(timeout=timeout) == 3
        assert case.manager.living == []
        assert case.pool.get_size() == 0
        expected = f'{case.pool.name}: closing the pool: 3 connections were not released within {timeout:g} s'
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [(record.name, record.getMessage()) for record in warnings] == [('gcpool', expected)]
        # Their users release them later.
        case.manager.take_calls()
        case.release(*out)
        assert case.manager.take_calls() == []


def test_close_waits_for_connections_that_are_out() -> None:
    with Case() as case:
        conns = case.acquire('a', 2)
        job = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        case.release(conns[0])
        assert case.manager.take_calls() == ['create a', 'create a', 'dispose a1']
        assert not job.done
        case.release(conns[1])
        assert job.result() == 0
        assert case.manager.take_calls() == ['dispose a2']


def test_close_within_a_time_limit_returns_as_soon_as_all_are_back() -> None:
    with Case() as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.close, timeout=3600)
        until(lambda: case.pool._core.closed)
        case.release(conn)
        assert job.result() == 0


def test_close_refuses_those_who_wait_at_once_though_connections_are_out() -> None:
    with Case(max_size=1, total_max_size=2) as case:
        held = [case.pool.acquire('a'), case.pool.acquire('b')]
        waiters = []
        for number, endpoint in enumerate(['a', 'b', 'c', 'c']):
            waiters.append(spawn(case.pool.acquire, endpoint))
            case.waiting(number + 1)
        job = spawn(case.pool.close)
        for waiter in waiters:
            with pytest.raises(ConnectionPoolClosedError, match=r'is closed: no connection to .* can be'):
                waiter.result()
        assert not job.done
        case.release(*held)
        assert job.result() == 0


def test_a_closed_pool_refuses_every_acquire() -> None:
    with Case() as case:
        case.cycle('a')
        case.pool.close()
        case.manager.take_calls()
        for endpoint in 'ab':
            for timeout in (None, 0, 1):
                with pytest.raises(ConnectionPoolClosedError, match=f'is closed: .* to {endpoint!r}'):
                    case.pool.acquire(endpoint, timeout=timeout)
                with pytest.raises(BaseError):
                    case.pool.connection(endpoint, timeout=timeout).__enter__()
        assert case.manager.calls == []
        assert case.stats['endpoints'] == 0
        assert case.pool.get_size() == 0
        assert case.pool.get_endpoint_pool_size('a') == 0
        assert 'closed' in repr(case.pool)


def test_closing_twice_is_closing_once() -> None:
    with Case() as case:
        case.cycle('a')
        assert case.pool.close() == 0
        assert case.pool.close(timeout=0) == 0
        assert case.manager.calls == ['create a', 'dispose a1']


def test_closes_at_the_same_time_all_return_when_everything_is_back() -> None:
    with Case() as case:
        conn = case.pool.acquire('a')
        jobs = [spawn(case.pool.close) for _ in range(5)]
        until(lambda: case.pool._core.closed)
        case.release(conn)
        assert [job.result() for job in jobs] == [0] * 5
        assert conn.disposals == 1


def test_a_close_that_gives_up_ends_the_wait_of_another_one() -> None:
    with Case() as case:
        conn = case.pool.acquire('a')
        patient = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        assert case.pool.close(timeout=0) == 1
        assert patient.result() == 0
        case.release(conn)


def test_a_connection_closed_while_in_use_may_be_released_once() -> None:
    with Case() as case:
        conn = case.pool.acquire('a')
        assert case.pool.close(timeout=0) == 1
        with pytest.raises(ConnectionNotAcquired):
            case.pool.release(conn, 'b')
        case.release(conn)
        with pytest.raises(ConnectionNotAcquired):
            case.release(conn)
        assert conn.disposals == 1


def test_connections_may_be_given_back_while_close_disposes_of_them() -> None:
    with Case() as case:
        conns = case.acquire('a', 3)
        gate = Gate()
        case.manager.script('dispose', gate)
        close = spawn(case.pool.close, timeout=0)
        gate.reached()
        case.release(*conns)
        gate.open()
        assert close.result() == 3


@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
def test_a_context_may_be_left_after_its_connection_was_closed_over_it(manager_class: type[Manager]) -> None:
    with Case(manager_class()) as case:
        with case.pool.connection('a') as conn:
            assert case.pool.close(timeout=0) == 1
            assert conn.disposals == 1
            case.manager.take_calls()
        assert case.manager.calls == []


@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
def test_a_connection_given_back_to_a_pool_that_is_closing_is_disposed_of_by_its_release(
    manager_class: type[Manager],
) -> None:
    with Case(manager_class()) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        case.release(conn)
        assert conn.disposals == 1
        assert job.result() == 0


def test_a_connection_whose_creation_outlasts_close_is_disposed_of_and_its_acquirer_refused() -> None:
    with Case(HookedManager()) as case:
        gate = Gate()
        case.manager.script('create', gate)
        acquire = spawn(case.pool.acquire, 'a')
        gate.reached()
        close = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        assert not close.done
        gate.open()
        with pytest.raises(ConnectionPoolClosedError, match="closed while a connection to 'a' was created"):
            acquire.result()
        assert close.result() == 0
        assert case.manager.calls == ['create a', 'dispose a1']


def test_close_does_not_wait_longer_for_a_creation_than_it_may() -> None:
    with Case() as case:
        gate = Gate()
        case.manager.script('create', gate)
        acquire = spawn(case.pool.acquire, 'a')
        gate.reached()
        assert case.pool.close(timeout=0.01) == 0
        assert case.pool.get_size() == 1
        gate.open()
        with pytest.raises(ConnectionPoolClosedError):
            acquire.result()
        until(lambda: case.manager.living == [])


def test_a_creation_that_fails_after_close_ends_the_close() -> None:
    with Case() as case:
        gate = Gate(OSError('no'))
        case.manager.script('create', gate)
        acquire = spawn(case.pool.acquire, 'a')
        gate.reached()
        close = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        gate.open()
        with pytest.raises(OSError, match='no'):
            acquire.result()
        assert close.result() == 0


@pytest.mark.parametrize('verdict', [True, False])
@pytest.mark.parametrize('manager_class', [CheckingManager, HookedManager])
def test_a_check_that_outlasts_a_close_that_gave_up_does_not_serve_the_disposed_connection(
    manager_class: type[Manager], verdict: bool
) -> None:
    with Case(manager_class()) as case:
        case.cycle('a')
        gate = Gate(verdict)
        case.manager.script('check_aliveness', gate)
        acquire = spawn(case.pool.acquire, 'a')
        gate.reached()
        assert case.pool.close(timeout=0) == 1
        case.manager.take_calls()
        gate.open()
        with pytest.raises(ConnectionPoolClosedError):
            acquire.result()
        assert not {'dispose a1', 'on_connection_dead a1'} & {*case.manager.calls}


def test_a_hook_that_outlasts_a_close_that_gave_up_does_not_serve_the_disposed_connection() -> None:
    with Case(HookedManager()) as case:
        gate = Gate()
        case.manager.script('on_acquire', gate)
        acquire = spawn(case.pool.acquire, 'a')
        gate.reached()
        assert case.pool.close(timeout=0) == 1
        gate.open()
        with pytest.raises(ConnectionPoolClosedError):
            acquire.result()


def test_on_release_that_outlasts_a_close_that_gave_up_ends_the_release() -> None:
    with Case(HookedManager()) as case:
        conn = case.pool.acquire('a')
        gate = Gate()
        case.manager.script('on_release', gate)
        release = spawn(case.release, conn)
        gate.reached()
        assert case.pool.close(timeout=0) == 1
        gate.open()
        release.result()
        assert conn.disposals == 1


def test_close_waits_for_disposals_that_are_under_way() -> None:
    with Case(min_idle=0, idle_timeout=0) as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        conn = case.pool.acquire('a')
        release = spawn(case.release, conn)
        gate.reached()
        close = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        assert not close.done
        gate.open()
        release.result()
        assert close.result() == 0


def test_a_dispose_that_raises_keeps_close_neither_from_the_others_nor_from_returning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Case(min_idle=3) as case:
        case.release(*case.acquire('a', 3))
        case.manager.script('dispose', OSError('one'), None, OSError('two'))
        assert case.pool.close() == 0
        assert case.manager.living == []
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert [message.partition(' [')[0][-3:] for message in errors] == ['one', 'two']


def test_a_waiter_that_is_refused_leaves_no_trace() -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        waiter = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        assert case.pool.close(timeout=0) == 1
        with pytest.raises(ConnectionPoolClosedError):
            waiter.result()
        assert case.stats['waiting'] == 0
        case.release(conn)


def test_a_pool_closed_inside_a_hook_refuses_the_acquire_that_the_hook_belongs_to() -> None:
    class ClosingManager(HookedManager):
        def on_acquire(self, endpoint: object, conn: object) -> None:
            assert case.pool.close(timeout=0) == 1

    with Case(ClosingManager()) as case:
        with pytest.raises(ConnectionPoolClosedError):
            case.pool.acquire('a')
        assert case.manager.living == []


def test_an_interruption_in_a_hook_after_close_loses_nothing() -> None:
    with Case(HookedManager()) as case:
        gate = Gate(Interruption())
        case.manager.script('on_acquire', gate)
        acquire = spawn(case.pool.acquire, 'a')
        gate.reached()
        close = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        gate.open()
        with pytest.raises(Interruption):
            acquire.result()
        assert close.result() == 0
        assert case.manager.living == []


def test_close_of_thousands_of_connections_disposes_of_each_once() -> None:
    count = 2_000
    with Case(total_max_size=count) as case:
        for number in range(count):
            case.cycle(number)
        assert case.pool.get_size() == count
        assert case.pool.close() == 0
        assert len(case.manager.calls) == 2 * count
