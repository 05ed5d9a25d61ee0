"""Cut-offs: one thread for all of them, started when needed, and needed nowhere."""

import contextlib
import gc
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from gcpool.contrib import _watchdog
from gcpool.contrib._sockets import shut_down
from gcpool.contrib._watchdog import CutOff, cut_off_after
from tests.contrib.servers import PATIENCE
from tests.support import program_environment

# Seconds after which nothing happens in a test.
LATER = 10 * PATIENCE


@pytest.fixture(autouse=True)
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Iterator[_watchdog._Watchdog]:
    """A watchdog that no other test uses; its thread ends with the test."""
    monkeypatch.setattr(_watchdog._Watchdog, '_current', None)
    monkeypatch.setattr(_watchdog._Watchdog, '_has_complained', False)
    watchdog = _watchdog._Watchdog.of_this_process()
    yield watchdog
    thread = watchdog._thread
    # The test's watches are gone: look at what there is, and then do not wait.
    monkeypatch.setattr(_watchdog, 'IDLE_TIME', 0.001)
    watchdog._wakeup.set()
    if thread is not None:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert watchdog._thread is None or not watchdog._thread.is_alive()


def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', refuse)


def never() -> None:
    pytest.fail('it was called')


def test_happens_in_time_order_and_in_one_thread() -> None:
    happened: list[int] = []
    threads = set()
    done = threading.Event()

    def note(number: int) -> Callable[[], None]:
        def call() -> None:
            happened.append(number)
            threads.add(threading.current_thread())
            if number == 2:
                done.set()

        return call

    # The last one first: the thread that waits for it is told of those that come before.
    cut_offs = [CutOff(note(2), 0.2), CutOff(note(1), 0.1), CutOff(note(0), 0.0)]
    assert done.wait(PATIENCE)
    assert happened == [0, 1, 2]
    assert all(cut_off.happened for cut_off in cut_offs)
    assert len(threads) == 1
    (thread,) = threads
    assert thread.daemon


def test_many_have_one_thread() -> None:
    before = threading.active_count()
    cut_offs = [CutOff(never, LATER) for _ in range(200)]
    assert threading.active_count() == before + 1
    for cut_off in cut_offs:
        cut_off.end()


def test_ended_in_time_does_not_happen(watchdog: _watchdog._Watchdog) -> None:
    begun, go_on, last = threading.Event(), threading.Event(), threading.Event()

    def keep_busy() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    # Until the others have ended, nothing happens.
    first = CutOff(keep_busy, 0.0)
    assert begun.wait(PATIENCE)
    ended = CutOff(never, 0.0)
    ended.end()
    ended.end()
    CutOff(never, 0.0)
    gc.collect()
    kept = CutOff(last.set, 0.001)
    go_on.set()
    assert last.wait(PATIENCE)
    assert first.happened
    assert kept.happened
    assert not ended.happened


def test_lets_go_of_what_it_would_have_called() -> None:
    class Socket:
        def shut_down(self) -> None:
            never()

    sock = Socket()
    cut_off = CutOff(sock.shut_down, LATER)
    references = sys.getrefcount(sock)
    cut_off.end()
    assert sys.getrefcount(sock) < references


def test_those_that_have_ended_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_watchdog, 'IDLE_TIME', LATER)

    def count_entries() -> tuple[int, int]:
        entries = [
            thing
            for thing in gc.get_objects()
            if isinstance(thing, tuple) and len(thing) == 3 and isinstance(thing[2], weakref.ref)
        ]
        return len(entries), sum(not _watchdog._has_ended(entry[2]) for entry in entries if is_of_a_watch(entry[2]))

    def is_of_a_watch(reference: 'weakref.ref[object]') -> bool:
        return isinstance(reference(), CutOff)

    others, _ = count_entries()
    living = [CutOff(never, LATER) for _ in range(100)]
    deadline = time.monotonic() + PATIENCE
    for _ in range(100):
        # As many that have lived for some time, and as many that end at once.
        for cut_off in [CutOff(never, LATER) for _ in range(50)]:
            cut_off.end()
            CutOff(never, LATER).end()
    while (counts := count_entries())[0] > others + 400:
        assert time.monotonic() < deadline, counts
        time.sleep(0.01)
    assert counts[1] == len(living)


def test_ended_while_it_is_called_waits_for_that() -> None:
    called, may_end = threading.Event(), threading.Event()
    finished: list[bool] = []

    def shut_down() -> None:
        called.set()
        finished.append(may_end.wait(PATIENCE))

    cut_off = CutOff(shut_down, 0.0)
    assert called.wait(PATIENCE)
    ender = threading.Thread(target=cut_off.end, daemon=True)
    ender.start()
    ender.join(0.05)
    assert ender.is_alive()
    may_end.set()
    ender.join(PATIENCE)
    assert not ender.is_alive()
    assert finished == [True]


def test_ended_in_the_middle_of_the_call() -> None:
    # By a finalizer of garbage that is collected there.
    watches: list[CutOff] = []
    happened = threading.Event()

    def end_the_first() -> None:
        watches[0].end()

    watches.extend((CutOff(end_the_first, 0.05), CutOff(happened.set, 0.06)))
    assert happened.wait(PATIENCE)
    assert all(watch.happened for watch in watches)
    # A reference cycle.
    watches.clear()


