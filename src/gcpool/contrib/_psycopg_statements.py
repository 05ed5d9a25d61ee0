"""Statements on a connection of psycopg, without its cursors: how some are executed, and how running ones are ended."""

import asyncio
import contextlib
import inspect
import selectors
import sys
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar, cast
from weakref import ref

import psycopg
from psycopg import AsyncConnection, Connection, capabilities
from psycopg.errors import ConnectionTimeout, QueryCanceled, error_from_result
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn
from psycopg.waiting import wait_async

from gcpool._core import GuardedLogger
from gcpool.contrib._attempts import deadline_after, time_left
from gcpool.contrib._latch import Latch
from gcpool.contrib._libpq import ASK_AGAIN, LOOK, LibpqCancel, ask_in_thread
from gcpool.contrib._postgres import MOST_MESSAGES
from gcpool.contrib._psycopg_state import Session
from gcpool.contrib._sockets import poll_once
from gcpool.contrib._watchdog import shut_down_descriptor

__all__ = [
    'ask_to_cancel',
    'ask_to_cancel_async',
    'exchange',
    'exchange_async',
    'is_at_work',
    'is_connected',
    'take_from_user',
    'take_from_user_async',
    'to_its_end',
    'wait_bounded',
    'waits_until',
]

_ResultT = TypeVar('_ResultT')

# Seconds that a thread or task has to leave a connection that is closed while in use.
_PATIENCE_WITH_USER = 0.1

# Minimum number of seconds for a request to the server, like the minimum for connecting with a limit of 0.
_SHORTEST_WAIT = 0.05

# The interval, in seconds, at which psycopg checks for interrupts while it waits.
_INTERVAL: float = inspect.signature(AsyncConnection.wait).parameters['interval'].default

logger = GuardedLogger(__name__)


async def wait_bounded(
    connection: 'ref[AsyncConnection[Any]]',
    session: Session,
    gen: Generator[Any, Any, _ResultT],
    interval: float = _INTERVAL,
    **options: Any,
) -> _ResultT:
    """Like :py:meth:`psycopg.AsyncConnection.wait`, but what follows a cancellation is limited, not cut off.

    psycopg waits up to 5 seconds for the server to accept its cancel request, and up to 5 for the statement to end. If
    it is cancelled again meanwhile (anyio's scopes cancel at each turn of the loop), it closes the connection, and the
    server continues the statement.
    """
    # The caller holds psycopg's lock.
    conn = cast('AsyncConnection[Any]', connection())
    try:
        return await wait_async(gen, conn.pgconn.socket, interval=interval, **options)
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        if is_at_work(conn):
            await to_its_end(_end_statement(conn, session, gen))
        raise


async def _end_statement(conn: AsyncConnection[Any], session: Session, gen: Generator[Any, Any, object]) -> None:
    """Ask the server to end the statement and read the answer: the connection is good again. Otherwise close it."""
    deadline = time.monotonic() + session.cancel_timeout
    ending = asyncio.ensure_future(wait_async(gen, conn.pgconn.socket, interval=_INTERVAL))
    # Whether the server has accepted each request: a late one would end the next user's statement.
    all_arrived = True
    try:
        while not ending.done() and (left := deadline - time.monotonic()) > 0:
            all_arrived = await ask_to_cancel_async(conn, left) and all_arrived
            await asyncio.wait((ending,), timeout=min(max(deadline - time.monotonic(), 0.0), ASK_AGAIN))
    finally:
        while not ending.done():
            # Cancel, possibly more than once: psycopg before 3.3.6 loses a cancellation that comes when its interval
            # ends.
            ending.cancel()
            await asyncio.wait((ending,), timeout=LOOK)
        failure = None if ending.cancelled() else ending.exception()
        if failure is not None and not isinstance(failure, QueryCanceled):
            logger.info('an abandoned statement has not ended as it should: %s', failure)
        if is_at_work(conn) or not (all_arrived or conn.closed):
            session.deadline = deadline
            session.leave(conn)


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await something that has a time limit and must be done, however often the task is cancelled meanwhile.

    The caller re-raises the first cancellation afterwards.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((task,))
    if not task.cancelled():
        task.result()


