"""Which connections were made before an error that speaks of their server, and are not trusted any more."""

import time
from collections.abc import Callable, Hashable
from typing import final

__all__ = ['RETIRE_INTERVAL', 'Generations']

#: Seconds after which the connections to an endpoint may be retired again. Without this limit a program that writes to
#: a server which is read-only on purpose would have all connections replaced at each such error.
RETIRE_INTERVAL = 5.0

# The generation of an endpoint without such an error, and when it began.
_FIRST = (0, float('-inf'))


@final
class Generations:
    """Tells which connections to an endpoint were begun before an error that makes all older ones useless.

    Example: 10 connections lead to a server that has become read-only; they are of generation 0. The first write that
    fails retires that generation: each of the 10 is replaced (or refreshed) when it would be served next, and says
    nothing more about the server meanwhile. A connection whose create begins after that error is of generation 1.

    There is no lock, which a fork could leave locked: of an endpoint one value is read, and another one put in its
    place. Threads that retire the same generation at once write the same.

    :param interval: seconds after which the connections to an endpoint may be retired again
    :param clock: gives monotonic seconds
    """

    def __init__(self, interval: float = RETIRE_INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        #: Whether any connection was ever retired: as long as none was, there is nothing to ask.
        self.any_retired = False
        # By endpoint, only of those that had such an error: the generation of new connections, and when it began.
        self._latest: dict[Hashable, tuple[int, float]] = {}

    def latest(self, endpoint: Hashable) -> int:
        """Give the generation of new connections. Ask when create begins: it may reach the server before the error."""
        return self._latest.get(endpoint, _FIRST)[0]

    def retire(self, endpoint: Hashable, generation: int | None) -> None:
        """Retire all connections to an endpoint that there are, on the word of one of them.

        Does nothing if that connection is retired already, or others were less than ``interval`` seconds ago.

        :param endpoint: where they lead
        :param generation: of the connection that had the error; None if the manager's ``create`` has not made it
        """
        latest, began = self._latest.get(endpoint, _FIRST)
        now = self._clock()
        if generation in (None, latest) and now - began >= self._interval:
            self._latest[endpoint] = (latest + 1, now)
            self.any_retired = True

    def is_retired(self, endpoint: Hashable, generation: int | None) -> bool:
        """Tell whether a connection is retired.

        :param endpoint: where it leads
        :param generation: its own; None if the manager's ``create`` has not made it: such a connection is never retired
        """
        return generation is not None and generation != self.latest(endpoint)
