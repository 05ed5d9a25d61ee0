"""TLS connections from a pool, and what happens when the server closes one
while it is idle.

Starts its own TLS server, with a certificate from trustme:
pip install trustme, then
python examples/ssl_pool.py
"""

import select
import socketserver
import ssl
import threading
from contextlib import closing

import trustme

from gcpool.contrib.socket import SslSocketConnectionManager
from gcpool.threading import ConnectionPool


class Handler(socketserver.BaseRequestHandler):
    """Sends back what a client sends, but hangs up when told to quit."""

    def handle(self) -> None:
        """Serve one connection."""
        while (data := self.request.recv(1024)) and data != b'quit':
            self.request.sendall(data)


class TlsServer(socketserver.ThreadingTCPServer):
    """A server that speaks TLS.

    :param tls: its settings, with the certificate
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.socket = tls.wrap_socket(self.socket, server_side=True)


def main() -> None:
    authority = trustme.CA()
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert('localhost').configure_cert(server_tls)
    # A real program would call ssl.create_default_context() and trust the
    # system's authorities.
    client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client_tls)

    pool = ConnectionPool(SslSocketConnectionManager(client_tls), max_size=4)
    with TlsServer(server_tls) as server, closing(pool):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        # The certificate is checked for this name.
        endpoint = ('localhost', server.server_address[1])

        with pool.connection(endpoint, timeout=5.0) as conn:
            conn.sendall(b'hello')
            print('answer:', conn.recv(1024).decode())
            print('protocol:', conn.version())
            first = conn
            first.sendall(b'quit')
            # Only for this demonstration: wait until the server has hung up.
            select.select([first], [], [], 5.0)

        # The pool finds the connection dead, closes it and creates another.
        with pool.connection(endpoint, timeout=5.0) as conn:
            print('another connection:', conn is not first)
            conn.sendall(b'hello again')
            print('answer:', conn.recv(1024).decode())
        print('found dead:', pool.get_stats()['dead'])
        server.shutdown()


if __name__ == '__main__':
    main()
