"""The managers of Unix domain sockets, alone, against real servers."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contrib.conftest import Run, unix_listener
from tests.contrib.servers import (
    HANG_UP,
    PATIENCE,
    RESET,
    EchoServer,
    full_listener,
    linux_only,
    wait_for_end,
    wait_readable,
)

if not hasattr(socket, 'AF_UNIX'):
    pytest.skip('Python has no Unix domain sockets here', allow_module_level=True)

from gcpool.contrib import unix, unix_async


def path_of(server: EchoServer) -> Path:
    return Path(server.listener.getsockname())


class TestThreads:
    @pytest.mark.parametrize('timeout', [None, 0, 5.0])
    def test_connects(self, unix_server: EchoServer, timeout: float | None) -> None:
        manager = unix.UnixSocketConnectionManager()
        sock = manager.create(path_of(unix_server), timeout)
        assert sock.gettimeout() == socket.getdefaulttimeout()
        sock.sendall(b'hello')
        wait_readable(sock)
        assert manager.check_aliveness(path_of(unix_server), sock)
        assert sock.recv(100) == b'hello'
        manager.dispose(path_of(unix_server), sock)
        assert not manager.check_aliveness(path_of(unix_server), sock)
        unix_server.wait_until_open(0)

    @pytest.mark.parametrize('order', [HANG_UP, RESET])
    def test_aliveness_of_what_the_peer_has_closed(self, unix_server: EchoServer, order: bytes) -> None:
        manager = unix.UnixSocketConnectionManager()
        sock = manager.create(path_of(unix_server))
        sock.sendall(order)
        wait_readable(sock)
        assert not manager.check_aliveness(path_of(unix_server), sock)
        manager.dispose(path_of(unix_server), sock)
        assert sock.fileno() == -1

    def test_failed_leaves_nothing_open(self, socket_directory: Path, open_descriptors: Callable[[], int]) -> None:
        before = open_descriptors()
        with pytest.raises(FileNotFoundError):
            unix.UnixSocketConnectionManager().create(socket_directory / 'none.sock', 5.0)
        assert open_descriptors() == before

    def test_says_what_an_endpoint_is(self) -> None:
        with pytest.raises(TypeError, match=r'os\.PathLike'):
            unix.UnixSocketConnectionManager().create(7)  # type: ignore[arg-type]

    @linux_only
    @pytest.mark.parametrize('timeout', [0, 0.05])
    def test_full_backlog_times_out(
        self, socket_directory: Path, open_descriptors: Callable[[], int], timeout: float
    ) -> None:
        path = socket_directory / 'full.sock'
        with full_listener(socket.AF_UNIX, str(path)):
            before = open_descriptors()
            with pytest.raises(TimeoutError, match='backlog'):
                unix.UnixSocketConnectionManager().create(path, timeout)
            assert open_descriptors() == before

    @linux_only
    def test_waits_for_room_in_the_backlog(self, socket_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = socket_directory / 'full.sock'
        refused = threading.Event()
        room = threading.Event()

        def wait(seconds: float) -> None:
            refused.set()
            assert room.wait(PATIENCE)

        monkeypatch.setattr(time, 'sleep', wait)
        created: list[socket.socket] = []
        with full_listener(socket.AF_UNIX, str(path)) as listener:
            manager = unix.UnixSocketConnectionManager()
            creator = threading.Thread(target=lambda: created.append(manager.create(path, PATIENCE)), daemon=True)
            creator.start()
            assert refused.wait(PATIENCE)
            listener.accept()[0].close()
            room.set()
            creator.join(PATIENCE)
            (sock,) = created
            assert sock.getpeername() == str(path)
            manager.dispose(path, sock)


class TestAsyncioSocket:
    def test_connects(self, run: Run, unix_server: EchoServer) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            manager = unix_async.UnixSocketConnectionManager()
            sock = await manager.create(path_of(unix_server))
            await loop.sock_sendall(sock, b'hello')
            wait_readable(sock)
            assert await manager.check_aliveness(path_of(unix_server), sock)
            assert await loop.sock_recv(sock, 100) == b'hello'
            await manager.dispose(path_of(unix_server), sock)
            assert not await manager.check_aliveness(path_of(unix_server), sock)

        run(main)
        unix_server.wait_until_open(0)

    def test_aliveness_of_what_the_peer_has_closed(self, run: Run, unix_server: EchoServer) -> None:
        async def main() -> None:
            manager = unix_async.UnixSocketConnectionManager()
            sock = await manager.create(path_of(unix_server))
            await asyncio.get_running_loop().sock_sendall(sock, HANG_UP)
            wait_readable(sock)
            assert not await manager.check_aliveness(path_of(unix_server), sock)
            await manager.dispose(path_of(unix_server), sock)

        run(main)

    @linux_only
    def test_cancelled_leaves_nothing_open(
        self, run: Run, socket_directory: Path, open_descriptors: Callable[[], int]
    ) -> None:
        path = socket_directory / 'full.sock'

        async def main() -> None:
            before = open_descriptors()
            task = asyncio.ensure_future(unix_async.UnixSocketConnectionManager().create(path))
            await asyncio.sleep(0)
            assert open_descriptors() == before + 1
            task.cancel()
            await asyncio.wait((task,))
            assert task.cancelled()
            assert open_descriptors() == before

        with full_listener(socket.AF_UNIX, str(path)):
            run(main)


class TestAsyncioStream:
    def test_connects(self, run: Run, unix_server: EchoServer) -> None:
        async def main() -> None:
            manager = unix_async.UnixSocketStreamConnectionManager()
            stream = reader, writer = await manager.create(path_of(unix_server))
            writer.write(b'hello')
            assert await reader.readexactly(5) == b'hello'
            assert await manager.check_aliveness(path_of(unix_server), stream)
            await manager.dispose(path_of(unix_server), stream)
            assert not await manager.check_aliveness(path_of(unix_server), stream)

        run(main)
        unix_server.wait_until_open(0)

    def test_aliveness_of_what_the_peer_has_closed(self, run: Run, unix_server: EchoServer) -> None:
        async def main() -> None:
            manager = unix_async.UnixSocketStreamConnectionManager()
            stream = reader, writer = await manager.create(path_of(unix_server))
            writer.write(HANG_UP)
            assert await reader.read() == b''
            assert not await manager.check_aliveness(path_of(unix_server), stream)
            await manager.dispose(path_of(unix_server), stream)

        run(main)

    def test_aborts_if_the_peer_takes_nothing(self, run: Run, socket_directory: Path) -> None:
        path = socket_directory / 'silent.sock'

        async def main(listener: socket.socket) -> None:
            manager = unix_async.UnixSocketStreamConnectionManager(close_timeout=0.05)
            stream = await manager.create(path)
            with listener.accept()[0] as conn:
                stream[1].write(bytes(20_000_000))
                await manager.dispose(path, stream)
                await asyncio.to_thread(wait_for_end, conn)

        with unix_listener(path) as listener:
            run(lambda: main(listener))


@pytest.mark.parametrize(
    ('make', 'peer_of'),
    [
        (unix_async.UnixSocketConnectionManager, lambda sock: sock.getpeername()),
        (unix_async.UnixSocketStreamConnectionManager, lambda stream: stream[1].get_extra_info('peername')),
    ],
    ids=['socket', 'stream'],
)
class TestAsyncioBoth:
    def test_failed_leaves_nothing_open(
        self,
        run: Run,
        socket_directory: Path,
        open_descriptors: Callable[[], int],
        make: Callable[[], Any],
        peer_of: Callable[[Any], str],
    ) -> None:
        async def main() -> None:
            before = open_descriptors()
            with pytest.raises(FileNotFoundError):
                await make().create(socket_directory / 'none.sock')
            assert open_descriptors() == before

        run(main)

    @linux_only
    def test_waits_for_room_in_the_backlog(
        self, run: Run, socket_directory: Path, make: Callable[[], Any], peer_of: Callable[[Any], str]
    ) -> None:
        path = socket_directory / 'full.sock'

        async def main(listener: socket.socket) -> None:
            manager = make()
            task = asyncio.ensure_future(manager.create(path))
            await asyncio.sleep(0)
            assert not task.done()
            listener.accept()[0].close()
            conn = await task
            assert peer_of(conn) == str(path)
            await manager.dispose(path, conn)

        with full_listener(socket.AF_UNIX, str(path)) as listener:
            run(lambda: main(listener))
