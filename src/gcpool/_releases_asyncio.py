"""The end of a release on asyncio that has a hook to run, or a connection to close."""

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from ._checks_asyncio import AsyncChecks
from ._core import LEAST_DISPOSE_TIME, Entry, Lease
from ._disposals_asyncio import spawn
from .exceptions import DiscardConnection

__all__ = ['AsyncReleases']

# The name of the tasks that run releases that are not awaited.
RELEASE_TASK = 'gcpool-release'


class AsyncReleases(AsyncChecks):
    """The rest of a release or a discard after its call: the manager's hooks, and waiting for closes."""

    __slots__ = ()

    if TYPE_CHECKING:

        async def _judge(self, entry: Entry, exc: BaseException) -> None: ...

    async def _release_after_error(self, lease: Lease, exc: BaseException) -> None:
        """The end of a context whose block raised. The connection is RELEASING, and counts as broken."""
        entry = lease.held
        await self._judge(entry, exc)
        if entry.is_broken:
            # A coroutine that is closed cannot await anything.
            await self._discard(lease, waits=not isinstance(exc, GeneratorExit))
        elif self._hooks_release and lease.is_checked_out:
            await self._finish_release(lease, True)
        elif self._finish_in_core(lease):
            await self._dispose_doomed()

    async def _release_in_loop(self, lease: Lease) -> None:
        """A release that was called outside of the pool's loop."""
        remaining = self._start_release_in_loop(lease)
        if remaining is not None:
            await remaining

    async def _discard_in_loop(self, lease: Lease) -> None:
        """A discard that was called outside of the pool's loop."""
        if self._begin_discard_in_loop(lease):
            await self._wait_for_discard(self._spawn_disposals())

    async def _wait_for_discard(self, tasks: 'list[asyncio.Task[None]]') -> None:
        if tasks:
            await asyncio.wait(tasks)

    _discard_in_loop.__qualname__ = _wait_for_discard.__qualname__ = 'ConnectionPool.discard'

    def _spawn_release(self, rest_of_release: Coroutine[Any, Any, None]) -> None:
        """Run the rest of a release in a task of the pool, in an empty context.

        Otherwise the hook would see whatever the code that dropped the connection has put into its context.
        """
        loop = asyncio.get_running_loop()
        task = Context().run(spawn, loop, rest_of_release, RELEASE_TASK)
        self._tasks.add(task)
        task.add_done_callback(self._release_ended)

    def _release_ended(self, task: 'asyncio.Task[None]') -> None:
        self._tasks.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            self._tell_of_pool(
                None, 'a release that was not awaited failed: %s: %s', type(failure).__name__, failure, level='error'
            )

    async def _discard(self, lease: Lease, waits: bool = True) -> None:
        """Close a broken connection.

        Its user waits for that for at most LEAST_DISPOSE_TIME; then the pool's tasks continue. Otherwise a server that
        no longer answers would keep the user waiting beyond the user's own time limit (``asyncio.timeout`` around the
        block).
        """
        entry = lease.held
        if not self._retire(lease, True):
            return
        self._doom_due()
        tasks: list[asyncio.Task[None]] = self._spawn_disposals()
        if not waits:
            if self._hooks_dead:
                self._tell_when_closed(entry)
        elif self._hooks_dead:
            hook = self._spawn_for_caller(partial(self._run_dead_hook, entry), 'dead', self._tasks.discard)
            await asyncio.wait([hook], timeout=LEAST_DISPOSE_TIME)
            if hook.done() and not hook.cancelled():
                hook.result()
        elif tasks:
            await asyncio.wait(tasks, timeout=LEAST_DISPOSE_TIME)

    async def _run_dead_hook(self, entry: Entry, failure: BaseException | None) -> None:
        if failure is not None:
            # The task was cancelled before its first step, because the loop ends.
            raise failure
        await self._wait_until_closed(entry)
        hook = self._manager.on_connection_dead(entry.endpoint, entry.conn)
        await self._expect_awaitable(hook, 'on_connection_dead')

    async def _finish_release(self, lease: Lease, after_error: bool = False) -> None:
        """The rest of a release that has a hook to run first."""
        entry = lease.held
        try:
            hook = self._manager.on_release(entry.endpoint, entry.conn)
            answer = await self._expect_awaitable(hook, 'on_release')
            if answer is not None:
                self._note_reset(entry.endpoint, answer, after_error)
        except DiscardConnection as exc:
            await self._discard_unreset(lease, exc)
        except BaseException as exc:
            # Closes no expired connections, as in generic-connection-pool.
            self._release_unreset(lease, isinstance(exc, Exception))
            self._spawn_disposals()
            raise
        else:
            if self._finish_in_core(lease):
                await self._dispose_doomed()

    async def _discard_unreset(self, lease: Lease, why: DiscardConnection) -> None:
        endpoint = lease.held.endpoint
        self._retire(lease, False, not why.broken)
        try:
            self._tell(None, endpoint, 'on_release asked to close a connection to %s: %s', why)
        finally:
            self._doom_due()
            tasks = self._spawn_disposals()
        if tasks:
            # The user waits no longer than for a broken connection: see _discard().
            await asyncio.wait(tasks, timeout=LEAST_DISPOSE_TIME)

    # The warning about a coroutine that was never awaited shows this name.
    for rest_of_release in (_release_after_error, _release_in_loop, _discard, _finish_release):
        rest_of_release.__qualname__ = 'ConnectionPool.release'
    del rest_of_release
