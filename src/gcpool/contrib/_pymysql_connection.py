"""PyMySQL's connection, extended by what a pool needs to know."""

import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from pymysql import connections, err
from pymysql.constants import CR

from gcpool.contrib._errors import errors_in
from gcpool.contrib._mysql_session import QUERIES_FOR_RESET, SessionState
from gcpool.contrib._sockets import connect_tcp, poller_for, shut_down

__all__ = ['Connection', 'default_tls', 'seconds_until']

if TYPE_CHECKING:

    class _DriverConnection(connections.Connection[Any]):
        """Attributes of PyMySQL's connection that are not in its interface and are used here."""

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

# A timeout of 0 would make the socket non-blocking.
_SHORTEST_TIMEOUT = 1e-6
# Seconds that sending the five bytes of COM_QUIT may take. Sending does not wait, unless earlier data does.
_QUIT_TIMEOUT = 1.0
_SERVER_LOST = 'Lost connection to MySQL server during query'


@functools.cache
def default_tls() -> Any:
    """Return PyMySQL's TLS context for parameters that do not mention TLS: from 1.2 on it uses TLS if offered,
    unverified.

    PyMySQL builds a context for each connection, and loads the system's certificates into it: tens of milliseconds of
    processor time, during which all other threads wait.
    """
    return getattr(connections.Connection(defer_connect=True), 'ctx', None)


class _RawReader(socket.SocketIO):
    """Reads from a socket, unless only the contents of the buffer above it are wanted."""

    only_looks = False

    def readinto(self, b: Any) -> int | None:
        """Read what there is; while only looking, return None, as if there were nothing."""
        return None if self.only_looks else super().readinto(b)


