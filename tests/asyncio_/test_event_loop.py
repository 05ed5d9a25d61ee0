"""The pool together with asyncio's tools: tasks, timeouts, groups, event loops."""

import asyncio
import collections.abc
import functools
import gc
import inspect
import logging
import math
import sys
import threading
import warnings
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import ConnectionNotAcquired, ConnectionPoolClosedError, EventLoopMismatch, PoolTimeout
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Gate, HookedManager, Manager, OnlyResetting, Pause
from tests.support import PATIENCE, Connection

# Before Python 3.12 only asyncio's own iscoroutinefunction() can be told about a compiled method; since 3.14 it is
# deprecated.
iscoroutinefunction = inspect.iscoroutinefunction if sys.version_info >= (3, 12) else asyncio.iscoroutinefunction

MANAGERS = pytest.mark.parametrize('manager_class', [Manager, HookedManager])


async def turns(count: int = 10) -> None:
    """Let the event loop turn, so that what happens by itself can happen."""
    for _ in range(count):
        await asyncio.sleep(0)


# ---- what acquire and release return ------------------------------------------------------------------------------


async def test_acquire_and_release_return_coroutines() -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        for coroutine in (case.pool.acquire('a'), case.pool.release(conn, 'a')):
            assert asyncio.iscoroutine(coroutine)
            assert inspect.isawaitable(coroutine)
            assert isinstance(coroutine, collections.abc.Coroutine)
            coroutine.close()
        # The release that was closed before its first step has released.
        assert case.stats['idle'] == 1


@pytest.mark.parametrize('name', ['acquire', 'release', 'close', 'get_endpoint_pool_size'])
def test_the_methods_that_may_wait_are_coroutine_functions(name: str) -> None:
    assert iscoroutinefunction(getattr(ConnectionPool(Manager()), name))


@pytest.mark.parametrize('name', ['get_size', 'get_stats', 'connection'])
def test_the_others_are_not(name: str) -> None:
    assert not iscoroutinefunction(getattr(ConnectionPool(Manager()), name))


