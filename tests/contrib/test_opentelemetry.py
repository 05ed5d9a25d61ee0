"""Metrics for OpenTelemetry: what the SDK's reader collects is what the pools say of themselves."""

import asyncio
import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import gcpool.asyncio
from gcpool.contrib.http import HttpConnectionManager
from gcpool.contrib.sqlite3 import SqliteConnectionManager
from gcpool.threading import ConnectionPool
from tests.conftest import QUICK
from tests.monitor.support import AsyncManager, Manager, modules_called
from tests.support import PATIENCE, program_environment

pytest.importorskip('opentelemetry.sdk.metrics', exc_type=ImportError)

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from gcpool.contrib.opentelemetry import instrument, uninstrument

THREADS = 16
CYCLES = 20_000 if QUICK else 1_000_000


class Reader:
    """A provider, and what is read from it."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self._reader])

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        found = [
            metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
        ]
        metrics = {metric.name: metric for metric in found}
        assert len(metrics) == len(found), 'an instrument is there twice'
        return metrics

    def read(self) -> dict[tuple[str, frozenset[tuple[str, Any]]], float]:
        return {
            (name, frozenset(point.attributes.items())): point.value
            for name, metric in self.metrics().items()
            for point in metric.data.data_points
        }


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.provider.shutdown()


@pytest.fixture
def pool() -> Iterator[ConnectionPool[Any, object]]:
    with ConnectionPool(Manager(), name='orders', max_size=4, total_max_size=8) as pool:
        yield pool


def value(values: dict[Any, float], name: str, pool: str = 'orders', *, db: bool = True, **attributes: str) -> float:
    prefix = 'db.client.connection' if db else 'gcpool.connection'
    named = {f'{prefix}.{key}': text for key, text in attributes.items()}
    return values[f'{prefix}.{name}', frozenset({f'{prefix}.pool.name': pool, **named}.items())]


def check_equal(values: dict[Any, float], stats: Any, pool: str = 'orders', *, db: bool = True) -> None:
    assert value(values, 'count', pool, db=db, state='idle') == stats['idle']
    assert value(values, 'count', pool, db=db, state='used') == stats['in_use']
    for name, key in (
        *(('idle.max', 'total_max_size'), ('idle.min', 'min_idle'), ('max', 'total_max_size')),
        *(('pending_requests', 'waiting'), ('timeouts', 'timeouts')),
    ):
        assert value(values, name, pool, db=db) == stats[key]
    for key in ('wait', 'create', 'use'):
        assert value(values, f'{key}_time', pool, db=db) == stats.histograms[key].sum
        assert value(values, f'{key}_time.count', pool, db=db) == stats.histograms[key].count


def test_what_is_read_is_what_the_pool_says(reader: Reader, pool: ConnectionPool[Any, object]) -> None:
    instrument(pool, reader.provider, database=True)
    with pool.connection('a'), pool.connection('b'):
        pool.release(pool.acquire('b'))
        check_equal(reader.read(), pool.get_stats())
    values = reader.read()
    check_equal(values, pool.get_stats())
    assert value(values, 'count', state='used') == 0
    assert len(values) == 13


def test_units_and_kinds_are_those_of_the_conventions(reader: Reader, pool: ConnectionPool[Any, object]) -> None:
    instrument(pool, reader.provider, database=True)
    found = {name.removeprefix('db.client.connection.'): metric for name, metric in reader.metrics().items()}
    assert {name: metric.unit for name, metric in found.items()} == {
        **dict.fromkeys(('count', 'idle.max', 'idle.min', 'max'), '{connection}'),
        'pending_requests': '{request}',
        'timeouts': '{timeout}',
        **dict.fromkeys(('wait_time', 'create_time', 'use_time'), 's'),
        **dict.fromkeys(('wait_time.count', 'create_time.count', 'use_time.count'), '1'),
    }
    monotonic = {name for name, metric in found.items() if metric.data.is_monotonic}
    assert monotonic == {'timeouts', *(name for name in found if '_time' in name)}


def test_what_leads_to_no_database_has_names_of_its_own(reader: Reader) -> None:
    with (
        ConnectionPool(SqliteConnectionManager(), name='sqlite') as sqlite,
        ConnectionPool(HttpConnectionManager(), name='http') as http,
        ConnectionPool(Manager(), name='custom') as custom,
        ConnectionPool(Manager(), name='custom database') as database,
    ):
        for pool in (sqlite, http, custom):
            instrument(pool, reader.provider)
        instrument(database, reader.provider, database=True)
        values = reader.read()
        check_equal(values, sqlite.get_stats(), 'sqlite')
        check_equal(values, http.get_stats(), 'http', db=False)
        check_equal(values, custom.get_stats(), 'custom', db=False)
        check_equal(values, database.get_stats(), 'custom database')


def test_a_subclass_of_a_manager_is_what_that_is(reader: Reader) -> None:
    class Mine(SqliteConnectionManager):
        pass

    with ConnectionPool(Mine(), name='mine') as pool:
        instrument(pool, reader.provider)
        check_equal(reader.read(), pool.get_stats(), 'mine')


def test_a_manager_of_no_class_of_gcpool(reader: Reader) -> None:
    class Duck:
        def create(self, endpoint: Any, timeout: float | None = None) -> object:
            return object()

        def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
            pass

    with ConnectionPool(Duck(), name='duck') as pool:  # type: ignore[arg-type, var-annotated]
        instrument(pool, reader.provider)
        check_equal(reader.read(), pool.get_stats(), 'duck', db=False)


def test_asyncio(reader: Reader) -> None:
    async def main() -> None:
        async with gcpool.asyncio.ConnectionPool(AsyncManager(), name='async') as pool:
            instrument(pool, reader.provider)
            async with pool.connection('a'):
                check_equal(reader.read(), pool.get_stats(), 'async', db=False)

    asyncio.run(main())
    assert reader.read() == {}


def test_after_many_cycles_in_many_threads_no_count_is_lost(reader: Reader) -> None:
    # A connection for each thread: a million cycles that each wait for the one before would take minutes.
    with ConnectionPool(Manager(), name='orders', max_size=THREADS) as pool:

        def work() -> None:
            for _ in range(CYCLES // THREADS):
                pool.release(pool.acquire('a', timeout=60))

        instrument(pool, reader.provider, database=True)
        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            values = reader.read()
            # Counts that are added and subtracted went negative elsewhere.
            assert min(values.values()) >= 0
            assert value(values, 'count', state='used') <= THREADS
            threads[0].join(0.01)
        for thread in threads:
            thread.join()
        values = reader.read()
        assert value(values, 'use_time.count') == CYCLES // THREADS * THREADS
        assert value(values, 'count', state='used') == 0
        check_equal(values, pool.get_stats())


def test_neither_an_acquire_nor_a_release_does_anything_for_it(
    reader: Reader, pool: ConnectionPool[Any, object]
) -> None:
    instrument(pool, reader.provider)
    called = modules_called(pool)
    assert not [name for name in called if 'opentelemetry' in name or 'monitor' in name]


def test_pools_of_one_name_are_summed(reader: Reader, pool: ConnectionPool[Any, object]) -> None:
    with ConnectionPool(Manager(), name='orders') as second:
        instrument(pool, reader.provider)
        instrument(second, reader.provider)
        with pool.connection('a'), second.connection('a'), second.connection('a'):
            assert value(reader.read(), 'count', db=False, state='used') == 3
    # The gauges are those of what is open. The counters do not fall.
    values = reader.read()
    assert value(values, 'count', db=False, state='idle') == 1
    assert value(values, 'max', db=False) == pool.get_stats()['total_max_size']
    assert value(values, 'use_time.count', db=False) == 3


@pytest.mark.parametrize('is_closed', [True, False])
@pytest.mark.parametrize('is_dropped', [True, False])
def test_no_counter_falls_when_a_pool_of_that_name_goes(
    reader: Reader, pool: ConnectionPool[Any, object], is_closed: bool, is_dropped: bool
) -> None:
    second = ConnectionPool(Manager(), name='orders', max_size=1)
    instrument(pool, reader.provider)
    instrument(second, reader.provider)
    pool.release(pool.acquire('a'))
    second.release(second.acquire('a'))
    counters = [name for name, metric in reader.metrics().items() if metric.data.is_monotonic]
    before = reader.read()
    with second.connection('a'), pytest.raises(TimeoutError):
        second.acquire('a', timeout=0.0)
    if is_closed:
        second.close()
    if is_dropped:
        with warnings.catch_warnings():
            # It says that it was never closed.
            warnings.simplefilter('ignore', ResourceWarning)
            del second
            gc.collect()
    values = reader.read()
    assert all(values[key] >= before[key] for key in before if key[0] in counters)
    assert value(values, 'use_time.count', db=False) == 3
    assert value(values, 'timeouts', db=False) == 1
    if not is_dropped:
        second.close()  # pyright: ignore[reportPossiblyUnboundVariable]


def test_no_counter_falls_when_a_pool_is_exported_no_more(reader: Reader, pool: ConnectionPool[Any, object]) -> None:
    with ConnectionPool(Manager(), name='orders') as second:
        instrument(pool, reader.provider)
        instrument(second, reader.provider)
        second.release(second.acquire('a'))
        uninstrument(second)
        second.release(second.acquire('a'))
        # It counts as it did then, and is not counted twice when it is exported again.
        assert value(reader.read(), 'use_time.count', db=False) == 1
        instrument(second, reader.provider)
        assert value(reader.read(), 'use_time.count', db=False) == 2
        uninstrument(second)
        second.release(second.acquire('a'))
    del second
    assert value(reader.read(), 'use_time.count', db=False) == 2


def test_closed_and_dropped_pools_are_gone(reader: Reader) -> None:
    first, second = ConnectionPool(Manager(), name='first'), ConnectionPool(Manager(), name='second')
    instrument(first, reader.provider)
    instrument(second, reader.provider)
    first.close()
    values = reader.read()
    check_equal(values, second.get_stats(), 'second', db=False)
    assert len(values) == 13
    del second
    gc.collect()
    assert reader.read() == {}


def test_a_pop_does_not_take_counters_back(reader: Reader, pool: ConnectionPool[Any, object]) -> None:
    instrument(pool, reader.provider)
    pool.release(pool.acquire('a'))
    before = reader.read()
    pool.pop_stats()
    assert reader.read() == before


def test_uninstrument(reader: Reader, pool: ConnectionPool[Any, object]) -> None:
    instrument(pool, reader.provider)
    uninstrument(pool)
    assert reader.read() == {}
    uninstrument(pool)
    instrument(pool, reader.provider, database=True)
    check_equal(reader.read(), pool.get_stats())


class TestBadInput:
    def test_a_pool_twice(self, reader: Reader, pool: ConnectionPool[Any, object]) -> None:
        instrument(pool, reader.provider)
        for database in (None, True, False):
            with pytest.raises(ValueError, match=r"'orders'.*is already exported to this meter provider"):
                instrument(pool, reader.provider, database=database)
        check_equal(reader.read(), pool.get_stats(), db=False)
        # Another provider is another matter.
        other = Reader()
        instrument(pool, other.provider)
        check_equal(other.read(), pool.get_stats(), db=False)
        other.provider.shutdown()

    def test_a_closed_pool(self, reader: Reader) -> None:
        pool = ConnectionPool(Manager())
        pool.close()
        with pytest.raises(ValueError, match='expected a pool that is open'):
            instrument(pool, reader.provider)

    @pytest.mark.parametrize('thing', [None, 'orders', object()])
    def test_no_pool(self, reader: Reader, thing: Any) -> None:
        with pytest.raises(TypeError, match='expected a pool of gcpool'):
            instrument(thing, reader.provider)

    def test_database_is_no_bool(self, reader: Reader, pool: ConnectionPool[Any, object]) -> None:
        with pytest.raises(TypeError, match="database='yes': expected a bool or None"):
            instrument(pool, reader.provider, database='yes')  # type: ignore[arg-type]
        assert reader.read() == {}


PRELUDE = """
from gcpool.contrib.opentelemetry import instrument
from gcpool.threading import ConnectionPool
pool = ConnectionPool.from_callables(lambda endpoint: object(), lambda endpoint, conn: None, name='orders')
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program: a process has one global meter provider, which cannot be changed."""
    return subprocess.run(
        [sys.executable, '-W', 'error', '-c', f'{PRELUDE}{program}\npool.close()\n'],
        env=program_environment(),
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


class TestGlobalProvider:
    def test_without_one_that_is_told_and_nothing_is_broken(self) -> None:
        result = run("""