class Connection(SessionState, _DriverConnection):
    """PyMySQL's connection, which also knows whether the server still owes it an answer.

    PyMySQL keeps the server's status, but does not read it from the end of a result set, so it misses that a ``SELECT``
    began a transaction. Therefore this class records when the status is older than the last statement.
    """

    INTERFACE_ERROR = err.InterfaceError
    # Polls the socket: see gcpool.contrib._sockets.poller_for.
    _poll: Callable[[int], object] | None = None

    def is_quiet(self) -> bool:
        """Whether the server has neither ended the connection nor sent anything unsolicited."""
        return self._sock is not None and self._poll is not None and not self._poll(0)

    def has_unread(self) -> bool:
        """Whether anything unread has arrived, or the connection has ended. Costs no round trip."""
        if not self.is_quiet():
            return True
        # The kernel has nothing, but the driver's buffer or the TLS layer may.
        reader = self._rfile
        reader.raw.only_looks = True
        try:
            if reader.peek(1):
                return True
        finally:
            reader.raw.only_looks = False
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def restore(self) -> None:
        """Roll back an open transaction and restore autocommit; no round trip if there is nothing to do."""
        for step in self.steps_to_restore():
            step()

    def learn_to_reset(self) -> None:
        """Record the state of a new session that a reset restores."""
        try:
            self.query(QUERIES_FOR_RESET[0])
        except err.MySQLError as exc:
            self._note_error(exc)
            self.query(QUERIES_FOR_RESET[1])
        self.plan_reset(self._result.rows[0], self.init_command, self.encoding)
        self._initial = self.charset, self.collation, self.encoding, self.autocommit_mode

    def reset(self) -> None:
        """Reset the session to its initial state; one round trip, none if the session was not used."""
        if not self.was_used:
            return
        self.charset, self.collation, self.encoding, self.autocommit_mode = self._initial
        for step in self.steps_to_reset():
            step()

    @contextlib.contextmanager
    def limited(self, seconds: float | None) -> Generator[None, None, None]:
        """Limit the total time of all reads and writes in the block, in seconds (None: no limit)."""
        if seconds is None:
            yield
            return
        deadline = time.monotonic() + seconds
        configured = self._read_timeout, self._write_timeout

        def renew() -> None:
            left = seconds_until(deadline)
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
            # For the next writes, and the TLS handshake.
            renew()
            return data

        renew()
        # On the instance, and only for this block, so that reading rows does not become slower.
        self._read_bytes = read_bytes
        try:
            yield
        finally:
            del self._read_bytes
            self._read_timeout, self._write_timeout = configured

    def _read_in_pieces(self, count: int, renew: Callable[[], None]) -> bytes:
        """Read some bytes, or fewer at the end of the stream; ``renew`` is called before each wait for the server.

        A reader that is asked for all of them would wait again, for its whole timeout, for each byte that arrives
        alone.
        """
        data = b''
        while len(data) < count:
            renew()
            sock, reader = self._sock, self._rfile
            if sock is None or reader is None:
                break
            sock.settimeout(self._read_timeout)
            # PyMySQL compares this with the timeout that the socket should have.
            self._current_timeout = self._read_timeout
            piece = reader.read1(count - len(data))
            if not piece:
                break
            data += piece
        return data

    def connect(self, sock: socket.socket | None = None) -> None:
        """Connect again, as PyMySQL lets users do.

        :raise pymysql.err.InterfaceError: the pool has closed the connection, and would not know a new one
        """
        self._refuse_if_ended()
        super().connect(sock)
        # The pool may have closed it in the meantime.
        self._refuse_if_ended()
        sock, reader = self._sock, self._rfile
        if sock is not None:
            reader.raw.__class__ = _RawReader
            self._poll = poller_for(sock.fileno())

    def connect_by(self, deadline: float) -> None:
        """Connect and log in.

        :param deadline: the monotonic time by which this must be done, including resolving the host name and trying all
            addresses
        :raise pymysql.err.MySQLError: as when PyMySQL connects by itself
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
        with self.limited(seconds_until(deadline)):
            self.connect(sock)

    def _connect_unix(self, deadline: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(seconds_until(deadline))
            sock.connect(self.unix_socket or '')
        except BaseException:
            sock.close()
            raise
        return sock

    def _prepare(self, sock: socket.socket) -> None:
        """Set the options that PyMySQL sets on sockets that it connects itself."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.bind_address is not None:
            sock.bind((self.bind_address, 0))

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        # The parameters do not mention TLS.
        return default_tls() if sslp == {} else super()._create_ssl_ctx(sslp)

    def end(self, seconds: float = _QUIT_TIMEOUT) -> None:
        """Close the connection for good, with COM_QUIT if it is intact; may be called from another thread, and twice.

        :param seconds: how long sending COM_QUIT may take
        """
        self._ended = True
        polite = self.in_order
        result, self._result = self._result, None
        if result is not None:
            # When collected, it would continue to read from a closed connection.
            result.unbuffered_active = False
        if self._sock is None:
            return
        if polite:
            self._write_timeout = max(min(seconds, _QUIT_TIMEOUT), _SHORTEST_TIMEOUT)
            self.close()
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection without COM_QUIT; may be called from another thread, and twice."""
        sock, reader = self._sock, self._rfile
        if sock is not None:
            # This wakes a thread that waits for an answer and frees the reader. And closing a TLS socket removes its
            # encryption before closing it: from now on, data that another thread sends goes nowhere.
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
        # The end of the rows, which the error replaces, would show whether there are further results.
        return result.has_next is None and not result.unbuffered_active

    def _was_closed_here(self, exc: BaseException) -> bool:
        return self._ended or self._closed or any(isinstance(error, TimeoutError) for error in errors_in(exc))

    def _get_server_information(self) -> None:
        # Before any wait, because the wait may be cancelled half-way.
        self._begin_session(None if self._sock is None else self._sock.getsockname())
        super()._get_server_information()

    def _execute_command(self, command: int, sql: str | bytes) -> None:
        earlier = self._result
        # Before, because sending may fail half-way; after, because asyncmy first reads what an earlier statement left
        # unread.
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
        # Also for further results of a statement.
        self._awaiting_reply = True
        try:
            affected: int = super()._read_query_result(unbuffered)
        except err.MySQLError as exc:
            self._note_error(exc)
            raise
        self._note_reply(told=self._result.server_status is not None)
        return affected

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Like PyMySQL."""
        with self._reading_reply(told=False):
            super().set_character_set(charset, collation)

    def show_warnings(self) -> Any:
        """Like PyMySQL."""
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


def _cannot_connect(host: str, cause: OSError) -> err.OperationalError:
    error = err.OperationalError(CR.CR_CONN_HOST_ERROR, f"Can't connect to MySQL server on {host!r} ({cause})")
    error.original_exception = cause  # type: ignore[attr-defined]
    return error


def seconds_until(deadline: float) -> float:
    """Return the seconds until a monotonic time; never 0, which would make a socket non-blocking."""
    return max(deadline - time.monotonic(), _SHORTEST_TIMEOUT)
