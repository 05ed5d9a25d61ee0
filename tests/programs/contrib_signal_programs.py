"""The programs that ``test_contrib_signals.py`` runs, each in a process of its own: signals interrupt the main thread
while it hands work to another thread of ``gcpool.contrib``, or waits for it.

What signal handlers raise can leave a lock of ``threading`` taken: a ``Condition`` is entered by a method in Python,
and from CPython 3.14 on a handler may run between the entry into any ``with`` and its block. The other thread must not
need such a lock.
"""

import asyncio
import contextlib
import socket
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable
from typing import Any

from gcpool.contrib import _sockets_async, _watchdog
from gcpool.contrib._attempts import Attempt, Attempts
from gcpool.contrib._sockets import RESOLUTIONS
from gcpool.contrib._watchdog import CutOff
from tests.programs.signal_programs import Alarm, be_quiet, interrupted_at
from tests.support import PATIENCE
from tests.threads.runtime import spawn, until

# Seconds after which nothing happens in a program.
LATER = 10 * PATIENCE

# Long enough for the main thread to begin its wait. If it does not, fewer places are interrupted.
MOMENT = 0.002


def interrupt_everywhere(
    attempt: Callable[[], object], check: Callable[[], object], *spared: Callable[..., Any]
) -> None:
    """Call a function until it is not interrupted any more: in the first place where a handler may run, the second...

    :param attempt: the function
    :param check: called after each time
    :param spared: see :py:func:`interrupted_at`
    """
    be_quiet()
    if sys.version_info < (3, 14):
        threading.Thread.start = start_uninterrupted  # type: ignore[method-assign, assignment]
    count, interrupted = 0, True
    while interrupted:
        count, interrupted = count + 1, False
        try:
            with interrupted_at(count, *spared):
                attempt()
        except Alarm:
            interrupted = True
        # Threads begin and end.
        spawn(threading.active_count).result()
        check()
    assert count > 5, count


start_thread = threading.Thread.start


def start_uninterrupted(thread: threading.Thread) -> None:
    """Start a thread. Before CPython 3.14, one whose start is interrupted may hang, but no other thread does."""
    profiler = sys.getprofile()
    sys.setprofile(None)
    try:
        start_thread(thread)
    finally:
        sys.setprofile(profiler)


def no_thread_is_left(name: str) -> None:
    until(lambda: not any(thread.name == name for thread in threading.enumerate()))


# ---------------------------------------------------------------------------------------------------------------------
# The watchdog
# ---------------------------------------------------------------------------------------------------------------------


def watching(running: bool) -> None:
    """Each later time limit is kept.

    :param running: whether the watchdog's thread exists already, and has something to watch
    """
    kept = []

    def watch() -> None:
        # Two, because the second one finds more.
        for seconds in (LATER, LATER / 2):
            CutOff(never, seconds).end()

    def limits_are_kept() -> None:
        happened = threading.Event()
        cut_off = CutOff(happened.set, 0.0)
        assert happened.wait(PATIENCE), 'the watchdog hangs'
        cut_off.end()
        if not running:
            _watchdog._Watchdog._current = None

    if running:
        kept.append(CutOff(never, LATER))
    else:
        _watchdog.IDLE_TIME = 0.01
    interrupt_everywhere(watch, limits_are_kept)


def ending_late() -> None:
    """The watch is ended while its time is over: the watchdog, and others that end it, go on."""
    _watchdog.IDLE_TIME = 0.01
    cut_offs: list[CutOff] = []
    called: list[threading.Event] = []

    def shut_down() -> None:
        called[-1].set()
        # end() waits meanwhile.
        threading.Event().wait(MOMENT)

    def end() -> None:
        cut_offs[-1].end()

    def prepare() -> None:
        called.append(threading.Event())
        cut_offs.append(CutOff(shut_down, 0.0))
        assert called[-1].wait(PATIENCE), 'the watchdog hangs'

    def check() -> None:
        spawn(end).result()
        end()
        prepare()

    prepare()
    interrupt_everywhere(end, check)


def never() -> None:
    raise AssertionError('it was called')


# ---------------------------------------------------------------------------------------------------------------------
# Attempts to connect
# ---------------------------------------------------------------------------------------------------------------------


def connecting() -> None:
    """A connection that arrives after the interruption is closed, and the next attempt does not wait for it."""
    attempts = Attempts()
    opened: list[object] = []
    closed: list[object] = []
    received: list[object] = []

    def connect(left: float | None) -> object:
        threading.Event().wait(MOMENT)
        opened.append(object())
        return opened[-1]

    def attempt() -> None:
        attempts.connect('db', connect, closed.append, PATIENCE)

    def check() -> None:
        no_thread_is_left('gcpool-connect')
        # One that has just been handed over, and was not bound yet, is lost to the caller.
        lost = len(opened) - len(closed) - len(received)
        assert lost <= 10, lost
        assert len(set(map(id, closed))) == len(closed)
        received.append(attempts.connect('db', connect, closed.append, PATIENCE))
        assert not attempts._given_up

    interrupt_everywhere(attempt, check, connect)


