"""Figures for StatsD: a thread sends what pop_stats() returns, each period's
counts once.

Starts its own receiver: python examples/statsd_stats.py
"""

import socket
import threading
from typing import Any

from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.threading import ConnectionPool

GAUGES = 'idle', 'in_use', 'waiting', 'total_max_size'
COUNTERS = 'acquires', 'timeouts', 'created', 'create_errors', 'leaks'
PERCENTILES = 'wait_p50', 'wait_p99', 'use_p99'


def packet(pool: Any) -> bytes:
    """The figures since the last call, as lines of StatsD's protocol."""
    stats = pool.pop_stats()
    prefix = f'gcpool.{pool.name}'
    lines = [f'{prefix}.{name}:{stats[name]}|g' for name in GAUGES]
    lines += [
        f'{prefix}.{name}:{stats[name]}|c' for name in COUNTERS if stats[name]
    ]
    # From the pool's histogram. As gauges: timers would be averaged again.
    lines += [
        f'{prefix}.{name}_ms:{stats[name] * 1000:.3f}|g' for name in PERCENTILES
    ]
    return '\n'.join(lines).encode()


def send_each(
    period: float, address: tuple[str, int], pool: Any, ended: threading.Event
) -> None:
    """Send until the event is set, and then once more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        while not ended.wait(period):
            sock.sendto(packet(pool), address)
        sock.sendto(packet(pool), address)


def main() -> None:
    pool = ConnectionPool(SqliteConnectionManager(), name='orders', max_size=4)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, pool:
        receiver.bind(('127.0.0.1', 0))
        receiver.settimeout(10.0)
        ended = threading.Event()
        sender = threading.Thread(
            target=send_each, args=(10.0, receiver.getsockname(), pool, ended)
        )
        sender.start()
        for _ in range(3):
            with pool.connection(':memory:') as conn:
                conn.execute('SELECT 1')
        ended.set()
        sender.join()
        for line in receiver.recv(65536).decode().splitlines():
            if '_ms:' not in line:
                print(line)
        print('counted again:', b'acquires' in packet(pool))


if __name__ == '__main__':
    main()
