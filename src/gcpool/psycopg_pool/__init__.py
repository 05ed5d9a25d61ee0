"""The interface of psycopg_pool on gcpool: ``from gcpool.psycopg_pool import ConnectionPool``.

The classes, their parameters, methods, attributes, log messages' logger and statistics are those of psycopg_pool 3.3.
``install()`` substitutes this package for psycopg_pool, for programs that cannot change their imports.

The pools are imported at their first use: a program with threads need not import those for asyncio.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._install import install, uninstall
from .errors import PoolClosed, PoolTimeout, TooManyRequests

if TYPE_CHECKING:
    from .null_pool import NullConnectionPool
    from .null_pool_async import AsyncNullConnectionPool
    from .pool import ConnectionPool
    from .pool_async import AsyncConnectionPool

__all__ = [
    'AsyncConnectionPool',
    'AsyncNullConnectionPool',
    'ConnectionPool',
    'NullConnectionPool',
    'PoolClosed',
    'PoolTimeout',
    'TooManyRequests',
    'install',
    'uninstall',
]

#: The version of psycopg_pool whose interface this is.
__version__ = '3.3.3'

_HOMES = {
    'AsyncConnectionPool': 'pool_async',
    'AsyncNullConnectionPool': 'null_pool_async',
    'ConnectionPool': 'pool',
    'NullConnectionPool': 'null_pool',
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    found: object = getattr(import_module(f'.{_HOMES[name]}', __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
