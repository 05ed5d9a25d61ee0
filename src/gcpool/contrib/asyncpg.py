"""PostgreSQL connections with asyncpg, for :py:class:`gcpool.asyncio.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.asyncpg``.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from gcpool._core import GuardedLogger
from gcpool.contrib._descriptions import described
from gcpool.contrib._errors import (
    BAD_PARAMS,
    advice_for_os_error,
    check_source,
    errors_in,
    look_up_async,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._generations import Generations
from gcpool.contrib._one_place import OnePlace, Place
from gcpool.contrib._parameters import Reset, check_codes, resets_all, time_limit
from gcpool.contrib._postgres import (
    BROKEN_CODES,
    FULL_RESET,
    advice_for,
    is_of_the_server,
    is_refusal,
    is_useless_after,
)
from gcpool.exceptions import DiscardConnection
from gcpool.managers import ROLLED_BACK
from gcpool.managers import AsyncConnectionManager as BaseConnectionManager

try:
    import asyncpg
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.asyncpg needs asyncpg: pip install "gcpool[asyncpg]"', name=exc.name) from exc

from gcpool.contrib._asyncpg_state import (
    Additions,
    CopyWatch,
    Made,
    cancel_copy,
    has_ended_unnoticed,
    is_connected,
    is_lost_or_busy,
    is_unfit,
    made_by,
)

if TYPE_CHECKING:
    from asyncpg import Connection
else:
    Connection = asyncpg.Connection

__all__ = ['BROKEN_CODES', 'Connection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters', 'DsnSource', 'RecordT']

DbEndpoint = str
DsnParameters = Mapping[DbEndpoint, Mapping[str, Any] | str]

_Parameters: TypeAlias = Mapping[str, Any] | str
#: By endpoint, or a callable that receives the endpoint; a value of the mapping may also be such a callable. Callables
#: may be coroutine functions.
DsnSource: TypeAlias = (
    Mapping[DbEndpoint, _Parameters | Callable[[DbEndpoint], _Parameters | Awaitable[_Parameters]]]
    | Callable[[DbEndpoint], _Parameters | Awaitable[_Parameters]]
)

RecordT = TypeVar('RecordT', bound=asyncpg.Record)

logger = GuardedLogger(__name__)

# asyncio.TimeoutError is an OSError only since Python 3.11.
_CONNECTION_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Also raised when the server has announced the end of the connection, and the loop has not seen the end yet.
    asyncpg.InternalClientError,
    OSError,
    asyncio.TimeoutError,
)


# asyncpg's cached tables and types are older than a change of the schema.
_STALE_SCHEMA = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
_RESET_ROLE = 'SET SESSION AUTHORIZATION DEFAULT; RESET ROLE'


class DbConnectionManager(OnePlace, BaseConnectionManager[DbEndpoint, 'Connection[RecordT]'], Generic[RecordT]):
    """Makes connections with :py:func:`asyncpg.connect`.

    A transaction that the user left open is rolled back when the connection is returned, by asyncpg's
    ``Connection.reset``: that reports it to the event loop's exception handler, and also resets the session's settings,
    listeners and locks. A connection returned without an open transaction is left as it is, unless ``reset='full'``. A
    connection is closed if its last operation is still running (for another task) or being cancelled (a task was
    cancelled, a ``timeout`` expired), if SQL ended its ``transaction()``, which asyncpg does not notice, or if a
    ``COPY`` to the client did not complete.

    :param dsn_params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`asyncpg.connect`, or a DSN, or a callable that receives the endpoint and returns either (it may be a
        coroutine function); or one such callable for all. It is looked up or called at each connect, so endpoints may
        be added and credentials change. For a single place, a DSN, or a dict of its parameters: its endpoint is
        ``'default'``, also for calls that name none (``default_endpoint``).
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the kernel is asked whether the
        server has closed the connection; this does not notice a dead server behind a proxy that keeps the connection
        open.
    :param close_timeout: seconds that ending a running statement and an orderly close may take; then the connection is
        aborted. None for no limit.
    :param rollback_timeout: seconds that the rollback of an open transaction, or the full reset, may take before the
        connection is closed, None for no limit except that of TCP
    :param reset: what is undone when a connection is returned: ``'rollback'`` an open transaction; ``'full'``
        everything that a session carries, for one round trip: role, settings, temporary tables, listeners, cursors,
        advisory locks, sequences' last values, and prepared statements together with asyncpg's cache of them. What
        ``create`` (also a subclass's) has added to the connection itself stays: query loggers, log and termination
        listeners, and type codecs; a connection whose codecs a user has changed is replaced. What ``create`` has set by
        SQL does not stay: use ``server_settings``.
    :param broken_codes: SQLSTATEs after which a connection is closed; if the error discredits the server, older
        connections to the same endpoint are replaced before they are served next
    :raise TypeError: ``dsn_params`` is neither a mapping nor callable, a time limit is not a number, or
        ``broken_codes`` is not a collection of strings
    :raise ValueError: a time limit is less than 0, or ``reset`` has another value
    """

    def __init__(
        self,
        dsn_params: DsnSource | str | Place,
        *,
        ping: bool = False,
        close_timeout: float | None = 1.0,
        rollback_timeout: float | None = None,
        reset: Reset = 'rollback',
        broken_codes: Collection[str] = BROKEN_CODES,
    ) -> None:
        dsn_params = self._as_source(dsn_params, text=True)
        check_source(dsn_params, 'dsn_params', or_callable=True)
        self._dsn_params = dsn_params
        self._ping = ping
        self._close_timeout = time_limit('close_timeout', close_timeout)
        self._rollback_timeout = time_limit('rollback_timeout', rollback_timeout)
        self._broken_codes = check_codes(broken_codes, str)
        # Of connections, and of their cached schema. Dropping that cache costs little, so it has no minimum interval.
        self._generations = Generations()
        self._schemas = Generations(interval=0.0)
        self._resets_all = resets_all(reset)
        if self._resets_all:
            # Wraps a subclass's own create(): what that adds to a connection is for all of its users.
            self._create = self.create
            self.create = self._create_and_remember  # type: ignore[method-assign]

    # Not ``broken_on_cancel``: asyncpg asks the server to end a statement that is cancelled, and is_broken() sees that,
    # or a COPY that has not ended, in the state of the connection.

    def is_refusal(self, endpoint: DbEndpoint, exc: BaseException) -> bool:
        """Return whether a connect failed because the server has no connection left, for any user or for this one.

        :param endpoint: the endpoint of the attempt
        :param exc: what ``create`` raised
        """
        return is_refusal(exc)

    async def _create_and_remember(self, endpoint: DbEndpoint, *args: Any, **kwargs: Any) -> 'Connection[RecordT]':
        conn = await self._create(endpoint, *args, **kwargs)
        try:
            Additions.remember(conn)
        except BaseException:
            # This version of asyncpg keeps these things elsewhere.
            conn.terminate()
            raise
        return conn

    async def create(self, endpoint: DbEndpoint, timeout: float | None = None) -> 'Connection[RecordT]':
        """Connect.

        :param endpoint: known to ``dsn_params``
        :param timeout: seconds that connecting may take, None for ``timeout`` in ``dsn_params`` (asyncpg's default is
            60). A pool does not pass it; it cancels.
        :raise gcpool.exceptions.ConnectTimeout: the timeout expired
        :raise gcpool.exceptions.ConnectError: the connection cannot be made; also an :py:exc:`asyncpg.PostgresError` or
            :py:exc:`OSError`
        :raise gcpool.exceptions.UnknownEndpoint: the endpoint is not in ``dsn_params``
        """
        made = Made(self, self._generations.latest(endpoint), self._schemas.latest(endpoint))
        found = await look_up_async(self._dsn_params, endpoint, 'dsn_params')
        params = to_params(found, endpoint, 'dsn_params', text_as='dsn')
        if timeout is not None:
            params['timeout'] = timeout
        try:
            conn = cast('Connection[RecordT]', await asyncpg.connect(**params))
        except (asyncio.TimeoutError, TimeoutError) as exc:
            raise_connect_timeout(endpoint, exc, timeout)
        except OSError as exc:
            raise_connect_error(endpoint, exc, advice_for_os_error(exc))
        except (asyncpg.PostgresError, asyncpg.InternalClientError) as exc:
            _refuse_what_cannot_be_encoded(endpoint, exc)
            raise_connect_error(endpoint, exc, advice_for(str(exc), getattr(exc, 'sqlstate', None)))
        except (asyncpg.InterfaceError, AttributeError, *BAD_PARAMS) as exc:
            _refuse_what_cannot_be_encoded(endpoint, exc)
            # The AttributeError comes from a host or another name that is not a string.
            raise_bad_params(endpoint, exc, 'dsn_params', quotes='dsn' in params)
        CopyWatch.attach(conn)
        made.begin(conn)
        return conn

    async def dispose(
        self,
        endpoint: DbEndpoint,
        conn: 'Connection[RecordT]',
        timeout: float | None = None,
    ) -> None:
        """Close a connection; abort it if that takes too long, fails or is cancelled.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :param timeout: seconds to use in place of the manager's ``close_timeout``
        """
        limit = self._close_timeout if timeout is None else timeout
        try:
            cancel_copy(conn)
            # Before 0.32 asyncpg's own limit does not include cancelling a running statement.
            await asyncio.wait_for(conn.close(timeout=limit), limit)
        except _CONNECTION_ERRORS as exc:
            _abort(conn)
            logger.debug('a connection to %r was aborted, it could not be closed: %r', described(self, endpoint), exc)
        except BaseException:
            _abort(conn)
            raise

    async def check_aliveness(
        self,
        endpoint: DbEndpoint,
        conn: 'Connection[RecordT]',
        timeout: float | None = None,
    ) -> bool:
        """Return whether a connection is open and, with ``ping``, whether the server answers.

        A connection older than an error of ``broken_codes`` is replaced. A connection whose asyncpg cache is older than
        a change of the schema drops the cache.

        If this is interrupted while it waits for the answer, the connection is closed.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection; fit only if no transaction is open
        :param timeout: seconds that the answer may take, used only with ``ping``. A pool does not pass it; it cancels.
        """
        if is_unfit(conn) or conn.is_in_transaction():
            return False
        made = made_by(self, conn)
        if (made.poll is None or made.poll(0)) and not await is_connected(conn):
            return False
        if (self._generations.any_retired or self._schemas.any_retired) and not await self._is_useful(endpoint, conn):
            return False
        if self._resets_all and not Additions.of(conn).is_as_new(conn):
            # An interrupted release did not reach the reset.
            return False
        if self._ping:
            try:
                await conn.execute('SELECT 1', timeout=timeout)
            except _CONNECTION_ERRORS:
                conn.terminate()
                return False
            except BaseException:
                conn.terminate()
                raise
            if self._resets_all:
                Additions.of(conn).note(conn)
        return True

    async def is_broken(self, endpoint: DbEndpoint, conn: 'Connection[RecordT]', exc: BaseException) -> bool:
        """Return whether a connection is lost, in the middle of something, or useless after its user's block raised.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :param exc: what the block raised. An error of the server (``broken_codes``) counts, also in a group or as a
            cause, and so does an error about statements or types that asyncpg cached before a change of the schema.
        """
        cancel_copy(conn)
        is_broken = is_unfit(conn)
        made = made_by(self, conn)
        for error in errors_in(exc):
            if isinstance(error, _STALE_SCHEMA):
                # Also makes the pool check the others, which refreshes them.
                self._schemas.retire(endpoint, made.schema)
                is_broken = True
            elif isinstance(error, asyncpg.PostgresError) and is_useless_after(
                error.sqlstate, self._broken_codes, functools.partial(_reported, conn)
            ):
                if is_of_the_server(error.sqlstate):
                    self._generations.retire(endpoint, made.connection)
                is_broken = True
        return is_broken

    async def _is_useful(self, endpoint: DbEndpoint, conn: 'Connection[RecordT]') -> bool:
        made = made_by(self, conn)
        if self._schemas.is_retired(endpoint, made.schema):
            made.schema = self._schemas.latest(endpoint)
            # Does not ask the server.
            await conn.reload_schema_state()
        return not self._generations.is_retired(endpoint, made.connection)

    async def on_release(self, endpoint: DbEndpoint, conn: 'Connection[RecordT]') -> object:
        """Roll back the transaction that the user left open; no round trip if there is none. Or undo everything
        (``reset``).

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :return: ``ROLLED_BACK`` if a transaction was left open that could have been committed
        :raise gcpool.exceptions.DiscardConnection: it is closed; its last operation is still running or being
            cancelled, or was a ``COPY`` to the client that did not complete; SQL ended its transaction; it cannot be
            rolled back or reset; or it was made before an error of ``broken_codes``
        """
        self._check_fit(endpoint, conn)
        if (self._generations.any_retired or self._schemas.any_retired) and not await self._is_useful(endpoint, conn):
            raise DiscardConnection(
                f'a connection to {described(self, endpoint)!r} is older than an error of broken_codes'
            )
        left_open = conn.is_in_transaction()
        if not self._resets_all and not left_open:
            return None
        try:
            if self._resets_all:
                await self._undo_all(endpoint, conn)
            else:
                await asyncio.wait_for(_roll_back(conn), self._rollback_timeout)
        except _CONNECTION_ERRORS as exc:
            conn.terminate()
            logger.warning(
                'discarding a connection to %r that cannot be rolled back: %r', described(self, endpoint), exc
            )
            raise DiscardConnection(f'a connection to {described(self, endpoint)!r} cannot be rolled back') from exc
        except BaseException:
            conn.terminate()
            raise
        return ROLLED_BACK if left_open else None

    def _check_fit(self, endpoint: DbEndpoint, conn: Any) -> None:
        if conn.is_closed():
            raise DiscardConnection(f'a connection to {described(self, endpoint)!r} was returned closed')
        if is_lost_or_busy(conn):
            # Not aborted here: while it is being closed, the server can be asked to cancel.
            raise DiscardConnection(
                f'a connection to {described(self, endpoint)!r} was returned in the middle of a statement'
            )
        if CopyWatch.saw_unfinished(conn):
            cancel_copy(conn)
            raise DiscardConnection(
                f'a connection to {described(self, endpoint)!r} was returned in the middle of a COPY'
            )
        if has_ended_unnoticed(conn):
            logger.warning(
                'discarding a connection to %r whose transaction() was ended by SQL', described(self, endpoint)
            )
            raise DiscardConnection(
                f'the transaction() of a connection to {described(self, endpoint)!r} was ended by SQL'
            )

    async def _undo_all(self, endpoint: DbEndpoint, conn: Any) -> None:
        additions = Additions.of(conn)
        if not additions.restore(conn):
            raise DiscardConnection(
                f"the type codecs of a connection to {described(self, endpoint)!r} were changed, reset='full'"
            )
        statements = FULL_RESET
        if conn.is_in_transaction():
            statements = f'ROLLBACK; {FULL_RESET}'
        # asyncpg's own reset does the same.
        conn._top_xact = None  # noqa: SLF001
        conn._listeners.clear()  # noqa: SLF001
        # The server is about to forget them.
        conn._mark_stmts_as_closed()  # noqa: SLF001
        await conn.execute(statements, timeout=self._rollback_timeout)
        additions.note(conn)


def _refuse_what_cannot_be_encoded(endpoint: DbEndpoint, exc: Exception) -> None:
    seen: BaseException | None = exc
    while seen is not None and not isinstance(seen, (UnicodeEncodeError, UnicodeDecodeError)):
        seen = seen.__cause__ or seen.__context__
    if seen is not None:
        # The cause holds the text, which may be the password.
        exc.__cause__ = exc.__context__ = None
        raise_bad_params(endpoint, seen, 'dsn_params')


async def _roll_back(conn: Any) -> None:
    await conn.reset()
    if conn._server_caps.sql_reset:  # noqa: SLF001
        # asyncpg omits these, and they must not reach the next user. Redshift, for one, has no RESET.
        await conn.execute(_RESET_ROLE)


def _reported(conn: Any, setting: str) -> str | None:
    return None if conn.is_closed() else getattr(conn.get_settings(), setting, None)


def _abort(conn: Any) -> None:
    conn.terminate()
    # Before 0.32 asyncpg does not do that for a connection that is being closed.
    conn._transport.abort()  # noqa: SLF001
