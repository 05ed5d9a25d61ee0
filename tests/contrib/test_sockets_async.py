"""The managers of TCP sockets and of TCP and TLS streams for asyncio, alone, against real servers."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address

import pytest

from gcpool.contrib import socket_async
from gcpool.contrib.socket_async import (
    Stream,
    TcpEndpoint,
    TcpSocketConnectionManager,
    TcpStreamConnectionManager,
    TcpStreamEndpoint,
)
from tests.contrib.cancelling import cancel
from tests.contrib.conftest import Run
from tests.contrib.servers import (
    CLOSE_NOTIFY,
    HANG_UP,
    LAST_WORDS,
    RESET,
    STALL,
    EchoServer,
    closed_port,
    full_listener,
    linux_only,
    needs_pollrdhup,
    wait_for_end,
    wait_readable,
)

LOOPBACK = IPv4Address('127.0.0.1')


def endpoint_of(server: EchoServer) -> TcpEndpoint:
    host, port = server.listener.getsockname()[:2]
    return ip_address(host), port


class TestTcpSocket:
    def test_connects(self, run: Run, tcp_server: EchoServer) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            manager = TcpSocketConnectionManager()
            endpoint = endpoint_of(tcp_server)
            sock = await manager.create(endpoint)
            assert sock.getpeername()[:2] == (str(endpoint[0]), endpoint[1])
            assert sock.gettimeout() == 0
            await loop.sock_sendall(sock, b'hello')
            assert await loop.sock_recv(sock, 100) == b'hello'
            await manager.dispose(endpoint, sock)
            assert sock.fileno() == -1

        run(main)
        tcp_server.wait_until_open(0)

    def test_refused_leaves_nothing_open(self, run: Run, open_descriptors: Callable[[], int]) -> None:
        async def main() -> None:
            with closed_port() as port:
                before = open_descriptors()
                with pytest.raises(ConnectionRefusedError):
                    await TcpSocketConnectionManager().create((LOOPBACK, port))
                assert open_descriptors() == before

        run(main)

    @linux_only
    def test_cancelled_leaves_nothing_open(self, run: Run, open_descriptors: Callable[[], int]) -> None:
        async def main(port: int) -> None:
            before = open_descriptors()
            task = asyncio.ensure_future(TcpSocketConnectionManager().create((LOOPBACK, port)))
            await asyncio.sleep(0)
            assert open_descriptors() == before + 1
            await cancel(task)
            assert open_descriptors() == before

        with full_listener(socket.AF_INET, ('127.0.0.1', 0)) as listener:
            run(lambda: main(listener.getsockname()[1]))

    def test_says_what_an_endpoint_is(self, run: Run) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match=r'IPv4Address or IPv6Address, port\), .*, got '):
                await TcpSocketConnectionManager().create(('127.0.0.1', 80))  # type: ignore[arg-type]

        run(main)

    def test_aliveness(self, run: Run, tcp4_server: EchoServer) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            manager = TcpSocketConnectionManager()
            endpoint = endpoint_of(tcp4_server)
            sock = await manager.create(endpoint)
            assert await manager.check_aliveness(endpoint, sock)
            await loop.sock_sendall(sock, b'unread')
            wait_readable(sock)
            assert await manager.check_aliveness(endpoint, sock)
            assert await loop.sock_recv(sock, 100) == b'unread'
            await manager.dispose(endpoint, sock)
            assert not await manager.check_aliveness(endpoint, sock)

        run(main)

    @pytest.mark.parametrize('order', [HANG_UP, RESET])
    def test_aliveness_of_what_the_peer_has_closed(self, run: Run, tcp4_server: EchoServer, order: bytes) -> None:
        async def main() -> None:
            manager = TcpSocketConnectionManager()
            endpoint = endpoint_of(tcp4_server)
            sock = await manager.create(endpoint)
            await asyncio.get_running_loop().sock_sendall(sock, order)
            wait_readable(sock)
            assert not await manager.check_aliveness(endpoint, sock)
            await manager.dispose(endpoint, sock)
            assert sock.fileno() == -1

        run(main)

    def test_dispose_wakes_who_waits(self, run: Run, tcp4_server: EchoServer) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            manager = TcpSocketConnectionManager()
            endpoint = endpoint_of(tcp4_server)
            sock = await manager.create(endpoint)
            waiter = asyncio.ensure_future(loop.sock_recv(sock, 1))
            await asyncio.sleep(0)
            await manager.dispose(endpoint, sock)
            assert await waiter == b''

        run(main)

    def test_cancelled_dispose_closes(self, run: Run, tcp4_server: EchoServer) -> None:
        async def main() -> None:
            manager = TcpSocketConnectionManager()
            endpoint = endpoint_of(tcp4_server)
            sock = await manager.create(endpoint)
            task = asyncio.ensure_future(manager.dispose(endpoint, sock))
            await asyncio.sleep(0)
            await cancel(task)
            assert sock.fileno() == -1

        run(main)


@pytest.fixture(params=['TCP', 'TLS'])
def stream_server(request: pytest.FixtureRequest, tcp4_server: EchoServer, tls_server: EchoServer) -> EchoServer:
    """A plain server and a TLS server."""
    return tls_server if request.param == 'TLS' else tcp4_server


@pytest.fixture
def stream_manager(stream_server: EchoServer, client_tls: ssl.SSLContext) -> TcpStreamConnectionManager:
    """A manager for :py:func:`stream_server`."""
    return TcpStreamConnectionManager(client_tls if stream_server.tls else None)


async def echo(stream: Stream, message: bytes) -> bytes:
    reader, writer = stream
    writer.write(message)
    await writer.drain()
    return await reader.readexactly(len(message))


async def seen_end(stream: Stream) -> None:
    """Let the event loop see that the peer has closed or reset the connection."""
    with contextlib.suppress(ConnectionError):
        await stream[0].read()


def in_kernel(stream: Stream) -> None:
    """Wait until something has arrived that the event loop has not seen yet."""
    wait_readable(stream[1].get_extra_info('socket').fileno())


class TestStream:
    def test_connects(self, run: Run, stream_manager: TcpStreamConnectionManager, stream_server: EchoServer) -> None:
        async def main() -> None:
            endpoint = ('localhost', stream_server.port)
            stream = await stream_manager.create(endpoint)
            assert bool(stream[1].get_extra_info('peercert')) is bool(stream_server.tls)
            assert await echo(stream, b'hello') == b'hello'
            await stream_manager.dispose(endpoint, stream)

        run(main)
        stream_server.wait_until_open(0)

    def test_refused_leaves_nothing_open(self, run: Run, open_descriptors: Callable[[], int]) -> None:
        async def attempt() -> None:
            with closed_port() as port, pytest.raises(ConnectionRefusedError):
                await TcpStreamConnectionManager().create(('127.0.0.1', port))
            # A transport is closed in the loop's next turn.
            await asyncio.sleep(0)

        async def main() -> None:
            # What the loop opens for itself at its first connection stays open.
            await attempt()
            before = open_descriptors()
            await attempt()
            assert open_descriptors() == before

        run(main)

    def test_cancelled_in_the_handshake_closes(
        self, run: Run, client_tls: ssl.SSLContext, silent_listener: socket.socket
    ) -> None:
        async def main() -> None:
            endpoint = ('127.0.0.1', silent_listener.getsockname()[1])
            task = asyncio.ensure_future(TcpStreamConnectionManager(client_tls).create(endpoint))
            conn, _ = await asyncio.to_thread(silent_listener.accept)
            with conn:
                await asyncio.to_thread(wait_readable, conn)
                await cancel(task)
                await asyncio.to_thread(wait_for_end, conn)

        run(main)

    def test_closes_when_the_certificate_is_of_another_host(
        self, run: Run, client_tls: ssl.SSLContext, tls_server: EchoServer
    ) -> None:
        async def main() -> None:
            with pytest.raises(ssl.SSLCertVerificationError):
                await TcpStreamConnectionManager(client_tls).create(('127.0.0.1', tls_server.port))
            await asyncio.to_thread(tls_server.wait_until_open, 0)

        run(main)

    def test_default_tls_settings_trust_nobody_special(self, run: Run, tls_server: EchoServer) -> None:
        async def main() -> None:
            with pytest.raises(ssl.SSLCertVerificationError):
                await TcpStreamConnectionManager(ssl=True).create(('localhost', tls_server.port))
            await asyncio.to_thread(tls_server.wait_until_open, 0)

        run(main)

    def test_false_means_no_tls(self, run: Run, tcp4_server: EchoServer) -> None:
        async def main() -> None:
            endpoint = ('localhost', tcp4_server.port)
            manager = TcpStreamConnectionManager(ssl=False)
            stream = await manager.create(endpoint)
            assert await echo(stream, b'hello') == b'hello'
            await manager.dispose(endpoint, stream)

        run(main)

    @pytest.mark.parametrize('endpoint', [(LOOPBACK, 80), 'localhost', ('localhost',), None])
    def test_says_what_an_endpoint_is(self, run: Run, endpoint: TcpStreamEndpoint) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match=r'expected an endpoint \(host name, port\), .*, got '):
                await TcpStreamConnectionManager().create(endpoint)

        run(main)

    def test_says_what_it_needs(self) -> None:
        with pytest.raises(TypeError, match=r"ssl must be an ssl\.SSLContext, a bool or None, not 'yes'"):
            TcpStreamConnectionManager('yes')  # type: ignore[arg-type]


class TestStreamAliveness:
    def test_of_an_idle_one(
        self, run: Run, stream_manager: TcpStreamConnectionManager, stream_server: EchoServer
    ) -> None:
        async def main() -> None:
            endpoint = ('localhost', stream_server.port)
            stream = await stream_manager.create(endpoint)
            assert await stream_manager.check_aliveness(endpoint, stream)
            assert await echo(stream, b'hello') == b'hello'
            assert await stream_manager.check_aliveness(endpoint, stream)
            await stream_manager.dispose(endpoint, stream)
            assert not await stream_manager.check_aliveness(endpoint, stream)

        run(main)

    def test_of_one_with_unread_data(
        self, run: Run, stream_manager: TcpStreamConnectionManager, stream_server: EchoServer
    ) -> None:
        async def main() -> None:
            endpoint = ('localhost', stream_server.port)
            stream = await stream_manager.create(endpoint)
            assert await echo(stream, b'hello') == b'hello'
            stream[1].write(b'unread')
            in_kernel(stream)
            assert await stream_manager.check_aliveness(endpoint, stream)
            assert await stream[0].readexactly(6) == b'unread'
            await stream_manager.dispose(endpoint, stream)

        run(main)

    @pytest.mark.parametrize('order', [HANG_UP, RESET])
    @pytest.mark.parametrize('kernel_tells', [True, False])
    def test_of_what_the_peer_has_closed(
        self,
        run: Run,
        stream_manager: TcpStreamConnectionManager,
        stream_server: EchoServer,
        order: bytes,
        kernel_tells: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if not kernel_tells:
            monkeypatch.setattr(socket_async, 'peer_hung_up', lambda fd: False)

        async def main() -> None:
            endpoint = ('localhost', stream_server.port)
            stream = await stream_manager.create(endpoint)
            stream[1].write(order)
            await seen_end(stream)
            assert not await stream_manager.check_aliveness(endpoint, stream)
            await stream_manager.dispose(endpoint, stream)

        run(main)

    @needs_pollrdhup
    @pytest.mark.parametrize('order', [HANG_UP, RESET, LAST_WORDS])
    def test_of_what_the_peer_has_closed_before_the_loop_has_seen_it(
        self, run: Run, stream_manager: TcpStreamConnectionManager, stream_server: EchoServer, order: bytes
    ) -> None:
        async def main() -> None:
            endpoint = ('localhost', stream_server.port)
            stream = await stream_manager.create(endpoint)
            assert await echo(stream, b'hello') == b'hello'
            # Both of these block the event loop.
            stream[1].write(order)
            stream_server.wait_until_open(0)
            in_kernel(stream)
            assert not await stream_manager.check_aliveness(endpoint, stream)
            await stream_manager.dispose(endpoint, stream)

        run(main)

    def test_of_what_the_peer_has_said_close_notify_on(
        self, run: Run, client_tls: ssl.SSLContext, tls_server: EchoServer
    ) -> None:
        async def main() -> None:
            endpoint = ('localhost', tls_server.port)
            manager = TcpStreamConnectionManager(client_tls)
            stream = await manager.create(endpoint)
            stream[1].write(CLOSE_NOTIFY)
            await seen_end(stream)
            assert not await manager.check_aliveness(endpoint, stream)
            await manager.dispose(endpoint, stream)

        run(main)


class TestStreamDispose:
    def test_sends_what_is_still_to_be_sent(self, run: Run, silent_listener: socket.socket) -> None:
        message = bytes(20_000_000)

        def receive(conn: socket.socket) -> int:
            with conn:
                return sum(map(len, iter(lambda: conn.recv(1_000_000), b'')))

        async def main() -> None:
            endpoint = ('127.0.0.1', silent_listener.getsockname()[1])
            manager = TcpStreamConnectionManager(close_timeout=20.0)
            stream = await manager.create(endpoint)
            conn, _ = await asyncio.to_thread(silent_listener.accept)
            stream[1].write(message)
            assert stream[1].transport.get_write_buffer_size() > 0
            receiver = asyncio.ensure_future(asyncio.to_thread(receive, conn))
            await manager.dispose(endpoint, stream)
            assert await receiver == len(message)

        run(main)

    def test_aborts_if_the_peer_takes_nothing(self, run: Run, silent_listener: socket.socket) -> None:
        async def main() -> None:
            endpoint = ('127.0.0.1', silent_listener.getsockname()[1])
            manager = TcpStreamConnectionManager(close_timeout=0.05)
            stream = await manager.create(endpoint)
            conn, _ = await asyncio.to_thread(silent_listener.accept)
            with conn:
                stream[1].write(bytes(20_000_000))
                await manager.dispose(endpoint, stream)
                assert await asyncio.to_thread(wait_for_end, conn) < 20_000_000

        run(main)

    def test_aborts_if_the_peer_does_not_answer_close_notify(
        self, run: Run, client_tls: ssl.SSLContext, tls_server: EchoServer
    ) -> None:
        async def main() -> None:
            endpoint = ('localhost', tls_server.port)
            manager = TcpStreamConnectionManager(client_tls, close_timeout=0.05)
            stream = await manager.create(endpoint)
            assert await echo(stream, b'hello') == b'hello'
            stream[1].write(STALL)
            await manager.dispose(endpoint, stream)
            await asyncio.to_thread(tls_server.wait_until_open, 0)

        run(main)

    def test_aborts_when_cancelled(self, run: Run, silent_listener: socket.socket) -> None:
        async def main() -> None:
            endpoint = ('127.0.0.1', silent_listener.getsockname()[1])
            manager = TcpStreamConnectionManager(close_timeout=3600.0)
            stream = await manager.create(endpoint)
            conn, _ = await asyncio.to_thread(silent_listener.accept)
            with conn:
                stream[1].write(bytes(20_000_000))
                task = asyncio.ensure_future(manager.dispose(endpoint, stream))
                await asyncio.sleep(0)
                await cancel(task)
                assert await asyncio.to_thread(wait_for_end, conn) < 20_000_000

        run(main)

    @pytest.mark.parametrize('order', [HANG_UP, RESET])
    @pytest.mark.parametrize('seen', [True, False])
    def test_of_what_the_peer_has_closed(
        self, run: Run, stream_manager: TcpStreamConnectionManager, stream_server: EchoServer, order: bytes, seen: bool
    ) -> None:
        async def main() -> None:
            endpoint = ('localhost', stream_server.port)
            stream = await stream_manager.create(endpoint)
            assert await echo(stream, b'hello') == b'hello'
            stream[1].write(order)
            if seen:
                await seen_end(stream)
            else:
                stream_server.wait_until_open(0)
            await stream_manager.dispose(endpoint, stream)
            assert stream[1].is_closing()

        run(main)

    def test_of_what_the_user_has_closed(
        self, run: Run, stream_manager: TcpStreamConnectionManager, stream_server: EchoServer
    ) -> None:
        async def main() -> None:
            endpoint = ('localhost', stream_server.port)
            stream = await stream_manager.create(endpoint)
            stream[1].close()
            await stream_manager.dispose(endpoint, stream)
            await asyncio.to_thread(stream_server.wait_until_open, 0)

        run(main)
