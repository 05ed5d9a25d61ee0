"""Threads and asyncio behind one interface, so that every case is written once."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from time import perf_counter_ns
from types import ModuleType
from typing import Any, Protocol

from . import subjects_asyncio, subjects_threads
from .measure import Result, Timed

__all__ = ['Asyncio', 'Runtime', 'Threads', 'all_runtimes', 'check_reuse', 'opened', 'warm_up']

#: Seconds after which a contention run counts as hung.
_HUNG_AFTER = 120.0


class Runtime(Protocol):
    name: str
    #: the module of this runtime's subjects
    subjects: ModuleType

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a subject's method to its end."""

    def timed(self, function: Callable[[int], Any]) -> Timed:
        """Convert a subject's loop into a function that returns how long it took."""

    def contend(
        self, serve: Callable[[Iterator[int], int, float], Any], workers: int, quota: int, hold: float
    ) -> tuple[int, list[int]]:
        """Let many workers share a pool until it has served ``quota`` times.

        :param serve: a subject's ``serve``
        :param hold: seconds between acquire and release
        :return: the nanoseconds that it took, and how often each worker was served
        """

    def close(self) -> None:
        """Release what the runtime holds."""


class Threads:
    name = 'threads'
    subjects: ModuleType = subjects_threads

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)

    def timed(self, function: Callable[[int], Any]) -> Timed:
        def run(number: int) -> int:
            started = perf_counter_ns()
            function(number)
            return perf_counter_ns() - started

        return run

    def contend(
        self, serve: Callable[[Iterator[int], int, float], Any], workers: int, quota: int, hold: float
    ) -> tuple[int, list[int]]:
        tickets = count()
        served = [0] * workers
        ended = [0] * workers
        started: list[int] = []
        # The clock starts in the last thread to arrive: the main thread may get its next turn much later.
        gate = threading.Barrier(workers, action=lambda: started.append(perf_counter_ns()))

        def work(index: int) -> None:
            gate.wait(_HUNG_AFTER)
            served[index] = serve(tickets, quota, hold)
            ended[index] = perf_counter_ns()

        threads = [threading.Thread(target=work, args=(index,), daemon=True) for index in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_HUNG_AFTER)
        if not all(ended):
            raise RuntimeError(f'{ended.count(0)} of {workers} threads hang or have failed')
        return max(ended) - started[0], served

    def close(self) -> None:
        pass


class Asyncio:
    """All cases run in one loop; a coroutine is timed from inside, while the loop runs."""

    name = 'asyncio'
    subjects: ModuleType = subjects_asyncio

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._loop.run_until_complete(function(*args))

    def timed(self, function: Callable[[int], Any]) -> Timed:
        async def time_inside(number: int) -> int:
            started = perf_counter_ns()
            await function(number)
            return perf_counter_ns() - started

        return lambda number: self._loop.run_until_complete(time_inside(number))

    def contend(
        self, serve: Callable[[Iterator[int], int, float], Any], workers: int, quota: int, hold: float
    ) -> tuple[int, list[int]]:
        async def run() -> tuple[int, list[int]]:
            tickets = count()
            # The timers of an otherwise idle loop are no finer than 1 ms, so a pool that keeps the loop busy would look
            # better. With this, the loop is equally busy under all pools.
            busy = asyncio.create_task(_keep_busy()) if hold else None
            started = perf_counter_ns()
            tasks = [asyncio.create_task(serve(tickets, quota, hold)) for _ in range(workers)]
            served = await asyncio.wait_for(asyncio.gather(*tasks), _HUNG_AFTER)
            elapsed = perf_counter_ns() - started
            if busy:
                busy.cancel()
            return elapsed, served

        return self._loop.run_until_complete(run())

    def close(self) -> None:
        self._loop.close()


async def _keep_busy() -> None:
    while True:  # noqa: ASYNC110  (there is nothing to wait for: the turns are the purpose)
        await asyncio.sleep(0)


@contextlib.contextmanager
def all_runtimes() -> Iterator[list[Runtime]]:
    """Both runtimes, closed at the end."""
    with contextlib.closing(Threads()) as threads, contextlib.closing(Asyncio()) as loop:
        yield [threads, loop]


@contextlib.contextmanager
def opened(runtime: Runtime, subjects: Sequence[Any], result: Result) -> Iterator[list[Any]]:
    """Open the subjects whose libraries are installed, and close them at the end.

    :param result: records subjects that cannot take part
    """
    with contextlib.ExitStack() as stack:
        yield [subject for subject in subjects if _opens(runtime, subject, result, stack)]


def _opens(runtime: Runtime, subject: Any, result: Result, stack: contextlib.ExitStack) -> bool:
    try:
        runtime.call(subject.open)
    except ImportError as error:
        result.missing[subject.name] = str(error)
        return False
    stack.callback(runtime.call, subject.close)
    return True


def warm_up(subject: Any, run: Timed) -> int:
    """Warm a pool up and make sure that it reuses its connections, which is what will be measured.

    :return: the number of connections created so far; it must be the same after the measurement
    """
    run(64)
    created: int = subject.created
    run(64)
    check_reuse(subject, created)
    return created


def check_reuse(subject: Any, created: int) -> None:
    """Reject the figures of a subject that has connected again since it had ``created`` connections."""
    if subject.created != created:
        raise RuntimeError(f'{subject.name} made {subject.created - created} connections while warm: not a pool')
