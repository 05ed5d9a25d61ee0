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
import time
import weakref
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast

from gcpool.common import check_optional_seconds
from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._errors import (
    BAD_PARAMS,
    advice_for_os_error,
    check_source,
    errors_in,
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
from redis.exceptions import AuthorizationError, ExecAbortError
from redis.maint_notifications import MaintNotificationsConfig

if sys.version_info >= (3, 11):
    from asyncio import timeout as timeout_scope
else:
    from gcpool._timeout310 import timeout_scope

__all__ = [
    'BROKEN_CODES',
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

_CHUNK = 65536

_NOT_THROUGH = 'its handshake is not through'

#: Seconds that a server that is not at work needs to end a session that was closed, at the most.
_FAREWELL = 0.1
#: Seconds for which nobody connects in the place of a session that was closed while the server was at work for it.
_LONGEST_FAREWELL = 2.0

#: Error codes after which a connection is useless though it is alive; docs/drivers/redis.md gives the reasons.
BROKEN_CODES = frozenset({'LOADING', 'MASTERDOWN', 'READONLY', 'UNBLOCKED'})

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
        {
            *('CACHING', 'CAPA', 'IMPORT-SOURCE', 'MAINT_NOTIFICATIONS', 'NO-EVICT', 'NO-TOUCH', 'REPLY', 'SETINFO'),
            *('SETNAME', 'TRACKING'),
        }
    ),
    'SCRIPT': frozenset({'DEBUG'}),
}
# What RESET takes back, of these: as Redis 7.0 does it, which leaves NO-EVICT and the reply mode alone. Subscriptions
# are not here: how many messages come before the reply to RESET cannot be counted.
_UNDONE_BY_RESET = frozenset(
    {
        *('ASKING', 'AUTH', 'HELLO', 'READONLY', 'READWRITE', 'RESET'),
        *('CLIENT CACHING', 'CLIENT SETNAME', 'CLIENT TRACKING'),
    }
)
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


def _least(limit: float, other: float | None) -> float:
    return limit if other is None else min(limit, other)


