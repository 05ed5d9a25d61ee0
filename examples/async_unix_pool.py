"""Streams to a Unix domain socket from a pool. For Unix only.

Starts its own server: python examples/async_unix_pool.py
"""

import asyncio
import tempfile
from pathlib import Path

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.unix_async import UnixSocketStreamConnectionManager


async def answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer each line in capitals."""
    while line := await reader.readline():
        writer.write(line.upper())
    writer.close()


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'upper.sock'
        server = await asyncio.start_unix_server(answer, path)
        pool = ConnectionPool(UnixSocketStreamConnectionManager(), max_size=4)
        try:
            for line in ('the same connection', 'serves one after the other'):
                async with pool.connection(path, timeout=5.0) as (
                    reader,
                    writer,
                ):
                    writer.write(line.encode() + b'\n')
                    print((await reader.readline()).decode().strip())
            print('connections created:', pool.get_stats()['created'])
        finally:
            await pool.close()
            server.close()
            await server.wait_closed()


if __name__ == '__main__':
    asyncio.run(main())