instrument(pool)
with pool.connection('a'):
    print(pool.get_stats()['in_use'])
""")
        assert (result.returncode, result.stdout) == (0, '1\n')
        assert result.stderr == (
            "pool 'orders' is instrumented, and no meter provider is set: nothing is exported until "
            'opentelemetry.metrics.set_meter_provider() is called\n'
        )

    SET = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
"""
    READ = """
(metrics,) = [scope.metrics for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics]
print(len(metrics), sorted({point.attributes['gcpool.connection.pool.name']
                            for metric in metrics for point in metric.data.data_points}))
"""

    def test_one_that_is_set_before(self) -> None:
        result = run(f'{self.SET}\ninstrument(pool)\n{self.READ}')
        assert (result.returncode, result.stdout, result.stderr) == (0, "12 ['orders']\n", '')

    def test_one_that_is_set_later(self) -> None:
        result = run(f"""
import logging
logging.disable()
instrument(pool)
{self.SET}
second = ConnectionPool.from_callables(lambda endpoint: object(), lambda endpoint, conn: None, name='second')
instrument(second)
try:
    instrument(pool, metrics.get_meter_provider())
except ValueError:
    print('already')
{self.READ}
second.close()
""")
        assert (result.returncode, result.stderr) == (0, '')
        assert result.stdout == "already\n12 ['orders', 'second']\n"
