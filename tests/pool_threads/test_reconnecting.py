# Generated from tests/pool/test_reconnecting.py by .github/scripts/generate_threading.py; do not edit.

"""An endpoint that cannot be connected to: waiting, failing at once, and servers that say that they are full."""

import logging
import math
import ssl
from typing import Any

import pytest

from gcpool.exceptions import EndpointDown, PoolTimeout, UnknownEndpoint
from tests.threads.runtime import Job, spawn, until

from .support import Case, Gate, Manager

REFUSED = OSError('connection refused')


class FullManager(Manager):
    """Takes every OSError for the server's word that it is full."""

    def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
        return isinstance(exc, OSError)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    # Without those of an event loop in debug mode.
    return [record for record in caplog.records if record.name == 'gcpool' and record.levelno >= logging.WARNING]


def let_pauses_pass(case: Case, *jobs: Job[Any], errors: int = 0) -> None:
    """Advance the clock until calls have ended, and there have been so many failed connects."""

    def passed() -> bool:
        case.clock.advance(0.2)
        return case.stats['create_errors'] >= errors and all(job.done for job in jobs)

    until(passed)


def test_acquires_wait_until_the_endpoint_is_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, 'gcpool')
    with Case(reconnect_timeout=60.0) as case:
        case.manager.script('create', *[REFUSED] * 5)
        jobs = [spawn(case.pool.acquire, 'a') for _ in range(3)]
        let_pauses_pass(case, *jobs, errors=5)
        conns = [job.result() for job in jobs]
        case.release(*conns)
    assert case.manager.calls.count('create a') == 8
    lines = [record.getMessage() for record in warnings_in(caplog)]
    assert lines == [f"{case.pool.name}: 'a' cannot be connected to: OSError: connection refused"]
    assert "connects to 'a' succeed again, after " in caplog.text


def test_an_acquire_waits_no_longer_than_its_own_time_limit() -> None:
    with Case(reconnect_timeout=60.0) as case:
        case.manager.script('create', *[REFUSED] * 1000)
        job = spawn(case.pool.acquire, 'a', 0)
        with pytest.raises(PoolTimeout) as caught:
            job.result()
        assert str(caught.value.__cause__) == 'connection refused'


def test_reconnect_failed_is_called_once_an_outage_and_attempts_go_on() -> None:
    calls: list[tuple[Any, ...]] = []
    with Case(reconnect_timeout=3.0, reconnect_failed=lambda *args: calls.append(args)) as case:
        case.manager.script('create', *[REFUSED] * 40)
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, errors=40)
        let_pauses_pass(case, job)
        case.release(job.result())
        assert calls == [(case.pool, 'a', REFUSED)]


def test_reconnect_failed_may_do_anything(caplog: pytest.LogCaptureFixture) -> None:
    def close_and_fail(pool: Any, endpoint: Any, exc: BaseException) -> None:
        pool.warm_up('b', 1)
        raise ZeroDivisionError('oops')

    with Case(reconnect_timeout=0.1, reconnect_failed=close_and_fail) as case:
        case.manager.script('create', *[REFUSED] * 10)
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, job)
        case.release(job.result())
        until(lambda: case.stats['idle'] == 2)
    assert "reconnect_failed failed for 'a': ZeroDivisionError: oops" in caplog.text


@pytest.mark.parametrize('in_background', [False, True])
def test_system_exit_of_reconnect_failed_is_told(in_background: bool, caplog: pytest.LogCaptureFixture) -> None:
    def leave(pool: Any, endpoint: Any, exc: BaseException) -> None:
        raise SystemExit('enough')

    with Case(reconnect_timeout=0.1, reconnect_failed=leave, create_in_background=in_background) as case:
        case.manager.script('create', *[REFUSED] * 10)
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, job)
        case.release(job.result())
    assert "reconnect_failed failed for 'a': SystemExit: enough" in caplog.text


HOPELESS = [UnknownEndpoint('no such endpoint', 'a'), KeyError('a'), TypeError('no such parameter')]


@pytest.mark.parametrize('in_background', [False, True])
@pytest.mark.parametrize('error', HOPELESS)
def test_an_error_that_no_server_has_caused_is_no_outage(
    error: Exception, in_background: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with Case(reconnect_timeout=60.0, create_in_background=in_background) as case:
        case.manager.script('create', error, error)
        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                case.pool.acquire('a')
            assert str(caught.value) == str(error)
        assert case.pool._core.next_timer() == math.inf
        assert case.cycle('a') == 'a1'
    assert not warnings_in(caplog)


@pytest.mark.parametrize('in_background', [False, True])
def test_such_an_error_in_an_outage_reaches_who_waits(in_background: bool) -> None:
    with Case(reconnect_timeout=60.0, create_in_background=in_background) as case:
        case.manager.script('create', REFUSED, REFUSED, HOPELESS[0])
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, job)
        with pytest.raises(UnknownEndpoint):
            job.result()
        assert case.cycle('a') == 'a1'


def test_an_error_of_a_certificate_is_an_outage() -> None:
    with Case(reconnect_timeout=60.0) as case:
        case.manager.script('create', *[ssl.SSLCertVerificationError('expired')] * 2)
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, job, errors=2)
        case.release(job.result())


def test_an_error_of_what_a_server_has_sent_is_an_outage() -> None:
    with Case(reconnect_timeout=60.0) as case:
        case.manager.script('create', ValueError('an answer that is no number'), KeyError('token'))
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, job, errors=2)
        case.release(job.result())


class Deciding(Manager):
    """Decides by the text of an error whether it is hopeless."""

    def is_hopeless(self, endpoint: Any, exc: BaseException) -> bool:
        return 'hopeless' in str(exc)


