"""Abandoned attempts to connect: they count until they end, at the server and in the process."""

import contextlib
import importlib
import itertools
import os
import selectors
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gcpool.contrib import _attempts
from gcpool.contrib._attempts import SHORTEST_CONNECT, Attempts
from gcpool.exceptions import ConnectTimeout
from gcpool.threading import ConnectionPool
from tests.contrib.servers import PATIENCE, tcp_listener


class GivenUp:
    """An attempt whose timeout expired, and which continues until the test ends it."""

    def __init__(self, attempts: Attempts, endpoint: str = 'db', error: Exception | None = None) -> None:
        self.may_end = threading.Event()
        self.undone = threading.Event()
        self._error = error
        with pytest.raises(TimeoutError):
            attempts.connect(endpoint, self._connect, lambda result: self.undone.set(), 0.0)

    def _connect(self, left: float | None) -> object:
        assert left is not None
        assert left <= SHORTEST_CONNECT
        assert self.may_end.wait(PATIENCE)
        if self._error is not None:
            raise self._error
        return object()


def never(*args: object) -> None:
    pytest.fail(f'called with {args!r}')


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


def connects(attempts: Attempts, endpoint: str = 'db', timeout: float | None = PATIENCE) -> bool:
    return attempts.connect(endpoint, lambda left: True, never, timeout)


def times_out(attempts: Attempts) -> bool:
    with pytest.raises(TimeoutError, match='abandoned attempt has not ended'):
        attempts.connect('db', never, never, 0.0)
    return True


@pytest.mark.parametrize('timeout', [None, PATIENCE])
@pytest.mark.parametrize('error', [None, LookupError('of the test')])
def test_the_next_one_waits_until_it_has_ended(
    attempts: Attempts, timeout: float | None, error: Exception | None
) -> None:
    given_up = GivenUp(attempts, error=error)
    # As often as it is tried.
    for _ in range(2):
        assert times_out(attempts)
    ended: list[bool] = []

    def connect(left: float | None) -> bool:
        ended.append(error is not None or given_up.undone.is_set())
        assert (left is None) is (timeout is None)
        return True

    with in_thread(lambda: attempts.connect('db', connect, never, timeout)):
        assert not ended
        given_up.may_end.set()
    assert ended == [True]
    assert connects(attempts)
    assert not attempts._given_up


def test_another_endpoint_does_not_wait(attempts: Attempts) -> None:
    given_up = GivenUp(attempts)
    assert connects(attempts, 'other')
    given_up.may_end.set()


def test_each_waits_for_another_one(attempts: Attempts) -> None:
    # Two at a time: the second begins when the first is abandoned.
    with contextlib.ExitStack() as stack:
        threads: list[GivenUp] = []
        for _ in range(2):
            stack.enter_context(in_thread(lambda: threads.append(GivenUp(attempts))))
    assert len(threads) == len(attempts._given_up) == 2

    def places_left() -> int:
        return sum(not attempt._successor for attempt in attempts._given_up)

    with in_thread(lambda: connects(attempts)):
        wait_until(lambda: places_left() == 1)
        # That attempt waits for the first of them, so this one waits for the other.
        with pytest.raises(TimeoutError, match='2 abandoned attempts have not ended'):
            attempts.connect('db', never, never, 0.0)
        with in_thread(lambda: connects(attempts)):
            wait_until(lambda: not places_left())
            # There is one for each, and nothing more to wait for.
            assert connects(attempts)
            for given_up in threads:
                given_up.may_end.set()