def test_what_one_that_died_has_left_is_not_lost(
    watchdog: _watchdog._Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, 'excepthook', lambda args: None)
    happened = threading.Event()
    left = CutOff(happened.set, 0.1)
    died = CutOff(exit_the_thread, 0.0)
    thread = watchdog._thread
    assert thread is not None
    thread.join(PATIENCE)
    assert died.happened
    CutOff(never, LATER).end()
    assert happened.wait(PATIENCE)
    assert left.happened


def test_the_thread_ends_without_work_and_comes_again(
    watchdog: _watchdog._Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watchdog, 'IDLE_TIME', 0.01)
    for _ in range(2):
        happened = threading.Event()
        cut_off = CutOff(happened.set, 0.0)
        longer = CutOff(never, LATER)
        thread = watchdog._thread
        assert happened.wait(PATIENCE)
        assert cut_off.happened
        # Watches that have ended are no work, however long they would have lasted.
        longer.end()
        assert thread is not None
        thread.join(PATIENCE)
        assert not thread.is_alive()


def exit_the_thread() -> None:
    raise SystemExit


def test_the_thread_is_replaced_if_it_died(watchdog: _watchdog._Watchdog, monkeypatch: pytest.MonkeyPatch) -> None:
    # Python reports nothing when a thread exits; pytest would.
    monkeypatch.setattr(threading, 'excepthook', lambda args: None)
    died = CutOff(exit_the_thread, 0.0)
    thread = watchdog._thread
    assert thread is not None
    thread.join(PATIENCE)
    assert died.happened
    happened = threading.Event()
    kept = CutOff(happened.set, 0.0)
    assert happened.wait(PATIENCE)
    assert kept.happened


class Broken(logging.Handler):
    """The exception of a log server that is down."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError('of the handler')


@pytest.mark.parametrize('handler', [None, Broken()])
def test_goes_on_after_one_that_raises(handler: logging.Handler | None, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError('of the socket')

    with logs_to(handler):
        happened = threading.Event()
        cut_offs = [CutOff(fail, 0.0), CutOff(happened.set, 0.02)]
        assert happened.wait(PATIENCE)
    assert all(cut_off.happened for cut_off in cut_offs)
    assert (handler is not None) or 'of the socket' in caplog.text


@contextlib.contextmanager
def logs_to(handler: logging.Handler | None) -> Iterator[None]:
    if handler is not None:
        _watchdog.logger.addHandler(handler)
    try:
        yield
    finally:
        if handler is not None:
            _watchdog.logger.removeHandler(handler)


@pytest.mark.parametrize('handler', [None, Broken()])
def test_without_threads_nothing_happens_and_that_is_said_once(
    handler: logging.Handler | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    happened = threading.Event()
    ours, peer = socket.socketpair()
    with monkeypatch.context() as patch, ours, peer, logs_to(handler):
        no_threads(patch)
        cut_off = CutOff(happened.set, 0.0)
        for _ in range(3):
            with cut_off_after(ours.close, 0.0) as was_cut_off:
                peer.sendall(b'x')
                assert ours.recv(1) == b'x'
            assert not was_cut_off()
    assert not cut_off.happened
    if handler is None:
        assert [record.levelname for record in caplog.records] == ['WARNING']
        assert "no thread can be started (can't start new thread)" in caplog.text
    # When threads can be started again, the next watch brings back the thread for all.
    CutOff(never, LATER).end()
    assert happened.wait(PATIENCE)
    assert cut_off.happened


def test_a_socket_is_cut_off() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.settimeout(PATIENCE)
        with cut_off_after(lambda: shut_down(ours), 0.01) as was_cut_off:
            assert ours.recv(1) == b''
        assert was_cut_off()
    with cut_off_after(never, None) as was_cut_off:
        assert not was_cut_off()


FORK = """
import os, socket, sys, threading, warnings
from gcpool.contrib._watchdog import CutOff

# Python 3.12 and later say so in the parent, which knows.
warnings.simplefilter('ignore', DeprecationWarning)
ours, peer = socket.socketpair()
happened = threading.Event()
parents = CutOff(lambda: (ours.shutdown(socket.SHUT_RDWR), happened.set()), 0.3)
is_called, may_go = threading.Event(), threading.Event()
# The worst moment: the watchdog is in the middle of a call.
called = CutOff(lambda: (is_called.set(), may_go.wait()), 0.0)
is_called.wait()
pid = FORKS()
if not pid:
    parents.end()
    called.end()
    own = threading.Event()
    CUT_OFF = CutOff(own.set, 0.01)
    assert own.wait(30)
    # The parent's connection is open.
    assert not parents.happened
    os._exit(0)
may_go.set()
called.end()
assert os.waitpid(pid, 0)[1] == 0
assert happened.wait(30)
assert parents.happened
ours.close()
peer.close()
"""


def check_runs_silently(program: str) -> None:
    finished = subprocess.run(
        [sys.executable, '-X', 'dev', '-W', 'error', '-c', program],
        env=program_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
        check=False,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, '', '')


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
@pytest.mark.parametrize('forks', ['os.fork', "__import__('ctypes').PyDLL(None).fork"])
def test_a_forked_child_has_its_own(forks: str) -> None:
    program = FORK.replace('FORKS', forks)
    check_runs_silently(program)


def test_the_end_of_the_interpreter_waits_for_nothing_and_says_nothing() -> None:
    program = 'from gcpool.contrib._watchdog import CutOff\ncut_off = CutOff(print, 1000.0)\n'
    began = time.monotonic()
    check_runs_silently(program)
    assert time.monotonic() - began < PATIENCE
