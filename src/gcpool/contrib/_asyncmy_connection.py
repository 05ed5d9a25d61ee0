"""asyncmy's connection, extended by what a pool needs to know."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from asyncmy import connection, errors
from asyncmy.constants import COMMAND

from gcpool._core import GuardedLogger
from gcpool.contrib._mysql_session import QUERIES_FOR_RESET, SessionState
from gcpool.contrib._sockets import poll_once

__all__ = ['GOOD_BYE', 'Connection']

if TYPE_CHECKING:

    class _DriverConnection(connection.Connection):
        """Attributes of asyncmy's connection that are not in its interface and are used here."""

        autocommit_mode: bool | None
        server_status: int

        def __init__(self, **params: Any) -> None: ...
        async def autocommit(self, value: bool) -> None: ...
        async def prepare(self, query: Any) -> Any: ...
        async def query(self, sql: str, unbuffered: bool = False) -> Any: ...
        async def show_warnings(self) -> Any: ...

        _charset: str
        _connected: bool
        _deprecate_eof: bool
        _encoding: str
        _init_command: str | None
        _proto: Any
        _read_timeout: float | None
        _result: Any
        _stmt_cache: dict[str, Any]
        _transport: asyncio.Transport | None

        async def _get_server_information(self) -> None: ...
        async def _execute_command(self, command: int, sql: str | bytes) -> None: ...
        async def _read_ok_packet(self) -> Any: ...
        async def _read_query_result(self, unbuffered: bool = False) -> None: ...
        def _write_bytes(self, data: bytes) -> None: ...

    class _DriverStatement:
        """Attributes of asyncmy's prepared statement that are used here."""

        _connection: Any

        def __init__(self, conn: Any, statement_id: int, parameter_count: int) -> None: ...
        async def execute(self, args: Any = ()) -> Any: ...
        async def execute_bulk(self, rows: Any) -> Any: ...

else:
    _DriverConnection = connection.Connection
    _DriverStatement = connection.PreparedStatement

# Bits of the server's status.
_MORE_RESULTS = 8

_QUIT = b'\x01\x00\x00\x00\x01'

#: Seconds that a close by the user waits for the server.
GOOD_BYE = 1.0

# The name that users know the class by.
logger = GuardedLogger('gcpool.contrib.asyncmy')


