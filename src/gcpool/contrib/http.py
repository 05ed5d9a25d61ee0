"""HTTP connections that are kept alive, made by :py:mod:`http.client`, for :py:class:`gcpool.threading.ConnectionPool`.

The connections are ``http.client.HTTPConnection`` and ``HTTPSConnection``. They only remember, in addition, whether the
last response was read to its end: the next user of a connection on which some of it is left would be given that. And
whether each request was sent to its end: a server would take the next user's request for the rest of it.

Of interim responses http.client skips only 100 (Continue). It takes any other (103, Early Hints) for the final one,
which is still to come then: that leaves a connection unfit as well.
"""

import http.client
import io
import re
import socket
import ssl
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard, cast

from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._errors import advice_for_os_error, raise_connect_error, raise_connect_timeout
from gcpool.contrib._parameters import positive_time_limit
from gcpool.contrib._sockets import connect_tcp, normal_host, poll_once, shut_down
from gcpool.exceptions import DiscardConnection, UnknownEndpoint
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

__all__ = ['Connection', 'HttpConnectionManager', 'HttpEndpoint']

#: ``'http://host:port'`` or ``(scheme, host, port)``
HttpEndpoint = str | tuple[str, str, int]
Connection = http.client.HTTPConnection

_DEFAULT_PORTS: Mapping[str, int] = {'http': http.client.HTTP_PORT, 'https': http.client.HTTPS_PORT}
_SWITCHING_PROTOCOLS = 101
_SHORTEST_TIMEOUT = 0.001
_HIGHEST_PORT = 65535
# Of a chunk's size or a trailer: what is longer is none.
_LONGEST_LINE = 65536
_DIGITS = re.compile(r'[ \t]*[0-9]{1,18}[ \t]*')
_CHUNK_SIZE = re.compile(rb'([0-9A-Fa-f]+)[ \t]*(?:;[^\r\n]*)?\r\n')
_CHUNKED = re.compile(r'(?:.*,)?\s*chunked\s*', re.IGNORECASE)


class _ChunkedBody:
    """Follows the framing of a body that is sent in chunks."""

    ended = False
    spoilt = False

    def __init__(self) -> None:
        # Of the chunk that is being sent.
        self._left = 0
        self._line = b''
        self._awaited = 'size'

    def add(self, data: memoryview) -> None:
        while data and not self.spoilt:
            if self.ended:
                self.spoilt = True
            elif self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
            else:
                piece = bytes(data[:_LONGEST_LINE])
                piece = piece[: piece.find(b'\n') + 1] or piece
                data = data[len(piece) :]
                self._line += piece
                if piece.endswith(b'\n'):
                    line, self._line = self._line, b''
                    self._take(line)
                else:
                    self.spoilt = len(self._line) > _LONGEST_LINE

    def _take(self, line: bytes) -> None:
        if self._awaited == 'trailer':
            self.ended = line == b'\r\n'
        elif self._awaited == 'end of chunk':
            self.spoilt = line != b'\r\n'
            self._awaited = 'size'
        elif found := _CHUNK_SIZE.fullmatch(line):
            self._left = int(found[1], 16)
            self._awaited = 'end of chunk' if self._left else 'trailer'
        else:
            self.spoilt = True


class _RequestBody:
    """Whether the body of a request was sent as its header has announced it."""

    def __init__(self) -> None:
        self._length: int | None = None
        self._chunks: _ChunkedBody | None = None
        self._sent = 0
        self._spoilt = False

    def announce(self, header: str | bytes, values: tuple[Any, ...]) -> None:
        """Take note of a header."""
        name = _as_text(header).strip().lower()
        if name not in ('content-length', 'transfer-encoding'):
            return
        value = ','.join(map(_as_text, values))
        if self._length is not None or self._chunks is not None:
            # Which of them counts is up to the server.
            self._spoilt = True
        elif name == 'transfer-encoding':
            self._chunks = _ChunkedBody()
            self._spoilt = self._spoilt or _CHUNKED.fullmatch(value) is None
        elif _DIGITS.fullmatch(value):
            self._length = int(value)
        else:
            self._spoilt = True

    def add(self, data: Any) -> None:
        """Take note of bytes that were sent."""
        view = memoryview(data).cast('B')
        self._sent += len(view)
        if self._chunks is not None:
            self._chunks.add(view)

    def spoil(self) -> None:
        """Take note that it is not known what was sent."""
        self._spoilt = True

    @property
    def is_through(self) -> bool:
        """Whether all of it was sent, and nothing else."""
        if self._spoilt:
            return False
        if self._chunks is not None:
            return self._chunks.ended and not self._chunks.spoilt
        return self._sent == (self._length or 0)


