"""Guards against what an endpoint leaves behind that is equal to a known one and another object: the pool remembers the
last such object by its address, and has to forget the one before.
"""

from typing import Any

from gcpool.threading import ConnectionPool
from tests.leaks.measure import Manager, assert_steady

pool: ConnectionPool[Any, Any] = ConnectionPool(Manager(), max_size=2)
hosts = [f'host {n}' for n in range(5)]
turn = 0


def cycle() -> None:
    global turn
    turn += 1
    conn = pool.acquire((hosts[turn % 5], turn % 3))
    with pool.connection((hosts[turn % 5], turn % 3)):
        pool.get_endpoint_pool_size((hosts[turn % 4], turn % 3))
        # Of one that the pool does not know nothing is remembered.
        pool.get_endpoint_pool_size((hosts[turn % 5], turn))
    pool.release(conn, (hosts[turn % 5], turn % 3))


assert_steady(cycle, *hosts)
