"""The types of the parameters of the pools, by their names in psycopg_pool."""

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if sys.version_info >= (3, 13):
    from typing import TypeVar
else:
    # psycopg needs it, too.
    from typing_extensions import TypeVar

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection
    from psycopg.rows import TupleRow

    from .pool import ConnectionPool
    from .pool_async import AsyncConnectionPool

__all__ = [
    'ACT',
    'CT',
    'AsyncConnectFailedCB',
    'AsyncConnectionCB',
    'AsyncConninfoParam',
    'AsyncKwargsParam',
    'ConnectFailedCB',
    'ConnectionCB',
    'ConninfoParam',
    'KwargsParam',
]

#: The class of the connections of a pool for threads, and of one on asyncio.
CT = TypeVar('CT', bound='Connection[Any]', default='Connection[TupleRow]')
ACT = TypeVar('ACT', bound='AsyncConnection[Any]', default='AsyncConnection[TupleRow]')

#: Called with a connection: ``configure``, ``check`` and ``reset``.
ConnectionCB: TypeAlias = Callable[[CT], None]
AsyncConnectionCB: TypeAlias = Callable[[ACT], Awaitable[None]]

#: Called with the pool: ``reconnect_failed``.
ConnectFailedCB: TypeAlias = Callable[['ConnectionPool[Any]'], None]
AsyncConnectFailedCB: TypeAlias = (
    Callable[['AsyncConnectionPool[Any]'], None] | Callable[['AsyncConnectionPool[Any]'], Awaitable[None]]
)

#: Where to connect, or a function that returns it for each connect.
ConninfoParam: TypeAlias = str | Callable[[], str]
AsyncConninfoParam: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
KwargsParam: TypeAlias = dict[str, Any] | Callable[[], dict[str, Any]]
AsyncKwargsParam: TypeAlias = dict[str, Any] | Callable[[], dict[str, Any]] | Callable[[], Awaitable[dict[str, Any]]]
