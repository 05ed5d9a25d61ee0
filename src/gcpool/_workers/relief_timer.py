"""The timer of a pool on asyncio that ends the counting of closes as relief."""

import math
import weakref
from typing import TYPE_CHECKING, Any

from .loop_timer import LoopTimer

if TYPE_CHECKING:
    import asyncio

__all__ = ['ReliefTimer']


class ReliefTimer:
    """A timer of the loop that calls a pool's ``_expire_relief`` when a close stops counting for the waiters.

    Otherwise waiters would hang as long as that close, in a pool that nobody calls meanwhile. The timer exists only
    while a close counts. It holds no strong reference to the pool.
    """

    def __init__(self, pool: Any):
        self._pool = weakref.ref(pool)
        self._timer = LoopTimer()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = math.inf
        self.wakeups = 0

    def set(self, pool: Any) -> None:
        """Set, move or cancel the timer, because a close has begun or ended."""
        loop = pool._bound_loop
        ended = pool._core.closed or loop is None or loop.is_closed()
        due = math.inf if ended else pool._core.relief_ends_at()
        is_set = loop is None or due == math.inf or self._timer.will_fire_in(loop)
        if due == self._due and loop is self._loop and is_set:
            return
        # Noted first: if a signal handler raises in what follows, the next call sets the timer.
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
            pool._expire_relief()
