"""http.client's connections, extended by what a pool needs to know."""

import http.client
import io
import socket
import ssl
from collections.abc import Iterable, Iterator
from typing import Any, cast

from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._http_body import RequestBody
from gcpool.contrib._sockets import connect_tcp, poll_once, shut_down

__all__ = ['PooledConnection', 'PooledHttpConnection', 'PooledHttpsConnection']

_SWITCHING_PROTOCOLS = 101
_SHORTEST_TIMEOUT = 0.001


class _Reader(io.BufferedReader):
    """Reads a response, and notices when it has read past the end."""

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
                    # Bytes after the end of the response are lost with the buffer.
                    self.surplus = bool(self.peek(1))
                finally:
                    sock.settimeout(timeout)
            except OSError:
                # Nothing can be read, or nothing is left.
                pass
        super().close()


class _Response(http.client.HTTPResponse):
    """A response that knows whether it leaves its connection fit for the next request."""

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
        """Close the response. If it was not read to its end, the next user would read the rest."""
        if self.length != 0 and not self.isclosed():
            self.was_cut_off = True
        super().close()

    def _read_and_discard_trailer(self) -> None:
        # http.client calls this after the last chunk.
        super()._read_and_discard_trailer()  # type: ignore[misc]
        self._last_chunk_was_read = True

    @property
    def _came_in_full(self) -> bool:
        """Whether the body came to the end that the header announced; http.client may close the response earlier."""
        # http.client also closes a response when the server hangs up within the body, or when a chunk's size is
        # invalid.
        if self.chunked and self.length is None:
            return self._last_chunk_was_read
        return not self.length

    @property
    def spoils(self) -> str | None:
        """Why the connection is unfit for the next user after this response, which is closed."""
        if self.status == _SWITCHING_PROTOCOLS or (self.method == 'CONNECT' and 200 <= self.status < 300):
            return 'it was switched to another protocol'
        if self.status < 200:
            return f'an interim response was read ({self.status}), but not the final one after it'
        if self.was_cut_off:
            return 'a response was closed before its end'
        if not self._came_in_full:
            return 'a response was cut short'
        if self.reader.surplus:
            return 'there is data after the response'
        return None


class PooledConnection(http.client.HTTPConnection):
    """Mixin for http.client's connection classes."""

    response_class = _Response

    #: The host name as it is resolved. It may end in a dot, which the certificate does not have and the server does not
    #: expect.
    resolved_name: str

    _ended = False
    _requesting = False
    # True from the moment at which the head of the request is sent.
    _body_is_next = False
    _body = RequestBody()
    _tunnelled = False
    _response: _Response | None = None
    _spoilt: str | None = None
    _deadline: float | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The base class stores socket.create_connection there, which gives each address of a host the whole timeout.
        del self.__dict__['_create_connection']

    def _create_connection(self, address: tuple[str, int], timeout: float | None, source: object) -> socket.socket:
        deadline = deadline_after(timeout) if self._deadline is None else self._deadline
        sock = connect_tcp(self.resolved_name, address[1], deadline)
        # For the TLS handshake. With a timeout of 0 the socket would be non-blocking.
        left = time_left(deadline)
        sock.settimeout(None if left is None else max(left, _SHORTEST_TIMEOUT))
        return sock

    def connect(self) -> None:
        """Connect. http.client also calls this for a request after the server has closed the connection."""
        if self._ended:
            # Nothing would ever close the new connection.
            raise http.client.NotConnected('the connection was closed by its pool')
        try:
            super().connect()
        except BaseException:
            self.close()
            raise
        self.sock.settimeout(self.timeout)

    def connect_within(self, timeout: float | None) -> None:
        """Connect within a time limit."""
        self._deadline = deadline_after(timeout)
        try:
            self.connect()
        finally:
            self._deadline = None

    def set_tunnel(self, *args: Any, **kwargs: Any) -> None:
        """Connect again through a proxy: after that, the connection no longer leads to its endpoint."""
        super().set_tunnel(*args, **kwargs)
        self._tunnelled = True

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        """Begin a request."""
        if not self._requesting:
            # Set before the call: for http.client, a request refused for its path has begun, too.
            self._requesting = True
            self._body_is_next = False
            self._body = RequestBody()
        super().putrequest(*args, **kwargs)

    def putheader(self, header: str | bytes, *values: Any) -> None:
        """Add a header to the request."""
        super().putheader(header, *values)
        self._body.announce(header, values)

    def send(self, data: Any) -> None:
        """Send something: the head of the request, or some of its body."""
        if not self._requesting:
            super().send(data)
            self._spoilt = self._spoilt or 'something was sent on it outside of a request'
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
            # How much of the body was sent is unknown.
            body.spoil()
            raise

    def _blocks_of(self, data: Any) -> Iterator[Any]:
        # Like http.client's own code, but one block at a time.
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
                # Sending the rest now does not help: the server may have stopped waiting for it.
                self._spoilt = self._spoilt or 'a request was not sent as its header announced it'
        return response

    def close(self) -> None:
        """Close the connection. A request connects again, unless the pool has closed the connection."""
        self._requesting = self._body_is_next = False
        self._spoilt = None
        super().close()

    def end(self) -> None:
        """Close the connection for good, and a response that was not read to its end. Never waits."""
        self._ended = True
        response = self._response
        for sock in (self.sock, None if response is None else response.sock):
            if sock is not None:
                # Wakes a thread that waits for a response; closing has to wait for that thread.
                shut_down(sock)
        self.close()
        if response is not None:
            self._response = None
            response.close()

    def why_unfit(self) -> str | None:
        """Say why the next user must not get the connection, as far as is known without touching the socket."""
        response = self._response
        if response is not None and response.length == 0 and not response.isclosed():
            # Nothing is left to read (HEAD, 204, 304, an empty body), but http.client expects a read.
            response.read()
        if self.sock is None:
            return 'it is closed'
        if self._tunnelled:
            return 'it goes through a proxy'
        if self._requesting:
            return 'a request was begun, but its response was not read'
        if response is not None:
            if not response.isclosed():
                return 'a response was not read to its end'
            return self._spoilt or response.spoils
        return self._spoilt

    @property
    def has_served(self) -> bool:
        """Whether the server ends the connection after this response (``Connection: close``), which came in full."""
        response = self._response
        return (
            response is not None
            and response.will_close
            and response.isclosed()
            and not self._requesting
            and (self._spoilt or response.spoils) is None
        )

    def is_quiet(self) -> bool:
        """Return whether the server has neither closed the connection nor sent anything unsolicited."""
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
                # It may be only for the TLS layer, such as a session ticket; recv() processes it.
                sock.recv(1)
            finally:
                sock.settimeout(timeout)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            return False
        return False


class PooledHttpConnection(PooledConnection):
    """A connection without TLS."""


class PooledHttpsConnection(PooledConnection, http.client.HTTPSConnection):
    """A connection with TLS."""


def _is_bytes_like(data: object) -> bool:
    try:
        memoryview(data)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
