"""A pool with very many endpoints: the time of a cycle, the memory of an endpoint, the time of close()."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

from .measure import Figure, Goal, Result, Timed, calibrate, interleave, ratios
from .noop import make_endpoints
from .runtimes import Runtime, check_reuse, opened
from .settings import Settings

__all__ = ['close', 'create', 'many_endpoints', 'memory', 'memory_of']


def many_endpoints(runtime: Runtime, settings: Settings) -> Result:
    """Visit very many endpoints, and as often the only endpoint of another pool; the loop is the same.

    In the order in which they were first used, and in random order, in which caches and prefetching do not help.
    """
    result = Result(f'{runtime.name}: many_endpoints')
    number = settings.endpoints
    in_order = make_endpoints(number)
    endpoints = list(in_order)
    # Always the same order, but neither that of creation nor that of memory.
    random.Random(number).shuffle(endpoints)
    classes = runtime.subjects.MANY_ENDPOINTS
    with (
        opened(runtime, [cls(total_max_size=number) for cls in classes], result) as present,
        opened(runtime, [cls(total_max_size=number) for cls in classes], result) as with_one,
    ):
        runs: dict[str, tuple[Timed, int]] = {}
        for subject, subject_with_one in zip(present, with_one, strict=True):
            runtime.call(subject.visit, in_order)
            runtime.call(subject_with_one.visit, endpoints[:1])
            run_with_one = _visit_one(runtime, subject_with_one, endpoints[0])
            runs[f'{subject.name}, one'] = run_with_one, calibrate(run_with_one, settings.loop_ns)
            # Several laps, so that the caches are warm for this loop and not for the one before.
            run_with_all = _visit_all(runtime, subject, endpoints)
            laps = calibrate(run_with_all, 10 * settings.loop_ns, start=1)
            runs[f'{subject.name}, {number:,}'] = _laps(run_with_all, number), laps * number
            runs[f'{subject.name}, {number:,} in order'] = (
                _laps(_visit_all(runtime, subject, in_order), number),
                laps * number,
            )
        result.samples = interleave(runs, settings.bulk_rounds)
        for subject, subject_with_one in zip(present, with_one, strict=True):
            check_reuse(subject, number)
            check_reuse(subject_with_one, 1)
    for subject in present:
        for order, words in ((' in order', 'in order'), ('', 'shuffled')):
            cost = ratios(result.samples[f'{subject.name}, {number:,}{order}'], result.samples[f'{subject.name}, one'])
            text = f'{subject.name}: cost of a cycle, {number:,} endpoints {words} against one'
            result.figures.append(Figure(text, cost))
    result.figures += _against_others(result, present, f', {number:,}')
    floor = next((subject.name for subject in present if subject.name == 'dict of lists'), None)
    if floor is not None:
        # The cost of the memory alone.
        own, least = (result.samples[f'{name}, {number:,}'] for name in (present[0].name, floor))
        text = f'{present[0].name}: cost of a cycle, {number:,} endpoints shuffled, in that of a {floor}'
        result.figures.append(Figure(text, ratios(own, least), goal=Goal('<=', 1.5)))
    return result


def create(runtime: Runtime, settings: Settings) -> Result:
    """Acquire very many connections of one endpoint at once, so that each is created; creating does nothing."""
    result = Result(f'{runtime.name}: create', unit='ns/connection')
    number = 2 * settings.endpoints
    classes = runtime.subjects.ENDPOINT_POOLS
    with opened(runtime, [cls() for cls in classes], result) as present:
        runs = {subject.name: (_fill(runtime, type(subject)), number) for subject in present}
        result.samples = interleave(runs, settings.bulk_rounds)
    for name, samples in result.samples.items():
        goal = Goal('<=', 2) if name == 'gcpool' else None
        values = [sample / 1e3 for sample in samples]
        result.figures.append(Figure(f'{name}: each of {number:,} creates', values, unit=' us', goal=goal))
    result.figures += _against_others(result, present, '')
    return result


def close(runtime: Runtime, settings: Settings) -> Result:
    """Close a pool that holds one idle connection at each of very many endpoints."""
    result = Result(f'{runtime.name}: close', unit='ns/connection')
    number = settings.endpoints
    endpoints = make_endpoints(number)
    runs: dict[str, tuple[Timed, int]] = {}
    subjects = [cls(total_max_size=number) for cls in runtime.subjects.ENDPOINT_POOLS]
    with opened(runtime, subjects, result) as present:
        for subject in present:
            runs[subject.name] = _close(runtime, type(subject), endpoints), number
    result.samples = interleave(runs, settings.bulk_rounds)
    for name, samples in result.samples.items():
        goal = Goal('<=', 1) if name == 'gcpool' else None
        values = [sample * number / 1e9 for sample in samples]
        result.figures.append(Figure(f'{name}: close() of {number:,} connections', values, unit=' s', goal=goal))
    result.figures += _against_others(result, present, '')
    return result


def memory(runtime: Runtime, settings: Settings) -> Result:
    """What an endpoint with one idle connection takes up, without the endpoint and the connection themselves.

    Measured in separate processes: by Python's allocators (tracemalloc), and by the growth of the process (resident
    set), which includes memory that bypasses the allocators.
    """
    result = Result(f'{runtime.name}: memory', unit='bytes/endpoint')
    for cls in runtime.subjects.ENDPOINT_POOLS:
        for measure in ('tracemalloc', 'rss'):
            # Tracing is slow. A quarter of the endpoints fills the hash tables as much as all of them do.
            number = settings.endpoints // 4 if measure == 'tracemalloc' else settings.endpoints
            outcome = memory_of(runtime.name, cls.name, number, measure)
            if 'missing' in outcome:
                result.missing[cls.name if measure == 'tracemalloc' else f'{cls.name}, {measure}'] = outcome['missing']
                continue
            goal = Goal('<=', 570) if cls.name == 'gcpool' else None
            name = f'{cls.name}, {measure}'
            result.samples[name] = [outcome['bytes']]
            text = f'{cls.name}: of an endpoint with an idle connection, by {measure}'
            result.figures.append(Figure(text, [outcome['bytes']], unit=' B', goal=goal))
    return result


def _visit_all(runtime: Runtime, subject: Any, endpoints: Sequence[str]) -> Timed:
    """Count in laps through all endpoints."""

    def run(laps: int) -> int:
        return sum(runtime.timed(lambda _number: subject.visit(endpoints))(1) for _ in range(laps))

    return run


def _laps(run: Timed, endpoints: int) -> Timed:
    """Convert a loop that counts laps into one that counts cycles."""
    return lambda number: run(number // endpoints)


def _visit_one(runtime: Runtime, subject: Any, endpoint: str) -> Timed:
    return runtime.timed(lambda number: subject.visit([endpoint] * number))


def _fill(runtime: Runtime, cls: Callable[..., Any]) -> Timed:
    def run(number: int) -> int:
        subject = cls(max_size=number, total_max_size=number)
        runtime.call(subject.open)
        elapsed = runtime.timed(subject.fill)(number)
        check_reuse(subject, number)
        runtime.call(subject.empty)
        runtime.call(subject.close)
        return elapsed

    return run


def _close(runtime: Runtime, cls: Callable[..., Any], endpoints: Sequence[str]) -> Timed:
    def run(number: int) -> int:
        subject = cls(total_max_size=number)
        runtime.call(subject.open)
        runtime.call(subject.visit, endpoints)
        started = perf_counter_ns()
        runtime.call(subject.close)
        elapsed = perf_counter_ns() - started
        if subject.pool.get_size():
            raise RuntimeError(f'{subject.name} holds {subject.pool.get_size()} connections after close()')
        return elapsed

    return run


def memory_of(runtime: str, subject: str, endpoints: int, measure: str) -> dict[str, Any]:
    """Run ``bench.memory`` and return its result."""
    command = [sys.executable, '-m', 'bench.memory', runtime, subject, str(endpoints), measure]
    # The child must find this package and the pools where this process found them.
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(path for path in sys.path if path)}
    completed = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    outcome: dict[str, Any] = json.loads(completed.stdout)
    return outcome


def _against_others(result: Result, present: Sequence[Any], suffix: str) -> list[Figure]:
    first, *others = (subject.name for subject in present)
    own = result.samples[first + suffix]
    return [
        Figure(f'{first}: times as fast as {other}{suffix and " at this"}', ratios(result.samples[other + suffix], own))
        for other in others
    ]