def _end_sending(sock: socket.socket) -> None:
    """Tell the server that no more is sent: it closes the connection, also one on which a command waits."""
    with contextlib.suppress(OSError):
        # Unless it is closed already.
        sock.shutdown(socket.SHUT_WR)


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
    #: Why nobody can have it any more, and what RESET would take back.
    _doubt: str | None = _NOT_THROUGH
    _alteration: str | None = None
    _transaction: str | None = None
    _other_database: str | None = None
    _ended = False
    _process = 0
    #: The commands of the handshake, those that are not answered yet and those that the server has carried out.
    _in_handshake = True
    _handshake_asked: tuple[tuple[Any, ...], ...] = ()
    _handshake: tuple[tuple[Any, ...], ...] = ()
    #: How many replies had been read when its session was last as the handshake made it.
    _received_when_clean = 0
    #: The code of an error reply after which it is useless.
    _useless: str | None = None
    #: Of the server of its endpoint, when it was connected: see _Servers.
    _generation = 0
    #: A second descriptor of a socket that was closed, until the server has closed its side; and whether the server may
    #: be at work for it.
    _farewell: socket.socket | None = None
    _is_busy = False
    # redis-py's client for whoever has the connection now, and what it is a copy of.
    _client: Any = None
    _client_template: Any = None
    #: What it was made with.
    parameters: Mapping[str, Any]
    servers: '_Servers'
    endpoint: Hashable
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

    def _was_read(self, reply: object) -> None:
        self._received += 1
        awaited = self._awaited
        if awaited and awaited[0][0] == self._received:
            self._note_reply(awaited[0][1], reply)
            awaited.popleft()
        if isinstance(reply, redis.RedisError):
            self._note_failure(reply)
        if self._in_handshake and self._handshake_asked:
            done = () if isinstance(reply, redis.RedisError) else self._handshake_asked[:1]
            self._handshake += done
            self._handshake_asked = self._handshake_asked[1:]
        self._unread -= 1

    def _note_failure(self, failure: redis.RedisError) -> None:
        """Take note of an error reply."""
        code = failure.status_code or str(failure).partition(' ')[0]
        if code in self.servers.broken_codes:
            self._useless = code
            self.servers.distrust(self.endpoint, self._generation)

    def _note_all(self, packed: object) -> None:
        if not isinstance(packed, _Packed):
            # How many replies there will be cannot be known.
            self._doubt = 'bytes were sent on it that it has not packed itself'
            return
        if self._in_handshake:
            # What the handshake does is no change.
            self._handshake_asked += tuple(packed.commands)
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
            self._note_alteration(first)
        elif len(words) > 1 and (second := words[1].upper()) in _ALTERS_SESSION_WITH[first]:
            self._note_alteration(f'{first} {second}')

    def _note_alteration(self, command: str) -> None:
        if command in _UNDONE_BY_RESET:
            self._alteration = f'{command} was sent on it'
        else:
            self._doubt = f'{command} was sent on it'

    def _note_reply(self, words: tuple[str, ...], reply: object) -> None:
        first = words[0]
        if isinstance(reply, redis.RedisError):
            # The server has not done it. But an EXEC that it aborts has ended the transaction.
            if first == 'EXEC' and isinstance(reply, ExecAbortError):
                self._transaction = None
            return
        if first == 'EXEC' and isinstance(reply, list):
            for part in reply:
                if isinstance(part, redis.RedisError):
                    self._note_failure(part)
        if first == 'SELECT':
            if self._transaction == 'MULTI':
                # Whether it takes place turns out later.
                self._alteration = 'SELECT was sent on it within a transaction'
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
        self._in_handshake = False
        self._handshake_asked = ()
        self._is_clean()

    def _is_clean(self) -> None:
        """Take note that its session is as the handshake makes it."""
        self._forget_notes()
        self._received_when_clean = self._received

    def _handshake_begins(self) -> None:
        # Also in the midst of one: on a Unix socket redis-py for asyncio goes through it twice.
        self._handshake = self._handshake_asked = ()

    def _session_is_over(self) -> None:
        self._unread = 0
        self._received = 0
        self._doubt = _NOT_THROUGH
        self._in_handshake = True
        self._handshake_begins()
        self._forget_notes()

    def _forget_notes(self) -> None:
        self._awaited = None
        self._alteration = None
        self._transaction = None
        self._other_database = None

    def _about_to_connect(self) -> None:
        if self._ended:
            # Otherwise redis-py would connect again, and nobody would ever close that one.
            raise redis.ConnectionError('the connection was closed by its pool')
        self._process = os.getpid()
        self._useless = None
        # Now: the server that it gets to may be another one later.
        self._generation = self.servers.generation(self.endpoint)

    def _leave(self, sock: Any) -> None:
        """Keep a second descriptor of a socket that is about to be closed, to see when the server has closed it, too.

        :param sock: has ``fileno()``
        """
        # A child process must not end what is its parent's.
        if self._farewell is None and not self._ended and self._process == os.getpid():
            # By a descriptor: an SSLSocket cannot be duplicated.
            self._farewell = socket.socket(fileno=socket.dup(sock.fileno()))
            self._is_busy = bool(self._unread or self._in_send)

    def _see_off(self, farewell: socket.socket, ended: bool) -> None:
        """Let go of a session that was left, or remember that the server still has it."""
        if ended or not self._is_busy:
            farewell.close()
        else:
            self.servers.remember(self.endpoint, farewell)

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
        return self.why_lost(connected) or self._why_altered()

    def why_lost(self, connected: bool) -> str | None:
        """Say why the next user must not get the connection even if RESET is sent on it before."""
        if not connected or self._ended:
            return 'it is closed'
        if self._doubt is not None:
            return self._doubt
        if self._unread or self._in_send:
            return f'{self._unread + self._in_send} replies were not read'
        if self._client is not None and self._client.connection_pool.is_lent:
            return 'its client has it in use: a pipeline that has watched something, or a pubsub, was not closed'
        if self._useless is not None:
            return f'the server has answered {self._useless}'
        if self._generation != self.servers.generation(self.endpoint):
            return "it was made before the endpoint's server answered what one answers that is to be left"
        return None

    def _why_altered(self) -> str | None:
        if self._alteration is not None:
            return self._alteration
        if self._transaction is not None:
            return f'{self._transaction} was sent on it, and no end of the transaction'
        if self._other_database is not None:
            return f'database {self._other_database} is selected'
        return None

    @property
    def is_used(self) -> bool:
        """Whether commands were sent on it since its session was last as the handshake made it."""
        return self._received != self._received_when_clean

    def is_fit_and_idle(self, connected: bool) -> bool:
        """Tell whether the next user may get it, now that nobody has it."""
        # A client that was not taken back, since its release was left out, goes on to use it.
        return self._client is None and self.why_unfit(connected) is None

    def pack_reset(self) -> _Packed:
        """Give the commands that make the session what the handshake made it, to be sent in one piece."""
        packed: _Packed = self.pack_commands([('RESET',), *self._handshake])
        return packed


