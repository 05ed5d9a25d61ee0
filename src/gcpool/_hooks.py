"""Finds out which of the optional methods a connection manager has, and refuses objects that cannot be managers."""

import sys
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from ._core import UNSET
from ._hook_names import check_hook_names
from .managers import AsyncConnectionManager, SyncConnectionManager, is_hopeless_unless_overridden

__all__ = ['NO_ENDPOINT', 'Hooks', 'check_manager', 'is_coroutine_function']

# The flag of the code of an ``async def``: inspect.CO_COROUTINE.
_CO_COROUTINE = 0x80

# Those of inspect.CO_VARARGS and inspect.CO_VARKEYWORDS.
_CO_VARARGS, _CO_VARKEYWORDS = 0x4, 0x8

# The positional arguments of each method of a manager; and the methods that get `timeout`, by name, on threads.
_ARGUMENTS = {
    'create': ('endpoint',),
    'dispose': ('endpoint', 'conn'),
    'check_aliveness': ('endpoint', 'conn'),
    'normalize': ('endpoint',),
    'on_acquire': ('endpoint', 'conn'),
    'on_release': ('endpoint', 'conn'),
    'on_connection_dead': ('endpoint', 'conn'),
    'is_broken': ('endpoint', 'conn', 'exc'),
    'is_refusal': ('endpoint', 'exc'),
    'is_hopeless': ('endpoint', 'exc'),
    'describe_endpoint': ('endpoint',),
}
_TIMED = frozenset({'create', 'dispose', 'check_aliveness'})


class _NoEndpoint:
    """The type of :py:data:`NO_ENDPOINT`."""

    def __repr__(self) -> str:
        return 'NO_ENDPOINT'


#: Stands for the default endpoint of a manager that has none: None is an endpoint like any other.
NO_ENDPOINT: Final[Any] = UNSET


class Hooks:
    """Which of the optional methods a manager overrides. Found out once, so that the others cost nothing.

    :param manager: the connection manager
    :param base: the base class whose methods do nothing
    :raises TypeError: when a hook is not a method, or one that is plain in both runtimes (``normalize``,
        ``is_refusal``, ``is_hopeless``, ``describe_endpoint``) is a coroutine function; when ``broken_on_cancel`` is
        not a bool, or ``default_endpoint`` is not hashable
    """

    NAMES = ('check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead', 'is_broken')

    def __init__(self, manager: Any, base: type):
        self.checks, self.acquire, self.release, self.dead, self.broken = (
            self._has(manager, base, name) for name in self.NAMES
        )
        self.normalize: Callable[[Any], Any] | None = self._plain(manager, base, 'normalize')
        #: ``is_refusal(endpoint, exc)``, if the manager overrides it.
        self.refusal: Callable[[Any, BaseException], bool] | None = self._plain(manager, base, 'is_refusal')
        #: ``is_hopeless(endpoint, exc)``, the manager's or that of the base class.
        self.hopeless: Callable[[Any, BaseException], bool] = (
            self._plain(manager, base, 'is_hopeless') or is_hopeless_unless_overridden
        )
        #: ``describe_endpoint(endpoint)``, if the manager overrides it.
        self.describe: Callable[[Any], object] | None = self._plain(manager, base, 'describe_endpoint')
        self.broken_on_cancel: bool = self._is_broken_on_cancel(manager)
        #: The endpoint of calls that name none; :py:data:`NO_ENDPOINT` if the manager has none.
        self.default_endpoint: Any = self._default_endpoint(manager)

    @classmethod
    def _plain(cls, manager: Any, base: type, name: str) -> Callable[..., Any] | None:
        if not cls._has(manager, base, name) or _is_made_up(manager, name):
            return None
        method: Callable[..., Any] = getattr(manager, name)
        if is_coroutine_function(method):
            raise TypeError(f'{name}() of connection_manager {manager!r} is a coroutine function: expected a plain one')
        return method

    @staticmethod
    def _is_broken_on_cancel(manager: Any) -> bool:
        value = getattr(manager, 'broken_on_cancel', False)
        if isinstance(value, bool):
            return value
        if _is_made_up(manager, 'broken_on_cancel'):
            return False
        raise TypeError(f'connection_manager.broken_on_cancel is {value!r}: expected a bool')

    @staticmethod
    def _default_endpoint(manager: Any) -> Any:
        endpoint = getattr(manager, 'default_endpoint', NO_ENDPOINT)
        if endpoint is NO_ENDPOINT or _is_made_up(manager, 'default_endpoint'):
            return NO_ENDPOINT
        try:
            hash(endpoint)
        except TypeError:
            # Not quoted, because it may hold a password.
            raise TypeError(
                f'connection_manager.default_endpoint is a {type(endpoint).__name__}: expected a hashable endpoint'
            ) from None
        return endpoint

    @staticmethod
    def _has(manager: object, base: type, name: str) -> bool:
        method = getattr(manager, name, None)
        if method is None:
            return False
        if not callable(method):
            raise TypeError(f'connection_manager.{name} is {method!r}: expected a method')
        return getattr(method, '__func__', method) is not getattr(base, name)


