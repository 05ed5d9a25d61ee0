"""Tasks that share a few MySQL or MariaDB connections, with asyncmy.

Needs a server: pip install "gcpool[asyncmy]", then
export GCPOOL_EXAMPLE_MYSQL=mysql://user:password@localhost:3306/database
python examples/asyncmy_pool.py
"""

import asyncio
import os
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.asyncmy import DbConnectionManager, DbEndpoint


async def parameters(endpoint: DbEndpoint) -> dict[str, Any]:
    """Called at each connect. A program whose password changes would fetch
    it here.
    """
    print('connecting to', endpoint)
    server = urlsplit(os.environ['GCPOOL_EXAMPLE_MYSQL'])
    return {
        'host': server.hostname,
        'port': server.port,
        'user': server.username,
        'password': server.password,
        'database': server.path.lstrip('/'),
        # Do not wait for ever for a server that does not answer.
        'read_timeout': 30,
    }


async def main() -> None:
    pool = ConnectionPool(
        DbConnectionManager(parameters), max_size=3, acquire_timeout=10.0
    )
    try:
        async with pool.connection('primary') as conn, conn.cursor() as cursor:
            await cursor.execute(
                'CREATE TABLE gcpool_async_example (number INTEGER)'
            )

        async def insert(number: int) -> None:
            async with (
                pool.connection('primary') as conn,
                conn.cursor() as cursor,
            ):
                await cursor.execute(
                    'INSERT INTO gcpool_async_example VALUES (%s)', (number,)
                )
                await conn.commit()

        await asyncio.gather(*(insert(number) for number in range(100)))

        # If a block raises, what it has not committed is rolled back when the
        # connection is returned.
        with suppress(LookupError):
            async with (
                pool.connection('primary') as conn,
                conn.cursor() as cursor,
            ):
                await cursor.execute('DELETE FROM gcpool_async_example')
                raise LookupError

        # A cancelled statement leaves its connection in the middle of an
        # answer, so the connection is not served again.
        async with pool.connection('primary') as conn, conn.cursor() as cursor:
            sleeping = asyncio.create_task(cursor.execute('SELECT SLEEP(60)'))
            await asyncio.sleep(0)
            sleeping.cancel()
            await asyncio.wait((sleeping,))

        async with pool.connection('primary') as conn, conn.cursor() as cursor:
            await cursor.execute(
                'SELECT count(*), CAST(sum(number) AS SIGNED)'
                ' FROM gcpool_async_example'
            )
            print('rows and sum:', await cursor.fetchone())
            await cursor.execute('DROP TABLE gcpool_async_example')
    finally:
        await pool.close()

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 4:', stats['created'])


if __name__ == '__main__':
    asyncio.run(main())
