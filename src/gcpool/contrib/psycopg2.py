"""PostgreSQL connections with psycopg2, for :py:class:`gcpool.threading.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.psycopg2``.
"""

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

from gcpool._core import GuardedLogger
from gcpool.contrib._attempts import Attempts, deadline_after
from gcpool.contrib._descriptions import described
from gcpool.contrib._errors import (
    BAD_PARAMS,
    check_source,
    errors_in,
    look_up,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._generations import Generations
from gcpool.contrib._goodbye import wait_for_end
from gcpool.contrib._libpq import CANCEL_TIMEOUT, LibpqSession
from gcpool.contrib._one_place import OnePlace, Place
from gcpool.contrib._parameters import bounded_seconds, check_codes, resets_all, time_limit
from gcpool.contrib._postgres import (
    BROKEN_CODES,
    advice_for,
    is_of_the_server,
    is_refusal,
    is_stale_plan,
    is_useless_after,
    may_show_password,
)
from gcpool.contrib._sockets import time_to_answer
from gcpool.contrib._watchdog import cut_off_after, shut_down_descriptor
from gcpool.exceptions import DiscardConnection
from gcpool.managers import ROLLED_BACK
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    import psycopg2
    from psycopg2 import extensions
except ModuleNotFoundError as exc:
    raise ImportError(
        'gcpool.contrib.psycopg2 needs psycopg2: pip install "gcpool[psycopg2]", which compiles it, or psycopg2-binary',
        name=exc.name,
    ) from exc

from gcpool.contrib._psycopg2_statements import (
    State,
    answers,
    connect,
    end_statement,
    is_at_work,
    is_connected,
    is_ready,
    reset_session,
    roll_back,
    shut_down,
    state_of,
)

__all__ = ['BROKEN_CODES', 'Connection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters', 'DsnSource']

DbEndpoint = str
Connection = extensions.connection
DsnParameters = Mapping[DbEndpoint, Mapping[str, Any] | str]

_Parameters: TypeAlias = Mapping[str, Any] | str
#: By endpoint, or a callable that receives the endpoint; a value of the mapping may also be such a callable.
DsnSource: TypeAlias = (
    Mapping[DbEndpoint, _Parameters | Callable[[DbEndpoint], _Parameters]] | Callable[[DbEndpoint], _Parameters]
)

_BUSY_OR_LOST = (extensions.TRANSACTION_STATUS_ACTIVE, extensions.TRANSACTION_STATUS_UNKNOWN)

# Seconds that the close of a connection may wait for its user.
_LONGEST_CLOSE = 0.1

logger = GuardedLogger(__name__)


class _Session(LibpqSession):
    """The manager's record of a connection."""

    #: What a full reset restores.
    state: State | None = None


class DbConnectionManager(OnePlace, BaseConnectionManager[DbEndpoint, Connection]):
    """Makes connections with :py:func:`psycopg2.connect`.

    A transaction that the user left open is rolled back when the connection is returned. Session settings
    (``autocommit``, the isolation level, ``readonly``, ``cursor_factory``, ``SET``) stay as the user leaves them,
    unless ``reset='full'``.

    :param dsn_params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`psycopg2.connect`, or a DSN, or a callable that receives the endpoint and returns either; or one such
        callable for all. It is looked up or called at each connect, so endpoints may be added and credentials change.
        For a single place, a DSN, or a dict of its parameters: its endpoint is ``'default'``, also for calls that name
        none (``default_endpoint``).
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection; this does not notice a dead server behind a proxy that keeps the connection
        open.
    :param rollback_timeout: seconds that a release may wait for the server (the rollback of an open transaction, or the
        full reset) before the connection is closed, None for no limit except that of TCP
    :param reset: what a release undoes: ``'rollback'`` an open transaction, ``'full'`` everything that a session can
        carry: also role and session user, settings (``SET``), temporary tables, ``LISTEN``, advisory locks, cursors and
        prepared statements at the server, and of the connection ``autocommit``, the isolation level, ``readonly``,
        ``deferrable``, ``cursor_factory``, the encoding, ``notices`` and ``notifies``. It takes one round trip at each
        release, and one more if a transaction was left open. What ``dsn_params`` has set stays.
    :param broken_codes: SQLSTATEs that make a connection useless, in place of
        :py:data:`gcpool.contrib.psycopg2.BROKEN_CODES`
    :param cancel_timeout: seconds in which the server has to end a statement, and then its session, when the connection
        is closed while a thread waits for the result. After that the slot is free, whether the server has done so or
        not.
    :raise TypeError: ``dsn_params`` is neither a mapping nor callable, a time limit is not a number, or
        ``broken_codes`` is not a collection of strings
    :raise ValueError: a time limit is less than 0 (``cancel_timeout``: or infinite), or ``reset`` is neither
        ``'rollback'`` nor ``'full'``
    """

    def __init__(
        self,
        dsn_params: DsnSource | str | Place,
        *,
        ping: bool = False,
        rollback_timeout: float | None = None,
        reset: Literal['rollback', 'full'] = 'rollback',
        broken_codes: Collection[str] = BROKEN_CODES,
        cancel_timeout: float = CANCEL_TIMEOUT,
    ) -> None:
        dsn_params = self._as_source(dsn_params, text=True)
        check_source(dsn_params, 'dsn_params', or_callable=True)
        self._dsn_params = dsn_params
        self._attempts = Attempts()
        self._ping = ping
        self._rollback_timeout = time_limit('rollback_timeout', rollback_timeout)
        self._resets_all = resets_all(reset)
        self._broken_codes = check_codes(broken_codes, str)
        self._cancel_timeout = bounded_seconds('cancel_timeout', cancel_timeout)
        self._sessions: WeakKeyDictionary[Connection, _Session] = WeakKeyDictionary()
        self._generations = Generations()

    # Not ``broken_on_cancel``: an interruption does not reach a thread before libpq has the answer, unless it waits by
    # a wait callback. Then psycopg2 closes the connection, or its status is that of a running statement.

    def is_refusal(self, endpoint: DbEndpoint, exc: BaseException) -> bool:
        """Return whether a connect failed because the server has no connection left, for any user or for this one.

        :param endpoint: the endpoint of the attempt
        :param exc: what ``create`` raised. libpq passes on the server's message, but not its code: if the server's
            messages are not in English (``lc_messages``), this is False.
        """
        return is_refusal(exc)

    def create(self, endpoint: DbEndpoint, timeout: float | None = None) -> Connection:
        """Connect.

        :param endpoint: known to ``dsn_params``
        :param timeout: seconds that connecting may take (at least a quarter of a second), without the callables; None
            for ``connect_timeout`` in ``dsn_params``, which also applies if it is less. With a limit the connection is
            made in a thread: libpq counts in whole seconds for each host, and without the time to resolve its name. An
            abandoned attempt continues there until libpq ends it; the next one to the same endpoint waits for that, so
            that the server does not see more connections than the pool allows.
        :raise gcpool.exceptions.ConnectTimeout: the timeout expired
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; also a :py:exc:`psycopg2.OperationalError`
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``dsn_params``
        """
        session = _Session(self._generations.latest(endpoint))
        found = look_up(self._dsn_params, endpoint, 'dsn_params')
        params = to_params(found, endpoint, 'dsn_params', text_as='dsn')
        if params.get('async') or params.get('async_'):
            cause = ValueError('async: an asynchronous connection of psycopg2 cannot be pooled, nothing would poll it')
            raise_bad_params(endpoint, cause, 'dsn_params')
        deadline = deadline_after(timeout)
        try:
            conn = self._attempts.connect(
                endpoint, lambda left: connect(params, left), lambda conn: conn.close(), timeout
            )
        except TimeoutError as exc:
            error = psycopg2.OperationalError(f'the server did not answer in time ({exc})')
            raise_connect_timeout(endpoint, error, timeout)
        except psycopg2.OperationalError as exc:
            if 'timeout expired' in str(exc):
                in_time = deadline is None or time.monotonic() < deadline
                raise_connect_timeout(endpoint, exc, None if in_time else timeout)
            if params.get('dsn') and may_show_password(extensions.parse_dsn(params['dsn'])):
                raise_bad_params(endpoint, exc, 'dsn_params', quotes=True)
            raise_connect_error(endpoint, exc, advice_for(str(exc)))
        except (psycopg2.ProgrammingError, *BAD_PARAMS) as exc:
            raise_bad_params(endpoint, exc, 'dsn_params', quotes='dsn' in params)
        self._sessions[conn] = session
        if self._resets_all:
            session.state = state_of(conn)
        return conn

    def dispose(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection, and give the server a moment to end the session.

        That takes a round trip, and at most a tenth of a second. If a statement is running, the server is first asked
        to end it, for at most ``cancel_timeout`` seconds.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :param timeout: seconds that this may take at most. When a pool is closed at short notice, a user may still wait
            for an answer on the connection: that wait is ended, because closing would have to wait for it.
        """
        seconds = self._cancel_timeout if timeout is None else min(timeout, self._cancel_timeout)
        self._end(conn, seconds)
        session = self._sessions.get(conn)
        if session is not None and session.socket is not None:
            held, session.socket = session.socket, None
            with held:
                wait_for_end(held, session.goodbye_time(seconds))

    # Not by dispose(), which the pool calls once for each connection, and which a subclass may count.
    def _end(self, conn: Connection, seconds: float = 0.0) -> None:
        session = self._sessions.get(conn)
        was_at_work = not conn.closed and is_at_work(conn)
        if seconds and was_at_work:
            deadline = time.monotonic() + seconds
            if session is not None:
                session.deadline = deadline
            end_statement(conn, deadline)
        if not conn.closed:
            fd = conn.fileno()
            if session is not None:
                session.hold_socket(fd)
            if is_at_work(conn):
                # Closing would have to wait for a thread that waits for an answer.
                shut_down_descriptor(fd)
        # That thread may have begun its next statement just now.
        with cut_off_after(lambda: shut_down(conn), _LONGEST_CLOSE if was_at_work else None):
            conn.close()

    def check_aliveness(self, endpoint: DbEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Return whether a connection is open. Leaves no transaction open, and without ``ping`` asks only the kernel.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection; fit only if no transaction is open
        :param timeout: seconds that the answer may take, used only with ``ping``: a connection that does not answer is
            closed. Without ``ping`` nothing waits.
        """
        if conn.closed or not is_ready(conn):
            return False
        if self._generations.any_retired and self._is_retired(endpoint, conn):
            return False
        try:
            return is_connected(conn) and (not self._ping or answers(conn, time_to_answer(timeout)))
        except psycopg2.Error:
            self._end(conn)
            return False
        except BaseException:
            self._end(conn)
            raise

    def is_broken(self, endpoint: DbEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Return whether a connection is lost, busy with a statement, or useless after its user's block raised.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :param exc: what the block raised. The connection is useless if ``exc``, an error in its groups or one of its
            causes has one of ``broken_codes``, or is about a statement prepared by SQL whose table was changed. If the
            error discredits the server, the endpoint's older connections are replaced when they are next served.
        """
        if conn.closed or conn.get_transaction_status() in _BUSY_OR_LOST:
            return True
        for error in errors_in(exc):
            if isinstance(error, psycopg2.Error):
                if is_stale_plan(error.pgcode, error.diag.source_function):
                    # The program that prepared it by SQL may have done so on other connections, too.
                    self._retire(endpoint, conn)
                    return True
                if is_useless_after(error.pgcode, self._broken_codes, conn.get_parameter_status):
                    if is_of_the_server(error.pgcode):
                        self._retire(endpoint, conn)
                    return True
        return False

    def on_release(self, endpoint: DbEndpoint, conn: Connection) -> object:
        """Roll back the transaction that the user left open; no round trip if there is none. ``reset='full'`` undoes
        all.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :return: ``ROLLED_BACK`` if a transaction was left open that could have been committed
        :raise gcpool.exceptions.DiscardConnection: it is closed, or cannot be rolled back (broken, or in the middle of
            a statement or of a two-phase commit)
        """
        if conn.closed:
            raise DiscardConnection(f'a connection to {described(self, endpoint)!r} was returned closed')
        if self._generations.any_retired and self._is_retired(endpoint, conn):
            raise DiscardConnection(
                f'a connection to {described(self, endpoint)!r} is older than an error that discredits its server'
            )
        try:
            if is_ready(conn) and not self._resets_all:
                return None
            with cut_off_after(lambda: shut_down(conn), self._rollback_timeout) as was_cut_off:
                # Not after a statement that failed: that could not have been committed.
                left_open = conn.get_transaction_status() == extensions.TRANSACTION_STATUS_INTRANS
                roll_back(conn)
                if self._resets_all:
                    session = self._sessions.get(conn)
                    reset_session(conn, session.state if session is not None else None)
            if was_cut_off():
                raise psycopg2.OperationalError('the server did not answer in time')
        except psycopg2.Error as exc:
            logger.warning(
                'discarding a connection to %r that cannot be rolled back: %s', described(self, endpoint), exc
            )
            raise DiscardConnection(f'a connection to {described(self, endpoint)!r} cannot be rolled back') from exc
        except BaseException:
            self._end(conn)
            raise
        return ROLLED_BACK if left_open else None

    def _retire(self, endpoint: DbEndpoint, conn: Connection) -> None:
        self._generations.retire(endpoint, self._generation_of(conn))

    def _is_retired(self, endpoint: DbEndpoint, conn: Connection) -> bool:
        return self._generations.is_retired(endpoint, self._generation_of(conn))

    def _generation_of(self, conn: Connection) -> int | None:
        session = self._sessions.get(conn)
        return None if session is None else session.generation
