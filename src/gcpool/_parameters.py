"""Checks the parameters that make a pool."""

import itertools
import sys
from collections.abc import Callable
from numbers import Real
from typing import Any, Final, Literal, TypedDict

from ._core import ENDLESS, UNSET, PoolCore, checked_seconds
from ._hook_names import check_hook_names
from ._limits import MAX_SIZE, Limits, check_count, check_times
from .managers import AsyncConnectionManager, SyncConnectionManager
from .observers import PoolEvent

__all__ = [
    'MAX_SIZE',
    'NO_ENDPOINT',
    'Hooks',
    'NullPoolParameters',
    'PoolParameters',
    'check_acquired',
    'check_check_parameters',
    'check_facade_parameters',
    'check_flag',
    'check_keepalive',
    'check_manager',
    'check_name',
    'check_on_event',
    'check_optional_seconds',
    'check_pin',
    'check_reconnecting',
    'check_unlimited',
    'make_core',
    'refuse_parameters_of_idle',
]

# Numbers the pools of this process that were given no name. next() of it is atomic.
_NUMBERS = itertools.count(1)

# Seconds that a connect of the pool's own may take by default.
DEFAULT_CREATE_TIMEOUT = 30.0

# max_connecting where connections are created in the background.
DEFAULT_CONNECTING = 2


class NullPoolParameters(TypedDict, total=False):
    """The parameters of every pool, but for its sizes."""

    max_lifetime: float
    name: str | None
    on_event: Callable[[PoolEvent], object] | None
    max_waiting: int
    max_workers: int
    acquire_timeout: float | None
    dispose_timeout: float | None
    open: bool
    close_timeout: float | None
    create_timeout: float | None
    create_in_background: bool
    max_connecting: int | None
    reconnect_timeout: float
    reconnect_failed: Callable[[Any, Any, BaseException], object] | None
    wait_when_full: bool
    fail_fast: bool
    check_interval: float
    check_timeout: float | None
    lifetime_jitter: float
    max_uses: int


class PoolParameters(NullPoolParameters, total=False):
    """The parameters of a pool that keeps idle connections."""

    idle_timeout: float
    min_idle: int
    max_size: int
    total_max_size: int
    min_size: int
    order: Literal['lifo', 'fifo']
    keep: Literal['size', 'idle']
    background_collector: bool
    dispose_batch_size: int
    keepalive_interval: float


# What a pool that keeps no idle connections refuses.
PARAMETERS_OF_IDLE = ('idle_timeout', 'background_collector', 'dispose_batch_size', 'keepalive_interval')

# The flag of the code of an ``async def``: inspect.CO_COROUTINE.
_CO_COROUTINE = 0x80


def check_optional_seconds(name: str, value: object) -> float | None:
    """Check a time limit, None for no limit."""
    return None if value is None else float(checked_seconds(name, value))


def _limit(seconds: float | None) -> float | None:
    # To managers, only None means no limit.
    return None if seconds is None or seconds >= ENDLESS else seconds


