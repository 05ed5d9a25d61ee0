"""The tasks of a pool on asyncio that create connections, and how the core calls for them."""

import asyncio
import weakref
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from ._core import AsyncPool, Entry, Growing, Lane
from ._disposals_asyncio import is_being_cancelled, set_limit, spawn, timeout_scope
from ._time_limits import seconds
from .exceptions import PoolTimeout

if TYPE_CHECKING:
    from ._workers.core_timer import CoreTimer

__all__ = ['AsyncCreates', 'AsyncWorkers']

# Seconds for which the pool creates nothing itself after one of its tasks was cancelled, as all are at the end of
# asyncio.run().
PAUSE = 0.1


class AsyncWorkers:
    """What the core calls when a connection is to be created, or its next timer has changed.

    It holds no strong reference to the pool, whose core holds it.
    """

    def __init__(self, pool: Any):
        self._pool = weakref.ref(pool)

    def call(self) -> bool:
        """Have the pool's loop look. False if it will not: the loop is about to end."""
        pool = self._pool()
        return pool is not None and pool._call_workers()


class AsyncCreates(AsyncPool):
    """Creates connections in tasks of the pool."""

    __slots__ = ()

    _timer: 'CoreTimer'
    _creates_paused_until: float

    if TYPE_CHECKING:

        async def _grow_failed(self, ticket: Entry, error: BaseException) -> None: ...
        def _begin_disposals(self, deadline: float | None = None) -> None: ...
        def _tell_end_of_outage(self, entry: Entry) -> None: ...

    def _call_workers(self) -> bool:
        loop = self._bound_loop
        if loop is None:
            # The pool was not used in a loop yet. What is to be created is begun at its first use there.
            return True
        if loop.is_closed() or self._core.now() < self._creates_paused_until:
            return False
        if self._runs_in_other_thread():
            loop.call_soon_threadsafe(self._spawn_creates)
        else:
            self._spawn_creates()
        return True

    def _spawn_creates(self) -> None:
        loop = self._bound_loop
        if loop is None or loop.is_closed():
            return
        self._timer.set(self)
        while (growing := self._take_growing()) is not None:
            # In an empty context: otherwise the connection would keep what the first request has put into its own.
            task = Context().run(spawn, loop, Lane(partial(self._grow, growing)), 'gcpool-create')
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _grow(self, growing: Growing, failure: BaseException | None) -> None:
        try:
            if failure is not None:
                # The task was cancelled before its first step, because the loop ends.
                raise failure
            await self._create_within(growing)
        except asyncio.CancelledError:
            # asyncio.run() cancels all tasks at its end, and waits for them: nothing new may be begun.
            self._creates_paused_until = self._core.now() + PAUSE
            raise
        finally:
            try:
                growing.put_back()
            finally:
                # The pool may have been closed meanwhile: then the connection is doomed.
                self._begin_disposals()

    async def _create_within(self, growing: Growing) -> None:
        ticket = growing.ticket
        scope = timeout_scope(None)
        try:
            async with scope:
                set_limit(scope, self._create_timeout)
                await growing
        except asyncio.CancelledError as exc:
            if is_being_cancelled():
                raise
            # The manager has cancelled something of its own.
            await self._grow_failed(ticket, PoolTimeout(f'create() for {ticket.endpoint!r} was cancelled: {exc}'))
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            # asyncio ends the loop's run, or the loop was closed.
            raise
        except BaseException as exc:
            error = exc
            if scope.expired():
                error = PoolTimeout(
                    f'create() for endpoint {ticket.endpoint!r} did not end within the create_timeout of '
                    f'{seconds(self._create_timeout)}'
                )
            await self._grow_failed(ticket, error)
        else:
            self._tell_end_of_outage(ticket)
