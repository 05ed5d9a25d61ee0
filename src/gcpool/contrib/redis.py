# redis-py has type hints for half of its methods.
# mypy: allow-untyped-calls
"""Redis connections with redis-py, for both runtimes.

The connections are redis-py's own (``redis.Connection``, ``SSLConnection``, ``UnixDomainSocketConnection`` and those of
``redis.asyncio``), after their handshake: TLS, AUTH or HELLO, CLIENT SETNAME, SELECT. They also count unread replies,
and record what changes the session, so that the next user gets a clean connection.

Use one with ``send_command`` and ``read_response``, or with redis-py's client: :py:func:`client_of`,
:py:func:`async_client_of`.
"""

import functools
import ssl
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Any, Literal, NoReturn

from gcpool.contrib._descriptions import described
from gcpool.contrib._errors import (
    BAD_PARAMS,
    advice_for_os_error,
    check_source,
    errors_in,
    look_up,
    look_up_async,
    raise_bad_params,
    raise_connect_error,
    raise_connect_timeout,
    to_params,
)
from gcpool.contrib._one_place import OnePlace, Place
from gcpool.contrib._parameters import check_codes, finite_time_limit, resets_all, time_limit
from gcpool.contrib._sockets import time_to_answer
from gcpool.exceptions import DiscardConnection
from gcpool.managers import AsyncConnectionManager, SyncConnectionManager

try:
    import redis
except ModuleNotFoundError as exc:
    raise ImportError('gcpool.contrib.redis needs redis: pip install "gcpool[redis]"', name=exc.name) from exc

if int(redis.__version__.partition('.')[0]) < 8:
    raise ImportError(
        f'gcpool.contrib.redis needs redis >= 8, but {redis.__version__} is installed: '
        'pip install --upgrade "gcpool[redis]"',
        name='redis',
    )

import redis.asyncio
from redis.exceptions import AuthorizationError

from gcpool.contrib._redis_client import async_client_of, async_pooled, client_of, pooled
from gcpool.contrib._redis_connections import (
    AsyncPooledConnection,
    PooledConnection,
    new_async_connection,
    new_connection,
)
from gcpool.contrib._redis_session import BROKEN_CODES, Servers

__all__ = [
    'BROKEN_CODES',
    'AsyncConnection',
    'AsyncEndpoints',
    'AsyncRedisConnectionManager',
    'Connection',
    'Endpoints',
    'Parameters',
    'RedisConnectionManager',
    'RedisEndpoint',
    'async_client_of',
    'client_of',
]

RedisEndpoint = Hashable
#: A URL, or the parameters of redis-py's connection.
Parameters = str | Mapping[str, Any]
Endpoints = Mapping[Any, Parameters | Callable[[Any], Parameters]] | Callable[[Any], Parameters]
AsyncEndpoints = (
    Mapping[Any, Parameters | Callable[[Any], Parameters | Awaitable[Parameters]]]
    | Callable[[Any], Parameters | Awaitable[Parameters]]
)

#: What redis-py raises for invalid parameters, for some of them (an encoding) only when it connects.
_BAD_ARGUMENTS = (*BAD_PARAMS, AttributeError, LookupError)

# The error of a server that has reached its maxclients.
_REFUSAL = 'max number of clients reached'

#: One of redis-py's connections, which knows whether it is fit for the next user.
Connection = PooledConnection
#: The same for asyncio.
AsyncConnection = AsyncPooledConnection


def _raise_error(endpoint: Hashable, exc: redis.RedisError, timeout: float | None) -> NoReturn:
    # What redis-py raised its own error from, which it records nowhere else.
    origin = exc.__cause__ or exc.__context__
    if isinstance(exc, redis.TimeoutError):
        raise_connect_timeout(endpoint, exc, timeout)
    if isinstance(exc, redis.AuthenticationError):
        advice = 'check user name and password, and whether the server requires any'
    elif isinstance(exc, redis.BusyLoadingError):
        advice = 'the server is loading its data: try again when it is done'
    elif _REFUSAL in str(exc):
        advice = "the server has reached its maxclients: lower the pools' sizes, or raise maxclients"
    elif isinstance(exc, redis.ResponseError):
        advice = 'check the number of the database, and what the user may do'
    elif isinstance(origin, ssl.SSLError):
        advice = 'check that the server speaks TLS there, and that its certificate is trusted and names the host'
    elif isinstance(origin, OSError):
        advice = advice_for_os_error(origin)
    elif isinstance(exc.__cause__, BAD_PARAMS):
        advice = 'check its entry in endpoints'
    else:
        advice = 'check that a Redis server listens there, and whether it requires TLS (rediss://)'
    raise_connect_error(endpoint, exc, advice)


