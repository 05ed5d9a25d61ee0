"""MySQL and MariaDB connections with asyncmy, for :py:class:`gcpool.asyncio.ConnectionPool`.

asyncmy and not aiomysql, because in 2026 it is the better maintained of the two: releases every few weeks, wheels for
every Python up to 3.14 and its free-threaded build, and a connection that closes itself when a statement is cancelled.
"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Awaitable, Callable, Collection, Coroutine, Hashable, Mapping
from typing import Any, Literal

from gcpool._core import GuardedLogger
from gcpool.contrib._descriptions import described
from gcpool.contrib._errors import errors_in, look_up_async, raise_bad_params, raise_connect_timeout, to_params
from gcpool.contrib._mysql import BAD_ARGUMENTS, BROKEN_CODES, CLOSING_IN_CREATE, KILLED_MEANWHILE, error_number
from gcpool.contrib._mysql_control import control_params, steps_to_kill
from gcpool.contrib._mysql_manager import ManagerBase, raise_refused
from gcpool.contrib._one_place import Place
from gcpool.exceptions import DiscardConnection
from gcpool.managers import ROLLED_BACK
from gcpool.managers import AsyncConnectionManager as BaseConnectionManager

try:
    from asyncmy import errors
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.asyncmy needs asyncmy: pip install "gcpool[asyncmy]"', name=exc.name) from exc

from gcpool.contrib._asyncmy_connection import GOOD_BYE, Connection

__all__ = ['BROKEN_CODES', 'Connection', 'DbConnectionManager', 'DbEndpoint', 'DbParameters']

DbEndpoint = str
DbParameters = (
    Mapping[DbEndpoint, Mapping[str, Any]]
    | Callable[[DbEndpoint], Mapping[str, Any]]
    | Callable[[DbEndpoint], Awaitable[Mapping[str, Any]]]
)

# asyncmy's own default, for connecting to a host; here for everything until the connection can be used.
_CONNECT_TIMEOUT = 10.0

# asyncio.TimeoutError is an OSError only since Python 3.11.
_TIMEOUTS = (TimeoutError, asyncio.TimeoutError)

# Seconds after which a cancellation that had no effect is repeated.
_CANCELLATION_REPEATED = 0.1

logger = GuardedLogger(__name__)


class DbConnectionManager(ManagerBase, BaseConnectionManager[DbEndpoint, Connection]):
    """Makes connections with asyncmy.

    When a connection is returned, a transaction that the user left open is rolled back, and autocommit is restored.
    That costs a round trip only if there is something to do, or if the last statement failed in autocommit mode: only
    the server knows what it began (a procedure half-way). A connection with an answer that was not read to its end (a
    cancelled statement, an unbuffered cursor, further result sets) is closed. Everything else in the session (``SET``,
    user variables, ``USE``, ``SET ROLE``, ``GET_LOCK``, ``LOCK TABLES``, ``PREPARE``, temporary tables) stays as the
    user leaves it, unless ``reset`` is ``'full'``.

    :param params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`asyncmy.connect`; looked up at each connect, so endpoints may be added later. Or, for credentials that
        change, a callable or coroutine function that is called with the endpoint at each connect and returns the
        parameters. Or, for a single place, a dict of its parameters: its endpoint is ``'default'``, also for calls that
        name none (``default_endpoint``).
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection; this does not notice a dead server behind a proxy that keeps the connection
        open.
    :param close_timeout: seconds that an orderly close may take; then the connection is aborted. If the server may
        still be running a statement, the connection is aborted at once, and ending the statement, by a ``KILL`` over
        another connection, may take as long. 0 sends no ``KILL``; None for no limit.
    :param reset: ``'rollback'`` for the behaviour above; ``'full'`` to undo everything that a session can carry when it
        is returned, by ``COM_RESET_CONNECTION`` and what the parameters set, in one round trip
    :param rollback_timeout: seconds that the rollback, or the reset, may take when a connection is returned, before the
        connection is closed; None for no limit except ``read_timeout`` in the parameters
    :param broken_codes: numbers of the server's errors after which a connection is closed, and the endpoint's older
        connections before they are next served
    :raise TypeError: ``params`` is neither a mapping nor a callable, a time limit is not a number, or ``broken_codes``
        is not a collection of numbers
    :raise ValueError: ``reset`` has another value, or a time limit is less than 0
    """

    _ERROR = errors.MySQLError
    _INTERFACE_ERROR = errors.InterfaceError
    _NOT_RESTORED = (errors.MySQLError, ValueError, asyncio.TimeoutError)

    def __init__(
        self,
        params: DbParameters | Place,
        *,
        ping: bool = False,
        close_timeout: float | None = 1.0,
        reset: Literal['rollback', 'full'] = 'rollback',
        rollback_timeout: float | None = None,
        broken_codes: Collection[int] = BROKEN_CODES,
    ) -> None:
        self._set_up(params, ping, close_timeout, reset, rollback_timeout, broken_codes, logger)
        # Per loop and endpoint: only one control connection at a time.
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, asyncio.Lock]]
        self._turns = weakref.WeakKeyDictionary()

    async def create(self, endpoint: DbEndpoint) -> Connection:
        """Connect. It may take ``connect_timeout`` of the parameters (default 10 seconds) until the connection can be
        used.

        :param endpoint: a key of ``params``
        :raise ConnectTimeout: the timeout expired
        :raise ConnectError: the connection cannot be made; also an :py:class:`asyncmy.errors.MySQLError`, unless the
            parameters are invalid, or a package is missing that asyncmy needs for the server's password exchange
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
            await _within(self._log_in(conn), limit)
        except BaseException as exc:
            # asyncmy has closed it, but that may not have happened yet.
            await self._end(endpoint, conn, min(self._close_timeout, CLOSING_IN_CREATE))
            if isinstance(exc, Exception):
                _raise_not_connected(endpoint, exc, limit)
            raise
        conn.broken_codes = self._broken_codes
        return conn

    async def _log_in(self, conn: Connection) -> None:
        await conn.connect()
        conn.initial_autocommit = conn.get_autocommit()
        if self._resets_all:
            await conn.learn_to_reset()

    async def dispose(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """Close a connection; abort it if that takes too long or is cancelled, or if it is in the middle of something.

        If the server is still running a statement, it is killed, and this returns when the server has ended the
        session, or ``close_timeout`` expires.

        :param endpoint: a key of ``params``
        :param conn: the connection; if its user waits for an answer (a pool can be closed while it is in use), the
            connection is cut off, and the user gets asyncmy's error for a lost connection
        """
        await self._end(endpoint, conn, self._close_timeout)

    async def _end(self, endpoint: DbEndpoint, conn: Connection, seconds: float) -> None:
        at_work = conn.is_at_work
        await conn.end(seconds)
        if not self._may_kill(endpoint, at_work, seconds):
            return
        try:
            await _within(self._kill(endpoint, conn), seconds)
        except Exception as exc:  # noqa: BLE001  (the callable that gives the parameters may raise anything)
            self._control_log.note_failure(endpoint, described(self, endpoint), exc)
        else:
            self._control_log.note_success(endpoint)

    async def _kill(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """End the session at the server of a connection that is closed here, and wait until the session is gone."""
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
                # The timeout expired.
                if not answered:
                    self._control_log.note_silence(endpoint, time.monotonic() - began, self._close_timeout)
                raise
            finally:
                await control.end(GOOD_BYE)

    async def check_aliveness(self, endpoint: DbEndpoint, conn: Connection) -> bool:
        """Return whether a connection is open, and the server has sent nothing unsolicited.

        :param endpoint: a key of ``params``
        :param conn: the connection; closed if its answer to ``ping`` is abandoned
        """
        if not (conn.in_order and conn.is_quiet() and self._is_as_new(endpoint, conn)):
            return False
        if self._ping:
            try:
                await conn.ping(reconnect=False)
            except errors.MySQLError:
                return False
        return True

    async def on_release(self, endpoint: DbEndpoint, conn: Connection) -> object:
        """Roll back the transaction that the user left open and restore autocommit, without a round trip if possible.

        After a statement that failed in autocommit mode, and after a prepared one with further results, the server is
        asked (``COM_PING``) about its state. With ``reset='full'`` the whole session is reset to its initial state.
        Waiting for the server is limited by ``rollback_timeout``, and by ``read_timeout`` in the parameters of the
        connection; neither has a default.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :return: ``ROLLED_BACK`` if a transaction was left open that could have been committed
        :raise DiscardConnection: the connection is closed, or has an answer that was not read to its end, or cannot be
            rolled back or reset, or has had an error of ``broken_codes``
        """
        if not (conn.in_order and conn.is_quiet()):
            raise DiscardConnection(
                f'the connection to {described(self, endpoint)!r} is closed or was not read to its end'
            )
        self._refuse_useless(endpoint, conn)
        left_open = conn.is_in_transaction
        if not self._needs_restoring(conn):
            return None
        try:
            await _within(conn.reset() if self._resets_all else conn.restore(), self._rollback_timeout)
        except BaseException as exc:
            self._give_up(endpoint, conn, exc, logger)
            raise
        return ROLLED_BACK if left_open else None

    async def is_broken(self, endpoint: DbEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Return whether a connection is lost, or in the middle of a statement, after its user's block raised.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :param exc: what the block raised
        """
        return not (conn.in_order and conn.is_quiet()) or self._has_broken(endpoint, conn, exc)


def _raise_not_connected(endpoint: DbEndpoint, exc: Exception, limit: float) -> None:
    """Raise the user's error for a failed connect; return if the error is of an unknown kind."""
    found = list(errors_in(exc))
    if any(isinstance(error, _TIMEOUTS) for error in found):
        raise_connect_timeout(endpoint, exc, limit)
    for error in found:
        raise_refused(endpoint, error, error.__cause__, errors.MySQLError)


async def _within(call: Coroutine[Any, Any, None], seconds: float | None) -> None:
    """Await something with a timeout, and make sure that it has ended by then.

    :raise asyncio.TimeoutError: the timeout expired
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
    """Cancel a task, if it is not done, and make sure that it ends.

    asyncmy connects by ``asyncio.wait_for``, which before Python 3.12 drops a cancellation that arrives when what it
    waits for is just done; then asyncmy continues to wait for the server.
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
        # Marks the exception as retrieved, even if it is never read.
        task.exception()
