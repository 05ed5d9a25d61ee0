"""SQLite databases for :py:class:`gcpool.threading.ConnectionPool`.

An endpoint is the path of a database. Opening a connection costs little, but what SQLite and Python cache in it (pages,
the schema, prepared statements) is worth keeping, and a pool limits how many threads work on a file at once.

What a user leaves behind does not reach the next user: an open transaction is rolled back, and cursors and blobs that
still exist are closed, because a result that was not read to its end keeps the database locked.

Every connection to ``:memory:`` is a separate database. For one that the connections share, use
``file:NAME?mode=memory&cache=shared`` with ``uri=True``, and keep one of them open.
"""

import os
import pathlib
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Literal

from gcpool._core import GuardedLogger
from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._descriptions import described, shown
from gcpool.contrib._errors import BAD_PARAMS, errors_in, raise_connect_error
from gcpool.contrib._generations import Generations
from gcpool.contrib._parameters import Reset, check_codes, resets_all, some_seconds
from gcpool.contrib._sqlite_connection import LONGEST_END, PooledConnection, fetch_one, is_closed, roll_back
from gcpool.exceptions import ConnectTimeout, DiscardConnection
from gcpool.managers import ROLLED_BACK
from gcpool.managers import SyncConnectionManager as BaseConnectionManager

__all__ = ['BROKEN_CODES', 'IsolationLevel', 'PooledConnection', 'SqliteConnectionManager', 'SqliteEndpoint']

SqliteEndpoint = str | pathlib.Path
IsolationLevel = Literal['DEFERRED', 'IMMEDIATE', 'EXCLUSIVE'] | None

#: Result codes of SQLite that make a connection to a file useless, although it is open. A code includes its extended
#: codes (``code & 0xFF``).
BROKEN_CODES = frozenset(
    {
        8,  # SQLITE_READONLY: the file was read-only when it was opened, or was moved; or query_only was left on
        10,  # SQLITE_IOERR: its descriptor leads to nothing useful any more (a network file system, a lost disk)
        11,  # SQLITE_CORRUPT: the file was overwritten in place, and the cached pages are those of the old file
        26,  # SQLITE_NOTADB: likewise
    }
)

# Python 3.10 does not have the code, only SQLite's text for it.
_CODES_BY_TEXT = {
    'attempt to write a readonly database': 8,
    'disk I/O error': 10,
    'database disk image is malformed': 11,
    'file is not a database': 26,
}

