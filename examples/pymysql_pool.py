"""Threads that share a few MySQL or MariaDB connections, with PyMySQL.

Needs a server: pip install "gcpool[pymysql]", then
export GCPOOL_EXAMPLE_MYSQL=mysql://user:password@localhost:3306/database
python examples/pymysql_pool.py
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from urllib.parse import urlsplit

from gcpool.contrib.pymysql import DbConnectionManager
from gcpool.threading import ConnectionPool


def main() -> None:
    server = urlsplit(os.environ['GCPOOL_EXAMPLE_MYSQL'])
    primary = {
        'host': server.hostname,
        'port': server.port,
        'user': server.username,
        'password': server.password,
        'database': server.path.lstrip('/'),
        # Do not wait for ever for a server that does not answer.
        'read_timeout': 30,
    }
    # One pool can serve several databases: the program chooses the names of the
    # endpoints.
    pool = ConnectionPool(
        DbConnectionManager({'primary': primary}),
        max_size=3,
        acquire_timeout=10.0,
    )
    with closing(pool):
        with pool.connection('primary') as conn, conn.cursor() as cursor:
            cursor.execute('CREATE TABLE gcpool_example (number INTEGER)')

        def insert(number: int) -> None:
            with pool.connection('primary') as conn, conn.cursor() as cursor:
                cursor.execute(
                    'INSERT INTO gcpool_example VALUES (%s)', (number,)
                )
                conn.commit()

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

        with pool.connection('primary') as conn, conn.cursor() as cursor:
            cursor.execute(
                'SELECT count(*), CAST(sum(number) AS SIGNED)'
                ' FROM gcpool_example'
            )
            print('rows and sum:', cursor.fetchone())
            cursor.execute('DROP TABLE gcpool_example')

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 3:', stats['created'])


if __name__ == '__main__':
    main()
