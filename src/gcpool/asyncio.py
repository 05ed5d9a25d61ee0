"""The connection pool for asyncio. :py:mod:`gcpool.threading` is generated from this module."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, Literal, cast

from ._callables import AsyncCallablesManager
from ._core import UNSET, Observer
from ._holders import Holding
from ._hooks import Hooks, check_manager
from ._lifecycle_asyncio import AsyncLifecycle
from ._limits import (
    DEFAULT_IDLE_TIMEOUT,
    DEFAULT_MAX_SIZE,
    DEFAULT_MIN_IDLE,
    DEFAULT_TOTAL_MAX_SIZE,
    Limits,
)
from ._long_waits import Waits
from ._parameter_names import naming_parameters
from ._parameters import (
    MAX_SIZE,
    check_acquired,
    check_check_parameters,
    check_facade_parameters,
    check_flag,
    check_keepalive,
    check_leak_threshold,
    check_name,
    check_on_event,
    check_optional_seconds,
    check_reconnecting,
    check_unlimited,
    make_core,
    refuse_minimum,
    refuse_parameters_of_idle,
)
from ._pools import register
from ._workers.collector_asyncio import AsyncCollector
from ._workers.events_asyncio import AsyncEvents
from .common import ALL_ENDPOINTS, AllEndpoints, BaseConnectionPool
from .exceptions import ConnectionPoolClosedError
from .managers import AsyncConnectionManager as BaseConnectionManager
from .managers import ConnectionT, EndpointT
from .observers import PoolEvent

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._callables import AsyncCheck as Check
    from ._callables import AsyncCreate as Create
    from ._callables import AsyncDispose as Dispose
    from ._callables import AsyncHook as Hook
    from ._callables import AsyncJudge as Judge
    from ._callables import Describe, ErrorJudge, NewConnectionT, NewEndpointT
    from ._parameters import NullPoolParameters, PoolParameters

__all__ = ['BaseConnectionManager', 'ConnectionPool', 'ConnectionT', 'EndpointT', 'NullConnectionPool']


class ConnectionPool(
    AsyncLifecycle[EndpointT, ConnectionT], BaseConnectionPool[EndpointT, ConnectionT], Generic[EndpointT, ConnectionT]
):
    """A pool of connections to any number of endpoints.

    The first ``min_idle`` idle connections of an endpoint are *core*: served in turn, kept until ``max_lifetime``. The
    others are *extra*: the last one returned is served first, and one not used for ``idle_timeout`` is closed.
    Parameters and behaviour are those of generic-connection-pool.

    :param connection_manager: creates, checks and closes connections
    :param idle_timeout: seconds after which an unused extra connection is closed
    :param max_lifetime: seconds after which any connection is closed; a connection in use at that time is closed when
        it is returned
    :param min_idle: number of idle connections of each endpoint that are core
    :param max_size: maximum number of connections to one endpoint
    :param total_max_size: maximum number of connections to all endpoints. When it is reached, an acquire that needs a
        new connection first closes the idle connection, of any endpoint, that was unused for longest.
    :param acquire_timeout: seconds that an acquire without a ``timeout`` may take; None for no limit
    :param background_collector: whether a background worker closes expired connections. If not, each release does.
    :param dispose_batch_size: maximum number of connections that one release closes; 0 for ``int(log2(size + 1)) + 1``
    :param dispose_timeout: seconds that closing one connection may take; None for no limit. An acquire waits for a
        close no longer than its own timeout: a task or a thread of the pool closes the connection.
    :param create_timeout: seconds that a connect by the pool itself may take, in the background or in an outage; None
        for 30. A connect by an acquire may take the rest of the acquire's timeout.
    :param max_workers: maximum number of connections that the pool's daemon threads (on asyncio: tasks) create, check
        and close in the background at the same time. 0 for no limit except 64 closes and 16 checks, so that no job
        waits for one that hangs. Work that a release, ``close``, ``check`` or an acquire does itself does not count.
    :param open: whether the pool serves acquires as soon as it is built. If not, it starts nothing until
        :py:meth:`open` or an ``async with`` block opens it.
    :param close_timeout: seconds that leaving an ``async with`` block of the pool waits for connections in use, and to
        close the others (as ``timeout`` of :py:meth:`close`); None for no limit
    :param min_size: number of connections that are kept for each live endpoint, those in use included (psycopg_pool,
        HikariCP). An endpoint is live while connections are in use or waited for, and for ``idle_timeout`` after that:
        then all are closed, core or not.
    :param create_in_background: whether the pool itself connects for acquires that find no idle connection. An acquire
        then takes the first connection that is returned or created (HikariCP), so a spike opens few connections.
    :param max_connecting: maximum number of connections to one endpoint that are created at the same time; further
        acquires wait until one is returned, or until they may connect. 0 for no limit; None for 2 with
        ``create_in_background``, else 0.
    :param reconnect_timeout: 0: a failed connect raises its error in the acquire. Otherwise acquires wait, up to their
        own timeouts, while connects to the endpoint fail, and the pool makes one attempt at a time, with pauses
        between. After an outage of this many seconds, the pool calls ``reconnect_failed`` and continues.
    :param reconnect_failed: called with the pool, the endpoint and the last error, once per outage; a function, or on
        asyncio a coroutine function
    :param wait_when_full: whether an acquire keeps waiting when the server refuses a connection because it is full,
        according to the manager's ``is_refusal``
    :param fail_fast: whether acquires fail at once with :py:exc:`EndpointDown` while connects to an endpoint fail and
        none of its connections is in use; one acquire at a time tries again
    :param check_interval: seconds after its last use during which a connection is served without ``check_aliveness``; 0
        for a check each time (HikariCP, pgxpool). When a connection is found dead, the endpoint's older connections
        are suspect: each is checked before it is served, however recently it was used.
    :param check_timeout: seconds that one check may take; a connection that does not answer in time is dead. None for
        the time that the acquire has left; when that expires, the acquire ends. An acquire waits for this only once:
        after that the pool checks the endpoint's other connections in the background, and the acquire connects.
    :param keepalive_interval: seconds after the last use or check of an idle connection at which the pool checks it in
        the background, up to 10 % earlier; 0 for never. Must be less than ``max_lifetime``. Only one connection of each
        endpoint is checked at a time. A check may take ``check_timeout``, or 5 s if that is None.
    :param lifetime_jitter: the largest fraction of ``max_lifetime``, 0 to 1, by which a connection's lifetime is
        shortened at random, so that connections created together are not closed together
    :param max_uses: number of acquires after which a connection is closed, when it is returned; 0 for no limit
    :param order: which extra connection is served first: ``'lifo'``, the last one returned, or ``'fifo'``, the one
        unused for longest, so that all of them stay in use
    :param keep: when a returned connection becomes core: ``'size'``, if the idle core connections and those in use are
        fewer than ``min_idle``; ``'idle'``, if the idle core connections alone are (SQLAlchemy)
    :param max_waiting: maximum number of acquires that wait at one endpoint; a further one raises ``TooManyRequests``
        at once. 0 for no limit
    :param name: the name of the pool in its messages, log records and events, and in the names of its threads and
        tasks; None for ``gcpool-1``, ``gcpool-2`` and so on, in the order in which the pools are built
    :param record_holders: whether the pool records which thread or task acquires each connection, and where: for
        :py:meth:`holders`, and for ``PoolTimeout``
    :param leak_threshold: seconds in use after which the pool logs a connection as leaked, with its holder and where it
        was acquired; the connection stays with its holder. None for never; turns ``record_holders`` on.
    :param on_event: called with a :py:class:`gcpool.common.PoolEvent` for everything that happens besides acquires and
        releases that find a connection ready. A thread or task of the pool calls it for one event after another, so it
        may take time, and may use or close the pool; later events wait until it returns. Its exceptions are logged. May
        be a coroutine function on asyncio.
    :raises TypeError: when a parameter has a wrong type, or the manager is for the other runtime
    :raises ValueError: when a parameter is out of range, or two contradict each other
    """

    @naming_parameters
    def __init__(
        self,
        connection_manager: BaseConnectionManager[EndpointT, ConnectionT],
        *,
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
        max_lifetime: float = 3600.0,
        min_idle: int = DEFAULT_MIN_IDLE,
        max_size: int = DEFAULT_MAX_SIZE,
        total_max_size: int = DEFAULT_TOTAL_MAX_SIZE,
        acquire_timeout: float | None = None,
        background_collector: bool = False,
        dispose_batch_size: int = 0,
        dispose_timeout: float | None = None,
        create_timeout: float | None = None,
        max_workers: int = 0,
        open: bool = True,  # noqa: A002
        close_timeout: float | None = 5.0,
        min_size: int = 0,
        order: Literal['lifo', 'fifo'] = 'lifo',
        keep: Literal['size', 'idle'] = 'size',
        create_in_background: bool = False,
        max_connecting: int | None = None,
        reconnect_timeout: float = 0.0,
        reconnect_failed: Callable[[Any, EndpointT, BaseException], object] | None = None,
        wait_when_full: bool = False,
        fail_fast: bool = False,
        max_waiting: int = 0,
        check_interval: float = 0.0,
        check_timeout: float | None = None,
        keepalive_interval: float = 0.0,
        lifetime_jitter: float = 0.0,
        max_uses: int = 0,
        name: str | None = None,
        record_holders: bool = False,
        leak_threshold: float | None = None,
        on_event: Callable[[PoolEvent], object] | None = None,
        _clock: Callable[[], float] | None = None,
        _random: Callable[[], float] | None = None,
        _keeps_idle: bool = True,
    ):
        check_manager(connection_manager, asynchronous=AsyncLifecycle.asynchronous)
        acquire_timeout, dispose_timeout, dispose_batch_size = check_facade_parameters(
            acquire_timeout, dispose_timeout, dispose_batch_size, background_collector
        )
        check_interval, check_timeout = check_check_parameters(check_interval, check_timeout)
        check_flag('open', open)
        close_timeout = check_optional_seconds('close_timeout', close_timeout)
        check_on_event(on_event, asynchronous=AsyncLifecycle.asynchronous)
        hooks = Hooks(connection_manager, BaseConnectionManager)
        name = check_name(name)
        events = None if on_event is None else AsyncEvents(on_event, name)
        create_limit, reconnect_timeout = check_reconnecting(
            connection_manager,
            hooks,
            create_timeout=create_timeout,
            reconnect_timeout=reconnect_timeout,
            reconnect_failed=reconnect_failed,
            wait_when_full=wait_when_full,
            fail_fast=fail_fast,
            asynchronous=AsyncLifecycle.asynchronous,
        )
        collector = None
        keepalive = check_keepalive(keepalive_interval, connection_manager, hooks.checks)
        leak_threshold = check_leak_threshold(record_holders, leak_threshold)
        if background_collector or keepalive or leak_threshold is not None:
            collector = AsyncCollector(self, f'gcpool-{name}-collector')
        core = make_core(
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
            limits=Limits(
                min_idle=min_idle,
                max_size=max_size,
                total_max_size=total_max_size,
                min_size=min_size,
                max_waiting=max_waiting,
                max_workers=max_workers,
            ),
            order=order,
            keep=keep,
            collects=background_collector,
            wake_collector=None if collector is None or not background_collector else collector.wake,
            clock=_clock,
            normalize=hooks.normalize,
            lifetime_jitter=lifetime_jitter,
            max_uses=max_uses,
            random=_random,
            keepalive_interval=keepalive_interval,
            wake_checker=None if collector is None else collector.wake,
            create_in_background=create_in_background,
            max_connecting=max_connecting,
            reconnect_timeout=reconnect_timeout,
            fail_fast=fail_fast,
            waits_when_full=wait_when_full,
            keeps_idle=_keeps_idle,
            opened=open,
            record_holders=record_holders,
            leak_threshold=leak_threshold,
            wake_leak_watch=None if collector is None else collector.wake,
        )
        super().__init__(
            core,
            connection_manager,
            observer=Observer(name, hooks.describe, events),
            acquire_timeout=acquire_timeout,
            dispose_timeout=dispose_timeout,
            dispose_batch_size=dispose_batch_size,
            checks=hooks.checks,
            hooks_acquire=hooks.acquire,
            hooks_release=hooks.release,
            hooks_dead=hooks.dead,
            judges=hooks.broken,
            broken_on_cancel=hooks.broken_on_cancel,
            check_interval=check_interval,
            check_timeout=check_timeout,
            create_timeout=create_limit,
            reconnect_failed=reconnect_failed,
            refusal=hooks.refusal if wait_when_full else None,
            hopeless=hooks.hopeless,
            watches_outages=reconnect_timeout > 0 or fail_fast or wait_when_full,
            default_endpoint=hooks.default_endpoint,
        )
        if events is not None:
            events.bind(self)
        self._waits = Waits(self)
        self._close_timeout = close_timeout
        self._holding = Holding(self, leak_threshold)
        self._collector = collector
        if collector is not None and background_collector and open:
            collector.start()
        register(self)

    @classmethod
    def from_callables(
        cls,
        create: 'Create[NewEndpointT, NewConnectionT]',
        dispose: 'Dispose[NewEndpointT, NewConnectionT] | None' = None,
        check_aliveness: 'Check[NewEndpointT, NewConnectionT] | None' = None,
        on_acquire: 'Hook[NewEndpointT, NewConnectionT] | None' = None,
        on_release: 'Hook[NewEndpointT, NewConnectionT] | None' = None,
        is_broken: 'Judge[NewEndpointT, NewConnectionT] | None' = None,
        *,
        is_refusal: 'ErrorJudge[NewEndpointT] | None' = None,
        is_hopeless: 'ErrorJudge[NewEndpointT] | None' = None,
        describe_endpoint: 'Describe[NewEndpointT] | None' = None,
        default_endpoint: Hashable = UNSET,
        **parameters: 'Unpack[PoolParameters]',
    ) -> 'ConnectionPool[NewEndpointT, NewConnectionT]':
        """Make a pool from functions, without a class for the connection manager.

        Each function takes the place of the method of the same name of :py:class:`BaseConnectionManager`, and receives
        the same arguments. On threads, ``create``, ``dispose`` and ``check_aliveness`` receive a time limit if they
        have a parameter ``timeout``; if it has a default, it is not passed where there is no limit. On asyncio all are
        coroutine functions, except ``is_refusal``, ``is_hopeless`` and ``describe_endpoint``; ``is_broken`` may be
        either. A function that is not given costs nothing.

        :param create: connects: ``create(endpoint)``
        :param dispose: closes a connection: ``dispose(endpoint, conn)``. None for its ``close()``; on asyncio its
            ``aclose()``, or else its ``close()``, is called, and awaited if it returns an awaitable.
        :param check_aliveness: whether a connection is alive: ``check_aliveness(endpoint, conn)``
        :param on_acquire: called before a connection is served: ``on_acquire(endpoint, conn)``
        :param on_release: called when a connection is returned: ``on_release(endpoint, conn)``
        :param is_broken: whether the exception of a block broke the connection: ``is_broken(endpoint, conn, exc)``
        :param is_refusal: whether a connect failed because the server is full: ``is_refusal(endpoint, exc)``.
            ``wait_when_full`` needs it.
        :param is_hopeless: whether another connect would fail as well: ``is_hopeless(endpoint, exc)``
        :param describe_endpoint: what messages show in place of an endpoint: ``describe_endpoint(endpoint)``
        :param default_endpoint: the endpoint of calls that name none
        :param parameters: those of the pool
        :raises TypeError: when a function is a coroutine function where a plain one is expected, or vice versa, or does
            not take these arguments; when ``default_endpoint`` is not hashable; and what the pool raises
        """
        manager: AsyncCallablesManager[Any, Any] = AsyncCallablesManager(
            create=create,
            dispose=dispose,
            check_aliveness=check_aliveness,
            on_acquire=on_acquire,
            on_release=on_release,
            is_broken=is_broken,
            is_refusal=is_refusal,
            is_hopeless=is_hopeless,
            describe_endpoint=describe_endpoint,
            default_endpoint=default_endpoint,
        )
        return cast('ConnectionPool[NewEndpointT, NewConnectionT]', cls(manager, **parameters))

    async def get_endpoint_pool_size(self, endpoint: EndpointT, acquired: bool | None = None) -> int:
        """Return the number of connections to an endpoint; 0 if the pool does not know the endpoint.

        :param endpoint: the endpoint
        :param acquired: True counts connections in use, False idle ones, None all, including those being created or
            closed
        :raises TypeError: when ``endpoint`` is not hashable, or ``acquired`` is anything else
        """
        check_acquired(acquired)
        return self._core.endpoint_size(endpoint, acquired)

    async def check(self, endpoint: EndpointT | AllEndpoints = ALL_ENDPOINTS) -> int:
        """Check the connections that are idle now, and close the dead ones.

        Only one connection of each endpoint is checked at a time, so that the others stay available. A check does not
        count as a use, and may take ``check_timeout``, or 5 s if that is None; errors of ``check_aliveness`` are
        logged. On threads, the caller checks; on asyncio, tasks of the pool do.

        :param endpoint: the endpoint whose connections are checked; all endpoints if not given
        :return: number of dead connections, which are closed
        :raises TypeError: when the manager has no ``check_aliveness``, or ``endpoint`` is not hashable
        :raises ConnectionPoolClosedError: when the pool is closed
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop
        """
        core = self._core
        self._check_loop()
        if not self._checks:
            raise TypeError(f'connection_manager {self._manager!r} has no check_aliveness(): there is nothing to check')
        if core.closed:
            raise ConnectionPoolClosedError(f'{self._observer.pool_text} is closed: no connection can be checked')
        groups = core.idle_entries() if endpoint is ALL_ENDPOINTS else core.idle_entries(endpoint)
        return await self._check_groups(groups)


class NullConnectionPool(ConnectionPool[EndpointT, ConnectionT], Generic[EndpointT, ConnectionT]):
    """A pool that keeps no idle connections.

    A returned connection goes to the acquire that has waited longest at its endpoint; if none waits, it is closed. Use
    this to limit the number of connections to a server that pools them itself, such as PgBouncer.

    :param connection_manager: creates, checks and closes connections
    :param max_size: maximum number of connections to one endpoint; None for no limit except ``total_max_size``
    :param total_max_size: maximum number of connections to all endpoints; None for no limit
    :param parameters: those of :py:class:`ConnectionPool`, except those of idle connections. A limit of None reads as
        2147483647.
    :raises TypeError: when a parameter has a wrong type, or is for idle connections
    :raises ValueError: when a parameter is out of range, or two contradict each other, or a minimum is not 0
    """

    @naming_parameters
    def __init__(
        self,
        connection_manager: BaseConnectionManager[EndpointT, ConnectionT],
        *,
        max_size: int | None = None,
        total_max_size: int | None = None,
        **parameters: 'Unpack[NullPoolParameters]',
    ):
        others: dict[str, Any] = {**parameters}
        refuse_parameters_of_idle(others)
        total = check_unlimited('total_max_size', total_max_size, MAX_SIZE)
        super().__init__(
            connection_manager,
            idle_timeout=0.0,
            min_idle=0,
            max_size=check_unlimited('max_size', max_size, total),
            total_max_size=total,
            _keeps_idle=False,
            **others,
        )

    def warm_up(self, endpoint: EndpointT = UNSET, size: int | None = None) -> None:
        """Raise ValueError: this pool keeps no idle connections.

        :raises ValueError: always, unless ``size`` is 0
        """
        if size != 0:
            raise ValueError(f'size={size!r}: a NullConnectionPool keeps no idle connections: expected 0')

    async def resize(
        self,
        *,
        min_idle: int | None = None,
        max_size: int | None = None,
        total_max_size: int | None = None,
        min_size: int | None = None,
        max_waiting: int | None = None,
        max_workers: int | None = None,
    ) -> None:
        """Change the limits, as :py:meth:`ConnectionPool.resize` does.

        :param min_idle: 0, or None
        :param max_size: as there; None leaves it unchanged
        :param total_max_size: the same
        :param min_size: 0, or None
        :param max_waiting: the same
        :param max_workers: the same
        :raises ValueError: when a minimum is not 0; and what :py:meth:`ConnectionPool.resize` raises
        """
        refuse_minimum('min_idle', min_idle)
        refuse_minimum('min_size', min_size)
        await super().resize(
            max_size=max_size, total_max_size=total_max_size, max_waiting=max_waiting, max_workers=max_workers
        )

    if TYPE_CHECKING:

        @classmethod
        def from_callables(  # type: ignore[override]
            cls,
            create: 'Create[NewEndpointT, NewConnectionT]',
            dispose: 'Dispose[NewEndpointT, NewConnectionT] | None' = None,
            check_aliveness: 'Check[NewEndpointT, NewConnectionT] | None' = None,
            on_acquire: 'Hook[NewEndpointT, NewConnectionT] | None' = None,
            on_release: 'Hook[NewEndpointT, NewConnectionT] | None' = None,
            is_broken: 'Judge[NewEndpointT, NewConnectionT] | None' = None,
            *,
            is_refusal: 'ErrorJudge[NewEndpointT] | None' = None,
            is_hopeless: 'ErrorJudge[NewEndpointT] | None' = None,
            describe_endpoint: 'Describe[NewEndpointT] | None' = None,
            default_endpoint: Hashable = UNSET,
            max_size: int | None = None,
            total_max_size: int | None = None,
            **parameters: 'Unpack[NullPoolParameters]',
        ) -> 'NullConnectionPool[NewEndpointT, NewConnectionT]':
            """Make a pool from functions, with the parameters of this class."""
            raise NotImplementedError
