"""asyncio's part of what the tests of both pools need; ``tests/threads/runtime.py`` has the same names for threads."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

from gcpool.managers import SyncConnectionManager
from tests.support import PATIENCE

P = ParamSpec('P')
ResultT = TypeVar('ResultT')


class Event:
    """An event that happens once. Waiting for it has a time limit."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, otherwise: str) -> None:
        """Wait until the event has happened.

        :param otherwise: the error message if it does not happen
        """
        try:
            await asyncio.wait_for(self._event.wait(), PATIENCE)
        except asyncio.TimeoutError as exc:
            raise AssertionError(otherwise) from exc


async def give_way() -> None:
    """Let other tasks run."""
    await asyncio.sleep(0)


class Job(Generic[ResultT]):
    """A call that runs in a task of its own."""

    def __init__(self, task: 'asyncio.Task[ResultT]') -> None:
        self.task = task

    @property
    def done(self) -> bool:
        return self.task.done()

    async def result(self) -> ResultT:
        """Wait for the end of the call."""
        await asyncio.wait([self.task], timeout=PATIENCE)
        assert self.task.done(), 'the call does not end'
        return self.task.result()


def spawn(function: Callable[P, Coroutine[Any, Any, ResultT]], *args: P.args, **kwargs: P.kwargs) -> Job[ResultT]:
    """Start a call in a task of its own."""
    return Job(asyncio.get_running_loop().create_task(function(*args, **kwargs)))


async def no_answer() -> None:
    """Wait for the answer of a server that does not answer, until the pool's time limit for that has expired."""
    await asyncio.Event().wait()


async def result_of(answer: Any) -> Any:
    """What a method returns, whether it is a coroutine function or not."""
    return await answer if inspect.isawaitable(answer) else answer


async def until(predicate: Callable[[], bool]) -> None:
    """Let other tasks run until a condition holds. The test's runner limits the wait."""
    while not predicate():  # noqa: ASYNC110 - the pool has no event for most of it
        await asyncio.sleep(0)


class OtherRuntimeManager(SyncConnectionManager[Any, object]):
    """A manager for the other runtime's pool."""

    def create(self, endpoint: Any, timeout: float | None = None) -> object:
        return object()

    def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
        pass


class OtherRuntimeDuck:
    """A manager for the other runtime's pool that does not inherit from gcpool."""

    def create(self, endpoint: Any, timeout: float | None = None) -> object:
        return object()

    def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
        pass
