"""What one look at the pools of a process shows."""

import json
import os
import threading
from typing import Any

import pytest

from gcpool import monitor
from gcpool._monitor import figures
from gcpool.exceptions import PoolTimeout
from gcpool.threading import ConnectionPool
from tests.monitor.support import Manager, counts, pool_in
from tests.threads.runtime import until


def test_the_pool_as_it_counts_itself(pool: ConnectionPool[object, object]) -> None:
    with pool.connection('db'), pool.connection('db'):
        snapshot = monitor.snapshot()
        found = pool_in(snapshot, 'orders')
        assert counts(found['stats']) == counts(pool.get_stats())
        assert found['runtimes'] == ['threads']
        assert found['health'] == {'status': 'ok', 'reason': None}
        assert found['endpoints'] == [
            {'endpoint': 'db', 'idle': 0, 'in_use': 2, 'creating': 0, 'checking': 0, 'closing': 0, 'waiting': 0}
        ]
    assert snapshot['pid'] == os.getpid()
    assert snapshot['time'] > snapshot['monotonic'] > 0


def test_a_pop_takes_nothing_away_from_who_else_watches(pool: ConnectionPool[object, object]) -> None:
    with pool.connection('db'):
        pass
    popped = pool.pop_stats()
    assert pool.get_stats()['acquires'] == 0
    found = pool_in(monitor.snapshot(), 'orders')
    assert found['stats']['acquires'] == popped['acquires'] == 2
    assert sum(found['histograms']['use']['counts']) == 2


def test_it_is_json(pool: ConnectionPool[object, object]) -> None:
    snapshot = monitor.snapshot()
    # No NaN and no Infinity, which are not JSON.
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == json.loads(json.dumps(snapshot))


def test_the_histograms_are_those_of_the_pool(pool: ConnectionPool[object, object]) -> None:
    with pool.connection('db'):
        for _ in range(3):
            pool.release(pool.acquire('db'))
    found = pool_in(monitor.snapshot(), 'orders')['histograms']
    for name, histogram in pool.get_stats().histograms.items():
        assert tuple(found[name]['bounds']) == histogram.bounds[:-1]
        assert tuple(found[name]['counts']) == histogram.counts
        assert found[name]['sum'] == histogram.sum


def test_a_pool_that_is_exhausted_says_why() -> None:
    with ConnectionPool(Manager(), name='small', max_size=1, total_max_size=1) as pool, pool.connection('db'):
        with pytest.raises(PoolTimeout):
            pool.acquire('db', timeout=0)
        health = pool_in(monitor.snapshot(), 'small')['health']
        assert health['status'] == 'exhausted'
        assert 'total_max_size=1' in health['reason']


def test_of_many_endpoints_the_busiest_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    described = 0

    class DescribingManager(Manager):
        def describe_endpoint(self, endpoint: Any) -> object:
            nonlocal described
            described += 1
            return f'host {endpoint}'

    with ConnectionPool(DescribingManager(), name='wide', total_max_size=1000) as pool:
        for number in range(500):
            pool.release(pool.acquire(number))
        with pool.connection(123), pool.connection(123), pool.connection(321):
            described = 0
            rows = pool_in(monitor.snapshot(), 'wide')['endpoints']
        # What has no row of its own costs no text.
        # Three are those that are held.
        assert described <= figures.MAX_ENDPOINTS + 3
        assert len(rows) == figures.MAX_ENDPOINTS + 1
        assert [(row['endpoint'], row['in_use']) for row in rows[:2]] == [('host 123', 2), ('host 321', 1)]
        assert rows[-1]['endpoint'] == 'other'
        assert sum(row['idle'] + row['in_use'] for row in rows) == 501


SECRET = 'hunter2'


@pytest.mark.parametrize(
    'endpoint',
    [
        f'postgresql://ann:{SECRET}@db.example/shop',
        f'host=db.example password={SECRET}',
        f'https://ann:{SECRET}@shop.example/',
    ],
)
def test_a_password_in_an_endpoint_is_not_shown(endpoint: str) -> None:
    with ConnectionPool(Manager(), name='secretive', record_holders=True) as pool, pool.connection(endpoint):
        text = json.dumps(monitor.snapshot())
        assert SECRET not in text
        assert 'example' in text


def test_an_endpoint_is_shown_as_its_manager_describes_it() -> None:
    class DescribingManager(Manager):
        def describe_endpoint(self, endpoint: Any) -> object:
            return endpoint['host']

    class Parameters(dict[str, str]):
        def __hash__(self) -> int:  # type: ignore[override]
            return hash(self['host'])

    endpoint = Parameters(host='db.example', password=SECRET)
    with ConnectionPool(DescribingManager(), name='described', record_holders=True) as pool, pool.connection(endpoint):
        found = pool_in(monitor.snapshot(), 'described')
        assert SECRET not in json.dumps(found)
        assert [row['endpoint'] for row in found['endpoints']] == ['db.example']
        assert [holder['endpoint'] for holder in found['holders']] == ['db.example']


def test_an_endpoint_that_cannot_be_described_is_shown_by_its_class() -> None:
    class FailingManager(Manager):
        def describe_endpoint(self, endpoint: Any) -> object:
            raise RuntimeError(SECRET)

    with ConnectionPool(FailingManager(), name='failing') as pool, pool.connection(SECRET):
        found = pool_in(monitor.snapshot(), 'failing')
        assert SECRET not in json.dumps(found)
        assert [row['endpoint'] for row in found['endpoints']] == ['<an endpoint of class str>']


def test_who_holds_connections_the_longest_first() -> None:
    def hold_another() -> None:
        with pool.connection('b'):
            taken.set()
            done.wait(30)

    taken, done = threading.Event(), threading.Event()
    with ConnectionPool(Manager(), name='held', record_holders=True) as pool, pool.connection('a'):
        # The clock of uses ticks every few milliseconds.
        until(lambda: pool.holders()[0].seconds > 0)
        thread = threading.Thread(target=hold_another, name='second holder')
        thread.start()
        try:
            assert taken.wait(30)
            first, second = pool_in(monitor.snapshot(), 'held')['holders']
        finally:
            done.set()
            thread.join(30)
    assert (first['endpoint'], second['endpoint']) == ('a', 'b')
    assert first['seconds'] >= second['seconds'] >= 0
    assert 'MainThread' in first['holder']
    assert 'second holder' in second['holder']
    file, line, function = second['frames'][0]
    assert os.path.basename(file) == 'test_snapshot.py'
    assert function.endswith('hold_another')
    assert line > 0


def test_a_recording_has_neither_endpoints_nor_holders(pool: ConnectionPool[object, object]) -> None:
    from gcpool._monitor.snapshot import snapshot

    found = pool_in(snapshot(details=False), 'orders')
    assert 'endpoints' not in found
    assert 'holders' not in found
