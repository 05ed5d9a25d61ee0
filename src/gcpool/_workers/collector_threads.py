"""The collector of a pool for threads."""

import os
import threading
import weakref
from typing import Any, cast

from gcpool._core import logger

from . import before_fork
from .threads import StartWarning, Wakeup, make_this_thread_known, start_thread

__all__ = ['SyncCollector']


class _CollectorThread:
    """One collector's thread, and what wakes it.

    It knows its process by the id and not by the core's fork epoch: the end of the pool wakes the thread, too, and then
    the core no longer exists.

    :ivar pid: the process that the thread belongs to
    """

    def __init__(self, pid: int):
        self.pid = pid
        self.wakeup = Wakeup()
        self.thread: threading.Thread | None = None

    def runs_in(self, pid: int) -> bool:
        # The process is compared first: if a fork bypassed Python, threading considers the thread alive.
        return self.pid == pid and self.thread is not None and self.thread.is_alive()

    def wake_in(self, pid: int) -> None:
        # Uses nothing global, because the last pools are freed while the modules are being torn down.
        if self.pid != pid:
            # The thread waits in the process that this one was forked from. If the fork bypassed Python, setting the
            # wakeup would hand its lock over to that thread, which does not exist here.
            return
        self.wakeup.set()


class SyncCollector:
    """Runs a pool's ``_collect`` when something is due: a daemon thread that sleeps until then.

    The thread holds no strong reference to the pool while it sleeps, and ends when the pool is gone. A thread that has
    died (of an exception raised in it from outside), or exists only in the parent process, is replaced when it is
    needed. If no thread can be started, releases do its work until one can be.

    :param pool: the pool; ``pool._collect()`` returns the seconds until it is to be called again, None for never
    """

    _getpid = staticmethod(os.getpid)

    def __init__(self, pool: Any, name: str):
        self._name = name
        self._pool = weakref.ref(pool, lambda _: self._wake_all())
        self._stopped = False
        # Two threads may start a collector at once: the last one in this list stays, and ends the others. append() and
        # remove() of a list are atomic, even without the GIL, and so is list() of a list.
        self._threads: list[_CollectorThread] = []
        self._start_warning = StartWarning('thread %s cannot be started, so releases close what is due: %s', name)
        self.wakeups = 0

    def start(self) -> None:
        """Start the thread, if one can be started."""
        self._start()

    def wake(self) -> bool:
        """A connection is due earlier than the collector knows. False if there is no thread to collect it."""
        runs = self.ensure_running()
        for collector in self._threads[-1:]:
            collector.wake_in(self._getpid())
        return runs

    def ensure_running(self) -> bool:
        """Start a thread if there is none. Returns whether a thread will close what is due."""
        return self._stopped or self._lives() or self._start()

    def _lives(self) -> bool:
        return any(collector.runs_in(self._getpid()) for collector in self._threads[-1:])

    def _start(self) -> bool:
        collector: _CollectorThread | None = None
        try:
            collector = self._add_thread()
            start_thread(cast('threading.Thread', collector.thread))
        except BaseException as exc:
            if collector is not None and not collector.runs_in(self._getpid()):
                self._forget(collector)
            if not self._start_warning.covers(exc):
                raise
            return False
        self._start_warning.withdraw()
        return True

    def _add_thread(self) -> _CollectorThread:
        collector = _CollectorThread(self._getpid())
        # The thread is passed its own Thread object, because current_thread() may return another one under gevent's
        # monkey-patching.
        collector.thread = threading.Thread(target=lambda: self._run(collector), name=self._name, daemon=True)
        self._threads.append(collector)
        return collector

    def _forget(self, collector: _CollectorThread) -> None:
        try:
            self._threads.remove(collector)
        except ValueError:
            # Another thread has removed it.
            return

    def _wake_all(self) -> None:
        pid = self._getpid()
        for collector in list(self._threads):
            collector.wake_in(pid)

    def _run(self, collector: _CollectorThread) -> None:
        try:
            self._take_over(collector)
            while self._is_needed(collector):
                self._collect_and_sleep(collector)
        except BaseException:
            # An exception was raised in this thread from outside. The next acquire wakes the search for leaks.
            pool = self._pool()
            if pool is not None:
                pool._core.look_for_leaks_again(pool._core.now(), False)
            raise
        finally:
            self._forget(collector)
            make_this_thread_known()

    def _take_over(self, collector: _CollectorThread) -> None:
        if collector not in self._threads:
            # A signal handler raised in start_thread(): _start() then forgot this collector, and it runs anyway.
            self._threads.append(collector)
        for other in list(self._threads):
            if other.pid != collector.pid:
                self._forget(other)
            elif other is not collector:
                # If this collector is the last in the list, the other one ends. If not, the last one ends this one.
                other.wake_in(collector.pid)

    def _is_needed(self, collector: _CollectorThread) -> bool:
        return not self._stopped and self._threads[-1:] == [collector] and self._pool() is not None

    def _collect_and_sleep(self, collector: _CollectorThread) -> None:
        pool = self._pool()
        if pool is None:
            return
        try:
            delay = pool._collect()
        except BaseException:
            # A manager's dispose raised a BaseException. The connection is accounted for; others will be due.
            logger.last_resort('the collector of %r continues after an error', pool)
            delay = pool._due_in()
        del pool
        thread = cast('threading.Thread', collector.thread)
        before_fork.idle_threads[thread] = self
        try:
            collector.wakeup.wait(delay)
        finally:
            before_fork.idle_threads.pop(thread, None)
        self.wakeups += 1

    def stop(self) -> list[threading.Thread]:
        """End the collectors, each after the close that it has begun, if any.

        :return: the threads that are alive, except the caller: a dispose that closes the pool does not wait for itself
        """
        self._stopped = True
        self._wake_all()
        this, pid = threading.current_thread(), self._getpid()
        return [
            collector.thread
            for collector in list(self._threads)
            if collector.thread is not None and collector.thread is not this and collector.runs_in(pid)
        ]

    def dismiss(self, thread: threading.Thread) -> bool:
        """The process is about to fork: end this idle thread. False if it does not belong to this collector."""
        pid = self._getpid()
        for collector in list(self._threads):
            if collector.thread is thread and collector.pid == pid:
                self._forget(collector)
                collector.wake_in(pid)
                return True
        return False

    def recall(self) -> None:
        """The process has forked, and this is the parent: start a collector again."""
        if self._pool() is not None:
            self.ensure_running()
