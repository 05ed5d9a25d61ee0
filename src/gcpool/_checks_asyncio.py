"""The tasks of a pool on asyncio that check connections in the background."""

import asyncio
import inspect
from functools import partial
from types import CoroutineType
from typing import Any

from ._core import PARALLEL_CHECKS, Entry, PoolCheck
from ._disposals_asyncio import AsyncDisposals, set_limit, timeout_scope
from ._signal_handlers import is_of_signal_handler
from ._time_limits import seconds

__all__ = ['AsyncChecks']

# How the names of the tasks that check end.
CHECK = 'check'


class AsyncChecks(AsyncDisposals):
    """Checks connections in tasks of the pool, each in an empty context.

    Otherwise a connection could keep a reference to the context of the request that had it checked. A loop that ends
    cancels these tasks; after that, nothing is checked in the background.
    """

    __slots__ = ()

    async def _wait_until_closed(
        self, entry: Entry, deadline: float | None = None, timeout: float | None = None
    ) -> None:
        raise NotImplementedError

    def _expect_awaitable(self, call: Any, name: str) -> Any:
        """Return what a method of the manager has returned. TypeError if that cannot be awaited."""
        if type(call) is not CoroutineType and not inspect.isawaitable(call):
            raise TypeError(f'{name}() of {self._manager!r} returned {call!r}: expected an awaitable')
        return call

    def _begin_disposals(self, deadline: float | None = None) -> None:
        super()._begin_disposals(deadline)
        if self._core.checks_to_begin:
            self._spawn_checks()

    def _spawn_checks(self) -> None:
        """Begin the checks that wait for a task."""
        loop = self._bound_loop
        if loop is None or loop.is_closed():
            # A coroutine has outlived its loop. These connections are never served again.
            return
        if self._runs_in_other_thread():
            # A coroutine of the pool is finalised in this thread. Only the loop's own thread may create tasks.
            self._call_in_loop(self._spawn_checks)
            return
        while (check := self._take_check()) is not None:
            self._spawn_job(partial(self._run_check, check), CHECK, self._check_ended)

    def _check_ended(self, task: 'asyncio.Task[None]') -> None:
        if not task.cancelled():
            # Retrieves an exception, so that asyncio does not log it, too: the loop's run has raised it.
            task.exception()
        self._job_ended(task)

    async def _run_check(self, check: PoolCheck, failure: BaseException | None) -> None:
        if failure is not None:
            # The task was cancelled before its first step.
            self._end_check(check, None)
            raise failure
        await self._check_by_pool(check)

    async def _check_by_pool(self, check: PoolCheck) -> bool:
        """Check a connection, and have it closed if it is dead. Returns whether it was."""
        entry: Entry = check.entry  # type: ignore[assignment]
        alive: bool | None = None
        scope = timeout_scope(None)
        try:
            async with scope:
                set_limit(scope, self._check_limit)
                alive = self._is_alive(await check)
            # A check that suppresses its cancellation and returns has not answered in time either.
            alive = alive and not scope.expired()
        except (Exception, SystemExit) as exc:
            if is_of_signal_handler(exc):
                raise
            if scope.expired():
                self._tell(
                    None,
                    entry.endpoint,
                    'a check of a connection to %s took longer than %s',
                    seconds(self._check_limit),
                )
                alive = False
            else:
                self._tell_error(entry.endpoint, 'a check of a connection to %s failed', exc)
        finally:
            dead = self._end_check(check, alive)
        if dead and self._hooks_dead:
            self._tell_when_closed(entry)
        return dead

    def _end_check(self, check: PoolCheck, alive: bool | None) -> bool:
        dead = check.end(alive)
        if self._core.doomed:
            self._spawn_disposals()
        return dead

    def _tell_when_closed(self, entry: Entry) -> None:
        """Call on_connection_dead when a dead connection is closed, without a caller that waits for it."""
        loop = self._bound_loop
        if loop is None or loop.is_closed():
            # A coroutine has outlived its loop: nothing closes the connection.
            return
        self._spawn_job(partial(self._tell_dead, entry), 'dead', self._tasks.discard)

    async def _tell_dead(self, entry: Entry, failure: BaseException | None) -> None:
        if failure is not None:
            # The task was cancelled before its first step, because the loop ends.
            raise failure
        await self._wait_until_closed(entry)
        try:
            hook = self._manager.on_connection_dead(entry.endpoint, entry.conn)
            await self._expect_awaitable(hook, 'on_connection_dead')
        except (Exception, SystemExit) as exc:
            if is_of_signal_handler(exc):
                raise
            self._tell_error(entry.endpoint, 'on_connection_dead() of a connection to %s failed', exc)

    async def _check_groups(self, groups: list[list[Entry]]) -> int:
        """Check idle connections, one at a time in each group. Returns how many were dead, and are closed."""
        dead: list[Entry] = []
        left = list(groups)
        tasks = [
            self._spawn_job(partial(self._check_in_turn, left, dead), CHECK, self._check_ended)
            for _ in range(min(len(groups), PARALLEL_CHECKS))
        ]
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            # If the caller was cancelled, the tasks end after the checks that they have begun.
            left.clear()
            for group in groups:
                group.clear()
        return len(dead)

    async def _check_in_turn(self, groups: list[list[Entry]], dead: list[Entry], failure: BaseException | None) -> None:
        if failure is not None:
            raise failure
        while groups:
            group = groups.pop(0)
            while group:
                entry = group.pop(0)
                check = self._begin_check_of_idle(entry)
                if check is not None and await self._check_by_pool(check):
                    dead.append(entry)
                    await self._wait_until_closed(entry)

    def _end_checks(self) -> None:
        """Cancel the checks: the pool is closed."""
        name = self._task_name(CHECK)
        for task in list(self._tasks):
            if task.get_name() == name and task is not asyncio.current_task():
                task.cancel()
