"""What the socket managers share: looking at a socket without touching it, time limits, TLS records.

Everything here that differs between platforms stands in :py:func:`poll_once` and :py:func:`poller_for`.
"""

import contextlib
import ipaddress
import operator
import os
import pathlib
import select
import socket
import ssl
import sys
from collections.abc import Callable, Generator, Hashable
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NoReturn

from gcpool.contrib._attempts import SHORTEST_CONNECT, Attempts, GivenUpAttemptsError, time_left
from gcpool.contrib._errors import advice_for_path_error, bad_endpoint, raise_not_connected
from gcpool.exceptions import ConnectError

__all__ = [
    'BACKLOG_RETRY',
    'RESOLUTIONS',
    'IpAddress',
    'connect_tcp',
    'is_address',
    'normal_host',
    'normal_host_endpoint',
    'normal_path',
    'normal_tcp_endpoint',
    'path_of_endpoint',
    'peer_hung_up',
    'poll_once',
    'poller_for',
    'raise_not_connected_to_path',
    'shut_down',
    'socket_is_alive',
    'socket_timeout',
    'split_host_endpoint',
    'split_tcp_endpoint',
    'time_to_answer',
    'tls_name',
    'tls_socket_is_alive',
]

IpAddress = IPv4Address | IPv6Address

#: Seconds between two attempts to connect to a Unix socket whose listener's backlog is full.
BACKLOG_RETRY = 0.005

# A timeout of 0 would make the socket non-blocking, where a connect in progress is an error rather than a timeout.
_SHORTEST_TIMEOUT = 1e-6
_SHORTEST_PING = 0.05
# With several addresses each gets its share of the time, but not so little that it cannot answer (as in Go's dialer).
_SHORTEST_SHARE = 2.0

#: The attempts to resolve host names, by name. One for the whole process: all pools ask the same resolver.
RESOLUTIONS = Attempts()

_HIGHEST_PORT = 65535
_PORT = f'an int from 1 to {_HIGHEST_PORT}'
_TCP_ENDPOINT = f'(ipaddress.IPv4Address or IPv6Address, port), the port {_PORT}'
_HOST_ENDPOINT = f'(host name, port), the port {_PORT}'
_PATH_ENDPOINT = 'that is a path (str, bytes or os.PathLike)'

_TLS_RECORD_HEADER = 5
_TLS_ALERT = 21
_TLS_APPLICATION_DATA = 23
# Two bytes of alert, one of content type, and the tag, which has 16 bytes in every cipher that Python enables.
_TLS13_ALERT_LENGTH = 2 + 1 + 16
# Two session tickets and an alert behind them take some 600 bytes.
_TLS_PEEK_LENGTH = 4096

if sys.platform == 'win32':

    def poll_once(fd: int) -> tuple[bool, bool]:
        """Tell whether a socket has something to read and whether it is known to be finished, without waiting."""
        try:
            readable, _, failed = select.select((fd,), (), (fd,), 0)
        except OSError:
            return False, True
        return bool(readable), bool(failed)

    def poller_for(fd: int) -> Callable[[int], object]:
        """Make what tells, called with 0, whether anything has happened to a socket: see :py:func:`poll_once`."""
        return lambda _: any(poll_once(fd))

else:
    # POLLRDHUP (Linux, FreeBSD) tells of the peer's end even if there is data to be read before it.
    _FINISHED = select.POLLERR | select.POLLHUP | select.POLLNVAL | getattr(select, 'POLLRDHUP', 0)

    def poll_once(fd: int) -> tuple[bool, bool]:
        """Tell whether a socket has something to read and whether it is known to be finished, without waiting."""
        events = poller_for(fd)(0)
        if not events:
            return False, False
        flags = events[0][1]
        return bool(flags & select.POLLIN), bool(flags & _FINISHED)

    def poller_for(fd: int) -> Callable[[int], list[tuple[int, int]]]:
        """Make what tells, called with 0, whether anything has happened to a socket: see :py:func:`poll_once`.

        For a socket that is looked at often, since what is made here takes as long as a look does.
        """
        # Not select.select: it fails for descriptors from 1024 on.
        poller = select.poll()
        poller.register(fd, select.POLLIN | _FINISHED)
        return poller.poll


def peer_hung_up(fd: int) -> bool:
    """Tell whether a socket is finished as far as the kernel tells by its descriptor alone (negative: closed)."""
    return fd < 0 or poll_once(fd)[1]


