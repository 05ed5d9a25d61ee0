# redis-py has type hints for half of its methods.
# mypy: allow-untyped-calls
"""Makes redis-py's connections, of the class and with the parameters of their endpoint."""

import functools
import inspect
import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection

from gcpool.contrib._descriptions import shown
from gcpool.contrib._parameters import bounded_seconds, positive_time_limit
from gcpool.contrib._redis_asyncio import AsyncPooledConnection
from gcpool.contrib._redis_session import Servers
from gcpool.contrib._redis_threads import PooledConnection, TcpConnection
from gcpool.exceptions import ConnectError

__all__ = ['AsyncPooledConnection', 'PooledConnection', 'new_async_connection', 'new_connection']


@functools.cache
def _pooled_class(mixin: type, base: type) -> type:
    bases = [mixin, base]
    if issubclass(base, redis.connection.Connection):
        bases.append(TcpConnection)
        if base is redis.connection.Connection:
            bases.remove(base)
    return type(f'Pooled{base.__name__}', tuple(bases), {'__module__': 'gcpool.contrib.redis'})


def _split_parameters(
    endpoint: Hashable, found: dict[str, Any], parse_url: Callable[[str], Mapping[str, Any]]
) -> tuple[str, type | None, dict[str, Any]]:
    """Return the kind of connection, its class if one was named, and the parameters of the class."""
    url = found.pop('url', None)
    if url is not None:
        if not isinstance(url, str):
            raise TypeError(f'url: expected a str, not {type(url).__name__}')
        try:
            found.update(parse_url(url))
        except ValueError:
            # Without the cause, which may quote the URL.
            raise ConnectError(
                f'the URL of endpoint {shown(endpoint)!r} cannot be read by redis-py; write '
                'redis://user:password@host:port/0 (rediss:// for TLS, unix:// for a socket), with special characters '
                'in user and password as %XX',
                endpoint,
            ) from None
    if 'unix_socket_path' in found:
        found['path'] = found.pop('unix_socket_path')
    tls = found.pop('ssl', False)
    if found.get('path') is not None:
        found['path'] = os.fspath(found['path'])
        kind = 'unix'
    else:
        kind = 'tls' if tls else 'tcp'
    return kind, found.pop('connection_class', None), found


_CLASSES: Mapping[str, type] = {
    'tcp': redis.connection.Connection,
    'tls': redis.connection.SSLConnection,
    'unix': redis.connection.UnixDomainSocketConnection,
}
_ASYNC_CLASSES: Mapping[str, type] = {
    'tcp': redis.asyncio.connection.Connection,
    'tls': redis.asyncio.connection.SSLConnection,
    'unix': redis.asyncio.connection.UnixDomainSocketConnection,
}


def new_connection(endpoint: Hashable, params: dict[str, Any], servers: Servers, *, resets: bool) -> PooledConnection:
    """Create a connection for threads, not connected yet."""
    kind, base, found = _split_parameters(endpoint, params, redis.connection.parse_url)
    _check_parameters(found, base, redis.connection.AbstractConnection, asynchronous=False)
    conn: PooledConnection = _pooled_class(PooledConnection, base or _CLASSES[kind])(**found)
    conn.belongs_to(servers, endpoint, found, resets=resets)
    return conn


def new_async_connection(
    endpoint: Hashable, params: dict[str, Any], servers: Servers, *, resets: bool
) -> AsyncPooledConnection:
    """Create a connection for asyncio, not connected yet."""
    kind, base, found = _split_parameters(endpoint, params, redis.asyncio.connection.parse_url)
    _check_parameters(found, base, redis.asyncio.connection.AbstractConnection, asynchronous=True)
    conn: AsyncPooledConnection = _pooled_class(AsyncPooledConnection, base or _ASYNC_CLASSES[kind])(**found)
    conn.belongs_to(servers, endpoint, found, resets=resets)
    return conn


def _check_parameters(params: Mapping[str, Any], base: object, expected_base: type, *, asynchronous: bool) -> None:
    """Reject parameters that redis-py would accept and fail on later, and those for the other runtime."""
    where = 'redis.asyncio' if asynchronous else 'redis'
    if base is not None and not (isinstance(base, type) and issubclass(base, expected_base)):
        raise TypeError(f'connection_class: expected a subclass of {where}.Connection or a related class, got {base!r}')
    for name in ('socket_timeout', 'socket_connect_timeout'):
        seconds = params.get(name)
        if seconds is not None:
            positive_time_limit(name, bounded_seconds(name, seconds))
    retry = params.get('retry')
    if retry is not None:
        call = getattr(retry, 'call_with_retry', None)
        if not callable(call) or inspect.iscoroutinefunction(call) is not asynchronous:
            raise TypeError(f'retry: expected a {where}.retry.Retry, got one of {type(retry)!r}')
    provider = params.get('credential_provider')
    if provider is not None:
        name = 'get_credentials_async' if asynchronous else 'get_credentials'
        if not callable(getattr(provider, name, None)):
            raise TypeError(f'credential_provider: expected a redis.CredentialProvider, got {type(provider).__name__}')
