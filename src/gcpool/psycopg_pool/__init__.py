"""The interface of psycopg_pool on gcpool: ``from gcpool.psycopg_pool import ConnectionPool``.

The classes, their parameters, methods, attributes, log messages' logger and statistics are those of psycopg_pool 3.3.
``install()`` puts this package in the place of psycopg_pool, for programs that cannot change their imports.
"""

from ._install import install, uninstall
from .errors import PoolClosed, PoolTimeout, TooManyRequests
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
