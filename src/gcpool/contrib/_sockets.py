"""Shared by the socket managers: looking at a socket without reading from it, time limits, connecting.

Everything in this module that differs between platforms is in :py:func:`poll_once` and :py:func:`poller_for`.
"""

import contextlib
import ipaddress
import select
import socket
import ssl
import sys
from collections.abc import Callable, Generator
from typing import Any

from gcpool.contrib._attempts import SHORTEST_CONNECT, Attempts, GivenUpAttemptsError, time_left

__all__ = [
    'BACKLOG_RETRY',
    'RESOLUTIONS',
    'connect_tcp',
    'connected',
    'is_address',
    'peer_hung_up',
    'poll_once',
    'poller_for',
    'shut_down',
    'socket_is_alive',
    'socket_timeout',
    'time_to_answer',
    'tls_socket_is_alive',
]

#: Seconds between two attempts to connect to a Unix socket whose listener's backlog is full.
BACKLOG_RETRY = 0.005

# A timeout of 0 would make the socket non-blocking, so that a connect in progress raises an error other than a timeout.
_SHORTEST_TIMEOUT = 1e-6
_SHORTEST_PING = 0.05
# With several addresses, each gets its share of the time, but not so little that it cannot answer (as in Go's dialer).
_SHORTEST_SHARE = 2.0

#: Attempts to resolve host names, by name. Shared by the whole process, because all pools ask the same resolver.
RESOLUTIONS = Attempts()

_TLS_RECORD_HEADER = 5
_TLS_ALERT = 21
_TLS_APPLICATION_DATA = 23
# Two bytes of alert, one of content type, and the tag, which has 16 bytes in every cipher that Python enables.
_TLS13_ALERT_LENGTH = 2 + 1 + 16
# Two session tickets and an alert after them take some 600 bytes.
_TLS_PEEK_LENGTH = 4096

if sys.platform == 'win32':

    def poll_once(fd: int) -> tuple[bool, bool]:
        """Return whether a socket has something to read, and whether it is known to have ended, without waiting."""
        try:
            readable, _, failed = select.select((fd,), (), (fd,), 0)
        except OSError:
            return False, True
        return bool(readable), bool(failed)

    def poller_for(fd: int) -> Callable[[int], object]:
        """Return a function that, called with 0, returns whether a socket has any event: see :py:func:`poll_once`."""
        return lambda _: any(poll_once(fd))

else:
    # POLLRDHUP (Linux, FreeBSD) reports the peer's end even if there is data to read before it.
    _FINISHED = select.POLLERR | select.POLLHUP | select.POLLNVAL | getattr(select, 'POLLRDHUP', 0)

    def poll_once(fd: int) -> tuple[bool, bool]:
        """Return whether a socket has something to read, and whether it is known to have ended, without waiting."""
        events = poller_for(fd)(0)
        if not events:
            return False, False
        flags = events[0][1]
        return bool(flags & select.POLLIN), bool(flags & _FINISHED)

    def poller_for(fd: int) -> Callable[[int], list[tuple[int, int]]]:
        """Return a function that, called with 0, returns whether anything has happened to a socket: see
        :py:func:`poll_once`.

        For a socket that is polled often, because building the function takes as long as one poll.
        """
        # Not select.select: it fails for descriptors from 1024 on.
        poller = select.poll()
        poller.register(fd, select.POLLIN | _FINISHED)
        return poller.poll


def peer_hung_up(fd: int) -> bool:
    """Return whether a socket has ended, as far as the kernel knows by its descriptor alone (negative: closed)."""
    return fd < 0 or poll_once(fd)[1]


@contextlib.contextmanager
def socket_timeout(sock: socket.socket, timeout: float | None) -> Generator[None, None, None]:
    """Limit each operation on a socket in the block, and restore its timeout afterwards.

    :param sock: the socket; it may be closed in the block
    :param timeout: seconds; with 0 and less an operation succeeds only if it does not have to wait; None changes
        nothing
    :raise TimeoutError: an operation took longer
    """
    if timeout is None:
        yield
        return

    original = sock.gettimeout()
    sock.settimeout(max(timeout, _SHORTEST_TIMEOUT))
    try:
        yield
    finally:
        if sock.fileno() >= 0:
            sock.settimeout(original)


def socket_is_alive(sock: socket.socket) -> bool:
    """Return whether the peer has neither closed nor reset a plain stream socket; one system call if it is idle.

    The socket's timeout is neither used nor changed. With unread bytes the socket still counts as alive.
    """
    fd = sock.fileno()
    if fd < 0:
        return False
    readable, finished = poll_once(fd)
    return not finished and (not readable or _peek(sock, 1) != b'')


