"""Tasks that share a few connections to an SQLite database, with aiosqlite.

Needs no server: pip install "gcpool[aiosqlite]", then
python examples/aiosqlite_pool.py
"""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.aiosqlite import SqliteConnectionManager


async def main() -> None:
    manager = SqliteConnectionManager(
        timeout=30.0, pragmas={'journal_mode': 'wal', 'synchronous': 'NORMAL'}
    )
    pool = ConnectionPool(manager, max_size=4, acquire_timeout=30.0)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'accounts.db'
        try:
            async with pool.connection(path) as conn:
                await conn.execute(
                    'CREATE TABLE account'
                    ' (name TEXT PRIMARY KEY, balance INTEGER)'
                )
                await conn.execute(
                    "INSERT INTO account VALUES ('ann', 1000), ('bob', 0)"
                )
                await conn.commit()

            async def transfer(amount: int) -> None:
                async with pool.connection(path) as conn:
                    await conn.execute(
                        'UPDATE account SET balance = balance - ?'
                        " WHERE name = 'ann'",
                        (amount,),
                    )
                    await conn.execute(
                        'UPDATE account SET balance = balance + ?'
                        " WHERE name = 'bob'",
                        (amount,),
                    )
                    await conn.commit()

            await asyncio.gather(*(transfer(1) for _ in range(200)))

            # If a block raises, what it has not committed is rolled back when
            # the connection is returned.
            with suppress(LookupError):
                async with pool.connection(path) as conn:
                    await conn.execute("DELETE FROM account WHERE name = 'bob'")
                    raise LookupError

            async with pool.connection(path) as conn:
                for name, balance in await conn.execute_fetchall(
                    'SELECT name, balance FROM account ORDER BY name'
                ):
                    print(f'{name}: {balance}')
        finally:
            await pool.close()

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 4:', stats['created'])


if __name__ == '__main__':
    asyncio.run(main())
