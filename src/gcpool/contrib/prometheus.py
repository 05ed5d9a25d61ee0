"""Metrics for Prometheus, by ``prometheus_client`` (extra ``prometheus``).

A collector reads what the pools count anyway, when Prometheus asks: acquires and releases do nothing for it.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from gcpool._core import REASONS
from gcpool._monitor.figures import (
    MAX_ENDPOINTS,
    OTHER,
    STATES,
    EndpointRow,
    endpoint_counts,
    summed_stats,
)
from gcpool._monitor.selection import AllPools, Selection, checked_pool
from gcpool._statistics import Histogram, PoolStats

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as exc:
    raise ImportError(
        'gcpool.contrib.prometheus needs prometheus_client: pip install "gcpool[prometheus]"', name=exc.name
    ) from exc

__all__ = ['PoolCollector']

_PREFIX = 'gcpool_pool'

# The counters, and where get_stats() has each.
_COUNTERS = {
    'acquires': ('acquires', 'Acquires that were served'),
    'timeouts': ('timeouts', 'Acquires whose timeout expired while they waited'),
    'create_errors': ('create_errors', 'Attempts to connect that ended without a connection'),
    'leaks': ('leaks', 'Connections that were not returned in time, or never'),
}
# The histograms, by the names that get_stats() has for them.
_HISTOGRAMS = {
    'wait': ('acquire_wait_seconds', 'How long acquires that found no connection ready have waited'),
    'create': ('create_seconds', 'How long attempts to connect took'),
    'use': ('use_seconds', 'How long connections were in use'),
}


class PoolCollector(Collector):
    """Exports the figures of pools, for threads and for asyncio.

    Pools are held weakly. Those of the same name are summed. A closed pool has no gauges; counters and histograms keep
    what it has counted, so they never fall while a pool of its name is open. When none is open, nothing of that name is
    exported; the counters of the last 100 such names continue with the next pool of the name.

    :param pools: the pools; if none is given, all pools of the process, also those that are built later
    :param registry: where the collector registers itself; None leaves that to the caller
    :param endpoints: whether connections and waiting acquires are exported for each endpoint, at most 100 per pool: the
        others are summed as ``other``. Each endpoint makes six time series.
    :raises TypeError: when an argument is not a pool
    :raises ValueError: when a pool is closed, or given twice; when the registry already has such a collector
    """

    def __init__(self, *pools: Any, registry: CollectorRegistry | None = REGISTRY, endpoints: bool = False):
        if not isinstance(endpoints, bool):
            raise TypeError(f'endpoints={endpoints!r}: expected a bool, not {type(endpoints).__name__}')
        self._endpoint_labels = ['endpoint'] if endpoints else []
        self._labels: dict[str, _Labels] = {}
        self._selection = Selection()
        self._pools: Selection | AllPools = self._selection if pools else AllPools()
        for pool in pools:
            self.add(pool)
        if registry is not None:
            try:
                registry.register(self)
            except ValueError as exc:
                raise ValueError(
                    'the registry already has a PoolCollector: expected one for all pools, such as PoolCollector(), or '
                    'a call of its add(pool)'
                ) from exc

    def add(self, pool: Any) -> None:
        """Export one more pool.

        :raises TypeError: when it is not a pool
        :raises ValueError: when it is closed, or already exported
        """
        if not self._selection.add(checked_pool(pool)) or isinstance(self._pools, AllPools):
            raise ValueError(f'pool={pool!r}: this collector already exports it')

    def describe(self) -> Iterable[Metric]:
        """The metrics without their values: registering a collector does not read any pool."""
        return self._families().values()

    def collect(self) -> Iterator[Metric]:
        """Read the pools. Called when Prometheus asks."""
        families = self._families()
        found_pools = self._pools.by_name()
        for name in [*self._labels]:
            if name not in found_pools:
                self._labels.pop(name, None)
        all_totals = self._pools.totals(found_pools)
        for name, pools in sorted(found_pools.items()):
            stats, totals = summed_stats(pools), all_totals[name]
            self._add_connections(families, name, pools, stats)
            families['max_connections'].add_metric([name], stats['total_max_size'])
            for counter, (key, _) in _COUNTERS.items():
                families[counter].add_metric([name], totals[key])
            for reason in REASONS[1:]:
                families['closed'].add_metric([name, reason], totals[f'closed_{reason}'])
            for key, (histogram, _) in _HISTOGRAMS.items():
                found = totals.histograms[key]
                families[histogram].add_metric([name], _buckets(found), found.sum)
        yield from families.values()

    def _add_connections(self, families: dict[str, Any], name: str, pools: list[Any], stats: PoolStats) -> None:
        connections, waiting = families['connections'], families['waiting']
        if not self._endpoint_labels:
            for state in STATES:
                connections.add_metric([name, state], stats[state])
            waiting.add_metric([name], stats['waiting'])
            return
        for row in self._labels.setdefault(name, _Labels()).rows_of(pools):
            for state in STATES:
                connections.add_metric([name, row.endpoint, state], getattr(row, state))
            waiting.add_metric([name, row.endpoint], row.waiting)

    def _families(self) -> dict[str, Any]:
        families: dict[str, Any] = {
            'connections': GaugeMetricFamily(
                f'{_PREFIX}_connections',
                'Connections by state',
                labels=['pool', *self._endpoint_labels, 'state'],
            ),
            'max_connections': GaugeMetricFamily(
                f'{_PREFIX}_max_connections', 'Maximum number of connections of the pool', labels=['pool']
            ),
            'waiting': GaugeMetricFamily(
                f'{_PREFIX}_waiting', 'Acquires that wait', labels=['pool', *self._endpoint_labels]
            ),
        }
        for counter, (_, text) in _COUNTERS.items():
            families[counter] = CounterMetricFamily(f'{_PREFIX}_{counter}', text, labels=['pool'])
        families['closed'] = CounterMetricFamily(
            f'{_PREFIX}_closed', 'Connections that were closed, by reason', labels=['pool', 'reason']
        )
        for histogram, text in _HISTOGRAMS.values():
            families[histogram] = HistogramMetricFamily(f'{_PREFIX}_{histogram}', text, labels=['pool'])
        return families


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """The buckets as Prometheus expects them: each includes those below it."""
    bounds = ('+Inf' if bound == math.inf else repr(bound) for bound in histogram.bounds)
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))


class _Labels:
    """The endpoints of a pool with labels of their own: the first 100, for as long as the pool knows them.

    Not the busiest: time series that come and go with each scrape would be useless, and their number unlimited.
    """

    def __init__(self) -> None:
        self._known: dict[str, None] = {}

    def rows_of(self, pools: list[Any]) -> list[EndpointRow]:
        counts = endpoint_counts(pools)
        known = {label: None for label in self._known if label in counts}
        for label in counts:
            if len(known) >= MAX_ENDPOINTS:
                break
            known[label] = None
        self._known = known
        rows = [EndpointRow(label, *counts.pop(label)) for label in known]
        if counts:
            rows.append(EndpointRow(OTHER, *(sum(column) for column in zip(*counts.values(), strict=True))))
        return rows
