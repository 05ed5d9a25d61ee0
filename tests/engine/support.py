"""A facade for tests that does nothing by itself: the test asks the core and carries out the answers.

Time is a number that the test sets; nothing here waits, connects or closes.
"""

from collections.abc import Callable
from typing import Any

from gcpool._core import Entry, PoolCore, Waiter
from gcpool._statistics import PoolStats


class Connection:
    """A connection to nothing. The first one to ``'a'`` is called ``a1``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f'<{self.name}>'


class Acquire:
    """One acquire in progress."""

    # The garbage collector may clear an instance's attributes before it finalises the waiter of another one, which
    # notifies the instance.
    notified = 0
    _on_notify: Callable[['Acquire'], object] = staticmethod(lambda acquire: None)

    def __init__(self, core: PoolCore, endpoint: object, on_notify: Callable[['Acquire'], object]) -> None:
        self.endpoint = endpoint
        self.waiter = Waiter(endpoint)
        self._on_notify = on_notify
        self.waiter.arm(self._notify)

    def _notify(self) -> None:
        self.notified += 1
        self._on_notify(self)

    @property
    def answer(self) -> str:
        """The core's answer so far: ``waits``, ``turned away``, ``refused``, ``failed``, ``down``, ``ticket``,
        ``served``, or ``nothing`` yet."""
        waiter = self.waiter
        answers = {
            'waits': waiter.queued,
            'turned away': waiter.turned_away,
            'refused': waiter.refused,
            'failed': waiter.failed,
            'down': waiter.endpoint_is_down,
            'ticket': waiter.has_ticket,
            'served': waiter.held is not None and not waiter.has_ticket and not waiter.refused,
        }
        true = [name for name, value in answers.items() if value]
        assert len(true) <= 1, true
        return true[0] if true else 'nothing'

    @property
    def entry(self) -> Entry:
        assert self.waiter.held is not None, f'{self!r} holds nothing'
        return self.waiter.held

    @property
    def conn(self) -> Any:
        return self.entry.conn

    def __repr__(self) -> str:
        return f'<Acquire of {self.endpoint!r}: {self.answer}>'


class Pool:
    """A core, its time, and who was notified, in order."""

    def __init__(
        self,
        *,
        min_idle: int = 1,
        max_size: int = 3,
        total_max_size: int = 100,
        idle_timeout: float = 10.0,
        max_lifetime: float = 100.0,
        collects: bool = False,
        wake_collector: Callable[[], object] | None = None,
        order: str = 'lifo',
        keep: str = 'size',
        max_waiting: int = 0,
        max_workers: int = 0,
        **growth: Any,
    ) -> None:
        self.now = 0.0
        # Acquires that the test does not look at again: one that is collected as garbage gives back what it holds.
        self.kept: list[Acquire] = []
        self.core = PoolCore(
            min_idle,
            max_size,
            total_max_size,
            idle_timeout,
            max_lifetime,
            collects,
            clock=self.read_clock,
            wake_collector=wake_collector,
            max_waiting=max_waiting,
            max_workers=max_workers,
            serves_oldest=order == 'fifo',
            counts_idle_only=keep == 'idle',
            keeps_growth=bool(growth),
            **growth,
        )
        self.core.set_workers(self._note_call)
        self.has_workers = True
        self.worker_calls = 0
        self.notified: list[Acquire] = []
        self._numbers: dict[object, int] = {}

    def read_clock(self) -> float:
        return self.now

    def _note_call(self) -> bool:
        self.worker_calls += 1
        return self.has_workers

    # -- asking ---------------------------------------------------------------------------------------------------

    def ask(self, endpoint: object) -> Acquire:
        """Ask for a connection, and leave the answer to the test."""
        acquire = Acquire(self.core, endpoint, self.notified.append)
        self.ask_again(acquire)
        return acquire

    def ask_again(self, acquire: Acquire) -> None:
        queued = self.core.request(acquire.waiter, self.now)
        # Without workers it may have been served before the call has returned.
        assert queued >= acquire.waiter.queued
        self.core.check_invariants()

    def connect(self, acquire: Acquire, *made: object) -> Any:
        """Carry out a ticket, with a new connection unless the test passes one."""
        if made:
            (conn,) = made
        else:
            number = self._numbers[acquire.endpoint] = self._numbers.get(acquire.endpoint, 0) + 1
            conn = Connection(f'{acquire.endpoint}{number}')
        assert self.core.created(acquire.entry, conn, self.now)
        self.core.check_invariants()
        return conn

    def acquire(self, endpoint: object) -> Acquire:
        """Ask for a connection that is idle or can be created at once."""
        acquire = self.ask(endpoint)
        if acquire.answer == 'ticket':
            self.connect(acquire)
        assert acquire.answer == 'served', acquire
        return acquire

    def acquire_all(self, endpoint: object, count: int) -> list[Acquire]:
        return [self.acquire(endpoint) for _ in range(count)]

    def release(self, *acquires: Acquire) -> None:
        """Release what they hold, as a facade does."""
        for acquire in acquires:
            entry = self.core.find_acquired(acquire.conn, acquire.endpoint)
            if entry is not None:
                self.core.release(entry, self.now)
            self.core.check_invariants()

    def cancel(self, acquire: Acquire) -> bool:
        waited = self.core.cancel(acquire.waiter, self.now)
        self.core.check_invariants()
        return waited

    def fill(self, endpoint: object, count: int) -> None:
        """Create a number of idle connections, released in the order of their numbers."""
        self.release(*self.acquire_all(endpoint, count))

    # -- the pool's own connects ------------------------------------------------------------------------------------

    def take_creates(self) -> list[Entry]:
        """Return all tickets of the pool's own that a worker gets now."""
        tickets = []
        while (ticket := self.core.take_create(self.now)) is not None:
            tickets.append(ticket)
            self.core.check_invariants()
        return tickets

    def grow(self, ticket: Entry) -> Any:
        """Carry out a ticket of the pool's own."""
        number = self._numbers[ticket.endpoint] = self._numbers.get(ticket.endpoint, 0) + 1
        conn = Connection(f'{ticket.endpoint}{number}')
        self.core.grown(ticket, conn, self.now)
        self.core.check_invariants()
        return conn

    def grow_failed(self, ticket: Entry, error: Exception, *, is_refusal: bool = False) -> int:
        news = self.core.grow_failed(ticket, error, error, is_refusal, self.now)
        self.core.check_invariants()
        return news

    def run_timers(self) -> None:
        self.core.run_timers(self.now)
        self.core.check_invariants()

    # -- closing --------------------------------------------------------------------------------------------------

    def take_doomed(self) -> list[Entry]:
        """Return what is to be closed now; none of it is closed yet."""
        entries = []
        while (entry := self.core.take_doomed()) is not None:
            entries.append(entry)
        assert self.core.doomed == 0
        return entries

    def dispose(self) -> list[str]:
        """Close what is to be closed, one by one, and what that dooms. Return the names, in that order."""
        names = []
        while (entry := self.core.take_doomed()) is not None:
            names.append(entry.conn.name)
            self.core.disposed(entry, self.now)
            self.core.check_invariants()
        return names

    def expire(self, limit: int = 1000) -> list[str]:
        self.core.doom_due(self.now, limit)
        self.core.check_invariants()
        return self.dispose()

    # -- looking --------------------------------------------------------------------------------------------------

    def drain_idle(self, endpoint: object) -> list[str]:
        """Acquire all idle connections of an endpoint, and keep them. Return their names, in the order of serving."""
        names = []
        while (entry := self.core.try_acquire(endpoint, self.now)) is not None:
            names.append(entry.conn.name)
            self.core.check_invariants()
        return names

    @property
    def stats(self) -> PoolStats:
        return self.core.stats()

    def count(self, *names: str) -> tuple[int, ...]:
        stats = self.stats
        return tuple(stats[name] for name in names)


def names(*acquires: Acquire) -> list[str]:
    """Return what the acquires were served."""
    return [acquire.conn.name for acquire in acquires]
