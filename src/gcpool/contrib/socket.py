"""TCP and TLS sockets for :py:class:`gcpool.threading.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.socket``.

**When is an idle socket alive?** Unless the peer has closed or reset it, or it is closed on this side. The kernel is
asked; nothing is read, and the socket's timeout is not touched. Unexpected bytes (the rest of an answer that the
previous user did not read) do *not* make the socket dead, as in generic-connection-pool: only the program knows whether
its protocol lets the peer speak first. If it does not, override ``check_aliveness`` or ``on_release``.
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
    """Make a socket non-blocking for the block, and restore its timeout.

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
        """Return whether the peer has neither closed nor reset the connection. One system call if it is idle.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        :param timeout: not used: this never waits
        """
        return socket_is_alive(conn)

    # Not ``broken_on_cancel``: is_broken() returns True for any exception. A subclass that overrides it does so because
    # it knows from its protocol whether a reply is outstanding, after a cancellation, too.

    def is_broken(self, endpoint: EndpointT, conn: socket.socket, exc: BaseException) -> bool:
        """Return True, so that the connection is not served again: after any exception a request may be outstanding.

        Override this if the protocol shows whether one is outstanding.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        :param exc: what the user's block raised, whatever it is
        """
        return True


class SslSocketAlivenessCheckingMixin(Generic[EndpointT]):
    """Finds out whether a TLS socket is alive (see the module)."""

    def check_aliveness(self, endpoint: EndpointT, conn: tls.SSLSocket, timeout: float | None = None) -> bool:
        """Return whether the peer has neither closed nor reset the connection, nor sent ``close_notify``.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        :param timeout: not used: this never waits
        """
        return tls_socket_is_alive(conn)

    def is_broken(self, endpoint: EndpointT, conn: tls.SSLSocket, exc: BaseException) -> bool:
        """Return True, so that the connection is not served again: after any exception a request may be outstanding.

        Override this if the protocol shows whether one is outstanding.

        :param endpoint: the endpoint of the connection
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
        """Return the normal spelling of an endpoint: with the port as an int.

        :param endpoint: as the caller wrote it
        :return: the endpoint itself if it has that spelling, or if it is invalid (``create`` raises then)
        """
        normal: TcpEndpoint = normal_tcp_endpoint(endpoint)
        return normal

    def create(self, endpoint: TcpEndpoint, timeout: float | None = None) -> socket.socket:
        """Connect.

        :param endpoint: IP address and port
        :param timeout: seconds that connecting may take, None for the system's limit; with 0 only a nearby host has
            time to answer
        :return: a connected socket with the default timeout (:py:func:`socket.getdefaulttimeout`)
        :raise ConnectTimeout: the timeout expired
        :raise ConnectError: the connection cannot be made (also the system's OSError), or ``endpoint`` is invalid (a
            TypeError, or a ValueError for a port out of range)
        """
        family, address = split_tcp_endpoint(endpoint)
        try:
            return connected(family, address, timeout)
        except OSError as exc:
            raise_not_connected(endpoint, exc, timeout)

    def dispose(self, endpoint: TcpEndpoint, conn: socket.socket, timeout: float | None = None) -> None:
        """Shut the connection down and close it; a thread that still waits on it wakes up.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        :param timeout: not used: this never waits
        """
        shut_down(conn)
        conn.close()


class SslSocketConnectionManager(
    SslSocketAlivenessCheckingMixin[SslEndpoint],
    BaseConnectionManager[SslEndpoint, tls.SSLSocket],
):
    """Makes TLS connections to a host name, for which the certificate is checked.

    :param ssl: the TLS settings, for example :py:func:`ssl.create_default_context`
    :raise TypeError: ``ssl`` is not an :py:class:`ssl.SSLContext`
    """

    def __init__(self, ssl: tls.SSLContext) -> None:
        if not isinstance(ssl, tls.SSLContext):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f'ssl must be an ssl.SSLContext, not {ssl!r}')
        self._ssl = ssl

    def normalize(self, endpoint: SslEndpoint) -> SslEndpoint:
        """Return the normal spelling of an endpoint: the host name in lower case and in its ASCII form, the port as an
        int.

        A final dot is dropped unless it is the name's only dot (the resolver completes ``db`` by its search list, but
        not ``db.``). The certificate is checked for the name without it.

        :param endpoint: as the caller wrote it
        :return: the endpoint itself if it has that spelling, or if it is invalid (``create`` raises then)
        """
        normal: SslEndpoint = normal_host_endpoint(endpoint)
        return normal

    def create(self, endpoint: SslEndpoint, timeout: float | None = None) -> tls.SSLSocket:
        """Resolve the host name, connect to its addresses in turn until one answers, and do the TLS handshake.

        :param endpoint: host name (or an address as a string) and port
        :param timeout: seconds that all of this may take together, None for the system's limit on connecting and none
            on the handshake. With a limit the name is resolved in a thread, which is left behind when the timeout
            expires.
        :return: a socket with the handshake done and the default timeout (:py:func:`socket.getdefaulttimeout`)
        :raise ConnectTimeout: the timeout expired
        :raise ConnectError: the connection cannot be made (also an OSError of the cause's class:
            :py:class:`socket.gaierror` if the name does not resolve, :py:class:`ssl.SSLError` if the handshake fails),
            or ``endpoint`` is invalid (a TypeError, or a ValueError for a port out of range or an invalid host name)
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
                # Whichever socket exists: a plain one that was wrapped no longer owns a descriptor.
                sock.close()
                raise
        except (OSError, ValueError) as exc:
            raise_not_connected(endpoint, exc, timeout)
        return secured

    def dispose(self, endpoint: SslEndpoint, conn: tls.SSLSocket, timeout: float | None = None) -> None:
        """Shut the TCP connection down and close it; a thread that still waits on it wakes up.

        No ``close_notify`` is sent: a pool closed at short notice also closes connections that another thread is using,
        and OpenSSL allows only one thread at a time on a connection.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        :param timeout: not used: this never waits
        """
        shut_down(conn)
        conn.close()
