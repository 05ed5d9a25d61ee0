"""An exchange that is cut off half-way: whoever comes next must not read the answer to somebody else's question."""

import asyncio
import socket
import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gcpool import asyncio as for_asyncio
from gcpool import threading as for_threads
from gcpool.contrib import socket as sockets
from gcpool.contrib import socket_async
from tests.contrib.conftest import Run
from tests.contrib.servers import PATIENCE, EchoServer

CUT_OFF = [
    TimeoutError(),
    asyncio.TimeoutError(),
    ConnectionResetError(),
    EOFError(),
    asyncio.IncompleteReadError(b'', 1),
]
INTERRUPTED = [KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()]
OTHERS = [ValueError(), KeyError('mine'), AssertionError()]


def managers() -> list[Any]:
    found: list[Any] = [
        sockets.TcpSocketConnectionManager(),
        sockets.SslSocketConnectionManager(ssl.create_default_context()),
        socket_async.TcpSocketConnectionManager(),
        socket_async.TcpStreamConnectionManager(),
    ]
    if hasattr(socket, 'AF_UNIX'):
        from gcpool.contrib import unix, unix_async

        found += [
            unix.UnixSocketConnectionManager(),
            unix_async.UnixSocketConnectionManager(),
            unix_async.UnixSocketStreamConnectionManager(),
        ]
    return found


@pytest.mark.parametrize(
    'manager', managers(), ids=lambda manager: f'{type(manager).__module__}.{type(manager).__name__}'
)
def test_what_breaks_a_connection(manager: Any) -> None:
    def is_broken(exc: BaseException) -> object:
        answer = manager.is_broken(Path('anywhere'), None, exc)
        if not asyncio.iscoroutine(answer):
            return answer
        with pytest.raises(StopIteration) as stopped:
            answer.send(None)
        return stopped.value.value

    assert [is_broken(exc) for exc in CUT_OFF + INTERRUPTED] == [True] * len(CUT_OFF + INTERRUPTED)
    assert [is_broken(exc) for exc in OTHERS] == [False] * len(OTHERS)


def test_a_late_answer_is_not_read_by_the_next_thread(tcp4_server: EchoServer) -> None:
    endpoint = (ip_address('127.0.0.1'), tcp4_server.port)
    pool = for_threads.ConnectionPool(sockets.TcpSocketConnectionManager())

    def ask(question: bytes, error: Exception | None = None) -> bytes:
        with pool.connection(endpoint) as sock:
            sock.settimeout(PATIENCE)
            sock.sendall(question)
            if error is not None:
                raise error
            return sock.recv(100)

    with pytest.raises(TimeoutError):
        ask(b'first', TimeoutError())
    assert ask(b'second') == b'second'
    assert pool.get_stats()['broken'] == 1
    pool.close()


def test_a_late_answer_is_not_read_by_the_next_task(tcp4_server: EchoServer, run: Run) -> None:
    async def main() -> None:
        pool = for_asyncio.ConnectionPool(socket_async.TcpStreamConnectionManager())

        async def ask(question: bytes) -> bytes:
            async with pool.connection(('127.0.0.1', tcp4_server.port)) as (reader, writer):
                writer.write(question)
                return await reader.readexactly(len(question))

        asked = asyncio.Event()

        async def ask_and_wait() -> None:
            async with pool.connection(('127.0.0.1', tcp4_server.port)) as (reader, writer):
                writer.write(b'first')
                asked.set()
                await reader.readexactly(100)

        task = asyncio.create_task(ask_and_wait())
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ask(b'second') == b'second'
        await pool.close()

    run(main)
