"""The managers in pools, in both runtimes, with real servers: faults that only the two together can have."""

import asyncio
import contextlib
import os
import socket
import sqlite3
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool.contrib.socket import SslSocketConnectionManager, TcpSocketConnectionManager
from gcpool.contrib.socket_async import TcpSocketConnectionManager as AsyncTcpSocketConnectionManager
from gcpool.contrib.socket_async import TcpStreamConnectionManager
from gcpool.contrib.sqlite3 import SqliteConnectionManager
from tests.contrib.conftest import Run
from tests.contrib.servers import HANG_UP, PATIENCE, EchoServer, closed_port, wait_for_end, wait_readable

LOOPBACK = IPv4Address('127.0.0.1')


class Recorder:
    """What a pool tells a manager for threads, counted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.created: list[Any] = []
        self.disposed: list[Any] = []
        self.dead: list[Any] = []

    def create(self, endpoint: Any, timeout: float | None = None) -> Any:
        conn = super().create(endpoint, timeout)  # type: ignore[misc]
        self.created.append(conn)
        return conn

    def dispose(self, endpoint: Any, conn: Any, timeout: float | None = None) -> None:
        self.disposed.append(conn)
        super().dispose(endpoint, conn, timeout)  # type: ignore[misc]

    def on_connection_dead(self, endpoint: Any, conn: Any) -> None:
        self.dead.append(conn)

    def check_books(self) -> None:
        """Every connection was disposed of exactly once."""
        assert Counter(map(id, self.created)) == Counter(map(id, self.disposed))
        assert max(Counter(map(id, self.created)).values(), default=1) == 1


class AsyncRecorder(Recorder):
    """Send and read on a redis-py connection for asyncio."""

    async def create(self, endpoint: Any) -> Any:  # type: ignore[override]
        conn = await super(Recorder, self).create(endpoint)  # type: ignore[misc]
        self.created.append(conn)
        return conn

    async def dispose(self, endpoint: Any, conn: Any) -> None:  # type: ignore[override]
        self.disposed.append(conn)
        await super(Recorder, self).dispose(endpoint, conn)  # type: ignore[misc]

    async def on_connection_dead(self, endpoint: Any, conn: Any) -> None:  # type: ignore[override]
        self.dead.append(conn)


def recording(recorder: type[Recorder], manager: type[Any], *args: Any, **kwargs: Any) -> Any:
    """A manager that records the calls."""
    return type(f'Recording{manager.__name__}', (recorder, manager), {})(*args, **kwargs)


@dataclass
class Kind:
    """One kind of connection for threads: how to create, use and lose it."""

    manager: Any
    endpoint: Any
    use: Callable[[Any], None]
    end_by_server: Callable[[Any], None]
    await_all_closed: Callable[[], None] = lambda: None


def use_socket(sock: socket.socket) -> None:
    sock.settimeout(PATIENCE)
    sock.sendall(b'hello')
    assert sock.recv(100) == b'hello'


def hang_up_socket(sock: socket.socket) -> None:
    sock.sendall(HANG_UP)
    wait_readable(sock)


def use_database(conn: Any) -> None:
    cursor = conn.cursor()
    cursor.execute('SELECT 6 * 7')
    assert cursor.fetchone() == (42,)
    cursor.close()


def tcp(request: pytest.FixtureRequest) -> Kind:
    server: EchoServer = request.getfixturevalue('tcp4_server')
    manager = recording(Recorder, TcpSocketConnectionManager)
    return Kind(manager, (LOOPBACK, server.port), use_socket, hang_up_socket, lambda: server.wait_until_open(0))


def tls(request: pytest.FixtureRequest) -> Kind:
    server: EchoServer = request.getfixturevalue('tls_server')
    manager = recording(Recorder, SslSocketConnectionManager, request.getfixturevalue('client_tls'))
    return Kind(manager, ('localhost', server.port), use_socket, hang_up_socket, lambda: server.wait_until_open(0))


def unix(request: pytest.FixtureRequest) -> Kind:
    from gcpool.contrib.unix import UnixSocketConnectionManager

    server: EchoServer = request.getfixturevalue('unix_server')
    manager = recording(Recorder, UnixSocketConnectionManager)
    path = Path(server.listener.getsockname())
    return Kind(manager, path, use_socket, hang_up_socket, lambda: server.wait_until_open(0))


def sqlite(request: pytest.FixtureRequest) -> Kind:
    path = request.getfixturevalue('tmp_path') / 'test.db'
    other = path.with_name('other.db')

    def replace(conn: sqlite3.Connection) -> None:
        sqlite3.connect(other).close()
        os.replace(other, path)

    return Kind(recording(Recorder, SqliteConnectionManager), path, use_database, replace)


def psycopg2(request: pytest.FixtureRequest) -> Kind:
    driver = pytest.importorskip('psycopg2')
    from gcpool.contrib.psycopg2 import DbConnectionManager

    params = request.getfixturevalue('postgres').dsn_params

    def kill(conn: Any) -> None:
        with contextlib.closing(driver.connect(**params)) as other, other.cursor() as cursor:
            cursor.execute('SELECT pg_terminate_backend(%s, 30000)', (conn.info.backend_pid,))
        wait_readable(conn.fileno())

    return Kind(recording(Recorder, DbConnectionManager, {'db': params}), 'db', use_database, kill)


@pytest.fixture(
    params=[
        tcp,
        tls,
        pytest.param(unix, marks=pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='no Unix sockets here')),
        sqlite,
        pytest.param(psycopg2, marks=pytest.mark.postgres),
    ]
)
def kind(request: pytest.FixtureRequest) -> Kind:
    make: Callable[[pytest.FixtureRequest], Kind] = request.param
    return make(request)


@pytest.fixture
def pool(kind: Kind) -> Iterator[gcpool.threading.ConnectionPool[Any, Any]]:
    """A pool of the kind, of at most two connections. At the end all were disposed of, and the server has none."""
    pool = gcpool.threading.ConnectionPool[Any, Any](kind.manager, max_size=2, acquire_timeout=PATIENCE)
    yield pool
    pool.close(timeout=PATIENCE)
    kind.manager.check_books()
    kind.await_all_closed()


class TestThreads:
    def test_reuses(self, kind: Kind, pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
        with pool.connection(kind.endpoint) as first:
            kind.use(first)
        with pool.connection(kind.endpoint) as second:
            kind.use(second)
        assert first is second
        assert len(kind.manager.created) == 1

    def test_replaces_what_the_server_has_ended(
        self, kind: Kind, pool: gcpool.threading.ConnectionPool[Any, Any]
    ) -> None:
        with pool.connection(kind.endpoint) as first:
            kind.use(first)
        kind.end_by_server(first)
        with pool.connection(kind.endpoint) as second:
            kind.use(second)
            assert second is not first
        assert kind.manager.dead == [first]
        assert kind.manager.disposed == [first]
        assert pool.get_stats()['dead'] == 1
        assert pool.get_size() == 1

    def test_serves_many(self, kind: Kind, pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(25):
                    with pool.connection(kind.endpoint) as conn:
                        kind.use(conn)
            except BaseException as exc:
                failures.append(exc)
                raise

        threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not failures
        assert not any(thread.is_alive() for thread in threads)
        assert len(kind.manager.created) <= 2
        assert pool.get_stats()['acquires'] == 200

    def test_can_be_closed_with_a_connection_out(
        self, kind: Kind, pool: gcpool.threading.ConnectionPool[Any, Any]
    ) -> None:
        conn = pool.acquire(kind.endpoint)
        kind.use(conn)
        assert pool.close(timeout=0) == 1
        assert kind.manager.disposed == [conn]
        with pytest.raises((OSError, sqlite3.ProgrammingError, *database_errors())):
            kind.use(conn)

    def test_does_not_show_what_was_left_open_to_the_next_user(self, tmp_path: Path) -> None:
        manager = SqliteConnectionManager(pragmas={'journal_mode': 'wal'})
        with contextlib.closing(gcpool.threading.ConnectionPool[Any, Any](manager)) as pool:
            with pool.connection(tmp_path / 'test.db') as conn:
                conn.execute('CREATE TABLE t (n)')
                conn.execute('INSERT INTO t VALUES (1)')
            with pool.connection(tmp_path / 'test.db') as again:
                assert again is conn
                assert again.execute('SELECT count(*) FROM t').fetchone() == (0,)

    def test_a_failed_connect_costs_nothing(self) -> None:
        pool = gcpool.threading.ConnectionPool[Any, Any](TcpSocketConnectionManager(), max_size=1)
        with closed_port() as port, contextlib.closing(pool):
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError):
                    pool.acquire((LOOPBACK, port), timeout=5.0)
                assert pool.get_size() == 0
            assert pool.get_stats()['create_errors'] == 3

    def test_a_handshake_that_does_not_end_times_out(
        self, client_tls: ssl.SSLContext, silent_listener: socket.socket
    ) -> None:
        manager = SslSocketConnectionManager(client_tls)
        with contextlib.closing(gcpool.threading.ConnectionPool[Any, Any](manager, max_size=1)) as pool:
            with pytest.raises(TimeoutError):
                pool.acquire(('127.0.0.1', silent_listener.getsockname()[1]), timeout=0.05)
            assert pool.get_size() == 0
            with silent_listener.accept()[0] as conn:
                wait_for_end(conn)


def database_errors() -> list[type[Exception]]:
    """The errors of the installed database drivers."""
    try:
        import psycopg2
    except ImportError:
        return []
    return [psycopg2.Error]


@dataclass
class AsyncKind:
    """One kind of connection for asyncio."""

    manager: Any
    endpoint: Any
    use: Callable[[Any], Coroutine[Any, Any, None]]
    end_by_server: Callable[[Any], Coroutine[Any, Any, None]]
    await_all_closed: Callable[[], None] = lambda: None
    knows_its_protocol: bool = False


async def use_async_socket(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b'hello')
    assert await loop.sock_recv(sock, 100) == b'hello'


async def hang_up_async_socket(sock: socket.socket) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, HANG_UP)
    await asyncio.to_thread(wait_readable, sock)


async def use_stream(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    reader, writer = stream
    writer.write(b'hello')
    assert await reader.readexactly(5) == b'hello'


async def hang_up_stream(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    reader, writer = stream
    writer.write(HANG_UP)
    assert await reader.read() == b''


def async_tcp(request: pytest.FixtureRequest) -> AsyncKind:
    server: EchoServer = request.getfixturevalue('tcp4_server')
    return AsyncKind(
        recording(AsyncRecorder, AsyncTcpSocketConnectionManager),
        (LOOPBACK, server.port),
        use_async_socket,
        hang_up_async_socket,
        lambda: server.wait_until_open(0),
    )


def tcp_stream(request: pytest.FixtureRequest) -> AsyncKind:
    server: EchoServer = request.getfixturevalue('tcp4_server')
    return AsyncKind(
        recording(AsyncRecorder, TcpStreamConnectionManager),
        ('127.0.0.1', server.port),
        use_stream,
        hang_up_stream,
        lambda: server.wait_until_open(0),
    )


def tls_stream(request: pytest.FixtureRequest) -> AsyncKind:
    server: EchoServer = request.getfixturevalue('tls_server')
    return AsyncKind(
        recording(AsyncRecorder, TcpStreamConnectionManager, request.getfixturevalue('client_tls')),
        ('localhost', server.port),
        use_stream,
        hang_up_stream,
        lambda: server.wait_until_open(0),
    )


def async_unix(request: pytest.FixtureRequest) -> AsyncKind:
    from gcpool.contrib.unix_async import UnixSocketConnectionManager

    server: EchoServer = request.getfixturevalue('unix_server')
    return AsyncKind(
        recording(AsyncRecorder, UnixSocketConnectionManager),
        Path(server.listener.getsockname()),
        use_async_socket,
        hang_up_async_socket,
        lambda: server.wait_until_open(0),
    )


def unix_stream(request: pytest.FixtureRequest) -> AsyncKind:
    from gcpool.contrib.unix_async import UnixSocketStreamConnectionManager

    server: EchoServer = request.getfixturevalue('unix_server')
    return AsyncKind(
        recording(AsyncRecorder, UnixSocketStreamConnectionManager),
        Path(server.listener.getsockname()),
        use_stream,
        hang_up_stream,
        lambda: server.wait_until_open(0),
    )


def asyncpg(request: pytest.FixtureRequest) -> AsyncKind:
    driver = pytest.importorskip('asyncpg')
    from gcpool.contrib.asyncpg import DbConnectionManager

    params = request.getfixturevalue('postgres').dsn_params

    async def use(conn: Any) -> None:
        assert await conn.fetchval('SELECT 6 * 7') == 42

    async def kill(conn: Any) -> None:
        ended = asyncio.Event()
        conn.add_termination_listener(lambda _conn: ended.set())
        other = await driver.connect(**params)
        await other.fetchval('SELECT pg_terminate_backend($1, 30000)', conn.get_server_pid())
        await other.close()
        await ended.wait()

    return AsyncKind(
        recording(AsyncRecorder, DbConnectionManager, {'db': params}), 'db', use, kill, knows_its_protocol=True
    )


@pytest.fixture(
    params=[
        async_tcp,
        tcp_stream,
        tls_stream,
        pytest.param(async_unix, marks=pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='no Unix sockets')),
        pytest.param(unix_stream, marks=pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='no Unix sockets')),
        pytest.param(asyncpg, marks=pytest.mark.postgres),
    ]
)
def async_kind(request: pytest.FixtureRequest) -> AsyncKind:
    make: Callable[[pytest.FixtureRequest], AsyncKind] = request.param
    return make(request)


@pytest.fixture
def run_with_pool(async_kind: AsyncKind, run: Run) -> Callable[[Callable[[Any], Coroutine[Any, Any, None]]], None]:
    """Runs a coroutine function with a pool of at most two connections; afterwards all are closed."""

    def run_main(main: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        pool = gcpool.asyncio.ConnectionPool[Any, Any](async_kind.manager, max_size=2)

        async def run_and_close() -> None:
            try:
                await main(pool)
            finally:
                await pool.close(timeout=PATIENCE)

        run(run_and_close)
        async_kind.manager.check_books()
        async_kind.await_all_closed()

    return run_main


class TestAsyncio:
    def test_reuses(self, async_kind: AsyncKind, run_with_pool: Callable[[Any], None]) -> None:
        async def main(pool: gcpool.asyncio.ConnectionPool[Any, Any]) -> None:
            async with pool.connection(async_kind.endpoint) as first:
                await async_kind.use(first)
            async with pool.connection(async_kind.endpoint) as second:
                await async_kind.use(second)
            assert first is second
            assert len(async_kind.manager.created) == 1

        run_with_pool(main)

    def test_replaces_what_the_server_has_ended(
        self, async_kind: AsyncKind, run_with_pool: Callable[[Any], None]
    ) -> None:
        async def main(pool: gcpool.asyncio.ConnectionPool[Any, Any]) -> None:
            async with pool.connection(async_kind.endpoint) as first:
                await async_kind.use(first)
            await async_kind.end_by_server(first)
            async with pool.connection(async_kind.endpoint) as second:
                await async_kind.use(second)
                assert second is not first
            assert async_kind.manager.dead == [first]
            assert async_kind.manager.disposed == [first]
            assert pool.get_stats()['dead'] == 1
            assert pool.get_size() == 1

        run_with_pool(main)

    def test_serves_many(self, async_kind: AsyncKind, run_with_pool: Callable[[Any], None]) -> None:
        async def main(pool: gcpool.asyncio.ConnectionPool[Any, Any]) -> None:
            async def work() -> None:
                for _ in range(10):
                    async with pool.connection(async_kind.endpoint) as conn:
                        await async_kind.use(conn)

            await asyncio.gather(*(work() for _ in range(20)))
            assert len(async_kind.manager.created) <= 2
            assert pool.get_stats()['acquires'] == 200

        run_with_pool(main)

    def test_can_be_closed_with_a_connection_out(
        self, async_kind: AsyncKind, run_with_pool: Callable[[Any], None]
    ) -> None:
        async def main(pool: gcpool.asyncio.ConnectionPool[Any, Any]) -> None:
            conn = await pool.acquire(async_kind.endpoint)
            await async_kind.use(conn)
            assert await pool.close(timeout=0) == 1
            assert async_kind.manager.disposed == [conn]
            # asyncpg.InterfaceError, IncompleteReadError and OSError have no common base.
            with pytest.raises(Exception, match=r'.') as caught:
                await async_kind.use(conn)
            assert not isinstance(caught.value, AssertionError)

        run_with_pool(main)

    def test_a_cancelled_user_leaves_what_works(
        self, async_kind: AsyncKind, run_with_pool: Callable[[Any], None]
    ) -> None:
        async def main(pool: gcpool.asyncio.ConnectionPool[Any, Any]) -> None:
            has_it = asyncio.Event()

            async def hold() -> None:
                async with pool.connection(async_kind.endpoint) as conn:
                    await async_kind.use(conn)
                    has_it.set()
                    await asyncio.Event().wait()

            holder = asyncio.ensure_future(hold())
            await has_it.wait()
            holder.cancel()
            await asyncio.wait((holder,))
            assert holder.cancelled()
            async with pool.connection(async_kind.endpoint) as conn:
                await async_kind.use(conn)
            # For a plain socket it is unknown whether an answer is still to come.
            assert len(async_kind.manager.created) == (1 if async_kind.knows_its_protocol else 2)

        run_with_pool(main)

    def test_a_handshake_that_does_not_end_times_out(
        self, run: Run, client_tls: ssl.SSLContext, silent_listener: socket.socket
    ) -> None:
        async def main() -> None:
            pool = gcpool.asyncio.ConnectionPool[Any, Any](TcpStreamConnectionManager(client_tls), max_size=1)
            with pytest.raises(asyncio.TimeoutError):
                await pool.acquire(('127.0.0.1', silent_listener.getsockname()[1]), timeout=0.05)
            assert pool.get_size() == 0
            conn, _ = await asyncio.to_thread(silent_listener.accept)
            with conn:
                await asyncio.to_thread(wait_for_end, conn)
            await pool.close()

        run(main)
