"""The attributes of a pool that are the same in both runtimes."""

from typing import TYPE_CHECKING, Generic

from ._core import PoolCore
from .managers import ConnectionT, EndpointT

__all__ = ['BaseConnectionPool']

# connection() calls these methods if they were replaced on the pool.
_REPLACEABLE_METHODS = frozenset({'acquire', 'release'})


class BaseConnectionPool(Generic[EndpointT, ConnectionT]):
    """Base of both pools: sizes, statistics and parameters (the name is from generic-connection-pool)."""

    if TYPE_CHECKING:

        def _note_replaced(self, name: str, replaced: bool) -> None: ...
        @property
        def _core(self) -> PoolCore: ...
        @property
        def _create_timeout(self) -> float: ...
        @property
        def _refusal(self) -> object: ...
        @property
        def _check_interval(self) -> float: ...
        @property
        def _check_timeout(self) -> float | None: ...

    def get_size(self) -> int:
        """Return the number of connections: idle, in use, being created and being closed."""
        return self._core.size

    def get_stats(self) -> dict[str, int]:
        """Return gauges and counters of the whole pool.

        Gauges: ``size``, ``idle``, ``acquired``, ``checking`` (being checked by the pool, in the background),
        ``waiting`` (acquires that wait), ``endpoints``. Counters since the
        pool was built: ``acquires`` (served), ``created``, ``create_errors`` (attempts to connect that ended without a
        connection, including cancelled and interrupted ones), ``dead`` (found dead by a check), ``broken`` (unfit when
        returned, according to the manager), ``disposed``, ``waits`` (acquires that had to wait), ``timeouts``
        (acquires whose timeout expired while they waited), ``checks``, ``checks_failed`` (the connection was dead, or
        did not answer in time).
        """
        return self._core.stats()

    @property
    def idle_timeout(self) -> float:
        """Seconds after which an unused extra connection is closed."""
        return self._core.idle_timeout

    @property
    def max_lifetime(self) -> float:
        """Seconds after which any connection is closed."""
        return self._core.max_lifetime

    @property
    def min_idle(self) -> int:
        """How many idle connections of an endpoint are core connections, kept until ``max_lifetime``."""
        return self._core.min_idle

    @property
    def min_size(self) -> int:
        """How many connections are kept for each live endpoint."""
        return self._core.min_size

    @property
    def create_in_background(self) -> bool:
        """Whether the pool itself connects for acquires."""
        return self._core.creates_in_background

    @property
    def max_connecting(self) -> int:
        """How many connections to one endpoint are created at a time; 0 for no limit."""
        return self._core.max_connecting

    @property
    def create_timeout(self) -> float:
        """Seconds that a connect of the pool's own may take."""
        return self._create_timeout

    @property
    def reconnect_timeout(self) -> float:
        """Seconds of an outage after which ``reconnect_failed`` is called; 0: a failed connect reaches its asker."""
        return self._core.reconnect_timeout

    @property
    def fail_fast(self) -> bool:
        """Whether acquires fail at once in an outage."""
        return self._core.fails_fast

    @property
    def wait_when_full(self) -> bool:
        """Whether acquires wait when the server says that it is full."""
        return self._refusal is not None

    @property
    def max_size(self) -> int:
        """Maximum number of connections to one endpoint."""
        return self._core.max_size

    @property
    def total_max_size(self) -> int:
        """Maximum number of connections to all endpoints."""
        return self._core.total_max_size

    @property
    def check_interval(self) -> float:
        """Seconds after its last use for which a connection is served without a check (HikariCP, pgxpool)."""
        return self._check_interval

    @property
    def check_timeout(self) -> float | None:
        """Seconds that one check may take, None for the time that the acquire has left."""
        return self._check_timeout

    @property
    def keepalive_interval(self) -> float:
        """Seconds after which an idle connection that was not used is checked in the background; 0 for never."""
        return self._core.keepalive_interval

    @property
    def lifetime_jitter(self) -> float:
        """By which part of ``max_lifetime`` a connection's lifetime is shorter at most."""
        return self._core.lifetime_jitter

    @property
    def max_uses(self) -> int:
        """How often a connection is acquired before it is closed; 0 for no limit."""
        return self._core.max_uses

    @property
    def is_full(self) -> bool:
        """Whether the pool has ``total_max_size`` connections."""
        return self._core.size >= self._core.total_max_size

    # Tracers replace acquire() and release() on one pool. These two methods note that, so that connection() need not
    # look into the pool's __dict__: CPython would create the dict, and look up every method of the pool more slowly.

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in _REPLACEABLE_METHODS:
            self._note_replaced(name, True)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name in _REPLACEABLE_METHODS:
            self._note_replaced(name, False)

    def __repr__(self) -> str:
        state = 'closed, ' if self._core.closed else ''
        return f'<{type(self).__module__}.{type(self).__qualname__} {state}size {self._core.size} at {id(self):#x}>'
