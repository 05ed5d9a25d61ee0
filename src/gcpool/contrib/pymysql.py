"""MySQL and MariaDB connections with PyMySQL, for :py:class:`gcpool.threading.ConnectionPool`."""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, Literal, NoReturn

from gcpool._core import GuardedLogger
from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._descriptions import described, shown
from gcpool.contrib._errors import errors_in, look_up, raise_bad_params, raise_connect_timeout, to_params
from gcpool.contrib._latch import Latch
from gcpool.contrib._mysql import BAD_ARGUMENTS, BROKEN_CODES, CLOSING_IN_CREATE, KILLED_MEANWHILE, error_number
from gcpool.contrib._mysql_control import control_params, steps_to_kill
from gcpool.contrib._mysql_manager import ManagerBase, raise_refused
from gcpool.contrib._one_place import Place
from gcpool.contrib._sockets import time_to_answer
from gcpool.exceptions import ConnectTimeout, DiscardConnection
from gcpool.managers import ROLLED_BACK
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    from pymysql import err
    from pymysql.constants import CR
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.pymysql needs PyMySQL: pip install "gcpool[pymysql]"', name=exc.name) from exc

from gcpool.contrib._pymysql_connection import Connection, default_tls, seconds_until

__all__ = ['BROKEN_CODES', 'Connection', 'DbConnectionManager', 'DbEndpoint', 'DbParameters']

DbEndpoint = str
DbParameters = Mapping[DbEndpoint, Mapping[str, Any]] | Callable[[DbEndpoint], Mapping[str, Any]]

# PyMySQL's own default, for connecting to a host; here for everything until the connection can be used.
_CONNECT_TIMEOUT = 10.0

logger = GuardedLogger(__name__)


