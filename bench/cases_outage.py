"""An outage: many acquires wait for a server that is down."""

import asyncio
import threading
import time
from collections.abc import Hashable
from typing import Any

import gcpool.asyncio
import gcpool.threading

from .measure import Figure, Goal, Result
from .noop import ENDPOINT, AsyncConnection, Connection
from .runtimes import Runtime
from .settings import Settings

__all__ = ['outage']

_WAITERS = 64
_CONNECTIONS = 8
#: seconds
_CONNECT = 0.005
_HOLD = 0.001
_RECONNECT_TIMEOUT = 60.0
_HUNG_AFTER = 120.0


class _Server:
    """Counts the attempts to connect to it."""

    def __init__(self) -> None:
        self.is_up = False
        self.returned_at = 0.0
        self.attempts = 0
        #: maximum number of simultaneous attempts after the first failure, which begins the outage
        self.most = 0
        self._has_failed = False
        self._current = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        with self._lock:
            self._current += 1
            if not self.is_up:
                self.attempts += 1
                if self._has_failed:
                    self.most = max(self.most, self._current)

    def end(self) -> None:
        with self._lock:
            self._current -= 1
            self._has_failed = True
        if not self.is_up:
            raise ConnectionRefusedError('the server is away')

    def come_back(self) -> None:
        self.is_up = True
        self.returned_at = time.perf_counter()


class _Manager(gcpool.threading.BaseConnectionManager[Hashable, Connection]):
    def __init__(self, server: _Server) -> None:
        self._server = server

    def create(self, endpoint: Hashable, timeout: float | None = None) -> Connection:
        self._server.begin()
        time.sleep(_CONNECT)
        self._server.end()
        return Connection()

    def dispose(self, endpoint: Hashable, conn: Connection, timeout: float | None = None) -> None:
        pass


class _AsyncManager(gcpool.asyncio.BaseConnectionManager[Hashable, AsyncConnection]):
    def __init__(self, server: _Server) -> None:
        self._server = server

    async def create(self, endpoint: Hashable) -> AsyncConnection:
        self._server.begin()
        await asyncio.sleep(_CONNECT)
        self._server.end()
        return AsyncConnection()

    async def dispose(self, endpoint: Hashable, conn: AsyncConnection) -> None:
        pass


def outage(runtime: Runtime, settings: Settings) -> Result:
    """Have 64 threads or tasks wait until the server comes back, in a pool that connects for them or in them."""
    result = Result(f'{runtime.name}: outage of {settings.outage:.0f} s', unit='ms')
    for in_background in (False, True):
        server = _Server()
        options = {
            'max_size': _CONNECTIONS,
            'reconnect_timeout': _RECONNECT_TIMEOUT,
            'create_in_background': in_background,
        }
        if runtime.name == 'threads':
            served = _threads(server, options, settings.outage)
        else:
            served = runtime.call(_tasks, server, options, settings.outage)
        if len(served) != _WAITERS:
            raise RuntimeError(f'{len(served)} of {_WAITERS} were served')
        text = 'create_in_background' if in_background else 'default'
        last = (max(served) - server.returned_at) * 1e3
        result.samples[text] = [last]
        result.figures += [
            Figure(f'{text}: attempts to connect', [server.attempts], unit=''),
            Figure(f'{text}: attempts at a time', [server.most], unit='', goal=Goal('<=', 1)),
            Figure(f'{text}: all served after the return', [last], unit=' ms', goal=Goal('<=', 200)),
        ]
    return result


def _threads(server: _Server, options: dict[str, Any], seconds: float) -> list[float]:
    pool = gcpool.threading.ConnectionPool(_Manager(server), **options)
    served: list[float] = []

    def wait() -> None:
        with pool.connection(ENDPOINT):
            served.append(time.perf_counter())
            time.sleep(_HOLD)

    threads = [threading.Thread(target=wait, daemon=True) for _ in range(_WAITERS)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    server.come_back()
    for thread in threads:
        thread.join(_HUNG_AFTER)
    pool.close(0)
    return served


async def _tasks(server: _Server, options: dict[str, Any], seconds: float) -> list[float]:
    pool = gcpool.asyncio.ConnectionPool(_AsyncManager(server), **options)
    served: list[float] = []

    async def wait() -> None:
        async with pool.connection(ENDPOINT):
            served.append(time.perf_counter())
            await asyncio.sleep(_HOLD)

    tasks = [asyncio.create_task(wait()) for _ in range(_WAITERS)]
    await asyncio.sleep(seconds)
    server.come_back()
    await asyncio.wait_for(asyncio.gather(*tasks), _HUNG_AFTER)
    await pool.close(0)
    return served
