"""What SQLAlchemy's records do for each connection goes on working with QueuePool, on a driver without a database."""

import gc
import threading
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip('sqlalchemy')

from sqlalchemy import event, exc
from sqlalchemy import pool as original

from gcpool.contrib.sqlalchemy import QueuePool
from tests.conftest import FREE_THREADED
from tests.contrib.dbapi import FakeConnection, FakeDriver, FakeError, number_of, pass_a_tick


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


class TestRecords:
    """What SQLAlchemy's records do goes on working."""

    def test_reset_on_return(self, driver: FakeDriver) -> None:
        for option, calls in {'rollback': ['rollback'], 'commit': ['commit'], None: []}.items():
            pool = QueuePool(driver.connect, reset_on_return=option)
            pool.connect().close()
            assert driver.made[-1].calls == calls

    def test_a_failed_reset_closes_the_connection(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        conn = pool.connect()
        driver.made[0].rollback = types.MethodType(lambda _self: 1 / 0, driver.made[0])  # type: ignore[method-assign]
        conn.close()
        assert (driver.made[0].closed, pool.checkedin()) == (True, 1)
        with pool.connect() as conn:
            assert number_of(conn) == 1

    def test_recycle(self, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        pool = QueuePool(driver.connect, pool_size=1, recycle=30)
        pool.connect().close()
        pool.connect().close()
        assert len(driver.made) == 1
        later = time.time() + 31
        monkeypatch.setattr(time, 'time', lambda: later)
        with pool.connect() as conn:
            assert number_of(conn) == 1
        assert (driver.open, pool._overflow) == ([1], 0)

    def test_invalidate(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        conn = pool.connect()
        conn.invalidate()
        # The record is pooled without a connection.
        assert (driver.open, pool.checkedout()) == ([], 0)
        assert (pool.checkedin(), pool._overflow) == (1, 0)
        with pool.connect() as conn:
            assert number_of(conn) == 1

    def test_soft_invalidate(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1)
        conn = pool.connect()
        pass_a_tick()
        conn.invalidate(soft=True)
        assert driver.open == [0]
        conn.close()
        with pool.connect() as conn:
            assert number_of(conn) == 1
        assert driver.open == [1]

    def test_detach(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        conn = pool.connect()
        conn.detach()
        assert (conn.is_detached, pool.checkedout(), pool.checkedin()) == (True, 0, 1)
        with pool.connect() as other:
            assert number_of(other) == 1
        conn.close()
        assert driver.open == [1]

    def test_a_connection_that_nobody_returned_comes_back(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        conn = pool.connect()
        del conn
        gc.collect()
        with pool.connect() as conn:
            assert number_of(conn) == 0

    @pytest.mark.stress
    @pytest.mark.parametrize('use_lifo', [False, True])
    def test_the_garbage_collector_returns_them_at_any_moment(self, driver: FakeDriver, use_lifo: bool) -> None:
        pool = QueuePool(driver.connect, pool_size=2, max_overflow=20, use_lifo=use_lifo)

        def drop(_number: int) -> None:
            for _ in range(60):
                cycle: list[Any] = [pool.connect()]
                cycle.append(cycle)
                pool.connect().close()

        def collect() -> None:
            while not dropped.is_set():
                gc.collect()

        dropped = threading.Event()
        threshold = gc.get_threshold()
        gc.set_threshold(3)
        try:
            with ThreadPoolExecutor(5) as executor:
                if FREE_THREADED:
                    # Where new objects are few beside those that stay, it is not collected by itself.
                    executor.submit(collect)
                try:
                    list(executor.map(drop, range(4)))
                finally:
                    dropped.set()
        finally:
            gc.set_threshold(*threshold)
        gc.collect()
        assert (pool.checkedin(), pool.checkedout()) == (2, 0)

    def test_events_in_the_order_of_the_original(self, driver: FakeDriver) -> None:
        names = 'connect', 'first_connect', 'checkout', 'reset', 'checkin', 'close', 'invalidate', 'detach'
        seen: dict[type, list[str]] = {QueuePool: [], original.QueuePool: []}
        for kind, said in seen.items():
            pool: Any = kind(driver.connect, pool_size=1, max_overflow=1)
            for name in names:
                event.listen(pool, name, lambda *_args, said=said, name=name, **_named: said.append(name))
            conns = [pool.connect(), pool.connect()]
            for conn in conns:
                conn.close()
            with pool.connect() as conn:
                conn.invalidate()
            with pool.connect() as conn:
                conn.detach()
            pool.dispose()
        assert seen[QueuePool] == seen[original.QueuePool]
        assert set(seen[QueuePool]) == set(names)

    @pytest.mark.parametrize('kind', [original.Pool, original.QueuePool])
    def test_listeners_of_all_pools_hear_of_it(self, driver: FakeDriver, kind: type[original.Pool]) -> None:
        seen = []

        def listen(*_args: object) -> None:
            seen.append('checkout')

        event.listen(kind, 'checkout', listen)
        try:
            QueuePool(driver.connect).connect().close()
        finally:
            event.remove(kind, 'checkout', listen)
        assert seen == ['checkout']

    def test_a_checkout_listener_that_refuses_gets_another_connection(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        refused = []

        @event.listens_for(pool, 'checkout')
        def refuse_the_first(dbapi_connection: FakeConnection, *_args: object) -> None:
            if dbapi_connection.number == 0:
                refused.append(dbapi_connection)
                raise exc.DisconnectionError

        with pool.connect() as conn:
            assert number_of(conn) == 1
        assert (len(refused), driver.open) == (1, [1])

    def test_a_failed_checkout_takes_no_place(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)

        def fail(*_args: object) -> None:
            raise FakeError

        event.listen(pool, 'checkout', fail)
        for _ in range(3):
            with pytest.raises(FakeError):
                pool.connect()
        event.remove(pool, 'checkout', fail)
        pool.connect().close()
        assert (pool.checkedin(), pool.checkedout()) == (1, 0)

    def test_info_stays_with_the_connection(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1)
        with pool.connect() as conn:
            conn.info['seen'] = True
        with pool.connect() as conn:
            assert conn.info == {'seen': True}
            conn.invalidate()
        with pool.connect() as conn:
            assert conn.info == {}

    def test_a_surplus_connection_whose_close_fails_is_gone(
        self, driver: FakeDriver, caplog: pytest.LogCaptureFixture
    ) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=1, timeout=0)
        first, second = pool.connect(), pool.connect()
        first.close()
        driver.made[1].close = types.MethodType(lambda _self: 1 / 0, driver.made[1])  # type: ignore[method-assign]
        second.close()
        assert 'Exception closing connection <FakeConnection 1>' in caplog.text
        assert (pool.checkedin(), pool.checkedout(), pool.overflow()) == (1, 0, 0)
