"""Connections to a Unix domain socket from a pool. For Unix only.

Starts its own server: python examples/unix_pool.py
"""

import socketserver
import tempfile
import threading
from contextlib import closing
from pathlib import Path

from gcpool.contrib.unix import UnixSocketConnectionManager
from gcpool.threading import ConnectionPool


class UpperHandler(socketserver.StreamRequestHandler):
    """Answers each line in capitals."""

    def handle(self) -> None:
        """Serve one connection."""
        for line in self.rfile:
            self.wfile.write(line.upper())


def main() -> None:
    pool = ConnectionPool(UnixSocketConnectionManager(), max_size=4)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'upper.sock'
        with (
            socketserver.ThreadingUnixStreamServer(
                str(path), UpperHandler
            ) as server,
            closing(pool),
        ):
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for line in ('the same connection', 'serves one after the other'):
                with pool.connection(path, timeout=5.0) as sock:
                    sock.sendall(line.encode() + b'\n')
                    print(sock.recv(1024).decode().strip())
            server.shutdown()
        print('connections created:', pool.get_stats()['created'])


if __name__ == '__main__':
    main()
