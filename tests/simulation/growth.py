"""The core alone, which creates connections itself and meets outages: random questions, and rules that always hold.

There is no second core that the answers are compared with, as in ``core``: this keeps books of its own, on who waits,
which connects are under way, for whom they are, and what the outages are, and judges the answers by these.
"""

import random
from collections.abc import Container
from typing import Any

from gcpool._core import Entry, PoolCore, Waiter
from tests.simulation.failure import SimulationError

__all__ = ['simulate', 'simulate_world']

# Steps of a world.
STEPS = 400

# Seconds for which the core remembers an outage in which nothing is attempted, and the shortest and longest pauses.
MEMORY = 10.0
FIRST_DELAY = 0.010
MAX_DELAY = 5.0
MAX_DELAY_WITH_WAITERS = 0.1
# The same, if the server has said that it is full.
FIRST_DELAY_IF_FULL = 0.050
MAX_DELAY_IF_FULL = 1.0

# How often everything is done that can be done, before what still waits waits for ever.
ROUNDS = 400

EPSILON = 1e-9
MASK = 0xFFFFFFFFFFFFFFFF


class Connection:
    """A connection to nothing."""


class Asker:
    """An acquire in progress."""

    def __init__(self, endpoint: int, number: int):
        self.endpoint = endpoint
        self.number = number
        self.waiter = Waiter(endpoint)
        self.waiter.arm(int)
        self.error: BaseException | None = None


class Outage:
    """That an endpoint cannot be connected to, or is full."""

    def __init__(self, now: float, is_refusal: bool):
        self.is_refusal = is_refusal
        # Whether it is known which connects are attempts.
        self.is_exact = True
        self.failures = 0
        self.began_at = now
        self.touched_at = now
        self.not_before = now
        self.attempt: Entry | None = None