def taking_a_place() -> None:
    """Whoever is interrupted before it waits for an abandoned attempt leaves that to the next one."""
    attempts = Attempts()
    abandoned: list[Attempt] = []

    def abandon() -> None:
        abandoned.append(Attempt('db'))
        attempts.give_up(abandoned[-1])

    def attempt() -> None:
        with attempts.place('db') as ended:
            assert ended is abandoned[-1].ended
            abandoned[-1].end()

    def check() -> None:
        if abandoned[-1].is_over:
            abandon()
        else:
            assert not abandoned[-1]._successor, 'nobody will wait for that attempt'

    abandon()
    interrupt_everywhere(attempt, check)


def resolving() -> None:
    """In an event loop: later resolutions of that name do not wait for one that was interrupted."""
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)

    def getaddrinfo(*args: object) -> list[Any]:
        threading.Event().wait(MOMENT)
        return []

    module: Any = socket
    module.getaddrinfo = getaddrinfo

    def attempt() -> None:
        resolution = _sockets_async._resolve('localhost', 0)
        try:
            assert resolution.send(None) is not None
        except StopIteration:
            # It did not begin its wait.
            return
        # Another one would wait for its end now.
        with contextlib.suppress(asyncio.CancelledError):
            resolution.throw(asyncio.CancelledError())

    def check() -> None:
        no_thread_is_left('gcpool-connect')
        assert RESOLUTIONS.describe('localhost').startswith('0 ')

    interrupt_everywhere(attempt, check)
    asyncio._set_running_loop(None)
    loop.close()


# ---------------------------------------------------------------------------------------------------------------------
# Drivers
# ---------------------------------------------------------------------------------------------------------------------


class Asked:
    """Stands for a connection of psycopg or psycopg2 that executes a statement, and for the request to end it."""

    closed = 0
    pgconn_ptr = pgconn = None

    def get_transaction_status(self) -> int:
        """As psycopg2 says that a statement is running."""
        return 1

    def ask(self, *args: object) -> Callable[[], object]:
        return lambda: threading.Event().wait(MOMENT)


def ending_a_statement_of_psycopg2() -> None:
    """The thread that has asked the server ends."""
    from gcpool.contrib import _psycopg2_statements

    conn = Asked()
    module: Any = _psycopg2_statements
    module.LibpqCancel = conn.ask

    def end() -> None:
        module.end_statement(conn, time.monotonic() + 2 * MOMENT)

    interrupt_everywhere(end, lambda: no_thread_is_left('gcpool-cancel'), conn.ask)


def ending_a_statement_of_psycopg() -> None:
    from gcpool.contrib import _psycopg_statements

    conn = Asked()
    module: Any = _psycopg_statements
    module.capabilities = types.SimpleNamespace(has_cancel_safe=lambda: False)
    module._blocking_cancel = conn.ask
    interrupt_everywhere(
        lambda: module.ask_to_cancel(conn, PATIENCE), lambda: no_thread_is_left('gcpool-cancel'), conn.ask
    )


def ending_a_session_of_pymysql() -> None:
    """Other threads can end sessions of that endpoint."""
    from pymysql import err

    from gcpool.contrib import pymysql

    class Control:
        """Connects to nothing."""

        def __init__(self, **parameters: object) -> None:
            pass

        def connect_by(self, deadline: float) -> None:
            raise err.OperationalError(module.KILLED_MEANWHILE)

        def end(self) -> None:
            pass

    module: Any = pymysql
    manager: Any = pymysql.DbConnectionManager({'db': {'host': 'localhost'}})
    module.Connection = Control

    def kill() -> None:
        manager._kill('db', None, time.monotonic() + PATIENCE)

    interrupt_everywhere(kill, lambda: spawn(kill).result())


def opening_a_database() -> None:
    """Of aiosqlite, which starts a thread."""
    from gcpool.contrib import aiosqlite

    # The one who was interrupted has not awaited what was to open it.
    warnings.simplefilter('ignore', RuntimeWarning)
    module: Any = aiosqlite
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(loop)

    connections = [module.Connection(never, 1)]

    def open_it() -> None:
        connections[0].__await__()

    def prepare_another() -> None:
        connections.pop().stop()
        connections.append(module.Connection(never, 1))

    interrupt_everywhere(open_it, prepare_another)
    asyncio._set_running_loop(None)
    loop.close()
