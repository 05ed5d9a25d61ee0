"""The errors of the pools: those of psycopg_pool where it can be imported, and always OperationalErrors of psycopg."""

import sys
from typing import TYPE_CHECKING

from ._originals import (
    OPERATIONAL_ERROR,
    OriginalPoolClosed,
    OriginalPoolTimeout,
    OriginalTooManyRequests,
    is_importable,
)

__all__ = ['PoolClosed', 'PoolTimeout', 'TooManyRequests']

if sys.version_info >= (3, 11):
    TimedOut = TimeoutError
else:
    # There asyncio.TimeoutError is a separate class, which programs written for asyncio catch.
    import asyncio

    class TimedOut(TimeoutError, asyncio.TimeoutError):
        """Both timeout classes."""


class PoolTimeout(OriginalPoolTimeout, TimedOut):
    """No connection was available in time. The cause is the last error of a connect, if connects fail."""


if TYPE_CHECKING or is_importable:
    PoolClosed = OriginalPoolClosed
    TooManyRequests = OriginalTooManyRequests
else:

    class PoolClosed(OPERATIONAL_ERROR):
        """The pool is closed, or not open yet."""

    class TooManyRequests(OPERATIONAL_ERROR):
        """``max_waiting`` clients are already waiting."""
