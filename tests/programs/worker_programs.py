"""Programs about the threads that do a pool's jobs, for ``run_program``."""

import threading
from typing import Any

from gcpool.threading import BaseConnectionManager, ConnectionPool
from tests.support import PATIENCE


class Manager(BaseConnectionManager[str, str]):
    """Its ``dispose`` of an endpoint ``deaf`` does not end."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.closed = threading.Event()

    def create(self, endpoint: str, timeout: float | None = None) -> Any:
        return f'{endpoint} {id(object())}'

    def dispose(self, endpoint: str, conn: str, timeout: float | None = None) -> None:
        if endpoint == 'deaf':
            self.hangs.set()
            threading.Event().wait()
        self.closed.set()


def end_beside_workers() -> None:
    """One worker waits for a job, and one hangs in a close. Nothing is closed or joined."""
    manager = Manager()
    pool = ConnectionPool(manager)
    for endpoint in ('deaf', 'other'):
        pool.release(pool.acquire(endpoint), endpoint)
    pool.drain()
    assert manager.hangs.wait(PATIENCE)
    assert manager.closed.wait(PATIENCE)
    # The interpreter collects the pool at the end.
    globals()['pool'] = pool
