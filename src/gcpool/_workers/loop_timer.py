"""A timer of an event loop, for the timed actions of a pool on asyncio."""

from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ['TIMER_LATENESS', 'LoopTimer']

# A timer that is late by this many seconds will never fire: a signal handler raised when it fired.
TIMER_LATENESS = 0.1


class LoopTimer:
    """Calls a function once, after a delay that can be changed."""

    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None
        # The time is not read from the handle: uvloop's handles with a delay of less than a millisecond do not know it.
        self._fires_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self, loop: 'asyncio.AbstractEventLoop', delay: float, callback: Callable[[], None]) -> None:
        """Call a function after a delay in seconds, in place of the one that was set before.

        It is called in an empty context, which everything that it starts inherits. Otherwise the context of the task
        that sets the timer, which may be a request's, would be kept alive as long.
        """
        self.cancel()
        self._fires_at = loop.time() + delay
        self._loop = loop
        self._handle = loop.call_later(delay, self._fire, callback, context=Context())

    def cancel(self) -> None:
        """Cancel the call."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._loop = None

    def will_fire_in(self, loop: 'asyncio.AbstractEventLoop') -> bool:
        """Whether a function will be called in this loop."""
        return self._handle is not None and self._loop is loop and self._fires_at > loop.time() - TIMER_LATENESS

    def _fire(self, callback: Callable[[], None]) -> None:
        self._handle = None
        self._loop = None
        callback()
