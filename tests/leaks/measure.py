"""Runs something again and again and looks whether anything is left of it.

What a script here leaves behind per cycle shows as growth from batch to batch: of the memory that tracemalloc sees
(that of the tables and heaps of the core included), of the number of objects that the garbage collector knows, and of
the references to objects that everybody uses.
"""

import gc
import logging
import os
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import gcpool.asyncio
import gcpool.threading

# Cycles in a batch, and batches that are compared.
CYCLES = 100 if os.environ.get('GCPOOL_QUICK') == '1' else 300
BATCHES = 5
WARM_UP_CYCLES = 1000

# What this module and the interpreter may keep themselves. One small object in each cycle is beyond.
SLACK_BYTES = 4096
SLACK_OBJECTS = 50
LEAST_CYCLES = 60

# What the pool has to say about what is done to it here.
logging.getLogger('gcpool').addHandler(logging.NullHandler())


class Connection:
    """Something that can be collected."""


class Manager(gcpool.threading.BaseConnectionManager[Any, Any]):
    """Does what there is least to do."""

    def create(self, endpoint: Any, timeout: float | None = None) -> Any:
        return Connection()

    def dispose(self, endpoint: Any, conn: Any, timeout: float | None = None) -> None:
        pass


class AsyncManager(gcpool.asyncio.BaseConnectionManager[Any, Any]):
    """The same for asyncio."""

    async def create(self, endpoint: Any) -> Any:
        return Connection()

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        pass


class Measure:
    """What there is, when it is made.

    :param subjects: objects whose references are counted, beside None
    """

    def __init__(self, subjects: tuple[object, ...]) -> None:
        # Twice: what finalizers let go is seen by the next one.
        gc.collect()
        gc.collect()
        self.memory = tracemalloc.get_traced_memory()[0]
        self.objects = len(gc.get_objects())
        self.references = [sys.getrefcount(subject) for subject in (None, *subjects)]

    def __repr__(self) -> str:
        return f'{self.memory} bytes, {self.objects} objects, references {self.references}'


def assert_steady(cycle: Callable[[], object], *subjects: object, cycles: int = CYCLES) -> None:
    """Fail if anything grows with the number of cycles.

    :param cycle: what is done again and again
    :param subjects: objects whose references are counted
    :param cycles: how often in a batch
    """

    def batch() -> Measure:
        for _ in range(cycles):
            cycle()
        return Measure(subjects)

    assert cycles >= LEAST_CYCLES
    tracemalloc.start()
    # What is made once, when it is used first, is no leak. CPython 3.10 keeps a frame of each function, and another one
    # when the function is called again from a collection in the midst of it: that may come late.
    for _ in range(max(2, WARM_UP_CYCLES // cycles)):
        batch()
    before = tracemalloc.take_snapshot()
    measures = [batch() for _ in range(BATCHES)]
    # The first one finds what the second batch and the snapshot itself have left to be made once.
    first, last = measures[1], measures[-1]
    grown = (
        last.memory - first.memory > SLACK_BYTES
        or last.objects - first.objects > SLACK_OBJECTS
        or any(now - then > SLACK_OBJECTS for then, now in zip(first.references, last.references, strict=True))
    )
    if grown:
        for measure in measures:
            print(measure)
        for difference in tracemalloc.take_snapshot().compare_to(before, 'lineno')[:10]:
            print(difference)
        raise SystemExit(f'it grows with each of {BATCHES} times {cycles} cycles')
