"""sqlite3's connection, which knows which cursors it has given out, which file it has open, and who has it."""

import os
import sqlite3
import sys
import time
import weakref
from typing import Any

__all__ = ['INTERRUPT_INTERVAL', 'LONGEST_END', 'PooledConnection', 'fetch_one', 'is_closed', 'roll_back']

#: Seconds that closing waits for a statement of another thread that was interrupted.
LONGEST_END = 1.0
#: Seconds after which a statement is interrupted again: one that had not quite begun is not interrupted.
INTERRUPT_INTERVAL = 0.02


class PooledConnection(sqlite3.Connection):
    """A connection that knows which cursors and blobs it has given out, which file it has open, and who has it.

    A ``factory`` of your own must be a subclass of it.
    """

    # Should the base's __init__ fail, __del__ sees these.
    _lent = False
    _doomed = False
    # Whether it was given back while another thread executed a statement.
    _abandoned = False
    # See Generations; None for one that a create() of the user's own has made.
    _generation: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A WeakSet does the same, in five times the time.
        self._given_out: set[weakref.ref[Any]] = set()
        self._file: str | None = None
        self._file_id: tuple[int, int] | None = None

    def __del__(self) -> None:
        if self._doomed:
            self.close()
        elif sys.version_info >= (3, 13):
            # Warns of a connection that nobody has closed.
            super().__del__()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Give a cursor, which works until it is closed or the connection goes back to the pool."""
        if self._doomed:
            self.close()
        cursor = super().cursor(*args, **kwargs)
        self._given_out.add(weakref.ref(cursor, self._given_out.discard))
        return cursor

    # Since Python 3.11 these make a cursor without asking cursor() for it.

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement with a new cursor."""
        cursor: sqlite3.Cursor = self.cursor()
        return cursor.execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement for each of some parameters with a new cursor."""
        cursor: sqlite3.Cursor = self.cursor()
        return cursor.executemany(*args)

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        """Execute some statements with a new cursor."""
        cursor: sqlite3.Cursor = self.cursor()
        return cursor.executescript(*args)

    if sys.version_info >= (3, 11):

        def blobopen(self, *args: Any, **kwargs: Any) -> sqlite3.Blob:
            """Open a blob, which works until it is closed or the connection goes back to the pool."""
            blob = super().blobopen(*args, **kwargs)
            self._given_out.add(weakref.ref(blob, self._given_out.discard))
            return blob

    def lend(self) -> None:
        """Note that a user has the connection."""
        self._lent = True

    def take_back(self) -> bool:
        """Note that no user has the connection any more, and close each cursor and blob that somebody still holds.

        :return: False if another thread executes a statement: then nothing of that is done for its cursor, and
            :py:meth:`end` waits for it
        """
        if self._given_out and not self._close_given_out():
            self._abandoned = True
            return False
        self._lent = False
        return True

    def _close_given_out(self) -> bool:
        for reference in tuple(self._given_out):
            given_out = reference()
            if given_out is not None:
                try:
                    given_out.close()
                except sqlite3.ProgrammingError:
                    # "Recursive use of cursors": it is at work.
                    return False
        self._given_out.clear()
        return True

    @property
    def has_given_out(self) -> bool:
        """Whether somebody still holds a cursor or blob."""
        return bool(self._given_out)

    @property
    def is_tidy(self) -> bool:
        """Whether nothing is left open by a user whose release was left out or cut off."""
        if self._lent and self._given_out:
            return False
        # With autocommit=False there always is a transaction.
        return not self.in_transaction or (not self._lent and getattr(self, 'autocommit', None) is False)

    def end(self, timeout: float = LONGEST_END) -> None:
        """Close the connection as soon as that is safe: at once, if no user has it.

        If one has it, the statement that he may be executing is interrupted. He may do it in another thread, and
        Python's sqlite3 does not survive that a connection is closed in the middle of a statement. So it is closed when
        he asks it for the next cursor (which fails), or lets go of it.

        If it was given back while another thread executes a statement, that is interrupted, and closing waits for it:
        until then the file may be locked.

        :param timeout: seconds to wait for such a statement; after that it is closed when that thread lets go of it
        """
        if is_closed(self):
            return
        if not self._lent and not self._abandoned:
            self.close()
            return
        self._doomed = True
        self.interrupt()
        if self._abandoned:
            deadline = time.monotonic() + timeout
            while not self.take_back():
                if time.monotonic() > deadline:
                    return
                time.sleep(INTERRUPT_INTERVAL)
                self.interrupt()
            self.close()

    def remember_file(self, path: str | None) -> None:
        """Note which file is open, for :py:meth:`file_was_replaced`.

        :param path: what it was opened by; None for a URI. SQLite itself only tells where symbolic links have led.
        """
        (_, _, resolved) = fetch_one(self, 'PRAGMA database_list')
        # A database in memory, or a temporary one, has no path.
        if resolved:
            file = resolved if path is None else os.path.abspath(path)
            self._file, self._file_id = file, _file_id(file)

    @property
    def has_file(self) -> bool:
        """Whether the database is a file: what opens it again finds the same data."""
        return self._file is not None

    def file_was_replaced(self) -> bool:
        """Tell whether the database's path leads to another file by now, or to none."""
        return self._file is not None and _file_id(self._file) != self._file_id


def roll_back(conn: PooledConnection) -> None:
    """Roll back the transaction that is open, in whatever mode it was begun."""
    if sys.version_info >= (3, 12) and conn.autocommit is True:
        # There rollback() does nothing, even if the user has begun a transaction by himself.
        conn.execute('ROLLBACK')
    else:
        conn.rollback()


def is_closed(conn: sqlite3.Connection) -> bool:
    """Tell whether a connection is closed, without waiting."""
    try:
        # The others ask SQLite, which may have them wait, with the GIL held, for a statement of another thread.
        conn.isolation_level  # noqa: B018
    except sqlite3.ProgrammingError:
        return True
    return False


def _file_id(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def fetch_one(conn: PooledConnection, statement: str) -> Any:
    """Execute a statement, and give the first row of what it answers, as a tuple."""
    cursor = conn.cursor()
    # A factory may give its connections rows of another kind.
    cursor.row_factory = None
    return cursor.execute(statement).fetchone()
