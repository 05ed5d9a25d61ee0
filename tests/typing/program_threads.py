"""A program for the pool for threads as mypy and pyright see it: `make lint` checks it.

It is not run. Where a checker is to complain a comment says so: without the complaint the comment is an error itself.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=error

from typing import TYPE_CHECKING

from gcpool import BaseConnectionPool, ConnectionPoolClosedError
from gcpool.contrib.socket import IpAddress, TcpEndpoint, TcpSocketConnectionManager
from gcpool.exceptions import BaseError
from gcpool.threading import BaseConnectionManager, ConnectionPool, ConnectionT, EndpointT, NullConnectionPool

if TYPE_CHECKING:
    import socket
    from contextlib import AbstractContextManager

    from typing_extensions import assert_type

    class Address:
        """An endpoint."""

    class Link:
        """A connection."""

        def ask(self, question: str) -> str:
            return question

    class LinkManager(BaseConnectionManager[Address, Link]):
        def create(self, endpoint: Address, timeout: float | None = None) -> Link:
            return Link()

        def dispose(self, endpoint: Address, conn: Link, timeout: float | None = None) -> None:
            assert_type(endpoint, Address)
            assert_type(conn, Link)

        def check_aliveness(self, endpoint: Address, conn: Link, timeout: float | None = None) -> bool:
            return bool(conn.ask('alive?'))

        def on_acquire(self, endpoint: Address, conn: Link) -> None:
            conn.ask('hello')

    class WrongManager(BaseConnectionManager[Address, Link]):
        def create(self, endpoint: Address, timeout: float | None = None) -> int:  # type: ignore[override]
            return 1

        def dispose(self, endpoint: Address, conn: Link, timeout: float | None = None) -> None: ...

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

    def use(pool: ConnectionPool[Address, Link], address: Address) -> None:
        conn = pool.acquire(address, timeout=1.0)
        assert_type(conn, Link)
        pool.release(conn, endpoint=address)
        with pool.connection(address) as conn:
            assert_type(conn, Link)
        with pool.connection(address, timeout=None) as conn:
            assert_type(conn.ask('?'), str)
        assert_type(pool.get_size(), int)
        assert_type(pool.get_endpoint_pool_size(address, acquired=True), int)
        assert_type(pool.is_full, bool)
        assert_type(pool.idle_timeout, float)
        assert_type(pool.max_lifetime, float)
        assert_type((pool.min_idle, pool.max_size, pool.total_max_size), tuple[int, int, int])
        assert_type(pool.close(timeout=5), int)
        assert_type(pool.get_stats()['size'], int)
        pool.acquire('somewhere')  # type: ignore[arg-type]
        pool.release(conn, 'somewhere')  # type: ignore[arg-type]
        pool.release('a connection', address)  # type: ignore[arg-type]
        pool.max_size = 3  # type: ignore[misc]

    def look_at(pool: BaseConnectionPool[EndpointT, ConnectionT]) -> int:
        return pool.total_max_size - pool.get_size()

    def wrap(pool: ConnectionPool[EndpointT, ConnectionT], endpoint: EndpointT) -> ConnectionT:
        look_at(pool)
        context: AbstractContextManager[ConnectionT] = pool.connection(endpoint)
        with context as conn:
            return conn

    def connect_sockets(address: IpAddress) -> None:
        pool = ConnectionPool[TcpEndpoint, socket.socket](TcpSocketConnectionManager())
        try:
            with pool.connection((address, 80)) as sock:
                assert_type(sock, socket.socket)
        except ConnectionPoolClosedError as error:
            base: BaseError = error
            raise base from None

    def open_link(address: Address) -> Link:
        return Link()

    def open_link_within(address: Address, timeout: float | None = None) -> Link:
        return Link()

    def close_link(address: Address, link: Link, timeout: float | None = None) -> None: ...

    def ask_link(address: Address, link: Link) -> bool:
        return bool(link.ask('alive?'))

    def close_other(address: Address, link: int) -> None: ...

    def judge(address: Address, link: Link, exc: BaseException) -> bool:
        return isinstance(exc, OSError)

    async def open_link_later(address: Address) -> Link:
        return Link()

    def make_of_functions() -> None:
        assert_type(ConnectionPool.from_callables(open_link), ConnectionPool[Address, Link])
        assert_type(ConnectionPool.from_callables(open_link_within), ConnectionPool[Address, Link])
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
        ConnectionPool.from_callables(open_link, max_size='3')  # type: ignore[arg-type]
        ConnectionPool.from_callables(open_link, maximum=3)  # type: ignore[call-arg]
        NullConnectionPool(LinkManager(), max_size=None, max_lifetime=60)
        NullConnectionPool(LinkManager(), min_idle=1)  # type: ignore[call-arg]

    def take(pool: ConnectionPool[Address, Link], address: Address) -> None:
        assert_type(pool.try_acquire(address), Link | None)
        assert_type(pool.acquire(), Link)
        with pool.connection() as link:
            assert_type(link, Link)
        pool.release(link)
        assert_type(pool.discard(link), None)
        assert_type(pool.detach(link), None)
        pool.discard(3)  # type: ignore[arg-type]
        pool.try_acquire('somewhere')  # type: ignore[arg-type]
