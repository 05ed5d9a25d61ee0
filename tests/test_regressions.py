"""Faults that a review found, each by its smallest reproduction."""

import asyncio
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool._core import AsyncConnectionContext, Entry, PoolCore, SyncConnectionContext, Waiter


class Connection:
    """Nothing but an identity."""


class Manager(gcpool.threading.BaseConnectionManager[str, Connection]):
    def create(self, endpoint: str, timeout: float | None = None) -> Connection:
        return Connection()

    def dispose(self, endpoint: str, conn: Connection, timeout: float | None = None) -> None:
        return


class AsyncManager(gcpool.asyncio.BaseConnectionManager[str, Connection]):
    async def create(self, endpoint: str) -> Connection:
        return Connection()

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        return


class ReleaseHook(AsyncManager):
    async def on_release(self, endpoint: str, conn: Connection) -> None:
        await asyncio.sleep(0)


def make_core() -> PoolCore:
    return PoolCore(1, 1, 1, 60.0, 3600.0)


# -- objects that were made without what makes them whole: an error, where the process crashed -------------------------


def test_a_pool_without_its_init_is_refused() -> None:
    pool = gcpool.threading.ConnectionPool.__new__(gcpool.threading.ConnectionPool)
    context = pool.connection('a')
    with pytest.raises(RuntimeError, match=r'ConnectionPool.__init__\(\) was not called'):
        pool.acquire('a')
    with pytest.raises(RuntimeError, match=r'ConnectionPool.__init__\(\) was not called'):
        context.__enter__()
    with pytest.raises(RuntimeError, match='is not of this pool'):
        pool.release(Connection(), 'a')
    assert pool.get_size() == 0


def test_an_asyncio_pool_without_its_init_is_refused() -> None:
    pool = gcpool.asyncio.ConnectionPool.__new__(gcpool.asyncio.ConnectionPool)

    async def use() -> None:
        for awaitable in (lambda: pool.acquire('a'), lambda: pool.release(Connection(), 'a')):
            with pytest.raises(RuntimeError, match=r'ConnectionPool.__init__\(\) was not called'):
                await awaitable()
        with pytest.raises(RuntimeError, match=r'ConnectionPool.__init__\(\) was not called'):
            await pool.connection('a').__aenter__()

    asyncio.run(use())


def test_a_pool_is_built_once() -> None:
    pool = gcpool.threading.ConnectionPool(Manager())
    with pool.connection('a'), pytest.raises(RuntimeError, match='was called already'):
        pool.__init__(Manager())  # type: ignore[misc]
    assert pool.get_endpoint_pool_size('a', acquired=False) == 1


@pytest.mark.parametrize(
    'use',
    [
        lambda core: core.release(Entry(), 0.0),
        lambda core: core.release(None, 0.0),
        lambda core: core.disposed(Entry()),
        lambda core: core.disposed(None),
        lambda core: core.doom_again(Entry()),
        lambda core: core.created(Entry(), 1, 0.0),
        lambda core: core.created(None, 1, 0.0),
        lambda core: core.begin_release(Entry()),
        lambda core: core.begin_release(None),
        lambda core: core.adopt(Waiter('a'), Entry()),
        lambda core: core.adopt(None, None),
        lambda core: core.failed(Waiter('a')),
        lambda core: core.failed(None),
        lambda core: core.bury(Waiter('a')),
        lambda core: core.bury(None),
        lambda core: core.confirm(Waiter('a')),
        lambda core: core.confirm(None),
        lambda core: core.cancel(None, 0.0),
        lambda core: core.give_up(None),
        lambda core: core.request(None, 0.0),
        lambda core: core.take_corpse(None),
        lambda core: core.watch_empty(None),
        lambda core: core.unwatch_empty(None),
        lambda core: Waiter('a').__init__('b'),
        lambda core: SyncConnectionContext().__enter__(),
        lambda core: SyncConnectionContext().__exit__(None, None, None),
        lambda core: AsyncConnectionContext().__aenter__(),
        lambda core: AsyncConnectionContext().__aexit__(None, None, None),
        lambda core: AsyncConnectionContext()._hold(Entry()),
    ],
)
def test_what_was_made_by_hand_is_refused(use: Callable[[Any], object]) -> None:
    core = make_core()
    with pytest.raises((RuntimeError, TypeError)):
        use(core)
    core.check_invariants()


def test_a_coroutine_made_by_hand_is_refused() -> None:
    acquire = gcpool.asyncio.ConnectionPool(AsyncManager()).acquire('a')
    coroutine: Any = type(acquire)
    acquire.close()
    for step in (lambda made: made.send(None), next, lambda made: made.throw(ValueError)):
        with pytest.raises((RuntimeError, ValueError)):
            step(coroutine())


def test_a_waiter_asks_once_at_a_time() -> None:
    core = make_core()
    holder, other = Waiter('a'), Waiter('a')
    other.arm(int)
    core.request(holder, 0.0)
    assert core.request(other, 0.0)
    for waiter in (holder, other):
        with pytest.raises(RuntimeError, match='waits already, or holds'):
            core.request(waiter, 0.0)
    core.cancel(other, 0.0)
    core.cancel(holder, 0.0)
    core.check_invariants()


