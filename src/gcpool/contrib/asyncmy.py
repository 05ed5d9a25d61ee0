"""MySQL and MariaDB connections made by asyncmy, for :py:class:`gcpool.asyncio.ConnectionPool`.

asyncmy rather than aiomysql, since in 2026 it is the better maintained of the two: with releases every few weeks,
wheels for every Python up to 3.14 and its free-threaded build, and a connection that closes itself when a statement is
cancelled.
"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from gcpool._core import GuardedLogger
from gcpool.contrib._errors import (
    BAD_PARAMS,
    advice_for_os_error,
    check_source,
    errors_in,
    look_up_async,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._generations import Generations
from gcpool.contrib._mysql import (
    BAD_ARGUMENTS,
    BROKEN_CODES,
    CLOSING_IN_CREATE,
    ENDED,
    KILLED_MEANWHILE,
    QUERIES_FOR_RESET,
    ControlLog,
    SessionState,
    advice_for_error,
    advice_for_package,
    control_params,
    ends_session,
    error_number,
    is_useless,
    steps_to_kill,
)
from gcpool.contrib._parameters import check_codes, finite_time_limit, resets_all, time_limit
from gcpool.contrib._sockets import poll_once
from gcpool.exceptions import DiscardConnection
from gcpool.managers import AsyncConnectionManager as BaseConnectionManager

try:
    from asyncmy import connection, errors
    from asyncmy.constants import COMMAND
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.asyncmy needs asyncmy: pip install "gcpool[asyncmy]"', name=exc.name) from exc

__all__ = ['BROKEN_CODES', 'Connection', 'DbConnectionManager', 'DbEndpoint', 'DbParameters']

DbEndpoint = str
DbParameters = (
    Mapping[DbEndpoint, Mapping[str, Any]]
    | Callable[[DbEndpoint], Mapping[str, Any]]
    | Callable[[DbEndpoint], Awaitable[Mapping[str, Any]]]
)

if TYPE_CHECKING:

    class _DriverConnection(connection.Connection):
        """What asyncmy's connection has beside its interface, and is used here."""

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
        """What is used here of asyncmy's prepared statement."""

        _connection: Any

        def __init__(self, conn: Any, statement_id: int, parameter_count: int) -> None: ...
        async def execute(self, args: Any = ()) -> Any: ...
        async def execute_bulk(self, rows: Any) -> Any: ...

else:
    _DriverConnection = connection.Connection
    _DriverStatement = connection.PreparedStatement

# asyncmy's own default, for connecting to a host; here for all until the connection can be used.
_CONNECT_TIMEOUT = 10.0

# A bit of the server's status.
_MORE_RESULTS = 8

_QUIT = b'\x01\x00\x00\x00\x01'

# asyncio.TimeoutError is an OSError only since Python 3.11.
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)

# Seconds that a user's own closing waits for the server.
_GOOD_BYE = 1.0

# Seconds after which a cancellation is repeated that has had no effect.
_CANCELLATION_REPEATED = 0.1

logger = GuardedLogger(__name__)


