"""Acquires that wait for each other: each holds a connection that another one waits for, so none is ever served.

A wait ends when a holder of such a connection returns it. It never ends if all of the holders wait, and all those for
which they wait, and so on. Example: two tasks each hold one of a pool's two connections, and acquire a second one. Or:
task A holds the only connection of pool 1 and waits for pool 2, and task B the reverse.

Each wait of a pool with ``record_holders`` is noted. The wait that closes a circle finds it, when that wait begins.
Only the holders that the pools know are followed: a task that waits for another task, or for a lock, counts as not
waiting.
"""

import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from ._core import Waiter

if TYPE_CHECKING:
    from ._holders import Pool

__all__ = ['MOST_LOOKED_AT', 'Wait', 'find_circle', 'holders_waited_for', 'note']

#: The largest number of connections of a pool at all of which an acquire looks when it begins to wait.
MOST_LOOKED_AT = 256

#: How many ended waits may still be noted, in addition to as many as are under way.
MOST_ENDED = 64


class Wait:
    """An acquire that waits. The wait is noted for as long as the acquire refers to this object.

    :param pool: the pool that it waits for
    :param waiter: the acquire
    :param who: the waiting thread or task, as the core shows it
    """

    __slots__ = ('__weakref__', 'pool', 'waiter', 'who')

    def __init__(self, pool: 'Pool', waiter: Waiter, who: Any):
        self.pool = pool
        self.waiter = waiter
        self.who = who


class Link(NamedTuple):
    """One wait of a circle, and the holder of the connection that it waits for."""

    wait: Wait
    held_by: list[Any]


class _Noted:
    """The waits of this process: weak references without callbacks, in which an error would be lost."""

    def __init__(self) -> None:
        # By the id of what waits: a reference to a task that is gone has no hash. A wait keeps its `who` alive.
        self._waits: dict[int, weakref.ref[Wait]] = {}
        self._tidy_at = MOST_ENDED

    def add(self, wait: Wait) -> None:
        if len(self._waits) >= self._tidy_at:
            for key, noted in [*self._waits.items()]:
                if noted() is None:
                    self._waits.pop(key, None)
            self._tidy_at = 2 * len(self._waits) + MOST_ENDED
        self._waits[id(wait.who)] = weakref.ref(wait)

    def of(self, who: Any) -> Wait | None:
        """The wait of a holder that waits now; None if it does not wait."""
        noted = self._waits.get(id(who))
        wait = None if noted is None else noted()
        return wait if wait is not None and wait.who is who and wait.waiter.queued else None


_noted = _Noted()


def note(pool: 'Pool', waiter: Waiter) -> Wait | None:
    """Note that the calling thread or task begins to wait. None if that thread or task is unknown."""
    who = pool._core.current_holder()
    if who is None:
        return None
    wait = Wait(pool, waiter, who)
    _noted.add(wait)
    return wait


def holders_waited_for(wait: Wait) -> list[Any]:
    """The holders of which one must return a connection for a wait to end; empty if something else may end it."""
    core = wait.pool._core
    endpoint = wait.waiter.endpoint
    if core.size > MOST_LOOKED_AT:
        return []
    stats = core.endpoint_stats(endpoint, False)
    waits_for_slot = stats['size'] < core.max_size
    if waits_for_slot:
        stats = core.stats()
    if stats['in_use'] < (core.total_max_size if waits_for_slot else core.max_size):
        return []  # a connect by the pool, or a close
    found = core.who_holds() if waits_for_slot else core.who_holds(endpoint, False)
    # If the acquire was served meanwhile, its connection counts as in use.
    return found if wait.waiter.queued else []


def find_circle(wait: Wait) -> list[Link]:
    """Return the waits that keep a wait from ending, itself first; empty if it may end."""
    waits = [wait]  # grows
    links: list[Link] = []
    for each in waits:
        holders = holders_waited_for(each)
        links.append(Link(each, holders))
        if not holders or len(links) > MOST_LOOKED_AT:
            return []
        for who in holders:
            other = None if who is None else _noted.of(who)
            if other is None:
                return []
            if other not in waits:
                waits.append(other)
    # The waits were not read at one moment: an acquire that was served meanwhile may return its connection.
    return links if all(each.waiter.queued for each in waits) else []
