"""Threads that share a few PostgreSQL connections, by psycopg 3, with credentials that change.

Needs a server: pip install "gcpool[psycopg]", and then
GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database python examples/psycopg_pool.py
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from psycopg import Connection
from psycopg.rows import TupleRow

from gcpool.contrib.psycopg import ConnectionManager
from gcpool.threading import ConnectionPool


def current_conninfo(endpoint: str) -> str:
    """Asked at each connect: a password or token that is replaced from time to time is read here."""
    return {'primary': os.environ['GCPOOL_EXAMPLE_DSN']}[endpoint]


def configure(conn: Connection[TupleRow]) -> None:
    """Called for each new connection, once."""
    conn.execute("SET statement_timeout = '30s'")
    conn.commit()


def main() -> None:
    manager = ConnectionManager(current_conninfo, configure=configure)
    pool = ConnectionPool[str, Connection[TupleRow]](manager, max_size=3, acquire_timeout=10.0, check_interval=1.0)
    with closing(pool):
        # conn.transaction() is psycopg's: commit at its end, or roll back.
        with pool.connection('primary') as conn, conn.transaction():
            conn.execute('DROP TABLE IF EXISTS gcpool_psycopg_example')
            conn.execute('CREATE TABLE gcpool_psycopg_example (number INTEGER)')

        def insert(number: int) -> None:
            with pool.connection('primary') as conn, conn.transaction():
                conn.execute('INSERT INTO gcpool_psycopg_example VALUES (%s)', (number,))

        with ThreadPoolExecutor(max_workers=12) as executor:
            for future in [executor.submit(insert, number) for number in range(100)]:
                future.result()

        # What is not committed is rolled back when the connection goes back to the pool, and settings are taken back.
        with pool.connection('primary') as conn:
            conn.read_only = False
            conn.execute('DELETE FROM gcpool_psycopg_example')

        with pool.connection('primary') as conn, conn.transaction():
            row = conn.execute('SELECT count(*), sum(number) FROM gcpool_psycopg_example').fetchone()
            print('rows and sum:', row)
            conn.execute('DROP TABLE gcpool_psycopg_example')

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections made, at most 3:', stats['created'])


if __name__ == '__main__':
    main()
