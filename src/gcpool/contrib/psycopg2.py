"""PostgreSQL connections made by psycopg2, for :py:class:`gcpool.threading.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.psycopg2``.
"""

import logging
import math
import socket
import time
from collections.abc import Mapping
from typing import Any

from gcpool.contrib._sockets import poll_once, shut_down
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    import psycopg2
    from psycopg2 import extensions
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.psycopg2 needs psycopg2: pip install "gcpool[psycopg2]"', name=exc.name) from exc

__all__ = ['Connection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters']

DbEndpoint = str
Connection = extensions.connection
DsnParameters = Mapping[DbEndpoint, Mapping[str, Any]]

# libpq never gives up sooner, so what fails before that fails for another reason. It goes by another clock than this.
_LIBPQ_SHORTEST_TIMEOUT = 1.0
_CLOCK_TOLERANCE = 0.1
# A server that sends notifications faster than they are read should not hold up a check for ever.
_MOST_MESSAGES = 10

logger = logging.getLogger(__name__)


class DbConnectionManager(BaseConnectionManager[DbEndpoint, Connection]):
    """Makes connections with :py:func:`psycopg2.connect`.

    A transaction that the user left open is rolled back when the connection is given back. Session settings
    (``autocommit``, the isolation level, ``SET``) stay as the user leaves them.

    :param dsn_params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`psycopg2.connect`; it is looked up at each connect, so endpoints may be added later
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection, which does not find a server behind a proxy that keeps the connection open.
    """

    def __init__(self, dsn_params: DsnParameters, *, ping: bool = False) -> None:
        self._dsn_params = dsn_params
        self._ping = ping

    def create(self, endpoint: DbEndpoint, timeout: float | None = None) -> Connection:
        """Connect.

        :param endpoint: a key of ``dsn_params``
        :param timeout: seconds that connecting may take, for each host if there are several, if that is less than
            ``connect_timeout`` in ``dsn_params``; None for that one. libpq counts in whole seconds (rounded up here)
            and before version 17 takes 2 at the least.
        :raise TimeoutError: the time is over
        :raise psycopg2.OperationalError: the connection cannot be made
        :raise KeyError: the endpoint is not in ``dsn_params``
        """
        params = dict(_dsn_params_of(self._dsn_params, endpoint))
        if timeout is not None:
            params['connect_timeout'] = _connect_timeout(timeout, params)
        began = time.monotonic()
        try:
            conn: Connection = psycopg2.connect(**params)
        except psycopg2.OperationalError as exc:
            took = time.monotonic() - began + _CLOCK_TOLERANCE
            if timeout is not None and took >= max(timeout, _LIBPQ_SHORTEST_TIMEOUT):
                raise TimeoutError(f'database {endpoint!r} did not accept a connection in {timeout} seconds') from exc
            raise
        return conn

    def dispose(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :param timeout: not needed. A pool closed in a hurry also disposes of a connection whose user waits for an
            answer: that wait is ended, for closing would have to wait for it.
        """
        if not conn.closed and conn.get_transaction_status() == extensions.TRANSACTION_STATUS_ACTIVE:
            sock = socket.socket(fileno=conn.fileno())
            try:
                shut_down(sock)
            finally:
                # The descriptor belongs to libpq.
                sock.detach()
        conn.close()

    def check_aliveness(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Tell whether a connection is open. Leaves no transaction open, and without ``ping`` asks only the kernel.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection, with no transaction open
        :param timeout: not needed without ``ping``, which never waits; with it the wait for an answer cannot be bounded
            by psycopg2 (``tcp_user_timeout`` in ``dsn_params`` bounds it)
        """
        if conn.closed:
            return False
        try:
            return _is_connected(conn) and (not self._ping or _answers(conn))
        except psycopg2.Error:
            return False

    def on_release(self, endpoint: DbEndpoint, conn: Connection) -> None:
        """Roll back the transaction that the user left open; no round trip if there is none.

        A connection that cannot be rolled back (broken, or in the middle of a statement or of a two-phase commit) is
        closed (and that is logged), so that nobody is given it.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        """
        if conn.closed:
            return
        try:
            _roll_back(conn)
        except psycopg2.Error as exc:
            logger.warning('closing a connection to %r that cannot be rolled back: %s', endpoint, exc)
            self.dispose(endpoint, conn)
        except BaseException:
            self.dispose(endpoint, conn)
            raise


def _dsn_params_of(dsn_params: DsnParameters, endpoint: DbEndpoint) -> Mapping[str, Any]:
    try:
        return dsn_params[endpoint]
    except KeyError:
        # Without the parameters: they hold passwords.
        raise KeyError(f'endpoint {endpoint!r} is not in dsn_params, which has {list(dsn_params)}') from None


def _connect_timeout(timeout: float, params: Mapping[str, Any]) -> int:
    limit = max(math.ceil(timeout), 1)
    configured = params.get('connect_timeout')
    if configured is None and params.get('dsn'):
        configured = psycopg2.extensions.parse_dsn(params['dsn']).get('connect_timeout')
    # To libpq 0 and less mean no limit.
    if configured is not None and 0 < int(configured) < limit:
        return int(configured)
    return limit


def _is_connected(conn: Connection) -> bool:
    for _ in range(_MOST_MESSAGES):
        readable, finished = poll_once(conn.fileno())
        if finished:
            return False
        if not readable:
            break
        # The server may speak unasked: a notification, or that it shuts down. This takes in what has arrived and fails
        # if that was the end; it sends nothing.
        conn.poll()
    return True


def _answers(conn: Connection) -> bool:
    autocommit = conn.autocommit
    # Otherwise psycopg2 begins a transaction before the statement. Switching costs no round trip.
    conn.autocommit = True
    try:
        with conn.cursor() as cursor:
            cursor.execute('SELECT 1')
    finally:
        if not conn.closed:
            conn.autocommit = autocommit
    return True


def _roll_back(conn: Connection) -> None:
    transaction = conn.get_transaction_status()
    if transaction == extensions.TRANSACTION_STATUS_ACTIVE:
        # libpq would first wait for the end of it.
        raise psycopg2.InterfaceError('a statement is being executed')
    if conn.status != extensions.STATUS_READY:
        conn.rollback()
    elif transaction != extensions.TRANSACTION_STATUS_IDLE:
        # A BEGIN in autocommit mode, which conn.rollback() knows nothing of.
        with conn.cursor() as cursor:
            cursor.execute('ROLLBACK')
