"""What the tests of watching share: a manager that connects to nothing, pools in a snapshot, and what a cycle calls."""

import sys
import threading
from collections.abc import Mapping
from typing import Any

import gcpool.asyncio
import gcpool.threading


class Manager(gcpool.threading.BaseConnectionManager[Any, object]):
    """Connects to nothing."""

    def create(self, endpoint: Any, timeout: float | None = None) -> object:
        return object()

    def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
        pass


class AsyncManager(gcpool.asyncio.BaseConnectionManager[Any, object]):
    """Connects to nothing."""

    async def create(self, endpoint: Any, timeout: float | None = None) -> object:
        return object()

    async def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
        pass


def pool_in(snapshot: dict[str, Any], name: str) -> dict[str, Any]:
    """The pools of a name in a snapshot."""
    (found,) = [pool for pool in snapshot['pools'] if pool['name'] == name]
    return dict(found)


def threads_called(name: str) -> list[threading.Thread]:
    """The threads of a name."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def counts(stats: Mapping[str, int]) -> dict[str, int]:
    """Statistics without what changes from one look to the next, though nothing happens."""
    return {name: value for name, value in stats.items() if name != 'longest_held'}


def modules_called(pool: gcpool.threading.ConnectionPool[Any, Any]) -> list[str]:
    """The modules of the Python functions that 200 acquires and releases call, after the first one of all."""
    called: list[str] = []

    def profile(frame: Any, event: str, argument: object) -> None:
        if event == 'call':
            called.append(frame.f_globals.get('__name__', ''))

    pool.release(pool.acquire('a'))
    sys.setprofile(profile)
    try:
        for _ in range(100):
            pool.release(pool.acquire('a'))
            with pool.connection('a'):
                pass
    finally:
        sys.setprofile(None)
    return called
