# Generated from tests/pool/test_long_waits.py by .github/scripts/generate_threading.py; do not edit.

"""The warning about an acquire that waits for long."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

from gcpool import _long_waits
from gcpool.exceptions import ConnectionPoolClosedError, PoolTimeout
from tests.pool_threads.support import Case
from tests.threads.runtime import spawn, until


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """What was logged about waits that are longer than 10 ms."""
    caplog.set_level(logging.INFO, 'gcpool')
    monkeypatch.setattr(_long_waits, 'LONG_WAIT', 0.01)
    return lambda: [
        record.message
        for record in caplog.records
        if record.levelname == 'WARNING' and 'has waited for' in record.message
    ]


def nested(case: Case) -> None:
    with case.pool.connection('a', timeout=None), case.pool.connection('a', timeout=None):
        raise AssertionError('there is only one connection')


def fail_when_closed(function: Callable[[Case], Any], case: Case) -> bool:
    try:
        function(case)
    except ConnectionPoolClosedError:
        return True
    return False


def test_a_block_in_a_block_that_waits_for_itself_is_logged(warnings: Callable[[], list[str]]) -> None:
    with Case(max_size=1, name='orders', acquire_timeout=None) as case:
        job = spawn(fail_when_closed, nested, case)
        case.waiting(1)
        case.clock.advance(10)
        until(lambda: len(warnings()) == 1)
        (message,) = warnings()
        assert message.startswith("orders: an acquire of a connection to 'a' by ")
        assert ' has waited for 10.0 s: max_size=1 reached (1 in use, 1 waiting); ' in message
        who = message.partition(' by ')[2].partition(' has waited')[0]
        assert f'; {who} itself is in a block of connection() of this pool; record_holders=True shows who ' in message
        case.pool.close(timeout=0)
        assert job.result()


def test_with_record_holders_the_holders_are_named(warnings: Callable[[], list[str]]) -> None:
    with Case(max_size=1, name='orders', acquire_timeout=None, record_holders=True) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.cycle, 'a')
        case.waiting(1)
        case.clock.advance(12)
        until(lambda: len(warnings()) == 1)
        (message,) = warnings()
        assert ' has held one for 12.0 s, acquired at ' in message
        assert __file__ in message
        assert 'record_holders=True' not in message
        case.release(conn)
        job.result()


def test_only_so_many_holders_are_named(warnings: Callable[[], list[str]]) -> None:
    with Case(max_size=5, acquire_timeout=None, record_holders=True) as case:
        conns = case.acquire('a', 5)
        job = spawn(case.cycle, 'a')
        case.waiting(1)
        case.clock.advance(12)
        until(lambda: len(warnings()) == 1)
        (message,) = warnings()
        assert message.count(' has held one for ') == _long_waits.MOST_NAMED
        assert message.endswith('; and others')
        case.release(*conns)
        job.result()


def test_after_a_warning_there_is_a_pause(warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_long_waits, 'PAUSE', 0.02)
    with Case(max_size=1, acquire_timeout=None) as case:
        conn = case.pool.acquire('a')
        jobs = [spawn(case.cycle, 'a')]
        case.waiting(1)
        case.clock.advance(10)
        until(lambda: len(warnings()) == 1)
        # By the pool's clock, the pause is not over.
        with pytest.raises(PoolTimeout):
            case.pool.acquire('a', timeout=0.03)
        assert len(warnings()) == 1
        case.clock.advance(0.03)
        jobs.append(spawn(case.cycle, 'a'))
        until(lambda: len(warnings()) == 2)
        case.release(conn)
        for job in jobs:
            job.result()


def test_an_acquire_whose_time_limit_comes_first_is_not_logged(
    warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_long_waits, 'LONG_WAIT', 0.02)
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        with pytest.raises(PoolTimeout):
            case.pool.acquire('a', timeout=0.01)
        assert warnings() == []
        case.release(conn)


def test_what_waits_and_is_no_acquire_is_not_logged(warnings: Callable[[], list[str]]) -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        with pytest.raises(TimeoutError):
            case.pool.wait_idle(timeout=0.03)
        assert warnings() == []
        case.release(conn)


def test_a_log_handler_that_raises_ends_no_wait(
    warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[BaseException | None] = []
    error = OSError('the log server is down')

    class FailingHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise error

    handler = FailingHandler()
    monkeypatch.setattr(sys, 'unraisablehook', lambda args: unraisable.append(args.exc_value))
    with Case(max_size=1, acquire_timeout=None) as case:
        conn = case.pool.acquire('a')
        logging.getLogger('gcpool').addHandler(handler)
        try:
            job = spawn(case.cycle, 'a')
            case.waiting(1)
            case.clock.advance(10)
            until(lambda: unraisable == [error])
        finally:
            logging.getLogger('gcpool').removeHandler(handler)
        case.release(conn)
        assert job.result() == conn.name
