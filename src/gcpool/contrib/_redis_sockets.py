"""The sockets of redis-py's connections for threads, with time limits and an orderly end."""

import contextlib
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from gcpool.contrib._attempts import time_left

__all__ = ['PartingSocket', 'bound', 'end_sending', 'pooled_socket', 'unbound']

# Even with a limit of 0, a server that answers without a wait is not cut off.
_SHORTEST_EXCHANGE = 0.05

if TYPE_CHECKING:
    _SocketBase = socket.socket
else:
    _SocketBase = object


class PartingSocket(_SocketBase):
    """Mixin of sockets that shut down only the sending direction: before a close redis-py shuts down both."""

    def shutdown(self, how: int) -> None:
        """Shut down only the sending direction: otherwise the server's end would not be seen."""
        # With the base class's method: SSLSocket's own removes the encryption, and another thread may be sending.
        socket.socket.shutdown(self, socket.SHUT_WR)


class _PlainSocket(PartingSocket, socket.socket):
    """A socket without TLS."""


class _TlsSocket(PartingSocket, ssl.SSLSocket):
    """A socket with TLS."""


class _Bounded(_SocketBase):
    """Mixin of sockets with a deadline for all sending and reading.

    A socket's timeout limits each read, and starts again with each byte that the server sends. A socket has such a
    class only while there is a deadline, because the checks cost time.
    """

    deadline: float
    #: The class of such a socket without a deadline.
    unbounded: type[PartingSocket]

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._count_down()
        super().sendall(*args, **kwargs)

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        self._count_down()
        return super().recv(*args, **kwargs)

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._count_down()
        return super().recv_into(*args, **kwargs)

    def _count_down(self) -> None:
        left = time_left(self.deadline)
        if not left:
            raise TimeoutError('the server did not answer in time')
        timeout = self.gettimeout()
        if timeout is None or timeout > left:
            self.settimeout(left)


class _BoundedPlainSocket(_Bounded, _PlainSocket):
    """A socket without TLS, with a deadline."""

    unbounded = _PlainSocket


class _BoundedTlsSocket(_Bounded, _TlsSocket):
    """A socket with TLS, with a deadline."""

    unbounded = _TlsSocket


def pooled_socket(sock: Any) -> Any:
    """Make a socket capable of a deadline, if it is of Python's own classes."""
    if type(sock) is socket.socket:
        timeout = sock.gettimeout()
        sock = _PlainSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        sock.settimeout(timeout)
    elif type(sock) is ssl.SSLSocket:
        sock.__class__ = _TlsSocket
    return sock


def bound(sock: Any, deadline: float) -> None:
    """Limit sending and reading on a socket by a monotonic time."""
    if isinstance(sock, PartingSocket):
        bounded: Any = sock
        # Set before the class, because another thread may be sending.
        bounded.deadline = max(deadline, time.monotonic() + _SHORTEST_EXCHANGE)
        bounded.__class__ = _BoundedTlsSocket if isinstance(sock, ssl.SSLSocket) else _BoundedPlainSocket


def unbound(sock: Any, timeout: float | None) -> None:
    """Remove the deadline of a socket, and set its timeout."""
    if isinstance(sock, _Bounded):
        again: Any = sock
        again.__class__ = sock.unbounded
        sock.settimeout(timeout)


def end_sending(sock: socket.socket) -> None:
    """Shut down sending: the server then closes the connection, even if a blocking command is waiting."""
    with contextlib.suppress(OSError):
        # Unless the socket is closed already.
        sock.shutdown(socket.SHUT_WR)