class Connection(SessionState, _DriverConnection):
    """asyncmy's connection, which also knows whether the server still owes it an answer.

    asyncmy ignores a server status without any bit set. So this class reads the status itself, and knows when asyncmy's
    value is older than the last statement.
    """

    INTERFACE_ERROR = errors.InterfaceError

    @property
    def in_order(self) -> bool:
        """Whether the last statement's answer was read to its end, so that another statement may be sent."""
        return self._connected and self._is_answered

    def is_quiet(self) -> bool:
        """Whether the server has neither ended the connection nor sent anything unread; no round trip."""
        proto, transport = self._proto, self._transport
        if transport is None or transport.is_closing() or proto.eof or proto.exc is not None:
            return False
        if proto.length > proto.pos:
            return False
        sock = transport.get_extra_info('socket')
        # None: a TLS transport of Python 3.10 that is gone. Otherwise the kernel may know what the event loop has not
        # seen yet.
        return sock is not None and not any(poll_once(sock.fileno()))

    async def restore(self) -> None:
        """Roll back an open transaction and restore autocommit; no round trip if there is nothing to do."""
        for step in self.steps_to_restore():
            await step()

    async def learn_to_reset(self) -> None:
        """Record the state of a new session that a reset restores."""
        try:
            await self.query(QUERIES_FOR_RESET[0])
        except errors.MySQLError as exc:
            self._note_error(exc)
            await self.query(QUERIES_FOR_RESET[1])
        self.plan_reset(self._result.rows[0], self._init_command, self._encoding)
        self._initial = self._charset, self._encoding, self.autocommit_mode

    async def reset(self) -> None:
        """Reset the session to its initial state; one round trip, none if the session was not used."""
        if not self.was_used:
            return
        self._charset, self._encoding, self.autocommit_mode = self._initial
        self._stmt_cache.clear()
        for step in self.steps_to_reset():
            await step()

    async def connect(self) -> Any:
        """Connect again, as asyncmy lets users do.

        :raise asyncmy.errors.InterfaceError: the pool has closed the connection, and would not know a new one
        """
        self._refuse_if_ended()
        connected = await super().connect()
        # The pool may have closed it in the meantime.
        self._refuse_if_ended()
        return connected

    def abort(self) -> None:
        """Close the connection without notifying the server."""
        self.close()
        # Not every version of asyncmy reports this.
        self._connected = False

    async def ensure_closed(self) -> None:
        """Close like asyncmy, which waits for the server without a limit, even after ``read_timeout``."""
        await self._close_within(GOOD_BYE)

    async def end(self, timeout: float) -> None:
        """Close the connection for good, orderly if it is intact; abort it if that takes too long.

        :param timeout: seconds
        """
        self._ended = True
        await self._close_within(timeout)

    async def _close_within(self, timeout: float) -> None:
        polite = self.in_order and self.is_quiet()
        result, self._result = self._result, None
        if result is not None:
            result.unbuffered_active = False
        proto = self._proto
        if proto is None:
            return
        # Not awaited directly: a cancellation would reach the future itself, and asyncmy has only this one.
        closed = (proto._closed_waiter,)  # noqa: SLF001
        try:
            if polite:
                self._write_bytes(_QUIT)
                self.close()
                await asyncio.wait(closed, timeout=timeout)
        except errors.MySQLError as exc:
            logger.debug('a connection is aborted, it could not be closed: %r', exc)
        finally:
            self.abort()
            # Not the connection's own writer: asyncmy forgets that before everything written is sent.
            if proto.transport is not None:
                proto.transport.abort()
        await asyncio.wait(closed, timeout=timeout)

    @staticmethod
    def _failed_half_way(result: Any) -> bool:
        # If an error comes in place of the end of the rows, asyncmy forgets the connection.
        return result.connection is not None and not result.unbuffered_active

    def _was_closed_here(self, exc: BaseException) -> bool:
        # asyncmy closes the transport after a timeout, but does not when the server has ended the connection.
        return self._transport is None

    async def _get_server_information(self) -> None:
        # Before any wait, because the wait may be cancelled half-way.
        transport: Any = self._transport
        self._begin_session(transport.get_extra_info('sockname'))
        await super()._get_server_information()

    async def _execute_command(self, command: int, sql: str | bytes) -> None:
        earlier = self._result
        if command == COMMAND.COM_STMT_CLOSE:
            # The command changes nothing and has no answer.
            try:
                await super()._execute_command(command, sql)
            finally:
                self._note_forgotten(earlier)
            return
        # Before, because sending may fail half-way; after, because asyncmy first reads what an earlier statement left
        # unread.
        if self._connected:
            self._begin_statement(earlier, command)
        try:
            await super()._execute_command(command, sql)
        except errors.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_statement(earlier)

    async def _read_ok_packet(self) -> Any:
        return await self._reply_of(super()._read_ok_packet(), told=True)

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        # Also for further results of a statement.
        self._awaiting_reply = True
        try:
            await super()._read_query_result(unbuffered)
        except errors.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_result(self._result)

    def _note_result(self, result: Any) -> None:
        """Read the status of a result that was read to its end, or whose rows are fetched one by one."""
        told = result.field_count == 0 or (self._deprecate_eof and not result.unbuffered_active)
        if told:
            self.server_status = result.server_status
        self._note_reply(told=told)

    async def note_execution(self, reading: Awaitable[Any]) -> Any:
        """Await the execution of a prepared statement, and record the outcome."""
        try:
            result = await reading
        except errors.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_result(result)
        if result.server_status & _MORE_RESULTS or self._status_is_old:
            # There may have been further results. asyncmy drops these, and the statuses that the server sent with them.
            self._note_reply(told=False)
            self._status_is_in_doubt = True
        return result

    async def prepare(self, query: Any) -> Any:
        """Like asyncmy."""
        statement = await self._reply_of(super().prepare(query), told=False)
        return _PreparedStatement(self, statement._statement_id, statement.parameter_count)  # noqa: SLF001

    async def show_warnings(self) -> Any:
        """Like asyncmy."""
        return await self._reply_of(super().show_warnings(), told=False)

    async def _reply_of(self, reading: Awaitable[Any], *, told: bool) -> Any:
        try:
            reply = await reading
        except errors.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_reply(told=told)
        return reply


class _PreparedStatement(_DriverStatement):
    """asyncmy's prepared statement, which notifies its connection when an answer was read to its end, and of the
    status.

    asyncmy reads these answers without using the connection, ignores a status without any bit set, and drops all
    results of a procedure but the first.
    """

    async def execute(self, args: Any = ()) -> Any:
        """Like asyncmy."""
        return await self._execution(super().execute(args))

    async def execute_bulk(self, rows: Any) -> Any:
        """Like asyncmy."""
        return await self._execution(super().execute_bulk(rows))

    async def _execution(self, reading: Awaitable[Any]) -> Any:
        conn = self._connection
        return await (reading if conn is None else conn.note_execution(reading))
