"""The benchmarks of the pools for threads, one function per case: ``pytest bench``."""

from typing import Any

import pytest

from . import subjects_threads as pools
from .noop import TUPLE_ENDPOINT
from .pytest_cases import (
    measure_close,
    measure_contention,
    measure_loop,
    measure_memory,
    measure_visit,
    subjects,
)
from .runtimes import Runtime

RUNTIME = 'threads'

HOLDS = pytest.mark.parametrize('hold', [0.0, 1e-4, 1e-3], ids=['no_hold', 'hold_100us', 'hold_1ms'])


@pytest.mark.benchmark(group='threads: cycle')
@subjects(pools.CYCLE)
def test_cycle(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    measure_loop(benchmark, runtime, subject, subject.cycle)


@pytest.mark.benchmark(group='threads: context manager')
@subjects(pools.CONTEXT_MANAGER)
def test_context_manager(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    measure_loop(benchmark, runtime, subject, subject.context_manager)


@pytest.mark.benchmark(group='threads: extra connections')
@subjects(pools.ENDPOINT_POOLS, min_idle=0)
def test_extra_connections(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    measure_loop(benchmark, runtime, subject, subject.cycle)


@pytest.mark.benchmark(group='threads: tuple endpoint')
@subjects(pools.ENDPOINT_POOLS, endpoint=TUPLE_ENDPOINT)
def test_tuple_endpoint(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    measure_loop(benchmark, runtime, subject, subject.cycle)


@pytest.mark.benchmark(group='threads: fresh tuple endpoint')
@subjects(pools.ENDPOINT_POOLS, endpoint=TUPLE_ENDPOINT)
def test_fresh_tuple_endpoint(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    measure_loop(benchmark, runtime, subject, subject.fresh_tuples)


@pytest.mark.benchmark(group='threads: many endpoints')
@subjects(pools.ENDPOINT_POOLS, total_max_size=10_000)
def test_many_endpoints(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    measure_visit(benchmark, runtime, subject)


@pytest.mark.benchmark(group='threads: contention, 32 on 8')
@HOLDS
@subjects(pools.CONTENTION, 8)
def test_contention_32_on_8(benchmark: Any, runtime: Runtime, subject: Any, hold: float) -> None:
    measure_contention(benchmark, runtime, subject, 32, hold)


@pytest.mark.benchmark(group='threads: contention, 100 on 10')
@HOLDS
@subjects(pools.CONTENTION, 10)
def test_contention_100_on_10(benchmark: Any, runtime: Runtime, subject: Any, hold: float) -> None:
    measure_contention(benchmark, runtime, subject, 100, hold)


@pytest.mark.benchmark(group='threads: close')
@subjects(pools.ENDPOINT_POOLS)
def test_close(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    measure_close(benchmark, runtime, subject)


@pytest.mark.benchmark(group='threads: memory')
@subjects(pools.ENDPOINT_POOLS)
def test_memory(benchmark: Any, runtime: Runtime, subject: Any) -> None:
    measure_memory(benchmark, runtime, subject)
