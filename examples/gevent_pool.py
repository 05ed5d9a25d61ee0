"""Greenlets that share a few connections: the pool for threads, in a program
monkey-patched by gevent.

A greenlet that waits for a connection lets the others run. gevent.Timeout and
kill() work as usual: a connection that the greenlet holds, or is about to get,
returns to the pool.

Starts its own server: pip install gevent, then python examples/gevent_pool.py
"""

# ruff: noqa: E402 - gevent must patch before anything else is imported
from gevent import monkey

monkey.patch_all()

import socket
from contextlib import closing, suppress
from ipaddress import IPv4Address

import gevent
from gevent.server import StreamServer

from gcpool.contrib.socket import TcpSocketConnectionManager
from gcpool.threading import ConnectionPool


def serve(sock: socket.socket, _address: object) -> None:
    """Answer in capital letters, after a short delay."""
    with sock:
        while data := sock.recv(1024):
            gevent.sleep(0.005)
            sock.sendall(data.upper())


def main() -> None:
    server = StreamServer(('127.0.0.1', 0), serve)
    server.start()
    endpoint = (IPv4Address('127.0.0.1'), int(server.address[1]))
    pool = ConnectionPool(
        TcpSocketConnectionManager(), max_size=5, acquire_timeout=30.0
    )

    def ask(number: int) -> bool:
        with pool.connection(endpoint) as sock:
            sock.sendall(f'question {number}'.encode())
            return sock.recv(1024) == f'QUESTION {number}'.encode()

    with closing(pool):
        greenlets = [gevent.spawn(ask, number) for number in range(100)]
        print('right answers:', sum(greenlet.get() for greenlet in greenlets))

        conns = [pool.acquire(endpoint) for _ in range(5)]
        with suppress(gevent.Timeout), gevent.Timeout(0.01):
            pool.acquire(endpoint)
        for conn in conns:
            pool.release(conn, endpoint)

        stats = pool.get_stats()
        print('acquired:', stats['acquires'])
        print('still in use or waiting:', stats['acquired'] + stats['waiting'])
        print('connections created, at most 5:', stats['created'])
    server.stop()


if __name__ == '__main__':
    main()
