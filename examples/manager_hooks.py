"""Hooks: a manager learns what happens to its connections, and turns that into
figures for monitoring.

Starts its own echo server: python examples/manager_hooks.py
"""

import select
import socket
import socketserver
import threading
import time
from collections import Counter
from contextlib import closing
from ipaddress import IPv4Address

from gcpool.contrib.socket import TcpEndpoint, TcpSocketConnectionManager
from gcpool.threading import ConnectionPool


class ObservedConnectionManager(TcpSocketConnectionManager):
    """Counts what happens to the connections, and measures how long they are
    in use.
    """

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.seconds_in_use = 0.0
        self._acquired_at: dict[socket.socket, float] = {}
        # The pool calls the hooks from any thread, while it holds no lock.
        self._lock = threading.Lock()

    def create(
        self, endpoint: TcpEndpoint, timeout: float | None = None
    ) -> socket.socket:
        """Count a new connection."""
        conn = super().create(endpoint, timeout)
        with self._lock:
            self.events['created'] += 1
        return conn

    def dispose(
        self,
        endpoint: TcpEndpoint,
        conn: socket.socket,
        timeout: float | None = None,
    ) -> None:
        """Count a closed connection."""
        with self._lock:
            self.events['disposed'] += 1
        super().dispose(endpoint, conn, timeout)

    def on_acquire(self, endpoint: TcpEndpoint, conn: socket.socket) -> None:
        """Start the clock."""
        with self._lock:
            self.events['acquired'] += 1
            self._acquired_at[conn] = time.monotonic()

    def on_release(self, endpoint: TcpEndpoint, conn: socket.socket) -> None:
        """Stop the clock."""
        with self._lock:
            self.events['released'] += 1
            self.seconds_in_use += time.monotonic() - self._acquired_at.pop(
                conn
            )

    def on_connection_dead(
        self, endpoint: TcpEndpoint, conn: socket.socket
    ) -> None:
        """Count a connection that was lost while idle."""
        with self._lock:
            self.events['found dead'] += 1


class EchoHandler(socketserver.BaseRequestHandler):
    """Sends back what a client sends, but hangs up when told to quit."""

    def handle(self) -> None:
        """Serve one connection."""
        while (data := self.request.recv(1024)) and data != b'quit':
            self.request.sendall(data)


def main() -> None:
    manager = ObservedConnectionManager()
    pool = ConnectionPool(manager, acquire_timeout=5.0)
    with (
        socketserver.ThreadingTCPServer(
            ('127.0.0.1', 0), EchoHandler
        ) as server,
        closing(pool),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = (IPv4Address('127.0.0.1'), server.server_address[1])

        for message in (b'hello', b'quit', b'hello again'):
            with pool.connection(endpoint) as sock:
                sock.sendall(message)
                # Wait for the answer, or for the server to hang up.
                select.select([sock], [], [], 5.0)
                if message != b'quit':
                    sock.recv(1024)
        server.shutdown()

    for event, count in sorted(manager.events.items()):
        print(f'{event}: {count}')
    print('in use for some time:', manager.seconds_in_use > 0)


if __name__ == '__main__':
    main()
