"""Lets other processes of the same user watch the pools of this one: ``python -m gcpool top``.

Nothing is served, and no thread runs, until :py:func:`serve` is called, or the environment has ``GCPOOL_MONITOR=1``
when the process builds its first pool.
"""

import math
import os
from typing import Any

from ._core import checked_seconds
from ._monitor.recording import Recording
from ._monitor.server import Server
from ._monitor.server import serve as _serve
from ._monitor.snapshot import snapshot as _snapshot

__all__ = ['Recording', 'Server', 'record', 'serve', 'snapshot']


def serve(path: str | os.PathLike[str] | None = None) -> Server:
    """Serve snapshots of this process's pools: one JSON object per connection, read-only.

    The place is a Unix socket in a directory that only this user may enter; on Windows, a port of 127.0.0.1, and a file
    with the port's number and a token. One daemon thread serves, until the returned server is closed or the process
    ends. A child that the process forks serves as well, at its own place, if no path is given. Serving at the same
    place again returns the existing server.

    :param path: the file by which clients find it, in a directory of mode 0700, which is made if it does not exist.
        None: the file is named after the process id, in ``gcpool-<user id>`` of the directory for temporary files,
        where ``python -m gcpool top`` finds it
    :raises TypeError: when the path is neither a string nor a path
    :raises ValueError: when the path is longer than the address of a Unix socket may be
    :raises RuntimeError: when this process already serves at another place
    :raises OSError: when the directory is not private, or when another process serves there
    """
    return _serve(None if path is None else _checked_path(path))


def snapshot() -> dict[str, Any]:
    """Return what is served now: an object for JSON, with the pools of this process that are open.

    Pools of the same name are summed. Endpoints are shown as the manager's ``describe_endpoint`` shows them.
    """
    return _snapshot()


def record(path: str | os.PathLike[str], interval: float = 1.0) -> Recording:
    """Record the pools of this process to a file, which ``python -m gcpool plot`` draws.

    One daemon thread writes, until the returned recording is closed: ``with record('run.jsonl'): ...``. A child that
    the process forks records nothing.

    :param path: the file, which is overwritten: one snapshot per line, as JSON
    :param interval: seconds between two snapshots
    :raises TypeError: when the path is neither a string nor a path, or the interval is not a number
    :raises ValueError: when the interval is not greater than 0
    :raises OSError: when the file cannot be written
    """
    name = _checked_path(path)
    seconds = checked_seconds('interval', interval)
    if not 0 < seconds < math.inf:
        raise ValueError(f'interval={interval!r}: expected seconds greater than 0')
    return Recording(name, seconds)


def _checked_path(path: str | os.PathLike[str]) -> str:
    try:
        name = os.fspath(path)
    except TypeError:
        name = None
    if not isinstance(name, str):
        raise TypeError(f'path={path!r}: expected a string or a path, not {type(path).__name__}')
    return name
