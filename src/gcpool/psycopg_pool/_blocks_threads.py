# Generated from src/gcpool/psycopg_pool/_blocks_asyncio.py by .github/scripts/generate_threading.py; do not edit.

"""Connections whose ``close()`` returns them to their pool (``close_returns``).

psycopg's own ``close()`` does nothing if the connection is broken, so that the pool would lose it; and if a client
closes the connection of its block, the end of the block would close it, too, when another client has it already.
"""

import weakref
from types import TracebackType
from typing import Any

__all__ = ['SyncBlock', 'return_on_close']


class SyncBlock:
    """The context of a connection that ends nothing if the client has returned the connection in the block."""

    def __init__(self, pool: Any, conn: Any, lease: object):
        self._pool = pool
        self._conn = conn
        self._lease = lease

    def __enter__(self) -> Any:
        return self._conn.__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool._is_out(self._conn, self._lease):
            self._conn.__exit__(exc_type, exc, traceback)


def return_on_close(conn: Any) -> None:
    """Give a connection a ``close()`` of its own, once."""
    if 'close' in vars(conn):
        return
    reference = weakref.ref(conn)

    def close() -> None:
        conn = reference()
        if conn is None:
            return
        pool = conn._pool
        if pool is not None and pool.close_returns:
            pool.putconn(conn)
        elif pool is not None:
            type(conn).close(conn)

    conn.close = close
