"""The application that ``test_uwsgi.py`` has real uWSGI serve. Its pool is used when it is imported: before the workers
are forked, unless uWSGI is told otherwise.

The server that it asks tells each connection its number, with the answer.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any

import gcpool.asyncio
import gcpool.threading

Endpoint = tuple[str, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

ENDPOINT = ('127.0.0.1', int(os.environ['GCPOOL_TEST_PORT']))


class SocketManager(gcpool.threading.BaseConnectionManager[Endpoint, socket.socket]):
    def create(self, endpoint: Endpoint, timeout: float | None = None) -> socket.socket:
        return socket.create_connection(endpoint, timeout)

    def dispose(self, endpoint: Endpoint, conn: socket.socket, timeout: float | None = None) -> None:
        conn.close()


class StreamManager(gcpool.asyncio.BaseConnectionManager[Endpoint, Streams]):
    async def create(self, endpoint: Endpoint) -> Streams:
        return await asyncio.open_connection(*endpoint)

    async def dispose(self, endpoint: Endpoint, conn: Streams) -> None:
        conn[1].transport.abort()


pool: gcpool.threading.ConnectionPool[Endpoint, socket.socket] = gcpool.threading.ConnectionPool(
    # Without a collector: if its thread runs at a fork that Python is not told of, the child waits for it for ever.
    SocketManager(),
    max_size=2,
    min_idle=0,
    idle_timeout=30,
)
async_pool: gcpool.asyncio.ConnectionPool[Endpoint, Streams] = gcpool.asyncio.ConnectionPool(
    StreamManager(), max_size=2
)
loops: dict[int, asyncio.AbstractEventLoop] = {}


def ask(question: str) -> str:
    with pool.connection(ENDPOINT) as conn:
        conn.sendall(question.encode() + b'\n')
        answer = b''
        while not answer.endswith(b'\n'):
            part = conn.recv(1000)
            if not part:
                raise ConnectionResetError('the server has closed the connection')
            answer += part
    return answer.decode().strip()


async def ask_async(question: str) -> str:
    async with async_pool.connection(ENDPOINT) as (reader, writer):
        writer.write(question.encode() + b'\n')
        return (await reader.readuntil(b'\n')).decode().strip()


def ask_in_loop(question: str) -> str:
    pid = os.getpid()
    if pid not in loops:
        loops[pid] = asyncio.new_event_loop()
    return loops[pid].run_until_complete(ask_async(question))


ASK = {'threads': ask, 'asyncio': ask_in_loop}[os.environ['GCPOOL_TEST_RUNTIME']]
ASK('at import')


def application(
    environ: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    question = environ['QUERY_STRING']
    answer = ASK(question)
    start_response('200 OK', [('Content-Type', 'application/json')])
    return [json.dumps({'pid': os.getpid(), 'answer': answer}).encode()]
