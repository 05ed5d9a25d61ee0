"""Lets other processes of the same user watch the pools of this one: ``python -m gcpool top``.

Nothing is served, and no thread runs, until :py:func:`serve` is called, or the environment has ``GCPOOL_MONITOR=1``
when the process builds its first pool.
"""

import os
from typing import Any

from ._monitor.server import Server
from ._monitor.server import serve as _serve
from ._monitor.snapshot import snapshot as _snapshot

__all__ = ['Server', 'serve', 'snapshot']


def serve(path: str | os.PathLike[str] | None = None) -> Server:
    """Serve snapshots of this process's pools: one JSON object a connection, read-only.

    That is a Unix socket in a directory that only this user may enter; on Windows a port of 127.0.0.1, with a file that
    has its number and a token. One daemon thread serves, until the returned server is closed or the process ends. A
    child that the process forks serves as well, at its own place, if no path is given. Serving at the same place again
    returns the server that is there.

    :param path: the file by which clients find it, in a directory of mode 0700, which is made if it does not exist.
        None: the file is called by the process id, in ``gcpool-<user id>`` of the directory for temporary files, where
        ``python -m gcpool top`` finds it
    :raises TypeError: when the path is neither a string nor a path
    :raises ValueError: when the path is longer than the address of a Unix socket may be
    :raises RuntimeError: when this process serves at another place already
    :raises OSError: when the directory is not private, or when another process serves there
    """
    if path is not None:
        path = os.fspath(path)
        if not isinstance(path, str):
            raise TypeError(f'path={path!r}: expected a string or a path, not {type(path).__name__}')
    return _serve(path)


def snapshot() -> dict[str, Any]:
    """Return what is served now: an object for JSON, with the pools of this process that are open.

    Pools of one name are summed. Endpoints are shown as the manager's ``describe_endpoint`` shows them.
    """
    return _snapshot()
