# aiosqlite has no type hints on some of its methods.
# mypy: allow-untyped-calls
"""SQLite databases with aiosqlite, for :py:class:`gcpool.asyncio.ConnectionPool`.

An endpoint is the path of a database. aiosqlite runs a thread for each connection; a pool saves starting one each time,
and limits their number. What a user leaves behind does not reach the next user (see :py:mod:`gcpool.contrib.sqlite3`),
nor does a statement that is still running after its task was cancelled.
"""

import asyncio
import atexit
import contextlib
import functools
import math
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any, cast

from gcpool._core import GuardedLogger
from gcpool._workers.threads import start_thread
from gcpool.contrib._descriptions import described, shown
from gcpool.contrib._parameters import Reset, time_limit
from gcpool.contrib._sqlite_connection import INTERRUPT_INTERVAL, PooledConnection, is_closed, roll_back
from gcpool.contrib.sqlite3 import BROKEN_CODES, IsolationLevel, SqliteEndpoint
from gcpool.contrib.sqlite3 import SqliteConnectionManager as _SyncManager
from gcpool.exceptions import DiscardConnection
from gcpool.managers import ROLLED_BACK
from gcpool.managers import AsyncConnectionManager as BaseConnectionManager

try:
    import aiosqlite
except ModuleNotFoundError as exc:
    raise ImportError(
        'gcpool.contrib.aiosqlite needs aiosqlite: pip install "gcpool[aiosqlite]"', name=exc.name
    ) from exc

__all__ = ['BROKEN_CODES', 'Connection', 'SqliteConnectionManager', 'SqliteEndpoint']

# Seconds that a thread with nothing left to do may take to end.
_THREAD_END = 1.0

logger = GuardedLogger(__name__)


# Connections whose thread was started; these are closed when the program ends.
_started: 'weakref.WeakSet[Connection]' = weakref.WeakSet()


