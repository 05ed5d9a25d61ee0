"""What the pools for threads do differently from those on asyncio."""

import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

from gcpool._core import SyncReady, SyncTaking
from gcpool._workers.threads import StartWarning, make_this_thread_known, start_thread

from .base import logger

__all__ = [
    'SyncReturns',
    'SyncTaking',
    'answer_of',
    'end_creates',
    'pause',
    'ready_of',
    'require_loop',
    'warn_of_open',
]


def answer_of(answer: Any) -> Any:
    """Return what a callback has returned."""
    return answer


def pause(seconds: float) -> None:
    """Sleep."""
    time.sleep(seconds)


def require_loop(pool: object) -> None:
    """Do nothing: threads need no event loop."""


def ready_of(engine: Any) -> Any:
    """Return the object that serves ready connections of a generic pool by subscription; itself if there is none."""
    return SyncReady(engine)


def warn_of_open(pool: object, explicit: bool) -> None:
    """Warn that the constructor has opened the pool, if that was not asked for."""
    if not explicit:
        kind = type(pool).__name__
        warnings.warn(
            f"{kind} was opened by its constructor: pass open=True or open=False, because psycopg_pool's default will "
            f'change, or use the pool as a context manager: `with {kind}(...) as pool`',
            DeprecationWarning,
            stacklevel=5,
        )


def end_creates(engine: Any, patience: float) -> None:
    """Wait for the connects that are under way. They cannot be cut off; their connections are closed on arrival."""
    until = time.monotonic() + patience
    for thread in engine._workers.stop():
        if engine._core.stats()['creating']:
            thread.join(max(until - time.monotonic(), 0.0))


class SyncReturns:
    """Returns connections in daemon threads: those on which ``reset`` is called.

    A thread is started when there is work and fewer threads than the limit run, and ends when there is none. put()
    first adds a job and then counts the threads; a thread first announces its end and then looks for jobs. One sees the
    other.
    """

    _getpid = staticmethod(os.getpid)

    def __init__(self, engine: Any):
        self._name = f'gcpool-{engine.name}-reset'
        self._start_warning = StartWarning(
            'thread %s cannot be started, so putconn() calls reset itself: %s', self._name
        )
        self._begin()

    def _begin(self) -> None:
        self._pid = self._getpid()
        self._jobs: deque[Callable[[bool], None]] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._at_work = 0

    def put(self, work: Callable[[bool], None], ended: Callable[[], object], limit: int) -> None:
        """Start some work, in the caller if no thread can be started.

        :param work: receives False: it was not cut off
        :param ended: for asyncio, where work may be cut off
        :param limit: maximum number of threads
        """
        if self._pid != self._getpid():
            # The queued jobs belong to the process that this one was forked from.
            self._begin()
        self._jobs.append(work)
        if len([thread for thread in list(self._threads) if thread.is_alive()]) < limit:
            self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=lambda: self._run(thread), name=self._name, daemon=True)
        self._threads.append(thread)
        try:
            start_thread(thread)
        except BaseException as exc:
            if not thread.is_alive():
                self._forget(thread)
            if not self._start_warning.covers(exc):
                raise
            self._work_off()
            return
        self._start_warning.withdraw()

    def _run(self, thread: threading.Thread) -> None:
        try:
            self._work_off()
            self._forget(thread)
            self._work_off()
        finally:
            self._forget(thread)
            make_this_thread_known()

    def _forget(self, thread: threading.Thread) -> None:
        try:
            self._threads.remove(thread)
        except ValueError:
            return

    def _work_off(self) -> None:
        while self._jobs:
            with self._changed:
                self._at_work += 1
            try:
                self._jobs.popleft()(False)
            except IndexError:
                # Another thread was faster.
                return
            except BaseException as exc:
                # A callback raised SystemExit: its connection is already closed.
                logger.warning('returning a connection failed: %s: %s', type(exc).__name__, exc)
            finally:
                with self._changed:
                    self._at_work -= 1
                    self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until all work is done. False if that takes longer."""
        if self._pid != self._getpid() or threading.current_thread() in self._threads:
            return True
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs and not self._at_work, max(timeout, 0.0))
