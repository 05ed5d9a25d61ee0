"""Metrics for Prometheus: what is scraped, parsed back, is what the pools say of themselves."""

import asyncio
import gc
import json
import math
import os
import re
import signal
import threading
import warnings
import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

import gcpool.asyncio
from gcpool.threading import ConnectionPool
from tests.conftest import QUICK
from tests.monitor.support import AsyncManager, Manager, modules_called
from tests.pages import ROOT

prometheus_client = pytest.importorskip('prometheus_client')

from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from gcpool._monitor.totals import MAX_GONE_NAMES  # noqa: E402
from gcpool.contrib.prometheus import PoolCollector  # noqa: E402

THREADS = 16
CYCLES = 20_000 if QUICK else 1_000_000


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def pool() -> Iterator[ConnectionPool[Any, object]]:
    with ConnectionPool(Manager(), name='orders', max_size=4, total_max_size=8) as pool:
        yield pool


def scrape(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a scrape, by their names and labels."""
    text = generate_latest(registry).decode()
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found, f'{key} is there twice'
            found[key] = sample.value
    return found


def value(samples: dict[Any, float], name: str, **labels: str) -> float:
    return samples[f'gcpool_pool_{name}', tuple(sorted(labels.items()))]


def check_equal(samples: dict[Any, float], stats: Any, name: str) -> None:
    """The samples of a pool are what get_stats() says."""
    for state in ('idle', 'in_use', 'creating', 'checking', 'closing'):
        assert value(samples, 'connections', pool=name, state=state) == stats[state]
    assert value(samples, 'max_connections', pool=name) == stats['total_max_size']
    assert value(samples, 'waiting', pool=name) == stats['waiting']
    for counter in ('acquires', 'timeouts', 'create_errors', 'leaks'):
        assert value(samples, f'{counter}_total', pool=name) == stats[counter]
    for key in stats:
        if key.startswith('closed_'):
            assert value(samples, 'closed_total', pool=name, reason=key.removeprefix('closed_')) == stats[key]
    for key, metric in (('wait', 'acquire_wait_seconds'), ('create', 'create_seconds'), ('use', 'use_seconds')):
        histogram = stats.histograms[key]
        assert value(samples, f'{metric}_count', pool=name) == histogram.count
        assert value(samples, f'{metric}_sum', pool=name) == histogram.sum
        below = 0
        for bound, count in zip(histogram.bounds, histogram.counts, strict=True):
            below += count
            le = '+Inf' if bound == math.inf else repr(bound)
            assert value(samples, f'{metric}_bucket', pool=name, le=le) == below


def test_what_is_scraped_is_what_the_pool_says(registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
    PoolCollector(pool, registry=registry)
    with pool.connection('a'), pool.connection('b'):
        pool.release(pool.acquire('b'))
        pool.discard(pool.acquire('c'))
        check_equal(scrape(registry), pool.get_stats(), 'orders')
    samples = scrape(registry)
    assert value(samples, 'closed_total', pool='orders', reason='discarded') == 1
    assert value(samples, 'connections', pool='orders', state='idle') == 3


def test_the_other_format_of_prometheus(registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
    PoolCollector(pool, registry=registry, endpoints=True)
    with pool.connection('a'):
        text = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    assert 'gcpool_pool_connections{endpoint="a",pool="orders",state="in_use"} 1.0' in text
    assert 'gcpool_pool_acquires_total{pool="orders"} 1.0' in text


def test_all_pools_of_the_process_also_those_built_later(registry: CollectorRegistry) -> None:
    async def main() -> None:
        async with gcpool.asyncio.ConnectionPool(AsyncManager(), name='later') as pool, pool.connection('a'):
            samples = scrape(registry)
            assert value(samples, 'connections', pool='later', state='in_use') == 1

    PoolCollector(registry=registry)
    asyncio.run(main())
    assert not [key for key in scrape(registry) if ('pool', 'later') in key[1]]


def test_a_pool_that_is_built_and_closed_between_two_scrapes_counts(registry: CollectorRegistry) -> None:
    def acquires() -> float:
        return value(scrape(registry), 'acquires_total', pool='orders')

    def use_once() -> None:
        with ConnectionPool(Manager(), name='orders') as short:
            short.release(short.acquire('a'))

    with ConnectionPool(Manager(), name='orders') as pool:
        pool.release(pool.acquire('a'))
        collector = PoolCollector(registry=registry)
        use_once()
        use_once()
        assert acquires() == 3
        use_once()
        assert acquires() == 4
    registry.unregister(collector)
    del collector
    gc.collect()
    with ConnectionPool(Manager(), name='orders') as pool:
        assert '_witnesses' not in vars(pool), 'nobody is told of it'


def test_after_many_cycles_in_many_threads_no_count_is_lost(registry: CollectorRegistry) -> None:
    # A connection for each thread: a million cycles that each wait for the one before would take minutes.
    with ConnectionPool(Manager(), name='orders', max_size=THREADS) as pool:

        def work() -> None:
            for _ in range(CYCLES // THREADS):
                pool.release(pool.acquire('a', timeout=60))

        PoolCollector(pool, registry=registry)
        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        scraped = [0.0]
        while any(thread.is_alive() for thread in threads):
            scraped.append(value(scrape(registry), 'acquires_total', pool='orders'))
            threads[0].join(0.01)
        for thread in threads:
            thread.join()
        assert scraped == sorted(scraped)
        samples = scrape(registry)
        assert value(samples, 'acquires_total', pool='orders') == CYCLES // THREADS * THREADS
        check_equal(samples, pool.get_stats(), 'orders')


def test_neither_an_acquire_nor_a_release_does_anything_for_it(
    registry: CollectorRegistry, pool: ConnectionPool[Any, object]
) -> None:
    PoolCollector(pool, registry=registry)
    called = modules_called(pool)
    assert not [name for name in called if 'prometheus' in name or 'monitor' in name]
    assert value(scrape(registry), 'acquires_total', pool='orders') == 201


def test_pools_of_one_name_are_summed(registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
    with ConnectionPool(Manager(), name='orders', total_max_size=100) as second:
        PoolCollector(pool, second, registry=registry)
        with pool.connection('a'), second.connection('a'), second.connection('a'):
            samples = scrape(registry)
            assert value(samples, 'connections', pool='orders', state='in_use') == 3
            assert value(samples, 'max_connections', pool='orders') == 108
            assert value(samples, 'create_seconds_count', pool='orders') == 3
        last = second.get_stats(), pool.get_stats()
    # The gauges are those of what is open. The counters do not fall.
    samples = scrape(registry)
    assert value(samples, 'connections', pool='orders', state='idle') == 1
    assert value(samples, 'max_connections', pool='orders') == 8
    assert value(samples, 'acquires_total', pool='orders') == sum(stats['acquires'] for stats in last) == 3
    assert value(samples, 'closed_total', pool='orders', reason='pool_closed') == 2


def counted(samples: dict[Any, float]) -> dict[Any, float]:
    """The samples of counters and histograms."""
    ends = ('_total', '_bucket', '_count', '_sum')
    return {key: number for key, number in samples.items() if key[0].endswith(ends)}


@pytest.mark.parametrize('of_all', [True, False])
@pytest.mark.parametrize('scraped_when_closed', [True, False])
@pytest.mark.parametrize('is_closed', [True, False])
@pytest.mark.parametrize('is_dropped', [True, False])
def test_no_counter_falls_when_a_pool_of_that_name_goes(
    registry: CollectorRegistry,
    pool: ConnectionPool[Any, object],
    of_all: bool,
    scraped_when_closed: bool,
    is_closed: bool,
    is_dropped: bool,
) -> None:
    second: Any = ConnectionPool(Manager(), name='orders', total_max_size=100)
    # What refers to the pool from inside keeps it alive no longer than without an exporter.
    second._manager.pool = second
    PoolCollector(*(() if of_all else (pool, second)), registry=registry)
    for _ in range(3):
        second.release(second.acquire('a'))
    pool.release(pool.acquire('a'))
    before = counted(scrape(registry))
    # These come after the last scrape in which the pool was open.
    second.discard(second.acquire('a'))
    second.release(second.acquire('b'))
    reference = weakref.ref(second)
    if is_closed:
        second.close()
        if scraped_when_closed:
            assert value(scrape(registry), 'acquires_total', pool='orders') == 6
    if is_dropped:
        with warnings.catch_warnings():
            # It says that it was never closed.
            warnings.simplefilter('ignore', ResourceWarning)
            del second
            gc.collect()
        assert reference() is None
    for _ in range(2):
        samples = scrape(registry)
        after = counted(samples)
        assert before.keys() == after.keys()
        assert all(after[key] >= before[key] for key in before)
        assert value(samples, 'acquires_total', pool='orders') == 6
        assert value(samples, 'use_seconds_count', pool='orders') == 6
        assert value(samples, 'closed_total', pool='orders', reason='discarded') == 1
        assert value(samples, 'closed_total', pool='orders', reason='pool_closed') == is_closed
        left = 8 if is_closed or is_dropped else 108
        assert value(samples, 'max_connections', pool='orders') == left
    if not is_dropped:
        second.close()  # pyright: ignore[reportPossiblyUnboundVariable]


def test_a_connection_that_a_closed_pool_gets_back_counts(
    registry: CollectorRegistry, pool: ConnectionPool[Any, object]
) -> None:
    second = ConnectionPool(Manager(), name='orders')
    PoolCollector(pool, second, registry=registry)
    conn = second.acquire('a')
    second.close(timeout=0)
    samples = scrape(registry)
    second.release(conn)
    reasons = [key for key in second.get_stats() if key.startswith('closed_')]
    assert sum(second.get_stats()[key] for key in reasons) == 1
    for key in reasons:
        reason = key.removeprefix('closed_')
        found = value(scrape(registry), 'closed_total', pool='orders', reason=reason)
        assert found == second.get_stats()[key] >= value(samples, 'closed_total', pool='orders', reason=reason)


def test_counters_of_a_name_go_on_with_its_next_pool(registry: CollectorRegistry) -> None:
    collector = PoolCollector(registry=registry)
    scrape(registry)
    left_by_others = len(collector._pools._totals._accounts)
    for number in range(1, 4):
        with ConnectionPool(Manager(), name='again and again') as pool:
            scrape(registry)
            pool.release(pool.acquire('a'))
            assert value(scrape(registry), 'acquires_total', pool='again and again') == number
        del pool
        assert not [key for key in scrape(registry) if ('pool', 'again and again') in key[1]]
    assert len(collector._pools._totals._accounts) <= left_by_others + 1


def test_of_names_without_a_pool_the_last_ones_are_remembered(
    registry: CollectorRegistry, pool: ConnectionPool[Any, object]
) -> None:
    collector = PoolCollector(pool, registry=registry)
    pool.release(pool.acquire('a'))
    last = MAX_GONE_NAMES + 19
    for number in range(last + 1):
        for name in (f'gone {number}', 'orders'):
            with ConnectionPool(Manager(), name=name) as other:
                collector.add(other)
                other.release(other.acquire('a'))
            del other
    assert value(scrape(registry), 'acquires_total', pool='orders') == MAX_GONE_NAMES + 21
    totals = collector._selection._totals
    assert len(totals._gone.values) <= MAX_GONE_NAMES + 1
    assert len(totals._accounts) <= 3
    assert totals.by_name(['gone 0'])['gone 0']['acquires'] == 0
    assert totals.by_name([f'gone {last}'])[f'gone {last}']['acquires'] == 1


def test_no_scrape_beside_pools_that_come_and_go_sees_a_counter_fall(
    registry: CollectorRegistry, pool: ConnectionPool[Any, object]
) -> None:
    collector = PoolCollector(pool, registry=registry)

    def work() -> None:
        for _ in range(100):
            with ConnectionPool(Manager(), name='orders') as other:
                collector.add(other)
                for _ in range(5):
                    other.release(other.acquire('a'))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    scraped = [counted(scrape(registry))]
    while any(thread.is_alive() for thread in threads):
        scraped.append(counted(scrape(registry)))
    for thread in threads:
        thread.join()
    scraped.append(counted(scrape(registry)))
    assert not [key for one, next_one in pairwise(scraped) for key in one if next_one[key] < one[key]]
    assert value(scraped[-1], 'acquires_total', pool='orders') == 2000


def test_a_closed_pool_is_gone_and_a_dropped_one_too(registry: CollectorRegistry) -> None:
    first, second = ConnectionPool(Manager(), name='first'), ConnectionPool(Manager(), name='second')
    PoolCollector(first, second, registry=registry)
    first.close()
    assert {dict(key[1])['pool'] for key in scrape(registry)} == {'second'}
    del second
    gc.collect()
    assert scrape(registry) == {}


def test_a_pop_does_not_take_counters_back(registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
    PoolCollector(pool, registry=registry)
    pool.release(pool.acquire('a'))
    before = scrape(registry)
    pool.pop_stats()
    assert scrape(registry) == before


class TestEndpoints:
    def test_a_label_for_each(self, registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
        PoolCollector(pool, registry=registry, endpoints=True)
        with pool.connection('a'), pool.connection(('b', 1)):
            samples = scrape(registry)
        assert value(samples, 'connections', pool='orders', endpoint='a', state='in_use') == 1
        assert value(samples, 'connections', pool='orders', endpoint="('b', 1)", state='in_use') == 1
        assert value(samples, 'waiting', pool='orders', endpoint='a') == 0
        assert value(samples, 'acquires_total', pool='orders') == 2

    def test_at_most_100_which_stay_the_same(self, registry: CollectorRegistry) -> None:
        def labels() -> set[str]:
            return {dict(key[1])['endpoint'] for key in scrape(registry) if 'waiting' in key[0]}

        with ConnectionPool(Manager(), name='wide', total_max_size=1000) as pool:
            PoolCollector(pool, registry=registry, endpoints=True)
            for number in range(60):
                pool.release(pool.acquire(f'early {number}'))
            first = labels()
            for number in range(200):
                pool.release(pool.acquire(f'late {number}'))
            second = labels()
            assert first < second
            assert len(second) == 101
            assert 'other' in second
            total = sum(found for key, found in scrape(registry).items() if ('state', 'idle') in key[1])
            assert total == 260
            with pool.connection('late 199'):
                assert labels() == second

    @pytest.mark.parametrize(
        'endpoint', ['postgresql://ann:hunter2@db.example/shop', 'host=db.example password=hunter2']
    )
    def test_no_label_has_a_password(
        self, registry: CollectorRegistry, pool: ConnectionPool[Any, object], endpoint: str
    ) -> None:
        PoolCollector(pool, registry=registry, endpoints=True)
        with pool.connection(endpoint):
            text = generate_latest(registry).decode()
        assert 'hunter2' not in text
        assert 'endpoint="db.example' in text

    def test_a_label_is_what_the_manager_describes(self, registry: CollectorRegistry) -> None:
        class DescribingManager(Manager):
            def describe_endpoint(self, endpoint: Any) -> object:
                return 'one "and"\nthe other' if endpoint != 'failing' else 1 / 0

        with ConnectionPool(DescribingManager(), name='described') as pool:
            PoolCollector(pool, registry=registry, endpoints=True)
            with pool.connection('hunter2'), pool.connection('failing'):
                samples = scrape(registry)
        labels = {dict(key[1]).get('endpoint') for key in samples} - {None}
        assert labels == {'one "and"\nthe other', '<an endpoint of class str>'}


class TestBadInput:
    def test_a_second_collector(self, registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
        PoolCollector(pool, registry=registry)
        with pytest.raises(ValueError, match='already has a PoolCollector: expected one for all pools'):
            PoolCollector(pool, registry=registry)
        check_equal(scrape(registry), pool.get_stats(), 'orders')
        # Another registry is another matter.
        PoolCollector(pool, registry=CollectorRegistry())

    def test_a_pool_twice(self, registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
        with pytest.raises(ValueError, match=r"'orders'.*this collector already exports it"):
            PoolCollector(pool, pool, registry=registry)
        assert scrape(registry) == {}
        collector = PoolCollector(pool, registry=registry)
        with pytest.raises(ValueError, match='already exports it'):
            collector.add(pool)
        check_equal(scrape(registry), pool.get_stats(), 'orders')

    def test_a_pool_that_a_collector_of_all_has_anyway(
        self, registry: CollectorRegistry, pool: ConnectionPool[Any, object]
    ) -> None:
        collector = PoolCollector(registry=registry)
        with pytest.raises(ValueError, match='already exports it'):
            collector.add(pool)

    def test_a_closed_pool(self, registry: CollectorRegistry) -> None:
        pool = ConnectionPool(Manager())
        pool.close()
        with pytest.raises(ValueError, match='expected a pool that is open'):
            PoolCollector(pool, registry=registry)
        assert scrape(registry) == {}

    @pytest.mark.parametrize('thing', [None, 'orders', object(), Manager()])
    def test_no_pool(self, registry: CollectorRegistry, thing: Any) -> None:
        with pytest.raises(TypeError, match='expected a pool of gcpool'):
            PoolCollector(thing, registry=registry)

    def test_endpoints_is_no_bool(self, registry: CollectorRegistry) -> None:
        with pytest.raises(TypeError, match='endpoints=1: expected a bool'):
            PoolCollector(registry=registry, endpoints=1)  # type: ignore[arg-type]


def test_the_dashboard_asks_for_what_there_is(registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
    PoolCollector(pool, registry=registry)
    names = {name for name, _ in scrape(registry)}
    text = (ROOT / 'examples' / 'grafana-dashboard.json').read_text(encoding='utf-8')
    queries = [target['expr'] for panel in json.loads(text)['panels'] for target in panel['targets']]
    assert len(queries) >= 9
    asked = {name for query in queries for name in re.findall(r'gcpool_\w+', query)}
    assert asked <= names
    # Nothing that is exported has no place, but for what the buckets say already.
    assert names - asked <= {name for name in names if name.endswith(('_sum', '_count'))}
    states = {dict(labels).get('state') for _, labels in scrape(registry)}
    assert set(re.findall(r'state=\\"(\w+)\\"', text)) <= states


def test_one_more_pool(registry: CollectorRegistry, pool: ConnectionPool[Any, object]) -> None:
    collector = PoolCollector(pool, registry=None)
    registry.register(collector)
    with ConnectionPool(Manager(), name='second') as second:
        collector.add(second)
        samples = scrape(registry)
        check_equal(samples, pool.get_stats(), 'orders')
        check_equal(samples, second.get_stats(), 'second')


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
def test_a_child_of_a_fork_scrapes_though_its_parent_did_just_then(
    registry: CollectorRegistry, pool: ConnectionPool[Any, object]
) -> None:
    collector = PoolCollector(pool, registry=registry)
    held, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        with collector._selection._lock, collector._selection._totals._lock:
            held.set()
            goes_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        pid = os.fork()
    if not pid:
        signal.alarm(5)
        collector._selection._totals.note(pool)
        os._exit(0 if 'orders' in collector._selection.by_name() else 1)
    goes_on.set()
    thread.join()
    assert os.waitpid(pid, 0)[1] == 0


def test_nothing_is_kept_of_pools_that_are_gone(registry: CollectorRegistry) -> None:
    collector = PoolCollector(registry=registry, endpoints=True)
    for number in range(5):
        with ConnectionPool(Manager(), name=f'short-lived {number}') as pool:
            pool.release(pool.acquire('db'))
            scrape(registry)
    scrape(registry)
    assert not [name for name in collector._labels if name.startswith('short-lived')]


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
def test_a_child_of_a_fork_counts_what_it_does_itself(
    registry: CollectorRegistry, pool: ConnectionPool[Any, object]
) -> None:
    def acquires() -> float:
        return value(scrape(registry), 'acquires_total', pool='orders')

    collector = PoolCollector(pool, registry=registry)
    with ConnectionPool(Manager(), name='orders') as closed:
        collector.add(closed)
        closed.release(closed.acquire('a'))
    with ConnectionPool(Manager(), name='orders') as gone:
        collector.add(gone)
        gone.release(gone.acquire('a'))
    del gone
    pool.release(pool.acquire('a'))
    assert acquires() == 3
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        pid = os.fork()
    if not pid:
        signal.alarm(5)
        found = [acquires()]
        for _ in range(2):
            pool.release(pool.acquire('a'))
            found.append(acquires())
        os._exit(0 if found == [0, 1, 2] else 1 + int(found[0]) + 10 * int(found[2]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert acquires() == 3