class _Servers:
    """What is known of the servers behind the endpoints of a manager.

    Behind the name of a database there may be another server after a failover, while the connections to the old one
    live on. What one of them is told makes all that were made before useless, and those only: they are of an older
    generation.
    """

    def __init__(self, broken_codes: Iterable[str]) -> None:
        self.broken_codes = broken_codes
        # Only the endpoints that were distrusted.
        self._generations: dict[Hashable, int] = {}
        # Sessions that were closed, but that the server may still be at work for: where, and until when that counts.
        # Without a lock, which a fork could leave locked: each is taken out by one thread alone.
        self._leaving: dict[socket.socket, tuple[Hashable, float]] = {}
        # Not by __del__: within a cycle the sockets might come first, and warn that nobody has closed them.
        weakref.finalize(self, _close_all, self._leaving)

    def generation(self, endpoint: Hashable) -> int:
        return self._generations.get(endpoint, 0)

    def distrust(self, endpoint: Hashable, generation: int) -> None:
        """Begin a new generation, unless the news come from an old one."""
        # Two threads at once do no harm: they write the same.
        if generation == self.generation(endpoint):
            self._generations[endpoint] = generation + 1

    def remember(self, endpoint: Hashable, farewell: socket.socket, until: float | None = None) -> None:
        """Have whoever connects next wait for the end of a session, so that the server never has more than the pool."""
        self._leaving[farewell] = (endpoint, time.monotonic() + _LONGEST_FAREWELL if until is None else until)

    def take(self, endpoint: Hashable) -> tuple[socket.socket, float] | None:
        """Give a session whose end is to be waited for before one connects, and until when, if there is one."""
        now = time.monotonic()
        for farewell, (where, until) in tuple(self._leaving.items()):
            if until <= now:
                if self._leaving.pop(farewell, None) is not None:
                    farewell.close()
            elif where == endpoint and self._leaving.pop(farewell, None) is not None:
                return farewell, until
        return None


def _close_all(socks: Iterable[socket.socket]) -> None:
    for sock in socks:
        sock.close()


if TYPE_CHECKING:
    _Base = redis.connection.Connection
    _AsyncBase = redis.asyncio.connection.Connection
else:
    _Base = _AsyncBase = object


if TYPE_CHECKING:
    _SocketBase = socket.socket
else:
    _SocketBase = object


class _Bounded(_SocketBase):
    """Goes in front of a class of sockets: with a time at which what is sent and read has to be through.

    A socket's own time limit is one on each read, and begins anew with each byte that the server sends.
    """

    deadline: float | None = None

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
        if left is not None:
            if not left:
                raise TimeoutError('the server did not answer in time')
            timeout = self.gettimeout()
            if timeout is None or timeout > left:
                self.settimeout(left)

    def shutdown(self, how: int) -> None:
        """End what is sent only. redis-py ends both directions before it closes: the server's end would not be seen."""
        # By the base class: an SSLSocket's own takes its encryption away, and another thread may be sending.
        socket.socket.shutdown(self, socket.SHUT_WR)


class _PlainSocket(_Bounded, socket.socket):
    """A socket without TLS."""


class _TlsSocket(_Bounded, ssl.SSLSocket):
    """A socket with TLS."""


def _with_deadline(sock: Any) -> Any:
    """Make it a socket with a deadline, if it is one of Python's."""
    if type(sock) is socket.socket:
        timeout = sock.gettimeout()
        sock = _PlainSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        sock.settimeout(timeout)
    elif type(sock) is ssl.SSLSocket:
        sock.__class__ = _TlsSocket
    return sock


def _sees_end(sock: socket.socket, seconds: float) -> bool:
    """Wait until the server has closed its side of a connection; False if it has not done so in time."""
    deadline = deadline_after(seconds)
    try:
        while left := time_left(deadline):
            sock.settimeout(left)
            if not sock.recv(_CHUNK):
                return True
    except TimeoutError:
        return False
    except OSError:
        # It was reset.
        return True
    return False


