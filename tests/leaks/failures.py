"""Guards against what failures leave behind: tickets of creates that failed, connections found dead, entries whose hook
or dispose failed, and endpoints that never had a connection.
"""

import contextlib
from typing import Any

from gcpool.threading import ConnectionPool
from tests.leaks.measure import Manager, assert_steady


class FailingManager(Manager):
    """Fails in one method after the other."""

    def __init__(self) -> None:
        self.calls = 0

    def fail(self, period: int) -> None:
        self.calls += 1
        if self.calls % period == 0:
            raise OSError('no')

    def create(self, endpoint: Any, timeout: float | None = None) -> Any:
        self.fail(2)
        return super().create(endpoint, timeout)

    def dispose(self, endpoint: Any, conn: Any, timeout: float | None = None) -> None:
        self.fail(3)

    def check_aliveness(self, endpoint: Any, conn: Any, timeout: float | None = None) -> bool:
        self.fail(5)
        return self.calls % 3 > 0

    def on_acquire(self, endpoint: Any, conn: Any) -> None:
        self.fail(7)

    def on_release(self, endpoint: Any, conn: Any) -> None:
        self.fail(11)

    def on_connection_dead(self, endpoint: Any, conn: Any) -> None:
        self.fail(3)


manager = FailingManager()
pool: ConnectionPool[Any, Any] = ConnectionPool(manager, max_size=2, total_max_size=4, idle_timeout=0)
turn = 0


def cycle() -> None:
    global turn
    turn += 1
    for endpoint in ('known', ('unknown', turn)):
        for _ in range(3):
            with contextlib.suppress(OSError), pool.connection(endpoint):
                pass


assert_steady(cycle, manager)
pool._core.check_invariants()
stats = pool.get_stats()
assert min(stats['create_errors'], stats['dead'], stats['disposed']) > 100
