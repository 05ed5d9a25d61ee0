"""Records the pools of this process in a file, for ``python -m gcpool plot``."""

import io
import os
import threading
import time
import weakref
from types import TracebackType
from typing import TYPE_CHECKING

from gcpool._core import logger
from gcpool._workers.threads import Wakeup

from .background import Background, is_for_program
from .snapshot import snapshot_as_json

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ['Recording']


class Recording:
    """Records the pools of this process until it is closed. A context manager.

    :param path: the file, which is overwritten: one snapshot per line, without endpoints and holders
    :param interval: seconds between two snapshots
    :ivar path: the same
    """

    def __init__(self, path: str, interval: float):
        self.path = path
        self._interval = interval
        self._due = time.monotonic()
        self._wakeup = Wakeup()
        self._lock = threading.Lock()
        # Without a buffer: a forked child might find its lock held, and would write its contents once more.
        self._file: io.FileIO | None = io.FileIO(path, 'w')
        self._background = Background('gcpool-recorder', wait=self._wait, wake=self._wakeup.set, work=self._record)
        try:
            self._write()
            self._background.start()
        except BaseException:
            self._close_file()
            raise
        _recordings.add(self)

    def __enter__(self) -> 'Self':
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ', closed' if self.closed else ''
        return f'<{type(self).__module__}.{type(self).__qualname__} to {self.path!r}{state}>'

    @property
    def closed(self) -> bool:
        """Whether recording has ended."""
        return self._file is None

    def close(self) -> None:
        """Record once more, and end. Closing a closed recording does nothing."""
        if not self.closed:
            try:
                self._background.end()
                self._record()
            finally:
                # Also if a signal handler has raised while this waited for the thread.
                self._close_file()

    def _wait(self) -> None:
        self._wakeup.wait(max(self._due - time.monotonic(), 0.0))

    def _write(self) -> None:
        # At equal intervals, unless the process is too slow for that.
        self._due = max(self._due + self._interval, time.monotonic())
        line = _line_of_now()
        with self._lock:
            while line and self._file is not None:
                line = line[self._file.write(line) :]

    def _record(self) -> None:
        try:
            self._write()
        except OSError as exc:
            logger.warning('the pools are no longer recorded to %s: %s', self.path, exc)
            self._close_file()
            self._background.end()

    def _close_file(self) -> None:
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as exc:
                logger.warning('closing %s: %s', self.path, exc)

    def leave_to_parent(self) -> None:
        """In a forked child: record nothing."""
        self._lock = threading.Lock()
        self._background.forget()
        self._close_file()


def _line_of_now() -> bytes:
    try:
        return snapshot_as_json(details=False) + b'\n'
    except BaseException as exc:
        # A manager's describe_endpoint may raise anything. The next snapshot may succeed.
        if is_for_program(exc):
            raise
        logger.last_resort('a snapshot of the pools is not recorded: %s', type(exc).__name__)
        return b''


_recordings: 'weakref.WeakSet[Recording]' = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    for recording in list(_recordings):
        recording.leave_to_parent()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
