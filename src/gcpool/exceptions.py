"""Everything that gcpool raises on its own account.

An exception of a connection manager is never wrapped: it reaches the caller as it is.
"""

import sys

__all__ = [
    'BaseError',
    'ConnectionNotAcquired',
    'ConnectionPoolClosedError',
    'ConnectionPoolIsFull',
    'ConnectionPoolNotFound',
    'EventLoopMismatch',
    'PoolTimeout',
]


class BaseError(Exception):
    """Base of the errors of this package (generic-connection-pool)."""


class ConnectionPoolClosedError(BaseError):
    """The pool is closed, or was closed while the caller waited (generic-connection-pool)."""


class ConnectionPoolIsFull(BaseError):
    """The pool holds as many connections as it may (generic-connection-pool)."""


class ConnectionPoolNotFound(BaseError):
    """There is no pool for the endpoint (generic-connection-pool)."""


class ConnectionNotAcquired(BaseError, RuntimeError, ValueError):
    """A connection was given back that is not out: returned twice, a stranger, or of another endpoint.

    A ``RuntimeError`` as in generic-connection-pool and a ``ValueError`` as in psycopg_pool.
    """


class EventLoopMismatch(BaseError, RuntimeError):
    """An asyncio pool was used from an event loop other than the one it belongs to."""


if sys.version_info >= (3, 11):

    class PoolTimeout(BaseError, TimeoutError):
        """A time limit was reached. The message names what was waited for, and for how many seconds."""

else:
    # Before 3.11 asyncio had a timeout of its own, which programs written for asyncio catch.
    from asyncio import TimeoutError as _AsyncioTimeoutError

    class PoolTimeout(BaseError, TimeoutError, _AsyncioTimeoutError):
        """A time limit was reached. The message names what was waited for, and for how many seconds."""
