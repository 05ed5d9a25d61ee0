"""Stale connections: how long the first acquire takes after an outage that left idle connections behind."""

import asyncio
import time
import types
from collections.abc import Hashable
from importlib import import_module
from typing import Any

import gcpool.asyncio
import gcpool.threading

from .measure import Figure, Goal, Result
from .noop import ENDPOINT, AsyncConnection, Connection
from .runtimes import Runtime
from .settings import Settings

__all__ = ['stale_connections']

_MOST = 5
#: seconds
_CONNECT = 0.005
_CHECK_TIMEOUT = 0.05
_TIMEOUT = 60.0
#: milliseconds
_GOAL = Goal('<=', 100)

#: kind of stale connection -> its description
_KINDS = {'closed': 'that fail their check at once', 'silent': 'that do not answer'}


class _Server:
    """Knows which connections were made since the outage."""

    def __init__(self, kind: str) -> None:
        self.is_silent = kind == 'silent'
        self._alive: set[int] = set()
        self._kept: list[object] = []

    def accept(self, conn: Any) -> Any:
        self._alive.add(id(conn))
        self._kept.append(conn)
        return conn

    def knows(self, conn: object) -> bool:
        return id(conn) in self._alive

    def lose_all(self) -> None:
        self._alive.clear()


class _Manager(gcpool.threading.BaseConnectionManager[Hashable, Connection]):
    def __init__(self, server: _Server) -> None:
        self._server = server

    def create(self, endpoint: Hashable, timeout: float | None = None) -> Connection:
        time.sleep(_CONNECT)
        conn: Connection = self._server.accept(Connection())
        return conn

    def check_aliveness(self, endpoint: Hashable, conn: Connection, timeout: float | None = None) -> bool:
        if not self._server.knows(conn) and self._server.is_silent:
            assert timeout is not None
            time.sleep(timeout)
            raise TimeoutError('no answer')
        return self._server.knows(conn)

    def dispose(self, endpoint: Hashable, conn: Connection, timeout: float | None = None) -> None:
        pass


class _AsyncManager(gcpool.asyncio.BaseConnectionManager[Hashable, AsyncConnection]):
    def __init__(self, server: _Server) -> None:
        self._server = server

    async def create(self, endpoint: Hashable) -> AsyncConnection:
        await asyncio.sleep(_CONNECT)
        conn: AsyncConnection = self._server.accept(AsyncConnection())
        return conn

    async def check_aliveness(self, endpoint: Hashable, conn: AsyncConnection) -> bool:
        if not self._server.knows(conn) and self._server.is_silent:
            await asyncio.sleep(_TIMEOUT)
        return self._server.knows(conn)

    async def dispose(self, endpoint: Hashable, conn: AsyncConnection) -> None:
        pass


def stale_connections(runtime: Runtime, settings: Settings) -> Result:
    """Leave 1 to 5 idle connections stale, as an outage does, and time the first acquire after it."""
    result = Result(f'{runtime.name}: stale_connections', unit='ms')
    own = _first_acquire if runtime.name == 'threads' else _first_acquire_of_task
    for kind, words in _KINDS.items():
        longest = []
        for _ in range(settings.bulk_rounds):
            times = [runtime.call(own, kind, number) * 1e3 for number in range(1, _MOST + 1)]
            for number, took in enumerate(times, start=1):
                result.samples.setdefault(f'gcpool: {number} {kind}', []).append(took)
            longest.append(max(times))
        text = f'gcpool: longest first acquire beside 1 to {_MOST} stale connections {words}'
        result.figures.append(Figure(text, longest, unit=' ms', goal=_GOAL))
    peer = _first_acquire_of_peer if runtime.name == 'threads' else _first_acquire_of_peer_s_task
    try:
        took = runtime.call(peer, settings.stale) * 1e3
    except ImportError as error:
        result.missing['psycopg_pool'] = str(error)
    else:
        result.samples[f'psycopg_pool: {settings.stale} closed'] = [took]
        text = f'psycopg_pool: first acquire beside {settings.stale} stale connections {_KINDS["closed"]}'
        result.figures.append(Figure(text, [took], unit=' ms'))
    return result


