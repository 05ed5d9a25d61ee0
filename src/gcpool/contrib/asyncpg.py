"""PostgreSQL connections made by asyncpg, for :py:class:`gcpool.asyncio.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.asyncpg``.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from gcpool.managers import AsyncConnectionManager as BaseConnectionManager

try:
    import asyncpg
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.asyncpg needs asyncpg: pip install "gcpool[asyncpg]"', name=exc.name) from exc

if TYPE_CHECKING:
    from asyncpg import Connection
else:
    Connection = asyncpg.Connection

__all__ = ['Connection', 'DbConnectionManager', 'DbEndpoint', 'DsnParameters', 'RecordT']

DbEndpoint = str
DsnParameters = Mapping[DbEndpoint, Mapping[str, Any]]
RecordT = TypeVar('RecordT', bound=asyncpg.Record)

logger = logging.getLogger(__name__)

# asyncio.TimeoutError is an OSError only since Python 3.11.
_CONNECTION_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # Also raised where the server has said that it ends the connection, and the loop has not seen the end yet.
    asyncpg.InternalClientError,
    OSError,
    asyncio.TimeoutError,
)


class DbConnectionManager(BaseConnectionManager[DbEndpoint, 'Connection[RecordT]'], Generic[RecordT]):
    """Makes connections with :py:func:`asyncpg.connect`.

    A transaction that the user left open is rolled back when the connection is given back, by asyncpg's
    ``Connection.reset``: that says so to the event loop's exception handler, and also takes back the session's
    settings, listeners and locks. A connection given back in order is left as it is.

    :param dsn_params: for each endpoint (a name for the database, chosen freely) the parameters of
        :py:func:`asyncpg.connect`; it is looked up at each connect, so endpoints may be added later
    :param ping: ask the server at each aliveness check (a round trip). Otherwise a connection is alive until the event
        loop has seen its end, which does not find a server behind a proxy that keeps the connection open.
    :param close_timeout: seconds that the server may take to say good-bye; then the connection is aborted
    """

    def __init__(self, dsn_params: DsnParameters, *, ping: bool = False, close_timeout: float = 1.0) -> None:
        self._dsn_params = dsn_params
        self._ping = ping
        self._close_timeout = close_timeout

    async def create(self, endpoint: DbEndpoint, timeout: float | None = None) -> 'Connection[RecordT]':
        """Connect.

        :param endpoint: a key of ``dsn_params``
        :param timeout: seconds that connecting may take, None for ``timeout`` in ``dsn_params`` (asyncpg's default is
            60). A pool does not pass it, it cancels.
        :raise TimeoutError: the time is over
        :raise asyncpg.PostgresError: the server does not accept the connection
        :raise OSError: the server cannot be reached
        :raise KeyError: the endpoint is not in ``dsn_params``
        """
        try:
            params: dict[str, Any] = dict(self._dsn_params[endpoint])
        except KeyError:
            # Without the parameters: they hold passwords.
            raise KeyError(f'endpoint {endpoint!r} is not in dsn_params, which has {list(self._dsn_params)}') from None
        if timeout is not None:
            params['timeout'] = timeout
        return cast('Connection[RecordT]', await asyncpg.connect(**params))

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
        try:
            await conn.close(timeout=self._close_timeout if timeout is None else timeout)
        except _CONNECTION_ERRORS as exc:
            conn.terminate()
            logger.debug('a connection to %r was aborted, it could not be closed: %r', endpoint, exc)
        except BaseException:
            conn.terminate()
            raise

    async def check_aliveness(
        self,
        endpoint: DbEndpoint,
        conn: 'Connection[RecordT]',
        timeout: float | None = None,
    ) -> bool:
        """Tell whether a connection is open and, with ``ping``, whether the server answers.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        :param timeout: seconds that the answer may take, used only with ``ping``. A pool does not pass it, it cancels.
        """
        if conn.is_closed():
            return False
        if self._ping:
            try:
                await conn.execute('SELECT 1', timeout=timeout)
            except _CONNECTION_ERRORS:
                return False
        return True

    async def on_release(self, endpoint: DbEndpoint, conn: 'Connection[RecordT]') -> None:
        """Roll back the transaction that the user left open; no round trip if there is none.

        A connection that cannot be rolled back is aborted (and that is logged), so that nobody is given it.

        :param endpoint: a key of ``dsn_params``
        :param conn: the connection
        """
        if conn.is_closed() or not conn.is_in_transaction():
            return
        try:
            await conn.reset()
        except _CONNECTION_ERRORS as exc:
            conn.terminate()
            logger.warning('aborted a connection to %r that cannot be rolled back: %s', endpoint, exc)
        except BaseException:
            conn.terminate()
            raise
