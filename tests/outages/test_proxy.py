"""The proxy does what the tests of outages say it does."""

import errno
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.contrib.servers import PATIENCE, EchoServer, closed_port, tcp_listener
from tests.outages.proxy import CAN_DROP, Proxy

pytestmark = pytest.mark.outage

# Seconds in which nothing is to come; a longer wait would not prove more.
QUIET = 0.1


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with EchoServer(tcp_listener()) as server, Proxy('127.0.0.1', server.port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), PATIENCE)


def is_silent(client: socket.socket) -> bool:
    client.settimeout(QUIET)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE)
    return False


def ask(client: socket.socket, question: bytes) -> bytes:
    client.sendall(question)
    return client.recv(100)


def test_passes(proxy: Proxy) -> None:
    with connect(proxy) as one, connect(proxy) as two:
        assert ask(one, b'one') == b'one'
        assert ask(two, b'two') == b'two'
        assert proxy.open == 2
        one.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b''
    assert proxy.accepted == 2


def test_passes_what_does_not_fit(proxy: Proxy) -> None:
    message = bytes(range(256)) * 40_000
    with connect(proxy) as client:
        sender = threading.Thread(target=client.sendall, args=(message,))
        sender.start()
        received = bytearray()
        while len(received) < len(message):
            received += client.recv(1 << 20)
        sender.join(PATIENCE)
    assert received == message


def test_holds_what_goes_on_later(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b'before') == b'before'
        proxy.holds()
        client.sendall(b'during')
        assert is_silent(client)
        # Nobody answers this one, but it is connected.
        with connect(proxy) as new:
            new.sendall(b'new')
            assert is_silent(new)
            proxy.passes()
            assert client.recv(100) == b'during'
            assert new.recv(100) == b'new'


@pytest.mark.skipif(not CAN_DROP, reason='only Linux lets a program drop the packets of a socket')
def test_drops_without_an_acknowledgement(proxy: Proxy) -> None:
    with connect(proxy) as client, connect(proxy) as other:
        assert ask(client, b'before') == b'before'
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
        proxy.drops()
        client.sendall(b'lost')
        other.sendall(b'sent again')
        with pytest.raises(TimeoutError) as raised:
            client.recv(1)
        assert raised.value.errno == errno.ETIMEDOUT, 'it was acknowledged'
        with pytest.raises(TimeoutError):
            socket.create_connection((proxy.host, proxy.port), QUIET)
        proxy.passes()
        assert other.recv(100) == b'sent again'
        with connect(proxy) as new:
            assert ask(new, b'after') == b'after'


def test_resets(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert ask(client, b'before') == b'before'
        proxy.resets()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    # It may already be told while it connects.
    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(1)
    proxy.passes()
    with connect(proxy) as client:
        assert ask(client, b'after') == b'after'


def test_delays_each_chunk_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.delays(QUIET)
        began = time.monotonic()
        assert ask(client, b'slow') == b'slow'
        assert time.monotonic() - began >= 2 * QUIET
        proxy.delays(3600)
        client.sendall(b'at last')
        assert is_silent(client)
        proxy.passes()
        assert client.recv(100) == b'at last'


def test_half_opens() -> None:
    with EchoServer(tcp_listener()) as server, Proxy('127.0.0.1', server.port) as proxy:
        with connect(proxy) as client:
            assert ask(client, b'before') == b'before'
            proxy.half_opens()
            server.wait_until_open(0)
            assert is_silent(client)
            client.sendall(b'is somebody there?')
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with connect(proxy) as client:
            assert ask(client, b'after') == b'after'


def test_half_opens_and_resets_who_waits_for_an_answer() -> None:
    with tcp_listener() as listener, Proxy(*listener.getsockname()) as proxy, connect(proxy) as client:
        client.sendall(b'a question')
        server, _ = listener.accept()
        with server:
            assert server.recv(100) == b'a question'
            proxy.half_opens()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


def test_resets_those_who_come_while_the_server_is_down() -> None:
    with (
        closed_port() as port,
        Proxy('127.0.0.1', port) as proxy,
        pytest.raises(ConnectionResetError),
        connect(proxy) as client,
    ):
        client.recv(1)
