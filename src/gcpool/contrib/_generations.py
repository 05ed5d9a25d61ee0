"""Which connections were created before an error that discredits all connections to their server."""

import time
from collections.abc import Callable, Hashable
from typing import final

__all__ = ['RETIRE_INTERVAL', 'Generations']

#: Seconds after which the connections to an endpoint may be retired again. Without this limit, a program that writes to
#: a server that is read-only on purpose would replace all connections at each such error.
RETIRE_INTERVAL = 5.0

# The generation of an endpoint without such an error, and when it began.
_FIRST = (0, float('-inf'))


@final
class Generations:
    """Tells which connections to an endpoint were begun before an error that makes all older ones useless.

    Example: 10 connections lead to a server that has become read-only; they are of generation 0. The first write that
    fails retires that generation: each of the 10 connections is replaced (or refreshed) before it is served next, and
    its own errors retire nothing more. A connection whose create begins after that error is of generation 1.

    There is no lock, because a fork could leave it locked: one value per endpoint is read, and another one is put in
    its place. Threads that retire the same generation at the same time write the same value.

    :param interval: seconds after which the connections to an endpoint may be retired again
    :param clock: returns monotonic seconds
    """

    def __init__(self, interval: float = RETIRE_INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        #: Whether any connection was ever retired. Until then nothing has to be looked up.
        self.any_retired = False
        # Per endpoint, only for those that had such an error: the generation of new connections, and when it began.
        self._latest: dict[Hashable, tuple[int, float]] = {}

    def latest(self, endpoint: Hashable) -> int:
        """Return the generation of new connections. Call it at the beginning of create, which may precede the error."""
        return self._latest.get(endpoint, _FIRST)[0]

    def retire(self, endpoint: Hashable, generation: int | None) -> None:
        """Retire all existing connections to an endpoint, because of an error of one of them.

        Does nothing if that connection is retired already, or if the endpoint's connections were retired less than
        ``interval`` seconds ago.

        :param endpoint: the endpoint of the connections
        :param generation: of the connection that had the error; None if the manager's ``create`` did not create it
        """
        latest, began = self._latest.get(endpoint, _FIRST)
        now = self._clock()
        if generation in (None, latest) and now - began >= self._interval:
            self._latest[endpoint] = (latest + 1, now)
            self.any_retired = True

    def is_retired(self, endpoint: Hashable, generation: int | None) -> bool:
        """Return whether a connection is retired.

        :param endpoint: the endpoint of the connection
        :param generation: its generation; None if the manager's ``create`` did not create it: such a connection is
            never retired
        """
        return generation is not None and generation != self.latest(endpoint)
