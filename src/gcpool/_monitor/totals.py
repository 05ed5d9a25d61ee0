"""The counts of an exporter, which include those of freed pools, so that no exported counter ever falls.

A counter that falls is taken for one that was reset, and its remaining value for an increase.
"""

import os
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from fractions import Fraction
from itertools import count
from typing import Any, NamedTuple

from gcpool._core import BUCKET_BOUNDS, REASONS
from gcpool._statistics import Histogram, PoolStats

__all__ = ['COUNTERS', 'MAX_GONE_NAMES', 'Totals']

#: The counters that are exported, by the names that get_stats() has for them.
COUNTERS = ('acquires', 'timeouts', 'create_errors', 'leaks', *(f'closed_{reason}' for reason in REASONS[1:]))

#: How many names without a pool are remembered. A program that builds its pools again has a few; one whose pools always
#: have new names never needs an old one.
MAX_GONE_NAMES = 100

_HISTOGRAMS = ('wait', 'create', 'use')

# The counters, and the counts and the sum of each histogram. The sums are exact: sums of floats depend on their order,
# and would fall slightly when a pool is freed and its sum is added to the others.
_Values = tuple[Fraction | int, ...]


def _values_of(stats: PoolStats) -> _Values:
    values: list[Fraction | int] = [stats[name] for name in COUNTERS]
    for name in _HISTOGRAMS:
        histogram = stats.histograms[name]
        values += histogram.counts
        values.append(Fraction(histogram.sum))
    return tuple(values)


def _as_stats(values: _Values) -> PoolStats:
    rest = iter(values)
    counters = {name: int(next(rest)) for name in COUNTERS}
    histograms = {
        name: Histogram(BUCKET_BOUNDS, [int(next(rest)) for _ in BUCKET_BOUNDS], float(next(rest)))
        for name in _HISTOGRAMS
    }
    return PoolStats(counters, histograms)


def _sum(first: _Values, second: _Values) -> _Values:
    return tuple(a + b for a, b in zip(first, second, strict=True))


_NOTHING: _Values = (0,) * (len(COUNTERS) + len(_HISTOGRAMS) * (len(BUCKET_BOUNDS) + 1))


class _Account:
    """The counts of one pool. It has no reference to the pool."""

    def __init__(self, pool: Any):
        self.name: str = pool.name
        self.core = weakref.ref(pool._core)
        # Whether the pool is no longer exported, although it is in use: its counts stay as they were.
        self.stopped = False
        # Whether the pool was freed, and these values are its last ones.
        self.ended = False
        self._values = _NOTHING

    def begin_anew(self) -> None:
        self._values = _NOTHING

    def read(self, core: Any = None) -> _Values:
        if core is None:
            core = self.core()
        if core is not None and not (self.stopped or self.ended):
            found = _values_of(core.stats(since_built=True))
            while True:
                # A read while an endpoint is being forgotten may miss its counts, and another thread may have read more
                # meanwhile.
                known = self._values
                values = tuple(max(a, b) for a, b in zip(known, found, strict=True))
                if self._values is known:
                    self._values = values
                    break
        return self._values


class _Witness:
    """Reads a pool for the last time when the pool is freed. It is an attribute of the pool.

    The callback of a weak reference would come too late to read anything, and a reference to the core would keep the
    connections alive, and perhaps the pool with them.
    """

    def __init__(self, account: _Account, core: Any):
        self._account = account
        self._core = core

    def __del__(self, ends: Callable[[], bool] = sys.is_finalizing) -> None:
        # Called at any moment, whatever this thread is doing: it takes no locks except those of a core that no thread
        # uses any more.
        if not ends():
            try:
                self._account.read(self._core)
            finally:
                self._account.ended = True


class _Gone(NamedTuple):
    """The counts of freed pools, by their names, and the last accounts that are part of them."""

    values: dict[str, _Values]
    numbers: frozenset[int]


class Totals:
    """The counters of all pools of an exporter, by their names, including closed and freed pools."""

    def __init__(self) -> None:
        # Each operation on this dict is atomic, and so is replacing the counts of freed pools: no signal handler,
        # destructor or other thread sees a count twice, or not at all.
        self._accounts: dict[int, _Account] = {}
        self._gone = _Gone({}, frozenset())
        self._numbers = count()
        self._lock = threading.RLock()
        _all_totals.add(self)

    def begin_anew(self) -> None:
        """In a forked child: count from 0, as its pools do. Another thread of the parent may have held the lock."""
        self._lock = threading.RLock()
        self._gone = _Gone({}, frozenset())
        for number, account in self._accounts.copy().items():
            if account.ended:
                del self._accounts[number]
            else:
                account.begin_anew()

    def note(self, *pools: Any) -> None:
        """Count pools from now on, including their counts since they were built. Those already known continue."""
        with self._lock:
            self._sum_up()
            accounts = self._accounts.copy().values()
            known = {id(core): account for account in accounts if (core := account.core()) is not None}
            for pool in pools:
                account = known.get(id(pool._core))
                if account is None:
                    account = _Account(pool)
                    self._accounts[next(self._numbers)] = account
                    vars(pool).setdefault('_witnesses', []).append(_Witness(account, pool._core))
                account.stopped = False

    def stop(self, pool: Any) -> None:
        """Stop counting a pool. Its counts stay, until it is noted again."""
        for account in self._accounts.copy().values():
            if account.core() is pool._core:
                account.read()
                account.stopped = True

    def by_name(self, names: Collection[str]) -> dict[str, PoolStats]:
        """The counters and histograms of pools of these names, without gauges."""
        found = dict.fromkeys(names, _NOTHING)
        for name, values in self._parts():
            if name in found:
                found[name] = _sum(found[name], values)
        return {name: _as_stats(values) for name, values in found.items()}

    def _parts(self) -> Iterator[tuple[str, _Values]]:
        while True:
            gone, accounts = self._gone, self._accounts.copy()
            if gone is self._gone:
                break
        yield from gone.values.items()
        for number, account in accounts.items():
            if number not in gone.numbers:
                yield account.name, account.read()

    def _sum_up(self) -> None:
        """Replace the accounts of freed pools with one sum per name."""
        old = self._gone
        for number in old.numbers:
            self._accounts.pop(number, None)
        accounts = self._accounts.copy()
        ended = {number: account for number, account in accounts.items() if account.ended}
        if not ended:
            return
        values = old.values.copy()
        for account in ended.values():
            # The name moves to the end: it is the last one that is forgotten.
            values[account.name] = _sum(values.pop(account.name, _NOTHING), account.read())
        in_use = {account.name for number, account in accounts.items() if number not in ended}
        unused = [name for name in values if name not in in_use]
        for name in unused[: max(len(unused) - MAX_GONE_NAMES, 0)]:
            del values[name]
        new = _Gone(values, frozenset(ended))
        # A signal handler may have been faster.
        if self._gone is old:
            self._gone = new


_all_totals: 'weakref.WeakSet[Totals]' = weakref.WeakSet()


def _begin_anew() -> None:
    for totals in list(_all_totals):
        totals.begin_anew()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_begin_anew)