class Connection(aiosqlite.Connection):
    """aiosqlite's connection, which knows whether its thread is busy, and always ends the thread.

    aiosqlite's own thread dies when it reports to an event loop that is already closed, as happens after a
    cancellation, and keeps a program that did not close its connections from ending. This thread does neither:
    databases that are still open are closed when the interpreter ends.
    """

    def __init__(self, connector: Callable[[], PooledConnection], iter_chunk_size: int) -> None:
        super().__init__(connector, iter_chunk_size)
        self._thread.daemon = True
        self._raw: PooledConnection | None = None
        self._ending = False
        # The event loop's thread writes one, the connection's thread the other.
        self._begun = 0
        self._through = 0

    def _hand_over(self, fn: Callable[[], Any]) -> 'asyncio.Future[Any]':
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._tx.put_nowait((None, functools.partial(_call, fn, loop, future)))
        return future

    def __await__(self) -> 'Generator[Any, None, Connection]':
        try:
            start_thread(self._thread)
        except BaseException:
            # If a signal handler has raised, the thread may have been started anyway.
            self.stop()
            raise
        return self._connect().__await__()

    async def _connect(self) -> 'Connection':
        _started.add(self)
        try:
            self._connection = await self._hand_over(self._open)
        except BaseException:
            # Makes the thread stop waiting for a lock.
            self._ending = True
            self.stop()
            raise
        return self

    @property
    def is_ending(self) -> bool:
        """Whether the connection is being closed, so that no result is wanted."""
        return self._ending

    def _open(self) -> PooledConnection:
        self._raw = cast('PooledConnection', self._connector())
        return self._raw

    async def _execute(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self._running or self._connection is None:
            raise ValueError('the connection is closed')
        self._begun += 1
        return await self._hand_over(functools.partial(self._count, fn, *args, **kwargs))

    def _count(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            if self._ending:
                # It was queued after the interrupted call.
                raise sqlite3.OperationalError('interrupted')
            return fn(*args, **kwargs)
        finally:
            self._through += 1

    @property
    def is_busy(self) -> bool:
        """Whether the thread is executing something or has something queued, also for a cancelled task."""
        return self._begun != self._through

    @property
    def raw(self) -> PooledConnection | None:
        """The connection of sqlite3, None if closed."""
        return None if self._ending or self._raw is None or is_closed(self._raw) else self._raw

    def stop(self) -> 'asyncio.Future[Any] | None':
        """Let the thread close the database and end after what was queued before."""
        self._running = False
        try:
            return self._hand_over(self._close_in_thread)
        except RuntimeError:
            # No event loop is running: aiosqlite also calls this from __del__.
            self._tx.put_nowait((None, self._close_in_thread))
            return None

    def _close_in_thread(self) -> None:
        if self._raw is not None:
            # aiosqlite does not have the database if opening it was cancelled.
            self._raw.close()
        # In this thread aiosqlite finds no event loop to report to.
        super().stop()

    def _interrupt(self) -> None:
        if self._raw is not None and self.is_busy:
            with contextlib.suppress(sqlite3.ProgrammingError):
                # Unless it was closed at that very moment.
                self._raw.interrupt()

    async def end(self, timeout: float | None) -> None:
        """Interrupt the running statement, close the database and end the thread.

        A call that cannot be interrupted runs to its end, but this waits for it for at most ``timeout`` seconds (None
        for no limit). Queued calls are not begun.
        """
        if self._ending:
            return
        self._ending = True
        # None if the user has closed it.
        stopped = self.stop() if self._running else None
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            self._interrupt()
            if stopped is None:
                return
            # Repeatedly: an interrupt just before the statement begins is lost.
            step = INTERRUPT_INTERVAL if self.is_busy else math.inf
            left = min(step, deadline - time.monotonic())
            await asyncio.wait((stopped,), timeout=None if left == math.inf else max(left, 0.0))
            if stopped.done():
                self._thread.join(_THREAD_END)
                return
            if time.monotonic() >= deadline:
                return

    def _end_at_exit(self) -> None:
        self._ending = True
        self._interrupt()
        if self._running:
            self.stop()


def _end_all_at_exit() -> None:
    # The threads would not keep the interpreter from ending, but SQLite cleans up when a database is closed. Only a
    # call that is running and cannot be interrupted is left alone: it sleeps in the interpreter's last moments. A
    # forked child has none of the threads.
    connections = [connection for connection in _started if connection._thread.is_alive()]  # noqa: SLF001
    deadline = time.monotonic() + _THREAD_END
    for connection in connections:
        connection._end_at_exit()  # noqa: SLF001
    for connection in connections:
        thread: threading.Thread = connection._thread  # noqa: SLF001
        while thread.is_alive() and (left := deadline - time.monotonic()) > 0:
            thread.join(min(left, INTERRUPT_INTERVAL))
            connection._interrupt()  # noqa: SLF001


atexit.register(_end_all_at_exit)


def _call(fn: Callable[[], Any], loop: asyncio.AbstractEventLoop, future: 'asyncio.Future[Any]') -> None:
    try:
        result = fn()
    except BaseException as exc:  # noqa: BLE001  (the waiting task raises it)
        tell = functools.partial(future.set_exception, exc)
    else:
        tell = functools.partial(future.set_result, result)
    # The loop may be closed; then nothing waits for it.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(_unless_done, future, tell)


def _unless_done(future: 'asyncio.Future[Any]', tell: Callable[[], None]) -> None:
    if not future.done():
        tell()


class SqliteConnectionManager(BaseConnectionManager[SqliteEndpoint, Connection]):
    """Opens SQLite databases. The parameters are those of :py:func:`sqlite3.connect`, and ``pragmas``.

    :param database: the endpoint of calls that name none (``default_endpoint``); None for no such endpoint
    :param timeout: seconds that a statement waits for another connection's lock, unless ``pragmas`` has a
        ``busy_timeout`` (milliseconds)
    :param detect_types: see :py:func:`sqlite3.connect`
    :param isolation_level: see :py:func:`sqlite3.connect`
    :param autocommit: see :py:func:`sqlite3.connect` (Python 3.12), None for its default
    :param cached_statements: statements that a connection keeps prepared
    :param uri: paths are URIs
    :param pragmas: set on every new connection, in this order, for example ``{'journal_mode': 'wal'}``
    :param iter_chunk_size: rows that aiosqlite reads at once when a cursor is iterated
    :param close_timeout: seconds that closing waits for a statement that does not end when it is interrupted; the
        connection is closed, and its thread ends, when the statement does. None for no limit.
    :param reset: what is undone when a connection is returned: ``'rollback'`` an open transaction, cursors and blobs;
        ``'full'`` everything, which with SQLite takes closing the connection. The next user gets a new one, with the
        pragmas set.
    :param broken_codes: result codes of SQLite after which a connection to a file is closed, and older ones are
        replaced before they are served next. A primary code includes its extended codes.
    :raise TypeError: ``timeout`` or ``close_timeout`` is not a number, or ``broken_codes`` is not a collection of
        numbers
    :raise ValueError: a pragma's name is invalid, ``timeout`` or ``close_timeout`` is less than 0, ``reset`` has
        another value, or ``autocommit`` is used before Python 3.12
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
        cached_statements: int = 128,
        uri: bool = False,
        pragmas: Mapping[str, str | float] | None = None,
        iter_chunk_size: int = 64,
        close_timeout: float | None = 1.0,
        reset: Reset = 'rollback',
        broken_codes: Collection[int] = BROKEN_CODES,
    ) -> None:
        self._sync = _SyncManager(
            database=database,
            timeout=timeout,
            detect_types=detect_types,
            isolation_level=isolation_level,
            autocommit=autocommit,
            cached_statements=cached_statements,
            uri=uri,
            pragmas=pragmas,
            reset=reset,
            broken_codes=broken_codes,
        )
        self._generations = self._sync._generations  # noqa: SLF001
        self._iter_chunk_size = iter_chunk_size
        self._close_timeout = time_limit('close_timeout', close_timeout)
        if database is not None:
            self.default_endpoint = database

    def normalize(self, endpoint: SqliteEndpoint) -> SqliteEndpoint:
        """Return the normal spelling of an endpoint: see
        :py:meth:`gcpool.contrib.sqlite3.SqliteConnectionManager.normalize`.

        :param endpoint: path, or URI
        """
        return self._sync.normalize(endpoint)

    def describe_endpoint(self, endpoint: SqliteEndpoint) -> object:
        """Return what messages show of an endpoint: of a URI only the parameters that SQLite itself knows.

        SQLite's encrypting builds take the key as another parameter.

        :param endpoint: path, or URI
        """
        return shown(endpoint)

    # No ``is_refusal``: SQLite has no limit on connections. No ``broken_on_cancel``: whether the thread still executes
    # something is known, and is_broken() looks at that.

    async def create(self, endpoint: SqliteEndpoint) -> Connection:
        """Open a database and set the pragmas, in a new thread.

        If cancelled half-way, this does not wait for the thread, which ends at once, even if it was waiting for a lock.

        :param endpoint: path, or URI if the manager has ``uri=True``; the file is created if it is missing
        :raise ConnectError: the database cannot be opened, or a pragma cannot be set; also an instance of the cause's
            class: a ``sqlite3.Error``, or a TypeError or ValueError if ``endpoint`` is not a path
        """
        conn = Connection(lambda: self._sync._create(endpoint, None, given_up), self._iter_chunk_size)  # noqa: SLF001
        reference = weakref.ref(conn)

        def given_up() -> bool:
            # With strong references to its connection, the thread would keep an unclosed connection alive.
            wanted = reference()
            return wanted is None or wanted.is_ending

        # Ends the thread if that fails.
        await conn
        return conn

    async def dispose(self, endpoint: SqliteEndpoint, conn: Connection) -> None:
        """Close a connection and end its thread; a running statement is interrupted.

        :param endpoint: path
        :param conn: the connection
        """
        await conn.end(self._close_timeout)

    async def check_aliveness(self, endpoint: SqliteEndpoint, conn: Connection) -> bool:
        """Return whether a connection is open, clean and not busy, and its path still leads to its open file.

        No statement is executed, and nothing is handed to the thread.

        :param endpoint: path
        :param conn: the connection
        """
        raw = conn.raw
        if raw is None or conn.is_busy or raw.file_was_replaced():
            return False
        if self._generations.any_retired and self._sync._is_retired(endpoint, raw):  # noqa: SLF001
            return False
        # An interrupted release did not reach its hook.
        return raw.is_tidy and not (self._sync._closes_at_release and raw._lent)  # noqa: SLF001

    async def on_acquire(self, endpoint: SqliteEndpoint, conn: Connection) -> None:
        """Record that the connection is in use, for the check that follows a skipped release.

        :param endpoint: path
        :param conn: the connection
        """
        if conn.raw is not None:
            conn.raw.lend()

    async def on_release(self, endpoint: SqliteEndpoint, conn: Connection) -> object:
        """Close the cursors and roll back the transaction that the user left open; if there is none, the thread is not
        used.

        :param endpoint: path
        :param conn: the connection
        :return: ``ROLLED_BACK`` if a transaction was left open that could have been committed
        :raise DiscardConnection: it is closed, still executing something, or cannot be rolled back; it was made before
            an error of ``broken_codes``; or ``reset`` is ``'full'``
        """
        raw = conn.raw
        if raw is None:
            raise DiscardConnection(f'the connection to {described(self, endpoint)!r} is closed')
        if conn.is_busy:
            raise DiscardConnection(f'the connection to {described(self, endpoint)!r} is still executing a statement')
        if self._sync._closes_at_release:  # noqa: SLF001
            raise DiscardConnection(f"reset='full' closes the connection to {described(self, endpoint)!r}")
        if self._generations.any_retired and self._sync._is_retired(endpoint, raw):  # noqa: SLF001
            raise DiscardConnection(
                f'the connection to {described(self, endpoint)!r} is older than an error of broken_codes'
            )
        if not raw.in_transaction and not raw.has_given_out:
            raw.take_back()
            return None
        left_open = raw.is_left_open
        try:
            await conn._execute(_tidy_up, raw)  # noqa: SLF001
        except sqlite3.Error as exc:
            logger.warning('closing a connection to %r that cannot be rolled back: %s', described(self, endpoint), exc)
            raise DiscardConnection(f'the connection to {described(self, endpoint)!r} cannot be rolled back') from exc
        return ROLLED_BACK if left_open else None

    async def is_broken(self, endpoint: SqliteEndpoint, conn: Connection, exc: BaseException) -> bool:
        """Return whether the connection is closed, useless (``broken_codes``), or busy for a task that was cancelled.

        :param endpoint: path
        :param conn: the connection
        :param exc: what the user's block raised; errors in its groups and its causes count
        """
        return conn.raw is None or conn.is_busy or self._sync._makes_useless(endpoint, conn.raw, exc)  # noqa: SLF001


def _tidy_up(raw: PooledConnection) -> None:
    raw.take_back()
    if raw.in_transaction:
        roll_back(raw)
