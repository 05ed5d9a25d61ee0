"""The block that ``connection()`` returns, and a connection's ``close()`` that returns the connection.

psycopg's own ``close()`` does nothing if the connection is broken, so that the pool would lose it; and if a client
closes the connection of its block, the end of the block would close it again, when another client may have it.
The half for threads is generated from the half for asyncio.
"""

import weakref
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from gcpool._core import AsyncBlock

__all__ = ['IDLE', 'AsyncClientBlock', 'return_on_close']

# A plain number, because a connection's status is one.
IDLE = int(TransactionStatus.IDLE)

# While these methods are psycopg's own, the end of a block outside a transaction does nothing, and is not called.
PLAIN_EXIT: Callable[..., Any] = AsyncConnection.__aexit__
PLAIN_COMMIT: Callable[..., Any] = AsyncConnection.commit
PLAIN_ROLLBACK: Callable[..., Any] = AsyncConnection.rollback


class AsyncClientBlock(AsyncBlock):
    """A context that takes a connection from a pool, ends its transaction and returns it; also a decorator.

    A signal handler may raise anywhere in here: see the base class.
    """

    __slots__ = ('__weakref__', '_lease')

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # Each call of a decorated function has its own block.
        @wraps(function)
        async def with_connection(*args: Any, **kwargs: Any) -> Any:
            async with AsyncClientBlock(self._pool, self._timeout):
                return await function(*args, **kwargs)

        return with_connection

    async def _enter(self, pool: Any, timeout: float | None) -> Any:
        self.conn = conn = await pool.getconn(timeout=timeout)
        # In a pool where close() returns connections, the client may have closed this one in the block.
        self._lease = getattr(conn, '_gcpool_lease', None) if pool.close_returns else None
        if type(conn).__aexit__ is not PLAIN_EXIT:
            try:
                await conn.__aenter__()
            except BaseException:
                await pool.putconn(conn)
                raise
        return conn

    async def _leave(
        self,
        pool: Any,
        conn: Any,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Any:
        kind, lease = type(conn), self._lease
        try:
            # Not called if neither a commit nor a rollback would do anything, and no tracer has replaced them.
            if not (
                conn.pgconn.transaction_status == IDLE
                and kind.__aexit__ is PLAIN_EXIT
                and kind.commit is PLAIN_COMMIT
                and kind.rollback is PLAIN_ROLLBACK
                and conn._pipeline is None
            ) and (lease is None or pool._is_out(conn, lease)):
                return await conn.__aexit__(exc_type, exc, traceback)
        finally:
            if lease is None or pool._is_out(conn, lease):
                await pool.putconn(conn)
            # Measured by the compiled base: a call in Python would cost a tenth of the block.
            used_ms = self.used_ms
            if used_ms:
                pool._counts.add('usage_ms', used_ms)
        return None


def return_on_close(conn: Any) -> None:
    """Replace ``close()`` of a connection, once."""
    if 'close' in vars(conn):
        return
    reference = weakref.ref(conn)

    async def close() -> None:
        conn = reference()
        if conn is None:
            return
        pool = conn._pool
        if pool is not None and pool.close_returns:
            await pool.putconn(conn)
        elif pool is not None:
            await type(conn).close(conn)

    conn.close = close
