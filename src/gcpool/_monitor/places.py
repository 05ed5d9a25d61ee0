"""Where a process serves its snapshots: a file for each process, in a directory that only its user may enter."""

import contextlib
import os
import stat
import sys
import tempfile
from pathlib import Path

__all__ = ['HAS_USERS', 'default_directory', 'default_path', 'make_private_directory', 'pids_in']

#: Whether files belong to users by number, and modes say who may read them.
HAS_USERS = hasattr(os, 'geteuid')


def default_directory(user: int | None = None) -> str:
    """The directory of a user's processes, whether it exists or not.

    :param user: the number of the user; None for the user of this process
    """
    if sys.platform == 'win32':
        return os.path.join(os.environ.get('LOCALAPPDATA') or tempfile.gettempdir(), 'gcpool')
    return os.path.join(tempfile.gettempdir(), f'gcpool-{os.geteuid() if user is None else user}')


def default_path(pid: int, suffix: str, user: int | None = None) -> str:
    """Where a process serves by default."""
    return os.path.join(default_directory(user), f'{pid}{suffix}')


def pids_in(directory: str, suffix: str) -> list[int]:
    """The processes that have served in a directory. Some of them may have ended without removing their files."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return sorted(int(stem) for stem in stems if stem.isascii() and stem.isdigit())


def make_private_directory(directory: str) -> None:
    """Make a directory that only this user may enter, or check that it is one.

    :raises NotADirectoryError: when it is something else, also a link to a directory
    :raises PermissionError: when it belongs to another user, or others may enter it
    """
    if not HAS_USERS:
        # On Windows: the directory of a user's own data, which no other user may read.
        Path(directory).mkdir(parents=True, exist_ok=True)
        return
    # Checked below, also if another process made it.
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f'{directory!r} is not a directory: expected one that only this user may enter')
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid() or mode & 0o077:
        raise PermissionError(
            f'the directory {directory!r} belongs to user {found.st_uid} and has mode {mode:04o}: expected one of user '
            f'{os.geteuid()} with mode 0700, because any user who may enter it can read what the pools show'
        )
