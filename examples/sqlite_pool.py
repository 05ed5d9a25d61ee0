"""Threads that share a few connections to an SQLite database.

Needs nothing but Python: python examples/sqlite_pool.py
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.threading import ConnectionPool


def main() -> None:
    manager = SqliteConnectionManager(
        timeout=30.0, pragmas={'journal_mode': 'wal', 'synchronous': 'NORMAL'}
    )
    pool = ConnectionPool(manager, max_size=4)

    with tempfile.TemporaryDirectory() as directory, closing(pool):
        path = Path(directory) / 'accounts.db'
        with pool.connection(path) as conn:
            conn.execute(
                'CREATE TABLE account (name TEXT PRIMARY KEY, balance INTEGER)'
            )
            conn.execute("INSERT INTO account VALUES ('ann', 1000), ('bob', 0)")
            conn.commit()

        def transfer(amount: int) -> None:
            with pool.connection(path, timeout=30.0) as conn, conn:
                conn.execute(
                    'UPDATE account SET balance = balance - ?'
                    " WHERE name = 'ann'",
                    (amount,),
                )
                conn.execute(
                    'UPDATE account SET balance = balance + ?'
                    " WHERE name = 'bob'",
                    (amount,),
                )

        with ThreadPoolExecutor(max_workers=16) as executor:
            for future in [executor.submit(transfer, 1) for _ in range(200)]:
                future.result()

        # If a block raises, what it has not committed is rolled back when the
        # connection is returned.
        with suppress(LookupError), pool.connection(path) as conn:
            conn.execute("DELETE FROM account WHERE name = 'bob'")
            raise LookupError

        with pool.connection(path) as conn:
            for name, balance in conn.execute(
                'SELECT name, balance FROM account ORDER BY name'
            ):
                print(f'{name}: {balance}')

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 4:', stats['created'])


if __name__ == '__main__':
    main()
