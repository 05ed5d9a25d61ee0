# redis-py has hints at half of its methods.
# mypy: allow-untyped-calls
"""redis-py's connections, which keep to a time limit and part from their servers."""

import asyncio
import contextlib
import functools
import inspect
import os
import socket
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, cast

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection

from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._goodbye import wait_for_end, wait_for_end_async
from gcpool.contrib._parameters import bounded_seconds, positive_time_limit
from gcpool.contrib._redis_session import Servers, Session
from gcpool.contrib._sockets import connect_tcp, poll_once, shut_down
from gcpool.contrib.socket_async import close_stream
from gcpool.exceptions import ConnectError

if sys.version_info >= (3, 11):
    from asyncio import timeout as timeout_scope
else:
    from gcpool._timeout310 import timeout_scope

__all__ = ['AsyncPooledConnection', 'PooledConnection', 'new_async_connection', 'new_connection']

# A socket with no time left gets this much: none at all would make it a non-blocking one.
_SHORTEST_TIMEOUT = 0.001
# A limit of 0 is no reason to cut off a server that answers without being waited for.
_SHORTEST_EXCHANGE = 0.05
#: Seconds that a server that is not at work needs to end a session that was closed, at the most.
_FAREWELL = 0.1


def _least(limit: float, other: float | None) -> float:
    return limit if other is None else min(limit, other)


def _end_sending(sock: socket.socket) -> None:
    """Tell the server that no more is sent: it closes the connection, also one on which a command waits."""
    with contextlib.suppress(OSError):
        # Unless it is closed already.
        sock.shutdown(socket.SHUT_WR)


if TYPE_CHECKING:
    _Base = redis.connection.Connection
    _AsyncBase = redis.asyncio.connection.Connection
else:
    _Base = _AsyncBase = object


if TYPE_CHECKING:
    _SocketBase = socket.socket
else:
    _SocketBase = object


class _Parting(_SocketBase):
    """Mixin of sockets that end only what is sent: redis-py ends both directions before it closes a socket."""

    def shutdown(self, how: int) -> None:
        """End what is sent only: otherwise the server's end would not be seen."""
        # By the base class: an SSLSocket's own takes its encryption away, and another thread may be sending.
        socket.socket.shutdown(self, socket.SHUT_WR)


class _PlainSocket(_Parting, socket.socket):
    """A socket without TLS."""


class _TlsSocket(_Parting, ssl.SSLSocket):
    """A socket with TLS."""


class _Bounded(_SocketBase):
    """Mixin of sockets with a time at which all sending and reading has to be through.

    A socket's own time limit bounds each read, and begins anew with each byte that the server sends. A socket is of
    such a class only while there is such a limit, because the checks cost time.
    """

    deadline: float
    #: The class of a socket like this one without a limit.
    unbounded: type[_Parting]

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._count_down()
        super().sendall(*args, **kwargs)

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        self._count_down()
        return super().recv(*args, **kwargs)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._count_down()
        return super().recv_into(*args, **kwargs)

    def _count_down(self) -> None:
        left = time_left(self.deadline)
        if not left:
            raise TimeoutError('the server did not answer in time')
        timeout = self.gettimeout()
        if timeout is None or timeout > left:
            self.settimeout(left)


class _BoundedPlainSocket(_Bounded, _PlainSocket):
    """A socket without TLS, with a time limit."""

    unbounded = _PlainSocket


class _BoundedTlsSocket(_Bounded, _TlsSocket):
    """A socket with TLS, with a time limit."""

    unbounded = _TlsSocket


def _pooled_socket(sock: Any) -> Any:
    """Make a socket one that can be bounded, if it is of Python's own classes."""
    if type(sock) is socket.socket:
        timeout = sock.gettimeout()
        sock = _PlainSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        sock.settimeout(timeout)
    elif type(sock) is ssl.SSLSocket:
        sock.__class__ = _TlsSocket
    return sock


