"""Ends a wait that has no time limit of its own: the connection is shut down when its time is over.

One daemon thread serves the whole process. It is started when there is first something to watch, and ends after ten
seconds without work. It is replaced if it died, or is missing because the process was forked.
"""

import contextlib
import heapq
import itertools
import logging
import math
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, final

from gcpool.contrib._sockets import shut_down

__all__ = ['CutOff', 'cut_off_after', 'has_greenlets_for_threads', 'shut_down_descriptor']

logger = logging.getLogger(__name__)

#: Seconds without work after which the thread ends.
IDLE_TIME = 10.0

# With more entries than this, entries that have ended are dropped from time to time.
_LEAST_KEPT = 64


def shut_down_descriptor(fd: int) -> None:
    """Shut down both directions of a socket that belongs to other code (libpq): a thread that waits for it is woken."""
    sock = socket.socket(fileno=fd)
    try:
        shut_down(sock)
    finally:
        sock.detach()


@contextlib.contextmanager
def cut_off_after(fd: int, timeout: float | None) -> Iterator[Callable[[], bool]]:
    """Shut a socket down if the block takes too long; this ends a wait that has no time limit of its own.

    Where no thread can be started the wait is not cut off: the limits of TCP apply.

    :param fd: the descriptor, which must stay open during the block
    :param timeout: seconds, None for no limit
    :return: of the context manager: tells whether the wait was cut off. Call it at the end of the block.
    """
    if timeout is None:
        yield lambda: False
        return
    cut_off = CutOff(lambda: shut_down_descriptor(fd), timeout)
    try:
        yield lambda: cut_off.happened
    finally:
        cut_off.end()


@final
class CutOff:
    """Calls ``shut_down`` when a time is over, unless the watch was ended or garbage-collected before.

    Where no thread can be started ``shut_down`` is never called, which is logged once.

    :param shut_down: called in another thread; must not wait for anything. Its references are dropped at the end.
    :param seconds: the time until the call
    """

    _timer: threading.Timer | None = None

    def __init__(self, shut_down: Callable[[], object], seconds: float) -> None:
        #: Whether the time was over. Read it after the watch has ended.
        self.happened = False
        self._shut_down: Callable[[], object] | None = shut_down
        # Not a Lock: a signal handler may dispose of the connection, and end this watch again.
        self._lock = threading.RLock()
        self._process = os.getpid()
        if has_greenlets_for_threads():
            # A lock per watch costs little. A shared lock would work only while the gevent hub in which it was created
            # runs.
            timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), _expire, (weakref.ref(self),))
            timer.daemon = True
            timer.start()
            self._timer = timer
        else:
            _Watchdog.of_this_process().watch(self, seconds)

    def end(self) -> None:
        """End the watch. When this returns, ``shut_down`` neither runs nor is about to.

        May be called from any thread, from a signal handler, and more than once.
        """
        # In a forked child, a thread that is missing there may hold the lock, and nothing would call ``shut_down``
        # anyway.
        if self._process == os.getpid():
            with self._lock:
                self._shut_down = None
        if self._timer is not None:
            self._timer.cancel()

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to call."""
        return self._shut_down is None

    def expire(self) -> None:
        """Call ``shut_down``, if the watch has not ended."""
        with self._lock:
            shut_down, self._shut_down = self._shut_down, None
            if shut_down is not None:
                self.happened = True
                shut_down()


def _expire(reference: 'weakref.ref[CutOff]') -> None:
    cut_off = reference()
    if cut_off is not None:
        cut_off.expire()


def has_greenlets_for_threads() -> bool:
    """Tell whether a blocking call in a thread stops all others, because gevent has made threads greenlets."""
    monkey: Any = sys.modules.get('gevent.monkey')
    return monkey is not None and bool(monkey.is_module_patched('threading'))


@final
class _Watchdog:
    """The thread and its entries."""

    _current: ClassVar['_Watchdog | None'] = None
    _has_complained: ClassVar[bool] = False

    @classmethod
    def of_this_process(cls) -> '_Watchdog':
        watchdog = cls._current
        if watchdog is None or watchdog.process != os.getpid():
            # Two threads may create one each; both work. Nothing of a parent's is touched: its lock may be held.
            watchdog = cls._current = cls()
        return watchdog

    def __init__(self) -> None:
        self.process = os.getpid()
        # The condition's lock is reentrant: a signal handler may enter this code again, wherever it interrupts its
        # thread.
        self._changed = threading.Condition(threading.RLock())
        # The time, a number that orders entries of the same time, and the watch. Weakly: a watch must not fire if
        # nothing refers to it any more because its user was interrupted before ending it.
        self._due: list[tuple[float, int, weakref.ref[CutOff]]] = []
        self._numbers = itertools.count()
        self._most_kept = _LEAST_KEPT
        self._thread: threading.Thread | None = None
        self._wakes_at = math.inf

    def watch(self, cut_off: CutOff, seconds: float) -> None:
        """Add a watch."""
        due = time.monotonic() + seconds
        entry = (due, next(self._numbers), weakref.ref(cut_off))
        with self._changed:
            heapq.heappush(self._due, entry)
            if len(self._due) > self._most_kept:
                self._drop_ended()
            if self._thread is None or not self._thread.is_alive():
                self._start()
            elif due < self._wakes_at:
                self._changed.notify()

    def _drop_ended(self) -> None:
        # Into a new list, which also receives what a signal handler adds meanwhile.
        entries, self._due = self._due, []
        for entry in entries:
            if not _has_ended(entry[2]):
                heapq.heappush(self._due, entry)
        self._most_kept = max(2 * len(self._due), _LEAST_KEPT)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name='gcpool-watchdog', daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as exc:
            # There are too many threads, or the interpreter is shutting down. The next call tries again.
            if not _Watchdog._has_complained:
                _Watchdog._has_complained = True
                _log(
                    logging.WARNING,
                    'no thread can be started (%s): waits for a server that does not answer are not cut off in time, '
                    'only the limits of TCP apply',
                    exc,
                )
        else:
            self._thread = thread

    def _run(self) -> None:
        while (cut_off := self._next()) is not None:
            try:
                cut_off.expire()
            except Exception as exc:  # noqa: BLE001  (of one connection; the others' time comes as well)
                _log(logging.ERROR, 'a connection whose time was over cannot be shut down: %s', exc)
            # Not during the wait.
            del cut_off

    def _next(self) -> CutOff | None:
        """Wait until an entry is due, and return it; None if there was nothing to watch for some time."""
        with self._changed:
            while True:
                while self._due and _has_ended(self._due[0][2]):
                    heapq.heappop(self._due)
                idle = not self._due
                # Not longer: entries that have ended must not keep the thread alive.
                wait = IDLE_TIME if idle else min(self._due[0][0] - time.monotonic(), IDLE_TIME)
                if wait <= 0:
                    cut_off = heapq.heappop(self._due)[2]()
                    if cut_off is not None:
                        return cut_off
                    continue
                self._wakes_at = time.monotonic() + wait
                if not self._changed.wait(wait) and idle and not self._due:
                    self._thread = None
                    return None


def _has_ended(reference: 'weakref.ref[CutOff]') -> bool:
    cut_off = reference()
    return cut_off is None or cut_off.has_ended


def _log(level: int, message: str, exc: BaseException) -> None:
    # An error in ``shut_down`` must neither fail a user whose connection is fine, nor end the thread.
    with contextlib.suppress(Exception):
        logger.log(level, message, exc)
