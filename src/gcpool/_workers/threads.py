"""The common part of the collector's thread and the closing threads."""

import _thread
import sys
import threading

from gcpool._core import logger

__all__ = ['StartWarning', 'Wakeup', 'make_this_thread_known', 'start_thread']


def start_thread(thread: threading.Thread) -> None:
    """Start a thread, and wait until it runs; a signal handler that raises meanwhile leaves no lock of threading taken.

    Signal handlers run in the main thread, from CPython 3.14 on also between the entry into a ``with`` and its block.
    ``Thread.start()`` enters a lock that each thread needs at its beginning and at its end: if a handler raises at that
    moment, no thread can begin any more. So the main thread has another thread call ``start()``.

    :raise RuntimeError: the thread cannot be started
    :raise MemoryError: likewise
    """
    if sys.version_info >= (3, 14) and threading.current_thread() is threading.main_thread():
        failures: list[BaseException] = []

        def start() -> None:
            try:
                thread.start()
            except BaseException as exc:
                # To be raised in the thread that waits.
                failures.append(exc)

        # This thread has ended when it is joined: Python warns about a fork while other threads run.
        _thread.start_joinable_thread(start, daemon=True).join()
        if failures:
            raise failures.pop()
    else:
        thread.start()


class Wakeup:
    """Wakes one thread that waits, or the next one that waits: a lock, which is held while there is nothing new.

    Unlike an Event, it can be set anywhere, also by a weak reference's callback while it is being set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake a thread."""
        # Uses nothing global, because the last pools are freed while the modules are being torn down.
        try:
            self._lock.release()
        except RuntimeError:
            # It was already set, and no thread has seen that yet.
            return

    def wait(self, timeout: float | None) -> bool:
        """Wait until it is set, for at most this many seconds.

        :return: whether it was set; this resets it
        """
        return self._lock.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))


class StartWarning:
    """Warns that no thread can be started: once, and then not again until one could be.

    :param text: the warning, with placeholders for the thread's name and the error
    """

    def __init__(self, text: str, name: str):
        self._text = text
        self._name = name
        self._warned = False

    def covers(self, exc: BaseException) -> bool:
        """Warn if an exception means that no thread can be started; return False if it must be raised.

        There are too many threads, or the interpreter ends. That must not make a release or an acquire fail.
        """
        if not isinstance(exc, (RuntimeError, MemoryError)):
            return False
        if not self._warned:
            logger.warning(self._text, self._name, exc)
        self._warned = True
        return True

    def withdraw(self) -> None:
        """A thread was started."""
        self._warned = False


def make_this_thread_known() -> None:
    """To be called by a thread at its end.

    gevent's threads outlive a fork, but threading then forgets them, and an unknown thread cannot end in order. Asking
    for the current thread makes it known.
    """
    threading.current_thread()
