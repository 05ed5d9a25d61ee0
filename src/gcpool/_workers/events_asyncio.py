"""The task that calls a pool's ``on_event``."""

import asyncio
import inspect
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

from gcpool._core import Lane, logger
from gcpool._signal_handlers import is_of_signal_handler
from gcpool.observers import PoolEvent

__all__ = ['MAX_EVENTS', 'AsyncEvents']

# Maximum number of events that wait for on_event. Further ones are dropped: it hangs, or is too slow.
MAX_EVENTS = 1000


class AsyncEvents:
    """Calls ``on_event`` in a task of the pool, one event after the other, in the order in which they came.

    Not in the task in which something happened: that holds a connection, or closes one, and ``on_event`` may acquire,
    or close the pool. The task is created when there is an event, in an empty context, and ends when there is none.

    :param on_event: called with each event; its result is awaited if it is awaitable
    :param name: the name of the pool
    """

    def __init__(self, on_event: Callable[[PoolEvent], object], name: str):
        self._on_event = on_event
        self._pool_name = name
        self._name = f'gcpool-{name}-events'
        self._pool: weakref.ref[Any] = weakref.ref(self)
        self._waiting: deque[PoolEvent] = deque()
        self._task: asyncio.Task[None] | None = None
        self._fork_epoch = 0
        self._dropped = False

    def bind(self, pool: Any) -> None:
        """Set the pool whose events these are."""
        self._pool = weakref.ref(pool)

    def put(self, event: PoolEvent) -> None:
        """Queue an event for ``on_event``."""
        pool = self._pool()
        loop = None if pool is None else pool._bound_loop
        if pool is None or (loop is not None and loop.is_closed()):
            # A coroutine has outlived its loop.
            return
        if self._fork_epoch != pool._core.fork_epoch:
            # Waiting events are reported in the process that this one was forked from.
            self._fork_epoch = pool._core.fork_epoch
            self._waiting.clear()
            self._task = None
        if len(self._waiting) >= MAX_EVENTS:
            if not self._dropped:
                self._dropped = True
                logger.warning('%s: on_event is too slow, events are dropped', self._pool_name)
            return
        self._waiting.append(event)
        if loop is None:
            # No loop has used the pool yet: suspend() binds it to none. The first event in a loop reports all of them.
            return
        if pool._runs_in_other_thread():
            pool._call_in_loop(self._ensure_task)
        else:
            self._ensure_task()

    def _ensure_task(self) -> None:
        pool = self._pool()
        loop = None if pool is None else pool._bound_loop
        if pool is None or loop is None or loop.is_closed() or not self._waiting:
            return
        if self._task is None or self._task.done():
            self._task = task = Context().run(pool._spawn, loop, Lane(self._tell_all), self._name)
            pool._tasks.add(task)
            task.add_done_callback(self._ended, context=Context())

    def _ended(self, task: 'asyncio.Task[None]') -> None:
        pool = self._pool()
        if pool is not None:
            pool._tasks.discard(task)
        if task.cancelled():
            # The loop ends, or close() has waited long enough: nothing more can be awaited.
            self._waiting.clear()
        else:
            # Events that came when the task ended, or that are left because KeyboardInterrupt ended it.
            self._ensure_task()

    async def _tell_all(self, failure: BaseException | None) -> None:
        # A failure comes before the first step: the task was cancelled, because the loop ends.
        while self._waiting:
            try:
                answer = self._on_event(self._waiting.popleft())
                if inspect.isawaitable(answer):
                    if failure is not None:
                        answer.close()  # type: ignore[attr-defined]
                        break
                    await answer
            except (Exception, SystemExit) as exc:
                if is_of_signal_handler(exc):
                    raise
                logger.last_resort('%s: on_event failed', self._pool_name)
        self._dropped = False
        if failure is not None:
            raise failure
