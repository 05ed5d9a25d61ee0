"""Keep-alive HTTP connections with :py:mod:`http.client`, for :py:class:`gcpool.threading.ConnectionPool`.

The connections are ``http.client.HTTPConnection`` and ``HTTPSConnection``. They also record whether the last response
was read to its end, because the next user would read what is left of it, and whether each request was sent to its end,
because the server would take the next user's request for the rest of it.

Of interim responses http.client skips only 100 (Continue). It takes any other (103, Early Hints) for the final
response, which is still to come: that makes a connection unfit as well.
"""

import http.client
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import TypeGuard

from gcpool.contrib._descriptions import described, shown
from gcpool.contrib._endpoints import HIGHEST_PORT, normal_host
from gcpool.contrib._errors import advice_for_os_error, raise_connect_error, raise_connect_timeout
from gcpool.contrib._http_connection import PooledConnection, PooledHttpConnection, PooledHttpsConnection
from gcpool.contrib._parameters import positive_time_limit
from gcpool.exceptions import DiscardConnection, UnknownEndpoint
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

__all__ = ['Connection', 'HttpConnectionManager', 'HttpEndpoint']

#: ``'http://host:port'`` or ``(scheme, host, port)``
HttpEndpoint = str | tuple[str, str, int]
Connection = http.client.HTTPConnection

_DEFAULT_PORTS: Mapping[str, int] = {'http': http.client.HTTP_PORT, 'https': http.client.HTTPS_PORT}


