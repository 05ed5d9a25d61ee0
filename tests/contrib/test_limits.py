"""Time limits hold: where the pool waits for a manager, a silent peer costs at most 0.5 s beyond the limit."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gcpool import asyncio as for_asyncio
from gcpool import threading as for_threads
from gcpool.contrib import socket as sockets
from gcpool.contrib import socket_async
from tests.contrib.conftest import Run, with_any_timers
from tests.contrib.servers import STALL, EchoServer, full_listener, linux_only
from tests.contrib.test_resolver import Resolver

LIMIT = 0.15
# What the pool promises beyond it.
GRACE = 0.5


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + GRACE


def deaf(request: pytest.FixtureRequest, kind: str) -> tuple[Any, Any, Any]:
    """The managers for threads and for asyncio, and a peer that does not answer; it lasts as long as the test."""
    where, _, step = kind.partition(', ')
    stack = contextlib.ExitStack()
    request.addfinalizer(stack.close)
    if where == 'Unix':
        unix = pytest.importorskip('gcpool.contrib.unix', exc_type=ImportError)
        unix_async = pytest.importorskip('gcpool.contrib.unix_async', exc_type=ImportError)
        path = request.getfixturevalue('socket_directory') / 'full.sock'
        stack.enter_context(full_listener(socket.AF_UNIX, str(path)))
        asynchronous = unix_async.UnixSocketConnectionManager()
        if step == 'stream':
            asynchronous = unix_async.UnixSocketStreamConnectionManager()
        return unix.UnixSocketConnectionManager(), asynchronous, path
    if step == 'handshake':
        port = request.getfixturevalue('silent_listener').getsockname()[1]
    elif step == 'resolver':
        resolver = Resolver()
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(socket, 'getaddrinfo', resolver)
        stack.callback(resolver.answer)
        port = 1
    else:
        port = stack.enter_context(full_listener(socket.AF_INET, ('127.0.0.1', 0))).getsockname()[1]
    if where == 'TCP':
        managers = sockets.TcpSocketConnectionManager(), socket_async.TcpSocketConnectionManager()
        return *managers, (ip_address('127.0.0.1'), port)
    tls: ssl.SSLContext = request.getfixturevalue('client_tls')
    secure = where == 'TLS'
    return (
        sockets.SslSocketConnectionManager(tls),
        socket_async.TcpStreamConnectionManager(tls if secure else None),
        ('localhost' if step == 'resolver' else '127.0.0.1', port),
    )


CONNECTS = ['TLS, handshake', 'TLS, resolver', 'stream, resolver']
FULL = ['TCP, connect', 'TLS, connect', 'stream, connect', 'Unix, socket', 'Unix, stream']
connects = pytest.mark.parametrize('kind', [*CONNECTS, *(pytest.param(kind, marks=linux_only) for kind in FULL)])


@connects
def test_connecting_for_threads(request: pytest.FixtureRequest, kind: str) -> None:
    manager, _, endpoint = deaf(request, kind)
    pool = for_threads.ConnectionPool[Any, Any](manager, max_size=1)
    # The second one waits for what the first one has abandoned.
    for _ in range(2):
        with limited(LIMIT), pytest.raises(TimeoutError):
            pool.acquire(endpoint, timeout=LIMIT)
        assert pool.get_size() == 0
    pool.close()


@connects
@with_any_timers
def test_connecting_for_asyncio(request: pytest.FixtureRequest, run: Run, kind: str) -> None:
    _, manager, endpoint = deaf(request, kind)

    async def main() -> None:
        pool = for_asyncio.ConnectionPool[Any, Any](manager, max_size=1)
        for _ in range(2):
            with limited(LIMIT), pytest.raises(TimeoutError):
                await pool.acquire(endpoint, timeout=LIMIT)
            assert pool.get_size() == 0
        with limited(0.0):
            await pool.close()

    run(main)


def stalled(request: pytest.FixtureRequest, kind: str) -> tuple[Any, Any, Any]:
    """The managers, and a server that stops answering when told to."""
    secure = kind == 'TLS'
    server: EchoServer = request.getfixturevalue('tls_server' if secure else 'tcp4_server')
    tls: ssl.SSLContext = request.getfixturevalue('client_tls')
    if kind == 'TCP':
        managers: tuple[Any, Any] = sockets.TcpSocketConnectionManager(), socket_async.TcpSocketConnectionManager()
        return *managers, (ip_address('127.0.0.1'), server.port)
    if kind == 'Unix':
        unix = pytest.importorskip('gcpool.contrib.unix', exc_type=ImportError)
        unix_async = pytest.importorskip('gcpool.contrib.unix_async', exc_type=ImportError)
        path = Path(request.getfixturevalue('unix_server').listener.getsockname())
        return unix.UnixSocketConnectionManager(), unix_async.UnixSocketStreamConnectionManager(), path
    streams = socket_async.TcpStreamConnectionManager(tls if secure else None)
    return sockets.SslSocketConnectionManager(tls), streams, ('localhost', server.port)


peers = pytest.mark.parametrize('kind', ['TCP', 'stream', 'TLS', 'Unix'])


@pytest.mark.parametrize('kind', ['TCP', 'TLS', 'Unix'])
def test_checking_and_closing_for_threads(request: pytest.FixtureRequest, kind: str) -> None:
    manager, _, endpoint = stalled(request, kind)
    pool = for_threads.ConnectionPool[Any, Any](manager, max_size=1, dispose_timeout=LIMIT)
    with pool.connection(endpoint, timeout=30.0) as sock:
        sock.sendall(STALL)
    with limited(LIMIT):
        assert pool.acquire(endpoint, timeout=LIMIT) is sock
    # More than the peer will ever read.
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
        while True:
            sock.send(b'x' * 65536)
    with limited(LIMIT):
        pool.close(timeout=0)


async def tell(conn: Any, data: bytes) -> None:
    if isinstance(conn, socket.socket):
        await asyncio.get_running_loop().sock_sendall(conn, data)
    else:
        conn[1].write(data)
        await conn[1].drain()


async def hear(conn: Any) -> None:
    if isinstance(conn, socket.socket):
        await asyncio.get_running_loop().sock_recv(conn, 1)
    else:
        await conn[0].readexactly(1)


@peers
@with_any_timers
def test_checking_and_closing_for_asyncio(request: pytest.FixtureRequest, run: Run, kind: str) -> None:
    _, manager, endpoint = stalled(request, kind)

    async def main() -> None:
        pool = for_asyncio.ConnectionPool[Any, Any](manager, max_size=1, dispose_timeout=LIMIT)
        async with pool.connection(endpoint, timeout=30.0) as conn:
            await tell(conn, STALL)
        with limited(LIMIT):
            assert await pool.acquire(endpoint, timeout=LIMIT) is conn
        if not isinstance(conn, socket.socket):
            conn[1].write(b'x' * 50_000_000)
        # The good-bye does not wait for the peer any longer.
        with limited(LIMIT):
            await pool.close(timeout=0)

    run(main)


@peers
@with_any_timers
def test_a_request_is_limited_by_its_user(request: pytest.FixtureRequest, run: Run, kind: str) -> None:
    """What docs/recovery.md promises of ``asyncio.timeout``: it holds, although a TLS stream may take longer to be
    closed."""
    _, manager, endpoint = stalled(request, kind)

    async def main() -> None:
        pool = for_asyncio.ConnectionPool[Any, Any](manager, max_size=1)

        async def ask() -> None:
            async with pool.connection(endpoint) as conn:
                await tell(conn, STALL)
                await hear(conn)

        with limited(LIMIT), pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ask(), LIMIT)
        # Only TLS has a good-bye with an answer, which has 1 second.
        with limited(1.0 if kind == 'TLS' else 0.0):
            await pool.close()

    run(main)