def _as_text(value: object) -> str:
    return value.decode('latin-1') if isinstance(value, bytes) else str(value)


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

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, **kwargs: Any) -> None:
        super().__init__(sock, debuglevel, method, **kwargs)
        self.sock = sock
        self.method = method
        self.reader = _Reader(self.fp.detach())
        self.reader.sock = sock
        self.fp = self.reader
        self.was_cut_off = False
        self._last_chunk_was_read = False

    def close(self) -> None:
        """Close it. The rest of one that was not read to its end still comes, and who is next would be given that."""
        if self.length != 0 and not self.isclosed():
            self.was_cut_off = True
        super().close()

    def _read_and_discard_trailer(self) -> None:
        # http.client calls it behind the last chunk.
        super()._read_and_discard_trailer()  # type: ignore[misc]
        self._last_chunk_was_read = True

    @property
    def _came_in_full(self) -> bool:
        """Whether the body, which http.client takes for read, came to the end that the header announced."""
        # http.client closes a response by itself also where the server hangs up within its body, or where a chunk's
        # size is none.
        if self.chunked and self.length is None:
            return self._last_chunk_was_read
        return not self.length

    @property
    def spoils(self) -> str | None:
        """What it leaves behind for whoever is next, now that it is closed."""
        if self.status == _SWITCHING_PROTOCOLS or (self.method == 'CONNECT' and 200 <= self.status < 300):
            return 'it was switched to another protocol'
        if self.status < 200:
            return f'an interim response was read ({self.status}), and not the final one behind it'
        if self.was_cut_off:
            return 'a response was closed before its end'
        if not self._came_in_full:
            return 'a response was cut short'
        if self.reader.surplus:
            return 'there is more behind the response'
        return None


class _PooledConnection(http.client.HTTPConnection):
    """Goes in front of one of http.client's classes."""

    response_class = _Response

    #: The host name as it is resolved. It may end in a dot, which neither its certificate has nor the server expects.
    resolved_name: str

    _ended = False
    _requesting = False
    # From the moment in which the head of the request is sent.
    _body_is_next = False
    _body = _RequestBody()
    _tunnelled = False
    _response: _Response | None = None
    _spoilt: str | None = None
    _deadline: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class keeps socket.create_connection there, which gives each address of a host all the time.
        del self.__dict__['_create_connection']

    def _create_connection(self, address: tuple[str, int], timeout: float | None, source: object) -> socket.socket:
        deadline = deadline_after(timeout) if self._deadline is None else self._deadline
        sock = connect_tcp(self.resolved_name, address[1], deadline)
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
        """Connect, in no more time than that."""
        self._deadline = deadline_after(timeout)
        try:
            self.connect()
        finally:
            self._deadline = None

    def set_tunnel(self, *args: Any, **kwargs: Any) -> None:
        """Have it connect again by way of a proxy: it does not lead to its endpoint any more."""
        super().set_tunnel(*args, **kwargs)
        self._tunnelled = True

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request."""
        if not self._requesting:
            # Before: a request that is refused for its path has begun, too, as far as http.client is concerned.
            self._requesting = True
            self._body_is_next = False
            self._body = _RequestBody()
        super().putrequest(*args, **kwargs)

    def putheader(self, header: str | bytes, *values: Any) -> None:
        """Add a header to the request."""
        super().putheader(header, *values)
        self._body.announce(header, values)

    def send(self, data: Any) -> None:
        """Send something: the head of the request, or some of its body."""
        if not self._requesting:
            super().send(data)
            self._spoilt = self._spoilt or 'something was sent on it that belongs to no request'
            return
        if not self._body_is_next:
            # http.client sends the head in one piece.
            super().send(data)
            self._body_is_next = True
            return
        body = self._body
        try:
            for block in self._blocks_of(data):
                super().send(block)
                body.add(block)
        except BaseException:
            # How much of it was sent is not known.
            body.spoil()
            raise

    def _blocks_of(self, data: Any) -> Iterator[Any]:
        # What http.client's own does, one block at a time.
        if hasattr(data, 'read'):
            while block := data.read(self.blocksize):
                yield block.encode('iso-8859-1') if isinstance(block, str) else block
        elif _is_bytes_like(data) or isinstance(data, str) or not isinstance(data, Iterable):
            yield data
        else:
            yield from data

    def getresponse(self) -> http.client.HTTPResponse:
        """Wait for the response to the request."""
        previous = self._response
        response = self._response = cast('_Response', super().getresponse())
        self._requesting = False
        if self.sock is not None:
            if previous is not None:
                self._spoilt = self._spoilt or previous.spoils
            if not self._body.is_through:
                # Nor is it good if the rest is sent now: the server may have given up to wait for it.
                self._spoilt = self._spoilt or 'a request was not sent as its header announced it'
        return response

    def close(self) -> None:
        """Close the connection; a request connects again, unless the pool has closed it."""
        self._requesting = self._body_is_next = False
        self._spoilt = None
        super().close()

    def end(self) -> None:
        """Close it for good, with a response that was not read to its end. Never waits."""
        self._ended = True
        response = self._response
        for sock in (self.sock, None if response is None else response.sock):
            if sock is not None:
                # Wakes a thread that waits for a response, which closing has to wait for.
                shut_down(sock)
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
        if self._tunnelled:
            return 'it leads by way of a proxy'
        if self._requesting:
            return 'a request was begun, and its response not asked for'
        if response is not None:
            if not response.isclosed():
                return 'a response was not read to its end'
            return self._spoilt or response.spoils
        return self._spoilt

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
    idle), when a request was not sent to its end (less or more of a body than ``Content-Length`` says, or no last
    chunk), when its response was not read to its end or was cut short, when it was switched to another protocol, and
    when there is something to read on it that nobody has asked for.

    :param timeout: seconds that connecting, and each wait for the server, may take; None for no limit
    :param ssl_context: settings for ``https``, None for Python's default: certificates are checked against the
        system's authorities
    :raise TypeError: a parameter is of another type
    :raise ValueError: ``timeout`` is 0, negative or NaN
    """

    def __init__(self, *, timeout: float | None = None, ssl_context: ssl.SSLContext | None = None) -> None:
        if not isinstance(ssl_context, (ssl.SSLContext, type(None))):
            raise TypeError(f'ssl_context: expected an ssl.SSLContext or None, got {type(ssl_context).__name__}')
        self._timeout = positive_time_limit('timeout', timeout)
        self._ssl_context = ssl_context

    def normalize(self, endpoint: HttpEndpoint) -> HttpEndpoint:
        """Give the one spelling of an endpoint that its connections are kept under.

        ``'HTTP://Example.org.:80/'`` and ``('http', 'example.org', 80)`` are ``'http://example.org'``: the scheme and
        the host name in lower case, as DNS has it (``xn--``), and without a dot at its end unless that is its only one
        (``db`` is completed by the resolver's search list, ``db.`` is not), an IP address in its usual form, the port
        only where it is not the scheme's own. Names are not resolved: one and its address, or an IPv4 address and the
        IPv6 one that maps it, are two endpoints.

        :param endpoint: ``'http://host:port'`` or ``(scheme, host, port)``; what is no endpoint is returned as it is
        """
        try:
            scheme, host, port = _split_endpoint(endpoint)
        except UnknownEndpoint:
            # Raised where it is connected to.
            return endpoint
        if ':' in host:
            host = f'[{host}]'
        return f'{scheme}://{host}' if port == _DEFAULT_PORTS[scheme] else f'{scheme}://{host}:{port}'

    def create(self, endpoint: HttpEndpoint, timeout: float | None = None) -> Connection:
        """Resolve the host name, connect to its addresses in turn until one answers; with ``https`` shake hands.

        :param endpoint: ``'http://host:port'`` or ``(scheme, host, port)``; ``http`` and ``https`` have default ports
        :param timeout: seconds that all of it may take together, if that is less than the manager's ``timeout``. With a
            limit the name is resolved in a thread, which is left behind when the time is over.
        :raise ConnectTimeout: the time is over
        :raise ConnectError: the connection cannot be made; also an ``OSError`` of the kind that was the cause
        :raise UnknownEndpoint: the endpoint is none: another scheme, a host name with blanks or control characters, a
            port that is no int from 1 to 65535
        """
        scheme, host, port = _split_endpoint(endpoint)
        limit = min((limit for limit in (timeout, self._timeout) if limit is not None), default=None)
        name = host.removesuffix('.') or host
        conn: _PooledConnection
        if scheme == 'https':
            if self._ssl_context is None:
                # Reading the system's authorities takes a while.
                self._ssl_context = ssl.create_default_context()
            conn = _PooledHttpsConnection(name, port, timeout=self._timeout, context=self._ssl_context)
        else:
            conn = _PooledHttpConnection(name, port, timeout=self._timeout)
        conn.resolved_name = host
        try:
            conn.connect_within(limit)
        except TimeoutError as exc:
            raise_connect_timeout(endpoint, exc, limit)
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


