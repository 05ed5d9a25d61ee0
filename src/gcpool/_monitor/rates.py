"""What happened between two snapshots of a process."""

import math
from collections.abc import Mapping
from typing import Any

from gcpool._statistics import Histogram

__all__ = ['Change']


class Change:
    """One pool in a snapshot, and what has happened to it since the one before.

    :param now: the pool in the later snapshot
    :param before: the same in the earlier one; None if there is none, or it does not have the pool. Then everything
        since the pool was built counts, and there are no rates.
    :param seconds: the time between the two
    """

    def __init__(self, now: Mapping[str, Any], before: Mapping[str, Any] | None = None, seconds: float = 0.0):
        self.now = now
        self._before = before
        self._seconds = seconds

    def gauge(self, name: str) -> int:
        """The present value of a gauge."""
        return int(self.now['stats'].get(name, 0))

    def count(self, name: str) -> int:
        """How often something happened in between."""
        now = self.gauge(name)
        before = 0 if self._before is None else int(self._before['stats'].get(name, 0))
        # Counters start again when a pool is closed and another one gets its name.
        return now - before if now >= before else now

    def rate(self, name: str) -> float | None:
        """How often something happened per second; None if there is nothing to compare with."""
        return None if self._before is None or self._seconds <= 0 else self.count(name) / self._seconds

    def percentile(self, name: str, q: float) -> float | None:
        """The time in seconds that ``q`` percent of those in between did not exceed; None if there were none."""
        now = self.now.get('histograms', {}).get(name)
        if now is None:
            return None
        counts = now['counts']
        before = {} if self._before is None else self._before.get('histograms', {}).get(name, {})
        if before and sum(before['counts']) <= sum(counts):
            counts = [max(later - earlier, 0) for later, earlier in zip(counts, before['counts'], strict=True)]
        return Histogram([*now['bounds'], math.inf], counts, now['sum']).percentile(q) if any(counts) else None
