"""Threads that share a few PostgreSQL connections, with psycopg 3 and changing
credentials.

Needs a server: pip install "gcpool[psycopg]", then
export GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database
python examples/psycopg_pool.py
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

from psycopg import Connection
from psycopg.rows import TupleRow

from gcpool.contrib.psycopg import ConnectionManager
from gcpool.threading import ConnectionPool


def current_conninfo(endpoint: str) -> str:
    """Called at each connect. A program whose password or token changes
    would read it here.
    """
    return {'primary': os.environ['GCPOOL_EXAMPLE_DSN']}[endpoint]


def configure(conn: Connection[TupleRow]) -> None:
    """Called once for each new connection."""
    conn.execute("SET statement_timeout = '30s'")
    conn.commit()


def main() -> None:
    manager = ConnectionManager(current_conninfo, configure=configure)
    pool = ConnectionPool(
        manager, max_size=3, acquire_timeout=10.0, check_interval=1.0
    )
    with closing(pool):
        # conn.transaction() is psycopg's: it commits at the end, or rolls back.
        with pool.connection('primary') as conn, conn.transaction():
            conn.execute('DROP TABLE IF EXISTS gcpool_psycopg_example')
            conn.execute('CREATE TABLE gcpool_psycopg_example (number INTEGER)')

        def insert(number: int) -> None:
            with pool.connection('primary') as conn, conn.transaction():
                conn.execute(
                    'INSERT INTO gcpool_psycopg_example VALUES (%s)', (number,)
                )

        with ThreadPoolExecutor(max_workers=12) as executor:
            for future in [
                executor.submit(insert, number) for number in range(100)
            ]:
                future.result()

        # If a block raises, what it has not committed is rolled back when the
        # connection is returned. Settings are reset then, too.
        with suppress(LookupError), pool.connection('primary') as conn:
            conn.read_only = False
            conn.execute('DELETE FROM gcpool_psycopg_example')
            raise LookupError

        with pool.connection('primary') as conn, conn.transaction():
            row = conn.execute(
                'SELECT count(*), sum(number) FROM gcpool_psycopg_example'
            ).fetchone()
            print('rows and sum:', row)
            conn.execute('DROP TABLE gcpool_psycopg_example')

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 3:', stats['created'])


if __name__ == '__main__':
    main()