@MANAGERS
async def test_a_coroutine_can_be_awaited_once(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        acquire = case.pool.acquire('a')
        conn = await acquire
        with pytest.raises(RuntimeError, match='cannot reuse already awaited coroutine'):
            await acquire
        release = case.pool.release(conn, 'a')
        await release
        with pytest.raises(RuntimeError, match='cannot reuse already awaited coroutine'):
            await release
        assert case.stats['idle'] == 1


async def test_a_coroutine_that_failed_cannot_be_awaited_again() -> None:
    async with Case() as case:
        case.manager.script('create', OSError())
        acquire = case.pool.acquire('a')
        with pytest.raises(OSError):
            await acquire
        with pytest.raises(RuntimeError, match='cannot reuse already awaited coroutine'):
            await acquire
        assert case.pool.get_size() == 0


@pytest.mark.parametrize('method', ['acquire', 'release'])
async def test_a_coroutine_that_is_never_awaited_warns(method: str) -> None:
    """An acquire takes nothing then; a release has released."""
    async with Case() as case:
        conn = await case.pool.acquire('a')
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            forgotten = case.pool.acquire('a') if method == 'acquire' else case.pool.release(conn, 'a')
            del forgotten
            gc.collect()
        # In asyncio's debug mode a second line says where it was created.
        assert [(w.category, str(w.message).splitlines()[0]) for w in caught] == [
            (RuntimeWarning, f"coroutine 'ConnectionPool.{method}' was never awaited")
        ]
        assert case.stats['acquired'] == (1 if method == 'acquire' else 0)
        if method == 'acquire':
            await case.release(conn)


async def test_a_release_with_a_hook_that_is_never_awaited_warns_and_leaves_the_connection_in_doubt() -> None:
    async with Case(HookedManager(), check_interval=3600.0) as case:
        conn = await case.pool.acquire('a')
        forgotten = [case.pool.release(conn, 'a')]
        with pytest.warns(RuntimeWarning, match="coroutine 'ConnectionPool.release' was never awaited"):
            forgotten.clear()
        assert case.stats['idle'] == 1
        case.manager.calls.clear()
        assert await case.pool.acquire('a') is conn
        # Its hook did not run, so the connection is checked, however recently it was used.
        assert case.manager.calls == ['check_aliveness a1', 'on_acquire a1']
        await case.release(conn)


@MANAGERS
async def test_a_connection_is_back_when_release_was_called(manager_class: type[Manager]) -> None:
    """Who awaits the returned coroutine, and when."""
    async with Case(manager_class()) as case:
        conn = await case.pool.acquire('a')
        first = case.pool.release(conn, 'a')
        second = case.pool.release(conn, 'a')
        with pytest.raises(ConnectionNotAcquired, match='is not acquired'):
            await second
        await first
        assert case.stats['idle'] == 1
        # Errors are raised when it is awaited.
        results = await asyncio.gather(
            case.pool.release(conn, 'a'), case.pool.release(Connection('x', 0), 'a'), return_exceptions=True
        )
        assert [type(result) for result in results] == [ConnectionNotAcquired] * 2


def in_another_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@MANAGERS
@pytest.mark.parametrize('way', ['awaited', 'closed', 'dropped', 'released meanwhile'])
async def test_release_called_in_another_thread(manager_class: type[Manager], way: str) -> None:
    """As in ``run_coroutine_threadsafe(pool.release(conn, endpoint), loop)``: the loop does the work."""
    async with Case(manager_class()) as case:
        conn = await case.pool.acquire('a')
        made: list[Any] = []
        in_another_thread(lambda: made.append(case.pool.release(conn, 'a')))
        assert case.stats['acquired'] == 1
        if way == 'awaited':
            await made.pop()
        elif way == 'closed':
            made.pop().close()
        elif way == 'dropped':
            with pytest.warns(RuntimeWarning, match='never awaited'):
                in_another_thread(made.clear)
        else:
            await case.release(conn)
            assert await case.pool.acquire('a') is conn
            with pytest.raises(ConnectionNotAcquired, match='another user has acquired it'):
                await made.pop()
            await case.release(conn)
        await until(lambda: case.stats['acquired'] == 0)
        assert case.stats['idle'] == 1


async def test_a_coroutine_that_is_closed_before_it_began_does_nothing() -> None:
    async with Case() as case:
        case.pool.acquire('a').close()
        assert case.pool.get_size() == 0
        assert case.manager.calls == []


async def test_a_served_connection_is_let_go_of_by_the_pool_s_coroutines() -> None:
    async with Case(min_idle=0, idle_timeout=0) as case:
        for _ in range(3):
            async with case.pool.connection('a'):
                pass
            await case.cycle('a')
            await asyncio.create_task(case.pool.acquire('a'))
            await case.release(case.manager.connections[-1])
        served = [weakref.ref(conn) for conn in case.manager.connections]
        case.manager.connections.clear()
        gc.collect()
        assert [conn() for conn in served] == [None] * 9
        # So that the books balance.
        case.manager.connections.extend(Connection('a', 0) for _ in served)
        for conn in case.manager.connections:
            conn.disposals = 1


async def test_a_coroutine_that_is_driven_by_hand_keeps_nothing_alive() -> None:
    class Local:
        """In a frame that must go."""

    async with Case() as case:
        await case.cycle('a')
        frames = []

        def drive() -> Any:
            local = Local()
            frames.append(weakref.ref(local))
            coroutine: Any = case.pool.acquire('a')
            try:
                coroutine.send(None)
            except StopIteration as stop:
                return stop.value

        for _ in range(3):
            conn = drive()
            assert isinstance(conn, Connection)
            await case.release(conn)
        assert [frame() for frame in frames] == [None] * 3


async def test_what_awaits_a_coroutine_may_be_driven_by_the_name_of_its_method() -> None:
    async with Case() as case:
        await case.cycle('a')
        coroutine: Any = case.pool.acquire('a')
        with pytest.raises(StopIteration) as stop:
            coroutine.__await__().__next__()
        assert isinstance(stop.value.value, Connection)
        await case.release(stop.value.value)


# ---- tasks --------------------------------------------------------------------------------------------------------


@MANAGERS
@pytest.mark.parametrize('how', ['ready', 'created', 'waited for'])
async def test_acquire_in_a_task(how: str, manager_class: type[Manager]) -> None:
    async with Case(manager_class(), max_size=1) as case:
        if how == 'ready':
            await case.cycle('a')
        held = await case.pool.acquire('a') if how == 'waited for' else None
        task = asyncio.create_task(case.pool.acquire('a'), name='mine')
        assert task.get_name() == 'mine'
        if held is not None:
            await case.waiting(1)
            await asyncio.create_task(case.pool.release(held, 'a'))
        conn = await task
        assert conn.name == 'a1'
        await asyncio.create_task(case.pool.release(conn, 'a'))
        assert case.stats['idle'] == 1


@pytest.mark.since_python(3, 12)
async def test_acquire_in_an_eager_task() -> None:
    if sys.version_info >= (3, 12):
        loop = asyncio.get_running_loop()
        async with Case(HookedManager(), max_size=1) as case:
            conn = await asyncio.Task(case.pool.acquire('a'), loop=loop, eager_start=True)
            task = asyncio.Task(case.pool.acquire('a'), loop=loop, eager_start=True)
            assert case.stats['waiting'] == 1
            release = asyncio.Task(case.pool.release(conn, 'a'), loop=loop, eager_start=True)
            assert release.done()
            await case.release(await task)


async def test_acquire_in_gather() -> None:
    async with Case(max_size=3) as case:
        conns = await asyncio.gather(*(case.pool.acquire('a') for _ in range(3)))
        assert sorted(conn.name for conn in conns) == ['a1', 'a2', 'a3']
        await asyncio.gather(*(case.pool.release(conn, 'a') for conn in conns))
        assert case.stats['idle'] == 3


async def test_acquire_in_shield_and_as_completed() -> None:
    async with Case(max_size=2) as case:
        first = await asyncio.shield(case.pool.acquire('a'))
        for earliest in asyncio.as_completed([case.pool.acquire('a')]):
            await case.release(await earliest)
        await asyncio.shield(case.pool.release(first, 'a'))
        assert case.stats['idle'] == 2


async def test_acquire_from_another_thread_through_the_loop() -> None:
    async with Case() as case:
        loop = asyncio.get_running_loop()
        served: asyncio.Future[Connection] = loop.create_future()

        def work() -> None:
            conn = asyncio.run_coroutine_threadsafe(case.pool.acquire('a'), loop).result(PATIENCE)
            loop.call_soon_threadsafe(served.set_result, conn)

        thread = threading.Thread(target=work)
        thread.start()
        await case.release(await served)
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.since_python(3, 11)
async def test_clients_in_a_task_group() -> None:
    if sys.version_info >= (3, 11):
        async with Case(max_size=2) as case:

            async def client() -> None:
                async with case.pool.connection('a'):
                    await asyncio.sleep(0)

            async with asyncio.TaskGroup() as group:
                for _ in range(100):
                    group.create_task(client())
            assert case.stats['acquires'] == 100
            assert case.stats['created'] == 2


@pytest.mark.since_python(3, 11)
async def test_a_task_group_that_fails_gives_back_what_its_tasks_held_or_waited_for() -> None:
    if sys.version_info >= (3, 11):
        async with Case(HookedManager(), max_size=2) as case:

            async def client() -> None:
                async with case.pool.connection('a'):
                    await asyncio.sleep(PATIENCE)

            async def fail() -> None:
                await case.waiting(3)
                raise KeyError

            async def clients() -> None:
                async with asyncio.TaskGroup() as group:
                    for _ in range(5):
                        group.create_task(client())
                    group.create_task(fail())

            with pytest.RaisesGroup(KeyError):
                await clients()
            assert (case.stats['idle'], case.stats['acquired'], case.stats['waiting']) == (2, 0, 0)


# ---- time limits --------------------------------------------------------------------------------------------------


async def test_wait_for_around_an_acquire_that_is_served_in_time() -> None:
    async with Case(max_size=1) as case:
        conn = await asyncio.wait_for(case.pool.acquire('a'), PATIENCE)
        job = spawn(asyncio.wait_for, case.pool.acquire('a'), PATIENCE)
        await case.waiting(1)
        await asyncio.wait_for(case.pool.release(conn, 'a'), PATIENCE)
        assert await job.result() is conn
        await case.release(conn)


@MANAGERS
async def test_wait_for_around_an_acquire_that_waits_in_vain(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        with pytest.raises(asyncio.TimeoutError) as caught:
            await asyncio.wait_for(case.pool.acquire('a'), 0.01)
        assert not isinstance(caught.value, PoolTimeout)
        assert case.stats['waiting'] == 0
        await case.release(conn)


@pytest.mark.parametrize('method', ['create', 'check_aliveness', 'on_acquire'])
async def test_wait_for_around_an_acquire_whose_manager_hangs(method: str) -> None:
    async with Case(HookedManager(), max_size=1) as case:
        if method == 'check_aliveness':
            await case.cycle('a')
        case.manager.script(method, Gate())
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(case.pool.acquire('a'), 0.01)
        assert case.stats['acquired'] == 0
        assert case.pool.get_size() == (method != 'create')
        await case.cycle('a')


@pytest.mark.since_python(3, 11)
async def test_a_timeout_scope_around_an_acquire_fires_and_nothing_is_lost() -> None:
    if sys.version_info >= (3, 11):
        async with Case(max_size=1) as case:
            conn = await case.pool.acquire('a')
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.01) as scope:
                    await case.pool.acquire('a', timeout=PATIENCE)
            assert scope.expired()
            assert not isinstance(caught.value, PoolTimeout)
            assert case.stats['waiting'] == 0
            await case.release(conn)


@pytest.mark.since_python(3, 11)
async def test_a_timeout_scope_that_lasts_longer_than_the_acquire_s_own_limit_does_not_fire() -> None:
    if sys.version_info >= (3, 11):
        async with Case(max_size=1) as case:
            conn = await case.pool.acquire('a')
            async with asyncio.timeout(PATIENCE) as scope:
                with pytest.raises(PoolTimeout):
                    await case.pool.acquire('a', timeout=0.01)
            assert not scope.expired()
            await case.release(conn)


@pytest.mark.parametrize('timeout', [0, 0.01])
async def test_create_that_takes_longer_than_the_time_limit_is_cancelled(timeout: float) -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        case.manager.script('create', Gate())
        expected = rf"create\(\) for endpoint 'a' did not end within the acquire timeout of {timeout:g} s"
        with pytest.raises(PoolTimeout, match=expected) as caught:
            await case.pool.acquire('a', timeout=timeout)
        assert isinstance(caught.value, asyncio.TimeoutError)
        assert isinstance(caught.value, TimeoutError)
        assert case.pool.get_size() == case.manager.open.total() == 0
        await case.cycle('b')


async def test_check_aliveness_that_takes_longer_than_the_time_limit_is_cancelled() -> None:
    async with Case(CheckingManager(), max_size=1) as case:
        await case.cycle('a')
        case.manager.script('check_aliveness', Gate())
        with pytest.raises(PoolTimeout, match=r"check_aliveness\(\) for endpoint 'a' did not end"):
            await case.pool.acquire('a', timeout=0.01)
        assert case.stats['idle'] == 1
        assert await case.cycle('a') == 'a1'


async def test_acquire_timeout_bounds_create_too() -> None:
    async with Case(acquire_timeout=0.01) as case:
        case.manager.script('create', Gate())
        with pytest.raises(PoolTimeout, match=r'within the acquire timeout of 0\.01 s'):
            await case.pool.acquire('a')


async def test_the_time_limit_of_an_acquire_does_not_bound_on_acquire() -> None:
    # As in generic-connection-pool.
    async with Case(HookedManager()) as case:
        gate = Gate()
        case.manager.script('on_acquire', gate)
        job = spawn(case.pool.acquire, 'a', timeout=0)
        await gate.reached()
        await turns()
        gate.open()
        await case.release(await job.result())


async def test_a_dispose_that_takes_longer_than_dispose_timeout_is_cancelled_and_the_connection_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Case(min_idle=0, idle_timeout=0, dispose_timeout=0.01, max_size=1, total_max_size=1) as case:
        case.manager.script('dispose', Gate())
        await case.cycle('a')
        assert case.pool.get_size() == case.manager.open.total() == 0
        errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert [message.partition(' timed out')[0] for message in errors] == ["closing a connection to 'a'"]
        assert await case.cycle('b') == 'b1'


@pytest.mark.parametrize('timeout', [0, 0.01])
async def test_an_acquire_does_not_wait_longer_than_it_may_for_a_connection_to_be_closed_for_it(timeout: float) -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        await case.cycle('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        with pytest.raises(PoolTimeout, match="no connection to 'b' became free"):
            await case.pool.acquire('b', timeout=timeout)
        assert case.pool.get_size() == 1
        gate.open()
        await case.cycle('c')


@pytest.mark.parametrize('timeout', [0, 0.01])
async def test_close_does_not_wait_longer_for_a_dispose_than_it_may(timeout: float) -> None:
    async with Case(min_idle=3) as case:
        await case.release(*await case.acquire('a', 3))
        held = await case.pool.acquire('b')
        case.manager.script('dispose', Gate(), Gate(), Gate(), Gate())
        assert await case.pool.close(timeout=timeout) == 1
        assert case.pool.get_size() == case.manager.open.total() == 0
        await case.release(held)


async def test_what_hangs_for_one_who_gave_up_keeps_nobody_from_the_idle_connections_of_others() -> None:
    async with Case(total_max_size=3, max_size=3) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        gate = Gate()
        case.manager.script('dispose', gate)
        with pytest.raises(PoolTimeout):
            await case.pool.acquire('x', timeout=0)
        # It does not count any more.
        case.clock.advance(2)
        held = [await case.pool.acquire(endpoint, timeout=PATIENCE) for endpoint in 'yz']
        gate.open()
        await case.release(*held)


async def test_a_dispose_that_hangs_keeps_no_other_from_its_turn() -> None:
    async with Case(min_idle=0, idle_timeout=10, max_size=80, total_max_size=80, dispose_batch_size=80) as case:
        conns = await case.acquire('a', 70)
        await case.release(*conns[1:])
        case.clock.advance(10)
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.release, conns[0])
        # More than may run at a time.
        await until(lambda: len(case.manager.living) <= 2)
        assert not job.done
        gate.open()
        await job.result()


async def test_what_is_doomed_during_a_dispose_is_closed_beside_the_next_one_that_hangs() -> None:
    async with Case(min_idle=0, idle_timeout=10) as case:
        a1, a2, a3, a4 = await case.acquire('a', 4)
        await case.release(a1)
        case.clock.advance(10)
        gates = Gate(), Gate()
        case.manager.script('dispose', *gates)
        job = spawn(case.release, a2)
        await gates[0].reached()
        # As when the end of a dispose dooms connections of several endpoints at once, for waiters that want a slot.
        assert case.pool._core.doom_acquired() == 2
        gates[0].open()
        await gates[1].reached()
        await until(lambda: case.manager.living == ['a2'])
        gates[1].open()
        await job.result()
        await case.release(a3, a4)


async def test_a_context_left_in_another_loop_is_refused_and_its_connection_still_out() -> None:
    async with Case() as case:
        context = case.pool.connection('a')
        await context.__aenter__()

        async def leave() -> None:
            with pytest.raises(EventLoopMismatch):
                await context.__aexit__(None, None, None)

        await asyncio.to_thread(asyncio.run, leave())
        assert case.stats['acquired'] == 1
        await context.__aexit__(None, None, None)
        assert case.stats['acquired'] == 0


async def test_a_release_that_is_cancelled_unbegun_in_another_loop_wakes_the_waiter_in_the_pool_s() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        waiter = spawn(case.pool.acquire, 'a')
        await case.waiting(1)

        async def cancel() -> None:
            task = asyncio.create_task(case.pool.release(conn, 'a'))
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            # The end of this thread would wake the pool's loop, too.
            assert served.wait(PATIENCE)

        served = threading.Event()
        waiter.task.add_done_callback(lambda _: served.set())
        await asyncio.to_thread(asyncio.run, cancel())
        assert await waiter.result() is conn
        await case.release(conn)


async def test_the_end_of_a_context_that_is_closed_unbegun_in_another_thread_wakes_the_waiter() -> None:
    async with Case(HookedManager(), max_size=1) as case:
        context = case.pool.connection('a')
        conn = await context.__aenter__()
        waiter = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        leaving = context.__aexit__(None, None, None)
        order: list[str] = []
        waiter.task.add_done_callback(lambda _: order.append('served'))

        def close() -> None:
            leaving.close()
            # Nothing else wakes the loop before that.
            assert served.wait(PATIENCE)

        served = threading.Event()
        waiter.task.add_done_callback(lambda _: served.set())
        await asyncio.to_thread(close)
        assert await waiter.result() is conn
        assert order == ['served']
        await case.release(conn)


@pytest.mark.parametrize('how', ['cancel', 'close'])
async def test_a_release_that_is_not_due_and_never_begun_is_cancelled_or_closed_all_the_same(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        await case.release(conn)
        if how == 'close':
            case.pool.release(conn, 'a').close()
            assert 'a release was refused' in caplog.text
            return
        task = asyncio.create_task(case.pool.release(conn, 'a'))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def test_both_ends_of_a_context_are_coroutines() -> None:
    async with Case() as case:
        context = case.pool.connection('a')
        conn = await asyncio.create_task(context.__aenter__())
        assert conn.name == 'a1'
        await asyncio.create_task(context.__aexit__(None, None, None))
        assert case.stats['acquired'] == 0


@pytest.mark.parametrize('dispose_timeout', [math.inf, 1e300])
async def test_an_endless_dispose_timeout_is_none(dispose_timeout: float) -> None:
    async with Case(min_idle=0, idle_timeout=0, dispose_timeout=dispose_timeout) as case:
        case.manager.script('dispose', Pause(3))
        await case.cycle('a')
        assert case.pool.get_size() == 0


async def test_dispose_timeout_bounds_the_disposals_of_close() -> None:
    async with Case(dispose_timeout=0.01) as case:
        await case.cycle('a')
        case.manager.script('dispose', Gate())
        assert await case.pool.close() == 0


# ---- cancellation -------------------------------------------------------------------------------------------------


@MANAGERS
async def test_a_cancelled_acquire_that_waits_leaves_the_queue(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        first, second = spawn(case.pool.acquire, 'a'), spawn(case.pool.acquire, 'a')
        await case.waiting(2)
        first.task.cancel()
        await case.waiting(1)
        assert first.task.cancelled()
        await case.release(conn)
        await case.release(await second.result())


@MANAGERS
@pytest.mark.parametrize('order', ['release, cancel', 'cancel, release'])
async def test_a_cancellation_at_the_moment_of_hand_off_passes_the_connection_on(
    order: str, manager_class: type[Manager]
) -> None:
    async with Case(manager_class(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        first, second = spawn(case.pool.acquire, 'a'), spawn(case.pool.acquire, 'a')
        await case.waiting(2)
        if order == 'release, cancel':
            await case.release(conn)
            first.task.cancel()
        else:
            first.task.cancel()
            await case.release(conn)
        await asyncio.wait([first.task], timeout=PATIENCE)
        assert first.task.cancelled()
        assert await second.result() is conn
        await case.release(conn)


@pytest.mark.parametrize('method', ['create', 'check_aliveness', 'on_acquire'])
async def test_a_cancelled_acquire_gives_back_what_it_held(method: str) -> None:
    async with Case(HookedManager(), max_size=1) as case:
        if method == 'check_aliveness':
            await case.cycle('a')
        gate = Gate()
        case.manager.script(method, gate)
        first = spawn(case.pool.acquire, 'a')
        await gate.reached()
        second = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        first.task.cancel()
        conn = await second.result()
        assert first.task.cancelled()
        await case.release(conn)


@MANAGERS
async def test_a_release_that_is_cancelled_before_its_first_step_releases(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        task = asyncio.create_task(case.pool.release(conn, 'a'))
        task.cancel()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.cancelled()
        assert case.stats['idle'] == 1


@pytest.mark.parametrize('what', ['release', 'exit'])
@pytest.mark.parametrize('end', ['cancelled', 'closed'])
async def test_a_release_that_ends_before_its_hook_closes_the_connection_where_nothing_is_checked(
    end: str, what: str
) -> None:
    async with Case(OnlyResetting()) as case:
        context = case.pool.connection('a')
        conn = await context.__aenter__()
        remaining = case.pool.release(conn, 'a') if what == 'release' else context.__aexit__(None, None, None)
        if end == 'closed':
            remaining.close()
        else:
            task = asyncio.create_task(remaining)
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE)
            assert task.cancelled()
        assert case.stats['acquired'] == 0
        assert await case.cycle('a') == 'a2'


async def test_a_release_that_is_cancelled_in_its_hook_releases() -> None:
    async with Case(HookedManager(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        gate = Gate()
        case.manager.script('on_release', gate)
        job = spawn(case.pool.release, conn, 'a')
        await gate.reached()
        job.task.cancel()
        await asyncio.wait([job.task], timeout=PATIENCE)
        assert job.task.cancelled()
        assert case.stats['idle'] == 1


async def test_a_release_that_is_cancelled_while_it_disposes_does_not_cut_the_dispose_off() -> None:
    async with Case(min_idle=0, idle_timeout=0) as case:
        conn = await case.pool.acquire('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.pool.release, conn, 'a')
        await gate.reached()
        job.task.cancel()
        await asyncio.wait([job.task], timeout=PATIENCE)
        assert job.task.cancelled()
        assert case.pool.get_size() == 1
        gate.open()
        await until(lambda: case.pool.get_size() == 0)


async def test_a_close_that_is_cancelled_can_be_repeated() -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.close)
        await until(lambda: case.pool._core.closed)
        await turns()
        job.task.cancel()
        await asyncio.wait([job.task], timeout=PATIENCE)
        assert job.task.cancelled()
        again = spawn(case.pool.close)
        await turns()
        await case.release(conn)
        assert await again.result() == 0


async def test_a_collector_that_is_cancelled_goes_on() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=0) as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        await case.cycle('a')
        await gate.reached()
        collectors = [task for task in asyncio.all_tasks() if task.get_name() == 'gcpool-collector']
        assert len(collectors) == 1
        collectors[0].cancel()
        await asyncio.wait(collectors, timeout=PATIENCE)
        gate.open()
        await case.cycle('b')
        await until(lambda: case.pool.get_size() == 0)


async def test_what_is_no_exception_in_a_background_dispose_reaches_the_loop_s_handler() -> None:
    class Strange(BaseException):
        pass

    loop = asyncio.get_running_loop()
    handler = loop.get_exception_handler()
    seen: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: seen.append(context))
    async with Case(min_idle=0, idle_timeout=0) as case:
        case.manager.script('dispose', Strange())
        await case.cycle('a')
        assert case.pool.get_size() == 0
        await turns()
        gc.collect()
        assert [type(context['exception']) for context in seen] == [Strange]
    loop.set_exception_handler(handler)


# ---- managers that are not quite asynchronous ---------------------------------------------------------------------


async def test_a_create_that_returns_no_awaitable_is_refused() -> None:
    class Half:
        def create(self, endpoint: str) -> object:
            return object()

        async def dispose(self, endpoint: str, conn: object) -> None:
            pass

    half: Any = Half()
    pool: ConnectionPool[str, object] = ConnectionPool(half)
    with pytest.raises(TypeError, match=r'create\(\) of .*Half.* returned <object .*: expected an awaitable'):
        await pool.acquire('a')
    assert pool.get_size() == 0


async def test_a_plain_function_that_returns_what_a_coroutine_function_does_will_do_for_a_create() -> None:
    def decorated(function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return call

    class Decorated(Manager):
        create = decorated(Manager.create)

    async with Case(Decorated()) as case, case.pool.connection('a') as conn:
        assert conn.name == 'a1'


# ---- event loops --------------------------------------------------------------------------------------------------


def calls(pool: ConnectionPool[str, Connection], conn: Connection) -> list[Callable[[], Awaitable[object]]]:
    """Each way to use a pool."""
    return [
        lambda: pool.acquire('a'),
        lambda: pool.acquire('b', timeout=0),
        lambda: pool.release(conn, 'a'),
        lambda: pool.connection('a').__aenter__(),
        lambda: pool.connection('b').__aenter__(),
        pool.close,
        lambda: pool.close(timeout=0),
    ]


@MANAGERS
async def test_use_from_another_loop_is_refused_at_once_and_changes_nothing(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        held, idle = await case.acquire('a', 2)
        await case.release(idle)
        before = case.stats
        case.manager.take_calls()
        outcomes: list[str] = []

        async def use() -> None:
            for call in calls(case.pool, held):
                try:
                    await call()
                except EventLoopMismatch as error:
                    outcomes.append(str(error))

        thread = threading.Thread(target=lambda: asyncio.run(use()))
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert len(outcomes) == len(calls(case.pool, held))
        for outcome in outcomes:
            assert repr(asyncio.get_running_loop())[:-1] in outcome
            assert outcome.endswith('expected one pool for each event loop')
        assert case.stats == before
        assert case.manager.take_calls() == []
        assert not case.pool._core.closed
        await case.release(held)


def test_a_pool_is_bound_to_the_loop_that_first_used_it_even_after_that_is_closed() -> None:
    pool: ConnectionPool[str, Connection] = ConnectionPool(Manager())

    async def use() -> Connection:
        async with pool.connection('a') as conn:
            return conn

    conn = asyncio.run(use())
    for call in calls(pool, conn):

        async def again(call: Callable[[], Awaitable[object]] = call) -> None:
            await call()

        with pytest.raises(EventLoopMismatch):
            asyncio.run(again())
    assert pool.get_size() == 1


@pytest.mark.parametrize('background_collector', [False, True])
def test_a_pool_may_be_built_before_a_loop_runs(background_collector: bool) -> None:
    manager = Manager()
    pool = ConnectionPool[str, Connection](
        manager, background_collector=background_collector, min_idle=0, idle_timeout=0
    )
    assert pool.get_size() == 0
    assert pool.get_stats()['size'] == 0
    assert not pool.is_full

    async def use() -> None:
        async with pool.connection('a'):
            assert pool.get_size() == 1
        await until(lambda: pool.get_size() == 0)
        assert await pool.close() == 0

    asyncio.run(asyncio.wait_for(use(), PATIENCE))
    assert manager.calls == ['create a', 'dispose a1']


def test_a_context_may_be_built_before_a_loop_runs() -> None:
    pool = ConnectionPool[str, Connection](Manager())
    context = pool.connection('a')

    async def use() -> str:
        async with context as conn:
            return conn.name

    assert asyncio.run(use()) == 'a1'


def test_sizes_may_be_asked_for_from_anywhere() -> None:
    pool = ConnectionPool[str, Connection](Manager())

    async def use() -> None:
        await pool.release(await pool.acquire('a'), 'a')

    asyncio.run(use())
    assert asyncio.run(pool.get_endpoint_pool_size('a')) == 1


def test_use_without_a_running_loop_is_an_error_and_changes_nothing() -> None:
    pool = ConnectionPool[str, Connection](Manager())
    acquire = pool.acquire('a')
    with pytest.raises(RuntimeError, match='no running event loop'):
        acquire.send(None)
    with pytest.raises(RuntimeError, match='no running event loop'):
        _ = pool.connection('a').__aenter__()
    assert pool.get_size() == 0

    async def use() -> None:
        await pool.release(await pool.acquire('a'), 'a')
        assert await pool.close() == 0

    asyncio.run(use())


def test_a_loop_that_ends_with_the_pool_in_use_ends() -> None:
    manager = Manager()
    pool = ConnectionPool[str, Connection](manager, max_size=1, background_collector=True, min_idle=0)
    waiters = []

    async def use() -> None:
        await pool.acquire('a')
        waiters.append(asyncio.create_task(pool.acquire('a')))
        await until(lambda: pool.get_stats()['waiting'] == 1)

    asyncio.run(use())
    assert waiters[0].cancelled()
    assert pool.get_stats()['waiting'] == 0


@pytest.mark.parametrize('turns_of_dispose', [0, 1, 5])
def test_a_loop_that_ends_while_a_connection_is_disposed_of_loses_no_slot(turns_of_dispose: int) -> None:
    manager = Manager()
    manager.script('dispose', Pause(turns_of_dispose))
    pool = ConnectionPool[str, Connection](manager, min_idle=0, idle_timeout=0)

    async def use() -> None:
        conn = await pool.acquire('a')
        task = asyncio.create_task(pool.release(conn, 'a'))
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(use())
    assert manager.living == []
    assert pool.get_size() == 0


async def test_closed_is_said_before_the_loop_is_asked_to_wait() -> None:
    async with Case() as case:
        await case.pool.close()
        with pytest.raises(ConnectionPoolClosedError):
            await asyncio.wait_for(case.pool.acquire('a'), PATIENCE)


async def test_contexts_on_an_exit_stack() -> None:
    from contextlib import AsyncExitStack

    async with Case() as case:
        async with AsyncExitStack() as stack:
            conns = [await stack.enter_async_context(case.pool.connection('a')) for _ in range(3)]
            assert len({*conns}) == 3
            assert case.stats['acquired'] == 3
        assert case.stats['idle'] == 3


async def test_a_timer_that_looks_again_is_there_only_while_a_close_is_waited_for() -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        core_timer = case.pool._timer
        await case.cycle('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.pool.acquire, 'b')
        await gate.reached()
        handle = core_timer._timer._handle
        assert handle is not None
        gate.open()
        await case.release(await job.result())
        assert await case.cycle('c') == 'c1'
        await until(lambda: core_timer._timer._handle is None)
        assert handle.cancelled()
        assert core_timer.wakeups == 0
