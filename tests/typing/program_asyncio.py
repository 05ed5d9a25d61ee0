"""A program for the asyncio pool as mypy and pyright see it: `make lint` checks it.

It is not run. Where a checker is to complain a comment says so: without the complaint the comment is an error itself.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from typing import TYPE_CHECKING

from gcpool import BaseConnectionPool
from gcpool.asyncio import BaseConnectionManager, ConnectionPool, ConnectionT, EndpointT, NullConnectionPool
from gcpool.contrib.socket_async import Stream, TcpStreamConnectionManager, TcpStreamEndpoint

if TYPE_CHECKING:
    import asyncio
    from contextlib import AbstractAsyncContextManager

    from typing_extensions import assert_type

    class Address:
        """An endpoint."""

    class Link:
        """A connection."""

        async def ask(self, question: str) -> str:
            return question

    class LinkManager(BaseConnectionManager[Address, Link]):
        async def create(self, endpoint: Address) -> Link:
            return Link()

        async def dispose(self, endpoint: Address, conn: Link) -> None:
            assert_type(endpoint, Address)
            assert_type(conn, Link)

        async def check_aliveness(self, endpoint: Address, conn: Link) -> bool:
            return bool(await conn.ask('alive?'))

        async def on_release(self, endpoint: Address, conn: Link) -> None:
            await conn.ask('goodbye')

    class WrongManager(BaseConnectionManager[Address, Link]):
        def create(self, endpoint: Address) -> Link:  # type: ignore[override]
            return Link()

        async def dispose(self, endpoint: Address, conn: Link) -> None: ...

    def construct(address: Address) -> None:
        pool = ConnectionPool[Address, Link](
            LinkManager(),
            idle_timeout=60.0,
            max_lifetime=3600.0,
            min_idle=3,
            max_size=20,
            total_max_size=100,
            acquire_timeout=None,
            background_collector=True,
            dispose_batch_size=10,
            dispose_timeout=5,
        )
        assert_type(pool, ConnectionPool[Address, Link])
        assert_type(ConnectionPool(LinkManager()), ConnectionPool[Address, Link])
        ConnectionPool[str, Link](LinkManager())  # type: ignore[arg-type]
        ConnectionPool(LinkManager(), 60.0)  # type: ignore[call-arg]
        ConnectionPool(LinkManager(), max_size='10')  # type: ignore[arg-type]
        ConnectionPool(LinkManager())[address]  # type: ignore[index]

    async def use(pool: ConnectionPool[Address, Link], address: Address) -> None:
        conn = await pool.acquire(address, timeout=1.0)
        assert_type(conn, Link)
        await pool.release(conn, endpoint=address)
        async with pool.connection(address) as conn:
            assert_type(conn, Link)
        async with pool.connection(address, timeout=None) as conn:
            assert_type(await conn.ask('?'), str)
        assert_type(pool.get_size(), int)
        assert_type(await pool.get_endpoint_pool_size(address, acquired=True), int)
        assert_type(pool.is_full, bool)
        assert_type(pool.idle_timeout, float)
        assert_type(pool.max_lifetime, float)
        assert_type((pool.min_idle, pool.max_size, pool.total_max_size), tuple[int, int, int])
        assert_type(await pool.close(timeout=5), int)
        assert_type(pool.get_stats()['size'], int)
        assert_type(asyncio.create_task(pool.acquire(address)), asyncio.Task[Link])
        assert_type(await asyncio.wait_for(pool.acquire(address), 1), Link)
        assert_type(await asyncio.gather(pool.acquire(address), pool.acquire(address)), tuple[Link, Link])
        await pool.acquire('somewhere')  # type: ignore[arg-type]
        await pool.release(conn, 'somewhere')  # type: ignore[arg-type]
        await pool.release('a connection', address)  # type: ignore[arg-type]
        pool.max_size = 3  # type: ignore[misc]
        with pool.connection(address):  # type: ignore[attr-defined]
            pass

    def look_at(pool: BaseConnectionPool[EndpointT, ConnectionT]) -> int:
        return pool.total_max_size - pool.get_size()

    async def wrap(pool: ConnectionPool[EndpointT, ConnectionT], endpoint: EndpointT) -> ConnectionT:
        look_at(pool)
        context: AbstractAsyncContextManager[ConnectionT] = pool.connection(endpoint)
        async with context as conn:
            return conn

    async def connect_streams(endpoint: TcpStreamEndpoint) -> None:
        pool = ConnectionPool[TcpStreamEndpoint, Stream](TcpStreamConnectionManager())
        async with pool.connection(endpoint) as (reader, writer):
            assert_type(reader, asyncio.StreamReader)
            assert_type(writer, asyncio.StreamWriter)

    async def open_link(address: Address) -> Link:
        return Link()

    async def close_link(address: Address, link: Link) -> None: ...

    async def ask_link(address: Address, link: Link) -> bool:
        return bool(await link.ask('alive?'))

    async def close_other(address: Address, link: int) -> None: ...

    def judge(address: Address, link: Link, exc: BaseException) -> bool:
        return isinstance(exc, OSError)

    def open_link_at_once(address: Address) -> Link:
        return Link()

    async def make_of_functions() -> None:
        assert_type(ConnectionPool.from_callables(open_link), ConnectionPool[Address, Link])
        pool = ConnectionPool.from_callables(
            open_link,
            close_link,
            check_aliveness=ask_link,
            on_acquire=ask_link,
            on_release=ask_link,
            is_broken=judge,
            max_size=3,
            acquire_timeout=5,
        )
        assert_type(pool, ConnectionPool[Address, Link])
        assert_type(NullConnectionPool.from_callables(open_link), NullConnectionPool[Address, Link])
        ConnectionPool.from_callables(open_link, close_other)  # type: ignore[misc]
        ConnectionPool.from_callables(open_link_at_once)  # type: ignore[arg-type]
        ConnectionPool.from_callables(open_link, max_size='3')  # type: ignore[arg-type]
        NullConnectionPool(LinkManager(), max_size=None, max_lifetime=60)

    async def take(pool: ConnectionPool[Address, Link], address: Address) -> None:
        assert_type(pool.try_acquire(address), Link | None)
        assert_type(await pool.acquire(), Link)
        async with pool.connection() as link:
            assert_type(link, Link)
        await pool.release(link)
        assert_type(pool.release_nowait(link), None)
        assert_type(await pool.discard(link), None)
        assert_type(pool.detach(link), None)
        await pool.discard(3)  # type: ignore[arg-type]
