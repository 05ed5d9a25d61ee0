"""The arithmetic of the benchmark on real servers, on figures and pools that are made up."""

import contextlib
import queue
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from bench import servers, servers_spike
from bench.measure import Goal
from bench.runtimes import Threads
from bench.servers_measure import (
    ALL_SERVED,
    MEASURES,
    OPENED,
    SPIKE_MEASURES,
    THROUGHPUT,
    WAIT_99,
    Load,
    LoadResult,
    compare,
    percentile,
)
from bench.settings import QUICK

SETTINGS = replace(QUICK, server_rounds=3, server_ns=1)


class Pool:
    """A subject of the benchmark: a queue of objects."""

    note = 'nothing'
    bounded = True

    def __init__(self, name: str, size: int = servers.CONNECTIONS, *, forgetful: bool = False) -> None:
        self.name = name
        self.size = size
        self.forgetful = forgetful
        # Appending is atomic, also without a GIL.
        self.made: list[None] = []
        self.queries: list[None] = []

    @property
    def created(self) -> int:
        return len(self.made)

    def open(self) -> None:
        self.idle: queue.SimpleQueue[object] = queue.SimpleQueue()
        for _ in range(self.size):
            self.idle.put(self.create())

    def create(self) -> 'Pool':
        self.made.append(None)
        return self

    def close(self) -> None:
        del self.idle

    @contextlib.contextmanager
    def connection(self) -> Iterator[Any]:
        conn = self.idle.get()
        try:
            yield conn
        finally:
            self.idle.put(self.create() if self.forgetful else conn)

    def query(self) -> None:
        self.queries.append(None)


def measure(*subjects: Any, peers: tuple[servers.Peer, ...] = ()) -> LoadResult:
    with contextlib.closing(Threads()) as runtime, contextlib.ExitStack() as stack:
        return servers.load(
            runtime, 'made up', lambda _: subjects, lambda conn: conn.query(), peers, SETTINGS, servers.Servers(stack)
        )


@pytest.mark.parametrize(
    ('values', 'percent', 'expected'),
    [
        ([7], 99, 7),
        ([3, 1, 2], 50, 2),
        ([4, 3, 2, 1], 50, 2),
        (list(range(1, 101)), 99, 99),
        (list(range(1, 102)), 99, 100),
        (list(range(1000, 0, -1)), 99, 990),
        ([5, 6], 0, 5),
        ([5, 6], 100, 6),
    ],
)
def test_percentile_is_the_nearest_rank(values: list[int], percent: int, expected: int) -> None:
    assert percentile(values, percent) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match='nothing'):
        percentile([], 50)


def test_a_load_is_told_in_seconds_and_milliseconds() -> None:
    waits = [[1_000_000] * 40, [1_000_000] * 50, [*[1_000_000] * 58, 5_000_000, 9_000_000]]
    load = Load(elapsed=500_000_000, served=[40, 50, 60], waits=waits, opened=2)
    assert load.throughput == 300
    assert load.wait_median == 1
    assert load.wait_99 == 5
    assert load.wait_longest == 9
    assert load.least_of_most == pytest.approx(2 / 3)
    assert load.shortest_of_longest == pytest.approx(60 / 72)


def test_who_was_not_served_has_not_waited() -> None:
    load = Load(elapsed=1, served=[0, 2, 2], waits=[[], [3, 5], [6, 10]])
    assert load.least_of_most == 0
    assert load.shortest_of_longest == 0.5


def test_comparisons_are_taken_round_by_round() -> None:
    result = LoadResult('case', measures=MEASURES)
    result.add('gcpool').extend(Load(elapsed, [10], [[elapsed]]) for elapsed in (100, 200, 400))
    result.add('peer').extend(Load(elapsed, [10], [[elapsed]]) for elapsed in (200, 800, 200))
    compare(result, THROUGHPUT, 'peer', Goal('>=', 1))
    compare(result, WAIT_99, 'peer')
    compare(result, THROUGHPUT, 'absent')
    throughput, wait = result.figures
    assert throughput.values == pytest.approx([2, 4, 0.5])
    assert throughput.goal == Goal('>=', 1)
    assert wait.values == pytest.approx([0.5, 0.25, 2])
    assert wait.goal is None


