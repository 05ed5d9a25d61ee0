"""The bare cycle (acquire, release, a connection that does nothing) through gcpool and through the pure-Python pool."""

import asyncio
import dataclasses
import importlib
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from typing import Any

OURS = 'gcpool'
PEER = 'generic_connection_pool'
PEER_PROJECT = 'generic-connection-pool'

ENDPOINT = ('localhost', 5432)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Seconds that one cycle takes, the median of the rounds."""

    case: str
    ours: float
    peer: float

    @property
    def ratio(self) -> float:
        return self.peer / self.ours


def find_peer() -> str | None:
    """Return the version of the installed pure-Python pool, None if there is none."""
    try:
        importlib.import_module(PEER)
        return metadata.version(PEER_PROJECT)
    except (ModuleNotFoundError, metadata.PackageNotFoundError):
        return None


def compare(rounds: int, round_seconds: float, on_progress: Callable[[int, int], None]) -> list[Comparison]:
    """Measure both pools in turns, so that anything that slows the machine down affects both.

    :param rounds: how often to measure each
    :param round_seconds: how long about each measurement lasts
    :param on_progress: called after each round with the number of rounds done, and of all rounds
    """
    done = itertools.count(1)

    def advance() -> None:
        on_progress(next(done), 4 * rounds)

    return [
        *_compare_threading(rounds, round_seconds, advance),
        *asyncio.run(_compare_asyncio(rounds, round_seconds, advance)),
    ]


def _compare_threading(rounds: int, round_seconds: float, advance: Callable[[], None]) -> list[Comparison]:
    def create(*_args: object, **_kwargs: object) -> object:
        return object()

    def dispose(*_args: object, **_kwargs: object) -> None:
        pass

    def cycle(pool: Any, cycles: int) -> float:
        began = time.perf_counter()
        for _ in range(cycles):
            pool.release(pool.acquire(ENDPOINT), ENDPOINT)
        return time.perf_counter() - began

    def with_block(pool: Any, cycles: int) -> float:
        began = time.perf_counter()
        for _ in range(cycles):
            with pool.connection(ENDPOINT):
                pass
        return time.perf_counter() - began

    results = []
    pools = [_build_pool(f'{package}.threading', create, dispose) for package in (OURS, PEER)]
    for case, measure in (('one thread: acquire, release', cycle), ('one thread: with connection()', with_block)):
        counts = [_calibrate(measure(pool, 50) / 50, round_seconds) for pool in pools]
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for pool, count, of_pool in zip(pools, counts, times, strict=True):
                of_pool.append(measure(pool, count) / count)
            advance()
        results.append(Comparison(case, *map(statistics.median, times)))
    for pool in pools:
        pool.close()
    return results


async def _compare_asyncio(rounds: int, round_seconds: float, advance: Callable[[], None]) -> list[Comparison]:
    async def create(*_args: object) -> object:
        return object()

    async def dispose(*_args: object) -> None:
        pass

    async def cycle(pool: Any, cycles: int) -> float:
        began = time.perf_counter()
        for _ in range(cycles):
            await pool.release(await pool.acquire(ENDPOINT), ENDPOINT)
        return time.perf_counter() - began

    async def with_block(pool: Any, cycles: int) -> float:
        began = time.perf_counter()
        for _ in range(cycles):
            async with pool.connection(ENDPOINT):
                pass
        return time.perf_counter() - began

    results = []
    pools = [_build_pool(f'{package}.asyncio', create, dispose) for package in (OURS, PEER)]
    cases: list[tuple[str, Callable[[Any, int], Awaitable[float]]]] = [
        ('asyncio: acquire, release', cycle),
        ('asyncio: async with connection()', with_block),
    ]
    for case, measure in cases:
        counts = [_calibrate(await measure(pool, 50) / 50, round_seconds) for pool in pools]
        times: list[list[float]] = [[], []]
        for _ in range(rounds):
            for pool, count, of_pool in zip(pools, counts, times, strict=True):
                of_pool.append(await measure(pool, count) / count)
            advance()
        results.append(Comparison(case, *map(statistics.median, times)))
    for pool in pools:
        await pool.close()
    return results


def _build_pool(module_name: str, create: Callable[..., Any], dispose: Callable[..., Any]) -> Any:
    """Return a pool of the module, with a manager of that module's own base class."""
    module = importlib.import_module(module_name)
    manager = type('NoopManager', (module.BaseConnectionManager,), {'create': create, 'dispose': dispose})
    return module.ConnectionPool(manager())


def _calibrate(cycle_seconds: float, round_seconds: float) -> int:
    return max(100, int(round_seconds / cycle_seconds))
