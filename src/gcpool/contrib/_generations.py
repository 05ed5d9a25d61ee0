"""Which connections were made before an error that makes all older ones useless, and what managers take for that."""

import itertools
import time
from collections.abc import Callable, Collection, Hashable
from typing import Any, Literal, TypeAlias, TypeVar

__all__ = ['RETIRE_INTERVAL', 'Generations', 'Reset', 'check_codes', 'check_reset']

#: What a manager undoes when a connection is returned.
Reset: TypeAlias = Literal['rollback', 'full']

CodeT = TypeVar('CodeT', str, int)

#: Seconds after which the connections of an endpoint may be retired again. Without this limit a program that writes to
#: a server which is read-only on purpose would have all connections replaced at each such error.
RETIRE_INTERVAL = 5.0


class Generations:
    """Numbers connections, and knows for each endpoint up to which number they are retired.

    Example: 10 connections lead to a server that has become read-only. The first write that fails retires numbers 1 to
    10: each is replaced (or refreshed) when it would be served next. Number 11, made after that error, is trusted.

    :param interval: seconds after which an endpoint's connections may be retired again
    :param clock: gives monotonic seconds
    """

    def __init__(self, interval: float = RETIRE_INTERVAL, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._numbers = itertools.count(1)
        #: Whether any connection was ever retired: as long as none was, nothing has to be asked.
        self.active = False
        # By endpoint: the number up to which connections are retired, and when that was decided.
        self._retired: dict[Hashable, tuple[int, float]] = {}

    def number(self) -> int:
        """Give the number of a connection. Ask when its create begins: it may reach the server before the error."""
        return next(self._numbers)

    def retire(self, endpoint: Hashable) -> None:
        """Retire all connections of an endpoint that have a number, unless that was done a moment ago."""
        now = self._clock()
        last = self._retired.get(endpoint)
        if last is None or now - last[1] >= self._interval:
            self._retired[endpoint] = (self.number(), now)
            self.active = True

    def is_retired(self, endpoint: Hashable, number: int | None) -> bool:
        """Tell whether a connection is retired; one without a number never is.

        :param endpoint: where it leads
        :param number: what :py:meth:`number` gave when it was created
        """
        last = self._retired.get(endpoint)
        return last is not None and number is not None and number < last[0]


def check_reset(value: Any) -> Reset:
    """Check a manager's parameter ``reset``.

    :raise ValueError: it is neither 'rollback' nor 'full'
    """
    if value == 'rollback' or value == 'full':
        return value  # type: ignore[no-any-return]
    raise ValueError(f"reset={value!r}: expected 'rollback' or 'full'")


def check_codes(value: Collection[CodeT], kind: type[CodeT]) -> frozenset[CodeT]:
    """Check a manager's parameter ``broken_codes``.

    :param value: error codes
    :param kind: what a code is
    :raise TypeError: it is no collection, a single string, or one of them is no code
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Collection):
        raise TypeError(f'broken_codes={value!r}: expected a collection of error codes')
    for code in value:
        if not isinstance(code, kind) or isinstance(code, bool):
            raise TypeError(f'broken_codes has {code!r}: expected error codes as {kind.__name__}')
    return frozenset(value)
