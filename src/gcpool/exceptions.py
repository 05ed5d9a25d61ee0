"""The exceptions of gcpool.

The pool never wraps an exception of a connection manager: the caller gets it unchanged. The managers of
:py:mod:`gcpool.contrib` raise a :py:class:`ConnectError` when they cannot connect to an endpoint.
"""

import functools
import sys
from collections.abc import Mapping, Sequence
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
    'EndpointDown',
    'EventLoopMismatch',
    'MonitorError',
    'PoolInUse',
    'PoolNotSuspended',
    'PoolSuspended',
    'PoolTimeout',
    'TooManyRequests',
    'UnknownEndpoint',
]


class BaseError(Exception):
    """Base of the errors of this package (generic-connection-pool)."""


class ConnectionPoolClosedError(BaseError):
    """The pool is closed, or was closed while the caller waited (generic-connection-pool)."""


class ConnectionPoolIsFull(BaseError):
    """The pool has reached its maximum size (generic-connection-pool)."""


class ConnectionPoolNotFound(BaseError, KeyError):
    """The pool does not know the endpoint (generic-connection-pool).

    ``drain(endpoint)`` raises this if there is nothing to drain, so that a misspelt endpoint is noticed.
    """

    # KeyError would show a repr of the message.
    __str__ = BaseError.__str__


class ConnectionNotAcquired(BaseError, RuntimeError, ValueError):
    """The connection cannot be released: it is not in use, or belongs to another pool or endpoint.

    An acquire raises this if a method of the manager has released the connection meanwhile.

    A ``RuntimeError`` as in generic-connection-pool and a ``ValueError`` as in psycopg_pool.
    """


class PoolInUse(BaseError, RuntimeError):
    """A call would wait for its own caller to return a connection.

    ``close()`` and ``wait_idle()`` without a timeout raise this inside a block of ``pool.connection()`` of the same
    thread or task, and inside a method of the manager that the pool calls.
    """


class PoolSuspended(BaseError):
    """The pool is suspended, and acquires fail instead of waiting: ``suspend(fail=True)``."""


class PoolNotSuspended(BaseError, RuntimeError):
    """``resume()`` was called, and the pool was not suspended."""


class DiscardConnection(BaseError):
    """Raised by a connection manager's ``on_release`` when the connection must not be served again.

    The pool closes the connection, and ``release`` returns normally.

    :param args: the text, for the log
    :param broken: whether the connection counts in the statistics' ``broken``. False for one that ended normally, such
        as one that an HTTP server closes after its response. The close has the reason ``discarded`` in both cases
    """

    # On the class for subclasses whose __init__ does not call this one.
    broken = True

    def __init__(self, *args: object, broken: bool = True) -> None:
        super().__init__(*args)
        self.broken = broken


class EventLoopMismatch(BaseError, RuntimeError):
    """An asyncio pool was used from an event loop other than the one it belongs to."""


class MonitorError(BaseError):
    """The pools of a process cannot be watched: the process does not serve them, or not to this user."""


class _TimedOut(BaseError):
    """The attributes of a PoolTimeout: what it records about the acquire.

    The message says what the acquire waited for, and for how many seconds. ``__cause__`` is the error of the last
    connect to the endpoint, if one failed while the acquire waited.

    :ivar pool: the name of the pool; None if no pool has raised this
    :ivar endpoint: the endpoint, as the manager's ``describe_endpoint`` shows it
    :ivar phase: what the time was spent on last: ``connection`` (the endpoint has ``max_size`` connections), ``slot``
        (all endpoints together have ``total_max_size``), ``creating`` (the pool connects, or waits to), ``create`` (the
        manager's method), ``check``, ``dispose`` (of a dead connection), ``suspended``, ``open`` (of ``wait()``: the
        pool is not open yet)
    :ivar waited: seconds since the acquire began
    :ivar limit: the parameter that kept the acquire waiting, or None
    :ivar size: number of connections of the endpoint; if ``limit`` is ``total_max_size``, of all
    :ivar in_use: how many of these were in use
    :ivar idle: how many of these were idle
    :ivar waiting: how many acquires were still waiting for them
    :ivar holders: the three longest holders of these, each a :py:class:`gcpool.common.Holder`; empty without
        ``record_holders``
    """

    pool: str | None = None
    endpoint: Any = None
    phase: str | None = None
    waited: float | None = None
    limit: str | None = None
    size: int | None = None
    in_use: int | None = None
    idle: int | None = None
    waiting: int | None = None
    holders: tuple[Any, ...] = ()


if sys.version_info >= (3, 11):

    class PoolTimeout(_TimedOut, TimeoutError):
        """A timeout expired. See the base class for the attributes."""

