"""Compare gcpool's drop-ins for psycopg_pool and SQLAlchemy's pool with the originals: ``python -m bench.dropins``.

A private PostgreSQL server runs on loopback, started from the installed programs and stopped at the end.
"""

import asyncio
import functools
import gc
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest

from . import servers_asyncio, servers_spike, servers_threads
from .measure import Figure, Goal, Timed, calibrate, interleave, ratios
from .runtimes import Runtime, check_reuse, opened, warm_up
from .servers import CONNECTIONS, STATEMENTS, WORKERS, Case, Peer, Servers, load, main, spike
from .servers_measure import CHECKOUT, Load, LoadResult, compare
from .settings import Settings

OWN, ORIGINAL = 'gcpool.psycopg_pool', 'psycopg_pool'
OWN_QUEUE, QUEUE = servers_threads.SqlAlchemyDropIn.name, servers_threads.SqlAlchemy.name

#: number of pools from which the memory of one is measured
POOLS = 20
MOST_STALE = 5
#: seconds
TIMEOUT = 60.0
AUTOCOMMIT: dict[str, Any] = {'kwargs': {'autocommit': True}}


def cases(runtime: Runtime) -> dict[str, Case]:
    """Return the cases of a runtime by name, in the order of the table."""
    subjects: Any = servers_threads if runtime.name == 'threads' else servers_asyncio
    found: dict[str, Case] = {
        **_load_cases(runtime, subjects),
        'psycopg_spike': functools.partial(spike, runtime, functools.partial(_spike_subjects, runtime), own=OWN),
        'psycopg_stale_connections': functools.partial(stale_connections, runtime),
        'psycopg_checkout': functools.partial(checkout, runtime, subjects),
        'psycopg_memory': functools.partial(memory, runtime),
    }
    return {f'{runtime.name}.{name}': case for name, case in found.items()}


def _load_cases(runtime: Runtime, subjects: Any) -> dict[str, Case]:
    statement, answer = STATEMENTS['select_1']
    query = subjects.select(statement, answer)
    bare = Peer(servers_threads.NoPool.name)
    found: dict[str, Case] = {
        'psycopg_select_1': functools.partial(
            load,
            runtime,
            f'psycopg, {statement}',
            functools.partial(_psycopg_subjects, runtime, subjects),
            query,
            [Peer(ORIGINAL, Goal('>=', 1.3), Goal('<=', 1), in_turn=True), bare],
            long=True,
            fairness=Goal('>=', 0.95),
            own=OWN,
        )
    }
    if runtime.name == 'threads':
        found['sqlalchemy_select_1'] = functools.partial(
            load,
            runtime,
            f'SQLAlchemy, psycopg, {statement}',
            _sqlalchemy_subjects,
            query,
            [Peer(QUEUE, Goal('>=', 1.0)), bare],
            long=True,
            fairness=Goal('>=', 0.95),
            own=OWN_QUEUE,
        )
    return found


def _connect(conninfo: str) -> Any:
    return import_module('psycopg').connect(conninfo, autocommit=True)


def _psycopg_subjects(runtime: Runtime, subjects: Any, servers: Servers) -> Sequence[Any]:
    sizes: dict[str, Any] = {'min_size': CONNECTIONS, 'max_size': CONNECTIONS}
    found = [kind(servers.postgres, **sizes, **AUTOCOMMIT) for kind in (subjects.DropIn, subjects.PsycopgPool)]
    if runtime.name == 'threads':
        connect = functools.partial(_connect, servers.postgres)
        found.append(servers_threads.NoPool(connect, WORKERS['threads']))
    return found


def _sqlalchemy_subjects(servers: Servers) -> Sequence[Any]:
    connect = functools.partial(_connect, servers.postgres)
    sizes: dict[str, Any] = {'pool_size': CONNECTIONS, 'max_overflow': 0}
    kinds = servers_threads.SqlAlchemyDropIn, servers_threads.SqlAlchemy
    return [*(kind(connect, **sizes) for kind in kinds), servers_threads.NoPool(connect, WORKERS['threads'])]


def _spike_subjects(runtime: Runtime) -> Sequence[Any]:
    sizes: dict[str, Any] = {'min_size': servers_spike.MINIMUM, 'max_size': servers_spike.MOST}
    if runtime.name == 'threads':
        slow: Any = servers_spike.SlowConnection
        kinds: Any = servers_threads.DropIn, servers_threads.PsycopgPool
    else:
        slow, kinds = servers_spike.AsyncSlowConnection, (servers_asyncio.DropIn, servers_asyncio.PsycopgPool)
    return [kind('', connection_class=slow, **sizes) for kind in kinds]


