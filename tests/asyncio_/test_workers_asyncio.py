"""The tasks that do a pool's jobs: one for each job, in a context of nobody's, and none is left when the loop ends."""

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from gcpool.asyncio import BaseConnectionManager, ConnectionPool
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Gate
from tests.support import Connection

who: contextvars.ContextVar[str] = contextvars.ContextVar('who', default='nobody')


class SeeingManager(CheckingManager):
    """Notes in which context and in which task it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str]] = []
        self.tasks: list[Any] = []

    def see(self, name: str) -> None:
        self.seen.append((name, who.get()))
        self.tasks.append(asyncio.current_task())

    async def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        self.see('create')
        return await super().create(endpoint, timeout)

    async def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        self.see('dispose')
        await super().dispose(endpoint, conn, timeout)

    async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        self.see('check_aliveness')
        return await super().check_aliveness(endpoint, conn, timeout)


async def test_jobs_see_nothing_of_the_context_of_whoever_had_them_begun() -> None:
    manager = SeeingManager()
    async with Case(
        manager, create_in_background=True, max_size=1, total_max_size=1, keepalive_interval=1e-3, _random=lambda: 0.0
    ) as case:
        who.set('a request')
        await case.cycle('a')
        case.clock.advance(1e-3)
        await until(lambda: len(manager.seen) == 2)
        await until(lambda: case.stats['idle'] == 1)
        # Evicts a1, and with that frees the slot.
        await case.cycle('b')
        assert manager.seen[:4] == [
            ('create', 'nobody'),
            ('check_aliveness', 'nobody'),
            ('dispose', 'nobody'),
            ('create', 'nobody'),
        ]


async def test_each_job_has_a_task_of_its_own_that_the_pool_keeps() -> None:
    manager = SeeingManager()
    async with Case(manager, max_workers=3) as case:
        for endpoint in 'abcde':
            await case.cycle(endpoint)
        manager.tasks.clear()
        gates = [Gate() for _ in range(5)]
        manager.script('dispose', *gates)
        await case.pool.drain()
        for gate in gates[:2]:
            await gate.reached()
        gc.collect()
        assert len(manager.tasks) == 2
        assert set(manager.tasks) <= set(case.pool._tasks)
        for gate in gates:
            gate.open()
        await until(lambda: case.pool.get_size() == 0)
        assert len({id(task) for task in manager.tasks}) == 5
        assert {task.get_name() for task in manager.tasks} == {f'gcpool-{case.pool.name}-dispose'}
        await until(lambda: not case.pool._tasks)


class SlowManager(BaseConnectionManager[str, str]):
    """Its ``dispose`` takes until the loop ends."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def create(self, endpoint: str) -> str:
        return f'{endpoint} {object()!r}'

    async def dispose(self, endpoint: str, conn: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(endpoint)


def test_a_loop_that_ends_leaves_nothing_to_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    manager = SlowManager()
    pools = []

    async def main() -> None:
        pool = ConnectionPool(manager, create_in_background=True, max_workers=1)
        pools.append(pool)
        for endpoint in 'abc':
            conn = await pool.acquire(endpoint)
            await pool.release(conn, endpoint)
        await pool.drain()
        waits = spawn(pool.acquire, 'd')
        await until(lambda: pool.get_stats()['waiting'] == 1)
        assert pool._core.left_to_workers == 2
        del waits

    asyncio.run(main())
    assert sorted(manager.ended) == ['a', 'b', 'c']
    assert pools[0].get_size() == 0
    assert pools[0]._core.jobs_at_work == 0
    assert 'never retrieved' not in caplog.text
    assert 'was destroyed' not in caplog.text
    pools[0].terminate()


async def test_a_job_that_is_cancelled_from_outside_keeps_no_other_waiting() -> None:
    async with Case(create_in_background=True, max_workers=1) as case:
        gate = Gate()
        case.manager.script('create', gate)
        first = spawn(case.pool.acquire, 'a')
        await gate.reached()
        second = spawn(case.pool.acquire, 'b')
        await case.waiting(2)
        [task] = case.pool._tasks
        task.cancel()
        # Where no task may be made, because the loop may be about to end, the waiters connect.
        await case.release(await first.result(), await second.result())
        assert case.pool._core.jobs_at_work == 0


async def test_a_hook_after_a_failed_create_keeps_no_job_waiting() -> None:
    manager = SeeingManager()
    create, gate = Gate(OSError('refused')), Gate()

    async def reconnect_failed(*told: Any) -> None:
        await gate.go_through()

    async with Case(manager, max_workers=1, reconnect_timeout=0.5, reconnect_failed=reconnect_failed) as case:
        await case.cycle('a')
        manager.script('create', OSError('refused'), create)
        case.pool.warm_up('b', 1)
        await until(lambda: case.stats['create_errors'] == 1)
        case.clock.advance(1.0)
        await create.reached()
        # The close waits for the only worker.
        await case.pool.drain('a')
        create.open()
        await gate.reached()
        # At once, and not with the next timer.
        for _ in range(10):
            await asyncio.sleep(0)
        assert case.stats['closed_drained'] == 1
        gate.open()
        case.clock.advance(60.0)
        await case.pool.wait(timeout=60.0)
