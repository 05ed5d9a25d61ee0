"""Checks in the background, on asyncio: the pool's tasks, their contexts, and what ends them."""

import asyncio
import contextvars
import logging
from typing import Any

import pytest

from gcpool.asyncio import BaseConnectionManager, ConnectionPool
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Gate, HookedManager
from tests.support import Connection

CHECK = 'check_aliveness'
REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar('request', default='none')


async def test_a_check_runs_in_an_empty_context() -> None:
    seen: list[str] = []

    class Looking(CheckingManager):
        async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
            seen.append(REQUEST.get())
            return True

    async with Case(Looking()) as case:
        await case.cycle('a')
        REQUEST.set('mine')
        assert await case.pool.check() == 0
        await case.cycle('a')
        assert seen == ['none', 'mine']


async def test_cancelling_check_ends_after_the_check_that_has_begun() -> None:
    async with Case(CheckingManager(), check_interval=50, min_idle=3) as case:
        await case.release(*await case.acquire('a', 3))
        gate = Gate()
        case.manager.script(CHECK, gate)
        job = spawn(case.pool.check)
        await gate.reached()
        job.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job.result()
        assert case.stats['checking'] == 1
        gate.open()
        await until(lambda: case.stats['checking'] == 0)
        assert case.stats['checks'] == 1
        assert case.stats['idle'] == 3


async def test_closing_the_pool_cancels_its_checks() -> None:
    async with Case(CheckingManager()) as case:
        await case.release(*await case.acquire('a', 2))
        gate = Gate()
        case.manager.script(CHECK, gate)
        job = spawn(case.pool.check)
        await gate.reached()
        assert await case.pool.close() == 0
        assert await job.result() == 0
        assert case.manager.living == []


async def test_a_timeout_error_of_the_manager_s_own_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with Case(CheckingManager()) as case:
        await case.cycle('a')
        case.manager.script(CHECK, TimeoutError('mine'))
        with caplog.at_level(logging.ERROR, 'gcpool'):
            assert await case.pool.check() == 0
        assert 'TimeoutError: mine' in caplog.text
        assert case.stats['idle'] == 1


async def test_an_on_connection_dead_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Case(HookedManager()) as case:
        await case.cycle('a')
        case.manager.script(CHECK, False)
        case.manager.script('on_connection_dead', OSError('no'))
        with caplog.at_level(logging.ERROR, 'gcpool'):
            assert await case.pool.check() == 1
            await until(lambda: 'on_connection_dead() of a connection' in caplog.text)


class Hanging(BaseConnectionManager[str, object]):
    """Its checks do not end."""

    disposals = 0

    async def create(self, endpoint: str) -> object:
        return object()

    async def dispose(self, endpoint: str, conn: object) -> None:
        self.disposals += 1

    async def check_aliveness(self, endpoint: str, conn: object) -> bool:
        await asyncio.Event().wait()
        return True


@pytest.mark.parametrize('began', [True, False])
def test_a_loop_that_ends_while_the_pool_checks_leaves_nothing_behind(began: bool) -> None:
    manager = Hanging()

    async def main() -> ConnectionPool[str, object]:
        pool = ConnectionPool(manager)
        conns = [await pool.acquire('a') for _ in range(2)]
        for conn in conns:
            await pool.release(conn, 'a')
        checking = asyncio.get_running_loop().create_task(pool.check())
        for _ in range(3 if began else 1):
            await asyncio.sleep(0)
        # asyncio.run() cancels both tasks.
        del checking
        return pool

    pool = asyncio.run(main())
    assert (pool.get_stats()['checking'], pool.get_stats()['idle']) == (0, 2)
    pool._core.check_invariants()
    pool.terminate()


async def test_a_block_that_is_cancelled_breaks_the_connection_of_a_manager_that_says_so() -> None:
    class Outstanding(HookedManager):
        broken_on_cancel = True

    async with Case(Outstanding()) as case:
        inside = asyncio.Event()

        async def use() -> None:
            async with case.pool.connection('a'):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.get_running_loop().create_task(use())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert case.stats['broken'] == 1
        assert case.manager.living == []


async def test_a_coroutine_that_is_closed_inside_its_block_is_cut_off() -> None:
    class Outstanding(HookedManager):
        broken_on_cancel = True

    async with Case(Outstanding()) as case:

        async def use() -> None:
            async with case.pool.connection('a'):
                await asyncio.sleep(0)

        coroutine = use()
        while case.stats['acquired'] == 0:
            coroutine.send(None)
        coroutine.close()
        await until(lambda: case.manager.calls[-1:] == ['on_connection_dead a1'])
        assert case.stats['broken'] == 1
