"""The managers of pools that are made from functions: ``ConnectionPool.from_callables()``."""

import functools
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

from ._core import UNSET, CallableWithTimeout
from ._hooks import is_coroutine_function
from .managers import AsyncConnectionManager, ConnectionT, EndpointT, SyncConnectionManager

__all__ = ['AsyncCallablesManager', 'SyncCallablesManager']

if TYPE_CHECKING:
    import inspect
    from typing import TypeAlias

    # The type variables of from_callables(). Type checkers infer these from the functions, unlike those of the class.
    NewEndpointT = TypeVar('NewEndpointT', bound=Hashable)
    NewConnectionT = TypeVar('NewConnectionT')

    # The functions that from_callables() takes.
    AsyncCreate: TypeAlias = Callable[[EndpointT], Awaitable[ConnectionT]]
    AsyncDispose: TypeAlias = Callable[[EndpointT, ConnectionT], Awaitable[object]]
    AsyncCheck: TypeAlias = Callable[[EndpointT, ConnectionT], Awaitable[bool]]
    AsyncHook: TypeAlias = Callable[[EndpointT, ConnectionT], Awaitable[object]]
    AsyncJudge: TypeAlias = Callable[[EndpointT, ConnectionT, BaseException], bool | Awaitable[bool]]
    SyncCreate: TypeAlias = Callable[[EndpointT], ConnectionT]
    SyncDispose: TypeAlias = Callable[[EndpointT, ConnectionT], object]
    SyncCheck: TypeAlias = Callable[[EndpointT, ConnectionT], bool]
    SyncHook: TypeAlias = Callable[[EndpointT, ConnectionT], object]
    SyncJudge: TypeAlias = Callable[[EndpointT, ConnectionT, BaseException], bool]
    ErrorJudge: TypeAlias = Callable[[EndpointT, BaseException], bool]
    Describe: TypeAlias = Callable[[EndpointT], object]

# The arguments that each function is called with, not counting the time limit.
ARGUMENTS = {
    'create': ('endpoint',),
    'dispose': ('endpoint', 'conn'),
    'check_aliveness': ('endpoint', 'conn'),
    'on_acquire': ('endpoint', 'conn'),
    'on_release': ('endpoint', 'conn'),
    'is_broken': ('endpoint', 'conn', 'exc'),
    'is_refusal': ('endpoint', 'exc'),
    'is_hopeless': ('endpoint', 'exc'),
    'describe_endpoint': ('endpoint',),
}
# These are plain functions on asyncio, too.
PLAIN = frozenset({'is_refusal', 'is_hopeless', 'describe_endpoint'})
# On threads these are passed the time limit, if they have a parameter for it.
LIMITED = frozenset({'create', 'dispose', 'check_aliveness'})


class SyncCallablesManager(SyncConnectionManager[EndpointT, ConnectionT]):
    """Calls functions. Those that were not given are not set, so that they cost nothing.

    :param default_endpoint: the endpoint of calls that name none; UNSET if there is none
    :param functions: the functions, by the names of the methods; None for one that was not given
    """

    def __init__(self, default_endpoint: Any = UNSET, **functions: Callable[..., Any] | None):
        set_default_endpoint(self, default_endpoint)
        for name, function in given(functions):
            limit = check_arguments(name, function)
            if returns_coroutine(function):
                raise TypeError(f'{name}={function!r} is a coroutine function: expected a plain one')
            if name in LIMITED:
                method = CallableWithTimeout(
                    function,
                    len(ARGUMENTS[name]),
                    limit is not None,
                    limit is not None and limit.default is limit.empty,
                )
                setattr(self, name, method)
            else:
                setattr(self, name, function)

    def create(self, endpoint: EndpointT, timeout: float | None = None) -> ConnectionT:
        raise NotImplementedError

    def dispose(self, endpoint: EndpointT, conn: ConnectionT, timeout: float | None = None) -> None:
        method_to_close(conn, 'close')()


