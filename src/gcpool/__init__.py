"""One pool for every kind of connection, for threads and for asyncio.

The pools are :py:class:`gcpool.threading.ConnectionPool` and :py:class:`gcpool.asyncio.ConnectionPool`.
"""

from . import exceptions
from ._version import __version__
from .common import BaseConnectionPool
from .exceptions import ConnectionPoolClosedError

__all__ = [
    'BaseConnectionPool',
    'ConnectionPoolClosedError',
    '__version__',
    'exceptions',
]
