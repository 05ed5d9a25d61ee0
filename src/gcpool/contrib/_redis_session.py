# redis-py has type hints for half of its methods.
# mypy: allow-untyped-calls
"""What is known of a Redis session beyond what redis-py knows: whether it is as the handshake left it."""

import collections
import copy
import functools
import os
import socket
import time
import weakref
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Any

import redis
from redis.exceptions import ExecAbortError

from gcpool.contrib._generations import Generations
from gcpool.contrib._goodbye import hold_socket

__all__ = ['BROKEN_CODES', 'FAREWELL', 'Packed', 'Servers', 'Session', 'least', 'no_attribute']

_NOT_THROUGH = 'its handshake is not complete'

#: Seconds for which no new session replaces one that was closed while a command was running.
_LONGEST_FAREWELL = 2.0

#: Maximum number of seconds in which a server that is not busy ends a closed session.
FAREWELL = 0.1

#: Error codes that make a connection useless although it is alive; docs/drivers/redis.md gives the reasons.
BROKEN_CODES = frozenset({'LOADING', 'MASTERDOWN', 'READONLY', 'UNBLOCKED'})

# Commands whose effect the next user would not expect, and no single command undoes.
_ALTERS_SESSION = frozenset(
    {
        *('ASKING', 'AUTH', 'HELLO', 'HIMPORT', 'MONITOR', 'PSYNC', 'QUIT', 'READONLY', 'READWRITE', 'REPLCONF'),
        *('RESET', 'SYNC'),
        # The number of replies to these depends on the number of channels.
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
# Those of them that RESET undoes: as in Redis 7.0, which leaves NO-EVICT and the reply mode alone. Without
# subscriptions, because it is unknown how many messages come before the reply to RESET.
_UNDONE_BY_RESET = frozenset(
    {
        *('ASKING', 'AUTH', 'HELLO', 'READONLY', 'READWRITE', 'RESET'),
        *('CLIENT CACHING', 'CLIENT SETNAME', 'CLIENT TRACKING'),
    }
)
# The replies to these show whether they have changed the session, or have undone a change.
_TOLD_BY_REPLY = frozenset({'DISCARD', 'EXEC', 'MULTI', 'SELECT', 'UNWATCH', 'WATCH'})


def least(limit: float, other: float | None) -> float:
    """Return the shorter of two time limits; the second may be None."""
    return limit if other is None else min(limit, other)


class Packed(list[Any]):
    """The bytes of some commands, and the commands."""

    __slots__ = ('commands',)

    def __init__(self, chunks: Iterable[Any], commands: list[tuple[Any, ...]]) -> None:
        super().__init__(chunks)
        self.commands = commands


@functools.lru_cache(maxsize=1024)
def _words_that_matter(name: str | bytes) -> tuple[str, ...]:
    """Return the words of a command's name if the command may change the session, otherwise none."""
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


def no_attribute(conn: object, name: str, client_class: type, client_of: str) -> AttributeError:
    """Return the error for an attribute that a connection does not have.

    :param conn: the connection
    :param name: the name of the attribute
    :param client_class: if this has it, the message says how to get a client
    :param client_of: the function that makes a client from the connection
    """
    hint = ''
    if not name.startswith('_') and hasattr(client_class, name):
        hint = f': expected gcpool.contrib.redis.{client_of}(conn).{name}, because this is a connection, not a client'
    return AttributeError(f'{type(conn).__name__!r} object has no attribute {name!r}{hint}', name=name, obj=conn)


class Session:
    """What both kinds of connections know about themselves beyond what redis-py knows."""

    # Class attributes, because redis-py's __del__ may run before __init__ has finished.
    #: Commands that were sent, less the replies that were read.
    _unread = 0
    #: Commands that are being sent. Counted separately, because sending may begin by reconnecting, which resets the
    #: other counts.
    _in_send = 0
    #: Replies that were read since the connect.
    _received = 0
    #: Commands whose replies show what happens to the session, each with the number of its reply.
    _awaited: 'collections.deque[tuple[int, tuple[str, ...]]] | None' = None
    #: Why the connection can no longer be served.
    _doubt: str | None = _NOT_THROUGH
    _transaction: str | None = None
    _other_database: str | None = None
    _ended = False
    _process = 0
    #: The commands of the handshake: those not answered yet, and those that the server has executed.
    _in_handshake = True
    _handshake_asked: tuple[tuple[Any, ...], ...] = ()
    _handshake: tuple[tuple[Any, ...], ...] = ()
    #: How many replies had been read when the session was last as the handshake left it.
    _received_when_clean = 0
    #: The generation of the endpoint at the connect: see Generations.
    _generation = 0
    #: A second descriptor of a closed socket, kept until the server has closed its side; and whether the server may be
    #: running a command.
    _farewell: socket.socket | None = None
    _is_busy = False
    # Polls the socket: see gcpool.contrib._sockets.poller_for.
    _poll: Callable[[int], object] | None = None
    # redis-py's client for the current user of the connection, and the client that it is a copy of.
    _client: Any = None
    _client_template: Any = None
    #: The parameters that it was created with.
    parameters: Mapping[str, Any]
    #: Whether RESET is sent before the next user gets the connection, if this user has sent any command.
    resets: bool
    servers: 'Servers'
    generations: Generations
    endpoint: Hashable
    db: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        driver: Any = self
        driver.register_connect_callback(self._session_begins)

    def belongs_to(
        self, servers: 'Servers', endpoint: Hashable, parameters: Mapping[str, Any], *, resets: bool
    ) -> None:
        """Set the endpoint and the purpose of a new connection."""
        self.servers = servers
        self.generations = servers.generations
        self.endpoint = endpoint
        self.parameters = parameters
        self.resets = resets

    def pack_command(self, *args: Any) -> Any:
        base: Any = super()
        return Packed(base.pack_command(*args), [args])

    def pack_commands(self, commands: Iterable[Any]) -> Any:
        base: Any = super()
        commands = [tuple(command) for command in commands]
        return Packed(base.pack_commands(commands), commands)

    # If interrupted, each of these methods leaves the connection unfit: a command is counted before it is sent, and a
    # reply is counted last.

    def _about_to_send(self, packed: object) -> int:
        """Count the commands that come next, and return their number."""
        count = len(packed.commands) if isinstance(packed, Packed) else 1
        self._in_send += count
        return count

    def _was_sent(self, packed: object, count: int) -> None:
        # Only now: sending may have connected, and what the handshake does is not a change.
        self._note_all(packed)
        self._unread += count
        self._in_send -= count

    def _was_not_sent(self, count: int, connected: bool) -> None:
        # If the connection is still open, it is unknown how much was sent.
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

    def _was_not_read(self, exc: BaseException, connected: bool) -> None:
        if isinstance(exc, redis.RedisError):
            # redis-py treats some error replies as lost connections.
            self._note_failure(exc)
        if connected:
            self._doubt = 'reading a reply from it failed'

    def _note_failure(self, failure: redis.RedisError) -> None:
        """Record an error reply."""
        code = failure.status_code or str(failure).partition(' ')[0]
        if code in self.servers.broken_codes:
            self._doubt = f'the server has answered {code}'
            self.generations.retire(self.endpoint, self._generation)

    def _note_all(self, packed: object) -> None:
        if not isinstance(packed, Packed):
            # The number of replies is unknown.
            self._doubt = 'bytes were sent on it that it did not pack itself'
            return
        if self._in_handshake:
            # What the handshake does is not a change.
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
                # By another task, while this task was still sending.
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
        if not (self.resets and command in _UNDONE_BY_RESET):
            self._doubt = f'{command} was sent on it'

    def _note_reply(self, words: tuple[str, ...], reply: object) -> None:
        first = words[0]
        if isinstance(reply, redis.RedisError):
            # The server has not executed the command. But an EXEC that it aborts has ended the transaction.
            if first == 'EXEC' and isinstance(reply, ExecAbortError):
                self._transaction = None
            return
        if first == 'EXEC' and isinstance(reply, list):
            for part in reply:
                if isinstance(part, redis.RedisError):
                    self._note_failure(part)
        if first == 'SELECT':
            if self._transaction == 'MULTI':
                # Whether it is executed is known later.
                if not self.resets:
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
        # redis-py calls this after the handshake, whose changes to the session are intended.
        self._doubt = None
        self._in_handshake = False
        self._handshake_asked = ()
        self._is_clean()

    def _is_clean(self) -> None:
        """Record that the session is as the handshake left it."""
        self._forget_notes()
        self._received_when_clean = self._received

    def _handshake_begins(self) -> None:
        # Also during a handshake: on a Unix socket, redis-py for asyncio does it twice.
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
        self._transaction = None
        self._other_database = None

    def _about_to_connect(self) -> None:
        if self._ended:
            # Otherwise redis-py would connect again, and nothing would ever close the new connection.
            raise redis.ConnectionError('the connection was closed by its pool')
        self._process = os.getpid()
        self._generation = self.generations.latest(self.endpoint)

    def _leave(self, sock: Any) -> None:
        """Keep a second descriptor of a socket that is about to be closed, to see when the server has closed its side,
        too.

        :param sock: has ``fileno()``
        """
        # A child process must not end its parent's connection.
        if self._farewell is None and not self._ended and self._process == os.getpid():
            self._farewell = hold_socket(sock.fileno())
            self._is_busy = bool(self._unread or self._in_send)

    def _see_off(self, farewell: socket.socket, ended: bool) -> None:
        """Forget an abandoned session, or remember that the server still has it."""
        if ended or not self._is_busy:
            farewell.close()
        else:
            self.servers.remember(self.endpoint, farewell)

    def client(self, kind: Callable[..., Any], pool_kind: Callable[..., Any]) -> Any:
        """Return redis-py's client for the current user of the connection."""
        if self._client is None:
            if self._client_template is None:
                self._client_template = kind(connection_pool=pool_kind(self))
            # Creating a client takes longer than a command.
            client = copy.copy(self._client_template)
            client.connection_pool = pool_kind(self)
            client.response_callbacks = copy.copy(client.response_callbacks)
            self._client = client
        return self._client

    def take_client_back(self) -> None:
        """Stop a client that its user has kept from using the connection, which gets another user next."""
        if self._client is not None:
            self._client.connection_pool.is_given_back = True
            self._client = None

    def why_unfit(self, connected: bool) -> str | None:
        """Return why the next user must not get the connection, as far as is known without asking the server."""
        if not connected or self._ended:
            return 'it is closed'
        if self._doubt is not None:
            return self._doubt
        if self._unread or self._in_send:
            return f'{self._unread + self._in_send} replies were not read'
        if self._client is not None and self._client.connection_pool.is_lent:
            return 'its client has it in use: a pipeline that has watched something, or a pubsub, was not closed'
        if self.generations.any_retired and self.generations.is_retired(self.endpoint, self._generation):
            return "it was made before the endpoint's server gave an error reply of broken_codes"
        if self._transaction is not None and not self.resets:
            return f'{self._transaction} was sent on it, but not the end of the transaction'
        if self._other_database is not None and not self.resets:
            return f'database {self._other_database} is selected'
        return None

    @property
    def is_used(self) -> bool:
        """Whether commands were sent since the session was last as the handshake left it."""
        return self._received != self._received_when_clean

    def is_fit_and_idle(self, connected: bool) -> bool:
        """Return whether the next user may get the connection, which is not in use now."""
        # If its release was skipped, a client was not stopped, and would continue to use the connection.
        return self._client is None and self.why_unfit(connected) is None

    def pack_reset(self) -> Packed:
        """Return the commands that reset the session to its state after the handshake, to be sent in one piece."""
        packed: Packed = self.pack_commands([('RESET',), *self._handshake])
        return packed


class Servers:
    """What a manager knows of the servers behind its endpoints.

    After a failover, a database's name may lead to another server while connections to the old one stay open. An error
    on one of them makes all older connections useless.
    """

    def __init__(self, broken_codes: Collection[str]) -> None:
        self.broken_codes = broken_codes
        self.generations = Generations()
        # Closed sessions for which the server may still be running a command: their endpoint, and until when they
        # count. There is no lock, because a fork could leave it locked: popping is atomic.
        self._leaving: dict[socket.socket, tuple[Hashable, float]] = {}
        # Not in __del__: within a reference cycle the sockets might be collected first, and warn that they were not
        # closed.
        weakref.finalize(self, _close_all, self._leaving)

    def remember(self, endpoint: Hashable, farewell: socket.socket, until: float | None = None) -> None:
        """Make the next connect wait for the end of a session: the server must not have more sessions than the pool."""
        self._leaving[farewell] = (endpoint, time.monotonic() + _LONGEST_FAREWELL if until is None else until)

    def take(self, endpoint: Hashable) -> tuple[socket.socket, float] | None:
        """Return a session whose end a connect must wait for, and until when, if there is one."""
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
