# redis-py has hints at half of its methods.
# mypy: allow-untyped-calls
"""Redis connections made by redis-py, for both runtimes.

The connections are redis-py's own (``redis.Connection``, ``SSLConnection``, ``UnixDomainSocketConnection`` and those of
``redis.asyncio``), after their handshake: TLS, AUTH or HELLO, CLIENT SETNAME, SELECT. Only that they count, in
addition, the replies that were not read yet, and note what changes the session, so that the next user is given a
connection in order.

Use one with ``send_command`` and ``read_response``, or with redis-py's client: :py:func:`client_of`,
:py:func:`async_client_of`.
"""

import asyncio
import collections
import contextlib
import copy
import functools
import inspect
import os
import socket
import ssl
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, cast

from gcpool.common import check_optional_seconds
from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._errors import (
    BAD_PARAMS,
    advice_for_os_error,
    check_source,
    look_up,
    look_up_async,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._sockets import connect_tcp, poll_once, shut_down, time_to_answer
from gcpool.contrib.socket_async import close_stream
from gcpool.exceptions import ConnectError, DiscardConnection
from gcpool.managers import AsyncConnectionManager, SyncConnectionManager

try:
    import redis
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.redis needs redis: pip install "gcpool[redis]"', name=exc.name) from exc

if int(redis.__version__.partition('.')[0]) < 8:
    raise ImportError(
        f'gcpool.contrib.redis needs redis >= 8, and finds {redis.__version__}: pip install --upgrade "gcpool[redis]"',
        name='redis',
    )

import redis.asyncio
import redis.asyncio.connection
import redis.connection
from redis.exceptions import ExecAbortError
from redis.maint_notifications import MaintNotificationsConfig

if sys.version_info >= (3, 11):
    from asyncio import timeout as timeout_scope
else:
    from gcpool._timeout310 import timeout_scope

__all__ = [
    'AsyncConnection',
    'AsyncEndpoints',
    'AsyncRedisConnectionManager',
    'Connection',
    'Endpoints',
    'Parameters',
    'RedisConnectionManager',
    'RedisEndpoint',
    'async_client_of',
    'client_of',
]

RedisEndpoint = Hashable
#: A URL, or the parameters of redis-py's connection.
Parameters = str | Mapping[str, Any]
Endpoints = Mapping[Any, Parameters | Callable[[Any], Parameters]] | Callable[[Any], Parameters]
AsyncEndpoints = (
    Mapping[Any, Parameters | Callable[[Any], Parameters | Awaitable[Parameters]]]
    | Callable[[Any], Parameters | Awaitable[Parameters]]
)

# A socket with no time left gets this much: none at all would make it a non-blocking one.
_SHORTEST_TIMEOUT = 0.001
# A limit of 0 is no reason to cut off a server that answers without being waited for.
_SHORTEST_EXCHANGE = 0.05

_PONG = b'+PONG\r\n'

_NOT_THROUGH = 'its handshake is not through'

# What the next user would not expect to find, and what no single command takes back.
_ALTERS_SESSION = frozenset(
    {
        *('ASKING', 'AUTH', 'HELLO', 'HIMPORT', 'MONITOR', 'PSYNC', 'QUIT', 'READONLY', 'READWRITE', 'REPLCONF'),
        *('RESET', 'SYNC'),
        # The number of replies to these depends on how many channels there are.
        *('PSUBSCRIBE', 'PUNSUBSCRIBE', 'SSUBSCRIBE', 'SUBSCRIBE', 'SUNSUBSCRIBE', 'UNSUBSCRIBE'),
    }
)
_ALTERS_SESSION_WITH = {
    'CLIENT': frozenset(
        {'CACHING', 'MAINT_NOTIFICATIONS', 'NO-EVICT', 'NO-TOUCH', 'REPLY', 'SETINFO', 'SETNAME', 'TRACKING'}
    ),
    'SCRIPT': frozenset({'DEBUG'}),
}
# Whether these have changed the session, or have taken back a change, is told by their replies.
_TOLD_BY_REPLY = frozenset({'DISCARD', 'EXEC', 'MULTI', 'SELECT', 'UNWATCH', 'WATCH'})

#: What redis-py raises for parameters that it cannot use, some of them (an encoding) not before it connects.
_BAD_ARGUMENTS = (*BAD_PARAMS, AttributeError, LookupError)


class _Packed(list[Any]):
    """The bytes of some commands, and the commands."""

    __slots__ = ('commands',)

    def __init__(self, chunks: Iterable[Any], commands: list[tuple[Any, ...]]) -> None:
        super().__init__(chunks)
        self.commands = commands


@functools.lru_cache(maxsize=1024)
def _words_that_matter(name: str | bytes) -> tuple[str, ...]:
    """The words of a command's name if the command may change the session, else none."""
    text = name.decode('latin-1') if isinstance(name, bytes) else name
    words = tuple(text.upper().split())
    if not words:
        return ()
    first = words[0]
    if first in _ALTERS_SESSION or first in _TOLD_BY_REPLY or first in _ALTERS_SESSION_WITH:
        return words
    return ()


def _as_text(value: object) -> str:
    return value.decode('latin-1') if isinstance(value, bytes) else str(value)


class _Session:
    """What both kinds of connections know about themselves beyond what redis-py does."""

    # Class attributes, because redis-py's __del__ may come before __init__ is through.
    #: Commands that were sent, less the replies that were read.
    _unread = 0
    #: Commands that are being sent. Apart from the others: sending may begin by connecting anew, which wipes these out.
    _in_send = 0
    #: Replies that were read since it was connected.
    _received = 0
    #: Commands whose replies tell what becomes of the session, each with the number of its reply.
    _awaited: 'collections.deque[tuple[int, tuple[str, ...]]] | None' = None
    _doubt: str | None = _NOT_THROUGH
    _transaction: str | None = None
    _other_database: str | None = None
    _ended = False
    # redis-py's client for whoever has the connection now, and what it is a copy of.
    _client: Any = None
    _client_template: Any = None
    #: What it was made with.
    parameters: Mapping[str, Any]
    db: Any

    def pack_command(self, *args: Any) -> Any:
        base: Any = super()
        return _Packed(base.pack_command(*args), [args])

    def pack_commands(self, commands: Iterable[Any]) -> Any:
        base: Any = super()
        commands = [tuple(command) for command in commands]
        return _Packed(base.pack_commands(commands), commands)

    # Each of these leaves the connection unfit if it is interrupted: it is counted before it is sent, and a reply is
    # taken off last.

    def _about_to_send(self, packed: object) -> int:
        """Count the commands that come next, and give their number."""
        count = len(packed.commands) if isinstance(packed, _Packed) else 1
        self._in_send += count
        return count

    def _was_sent(self, packed: object, count: int) -> None:
        # Only now: it may have connected, and what the handshake did is no change.
        self._note_all(packed)
        self._unread += count
        self._in_send -= count

    def _was_not_sent(self, count: int, connected: bool) -> None:
        # If it is still connected nobody knows how much of them was sent.
        if not connected:
            self._in_send -= count

    def _was_read(self, failure: redis.ResponseError | None = None) -> None:
        self._received += 1
        awaited = self._awaited
        if awaited and awaited[0][0] == self._received:
            self._note_reply(awaited[0][1], failure)
            awaited.popleft()
        self._unread -= 1

    def _note_all(self, packed: object) -> None:
        if not isinstance(packed, _Packed):
            # How many replies there will be cannot be known.
            self._doubt = 'bytes were sent on it that it has not packed itself'
            return
        for number, command in enumerate(packed.commands, self._received + self._unread + 1):
            name = command[0]
            if not isinstance(name, (str, bytes)):
                self._doubt = 'a command was sent on it whose name is neither str nor bytes'
            elif words := _words_that_matter(name):
                self._note(number, (*words, *map(_as_text, command[1:])))

    def _note(self, number: int, words: tuple[str, ...]) -> None:
        first = words[0]
        if first in _TOLD_BY_REPLY:
            if number <= self._received:
                # By another task, while this one was still sending.
                self._doubt = f'the reply to {first} was read before it was awaited'
                return
            if self._awaited is None:
                self._awaited = collections.deque()
            self._awaited.append((number, words))
        elif first in _ALTERS_SESSION:
            self._doubt = f'{first} was sent on it'
        elif len(words) > 1 and (second := words[1].upper()) in _ALTERS_SESSION_WITH[first]:
            self._doubt = f'{first} {second} was sent on it'

    def _note_reply(self, words: tuple[str, ...], failure: redis.ResponseError | None) -> None:
        first = words[0]
        if failure is not None:
            # The server has not done it. But an EXEC that it aborts has ended the transaction.
            if first == 'EXEC' and isinstance(failure, ExecAbortError):
                self._transaction = None
        elif first == 'SELECT':
            if self._transaction == 'MULTI':
                # Whether it takes place turns out later.
                self._doubt = 'SELECT was sent on it within a transaction'
            else:
                database = ' '.join(words[1:])
                self._other_database = None if database == str(self.db or 0) else database
        elif first == 'MULTI':
            self._transaction = first
        elif first == 'WATCH':
            self._transaction = self._transaction or first
        elif first != 'UNWATCH' or self._transaction == 'WATCH':
            self._transaction = None

    def _session_begins(self, connection: object) -> None:
        # redis-py calls it when the handshake is through, which changes the session as it should.
        self._doubt = None
        self._forget_notes()

    def _session_is_over(self) -> None:
        self._unread = 0
        self._received = 0
        self._doubt = _NOT_THROUGH
        self._forget_notes()

    def _forget_notes(self) -> None:
        self._awaited = None
        self._transaction = None
        self._other_database = None

    def _check_that_it_may_connect(self) -> None:
        if self._ended:
            # Otherwise redis-py would connect again, and nobody would ever close that one.
            raise redis.ConnectionError('the connection was closed by its pool')

    def client(self, kind: Callable[..., Any], pool_kind: Callable[..., Any]) -> Any:
        """Give redis-py's client for whoever has the connection now."""
        if self._client is None:
            if self._client_template is None:
                self._client_template = kind(connection_pool=pool_kind(self))
            # Making one takes longer than a command does.
            client = copy.copy(self._client_template)
            client.connection_pool = pool_kind(self)
            client.response_callbacks = copy.copy(client.response_callbacks)
            self._client = client
        return self._client

    def take_client_back(self) -> None:
        """Let a client that its user has kept not use the connection, which is somebody else's next."""
        if self._client is not None:
            self._client.connection_pool.is_given_back = True
            self._client = None

    def why_unfit(self, connected: bool) -> str | None:
        """Say why the next user must not get the connection, as far as can be known without asking the server."""
        if not connected or self._ended:
            return 'it is closed'
        if self._doubt is not None:
            return self._doubt
        if self._unread or self._in_send:
            return f'{self._unread + self._in_send} replies were not read'
        if self._transaction is not None:
            return f'{self._transaction} was sent on it, and no end of the transaction'
        if self._other_database is not None:
            return f'database {self._other_database} is selected'
        if self._client is not None and self._client.connection_pool.is_lent:
            return 'its client has it in use: a pipeline that has watched something, or a pubsub, was not closed'
        return None

    def is_fit_and_idle(self, connected: bool) -> bool:
        """Tell whether the next user may get it, now that nobody has it."""
        # A client that was not taken back, since its release was left out, goes on to use it.
        return self._client is None and self.why_unfit(connected) is None


if TYPE_CHECKING:
    _Base = redis.connection.Connection
    _AsyncBase = redis.asyncio.connection.Connection
else:
    _Base = _AsyncBase = object


class _CutOff:
    """Shuts a socket down when a time is over, unless it is ended before.

    A socket's own time limit is one on each read, and begins anew with each byte that the server sends.
    """

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        #: Whether the time was over.
        self.happened = False
        self._sock: socket.socket | None = sock
        # Not a Lock: a handler of a signal may dispose of the connection.
        self._lock = threading.RLock()
        timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._shut_down)
        timer.daemon = True
        self._timer: threading.Timer | None = timer
        # The interpreter shuts down, or there are too many threads: the limits on each read are better than none.
        with contextlib.suppress(RuntimeError):
            timer.start()

    def _shut_down(self) -> None:
        with self._lock:
            if self._sock is not None:
                self.happened = True
                shut_down(self._sock)

    def end(self) -> None:
        """Have it not happen any more. The descriptor may be somebody else's as soon as the socket is closed."""
        with self._lock:
            # The timer refers to this object.
            timer, self._timer, self._sock = self._timer, None, None
        if timer is not None:
            timer.cancel()


