"""A pool in plain Python, one step at a time: what the core must answer, written from DESIGN.md and COMPAT.md.

It has only lists and dicts, and finds everything by walking through all of it. Connections are known by number,
acquires by the order of their arrival. Where the documents leave a choice, the comment says so.
"""

import math
from dataclasses import dataclass, field

# Seconds for which somebody is overtaken whose endpoint has connections of its own, and for which the place of one who
# gave up is kept, or half of that, which is the length of an epoch. DESIGN.md wants a bound; this one is the core's.
MAX_OVERTAKING_TIME = 10.0

# Seconds, and up to twice as many, after which a connection that is still being closed does not count as relief for
# waiters any more. Also the core's choice.
RELIEF_TIME = 1.0

# For which part of the interval a check is put off while another connection of the endpoint is checked.
KEEPALIVE_PUT_OFF = 0.05


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
    check_pending: bool = False
    uses: int = 0
    was_core: bool = False
    checked_at: float = 0.0
    put_off_until: float = -math.inf
    relief_since: int | None = None
    reason: str = ''  # why it is closed


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
    outdated: bool = False
    was_idle: bool = False  # what it was served


@dataclass
class Model:
    """The pool."""

    min_idle: int
    max_size: int
    total_max_size: int
    idle_timeout: float
    max_lifetime: float
    collects: bool
    max_uses: int = 0
    keepalive: float = 0.0  # of each connection, without chance

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
    told: list[object] = field(default_factory=list)
    epoch: int = 0  # the latest time that was told, in units of RELIEF_TIME
    overtaking_epoch: int = 0  # the latest time that was told, in units of half of MAX_OVERTAKING_TIME
    overtakings: list[tuple[int, int]] = field(default_factory=list)  # epochs, and the places that overtook in them
    left: dict[tuple[int, int], int] = field(
        default_factory=dict
    )  # epoch and hash of an endpoint: the place left there
    sleeps_until: float = math.inf  # when the collector looks again by itself
    wakes: int = 0
    closed: bool = False
    shrunk: bool = False
    arrivals: int = 0
    releases: int = 0
    counters: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                *('acquires', 'created', 'create_errors', 'dead', 'broken', 'disposed', 'waits', 'timeouts'),
                *('checks', 'checks_failed'),
                *(f'closed_{reason}' for reason in REASONS),
            ),
            0,
        )
    )

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
        return {conn.endpoint for conn in self.conns} | {acq.endpoint for acq in self.waiting()}

    def wanting_slots(self) -> list[Acq]:
        """The first of each endpoint's queue that may have one more connection, in the order of their places.

        Two endpoints of one hash may have the same place: then by arrival.
        """
        heads = [queue[0] for queue in self.queues.values() if queue]
        return sorted(
            (head for head in heads if len(self.of(head.endpoint)) < self.max_size),
            key=lambda head: (head.place, head.arrival),
        )

    def deadline(self, conn: Conn) -> float:
        return conn.expires_at if conn.core else min(conn.expires_at, conn.used_at + self.idle_timeout)

    def first_due(self) -> Conn | None:
        """Return the idle connection whose deadline comes first; of several, the one released first."""
        idle = self.of(None, 'idle')
        return min(idle, key=lambda conn: (self.deadline(conn), conn.released)) if idle else None

    def next_due(self) -> float | None:
        """Tell the collector when to wake up; it sleeps until then, or until something is due earlier."""
        first = self.first_due()
        self.sleeps_until = math.inf if first is None else self.deadline(first)
        return None if self.sleeps_until == math.inf else self.sleeps_until

    def stats(self) -> dict[str, int]:
        return {
            'size': len(self.conns),
            'idle': len(self.of(None, 'idle')),
            'acquired': len(self.out(None)),
            'checking': len(self.of(None, 'checking')),
            'waiting': len(self.waiting()),
            'endpoints': len(self.endpoints()),
            **self.counters,
        }

    def doomed_of(self, for_worker: bool) -> list[list[list[Conn]]]:
        return self.doomed_for_worker if for_worker else self.doomed

    def may_be_closed_next(self, for_worker: bool) -> list[Conn]:
        doomed = self.doomed_of(for_worker)
        return [order[0] for order in doomed[0]] if doomed else []

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

    def doom_in_any_order(self, orders: list[list[Conn]], reason: str) -> None:
        orders = [order for order in orders if order]
        for order in orders:
            for conn in order:
                conn.state = 'closing'
                conn.reason = reason
        if orders:
            self.doomed.append(orders)

    def evict(self, limit: float, for_worker: bool, reason: str = '') -> Conn | None:
        first = self.first_due()
        if first is None or self.deadline(first) > limit:
            return None
        self.doom(first, reason or (self.lifetime_reason(first) if first.expires_at <= limit else 'idle'), for_worker)
        return first

    def needs_relief(self) -> bool:
        """Whether fewer connections are being closed for waiters than there are endpoints in need."""
        relief = [
            conn
            for conn in self.of(None, 'closing')
            if conn.relief_since is not None and conn.relief_since >= self.epoch - 1
        ]
        return len(relief) < len(self.wanting_slots())

    def count_as_relief(self, conn: Conn) -> None:
        """Doom a connection. If too few are being closed for waiters that want a slot, its slot is for one of them."""
        if self.needs_relief():
            conn.relief_since = self.epoch

    def pass_time(self, now: float) -> bool:
        before = self.epoch
        self.epoch = max(before, int(now / RELIEF_TIME))
        return any(
            conn.relief_since is not None and before - 1 <= conn.relief_since < self.epoch - 1
            for conn in self.of(None, 'closing')
        )

    def take_ticket(self, acq: Acq) -> None:
        acq.conn = Conn(acq.endpoint, holder=acq)
        acq.was_idle = False
        acq.state = 'ticket'
        self.conns.append(acq.conn)

    def take_conn(self, acq: Acq, conn: Conn) -> None:
        conn.state = 'acquired'
        conn.holder = acq
        acq.conn = conn
        acq.state = 'served'
        self.counters['acquires'] += 1
        conn.uses += 1
        if conn.uses == self.max_uses:
            conn.expires_at = -math.inf

    def leave_queue(self, acq: Acq) -> None:
        queue = self.queues[acq.endpoint]
        queue.remove(acq)
        if not queue:
            del self.queues[acq.endpoint]

    def stop_waiting(self, acq: Acq, now: float) -> None:
        """Leave without having been served. The place goes to the next in the queue, or, if there is none, to the next
        who comes to wait there in time. Who did not wait leaves none of its own."""
        has_place = self.queues[acq.endpoint][0] is acq and (now > acq.queued_at or acq.place != acq.arrival)
        self.leave_queue(acq)
        queue = self.queue(acq.endpoint)
        if has_place and queue:
            queue[0].place = min(queue[0].place, acq.place)
        elif has_place:
            left = self.pass_overtaking_time(now), hash_of(acq.endpoint)
            self.left[left] = min(acq.place, self.left.get(left, acq.place))

    def join_queue(self, acq: Acq, now: float) -> None:
        queue = self.queue(acq.endpoint)
        epoch = self.pass_overtaking_time(now)
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

    def pass_overtaking_time(self, now: float) -> int:
        self.overtaking_epoch = max(self.overtaking_epoch, int(now / (MAX_OVERTAKING_TIME / 2)))
        return self.overtaking_epoch

    def dispatch(self, for_worker: bool) -> None:
        """Give slots to the waiters that want one, first come, first served. At the total cap, close what is due first:
        at most as many at a time as there are endpoints in need."""
        while wanting := self.wanting_slots():
            if len(self.conns) < self.total_max_size:
                acq = wanting[0]
                self.leave_queue(acq)
                self.take_ticket(acq)
                self.notified.append(acq)
                continue
            while self.needs_relief() and (conn := self.evict(math.inf, for_worker, 'evicted')):
                self.count_as_relief(conn)
            return

    def slot_freed(self, gone: Conn, for_worker: bool) -> None:
        self.dispatch(for_worker)
        told = [(watcher, conn) for watcher, conn in self.watchers if conn is gone or (conn is None and not self.conns)]
        self.told += [watcher for watcher, _ in told]
        self.watchers = [item for item in self.watchers if item not in told]

    def arrive(self, acq: Acq) -> None:
        if not acq.arrival:
            self.arrivals += 1
            acq.arrival = self.arrivals

    # -- what is asked ------------------------------------------------------------------------------------------------

    def try_acquire(self, acq: Acq, now: float) -> bool:
        """Take an idle connection. One that must be closed first does not count: ask for a connection then."""
        ready = self.idle(acq.endpoint, core=True)[:1] or self.idle(acq.endpoint, core=False)[-1:]
        if self.closed or not ready or ready[0].expires_at <= now:
            return False
        acq.was_idle = True
        self.take_conn(acq, ready[0])
        self.arrive(acq)
        return True

    def request(self, acq: Acq, now: float) -> None:
        dead_conn = acq.dead_conn
        self.doom_dead(acq)
        if self.closed:
            acq.state = 'refused'
            return
        self.arrive(acq)
        relief_ended = self.pass_time(now)
        queue = self.queue(acq.endpoint)
        doomed = [] if dead_conn is None else [dead_conn]
        if not queue or acq.arrival < queue[0].arrival:
            for conn in self.idle(acq.endpoint, core=True) + self.idle(acq.endpoint, core=False)[::-1]:
                if conn.expires_at > now:
                    acq.was_idle = True
                    self.take_conn(acq, conn)
                    break
                self.doom(conn, self.lifetime_reason(conn), for_worker=True)
                doomed.append(conn)
            else:
                if len(self.of(acq.endpoint)) < self.max_size and len(self.conns) < self.total_max_size:
                    self.take_ticket(acq)
        if acq.conn is None:
            acq.state = 'waits'
            if not acq.has_waited:
                acq.has_waited = True
                self.counters['waits'] += 1
            self.join_queue(acq, now)
        for conn in doomed:
            self.count_as_relief(conn)
        if acq.state == 'waits' or relief_ended:
            self.dispatch(for_worker=True)

    def created(self, acq: Acq, number: int, now: float) -> bool:
        conn = acq.conn
        assert conn is not None
        conn.number = number
        conn.used_at = now
        conn.expires_at = now + self.max_lifetime
        conn.checked_at = now
        self.counters['created'] += 1
        if self.closed:
            acq.state = 'nothing'
            acq.conn = None
            self.doom(conn, 'pool_closed', for_worker=True)
            return False
        self.take_conn(acq, conn)
        return True

    def create_failed(self, acq: Acq, now: float) -> None:
        conn = acq.conn
        assert conn is not None
        self.pass_time(now)
        self.conns.remove(conn)
        acq.conn = None
        acq.state = 'nothing'
        self.counters['create_errors'] += 1
        self.slot_freed(conn, for_worker=True)

    def reject_dead(self, acq: Acq) -> None:
        conn = acq.conn
        assert conn is not None
        acq.conn = None
        acq.state = 'nothing'
        if conn.closed_over:
            conn.closed_over = False
            return
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

    def discard(self, acq: Acq, suspicious: bool, now: float, reason: str = 'broken') -> None:
        """Its holder reports it as unfit."""
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
        self.counters['broken'] += 1
        if relief_ended:
            self.dispatch(for_worker=False)

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
        relief_ended = self.pass_time(now)
        queue = self.queue(endpoint)
        wanting = self.wanting_slots()
        beyond = (
            len(self.of(endpoint)) - self.closing(endpoint) > self.max_size
            or len(self.conns) - self.closing() > self.total_max_size
        )
        over = conn.expires_at <= now and (not self.collects or self.is_used_up(conn) or queue or wanting)
        if self.closed or beyond:
            self.doom(conn, 'pool_closed' if self.closed else 'shrunk', for_worker)
        elif over:
            self.doom(conn, self.lifetime_reason(conn), for_worker)
            self.count_as_relief(conn)
        elif queue and not (self.needs_relief() and self.waited_too_long(wanting[0], queue[0], now)):
            acq = queue[0]
            if wanting and wanting[0].place < acq.place:
                self.overtakings.append((self.pass_overtaking_time(now), acq.place))
            self.leave_queue(acq)
            conn.used_at = now
            acq.was_idle = False
            self.take_conn(acq, conn)
            self.notified.append(acq)
        elif queue or self.needs_relief():
            self.doom(conn, 'evicted', for_worker)
            self.count_as_relief(conn)
        else:
            relief_ended = True
            idle_core = len(self.idle(endpoint, core=True))
            if conn.state == 'checking':
                # Back to its old place: nothing but a release changes the order.
                conn.core = conn.was_core and idle_core < self.min_idle
                conn.state = 'idle'
            else:
                conn.state = 'idle'
                conn.used_at = now
                self.releases += 1
                conn.released = self.releases
                conn.core = not len(self.out(endpoint)) >= self.min_idle - idle_core
            if self.deadline(conn) < self.sleeps_until:
                self.sleeps_until = self.deadline(conn)
                self.wakes += 1
        if relief_ended:
            self.dispatch(for_worker)

    def waited_too_long(self, elder: Acq, head: Acq, now: float) -> bool:
        """Whether somebody at another endpoint gets the slot of a connection that the first in its own queue would be
        handed: at once if that endpoint has no connection at all, else if it was overtaken in an epoch before the
        previous one."""
        epoch = self.pass_overtaking_time(now)
        return elder.place < head.place and (
            not self.of(elder.endpoint)
            or any(elder.place < place and then < epoch - 1 for then, place in self.overtakings)
        )

    def cancel(self, acq: Acq, now: float) -> bool:
        waited = acq.state == 'waits'
        conn, dead_conn = acq.conn, acq.dead_conn
        acq.conn = None
        if waited:
            self.stop_waiting(acq, now)
        if dead_conn is not None:
            relief_ended = self.pass_time(now)
            self.doom_dead(acq)
            self.count_as_relief(dead_conn)
            if relief_ended:
                self.dispatch(for_worker=True)
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

    def give_up(self, acq: Acq, now: float) -> bool:
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

    def disposed(self, conn: Conn, now: float, by_worker: bool) -> None:
        self.pass_time(now)
        conn.state = 'gone'
        self.conns.remove(conn)
        self.counters['disposed'] += 1
        self.counters[f'closed_{conn.reason}'] += 1
        self.slot_freed(conn, by_worker)

    def doom_due(self, now: float, limit: int, for_worker: bool) -> int:
        relief_ended = self.pass_time(now)
        most = limit if limit > 0 else int(math.log2(len(self.conns) + 1)) + 1
        count = 0
        while count < most and (conn := self.evict(now, for_worker)):
            self.count_as_relief(conn)
            count += 1
        if relief_ended:
            self.dispatch(for_worker)
        return count

    def resize(self, now: float, min_idle: int, max_size: int, total_max_size: int) -> None:
        self.shrunk |= max_size < self.max_size or total_max_size < self.total_max_size
        self.min_idle, self.max_size, self.total_max_size = min_idle, max_size, total_max_size
        orders = []
        for endpoint in sorted(self.endpoints()):
            # The extra one that was unused for longest; then the core ones, which are kept longer.
            idle = self.idle(endpoint, core=False) + self.idle(endpoint, core=True)
            orders.append(idle[: max(len(self.of(endpoint)) - self.closing(endpoint) - max_size, 0)])
        self.doom_in_any_order(orders, 'shrunk')
        self.pass_time(now)
        while len(self.conns) - self.closing() > total_max_size and self.evict(math.inf, False, 'shrunk'):
            pass
        self.dispatch(for_worker=False)

    # -- checks by the pool -------------------------------------------------------------------------------------------

    def leave_check_to_pool(self, acq: Acq) -> bool:
        conn = acq.conn
        assert conn is not None
        if self.closed or conn.closed_over:
            return False
        conn.was_core = len(self.out(conn.endpoint)) - 1 < self.min_idle - len(self.idle(conn.endpoint, core=True))
        conn.state = 'checking'
        conn.check_pending = True
        if not acq.was_idle:
            self.releases += 1
            conn.released = self.releases
        conn.holder = None
        self.to_check.append(conn)
        self.counters['acquires'] -= 1
        acq.conn = None
        acq.state = 'nothing'
        return True

    def take_out(self, conn: Conn) -> None:
        conn.was_core = conn.core
        conn.state = 'checking'

    def begin_pool_check(self, conn: Conn) -> None:
        conn.suspect = False
        conn.check_pending = True
        self.counters['checks'] += 1

    def take_check(self) -> Conn | None:
        if not self.to_check:
            return None
        conn = self.to_check.pop(0)
        self.begin_pool_check(conn)
        return conn

    def end_pool_check(self, conn: Conn, alive: bool | None, now: float) -> bool:
        if alive is False:
            self.counters['checks_failed'] += 1
        if conn.state != 'checking':
            return False
        if alive is False:
            relief_ended = self.pass_time(now)
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

    def give_up_checks(self, now: float) -> None:
        while self.to_check:
            conn = self.to_check.pop(0)
            conn.check_pending = True
            self.give_back(conn, now, for_worker=True)

    def due_for_check(self, conn: Conn) -> float:
        return max(conn.used_at, conn.checked_at) + self.keepalive

    def may_be_checked(self, now: float) -> list[list[Conn]]:
        """Return, for each endpoint, the idle connections that are due. None where one is checked already.

        One of each is to be checked; the others are put off.
        """
        found = []
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
            conn.put_off_until = now + self.keepalive * KEEPALIVE_PUT_OFF

    def begin_due_check(self, conn: Conn, due: list[Conn], now: float) -> None:
        self.put_off([other for other in due if other is not conn], now)
        self.take_out(conn)
        conn.checked_at = now
        self.to_check.append(conn)

    def drop_checks(self) -> None:
        for conn in self.to_check:
            self.doom(conn, 'pool_closed', for_worker=False)
        self.to_check.clear()

    def close(self) -> None:
        self.closed = True
        self.drop_checks()
        for queue in self.queues.values():
            for acq in queue:
                acq.state = 'refused'
                self.notified.append(acq)
        self.queues.clear()
        self.doom_in_any_order(
            [self.idle(endpoint, core=True) + self.idle(endpoint, core=False) for endpoint in sorted(self.endpoints())],
            'pool_closed',
        )

    def doom_acquired(self) -> int:
        self.drop_checks()
        out = self.out(None)
        self.doom_in_any_order([[conn] for conn in [*out, *self.of(None, 'checking')]], 'pool_closed')
        for conn in out:
            conn.closed_over = True
            if conn.holder is not None and conn.holder.state == 'served':
                conn.holder.state = 'refused'
        return len(out)
