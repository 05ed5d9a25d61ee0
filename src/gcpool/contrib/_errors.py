"""What the managers raise when they cannot connect: errors of gcpool that are also instances of the driver's class."""

import errno
import inspect
import socket
import ssl
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from gcpool.contrib._attempts import GivenUpAttemptsError
from gcpool.contrib._descriptions import shown
from gcpool.exceptions import (
    ConnectError,
    ConnectTimeout,
    UnknownEndpoint,
    connect_error_class,
    make_connect_error,
)

__all__ = [
    'BAD_PARAMS',
    'advice_for_os_error',
    'advice_for_path_error',
    'bad_endpoint',
    'check_source',
    'errors_in',
    'look_up',
    'look_up_async',
    'raise_bad_params',
    'raise_connect_error',
    'raise_connect_timeout',
    'raise_not_connected',
    'raise_unknown',
    'to_params',
    'unknown_endpoint',
]

#: What drivers raise for invalid parameters: an unknown one, a port out of range, an invalid host.
BAD_PARAMS = (TypeError, ValueError, OverflowError)


def errors_in(exc: BaseException) -> Iterator[BaseException]:
    """Return an exception, the members of its groups at any depth, and what each of these was raised from.

    A task group wraps the driver's error in an ExceptionGroup, and a framework raises its own error from it.
    ``__context__`` counts too, unless ``raise ... from`` has suppressed it.

    :param exc: what a user's block raised; on Python 3.10 a group may come from the ``exceptiongroup`` package
    :return: each exception once, groups included, the outermost first
    """
    seen: set[int] = set()
    found: list[BaseException | None] = [exc]
    while found:
        error = found.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        found += (error.__cause__, None if error.__suppress_context__ else error.__context__)
        # Pushed last, so that they come first: the error itself before what it was raised from.
        if _is_group(error):
            found += reversed(error.exceptions)  # type: ignore[attr-defined]


def _is_group(exc: BaseException) -> bool:
    # The backport is looked up, not imported: if it is not loaded, nothing can have raised its group.
    modules = (sys.modules.get('builtins'), sys.modules.get('exceptiongroup'))
    kinds = (getattr(module, 'BaseExceptionGroup', None) for module in modules)
    return any(kind is not None and isinstance(exc, kind) for kind in kinds)


def raise_connect_error(endpoint: Hashable, cause: BaseException, advice: str) -> NoReturn:
    """Raise the error for a failed connect to ``endpoint``.

    :param endpoint: the endpoint of the attempt
    :param cause: what the driver raised
    :param advice: what the reader of the message can do about it
    :raise ConnectError: always; also an instance of the class of ``cause``, with the attributes of ``cause``
    """
    message = f'no connection to endpoint {shown(endpoint)!r} could be made: {_first_line(cause)}; {advice}'
    error = make_connect_error(cause, message, endpoint)
    try:
        raise error from cause
    finally:
        # The traceback refers to this frame; deleting the local avoids a reference cycle.
        del error


def raise_connect_timeout(endpoint: Hashable, cause: BaseException, timeout: float | None) -> NoReturn:
    """Raise the error for a connect that took too long.

    :param endpoint: the endpoint of the attempt
    :param cause: what the driver raised
    :param timeout: seconds that connecting was allowed to take, None if the limit was the driver's own
    :raise ConnectTimeout: always; with the errno of ``cause``, if it has one
    """
    # Rounded, because the rest of a time limit has meaningless decimals.
    limit = 'in time' if timeout is None else f'within {round(timeout, 3) or timeout:g} s'
    reason = _first_line(cause)
    for inner in errors_in(cause):
        # Drivers raise their own error from it, which does not say why.
        if isinstance(inner, GivenUpAttemptsError) and str(inner) not in reason:
            reason += f' ({inner})'
    error = ConnectTimeout(
        f'no connection to endpoint {shown(endpoint)!r} could be made {limit}: {reason}; '
        'is the server reachable, or is the time limit too short?',
        endpoint,
    )
    if isinstance(cause, OSError):
        error.errno = cause.errno
        error.strerror = cause.strerror
    try:
        raise error from cause
    finally:
        # As above.
        del error


