"""A manager may define the endpoint of those who name none."""

from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import spawn
from tests.pool.support import Case, CheckingManager, HookedManager, Manager
from tests.support import Connection


def with_default(manager_class: type[Manager], endpoint: Any) -> Manager:
    manager = manager_class()
    manager.default_endpoint = endpoint
    return manager


@pytest.mark.parametrize('manager_class', [Manager, CheckingManager, HookedManager])
@pytest.mark.parametrize('endpoint', ['main', None, ('a', 1)])
async def test_every_call_takes_it(manager_class: type[Manager], endpoint: Any) -> None:
    async with Case(with_default(manager_class, endpoint)) as case:
        for _ in range(3):
            conn = await case.pool.acquire()
            assert conn.endpoint == endpoint
            await case.pool.release(conn)
            async with case.pool.connection() as conn:
                assert conn.endpoint == endpoint
            async with case.pool.connection(timeout=5.0) as conn:
                assert conn.endpoint == endpoint
            conn = await case.pool.acquire(timeout=5.0)
            await case.pool.release(conn, endpoint)
        taken = case.pool.try_acquire()
        assert (taken is not None) == (manager_class is Manager)
        if taken is not None:
            await case.pool.release(taken)
        assert case.stats['created'] == 1


@pytest.mark.parametrize('endpoint', ['main', None])
async def test_it_is_warmed_up_where_no_endpoint_is_named(endpoint: Any) -> None:
    async with Case(with_default(Manager, endpoint)) as case:
        case.pool.warm_up(size=2)
        await case.pool.wait()
        assert await case.pool.get_endpoint_pool_size(endpoint) == 2
    async with Case() as case:
        with pytest.raises(TypeError, match=r'^no endpoint was given, and .* has no default_endpoint'):
            case.pool.warm_up(size=2)
        assert case.pool.get_size() == 0


async def test_the_endpoint_none_is_checked_and_drained_alone() -> None:
    async with Case(with_default(CheckingManager, None)) as case:
        await case.cycle(None)
        await case.cycle('b')
        case.manager.take_calls()
        assert await case.pool.check(None) == 0
        assert case.manager.take_calls() == ['check_aliveness None1']
        assert await case.pool.check() == 0
        assert len(case.manager.take_calls()) == 2
        await case.pool.drain(None)
        assert case.stats['closed_drained'] + case.stats['closing'] == 1


async def test_another_endpoint_may_still_be_named() -> None:
    async with Case(with_default(Manager, 'main')) as case:
        conn, other = await case.pool.acquire(), await case.pool.acquire('b')
        assert [conn.name, other.name] == ['main1', 'b1']
        await case.pool.release(other)
        await case.pool.release(conn)


async def test_those_who_wait_for_it_are_served_in_turn() -> None:
    async with Case(with_default(Manager, 'main'), max_size=1) as case:
        conn = await case.pool.acquire()
        job = spawn(case.pool.acquire)
        await case.waiting(1)
        await case.pool.release(conn)
        assert await job.result() is conn
        await case.pool.release(conn)


async def test_a_decorator_takes_it() -> None:
    async with Case(with_default(Manager, 'main')) as case:

        @case.pool.connection()
        async def work() -> int:
            return await case.pool.get_endpoint_pool_size('main', acquired=True)

        assert await work() == 1


async def test_a_subclass_s_own_methods_are_passed_it() -> None:
    seen: list[Any] = []

    class Traced(ConnectionPool[Any, Connection]):
        async def acquire(self, endpoint: Any = ..., timeout: float | None = None) -> Connection:
            seen.append(endpoint)
            return await super().acquire(endpoint, timeout)

    async with Case(with_default(Manager, 'main'), pool_class=Traced) as case:
        async with case.pool.connection() as conn:
            assert conn.name == 'main1'
        await case.pool.release(await case.pool.acquire())
        assert seen == ['main', ...]


@pytest.mark.parametrize('used', [False, True])
@pytest.mark.parametrize('manager_class', [Manager, CheckingManager])
async def test_without_one_the_endpoint_is_required(manager_class: type[Manager], used: bool) -> None:
    async with Case(manager_class()) as case:
        if used:
            await case.cycle('a')
        expected = r'no endpoint was given, and .*Manager.* has no default_endpoint: expected an endpoint'
        with pytest.raises(TypeError, match=expected):
            await case.pool.acquire()
        with pytest.raises(TypeError, match=expected):
            await case.pool.acquire(timeout=1.0)
        with pytest.raises(TypeError, match=expected):
            case.pool.connection()
        with pytest.raises(TypeError, match=expected):
            case.pool.try_acquire()
        assert case.pool.get_size() == used


async def test_it_is_normalized_as_any_other() -> None:
    class Spelling(Manager):
        def normalize(self, endpoint: str) -> str:
            return endpoint.lower()

    async with Case(with_default(Spelling, 'MAIN')) as case:
        await case.pool.release(await case.pool.acquire())
        await case.pool.release(await case.pool.acquire('main'))
        taken = case.pool.try_acquire()
        assert taken is not None
        await case.pool.release(taken)
        assert case.manager.calls == ['create main']
