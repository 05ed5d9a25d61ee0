"""Serves snapshots: one JSON object per connection, only to this user, by one daemon thread while it serves."""

import atexit
import contextlib
import json
import os
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from gcpool._core import logger

from .background import Background, is_for_program
from .snapshot import snapshot_as_json
from .transport import Conversation, Listener, transport

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ['Server', 'serve', 'serve_as_environment_says']

# Seconds that a client may take in all, to authenticate and to read.
CLIENT_TIME = 2.0
# Seconds until the next try when the system refuses a connection, because the process has too many files open.
PAUSE = 0.2


class Server:
    """Serves snapshots of the pools of this process until it is closed. A context manager.

    :param path: the file by which clients find it; None for the default
    :ivar path: the same, absolute
    """

    def __init__(self, path: str | None = None):
        #: Whether a forked child serves, too, at its own place.
        self.follows_forks = path is None
        self._listener: Listener = transport().listen(path)
        self.path = self._listener.path
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener.sock, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._background = Background('gcpool-monitor', wait=self._wait, wake=self._wake, work=self._answer)
        self._closed = False
        try:
            self._background.start()
        except BaseException:
            self._listener.close()
            self._close_the_rest()
            raise

    def __enter__(self) -> 'Self':
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f'<{type(self).__module__}.{type(self).__qualname__} at {self.path!r}{", closed" if self._closed else ""}>'
        )

    @property
    def closed(self) -> bool:
        """Whether the server is closed."""
        return self._closed

    def close(self) -> None:
        """Stop serving, and remove the file. Closing a closed server does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._background.end()
        finally:
            # Also if a signal handler has raised while this waited for the thread.
            self._listener.close()
            self._close_the_rest()

    def leave_to_parent(self) -> None:
        """In a forked child: close what was inherited, and leave the parent's file alone."""
        self._closed = True
        self._background.forget()
        self._listener.close(removes_file=False)
        self._close_the_rest()

    def _close_the_rest(self) -> None:
        self._selector.close()
        self._woken.close()
        self._waker.close()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        self._selector.select()
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(64)

    def _wake(self) -> None:
        # If its buffer is full, the thread is about to wake.
        with contextlib.suppress(BlockingIOError):
            self._waker.send(b'.')

    def _answer(self) -> None:
        try:
            conn, _ = self._listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            # Woken for something else, or the client has hung up.
            return
        except OSError:
            if not self._closed:
                time.sleep(PAUSE)
            return
        with conn:
            _converse(conn, self._listener)


def _converse(conn: socket.socket, listener: Listener) -> None:
    # A client that has hung up, or does not read, gets nothing.
    with contextlib.suppress(OSError):
        conversation = Conversation(conn, CLIENT_TIME)
        if listener.admits(conversation):
            conversation.answer(_answer_of_now)


def _answer_of_now() -> bytes:
    try:
        return snapshot_as_json()
    except BaseException as exc:
        # A manager's describe_endpoint may raise anything, and so may the repr() of an object that a task has as its
        # name.
        if is_for_program(exc):
            raise
        kind = type(exc).__name__
        logger.last_resort('no snapshot of the pools: %s', kind)
        return json.dumps({'error': f'the process could not read its pools: {kind}'}).encode('ascii')


# -- the one server of the process ------------------------------------------------------------------------------------


class _Process:
    """The server of this process."""

    def __init__(self) -> None:
        # A signal handler may call serve() while its thread does.
        self._lock = threading.RLock()
        self._server: Server | None = None
        # Whether GCPOOL_MONITOR was obeyed, or could not be.
        self._environment_is_heeded = False

    @property
    def server(self) -> Server | None:
        server = self._server
        return None if server is None or server.closed else server

    def serve(self, path: str | None) -> Server:
        with self._lock:
            server = self.server or self._begin(path)
            if path is not None and os.path.abspath(path) != server.path:
                raise RuntimeError(
                    f'the pools of this process are already served at {server.path!r}: close that server before this'
                )
            return server

    def _begin(self, path: str | None) -> Server:
        try:
            server = Server(path)
        except OSError:
            if self.server is None:
                raise
            return self.server
        if self.server is not None:
            # A signal handler was faster, and serves at another place.
            server.close()
            return self.server
        self._server = server
        return server

    def serve_as_environment_says(self) -> None:
        if self._environment_is_heeded:
            return
        self._environment_is_heeded = True
        wish = os.environ['GCPOOL_MONITOR']
        if wish == '1':
            self._serve_or_warn()
        else:
            logger.warning('GCPOOL_MONITOR=%r: expected 1 or 0; the pools are not served', wish)

    def _serve_or_warn(self) -> None:
        try:
            self.serve(None)
        except (OSError, RuntimeError, ValueError, MemoryError) as exc:
            logger.warning('the pools of this process are not served: %s', exc)

    def begin_in_child(self) -> None:
        # The holder of the lock may exist only in the parent.
        self._lock = threading.RLock()
        server, self._server = self.server, None
        if server is not None:
            server.leave_to_parent()
            if server.follows_forks:
                self._serve_or_warn()

    def end(self) -> None:
        server = self.server
        if server is not None:
            server.close()


_process = _Process()
atexit.register(_process.end)
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_process.begin_in_child)


def serve(path: str | None = None) -> Server:
    """Serve snapshots of the pools of this process: see gcpool.monitor."""
    return _process.serve(path)


def serve_as_environment_says() -> None:
    """Serve, if ``GCPOOL_MONITOR=1`` is set. Errors are logged: the pool is built anyway."""
    _process.serve_as_environment_says()
