"""What the managers raise when a connection cannot be made: a gcpool error that is the driver's, too."""

import functools
import socket
import ssl
from collections.abc import Hashable, Iterable, Mapping
from typing import NoReturn, TypeVar

from gcpool.exceptions import ConnectError, ConnectTimeout, UnknownEndpoint

__all__ = [
    'BAD_PARAMS',
    'advice_for_os_error',
    'params_of',
    'raise_bad_params',
    'raise_connect_error',
    'raise_connect_timeout',
    'unknown_endpoint',
]

EndpointT = TypeVar('EndpointT', bound=Hashable)
ParamsT = TypeVar('ParamsT')

#: What drivers raise for parameters that make no sense: an unknown one, a port out of range, a host that is none.
BAD_PARAMS = (TypeError, ValueError, OverflowError)


@functools.cache
def _error_class(driver_class: type[BaseException]) -> type[ConnectError]:
    """A class that is both, or ConnectError where Python cannot lay out such objects."""
    if issubclass(driver_class, ConnectError):
        return driver_class
    try:
        return type('ConnectError', (ConnectError, driver_class), {'__module__': ConnectError.__module__})
    except TypeError:
        return ConnectError


def raise_connect_error(endpoint: Hashable, cause: BaseException, advice: str) -> NoReturn:
    """Raise that ``endpoint`` could not be connected to.

    :param endpoint: where the connection was to lead
    :param cause: what the driver raised
    :param advice: what the reader of the message can do about it
    :raise ConnectError: always; an instance of the class of ``cause``, too, with its attributes
    """
    kind = _error_class(type(cause))  # type: ignore[arg-type]
    message = f'no connection to endpoint {endpoint!r} could be made: {_first_line(cause)}; {advice}'
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
        error = ConnectError(message, endpoint)
    raise error from cause


def raise_connect_timeout(endpoint: Hashable, cause: BaseException, timeout: float | None) -> NoReturn:
    """Raise that connecting took too long.

    :param endpoint: where the connection was to lead
    :param cause: what the driver raised
    :param timeout: seconds that connecting was allowed to take, None if the limit was the driver's own
    :raise ConnectTimeout: always
    """
    limit = 'in time' if timeout is None else f'within {timeout:g} s'
    raise ConnectTimeout(
        f'no connection to endpoint {endpoint!r} could be made {limit}: {_first_line(cause)}; '
        'is the server reachable, or is the time limit too short?',
        endpoint,
    ) from cause


def raise_bad_params(endpoint: Hashable, cause: Exception, parameter: str, *, quotes: bool = False) -> NoReturn:
    """Raise that the parameters of an endpoint make no sense to the driver.

    :param endpoint: where the connection was to lead
    :param cause: the driver's error
    :param parameter: the name of the manager's parameter
    :param quotes: the message may quote what the driver could not read, which may be the password: do not show it
    :raise ConnectError: always
    """
    if isinstance(cause, (UnicodeEncodeError, UnicodeDecodeError)):
        # It holds the text, which may be the password.
        cause = UnicodeError(f'{cause.reason} (by {cause.encoding})')
    elif quotes:
        cause = type(cause)('the driver cannot read its connection string (not shown, it may hold a password)')
    raise_connect_error(endpoint, cause, f'check its entry in {parameter}')


def unknown_endpoint(endpoint: Hashable, parameter: str, known: Iterable[Hashable]) -> UnknownEndpoint:
    """The error to raise for an endpoint that the manager was not told about.

    :param endpoint: what was asked for
    :param parameter: the name of the manager's parameter that lists the endpoints
    :param known: the endpoints in it (without their parameters, which hold passwords)
    """
    return UnknownEndpoint(
        f'endpoint {endpoint!r} is not in {parameter}, which has {list(known)!r}; add it, or ask for one of those',
        endpoint,
    )


def params_of(source: Mapping[EndpointT, ParamsT], endpoint: EndpointT, parameter: str) -> ParamsT:
    """Look up how to reach an endpoint.

    :param source: the manager's parameter, by endpoint
    :param endpoint: what to look up
    :param parameter: the name of the manager's parameter
    :raise UnknownEndpoint: the mapping does not have it
    """
    try:
        return source[endpoint]
    except KeyError:
        # Without the parameters: they hold passwords.
        raise unknown_endpoint(endpoint, parameter, source) from None


def advice_for_os_error(exc: OSError) -> str:
    """What to do about a host that cannot be reached."""
    if isinstance(exc, socket.gaierror):
        return 'check the host name: it does not resolve'
    if isinstance(exc, ssl.SSLError):
        return 'check that the server speaks TLS there, and that its certificate is trusted and names the host'
    if isinstance(exc, ConnectionRefusedError):
        return 'check that the server is running and listens on that host and port'
    return 'check host and port, and whether the network lets the connection through'


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip()
    return f'{type(exc).__name__}: {text.splitlines()[0]}' if text else type(exc).__name__
