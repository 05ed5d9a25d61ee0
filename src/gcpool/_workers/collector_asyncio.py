"""The collector of a pool on asyncio."""

import weakref
from typing import TYPE_CHECKING, Any

from .loop_timer import LoopTimer

if TYPE_CHECKING:
    import asyncio

__all__ = ['AsyncCollector']

# Seconds after which the collector of an asyncio pool continues if its task was cancelled.
COLLECTOR_PAUSE = 0.1


class AsyncCollector:
    """Runs a pool's ``_collect`` when something is due; until then there is only a timer of the loop.

    It holds no strong reference to the pool, and no task waits. So a forgotten pool can be collected, and a loop that
    waits for its tasks can end.

    :param pool: the pool; ``await pool._collect()`` returns the seconds until it is to be called again, None for never
    :param name: the name of the tasks
    """

    def __init__(self, pool: Any, name: str):
        self._pool = weakref.ref(pool)
        self._name = name
        self._timer = LoopTimer()
        #: The task that is collecting; None if none is.
        self.task: asyncio.Task[None] | None = None
        self._stopped = False
        self.wakeups = 0

    def start(self) -> None:
        """Do nothing: the first connection that becomes idle wakes the collector."""

    def wake(self) -> None:
        """A connection is due earlier than the collector knows. Called in the loop's thread."""
        if self._stopped:
            return
        self._timer.cancel()
        pool = self._pool()
        if pool is None:
            return
        if self._is_collecting(pool._bound_loop):
            # When the task is done, it reads what is due next.
            return
        self._work(pool)

    def ensure_running(self) -> bool:
        """Set the timer if there is neither timer nor task. Returns True: due connections will be closed."""
        pool = self._pool()
        loop = None if pool is None else pool._bound_loop
        will_fire = loop is not None and self._timer.will_fire_in(loop)
        if not will_fire and not self._is_collecting(loop):
            self.wake()
        return True

    def _is_collecting(self, loop: 'asyncio.AbstractEventLoop | None') -> bool:
        # A task of a loop that the pool has left, or of the process that this one was forked from, will never be done.
        return self.task is not None and not self.task.done() and self.task.get_loop() is loop

    def _work(self, pool: Any, min_delay: float = 0.0) -> None:
        loop = pool._bound_loop
        if loop is None or loop.is_closed():
            # A coroutine that outlived its loop has released a connection.
            return
        if pool._runs_in_other_thread():
            # A coroutine that is finalised in this thread has released a connection.
            pool._call_in_loop(self.wake)
            return
        self._timer.cancel()
        delay = pool._due_in()
        if delay is not None:
            self._timer.set(loop, max(delay, min_delay), self._fire)

    def _fire(self) -> None:
        self.wakeups += 1
        pool = self._pool()
        if pool is not None and not self._stopped:
            self.task = task = pool._spawn(pool._bound_loop, pool._collect(), self._name)
            task.add_done_callback(self._ended)

    def _ended(self, task: 'asyncio.Task[Any]') -> None:
        self.task = None
        pool = self._pool()
        if pool is not None and not self._stopped:
            # The task may have been cancelled, even before its first step, as all tasks of a loop that ends. If the
            # loop does not end, the work continues after a pause.
            self._work(pool, COLLECTOR_PAUSE if task.cancelled() else 0.0)

    def stop(self) -> None:
        """Stop collecting. Closes that have begun continue."""
        self._stopped = True
        self._timer.cancel()
