"""How sessions of PostgreSQL end: the server is asked to end a statement, and given a moment to let the session go."""

import asyncio
import ctypes
import functools
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable

__all__ = ['LibpqCancel', 'call_in_thread', 'hold_socket', 'wait_until_gone', 'wait_until_gone_async']

_CHUNK = 65536
_MESSAGE_SIZE = 256

logger = logging.getLogger(__name__)


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
    """A request to the server to end the statement of a connection; calling it sends it, and waits without the GIL.

    The drivers' own methods hold the GIL while libpq waits: with a server that says nothing the whole program stops.

    :param module: the file of the driver's extension module, which has libpq in it or is linked to it
    :param pgconn: the address of libpq's connection, which may be closed before the request is sent
    :raise OSError: the functions of libpq cannot be found there
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


def call_in_thread(call: Callable[[], object], ended: Callable[[], object]) -> None:
    """Call what may block for long in a daemon thread.

    :param call: what to call
    :param ended: called in the thread when that has ended; at once if there can be no thread
    """
    monkey = sys.modules.get('gevent.monkey')
    if monkey is not None and monkey.is_module_patched('threading'):
        # The thread would be a greenlet, and stop all others.
        ended()
        return

    def run() -> None:
        try:
            call()
        except Exception as exc:  # noqa: BLE001  (a driver's; nobody waits for it)
            logger.info('the server cannot be asked to end a statement: %s', exc)
        finally:
            ended()

    try:
        threading.Thread(target=run, name='gcpool-cancel', daemon=True).start()
    except RuntimeError:
        # There are too many threads, or the interpreter shuts down.
        ended()


def hold_socket(fd: int) -> socket.socket | None:
    """Duplicate a socket that libpq is about to close: its end tells that the server has let the session go.

    :return: None where there is no descriptor left, or none to duplicate
    """
    try:
        # Whatever its family is: it is only read from.
        return socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return None


def wait_until_gone(sock: socket.socket, timeout: float) -> None:
    """Wait until the server has ended a session that was closed, and close the duplicate of its socket.

    :param sock: what :py:func:`hold_socket` gave
    :param timeout: seconds to wait at most
    """
    deadline = time.monotonic() + timeout
    with sock:
        try:
            sock.settimeout(timeout)
            while sock.recv(_CHUNK):
                sock.settimeout(max(deadline - time.monotonic(), 0.0))
        except OSError:
            # The time is over, or the server has reset the connection.
            return


async def wait_until_gone_async(sock: socket.socket, timeout: float) -> None:
    """The same in an event loop."""

    async def read() -> None:
        while await loop.sock_recv(sock, _CHUNK):
            pass

    loop = asyncio.get_running_loop()
    with sock:
        sock.setblocking(False)
        try:
            await asyncio.wait_for(read(), timeout)
        except (OSError, asyncio.TimeoutError):
            return