def _bound(sock: Any, deadline: float) -> None:
    """Bound what is sent and read on a socket by a monotonic time."""
    if isinstance(sock, _Parting):
        bounded: Any = sock
        # Before the class, since another thread may be sending.
        bounded.deadline = max(deadline, time.monotonic() + _SHORTEST_EXCHANGE)
        bounded.__class__ = _BoundedTlsSocket if isinstance(sock, ssl.SSLSocket) else _BoundedPlainSocket


def _unbound(sock: Any, timeout: float | None) -> None:
    """Lift the bound of a socket, and set its timeout."""
    if isinstance(sock, _Bounded):
        again: Any = sock
        again.__class__ = sock.unbounded
        sock.settimeout(timeout)


class PooledConnection(Session, _Base):
    """Mixin of redis-py's connection classes for threads."""

    _deadline: float | None = None
    _connecting = False
    _reading = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_connect_callback(self._session_begins)

    # redis-py gives each step of connecting, and each address of a host, the whole of these.

    @property
    def socket_timeout(self) -> float | None:
        return self._bounded(self._socket_timeout)

    @socket_timeout.setter
    def socket_timeout(self, value: float | None) -> None:
        self._socket_timeout = value

    @property
    def socket_connect_timeout(self) -> float | None:
        return self._bounded(self._socket_connect_timeout)

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, value: float | None) -> None:
        self._socket_connect_timeout = value

    def _bounded(self, configured: float | None) -> float | None:
        # Only while a socket is connected: the parser keeps what it is told afterwards.
        return self._less_than_left(configured) if self._connecting else configured

    def _less_than_left(self, configured: float | None) -> float | None:
        left = time_left(self._deadline)
        if left is None or (configured is not None and configured < left):
            return configured
        return max(left, _SHORTEST_TIMEOUT)

    def _connect(self) -> Any:
        # From the last session on it.
        self._part()
        self._wait_for_another()
        self._connecting = True
        try:
            sock = super()._connect()
        finally:
            self._connecting = False
        sock = _pooled_socket(sock)
        if self._deadline is not None:
            _bound(sock, self._deadline)
        return sock

    def _wait_for_another(self) -> None:
        """Wait for the end of a session that the server still has, in whose place this one comes."""
        taken = self.servers.take(self.endpoint)
        if taken is None:
            return
        farewell, until = taken
        ended = False
        try:
            now = time.monotonic()
            ended = wait_for_end(farewell, _least(until - now, time_left(self._deadline))) or time.monotonic() >= until
            if not ended:
                raise TimeoutError('the server is still at work for a connection that was closed')
        finally:
            if ended:
                farewell.close()
            else:
                self.servers.remember(self.endpoint, farewell, until)

    def within(self, timeout: float | None, do: Callable[[], None]) -> None:
        """Call something that sends commands and reads replies, and do not let all of it take longer than that."""
        if timeout is None:
            do()
            return
        self._deadline = deadline = time.monotonic() + timeout
        try:
            _bound(self._get_socket(), deadline)
            do()
        finally:
            self._deadline = None
            _unbound(self._get_socket(), self.socket_timeout)

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
            if isinstance(sock, _Parting):
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
            if isinstance(exc, redis.RedisError):
                # redis-py takes some error replies for lost connections.
                self._note_failure(exc)
            if self._ended and isinstance(exc, Exception) and not isinstance(exc, redis.RedisError):
                # Another thread has taken the parser away in the midst of it.
                raise redis.ConnectionError('the connection was closed by its pool') from exc
            if self.is_connected:
                self._doubt = 'reading a reply from it failed'
            raise
        finally:
            self._reading = False
        self._was_read(response)
        return response

    def _part(self, limit: float | None = None) -> None:
        """Give the server a moment to let go of a session that was left."""
        farewell, self._farewell = self._farewell, None
        if farewell is None:
            return
        ended = False
        try:
            _end_sending(farewell)
            ended = wait_for_end(farewell, _least(_FAREWELL, limit))
        finally:
            if not ended and self._reading:
                # Another thread, which is to be woken up.
                ended = shut_down(farewell)
            self._see_off(farewell, ended)

    def end(self, limit: float | None = None) -> None:
        """Close it for good, and give the server a moment to close it, too.

        :param limit: seconds that this may take at most
        """
        sock: Any = self._sock
        if isinstance(sock, _Parting):
            self._leave(sock)
        self._ended = True
        self._client = self._client_template = None
        try:
            self._part(limit)
        finally:
            self.disconnect()

    def is_quiet(self) -> bool:
        """Tell whether the server has neither closed the connection nor sent anything that nobody has asked for."""
        try:
            # Looks into the parser's buffer, and reads what the socket has, if it has something.
            return not self.can_read(0)
        except (redis.RedisError, OSError):
            return False

    def answers(self, timeout: float | None) -> bool:
        """Ask the server for a sign of life."""
        try:
            self.within(timeout, self._send_ping)
        except (redis.RedisError, OSError):
            self.disconnect()
            return False
        finally:
            # Unless it has answered, it has had its time: nobody waits for it again.
            self._is_busy = False
        return True

    def reset(self, timeout: float | None) -> None:
        """Make the session what the handshake made it, in one round trip."""
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


