"""TCP and TLS sockets for :py:class:`gcpool.threading.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.socket``.

**When is an idle socket alive?** Unless the peer has closed or reset it, or it is closed on this side. That is looked
up in the kernel, with nothing read and the socket's timeout untouched. Bytes that nobody asked for (the rest of an
answer that the previous user did not read) do *not* make it dead, as in generic-connection-pool: only the program knows
whether its protocol lets the peer speak first. Where it does not, override ``check_aliveness`` or ``on_release``.
"""

import contextlib
import socket
import ssl as tls
from collections.abc import Generator
from typing import Generic

from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._endpoints import (
    IpAddress,
    normal_host_endpoint,
    normal_tcp_endpoint,
    split_host_endpoint,
    split_tcp_endpoint,
    tls_name,
)
from gcpool.contrib._errors import raise_not_connected
from gcpool.contrib._sockets import (
    connect_tcp,
    connected,
    shut_down,
    socket_is_alive,
    socket_timeout,
    tls_socket_is_alive,
)
from gcpool.managers import EndpointT
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

__all__ = [
    'Hostname',
    'IpAddress',
    'Port',
    'SocketAlivenessCheckingMixin',
    'SslEndpoint',
    'SslSocketAlivenessCheckingMixin',
    'SslSocketConnectionManager',
    'TcpEndpoint',
    'TcpSocketConnectionManager',
    'socket_nonblocking',
    'socket_timeout',
]

Hostname = str
Port = int
TcpEndpoint = tuple[IpAddress, Port]
SslEndpoint = tuple[Hostname, Port]


@contextlib.contextmanager
def socket_nonblocking(sock: socket.socket) -> Generator[None, None, None]:
    """Make a socket non-blocking for the block, and give it its timeout back.

    :param sock: the socket; it may be closed in the block
    """
    timeout = sock.gettimeout()
    sock.settimeout(0)
    try:
        yield
    finally:
        if sock.fileno() >= 0:
            sock.settimeout(timeout)


class SocketAlivenessCheckingMixin(Generic[EndpointT]):
    """Finds out whether a plain stream socket is alive (see the module)."""

    def check_aliveness(self, endpoint: EndpointT, conn: socket.socket, timeout: float | None = None) -> bool:
        """Tell whether the peer has neither closed nor reset the connection. One system call if it is idle.

        :param endpoint: where the connection leads
        :param conn: the socket
        :param timeout: not needed, this never waits
        """
        return socket_is_alive(conn)

    def is_broken(self, endpoint: EndpointT, conn: socket.socket, exc: BaseException) -> bool:
        """Tell that the connection must not be served again: after any exception a request may be outstanding.

        Only a program that knows its protocol can tell otherwise, and overrides this.

        :param endpoint: where the connection leads
        :param conn: the socket
        :param exc: what the user's block raised, whatever it is
        """
        return True


class SslSocketAlivenessCheckingMixin(Generic[EndpointT]):
    """Finds out whether a TLS socket is alive (see the module)."""

    def check_aliveness(self, endpoint: EndpointT, conn: tls.SSLSocket, timeout: float | None = None) -> bool:
        """Tell whether the peer has neither closed nor reset the connection, nor said ``close_notify``.

        :param endpoint: where the connection leads
        :param conn: the socket
        :param timeout: not needed, this never waits
        """
        return tls_socket_is_alive(conn)

    def is_broken(self, endpoint: EndpointT, conn: tls.SSLSocket, exc: BaseException) -> bool:
        """Tell that the connection must not be served again: after any exception a request may be outstanding.

        Only a program that knows its protocol can tell otherwise, and overrides this.

        :param endpoint: where the connection leads
        :param conn: the socket
        :param exc: what the user's block raised, whatever it is
        """
        return True


