"""The state that a pool has once per process: a forked child starts with a new one."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ['PerProcess']

ObjectT = TypeVar('ObjectT')


class PerProcess(Generic[ObjectT]):
    """One object per process, which is made at its first use.

    Also after a fork that bypasses Python. A child must not touch the parent's object: to set the wakeup there,
    for example, would hand its lock over to a thread that does not exist in the child.

    :param make: makes the object
    """

    _getpid = staticmethod(os.getpid)

    def __init__(self, make: Callable[[], ObjectT]):
        self._make = make
        # A dict, because its setdefault() is atomic: two threads of a child must not make two objects.
        self._by_pid: dict[int, ObjectT] = {}

    def get(self) -> ObjectT:
        """The object of this process."""
        found = self.find()
        if found is None:
            pid = self._getpid()
            found = self._by_pid.setdefault(pid, self._make())
            for other in list(self._by_pid):
                if other != pid:
                    self._by_pid.pop(other, None)
        return found

    def find(self) -> ObjectT | None:
        """The same; None if it was not made yet. Uses nothing global, so it works while modules are torn down."""
        return self._by_pid.get(self._getpid())
