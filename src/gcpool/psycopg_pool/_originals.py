"""The classes of psycopg_pool, from which those of this package derive where it can be imported.

Programs check what they are given: ``isinstance(pool, psycopg_pool.ConnectionPool)``. Nothing of psycopg_pool runs: its
``__init__`` is never called, and each public method is overridden. This module imports it before ``install()`` can put
this package in its place.
"""

import importlib
from typing import TYPE_CHECKING, Any, Generic

from ._driver import OPERATIONAL_ERROR
from .abc import ACT, CT

__all__ = [
    'OPERATIONAL_ERROR',
    'OriginalAsyncConnectionPool',
    'OriginalAsyncNullConnectionPool',
    'OriginalBasePool',
    'OriginalConnectionPool',
    'OriginalNullConnectionPool',
    'OriginalPoolClosed',
    'OriginalPoolTimeout',
    'OriginalTooManyRequests',
    'is_importable',
]


def _can_import_originals() -> bool:
    # A module of this name is not enough: a program may have its own.
    try:
        importlib.import_module('psycopg_pool.base')
    except ImportError:
        return False
    return True


#: Whether psycopg_pool itself can be imported.
is_importable: bool = _can_import_originals()

if TYPE_CHECKING or is_importable:
    from psycopg_pool import AsyncConnectionPool as OriginalAsyncConnectionPool
    from psycopg_pool import AsyncNullConnectionPool as OriginalAsyncNullConnectionPool
    from psycopg_pool import ConnectionPool as OriginalConnectionPool
    from psycopg_pool import NullConnectionPool as OriginalNullConnectionPool
    from psycopg_pool import PoolClosed as OriginalPoolClosed
    from psycopg_pool import PoolTimeout as OriginalPoolTimeout
    from psycopg_pool import TooManyRequests as OriginalTooManyRequests
    from psycopg_pool.base import BasePool as OriginalBasePool
else:

    class OriginalBasePool:
        """The base of the pools where psycopg_pool cannot be imported."""

    class OriginalConnectionPool(OriginalBasePool, Generic[CT]):
        """The same."""

    class OriginalAsyncConnectionPool(OriginalBasePool, Generic[ACT]):
        """The same."""

    class OriginalNullConnectionPool(OriginalConnectionPool[CT]):
        """The same."""

    class OriginalAsyncNullConnectionPool(OriginalAsyncConnectionPool[ACT]):
        """The same."""

    OriginalPoolClosed: Any = OPERATIONAL_ERROR
    OriginalPoolTimeout: Any = OPERATIONAL_ERROR
    OriginalTooManyRequests: Any = OPERATIONAL_ERROR