def check_fraction(name: str, value: object) -> float:
    """Check a part of something, from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f'{name}={value!r}: expected a fraction from 0 to 1 as a float, got {type(value).__name__}')
    fraction = float(value)
    if not 0 <= fraction <= 1:
        raise ValueError(f'{name}={value!r}: expected a fraction from 0 to 1')
    return fraction


def _random() -> float:
    import random

    return random.random()  # noqa: S311


class _NoEndpoint:
    """The type of :py:data:`NO_ENDPOINT`."""

    def __repr__(self) -> str:
        return 'NO_ENDPOINT'


#: Stands for the default endpoint of a manager that has none: None is an endpoint as any other.
NO_ENDPOINT: Final[Any] = UNSET


class Hooks:
    """Which of the optional methods a manager overrides. Found out once, so that the others cost nothing.

    :param manager: the connection manager
    :param base: the base class whose methods do nothing
    :raises TypeError: when a hook is no method, or one that is plain in both runtimes (``normalize``, ``is_refusal``,
        ``describe_endpoint``) a coroutine function; when ``broken_on_cancel`` is no bool, or ``default_endpoint`` is
        not hashable
    """

    NAMES = ('check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead', 'is_broken')

    def __init__(self, manager: Any, base: type):
        self.checks, self.acquire, self.release, self.dead, self.broken = (
            self._has(manager, base, name) for name in self.NAMES
        )
        self.normalize: Callable[[Any], Any] | None = self._plain(manager, base, 'normalize')
        #: ``is_refusal(endpoint, exc)``, if the manager overrides it.
        self.refusal: Callable[[Any, BaseException], bool] | None = self._plain(manager, base, 'is_refusal')
        #: ``describe_endpoint(endpoint)``, if the manager overrides it.
        self.describe: Callable[[Any], object] | None = self._plain(manager, base, 'describe_endpoint')
        self.broken_on_cancel: bool = self._is_broken_on_cancel(manager)
        #: The endpoint of those who name none; :py:data:`NO_ENDPOINT` if the manager has none.
        self.default_endpoint: Any = self._default_endpoint(manager)

    @classmethod
    def _plain(cls, manager: Any, base: type, name: str) -> Callable[..., Any] | None:
        if not cls._has(manager, base, name) or _is_made_up(manager, name):
            return None
        method: Callable[..., Any] = getattr(manager, name)
        if _is_coroutine_function(method):
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
    if isinstance(manager, other) and not isinstance(manager, wanted):
        raise TypeError(f'connection_manager {manager!r} is one for the other runtime: {expected}')
    for name in ('create', 'dispose'):
        method = getattr(manager, name, None)
        if not callable(method):
            raise TypeError(f'connection_manager {manager!r} has no method {name}(): {expected}')
        if _is_coroutine_function(method) and not asynchronous:
            raise TypeError(f'{name}() of connection_manager {manager!r} is a coroutine function: {expected}')
        if asynchronous and _is_plain(method):
            raise TypeError(f'{name}() of connection_manager {manager!r} is not a coroutine function: {expected}')
    for name in () if asynchronous else Hooks.NAMES:
        if _is_coroutine_function(getattr(manager, name, None)):
            raise TypeError(f'{name}() of connection_manager {manager!r} is a coroutine function: {expected}')
    check_hook_names(manager)


def _is_made_up(manager: object, name: str) -> bool:
    # Whether a mock has made the attribute up. A mock has every one: its normalize() returns the same object for all
    # endpoints, so that they would count as one, and to its is_refusal() every error is a refusal.
    mock = sys.modules.get('unittest.mock')
    if mock is None:
        return False
    import inspect

    return (
        isinstance(getattr(manager, name), mock.NonCallableMock) and inspect.getattr_static(manager, name, None) is None
    )


def _is_coroutine_function(method: object) -> bool:
    # inspect takes longer to import than the rest of a pool for threads. While nobody has imported it, no plain
    # function can be marked as a coroutine function, and the flag of the code decides.
    code = getattr(getattr(method, '__func__', method), '__code__', None)
    if method is None or (code is not None and not code.co_flags & _CO_COROUTINE and 'inspect' not in sys.modules):
        return False
    import inspect

    return inspect.iscoroutinefunction(method)


def _is_plain(method: object) -> bool:
    import inspect

    # Whether a method is one for threads. A plain function may return an awaitable, so it is refused only if it has the
    # parameter `timeout`, which only the managers for threads have.
    if not inspect.isroutine(method) or _is_coroutine_function(inspect.unwrap(method)):
        return False
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return False
    return 'timeout' in parameters


def make_core(
    *,
    idle_timeout: float,
    max_lifetime: float,
    limits: Limits,
    order: str,
    keep: str,
    collects: bool,
    wake_collector: Callable[[], object] | None,
    clock: Callable[[], float] | None,
    normalize: Callable[[Any], Any] | None,
    lifetime_jitter: float,
    max_uses: int,
    random: Callable[[], float] | None,
    keepalive_interval: float,
    wake_checker: Callable[[], object] | None,
    create_in_background: bool,
    max_connecting: int | None,
    reconnect_timeout: float,
    fail_fast: bool,
    waits_when_full: bool,
    keeps_idle: bool,
    opened: bool,
) -> PoolCore:
    """Check the parameters of a pool, and make its core.

    :raises TypeError: when a parameter is of a wrong type
    :raises ValueError: when a parameter is out of range, or two contradict each other
    """
    idle_timeout, max_lifetime = check_times(idle_timeout, max_lifetime)
    lifetime_jitter = check_fraction('lifetime_jitter', lifetime_jitter)
    max_uses = check_count('max_uses', max_uses, 0, 'uses')
    keepalive_interval = float(checked_seconds('keepalive_interval', keepalive_interval))
    if keepalive_interval and not keepalive_interval < max_lifetime:
        raise ValueError(
            f'keepalive_interval={keepalive_interval} is not less than max_lifetime={max_lifetime}: expected less'
        )
    create_in_background = check_flag('create_in_background', create_in_background)
    if max_connecting is None:
        max_connecting = DEFAULT_CONNECTING if create_in_background else 0
    max_connecting = check_count('max_connecting', max_connecting, 0)
    min_size = limits.min_size
    draws = reconnect_timeout or fail_fast or min_size or waits_when_full or lifetime_jitter or keepalive_interval
    return PoolCore(
        limits.min_idle,
        limits.max_size,
        limits.total_max_size,
        idle_timeout,
        max_lifetime,
        collects,
        clock,
        wake_collector,
        normalize,
        max_waiting=limits.max_waiting,
        max_workers=limits.max_workers,
        serves_oldest=_check_choice('order', order, 'lifo', 'fifo') == 'fifo',
        counts_idle_only=_check_choice('keep', keep, 'size', 'idle') == 'idle',
        limits=limits,
        min_size=min_size,
        creates_in_background=create_in_background,
        max_connecting=max_connecting,
        reconnect_timeout=reconnect_timeout,
        fails_fast=fail_fast,
        keeps_growth=bool(
            min_size or create_in_background or max_connecting or reconnect_timeout or fail_fast or waits_when_full
        ),
        random=random or (_random if draws else None),
        lifetime_jitter=lifetime_jitter,
        max_uses=max_uses,
        keepalive_interval=keepalive_interval,
        wake_checker=wake_checker,
        keeps_idle=keeps_idle,
        opened=opened,
    )


def _check_choice(name: str, value: object, *choices: str) -> str:
    expected = f'expected {" or ".join(map(repr, choices))}'
    if not isinstance(value, str):
        raise TypeError(f'{name}={value!r}: {expected}, got {type(value).__name__}')
    if value not in choices:
        raise ValueError(f'{name}={value!r}: {expected}')
    return value


def check_facade_parameters(
    acquire_timeout: float | None, dispose_timeout: float | None, dispose_batch_size: int, background_collector: bool
) -> tuple[float | None, float | None, int]:
    """Check the parameters that the core does not know."""
    check_flag('background_collector', background_collector)
    limit = check_optional_seconds('dispose_timeout', dispose_timeout)
    return (
        check_optional_seconds('acquire_timeout', acquire_timeout),
        _limit(limit),
        check_count('dispose_batch_size', dispose_batch_size, 0),
    )


def check_check_parameters(check_interval: float, check_timeout: float | None) -> tuple[float, float | None]:
    """Check the parameters of aliveness checks."""
    check_interval = float(checked_seconds('check_interval', check_interval))
    limit = check_optional_seconds('check_timeout', check_timeout)
    if limit == 0:
        raise ValueError(f'check_timeout={check_timeout!r}: expected more than 0 seconds, or None for no limit')
    return check_interval, _limit(limit)


def check_name(name: object) -> str:
    """Check the name of a pool; None for one with the next number."""
    if name is None:
        return f'gcpool-{next(_NUMBERS)}'
    if not isinstance(name, str):
        raise TypeError(f'name={name!r}: expected a str, got {type(name).__name__}')
    return name


def check_on_event(on_event: Any, *, asynchronous: bool) -> None:
    """Refuse an `on_event` that cannot be called, or, for threads, that is a coroutine function."""
    if on_event is None:
        return
    if not callable(on_event):
        raise TypeError(f'on_event={on_event!r}: expected a function, got {type(on_event).__name__}')
    if not asynchronous and _is_coroutine_function(on_event):
        raise TypeError(f'on_event={on_event!r} is a coroutine function: expected a plain one')


def check_keepalive(keepalive_interval: float, manager: object, checks: bool) -> bool:
    """Return whether idle connections are checked in the background."""
    if checked_seconds('keepalive_interval', keepalive_interval) and not checks:
        raise ValueError(
            f'keepalive_interval={keepalive_interval!r}, and connection_manager {manager!r} has no check_aliveness(): '
            'expected 0, or a manager that checks'
        )
    return keepalive_interval > 0


def check_reconnecting(
    manager: object,
    hooks: Hooks,
    *,
    create_timeout: float | None,
    reconnect_timeout: float,
    reconnect_failed: Callable[..., object] | None,
    wait_when_full: bool,
    fail_fast: bool,
    asynchronous: bool,
) -> tuple[float, float]:
    """Check the parameters of connects of the pool's own, and of failing ones.

    :return: the time limit of a connect in seconds, and ``reconnect_timeout``
    """
    limit = check_optional_seconds('create_timeout', create_timeout)
    if limit == 0:
        raise ValueError(f'create_timeout={create_timeout!r}: expected more than 0 seconds, or None for 30')
    reconnect_timeout = float(checked_seconds('reconnect_timeout', reconnect_timeout))
    if reconnect_failed is not None:
        if not callable(reconnect_failed):
            raise TypeError(f'reconnect_failed={reconnect_failed!r}: expected a function')
        if not asynchronous and _is_coroutine_function(reconnect_failed):
            raise TypeError(f'reconnect_failed={reconnect_failed!r} is a coroutine function: expected a plain one')
        if not reconnect_timeout:
            raise ValueError('reconnect_failed was given without reconnect_timeout: expected more than 0 seconds')
    if check_flag('wait_when_full', wait_when_full) and hooks.refusal is None:
        raise ValueError(f'wait_when_full=True: connection_manager {manager!r} has no method is_refusal()')
    if check_flag('fail_fast', fail_fast) and reconnect_timeout:
        raise ValueError(
            f'fail_fast=True and reconnect_timeout={reconnect_timeout}: expected one of them, '
            'because an acquire either fails at once or waits'
        )
    return DEFAULT_CREATE_TIMEOUT if limit is None else limit, reconnect_timeout


def check_pin(size: object, min_size: int, max_size: int) -> int:
    """Check the size that an endpoint is to be warmed up to. None means ``min_size``."""
    if size is None:
        if not min_size:
            raise ValueError('size=None: expected a number of connections, because the pool has no min_size')
        return min_size
    count = check_count('size', size, 0)
    if count > max_size:
        raise ValueError(f'size={count} is greater than max_size={max_size}: expected at most that')
    return count


def check_unlimited(name: str, value: int | None, unlimited: int) -> int:
    """Check a maximum number of connections, None for as many as there may be."""
    return unlimited if value is None else check_count(name, value, 1)


def refuse_parameters_of_idle(parameters: dict[str, Any]) -> None:
    """Refuse the parameters of idle connections, for a pool that keeps none.

    :param parameters: those that were given; minimums of 0 say what holds anyway, and are taken out
    """
    kept = 'a NullConnectionPool keeps no idle connections'
    for name in PARAMETERS_OF_IDLE:
        if name in parameters:
            raise TypeError(f'{name}={parameters[name]!r}: {kept}: expected no such parameter')
    for name in ('min_idle', 'min_size'):
        count = parameters.pop(name, 0)
        if check_count(name, count, 0):
            raise ValueError(f'{name}={count!r}: {kept}: expected 0')


def check_flag(name: str, value: object) -> bool:
    """Refuse a flag that is no bool. Not any truthy object counts: it is more likely meant for another parameter."""
    if not isinstance(value, bool):
        raise TypeError(f'{name}={value!r}: expected a bool, got {type(value).__name__}')
    return value


def check_acquired(acquired: object) -> None:
    """Refuse an `acquired` that is neither a bool nor None."""
    if acquired is not None and not isinstance(acquired, bool):
        raise TypeError(f'acquired={acquired!r}: expected True, False or None, got {type(acquired).__name__}')
