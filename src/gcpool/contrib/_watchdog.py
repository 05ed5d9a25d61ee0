"""Ends a wait that has no time limit of its own: the connection is shut down when the timeout expires.

One daemon thread serves the whole process. It is started when there is first something to watch, and ends after ten
seconds without work. It is replaced if it died, or is missing because the process was forked.
"""

import collections
import contextlib
import functools
import heapq
import logging
import math
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import ClassVar, TypeAlias, final

from gcpool._green_threads import threads_are_green
from gcpool._workers.threads import Wakeup, start_thread
from gcpool.contrib._latch import Latch
from gcpool.contrib._sockets import shut_down

__all__ = ['CutOff', 'cut_off_after', 'shut_down_descriptor']

logger = logging.getLogger(__name__)

#: Seconds without work after which the thread ends.
IDLE_TIME = 10.0

# With more entries than this, entries that have ended are dropped from time to time.
_LEAST_KEPT = 64

# The time, a number that tells apart entries of the same time, and the watch. A weak reference: a watch must not fire
# if nothing refers to it because its user was interrupted before ending it.
_Entry: TypeAlias = 'tuple[float, int, weakref.ref[CutOff]]'


def shut_down_descriptor(fd: int) -> None:
    """Shut down both directions of a socket that belongs to other code (libpq): a thread that waits for it is woken."""
    sock = socket.socket(fileno=fd)
    try:
        shut_down(sock)
    finally:
        sock.detach()


@contextlib.contextmanager
def cut_off_after(shut_down: Callable[[], object], timeout: float | None) -> Iterator[Callable[[], bool]]:
    """Shut a connection down if the block takes too long; this ends a wait that has no time limit of its own.

    Where no thread can be started the wait is not cut off: the limits of TCP apply.

    :param shut_down: as for :py:class:`CutOff`. It may be called after the block, if a signal handler has raised at the
        end of that, so it must not shut down by a descriptor that the connection had in the block.
    :param timeout: seconds, None for no limit
    :return: of the context manager: returns whether the wait was cut off. Call it at the end of the block.
    """
    if timeout is None:
        yield lambda: False
        return
    cut_off = CutOff(shut_down, timeout)
    try:
        yield lambda: cut_off.happened
    finally:
        cut_off.end()


