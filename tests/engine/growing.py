"""The part of the model that creates connections itself, and knows which endpoints cannot be connected to.

Written from OPERATIONS.md, sections 3 and 4, and from what docs/sizing.md and docs/reconnecting.md promise. As the
model, it finds everything by walking through all there is. Where the documents leave a choice, the comment says so.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from tests.engine.model import Acq, Conn, Model

P = ParamSpec('P')
T = TypeVar('T')

# Connects to an endpoint at a time to reach its minimum, where max_connecting sets no limit.
MAX_FILLS = 2

# Seconds for which no minimum is filled after no worker could be had.
FILL_PAUSE = 0.2

FIRST_DELAY = 0.010
MAX_DELAY = 5.0
MAX_DELAY_WITH_WAITERS = 0.1
FIRST_DELAY_IF_FULL = 0.050
MAX_DELAY_IF_FULL = 1.0
JITTER = 0.2

# Seconds, or twice the pause if that is more, after which an outage is forgotten if nobody tries. The core's choice.
MEMORY_OF_OUTAGES = 10.0

BEGAN, REACHED, LASTS, ASKS_AGAIN = 1, 2, 4, 8


@dataclass
class Outage:
    """Connecting to the endpoint has failed, and has not succeeded since."""

    began_at: float
    state: str = 'pausing'  # or 'due', if the next attempt may begin; or 'trying'
    failed_at: float = 0.0
    retry_at: float = 0.0
    forgotten_at: float = 0.0  # unless somebody tries
    delay: float = 0.0
    is_refusal: bool = False
    is_hopeless: bool = False  # no server has caused it: only what is created for a minimum waits for the pauses
    told: bool = False
    attempt: 'Conn | None' = None  # None: a slot is reserved for it

    def comes_up_at(self) -> float:
        return {'pausing': self.retry_at, 'due': self.forgotten_at, 'trying': math.inf}[self.state]


@dataclass
class Known:
    """What is remembered of an endpoint as long as it has connections, waiters, a pin or an outage."""

    pinned: int = 0
    filled: bool = False
    used_at: float = -math.inf  # when a connection of it was in use last
    failed_at: float = -math.inf
    error: BaseException | None = None
    outage: Outage | None = None
    outage_lasted: float | None = None  # until that is told


def asked(method: Callable[P, T]) -> Callable[P, T]:
    """Mark what may be asked of a pool: at its end workers are called, and what is empty is forgotten."""

    @functools.wraps(method)
    def answer(*args: P.args, **kwargs: P.kwargs) -> T:
        pool_or_growth: Any = args[0]
        growth: Growth = pool_or_growth if isinstance(pool_or_growth, Growth) else pool_or_growth.growth
        growth.depth += 1
        try:
            return method(*args, **kwargs)
        finally:
            growth.depth -= 1
            growth.end_step()

    return answer


def no_luck() -> float:
    return 0.0


@dataclass
class Growth:
    """What the pool creates itself, and when."""

    pool: 'Model'
    min_size: int = 0
    in_background: bool = False
    max_connecting: int = 0
    reconnect_timeout: float = 0.0
    fails_fast: bool = False
    of_all: bool = False  # whether all endpoints are remembered; else those that were pinned
    random: Callable[[], float] = no_luck
    clock: Callable[[], float] = no_luck
    has_workers: bool = True

    knowns: dict[int, Known] = field(default_factory=dict)
    short: list[int] = field(default_factory=list)  # endpoints below their minimum, as that was noticed
    turns: list[int] = field(default_factory=list)  # endpoints with reserved slots, in which they are served
    fill_watchers: list[object] = field(default_factory=list)
    refill_at: float | None = None  # no minimum is filled before that
    must_call: bool = False
    calls: int = 0
    depth: int = 0

    # -- what is remembered -------------------------------------------------------------------------------------------

    def known(self, endpoint: int) -> Known | None:
        if endpoint not in self.knowns and self.of_all:
            self.remember(endpoint)
        return self.knowns.get(endpoint)

    def remember(self, endpoint: int, now: float = -math.inf) -> Known:
        if endpoint not in self.knowns:
            used = [conn.used_at for conn in self.pool.of(endpoint, 'idle')]
            if self.pool.of(endpoint, 'checking'):
                used.append(now)  # when it was in use last was not noted
            self.knowns[endpoint] = Known(used_at=max(used, default=-math.inf))
        return self.knowns[endpoint]

    def remembered(self) -> set[int]:
        """Return the endpoints that are remembered though they may have neither connections nor waiters."""
        if self.pool.closed:
            return set()
        return {endpoint for endpoint, known in self.knowns.items() if known.pinned or known.outage is not None}

    def outage(self, endpoint: int) -> Outage | None:
        known = self.known(endpoint)
        return None if known is None else known.outage

    def note_used(self, endpoint: int, at: float) -> None:
        known = self.known(endpoint)
        if known is not None:
            known.used_at = max(known.used_at, at)

    def forget(self) -> None:
        """Forget the endpoints that have nothing any more."""
        for endpoint in set(self.knowns) - self.pool.endpoints():
            del self.knowns[endpoint]
            if endpoint in self.short:
                self.short.remove(endpoint)

    def own(self, endpoint: int) -> list['Conn']:
        """Return what the pool itself creates at an endpoint, with the slots that no worker has come for."""
        return [conn for conn in self.pool.of(endpoint, 'creating') if conn.own]

    def reserved(self, endpoint: int | None = None) -> list['Conn']:
        return [conn for conn in self.pool.of(endpoint, 'creating') if conn.reserved]

    # -- may somebody connect? ----------------------------------------------------------------------------------------

    def may_attempt(self, endpoint: int) -> bool:
        outage = self.outage(endpoint)
        return outage is None or outage.state == 'due'

    def holds_back(self, endpoint: int) -> bool:
        """Whether in an outage acquires do not connect themselves."""
        outage = self.outage(endpoint)
        if outage is not None and outage.is_hopeless:
            return False
        return self.reconnect_timeout > 0 or self.fails_fast or (outage is not None and outage.is_refusal)

    def may_connect(self, endpoint: int) -> bool:
        """Whether max_size, max_connecting and an outage let one more connect begin for a waiter."""
        pool = self.pool
        if len(pool.of(endpoint)) >= pool.max_size:
            return False
        if self.known(endpoint) is None:
            return True
        if 0 < self.max_connecting <= len(pool.of(endpoint, 'creating')):
            return False
        return self.may_attempt(endpoint) or not self.holds_back(endpoint)

    def pool_creates(self, endpoint: int) -> bool:
        outage = self.outage(endpoint)
        return self.in_background or (outage is not None and self.waits_out(outage))

    def waits_out(self, outage: Outage | None) -> bool:
        """Whether those who wait go on waiting after a connect has failed."""
        if outage is None:
            return self.reconnect_timeout > 0
        return not outage.is_hopeless and (self.reconnect_timeout > 0 or outage.is_refusal)

    def wants_slot(self, endpoint: int) -> bool:
        """Whether somebody waits for whom nothing is created yet, though it might be."""
        waiting = len(self.pool.queue(endpoint))
        return waiting > len(self.own(endpoint)) and self.may_connect(endpoint)

    def fails_at_once(self, endpoint: int) -> bool:
        """fail_fast: connects fail, it is not time for the next attempt, and nothing can come back."""
        outage = self.outage(endpoint)
        return (
            self.fails_fast
            and outage is not None
            and outage.state != 'due'
            and not outage.is_refusal
            and not self.pool.out(endpoint)
        )

    # -- minimums -----------------------------------------------------------------------------------------------------

    def is_busy(self, endpoint: int) -> bool:
        known = self.known(endpoint)
        return bool(self.pool.out(endpoint) or self.pool.queue(endpoint) or (known is not None and known.pinned))

    def minimum(self, endpoint: int, now: float) -> int:
        known = self.known(endpoint)
        if known is None:
            return 0
        is_live = self.is_busy(endpoint) or known.used_at + self.pool.idle_timeout > now
        return min(max(known.pinned, self.min_size if is_live else 0), self.pool.max_size)

    def note_short(self, endpoint: int, now: float) -> None:
        """Something has changed at an endpoint: it may have too few connections now."""
        is_short = len(self.pool.of(endpoint)) < self.minimum(endpoint, now) and not self.pool.closed
        if not is_short and endpoint in self.short:
            self.short.remove(endpoint)
        elif is_short and endpoint not in self.short:
            self.short.append(endpoint)

    def fill(self) -> None:
        """Waiters come first. Each endpoint that is short gets one slot in turn, while there is room."""
        pool = self.pool
        if self.refill_at is not None or pool.suspended or pool.closed or not pool.opened:
            return
        while self.short and not pool.wanting_slots() and len(pool.conns) < pool.total_max_size:
            endpoint = self.short.pop(0)
            aim = max(self.knowns[endpoint].pinned, self.min_size)
            limit = self.max_connecting or MAX_FILLS
            if (
                len(pool.of(endpoint)) < min(aim, pool.max_size)
                and len(pool.of(endpoint, 'creating')) < limit
                and self.may_attempt(endpoint)
            ):
                self.reserve(endpoint)
                if len(pool.of(endpoint)) < aim:
                    self.short.append(endpoint)

    @asked
    def pin(self, endpoint: int, size: int, now: float) -> None:
        pool = self.pool
        if not size and endpoint not in pool.endpoints():
            return
        known = self.remember(endpoint, now)
        known.pinned = size
        known.filled = False
        pool.pass_time(now)
        self.note_filled()
        pool.sort_idle({endpoint})
        self.note_short(endpoint, now)
        self.forget()
        pool.dispatch(for_worker=True)

    def unfilled(self) -> list[tuple[int, int, int]]:
        pool = self.pool
        return [
            (endpoint, len(pool.of(endpoint)) - len(pool.of(endpoint, 'creating', 'closing')), known.pinned)
            for endpoint, known in sorted(self.knowns.items())
            if known.pinned and not known.filled
        ]

    def note_filled(self) -> None:
        for endpoint, has, size in self.unfilled():
            self.knowns[endpoint].filled = has >= min(size, self.pool.max_size)
        if self.pool.closed or not self.unfilled():
            self.pool.told += self.fill_watchers
            self.fill_watchers.clear()

    # -- slots --------------------------------------------------------------------------------------------------------

    def reserve(self, endpoint: int) -> None:
        slot = self.pool.add_slot(endpoint)
        slot.own = slot.reserved = True
        if endpoint not in self.turns:
            self.turns.append(endpoint)
        self.begin_attempt(endpoint, None)
        self.must_call = True

    def take_reserved(self) -> 'Conn | None':
        """Take a slot; the endpoints are served in turn."""
        if not self.turns:
            return None
        endpoint = self.turns.pop(0)
        slot, *more = self.reserved(endpoint)
        slot.reserved = False
        if more:
            self.turns.append(endpoint)
        return slot

    def free(self, slot: 'Conn', now: float) -> None:
        self.pool.conns.remove(slot)
        self.give_up_attempt(slot.endpoint, None, now)

    @asked
    def take_create(self, now: float) -> 'Conn | None':
        """A worker begins a create, if one is still needed, and max_workers leaves room for it."""
        while self.pool.room_for_jobs('create') > 0 and (slot := self.take_reserved()) is not None:
            if self.may_begin(slot):
                slot.suspect = False  # what was found dead before this says nothing about it
                self.begin_attempt(slot.endpoint, slot)
                self.cover(slot.endpoint, slot)
                self.pool.note_wanting(slot.endpoint)
                slot.job = 'create'
                return slot
            self.free(slot, now)
            self.pool.pass_time(now)
            self.pool.slot_freed(slot, for_worker=True)
        return None

    def may_begin(self, slot: 'Conn') -> bool:
        """Whether a reserved slot is still needed, and its connect may begin."""
        pool, endpoint = self.pool, slot.endpoint
        outage = self.outage(endpoint)
        held_back = outage is not None and not (
            outage.state == 'due' or (outage.state == 'trying' and outage.attempt is None)
        )
        if len(pool.of(endpoint)) - pool.closing(endpoint) > pool.max_size:
            return False
        if len(pool.conns) - pool.closing() > pool.total_max_size:
            return False
        begun = [conn for conn in self.own(endpoint) if not conn.reserved and conn is not slot]
        if len(pool.queue(endpoint)) > len(begun) and not (held_back and self.holds_back(endpoint)):
            return True
        known = self.knowns[endpoint]
        return len(pool.of(endpoint)) <= max(known.pinned, self.min_size) and not held_back

    def cover(self, endpoint: int, ticket: 'Conn') -> None:
        """A create is for the oldest waiter that has none."""
        acq = self.first_uncovered(endpoint)
        if acq is not None:
            acq.create = ticket

    def first_uncovered(self, endpoint: int) -> 'Acq | None':
        return next((acq for acq in self.pool.queue(endpoint) if acq.create is None), None)

    def pass_on(self, acq: 'Acq') -> None:
        """It does not wait any more: what is created for it is for the next one."""
        ticket, acq.create = acq.create, None
        if ticket is not None:
            self.cover(acq.endpoint, ticket)

    def uncover(self, ticket: 'Conn') -> 'Acq | None':
        """The create has ended: return the one that it was for, if that still waits."""
        for acq in self.pool.queue(ticket.endpoint):
            if acq.create is ticket:
                acq.create = None
                return acq
        return None

    # -- the ends of the pool's own creates ---------------------------------------------------------------------------

    @asked
    def grown(self, ticket: 'Conn', number: int, now: float) -> bool:
        pool, endpoint = self.pool, ticket.endpoint
        pool.pass_time(now)
        pool.enter(ticket, number, now)
        ticket.own = False
        ticket.job = ''
        self.uncover(ticket)
        known = self.knowns[endpoint]
        # The endpoint is not live for longer because of this, unless it is busy.
        is_busy = pool.queue(endpoint) or pool.of(endpoint, 'acquired', 'releasing', 'checking')
        used_at = now if known.used_at == -math.inf or is_busy else known.used_at
        ticket.state = 'acquired'
        # What becomes of the connection is decided by who wants a slot now that the outage is over.
        self.end_outage(endpoint, now)
        pool.note_wanting(endpoint)
        pool.settle(ticket, now, for_worker=True, is_new=True, used_at=used_at)
        self.note_filled()
        self.note_short(endpoint, now)
        pool.note_wanting(endpoint)
        pool.dispatch(for_worker=True)
        return ticket.state != 'closing'

    @asked
    def failed(
        self, ticket: 'Conn', error: BaseException, is_refusal: bool, now: float, is_hopeless: bool = False
    ) -> int:
        pool, endpoint = self.pool, ticket.endpoint
        known = self.end_create(ticket, now)
        pool.counters['refused'] += is_refusal
        acq = self.uncover(ticket) or self.first_uncovered(endpoint)
        known.error = error
        news = self.note_failure(endpoint, ticket, is_refusal, by_pool=True, now=now, is_hopeless=is_hopeless)
        if acq is not None and (is_hopeless or not self.waits_out(known.outage)):
            pool.fail(acq, 'failed', error)
            news |= REACHED
        pool.slot_freed(ticket, for_worker=True)
        return news

    @asked
    def cancelled(self, ticket: 'Conn', now: float) -> None:
        self.end_create(ticket, now)
        self.uncover(ticket)
        self.give_up_attempt(ticket.endpoint, ticket, now)
        self.pool.slot_freed(ticket, for_worker=True)

    def end_create(self, ticket: 'Conn', now: float) -> Known:
        pool = self.pool
        pool.pass_time(now)
        pool.count_create(ticket, now)
        pool.counters['create_errors'] += 1
        pool.conns.remove(ticket)
        return self.knowns[ticket.endpoint]

    # -- the creates of acquires --------------------------------------------------------------------------------------

    def connected(self, endpoint: int, now: float) -> None:
        if self.known(endpoint) is not None:
            self.pool.pass_time(now)
            self.end_outage(endpoint, now)
            self.note_filled()
            self.note_short(endpoint, now)
            self.pool.note_wanting(endpoint)
            self.pool.dispatch(for_worker=True)

    def connect_failed(
        self, acq: 'Acq', error: BaseException, is_refusal: bool, may_ask_again: bool, now: float
    ) -> int:
        pool, ticket = self.pool, acq.conn
        assert ticket is not None
        known = self.known(ticket.endpoint)
        if known is None:
            return 0
        pool.pass_time(now)
        known.error = error
        news = self.note_failure(ticket.endpoint, ticket, is_refusal, by_pool=False, now=now)
        pool.counters['refused'] += is_refusal
        asks_again = may_ask_again and (is_refusal or self.reconnect_timeout > 0)
        if asks_again:
            pool.counters['create_errors'] += 1
            pool.count_create(ticket, now)
            pool.conns.remove(ticket)
            acq.conn = None
            acq.state = 'nothing'
            pool.slot_freed(ticket, for_worker=True)
            news |= ASKS_AGAIN
        else:
            pool.note_wanting(ticket.endpoint)
        self.end_step(calls=asks_again)  # it is cancelled next
        return news

    def fail_where_nothing_comes(self, endpoint: int) -> None:
        outage = self.outage(endpoint)
        while (
            outage is not None
            and outage.state == 'pausing'
            and self.fails_at_once(endpoint)
            and (acq := self.first_uncovered(endpoint)) is not None
        ):
            self.pool.fail(acq, 'down', self.knowns[endpoint].error)

    # -- outages ------------------------------------------------------------------------------------------------------

    def note_failure(
        self, endpoint: int, ticket: 'Conn', is_refusal: bool, by_pool: bool, now: float, is_hopeless: bool = False
    ) -> int:
        """A connect has failed. One that began before the outage says nothing new, unless it is the first to be told
        that the server is full."""
        known = self.knowns[endpoint]
        outage = known.outage
        news = 0
        if is_hopeless and not self.min_size and not known.pinned:
            self.give_up_attempt(endpoint, ticket, now)
            return 0
        if outage is None:
            known.failed_at = now
            is_heeded = self.holds_back(endpoint) or self.min_size > 0 or known.pinned > 0 or is_refusal
            if not is_heeded:
                return 0
            news = BEGAN
            outage = known.outage = Outage(now)
            outage.is_refusal = is_refusal
            outage.delay = FIRST_DELAY_IF_FULL if is_refusal else FIRST_DELAY
            known.outage_lasted = None
        else:
            if outage.state != 'trying' or outage.attempt is not ticket:
                if not is_refusal or outage.is_refusal:
                    return 0
                if outage.state == 'trying':
                    outage.is_refusal = True
                    outage.delay = FIRST_DELAY_IF_FULL
                    return 0
            if outage.is_refusal is not is_refusal:
                outage.is_refusal = is_refusal
                outage.delay = FIRST_DELAY_IF_FULL if is_refusal else FIRST_DELAY
            else:
                outage.delay = min(outage.delay * 2, MAX_DELAY_IF_FULL if is_refusal else MAX_DELAY)
        outage.attempt = None
        outage.is_hopeless = is_hopeless
        known.failed_at = outage.failed_at = now
        retry_at = now + self.pause(endpoint, outage) * (1 + JITTER * (2 * self.random() - 1))
        if self.reconnect_timeout > 0 and not outage.told:
            if now - outage.began_at >= self.reconnect_timeout:
                # An acquire has no time to tell it.
                outage.told = by_pool
                news |= LASTS if by_pool else 0
            else:
                due = max(outage.began_at + self.reconnect_timeout, now + FIRST_DELAY * (1 - JITTER))
                retry_at = min(retry_at, due)
        self.wait_until(outage, retry_at)
        return news

    def pause(self, endpoint: int, outage: Outage) -> float:
        if self.pool.queue(endpoint) and not outage.is_refusal:
            return min(max(outage.delay / 8, FIRST_DELAY), MAX_DELAY_WITH_WAITERS)
        return outage.delay

    def wait_until(self, outage: Outage, retry_at: float) -> None:
        outage.state = 'pausing'
        outage.retry_at = retry_at
        self.call_if_first(outage)

    def allow_retry(self, outage: Outage, now: float) -> None:
        outage.state = 'due'
        outage.forgotten_at = now + max(MEMORY_OF_OUTAGES, 2 * outage.delay)
        self.call_if_first(outage)

    def call_if_first(self, outage: Outage) -> None:
        """Whoever waits for the next timer has to be told if that is another one."""
        if outage.comes_up_at() <= self.next_retry():
            self.must_call = True

    def next_retry(self) -> float:
        outages = [known.outage for known in self.knowns.values() if known.outage is not None]
        return min((outage.comes_up_at() for outage in outages), default=math.inf)

    def shorten_pause(self, endpoint: int) -> None:
        """Somebody waits."""
        outage = self.outage(endpoint)
        if outage is not None and outage.state == 'pausing':
            retry_at = outage.failed_at + self.pause(endpoint, outage)
            if outage.retry_at > retry_at:
                self.wait_until(outage, retry_at)

    @asked
    def retry_now(self, endpoint: int, now: float) -> None:
        """Somebody asks who is no waiter."""
        outage = self.outage(endpoint)
        if endpoint not in self.pool.endpoints():
            return
        if outage is not None and outage.state == 'pausing':
            self.allow_retry(outage, now)
            self.pool.note_wanting(endpoint)
            self.note_short(endpoint, now)
        self.pool.dispatch(for_worker=True)

    def end_pause_if_over(self, endpoint: int, now: float) -> bool:
        outage = self.outage(endpoint)
        if outage is None or outage.state != 'pausing' or outage.retry_at > now:
            return False
        self.allow_retry(outage, now)
        self.pool.note_wanting(endpoint)
        self.note_short(endpoint, now)
        return True

    def begin_attempt(self, endpoint: int, ticket: 'Conn | None') -> None:
        outage = self.outage(endpoint)
        if outage is not None and outage.state == 'due':
            outage.state = 'trying'
            outage.attempt = ticket
        elif outage is not None and outage.state == 'trying' and outage.attempt is None:
            outage.attempt = ticket

    def give_up_attempt(self, endpoint: int, ticket: 'Conn | None', now: float) -> None:
        """It has ended, and says nothing about the server."""
        outage = self.outage(endpoint)
        if outage is not None and outage.state == 'trying' and outage.attempt is ticket:
            self.allow_retry(outage, now)

    def end_outage(self, endpoint: int, now: float) -> None:
        known = self.knowns[endpoint]
        if known.outage is not None:
            known.outage_lasted = now - known.outage.began_at
            known.outage = None

    def end_refusal(self, endpoint: int, now: float) -> None:
        """One of its connections was closed: the server may have room."""
        outage = self.outage(endpoint)
        if outage is not None and outage.state == 'pausing' and outage.is_refusal:
            self.allow_retry(outage, now)

    # -- timers and workers -------------------------------------------------------------------------------------------

    def next_timer(self) -> float:
        return min(self.next_retry(), math.inf if self.refill_at is None else self.refill_at)

    @asked
    def run_timers(self, now: float, by_worker: bool) -> None:
        pool = self.pool
        is_due = pool.pass_time(now)
        while self.next_retry() <= now:
            endpoint, known = min(
                ((endpoint, known) for endpoint, known in self.knowns.items() if known.outage is not None),
                key=lambda item: item[1].outage.comes_up_at(),  # type: ignore[union-attr]
            )
            assert known.outage is not None
            if known.outage.state == 'pausing':
                self.allow_retry(known.outage, now)
                pool.note_wanting(endpoint)
                self.note_short(endpoint, now)
                is_due = True
            else:
                known.outage = None
                self.forget()
        if self.refill_at is not None and self.refill_at <= now:
            self.refill_at = None
            is_due = True
        if is_due:
            pool.dispatch(for_worker=True)
        if by_worker:
            self.must_call = False

    @asked
    def ask_workers(self) -> None:
        self.must_call = True

    def call_workers(self) -> None:
        """A worker is called where slots are reserved. If there is none, waiters get the slots."""
        if not self.must_call:
            return
        self.must_call = False
        if self.pool.closed:
            return
        self.calls += 1
        if not self.has_workers:
            self.hand_over_slots(self.clock())

    def hand_over_slots(self, now: float) -> None:
        pool = self.pool
        pool.pass_time(now)
        while True:
            slot = self.take_reserved()
            if slot is None:
                pool.serve_slots(for_worker=True)
                slot = self.take_reserved()
            if slot is None:
                break
            endpoint = slot.endpoint
            self.free(slot, now)
            has_room = len(pool.conns) < pool.total_max_size
            if not pool.suspended and has_room and self.may_connect(endpoint) and pool.queue(endpoint):
                pool.serve_ticket(pool.queue(endpoint)[0])
            pool.note_wanting(endpoint)
            self.note_short(endpoint, now)
            self.forget()
        if self.short:
            # Later, if anybody is there then who runs the timers.
            self.refill_at = now + FILL_PAUSE
        self.must_call = False
        pool.tell_if_empty()

    def close(self, now: float) -> None:
        self.refill_at = None
        while (slot := self.take_reserved()) is not None:
            self.free(slot, now)
        self.pool.tell_if_empty()

    def end_step(self, calls: bool = True) -> None:
        """The end of whatever was asked."""
        if self.depth == 0:
            self.note_filled()
            if calls:
                self.call_workers()
            self.forget()
