"""What the pools on asyncio do differently from those for threads."""

import asyncio
import inspect
import warnings
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from typing import Any

from gcpool._core import Lane
from gcpool._disposals_asyncio import spawn
from gcpool._signal_handlers import is_of_signal_handler

from .base import logger

__all__ = [
    'AsyncReturns',
    'AsyncTaking',
    'answer_of',
    'end_creates',
    'pause',
    'ready_of',
    'require_loop',
    'warn_of_open',
]


async def answer_of(answer: Any) -> Any:
    """Return what a callback has returned: it may be a coroutine function or not."""
    return await answer if inspect.isawaitable(answer) else answer


async def pause(seconds: float) -> None:
    """Sleep."""
    await asyncio.sleep(seconds)


def require_loop(pool: object) -> None:
    """Refuse to open a pool where no event loop runs."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        kind = type(pool).__name__
        raise RuntimeError(
            f'{kind} cannot be opened where no event loop runs: expected open=False, and later `await pool.open()` '
            f'or `async with {kind}(...) as pool`'
        ) from None


def warn_of_open(pool: object, _explicit: bool) -> None:
    """Warn that the constructor has opened the pool: whether that was asked for or not."""
    kind = type(pool).__name__
    warnings.warn(
        f'{kind} was opened by its constructor, which is deprecated: use `await pool.open()`, or the pool as a context '
        f'manager: `async with {kind}(...) as pool`',
        RuntimeWarning,
        stacklevel=5,
    )


async def end_creates(engine: Any, patience: float) -> None:
    """Wait for the connects that are under way, and then cancel them: the pool is closed."""
    tasks = engine._create_tasks()
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=patience)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=patience)


def ready_of(engine: Any) -> Any:
    """Return the object that serves ready connections of a generic pool by subscription; itself if there is none."""
    return engine._ready


class AsyncTaking:
    """``await taking[endpoint, timeout]`` acquires a connection from a generic pool."""

    __slots__ = ('_engine',)

    def __init__(self, engine: Any):
        self._engine = engine

    def __getitem__(self, key: tuple[Any, float]) -> Any:
        endpoint, timeout = key
        return self._engine.acquire(endpoint, timeout)


class AsyncReturns:
    """Returns connections in tasks of the pool: those on which ``reset`` is called."""

    def __init__(self, engine: Any):
        self._engine = engine
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, work: Callable[[bool], Coroutine[Any, Any, None]], ended: Callable[[], object], limit: int) -> None:
        """Start some work.

        :param work: receives whether it was cancelled before it began
        :param ended: called when its task has ended, however the work ended
        """
        engine = self._engine
        name = engine._task_name('reset')
        loop = asyncio.get_running_loop()
        task = Context().run(spawn, loop, Lane(partial(self._run, work)), name)
        task.add_done_callback(lambda _: ended(), context=Context())
        for tasks in (self._tasks, engine._tasks):
            tasks.add(task)
            task.add_done_callback(tasks.discard, context=Context())

    @staticmethod
    async def _run(work: Callable[[bool], Coroutine[Any, Any, None]], failure: BaseException | None) -> None:
        try:
            await work(failure is not None)
        except SystemExit as exc:
            if is_of_signal_handler(exc):
                raise
            # Raised by the callback, whose connection is already closed. asyncio would end the loop's run.
            logger.warning('returning a connection failed: %s: %s', type(exc).__name__, exc)
        if failure is not None:
            raise failure

    async def wait(self, timeout: float) -> bool:
        """Wait until all present work is done. False if that takes longer."""
        pending = {task for task in self._tasks if task is not asyncio.current_task()}
        return not pending or not (await asyncio.wait(pending, timeout=max(timeout, 0.0)))[1]