@final
class CutOff:
    """Calls ``shut_down`` after a time, unless the watch was ended or garbage-collected before.

    Where no thread can be started ``shut_down`` is never called, which is logged once.

    Threads share no lock here, which the main thread could leave taken: see :py:class:`gcpool.contrib._latch.Latch`.

    :param shut_down: called in another thread; must not wait for anything. Its references are dropped at the end.
    :param seconds: the time until the call
    """

    _timer: Wakeup | None = None

    def __init__(self, shut_down: Callable[[], object], seconds: float) -> None:
        #: Whether the timeout has expired. Read it after the watch has ended.
        self.happened = False
        self._shut_down: Callable[[], object] | None = shut_down
        # What ended the watch: None for end(), or the call of ``shut_down``: its thread, and its end. The first entry
        # stays, because setdefault() is atomic.
        self._ended_by: dict[str, tuple[int, Latch] | None] = {}
        self._process = os.getpid()
        if threads_are_green():
            # A greenlet per watch costs little. A shared lock would work only while the gevent hub in which it was
            # created runs.
            self._timer = Wakeup()
            target = functools.partial(_wait_and_expire, self._timer, seconds, weakref.ref(self))
            start_thread(threading.Thread(target=target, daemon=True))
        else:
            _Watchdog.of_this_process().watch(self, seconds)

    def end(self) -> None:
        """End the watch. When this returns, ``shut_down`` neither runs nor is about to.

        May be called from any thread, from a signal handler, and more than once.
        """
        call = self._ended_by.setdefault('', None)
        if call is not None:
            thread, is_over = call
            # Not in the middle of the call itself (garbage that is collected there may end the watch), nor in a forked
            # child, which does not have the thread.
            if thread != threading.get_ident() and self._process == os.getpid():
                is_over.wait(None)
        self._shut_down = None
        if self._timer is not None:
            self._timer.set()

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to call."""
        return bool(self._ended_by)

    def expire(self) -> None:
        """Call ``shut_down``, if the watch has not ended."""
        call = (threading.get_ident(), Latch())
        if self._ended_by.setdefault('', call) is not call:
            return
        try:
            self.happened = True
            shut_down, self._shut_down = self._shut_down, None
            if shut_down is not None:
                shut_down()
        finally:
            call[1].set()


def _wait_and_expire(timer: Wakeup, seconds: float, reference: 'weakref.ref[CutOff]') -> None:
    if not timer.wait(seconds):
        cut_off = reference()
        if cut_off is not None:
            cut_off.expire()


@final
class _Watchdog:
    """The thread and its entries.

    Each thread has its own entries, in a heap, and takes new ones from a queue that all threads share. There is one
    thread, unless two users have started one each, or a signal handler has raised in a start: all of them serve
    entries, and end when there are none.

    No entry is overlooked. watch() first adds the entry, and then looks whether there is a thread and when it wakes. A
    thread first announces when it wakes, or that it ends, and then looks for new entries. One of the two sees the
    other, also without the GIL: append() and popleft() of a deque take the deque's own lock.
    """

    _current: ClassVar['_Watchdog | None'] = None
    _has_complained: ClassVar[bool] = False

    @classmethod
    def of_this_process(cls) -> '_Watchdog':
        watchdog = cls._current
        if watchdog is None or watchdog.process != os.getpid():
            # Two threads may create one each; both work. A parent process's object is not used: its thread is missing.
            watchdog = cls._current = cls()
        return watchdog

    def __init__(self) -> None:
        self.process = os.getpid()
        self._new: collections.deque[_Entry] = collections.deque()
        self._wakeup = Wakeup()
        self._most_kept = _LEAST_KEPT
        self._thread: threading.Thread | None = None
        # When a thread will look for new entries, at the latest. If there are several threads, the last one to set this
        # does so.
        self._wakes_at = math.inf

    def watch(self, cut_off: CutOff, seconds: float) -> None:
        """Add a watch."""
        due = time.monotonic() + seconds
        reference = weakref.ref(cut_off)
        self._new.append((due, id(reference), reference))
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._start()
        elif due < self._wakes_at or len(self._new) > _LEAST_KEPT:
            self._wakeup.set()

    def _start(self) -> None:
        thread = threading.Thread(target=lambda: self._run(thread), name='gcpool-watchdog', daemon=True)
        # Before the start, so that the thread counts if a signal handler raises in the middle of it.
        self._thread = thread
        try:
            start_thread(thread)
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

    def _run(self, thread: threading.Thread) -> None:
        """Serve entries until there have been none for some time."""
        due: list[_Entry] = []
        try:
            while (cut_off := self._next(due, thread)) is not None:
                try:
                    cut_off.expire()
                except Exception as exc:  # noqa: BLE001  (of one connection; the others must be served as well)
                    _log(logging.ERROR, 'a connection whose timeout expired cannot be shut down: %s', exc)
                # Not during the wait.
                del cut_off
        finally:
            # If this thread dies, the next one continues.
            self._new.extend(due)
            self._wakes_at = math.inf

    def _next(self, due: list[_Entry], thread: threading.Thread) -> CutOff | None:
        """Wait until an entry is due, and return its watch; None if there was nothing to watch for some time."""
        while True:
            while due and _has_ended(due[0][2]):
                heapq.heappop(due)
            is_idle = not due
            # Not longer: entries that have ended must not keep the thread alive.
            wait = IDLE_TIME if is_idle else min(due[0][0] - time.monotonic(), IDLE_TIME)
            if wait <= 0:
                cut_off = heapq.heappop(due)[2]()
                if cut_off is not None:
                    return cut_off
                continue
            self._wakes_at = time.monotonic() + wait
            if self._take_new(due) or self._wakeup.wait(wait) or not is_idle:
                self._take_new(due)
                continue
            self._wakes_at = math.inf
            if self._thread is thread:
                self._thread = None
            if not self._take_new(due):
                return None

    def _take_new(self, due: list[_Entry]) -> bool:
        """Add the new entries to a thread's, and return whether there were any."""
        found = False
        with contextlib.suppress(IndexError):
            while True:
                entry = self._new.popleft()
                found = True
                if not _has_ended(entry[2]):
                    heapq.heappush(due, entry)
        if len(due) > self._most_kept:
            due[:] = [entry for entry in due if not _has_ended(entry[2])]
            heapq.heapify(due)
            self._most_kept = max(2 * len(due), _LEAST_KEPT)
        return found


def _has_ended(reference: 'weakref.ref[CutOff]') -> bool:
    cut_off = reference()
    return cut_off is None or cut_off.has_ended


def _log(level: int, message: str, exc: BaseException) -> None:
    # An error in ``shut_down`` must neither fail a user whose connection is fine, nor end the thread.
    with contextlib.suppress(Exception):
        logger.log(level, message, exc)
