"""Releases from code that cannot await, and discards that are not awaited."""

import asyncio
import contextvars
import gc
import inspect
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import ConnectionNotAcquired, EventLoopMismatch
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Gate, HookedManager, JudgingManager, Manager, OnlyResetting
from tests.support import PATIENCE, Connection

MANAGERS = pytest.mark.parametrize('manager_class', [Manager, HookedManager, JudgingManager])


def in_another_thread(function: Callable[..., object], *args: Any) -> None:
    """Call a function in another thread while this one's loop does not run on; raise what it raises."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function(*args)
        except BaseException as exc:  # noqa: BLE001
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def call(function: Callable[..., object], *args: Any) -> None:
    function(*args)


WHERE = pytest.mark.parametrize('where', [call, in_another_thread])


@WHERE
@MANAGERS
async def test_the_connection_is_returned(manager_class: type[Manager], where: Any) -> None:
    async with Case(manager_class()) as case:
        for endpoint in ('a', None):
            conn = await case.pool.acquire(endpoint)
            where(case.pool.release_nowait, conn, endpoint)
            await until(lambda: case.stats['acquired'] == 0)
            conn = await case.pool.acquire(endpoint)
            where(case.pool.release_nowait, conn)
            await until(lambda: case.stats['acquired'] == 0)
        assert case.manager.calls.count('on_release a1') == 2 * (manager_class is not Manager)
        assert case.stats['created'] == 2


@WHERE
@MANAGERS
async def test_it_goes_to_who_waits(manager_class: type[Manager], where: Any) -> None:
    async with Case(manager_class(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        where(case.pool.release_nowait, conn)
        assert await job.result() is conn
        await case.pool.release(conn)


@WHERE
@MANAGERS
async def test_a_second_release_is_refused_at_once(manager_class: type[Manager], where: Any) -> None:
    async with Case(manager_class()) as case:
        conn = await case.pool.acquire('a')
        where(case.pool.release_nowait, conn)
        for function in (case.pool.release_nowait, case.pool.detach):
            with pytest.raises(ConnectionNotAcquired):
                where(function, conn)
        for method in (case.pool.release, case.pool.discard):
            with pytest.raises(ConnectionNotAcquired):
                await method(conn)
        await until(lambda: case.stats['idle'] == 1)


@WHERE
async def test_bad_input_changes_nothing(where: Any) -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        with pytest.raises(ConnectionNotAcquired, match="belongs to endpoint 'a', but was released to 'b'"):
            where(case.pool.release_nowait, conn, 'b')
        with pytest.raises(ConnectionNotAcquired, match='does not belong to'):
            where(case.pool.release_nowait, Connection('a', 7))
        await case.pool.release(conn)


@WHERE
async def test_what_close_has_closed_is_let_go(where: Any) -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        assert await case.pool.close(timeout=0) == 1
        where(case.pool.release_nowait, conn)
        with pytest.raises(ConnectionNotAcquired):
            where(case.pool.release_nowait, conn)


@WHERE
async def test_close_waits_for_the_hook_of_such_a_release(where: Any) -> None:
    gate = Gate()
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        case.manager.script('on_release', gate)
        where(case.pool.release_nowait, conn)
        await gate.reached()
        job = spawn(case.pool.close)
        await until(lambda: case.pool._core.closed)
        assert not job.done
        gate.open()
        assert await job.result() == 0


@WHERE
async def test_what_its_hook_raises_is_logged_and_the_connection_is_back(
    where: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        case.manager.script('on_release', OSError('gone'))
        where(case.pool.release_nowait, conn)
        await until(lambda: case.stats['idle'] == 1)
        await until(lambda: 'a release that was not awaited failed: OSError: gone' in caplog.text)


async def test_its_hook_runs_in_an_empty_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar('variable', default='empty')
    seen: list[str] = []

    class Looking(OnlyResetting):
        async def on_release(self, endpoint: Any, conn: Connection) -> None:
            seen.append(variable.get())

    async with Case(Looking()) as case:
        conn = await case.pool.acquire('a')
        token = variable.set("a request's")
        case.pool.release_nowait(conn)
        await until(lambda: case.stats['idle'] == 1)
        variable.reset(token)
    assert seen == ['empty']


@pytest.mark.parametrize('thread', [False, True])
@MANAGERS
async def test_a_finaliser_may_call_it(manager_class: type[Manager], thread: bool) -> None:
    class Session:
        """What a program hands out in place of a connection."""

        def __init__(self, pool: 'ConnectionPool[Any, Connection]', conn: Connection) -> None:
            self.pool = pool
            self.conn = conn
            self.itself = self

        def __del__(self) -> None:
            self.pool.release_nowait(self.conn)

    async with Case(manager_class()) as case:
        Session(case.pool, await case.pool.acquire('a'))
        (in_another_thread if thread else call)(gc.collect)
        await until(lambda: case.stats['idle'] == 1)


@MANAGERS
def test_without_a_running_loop_the_hook_is_left_out(manager_class: type[Manager]) -> None:
    manager = manager_class()
    pool: ConnectionPool[Any, Connection] = ConnectionPool(manager, check_interval=60.0)

    async def take() -> Connection:
        return await pool.acquire('a')

    async def take_again() -> None:
        conn = await pool.acquire('a')
        await pool.release(conn)
        await pool.close()

    loop = asyncio.new_event_loop()
    try:
        conn = loop.run_until_complete(take())
        manager.calls.clear()
        pool.release_nowait(conn)
        assert pool.get_stats()['idle'] == 1
        assert manager.calls == []
        loop.run_until_complete(take_again())
        # It may be in any state: it is checked before it is served.
        assert ('check_aliveness a1' in manager.calls) == (manager_class is not Manager)
    finally:
        loop.close()


@MANAGERS
def test_after_the_end_of_the_loop_it_is_returned_too(manager_class: type[Manager]) -> None:
    pool: ConnectionPool[Any, Connection] = ConnectionPool(manager_class())

    async def take() -> Connection:
        return await pool.acquire('a')

    loop = asyncio.new_event_loop()
    conn = loop.run_until_complete(take())
    loop.close()
    pool.release_nowait(conn)
    assert pool.get_stats()['acquired'] == 0
    with pytest.raises(ConnectionNotAcquired):
        pool.release_nowait(conn)
    pool.terminate()


@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
def test_a_loop_that_ends_before_it_looks_returns_it(manager_class: type[Manager]) -> None:
    pool: ConnectionPool[Any, Connection] = ConnectionPool(manager_class())

    async def take() -> None:
        conn = await pool.acquire('a')
        in_another_thread(pool.release_nowait, conn)
        assert pool.get_stats()['acquired'] == 1
        asyncio.get_running_loop().stop()

    loop = asyncio.new_event_loop()
    task = loop.create_task(take())
    loop.run_forever()
    # What the other thread has left in the loop's queue is dropped with the loop.
    loop.close()
    gc.collect()
    assert task.done()
    assert pool.get_stats()['acquired'] == 0
    pool.terminate()


async def test_the_task_of_its_hook_may_be_cancelled_before_its_first_step() -> None:
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        case.pool.release_nowait(conn)
        for task in asyncio.all_tasks():
            if task.get_name() == 'gcpool-release':
                task.cancel()
        await until(lambda: case.stats['acquired'] == 0)
        assert await case.cycle('a') == 'a1'


# ---- discard and detach -------------------------------------------------------------------------------------------


@MANAGERS
async def test_a_discard_that_is_not_awaited_has_discarded(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        conn = await case.pool.acquire('a')
        coroutine = case.pool.discard(conn)
        with pytest.warns(RuntimeWarning, match="coroutine 'ConnectionPool.discard' was never awaited"):
            del coroutine
        await until(lambda: conn.disposals == 1)


async def test_a_discard_whose_task_is_cancelled_before_its_first_step_has_discarded() -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        task = asyncio.get_running_loop().create_task(case.pool.discard(conn))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: conn.disposals == 1)


async def test_a_discard_that_is_cancelled_goes_on_closing() -> None:
    gate = Gate()
    async with Case() as case:
        conn = await case.pool.acquire('a')
        case.manager.script('dispose', gate)
        job = spawn(case.pool.discard, conn)
        await gate.reached()
        job.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job.result()
        assert case.pool.get_size() == 1
        gate.open()
        await until(lambda: case.pool.get_size() == 0)


@pytest.mark.parametrize('awaited', [False, True])
async def test_a_discard_from_another_thread(awaited: bool) -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        loop = asyncio.get_running_loop()
        if awaited:
            future = await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(case.pool.discard(conn), loop))
            await asyncio.wrap_future(future)
            assert conn.disposals == 1
        else:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                in_another_thread(lambda: call(case.pool.discard, conn))
                gc.collect()
            await until(lambda: case.stats['acquired'] == 0)
            assert conn.disposals == 0, 'nobody discarded it: it is returned'


async def test_a_discard_in_another_loop_is_refused_and_changes_nothing() -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')

        def discard() -> None:
            async def run() -> None:
                with pytest.raises(EventLoopMismatch):
                    await case.pool.discard(conn)

            asyncio.run(run())

        await asyncio.to_thread(discard)
        assert case.stats['acquired'] == 1
        await case.pool.release(conn)


async def test_trying_in_another_loop_is_refused() -> None:
    async with Case() as case:
        await case.cycle('a')

        def try_it() -> None:
            async def run() -> None:
                with pytest.raises(EventLoopMismatch):
                    case.pool.try_acquire('a')

            asyncio.run(run())
            with pytest.raises(RuntimeError, match='no running event loop'):
                case.pool.try_acquire('a')

        await asyncio.to_thread(try_it)


async def test_a_detach_in_another_thread_wakes_who_waits() -> None:
    async with Case(CheckingManager(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        in_another_thread(case.detach, conn)
        assert (await job.result()).name == 'a2'
        await case.pool.release(case.manager.connections[1])


def test_the_methods_that_return_coroutines_are_known_as_such() -> None:
    is_one = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction
    assert is_one(ConnectionPool.discard)
    assert not is_one(ConnectionPool.release_nowait)
    assert not is_one(ConnectionPool.detach)
    assert not is_one(ConnectionPool.try_acquire)
