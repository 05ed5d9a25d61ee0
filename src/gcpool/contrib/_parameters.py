"""Checks of parameters that several managers have: all of them reject an invalid value with the same message."""

import threading
from collections.abc import Collection, Mapping
from typing import Any, Literal, TypeAlias, TypeVar

from gcpool._parameters import check_optional_seconds

__all__ = [
    'LONGEST',
    'Reset',
    'bounded_seconds',
    'check_codes',
    'finite_time_limit',
    'positive_time_limit',
    'resets_all',
    'some_seconds',
    'time_limit',
]

#: What a manager undoes when a connection is returned.
Reset: TypeAlias = Literal['rollback', 'full']

#: Maximum number of seconds that threads, sockets and event loops can wait.
LONGEST = threading.TIMEOUT_MAX

CodeT = TypeVar('CodeT', str, int)


def resets_all(value: object) -> bool:
    """Check the parameter ``reset``, and return whether it is ``'full'``.

    :raise ValueError: it is neither ``'rollback'`` nor ``'full'``
    """
    if value == 'full':
        return True
    if value == 'rollback':
        return False
    raise ValueError(f"reset={value!r}: expected 'rollback' or 'full'")


def check_codes(value: Collection[CodeT], kind: type[CodeT]) -> frozenset[CodeT]:
    """Check the parameter ``broken_codes``.

    :param value: error codes
    :param kind: what a code is
    :raise TypeError: it is not a collection of codes: a single string, a mapping, or an element that is not a code
    """
    given: Any = value
    if isinstance(given, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(given, Collection):
        raise TypeError(f'broken_codes={given!r}: expected a collection of error codes')
    for code in given:
        if not isinstance(code, kind) or isinstance(code, bool):
            raise TypeError(f'broken_codes has {code!r}: expected error codes as {kind.__name__}')
    return frozenset(value)


def time_limit(name: str, value: object) -> float | None:
    """Check a time limit.

    :param name: the name of the parameter
    :param value: seconds, None or infinity for no limit
    :return: seconds; None also for more than threads can wait
    :raise TypeError: it is not a number
    :raise ValueError: it is less than 0, or NaN
    """
    seconds = check_optional_seconds(name, value)
    return None if seconds is None or seconds > LONGEST else seconds


def positive_time_limit(name: str, value: object) -> float | None:
    """Check a time limit that cannot be 0, which would make a socket non-blocking.

    :raise ValueError: it is 0 or less, or NaN
    """
    seconds = time_limit(name, value)
    if seconds == 0:
        raise ValueError(f'{name}={value!r}: expected seconds, more than 0, or None for no limit')
    return seconds


def finite_time_limit(name: str, value: object) -> float:
    """Check a time limit for a driver that does not accept None: the longest possible wait stands for no limit."""
    seconds = time_limit(name, value)
    return LONGEST if seconds is None else seconds


def some_seconds(name: str, value: object) -> float:
    """Check a time that cannot be None.

    :param name: the name of the parameter
    :param value: seconds
    :raise TypeError: it is not a number
    :raise ValueError: it is less than 0, or NaN
    """
    seconds = check_optional_seconds(name, value)
    if seconds is None:
        raise TypeError(f'{name}=None: expected seconds as a float')
    return seconds


def bounded_seconds(name: str, value: object) -> float:
    """Check a time that must be finite.

    :raise ValueError: it is less than 0, more than threads can wait, or NaN
    """
    seconds = some_seconds(name, value)
    if seconds > LONGEST:
        raise ValueError(f'{name}={value!r}: expected seconds, fewer than a thread can wait')
    return seconds
