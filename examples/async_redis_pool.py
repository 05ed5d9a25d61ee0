"""Tasks that share a few Redis connections, with redis-py.

Needs a server: pip install "gcpool[redis]", then
export GCPOOL_EXAMPLE_REDIS=redis://localhost:6379/0
python examples/async_redis_pool.py
"""

import asyncio
import os

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.redis import (
    AsyncRedisConnectionManager,
    async_client_of,
)


async def main() -> None:
    manager = AsyncRedisConnectionManager(
        {
            'cache': {
                'url': os.environ['GCPOOL_EXAMPLE_REDIS'],
                'client_name': 'example',
            }
        }
    )
    pool = ConnectionPool(manager, max_size=3, acquire_timeout=10.0)
    try:

        async def increment() -> None:
            async with pool.connection('cache') as conn:
                await conn.send_command('INCR', 'gcpool-async-example')
                await conn.read_response()

        await asyncio.gather(*(increment() for _ in range(100)))

        async with pool.connection('cache') as conn:
            print(
                'counted:',
                await async_client_of(conn).getdel('gcpool-async-example'),
            )

        # If a task is cancelled while it waits, its connection is closed: the
        # next user would read the reply.
        async def wait() -> None:
            async with pool.connection('cache') as conn:
                await conn.send_command('BLPOP', 'gcpool-nothing-comes', 0)
                await conn.read_response()

        try:
            await asyncio.wait_for(wait(), 0.1)
        except asyncio.TimeoutError:
            print('nothing came')

        async with pool.connection('cache') as conn:
            await conn.send_command('ECHO', 'my own reply')
            print(await conn.read_response())
    finally:
        await pool.close()

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 4:', stats['created'])


if __name__ == '__main__':
    asyncio.run(main())
