"""The bodies of the benchmark functions, which are the same for threads and for asyncio."""

import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from . import cases_queue
from .cases_endpoints import memory_of
from .measure import jain_index
from .noop import make_endpoints
from .runtimes import Runtime, check_reuse, warm_up

__all__ = [
    'measure_close',
    'measure_contention',
    'measure_loop',
    'measure_memory',
    'measure_queue',
    'measure_visit',
    'subjects',
]

#: Cycles in one iteration of pytest-benchmark; the times that it prints are for this many.
CYCLES = 1000

_ENDPOINTS = 10_000
_TASKS = 2_500
_CONTENTION_ROUNDS = 5


def subjects(classes: Iterable[Callable[..., Any]], *positional: Any, **options: Any) -> pytest.MarkDecorator:
    """Run a benchmark function with each of the classes, opened by the fixture ``subject``."""
    return pytest.mark.parametrize(
        'subject',
        [pytest.param(functools.partial(cls, *positional, **options), id=cls.name) for cls in classes],  # type: ignore[attr-defined]
        indirect=True,
    )


def measure_loop(benchmark: Any, runtime: Runtime, subject: Any, loop: Callable[[int], Any]) -> None:
    """Measure one of a subject's loops."""
    created = warm_up(subject, runtime.timed(loop))
    benchmark.extra_info['cycles'] = CYCLES
    benchmark(runtime.call, loop, CYCLES)
    check_reuse(subject, created)


def measure_visit(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    """Measure cycles at as many endpoints as there are cycles, out of many more."""
    endpoints = make_endpoints(_ENDPOINTS)
    runtime.call(subject.visit, endpoints)
    # A prime stride visits every endpoint, in an order that does not help a cache.
    order = itertools.cycle([endpoints[index * 7919 % _ENDPOINTS] for index in range(_ENDPOINTS)])
    benchmark.extra_info.update(cycles=CYCLES, endpoints=_ENDPOINTS)
    benchmark(lambda: runtime.call(subject.visit, itertools.islice(order, CYCLES)))
    assert subject.created == _ENDPOINTS


def measure_contention(benchmark: Any, runtime: Runtime, subject: Any, workers: int, hold: float) -> None:
    """Measure how long a pool takes to serve ``CYCLES`` times; the fairness goes with the extra figures."""
    fairness = []
    benchmark.group += f', hold {hold * 1e6:.0f} us'

    def run() -> None:
        _, served = runtime.contend(subject.serve, workers, CYCLES, hold)
        assert sum(served) == CYCLES
        fairness.append(round(jain_index(served), 4))

    benchmark.pedantic(run, rounds=_CONTENTION_ROUNDS, warmup_rounds=1)
    benchmark.extra_info.update(cycles=CYCLES, workers=workers, hold_seconds=hold, jain=fairness)
    assert subject.created <= subject.size


def measure_close(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    """Measure ``close()`` of a pool with an idle connection at each of many endpoints."""
    endpoints = make_endpoints(_ENDPOINTS)

    def fill() -> tuple[tuple[Any], dict[str, Any]]:
        full = type(subject)(total_max_size=_ENDPOINTS)
        runtime.call(full.open)
        runtime.call(full.visit, endpoints)
        return (full,), {}

    def close(full: Any) -> None:
        runtime.call(full.close)
        assert full.pool.get_size() == 0

    benchmark.extra_info['connections'] = _ENDPOINTS
    benchmark.pedantic(close, setup=fill, rounds=3)


def measure_memory(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    """Measure memory in another process. The time does not matter; the extra figures are the result."""
    outcome = benchmark.pedantic(memory_of, (runtime.name, subject.name, _ENDPOINTS, 'tracemalloc'), rounds=1)
    benchmark.extra_info.update(endpoints=_ENDPOINTS, bytes_per_endpoint=outcome['bytes'])
    assert outcome['bytes'] > 0


def measure_queue(benchmark: Any, runtime: Runtime, subject: Any, *, cancel: bool) -> None:
    """Measure very many tasks that queue on one connection, served or cancelled."""
    measure = cases_queue.cancel_all if cancel else cases_queue.serve_all
    benchmark.extra_info['tasks'] = _TASKS
    benchmark.pedantic(runtime.call, (measure, subject, _TASKS), rounds=3, warmup_rounds=1)
    assert subject.created == 1
