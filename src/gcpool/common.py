"""What both pools show of themselves, and neither runtime has a say in."""

from typing import TYPE_CHECKING, Generic

from ._core import PoolCore
from .managers import ConnectionT, EndpointT

__all__ = ['BaseConnectionPool']

# The methods that connection() calls if they were replaced on the pool.
_REPLACEABLE_METHODS = frozenset({'acquire', 'release'})


class BaseConnectionPool(Generic[EndpointT, ConnectionT]):
    """What both pools show of themselves (generic-connection-pool)."""

    if TYPE_CHECKING:

        def _note_replaced(self, name: str, replaced: bool) -> None: ...
        @property
        def _core(self) -> PoolCore: ...
        @property
        def _check_interval(self) -> float: ...
        @property
        def _check_timeout(self) -> float | None: ...

    def get_size(self) -> int:
        """How many connections there are: idle, out, being created and being disposed of."""
        return self._core.size

    def get_stats(self) -> dict[str, int]:
        """Gauges and counters of the whole pool.

        Gauges: ``size``, ``idle``, ``acquired``, ``waiting`` (acquires that wait), ``endpoints``. Counters since the
        pool was built: ``acquires`` (served), ``created``, ``create_errors`` (attempts to connect that ended without a
        connection, cancelled and interrupted ones included), ``dead`` (found dead by a check), ``broken`` (unfit when
        they came back, by what the manager said), ``disposed``, ``waits`` (acquires that had to wait), ``timeouts``
        (acquires that waited in vain). All are numbers of things.
        """
        return self._core.stats()

    @property
    def idle_timeout(self) -> float:
        """Seconds after which an unused extra connection is disposed of."""
        return self._core.idle_timeout

    @property
    def max_lifetime(self) -> float:
        """Seconds after which any connection is disposed of."""
        return self._core.max_lifetime

    @property
    def min_idle(self) -> int:
        """How many idle connections of an endpoint are core ones, kept until ``max_lifetime``."""
        return self._core.min_idle

    @property
    def max_size(self) -> int:
        """How many connections an endpoint may have."""
        return self._core.max_size

    @property
    def total_max_size(self) -> int:
        """How many connections there may be."""
        return self._core.total_max_size

    @property
    def check_interval(self) -> float:
        """Seconds within which a connection that was used is served without a check (HikariCP, pgxpool)."""
        return self._check_interval

    @property
    def check_timeout(self) -> float | None:
        """Seconds that one check may take, None for what is left of the acquire's time limit."""
        return self._check_timeout

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return self._core.size >= self._core.total_max_size

    # Tracers replace acquire() and release() on one pool. Looking into the pool's dict at each connection() would tell
    # as well, but the interpreter would make that dict, and find every method of the pool the slow way from then on.

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
