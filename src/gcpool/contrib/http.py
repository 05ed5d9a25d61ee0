"""HTTP connections that are kept alive, made by :py:mod:`http.client`, for :py:class:`gcpool.threading.ConnectionPool`.

The connections are ``http.client.HTTPConnection`` and ``HTTPSConnection``. They only remember, in addition, whether the
last response was read to its end: the next user of a connection on which some of it is left would be given that.
"""

import contextlib
import http.client
import io
import socket
import ssl
import urllib.parse
from collections.abc import Mapping
from typing import Any, cast

from gcpool.contrib._errors import advice_for_os_error, raise_connect_error, raise_connect_timeout
from gcpool.contrib._sockets import deadline_after, poll_once, time_left
from gcpool.contrib.socket import _connect
from gcpool.exceptions import DiscardConnection, UnknownEndpoint
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

__all__ = ['Connection', 'HttpConnectionManager', 'HttpEndpoint']

#: ``'http://host:port'`` or ``(scheme, host, port)``
HttpEndpoint = str | tuple[str, str, int]
Connection = http.client.HTTPConnection

_DEFAULT_PORTS: Mapping[str, int] = {'http': http.client.HTTP_PORT, 'https': http.client.HTTPS_PORT}
_SWITCHING_PROTOCOLS = 101
_SHORTEST_TIMEOUT = 0.001


class _Reader(io.BufferedReader):
    """Reads a response, and notices when it took in more than that."""

    sock: socket.socket | None = None
    surplus = False

    def close(self) -> None:
        sock = self.sock
        if sock is not None:
            self.sock = None
            timeout = sock.gettimeout()
            try:
                sock.settimeout(0)
                try:
                    # What is behind the end of the response is lost with the buffer.
                    self.surplus = bool(self.peek(1))
                finally:
                    sock.settimeout(timeout)
            except OSError:
                # There is nothing to be read, or nothing any more.
                pass
        super().close()


