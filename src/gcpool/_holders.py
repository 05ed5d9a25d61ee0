"""Who holds the connections of a pool, since when, and where they were acquired; which of them have leaked."""

import math
import sys
from collections.abc import Iterable
from os import path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from ._circles import Link, Wait, find_circle, holders_waited_for, note
from ._core import Entry, Observer, PoolCore, ThreadMark, Waiter

if TYPE_CHECKING:
    from typing import Protocol

    class Pool(Protocol):
        """What this module needs of a pool."""

        @property
        def _core(self) -> PoolCore: ...
        @property
        def _observer(self) -> Observer: ...
        @property
        def _holding(self) -> 'Holding': ...
        def _tell(
            self,
            kind: str | None,
            endpoint: Any,
            message: str,
            *args: object,
            level: str = 'info',
            reason: str | None = None,
            duration: float | None = None,
            error: BaseException | None = None,
        ) -> None: ...


__all__ = ['Frame', 'Holder', 'Holding']

#: How many frames a holder has at most.
MOST_FRAMES = 8

_OWN = path.dirname(path.abspath(__file__)) + path.sep
_NOT_SHOWN = f'{path.sep}contextlib.py'


class Frame(NamedTuple):
    """A place in a program.

    :ivar file: the file
    :ivar line: the number of the line; None if it is not known
    :ivar function: the function, with its class from Python 3.11 on
    """

    file: str
    line: int | None
    function: str

    def __str__(self) -> str:
        return f'{self.file}:{self.line} in {self.function}'


class Holder(NamedTuple):
    """A connection in use, and who holds it.

    :ivar endpoint: the endpoint, as the manager's ``describe_endpoint`` shows it
    :ivar seconds: for how long the connection has been in use
    :ivar holder: the name of the thread or the task that acquired it; None if that was not recorded, or if the task is
        gone
    :ivar frames: where it was acquired, innermost first; empty if that was not recorded
    """

    endpoint: Any
    seconds: float
    holder: str | None
    frames: tuple[Frame, ...]


class _Lease(NamedTuple):
    """What the core says of a connection in use."""

    seconds: float
    endpoint: Any
    entry: Entry
    lease_no: int
    who: Any
    places: tuple[tuple[CodeType, int], ...]
    is_long: bool
    is_dropped: bool

    @property
    def key(self) -> tuple[int, int]:
        return id(self.entry), self.lease_no


