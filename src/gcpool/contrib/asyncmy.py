"""MySQL and MariaDB connections made by asyncmy, for :py:class:`gcpool.asyncio.ConnectionPool`.

asyncmy rather than aiomysql, since in 2026 it is the better maintained of the two: with releases every few weeks,
wheels for every Python up to 3.14 and its free-threaded build, and a connection that closes itself when a statement is
cancelled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from gcpool.contrib._errors import (
    BAD_PARAMS,
    advice_for_os_error,
    check_source,
    look_up_async,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._mysql import BAD_ARGUMENTS, advice_for_error, advice_for_package, ends_session, is_reply
from gcpool.contrib._sockets import poll_once
from gcpool.exceptions import DiscardConnection
from gcpool.managers import AsyncConnectionManager as BaseConnectionManager

try:
    from asyncmy import connection, errors
    from asyncmy.constants import COMMAND, SERVER_STATUS
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.asyncmy needs asyncmy: pip install "gcpool[asyncmy]"', name=exc.name) from exc

__all__ = ['Connection', 'DbConnectionManager', 'DbEndpoint', 'DbParameters']

DbEndpoint = str
DbParameters = (
    Mapping[DbEndpoint, Mapping[str, Any]]
    | Callable[[DbEndpoint], Mapping[str, Any]]
    | Callable[[DbEndpoint], Awaitable[Mapping[str, Any]]]
)

if TYPE_CHECKING:

    class _DriverConnection(connection.Connection):
        """What asyncmy's connection has beside its interface, and is used here."""

        server_status: int

        def __init__(self, **params: Any) -> None: ...
        async def autocommit(self, value: bool) -> None: ...
        async def prepare(self, query: Any) -> Any: ...
        async def show_warnings(self) -> Any: ...

        _connected: bool
        _deprecate_eof: bool
        _proto: Any
        _read_timeout: float | None
        _result: Any
        _transport: asyncio.Transport | None

        async def _execute_command(self, command: int, sql: str | bytes) -> None: ...
        async def _read_ok_packet(self) -> Any: ...
        async def _read_query_result(self, unbuffered: bool = False) -> None: ...
        def _write_bytes(self, data: bytes) -> None: ...

else:
    _DriverConnection = connection.Connection

# asyncmy's own default, for connecting to a host; here for all until the connection can be used.
_CONNECT_TIMEOUT = 10.0

_QUIT = b'\x01\x00\x00\x00\x01'
_BULK_EXECUTE = 0xFA
# asyncmy reads the answers to these in places of its own, and to the first there is none.
_READ_ELSEWHERE = frozenset({COMMAND.COM_STMT_CLOSE, COMMAND.COM_STMT_EXECUTE, _BULK_EXECUTE})

# asyncio.TimeoutError is an OSError only since Python 3.11.
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)

# Seconds after which a cancellation is repeated that has had no effect.
_CANCELLATION_REPEATED = 0.1

logger = logging.getLogger(__name__)


