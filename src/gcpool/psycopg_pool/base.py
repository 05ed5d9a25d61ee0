"""The common part of the four pools: names, sizes, attributes that may be set while the pool works, statistics."""

import logging
import math
import os
import random
import sys
import threading
import time
import weakref
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final

from ._originals import OriginalBasePool
from .errors import PoolClosed

__all__ = ['HAS_GIL', 'INFINITY', 'AttemptWithBackoff', 'BasePool', 'Counts', 'logger']

logger: Final = logging.getLogger('psycopg.pool')

# The shortest reconnect_timeout that the pools know. With 0, an acquire would get the error of a connect.
LEAST_RECONNECT_TIMEOUT = 1e-3
# Seconds of the longest pause between two attempts to connect.
LONGEST_PAUSE = 60.0
INFINITY = math.inf
# A maximum that is never reached: of a null pool with max_size=0.
UNLIMITED = 2**31 - 1


class AttemptWithBackoff:
    """The pauses between attempts to connect, and between checks of new connections that fail."""

    INITIAL_DELAY = 1.0
    #: The largest fraction by which a pause is shortened or lengthened.
    DELAY_JITTER = 0.1
    DELAY_BACKOFF = 2.0

    def __init__(self) -> None:
        self._next = self.INITIAL_DELAY

    def next_delay(self) -> float:
        """Return the seconds of the next pause."""
        delay, self._next = self._next, self._next * self.DELAY_BACKOFF
        return delay * (1 + self.DELAY_JITTER * random.uniform(-1.0, 1.0))  # noqa: S311

    @classmethod
    def draw(cls) -> float:
        """Draw a number around 0.5 from which the generic pool makes a pause that is up to DELAY_JITTER longer."""
        # The generic pool's own jitter is 20 % for numbers from 0 to 1.
        return 0.5 + cls.DELAY_JITTER / 0.4 * random.uniform(-1.0, 1.0)  # noqa: S311


_all_counts: 'weakref.WeakSet[Counts]' = weakref.WeakSet()


# Whether only one thread runs Python code at a time.
HAS_GIL: bool = getattr(sys, '_is_gil_enabled', lambda: True)()


