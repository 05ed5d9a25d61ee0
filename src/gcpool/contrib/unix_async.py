"""Unix domain sockets and streams for :py:class:`gcpool.asyncio.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.unix_async``.
:py:mod:`gcpool.contrib.socket_async` explains when an idle connection counts as alive.
"""

import asyncio
import pathlib
import socket

from gcpool.contrib._endpoints import normal_path, path_of_endpoint, raise_not_connected_to_path
from gcpool.contrib._parameters import time_limit
from gcpool.contrib._sockets import BACKLOG_RETRY
from gcpool.contrib.socket_async import (
    SocketAlivenessCheckingMixin,
    Stream,
    StreamAlivenessCheckingMixin,
    close_socket,
    close_stream,
)
from gcpool.managers import AsyncConnectionManager as BaseConnectionManager

__all__ = ['UnixSocketConnectionManager', 'UnixSocketEndpoint', 'UnixSocketStreamConnectionManager']

if not hasattr(socket, 'AF_UNIX'):
    raise ImportError(
        'gcpool.contrib.unix_async needs Unix domain sockets, which Python does not have on this platform'
    )

UnixSocketEndpoint = pathlib.Path


class UnixSocketConnectionManager(
    SocketAlivenessCheckingMixin[UnixSocketEndpoint],
    BaseConnectionManager[UnixSocketEndpoint, socket.socket],
):
    """Makes connections to a Unix domain stream socket: non-blocking sockets for ``loop.sock_recv`` and so on."""

    def normalize(self, endpoint: UnixSocketEndpoint) -> UnixSocketEndpoint:
        """Return the normal spelling of an endpoint: a :py:class:`pathlib.Path`, or a str in Linux's abstract
        namespace.

        :param endpoint: as the caller wrote it
        :return: the endpoint itself if it has that spelling, or if it is invalid (``create`` raises then)
        """
        normal: UnixSocketEndpoint = normal_path(endpoint)
        return normal

    async def create(self, endpoint: UnixSocketEndpoint) -> socket.socket:
        """Connect. Waits, until cancelled, for room in the listener's backlog.

        :param endpoint: the socket's path
        :return: a connected non-blocking socket
        :raise ConnectError: the connection cannot be made (also the system's OSError), or ``endpoint`` is not a path (a
            TypeError), or one that a socket cannot have: too long, or with a NUL in it (a ValueError)
        """
        path = path_of_endpoint(endpoint)
        try:
            return await _connect(path)
        except OSError as exc:
            raise_not_connected_to_path(endpoint, exc, None)

    async def dispose(self, endpoint: UnixSocketEndpoint, conn: socket.socket) -> None:
        """Shut the connection down and close it.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        """
        await close_socket(conn)


class UnixSocketStreamConnectionManager(
    StreamAlivenessCheckingMixin[UnixSocketEndpoint],
    BaseConnectionManager[UnixSocketEndpoint, Stream],
):
    """Makes streams to a Unix domain stream socket.

    :param close_timeout: seconds that closing may take to send unsent data; then the connection is aborted. None for no
        limit.
    :raise TypeError: ``close_timeout`` is not a number
    :raise ValueError: ``close_timeout`` is less than 0
    """

    def __init__(self, *, close_timeout: float | None = 1.0) -> None:
        self._close_timeout = time_limit('close_timeout', close_timeout)

    def normalize(self, endpoint: UnixSocketEndpoint) -> UnixSocketEndpoint:
        """Return the normal spelling of an endpoint: a :py:class:`pathlib.Path`, or a str in Linux's abstract
        namespace.

        :param endpoint: as the caller wrote it
        :return: the endpoint itself if it has that spelling, or if it is invalid (``create`` raises then)
        """
        normal: UnixSocketEndpoint = normal_path(endpoint)
        return normal

    async def create(self, endpoint: UnixSocketEndpoint) -> Stream:
        """Connect. Waits, until cancelled, for room in the listener's backlog.

        :param endpoint: the socket's path
        :return: reader and writer
        :raise ConnectError: the connection cannot be made (also the system's OSError), or ``endpoint`` is not a path (a
            TypeError), or one that a socket cannot have: too long, or with a NUL in it (a ValueError)
        """
        path = path_of_endpoint(endpoint)
        try:
            sock = await _connect(path)
            try:
                return await asyncio.open_unix_connection(sock=sock)
            except BaseException:
                sock.close()
                raise
        except OSError as exc:
            raise_not_connected_to_path(endpoint, exc, None)

    async def dispose(self, endpoint: UnixSocketEndpoint, conn: Stream) -> None:
        """Send unsent data and close; abort if that takes longer than ``close_timeout``.

        :param endpoint: the endpoint of the connection
        :param conn: reader and writer
        """
        await close_stream(conn, self._close_timeout)


async def _connect(path: str | bytes) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            # Not loop.sock_connect: on Linux connecting to a full backlog fails at once with EAGAIN, which sock_connect
            # takes for "in progress" and then for success, although the socket is not connected.
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(BACKLOG_RETRY)
            else:
                return sock
    except BaseException:
        sock.close()
        raise