def raise_not_connected(
    endpoint: Hashable,
    cause: OSError | ValueError,
    timeout: float | None,
    advise: Callable[[OSError], str] | None = None,
) -> NoReturn:
    """Raise the error for a socket's failed connect.

    :param endpoint: the endpoint of the attempt
    :param cause: what was raised; a ValueError is about the host name (a label is empty or too long)
    :param timeout: seconds that connecting was allowed to take, None if the system decided
    :param advise: returns advice on an error; :py:func:`advice_for_os_error` if None
    :raise ConnectTimeout: ``cause`` is a TimeoutError
    :raise ConnectError: ``cause`` is another error
    """
    if isinstance(cause, TimeoutError):
        raise_connect_timeout(endpoint, cause, timeout)
    if isinstance(cause, OSError):
        raise_connect_error(endpoint, cause, (advise or advice_for_os_error)(cause))
    raise_connect_error(endpoint, cause, 'check the host name: it is not valid')


def bad_endpoint(kind: type[TypeError] | type[ValueError], endpoint: Hashable, expected: str) -> ConnectError:
    """Return the error for an endpoint that is invalid in itself.

    :param kind: TypeError or ValueError (or a subclass), which the error inherits from, too
    :param endpoint: what was asked for
    :param expected: what an endpoint is, as the end of a sentence
    """
    both = connect_error_class(kind)  # type: ignore[arg-type]
    return both(f'expected an endpoint {expected}, got {shown(endpoint)!r}', endpoint)


class UnreadableTextError(UnicodeDecodeError):
    """A UnicodeDecodeError without the text, which may be a password.

    Of the same class, which shows a pool that a server has sent the text: psycopg2 raises it for the answer of a server
    that is about to start, and uses its own encoding.

    :param cause: the error with the text
    """

    def __init__(self, cause: UnicodeDecodeError):
        super().__init__(cause.encoding, b'', 0, 0, cause.reason)

    def __str__(self) -> str:
        return f'{self.reason} (by {self.encoding})'


def raise_bad_params(endpoint: Hashable, cause: Exception, parameter: str, *, quotes: bool = False) -> NoReturn:
    """Raise the error for parameters of an endpoint that the driver rejects.

    :param endpoint: the endpoint of the attempt
    :param cause: the driver's error
    :param parameter: the name of the manager's parameter
    :param quotes: the driver's message may quote its input, which may be the password: do not show the message
    :raise ConnectError: always
    """
    if isinstance(cause, UnicodeDecodeError):
        cause = UnreadableTextError(cause)
    elif isinstance(cause, UnicodeEncodeError):
        # The cause holds the text, which may be the password.
        cause = UnicodeError(f'{cause.reason} (by {cause.encoding})')
    elif quotes:
        cause = type(cause)('the driver cannot read its connection string (not shown, it may hold a password)')
    raise_connect_error(endpoint, cause, f'check its entry in {parameter}')


def unknown_endpoint(endpoint: Hashable, parameter: str, known: Iterable[Hashable]) -> UnknownEndpoint:
    """Return the error for an endpoint that the manager has no parameters for.

    :param endpoint: what was asked for
    :param parameter: the name of the manager's parameter that lists the endpoints
    :param known: the endpoints in it (without their parameters, which hold passwords)
    """
    return UnknownEndpoint(
        f'endpoint {shown(endpoint)!r} is not in {parameter}, which has {list(map(shown, known))!r}; '
        'add it, or ask for one of those',
        endpoint,
    )


def check_source(source: object, parameter: str, *, or_callable: bool = False) -> None:
    """Raise when a manager is built with a parameter in which no endpoint can be looked up.

    :param source: what the manager was given
    :param parameter: the name of the manager's parameter
    :param or_callable: whether it may also be a callable that receives the endpoint
    :raise TypeError: it is neither a mapping nor, if that is allowed, callable. The message does not show it, because
        it may hold a password.
    """
    if not isinstance(source, Mapping) and not (or_callable and callable(source)):
        expected = 'a mapping of endpoints to how to reach them' + (', or a callable of the endpoint' * or_callable)
        raise TypeError(f'{parameter}: expected {expected}, got {type(source).__name__}')