# Those results of _pragma_statement() that give SQLite's own limit another, lasting value. Setting it does not wait.
_SETS_BUSY_TIMEOUT = re.compile(r'PRAGMA ([^ ]*\.)?busy_timeout ', re.ASCII | re.IGNORECASE)
_PRAGMA_NAME = re.compile(r'([A-Za-z_]\w*\.)?[A-Za-z_]\w*', re.ASCII)
_HAS_AUTOCOMMIT = sys.version_info >= (3, 12)
# Seconds. SQLite counts milliseconds in 31 bits.
_LONGEST_TIMEOUT = float((2**31 - 1) // 1000)
# Seconds that a pragma waits for a lock before it asks whether the connection is still wanted: SQLite's own wait for a
# lock cannot be interrupted.
_LOCK_SLICE = 0.05

logger = GuardedLogger(__name__)


class SqliteConnectionManager(BaseConnectionManager[SqliteEndpoint, PooledConnection]):
    """Opens SQLite databases. The parameters are those of :py:func:`sqlite3.connect`, and ``pragmas``.

    The connections may be used in any thread: a pool serves each to one thread at a time.

    :param database: the endpoint of calls that name none (``default_endpoint``); None for no such endpoint
    :param timeout: seconds that a statement waits for another connection's lock, unless ``pragmas`` has a
        ``busy_timeout`` (milliseconds)
    :param detect_types: see :py:func:`sqlite3.connect`
    :param isolation_level: see :py:func:`sqlite3.connect`
    :param autocommit: see :py:func:`sqlite3.connect` (Python 3.12), None for its default
    :param factory: the class of the connections, a subclass of :py:class:`PooledConnection`
    :param cached_statements: statements that a connection keeps prepared
    :param uri: paths are URIs
    :param pragmas: set on every new connection, in this order, for example ``{'journal_mode': 'wal'}``
    :param reset: what is undone when a connection is returned: ``'rollback'`` an open transaction, cursors and blobs;
        ``'full'`` everything, which with SQLite takes closing the connection. The next user gets a new one, made by
        ``factory`` and with the pragmas set.
    :param broken_codes: result codes of SQLite after which a connection to a file is closed, and older ones are
        replaced before they are served next. A primary code includes its extended codes.
    :raise TypeError: ``factory`` is not a subclass of :py:class:`PooledConnection`, ``timeout`` is not a number, or
        ``broken_codes`` is not a collection of numbers
    :raise ValueError: a pragma's name is invalid, ``timeout`` is less than 0, ``reset`` has another value, or
        ``autocommit`` is used before Python 3.12
    :raise sqlite3.NotSupportedError: SQLite was built without thread safety
    """

    def __init__(
        self,
        *,
        database: SqliteEndpoint | None = None,
        timeout: float = 5.0,
        detect_types: int = 0,
        isolation_level: IsolationLevel = 'DEFERRED',
        autocommit: bool | None = None,
        factory: type[PooledConnection] = PooledConnection,
        cached_statements: int = 128,
        uri: bool = False,
        pragmas: Mapping[str, str | float] | None = None,
        reset: Reset = 'rollback',
        broken_codes: Collection[int] = BROKEN_CODES,
    ) -> None:
        if sqlite3.threadsafety == 0:
            raise sqlite3.NotSupportedError('SQLite was built without thread safety, its connections cannot be pooled')
        if PooledConnection not in getattr(factory, '__mro__', ()):
            raise TypeError(f'factory must be a subclass of PooledConnection, not {factory!r}')
        if autocommit is not None and not _HAS_AUTOCOMMIT:
            raise ValueError(f'autocommit={autocommit!r} needs Python 3.12')
        self._timeout = min(some_seconds('timeout', timeout), _LONGEST_TIMEOUT)
        self._detect_types = detect_types
        self._isolation_level: IsolationLevel = isolation_level
        self._autocommit = autocommit
        self._factory = factory
        self._cached_statements = cached_statements
        self._uri = uri
        self._pragmas = [_pragma_statement(name, value) for name, value in (pragmas or {}).items()]
        self._closes_at_release = resets_all(reset)
        self._broken_codes = check_codes(broken_codes, int)
        self._generations = Generations()
        if database is not None:
            self.default_endpoint = database

    def normalize(self, endpoint: SqliteEndpoint) -> SqliteEndpoint:
        """Return the normal spelling of an endpoint: the absolute path as text, so that each file has one endpoint
        pool.

        Spellings that may lead to two databases stay different: symbolic links are not resolved (they may be changed),
        ``..`` is kept (after a symbolic link it is another directory than the text suggests), and so is the case of
        letters. ``:memory:``, the empty string, and URIs stay unchanged.

        :param endpoint: path, or URI. A relative path is resolved against the current directory when the pool first
            sees it.
        """
        try:
            path = os.fsdecode(endpoint)
        except TypeError:
            # create() raises: it is not a path.
            return endpoint
        if path in {'', ':memory:'} or path.startswith('file:'):
            # SQLite may be built to take each such name for a URI.
            return path
        try:
            return str(pathlib.Path(path).absolute())
        except OSError:
            # The current directory no longer exists, and so the file does not either: create() raises.
            return path

    def describe_endpoint(self, endpoint: SqliteEndpoint) -> object:
        """Return what messages show of an endpoint: of a URI only the parameters that SQLite itself knows.

        SQLite's encrypting builds take the key as another parameter.

        :param endpoint: path, or URI
        """
        return shown(endpoint)

    # No ``is_refusal``: SQLite has no limit on connections. No ``broken_on_cancel``: without a server, no answer can be
    # outstanding.

    def create(self, endpoint: SqliteEndpoint, timeout: float | None = None) -> PooledConnection:
        """Open a database and set the pragmas.

        :param endpoint: path, or URI if the manager has ``uri=True``; the file is created if it is missing
        :param timeout: seconds that setting the pragmas may wait for other connections' locks, if less than the
            manager's timeout (or ``busy_timeout`` of the pragmas, once that is set)
        :return: a connection for any thread
        :raise ConnectTimeout: the timeout expired
        :raise ConnectError: the database cannot be opened, or a pragma cannot be set; also an instance of the cause's
            class: a ``sqlite3.Error``, or a TypeError or ValueError if ``endpoint`` is not a path
        """
        return self._create(endpoint, deadline_after(timeout), None)

    def _create(
        self, endpoint: SqliteEndpoint, deadline: float | None, given_up: Callable[[], bool] | None
    ) -> PooledConnection:
        generation = self._generations.latest(endpoint)
        try:
            conn = self._open(endpoint, os.fsdecode(endpoint), deadline, given_up)
        except sqlite3.OperationalError as exc:
            if _is_busy(exc):
                advice = 'another connection has it locked: give the manager a longer timeout'
            else:
                advice = 'check that its directory exists and may be written to, and the pragmas'
            raise_connect_error(endpoint, exc, advice)
        except sqlite3.DatabaseError as exc:
            raise_connect_error(endpoint, exc, 'check that the file is an SQLite database')
        except BAD_PARAMS as exc:
            raise_connect_error(endpoint, exc, "check the path, and the manager's parameters")
        conn._generation = generation  # noqa: SLF001
        return conn

    def _open(
        self, endpoint: SqliteEndpoint, path: str, deadline: float | None, given_up: Callable[[], bool] | None
    ) -> PooledConnection:
        conn = sqlite3.connect(
            path,
            timeout=self._timeout,
            detect_types=self._detect_types,
            isolation_level=self._isolation_level,
            check_same_thread=False,
            factory=self._factory,
            cached_statements=self._cached_statements,
            uri=self._uri,
        )
        try:
            if given_up is None:
                self._set_pragmas(endpoint, conn, deadline)
            else:
                for statement in self._pragmas:
                    _set_pragma_unless(given_up, conn, statement)
            conn.remember_file(None if self._uri and path.startswith('file:') else path)
            if sys.version_info >= (3, 12) and self._autocommit is not None:
                # Not before: with False a transaction is open from here on, in which many pragmas do nothing.
                conn.autocommit = self._autocommit
        except BaseException:
            conn.close()
            raise
        return conn

    def _set_pragmas(self, endpoint: SqliteEndpoint, conn: PooledConnection, deadline: float | None) -> None:
        for statement in self._pragmas:
            left = time_left(deadline)
            usual = 0 if left is None else _busy_timeout(conn)
            bounded = left is not None and left * 1000 < usual and not _SETS_BUSY_TIMEOUT.match(statement)
            if bounded:
                _set_busy_timeout(conn, int((left or 0.0) * 1000))
            try:
                # Some of them answer with a row, and have not finished until it is read.
                conn.execute(statement).fetchall()
            except sqlite3.OperationalError as exc:
                if bounded and _is_busy(exc):
                    raise ConnectTimeout(
                        f'no connection to endpoint {described(self, endpoint)!r} could be made in time: '
                        f'it was locked too long for {statement!r}; which connection holds a transaction open?',
                        endpoint,
                    ) from exc
                raise
            if bounded:
                _set_busy_timeout(conn, usual)

    def dispose(self, endpoint: SqliteEndpoint, conn: PooledConnection, timeout: float | None = None) -> None:
        """Close a connection.

        A pool closed at short notice also closes connections that are in use. See :py:meth:`PooledConnection.end`.

        :param endpoint: path
        :param conn: the connection
        :param timeout: seconds to wait for a statement that another thread is executing and that is interrupted, at
            most 1. Otherwise this does not wait.
        """
        conn.end(LONGEST_END if timeout is None else min(timeout, LONGEST_END))

    def check_aliveness(self, endpoint: SqliteEndpoint, conn: PooledConnection, timeout: float | None = None) -> bool:
        """Return whether a connection is open and clean, and its path still leads to its open file.

        No statement is executed. If the file was replaced (as when a new database is deployed), the connection would go
        on reading the old one. A connection older than an error of ``broken_codes`` is replaced, too.

        :param endpoint: path
        :param conn: the connection
        :param timeout: not used: this never waits for a lock
        """
        if is_closed(conn) or conn.file_was_replaced():
            return False
        if self._generations.any_retired and self._is_retired(endpoint, conn):
            return False
        # An interrupted release did not reach its hook.
        if not conn.is_tidy or (self._closes_at_release and conn._lent):  # noqa: SLF001
            # It is not in use any more: unless another thread works with it, it can be closed at once.
            conn.take_back()
            return False
        return True

    def on_acquire(self, endpoint: SqliteEndpoint, conn: PooledConnection) -> None:
        """Record that the connection is in use, so that it is not closed during its use.

        :param endpoint: path
        :param conn: the connection
        """
        conn.lend()

    def on_release(self, endpoint: SqliteEndpoint, conn: PooledConnection) -> object:
        """Close the cursors and roll back the transaction that the user left open, if any.

        :param endpoint: path
        :param conn: the connection
        :return: ``ROLLED_BACK`` if a transaction was left open that could have been committed
        :raise DiscardConnection: it is closed, or cannot be rolled back (it is closed then, and that is logged), or
            another thread is executing a statement with it; it was made before an error of ``broken_codes``; or
            ``reset`` is ``'full'``
        """
        if is_closed(conn):
            raise DiscardConnection(f'the connection to {described(self, endpoint)!r} is closed')
        try:
            if not conn.take_back():
                raise DiscardConnection(
                    f'another thread is executing a statement with the connection to {described(self, endpoint)!r}'
                )
            if self._closes_at_release:
                raise DiscardConnection(f"reset='full' closes the connection to {described(self, endpoint)!r}")
            if self._generations.any_retired and self._is_retired(endpoint, conn):
                raise DiscardConnection(
                    f'the connection to {described(self, endpoint)!r} is older than an error of broken_codes'
                )
            left_open = conn.in_transaction and conn.is_left_open
            if conn.in_transaction:
                roll_back(conn)
        except DiscardConnection:
            # dispose() closes it.
            raise
        except sqlite3.Error as exc:
            logger.warning('closing a connection to %r that cannot be rolled back: %s', described(self, endpoint), exc)
            conn.close()
            raise DiscardConnection(f'the connection to {described(self, endpoint)!r} cannot be rolled back') from exc
        except BaseException:
            conn.close()
            raise
        return ROLLED_BACK if left_open else None

    def is_broken(self, endpoint: SqliteEndpoint, conn: PooledConnection, exc: BaseException) -> bool:
        """Return whether the connection is closed, or useless (``broken_codes``); anything else can be undone.

        :param endpoint: path
        :param conn: the connection
        :param exc: what the user's block raised; errors in its groups and its causes count
        """
        return is_closed(conn) or self._makes_useless(endpoint, conn, exc)

    def _makes_useless(self, endpoint: SqliteEndpoint, conn: PooledConnection, exc: BaseException) -> bool:
        # A database in memory is gone when it is closed, and each connection has another one.
        if not conn.has_file:
            return False
        codes = [_code_of(error) for error in errors_in(exc) if isinstance(error, sqlite3.Error)]
        if not any(code in self._broken_codes or code & 0xFF in self._broken_codes for code in codes):
            return False
        self._generations.retire(endpoint, conn._generation)  # noqa: SLF001
        return True

    def _is_retired(self, endpoint: SqliteEndpoint, conn: PooledConnection) -> bool:
        return self._generations.is_retired(endpoint, conn._generation)  # noqa: SLF001


def _code_of(error: sqlite3.Error) -> int:
    code: int | None = getattr(error, 'sqlite_errorcode', None)
    return _CODES_BY_TEXT.get(str(error), 0) if code is None else code


def _is_busy(exc: sqlite3.OperationalError) -> bool:
    if sys.version_info >= (3, 11):
        # The lower byte is the error, the other bytes are details. Errors that Python itself raises have no code.
        return getattr(exc, 'sqlite_errorcode', 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return 'is locked' in str(exc)


def _busy_timeout(conn: PooledConnection) -> int:
    (milliseconds,) = fetch_one(conn, 'PRAGMA busy_timeout')
    return int(milliseconds)


def _set_busy_timeout(conn: PooledConnection, milliseconds: int) -> None:
    conn.execute(f'PRAGMA busy_timeout = {milliseconds}').fetchall()


def _set_pragma_unless(given_up: Callable[[], bool], conn: PooledConnection, statement: str) -> None:
    # Waits for other connections' locks as long as SQLite would, unless the connection is not wanted any more.
    usual = _busy_timeout(conn)
    if _SETS_BUSY_TIMEOUT.match(statement):
        conn.execute(statement).fetchall()
        return
    deadline = time.monotonic() + usual / 1000
    while True:
        left = deadline - time.monotonic()
        _set_busy_timeout(conn, int(max(min(left, _LOCK_SLICE), 0) * 1000))
        try:
            conn.execute(statement).fetchall()
        except sqlite3.OperationalError as exc:
            if left <= 0 or given_up() or not _is_busy(exc):
                raise
            # Sometimes SQLite does not wait.
            time.sleep(_LOCK_SLICE / 10)
        else:
            break
    _set_busy_timeout(conn, usual)


def _pragma_statement(name: str, value: str | float) -> str:
    # Neither can be a bound parameter in a PRAGMA.
    if not _PRAGMA_NAME.fullmatch(name):
        raise ValueError(f'{name!r} is not the name of a pragma')
    if isinstance(value, bool):
        value = int(value)
    elif isinstance(value, str):
        value = "'" + value.replace("'", "''") + "'"
    return f'PRAGMA {name} = {value}'
