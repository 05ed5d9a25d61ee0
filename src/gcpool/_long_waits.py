"""The warning about an acquire that waits for long: which thread or task waits, and which hold the connections.

Without it, a program whose acquires have no time limit and wait for each other hangs without a message. Example: a task
acquires a second connection inside a block of ``connection()``, and ``max_size`` is 1.

A beginning wait costs an acquire nothing for this. On threads, the acquire itself wakes up after ``LONG_WAIT``. On
asyncio, one timer of the pool looks through the waits, which the pool has to keep alive anyway.
"""

import gc
import math
import sys
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from ._core import Waiter
from ._holders import describe, named
from ._workers.loop_timer import LoopTimer

if TYPE_CHECKING:
    import asyncio

__all__ = ['LONG_WAIT', 'Waits']

#: Seconds after which an acquire that waits is logged.
LONG_WAIT = 10.0

#: Seconds after such a warning during which the pool logs no further one.
PAUSE = 60.0

# Seconds by which the clock of the core may be behind the clock of an event loop.
_LAG = 0.1

#: In how many tasks of an event loop the pool looks for blocks of connection(), and how many of them it names.
MOST_TASKS = 1_000
MOST_NAMED = 3


class Waits(dict[Any, Waiter]):
    """The waits of a pool on asyncio: the waiter of each task, by what the task awaits.

    In both runtimes, this logs the long ones, and none for ``PAUSE`` after each.

    :param pool: the pool, which owns this
    """

    def __init__(self, pool: Any):
        super().__init__()
        self._pool = weakref.ref(pool)
        self._timer = LoopTimer()
        # When the next warning may be logged. The thread that logs takes it out meanwhile: list.pop() is atomic.
        self._may_log_at = [-math.inf]

    def watch(self, loop: 'asyncio.AbstractEventLoop', waiter: Waiter, deadline: float) -> None:
        """Have the timer look when the wait that begins now in this event loop becomes a long one.

        :param deadline: when the wait ends at the latest
        """
        # Infinite for a wait that is not an acquire's.
        if waiter.waits_from + LONG_WAIT < deadline and not self._timer.will_fire_in(loop):
            self._timer.set(loop, LONG_WAIT, partial(self._look, loop))

    def stop(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _look(self, loop: 'asyncio.AbstractEventLoop') -> None:
        pool = self._pool()
        if pool is None:
            return
        oldest = min(self.values(), key=lambda waiter: waiter.waits_from, default=None)
        if oldest is None or oldest.waits_from == math.inf:
            return  # the next wait calls watch() again
        left = oldest.waits_from + LONG_WAIT - pool._core.now()
        self._timer.set(loop, left if left > 0 else PAUSE + _LAG, partial(self._look, loop))
        if left <= 0:
            self._log(pool, oldest, partial(_tasks, pool, loop, oldest))

    def log_of_thread(self, pool: Any, waiter: Waiter) -> None:
        """Log that the acquire of the calling thread waits for long."""
        self._log(pool, waiter, partial(_thread, pool))

    def _log(self, pool: Any, waiter: Waiter, look: Any) -> None:
        try:
            may_log_at = self._may_log_at.pop()
        except IndexError:
            return  # another thread logs
        now = pool._core.now()
        since = waiter.waits_from
        try:
            if now < may_log_at or since == math.inf:
                return
            may_log_at = now + PAUSE
            who, users = look()
            pool._tell(
                None,
                waiter.endpoint,
                'an acquire of a connection to %s by %s has waited for %.1f s%s%s',
                who,
                now - since,
                pool._reason_to_wait(waiter.endpoint),
                users,
                level='warning',
                duration=now - since,
            )
        finally:
            self._may_log_at.append(may_log_at)


def _thread(pool: Any) -> tuple[str, str]:
    """Return the calling thread's name, and who holds the connections."""
    # Imported here, because hardly any program needs it.
    from ._own_use import thread_holds

    name = named(pool._core.current_holder())
    return name, _users(pool, [f'{name} itself'] if thread_holds(pool) else [])


def _tasks(pool: Any, loop: 'asyncio.AbstractEventLoop', waiter: Waiter) -> tuple[str, str]:
    """Return the name of the task that waits, and who holds the connections. No task runs now."""
    from ._own_use import task_holds

    asyncio: Any = sys.modules['asyncio']
    signals = [signal for signal, each in pool._waits.items() if each is waiter]
    tasks = [*asyncio.all_tasks(loop)][:MOST_TASKS]
    # A task refers to what it awaits.
    waiting = [task for task in tasks if any(thing in signals for thing in gc.get_referents(task))]
    name = f'task {waiting[0].get_name()}' if waiting else 'a task'
    holding = (task for task in tasks if task_holds(task.get_coro(), pool))
    in_blocks = (f'{name} itself' if task in waiting else f'task {task.get_name()}' for task in holding)
    return name, _users(pool, in_blocks)


def _users(pool: Any, in_blocks: Iterable[str]) -> str:
    return ''.join(_first(_recorded(pool) if pool._core.records_holders else _seen(in_blocks)))


def _recorded(pool: Any) -> Iterator[str]:
    for holder in pool.holders():
        yield describe([holder])


def _seen(in_blocks: Iterable[str]) -> Iterator[str]:
    for who in in_blocks:
        yield f'; {who} is in a block of connection() of this pool'
    yield '; record_holders=True shows who holds connections, and where they were acquired'


def _first(texts: Iterator[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number == MOST_NAMED:
            yield '; and others'
            return
        yield text
