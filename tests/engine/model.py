"""A pool in plain Python, one step at a time: what the core must answer, written from DESIGN.md and COMPAT.md.

It has only lists and dicts, and finds everything by walking through all of it. Connections are known by number,
acquires by the order of their arrival. Where the documents leave a choice, the comment says so.
"""

import itertools
import math
from dataclasses import dataclass, field

from tests.engine.growing import Growth, asked

# Seconds of an epoch. Who came before the epoch before the previous one is overdue: it is not overtaken any more,
# although its endpoint has connections. OPERATIONS.md wants a bound of about 1 s; this one is the core's.
OVERTAKING_EPOCH = 0.3
MAX_OVERTAKING_TIME = 3 * OVERTAKING_EPOCH

# Seconds for which the place of one who gave up is kept, or half of that. The core's choice.
KEPT_PLACE_TIME = 10.0

# Seconds, and up to twice as many, after which a connection that is still being closed does not count as relief for
# waiters any more. Also the core's choice.
RELIEF_TIME = 1.0

# For which part of the interval a check is put off while another connection of the endpoint is checked.
KEEPALIVE_PUT_OFF = 0.05

# By which part of it an interval is shorter at most.
KEEPALIVE_JITTER = 0.1


def hash_of(endpoint: int) -> int:
    """Two endpoints of the tests share each hash, and with that what the core keeps by the hash: places."""
    return endpoint % 2


REASONS = (
    'idle', 'lifetime', 'max_uses', 'broken', 'dead', 'discarded', 'drained', 'shrunk', 'evicted', 'pool_closed',
)  # fmt: skip


class NotAcquired(Exception):
    """Released, but not in use."""


@dataclass(eq=False)
class Conn:
    """A connection, or a slot in which one is being created."""

    endpoint: int
    state: str = 'creating'
    number: int | None = None
    expires_at: float = math.inf
    used_at: float = 0.0
    released: int = 0
    core: bool = False
    holder: 'Acq | None' = None
    closed_over: bool = False
    suspect: bool = False
    drained: bool = False
    check_pending: bool = False
    uses: int = 0
    was_core: bool = False
    checked_at: float = 0.0
    put_off_until: float = -math.inf
    relief_since: int | None = None
    reason: str = ''  # why it is closed
    job: str = ''  # what a worker does with it: close, create or check
    since: float = math.inf  # when its connect began, or, in use, when it was taken
    own: bool = False  # the pool itself creates it
    reserved: bool = False  # and no worker has come for it yet
    keepalive: float = 0.0  # the interval, with chance


@dataclass(eq=False)
class Acq:
    """One acquire in progress."""

    endpoint: int
    arrival: int = 0
    queued_at: float = 0.0
    place: int = 0  # what counts between endpoints: its arrival, or that of one who gave up before it
    state: str = 'nothing'
    conn: Conn | None = None
    dead_conn: Conn | None = None
    has_waited: bool = False
    was_served: bool = False
    outdated: bool = False
    asked: bool = False
    lost: bool = False  # its connection was closed in its hands
    waits_from: float = math.inf  # while its wait is not counted
    was_idle: bool = False  # what it was served
    left_check: bool = False  # it has left a check to the pool
    create: Conn | None = None  # what the pool creates for it
    error: BaseException | None = None  # why no connection could be created for it


