"""A connection that leaves its pool: after SUBSCRIBE the server only sends, so
the connection cannot be reused.

Starts its own server: python examples/detach_pool.py
"""

import socket
import socketserver
import threading
from contextlib import closing
from ipaddress import IPv4Address

from gcpool.contrib.socket import TcpEndpoint, TcpSocketConnectionManager
from gcpool.threading import ConnectionPool


class News(socketserver.StreamRequestHandler):
    """A client of the server."""

    def handle(self) -> None:
        """Answer TIME with a line, and SUBSCRIBE with all the news there is."""
        for line in self.rfile:
            if line == b'SUBSCRIBE\n':
                for number in range(1, 4):
                    self.wfile.write(b'news %d\n' % number)
                return
            self.wfile.write(b'noon\n')


def ask(conn: socket.socket, question: str) -> str:
    conn.sendall(question.encode() + b'\n')
    return conn.recv(100).decode().strip()


def main() -> None:
    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), News) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint: TcpEndpoint = (
            IPv4Address('127.0.0.1'),
            server.server_address[1],
        )
        pool = ConnectionPool(TcpSocketConnectionManager(), max_size=1)

        with closing(pool):
            with pool.connection(endpoint) as conn:
                print('time:', ask(conn, 'TIME'))
                conn.sendall(b'SUBSCRIBE\n')
                # From here on the connection belongs to this function: the end
                # of the block does nothing with it.
                pool.detach(conn)

            # Its slot is free, although the connection is still open.
            with pool.connection(endpoint) as other:
                print('time:', ask(other, 'TIME'))

            with conn, conn.makefile('r', encoding='ascii') as lines:
                for line in lines:
                    print(line.strip())

        stats = pool.get_stats()
        print(
            'created, detached, closed:',
            stats['created'],
            stats['detached'],
            stats['disposed'],
        )
        server.shutdown()


if __name__ == '__main__':
    main()
