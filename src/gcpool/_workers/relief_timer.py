"""The timer of a pool on asyncio that ends the counting of closes as relief."""

import math
import weakref
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .collector_asyncio import timer_will_fire

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
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = math.inf
        self.wakeups = 0

    def set(self, pool: Any) -> None:
        """Set, move or cancel the timer, because a close has begun or ended."""
        loop = pool._bound_loop
        ended = pool._core.closed or loop is None or loop.is_closed()
        due = math.inf if ended else pool._core.relief_ends_at()
        is_set = due == math.inf or timer_will_fire(self._timer, self._fires_at, pool._bound_loop)
        if due == self._due and loop is self._loop and is_set:
            return
        # Noted first: if a signal handler raises in what follows, the next call sets the timer.
        self._due = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due < math.inf:
            delay = max(due - pool._core.now(), 0.0)
            self._fires_at = pool._bound_loop.time() + delay
            # In an empty context, as the collector's: see AsyncCollector.
            self._timer = pool._bound_loop.call_later(delay, self._fire, context=Context())
        self._loop = loop
        self._due = due

    def _fire(self) -> None:
        self._timer = None
        self._due = math.inf
        self.wakeups += 1
        pool = self._pool()
        if pool is not None:
            pool._expire_relief()
