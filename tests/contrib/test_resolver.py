"""A resolver that hangs: abandoned attempts do not accumulate, errors name them, and other work is not delayed."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import pytest

from gcpool import asyncio as for_asyncio
from gcpool import threading as for_threads
from gcpool.contrib._sockets import RESOLUTIONS
from gcpool.contrib.socket_async import TcpStreamConnectionManager
from gcpool.exceptions import ConnectTimeout, PoolTimeout
from tests.contrib.conftest import Run
from tests.contrib.kinds import HOST, Kind, http, of_driver, psycopg, pymysql, redis, tls
from tests.contrib.servers import PATIENCE, EchoServer
from tests.support import program_environment

MAX_SIZE = 2
# Another name of the same host, which the resolver below always knows.
OTHER = 'other.invalid'


def attempts_at_work() -> int:
    return sum(thread.name == 'gcpool-connect' for thread in threading.enumerate())


class Resolver:
    """Answers no question about a host until told to."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        # Callers without an answer yet, and their maximum at a time.
        self.asking: set[threading.Thread] = set()
        self.peak = 0
        self._lock = threading.Lock()
        self._resolve = socket.getaddrinfo

    def __call__(self, host: object, *args: Any, **kwargs: Any) -> Any:
        if host == HOST and not self.may_answer.is_set():
            thread = threading.current_thread()
            with self._lock:
                self.asking.add(thread)
                self.peak = max(self.peak, len(self.asking))
            assert self.may_answer.wait(PATIENCE)
            with self._lock:
                self.asking.discard(thread)
        return self._resolve(HOST if host == OTHER else host, *args, **kwargs)  # type: ignore[arg-type]

    def answer(self) -> None:
        with self._lock:
            asking = list(self.asking)
        self.may_answer.set()
        for thread in asking:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    with monkeypatch.context() as patch:
        patch.setattr(socket, 'getaddrinfo', resolver)
        yield resolver
        resolver.answer()


