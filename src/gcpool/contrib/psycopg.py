"""PostgreSQL connections made by psycopg 3, for the pools of both runtimes.

:py:class:`ConnectionManager` is for :py:class:`gcpool.threading.ConnectionPool`, :py:class:`AsyncConnectionManager` for
:py:class:`gcpool.asyncio.ConnectionPool`. psycopg's asynchronous connections do not work on Windows' default event loop
(``ProactorEventLoop``).
"""

import asyncio
import functools
import inspect
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Any, Generic, Literal, NoReturn, TypeAlias, TypeVar, get_origin, overload
from weakref import WeakKeyDictionary, ref

from gcpool._core import GuardedLogger
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
from gcpool.contrib._generations import Generations
from gcpool.contrib._goodbye import wait_for_end, wait_for_end_async
from gcpool.contrib._parameters import bounded_seconds, check_codes, resets_all, time_limit
from gcpool.contrib._postgres import (
    BROKEN_CODES,
    FULL_RESET,
    advice_for,
    is_of_the_server,
    is_stale_plan,
    is_useless_after,
    may_show_password,
    shorter_connect_timeout,
)
from gcpool.contrib._sockets import time_to_answer
from gcpool.exceptions import ConnectError, DiscardConnection
from gcpool.managers import AsyncConnectionManager as BaseAsyncConnectionManager
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    import psycopg
    from psycopg import AsyncConnection, Connection
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.errors import ConnectionTimeout
    from psycopg.pq import TransactionStatus
    from psycopg.rows import TupleRow
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.psycopg needs psycopg: pip install "gcpool[psycopg]"', name=exc.name) from exc
except ImportError as exc:
    raise ImportError(
        'gcpool.contrib.psycopg needs psycopg with libpq: pip install "gcpool[psycopg]" "psycopg[binary]", or install '
        "libpq by the system's packages",
        name='psycopg',
    ) from exc

from gcpool.contrib._libpq import ASK_AGAIN, CANCEL_TIMEOUT, LOOK
from gcpool.contrib._psycopg_state import (
    SETTINGS,
    SETTINGS_WITH_SETTERS,
    Session,
    copy_of_adapters,
    forget_notifications,
    handlers_of,
    settings_of,
    state_of,
    why_unfit,
)
from gcpool.contrib._psycopg_statements import (
    ask_to_cancel,
    ask_to_cancel_async,
    cut_off_user,
    exchange,
    exchange_async,
    has_answer,
    is_at_work,
    is_connected,
    to_its_end,
    wait_bounded,
    waits_until,
)

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

#: By endpoint, or a callable of the endpoint; a value of the mapping may be such a callable, too.
ConninfoSource: TypeAlias = (
    Mapping[_EndpointT, Conninfo | Callable[[_EndpointT], Conninfo]] | Callable[[_EndpointT], Conninfo]
)
#: The same, and the callables may be coroutine functions.
AsyncConninfoSource: TypeAlias = (
    Mapping[_EndpointT, Conninfo | Callable[[_EndpointT], Conninfo | Awaitable[Conninfo]]]
    | Callable[[_EndpointT], Conninfo | Awaitable[Conninfo]]
)

# Seconds that a thread or task has to leave a connection that is closed under it.
_PATIENCE_WITH_USER = 0.1

