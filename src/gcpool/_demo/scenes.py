"""A warm start, a spike, and a drain under load, where connecting is slow: the effect of connects by the pool itself.

Nothing is connected to: connecting takes ``CONNECT`` seconds and a request ``REQUEST``, each a sleep.
"""

import asyncio
import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import gcpool.asyncio
import gcpool.threading

CONNECT = 0.150
REQUEST = 0.002
CLIENTS = 50
IDLE = 5
DRAINED = 8  # connections of the pool that is drained under load
UNDER_LOAD = 0.2  # seconds before, and again after, the drain
PATIENCE = 30.0  # seconds that a pool may take for work that needs less than one
COLD, WARM = 'cold', 'warm'  # the two endpoints


@dataclasses.dataclass(frozen=True)
class Drain:
    """What happened to the clients of a pool that was drained under load."""

    answered: int
    failed: int
    replaced: int  # connections
    most: int  # connections at the same time
    longest_wait: float


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
    drain: Drain


class _Counter:
    """Counts the connections that a server would see."""

    def __init__(self) -> None:
        self.most = 0
        self._open = 0
        self._lock = threading.Lock()

    def add(self, change: int) -> None:
        with self._lock:
            self._open += change
            self.most = max(self.most, self._open)


class _SlowManager(gcpool.threading.BaseConnectionManager[str, object]):
    def __init__(self) -> None:
        self.counter = _Counter()

    def create(self, endpoint: str, timeout: float | None = None) -> object:
        self.counter.add(1)
        time.sleep(CONNECT)
        return object()

    def dispose(self, endpoint: str, conn: object, timeout: float | None = None) -> None:
        self.counter.add(-1)


class _AsyncSlowManager(gcpool.asyncio.BaseConnectionManager[str, object]):
    def __init__(self) -> None:
        self.counter = _Counter()

    async def create(self, endpoint: str) -> object:
        self.counter.add(1)
        await asyncio.sleep(CONNECT)
        return object()

    async def dispose(self, endpoint: str, conn: object) -> None:
        self.counter.add(-1)


def play(shown: Callable[[int, int], object]) -> list[Scene]:
    """Play all scenes, which takes about six seconds.

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
        # Connections that are being created when all are served count as well.
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
        _drain_threads(in_background),
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
        await _drain_tasks(in_background),
    )


def _drain_threads(in_background: bool) -> Drain:
    manager = _SlowManager()
    pool = gcpool.threading.ConnectionPool[str, object](
        manager, max_size=DRAINED, create_in_background=in_background, acquire_timeout=PATIENCE
    )
    answered: list[float] = []
    failed: list[BaseException] = []
    stopping = threading.Event()

    def client() -> None:
        try:
            while not stopping.is_set():
                began = time.perf_counter()
                with pool.connection(WARM):
                    answered.append(time.perf_counter() - began)
                    time.sleep(REQUEST)
        except Exception as error:  # noqa: BLE001 - whatever it is, the demo counts it
            failed.append(error)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
    try:
        pool.warm_up(WARM, DRAINED)
        pool.wait(PATIENCE)
        for thread in threads:
            thread.start()
        time.sleep(UNDER_LOAD)
        pool.drain(WARM)
        time.sleep(UNDER_LOAD + CONNECT)
        stopping.set()
        for thread in threads:
            thread.join(PATIENCE)
    finally:
        stopping.set()
        pool.close(timeout=0)
    return _examine(answered, len(failed), pool.get_stats(), manager.counter)


async def _drain_tasks(in_background: bool) -> Drain:
    manager = _AsyncSlowManager()
    pool = gcpool.asyncio.ConnectionPool[str, object](
        manager, max_size=DRAINED, create_in_background=in_background, acquire_timeout=PATIENCE
    )
    answered: list[float] = []
    stopping = False

    async def client() -> None:
        while not stopping:
            began = time.perf_counter()
            async with pool.connection(WARM):
                answered.append(time.perf_counter() - began)
                await asyncio.sleep(REQUEST)

    try:
        pool.warm_up(WARM, DRAINED)
        await pool.wait(PATIENCE)
        tasks = [asyncio.create_task(client()) for _ in range(CLIENTS)]
        await asyncio.sleep(UNDER_LOAD)
        await pool.drain(WARM)
        await asyncio.sleep(UNDER_LOAD + CONNECT)
        stopping = True
        results = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await pool.close(timeout=0)
    failed = sum(isinstance(result, Exception) for result in results)
    return _examine(answered, failed, pool.get_stats(), manager.counter)


def _examine(waits: Sequence[float], failed: int, stats: Mapping[str, int], counter: _Counter) -> Drain:
    return Drain(len(waits), failed, stats['closed_drained'], counter.most, max(waits, default=0.0))


def _scene(
    title: str,
    first_cold: float,
    warmed_up: float,
    first_warm: float,
    opened: int,
    waits: Sequence[float],
    began: float,
    ends: Sequence[float],
    drain: Drain,
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
        drain=drain,
    )
