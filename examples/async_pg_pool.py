"""Tasks that share a few PostgreSQL connections, with asyncpg.

Needs a server: pip install "gcpool[asyncpg]", then
export GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database
python examples/async_pg_pool.py
"""

import asyncio
import os

import asyncpg

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.asyncpg import DbConnectionManager


async def main() -> None:
    # One pool can serve several databases: the program chooses the names of the
    # endpoints.
    manager = DbConnectionManager[asyncpg.Record](
        {'primary': {'dsn': os.environ['GCPOOL_EXAMPLE_DSN']}}
    )
    pool = ConnectionPool(manager, max_size=3, acquire_timeout=10.0)
    try:
        async with pool.connection('primary') as conn:
            await conn.execute('DROP TABLE IF EXISTS gcpool_async_example')
            await conn.execute(
                'CREATE TABLE gcpool_async_example (number INTEGER)'
            )

        async def insert(number: int) -> None:
            async with pool.connection('primary') as conn, conn.transaction():
                await conn.execute(
                    'INSERT INTO gcpool_async_example VALUES ($1)', number
                )

        await asyncio.gather(*(insert(number) for number in range(100)))

        async with pool.connection('primary') as conn:
            row = await conn.fetchrow(
                'SELECT count(*), sum(number) FROM gcpool_async_example'
            )
            assert row is not None
            print('rows and sum:', tuple(row))
            await conn.execute('DROP TABLE gcpool_async_example')
    finally:
        await pool.close()

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 3:', stats['created'])


if __name__ == '__main__':
    asyncio.run(main())