class Connection(SessionState, _DriverConnection):
    """asyncmy's connection, which also knows whether the server still owes it an answer.

    Where the server's status has no bit set, asyncmy takes it for not told. So this takes the status in, and notes when
    it is of before the last statement.
    """

    @property
    def in_order(self) -> bool:
        """Whether the last statement's answer was read to its end, and another statement may be sent."""
        return self._connected and self._is_answered

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
        for step in self.steps_to_restore():
            await step()

    async def learn_to_reset(self) -> None:
        """Find out, of a new session, what a reset has to make of it."""
        try:
            await self.query(QUERIES_FOR_RESET[0])
        except errors.MySQLError as exc:
            self._note_error(exc)
            await self.query(QUERIES_FOR_RESET[1])
        self.plan_reset(self._result.rows[0], self._init_command, self._encoding)
        self._initial = self._charset, self._encoding, self.autocommit_mode

    async def reset(self) -> None:
        """Make the session what it was when it was new; one round trip, none if nothing was asked of the server."""
        if not self.was_used:
            return
        self._charset, self._encoding, self.autocommit_mode = self._initial
        self._stmt_cache.clear()
        for step in self.steps_to_reset():
            await step()

    async def connect(self) -> Any:
        """As asyncmy's, which a user may call to connect again.

        :raise asyncmy.errors.InterfaceError: the pool has closed the connection, and would not know of another one
        """
        self._refuse_if_ended()
        connected = await super().connect()
        # Meanwhile it may have.
        self._refuse_if_ended()
        return connected

    def _refuse_if_ended(self) -> None:
        if self._ended:
            self.abort()
            raise errors.InterfaceError(0, ENDED)

    def abort(self) -> None:
        """Close the connection without a good-bye."""
        self.close()
        # Not every version of asyncmy says so.
        self._connected = False

    async def ensure_closed(self) -> None:
        """As asyncmy's, which for its part waits for the server as long as it takes, also after ``read_timeout``."""
        await self._close_within(_GOOD_BYE)

    async def end(self, timeout: float) -> None:
        """Close the connection for good, with a good-bye if it is in order; abort it if that takes too long.

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
            self.abort()
            # Not the connection's own, which it forgets before all that was written is sent.
            if proto.transport is not None:
                proto.transport.abort()
        await asyncio.wait(closed, timeout=timeout)

    @staticmethod
    def _failed_half_way(result: Any) -> bool:
        # At the end of the rows, which an error takes the place of, it would give up its connection.
        return result.connection is not None and not result.unbuffered_active

    def _was_closed_here(self, exc: BaseException) -> bool:
        # asyncmy closes it after a time limit, but leaves it to whoever comes next to close what the server has ended.
        return self._transport is None

    async def _get_server_information(self) -> None:
        # Before any waiting: it may be given up half-way.
        transport: Any = self._transport
        self._begin_session(transport.get_extra_info('sockname'))
        await super()._get_server_information()

    async def _execute_command(self, command: int, sql: str | bytes) -> None:
        earlier = self._result
        if command == COMMAND.COM_STMT_CLOSE:
            # It changes nothing, and there is no answer to it.
            try:
                await super()._execute_command(command, sql)
            finally:
                self._note_forgotten(earlier)
            return
        # Before, since sending may fail half-way; behind, since what an earlier statement left unread is read first.
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
        # Of a statement's further results, too.
        self._awaiting_reply = True
        try:
            await super()._read_query_result(unbuffered)
        except errors.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_result(self._result)

    def _note_result(self, result: Any) -> None:
        """Take in the status of a result that was read to its end, or whose rows are fetched one by one."""
        told = result.field_count == 0 or (self._deprecate_eof and not result.unbuffered_active)
        if told:
            self.server_status = result.server_status
        self._note_reply(told=told)

    async def note_execution(self, reading: Awaitable[Any]) -> Any:
        """Await the execution of a prepared statement, and note what comes of it."""
        try:
            result = await reading
        except errors.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_result(result)
        if result.server_status & _MORE_RESULTS or self._status_is_old:
            # There may have been further results, which asyncmy drops with what the server said at their ends.
            self._note_reply(told=False)
            self._status_is_in_doubt = True
        return result

    async def prepare(self, query: Any) -> Any:
        """As asyncmy's."""
        statement = await self._reply_of(super().prepare(query), told=False)
        return _PreparedStatement(self, statement._statement_id, statement.parameter_count)  # noqa: SLF001

    async def show_warnings(self) -> Any:
        """As asyncmy's."""
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
    """asyncmy's prepared statement, which tells its connection when an answer was read to its end, and its status.

    asyncmy reads those answers past the connection, keeps the old status where the new one has no bit set, and drops
    all results of a procedure but the first.
    """

    async def execute(self, args: Any = ()) -> Any:
        """As asyncmy's."""
        return await self._execution(super().execute(args))

    async def execute_bulk(self, rows: Any) -> Any:
        """As asyncmy's."""
        return await self._execution(super().execute_bulk(rows))

    async def _execution(self, reading: Awaitable[Any]) -> Any:
        conn = self._connection
        return await (reading if conn is None else conn.note_execution(reading))