class DbConnectionManager(ManagerBase, BaseConnectionManager[DbEndpoint, Connection]):
    """Makes connections with PyMySQL.

    When a connection is returned, a transaction that the user left open is rolled back, and autocommit is restored.
    That costs a round trip only if there is something to do, or if the last statement failed in autocommit mode: only
    the server knows what it began (a procedure half-way). A connection with an answer that was not read to its end (of
    an unbuffered cursor, or further result sets) is closed. Everything else in the session (``SET``, user variables,
    ``USE``, ``SET ROLE``, ``GET_LOCK``, ``LOCK TABLES``, ``PREPARE``, temporary tables) stays as the user leaves it,
    unless ``reset`` is ``'full'``.

    :param params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`pymysql.connect`; looked up at each connect, so endpoints may be added later. Or, for credentials that
        change, a callable that is called with the endpoint at each connect and returns the parameters. Or, for a single
        place, a dict of its parameters: its endpoint is ``'default'``, also for calls that name none
        (``default_endpoint``).
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection; this does not notice a dead server behind a proxy that keeps the connection
        open.
    :param close_timeout: seconds that ending a statement that is still running when its connection is closed may take,
        by a ``KILL`` over another connection. 0 sends no ``KILL``; None for no limit.
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

    _ERROR = err.MySQLError
    _INTERFACE_ERROR = err.InterfaceError
    _NOT_RESTORED = (err.MySQLError, ValueError)

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
        # Only one control connection at a time per endpoint: that of the first in its queue. And per process, because a
        # forked child does not have the threads. The queues are dicts, whose pop() is atomic.
        self._queues: dict[tuple[Hashable, int], dict[Latch, None]] = {}
        # Loaded now, because it would take the time of the first acquires.
        default_tls()

    def create(self, endpoint: DbEndpoint, timeout: float | None = None) -> Connection:
        """Connect.

        :param endpoint: a key of ``params``
        :param timeout: seconds that it may take until the connection can be used, if less than ``connect_timeout`` in
            the parameters (default 10); None for ``connect_timeout``. This includes resolving the host name, trying
            each of its addresses, TLS and the login.
        :raise ConnectTimeout: the timeout expired, or the server did not answer for ``read_timeout`` or
            ``write_timeout`` of the parameters
        :raise ConnectError: the connection cannot be made; also a :py:class:`pymysql.err.MySQLError`, unless the
            parameters are invalid, or a package is missing that PyMySQL needs for the server's password exchange
        :raise UnknownEndpoint: the endpoint is not in ``params``, or the callable raises KeyError
        """
        generation = self._generations.latest(endpoint)
        deadline = deadline_after(timeout)
        params = to_params(look_up(self._params, endpoint, 'params'), endpoint, 'params')
        limit = params.get('connect_timeout') or _CONNECT_TIMEOUT
        try:
            conn = Connection(**{**params, 'connect_timeout': limit, 'defer_connect': True})
            own_deadline = time.monotonic() + limit
        except BAD_ARGUMENTS as exc:
            raise_bad_params(endpoint, exc, 'params')
        if timeout is None or deadline is None or own_deadline < deadline:
            deadline = own_deadline
        else:
            limit = timeout
        conn.generation = generation
        try:
            conn.connect_by(deadline)
            conn.initial_autocommit = conn.get_autocommit()
            if self._resets_all:
                with conn.limited(seconds_until(deadline)):
                    conn.learn_to_reset()
        except BaseException as exc:
            self._end(endpoint, conn, min(self._close_timeout, CLOSING_IN_CREATE))
            if isinstance(exc, Exception):
                _raise_not_connected(endpoint, exc, conn, limit, deadline)
            raise
        conn.broken_codes = self._broken_codes
        return conn

    def dispose(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection, without waiting for the server unless a statement is running.

        In that case the statement is killed, and this returns when the server has ended the session, or the timeout
        expires.

        :param endpoint: a key of ``params``
        :param conn: the connection; if its user waits for an answer (a pool can be closed while it is in use), the
            connection is cut off, and the user gets an error, usually PyMySQL's error for a lost connection
        :param timeout: seconds that this may take, if less than ``close_timeout``
        """
        self._end(endpoint, conn, self._close_timeout if timeout is None else min(timeout, self._close_timeout))

    def _end(self, endpoint: DbEndpoint, conn: Connection, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        at_work = conn.is_at_work
        conn.end(seconds)
        if not self._may_kill(endpoint, at_work, seconds):
            return
        try:
            self._kill(endpoint, conn, deadline)
        except Exception as exc:  # noqa: BLE001  (the callable that gives the parameters may raise anything)
            self._control_log.note_failure(endpoint, described(self, endpoint), exc)
        else:
            self._control_log.note_success(endpoint)

    def _kill(self, endpoint: DbEndpoint, conn: Connection, deadline: float) -> None:
        """End the session at the server of a connection that is closed here, and wait until the session is gone."""
        queue = self._queues.setdefault((endpoint, os.getpid()), {})
        is_over = Latch()
        # Not a lock: a signal handler may raise after its acquire(), before the block. No handler runs after this line.
        queue[is_over] = None
        try:
            # Atomic: other threads may enter the queue and leave it.
            while (first := list(queue)[0]) is not is_over:  # noqa: RUF015
                if not first.wait(seconds_until(deadline)):
                    raise TimeoutError('other sessions are being ended')
            params = to_params(look_up(self._params, endpoint, 'params'), endpoint, 'params')
            control = Connection(**{**control_params(params), 'defer_connect': True})
            answered = False
            began = time.monotonic()
            try:
                control.connect_by(deadline)
                answered = True
                steps = steps_to_kill(conn, conn.thread_id())
                with control.limited(seconds_until(deadline)), contextlib.suppress(StopIteration):
                    statement = next(steps)
                    while True:
                        control.query(statement)
                        statement = steps.send(control._result.rows)  # noqa: SLF001
            except err.MySQLError as exc:
                if not answered and any(isinstance(error, TimeoutError) for error in errors_in(exc)):
                    self._control_log.note_silence(endpoint, time.monotonic() - began, self._close_timeout)
                if error_number(exc) != KILLED_MEANWHILE:
                    raise
            finally:
                control.end()
        finally:
            queue.pop(is_over, None)
            is_over.set()

    def check_aliveness(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Return whether a connection is open, and the server has sent nothing unsolicited.

        :param endpoint: a key of ``params``
        :param conn: the connection; closed after a check that took too long
        :param timeout: seconds that the answer to ``ping`` may take, if less than ``read_timeout`` in the parameters;
            None for ``read_timeout``
        """
        if not (conn.open and conn.in_order and conn.is_quiet() and self._is_as_new(endpoint, conn)):
            return False
        return not self._ping or _answers(conn, time_to_answer(timeout))

    def on_release(self, endpoint: DbEndpoint, conn: Connection) -> object:
        """Roll back the transaction that the user left open and restore autocommit, without a round trip if possible.

        After a statement that failed in autocommit mode the server is asked (``COM_PING``) about its state. With
        ``reset='full'`` the whole session is reset to its initial state. Waiting for the server is limited by
        ``rollback_timeout``, and by ``read_timeout`` in the parameters of the connection; neither has a default.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :return: ``ROLLED_BACK`` if a transaction was left open that could have been committed
        :raise DiscardConnection: the connection is closed, or has an answer that was not read to its end, or cannot be
            rolled back or reset, or has had an error of ``broken_codes``
        """
        if not conn.open:
            raise DiscardConnection(f'the connection to {described(self, endpoint)!r} is closed')
        if not conn.in_order or conn.has_unread():
            raise DiscardConnection(
                f'the connection to {described(self, endpoint)!r} has an answer that was not read to its end'
            )
        self._refuse_useless(endpoint, conn)
        left_open = conn.is_in_transaction
        if not self._needs_restoring(conn):
            return None
        try:
            with conn.limited(self._rollback_timeout):
                if self._resets_all:
                    conn.reset()
                else:
                    conn.restore()
        except BaseException as exc:
            self._give_up(endpoint, conn, exc, logger)
            raise
        return ROLLED_BACK if left_open else None

    def is_broken(self, endpoint: DbEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Return whether a connection is lost, or in the middle of a statement, after its user's block raised.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :param exc: what the block raised
        """
        if not conn.open or not conn.in_order or self._has_broken(endpoint, conn, exc):
            return True
        return conn.has_unread()


def _raise_not_connected(endpoint: DbEndpoint, exc: Exception, conn: Connection, limit: float, deadline: float) -> None:
    """Raise the user's error for a failed connect; return if the error is of an unknown kind."""
    for error in errors_in(exc):
        origin = None
        if isinstance(error, err.MySQLError):
            # What PyMySQL raised its own error from.
            origin = getattr(error, 'original_exception', None) or error.__context__
            if isinstance(origin, TimeoutError):
                if time_left(deadline):
                    _raise_early_timeout(endpoint, error, origin, conn)
                raise_connect_timeout(endpoint, error, limit)
        raise_refused(endpoint, error, origin, err.MySQLError)


def _answers(conn: Connection, timeout: float | None) -> bool:
    try:
        with conn.limited(timeout):
            conn.ping(reconnect=False)
    except err.MySQLError:
        return False
    return True


def _raise_early_timeout(endpoint: DbEndpoint, exc: err.MySQLError, origin: TimeoutError, conn: Connection) -> NoReturn:
    """Raise the error for a server that was silent for so long that another limit expired before ``timeout``."""
    if error_number(exc) == CR.CR_SERVER_LOST:
        name, seconds = 'read_timeout', conn._read_timeout  # noqa: SLF001
    else:
        name, seconds = 'write_timeout', conn._write_timeout  # noqa: SLF001
    if seconds is None or origin.errno is not None:
        # It was the system's own limit.
        raise_connect_timeout(endpoint, exc, None)
    raise ConnectTimeout(
        f'no connection to endpoint {shown(endpoint)!r} could be made: the server was silent for the {name} of its '
        f'parameters, {seconds:g} s: {exc}; is the server reachable, or is that limit too short?',
        endpoint,
    ) from exc
