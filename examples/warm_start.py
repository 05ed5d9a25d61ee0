"""A service that connects before its first request, and stays warm: minimum
sizes, and connects in the background.

Starts its own server, to which connecting is slow:
python examples/warm_start.py
"""

import socket
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import IPv4Address

from gcpool.contrib.socket import TcpEndpoint, TcpSocketConnectionManager
from gcpool.exceptions import PoolTimeout
from gcpool.threading import ConnectionPool

LOGIN = 0.1  # seconds


class SlowLogin(TcpSocketConnectionManager):
    """Connects slowly, as a login over TLS would."""

    def create(
        self, endpoint: TcpEndpoint, timeout: float | None = None
    ) -> socket.socket:
        """Connect."""
        time.sleep(LOGIN)
        return super().create(endpoint, timeout)


class Echo(socketserver.BaseRequestHandler):
    """The server's side of a connection."""

    def handle(self) -> None:
        """Send everything back."""
        while data := self.request.recv(1024):
            self.request.sendall(data)


def main() -> None:
    pool = ConnectionPool(
        SlowLogin(),
        max_size=20,
        acquire_timeout=10.0,
        create_in_background=True,
    )
    with (
        socketserver.ThreadingTCPServer(('127.0.0.1', 0), Echo) as server,
        closing(pool),
    ):
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        main_server: TcpEndpoint = (
            IPv4Address('127.0.0.1'),
            server.server_address[1],
        )

        # At the start: connect, and begin to serve when the connections exist.
        # The cause of the error is the reason if they do not.
        pool.warm_up(main_server, 4)
        try:
            pool.wait(timeout=10.0)
        except PoolTimeout as exc:
            raise SystemExit(f'{exc}: {exc.__cause__}') from exc
        print('idle before the first request:', pool.get_stats()['idle'])

        def request(number: int) -> bool:
            with pool.connection(main_server) as sock:
                message = b'%06d' % number
                sock.sendall(message)
                return sock.recv(len(message), socket.MSG_WAITALL) == message

        # A spike: it is served by the existing connections. Few are opened, and
        # no request waits for one of them.
        with ThreadPoolExecutor(max_workers=20) as executor:
            answers = list(executor.map(request, range(200)))
        print('right answers:', sum(answers))
        print(
            'connections created, 4 to 20:',
            4 <= pool.get_stats()['created'] <= 20,
        )

        # A lost connection is replaced, although no request needs one.
        with pool.connection(main_server) as sock:
            sock.close()
        until = time.monotonic() + 10.0
        while pool.get_stats()['idle'] < 4 and time.monotonic() < until:
            time.sleep(0.01)
        print('idle at the end, at least 4:', pool.get_stats()['idle'] >= 4)
        server.shutdown()


if __name__ == '__main__':
    main()