def look_up(source: Any, endpoint: Hashable, parameter: str) -> Any:
    """Look up how to reach an endpoint.

    :param source: the manager's parameter: a mapping, whose values may be callables that receive the endpoint, or such
        a callable
    :param endpoint: what to look up
    :param parameter: the name of the manager's parameter
    :return: the value found, or what the callable returns
    :raise UnknownEndpoint: the mapping does not have the endpoint, or the callable raises KeyError
    :raise ConnectError: (a TypeError, too) the callable is a coroutine function; :py:func:`look_up_async` awaits it
    """
    found = _look_up(source, endpoint, parameter)
    if inspect.isawaitable(found):
        if inspect.iscoroutine(found):
            found.close()
        cause = TypeError(f'{parameter} returned an awaitable, which only the managers for asyncio await')
        raise_bad_params(endpoint, cause, parameter)
    return found


async def look_up_async(source: Any, endpoint: Hashable, parameter: str) -> Any:
    """Look up like :py:func:`look_up`, but callables may be coroutine functions."""
    found = _look_up(source, endpoint, parameter)
    if inspect.isawaitable(found):
        try:
            return await found
        except KeyError as exc:
            raise_unknown(endpoint, parameter, exc)
    return found


def _look_up(source: Any, endpoint: Hashable, parameter: str) -> Any:
    if not callable(source):
        try:
            found = source[endpoint]
        except KeyError:
            # Without the parameters: they hold passwords.
            raise unknown_endpoint(endpoint, parameter, source) from None
        if not callable(found):
            return found
        source = found
    try:
        return source(endpoint)
    except KeyError as exc:
        raise_unknown(endpoint, parameter, exc)


def raise_unknown(endpoint: Hashable, parameter: str, cause: KeyError) -> NoReturn:
    """Raise the error for a callable that does not know an endpoint.

    :raise UnknownEndpoint: always
    """
    text = shown(endpoint)
    # Otherwise the KeyError quotes the endpoint, with what is not to be shown of it.
    raised = repr(cause) if text is endpoint else type(cause).__name__
    raise UnknownEndpoint(
        f'endpoint {text!r} is not known to the callable in {parameter}, which raised {raised}', endpoint
    ) from cause


def to_params(found: object, endpoint: Hashable, parameter: str, *, text_as: str | None = None) -> dict[str, Any]:
    """Convert what was looked up into a driver's parameters.

    :param found: what was looked up
    :param endpoint: the endpoint that it is for
    :param parameter: the name of the manager's parameter
    :param text_as: the driver's parameter for a connection string; None if it has none
    :raise ConnectError: (a TypeError, too) it is neither a mapping of names nor, if that is allowed, a string
    """
    if isinstance(found, str) and text_as is not None:
        return {text_as: found}
    if isinstance(found, Mapping) and all(isinstance(name, str) for name in found):
        return dict(found)
    expected = 'a mapping of names to values' + (' or a connection string' if text_as is not None else '')
    given = f'a {type(found).__name__}' + (' with keys that are not strings' if isinstance(found, Mapping) else '')
    raise_bad_params(endpoint, TypeError(f'expected {expected}, not {given}'), parameter)


def advice_for_os_error(exc: OSError) -> str:
    """Return advice for a host that cannot be reached."""
    if isinstance(exc, socket.gaierror):
        return 'check the host name: it does not resolve'
    if isinstance(exc, ssl.SSLError):
        return 'check that the server speaks TLS there, and that its certificate is trusted and names the host'
    if isinstance(exc, ConnectionRefusedError):
        return 'check that the server is running and listens on that host and port'
    return _advice_for_shortage(exc) or 'check host and port, and whether the network lets the connection through'


def advice_for_path_error(exc: OSError) -> str:
    """Return advice for a Unix socket that cannot be connected to."""
    if isinstance(exc, FileNotFoundError):
        return 'check the path: it does not exist'
    if isinstance(exc, ConnectionRefusedError):
        return 'check that the server is running and listens on that path'
    if isinstance(exc, PermissionError):
        return 'check the permissions of the socket and of the directories that lead to it'
    return _advice_for_shortage(exc) or 'check the path, and that a server listens there on a stream socket'


def _advice_for_shortage(exc: OSError) -> str | None:
    if exc.errno in (errno.EMFILE, errno.ENFILE):
        return 'have fewer files and connections open, or raise the limit on them'
    return None


def _first_line(exc: BaseException) -> str:
    text = str(exc).strip()
    return f'{type(exc).__name__}: {text.splitlines()[0]}' if text else type(exc).__name__
