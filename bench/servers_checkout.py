"""The cost of a checkout without a statement: one thread or task takes a connection from a warm pool and releases it.

The connection managers are the real ones, and all that they do each time is included: the check before a connection is
served, the look at it when it is returned. For comparison there is the driver's own pool and, if the driver has none or
to show what a pool saves, a new connection each time.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest

from . import servers_asyncio, servers_threads
from .measure import Figure, Goal, Timed, calibrate, interleave
from .noop import ENDPOINT
from .runtimes import Runtime, check_reuse, opened, warm_up
from .servers_measure import CHECKOUT, Load, LoadResult, compare
from .servers_subjects import CountedPool
from .settings import Settings

__all__ = ['DRIVERS', 'Checkout', 'checkout']

#: seconds after its last use for which a connection is served without a check, for the subject that has such a time
UNCHECKED = 3600.0

HALF = Goal('<=', 0.5)


@dataclass(frozen=True)
class Checkout:
    """A subject, and a function that takes a connection from its pool and releases it a number of times."""

    subject: Any
    cycle: Callable[[Any, int], Any]
    #: the goal for gcpool, relative to this subject
    goal: Goal | None = None
    #: the goal for this subject itself, in microseconds
    own_goal: Goal | None = None


class UncheckedGcPool(servers_threads.GcPool):
    name = 'gcpool, within check_interval'


class UncheckedAsyncGcPool(servers_asyncio.GcPool):
    name = 'gcpool, within check_interval'


class Connecting(CountedPool):
    """No pool: a connection is created each time, and closed."""

    name = 'no pool: connects each time'
    note = 'connects; closes'
    bounded = False

    def __init__(self, connect: Callable[[], Any]) -> None:
        super().__init__()
        self._connect = connect

    def open(self) -> None:
        self.pool = self._connect

    def close(self) -> None:
        """There is nothing to close."""


def checkout(runtime: Runtime, driver: str, settings: Settings, servers: Any) -> LoadResult:
    """Take a connection from each of several warm pools and release it, in turns."""
    text, make_checkouts = DRIVERS[runtime.name][driver]
    result = LoadResult(f'{runtime.name}: a checkout, {text}', unit='ns/cycle', measures=[CHECKOUT])
    try:
        checkouts = {checkout.subject: checkout for checkout in make_checkouts(servers)}
    except (pytest.skip.Exception, ImportError) as reason:
        result.missing['the server'] = str(reason)
        return result
    with opened(runtime, list(checkouts), result) as present:
        runs: dict[str, tuple[Timed, int]] = {}
        created = {}
        for subject in present:
            loads = result.add(subject.name, subject.note)
            run = _run(runtime.timed(functools.partial(checkouts[subject].cycle, subject.pool)), loads)
            # Without connecting, which takes so long that the loop would be too short.
            created[subject] = subject.created if isinstance(subject, Connecting) else warm_up(subject, run)
            runs[subject.name] = run, calibrate(run, settings.loop_ns, start=2)
            loads.clear()
        result.samples = interleave(runs, settings.rounds)
        for subject in present:
            check_reuse(subject, created[subject])
    for subject in present:
        if goal := checkouts[subject].own_goal:
            result.figures.append(
                Figure(f'{subject.name}: a checkout', result.values(subject.name, CHECKOUT), ' us', goal)
            )
        if subject is not present[0]:
            compare(result, CHECKOUT, subject.name, checkouts[subject].goal)
    return result


def _run(timed: Timed, loads: list[Load]) -> Timed:
    def run(number: int) -> int:
        elapsed = timed(number)
        loads.append(Load(elapsed, [number], []))
        return elapsed

    return run


def _block(pool: Any, number: int) -> None:
    connection = pool.connection
    for _ in range(number):
        with connection():
            pass


def _endpoint_block(pool: Any, number: int) -> None:
    connection = pool.connection
    for _ in range(number):
        with connection(ENDPOINT):
            pass


def _connect_and_close(pool: Any, number: int) -> None:
    connect = getattr(pool, 'connect', pool)
    for _ in range(number):
        connect().close()


def _get_and_release(pool: Any, number: int) -> None:
    for _ in range(number):
        pool.release(pool.get_connection())


async def _async_block(pool: Any, number: int) -> None:
    connection = getattr(pool, 'connection', None) or pool.acquire
    for _ in range(number):
        async with connection():
            pass


async def _async_endpoint_block(pool: Any, number: int) -> None:
    connection = pool.connection
    for _ in range(number):
        async with connection(ENDPOINT):
            pass


async def _async_get_and_release(pool: Any, number: int) -> None:
    for _ in range(number):
        await pool.release(await pool.get_connection())


def _psycopg(conninfo: str) -> list[Checkout]:
    gcpool, psycopg_pool, sqlalchemy, *_ = servers_threads.psycopg_subjects(conninfo, 1, 1)
    return [
        Checkout(gcpool, _endpoint_block, own_goal=Goal('<=', 2.5)),
        Checkout(_unchecked(gcpool), _endpoint_block, own_goal=Goal('<=', 1.5)),
        Checkout(psycopg_pool, _block, HALF),
        Checkout(sqlalchemy, _connect_and_close, HALF),
        Checkout(Connecting(functools.partial(import_module('psycopg').connect, conninfo)), _connect_and_close),
    ]


def _pymysql(params: dict[str, Any]) -> list[Checkout]:
    def make_manager() -> Any:
        return import_module('gcpool.contrib.pymysql').DbConnectionManager({ENDPOINT: params})

    connect = functools.partial(import_module('pymysql').connect, **params)
    gcpool = servers_threads.GcPool(make_manager, 'looks at the socket; at the status that the server has told')
    return [
        Checkout(gcpool, _endpoint_block),
        Checkout(_unchecked(gcpool), _endpoint_block),
        Checkout(servers_threads.SqlAlchemy(connect, pool_size=1, max_overflow=0), _connect_and_close),
        Checkout(Connecting(connect), _connect_and_close, HALF),
    ]


def _redis(address: tuple[str, int]) -> list[Checkout]:
    gcpool, blocking, plain, _ = servers_threads.redis_subjects(address, 1)
    return [
        Checkout(gcpool, _endpoint_block),
        Checkout(_unchecked(gcpool), _endpoint_block),
        Checkout(plain, _get_and_release, HALF),
        Checkout(blocking, _get_and_release, HALF),
    ]


def _sqlite3(path: str) -> list[Checkout]:
    def make_manager() -> Any:
        manager = import_module('gcpool.contrib.sqlite3').SqliteConnectionManager()
        # The subjects have one endpoint, of one name.
        normalize = manager.normalize
        manager.normalize = lambda _: normalize(path)
        return manager

    connect = functools.partial(import_module('sqlite3').connect, path, check_same_thread=False)
    gcpool = servers_threads.GcPool(
        make_manager, 'looks whether the file was replaced; closes cursors and rolls back if there is anything'
    )
    return [
        Checkout(gcpool, _endpoint_block),
        Checkout(_unchecked(gcpool), _endpoint_block),
        Checkout(servers_threads.SqlAlchemy(connect, pool_size=1, max_overflow=0), _connect_and_close),
        Checkout(Connecting(connect), _connect_and_close, HALF),
    ]


def _asyncpg(dsn: str) -> list[Checkout]:
    gcpool, asyncpg, without_reset, _ = servers_asyncio.asyncpg_subjects(dsn, 1)
    return [
        Checkout(gcpool, _async_endpoint_block),
        Checkout(_unchecked_async(gcpool), _async_endpoint_block),
        Checkout(asyncpg, _async_block, HALF),
        Checkout(without_reset, _async_block),
    ]


def _psycopg_async(conninfo: str) -> list[Checkout]:
    gcpool, psycopg_pool, _ = servers_asyncio.psycopg_subjects(conninfo, 1)
    return [
        Checkout(gcpool, _async_endpoint_block),
        Checkout(_unchecked_async(gcpool), _async_endpoint_block),
        Checkout(psycopg_pool, _async_block, HALF),
    ]


def _redis_async(address: tuple[str, int]) -> list[Checkout]:
    gcpool, blocking, plain, _ = servers_asyncio.redis_subjects(address, 1)
    return [
        Checkout(gcpool, _async_endpoint_block),
        Checkout(_unchecked_async(gcpool), _async_endpoint_block),
        Checkout(plain, _async_get_and_release, HALF),
        Checkout(blocking, _async_get_and_release, HALF),
    ]


def _unchecked(gcpool: Any) -> Any:
    return gcpool.variant(UncheckedGcPool, check_interval=UNCHECKED)


def _unchecked_async(gcpool: Any) -> Any:
    return gcpool.variant(UncheckedAsyncGcPool, check_interval=UNCHECKED)


#: by runtime and driver: what the case is called, and what makes its subjects
DRIVERS: dict[str, dict[str, tuple[str, Callable[[Any], Sequence[Checkout]]]]] = {
    'threads': {
        'psycopg': ('psycopg, autocommit', lambda servers: _psycopg(servers.postgres)),
        'pymysql': ('PyMySQL, autocommit', lambda servers: _pymysql(servers.mariadb)),
        'redis': ('redis-py', lambda servers: _redis(servers.redis)),
        'sqlite3': ('sqlite3', lambda servers: _sqlite3(servers.sqlite)),
    },
    'asyncio': {
        'asyncpg': ('asyncpg', lambda servers: _asyncpg(servers.postgres)),
        'psycopg': ('psycopg, autocommit', lambda servers: _psycopg_async(servers.postgres)),
        'redis': ('redis-py', lambda servers: _redis_async(servers.redis)),
    },
}
