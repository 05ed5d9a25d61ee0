"""Servers for the tests of the connection managers, and runners for the asynchronous tests."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
import trustme

from tests.contrib.mariadb import MariadbServer, running_mariadb
from tests.contrib.redis_server import RedisServer, running_redis
from tests.contrib.servers import (
    PATIENCE,
    EchoServer,
    PostgresServer,
    has_ipv6,
    running_postgres,
    tcp_listener,
)
from tests.support import set_debug

ResultT = TypeVar('ResultT')


class Run(Protocol):
    """Runs a coroutine to its end in an event loop of its own, in debug mode and with a time limit."""

    def __call__(self, main: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT: ...


def new_uvloop() -> asyncio.AbstractEventLoop:
    uvloop = pytest.importorskip('uvloop')
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class HastyLoop(asyncio.SelectorEventLoop):
    """Its timers fire 3 ms early: uvloop, which counts whole milliseconds, may be early by one."""

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return super().call_at(when - 0.003, callback, *args, context=context)


NEW_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    'asyncio': asyncio.new_event_loop,
    'uvloop': new_uvloop,
    'hasty': HastyLoop,
}

# For the tests of time limits.
with_any_timers = pytest.mark.parametrize('run', NEW_LOOPS, indirect=True)


@pytest.fixture(params=['asyncio', 'uvloop'])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine function; an error that reaches the loop's exception handler fails the test."""
    loop = NEW_LOOPS[request.param]()
    set_debug(loop)
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context))

    def run_main(main: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        return loop.run_until_complete(asyncio.wait_for(main(), PATIENCE))

    try:
        yield run_main
        left = asyncio.all_tasks(loop)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    gc.collect()
    assert not left
    assert not unhandled


class Descriptors(int):
    """The number of descriptors that the process has open.

    A later count is equal to an earlier one (or to a result of + and - on it) as soon as the numbers are equal. If the
    later count should not be lower, it is enough that no descriptors are new: then those that are gone were left behind
    by earlier tests.
    """

    found: frozenset[tuple[int, ...]]
    # How many more than were found.
    surplus = 0

    @classmethod
    def now(cls) -> 'Descriptors':
        # Objects that the first pass frees may hold more.
        for _ in range(2):
            gc.collect()
        found = set()
        for fd in map(int, os.listdir(DESCRIPTORS)):
            # Without the descriptor of the listing, which is closed again.
            with contextlib.suppress(OSError):
                status = os.fstat(fd)
                found.add((fd, status.st_dev, status.st_ino))
        descriptors = cls(len(found))
        descriptors.found = frozenset(found)
        return descriptors

    def __add__(self, number: int) -> 'Descriptors':
        descriptors = Descriptors(int(self) + number)
        descriptors.found = self.found
        descriptors.surplus = self.surplus + number
        return descriptors

    def __sub__(self, number: int) -> 'Descriptors':
        return self + -number

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Descriptors):
            return NotImplemented
        deadline = time.monotonic() + PATIENCE / 3
        while True:
            now = Descriptors.now()
            new = len(now.found - other.found)
            if int(now) == int(other) or (other.surplus >= 0 and new == other.surplus):
                return True
            if time.monotonic() > deadline:
                return False
            # There is no event for a descriptor that a thread closes, of an earlier test or of this one.
            time.sleep(0.01)

    __hash__ = int.__hash__


DESCRIPTORS = next((path for path in map(Path, ('/proc/self/fd', '/dev/fd')) if path.is_dir()), Path())


@pytest.fixture
def open_descriptors() -> Callable[[], Descriptors]:
    """Counts the descriptors that the process has open, for comparison with a later count."""
    if not DESCRIPTORS.name:
        pytest.skip('this system does not show which descriptors are open')
    return Descriptors.now


@pytest.fixture(params=['127.0.0.1', '::1'])
def tcp_server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    """An echo server, once for each version of IP."""
    if request.param == '::1' and not has_ipv6():
        pytest.skip('this system has no IPv6 on loopback')
    with EchoServer(tcp_listener(request.param)) as server:
        yield server


@pytest.fixture
def tcp4_server() -> Iterator[EchoServer]:
    """An echo server on IP version 4."""
    with EchoServer(tcp_listener()) as server:
        yield server


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    """A directory for Unix sockets, whose paths must be short (macOS: 104 bytes; tmp_path alone may be longer)."""
    with tempfile.TemporaryDirectory(prefix='gcpool-', dir='/tmp' if Path('/tmp').is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture
def unix_server(socket_directory: Path) -> Iterator[EchoServer]:
    """An echo server on a Unix domain socket."""
    if not hasattr(socket, 'AF_UNIX'):
        pytest.skip('Python has no Unix domain sockets on this system')
    with EchoServer(unix_listener(socket_directory / 'echo.sock')) as server:
        yield server


def unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(128)
    return listener


@pytest.fixture
def silent_listener() -> Iterator[socket.socket]:
    """A TCP listener that lets clients connect; after that nothing happens unless the test does it."""
    with tcp_listener() as listener:
        listener.settimeout(PATIENCE)
        yield listener


@pytest.fixture(scope='session')
def authority() -> trustme.CA:
    """The certificate authority of the TLS servers."""
    return trustme.CA()


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """TLS settings that trust the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


@pytest.fixture(scope='session')
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """TLS settings of a server that is called localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert('localhost').configure_cert(context)
    return context


@pytest.fixture
def tls_server(server_tls: ssl.SSLContext) -> Iterator[EchoServer]:
    """A TLS echo server for localhost."""
    with EchoServer(tcp_listener(), server_tls) as server:
        yield server


@pytest.fixture(scope='session')
def postgres() -> Iterator[PostgresServer]:
    """A private PostgreSQL server."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope='session')
def mariadb() -> Iterator[MariadbServer]:
    """A private MariaDB server. Tests that restart or reconfigure it leave it running as they found it."""
    with running_mariadb() as server:
        yield server


@pytest.fixture
def mariadb_tls(mariadb: MariadbServer) -> ssl.SSLContext:
    """TLS settings that trust the MariaDB server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    mariadb.authority.configure_trust(context)
    return context


@pytest.fixture
def mariadb_table(mariadb: MariadbServer) -> Iterator[str]:
    """The name of an empty table with a column n, a key."""
    name = f'{mariadb.database}.numbers'
    mariadb.execute(f'CREATE TABLE {name} (n INT PRIMARY KEY) ENGINE=InnoDB')
    yield name
    mariadb.execute(f'DROP TABLE {name}')


@pytest.fixture(scope='session')
def redis_process() -> Iterator[RedisServer]:
    """A private Redis server."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_server(redis_process: RedisServer) -> RedisServer:
    """A private Redis server that runs, whatever earlier tests have done to it; they may kill and restart it."""
    redis_process.ensure_started()
    return redis_process
