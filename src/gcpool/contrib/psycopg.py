"""PostgreSQL connections made by psycopg 3, for the pools of both runtimes.

:py:class:`ConnectionManager` is for :py:class:`gcpool.threading.ConnectionPool`, :py:class:`AsyncConnectionManager` for
:py:class:`gcpool.asyncio.ConnectionPool`. psycopg's asynchronous connections do not work on Windows' default event loop
(``ProactorEventLoop``).
"""

import asyncio
import contextlib
import functools
import inspect
import logging
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Hashable, Iterator, Mapping
from operator import attrgetter
from typing import Any, Generic, Literal, NoReturn, TypeAlias, TypeVar, cast, get_origin, overload
from weakref import WeakKeyDictionary, ref

from gcpool.contrib._attempts import Attempts, deadline_after, time_left
from gcpool.contrib._errors import (
    BAD_PARAMS,
    check_source,
    errors_in,
    look_up,
    look_up_async,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._libpq import (
    LibpqCancel,
    call_in_thread,
    hold_socket,
    wait_until_gone,
    wait_until_gone_async,
)
from gcpool.contrib._postgres import (
    BROKEN_CODES,
    FULL_RESET,
    MOST_MESSAGES,
    Trust,
    advice_for,
    bounded_seconds,
    checked_codes,
    checked_reset,
    is_of_the_server,
    is_stale_plan,
    is_useless_after,
    may_show_password,
    shorter_connect_timeout,
    time_limit,
)
from gcpool.contrib._sockets import poll_once, time_to_answer
from gcpool.contrib._watchdog import shut_down_descriptor
from gcpool.exceptions import ConnectError, DiscardConnection
from gcpool.managers import AsyncConnectionManager as BaseAsyncConnectionManager
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    import psycopg
    from psycopg import AsyncConnection, Connection, capabilities
    from psycopg.adapt import AdaptersMap
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.errors import ConnectionTimeout, QueryCanceled, error_from_result
    from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus
    from psycopg.pq.abc import PGconn
    from psycopg.rows import TupleRow
    from psycopg.waiting import wait_async
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.psycopg needs psycopg: pip install "gcpool[psycopg]"', name=exc.name) from exc
except ImportError as exc:
    raise ImportError(
        'gcpool.contrib.psycopg needs psycopg with libpq: pip install "gcpool[psycopg]" "psycopg[binary]", or install '
        "libpq by the system's packages",
        name='psycopg',
    ) from exc

__all__ = [
    'BROKEN_CODES',
    'AsyncConnection',
    'AsyncConnectionManager',
    'AsyncConninfoSource',
    'Connection',
    'ConnectionManager',
    'Conninfo',
    'ConninfoSource',
    'DbEndpoint',
]

DbEndpoint: TypeAlias = str

#: A connection string or URI, or the parameters of :py:meth:`psycopg.Connection.connect`.
Conninfo: TypeAlias = str | Mapping[str, Any]

_EndpointT = TypeVar('_EndpointT', bound=Hashable)
_DefaultEndpointT = TypeVar('_DefaultEndpointT', bound=Hashable)
_ConnT = TypeVar('_ConnT', bound=Connection[Any])
_AsyncConnT = TypeVar('_AsyncConnT', bound=AsyncConnection[Any])
_AnyConnT = TypeVar('_AnyConnT')
_ResultT = TypeVar('_ResultT')

#: By endpoint, or a callable of the endpoint; a value of the mapping may be such a callable, too.
ConninfoSource: TypeAlias = (
    Mapping[_EndpointT, Conninfo | Callable[[_EndpointT], Conninfo]] | Callable[[_EndpointT], Conninfo]
)
#: The same, and the callables may be coroutine functions.
AsyncConninfoSource: TypeAlias = (
    Mapping[_EndpointT, Conninfo | Callable[[_EndpointT], Conninfo | Awaitable[Conninfo]]]
    | Callable[[_EndpointT], Conninfo | Awaitable[Conninfo]]
)

# Seconds after which the server is asked once more to end a statement: a request that comes before it has begun with it
# is lost.
_ASK_AGAIN = 0.1
# Seconds between two looks at whether it has ended, where somebody else may wait for that.
_LOOK = 0.002
# Seconds that a thread or task has to leave a connection that is closed under it.
_PATIENCE_WITH_USER = 0.1
# Seconds to end a statement and its session. With the limit of whoever stopped waiting it is less than half a second
# more than that; a server that answers takes milliseconds.
_CANCEL_TIMEOUT = 0.3
# Seconds that the server has at most to let a session go that does nothing: the slot is free after that.
_GOODBYE = 0.1
# Seconds in which configure is cut off at the least, as connecting has some time though the limit is 0.
_SHORTEST_CONFIGURE = 0.05

# How often psycopg looks up while it waits, in seconds.
_INTERVAL: float = inspect.signature(AsyncConnection.wait).parameters['interval'].default

# What a user may change on a connection, and is taken back without asking the server. The first need the connection's
# setters.
_SETTINGS_WITH_SETTERS = ('autocommit', 'isolation_level', 'read_only', 'deferrable')
_SETTINGS = (
    *_SETTINGS_WITH_SETTERS,
    'prepare_threshold',
    'prepared_max',
    'row_factory',
    'cursor_factory',
    'server_cursor_factory',
)
_settings_of = attrgetter(*_SETTINGS)

logger = logging.getLogger(__name__)

# Of the settings, and of the handlers.
_State: TypeAlias = tuple[tuple[Any, ...], tuple[list[Any], ...]]


class _Session:
    """What a manager keeps of a connection."""

    def __init__(self, cancel_timeout: float) -> None:
        self.cancel_timeout = cancel_timeout
        # When connecting was begun, and when there were no prepared statements last.
        self.began = self.unprepared = time.monotonic_ns()
        # As configure has left it; None for a connection that somebody else has made.
        self.state: _State | None = None
        self.adapters: AdaptersMap | None = None
        # A duplicate of the socket when it was closed, and until when the server has time to let the session go.
        self.socket: socket.socket | None = None
        self.deadline: float | None = None

    def leave(self, conn: Connection[Any] | AsyncConnection[Any]) -> None:
        """Close a connection without waiting, also the socket of one that is lost, which psycopg takes for closed."""
        self.hold(conn)
        conn.pgconn.finish()

    def hold(self, conn: Connection[Any] | AsyncConnection[Any]) -> None:
        """Keep the socket beyond the end of the connection."""
        if self.socket is None and not conn.closed:
            self.socket = hold_socket(conn.pgconn.socket)

    def __del__(self) -> None:
        # Of a connection that was never disposed of.
        if self.socket is not None:
            self.socket.close()

    def time_to_let_go(self) -> float:
        """Give the seconds that the server has to let the session go."""
        return _GOODBYE if self.deadline is None else max(self.deadline - time.monotonic(), _SHORTEST_CONFIGURE)


class _Configured(Generic[_AnyConnT]):
    """What the managers of both runtimes keep."""

    # Whose subclass a connection class has to be.
    _BASE: type[Any]

    def _set_up(
        self,
        conninfo: Any,
        kwargs: Mapping[str, Any] | None,
        connection_class: type[_AnyConnT],
        configure: Callable[[Any], Any] | None,
        ping: bool,
        rollback_timeout: float | None,
        reset: str,
        broken_codes: Collection[str],
        cancel_timeout: float,
    ) -> None:
        check_source(conninfo, 'conninfo', or_callable=True)
        given: Any = connection_class
        # It may be an alias, such as Connection[DictRow].
        plain = get_origin(given) or given
        if not isinstance(plain, type) or not issubclass(plain, self._BASE):
            raise TypeError(f'connection_class={given!r}: expected psycopg.{self._BASE.__name__} or a subclass of it')
        self._conninfo = conninfo
        self._kwargs = dict(kwargs or {})
        self._connection_class = connection_class
        self._configure = configure
        self._ping = ping
        self._rollback_timeout = time_limit('rollback_timeout', rollback_timeout)
        self._resets_all = checked_reset(reset)
        self._broken_codes = checked_codes(broken_codes)
        self._cancel_timeout = bounded_seconds('cancel_timeout', cancel_timeout)
        self._sessions: WeakKeyDictionary[_AnyConnT, _Session] = WeakKeyDictionary()
        # In servers, and in what they have prepared.
        self._trust = Trust()
        self._trust_in_plans = Trust()

    def _session_of(self, conn: Any) -> _Session:
        session = self._sessions.get(conn)
        if session is None:
            # Of one that somebody else has made.
            session = self._sessions[conn] = _Session(self._cancel_timeout)
        return session

    def _keep(self, conn: Any, began: int) -> _Session:
        # Until it is configured, the limit of whoever acquires it counts.
        session = self._sessions[conn] = _Session(min(self._cancel_timeout, _CANCEL_TIMEOUT))
        session.began = session.unprepared = began
        if self._resets_all:
            session.adapters = _copy_of_adapters(conn._adapters)  # noqa: SLF001
        return session

    def _is_as_new(self, endpoint: Hashable, conn: Any) -> bool:
        """Whether a connection is trusted, and nothing is left of the last user's work: a release that was cut off may
        have left all of it.
        """
        if _why_unfit(conn) is not None:
            return False
        session = self._sessions.get(conn)
        return session is None or (
            (self._trust.is_whole or self._trust.covers(endpoint, session.began))
            and (session.state is None or (_settings_of(conn), _handlers_of(conn)) == session.state)
        )

    def _check_command(self, endpoint: Hashable, conn: Any) -> bytes | None:
        """What a check has to ask the server; None for nothing."""
        if not self._trust_in_plans.is_whole:
            session = self._session_of(conn)
            if not self._trust_in_plans.covers(endpoint, session.unprepared):
                _forget_prepared(conn, session)
                return b'DEALLOCATE ALL'
        return b'' if self._ping else None

    def _is_useless(self, endpoint: Hashable, conn: Any, exc: BaseException) -> bool:
        """Whether a connection is lost, in the middle of something, or of no use after an error."""
        if _why_unfit(conn) is not None:
            return True
        for error in errors_in(exc):
            if isinstance(error, psycopg.Error):
                if is_stale_plan(error.sqlstate, error.diag.source_function):
                    self._trust_in_plans.lose(endpoint)
                    return True
                if is_useless_after(error.sqlstate, self._broken_codes, lambda name: _setting(conn, name)):
                    if is_of_the_server(error.sqlstate):
                        self._trust.lose(endpoint)
                    return True
        return False

    def _check_fit(self, endpoint: Hashable, conn: Any) -> None:
        why = _why_unfit(conn)
        if why is not None:
            if not conn.closed:
                logger.warning('discarding a connection to %r that was given back %s', endpoint, why)
            raise DiscardConnection(f'a connection to {endpoint!r} was given back {why}')
        if not self._trust.is_whole and not self._trust.covers(endpoint, self._session_of(conn).began):
            raise DiscardConnection(f'a connection to {endpoint!r} is older than an error that speaks of its server')

    def _release_command(self, endpoint: Hashable, conn: Any) -> bytes:
        """What a release has to ask the server, in one message; empty for nothing."""
        in_transaction = conn.pgconn.transaction_status != TransactionStatus.IDLE
        if not (in_transaction or self._resets_all):
            return b''
        session = self._session_of(conn)
        parts = [b'ROLLBACK'] if in_transaction else []
        if self._resets_all:
            parts.append(FULL_RESET.encode())
            _forget_prepared(conn, session)
        elif conn._prepared._names:  # noqa: SLF001
            # As psycopg does: objects that are made anew would not be those that were prepared for.
            parts.append(b'DEALLOCATE ALL')
            _forget_prepared(conn, session)
        return b'; '.join(parts)

    def _take_back(self, conn: Any) -> list[tuple[str, Any]]:
        """Take back the handlers, and give what is left to take back: names and values of settings."""
        session = self._sessions.get(conn)
        if session is None or session.state is None:
            return []
        if self._resets_all:
            conn._adapters = _copy_of_adapters(session.adapters)  # noqa: SLF001
            _forget_notifications(conn)
        settings, all_handlers = session.state
        all_handlers_now = _handlers_of(conn)
        if all_handlers_now != all_handlers:
            for now, handlers in zip(all_handlers_now, all_handlers, strict=True):
                now[:] = handlers
        current_settings = _settings_of(conn)
        if current_settings == settings:
            return []
        return [
            (name, value)
            for name, value, current in zip(_SETTINGS, settings, current_settings, strict=True)
            if value is not current and value != current
        ]


class ConnectionManager(_Configured[_ConnT], BaseConnectionManager[_EndpointT, _ConnT], Generic[_EndpointT, _ConnT]):
    """Makes connections with :py:meth:`psycopg.Connection.connect`.

    When a connection is given back, a transaction that the user left open is rolled back, and what the user changed of
    its ``autocommit``, ``isolation_level``, ``read_only``, ``deferrable``, ``prepare_threshold``, ``prepared_max``,
    factories and handlers is taken back. Adapters, and what was changed at the server (``SET``, ``LISTEN``, temporary
    tables, advisory locks) stay, unless ``reset='full'``. A connection left in the middle of a statement, a stream, a
    ``COPY``, a pipeline, a ``transaction()`` block or a two-phase commit is discarded.

    :param conninfo: how to reach each endpoint (any hashable; often a name for the database): a mapping of endpoints to
        connection strings, or to mappings of the parameters of :py:meth:`psycopg.Connection.connect`, or to callables
        of the endpoint that return either; or one such callable for all. It is asked at each connect, so that endpoints
        may be added and credentials change.
    :param kwargs: parameters of :py:meth:`psycopg.Connection.connect` for every endpoint (``conninfo`` has precedence)
    :param connection_class: whose ``connect`` is called: psycopg's own, or a subclass of it
    :param configure: called with each new connection; it must leave no transaction open. What it asks the server is
        bounded by the timeout of an acquire.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection, which does not find a server behind a proxy that keeps the connection open.
    :param rollback_timeout: seconds that a release may wait for the server before the connection is given up (the
        rollback of a transaction left open, or the full reset with ``configure``), None for no limit but that of TCP
    :param reset: what a release takes back at the server: ``'rollback'`` a transaction that was left open, ``'full'``
        all that a session can carry: also role and session user, settings (``SET``), temporary tables, ``LISTEN``,
        advisory locks, cursors, prepared statements with psycopg's cache of them, and adapters; one round trip at each
        release. What the parameters of the connection have set stays. ``configure`` is called again after it.
    :param broken_codes: SQLSTATEs after which a connection is of no use, in place of
        :py:data:`gcpool.contrib.psycopg.BROKEN_CODES`
    :param cancel_timeout: seconds in which the server has to end a statement, and then its session, when nobody waits
        for the result any more. After that the connection is closed and its slot is free, whether the server has
        done so or not.
    :raise TypeError: ``conninfo`` is neither a mapping nor callable, ``configure`` is a coroutine function,
        ``connection_class`` is no such class, a time limit is no number, or ``broken_codes`` is no collection of
        strings
    :raise ValueError: a time limit is less than 0 (``cancel_timeout``: or infinite), or ``reset`` is neither
        ``'rollback'`` nor ``'full'``
    """

    _BASE = Connection

    @overload
    def __init__(
        self: 'ConnectionManager[_DefaultEndpointT, Connection[TupleRow]]',
        conninfo: ConninfoSource[_DefaultEndpointT],
        *,
        kwargs: Mapping[str, Any] | None = None,
        configure: Callable[[Connection[TupleRow]], object] | None = None,
        ping: bool = False,
        rollback_timeout: float | None = None,
        reset: Literal['rollback', 'full'] = 'rollback',
        broken_codes: Collection[str] = BROKEN_CODES,
        cancel_timeout: float = _CANCEL_TIMEOUT,
    ) -> None: ...

    @overload
    def __init__(
        self,
        conninfo: ConninfoSource[_EndpointT],
        *,
        kwargs: Mapping[str, Any] | None = None,
        connection_class: type[_ConnT],
        configure: Callable[[_ConnT], object] | None = None,
        ping: bool = False,
        rollback_timeout: float | None = None,
        reset: Literal['rollback', 'full'] = 'rollback',
        broken_codes: Collection[str] = BROKEN_CODES,
        cancel_timeout: float = _CANCEL_TIMEOUT,
    ) -> None: ...

    def __init__(
        self,
        conninfo: Any,
        *,
        kwargs: Mapping[str, Any] | None = None,
        connection_class: type[Any] = Connection,
        configure: Callable[[Any], object] | None = None,
        ping: bool = False,
        rollback_timeout: float | None = None,
        reset: Literal['rollback', 'full'] = 'rollback',
        broken_codes: Collection[str] = BROKEN_CODES,
        cancel_timeout: float = _CANCEL_TIMEOUT,
    ) -> None:
        if inspect.iscoroutinefunction(configure):
            raise TypeError('configure: expected a plain function, got a coroutine function; nothing would await it')
        self._attempts = Attempts()
        self._set_up(
            conninfo,
            kwargs,
            connection_class,
            configure,
            ping,
            rollback_timeout,
            reset,
            broken_codes,
            cancel_timeout,
        )

    def create(self, endpoint: _EndpointT, timeout: float | None = None) -> _ConnT:
        """Connect.

        :param endpoint: known to ``conninfo``
        :param timeout: seconds that connecting may take (a quarter of a second at the least), and what ``configure``
            asks the server, without the time of the callables; None for ``connect_timeout`` in the parameters, which
            otherwise holds for connecting if it is less. With a limit the connection is made in a thread: psycopg
            counts in whole seconds for each host, and not the time to resolve its name. An attempt that is given up
            goes on there until psycopg ends it; the next one to the same endpoint waits for that, so that the server
            does not see more connections than the pool allows.
        :raise gcpool.exceptions.ConnectTimeout: the time is over
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; a :py:exc:`psycopg.OperationalError`, too
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``conninfo``
        :raise TypeError: ``configure`` has returned an awaitable
        """
        params = _params(endpoint, look_up(self._conninfo, endpoint, 'conninfo'), self._kwargs)
        began = time.monotonic_ns()
        deadline = deadline_after(timeout)
        try:
            conn = self._attempts.connect(endpoint, lambda left: self._connect(params, left), _close, timeout)
        except (psycopg.Error, TimeoutError, *BAD_PARAMS) as exc:
            _raise_typed(endpoint, params, exc, timeout)
        session = self._keep(conn, began)
        try:
            if self._configure is not None:
                self._run_configure(self._configure, endpoint, conn, deadline, timeout)
            _check_configured(endpoint, conn)
            session.state = _state_of(conn)
        except BaseException:
            self._farewell(conn, session.cancel_timeout)
            raise
        session.cancel_timeout = self._cancel_timeout
        return conn

    @staticmethod
    def _run_configure(
        configure: Callable[[_ConnT], object],
        endpoint: _EndpointT,
        conn: _ConnT,
        deadline: float | None,
        timeout: float | None,
    ) -> None:
        with _waits_until(conn, deadline) as is_over:
            try:
                _check_not_awaitable(configure(conn))
            except Exception:
                if not is_over():
                    raise
            if is_over():
                raise_connect_timeout(endpoint, ConnectionTimeout('configure had no answer in time'), timeout)

    def _connect(self, params: dict[str, Any], timeout: float | None) -> _ConnT:
        if timeout is not None:
            params = {**params, 'connect_timeout': _connect_timeout(timeout, params)}
        try:
            return self._connection_class.connect(**params)
        except BaseException as exc:
            _let_go(exc)
            raise

    def dispose(self, endpoint: _EndpointT, conn: _ConnT, timeout: float | None = None) -> None:
        """Close a connection, and give the server a moment to let the session go.

        That takes a round trip, and a tenth of a second at the most. The server is first asked to end a statement that
        it is at work on, for ``cancel_timeout`` seconds at most.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param timeout: seconds that this may take at most. A pool closed in a hurry also disposes of a connection whose
            user waits for an answer: that wait is ended, and the user has a moment to leave the connection.
        """
        self._farewell(conn, self._cancel_timeout if timeout is None else min(timeout, self._cancel_timeout))

    def _farewell(self, conn: _ConnT, seconds: float) -> None:
        session = self._session_of(conn)
        locked = False
        try:
            if _is_at_work(conn):
                session.deadline = deadline = time.monotonic() + seconds
                while not _has_answer(conn) and (left := deadline - time.monotonic()) > 0:
                    _ask_to_cancel(conn, left)
                    ask_again = min(time.monotonic() + _ASK_AGAIN, deadline)
                    while not _has_answer(conn) and time.monotonic() < ask_again:
                        time.sleep(_LOOK)
                if conn.lock.locked():
                    locked = conn.lock.acquire(timeout=min(_PATIENCE_WITH_USER, seconds))
                    if not locked and _cut_off_user(conn):
                        locked = conn.lock.acquire(timeout=_PATIENCE_WITH_USER)
            session.hold(conn)
            # The goodbye is sent without waiting.
            conn.close()
        finally:
            session.leave(conn)
            if locked:
                conn.lock.release()
        held, session.socket = session.socket, None
        if held is not None:
            wait_until_gone(held, min(session.time_to_let_go(), seconds))

    def check_aliveness(self, endpoint: _EndpointT, conn: _ConnT, timeout: float | None = None) -> bool:
        """Tell whether a connection is open, and as it was at first. Without ``ping`` it asks only the kernel.

        :param endpoint: where the connection leads
        :param conn: the connection; it is in doubt unless no transaction is open
        :param timeout: seconds that the answer may take, used only with ``ping``: what does not answer is closed.
            Without ``ping`` nothing waits.
        """
        try:
            if not (self._is_as_new(endpoint, conn) and _is_connected(conn)):
                return False
            command = self._check_command(endpoint, conn)
            if command is not None:
                _exchange(conn.pgconn, command, time_to_answer(timeout))
        except psycopg.Error:
            self._session_of(conn).leave(conn)
            return False
        except BaseException:
            self._session_of(conn).leave(conn)
            raise
        return True

    def is_broken(self, endpoint: _EndpointT, conn: _ConnT, exc: BaseException) -> bool:
        """Tell whether a connection is lost, in the middle of something, or of no use after its user's block raised.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param exc: what the block raised. An error in it, in its groups or among its causes, that has one of
            ``broken_codes`` makes the connection useless, and so does one of a prepared statement whose table was
            changed. If the error speaks of the server, the connections to the endpoint from before are replaced when
            they are next to be served; what they have prepared is dropped if it speaks of that.
        """
        return self._is_useless(endpoint, conn, exc)

    def on_release(self, endpoint: _EndpointT, conn: _ConnT) -> None:
        """Roll back the transaction that the user left open, and take back settings; no round trip if there is none.

        :param endpoint: where the connection leads
        :param conn: the connection
        :raise gcpool.exceptions.DiscardConnection: it is closed, in the middle of something, or cannot be rolled back
        """
        self._check_fit(endpoint, conn)
        try:
            command = self._release_command(endpoint, conn)
            deadline = deadline_after(self._rollback_timeout)
            if command:
                _exchange(conn.pgconn, command, self._rollback_timeout)
            self._set_back(conn)
            if self._resets_all and self._configure is not None:
                self._run_configure(self._configure, endpoint, conn, deadline, self._rollback_timeout)
                _check_configured(endpoint, conn)
                self._set_back(conn)
        except Exception as exc:  # noqa: BLE001  (of configure, it may be any)
            self._session_of(conn).leave(conn)
            _discard(endpoint, exc)
        except BaseException:
            self._session_of(conn).leave(conn)
            raise

    def _set_back(self, conn: _ConnT) -> None:
        for name, value in self._take_back(conn):
            setattr(conn, name, value)


class AsyncConnectionManager(
    _Configured[_AsyncConnT], BaseAsyncConnectionManager[_EndpointT, _AsyncConnT], Generic[_EndpointT, _AsyncConnT]
):
    """Makes connections with :py:meth:`psycopg.AsyncConnection.connect`.

    What it does with a connection that is given back, :py:class:`ConnectionManager` says.

    :param conninfo: how to reach each endpoint, as for :py:class:`ConnectionManager`; callables may be coroutine
        functions
    :param kwargs: parameters of :py:meth:`psycopg.AsyncConnection.connect` for every endpoint (``conninfo`` has
        precedence)
    :param connection_class: whose ``connect`` is called: psycopg's own, or a subclass of it
    :param configure: a coroutine function, called with each new connection; it must leave no transaction open
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection, which does not find a server behind a proxy that keeps the connection open.
    :param rollback_timeout: seconds that a release may wait for the server before the connection is given up (the
        rollback of a transaction left open, or the full reset with ``configure``), None for no limit but that of TCP
    :param reset: as for :py:class:`ConnectionManager`
    :param broken_codes: as for :py:class:`ConnectionManager`
    :param cancel_timeout: seconds in which the server has to end a statement, and then its session, when nobody waits
        for the result any more (its task was cancelled, or the connection is closed under it); psycopg itself takes up
        to 10. After that the connection is closed and its slot is free, whether the server has done so or not.
    :raise TypeError: ``conninfo`` is neither a mapping nor callable, ``connection_class`` is no such class, a time
        limit is no number, or ``broken_codes`` is no collection of strings
    :raise ValueError: a time limit is less than 0 (``cancel_timeout``: or infinite), or ``reset`` is neither
        ``'rollback'`` nor ``'full'``
    """

    _BASE = AsyncConnection

    @overload
    def __init__(
        self: 'AsyncConnectionManager[_DefaultEndpointT, AsyncConnection[TupleRow]]',
        conninfo: AsyncConninfoSource[_DefaultEndpointT],
        *,
        kwargs: Mapping[str, Any] | None = None,
        configure: Callable[[AsyncConnection[TupleRow]], Awaitable[object]] | None = None,
        ping: bool = False,
        rollback_timeout: float | None = None,
        reset: Literal['rollback', 'full'] = 'rollback',
        broken_codes: Collection[str] = BROKEN_CODES,
        cancel_timeout: float = _CANCEL_TIMEOUT,
    ) -> None: ...

    @overload
    def __init__(
        self,
        conninfo: AsyncConninfoSource[_EndpointT],
        *,
        kwargs: Mapping[str, Any] | None = None,
        connection_class: type[_AsyncConnT],
        configure: Callable[[_AsyncConnT], Awaitable[object]] | None = None,
        ping: bool = False,
        rollback_timeout: float | None = None,
        reset: Literal['rollback', 'full'] = 'rollback',
        broken_codes: Collection[str] = BROKEN_CODES,
        cancel_timeout: float = _CANCEL_TIMEOUT,
    ) -> None: ...

    def __init__(
        self,
        conninfo: Any,
        *,
        kwargs: Mapping[str, Any] | None = None,
        connection_class: type[Any] = AsyncConnection,
        configure: Callable[[Any], Awaitable[object]] | None = None,
        ping: bool = False,
        rollback_timeout: float | None = None,
        reset: Literal['rollback', 'full'] = 'rollback',
        broken_codes: Collection[str] = BROKEN_CODES,
        cancel_timeout: float = _CANCEL_TIMEOUT,
    ) -> None:
        self._set_up(
            conninfo,
            kwargs,
            connection_class,
            configure,
            ping,
            rollback_timeout,
            reset,
            broken_codes,
            cancel_timeout,
        )

    async def create(self, endpoint: _EndpointT) -> _AsyncConnT:
        """Connect. Cancelled half-way it leaves nothing open.

        :param endpoint: known to ``conninfo``
        :raise gcpool.exceptions.ConnectTimeout: psycopg's ``connect_timeout`` is over
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; a :py:exc:`psycopg.OperationalError`, too
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``conninfo``
        """
        params = _params(endpoint, await look_up_async(self._conninfo, endpoint, 'conninfo'), self._kwargs)
        began = time.monotonic_ns()
        try:
            conn = await self._connection_class.connect(**params)
        except (psycopg.Error, *BAD_PARAMS) as exc:
            _let_go(exc)
            _raise_typed(endpoint, params, exc, None)
        except BaseException as exc:
            _let_go(exc)
            raise
        session = self._keep(conn, began)
        if type(conn).wait is AsyncConnection.wait:
            # On this connection alone, in place of psycopg's, and without a reference to itself.
            vars(conn)['wait'] = functools.partial(_wait, ref(conn), session)
        try:
            if self._configure is not None:
                await self._configure(conn)
            _check_configured(endpoint, conn)
            session.state = _state_of(conn)
        except BaseException:
            await _to_its_end(self._farewell(conn, session.cancel_timeout))
            raise
        session.cancel_timeout = self._cancel_timeout
        return conn

    async def dispose(self, endpoint: _EndpointT, conn: _AsyncConnT) -> None:
        """Close a connection, and give the server a moment to let the session go.

        That takes a round trip, and a tenth of a second at the most. The server is first asked to end a statement that
        it is at work on, for ``cancel_timeout`` seconds at most. A pool closed in a hurry also disposes of a connection
        whose user waits for an answer: that wait is ended, and the user has a moment to leave the connection.

        :param endpoint: where the connection leads
        :param conn: the connection
        """
        await self._farewell(conn, self._cancel_timeout)

    async def _farewell(self, conn: _AsyncConnT, seconds: float) -> None:
        session = self._session_of(conn)
        locked = False
        try:
            if _is_at_work(conn):
                session.deadline = deadline = time.monotonic() + seconds
                while not _has_answer(conn) and (left := deadline - time.monotonic()) > 0:
                    await _ask_to_cancel_async(conn, left)
                    ask_again = min(time.monotonic() + _ASK_AGAIN, deadline)
                    # Whoever waits for the answer has the loop watch the socket, which can have one watcher.
                    while not _has_answer(conn) and time.monotonic() < ask_again:  # noqa: ASYNC110
                        await asyncio.sleep(_LOOK)
                if conn.lock.locked():
                    locked = await _locks(conn.lock, min(_PATIENCE_WITH_USER, seconds))
                    if not locked and _cut_off_user(conn):
                        locked = await _locks(conn.lock, _PATIENCE_WITH_USER)
            session.hold(conn)
            await conn.close()
        finally:
            session.leave(conn)
            if locked:
                conn.lock.release()
            held, session.socket = session.socket, None
            if held is not None:
                with held:
                    await wait_until_gone_async(held, min(session.time_to_let_go(), seconds))

    async def check_aliveness(self, endpoint: _EndpointT, conn: _AsyncConnT) -> bool:
        """Tell whether a connection is open, and as it was at first. Without ``ping`` it asks only the kernel, and
        waits for nothing.

        Cancelled half-way it leaves the connection closed.

        :param endpoint: where the connection leads
        :param conn: the connection; it is in doubt unless no transaction is open
        """
        try:
            if not (self._is_as_new(endpoint, conn) and _is_connected(conn)):
                return False
            command = self._check_command(endpoint, conn)
            if command is not None:
                await _exchange_async(conn.pgconn, command, None)
        except psycopg.Error:
            self._session_of(conn).leave(conn)
            return False
        except BaseException:
            self._session_of(conn).leave(conn)
            raise
        return True

    async def is_broken(self, endpoint: _EndpointT, conn: _AsyncConnT, exc: BaseException) -> bool:
        """Tell whether a connection is lost, in the middle of something, or of no use after its user's block raised.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param exc: what the block raised. An error in it, in its groups or among its causes, that has one of
            ``broken_codes`` makes the connection useless, and so does one of a prepared statement whose table was
            changed. If the error speaks of the server, the connections to the endpoint from before are replaced when
            they are next to be served; what they have prepared is dropped if it speaks of that.
        """
        return self._is_useless(endpoint, conn, exc)

    async def on_release(self, endpoint: _EndpointT, conn: _AsyncConnT) -> None:
        """Roll back the transaction that the user left open, and take back settings; no round trip if there is none.

        :param endpoint: where the connection leads
        :param conn: the connection
        :raise gcpool.exceptions.DiscardConnection: it is closed, in the middle of something, or cannot be rolled back
        """
        self._check_fit(endpoint, conn)
        try:
            command = self._release_command(endpoint, conn)
            deadline = deadline_after(self._rollback_timeout)
            if command:
                await _exchange_async(conn.pgconn, command, self._rollback_timeout)
            await self._set_back(conn)
            if self._resets_all and self._configure is not None:
                await asyncio.wait_for(self._configure(conn), time_left(deadline))
                _check_configured(endpoint, conn)
                await self._set_back(conn)
        except Exception as exc:  # noqa: BLE001  (of configure, it may be any)
            self._session_of(conn).leave(conn)
            _discard(endpoint, exc)
        except BaseException:
            self._session_of(conn).leave(conn)
            raise

    async def _set_back(self, conn: _AsyncConnT) -> None:
        for name, value in self._take_back(conn):
            if name in _SETTINGS_WITH_SETTERS:
                await getattr(conn, f'set_{name}')(value)
            else:
                setattr(conn, name, value)


async def _wait(
    connection: 'ref[AsyncConnection[Any]]',
    session: _Session,
    gen: Generator[Any, Any, _ResultT],
    interval: float = _INTERVAL,
    **options: Any,
) -> _ResultT:
    """Do what :py:meth:`psycopg.AsyncConnection.wait` does; but what follows a cancellation is bounded, not cut off.

    psycopg waits up to 5 seconds each for the server to take its request to cancel, and to end the statement. Is it
    cancelled once more meanwhile (as anyio's scopes do at each turn of the loop), it closes the connection, and the
    server goes on with the statement.
    """
    # Whoever calls this holds it.
    conn = cast('AsyncConnection[Any]', connection())
    try:
        return await wait_async(gen, conn.pgconn.socket, interval=interval, **options)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        if _is_at_work(conn):
            await _to_its_end(_end_statement(conn, session, gen))
        raise


async def _end_statement(conn: AsyncConnection[Any], session: _Session, gen: Generator[Any, Any, object]) -> None:
    """Ask the server to end the statement and take what it answers: the connection is good again. Else close it."""
    deadline = time.monotonic() + session.cancel_timeout
    ending = asyncio.ensure_future(wait_async(gen, conn.pgconn.socket, interval=_INTERVAL))
    try:
        while not ending.done() and (left := deadline - time.monotonic()) > 0:
            await _ask_to_cancel_async(conn, left)
            await asyncio.wait((ending,), timeout=min(max(deadline - time.monotonic(), 0.0), _ASK_AGAIN))
    finally:
        while not ending.done():
            # Perhaps more than once: psycopg before 3.3 loses a cancellation that comes when its interval is over.
            ending.cancel()
            await asyncio.wait((ending,), timeout=_LOOK)
        failure = None if ending.cancelled() else ending.exception()
        if failure is not None and not isinstance(failure, QueryCanceled):
            logger.info('a statement that nobody waits for has not ended as it should: %s', failure)
        if _is_at_work(conn):
            session.deadline = deadline
            session.leave(conn)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await what is bounded in time, and has to be done though the task is cancelled, as often as that may be.

    For whoever raises on the first cancellation afterwards.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


async def _locks(lock: asyncio.Lock, seconds: float) -> bool:
    try:
        return await asyncio.wait_for(lock.acquire(), seconds)
    except asyncio.TimeoutError:
        return False


def _params(endpoint: Hashable, found: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    params = {**kwargs, **to_params(found, endpoint, 'conninfo', text_as='conninfo')}
    # psycopg fails at these with an AttributeError, at the context after it has connected.
    text, context = params.get('conninfo'), params.get('context')
    if text is not None and not isinstance(text, str):
        cause = TypeError(f"expected a connection string as 'conninfo', not a {type(text).__name__}")
        raise_bad_params(endpoint, cause, 'conninfo')
    if context and not hasattr(context, 'adapters'):
        cause = TypeError(f"expected an AdaptContext as 'context', not a {type(context).__name__}")
        raise_bad_params(endpoint, cause, 'conninfo')
    return params


def _connect_timeout(timeout: float, params: Mapping[str, Any]) -> int:
    configured = params.get('connect_timeout')
    if configured is None and params.get('conninfo'):
        configured = conninfo_to_dict(params['conninfo']).get('connect_timeout')
    try:
        return shorter_connect_timeout(timeout, configured)
    except BAD_PARAMS:
        raise psycopg.ProgrammingError(f'bad value for connect_timeout: {configured!r}') from None


def _raise_typed(
    endpoint: Hashable,
    params: Mapping[str, Any],
    exc: psycopg.Error | TimeoutError | TypeError | ValueError | OverflowError,
    timeout: float | None,
) -> NoReturn:
    if isinstance(exc, TimeoutError):
        cause = ConnectionTimeout(f'the server did not answer in time ({exc})')
        raise_connect_timeout(endpoint, cause, timeout)
    if not isinstance(exc, psycopg.Error):
        raise_bad_params(endpoint, exc, 'conninfo', quotes='conninfo' in params)
    # What it keeps of the attempt has the password, for whoever shows the attributes of errors.
    exc._pgconn = None  # noqa: SLF001
    if isinstance(exc, ConnectionTimeout):
        raise_connect_timeout(endpoint, exc, None)
    if isinstance(exc, psycopg.ProgrammingError):
        raise_bad_params(endpoint, exc, 'conninfo', quotes='conninfo' in params)
    if params.get('conninfo') and may_show_password(conninfo_to_dict(params['conninfo'])):
        raise_bad_params(endpoint, exc, 'conninfo', quotes=True)
    raise_connect_error(endpoint, exc, advice_for(str(exc), exc.sqlstate))


def _let_go(exc: BaseException) -> None:
    """Close what a failed connect has opened: psycopg leaves that to the end of its own, which the error refers to."""
    traceback.clear_frames(exc.__traceback__)


def _check_configured(endpoint: Hashable, conn: Connection[Any] | AsyncConnection[Any]) -> None:
    status = conn.pgconn.transaction_status
    if status != TransactionStatus.IDLE:
        raise ConnectError(
            f'configure left the connection to endpoint {endpoint!r} in status {TransactionStatus(status).name}; '
            'let it commit, or use autocommit',
            endpoint,
        )


def _check_not_awaitable(returned: object) -> None:
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError('configure returned an awaitable; nothing would await it')


def _why_unfit(conn: Connection[Any] | AsyncConnection[Any]) -> str | None:
    """What is left of the last user's work that cannot be mended; None if there is nothing."""
    if conn.closed:
        return 'closed'
    if conn.pgconn.transaction_status in (TransactionStatus.ACTIVE, TransactionStatus.UNKNOWN):
        return 'in the middle of a statement'
    if conn.pgconn.pipeline_status != PipelineStatus.OFF:
        return 'in pipeline mode'
    if conn.lock.locked():
        # Also by a generator that was not read to its end.
        return 'in use'
    # psycopg has no public way to know these: after tpc_prepare(), or a COMMIT by SQL, there is no transaction in the
    # session any more.
    if getattr(conn, '_tpc', None) is not None:
        return 'in a two-phase commit'
    if getattr(conn, '_num_transactions', 0):
        return 'in a transaction() block'
    return None


def _discard(endpoint: Hashable, exc: Exception) -> NoReturn:
    reason = str(exc) or type(exc).__name__
    logger.warning('discarding a connection to %r that cannot be rolled back: %s', endpoint, reason)
    raise DiscardConnection(f'a connection to {endpoint!r} cannot be rolled back') from exc


def _state_of(conn: Any) -> _State:
    return _settings_of(conn), tuple(map(list, _handlers_of(conn)))


def _handlers_of(conn: Any) -> tuple[list[Any], ...]:
    # The lists of those who want to be told. psycopg has no public way to read them.
    return getattr(conn, '_notice_handlers', []), getattr(conn, '_notify_handlers', [])


def _copy_of_adapters(adapters: AdaptersMap | None) -> AdaptersMap | None:
    # psycopg makes its own as soon as it is asked for.
    return None if adapters is None else AdaptersMap(adapters)


def _forget_prepared(conn: Any, session: _Session) -> None:
    """Clear psycopg's cache of prepared statements, for which there is no public way, before the server drops them."""
    session.unprepared = time.monotonic_ns()
    conn._prepared.clear()  # noqa: SLF001
    # It is not to be told once more.
    conn._prepared._to_flush.clear()  # noqa: SLF001


def _forget_notifications(conn: Any) -> None:
    while conn.pgconn.notifies() is not None:
        pass
    if backlog := getattr(conn, '_notifies_backlog', None):
        backlog.clear()


def _setting(conn: Connection[Any] | AsyncConnection[Any], name: str) -> str | None:
    value = conn.pgconn.parameter_status(name.encode())
    return None if value is None else value.decode()


def _is_connected(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    pgconn = conn.pgconn
    if conn.closed or pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    for _ in range(MOST_MESSAGES):
        readable, finished = poll_once(pgconn.socket)
        if finished:
            return False
        if not readable:
            break
        # The server may speak unasked: a notification, or that it shuts down. This takes in what has arrived (psycopg
        # delivers notifications with the next statement) and fails if that was the end; it sends nothing.
        pgconn.consume_input()
        if pgconn.is_busy():
            return False
    return not conn.closed


def _conversation(pgconn: PGconn, command: bytes) -> Generator[None, None, None]:
    """Send statements by the simple protocol and read the answers; yields when the next one has not arrived.

    Not by a cursor: that would begin a transaction, and ask a dead server to cancel when it is cut off.

    :raise psycopg.Error: the server refuses them, or is lost
    """
    pgconn.send_query(command)
    pgconn.flush()
    failed = answered = None
    while True:
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if failed is not None:
                    raise error_from_result(failed)
                if answered is None or pgconn.transaction_status != TransactionStatus.IDLE:
                    raise psycopg.OperationalError('the server did not answer as it should')
                return
            answered = result
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY):
                failed = result
        yield


def _exchange(pgconn: PGconn, command: bytes, timeout: float | None) -> None:
    """Have statements executed.

    :raise psycopg.Error: that failed, or the time is over
    """
    deadline = deadline_after(timeout)
    conversation = _conversation(pgconn, command)
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        for _ in conversation:
            if not selector.select(time_left(deadline)):
                raise psycopg.OperationalError('the server did not answer in time')


async def _exchange_async(pgconn: PGconn, command: bytes, timeout: float | None) -> None:
    loop = asyncio.get_running_loop()
    deadline = deadline_after(timeout)
    arrived, fd = asyncio.Event(), pgconn.socket
    loop.add_reader(fd, arrived.set)
    timer = None if timeout is None else loop.call_later(timeout, arrived.set)
    try:
        for _ in _conversation(pgconn, command):
            if time_left(deadline) == 0.0:
                raise psycopg.OperationalError('the server did not answer in time')
            arrived.clear()
            await arrived.wait()
    finally:
        loop.remove_reader(fd)
        if timer is not None:
            timer.cancel()


@contextlib.contextmanager
def _waits_until(conn: Connection[Any], deadline: float | None) -> Iterator[Callable[[], bool]]:
    """Bound what a connection waits for in the block, without a thread: psycopg looks up at intervals.

    :param conn: the connection
    :param deadline: of :py:func:`time.monotonic`, None for no limit
    :return: of the context: tells whether the time was over. Each wait raises ConnectionTimeout then.
    """
    if deadline is None:
        yield lambda: False
        return
    limit = max(deadline, time.monotonic() + _SHORTEST_CONFIGURE)
    wait = conn.wait
    was_over = False

    def watched(gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        nonlocal was_over
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() >= limit:
                    was_over = True
                    raise ConnectionTimeout('the server did not answer in time')
                wanted = gen.send(ready)
        except StopIteration as stop:
            return stop.value

    def bounded(gen: Generator[Any, Any, Any], interval: float = _INTERVAL, **options: Any) -> Any:
        left = max(limit - time.monotonic(), 0.001)
        return wait(watched(gen), interval=min(interval, left), **options)

    vars(conn)['wait'] = bounded
    try:
        yield lambda: was_over
    finally:
        del vars(conn)['wait']


def _is_at_work(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    return not conn.closed and conn.pgconn.transaction_status == TransactionStatus.ACTIVE


def _has_answer(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Whether a statement has ended, or what the server says of it has not been read."""
    return not _is_at_work(conn) or poll_once(conn.pgconn.socket)[0]


def _ask_to_cancel(conn: Connection[Any], seconds: float) -> None:
    if capabilities.has_cancel_safe():
        try:
            conn.cancel_safe(timeout=max(seconds, 0.001))
        except (psycopg.Error, OSError) as exc:
            logger.info('the server cannot be asked to end a statement: %s', exc)
    else:
        ended = threading.Event()
        call_in_thread(_blocking_cancel(conn.pgconn), ended.set)
        ended.wait(seconds)


async def _ask_to_cancel_async(conn: AsyncConnection[Any], seconds: float) -> None:
    if capabilities.has_cancel_safe():
        try:
            await conn.cancel_safe(timeout=max(seconds, 0.001))
        except (psycopg.Error, OSError) as exc:
            logger.info('the server cannot be asked to end a statement: %s', exc)
    else:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def tell() -> None:
            # The loop may be closed.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set)

        call_in_thread(_blocking_cancel(conn.pgconn), tell)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(ended.wait(), seconds)


def _blocking_cancel(pgconn: PGconn) -> Callable[[], None]:
    """Give what asks the server by a libpq that waits for the answer: before version 17."""
    if psycopg.pq.__impl__ == 'python':
        return pgconn.get_cancel().cancel
    module = sys.modules[type(pgconn).__module__].__file__
    return LibpqCancel(str(module), cast('Any', pgconn).pgconn_ptr)


def _cut_off_user(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """End the wait of whoever waits for an answer on a connection that the server does not give.

    :return: False if there is an answer: nobody waits for it, and the server is about to end the session
    """
    if conn.closed or poll_once(conn.pgconn.socket)[0]:
        return False
    shut_down_descriptor(conn.pgconn.socket)
    return True


def _close(conn: Connection[Any]) -> None:
    # The goodbye is sent without waiting.
    conn.close()
    conn.pgconn.finish()
