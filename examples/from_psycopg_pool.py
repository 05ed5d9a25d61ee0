"""A program that was written for psycopg_pool: only its import has changed.

Needs a server: pip install "gcpool[psycopg]", then
export GCPOOL_EXAMPLE_DSN=postgresql://user:password@localhost/database
python examples/from_psycopg_pool.py
"""

import os
from concurrent.futures import ThreadPoolExecutor

from gcpool.psycopg_pool import ConnectionPool


def main() -> None:
    with ConnectionPool(
        os.environ['GCPOOL_EXAMPLE_DSN'], min_size=2, max_size=4
    ) as pool:
        pool.wait()
        with pool.connection() as conn:
            conn.execute('DROP TABLE IF EXISTS gcpool_drop_in_example')
            conn.execute('CREATE TABLE gcpool_drop_in_example (number INTEGER)')

        def insert(number: int) -> None:
            # Committed at the end of the block.
            with pool.connection() as conn:
                conn.execute(
                    'INSERT INTO gcpool_drop_in_example VALUES (%s)', (number,)
                )

        with ThreadPoolExecutor(max_workers=12) as executor:
            for future in [
                executor.submit(insert, number) for number in range(100)
            ]:
                future.result()

        with pool.connection() as conn:
            row = conn.execute(
                'SELECT count(*), sum(number) FROM gcpool_drop_in_example'
            ).fetchone()
            print('rows and sum:', row)
            conn.execute('DROP TABLE gcpool_drop_in_example')

        stats = pool.get_stats()
        print('requests:', stats['requests_num'])
        print('connections created, at most 4:', stats['connections_num'])


if __name__ == '__main__':
    main()