else:
    # Before Python 3.11, asyncio.TimeoutError was a separate class, which programs written for asyncio catch.
    from asyncio import TimeoutError as _AsyncioTimeoutError

    class PoolTimeout(_TimedOut, TimeoutError, _AsyncioTimeoutError):
        """A timeout expired. See the base class for the attributes."""


def make_pool_timeout(
    message: str,
    pool: str,
    waited: float | None,
    *,
    phase: str | None = None,
    endpoint: Any = None,
    limit: str | None = None,
    stats: Mapping[str, int] | None = None,
    holders: Sequence[Any] = (),
) -> PoolTimeout:
    """Build the PoolTimeout of a pool, with its attributes.

    :param stats: the gauges that the attributes ``size``, ``in_use``, ``idle`` and ``waiting`` show
    """
    late = PoolTimeout(message)
    late.pool, late.waited = pool, waited
    late.phase, late.endpoint, late.limit = phase, endpoint, limit
    if stats is not None:
        late.size, late.in_use = stats['size'], stats['in_use']
        late.idle, late.waiting = stats['idle'], stats['waiting']
    late.holders = tuple(holders)
    return late


class TooManyRequests(BaseError):
    """``max_waiting`` acquires already wait at the endpoint (psycopg_pool). Raised at once, without waiting.

    :param limit: the pool's ``max_waiting``
    :param endpoint: the endpoint of the acquire
    :param pool: the name of the pool
    """

    def __init__(self, limit: int, endpoint: Any = None, pool: str = ''):
        super().__init__(limit, endpoint, pool)
        self.limit = limit
        self.endpoint = endpoint
        self.pool = pool

    def __str__(self) -> str:
        return (
            f'too many acquires wait for a connection to {self.endpoint!r} of {self.pool!r}: '
            f'max_waiting={self.limit} reached'
        )


class ConnectError(BaseError):
    """Connecting failed. Raised by the managers of :py:mod:`gcpool.contrib`.

    The message names the endpoint and says what to do. The driver's own error is the cause. As far as Python lets a
    class inherit from both, this error is also an instance of the driver's class, so code that catches the driver's
    errors catches this one.

    :param message: what went wrong, and what to do
    :param endpoint: the endpoint of the attempt
    """

    def __init__(self, message: str = '', endpoint: Any = None):
        super().__init__(message)
        self.message = message
        self.endpoint = endpoint

    def __str__(self) -> str:
        # Some drivers' classes compose their own text, and KeyError shows a repr.
        return self.message

    def __reduce__(self) -> Any:
        # connect_error_class() builds classes that pickle cannot find by name. An error of the system's class is built
        # again. A driver's errors may hold anything, so a copy has the nearest base class that this module defines.
        bases = type(self).__bases__
        if bases[0] is ConnectError and issubclass(bases[-1], OSError) and globals().get(bases[-1].__name__) is None:
            return _make_again, (bases[-1], self.args, self.message, self.endpoint)
        kind = next(base for base in type(self).__mro__ if globals().get(base.__name__) is base)
        return kind, (self.message, self.endpoint)


@functools.cache
def connect_error_class(driver_class: type[BaseException]) -> type[ConnectError]:
    """Return a class that inherits from both, or ConnectError where Python cannot lay out such objects."""
    if issubclass(driver_class, ConnectError):
        return driver_class
    try:
        return type('ConnectError', (ConnectError, driver_class), {'__module__': ConnectError.__module__})
    except TypeError:
        return ConnectError


def make_connect_error(cause: BaseException, message: str, endpoint: Any) -> ConnectError:
    """Build a ConnectError that is also an instance of the class of ``cause``, with the attributes of ``cause``.

    :param cause: what the driver raised
    :param message: the text of the error
    :param endpoint: the endpoint of the attempt
    """
    kind = connect_error_class(type(cause))  # type: ignore[arg-type]
    try:
        # A driver's class may take any arguments in __init__, so that is not called. args is kept, because programs
        # read the error number from it.
        error = kind.__new__(kind, *cause.args)
        error.args = cause.args
        if isinstance(error, OSError):
            OSError.__init__(error, *cause.args)
        error.__dict__.update(cause.__dict__)
        error.message = message
        error.endpoint = endpoint
    except (TypeError, ValueError, AttributeError):
        # The class cannot be built in this way, or has attributes of these names.
        return ConnectError(message, endpoint)
    return error


def _make_again(system_class: type[OSError], args: tuple[Any, ...], message: str, endpoint: Any) -> ConnectError:
    return make_connect_error(system_class(*args), message, endpoint)


class EndpointDown(ConnectError):
    """The pool does not connect, because its last connects to the endpoint have failed (``fail_fast``).

    The cause is the last error.
    """


class UnknownEndpoint(ConnectError, KeyError):
    """The connection manager has no parameters for the endpoint."""


class ConnectTimeout(ConnectError, PoolTimeout):
    """The timeout expired before the connection was made."""

    phase = 'create'