def check_manager(manager: object, *, asynchronous: bool) -> None:
    """Refuse an object that cannot be a connection manager, is one for the other runtime, or has a misspelt hook.

    :param manager: what the pool was given
    :param asynchronous: whether the manager has to be one for asyncio
    :raises TypeError: when it cannot be; the message says what was expected
    """
    wanted, other = (
        (AsyncConnectionManager, SyncConnectionManager)
        if asynchronous
        else (SyncConnectionManager, AsyncConnectionManager)
    )
    runtime = 'asyncio' if asynchronous else 'threading'
    expected = f'expected a gcpool.{runtime}.BaseConnectionManager'
    if isinstance(manager, type):
        raise TypeError(f'connection_manager is the class {manager.__qualname__}: {expected}, an instance')
    if isinstance(manager, str | bytes | Mapping | Sequence | AbstractSet):
        # Not quoted, because it may hold a password.
        raise TypeError(
            f'connection_manager is a {type(manager).__name__}: {expected}, such as those of gcpool.contrib; where to '
            'connect is a parameter of the manager, or the endpoint'
        )
    if isinstance(manager, other) and not isinstance(manager, wanted):
        raise TypeError(f'connection_manager {manager!r} is for the other runtime: {expected}')
    for name in ('create', 'dispose'):
        method = getattr(manager, name, None)
        if not callable(method):
            raise TypeError(f'connection_manager {manager!r} has no method {name}(): {expected}')
        if is_coroutine_function(method) and not asynchronous:
            raise TypeError(f'{name}() of connection_manager {manager!r} is a coroutine function: {expected}')
        if asynchronous and _is_plain(method):
            raise TypeError(f'{name}() of connection_manager {manager!r} is not a coroutine function: {expected}')
    for name, arguments in _ARGUMENTS.items():
        timed = name in _TIMED and not asynchronous
        taken = _taken_instead(getattr(manager, name, None), arguments, timed)
        if taken is not None:
            wanted_text = ', '.join((*arguments, *['timeout=None'] * timed))
            raise TypeError(
                f'{name}() of connection_manager {manager!r} takes ({", ".join(taken)}): expected {name}({wanted_text})'
            )
    for name in () if asynchronous else Hooks.NAMES:
        if is_coroutine_function(getattr(manager, name, None)):
            raise TypeError(f'{name}() of connection_manager {manager!r} is a coroutine function: {expected}')
    check_hook_names(manager)


def _taken_instead(method: object, arguments: Sequence[str], timed: bool) -> Sequence[str] | None:
    """Return the names of a method's parameters if it cannot be called as the pool calls it; else None.

    A method not written in Python, or with ``*args`` or ``**kwargs``, is assumed to be right: a wrapper, a mock.
    """
    function: Any = getattr(method, '__func__', method)
    code = getattr(function, '__code__', None)
    if code is None or code.co_flags & (_CO_VARARGS | _CO_VARKEYWORDS):
        return None
    bound = int(getattr(method, '__self__', None) is not None)
    by_place = code.co_varnames[bound : code.co_argcount]
    by_name = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    without_default = len(by_place) - len(function.__defaults__ or ())
    filled = {*by_place[: len(arguments)], *(('timeout',) if timed else ())}
    missing = {*by_place[:without_default], *by_name} - filled - {*(function.__kwdefaults__ or ())}
    fits = len(by_place) >= len(arguments) and not missing
    has_timeout = not timed or 'timeout' in {*by_place[len(arguments) :], *by_name}
    return None if fits and has_timeout else (*by_place, *by_name)


def _is_made_up(manager: object, name: str) -> bool:
    # Whether a mock has made up the attribute. A mock has every attribute: its normalize() returns the same object for
    # all endpoints, so that they would count as one, and its is_refusal() is true for every error.
    mock = sys.modules.get('unittest.mock')
    if mock is None:
        return False
    import inspect

    return (
        isinstance(getattr(manager, name), mock.NonCallableMock) and inspect.getattr_static(manager, name, None) is None
    )


def is_coroutine_function(method: object) -> bool:
    """Return whether a method or function is a coroutine function."""
    # inspect takes longer to import than the rest of a pool for threads. While it is not imported, no plain function
    # can be marked as a coroutine function, and the flag of the code decides.
    code = getattr(getattr(method, '__func__', method), '__code__', None)
    if method is None or (code is not None and not code.co_flags & _CO_COROUTINE and 'inspect' not in sys.modules):
        return False
    import inspect

    return inspect.iscoroutinefunction(method)


def _is_plain(method: object) -> bool:
    import inspect

    # Whether a method is one for threads. A plain function may return an awaitable, so it is refused only if it has the
    # parameter `timeout`, which only the managers for threads have.
    if not inspect.isroutine(method) or is_coroutine_function(inspect.unwrap(method)):
        return False
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False
    return 'timeout' in parameters
