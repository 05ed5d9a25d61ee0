"""How the core of a pool on asyncio calls workers, which are tasks of the pool."""

import weakref
from typing import Any

__all__ = ['AsyncWorkers']


class AsyncWorkers:
    """The core calls this when a connection is to be created, or its next timer has changed.

    It holds no strong reference to the pool, whose core holds this object.
    """

    def __init__(self, pool: Any):
        self._pool = weakref.ref(pool)

    def call(self) -> bool:
        """Have the pool's loop look for work. False if it will not: the loop is about to end."""
        pool = self._pool()
        return pool is not None and pool._call_workers()
