"""``asyncio.timeout`` for Python 3.10, which has none: as much of it as the pools use."""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class timeout_scope:  # noqa: N801 - it stands for asyncio.timeout
    """Cancels the task inside after some seconds and turns that cancellation into a TimeoutError.

    Later Pythons count the cancellations of a task, by which a scope knows whether other code cancelled it, too.
    This scope counts itself: while it is entered, it replaces the task's ``cancel``. (The exception would not show
    that: of two cancellations in one turn of the loop only one arrives, and through another task its message is lost.)

    :param delay: seconds, None for no limit yet
    """

    _task: 'asyncio.Task[object]'
    _timer: asyncio.Handle | None = None
    _cancel: Any
    _depth: int

    def __init__(self, delay: float | None):
        self._delay = delay
        self._expired = False
        self._cancelled = False

    def expired(self) -> bool:
        """Whether the timeout expired before the block ended."""
        return self._expired

    async def __aenter__(self) -> 'Self':
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError('a time limit works only inside a task')
        self._task = task
        self._cancel = task.cancel
        surrounding = getattr(self._cancel, '__self__', None)
        self._depth = surrounding._depth + 1 if isinstance(surrounding, timeout_scope) else 0  # noqa: SLF001
        task.cancel = self._watch  # type: ignore[method-assign]
        if self._delay is not None:
            self.reschedule(loop.time() + self._delay)
        return self

    def reschedule(self, when: float) -> None:
        """Let the timeout expire at another time of the loop."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_soon(self._expire) if when <= loop.time() else loop.call_at(when, self._expire)

    def _watch(self, msg: object = None) -> bool:
        # Replaces the task's cancel(). The expiry of an inner scope does not concern this one; that of an outer one
        # does: the code in between must not continue.
        if not (isinstance(msg, timeout_scope) and msg.is_within(self)):
            self._cancelled = True
        return bool(self._cancel(msg))

    def is_within(self, other: 'timeout_scope') -> bool:
        """Whether this is the other one, or entered inside of it."""
        return self._task is other._task and self._depth >= other._depth  # noqa: SLF001

    def _expire(self) -> None:
        self._expired = True
        self._task.cancel(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._depth:
            self._task.cancel = self._cancel  # type: ignore[method-assign]
        else:
            del self._task.cancel
        if self._expired and not self._cancelled and isinstance(exc, asyncio.CancelledError):
            raise asyncio.TimeoutError from exc
