"""A worker that shuts down in order: new requests are refused, and running ones
may finish.

Needs nothing but gcpool: python examples/graceful_shutdown.py
"""

import os
import signal
import threading
from typing import Any

from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.exceptions import ConnectionPoolClosedError
from gcpool.threading import ConnectionPool

# Seconds that requests get to finish.
GRACE = 5.0


def work(
    pool: ConnectionPool[Any, Any],
    has_begun: threading.Event,
    may_end: threading.Event,
) -> None:
    """Handle a request that takes long."""
    with pool.connection('file:shop?mode=memory&cache=shared'):
        has_begun.set()
        may_end.wait()
    print('the request is finished')


def main() -> None:
    """Serve until the process is asked to end."""
    told_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())

    pool = ConnectionPool(SqliteConnectionManager(), close_timeout=GRACE)
    has_begun, may_end = threading.Event(), threading.Event()
    with pool:
        request = threading.Thread(target=work, args=(pool, has_begun, may_end))
        request.start()
        has_begun.wait()

        # Here the service is stopped.
        os.kill(os.getpid(), signal.SIGTERM)
        told_to_end.wait()
        print('still in use:', pool.close(wait=False))
        try:
            pool.acquire('file:shop?mode=memory&cache=shared')
        except ConnectionPoolClosedError:
            print('a new request is refused')
        may_end.set()
    # Leaving the block has waited for the request, for GRACE seconds at most.
    request.join()
    print('connections left:', pool.get_size())


if __name__ == '__main__':
    main()
