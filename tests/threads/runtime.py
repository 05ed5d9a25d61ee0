"""The threads' part of what the tests of both pools need; ``tests/asyncio_/runtime.py`` has the asyncio part."""

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from gcpool.managers import AsyncConnectionManager
from tests.support import PATIENCE

P = ParamSpec('P')
ResultT = TypeVar('ResultT')


class Event:
    """An event that happens once. Waiting for it has a time limit."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def wait(self, otherwise: str) -> None:
        """Wait until the event has happened.

        :param otherwise: the error message if it does not happen
        """
        assert self._event.wait(PATIENCE), otherwise


def give_way() -> None:
    """Let other tasks run."""
    time.sleep(0)


class Job(Generic[ResultT]):
    """A call that runs in a thread of its own."""

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
    """Start a call in a task of its own."""
    return Job(lambda: function(*args, **kwargs))


def no_answer() -> None:
    """What a manager for threads does when a server has not answered within the time limit that the pool gave it."""
    raise TimeoutError('no answer')


def result_of(answer: Any) -> Any:
    """What a method returns, whether it is a coroutine function on asyncio or not."""
    return answer


def until(predicate: Callable[[], bool]) -> None:
    """Let other threads run until a condition holds. This polls, because the pool has no event for most conditions."""
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
    """A manager for the other runtime's pool that does not inherit from gcpool."""

    async def create(self, endpoint: Any) -> object:
        return object()

    async def dispose(self, endpoint: Any, conn: object) -> None:
        pass