class Connection(_DriverConnection):
    """asyncmy's connection, which also knows whether the server still owes it an answer.

    Where the server's status has no bit set, asyncmy takes it for not told, and what a statement that failed has begun
    is not told at all. So this takes the status in, and notes when it is of before the last statement.
    """

    #: Whether autocommit was on when the connection was made.
    initial_autocommit = False
    _awaiting_reply = False
    _status_is_old = False

    @property
    def in_order(self) -> bool:
        """Whether the last statement's answer was read to its end, and another statement may be sent."""
        if not self._connected:
            return False
        result = self._result
        if result is None:
            return not self._awaiting_reply
        return not (result.unbuffered_active or result.has_next)

    @property
    def may_be_in_transaction(self) -> bool:
        """Whether a transaction is open, or one may be that the server has not yet told of."""
        if self.server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
            return True
        return self._status_is_old and not self.get_autocommit()

    def is_quiet(self) -> bool:
        """Whether the server has neither ended the connection nor said anything that was not read; no round trip."""
        proto, transport = self._proto, self._transport
        if transport is None or transport.is_closing() or proto.eof or proto.exc is not None:
            return False
        if proto.length > proto.pos:
            return False
        sock = transport.get_extra_info('socket')
        # None: a TLS transport of Python 3.10 that is gone. Else the kernel knows what the event loop has not seen yet.
        return sock is not None and not any(poll_once(sock.fileno()))

    async def restore(self) -> None:
        """Roll back what may be open and set autocommit to what it was; no round trip if there is nothing to do."""
        if self.may_be_in_transaction:
            await self.rollback()
        if self.get_autocommit() != self.initial_autocommit:
            await self.autocommit(self.initial_autocommit)

    async def end(self, timeout: float) -> None:
        """Close the connection, with a good-bye if it is in order; abort it if that takes too long.

        :param timeout: seconds
        """
        polite = self.in_order and self.is_quiet()
        result, self._result = self._result, None
        if result is not None:
            result.unbuffered_active = False
        proto = self._proto
        if proto is None:
            return
        # Not awaited as it is: a cancellation would reach the future itself, of which asyncmy has only this one.
        closed = (proto._closed_waiter,)  # noqa: SLF001
        try:
            if polite:
                self._write_bytes(_QUIT)
                self.close()
                await asyncio.wait(closed, timeout=timeout)
        except errors.MySQLError as exc:
            logger.debug('a connection is aborted, it could not be closed: %r', exc)
        finally:
            self.close()
            self._connected = False
            # Not the connection's own, which it forgets before all that was written is sent.
            if proto.transport is not None:
                proto.transport.abort()
        await asyncio.wait(closed, timeout=timeout)

    async def _execute_command(self, command: int, sql: str | bytes) -> None:
        # Before, since sending may fail half-way; behind, since what an earlier statement left unread is read first.
        self._awaiting_reply = self._status_is_old = True
        await super()._execute_command(command, sql)
        self._status_is_old = True
        self._awaiting_reply = command not in _READ_ELSEWHERE

    async def _read_ok_packet(self) -> Any:
        packet = await self._reply_of(super()._read_ok_packet())
        self._status_is_old = False
        return packet

    async def _read_query_result(self, unbuffered: bool = False) -> None:
        await self._reply_of(super()._read_query_result(unbuffered))
        result = self._result
        told = result.field_count == 0 or (self._deprecate_eof and not result.unbuffered_active)
        if told:
            self.server_status = result.server_status
        self._status_is_old = not told

    async def prepare(self, query: Any) -> Any:
        """As asyncmy's."""
        return await self._reply_of(super().prepare(query))

    async def show_warnings(self) -> Any:
        """As asyncmy's."""
        return await self._reply_of(super().show_warnings())

    async def _reply_of(self, reading: Awaitable[Any]) -> Any:
        try:
            reply = await reading
        except errors.MySQLError as exc:
            self._awaiting_reply = not is_reply(exc)
            raise
        self._awaiting_reply = False
        return reply


