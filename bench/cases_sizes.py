"""What happens at the total limit: counts and simulated seconds, which are the same on every machine."""

import heapq
from collections.abc import Callable
from itertools import count

from gcpool._core import Entry, PoolCore, Waiter

from .measure import Figure, Goal, Result
from .runtimes import Runtime, opened
from .settings import Settings

__all__ = ['hot_endpoint', 'two_tenants']

USES = 1000

#: Seconds that the simulated server takes for a connect, and for a close.
CONNECT, CLOSE = 0.01, 0.002


def hot_endpoint(runtime: Runtime, settings: Settings) -> Result:
    """Use one endpoint again and again, and a new one after each use, with 10 connections in all.

    The figure is how often the one endpoint had to be connected to again.
    """
    result = Result(f'{runtime.name}: hot_endpoint', unit='reconnects')
    visited = [name for number in range(USES) for name in ('hot', f'new {number}')]
    classes = [cls for cls in runtime.subjects.ENDPOINT_POOLS if cls.name in {'gcpool', 'generic_connection_pool'}]
    with opened(runtime, [cls(max_size=10, total_max_size=10) for cls in classes], result) as present:
        for subject in present:
            before = subject.created
            runtime.call(subject.visit, visited)
            again = subject.created - before - USES - 1
            result.samples[subject.name] = [again]
            goal = Goal('<=', 5) if subject.name == 'gcpool' else None
            text = f'{subject.name}: reconnects in {USES:,} uses of an endpoint among new ones'
            result.figures.append(Figure(text, [again], unit='', goal=goal))
    return result


class Tenants:
    """Clients of several endpoints that share a pool, in simulated time."""

    def __init__(self, total: int) -> None:
        self.core = PoolCore(1, total, total, 60.0, 3600.0, clock=lambda: self.now)
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = count()
        self.waits: dict[str, list[float]] = {}
        self.connects = 0
        # The core borrows the waiters in its queues.
        self.queued: set[Waiter] = set()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self.order), call))

    def client(self, endpoint: str, hold: float, pause: float) -> None:
        """Acquire, hold, release, pause; and again."""
        waiter, asked_at = Waiter(endpoint), self.now

        def served() -> None:
            self.queued.discard(waiter)
            if waiter.has_ticket:
                self.after(CONNECT, connected)
            else:
                use()

        def connected() -> None:
            self.connects += 1
            self.core.created(waiter.served, object(), self.now)
            use()

        def use() -> None:
            self.waits.setdefault(endpoint, []).append(self.now - asked_at)
            entry = waiter.served
            del waiter.served
            self.after(hold, lambda: release(entry))

        def release(entry: Entry) -> None:
            self.core.release(entry, self.now)
            self.close_doomed()
            self.after(pause, lambda: self.client(endpoint, hold, pause))

        waiter.arm(lambda: self.after(0.0, served))
        if self.core.request(waiter, self.now):
            self.queued.add(waiter)
        else:
            served()
        self.close_doomed()

    def close_doomed(self) -> None:
        while (entry := self.core.take_doomed()) is not None:
            self.after(CLOSE, lambda entry=entry: self.closed(entry))  # type: ignore[misc]

    def closed(self, entry: Entry) -> None:
        self.core.disposed(entry, self.now)
        self.close_doomed()

    def run(self, seconds: float) -> None:
        while self.events[0][0] <= seconds:
            self.now, _, call = heapq.heappop(self.events)
            call()


def two_tenants(runtime: Runtime, settings: Settings) -> Result:
    """Two endpoints share 10 connections. Threads and tasks are served alike: the core is simulated.

    60 clients of one endpoint hold each connection for 0.5 s, all at the same time or one after the other. One client
    of the other endpoint comes now and then: how long does it wait at most? Then both have 20 clients: how many
    connects do they cost each other?
    """
    result = Result(f'{runtime.name}: two_tenants', unit='s')
    for name, spread in (('at once', 0.0), ('one after the other', 0.05)):
        tenants = Tenants(10)
        for number in range(60):
            tenants.after(number * spread, lambda: tenants.client('saturated', 0.5, 0.0))  # noqa: B023
        tenants.after(3.0, lambda: tenants.client('light', 0.01, 0.37))  # noqa: B023
        tenants.run(600.0)
        longest = max(tenants.waits['light'])
        result.samples[f'light, {name}'] = tenants.waits['light']
        text = f'longest wait beside 60 holds of 0.5 s, begun {name}'
        result.figures.append(Figure(text, [longest], unit=' s', goal=Goal('<=', 1.5)))
    for hold in (0.01, 0.1, 1.0):
        tenants = Tenants(10)
        for number in range(40):
            tenants.after(number * hold / 40, lambda number=number: tenants.client('ab'[number % 2], hold, 0.0))  # type: ignore[misc] # noqa: B023
        tenants.run(2000 * hold)
        holds = sum(map(len, tenants.waits.values()))
        text = f'connects of two endpoints with 20 clients each, per 1,000 holds of {hold:g} s'
        result.figures.append(Figure(text, [1000 * tenants.connects / holds], unit=''))
        shares = [len(waits) for waits in tenants.waits.values()]
        result.figures.append(
            Figure(f'the same: least served by most served, of {len(shares)}', [min(shares) / max(shares)])
        )
    return result
