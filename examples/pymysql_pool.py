"""Threads that share a few MySQL or MariaDB connections, by PyMySQL.

Needs a server: pip install "gcpool[pymysql]", and then
GCPOOL_EXAMPLE_MYSQL=mysql://user:password@localhost:3306/database python examples/pymysql_pool.py
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

from gcpool.contrib.pymysql import Connection, DbConnectionManager, DbEndpoint
from gcpool.threading import ConnectionPool


def main() -> None:
    server = urlsplit(os.environ['GCPOOL_EXAMPLE_MYSQL'])
    primary = {
        'host': server.hostname,
        'port': server.port,
        'user': server.username,
        'password': server.password,
        'database': server.path.lstrip('/'),
        # A server that does not answer is not waited for without end.
        'read_timeout': 30,
    }
    # One pool can serve several databases: the endpoint is a name that is chosen here.
    pool = ConnectionPool[DbEndpoint, Connection](
        DbConnectionManager({'primary': primary}), max_size=3, acquire_timeout=10.0
    )
    with closing(pool):
        with pool.connection('primary') as conn, conn.cursor() as cursor:
            cursor.execute('CREATE TABLE gcpool_example (number INTEGER)')

        def insert(number: int) -> None:
            with pool.connection('primary') as conn, conn.cursor() as cursor:
                cursor.execute('INSERT INTO gcpool_example VALUES (%s)', (number,))
                conn.commit()

        with ThreadPoolExecutor(max_workers=12) as executor:
            for future in [executor.submit(insert, number) for number in range(100)]:
                future.result()

        # What is not committed is rolled back when the connection goes back to the pool.
        with pool.connection('primary') as conn, conn.cursor() as cursor:
            cursor.execute('DELETE FROM gcpool_example')

        with pool.connection('primary') as conn, conn.cursor() as cursor:
            cursor.execute('SELECT count(*), CAST(sum(number) AS SIGNED) FROM gcpool_example')
            print('rows and sum:', cursor.fetchone())
            cursor.execute('DROP TABLE gcpool_example')

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections made, at most 3:', stats['created'])


if __name__ == '__main__':
    main()
