# This module reads psycopg's internals for what its interface does not show.
# ruff: noqa: SLF001
"""What users leave behind in a connection of psycopg, as far as the client can tell without asking the server."""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeAlias

from psycopg import AsyncConnection, Connection
from psycopg.adapt import AdaptersMap
from psycopg.pq import PipelineStatus, TransactionStatus

from gcpool.contrib._libpq import LibpqSession
from gcpool.contrib._sockets import poller_for

__all__ = [
    'SETTINGS',
    'SETTINGS_WITH_SETTERS',
    'AsNew',
    'Session',
    'as_new_state',
    'copy_of_adapters',
    'forget_notifications',
    'handlers_of',
    'settings_of',
    'state_of',
    'why_unfit',
]

#: What a user may change on a connection, and a release restores without asking the server. On an asynchronous
#: connection these are changed by setters.
SETTINGS_WITH_SETTERS = ('autocommit', 'isolation_level', 'read_only', 'deferrable')
SETTINGS = (
    *SETTINGS_WITH_SETTERS,
    'prepare_threshold',
    'prepared_max',
    'row_factory',
    'cursor_factory',
    'server_cursor_factory',
)
settings_of = attrgetter(*SETTINGS)

# The initial values of the settings, and of the handlers.
_State: TypeAlias = tuple[tuple[Any, ...], tuple[list[Any], ...]]


# libpq's numbers: comparing psycopg's enumerations takes ten times as long.
_IDLE: int = TransactionStatus.IDLE.value
_NO_PIPELINE: int = PipelineStatus.OFF.value


class AsNew:
    """The state of a connection after ``configure``: each release and check compares the connection with it.

    A connection in this state is in order. For any other, :py:func:`why_unfit` and :py:func:`state_of`, which have the
    rules, find what is wrong. They take five times as long, because they read psycopg's properties, which are Python
    functions. This class reads the attributes behind the properties.

    :raise AttributeError: this version of psycopg has other attributes
    """

    def __init__(self, conn: Any) -> None:
        self._autocommit = conn._autocommit
        self._isolation_level = conn._isolation_level
        self._read_only = conn._read_only
        self._deferrable = conn._deferrable
        self._row_factory = conn.row_factory
        self._cursor_factory = conn.cursor_factory
        self._server_cursor_factory = conn.server_cursor_factory
        self._prepare_threshold = conn._prepared.prepare_threshold
        self._prepared_max = conn._prepared.prepared_max
        self._notice_handlers = list(conn._notice_handlers)
        self._notify_handlers = list(conn._notify_handlers)

    def describes(self, conn: Any) -> bool:
        """Return whether a connection is open, idle and not in use, and has these settings and handlers."""
        pgconn, prepared = conn.pgconn, conn._prepared
        return (
            # This implies that it is not closed.
            pgconn.transaction_status == _IDLE
            and pgconn.pipeline_status == _NO_PIPELINE
            and conn._autocommit is self._autocommit
            and conn._isolation_level is self._isolation_level
            and conn._read_only is self._read_only
            and conn._deferrable is self._deferrable
            and conn.row_factory is self._row_factory
            and conn.cursor_factory is self._cursor_factory
            and conn.server_cursor_factory is self._server_cursor_factory
            and prepared.prepare_threshold is self._prepare_threshold
            and prepared.prepared_max is self._prepared_max
            and conn._tpc is None
            and not conn._num_transactions
            and conn._notice_handlers == self._notice_handlers
            and conn._notify_handlers == self._notify_handlers
            and not conn.lock.locked()
        )


def as_new_state(conn: Any) -> AsNew | None:
    """Return what to compare a connection with; None if psycopg's attributes do not allow it."""
    try:
        state = AsNew(conn)
        return state if state.describes(conn) else None
    except AttributeError:
        return None


class Session(LibpqSession):
    """The manager's record of a connection.

    :param cancel_timeout: seconds that the server has to end a statement
    :param generation: of the connection, and of what it has prepared, see
        :py:class:`gcpool.contrib._generations.Generations`; None for a connection that the manager did not create
    :param manager: the manager that makes the connection; None likewise
    """

    #: Polls the socket: see :py:func:`gcpool.contrib._sockets.poller_for`.
    poll: Callable[[int], object]

    def __init__(
        self, cancel_timeout: float, generation: int | None = None, plans: int | None = None, manager: object = None
    ) -> None:
        super().__init__(generation)
        self.cancel_timeout = cancel_timeout
        self.plans = plans
        self.manager = manager
        self.as_new: AsNew | None = None
        # The state after ``configure``; None for a connection that the manager did not create.
        self.state: _State | None = None
        self.adapters: AdaptersMap | None = None

    def begin(self, conn: Any) -> None:
        """Attach this record to the connection, now that it exists."""
        if not conn.closed:
            self.poll = poller_for(conn.pgconn.socket)
        conn.gcpool_session = self

    def leave(self, conn: Connection[Any] | AsyncConnection[Any]) -> None:
        """Close a connection without waiting, and the socket of a lost connection, which psycopg considers closed."""
        self.hold(conn)
        conn.pgconn.finish()

    def hold(self, conn: Connection[Any] | AsyncConnection[Any]) -> None:
        """Keep the socket beyond the end of the connection."""
        if not conn.closed:
            self.hold_socket(conn.pgconn.socket)

    def forget_prepared(self, conn: Any, plans: int | None) -> None:
        """Clear psycopg's cache of prepared statements, for which it has no public way, before the server drops them.

        :param conn: the connection
        :param plans: the generation of what it prepares from now on
        """
        if self.plans is not None:
            self.plans = plans
        conn._prepared.clear()
        # The statements need not be dropped at the server again.
        conn._prepared._to_flush.clear()


def why_unfit(conn: Connection[Any] | AsyncConnection[Any]) -> str | None:
    """Describe what is left of the last user's work and cannot be undone; None for nothing."""
    if conn.closed:
        return 'closed'
    if conn.pgconn.transaction_status in (TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN):
        return 'in the middle of a statement'
    if conn.pgconn.pipeline_status != PipelineStatus.OFF:
        return 'in pipeline mode'
    if conn.lock.locked():
        # Also by a generator that was not read to its end.
        return 'in use'
    # psycopg has no public way to know: after tpc_prepare(), or a COMMIT by SQL, there is no transaction in the session
    # any more.
    if getattr(conn, '_tpc', None) is not None:
        return 'in a two-phase commit'
    if getattr(conn, '_num_transactions', 0):
        return 'in a transaction() block'
    return None


def state_of(conn: Any) -> _State:
    """Return what a release restores: settings, and handlers."""
    return settings_of(conn), tuple(map(list, handlers_of(conn)))


def handlers_of(conn: Any) -> tuple[list[Any], ...]:
    """Return the lists of handlers. psycopg has no public way to read them."""
    return getattr(conn, '_notice_handlers', []), getattr(conn, '_notify_handlers', [])


def copy_of_adapters(adapters: AdaptersMap | None) -> AdaptersMap | None:
    """Copy the adapters of a connection: None as long as they have not been read."""
    return None if adapters is None else AdaptersMap(adapters)


def forget_notifications(conn: Any) -> None:
    """Drop the notifications that have arrived and that no user has taken."""
    while conn.pgconn.notifies() is not None:
        pass
    if backlog := getattr(conn, '_notifies_backlog', None):
        backlog.clear()
