"""Waits until the server, too, has closed a connection that was closed here: until then there is a session of it."""

import asyncio
import socket

from gcpool.contrib._attempts import deadline_after, time_left

__all__ = ['hold_socket', 'wait_for_end', 'wait_for_end_async']

_CHUNK = 65536
# Seconds between two looks, doubled from look to look.
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.016


def hold_socket(fd: int) -> socket.socket | None:
    """Duplicate a socket that is about to be closed: its end tells that the server has let the session go.

    :param fd: the descriptor; a TLS socket of Python cannot be duplicated itself
    :return: None where there is no descriptor left, or none to duplicate
    """
    try:
        # Whatever its family is: reading and shutting down ask for none.
        return socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return None


def wait_for_end(sock: socket.socket, timeout: float) -> bool:
    """Wait until the server has closed its side of a connection; False if it has not done so in time.

    :param sock: what :py:func:`hold_socket` gave
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
        # It was reset.
        return True
    return False


async def wait_for_end_async(sock: socket.socket, timeout: float) -> bool:
    """Wait as :py:func:`wait_for_end` does, on asyncio."""
    # By looking again and again: not every event loop can watch any socket, and mostly it has ended after the first.
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
