"""Guards against what an acquire leaves behind whose time is over: its waiter in the queue, its endpoint among those
that are known, the place that was promised to that endpoint among those that want a slot.
"""

from typing import Any

from gcpool.exceptions import PoolTimeout
from gcpool.threading import ConnectionPool
from tests.leaks.measure import Manager, assert_steady

pool: ConnectionPool[Any, Any] = ConnectionPool(Manager(), max_size=1, total_max_size=1)
held = pool.acquire('known')
turn = 0


def cycle() -> None:
    global turn
    turn += 1
    for endpoint in ('known', ('unknown', turn)):
        for timeout in (0, 1e-6):
            try:
                pool.acquire(endpoint, timeout)
            except PoolTimeout:
                continue
            raise SystemExit('there should be nothing to acquire')


assert_steady(cycle, held)
assert pool.get_stats()['endpoints'] == 1
assert pool.get_stats()['waiting'] == 0
