"""A service that rides out a restart of its server: its requests take longer
meanwhile, and none fails to connect.

Starts and restarts its own server: python examples/restart.py
"""

import asyncio
import contextlib
import logging

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.socket_async import (
    Stream,
    TcpStreamConnectionManager,
    TcpStreamEndpoint,
)
from gcpool.exceptions import PoolTimeout

DOWN = 0.5  # seconds that the restart takes


async def echo(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """The server's side of a connection."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1024):
            writer.write(data)
            await writer.drain()
    writer.close()


class Server:
    """A server that can be restarted on its port."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen, the second time on the same port."""
        self._server = await asyncio.start_server(
            self._serve, '127.0.0.1', self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._clients.add(writer)
        await echo(reader, writer)
        self._clients.discard(writer)

    async def stop(self) -> None:
        """Close all connections, and stop listening."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._clients):
            writer.close()
        await asyncio.sleep(0)


async def alarm(
    pool: ConnectionPool[TcpStreamEndpoint, Stream],
    endpoint: TcpStreamEndpoint,
    error: BaseException,
) -> None:
    """Report that the server has been down for too long. A coroutine function,
    so it may use the network.
    """
    print(
        f'alarm: {endpoint[0]} is away, {type(error).__name__};'
        f' waiting: {pool.get_stats()["waiting"]}'
    )


async def main() -> None:
    # The pool logs a warning when an outage begins, and when it ends, how long
    # it lasted.
    logging.basicConfig(level=logging.ERROR)
    server = Server()
    await server.start()
    endpoint: TcpStreamEndpoint = ('127.0.0.1', server.port)
    pool = ConnectionPool(
        TcpStreamConnectionManager(),
        max_size=4,
        # How long a request waits for the server's return. The alarm goes off
        # after reconnect_timeout.
        acquire_timeout=10.0,
        reconnect_timeout=DOWN / 2,
        reconnect_failed=alarm,
    )

    async def ask(number: int) -> bool:
        message = b'%06d' % number
        async with pool.connection(endpoint) as (reader, writer):
            writer.write(message)
            return await reader.readexactly(len(message)) == message

    print('before:', sum(await asyncio.gather(*map(ask, range(20)))))

    await server.stop()
    loop = asyncio.get_running_loop()
    began = loop.time()
    requests = asyncio.gather(*map(ask, range(20)))
    await asyncio.sleep(DOWN)
    # A request that cannot wait that long passes a timeout; the error has the
    # cause.
    try:
        await pool.acquire(endpoint, timeout=0.05)
    except PoolTimeout as exc:
        print('timed out because of:', type(exc.__cause__).__name__)
    await server.start()
    print('during the restart:', sum(await requests))
    print('they have waited for it:', loop.time() - began >= DOWN)

    await pool.close()
    await server.stop()


if __name__ == '__main__':
    asyncio.run(main())