def test_a_waiter_that_is_dropped_with_a_ticket_gives_the_slot_to_the_next() -> None:
    core = make_core()
    holder, other = Waiter('a'), Waiter('a')
    other.arm(int)
    core.request(holder, 0.0)
    assert core.request(other, 0.0)
    del holder
    gc.collect()
    assert other.has_ticket
    core.cancel(other, 0.0)
    core.check_invariants()
    assert core.size == 0


# -- the coroutines of an asyncio pool ---------------------------------------------------------------------------------


def test_leaving_a_context_in_a_task_that_is_cancelled_before_its_first_step() -> None:
    async def program() -> None:
        pool = gcpool.asyncio.ConnectionPool(ReleaseHook())
        context = pool.connection('a')
        await context.__aenter__()
        task = asyncio.ensure_future(context.__aexit__(None, None, None))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.get_stats()['idle'] == 1
        assert await pool.close() == 0

    asyncio.run(program())


def test_driving_a_coroutine_by_hand_keeps_nothing_alive() -> None:
    class Local:
        """In a frame that must go."""

    async def program() -> None:
        pool = gcpool.asyncio.ConnectionPool(AsyncManager())
        await pool.release(await pool.acquire('a'), 'a')
        frames = []

        def drive() -> Any:
            local = Local()
            frames.append(weakref.ref(local))
            coroutine: Any = pool.acquire('a')
            try:
                next(coroutine)
            except StopIteration as stop:
                return stop.value

        for _ in range(3):
            conn = drive()
            assert isinstance(conn, Connection)
            await pool.release(conn, 'a')
        # What came last may stay until the next one.
        await pool.release(await pool.acquire('a'), 'a')
        assert [frame() for frame in frames] == [None] * 3
        assert await pool.close() == 0

    asyncio.run(program())


def test_the_next_method_by_its_name() -> None:
    async def program() -> None:
        pool = gcpool.asyncio.ConnectionPool(AsyncManager())
        await pool.release(await pool.acquire('a'), 'a')
        coroutine: Any = pool.acquire('a')
        with pytest.raises(StopIteration) as stop:
            coroutine.__await__().__next__()
        assert isinstance(stop.value.value, Connection)
        await pool.release(stop.value.value, 'a')
        assert await pool.close() == 0

    asyncio.run(program())


# -- code of the program's own under a lock ----------------------------------------------------------------------------


def test_an_endpoint_that_is_forgotten_while_it_is_compared() -> None:
    pool: Any = None
    stats: list[dict[str, int]] = []

    class Endpoint:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            pool._core.expired(math.inf, 0)
            pool._dispose_doomed()
            return False

        def __del__(self) -> None:
            stats.append(pool.get_stats())

    pool = gcpool.threading.ConnectionPool(Manager())
    with pool.connection(Endpoint()):
        pass
    # The first search meets the old endpoint; while it compares, that one's only connection goes, and it goes itself.
    assert pool.get_endpoint_pool_size(Endpoint()) == 0
    assert len(stats) == 2
    assert stats[0]['size'] == 0
    pool.close()


def test_connection_does_what_a_subclass_does_in_acquire_and_release() -> None:
    done = []

    class Pool(gcpool.threading.ConnectionPool[str, Connection]):
        def acquire(self, endpoint: str, timeout: float | None = None) -> Connection:
            done.append('acquire')
            return super().acquire(endpoint, timeout)

        def release(self, conn: Connection, endpoint: str) -> None:
            done.append('release')
            super().release(conn, endpoint)

    pool = Pool(Manager())
    with pool.connection('a') as conn:
        assert isinstance(conn, Connection)
        assert done == ['acquire']
    assert done == ['acquire', 'release']
    assert pool.get_stats()['idle'] == 1


def test_connection_does_what_a_subclass_does_in_acquire_and_release_on_asyncio() -> None:
    done = []

    class Pool(gcpool.asyncio.ConnectionPool[str, Connection]):
        async def acquire(self, endpoint: str, timeout: float | None = None) -> Connection:
            done.append('acquire')
            return await super().acquire(endpoint, timeout)

        async def release(self, conn: Connection, endpoint: str) -> None:
            done.append('release')
            await super().release(conn, endpoint)

    async def main() -> None:
        pool = Pool(AsyncManager())
        async with pool.connection('a') as conn:
            assert isinstance(conn, Connection)
        assert done == ['acquire', 'release']
        assert pool.get_stats()['idle'] == 1

    asyncio.run(main())


def test_a_release_that_is_closed_before_its_first_step_releases() -> None:
    async def main() -> None:
        pool = gcpool.asyncio.ConnectionPool(ReleaseHook())
        conn = await pool.acquire('a')
        pool.release(conn, 'a').close()
        assert pool.get_stats()['idle'] == 1

    asyncio.run(main())


@pytest.mark.parametrize('name', ['idle_timeout', 'max_lifetime', 'acquire_timeout', 'dispose_timeout'])
def test_seconds_beyond_all_floats_are_refused_by_name(name: str) -> None:
    limits: dict[str, Any] = {name: 10**400}
    with pytest.raises(ValueError, match=f'{name}=1000'):
        gcpool.threading.ConnectionPool(Manager(), **limits)
    with pytest.raises(ValueError, match='timeout 1000'):
        gcpool.threading.ConnectionPool(Manager()).acquire('a', timeout=10**400)
