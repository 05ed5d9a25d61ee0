# Generated from tests/pool/test_null_pool.py by .github/scripts/generate_threading.py; do not edit.

"""A pool that keeps no idle connections."""

from typing import Any

import pytest

from gcpool.threading import ConnectionPool, NullConnectionPool
from tests.pool_threads.support import Case, CheckingManager, HookedManager, JudgingManager, Manager
from tests.threads.runtime import spawn, until

MANAGERS = pytest.mark.parametrize('manager_class', [Manager, CheckingManager, HookedManager, JudgingManager])


def null_case(manager: Manager | None = None, **options: Any) -> Case:
    return Case(manager, pool_class=NullConnectionPool, **options)


@MANAGERS
def test_what_nobody_waits_for_is_closed_when_it_is_returned(manager_class: type[Manager]) -> None:
    with null_case(manager_class()) as case:
        for number in (1, 2):
            conn = case.pool.acquire('a')
            case.pool.release(conn, 'a')
            assert (conn.name, conn.disposals) == (f'a{number}', 1)
        with case.pool.connection('a') as conn:
            assert conn.disposals == 0
        assert conn.disposals == 1
        assert case.pool.get_size() == 0
        assert case.stats['closed_idle'] == case.stats['disposed'] == 3
        assert case.pool.try_acquire('a') is None


@MANAGERS
def test_it_is_handed_to_the_oldest_waiter_of_its_endpoint(manager_class: type[Manager]) -> None:
    with null_case(manager_class(), max_size=1) as case:
        conn = case.pool.acquire('a')
        jobs = []
        for number in range(3):
            jobs.append(spawn(case.pool.acquire, 'a'))
            case.waiting(number + 1)
        for job in jobs:
            case.pool.release(conn)
            assert job.result() is conn
        assert conn.disposals == 0
        case.pool.release(conn)
        assert conn.disposals == 1


def test_at_the_total_limit_it_is_closed_for_who_waits_elsewhere() -> None:
    with null_case(total_max_size=1) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'b')
        case.waiting(1)
        case.pool.release(conn)
        assert (job.result()).name == 'b1'
        case.pool.release(case.manager.connections[1])


def test_by_default_there_is_no_limit() -> None:
    with null_case() as case:
        assert case.pool.max_size == case.pool.total_max_size == 2**31 - 1
        conns = case.acquire('a', 300)
        case.release(*conns)
        assert case.stats['waits'] == 0


@pytest.mark.parametrize(
    ('options', 'max_size', 'total_max_size'),
    [
        ({'max_size': 3}, 3, 2**31 - 1),
        ({'total_max_size': 3}, 3, 3),
        ({'max_size': None, 'total_max_size': None}, 2**31 - 1, 2**31 - 1),
        ({'max_size': 2, 'total_max_size': 3}, 2, 3),
        ({'min_idle': 0}, 2**31 - 1, 2**31 - 1),
    ],
)
def test_the_limits(options: dict[str, Any], max_size: int, total_max_size: int) -> None:
    pool = NullConnectionPool[Any, Any](Manager(), **options)
    assert (pool.max_size, pool.total_max_size, pool.min_idle) == (max_size, total_max_size, 0)
    assert isinstance(pool, ConnectionPool)
    assert 'NullConnectionPool' in repr(pool)


@pytest.mark.parametrize(
    ('options', 'error', 'expected'),
    [
        ({'min_idle': 1}, ValueError, 'min_idle=1: a NullConnectionPool keeps no idle connections: expected 0'),
        ({'min_size': 2}, ValueError, 'min_size=2: a NullConnectionPool keeps no idle connections: expected 0'),
        ({'min_idle': '1'}, TypeError, "min_idle='1': expected a number of connections"),
        ({'idle_timeout': 5.0}, TypeError, 'idle_timeout=5.0: a NullConnectionPool keeps no idle connections'),
        ({'background_collector': False}, TypeError, 'background_collector=False: a NullConnectionPool keeps no idle'),
        ({'dispose_batch_size': 1}, TypeError, 'dispose_batch_size=1: a NullConnectionPool keeps no idle'),
        ({'max_size': 0}, ValueError, 'max_size=0: expected 1 or more'),
        ({'max_size': 2.0}, TypeError, 'max_size=2.0: expected a number of connections'),
        ({'total_max_size': True}, TypeError, 'total_max_size=True: expected a number'),
        ({'max_size': 3, 'total_max_size': 2}, ValueError, 'max_size=3 is greater than total_max_size=2'),
        ({'max_lifetime': -1}, ValueError, 'max_lifetime=-1: expected seconds'),
        ({'sizes': 3}, TypeError, 'sizes'),
    ],
)
def test_bad_parameters(options: dict[str, Any], error: type[Exception], expected: str) -> None:
    with pytest.raises(error, match=expected):
        NullConnectionPool(Manager(), **options)


def test_no_endpoint_is_warmed_up() -> None:
    with null_case(max_size=3) as case:
        for size in (None, 2):
            with pytest.raises(ValueError, match=f'size={size}: a NullConnectionPool keeps no idle connections'):
                case.pool.warm_up('a', size)
        case.pool.warm_up('a', 0)
        assert case.pool.get_size() == 0


@pytest.mark.parametrize('max_size', [None, 2])
def test_connections_may_be_created_in_the_background(max_size: int | None) -> None:
    with null_case(max_size=max_size, create_in_background=True) as case:
        jobs = [spawn(case.cycle, 'a') for _ in range(6)]
        for job in jobs:
            job.result()
        until(lambda: case.pool.get_size() == 0)
        assert 1 <= case.stats['created'] <= 6


def test_a_connection_is_replaced_when_its_lifetime_is_over() -> None:
    with null_case(max_size=1, max_lifetime=10.0) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.clock.advance(10.0)
        case.pool.release(conn)
        assert (job.result()).name == 'a2'
        case.pool.release(case.manager.connections[1])
        assert case.stats['closed_lifetime'] == 1


def test_an_acquire_that_fails_leaves_nothing() -> None:
    with null_case(HookedManager()) as case:
        case.manager.script('on_acquire', KeyError('mine'))
        with pytest.raises(KeyError):
            case.pool.acquire('a')
        until(lambda: case.pool.get_size() == 0)


def test_the_pool_is_closed_as_any_other() -> None:
    with null_case() as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        case.pool.release(conn)
        assert job.result() == 0


@pytest.mark.parametrize('name', ['min_idle', 'min_size'])
def test_no_minimum_is_set_later(name: str) -> None:
    with null_case(max_size=3) as case:
        minimum: dict[str, Any] = {name: 1}
        with pytest.raises(ValueError, match=f'{name}=1: a NullConnectionPool keeps no idle connections: expected 0'):
            case.pool.resize(max_size=2, **minimum)
        assert case.pool.max_size == 3
        with pytest.raises(TypeError, match=f'{name}=True: expected a number'):
            case.pool.resize(**{name: True})
        nothing: dict[str, Any] = {name: 0}
        case.pool.resize(max_size=2, **nothing)
        assert (case.pool.max_size, case.pool.min_idle, case.pool.min_size) == (2, 0, 0)