class AsyncCallablesManager(AsyncConnectionManager[EndpointT, ConnectionT]):
    """Calls coroutine functions. Those that were not given are not set, so that they cost nothing.

    :param default_endpoint: the endpoint of calls that name none; UNSET if there is none
    :param functions: the functions, by the names of the methods; None for one that was not given
    """

    def __init__(self, default_endpoint: Any = UNSET, **functions: Callable[..., Any] | None):
        set_default_endpoint(self, default_endpoint)
        for name, function in given(functions):
            check_arguments(name, function)
            if name in PLAIN:
                if returns_coroutine(function):
                    raise TypeError(f'{name}={function!r} is a coroutine function: expected a plain one')
            elif name != 'is_broken' and is_plain_function(function):
                raise TypeError(f'{name}={function!r} is a plain function: expected a coroutine function')
            setattr(self, name, function)

    async def create(self, endpoint: EndpointT) -> ConnectionT:
        raise NotImplementedError

    async def dispose(self, endpoint: EndpointT, conn: ConnectionT) -> None:
        import inspect

        result = method_to_close(conn, 'aclose', 'close')()
        if inspect.isawaitable(result):
            await result


def set_default_endpoint(manager: Any, endpoint: Any) -> None:
    """Set a manager's default endpoint, if there is one. TypeError if it is not hashable.

    :param manager: the manager
    :param endpoint: the endpoint; UNSET if there is none
    """
    try:
        hash(endpoint)
    except TypeError:
        # Not quoted, because it may hold a password.
        raise TypeError(f'default_endpoint is a {type(endpoint).__name__}: expected a hashable endpoint') from None
    if endpoint is not UNSET:
        manager.default_endpoint = endpoint


def given(functions: dict[str, Callable[..., Any] | None]) -> list[tuple[str, Callable[..., Any]]]:
    """Return the functions that were given, with their names. TypeError if one is not callable, or create is missing.

    :param functions: by their names; None for one that was not given
    """
    for name, function in functions.items():
        if (function is not None or name == 'create') and not callable(function):
            raise TypeError(f'{name}={function!r}: expected a callable, got {type(function).__name__}')
    return [(name, function) for name, function in functions.items() if function is not None]


def check_arguments(name: str, function: Callable[..., Any]) -> 'inspect.Parameter | None':
    """Check that a function takes the arguments that it will be called with.

    :param name: the name of the method whose place the function takes
    :param function: the function
    :return: its parameter ``timeout`` if it is passed that; also None if its signature is unknown
    """
    # Importing it takes longer than the rest of a pool for threads.
    import inspect

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return None
    limit = signature.parameters.get('timeout') if name in LIMITED else None
    if limit is not None and limit.kind is limit.POSITIONAL_ONLY:
        limit = None
    names = ARGUMENTS[name]
    try:
        signature.bind(*names, **({} if limit is None else {'timeout': None}))
    except TypeError as exc:
        raise TypeError(f'{name}={function!r}: expected a function of ({", ".join(names)}): {exc}') from None
    return limit


def returns_coroutine(function: Callable[..., Any]) -> bool:
    """Whether calling this returns a coroutine, as far as can be known."""
    return is_coroutine_function(function) or is_coroutine_function(type(function).__call__)


def is_plain_function(function: Callable[..., Any]) -> bool:
    """Whether this is a function in Python, or a class, that does not return a coroutine.

    Other callables, such as functions in C, may return an awaitable. That is known only when they are called.
    """
    import inspect

    while isinstance(function, functools.partial):
        function = function.func
    if returns_coroutine(inspect.unwrap(function)):
        return False
    return inspect.isroutine(function) or isinstance(function, type)


def method_to_close(conn: object, *names: str) -> Callable[[], Any]:
    """Find the method that closes a connection.

    :param conn: the connection
    :param names: the first of these that it has
    """
    for name in names:
        method: Callable[[], Any] | None = getattr(conn, name, None)
        if method is not None:
            return method
    raise TypeError(f'the connection {conn!r} has no {"() or ".join(names)}(): expected the parameter `dispose`')
