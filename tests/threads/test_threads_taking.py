"""Threads that return, discard or detach one connection at the same moment, and signal handlers that acquire."""

import itertools
import logging
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from gcpool.exceptions import ConnectionNotAcquired
from gcpool.managers import ROLLED_BACK
from tests.pool_threads.support import Case, Gate, HookedManager, Manager
from tests.support import PATIENCE, Connection
from tests.threads.runtime import spawn

ROUNDS = 200


@pytest.fixture
def switching_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures('switching_often')
@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
@pytest.mark.parametrize(
    'names', list(itertools.combinations_with_replacement(['release', 'discard', 'detach'], 2)), ids='-'.join
)
def test_of_two_threads_with_one_connection_exactly_one_wins(manager_class: type[Manager], names: list[str]) -> None:
    with Case(manager_class(), max_size=1) as case:
        start = threading.Barrier(2)
        calls: dict[str, Callable[[Connection], object]] = {
            'release': case.pool.release,
            'discard': case.pool.discard,
            'detach': case.detach,
        }

        def end(name: str, conn: Connection) -> str | None:
            start.wait(PATIENCE)
            try:
                calls[name](conn)
            except ConnectionNotAcquired:
                return None
            return name

        for _ in range(ROUNDS):
            conn = case.pool.acquire('a', timeout=PATIENCE)
            jobs = [spawn(end, name, conn) for name in names]
            winners = [name for name in (job.result() for job in jobs) if name is not None]
            assert len(winners) == 1, winners
            assert conn.disposals == (winners == ['discard'])
            assert case.stats['acquired'] == 0
            case.pool._core.check_invariants()


def test_a_discard_closes_in_the_caller_and_keeps_nobody_waiting() -> None:
    gate = Gate()
    with Case(max_size=2) as case:
        first, second = case.acquire('a', 2)
        case.manager.script('dispose', gate)
        job = spawn(case.pool.discard, first)
        gate.reached()
        case.release(second)
        assert case.pool.acquire('a', timeout=0) is second
        case.release(second)
        gate.open()
        job.result()
        assert first.disposals == 1


@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit])
def test_what_dispose_raises_that_is_no_exception_reaches_who_discards(error: type[BaseException]) -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        case.manager.script('dispose', error('mine'))
        with pytest.raises(error, match='mine'):
            case.pool.discard(conn)
        assert case.pool.get_size() == 0


def test_a_rollback_in_many_threads_at_once_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    start = threading.Barrier(8)

    class Transactional(Manager):
        def on_release(self, endpoint: object, conn: Connection) -> object:
            start.wait(PATIENCE)
            return ROLLED_BACK

    with Case(Transactional(), max_size=8) as case:
        jobs = [spawn(case.pool.release, conn) for conn in case.acquire('a', 8)]
        for job in jobs:
            job.result()
        assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1
