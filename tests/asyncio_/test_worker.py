"""The collector on asyncio: if neither a timer nor a task is left to do its work, the next release restores it."""

import asyncio
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import until
from tests.pool.support import Case

SHORT = 0.005


async def test_a_collector_that_could_not_set_its_timer_is_set_going_by_the_next_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    due_in = ConnectionPool._due_in

    def fail(pool: ConnectionPool[Any, Any]) -> float | None:
        if pool._worker.task is not None or failures:
            return due_in(pool)
        raise MemoryError

    async with Case(background_collector=True, min_idle=0, idle_timeout=SHORT) as case:
        await case.cycle('a')
        case.clock.advance(SHORT)
        # At the end of its first run.
        monkeypatch.setattr(ConnectionPool, '_due_in', fail)
        await until(lambda: failures != [])
        assert isinstance(failures[0]['exception'], MemoryError)
        assert case.pool.get_size() == 0
        worker: Any = case.pool._worker
        assert (worker._timer, worker.task) == (None, None)
        [conn, other] = await case.acquire('a', 2)
        await case.release(conn)
        case.clock.advance(SHORT)
        if worker._timer is not None:
            worker._timer.cancel()
            worker._timer = None
        await case.release(other)
        await until(lambda: case.manager.living == [other.name])
