"""PostgreSQL connections with psycopg 3, for the pools of both runtimes.

:py:class:`ConnectionManager` is for :py:class:`gcpool.threading.ConnectionPool`, :py:class:`AsyncConnectionManager` for
    :py:class:`gcpool.asyncio.ConnectionPool`. psycopg's asynchronous connections do not work on Windows' default event
    loop (``ProactorEventLoop``).
"""

import inspect
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

from gcpool.contrib._attempts import Attempts, deadline_after
from gcpool.contrib._errors import BAD_PARAMS, look_up, raise_connect_timeout
from gcpool.contrib._goodbye import wait_for_end
from gcpool.contrib._one_place import Place
from gcpool.contrib._postgres import BROKEN_CODES
from gcpool.contrib._sockets import time_to_answer
from gcpool.managers import ROLLED_BACK
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

try:
    import psycopg
    from psycopg import AsyncConnection, Connection
    from psycopg.errors import ConnectionTimeout
    from psycopg.rows import TupleRow
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.psycopg needs psycopg: pip install "gcpool[psycopg]"', name=exc.name) from exc
except ImportError as exc:
    raise ImportError(
        'gcpool.contrib.psycopg needs psycopg with libpq: pip install "gcpool[psycopg]" "psycopg[binary]", or install '
        "libpq with the system's packages",
        name='psycopg',
    ) from exc

from gcpool.contrib._libpq import CANCEL_TIMEOUT
from gcpool.contrib._psycopg_async import AsyncConnectionManager
from gcpool.contrib._psycopg_manager import (
    AsyncConninfoSource,
    Conninfo,
    ConninfoSource,
    ManagerBase,
    check_configured,
    close_half_open,
    connect_timeout_for,
    params_for,
    raise_typed,
)
from gcpool.contrib._psycopg_statements import exchange, is_at_work, is_connected, take_from_user, waits_until

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

_EndpointT = TypeVar('_EndpointT', bound=Hashable)
_DefaultEndpointT = TypeVar('_DefaultEndpointT', bound=Hashable)
_OwnConnT = TypeVar('_OwnConnT', bound=Connection[Any])
_ConnT = TypeVar('_ConnT', bound=Connection[Any])


