"""Statements on a connection of psycopg2: how some are executed, and how running ones are ended."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg2
from psycopg2 import _psycopg, extensions

from gcpool._core import GuardedLogger
from gcpool.contrib._latch import Latch
from gcpool.contrib._libpq import ASK_AGAIN, LOOK, LibpqCancel, ask_in_thread
from gcpool.contrib._postgres import FULL_RESET, MOST_MESSAGES, shorter_connect_timeout
from gcpool.contrib._sockets import poll_once
from gcpool.contrib._watchdog import cut_off_after, shut_down_descriptor

__all__ = [
    'State',
    'answers',
    'connect',
    'end_statement',
    'is_at_work',
    'is_connected',
    'is_ready',
    'reset_session',
    'roll_back',
    'shut_down',
    'state_of',
]

Connection = extensions.connection

# psycopg2 sets the date style by a statement if the server has another one; it cannot read any other.
_FULL_RESET = f"{FULL_RESET}; SET datestyle TO 'ISO'"

logger = GuardedLogger('gcpool.contrib.psycopg2')


class State(NamedTuple):
    """The initial state of a connection, apart from its session."""

    characteristics: dict[str, Any]
    encoding: str
    cursor_factory: Any


def connect(params: dict[str, Any], timeout: float | None) -> Connection:
    """Connect within a time limit; None for that of the parameters."""
    if timeout is not None:
        params = {**params, 'connect_timeout': shorter_connect_timeout(timeout, _configured_timeout(params))}
    conn: Connection = psycopg2.connect(**params)
    return conn


def shut_down(conn: Connection) -> None:
    """End a connection for the thread that waits for its server."""
    # If this is late, the connection may be closed, and another one may have got the descriptor.
    if not conn.closed:
        shut_down_descriptor(conn.fileno())


def is_at_work(conn: Connection) -> bool:
    """Whether a statement is being executed."""
    return conn.get_transaction_status() == extensions.TRANSACTION_STATUS_ACTIVE


def _goes_on_working(conn: Connection) -> bool:
    # Also if a thread executes one statement after the other, such as the BEGIN that psycopg2 inserts and what follows.
    if not is_at_work(conn):
        time.sleep(LOOK)
    return is_at_work(conn)


def end_statement(conn: Connection, deadline: float) -> None:
    """Ask the server to end a statement, and wait until the thread that waits for the statement has noticed its end."""
    if extensions.get_wait_callback() is not None:
        # Greenlets: libpq would stop all of them while it waits.
        return
    try:
        # Not conn.cancel(): it holds the GIL while libpq waits, and if the server does not answer, that is for ever.
        ask = LibpqCancel(_psycopg.__file__, conn.pgconn_ptr or 0)
    except OSError as exc:
        logger.info('the server cannot be asked to end a statement: %s', exc)
        return
    while _goes_on_working(conn) and (left := deadline - time.monotonic()) > 0:
        asked = Latch()
        ask_in_thread(ask, asked.set)
        if not asked.wait(left):
            return
        ask_again = min(time.monotonic() + ASK_AGAIN, deadline)
        while is_at_work(conn) and time.monotonic() < ask_again:
            time.sleep(LOOK)


def _configured_timeout(params: Mapping[str, Any]) -> Any:
    configured = params.get('connect_timeout')
    if configured is None and params.get('dsn'):
        configured = extensions.parse_dsn(params['dsn']).get('connect_timeout')
    return configured


def is_ready(conn: Connection) -> bool:
    """Whether no transaction is open, for psycopg2 as for the server."""
    # If SQL ended a transaction, or a two-phase commit was prepared, only psycopg2 considers the transaction open.
    return (
        conn.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE and conn.status == extensions.STATUS_READY
    )


def is_connected(conn: Connection) -> bool:
    """Whether the kernel still considers the connection open."""
    for _ in range(MOST_MESSAGES):
        readable, finished = poll_once(conn.fileno())
        if finished:
            return False
        if not readable:
            break
        # The server may send something unsolicited: a notification, or a shutdown. This reads what has arrived and
        # fails if that was the end; it sends nothing.
        conn.poll()
    return True


def answers(conn: Connection, timeout: float | None) -> bool:
    """Whether the server answers within a time limit."""
    autocommit = conn.autocommit
    # Otherwise psycopg2 begins a transaction before the statement. Switching costs no round trip.
    conn.autocommit = True
    try:
        with cut_off_after(lambda: shut_down(conn), timeout) as was_cut_off, conn.cursor() as cursor:
            cursor.execute('SELECT 1')
    finally:
        if not conn.closed:
            conn.autocommit = autocommit
    return not was_cut_off()


def roll_back(conn: Connection) -> None:
    """End the transaction that is open, if any."""
    if is_at_work(conn):
        # libpq would first wait for the end of the statement.
        raise psycopg2.InterfaceError('a statement is being executed')
    if is_ready(conn):
        return
    if conn.status != extensions.STATUS_READY:
        conn.rollback()
    else:
        # A BEGIN in autocommit mode, of which conn.rollback() does not know.
        with conn.cursor() as cursor:
            cursor.execute('ROLLBACK')


def state_of(conn: Connection) -> State:
    """Return the initial state of a connection."""
    names = ('isolation_level', 'readonly', 'deferrable')
    characteristics = {name: getattr(conn, name) for name in names if getattr(conn, name) is not None}
    characteristics['autocommit'] = conn.autocommit
    return State(characteristics, conn.encoding, conn.cursor_factory)


def reset_session(conn: Connection, state: State | None) -> None:
    """Undo everything that a session can carry."""
    # With autocommit: otherwise psycopg2 begins a transaction before the statement.
    conn.set_session(isolation_level='default', readonly='default', deferrable='default', autocommit=True)
    with conn.cursor(cursor_factory=extensions.cursor) as cursor:
        cursor.execute(_FULL_RESET)
    conn.notices.clear()
    conn.notifies.clear()
    if state is not None:
        conn.set_session(**state.characteristics)
        conn.cursor_factory = state.cursor_factory
        if conn.encoding != state.encoding:
            conn.set_client_encoding(state.encoding)
