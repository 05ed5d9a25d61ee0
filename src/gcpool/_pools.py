"""The pools of this process, of both runtimes: exporters of figures find them here.

A pool is noted when it is built. Acquires and releases do nothing for this.
"""

import itertools
import os
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ['by_name', 'open_pools', 'register', 'watch']

# By numbers: pools may be equal, or not hashable, if a subclass says so. Each operation on this dict is atomic. A
# forked child has the pools that were built before the fork, as it has their objects.
_references: 'dict[int, weakref.ref[Any]]' = {}
_numbers = itertools.count()


class Watcher(Protocol):
    """Is notified of each pool that is built, even if the pool is closed before the watcher looks."""

    def note_built(self, pool: Any) -> None: ...


_watchers: 'dict[int, weakref.ref[Watcher]]' = {}


def register(pool: Any) -> None:
    """Note a pool that was built, by a weak reference.

    With ``GCPOOL_MONITOR=1`` in the environment, the process serves snapshots from its first pool on.
    """
    number = next(_numbers)
    # The method is bound now: at the end of the interpreter the module's names may be gone before its pools are.
    forget = _references.pop
    _references[number] = weakref.ref(pool, lambda _: forget(number, None))
    for reference in _watchers.copy().values():
        watcher = reference()
        if watcher is not None:
            watcher.note_built(pool)
    if os.environ.get('GCPOOL_MONITOR', '0') not in {'', '0'}:
        from ._monitor.server import serve_as_environment_says

        serve_as_environment_says()


def watch(watcher: Watcher) -> None:
    """Notify a watcher, which is held weakly, of each pool that is built from now on."""
    number = next(_numbers)
    forget = _watchers.pop
    _watchers[number] = weakref.ref(watcher, lambda _: forget(number, None))


def open_pools() -> list[Any]:
    """The pools that are not closed, in the order in which they were built."""
    pools = (reference() for _, reference in sorted(_references.copy().items()))
    return [pool for pool in pools if pool is not None and not pool.closed]


def by_name(pools: Iterable[Any]) -> dict[str, list[Any]]:
    """The pools by their names. Several pools may have the same name: their figures are summed."""
    groups: dict[str, list[Any]] = {}
    for pool in pools:
        groups.setdefault(pool.name, []).append(pool)
    return groups
