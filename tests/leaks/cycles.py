"""Guards against what a cycle on the shortest way leaves behind: a reference to a connection, an endpoint, or None too
many in compiled code, and contexts that their freelist does not give back.
"""

import contextlib
from typing import Any

from gcpool.exceptions import ConnectionNotAcquired
from gcpool.threading import ConnectionPool
from tests.leaks.measure import Manager, assert_steady

endpoint = ('host', 1)
manager = Manager()
pool: ConnectionPool[Any, Any] = ConnectionPool(manager, max_size=3)
held = pool.acquire(endpoint)


def cycle() -> None:
    conn = pool.acquire(endpoint)
    pool.release(conn, endpoint)
    with pool.connection(endpoint, 1.0) as conn, pool.connection(endpoint):
        pool.get_stats()
        pool.get_endpoint_pool_size(endpoint, acquired=True)
        pool.get_size()
    with contextlib.suppress(ConnectionNotAcquired):
        pool.release(conn, endpoint)


assert_steady(cycle, endpoint, manager, pool, held)
