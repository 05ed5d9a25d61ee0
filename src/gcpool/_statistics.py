"""What ``get_stats()`` and ``health()`` of a pool return."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ['Health', 'Histogram', 'PoolStats']


class Histogram:
    """Measured times, counted in buckets. The buckets are those of the core: each is twice as wide as the one before.

    :ivar bounds: the upper bounds of the buckets in seconds, inclusive; the last one is infinite
    :ivar counts: the number of times in each bucket
    :ivar sum: the sum of all times in seconds
    """

    __slots__ = ('bounds', 'counts', 'sum')

    def __init__(self, bounds: Sequence[float], counts: Sequence[int], sum: float):  # noqa: A002
        self.bounds = tuple(bounds)
        self.counts = tuple(counts)
        self.sum = sum

    @property
    def count(self) -> int:
        """The number of measured times."""
        return sum(self.counts)

    def percentile(self, q: float) -> float:
        """Return a time in seconds that ``q`` percent of the times do not exceed; 0.0 if none was measured.

        An estimate: within a bucket, the times are assumed to be spread evenly. The error is less than a factor of 2. A
        time beyond the last finite bound counts as that bound.

        :param q: 0 to 100
        :raises ValueError: when ``q`` is out of range
        """
        if not 0 <= q <= 100:
            raise ValueError(f'q={q!r}: expected a percentage, 0 to 100')
        rank = q / 100 * self.count
        below = 0
        lower = 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count and below + count >= rank:
                upper = min(bound, self.bounds[-2])
                return lower + (upper - lower) * max(rank - below, 0.0) / count
            below += count
            lower = min(bound, self.bounds[-2])
        return 0.0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        return (self.bounds, self.counts, self.sum) == (other.bounds, other.counts, other.sum)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f'<Histogram of {self.count} times, {self.sum:g} s>'


class PoolStats(dict[str, int]):
    """Gauges and counters of a pool: a dict of ints, with histograms beside them.

    ``stats['wait_p99']`` is a percentile in seconds, from the histogram: ``wait``, ``create`` or ``use``, and ``p50``,
    ``p90``, ``p95``, ``p99`` or any other; digits after the second one are decimals (``p999`` is the 99.9th). The
    values of these keys are computed when they are read; they are not among ``keys()``.

    :ivar histograms: the histograms ``wait``, ``create`` and ``use``; none if this is about one endpoint
    """

    __slots__ = ('histograms',)

    histograms: Mapping[str, Histogram]

    def __init__(self, stats: Mapping[str, int] = {}, histograms: Mapping[str, Histogram] | None = None):
        super().__init__(stats)
        self.histograms = {} if histograms is None else histograms

    def __missing__(self, key: Any) -> float:
        name, separator, digits = key.partition('_p') if isinstance(key, str) else ('', '', '')
        if not separator or name not in self.histograms or not (digits.isascii() and digits.isdecimal()):
            raise KeyError(key)
        percent = 100.0 if digits == '100' else float(f'{digits[:2]}.{digits[2:]}')
        return self.histograms[name].percentile(percent)

    def copy(self) -> 'PoolStats':
        """Return a copy, with the histograms."""
        return PoolStats(self, self.histograms)


class Health(NamedTuple):
    """Whether a pool can serve acquires now.

    :ivar status: ``ok``; ``degraded``: some endpoints cannot be served now, or their connects fail; ``exhausted``: an
        acquire of any endpoint would wait, or fail
    :ivar reason: why it is not ``ok``, else None
    """

    status: str
    reason: str | None = None