# -- the first acquire after an outage ---------------------------------------------------------------------------------


def stale_connections(runtime: Runtime, settings: Settings, servers: Servers) -> LoadResult:
    """Have the server end 1 to 5 idle connections, and time the first client after that, with a check."""
    result = LoadResult(f'{runtime.name}: the first client after an outage', unit='ms')
    try:
        conninfo = servers.postgres
    except (pytest.skip.Exception, ImportError) as reason:
        result.missing['the server'] = str(reason)
        return result
    first = _first_client if runtime.name == 'threads' else _first_client_of_loop
    longest = []
    alone = []
    for _ in range(settings.bulk_rounds):
        began = time.perf_counter()
        conn = _connect(conninfo)
        alone.append((time.perf_counter() - began) * 1e3)
        conn.close()
        times = [runtime.call(first, OWN, conninfo, number) * 1e3 for number in range(1, MOST_STALE + 1)]
        for number, took in enumerate(times, start=1):
            result.samples.setdefault(f'{OWN}: {number} stale', []).append(took)
        longest.append(max(times))
    text = f'{OWN}: longest wait of the first client beside 1 to {MOST_STALE} stale connections'
    result.figures.append(Figure(text, longest, unit=' ms', goal=Goal('<=', 50)))
    result.samples['a connect alone'] = alone
    result.figures.append(Figure('for comparison: a connect alone', alone, unit=' ms'))
    # The original pauses for 1, 2, 4 .. s between checks.
    took = runtime.call(first, ORIGINAL, conninfo, settings.stale) * 1e3
    result.samples[f'{ORIGINAL}: {settings.stale} stale'] = [took]
    text = f'{ORIGINAL}: wait of the first client beside {settings.stale} stale connections'
    result.figures.append(Figure(text, [took], unit=' ms'))
    return result


