"""How the pools of this package create, check, clean and take back connections.

The half for threads is generated from the half for asyncio.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from psycopg import ProgrammingError
from psycopg.pq import TransactionStatus

from ._engine_asyncio import ENDPOINT, close_connection
from ._runtime_asyncio import AsyncReturns, answer_of
from .base import BasePool, logger, milliseconds_since

__all__ = ['AsyncConnections']

IDLE = TransactionStatus.IDLE
UNKNOWN = TransactionStatus.UNKNOWN
ACTIVE = TransactionStatus.ACTIVE


class AsyncConnections(BasePool):
    """The part of a pool that handles its connections.

    Log records get the text of a connection, not the connection, whose state may change while a record is queued.
    """

    conninfo: Any
    kwargs: Any
    connection_class: Any
    _returns: AsyncReturns
    _on_configure: Callable[[Any], Any] | None
    _on_check: Callable[[Any], Any] | None
    _on_reset: Callable[[Any], Any] | None

    # -- making -------------------------------------------------------------------------------------------------------

    async def _resolve_conninfo(self) -> str:
        # Has this name because programs call it (procrastinate).
        found: str = await answer_of(self.conninfo()) if callable(self.conninfo) else self.conninfo
        if found and not isinstance(found, str):
            # The class that psycopg raises for an invalid conninfo. The value is not quoted, because it has a password.
            raise ProgrammingError(
                f'the conninfo of the pool {self.name!r} is of type {type(found).__name__}: expected a str, or a '
                'function that returns one; parameters by name go into kwargs'
            )
        return found or ''

    async def _resolve_kwargs(self) -> dict[str, Any]:
        # The same.
        found: dict[str, Any] = await answer_of(self.kwargs()) if callable(self.kwargs) else self.kwargs
        return found or {}

    async def _new_connection(self, deadline: float | None) -> Any:
        """Connect, and configure the connection.

        :param deadline: when the timeout expires of the client that waits for this connection; None if it is for the
            next client
        """
        self._counts.add('connections_num')
        try:
            conninfo = await self._resolve_conninfo()
            kwargs = await self._resolve_kwargs()
            if deadline is not None:
                kwargs = {**kwargs, 'connect_timeout': max(round(deadline - time.monotonic()), 1)}
            began = time.monotonic()
            conn: Any = await self.connection_class.connect(conninfo, **kwargs)
        except BaseException:
            self._counts.add('connections_errors')
            raise
        self._counts.add('connections_ms', milliseconds_since(began))
        try:
            # So that a `with` block of a callback does not close the connection.
            conn._pool = self
            if self._on_configure is not None:
                await self._on_configure(conn)
                self._expect_idle(conn, 'configure', self._on_configure)
            conn._pool = None
            conn._gcpool_made_at = time.monotonic()
        except BaseException:
            await close_connection(conn)
            raise
        return conn

    @staticmethod
    def _expect_idle(conn: Any, name: str, callback: object) -> None:
        status = TransactionStatus(conn.pgconn.transaction_status)
        if status != IDLE:
            raise ProgrammingError(
                f'{name}={callback!r} has left its connection in status {status.name}: expected a commit or a rollback'
            )

    @staticmethod
    async def check_connection(conn: Any) -> None:
        """Ask the server whether a connection works. Raises what the driver raises if it does not."""
        if conn.autocommit:
            await conn.execute('')
            return
        await conn.set_autocommit(True)
        try:
            await conn.execute('')
        finally:
            # The caller gets the error of the statement, not that of the connection, which is now closed.
            with suppress(Exception):
                await conn.set_autocommit(False)

    # -- taking back --------------------------------------------------------------------------------------------------

    def _is_out(self, conn: Any, lease: object) -> bool:
        # Whether a connection is still with the client that got it, in a pool where close() returns connections: the
        # client may have closed it, and another one may have it now.
        if conn._pool is not self or getattr(conn, '_gcpool_lease', None) is not lease:
            return False
        # If close() was interrupted, the connection is being closed.
        return self._engine._core.entry_if_acquired(conn, ENDPOINT) is not None

    async def _take_back(self, conn: Any) -> None:
        """Return a connection to the pool, or close it if it is unfit."""
        if await self._clean(conn):
            conn._pool = None
            await self._engine.release(conn, ENDPOINT)
        else:
            self._counts.add('returns_bad')
            logger.warning('a returned connection is broken, and is closed: %s', str(conn))
            await self._discard(conn)

    async def _take_back_cut_off(self, conn: Any) -> None:
        # Its client was interrupted while it was checked.
        if await self._clean(conn):
            conn._pool = None
            await self._engine.release(conn, ENDPOINT)
        else:
            await self._lose(conn)

    async def _lose(self, conn: Any) -> None:
        """Close a connection that a check has found unfit."""
        self._counts.add('connections_lost')
        await self._discard(conn)

    async def _discard(self, conn: Any) -> None:
        conn._pool = None
        await self._engine.discard(conn)

    async def _clean(self, conn: Any) -> bool:
        """End the transaction that a client has left open. Returns whether the connection is fit."""
        status = conn.pgconn.transaction_status
        if status == IDLE:
            return True
        if status == UNKNOWN:
            return False
        if status == ACTIVE:
            logger.warning('a connection was returned in the middle of a command and is closed: %s', str(conn))
            await self._finish(conn)
            return False
        logger.warning('a connection was returned in an open transaction, which is rolled back: %s', str(conn))
        try:
            await conn.rollback()
        except BaseException as exc:
            logger.warning(
                'the rollback failed: %s: %s: the connection is closed: %s', type(exc).__name__, exc, str(conn)
            )
            await self._finish(conn)
            if not isinstance(exc, Exception):
                await self._discard(conn)
                raise
            return False
        return bool(conn.pgconn.transaction_status == IDLE)

    @staticmethod
    async def _finish(conn: Any) -> None:
        # Not close(), which may return the connection to the pool.
        conn.pgconn.finish()

    async def _reset_and_take_back(self, conn: Any, job: list[Any], cut_off: bool) -> None:
        """Call ``reset``, in a task or a thread of the pool, and return the connection."""
        try:
            hold = job.pop()
        except IndexError:
            # putconn() was interrupted, and has given the connection up.
            return
        try:
            await self._reset_or_discard(conn, job, cut_off)
        except BaseException:
            hold.give_up()
            raise
        hold.conn = None

    def _end_reset(self, conn: Any, job: list[Any]) -> None:
        # The connection may have been returned once more meanwhile.
        if self._resetting.get(id(conn)) is job:
            del self._resetting[id(conn)]

    async def _reset_or_discard(self, conn: Any, job: list[Any], cut_off: bool) -> None:
        try:
            sound = not cut_off and not self._closed and await self._clean(conn) and await self._call_reset(conn)
        except BaseException:
            if conn._pool is self:
                await self._discard(conn)
            raise
        finally:
            self._end_reset(conn, job)
        if sound:
            conn._pool = None
            await self._engine.release(conn, ENDPOINT)
        elif self._closed or cut_off:
            await self._discard(conn)
        else:
            self._counts.add('returns_bad')
            logger.warning('a returned connection is broken, and is closed: %s', str(conn))
            await self._discard(conn)

    async def _call_reset(self, conn: Any) -> bool:
        callback = self._on_reset
        if callback is None:
            return True
        try:
            await callback(conn)
            self._expect_idle(conn, 'reset', callback)
        except Exception as exc:
            logger.warning('resetting a connection failed: %s: %s', type(exc).__name__, exc)
            await self._finish(conn)
            return False
        return True

    async def _discard_unneeded(self, conn: Any) -> None:
        """Close a connection of a null pool that no client waits for."""
        if conn.pgconn.transaction_status == UNKNOWN:
            self._counts.add('returns_bad')
        await self._discard(conn)
