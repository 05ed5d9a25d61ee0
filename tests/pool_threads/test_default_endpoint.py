# Generated from tests/pool/test_default_endpoint.py by .github/scripts/generate_threading.py; do not edit.

"""A manager may define the endpoint of those who name none."""

from typing import Any

import pytest

from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, CheckingManager, HookedManager, Manager
from tests.support import Connection
from tests.threads.runtime import spawn


def with_default(manager_class: type[Manager], endpoint: Any) -> Manager:
    manager = manager_class()
    manager.default_endpoint = endpoint
    return manager


@pytest.mark.parametrize('manager_class', [Manager, CheckingManager, HookedManager])
@pytest.mark.parametrize('endpoint', ['main', None, ('a', 1)])
def test_every_call_takes_it(manager_class: type[Manager], endpoint: Any) -> None:
    with Case(with_default(manager_class, endpoint)) as case:
        for _ in range(3):
            conn = case.pool.acquire()
            assert conn.endpoint == endpoint
            case.pool.release(conn)
            with case.pool.connection() as conn:
                assert conn.endpoint == endpoint
            with case.pool.connection(timeout=5.0) as conn:
                assert conn.endpoint == endpoint
            conn = case.pool.acquire(timeout=5.0)
            case.pool.release(conn, endpoint)
        taken = case.pool.try_acquire()
        assert (taken is not None) == (manager_class is Manager)
        if taken is not None:
            case.pool.release(taken)
        assert case.stats['created'] == 1


@pytest.mark.parametrize('endpoint', ['main', None])
def test_it_is_warmed_up_where_no_endpoint_is_named(endpoint: Any) -> None:
    with Case(with_default(Manager, endpoint)) as case:
        case.pool.warm_up(size=2)
        case.pool.wait()
        assert case.pool.get_endpoint_pool_size(endpoint) == 2
    with Case() as case:
        with pytest.raises(TypeError, match=r'^no endpoint was given, and .* has no default_endpoint'):
            case.pool.warm_up(size=2)
        assert case.pool.get_size() == 0


def test_the_endpoint_none_is_checked_and_drained_alone() -> None:
    with Case(with_default(CheckingManager, None)) as case:
        case.cycle(None)
        case.cycle('b')
        case.manager.take_calls()
        assert case.pool.check(None) == 0
        assert case.manager.take_calls() == ['check_aliveness None1']
        assert case.pool.check() == 0
        assert len(case.manager.take_calls()) == 2
        case.pool.drain(None)
        assert case.stats['closed_drained'] + case.stats['closing'] == 1


def test_another_endpoint_may_still_be_named() -> None:
    with Case(with_default(Manager, 'main')) as case:
        conn, other = case.pool.acquire(), case.pool.acquire('b')
        assert [conn.name, other.name] == ['main1', 'b1']
        case.pool.release(other)
        case.pool.release(conn)


def test_those_who_wait_for_it_are_served_in_turn() -> None:
    with Case(with_default(Manager, 'main'), max_size=1) as case:
        conn = case.pool.acquire()
        job = spawn(case.pool.acquire)
        case.waiting(1)
        case.pool.release(conn)
        assert job.result() is conn
        case.pool.release(conn)


def test_a_decorator_takes_it() -> None:
    with Case(with_default(Manager, 'main')) as case:

        @case.pool.connection()
        def work() -> int:
            return case.pool.get_endpoint_pool_size('main', acquired=True)

        assert work() == 1


def test_a_subclass_s_own_methods_are_passed_it() -> None:
    seen: list[Any] = []

    class Traced(ConnectionPool[Any, Connection]):
        def acquire(self, endpoint: Any = ..., timeout: float | None = None) -> Connection:
            seen.append(endpoint)
            return super().acquire(endpoint, timeout)

    with Case(with_default(Manager, 'main'), pool_class=Traced) as case:
        with case.pool.connection() as conn:
            assert conn.name == 'main1'
        case.pool.release(case.pool.acquire())
        assert seen == ['main', ...]


@pytest.mark.parametrize('used', [False, True])
@pytest.mark.parametrize('manager_class', [Manager, CheckingManager])
def test_without_one_the_endpoint_is_required(manager_class: type[Manager], used: bool) -> None:
    with Case(manager_class()) as case:
        if used:
            case.cycle('a')
        expected = r'no endpoint was given, and .*Manager.* has no default_endpoint: expected an endpoint'
        with pytest.raises(TypeError, match=expected):
            case.pool.acquire()
        with pytest.raises(TypeError, match=expected):
            case.pool.acquire(timeout=1.0)
        with pytest.raises(TypeError, match=expected):
            case.pool.connection()
        with pytest.raises(TypeError, match=expected):
            case.pool.try_acquire()
        assert case.pool.get_size() == used


def test_it_is_normalized_as_any_other() -> None:
    class Spelling(Manager):
        def normalize(self, endpoint: str) -> str:
            return endpoint.lower()

    with Case(with_default(Spelling, 'MAIN')) as case:
        case.pool.release(case.pool.acquire())
        case.pool.release(case.pool.acquire('main'))
        taken = case.pool.try_acquire()
        assert taken is not None
        case.pool.release(taken)
        assert case.manager.calls == ['create main']