@dataclass
class Model:
    """The pool."""

    min_idle: int
    max_size: int
    total_max_size: int
    idle_timeout: float
    max_lifetime: float
    collects: bool
    max_waiting: int = 0
    order: str = 'lifo'
    keep: str = 'size'
    keeps_idle: bool = True
    opened: bool = True
    max_uses: int = 0
    keepalive: float = 0.0  # of each connection, before chance
    lifetime_jitter: float = 0.0
    max_workers: int = 0

    conns: list[Conn] = field(default_factory=list)
    queues: dict[int, list[Acq]] = field(default_factory=dict)
    # What the caller that dooms closes, and what a worker closes. Each item was doomed in one step: the lists may be
    # taken in any order, each list in its own.
    doomed: list[list[list[Conn]]] = field(default_factory=list)
    doomed_for_worker: list[list[list[Conn]]] = field(default_factory=list)
    notified: list[Acq] = field(default_factory=list)
    # What waits for a worker to check it.
    to_check: list[Conn] = field(default_factory=list)
    # Waiters for a connection to be closed, or (None) for the pool to be empty.
    watchers: list[tuple[object, Conn | None]] = field(default_factory=list)
    # Waiters for no connection of an endpoint to be in use or being created.
    use_watchers: list[tuple[object, int]] = field(default_factory=list)
    told: list[object] = field(default_factory=list)
    epoch: int = 0  # the latest time that was told, in units of RELIEF_TIME
    # Epochs in which somebody has asked, and how many had arrived before that.
    arrived_before: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    latest: float = 0.0  # the latest time that was told
    # Endpoints that want a slot: the place and the arrival of the first waiter, and the place since which they wait.
    wants: dict[int, tuple[int, int]] = field(default_factory=dict)
    unserved: dict[int, tuple[float, int]] = field(default_factory=dict)
    place_epoch: int = 0  # the latest time that was told, in units of half of KEPT_PLACE_TIME
    left: dict[tuple[int, int], int] = field(
        default_factory=dict
    )  # place epoch and hash of an endpoint: the place left there
    sleeps_until: float = math.inf  # when the collector looks again by itself
    wakes: int = 0
    closed: bool = False
    suspended: bool = False
    failing: bool = False
    shrunk: bool = False
    arrivals: int = 0
    releases: int = 0
    counters: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                *('asked', 'acquires', 'waits', 'timeouts', 'cancelled', 'too_many', 'created', 'create_errors'),
                *('refused', 'checks', 'checks_failed', 'dead', 'broken', 'detached', 'leaks', 'disposed'),
                *(f'closed_{reason}' for reason in REASONS),
                *('wait_ns', 'create_ns'),
            ),
            0,
        )
    )

    use_time: float = 0.0
    # How many of each there were. A use that close() cut off is none; one that was returned is, however short.
    counts: dict[str, int] = field(default_factory=lambda: {'wait': 0, 'create': 0, 'use': 0})
    growth: Growth = field(init=False)

    def __post_init__(self) -> None:
        self.growth = Growth(self)

    # -- looking ------------------------------------------------------------------------------------------------------

    def of(self, endpoint: int | None, *states: str) -> list[Conn]:
        """Return the connections of an endpoint, or of all, that are in one of some states."""
        return [
            conn
            for conn in self.conns
            if (endpoint is None or conn.endpoint == endpoint) and (not states or conn.state in states)
        ]

    def out(self, endpoint: int | None) -> list[Conn]:
        return self.of(endpoint, 'acquired', 'releasing')

    def used(self, endpoint: int | None) -> list[Conn]:
        """Return what is in use, or is being created by an acquire."""
        used = self.of(endpoint, 'creating', 'acquired', 'releasing')
        return [conn for conn in used if not conn.own]

    def closing(self, endpoint: int | None = None) -> int:
        return len(self.of(endpoint, 'closing'))

    def idle(self, endpoint: int, core: bool) -> list[Conn]:
        """Return the idle connections in the order of their release."""
        found = [conn for conn in self.of(endpoint, 'idle') if conn.core is core]
        return sorted(found, key=lambda conn: conn.released)

    def queue(self, endpoint: int) -> list[Acq]:
        return self.queues.get(endpoint, [])

    def waiting(self) -> list[Acq]:
        return [acq for queue in self.queues.values() for acq in queue]

    def endpoints(self) -> set[int]:
        used = {conn.endpoint for conn in self.conns} | {acq.endpoint for acq in self.waiting()}
        return used | self.growth.remembered()

    def wanting_slots(self) -> list[Acq]:
        """The first of each endpoint's queue that may have one more connection, in the order of their places.

        Two endpoints of one hash may have the same place: then by arrival.
        """
        heads = [queue[0] for queue in self.queues.values() if queue]
        return sorted(
            (head for head in heads if self.growth.wants_slot(head.endpoint)),
            key=lambda head: (head.place, head.arrival),
        )

    def deadline(self, conn: Conn) -> float:
        """When an idle connection is to be closed. With min_size a core one is kept as long as its endpoint lives."""
        if not conn.core:
            return min(conn.expires_at, conn.used_at + self.idle_timeout)
        known = self.growth.known(conn.endpoint)
        if not self.growth.min_size or known is None or self.growth.is_busy(conn.endpoint):
            return conn.expires_at
        return min(conn.expires_at, known.used_at + self.idle_timeout)

    def first_due(self) -> Conn | None:
        """Return the idle connection whose deadline comes first; of several, the one released first."""
        idle = self.of(None, 'idle')
        return min(idle, key=lambda conn: (self.deadline(conn), conn.released)) if idle else None

    def first_unused(self) -> Conn | None:
        """Return the idle connection that was not used for longest."""
        return min(self.of(None, 'idle'), key=lambda conn: (conn.used_at, conn.released), default=None)

    def next_idle(self, endpoint: int) -> list[Conn]:
        """Return the idle connections in the order in which they are served."""
        extra = self.idle(endpoint, core=False)
        return self.idle(endpoint, core=True) + (extra if self.order == 'fifo' else extra[::-1])

    def next_due(self) -> float | None:
        """Tell the collector when to wake up; it sleeps until then, or until something is due earlier."""
        first = self.first_due()
        self.sleeps_until = math.inf if first is None else self.deadline(first)
        return None if self.sleeps_until == math.inf else self.sleeps_until

    def stats(self) -> dict[str, int]:
        return {
            'size': len(self.conns),
            'idle': len(self.of(None, 'idle')),
            'in_use': len(self.out(None)),
            'acquired': len(self.out(None)),
            'creating': len(self.of(None, 'creating')),
            'checking': len(self.of(None, 'checking')),
            'closing': self.closing(),
            'waiting': len(self.waiting()),
            'endpoints': len(self.endpoints()),
            'suspended': int(self.suspended),
            'min_idle': self.min_idle,
            'max_size': self.max_size,
            'total_max_size': self.total_max_size,
            'min_size': self.growth.min_size,
            'max_waiting': self.max_waiting,
            'max_workers': self.max_workers,
            **self.counters,
            'use_ns': int(self.use_time * 1e9),
        }

    def longest_held(self, endpoint: int | None, now: float) -> float:
        """Return the seconds for which the connection is in use that was taken first; 0 if none is."""
        return max((now - conn.since for conn in self.out(endpoint)), default=0.0)

    def endpoint_stats(self, endpoint: int) -> dict[str, int]:
        waiting = len(self.queue(endpoint))
        return {
            'size': len(self.of(endpoint)),
            'idle': len(self.of(endpoint, 'idle')),
            'in_use': len(self.out(endpoint)),
            'acquired': len(self.out(endpoint)),
            'creating': len(self.of(endpoint, 'creating')),
            'checking': len(self.of(endpoint, 'checking')),
            'closing': self.closing(endpoint),
            'waiting': waiting,
            'endpoints': int(endpoint in self.endpoints()),
            'suspended': int(self.suspended),
            'min_idle': self.min_idle,
            'max_size': self.max_size,
            'total_max_size': self.total_max_size,
            'min_size': self.growth.min_size,
            'max_waiting': self.max_waiting,
            'max_workers': self.max_workers,
        }

    def doomed_of(self, for_worker: bool) -> list[list[list[Conn]]]:
        return self.doomed_for_worker if for_worker else self.doomed

    def may_be_closed_next(self, for_worker: bool) -> list[Conn]:
        doomed = self.doomed_of(for_worker)
        return [order[0] for order in doomed[0]] if doomed else []

    def room_for_jobs(self, job: str) -> int:
        """How many more jobs of a kind workers may begin: of all workers each kind leaves some to the others."""
        at_work = [conn.job for conn in self.conns if conn.job]
        most = {'close': 64, 'create': 1_000_000, 'check': 16}[job]
        if not self.max_workers:
            return most - at_work.count(job)
        share = max(self.max_workers // 2 if job == 'check' else self.max_workers - 1, 1)
        return min(min(most, share) - at_work.count(job), self.max_workers - len(at_work))

    def jobs_to_begin(self) -> int:
        """How many jobs workers may begin now, of all kinds."""
        closes = len([conn for orders in self.doomed_for_worker for order in orders for conn in order])
        waiting = {'close': closes, 'create': len(self.growth.reserved()), 'check': len(self.to_check)}
        jobs = sum(max(min(count, self.room_for_jobs(job)), 0) for job, count in waiting.items())
        if not self.max_workers:
            return jobs
        return max(min(jobs, self.max_workers - len([conn for conn in self.conns if conn.job])), 0)

    # -- steps --------------------------------------------------------------------------------------------------------

    def doom(self, conn: Conn, reason: str, for_worker: bool) -> None:
        conn.state = 'closing'
        conn.reason = reason
        self.doomed_of(for_worker).append([[conn]])

    def is_used_up(self, conn: Conn) -> bool:
        return conn.uses == self.max_uses > 0

    def lifetime_reason(self, conn: Conn) -> str:
        return 'max_uses' if self.is_used_up(conn) else 'lifetime'

    def doom_dead(self, acq: Acq) -> None:
        """A connection found dead is closed when its acquirer has asked again, or is cancelled, and not before."""
        if acq.dead_conn is not None:
            self.doom(acq.dead_conn, 'dead', for_worker=True)
            acq.dead_conn = None

    def doom_in_any_order(self, orders: list[list[Conn]], reason: str | None, for_worker: bool = False) -> None:
        """Doom connections of which only those of each list are doomed in a known order. None: each for its reason."""
        orders = [order for order in orders if order]
        for order in orders:
            for conn in order:
                conn.state = 'closing'
                conn.reason = reason or conn.reason
        if orders:
            self.doomed_of(for_worker).append(orders)

    def evict_due(self, limit: float, for_worker: bool) -> Conn | None:
        first = self.first_due()
        if first is None or self.deadline(first) > limit:
            return None
        self.doom(first, self.lifetime_reason(first) if first.expires_at <= limit else 'idle', for_worker)
        return first

    def evict_unused(self, for_worker: bool, reason: str) -> Conn | None:
        first = self.first_unused()
        if first is not None:
            self.doom(first, reason, for_worker)
        return first

    def needs_relief(self, besides: int | None = None) -> bool:
        """Whether fewer connections are being closed for waiters than there are endpoints in need.

        :param besides: an endpoint that does not count
        """
        relief = [
            conn
            for conn in self.of(None, 'closing')
            if conn.relief_since is not None and conn.relief_since >= self.epoch - 1
        ]
        return len(relief) < len([acq for acq in self.wanting_slots() if acq.endpoint != besides])

    def count_as_relief(self, conn: Conn) -> None:
        """Doom a connection. If too few are being closed for waiters that want a slot, its slot is for one of them."""
        if self.needs_relief():
            conn.relief_since = self.epoch

    def pass_time(self, now: float) -> bool:
        self.latest = max(self.latest, now)
        before = self.epoch
        self.epoch = max(before, int(now / RELIEF_TIME))
        return any(
            conn.relief_since is not None and before - 1 <= conn.relief_since < self.epoch - 1
            for conn in self.of(None, 'closing')
        )

    def add_slot(self, endpoint: int) -> Conn:
        conn = Conn(endpoint)
        self.conns.append(conn)
        return conn

    def take_ticket(self, acq: Acq) -> None:
        acq.conn = self.add_slot(acq.endpoint)
        acq.conn.holder = acq
        acq.was_served = True
        acq.was_idle = False
        acq.state = 'ticket'
        self.growth.begin_attempt(acq.endpoint, acq.conn)

    def take_conn(self, acq: Acq, conn: Conn, now: float) -> None:
        conn.state = 'acquired'
        conn.holder = acq
        acq.conn = conn
        acq.was_served = True
        acq.state = 'served'
        conn.since = now
        self.counters['acquires'] += 1
        conn.uses += 1
        if conn.uses == self.max_uses:
            conn.expires_at = -math.inf

    def count_wait(self, acq: Acq, now: float) -> None:
        if acq.waits_from <= now:
            self.counters['wait_ns'] += int((now - acq.waits_from) * 1e9)
            self.counts['wait'] += 1
        acq.waits_from = math.inf

    def begin_create(self, conn: Conn, now: float) -> None:
        conn.since = now

    def count_create(self, conn: Conn, now: float) -> None:
        if conn.since <= now:
            self.counters['create_ns'] += int((now - conn.since) * 1e9)
            self.counts['create'] += 1

    def end_use(self, conn: Conn, now: float) -> None:
        self.use_time += now - conn.since
        self.growth.note_used(conn.endpoint, now)
        self.counts['use'] += 1

    def count_asked(self, acq: Acq) -> None:
        if not acq.asked or (acq.lost and not self.closed):
            acq.asked = True
            acq.lost = False
            self.counters['asked'] += 1

    def leave_queue(self, acq: Acq) -> None:
        queue = self.queues[acq.endpoint]
        queue.remove(acq)
        if not queue:
            del self.queues[acq.endpoint]
        self.growth.pass_on(acq)

    def fail(self, acq: Acq, how: str, error: BaseException | None) -> None:
        """Nothing can be created for one that waits."""
        self.leave_queue(acq)
        acq.state = how
        acq.error = error
        self.notified.append(acq)
        self.note_wanting(acq.endpoint)

    def stop_waiting(self, acq: Acq, now: float) -> None:
        """Leave without having been served. The place goes to the next in the queue, or, if there is none, to the next
        who comes to wait there in time. Who did not wait leaves none of its own."""
        has_place = self.queues[acq.endpoint][0] is acq and (now > acq.queued_at or acq.place != acq.arrival)
        self.leave_queue(acq)
        queue = self.queue(acq.endpoint)
        if has_place and queue:
            queue[0].place = min(queue[0].place, acq.place)
        elif has_place:
            left = self.pass_place_time(now), hash_of(acq.endpoint)
            self.left[left] = min(acq.place, self.left.get(left, acq.place))
        self.note_wanting(acq.endpoint)

    @asked
    def drop(self, acq: Acq) -> None:
        """It is garbage: it leaves the queue, and no place."""
        self.leave_queue(acq)
        self.counters['cancelled'] += 1
        self.note_wanting(acq.endpoint)

    def join_queue(self, acq: Acq, now: float) -> None:
        queue = self.queue(acq.endpoint)
        epoch = self.pass_place_time(now)
        self.queues[acq.endpoint] = sorted([*queue, acq], key=lambda other: other.arrival)
        acq.queued_at = now
        acq.place = acq.place or acq.arrival
        if not queue:
            for then in epoch - 1, epoch:
                left = self.left.pop((then, hash_of(acq.endpoint)), 0)
                if left:
                    acq.place = min(left, acq.place)
                    break
        elif acq.arrival < queue[0].arrival:
            # It has come back to the head: the place goes with that.
            acq.place = min(acq.place, queue[0].place)
            queue[0].place = queue[0].arrival
        self.note_wanting(acq.endpoint)

    def note_wanting(self, endpoint: int) -> None:
        """An endpoint has other waiters, or another number of connections. It waits for a slot since its first waiter
        came. If several wait and it has its share, it waits since it began to want a slot, or was served."""
        queue = self.queue(endpoint)
        if not self.growth.wants_slot(endpoint):
            self.wants.pop(endpoint, None)
            self.unserved.pop(endpoint, None)
            return
        head = queue[0].place, queue[0].arrival
        known = self.wants.get(endpoint)
        self.wants[endpoint] = head
        if known is None:
            was_full = len(queue) > 1 and self.of(endpoint)
            self.unserved[endpoint] = (self.arrivals + 0.5 if was_full else queue[0].place), queue[0].arrival
        elif known != head and (len(queue) == 1 or not self.has_share(endpoint)):
            self.unserved[endpoint] = head

    def note_served(self, endpoint: int) -> None:
        if endpoint in self.unserved and self.has_share(endpoint):
            self.unserved[endpoint] = self.arrivals + 0.5, self.queue(endpoint)[0].arrival

    def has_share(self, endpoint: int) -> bool:
        return (len(self.of(endpoint)) + 1) * len(self.wants) > self.total_max_size

    def first_overdue(self, now: float) -> int | None:
        """Return the endpoint that has waited for longest, if it is overdue."""
        first = min(self.unserved, key=lambda endpoint: self.unserved[endpoint], default=None)
        return first if first is not None and self.unserved[first][0] < self.overdue(now) + 1 else None

    def pass_place_time(self, now: float) -> int:
        self.place_epoch = max(self.place_epoch, int(now / (KEPT_PLACE_TIME / 2)))
        return self.place_epoch

    def pass_overtaking_time(self, now: float) -> None:
        epoch = int(now / OVERTAKING_EPOCH)
        if epoch > self.arrived_before[-1][0]:
            self.arrived_before.append((epoch, self.arrivals))

    def overdue(self, now: float) -> int:
        """The arrivals before the epoch before the previous one."""
        oldest = max(int(now / OVERTAKING_EPOCH), self.arrived_before[-1][0]) - 2
        return next((arrivals for epoch, arrivals in self.arrived_before if epoch >= oldest), self.arrivals)

    def dispatch(self, for_worker: bool) -> None:
        """Free slots go to waiters first, and then to minimums."""
        self.serve_slots(for_worker)
        self.growth.fill()

    def serve_slots(self, for_worker: bool) -> None:
        """Give slots to the waiters that want one: to those that are overdue, then first come, first served. At the
        total cap, close what was unused for longest: at most as many at a time as there are endpoints in need."""
        while (wanting := self.wanting_slots()) and not self.suspended:
            if len(self.conns) >= self.total_max_size:
                while self.needs_relief() and (conn := self.evict_unused(for_worker, 'evicted')):
                    self.count_as_relief(conn)
                return
            overdue = self.first_overdue(self.latest)
            acq = wanting[0] if overdue is None else self.queue(overdue)[0]
            if self.growth.pool_creates(acq.endpoint):
                self.growth.reserve(acq.endpoint)
                self.note_wanting(acq.endpoint)
                self.note_served(acq.endpoint)
            else:
                self.serve_ticket(acq)

    def serve_ticket(self, acq: Acq) -> None:
        self.leave_queue(acq)
        self.take_ticket(acq)
        self.note_wanting(acq.endpoint)
        self.note_served(acq.endpoint)
        self.notified.append(acq)

    def slot_freed(self, gone: Conn, for_worker: bool) -> None:
        self.growth.note_short(gone.endpoint, self.latest)
        self.growth.fail_where_nothing_comes(gone.endpoint)
        self.note_wanting(gone.endpoint)
        self.dispatch(for_worker)
        told = [(watcher, conn) for watcher, conn in self.watchers if conn is gone]
        self.told += [watcher for watcher, _ in told]
        self.watchers = [item for item in self.watchers if item not in told]
        self.tell_if_empty()
        self.use_ended()

    def tell_if_empty(self) -> None:
        if not self.conns:
            self.told += [watcher for watcher, conn in self.watchers if conn is None]
            self.watchers = [(watcher, conn) for watcher, conn in self.watchers if conn is not None]

    def use_ended(self) -> None:
        told = [(watcher, endpoint) for watcher, endpoint in self.use_watchers if not self.used(endpoint)]
        self.told += [watcher for watcher, _ in told]
        self.use_watchers = [item for item in self.use_watchers if item not in told]

    def arrive(self, acq: Acq) -> None:
        if not acq.arrival:
            self.arrivals += 1
            acq.arrival = self.arrivals

    # -- what is asked ------------------------------------------------------------------------------------------------

    @asked
    def try_acquire(self, acq: Acq, now: float) -> bool:
        """Take an idle connection. One that must be closed first does not count: ask for a connection then."""
        ready = self.next_idle(acq.endpoint)
        if self.closed or self.suspended or not self.opened or not ready or ready[0].expires_at <= now:
            return False
        self.count_asked(acq)
        acq.was_idle = True
        self.take_conn(acq, ready[0], now)
        self.arrive(acq)
        return True

    @asked
    def take_ready(self, acq: Acq, now: float, interval: float) -> bool:
        """Take the idle connection that would be served first of those that need no check and need not be closed."""
        if self.closed or self.suspended or not self.opened or self.queue(acq.endpoint):
            return False
        for conn in self.next_idle(acq.endpoint):
            unsure = conn.suspect or conn.check_pending or now - conn.used_at >= interval
            if conn.expires_at > now and not (interval > 0 and unsure):
                self.count_asked(acq)
                acq.was_idle = True
                self.take_conn(acq, conn, now)
                self.arrive(acq)
                return True
        return False

    @asked
    def detach(self, acq: Acq, now: float) -> None:
        """Its user keeps it: its slot is free, and nobody closes it."""
        conn = acq.conn
        assert conn is not None
        acq.conn = None
        acq.state = 'nothing'
        self.end_use(conn, now)
        self.pass_time(now)
        conn.state = 'gone'
        conn.holder = None
        self.conns.remove(conn)
        self.counters['detached'] += 1
        self.slot_freed(conn, for_worker=True)

    @asked
    def request(self, acq: Acq, now: float) -> None:  # noqa: C901
        dead_conn = acq.dead_conn
        begins = dead_conn is None and not acq.has_waited and not acq.left_check
        self.count_asked(acq)
        self.doom_dead(acq)
        relief_ended = self.pass_time(now)
        if self.closed or not self.opened:
            acq.state = 'refused'
            if dead_conn is not None:
                self.use_ended()
            return
        self.pass_overtaking_time(now)
        self.arrive(acq)
        queue = self.queue(acq.endpoint)
        doomed = [] if dead_conn is None else [dead_conn]
        pause_ended = self.growth.end_pause_if_over(acq.endpoint, now)
        if self.suspended:
            for conn in self.expired_first(acq.endpoint, now):
                self.doom(conn, self.lifetime_reason(conn), for_worker=True)
                doomed.append(conn)
            if self.failing and begins:
                acq.state = 'refused'
        elif not queue or acq.arrival < queue[0].arrival:
            for conn in self.next_idle(acq.endpoint):
                if conn.expires_at > now:
                    acq.was_idle = True
                    self.take_conn(acq, conn, now)
                    break
                self.doom(conn, self.lifetime_reason(conn), for_worker=True)
                doomed.append(conn)
            else:
                if self.growth.may_connect(acq.endpoint) and len(self.conns) < self.total_max_size:
                    if not self.growth.pool_creates(acq.endpoint):
                        self.take_ticket(acq)
                        self.note_wanting(acq.endpoint)
                elif self.growth.fails_at_once(acq.endpoint):
                    acq.state = 'down'
                    acq.error = self.growth.knowns[acq.endpoint].error
        if acq.state in {'refused', 'down'}:
            pass
        elif acq.conn is None and not acq.was_served and 0 < self.max_waiting <= len(queue):
            acq.state = 'turned away'
            self.counters['too_many'] += 1
        elif acq.conn is None:
            acq.state = 'waits'
            if not acq.has_waited:
                acq.has_waited = True
                self.counters['waits'] += 1
            acq.waits_from = now
            self.join_queue(acq, now)
            self.growth.shorten_pause(acq.endpoint)
        for conn in doomed:
            self.count_as_relief(conn)
        if pause_ended or (self.wanting_slots() and (acq.state == 'waits' or relief_ended)):
            self.dispatch(for_worker=True)
        if dead_conn is not None:
            self.use_ended()

    def expired_first(self, endpoint: int, now: float) -> list[Conn]:
        """Those that would be served next and are too old."""
        return list(itertools.takewhile(lambda conn: conn.expires_at <= now, self.next_idle(endpoint)))

    def enter(self, conn: Conn, number: int, now: float) -> None:
        """A connect has succeeded."""
        conn.number = number
        conn.used_at = now
        conn.expires_at = now + self.max_lifetime * (1 - self.lifetime_jitter * self.growth.random())
        conn.checked_at = now
        conn.keepalive = self.keepalive * (1 - KEEPALIVE_JITTER * self.growth.random())
        self.counters['created'] += 1
        self.count_create(conn, now)

    @asked
    def created(self, acq: Acq, number: int, now: float) -> bool:
        conn = acq.conn
        assert conn is not None
        self.enter(conn, number, now)
        if self.closed:
            acq.state = 'nothing'
            acq.conn = None
            self.doom(conn, 'pool_closed', for_worker=True)
            return False
        self.take_conn(acq, conn, now)
        self.growth.connected(acq.endpoint, now)
        return True

    @asked
    def create_failed(self, acq: Acq, now: float) -> None:
        conn = acq.conn
        assert conn is not None
        self.pass_time(now)
        self.conns.remove(conn)
        acq.conn = None
        acq.state = 'nothing'
        self.counters['create_errors'] += 1
        self.count_create(conn, now)
        self.growth.give_up_attempt(conn.endpoint, conn, now)
        self.slot_freed(conn, for_worker=True)

    @asked
    def reject_dead(self, acq: Acq) -> None:
        conn = acq.conn
        assert conn is not None
        acq.conn = None
        acq.state = 'nothing'
        if conn.closed_over:
            conn.closed_over = False
            acq.lost = True
            return
        self.growth.note_used(conn.endpoint, conn.used_at)
        conn.state = 'closing'
        conn.reason = 'dead'
        acq.dead_conn = conn
        self.suspect_others(conn)
        self.counters['dead'] += 1
        self.counters['checks_failed'] += 1
        self.counters['acquires'] -= 1

    def suspect_others(self, conn: Conn) -> None:
        """A connection is dead: the others are suspect. So are those that are being checked, whatever the result."""
        for other in self.of(conn.endpoint):
            other.suspect = True
            if other.holder is not None:
                other.holder.outdated = True

    def begin_check(self, acq: Acq) -> None:
        assert acq.conn is not None
        acq.outdated = False
        acq.conn.check_pending = True
        self.counters['checks'] += 1

    def end_check(self, acq: Acq) -> None:
        assert acq.conn is not None
        acq.conn.suspect = acq.outdated
        acq.conn.check_pending = False

    def needs_check(self, acq: Acq, now: float, interval: float) -> bool:
        assert acq.conn is not None
        return acq.conn.suspect or acq.conn.check_pending or now - acq.conn.used_at >= interval

    @asked
    def discard(
        self, acq: Acq, suspicious: bool, now: float, reason: str = 'broken', for_caller: bool = False, by: str = 'pool'
    ) -> None:
        """Its holder reports it as unfit, or its user wants it closed. The caller closes it, or it is doomed."""
        conn = acq.conn
        assert conn is not None
        acq.conn = None
        acq.state = 'nothing'
        if suspicious:
            self.suspect_others(conn)
        relief_ended = self.pass_time(now)
        conn.state = 'closing'
        conn.reason = reason
        conn.holder = None
        self.count_as_relief(conn)
        self.counters['broken'] += by != 'user'
        self.end_use(conn, now)
        if for_caller:
            self.doom(conn, reason, for_worker=False)
        if relief_ended:
            self.dispatch(for_worker=False)
        self.use_ended()

    @asked
    def begin_release(self, acq: Acq) -> bool:
        conn = acq.conn
        assert conn is not None
        if conn.closed_over:
            conn.closed_over = False
            acq.conn = None
            acq.state = 'nothing'
            return False
        conn.state = 'releasing'
        return True

    @asked
    def release(self, acq: Acq, now: float) -> None:
        conn = acq.conn
        assert conn is not None
        acq.conn = None
        acq.state = 'nothing'
        if conn.closed_over:
            conn.closed_over = False
            return
        self.give_back(conn, now, for_worker=False)

    def give_back(self, conn: Conn, now: float, for_worker: bool) -> None:
        if conn.state not in {'acquired', 'releasing', 'checking'}:
            raise NotAcquired
        endpoint = conn.endpoint
        conn.holder = None
        if conn.state != 'checking':
            self.end_use(conn, now)
        relief_ended = self.pass_time(now)
        has_become_idle = self.settle(conn, now, for_worker)
        self.growth.note_used(endpoint, conn.used_at)
        if self.wanting_slots() and (relief_ended or has_become_idle):
            self.dispatch(for_worker)
        self.use_ended()

    def settle(
        self, conn: Conn, now: float, for_worker: bool, is_new: bool = False, used_at: float | None = None
    ) -> bool:
        """Decide what becomes of a connection that was returned, checked or created, and do it.

        :param is_new: it was created for those who wait at its endpoint, whose turn it is
        :param used_at: when it counts as used last, if not now
        :return: whether it is idle now
        """
        endpoint = conn.endpoint
        queue = self.queue(endpoint)
        wanting = self.wanting_slots()
        beyond = (
            len(self.of(endpoint)) - self.closing(endpoint) > self.max_size
            or len(self.conns) - self.closing() > self.total_max_size
        )
        over = conn.expires_at <= now and (not self.collects or self.is_used_up(conn) or queue or wanting)
        if used_at is not None:
            conn.used_at = used_at
            self.growth.note_used(endpoint, used_at)
        if self.closed or beyond:
            self.doom(conn, 'pool_closed' if self.closed else 'shrunk', for_worker)
        elif conn.drained:
            self.doom(conn, 'drained', for_worker)
            self.count_as_relief(conn)
        elif over:
            self.doom(conn, self.lifetime_reason(conn), for_worker)
            self.count_as_relief(conn)
        elif (
            queue
            and not self.suspended
            and (
                is_new or not (self.needs_relief(besides=endpoint) and self.waited_too_long(wanting[0], queue[0], now))
            )
        ):
            acq = queue[0]
            self.leave_queue(acq)
            conn.used_at = now
            acq.was_idle = False
            self.take_conn(acq, conn, now)
            self.note_wanting(endpoint)
            self.note_served(endpoint)
            self.notified.append(acq)
        elif not self.suspended and (queue or self.needs_relief()):
            self.doom(conn, 'evicted', for_worker)
            self.count_as_relief(conn)
        elif not self.keeps_idle:
            self.doom(conn, 'idle', for_worker)
        else:
            idle_core = len(self.idle(endpoint, core=True))
            if conn.state == 'checking':
                # Back to its old place: nothing but a release changes the order.
                conn.core = conn.was_core and idle_core < self.core_count(endpoint)
                conn.state = 'idle'
            else:
                conn.state = 'idle'
                conn.used_at = now if used_at is None else used_at
                self.releases += 1
                conn.released = self.releases
                conn.core = self.counted_out(endpoint) < self.core_count(endpoint) - idle_core
            if self.deadline(conn) < self.sleeps_until:
                self.sleeps_until = self.deadline(conn)
                self.wakes += 1
            return True
        return False

    def waited_too_long(self, elder: Acq, head: Acq, now: float) -> bool:
        """Whether somebody at another endpoint gets the slot of a connection that the first in its own queue would be
        handed: an endpoint that is overdue; one that came earlier and has no connection at all, or whose first waiter
        has waited for as long, and the first in the queue has not."""
        overdue = self.overdue(now)
        return self.first_overdue(now) not in {None, head.endpoint} or (
            elder.place < head.place and (not self.of(elder.endpoint) or elder.place <= overdue < head.place)
        )

    def core_count(self, endpoint: int) -> int:
        """How many idle connections of an endpoint are core."""
        known = self.growth.known(endpoint)
        return max(self.min_idle, self.growth.min_size, 0 if known is None else known.pinned)

    def counted_out(self, endpoint: int) -> int:
        """How many connections in use count where it is decided which ones are core."""
        return len(self.out(endpoint)) if self.keep == 'size' else 0

    @asked
    def cancel(self, acq: Acq, now: float) -> bool:
        waited = acq.state == 'waits'
        conn, dead_conn = acq.conn, acq.dead_conn
        acq.conn = None
        if waited:
            self.stop_waiting(acq, now)
            self.counters['cancelled'] += 1
        self.count_wait(acq, now)
        if dead_conn is not None:
            relief_ended = self.pass_time(now)
            self.doom_dead(acq)
            self.count_as_relief(dead_conn)
            if relief_ended:
                self.dispatch(for_worker=True)
            self.use_ended()
        self.growth.call_workers()
        if conn is not None and conn.closed_over:
            conn.closed_over = False
        elif conn is not None and conn.state == 'creating':
            acq.conn = conn
            self.create_failed(acq, now)
        elif conn is not None and conn.state == 'acquired':
            conn.check_pending = True
            self.give_back(conn, now, for_worker=True)
        acq.state = 'nothing'
        return waited

    @asked
    def give_up(self, acq: Acq, now: float) -> bool:
        self.count_wait(acq, now)
        if acq.state != 'waits':
            return False
        self.stop_waiting(acq, now)
        acq.state = 'nothing'
        self.counters['timeouts'] += 1
        return True

    def take_doomed(self, conn: Conn, for_worker: bool) -> None:
        """The next one to be closed was closed."""
        doomed = self.doomed_of(for_worker)
        for order in doomed[0]:
            if order[0] is conn:
                order.pop(0)
        doomed[0] = [order for order in doomed[0] if order]
        if not doomed[0]:
            doomed.pop(0)
        if for_worker:
            conn.job = 'close'

    @asked
    def disposed(self, conn: Conn, now: float, by_worker: bool) -> None:
        self.pass_time(now)
        conn.state = 'gone'
        self.conns.remove(conn)
        self.counters['disposed'] += 1
        self.counters[f'closed_{conn.reason}'] += 1
        self.growth.end_refusal(conn.endpoint, now)
        self.slot_freed(conn, by_worker)

    @asked
    def expire_relief(self, now: float) -> None:
        if self.pass_time(now):
            self.dispatch(for_worker=True)

    @asked
    def doom_due(self, now: float, limit: int, for_worker: bool) -> int:
        relief_ended = self.pass_time(now)
        most = limit if limit > 0 else int(math.log2(len(self.conns) + 1)) + 1
        count = 0
        while count < most and (conn := self.evict_due(now, for_worker)):
            self.count_as_relief(conn)
            count += 1
        if relief_ended:
            self.dispatch(for_worker)
        return count

    @asked
    def resize(
        self,
        now: float,
        min_idle: int,
        max_size: int,
        total_max_size: int,
        max_waiting: int = 0,
        max_workers: int = 0,
        min_size: int = 0,
    ) -> None:
        self.shrunk |= max_size < self.max_size or total_max_size < self.total_max_size
        self.min_idle, self.max_size, self.total_max_size = min_idle, max_size, total_max_size
        self.max_waiting = max_waiting
        self.max_workers = max_workers
        if min_size:
            for endpoint in self.endpoints():
                self.growth.remember(endpoint, now)
            self.growth.of_all = True
        self.growth.min_size = min_size
        orders = []
        for endpoint in sorted(self.endpoints()):
            # The extra one that was unused for longest; then the core ones, which are kept longer.
            idle = self.idle(endpoint, core=False) + self.idle(endpoint, core=True)
            orders.append(idle[: max(len(self.of(endpoint)) - self.closing(endpoint) - max_size, 0)])
        self.doom_in_any_order(orders, 'shrunk')
        self.sort_idle(self.endpoints())
        self.growth.note_filled()
        for endpoint in self.endpoints():
            self.growth.note_short(endpoint, now)
            self.note_wanting(endpoint)
        self.pass_time(now)
        while len(self.conns) - self.closing() > total_max_size and self.evict_unused(False, 'shrunk'):
            pass
        self.dispatch(for_worker=False)

    def sort_idle(self, endpoints: set[int]) -> None:
        """Which idle connections are core with a new min_idle: too many become extra, the oldest first; too few are
        joined by extra ones, the youngest first. The collector is told once of all that are due earlier now."""
        earlier = self.sleeps_until
        for endpoint in endpoints:
            while len(core := self.idle(endpoint, core=True)) > self.core_count(endpoint):
                core[0].core = False
                earlier = min(earlier, self.deadline(core[0]))
            while (extra := self.idle(endpoint, core=False)) and (
                len(self.idle(endpoint, core=True)) + self.counted_out(endpoint) < self.core_count(endpoint)
            ):
                extra[-1].core = True
        if earlier < self.sleeps_until:
            self.sleeps_until = earlier
            self.wakes += 1

    @asked
    def suspend(self, fail: bool, now: float) -> bool:
        if self.closed:
            return False
        self.suspended, self.failing = True, fail
        self.give_up_checks(now)
        return True

    @asked
    def resume(self, now: float) -> bool:
        """Those who wait get what is idle, each endpoint's in the order of their arrival, and then free slots."""
        if not self.suspended:
            return False
        self.suspended = self.failing = False
        self.pass_time(now)
        orders: list[list[Conn]] = []
        served: set[int] = set()
        for endpoint in sorted(self.endpoints()):
            orders.append([])
            while True:
                for conn in self.expired_first(endpoint, now):
                    conn.state = 'closing'
                    conn.reason = self.lifetime_reason(conn)
                    orders[-1].append(conn)
                ready = self.next_idle(endpoint)
                if not ready or not self.queue(endpoint):
                    break
                acq = self.queue(endpoint)[0]
                self.leave_queue(acq)
                acq.was_idle = True
                self.take_conn(acq, ready[0], now)
                self.notified.append(acq)
                served.add(endpoint)
            self.note_wanting(endpoint)
            for conn in orders[-1]:
                self.count_as_relief(conn)
        for endpoint in served:
            self.note_served(endpoint)
        self.doom_in_any_order(orders, None, for_worker=True)
        self.dispatch(for_worker=True)
        return True

    def relief_ends_at(self) -> float:
        """When a connection that is still being closed counts as relief no more."""
        counting = [
            conn.relief_since + 2
            for conn in self.of(None, 'closing')
            if conn.relief_since is not None and conn.relief_since >= self.epoch - 1
        ]
        return RELIEF_TIME * min(counting, default=math.inf)

    @asked
    def drain(self, endpoints: list[int], now: float, idle_only: bool) -> None:
        relief_ended = self.pass_time(now) if endpoints else False
        orders = []
        for endpoint in endpoints:
            waits = [conn for conn in self.to_check if conn.endpoint == endpoint]
            self.to_check = [conn for conn in self.to_check if conn not in waits]
            orders.append(waits + self.idle(endpoint, core=True) + self.idle(endpoint, core=False))
            if not idle_only:
                for conn in self.of(endpoint, 'creating', 'acquired', 'releasing', 'checking'):
                    conn.drained = conn.drained or not conn.reserved
        if len(orders) == 1:
            for conn in orders[0]:
                self.doom(conn, 'drained', for_worker=True)
                self.count_as_relief(conn)
        else:
            self.doom_in_any_order(orders, 'drained', for_worker=True)
        for endpoint in endpoints:
            self.growth.note_short(endpoint, now)
        if relief_ended:
            self.dispatch(for_worker=True)

    # -- checks by the pool -------------------------------------------------------------------------------------------

    @asked
    def leave_check_to_pool(self, acq: Acq, now: float) -> bool:
        conn = acq.conn
        assert conn is not None
        if self.closed or conn.closed_over:
            return False
        others_out = self.counted_out(conn.endpoint) - (self.keep == 'size')
        conn.was_core = others_out < self.core_count(conn.endpoint) - len(self.idle(conn.endpoint, core=True))
        conn.state = 'checking'
        conn.check_pending = True
        if not acq.was_idle:
            self.releases += 1
            conn.released = self.releases
        conn.holder = None
        self.growth.note_used(conn.endpoint, conn.used_at)
        self.counters['acquires'] -= 1
        acq.conn = None
        acq.state = 'nothing'
        acq.left_check = True
        if self.suspended:
            self.give_back(conn, now, for_worker=True)
        else:
            self.to_check.append(conn)
            self.use_ended()
        return True

    def take_out(self, conn: Conn) -> None:
        conn.was_core = conn.core
        conn.state = 'checking'

    def begin_pool_check(self, conn: Conn) -> None:
        conn.suspect = False
        conn.check_pending = True
        self.counters['checks'] += 1

    def take_check(self) -> Conn | None:
        if not self.to_check or self.room_for_jobs('check') <= 0:
            return None
        conn = self.to_check.pop(0)
        conn.job = 'check'
        self.begin_pool_check(conn)
        return conn

    @asked
    def end_pool_check(self, conn: Conn, alive: bool | None, now: float) -> bool:
        if conn.job == 'check':
            conn.job = ''
        if alive is False:
            self.counters['checks_failed'] += 1
        if conn.state != 'checking':
            return False
        if alive is False:
            relief_ended = self.pass_time(now)
            self.growth.note_used(conn.endpoint, conn.used_at)
            self.doom(conn, 'dead', for_worker=True)
            self.count_as_relief(conn)
            self.suspect_others(conn)
            self.counters['dead'] += 1
            if relief_ended:
                self.dispatch(for_worker=True)
            return True
        conn.check_pending = alive is None
        conn.checked_at = now
        self.give_back(conn, now, for_worker=True)
        return False

    @asked
    def give_up_checks(self, now: float) -> None:
        while self.to_check:
            conn = self.to_check.pop(0)
            conn.check_pending = True
            self.give_back(conn, now, for_worker=True)
            self.growth.call_workers()

    def due_for_check(self, conn: Conn) -> float:
        return max(conn.used_at, conn.checked_at) + conn.keepalive

    def may_be_checked(self, now: float) -> list[list[Conn]]:
        """Return, for each endpoint, the idle connections that are due. None where one is checked already, and none at
        all while the pool is suspended, closed or not open.

        One of each is to be checked; the others are put off.
        """
        found: list[list[Conn]] = []
        if self.suspended or self.closed or not self.opened:
            return found
        for endpoint in sorted(self.endpoints()):
            due = [
                conn
                for conn in self.of(endpoint, 'idle')
                if self.due_for_check(conn) <= now and conn.put_off_until <= now
            ]
            if self.of(endpoint, 'checking'):
                self.put_off(due, now)
            elif due:
                found.append(due)
        return found

    def put_off(self, conns: list[Conn], now: float) -> None:
        for conn in conns:
            conn.put_off_until = now + conn.keepalive * KEEPALIVE_PUT_OFF

    def begin_due_check(self, conn: Conn, due: list[Conn], now: float) -> None:
        self.put_off([other for other in due if other is not conn], now)
        self.take_out(conn)
        conn.checked_at = now
        self.to_check.append(conn)

    def drop_checks(self, for_worker: bool) -> None:
        for conn in self.to_check:
            self.doom(conn, 'pool_closed', for_worker)
        self.to_check.clear()

    @asked
    def open(self, now: float) -> bool:
        if self.opened or self.closed:
            return False
        self.opened = True
        self.pass_time(now)
        self.dispatch(for_worker=True)
        return True

    @asked
    def close(self, now: float, for_worker: bool = False) -> None:
        self.closed = True
        self.growth.close(now)
        self.drop_checks(for_worker)
        for queue in self.queues.values():
            for acq in queue:
                acq.state = 'refused'
                self.notified.append(acq)
        self.queues.clear()
        self.wants.clear()
        self.unserved.clear()
        self.doom_in_any_order(
            [self.idle(endpoint, core=True) + self.idle(endpoint, core=False) for endpoint in sorted(self.endpoints())],
            'pool_closed',
            for_worker,
        )

    @asked
    def doom_acquired(self) -> int:
        self.drop_checks(for_worker=False)
        out = self.out(None)
        for conn in out:
            self.growth.note_used(conn.endpoint, conn.used_at)
        self.doom_in_any_order([[conn] for conn in [*out, *self.of(None, 'checking')]], 'pool_closed')
        for conn in self.conns:
            if conn.job == 'check':
                conn.job = ''
        for conn in out:
            conn.closed_over = True
            if conn.holder is not None and conn.holder.state == 'served':
                conn.holder.state = 'refused'
        self.use_ended()
        return len(out)
