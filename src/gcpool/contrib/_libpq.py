"""Shared by the managers of libpq's connections (psycopg, psycopg2): how a statement and its session are ended."""

import ctypes
import functools
import socket
import time
from collections.abc import Callable

from gcpool._core import GuardedLogger
from gcpool._green_threads import threads_are_green
from gcpool.contrib._attempts import call_in_thread
from gcpool.contrib._goodbye import hold_socket

__all__ = ['ASK_AGAIN', 'CANCEL_TIMEOUT', 'LOOK', 'LibpqCancel', 'LibpqSession', 'ask_in_thread']

#: Seconds to end a statement and its session; a server that answers takes milliseconds. Less than half a second, by
#: which a user's time limit may be exceeded.
CANCEL_TIMEOUT = 0.3
#: Seconds after which the server is asked again to end a statement: a request that arrives before the statement has
#: begun is lost.
ASK_AGAIN = 0.1
#: Seconds between two checks whether a statement has ended, where another thread or task reads its end.
LOOK = 0.002

# Maximum number of seconds for the server to end an idle session; after that the slot is free. And the minimum, even if
# ending the statement took all the time.
_GOODBYE = 0.1
_SHORTEST_GOODBYE = 0.05

_MESSAGE_SIZE = 256

logger = GuardedLogger(__name__)


class LibpqSession:
    """The manager's record of a connection.

    :param generation: see :py:class:`gcpool.contrib._generations.Generations`
    """

    def __init__(self, generation: int | None) -> None:
        self.generation = generation
        #: A duplicate of the socket, made when the connection was closed.
        self.socket: socket.socket | None = None
        #: The monotonic time by which the server must end the session, if a statement was running.
        self.deadline: float | None = None

    def hold_socket(self, fd: int) -> None:
        """Keep the socket beyond the end of the connection."""
        if self.socket is None:
            self.socket = hold_socket(fd)

    def goodbye_time(self, most: float) -> float:
        """Return the seconds that the server has to end the session.

        :param most: seconds
        """
        left = _GOODBYE if self.deadline is None else max(self.deadline - time.monotonic(), _SHORTEST_GOODBYE)
        return min(left, most)

    def __del__(self) -> None:
        # For a connection that was never closed by dispose().
        if self.socket is not None:
            self.socket.close()


@functools.cache
def _libpq(module: str) -> ctypes.CDLL:
    libpq = ctypes.CDLL(module)
    libpq.PQgetCancel.argtypes = [ctypes.c_void_p]
    libpq.PQgetCancel.restype = ctypes.c_void_p
    libpq.PQcancel.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    libpq.PQfreeCancel.argtypes = [ctypes.c_void_p]
    libpq.PQfreeCancel.restype = None
    return libpq


class LibpqCancel:
    """A request to the server to end the statement of a connection. Calling it sends the request, without holding the
    GIL.

    The drivers' own methods hold the GIL while libpq waits: if the server does not answer, the whole program stops.

    :param module: the file of the driver's extension module, which contains libpq or is linked to it
    :param pgconn: the address of libpq's connection, which may be closed before the request is sent
    :raise OSError: the functions of libpq are not found there
    """

    _request: int | None = None

    def __init__(self, module: str, pgconn: int) -> None:
        try:
            self._libpq = _libpq(module)
        except AttributeError as exc:
            raise OSError(str(exc)) from exc
        self._request = self._libpq.PQgetCancel(pgconn)

    def __call__(self) -> None:
        message = ctypes.create_string_buffer(_MESSAGE_SIZE)
        if not self._libpq.PQcancel(self._request, message, _MESSAGE_SIZE):
            logger.info('the server cannot be asked to end a statement: %s', message.value.decode(errors='replace'))

    def __del__(self) -> None:
        if self._request:
            self._libpq.PQfreeCancel(self._request)


def ask_in_thread(ask: Callable[[], object], ended: Callable[[], object]) -> None:
    """Ask the server to end a statement, in a thread, because that may block for long.

    :param ask: sends the request
    :param ended: called in the thread when ``ask`` has ended; called at once, without ``ask``, if no thread can be
        started
    """

    def run() -> None:
        try:
            ask()
        except Exception as exc:  # noqa: BLE001  (a driver's; no caller waits for it)
            logger.info('the server cannot be asked to end a statement: %s', exc)
        finally:
            ended()

    # If threads are greenlets, blocking in one would stop all others.
    if threads_are_green() or call_in_thread(run, lambda _: None, 'gcpool-cancel') is None:
        ended()
