"""Guards against what cancelled tasks leave behind: waiters in the queue, futures that the pool keeps alive, tickets
and connections that were served in the same turn of the loop.
"""

import asyncio
from typing import Any

from gcpool import _long_waits
from gcpool.asyncio import ConnectionPool
from tests.leaks.measure import LEAST_CYCLES, AsyncManager, assert_steady


class SlowManager(AsyncManager):
    """Waits in each method."""

    async def create(self, endpoint: Any) -> Any:
        await asyncio.sleep(0)
        return await super().create(endpoint)

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        await asyncio.sleep(0)

    async def on_acquire(self, endpoint: Any, conn: Any) -> None:
        await asyncio.sleep(0)


async def cancel(task: 'asyncio.Task[Any]') -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        await pool.release(task.result(), 'a')


async def cycles() -> None:
    for n in range(5):
        conn = await pool.acquire('a')
        tasks = [asyncio.ensure_future(pool.acquire('a')) for _ in range(4)]
        tasks += [asyncio.ensure_future(pool.acquire(('unknown', n))) for _ in range(2)]
        await asyncio.sleep(0)
        # One waits, one is handed the connection in this very turn, one has not begun.
        await cancel(tasks[1])
        await pool.release(conn, 'a')
        await cancel(tasks[0])
        await cancel(asyncio.ensure_future(pool.acquire('a')))
        for task in tasks[2:]:
            await cancel(task)
    while pool.get_stats()['size'] > pool.get_stats()['idle']:  # noqa: ASYNC110 - the pool has no event for it
        await asyncio.sleep(0)


# asyncio keeps up to 100 cancelled timers behind one that is not: the timer of the long waits has to be the last.
_long_waits.LONG_WAIT = 3600.0
pool: ConnectionPool[Any, Any] = ConnectionPool(SlowManager(), max_size=1, total_max_size=1)
loop = asyncio.new_event_loop()
assert_steady(lambda: loop.run_until_complete(cycles()), pool, cycles=LEAST_CYCLES)
pool._core.check_invariants()
assert pool.get_stats()['waiting'] == 0
loop.run_until_complete(pool.close())
loop.close()
