"""How the options of the pools for SQLAlchemy are checked: with its error types, and messages that say what to do."""

import difflib
import inspect
import math
from collections.abc import Iterable
from typing import NoReturn

from sqlalchemy import exc
from sqlalchemy.pool import Pool

__all__ = ['check_count', 'check_flag', 'check_timeout', 'refuse_unknown']

# What SQLAlchemy's own pools take besides.
BASE_OPTIONS = frozenset(inspect.signature(Pool.__init__).parameters) - {'self', 'creator'}
OWN_OPTIONS = ('pool_size', 'max_overflow', 'timeout', 'use_lifo', 'keep_idle')

# What to use instead of parameters named as in gcpool, and in other pools.
MEANT = {
    'acquire_timeout': 'timeout',
    'idle_timeout': 'recycle, which closes a connection this many seconds after it was made',
    'max_lifetime': 'recycle',
    'max_size': 'pool_size and max_overflow, whose sum is the limit',
    'maxsize': 'pool_size and max_overflow, whose sum is the limit',
    'min_size': 'pool_size, the number of connections that are kept',
    'minsize': 'pool_size, the number of connections that are kept',
    'order': 'use_lifo',
    'size': 'pool_size',
    'total_max_size': 'pool_size and max_overflow, whose sum is the limit',
}


def check_count(name: str, value: object, least: int, meaning: str) -> int:
    """Check a number of connections.

    :param name: the option
    :param value: what was given
    :param least: the smallest valid value
    :param meaning: what that value means
    :raises TypeError: when it is not an int
    :raises sqlalchemy.exc.ArgumentError: when it is less
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name}={value!r}: expected a number of connections as an int, got {type(value).__name__}')
    if value < least:
        raise exc.ArgumentError(f'{name}={value!r}: expected a number of connections, or {least} for {meaning}')
    return value


def check_timeout(value: object) -> float | None:
    """Check the time limit for waiting, None for no limit.

    :raises TypeError: when it is not a number
    :raises ValueError: when it is negative or NaN
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'timeout={value!r}: expected seconds as a number, or None for no limit')
    if math.isnan(value) or value < 0:
        raise ValueError(f'timeout={value!r}: expected seconds, at least 0, or None for no limit')
    return value


def check_flag(name: str, value: object) -> bool:
    """Check an option that is on or off.

    :raises TypeError: when it is not a bool
    """
    if not isinstance(value, bool):
        raise TypeError(f'{name}={value!r}: expected True or False, got {type(value).__name__}')
    return value


def refuse_unknown(pool: str, options: Iterable[str]) -> None:
    """Refuse options that SQLAlchemy's pools do not have either.

    :param pool: the name of the class
    :raises TypeError: when there is one, as any function does
    """
    for name in options:
        if name not in BASE_OPTIONS:
            _refuse(pool, name)


def _refuse(pool: str, name: str) -> NoReturn:
    known = sorted({*OWN_OPTIONS, *(option for option in BASE_OPTIONS if not option.startswith('_'))})
    meant = MEANT.get(name)
    if name.startswith('pool_') and name[5:] in known:
        meant = f'{name[5:]}, which create_engine() calls {name}'
    elif meant is None:
        meant = next(iter(difflib.get_close_matches(name, known, 1)), None)
    if meant is None:
        meant = f'one of {", ".join(known)}'
    raise TypeError(f'{pool}() got an unexpected keyword argument {name!r}: expected {meant}')
