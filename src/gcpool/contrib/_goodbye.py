"""Waits until the server has closed its side of a closed connection: until then the server has a session for it."""

import asyncio
import socket

from gcpool.contrib._attempts import deadline_after, time_left

__all__ = ['hold_socket', 'wait_for_end', 'wait_for_end_async']

_CHUNK = 65536
# Seconds between two polls, doubled each time.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.016


def hold_socket(fd: int) -> socket.socket | None:
    """Duplicate a socket that is about to be closed, so that its end of stream shows when the server has ended the
    session.

    :param fd: the descriptor; Python cannot duplicate a TLS socket itself
    :return: None if there is no descriptor, or it cannot be duplicated
    """
    try:
        # Any family works: reading and shutting down do not depend on it.
        return socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return None


def wait_for_end(sock: socket.socket, timeout: float) -> bool:
    """Wait until the server has closed its side of a connection; return False if it has not done so in time.

    :param sock: a socket from :py:func:`hold_socket`
    :param timeout: seconds
    """
    deadline = deadline_after(timeout)
    try:
        while left := time_left(deadline):
            sock.settimeout(left)
            if not sock.recv(_CHUNK):
                return True
    except TimeoutError:
        return False
    except OSError:
        # The connection was reset.
        return True
    return False


async def wait_for_end_async(sock: socket.socket, timeout: float) -> bool:
    """Wait as :py:func:`wait_for_end` does, on asyncio."""
    # Polls, because not every event loop can watch any socket, and the session has usually ended by the first poll.
    deadline = deadline_after(timeout)
    pause = 0.0
    sock.setblocking(False)
    while True:
        try:
            while sock.recv(_CHUNK):
                pass
        except BlockingIOError:
            pass
        except OSError:
            return True
        else:
            return True
        if not (left := time_left(deadline)):
            return False
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause or _FIRST_PAUSE, _LONGEST_PAUSE)