async def _sees_end_async(sock: socket.socket, seconds: float) -> bool:
    """The same for asyncio."""
    # By looking again and again: not every event loop can watch any socket, and mostly it has ended after the first.
    deadline = deadline_after(seconds)
    pause = 0.0
    sock.setblocking(False)
    while True:
        try:
            while sock.recv(_CHUNK):
                pass
        except BlockingIOError:
            pass
        except OSError:
            return True
        else:
            return True
        if not (left := time_left(deadline)):
            return False
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 2 or 0.001, 0.016)


class _PooledConnection(_Session, _Base):
    """Goes in front of one of redis-py's classes."""

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
        sock = _with_deadline(sock)
        self._bound(sock)
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
            ended = _sees_end(farewell, _least(until - now, time_left(self._deadline))) or time.monotonic() >= until
            if not ended:
                raise TimeoutError('the server is still at work for a connection that was closed')
        finally:
            if ended:
                farewell.close()
            else:
                self.servers.remember(self.endpoint, farewell, until)

    def _bound(self, sock: Any) -> None:
        if self._deadline is not None and isinstance(sock, _Bounded):
            sock.deadline = max(self._deadline, time.monotonic() + _SHORTEST_EXCHANGE)

    def within(self, timeout: float | None, do: Callable[[], None]) -> None:
        """Call something that sends commands and reads replies, and do not let all of it take longer than that."""
        self._deadline = deadline_after(timeout)
        try:
            self._bound(self._get_socket())
            do()
        finally:
            if self._deadline is not None:
                self._deadline = None
                sock = self._get_socket()
                if isinstance(sock, _Bounded):
                    sock.deadline = None
                    sock.settimeout(self.socket_timeout)

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
            if isinstance(sock, _Bounded):
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
            ended = _sees_end(farewell, _least(_FAREWELL, limit))
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
        if isinstance(sock, _Bounded):
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
        sock = _with_deadline(sock)
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
                ended = await _sees_end_async(farewell, _least(_FAREWELL, limit))
            finally:
                self._see_off(farewell, ended)

    async def _wait_for_another(self) -> None:
        """Wait for the end of a session that the server still has, in whose place this one comes."""
        taken = self.servers.take(self.endpoint)
        if taken is not None:
            farewell, until = taken
            ended = False
            try:
                await _sees_end_async(farewell, until - time.monotonic())
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


def _new_connection(endpoint: Hashable, params: dict[str, Any], servers: _Servers) -> _PooledConnection:
    kind, base, found = _split_parameters(endpoint, params, redis.connection.parse_url)
    _check_parameters(found, base, redis.connection.AbstractConnection, asynchronous=False)
    conn: _PooledConnection = _pooled_class(_PooledConnection, base or _CLASSES[kind])(**found)
    conn.parameters = found
    conn.endpoint = endpoint
    conn.servers = servers
    return conn


