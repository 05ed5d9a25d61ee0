"""QueuePool for SQLAlchemy engines, on a driver without a database: who is served, and by what."""

import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip('sqlalchemy')

from sqlalchemy import event, exc
from sqlalchemy import pool as original

from gcpool.contrib.sqlalchemy import AsyncQueuePool, QueuePool
from gcpool.exceptions import PoolTimeout
from tests.contrib.dbapi import SOON, FakeDriver, FakeError, number_of, waiting
from tests.contrib.servers import PATIENCE


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


class TestTimeoutError:
    def test_is_the_original_one(self, driver: FakeDriver) -> None:
        said = []
        for pool in (
            QueuePool(driver.connect, pool_size=1, max_overflow=1, timeout=SOON),
            original.QueuePool(driver.connect, pool_size=1, max_overflow=1, timeout=SOON),
        ):
            conns = [pool.connect() for _ in range(2)]
            with pytest.raises(exc.TimeoutError) as caught:
                pool.connect()
            assert caught.value.code == '3o7r'
            said.append(str(caught.value))
            for conn in conns:
                conn.close()
        assert said[0] == said[1]
        assert said[0].startswith(
            'QueuePool limit of size 1 overflow 1 reached, connection timed out, timeout 0.02 (Background on this error'
        )

    def test_its_cause_says_how_many_wait(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=SOON)
        conn = pool.connect()
        with pytest.raises(exc.TimeoutError) as caught:
            pool.connect()
        assert isinstance(caught.value.__cause__, PoolTimeout)
        assert '1 in use' in str(caught.value.__cause__)
        conn.close()

    def test_a_timeout_of_the_creator_is_its_own(self, driver: FakeDriver) -> None:
        driver.failure = PoolTimeout('the pool behind the creator')
        with pytest.raises(PoolTimeout, match='behind the creator'):
            QueuePool(driver.connect).connect()

    def test_one_that_has_timed_out_leaves_its_place(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=SOON)
        conn = pool.connect()
        with pytest.raises(exc.TimeoutError):
            pool.connect()
        conn.close()
        with pool.connect() as conn:
            assert number_of(conn) == 0


class TestServing:
    def test_threads_that_wait_are_served_in_their_order(
        self, driver: FakeDriver, executor: ThreadPoolExecutor
    ) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0)
        conn: Any = pool.connect()
        with waiting(pool, executor, 6) as waiters:
            for number, waiter in enumerate(waiters):
                conn.close()
                conn = waiter.result(PATIENCE)
                assert not any(other.done() for other in waiters[number + 1 :])
        conn.close()
        assert len(driver.made) == 1

    def test_one_that_just_returned_does_not_overtake(self, driver: FakeDriver, executor: ThreadPoolExecutor) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        conn = pool.connect()
        pool._timeout = PATIENCE
        with waiting(pool, executor) as (waiter,):
            pool._timeout = 0
            conn.close()
            with pytest.raises(exc.TimeoutError):
                pool.connect()
            waiter.result(PATIENCE).close()

    @pytest.mark.stress
    def test_no_thread_is_left_out(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0)
        served = [0] * 12
        end = threading.Event()
        deadline = time.monotonic() + PATIENCE

        def work(index: int) -> None:
            while not end.is_set():
                with pool.connect():
                    # A thread that does not run is not left out: who has the connection keeps it until all others wait.
                    while pool._pool.get_stats()['waiting'] < len(served) - 1 and not end.is_set():
                        assert time.monotonic() < deadline
                        time.sleep(0.0005)
                    served[index] += 1
                    if served[index] >= 15:
                        end.set()

        with ThreadPoolExecutor(len(served)) as threads:
            for done in [threads.submit(work, index) for index in range(len(served))]:
                done.result(PATIENCE)
        # Those that still wait at the end are served once more.
        assert max(served) - min(served) <= 2, served
        assert len(driver.made) == 1


