"""How a snapshot gets from one process to another: a Unix socket, or on Windows a port of 127.0.0.1 and a token.

Only :py:func:`transport` knows which one it is.
"""

import contextlib
import errno
import hmac
import json
import os
import secrets
import socket
import stat
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from gcpool.exceptions import MonitorError

from .places import default_path, make_private_directory

__all__ = ['Conversation', 'Listener', 'LoopbackTransport', 'Transport', 'UnixTransport', 'transport']

# Maximum number of bytes of a path in the address of a Unix socket.
MAX_UNIX_PATH = 107 if sys.platform == 'linux' else 103
# How many clients may be queued.
BACKLOG = 16
# Seconds until a client for which the queue has no place tries again.
BUSY_PAUSE = 0.02
TOKEN_LENGTH = 32


class Conversation:
    """A connection with one time limit for everything: a timeout of the socket would start again with each byte.

    :param sock: the connection
    :param timeout: seconds from now
    """

    def __init__(self, sock: socket.socket, timeout: float):
        self._sock = sock
        self._deadline = time.monotonic() + timeout

    def recv(self, size: int) -> bytes:
        """Read at most this many bytes; none when the other side has hung up.

        :raises TimeoutError: when the timeout expires
        :raises OSError: when the connection is broken
        """
        self._limit()
        return self._sock.recv(size)

    def answer(self, make: Callable[[], bytes]) -> None:
        """Make an answer, which does not count against the time limit, and send all of it.

        :raises TimeoutError: when the timeout expires
        :raises OSError: when the connection is broken
        """
        began = time.monotonic()
        data = make()
        self._deadline += time.monotonic() - began
        self._limit()
        # A socket's timeout covers the whole sendall().
        self._sock.sendall(data)

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0.0:
            # A timeout of 0 would make the socket non-blocking, with a different error.
            raise TimeoutError('timed out')
        self._sock.settimeout(left)


class Listener(Protocol):
    """A place that clients connect to.

    :ivar path: the file by which they find it
    :ivar sock: readable when there is one; it does not block
    """

    path: str
    sock: socket.socket

    def admits(self, conn: 'Conversation') -> bool:
        """Whether a client may see the pools.

        :raises OSError: when it hangs up, or the timeout expires
        """
        ...

    def close(self, *, removes_file: bool = True) -> None:
        """Stop listening.

        :param removes_file: False in a forked child, where the file is the parent's
        """


class Transport(Protocol):
    """A kind of listener.

    :ivar suffix: the end of the names of its files
    """

    suffix: ClassVar[str]

    def listen(self, path: str | None) -> Listener:
        """Listen for clients.

        :param path: the file by which they find it; None for the default of this process
        :raises ValueError: when the path cannot be one
        :raises OSError: when the file cannot be made there, or another process serves there
        """
        ...

    def connect(self, path: str, timeout: float) -> socket.socket:
        """Connect as a client.

        :raises MonitorError: when no process serves there
        """
        ...


def transport() -> Transport:
    """The transport of this system."""
    return LoopbackTransport() if sys.platform == 'win32' else UnixTransport()


def _prepared(path: str | None, suffix: str) -> str:
    """The absolute path of a file to be made, in a private directory."""
    if path is None:
        path = default_path(os.getpid(), suffix)
    path = os.path.abspath(path)
    make_private_directory(os.path.dirname(path))
    return path


