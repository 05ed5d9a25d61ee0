"""AsyncQueuePool for SQLAlchemy's asyncio engines, on a driver without a database."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

pytest.importorskip('sqlalchemy')
pytest.importorskip('greenlet')

from sqlalchemy import exc
from sqlalchemy.pool.base import _ConnectionFairy
from sqlalchemy.util import greenlet_spawn

from gcpool.contrib.sqlalchemy import AsyncQueuePool
from gcpool.exceptions import EventLoopMismatch
from tests.contrib.conftest import Run
from tests.contrib.dbapi import SOON, FakeDriver, FakeError, number_of
from tests.contrib.dbapi_asyncio import AsyncDriver, begin_to_wait, close, connect, until_waiting
from tests.contrib.servers import PATIENCE


@pytest.fixture
def driver() -> AsyncDriver:
    return AsyncDriver()


class TestServing:
    def test_a_task_that_waits_lets_others_run_and_is_served(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0)
            conn = await connect(pool)
            (waiter,) = await begin_to_wait(pool)
            await close(conn)
            assert number_of(await waiter) == 0
            assert (pool.checkedout(), pool._pool.get_stats()['waiting']) == (1, 0)
            await close(waiter.result())

        run(main)

    def test_tasks_are_served_in_their_order(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=None)
            conn = await connect(pool)
            waiters = await begin_to_wait(pool, 8)
            for number, waiter in enumerate(waiters):
                await close(conn)
                conn = await waiter
                assert not any(other.done() for other in waiters[number + 1 :])
            await close(conn)

        run(main)

    def test_no_task_is_left_out(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=8, max_overflow=0)
            served = [0] * 64

            async def work(index: int) -> None:
                while max(served) < 10:
                    conn = await connect(pool)
                    await asyncio.sleep(0)
                    await close(conn)
                    served[index] += 1

            await asyncio.gather(*map(work, range(64)))
            assert min(served) >= 8
            assert len(driver.made) == 8

        run(main)

    def test_a_wait_ends_by_its_time_limit(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=SOON)
            conn = await connect(pool)
            with pytest.raises(exc.TimeoutError, match=r'size 1 overflow 0 reached, .* timeout 0\.02') as caught:
                await connect(pool)
            assert caught.value.code == '3o7r'
            await close(conn)
            await close(await connect(pool))

        run(main)

    def test_timeout_0_does_not_wait_but_connects(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
            driver.connecting = lambda: asyncio.sleep(0.001)
            conn = await connect(pool)
            with pytest.raises(exc.TimeoutError):
                await connect(pool)
            await close(conn)

        run(main)

    def test_connects_at_the_same_time(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=3, max_overflow=0)
            together = asyncio.Event()
            begun: list[None] = []

            async def meet() -> None:
                begun.append(None)
                if len(begun) == 3:
                    together.set()
                await together.wait()

            driver.connecting = meet
            for conn in await asyncio.gather(*[connect(pool) for _ in range(3)]):
                await close(conn)
            assert pool.checkedin() == 3

        run(main)

    @pytest.mark.parametrize('use_lifo', [False, True])
    def test_a_surplus_connection_is_closed_when_its_return_has_ended(
        self, driver: AsyncDriver, run: Run, use_lifo: bool
    ) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=1, use_lifo=use_lifo)
            conns = [await connect(pool) for _ in range(2)]
            for conn in conns:
                await close(conn)
            assert (driver.open, pool.checkedin(), pool.overflow()) == ([0], 1, 0)

        run(main)

    def test_keeps_no_idle_connection_if_it_is_told_so(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, keep_idle=False)
            await close(await connect(pool))
            assert (driver.open, pool.checkedin()) == ([], 0)

        run(main)

    def test_dispose_has_closed_when_it_returns(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect)
            conns = [await connect(pool) for _ in range(3)]
            for conn in conns[1:]:
                await close(conn)
            await greenlet_spawn(pool.dispose)
            assert (driver.open, pool.checkedin(), pool.checkedout()) == ([0], 0, 1)
            await close(conns[0])

        run(main)

    def test_no_task_and_no_thread_of_the_pool(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            before = asyncio.all_tasks(), threading.active_count()
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=1, timeout=SOON)
            conns = [await connect(pool) for _ in range(2)]
            with pytest.raises(exc.TimeoutError):
                await connect(pool)
            for conn in conns:
                await close(conn)
            await greenlet_spawn(pool.dispose)
            assert (asyncio.all_tasks(), threading.active_count()) == before

        run(main)

    def test_connects_in_the_context_of_the_caller(self, driver: AsyncDriver, run: Run) -> None:
        request: ContextVar[str] = ContextVar('request', default='none')
        seen = []

        async def main() -> None:
            async def look() -> None:
                seen.append(request.get())

            driver.connecting = look
            pool = AsyncQueuePool(driver.connect)
            request.set('mine')
            await close(await connect(pool))

        run(main)
        assert seen == ['mine']


class TestCancellation:
    def test_of_a_wait_gives_up_the_place(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0)
            conn = await connect(pool)
            first, second = await begin_to_wait(pool, 2)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await close(conn)
            await close(await second)
            assert (pool.checkedin(), pool.checkedout()) == (1, 0)

        run(main)

    def test_at_the_moment_of_the_hand_over_loses_nothing(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0)
            conn = await connect(pool)
            first, second = await begin_to_wait(pool, 2)
            await close(conn)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await close(await second)
            assert (pool.checkedin(), pool.checkedout()) == (1, 0)

        run(main)

    def test_of_a_connect_takes_no_place(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0)
            driver.connecting = asyncio.Event().wait
            first = asyncio.create_task(connect(pool))
            (second,) = await begin_to_wait(pool)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            driver.connecting = lambda: asyncio.sleep(0)
            await close(await connect(pool))
            assert (pool.checkedin(), pool.checkedout()) == (1, 0)

        run(main)

    def test_a_failed_connect_takes_no_place(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0)

            async def fail() -> None:
                raise FakeError

            driver.connecting = fail
            with pytest.raises(FakeError):
                await connect(pool)
            driver.connecting = lambda: asyncio.sleep(0)
            await close(await connect(pool))

        run(main)

    def test_a_task_that_waits_is_kept_alive(self, driver: AsyncDriver, run: Run) -> None:
        # Loops keep weak references to their tasks only.
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=None)
            conn = await connect(pool)
            served = asyncio.Event()

            async def use() -> None:
                await close(await connect(pool))
                served.set()

            task = weakref.ref(asyncio.create_task(use()))
            await until_waiting(pool, 1)
            gc.collect()
            assert task() is not None
            await close(conn)
            await served.wait()

        run(main)


class TestReturns:
    """A record is returned without awaiting: by finalisers, without a greenlet, and in other threads."""

    def test_a_finaliser_returns_the_place_to_one_who_waits(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0)
            conn = await connect(pool)
            (waiter,) = await begin_to_wait(pool)
            # The connection cannot be closed there, so SQLAlchemy drops it, and says so.
            with pytest.warns(exc.SAWarning, match='garbage collector is trying to clean up'):
                await asyncio.to_thread(_drop, conn)
            del conn
            assert number_of(await waiter) == 1
            await close(waiter.result())

        run(main)

    def test_a_return_in_another_thread_wakes_one_who_waits(self, driver: AsyncDriver, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0)
            conn = await connect(pool)
            (waiter,) = await begin_to_wait(pool)
            with ThreadPoolExecutor(1) as executor:
                # Waited for in this thread: the loop runs nothing meanwhile.
                executor.submit(_return, conn).result(PATIENCE)
            assert number_of(await waiter) == 0
            await close(waiter.result())

        run(main)

    def test_a_return_after_the_end_of_the_loop(self, driver: AsyncDriver) -> None:
        pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0)

        _return(asyncio.run(connect(pool)))
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)


# Since SQLAlchemy 2.1 a finaliser of its own, before that the callback of a weak reference.
HAS_FINALIZER = hasattr(_ConnectionFairy, '_finalizer')


def _return(conn: Any) -> None:
    """Return a connection without the reset, which would await something."""
    if HAS_FINALIZER:
        conn._finalizer.detach()
    conn._connection_record.checkin()


def _drop(conn: Any) -> None:
    """Call the finaliser of a checked-out connection, as the garbage collector does."""
    record = conn._connection_record
    if HAS_FINALIZER:
        record.fairy_ref = lambda: None
        conn._finalizer()
    else:
        record.fairy_ref.__callback__(record.fairy_ref)


class TestLoops:
    def use(self, pool: AsyncQueuePool) -> Callable[[], Coroutine[Any, Any, None]]:
        async def main() -> None:
            await close(await connect(pool))

        return main

    def test_an_engine_used_in_two_loops_is_told_so(self, driver: AsyncDriver) -> None:
        pool = AsyncQueuePool(driver.connect)
        asyncio.run(self.use(pool)())
        with pytest.raises(
            EventLoopMismatch,
            match=r'belong to the event loop <.*>, which is closed; it was now used from <.*running=True.*>: '
            r'expected one engine for each event loop, or `await engine\.dispose\(\)` before the loop ends',
        ):
            asyncio.run(self.use(pool)())
        assert (pool.checkedin(), len(driver.made)) == (1, 1)

    def test_also_while_the_first_loop_runs(self, driver: AsyncDriver) -> None:
        pool = AsyncQueuePool(driver.connect)

        async def main() -> None:
            await close(await connect(pool))
            with pytest.raises(EventLoopMismatch, match=r'belong to the event loop <.*>; it was now used from'):
                await asyncio.to_thread(asyncio.run, self.use(pool)())
            await close(await connect(pool))

        asyncio.run(main())

    def test_a_pool_without_connections_moves_to_the_next_loop(self, driver: AsyncDriver) -> None:
        pool = AsyncQueuePool(driver.connect)

        async def main() -> None:
            await close(await connect(pool))
            await greenlet_spawn(pool.dispose)

        for _ in range(3):
            asyncio.run(main())
        assert (len(driver.made), driver.open) == (3, [])

    def test_a_new_pool_has_no_loop(self, driver: AsyncDriver) -> None:
        pool = AsyncQueuePool(driver.connect)
        asyncio.run(self.use(pool)())
        asyncio.run(self.use(pool.recreate())())  # type: ignore[arg-type]

    def test_a_wait_where_no_loop_runs_is_refused(self) -> None:
        pool = AsyncQueuePool(FakeDriver().connect, pool_size=1, max_overflow=0)
        conn = pool.connect()
        with pytest.raises(exc.MissingGreenlet, match='no event loop runs here: expected a call by way of AsyncEngine'):
            pool.connect()
        conn.close()
        assert (pool.checkedin(), pool._pool.get_stats()['waiting']) == (1, 0)

    def test_a_wait_outside_of_a_greenlet_is_refused(self, run: Run) -> None:
        async def main() -> None:
            pool = AsyncQueuePool(FakeDriver().connect, pool_size=1, max_overflow=0)
            conn = pool.connect()
            with pytest.raises(exc.MissingGreenlet):
                pool.connect()
            conn.close()
            assert (pool.checkedin(), pool._pool.get_stats()['waiting']) == (1, 0)

        run(main)

    def test_a_loop_that_ends_while_a_task_waits_leaves_no_waiter(self, driver: AsyncDriver) -> None:
        pool = AsyncQueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=None)
        kept = []

        async def main() -> None:
            kept.append(await connect(pool))
            await begin_to_wait(pool, 2)

        asyncio.run(main())
        assert pool._pool.get_stats()['waiting'] == 0
        kept[0].detach()
        assert pool.checkedout() == 0
