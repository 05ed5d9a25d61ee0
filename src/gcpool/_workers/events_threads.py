"""The thread that calls a pool's ``on_event``."""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from gcpool._core import logger
from gcpool.observers import PoolEvent

from .per_process import PerProcess
from .threads import StartWarning, make_this_thread_known, start_thread

__all__ = ['MAX_EVENTS', 'SyncEvents']

# Maximum number of events that wait for on_event. Further ones are dropped: it hangs, or is too slow.
MAX_EVENTS = 1000


class _ProcessEvents:
    """The events to report in one process, and the thread that reports them."""

    def __init__(self) -> None:
        self.waiting: deque[PoolEvent] = deque()
        self.thread: threading.Thread | None = None
        # One event at a time: two threads may have been started at once.
        self.turn = threading.Lock()
        self.dropped = False


class SyncEvents:
    """Calls ``on_event`` in a daemon thread, one event after the other, in the order in which they came.

    Not in the thread in which something happened: that holds a connection, or closes one, and ``on_event`` may acquire,
    or close the pool. The thread is started when there is an event, and ends when there is none. If none can be
    started, the events wait for the next one, or for the pool's ``close``.

    No event is overlooked. :py:meth:`put` first adds the event, and then looks for the thread; the thread first
    announces that it ends, and then looks for events. One of the two sees the other.

    :param on_event: called with each event
    :param name: the name of the pool
    """

    def __init__(self, on_event: Callable[[PoolEvent], object], name: str):
        self._on_event = on_event
        self._pool_name = name
        self._name = f'gcpool-{name}-events'
        # The events of another process are reported there.
        self._per_process = PerProcess(_ProcessEvents)
        self._start_warning = StartWarning('thread %s cannot be started, so events wait: %s', self._name)

    def bind(self, pool: Any) -> None:
        """Do nothing: the thread needs only ``on_event``."""

    def put(self, event: PoolEvent) -> None:
        """Queue an event for ``on_event``."""
        process = self._per_process.get()
        if len(process.waiting) >= MAX_EVENTS:
            if not process.dropped:
                process.dropped = True
                logger.warning('%s: on_event is too slow, events are dropped', self._pool_name)
            return
        process.waiting.append(event)
        self._ensure_thread(process)

    def _ensure_thread(self, process: _ProcessEvents) -> None:
        if process.thread is not None and process.thread.is_alive():
            return
        thread: threading.Thread | None = None
        try:
            thread = threading.Thread(target=lambda: self._run(process), name=self._name, daemon=True)
            process.thread = thread
            start_thread(thread)
        except BaseException as exc:
            if thread is not None and process.thread is thread and not thread.is_alive():
                process.thread = None
            if not self._start_warning.covers(exc):
                raise
            return
        self._start_warning.withdraw()

    def _run(self, process: _ProcessEvents) -> None:
        try:
            with process.turn:
                while process.waiting:
                    self._tell_all(process)
                    process.thread = None
        finally:
            make_this_thread_known()

    def _tell_all(self, process: _ProcessEvents) -> None:
        while process.waiting:
            try:
                self._on_event(process.waiting.popleft())
            except BaseException:
                # SystemExit, too: the thread has to continue.
                logger.last_resort('%s: on_event failed', self._pool_name)
        process.dropped = False

    def threads(self) -> list[threading.Thread]:
        """The thread that reports events, other than the caller. If none can be started, this reports what waits."""
        process = self._per_process.get()
        thread = process.thread
        if thread is threading.current_thread():
            return []
        if process.waiting and (thread is None or not thread.is_alive()):
            self._ensure_thread(process)
            thread = process.thread
        if process.waiting and thread is None:
            self._tell_all(process)
        return [thread] if thread is not None and thread.is_alive() else []
