"""The timer of a pool on asyncio for the timed actions of the core."""

import math
import weakref
from typing import TYPE_CHECKING, Any

from .loop_timer import LoopTimer

if TYPE_CHECKING:
    import asyncio

__all__ = ['CoreTimer']


class CoreTimer:
    """A timer of the loop that calls a pool's ``_run_timers`` when something is due in the core.

    That is when a close stops counting as relief, and when an attempt to connect is due. Without the timer, waiters
    would hang as long as that close, unless the pool is called meanwhile. The timer exists only while something will be
    due. It holds no strong reference to the pool.
    """

    def __init__(self, pool: Any):
        self._pool = weakref.ref(pool)
        self._timer = LoopTimer()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = math.inf
        self.wakeups = 0

    def set(self, pool: Any) -> None:
        """Set, move or cancel the timer, because what is due next may have changed."""
        loop = pool._bound_loop
        ended = pool._core.closed or loop is None or loop.is_closed()
        due = math.inf if ended else pool._core.next_timer()
        is_set = loop is None or due == math.inf or self._timer.will_fire_in(loop)
        if due == self._due and loop is self._loop and is_set:
            return
        # Noted first: if a signal handler raises below, the next call sets the timer.
        self._due = math.inf
        self._timer.cancel()
        if loop is not None and due < math.inf:
            self._timer.set(loop, max(due - pool._core.now(), 0.0), self._fire)
        self._loop = loop
        self._due = due

    def _fire(self) -> None:
        self._due = math.inf
        self.wakeups += 1
        pool = self._pool()
        if pool is not None:
            pool._run_timers()
