"""Finds the process that serves snapshots, and asks it for one."""

import contextlib
import json
import os
from typing import Any

from gcpool.exceptions import MonitorError

from .places import HAS_USERS, default_directory, default_path, pids_in
from .snapshot import VERSION
from .transport import Conversation, Transport, transport

__all__ = ['ask', 'find']

# Seconds that a process may take to accept the connection, and then for its whole answer.
PATIENCE = 5.0
CHUNK = 1 << 16


def find(target: str | None, via: Transport | None = None) -> str:
    """Find the file by which a process serves.

    :param target: its process id, or the path of the file; None for the only process of this user that serves
    :raises MonitorError: when there is none, or more than one
    """
    via = via or transport()
    if target is None:
        return _only_one(via)
    if not (target.isascii() and target.isdigit()):
        return os.path.abspath(target)
    pid = int(target)
    user = _user_of(pid)
    path = default_path(pid, via.suffix, user)
    # Not lexists(): a user who may not enter the directory gets an error that says so.
    if not os.path.exists(path):
        raise MonitorError(
            f'process {pid} does not serve its pools at {path!r}: expected GCPOOL_MONITOR=1 in its environment, or a '
            f'call of gcpool.monitor.serve() in it; if that has a path, give the path instead of the process'
        )
    return path


def _only_one(via: Transport) -> str:
    directory = default_directory()
    serving = [pid for pid in pids_in(directory, via.suffix) if _serves(default_path(pid, via.suffix), via)]
    if not serving:
        raise MonitorError(
            'no process of this user serves its pools: expected one with GCPOOL_MONITOR=1 in its environment, or that '
            f'calls gcpool.monitor.serve() (looked into {directory!r})'
        )
    if len(serving) > 1:
        raise MonitorError(f'several processes serve their pools: give one of {", ".join(map(str, serving))}')
    return default_path(serving[0], via.suffix)


def _serves(path: str, via: Transport) -> bool:
    try:
        via.connect(path, PATIENCE).close()
    except MonitorError:
        return False
    return True


def _user_of(pid: int) -> int | None:
    """The user of a process; None if it is unknown.

    :raises MonitorError: when there is no such process, or when it is another user's and this user is not root
    """
    if not HAS_USERS:
        # On Windows, signal 0 ends processes.
        return None
    foreign = False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError) as exc:
        raise MonitorError(f'there is no process {pid}') from exc
    except PermissionError:
        foreign = True
    user: int | None = None
    with contextlib.suppress(OSError):
        user = os.stat(f'/proc/{pid}').st_uid
    if os.geteuid() and (foreign or user not in (None, os.geteuid())):
        whose = 'another user' if user is None else _name_of(user)
        raise MonitorError(f'process {pid} belongs to {whose}: only that user and root can watch its pools')
    return user


def _name_of(user: int) -> str:
    import pwd

    try:
        return f'the user {pwd.getpwuid(user).pw_name!r}'
    except KeyError:
        return f'the user with the number {user}'


def ask(path: str, via: Transport | None = None) -> dict[str, Any]:
    """Ask for a snapshot.

    :param path: what :py:func:`find` has found
    :raises MonitorError: when there is no answer, or none that can be read
    """
    with (via or transport()).connect(path, PATIENCE) as conn:
        try:
            answer = _read(Conversation(conn, PATIENCE))
        except TimeoutError as exc:
            raise MonitorError(f'the process that serves at {path!r} did not answer within {PATIENCE:g} s') from exc
        except OSError as exc:
            raise MonitorError(f'the process that serves at {path!r} has hung up: {exc}') from exc
    if not answer:
        raise MonitorError(f'the process that serves at {path!r} has hung up without an answer')
    try:
        found = json.loads(answer)
    except ValueError as exc:
        raise MonitorError(f'what serves at {path!r} is not a pool: {answer[:40]!r}') from exc
    return _checked(found, path)


def _read(conn: Conversation) -> bytes:
    chunks = []
    while chunk := conn.recv(CHUNK):
        chunks.append(chunk)
    return b''.join(chunks)


def _checked(found: Any, path: str) -> dict[str, Any]:
    if not isinstance(found, dict) or not ('error' in found or 'version' in found):
        raise MonitorError(f'what serves at {path!r} is not a pool')
    if 'error' in found:
        raise MonitorError(f'{path!r}: {found["error"]}')
    if found['version'] != VERSION:
        raise MonitorError(
            f'the process that serves at {path!r} has gcpool {found.get("gcpool")}, whose snapshots this version does '
            'not understand: use the same version for both'
        )
    return found
