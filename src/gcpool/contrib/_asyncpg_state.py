# What asyncpg does not tell by its interface is read past it.
# ruff: noqa: SLF001
"""What a connection of asyncpg is left with by its users, as far as it can be told without asking the server."""

import asyncio
import dataclasses
import gc
import weakref
from collections.abc import Callable
from typing import Any

import asyncpg

from gcpool.contrib._postgres import MOST_MESSAGES
from gcpool.contrib._sockets import poll_once, poller_for

__all__ = [
    'Additions',
    'CopyWatch',
    'Made',
    'cancel_copy',
    'has_ended_unnoticed',
    'is_connected',
    'is_lost_or_busy',
    'is_unfit',
    'made_by',
]


@dataclasses.dataclass
class Made:
    """What a manager keeps of a connection: its generation, and that of what asyncpg remembers of the schema."""

    manager: object
    connection: int | None
    schema: int | None
    #: Looks at the socket: see :py:func:`gcpool.contrib._sockets.poller_for`.
    poll: Callable[[int], object] | None = None

    def begin(self, conn: Any) -> None:
        """Keep this with a new connection."""
        sock = conn._transport.get_extra_info('socket')
        self.poll = None if sock is None else poller_for(sock.fileno())
        conn._protocol.gcpool_made = self


# By a create() of the user's own.
_MADE_ELSEWHERE = Made(None, None, None)


def made_by(manager: object, conn: Any) -> Made:
    """Give what a manager keeps of a connection; of one that somebody else has made, it knows nothing."""
    made: Made = getattr(conn._protocol, 'gcpool_made', _MADE_ELSEWHERE)
    return made if made.manager is manager else _MADE_ELSEWHERE


class Additions:
    """What a program has added to a connection on the client's side when it was created."""

    _NAME = 'gcpool_additions'
    _SETS = ('_log_listeners', '_query_loggers', '_termination_listeners')

    def __init__(self, conn: Any) -> None:
        self._callbacks = {name: set(getattr(conn, name)) for name in self._SETS}
        self._codecs = self._codecs_of(conn)
        self.note(conn)

    def note(self, conn: Any) -> None:
        """Take note that nothing of a user is left on a connection."""
        self._queries = conn._protocol.queries_count

    def is_as_new(self, conn: Any) -> bool:
        """Tell whether nobody has used a connection since :py:meth:`note`, and nothing else is left of a user."""
        return bool(self._queries == conn._protocol.queries_count) and self.restore(conn)

    @classmethod
    def remember(cls, conn: Any) -> None:
        """Take what a connection has now for what it is to have for each user."""
        setattr(conn._protocol, cls._NAME, cls(conn))

    @classmethod
    def of(cls, conn: Any) -> 'Additions':
        """What was remembered."""
        found: Additions = getattr(conn._protocol, cls._NAME)
        return found

    def restore(self, conn: Any) -> bool:
        """Take away what was added since.

        :return: False if that cannot be done: the codecs are others, and asyncpg can only be told to forget the codec
            of a type that one has the name of
        """
        for name, callbacks in self._callbacks.items():
            found: set[Any] = getattr(conn, name)
            found.clear()
            found.update(callbacks)
        return self._codecs_of(conn) == self._codecs

    @staticmethod
    def _codecs_of(conn: Any) -> dict[Any, Any]:
        settings = conn._protocol.get_settings()
        (config,) = (one for one in gc.get_referents(settings) if type(one).__name__ == 'DataCodecConfig')
        # First those that asyncpg has found out by itself, then those that were set.
        _, codecs = (one for one in gc.get_referents(config) if isinstance(one, dict))
        return dict(codecs)


