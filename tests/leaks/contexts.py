"""Guards against what contexts leave behind whose block fails, that are entered again, never entered, or never left,
and those of connections that were given back or closed inside them.
"""

import asyncio
import contextlib
from typing import Any

import gcpool.asyncio
import gcpool.threading
from tests.leaks.measure import LEAST_CYCLES, AsyncManager, Manager, assert_steady

endpoint = ('host', 1)
pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(Manager(), max_size=2)


def cycle() -> None:
    with contextlib.suppress(KeyError), pool.connection(endpoint):
        raise KeyError
    context = pool.connection(endpoint)
    for _ in range(2):
        with context, contextlib.suppress(RuntimeError):
            context.__enter__()
    pool.connection(endpoint)
    pool.connection(endpoint).__enter__()
    with contextlib.suppress(gcpool.exceptions.ConnectionNotAcquired), pool.connection(endpoint) as conn:
        pool.release(conn, endpoint)


assert_steady(cycle, endpoint, pool)
assert pool.get_stats()['acquired'] == 0

async_pool: gcpool.asyncio.ConnectionPool[Any, Any] = gcpool.asyncio.ConnectionPool(AsyncManager(), max_size=2)
loop = asyncio.new_event_loop()


async def async_cycles() -> None:
    for _ in range(10):
        with contextlib.suppress(KeyError):
            async with async_pool.connection(endpoint):
                raise KeyError
        context = async_pool.connection(endpoint)
        for _ in range(2):
            async with context:
                pass
        async_pool.connection(endpoint)
        conn = await async_pool.acquire(endpoint)
        await async_pool.release(conn, endpoint)


assert_steady(lambda: loop.run_until_complete(async_cycles()), endpoint, async_pool, cycles=LEAST_CYCLES)
loop.run_until_complete(async_pool.close())
loop.close()
