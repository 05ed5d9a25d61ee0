"""PostgreSQL connections made by psycopg2, for :py:class:`gcpool.threading.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.psycopg2``.
"""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gcpool.contrib._attempts import Attempts
from gcpool.contrib._errors import (
    BAD_PARAMS,
    check_source,
    look_up,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._postgres import MOST_MESSAGES, advice_for, may_show_password, shorter_connect_timeout, time_limit
from gcpool.contrib._sockets import poll_once, time_to_answer
from gcpool.contrib._watchdog import cut_off_after, shut_down_descriptor
from gcpool.exceptions import DiscardConnection
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    import psycopg2
    from psycopg2 import extensions
except ModuleNotFoundError as exc:
    raise ImportError(
        'gcpool.contrib.psycopg2 needs psycopg2: pip install "gcpool[psycopg2]", which compiles it, or psycopg2-binary',
        name=exc.name,
    ) from exc

__all__ = ['Connection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters', 'DsnSource']

DbEndpoint = str
Connection = extensions.connection
DsnParameters = Mapping[DbEndpoint, Mapping[str, Any] | str]

_Parameters: TypeAlias = Mapping[str, Any] | str
#: By endpoint, or a callable of the endpoint; a value of the mapping may be such a callable, too.
DsnSource: TypeAlias = (
    Mapping[DbEndpoint, _Parameters | Callable[[DbEndpoint], _Parameters]] | Callable[[DbEndpoint], _Parameters]
)

_BUSY_OR_LOST = (extensions.TRANSACTION_STATUS_ACTIVE, extensions.TRANSACTION_STATUS_UNKNOWN)

logger = logging.getLogger(__name__)


class DbConnectionManager(BaseConnectionManager[DbEndpoint, Connection]):
    """Makes connections with :py:func:`psycopg2.connect`.

    A transaction that the user left open is rolled back when the connection is given back. Session settings
    (``autocommit``, the isolation level, ``readonly``, ``cursor_factory``, ``SET``) stay as the user leaves them.

    :param dsn_params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`psycopg2.connect`, or a DSN, or a callable of the endpoint that returns either; or one such callable
        for all. It is asked at each connect, so that endpoints may be added and credentials change.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection, which does not find a server behind a proxy that keeps the connection open.
    :param rollback_timeout: seconds that the rollback of a transaction left open may take before the connection is
        given up, None for no limit but that of TCP. It holds unless no thread can be started.
    :raise TypeError: ``dsn_params`` is neither a mapping nor callable, or ``rollback_timeout`` is no number
    :raise ValueError: ``rollback_timeout`` is less than 0
    """

    def __init__(self, dsn_params: DsnSource, *, ping: bool = False, rollback_timeout: float | None = None) -> None:
        check_source(dsn_params, 'dsn_params', or_callable=True)
        self._dsn_params = dsn_params
        self._attempts = Attempts()
        self._ping = ping
        self._rollback_timeout = time_limit('rollback_timeout', rollback_timeout)

    def create(self, endpoint: DbEndpoint, timeout: float | None = None) -> Connection:
        """Connect.

        :param endpoint: known to ``dsn_params``
        :param timeout: seconds that connecting may take (a quarter of a second at the least), without the time of the
            callables; None for ``connect_timeout`` in ``dsn_params``, which otherwise holds if it is less. With a limit
            the connection is made in a thread: libpq counts in whole seconds for each host, and not the time to resolve
            its name. An attempt that is given up goes on there until libpq ends it; the next one to the same endpoint
            waits for that, so that the server does not see more connections than the pool allows.
        :raise gcpool.exceptions.ConnectTimeout: the time is over
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; a :py:exc:`psycopg2.OperationalError`, too
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``dsn_params``
        """
        found = look_up(self._dsn_params, endpoint, 'dsn_params')
        params = to_params(found, endpoint, 'dsn_params', text_as='dsn')
        if params.get('async') or params.get('async_'):
            cause = ValueError('async: an asynchronous connection of psycopg2 cannot be pooled, nothing would poll it')
            raise_bad_params(endpoint, cause, 'dsn_params')
        began = time.monotonic()
        try:
            return self._attempts.connect(
                endpoint, lambda left: _connect(params, left), lambda conn: conn.close(), timeout
            )
        except TimeoutError as exc:
            error = psycopg2.OperationalError(f'the server did not answer in time ({exc})')
            raise_connect_timeout(endpoint, error, timeout)
        except psycopg2.OperationalError as exc:
            if 'timeout expired' in str(exc):
                in_time = timeout is None or time.monotonic() - began < timeout
                raise_connect_timeout(endpoint, exc, None if in_time else timeout)
            if params.get('dsn') and may_show_password(extensions.parse_dsn(params['dsn'])):
                raise_bad_params(endpoint, exc, 'dsn_params', quotes=True)
            raise_connect_error(endpoint, exc, advice_for(str(exc)))
        except (psycopg2.ProgrammingError, *BAD_PARAMS) as exc:
            raise_bad_params(endpoint, exc, 'dsn_params', quotes='dsn' in params)

    def dispose(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection. It does not wait for the server.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :param timeout: not needed. A pool closed in a hurry also disposes of a connection whose user waits for an
            answer: that wait is ended, for closing would have to wait for it.
        """
        _end(conn)

    def check_aliveness(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Tell whether a connection is open. Leaves no transaction open, and without ``ping`` asks only the kernel.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection; it is in doubt unless no transaction is open
        :param timeout: seconds that the answer may take, used only with ``ping``: what does not answer is closed.
            Without ``ping`` nothing waits.
        """
        if conn.closed or not _is_ready(conn):
            return False
        try:
            return _is_connected(conn) and (not self._ping or _answers(conn, time_to_answer(timeout)))
        except psycopg2.Error:
            _end(conn)
            return False
        except BaseException:
            _end(conn)
            raise

    def is_broken(self, endpoint: DbEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Tell whether a connection is lost, or still busy with a statement, after its user's block raised.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :param exc: what the block raised; it does not matter
        """
        return bool(conn.closed) or conn.get_transaction_status() in _BUSY_OR_LOST

    def on_release(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """Roll back the transaction that the user left open; no round trip if there is none.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :raise gcpool.exceptions.DiscardConnection: it is closed, or cannot be rolled back (broken, or in the middle of
            a statement or of a two-phase commit)
        """
        if conn.closed:
            raise DiscardConnection(f'a connection to {endpoint!r} was given back closed')
        try:
            _roll_back(conn, self._rollback_timeout)
        except psycopg2.Error as exc:
            logger.warning('discarding a connection to %r that cannot be rolled back: %s', endpoint, exc)
            raise DiscardConnection(f'a connection to {endpoint!r} cannot be rolled back') from exc
        except BaseException:
            _end(conn)
            raise


def _connect(params: dict[str, Any], timeout: float | None) -> Connection:
    if timeout is not None:
        params = {**params, 'connect_timeout': shorter_connect_timeout(timeout, _configured_timeout(params))}
    conn: Connection = psycopg2.connect(**params)
    return conn


# Not by dispose(), which the pool calls once for each connection, and a subclass may count.
def _end(conn: Connection) -> None:
    if not conn.closed and conn.get_transaction_status() == extensions.TRANSACTION_STATUS_ACTIVE:
        shut_down_descriptor(conn.fileno())
    conn.close()


def _configured_timeout(params: Mapping[str, Any]) -> Any:
    configured = params.get('connect_timeout')
    if configured is None and params.get('dsn'):
        configured = extensions.parse_dsn(params['dsn']).get('connect_timeout')
    return configured


def _is_ready(conn: Connection) -> bool:
    # Where a transaction was ended by SQL, or a two-phase commit was prepared, only psycopg2 takes it to be open.
    return (
        conn.get_transaction_status() == extensions.TRANSACTION_STATUS_IDLE and conn.status == extensions.STATUS_READY
    )


def _is_connected(conn: Connection) -> bool:
    for _ in range(MOST_MESSAGES):
        readable, finished = poll_once(conn.fileno())
        if finished:
            return False
        if not readable:
            break
        # The server may speak unasked: a notification, or that it shuts down. This takes in what has arrived and fails
        # if that was the end; it sends nothing.
        conn.poll()
    return True


def _answers(conn: Connection, timeout: float | None) -> bool:
    autocommit = conn.autocommit
    # Otherwise psycopg2 begins a transaction before the statement. Switching costs no round trip.
    conn.autocommit = True
    try:
        with cut_off_after(conn.fileno(), timeout) as was_cut_off, conn.cursor() as cursor:
            cursor.execute('SELECT 1')
    finally:
        if not conn.closed:
            conn.autocommit = autocommit
    return not was_cut_off()


def _roll_back(conn: Connection, timeout: float | None) -> None:
    transaction = conn.get_transaction_status()
    if transaction == extensions.TRANSACTION_STATUS_ACTIVE:
        # libpq would first wait for the end of it.
        raise psycopg2.InterfaceError('a statement is being executed')
    if _is_ready(conn):
        return
    with cut_off_after(conn.fileno(), timeout) as was_cut_off:
        if conn.status != extensions.STATUS_READY:
            conn.rollback()
        else:
            # A BEGIN in autocommit mode, which conn.rollback() knows nothing of.
            with conn.cursor() as cursor:
                cursor.execute('ROLLBACK')
    if was_cut_off():
        raise psycopg2.OperationalError('the server did not answer in time')
