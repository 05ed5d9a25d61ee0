"""Faults that a review found, each by its smallest reproduction."""

import asyncio
import functools
import weakref
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from tests.support import PATIENCE, Interruption


class Connection:
    """Nothing but an identity."""


class AsyncManager(gcpool.asyncio.BaseConnectionManager[str, Connection]):
    async def create(self, endpoint: str) -> Connection:
        return Connection()

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        return


class ReleaseHook(AsyncManager):
    async def on_release(self, endpoint: str, conn: Connection) -> None:
        await asyncio.sleep(0)


# -- objects that were made without what makes them whole: an error, where the process crashed -------------------------


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
        assert pool.get_stats()['acquired'] == 0
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
                coroutine.send(None)
            except StopIteration as stop:
                return stop.value

        for _ in range(3):
            conn = drive()
            assert isinstance(conn, Connection)
            await pool.release(conn, 'a')
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


def test_a_release_that_is_closed_before_its_first_step_releases() -> None:
    async def main() -> None:
        pool = gcpool.asyncio.ConnectionPool(ReleaseHook())
        conn = await pool.acquire('a')
        pool.release(conn, 'a').close()
        assert pool.get_stats()['acquired'] == 0

    asyncio.run(main())


# -- interruptions on asyncio: as a signal handler's, anywhere in Python code -----------------------------------------


@pytest.mark.parametrize('queued', [False, True], ids=['before', 'after'])
def test_an_interruption_while_a_waiter_is_woken_does_not_leave_it_asleep(queued: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = gcpool.asyncio.ConnectionPool(AsyncManager(), max_size=1)
        conn = await pool.acquire('a')
        waiter = asyncio.ensure_future(pool.acquire('a'))
        while not pool.get_stats()['waiting']:  # noqa: ASYNC110  (the loop has to turn)
            await asyncio.sleep(0)
        call_soon = loop.call_soon

        def interrupted(*args: Any, **kwargs: Any) -> asyncio.Handle:
            loop.call_soon = call_soon  # type: ignore[method-assign]
            if queued:
                call_soon(*args, **kwargs)
            raise Interruption

        loop.call_soon = interrupted  # type: ignore[assignment, method-assign]
        with pytest.raises(Interruption):
            await pool.release(conn, 'a')
        assert await asyncio.wait_for(waiter, PATIENCE) is conn
        await pool.release(conn, 'a')
        await pool.close()

    asyncio.run(main())


def test_what_create_has_returned_is_in_the_books_whatever_comes_next() -> None:
    disposed = []

    class Disposing(AsyncManager):
        async def dispose(self, endpoint: str, conn: Connection) -> None:
            disposed.append(conn)

    class InterruptedPool(gcpool.asyncio.ConnectionPool[str, Connection]):
        async def _bounded(self, *args: Any, **kwargs: Any) -> Any:
            await super()._bounded(*args)
            raise Interruption

    async def main() -> None:
        pool = InterruptedPool(Disposing())
        with pytest.raises(Interruption):
            await pool.acquire('a')
        assert (pool.get_stats()['created'], pool.get_stats()['acquired']) == (1, 0)
        await pool.close()
        assert len(disposed) == 1

    asyncio.run(main())


def test_an_interruption_before_the_manager_was_asked_leaves_the_connection_in_doubt() -> None:
    class Judging(AsyncManager):
        async def is_broken(self, endpoint: str, conn: Connection, exc: BaseException) -> bool:
            return False

    class InterruptedPool(gcpool.asyncio.ConnectionPool[str, Connection]):
        async def _judge(self, *args: Any, **kwargs: Any) -> None:
            raise Interruption

    async def main() -> None:
        pool = InterruptedPool(Judging())
        with pytest.raises(Interruption):
            async with pool.connection('a'):
                raise ValueError
        await pool.close()
        assert pool.get_stats()['broken'] == 1

    asyncio.run(main())


@pytest.mark.parametrize('place', ['_dispose_doomed', '_spawn_disposals', '_dispose_in_turn'])
def test_an_interruption_before_what_a_release_doomed_is_closed_keeps_nobody_waiting(place: str) -> None:
    interruptions = [Interruption()]
    kept: list[BaseException] = []

    class InterruptedPool(gcpool.asyncio.ConnectionPool[str, Connection]):
        async def _dispose_doomed(self, *args: Any, **kwargs: Any) -> None:
            if place == '_dispose_doomed' and interruptions:
                raise interruptions.pop()
            await super()._dispose_doomed(*args, **kwargs)

        def _spawn_disposals(self, *args: Any, **kwargs: Any) -> Any:
            if place == '_spawn_disposals' and interruptions:
                raise interruptions.pop()
            return super()._spawn_disposals(*args, **kwargs)

        async def _dispose_in_turn(self, *args: Any, **kwargs: Any) -> None:
            if place == '_dispose_in_turn' and interruptions:
                kept.append(interruptions.pop())
                raise kept[0]
            await super()._dispose_in_turn(*args, **kwargs)

    async def main() -> None:
        # Without a hook a release has its disposals begun when it is called.
        manager = ReleaseHook() if place == '_dispose_doomed' else AsyncManager()
        pool = InterruptedPool(manager, max_size=1, total_max_size=1)
        conn = await pool.acquire('a')
        waiter = asyncio.ensure_future(pool.acquire('b'))
        while not pool.get_stats()['waiting']:  # noqa: ASYNC110  (the loop has to turn)
            await asyncio.sleep(0)
        try:
            await pool.release(conn, 'a')
        except Interruption as exc:
            kept.append(exc)
        await pool.release(await asyncio.wait_for(waiter, PATIENCE), 'b')
        assert len(kept) == 1
        await pool.close()

    asyncio.run(main())


def test_an_interruption_when_a_task_has_ended_keeps_close_from_nothing() -> None:
    interruptions = [Interruption()]

    class InterruptedPool(gcpool.asyncio.ConnectionPool[str, Connection]):
        def _lane_ended(self, *args: Any, **kwargs: Any) -> None:
            if interruptions:
                raise interruptions.pop()
            super()._lane_ended(*args, **kwargs)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
        pool = InterruptedPool(AsyncManager(), min_idle=0, idle_timeout=0)
        await pool.release(await pool.acquire('a'), 'a')
        await asyncio.wait_for(pool.close(), PATIENCE)
        assert not interruptions
        assert pool.get_size() == 0

    asyncio.run(main())


@pytest.mark.parametrize('place', ['_dispose', '_spawn_disposal', '_take_disposal'])
def test_an_interruption_before_a_dispose_was_begun_leaves_it_to_the_next(place: str) -> None:
    disposed = []
    interruptions = [Interruption()]

    class Disposing(AsyncManager):
        async def dispose(self, endpoint: str, conn: Connection) -> None:
            disposed.append(conn)

    class InterruptedPool(gcpool.asyncio.ConnectionPool[str, Connection]):
        def _take_disposal(self, *args: Any, **kwargs: Any) -> Any:
            if place == '_take_disposal' and len(taken_so_far) == 1 and interruptions:
                raise interruptions.pop()
            taken_so_far.append(place)
            return super()._take_disposal(*args, **kwargs)

        def _spawn_disposal(self, *args: Any, **kwargs: Any) -> Any:
            if place == '_spawn_disposal' and interruptions:
                raise interruptions.pop()
            return super()._spawn_disposal(*args, **kwargs)

        async def _dispose(self, *args: Any, **kwargs: Any) -> None:
            if place == '_dispose' and interruptions:
                raise interruptions.pop()
            await super()._dispose(*args, **kwargs)

    taken_so_far: list[str] = []
    kept: list[BaseException] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: None)
        pool = InterruptedPool(
            Disposing(), min_idle=0, idle_timeout=0, dispose_batch_size=10, background_collector=True
        )
        conns = [await pool.acquire('a') for _ in range(3)]
        try:
            for conn in conns:
                await pool.release(conn, 'a')
            await pool.close()
        except Interruption as exc:
            # Its traceback holds on to every frame that it went through.
            kept.append(exc)
            await pool.close()
        assert not interruptions
        assert (len(disposed), pool.get_size()) == (3, 0)

    asyncio.run(main())


