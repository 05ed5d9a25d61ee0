"""The generic pools underneath those of this package, and their connection manager.

The half for threads is generated from the half for asyncio.
"""

import math
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from gcpool._core import Entry
from gcpool._signal_handlers import is_of_signal_handler
from gcpool.asyncio import BaseConnectionManager, ConnectionPool, NullConnectionPool
from gcpool.exceptions import ConnectionPoolClosedError

from ._driver import OPERATIONAL_ERROR
from ._runtime_asyncio import end_creates
from .base import LEAST_RECONNECT_TIMEOUT, UNLIMITED, AttemptWithBackoff, logger

__all__ = ['ENDPOINT', 'AsyncEngine', 'AsyncManager', 'AsyncNullEngine', 'client_deadline']

#: The one endpoint of each pool.
ENDPOINT: Final = 'postgresql'

# When the timeout expires of the client of a null pool that connects in its own task or thread.
client_deadline: 'ContextVar[float | None]' = ContextVar('client_deadline', default=None)

# Seconds that a connect may take: the driver has its own limit.
NO_LIMIT = 1e9
# The shortest max_idle that has an effect.
LEAST_MAX_IDLE = 0.01
# The largest fraction by which max_lifetime is shortened.
LIFETIME_JITTER = 0.05
# Seconds that close() waits for connects that are under way: the server may never answer.
PATIENCE_WITH_CONNECTS = 0.25


class CallbackError(OPERATIONAL_ERROR):
    """``conninfo``, ``kwargs`` or ``configure`` has raised SystemExit where no client can receive it."""


class AsyncManager(BaseConnectionManager[str, Any]):
    """Makes and closes the connections of a pool, to which it holds no strong reference.

    :ivar shrink_at: when the pool next looks whether it has too many connections; infinite if it has at most
        ``min_size``
    :ivar fewest_idle: the smallest number of idle connections since the pool looked last
    """

    def __init__(self, pool: Any):
        self.pool = weakref.ref(pool)
        self.shrink_at = math.inf
        self.fewest_idle = 0

    async def create(self, endpoint: str, timeout: float | None = None) -> Any:
        """Connect, and configure the connection."""
        pool = self.pool()
        if pool is None:
            raise ConnectionPoolClosedError('the pool is gone')
        deadline = client_deadline.get()
        try:
            conn = await pool._new_connection(deadline)
        except SystemExit as exc:
            # A null pool connects in the task or thread of its client.
            if deadline is not None or is_of_signal_handler(exc):
                raise
            # SystemExit would end the task or thread of the pool, and on asyncio the loop's run.
            raise CallbackError(f'connecting in {pool.name!r} was ended by {type(exc).__name__}: {exc}') from exc
        self.watch_size(pool)
        return conn

    async def dispose(self, endpoint: str, conn: Any, timeout: float | None = None) -> None:
        """Close a connection."""
        await close_connection(conn)

    def watch_size(self, pool: Any, fewest_idle: int = 0) -> None:
        """Have the pool shrink again if it has more than ``min_size`` connections."""
        engine = pool._engine
        if pool._is_null or self.shrink_at < math.inf or engine._core.endpoint_size(ENDPOINT) <= pool.min_size:
            return
        self.fewest_idle = fewest_idle
        self.shrink_at = engine._core.now() + max(pool.max_idle, LEAST_MAX_IDLE)
        engine._collector.wake()

    async def tell_outage(self) -> None:
        """Connects have failed for ``reconnect_timeout`` seconds."""
        pool = self.pool()
        if pool is None:
            return
        logger.warning(
            'all reconnection attempts of the pool %r have failed for %s s', pool.name, pool.reconnect_timeout
        )
        try:
            await pool.reconnect_failed()
        except (Exception, SystemExit) as exc:
            logger.warning('reconnect_failed of the pool %r failed: %s: %s', pool.name, type(exc).__name__, exc)


async def close_connection(conn: Any) -> None:
    """Close a connection, and do not return it to the pool, as its own ``close()`` may do."""
    conn._pool = None
    await type(conn).close(conn)


async def tell_outage(engine: Any, _endpoint: str, _error: BaseException) -> None:
    """The generic pool's ``reconnect_failed``."""
    await engine._manager.tell_outage()