class _ManagerBase(OnePlace):
    """The state and decisions of the managers of both runtimes."""

    # Not ``broken_on_cancel``: the connections count the replies that were not read, and is_broken() looks at that.

    def _set_up(
        self,
        endpoints: Any,
        ping: bool,
        reset: str,
        reset_timeout: float | None,
        broken_codes: Collection[str],
    ) -> None:
        endpoints = self._as_source(endpoints, text=True)
        check_source(endpoints, 'endpoints', or_callable=True)
        self._endpoints = endpoints
        self._ping = ping
        self._resets = resets_all(reset)
        self._reset_timeout = time_limit('reset_timeout', reset_timeout)
        self._servers = Servers(check_codes(broken_codes, str))

    def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
        """Return whether a connect failed because the server has reached its ``maxclients``.

        :param endpoint: the endpoint of the attempt
        :param exc: what ``create`` raised
        """
        return any(isinstance(error, redis.RedisError) and _REFUSAL in str(error) for error in errors_in(exc))

    def _is_fit(self, conn: PooledConnection | AsyncPooledConnection) -> bool:
        """Whether an idle connection may be served, as far as its recorded state shows."""
        # The session has been used if a release was skipped.
        return conn.is_fit_and_idle(conn.is_connected) and not (self._resets and conn.is_used)

    @staticmethod
    def _is_useless(conn: PooledConnection | AsyncPooledConnection, exc: BaseException) -> bool:
        return _is_lost(exc) or conn.why_unfit(conn.is_connected) is not None


