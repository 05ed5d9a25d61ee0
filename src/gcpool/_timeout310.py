"""``asyncio.timeout`` for Python 3.10, which has none: as much of it as the pools use."""

import asyncio
from types import TracebackType


class timeout_scope:  # noqa: N801 - it stands for asyncio.timeout
    """Cancels the task inside after some seconds and turns that cancellation into a TimeoutError.

    :param delay: seconds
    """

    def __init__(self, delay: float):
        self._delay = delay
        self._expired = False
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.Handle | None = None

    def expired(self) -> bool:
        """Whether the time was over before the block was."""
        return self._expired

    async def __aenter__(self) -> 'timeout_scope':
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError('a time limit can only be kept inside a task')
        if self._delay <= 0:
            self._timer = loop.call_soon(self._expire)
        else:
            self._timer = loop.call_later(self._delay, self._expire)
        return self

    def _expire(self) -> None:
        task = self._task
        assert task is not None
        future = getattr(task, '_fut_waiter', None)
        if getattr(task, '_must_cancel', False) or (future is not None and future.cancelled()):
            # Somebody else cancels the task in this turn of the loop: that cancellation must not turn into a timeout.
            return
        self._expired = True
        task.cancel(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        # A later cancellation by somebody else has put its own message in the place of ours.
        if self._expired and isinstance(exc, asyncio.CancelledError) and exc.args == (self,):
            raise asyncio.TimeoutError from exc
        if isinstance(exc, asyncio.CancelledError):
            self._expired = False