class _Response(http.client.HTTPResponse):
    """A response that can tell whether it leaves its connection as the next request needs it."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.sock = sock
        self.reader = _Reader(self.fp.detach())
        self.reader.sock = sock
        self.fp = self.reader
        self.was_cut_off = False

    def close(self) -> None:
        """Close it. The rest of one that was not read to its end still comes, and who is next would be given that."""
        if self.length != 0 and not self.isclosed():
            self.was_cut_off = True
        super().close()

    @property
    def spoils(self) -> str | None:
        """What it leaves behind for whoever is next, now that it is closed."""
        if self.was_cut_off:
            return 'a response was closed before its end'
        if self.reader.surplus:
            return 'there is more behind the response'
        return None


class _PooledConnection(http.client.HTTPConnection):
    """Goes in front of one of http.client's classes."""

    response_class = _Response

    _ended = False
    _requesting = False
    _response: _Response | None = None
    _spoilt: str | None = None
    _deadline: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class keeps socket.create_connection there, which gives each address of a host all the time.
        del self.__dict__['_create_connection']

    def _create_connection(self, address: tuple[str, int], timeout: float | None, source: object) -> socket.socket:
        deadline = deadline_after(timeout) if self._deadline is None else self._deadline
        sock = _connect(*address, deadline)
        # For the TLS handshake. Without any time it would be a non-blocking socket.
        left = time_left(deadline)
        sock.settimeout(None if left is None else max(left, _SHORTEST_TIMEOUT))
        return sock

    def connect(self) -> None:
        """Connect, also by itself for a request after the server has closed the connection."""
        if self._ended:
            # Nobody would ever close that one.
            raise http.client.NotConnected('the connection was closed by its pool')
        try:
            super().connect()
        except BaseException:
            self.close()
            raise
        self.sock.settimeout(self.timeout)

    def connect_within(self, timeout: float | None) -> None:
        """Connect, in no more time than that and the connection's own timeout."""
        limits = [limit for limit in (timeout, self.timeout) if limit is not None]
        self._deadline = deadline_after(min(limits, default=None))
        try:
            self.connect()
        finally:
            self._deadline = None

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request."""
        super().putrequest(*args, **kwargs)
        self._requesting = True

    def getresponse(self) -> http.client.HTTPResponse:
        """Wait for the response to the request."""
        previous = self._response
        response = self._response = cast('_Response', super().getresponse())
        self._requesting = False
        if previous is not None and self.sock is not None:
            self._spoilt = self._spoilt or previous.spoils
        return response

    def close(self) -> None:
        """Close the connection; a request connects again, unless the pool has closed it."""
        self._requesting = False
        self._spoilt = None
        super().close()

    def end(self) -> None:
        """Close it for good, with a response that was not read to its end. Never waits."""
        self._ended = True
        response = self._response
        for sock in (self.sock, None if response is None else response.sock):
            if sock is not None:
                # Wakes a thread that waits for a response, which closing has to wait for. Not SSLSocket's own, which
                # takes from that thread what it is using.
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        self.close()
        if response is not None:
            self._response = None
            response.close()

    def why_unfit(self) -> str | None:
        """Say why the next user must not get the connection, as far as can be known without touching the socket."""
        response = self._response
        if response is not None and response.length == 0 and not response.isclosed():
            # There is nothing to read (HEAD, 204, 304, an empty body), but http.client wants to be asked for it.
            response.read()
        if self.sock is None:
            return 'it is closed'
        if self._requesting:
            return 'a request was begun, and its response not asked for'
        if response is not None:
            if not response.isclosed():
                return 'a response was not read to its end'
            if response.status == _SWITCHING_PROTOCOLS:
                return 'it was switched to another protocol'
            return self._spoilt or response.spoils
        return None

    def is_quiet(self) -> bool:
        """Tell whether the server has neither closed the connection nor sent anything that nobody has asked for."""
        sock = self.sock
        readable, finished = poll_once(sock.fileno())
        if finished:
            return False
        if not isinstance(sock, ssl.SSLSocket):
            return not readable
        if not readable:
            return not sock.pending()
        timeout = sock.gettimeout()
        try:
            sock.settimeout(0)
            try:
                # It may be something for the TLS layer only, such as a session ticket, which this takes in.
                sock.recv(1)
            finally:
                sock.settimeout(timeout)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return False


class _PooledHttpConnection(_PooledConnection):
    """A connection without TLS."""


class _PooledHttpsConnection(_PooledConnection, http.client.HTTPSConnection):
    """A connection with TLS."""


class HttpConnectionManager(BaseConnectionManager[HttpEndpoint, Connection]):
    """Makes connections that are kept alive between requests.

    A connection is unfit, and its pool closes it, when the server has closed it (``Connection: close``, or while it was
    idle), when a request was sent and its response not read to its end, when it was switched to another protocol, and
    when there is something to read on it that nobody has asked for.

    :param timeout: seconds that connecting, and each wait for the server, may take; None for no limit
    :param ssl_context: settings for ``https``, None for Python's default: certificates are checked against the
        system's authorities
    """

    def __init__(self, *, timeout: float | None = None, ssl_context: ssl.SSLContext | None = None) -> None:
        self._timeout = timeout
        self._ssl_context = ssl_context

    def create(self, endpoint: HttpEndpoint, timeout: float | None = None) -> Connection:
        """Resolve the host name, connect to its addresses in turn until one answers; with ``https`` shake hands.

        :param endpoint: ``'http://host:port'`` or ``(scheme, host, port)``; ``http`` and ``https`` have default ports
        :param timeout: seconds that all of it may take together, if that is less than the manager's ``timeout``. The
            name's resolution counts, but cannot be interrupted.
        :raise ConnectTimeout: the time is over
        :raise ConnectError: the connection cannot be made; also an ``OSError`` of the kind that was the cause
        :raise UnknownEndpoint: the endpoint is none
        """
        scheme, host, port = _split_endpoint(endpoint)
        conn: _PooledConnection
        if scheme == 'https':
            if self._ssl_context is None:
                # Reading the system's authorities takes a while.
                self._ssl_context = ssl.create_default_context()
            conn = _PooledHttpsConnection(host, port, timeout=self._timeout, context=self._ssl_context)
        else:
            conn = _PooledHttpConnection(host, port, timeout=self._timeout)
        try:
            conn.connect_within(timeout)
        except TimeoutError as exc:
            raise_connect_timeout(endpoint, exc, timeout if timeout is not None else self._timeout)
        except ssl.SSLError as exc:
            advice = 'check that the server speaks TLS there, and that its certificate is trusted and names the host'
            raise_connect_error(endpoint, exc, advice)
        except OSError as exc:
            raise_connect_error(endpoint, exc, advice_for_os_error(exc))
        except UnicodeError as exc:
            raise_connect_error(endpoint, exc, 'check the host name: it is none')
        return conn

    def dispose(self, endpoint: HttpEndpoint, conn: Connection, timeout: float | None = None) -> None:
        """Close a connection. It will not connect again by itself, as those of http.client otherwise do.

        :param endpoint: where the connection leads
        :param conn: the connection; a thread that waits for a response on it gets an error
        :param timeout: not needed, this never waits
        """
        _pooled(conn).end()

    def check_aliveness(self, endpoint: HttpEndpoint, conn: Connection, timeout: float | None = None) -> bool:
        """Tell whether a connection is open and nothing is left over on it. Only the kernel is asked.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param timeout: not needed, this never waits
        """
        pooled = _pooled(conn)
        return pooled.why_unfit() is None and pooled.is_quiet()

    def on_release(self, endpoint: HttpEndpoint, conn: Connection) -> None:
        """Look at what is known of the connection, and take back a timeout that the user has set on its socket.

        :param endpoint: where the connection leads
        :param conn: the connection
        :raise DiscardConnection: it is unfit
        """
        pooled = _pooled(conn)
        reason = pooled.why_unfit()
        if reason is not None:
            raise DiscardConnection(f'the connection to {endpoint!r} is unfit: {reason}')
        pooled.timeout = self._timeout
        if pooled.sock.gettimeout() != self._timeout:
            pooled.sock.settimeout(self._timeout)

    def is_broken(self, endpoint: HttpEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Tell whether the connection is in any state but idle.

        :param endpoint: where the connection leads
        :param conn: the connection
        :param exc: what the user's block raised; whatever it is, a response that was read to its end is good
        """
        return _pooled(conn).why_unfit() is not None


