"""What the tests of both pools need, in the way of threads: ``tests/asyncio_/runtime.py`` has the same names."""

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from gcpool.managers import AsyncConnectionManager
from tests.support import PATIENCE

P = ParamSpec('P')
ResultT = TypeVar('ResultT')


class Event:
    """Something that happens once. To wait for it has a bound."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def wait(self, otherwise: str) -> None:
        """Wait until it has happened.

        :param otherwise: what is wrong if it does not happen
        """
        assert self._event.wait(PATIENCE), otherwise


def give_way() -> None:
    """Let the others work."""
    time.sleep(0)


class Job(Generic[ResultT]):
    """A call that runs beside the test, in a thread of its own."""

    def __init__(self, function: Callable[[], ResultT]) -> None:
        self._function = function
        self._result: ResultT | None = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name='test-job', daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as exc:  # noqa: BLE001 - result() raises it
            self._error = exc

    @property
    def done(self) -> bool:
        return not self.thread.is_alive()

    def result(self) -> ResultT:
        """Wait for the end of the call."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), 'the call does not end'
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


def spawn(function: Callable[P, ResultT], *args: P.args, **kwargs: P.kwargs) -> Job[ResultT]:
    """Start a call beside the test."""
    return Job(lambda: function(*args, **kwargs))


def until(predicate: Callable[[], bool]) -> None:
    """Let the others work until something is so. It looks again and again: the pool has no event for most of it."""
    pause = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not predicate():
        assert time.monotonic() < deadline, 'what the test waits for does not happen'
        pause.wait(0.001)


class OtherRuntimeManager(AsyncConnectionManager[Any, object]):
    """A manager for the other runtime's pool."""

    async def create(self, endpoint: Any) -> object:
        return object()

    async def dispose(self, endpoint: Any, conn: object) -> None:
        pass


class OtherRuntimeDuck:
    """A manager for the other runtime's pool that knows nothing of gcpool."""

    async def create(self, endpoint: Any) -> object:
        return object()

    async def dispose(self, endpoint: Any, conn: object) -> None:
        pass