class AsyncEngineMethods:
    """The methods that both generic pools have in addition."""

    if TYPE_CHECKING:
        # Of the generic pool.
        _collector: Any

        @property
        def _core(self) -> Any: ...
        @property
        def _manager(self) -> Any: ...
        def _end_checks(self) -> None: ...
        def _known_limits(self) -> Any: ...
        async def _dispose_doomed(self, deadline: float | None = None) -> None: ...
        async def _end_tasks(self, deadline: float | None) -> None: ...

    def begin(self, size: int) -> None:
        """Open the pool, and begin to fill it."""
        if self._core.open(self._core.now()) and self._collector is not None:
            self._collector.start()
        self.fill(size)

    def fill(self, size: int) -> None:
        """Keep this many connections."""

    async def close_unused(self, timeout: float) -> None:
        """Close the pool. Connections in use are closed when they are returned."""
        core = self._core
        deadline = core.now() + max(timeout, 0.0)
        core.close()
        if self._collector is not None:
            self._collector.stop()
        self._end_checks()
        await self._dispose_doomed(deadline)
        await end_creates(self, min(max(timeout, 0.0), PATIENCE_WITH_CONNECTS))
        await self._end_tasks(core.now() if core.stats()['creating'] else deadline)

    def set_max_waiting(self, max_waiting: int) -> None:
        """Change a limit that closes no connection."""
        changed = False
        while not changed:
            known = self._known_limits()
            limits = known.changed(max_waiting=max_waiting)
            changed = self._core.resize(self._core.now(), **limits.as_dict(), limits=limits, expected=known)

    def __del__(self) -> None:
        """Do not warn of a pool that was dropped and never closed: psycopg_pool does not."""

    def _tell(self, kind: str | None, endpoint: Any, message: str, *args: object, **options: Any) -> None:
        # The logger of the pool is psycopg.pool. Records of the generic pool's own logger are for debugging.
        super()._tell(kind, endpoint, message, *args, **{**options, 'level': 'debug'})  # type: ignore[misc]

    def _tell_of_pool(self, kind: str | None, message: str, *args: object, **options: Any) -> None:
        super()._tell_of_pool(kind, message, *args, **{**options, 'level': 'debug'})  # type: ignore[misc]


class AsyncEngine(AsyncEngineMethods, ConnectionPool[str, Any]):
    """The generic pool of a pool that keeps connections.

    All of its idle connections are core: served in turn, and never closed because they were not used.
    """

    def __init__(self, manager: AsyncManager, pool: Any, max_size: int | None = None):
        size = max_size or pool.max_size
        super().__init__(
            manager,
            idle_timeout=pool.max_lifetime,
            max_lifetime=pool.max_lifetime,
            min_idle=size,
            max_size=size,
            total_max_size=UNLIMITED,
            background_collector=True,
            create_timeout=NO_LIMIT,
            open=False,
            create_in_background=True,
            max_connecting=1,
            reconnect_timeout=max(pool.reconnect_timeout, LEAST_RECONNECT_TIMEOUT),
            reconnect_failed=tell_outage,
            max_waiting=pool.max_waiting,
            lifetime_jitter=LIFETIME_JITTER,
            name=pool.name,
            _random=AttemptWithBackoff.draw,
        )

    def fill(self, size: int) -> None:
        """Keep this many connections, and connect now if connects fail."""
        self.warm_up(ENDPOINT, size)
        self._core.retry_now(ENDPOINT, self._core.now())

    async def _grow_failed(self, ticket: Entry, error: BaseException) -> None:
        # Reported first, because the callback of an outage comes after that.
        pool = self._manager.pool()
        if pool is not None:
            logger.warning('error connecting in %r: %s', pool.name, error)
        await super()._grow_failed(ticket, error)
        delay = self._core.next_timer() - self._core.now()
        if pool is not None and delay < math.inf:
            logger.info('next reconnection attempt of the pool %r in %.2f s', pool.name, max(delay, 0.0))

    def _due_in(self) -> float | None:
        due: float | None = super()._due_in()
        shrink_at = self._manager.shrink_at
        if shrink_at == math.inf:
            return due
        left: float = max(shrink_at - self._core.now(), 0.0)
        return left if due is None else min(due, left)

    async def _collect(self) -> float | None:
        await self._shrink()
        due: float | None = await super()._collect()
        return due

    async def _shrink(self) -> None:
        """Close one connection if, since the last time, at least one was idle all the time."""
        manager, core = self._manager, self._core
        pool = manager.pool()
        now = core.now()
        if pool is None or now < manager.shrink_at:
            return
        unused = manager.fewest_idle
        surplus = core.endpoint_size(ENDPOINT) - pool.min_size
        manager.fewest_idle = core.endpoint_size(ENDPOINT, False)
        manager.shrink_at = now + max(pool.max_idle, LEAST_MAX_IDLE) if surplus > 0 else math.inf
        # The connection that was unused for longest. None if a client waits.
        conn = self.try_acquire(ENDPOINT) if surplus > 0 and unused > 0 else None
        if conn is not None:
            manager.fewest_idle -= 1
            logger.info(
                'shrinking the pool %r: %s of its connections were not used within %s s',
                pool.name,
                unused,
                pool.max_idle,
            )
            await self.discard(conn)
            if surplus == 1:
                manager.shrink_at = math.inf


class AsyncNullEngine(AsyncEngineMethods, NullConnectionPool[str, Any]):
    """The generic pool of a null pool: its clients connect themselves."""

    def __init__(self, manager: AsyncManager, pool: Any):
        super().__init__(
            manager,
            max_size=pool.max_size or None,
            max_lifetime=pool.max_lifetime,
            create_timeout=NO_LIMIT,
            open=False,
            max_waiting=pool.max_waiting,
            lifetime_jitter=LIFETIME_JITTER,
            name=pool.name,
        )