def test_the_measures_themselves_are_figures_of_what_is_written() -> None:
    result = LoadResult('case', measures=SPIKE_MEASURES)
    result.add('pool').append(Load(2_000_000, [1, 1], [[1_000_000], [1_000_000]], opened=3))
    figures = {figure.text: figure.values for figure in result.with_absolute().figures}
    assert figures[f'pool: {OPENED.text}'] == [3]
    assert figures[f'pool: {ALL_SERVED.text}'] == [2]
    assert not result.figures


def test_every_query_is_counted_for_who_sent_it() -> None:
    own, other = Pool('gcpool'), Pool('other')
    result = measure(own, other, peers=(servers.Peer('other', Goal('>=', 1), Goal('<=', 1), in_turn=True),))
    assert {name: len(loads) for name, loads in result.loads.items()} == {'gcpool': 3, 'other': 3}
    for load in [load for loads in result.loads.values() for load in loads]:
        assert len(load.served) == servers.WORKERS['threads']
        assert sorted(load.served) == sorted(map(len, load.waits))
        assert load.opened == 0
    assert len(own.queries) > sum(sum(load.served) for load in result.loads['gcpool']), 'the warm-up is not a round'
    assert [(figure.text.split(',')[0], figure.goal) for figure in result.figures] == [
        ('gcpool: throughput', Goal('>=', 1)),
        ('gcpool: processor time of a query', None),
        ('gcpool: p99 wait', Goal('<=', 1)),
        ('gcpool: least/most served', None),
        ('gcpool: shortest/longest mean wait', None),
    ]


def test_a_pool_that_connects_anew_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match='forgetful'):
        measure(Pool('forgetful', forgetful=True))


def test_a_pool_with_more_connections_than_its_limit_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match=f'made {servers.CONNECTIONS + 1} connections'):
        measure(Pool('large', servers.CONNECTIONS + 1))


def test_what_is_not_installed_is_missing() -> None:
    class Absent(Pool):
        def open(self) -> None:
            raise ImportError('no such library')

    result = measure(Absent('absent'), Pool('present'))
    assert result.missing == {'absent': 'no such library'}
    assert set(result.loads) == {'present'}


def test_a_server_that_is_not_there_leaves_the_case_empty() -> None:
    def skip(_servers: servers.Servers) -> list[Any]:
        pytest.skip('no such server')

    with contextlib.closing(Threads()) as runtime, contextlib.ExitStack() as stack:
        result = servers.load(runtime, 'case', skip, lambda _: None, (), SETTINGS, servers.Servers(stack))
    assert result.missing == {'the server': 'no such server'}
    assert not result.loads


def test_the_spike_counts_what_it_opens() -> None:
    class Growing(Pool):
        """Connects anew for whom it has nothing idle."""

        def open(self) -> None:
            self.idle = queue.SimpleQueue()

        @contextlib.contextmanager
        def connection(self) -> Iterator[Any]:
            try:
                conn = self.idle.get_nowait()
            except queue.Empty:
                conn = self.create()
            yield conn
            self.idle.put(conn)

    growing = Growing('growing')
    with contextlib.closing(Threads()) as runtime, contextlib.ExitStack() as stack:
        result = servers.spike(runtime, lambda: [growing], SETTINGS, servers.Servers(stack))
    loads = result.loads['growing']
    assert len(loads) == SETTINGS.server_rounds
    assert growing.created == SETTINGS.server_rounds * servers_spike.MINIMUM + sum(load.opened for load in loads)
    assert all(load.served == [1] * servers_spike.REQUESTS for load in loads)