def is_connected(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether a connection is idle, and the server has not ended it; asks only the kernel."""
    pgconn = conn.pgconn
    if conn.closed or pgconn.transaction_status != TransactionStatus.IDLE:
        return False
    for _ in range(MOST_MESSAGES):
        readable, finished = poll_once(pgconn.socket)
        if finished:
            return False
        if not readable:
            break
        # The server may send something unsolicited: a notification, or a shutdown. This reads what has arrived (psycopg
        # delivers notifications with the next statement) and fails if that was the end; it sends nothing.
        pgconn.consume_input()
        if pgconn.is_busy():
            return False
    return not conn.closed


def _conversation(pgconn: PGconn, command: bytes) -> Generator[None, None, None]:
    """Send statements by the simple protocol and read the answers; yields when the next answer has not arrived.

    Not with a cursor: that would begin a transaction, and ask a dead server to cancel when interrupted.

    :raise psycopg.Error: the server refuses them, or is lost
    """
    pgconn.send_query(command)
    pgconn.flush()
    failed = answered = None
    while True:
        pgconn.consume_input()
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if failed is not None:
                    raise error_from_result(failed)
                if answered is None or pgconn.transaction_status != TransactionStatus.IDLE:
                    raise psycopg.OperationalError('the server did not answer as it should')
                return
            answered = result
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY):
                failed = result
        yield


def exchange(pgconn: PGconn, command: bytes, timeout: float | None) -> None:
    """Execute statements by the simple protocol, which begins no transaction.

    :param pgconn: libpq's connection
    :param command: the statements
    :param timeout: seconds, None for no limit
    :raise psycopg.Error: they failed, or the timeout expired
    """
    deadline = deadline_after(timeout)
    conversation = _conversation(pgconn, command)
    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ)
        for _ in conversation:
            if not selector.select(time_left(deadline)):
                raise psycopg.OperationalError('the server did not answer in time')


async def exchange_async(pgconn: PGconn, command: bytes, timeout: float | None) -> None:
    """Execute statements like :py:func:`execute`, in an event loop."""
    loop = asyncio.get_running_loop()
    arrived, fd = asyncio.Event(), pgconn.socket
    is_over = False

    def give_up() -> None:
        nonlocal is_over
        is_over = True
        arrived.set()

    loop.add_reader(fd, arrived.set)
    # Only the timer decides that the timeout has expired: uvloop's timer may fire before the clock shows it.
    timer = None if timeout is None else loop.call_later(timeout, give_up)
    try:
        for _ in _conversation(pgconn, command):
            if is_over:
                raise psycopg.OperationalError('the server did not answer in time')
            arrived.clear()
            await arrived.wait()
    finally:
        loop.remove_reader(fd)
        if timer is not None:
            timer.cancel()


@contextlib.contextmanager
def waits_until(conn: Connection[Any], deadline: float | None) -> Iterator[Callable[[], bool]]:
    """Limit the waits of a connection in the block, without a thread: psycopg checks for interrupts at intervals.

    :param conn: the connection
    :param deadline: in the time of :py:func:`time.monotonic`, None for no limit
    :return: of the context manager: returns whether the deadline has passed. Then each wait raises ConnectionTimeout.
    """
    if deadline is None:
        yield lambda: False
        return
    limit = max(deadline, time.monotonic() + _SHORTEST_WAIT)
    wait = conn.wait
    was_over = False

    def watched(gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        nonlocal was_over
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() >= limit:
                    was_over = True
                    raise ConnectionTimeout('the server did not answer in time')
                wanted = gen.send(ready)
        except StopIteration as stop:
            return stop.value

    def bounded(gen: Generator[Any, Any, Any], interval: float = _INTERVAL, **options: Any) -> Any:
        left = max(limit - time.monotonic(), 0.001)
        return wait(watched(gen), interval=min(interval, left), **options)

    conn.wait = bounded  # type: ignore[method-assign,assignment]
    try:
        yield lambda: was_over
    finally:
        del conn.wait


def is_at_work(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    """Return whether the server may be running a statement."""
    return not conn.closed and conn.pgconn.transaction_status == TransactionStatus.ACTIVE


def ask_to_cancel(conn: Connection[Any], seconds: float) -> None:
    """Ask the server to end the statement of a connection, and wait for at most ``seconds`` until it accepts that."""
    if capabilities.has_cancel_safe():
        try:
            conn.cancel_safe(timeout=max(seconds, 0.001))
        except (psycopg.Error, OSError) as exc:
            logger.info('the server cannot be asked to end a statement: %s', exc)
    else:
        ended = Latch()
        ask_in_thread(_blocking_cancel(conn.pgconn), ended.set)
        ended.wait(seconds)


async def ask_to_cancel_async(conn: AsyncConnection[Any], seconds: float) -> bool:
    """Do the same in an event loop.

    :return: False if it is unknown whether the server has accepted the request
    """
    if capabilities.has_cancel_safe():
        try:
            await conn.cancel_safe(timeout=max(seconds, 0.001))
        except (psycopg.Error, OSError) as exc:
            logger.info('the server cannot be asked to end a statement: %s', exc)
            return False
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def tell() -> None:
        # The loop may be closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set)

    ask_in_thread(_blocking_cancel(conn.pgconn), tell)
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True


def _blocking_cancel(pgconn: PGconn) -> Callable[[], None]:
    """Return a function that asks the server by a libpq before version 17, which waits for the answer."""
    if psycopg.pq.__impl__ == 'python':
        return pgconn.get_cancel().cancel
    module = sys.modules[type(pgconn).__module__].__file__
    return LibpqCancel(str(module), cast('Any', pgconn).pgconn_ptr)


def take_from_user(conn: Connection[Any], session: Session, seconds: float) -> bool:
    """End what a thread executes, and acquire the connection's lock, which psycopg holds during a statement.

    The server is asked to end the statement, and each that follows at once, such as one after its ``BEGIN``. Finally
    the thread's wait for an answer is cut off.

    :param seconds: during which the server is asked at most
    :return: whether the lock was acquired: not if no thread had it, or its thread has not left
    """
    session.deadline = deadline = time.monotonic() + seconds
    while True:
        while not _has_answer(conn) and (left := deadline - time.monotonic()) > 0:
            ask_to_cancel(conn, left)
            ask_again = min(time.monotonic() + ASK_AGAIN, deadline)
            while not _has_answer(conn) and time.monotonic() < ask_again:
                time.sleep(LOOK)
        if not conn.lock.locked():
            return False
        if conn.lock.acquire(timeout=min(_PATIENCE_WITH_USER, seconds)):
            return True
        if _has_unread_answer(conn):
            return False
        if time.monotonic() >= deadline:
            shut_down_descriptor(conn.pgconn.socket)
            return conn.lock.acquire(timeout=_PATIENCE_WITH_USER)


async def take_from_user_async(conn: AsyncConnection[Any], session: Session, seconds: float) -> bool:
    """Do for a task what :py:func:`take_from_user` does for a thread."""
    session.deadline = deadline = time.monotonic() + seconds
    while True:
        while not _has_answer(conn) and (left := deadline - time.monotonic()) > 0:
            await ask_to_cancel_async(conn, left)
            ask_again = min(time.monotonic() + ASK_AGAIN, deadline)
            # A task that waits for the answer has the loop watch the socket, which can have only one watcher.
            while not _has_answer(conn) and time.monotonic() < ask_again:  # noqa: ASYNC110
                await asyncio.sleep(LOOK)
        if not conn.lock.locked():
            return False
        if await _acquires(conn.lock, min(_PATIENCE_WITH_USER, seconds)):
            return True
        if _has_unread_answer(conn):
            return False
        if time.monotonic() >= deadline:
            shut_down_descriptor(conn.pgconn.socket)
            return await _acquires(conn.lock, _PATIENCE_WITH_USER)


def _has_answer(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    # Also if the statement has ended.
    return not is_at_work(conn) or poll_once(conn.pgconn.socket)[0]


def _has_unread_answer(conn: Connection[Any] | AsyncConnection[Any]) -> bool:
    # No task waits for it.
    return conn.closed or poll_once(conn.pgconn.socket)[0]


async def _acquires(lock: asyncio.Lock, seconds: float) -> bool:
    try:
        return await asyncio.wait_for(lock.acquire(), seconds)
    except asyncio.TimeoutError:
        return False
