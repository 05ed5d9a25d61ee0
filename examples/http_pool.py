"""Threads that share a few keep-alive HTTP connections.

Starts its own server: python examples/http_pool.py
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gcpool.contrib.http import HttpConnectionManager
from gcpool.threading import ConnectionPool


class Handler(BaseHTTPRequestHandler):
    """Answers each request with its path."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        """Answer one request."""
        body = self.path.encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""


def main() -> None:
    manager = HttpConnectionManager(timeout=10.0)
    pool = ConnectionPool(manager, max_size=3, acquire_timeout=10.0)
    with (
        ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server,
        closing(pool),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}'

        def get(number: int) -> bool:
            with pool.connection(url) as conn:
                conn.request('GET', f'/{number}')
                response = conn.getresponse()
                # Read the response to its end, or the connection cannot be
                # kept.
                return response.read() == f'/{number}'.encode()

        with ThreadPoolExecutor(max_workers=16) as executor:
            print('right answers:', sum(executor.map(get, range(100))))
        print('connections created, at most 3:', pool.get_stats()['created'])

        # Here the rest stays unread: the connection is closed, and the next
        # user never sees it.
        with pool.connection(url) as conn:
            conn.request('GET', '/half-read')
            print(conn.getresponse().read(5))
        print('next answer is right:', get(1))
        pool.close()
        server.shutdown()


if __name__ == '__main__':
    main()