class _File:
    """A file that a listener has made: it removes that file, and not one that another process has put in its place."""

    def __init__(self, path: str):
        self._path = path
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        if self._identity is not None and self._look() == self._identity:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class _UnixListener:
    def __init__(self, path: str | None):
        self.path = _check_length(os.path.abspath(path)) if path is not None else ''
        self.path = _check_length(_prepared(path, UnixTransport.suffix))
        _refuse_to_replace(self.path)
        # The socket gets its name when it listens, so a client that finds a socket without a listener knows that its
        # process has ended. The first name has the same length: the address must have room for it, too.
        first_name = self.path[:-1] + ('-' if self.path.endswith('~') else '~')
        _refuse_to_replace(first_name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(first_name)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.bind(first_name)
            try:
                os.chmod(first_name, 0o600)
                self.sock.listen(BACKLOG)
                self.sock.setblocking(False)
                os.replace(first_name, self.path)
            except BaseException:
                os.unlink(first_name)
                raise
        except BaseException:
            self.sock.close()
            raise
        self._file = _File(self.path)

    def admits(self, conn: 'Conversation') -> bool:
        # Only this user can have connected: no other one may enter the directory.
        return True

    def close(self, *, removes_file: bool = True) -> None:
        if removes_file:
            self._file.remove()
        self.sock.close()


def _refuse_to_replace(path: str) -> None:
    """Check that a path is free, or has a socket that was left behind by a process that has ended."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, 'there is a file that is not a socket', path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as conn:
        # Does not wait for a stopped process whose queue of clients is full.
        conn.setblocking(False)
        try:
            conn.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as exc:
            # Also a socket of another kind, or one that this user may not use.
            raise OSError(errno.EADDRINUSE, f'another process serves there ({exc})', path) from exc
    raise OSError(errno.EADDRINUSE, 'another process serves there', path)


class UnixTransport:
    """A Unix socket, in a directory that only its user may enter."""

    suffix: ClassVar[str] = '.sock'

    def listen(self, path: str | None) -> Listener:
        return _UnixListener(path)

    def connect(self, path: str, timeout: float) -> socket.socket:
        try:
            _check_length(path)
        except ValueError as exc:
            raise MonitorError(str(exc)) from None
        conn = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            conn.settimeout(timeout)
            _connect(conn, path, time.monotonic() + timeout)
        except BaseException as exc:
            conn.close()
            if isinstance(exc, OSError):
                raise MonitorError(_why_not(path, exc)) from exc
            raise
        return conn


def _connect(conn: socket.socket, path: str, deadline: float) -> None:
    while True:
        try:
            conn.connect(path)
        except BlockingIOError as exc:
            # The queue of waiting clients is full: the system accepts no further one.
            if time.monotonic() >= deadline:
                raise TimeoutError('timed out') from exc
            time.sleep(BUSY_PAUSE)
        else:
            return


def _check_length(path: str) -> str:
    length = len(os.fsencode(path))
    if length > MAX_UNIX_PATH:
        raise ValueError(
            f'the path of the socket has {length} bytes: expected at most {MAX_UNIX_PATH}, which is all that the '
            f'address of a Unix socket has room for: {path!r}'
        )
    return path


def _why_not(path: str, exc: OSError) -> str:
    if isinstance(exc, FileNotFoundError):
        return f'there is no socket {path!r}'
    if isinstance(exc, PermissionError):
        return (
            f'this user may not use the socket {path!r}: only the user of the process that serves there, and root, may'
        )
    if isinstance(exc, ConnectionRefusedError):
        try:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError:
            is_socket = True
        if not is_socket:
            return f'{path!r} is not a socket'
        return f'no process serves at {path!r}: the one that did has ended without removing the file'
    if isinstance(exc, TimeoutError):
        return f'the process that serves at {path!r} does not answer: it is stopped, or too busy'
    return f'no connection to {path!r}: {exc}'


class _LoopbackListener:
    def __init__(self, path: str | None):
        self.path = _prepared(path, LoopbackTransport.suffix)
        self._token = secrets.token_hex(TOKEN_LENGTH // 2)
        self.sock = socket.create_server(('127.0.0.1', 0), backlog=BACKLOG)
        try:
            self.sock.setblocking(False)
            found = {'port': self.sock.getsockname()[1], 'token': self._token}
            first_name = f'{self.path}~'
            descriptor = os.open(first_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, 'w', encoding='ascii') as file:
                json.dump(found, file)
            os.replace(first_name, self.path)
        except BaseException:
            self.sock.close()
            raise
        self._file = _File(self.path)

    def admits(self, conn: 'Conversation') -> bool:
        # Any process of the system can connect; only its user can read the file with the token.
        said = b''
        while len(said) < TOKEN_LENGTH and (more := conn.recv(TOKEN_LENGTH - len(said))):
            said += more
        return hmac.compare_digest(said, self._token.encode('ascii'))

    def close(self, *, removes_file: bool = True) -> None:
        if removes_file:
            self._file.remove()
        self.sock.close()


class LoopbackTransport:
    """A port of 127.0.0.1, and a file with its number and with a token that a client has to know."""

    suffix: ClassVar[str] = '.json'

    def listen(self, path: str | None) -> Listener:
        return _LoopbackListener(path)

    def connect(self, path: str, timeout: float) -> socket.socket:
        try:
            with open(path, encoding='ascii') as file:
                found: Any = json.load(file)
            port, token = int(found['port']), str(found['token'])
        except FileNotFoundError as exc:
            raise MonitorError(f'there is no file {path!r}') from exc
        except PermissionError as exc:
            raise MonitorError(
                f'this user may not read {path!r}: only the user of the process that serves may'
            ) from exc
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise MonitorError(f'{path!r} does not show where a process serves: {exc}') from exc
        try:
            conn = socket.create_connection(('127.0.0.1', port), timeout)
        except ConnectionRefusedError as exc:
            raise MonitorError(
                f'no process serves at {path!r}: the one that did has ended without removing the file'
            ) from exc
        except OSError as exc:
            raise MonitorError(f'no connection to the process of {path!r}: {exc}') from exc
        try:
            conn.sendall(token.encode('ascii'))
        except BaseException as exc:
            conn.close()
            if isinstance(exc, OSError):
                raise MonitorError(f'the process of {path!r} has hung up: {exc}') from exc
            raise
        return conn
