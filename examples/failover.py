"""After a failover: no acquire is served until every connection to the old
server is closed.

Needs nothing but gcpool: python examples/failover.py
"""

import asyncio
import itertools
from dataclasses import dataclass

from gcpool.asyncio import BaseConnectionManager, ConnectionPool
from gcpool.exceptions import PoolTimeout


@dataclass(eq=False)
class Connection:
    """A connection to a server of a cluster."""

    server: str
    number: int


class ClusterManager(BaseConnectionManager[str, Connection]):
    """Connects to the current primary."""

    def __init__(self) -> None:
        self.primary = 'old server'
        self._numbers = itertools.count(1)

    async def create(self, endpoint: str) -> Connection:
        """Connect to the primary."""
        await asyncio.sleep(0)
        return Connection(self.primary, next(self._numbers))

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        """Close a connection."""
        print(f'connection {conn.number} to the {conn.server} is closed')


async def fail_over(
    pool: ConnectionPool[str, Connection], manager: ClusterManager
) -> None:
    """Move all requests to the new server."""
    pool.suspend()
    try:
        await pool.drain('main')
        manager.primary = 'new server'
        # Requests that have a connection get time to finish.
        await pool.wait_idle(timeout=10.0)
    except PoolTimeout as exc:
        print(f'continuing anyway: {exc}')
    finally:
        pool.resume()


async def main() -> None:
    """Use a pool during a failover."""
    manager = ClusterManager()
    async with ConnectionPool(manager, max_size=2) as pool:
        async with pool.connection('main') as conn:
            failover = asyncio.create_task(fail_over(pool, manager))
            await asyncio.sleep(0)
            print(f'a request that began before: {conn.server}')
        async with pool.connection('main') as conn:
            print(f'a request that waited: {conn.server}')
        await failover


if __name__ == '__main__':
    asyncio.run(main())