logger = GuardedLogger(__name__)


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
        self._resets_all = resets_all(reset)
        self._broken_codes = check_codes(broken_codes, str)
        self._cancel_timeout = bounded_seconds('cancel_timeout', cancel_timeout)
        self._sessions: WeakKeyDictionary[_AnyConnT, Session] = WeakKeyDictionary()
        # Of connections, and of what they have prepared: to have that dropped costs little, so whenever it is stale.
        self._generations = Generations()
        self._plans = Generations(interval=0.0)

    def _session_of(self, conn: Any) -> Session:
        session = self._sessions.get(conn)
        if session is None:
            # Of one that somebody else has made.
            session = self._sessions[conn] = Session(self._cancel_timeout)
        return session

    def _begin(self, endpoint: Hashable) -> Session:
        """Begin with what is kept of a connection, before it is made."""
        # Until it is configured, the limit of whoever acquires it counts.
        seconds = min(self._cancel_timeout, CANCEL_TIMEOUT)
        return Session(seconds, self._generations.latest(endpoint), self._plans.latest(endpoint))

    def _remember(self, conn: Any, session: Session) -> None:
        """Take what a connection is now, configured, for what each user is to find."""
        session.state = state_of(conn)
        if self._resets_all:
            session.adapters = copy_of_adapters(conn._adapters)  # noqa: SLF001
        session.cancel_timeout = self._cancel_timeout

    def _is_as_new(self, endpoint: Hashable, conn: Any) -> bool:
        """Whether a connection is trusted, and nothing is left of the last user's work: a release that was cut off may
        have left all of it.
        """
        if why_unfit(conn) is not None or (self._generations.any_retired and self._is_retired(endpoint, conn)):
            return False
        session = self._sessions.get(conn)
        return session is None or session.state is None or (settings_of(conn), handlers_of(conn)) == session.state

    def _is_retired(self, endpoint: Hashable, conn: Any) -> bool:
        return self._generations.is_retired(endpoint, self._session_of(conn).generation)

    def _check_command(self, endpoint: Hashable, conn: Any) -> bytes | None:
        """What a check has to ask the server; None for nothing."""
        if self._plans.any_retired:
            session = self._session_of(conn)
            if self._plans.is_retired(endpoint, session.plans):
                session.forget_prepared(conn, self._plans.latest(endpoint))
                return b'DEALLOCATE ALL'
        return b'' if self._ping else None

    def _is_useless(self, endpoint: Hashable, conn: Any, exc: BaseException) -> bool:
        """Whether a connection is lost, in the middle of something, or of no use after an error."""
        if why_unfit(conn) is not None:
            return True
        for error in errors_in(exc):
            if isinstance(error, psycopg.Error):
                session = self._session_of(conn)
                if is_stale_plan(error.sqlstate, error.diag.source_function):
                    self._plans.retire(endpoint, session.plans)
                    return True
                if is_useless_after(error.sqlstate, self._broken_codes, lambda name: _setting(conn, name)):
                    if is_of_the_server(error.sqlstate):
                        self._generations.retire(endpoint, session.generation)
                    return True
        return False

    def _check_fit(self, endpoint: Hashable, conn: Any) -> None:
        why = why_unfit(conn)
        if why is not None:
            if not conn.closed:
                logger.warning('discarding a connection to %r that was given back %s', endpoint, why)
            raise DiscardConnection(f'a connection to {endpoint!r} was given back {why}')
        if self._generations.any_retired and self._is_retired(endpoint, conn):
            raise DiscardConnection(f'a connection to {endpoint!r} is older than an error that speaks of its server')

    def _release_command(self, endpoint: Hashable, conn: Any) -> bytes:
        """What a release has to ask the server, in one message."""
        session = self._session_of(conn)
        parts = [b'ROLLBACK'] if conn.pgconn.transaction_status != TransactionStatus.IDLE else []
        if self._resets_all or conn._prepared._names:  # noqa: SLF001
            # As psycopg does after each rollback: objects that are made anew would not be those that were prepared for.
            parts.append(FULL_RESET.encode() if self._resets_all else b'DEALLOCATE ALL')
            session.forget_prepared(conn, self._plans.latest(endpoint))
        return b'; '.join(parts)

    def _forget_all(self, conn: Any) -> None:
        """Take back what a full reset does, and the server has no part in."""
        session = self._session_of(conn)
        if session.state is not None:
            conn._adapters = copy_of_adapters(session.adapters)  # noqa: SLF001
            forget_notifications(conn)

    def _take_back(self, conn: Any) -> list[tuple[str, Any]]:
        """Take back the handlers, and give what is left to take back: names and values of settings."""
        session = self._sessions.get(conn)
        if session is None or session.state is None:
            return []
        settings, all_handlers = session.state
        all_handlers_now = handlers_of(conn)
        if all_handlers_now != all_handlers:
            for now, handlers in zip(all_handlers_now, all_handlers, strict=True):
                now[:] = handlers
        current_settings = settings_of(conn)
        if current_settings == settings:
            return []
        return [
            (name, value)
            for name, value, current in zip(SETTINGS, settings, current_settings, strict=True)
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
        cancel_timeout: float = CANCEL_TIMEOUT,
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
        cancel_timeout: float = CANCEL_TIMEOUT,
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
        cancel_timeout: float = CANCEL_TIMEOUT,
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
        session = self._begin(endpoint)
        params = _params(endpoint, look_up(self._conninfo, endpoint, 'conninfo'), self._kwargs)
        deadline = deadline_after(timeout)
        try:
            conn = self._attempts.connect(endpoint, lambda left: self._connect(params, left), _close, timeout)
        except (psycopg.Error, TimeoutError, *BAD_PARAMS) as exc:
            _raise_typed(endpoint, params, exc, timeout)
        self._sessions[conn] = session
        try:
            if self._configure is not None:
                self._run_configure(self._configure, endpoint, conn, deadline, timeout)
            _check_configured(endpoint, conn)
            self._remember(conn, session)
        except BaseException:
            self._farewell(conn, session.cancel_timeout)
            raise
        return conn

    @staticmethod
    def _run_configure(
        configure: Callable[[_ConnT], object],
        endpoint: _EndpointT,
        conn: _ConnT,
        deadline: float | None,
        timeout: float | None,
    ) -> None:
        with waits_until(conn, deadline) as is_over:
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
            _close_half_open(exc)
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
            if is_at_work(conn):
                session.deadline = deadline = time.monotonic() + seconds
                while not has_answer(conn) and (left := deadline - time.monotonic()) > 0:
                    ask_to_cancel(conn, left)
                    ask_again = min(time.monotonic() + ASK_AGAIN, deadline)
                    while not has_answer(conn) and time.monotonic() < ask_again:
                        time.sleep(LOOK)
                if conn.lock.locked():
                    locked = conn.lock.acquire(timeout=min(_PATIENCE_WITH_USER, seconds))
                    if not locked and cut_off_user(conn):
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
            with held:
                wait_for_end(held, session.goodbye_time(seconds))

    def check_aliveness(self, endpoint: _EndpointT, conn: _ConnT, timeout: float | None = None) -> bool:
        """Tell whether a connection is open, and as it was at first. Without ``ping`` it asks only the kernel.

        :param endpoint: where the connection leads
        :param conn: the connection; it is in doubt unless no transaction is open
        :param timeout: seconds that the answer may take, used only with ``ping``: what does not answer is closed.
            Without ``ping`` nothing waits.
        """
        try:
            if not (self._is_as_new(endpoint, conn) and is_connected(conn)):
                return False
            if self._ping or self._plans.any_retired:
                command = self._check_command(endpoint, conn)
                if command is not None:
                    exchange(conn.pgconn, command, time_to_answer(timeout))
        except psycopg.Error:
            session = self._session_of(conn)
            # The server had its time to answer: closing the connection waits for it no longer.
            session.deadline = time.monotonic()
            session.leave(conn)
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
            if self._resets_all or conn.pgconn.transaction_status != TransactionStatus.IDLE:
                deadline = deadline_after(self._rollback_timeout)
                exchange(conn.pgconn, self._release_command(endpoint, conn), self._rollback_timeout)
                if self._resets_all:
                    self._forget_all(conn)
                    if self._configure is not None:
                        for name, value in self._take_back(conn):
                            setattr(conn, name, value)
                        self._run_configure(self._configure, endpoint, conn, deadline, self._rollback_timeout)
                        _check_configured(endpoint, conn)
            for name, value in self._take_back(conn):
                setattr(conn, name, value)
        except Exception as exc:  # noqa: BLE001  (of configure, it may be any)
            self._session_of(conn).leave(conn)
            _discard(endpoint, exc)
        except BaseException:
            self._session_of(conn).leave(conn)
            raise


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
        cancel_timeout: float = CANCEL_TIMEOUT,
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
        cancel_timeout: float = CANCEL_TIMEOUT,
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
        cancel_timeout: float = CANCEL_TIMEOUT,
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
        session = self._begin(endpoint)
        params = _params(endpoint, await look_up_async(self._conninfo, endpoint, 'conninfo'), self._kwargs)
        try:
            conn = await self._connection_class.connect(**params)
        except (psycopg.Error, *BAD_PARAMS) as exc:
            _close_half_open(exc)
            _raise_typed(endpoint, params, exc, None)
        except BaseException as exc:
            _close_half_open(exc)
            raise
        self._sessions[conn] = session
        if type(conn).wait is AsyncConnection.wait:
            # On this connection alone, in place of psycopg's, and without a reference to itself.
            conn.wait = functools.partial(wait_bounded, ref(conn), session)  # type: ignore[method-assign]
        try:
            if self._configure is not None:
                await self._configure(conn)
            _check_configured(endpoint, conn)
            self._remember(conn, session)
        except BaseException:
            await to_its_end(self._farewell(conn, session.cancel_timeout))
            raise
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
            if is_at_work(conn):
                session.deadline = deadline = time.monotonic() + seconds
                while not has_answer(conn) and (left := deadline - time.monotonic()) > 0:
                    await ask_to_cancel_async(conn, left)
                    ask_again = min(time.monotonic() + ASK_AGAIN, deadline)
                    # Whoever waits for the answer has the loop watch the socket, which can have one watcher.
                    while not has_answer(conn) and time.monotonic() < ask_again:  # noqa: ASYNC110
                        await asyncio.sleep(LOOK)
                if conn.lock.locked():
                    locked = await _locks(conn.lock, min(_PATIENCE_WITH_USER, seconds))
                    if not locked and cut_off_user(conn):
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
                    await wait_for_end_async(held, session.goodbye_time(seconds))

    async def check_aliveness(self, endpoint: _EndpointT, conn: _AsyncConnT) -> bool:
        """Tell whether a connection is open, and as it was at first. Without ``ping`` it asks only the kernel, and
        waits for nothing.

        Cancelled half-way it leaves the connection closed.

        :param endpoint: where the connection leads
        :param conn: the connection; it is in doubt unless no transaction is open
        """
        try:
            if not (self._is_as_new(endpoint, conn) and is_connected(conn)):
                return False
            if self._ping or self._plans.any_retired:
                command = self._check_command(endpoint, conn)
                if command is not None:
                    await exchange_async(conn.pgconn, command, None)
        except psycopg.Error:
            session = self._session_of(conn)
            # The server had its time to answer: closing the connection waits for it no longer.
            session.deadline = time.monotonic()
            session.leave(conn)
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
            if self._resets_all or conn.pgconn.transaction_status != TransactionStatus.IDLE:
                deadline = deadline_after(self._rollback_timeout)
                await exchange_async(conn.pgconn, self._release_command(endpoint, conn), self._rollback_timeout)
                if self._resets_all:
                    self._forget_all(conn)
                    if self._configure is not None:
                        for name, value in self._take_back(conn):
                            await _change(conn, name, value)
                        await asyncio.wait_for(self._configure(conn), time_left(deadline))
                        _check_configured(endpoint, conn)
            for name, value in self._take_back(conn):
                await _change(conn, name, value)
        except Exception as exc:  # noqa: BLE001  (of configure, it may be any)
            self._session_of(conn).leave(conn)
            _discard(endpoint, exc)
        except BaseException:
            self._session_of(conn).leave(conn)
            raise


async def _locks(lock: asyncio.Lock, seconds: float) -> bool:
    try:
        return await asyncio.wait_for(lock.acquire(), seconds)
    except asyncio.TimeoutError:
        return False


async def _change(conn: AsyncConnection[Any], name: str, value: Any) -> None:
    if name in SETTINGS_WITH_SETTERS:
        await getattr(conn, f'set_{name}')(value)
    else:
        setattr(conn, name, value)


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


def _close_half_open(exc: BaseException) -> None:
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


def _setting(conn: Connection[Any] | AsyncConnection[Any], name: str) -> str | None:
    value = conn.pgconn.parameter_status(name.encode())
    return None if value is None else value.decode()


def _check_not_awaitable(returned: object) -> None:
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError('configure returned an awaitable; nothing would await it')


def _discard(endpoint: Hashable, exc: Exception) -> NoReturn:
    reason = str(exc) or type(exc).__name__
    logger.warning('discarding a connection to %r that cannot be rolled back: %s', endpoint, reason)
    raise DiscardConnection(f'a connection to {endpoint!r} cannot be rolled back') from exc


def _close(conn: Connection[Any]) -> None:
    # The goodbye is sent without waiting.
    conn.close()
    conn.pgconn.finish()