class _PooledConnection(_Session, _Base):
    """Goes in front of one of redis-py's classes."""

    _deadline: float | None = None
    _connecting = False
    _cut_off: _CutOff | None = None
    _watch_reply = False

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
        self._connecting = True
        try:
            sock = super()._connect()
        finally:
            self._connecting = False
        try:
            self._cut_off_at_deadline(sock)
        except BaseException:
            sock.close()
            raise
        return sock

    def _cut_off_at_deadline(self, sock: socket.socket | None) -> None:
        left = time_left(self._deadline)
        if left is not None and isinstance(sock, socket.socket):
            self._cut_off = _CutOff(sock, max(left, _SHORTEST_EXCHANGE))

    def _bound_socket(self) -> None:
        if self._deadline is not None:
            sock = self._get_socket()
            if sock is not None:
                sock.settimeout(self._less_than_left(self.socket_timeout))

    def _cut_off_if_in_pieces(self) -> None:
        # A thread for each ping would cost more than the ping.
        self._watch_reply = False
        sock = self._get_socket()
        if isinstance(sock, ssl.SSLSocket) or (
            sock is not None and len(sock.recv(len(_PONG), socket.MSG_PEEK)) < len(_PONG)
        ):
            self._cut_off_at_deadline(sock)

    def within(self, timeout: float | None, do: Callable[[], None], *, is_ping: bool = False) -> None:
        """Call something that sends commands and reads replies, and do not let all of it take longer than that.

        :param is_ping: its one reply is short, and mostly comes in one piece
        """
        self._deadline = deadline_after(timeout)
        try:
            if is_ping:
                self._watch_reply = self._deadline is not None
            else:
                self._cut_off_at_deadline(self._get_socket())
            try:
                do()
            except (redis.RedisError, OSError) as exc:
                if self._end_cut_off():
                    raise redis.TimeoutError('the server did not answer in time') from exc
                raise
            if self._end_cut_off():
                raise redis.TimeoutError('the server did not answer in time')
        finally:
            self._watch_reply = False
            self._end_cut_off()
            self._cut_off = None
            if self._deadline is not None:
                self._deadline = None
                sock = self._get_socket()
                if sock is not None:
                    sock.settimeout(self.socket_timeout)

    def _end_cut_off(self) -> bool:
        cut_off = self._cut_off
        if cut_off is None:
            return False
        cut_off.end()
        return cut_off.happened

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        self._check_that_it_may_connect()
        super().connect_check_health(*args, **kwargs)

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        try:
            self._end_cut_off()
            sock: socket.socket | None = self._sock
            if sock is not None and self.pid == os.getpid():
                # Another thread may be sending, and redis-py's way first takes the encryption away.
                shut_down(sock)
            super().disconnect(*args, **kwargs)
        finally:
            self._session_is_over()

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        self.send_packed_command(self.pack_command(*args), check_health=kwargs.get('check_health', True))

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        count = self._about_to_send(command)
        try:
            self._bound_socket()
            super().send_packed_command(command, check_health)
        except BaseException:
            self._was_not_sent(count, self.is_connected)
            raise
        self._was_sent(command, count)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        self._bound_socket()
        if self._watch_reply:
            self._cut_off_if_in_pieces()
        try:
            response = super().read_response(*args, **kwargs)
        except redis.ResponseError as exc:
            self._was_read(exc)
            raise
        except BaseException as exc:
            if self._ended and isinstance(exc, Exception) and not isinstance(exc, redis.RedisError):
                # Another thread has taken the parser away in the midst of it.
                raise redis.ConnectionError('the connection was closed by its pool') from exc
            if self.is_connected:
                self._doubt = 'reading a reply from it failed'
            raise
        self._was_read()
        return response

    def end(self) -> None:
        """Close it for good. Never waits."""
        self._ended = True
        self._client = self._client_template = None
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
            self.within(timeout, self._send_ping, is_ping=True)
        except (redis.RedisError, OSError):
            self.disconnect()
            return False
        return True