def _is_bytes_like(data: object) -> bool:
    try:
        memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def _split_endpoint(endpoint: object) -> tuple[str, str, int]:
    parts: tuple[object, object, object] | None = None
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
            # Some control characters it has left out.
            if url.path in ('', '/') and not url.query and not url.fragment and _is_host(endpoint):
                parts = url.scheme, url.hostname, _DEFAULT_PORTS.get(url.scheme) if port is None else port
    elif isinstance(endpoint, tuple) and len(endpoint) == 3:
        parts = endpoint
    if parts is not None:
        scheme, host, number = parts
        scheme = scheme.lower() if isinstance(scheme, str) else ''
        if scheme in _DEFAULT_PORTS and _is_host(host) and _is_port(number):
            # http.client takes brackets for granted, too.
            inner = host[1:-1] if host.startswith('[') and host.endswith(']') else host
            return scheme, normal_host(inner), number
    raise UnknownEndpoint(
        f"{endpoint!r} is no endpoint: write 'http://host:port' or 'https://host:port', without a path, "
        f"or ('http', 'host', port); the port is an int from 1 to {_HIGHEST_PORT}, the host has neither blanks nor "
        'control characters',
        endpoint,
    )


def _is_host(host: object) -> TypeGuard[str]:
    return isinstance(host, str) and host != '' and not any(char <= ' ' or char == '\x7f' for char in host)


def _is_port(port: object) -> TypeGuard[int]:
    return isinstance(port, int) and not isinstance(port, bool) and 1 <= port <= _HIGHEST_PORT
