"""A custom connection manager, for a protocol with a login in which each
command has one answer.

Starts its own server: python examples/custom_manager.py
"""

import socket
import socketserver
import threading
import time
from contextlib import closing, suppress

from gcpool.exceptions import DiscardConnection
from gcpool.threading import BaseConnectionManager, ConnectionPool


class Client:
    """A connection to a key-value store. A command is one line, and so is its
    answer.

    :param host: host of the store :param port: its port :param timeout: seconds
    that connecting may take
    """

    def __init__(self, host: str, port: int, timeout: float | None) -> None:
        self._sock = socket.create_connection(
            (host, port), at_least_a_moment(timeout)
        )
        self._answers = self._sock.makefile('r', encoding='utf-8')
        self.in_step = True

    def ask(self, *words: str, timeout: float | None = 5.0) -> str:
        """Send a command and wait for the answer, for at most ``timeout``
        seconds.
        """
        # If this command is abandoned, its answer must not reach the next user
        # of the connection.
        self.in_step = False
        self._sock.settimeout(at_least_a_moment(timeout))
        self._sock.sendall((' '.join(words) + '\n').encode())
        answer = self._answers.readline()
        if not answer:
            raise ConnectionError('the store has hung up')
        self.in_step = True
        return answer.rstrip('\n')

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self._sock.close()


def at_least_a_moment(timeout: float | None) -> float | None:
    """Return a timeout for a socket. 0, from an acquire that must not wait,
    would make the socket non-blocking.
    """
    return timeout if timeout is None else max(timeout, 0.001)


Endpoint = tuple[str, int]


class StoreConnectionManager(BaseConnectionManager[Endpoint, Client]):
    """Connects to the store and logs in.

    :param password: the store's password
    """

    def __init__(self, password: str) -> None:
        self._password = password

    def create(
        self, endpoint: Endpoint, timeout: float | None = None
    ) -> Client:
        """Connect and log in. If anything fails, the connection is closed."""
        client = Client(*endpoint, timeout)
        try:
            answer = client.ask('AUTH', self._password, timeout=timeout)
            if answer != 'OK':
                raise PermissionError(answer)
        except BaseException:
            client.close()
            raise
        return client

    def dispose(
        self, endpoint: Endpoint, conn: Client, timeout: float | None = None
    ) -> None:
        """Close a connection."""
        conn.close()

    def check_aliveness(
        self, endpoint: Endpoint, conn: Client, timeout: float | None = None
    ) -> bool:
        """Ask the store whether an idle connection still works."""
        if timeout == 0:
            # The connection may be good. After a TimeoutError it becomes idle
            # again.
            raise TimeoutError('no time to ask the store')
        try:
            return conn.ask('PING', timeout=timeout) == 'PONG'
        except OSError:
            return False

    def is_broken(
        self, endpoint: Endpoint, conn: Client, exc: BaseException
    ) -> bool:
        """Return whether a connection is unfit after a ``with`` block raised:
        if so, the pool closes it.
        """
        return not conn.in_step

    def on_release(self, endpoint: Endpoint, conn: Client) -> None:
        """Have the pool close a connection that is returned unfit, by
        ``release()`` or at the end of a block.
        """
        if not conn.in_step:
            raise DiscardConnection('the answer to a command was not read')


class StoreHandler(socketserver.StreamRequestHandler):
    """The store's side of a connection."""

    values: dict[str, str] = {}  # noqa: RUF012  (one store for all connections)

    def handle(self) -> None:
        """Serve one connection until the client hangs up, even in the middle
        of a command.
        """
        with suppress(ConnectionError):
            self.serve()

    def serve(self) -> None:
        """Answer commands."""
        allowed = False
        for line in self.rfile:
            command, *words = line.decode().split()
            if command == 'AUTH':
                allowed = words == ['open-sesame']
                answer = 'OK' if allowed else 'wrong password'
            elif not allowed:
                answer = 'who are you?'
            elif command == 'PING':
                answer = 'PONG'
            elif command == 'SLEEP':
                time.sleep(float(words[0]))
                answer = 'good morning'
            elif command == 'SET':
                self.values[words[0]] = words[1]
                answer = 'OK'
            else:
                answer = self.values.get(words[0], '')
            self.wfile.write(answer.encode() + b'\n')


def main() -> None:
    pool = ConnectionPool(
        StoreConnectionManager('open-sesame'), acquire_timeout=5.0
    )
    misinformed_pool = ConnectionPool(
        StoreConnectionManager('sesame'), acquire_timeout=5.0
    )
    with (
        socketserver.ThreadingTCPServer(
            ('127.0.0.1', 0), StoreHandler
        ) as server,
        closing(pool),
        closing(misinformed_pool),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = ('127.0.0.1', server.server_address[1])

        with pool.connection(endpoint) as client:
            print('set:', client.ask('SET', 'answer', '42'))
        with pool.connection(endpoint) as client:
            print('get:', client.ask('GET', 'answer'))
        print('connections created:', pool.get_stats()['created'])

        # The answer arrives on a closed connection; the next user gets a new
        # one.
        try:
            with pool.connection(endpoint) as client:
                client.ask('SLEEP', '0.1', timeout=0.01)
        except TimeoutError as exc:
            print('abandoned:', exc)
        with pool.connection(endpoint) as client:
            print('get:', client.ask('GET', 'answer'))
        print('connections created:', pool.get_stats()['created'])

        # The caller gets the manager's exception unchanged.
        try:
            misinformed_pool.acquire(endpoint)
        except PermissionError as exc:
            print('refused:', exc)
        print('connections in the pool:', misinformed_pool.get_size())
        server.shutdown()


if __name__ == '__main__':
    main()
