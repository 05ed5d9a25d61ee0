"""The limits of a pool: how many connections and workers it may have, and how many acquires may wait.

They are checked together, also by resize().

A limit that is not given adapts to those that are.
"""

import operator
from typing import Any, Final

from ._core import checked_seconds

__all__ = [
    'DEFAULT_IDLE_TIMEOUT',
    'DEFAULT_MAX_SIZE',
    'DEFAULT_MIN_IDLE',
    'DEFAULT_TOTAL_MAX_SIZE',
    'Limits',
    'check_count',
    'check_kept',
    'check_times',
]

MAX_SIZE = 2**31 - 1


class Default(int):
    """The value of a limit that was not given."""


class DefaultSeconds(float):
    """The value of a time that was not given."""


DEFAULT_MIN_IDLE: Final = Default(1)
DEFAULT_MAX_SIZE: Final = Default(10)
DEFAULT_TOTAL_MAX_SIZE: Final = Default(100)
DEFAULT_IDLE_TIMEOUT: Final = DefaultSeconds(60.0)


def check_count(name: str, value: Any, minimum: int, what: str = 'connections') -> int:
    """Check a number of connections, or of something else."""
    if isinstance(value, bool):
        raise TypeError(f'{name}={value!r}: expected a number of {what} as an int, got bool')
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(
            f'{name}={value!r}: expected a number of {what} as an int, got {type(value).__name__}'
        ) from None
    if not minimum <= count <= MAX_SIZE:
        raise ValueError(f'{name}={value!r}: expected {minimum} or more, and at most {MAX_SIZE}')
    return count


def check_times(idle_timeout: float, max_lifetime: float) -> tuple[float, float]:
    """Check how long connections live. If idle_timeout is not given, it is at most max_lifetime."""
    given = not isinstance(idle_timeout, DefaultSeconds)
    idle_timeout = float(checked_seconds('idle_timeout', idle_timeout))
    max_lifetime = float(checked_seconds('max_lifetime', max_lifetime))
    if not given:
        idle_timeout = min(idle_timeout, max_lifetime)
    if idle_timeout > max_lifetime:
        raise ValueError(
            f'idle_timeout={idle_timeout} is greater than max_lifetime={max_lifetime}: expected at most that'
        )
    return idle_timeout, max_lifetime


def check_kept(name: str, count: int, max_lifetime: float) -> None:
    """Refuse a minimum of connections that are closed as soon as they are created.

    The pool would replace each at once, for ever: 250,000 connects a second.
    """
    if count and not max_lifetime:
        raise ValueError(f'{name}={count} with max_lifetime={max_lifetime}: expected a max_lifetime greater than 0')


def _must_not_exceed(name: str, value: int, other_name: str, other: int) -> None:
    if value > other:
        raise ValueError(f'{name}={value} is greater than {other_name}={other}: expected at most that')


class Limits:
    """The limits of a pool. Never changes: :py:meth:`changed` makes new ones.

    :param min_idle: how many idle connections of an endpoint are core; if not given, at most ``max_size``
    :param max_size: maximum number of connections to an endpoint; if not given, at least ``min_idle`` and ``min_size``,
        and at most ``total_max_size``
    :param total_max_size: maximum number of connections; if not given, at least ``max_size``
    :param min_size: number of connections that are kept for each live endpoint; at most ``max_size``
    :param max_waiting: maximum number of acquires that wait at an endpoint; 0 for no limit
    :param max_workers: maximum number of jobs that workers do at the same time; 0 for no limit
    :raises TypeError: when one is not an int; the message names it
    :raises ValueError: when one is out of range, or two that are given contradict each other
    """

    __slots__ = ('_given', 'max_size', 'max_waiting', 'max_workers', 'min_idle', 'min_size', 'total_max_size')

    def __init__(
        self,
        *,
        min_idle: int = DEFAULT_MIN_IDLE,
        max_size: int = DEFAULT_MAX_SIZE,
        total_max_size: int = DEFAULT_TOTAL_MAX_SIZE,
        min_size: int = 0,
        max_waiting: int = 0,
        max_workers: int = 0,
    ):
        self.min_idle = check_count('min_idle', min_idle, 0)
        self.max_size = check_count('max_size', max_size, 1)
        self.total_max_size = check_count('total_max_size', total_max_size, 1)
        self.min_size = check_count('min_size', min_size, 0)
        self.max_waiting = check_count('max_waiting', max_waiting, 0, 'acquires')
        self.max_workers = check_count('max_workers', max_workers, 0, 'workers')
        values = {'min_idle': min_idle, 'max_size': max_size, 'total_max_size': total_max_size}
        self._given = {name for name, value in values.items() if not isinstance(value, Default)}
        self._given |= {'min_size', 'max_waiting', 'max_workers'}
        self._adapt()

    def _adapt(self) -> None:
        if 'max_size' not in self._given:
            if 'min_idle' in self._given:
                self.max_size = max(self.max_size, self.min_idle)
            self.max_size = max(self.max_size, self.min_size)
            if 'total_max_size' in self._given:
                self.max_size = min(self.max_size, self.total_max_size)
        if 'min_idle' not in self._given:
            self.min_idle = min(self.min_idle, self.max_size)
        if 'total_max_size' not in self._given:
            self.total_max_size = max(self.total_max_size, self.max_size)
        # A max_size that was not given is less than a minimum only because of total_max_size, which the message then
        # names.
        largest = 'max_size' if 'max_size' in self._given else 'total_max_size'
        _must_not_exceed('min_idle', self.min_idle, largest, self.max_size)
        _must_not_exceed('min_size', self.min_size, largest, self.max_size)
        _must_not_exceed('max_size', self.max_size, 'total_max_size', self.total_max_size)

    def changed(self, **changes: int | None) -> 'Limits':
        """Return the limits of a pool that was built with these changes.

        :param changes: by the names of the parameters; None leaves one as it is
        """
        given = {name: value for name, value in self.as_dict().items() if name in self._given}
        return Limits(**{**given, **{name: value for name, value in changes.items() if value is not None}})

    def as_dict(self) -> dict[str, int]:
        """Return the limits by their names."""
        return {name: getattr(self, name) for name in self.__slots__ if name != '_given'}
