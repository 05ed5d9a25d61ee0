"""The spike of HikariCP's "Welcome to the Jungle": many requests at once on a pool at rest, where connecting is slow.

50 requests come at once to a pool of 5 idle connections that may grow to 50. Connecting takes 150 ms and a query 2 ms,
both simulated by a sleep, the same for all. 5 connections could serve all requests within 20 ms; a pool that connects
for a request makes it wait 150 ms. gcpool does that by default, and does not with ``create_in_background``.
"""

import asyncio
import concurrent.futures
import time
import types
from collections.abc import Hashable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import servers_asyncio, servers_threads
from .noop import AsyncConnection, Connection

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    'CONNECT',
    'MINIMUM',
    'MOST',
    'QUERY',
    'REQUESTS',
    'asyncio_subjects',
    'threads_subjects',
    'warm_up',
    'warm_up_async',
]

REQUESTS = 50
MINIMUM = 5
MOST = 50
#: seconds
CONNECT = 0.150
QUERY = 0.002


class SlowConnection(Connection):
    """For threads, with what psycopg_pool needs; the others need less."""

    # 0 is libpq's PQTRANS_IDLE.
    pgconn = types.SimpleNamespace(transaction_status=0)

    @classmethod
    def connect(cls, conninfo: str = '', **_kwargs: object) -> 'SlowConnection':
        time.sleep(CONNECT)
        return cls()

    def __enter__(self) -> 'Self':
        return self

    def __exit__(self, *_exc: object) -> None:
        """Ends the transaction, in psycopg."""

    def query(self) -> None:
        time.sleep(QUERY)


class AsyncSlowConnection(AsyncConnection):
    """The same for asyncio."""

    # 0 is libpq's PQTRANS_IDLE.
    pgconn = types.SimpleNamespace(transaction_status=0)

    @classmethod
    async def connect(cls, conninfo: str = '', **_kwargs: object) -> 'AsyncSlowConnection':
        await asyncio.sleep(CONNECT)
        return cls()

    async def __aenter__(self) -> 'Self':
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Ends the transaction, in psycopg."""

    async def query(self) -> None:
        await asyncio.sleep(QUERY)


class ThreadsDefault(servers_threads.GcPool):
    """gcpool without ``create_in_background``."""

    name = 'gcpool by default'


class AsyncDefault(servers_asyncio.GcPool):
    """The same for asyncio."""

    name = 'gcpool by default'


def _make_manager() -> Any:
    managers: Any = import_module('gcpool.managers')

    class SlowManager(managers.SyncConnectionManager):  # type: ignore[misc, name-defined, unused-ignore]
        def create(self, endpoint: Hashable, timeout: float | None = None) -> SlowConnection:
            return SlowConnection.connect()

        def dispose(self, endpoint: Hashable, conn: SlowConnection, timeout: float | None = None) -> None:
            conn.close()

    return SlowManager()


def _make_async_manager() -> Any:
    managers: Any = import_module('gcpool.managers')

    class SlowManager(managers.AsyncConnectionManager):  # type: ignore[misc, name-defined, unused-ignore]
        async def create(self, endpoint: Hashable) -> AsyncSlowConnection:
            return await AsyncSlowConnection.connect()

        async def dispose(self, endpoint: Hashable, conn: AsyncSlowConnection) -> None:
            await conn.close()

    return SlowManager()


def threads_subjects() -> list[servers_threads.Subject]:
    options: dict[str, Any] = {'max_size': MOST, 'min_idle': MINIMUM}
    return [
        servers_threads.GcPool(_make_manager, **options, create_in_background=True),
        ThreadsDefault(_make_manager, **options),
        servers_threads.PsycopgPool('', connection_class=SlowConnection, min_size=MINIMUM, max_size=MOST),
        servers_threads.SqlAlchemy(SlowConnection.connect, pool_size=MINIMUM, max_overflow=MOST - MINIMUM),
        servers_threads.GenericConnectionPool(_make_manager, **options),
    ]


def asyncio_subjects() -> list[servers_asyncio.Subject]:
    options: dict[str, Any] = {'max_size': MOST, 'min_idle': MINIMUM}
    return [
        servers_asyncio.GcPool(_make_async_manager, **options, create_in_background=True),
        AsyncDefault(_make_async_manager, **options),
        servers_asyncio.PsycopgPool('', connection_class=AsyncSlowConnection, min_size=MINIMUM, max_size=MOST),
        servers_asyncio.GenericConnectionPool(_make_async_manager, **options),
    ]


def warm_up(subject: servers_threads.Subject) -> None:
    """Create the minimum number of connections, at once."""
    contexts = [subject.connection() for _ in range(MINIMUM)]
    with concurrent.futures.ThreadPoolExecutor(MINIMUM) as executor:
        list(executor.map(lambda context: context.__enter__(), contexts))
    for context in contexts:
        context.__exit__(None, None, None)


async def warm_up_async(subject: servers_asyncio.Subject) -> None:
    """Create the minimum number of connections, at once."""
    contexts = [subject.connection() for _ in range(MINIMUM)]
    await asyncio.gather(*(context.__aenter__() for context in contexts))
    for context in contexts:
        await context.__aexit__(None, None, None)
