"""How acquires that found no connection ready are served: the order of the steps, and what the collector does.

The half for threads is generated from the half for asyncio.
"""

import math
from typing import TYPE_CHECKING, Generic, cast

from ._core import PARALLEL_DISPOSALS, Entry, Waiter
from ._runtime_asyncio import AsyncRuntime
from ._time_limits import get_deadline
from .exceptions import BaseError, ConnectionPoolClosedError, PoolSuspended, PoolTimeout, TooManyRequests
from .managers import ConnectionT, EndpointT

__all__ = ['AsyncServing']


class AsyncServing(AsyncRuntime[EndpointT, ConnectionT], Generic[EndpointT, ConnectionT]):
    """Serves the acquires that found no connection ready."""

    __slots__ = ()

    if TYPE_CHECKING:
        # Of BaseConnectionPool.
        def _waited_too_long(self, endpoint: EndpointT, deadline: float, timeout: float) -> PoolTimeout: ...
        def _timed_out(
            self, phase: str, endpoint: EndpointT, deadline: float, timeout: float, what: str, limit: str | None = None
        ) -> PoolTimeout: ...

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
            if queued:
                noted = self._holding.note_wait(self, waiter)
                if not await self._wait(signal, deadline, core.give_up, waiter):
                    raise self._waited_too_long(endpoint, cast('float', deadline), cast('float', timeout))
                core.end_wait(waiter, core.now())
                del noted
            if waiter.turned_away or waiter.refused:
                raise self._refusal_of(waiter, endpoint)
            self._raise_failure(waiter)
            if waiter.held is None:
                # On threads: a signal handler that acquired while this waited has taken over its connection.
                found_dead = False
                continue
            if waiter.has_ticket:
                if await self._connect(waiter, deadline, timeout):
                    break
                found_dead = False
                continue
            found_dead = False
            if not self._must_check(waiter):
                break
            # One check_timeout is enough. After that the pool checks the connections that this acquire is served, in
            # the background, while it continues with the next connection, or connects in place of the dead one.
            if waiter.check_timed_out and core.leave_check_to_pool(waiter, core.now()):
                continue
            if await self._check(waiter, deadline, timeout):
                break
            found_dead = True
        if self._hooks_acquire and core.still_holds(waiter):
            await self._expect_awaitable(self._manager.on_acquire(waiter.endpoint, waiter.served.conn), 'on_acquire')
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
            hook = self._manager.on_connection_dead(waiter.endpoint, dead_entry.conn)
            await self._expect_awaitable(hook, 'on_connection_dead')
        return queued

    async def _wait_until_closed(
        self, entry: Entry, deadline: float | None = None, timeout: float | None = None
    ) -> None:
        """Wait until the connection of an entry is closed, by any task or thread."""
        core = self._core
        watcher = Waiter(None)
        signal = self._arm(watcher)
        try:
            if core.watch_gone(watcher, entry) and not await self._wait(signal, deadline, core.unwatch, watcher):
                raise self._timed_out(
                    'dispose',
                    entry.endpoint,
                    cast('float', deadline),
                    cast('float', timeout),
                    'waiting for a dead connection to %s to be closed',
                )
        except BaseException:
            core.unwatch(watcher)
            raise

    def _due_in(self) -> float | None:
        """Return the seconds until a close or check of an idle connection, or a look for leaks; None for never."""
        core = self._core
        dues = [due for due in (core.next_due() if core.collects else None, core.next_check()) if due is not None]
        due = min(*dues, self._holding.due_at(self), math.inf)
        return max(due - core.now(), 0.0) if due < math.inf else None

    async def _collect(self) -> float | None:
        """Close the connections that are due, and begin the due checks. Return what :py:meth:`_due_in` does."""
        core = self._core
        self._holding.look_if_due(self)
        if core.begin_due_checks(core.now()):
            self._begin_disposals()
        found = int(core.collects)
        while found:
            found = core.doom_due(core.now(), PARALLEL_DISPOSALS, True)
            # Also when nothing is due: when it received the time, the core may have doomed a connection for a waiter.
            await self._dispose_due()
        return self._due_in()

    def _refusal_of(self, waiter: Waiter, endpoint: EndpointT) -> BaseError:
        pool, text = self._observer.pool_text, self._observer.text(endpoint)
        if waiter.turned_away:
            return TooManyRequests(self._core.max_waiting, self._observer.shown(endpoint), self._observer.name)
        if waiter.refusal == 'closed':
            return ConnectionPoolClosedError(f'{pool} is closed: no connection to {text} can be acquired')
        if waiter.refusal == 'not open':
            return ConnectionPoolClosedError(
                f'{pool} is not open yet: no connection to {text} can be acquired before open()'
            )
        return PoolSuspended(f'{pool} is suspended: no connection to {text} can be acquired before resume()')
