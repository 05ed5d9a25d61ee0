"""The connection pool for asyncio. :py:mod:`gcpool.threading` is generated from this module."""

from collections.abc import Callable
from typing import Any, Generic

from ._core import PARALLEL_DISPOSALS, Entry, Waiter, logger
from ._parameters import (
    Hooks,
    check_acquired,
    check_check_parameters,
    check_facade_parameters,
    check_keepalive,
    check_manager,
    check_optional_seconds,
    check_reconnecting,
    make_core,
)
from ._runtime_asyncio import AsyncRuntime
from ._time_limits import get_deadline, seconds
from ._workers.collector_asyncio import AsyncCollector
from .common import BaseConnectionPool
from .exceptions import ConnectionPoolClosedError, PoolTimeout
from .managers import AsyncConnectionManager as BaseConnectionManager
from .managers import ConnectionT, EndpointT

__all__ = ['BaseConnectionManager', 'ConnectionPool', 'ConnectionT', 'EndpointT']


class ConnectionPool(
    AsyncRuntime[EndpointT, ConnectionT], BaseConnectionPool[EndpointT, ConnectionT], Generic[EndpointT, ConnectionT]
):
    """A pool of connections to any number of endpoints.

    The first ``min_idle`` idle connections of an endpoint are *core*: served in turn, kept until ``max_lifetime``. The
    others are *extra*: the last one returned is served first, and one not used for ``idle_timeout`` is closed.
    Parameters and behaviour are those of generic-connection-pool.

    :param connection_manager: creates, checks and closes connections
    :param idle_timeout: seconds after which an unused extra connection is closed
    :param max_lifetime: seconds after which any connection is closed; if it is in use then, when it is returned
    :param min_idle: how many idle connections of an endpoint are core
    :param max_size: maximum number of connections to one endpoint
    :param total_max_size: maximum number of connections to all endpoints. When it is reached, an acquire that needs a
        new connection first closes the idle connection that expires soonest, of whichever endpoint.
    :param acquire_timeout: seconds that an acquire may take if it is given no timeout; None for no limit
    :param background_collector: whether a background worker closes expired connections. If not, each release does.
    :param dispose_batch_size: maximum number of connections that one release closes; 0 for ``int(log2(size + 1)) + 1``
    :param dispose_timeout: seconds that closing one connection may take; None for no limit. An acquire waits for a
        close no longer than its own timeout: a task or a thread of the pool closes the connection.
    :param create_timeout: seconds that a connect of the pool's own may take, in the background or in an outage; None
        for 30. A connect of an acquire has the time that the acquire has left.
    :param min_size: number of connections that are kept for each live endpoint, those in use included (psycopg_pool,
        HikariCP). An endpoint is live while connections are in use or waited for, and for ``idle_timeout`` after that:
        then all are closed, core or not.
    :param create_in_background: whether the pool itself connects for acquires that find no idle connection. An acquire
        then takes the first connection that is returned or created (HikariCP), so a spike opens few connections.
    :param max_connecting: how many connections to one endpoint are created at a time; beyond that, acquires wait for a
        connection that is returned, or for a place to connect. 0 for no limit; None for 2 with
        ``create_in_background``, else 0.
    :param reconnect_timeout: 0: an acquire gets the error of a failed connect. Otherwise acquires wait while an
        endpoint cannot be connected to, up to their own timeouts; the pool makes one attempt at a time, with pauses
        between. After so many seconds it calls ``reconnect_failed``, and goes on.
    :param reconnect_failed: called with the pool, the endpoint and the last error, once an outage; a function, on
        asyncio also a coroutine function
    :param wait_when_full: whether an acquire goes on waiting when the server refuses a connection because it is full,
        as the manager's ``is_refusal`` tells
    :param fail_fast: whether acquires fail at once with :py:exc:`EndpointDown` while connects to an endpoint fail and
        none of its connections is in use; one acquire at a time tries again
    :param check_interval: seconds after its last use for which a connection is served without ``check_aliveness``; 0
        for a check each time (HikariCP, pgxpool). When a connection is found dead, the endpoint's older connections
        are suspect: each is checked before it is served, however recently it was used.
    :param check_timeout: seconds that one check may take; a connection that does not answer in time is dead. None for
        the time that the acquire has left; when that expires, the acquire ends. An acquire waits so long once: after
        that the pool checks the endpoint's other connections in the background, and the acquire connects.
    :param keepalive_interval: seconds for which an idle connection is neither used nor checked until the pool checks it
        in the background, each a little earlier (up to 10 %); 0 for never. Less than ``max_lifetime``. Of each endpoint
        one connection at a time. A check takes ``check_timeout`` at most, or 5 s if that is None.
    :param lifetime_jitter: by which part of ``max_lifetime``, 0 to 1, a connection's lifetime is shorter at most. Drawn
        once for each connection, so that connections created together are not closed together.
    :param max_uses: how often a connection is acquired before it is closed, when it is returned; 0 for no limit
    :raises TypeError: when a parameter has a wrong type, or the manager is for the other runtime
    :raises ValueError: when a parameter is out of range, or two contradict each other
    """

    def __init__(
        self,
        connection_manager: BaseConnectionManager[EndpointT, ConnectionT],
        *,
        idle_timeout: float = 60.0,
        max_lifetime: float = 3600.0,
        min_idle: int = 1,
        max_size: int = 10,
        total_max_size: int = 100,
        acquire_timeout: float | None = None,
        background_collector: bool = False,
        dispose_batch_size: int = 0,
        dispose_timeout: float | None = None,
        create_timeout: float | None = None,
        min_size: int = 0,
        create_in_background: bool = False,
        max_connecting: int | None = None,
        reconnect_timeout: float = 0.0,
        reconnect_failed: Callable[[Any, EndpointT, BaseException], object] | None = None,
        wait_when_full: bool = False,
        fail_fast: bool = False,
        check_interval: float = 0.0,
        check_timeout: float | None = None,
        keepalive_interval: float = 0.0,
        lifetime_jitter: float = 0.0,
        max_uses: int = 0,
        _clock: Callable[[], float] | None = None,
        _random: Callable[[], float] | None = None,
    ):
        check_manager(connection_manager, asynchronous=AsyncRuntime.asynchronous)
        acquire_timeout, dispose_timeout, dispose_batch_size = check_facade_parameters(
            acquire_timeout, dispose_timeout, dispose_batch_size, background_collector
        )
        check_interval, check_timeout = check_check_parameters(check_interval, check_timeout)
        hooks = Hooks(connection_manager, BaseConnectionManager)
        create_limit, reconnect_timeout = check_reconnecting(
            connection_manager,
            hooks,
            create_timeout=create_timeout,
            reconnect_timeout=reconnect_timeout,
            reconnect_failed=reconnect_failed,
            wait_when_full=wait_when_full,
            fail_fast=fail_fast,
            asynchronous=AsyncRuntime.asynchronous,
        )
        collector = None
        keepalive = check_keepalive(keepalive_interval, connection_manager, hooks.checks)
        if background_collector or keepalive:
            collector = AsyncCollector(self, 'gcpool-collector')
        core = make_core(
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
            min_idle=min_idle,
            max_size=max_size,
            total_max_size=total_max_size,
            collects=background_collector,
            wake_collector=None if collector is None or not background_collector else collector.wake,
            clock=_clock,
            normalize=hooks.normalize,
            lifetime_jitter=lifetime_jitter,
            max_uses=max_uses,
            random=_random,
            keepalive_interval=keepalive_interval,
            wake_checker=None if collector is None else collector.wake,
            min_size=min_size,
            create_in_background=create_in_background,
            max_connecting=max_connecting,
            reconnect_timeout=reconnect_timeout,
            fail_fast=fail_fast,
            waits_when_full=wait_when_full,
        )
        super().__init__(
            core,
            connection_manager,
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
            watches_outages=reconnect_timeout > 0 or fail_fast or wait_when_full,
        )
        self._tasks = set()
        self._signals = set()
        self._collector = collector
        if collector is not None and background_collector:
            collector.start()

    async def get_endpoint_pool_size(self, endpoint: EndpointT, acquired: bool | None = None) -> int:
        """Return the number of connections to an endpoint; 0 if the pool does not know the endpoint.

        :param endpoint: the endpoint
        :param acquired: True counts connections in use, False idle ones, None all, including those being created or
            closed
        :raises TypeError: when ``endpoint`` is not hashable, or ``acquired`` is anything else
        """
        check_acquired(acquired)
        return self._core.endpoint_size(endpoint, acquired)

    async def check(self, endpoint: EndpointT | None = None) -> int:
        """Check the connections that are idle now, and close the dead ones.

        Of each endpoint one at a time, so that the others stay available. A check is no use of the connection, and may
        take ``check_timeout``, or 5 s if that is None; errors of ``check_aliveness`` are logged. On threads, the caller
        checks; on asyncio, tasks of the pool do.

        :param endpoint: whose connections are checked; None for those of all endpoints
        :return: how many connections were dead, and are closed
        :raises TypeError: when the manager has no ``check_aliveness``, or ``endpoint`` is not hashable
        :raises ConnectionPoolClosedError: when the pool is closed
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop
        """
        core = self._core
        self._check_loop()
        if not self._checks:
            raise TypeError(f'connection_manager {self._manager!r} has no check_aliveness(): there is nothing to check')
        if core.closed:
            raise ConnectionPoolClosedError('the pool is closed: no connection can be checked')
        return await self._check_groups(core.idle_entries(endpoint))

    async def close(self, timeout: float | None = None) -> int:
        """Close the pool: refuse new acquires, end the waiting ones, close every connection.

        Waits for connections in use and closes each when it is returned. Connections still in use when the timeout
        expires are closed all the same, and their release does nothing. Closing a closed pool waits in the same way.
        After this returns, no task, timer or thread of the pool is at work. On asyncio, closes that are running when
        the timeout expires are cancelled; a close that continues, or that runs in a thread, is logged.

        :param timeout: seconds to wait for connections in use, and to close the others; 0 to not wait, None for no
            limit. After the timeout each close still gets 0.1 s, or 1 ms once the call is nearly 0.5 s late.
        :return: how many connections were still in use when the timeout expired (psycopg_pool logs a warning)
        :raises TypeError: when ``timeout`` is not a number; the pool is not closed then
        :raises ValueError: when ``timeout`` is negative or NaN; the pool is not closed then
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop; the pool is not closed then
        :raises BaseException: what ``dispose`` raises that is no Exception (an Exception is logged). Threads get it
            after the other connections are closed; asyncio lets KeyboardInterrupt and SystemExit end the event loop's
            run.
        """
        core = self._core
        deadline = get_deadline(core.now(), check_optional_seconds('timeout', timeout))
        waiter = Waiter(None)
        signal = self._arm(waiter)
        core.close()
        self._end_checks()
        if self._collector is not None:
            self._collector.stop()
        await self._dispose_doomed(deadline)
        try:
            emptied = not core.watch_empty(waiter)
            if not emptied:
                logger.info('closing the pool: waiting for %d connections to be returned or closed', core.size)
                emptied = await self._wait(signal, deadline, core.unwatch, waiter)
        except BaseException:
            core.unwatch(waiter)
            raise
        unreleased = 0
        if not emptied:
            unreleased = core.doom_acquired()
            if unreleased:
                logger.warning(
                    'closing the pool: %d connections were not released within %s', unreleased, seconds(timeout)
                )
            await self._dispose_doomed(deadline)
        await self._end_tasks(deadline)
        return unreleased

    async def _serve(self, waiter: Waiter, timeout: float | None, found_dead: bool, since: float | None = None) -> None:
        """Drive a waiter until it holds an acquired connection. When this raises, the caller cancels the waiter.

        :param waiter: holds nothing, or, if ``found_dead``, a connection that was found dead
        :param timeout: seconds to wait at most, None for no limit
        :param since: when the time limit began to count, None for now
        """
        core = self._core
        endpoint = waiter.endpoint
        began = core.now() if since is None else since
        deadline = get_deadline(began, timeout)
        while True:
            signal = self._arm(waiter)
            queued = await self._ask(waiter, found_dead, deadline, timeout)
            if queued and not await self._wait(signal, deadline, core.give_up, waiter):
                raise PoolTimeout(self._describe_timeout(endpoint, timeout)) from core.last_connect_error(
                    endpoint, began
                )
            if waiter.refused:
                raise ConnectionPoolClosedError(f'the pool is closed: no connection to {endpoint!r} can be acquired')
            self._raise_failure(waiter)
            if waiter.has_ticket:
                if await self._connect(waiter, deadline, timeout):
                    break
                found_dead = False
                continue
            found_dead = False
            if not self._must_check(waiter):
                break
            # One check_timeout is enough. After that the pool checks what this acquire is served, in the background,
            # while it goes on to the next connection, or connects in the place of the dead one.
            if waiter.check_timed_out and core.leave_check_to_pool(waiter, core.now()):
                continue
            if await self._check(waiter, deadline, timeout):
                break
            found_dead = True
        if self._hooks_acquire and core.still_holds(waiter):
            await self._manager.on_acquire(waiter.endpoint, waiter.served.conn)
        core.must_hold(waiter, endpoint)

    async def _ask(self, waiter: Waiter, found_dead: bool, deadline: float | None, timeout: float | None) -> bool:
        """Ask the core for a connection, or for another one, and start the closes that this needs.

        :return: whether the waiter is queued
        """
        core = self._core
        if found_dead:
            core.reject_dead(waiter)
        dead_entry = waiter.dead_entry if self._hooks_dead else None
        if dead_entry is not None and waiter.check_timed_out:
            # The close may take as long as the check: this acquire does not wait for it.
            self._tell_when_closed(dead_entry)
            dead_entry = None
        queued = core.request(waiter, core.now())
        self._begin_disposals(deadline)
        if dead_entry is not None:
            await self._wait_until_closed(dead_entry, deadline, timeout)
            await self._manager.on_connection_dead(waiter.endpoint, dead_entry.conn)
        return queued

    async def _wait_until_closed(
        self, entry: Entry, deadline: float | None = None, timeout: float | None = None
    ) -> None:
        """Wait until the connection of an entry is closed, by whichever task or thread."""
        core = self._core
        watcher = Waiter(None)
        signal = self._arm(watcher)
        try:
            if core.watch_gone(watcher, entry) and not await self._wait(signal, deadline, core.unwatch, watcher):
                raise PoolTimeout(
                    f'a dead connection to {entry.endpoint!r} was not closed within the acquire timeout of '
                    f'{seconds(timeout)}'
                )
        except BaseException:
            core.unwatch(watcher)
            raise

    def _describe_timeout(self, endpoint: EndpointT, timeout: float | None) -> str:
        core = self._core
        return (
            f'no connection to {endpoint!r} became free within {seconds(timeout)}: '
            f'{core.endpoint_size(endpoint, True)} of at most {core.max_size} are in use, '
            f'{core.size} of at most {core.total_max_size} exist in all'
        )

    def _due_in(self) -> float | None:
        """Return the seconds until the next idle connection is due for a close or a check; None if none ever is."""
        core = self._core
        dues = [due for due in (core.next_due() if core.collects else None, core.next_check()) if due is not None]
        return max(min(dues) - core.now(), 0.0) if dues else None

    async def _collect(self) -> float | None:
        """Close what is due, and begin the checks that are. Return what :py:meth:`_due_in` does."""
        core = self._core
        if core.begin_due_checks(core.now()):
            self._begin_disposals()
        found = int(core.collects)
        while found:
            found = core.doom_due(core.now(), PARALLEL_DISPOSALS, True)
            # Also when nothing is due: being told the time, the core may have doomed a connection for a waiter.
            await self._dispose_due()
        return self._due_in()
