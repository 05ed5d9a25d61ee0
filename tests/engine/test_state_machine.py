"""The core against a naive model of it: any operations in any order give the same answers, and the invariants hold."""

import functools
import math
from collections import Counter
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gcpool._core import MAY_ASK_AGAIN, Entry, PoolCore, Waiter
from gcpool.exceptions import ConnectionNotAcquired, ConnectionPoolClosedError
from tests.conftest import FREE_THREADED
from tests.engine.growing import Growth
from tests.engine.model import Acq, Conn, Model
from tests.engine.support import Acquire, Connection

ENDPOINTS = 4

INDEX = st.integers(0, 15)
COUNT = st.sampled_from([1, 1, 2, 4])
ENDPOINT = st.integers(0, ENDPOINTS - 1)
ANEW = st.booleans()
# min_idle, max_size, total_max_size
LIMITS = st.sampled_from(
    [
        (2, 4, 9),
        (0, 3, 6),
        (1, 3, 7),
        (1, 4, 4),
        (0, 4, 8),
        (3, 4, 10),
        (0, 2, 3),
        (1, 2, 4),
        (0, 1, 2),
        (1, 1, 1),
        (2, 2, 8),
    ]
)
# idle_timeout, max_lifetime
SECONDS = st.sampled_from(
    [(4.0, 24.0), (4.0, 12.0), (1.0, 24.0), (8.0, 8.0), (0.0, 12.0), (0.0, 0.0)]
    # Infinite deadlines tie. Ties are in the order of release only if all releases share a counter.
    + ([] if FREE_THREADED else [(4.0, math.inf), (math.inf, math.inf)])
)
# Whether the pool keeps idle connections: mostly, since more happens then.
KEPT = st.sampled_from([True, True, True, True, True, False])
# order, keep
WAYS = st.sampled_from([('lifo', 'size'), ('lifo', 'size'), ('fifo', 'size'), ('lifo', 'idle'), ('fifo', 'idle')])
MAX_WAITING = st.sampled_from([0, 0, 1, 3])
# min_size, creates_in_background, max_connecting, reconnect_timeout, fails_fast, whether a full server is waited for
Growing = tuple[int, bool, int, float, bool, bool]
NO_GROWTH = (0, False, 0, 0.0, False, False)
GROWTH: st.SearchStrategy[Growing] = st.sampled_from(
    [
        *[NO_GROWTH] * 6,
        (0, True, 2, 0.0, False, False),
        (0, True, 0, 0.0, False, True),
        (0, True, 1, 0.5, False, False),
        (0, True, 2, 0.0, True, False),
        (1, False, 0, 0.0, False, False),
        (2, False, 1, 0.0, False, True),
        (2, True, 2, 3.0, False, True),
        (1, False, 0, 0.0, True, True),
        (0, False, 1, 0.0, False, False),
        (0, False, 0, 0.05, False, False),
        (0, False, 2, 3.0, False, True),
        (0, False, 0, 0.0, True, False),
        (0, False, 0, 0.0, False, True),
    ]
)
MAX_WORKERS = st.sampled_from([0, 0, 1, 2, 3, 4])
END_OF_CREATE = st.sampled_from(
    ['grow', 'grow', 'grow', 'grow', 'fail', 'fail', 'refuse', 'refuse', 'hopeless', 'known', 'cancel']
)
ACQUIRE = st.sampled_from(['connect', 'connect', 'connect', 'ask', 'try'])


