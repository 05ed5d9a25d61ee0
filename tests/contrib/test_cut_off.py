"""An exchange that is interrupted half-way: the next user must not read the answer to another user's question."""

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gcpool import asyncio as for_asyncio
from gcpool import threading as for_threads
from gcpool.contrib import socket as sockets
from gcpool.contrib import socket_async
from gcpool.contrib.errors import errors_in
from tests.contrib.conftest import Run
from tests.contrib.raising import WAYS, as_a_context
from tests.contrib.servers import PATIENCE

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


LEAVES: list[BaseException] = [
    *(TimeoutError(), asyncio.TimeoutError(), ConnectionResetError(), EOFError(), asyncio.IncompleteReadError(b'', 1)),
    *(KeyboardInterrupt(), SystemExit(), asyncio.CancelledError(), GeneratorExit()),
    *(ValueError(), KeyError('mine'), AssertionError(), StopIteration()),
]


def cases() -> Iterator[Any]:
    """What may leave a user's block: each in all ways."""
    for leaf in LEAVES:
        for wrap in WAYS:
            yield pytest.param(wrap(leaf), id=f'{type(leaf).__module__}.{type(leaf).__name__} {wrap.__name__}')


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
@pytest.mark.parametrize('exc', list(cases()))
def test_a_connection_is_in_doubt_after_any_exception(manager: Any, exc: BaseException) -> None:
    answer = manager.is_broken(Path('anywhere'), None, exc)
    if asyncio.iscoroutine(answer):
        with pytest.raises(StopIteration) as stopped:
            answer.send(None)
        answer = stopped.value.value
    assert answer is True


@pytest.mark.parametrize('leaf', LEAVES, ids=lambda leaf: f'{type(leaf).__module__}.{type(leaf).__name__}')
def test_errors_are_found_wherever_they_are(leaf: BaseException) -> None:
    inner = BaseExceptionGroup('of inner tasks', [ValueError('first'), leaf])
    outer = BaseExceptionGroup('of tasks', [inner])
    assert list(errors_in(leaf)) == [leaf]
    assert [type(error) for error in errors_in(outer)] == [type(outer), type(inner), ValueError, type(leaf)]
    for wrap in WAYS:
        assert leaf in list(errors_in(wrap(leaf)))
    # What was deliberately raised without its context has none.
    error = as_a_context(leaf)
    error.__suppress_context__ = True
    assert list(errors_in(error)) == [error]


def test_errors_that_are_each_others_cause() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert list(errors_in(first)) == [first, second]


def interrupted() -> list[BaseException]:
    return [
        *(TimeoutError(), ValueError(), KeyboardInterrupt(), GeneratorExit()),
        BaseExceptionGroup('of threads', [ValueError(), TimeoutError()]),
    ]


@pytest.mark.parametrize('kind', ['TCP', 'TLS', 'Unix'])
def test_a_late_answer_is_not_read_by_the_next_thread(request: pytest.FixtureRequest, kind: str) -> None:
    manager, endpoint = for_threads_of_kind(request, kind)
    pool = for_threads.ConnectionPool[Any, Any](manager)

    def ask(question: bytes, error: BaseException | None = None) -> bytes:
        with pool.connection(endpoint) as sock:
            sock.settimeout(PATIENCE)
            sock.sendall(question)
            if error is not None:
                raise error
            return bytes(sock.recv(100))

    for number, error in enumerate(interrupted()):
        with pytest.raises(type(error)):
            ask(b'a question', error)
        assert ask(b'another question') == b'another question'
        assert pool.get_stats()['broken'] == number + 1
    pool.close()


