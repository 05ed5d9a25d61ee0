"""What gcpool.psycopg_pool does better than psycopg_pool.

Each test runs on psycopg_pool, too, as an expected failure, so that the page which lists the differences stays true.
"""

import importlib
import inspect
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from gcpool.psycopg_pool import AsyncConnectionPool
from tests.asyncio_.runtime import Event, spawn, until
from tests.outages.proxy import Proxy

# Seconds that nothing here takes, unless it never happens. On psycopg_pool it never does.
LIMIT = 3.0

in_both = pytest.mark.parametrize(
    'package', ['gcpool.psycopg_pool', pytest.param('psycopg_pool', marks=pytest.mark.xfail(strict=True))]
)
# On asyncio, SystemExit in a task of psycopg_pool ends the event loop's run, and with it the test's runner.
ON_THREADS = not inspect.iscoroutinefunction(AsyncConnectionPool.getconn)
in_both_on_threads = in_both if ON_THREADS else pytest.mark.parametrize('package', ['gcpool.psycopg_pool'])


@pytest.fixture
def kind(package: str) -> Any:
    return importlib.import_module(package).AsyncConnectionPool


async def within_limit(predicate: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    await until(lambda: predicate() or time.monotonic() > deadline)
    assert predicate()


@in_both
async def test_the_first_client_after_an_outage_does_not_wait_for_pauses_between_checks(
    dsn: str, kind: Any, kill: Callable[[Any], None]
) -> None:
    async with kind(dsn, min_size=5, check=kind.check_connection) as pool:
        await pool.wait()
        conns = [await pool.getconn() for _ in range(5)]
        for conn in conns:
            await pool.putconn(conn)
        for conn in conns:
            kill(conn)
        async with pool.connection(timeout=LIMIT) as conn:
            await conn.execute('SELECT 1')


@in_both
async def test_attempts_go_on_after_reconnect_failed(proxied: str, kind: Any, proxy: Proxy) -> None:
    called: list[Any] = []
    proxy.resets()
    async with kind(proxied, min_size=1, reconnect_timeout=0.2, reconnect_failed=called.append) as pool:
        await until(lambda: bool(called))
        proxy.passes()
        await within_limit(lambda: pool.get_stats()['pool_available'] == 1)


@in_both
async def test_any_number_of_callers_may_wait_for_the_pool(dsn: str, kind: Any, monkeypatch: Any) -> None:
    gate = Event()
    connect = psycopg.AsyncConnection.connect

    async def waiting(conninfo: str, **kwargs: Any) -> Any:
        await gate.wait('nobody waits for the pool')
        return await connect(conninfo, **kwargs)

    monkeypatch.setattr(psycopg.AsyncConnection, 'connect', waiting)
    async with kind(dsn, min_size=1) as pool:
        first, second = spawn(pool.wait), spawn(pool.wait)
        began = time.monotonic()
        await until(lambda: first.done or second.done or time.monotonic() > began + 0.1)
        gate.set()
        await first.result()
        await second.result()


@in_both
async def test_resize_of_a_grown_pool_does_not_go_beyond_its_maximum(dsn: str, kind: Any) -> None:
    async with kind(dsn, min_size=2, max_size=4) as pool:
        conns = [await pool.getconn() for _ in range(4)]
        await pool.resize(4, 4)
        assert pool.get_stats()['pool_size'] == 4
        for conn in conns:
            await pool.putconn(conn)
        await pool.wait()
        assert pool.get_stats()['pool_size'] == 4


@in_both
async def test_check_takes_one_connection_at_a_time(dsn: str, kind: Any) -> None:
    begun, gate = Event(), Event()

    class Own(kind):  # type: ignore[misc]
        @staticmethod
        async def check_connection(conn: Any) -> None:
            begun.set()
            await gate.wait('nobody goes on')

    async with Own(dsn, min_size=3) as pool:
        await pool.wait()
        check = spawn(pool.check)
        await begun.wait('the check does not begin')
        available = pool.get_stats()['pool_available']
        gate.set()
        await check.result()
        assert available == 2


@in_both_on_threads
async def test_system_exit_in_reconnect_failed_ends_nothing(proxied: str, kind: Any, proxy: Proxy) -> None:
    called: list[Any] = []

    def failing(pool: Any) -> None:
        called.append(pool)
        raise SystemExit

    proxy.resets()
    async with kind(proxied, min_size=1, reconnect_timeout=0.2, num_workers=1, reconnect_failed=failing) as pool:
        await until(lambda: bool(called))
        proxy.passes()
        async with pool.connection(timeout=LIMIT) as conn:
            await conn.execute('SELECT 1')


@in_both
async def test_close_does_not_wait_for_a_server_that_does_not_answer(proxied: str, kind: Any, proxy: Proxy) -> None:
    proxy.holds()
    pool = kind(proxied, min_size=1, open=False)
    await pool.open()
    await until(lambda: pool.get_stats().get('connections_num') == 1)
    began = time.monotonic()
    await pool.close()
    # psycopg_pool waits for 5 s.
    assert time.monotonic() - began < LIMIT


@in_both
async def test_an_expired_connection_is_not_served(dsn: str, kind: Any) -> None:
    async with kind(dsn, min_size=1, max_lifetime=0.3) as pool:
        async with pool.connection(timeout=LIMIT) as conn:
            pid, began = conn.info.backend_pid, time.monotonic()
        await until(lambda: time.monotonic() > began + 0.4)
        async with pool.connection(timeout=LIMIT) as conn:
            assert conn.info.backend_pid != pid


@in_both
async def test_a_timeout_tells_why_connecting_fails(proxied: str, kind: Any, proxy: Proxy) -> None:
    proxy.resets()
    async with kind(proxied, min_size=1) as pool:
        with pytest.raises(psycopg.OperationalError) as caught:
            await pool.getconn(timeout=0.5)
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)


@in_both
async def test_close_of_a_broken_connection_loses_no_slot(dsn: str, kind: Any, kill: Callable[[Any], None]) -> None:
    async with kind(dsn, min_size=1, close_returns=True) as pool:
        conn = await pool.getconn()
        kill(conn)
        await conn.close()
        async with pool.connection(timeout=LIMIT) as other:
            await other.execute('SELECT 1')


@in_both
async def test_close_inside_the_block_returns_the_connection_once(dsn: str, kind: Any) -> None:
    async with kind(dsn, min_size=1, close_returns=True) as pool:
        async with pool.connection() as conn:
            await conn.close()
            other = await pool.getconn(timeout=LIMIT)
            assert other is conn
            await conn.execute('SELECT 1')
        # The end of the block has left alone what the next client has.
        assert other.pgconn.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        await pool.putconn(other)
        assert pool.get_stats()['pool_available'] == 1


@in_both
async def test_the_counters_are_always_there(kind: Any) -> None:
    stats = kind('', open=False).get_stats()
    assert stats['requests_errors'] == stats['connections_lost'] == stats['returns_bad'] == 0
