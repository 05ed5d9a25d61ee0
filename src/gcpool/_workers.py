"""The workers of a pool: the collector of either runtime, and the threads that close connections for acquires."""

import math
import os
import sys
import threading
import time
import weakref
from contextvars import Context
from typing import TYPE_CHECKING, Any, cast

from ._core import logger

if TYPE_CHECKING:
    import asyncio

__all__ = ['PARALLEL_DISPOSALS', 'AsyncSecondLook', 'AsyncWorker', 'SyncClosers', 'SyncWorker']

# How many connections of a pool are closed at the same time, at most. One at a time would not do: its close may hang.
PARALLEL_DISPOSALS = 64

# Seconds that a closing thread waits for the next connection before it ends.
LINGER = 1.0

# Seconds that idle threads get to end before the process forks.
FORK_PATIENCE = 0.1

# Seconds after which the collector of an asyncio pool goes on if its task was cancelled.
COLLECTOR_PAUSE = 0.1


def is_to_ring(timer: 'asyncio.TimerHandle | None', rings_at: float, loop: 'asyncio.AbstractEventLoop') -> bool:
    """Whether a timer will ring. If it is still there long after its time, a signal handler raised when it rang.

    The timer is not asked for its time: uvloop's timers with a delay of less than a millisecond do not know it.
    """
    return timer is not None and rings_at > loop.time() - COLLECTOR_PAUSE


