# redis-py has type hints for half of its methods.
# mypy: allow-untyped-calls
"""redis-py's connections for threads, with time limits and an orderly end of their sessions."""

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import redis
import redis.connection

from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._goodbye import wait_for_end
from gcpool.contrib._redis_session import FAREWELL, Session, least, no_attribute
from gcpool.contrib._redis_sockets import PartingSocket, bound, end_sending, pooled_socket, unbound
from gcpool.contrib._sockets import connect_tcp, poller_for, shut_down

__all__ = ['PooledConnection', 'TcpConnection']

# The timeout of a socket with no time left: 0 would make it non-blocking.
_SHORTEST_TIMEOUT = 0.001

if TYPE_CHECKING:
    _Base = redis.connection.Connection
else:
    _Base = object


def _bounded_while_connecting(name: str) -> Any:
    """Build a property for one of redis-py's time limits: its configured value, limited while connecting."""

    def get(conn: 'PooledConnection') -> float | None:
        return conn._bounded(getattr(conn, name))  # noqa: SLF001

    def put(conn: 'PooledConnection', value: float | None) -> None:
        setattr(conn, name, value)

    return property(get, put)


class PooledConnection(Session, _Base):
    """Mixin of redis-py's connection classes for threads."""

    _deadline: float | None = None
    _connecting = False
    _reading = False

    # redis-py gives each step of connecting, and each address of a host, the whole of these.

    socket_timeout = _bounded_while_connecting('_socket_timeout')  # pyright: ignore[reportIncompatibleMethodOverride]
    socket_connect_timeout = _bounded_while_connecting('_socket_connect_timeout')  # pyright: ignore[reportIncompatibleMethodOverride]

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Only for what a connection does not have: most are commands, which are methods of a client.
            raise no_attribute(self, name, redis.Redis, 'client_of')

    def _bounded(self, configured: float | None) -> float | None:
        # Only while a socket is connected: the parser keeps the value that it is given afterwards.
        return self._less_than_left(configured) if self._connecting else configured

    def _less_than_left(self, configured: float | None) -> float | None:
        left = time_left(self._deadline)
        if left is None or (configured is not None and configured < left):
            return configured
        return max(left, _SHORTEST_TIMEOUT)

    def _connect(self) -> Any:
        # Of the previous session.
        self._part()
        self._wait_for_another()
        self._connecting = True
        try:
            sock = super()._connect()
        finally:
            self._connecting = False
        sock = pooled_socket(sock)
        if self._deadline is not None:
            bound(sock, self._deadline)
        return sock

    def _wait_for_another(self) -> None:
        """Wait for the end of a session that the server still has, and that this connection's session replaces."""
        taken = self.servers.take(self.endpoint)
        if taken is None:
            return
        farewell, until = taken
        ended = False
        try:
            now = time.monotonic()
            ended = wait_for_end(farewell, least(until - now, time_left(self._deadline))) or time.monotonic() >= until
            if not ended:
                raise TimeoutError('the server is still running a command of a closed connection')
        finally:
            if ended:
                farewell.close()
            else:
                self.servers.remember(self.endpoint, farewell, until)

    def within(self, timeout: float | None, do: Callable[[], None]) -> None:
        """Call something that sends commands and reads replies, with one limit on all of it."""
        if timeout is None:
            do()
            return
        self._deadline = deadline = time.monotonic() + timeout
        try:
            bound(self._get_socket(), deadline)
            do()
        finally:
            self._deadline = None
            unbound(self._get_socket(), self.socket_timeout)

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_connected:
            self._about_to_connect()
        super().connect_check_health(*args, **kwargs)

    def on_connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        self._handshake_begins()
        super().on_connect_check_health(*args, **kwargs)

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        try:
            sock: Any = self._sock
            if isinstance(sock, PartingSocket):
                self._leave(sock)
            super().disconnect(*args, **kwargs)
        finally:
            self._session_is_over()

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        self.send_packed_command(self.pack_command(*args), check_health=kwargs.get('check_health', True))

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        count = self._about_to_send(command)
        try:
            super().send_packed_command(command, check_health)
        except BaseException:
            self._was_not_sent(count, self.is_connected)
            raise
        self._was_sent(command, count)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        self._reading = True
        try:
            response = super().read_response(*args, **kwargs)
        except redis.ResponseError as exc:
            self._was_read(exc)
            raise
        except BaseException as exc:
            self._was_not_read(exc, self.is_connected)
            if self._ended and isinstance(exc, Exception) and not isinstance(exc, redis.RedisError):
                # Meanwhile another thread has removed the parser.
                raise redis.ConnectionError('the connection was closed by its pool') from exc
            raise
        finally:
            self._reading = False
        self._was_read(response)
        return response

    def _part(self, limit: float | None = None) -> None:
        """Give the server a moment to end an abandoned session."""
        farewell, self._farewell = self._farewell, None
        if farewell is None:
            return
        ended = False
        try:
            end_sending(farewell)
            ended = wait_for_end(farewell, least(FAREWELL, limit))
        finally:
            if not ended and self._reading:
                # Another thread, which must be woken up.
                ended = shut_down(farewell)
            self._see_off(farewell, ended)

    def end(self, limit: float | None = None) -> None:
        """Close the connection for good, and give the server a moment to close its side, too.

        :param limit: seconds that this may take at most
        """
        sock: Any = self._sock
        if isinstance(sock, PartingSocket):
            self._leave(sock)
        self._ended = True
        self._client = self._client_template = None
        try:
            self._part(limit)
        finally:
            self.disconnect()

    def is_quiet(self) -> bool:
        """Return whether the server has neither closed the connection nor sent anything unsolicited."""
        if self._has_nothing():
            return True
        try:
            # Looks into the parser's buffer, and reads from the socket if it has data.
            return not self.can_read(0)
        except (redis.RedisError, OSError):
            return False

    def _has_nothing(self) -> bool:
        """Return whether there is nothing to read, as far as that is known without a read, which takes far longer."""
        unread_bytes = getattr(getattr(self._parser, '_buffer', None), 'unread_bytes', None)
        if self._poll is None or unread_bytes is None or unread_bytes():
            return False
        sock: Any = self._sock
        return not (self._poll(0) or (isinstance(sock, ssl.SSLSocket) and sock.pending()))

    def _session_begins(self, connection: object) -> None:
        super()._session_begins(connection)
        sock: Any = self._sock
        self._poll = poller_for(sock.fileno()) if isinstance(sock, PartingSocket) else None

    def answers(self, timeout: float | None) -> bool:
        """Ask the server whether it still answers."""
        try:
            self.within(timeout, self._send_ping)
        except (redis.RedisError, OSError):
            self.disconnect()
            return False
        finally:
            # If the server has not answered, it has had its time: closing does not wait for it again.
            self._is_busy = False
        return True

    def reset(self, timeout: float | None) -> None:
        """Reset the session to its state after the handshake, in one round trip."""
        try:
            self.within(timeout, self._reset)
        finally:
            # As above.
            self._is_busy = False

    def _reset(self) -> None:
        packed = self.pack_reset()
        self.send_packed_command(packed, check_health=False)
        for _ in packed.commands:
            self.read_response()
        self._is_clean()


class TcpConnection(redis.connection.Connection):
    """Stands between redis-py's TCP connection and its subclasses, with one limit on all of connecting."""

    def _connect(self) -> Any:
        deadline = deadline_after(self.socket_connect_timeout)
        sock = connect_tcp(self.host, self.port, deadline, family=self.socket_type, prepare=self._prepare)
        # Here, not in a subclass of the user's class, which may keep the value.
        sock = pooled_socket(sock)
        try:
            sock.settimeout(self.socket_timeout)
        except BaseException:
            sock.close()
            raise
        return sock

    def _prepare(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.socket_keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            options = cast('Mapping[int, int | bytes]', self.socket_keepalive_options)
            for option, value in options.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