class _TcpConnection(redis.connection.Connection):
    """Goes between redis-py's TCP connection and its subclasses, with one limit on all that connecting takes."""

    def _connect(self) -> Any:
        deadline = deadline_after(self.socket_connect_timeout)
        sock = connect_tcp(self.host, self.port, deadline, family=self.socket_type, prepare=self._prepare)
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


class _AsyncPooledConnection(_Session, _AsyncBase):
    """Goes in front of one of redis-py's classes for asyncio."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_connect_callback(self._session_begins)

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        self._check_that_it_may_connect()
        await super().connect_check_health(*args, **kwargs)

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        writer = self._writer
        try:
            await super().disconnect(*args, **kwargs)
        finally:
            self._session_is_over()
            if writer is not None:
                # redis-py does not always wait until it is closed, and a server that takes nothing of what is still to
                # be sent would keep it open for good.
                writer.transport.abort()

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
        except BaseException:
            if self.is_connected:
                self._doubt = 'reading a reply from it failed'
            raise
        if response is None and timeout is not None:
            # A reply, or redis-py's way to say that there was none in time.
            self._doubt = 'a reply may not have come in time'
        self._was_read()
        return response

    async def on_connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        # The handshake.
        await self._in_time(functools.partial(super().on_connect_check_health, *args, **kwargs))

    async def _in_time(self, do: Callable[[], Awaitable[None]]) -> None:
        limit = self.socket_timeout
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
            self.socket_timeout = limit

    async def end(self, timeout: float) -> None:
        """Close it for good: abort it if that takes more than ``timeout`` seconds."""
        self._ended = True
        self._client = self._client_template = None
        try:
            if self._reader is not None and self._writer is not None:
                await close_stream((self._reader, self._writer), timeout)
        finally:
            await self.disconnect(nowait=True)

    async def abort(self) -> None:
        """Close it for good, and at once."""
        self._ended = True
        if self._writer is not None:
            self._writer.transport.abort()
        await self.disconnect(nowait=True)

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
        return True


#: One of redis-py's connections that knows whether it is fit for the next user.
Connection = _PooledConnection
#: The same for asyncio.
AsyncConnection = _AsyncPooledConnection


@functools.cache
def _pooled_class(mixin: type, base: type) -> type:
    bases = [mixin, base]
    if issubclass(base, redis.connection.Connection):
        bases.append(_TcpConnection)
        if base is redis.connection.Connection:
            bases.remove(base)
    return type(f'Pooled{base.__name__}', tuple(bases), {'__module__': __name__})


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


def _new_connection(endpoint: Hashable, params: dict[str, Any]) -> _PooledConnection:
    kind, base, found = _split_parameters(endpoint, params, redis.connection.parse_url)
    _check_parameters(found, base, redis.connection.AbstractConnection, asynchronous=False)
    conn: _PooledConnection = _pooled_class(_PooledConnection, base or _CLASSES[kind])(**found)
    conn.parameters = found
    return conn


def _new_async_connection(endpoint: Hashable, params: dict[str, Any]) -> _AsyncPooledConnection:
    kind, base, found = _split_parameters(endpoint, params, redis.asyncio.connection.parse_url)
    _check_parameters(found, base, redis.asyncio.connection.AbstractConnection, asynchronous=True)
    conn: _AsyncPooledConnection = _pooled_class(_AsyncPooledConnection, base or _ASYNC_CLASSES[kind])(**found)
    conn.parameters = found
    return conn


def _check_parameters(params: Mapping[str, Any], base: object, expected_base: type, *, asynchronous: bool) -> None:
    """Refuse what redis-py would take and stumble over later, or would take for the other runtime."""
    where = 'redis.asyncio' if asynchronous else 'redis'
    if base is not None and not (isinstance(base, type) and issubclass(base, expected_base)):
        raise TypeError(f'connection_class: expected a subclass of {where}.Connection or of its kin, got {base!r}')
    for name in ('socket_timeout', 'socket_connect_timeout'):
        seconds = check_optional_seconds(name, params.get(name))
        if seconds is not None and not 0 < seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f'{name}={seconds:g}: expected seconds, more than 0, or None for no limit')
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


def _raise_error(endpoint: Hashable, exc: redis.RedisError, timeout: float | None) -> NoReturn:
    # What redis-py has made its own error of: it names it nowhere else.
    origin = exc.__cause__ or exc.__context__
    if isinstance(exc, redis.TimeoutError):
        raise_connect_timeout(endpoint, exc, timeout)
    if isinstance(exc, redis.AuthenticationError):
        advice = 'check user name and password, and whether the server wants any'
    elif isinstance(exc, redis.BusyLoadingError):
        advice = 'the server is loading its data: try again when it is through'
    elif 'max number of clients' in str(exc):
        advice = "the server has as many clients as it takes: lower the pools' sizes, or raise its maxclients"
    elif isinstance(exc, redis.ResponseError):
        advice = 'check the number of the database, and what the user may do'
    elif isinstance(origin, ssl.SSLError):
        advice = 'check that the server speaks TLS there, and that its certificate is trusted and names the host'
    elif isinstance(origin, OSError):
        advice = advice_for_os_error(origin)
    elif isinstance(exc.__cause__, BAD_PARAMS):
        advice = 'check its entry in endpoints'
    else:
        advice = 'check that what listens there is a Redis server, and whether it wants TLS (rediss://)'
    raise_connect_error(endpoint, exc, advice)


class RedisConnectionManager(SyncConnectionManager[RedisEndpoint, Connection]):
    """Makes connections for threads with redis-py.

    A connection is unfit, and its pool closes it, when the server has closed it, when replies were not read, and when
    its session is not what the handshake made it: a transaction is open (MULTI, WATCH), another database is selected,
    or a command was sent that no other takes back (SUBSCRIBE, MONITOR, CLIENT REPLY, AUTH, RESET and the like). Also
    when a pipeline or a pubsub of its client (:py:func:`client_of`) still has it, or, once it is idle, the client
    itself, because its release was left out.

    :param endpoints: for each endpoint (a name, chosen freely) a URL such as ``redis://user:password@host:6379/0``
        (``rediss://`` for TLS, ``unix://`` for a Unix socket) or the parameters of :py:class:`redis.Connection`; in
        them also ``url``, ``ssl=True``, ``path`` of a Unix socket, ``connection_class``. Or a function that is given
        the endpoint and returns one of these, for credentials that change; it is asked at each connect, and raises
        KeyError for an endpoint that it does not know.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the socket is asked whether the
        server has closed it, which does not find a server behind a proxy that keeps the connection open.
    :raise TypeError: ``endpoints`` is neither a mapping nor callable
    """

    def __init__(self, endpoints: Endpoints, *, ping: bool = False) -> None:
        check_source(endpoints, 'endpoints', or_callable=True)
        self._endpoints = endpoints
        self._ping = ping

    def create(self, endpoint: RedisEndpoint, timeout: float | None = None) -> Connection:
        """Connect, once (redis-py's ``retry`` is for the commands), and go through the handshake.

        :param endpoint: a key of ``endpoints``
        :param timeout: seconds that connecting may take, if that is less than ``socket_connect_timeout`` and
            ``socket_timeout`` allow: the former for finding an address that answers, the latter for each wait after
            that. With a limit the host's name is resolved in a thread, which is left behind when the time is over, and
            the connection is cut off then, however slowly an answer still comes in.
        :raise ConnectTimeout: the time is over
        :raise ConnectError: the connection cannot be made; also an instance of redis-py's own error, or for parameters
            that it cannot use of TypeError, ValueError or LookupError
        :raise UnknownEndpoint: the endpoint is not in ``endpoints``
        """
        params = to_params(look_up(self._endpoints, endpoint, 'endpoints'), endpoint, 'endpoints', text_as='url')
        try:
            conn = _new_connection(endpoint, params)
            try:
                conn.within(timeout, functools.partial(conn.connect_check_health, retry_socket_connect=False))
            except BaseException:
                conn.end()
                raise
        except redis.RedisError as exc:
            _raise_error(endpoint, exc, timeout)
        except _BAD_ARGUMENTS as exc:
            raise_bad_params(endpoint, exc, 'endpoints')
        return conn

    def dispose(self, endpoint: RedisEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection. It will not connect again by itself, as redis-py's connections otherwise do.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection; a thread that waits for a reply from it gets ``redis.ConnectionError``
        :param timeout: not needed, this never waits
        """
        _pooled(conn).end()

    def check_aliveness(self, endpoint: RedisEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Tell whether a connection is open and nothing is left over on it. Without ``ping`` nothing is sent.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param timeout: seconds that the answer may take with ``ping``; each wait for it ends after ``socket_timeout``
        """
        pooled = _pooled(conn)
        if not pooled.is_fit_and_idle(pooled.is_connected) or not pooled.is_quiet():
            return False
        return not self._ping or pooled.answers(time_to_answer(timeout))

    def on_release(self, endpoint: RedisEndpoint, conn: Connection) -> None:
        """Look at what is known of the connection; nothing is sent.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :raise DiscardConnection: it is unfit
        """
        pooled = _pooled(conn)
        _take_back(endpoint, pooled, pooled.is_connected)

    def is_broken(self, endpoint: RedisEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Tell whether the connection is unfit, or ``exc`` is of the kind that one raises that is lost.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param exc: what the user's block raised
        """
        pooled = _pooled(conn)
        return isinstance(exc, _LOST) or pooled.why_unfit(pooled.is_connected) is not None


class AsyncRedisConnectionManager(AsyncConnectionManager[RedisEndpoint, AsyncConnection]):
    """Makes connections for asyncio with redis-py. See :py:class:`RedisConnectionManager` for what makes one unfit.

    :param endpoints: as there, but the function may also be a coroutine function
    :param ping: ask the server at each aliveness check (a round trip)
    :param close_timeout: seconds that closing may take to send what is still to be sent; then the connection is
        aborted. None for no limit.
    :raise TypeError: a parameter is of another type
    :raise ValueError: ``close_timeout`` is negative or NaN
    """

    def __init__(self, endpoints: AsyncEndpoints, *, ping: bool = False, close_timeout: float | None = 1.0) -> None:
        check_source(endpoints, 'endpoints', or_callable=True)
        seconds = check_optional_seconds('close_timeout', close_timeout)
        self._endpoints = endpoints
        self._ping = ping
        # Not every event loop takes inf.
        self._close_timeout = threading.TIMEOUT_MAX if seconds is None else min(seconds, threading.TIMEOUT_MAX)

    async def create(self, endpoint: RedisEndpoint) -> AsyncConnection:
        """Connect, once (redis-py's ``retry`` is for the commands), and go through the handshake.

        :param endpoint: a key of ``endpoints``
        :raise ConnectTimeout: redis-py's ``socket_connect_timeout``, or for the handshake ``socket_timeout``, is over
        :raise ConnectError: the connection cannot be made; also an instance of redis-py's own error, or for parameters
            that it cannot use of TypeError, ValueError or LookupError
        :raise UnknownEndpoint: the endpoint is not in ``endpoints``
        """
        found = await look_up_async(self._endpoints, endpoint, 'endpoints')
        params = to_params(found, endpoint, 'endpoints', text_as='url')
        try:
            conn = _new_async_connection(endpoint, params)
            try:
                await conn.connect_check_health(retry_socket_connect=False)
            except BaseException:
                await conn.abort()
                raise
        except redis.RedisError as exc:
            _raise_error(endpoint, exc, None)
        except _BAD_ARGUMENTS as exc:
            raise_bad_params(endpoint, exc, 'endpoints')
        return conn

    async def dispose(self, endpoint: RedisEndpoint, conn: AsyncConnection) -> None:
        """Close a connection; abort it if that takes too long. It will not connect again by itself.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection; a task that waits for a reply from it gets ``redis.ConnectionError``
        """
        await _async_pooled(conn).end(self._close_timeout)

    async def check_aliveness(self, endpoint: RedisEndpoint, conn: AsyncConnection) -> bool:
        """Tell whether a connection is open and nothing is left over on it. Without ``ping`` nothing is sent.

        Cancelled half-way, as by ``check_timeout``, it leaves the connection closed.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        """
        pooled = _async_pooled(conn)
        if not pooled.is_fit_and_idle(pooled.is_connected) or not await pooled.is_quiet():
            return False
        return not self._ping or await pooled.answers()

    async def on_release(self, endpoint: RedisEndpoint, conn: AsyncConnection) -> None:
        """Look at what is known of the connection; nothing is sent.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :raise DiscardConnection: it is unfit
        """
        pooled = _async_pooled(conn)
        _take_back(endpoint, pooled, pooled.is_connected)

    async def is_broken(self, endpoint: RedisEndpoint, conn: AsyncConnection, exc: BaseException) -> bool:
        """Tell whether the connection is unfit, or ``exc`` is of the kind that one raises that is lost.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param exc: what the user's block raised, also CancelledError
        """
        pooled = _async_pooled(conn)
        return isinstance(exc, _LOST) or pooled.why_unfit(pooled.is_connected) is not None


_LOST = (redis.ConnectionError, redis.TimeoutError)


def _pooled(conn: Connection) -> _PooledConnection:
    if not isinstance(conn, _PooledConnection):
        raise TypeError(f'{conn!r} was not made by RedisConnectionManager')
    return conn


def _async_pooled(conn: AsyncConnection) -> _AsyncPooledConnection:
    if not isinstance(conn, _AsyncPooledConnection):
        raise TypeError(f'{conn!r} was not made by AsyncRedisConnectionManager')
    return conn


def _take_back(endpoint: Hashable, conn: _Session, connected: bool) -> None:
    reason = conn.why_unfit(connected)
    if reason is not None:
        raise DiscardConnection(f'the connection to {endpoint!r} is unfit: {reason}')
    conn.take_client_back()


class _OneConnection(redis.ConnectionPool):
    """What a client of redis-py takes for its pool."""

    def __init__(self, conn: _PooledConnection) -> None:
        super().__init__(
            connection_class=type(conn),
            max_connections=1,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **conn.parameters,
        )
        self._conn = weakref.ref(conn)
        self.is_lent = self.is_given_back = False

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        conn = self._conn()
        _check_that_it_may_be_lent(conn, self)
        self.is_lent = True
        return conn

    def release(self, connection: Any) -> None:
        self.is_lent = False

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Leave the connection to its pool."""


class _OneAsyncConnection(redis.asyncio.ConnectionPool):
    """What a client of redis-py for asyncio takes for its pool."""

    def __init__(self, conn: _AsyncPooledConnection) -> None:
        super().__init__(connection_class=type(conn), max_connections=1, **conn.parameters)
        self._conn = weakref.ref(conn)
        self.is_lent = self.is_given_back = False

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        conn = self._conn()
        _check_that_it_may_be_lent(conn, self)
        self.is_lent = True
        return conn

    async def release(self, connection: Any) -> None:
        self.is_lent = False

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Leave the connection to its pool."""


def _check_that_it_may_be_lent(conn: _Session | None, lender: _OneConnection | _OneAsyncConnection) -> None:
    if conn is None:
        raise redis.ConnectionError('the connection was closed by its pool')
    if lender.is_given_back:
        raise redis.ConnectionError('the connection was given back to its pool, and this client with it')
    if lender.is_lent:
        raise redis.MaxConnectionsError(
            'this client has one connection, which its pipeline with WATCH or its pubsub holds: use them one at a time'
        )


def client_of(conn: Connection) -> redis.Redis:
    """Give a client of redis-py that uses the one connection.

    ``client_of(conn).get('key')``. For as long as the connection is acquired, and for one thread. Pipelines work; a
    pubsub does, too, but leaves the connection unfit. Closing the client is not needed and does nothing.

    :param conn: a connection made by :py:class:`RedisConnectionManager`
    :return: the same client each time, until the connection is given back; from then on that one raises
        ``redis.ConnectionError``
    """
    return cast('redis.Redis', _pooled(conn).client(redis.Redis, _OneConnection))


def async_client_of(conn: AsyncConnection) -> redis.asyncio.Redis:
    """Give a client of redis-py for asyncio that uses the one connection.

    ``await async_client_of(conn).get('key')``. For as long as the connection is acquired, and for one task at a time.
    Pipelines work; a pubsub does, too, but leaves the connection unfit. Closing the client is not needed and does
    nothing.

    :param conn: a connection made by :py:class:`AsyncRedisConnectionManager`
    :return: the same client each time, until the connection is given back; from then on that one raises
        ``redis.ConnectionError``
    """
    return cast('redis.asyncio.Redis', _async_pooled(conn).client(redis.asyncio.Redis, _OneAsyncConnection))
