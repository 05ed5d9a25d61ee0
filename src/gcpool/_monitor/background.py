"""A daemon thread for watching, which does not disturb a fork."""

import contextlib
import threading
from collections.abc import Callable

from gcpool._core import logger
from gcpool._signal_handlers import is_of_signal_handler
from gcpool._workers import before_fork
from gcpool._workers.threads import make_this_thread_known, start_thread

__all__ = ['Background', 'is_for_program']

# Seconds that the thread may take to end.
END_TIME = 5.0


def is_for_program(exc: BaseException) -> bool:
    """Return whether an exception that is being handled is meant for the program, and not a callback's failure.

    Ctrl-C and signal handlers raise only in the main thread. In a thread of the library, even a KeyboardInterrupt comes
    from a callback. gevent's threads run in the main thread of the system.
    """
    if isinstance(exc, (Exception, SystemExit)):
        return is_of_signal_handler(exc)
    return threading.get_native_id() == threading.main_thread().native_id


class _Run:
    """One thread. It knows its own Thread object: under gevent current_thread() may return another one."""

    def __init__(self, target: 'Callable[[_Run], None]', name: str):
        self.thread = threading.Thread(target=target, args=(self,), name=name, daemon=True)


class Background:
    """A daemon thread that waits and works in turn, until it is ended.

    Python warns about a fork while other threads run, so the thread ends before a fork, as the pools' idle threads do,
    and starts again in the parent. A forked child has none.

    :param name: the name of the thread
    :param wait: waits until there is work, or until it is woken
    :param wake: wakes the thread, or makes its next ``wait`` return at once
    :param work: called after each wait that was not the last one
    """

    def __init__(
        self,
        name: str,
        *,
        wait: Callable[[], object],
        wake: Callable[[], object],
        work: Callable[[], object],
    ):
        self._name = name
        self._wait = wait
        self._wake = wake
        self._work = work
        self._run: _Run | None = None
        self._ended = False

    def start(self) -> None:
        """Start the thread.

        :raises RuntimeError: when no thread can be started
        """
        self._run = run = _Run(self._go, self._name)
        start_thread(run.thread)

    def end(self) -> None:
        """End the thread, and wait for its end, unless it is the caller."""
        self._ended = True
        run, self._run = self._run, None
        self._wake()
        if run is not None and run.thread is not threading.current_thread():
            run.thread.join(END_TIME)

    def forget(self) -> None:
        """In a forked child: the thread exists only in the parent."""
        self._ended = True
        self._run = None

    def _go(self, run: _Run) -> None:
        try:
            while self._run is run:
                before_fork.idle_threads[run.thread] = self
                try:
                    self._wait()
                finally:
                    before_fork.idle_threads.pop(run.thread, None)
                if self._run is run:
                    self._work_on()
        finally:
            make_this_thread_known()

    def _work_on(self) -> None:
        try:
            self._work()
        except BaseException as exc:
            if is_for_program(exc):
                raise
            # A handler of the log may have raised it, and may do so again.
            with contextlib.suppress(BaseException):
                logger.last_resort('thread %s failed, and continues: %s', self._name, type(exc).__name__)

    def dismiss(self, thread: threading.Thread) -> bool:
        """The process is about to fork: end the idle thread. False if this is not that thread."""
        run = self._run
        if run is None or run.thread is not thread:
            return False
        self._run = None
        self._wake()
        return True

    def recall(self) -> None:
        """The process has forked, and this is the parent: start the thread again."""
        if not self._ended and self._run is None:
            try:
                self.start()
            except (RuntimeError, MemoryError) as exc:
                self._run = None
                logger.warning('thread %s cannot be started again after a fork: %s', self._name, exc)