class TestConnecting:
    def test_a_failed_connect_takes_no_place(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        driver.failure = FakeError('no server')
        for _ in range(3):
            with pytest.raises(FakeError, match='no server'):
                pool.connect()
        driver.failure = None
        assert (pool.checkedout(), pool._overflow) == (0, -1)
        pool.connect().close()

    def test_an_interrupted_connect_takes_no_place(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0, timeout=0)
        driver.failure = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            pool.connect()
        driver.failure = None
        pool.connect().close()

    def test_one_who_waits_connects_when_a_connect_fails(
        self, driver: FakeDriver, executor: ThreadPoolExecutor
    ) -> None:
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=0)
        proceed = threading.Event()

        def fail_late() -> None:
            driver.before = lambda: None
            assert proceed.wait(PATIENCE)
            raise FakeError

        driver.before = fail_late
        first = executor.submit(pool.connect)
        with waiting(pool, executor) as (waiter,):
            proceed.set()
            assert number_of(waiter.result(PATIENCE)) == 0
        with pytest.raises(FakeError):
            first.result(PATIENCE)


class TestDisposeAndRecreate:
    def test_dispose_closes_the_idle_ones_in_the_caller(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect)
        held = pool.connect()
        for conn in [pool.connect() for _ in range(3)]:
            conn.close()
        pool.dispose()
        assert (driver.open, pool.checkedin(), pool.checkedout()) == ([0], 0, 1)
        assert driver.closed_by == [threading.get_ident()] * 3
        held.close()

    def test_the_pool_goes_on_after_dispose(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=2)
        pool.dispose()
        held = pool.connect()
        pool.dispose()
        held.close()
        with pool.connect() as conn:
            assert number_of(conn) == 0
        pool.dispose()
        pool.dispose()
        with pool.connect() as conn:
            assert number_of(conn) == 1

    def test_recreate_connects_nothing_and_starts_nothing(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect, pool_size=2)
        threads = threading.active_count()
        new = pool.recreate()
        assert (driver.made, threading.active_count(), new.checkedout()) == ([], threads, 0)

    @pytest.mark.parametrize('kind', [QueuePool, AsyncQueuePool])
    def test_recreate_keeps_the_parameters(self, driver: FakeDriver, kind: type[QueuePool]) -> None:
        options: dict[str, Any] = {
            'pool_size': 3,
            'max_overflow': 4,
            'timeout': 5.0,
            'use_lifo': True,
            'keep_idle': False,
            'recycle': 6,
            'pre_ping': True,
            'reset_on_return': 'commit',
            'logging_name': 'mine',
        }
        pool: Any = kind(driver.connect, **options).recreate()
        assert type(pool) is kind
        assert (pool.size(), pool._max_overflow, pool.timeout(), pool._pool.use_lifo) == (3, 4, 5.0, True)
        assert (pool._recycle, pool._pre_ping, pool._orig_logging_name, pool._keep_idle) == (6, True, 'mine', False)
        assert pool._reset_on_return is original.base.reset_commit
        pool.recreate()._creator().close()  # type: ignore[call-arg]
        assert len(driver.made) == 1

    def test_recreate_keeps_that_there_is_no_limit(self, driver: FakeDriver) -> None:
        assert QueuePool(driver.connect, pool_size=0).recreate()._max_overflow == -1
        assert QueuePool(driver.connect, max_overflow=-1).recreate()._max_overflow == -1

    def test_recreate_keeps_the_events(self, driver: FakeDriver) -> None:
        pool = QueuePool(driver.connect)
        seen = []
        event.listen(pool, 'checkout', lambda *_args: seen.append('checkout'))
        pool.recreate().connect().close()
        assert seen == ['checkout']

    def test_recreate_of_a_subclass_that_knows_the_original_parameters_only(self, driver: FakeDriver) -> None:
        class Mine(QueuePool):
            def __init__(self, creator: Any, pool_size: int = 5, max_overflow: int = 10, **options: Any) -> None:
                assert 'keep_idle' not in options
                super().__init__(creator, pool_size, max_overflow, **options)

        assert isinstance(Mine(driver.connect).recreate(), Mine)

    def test_a_dropped_pool_says_nothing_and_is_freed(self, driver: FakeDriver) -> None:
        # As engines are that nobody disposes of. Warnings are errors here.
        pool = QueuePool(driver.connect)
        pool.connect().close()
        held = pool.connect()
        gone = weakref.ref(pool)
        del pool
        held.close()
        del held
        driver.made.clear()
        gc.collect()
        assert gone() is None

    def test_nothing_is_started(self, driver: FakeDriver) -> None:
        threads = threading.active_count()
        pool = QueuePool(driver.connect, pool_size=1, max_overflow=2, timeout=SOON)
        for conn in [pool.connect() for _ in range(3)]:
            conn.close()
        pool.dispose()
        assert threading.active_count() == threads
