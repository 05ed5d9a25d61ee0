"""Host names that are resolved within a time limit: one thread for each name, however many wait for it."""

import socket
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import pytest

from gcpool.contrib import _sockets
from gcpool.contrib._sockets import connect_tcp, deadline_after
from gcpool.contrib.http import HttpConnectionManager
from gcpool.exceptions import ConnectTimeout
from gcpool.threading import ConnectionPool
from tests.contrib.servers import PATIENCE, resolver_without_answer, tcp_listener


def resolving() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == 'gcpool-resolve']


def test_attempts_in_vain_leave_one_thread_behind() -> None:
    pool = ConnectionPool[Any, Any](HttpConnectionManager(), max_size=1)
    before = len(resolving())
    with resolver_without_answer() as host:
        for _ in range(4):
            with pytest.raises(ConnectTimeout):
                pool.acquire(f'http://{host}:1', timeout=0.01)
        assert len(resolving()) == before + 1
        # Another port is another question: the resolver is told it, too.
        with pytest.raises(ConnectTimeout):
            pool.acquire(f'http://{host}:2', timeout=0.01)
        assert len(resolving()) == before + 2
    assert len(resolving()) == before
    assert not _sockets._resolutions
    pool.close()


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> 'Gate':
    return Gate(monkeypatch)


class Gate:
    """Lets a host name be resolved when it is opened."""

    host = 'gate.invalid'

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.asked = 0
        self.failure: Exception | None = None
        self._resolve: Callable[..., Any] = socket.getaddrinfo
        monkeypatch.setattr(socket, 'getaddrinfo', self._getaddrinfo)

    def _getaddrinfo(self, host: object, *args: Any, **kwargs: Any) -> Any:
        if host != self.host:
            return self._resolve(host, *args, **kwargs)
        self.asked += 1
        assert self.open.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        return self._resolve('127.0.0.1', *args, **kwargs)


def connect(host: str, port: int) -> socket.socket:
    return connect_tcp(host, port, deadline_after(PATIENCE))


def wait_until_all_wait(count: int) -> None:
    """Wait until that many threads wait for the resolution."""
    (_, outcome) = next(iter(_sockets._resolutions.values()))
    polls = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if len(outcome._condition._waiters) == count:  # type: ignore[attr-defined]
            return
        # Nothing tells.
        polls.wait(0.01)
    pytest.fail('not all wait for the resolution')


def test_all_are_given_what_one_finds(gated: Gate) -> None:
    with tcp_listener() as listener, futures.ThreadPoolExecutor(3) as executor:
        port = listener.getsockname()[1]
        first = executor.submit(connect, gated.host, port)
        while not gated.asked:
            assert not first.done()
        others = [executor.submit(connect, gated.host, port) for _ in range(2)]
        wait_until_all_wait(3)
        gated.open.set()
        for attempt in (first, *others):
            attempt.result(PATIENCE).close()
        assert gated.asked == 1
        # What was found is not kept.
        connect(gated.host, port).close()
        assert gated.asked == 2


def test_each_is_given_an_error_of_its_own(gated: Gate) -> None:
    gated.failure = socket.gaierror(socket.EAI_NONAME, 'not known')
    with futures.ThreadPoolExecutor(2) as executor:
        first = executor.submit(connect, gated.host, 1)
        while not gated.asked:
            assert not first.done()
        second = executor.submit(connect, gated.host, 1)
        wait_until_all_wait(2)
        gated.open.set()
        errors = [attempt.exception(PATIENCE) for attempt in (first, second)]
    for error in errors:
        assert isinstance(error, socket.gaierror)
        assert error.args == gated.failure.args
    assert errors[0] is not errors[1]
    assert gated.failure not in errors


def test_one_that_has_no_thread_is_not_waited_for(gated: Gate) -> None:
    # As after a fork: the parent's threads are not in the child.
    lost = threading.Thread(target=gated.open.wait)
    gated.open.set()
    with tcp_listener() as listener:
        port = listener.getsockname()[1]
        _sockets._resolutions[gated.host, port, socket.AF_UNSPEC] = (lost, futures.Future())
        connect(gated.host, port).close()
    assert gated.asked == 1


def test_where_no_thread_can_be_started(gated: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, 'start', refuse)
    gated.open.set()
    with tcp_listener() as listener:
        connect(gated.host, listener.getsockname()[1]).close()
    assert gated.asked == 1
    assert not _sockets._resolutions
