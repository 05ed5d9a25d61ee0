"""Very many tasks queued for one connection: whether the time per task grows with their number."""

import asyncio
import gc
from time import perf_counter_ns
from typing import Any

from .measure import Figure, Goal, Result, Timed, interleave, ratios
from .runtimes import Runtime, opened
from .settings import Settings

__all__ = ['cancel_all', 'cancelled_tasks', 'queued_tasks', 'serve_all']

#: 1 means that the time per task does not grow; the processor's caches contribute to it.
_FLAT = Goal('<=', 1.5)

_TURNS_TO_QUEUE = 10


def queued_tasks(runtime: Runtime, settings: Settings) -> Result:
    """Queue tasks on one connection and serve each once."""
    return _compare(runtime, settings, 'queued_tasks', serve_all)


def cancelled_tasks(runtime: Runtime, settings: Settings) -> Result:
    """Queue tasks on one connection that is in use, and cancel them, the last one first."""
    return _compare(runtime, settings, 'cancelled_tasks', cancel_all)


def _compare(runtime: Runtime, settings: Settings, case: str, measure: Any) -> Result:
    result = Result(f'{runtime.name}: {case}', unit='ns/task')
    fewest, most = settings.queued[0], settings.queued[-1]
    with opened(runtime, [cls(1) for cls in runtime.subjects.QUEUED], result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        for subject in present:
            run = _runner(runtime, subject, measure)
            run(64)
            for number in settings.queued:
                runs[f'{subject.name}, {number:,}'] = run, number
        result.samples = interleave(runs, settings.queue_rounds)
        for subject in present:
            if subject.created != 1:
                raise RuntimeError(f'{subject.name} made {subject.created} connections instead of one')
    for subject in present:
        growth = ratios(result.samples[f'{subject.name}, {most:,}'], result.samples[f'{subject.name}, {fewest:,}'])
        goal = _FLAT if subject.name == 'gcpool' else None
        text = f'{subject.name}: a task of {most:,}, in a task of {fewest:,}'
        result.figures.append(Figure(text, growth, goal=goal))
    first, *others = present
    for other in others:
        values = ratios(result.samples[f'{other.name}, {most:,}'], result.samples[f'{first.name}, {most:,}'])
        result.figures.append(Figure(f'{first.name}: times as fast as {other.name}, {most:,} tasks', values))
    return result


def _runner(runtime: Runtime, subject: Any, measure: Any) -> Timed:
    def run(number: int) -> int:
        # Off here, and only here: the collector walks through all live tasks, again and again as their number grows,
        # and this cost is not the pool's.
        gc.collect()
        gc.disable()
        try:
            elapsed: int = runtime.call(measure, subject, number)
        finally:
            gc.enable()
        return elapsed

    return run


async def serve_all(subject: Any, number: int) -> int:
    """Return how many nanoseconds ``number`` tasks take that queue at once."""
    order: list[int] = []

    async def take_turn(index: int) -> None:
        conn = await subject.acquire_one()
        order.append(index)
        await subject.release_one(conn)

    started = perf_counter_ns()
    tasks = [asyncio.create_task(take_turn(index)) for index in range(number)]
    await asyncio.gather(*tasks)
    elapsed = perf_counter_ns() - started
    if order != list(range(number)):
        raise RuntimeError(f'{subject.name} did not serve in the order of arrival')
    return elapsed


async def cancel_all(subject: Any, number: int) -> int:
    """Return how many nanoseconds it takes to cancel ``number`` tasks that wait."""
    conn = await subject.acquire_one()
    tasks = [asyncio.create_task(subject.acquire_one()) for _ in range(number)]
    # Some of the pools take several locks before they wait.
    for _ in range(_TURNS_TO_QUEUE):
        await asyncio.sleep(0)
    started = perf_counter_ns()
    for task in reversed(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    elapsed = perf_counter_ns() - started
    if not all(task.cancelled() for task in tasks):
        raise RuntimeError(f'{subject.name} did not let all tasks be cancelled')
    await subject.release_one(conn)
    # The connection must not have been lost to a cancelled task.
    await subject.release_one(await asyncio.wait_for(subject.acquire_one(), timeout=60))
    return elapsed