def for_threads_of_kind(request: pytest.FixtureRequest, kind: str) -> tuple[Any, Any]:
    if kind == 'TCP':
        return sockets.TcpSocketConnectionManager(), (
            ip_address('127.0.0.1'),
            request.getfixturevalue('tcp4_server').port,
        )
    if kind == 'TLS':
        manager = sockets.SslSocketConnectionManager(request.getfixturevalue('client_tls'))
        return manager, ('localhost', request.getfixturevalue('tls_server').port)
    unix = pytest.importorskip('gcpool.contrib.unix', exc_type=ImportError)
    return unix.UnixSocketConnectionManager(), Path(request.getfixturevalue('unix_server').listener.getsockname())


def for_asyncio_of_kind(request: pytest.FixtureRequest, kind: str) -> tuple[Any, Any]:
    if kind == 'TCP socket':
        return socket_async.TcpSocketConnectionManager(), (
            ip_address('127.0.0.1'),
            request.getfixturevalue('tcp4_server').port,
        )
    if kind == 'TCP stream':
        return socket_async.TcpStreamConnectionManager(), ('127.0.0.1', request.getfixturevalue('tcp4_server').port)
    if kind == 'TLS stream':
        manager = socket_async.TcpStreamConnectionManager(request.getfixturevalue('client_tls'))
        return manager, ('localhost', request.getfixturevalue('tls_server').port)
    unix_async = pytest.importorskip('gcpool.contrib.unix_async', exc_type=ImportError)
    path = Path(request.getfixturevalue('unix_server').listener.getsockname())
    if kind == 'Unix socket':
        return unix_async.UnixSocketConnectionManager(), path
    return unix_async.UnixSocketStreamConnectionManager(), path


async def send(conn: Any, data: bytes) -> None:
    if isinstance(conn, socket.socket):
        await asyncio.get_running_loop().sock_sendall(conn, data)
    else:
        conn[1].write(data)


async def receive(conn: Any, size: int) -> bytes:
    if isinstance(conn, socket.socket):
        return await asyncio.get_running_loop().sock_recv(conn, size)
    data: bytes = await conn[0].readexactly(size)
    return data


async def time_out(conn: Any) -> None:
    await asyncio.wait_for(receive_all(conn), 0.01)


async def receive_all(conn: Any) -> None:
    # No peer sends this much.
    for _ in range(1000):
        await receive(conn, 100)


async def raise_a_fault_of_the_program(conn: Any) -> None:
    raise ValueError('the answer makes no sense')


async def cancel_itself(conn: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await receive_all(conn)


async def in_a_task_group(conn: Any) -> None:
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined, unused-ignore]
        group.create_task(time_out(conn))


async def in_nested_task_groups(conn: Any) -> None:
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined, unused-ignore]
        group.create_task(in_a_task_group(conn))


async def in_a_task_group_as_cause(conn: Any) -> None:
    try:
        await in_a_task_group(conn)
    except BaseException as exc:
        raise RuntimeError('the request failed') from exc


ENDS = [
    time_out,
    raise_a_fault_of_the_program,
    cancel_itself,
    *(
        pytest.param(end, marks=pytest.mark.since_python(3, 11))
        for end in (in_a_task_group, in_nested_task_groups, in_a_task_group_as_cause)
    ),
]


@pytest.mark.parametrize('kind', ['TCP socket', 'TCP stream', 'TLS stream', 'Unix socket', 'Unix stream'])
@pytest.mark.parametrize('end', ENDS)
def test_a_late_answer_is_not_read_by_the_next_task(
    request: pytest.FixtureRequest, run: Run, kind: str, end: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    manager, endpoint = for_asyncio_of_kind(request, kind)

    async def main() -> None:
        pool = for_asyncio.ConnectionPool[Any, Any](manager)

        async def ask_in_vain() -> None:
            async with pool.connection(endpoint) as conn:
                await send(conn, b'a question')
                await end(conn)

        task = asyncio.create_task(ask_in_vain())
        await asyncio.wait((task,))
        assert task.cancelled() or task.exception() is not None
        async with pool.connection(endpoint) as conn:
            await send(conn, b'another question')
            assert await receive(conn, 16) == b'another question'
        assert pool.get_stats()['broken'] == 1
        await pool.close()

    run(main)
