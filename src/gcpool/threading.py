# Generated from src/gcpool/asyncio.py by .github/scripts/generate_threading.py; do not edit.

"""The connection pool for asyncio. :py:mod:`gcpool.threading` is generated from this module."""

from collections.abc import Callable
from typing import Generic

from ._core import Entry, Waiter, logger
from ._parameters import (
    Hooks,
    check_acquired,
    check_check_parameters,
    check_facade_parameters,
    check_manager,
    check_optional_seconds,
    make_core,
)
from ._runtime_threads import SyncRuntime
from ._time_limits import get_deadline, seconds
from ._workers import PARALLEL_DISPOSALS, SyncWorker
from .common import BaseConnectionPool
from .exceptions import ConnectionPoolClosedError, PoolTimeout
from .managers import ConnectionT, EndpointT
from .managers import SyncConnectionManager as BaseConnectionManager

__all__ = ['BaseConnectionManager', 'ConnectionPool', 'ConnectionT', 'EndpointT']


class ConnectionPool(
    SyncRuntime[EndpointT, ConnectionT], BaseConnectionPool[EndpointT, ConnectionT], Generic[EndpointT, ConnectionT]
):
    """A pool of connections to any number of endpoints.

    An endpoint's first ``min_idle`` idle connections are *core*: served in turn, kept until ``max_lifetime``. The
    others are *extra*: the last one returned is served first, and one that was not used for ``idle_timeout`` is
    disposed of. Parameters and behaviour are those of generic-connection-pool.

    :param connection_manager: creates, checks and disposes of connections
    :param idle_timeout: seconds after which an unused extra connection is disposed of
    :param max_lifetime: seconds after which any connection is disposed of; one that is out, when it comes back
    :param min_idle: how many idle connections of an endpoint are core
    :param max_size: how many connections an endpoint may have
    :param total_max_size: how many connections there may be. Where it is reached, an acquire that needs a new one first
        closes the idle connection of any endpoint whose time comes first.
    :param acquire_timeout: seconds that an acquire waits if it says nothing else; None for no limit
    :param background_collector: whether a background worker disposes of what is due. If not, each release does.
    :param dispose_batch_size: how many connections one release disposes of at most; 0 for ``int(log2(size + 1)) + 1``
    :param dispose_timeout: seconds that one disposal may take; None for no limit. An acquire waits for what it has
        closed no longer than it has time itself: a task or a thread of the pool closes it.
    :param check_interval: seconds within which a connection that was used is served without ``check_aliveness``; 0 for
        a check each time (HikariCP, pgxpool). When a connection is found dead, the endpoint's others from before are
        suspect, and are checked before they are served, however recently they were used.
    :param check_timeout: seconds that one check may take; a connection that does not answer in time is dead. None for
        what is left of the acquire's time limit, which then ends the acquire.
    :raises TypeError: when a parameter is of a wrong type, the manager one for the other runtime
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
        check_interval: float = 0.0,
        check_timeout: float | None = None,
        _clock: Callable[[], float] | None = None,
    ):
        check_manager(connection_manager, asynchronous=SyncRuntime.asynchronous)
        acquire_timeout, dispose_timeout, dispose_batch_size = check_facade_parameters(
            acquire_timeout, dispose_timeout, dispose_batch_size, background_collector
        )
        check_interval, check_timeout = check_check_parameters(check_interval, check_timeout)
        hooks = Hooks(connection_manager, BaseConnectionManager)
        worker = SyncWorker(self, 'gcpool-collector') if background_collector else None
        core = make_core(
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime,
            min_idle=min_idle,
            max_size=max_size,
            total_max_size=total_max_size,
            collects=worker is not None,
            wake_collector=None if worker is None else worker.wake,
            clock=_clock,
            normalize=hooks.normalize,
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
            hooks_broken=hooks.broken,
            check_interval=check_interval,
            check_timeout=check_timeout,
        )
        self._tasks = set()
        self._signals = set()
        self._worker = worker
        if worker is not None:
            worker.start()

    def get_endpoint_pool_size(self, endpoint: EndpointT, acquired: bool | None = None) -> int:
        """How many connections an endpoint has; 0 for one that the pool does not know.

        :param endpoint: the endpoint
        :param acquired: True counts those that are out, False the idle ones, None all, those being created or disposed
            of included
        :raises TypeError: when ``endpoint`` cannot be hashed, or ``acquired`` is anything else
        """
        check_acquired(acquired)
        return self._core.endpoint_size(endpoint, acquired)

    def close(self, timeout: float | None = None) -> int:
        """Close the pool: refuse new acquires and those who wait, dispose of every connection.

        Connections that are out are waited for, and disposed of as they come back; those that are still out when the
        time is over are disposed of all the same, and their release does nothing. Closing a closed pool waits in the
        same way. No task, timer or thread of the pool is at work any more when this returns. Disposals that are at work
        when the time is over are cancelled on asyncio; if one goes on even so, or in a thread, that is logged.

        :param timeout: seconds to wait for connections that are out, and to dispose of the others (each of which gets
            0.1 s even when the time is over, and 1 ms once that has made the call nearly 0.5 s late); 0 for not
            waiting, None for no limit
        :return: how many connections were still out when the time was over (psycopg_pool warns of them)
        :raises TypeError: when ``timeout`` is no number; the pool is not closed then
        :raises ValueError: when ``timeout`` is negative or NaN; likewise
        :raises EventLoopMismatch: (asyncio) when the pool belongs to another event loop; likewise
        :raises BaseException: what ``dispose`` raises that is no Exception (an Exception is logged): threads get it
            when the others were disposed of, asyncio lets a KeyboardInterrupt or SystemExit end the event loop's run
        """
        core = self._core
        deadline = get_deadline(core.now(), check_optional_seconds('timeout', timeout))
        waiter = Waiter(None)
        signal = self._arm(waiter)
        core.close()
        if self._worker is not None:
            self._worker.stop()
        self._dispose_doomed(deadline)
        try:
            emptied = not core.watch_empty(waiter)
            if not emptied:
                logger.info('closing the pool: %d connections are still in use', core.size)
                emptied = self._wait(signal, deadline, core.unwatch, waiter)
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
            self._dispose_doomed(deadline)
        self._end_tasks(deadline)
        return unreleased

    def _serve(self, waiter: Waiter, timeout: float | None, found_dead: bool, since: float | None = None) -> None:
        """Drive a waiter until it holds an acquired connection. When this raises, the caller cancels the waiter.

        :param waiter: holds nothing, or, if ``found_dead``, a connection that was found dead
        :param timeout: seconds to wait at most, None for no limit
        :param since: when the time limit began to count, None for now
        """
        core = self._core
        endpoint = waiter.endpoint
        deadline = get_deadline(core.now() if since is None else since, timeout)
        while True:
            signal = self._arm(waiter)
            queued = self._ask(waiter, found_dead, deadline, timeout)
            if queued and not self._wait(signal, deadline, core.give_up, waiter):
                raise PoolTimeout(self._describe_timeout(endpoint, timeout))
            if waiter.refused:
                raise ConnectionPoolClosedError(f'the pool is closed: no connection to {endpoint!r} can be acquired')
            if waiter.has_ticket:
                if not self._create(waiter, deadline, timeout):
                    raise ConnectionPoolClosedError(
                        f'the pool was closed while a connection to {endpoint!r} was created'
                    )
                logger.debug('connection to %r created', endpoint)
                break
            if not self._must_check(waiter) or self._check(waiter, deadline, timeout):
                break
            found_dead = True
        if self._hooks_acquire and core.still_holds(waiter):
            self._manager.on_acquire(waiter.endpoint, waiter.served.conn)
        if not core.still_holds(waiter):
            raise ConnectionPoolClosedError(f'the pool was closed while a connection to {endpoint!r} was acquired')

    def _ask(self, waiter: Waiter, found_dead: bool, deadline: float | None, timeout: float | None) -> bool:
        """Ask for a connection, or another one, and have closed what has to be closed for that.

        :return: whether it has to wait
        """
        core = self._core
        if found_dead:
            core.reject_dead(waiter)
        dead_entry = waiter.dead_entry
        queued = core.request(waiter, core.now())
        self._begin_disposals(deadline)
        if dead_entry is not None and self._hooks_dead:
            self._wait_until_closed(dead_entry, deadline, timeout)
            self._manager.on_connection_dead(waiter.endpoint, dead_entry.conn)
        return queued

    def _wait_until_closed(self, entry: Entry, deadline: float | None = None, timeout: float | None = None) -> None:
        """Wait for the end of a dispose, whoever sees to it."""
        core = self._core
        watcher = Waiter(None)
        signal = self._arm(watcher)
        try:
            if core.watch_gone(watcher, entry) and not self._wait(signal, deadline, core.unwatch, watcher):
                raise PoolTimeout(
                    f'a dead connection to {entry.endpoint!r} was not closed when the {seconds(timeout)} of acquire '
                    'were over'
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
        """Seconds until the next idle connection is due; None if none ever is."""
        core = self._core
        due = core.next_due()
        return None if due is None else max(due - core.now(), 0.0)

    def _collect(self) -> float | None:
        """Have closed what is due. Seconds until more will be; None if nothing ever is."""
        core = self._core
        found = 1
        while found:
            found = core.expired(core.now(), PARALLEL_DISPOSALS, True)
            # Though nothing is due: the core was told the time, and may have doomed another one for who waits.
            self._dispose_due()
        return self._due_in()
