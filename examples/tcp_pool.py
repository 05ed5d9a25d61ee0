"""Threads that share a few TCP connections.

Starts its own echo server: python examples/tcp_pool.py
"""

import socketserver
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import IPv4Address

from gcpool.contrib.socket import TcpSocketConnectionManager
from gcpool.threading import ConnectionPool


class EchoHandler(socketserver.BaseRequestHandler):
    """Sends back what a client sends, until it hangs up."""

    def handle(self) -> None:
        """Serve one connection."""
        while data := self.request.recv(1024):
            self.request.sendall(data)


def main() -> None:
    pool = ConnectionPool(
        TcpSocketConnectionManager(),
        idle_timeout=30.0,
        max_lifetime=600.0,
        min_idle=1,
        max_size=2,
        background_collector=True,
    )
    with (
        socketserver.ThreadingTCPServer(
            ('127.0.0.1', 0), EchoHandler
        ) as server,
        closing(pool),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = (IPv4Address('127.0.0.1'), server.server_address[1])

        def ask(number: int) -> int:
            with pool.connection(endpoint, timeout=5.0) as sock:
                sock.sendall(b'%d\n' % number)
                return int(sock.recv(1024))

        with ThreadPoolExecutor(max_workers=8) as executor:
            answers = list(executor.map(ask, range(100)))
        server.shutdown()

    stats = pool.get_stats()
    print(
        'right answers:',
        sum(answer == number for number, answer in enumerate(answers)),
    )
    print('acquired:', stats['acquires'])
    print('connections created, at most 2:', stats['created'])


if __name__ == '__main__':
    main()