class RedisConnectionManager(_ManagerBase, SyncConnectionManager[RedisEndpoint, Connection]):
    """Makes connections for threads with redis-py.

    A connection is unfit, and its pool closes it, when the server has closed it, when replies were not read, and when
    its session is not as the handshake left it: a transaction is open (MULTI, WATCH), another database is selected, or
    a command was sent that no other command undoes (SUBSCRIBE, MONITOR, CLIENT REPLY, AUTH, RESET and the like). It is
    also unfit when a pipeline or a pubsub of its client (:py:func:`client_of`) still has it, or, once it is idle, the
    client itself, because its release was skipped.

    An error reply may mean that a connection is useless although it is alive, such as READONLY after a failover: then
    it is closed when it is returned, and the endpoint's older connections when they are next served or returned.

    :param endpoints: for each endpoint (a name, chosen freely) a URL such as ``redis://user:password@host:6379/0``
        (``rediss://`` for TLS, ``unix://`` for a Unix socket) or the parameters of :py:class:`redis.Connection`; these
        may include ``url``, ``ssl=True``, ``path`` of a Unix socket, ``connection_class``. Or, for credentials that
        change, a function that receives the endpoint and returns one of these; it is called at each connect, and raises
        KeyError for an unknown endpoint. Or, for a single place, a URL, or a dict of its parameters with ``host``,
        ``port`` or ``path``: its endpoint is ``'default'``, also for calls that name none (``default_endpoint``).
    :param ping: ask the server at each aliveness check (a round trip). Otherwise only the socket is asked whether the
        server has closed it; this does not notice a dead server behind a proxy that keeps the connection open.
    :param reset: 'rollback' closes a connection whose session is not as the handshake left it. 'full' keeps it: when a
        connection on which commands were sent is returned, it sends RESET and the commands of the handshake, in one
        round trip, so the next user gets a clean session. It needs Redis 6.2. What RESET does not undo (subscriptions,
        MONITOR, CLIENT REPLY and NO-EVICT, unread replies) closes the connection with 'full', too.
    :param reset_timeout: seconds that the round trip of 'full' may take, None for what ``socket_timeout`` allows; then
        the connection is closed
    :param broken_codes: the error codes (a reply's first word) that make a connection useless, in place of
        ``BROKEN_CODES``: LOADING, MASTERDOWN, READONLY, UNBLOCKED
    :raise TypeError: a parameter has a wrong type
    :raise ValueError: ``reset`` has another value, or ``reset_timeout`` is negative or NaN
    """

    def __init__(
        self,
        endpoints: Endpoints | str | Place,
        *,
        ping: bool = False,
        reset: Literal['rollback', 'full'] = 'rollback',
        reset_timeout: float | None = None,
        broken_codes: Collection[str] = BROKEN_CODES,
    ) -> None:
        self._set_up(endpoints, ping, reset, reset_timeout, broken_codes)

    def create(self, endpoint: RedisEndpoint, timeout: float | None = None) -> Connection:
        """Connect, once (redis-py's ``retry`` is for the commands), and do the handshake.

        :param endpoint: a key of ``endpoints``
        :param timeout: seconds that connecting may take, if less than ``socket_connect_timeout`` and ``socket_timeout``
            allow: the former for finding an address that answers, the latter for each wait after that. With a limit the
            host's name is resolved in a thread, which is left behind when the timeout expires. The limit holds however
            slowly an answer arrives.
        :raise ConnectTimeout: the timeout expired
        :raise ConnectError: the connection cannot be made; also an instance of redis-py's own error, or for invalid
            parameters of TypeError, ValueError or LookupError
        :raise UnknownEndpoint: the endpoint is not in ``endpoints``
        """
        params = to_params(look_up(self._endpoints, endpoint, 'endpoints'), endpoint, 'endpoints', text_as='url')
        try:
            conn = new_connection(endpoint, params, self._servers, resets=self._resets)
            try:
                conn.within(timeout, functools.partial(conn.connect_check_health, retry_socket_connect=False))
            except BaseException:
                conn.end()
                raise
        except redis.RedisError as exc:
            _raise_error(endpoint, exc, timeout)
        except _BAD_ARGUMENTS as exc:
            raise_bad_params(endpoint, exc, 'endpoints')
        return conn

    def dispose(self, endpoint: RedisEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection. After that it does not connect again by itself, unlike redis-py's own.

        Waits until the server has closed its side, too, but at most 0.1 s. The server does so at once, even during a
        blocking command, unless a slow command is running. In that case, connects to the endpoint within 2 s wait for
        it.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection; a thread that waits for a reply from it gets ``redis.ConnectionError``
        :param timeout: seconds that this may take at most
        """
        pooled(conn).end(timeout)

    def check_aliveness(self, endpoint: RedisEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Return whether a connection is open and has nothing left to read. Without ``ping`` nothing is sent.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param timeout: seconds that the answer may take with ``ping``; each wait for it ends after ``socket_timeout``
        """
        ours = pooled(conn)
        if not (self._is_fit(ours) and ours.is_quiet()):
            return False
        return not self._ping or ours.answers(time_to_answer(timeout))

    def on_release(self, endpoint: RedisEndpoint, conn: Connection) -> None:
        """Judge the connection by its recorded state; nothing is sent unless ``reset`` is 'full'.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :raise DiscardConnection: it is unfit, or could not be reset
        """
        ours = pooled(conn)
        _take_back(self, endpoint, ours)
        if self._resets and ours.is_used:
            try:
                ours.reset(self._reset_timeout)
            except redis.RedisError as exc:
                raise _not_reset(self, endpoint, exc) from exc

    def is_broken(self, endpoint: RedisEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Return whether the connection is unfit, or ``exc`` is of a kind that a lost connection raises.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param exc: what the user's block raised
        """
        return self._is_useless(pooled(conn), exc)


class AsyncRedisConnectionManager(_ManagerBase, AsyncConnectionManager[RedisEndpoint, AsyncConnection]):
    """Makes connections for asyncio with redis-py. See :py:class:`RedisConnectionManager` for when one is unfit.

    :param endpoints: as there, but the function may also be a coroutine function
    :param ping: ask the server at each aliveness check (a round trip)
    :param close_timeout: seconds that sending unsent data may take when a connection is closed (then it is aborted);
        the server has another 0.1 s to close its side. None for no limit on the former.
    :param reset: as there
    :param reset_timeout: as there
    :param broken_codes: as there
    :raise TypeError: a parameter has a wrong type
    :raise ValueError: ``close_timeout`` or ``reset_timeout`` is negative or NaN, or ``reset`` has another value
    """

    def __init__(
        self,
        endpoints: AsyncEndpoints | str | Place,
        *,
        ping: bool = False,
        close_timeout: float | None = 1.0,
        reset: Literal['rollback', 'full'] = 'rollback',
        reset_timeout: float | None = None,
        broken_codes: Collection[str] = BROKEN_CODES,
    ) -> None:
        self._set_up(endpoints, ping, reset, reset_timeout, broken_codes)
        self._close_timeout = finite_time_limit('close_timeout', close_timeout)

    async def create(self, endpoint: RedisEndpoint) -> AsyncConnection:
        """Connect, once (redis-py's ``retry`` is for the commands), and do the handshake.

        :param endpoint: a key of ``endpoints``
        :raise ConnectTimeout: redis-py's ``socket_connect_timeout``, or for the handshake ``socket_timeout``, expired
        :raise ConnectError: the connection cannot be made; also an instance of redis-py's own error, or for invalid
            parameters of TypeError, ValueError or LookupError
        :raise UnknownEndpoint: the endpoint is not in ``endpoints``
        """
        found = await look_up_async(self._endpoints, endpoint, 'endpoints')
        params = to_params(found, endpoint, 'endpoints', text_as='url')
        try:
            conn = new_async_connection(endpoint, params, self._servers, resets=self._resets)
            try:
                await conn.connect_check_health(retry_socket_connect=False)
            except BaseException:
                await conn.abort()
                raise
        except redis.RedisError as exc:
            _raise_error(endpoint, exc, None)
        except _BAD_ARGUMENTS as exc:
            raise_bad_params(endpoint, exc, 'endpoints')
        return conn

    async def dispose(self, endpoint: RedisEndpoint, conn: AsyncConnection) -> None:
        """Close a connection; abort it if that takes too long. After that it does not connect again by itself.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection; a task that waits for a reply from it gets ``redis.ConnectionError``
        """
        await async_pooled(conn).end(self._close_timeout)

    async def check_aliveness(self, endpoint: RedisEndpoint, conn: AsyncConnection) -> bool:
        """Return whether a connection is open and has nothing left to read. Without ``ping`` nothing is sent.

        If cancelled half-way, as by ``check_timeout``, the connection is closed.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        """
        ours = async_pooled(conn)
        if not (self._is_fit(ours) and await ours.is_quiet()):
            return False
        return not self._ping or await ours.answers()

    async def on_release(self, endpoint: RedisEndpoint, conn: AsyncConnection) -> None:
        """Judge the connection by its recorded state; nothing is sent unless ``reset`` is 'full'.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :raise DiscardConnection: it is unfit, or could not be reset
        """
        ours = async_pooled(conn)
        _take_back(self, endpoint, ours)
        if self._resets and ours.is_used:
            try:
                await ours.reset(self._reset_timeout)
            except redis.RedisError as exc:
                raise _not_reset(self, endpoint, exc) from exc

    async def is_broken(self, endpoint: RedisEndpoint, conn: AsyncConnection, exc: BaseException) -> bool:
        """Return whether the connection is unfit, or ``exc`` is of a kind that a lost connection raises.

        :param endpoint: a key of ``endpoints``
        :param conn: the connection
        :param exc: what the user's block raised, including CancelledError
        """
        return self._is_useless(async_pooled(conn), exc)


def _is_lost(exc: BaseException) -> bool:
    """Return whether what a block raised is, contains, or was raised from, an error that a lost connection raises."""
    return any(
        isinstance(error, (redis.ConnectionError, redis.TimeoutError)) and not isinstance(error, _NOT_LOST)
        for error in errors_in(exc)
    )


# Those of redis-py's ConnectionErrors that are replies, or say that a client lends its connection to one user at a
# time.
_NOT_LOST = (
    redis.AuthenticationError,
    AuthorizationError,
    redis.BusyLoadingError,
    redis.MaxConnectionsError,
)


def _not_reset(manager: _ManagerBase, endpoint: Hashable, exc: redis.RedisError) -> DiscardConnection:
    return DiscardConnection(
        f'the connection to {described(manager, endpoint)!r} could not be reset ({type(exc).__name__}: {exc}): '
        "reset='full' needs RESET of Redis 6.2, and credentials that are still valid"
    )


def _take_back(manager: _ManagerBase, endpoint: Hashable, conn: PooledConnection | AsyncPooledConnection) -> None:
    reason = conn.why_unfit(conn.is_connected)
    if reason is not None:
        raise DiscardConnection(f'the connection to {described(manager, endpoint)!r} is unfit: {reason}')
    conn.take_client_back()
