"""Threads that share a few PostgreSQL connections, with psycopg2.

Needs a server: pip install "gcpool[psycopg2]", then
export GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database
python examples/pg_pool.py
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

from gcpool.contrib.psycopg2 import DbConnectionManager
from gcpool.threading import ConnectionPool


def main() -> None:
    # One pool can serve several databases: the program chooses the names of the
    # endpoints.
    manager = DbConnectionManager(
        {'primary': {'dsn': os.environ['GCPOOL_EXAMPLE_DSN']}}
    )
    pool = ConnectionPool(manager, max_size=3, acquire_timeout=10.0)
    with closing(pool):
        with pool.connection('primary') as conn, conn, conn.cursor() as cursor:
            cursor.execute('DROP TABLE IF EXISTS gcpool_example')
            cursor.execute('CREATE TABLE gcpool_example (number INTEGER)')

        def insert(number: int) -> None:
            # "with conn" is psycopg2's: it commits at the end, or rolls back.
            with (
                pool.connection('primary') as conn,
                conn,
                conn.cursor() as cursor,
            ):
                cursor.execute(
                    'INSERT INTO gcpool_example VALUES (%s)', (number,)
                )

        with ThreadPoolExecutor(max_workers=12) as executor:
            for future in [
                executor.submit(insert, number) for number in range(100)
            ]:
                future.result()

        # If a block raises, what it has not committed is rolled back when the
        # connection is returned.
        with (
            suppress(LookupError),
            pool.connection('primary') as conn,
            conn.cursor() as cursor,
        ):
            cursor.execute('DELETE FROM gcpool_example')
            raise LookupError

        with pool.connection('primary') as conn, conn, conn.cursor() as cursor:
            cursor.execute('SELECT count(*), sum(number) FROM gcpool_example')
            print('rows and sum:', cursor.fetchone())
            cursor.execute('DROP TABLE gcpool_example')

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 3:', stats['created'])


if __name__ == '__main__':
    main()
