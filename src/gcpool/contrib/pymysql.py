"""MySQL and MariaDB connections made by PyMySQL, for :py:class:`gcpool.threading.ConnectionPool`."""

import contextlib
import functools
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Generator, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from gcpool._core import GuardedLogger
from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._errors import (
    BAD_PARAMS,
    advice_for_os_error,
    check_source,
    errors_in,
    look_up,
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
from gcpool.contrib._sockets import connect_tcp, poll_once, shut_down, time_to_answer
from gcpool.exceptions import ConnectTimeout, DiscardConnection
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    from pymysql import connections, err
    from pymysql.constants import CR
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.pymysql needs PyMySQL: pip install "gcpool[pymysql]"', name=exc.name) from exc

__all__ = ['BROKEN_CODES', 'Connection', 'DbConnectionManager', 'DbEndpoint', 'DbParameters']

DbEndpoint = str
DbParameters = Mapping[DbEndpoint, Mapping[str, Any]] | Callable[[DbEndpoint], Mapping[str, Any]]

if TYPE_CHECKING:

    class _DriverConnection(connections.Connection[Any]):
        """What PyMySQL's connection has beside its interface, and is used here."""

        autocommit_mode: bool | None
        bind_address: str | None
        charset: str
        collation: str | None
        encoding: str
        host: str
        host_info: str
        init_command: str | None
        port: int
        server_status: int
        _closed: bool
        _secure: bool
        _sock: socket.socket | None
        _rfile: Any
        _result: Any
        _read_timeout: float | None
        _write_timeout: float | None
        _current_timeout: float | None
        _next_seq_id: int
        _read_bytes: Callable[[int], bytes]
        _read_packet: Callable[..., Any]

        def _create_ssl_ctx(self, sslp: Any) -> Any: ...
        def _get_server_information(self) -> None: ...
        def thread_id(self) -> int: ...
        def _execute_command(self, command: int, sql: str | bytes) -> None: ...
        def _read_ok_packet(self) -> Any: ...
        def _read_query_result(self, unbuffered: bool = False) -> int: ...

else:
    _DriverConnection = connections.Connection

# PyMySQL's own default, for connecting to a host; here for all until the connection can be used.
_CONNECT_TIMEOUT = 10.0
# A timeout of 0 would make the socket non-blocking.
_SHORTEST_TIMEOUT = 1e-6
# Seconds that sending the five bytes of a good-bye may take. They do not wait, unless what is before them does.
_QUIT_TIMEOUT = 1.0
_SERVER_LOST = 'Lost connection to MySQL server during query'

logger = GuardedLogger(__name__)


@functools.cache
def _default_tls() -> Any:
    """What PyMySQL does TLS with if the parameters say nothing of it: from 1.2 on if the server offers it, unverified.

    PyMySQL makes that for each connection anew, and loads the system's certificates into it: tens of milliseconds of
    processor time, for which all other threads wait, too.
    """
    return getattr(connections.Connection(defer_connect=True), 'ctx', None)


class Connection(SessionState, _DriverConnection):
    """PyMySQL's connection, which also knows whether the server still owes it an answer.

    PyMySQL keeps the server's status, but does not take it from the end of a result set: a ``SELECT`` that began a
    transaction does not show there. So this notes when the status is of before the last statement.
    """

    def has_unread(self) -> bool:
        """Whether something has arrived that was not read, or the connection has ended. Costs no round trip."""
        sock = self._sock
        if sock is None or any(poll_once(sock.fileno())):
            return True
        # The kernel has nothing, but the driver's buffer may.
        timeout = sock.gettimeout()
        sock.settimeout(0)
        try:
            return bool(self._rfile.peek(1))
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            sock.settimeout(timeout)

    def is_quiet(self) -> bool:
        """Whether the server has neither ended the connection nor said anything that was not asked for."""
        return self._sock is not None and not any(poll_once(self._sock.fileno()))

    def restore(self) -> None:
        """Roll back what may be open and set autocommit to what it was; no round trip if there is nothing to do."""
        for step in self.steps_to_restore():
            step()

    def learn_to_reset(self) -> None:
        """Find out, of a new session, what a reset has to make of it."""
        try:
            self.query(QUERIES_FOR_RESET[0])
        except err.MySQLError as exc:
            self._note_error(exc)
            self.query(QUERIES_FOR_RESET[1])
        self.plan_reset(self._result.rows[0], self.init_command, self.encoding)
        self._initial = self.charset, self.collation, self.encoding, self.autocommit_mode

    def reset(self) -> None:
        """Make the session what it was when it was new; one round trip, none if nothing was asked of the server."""
        if not self.was_used:
            return
        self.charset, self.collation, self.encoding, self.autocommit_mode = self._initial
        for step in self.steps_to_reset():
            step()

    @contextlib.contextmanager
    def limited(self, seconds: float | None) -> Generator[None, None, None]:
        """Let all that is read and written in the block together take no longer than some seconds (None: as long)."""
        if seconds is None:
            yield
            return
        deadline = time.monotonic() + seconds
        configured = self._read_timeout, self._write_timeout

        def renew() -> None:
            left = _seconds_until(deadline)
            self._read_timeout, self._write_timeout = (min(left, limit or left) for limit in configured)

        def read_bytes(count: int) -> bytes:
            try:
                data = self._read_in_pieces(count, renew)
            except OSError as exc:
                self.abort()
                raise err.OperationalError(CR.CR_SERVER_LOST, f'{_SERVER_LOST} ({exc})') from exc
            except BaseException:
                self.abort()
                raise
            if len(data) < count:
                self.abort()
                raise err.OperationalError(CR.CR_SERVER_LOST, _SERVER_LOST)
            # For what is written next, and the handshake of TLS.
            renew()
            return data

        renew()
        # On the instance, and only for this block: reading rows should not cost more.
        self._read_bytes = read_bytes
        try:
            yield
        finally:
            del self._read_bytes
            self._read_timeout, self._write_timeout = configured

    def _read_in_pieces(self, count: int, renew: Callable[[], None]) -> bytes:
        """Read some bytes, or less at the end of the stream, with ``renew`` called before each wait for the server.

        A reader that is told to read them all waits anew, as long as it may at all, for each byte that comes alone.
        """
        data = b''
        while len(data) < count:
            renew()
            sock, reader = self._sock, self._rfile
            if sock is None or reader is None:
                break
            sock.settimeout(self._read_timeout)
            # By this PyMySQL knows whether the socket has the timeout that it should have.
            self._current_timeout = self._read_timeout
            piece = reader.read1(count - len(data))
            if not piece:
                break
            data += piece
        return data

    def connect(self, sock: socket.socket | None = None) -> None:
        """As PyMySQL's, which a user may call to connect again.

        :raise pymysql.err.InterfaceError: the pool has closed the connection, and would not know of another one
        """
        self._refuse_if_ended()
        super().connect(sock)
        # Meanwhile it may have.
        self._refuse_if_ended()

    def _refuse_if_ended(self) -> None:
        if self._ended:
            self.abort()
            raise err.InterfaceError(0, ENDED)

    def connect_by(self, deadline: float) -> None:
        """Connect and log in.

        :param deadline: the monotonic time by which it has to be done, with the host name's resolution and all of its
            addresses
        :raise pymysql.err.MySQLError: as PyMySQL does when it connects by itself
        """
        try:
            if self.unix_socket:
                sock = self._connect_unix(deadline)
                self.host_info = 'Localhost via UNIX socket'
                self._secure = True
            else:
                sock = connect_tcp(self.host, self.port, deadline, prepare=self._prepare)
                self.host_info = f'socket {self.host}:{self.port}'
        except OSError as exc:
            raise _cannot_connect(self.host, exc) from exc
        with self.limited(_seconds_until(deadline)):
            self.connect(sock)

    def _connect_unix(self, deadline: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_seconds_until(deadline))
            sock.connect(self.unix_socket or '')
        except BaseException:
            sock.close()
            raise
        return sock

    def _prepare(self, sock: socket.socket) -> None:
        """Give a socket what PyMySQL gives those that it connects by itself."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.bind_address is not None:
            sock.bind((self.bind_address, 0))

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        # The parameters say nothing of TLS.
        return _default_tls() if sslp == {} else super()._create_ssl_ctx(sslp)

    def end(self, seconds: float = _QUIT_TIMEOUT) -> None:
        """Close it for good, with a good-bye if it is in order; may be called from another thread, and twice.

        :param seconds: how long sending the good-bye may take
        """
        self._ended = True
        polite = self.in_order
        result, self._result = self._result, None
        if result is not None:
            # It would read on when it is collected, from a connection that is closed.
            result.unbuffered_active = False
        if self._sock is None:
            return
        if polite:
            self._write_timeout = max(min(seconds, _QUIT_TIMEOUT), _SHORTEST_TIMEOUT)
            self.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection without a good-bye; may be called from another thread, and twice."""
        sock, reader = self._sock, self._rfile
        if sock is not None:
            # Who waits for an answer is woken by this, and gives the reader free. And closing a socket of TLS takes its
            # encryption away before it closes it: from now on what another thread sends goes nowhere.
            shut_down(sock)
        for stream in (reader, sock):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._rfile = self._sock = None

    def _force_close(self) -> None:
        self.abort()

    @staticmethod
    def _failed_half_way(result: Any) -> bool:
        # The end of the rows, which an error takes the place of, would tell whether there are further results.
        return result.has_next is None and not result.unbuffered_active

    def _was_closed_here(self, exc: BaseException) -> bool:
        return self._ended or self._closed or any(isinstance(error, TimeoutError) for error in errors_in(exc))

    def _get_server_information(self) -> None:
        # Before any waiting: it may be given up half-way.
        self._begin_session(None if self._sock is None else self._sock.getsockname())
        super()._get_server_information()

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        earlier = self._result
        # Before, since sending may fail half-way; behind, since what an earlier statement left unread is read first.
        if self._sock is None:
            super()._execute_command(command, sql)
            return
        self._begin_statement(earlier, command)
        try:
            super()._execute_command(command, sql)
        except err.MySQLError as exc:
            self._note_error(exc)
            raise
        finally:
            self._note_statement(earlier)

    def _read_ok_packet(self) -> Any:
        with self._reading_reply(told=True):
            return super()._read_ok_packet()

    def _read_query_result(self, unbuffered: bool = False) -> int:
        # Of a statement's further results, too.
        self._awaiting_reply = True
        try:
            affected: int = super()._read_query_result(unbuffered)
        except err.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_reply(told=self._result.server_status is not None)
        return affected

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """As PyMySQL's."""
        with self._reading_reply(told=False):
            super().set_character_set(charset, collation)

    def show_warnings(self) -> Any:
        """As PyMySQL's."""
        with self._reading_reply(told=False):
            return super().show_warnings()  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def _reading_reply(self, *, told: bool) -> Generator[None, None, None]:
        try:
            yield
        except err.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_reply(told=told)


class DbConnectionManager(BaseConnectionManager[DbEndpoint, Connection]):
    """Makes connections with PyMySQL.

    When a connection is given back, a transaction that the user left open is rolled back, and autocommit is set to what
    it was in the beginning. That costs a round trip only if there is something to do, or the last statement failed in
    autocommit mode: what it has begun (a procedure half-way) the server has to be asked. A connection with an answer
    that was not read to its end (of an unbuffered cursor, or further result sets) is closed. Everything else in the
    session (``SET``, user variables, ``USE``, ``SET ROLE``, ``GET_LOCK``, ``LOCK TABLES``, ``PREPARE``, temporary
    tables) stays as the user leaves it, unless ``reset`` is ``'full'``.

    :param params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`pymysql.connect`; it is looked up at each connect, so endpoints may be added later. Or a callable that
        returns them for an endpoint, called at each connect: so credentials may change.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection, which does not find a server behind a proxy that keeps the connection open.
    :param close_timeout: seconds that the server may take to end a statement that it still executes when its connection
        is closed: it is told to by ``KILL``, over a connection that is made for that. 0: it is not told to. None for
        no limit.
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
        # Of each endpoint, only one control connection at a time; and of each process, since a fork copies a lock as
        # it is.
        self._turns: dict[tuple[Hashable, int], threading.Lock] = {}
        # Now, rather than in the first acquires, whose time it would take.
        _default_tls()

    def create(self, endpoint: DbEndpoint, timeout: float | None = None) -> Connection:
        """Connect.

        :param endpoint: a key of ``params``
        :param timeout: seconds that it may take until the connection can be used, if that is less than
            ``connect_timeout`` in the parameters (default 10); None for that one. All of it counts: the resolution of
            the host name, the attempts at each of its addresses, TLS, the login.
        :raise ConnectTimeout: the time is over, or the server was silent for ``read_timeout`` or ``write_timeout`` of
            the parameters
        :raise ConnectError: the connection cannot be made; a :py:class:`pymysql.err.MySQLError` as well, unless it is
            the parameters that make no sense, or a package is missing that PyMySQL needs for the server's way to check
            passwords
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
                with conn.limited(_seconds_until(deadline)):
                    conn.learn_to_reset()
        except BaseException as exc:
            self._end(endpoint, conn, min(self._close_timeout, CLOSING_IN_CREATE))
            if isinstance(exc, Exception):
                _raise_not_connected(endpoint, exc, conn, limit, deadline)
            raise
        conn.broken_codes = self._broken_codes
        return conn

    def dispose(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection, without waiting for the server unless it is at work for it.

        Then the server is told to end the statement, and this returns when it has let the session go, or the time is
        over.

        :param endpoint: a key of ``params``
        :param conn: the connection; one whose user waits for an answer (a pool can be closed over it) is cut off, and
            the user gets an error, mostly PyMySQL's own of a lost connection
        :param timeout: seconds that this may take, if that is less than ``close_timeout``
        """
        self._end(endpoint, conn, self._close_timeout if timeout is None else min(timeout, self._close_timeout))

    def _end(self, endpoint: DbEndpoint, conn: Connection, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        at_work = conn.is_at_work
        conn.end(seconds)
        if not at_work or seconds <= 0 or not self._control_log.may_try(endpoint):
            return
        try:
            self._kill(endpoint, conn, deadline)
        except Exception as exc:  # noqa: BLE001  (the callable that gives the parameters may raise anything)
            self._control_log.note_failure(endpoint, exc)
        else:
            self._control_log.note_success(endpoint)

    def _kill(self, endpoint: DbEndpoint, conn: Connection, deadline: float) -> None:
        """End a session at the server that is closed here, and wait until it is gone."""
        turn = self._turns.setdefault((endpoint, os.getpid()), threading.Lock())
        if not turn.acquire(timeout=_seconds_until(deadline)):
            raise TimeoutError('others are being ended')
        try:
            params = to_params(look_up(self._params, endpoint, 'params'), endpoint, 'params')
            control = Connection(**{**control_params(params), 'defer_connect': True})
            answered = False
            began = time.monotonic()
            try:
                control.connect_by(deadline)
                answered = True
                steps = steps_to_kill(conn, conn.thread_id())
                with control.limited(_seconds_until(deadline)), contextlib.suppress(StopIteration):
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
            turn.release()

    def check_aliveness(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Tell whether a connection is open, and the server has said nothing that was not asked for.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :param timeout: seconds that the answer to ``ping`` may take, if that is less than ``read_timeout`` in the
            parameters; None for that one. After a check that took too long the connection is closed.
        """
        # It is not restored where a release was left out, or cut off before it could do that.
        if not (conn.open and conn.in_order and conn.is_quiet() and conn.is_restored):
            return False
        if self._resets_all and conn.was_used:
            return False
        if (conn.met_broken_code or self._generations.any_retired) and is_useless(self._generations, endpoint, conn):
            return False
        if not self._ping:
            return True
        return _answers(conn, time_to_answer(timeout))

    def on_release(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """Roll back the transaction that the user left open and restore autocommit; no round trip if nothing is to do.

        After a statement that failed in autocommit mode the server is asked (``COM_PING``) what it has left. With
        ``reset='full'`` the whole session is made what it was when it was new. A server that does not answer is waited
        for ``rollback_timeout``, and for ``read_timeout`` in the parameters of the connection, neither of which is
        limited by default.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :raise DiscardConnection: the connection is closed, or has an answer that was not read to its end, or cannot be
            rolled back or reset, or has met an error of ``broken_codes``
        """
        if not conn.open:
            raise DiscardConnection(f'the connection to {endpoint!r} is closed')
        if not conn.in_order or conn.has_unread():
            raise DiscardConnection(f'the connection to {endpoint!r} has an answer that was not read to its end')
        if (conn.met_broken_code or self._generations.any_retired) and is_useless(self._generations, endpoint, conn):
            raise DiscardConnection(f'the connection to {endpoint!r} is alive, but useless')
        if (not conn.was_used) if self._resets_all else conn.is_restored:
            return
        try:
            with conn.limited(self._rollback_timeout):
                if self._resets_all:
                    conn.reset()
                else:
                    conn.restore()
        except BaseException as exc:
            conn.give_up_restoring()
            if not isinstance(exc, (err.MySQLError, ValueError)):
                raise
            logger.warning('a connection to %r cannot be rolled back or reset, it is closed: %s', endpoint, exc)
            raise DiscardConnection(f'the connection to {endpoint!r} cannot be rolled back or reset') from exc

    def is_broken(self, endpoint: DbEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Tell whether a connection is lost, or in the middle of a statement, after its user's block raised.

        :param endpoint: a key of ``params``
        :param conn: the connection
        :param exc: what the block raised
        """
        if not conn.open or not conn.in_order or is_useless(self._generations, endpoint, conn, exc):
            return True
        if any(isinstance(error, err.InterfaceError) or _ends_session(error) for error in errors_in(exc)):
            return True
        return conn.has_unread()


def _ends_session(exc: BaseException) -> bool:
    return isinstance(exc, err.MySQLError) and ends_session(exc)


def _raise_not_connected(endpoint: DbEndpoint, exc: Exception, conn: Connection, limit: float, deadline: float) -> None:
    """Raise what an error that came while connecting is to a user; return if it is none of the kinds that are known."""
    for error in errors_in(exc):
        if isinstance(error, err.MySQLError):
            # What PyMySQL made its own error of.
            origin = getattr(error, 'original_exception', None) or error.__context__
            if isinstance(origin, TimeoutError):
                if time_left(deadline):
                    _raise_early_timeout(endpoint, error, origin, conn)
                raise_connect_timeout(endpoint, error, limit)
            advice = advice_for_os_error(origin) if isinstance(origin, OSError) else advice_for_error(error)
            raise_connect_error(endpoint, error, advice)
        if isinstance(error, BAD_PARAMS):
            raise_bad_params(endpoint, error, 'params')
        if isinstance(error, RuntimeError) and (package := advice_for_package(error)) is not None:
            raise_connect_error(endpoint, error, package)


def _answers(conn: Connection, timeout: float | None) -> bool:
    try:
        with conn.limited(timeout):
            conn.ping(reconnect=False)
    except err.MySQLError:
        return False
    return True


def _cannot_connect(host: str, cause: OSError) -> err.OperationalError:
    error = err.OperationalError(CR.CR_CONN_HOST_ERROR, f"Can't connect to MySQL server on {host!r} ({cause})")
    error.original_exception = cause  # type: ignore[attr-defined]
    return error


def _seconds_until(deadline: float) -> float:
    return max(deadline - time.monotonic(), _SHORTEST_TIMEOUT)


def _raise_early_timeout(endpoint: DbEndpoint, exc: err.MySQLError, origin: TimeoutError, conn: Connection) -> NoReturn:
    """Raise that the server was silent for so long that something gave up before the time was over."""
    if error_number(exc) == CR.CR_SERVER_LOST:
        name, seconds = 'read_timeout', conn._read_timeout  # noqa: SLF001
    else:
        name, seconds = 'write_timeout', conn._write_timeout  # noqa: SLF001
    if seconds is None or origin.errno is not None:
        # It was the system, which has limits of its own.
        raise_connect_timeout(endpoint, exc, None)
    raise ConnectTimeout(
        f'no connection to endpoint {endpoint!r} could be made: the server was silent for the {name} of its '
        f'parameters, {seconds:g} s: {exc}; is the server reachable, or is that limit too short?',
        endpoint,
    ) from exc
