"""The figures of pools, which are summed for pools of the same name. Read from the core on request."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gcpool._statistics import Health, Histogram, PoolStats
from gcpool.contrib._descriptions import shown

__all__ = [
    'MAX_ENDPOINTS',
    'MAX_HOLDERS',
    'OTHER',
    'STATES',
    'EndpointRow',
    'endpoint_counts',
    'endpoint_label',
    'endpoint_rows',
    'label_of_shown',
    'longest_holders',
    'summed_stats',
    'worst_health',
]

#: The states of connections, by the names that get_stats() has for them.
STATES = ('idle', 'in_use', 'creating', 'checking', 'closing')

#: How many endpoints of a pool are shown one by one.
MAX_ENDPOINTS = 100

#: How many holders of connections are shown.
MAX_HOLDERS = 50

#: Stands for the endpoints beyond those that are shown one by one.
OTHER = 'other'

# Gauges for which pools of the same name show the maximum, not the sum.
_GREATEST = frozenset({'longest_held'})

_BY_HEALTH = ('ok', 'degraded', 'exhausted')


class EndpointRow(NamedTuple):
    """The number of connections to an endpoint in each state, and of acquires that wait for one."""

    endpoint: str
    idle: int
    in_use: int
    creating: int
    checking: int
    closing: int
    waiting: int


def summed_stats(pools: Sequence[Any]) -> PoolStats:
    """Sum the statistics of pools with the same name, and their histograms.

    The counters are those since the pools were built: a program's pop_stats() does not change them.
    """
    found: list[PoolStats] = [pool._core.stats(since_built=True) for pool in pools]
    first, *others = found
    if not others:
        return first
    total = dict(first)
    for stats in others:
        for name, value in stats.items():
            total[name] = max(total[name], value) if name in _GREATEST else total[name] + value
    histograms = {
        name: _summed([histogram, *(stats.histograms[name] for stats in others)])
        for name, histogram in first.histograms.items()
    }
    return PoolStats(total, histograms)


def _summed(histograms: Sequence[Histogram]) -> Histogram:
    # All have the buckets of the core.
    counts = [sum(column) for column in zip(*(histogram.counts for histogram in histograms), strict=True)]
    return Histogram(histograms[0].bounds, counts, sum(histogram.sum for histogram in histograms))


def worst_health(pools: Iterable[Any]) -> Health:
    """The health of pools with the same name: that of the worst one."""
    found: list[Health] = [pool.health() for pool in pools]
    return max(found, key=lambda health: _BY_HEALTH.index(health.status))


def longest_holders(pools: Iterable[Any], limit: int = MAX_HOLDERS) -> list[tuple[Any, Any]]:
    """The longest holders of connections of pools with the same name: each pool, and its holder."""
    found = [(pool, holder) for pool in pools for holder in pool.holders()]
    return sorted(found, key=lambda pair: -pair[1].seconds)[:limit]


def endpoint_label(pool: Any, endpoint: object) -> str:
    """The text of an endpoint: as the manager's ``describe_endpoint`` shows it, and never with a password.

    A URL or a connection string is shown without a password even if the manager does not describe it.
    """
    return label_of_shown(pool, pool._observer.shown(endpoint))


def label_of_shown(pool: Any, shown_endpoint: object) -> str:
    """The same for the text or object that the pool shows in place of an endpoint."""
    text = shown(shown_endpoint)
    return text if isinstance(text, str) else pool._observer.text_of(text, text)


def endpoint_rows(pools: Iterable[Any], limit: int = MAX_ENDPOINTS) -> list[EndpointRow]:
    """The endpoints of pools with the same name. Endpoints with the same text are summed.

    :param limit: how many of them have their own row: those with the most connections in use and acquires waiting come
        first. The others share one row, called ``other``, and no texts are made for them
    """
    rows = [(pool, *row) for pool in pools for row in pool._core.endpoint_rows()]
    rows.sort(key=_business, reverse=True)
    found: dict[str, Sequence[int]] = {}
    for pool, endpoint, *counts in rows[:limit]:
        _add(found, endpoint_label(pool, endpoint), counts)
    if len(rows) > limit:
        _add(found, OTHER, [sum(column) for column in zip(*(counts for _, _, *counts in rows[limit:]), strict=True)])
    return [EndpointRow(label, *counts) for label, counts in found.items()]


def endpoint_counts(pools: Iterable[Any]) -> dict[str, Sequence[int]]:
    """The counts of an :py:class:`EndpointRow`, by the texts of all endpoints."""
    found: dict[str, Sequence[int]] = {}
    for pool in pools:
        for endpoint, *counts in pool._core.endpoint_rows():
            _add(found, endpoint_label(pool, endpoint), counts)
    return found


def _business(row: tuple[Any, ...]) -> tuple[int, int]:
    _, _, idle, in_use, *_, waiting = row
    return in_use + waiting, idle


def _add(rows: dict[str, Sequence[int]], label: str, counts: Sequence[int]) -> None:
    known = rows.get(label)
    rows[label] = counts if known is None else [*map(sum, zip(known, counts, strict=True))]