@pytest.mark.parametrize('kind', [tls, http, redis, pymysql, psycopg], ids=lambda kind: kind.__name__)
def test_threads_that_were_given_up_do_not_pile_up(
    request: pytest.FixtureRequest, resolver: Resolver, kind: Callable[..., Kind], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ('_attempts', '_sockets'):
        monkeypatch.setattr(f'gcpool.contrib.{module}.SHORTEST_CONNECT', 0.03)
    # Servers are started by code that needs no resolver.
    resolver.may_answer.set()
    manager, endpoint, use = of_driver(request, kind)
    resolver.may_answer.clear()
    pool = for_threads.ConnectionPool[Any, Any](manager, max_size=MAX_SIZE)
    errors: list[str] = []

    def acquire() -> None:
        for _ in range(12):
            with pytest.raises(ConnectTimeout) as caught:
                pool.acquire(endpoint, timeout=0.01)
            errors.append(str(caught.value))

    users = [threading.Thread(target=acquire, daemon=True) for _ in range(MAX_SIZE)]
    for user in users:
        user.start()
    for user in users:
        user.join(PATIENCE)
        assert not user.is_alive()
    assert len(errors) == 24
    assert resolver.peak == MAX_SIZE
    assert attempts_at_work() <= MAX_SIZE
    assert sum('abandoned attempts have not ended yet' in error for error in errors) >= 20, errors
    assert any(f'{MAX_SIZE} abandoned attempts have not ended yet' in error for error in errors), errors
    assert pool.get_size() == 0
    # It is back, and so is everything.
    resolver.answer()
    with pool.connection(endpoint, timeout=PATIENCE) as conn:
        use(conn)
    pool.close()


@pytest.mark.parametrize('secure', [False, True], ids=['plain', 'TLS'])
def test_tasks_that_were_given_up_do_not_pile_up(
    request: pytest.FixtureRequest, resolver: Resolver, run: Run, secure: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server: EchoServer = request.getfixturevalue('tls_server' if secure else 'tcp4_server')
    manager = TcpStreamConnectionManager(request.getfixturevalue('client_tls') if secure else None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        # One thread, which is not in use.
        loop.set_default_executor(futures.ThreadPoolExecutor(1))
        pool = for_asyncio.ConnectionPool[Any, Any](manager, max_size=MAX_SIZE)

        async def acquire() -> None:
            for _ in range(12):
                with pytest.raises(PoolTimeout):
                    await pool.acquire((HOST, server.port), timeout=0.01)

        await asyncio.gather(*(acquire() for _ in range(MAX_SIZE)))
        assert resolver.peak == MAX_SIZE
        assert attempts_at_work() <= MAX_SIZE
        assert f'{MAX_SIZE} abandoned attempts have not ended yet' in caplog.text
        assert await loop.run_in_executor(None, lambda: 42) == 42
        # Nor for another endpoint.
        if not secure:
            async with pool.connection((OTHER, server.port), timeout=PATIENCE) as (reader, writer):
                writer.write(b'hello')
                assert await reader.readexactly(5) == b'hello'
        resolver.answer()
        async with pool.connection((HOST, server.port), timeout=PATIENCE) as (reader, writer):
            writer.write(b'hello again')
            assert await reader.readexactly(11) == b'hello again'
        await pool.close()

    run(main)
    for thread in threading.enumerate():
        if thread.name == 'gcpool-connect':
            thread.join(PATIENCE)
    assert not attempts_at_work()


def test_an_endpoint_is_waited_for_as_long_as_there_is_time(request: pytest.FixtureRequest, resolver: Resolver) -> None:
    resolver.may_answer.set()
    manager, endpoint, use = tls(request)
    resolver.may_answer.clear()
    with pytest.raises(ConnectTimeout):
        manager.create(endpoint, 0.01)
    with contextlib.ExitStack() as stack:
        conns: list[Any] = []
        waiter = threading.Thread(target=lambda: conns.append(manager.create(endpoint, PATIENCE)), daemon=True)
        waiter.start()
        # Only the abandoned one is still running.
        waiter.join(0.05)
        assert waiter.is_alive()
        assert resolver.peak == 1
        resolver.answer()
        waiter.join(PATIENCE)
        (conn,) = conns
        stack.callback(manager.dispose, endpoint, conn)
        use(conn)


def test_both_runtimes_count_together(resolver: Resolver, run: Run, tcp4_server: EchoServer) -> None:
    async def main() -> None:
        pool = for_asyncio.ConnectionPool[Any, Any](TcpStreamConnectionManager(), max_size=1)
        with pytest.raises(PoolTimeout):
            await pool.acquire((HOST, tcp4_server.port), timeout=0.01)
        assert RESOLUTIONS.describe(HOST) == '1 abandoned attempt has not ended yet'
        await pool.close()

    run(main)
    assert resolver.peak == 1
    resolver.answer()
    assert RESOLUTIONS.describe(HOST).startswith('0 ')


THREADS = """
def connect(timeout):
    from gcpool.contrib.http import HttpConnectionManager
    pool = ConnectionPool(HttpConnectionManager(), max_size=2)
    try:
        with pool.connection(f'http://localhost:{listener.getsockname()[1]}', timeout=timeout):
            pass
    finally:
        pool.close()
"""

TASKS = """
def connect(timeout):
    from gcpool.asyncio import ConnectionPool
    from gcpool.contrib.socket_async import TcpStreamConnectionManager

    async def main():
        pool = ConnectionPool(TcpStreamConnectionManager(), max_size=2)
        try:
            async with pool.connection(('localhost', listener.getsockname()[1]), timeout=timeout):
                pass
        finally:
            await pool.close()

    asyncio.run(main())
"""

PROGRAM = """
import asyncio, logging, os, socket, threading, warnings
from gcpool.threading import ConnectionPool

# It is not about what is logged.
logging.disable()

listener = socket.create_server(('127.0.0.1', 0))
resolve = socket.getaddrinfo
hangs = True

def getaddrinfo(host, *args, **kwargs):
    if host == 'localhost' and hangs:
        # For ever.
        threading.Event().wait()
    return resolve(host, *args, **kwargs)

socket.getaddrinfo = getaddrinfo
{connect}
for _ in range(4):
    try:
        connect(0.01)
    except TimeoutError:
        continue
    raise AssertionError('it was connected')
{then}
listener.close()
"""

FORK = """
# Python 3.12 and later say that there are threads.
warnings.simplefilter('ignore', DeprecationWarning)
hangs = False
pid = os.fork()
if not pid:
    connect(30.0)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.mark.parametrize('connect', [THREADS, TASKS], ids=['threads', 'asyncio'])
@pytest.mark.parametrize(
    'then',
    [
        '',
        pytest.param(FORK, marks=pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')),
    ],
    ids=['ends', 'forks'],
)
def test_a_process_that_has_given_up_some(connect: str, then: str) -> None:
    """It ends silently and without waiting, and its child is not delayed by threads that it does not have."""
    finished = subprocess.run(
        [sys.executable, '-W', 'error', '-c', PROGRAM.format(connect=connect, then=then)],
        env=program_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, '', '')
