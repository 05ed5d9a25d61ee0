"""Tasks that share a few TCP sockets.

Starts its own echo server: python examples/async_pool.py
"""

import asyncio
from ipaddress import IPv4Address

from gcpool.asyncio import ConnectionPool
from gcpool.contrib.socket_async import TcpSocketConnectionManager


async def echo(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send back what the client sends, until it hangs up."""
    while data := await reader.read(1024):
        writer.write(data)
    writer.close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(echo, '127.0.0.1', 0)
    endpoint = (IPv4Address('127.0.0.1'), server.sockets[0].getsockname()[1])

    pool = ConnectionPool(
        TcpSocketConnectionManager(),
        idle_timeout=30.0,
        max_lifetime=600.0,
        min_idle=1,
        max_size=3,
        background_collector=True,
    )
    try:

        async def ask(number: int) -> int:
            async with pool.connection(endpoint, timeout=5.0) as sock:
                await loop.sock_sendall(sock, b'%d\n' % number)
                return int(await loop.sock_recv(sock, 1024))

        answers = await asyncio.gather(*(ask(number) for number in range(100)))
    finally:
        await pool.close()
        server.close()
        await server.wait_closed()

    stats = pool.get_stats()
    print(
        'right answers:',
        sum(answer == number for number, answer in enumerate(answers)),
    )
    print('acquired:', stats['acquires'])
    print('connections created, at most 3:', stats['created'])


if __name__ == '__main__':
    asyncio.run(main())
