"""TCP sockets, and TCP and TLS streams, for :py:class:`gcpool.asyncio.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.socket_async``.

**When is an idle connection alive?** As in :py:mod:`gcpool.contrib.socket`: unless the peer has closed or reset it, or
it is closed on this side. Unexpected bytes do not make it dead. For a stream the kernel is asked too, because the event
loop may not have seen the peer's end yet.
"""

import asyncio
import socket
from ssl import SSLContext
from typing import Generic

from gcpool.contrib._endpoints import (
    IpAddress,
    normal_host_endpoint,
    normal_tcp_endpoint,
    split_host_endpoint,
    split_tcp_endpoint,
    tls_name,
)
from gcpool.contrib._errors import raise_not_connected
from gcpool.contrib._parameters import time_limit
from gcpool.contrib._sockets import peer_hung_up, shut_down, socket_is_alive
from gcpool.contrib._sockets_async import connect_tcp, connected
from gcpool.managers import AsyncConnectionManager as BaseConnectionManager
from gcpool.managers import EndpointT

__all__ = [
    'Hostname',
    'IpAddress',
    'Port',
    'SocketAlivenessCheckingMixin',
    'Stream',
    'StreamAlivenessCheckingMixin',
    'TcpEndpoint',
    'TcpSocketConnectionManager',
    'TcpStreamConnectionManager',
    'TcpStreamEndpoint',
    'close_socket',
    'close_stream',
]

Hostname = str
Port = int
TcpEndpoint = tuple[IpAddress, Port]
TcpStreamEndpoint = tuple[Hostname, Port]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SocketAlivenessCheckingMixin(Generic[EndpointT]):
    """Finds out whether a plain stream socket is alive (see the module)."""

    async def check_aliveness(self, endpoint: EndpointT, conn: socket.socket) -> bool:
        """Return whether the peer has neither closed nor reset the connection. One system call if it is idle.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        """
        return socket_is_alive(conn)

    async def is_broken(self, endpoint: EndpointT, conn: socket.socket, exc: BaseException) -> bool:
        """Return True, so that the connection is not served again: after any exception a request may be outstanding.

        Override this if the protocol shows whether one is outstanding.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        :param exc: what the user's block raised, whatever it is
        """
        return True


class StreamAlivenessCheckingMixin(Generic[EndpointT]):
    """Finds out whether a stream, with TLS or without, is alive (see the module)."""

    async def check_aliveness(self, endpoint: EndpointT, conn: Stream) -> bool:
        """Return whether the peer has neither closed nor reset the connection. At most one system call.

        :param endpoint: the endpoint of the connection
        :param conn: reader and writer
        """
        reader, writer = conn
        if writer.is_closing() or reader.at_eof() or reader.exception() is not None:
            return False
        sock = writer.get_extra_info('socket')
        return sock is None or not peer_hung_up(sock.fileno())

    async def is_broken(self, endpoint: EndpointT, conn: Stream, exc: BaseException) -> bool:
        """Return True, so that the connection is not served again: after any exception a request may be outstanding.

        Override this if the protocol shows whether one is outstanding.

        :param endpoint: the endpoint of the connection
        :param conn: the stream
        :param exc: what the user's block raised, whatever it is
        """
        return True


class TcpSocketConnectionManager(
    SocketAlivenessCheckingMixin[TcpEndpoint],
    BaseConnectionManager[TcpEndpoint, socket.socket],
):
    """Makes TCP connections to an IP address, version 4 or 6: non-blocking sockets for ``loop.sock_recv`` and so on."""

    def normalize(self, endpoint: TcpEndpoint) -> TcpEndpoint:
        """Return the normal spelling of an endpoint: with the port as an int.

        :param endpoint: as the caller wrote it
        :return: the endpoint itself if it has that spelling, or if it is invalid (``create`` raises then)
        """
        normal: TcpEndpoint = normal_tcp_endpoint(endpoint)
        return normal

    async def create(self, endpoint: TcpEndpoint) -> socket.socket:
        """Connect.

        :param endpoint: IP address and port
        :return: a connected non-blocking socket
        :raise ConnectError: the connection cannot be made (also the system's OSError), or ``endpoint`` is invalid (a
            TypeError, or a ValueError for a port out of range)
        """
        family, address = split_tcp_endpoint(endpoint)
        try:
            return await connected(family, address)
        except OSError as exc:
            raise_not_connected(endpoint, exc, None)

    async def dispose(self, endpoint: TcpEndpoint, conn: socket.socket) -> None:
        """Shut the connection down and close it.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        """
        await close_socket(conn)


