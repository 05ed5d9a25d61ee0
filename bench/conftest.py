"""Shared by the benchmark functions: a subject, open and warm or skipped, and its runtime."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from .measure import Result
from .runtimes import Asyncio, Runtime, Threads, opened


@pytest.fixture(scope='session')
def runtimes() -> Iterator[dict[str, Runtime]]:
    with contextlib.closing(Threads()) as threads, contextlib.closing(Asyncio()) as loop:
        yield {threads.name: threads, loop.name: loop}


@pytest.fixture
def runtime(request: pytest.FixtureRequest, runtimes: dict[str, Runtime]) -> Runtime:
    """The runtime that the module of the benchmark function names."""
    chosen: Runtime = runtimes[request.module.RUNTIME]
    return chosen


@pytest.fixture
def subject(request: pytest.FixtureRequest, runtime: Runtime) -> Iterator[Any]:
    """An open subject; created by the function that the benchmark is parametrized with."""
    result = Result(request.node.name)
    with opened(runtime, [request.param()], result) as present:
        if not present:
            pytest.skip('; '.join(f'{name}: {reason}' for name, reason in result.missing.items()))
        yield present[0]
