"""The threads that do a pool's jobs: they close, create and check connections."""

import itertools
import math
import sys
import threading
import weakref
from typing import Any, cast

from gcpool._core import logger

from . import before_fork
from .per_process import PerProcess
from .threads import StartWarning, Wakeup, make_this_thread_known, start_thread

__all__ = ['IDLE_TIME', 'SyncWorkers']

# Seconds that a worker waits for the next job before it ends.
IDLE_TIME = 10.0


class _ProcessThreads:
    """The workers of one process, and what wakes one of them."""

    def __init__(self) -> None:
        # Dicts serve as sets that keep their order: otherwise a simulation could not be repeated. list() of a dict is
        # atomic, even without the GIL; tuple() is not.
        self.by_number: dict[int, threading.Thread] = {}
        # The workers that wait for a call. Each looks for a job after its wait, also after one without a call.
        self.waiting: dict[threading.Thread, None] = {}
        # The workers that are about to look for a job: they were just started, or have just ended a job.
        self.looking: dict[threading.Thread, None] = {}
        # The threads that are being started, and the identities of the threads that start them.
        self.starters: dict[threading.Thread, int] = {}
        self.wakeup = Wakeup()
        # Whether the waiting workers must end, because the process is about to fork.
        self.told_to_end = False

    def add(self, thread: threading.Thread, name: str, most: int) -> bool:
        """Give a thread the lowest free number. False if there are already ``most`` threads; 0 for no limit."""
        for number in range(1, most + 1) if most else itertools.count(1):
            if self.by_number.setdefault(number, thread) is thread:
                thread.name = f'{name}-{number}'
                return True
        return False

    def forget(self, thread: threading.Thread) -> None:
        self.waiting.pop(thread, None)
        self.looking.pop(thread, None)
        for number in list(self.by_number):
            if self.by_number.get(number) is thread:
                self.by_number.pop(number, None)

    def threads(self) -> list[threading.Thread]:
        found = [self.by_number.get(number) for number in list(self.by_number)]
        return [thread for thread in found if thread is not None]

    def counts(self, thread: threading.Thread) -> bool:
        """Whether a thread runs, or is about to.

        A thread that the calling thread is starting does not count: the caller is then a signal handler, which must not
        wait for it.
        """
        this = threading.get_ident()
        return thread.is_alive() or self.starters.get(thread, this) != this

    def is_full(self, most: int) -> bool:
        """Whether there are ``most`` threads; 0 for no limit. Forgets those that do not count."""
        if most and len(self.by_number) >= most:
            for thread in self.threads():
                if not self.counts(thread):
                    # A thread that is being started is added once more when it runs.
                    self.forget(thread)
        return bool(most) and len(self.by_number) >= most

    def wake_one(self) -> None:
        # If no worker has seen the last call yet, one wakes for both. That one calls another worker if there is more to
        # do.
        self.wakeup.set()


