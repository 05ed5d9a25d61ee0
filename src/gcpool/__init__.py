"""One pool for every kind of connection, for threads and for asyncio.

The pools are :py:class:`gcpool.threading.ConnectionPool` and :py:class:`gcpool.asyncio.ConnectionPool`.
"""

import sys

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


def __getattr__(name: str) -> object:
    if name in {'BaseConnectionManager', 'ConnectionPool', 'NullConnectionPool'}:
        message = (
            f'there is one for threads and one for asyncio: expected gcpool.threading.{name} or gcpool.asyncio.{name}'
        )
    elif name in exceptions.__all__:
        message = f'module {__name__!r} has no attribute {name!r}: expected gcpool.exceptions.{name}'
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    # For `from gcpool import ConnectionPool` Python calls this first, and would replace the text of an AttributeError.
    if sys._getframe(1).f_globals.get('__name__') == 'importlib._bootstrap':  # noqa: SLF001
        raise ImportError(message, name=__name__)
    # With a name, Python does not add a guess of its own.
    raise AttributeError(message, name=name)