class Holding:
    """What a pool knows of those who hold its connections.

    :param pool: the pool, which owns this
    :param leak_threshold: seconds; None if it does not look for leaks
    """

    def __init__(self, pool: 'Pool', leak_threshold: float | None):
        self.leak_threshold = leak_threshold
        # A wait for its own holder is logged once per pool, and so is a circle of waits.
        self._told_of_own_wait = False
        self._told_of_circle = False
        # The leaks that were logged and have not ended, and when they began.
        self._leaks: dict[tuple[int, int], tuple[_Lease, float]] = {}
        self._fork_epoch = pool._core.fork_epoch

    def list(self, pool: 'Pool', *endpoint: Any) -> list[Holder]:
        """Return the connections in use, of one endpoint or of all, longest first."""
        return [self._show(pool, lease) for lease in _leases(pool, *endpoint)]

    def _show(self, pool: 'Pool', lease: _Lease) -> Holder:
        return Holder(pool._observer.shown(lease.endpoint), lease.seconds, _name(lease.who), _frames(lease.places))

    # -- leaks --------------------------------------------------------------------------------------------------------

    def due_at(self, pool: 'Pool') -> float:
        """Return when the next look for leaks is due; infinite if none is."""
        return math.inf if self.leak_threshold is None else pool._core.next_look_for_leaks

    def look_if_due(self, pool: 'Pool') -> None:
        """Tell the leaks that are found, and those that have ended, if it is time to look."""
        core = pool._core
        now = core.now()
        if self.leak_threshold is None or core.next_look_for_leaks > now:
            return
        # First of all: an acquire that this look does not see has the next one made.
        core.look_for_leaks_again(now, False)
        if self._fork_epoch != core.fork_epoch:
            self._fork_epoch = core.fork_epoch
            self._leaks.clear()  # those are the parent's
        goes_on = True  # also if an observer's callback raises
        try:
            for key, (lease, began) in [*self._leaks.items()]:
                ended = core.returned_at(lease.entry, lease.lease_no)
                if ended is not None and self._leaks.pop(key, None) is not None:
                    self._tell_end(pool, lease, (now if ended == math.inf else ended) - began)
            leases = _leases(pool)
            for lease in leases:
                why = self._why(lease)
                if why is not None and lease.key not in self._leaks:
                    self._leaks[lease.key] = lease, now - lease.seconds
                    self._tell(pool, lease, why)
            goes_on = bool(self._leaks) or not all(lease.is_long for lease in leases)
        finally:
            if goes_on:
                core.look_for_leaks_again(now, True)

    def _why(self, lease: _Lease) -> str | None:
        if lease.is_dropped:
            return 'was dropped without being returned'
        if _has_ended(lease.who):
            return 'was not returned, and its holder has ended'
        if lease.is_long or lease.seconds < (self.leak_threshold or math.inf):
            return None
        return f'has been in use for longer than leak_threshold={self.leak_threshold:g} s'

    def _tell(self, pool: 'Pool', lease: _Lease, why: str) -> None:
        pool._core.count_leak()
        pool._tell(
            'leak',
            lease.endpoint,
            'a connection to %s ' + why + ': held for %.1f s by %s, acquired at %s, now at %s',
            lease.seconds,
            _name(lease.who) or 'an unknown holder',
            _text(_frames(lease.places)),
            _text(_frames_now(lease.who)),
            level='warning',
            duration=lease.seconds,
        )

    def _tell_end(self, pool: 'Pool', lease: _Lease, seconds: float) -> None:
        how = 'closed' if lease.entry.state_name in {'closing', 'gone'} else 'returned'
        if lease.entry.is_given_up:
            how = 'discarded or detached'
        pool._tell(
            None,
            lease.endpoint,
            'the connection to %s that %s held for too long was ' + how + ' after %.1f s',
            _name(lease.who) or 'an unknown holder',
            seconds,
            duration=seconds,
        )

    def note_dropped(self, pool: 'Pool', entry: Entry, lease_no: int) -> None:
        """The context that holds a connection is being freed, and was never left. Its destructor returns it."""
        for lease in _leases(pool, entry.endpoint):
            if lease.key == (id(entry), lease_no):
                self._tell(pool, lease, 'was dropped: its block was entered and never left')

    # -- who waits for itself, or for each other ----------------------------------------------------------------------

    def note_wait(self, pool: 'Pool', waiter: Waiter) -> Wait | None:
        """An acquire begins to wait, and is known to do so while it refers to the result.

        Tell, once each, if its own thread or task holds what it waits for, and if those wait who hold it.
        """
        wait = note(pool, waiter) if pool._core.records_holders else None
        if wait is None or (self._told_of_own_wait and self._told_of_circle):
            return wait
        if not self._told_of_own_wait and any(who is wait.who for who in holders_waited_for(wait)):
            self._tell_own_wait(pool, wait)
        if not self._told_of_circle:
            circle = find_circle(wait)
            if len(circle) > 1:
                for link in circle:
                    link.wait.pool._holding._told_of_circle = True
                self._tell_circle(pool, wait, circle)
        return wait

    def _tell_own_wait(self, pool: 'Pool', wait: Wait) -> None:
        for lease in _leases(pool):
            if lease.who is wait.who:
                self._told_of_own_wait = True
                pool._tell(
                    None,
                    wait.waiter.endpoint,
                    'an acquire of a connection to %s waits for its own %s, which holds one for %.1f s, acquired at '
                    '%s: if all connections are held by those who wait, they wait for each other (logged once)',
                    named(wait.who),
                    lease.seconds,
                    _text(_frames(lease.places)),
                    level='warning',
                )
                return

    def _tell_circle(self, pool: 'Pool', wait: Wait, circle: Iterable[Link]) -> None:
        pool._tell(
            None,
            wait.waiter.endpoint,
            'an acquire of a connection to %s closes a circle of acquires that wait for each other, and for nobody '
            'else: %s (logged once)',
            '; '.join(map(_described, circle)),
            level='warning',
        )