class DbConnectionManager(BaseConnectionManager[DbEndpoint, Connection]):
    """Makes connections with asyncmy.

    When a connection is given back, a transaction that the user left open is rolled back, and autocommit is set to what
    it was in the beginning; neither costs a round trip if there is nothing to do. A connection with an answer that was
    not read to its end (a statement that was cancelled, an unbuffered cursor, further result sets) is disposed of.
    Everything else in the session (``SET``, user variables, ``USE``, ``GET_LOCK``, ``LOCK TABLES``, ``PREPARE``,
    temporary tables) stays as the user leaves it.

    :param params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`asyncmy.connect`; it is looked up at each connect, so endpoints may be added later. Or a callable, or
        coroutine function, that returns them for an endpoint, called at each connect: so credentials may change.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection, which does not find a server behind a proxy that keeps the connection open.
    :param close_timeout: seconds that the server may take to say good-bye; then the connection is aborted
    :raise TypeError: ``params`` is neither a mapping nor a callable
    """

    def __init__(self, params: DbParameters, *, ping: bool = False, close_timeout: float = 1.0) -> None:
        check_source(params, 'params', or_callable=True)
        self._params = params
        self._ping = ping
        self._close_timeout = close_timeout

    async def create(self, endpoint: DbEndpoint) -> Connection:
        """Connect. It may take ``connect_timeout`` of the parameters (default 10 seconds) until it can be used.

        :param endpoint: a key of ``params``
        :raise ConnectTimeout: the time is over
        :raise ConnectError: the connection cannot be made; an :py:class:`asyncmy.errors.MySQLError` as well, unless it
            is the parameters that make no sense, or a package is missing that asyncmy needs for the server's way to
            check passwords
        :raise UnknownEndpoint: the endpoint is not in ``params``, or the callable raises KeyError
        """
        params = to_params(await look_up_async(self._params, endpoint, 'params'), endpoint, 'params')
        limit = params.get('connect_timeout') or _CONNECT_TIMEOUT
        try:
            conn = Connection(**params)
        except BAD_ARGUMENTS as exc:
            raise_bad_params(endpoint, exc, 'params')
        try:
            await _connect(conn, limit)
        except BaseException as exc:
            # asyncmy has closed it, but that may have yet to happen.
            await conn.end(self._close_timeout)
            origin = exc.__cause__ if isinstance(exc, errors.MySQLError) else exc
            if isinstance(origin, _TIMEOUTS):
                raise_connect_timeout(endpoint, exc, limit)
            if isinstance(exc, errors.MySQLError):
                advice = advice_for_os_error(origin) if isinstance(origin, OSError) else advice_for_error(exc)
                raise_connect_error(endpoint, exc, advice)
            if isinstance(exc, BAD_PARAMS):
                raise_bad_params(endpoint, exc, 'params')
            if isinstance(exc, RuntimeError) and (package := advice_for_package(exc)) is not None:
                raise_connect_error(endpoint, exc, package)
            raise
        conn.initial_autocommit = conn.get_autocommit()
        return conn

    async def dispose(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """Close a connection; abort it if that takes too long or is cancelled, or if it is in the middle of something.

        :param endpoint: a key of ``params``
        :param conn: the connection; one whose user waits for an answer (a pool can be closed over it) is cut off, and
            the user gets asyncmy's error of a lost connection
        """
        await conn.end(self._close_timeout)

    async def check_aliveness(self, endpoint: DbEndpoint, conn: Connection) -> bool:
        """Tell whether a connection is open, and the server has said nothing that was not asked for.

        :param endpoint: a key of ``params``
        :param conn: the connection. One whose answer to ``ping`` is no longer waited for is closed.
        """
        # A transaction is open where a release was cut off before it could roll back.
        if not (conn.in_order and conn.is_quiet()) or conn.may_be_in_transaction:
            return False
        if self._ping:
            try:
                await conn.ping(reconnect=False)
            except errors.MySQLError:
                return False
        return True

    async def on_release(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """Roll back the transaction that the user left open and restore autocommit; no round trip if nothing is to do.

        How long a server that does not answer is waited for is ``read_timeout`` in the parameters of the connection,
        which asyncmy does not limit by default.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :raise DiscardConnection: the connection is closed, or has an answer that was not read to its end, or cannot be
            rolled back
        """
        if not (conn.in_order and conn.is_quiet()):
            raise DiscardConnection(f'the connection to {endpoint!r} is closed or was not read to its end')
        try:
            await conn.restore()
        except errors.MySQLError as exc:
            logger.warning('a connection to %r cannot be rolled back, it is disposed of: %s', endpoint, exc)
            raise DiscardConnection(f'the connection to {endpoint!r} cannot be rolled back') from exc

    async def is_broken(self, endpoint: DbEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Tell whether a connection is lost, or in the middle of a statement, after its user's block raised.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :param exc: what the block raised
        """
        if not (conn.in_order and conn.is_quiet()):
            return True
        return isinstance(exc, errors.InterfaceError) or (isinstance(exc, errors.MySQLError) and ends_session(exc))


async def _connect(conn: Connection, limit: float) -> None:
    task = asyncio.ensure_future(conn.connect())
    try:
        await asyncio.wait((task,), timeout=limit)
        timed_out = not task.done()
    finally:
        await _cancel(task)
    if timed_out:
        raise asyncio.TimeoutError('the server does not answer')
    task.result()


async def _cancel(task: 'asyncio.Future[Any]') -> None:
    """Cancel a task, if it is not done, and see to it that it ends.

    asyncmy connects by ``asyncio.wait_for``, which before Python 3.12 forgets a cancellation that arrives when what it
    waits for is just done; then asyncmy goes on, and waits for the server.
    """
    interruption: asyncio.CancelledError | None = None
    while not task.done():
        task.cancel()
        try:
            await asyncio.wait((task,), timeout=_CANCELLATION_REPEATED)
        except asyncio.CancelledError as exc:
            interruption = exc
    if interruption is not None:
        raise interruption
    if not task.cancelled():
        # Now it counts as retrieved, also if nobody asks for it.
        task.exception()
