"""Checks in the background, on threads: who makes them, and that they keep nobody from closing."""

import logging
import threading
from typing import Any

import pytest

from tests.pool_threads.support import Case, CheckingManager, Gate, HookedManager
from tests.pool_threads.test_checking import SHORT, Deaf, at_rest
from tests.support import Connection
from tests.threads.runtime import spawn, until

CHECK = 'check_aliveness'


@pytest.mark.parametrize('error', [SystemExit, KeyboardInterrupt])
def test_what_a_check_in_the_background_raises_ends_no_work(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    with Case(CheckingManager(), keepalive_interval=SHORT, _random=lambda: 0.0) as case:
        case.cycle('a')
        case.manager.script(CHECK, error())
        with caplog.at_level(logging.ERROR, 'gcpool'):
            case.clock.advance(SHORT)
            until(lambda: error.__name__ in caplog.text)
        until(lambda: case.stats['idle'] == 1)
        case.clock.advance(SHORT)
        until(lambda: case.stats['checks'] == 2)
        at_rest(case)


def test_checks_that_hang_keep_nobody_from_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Case(CheckingManager(), keepalive_interval=SHORT, max_size=1, total_max_size=18, _random=lambda: 0.0) as case:
        for number in range(18):
            case.cycle(number)
        gates = [Gate() for _ in range(16)]
        case.manager.script(CHECK, *gates)
        case.clock.advance(SHORT)
        for gate in gates:
            gate.reached()
        assert case.stats['checking'] == 18
        case.manager.take_calls()
        # At the total limit nothing is idle: this acquire gets the slot of the first connection that is checked.
        job = spawn(case.pool.acquire, 'other')
        case.waiting(1)
        gates[0].open()
        case.release(job.result())
        for gate in gates:
            gate.open()
        at_rest(case)


def test_where_no_thread_can_be_started_the_acquire_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = Deaf('a1')
    with Case(manager, check_timeout=SHORT, min_idle=2) as case:
        case.release(*case.acquire('a', 2))
        monkeypatch.setattr(case.pool._workers, 'call', lambda: False)
        conn = case.pool.acquire('a')
        assert conn.name in {'a2', 'a3'}
        assert case.stats['checking'] == 0
        case.release(conn)


def test_a_pool_starts_no_thread_for_checks_before_there_is_a_connection() -> None:
    with Case(CheckingManager(), keepalive_interval=50) as case:
        assert not case.pool._collector._lives()
        case.cycle('a')
        assert case.pool._collector._lives()


def test_check_runs_in_the_calling_thread() -> None:
    seen: list[threading.Thread] = []

    class Looking(CheckingManager):
        def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
            seen.append(threading.current_thread())
            return True

    with Case(Looking()) as case:
        case.cycle('a')
        case.pool.check()
        assert seen == [threading.current_thread()]


def test_a_check_is_given_its_limit() -> None:
    with Case(CheckingManager()) as case:
        case.cycle('a')
        case.pool.check()
        assert case.manager.timeouts[-1] == 5.0
    with Case(CheckingManager(), check_timeout=2.0) as case:
        case.cycle('a')
        case.pool.check()
        assert case.manager.timeouts[-1] == 2.0


def test_an_on_connection_dead_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with Case(HookedManager()) as case:
        case.cycle('a')
        case.manager.script(CHECK, False)
        case.manager.script('on_connection_dead', OSError('no'))
        with caplog.at_level(logging.ERROR, 'gcpool'):
            assert case.pool.check() == 1
        assert 'on_connection_dead() of a connection' in caplog.text