def test_a_forked_child_does_not_wait(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = GivenUp(attempts)
    with monkeypatch.context() as patch:
        patch.setattr(os, 'getpid', lambda: -1)
        assert connects(attempts)
    given_up.may_end.set()


def test_interrupted_while_it_waits_leaves_it_to_the_next(attempts: Attempts, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = GivenUp(attempts)
    (attempt,) = attempts._given_up

    def interrupt(timeout: float | None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(attempt.ended, 'wait', interrupt)
        with pytest.raises(KeyboardInterrupt):
            connects(attempts)
    assert times_out(attempts)
    given_up.may_end.set()
    assert connects(attempts)


def test_one_that_fails_in_time_does_not_count(attempts: Attempts) -> None:
    def fail(left: float | None) -> None:
        raise LookupError('of the test')

    with pytest.raises(LookupError, match='of the test'):
        attempts.connect('db', fail, never, PATIENCE)
    assert not attempts._given_up


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline


@contextlib.contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[None]:
    """Do something in a thread, and wait for its end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:
            failures.append(exc)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(2 * PATIENCE)
    assert not thread.is_alive()
    assert not failures


class SilentServer:
    """Lets clients connect, sends nothing, and counts how many are connected at once."""

    def __init__(self) -> None:
        self.listener = tcp_listener()
        self.peak = 0
        self.somebody_came = threading.Event()
        self._waker, self._wake = socket.socketpair()
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> 'SilentServer':  # noqa: PYI034  (Self needs Python 3.11)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._wake.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self.listener.close()
        self._waker.close()
        for conn in self._open:
            conn.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._waker, selectors.EVENT_READ)
            selector.register(self.listener, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._waker in ready:
                    return
                if self.listener in ready:
                    conn, _ = self.listener.accept()
                    conn.setblocking(False)
                    selector.register(conn, selectors.EVENT_READ)
                    self._open.add(conn)
                # Clients that left before that one came have been removed.
                for conn in [conn for conn in self._open if has_ended(conn)]:
                    selector.unregister(conn)
                    self._open.remove(conn)
                    conn.close()
                self.peak = max(self.peak, len(self._open))
                if self._open:
                    self.somebody_came.set()


def has_ended(conn: socket.socket) -> bool:
    try:
        while conn.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        # It was reset.
        return True
    return True


@pytest.mark.parametrize(('driver', 'manager'), [('psycopg', 'ConnectionManager'), ('psycopg2', 'DbConnectionManager')])
@pytest.mark.parametrize('hosts', [1, 2])
def test_the_server_sees_no_more_than_the_pool_allows(driver: str, manager: str, hosts: int) -> None:
    pytest.importorskip(driver)
    module = importlib.import_module(f'gcpool.contrib.{driver}')
    with SilentServer() as server:
        host, port = server.listener.getsockname()
        params = {'host': ','.join([host] * hosts), 'port': port, 'user': 'gcpool', 'dbname': 'db'}
        pool = ConnectionPool[str, Any](getattr(module, manager)({'db': params}), max_size=1)
        for _ in range(5):
            with pytest.raises(ConnectTimeout):
                pool.acquire('db', timeout=0.0)
            assert pool.get_size() == 0
        assert server.somebody_came.wait(PATIENCE)
        pool.close()
    assert server.peak == 1


class TestInterruptions:
    """An exception at any line (KeyboardInterrupt, Celery's time limit) leaves nothing that other attempts wait for."""

    def test_at_each_line(self) -> None:
        line = 1
        while self._interrupt(line):
            line += 1
        assert line > 20

    def _interrupt(self, line: int) -> bool:
        attempts = Attempts()
        opened: list[object] = []
        closed: list[object] = []

        def connect(left: float | None) -> object:
            opened.append(object())
            return opened[-1]

        lines = itertools.count(1)

        def trace(frame: types.FrameType, event: str, arg: object) -> Any:
            if frame.f_code.co_filename != _attempts.__file__:
                return None
            if event == 'line' and next(lines) == line:
                raise KeyboardInterrupt
            return trace

        # Of this thread, not of the one that connects.
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            attempts.connect('db', connect, closed.append, PATIENCE)
            return False
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        conn = attempts.connect('db', connect, closed.append, PATIENCE / 2)
        assert conn is opened[-1]
        return True
