"""http.client's connections, which remember what a pool has to know of them."""

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


class PooledConnection(http.client.HTTPConnection):
    """Goes in front of one of http.client's classes."""

    response_class = _Response

    #: The host name as it is resolved. It may end in a dot, which neither its certificate has nor the server expects.
    resolved_name: str

    _ended = False
    _requesting = False
    # From the moment in which the head of the request is sent.
    _body_is_next = False
    _body = RequestBody()
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
