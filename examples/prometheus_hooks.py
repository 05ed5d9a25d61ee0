"""Metrics for Prometheus: a manager's hooks count per endpoint, and a collector
has the pool's own counts.

Starts its own echo server: pip install "gcpool[prometheus]", then
python examples/prometheus_hooks.py
"""

import select
import socket
import socketserver
import threading
from contextlib import closing
from ipaddress import IPv4Address

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from gcpool.contrib.prometheus import PoolCollector
from gcpool.contrib.socket import TcpEndpoint, TcpSocketConnectionManager
from gcpool.threading import ConnectionPool


class MeasuredConnectionManager(TcpSocketConnectionManager):
    """Counts connections per endpoint. The pool calls a manager from any
    thread; the metrics are thread-safe.

    :param registry: the registry for the metrics
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connect_seconds = Histogram(
            'gcpool_connect_seconds',
            'Time to connect',
            ['endpoint'],
            registry=registry,
        )
        self.created = Counter(
            'gcpool_created',
            'Connections created',
            ['endpoint'],
            registry=registry,
        )
        self.disposed = Counter(
            'gcpool_disposed',
            'Connections closed',
            ['endpoint'],
            registry=registry,
        )
        self.dead = Counter(
            'gcpool_dead',
            'Connections found dead',
            ['endpoint'],
            registry=registry,
        )
        self.in_use = Gauge(
            'gcpool_in_use',
            'Connections in use',
            ['endpoint'],
            registry=registry,
        )
        self._used: set[socket.socket] = set()

    def create(
        self, endpoint: TcpEndpoint, timeout: float | None = None
    ) -> socket.socket:
        """Count a new connection, and record how long connecting took."""
        with self.connect_seconds.labels(label(endpoint)).time():
            conn = super().create(endpoint, timeout)
        self.created.labels(label(endpoint)).inc()
        return conn

    def dispose(
        self,
        endpoint: TcpEndpoint,
        conn: socket.socket,
        timeout: float | None = None,
    ) -> None:
        """Count a closed connection."""
        self.disposed.labels(label(endpoint)).inc()
        # A broken connection, or one still in use when its pool is closed, is
        # closed without on_release.
        self._no_longer_used(endpoint, conn)
        super().dispose(endpoint, conn, timeout)

    def on_acquire(self, endpoint: TcpEndpoint, conn: socket.socket) -> None:
        """Count a connection as in use."""
        self._used.add(conn)
        self.in_use.labels(label(endpoint)).inc()

    def on_release(self, endpoint: TcpEndpoint, conn: socket.socket) -> None:
        """Count a connection as no longer in use."""
        self._no_longer_used(endpoint, conn)

    def on_connection_dead(
        self, endpoint: TcpEndpoint, conn: socket.socket
    ) -> None:
        """Count a connection that was lost while idle, or broke while in
        use.
        """
        self.dead.labels(label(endpoint)).inc()

    def _no_longer_used(
        self, endpoint: TcpEndpoint, conn: socket.socket
    ) -> None:
        try:
            self._used.remove(conn)
        except KeyError:
            return
        self.in_use.labels(label(endpoint)).dec()


def label(endpoint: TcpEndpoint) -> str:
    """Return the label of an endpoint."""
    host, port = endpoint
    return f'{host}:{port}'


class EchoHandler(socketserver.BaseRequestHandler):
    """Sends back what a client sends, but hangs up when told to quit."""

    def handle(self) -> None:
        """Serve one connection."""
        while (data := self.request.recv(1024)) and data != b'quit':
            self.request.sendall(data)


def main() -> None:
    registry = CollectorRegistry()
    pool = ConnectionPool(
        MeasuredConnectionManager(registry), name='echo', acquire_timeout=5.0
    )
    PoolCollector(pool, registry=registry)
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

        with pool.connection(endpoint):
            # A service would call prometheus_client.start_http_server(9000,
            # registry=registry) once.
            page = generate_latest(registry).decode()
        server.shutdown()

    for line in page.splitlines():
        if (
            not line.startswith('#')
            and '_created{' not in line
            and '_bucket{' not in line
            and '_sum{' not in line
        ):
            print(line.replace(label(endpoint), 'HOST:PORT'))
    print(
        'in use after the end:',
        registry.get_sample_value(
            'gcpool_in_use', {'endpoint': label(endpoint)}
        ),
    )


if __name__ == '__main__':
    main()
