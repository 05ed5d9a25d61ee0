"""Ends a wait for a peer that has no time limit of its own, by shutting the socket down."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

from gcpool.contrib._sockets import shut_down

__all__ = ['cut_off_after', 'shut_down_descriptor']


def shut_down_descriptor(fd: int) -> None:
    """End both directions of a socket that belongs to somebody else (libpq): who waits for it is woken up."""
    sock = socket.socket(fileno=fd)
    try:
        shut_down(sock)
    finally:
        sock.detach()


@contextlib.contextmanager
def cut_off_after(fd: int, timeout: float | None) -> Iterator[Callable[[], bool]]:
    """Shut a socket down unless the block ends in time: so ends a wait for the peer that has no limit of its own.

    :param fd: the descriptor, which must stay open during the block
    :param timeout: seconds, None for no limit
    :return: of the context: tells whether it was cut off. Ask at the end of the block.
    """
    lock = threading.Lock()
    ended = False
    was_cut_off = False

    def cut_off() -> None:
        nonlocal was_cut_off
        with lock:
            # The descriptor is somebody else's when the block has ended.
            if not ended:
                was_cut_off = True
                shut_down_descriptor(fd)

    if timeout is None:
        yield lambda: False
        return
    timer = threading.Timer(timeout, cut_off)
    timer.daemon = True
    timer.start()
    try:
        yield lambda: was_cut_off
    finally:
        with lock:
            ended = True
        timer.cancel()