class World:
    """One core, and the books on it."""

    def __init__(self, seed: int):
        self.seed = seed
        self.step = 0
        self.trace = seed
        self.dice = dice = random.Random(f'growth of the core {seed}')
        self.now = 1000.0
        self.max_size = dice.randint(1, 4)
        count = dice.randint(1, 3)
        self.endpoints = list(range(count))
        self.total = dice.randint(self.max_size, self.max_size * count)
        self.background = dice.random() < 0.5
        self.max_connecting = dice.choice((0, 1, 2))
        self.min_size = dice.choice((0, 0, 1, self.max_size))
        self.reconnects = dice.random() < 0.6
        self.fails_fast = not self.reconnects and dice.random() < 0.3
        self.refuses = not self.reconnects and dice.random() < 0.3
        # How many of the failures are refusals, and after how many steps connects begin or cease to fail.
        self.refusal_rate = dice.choice((0.5, 1.0))
        self.phase = dice.choice((60, 200))
        self.has_workers = True
        self.core = PoolCore(
            0,
            self.max_size,
            self.total,
            60.0,
            600.0,
            clock=lambda: self.now,
            min_size=self.min_size,
            creates_in_background=self.background,
            max_connecting=self.max_connecting,
            reconnect_timeout=dice.choice((0.05, 3.0)) if self.reconnects else 0.0,
            fails_fast=self.fails_fast,
            keeps_growth=True,
        )
        self.core.set_workers(lambda: self.has_workers)
        self.askers: list[Asker] = []  # those who wait, in the order of their arrival
        self.connecting: list[Asker] = []
        self.holding: list[Asker] = []
        self.tickets: list[Entry] = []
        self.closing: list[Entry] = []
        self.covers: dict[Entry, Asker | None] = {}
        self.outages: dict[int, Outage] = {}
        self.unclear: set[int] = set()
        self.pins: dict[int, int] = {}
        # Tickets and connections whose endpoint was drained since they were begun.
        self.drained: set[Entry] = set()
        self.arrivals = 0
        self.suspended = False
        self.closed = False

    def fail(self, rule: str) -> None:
        raise SimulationError(self.seed, self.step, rule)

    # -- the books ------------------------------------------------------------------------------------------------

    def waiting(self, endpoint: int) -> list[Asker]:
        return [asker for asker in self.askers if asker.endpoint == endpoint]

    def look(self, asker: Asker) -> None:
        """Note what an acquire was answered."""
        waiter = asker.waiter
        if waiter.queued:
            self.askers = sorted({*self.askers, asker}, key=lambda each: each.number)
            return
        if asker in self.askers:
            self.askers.remove(asker)
            self.pass_on(asker)
        if waiter.has_ticket:
            self.connecting.append(asker)
            self.begin(asker.endpoint, waiter.served)
        elif waiter.held is not None:
            self.holding.append(asker)
        else:
            asker.error = waiter.error
            if waiter.endpoint_is_down:
                self.judge_down(asker.endpoint)
            self.core.cancel(waiter, self.now)

    def look_at_all(self) -> None:
        for asker in list(self.askers):
            if not asker.waiter.queued:
                self.look(asker)

    def uncovered(self, endpoint: int) -> Asker | None:
        covered = [asker for asker in self.covers.values() if asker is not None]
        return next((asker for asker in self.waiting(endpoint) if asker not in covered), None)

    def pass_on(self, asker: Asker) -> None:
        """Somebody does not wait any more: what is created for him is for the next one."""
        for ticket, covered in self.covers.items():
            if covered is asker:
                self.covers[ticket] = None
                self.covers[ticket] = self.uncovered(asker.endpoint)

    def begin(self, endpoint: int, ticket: Entry) -> None:
        """A ticket is given."""
        under_way = [each.waiter.served for each in self.connecting if each.endpoint == endpoint]
        under_way += [each for each in self.tickets if each.endpoint == endpoint]
        if self.max_connecting and len(under_way) > self.max_connecting:
            self.fail(f'{len(under_way)} connects to {endpoint} are under way, of at most {self.max_connecting}')
        stats, total = self.core.endpoint_stats(endpoint), self.core.stats()
        if stats['size'] - stats['closing'] > self.max_size or total['size'] - total['closing'] > self.total:
            self.fail(f'a connect to {endpoint} begins beyond the limits {self.max_size} and {self.total}: {stats}')
        outage = self.outages.get(endpoint)
        if outage is not None and self.now >= outage.touched_at + MEMORY:
            # Whether the core has forgotten it, too, is not known: not until a connect succeeds.
            del self.outages[endpoint]
            self.unclear.add(endpoint)
        elif outage is not None:
            if outage.attempt is not None:
                self.fail(f'in the outage of {endpoint}, a second attempt begins beside the first')
            if self.now < outage.not_before - EPSILON:
                self.fail(f'in the outage of {endpoint}, an attempt begins {outage.not_before - self.now:g} s early')
            outage.attempt = ticket

    def ended(self, endpoint: int, ticket: Entry, outcome: str) -> None:
        """A connect has ended: it has ``connected``, it was ``cancelled``, it has ``failed``, or was ``refused``."""
        outage = self.outages.get(endpoint)
        if outcome == 'connected':
            self.outages.pop(endpoint, None)
            self.unclear.discard(endpoint)
        elif outcome == 'failed' and self.refuses:
            # If this was the attempt of an outage, the server is not full any more, and holds nobody back.
            if outage is not None and (outage.attempt is ticket or not outage.is_exact):
                del self.outages[endpoint]
                self.unclear.add(endpoint)
            return
        elif outage is None and self.begins_outage(endpoint, outcome):
            outage = self.outages[endpoint] = Outage(self.now, outcome == 'refused')
            # In an outage that held nobody back, the one attempt may be under way, or a slot be reserved for it.
            outage.is_exact = outcome == 'failed' or self.core.endpoint_stats(endpoint)['creating'] == 1
            if outage.is_exact:
                outage.attempt = ticket
        if outage is None or outage.attempt is not ticket:
            return
        outage.attempt = None
        outage.touched_at = self.now
        outage.not_before = self.now
        if outcome == 'refused':
            outage.not_before += min(FIRST_DELAY_IF_FULL * 2**outage.failures, MAX_DELAY_IF_FULL)
            outage.failures += 1
        elif outcome == 'failed':
            delay = min(FIRST_DELAY * 2**outage.failures, MAX_DELAY)
            outage.failures += 1
            pause = min(max(delay / 8, FIRST_DELAY), MAX_DELAY_WITH_WAITERS)
            # There is an attempt when the outage has lasted for reconnect_timeout, though not at once.
            due = outage.began_at + self.core.reconnect_timeout
            if self.now - EPSILON < due < self.now + pause + EPSILON:
                pause = min(pause, max(due - self.now, FIRST_DELAY * 0.8))
            outage.not_before += pause

    def begins_outage(self, endpoint: int, outcome: str) -> bool:
        if endpoint in self.unclear:
            return False
        return outcome == 'refused' or (outcome == 'failed' and self.reconnects)

    # -- steps ----------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        asker = Asker(self.dice.choice(self.endpoints), self.arrivals)
        self.arrivals += 1
        asker.waiter.arm(self.detach_meanwhile)
        self.core.request(asker.waiter, self.now)
        self.look(asker)

    def connect(self, failing: float) -> None:
        """The connect of an acquire ends."""
        if not self.connecting:
            return
        asker = self.connecting.pop(self.dice.randrange(len(self.connecting)))
        ticket = asker.waiter.served
        if self.dice.random() >= failing:
            served = self.core.created(ticket, Connection(), self.now)
            self.ended(asker.endpoint, ticket, 'connected')
            if served:
                self.holding.append(asker)
            else:
                self.core.cancel(asker.waiter, self.now)
            return
        if self.dice.random() < 0.2:
            self.ended(asker.endpoint, ticket, 'cancelled')
            self.core.cancel(asker.waiter, self.now)
            return
        refusal = self.refuses and self.dice.random() < self.refusal_rate
        self.ended(asker.endpoint, ticket, 'refused' if refusal else 'failed')
        self.core.connect_failed(asker.waiter, OSError('kept'), refusal, self.dice.random() < 0.9, self.now)
        self.judge_pause(asker.endpoint)
        if asker.waiter.held is None:
            self.look_at_all()
            self.core.request(asker.waiter, self.now)
            self.look(asker)
        else:
            self.core.cancel(asker.waiter, self.now)

    def take_create(self) -> None:
        ticket = self.core.take_create(self.now)
        if ticket is None:
            return
        if self.closed:
            self.fail('a closed pool connects')
        self.tickets.append(ticket)
        self.covers[ticket] = None
        self.covers[ticket] = self.uncovered(ticket.endpoint)
        self.begin(ticket.endpoint, ticket)

    def end_create(self, failing: float) -> None:
        """A connect of the pool's own ends."""
        if not self.tickets:
            return
        ticket = self.tickets.pop(self.dice.randrange(len(self.tickets)))
        endpoint = ticket.endpoint
        asker = self.covers.pop(ticket)
        if self.dice.random() >= failing:
            self.ended(endpoint, ticket, 'connected')
            is_kept = self.core.grown(ticket, Connection(), self.now)
            if is_kept and ticket in self.drained:
                self.fail('a connection is served whose endpoint was drained while it was created')
        elif self.dice.random() < 0.2:
            self.ended(endpoint, ticket, 'cancelled')
            self.core.grow_cancelled(ticket, self.now)
        else:
            self.fail_create(ticket, asker)
        size = self.core.size
        self.core.grow_failed(ticket, OSError('late'), OSError('late'), False, self.now)
        self.core.grow_cancelled(ticket, self.now)
        if self.core.size != size:
            self.fail('a connect of the pool has ended twice')

    def fail_create(self, ticket: Entry, asker: Asker | None) -> None:
        endpoint = ticket.endpoint
        error = OSError('refused')
        refusal = self.refuses and self.dice.random() < self.refusal_rate
        expected = asker or self.uncovered(endpoint)
        # Where a minimum is to be reached, such an error is followed by a pause as any other.
        has_minimum = self.min_size > 0 or self.pins.get(endpoint, 0) > 0
        hopeless = not refusal and not has_minimum and self.dice.random() < 0.2
        # One that no server has caused says nothing about the outage.
        self.ended(endpoint, ticket, 'cancelled' if hopeless else 'refused' if refusal else 'failed')
        self.core.grow_failed(ticket, error, error, refusal, self.now, hopeless)
        if not hopeless:
            self.judge_pause(endpoint)
        self.look_at_all()
        if hopeless and expected is not None and expected.error is not error:
            self.fail('an acquire waits on after an error that no server has caused')
        if expected is None or self.refuses or hopeless:
            return
        if self.reconnects and expected.error is error:
            self.fail('an acquire gets an error instead of waiting for the end of the outage')
        if not self.reconnects and expected.error is not error:
            self.fail('the error of a connect has not reached the acquire that it is for')

    def leave(self) -> None:
        if self.askers:
            asker = self.dice.choice(self.askers)
            self.askers.remove(asker)
            self.pass_on(asker)
            self.core.cancel(asker.waiter, self.now)

    def release(self) -> None:
        if self.holding:
            asker = self.holding.pop(self.dice.randrange(len(self.holding)))
            entry = asker.waiter.served
            del asker.waiter.served
            if self.dice.random() < 0.3:
                self.core.retire(entry, self.now)
                self.closing.append(entry)
            else:
                self.core.release(entry, self.now)
                if entry in self.drained and entry.state_name != 'closing':
                    self.fail('a connection whose endpoint was drained while it was in use is not closed')

    def dispose(self) -> None:
        entry = self.core.take_doomed()
        if entry is not None:
            self.closing.append(entry)
        if self.closing and self.dice.random() < 0.7:
            entry = self.closing.pop(self.dice.randrange(len(self.closing)))
            endpoint = entry.endpoint
            self.drained.discard(entry)
            self.core.disposed(entry, self.now)
            self.note_close(endpoint)

    def note_close(self, endpoint: int) -> None:
        """A connection is closed. A server that was full may have room for another one."""
        outage = self.outages.get(endpoint)
        if outage is None or not outage.is_refusal or outage.attempt is not None:
            return
        outage.not_before = self.now
        self.look_at_all()
        outage = self.outages.get(endpoint)
        if self.core.reserved or outage is None or outage.attempt is not None:
            return
        stats = self.core.endpoint_stats(endpoint)
        has_room = stats['size'] < self.max_size and self.core.size < self.total
        if has_room and stats['waiting'] and not stats['creating'] and not self.suspended and not self.closed:
            self.fail(f'{endpoint} was full, a connection to it is closed, and nobody connects: {stats}')

    def drain(self) -> None:
        endpoint = self.dice.choice(self.endpoints)
        self.core.drain(endpoint, self.now)
        begun = [asker.waiter.served for asker in (*self.connecting, *self.holding)]
        self.drained.update(entry for entry in (*begun, *self.tickets) if entry.endpoint == endpoint)
        if self.core.endpoint_size(endpoint, False):
            self.fail('a connection is idle after its endpoint was drained')

    def resize(self) -> None:
        if self.dice.random() < 0.3:
            self.max_size = self.dice.randint(max(1, self.min_size), 4)
            self.total = self.dice.randint(self.max_size, self.max_size * len(self.endpoints))
            self.core.resize(self.now, max_size=self.max_size, total_max_size=self.total)
            for endpoint in self.endpoints:
                stats = self.core.endpoint_stats(endpoint)
                if stats['idle'] and stats['size'] - stats['closing'] > self.max_size:
                    self.fail(f'a connection is idle beyond the limit of {self.max_size}: {stats}')

    def pause(self) -> None:
        """Serve nobody for a while."""
        if self.suspended:
            self.core.resume(self.now)
            self.suspended = False
        elif self.dice.random() < 0.2:
            self.suspended = self.core.suspend()

    def pin(self) -> None:
        endpoint = self.dice.choice(self.endpoints)
        self.pins[endpoint] = self.dice.randint(0, self.max_size)
        self.core.pin(endpoint, self.pins[endpoint], self.now)

    def pass_time(self) -> None:
        timer = self.core.next_timer()
        if timer < self.now + 100.0 and self.dice.random() < 0.7:
            self.now = max(self.now, timer)
        else:
            self.now += self.dice.choice((0.001, 0.05, 1.0))
        self.core.run_timers(self.now)

    def lose_workers(self) -> None:
        self.has_workers = not self.has_workers
        self.core.ask_workers()

    def detach_meanwhile(self) -> None:
        """A waiter is told. If that is because the pool is being closed, a user keeps a connection at the same time."""
        if self.closed and self.holding:
            asker = self.holding.pop()
            entry = asker.waiter.served
            del asker.waiter.served
            self.drained.discard(entry)
            self.core.detach(entry, self.now)

    def close(self) -> None:
        if self.dice.random() < 0.02:
            self.closed = True
            self.core.close()
            if self.core.reserved:
                self.fail('slots are reserved in a closed pool')

    def make_step(self) -> None:
        self.step += 1
        reserved = self.core.reserved
        suspended = self.suspended
        failing = 0.9 if self.step // self.phase % 2 else 0.1
        steps: tuple[Any, ...] = (
            *(self.ask, self.ask, self.ask, self.take_create, self.take_create, self.release, self.release),
            *(self.dispose, self.dispose, self.leave, self.pass_time, self.pass_time, self.pin, self.close),
            *(self.drain, self.resize, self.pause),
            *(lambda: self.connect(failing), lambda: self.connect(failing)),
            *(lambda: self.end_create(failing), lambda: self.end_create(failing)),
        )
        if self.dice.random() < 0.02:
            self.lose_workers()
        else:
            self.dice.choice(steps)()
        self.look_at_all()
        if suspended and self.suspended and self.core.reserved > reserved:
            self.fail('a suspended pool is to connect')
        self.judge(reserved)

    # -- the rules ------------------------------------------------------------------------------------------------

    def judge(self, reserved: int) -> None:
        core = self.core
        try:
            core.check_invariants()
        except AssertionError as exc:
            self.fail(str(exc))
        stats = core.stats()
        known = stats['idle'] + len(self.holding) + len(self.connecting) + len(self.tickets) + core.reserved
        known += len(self.closing) + core.doomed
        if core.size != known:
            self.fail(f'{core.size} slots are taken, and {known} are known')
        plain = not (self.background or self.reconnects or self.refuses or self.fails_fast)
        if plain and core.reserved > reserved:
            self.judge_priority()
        self.trace = (self.trace * 0x9E3779B1 + core.size * 64 + stats['waiting']) & MASK

    def judge_down(self, endpoint: int) -> None:
        """An acquire has failed at once, because no connect succeeds."""
        if not self.fails_fast:
            self.fail('an acquire fails at once without fail_fast')
        if self.core.endpoint_size(endpoint, False) and not self.suspended:
            self.fail('an acquire fails at once beside an idle connection')
        if self.core.endpoint_size(endpoint, True):
            self.fail('an acquire fails at once beside a connection in use, for which it could wait')

    def judge_pause(self, endpoint: int) -> None:
        """A connect has failed. If that was the attempt of an outage, the next one is not too far away."""
        outage = self.outages.get(endpoint)
        if self.closed or outage is None or outage.touched_at < self.now or outage.attempt is not None:
            return
        if self.core.endpoint_stats(endpoint)['creating'] or outage.not_before <= self.now:
            # That may be the next attempt, or it may begin at once.
            return
        longest = MAX_DELAY_IF_FULL if outage.is_refusal else MAX_DELAY
        pause = self.core.next_timer() - self.now
        if pause > longest + EPSILON:
            self.fail(f'in the outage of {endpoint}, the next attempt is due in {pause:g} s')

    def judge_priority(self) -> None:
        """Slots were reserved for minimums. Nobody waits for a slot who could have one."""
        core = self.core
        for endpoint in self.endpoints:
            size = core.endpoint_size(endpoint)
            connecting = sum(each.endpoint == endpoint for each in self.connecting)
            # What the pool itself creates, or closes.
            own = size - core.endpoint_size(endpoint, True) - core.endpoint_size(endpoint, False) - connecting
            may_connect = size < self.max_size and not 0 < self.max_connecting <= connecting + own
            if may_connect and len(self.waiting(endpoint)) > own:
                self.fail('a minimum is filled while somebody waits for a slot')

    def end(self) -> None:
        """Nothing goes wrong any more: all are served, pinned endpoints are filled, and others are forgotten."""
        self.has_workers = True
        self.core.ask_workers()
        if self.suspended:
            self.pause()
        for _ in range(ROUNDS):
            self.settle()
            if not self.askers and not self.connecting:
                break
        else:
            self.fail(f'{len(self.askers)} wait, and nobody serves them')
        for _ in range(20):
            self.now += 1.0
            self.core.run_timers(self.now)
            self.settle()
        for endpoint, size in self.pins.items():
            has = self.core.endpoint_size(endpoint)
            if has < min(size, self.max_size) and self.core.size < self.total and not self.closed:
                self.fail(f'endpoint {endpoint} is pinned with {size} connections, and has {has}')
        for endpoint in self.endpoints:
            self.core.pin(endpoint, 0, self.now)
        for _ in range(5):
            self.now += 300.0
            self.core.doom_due(self.now, 1000)
            self.settle()
        stats = self.core.stats()
        if stats['endpoints'] or stats['size'] or self.core.next_timer() < float('inf'):
            self.fail(f'nothing is used or kept, and this is left: {stats}')

    def settle(self) -> None:
        self.look_at_all()
        self.pass_time()
        for _ in range(20):
            self.take_create()
            self.end_create(0.0)
            self.connect(0.0)
            self.look_at_all()
        while self.holding:
            self.release()
            self.look_at_all()
        while self.core.doomed or self.closing:
            self.dispose()
            self.look_at_all()


def simulate_world(seed: int, traffic: int, without: Container[str] = ()) -> tuple[int, int]:
    """Run one world.

    :param seed: all that happens follows from it
    :param traffic: steps after which nothing goes wrong any more, if that are fewer than usual
    :param without: not used: faults that do not happen
    :return: the trace hash, and the number of steps
    :raises SimulationError: when a rule was broken
    """
    world = World(seed)
    for _ in range(min(STEPS, traffic)):
        world.make_step()
    world.end()
    return world.trace, world.step


def simulate(seed: int, steps: int, without: Container[str] = ()) -> str:
    """Run worlds until at least so many steps were made.

    :return: the trace hash of all: the same for the same arguments
    """
    trace = 0
    while steps > 0:
        world_trace, done = simulate_world(seed, steps, without)
        trace = (trace * 31 + world_trace) & MASK
        steps -= done
        seed += 1
    return f'{trace:016x}'