class ConnectionManager(ManagerBase[_ConnT], BaseConnectionManager[_EndpointT, _ConnT], Generic[_EndpointT, _ConnT]):
    """Makes connections with :py:meth:`psycopg.Connection.connect`.

    When a connection is returned, a transaction that the user left open is rolled back, and the user's changes to its
    ``autocommit``, ``isolation_level``, ``read_only``, ``deferrable``, ``prepare_threshold``, ``prepared_max``,
    factories and handlers are undone. Adapters, and what was changed at the server (``SET``, ``LISTEN``, temporary
    tables, advisory locks) stay, unless ``reset='full'``. A connection left in the middle of a statement, a stream, a
    ``COPY``, a pipeline, a ``transaction()`` block or a two-phase commit is closed.

    :param conninfo: how to reach each endpoint (any hashable; often a name for the database): a mapping of endpoints to
        connection strings, or to mappings of the parameters of :py:meth:`psycopg.Connection.connect`, or to callables
        that receive the endpoint and return either; or one such callable for all. It is looked up or called at each
        connect, so endpoints may be added and credentials change. For a single place, a connection string, or a dict of
        its parameters: its endpoint is ``'default'``, also for calls that name none (``default_endpoint``).
    :param kwargs: parameters of :py:meth:`psycopg.Connection.connect` for every endpoint (``conninfo`` has precedence)
    :param connection_class: the class whose ``connect`` is called: psycopg's own, or a subclass of it
    :param configure: called with each new connection; it must leave no transaction open. Its waits for the server are
        limited by the timeout of the acquire.
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection; this does not notice a dead server behind a proxy that keeps the connection
        open.
    :param rollback_timeout: seconds that a release may wait for the server (the rollback of an open transaction, or the
        full reset with ``configure``) before the connection is closed; None for no limit except that of TCP
    :param reset: what a release undoes at the server: ``'rollback'`` an open transaction, ``'full'`` everything that a
        session can carry: also role and session user, settings (``SET``), temporary tables, ``LISTEN``, advisory locks,
        cursors, prepared statements with psycopg's cache of them, and adapters; one round trip at each release. What
        the parameters of the connection have set stays. ``configure`` is called again after it.
    :param broken_codes: SQLSTATEs that make a connection useless, in place of
        :py:data:`gcpool.contrib.psycopg.BROKEN_CODES`
    :param cancel_timeout: seconds in which the server has to end an abandoned statement, and then its session. After
        that the connection is closed and its slot is free, whether the server has done so or not.
    :raise TypeError: ``conninfo`` is neither a mapping nor callable, ``configure`` is a coroutine function,
        ``connection_class`` is not such a class, a time limit is not a number, or ``broken_codes`` is not a collection
        of strings
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

    @overload
    def __init__(
        self: 'ConnectionManager[str, Connection[TupleRow]]',
        conninfo: str | Place,
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
        self: 'ConnectionManager[str, _OwnConnT]',
        conninfo: str | Place,
        *,
        kwargs: Mapping[str, Any] | None = None,
        connection_class: type[_OwnConnT],
        configure: Callable[[_OwnConnT], object] | None = None,
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
        :param timeout: seconds that connecting may take (at least a quarter of a second), including waits of
            ``configure`` for the server but not the callables; None for ``connect_timeout`` in the parameters, which
            also applies to connecting if it is less. With a limit the connection is made in a thread: psycopg counts in
            whole seconds for each host, and without the time to resolve its name. An abandoned attempt continues there
            until psycopg ends it; the next one to the same endpoint waits for that, so that the server does not see
            more connections than the pool allows.
        :raise gcpool.exceptions.ConnectTimeout: the timeout expired
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; also a :py:exc:`psycopg.OperationalError`
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``conninfo``
        :raise TypeError: ``configure`` has returned an awaitable
        """
        session = self._begin(endpoint)
        params = params_for(endpoint, look_up(self._conninfo, endpoint, 'conninfo'), self._kwargs)
        deadline = deadline_after(timeout)
        try:
            conn = self._attempts.connect(endpoint, lambda left: self._connect(params, left), _close, timeout)
        except (psycopg.Error, TimeoutError, *BAD_PARAMS) as exc:
            raise_typed(endpoint, params, exc, timeout)
        session.begin(conn)
        try:
            if self._configure is not None:
                self._run_configure(self._configure, endpoint, conn, deadline, timeout)
            check_configured(endpoint, conn)
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
                raise_connect_timeout(endpoint, ConnectionTimeout('configure got no answer in time'), timeout)

    def _connect(self, params: dict[str, Any], timeout: float | None) -> _ConnT:
        if timeout is not None:
            params = {**params, 'connect_timeout': connect_timeout_for(timeout, params)}
        try:
            return self._connection_class.connect(**params)
        except BaseException as exc:
            close_half_open(exc)
            raise

    def dispose(self, endpoint: _EndpointT, conn: _ConnT, timeout: float | None = None) -> None:
        """Close a connection, and give the server a moment to end the session.

        That takes a round trip, and at most a tenth of a second. If a statement is running, the server is first asked
        to end it, for at most ``cancel_timeout`` seconds.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param timeout: seconds that this may take at most. When a pool is closed at short notice, a user may still wait
            for an answer on the connection: that wait is ended, and the user has a moment to leave the connection.
        """
        self._farewell(conn, self._cancel_timeout if timeout is None else min(timeout, self._cancel_timeout))

    def _farewell(self, conn: _ConnT, seconds: float) -> None:
        session = self._session_of(conn)
        locked = False
        try:
            if is_at_work(conn):
                locked = take_from_user(conn, session, seconds)
            session.hold(conn)
            # The message that ends the session is sent without waiting.
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
        """Return whether a connection is open, and in its initial state. Without ``ping``, asks only the kernel.

        :param endpoint: the endpoint of the connection
        :param conn: the connection; fit only if no transaction is open
        :param timeout: seconds that the answer may take, used only with ``ping``: a connection that does not answer is
            closed. Without ``ping`` nothing waits.
        """
        session = self._untouched(endpoint, conn)
        if session is not None and not (self._ping or self._plans.any_retired or session.poll(0)):
            return True
        try:
            if not (self._is_as_new(endpoint, conn) and is_connected(conn)):
                return False
            command = self._check_command(endpoint, conn)
            if command is not None:
                exchange(conn.pgconn, command, time_to_answer(timeout))
        except BaseException as exc:
            self._leave_after_check(conn, exc)
            if not isinstance(exc, psycopg.Error):
                raise
            return False
        return True

    def is_broken(self, endpoint: _EndpointT, conn: _ConnT, exc: BaseException) -> bool:
        """Return whether a connection is lost, in the middle of something, or useless after its user's block raised.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param exc: what the block raised. The connection is useless if ``exc``, an error in its groups or one of its
            causes has one of ``broken_codes``, or is about a prepared statement whose table was changed. If the error
            discredits the server, the endpoint's older connections are replaced when they are next served; if it is
            about prepared statements, those of the older connections are dropped then.
        """
        return self._is_useless(endpoint, conn, exc)

    def on_release(self, endpoint: _EndpointT, conn: _ConnT) -> object:
        """Roll back the transaction that the user left open, and reset settings; no round trip if there is none.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :return: ``ROLLED_BACK`` if a transaction was left open that could have been committed
        :raise gcpool.exceptions.DiscardConnection: it is closed, in the middle of something, or cannot be rolled back
        """
        if not self._resets_all and self._untouched(endpoint, conn) is not None:
            return None
        self._check_fit(endpoint, conn)
        try:
            left_open = self._is_left_open(conn)
            command = self._release_command(endpoint, conn)
            if command is not None:
                deadline = deadline_after(self._rollback_timeout)
                exchange(conn.pgconn, command, self._rollback_timeout)
                if self._resets_all:
                    self._forget_all(conn)
                    if self._configure is not None:
                        for name, value in self._take_back(conn):
                            setattr(conn, name, value)
                        self._run_configure(self._configure, endpoint, conn, deadline, self._rollback_timeout)
                        check_configured(endpoint, conn)
            for name, value in self._take_back(conn):
                setattr(conn, name, value)
        except BaseException as exc:
            self._give_up(endpoint, conn, exc)
            raise
        return ROLLED_BACK if left_open else None


def _check_not_awaitable(returned: object) -> None:
    if inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError('configure returned an awaitable; nothing would await it')


def _close(conn: Connection[Any]) -> None:
    # The message that ends the session is sent without waiting.
    conn.close()
    conn.pgconn.finish()
