"""A signal handler may raise between two steps of ``async with``: what was entered and is never left is returned."""

import asyncio
import gc
import threading
import warnings

import pytest

from tests.asyncio_.runtime import spawn, until
from tests.conftest import FREE_THREADED
from tests.pool.support import Case, Gate, HookedManager, JudgingManager, Manager
from tests.support import PATIENCE


@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
async def test_a_context_that_was_entered_and_dropped(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        await case.cycle('a')
        context = case.pool.connection('a')
        await context.__aenter__()
        assert case.stats['acquired'] == 1
        del context
        await until(lambda: case.stats['acquired'] == 0)
        assert await case.cycle('a') == 'a1'


async def test_a_context_whose_entering_was_not_awaited() -> None:
    async with Case() as case:
        await case.cycle('a')
        context = case.pool.connection('a')
        entering = context.__aenter__()
        assert case.stats['acquired'] == 1
        with pytest.warns(RuntimeWarning, match="coroutine 'ConnectionPool.connection' was never awaited"):
            del context, entering
        assert case.stats['acquired'] == 0


async def test_a_context_in_a_cycle() -> None:
    async with Case() as case:
        await case.cycle('a')
        holder: list[object] = [case.pool.connection('a')]
        holder.append(holder)
        await holder[0].__aenter__()  # type: ignore[attr-defined]
        del holder
        gc.collect()
        assert case.stats['acquired'] == 0


@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
@pytest.mark.parametrize('what', ['release', 'exit', 'release in another thread'])
async def test_a_release_in_a_cycle(manager_class: type[Manager], what: str) -> None:
    async with Case(manager_class()) as case:
        context = case.pool.connection('a')
        conn = await context.__aenter__()

        def drop() -> None:
            leaving = context.__aexit__(None, None, None) if what == 'exit' else case.pool.release(conn, 'a')
            holder: list[object] = [leaving]
            holder.append(holder)
            del leaving, holder
            with warnings.catch_warnings():
                # The warning that it was never awaited.
                warnings.simplefilter('ignore')
                gc.collect()

        if what == 'release in another thread':
            thread = threading.Thread(target=drop)
            thread.start()
            thread.join(PATIENCE)
        else:
            drop()
        await until(lambda: case.stats['acquired'] == 0)
        assert await case.cycle('a') is not None


async def test_a_context_that_another_thread_drops() -> None:
    async with Case() as case:
        await case.cycle('a')
        contexts = [case.pool.connection('a')]
        await contexts[0].__aenter__()
        thread = threading.Thread(target=contexts.clear)
        thread.start()
        await asyncio.get_running_loop().run_in_executor(None, thread.join, PATIENCE)
        await until(lambda: case.stats['acquired'] == 0)
        await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize('error', [lambda: None, lambda: OSError('mine')], ids=['left', 'with an error'], indirect=True)
async def test_a_leaving_that_was_not_awaited(error: Exception | None) -> None:
    async with Case(JudgingManager()) as case:
        await case.cycle('a')
        context = case.pool.connection('a')
        await context.__aenter__()
        leaving = context.__aexit__(None if error is None else type(error), error, None)
        assert case.stats['acquired'] == 1
        with pytest.warns(RuntimeWarning, match='never awaited'):
            del leaving
        await until(lambda: case.stats['acquired'] == 0)
        # is_broken() was not asked about the error.
        await until(lambda: case.manager.living == (['a1'] if error is None else []))


async def test_a_context_that_was_left_and_dropped_gives_nothing_back_twice() -> None:
    async with Case() as case:
        context = case.pool.connection('a')
        async with context:
            pass
        holder = await case.pool.acquire('a')
        del context
        assert case.stats['acquired'] == 1
        await case.release(holder)


async def test_what_another_thread_dropped_is_not_given_back_for_somebody_else() -> None:
    async with Case() as case:
        await case.cycle('a')
        contexts = [case.pool.connection('a')]
        conn = await contexts[0].__aenter__()
        thread = threading.Thread(target=contexts.clear)
        thread.start()
        thread.join(PATIENCE)
        # Before the loop learns of it, its user returns the connection, and another task acquires it. (Without the GIL,
        # this thread, which owns the object, finalises it, and has done so by now.)
        if not FREE_THREADED:
            await case.release(conn)
        assert await case.pool.acquire('a') is conn
        for _ in range(5):
            await asyncio.sleep(0)
        assert case.stats['acquired'] == 1
        await case.release(conn)


async def test_a_dropped_leaving_disposes_of_what_is_to_be_closed_for_who_waits() -> None:
    async with Case(total_max_size=1, max_size=1) as case:
        context = case.pool.connection('a')
        await context.__aenter__()
        waiting = asyncio.ensure_future(case.pool.acquire('b'))
        await case.waiting(1)
        leaving = context.__aexit__(None, None, None)
        with pytest.warns(RuntimeWarning, match='never awaited'):
            del leaving
        await case.release(await waiting)


async def test_a_block_whose_coroutine_is_closed_is_left_without_waiting_for_a_close() -> None:
    async def user() -> None:
        async with case.pool.connection('a'):
            await asyncio.get_running_loop().create_future()

    async with Case(total_max_size=1, max_size=1) as case:
        await case.cycle('a')
        coroutine = user()
        coroutine.send(None)
        waiting = asyncio.ensure_future(case.pool.acquire('b'))
        await case.waiting(1)
        # It may not await anything.
        coroutine.close()
        await case.release(await waiting)


@pytest.mark.parametrize('how', ['dropped', 'closed'])
async def test_what_no_hook_has_tidied_up_is_checked(how: str) -> None:
    async with Case(HookedManager(), check_interval=50) as case:
        conn = await case.pool.acquire('a')
        if how == 'closed':
            case.pool.release(conn, 'a').close()
            assert case.stats['acquired'] == 0
        else:
            await case.pool.release(conn, 'a')
            context = case.pool.connection('a')
            await context.__aenter__()
            del context
        await until(lambda: case.stats['acquired'] == 0)
        case.manager.take_calls()
        assert await case.cycle('a') == 'a1'
        assert case.manager.take_calls()[0] == 'check_aliveness a1'


@pytest.mark.parametrize('what', ['release', 'context'])
async def test_what_is_dropped_while_another_release_runs_its_hook_gives_nothing_back(what: str) -> None:
    async with Case(HookedManager()) as case:
        context = [case.pool.connection('a')]
        conn = await context[0].__aenter__()
        made = []
        if what == 'release':
            # Called outside of the loop, so that nothing is done yet.
            thread = threading.Thread(target=lambda: made.append(case.pool.release(conn, 'a')))
            thread.start()
            thread.join(PATIENCE)
        gate = Gate()
        case.manager.script('on_release', gate)
        job = spawn(case.release, conn)
        await gate.reached()
        if what == 'release':
            made.pop().close()
        context.clear()
        assert case.stats['acquired'] == 1
        gate.open()
        await job.result()
        assert case.stats['idle'] == 1