class AsyncWorker:
    """Runs a pool's ``_collect`` when something is due: a timer of the loop while there is nothing to do.

    It holds no strong reference to the pool, and no task waits. So a forgotten pool can be collected, and a loop that
    waits for its tasks can end.

    :param pool: the pool; ``await pool._collect()`` returns the seconds until it is to be called again, None for never
    """

    def __init__(self, pool: Any, name: str):
        self._pool = weakref.ref(pool)
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        #: The task that is collecting; None if none is.
        self.task: asyncio.Task[None] | None = None
        self._stopped = False
        self.wakeups = 0

    def start(self) -> None:
        """Do nothing: the first connection that becomes idle wakes the collector."""

    def wake(self) -> None:
        """A connection is due earlier than the collector knows. Called in the loop's thread."""
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        pool = self._pool()
        if pool is None:
            return
        if self.task is not None and not self.task.done() and self.task.get_loop() is pool._bound_loop:
            # When the task is done, it looks what is due next.
            return
        self._work(pool)

    def at_work(self) -> bool:
        """Whether what is due will be closed: always, since this sets the timer if there is neither timer nor task."""
        pool = self._pool()
        loop = None if pool is None else pool._bound_loop
        rings = loop is not None and is_to_ring(self._timer, self._rings_at, loop)
        if not rings and (self.task is None or self.task.done()):
            self.wake()
        return True

    def _work(self, pool: Any, min_delay: float = 0.0) -> None:
        loop = pool._bound_loop
        if loop is None or loop.is_closed():
            # A coroutine that outlived its loop has released a connection.
            return
        if pool._runs_in_other_thread():
            # A coroutine that is finalised in this thread has released a connection.
            loop.call_soon_threadsafe(self.wake)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        delay = pool._due_in()
        if delay is None:
            return
        delay = max(delay, min_delay)
        self._rings_at = loop.time() + delay
        # In an empty context, which the collector's task inherits. Otherwise the context of the task that released the
        # first connection, which may be a request's, would be kept as long as the pool.
        self._timer = loop.call_later(delay, self._ring, context=Context())

    def _ring(self) -> None:
        self._timer = None
        self.wakeups += 1
        pool = self._pool()
        if pool is not None and not self._stopped:
            self.task = task = pool._spawn(pool._bound_loop, pool._collect(), 'gcpool-collector')
            task.add_done_callback(self._ended)

    def _ended(self, task: 'asyncio.Task[Any]') -> None:
        self.task = None
        pool = self._pool()
        if pool is not None and not self._stopped:
            # The task may have been cancelled, even before its first step, as all tasks of a loop that ends. If the
            # loop does not end, the work goes on after a pause.
            self._work(pool, COLLECTOR_PAUSE if task.cancelled() else 0.0)

    def stop(self) -> None:
        """Do not collect any more. Closes that have begun go on."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class AsyncSecondLook:
    """A timer of the loop that calls a pool's ``_look_again`` when a close stops counting for the waiters.

    Otherwise waiters would hang as long as that close, in a pool that nobody calls meanwhile. The timer exists only
    while a close counts. It holds no strong reference to the pool.
    """

    def __init__(self, pool: Any):
        self._pool = weakref.ref(pool)
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = math.inf
        self.wakeups = 0

    def set(self, pool: Any) -> None:
        """Set, move or cancel the timer, because a close has begun or ended."""
        loop = pool._bound_loop
        ended = pool._core.closed or loop is None or loop.is_closed()
        due = math.inf if ended else pool._core.look_again_at()
        is_set = due == math.inf or is_to_ring(self._timer, self._rings_at, pool._bound_loop)
        if due == self._due and loop is self._loop and is_set:
            return
        # Noted first: if a signal handler raises in what follows, the next call sets the timer.
        self._due = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due < math.inf:
            delay = max(due - pool._core.now(), 0.0)
            self._rings_at = pool._bound_loop.time() + delay
            # In an empty context, as the collector's: see AsyncWorker.
            self._timer = pool._bound_loop.call_later(delay, self._ring, context=Context())
        self._loop = loop
        self._due = due

    def _ring(self) -> None:
        self._timer = None
        self._due = math.inf
        self.wakeups += 1
        pool = self._pool()
        if pool is not None:
            pool._look_again()


class _Collector:
    """One collector's thread, and the lock that wakes it.

    The lock serves as an event, and is taken while there is nothing new. Unlike an Event, it can be set anywhere, also
    by a weak reference's callback in the middle of setting it.

    :ivar pid: the process that the thread and the lock belong to
    """

    def __init__(self, pid: int):
        self.pid = pid
        self.news = threading.Lock()
        self.news.acquire()
        self.thread: threading.Thread | None = None

    def is_at_work_in(self, pid: int) -> bool:
        # The process is compared first: if Python was not told of a fork, threading takes the thread to be alive.
        return self.pid == pid and self.thread is not None and self.thread.is_alive()

    def ring_in(self, pid: int) -> None:
        # Uses nothing global, because the last pools are freed while the modules are being taken apart.
        if self.pid != pid:
            # The lock belongs to the process that this one was forked from, where a thread waits for it. If Python was
            # not told of the fork, releasing the lock would hand it over to that thread, which does not exist here.
            return
        try:
            self.news.release()
        except RuntimeError:
            # The event was set already, and the thread has not seen that yet.
            return


class SyncWorker:
    """Runs a pool's ``_collect`` when something is due: a daemon thread that sleeps until then.

    The thread holds no strong reference to the pool while it sleeps, and ends when the pool is gone. A thread that has
    died (somebody raised an exception in it), or has stayed behind in the process that this one was forked from, is
    replaced when it is needed. If no thread can be started, releases do its work until one can be.

    :param pool: the pool; ``pool._collect()`` returns the seconds until it is to be called again, None for never
    """

    _getpid = staticmethod(os.getpid)

    def __init__(self, pool: Any, name: str):
        self._name = name
        self._pool = weakref.ref(pool, lambda _: self._ring_all())
        self._stopped = False
        # Two threads may start a collector at once: the last one in this list stays, and has the others end. append()
        # and remove() of a list are atomic, even without the GIL, and so is list() of a list.
        self._collectors: list[_Collector] = []
        self._complained = False
        self.wakeups = 0

    def start(self) -> None:
        """Start the thread, if one can be started."""
        self._start()

    def wake(self) -> bool:
        """A connection is due earlier than the collector knows. False if there is no thread to collect it."""
        at_work = self.at_work()
        for collector in self._collectors[-1:]:
            collector.ring_in(self._getpid())
        return at_work

    def at_work(self) -> bool:
        """Whether a thread will close what is due. One is started if there is none."""
        return self._stopped or self._lives() or self._start()

    def _lives(self) -> bool:
        return any(collector.is_at_work_in(self._getpid()) for collector in self._collectors[-1:])

    def _start(self) -> bool:
        collector: _Collector | None = None
        try:
            collector = self._add_collector()
            cast('threading.Thread', collector.thread).start()
        except BaseException as exc:
            if collector is not None and not collector.is_at_work_in(self._getpid()):
                self._forget(collector)
            if not isinstance(exc, (RuntimeError, MemoryError)):
                raise
            # There are too many threads, or the interpreter ends. That must not make the calling release fail.
            if not self._complained:
                logger.warning('%s cannot be started, releases do its work until it can: %s', self._name, exc)
            self._complained = True
            return False
        self._complained = False
        return True

    def _add_collector(self) -> _Collector:
        collector = _Collector(self._getpid())
        # The thread is handed its own Thread object, because current_thread() may return another one under gevent's
        # monkey-patching.
        collector.thread = threading.Thread(target=lambda: self._run(collector), name=self._name, daemon=True)
        self._collectors.append(collector)
        return collector

    def _forget(self, collector: _Collector) -> None:
        try:
            self._collectors.remove(collector)
        except ValueError:
            # Another thread has forgotten it.
            return

    def _ring_all(self) -> None:
        pid = self._getpid()
        for collector in list(self._collectors):
            collector.ring_in(pid)

    def _run(self, collector: _Collector) -> None:
        try:
            self._take_over(collector)
            while self._is_needed(collector):
                self._collect_and_sleep(collector)
        finally:
            self._forget(collector)
            # gevent's threads outlive a fork, but threading forgets them then, and a thread that it does not know
            # cannot end in order. This call makes the thread known.
            threading.current_thread()

    def _take_over(self, collector: _Collector) -> None:
        if collector not in self._collectors:
            # A signal handler raised in start(): _start() then forgot this collector, and it runs all the same.
            self._collectors.append(collector)
        for other in list(self._collectors):
            if other.pid != collector.pid:
                self._forget(other)
            elif other is not collector:
                # If this collector is the last in the list, the other one ends. If not, the last one has this one end.
                other.ring_in(collector.pid)

    def _is_needed(self, collector: _Collector) -> bool:
        return not self._stopped and self._collectors[-1:] == [collector] and self._pool() is not None

    def _collect_and_sleep(self, collector: _Collector) -> None:
        pool = self._pool()
        if pool is None:
            return
        try:
            delay = pool._collect()
        except BaseException:
            # A manager's dispose raised what is no Exception. The connection is accounted for; others will be due.
            logger.last_resort('the collector of %r goes on after an error', pool)
            delay = pool._due_in()
        del pool
        thread = cast('threading.Thread', collector.thread)
        _idle_threads[thread] = self
        try:
            if delay is None:
                collector.news.acquire()
            else:
                collector.news.acquire(timeout=min(delay, threading.TIMEOUT_MAX))
        finally:
            _idle_threads.pop(thread, None)
        self.wakeups += 1

    def stop(self) -> list[threading.Thread]:
        """Have the collectors end, each after the close that it has begun, if any.

        :return: the threads that are alive, but for the caller: a dispose that closes the pool does not wait for itself
        """
        self._stopped = True
        self._ring_all()
        this, pid = threading.current_thread(), self._getpid()
        return [
            collector.thread
            for collector in list(self._collectors)
            if collector.thread is not None and collector.thread is not this and collector.is_at_work_in(pid)
        ]

    def dismiss(self, thread: threading.Thread) -> bool:
        """The process is about to fork: have this idle thread end. False if it does not belong to this worker."""
        pid = self._getpid()
        for collector in list(self._collectors):
            if collector.thread is thread and collector.pid == pid:
                self._forget(collector)
                collector.ring_in(pid)
                return True
        return False

    def recall(self) -> None:
        """The process has forked, and this is the parent: start a collector again."""
        if self._pool() is not None:
            self.at_work()


class _Crew:
    """The closers of one process, and the lock that wakes one of them. It is taken while there is nothing new."""

    def __init__(self) -> None:
        # Dicts serve as sets that keep their order: otherwise a simulation could not be repeated. list() of a dict is
        # atomic, even without the GIL; tuple() is not.
        self.threads: dict[threading.Thread, None] = {}
        # The threads that will look for doomed connections: they wait for a call, or have just been started.
        self.free: dict[threading.Thread, None] = {}
        self.news = threading.Lock()
        self.news.acquire()
        # Whether the waiting threads are to end, because the process is about to fork.
        self.dismissed = False

    def ring(self) -> None:
        try:
            self.news.release()
        except RuntimeError:
            # The event was set already, and no thread has seen that yet. The thread that does calls another one if
            # there is more than one connection to close.
            return


class SyncClosers:
    """The threads that close what an acquire, or the collector, has doomed: daemon threads, started when needed.

    A dispose may hang, so one more is started whenever a connection is doomed and no thread is free, up to
    PARALLEL_DISPOSALS. A thread that finds nothing to close waits LINGER seconds for more, and then ends. None of them
    holds a strong reference to the pool while it waits. If a close for waiters may hang, and no waiting acquire looks
    again, one thread is kept free for that: see stand_by().

    No doomed connection is overlooked. A call that dooms one puts it into the core first, and then looks which threads
    are free; a thread leaves the free ones first, and then looks what is doomed. One of the two sees the other.

    :param pool: the pool; ``pool._close_next()`` closes one connection, or returns False if there is none to be closed
    """

    _is_finalizing = staticmethod(sys.is_finalizing)

    def __init__(self, pool: Any, name: str):
        self._pool = weakref.ref(pool)
        self._name = name
        # By fork epoch, of which there is one at a time. A dict, because its setdefault() is atomic: two threads of a
        # child must not make two crews.
        self._crews = {pool._core.fork_epoch: _Crew()}
        self._stopped = False
        self._complained = False

    def call(self) -> bool:
        """A connection is doomed: wake a thread that is free, or start one.

        :return: False if there is none, and none can be started
        """
        # At the end of the interpreter the threads still exist, but will never run again.
        if self._is_finalizing():
            return False
        crew = self._crew_of_this_process()
        for thread in list(crew.free):
            if thread.is_alive():
                crew.ring()
                return True
            # Another call is starting this thread, or the thread has died of an exception that somebody raised in it.
            crew.free.pop(thread, None)
        # If there are as many threads as there may be, each of them looks for more when it is done.
        return self._is_full(crew) or self._start(crew)

    def _is_full(self, crew: _Crew) -> bool:
        if len(crew.threads) < PARALLEL_DISPOSALS:
            return False
        for thread in list(crew.threads):
            if not thread.is_alive():
                # The thread has died, or is being started: then it enlists once more when it runs.
                crew.threads.pop(thread, None)
        return len(crew.threads) >= PARALLEL_DISPOSALS

    def _enlist(self, crew: _Crew, thread: threading.Thread) -> bool:
        """Count a thread among the closers, unless PARALLEL_DISPOSALS threads are counted already.

        Several callers may do this at the same time, each for a thread of its own. Each first adds its thread to the
        crew, whose order is that of arrival, and takes it out again if it is not among the first PARALLEL_DISPOSALS.
        Then it tries again if there is room: a thread before it may have been taken out, too.
        """
        while True:
            crew.threads[thread] = None
            if thread in list(crew.threads)[:PARALLEL_DISPOSALS]:
                return True
            crew.threads.pop(thread, None)
            if self._is_full(crew):
                return False

    def stand_by(self) -> None:
        """Have a thread free that looks again in time: a close for waiters may hang, and no waiting acquire looks."""
        if self._stopped or self._is_finalizing():
            return
        crew = self._crew_of_this_process()
        if not self._is_any_free(crew) and not self._is_full(crew):
            self._start(crew, stands_by=True)

    def _is_any_free(self, crew: _Crew) -> bool:
        return any(thread.is_alive() for thread in list(crew.free))

    def _crew_of_this_process(self) -> _Crew:
        pool = self._pool()
        epoch = max(list(self._crews)) if pool is None else pool._core.fork_epoch
        crew = self._crews.get(epoch)
        if crew is None:
            # The earlier crew's threads have stayed behind in the process that this one was forked from.
            crew = self._crews.setdefault(epoch, _Crew())
            for earlier in list(self._crews):
                if earlier < epoch:
                    self._crews.pop(earlier, None)
        return crew

    def _start(self, crew: _Crew, *, stands_by: bool = False) -> bool:
        # The thread is handed its own Thread object, for the reason that SyncWorker has.
        thread: threading.Thread | None = None
        try:
            thread = threading.Thread(
                target=lambda: self._run(crew, cast('threading.Thread', thread), stands_by),
                name=self._name,
                daemon=True,
            )
            if not self._enlist(crew, thread):
                return True
            crew.free[thread] = None
            thread.start()
        except BaseException as exc:
            if thread is not None and not thread.is_alive():
                crew.threads.pop(thread, None)
                crew.free.pop(thread, None)
            if not isinstance(exc, (RuntimeError, MemoryError)):
                raise
            # There are too many threads, or the interpreter ends. The caller then closes the connection itself.
            if not self._complained:
                logger.warning('%s cannot be started, acquires close connections until it can: %s', self._name, exc)
            self._complained = True
            return False
        self._complained = False
        return True

    def _run(self, crew: _Crew, thread: threading.Thread, stands_by: bool) -> None:
        try:
            crew.free.pop(thread, None)
            # Once more: if a signal handler raised in start(), _start() took the thread out of the crew, and it runs
            # all the same.
            if self._enlist(crew, thread):
                if stands_by:
                    # First waits: otherwise it would close, and maybe hang in, what other threads were called for.
                    self._wait(crew, thread)
                # Looks once more after it has waited in vain: it was free until then, and may have been called at the
                # last moment.
                while self._close_all() or self._wait(crew, thread) or self._close_all() or self._stands_by(crew):
                    pass
        finally:
            crew.free.pop(thread, None)
            crew.threads.pop(thread, None)
            self._leave(crew)

    def _close_all(self) -> bool:
        # Closes until nothing is doomed. Returns whether there was anything to close.
        pool = self._pool()
        found = False
        while pool is not None:
            try:
                if not pool._close_next():
                    break
            except BaseException:
                # A manager's dispose raised what is no Exception. The connection is accounted for; there may be others.
                logger.last_resort('closing connections of %r goes on after an error', pool)
            found = True
        return found

    def _wait(self, crew: _Crew, thread: threading.Thread) -> bool:
        # Waits until the thread is called (True), or for LINGER seconds (False).
        pool = self._pool()
        if pool is None or self._are_to_end(crew) or crew is not self._crew_of_this_process():
            return False
        look_at = pool._core.look_again_at()
        patience = LINGER if look_at == math.inf else max(look_at - pool._core.now(), 0.0)
        crew.free[thread] = None
        _idle_threads[thread] = self
        try:
            # If there are as many threads as there may be, a call that came before this one was free has started no
            # other: so this one looks once more.
            left: bool = self._is_full(crew) and pool._core.left_to_workers > 0
            del pool
            called = crew.news.acquire(timeout=0.0 if left else patience) or left
        finally:
            _idle_threads.pop(thread, None)
            crew.free.pop(thread, None)
        if called and look_at < math.inf:
            # This thread stood by, and the close that it is called for may hang: another thread takes its place.
            try:
                self.stand_by()
            except BaseException:
                logger.last_resort('no thread stands by where a connection of %r is closed', self._pool())
        return called

    def _stands_by(self, crew: _Crew) -> bool:
        # Whether a thread that has waited in vain is to stay: a close for waiters still counts, and no other thread is
        # free to look again. Looks again first, which may doom a connection for this thread.
        pool = self._pool()
        if pool is None or self._are_to_end(crew) or crew is not self._crew_of_this_process():
            return False
        pool._core.look_again(pool._core.now())
        return pool._core.look_again_at() < math.inf and not self._is_any_free(crew)

    def _are_to_end(self, crew: _Crew) -> bool:
        return self._stopped or crew.dismissed or self._pool() is None

    def _leave(self, crew: _Crew) -> None:
        # Makes the thread known to threading, so that it can end in order: see SyncWorker.
        threading.current_thread()
        if crew is self._crew_of_this_process() and self._are_to_end(crew):
            # The other threads are to end, too.
            crew.ring()
        pool = self._pool()
        if pool is not None:
            # Until a moment ago this thread counted: with PARALLEL_DISPOSALS of them, a call starts no other one, and
            # relies on one of them to look for more. Or this thread dies of an exception that somebody raised in it.
            try:
                pool._begin_disposals()
            except BaseException:
                logger.last_resort('closing connections of %r goes on after an error', pool)

    def stop(self) -> list[threading.Thread]:
        """Have the threads end as soon as there is nothing more to close.

        :return: the threads that are alive, but for the caller: a dispose that closes the pool does not wait for itself
        """
        self._stopped = True
        crew = self._crew_of_this_process()
        crew.ring()
        this = threading.current_thread()
        return [thread for thread in list(crew.threads) if thread is not this and thread.is_alive()]

    def dismiss(self, thread: threading.Thread) -> bool:
        """The process is about to fork: have the waiting threads end. False if this one is not one of them."""
        crew = self._crew_of_this_process()
        if thread not in crew.threads:
            return False
        crew.dismissed = True
        crew.ring()
        return True

    def recall(self) -> None:
        """The process has forked, and this is the parent: threads may wait again."""
        self._crew_of_this_process().dismissed = False
        pool = self._pool()
        if pool is not None and pool._core.look_again_at() < math.inf:
            # One of the threads that have ended was kept free to look again.
            self.stand_by()


# -- before a fork ----------------------------------------------------------------------------------------------------

# The threads that wait for work, and the collector or the closers that each belongs to.
_idle_threads: dict[threading.Thread, SyncWorker | SyncClosers] = {}

# The collectors and closers whose threads were dismissed for a fork that has not happened yet.
_dismissed: list[SyncWorker | SyncClosers] = []


def dismiss_idle_threads() -> None:
    """Have the pools' idle threads end before a fork, because Python warns about a fork beside other threads.

    Python calls this whatever locks are held. So it takes none, gives the threads FORK_PATIENCE seconds, and does not
    wait for threads that are at work.
    """
    this = threading.get_native_id()
    ending = []
    for thread in list(_idle_threads):
        workers = _idle_threads.get(thread)
        # gevent's threads run in this very thread of the system, and Python does not count them.
        if workers is not None and thread.native_id != this:
            # Noted first: a signal handler may raise after the call, and what was dismissed has to be recalled.
            _dismissed.append(workers)
            if workers.dismiss(thread):
                ending.append(thread)
    until = time.monotonic() + FORK_PATIENCE
    for thread in ending:
        thread.join(max(until - time.monotonic(), 0.0))


def recall_dismissed() -> None:
    """Start collectors again, in the parent of a fork, or after a fork that has failed."""
    try:
        while _dismissed:
            _dismissed.pop().recall()
    finally:
        # A signal handler has raised in one of the calls.
        if _dismissed:
            recall_dismissed()


def forget_idle_threads() -> None:
    """Forget the threads in the child of a fork: they have stayed behind in the parent."""
    _dismissed.clear()
    _idle_threads.clear()


if hasattr(os, 'register_at_fork') and hasattr(threading, 'get_native_id'):
    os.register_at_fork(
        before=dismiss_idle_threads, after_in_parent=recall_dismissed, after_in_child=forget_idle_threads
    )