class _TcpConnection(redis.connection.Connection):
    """Goes between redis-py's TCP connection and its subclasses, with one limit on all that connecting takes."""

    def _connect(self) -> Any:
        deadline = deadline_after(self.socket_connect_timeout)
        sock = connect_tcp(self.host, self.port, deadline, family=self.socket_type, prepare=self._prepare)
        # Here, not behind a subclass of the user's: that may keep it.
        sock = _pooled_socket(sock)
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


class AsyncPooledConnection(Session, _AsyncBase):
    """Mixin of redis-py's connection classes for asyncio."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_connect_callback(self._session_begins)

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_connected:
            self._about_to_connect()
            # From the last session on it.
            await self._part()
            await self._wait_for_another()
        await super().connect_check_health(*args, **kwargs)

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        writer = self._writer
        self._leave_stream()
        try:
            await super().disconnect(*args, **kwargs)
        finally:
            self._session_is_over()
            if writer is not None:
                # redis-py does not always wait until it is closed, and a server that takes nothing of what is still to
                # be sent would keep it open for good.
                writer.transport.abort()
            if self._farewell is not None:
                _end_sending(self._farewell)

    def _leave_stream(self) -> None:
        # A transport of TLS that is closed has forgotten its socket, and fails.
        if self._writer is not None and not self._writer.transport.is_closing():
            sock = self._writer.get_extra_info('socket')
            if sock is not None and sock.fileno() >= 0:
                self._leave(sock)

    async def _part(self, limit: float | None = None) -> None:
        """Give the server a moment to let go of a session that was left."""
        farewell, self._farewell = self._farewell, None
        if farewell is not None:
            ended = False
            try:
                ended = await wait_for_end_async(farewell, _least(_FAREWELL, limit))
            finally:
                self._see_off(farewell, ended)

    async def _wait_for_another(self) -> None:
        """Wait for the end of a session that the server still has, in whose place this one comes."""
        taken = self.servers.take(self.endpoint)
        if taken is not None:
            farewell, until = taken
            ended = False
            try:
                await wait_for_end_async(farewell, until - time.monotonic())
                ended = True
            finally:
                if ended:
                    farewell.close()
                else:
                    self.servers.remember(self.endpoint, farewell, until)

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        count = self._about_to_send(command)
        try:
            await super().send_packed_command(command, check_health)
        except BaseException:
            self._was_not_sent(count, self.is_connected)
            raise
        self._was_sent(command, count)

    async def read_response(self, disable_decoding: bool = False, timeout: float | None = None, **kwargs: Any) -> Any:
        try:
            response = await super().read_response(disable_decoding, timeout, **kwargs)
        except redis.ResponseError as exc:
            self._was_read(exc)
            raise
        except BaseException as exc:
            if isinstance(exc, redis.RedisError):
                # redis-py takes some error replies for lost connections.
                self._note_failure(exc)
            if self.is_connected:
                self._doubt = 'reading a reply from it failed'
            raise
        if response is None and timeout is not None:
            # A reply, or redis-py's way to say that there was none in time.
            self._doubt = 'a reply may not have come in time'
        self._was_read(response)
        return response

    async def on_connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        # The handshake.
        self._handshake_begins()
        await self._in_time(functools.partial(super().on_connect_check_health, *args, **kwargs))

    async def _in_time(self, do: Callable[[], Awaitable[None]], limit: float | None = None) -> None:
        timeout = self.socket_timeout
        limit = timeout if limit is None else _least(limit, timeout)
        if limit is None:
            await do()
            return
        # With a limit of its own redis-py sends by asyncio.wait_for, which before Python 3.12 may swallow a
        # cancellation, that of a pool whose time is over as well.
        self.socket_timeout = None
        try:
            async with timeout_scope(limit):
                await do()
        except asyncio.TimeoutError as exc:
            raise redis.TimeoutError(f'no answer within {limit} s') from exc
        finally:
            self.socket_timeout = timeout

    async def end(self, timeout: float) -> None:
        """Close it for good: abort it if that takes more than ``timeout`` seconds.

        Then give the server a moment to close it, too.
        """
        self._leave_stream()
        self._ended = True
        self._client = self._client_template = None
        deadline = deadline_after(timeout)
        try:
            try:
                if self._reader is not None and self._writer is not None:
                    await close_stream((self._reader, self._writer), timeout)
            finally:
                await self.disconnect(nowait=True)
        finally:
            await self._part(time_left(deadline))

    async def abort(self) -> None:
        """Close it for good, and at once, but for a moment that the server gets to close it, too."""
        self._leave_stream()
        self._ended = True
        if self._writer is not None:
            self._writer.transport.abort()
        await self.disconnect(nowait=True)
        await self._part()

    async def reset(self, timeout: float | None) -> None:
        """Make the session what the handshake made it, in one round trip."""
        try:
            await self._in_time(self._reset, timeout)
        finally:
            # As above.
            self._is_busy = False

    async def _reset(self) -> None:
        packed = self.pack_reset()
        await self.send_packed_command(packed, check_health=False)
        for _ in packed.commands:
            await self.read_response()
        self._is_clean()

    async def is_quiet(self) -> bool:
        """Tell whether the server has neither closed the connection nor sent anything that nobody has asked for."""
        writer = self._writer
        if writer is None or writer.transport.is_closing():
            return False
        # The kernel may know what the event loop has not seen yet.
        sock = writer.get_extra_info('socket')
        if sock is None:
            # A TLS transport of Python 3.10 that is gone.
            return False
        readable, finished = poll_once(sock.fileno())
        # With TLS it may be something for the TLS layer only.
        if finished or (readable and writer.get_extra_info('ssl_object') is None):
            return False
        try:
            return not await self.can_read()
        except (redis.RedisError, OSError):
            return False

    async def answers(self) -> bool:
        """Ask the server for a sign of life."""
        try:
            await self._in_time(self._send_ping)
        except (redis.RedisError, OSError):
            await self.disconnect(nowait=True)
            return False
        finally:
            # Unless it has answered, it has had its time: nobody waits for it again.
            self._is_busy = False
        return True


@functools.cache
def _pooled_class(mixin: type, base: type) -> type:
    bases = [mixin, base]
    if issubclass(base, redis.connection.Connection):
        bases.append(_TcpConnection)
        if base is redis.connection.Connection:
            bases.remove(base)
    return type(f'Pooled{base.__name__}', tuple(bases), {'__module__': 'gcpool.contrib.redis'})


def _split_parameters(
    endpoint: Hashable, found: dict[str, Any], parse_url: Callable[[str], Mapping[str, Any]]
) -> tuple[str, type | None, dict[str, Any]]:
    """Give the kind of connection, its class if one was named, and the parameters of the class."""
    url = found.pop('url', None)
    if url is not None:
        if not isinstance(url, str):
            raise TypeError(f'url: expected a str, not {type(url).__name__}')
        try:
            found.update(parse_url(url))
        except ValueError:
            # Without the cause, which may quote from the URL.
            raise ConnectError(
                f'the URL of endpoint {endpoint!r} cannot be read by redis-py; write '
                'redis://user:password@host:port/0 (rediss:// for TLS, unix:// for a socket), with special characters '
                'in user and password as %XX',
                endpoint,
            ) from None
    if 'unix_socket_path' in found:
        found['path'] = found.pop('unix_socket_path')
    tls = found.pop('ssl', False)
    if found.get('path') is not None:
        found['path'] = os.fspath(found['path'])
        kind = 'unix'
    else:
        kind = 'tls' if tls else 'tcp'
    return kind, found.pop('connection_class', None), found


_CLASSES: Mapping[str, type] = {
    'tcp': redis.connection.Connection,
    'tls': redis.connection.SSLConnection,
    'unix': redis.connection.UnixDomainSocketConnection,
}
_ASYNC_CLASSES: Mapping[str, type] = {
    'tcp': redis.asyncio.connection.Connection,
    'tls': redis.asyncio.connection.SSLConnection,
    'unix': redis.asyncio.connection.UnixDomainSocketConnection,
}


def new_connection(endpoint: Hashable, params: dict[str, Any], servers: Servers, *, resets: bool) -> PooledConnection:
    kind, base, found = _split_parameters(endpoint, params, redis.connection.parse_url)
    _check_parameters(found, base, redis.connection.AbstractConnection, asynchronous=False)
    conn: PooledConnection = _pooled_class(PooledConnection, base or _CLASSES[kind])(**found)
    conn.parameters = found
    conn.endpoint = endpoint
    conn.resets = resets
    conn.servers = servers
    conn.generations = servers.generations
    return conn


def new_async_connection(
    endpoint: Hashable, params: dict[str, Any], servers: Servers, *, resets: bool
) -> AsyncPooledConnection:
    kind, base, found = _split_parameters(endpoint, params, redis.asyncio.connection.parse_url)
    _check_parameters(found, base, redis.asyncio.connection.AbstractConnection, asynchronous=True)
    conn: AsyncPooledConnection = _pooled_class(AsyncPooledConnection, base or _ASYNC_CLASSES[kind])(**found)
    conn.parameters = found
    conn.endpoint = endpoint
    conn.resets = resets
    conn.servers = servers
    conn.generations = servers.generations
    return conn


def _check_parameters(params: Mapping[str, Any], base: object, expected_base: type, *, asynchronous: bool) -> None:
    """Refuse what redis-py would take and stumble over later, or would take for the other runtime."""
    where = 'redis.asyncio' if asynchronous else 'redis'
    if base is not None and not (isinstance(base, type) and issubclass(base, expected_base)):
        raise TypeError(f'connection_class: expected a subclass of {where}.Connection or of its kin, got {base!r}')
    for name in ('socket_timeout', 'socket_connect_timeout'):
        seconds = params.get(name)
        if seconds is not None:
            positive_time_limit(name, bounded_seconds(name, seconds))
    retry = params.get('retry')
    if retry is not None:
        call = getattr(retry, 'call_with_retry', None)
        if not callable(call) or inspect.iscoroutinefunction(call) is not asynchronous:
            raise TypeError(f'retry: expected a {where}.retry.Retry, got one of {type(retry)!r}')
    provider = params.get('credential_provider')
    if provider is not None:
        name = 'get_credentials_async' if asynchronous else 'get_credentials'
        if not callable(getattr(provider, name, None)):
            raise TypeError(f'credential_provider: expected a redis.CredentialProvider, got {type(provider).__name__}')
