"""An event that happens once, and that signal handlers cannot spoil."""

from collections.abc import Callable
from typing import final

from gcpool._workers.threads import Wakeup

__all__ = ['Latch']


@final
class Latch:
    """An event that happens once, in one thread, and that others wait for.

    An Event or a Future has a lock that all its threads enter. If a signal handler raises in the main thread just then,
    that lock stays taken, and the thread that would set the event waits for ever. Here each waiting thread has its own
    lock.

    No wait is overlooked: a waiting thread first adds its call and then checks whether the event has happened, and
    set() does it the other way round. append(), remove() and list() of a list are atomic, even without the GIL.
    """

    def __init__(self) -> None:
        #: Whether the event has happened.
        self.is_set = False
        self._calls: list[Callable[[], object]] = []

    def set(self) -> None:
        """The event has happened. May be called more than once."""
        self.is_set = True
        for call in list(self._calls):
            call()

    def wait(self, timeout: float | None) -> bool:
        """Wait until the event has happened, for at most this many seconds, and return whether it has."""
        wakeup = Wakeup()
        self.add(wakeup.set)
        try:
            return self.is_set or wakeup.wait(timeout)
        finally:
            self.remove(wakeup.set)

    def add(self, call: Callable[[], object]) -> None:
        """Have the thread that sets the event call something. If ``is_set`` is true afterwards, that may not happen.

        :param call: must be harmless if it is called more than once, or after it was removed
        """
        self._calls.append(call)

    def remove(self, call: Callable[[], object]) -> None:
        """Undo :py:meth:`add`."""
        self._calls.remove(call)
