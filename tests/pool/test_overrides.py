"""Overriding or replacing a pool's ``acquire`` and ``release``, and what ``connection()`` decorates."""

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import spawn
from tests.pool.support import Case, CheckingManager, HookedManager, Manager, OnlyJudging

MANAGERS = pytest.mark.parametrize('manager_class', [Manager, CheckingManager, HookedManager])


class Tracer:
    """Replaces a method by one that calls it, and records the calls."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        async def traced(*args: Any, **kwargs: Any) -> Any:
            self.seen.append(name)
            return await function(*args, **kwargs)

        return traced


class Derived(ConnectionPool[Any, Any]):
    """A class between the pool and what replaces its methods."""


async def use(case: Case) -> None:
    async with case.pool.connection('a'):
        pass


def on_the_pool(pool: Any, name: str, tracer: Tracer) -> Any:
    return patch.object(pool, name, tracer(name, getattr(pool, name)))


def on_its_class(pool: Any, name: str, tracer: Tracer) -> Any:
    return patch.object(type(pool), name, tracer(name, getattr(type(pool), name)))


def on_the_base_class(pool: Any, name: str, tracer: Tracer) -> Any:
    return patch.object(ConnectionPool, name, tracer(name, getattr(ConnectionPool, name)))


@MANAGERS
@pytest.mark.parametrize('place', [on_the_pool, on_its_class, on_the_base_class])
@pytest.mark.parametrize('names', [['acquire'], ['release'], ['acquire', 'release']], ids='-'.join)
@pytest.mark.parametrize('used', [False, True])
async def test_connection_calls_what_was_put_in_the_place_of_a_method(
    manager_class: type[Manager], place: Any, names: list[str], used: bool
) -> None:
    async with Case(manager_class(), pool_class=Derived) as case:
        if used:
            await use(case)
        tracer = Tracer()
        patches = [place(case.pool, name, tracer) for name in names]
        for each in patches:
            each.start()
        try:
            for _ in range(2):
                await use(case)
                assert tracer.seen == names
                tracer.seen.clear()
        finally:
            for each in reversed(patches):
                each.stop()
        # And no longer after it was restored.
        await use(case)
        assert tracer.seen == []
        assert case.stats['acquired'] == 0


async def test_what_was_replaced_on_one_pool_is_not_on_another() -> None:
    async with Case() as case, Case() as other:
        tracer = Tracer()
        with on_the_pool(case.pool, 'acquire', tracer):
            await use(other)
            assert tracer.seen == []
            await use(case)
            assert tracer.seen == ['acquire']


async def test_connection_calls_a_subclass_s_acquire_and_release() -> None:
    called = []

    class Pool(ConnectionPool[Any, Any]):
        async def acquire(self, endpoint: Any, timeout: float | None = None) -> Any:  # type: ignore[override]
            called.append('acquire')
            return await super().acquire(endpoint, timeout)

        async def release(self, conn: Any, endpoint: Any) -> None:  # type: ignore[override]
            called.append('release')
            await super().release(conn, endpoint)

    async with Case(pool_class=Pool) as case:
        async with case.pool.connection('a') as conn:
            assert conn.name == 'a1'
            assert called == ['acquire']
        assert called == ['acquire', 'release']
        assert case.stats['idle'] == 1


async def test_connection_passes_the_timeout_to_a_subclass_s_acquire_by_name() -> None:
    told = []

    class WithAnotherBefore(ConnectionPool[Any, Any]):
        async def acquire(self, endpoint: Any, priority: int = 0, timeout: float | None = None) -> Any:  # type: ignore[override]
            told.append((priority, timeout))
            return await super().acquire(endpoint, timeout)

    class ByNameOnly(ConnectionPool[Any, Any]):
        async def acquire(self, endpoint: Any, *, timeout: float | None = None) -> Any:  # type: ignore[override]
            told.append((0, timeout))
            return await super().acquire(endpoint, timeout)

    for pool_class, timeout in ((WithAnotherBefore, 1.0), (ByNameOnly, 2.0)):
        async with Case(pool_class=pool_class) as case, case.pool.connection('a', timeout):
            pass
    assert told == [(0, 1.0), (0, 2.0)]


async def test_a_block_of_a_subclass_s_pool_that_closes_the_pool_keeps_its_own_error() -> None:
    class Pool(ConnectionPool[Any, Any]):
        async def acquire(self, endpoint: Any, timeout: float | None = None) -> Any:  # type: ignore[override]
            return await super().acquire(endpoint, timeout)

    async with Case(OnlyJudging(), pool_class=Pool) as case:

        async def close_and_fail() -> None:
            async with case.pool.connection('a'):
                assert await case.pool.close(timeout=0) == 1
                raise KeyError('mine')

        with pytest.raises(KeyError, match='mine'):
            await close_and_fail()


async def test_a_pool_takes_other_attributes_and_gives_them_up() -> None:
    async with Case() as case:
        pool: Any = case.pool
        pool.note = 'mine'
        assert pool.note == 'mine'
        del pool.note
        assert not hasattr(pool, 'note')
        with pytest.raises(AttributeError):
            del pool.acquire
        await use(case)


@MANAGERS
async def test_a_context_decorates(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), max_size=3) as case:

        @case.pool.connection('a')
        async def in_use(*, plus: int = 0) -> int:
            """What is in use."""
            return case.stats['acquired'] + plus

        assert (in_use.__name__, in_use.__doc__) == ('in_use', 'What is in use.')
        assert case.pool.get_size() == 0
        assert [await in_use(), await in_use(plus=1)] == [1, 2]
        assert case.stats['acquired'] == 0
        # Each call has a connection of its own.
        jobs = [spawn(in_use) for _ in range(3)]
        for job in jobs:
            assert await job.result() >= 1
        assert case.stats['acquired'] == 0


async def test_a_decorated_function_that_raises_gives_its_connection_back() -> None:
    async with Case() as case:

        @case.pool.connection('a', timeout=0)
        async def fail() -> None:
            raise KeyError('mine')

        for _ in range(2):
            with pytest.raises(KeyError, match='mine'):
                await fail()
        assert case.stats['acquired'] == 0


async def test_a_decorated_function_is_seen_by_what_replaces_acquire() -> None:
    async with Case() as case:
        tracer = Tracer()

        @case.pool.connection('a')
        async def work() -> None:
            pass

        with on_the_pool(case.pool, 'acquire', tracer):
            await work()
        assert tracer.seen == ['acquire']