@contextlib.contextmanager
def socket_timeout(sock: socket.socket, timeout: float | None) -> Generator[None, None, None]:
    """Bound each operation on a socket in the block, and give the socket its timeout back.

    :param sock: the socket; it may be closed in the block
    :param timeout: seconds; 0 and less leave an operation only the time that it needs if it does not have to wait;
        None changes nothing
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
    """Tell whether the peer has neither closed nor reset a plain stream socket; costs one system call if it is idle.

    The socket's timeout is neither used nor changed. Bytes that wait to be read leave it alive.
    """
    fd = sock.fileno()
    if fd < 0:
        return False
    readable, finished = poll_once(fd)
    return not finished and (not readable or _peek(sock, 1) != b'')


def tls_socket_is_alive(sock: ssl.SSLSocket) -> bool:
    """Tell what :py:func:`socket_is_alive` does, and False also if a TLS alert (``close_notify``) waits to be read.

    The records are read by their headers, with nothing taken from the socket. A TLS 1.3 alert is told by its length.
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
    """Look at what a readable socket has: b'' if it has ended or failed, None if there was nothing after all."""
    try:
        # By the base class, since an SSLSocket takes no flags.
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
    """End both directions of a socket; False if there was nothing left to end (the peer is gone, or it is closed)."""
    try:
        if isinstance(sock, ssl.SSLSocket):
            # Its own first takes its encryption away: what another thread is about to send would go out in plaintext.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        else:
            sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


class _PathTooLong(OSError, ValueError):
    """What Python itself raises for such a path is a mere OSError."""


def split_tcp_endpoint(endpoint: tuple[IpAddress, int]) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """Give the family of an endpoint and the address to connect to.

    :raise ConnectError: the endpoint is no pair of an IP address and a port (a TypeError, too), or the port is out of
        range (a ValueError)
    """
    address, port = _pair(endpoint, _TCP_ENDPOINT)
    if not isinstance(address, (IPv4Address, IPv6Address)):
        raise bad_endpoint(TypeError, endpoint, _TCP_ENDPOINT)
    number = _port_number(endpoint, port, _TCP_ENDPOINT)
    return socket.AF_INET if address.version == 4 else socket.AF_INET6, (str(address), number)


def split_host_endpoint(endpoint: tuple[str, int]) -> tuple[str, int | str]:
    """Give the host name and the port of an endpoint.

    :return: the port is a str only if it is the name of a service, which the resolver knows the number of
    :raise ConnectError: the endpoint is no pair of a host name and a port (a TypeError, too), or the port is out of
        range, or there is a NUL in the name (a ValueError)
    """
    host, port = _pair(endpoint, _HOST_ENDPOINT)
    if not isinstance(host, str):
        raise bad_endpoint(TypeError, endpoint, _HOST_ENDPOINT)
    if '\0' in host:
        # The system's resolver would see the name end there.
        raise bad_endpoint(ValueError, endpoint, f'{_HOST_ENDPOINT}, and no NUL in the name')
    if not isinstance(port, str):
        return host, _port_number(endpoint, port, _HOST_ENDPOINT)
    # Programs rely on it that asyncio.open_connection takes these as well.
    if port.isascii() and port.isdecimal():
        return host, _port_number(endpoint, int(port), _HOST_ENDPOINT)
    if not port.isprintable() or not any(map(str.isalpha, port)):
        raise bad_endpoint(ValueError, endpoint, _HOST_ENDPOINT)
    return host, port


def _pair(endpoint: Any, expected: str) -> tuple[object, object]:
    # A string of two characters is no pair.
    if not isinstance(endpoint, (str, bytes)):
        try:
            first, second = endpoint
        except (TypeError, ValueError):
            pass
        else:
            return first, second
    raise bad_endpoint(TypeError, endpoint, expected)


def _port_number(endpoint: Hashable, port: Any, expected: str) -> int:
    try:
        number = operator.index(port)
    except TypeError:
        number = None
    if number is None or isinstance(port, bool):
        raise bad_endpoint(TypeError, endpoint, expected)
    # The system's resolver takes 65536 more for the same port.
    if not 1 <= number <= _HIGHEST_PORT:
        raise bad_endpoint(ValueError, endpoint, expected)
    return number


def normal_tcp_endpoint(endpoint: Any) -> Any:
    """Give what an endpoint of an IP address and a port counts as: itself, with the port as an int.

    :return: what is no such endpoint comes back as it is, for ``create`` to say so
    """
    try:
        _, (_, port) = split_tcp_endpoint(endpoint)
    except ConnectError:
        return endpoint
    return _with_parts(endpoint, next(iter(endpoint)), port)


def normal_host_endpoint(endpoint: Any) -> Any:
    """Give what an endpoint of a host name and a port counts as: see :py:func:`normal_host`; the port as an int.

    :return: what is no such endpoint comes back as it is, for ``create`` to say so
    """
    try:
        host, port = split_host_endpoint(endpoint)
    except ConnectError:
        return endpoint
    return _with_parts(endpoint, normal_host(host), port)


def normal_host(host: str) -> str:
    """Give the one spelling of a host name: as the resolver is asked, in lower case; of an address, its usual form.

    A dot at the end is dropped from a name with another dot in it. A name of one label keeps it: without the dot the
    resolver completes it by the domains of its search list, so that ``db`` and ``db.`` may lead to different hosts. Nor
    is an address changed that systems read in different ways (``127.1``, ``010.0.0.1``), nor what is no name.
    """
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    if '%' in host:
        # An interface, whose name is told from another one's by case, too.
        return host
    try:
        # As Python does for the resolver and for the certificate.
        name = host.encode('idna').decode('ascii').lower()
    except UnicodeError:
        return host
    return name[:-1] if name.endswith('.') and '.' in name[:-1] else name