def _pooled(conn: Connection) -> _PooledConnection:
    if not isinstance(conn, _PooledConnection):
        raise TypeError(f'{conn!r} was not made by HttpConnectionManager')
    return conn


def _split_endpoint(endpoint: object) -> tuple[str, str, int]:
    if isinstance(endpoint, str):
        if '@' in endpoint:
            # Not quoted: there may be a password.
            raise UnknownEndpoint('an endpoint has a user name: send it with the request (Authorization)', endpoint)
        try:
            url = urllib.parse.urlsplit(endpoint)
            port = url.port
        except ValueError:
            pass
        else:
            bare = url.path in ('', '/') and not url.query and not url.fragment
            if url.scheme in _DEFAULT_PORTS and url.hostname and bare:
                return url.scheme, url.hostname, _DEFAULT_PORTS[url.scheme] if port is None else port
    elif isinstance(endpoint, tuple) and len(endpoint) == 3:
        scheme, host, port = endpoint
        if scheme in _DEFAULT_PORTS and isinstance(host, str) and host and isinstance(port, int):
            return scheme, host, port
    raise UnknownEndpoint(
        f"{endpoint!r} is no endpoint: write 'http://host:port' or 'https://host:port', without a path, "
        "or ('http', 'host', port)",
        endpoint,
    )
