# Generated from tests/pool/test_monitoring.py by .github/scripts/generate_threading.py; do not edit.

"""What a monitoring system asks a pool: percentiles, and whether it can serve acquires now."""

import pickle
from typing import Any

import pytest

from gcpool.common import Health, PoolStats
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, Gate, Manager
from tests.support import Clock
from tests.threads.runtime import spawn

# ---- percentiles --------------------------------------------------------------------------------------------------


def test_the_percentiles_of_waits() -> None:
    with Case(max_size=1) as case:
        conn = (case.acquire('a', 1))[0]
        waiting = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.clock.advance(3)
        case.release(conn)
        case.release(waiting.result())
        stats = case.pool.get_stats()
        assert isinstance(stats, PoolStats)
        assert stats.histograms['wait'].count == stats['waits'] == 1
        assert stats.histograms['wait'].sum == 3.0
        assert 2.0 < stats['wait_p50'] < stats['wait_p99'] <= 4.0
        assert stats.histograms['use'].count == stats['acquires'] == 2
        assert stats.histograms['create'].count == stats['created'] == 1


def test_a_pop_has_the_percentiles_of_the_time_since_the_last_one() -> None:
    clock = Clock()
    pool = ConnectionPool(Manager(), _clock=clock)
    for seconds in (100, 1):
        with pool.connection('a'):
            clock.advance(seconds)
        popped = pool.pop_stats()
        assert seconds / 2 <= popped['use_p50'] <= seconds * 2
        assert popped.histograms['use'].count == 1
    assert pool.get_stats()['use_p50'] == 0.0
    pool.close()


def test_how_long_the_first_connection_is_held() -> None:
    with Case() as case:
        conn = (case.acquire('a', 1))[0]
        case.clock.advance(2)
        assert case.stats['longest_held'] == case.pool.get_stats('a')['longest_held'] == 2_000_000_000
        case.release(conn)
        assert case.stats['longest_held'] == 0


# ---- health -------------------------------------------------------------------------------------------------------


def test_a_pool_with_room_is_ok() -> None:
    with Case(max_size=2) as case:
        assert case.pool.health() == Health('ok', None)
        conn = (case.acquire('a', 1))[0]
        assert case.pool.health() == ('ok', None)
        case.release(conn)
        assert case.pool.health().status == 'ok'


def test_asking_for_the_health_calls_nothing() -> None:
    with Case(max_size=1) as case:
        case.cycle('a')
        calls = [*case.manager.calls]
        stats = case.stats
        for _ in range(3):
            case.pool.health()
        assert [*case.manager.calls] == calls
        assert case.stats == stats


def test_a_pool_whose_only_endpoint_has_all_its_connections_in_use_is_exhausted() -> None:
    with Case(max_size=1) as case:
        conn = (case.acquire('main', 1))[0]
        assert case.pool.health() == ('exhausted', "max_size=1 of 'main' reached (1 in use, 0 waiting)")
        waiting = spawn(case.pool.acquire, 'main')
        case.waiting(1)
        assert case.pool.health() == ('exhausted', "max_size=1 of 'main' reached (1 in use, 1 waiting)")
        case.release(conn)
        case.release(waiting.result())
        assert case.pool.health().status == 'ok'


def test_a_pool_one_of_whose_endpoints_can_be_served_is_degraded() -> None:
    with Case(max_size=1) as case:
        case.cycle('other')
        conns = [*case.acquire('a', 1)]
        assert case.pool.health() == ('degraded', "max_size=1 of 'a' reached (1 in use, 0 waiting)")
        conns += case.acquire('b', 1)
        health = case.pool.health()
        assert health.status == 'degraded'
        assert health.reason is not None
        assert health.reason.endswith('(1 in use, 0 waiting), and 1 other endpoint')
        conns += case.acquire('other', 1)
        health = case.pool.health()
        assert health.status == 'exhausted'
        assert health.reason is not None
        assert health.reason.endswith(', and 2 other endpoints')
        case.release(*conns)


def test_at_the_total_limit() -> None:
    with Case(max_size=2, total_max_size=3) as case:
        conns = [*case.acquire('a', 2), *case.acquire('b', 1)]
        assert case.pool.health() == ('exhausted', 'total_max_size=3 reached (3 in use, 0 waiting)')
        case.release(conns.pop())
        assert case.pool.health().status == 'degraded', 'an idle connection makes room for any endpoint'
        case.release(*conns)


def test_a_pool_that_serves_nobody() -> None:
    pool: ConnectionPool[Any, Any] = ConnectionPool(Manager(), open=False)
    assert pool.health() == ('exhausted', 'the pool is not open yet')
    pool.open()
    assert pool.health().status == 'ok'
    pool.suspend()
    assert pool.health() == ('exhausted', 'the pool is suspended')
    pool.close()
    assert pool.health() == ('exhausted', 'the pool is closed')


class Refused(OSError):
    """With a text that strangers must not see."""


@pytest.mark.parametrize('keeps_one', [False, True])
def test_a_pool_that_cannot_connect(keeps_one: bool) -> None:
    with Case(max_size=3, fail_fast=True) as case:
        conns = case.acquire('main', 2)
        refused = Gate(Refused('password=hunter2'))
        case.manager.script('create', refused)
        job = spawn(case.pool.acquire, 'main')
        refused.reached()
        refused.open()
        with pytest.raises(Refused):
            job.result()
        if keeps_one:
            case.release(conns.pop())
            expected = 'degraded', "connects to 'main' fail: Refused (1 in use, 0 waiting)"
        else:
            expected = 'exhausted', "connects to 'main' fail: Refused (2 in use, 0 waiting)"
        assert case.pool.health() == expected
        case.release(*conns)


class RefusingManager(Manager):
    """Knows a server that is full."""

    def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
        return isinstance(exc, Refused)

    def describe_endpoint(self, endpoint: Any) -> object:
        return f'{endpoint} without its password'


def test_a_pool_whose_server_is_full() -> None:
    with Case(RefusingManager(), max_size=3, wait_when_full=True) as case:
        conns = case.acquire('main', 1)
        case.manager.script('create', Refused('no'))
        waiting = spawn(case.pool.acquire, 'main')
        case.waiting(1)
        assert case.pool.health() == (
            'exhausted',
            "the server of 'main without its password' is full (1 in use, 1 waiting)",
        )
        case.release(*conns)
        case.release(waiting.result())


def test_health_can_be_pickled() -> None:
    health = Health('degraded', 'why')
    assert pickle.loads(pickle.dumps(health)) == health