@pytest.mark.since_python(3, 12)
def test_eager_tasks_dispose_of_all_whatever_the_first_dispose_raises() -> None:
    disposed = []

    class Exiting(AsyncManager):
        async def dispose(self, endpoint: str, conn: Connection) -> None:
            disposed.append(conn)
            if len(disposed) == 1:
                raise SystemExit(3)

    async def main() -> None:
        pool = gcpool.asyncio.ConnectionPool(Exiting(), min_idle=0, idle_timeout=0, dispose_batch_size=10)
        conns = [await pool.acquire('a') for _ in range(5)]
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        try:
            await pool.close(0)
        finally:
            loop.set_task_factory(None)
            assert (len(disposed), pool.get_size()) == (len(conns), 0)

    with pytest.raises(SystemExit):
        asyncio.run(main())


def test_a_dispose_that_is_cancelled_from_inside_does_not_cut_off_the_others() -> None:
    limits = []

    class Timed(gcpool.asyncio.ConnectionPool[str, Connection]):
        async def _dispose(self, disposal: Any, deadline: float | None) -> None:
            limits.append(deadline)
            await super()._dispose(disposal, deadline)

    class Cancelling(AsyncManager):
        async def dispose(self, endpoint: str, conn: Connection) -> None:
            raise asyncio.CancelledError

    async def main() -> None:
        pool = Timed(Cancelling(), max_size=100)
        for conn in [await pool.acquire('a') for _ in range(100)]:
            await pool.release(conn, 'a')
        await pool.close()
        assert pool.get_size() == 0

    asyncio.run(main())
    assert len(limits) == 100
    if hasattr(asyncio.Task, 'cancelling'):
        assert set(limits) == {None}


# -- drop-in: what programs for generic-connection-pool rely on --------------------------------------------------------


def test_a_plain_function_around_a_coroutine_function_will_do_for_a_create() -> None:
    def wrapped(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    class Wrapping(AsyncManager):
        @wrapped
        async def create(self, endpoint: str, timeout: float | None = None) -> Connection:
            return Connection()

    async def main() -> None:
        async with gcpool.asyncio.ConnectionPool(Wrapping()).connection('a') as conn:
            assert isinstance(conn, Connection)

    asyncio.run(main())


# -- in doubt, or in somebody else's way -----------------------------------------------------------------------------


def test_a_release_without_its_hook_is_no_release_where_nothing_is_checked() -> None:
    async def main() -> None:
        pool = gcpool.asyncio.ConnectionPool(ReleaseHook())
        conn = await pool.acquire('a')
        task = asyncio.ensure_future(pool.release(conn, 'a'))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert pool.get_stats()['acquired'] == 0
        other = await pool.acquire('a')
        assert other is not conn
        await pool.release(other, 'a')
        await pool.close()

    asyncio.run(main())
