"""PyMySQL's connection, which also knows what a pool has to know of it."""

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

# A timeout of 0 would make the socket non-blocking.
_SHORTEST_TIMEOUT = 1e-6
# Seconds that sending the five bytes of a good-bye may take. They do not wait, unless what is before them does.
_QUIT_TIMEOUT = 1.0
_SERVER_LOST = 'Lost connection to MySQL server during query'


@functools.cache
def default_tls() -> Any:
    """What PyMySQL does TLS with if the parameters say nothing of it: from 1.2 on if the server offers it, unverified.

    PyMySQL makes that for each connection anew, and loads the system's certificates into it: tens of milliseconds of
    processor time, for which all other threads wait, too.
    """
    return getattr(connections.Connection(defer_connect=True), 'ctx', None)


class _RawReader(socket.SocketIO):
    """Reads from a socket, unless it is only to be seen what the buffer in front of it has."""

    only_looks = False

    def readinto(self, b: Any) -> int | None:
        """Read what there is; None, as if there were nothing, while it is only looked."""
        return None if self.only_looks else super().readinto(b)


class Connection(SessionState, _DriverConnection):
    """PyMySQL's connection, which also knows whether the server still owes it an answer.

    PyMySQL keeps the server's status, but does not take it from the end of a result set: a ``SELECT`` that began a
    transaction does not show there. So this notes when the status is of before the last statement.
    """

    INTERFACE_ERROR = err.InterfaceError
    # Looks at the socket: see gcpool.contrib._sockets.poller_for.
    _poll: Callable[[int], object] | None = None

    def is_quiet(self) -> bool:
        """Whether the server has neither ended the connection nor said anything that was not asked for."""
        return self._sock is not None and self._poll is not None and not self._poll(0)

    def has_unread(self) -> bool:
        """Whether something has arrived that was not read, or the connection has ended. Costs no round trip."""
        if not self.is_quiet():
            return True
        # The kernel has nothing, but the driver's buffer may, or TLS.
        reader = self._rfile
        reader.raw.only_looks = True
        try:
            if reader.peek(1):
                return True
        finally:
            reader.raw.only_looks = False
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

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
        sock, reader = self._sock, self._rfile
        if sock is not None:
            reader.raw.__class__ = _RawReader
            self._poll = poller_for(sock.fileno())

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
        """Give a socket what PyMySQL gives those that it connects by itself."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self.bind_address is not None:
            sock.bind((self.bind_address, 0))

    def _create_ssl_ctx(self, sslp: Any) -> Any:
        # The parameters say nothing of TLS.
        return default_tls() if sslp == {} else super()._create_ssl_ctx(sslp)

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


def _cannot_connect(host: str, cause: OSError) -> err.OperationalError:
    error = err.OperationalError(CR.CR_CONN_HOST_ERROR, f"Can't connect to MySQL server on {host!r} ({cause})")
    error.original_exception = cause  # type: ignore[attr-defined]
    return error


def seconds_until(deadline: float) -> float:
    """Give the seconds until a monotonic time: some, since a socket takes 0 for non-blocking."""
    return max(deadline - time.monotonic(), _SHORTEST_TIMEOUT)
