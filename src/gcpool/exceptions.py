"""Everything that gcpool raises on its own account.

An exception of a connection manager is never wrapped by the pool: it reaches the caller as it is. The managers of
:py:mod:`gcpool.contrib` say which endpoint could not be connected to: see :py:class:`ConnectError`.
"""

import functools
import sys
from typing import Any

__all__ = [
    'BaseError',
    'ConnectError',
    'ConnectTimeout',
    'ConnectionNotAcquired',
    'ConnectionPoolClosedError',
    'ConnectionPoolIsFull',
    'ConnectionPoolNotFound',
    'DiscardConnection',
    'EventLoopMismatch',
    'PoolTimeout',
    'UnknownEndpoint',
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

    An acquire raises it where a hook of the manager has given the connection back.

    A ``RuntimeError`` as in generic-connection-pool and a ``ValueError`` as in psycopg_pool.
    """


class DiscardConnection(BaseError):
    """Raised by a connection manager's ``on_release``: the connection is in doubt and must not be served again.

    The pool disposes of it; ``release`` returns as if nothing had been raised.
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


class ConnectError(BaseError):
    """A connection could not be made. Raised by the managers of :py:mod:`gcpool.contrib`.

    The message names the endpoint and says what to do; the driver's own error is the cause, and, as far as Python lets
    a class inherit from both, the error is one of the driver's class as well: what caught the driver's catches this.

    :param message: what went wrong, and what to do
    :param endpoint: where the connection was to lead
    """

    def __init__(self, message: str = '', endpoint: Any = None):
        super().__init__(message)
        self.message = message
        self.endpoint = endpoint

    def __str__(self) -> str:
        # Some drivers' classes put their own text together, KeyError shows a repr.
        return self.message

    def __reduce__(self) -> Any:
        # The class that is the driver's as well has no name, and is made when it is needed. Of the system's errors it
        # can be made again; what those of the drivers hold may be anything, and they are copied as the class below it.
        bases = type(self).__bases__
        if bases[0] is ConnectError and issubclass(bases[-1], OSError) and globals().get(bases[-1].__name__) is None:
            return _make_again, (bases[-1], self.args, self.message, self.endpoint)
        kind = next(base for base in type(self).__mro__ if globals().get(base.__name__) is base)
        return kind, (self.message, self.endpoint)


@functools.cache
def connect_error_class(driver_class: type[BaseException]) -> type[ConnectError]:
    """A class that is both, or ConnectError where Python cannot lay out such objects."""
    if issubclass(driver_class, ConnectError):
        return driver_class
    try:
        return type('ConnectError', (ConnectError, driver_class), {'__module__': ConnectError.__module__})
    except TypeError:
        return ConnectError


def make_connect_error(cause: BaseException, message: str, endpoint: Any) -> ConnectError:
    """Make a ConnectError that is an instance of the class of ``cause``, too, with its attributes.

    :param cause: what the driver raised
    :param message: what it says
    :param endpoint: where the connection was to lead
    """
    kind = connect_error_class(type(cause))  # type: ignore[arg-type]
    try:
        # Without its __init__: what a driver's class takes there is its own business. Programs read the number of an
        # error off its args.
        error = kind.__new__(kind, *cause.args)
        error.args = cause.args
        if isinstance(error, OSError):
            OSError.__init__(error, *cause.args)
        error.__dict__.update(cause.__dict__)
        error.message = message
        error.endpoint = endpoint
    except (TypeError, ValueError, AttributeError):
        # A class that cannot be made in this way, or has such attributes of its own.
        return ConnectError(message, endpoint)
    return error


def _make_again(system_class: type[OSError], args: tuple[Any, ...], message: str, endpoint: Any) -> ConnectError:
    return make_connect_error(system_class(*args), message, endpoint)


class UnknownEndpoint(ConnectError, KeyError):
    """The connection manager was not told how to reach the endpoint."""


class ConnectTimeout(ConnectError, PoolTimeout):
    """The time limit was over before the connection was made."""
