"""The pools of this process, of both runtimes: what exports figures finds them here.

A pool is noted when it is built. That is all that it costs: neither an acquire nor a release knows of this.
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
    """Wants to know of each pool that is built, also of one that is closed before anybody looks."""

    def note_built(self, pool: Any) -> None: ...


_watchers: 'dict[int, weakref.ref[Watcher]]' = {}


def register(pool: Any) -> None:
    """Note a pool that was built. It is held weakly.

    With ``GCPOOL_MONITOR=1`` in the environment, the first pool of a process has it serve snapshots.
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
    """Tell a watcher of each pool that is built from now on. It is held weakly."""
    number = next(_numbers)
    forget = _watchers.pop
    _watchers[number] = weakref.ref(watcher, lambda _: forget(number, None))


def open_pools() -> list[Any]:
    """The pools that are not closed, in the order of their making."""
    pools = (reference() for _, reference in sorted(_references.copy().items()))
    return [pool for pool in pools if pool is not None and not pool.closed]


def by_name(pools: Iterable[Any]) -> dict[str, list[Any]]:
    """The pools by their names. Several pools may have one name: their figures are summed."""
    groups: dict[str, list[Any]] = {}
    for pool in pools:
        groups.setdefault(pool.name, []).append(pool)
    return groups
