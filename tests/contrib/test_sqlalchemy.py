"""QueuePool for SQLAlchemy engines, on a driver without a database: what its parameters do."""

import importlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip('sqlalchemy')

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy import pool as original

from gcpool.contrib.sqlalchemy import AsyncQueuePool, QueuePool
from tests.contrib.dbapi import SOON, FakeDriver, number_of, pass_a_tick, waiting
from tests.contrib.servers import PATIENCE


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


class TestParameters:
    def test_defaults_are_those_of_the_original(self, driver: FakeDriver) -> None:
        ours, theirs = QueuePool(driver.connect), original.QueuePool(driver.connect)
        assert (ours.size(), ours.timeout(), ours._max_overflow) == (5, 30.0, 10)
        assert (ours.size(), ours.timeout(), ours._max_overflow) == (
            theirs.size(),
            theirs.timeout(),
            theirs._max_overflow,
        )
        assert ours._pool.use_lifo is False

    def test_pool_size_is_how_many_idle_connections_are_kept(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=2, max_overflow=3)
        conns = [pool.connect() for _ in range(5)]
        for conn in conns:
            conn.close()
        assert (pool.checkedin(), driver.open) == (2, [0, 1])

    def test_pool_size_0_is_no_limit(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=0, max_overflow=3)
        conns = [pool.connect() for _ in range(40)]
        assert (pool.size(), pool.checkedout(), pool.overflow(), pool._max_overflow) == (0, 40, 0, -1)
        for conn in conns:
            conn.close()
        assert (pool.checkedin(), len(driver.open)) == (40, 40)

    def test_max_overflow_is_how_many_there_may_be_beyond(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=2, max_overflow=1, timeout=SOON)
        conns = [pool.connect() for _ in range(3)]
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        assert (len(driver.made), pool.overflow()) == (3, 1)
        conns[0].close()
        assert number_of(pool.connect()) == 0

    def test_max_overflow_minus_1_is_no_limit(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=2, max_overflow=-1)
        conns = [pool.connect() for _ in range(40)]
        assert (pool._max_overflow, pool.overflow()) == (-1, 38)
        for conn in conns:
            conn.close()
        assert (pool.checkedin(), driver.open) == (2, [0, 1])

    def test_timeout_is_how_long_a_checkout_waits(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=SOON)
        conn = pool.connect()
        started = time.monotonic()
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        assert time.monotonic() - started >= SOON
        conn.close()

    def test_timeout_0_does_not_wait_but_connects(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        driver.before = pass_a_tick
        conn = pool.connect()
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        conn.close()

    def test_timeout_none_waits_on(self, driver: FakeDriver, executor: ThreadPoolExecutor) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=None)
        conn = pool.connect()
        with waiting(pool, executor) as (waiter,):
            conn.close()
            waiter.result(PATIENCE).close()
        assert pool.timeout() is None

    def test_timeout_does_not_limit_a_connect(self, driver: FakeDriver) -> None:
        timeout = 0.001
        pool = QueuePool(driver.connect, timeout=timeout)
        driver.before = lambda: time.sleep(2 * timeout)
        pool.connect().close()
        assert pool.checkedin() == 1

    def test_timeout_can_be_changed(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0)
        conn = pool.connect()
        pool._timeout = SOON
        with pytest.raises(exc.TimeoutError, match=r'timeout 0\.02'):
            pool.connect()
        conn.close()

    def test_connections_are_served_in_turn(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=3)
        for conn in [pool.connect() for _ in range(3)]:
            conn.close()
        served = []
        for _ in range(6):
            with pool.connect() as conn:
                served.append(number_of(conn))
        assert served == [0, 1, 2, 0, 1, 2]

    def test_use_lifo_serves_the_one_returned_last(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=3, use_lifo=True)
        for conn in [pool.connect() for _ in range(3)]:
            conn.close()
        served = []
        for _ in range(3):
            with pool.connect() as conn:
                served.append(number_of(conn))
        assert served == [2, 2, 2]

    def test_use_lifo_keeps_as_many(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=2, max_overflow=3, use_lifo=True)
        for conn in [pool.connect() for _ in range(5)]:
            conn.close()
        # The surplus one is the one that is returned.
        assert (pool.checkedin(), driver.open, pool.overflow()) == (2, [0, 1], 0)

    def test_use_lifo_without_a_limit_keeps_all(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=0, use_lifo=True)
        for conn in [pool.connect() for _ in range(9)]:
            conn.close()
        assert (pool.checkedin(), len(driver.open)) == (9, 9)

    def test_max_overflow_can_be_changed(self, driver: FakeDriver, executor: ThreadPoolExecutor) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0)
        conn = pool.connect()
        with waiting(pool, executor) as (waiter,):
            pool._max_overflow = 1
            assert number_of(waiter.result(PATIENCE)) == 1
        pool._max_overflow = -1
        assert pool._max_overflow == -1
        conn.close()