def tls_socket_is_alive(sock: ssl.SSLSocket) -> bool:
    """Like :py:func:`socket_is_alive`, but also return False if a TLS alert (``close_notify``) is waiting to be read.

    The record headers are peeked at; nothing is read from the socket. A TLS 1.3 alert is recognised by its length.
    """
    fd = sock.fileno()
    if fd < 0:
        return False
    readable, finished = poll_once(fd)
    if finished:
        return False
    if not readable:
        return True
    waiting = _peek(sock, _TLS_PEEK_LENGTH)
    return waiting != b'' and (waiting is None or not _has_tls_alert(waiting, sock.version() == 'TLSv1.3'))


def _peek(sock: socket.socket, size: int) -> bytes | None:
    """Peek at the data of a readable socket: b'' if it has ended or failed, None if there was nothing after all."""
    try:
        # With the base class's method, because SSLSocket's own accepts no flags.
        return socket.socket.recv(sock, size, socket.MSG_PEEK)
    except (BlockingIOError, TimeoutError):
        return None
    except OSError:
        return b''


def _has_tls_alert(records: bytes, encrypted_type: bool) -> bool:
    start = 0
    while start + _TLS_RECORD_HEADER <= len(records):
        record_type = records[start]
        length = int.from_bytes(records[start + 3 : start + _TLS_RECORD_HEADER], 'big')
        if record_type == _TLS_ALERT:
            return True
        if encrypted_type and record_type == _TLS_APPLICATION_DATA and length == _TLS13_ALERT_LENGTH:
            return True
        start += _TLS_RECORD_HEADER + length
    return False


def shut_down(sock: socket.socket) -> bool:
    """Shut down both directions of a socket; False if there was nothing to shut down (it has ended, or is closed)."""
    try:
        if isinstance(sock, ssl.SSLSocket):
            # SSLSocket's own method removes the encryption first: what another thread is about to send would go out in
            # plaintext.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        else:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


def time_to_answer(timeout: float | None) -> float | None:
    """Return the seconds that a server has to answer a ping: never 0, even if the caller may not wait."""
    return None if timeout is None else max(timeout, _SHORTEST_PING)


def connected(
    family: int,
    address: Any,
    timeout: float | None,
    *,
    kind: int = socket.SOCK_STREAM,
    protocol: int = 0,
    prepare: Callable[[socket.socket], object] | None = None,
) -> socket.socket:
    """Create a socket and connect it to an address, within ``timeout`` seconds: see :py:func:`socket_timeout`."""
    sock = socket.socket(family, kind, protocol)
    try:
        if prepare is not None:
            prepare(sock)
        with socket_timeout(sock, timeout):
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_tcp(
    host: str,
    port: int | str,
    deadline: float | None,
    *,
    family: int = socket.AF_UNSPEC,
    prepare: Callable[[socket.socket], object] | None = None,
) -> socket.socket:
    """Resolve a host name, and connect to the first of its addresses that answers.

    With a deadline, a name (but not an address) is resolved in a daemon thread, because the system's resolver cannot be
    interrupted. A resolution that takes too long continues in the thread until the resolver gives up, and its result is
    dropped. The next resolution of that name waits for its end, so that the number of threads does not grow.

    :param host: host name, or an address as a string
    :param port: the port, or the name of a service
    :param deadline: the monotonic time (:py:func:`deadline_after`) by which everything must be done, the resolution and
        the attempts at all addresses; None for the system's limits. If it has passed at the start, a name still gets a
        quarter of a second to be resolved, and an address that answers without a wait is still connected to.
    :param family: an address family, to use only its addresses
    :param prepare: called with each socket before it is connected (options, bind)
    :return: a connected socket with the default timeout (:py:func:`socket.getdefaulttimeout`)
    :raise TimeoutError: the deadline has passed
    :raise socket.gaierror: the name does not resolve
    :raise OSError: the last address's error, if none of them could be connected to
    """
    addresses = _resolve(host, port, deadline, family)
    failure: OSError | None = None
    for tried, (kind_of_address, kind, protocol, _, address) in enumerate(addresses):
        left = time_left(deadline)
        if left is not None:
            left = min(left, max(left / (len(addresses) - tried), _SHORTEST_SHARE))
        try:
            return connected(kind_of_address, address, left, kind=kind, protocol=protocol, prepare=prepare)
        except OSError as exc:
            failure = exc
    try:
        raise failure or OSError(f'no address found for {host!r}')
    finally:
        # The traceback refers to this frame; deleting the local avoids a reference cycle.
        del failure


def _resolve(host: str, port: int | str, deadline: float | None, family: int) -> list[Any]:
    def resolve() -> list[Any]:
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)

    left = time_left(deadline)
    if left is None or is_address(host):
        return resolve()
    left = max(left, SHORTEST_CONNECT)
    try:
        return RESOLUTIONS.connect(host, lambda _: resolve(), lambda _: None, left)
    except TimeoutError as exc:
        late = f'the host name {host!r} was not resolved within {left:.3g} seconds'
        if isinstance(exc, GivenUpAttemptsError):
            raise TimeoutError(f'{late}: {exc}') from exc
        raise TimeoutError(late) from None


def is_address(host: object) -> bool:
    # Any other type would be taken for a binary address.
    if not isinstance(host, str):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
