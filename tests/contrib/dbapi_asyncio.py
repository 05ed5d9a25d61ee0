"""A database driver that awaits, without a database, for the tests of the pools for SQLAlchemy's asyncio engines."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.util import greenlet_spawn

from gcpool.contrib._sqlalchemy_records import await_
from gcpool.contrib.sqlalchemy import AsyncQueuePool
from tests.contrib.dbapi import FakeConnection, FakeDriver


class AsyncDriver(FakeDriver):
    """Awaits where it connects and closes, as SQLAlchemy's adapters of asyncio drivers do.

    :ivar connecting: what a connect awaits
    """

    def __init__(self) -> None:
        super().__init__()
        self.connecting: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)

    def connect(self) -> Any:
        await_(self.connecting())
        self.made.append(AsyncFakeConnection(self, len(self.made)))
        return self.made[-1]


class AsyncFakeConnection(FakeConnection):
    def close(self) -> None:
        await_(asyncio.sleep(0))
        super().close()


async def connect(pool: AsyncQueuePool) -> Any:
    return await greenlet_spawn(pool.connect)


async def close(conn: Any) -> None:
    await greenlet_spawn(conn.close)


async def until_waiting(pool: AsyncQueuePool, count: int) -> None:
    while pool._pool.get_stats()['waiting'] < count:  # noqa: ASYNC110 # no event tells
        await asyncio.sleep(0)


async def begin_to_wait(pool: AsyncQueuePool, count: int = 1) -> list['asyncio.Task[Any]']:
    """Checkouts in tasks, that wait for a connection, one after the other."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(connect(pool)))
        await until_waiting(pool, number + 1)
    return tasks