@pytest.mark.parametrize('in_background', [False, True])
def test_the_manager_decides_which_error_is_no_outage(in_background: bool) -> None:
    with Case(Deciding(), reconnect_timeout=60.0, create_in_background=in_background) as case:
        case.manager.script('create', TypeError('no hope lost'), OSError('hopeless'))
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, job)
        with pytest.raises(OSError, match='hopeless'):
            job.result()
        assert case.cycle('a') == 'a1'


def test_an_is_hopeless_that_fails_is_told_and_counts_as_no(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Manager):
        def is_hopeless(self, endpoint: Any, exc: BaseException) -> bool:
            raise ZeroDivisionError('oops')

    with Case(Wrong(), reconnect_timeout=60.0) as case:
        case.manager.script('create', TypeError('no such parameter'))
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, job, errors=1)
        case.release(job.result())
    assert "is_hopeless() failed for 'a': ZeroDivisionError: oops" in caplog.text


def test_a_manager_may_take_such_an_error_for_a_server_that_is_full() -> None:
    class Doubtful(Manager):
        def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
            return isinstance(exc, ValueError)

    with Case(Doubtful(), wait_when_full=True) as case:
        case.manager.script('create', *[ValueError('full')] * 2)
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, job, errors=2)
        case.release(job.result())


def test_a_minimum_at_an_endpoint_that_the_manager_does_not_know_is_tried_with_pauses() -> None:
    with Case(reconnect_timeout=60.0) as case:
        case.manager.script('create', *[HOPELESS[0]] * 4)
        case.pool.warm_up('a', 1)
        until(lambda: case.stats['create_errors'] == 1)
        assert case.pool._core.next_timer() < math.inf
        # Nobody else waits for the pauses.
        for _ in range(2):
            with pytest.raises(UnknownEndpoint):
                case.pool.acquire('a')
        let_pauses_pass(case, errors=4)
        job = spawn(case.pool.wait)
        let_pauses_pass(case, job)
        job.result()
        assert case.stats['idle'] == 1


def test_an_acquire_that_is_served_in_an_outage_leaves_the_attempt_to_the_others() -> None:
    with Case(reconnect_timeout=60.0) as case:
        (a1,) = case.acquire('a', 1)
        case.manager.script('create', *[REFUSED] * 1000)
        job = spawn(case.pool.acquire, 'a')
        until(lambda: case.stats['create_errors'] > 0)
        case.release(a1)
        assert job.result() is a1
        case.release(a1)


def test_the_pool_may_be_closed_in_an_outage() -> None:
    with Case(reconnect_timeout=60.0, min_size=2) as case:
        case.manager.script('create', *[REFUSED] * 1000)
        job = spawn(case.pool.acquire, 'a')
        until(lambda: case.stats['create_errors'] > 0)
        assert case.pool.close() == 0
        with pytest.raises(Exception, match='is closed'):
            job.result()


def test_with_fail_fast_an_acquire_fails_at_once() -> None:
    with Case(fail_fast=True) as case:
        case.manager.script('create', REFUSED)
        with pytest.raises(OSError, match='refused'):
            case.pool.acquire('a')
        with pytest.raises(
            EndpointDown, match=r"no connection to 'a': connecting fails \(connection refused\)"
        ) as caught:
            case.pool.acquire('a')
        assert isinstance(caught.value.__cause__, OSError)
        assert case.manager.take_calls() == ['create a']
        assert case.cycle('b') == 'b1'
        case.clock.advance(1.0)
        until(lambda: case.pool._core.next_timer() > 1002.0)
        assert case.cycle('a') == 'a1'


def test_with_fail_fast_a_connection_in_use_is_waited_for() -> None:
    with Case(fail_fast=True) as case:
        (a1,) = case.acquire('a', 1)
        case.manager.script('create', REFUSED)
        with pytest.raises(OSError, match='refused'):
            case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.release(a1)
        assert job.result() is a1
        case.release(a1)


def test_when_the_server_is_full_acquires_wait() -> None:
    with Case(FullManager(), wait_when_full=True) as case:
        (a1,) = case.acquire('a', 1)
        case.manager.script('create', REFUSED)
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.release(a1)
        assert job.result() is a1
        case.release(a1)


def test_a_full_server_is_probed() -> None:
    with Case(FullManager(), wait_when_full=True) as case:
        case.manager.script('create', *[REFUSED] * 5)
        job = spawn(case.pool.acquire, 'a')
        let_pauses_pass(case, errors=5)
        let_pauses_pass(case, job)
        case.release(job.result())


def test_an_is_refusal_that_fails_is_told_and_counts_as_no(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Manager):
        def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
            raise ZeroDivisionError('oops')

    with Case(Wrong(), wait_when_full=True) as case:
        case.manager.script('create', REFUSED)
        with pytest.raises(OSError, match='refused'):
            case.pool.acquire('a')
    assert "is_refusal() failed for 'a': ZeroDivisionError: oops" in caplog.text


def test_an_attempt_that_hangs_ends_with_create_timeout_where_it_can_be_cut_off() -> None:
    gate = Gate()
    with Case(create_in_background=True, create_timeout=1e-3) as case:
        if type(case.pool).asynchronous:
            case.manager.script('create', gate)
            with pytest.raises(PoolTimeout, match=r"create\(\) for endpoint 'a' did not end within the create_timeout"):
                case.pool.acquire('a')
        assert case.cycle('a') == 'a1'
        if not type(case.pool).asynchronous:
            assert case.manager.timeouts == [1e-3]
