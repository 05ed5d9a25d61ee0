"""Answers a parameter that a pool does not have with the name of the one that was meant."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from ._hook_names import HOOKS

__all__ = ['naming_parameters']

FunctionT = TypeVar('FunctionT', bound=Callable[..., Any])

# What other pools call their parameters, in lower case and without underscores; and what does the same here.
_MAX_SIZE = 'max_size, or total_max_size for all endpoints together'
_NAMES_ELSEWHERE = {
    # psycopg2, DBUtils
    'minconn': 'min_size',
    'maxconn': _MAX_SIZE,
    'maxconnections': _MAX_SIZE,
    'mincached': 'min_idle',
    'maxcached': 'min_idle and idle_timeout',
    'maxusage': 'max_uses',
    # psycopg_pool, asyncpg, aiomysql, aiopg
    'maxidle': 'idle_timeout',
    'numworkers': 'max_workers',
    'timeout': 'acquire_timeout',
    'check': 'check_aliveness of the connection manager',
    'configure': 'create of the connection manager',
    'reset': 'on_release of the connection manager',
    'init': 'create of the connection manager',
    'setup': 'on_acquire of the connection manager',
    'maxqueries': 'max_uses',
    'maxinactiveconnectionlifetime': 'idle_timeout',
    # SQLAlchemy
    'poolsize': _MAX_SIZE,
    'maxoverflow': 'max_size for the most connections, and min_idle for those that are kept',
    'pooltimeout': 'acquire_timeout',
    'poolrecycle': 'max_lifetime',
    'poolpreping': 'check_interval, 0 for a check before each use',
    'preping': 'check_interval, 0 for a check before each use',
    'recycle': 'max_lifetime',
    # HikariCP, pgxpool, database/sql
    'minimumidle': 'min_size',
    'maximumpoolsize': _MAX_SIZE,
    'connectiontimeout': 'acquire_timeout, in seconds',
    'validationtimeout': 'check_timeout, in seconds',
    'keepalivetime': 'keepalive_interval, in seconds',
    'leakdetectionthreshold': 'leak_threshold, in seconds',
    'poolname': 'name',
    'maxconns': _MAX_SIZE,
    'minconns': 'min_size',
    'maxconnlifetime': 'max_lifetime',
    'maxconnidletime': 'idle_timeout',
    'maxopenconns': _MAX_SIZE,
    'maxidleconns': 'min_idle',
    'healthcheckperiod': 'keepalive_interval',
}
# A name must be alike to this part to be taken for a typing error.
_ALIKE = 0.75
# The flag of the code of a function that takes ``**``: inspect.CO_VARKEYWORDS.
_CO_VARKEYWORDS = 0x8


def naming_parameters(function: FunctionT) -> FunctionT:
    """Make a function refuse arguments that it does not have, and say which were meant.

    :param function: a method; one that takes ``**parameters`` leaves those to a function that it calls
    """
    # Not by inspect, which takes longer to import than the rest of a pool for threads.
    code = function.__code__
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    known = frozenset(names)
    takes_others = bool(code.co_flags & _CO_VARKEYWORDS)
    most = code.co_argcount - 1

    @functools.wraps(function)
    def checked(self: object, *args: Any, **parameters: Any) -> Any:
        if not takes_others and not known.issuperset(parameters):
            unknown = next(name for name in parameters if name not in known)
            raise TypeError(f'{type(self).__qualname__} has no parameter {unknown!r}{_suggestion(unknown, names)}')
        if len(args) > most:
            # Not quoted, because it may hold a password.
            raise TypeError(
                f'{type(self).__qualname__} takes only {" and ".join(names[:most])} without a name: expected the other '
                'parameters with their names, such as max_size=8'
            )
        return function(self, *args, **parameters)

    return cast('FunctionT', checked)


def _suggestion(unknown: str, names: Iterable[str]) -> str:
    plain = _plain(unknown)
    by_plain_name = {_plain(hook): f'{hook} of the connection manager, or of from_callables()' for hook in HOOKS}
    # Those that begin with an underscore are gcpool's own.
    by_plain_name.update({_plain(name): name for name in names if not name.startswith('_')})
    meant = by_plain_name.get(plain) or _NAMES_ELSEWHERE.get(plain)
    if meant is None:
        # Imported here, because no program needs it whose parameters are right.
        import difflib

        alike = difflib.get_close_matches(plain, by_plain_name, 1, _ALIKE)
        meant = by_plain_name[alike[0]] if alike else None
    return '' if meant is None else f': did you mean {meant}?'


def _plain(name: str) -> str:
    return name.lower().replace('_', '')
