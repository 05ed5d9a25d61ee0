# This module reads asyncpg's internals for what its interface does not show.
# ruff: noqa: SLF001
"""What users leave behind in a connection of asyncpg, as far as the client can tell without asking the server."""

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
    """The manager's record of a connection: its generation, and the generation of asyncpg's cached schema."""

    manager: object
    connection: int | None
    schema: int | None
    #: Polls the socket: see :py:func:`gcpool.contrib._sockets.poller_for`.
    poll: Callable[[int], object] | None = None

    def begin(self, conn: Any) -> None:
        """Attach this record to a new connection."""
        sock = conn._transport.get_extra_info('socket')
        self.poll = None if sock is None else poller_for(sock.fileno())
        conn._protocol.gcpool_made = self


# Set by the user's own create().
_MADE_ELSEWHERE = Made(None, None, None)


def made_by(manager: object, conn: Any) -> Made:
    """Return the manager's record of a connection; an empty one if the manager did not create the connection."""
    made: Made = getattr(conn._protocol, 'gcpool_made', _MADE_ELSEWHERE)
    return made if made.manager is manager else _MADE_ELSEWHERE


class Additions:
    """What the program added to a connection on the client's side when it was created."""

    _NAME = 'gcpool_additions'
    _SETS = ('_log_listeners', '_query_loggers', '_termination_listeners')

    def __init__(self, conn: Any) -> None:
        self._callbacks = {name: set(getattr(conn, name)) for name in self._SETS}
        self._codecs = self._codecs_of(conn)
        self.note(conn)

    def note(self, conn: Any) -> None:
        """Record that no user has left anything behind in a connection."""
        self._queries = conn._protocol.queries_count

    def is_as_new(self, conn: Any) -> bool:
        """Return whether no user has used a connection since :py:meth:`note`, and none has left anything behind."""
        return bool(self._queries == conn._protocol.queries_count) and self.restore(conn)

    @classmethod
    def remember(cls, conn: Any) -> None:
        """Record what a connection has now as its state for each user."""
        setattr(conn._protocol, cls._NAME, cls(conn))

    @classmethod
    def of(cls, conn: Any) -> 'Additions':
        """Restore the recorded listeners."""
        found: Additions = getattr(conn._protocol, cls._NAME)
        return found

    def restore(self, conn: Any) -> bool:
        """Remove what was added since.

        :return: False if that is not possible: the codecs differ, and asyncpg can forget a codec only by the name of
            its type
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
        # First the codecs that asyncpg found out itself, then those that were set.
        _, codecs = (one for one in gc.get_referents(config) if isinstance(one, dict))
        return dict(codecs)


class CopyWatch:
    """Wraps ``copy_out()`` of an asyncpg protocol, and records whether each call came to its end.

    Between two chunks the protocol waits for no future, so asyncpg does not know that it is in the middle of the
    ``COPY``. When such a call is cancelled just after a chunk has arrived, asyncpg does not cancel the ``COPY`` either:
    this class does. Every way to copy from the server calls that method, whatever the class of the connection.
    """

    _NAME = 'copy_out'

    def __init__(self, protocol: Any) -> None:
        # Weak, because the protocol refers to this object.
        self._protocol = weakref.ref(protocol)
        self._running = 0
        # How many statements had been sent when a COPY was left before its end. As soon as another one is sent, the
        # COPY is over: asyncpg sends no statement before that.
        self._left_at: int | None = None

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        protocol: Any = self._protocol()
        self._running += 1
        try:
            status = await type(protocol).copy_out(protocol, *args, **kwargs)
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            # An error of the server, which is then ready for the next statement, or asyncpg refused the COPY before it
            # began. If the user's sink raises the same classes, asyncpg has cancelled the COPY, and this code sees
            # that.
            raise
        except BaseException:
            self._left_at = protocol.queries_count
            # Before anything else arrives: asyncpg fails on data that no call waits for.
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
        """Watch a connection that no user has yet."""
        protocol = conn._protocol
        setattr(protocol, cls._NAME, cls(protocol))

    @classmethod
    def saw_unfinished(cls, conn: Any) -> bool:
        """Whether a ``COPY`` to the client has begun on an open connection and, as far as is known, has not ended."""
        watch = vars(conn._protocol).get(cls._NAME)
        return isinstance(watch, cls) and watch._saw_unfinished()


def cancel_copy(conn: Any) -> None:
    """End a ``COPY`` to the client that did not complete."""
    # The server may continue for long before it notices that the client is gone, and asyncpg fails on data that no call
    # waits for. asyncpg itself cancels the statements that it knows when it closes the connection.
    if not conn.is_closed() and not is_lost_or_busy(conn) and CopyWatch.saw_unfinished(conn):
        conn._protocol._request_cancel()


def is_unfit(conn: Any) -> bool:
    """Return whether a connection is lost, or in the middle of something."""
    return is_lost_or_busy(conn) or CopyWatch.saw_unfinished(conn) or has_ended_unnoticed(conn)


def has_ended_unnoticed(conn: Any) -> bool:
    """Return whether SQL ended a transaction that transaction() began."""
    # asyncpg would refuse to begin another transaction. Its own pool looks at the same attribute.
    return conn._top_xact is not None and not conn.is_in_transaction()


def is_lost_or_busy(conn: Any) -> bool:
    """Return whether a connection is closed, or a statement is running or being cancelled."""
    # asyncpg's own pool looks at the same.
    if conn.is_closed() or conn._protocol._is_cancelling():
        return True
    # Another task may still wait for an answer; asyncpg's interface does not show that. Its protocol holds the future
    # of that answer, and keeps some futures that are done.
    held = gc.get_referents(conn._protocol)
    return any(isinstance(one, asyncio.Future) and not one.done() for one in held)


async def is_connected(conn: Any) -> bool:
    """Return whether the server has not ended a connection; asks only the kernel."""
    sock = conn._transport.get_extra_info('socket')
    if sock is None:
        # A TLS transport of Python 3.10 that is gone, which asyncpg does not know yet.
        return False
    fd = sock.fileno()
    for _ in range(MOST_MESSAGES):
        readable, finished = poll_once(fd)
        if finished:
            return False
        if not readable:
            return True
        # The server may send something unsolicited: a notification, or a shutdown. The event loop reads it, and if it
        # was the end, asyncpg closes the connection.
        await asyncio.sleep(0)
        if conn.is_closed():
            return False
    # Nothing reads the data, or the server never stops sending.
    return False
