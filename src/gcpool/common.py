"""The attributes of a pool that are the same in both runtimes."""

from typing import TYPE_CHECKING, Any, Final, Generic

from ._core import Observer, PoolCore
from ._health import health_of
from ._holders import Frame, Holder, Holding, describe
from ._long_waits import Waits
from ._method_names import naming_methods
from ._statistics import Health, Histogram, PoolStats
from ._time_limits import seconds
from .exceptions import PoolTimeout, make_pool_timeout
from .managers import ConnectionT, EndpointT
from .observers import PoolEvent

__all__ = [
    'ALL_ENDPOINTS',
    'BaseConnectionPool',
    'Frame',
    'Health',
    'Histogram',
    'Holder',
    'PoolEvent',
    'PoolStats',
]


class AllEndpoints:
    """The type of :py:data:`ALL_ENDPOINTS`."""

    def __repr__(self) -> str:
        return 'ALL_ENDPOINTS'


#: Stands for the whole pool where an endpoint may be given: None is an endpoint like any other.
ALL_ENDPOINTS: Final = AllEndpoints()

# connection() calls these methods if they were replaced on the pool.
_REPLACEABLE_METHODS = frozenset({'acquire', 'release'})


@naming_methods
class BaseConnectionPool(Generic[EndpointT, ConnectionT]):
    """Base of both pools: sizes, statistics and parameters (the name is from generic-connection-pool)."""

    if TYPE_CHECKING:

        def _note_replaced(self, name: str, replaced: bool) -> None: ...
        @property
        def _core(self) -> PoolCore: ...
        @property
        def _observer(self) -> Observer: ...
        def _tell(
            self,
            kind: str | None,
            endpoint: Any,
            message: str,
            *args: object,
            level: str = 'info',
            reason: str | None = None,
            duration: float | None = None,
            error: BaseException | None = None,
        ) -> None: ...
        @property
        def _create_timeout(self) -> float: ...
        @property
        def _refusal(self) -> object: ...
        @property
        def _check_interval(self) -> float: ...
        @property
        def _check_timeout(self) -> float | None: ...

        _collector: Any
        _close_timeout: float | None
        _holding: Holding
        _waits: Waits

    def get_size(self) -> int:
        """Return the number of connections: idle, in use, being created and being closed."""
        return self._core.size

    @property
    def name(self) -> str:
        """The name of the pool, which its messages, log records and events show."""
        return self._observer.name

    def get_stats(self, endpoint: Any = ALL_ENDPOINTS) -> PoolStats:
        """Return gauges and counters of the whole pool, or the gauges of one endpoint. All keys are always present.

        Gauges: ``size`` (the sum of the next five), ``idle``, ``in_use`` (also as ``acquired``), ``creating``,
        ``checking`` (in the background), ``closing``, ``waiting`` (acquires that wait), ``endpoints``, ``suspended``,
        the limits, which :py:meth:`resize` changes: ``min_idle``, ``max_size``, ``total_max_size``, ``min_size``,
        ``max_waiting``, ``max_workers``, and ``longest_held``: nanoseconds since the oldest acquire whose connection is
        still in use.

        Counters since the pool was built, or since :py:meth:`pop_stats`: ``asked`` (acquires, however they ended),
        ``acquires`` (served), ``waits`` (acquires that had to wait), ``timeouts`` and ``cancelled`` (while they
        waited), ``too_many`` (refused, because too many waited), ``created``, ``create_errors`` (attempts to connect
        that ended without a connection, including cancelled and interrupted ones), ``refused`` (failed because the
        server was full), ``checks``, ``checks_failed``, ``dead`` (found dead by a check), ``broken`` (unfit when
        returned), ``detached``, ``leaks`` (see ``leak_threshold``), ``disposed`` (closed), and of these
        ``closed_idle``, ``closed_lifetime``, ``closed_max_uses``, ``closed_broken``, ``closed_dead``,
        ``closed_discarded``, ``closed_drained``, ``closed_shrunk``, ``closed_evicted``, ``closed_pool_closed``.

        Sums in nanoseconds: ``wait_ns``, ``create_ns``, ``use_ns``. A use is counted when the connection is returned,
        by a clock that ticks every few milliseconds on some systems: the sum is right, a single use may be 0.

        For the whole pool, the result also has ``histograms`` of these times, and computes percentiles from them, in
        seconds: ``stats['wait_p99']``. ``wait`` has the waits of acquires that had to wait, ``create`` all attempts to
        connect, ``use`` all uses that have ended; a use within a tick of the clock is in the lowest bucket.

        :param endpoint: for the gauges of this endpoint only
        :raises TypeError: when ``endpoint`` is not hashable
        """
        return self._core.stats() if endpoint is ALL_ENDPOINTS else self._core.endpoint_stats(endpoint)

    def pop_stats(self) -> PoolStats:
        """Return what :py:meth:`get_stats` does, and reset the counters and the histograms.

        Each event is counted in exactly one result, so ``stats['wait_p99']`` covers the time since the last call.
        """
        return self._core.stats(True)

    def holders(self, endpoint: Any = ALL_ENDPOINTS) -> list[Holder]:
        """Return the connections in use, and who holds them, longest first.

        With ``record_holders``, each has the thread or task that acquired it, and where. Changes nothing.

        :param endpoint: for the connections to this endpoint only
        :raises TypeError: when ``endpoint`` is not hashable
        """
        return self._holding.list(self, *([] if endpoint is ALL_ENDPOINTS else [endpoint]))

    def health(self) -> Health:
        """Whether the pool can serve acquires now: ``ok``, ``degraded`` or ``exhausted``, and why. Does no I/O.

        For readiness probes: it neither takes a connection nor waits for one. ``exhausted``: an acquire of any endpoint
        would wait, or fail. ``degraded``: some endpoints cannot be served now, or their connects fail although idle
        connections are left. Failing connects are known with ``reconnect_timeout``, ``fail_fast``,
        ``wait_when_full`` or a minimum.
        """
        return health_of(self._core, self._observer)

    def _stop_looking(self) -> None:
        """The pool is closed: stop the collector and the timer of long waits."""
        if self._collector is not None:
            self._collector.stop()
        self._waits.stop()

    def _waits_for(self, endpoint: EndpointT) -> tuple[str, str | None]:
        """Why an acquire waits: the phase of a PoolTimeout, and the parameter that limits."""
        core = self._core
        if core.is_suspended:
            return 'suspended', None
        if core.endpoint_size(endpoint) >= core.max_size:
            return 'connection', 'max_size'
        if core.size >= core.total_max_size:
            return 'slot', 'total_max_size'
        # There is room: the pool connects, or waits to, because connects fail or enough of them are under way.
        limit = core.max_connecting
        connecting = limit > 0 and core.endpoint_stats(endpoint, False)['creating'] >= limit
        return 'creating', 'max_connecting' if connecting else None

    def _waited_too_long(self, endpoint: EndpointT, deadline: float, timeout: float) -> PoolTimeout:
        """The error of an acquire whose timeout expired while it waited for a connection."""
        phase, limit = self._waits_for(endpoint)
        stats = self._stats_within(limit, endpoint)
        what = 'a slot for' if phase == 'slot' else 'a connection to'
        reason = self._describe_wait(phase, limit, stats)
        return self._make_timeout(phase, endpoint, deadline, timeout, f'waiting for {what} %s{reason}', limit, stats)

    def _reason_to_wait(self, endpoint: EndpointT) -> str:
        """Say why an acquire of an endpoint waits."""
        phase, limit = self._waits_for(endpoint)
        return self._describe_wait(phase, limit, self._stats_within(limit, endpoint))

    def _describe_wait(self, phase: str, limit: str | None, stats: dict[str, int]) -> str:
        kinds = ('in_use', 'in use'), ('idle', 'idle'), ('creating', 'being created'), ('closing', 'being closed')
        counts = [f'{stats[kind]} {text}' for kind, text in kinds if stats[kind] or kind == 'in_use']
        counts.append(f'{stats["waiting"]} waiting')
        reached = '' if limit is None else f': {limit}={getattr(self._core, limit)} reached'
        if phase == 'suspended':
            reached = ': the pool is suspended'
        return f'{reached} ({", ".join(counts)})'

    def _stats_within(self, limit: str | None, endpoint: EndpointT) -> dict[str, int]:
        return self._core.stats() if limit == 'total_max_size' else self._core.endpoint_stats(endpoint, False)

    def _timed_out(
        self, phase: str, endpoint: EndpointT, deadline: float, timeout: float, what: str, limit: str | None = None
    ) -> PoolTimeout:
        stats = self._stats_within(limit, endpoint)
        return self._make_timeout(phase, endpoint, deadline, timeout, what, limit, stats)

    def _make_timeout(
        self,
        phase: str,
        endpoint: EndpointT,
        deadline: float,
        timeout: float,
        what: str,
        limit: str | None,
        stats: dict[str, int],
    ) -> PoolTimeout:
        """Make the error of an acquire whose timeout expired, and report it. The caller raises it.

        :param phase: as in :py:class:`PoolTimeout`
        :param deadline: when the time limit expired
        :param timeout: the time limit in seconds
        :param what: what the acquire was doing, with a placeholder for the endpoint
        :param limit: the parameter that kept the acquire waiting
        :param stats: the gauges of the error, which the text may name, too
        """
        observer, core = self._observer, self._core
        holders: list[Holder] = []
        if core.records_holders:
            holders = self._holding.list(self, *([] if limit == 'total_max_size' else [endpoint]))
        error = make_pool_timeout(
            f'{observer.pool_text}: timed out after {seconds(timeout)} {what % observer.text(endpoint)}'
            f'{describe(holders)}',
            observer.name,
            core.now() - deadline + timeout,
            phase=phase,
            endpoint=observer.shown(endpoint),
            limit=limit,
            stats=stats,
            holders=holders[:3],
        )
        # The core keeps the error of an outage, the observer that of a single connect that failed while others waited.
        # If neither has one, the cause is None: the error of the cancelled call, which this one replaces, says nothing.
        began = deadline - timeout
        error.__cause__ = core.last_connect_error(endpoint, began) or observer.connect_error(endpoint, began)
        if not error.waiting and phase != 'slot':
            observer.forget_connect_error(endpoint)
        self._tell(
            'timeout',
            endpoint,
            f'an acquire timed out after {seconds(timeout)} {what}',
            level='debug',
            reason=phase,
            duration=error.waited,
            error=error.__cause__,
        )
        return error

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
        """Number of idle connections of each endpoint that are core, kept until ``max_lifetime``."""
        return self._core.min_idle

    @property
    def min_size(self) -> int:
        """Number of connections that are kept for each live endpoint."""
        return self._core.min_size

    @property
    def create_in_background(self) -> bool:
        """Whether the pool itself connects for acquires."""
        return self._core.creates_in_background

    @property
    def max_connecting(self) -> int:
        """Maximum number of connections to one endpoint that are created at the same time; 0 for no limit."""
        return self._core.max_connecting

    @property
    def create_timeout(self) -> float:
        """Seconds that a connect by the pool itself may take."""
        return self._create_timeout

    @property
    def reconnect_timeout(self) -> float:
        """Seconds of an outage after which ``reconnect_failed`` is called; 0: an acquire raises its connect error."""
        return self._core.reconnect_timeout

    @property
    def fail_fast(self) -> bool:
        """Whether acquires fail at once during an outage."""
        return self._core.fails_fast

    @property
    def wait_when_full(self) -> bool:
        """Whether acquires wait when the server refuses a connection because it is full."""
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
    def max_waiting(self) -> int:
        """Maximum number of acquires that wait at one endpoint; 0 for no limit."""
        return self._core.max_waiting

    @property
    def max_workers(self) -> int:
        """Maximum number of connections created, checked and closed in the background at once; 0 for no limit."""
        return self._core.max_workers

    @property
    def order(self) -> str:
        """Which extra connection is served first: ``'lifo'`` or ``'fifo'``."""
        return self._core.order

    @property
    def keep(self) -> str:
        """When a returned connection becomes core: ``'size'`` or ``'idle'``."""
        return self._core.keep

    @property
    def check_interval(self) -> float:
        """Seconds after its last use during which a connection is served without a check (HikariCP, pgxpool)."""
        return self._check_interval

    @property
    def check_timeout(self) -> float | None:
        """Seconds that one check may take, None for the time that the acquire has left."""
        return self._check_timeout

    @property
    def closed(self) -> bool:
        """Whether the pool was closed. Connections may still be in use; they are closed when they are returned."""
        return self._core.closed

    @property
    def close_timeout(self) -> float | None:
        """Seconds that leaving a ``with`` block of the pool waits for connections in use; None for no limit."""
        return self._close_timeout

    @property
    def keepalive_interval(self) -> float:
        """Seconds after its last use or check at which an idle connection is checked in the background; 0 for never."""
        return self._core.keepalive_interval

    @property
    def lifetime_jitter(self) -> float:
        """The largest fraction of ``max_lifetime`` by which a connection's lifetime is shortened."""
        return self._core.lifetime_jitter

    @property
    def max_uses(self) -> int:
        """Number of acquires after which a connection is closed; 0 for no limit."""
        return self._core.max_uses

    @property
    def record_holders(self) -> bool:
        """Whether the pool records who acquires each connection, and where."""
        return self._core.records_holders

    @property
    def leak_threshold(self) -> float | None:
        """Seconds in use after which a connection counts as leaked; None if the pool does not look for leaks."""
        return self._holding.leak_threshold

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
        core = self._core
        stats = core.stats()
        states = (
            ('closed, ', core.closed),
            ('not open, ', not core.opened),
            ('suspended, ', core.is_suspended),
            ('', True),
        )
        state = next(name for name, is_so in states if is_so)
        # An object whose __init__ was not called has no name.
        observer: Observer | None = self._observer
        name = '' if observer is None else f' {observer.name!r}'
        return (
            f'<{type(self).__module__}.{type(self).__qualname__}{name}: {state}{stats["in_use"]}/{core.total_max_size} '
            f'in use, {stats["idle"]} idle, {stats["waiting"]} waiting>'
        )
