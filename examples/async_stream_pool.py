"""Streams from a pool, with a timeout: an acquire that cannot be served in time
raises TimeoutError.

Starts its own server: python examples/async_stream_pool.py
"""

import asyncio

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.socket_async import TcpStreamConnectionManager


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer each line with its length."""
    while line := await reader.readline():
        writer.write(b'%d\n' % len(line.strip()))
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(answer, '127.0.0.1', 0)
    endpoint = ('localhost', server.sockets[0].getsockname()[1])

    # For TLS: TcpStreamConnectionManager(ssl=True), or an SSLContext instead of
    # True.
    pool = ConnectionPool(TcpStreamConnectionManager(), max_size=1)
    try:

        async def length_of(text: str) -> int:
            async with pool.connection(endpoint, timeout=5.0) as (
                reader,
                writer,
            ):
                writer.write(text.encode() + b'\n')
                return int(await reader.readline())

        words = [
            'one',
            'connection',
            'is',
            'enough',
            'for',
            'all',
            'of',
            'them',
        ]
        lengths = await asyncio.gather(*map(length_of, words))
        print('lengths:', lengths)

        async with pool.connection(endpoint):
            try:
                await pool.acquire(endpoint, timeout=0.01)
            except asyncio.TimeoutError as exc:
                print('timed out:', exc)
        print('length afterwards:', await length_of('still works'))
    finally:
        await pool.close()
        server.close()
        await server.wait_closed()


if __name__ == '__main__':
    asyncio.run(main())
