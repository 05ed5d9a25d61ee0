"""What the tests of both pools need, in the way of asyncio: ``tests/threads/runtime.py`` has the same names."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar

from gcpool.managers import SyncConnectionManager
from tests.support import PATIENCE

P = ParamSpec('P')
ResultT = TypeVar('ResultT')


class Event:
    """Something that happens once. To wait for it has a bound."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, otherwise: str) -> None:
        """Wait until it has happened.

        :param otherwise: what is wrong if it does not happen
        """
        try:
            await asyncio.wait_for(self._event.wait(), PATIENCE)
        except asyncio.TimeoutError as exc:
            raise AssertionError(otherwise) from exc


async def give_way() -> None:
    """Let the others work."""
    await asyncio.sleep(0)


class Job(Generic[ResultT]):
    """A call that runs beside the test."""

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
    """Start a call beside the test."""
    return Job(asyncio.get_running_loop().create_task(function(*args, **kwargs)))


async def until(predicate: Callable[[], bool]) -> None:
    """Let the others work until something is so. The runner of the test bounds it."""
    while not predicate():  # noqa: ASYNC110 - the pool has no event for most of it
        await asyncio.sleep(0)


class OtherRuntimeManager(SyncConnectionManager[Any, object]):
    """A manager for the other runtime's pool."""

    def create(self, endpoint: Any, timeout: float | None = None) -> object:
        return object()

    def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
        pass


class OtherRuntimeDuck:
    """A manager for the other runtime's pool that knows nothing of gcpool."""

    def create(self, endpoint: Any, timeout: float | None = None) -> object:
        return object()

    def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
        pass