class TcpStreamConnectionManager(
    StreamAlivenessCheckingMixin[TcpStreamEndpoint],
    BaseConnectionManager[TcpStreamEndpoint, Stream],
):
    """Makes streams to a host name, with TLS if ``ssl`` is given.

    :param ssl: the TLS settings, or True for the default ones; None and False mean plain TCP
    :param close_timeout: seconds that closing may take to send unsent data and, with TLS, to receive the peer's
        ``close_notify``; then the connection is aborted. None for no limit.
    :raise TypeError: ``ssl`` has another type, or ``close_timeout`` is not a number
    :raise ValueError: ``close_timeout`` is less than 0
    """

    def __init__(self, ssl: bool | SSLContext | None = None, *, close_timeout: float | None = 1.0) -> None:
        if not isinstance(ssl, bool | SSLContext | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f'ssl must be an ssl.SSLContext, a bool or None, not {ssl!r}')
        self._ssl = ssl or None
        self._close_timeout = time_limit('close_timeout', close_timeout)

    def normalize(self, endpoint: TcpStreamEndpoint) -> TcpStreamEndpoint:
        """Return the normal spelling of an endpoint: the host name in lower case and in its ASCII form, the port as an
        int.

        A final dot is dropped unless it is the name's only dot (the resolver completes ``db`` by its search list, but
        not ``db.``). The certificate is checked for the name without it.

        :param endpoint: as the caller wrote it
        :return: the endpoint itself if it has that spelling, or if it is invalid (``create`` raises then)
        """
        normal: TcpStreamEndpoint = normal_host_endpoint(endpoint)
        return normal

    async def create(self, endpoint: TcpStreamEndpoint) -> Stream:
        """Resolve the host name, connect and, with TLS, do the handshake (with the name checked).

        :param endpoint: host name (or an address as a string) and port
        :return: reader and writer
        :raise ConnectError: the connection cannot be made (also an OSError of the cause's class:
            :py:class:`socket.gaierror` if the name does not resolve, :py:class:`ssl.SSLError` if the handshake fails),
            or ``endpoint`` is invalid (a TypeError, or a ValueError for a port out of range or an invalid host name)
        """
        hostname, port = split_host_endpoint(endpoint)
        try:
            if self._ssl is None:
                return await asyncio.open_connection(sock=await connect_tcp(hostname, port))
            name = tls_name(hostname)
            # From here on the transport owns the socket, and closes it when this fails.
            return await asyncio.open_connection(
                sock=await connect_tcp(hostname, port), ssl=self._ssl, server_hostname=name
            )
        except (OSError, ValueError) as exc:
            raise_not_connected(endpoint, exc, None)

    async def dispose(self, endpoint: TcpStreamEndpoint, conn: Stream) -> None:
        """Send unsent data and close; abort if that takes longer than ``close_timeout``.

        :param endpoint: the endpoint of the connection
        :param conn: reader and writer
        """
        await close_stream(conn, self._close_timeout)


async def close_socket(sock: socket.socket) -> None:
    """Shut down and close a socket that was used with an event loop. Never waits for the peer.

    :param sock: the socket, closed afterwards, whatever happens
    """
    try:
        if shut_down(sock):
            # A pool closed at short notice closes connections that are in use. A task that waits in loop.sock_recv gets
            # the end of the stream, but only if the loop sees it: the kernel forgets a descriptor that is closed before
            # that, and the task would wait for ever. The loop needs one turn to see the end, one to wake the task and
            # one to take the descriptor off its list.
            for _ in range(3):
                await asyncio.sleep(0)
    finally:
        sock.close()


async def close_stream(stream: Stream, timeout: float | None) -> None:
    """Close a stream. Neither fails nor hangs if the peer is gone, or does not read the unsent data.

    :param stream: reader and writer
    :param timeout: seconds until the connection is aborted, None for no limit; if the task is cancelled meanwhile the
        connection is aborted at once
    """
    writer = stream[1]
    writer.close()
    # In a task, because a cancelled wait_closed would make every later one look cancelled.
    closed = asyncio.ensure_future(writer.wait_closed())
    # How the connection ended (for instance, reset by the peer) does not matter any more.
    closed.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await asyncio.wait((closed,), timeout=timeout)
        if not closed.done():
            writer.transport.abort()
            # Limited anyway: abort() needs a few turns of the loop, and no peer.
            await asyncio.wait((closed,), timeout=timeout)
    except BaseException:
        writer.transport.abort()
        raise
