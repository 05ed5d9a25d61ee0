"""The threads that close connections."""

import math
import sys
import threading
import weakref
from typing import Any, cast

from gcpool._core import PARALLEL_DISPOSALS, logger

from . import before_fork
from .threads import StartWarning, Wakeup, make_this_thread_known, start_thread

__all__ = ['IDLE_TIME', 'PARALLEL_DISPOSALS', 'SyncClosers']

# Seconds that a closing thread waits for the next connection before it ends.
IDLE_TIME = 1.0


class _ProcessThreads:
    """The closing threads of one process, and what wakes one of them."""

    def __init__(self) -> None:
        # Dicts serve as sets that keep their order: otherwise a simulation could not be repeated. list() of a dict is
        # atomic, even without the GIL; tuple() is not.
        self.threads: dict[threading.Thread, None] = {}
        # The threads that will look for doomed connections: they wait for a call, or have just been started.
        self.free: dict[threading.Thread, None] = {}
        self.wakeup = Wakeup()
        # Whether the waiting threads are to end, because the process is about to fork.
        self.told_to_end = False

    def wake_one(self) -> None:
        # If no thread has seen the last call yet, one wakes for both. It calls another one if there is more than one
        # connection to close.
        self.wakeup.set()


class SyncClosers:
    """The threads that close what an acquire, or the collector, has doomed: daemon threads, started when needed.

    A dispose may hang, so one more is started whenever a connection is doomed and no thread is free, up to
    PARALLEL_DISPOSALS. A thread that finds nothing to close waits IDLE_TIME seconds for more, and then ends. None of
    them holds a strong reference to the pool while it waits. If a close for waiters may hang, one thread is kept idle
    for them: see keep_one_for_timers().

    No doomed connection is overlooked. A call that dooms one puts it into the core first, and then looks which threads
    are free; a thread leaves the free ones first, and then looks what is doomed. One of the two sees the other.

    :param pool: the pool; ``pool._work_next()`` closes, creates or checks one connection; False if there is none
    """

    _is_finalizing = staticmethod(sys.is_finalizing)

    def __init__(self, pool: Any, name: str):
        self._pool = weakref.ref(pool)
        self._name = name
        # By fork epoch, of which there is one at a time. Unlike the process id, it costs no system call. A dict,
        # because its setdefault() is atomic: two threads of a child must not make two of these.
        self._by_epoch = {pool._core.fork_epoch: _ProcessThreads()}
        self._stopped = False
        self._start_warning = StartWarning('thread %s cannot be started, so acquires close connections: %s', name)

    def call(self) -> bool:
        """A connection is doomed: wake a thread that is free, or start one.

        :return: False if there is none, and none can be started
        """
        # At the end of the interpreter the threads still exist, but will never run again.
        if self._is_finalizing():
            return False
        process = self._threads_of_this_process()
        for thread in list(process.free):
            if thread.is_alive():
                process.wake_one()
                return True
            # Another call is starting this thread, or the thread has died of an exception that somebody raised in it.
            process.free.pop(thread, None)
        # If there are as many threads as there may be, each of them looks for more when it is done.
        return self._is_full(process) or self._start(process)

    def _is_full(self, process: _ProcessThreads) -> bool:
        if len(process.threads) < PARALLEL_DISPOSALS:
            return False
        for thread in list(process.threads):
            if not thread.is_alive():
                # The thread has died, or is being started: then it joins once more when it runs.
                process.threads.pop(thread, None)
        return len(process.threads) >= PARALLEL_DISPOSALS

    def _join_if_room(self, process: _ProcessThreads, thread: threading.Thread) -> bool:
        """Count a thread among the closers, unless PARALLEL_DISPOSALS threads are counted already.

        Several callers may do this at the same time, each for a thread of its own. Each first adds its thread to the
        others, whose order is that of arrival, and takes it out again if it is not among the first PARALLEL_DISPOSALS.
        Then it tries again if there is room: a thread before it may have been taken out, too.
        """
        while True:
            process.threads[thread] = None
            if thread in list(process.threads)[:PARALLEL_DISPOSALS]:
                return True
            process.threads.pop(thread, None)
            if self._is_full(process):
                return False

    def keep_one_for_timers(self) -> bool:
        """Have an idle thread do in time what is due: a close for waiters may hang, and no waiting acquire does.

        :return: False if there is none, and none can be started
        """
        if self._stopped or self._is_finalizing():
            return False
        process = self._threads_of_this_process()
        return self._is_any_free(process) or self._is_full(process) or self._start(process, waits_first=True)

    def _is_any_free(self, process: _ProcessThreads) -> bool:
        return any(thread.is_alive() for thread in list(process.free))

    def _threads_of_this_process(self) -> _ProcessThreads:
        pool = self._pool()
        epoch = max(list(self._by_epoch)) if pool is None else pool._core.fork_epoch
        process = self._by_epoch.get(epoch)
        if process is None:
            # The earlier ones have stayed behind in the process that this one was forked from.
            process = self._by_epoch.setdefault(epoch, _ProcessThreads())
            for earlier in list(self._by_epoch):
                if earlier < epoch:
                    self._by_epoch.pop(earlier, None)
        return process

    def _start(self, process: _ProcessThreads, *, waits_first: bool = False) -> bool:
        # The thread is handed its own Thread object, for the reason that SyncCollector has.
        thread: threading.Thread | None = None
        try:
            thread = threading.Thread(
                target=lambda: self._run(process, cast('threading.Thread', thread), waits_first),
                name=self._name,
                daemon=True,
            )
            if not self._join_if_room(process, thread):
                return True
            process.free[thread] = None
            start_thread(thread)
        except BaseException as exc:
            if thread is not None and not thread.is_alive():
                process.threads.pop(thread, None)
                process.free.pop(thread, None)
            if not self._start_warning.covers(exc):
                raise
            return False
        self._start_warning.withdraw()
        return True

    def _run(self, process: _ProcessThreads, thread: threading.Thread, waits_first: bool) -> None:
        try:
            process.free.pop(thread, None)
            # Once more: if a signal handler raised in start_thread(), _start() took it out, and it runs all the same.
            if self._join_if_room(process, thread):
                if waits_first:
                    # First waits: otherwise it would close, and maybe hang in, what other threads were called for.
                    self._wait(process, thread)
                # Looks once more after it has waited in vain: it was free until then, and may have been called at the
                # last moment.
                while self._work() or self._wait(process, thread) or self._work() or self._must_stay_idle(process):
                    pass
        finally:
            process.free.pop(thread, None)
            process.threads.pop(thread, None)
            self._leave(process)

    def _work(self) -> bool:
        # Closes until nothing is doomed. Returns whether there was anything to close.
        pool = self._pool()
        found = False
        while pool is not None:
            try:
                if not pool._work_next():
                    break
            except BaseException:
                # A manager's dispose raised what is no Exception. The connection is accounted for; there may be others.
                logger.last_resort('closing connections of %r goes on after an error', pool)
            found = True
        return found

    def _wait(self, process: _ProcessThreads, thread: threading.Thread) -> bool:
        # Waits until the thread is called (True), or for IDLE_TIME seconds (False).
        pool = self._pool()
        if pool is None or self._are_to_end(process) or process is not self._threads_of_this_process():
            return False
        timer = pool._core.next_timer()
        idle_time = IDLE_TIME if timer == math.inf else max(timer - pool._core.now(), 0.0)
        process.free[thread] = None
        before_fork.idle_threads[thread] = self
        try:
            # If there are as many threads as there may be, a call that came before this one was free has started no
            # other: so this one looks once more.
            left: bool = self._is_full(process) and (pool._core.left_to_workers > 0 or pool._core.has_creates)
            del pool
            called = process.wakeup.wait(0.0 if left else idle_time) or left
        finally:
            before_fork.idle_threads.pop(thread, None)
            process.free.pop(thread, None)
        if called and timer < math.inf:
            # It was kept idle, and the close that it is called for may hang: another thread is kept idle in its place.
            try:
                self.keep_one_for_timers()
            except BaseException:
                logger.last_resort('no thread is kept idle where a connection of %r is closed', self._pool())
        return called

    def _must_stay_idle(self, process: _ProcessThreads) -> bool:
        # Whether a thread that has waited in vain is to stay: something is due at its time, and no other thread is free
        # to do that. First does what is due now, which may leave something to close or to create to this thread.
        pool = self._pool()
        if pool is None or self._are_to_end(process) or process is not self._threads_of_this_process():
            return False
        core = pool._core
        core.run_timers(core.now())
        if core.left_to_workers or core.has_creates:
            return True
        return core.next_timer() < math.inf and not self._is_any_free(process)

    def _are_to_end(self, process: _ProcessThreads) -> bool:
        return self._stopped or process.told_to_end or self._pool() is None

    def _leave(self, process: _ProcessThreads) -> None:
        make_this_thread_known()
        if process is self._threads_of_this_process() and self._are_to_end(process):
            # The other threads are to end, too.
            process.wake_one()
        pool = self._pool()
        if pool is not None:
            # Until a moment ago this thread counted: with PARALLEL_DISPOSALS of them, a call starts no other one, and
            # relies on one of them to look for more. Or this thread dies of an exception that somebody raised in it.
            try:
                pool._begin_work()
            except BaseException:
                logger.last_resort('closing connections of %r goes on after an error', pool)

    def stop(self) -> list[threading.Thread]:
        """Have the threads end as soon as there is nothing more to close.

        :return: the threads that are alive, but for the caller: a dispose that closes the pool does not wait for itself
        """
        self._stopped = True
        process = self._threads_of_this_process()
        process.wake_one()
        this = threading.current_thread()
        return [thread for thread in list(process.threads) if thread is not this and thread.is_alive()]

    def dismiss(self, thread: threading.Thread) -> bool:
        """The process is about to fork: have the waiting threads end. False if this one is not one of them."""
        process = self._threads_of_this_process()
        if thread not in process.threads:
            return False
        process.told_to_end = True
        process.wake_one()
        return True

    def recall(self) -> None:
        """The process has forked, and this is the parent: threads may wait again."""
        self._threads_of_this_process().told_to_end = False
        pool = self._pool()
        if pool is not None and pool._core.next_timer() < math.inf:
            # One of the threads that have ended was kept idle for relief.
            self.keep_one_for_timers()
