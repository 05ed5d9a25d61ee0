"""Tasks that share a few PostgreSQL connections, with psycopg 3. One task is
cancelled in the middle of a query.

Needs a server: pip install "gcpool[psycopg]", then
export GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database
python examples/async_psycopg_pool.py
"""

import asyncio
import os
import sys
from collections.abc import Callable

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.psycopg import AsyncConnectionManager


async def main() -> None:
    manager = AsyncConnectionManager(
        {'primary': os.environ['GCPOOL_EXAMPLE_DSN']},
        kwargs={'autocommit': True},
    )
    pool = ConnectionPool(manager, max_size=3, acquire_timeout=10.0)

    async def square(number: int) -> int:
        async with pool.connection('primary') as conn:
            row = await (
                await conn.execute('SELECT %s::int * %s::int', (number, number))
            ).fetchone()
            assert row is not None
            return int(row[0])

    async def sleep() -> None:
        async with pool.connection('primary') as conn:
            await conn.execute('SELECT pg_sleep(3600)')

    try:
        print(
            'sum of squares:',
            sum(await asyncio.gather(*map(square, range(100)))),
        )
        try:
            await asyncio.wait_for(sleep(), timeout=0.2)
        except asyncio.TimeoutError:
            print('timed out')
        # Whatever happened to that connection, a connection that is still busy
        # is not served.
        print('six times six:', await square(6))
    finally:
        await pool.close()

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections left:', pool.get_size())


# psycopg does not work on the default event loop of Windows.
new_loop: Callable[[], asyncio.AbstractEventLoop] = (
    asyncio.SelectorEventLoop
    if sys.platform == 'win32'
    else asyncio.new_event_loop
)

if __name__ == '__main__':
    loop = new_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