class DbConnectionManager(BaseConnectionManager[DbEndpoint, Connection]):
    """Makes connections with asyncmy.

    When a connection is given back, a transaction that the user left open is rolled back, and autocommit is set to what
    it was in the beginning. That costs a round trip only if there is something to do, or the last statement failed in
    autocommit mode: what it has begun (a procedure half-way) the server has to be asked. A connection with an answer
    that was not read to its end (a statement that was cancelled, an unbuffered cursor, further result sets) is closed.
    Everything else in the session (``SET``, user variables, ``USE``, ``SET ROLE``, ``GET_LOCK``, ``LOCK TABLES``,
    ``PREPARE``, temporary tables) stays as the user leaves it, unless ``reset`` is ``'full'``.

    :param params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`asyncmy.connect`; it is looked up at each connect, so endpoints may be added later. Or a callable, or
        coroutine function, that returns them for an endpoint, called at each connect: so credentials may change.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection, which does not find a server behind a proxy that keeps the connection open.
    :param close_timeout: seconds that the server may take to say good-bye; then the connection is aborted. One whose
        statement the server may still execute is aborted at once, and the server has as long to end the statement:
        it is told to by ``KILL``, over a connection that is made for that. 0: it is not told to. None for no limit.
    :param reset: ``'rollback'`` for what is said above; ``'full'`` to undo all that a session can carry when it is
        given back, by ``COM_RESET_CONNECTION`` and what the parameters set, in one round trip
    :param rollback_timeout: seconds that the rollback, or the reset, may take when a connection is given back, before
        the connection is closed; None for no limit but ``read_timeout`` in the parameters
    :param broken_codes: numbers of the server's errors after which a connection is closed, and those to the same
        endpoint that were created before, too, when they are next to be served
    :raise TypeError: ``params`` is neither a mapping nor a callable, a time limit is no number, or ``broken_codes``
        is no collection of numbers
    :raise ValueError: ``reset`` is another one, or a time limit is less than 0
    """

    def __init__(
        self,
        params: DbParameters,
        *,
        ping: bool = False,
        close_timeout: float | None = 1.0,
        reset: Literal['rollback', 'full'] = 'rollback',
        rollback_timeout: float | None = None,
        broken_codes: Collection[int] = BROKEN_CODES,
    ) -> None:
        check_source(params, 'params', or_callable=True)
        self._params = params
        self._ping = ping
        self._close_timeout = finite_time_limit('close_timeout', close_timeout)
        self._resets_all = resets_all(reset)
        self._rollback_timeout = time_limit('rollback_timeout', rollback_timeout)
        self._broken_codes = check_codes(broken_codes, int)
        self._generations = Generations()
        self._control_log = ControlLog()
        # Of each loop and endpoint: only one control connection at a time.
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, asyncio.Lock]]
        self._turns = weakref.WeakKeyDictionary()

    async def create(self, endpoint: DbEndpoint) -> Connection:
        """Connect. It may take ``connect_timeout`` of the parameters (default 10 seconds) until it can be used.

        :param endpoint: a key of ``params``
        :raise ConnectTimeout: the time is over
        :raise ConnectError: the connection cannot be made; an :py:class:`asyncmy.errors.MySQLError` as well, unless it
            is the parameters that make no sense, or a package is missing that asyncmy needs for the server's way to
            check passwords
        :raise UnknownEndpoint: the endpoint is not in ``params``, or the callable raises KeyError
        """
        generation = self._generations.latest(endpoint)
        params = to_params(await look_up_async(self._params, endpoint, 'params'), endpoint, 'params')
        limit = params.get('connect_timeout') or _CONNECT_TIMEOUT
        try:
            conn = Connection(**params)
        except BAD_ARGUMENTS as exc:
            raise_bad_params(endpoint, exc, 'params')
        conn.generation = generation
        try:
            await _within(self._set_up(conn), limit)
        except BaseException as exc:
            # asyncmy has closed it, but that may have yet to happen.
            await self._end(endpoint, conn, min(self._close_timeout, CLOSING_IN_CREATE))
            if isinstance(exc, Exception):
                _raise_not_connected(endpoint, exc, limit)
            raise
        conn.broken_codes = self._broken_codes
        return conn

    async def _set_up(self, conn: Connection) -> None:
        await conn.connect()
        conn.initial_autocommit = conn.get_autocommit()
        if self._resets_all:
            await conn.learn_to_reset()

    async def dispose(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """Close a connection; abort it if that takes too long or is cancelled, or if it is in the middle of something.

        Then the server is told to end the statement, if it is at work for one, and this returns when it has let the
        session go, or ``close_timeout`` is over.

        :param endpoint: a key of ``params``
        :param conn: the connection; one whose user waits for an answer (a pool can be closed over it) is cut off, and
            the user gets asyncmy's error of a lost connection
        """
        await self._end(endpoint, conn, self._close_timeout)

    async def _end(self, endpoint: DbEndpoint, conn: Connection, seconds: float) -> None:
        at_work = conn.is_at_work
        await conn.end(seconds)
        if not at_work or seconds <= 0 or not self._control_log.may_try(endpoint):
            return
        try:
            await _within(self._kill(endpoint, conn), seconds)
        except Exception as exc:  # noqa: BLE001  (the callable that gives the parameters may raise anything)
            self._control_log.note_failure(endpoint, exc)
        else:
            self._control_log.note_success(endpoint)

    async def _kill(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """End a session at the server that is closed here, and wait until it is gone."""
        turns = self._turns.setdefault(asyncio.get_running_loop(), {})
        async with turns.setdefault(endpoint, asyncio.Lock()):
            params = to_params(await look_up_async(self._params, endpoint, 'params'), endpoint, 'params')
            control = Connection(**control_params(params))
            answered = False
            began = time.monotonic()
            try:
                await control.connect()
                answered = True
                steps = steps_to_kill(conn, conn.thread_id())
                with contextlib.suppress(StopIteration):
                    statement = next(steps)
                    while True:
                        await control.query(statement)
                        statement = steps.send(control._result.rows)  # noqa: SLF001
            except errors.MySQLError as exc:
                if error_number(exc) != KILLED_MEANWHILE:
                    raise
            except asyncio.CancelledError:
                # The time is over.
                if not answered:
                    self._control_log.note_silence(endpoint, time.monotonic() - began, self._close_timeout)
                raise
            finally:
                await control.end(_GOOD_BYE)

    async def check_aliveness(self, endpoint: DbEndpoint, conn: Connection) -> bool:
        """Tell whether a connection is open, and the server has said nothing that was not asked for.

        :param endpoint: a key of ``params``
        :param conn: the connection. One whose answer to ``ping`` is no longer waited for is closed.
        """
        # It is not restored where a release was left out, or cut off before it could do that.
        if not (conn.in_order and conn.is_quiet() and conn.is_restored) or (self._resets_all and conn.was_used):
            return False
        if (conn.met_broken_code or self._generations.any_retired) and is_useless(self._generations, endpoint, conn):
            return False
        if self._ping:
            try:
                await conn.ping(reconnect=False)
            except errors.MySQLError:
                return False
        return True

    async def on_release(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """Roll back the transaction that the user left open and restore autocommit; no round trip if nothing is to do.

        After a statement that failed in autocommit mode, and after a prepared one with further results, the server is
        asked (``COM_PING``) what it has left. With ``reset='full'`` the whole session is made what it was when it was
        new. A server that does not answer is waited for ``rollback_timeout``, and for ``read_timeout`` in the
        parameters of the connection, neither of which is limited by default.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :raise DiscardConnection: the connection is closed, or has an answer that was not read to its end, or cannot be
            rolled back or reset, or has met an error of ``broken_codes``
        """
        if not (conn.in_order and conn.is_quiet()):
            raise DiscardConnection(f'the connection to {endpoint!r} is closed or was not read to its end')
        if (conn.met_broken_code or self._generations.any_retired) and is_useless(self._generations, endpoint, conn):
            raise DiscardConnection(f'the connection to {endpoint!r} is alive, but useless')
        if (not conn.was_used) if self._resets_all else conn.is_restored:
            return
        try:
            await _within(conn.reset() if self._resets_all else conn.restore(), self._rollback_timeout)
        except BaseException as exc:
            conn.give_up_restoring()
            if not isinstance(exc, (errors.MySQLError, ValueError, asyncio.TimeoutError)):
                raise
            logger.warning('a connection to %r cannot be rolled back or reset, it is closed: %s', endpoint, exc)
            raise DiscardConnection(f'the connection to {endpoint!r} cannot be rolled back or reset') from exc

    async def is_broken(self, endpoint: DbEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Tell whether a connection is lost, or in the middle of a statement, after its user's block raised.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :param exc: what the block raised
        """
        if not (conn.in_order and conn.is_quiet()) or is_useless(self._generations, endpoint, conn, exc):
            return True
        return any(isinstance(error, errors.InterfaceError) or _ends_session(error) for error in errors_in(exc))


def _ends_session(exc: BaseException) -> bool:
    return isinstance(exc, errors.MySQLError) and ends_session(exc)


def _raise_not_connected(endpoint: DbEndpoint, exc: Exception, limit: float) -> None:
    """Raise what an error that came while connecting is to a user; return if it is none of the kinds that are known."""
    found = list(errors_in(exc))
    if any(isinstance(error, _TIMEOUTS) for error in found):
        raise_connect_timeout(endpoint, exc, limit)
    for error in found:
        if isinstance(error, errors.MySQLError):
            advice = advice_for_os_error(origin) if isinstance(origin := error.__cause__, OSError) else None
            raise_connect_error(endpoint, error, advice or advice_for_error(error))
        if isinstance(error, BAD_PARAMS):
            raise_bad_params(endpoint, error, 'params')
        if isinstance(error, RuntimeError) and (package := advice_for_package(error)) is not None:
            raise_connect_error(endpoint, error, package)


async def _within(call: Coroutine[Any, Any, None], seconds: float | None) -> None:
    """Await something for no longer than that, and see to it that it has ended then.

    :raise asyncio.TimeoutError: the time is over
    """
    if seconds is None:
        await call
        return
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait((task,), timeout=seconds)
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