class TcpSocketConnectionManager(
    SocketAlivenessCheckingMixin[TcpEndpoint],
    BaseConnectionManager[TcpEndpoint, socket.socket],
):
    """Makes TCP connections to an IP address, version 4 or 6 (with its scope id, if it has one)."""

    def normalize(self, endpoint: TcpEndpoint) -> TcpEndpoint:
        """Give what an endpoint counts as: the port is an int.

        :param endpoint: as it was asked for
        :return: the endpoint itself if it is spelled like that, or is none (which ``create`` says)
        """
        normal: TcpEndpoint = normal_tcp_endpoint(endpoint)
        return normal

    def create(self, endpoint: TcpEndpoint, timeout: float | None = None) -> socket.socket:
        """Connect.

        :param endpoint: IP address and port
        :param timeout: seconds that connecting may take, None for the system's limit; 0 leaves it only the time in
            which a host close by answers
        :return: a connected socket with the default timeout (:py:func:`socket.getdefaulttimeout`)
        :raise ConnectTimeout: the time is over
        :raise ConnectError: the connection cannot be made (it is the system's OSError, too), or ``endpoint`` is
            something else (a TypeError, or a ValueError for a port out of range)
        """
        family, address = split_tcp_endpoint(endpoint)
        try:
            return connected(family, address, timeout)
        except OSError as exc:
            raise_not_connected(endpoint, exc, timeout)

    def dispose(self, endpoint: TcpEndpoint, conn: socket.socket, timeout: float | None = None) -> None:
        """Shut the connection down and close it; whoever still waits on it wakes up.

        :param endpoint: where the connection leads
        :param conn: the socket
        :param timeout: not needed, this never waits
        """
        shut_down(conn)
        conn.close()


class SslSocketConnectionManager(
    SslSocketAlivenessCheckingMixin[SslEndpoint],
    BaseConnectionManager[SslEndpoint, tls.SSLSocket],
):
    """Makes TLS connections to a host name, which also is what the certificate is checked for.

    :param ssl: the TLS settings, for example :py:func:`ssl.create_default_context`
    :raise TypeError: ``ssl`` is no :py:class:`ssl.SSLContext`
    """

    def __init__(self, ssl: tls.SSLContext) -> None:
        if not isinstance(ssl, tls.SSLContext):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f'ssl must be an ssl.SSLContext, not {ssl!r}')
        self._ssl = ssl

    def normalize(self, endpoint: SslEndpoint) -> SslEndpoint:
        """Give what an endpoint counts as: the host name is in lower case and in its ASCII form, the port an int.

        A dot at the name's end is dropped unless it is its only one (``db`` is completed by the resolver's search list,
        ``db.`` is not). The certificate is checked for the name without it.

        :param endpoint: as it was asked for
        :return: the endpoint itself if it is spelled like that, or is none (which ``create`` says)
        """
        normal: SslEndpoint = normal_host_endpoint(endpoint)
        return normal

    def create(self, endpoint: SslEndpoint, timeout: float | None = None) -> tls.SSLSocket:
        """Resolve the host name, connect to its addresses in turn until one answers, and shake hands.

        :param endpoint: host name (or an address as a string) and port
        :param timeout: seconds that all of it may take together, None for the system's limit on connecting and none on
            the handshake. With a limit the name is resolved in a thread, which is left behind when the time is over.
        :return: a socket with the handshake done and the default timeout (:py:func:`socket.getdefaulttimeout`)
        :raise ConnectTimeout: the time is over
        :raise ConnectError: the connection cannot be made (it is the OSError, too, that is the cause:
            :py:class:`socket.gaierror` if the name does not resolve, :py:class:`ssl.SSLError` if it is the handshake
            that fails), or ``endpoint`` is something else (a TypeError, or a ValueError for a port out of range and for
            what cannot be a host name)
        """
        hostname, port = split_host_endpoint(endpoint)
        deadline = deadline_after(timeout)
        try:
            name = tls_name(hostname)
            sock = connect_tcp(hostname, port, deadline)
            try:
                sock = secured = self._ssl.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
                with socket_timeout(secured, time_left(deadline)):
                    secured.do_handshake()
            except BaseException:
                # Either socket: a plain one that was wrapped owns no descriptor any longer.
                sock.close()
                raise
        except (OSError, ValueError) as exc:
            raise_not_connected(endpoint, exc, timeout)
        return secured

    def dispose(self, endpoint: SslEndpoint, conn: tls.SSLSocket, timeout: float | None = None) -> None:
        """Shut the TCP connection down and close it; whoever still waits on it wakes up.

        There is no ``close_notify``: a pool that is closed in a hurry also disposes of connections that another thread
        is using, and an OpenSSL connection bears only one thread at a time.

        :param endpoint: where the connection leads
        :param conn: the socket
        :param timeout: not needed, this never waits
        """
        shut_down(conn)
        conn.close()
