"""Checks the parameters that make a pool."""

import itertools
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, TypedDict

from ._core import ENDLESS, PoolCore, checked_seconds
from ._hooks import Hooks, is_coroutine_function
from ._limits import MAX_SIZE, Limits, check_count, check_kept, check_times
from .observers import PoolEvent

__all__ = [
    'MAX_SIZE',
    'NullPoolParameters',
    'PoolParameters',
    'check_acquired',
    'check_check_parameters',
    'check_facade_parameters',
    'check_flag',
    'check_keepalive',
    'check_leak_threshold',
    'check_name',
    'check_on_event',
    'check_optional_seconds',
    'check_pin',
    'check_reconnecting',
    'check_unlimited',
    'make_core',
    'refuse_minimum',
    'refuse_parameters_of_idle',
]

# Numbers the pools of this process that were given no name. Its next() is atomic.
_NUMBERS = itertools.count(1)

# Seconds that a connect by the pool itself may take by default.
DEFAULT_CREATE_TIMEOUT = 30.0

# The default of max_connecting where connections are created in the background.
DEFAULT_CONNECTING = 2


class NullPoolParameters(TypedDict, total=False):
    """The parameters of every pool, except its sizes."""

    max_lifetime: float
    name: str | None
    record_holders: bool
    leak_threshold: float | None
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


# The parameters that a pool that keeps no idle connections refuses.
PARAMETERS_OF_IDLE = ('idle_timeout', 'background_collector', 'dispose_batch_size', 'keepalive_interval')


def check_optional_seconds(name: str, value: object) -> float | None:
    """Check a time limit, None for no limit."""
    return None if value is None else float(checked_seconds(name, value))


def _limit(seconds: float | None) -> float | None:
    # To managers, only None means no limit.
    return None if seconds is None or seconds >= ENDLESS else seconds


def check_fraction(name: str, value: object) -> float:
    """Check a fraction, from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f'{name}={value!r}: expected a fraction from 0 to 1 as a float, got {type(value).__name__}')
    fraction = float(value)
    if not 0 <= fraction <= 1:
        raise ValueError(f'{name}={value!r}: expected a fraction from 0 to 1')
    return fraction


def _random() -> float:
    import random

    return random.random()  # noqa: S311


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
    record_holders: bool,
    leak_threshold: float | None,
    wake_leak_watch: Callable[[], object] | None,
) -> PoolCore:
    """Check the parameters of a pool, and make its core.

    :raises TypeError: when a parameter is of a wrong type
    :raises ValueError: when a parameter is out of range, or two contradict each other
    """
    idle_timeout, max_lifetime = check_times(idle_timeout, max_lifetime)
    check_kept('min_size', limits.min_size, max_lifetime)
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
        records_holders=record_holders or leak_threshold is not None,
        leak_threshold=math.inf if leak_threshold is None else leak_threshold,
        wake_leak_watch=wake_leak_watch,
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
    """Check the name of a pool; None makes one with the next number."""
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
    if not asynchronous and is_coroutine_function(on_event):
        raise TypeError(f'on_event={on_event!r} is a coroutine function: expected a plain one')


def check_leak_threshold(record_holders: bool, leak_threshold: float | None) -> float | None:
    """Check the parameters that say who holds connections. None if the pool does not look for leaks."""
    check_flag('record_holders', record_holders)
    limit = check_optional_seconds('leak_threshold', leak_threshold)
    if limit == 0:
        raise ValueError(f'leak_threshold={leak_threshold!r}: expected more than 0 seconds, or None for never')
    return _limit(limit)


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
    """Check the parameters of connects by the pool itself, and of failing connects.

    :return: the time limit of a connect in seconds, and ``reconnect_timeout``
    """
    limit = check_optional_seconds('create_timeout', create_timeout)
    if limit == 0:
        raise ValueError(f'create_timeout={create_timeout!r}: expected more than 0 seconds, or None for 30')
    reconnect_timeout = float(checked_seconds('reconnect_timeout', reconnect_timeout))
    if reconnect_failed is not None:
        if not callable(reconnect_failed):
            raise TypeError(f'reconnect_failed={reconnect_failed!r}: expected a function')
        if not asynchronous and is_coroutine_function(reconnect_failed):
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


def check_pin(size: object, min_size: int, max_size: int, max_lifetime: float) -> int:
    """Check the size for warming up an endpoint. None means ``min_size``."""
    if size is None:
        if not min_size:
            raise ValueError('size=None: expected a number of connections, because the pool has no min_size')
        return min_size
    count = check_count('size', size, 0)
    if count > max_size:
        raise ValueError(f'size={count} is greater than max_size={max_size}: expected at most that')
    check_kept('size', count, max_lifetime)
    return count


def check_unlimited(name: str, value: int | None, unlimited: int) -> int:
    """Check a maximum number of connections, None for no limit."""
    return unlimited if value is None else check_count(name, value, 1)


def refuse_parameters_of_idle(parameters: dict[str, Any]) -> None:
    """Refuse the parameters of idle connections, for a pool that keeps none.

    :param parameters: those that were given; minimums of 0 change nothing, and are taken out
    """
    kept = 'a NullConnectionPool keeps no idle connections'
    for name in PARAMETERS_OF_IDLE:
        if name in parameters:
            raise TypeError(f'{name}={parameters[name]!r}: {kept}: expected no such parameter')
    for name in ('min_idle', 'min_size'):
        refuse_minimum(name, parameters.pop(name, 0))


def refuse_minimum(name: str, count: int | None) -> None:
    """Refuse a minimum of idle connections, for a pool that keeps none.

    :param count: the minimum; None, or 0, changes nothing
    """
    if count is not None and check_count(name, count, 0):
        raise ValueError(f'{name}={count!r}: a NullConnectionPool keeps no idle connections: expected 0')


def check_flag(name: str, value: object) -> bool:
    """Refuse a flag that is not a bool: any other object was more likely meant for another parameter."""
    if not isinstance(value, bool):
        raise TypeError(f'{name}={value!r}: expected a bool, got {type(value).__name__}')
    return value


def check_acquired(acquired: object) -> None:
    """Refuse an `acquired` that is neither a bool nor None."""
    if acquired is not None and not isinstance(acquired, bool):
        raise TypeError(f'acquired={acquired!r}: expected True, False or None, got {type(acquired).__name__}')
