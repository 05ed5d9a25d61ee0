"""Guards against tables and queues that grow with the endpoints that there were: 100,000 come, and when the last one is
forgotten their memory is back.
"""

import gc
import tracemalloc
from typing import Any

from gcpool.threading import ConnectionPool
from tests.leaks.measure import CYCLES, Manager, assert_steady

COUNT = 100_000 if CYCLES >= 300 else 20_000


def fill_and_empty(pool: ConnectionPool[Any, Any]) -> None:
    for n in range(COUNT):
        pool.release(pool.acquire(n), n)
    assert pool.get_stats()['endpoints'] == pool.get_size() == COUNT
    pool._core.doom_due(pool._core.now() + 7200.0, COUNT)
    pool._dispose_doomed()
    assert pool.get_stats()['endpoints'] == pool.get_size() == 0


pool: ConnectionPool[Any, Any] = ConnectionPool(Manager(), total_max_size=COUNT)
tracemalloc.start()
pool.release(pool.acquire('first'), 'first')
gc.collect()
before = tracemalloc.get_traced_memory()[0]
fill_and_empty(pool)
gc.collect()
after, peak = tracemalloc.get_traced_memory()
# Tables and queues keep little room; Python's set of all entries keeps its own until as many were added again.
if after - before > (peak - before) / 5:
    raise SystemExit(f'{COUNT} endpoints took {peak - before} bytes and left {after - before}')
tracemalloc.stop()


def one_by_one(pool: ConnectionPool[Any, Any]) -> None:
    turn = 0

    def cycle() -> None:
        nonlocal turn
        turn += 1
        endpoint = ('endpoint', turn)
        pool.release(pool.acquire(endpoint), endpoint)

    assert_steady(cycle)
    assert pool.get_stats()['endpoints'] <= 1
    pool.close()


# Each forgotten before the next one comes, or, at the total cap, because it comes.
one_by_one(ConnectionPool(Manager(), min_idle=0, idle_timeout=0))
one_by_one(ConnectionPool(Manager(), max_size=1, total_max_size=1))