def _end_all(conninfo: str) -> None:
    # Only the measured pool has connections: the server is private. Waits until each has ended.
    with _connect(conninfo) as other:
        other.execute(
            'SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity '
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


def _first_client(package: str, conninfo: str, number: int) -> float:
    kind: Any = import_module(package).ConnectionPool
    with kind(conninfo, min_size=number, check=kind.check_connection, open=False) as pool:
        pool.wait()
        _end_all(conninfo)
        began = time.perf_counter()
        with pool.connection(TIMEOUT) as conn:
            took = time.perf_counter() - began
            conn.execute('SELECT 1')
    return took


async def _first_client_of_loop(package: str, conninfo: str, number: int) -> float:
    kind: Any = import_module(package).AsyncConnectionPool
    async with kind(conninfo, min_size=number, check=kind.check_connection, open=False) as pool:
        await pool.wait()
        await asyncio.to_thread(_end_all, conninfo)
        began = time.perf_counter()
        async with pool.connection(TIMEOUT) as conn:
            took = time.perf_counter() - began
            await conn.execute('SELECT 1')
    return took


# -- a checkout without a statement ------------------------------------------------------------------------------------


def _block(pool: Any, number: int) -> None:
    connection = pool.connection
    for _ in range(number):
        with connection():
            pass


def _by_hand(pool: Any, number: int) -> None:
    getconn, putconn = pool.getconn, pool.putconn
    for _ in range(number):
        putconn(getconn())


async def _async_block(pool: Any, number: int) -> None:
    connection = pool.connection
    for _ in range(number):
        async with connection():
            pass


async def _async_by_hand(pool: Any, number: int) -> None:
    getconn, putconn = pool.getconn, pool.putconn
    for _ in range(number):
        await putconn(await getconn())


def checkout(runtime: Runtime, subjects: Any, settings: Settings, servers: Servers) -> LoadResult:
    """Take a connection from a warm pool and return it, in a block and by hand; the processor time."""
    result = LoadResult(f'{runtime.name}: a checkout, psycopg, autocommit', unit='ns/cycle', measures=[CHECKOUT])
    try:
        pools = [kind(servers.postgres, min_size=1, **AUTOCOMMIT) for kind in (subjects.DropIn, subjects.PsycopgPool)]
    except (pytest.skip.Exception, ImportError) as reason:
        result.missing['the server'] = str(reason)
        return result
    ways: dict[str, Callable[..., Any]] = {'connection()': _block, 'getconn()': _by_hand}
    if runtime.name != 'threads':
        ways = {'connection()': _async_block, 'getconn()': _async_by_hand}
    with opened(runtime, pools, result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        created = {}
        for subject in present:
            for way, cycle in ways.items():
                name = f'{subject.name}, {way}'
                loads = result.add(name)
                run = _noting(_timed(runtime, functools.partial(cycle, subject.pool)), loads)
                created[subject] = warm_up(subject, run)
                runs[name] = run, calibrate(run, settings.loop_ns, start=2)
                loads.clear()
        result.samples = interleave(runs, settings.rounds)
        for subject in present:
            check_reuse(subject, created[subject])
    for way in ways:
        compare(result, CHECKOUT, f'{ORIGINAL}, {way}', Goal('<=', 1 / 3), f'{OWN}, {way}')
    return result


def _timed(runtime: Runtime, cycle: Callable[[int], Any]) -> Timed:
    # Processor time: the cycle waits for nothing, and other programs must not count.
    def run(number: int) -> int:
        began = time.thread_time_ns()
        cycle(number)
        return time.thread_time_ns() - began

    async def run_in_loop(number: int) -> int:
        began = time.thread_time_ns()
        await cycle(number)
        return time.thread_time_ns() - began

    if runtime.name == 'threads':
        return run

    def run_loop(number: int) -> int:
        elapsed: int = runtime.call(run_in_loop, number)
        return elapsed

    return run_loop


def _noting(timed: Timed, loads: list[Load]) -> Timed:
    def run(number: int) -> int:
        elapsed = timed(number)
        loads.append(Load(elapsed, [number], []))
        return elapsed

    return run


# -- memory ------------------------------------------------------------------------------------------------------------


def memory(runtime: Runtime, settings: Settings, servers: Servers) -> LoadResult:
    """Open many pools of one connection each, and count what Python allocates for one, and its threads or tasks."""
    result = LoadResult(f'{runtime.name}: memory of a pool', unit='bytes')
    measure = _memory_of_pool if runtime.name == 'threads' else _memory_of_loop_s_pool
    sizes: dict[str, list[float]] = {OWN: [], ORIGINAL: []}
    helpers: dict[str, list[float]] = {OWN: [], ORIGINAL: []}
    for _ in range(settings.bulk_rounds + 1):
        for package, found in sizes.items():
            size, number = runtime.call(measure, package)
            found.append(size)
            helpers[package].append(number)
    # The first round also pays for what a first pool imports and caches.
    for package, found in sizes.items():
        result.samples[package] = found[1:]
        result.figures.append(Figure(f'{package}: memory of a pool', [size / 1024 for size in found[1:]], ' KiB'))
        kind = 'threads' if runtime.name == 'threads' else 'tasks'
        result.figures.append(Figure(f'{package}: {kind} of a pool at rest', helpers[package][1:], ''))
    text = f'{OWN}: memory of a pool, in that of {ORIGINAL}'
    result.figures.append(Figure(text, ratios(sizes[OWN][1:], sizes[ORIGINAL][1:])))
    return result


class _Kept(servers_spike.SlowConnection):
    @classmethod
    def connect(cls, conninfo: str = '', **_kwargs: object) -> Any:
        return cls()


class _AsyncKept(servers_spike.AsyncSlowConnection):
    @classmethod
    async def connect(cls, conninfo: str = '', **_kwargs: object) -> Any:
        return cls()


def _memory_of_pool(package: str) -> tuple[float, float]:
    kind: Any = import_module(package).ConnectionPool
    threads = threading.active_count()
    pools = []
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(POOLS):
            pool = kind(connection_class=_Kept, min_size=1, open=False)
            pools.append(pool)
            pool.open(wait=True)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    number = threading.active_count() - threads
    for pool in pools:
        pool.close()
    return size / POOLS, number / POOLS


async def _memory_of_loop_s_pool(package: str) -> tuple[float, float]:
    kind: Any = import_module(package).AsyncConnectionPool
    tasks = len(asyncio.all_tasks())
    pools = []
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(POOLS):
            pool = kind(connection_class=_AsyncKept, min_size=1, open=False)
            pools.append(pool)
            await pool.open(wait=True)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    number = len(asyncio.all_tasks()) - tasks
    for pool in pools:
        await pool.close()
    return size / POOLS, number / POOLS


if __name__ == '__main__':
    sys.exit(main(module='bench.dropins', description=__doc__, cases=cases))
