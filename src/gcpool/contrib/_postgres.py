"""What the managers of PostgreSQL connections share: time limits that libpq does not have, and advice."""

import contextlib
import math
import os
import socket
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

from gcpool.common import check_optional_seconds
from gcpool.contrib._sockets import call_within, deadline_after, shut_down, time_left

__all__ = [
    'MOST_MESSAGES',
    'Attempts',
    'advice_for',
    'cut_off_after',
    'may_show_password',
    'shorter_connect_timeout',
    'shut_down_descriptor',
    'time_limit',
]

ResultT = TypeVar('ResultT')

#: Seconds that an attempt to connect has at the least: a limit of 0 is no reason not to learn that a server refuses.
SHORTEST_CONNECT = 0.25

#: How often a check takes in what the server says unasked. One that sends notifications faster than they are read
#: should not hold up a check for ever.
MOST_MESSAGES = 10

# By SQLSTATE, and by what the message says: while connecting, libpq passes on the text and not the code.
_ADVICE: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (
        ('53300',),
        ('too many clients', 'too many connections', 'remaining connection slots'),
        "the server has no connection left: lower max_size, or raise the server's max_connections",
    ),
    (
        ('28P01', '28000'),
        ('authentication failed', 'no password supplied', 'pg_hba.conf', 'role "'),
        'check user, password and the pg_hba.conf of the server',
    ),
    (('3D000',), ('database "',), 'check the name of the database, or create it'),
    (
        ('57P03', '57P01'),
        ('starting up', 'shutting down', 'not yet accepting', 'not accepting', 'in recovery mode'),
        'the server is starting or stopping: try again',
    ),
    (
        (),
        ('could not translate host name', 'resolve host', 'Name or service not known', 'nodename nor servname'),
        'check the host name: it does not resolve',
    ),
    ((), ('refused', 'No such file'), 'check that the server is running and listens on that host and port'),
    ((), ('SSL', 'TLS', 'certificate'), 'check sslmode and the certificates'),
)


def advice_for(text: str, sqlstate: str | None = None) -> str:
    """What to do about a failed connect.

    :param text: the message of the server or of libpq
    :param sqlstate: the code of the server's error, where the driver knows it
    """
    for sqlstates, words, advice in _ADVICE:
        if sqlstate in sqlstates or (sqlstate is None and any(word in text for word in words)):
            return advice
    return 'check the parameters, and whether the server can be reached'


def may_show_password(params: Mapping[str, Any]) -> bool:
    """Whether libpq has taken a part of the password for a host or a port, and so would name it in its errors.

    That is what becomes of a URI whose password has an ``@`` or ``/`` that is not escaped.

    :param params: what libpq has read in the connection string
    """
    hosts = str(params.get('host') or '').split(',')
    ports = str(params.get('port') or '').split(',')
    # A path of a Unix socket, or an abstract one, may have an @.
    return any('@' in host and host[0] not in '/@' for host in hosts) or any(
        port and not port.isdigit() for port in ports
    )


def shorter_connect_timeout(timeout: float, configured: Any) -> int:
    """The ``connect_timeout`` for libpq, in whole seconds: the shorter one of a time limit and what is configured.

    :param timeout: seconds that connecting may take
    :param configured: the user's own ``connect_timeout``, None if there is none; 0 and less mean no limit to libpq
    """
    limit = max(math.ceil(timeout), 1)
    if configured is None:
        configured = os.environ.get('PGCONNECT_TIMEOUT') or 0
    seconds = int(float(configured))
    return min(limit, seconds) if seconds > 0 else limit


def time_limit(name: str, value: object) -> float | None:
    """Check a time limit of a manager.

    :param name: of the parameter
    :param value: seconds, None or infinity for no limit
    :return: seconds, None also for more than threads can wait
    :raise TypeError: it is no number
    :raise ValueError: it is less than 0, or not a number at all
    """
    seconds = check_optional_seconds(name, value)
    return None if seconds is None or seconds > threading.TIMEOUT_MAX else seconds


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


class Attempts:
    """Keeps the attempts to connect of a manager within the numbers of the pool, also those that were given up.

    libpq has no way to end an attempt that goes on in another thread: when its time is over it is given up, and may
    have a connection at the server until it ends by itself, while the pool has its place free again. So whoever
    connects to that endpoint next waits for the end of one that was given up, each for another one.
    """

    def __init__(self) -> None:
        # What tells of its end; where it leads, and the process that it belongs to: a forked child has no such thread.
        self._given_up: dict[threading.Event, tuple[Hashable, int]] = {}

    def connect(
        self,
        endpoint: Hashable,
        call: Callable[[float | None], ResultT],
        undo: Callable[[ResultT], object],
        timeout: float | None,
    ) -> ResultT:
        """Connect within a time limit, in a thread if there is one.

        :param endpoint: where the connection leads
        :param call: connects; it is called with the seconds that are left, None for no limit
        :param undo: closes a connection that nobody waits for any more
        :param timeout: seconds that it may take (a quarter of a second at the least), None for no limit
        :raise TimeoutError: the time is over
        """
        limit = None if timeout is None else max(timeout, SHORTEST_CONNECT)
        deadline = deadline_after(limit)
        self._wait_for_one(endpoint, limit)
        left = time_left(deadline)
        if left is None:
            return call(None)
        ended = threading.Event()

        def attempt() -> ResultT:
            try:
                return call(left)
            except BaseException:
                ended.set()
                raise

        def undo_and_tell(result: ResultT) -> None:
            try:
                undo(result)
            finally:
                ended.set()

        try:
            return call_within(attempt, undo_and_tell, left)
        except BaseException:
            if not ended.is_set():
                self._given_up[ended] = (endpoint, os.getpid())
            raise

    def _wait_for_one(self, endpoint: Hashable, seconds: float | None) -> None:
        ended = self._take_one(endpoint)
        if ended is None:
            return
        try:
            if not ended.wait(seconds):
                raise TimeoutError('an attempt to connect that was given up has not ended yet')
        except BaseException:
            self._given_up[ended] = (endpoint, os.getpid())
            raise

    def _take_one(self, endpoint: Hashable) -> threading.Event | None:
        # Without a lock, which a fork could leave locked: each is taken out by one thread alone.
        for ended, (where, process) in tuple(self._given_up.items()):
            if ended.is_set() or process != os.getpid():
                self._given_up.pop(ended, None)
            elif where == endpoint and self._given_up.pop(ended, None) is not None:
                return ended
        return None