class SyncWorkers:
    """The threads that do the jobs that a pool's core hands out: daemon threads, started when needed.

    A job may hang, so one more is started whenever a job may begin for which no worker is waiting or looking. With
    ``max_workers`` there are at most that many, and the core hands out at most that many jobs at the same time. A
    worker that finds nothing to do waits IDLE_TIME seconds, and then ends. While it waits it has no strong reference to
    the pool. It is woken by a call, by the end of the pool, and before a fork. While the core has a timed action ahead,
    one worker stays idle until then: see keep_one_for_timers().

    No job is overlooked. A caller first enters its job into the core, and then looks which workers are waiting or
    looking. A worker first stops counting as waiting or looking, and then looks for a job. So either the caller sees
    the worker, or the worker sees the job. A job that may not begin yet is begun when the job in its way has ended.

    :param pool: the pool; ``pool._work_next()`` does one job; False if there is none
    :param name: what the threads' names begin with
    """

    _is_finalizing = staticmethod(sys.is_finalizing)

    def __init__(self, pool: Any, name: str):
        self._pool = weakref.ref(pool, lambda _: self._wake())
        self._name = name
        self._per_process = PerProcess(_ProcessThreads)
        self._stopped = False
        self._start_warning = StartWarning('thread %s cannot be started, so acquires close connections: %s', name)

    def call(self) -> bool:
        """There is a job, or the core's next timer has changed: wake a worker, or start one.

        :return: False if there is none, and none can be started
        """
        pool = self._pool()
        # At the end of the interpreter the threads still exist, but will never run again.
        if pool is None or self._is_finalizing():
            return False
        process = self._per_process.get()
        # Read before the looking workers are counted: otherwise one of those might have taken another job in between.
        wanted = self._wanted(pool)
        for thread in list(process.waiting):
            if process.counts(thread):
                process.wake_one()
                return True
            # The worker has died of an exception that was raised in it from outside.
            process.waiting.pop(thread, None)
        # A worker that another call is starting does not count: that start may fail.
        looking = sum(thread.is_alive() for thread in list(process.looking))
        return looking >= wanted or process.is_full(pool._core.max_workers) or self._start(pool, process)

    def _wanted(self, pool: Any) -> int:
        # How many workers have work.
        core = pool._core
        jobs: int = core.jobs_to_begin
        return jobs or int(core.next_timer() < math.inf)

    def keep_one_for_timers(self) -> bool:
        """Keep an idle worker for the timed actions: a close for waiters may hang, and no waiting acquire does them.

        :return: False if there is none, and none can be started
        """
        pool = self._pool()
        if pool is None or self._stopped or self._is_finalizing():
            return False
        process = self._per_process.get()
        return (
            self._is_any_waiting(process)
            or process.is_full(pool._core.max_workers)
            or self._start(pool, process, waits_first=True)
        )

    def _is_any_waiting(self, process: _ProcessThreads) -> bool:
        return any(process.counts(thread) for thread in list(process.waiting))

    def _start(self, pool: Any, process: _ProcessThreads, *, waits_first: bool = False) -> bool:
        thread: threading.Thread | None = None
        try:
            # The thread is handed its own Thread object, because current_thread() may return another one under gevent's
            # monkey-patching.
            thread = threading.Thread(
                target=lambda: self._run(process, cast('threading.Thread', thread), waits_first),
                name=self._name,
                daemon=True,
            )
            process.starters[thread] = threading.get_ident()
            if not process.add(thread, self._name, pool._core.max_workers):
                # Another call has started one.
                return True
            (process.waiting if waits_first else process.looking)[thread] = None
            start_thread(thread)
        except BaseException as exc:
            if thread is not None and not thread.is_alive():
                process.forget(thread)
            if not self._start_warning.covers(exc):
                raise
            return False
        finally:
            if thread is not None:
                process.starters.pop(thread, None)
        self._start_warning.withdraw()
        return True

    def _run(self, process: _ProcessThreads, thread: threading.Thread, waits_first: bool) -> None:
        while True:
            try:
                self._serve(process, thread, waits_first)
            except BaseException:
                # The exception was raised in this thread from outside, and ends it, unless no other thread would do
                # what is due.
                self._leave(process, thread)
                if not self._is_missed(process):
                    raise
                logger.last_resort('the work for %r continues after an error', self._pool())
                waits_first = False
            else:
                self._leave(process, thread)
                return

    def _serve(self, process: _ProcessThreads, thread: threading.Thread, waits_first: bool) -> None:
        if thread not in process.threads():
            # A signal handler raised in start_thread(), and _start() then forgot this thread; or this thread left, and
            # is missed.
            process.add(thread, self._name, 0)
        if waits_first:
            # First waits: otherwise it would begin, and perhaps hang in, a job that other workers were called for.
            self._wait(process, thread)
        # Looks once more after a wait without a call: it may have been called at the last moment.
        while (
            self._work(process, thread)
            or self._wait(process, thread)
            or self._work(process, thread)
            or self._must_stay(process)
        ):
            pass

    def _work(self, process: _ProcessThreads, thread: threading.Thread) -> bool:
        # Does jobs until there are none. Returns whether there was any.
        pool = self._pool()
        found = False
        while pool is not None:
            try:
                process.looking[thread] = None
                # This job may hang: other workers do the rest.
                if pool._core.jobs_to_begin > len(process.looking):
                    self.call()
                process.looking.pop(thread, None)
                if not pool._work_next():
                    break
            except BaseException:
                # A manager raised a BaseException. The connection is accounted for; there may be others.
                logger.last_resort('the work for %r continues after an error', pool)
            found = True
        return found

    def _wait(self, process: _ProcessThreads, thread: threading.Thread) -> bool:
        # Waits until the worker is called (True), for IDLE_TIME seconds, or until something is due (False).
        pool = self._pool()
        if pool is None or self._are_to_end(process):
            return False
        core = pool._core
        timer = math.inf
        process.waiting[thread] = None
        before_fork.idle_threads[thread] = self
        try:
            # If there are max_workers workers, a call that came before this worker waited has woken no worker and
            # started none: so this worker looks once more.
            left = process.is_full(core.max_workers) and core.jobs_to_begin > 0
            timer = core.next_timer()
            idle_time = IDLE_TIME if timer == math.inf else max(timer - core.now(), 0.0)
            del core, pool
            # If the pool has since been freed, or closed, that has woken this worker, or another one, which wakes this
            # one.
            called = process.wakeup.wait(0.0 if left else idle_time) or left
        finally:
            before_fork.idle_threads.pop(thread, None)
            process.waiting.pop(thread, None)
        if called and timer < math.inf:
            # This worker was kept idle, and the job that it is called for may hang: another one is kept idle in its
            # place.
            try:
                self.keep_one_for_timers()
            except BaseException:
                logger.last_resort('no thread is kept idle for what is due in %r', self._pool())
        return called

    def _must_stay(self, process: _ProcessThreads) -> bool:
        # Whether a worker that was not called must stay: a timed action is ahead, and there is no other worker for it.
        # First does what is due now, which may leave a job to this worker.
        pool = self._pool()
        if pool is None or self._are_to_end(process):
            return False
        core = pool._core
        core.run_timers(core.now())
        if core.jobs_to_begin:
            return True
        return core.next_timer() < math.inf and not self._is_any_waiting(process)

    def _is_missed(self, process: _ProcessThreads) -> bool:
        # Whether a timed action is ahead, and there is no worker, because no thread can be started. Waiting acquires do
        # not do it: they began to wait while there was a worker.
        pool = self._pool()
        if pool is None or self._are_to_end(process):
            return False
        return pool._core.next_timer() < math.inf and not any(map(process.counts, process.threads()))

    def _are_to_end(self, process: _ProcessThreads) -> bool:
        return self._stopped or process.told_to_end or self._pool() is None or process is not self._per_process.find()

    def _leave(self, process: _ProcessThreads, thread: threading.Thread) -> None:
        process.forget(thread)
        make_this_thread_known()
        if self._are_to_end(process):
            # The other workers must end, too.
            process.wake_one()
        pool = self._pool()
        if pool is not None:
            # Until now this worker counted: with max_workers of them, a call starts no other one. Or it dies of an
            # exception that was raised in it from outside, after a caller saw it looking.
            try:
                pool._begin_jobs()
            except BaseException:
                logger.last_resort('the work for %r continues after an error', pool)

    def _wake(self) -> None:
        # The pool was freed, or closed. One worker wakes, and wakes the next one when it ends.
        process = self._per_process.find()
        if process is not None:
            process.wake_one()

    def stop(self) -> list[threading.Thread]:
        """End the workers as soon as there is no job.

        :return: the threads that are alive, except the caller: a dispose that closes the pool does not wait for itself
        """
        self._stopped = True
        self._wake()
        this = threading.current_thread()
        return [thread for thread in self._threads() if thread is not this and thread.is_alive()]

    def _threads(self) -> list[threading.Thread]:
        process = self._per_process.find()
        return [] if process is None else process.threads()

    def dismiss(self, thread: threading.Thread) -> bool:
        """The process is about to fork: end the waiting workers. False if this thread is not one of them."""
        process = self._per_process.find()
        if process is None or thread not in process.threads():
            return False
        process.told_to_end = True
        process.wake_one()
        return True

    def recall(self) -> None:
        """The process has forked, and this is the parent: workers may wait again."""
        process = self._per_process.find()
        if process is not None:
            process.told_to_end = False
        pool = self._pool()
        if pool is not None and pool._core.next_timer() < math.inf:
            # One of the workers that ended was kept idle.
            self.keep_one_for_timers()
