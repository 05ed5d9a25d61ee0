"""The pools that an exporter exports. It holds them weakly: exporting keeps no pool alive."""

import os
import threading
import weakref
from collections.abc import Collection
from typing import Any

from gcpool._pools import by_name, open_pools, watch
from gcpool._statistics import PoolStats
from gcpool.common import BaseConnectionPool

from .totals import Totals

__all__ = ['AllPools', 'Selection', 'checked_pool']


def checked_pool(pool: Any) -> Any:
    """The pool whose figures are exported.

    :raises TypeError: when it is not a pool
    :raises ValueError: when it is closed
    """
    # The pools of gcpool.psycopg_pool have one inside.
    found = pool if isinstance(pool, BaseConnectionPool) else getattr(pool, '_engine', None)
    if not isinstance(found, BaseConnectionPool):
        raise TypeError(f'pool={pool!r}: expected a pool of gcpool, not {type(pool).__name__}')
    if found.closed:
        raise ValueError(f'pool={pool!r}: expected a pool that is open, because a closed one has nothing to export')
    return found


class Selection:
    """Pools, by their names. Closed and freed pools are no longer among them."""

    def __init__(self) -> None:
        self.renew_lock()
        _selections.add(self)
        self._pools: list[weakref.ref[Any]] = []
        self._totals = Totals()

    def renew_lock(self) -> None:
        """Start with a free lock: in a forked child, another thread of the parent may have held it."""
        # A signal handler, or a destructor, may add a pool while its thread looks at them.
        self._lock = threading.RLock()

    def _living(self) -> list[Any]:
        # The lock is held.
        found = [(reference, reference()) for reference in self._pools]
        living = [pool for _, pool in found if pool is not None and not pool.closed]
        for reference, pool in found:
            if not any(pool is one for one in living) and reference in self._pools:
                self._pools.remove(reference)
        return living

    def __contains__(self, pool: object) -> bool:
        with self._lock:
            return any(known is pool for known in self._living())

    def add(self, pool: Any) -> bool:
        """Add a pool that was checked. False if it was already added."""
        with self._lock:
            if any(known is pool for known in self._living()):
                return False
            self._totals.note(pool)
            self._pools.append(weakref.ref(pool))
            return True

    def remove(self, pool: Any) -> bool:
        """Remove a pool. False if it is not among them."""
        with self._lock:
            kept = [reference for reference in self._pools if reference() is not pool]
            found = len(kept) < len(self._pools)
            self._pools = kept
        if found:
            self._totals.stop(pool)
        return found

    def by_name(self) -> dict[str, list[Any]]:
        """The pools, grouped by name."""
        with self._lock:
            return by_name(self._living())

    def totals(self, names: Collection[str]) -> dict[str, PoolStats]:
        """The counters of pools of these names, including closed and freed ones."""
        return self._totals.by_name(names)


_selections: 'weakref.WeakSet[Selection]' = weakref.WeakSet()


def _renew_locks() -> None:
    for selection in list(_selections):
        selection.renew_lock()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_renew_locks)


class AllPools:
    """All pools of the process, including those that are built later."""

    def __init__(self) -> None:
        self._totals = Totals()
        watch(self)
        self._totals.note(*open_pools())

    def note_built(self, pool: Any) -> None:
        """A pool was built. It may be closed before its figures are read."""
        self._totals.note(pool)

    def by_name(self) -> dict[str, list[Any]]:
        """The pools, grouped by name."""
        found = open_pools()
        self._totals.note(*found)
        return by_name(found)

    def totals(self, names: Collection[str]) -> dict[str, PoolStats]:
        """The counters of pools of these names, including closed and freed ones."""
        return self._totals.by_name(names)