def _options(number: int) -> dict[str, Any]:
    return {'min_idle': number, 'max_size': 2 * _MOST, 'check_interval': 0.0, 'check_timeout': _CHECK_TIMEOUT}


def _first_acquire(kind: str, number: int) -> float:
    server = _Server(kind)
    pool = gcpool.threading.ConnectionPool(_Manager(server), **_options(number))
    try:
        for conn in [pool.acquire(ENDPOINT) for _ in range(number)]:
            pool.release(conn, ENDPOINT)
        server.lose_all()
        began = time.perf_counter()
        conn = pool.acquire(ENDPOINT, _TIMEOUT)
        took = time.perf_counter() - began
        _must_be_alive(server, conn)
        pool.release(conn, ENDPOINT)
    finally:
        pool.close(1.0)
    return took


async def _first_acquire_of_task(kind: str, number: int) -> float:
    server = _Server(kind)
    pool = gcpool.asyncio.ConnectionPool(_AsyncManager(server), **_options(number))
    try:
        for conn in [await pool.acquire(ENDPOINT) for _ in range(number)]:
            await pool.release(conn, ENDPOINT)
        server.lose_all()
        began = time.perf_counter()
        conn = await pool.acquire(ENDPOINT, _TIMEOUT)
        took = time.perf_counter() - began
        _must_be_alive(server, conn)
        await pool.release(conn, ENDPOINT)
    finally:
        await pool.close(1.0)
    return took


def _must_be_alive(server: _Server, conn: object) -> None:
    if not server.knows(conn):
        raise RuntimeError('a stale connection was served')


# psycopg_pool with a connection that is faked as in subjects_threads, and its own way to check: ``check``.


def _first_acquire_of_peer(number: int) -> float:
    psycopg_pool: Any = import_module('psycopg_pool')
    status: Any = import_module('psycopg.pq').TransactionStatus
    server = _Server('closed')

    class Faked(Connection):
        pgconn = types.SimpleNamespace(transaction_status=status.IDLE)

        @classmethod
        def connect(cls, conninfo: str = '', **_kwargs: object) -> Any:
            time.sleep(_CONNECT)
            return server.accept(cls())

    def check(conn: Any) -> None:
        if not server.knows(conn):
            conn.pgconn = types.SimpleNamespace(transaction_status=status.UNKNOWN)
            raise ConnectionError('stale')

    pool = psycopg_pool.ConnectionPool(
        connection_class=Faked, min_size=number, max_size=2 * _MOST, check=check, open=False
    )
    with pool:
        pool.wait()
        server.lose_all()
        began = time.perf_counter()
        conn = pool.getconn(_TIMEOUT)
        took = time.perf_counter() - began
        pool.putconn(conn)
    return took


async def _first_acquire_of_peer_s_task(number: int) -> float:
    psycopg_pool: Any = import_module('psycopg_pool')
    status: Any = import_module('psycopg.pq').TransactionStatus
    server = _Server('closed')

    class Faked(AsyncConnection):
        pgconn = types.SimpleNamespace(transaction_status=status.IDLE)

        @classmethod
        async def connect(cls, conninfo: str = '', **_kwargs: object) -> Any:
            await asyncio.sleep(_CONNECT)
            return server.accept(cls())

    async def check(conn: Any) -> None:
        if not server.knows(conn):
            conn.pgconn = types.SimpleNamespace(transaction_status=status.UNKNOWN)
            raise ConnectionError('stale')

    pool = psycopg_pool.AsyncConnectionPool(
        connection_class=Faked, min_size=number, max_size=2 * _MOST, check=check, open=False
    )
    async with pool:
        await pool.wait()
        server.lose_all()
        began = time.perf_counter()
        conn = await pool.getconn(_TIMEOUT)
        took = time.perf_counter() - began
        await pool.putconn(conn)
    return took
