"""The manager of psycopg's connections for asyncio; import it from :py:mod:`gcpool.contrib.psycopg`."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Any, Generic, Literal, TypeVar, overload
from weakref import ref

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._errors import BAD_PARAMS, look_up_async
from gcpool.contrib._goodbye import wait_for_end_async
from gcpool.contrib._libpq import CANCEL_TIMEOUT
from gcpool.contrib._one_place import Place
from gcpool.contrib._postgres import BROKEN_CODES
from gcpool.contrib._psycopg_manager import (
    AsyncConninfoSource,
    ManagerBase,
    check_configured,
    close_half_open,
    params_for,
    raise_typed,
)
from gcpool.contrib._psycopg_state import SETTINGS_WITH_SETTERS
from gcpool.contrib._psycopg_statements import (
    exchange_async,
    is_at_work,
    is_connected,
    take_from_user_async,
    to_its_end,
    wait_bounded,
)
from gcpool.managers import ROLLED_BACK
from gcpool.managers import AsyncConnectionManager as BaseAsyncConnectionManager

__all__ = ['AsyncConnectionManager']

_EndpointT = TypeVar('_EndpointT', bound=Hashable)
_DefaultEndpointT = TypeVar('_DefaultEndpointT', bound=Hashable)
_OwnConnT = TypeVar('_OwnConnT', bound=AsyncConnection[Any])
_AsyncConnT = TypeVar('_AsyncConnT', bound=AsyncConnection[Any])


class AsyncConnectionManager(
    ManagerBase[_AsyncConnT], BaseAsyncConnectionManager[_EndpointT, _AsyncConnT], Generic[_EndpointT, _AsyncConnT]
):
    """Makes connections with :py:meth:`psycopg.AsyncConnection.connect`.

    :py:class:`gcpool.contrib.psycopg.ConnectionManager` describes what happens to a connection that is returned.

    :param conninfo: how to reach each endpoint, as there; callables may be coroutine functions
    :param kwargs: parameters of :py:meth:`psycopg.AsyncConnection.connect` for every endpoint (``conninfo`` has
        precedence)
    :param connection_class: the class whose ``connect`` is called: psycopg's own, or a subclass of it
    :param configure: a coroutine function, called with each new connection; it must leave no transaction open
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection; this does not notice a dead server behind a proxy that keeps the connection
        open.
    :param rollback_timeout: seconds that a release may wait for the server (the rollback of an open transaction, or the
        full reset with ``configure``) before the connection is closed; None for no limit except that of TCP
    :param reset: as there
    :param broken_codes: as there
    :param cancel_timeout: seconds in which the server has to end an abandoned statement, and then its session (the task
        was cancelled, or the connection closed in use); psycopg itself takes up to 10. After that the connection is
        closed and its slot is free, whether the server has done so or not.
    :raise TypeError: ``conninfo`` is neither a mapping nor callable, ``connection_class`` is not such a class, a time
        limit is not a number, or ``broken_codes`` is not a collection of strings
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

    @overload
    def __init__(
        self: 'AsyncConnectionManager[str, AsyncConnection[TupleRow]]',
        conninfo: str | Place,
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
        self: 'AsyncConnectionManager[str, _OwnConnT]',
        conninfo: str | Place,
        *,
        kwargs: Mapping[str, Any] | None = None,
        connection_class: type[_OwnConnT],
        configure: Callable[[_OwnConnT], Awaitable[object]] | None = None,
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
        """Connect. If cancelled half-way, nothing is left open.

        :param endpoint: known to ``conninfo``
        :raise gcpool.exceptions.ConnectTimeout: psycopg's ``connect_timeout`` expired
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; also a :py:exc:`psycopg.OperationalError`
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``conninfo``
        """
        session = self._begin(endpoint)
        params = params_for(endpoint, await look_up_async(self._conninfo, endpoint, 'conninfo'), self._kwargs)
        try:
            conn = await self._connection_class.connect(**params)
        except (psycopg.Error, *BAD_PARAMS) as exc:
            close_half_open(exc)
            raise_typed(endpoint, params, exc, None)
        except BaseException as exc:
            close_half_open(exc)
            raise
        session.begin(conn)
        if type(conn).wait is AsyncConnection.wait:
            # On this connection alone, in place of psycopg's, and without a reference to the connection.
            conn.wait = functools.partial(wait_bounded, ref(conn), session)  # type: ignore[method-assign]
        try:
            if self._configure is not None:
                await self._configure(conn)
            check_configured(endpoint, conn)
            self._remember(conn, session)
        except BaseException:
            await to_its_end(self._farewell(conn, session.cancel_timeout))
            raise
        return conn

    async def dispose(self, endpoint: _EndpointT, conn: _AsyncConnT) -> None:
        """Close a connection, and give the server a moment to end the session.

        That takes a round trip, and at most a tenth of a second. If a statement is running, the server is first asked
        to end it, for at most ``cancel_timeout`` seconds. When a pool is closed at short notice, a user may still wait
        for an answer on the connection: that wait is ended, and the user has a moment to leave the connection.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        """
        await self._farewell(conn, self._cancel_timeout)

    async def _farewell(self, conn: _AsyncConnT, seconds: float) -> None:
        session = self._session_of(conn)
        locked = False
        try:
            if is_at_work(conn):
                locked = await take_from_user_async(conn, session, seconds)
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
        """Return whether a connection is open, and in its initial state. Without ``ping``, asks only the kernel and
        never waits.

        If cancelled half-way, the connection is closed.

        :param endpoint: the endpoint of the connection
        :param conn: the connection; fit only if no transaction is open
        """
        session = self._untouched(endpoint, conn)
        if session is not None and not (self._ping or self._plans.any_retired or session.poll(0)):
            return True
        try:
            if not (self._is_as_new(endpoint, conn) and is_connected(conn)):
                return False
            command = self._check_command(endpoint, conn)
            if command is not None:
                await exchange_async(conn.pgconn, command, None)
        except BaseException as exc:
            self._leave_after_check(conn, exc)
            if not isinstance(exc, psycopg.Error):
                raise
            return False
        return True

    async def is_broken(self, endpoint: _EndpointT, conn: _AsyncConnT, exc: BaseException) -> bool:
        """Return whether a connection is lost, in the middle of something, or useless after its user's block raised.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param exc: what the block raised. The connection is useless if ``exc``, an error in its groups or one of its
            causes has one of ``broken_codes``, or is about a prepared statement whose table was changed. If the error
            discredits the server, the endpoint's older connections are replaced when they are next served; if it is
            about prepared statements, those of the older connections are dropped then.
        """
        return self._is_useless(endpoint, conn, exc)

    async def on_release(self, endpoint: _EndpointT, conn: _AsyncConnT) -> object:
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
                await exchange_async(conn.pgconn, command, self._rollback_timeout)
                if self._resets_all:
                    self._forget_all(conn)
                    if self._configure is not None:
                        for name, value in self._take_back(conn):
                            await _change(conn, name, value)
                        await asyncio.wait_for(self._configure(conn), time_left(deadline))
                        check_configured(endpoint, conn)
            for name, value in self._take_back(conn):
                await _change(conn, name, value)
        except BaseException as exc:
            self._give_up(endpoint, conn, exc)
            raise
        return ROLLED_BACK if left_open else None


async def _change(conn: AsyncConnection[Any], name: str, value: Any) -> None:
    if name in SETTINGS_WITH_SETTERS:
        await getattr(conn, f'set_{name}')(value)
    else:
        setattr(conn, name, value)
