"""The tasks of a pool on asyncio that create connections."""

import asyncio
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from ._core import AsyncPool, Entry, Growing
from ._disposals_asyncio import PAUSE, is_being_cancelled, set_limit, timeout_scope
from ._signal_handlers import is_of_signal_handler
from ._time_limits import seconds
from .exceptions import PoolTimeout, make_pool_timeout

if TYPE_CHECKING:
    from ._workers.core_timer import CoreTimer

__all__ = ['AsyncCreates']


class AsyncCreates(AsyncPool):
    """Creates connections in tasks of the pool."""

    __slots__ = ()

    _timer: 'CoreTimer'
    _creates_paused_until: float
    _creates: 'set[asyncio.Task[None]]'

    if TYPE_CHECKING:

        async def _grow_failed(self, ticket: Entry, error: BaseException) -> None: ...
        def _spawn_job(self, begin: Any, job: str, ended: Any) -> Any: ...
        def _job_ended(self, task: Any) -> None: ...
        def _own_tasks(self) -> 'set[asyncio.Task[Any]]': ...
        def _tell_end_of_outage(self, entry: Entry) -> None: ...

    def _call_workers(self) -> bool:
        loop = self._bind_running_loop()
        if loop is None:
            # warm_up() was called where no loop runs. The creates begin when a loop first uses the pool.
            return True
        if loop.is_closed():
            return False
        if self._core.now() < self._creates_paused_until:
            if not self._runs_in_other_thread():
                self._timer.set(self)
            return False
        if self._runs_in_other_thread():
            return self._call_in_loop(self._spawn_creates)
        self._spawn_creates()
        return True

    def _create_tasks(self) -> 'set[asyncio.Task[None]]':
        """The tasks that connect for the pool now."""
        return self._own_tasks() & self._creates

    def _spawn_creates(self) -> None:
        loop = self._bound_loop
        if loop is None or loop.is_closed():
            return
        growing: Growing | None = None
        try:
            self._timer.set(self)
            while (growing := self._take_growing()) is not None:
                task = self._spawn_job(partial(self._grow, growing), 'create', self._job_ended)
                self._creates.add(task)
                task.add_done_callback(self._creates.discard, context=Context())
        except BaseException:
            # A signal handler raised. The slot is freed now, not only when the traceback is freed; if its task was
            # created, that finds nothing to do. Nothing else would begin the other creates.
            try:
                if growing is not None:
                    growing.put_back()
            finally:
                if self._core.has_creates:
                    loop.call_soon(self._spawn_creates, context=Context())
            raise

    async def _grow(self, growing: Growing, failure: BaseException | None) -> None:
        try:
            if failure is not None:
                # The task was cancelled before its first step, because the loop ends.
                raise failure
            if not growing.has_ended:
                await self._create_within(growing)
        except asyncio.CancelledError:
            # asyncio.run() cancels all tasks at its end, and waits for them: nothing new may be begun.
            self._creates_paused_until = self._core.now() + PAUSE
            raise
        finally:
            growing.put_back()  # _job_ended() closes the connection if the pool was closed meanwhile

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
            # The manager has cancelled a call of its own.
            pool, text = self._observer.pool_text, self._observer.text(ticket.endpoint)
            await self._grow_failed(ticket, PoolTimeout(f'{pool}: create() for {text} was cancelled: {exc}'))
        except (KeyboardInterrupt, GeneratorExit):
            # asyncio ends the loop's run, or the loop was closed.
            raise
        except BaseException as exc:
            # If the create has succeeded, the exception is that of notifying a waiter.
            if growing.has_ended or is_of_signal_handler(exc):
                raise
            # No variable refers to the exception, whose traceback refers to this frame.
            await self._grow_failed(ticket, self._timeout_of_create(ticket) if scope.expired() else exc)
        else:
            self._tell_end_of_outage(ticket)

    def _timeout_of_create(self, ticket: Entry) -> PoolTimeout:
        return make_pool_timeout(
            f'{self._observer.pool_text}: create() for endpoint {self._observer.text(ticket.endpoint)} did not end '
            f'within the create_timeout of {seconds(self._create_timeout)}',
            self._observer.name,
            self._create_timeout,
            phase='creating',
            endpoint=self._observer.shown(ticket.endpoint),
            limit='create_timeout',
        )
