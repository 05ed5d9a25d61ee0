# Generated from tests/psycopg_pool/test_serving.py by .github/scripts/generate_threading.py; do not edit.

"""Who gets a connection of gcpool.psycopg_pool when, how the pools grow and shrink, errors, statistics, null pools."""

import logging
import pickle
import time
from typing import Any

import psycopg
import pytest

from gcpool.psycopg_pool import (
    ConnectionPool,
    NullConnectionPool,
    PoolClosed,
    PoolTimeout,
    TooManyRequests,
)
from tests.outages.proxy import Proxy
from tests.threads.runtime import Event, spawn, until

COUNTERS = {
    'requests_num',
    'requests_queued',
    'requests_wait_ms',
    'requests_errors',
    'usage_ms',
    'returns_bad',
    'connections_num',
    'connections_ms',
    'connections_errors',
    'connections_lost',
}
GAUGES = {'pool_min', 'pool_max', 'pool_size', 'pool_available', 'requests_waiting'}

pools = pytest.mark.parametrize('kind', [ConnectionPool, NullConnectionPool])


def fewest(kind: Any) -> int:
    return 0 if issubclass(kind, NullConnectionPool) else 1


def slow_connects(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], Event]:
    """Have each connect wait for an event. Returns how many were under way when each began, and the event."""
    gate = Event()
    under_way: list[int] = []
    now = [0]
    connect = psycopg.Connection.connect

    def waiting(conninfo: str, **kwargs: Any) -> Any:
        now[0] += 1
        under_way.append(now[0])
        gate.wait('the connects do not begin')
        now[0] -= 1
        return connect(conninfo, **kwargs)

    monkeypatch.setattr(psycopg.Connection, 'connect', waiting)
    return under_way, gate


# -- growing and shrinking --------------------------------------------------------------------------------------------


