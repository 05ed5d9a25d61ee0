"""PostgreSQL connections made by psycopg 3, for the pools of both runtimes.

:py:class:`ConnectionManager` is for :py:class:`gcpool.threading.ConnectionPool`, :py:class:`AsyncConnectionManager` for
:py:class:`gcpool.asyncio.ConnectionPool`. psycopg's asynchronous connections do not work on Windows' default event loop
(``ProactorEventLoop``).
"""

import asyncio
import contextlib
import inspect
import logging
import selectors
import time
import traceback
from collections.abc import Awaitable, Callable, Generator, Hashable, Mapping
from operator import attrgetter
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar, cast, get_origin, overload
from weakref import WeakKeyDictionary

from gcpool.contrib._attempts import Attempts
from gcpool.contrib._errors import (
    BAD_PARAMS,
    check_source,
    look_up,
    look_up_async,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._postgres import MOST_MESSAGES, advice_for, may_show_password, shorter_connect_timeout, time_limit
from gcpool.contrib._sockets import poll_once, time_to_answer
from gcpool.contrib._watchdog import cut_off_after, shut_down_descriptor
from gcpool.exceptions import ConnectError, DiscardConnection
from gcpool.managers import AsyncConnectionManager as BaseAsyncConnectionManager
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    import psycopg
    from psycopg import AsyncConnection, Connection
    from psycopg.conninfo import conninfo_to_dict
    from psycopg.errors import ConnectionTimeout
    from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus
    from psycopg.pq.abc import PGconn
    from psycopg.rows import TupleRow
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.psycopg needs psycopg: pip install "gcpool[psycopg]"', name=exc.name) from exc
except ImportError as exc:
    raise ImportError(
        'gcpool.contrib.psycopg needs psycopg with libpq: pip install "gcpool[psycopg]" "psycopg[binary]", or install '
        "libpq by the system's packages",
        name='psycopg',
    ) from exc

__all__ = [
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
        self._first_state: WeakKeyDictionary[_AnyConnT, _State] = WeakKeyDictionary()

    def _is_as_new(self, conn: Any) -> bool:
        """Whether nothing is left of the last user's work: a release that was cut off may have left all of it."""
        if _why_unfit(conn) is not None:
            return False
        at_first = self._first_state.get(conn)
        return at_first is None or (_settings_of(conn), _handlers_of(conn)) == at_first


class ConnectionManager(_Configured[_ConnT], BaseConnectionManager[_EndpointT, _ConnT], Generic[_EndpointT, _ConnT]):
    """Makes connections with :py:meth:`psycopg.Connection.connect`.

    When a connection is given back, a transaction that the user left open is rolled back, and what the user changed of
    its ``autocommit``, ``isolation_level``, ``read_only``, ``deferrable``, ``prepare_threshold``, ``prepared_max``,
    factories and handlers is taken back. Adapters, and what was changed at the server (``SET``, ``LISTEN``, temporary
    tables, advisory locks) stay. A connection left in the middle of a statement, a stream, a ``COPY``, a pipeline, a
    ``transaction()`` block or a two-phase commit is discarded.

    :param conninfo: how to reach each endpoint (any hashable; often a name for the database): a mapping of endpoints to
        connection strings, or to mappings of the parameters of :py:meth:`psycopg.Connection.connect`, or to callables
        of the endpoint that return either; or one such callable for all. It is asked at each connect, so that endpoints
        may be added and credentials change.
    :param kwargs: parameters of :py:meth:`psycopg.Connection.connect` for every endpoint (``conninfo`` has precedence)
    :param connection_class: whose ``connect`` is called: psycopg's own, or a subclass of it
    :param configure: called with each new connection; it must leave no transaction open. Its time comes on top of the
        timeout of an acquire.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection, which does not find a server behind a proxy that keeps the connection open.
    :param rollback_timeout: seconds that the rollback of a transaction left open may take before the connection is
        given up, None for no limit but that of TCP. It holds unless no thread can be started.
    :raise TypeError: ``conninfo`` is neither a mapping nor callable, ``configure`` is a coroutine function,
        ``connection_class`` is no such class, or ``rollback_timeout`` is no number
    :raise ValueError: ``rollback_timeout`` is less than 0
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
    ) -> None:
        if inspect.iscoroutinefunction(configure):
            raise TypeError('configure: expected a plain function, got a coroutine function; nothing would await it')
        self._attempts = Attempts()
        self._set_up(conninfo, kwargs, connection_class, configure, ping, rollback_timeout)

    def create(self, endpoint: _EndpointT, timeout: float | None = None) -> _ConnT:
        """Connect.

        :param endpoint: known to ``conninfo``
        :param timeout: seconds that connecting may take (a quarter of a second at the least), without the time of the
            callables and of ``configure``; None for ``connect_timeout`` in the parameters, which otherwise holds if it
            is less. With a limit the connection is made in a thread: psycopg counts in whole seconds for each host, and
            not the time to resolve its name. An attempt that is given up goes on there until psycopg ends it; the next
            one to the same endpoint waits for that, so that the server does not see more connections than the pool
            allows.
        :raise gcpool.exceptions.ConnectTimeout: the time is over
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; a :py:exc:`psycopg.OperationalError`, too
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``conninfo``
        :raise TypeError: ``configure`` has returned an awaitable
        """
        params = _params(endpoint, look_up(self._conninfo, endpoint, 'conninfo'), self._kwargs)
        try:
            conn = self._attempts.connect(endpoint, lambda left: self._connect(params, left), _close, timeout)
        except (psycopg.Error, TimeoutError, *BAD_PARAMS) as exc:
            _raise_typed(endpoint, params, exc, timeout)
        try:
            if self._configure is not None:
                _check_not_awaitable(self._configure(conn))
            _check_configured(endpoint, conn)
            self._first_state[conn] = _state_of(conn)
        except BaseException:
            _abort(conn)
            raise
        return conn

    def _connect(self, params: dict[str, Any], timeout: float | None) -> _ConnT:
        if timeout is not None:
            params = {**params, 'connect_timeout': _connect_timeout(timeout, params)}
        try:
            return self._connection_class.connect(**params)
        except BaseException as exc:
            _let_go(exc)
            raise

    def dispose(self, endpoint: _EndpointT, conn: _ConnT, timeout: float | None = None) -> None:
        """Close a connection. It does not wait for the server.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param timeout: not needed. A pool closed in a hurry also disposes of a connection whose user waits for an
            answer: that wait is ended, and the user has a moment to leave the connection.
        """
        if _cut_off_user(conn):
            locked = conn.lock.acquire(timeout=_PATIENCE_WITH_USER)
            try:
                _close(conn)
            finally:
                if locked:
                    conn.lock.release()
        else:
            _close(conn)

    def check_aliveness(self, endpoint: _EndpointT, conn: _ConnT, timeout: float | None = None) -> bool:
        """Tell whether a connection is open, and as it was at first. Without ``ping`` it asks only the kernel.

        :param endpoint: where the connection leads
        :param conn: the connection; it is in doubt unless no transaction is open
        :param timeout: seconds that the answer may take, used only with ``ping``: what does not answer is closed.
            Without ``ping`` nothing waits.
        """
        try:
            return (
                self._is_as_new(conn)
                and _is_connected(conn)
                and (not self._ping or _answers(conn.pgconn, time_to_answer(timeout)))
            )
        except psycopg.Error:
            _abort(conn)
            return False
        except BaseException:
            _abort(conn)
            raise

    def is_broken(self, endpoint: _EndpointT, conn: _ConnT, exc: BaseException) -> bool:
        """Tell whether a connection is lost, or in the middle of something, after its user's block raised.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param exc: what the block raised; it does not matter
        """
        return _why_unfit(conn) is not None

    def on_release(self, endpoint: _EndpointT, conn: _ConnT) -> None:
        """Roll back the transaction that the user left open, and take back settings; no round trip if there is none.

        :param endpoint: where the connection leads
        :param conn: the connection
        :raise gcpool.exceptions.DiscardConnection: it is closed, in the middle of something, or cannot be rolled back
        """
        _check_fit(endpoint, conn)
        try:
            if conn.pgconn.transaction_status != TransactionStatus.IDLE:
                with cut_off_after(conn.pgconn.socket, self._rollback_timeout) as was_cut_off:
                    conn.rollback()
                if was_cut_off():
                    raise psycopg.OperationalError('the server did not answer in time')
            for name, value in _take_back(conn, self._first_state):
                setattr(conn, name, value)
        except psycopg.Error as exc:
            _discard(endpoint, exc)
        except BaseException:
            _abort(conn)
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
    :param rollback_timeout: seconds that the rollback of a transaction left open may take before the connection is
        given up, None for no limit but that of TCP
    :raise TypeError: ``conninfo`` is neither a mapping nor callable, ``connection_class`` is no such class, or
        ``rollback_timeout`` is no number
    :raise ValueError: ``rollback_timeout`` is less than 0
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
    ) -> None:
        self._set_up(conninfo, kwargs, connection_class, configure, ping, rollback_timeout)

    async def create(self, endpoint: _EndpointT) -> _AsyncConnT:
        """Connect. Cancelled half-way it leaves nothing open.

        :param endpoint: known to ``conninfo``
        :raise gcpool.exceptions.ConnectTimeout: psycopg's ``connect_timeout`` is over
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; a :py:exc:`psycopg.OperationalError`, too
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``conninfo``
        """
        params = _params(endpoint, await look_up_async(self._conninfo, endpoint, 'conninfo'), self._kwargs)
        try:
            conn = await self._connection_class.connect(**params)
        except (psycopg.Error, *BAD_PARAMS) as exc:
            _let_go(exc)
            _raise_typed(endpoint, params, exc, None)
        except BaseException as exc:
            _let_go(exc)
            raise
        try:
            if self._configure is not None:
                await self._configure(conn)
            _check_configured(endpoint, conn)
            self._first_state[conn] = _state_of(conn)
        except BaseException:
            _abort(conn)
            raise
        return conn

    async def dispose(self, endpoint: _EndpointT, conn: _AsyncConnT) -> None:
        """Close a connection. It does not wait for the server.

        A pool closed in a hurry also disposes of a connection whose user waits for an answer: that wait is ended, and
        the user has a moment to leave the connection.

        :param endpoint: where the connection leads
        :param conn: the connection
        """
        locked = False
        try:
            if _cut_off_user(conn):
                with contextlib.suppress(asyncio.TimeoutError):
                    locked = await asyncio.wait_for(conn.lock.acquire(), _PATIENCE_WITH_USER)
            await conn.close()
        finally:
            _abort(conn)
            if locked:
                conn.lock.release()

    async def check_aliveness(self, endpoint: _EndpointT, conn: _AsyncConnT) -> bool:
        """Tell whether a connection is open, and as it was at first. Without ``ping`` it asks only the kernel, and
        waits for nothing.

        Cancelled half-way it leaves the connection closed.

        :param endpoint: where the connection leads
        :param conn: the connection; it is in doubt unless no transaction is open
        """
        try:
            return (
                self._is_as_new(conn) and _is_connected(conn) and (not self._ping or await _answers_async(conn.pgconn))
            )
        except psycopg.Error:
            _abort(conn)
            return False
        except BaseException:
            _abort(conn)
            raise

    async def is_broken(self, endpoint: _EndpointT, conn: _AsyncConnT, exc: BaseException) -> bool:
        """Tell whether a connection is lost, or in the middle of something, after its user's block raised.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param exc: what the block raised; it does not matter
        """
        return _why_unfit(conn) is not None

    async def on_release(self, endpoint: _EndpointT, conn: _AsyncConnT) -> None:
        """Roll back the transaction that the user left open, and take back settings; no round trip if there is none.

        :param endpoint: where the connection leads
        :param conn: the connection
        :raise gcpool.exceptions.DiscardConnection: it is closed, in the middle of something, or cannot be rolled back
        """
        _check_fit(endpoint, conn)
        try:
            if conn.pgconn.transaction_status != TransactionStatus.IDLE:
                await self._roll_back(conn)
            for name, value in _take_back(conn, self._first_state):
                if name in _SETTINGS_WITH_SETTERS:
                    await getattr(conn, f'set_{name}')(value)
                else:
                    setattr(conn, name, value)
        except psycopg.Error as exc:
            _discard(endpoint, exc)
        except BaseException:
            _abort(conn)
            raise

    async def _roll_back(self, conn: _AsyncConnT) -> None:
        # In a task, since psycopg answers a cancellation by asking the server to cancel, which may take many seconds if
        # that is dead: this end of the connection is shut down instead.
        rollback = asyncio.ensure_future(conn.rollback())
        try:
            done, _ = await asyncio.wait((rollback,), timeout=self._rollback_timeout)
        except asyncio.CancelledError:
            await _end_by_shutdown(conn, rollback)
            raise
        if not done:
            await _end_by_shutdown(conn, rollback)
            raise psycopg.OperationalError('the server did not answer in time')
        rollback.result()


async def _end_by_shutdown(conn: AsyncConnection[Any], operation: 'asyncio.Future[None]') -> None:
    # Looked at, so that nobody is told that it was not.
    operation.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    if not conn.closed:
        shut_down_descriptor(conn.pgconn.socket)
    try:
        # One turn or two of the loop.
        await asyncio.wait((operation,), timeout=_PATIENCE_WITH_USER)
    finally:
        _abort(conn)


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


def _check_fit(endpoint: Hashable, conn: Connection[Any] | AsyncConnection[Any]) -> None:
    why = _why_unfit(conn)
    if why is not None:
        if not conn.closed:
            logger.warning('discarding a connection to %r that was given back %s', endpoint, why)
        raise DiscardConnection(f'a connection to {endpoint!r} was given back {why}')


def _discard(endpoint: Hashable, exc: psycopg.Error) -> NoReturn:
    logger.warning('discarding a connection to %r that cannot be rolled back: %s', endpoint, exc)
    raise DiscardConnection(f'a connection to {endpoint!r} cannot be rolled back') from exc


def _state_of(conn: Any) -> _State:
    return _settings_of(conn), tuple(map(list, _handlers_of(conn)))


def _handlers_of(conn: Any) -> tuple[list[Any], ...]:
    # The lists of those who want to be told. psycopg has no public way to read them.
    return getattr(conn, '_notice_handlers', []), getattr(conn, '_notify_handlers', [])


def _take_back(conn: Any, first_state: 'WeakKeyDictionary[Any, _State]') -> list[tuple[str, Any]]:
    """Take back the handlers, and give what is left to take back: names and values of settings."""
    at_first = first_state.get(conn)
    if at_first is None:
        return []
    settings, all_handlers = at_first
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


def _ask(pgconn: PGconn) -> Generator[None, None, bool]:
    """Send an empty statement and read the answer; yields when that has not arrived.

    Not by a cursor: that would begin a transaction, and ask a dead server to cancel when it is cut off.
    """
    pgconn.send_query(b'')
    pgconn.flush()
    answered = False
    while True:
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                return answered and pgconn.transaction_status == TransactionStatus.IDLE
            answered = result.status == ExecStatus.EMPTY_QUERY
        yield


def _answers(pgconn: PGconn, timeout: float | None) -> bool:
    deadline = None if timeout is None else time.monotonic() + timeout
    asking = _ask(pgconn)
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        while True:
            try:
                next(asking)
            except StopIteration as stop:
                return cast('bool', stop.value)
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not selector.select(left):
                raise psycopg.OperationalError('the server did not answer in time')


async def _answers_async(pgconn: PGconn) -> bool:
    loop = asyncio.get_running_loop()
    asking, arrived, fd = _ask(pgconn), asyncio.Event(), pgconn.socket
    loop.add_reader(fd, arrived.set)
    try:
        while True:
            arrived.clear()
            try:
                next(asking)
            except StopIteration as stop:
                return cast('bool', stop.value)
            await arrived.wait()
    finally:
        loop.remove_reader(fd)


def _cut_off_user(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """End the wait of whoever waits for an answer on a connection; False if it is not in the middle of a statement."""
    if conn.closed or conn.pgconn.transaction_status != TransactionStatus.ACTIVE:
        return False
    shut_down_descriptor(conn.pgconn.socket)
    return True


def _close(conn: Connection[Any]) -> None:
    # The goodbye is sent without waiting.
    conn.close()
    _abort(conn)


def _abort(conn: Connection[Any] | AsyncConnection[Any]) -> None:
    # Also closes the socket of a connection that is lost, which psycopg takes for closed.
    conn.pgconn.finish()