class TestWithoutIdleConnections:
    """``keep_idle=False``: what NullPool does, and with a limit if that is wanted."""

    def test_closes_what_is_returned(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, keep_idle=False)
        for number in range(3):
            with pool.connect() as conn:
                assert number_of(conn) == number
        assert (driver.open, pool.checkedin(), pool.checkedout()) == ([], 0, 0)

    def test_is_limited(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=1, timeout=SOON, keep_idle=False)
        conns = [pool.connect() for _ in range(2)]
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        for conn in conns:
            conn.close()
        assert driver.open == []

    def test_is_unlimited_as_null_pool_is(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=0, keep_idle=False)
        for conn in [pool.connect() for _ in range(30)]:
            conn.close()
        assert (len(driver.made), driver.open) == (30, [])

    @pytest.mark.parametrize('use_lifo', [False, True])
    def test_hands_over_to_one_who_waits(
        self, driver: FakeDriver, executor: ThreadPoolExecutor, use_lifo: bool
    ) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, keep_idle=False, use_lifo=use_lifo)
        conn = pool.connect()
        with waiting(pool, executor) as (waiter,):
            conn.close()
            second = waiter.result(PATIENCE)
        assert number_of(second) == 0
        second.close()
        assert driver.open == []

    def test_create_engine_passes_it_on_and_recreate_keeps_it(self, tmp_path: Any) -> None:
        engine = sa.create_engine(f'sqlite:///{tmp_path}/a.db', poolclass=QueuePool, keep_idle=False)
        for _ in range(2):
            with engine.connect() as conn:
                assert conn.scalar(sa.text('SELECT 1')) == 1
            assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]
            engine.dispose()


class TestWhatProgramsRead:
    def test_it_is_one_of_sqlalchemys_pools(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect)
        assert isinstance(pool, original.Pool)
        assert isinstance(pool, original.QueuePool)
        assert issubclass(AsyncQueuePool, original.AsyncAdaptedQueuePool)
        assert (QueuePool._is_asyncio, AsyncQueuePool._is_asyncio) == (False, True)

    def test_the_module_has_nothing_else(self) -> None:
        assert importlib.import_module('gcpool.contrib.sqlalchemy').__all__ == ['AsyncQueuePool', 'QueuePool']

    def test_all_public_methods_of_the_original_are_its_own(self) -> None:
        # A release of SQLAlchemy that adds a method to its QueuePool fails here: it might use the queue.
        own = set(vars(QueuePool)) | set(vars(original.Pool))
        reviewed = {'_dec_overflow', '_inc_overflow', '_queue_class', '_is_asyncio', '_pool'}
        for kind in (original.QueuePool, original.AsyncAdaptedQueuePool):
            added = {name for name in vars(kind) if not name.startswith('__')}
            assert added - own <= reviewed | {'_dialect'}

    def test_sizes(self, driver: FakeDriver) -> None:
        for pool in (
            QueuePool(driver.connect, pool_size=2, max_overflow=3),
            original.QueuePool(driver.connect, pool_size=2, max_overflow=3),
        ):
            seen: list[tuple[int, ...]] = []

            def look(pool: Any = pool, seen: list[Any] = seen) -> None:
                seen.append((pool.size(), pool.checkedin(), pool.checkedout(), pool.overflow(), pool._overflow))

            look()
            conns = []
            for _ in range(4):
                conns.append(pool.connect())
                look()
            for conn in conns:
                conn.close()
                look()
            assert seen == [
                (2, 0, 0, -2, -2),
                (2, 0, 1, -1, -1),
                (2, 0, 2, 0, 0),
                (2, 0, 3, 1, 1),
                (2, 0, 4, 2, 2),
                (2, 1, 3, 2, 2),
                (2, 2, 2, 2, 2),
                (2, 2, 1, 1, 1),
                (2, 2, 0, 0, 0),
            ]

    def test_status(self, driver: FakeDriver) -> None:
        ours, theirs = QueuePool(driver.connect), original.QueuePool(driver.connect)
        held = [pool.connect() for pool in (ours, theirs)]
        expected = 'Pool size: 5  Connections in pool: 0 Current Overflow: -4 Current Checked out connections: 1'
        assert ours.status() == theirs.status() == expected
        for conn in held:
            conn.close()

    def test_pool_has_what_is_read_of_the_queue(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=2, use_lifo=True)
        queue = pool._pool
        assert (queue.maxsize, queue.use_lifo, queue.qsize(), queue.empty(), queue.full()) == (2, True, 0, True, False)
        for conn in [pool.connect() for _ in range(2)]:
            conn.close()
        assert (queue.qsize(), queue.empty(), queue.full()) == (2, False, True)

    def test_log_records_come_under_the_name_of_the_original(
        self, driver: FakeDriver, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG, 'sqlalchemy.pool'):
            pool = QueuePool(driver.connect)
            pool.connect().close()
            pool.dispose()
        assert {record.name for record in caplog.records} == {'sqlalchemy.pool.impl.QueuePool'}
        assert 'Pool disposed. Pool size: 5' in caplog.text
        assert 'Created new connection <FakeConnection 0>' in caplog.text


class TestSubclasses:
    @pytest.mark.parametrize('use_lifo', [False, True])
    def test_what_a_subclass_overrides_is_called(self, driver: FakeDriver, use_lifo: bool) -> None:
        calls: list[str] = []

        class Counting(QueuePool):
            def _do_get(self) -> Any:
                calls.append('get')
                return super()._do_get()

            def _do_return_conn(self, record: Any) -> None:
                calls.append('return')
                super()._do_return_conn(record)

        pool = Counting(driver.connect, pool_size=1, use_lifo=use_lifo)
        conns = [pool.connect() for _ in range(2)]
        for conn in conns:
            conn.close()
        assert calls == ['get', 'get', 'return', 'return']
        assert (pool.checkedin(), len(driver.open)) == (1, 1)

    def test_the_time_limit_of_a_pool_may_be_changed(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=None)
        conn = pool.connect()
        pool._timeout = 0.0
        with pytest.raises(exc.TimeoutError, match=r'timeout 0\.00'):
            pool.connect()
        conn.close()