class CopyWatch:
    """Stands for ``copy_out()`` of an asyncpg protocol, and remembers whether each such call came to its end.

    Between two chunks the protocol has no future that it waits for. asyncpg tells nobody that it still is in the middle
    of the ``COPY`` then, and when such a call is cancelled just after a chunk has arrived it does not cancel the
    ``COPY`` either: that is done here. All ways to copy from the server lead through that method, whatever the class of
    the connection.
    """

    _NAME = 'copy_out'

    def __init__(self, protocol: Any) -> None:
        # Weak, since the protocol holds this.
        self._protocol = weakref.ref(protocol)
        self._running = 0
        # How many statements had been sent when a COPY was left before its end. As soon as there is another one, that
        # is over: asyncpg sends none before.
        self._left_at: int | None = None

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        protocol: Any = self._protocol()
        self._running += 1
        try:
            status = await type(protocol).copy_out(protocol, *args, **kwargs)
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            # The server's answer, after which it is ready for the next statement; or it was refused before it began.
            # When these come from the user's sink, asyncpg has cancelled the COPY, and that is seen.
            raise
        except BaseException:
            self._left_at = protocol.queries_count
            # Before anything else can arrive: asyncpg fails at what arrives with nobody to wait for it.
            if protocol.is_connected() and not protocol._is_cancelling():
                protocol._request_cancel()
            raise
        finally:
            self._running -= 1
        return status

    def _saw_unfinished(self) -> bool:
        return self._running > 0 or self._left_at == getattr(self._protocol(), 'queries_count', None)

    @classmethod
    def attach(cls, conn: Any) -> None:
        """Watch a connection, which no user has yet."""
        protocol = conn._protocol
        setattr(protocol, cls._NAME, cls(protocol))

    @classmethod
    def saw_unfinished(cls, conn: Any) -> bool:
        """Whether a ``COPY`` to the client has begun on an open connection and is not known to have ended."""
        watch = vars(conn._protocol).get(cls._NAME)
        return isinstance(watch, cls) and watch._saw_unfinished()


def cancel_copy(conn: Any) -> None:
    """End a ``COPY`` to the client that did not come to its end."""
    # The server may work on it for long before it looks whether anybody still listens, and asyncpg fails at what
    # arrives with nobody to wait for it. What asyncpg knows to be at work it cancels when it closes the connection.
    if not conn.is_closed() and not is_lost_or_busy(conn) and CopyWatch.saw_unfinished(conn):
        conn._protocol._request_cancel()


def is_unfit(conn: Any) -> bool:
    """Tell whether a connection is lost, or in the middle of something."""
    return is_lost_or_busy(conn) or CopyWatch.saw_unfinished(conn) or has_ended_unnoticed(conn)


def has_ended_unnoticed(conn: Any) -> bool:
    """Tell whether a transaction() was ended by SQL."""
    # asyncpg would refuse to begin another transaction. Its own pool looks there, too.
    return conn._top_xact is not None and not conn.is_in_transaction()


def is_lost_or_busy(conn: Any) -> bool:
    """Tell whether a connection is closed, or a statement is at work or is being cancelled on it."""
    # As asyncpg's own pool looks at it.
    if conn.is_closed() or conn._protocol._is_cancelling():
        return True
    # Another task may still wait for an answer, which asyncpg tells nobody. Its protocol holds the future that it waits
    # for; some of those that are done stay there.
    held = gc.get_referents(conn._protocol)
    return any(isinstance(one, asyncio.Future) and not one.done() for one in held)


async def is_connected(conn: Any) -> bool:
    """Tell whether the server has not ended a connection; only the kernel is asked."""
    sock = conn._transport.get_extra_info('socket')
    if sock is None:
        # A TLS transport of Python 3.10 that is gone, and has not told asyncpg yet.
        return False
    fd = sock.fileno()
    for _ in range(MOST_MESSAGES):
        readable, finished = poll_once(fd)
        if finished:
            return False
        if not readable:
            return True
        # The server may speak unasked: a notification, or that it shuts down. The event loop takes that in, asyncpg
        # closes the connection if it was the end.
        await asyncio.sleep(0)
        if conn.is_closed():
            return False
    # Nobody reads it, or the server never ends.
    return False
