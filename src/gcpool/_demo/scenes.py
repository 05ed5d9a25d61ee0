"""A warm start and a spike, where connecting is slow: what the pool's own connects are good for.

Nothing is connected to: connecting takes ``CONNECT`` seconds and a request ``REQUEST``, each a sleep.
"""

import asyncio
import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Sequence

import gcpool.asyncio
import gcpool.threading

CONNECT = 0.150
REQUEST = 0.002
CLIENTS = 50
IDLE = 5
PATIENCE = 30.0  # seconds that a pool may take for what needs less than one
COLD, WARM = 'cold', 'warm'  # the two endpoints


@dataclasses.dataclass(frozen=True)
class Scene:
    """One column of the report. Times are seconds."""

    title: str
    first_cold: float  # the first request to an endpoint without connections
    warmed_up: float  # until IDLE connections were there
    first_warm: float  # the first request after that
    opened: int  # connections that the spike of CLIENTS requests has opened
    served: int  # requests of the spike
    all_served: float
    median_wait: float


class _SlowManager(gcpool.threading.BaseConnectionManager[str, object]):
    def create(self, endpoint: str, timeout: float | None = None) -> object:
        time.sleep(CONNECT)
        return object()

    def dispose(self, endpoint: str, conn: object, timeout: float | None = None) -> None:
        pass


class _AsyncSlowManager(gcpool.asyncio.BaseConnectionManager[str, object]):
    async def create(self, endpoint: str) -> object:
        await asyncio.sleep(CONNECT)
        return object()

    async def dispose(self, endpoint: str, conn: object) -> None:
        pass


def play(shown: Callable[[int, int], object]) -> list[Scene]:
    """Play all scenes, which takes about three seconds.

    :param shown: called after each scene with the number of scenes played, and of all
    """
    scenes = []
    for in_background in (False, True):
        scenes.append(_play_threads(in_background))
        shown(len(scenes), 4)
        scenes.append(asyncio.run(_play_tasks(in_background)))
        shown(len(scenes), 4)
    return scenes


def _title(clients: str, in_background: bool) -> str:
    return f'{CLIENTS} {clients}\n{"in the background" if in_background else "default"}'


def _play_threads(in_background: bool) -> Scene:
    pool = gcpool.threading.ConnectionPool[str, object](
        _SlowManager(), max_size=CLIENTS, create_in_background=in_background, acquire_timeout=PATIENCE
    )
    gate = threading.Barrier(CLIENTS + 1)
    waits: list[float] = []
    ends: list[float] = []

    def request(endpoint: str) -> float:
        began = time.perf_counter()
        with pool.connection(endpoint):
            waits.append(time.perf_counter() - began)
            time.sleep(REQUEST)
        return time.perf_counter() - began

    def client() -> None:
        gate.wait(PATIENCE)
        request(WARM)
        ends.append(time.perf_counter())

    try:
        first_cold = request(COLD)
        began = time.perf_counter()
        pool.warm_up(WARM, IDLE)
        pool.wait(PATIENCE)
        warmed_up = time.perf_counter() - began
        first_warm = request(WARM)

        created = pool.get_stats()['created']
        waits.clear()
        threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        gate.wait(PATIENCE)
        began = time.perf_counter()
        for thread in threads:
            thread.join(PATIENCE)
        # What is being created when all are served counts as well.
        until = time.monotonic() + PATIENCE
        while (stats := pool.get_stats())['size'] > stats['idle'] and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        pool.close(timeout=0)
    return _scene(
        _title('threads', in_background),
        first_cold,
        warmed_up,
        first_warm,
        stats['created'] - created,
        waits,
        began,
        ends,
    )


async def _play_tasks(in_background: bool) -> Scene:
    pool = gcpool.asyncio.ConnectionPool[str, object](
        _AsyncSlowManager(), max_size=CLIENTS, create_in_background=in_background, acquire_timeout=PATIENCE
    )
    waits: list[float] = []
    ends: list[float] = []

    async def request(endpoint: str) -> float:
        began = time.perf_counter()
        async with pool.connection(endpoint):
            waits.append(time.perf_counter() - began)
            await asyncio.sleep(REQUEST)
        return time.perf_counter() - began

    async def client() -> None:
        await request(WARM)
        ends.append(time.perf_counter())

    try:
        first_cold = await request(COLD)
        began = time.perf_counter()
        pool.warm_up(WARM, IDLE)
        await pool.wait(PATIENCE)
        warmed_up = time.perf_counter() - began
        first_warm = await request(WARM)

        created = pool.get_stats()['created']
        waits.clear()
        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        until = time.monotonic() + PATIENCE
        while (stats := pool.get_stats())['size'] > stats['idle'] and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    finally:
        await pool.close(timeout=0)
    return _scene(
        _title('tasks', in_background),
        first_cold,
        warmed_up,
        first_warm,
        stats['created'] - created,
        waits,
        began,
        ends,
    )


def _scene(
    title: str,
    first_cold: float,
    warmed_up: float,
    first_warm: float,
    opened: int,
    waits: Sequence[float],
    began: float,
    ends: Sequence[float],
) -> Scene:
    return Scene(
        title=title,
        first_cold=first_cold,
        warmed_up=warmed_up,
        first_warm=first_warm,
        opened=opened,
        served=len(ends),
        all_served=max(ends, default=began) - began,
        median_wait=statistics.median(waits or [0.0]),
    )