class HttpConnectionManager(BaseConnectionManager[HttpEndpoint, Connection]):
    """Makes keep-alive connections.

    A connection is unfit, and its pool closes it, when the server has closed it (``Connection: close``, or while idle),
    when a request was not sent to its end (less or more of a body than ``Content-Length`` says, or no last chunk), when
    its response was not read to its end or was cut short, when it was switched to another protocol, and when it has
    unexpected data to read.

    :param timeout: seconds that connecting, and each wait for the server, may take; None for no limit
    :param ssl_context: settings for ``https``, None for Python's default: certificates are checked against the system's
        authorities
    :raise TypeError: a parameter has a wrong type
    :raise ValueError: ``timeout`` is 0, negative or NaN
    """

    def __init__(self, *, timeout: float | None = None, ssl_context: ssl.SSLContext | None = None) -> None:
        if not isinstance(ssl_context, (ssl.SSLContext, type(None))):
            raise TypeError(f'ssl_context: expected an ssl.SSLContext or None, got {type(ssl_context).__name__}')
        self._timeout = positive_time_limit('timeout', timeout)
        self._ssl_context = ssl_context

    def normalize(self, endpoint: HttpEndpoint) -> HttpEndpoint:
        """Return the normal spelling of an endpoint, by which the pool knows it.

        ``'HTTP://Example.org.:80/'`` and ``('http', 'example.org', 80)`` become ``'http://example.org'``: the scheme
        and the host name in lower case, international names as in DNS (``xn--``), without a final dot unless that is
        the only dot (the resolver completes ``db`` by its search list, but not ``db.``), an IP address in its usual
        form, the port only if it is not the scheme's default. Names are not resolved: a name and its address, or an
        IPv4 address and the IPv6 address that maps it, are two endpoints.

        :param endpoint: ``'http://host:port'`` or ``(scheme, host, port)``; an invalid endpoint is returned unchanged
        """
        try:
            scheme, host, port = _split_endpoint(endpoint)
        except UnknownEndpoint:
            # create() raises for it.
            return endpoint
        if ':' in host:
            host = f'[{host}]'
        return f'{scheme}://{host}' if port == _DEFAULT_PORTS[scheme] else f'{scheme}://{host}:{port}'

    def describe_endpoint(self, endpoint: HttpEndpoint) -> object:
        """Return what messages show of an endpoint: a URL without a user's name and password.

        ``create`` refuses such a URL, but a program may pass one.

        :param endpoint: as the pool knows it
        """
        return shown(endpoint)

    # No ``is_refusal``: a web server that is full accepts the connection, and says so in its response (503), or it does
    # not accept it, which looks like a server that is down. No ``broken_on_cancel``: the connections record which
    # response is outstanding, and is_broken() looks at that.

    def create(self, endpoint: HttpEndpoint, timeout: float | None = None) -> Connection:
        """Resolve the host name, connect to its addresses in turn until one answers; with ``https``, do the handshake.

        :param endpoint: ``'http://host:port'`` or ``(scheme, host, port)``; ``http`` and ``https`` have default ports
        :param timeout: seconds that all of this may take together, if less than the manager's ``timeout``. With a limit
            the name is resolved in a thread, which is left behind when the timeout expires.
        :raise ConnectTimeout: the timeout expired
        :raise ConnectError: the connection cannot be made; also an ``OSError`` of the cause's class
        :raise UnknownEndpoint: the endpoint is invalid: another scheme, a host name with blanks or control characters,
            a port that is not an int from 1 to 65535
        """
        scheme, host, port = _split_endpoint(endpoint)
        limit = min((limit for limit in (timeout, self._timeout) if limit is not None), default=None)
        name = host.removesuffix('.') or host
        conn: PooledConnection
        if scheme == 'https':
            if self._ssl_context is None:
                # Reading the system's authorities takes a while.
                self._ssl_context = ssl.create_default_context()
            conn = PooledHttpsConnection(name, port, timeout=self._timeout, context=self._ssl_context)
        else:
            conn = PooledHttpConnection(name, port, timeout=self._timeout)
        conn.resolved_name = host
        try:
            conn.connect_within(limit)
        except TimeoutError as exc:
            raise_connect_timeout(endpoint, exc, limit)
        except OSError as exc:
            raise_connect_error(endpoint, exc, advice_for_os_error(exc))
        except UnicodeError as exc:
            raise_connect_error(endpoint, exc, 'check the host name: it is not valid')
        return conn

    def dispose(self, endpoint: HttpEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection. After that it does not connect again by itself, unlike http.client's own.

        :param endpoint: the endpoint of the connection
        :param conn: the connection; a thread that waits for a response on it gets an error
        :param timeout: not used: this never waits
        """
        _pooled(conn).end()

    def check_aliveness(self, endpoint: HttpEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Return whether a connection is open and has nothing left to read. Asks only the kernel.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param timeout: not used: this never waits
        """
        pooled = _pooled(conn)
        return pooled.why_unfit() is None and pooled.is_quiet()

    def on_release(self, endpoint: HttpEndpoint, conn: Connection) -> None:
        """Judge the connection by its recorded state, and undo a timeout that the user has set on its socket.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :raise DiscardConnection: it is unfit
        """
        pooled = _pooled(conn)
        reason = pooled.why_unfit()
        if reason is not None:
            text = f'the connection to {described(self, endpoint)!r} is unfit: {reason}'
            raise DiscardConnection(text, broken=not pooled.has_served)
        pooled.timeout = self._timeout
        if pooled.sock.gettimeout() != self._timeout:
            pooled.sock.settimeout(self._timeout)

    def is_broken(self, endpoint: HttpEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Return whether the connection is in any state other than idle.

        :param endpoint: the endpoint of the connection
        :param conn: the connection
        :param exc: what the user's block raised; whatever it is, a connection whose response was read to its end is
            good
        """
        return _pooled(conn).why_unfit() is not None


def _pooled(conn: Connection) -> PooledConnection:
    if not isinstance(conn, PooledConnection):
        raise TypeError(f'{conn!r} was not made by HttpConnectionManager')
    return conn


def _split_endpoint(endpoint: object) -> tuple[str, str, int]:
    parts: tuple[object, object, object] | None = None
    if isinstance(endpoint, str):
        if '@' in endpoint:
            # Not quoted, because it may contain a password.
            raise UnknownEndpoint('an endpoint has a user name: send it with the request (Authorization)', endpoint)
        try:
            url = urllib.parse.urlsplit(endpoint)
            port = url.port
        except ValueError:
            pass
        else:
            # urlsplit() has dropped some control characters.
            if url.path in ('', '/') and not url.query and not url.fragment and _is_host(endpoint):
                parts = url.scheme, url.hostname, _DEFAULT_PORTS.get(url.scheme) if port is None else port
    elif isinstance(endpoint, tuple) and len(endpoint) == 3:
        parts = endpoint
    if parts is not None:
        scheme, host, number = parts
        scheme = scheme.lower() if isinstance(scheme, str) else ''
        if scheme in _DEFAULT_PORTS and _is_host(host) and _is_port(number):
            # http.client also accepts a host with brackets.
            inner = host[1:-1] if host.startswith('[') and host.endswith(']') else host
            return scheme, normal_host(inner), number
    raise UnknownEndpoint(
        f"{endpoint!r} is not an endpoint: write 'http://host:port' or 'https://host:port', without a path, "
        f"or ('http', 'host', port); the port is an int from 1 to {HIGHEST_PORT}, the host has neither blanks nor "
        'control characters',
        endpoint,
    )


def _is_host(host: object) -> TypeGuard[str]:
    return isinstance(host, str) and host != '' and not any(char <= ' ' or char == '\x7f' for char in host)


def _is_port(port: object) -> TypeGuard[int]:
    return isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= HIGHEST_PORT