def _new_async_connection(endpoint: Hashable, params: dict[str, Any], servers: _Servers) -> _AsyncPooledConnection:
    kind, base, found = _split_parameters(endpoint, params, redis.asyncio.connection.parse_url)
    _check_parameters(found, base, redis.asyncio.connection.AbstractConnection, asynchronous=True)
    conn: _AsyncPooledConnection = _pooled_class(_AsyncPooledConnection, base or _ASYNC_CLASSES[kind])(**found)
    conn.parameters = found
    conn.endpoint = endpoint
    conn.servers = servers
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

    An error reply may tell that a connection is useless though it is alive, such as READONLY after a failover: then it
    is closed when it comes back, as are those of its endpoint that were made before, in whatever order they are next
    served or returned.

    :param endpoints: for each endpoint (a name, chosen freely) a URL such as ``redis://user:password@host:6379/0``
        (``rediss://`` for TLS, ``unix://`` for a Unix socket) or the parameters of :py:class:`redis.Connection`; in
        them also ``url``, ``ssl=True``, ``path`` of a Unix socket, ``connection_class``. Or a function that is given
        the endpoint and returns one of these, for credentials that change; it is asked at each connect, and raises
        KeyError for an endpoint that it does not know.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the socket is asked whether the
        server has closed it, which does not find a server behind a proxy that keeps the connection open.
    :param reset: 'rollback' closes a connection whose session is not what the handshake made it. 'full' sends RESET and
        the commands of the handshake when a connection is returned on which commands were sent, in one round trip, and
        keeps it: whatever these commands have changed reaches nobody. It takes Redis 6.2. What RESET does not undo
        (subscriptions, MONITOR, CLIENT REPLY and NO-EVICT, unread replies) closes the connection with 'full', too.
    :param reset_timeout: seconds that the round trip of 'full' may take, None for what ``socket_timeout`` allows; then
        the connection is closed
    :param broken_codes: the error codes (a reply's first word) after which a connection is useless, in place of
        ``BROKEN_CODES``: LOADING, MASTERDOWN, READONLY, UNBLOCKED
    :raise TypeError: a parameter is of another type
    :raise ValueError: ``reset`` is neither, or ``reset_timeout`` negative or NaN
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        ping: bool = False,
        reset: Literal['rollback', 'full'] = 'rollback',
        reset_timeout: float | None = None,
        broken_codes: Collection[str] = BROKEN_CODES,
    ) -> None:
        check_source(endpoints, 'endpoints', or_callable=True)
        self._endpoints = endpoints
        self._ping = ping
        self._resets = _is_full(reset)
        self._reset_timeout = check_optional_seconds('reset_timeout', reset_timeout)
        self._servers = _Servers(_check_codes(broken_codes))

    def create(self, endpoint: RedisEndpoint, timeout: float | None = None) -> Connection:
        """Connect, once (redis-py's ``retry`` is for the commands), and go through the handshake.

        :param endpoint: a key of ``endpoints``
        :param timeout: seconds that connecting may take, if that is less than ``socket_connect_timeout`` and
            ``socket_timeout`` allow: the former for finding an address that answers, the latter for each wait after
            that. With a limit the host's name is resolved in a thread, which is left behind when the time is over. The
            limit holds however slowly an answer comes in.
        :raise ConnectTimeout: the time is over
        :raise ConnectError: the connection cannot be made; also an instance of redis-py's own error, or for parameters
            that it cannot use of TypeError, ValueError or LookupError
        :raise UnknownEndpoint: the endpoint is not in ``endpoints``
        """
        params = to_params(look_up(self._endpoints, endpoint, 'endpoints'), endpoint, 'endpoints', text_as='url')
        try:
            conn = _new_connection(endpoint, params, self._servers)
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

        Waits until the server has closed it, too, but no longer than 0.1 s: it does so at once, also while a blocking
        command waits, unless a slow one is at work. Then whoever connects to the endpoint within 2 s waits for that.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection; a thread that waits for a reply from it gets ``redis.ConnectionError``
        :param timeout: seconds that this may take at most
        """
        _pooled(conn).end(timeout)

    def check_aliveness(self, endpoint: RedisEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Tell whether a connection is open and nothing is left over on it. Without ``ping`` nothing is sent.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param timeout: seconds that the answer may take with ``ping``; each wait for it ends after ``socket_timeout``
        """
        pooled = _pooled(conn)
        if not pooled.is_fit_and_idle(pooled.is_connected) or not pooled.is_quiet():
            return False
        if self._resets and pooled.is_used:
            # Its release was left out.
            return False
        return not self._ping or pooled.answers(time_to_answer(timeout))

    def on_release(self, endpoint: RedisEndpoint, conn: Connection) -> None:
        """Look at what is known of the connection; nothing is sent unless ``reset`` is 'full'.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :raise DiscardConnection: it is unfit, or could not be reset
        """
        pooled = _pooled(conn)
        _take_back(endpoint, pooled, pooled.is_connected, self._resets)
        if self._resets and pooled.is_used:
            try:
                pooled.reset(self._reset_timeout)
            except redis.RedisError as exc:
                raise _not_reset(endpoint, exc) from exc

    def is_broken(self, endpoint: RedisEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Tell whether the connection is unfit, or ``exc`` is of the kind that one raises that is lost.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param exc: what the user's block raised
        """
        pooled = _pooled(conn)
        return _is_lost(exc) or _why_unfit(pooled, pooled.is_connected, self._resets) is not None


class AsyncRedisConnectionManager(AsyncConnectionManager[RedisEndpoint, AsyncConnection]):
    """Makes connections for asyncio with redis-py. See :py:class:`RedisConnectionManager` for what makes one unfit.

    :param endpoints: as there, but the function may also be a coroutine function
    :param ping: ask the server at each aliveness check (a round trip)
    :param close_timeout: seconds that closing may take to send what is still to be sent (then the connection is
        aborted), and until the server has closed it, too, for which it gets 0.1 s. None for no limit on the former.
    :param reset: as there
    :param reset_timeout: as there
    :param broken_codes: as there
    :raise TypeError: a parameter is of another type
    :raise ValueError: ``close_timeout`` or ``reset_timeout`` is negative or NaN, or ``reset`` none of the two
    """

    def __init__(
        self,
        endpoints: AsyncEndpoints,
        *,
        ping: bool = False,
        close_timeout: float | None = 1.0,
        reset: Literal['rollback', 'full'] = 'rollback',
        reset_timeout: float | None = None,
        broken_codes: Collection[str] = BROKEN_CODES,
    ) -> None:
        check_source(endpoints, 'endpoints', or_callable=True)
        seconds = check_optional_seconds('close_timeout', close_timeout)
        self._endpoints = endpoints
        self._ping = ping
        self._resets = _is_full(reset)
        self._reset_timeout = check_optional_seconds('reset_timeout', reset_timeout)
        self._servers = _Servers(_check_codes(broken_codes))
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
            conn = _new_async_connection(endpoint, params, self._servers)
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
        if self._resets and pooled.is_used:
            # Its release was left out.
            return False
        return not self._ping or await pooled.answers()

    async def on_release(self, endpoint: RedisEndpoint, conn: AsyncConnection) -> None:
        """Look at what is known of the connection; nothing is sent unless ``reset`` is 'full'.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :raise DiscardConnection: it is unfit, or could not be reset
        """
        pooled = _async_pooled(conn)
        _take_back(endpoint, pooled, pooled.is_connected, self._resets)
        if self._resets and pooled.is_used:
            try:
                await pooled.reset(self._reset_timeout)
            except redis.RedisError as exc:
                raise _not_reset(endpoint, exc) from exc

    async def is_broken(self, endpoint: RedisEndpoint, conn: AsyncConnection, exc: BaseException) -> bool:
        """Tell whether the connection is unfit, or ``exc`` is of the kind that one raises that is lost.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param exc: what the user's block raised, also CancelledError
        """
        pooled = _async_pooled(conn)
        return _is_lost(exc) or _why_unfit(pooled, pooled.is_connected, self._resets) is not None


def _is_lost(exc: BaseException) -> bool:
    """Tell whether what a block raised is, or brings along, what a lost connection raises."""
    return any(
        isinstance(error, (redis.ConnectionError, redis.TimeoutError)) and not isinstance(error, _NOT_LOST)
        for error in errors_in(exc)
    )


# Those of redis-py's ConnectionErrors that are replies, or say that a client lends its connection to one at a time.
_NOT_LOST = (
    redis.AuthenticationError,
    AuthorizationError,
    redis.BusyLoadingError,
    redis.MaxConnectionsError,
)


def _why_unfit(conn: _Session, connected: bool, resets: bool) -> str | None:
    return conn.why_lost(connected) if resets else conn.why_unfit(connected)


def _is_full(reset: str) -> bool:
    if reset not in ('rollback', 'full'):
        raise ValueError(f"reset={reset!r}: expected 'rollback' or 'full'")
    return reset == 'full'


def _check_codes(codes: Collection[str]) -> frozenset[str]:
    if isinstance(codes, (str, bytes)) or not isinstance(codes, Collection):
        raise TypeError(f'broken_codes: expected a collection of error codes, got {codes!r}')
    for code in codes:
        if not isinstance(code, str):
            raise TypeError(f'broken_codes: expected error codes as str, got {code!r}')
    return frozenset(codes)


def _not_reset(endpoint: Hashable, exc: redis.RedisError) -> DiscardConnection:
    return DiscardConnection(
        f'the connection to {endpoint!r} could not be reset ({type(exc).__name__}: {exc}): '
        "reset='full' takes RESET of Redis 6.2, and credentials that are still good"
    )


def _pooled(conn: Connection) -> _PooledConnection:
    if not isinstance(conn, _PooledConnection):
        raise TypeError(f'{conn!r} was not made by RedisConnectionManager')
    return conn


def _async_pooled(conn: AsyncConnection) -> _AsyncPooledConnection:
    if not isinstance(conn, _AsyncPooledConnection):
        raise TypeError(f'{conn!r} was not made by AsyncRedisConnectionManager')
    return conn


def _take_back(endpoint: Hashable, conn: _Session, connected: bool, resets: bool) -> None:
    reason = _why_unfit(conn, connected, resets)
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