class Endpoint:
    """Two of them share each hash; another object of the same number is the same endpoint."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return self.number % 2

    def __eq__(self, other: object) -> bool:
        return type(other) is Endpoint and self.number == other.number

    def __repr__(self) -> str:
        return f'e{self.number}'


class Spelling(Endpoint):
    """Counts as an endpoint, and is equal only to another one of that spelling."""

    def __init__(self, number: int, variant: int) -> None:
        super().__init__(number)
        self.variant = variant

    def __hash__(self) -> int:
        return self.variant % 3

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spelling) and (self.number, self.variant) == (other.number, other.variant)


def normalize(endpoint: Endpoint) -> Endpoint:
    return Endpoint(endpoint.number)


class Pair:
    """An acquire: the core's answer, and the model's."""

    def __init__(self, machine: 'PoolMachine', endpoint: int, anew: bool) -> None:
        self.known = Acq(endpoint)
        self.real = Acquire(
            machine.core,
            machine.spell(endpoint, anew),
            lambda _: machine.notified.append(self),
        )

    def __repr__(self) -> str:
        return f'{self.known.state} at {self.known.endpoint}, the core: {self.real.answer}'


class PoolMachine(RuleBasedStateMachine):
    """The test is the facade: it does anything that a facade may do, at any time."""

    core: PoolCore
    model: Model

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.endpoints = [Endpoint(number) for number in range(ENDPOINTS)]
        self.notified: list[Pair] = []
        self.in_any_order = False
        self.active: list[Pair] = []
        self.releasing: list[tuple[Pair, Entry]] = []
        self.closing: list[tuple[Conn, Entry]] = []
        self.checking: list[Conn] = []
        self.connections: dict[int, Connection] = {}
        self.entries: dict[int, Entry] = {}
        self.disposals: Counter[int] = Counter()
        self.detached: set[int] = set()
        self.given_back: list[tuple[Conn, Connection]] = []
        self.watchers: list[Waiter] = []
        self.use_watchers: list[Waiter] = []
        self.told: list[Waiter] = []
        self.growing: list[tuple[Conn, Entry]] = []
        self.fill_watchers: list[Waiter] = []
        self.has_workers = True
        self.luck = 0.0
        self.were_told = False  # in this step, the workers were told of the next timer
        self.told_retry = math.inf  # when the one is due that they know of
        self.grows = False
        self.lives_vary = False  # min_size was set: when core connections are due depends on what else is in use
        self.wakes = 0
        self.spellings = 0
        self.sound = False

    @initialize(
        limits=LIMITS,
        seconds=SECONDS,
        ways=WAYS,
        max_waiting=MAX_WAITING,
        collects=st.booleans(),
        spelled=st.booleans(),
        kept=KEPT,
        opened=st.sampled_from([True] * 7 + [False]),
        max_uses=st.sampled_from([0, 0, 0, 1, 3]),
        keepalive=st.sampled_from([0.0, 0.0, 2.0]),
        jitter=st.sampled_from([0.0, 0.0, 0.25]),
        growth=GROWTH,
        max_workers=MAX_WORKERS,
    )
    def build(
        self,
        limits: tuple[int, int, int],
        seconds: tuple[float, float],
        ways: tuple[str, str],
        max_waiting: int,
        collects: bool,
        spelled: bool,
        kept: bool,
        opened: bool,
        max_uses: int,
        keepalive: float,
        jitter: float,
        growth: Growing,
        max_workers: int,
    ) -> None:
        order, keep = ways
        if seconds[1] == 0.0:
            # What is closed as soon as it is there would be created for those who wait for ever.
            growth = NO_GROWTH
        min_size, in_background, max_connecting, reconnect_timeout, fails_fast, _ = growth
        if not kept or 0.0 in seconds:
            min_size = 0
        self.grows = growth != NO_GROWTH
        self.lives_vary = min_size > 0
        self.core = PoolCore(
            *limits,
            *seconds,
            collects,
            clock=lambda: self.now,
            wake_collector=self.wake,
            normalize=normalize if spelled else None,
            max_waiting=max_waiting,
            serves_oldest=order == 'fifo',
            counts_idle_only=keep == 'idle',
            keeps_idle=kept,
            opened=opened,
            max_uses=max_uses,
            random=lambda: self.luck,
            keepalive_interval=keepalive,
            lifetime_jitter=jitter,
            max_workers=max_workers,
            min_size=min_size,
            creates_in_background=in_background,
            max_connecting=max_connecting,
            reconnect_timeout=reconnect_timeout,
            fails_fast=fails_fast,
            keeps_growth=self.grows,
        )
        self.core.set_workers(self.call_workers)
        self.model = Model(
            *limits,
            *seconds,
            collects,
            max_waiting,
            order,
            keep,
            kept,
            opened,
            max_uses,
            keepalive,
            jitter,
            max_workers,
        )
        self.model.growth = Growth(
            self.model,
            min_size,
            in_background,
            max_connecting,
            reconnect_timeout,
            fails_fast,
            of_all=self.grows,
            random=lambda: self.luck,
            clock=lambda: self.now,
        )

    # -- helpers ------------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        self.wakes += 1

    def call_workers(self) -> bool:
        self.were_told = True
        return self.has_workers

    def step(self) -> None:
        self.sound = False
        self.luck = (self.luck + 0.381966) % 1.0
        self.tick()

    def tick(self) -> None:
        # No two timers are due at the same time: it would be the core's choice whose turn it is.
        if FREE_THREADED or self.grows:
            self.now += 1 / 1024

    def pairs(self, *states: str) -> list[Pair]:
        return [pair for pair in self.active if pair.known.state in states]

    def pick(self, index: int, *states: str) -> Pair:
        pairs = self.pairs(*states)
        return pairs[index % len(pairs)]

    def endpoint(self, pair: Pair, anew: bool) -> Endpoint:
        return self.spell(pair.known.endpoint, anew)

    def spell(self, endpoint: int, anew: bool) -> Endpoint:
        if not anew:
            return self.endpoints[endpoint]
        if self.core.normalize is None:
            return Endpoint(endpoint)
        self.spellings += 1
        # More of them than the core remembers.
        return Spelling(endpoint, self.spellings * 7 % 20)

    def end(self, pair: Pair) -> None:
        self.active.remove(pair)

    # -- acquiring ----------------------------------------------------------------------------------------------------

    @rule(endpoint=ENDPOINT, anew=ANEW, how=ACQUIRE)
    def acquire(self, endpoint: int, anew: bool, how: str) -> None:
        """Acquire as a facade does: take an idle connection, or ask, and connect at once; or leave the answer for
        later."""
        self.step()
        self.start(endpoint, anew, how)

    @precondition(lambda self: len(self.model.waiting()) < 4)
    @rule(endpoints=st.lists(ENDPOINT, min_size=2, max_size=6), how=ACQUIRE)
    def acquire_several(self, endpoints: list[int], how: str) -> None:
        for endpoint in endpoints:
            self.step()
            self.start(endpoint, False, how)

    @rule(endpoint=ENDPOINT, count=st.sampled_from([4, 3, 2, 1]), index=INDEX, seconds=st.sampled_from([0.0, 0.5, 3.0]))
    def use(self, endpoint: int, count: int, index: int, seconds: float) -> None:
        """Some clients acquire connections, use them, and release them in some order."""
        pairs = []
        for _ in range(count):
            self.step()
            pair = self.start(endpoint, False, 'connect')
            if pair.known.state == 'served':
                pairs.append(pair)
            else:
                self.cancel_it(pair)
        while pairs:
            self.now += seconds
            self.step()
            self.give_back(pairs.pop(index % len(pairs)), anew=False)

    def start(self, endpoint: int, anew: bool, how: str) -> Pair:
        pair = Pair(self, endpoint, anew)
        self.active.append(pair)
        if how != 'ask':
            # Makes the spelling known: try_acquire() leaves an unknown spelling to request().
            self.core.endpoint_size(pair.real.endpoint)
            entry = self.core.try_acquire(pair.real.endpoint, self.now)
            assert (entry is not None) == self.model.try_acquire(pair.known, self.now)
            if entry is not None:
                self.core.adopt(pair.real.waiter, entry)
                return pair
        self.model.request(pair.known, self.now)
        queued = self.core.request(pair.real.waiter, self.now)
        # Without workers it may have been served before the call has returned.
        assert queued is (pair.known.state == 'waits') or (queued and not self.has_workers)
        if pair.known.state == 'ticket':
            assert pair.known.conn is not None
            self.model.begin_create(pair.known.conn, self.now)
            self.core.begin_create(pair.real.entry, self.now)
            if how == 'connect':
                self.connect(pair)
        return pair

    def connect(self, pair: Pair) -> None:
        self.tick()
        number = len(self.connections) + 1
        conn = self.connections[number] = Connection(f'c{number}')
        entry = self.entries[number] = pair.real.entry
        served = self.model.created(pair.known, number, self.now)
        assert self.core.created(entry, conn, self.now) is served
        if not served:
            self.cancel_it(pair)

    @precondition(lambda self: self.pairs('ticket'))
    @rule(index=INDEX, count=COUNT)
    def created(self, index: int, count: int) -> None:
        for _ in range(count):
            self.step()
            if self.pairs('ticket'):
                self.connect(self.pick(index, 'ticket'))

    @precondition(lambda self: self.active)
    @rule(index=INDEX, how=st.sampled_from(['cancel', 'give up', 'drop']))
    def leave(self, index: int, how: str) -> None:
        """The acquire is interrupted, wherever it is; or its timeout expires, unless it was served at this moment; or
        it is dropped."""
        self.step()
        pair = self.active[index % len(self.active)]
        known = pair.known
        if how == 'cancel':
            self.cancel_it(pair)
        elif how == 'give up' and known.has_waited:
            gone = self.model.give_up(known, self.now)
            assert self.core.give_up(pair.real.waiter, self.now) is gone
            if gone:
                self.cancel_it(pair)
        elif how == 'drop' and known.state in {'waits', 'ticket'}:
            # A connection that it held would be lost: a caller that drops such an acquire breaks the contract.
            if known.state == 'waits':
                self.model.drop(known)
            else:
                self.model.create_failed(known, self.now)
            self.end(pair)
            pair.real.waiter = None  # type: ignore[assignment]

    def cancel_it(self, pair: Pair) -> None:
        self.tick()
        waited = self.model.cancel(pair.known, self.now)
        assert self.core.cancel(pair.real.waiter, self.now) is waited
        if pair in self.active:
            self.active.remove(pair)

    @precondition(lambda self: self.pairs('ticket'))
    @rule(index=INDEX)
    def create_failed(self, index: int) -> None:
        self.step()
        pair = self.pick(index, 'ticket')
        self.model.create_failed(pair.known, self.now)
        self.core.create_failed(pair.real.waiter, self.now)
        self.cancel_it(pair)

    @precondition(lambda self: self.pairs('served'))
    @rule(index=INDEX, alive=st.booleans())
    def check(self, index: int, alive: bool) -> None:
        """Close the connection to its end, or leave the end to another step."""
        self.step()
        pair = self.pick(index, 'served')
        self.model.begin_check(pair.known)
        self.core.begin_check(pair.real.waiter)
        if alive:
            self.model.end_check(pair.known)
            self.core.end_check(pair.real.waiter)

    @precondition(lambda self: self.pairs('served'))
    @rule(index=INDEX, suspicious=st.booleans(), asked=st.booleans(), at_once=st.booleans())
    def discard(self, index: int, suspicious: bool, asked: bool, at_once: bool) -> None:
        self.step()
        pair = self.pick(index, 'served')
        conn = pair.known.conn
        assert conn is not None
        entry = pair.real.entry
        if suspicious:
            self.core.distrust_endpoint(entry)
        self.model.discard(pair.known, suspicious, self.now, 'discarded' if asked else 'broken')
        assert self.core.retire(entry, self.now, discarded=asked)
        if at_once:
            self.dispose(conn, entry, by_worker=False)
        else:
            self.closing.append((conn, entry))
        self.end(pair)

    @precondition(lambda self: self.pairs('served'))
    @rule(index=INDEX, how=st.sampled_from(['detach', 'discard', 'doom']))
    def take_out(self, index: int, how: str) -> None:
        """Its user takes it out of the pool; the end of the context around that does nothing."""
        self.step()
        pair = self.pick(index, 'served')
        conn = pair.known.conn
        assert conn is not None
        assert conn.number is not None
        entry = pair.real.entry
        if how == 'detach':
            self.detached.add(conn.number)
            self.model.detach(pair.known, self.now)
            assert self.core.detach(entry, self.now)
        else:
            dooms = how == 'doom'
            self.model.discard(pair.known, False, self.now, 'discarded', dooms, 'user')
            assert self.core.discard(entry, self.now, dooms)
            if not dooms:
                self.closing.append((conn, entry))
        assert entry.is_given_up
        assert self.core.begin_release(entry, entry.lease_no) is False
        self.core.release(entry, self.now, entry.lease_no)
        for call in (self.core.discard, self.core.detach, self.core.release):
            with pytest.raises(ConnectionNotAcquired):
                call(entry, self.now)
        self.given_back.append((conn, self.connections[conn.number]))
        self.end(pair)

    @rule(endpoint=ENDPOINT, anew=ANEW, interval=st.sampled_from([0.0, 0.5, 4.0, math.inf]))
    def take_ready(self, endpoint: int, anew: bool, interval: float) -> None:
        """An idle connection that needs no check, or nothing, wherever it stands."""
        self.step()
        pair = Pair(self, endpoint, anew)
        if self.model.closed or not self.model.opened:
            with pytest.raises(ConnectionPoolClosedError):
                self.core.take_ready(pair.real.endpoint, self.now, interval)
            return
        entry = self.core.take_ready(pair.real.endpoint, self.now, interval)
        assert (entry is not None) == self.model.take_ready(pair.known, self.now, interval)
        if entry is not None:
            self.active.append(pair)
            self.core.adopt(pair.real.waiter, entry)

    @precondition(lambda self: self.pairs('served'))
    @rule(index=INDEX, asks_again=st.booleans())
    def find_dead(self, index: int, asks_again: bool) -> None:
        self.step()
        pair = self.pick(index, 'served')
        self.model.reject_dead(pair.known)
        self.core.reject_dead(pair.real.waiter)
        if asks_again:
            self.model.request(pair.known, self.now)
            self.core.request(pair.real.waiter, self.now)
        else:
            self.cancel_it(pair)

    # -- what the pool creates itself ---------------------------------------------------------------------------------

    @precondition(lambda self: self.model.growth.turns)
    @rule(count=COUNT)
    def take_create(self, count: int) -> None:
        for _ in range(count):
            self.step()
            self.take_one_create()

    def take_one_create(self) -> None:
        ticket = self.model.growth.take_create(self.now)
        entry = self.core.take_create(self.now)
        assert (entry is None) is (ticket is None)
        if entry is not None and ticket is not None:
            assert (entry.endpoint.number, entry.state_name) == (ticket.endpoint, 'creating')
            self.model.begin_create(ticket, self.now)
            self.core.begin_create(entry, self.now)
            self.growing.append((ticket, entry))

    @precondition(lambda self: self.growing)
    @rule(index=INDEX, how=END_OF_CREATE, count=COUNT)
    def end_create(self, index: int, how: str, count: int) -> None:
        for _ in range(count):
            if self.growing:
                self.step()
                self.end_one_create(*self.growing.pop(index % len(self.growing)), how)

    def end_one_create(self, ticket: Conn, entry: Entry, how: str) -> None:
        if how == 'grow':
            number = len(self.connections) + 1
            conn = self.connections[number] = Connection(f'c{number}')
            self.entries[number] = entry
            kept = self.model.growth.grown(ticket, number, self.now)
            assert self.core.grown(entry, conn, self.now) is kept
        elif how == 'cancel':
            self.model.growth.cancelled(ticket, self.now)
            assert self.core.grow_cancelled(entry, self.now) == 0
        else:
            if how == 'known' and (conns := [conn for conn in self.model.conns if conn.number is not None]):
                with pytest.raises(ValueError, match='expected a new connection'):
                    self.core.grown(entry, self.connections[conns[0].number or 0], self.now)
            error = OSError(how)
            is_refusal = how == 'refuse' and self.grows
            is_hopeless = how == 'hopeless'
            news = self.model.growth.failed(ticket, error, is_refusal, self.now, is_hopeless)
            assert self.core.grow_failed(entry, error, error, is_refusal, self.now, is_hopeless) == news
        # It has ended once.
        size = self.core.size
        assert self.core.grow_cancelled(entry, self.now) == 0
        assert self.core.grow_failed(entry, OSError(), OSError(), False, self.now) == 0
        assert self.core.size == size

    @precondition(lambda self: self.pairs('ticket'))
    @rule(index=INDEX, is_refusal=st.booleans(), has_time=st.booleans(), asks_again=st.booleans())
    def connect_failed(self, index: int, is_refusal: bool, has_time: bool, asks_again: bool) -> None:
        """An acquire could not connect."""
        self.step()
        pair = self.pick(index, 'ticket')
        is_refusal = is_refusal and self.grows
        error = OSError('the connect of an acquire')
        news = self.model.growth.connect_failed(pair.known, error, is_refusal, has_time, self.now)
        assert self.core.connect_failed(pair.real.waiter, error, is_refusal, has_time, self.now) == news
        if news & MAY_ASK_AGAIN and asks_again:
            self.model.request(pair.known, self.now)
            self.core.request(pair.real.waiter, self.now)
        else:
            self.cancel_it(pair)

    @precondition(lambda self: self.model.keeps_idle and not self.model.closed and self.model.max_lifetime)
    @rule(endpoint=ENDPOINT, anew=ANEW, size=st.sampled_from([0, 0, 1, 2, 4]), chance=st.integers(0, 2))
    def pin(self, endpoint: int, anew: bool, size: int, chance: int) -> None:
        self.step()
        if chance == 0 or self.model.growth.knowns:
            self.model.growth.pin(endpoint, size, self.now)
            self.core.pin(self.spell(endpoint, anew), size, self.now)

    @precondition(lambda self: self.model.growth.knowns)
    @rule(endpoint=ENDPOINT, anew=ANEW)
    def retry_now(self, endpoint: int, anew: bool) -> None:
        self.step()
        self.model.growth.retry_now(endpoint, self.now)
        self.core.retry_now(self.spell(endpoint, anew), self.now)

    @rule(index=INDEX, unwatch=st.booleans())
    def wait_until_filled(self, index: int, unwatch: bool) -> None:
        self.step()
        known = self.model.growth
        if unwatch and self.fill_watchers:
            waiter = self.fill_watchers.pop(index % len(self.fill_watchers))
            assert self.core.unwatch(waiter) is (waiter in known.fill_watchers)
            known.fill_watchers = [item for item in known.fill_watchers if item is not waiter]
            return
        waiter = Waiter(None)
        waiter.arm(lambda: self.told.append(waiter))
        waits = bool(known.unfilled()) and not self.model.closed
        assert self.core.watch_filled(waiter) is waits
        if waits:
            self.fill_watchers.append(waiter)
            known.fill_watchers.append(waiter)

    @rule(seconds=st.sampled_from([None, 0.0, 0.01, 0.1, 1.0]), how=st.sampled_from(['worker', 'user', 'relief']))
    def run_timers(self, seconds: float | None, how: str) -> None:
        self.step()
        timer = self.core.next_timer()
        if seconds is not None:
            self.now += seconds
        elif timer < math.inf:
            self.now = max(self.now, timer)
        if how == 'relief':
            self.model.expire_relief(self.now)
            self.core.expire_relief(self.now)
        else:
            self.model.growth.run_timers(self.now, how == 'worker')
            self.core.run_timers(self.now, how == 'worker')
            self.were_told = True

    @precondition(lambda self: self.grows or self.model.growth.knowns)
    @rule(have=st.sampled_from([True, True, False]))
    def change_workers(self, have: bool) -> None:
        self.step()
        self.has_workers = self.model.growth.has_workers = have
        self.model.growth.ask_workers()
        self.core.ask_workers()
        assert self.model.closed or self.core.lacks_workers is not have

    @precondition(lambda self: self.model.conns)
    @rule(index=INDEX)
    def tell_how_long_an_outage_was(self, index: int) -> None:
        self.step()
        conns = [conn for conn in self.model.conns if conn.number is not None]
        if conns:
            conn = conns[index % len(conns)]
            known = self.model.growth.known(conn.endpoint)
            seconds = self.core.ended_outage(self.entries[conn.number or 0])
            assert seconds == (None if known is None else known.outage_lasted)
            if known is not None:
                known.outage_lasted = None

    # -- checks by the pool -------------------------------------------------------------------------------------------

    @precondition(lambda self: self.pairs('served'))
    @rule(index=INDEX, asks_again=st.booleans())
    def leave_check_to_pool(self, index: int, asks_again: bool) -> None:
        self.step()
        pair = self.pick(index, 'served')
        left = self.model.leave_check_to_pool(pair.known, self.now)
        assert self.core.leave_check_to_pool(pair.real.waiter, self.now) is left
        if left and asks_again:
            self.model.request(pair.known, self.now)
            self.core.request(pair.real.waiter, self.now)
        elif left:
            self.cancel_it(pair)

    @rule(index=INDEX, one_of_idle=st.booleans())
    def begin_check(self, index: int, one_of_idle: bool) -> None:
        self.step()
        if not one_of_idle:
            self.take_check()
            return
        idle = self.model.of(None, 'idle')
        if idle:
            conn = idle[index % len(idle)]
            assert self.core.begin_check_of_idle(self.entries[conn.number or 0])
            self.model.take_out(conn)
            self.model.begin_pool_check(conn)
            self.checking.append(conn)
            assert not self.core.begin_check_of_idle(self.entries[conn.number or 0])

    def take_check(self, in_order: bool = True) -> None:
        room = max(self.model.room_for_jobs('check'), 0)
        assert self.core.checks_to_begin == min(len(self.model.to_check), room)
        entry = self.core.take_check()
        if not in_order and room:
            self.model.to_check.sort(key=lambda conn: self.entries[conn.number or 0] is not entry)
        conn = self.model.take_check()
        assert entry is (None if conn is None else self.entries[conn.number or 0])
        if conn is not None:
            self.checking.append(conn)

    @precondition(lambda self: self.checking)
    @rule(index=INDEX, alive=st.sampled_from([True, False, None]))
    def end_check(self, index: int, alive: bool | None) -> None:
        self.step()
        self.end_one_check(self.checking.pop(index % len(self.checking)), alive)

    def end_one_check(self, conn: Conn, alive: bool | None) -> None:
        dead = self.model.end_pool_check(conn, alive, self.now)
        assert self.core.end_check_by_pool(self.entries[conn.number or 0], alive, self.now) is dead

    def end_all_checks(self) -> None:
        while self.model.to_check or self.checking:
            while self.model.to_check and self.model.room_for_jobs('check') > 0:
                self.take_check()
            if not self.checking:
                break  # workers are busy with other jobs
            self.end_one_check(self.checking.pop(), True)

    @precondition(lambda self: self.model.to_check)
    @rule()
    def give_up_checks(self) -> None:
        self.step()
        self.model.give_up_checks(self.now)
        self.core.give_up_checks(self.now)

    @precondition(lambda self: self.model.keepalive)
    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 2.0]), asks=st.booleans())
    def begin_due_checks(self, seconds: float, asks: bool) -> None:
        self.step()
        self.now += seconds
        if asks:
            self.ask_when_the_next_check_is_due()
        candidates = self.model.may_be_checked(self.now)
        # The core decides on the order of those that are due together. It may be late, where a connection was not idle
        # when its time came: nobody looks at it again before the next interval has passed.
        count = self.core.begin_due_checks(self.now)
        taken = [
            (conn, due) for due in candidates for conn in due if self.entries[conn.number or 0].state_name == 'checking'
        ]
        assert count == len(taken) == len({conn.endpoint for conn, _ in taken})
        for conn, due in taken:
            self.model.begin_due_check(conn, due, self.now)
        while len(candidates) > 1 and self.model.to_check:
            # Those of several endpoints wait in an order that only the core knows: they are begun at once.
            if self.model.room_for_jobs('check') <= 0:
                while self.checking:
                    self.end_one_check(self.checking.pop(), True)
                while self.growing:
                    self.end_one_create(*self.growing.pop(), 'grow')
                self.dispose_all()
            self.take_check(in_order=False)

    def ask_when_the_next_check_is_due(self) -> None:
        at = self.core.next_check()
        known = [conn for conn in self.model.conns if conn.number is not None]
        assert (at is None) == (not known or self.model.suspended or self.model.closed or not self.model.opened)
        assert at is None or at > 0

    # -- giving back --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.pairs('served', 'refused'))
    @rule(index=INDEX, anew=ANEW, count=COUNT)
    def release(self, index: int, anew: bool, count: int) -> None:
        for _ in range(count):
            self.step()
            pairs = [pair for pair in self.pairs('served', 'refused') if pair.known.conn is not None]
            if pairs:
                self.give_back(pairs[index % len(pairs)], anew)

    def give_back(self, pair: Pair, anew: bool) -> None:
        self.tick()
        conn = pair.known.conn
        assert conn is not None
        assert conn.number is not None
        closed_over = conn.closed_over
        found = self.core.find_acquired(self.connections[conn.number], self.endpoint(pair, anew))
        assert found is (None if closed_over else self.entries[conn.number])
        if found is not None:
            self.core.release(found, self.now)
        self.model.release(pair.known, self.now)
        self.given_back.append((conn, self.connections[conn.number]))
        self.end(pair)

    @precondition(lambda self: self.releasing or self.pairs('served'))
    @rule(index=INDEX, begin=st.booleans())
    def run_a_release_hook(self, index: int, begin: bool) -> None:
        self.step()
        if self.releasing and not (begin and self.pairs('served')):
            pair, entry = self.releasing.pop(index % len(self.releasing))
            self.core.release(entry, self.now)
            self.model.release(pair.known, self.now)
            return
        pair = self.pick(index, 'served')
        assert self.model.begin_release(pair.known)
        assert self.core.begin_release(pair.real.entry) is True
        self.releasing.append((pair, pair.real.entry))
        self.end(pair)

    @rule(index=INDEX)
    def come_to_rest(self, index: int) -> None:
        """Every acquire that can go on does, and everything is released, in some order, until none waits and all are
        idle."""
        self.step()
        while (
            self.model.doomed
            or self.model.doomed_for_worker
            or self.closing
            or self.checking
            or self.model.to_check
            or self.model.growth.turns
            or self.growing
            or self.pairs('ticket', 'served', 'refused', 'failed', 'down')
        ):
            while self.growing:
                self.end_one_create(*self.growing.pop(), 'grow')
            while self.closing:
                self.dispose(*self.closing.pop(), by_worker=True)
            self.end_all_checks()
            self.dispose_all()
            while self.model.growth.turns and self.model.room_for_jobs('create') > 0:
                self.take_one_create()
            for pair in self.pairs('failed', 'down'):
                self.cancel_it(pair)
            for pair in self.pairs('ticket'):
                self.connect(pair)
            while pairs := self.pairs('served', 'refused'):
                self.step()
                pair = pairs[index % len(pairs)]
                if pair.known.conn is not None:
                    self.give_back(pair, anew=False)
                else:
                    self.cancel_it(pair)

    # -- what is wrong, and changes nothing ---------------------------------------------------------------------------

    @rule(index=INDEX, other=INDEX, further=st.integers(1, ENDPOINTS - 1))
    def misuse(self, index: int, other: int, further: int) -> None:
        self.step()
        if self.given_back:
            self.release_twice(*self.given_back[index % len(self.given_back)])
        with pytest.raises(ConnectionNotAcquired):
            self.core.find_acquired(Connection('stranger'), self.endpoints[other % ENDPOINTS])
        conns = [conn for conn in self.model.conns if conn.number is not None]
        if conns:
            conn = conns[other % len(conns)]
            connection = self.connections[conn.number or 0]
            with pytest.raises(ConnectionNotAcquired):
                self.core.find_acquired(connection, Endpoint((conn.endpoint + further) % ENDPOINTS))
            if self.pairs('ticket'):
                with pytest.raises(ValueError, match='expected a new connection'):
                    self.core.created(self.pick(index, 'ticket').real.entry, connection, self.now)
        waiter = Waiter([])
        with pytest.raises(TypeError, match='expected a hashable object'):
            self.core.request(waiter, self.now)
        assert self.core.cancel(waiter, self.now) is False

    def release_twice(self, conn: Conn, connection: Connection) -> None:
        if conn.state == 'acquired' or conn.closed_over:
            return  # another user has it by now: the core cannot tell who releases it
        entry = self.entries[conn.number or 0]
        with pytest.raises(ConnectionNotAcquired):
            self.core.find_acquired(connection, self.endpoints[conn.endpoint])
        with pytest.raises(ConnectionNotAcquired):
            self.core.begin_release(entry)
        if conn.state != 'releasing':
            with pytest.raises(ConnectionNotAcquired):
                self.core.release(entry, self.now)

    # -- closing connections ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.doomed or self.model.doomed_for_worker)
    @rule(by_worker=st.booleans(), at_once=st.booleans(), count=COUNT)
    def take_doomed(self, by_worker: bool, at_once: bool, count: int) -> None:
        for _ in range(count):
            self.step()
            self.take_one(by_worker, at_once)

    def take_one(self, by_worker: bool, at_once: bool) -> None:
        entry = self.core.take_doomed_for_worker() if by_worker else self.core.take_doomed_for_caller()
        known = self.model.may_be_closed_next(by_worker)
        if not known or (by_worker and self.model.room_for_jobs('close') <= 0):
            assert entry is None
            return
        assert entry is not None
        candidates = [conn for conn in known if self.entries[conn.number or 0] is entry]
        assert candidates, f'{entry!r}, expected one of {known}'
        self.model.take_doomed(candidates[0], by_worker)
        if at_once:
            self.dispose(candidates[0], entry, by_worker)
        else:
            self.closing.append((candidates[0], entry))

    @precondition(lambda self: self.closing)
    @rule(index=INDEX, by_worker=st.booleans())
    def disposed(self, index: int, by_worker: bool) -> None:
        self.step()
        self.dispose(*self.closing.pop(index % len(self.closing)), by_worker)

    def dispose_all(self) -> None:
        while self.closing:
            self.dispose(*self.closing.pop(), by_worker=True)
        while self.model.doomed or self.model.doomed_for_worker:
            self.take_one(by_worker=not self.model.doomed, at_once=True)

    def dispose(self, conn: Conn, entry: Entry, by_worker: bool) -> None:
        assert conn.number is not None
        assert entry is self.entries[conn.number]
        self.disposals[conn.number] += 1
        self.model.disposed(conn, self.now, by_worker)
        assert entry.reason == conn.reason
        self.core.disposed(entry, self.now, by_worker)

    # -- time ---------------------------------------------------------------------------------------------------------

    @rule(
        seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 4.0, 6.0, 24.0]),
        limit=st.sampled_from([None, None, 0, 1, 3]),
        for_worker=st.booleans(),
    )
    def advance(self, seconds: float, limit: int | None, for_worker: bool) -> None:
        self.step()
        self.now += seconds
        if limit is None:
            pass
        elif self.lives_vary:
            self.follow_doom_due(limit or 1, for_worker)
        else:
            count = self.model.doom_due(self.now, limit, for_worker)
            assert self.core.doom_due(self.now, limit, for_worker) == count

    def follow_doom_due(self, limit: int, for_worker: bool) -> None:
        """With min_size, the core may be late: a life that ends before its time is noticed when it would have been
        looked at. What it closes has to be due; extra connections are never late."""
        if self.model.wanting_slots():
            return  # whose close is for a waiter that wants a slot depends on the order
        relief_ended = self.model.pass_time(self.now)
        due = [conn for conn in self.model.of(None, 'idle') if self.model.deadline(conn) <= self.now]
        count = self.core.doom_due(self.now, limit, for_worker)
        doomed = [conn for conn in due if self.entries[conn.number or 0].state_name == 'closing']
        assert count == len(doomed) <= limit
        assert count == limit or all(conn.core for conn in due if conn not in doomed)
        for conn in doomed:
            conn.reason = self.model.lifetime_reason(conn) if conn.expires_at <= self.now else 'idle'
        self.model.doom_in_any_order([[conn] for conn in doomed], None, for_worker)
        if relief_ended:
            self.model.dispatch(for_worker)
        self.model.growth.end_step()

    @rule()
    def next_due(self) -> None:
        """Not after every step: asking sorts the queue, and a pool must work without that."""
        self.step()
        due = self.core.next_due()
        if self.lives_vary:
            # The core looks at the connections of endpoints that live in between.
            idle = self.model.of(None, 'idle')
            extra = min((self.model.deadline(conn) for conn in idle if not conn.core), default=math.inf)
            assert extra == math.inf or (due is not None and due <= extra)
        else:
            assert due == self.model.next_due()

    # -- the limits and the end ---------------------------------------------------------------------------------------

    @rule(
        limits=LIMITS,
        max_waiting=MAX_WAITING,
        max_workers=MAX_WORKERS,
        min_size=st.sampled_from([0, 0, 1, 2]),
        what=st.sampled_from(['nothing', 'resize', 'nothing', 'doom acquired', 'nothing', 'close']),
        for_worker=st.booleans(),
    )
    def change(
        self,
        limits: tuple[int, int, int],
        max_waiting: int,
        max_workers: int,
        min_size: int,
        what: str,
        for_worker: bool,
    ) -> None:
        """Rarely, because less happens afterwards."""
        self.step()
        if what == 'resize':
            min_idle, max_size, total = limits
            if 0.0 in {self.model.idle_timeout, self.model.max_lifetime} or not self.model.keeps_idle:
                min_size = 0
            if self.will_lack(min_size, max_size) > 1:
                return  # the core decides on their order
            self.lives_vary = self.lives_vary or min_size > 0
            self.grows = self.grows or min_size > 0
            self.model.resize(self.now, *limits, max_waiting, max_workers, min_size)
            assert self.core.resize(
                self.now,
                min_idle=min_idle,
                max_size=max_size,
                total_max_size=total,
                max_waiting=max_waiting,
                max_workers=max_workers,
                min_size=min_size,
            )
        elif what == 'doom acquired':
            count = self.model.doom_acquired()
            assert self.core.doom_acquired() == count
        elif what == 'close' and len(self.connections) > 10:
            self.model.close(self.now, for_worker)
            self.in_any_order = True  # of the endpoints; at each of them it is that of the arrivals
            self.core.close(for_worker)

    def will_lack(self, min_size: int, max_size: int) -> int:
        """Count the endpoints that would have to be filled and are not known to."""
        model, growth = self.model, self.model.growth
        count = 0
        for endpoint in model.endpoints() - set(growth.short):
            known = growth.known(endpoint)
            size = max(min_size, 0 if known is None else known.pinned)
            count += len(model.of(endpoint)) < min(size, max_size)
        return count

    @precondition(lambda self: not self.model.opened)
    @rule()
    def open(self) -> None:
        self.step()
        assert self.core.open(self.now) is self.model.open(self.now)

    @precondition(lambda self: not self.model.suspended)
    @rule(fail=st.booleans(), chance=st.integers(0, 3))
    def suspend(self, fail: bool, chance: int) -> None:
        """Rarely, because less happens while the pool is suspended."""
        self.step()
        if chance == 0:
            assert self.core.suspend(fail) is self.model.suspend(fail, self.now)

    @precondition(lambda self: self.model.suspended)
    @rule(fail=st.sampled_from([None, None, None, False, True]))
    def resume(self, fail: bool | None) -> None:
        self.step()
        if fail is not None:
            assert self.core.suspend(fail) is self.model.suspend(fail, self.now)
            return
        self.cancel_those_in_the_way_of_resume()
        self.in_any_order = True  # of the endpoints
        assert self.core.resume(self.now) is self.model.resume(self.now) is True
        assert self.core.resume(self.now) is self.model.resume(self.now) is False

    def cancel_those_in_the_way_of_resume(self) -> None:
        """Whether the close of what is too old is for a waiter that wants a slot depends on the order of the
        endpoints."""
        old = {conn.endpoint for conn in self.model.of(None, 'idle') if conn.expires_at <= self.now}
        if old and len(old | set(self.model.queues)) > 1:
            for pair in self.pairs('waits'):
                self.cancel_it(pair)

    @rule(endpoint=ENDPOINT, anew=ANEW, every=st.booleans(), idle_only=st.booleans())
    def drain(self, endpoint: int, anew: bool, every: bool, idle_only: bool) -> None:
        self.step()
        lacking = self.will_lack(self.model.growth.min_size, self.model.max_size)
        if every and not self.model.wanting_slots() and lacking <= 1:
            # Otherwise it would depend on the order of the endpoints which close is for a waiter that wants a slot, and
            # which endpoint is filled first.
            self.model.drain(sorted(self.model.endpoints()), self.now, idle_only)
            self.core.drain_all(self.now, idle_only)
        else:
            known = endpoint in self.model.endpoints()
            self.model.drain([endpoint] if known else [], self.now, idle_only)
            assert self.core.drain(self.spell(endpoint, anew), self.now, idle_only) == known

    @rule(index=INDEX, unwatch=st.booleans())
    def wait_until_unused(self, index: int, unwatch: bool) -> None:
        self.step()
        in_use = {conn.endpoint for conn in self.model.used(None)}
        assert self.core.used == len(self.model.used(None))
        if unwatch and self.use_watchers:
            waiter = self.use_watchers.pop(index % len(self.use_watchers))
            known = [item for item in self.model.use_watchers if item[0] is waiter]
            assert self.core.unwatch(waiter) is bool(known)
            self.model.use_watchers = [item for item in self.model.use_watchers if item[0] is not waiter]
        elif len(in_use) < 2:
            # Of several endpoints it would watch any.
            waiter = Waiter(None)
            waiter.arm(lambda: self.told.append(waiter))
            assert self.core.watch_use(waiter) is bool(in_use)
            for endpoint in in_use:
                self.use_watchers.append(waiter)
                self.model.use_watchers.append((waiter, endpoint))

    @rule(index=INDEX, what=st.sampled_from(['pool', 'connection', 'unwatch']))
    def wait_until_it_is_gone(self, index: int, what: str) -> None:
        """The pool is empty, or a connection is closed."""
        self.step()
        if self.watchers and what == 'unwatch':
            waiter = self.watchers.pop(index % len(self.watchers))
            known = [item for item in self.model.watchers if item[0] is waiter]
            assert self.core.unwatch(waiter) is bool(known)
            self.model.watchers = [item for item in self.model.watchers if item[0] is not waiter]
            return
        waiter = Waiter(None)
        waiter.arm(lambda: self.told.append(waiter))
        conns = [conn for conn in self.model.conns if conn.number is not None]
        conn = conns[index % len(conns)] if conns and what == 'connection' else None
        if conn is not None:
            assert self.core.watch_gone(waiter, self.entries[conn.number or 0])
        else:
            assert self.core.watch_empty(waiter) is bool(self.model.conns)
        if self.model.conns:
            self.watchers.append(waiter)
            self.model.watchers.append((waiter, conn))

    # -- what holds after every step ----------------------------------------------------------------------------------

    @invariant()
    def the_core_is_as_the_model(self) -> None:
        if not hasattr(self, 'core'):
            return
        core, model = self.core, self.model
        stats, expected = core.stats(), model.stats()
        # A sum of floats, in another order.
        assert stats.pop('use_ns') == pytest.approx(expected.pop('use_ns'), abs=1)
        assert {name: histogram.count for name, histogram in stats.histograms.items()} == model.counts
        assert stats.pop('longest_held') == pytest.approx(model.longest_held(None, self.now) * 1e9, abs=1)
        assert stats.histograms['wait'].sum == pytest.approx(expected['wait_ns'] / 1e9)
        assert stats == expected
        assert core.size == len(model.conns)
        assert (core.closed, core.opened, core.is_suspended) == (model.closed, model.opened, model.suspended)
        doomed = [*model.doomed, *model.doomed_for_worker]
        assert core.doomed == sum(len(order) for orders in doomed for order in orders)
        for number, endpoint in enumerate(self.endpoints):
            sizes = [len(model.of(number)), len(model.out(number)), len(model.of(number, 'idle'))]
            assert [core.endpoint_size(endpoint, acquired) for acquired in (None, True, False)] == sizes
            found = core.endpoint_stats(endpoint)
            assert found.pop('longest_held') == pytest.approx(model.longest_held(number, self.now) * 1e9, abs=1)
            assert found == model.endpoint_stats(number)
        for pair in self.active:
            known, waiter = pair.known, pair.real.waiter
            assert pair.real.answer == known.state
            assert core.still_holds(waiter) if known.state == 'served' else True
            if known.state == 'served':
                for interval in (0.0, 0.5, math.inf):
                    assert core.needs_check(waiter, self.now, interval) is model.needs_check(known, self.now, interval)
            held = known.conn if known.state in {'served', 'refused'} else None
            if held is not None:
                assert waiter.held is self.entries[held.number or 0]
                assert waiter.served.conn is self.connections[held.number or 0]
            assert (waiter.dead_entry is None) == (known.dead_conn is None)
            if known.dead_conn is not None:
                assert waiter.dead_entry is self.entries[known.dead_conn.number or 0]
        for number, entry in self.entries.items():
            state = next((conn.state for conn in model.conns if conn.number == number), 'gone')
            assert entry.state_name == state
        if not self.lives_vary:
            assert self.wakes == model.wakes
        core.check_invariants()

    @invariant()
    def it_grows_as_the_model(self) -> None:
        if not hasattr(self, 'core'):
            return
        core, model, growth = self.core, self.model, self.model.growth
        assert core.reserved == len(growth.reserved())
        assert core.jobs_to_begin == model.jobs_to_begin()
        # A release that takes the short way tells the core no time: then it looks again earlier than it would have to.
        assert core.relief_ends_at() <= model.relief_ends_at()
        assert core.next_timer() == min(core.relief_ends_at(), growth.next_timer())
        assert core.min_size == growth.min_size
        unfilled = core.unfilled_endpoints()
        if not model.closed:
            assert sorted((endpoint.number, has, size) for endpoint, has, size in unfilled) == growth.unfilled()
        for number, endpoint in enumerate(self.endpoints):
            known = growth.knowns.get(number)
            for since in (self.now - 1.0, math.inf):
                is_known = known is not None and (known.outage is not None or known.failed_at >= since)
                expected = known.error if known is not None and is_known else None
                assert core.last_connect_error(endpoint, since) is expected
        for pair in self.pairs('failed', 'down'):
            assert pair.real.waiter.error is pair.known.error
        for _, entry in self.growing:
            assert entry.state_name == 'creating'
        # Whoever waits for the next timer knows of it.
        if self.were_told:
            self.told_retry = growth.next_retry()
        self.were_told = False
        assert model.closed or growth.next_retry() >= self.told_retry

    @invariant()
    def the_same_are_notified_in_the_same_order(self) -> None:
        if not hasattr(self, 'core'):
            return
        real, known = [pair.known for pair in self.notified], list(self.model.notified)
        if self.in_any_order:
            real.sort(key=lambda acq: acq.endpoint)
            known.sort(key=lambda acq: acq.endpoint)
        assert real == known
        assert sorted(map(id, self.told)) == sorted(map(id, self.model.told))
        self.notified.clear()
        self.model.notified.clear()
        self.in_any_order = False

    @invariant()
    def the_design_holds(self) -> None:
        """DESIGN.md, section 2, by its numbers: of the model, and so of the core, which is the same."""
        if not hasattr(self, 'core'):
            return
        model = self.model
        # 1. The sizes, and the caps, of slots and of what the server sees.
        open_ = set(self.connections) - set(self.disposals) - self.detached
        assert open_ == {conn.number for conn in model.conns if conn.number is not None}
        states = Counter(conn.state for conn in model.conns)
        assert set(states) <= {'idle', 'acquired', 'releasing', 'checking', 'creating', 'closing'}
        if not model.shrunk:
            assert len(model.conns) <= model.total_max_size
            assert all(len(model.of(endpoint)) <= model.max_size for endpoint in range(ENDPOINTS))
        # 2. One holder at a time; never served after its dispose began.
        served = [pair.real.conn for pair in self.pairs('served')]
        assert len({id(conn) for conn in served}) == len(served)
        assert all(conn.state == 'acquired' for conn in (pair.known.conn for pair in self.pairs('served')) if conn)
        # 3. Disposed of at most once (at least once: see the end).
        assert all(count == 1 for count in self.disposals.values())
        # 4. No waiter waits that could be served.
        for endpoint, queue in model.queues.items():
            assert queue
            assert model.suspended or not model.of(endpoint, 'idle')
        if model.wanting_slots() and not model.suspended:
            assert len(model.conns) >= model.total_max_size
            assert model.closing() or not model.of(None, 'idle')
        # Pinned endpoints have their size, or what is in the way of that is known.
        growth = model.growth
        fills = model.opened and not model.closed and not model.suspended and growth.refill_at is None
        if fills and not model.wanting_slots() and len(model.conns) < model.total_max_size:
            for endpoint, known in growth.knowns.items():
                assert (
                    len(model.of(endpoint)) >= min(known.pinned, model.max_size)
                    or len(model.of(endpoint, 'creating')) >= (growth.max_connecting or 2)
                    or not growth.may_attempt(endpoint)
                )
        # 5. In the order of their arrival.
        for queue in model.queues.values():
            assert [acq.arrival for acq in queue] == sorted(acq.arrival for acq in queue)
        self.sound = True

    def teardown(self) -> None:
        # After a failure the end is not checked.
        if self.sound:
            self.finish()

    def finish(self) -> None:
        """Everything comes to its end: idle connections are served in the order of the model, and nothing is lost."""
        self.has_workers = self.model.growth.has_workers = True
        self.cancel_those_in_the_way_of_resume()
        assert self.core.resume(self.now) is self.model.resume(self.now)
        taken = []
        for number, endpoint in enumerate(self.endpoints):
            while True:
                known = Acq(number)
                entry = self.core.try_acquire(endpoint, self.now)
                assert self.model.try_acquire(known, self.now) is (entry is not None)
                if entry is None:
                    break
                assert known.conn is not None
                assert self.entries[known.conn.number or 0] is entry
                taken.append(entry)
        for entry in taken:
            self.core.release(entry, self.now)
        for pair in self.active:
            self.core.cancel(pair.real.waiter, self.now)
        for _, entry in self.releasing:
            self.core.release(entry, self.now)
        for conn in self.checking:
            self.core.end_check_by_pool(self.entries[conn.number or 0], True, self.now)
        self.core.give_up_checks(self.now)
        for _, entry in self.closing:
            self.core.disposed(entry, self.now)
        self.finish_closing()
        self.core.check_invariants()
        assert self.core.stats()['waiting'] == self.core.stats()['acquired'] == 0
        self.core.close()
        for _, entry in self.growing:
            self.core.grow_cancelled(entry, self.now)
        self.finish_closing()
        self.core.check_invariants()
        stats = self.core.stats()
        assert (stats['size'], stats['endpoints']) == (0, 0)
        assert stats['disposed'] + stats['detached'] == len(self.connections)
        assert stats['detached'] == len(self.detached)
        assert {entry.state_name for entry in self.entries.values()} <= {'gone'}
        assert self.core.next_due() is None
        assert self.core.next_check() is None
        assert (self.core.reserved, self.core.next_timer()) == (0, math.inf)

    def finish_closing(self) -> None:
        while (entry := self.core.take_doomed()) is not None:
            self.core.disposed(entry, self.now)


TestPool: Any = PoolMachine.TestCase
run_once = TestPool.runTest


def run(case: Any) -> None:
    # The core's set of entries is in the order of their addresses, and so is what is closed while in use. If the same
    # steps therefore lead to another state, Hypothesis reports the test as flaky, not as failed.
    for _ in range(3):
        try:
            run_once(case)
        except FlakyStrategyDefinition:
            continue
        return
    run_once(case)


TestPool.runTest = run
# More than the profile sets for every test: the interesting combinations are rare.
TestPool.settings = hypothesis.settings(max_examples=2 * hypothesis.settings().max_examples, stateful_step_count=80)


# -- the expiry queue, through the pool -------------------------------------------------------------------------------

TIMES: Any = st.lists(
    st.tuples(st.sampled_from(['release', 'take', 'wait', 'expire']), st.integers(0, 1000)), min_size=1, max_size=300
)


@hypothesis.given(steps=TIMES, idle_timeout=st.integers(1, 200), size=st.integers(1, 60))
def test_connections_expire_in_the_order_of_their_deadlines(
    steps: list[tuple[str, int]], idle_timeout: int, size: int
) -> None:
    """Many at random times, removed and reinserted in between: the heap of their keys must stay a heap."""
    core = PoolCore(0, size, size, float(idle_timeout), 1e9)
    now = 0.0
    out: list[Entry] = []
    deadlines: dict[str, float] = {}
    for number in range(size):
        waiter = Waiter('a')
        core.request(waiter, now)
        entry = waiter.held
        assert entry is not None
        core.created(entry, Connection(f'c{number}'), now)
        del waiter.served
        out.append(entry)
    for kind, value in [*steps, *[('release', 0)] * size]:
        now += 1.0
        if kind == 'release' and out:
            entry = out.pop(value % len(out))
            core.release(entry, now)
            deadlines[entry.conn.name] = now + idle_timeout
        elif kind == 'take':
            taken = core.try_acquire('a', now)
            if taken is not None:
                del deadlines[taken.conn.name]
                out.append(taken)
        elif kind == 'wait':
            now += value % 50
        elif kind == 'expire':
            limit = value % 4 + 1
            due = sorted((deadline, name) for name, deadline in deadlines.items() if deadline <= now)[:limit]
            assert core.doom_due(now, limit) == len(due)
            assert take_names(core) == [name for _, name in due]
            for _, name in due:
                del deadlines[name]
        core.check_invariants()
    assert core.next_due() == min(deadlines.values(), default=None)
    order = sorted(deadlines, key=lambda name: deadlines[name])
    assert core.doom_due(now + idle_timeout, size + 1) == len(order)
    assert take_names(core) == order


@hypothesis.given(
    order=st.permutations(range(24)), doomed=st.lists(st.integers(0, 5), max_size=12), lifetime=st.integers(30, 1000)
)
def test_what_is_closed_before_it_is_due_leaves_the_others_in_order(
    order: list[int], doomed: list[int], lifetime: int
) -> None:
    """A connection that is found dead is removed from the expiry queue wherever it stands there."""
    core = PoolCore(4, 4, 1000, 1.0, float(lifetime))
    entries = []
    for number in range(24):
        waiter = Waiter(number % 6)
        core.request(waiter, 0.0)
        entry = waiter.held
        assert entry is not None
        core.created(entry, Connection(f'c{number}'), float(number))  # due in the order of their numbers
        del waiter.served
        entries.append(entry)
    for number in order:
        core.release(entries[number], 24.0)
        core.check_invariants()
    left = {endpoint: [number for number in order if number % 6 == endpoint] for endpoint in range(6)}
    for endpoint in doomed:
        if left[endpoint]:
            taken = core.try_acquire(endpoint, 24.0)
            assert taken is not None
            assert taken is entries[left[endpoint].pop(0)]
            waiter = Waiter(endpoint)
            core.adopt(waiter, taken)
            core.reject_dead(waiter)
            core.cancel(waiter, 24.0)
            assert take_names(core) == [taken.conn.name]
            core.check_invariants()
    expected = sorted(number for numbers in left.values() for number in numbers)
    assert core.doom_due(24.0 + lifetime, 1000) == len(expected)
    assert take_names(core) == [f'c{number}' for number in expected]


@hypothesis.given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), min_size=20, max_size=200), slots=st.integers(1, 5)
)
def test_those_who_want_a_slot_get_it_in_the_order_of_their_arrival(steps: list[tuple[bool, int]], slots: int) -> None:
    """Over many endpoints, whichever leave in between."""
    core = PoolCore(0, 50, 50, 10.0, 1e9)
    holders = []
    for _ in range(50):
        waiter = Waiter('held')
        core.request(waiter, 0.0)
        holders.append(waiter)
    served: list[int] = []
    waiting: dict[int, Waiter] = {}
    for number, (arrives, value) in enumerate(steps):
        if arrives or not waiting:
            waiting[number] = waiter = Waiter(value % 20)
            waiter.arm(functools.partial(served.append, number))
            assert core.request(waiter, 0.0)
        else:
            assert core.cancel(waiting.pop(sorted(waiting)[value % len(waiting)]), 0.0)
        core.check_invariants()
    for holder in holders:
        core.create_failed(holder, 0.0)
        core.check_invariants()
    assert served == sorted(waiting)[:50]


def take_names(core: PoolCore) -> list[str]:
    names = []
    while (entry := core.take_doomed()) is not None:
        names.append(entry.conn.name)
        core.disposed(entry, 0.0)
    return names
