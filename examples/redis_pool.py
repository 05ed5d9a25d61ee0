"""Threads that share a few Redis connections, with redis-py.

Needs a server: pip install "gcpool[redis]", then
GCPOOL_EXAMPLE_REDIS=redis://localhost:6379/0 python examples/redis_pool.py
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from gcpool.contrib.redis import (
    RedisConnectionManager,
    client_of,
)
from gcpool.threading import ConnectionPool


def main() -> None:
    # One pool can serve several servers: the program chooses the names of the
    # endpoints.
    manager = RedisConnectionManager(
        {'cache': os.environ['GCPOOL_EXAMPLE_REDIS']}
    )
    pool = ConnectionPool(manager, max_size=3, acquire_timeout=10.0)
    with closing(pool):

        def increment(_: int) -> None:
            with pool.connection('cache') as conn:
                conn.send_command('INCR', 'gcpool-example')
                conn.read_response()

        with ThreadPoolExecutor(max_workers=16) as executor:
            list(executor.map(increment, range(100)))

        # Or use redis-py's client, which has pipelines and converts the
        # replies.
        with pool.connection('cache') as conn:
            pipeline = client_of(conn).pipeline()
            pipeline.get('gcpool-example')
            pipeline.delete('gcpool-example')
            print('counted and deleted:', pipeline.execute())

        # The manager sees the unread reply and closes the connection, so that
        # the next user does not get the reply.
        with pool.connection('cache') as conn:
            conn.send_command('GET', 'a reply that nobody reads')

        with pool.connection('cache') as conn:
            conn.send_command('ECHO', 'my own reply')
            print(conn.read_response())

    stats = pool.get_stats()
    print('acquired:', stats['acquires'])
    print('connections created, at most 4:', stats['created'])


if __name__ == '__main__':
    main()