def describe(holders: Iterable[Holder]) -> str:
    """The first holder, as the message of a PoolTimeout shows it; empty if there is none."""
    for holder in holders:
        where = f' at {holder.frames[0]}' if holder.frames else ''
        return f'; {holder.holder or "an unknown holder"} has held one for {holder.seconds:.1f} s, acquired{where}'
    return ''


def _leases(pool: 'Pool', *endpoint: Any) -> list[_Lease]:
    core = pool._core
    found = [_Lease(*each) for each in (core.holders(endpoint[0], False) if endpoint else core.holders())]
    return sorted(found, key=lambda lease: -lease.seconds)


def _task_of(who: Any) -> Any:
    return None if who is None or isinstance(who, ThreadMark) else who()


def _name(who: Any) -> str | None:
    if isinstance(who, ThreadMark):
        return who.name
    task = _task_of(who)
    if task is None:
        return None
    name: str = task.get_name() if hasattr(task, 'get_name') else repr(task)
    return name


def named(who: Any) -> str:
    """Return the kind and the name of a holder: ``thread MainThread``, ``task Task-7``."""
    kind, name = 'thread' if isinstance(who, ThreadMark) else 'task', _name(who)
    # A thread that Python has not started is called so.
    return f'{name}' if f'{name}'.startswith('thread ') else f'{kind} {name}'


def _described(link: Link) -> str:
    """Who waits for whom, and where those have acquired what they hold."""
    observer = link.wait.pool._observer
    places = {id(lease.who): lease.places for lease in _leases(link.wait.pool)}
    holders = []
    for who in {id(who): who for who in link.held_by}.values():
        frames = _frames(places.get(id(who), ()))
        holders.append(f'{named(who)} (acquired at {frames[0] if frames else "an unknown place"})')
    return (
        f'{named(link.wait.who)} waits for a connection to {observer.text(link.wait.waiter.endpoint)} of '
        f'{observer.name}, held by {" and ".join(holders)}'
    )


def _has_ended(who: Any) -> bool:
    if who is None:
        return False
    if isinstance(who, ThreadMark):
        return who.has_ended
    task = who()
    return task is None or bool(task.done())


def _frames(places: Iterable[tuple[CodeType, int]]) -> tuple[Frame, ...]:
    """The places that are the program's own, innermost first."""
    found: list[Frame] = []
    for code, line in places:
        file = code.co_filename
        if not file.startswith(_OWN) and not file.endswith(_NOT_SHOWN):
            name: str = getattr(code, 'co_qualname', code.co_name)
            found.append(Frame(file, line if line >= 0 else None, name))
    return tuple(found[:MOST_FRAMES])


def _frames_now(who: Any) -> tuple[Frame, ...]:
    """Where a holder is now."""
    frames: list[FrameType] = []
    if isinstance(who, ThreadMark):
        frame = None if who.has_ended else sys._current_frames().get(who.ident)
        while frame is not None and len(frames) < MOST_FRAMES:
            frames.append(frame)
            frame = frame.f_back
    else:
        task = _task_of(who)
        if task is not None and not task.done():
            frames = [*reversed(task.get_stack(limit=MOST_FRAMES))]
    return _frames([(frame.f_code, frame.f_lineno or -1) for frame in frames])


def _text(frames: Iterable[Frame]) -> str:
    return ' < '.join(map(str, frames)) or 'an unknown place'
