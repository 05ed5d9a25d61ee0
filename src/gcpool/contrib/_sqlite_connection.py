"""sqlite3's connection, which knows its cursors, which file it has open, and whether it is in use."""

import os
import sqlite3
import sys
import time
import weakref
from typing import Any

__all__ = ['INTERRUPT_INTERVAL', 'LONGEST_END', 'PooledConnection', 'fetch_one', 'is_closed', 'roll_back']

#: Seconds that closing waits for an interrupted statement of another thread.
LONGEST_END = 1.0
#: Seconds after which a statement is interrupted again: an interrupt just before the statement begins is lost.
INTERRUPT_INTERVAL = 0.02


class PooledConnection(sqlite3.Connection):
    """A connection that knows its open cursors and blobs, which file it has open, and whether it is in use.

    A ``factory`` of your own must be a subclass of it.
    """

    # If the base's __init__ fails, __del__ finds these.
    _lent = False
    _doomed = False
    # Whether it was returned while another thread was executing a statement.
    _abandoned = False
    # See Generations; None for a connection that a user's own create() made.
    _generation: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A WeakSet does the same, but takes five times as long.
        self._given_out: set[weakref.ref[Any]] = set()
        self._file: str | None = None
        self._file_id: tuple[int, int] | None = None

    def __del__(self) -> None:
        if self._doomed:
            self.close()
        elif sys.version_info >= (3, 13):
            # Warns of a connection that was not closed.
            super().__del__()

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor, which works until it is closed or the connection is returned to the pool."""
        if self._doomed:
            self.close()
        cursor = super().cursor(*args, **kwargs)
        self._given_out.add(weakref.ref(cursor, self._given_out.discard))
        return cursor

    # Since Python 3.11 these create a cursor without calling cursor().

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement with a new cursor."""
        cursor: sqlite3.Cursor = self.cursor()
        return cursor.execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        """Execute a statement for each set of parameters with a new cursor."""
        cursor: sqlite3.Cursor = self.cursor()
        return cursor.executemany(*args)

    def executescript(self, *args: Any) -> sqlite3.Cursor:
        """Execute several statements with a new cursor."""
        cursor: sqlite3.Cursor = self.cursor()
        return cursor.executescript(*args)

    if sys.version_info >= (3, 11):

        def blobopen(self, *args: Any, **kwargs: Any) -> sqlite3.Blob:
            """Open a blob, which works until it is closed or the connection is returned to the pool."""
            blob = super().blobopen(*args, **kwargs)
            self._given_out.add(weakref.ref(blob, self._given_out.discard))
            return blob

    def lend(self) -> None:
        """Record that the connection is in use."""
        self._lent = True

    def take_back(self) -> bool:
        """Record that the connection is not in use any more, and close each cursor and blob that still exists.

        :return: False if another thread is executing a statement: its cursor stays open, and :py:meth:`end` waits for
            the statement
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
                    # "Recursive use of cursors": a statement is running.
                    return False
        self._given_out.clear()
        return True

    @property
    def has_given_out(self) -> bool:
        """Whether a cursor or blob still exists."""
        return bool(self._given_out)

    @property
    def is_tidy(self) -> bool:
        """Whether nothing is left open by a user whose release was skipped or interrupted."""
        if self._lent and self._given_out:
            return False
        # With autocommit=False there always is a transaction.
        return not self.in_transaction or (not self._lent and getattr(self, 'autocommit', None) is False)

    def end(self, timeout: float = LONGEST_END) -> None:
        """Close the connection as soon as that is safe: at once, if it is not in use.

        If it is in use, a running statement is interrupted. It may be running in another thread, and Python's sqlite3
        crashes if a connection is closed in the middle of a statement. So the connection is closed when its user asks
        it for the next cursor (which fails), or drops the last reference.

        If it was returned while another thread was executing a statement, the statement is interrupted, and closing
        waits for its end: until then the file may be locked.

        :param timeout: seconds to wait for such a statement; after that the connection is closed when that thread drops
            its last reference
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
        """Record which file is open, for :py:meth:`file_was_replaced`.

        :param path: the path that was opened; None for a URI. SQLite itself reports only the path behind symbolic
            links.
        """
        (_, _, resolved) = fetch_one(self, 'PRAGMA database_list')
        # A database in memory, or a temporary one, has no path.
        if resolved:
            file = resolved if path is None else os.path.abspath(path)
            self._file, self._file_id = file, _file_id(file)

    @property
    def is_left_open(self) -> bool:
        """Whether the user has left a transaction open.

        With ``autocommit=False`` a transaction is always open, and nothing shows whether anything was written in it.
        """
        return self.in_transaction and getattr(self, 'autocommit', None) is not False

    @property
    def has_file(self) -> bool:
        """Whether the database is a file, so that opening it again finds the same data."""
        return self._file is not None

    def file_was_replaced(self) -> bool:
        """Return whether the database's path now leads to another file, or to none."""
        return self._file is not None and _file_id(self._file) != self._file_id


def roll_back(conn: PooledConnection) -> None:
    """Roll back the open transaction, in whatever mode it was begun."""
    if sys.version_info >= (3, 12) and conn.autocommit is True:
        # In autocommit mode rollback() does nothing, even if the user has begun a transaction with BEGIN.
        conn.execute('ROLLBACK')
    else:
        conn.rollback()


def is_closed(conn: sqlite3.Connection) -> bool:
    """Return whether a connection is closed, without waiting."""
    try:
        # The others ask SQLite, which may wait, with the GIL held, for a statement of another thread.
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
    """Execute a statement, and return its first row as a tuple."""
    cursor = conn.cursor()
    # A factory may set another row type on its connections.
    cursor.row_factory = None
    return cursor.execute(statement).fetchone()
