"""Guards against what pools leave behind that are closed or forgotten: the list of pools for forked children, threads
of collectors, connections that were closed over their users.
"""

import threading
import warnings
from typing import Any

from gcpool.threading import ConnectionPool
from tests.leaks.measure import CYCLES, LEAST_CYCLES, Manager, assert_steady

manager = Manager()

# Dropping pools is what this is about.
warnings.simplefilter('ignore', ResourceWarning)


def cycle() -> None:
    for closes in (False, True):
        pool: ConnectionPool[Any, Any] = ConnectionPool(manager, max_size=20)
        conns = [pool.acquire(('endpoint', n)) for n in range(12)]
        for n in range(10):
            pool.release(conns[n], ('endpoint', n))
        if closes:
            assert pool.close(0) == 2
            pool.release(conns[10], ('endpoint', 10))


def cycle_with_a_collector() -> None:
    pool: ConnectionPool[Any, Any] = ConnectionPool(manager, background_collector=True)
    (thread,) = (thread for thread in threading.enumerate() if thread.name.startswith('gcpool'))
    pool.release(pool.acquire('a'), 'a')
    del pool
    thread.join()


assert_steady(cycle, manager)
assert_steady(cycle_with_a_collector, manager, cycles=max(CYCLES // 5, LEAST_CYCLES))
assert threading.active_count() == 1
