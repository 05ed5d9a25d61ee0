"""How the managers end a connection that another thread may be using."""

import socket
import ssl

import pytest

from gcpool.contrib._sockets import shut_down
from tests.contrib.servers import PATIENCE, EchoServer, wait_for_end


def test_wakes_who_reads_and_fails_who_writes() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        ours.settimeout(PATIENCE)
        assert shut_down(ours)
        assert ours.recv(1) == b''
        with pytest.raises(BrokenPipeError):
            ours.sendall(b'anything')
        assert wait_for_end(peer) == 0


def test_of_a_socket_that_is_closed() -> None:
    ours, peer = socket.socketpair()
    ours.close()
    peer.close()
    assert not shut_down(ours)


def test_leaves_its_encryption_to_who_is_using_it(tls_server: EchoServer, client_tls: ssl.SSLContext) -> None:
    plain = socket.create_connection(('127.0.0.1', tls_server.port), PATIENCE)
    with client_tls.wrap_socket(plain, server_hostname='localhost') as sock:
        assert shut_down(sock)
        # Without this, what another thread sends meanwhile goes out in plaintext.
        assert sock.version() is not None
        with pytest.raises((ConnectionError, ssl.SSLError)):
            sock.sendall(b'a secret')