class Counts:
    """The counters of a pool that the generic pool does not have. A signal handler may count while its thread does.

    :ivar values: by their names. Without a GIL only the methods change them.
    """

    NAMES: Final[tuple[str, ...]] = (
        'requests_num',
        'requests_errors',
        'usage_ms',
        'returns_bad',
        'connections_num',
        'connections_ms',
        'connections_errors',
        'connections_lost',
    )

    def __init__(self) -> None:
        self.renew_lock()
        _all_counts.add(self)
        self.values: dict[str, int] = dict.fromkeys(self.NAMES, 0)

    def renew_lock(self) -> None:
        """Begin with a free lock: in a forked child, another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def add(self, name: str, number: int = 1) -> None:
        """Count an event, or the milliseconds of one."""
        if HAS_GIL:
            # The interpreter switches threads, and calls signal handlers, only at calls and jumps.
            self.values[name] += number
            return
        with self._lock:
            self.values[name] += number

    def get(self) -> dict[str, int]:
        """Return the counters."""
        with self._lock:
            return dict(self.values)

    def pop(self) -> dict[str, int]:
        """Return the counters, and reset them."""
        with self._lock:
            values, self.values = self.values, dict.fromkeys(self.NAMES, 0)
            return values


def _renew_locks() -> None:
    for counts in list(_all_counts):
        counts.renew_lock()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_renew_locks)


def milliseconds_since(began: float) -> int:
    """Whole milliseconds since a time of the monotonic clock."""
    return int(1000.0 * (time.monotonic() - began))


def expect_number(name: str, value: object, kind: type) -> None:
    """Check the type of a parameter.

    :param name: the parameter
    :param value: what was given
    :param kind: Integral or Real, for which other packages register their numbers
    :raises TypeError: when it is not such a number
    """
    if not isinstance(value, kind):
        expected = 'a whole number' if kind is Integral else 'a number of seconds'
        raise TypeError(f'{name}={value!r}: expected {expected}, got {type(value).__name__}')


class BasePool(OriginalBasePool):
    """The part of a pool that does not connect and does not wait."""

    # The generic pool underneath.
    _engine: Any
    _counts: Counts
    _opened = False
    _closed = True
    # Whether the constructor has opened the pool by default. Then the first client is warned.
    _open_implicit = False
    _is_null = False
    # The holds of connections that were returned and are to be reset, by the connections' ids: each in a list until the
    # reset begins.
    _resetting: dict[int, list[Any]]

    if TYPE_CHECKING:

        def _warn_of_open(self) -> None: ...

    def _note_parameters(
        self,
        *,
        min_size: int,
        max_size: int | None,
        name: str | None,
        close_returns: bool,
        timeout: float,
        max_waiting: int,
        max_lifetime: float,
        max_idle: float,
        reconnect_timeout: float,
        num_workers: int,
    ) -> None:
        self._min_size, self._max_size = self._checked_size(min_size, max_size)
        self._checked_workers(num_workers)
        expect_number('max_waiting', max_waiting, Integral)
        expect_number('timeout', timeout, Real)
        expect_number('max_lifetime', max_lifetime, Real)
        expect_number('max_idle', max_idle, Real)
        expect_number('reconnect_timeout', reconnect_timeout, Real)
        # Numbers are counted over all pools of the process, those of psycopg_pool included.
        if not name:
            number = OriginalBasePool._num_pool = getattr(OriginalBasePool, '_num_pool', 0) + 1
            name = f'pool-{number}'
        self.name = name
        self.close_returns = close_returns
        self.timeout = timeout
        self.max_idle = max_idle
        self._max_waiting = max_waiting
        self._max_lifetime = max_lifetime
        self._reconnect_timeout = reconnect_timeout
        self._num_workers = num_workers
        self._counts = Counts()

    def __repr__(self) -> str:
        # A subclass may not have called __init__.
        name = getattr(self, 'name', None)
        return f'<{type(self).__module__}.{type(self).__name__} {name!r} at 0x{id(self):x}>'

    # -- attributes ---------------------------------------------------------------------------------------------------

    @property
    def min_size(self) -> int:
        """The number of connections that the pool keeps."""
        return self._min_size

    @property
    def max_size(self) -> int:
        """The maximum number of connections; of a null pool 0 for no limit."""
        return self._max_size

    @property
    def closed(self) -> bool:
        """Whether the pool is closed, or not open yet."""
        return self._closed

    @property
    def max_waiting(self) -> int:
        """The maximum number of clients that wait; 0 for no limit. May be set while the pool works."""
        return self._max_waiting

    @max_waiting.setter
    def max_waiting(self, value: int) -> None:
        self._engine.set_max_waiting(value)
        self._max_waiting = value

    @property
    def max_lifetime(self) -> float:
        """Seconds after which a connection is replaced. May be set: applies to connections created after that."""
        return self._max_lifetime

    @max_lifetime.setter
    def max_lifetime(self, value: float) -> None:
        self._max_lifetime = value
        self._pass_on_settings()

    @property
    def reconnect_timeout(self) -> float:
        """Seconds of failing connects after which ``reconnect_failed`` is called. May be set."""
        return self._reconnect_timeout

    @reconnect_timeout.setter
    def reconnect_timeout(self, value: float) -> None:
        self._reconnect_timeout = value
        self._pass_on_settings()

    @property
    def num_workers(self) -> int:
        """Maximum number of connections created at the same time to fill the pool. May be set."""
        return self._num_workers

    @num_workers.setter
    def num_workers(self, value: int) -> None:
        self._checked_workers(value)
        self._num_workers = value
        self._pass_on_settings()

    def _pass_on_settings(self) -> None:
        core = self._engine._core
        if not self._is_null:
            core.set_times(self._max_lifetime, max(self._reconnect_timeout, LEAST_RECONNECT_TIMEOUT))
        else:
            core.set_times(self._max_lifetime, 0.0)
        self._pass_on_pace(core)

    def _pass_on_pace(self, core: Any) -> None:
        core.set_pace(AttemptWithBackoff.INITIAL_DELAY, LONGEST_PAUSE, True, self._num_workers)

    # -- checks of parameters and states ------------------------------------------------------------------------------

    def _checked_size(self, min_size: int, max_size: int | None) -> tuple[int, int]:
        expect_number('min_size', min_size, Integral)
        if max_size is None:
            max_size = min_size
        expect_number('max_size', max_size, Integral)
        if self._is_null and min_size != 0:
            raise ValueError(f'min_size={min_size!r}: a null pool keeps no connections: expected 0')
        if min_size < 0:
            raise ValueError(f'min_size={min_size!r}: expected 0 or more')
        if max_size < min_size:
            raise ValueError(f'max_size={max_size!r} is less than min_size={min_size!r}: expected at least that')
        if max_size == 0 and not self._is_null:
            raise ValueError('min_size=0 and max_size=0: expected a max_size greater than 0')
        return min_size, max_size

    @staticmethod
    def _checked_workers(num_workers: int) -> None:
        expect_number('num_workers', num_workers, Integral)
        if num_workers < 1:
            raise ValueError(f'num_workers={num_workers!r}: expected 1 or more')

    def _expect_unused(self) -> None:
        # In this order: another thread that opens the pool sets _closed to False before it sets _opened.
        if self._opened and self._closed:
            raise PoolClosed(f'the pool {self.name!r} was open and is closed: it cannot be reused, expected a new pool')

    def _expect_open(self) -> None:
        if self._closed:
            raise PoolClosed(f'the pool {self.name!r} is {"already closed" if self._opened else "not open yet"}')
        if self._open_implicit:
            self._open_implicit = False
            self._warn_of_open()

    def _expect_own(self, conn: Any) -> None:
        owner = getattr(conn, '_pool', None)
        if self._resetting and id(conn) in self._resetting:
            owner = None
        if owner is not self:
            found = 'it has no pool, or was returned already' if owner is None else f'it belongs to {owner.name!r}'
            raise ValueError(f'a connection cannot be returned to the pool {self.name!r}: {found}: {conn}')

    def run_task(self, task: Any) -> None:
        """Raise NotImplementedError: this is internal to psycopg_pool, not part of its documented interface."""
        raise NotImplementedError('gcpool.psycopg_pool has no maintenance tasks')

    # -- statistics ---------------------------------------------------------------------------------------------------

    def get_stats(self) -> dict[str, int]:
        """Return gauges and counters. All keys are always present.

        Gauges: ``pool_min``, ``pool_max``, ``pool_size``, ``pool_available``, ``requests_waiting``. Counters:
        ``requests_num``, ``requests_queued``, ``requests_wait_ms``, ``requests_errors``, ``usage_ms``, ``returns_bad``,
        ``connections_num``, ``connections_ms``, ``connections_errors``, ``connections_lost``.
        """
        return self._stats_of(self._engine.get_stats(), self._counts.get())

    def pop_stats(self) -> dict[str, int]:
        """Return what :py:meth:`get_stats` does, and reset the counters."""
        return self._stats_of(self._engine.pop_stats(), self._counts.pop())

    def _stats_of(self, found: dict[str, int], counts: dict[str, int]) -> dict[str, int]:
        return {
            'pool_min': self._min_size,
            'pool_max': self._max_size,
            'pool_size': found['size'] - found['closing'],
            'pool_available': found['idle'],
            'requests_waiting': found['waiting'],
            'requests_queued': found['waits'],
            'requests_wait_ms': found['wait_ns'] // 1_000_000,
            **counts,
        }