def normal_path(endpoint: Any) -> Any:
    """Give what the path of a Unix socket counts as: a :py:class:`pathlib.Path`, or a str in the abstract namespace.

    Neither symbolic links nor ``..`` are followed, and a relative path remains one: what they mean may change.

    :return: what is no path comes back as it is, for ``create`` to say so
    """
    try:
        path = os.fsdecode(path_of_endpoint(endpoint))
    except ConnectError:
        return endpoint
    # A name in the abstract namespace is none of directories, and '' is not '.'.
    normal = path if path.startswith('\0') or not path else pathlib.Path(path)
    return endpoint if endpoint == normal else normal


def _with_parts(endpoint: Any, *parts: object) -> Any:
    # The object itself if nothing changes; else another of its kind, so that a named tuple remains one.
    if endpoint == parts:
        return endpoint
    make = getattr(endpoint, '_make', tuple)
    return make(parts)


def path_of_endpoint(endpoint: Any) -> str | bytes:
    """Give the path of a Unix socket.

    :raise ConnectError: the endpoint is no path (a TypeError, too), or there is a NUL in it, or a character that the
        system does not have (a ValueError). With a NUL in front it is a name in Linux's abstract namespace.
    """
    try:
        path: str | bytes = os.fspath(endpoint)
    except TypeError:
        raise bad_endpoint(TypeError, endpoint, _PATH_ENDPOINT) from None
    try:
        # The system would see the path end there, and might find another socket.
        is_path = os.fsencode(path).find(b'\0') <= 0
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise bad_endpoint(ValueError, endpoint, f'{_PATH_ENDPOINT} that the system can encode, and no NUL in it')
    return path


def raise_not_connected_to_path(endpoint: Hashable, cause: OSError, timeout: float | None) -> NoReturn:
    """Raise that a Unix socket could not be connected to.

    :param endpoint: its path
    :param cause: what was raised
    :param timeout: seconds that connecting was allowed to take, None for no limit
    :raise ConnectTimeout: it is a TimeoutError
    :raise ConnectError: it is another; a ValueError, too, if the path is too long
    """
    # Python looks at the length itself, so there is no number of a system's error.
    if cause.errno is None and type(cause) is OSError:
        expected = f'{_PATH_ENDPOINT} short enough for a Unix socket (Linux: 107 bytes, macOS: 103)'
        raise bad_endpoint(_PathTooLong, endpoint, expected) from cause
    raise_not_connected(endpoint, cause, timeout, advice_for_path_error)


def tls_name(host: str) -> str:
    """Give the name that a certificate is checked for: without the dot that a host name may end in (RFC 6066).

    :raise ValueError: there is none
    """
    name = host.removesuffix('.')
    if not name:
        raise ValueError(f'no certificate is made out for {host!r}')
    return name


def time_to_answer(timeout: float | None) -> float | None:
    """Give the seconds that a server has to answer a ping: some, though its asker may not wait."""
    return None if timeout is None else max(timeout, _SHORTEST_PING)


def connect_tcp(
    host: str,
    port: int | str,
    deadline: float | None,
    *,
    family: int = socket.AF_UNSPEC,
    prepare: Callable[[socket.socket], object] | None = None,
) -> socket.socket:
    """Resolve a host name, and connect to the first of its addresses that answers.

    With a deadline, a name is resolved in a daemon thread (an address, or without a deadline, is not): the system's
    resolver cannot be interrupted, so a resolution that takes too long goes on there until the resolver itself gives
    up, and what it finds is dropped. The next one of that name waits for its end, so that there are not more and more.

    :param host: host name, or an address as a string
    :param port: the port, or the name of a service
    :param deadline: the monotonic time (:py:func:`deadline_after`) at which all of it has to be through, the resolution
        and the attempts at all addresses; None for the system's limits. If it is over from the start, a name still has
        a quarter of a second to be resolved, and an address is found that answers without being waited for.
    :param family: one of the address families, to take only its addresses
    :param prepare: called with each socket before it is connected (options, bind)
    :return: a connected socket with the default timeout (:py:func:`socket.getdefaulttimeout`)
    :raise TimeoutError: the time is over
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
            sock = socket.socket(kind_of_address, kind, protocol)
            try:
                if prepare is not None:
                    prepare(sock)
                with socket_timeout(sock, left):
                    sock.connect(address)
            except BaseException:
                sock.close()
                raise
        except OSError as exc:
            failure = exc
        else:
            return sock
    try:
        raise failure or OSError(f'no address found for {host!r}')
    finally:
        # The traceback refers to this frame: without it there is no reference cycle.
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
    # Any other type would be taken for an address in its binary form.
    if not isinstance(host, str):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
