"""The connection that all pools under test hold: it does nothing, so that only the pool is measured."""

from ipaddress import IPv4Address

__all__ = ['ENDPOINT', 'TUPLE_ENDPOINT', 'AsyncConnection', 'Connection', 'make_endpoints']

#: The endpoint of the cases that are not about endpoints.
ENDPOINT = 'db.example:5432'

#: An endpoint whose hash runs Python code (``IPv4Address.__hash__``), as that of the socket managers does.
TUPLE_ENDPOINT = (IPv4Address('192.0.2.1'), 5432)


class Connection:
    """What the pools for threads hold. A pool that reads more attributes of a connection gets a subclass with just
    those."""

    def close(self) -> None:
        """Every pool closes what it created at the end."""

    def commit(self) -> None:
        """PEP 249."""

    def rollback(self) -> None:
        """PEP 249; DBUtils calls it at each return."""


class AsyncConnection:
    """What the pools for asyncio hold."""

    async def close(self) -> None:
        """Every pool closes what it created at the end."""


def make_endpoints(number: int) -> list[str]:
    """Return ``number`` different endpoints, none of them interned or hashed yet."""
    return [f'db-{index:06}.example:5432' for index in range(number)]