def test_the_first_fill_makes_num_workers_connections_at_a_time(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, gate = slow_connects(monkeypatch)
    with ConnectionPool(dsn, min_size=5, num_workers=3) as pool:
        until(lambda: len(under_way) == 3)
        assert pool.get_stats()['pool_size'] == 3
        gate.set()
        pool.wait()
        assert pool.get_stats()['pool_available'] == 5
        assert max(under_way) <= 3


def test_a_pool_grows_by_one_connection_at_a_time_and_only_for_clients_that_wait(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectionPool(dsn, min_size=1, max_size=4) as pool:
        pool.wait()
        first = pool.getconn()
        pool.putconn(first)
        assert pool.get_stats()['connections_num'] == 1
        under_way, gate = slow_connects(monkeypatch)
        conn = pool.getconn()
        waiters = [spawn(pool.getconn) for _ in range(3)]
        until(lambda: len(under_way) == 1 and pool.get_stats()['requests_waiting'] == 3)
        assert pool.get_stats()['pool_size'] == 2
        gate.set()
        for waiter in waiters:
            pool.putconn(waiter.result())
        assert max(under_way) == 1
        pool.putconn(conn)


def test_a_client_takes_whichever_connection_comes_first(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConnectionPool(dsn, min_size=1, max_size=2) as pool:
        conn = pool.getconn()
        under_way, gate = slow_connects(monkeypatch)
        waiter = spawn(pool.getconn)
        until(lambda: len(under_way) == 1)
        pool.putconn(conn)
        assert waiter.result() is conn
        gate.set()
        pool.putconn(conn)


def test_clients_are_served_first_come_first_served(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        conn = pool.getconn()
        order: list[int] = []

        def client(number: int) -> None:
            with pool.connection():
                order.append(number)

        jobs = []
        for number in range(5):
            jobs.append(spawn(client, number))
            until(lambda number=number: pool.get_stats()['requests_waiting'] == number + 1)  # type: ignore[misc]
        pool.putconn(conn)
        for job in jobs:
            job.result()
        assert order == [0, 1, 2, 3, 4]


def test_connections_are_used_in_turn(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=3) as pool:
        pool.wait()
        used = []
        for _ in range(6):
            with pool.connection() as conn:
                used.append(conn)
        assert len(set(map(id, used[:3]))) == 3
        assert used[:3] == used[3:]


def test_a_pool_shrinks_by_one_when_one_was_idle_all_the_time(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1, max_size=3, max_idle=0.3) as pool:
        pool.wait()
        conns = [pool.getconn() for _ in range(3)]
        sizes: set[int] = set()
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 0.5)
        # All were in use.
        assert pool.get_stats()['pool_size'] == 3
        for conn in conns:
            pool.putconn(conn)

        def has_shrunk() -> bool:
            sizes.add(pool.get_stats()['pool_size'])
            return min(sizes) == 1

        until(has_shrunk)
        assert sizes == {3, 2, 1}
        until(lambda: pool._manager.shrink_at == float('inf'))


def test_resize_grows_at_once_and_shrinks_as_connections_come_back(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1, max_size=2) as pool:
        pool.resize(4)
        pool.wait()
        assert (pool.min_size, pool.max_size, pool.get_stats()['pool_available']) == (4, 4, 4)
        conns = [pool.getconn() for _ in range(4)]
        pool.resize(1, 2)
        assert pool.get_stats()['pool_size'] == 4
        for conn in conns:
            pool.putconn(conn)
        assert pool.get_stats()['pool_size'] == 2
        with pytest.raises(ValueError, match='max_size=1'):
            pool.resize(2, 1)
        assert (pool.min_size, pool.max_size) == (1, 2)


# -- failing connects -------------------------------------------------------------------------------------------------


def test_failed_attempts_are_told_with_the_pause_that_follows(
    proxied: str, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, 'psycopg.pool')
    proxy.resets()
    with ConnectionPool(proxied, min_size=1) as pool:
        until(lambda: 'next reconnection attempt' in caplog.text)
        # The first pause is about a second long, each further one twice as long. On a busy machine the first may
        # be over before it can be told.
        delay = next(record.args[1] for record in caplog.records if 'next reconn' in record.getMessage())  # type: ignore[index]
        assert 0.5 < float(delay) <= 1.1 * 2 ** (pool.get_stats()['connections_errors'] - 1)  # type: ignore[arg-type]
        # Between two attempts.
        until(lambda: pool.get_stats()['pool_size'] == 0)


@pytest.mark.parametrize('overridden', [False, True])
def test_reconnect_failed_is_called_and_may_be_a_method(proxied: str, proxy: Proxy, overridden: bool) -> None:
    called: list[Any] = []

    class Own(ConnectionPool[Any]):
        def reconnect_failed(self) -> None:
            called.append(self)

    proxy.resets()
    kind: Any = Own if overridden else ConnectionPool
    with kind(
        proxied, min_size=1, reconnect_timeout=0.1, reconnect_failed=None if overridden else called.append
    ) as pool:
        until(lambda: len(called) >= 2)
        assert set(called) == {pool}
        proxy.passes()
        with pool.connection(timeout=10) as conn:
            conn.execute('SELECT 1')


# -- errors -----------------------------------------------------------------------------------------------------------


@pools
def test_the_classes_of_the_errors(kind: Any) -> None:
    for error in (PoolClosed, PoolTimeout, TooManyRequests):
        assert issubclass(error, psycopg.OperationalError)
        raised = error('a message')
        assert type(raised)(*raised.args).args == ('a message',)
        assert str(raised) == 'a message'
        assert pickle.loads(pickle.dumps(raised)).args == ('a message',)
    assert issubclass(PoolTimeout, TimeoutError)
    original = pytest.importorskip('psycopg_pool')
    assert issubclass(PoolTimeout, original.PoolTimeout)
    assert PoolClosed is original.PoolClosed
    assert isinstance(kind('', open=False), getattr(original, kind.__name__))


@pools
def test_a_time_limit_of_0_raises_even_if_a_connection_is_idle_and_is_not_counted(dsn: str, kind: Any) -> None:
    with kind(dsn, min_size=fewest(kind)) as pool:
        pool.wait()
        for limit in (0, -1.0):
            with pytest.raises(PoolTimeout):
                pool.getconn(limit)
        assert pool.get_stats()['requests_errors'] == 0


@pools
def test_a_client_whose_time_is_up_is_counted_and_loses_nothing(dsn: str, kind: Any) -> None:
    with kind(dsn, min_size=fewest(kind), max_size=1, timeout=0.05) as pool:
        with pool.connection(timeout=10):
            with pytest.raises(PoolTimeout, match=pool.name):
                pool.getconn()
            block = pool.connection()
            with pytest.raises(PoolTimeout):
                block.__enter__()
        with pool.connection(timeout=10):
            pass
        stats = pool.get_stats()
        assert (stats['requests_errors'], stats['requests_num'], stats['requests_waiting']) == (2, 4, 0)
        assert stats['requests_wait_ms'] >= 80


@pools
def test_one_client_too_many_is_told_the_pool_and_how_many_wait(dsn: str, kind: Any) -> None:
    with kind(dsn, min_size=fewest(kind), max_size=1, max_waiting=1, name='busy') as pool:
        with pool.connection():
            waiter = spawn(pool.getconn)
            until(lambda: pool.get_stats()['requests_waiting'] == 1)
            with pytest.raises(TooManyRequests, match=r"'busy' has 1 clients .* max_waiting=1"):
                pool.getconn()
            assert pool.get_stats()['requests_errors'] == 1
            pool.max_waiting = 2
            second = spawn(pool.getconn)
            until(lambda: pool.get_stats()['requests_waiting'] == 2)
        pool.putconn(waiter.result())
        pool.putconn(second.result())


# -- attributes -------------------------------------------------------------------------------------------------------


def test_attributes_may_be_set_while_the_pool_works(dsn: str) -> None:
    class Own(psycopg.Connection[Any]):
        pass

    with ConnectionPool(dsn, min_size=1, max_size=2) as pool:
        pool.wait()
        pool.timeout = 0.05
        pool.connection_class = Own
        pool.num_workers = 1
        pool.max_idle = 5.0
        pool.reconnect_timeout = 1.0
        pool.max_lifetime = 0.1
        pool.drain()
        pool.wait()
        conn = pool.getconn()
        assert isinstance(conn, Own)
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 0.1)
        pool.putconn(conn)
        until(lambda: conn.closed)
        with pytest.raises(ValueError, match='num_workers=0'):
            pool.num_workers = 0
        assert pool.num_workers == 1


# -- statistics -------------------------------------------------------------------------------------------------------


@pools
def test_all_statistics_are_always_there_as_ints(kind: Any) -> None:
    pool = kind('', open=False)
    stats = pool.get_stats()
    assert set(stats) == COUNTERS | GAUGES
    assert {type(value) for value in stats.values()} == {int}
    assert pool.pop_stats() == stats


def test_pop_stats_resets_the_counters_and_not_the_gauges(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=2) as pool:
        pool.wait()
        with pool.connection():
            began = time.monotonic()
            until(lambda: time.monotonic() > began + 0.01)
        popped = pool.pop_stats()
        assert (popped['requests_num'], popped['connections_num'], popped['pool_size']) == (1, 2, 2)
        assert popped['usage_ms'] >= 10
        assert popped['connections_ms'] > 0
        stats = pool.get_stats()
        assert {name for name in COUNTERS if stats[name]} == set()
        assert (stats['pool_min'], stats['pool_max'], stats['pool_size'], stats['pool_available']) == (2, 2, 2, 2)


def test_usage_is_counted_only_through_connection(dsn: str) -> None:
    with ConnectionPool(dsn, min_size=1) as pool:
        conn = pool.getconn()
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 0.01)
        pool.putconn(conn)
        assert pool.get_stats()['usage_ms'] == 0


# -- null pools -------------------------------------------------------------------------------------------------------


def test_a_null_pool_keeps_nothing_but_hands_over_to_clients_that_wait(dsn: str) -> None:
    resets: list[Any] = []

    def reset(conn: Any) -> None:
        resets.append(conn)

    with NullConnectionPool(dsn, max_size=1, reset=reset, close_returns=True) as pool:
        assert not pool.close_returns
        conn = pool.getconn()
        pool.putconn(conn)
        assert conn.closed
        assert resets == []
        conn = pool.getconn()
        waiter = spawn(pool.getconn)
        until(lambda: pool.get_stats()['requests_waiting'] == 1)
        pool.putconn(conn)
        assert waiter.result() is conn
        assert resets == [conn]
        pool.putconn(conn)
        pool.check()
        pool.resize(0, 3)
        assert pool.max_size == 3
        with pytest.raises(ValueError, match='min_size=1'):
            pool.resize(1, 3)


def test_a_null_pool_gives_the_driver_the_time_that_is_left(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    connect = psycopg.Connection.connect

    def traced(conninfo: str, **kwargs: Any) -> Any:
        seen.append(kwargs.get('connect_timeout'))
        return connect(conninfo, **kwargs)

    monkeypatch.setattr(psycopg.Connection, 'connect', traced)
    with NullConnectionPool(dsn) as pool:
        for limit in (10.2, 0.9):
            pool.putconn(pool.getconn(limit))
        assert seen == [10, 1]


def test_a_null_pool_tells_its_client_that_connecting_fails(proxied: str, proxy: Proxy) -> None:
    proxy.resets()
    with NullConnectionPool(proxied) as pool:
        with pytest.raises(psycopg.OperationalError) as caught:
            pool.getconn(timeout=10)
        assert not isinstance(caught.value, PoolTimeout)
        assert pool.get_stats()['pool_size'] == 0
