"""Unix domain sockets for :py:class:`gcpool.threading.ConnectionPool`.

The names and signatures are those of ``generic_connection_pool.contrib.unix``. :py:mod:`gcpool.contrib.socket` explains
when an idle socket counts as alive.
"""

import pathlib
import socket
import time

from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._endpoints import normal_path, path_of_endpoint, raise_not_connected_to_path
from gcpool.contrib._sockets import BACKLOG_RETRY, shut_down
from gcpool.contrib.socket import SocketAlivenessCheckingMixin, socket_timeout
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

__all__ = ['CheckSocketAlivenessMixin', 'UnixSocketConnectionManager', 'UnixSocketEndpoint']

if not hasattr(socket, 'AF_UNIX'):
    raise ImportError('gcpool.contrib.unix needs Unix domain sockets, which Python does not have on this platform')

UnixSocketEndpoint = pathlib.Path

#: The name of this type in generic_connection_pool.contrib.unix.
CheckSocketAlivenessMixin = SocketAlivenessCheckingMixin


class UnixSocketConnectionManager(
    SocketAlivenessCheckingMixin[UnixSocketEndpoint],
    BaseConnectionManager[UnixSocketEndpoint, socket.socket],
):
    """Makes connections to a Unix domain stream socket."""

    def normalize(self, endpoint: UnixSocketEndpoint) -> UnixSocketEndpoint:
        """Return the normal spelling of an endpoint: a :py:class:`pathlib.Path`, or a str in Linux's abstract
        namespace.

        :param endpoint: as the caller wrote it
        :return: the endpoint itself if it has that spelling, or if it is invalid (``create`` raises then)
        """
        normal: UnixSocketEndpoint = normal_path(endpoint)
        return normal

    def create(self, endpoint: UnixSocketEndpoint, timeout: float | None = None) -> socket.socket:
        """Connect.

        :param endpoint: the socket's path
        :param timeout: seconds that connecting may take (it takes time if the listener's backlog is full), None for the
            default timeout; 0 does not wait for room in the backlog
        :return: a connected socket with the default timeout (:py:func:`socket.getdefaulttimeout`)
        :raise ConnectTimeout: the timeout expired
        :raise ConnectError: the connection cannot be made (also the system's OSError), or ``endpoint`` is not a path (a
            TypeError), or one that a socket cannot have: too long, or with a NUL in it (a ValueError)
        """
        path = path_of_endpoint(endpoint)
        try:
            return self._connect(path, timeout)
        except OSError as exc:
            raise_not_connected_to_path(endpoint, exc, timeout)

    def _connect(self, path: str | bytes, timeout: float | None) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            limit = sock.gettimeout() if timeout is None else timeout
            deadline = deadline_after(limit)
            while True:
                left = time_left(deadline)
                try:
                    with socket_timeout(sock, left):
                        sock.connect(path)
                except BlockingIOError as exc:
                    # On Linux only a connect without any timeout waits for room in the listener's backlog.
                    if left == 0:
                        raise TimeoutError('the backlog of its listener is full') from exc
                    time.sleep(BACKLOG_RETRY if left is None else min(left, BACKLOG_RETRY))
                else:
                    return sock
        except BaseException:
            sock.close()
            raise

    def dispose(self, endpoint: UnixSocketEndpoint, conn: socket.socket, timeout: float | None = None) -> None:
        """Shut the connection down and close it; a thread that still waits on it wakes up.

        :param endpoint: the endpoint of the connection
        :param conn: the socket
        :param timeout: not used: this never waits
        """
        shut_down(conn)
        conn.close()
