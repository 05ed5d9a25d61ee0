# A naive pool: what the core has to answer, as tests/engine/model.py has it, compiled to keep up with the core.
#
# Everything is looked for by walking through all there is: no heap, no linked list, no count is kept. The rules are
# those of DESIGN.md, COMPAT.md and docs/architecture.md; a comment that begins with a name says where its rule stands.

cdef enum:              # Conn.state: the states of docs/architecture.md, "The core decides"
    CREATING
    IDLE
    ACQUIRED
    RELEASING
    CHECKING
    CLOSING
    GONE

cdef enum:              # sets of them
    IS_IDLE = 1 << IDLE
    IS_CHECKED_OUT = 1 << ACQUIRED | 1 << RELEASING
    IS_CLOSING = 1 << CLOSING
    IS_ANY = IS_IDLE | IS_CHECKED_OUT | IS_CLOSING | 1 << CREATING | 1 << CHECKING

cdef enum:              # Acq.state
    NOTHING             # it has not asked yet, or has to ask again
    WAITS
    TICKET
    SERVED
    REFUSED             # the pool is closed, maybe over what the acquire was served

cdef enum:
    ALL = -1            # in place of an endpoint
    MOST_ENDPOINTS = 6
    ENDPOINT_HASHES = 2     # the endpoints have so many hashes: what is kept by the hash of an endpoint is shared

# Seconds, and up to twice as many, for which a connection that is being closed counts as relief.
cdef double RELIEF_TIME = 1.0

# Seconds for which a waiter of another endpoint may be overtaken, and the place of one who gave up is kept; or half of
# that, which is the length of an epoch.
cdef double MAX_OVERTAKING_TIME = 10.0


cdef class Conn:
    """A connection, or a slot that somebody is connecting for. It is also what the core is given as connection."""

    cdef int endpoint
    cdef int state
    cdef int number             # in the order of the connects, from 1 on
    cdef int disposals          # how often its dispose has ended
    cdef double expires_at
    cdef double used_at
    cdef long long released     # the number of the release that made it idle
    cdef bint is_core
    cdef bint closed_over       # the pool was closed over it while it was out
    cdef bint suspect
    cdef bint check_pending
    cdef int uses
    cdef bint was_core          # before the pool checked it
    cdef long long relief_since     # the epoch in which it was doomed for those who wait; NO_RELIEF
    cdef long long batch        # of what was doomed in one step, in any order of its lines; 0: in its place
    cdef str reason             # why it is closed
    cdef int line               # what is in one line of a batch is in order
    cdef Acq holder
    cdef object entry           # the core's record of it

    def __repr__(self):
        return f'<connection {self.number} of e{self.endpoint}: {STATE_NAMES[self.state]}>'


cdef class Acq:
    """One acquire in progress. It is also what the core calls to notify its waiter."""

    cdef int endpoint
    cdef int state
    cdef long long arrival
    cdef double queued_at
    cdef long long place        # what counts between endpoints: its arrival, or that of one who gave up before it
    cdef Conn conn
    cdef Conn dead_entry
    cdef bint has_waited
    cdef bint was_idle          # what it was served
    cdef bint outdated          # another connection was found dead since its check began
    cdef bint checking          # between begin_check() and end_check()
    cdef list notified          # where it notes that it was notified
    cdef object waiter          # the core's token of it

    def __call__(self):
        self.notified.append(self)

    def __repr__(self):
        return f'<acquire {self.arrival} of e{self.endpoint}: {ACQ_NAMES[self.state]}>'


def place_of(Acq acq not None):
    return acq.place


cdef class Watcher:
    """Somebody who waits for a connection to be closed, or for the pool to be empty. The core calls it."""

    cdef int number
    cdef Conn conn
    cdef list told
    cdef object waiter

    def __call__(self):
        self.told.append(self)


cdef enum:
    NO_RELIEF = -2_000_000_000

REASONS = (
    '', 'idle', 'lifetime', 'max_uses', 'broken', 'dead', 'discarded', 'drained', 'shrunk', 'evicted', 'pool_closed',
)
STATE_NAMES = ('creating', 'idle', 'acquired', 'releasing', 'checking', 'closing', 'gone')
ACQ_NAMES = ('nothing', 'waits', 'ticket', 'served', 'refused')


cdef class Model:
    """The pool."""

    cdef int min_idle
    cdef int max_size
    cdef int total_max_size
    cdef double idle_timeout
    cdef double max_lifetime
    cdef int max_uses           # 0: no limit
    cdef bint collects
    cdef bint closed
    cdef bint shrunk            # a limit was lowered, so that there may be more than it allows for a while
    cdef list conns             # all that have a slot
    cdef list waiting           # in the order of arrival, over all endpoints
    # "The doomed": what is to be closed by whoever doomed it, or else by a release, and by a worker; each in its order.
    cdef list doomed
    cdef list doomed_for_worker
    cdef list to_check          # what waits for a worker to check it
    cdef list notified
    cdef list watchers
    cdef list told              # watchers
    cdef long long epoch        # the latest time that was told, in units of RELIEF_TIME
    cdef long long overtaking_epoch     # the latest time that was told, in units of half of MAX_OVERTAKING_TIME
    cdef dict overtakings       # epoch -> the last place that overtook in it
    cdef dict left              # epoch, hash of an endpoint -> the place that its last waiter left
    cdef double sleeps_until    # when the collector looks again by itself
    cdef long long wakes
    cdef long long arrivals
    cdef long long releases
    cdef long long batches
    cdef long long acquire_count
    cdef long long created_count
    cdef long long create_error_count
    cdef long long dead_count
    cdef long long check_count
    cdef long long failed_check_count
    cdef long long broken_count
    cdef long long disposed_count
    cdef dict closed_counts     # by reason
    cdef long long wait_count
    cdef long long timeout_count

    def __cinit__(self):
        self.conns = []
        self.waiting = []
        self.doomed = []
        self.doomed_for_worker = []
        self.to_check = []
        self.notified = []
        self.watchers = []
        self.told = []
        self.overtakings = {}
        self.closed_counts = dict.fromkeys(REASONS[1:], 0)
        self.left = {}
        self.sleeps_until = INFINITY

    # -- looking ------------------------------------------------------------------------------------------------------

    cdef int count(self, int endpoint, int states) except -1:
        cdef Conn conn
        cdef int found = 0
        for conn in self.conns:
            if (endpoint == ALL or conn.endpoint == endpoint) and states >> conn.state & 1:
                found += 1
        return found

    cdef int count_core_idle(self, int endpoint) except -1:
        cdef Conn conn
        cdef int found = 0
        for conn in self.conns:
            if conn.endpoint == endpoint and conn.state == IDLE and conn.is_core:
                found += 1
        return found

    cdef int count_endpoints(self) except -1:
        # An endpoint is known as long as it has connections or waiters.
        cdef Conn conn
        cdef Acq acq
        cdef unsigned int seen = 0
        cdef int endpoint
        cdef int found = 0
        for conn in self.conns:
            seen |= 1u << conn.endpoint
        for acq in self.waiting:
            seen |= 1u << acq.endpoint
        for endpoint in range(MOST_ENDPOINTS):
            found += seen >> endpoint & 1
        return found

    cdef Acq head(self, int endpoint):
        cdef Acq acq
        for acq in self.waiting:
            if acq.endpoint == endpoint:
                return acq
        return None

    cdef list wanting_slots(self):
        # "One dispatcher": the first of each endpoint's queue that may have one more connection, by place.
        cdef Acq acq
        cdef unsigned int seen = 0
        cdef list found = []
        for acq in self.waiting:
            if not seen >> acq.endpoint & 1:
                seen |= 1u << acq.endpoint
                if self.count(acq.endpoint, IS_ANY) < self.max_size:
                    found.append(acq)
        found.sort(key=place_of)    # stable: where two endpoints of one hash share a place, by arrival
        return found

    cdef Conn next_idle(self, int endpoint):
        # DESIGN.md 1, COMPAT.md: core connections first, the one idle for longest; then the extra one released last.
        cdef Conn conn
        cdef Conn best = None
        for conn in self.conns:
            if conn.endpoint == endpoint and conn.state == IDLE:
                if (
                    best is None
                    or (conn.is_core and not best.is_core)
                    or (conn.is_core and best.is_core and conn.released < best.released)
                    or (not conn.is_core and not best.is_core and conn.released > best.released)
                ):
                    best = conn
        return best

    cdef Conn first_surplus(self, int endpoint, bint core_first):
        # What is closed first where it is not by deadline: in each of the two kinds the one idle for longest.
        cdef Conn conn
        cdef Conn best = None
        for conn in self.conns:
            if conn.endpoint == endpoint and conn.state == IDLE:
                if (
                    best is None
                    or (conn.is_core != best.is_core and conn.is_core == core_first)
                    or (conn.is_core == best.is_core and conn.released < best.released)
                ):
                    best = conn
        return best

    cdef double deadline(self, Conn conn) except? -1:
        # "Deadlines": a core connection is due at the end of its lifetime, an extra one when it was not used for long.
        if conn.is_core or conn.expires_at < conn.used_at + self.idle_timeout:
            return conn.expires_at
        return conn.used_at + self.idle_timeout

    cdef Conn first_due(self):
        # "Deadlines": ties are broken by the order of release.
        cdef Conn conn
        cdef Conn first = None
        cdef double due, earliest = 0
        for conn in self.conns:
            if conn.state == IDLE:
                due = self.deadline(conn)
                if first is None or due < earliest or (due == earliest and conn.released < first.released):
                    first = conn
                    earliest = due
        return first

    cdef double next_due(self) except? -1:
        # When the collector is to come back. It sleeps until then, or until it is told of something due earlier.
        cdef Conn first = self.first_due()
        self.sleeps_until = INFINITY if first is None else self.deadline(first)
        return self.sleeps_until

    cdef bint may_be_closed_next(self, Conn conn) except -1:
        cdef Conn first
        cdef Conn other
        if not self.doomed:
            return False
        first = self.doomed[0]
        if conn is first:
            return True
        if first.batch == 0 or conn.batch != first.batch:
            return False
        for other in self.doomed:
            if other is conn:
                return True
            if other.batch == conn.batch and other.line == conn.line:
                return False
        return False

    # -- what a question may bring about ------------------------------------------------------------------------------

    cdef int doom(self, Conn conn, str reason, bint for_worker, long long batch=0, int line=0) except -1:
        conn.state = CLOSING
        conn.reason = reason
        conn.batch = batch
        conn.line = line
        if for_worker:
            self.doomed_for_worker.append(conn)
        else:
            self.doomed.append(conn)
        return 0

    cdef int doom_dead(self, Acq acq) except -1:
        # What it found dead is closed when it has asked again, or is cancelled, and not before.
        if acq.dead_entry is not None:
            self.doom(acq.dead_entry, 'dead', for_worker=True)
            acq.dead_entry = None
        return 0

    cdef Conn evict(self, double limit, bint for_worker, str reason=''):
        cdef Conn first = self.first_due()
        if first is None or self.deadline(first) > limit:
            return None
        self.doom(first, reason or (self.lifetime_reason(first) if first.expires_at <= limit else 'idle'), for_worker)
        return first

    cdef bint needs_relief(self) except -1:
        # "As many are doomed at a time as there are endpoints in need", and for RELIEF_TIME, up to twice that.
        cdef Conn conn
        cdef int relief = 0
        for conn in self.conns:
            if conn.state == CLOSING and conn.relief_since >= self.epoch - 1:
                relief += 1
        return relief < len(self.wanting_slots())

    cdef int count_as_relief(self, Conn conn) except -1:
        # Its slot is for those who want one, if not enough are being closed for them.
        if self.waiting and self.needs_relief():
            conn.relief_since = self.epoch
        return 0

    cdef bint pass_time(self, double now) except -1:
        # Whether some close does not count as relief any more.
        cdef Conn conn
        cdef long long before = self.epoch
        cdef bint ended = False
        self.epoch = max(before, <long long>(now / RELIEF_TIME))
        for conn in self.conns:
            if conn.state == CLOSING and before - 1 <= conn.relief_since < self.epoch - 1:
                ended = True
        return ended

    cdef int take_ticket(self, Acq acq) except -1:
        cdef Conn conn = Conn.__new__(Conn)
        conn.endpoint = acq.endpoint
        conn.relief_since = NO_RELIEF
        conn.holder = acq
        acq.was_idle = False
        acq.conn = conn
        acq.state = TICKET
        self.conns.append(conn)
        return 0

    cdef int take_conn(self, Acq acq, Conn conn) except -1:
        conn.state = ACQUIRED
        conn.holder = acq
        acq.conn = conn
        acq.state = SERVED
        self.acquire_count += 1
        conn.uses += 1
        if conn.uses == self.max_uses:
            conn.expires_at = -INFINITY
        return 0

    cdef bint is_used_up(self, Conn conn) noexcept:
        return conn.uses == self.max_uses > 0

    cdef str lifetime_reason(self, Conn conn):
        return 'max_uses' if self.is_used_up(conn) else 'lifetime'

    cdef int dispatch(self, bint for_worker) except -1:
        # "One dispatcher": a slot goes to whoever came first of all who may have one. Where the total cap is reached,
        # what is due first is closed, one for each endpoint in need.
        cdef list wanting
        cdef Acq acq
        cdef Conn conn
        while self.waiting:
            wanting = self.wanting_slots()
            if not wanting:
                return 0
            if len(self.conns) >= self.total_max_size:
                while self.needs_relief():
                    conn = self.evict(INFINITY, for_worker, 'evicted')
                    if conn is None:
                        return 0
                    self.count_as_relief(conn)
                return 0
            acq = wanting[0]
            self.waiting.remove(acq)
            self.take_ticket(acq)
            self.notified.append(acq)
        return 0

    cdef int slot_freed(self, Conn gone, bint for_worker) except -1:
        cdef Watcher watcher
        self.dispatch(for_worker)
        for watcher in self.watchers[:]:
            if watcher.conn is gone or (watcher.conn is None and not self.conns):
                self.watchers.remove(watcher)
                self.told.append(watcher)
        return 0

    cdef int arrive(self, Acq acq) except -1:
        if not acq.arrival:
            self.arrivals += 1
            acq.arrival = self.arrivals
        return 0

    cdef int join_queue(self, Acq acq, Acq head, double now) except -1:
        # "Between endpoints": who gave up left the place to the next who comes to wait, within MAX_OVERTAKING_TIME.
        cdef Py_ssize_t i = 0
        cdef long long left, epoch = self.pass_overtaking_time(now)
        while i < len(self.waiting) and (<Acq>self.waiting[i]).arrival < acq.arrival:
            i += 1
        self.waiting.insert(i, acq)
        acq.queued_at = now
        acq.place = acq.place or acq.arrival
        if head is None:
            left = self.left.pop((epoch - 1, acq.endpoint % ENDPOINT_HASHES), 0)
            if not left:
                left = self.left.pop((epoch, acq.endpoint % ENDPOINT_HASHES), 0)
            if left:
                acq.place = min(left, acq.place)
        elif acq.arrival < head.arrival:    # it has come back to the head: the place goes with that
            acq.place = min(head.place, acq.place)
            head.place = head.arrival
        return 0

    cdef int stop_waiting(self, Acq acq, double now) except -1:
        # It was not served: the next in its queue has its place then, or it is kept. Who did not wait leaves none.
        cdef Acq following
        cdef bint has_place = self.head(acq.endpoint) is acq and (now > acq.queued_at or acq.place != acq.arrival)
        cdef tuple left = (self.pass_overtaking_time(now), acq.endpoint % ENDPOINT_HASHES)
        self.waiting.remove(acq)
        following = self.head(acq.endpoint)
        if has_place and following is not None:
            following.place = min(following.place, acq.place)
        elif has_place:
            self.left[left] = min(acq.place, self.left.get(left, acq.place))
        return 0

    cdef long long pass_overtaking_time(self, double now) except -1:
        self.overtaking_epoch = max(self.overtaking_epoch, <long long>(now / (MAX_OVERTAKING_TIME / 2)))
        return self.overtaking_epoch

    # -- what is asked ------------------------------------------------------------------------------------------------

    cdef bint try_acquire(self, Acq acq, double now) except -1:
        # What is due is not ready: it has to be closed, and request() does that.
        cdef Conn ready = self.next_idle(acq.endpoint)
        if self.closed or ready is None or ready.expires_at <= now:
            return False
        acq.was_idle = True
        self.take_conn(acq, ready)
        self.arrive(acq)
        return True

    cdef int request(self, Acq acq, double now) except -1:
        cdef Acq head
        cdef Conn conn
        cdef Conn dead_entry = acq.dead_entry
        cdef list doomed = []
        cdef bint relief_ended
        self.doom_dead(acq)
        if self.closed:
            acq.state = REFUSED
            return 0
        self.arrive(acq)
        relief_ended = self.pass_time(now)
        head = self.head(acq.endpoint)
        if head is None or acq.arrival < head.arrival:
            conn = self.next_idle(acq.endpoint)
            while conn is not None and conn.expires_at <= now:
                self.doom(conn, self.lifetime_reason(conn), for_worker=True)
                doomed.append(conn)
                conn = self.next_idle(acq.endpoint)
            if conn is not None:
                acq.was_idle = True
                self.take_conn(acq, conn)
            elif self.count(acq.endpoint, IS_ANY) < self.max_size and len(self.conns) < self.total_max_size:
                self.take_ticket(acq)
        if acq.conn is None:
            acq.state = WAITS
            if not acq.has_waited:
                acq.has_waited = True
                self.wait_count += 1
            # DESIGN.md 2.5: first come, first served. One that was served a dead connection has its old place.
            self.join_queue(acq, head, now)
        if dead_entry is not None:
            self.count_as_relief(dead_entry)
        for conn in doomed:
            self.count_as_relief(conn)
        if acq.state == WAITS or relief_ended:
            self.dispatch(for_worker=True)
        return 0

    cdef bint created(self, Acq acq, int number, double now) except -1:
        cdef Conn conn = acq.conn
        conn.number = number
        conn.used_at = now
        conn.expires_at = now + self.max_lifetime
        self.created_count += 1
        if self.closed:
            acq.state = NOTHING
            acq.conn = None
            conn.holder = None
            self.doom(conn, 'pool_closed', for_worker=True)
            return False
        self.take_conn(acq, conn)
        return True

    cdef int create_failed(self, Acq acq, double now) except -1:
        cdef Conn conn = acq.conn
        self.pass_time(now)
        self.conns.remove(conn)
        conn.state = GONE
        conn.holder = None
        acq.conn = None
        acq.state = NOTHING
        self.create_error_count += 1
        self.slot_freed(conn, for_worker=True)
        return 0

    cdef int suspect_others(self, int endpoint) except -1:
        # "Suspects": the others of the endpoint, the ones that are out included, and those that are being checked,
        # whatever comes out.
        cdef Conn conn
        for conn in self.conns:
            if conn.endpoint == endpoint:
                conn.suspect = True
                if conn.holder is not None:
                    conn.holder.outdated = True
        return 0

    cdef int reject_dead(self, Acq acq) except -1:
        cdef Conn conn = acq.conn
        acq.conn = None
        acq.state = NOTHING
        conn.holder = None
        if conn.closed_over:
            conn.closed_over = False
            return 0
        conn.state = CLOSING
        conn.reason = 'dead'
        acq.dead_entry = conn
        self.suspect_others(conn.endpoint)
        self.dead_count += 1
        self.failed_check_count += 1
        self.acquire_count -= 1     # it was not served after all
        return 0

    cdef bint leave_check_to_pool(self, Acq acq) except -1:
        cdef Conn conn = acq.conn
        cdef int others_out = self.count(conn.endpoint, IS_CHECKED_OUT) - 1
        if self.closed or conn.closed_over:
            return False
        conn.was_core = others_out < self.min_idle - self.count_core_idle(conn.endpoint)
        conn.state = CHECKING
        conn.check_pending = True
        if not acq.was_idle:
            self.releases += 1
            conn.released = self.releases
        conn.holder = None
        self.to_check.append(conn)
        self.acquire_count -= 1
        acq.conn = None
        acq.state = NOTHING
        return True

    cdef int begin_pool_check(self, Conn conn) except -1:
        conn.suspect = False
        conn.check_pending = True
        self.check_count += 1
        return 0

    cdef bint end_pool_check(self, Conn conn, bint answered, bint alive, double now) except -1:
        # "Checks by the pool": alive or not known, it goes to a waiter, or back to its place.
        cdef bint relief_ended
        if answered and not alive:
            self.failed_check_count += 1
        if conn.state != CHECKING:
            return False
        if answered and not alive:
            relief_ended = self.pass_time(now)
            self.doom(conn, 'dead', for_worker=True)
            self.count_as_relief(conn)
            self.suspect_others(conn.endpoint)
            self.dead_count += 1
            if relief_ended:
                self.dispatch(for_worker=True)
            return True
        conn.check_pending = not answered
        self.give_back(conn, now, for_worker=True)
        return False

    cdef int give_up_checks(self, double now) except -1:
        cdef Conn conn
        while self.to_check:
            conn = <Conn>self.to_check.pop(0)
            conn.check_pending = True
            self.give_back(conn, now, for_worker=True)
        return 0

    cdef int drop_checks(self) except -1:
        cdef Conn conn
        for conn in self.to_check:
            self.doom(conn, 'pool_closed', for_worker=False)
        self.to_check.clear()
        return 0

    cdef bint needs_check(self, Acq acq, double now, double interval) except -1:
        cdef Conn conn = acq.conn
        return conn.suspect or conn.check_pending or now - conn.used_at >= interval

    cdef bint discard(self, Acq acq, bint queue, double now, str reason) except -1:
        # Its holder says that it is unfit: it is closed by the holder, or by whoever comes by.
        cdef Conn conn = acq.conn
        cdef bint out = not conn.closed_over
        cdef bint relief_ended
        acq.conn = None
        acq.state = NOTHING
        conn.holder = None
        conn.closed_over = False
        if out:
            relief_ended = self.pass_time(now)
            conn.state = CLOSING
            conn.reason = reason
            self.count_as_relief(conn)
            self.broken_count += 1
            if queue:
                self.doom(conn, reason, for_worker=False)
            if relief_ended:
                self.dispatch(for_worker=False)
        return out

    cdef bint begin_release(self, Acq acq) except -1:
        if acq.conn.closed_over:
            acq.conn.closed_over = False
            acq.conn.holder = None
            acq.conn = None
            acq.state = NOTHING
            return False
        acq.conn.state = RELEASING
        return True

    cdef int release(self, Acq acq, double now) except -1:
        cdef Conn conn = acq.conn
        acq.conn = None
        acq.state = NOTHING
        conn.holder = None
        if conn.closed_over:
            conn.closed_over = False
        else:
            self.give_back(conn, now, for_worker=False)
        return 0

    cdef int give_back(self, Conn conn, double now, bint for_worker) except -1:
        cdef int endpoint = conn.endpoint
        cdef bint relief_ended = self.pass_time(now)
        cdef Acq head = self.head(endpoint)
        cdef list wanting = self.wanting_slots()
        cdef bint relief_missing = bool(wanting) and self.needs_relief()
        conn.holder = None
        if (
            self.closed
            # What is being closed will be gone, and counts no more.
            or self.count(endpoint, IS_ANY) - self.count(endpoint, IS_CLOSING) > self.max_size
            or len(self.conns) - self.count(ALL, IS_CLOSING) > self.total_max_size
        ):
            # Its slot is one too many, and for nobody.
            self.doom(conn, 'pool_closed' if self.closed else 'shrunk', for_worker)
        elif conn.expires_at <= now and (not self.collects or self.is_used_up(conn) or head is not None or wanting):
            # COMPAT.md: with a collector, a release closes nothing that nobody waits for.
            self.doom(conn, self.lifetime_reason(conn), for_worker)
            self.count_as_relief(conn)
        elif (
            conn.expires_at > now
            and head is not None
            and not (relief_missing and self.waited_too_long(wanting[0], head, now))
        ):
            if wanting and (<Acq>wanting[0]).place < head.place:
                self.note_overtaking(head, now)
            self.waiting.remove(head)
            conn.used_at = now
            head.was_idle = False
            self.take_conn(head, conn)
            self.notified.append(head)
        elif conn.expires_at > now and (head is not None or relief_missing):
            self.doom(conn, 'evicted', for_worker)
            self.count_as_relief(conn)
        else:
            relief_ended = True
            self.keep(conn, now)
        if relief_ended:
            self.dispatch(for_worker)
        return 0

    cdef int keep(self, Conn conn, double now) except -1:
        # COMPAT.md: core as long as the idle core connections and those that are out do not make up min_idle.
        cdef int out = self.count(conn.endpoint, IS_CHECKED_OUT) - 1
        cdef int idle_core = self.count_core_idle(conn.endpoint)
        if conn.state == CHECKING:      # back to its place: only a release changes the order
            conn.is_core = conn.was_core and idle_core < self.min_idle
            conn.state = IDLE
        else:
            conn.is_core = out < self.min_idle - idle_core
            conn.state = IDLE
            conn.used_at = now
            self.releases += 1
            conn.released = self.releases
        if self.deadline(conn) < self.sleeps_until:
            self.wakes += 1
            self.sleeps_until = self.deadline(conn)
        return 0

    cdef int note_overtaking(self, Acq head, double now) except -1:
        cdef long long epoch = self.pass_overtaking_time(now)
        self.overtakings[epoch] = max(head.place, self.overtakings.get(epoch, 0))
        return 0

    cdef bint waited_too_long(self, Acq elder, Acq head, double now) except -1:
        # "Between endpoints": one that has no connection at all gets the slot if it came earlier; one that has some,
        # when it was overtaken in an epoch before the previous one.
        cdef long long then, place, epoch = self.pass_overtaking_time(now)
        if elder.place >= head.place:
            return False
        if self.count(elder.endpoint, IS_ANY) == 0:
            return True
        for then, place in self.overtakings.items():
            if then < epoch - 1 and elder.place < place:
                return True
        return False

    cdef bint cancel(self, Acq acq, double now) except -1:
        cdef bint waited = acq.state == WAITS
        cdef Conn conn = acq.conn
        cdef Conn dead_entry = acq.dead_entry
        cdef bint relief_ended
        if waited:
            self.stop_waiting(acq, now)
        if dead_entry is not None:
            relief_ended = self.pass_time(now)
            self.doom_dead(acq)
            self.count_as_relief(dead_entry)
            if relief_ended:
                self.dispatch(for_worker=True)
        if conn is None:
            pass
        elif conn.closed_over:
            conn.closed_over = False
            conn.holder = None
        elif conn.state == CREATING:
            self.create_failed(acq, now)
        else:
            conn.check_pending = True   # what was done with it did not come to its end
            self.give_back(conn, now, for_worker=True)
        acq.conn = None
        acq.state = NOTHING
        return waited

    cdef bint give_up(self, Acq acq, double now) except -1:
        if acq.state != WAITS:
            return False
        self.stop_waiting(acq, now)
        acq.state = NOTHING
        self.timeout_count += 1
        return True

    cdef int disposed(self, Conn conn, double now, bint by_worker) except -1:
        # DESIGN.md 2.1: the slot is free when the dispose has ended, not before.
        self.pass_time(now)
        conn.state = GONE
        self.conns.remove(conn)
        self.disposed_count += 1
        self.closed_counts[conn.reason] += 1
        self.slot_freed(conn, by_worker)
        return 0

    cdef int doom_due(self, double now, int limit, bint for_worker) except -1:
        cdef Conn conn
        cdef bint relief_ended = self.pass_time(now)
        cdef int most = limit
        cdef int size = <int>len(self.conns) + 1
        cdef int found = 0
        if limit <= 0:              # COMPAT.md: int(log2(size + 1)) + 1
            most = 1
            while size > 1:
                size //= 2
                most += 1
        while found < most:
            conn = self.evict(now, for_worker)
            if conn is None:
                break
            self.count_as_relief(conn)
            found += 1
        if relief_ended:
            self.dispatch(for_worker)
        return found

    cdef int resize(self, double now, int min_idle, int max_size, int total_max_size) except -1:
        cdef Conn conn
        cdef int endpoint
        self.shrunk = self.shrunk or max_size < self.max_size or total_max_size < self.total_max_size
        self.min_idle = min_idle
        self.max_size = max_size
        self.total_max_size = total_max_size
        self.batches += 1
        for endpoint in range(MOST_ENDPOINTS):
            while self.count(endpoint, IS_ANY) - self.count(endpoint, IS_CLOSING) > max_size:
                conn = self.first_surplus(endpoint, core_first=False)
                if conn is None:
                    break
                self.doom(conn, 'shrunk', False, self.batches, endpoint)
        self.pass_time(now)
        while (
            len(self.conns) - self.count(ALL, IS_CLOSING) > total_max_size
            and self.evict(INFINITY, False, 'shrunk') is not None
        ):
            pass
        self.dispatch(for_worker=False)
        return 0

    cdef int close(self) except -1:
        cdef Conn conn
        cdef Acq acq
        cdef int endpoint
        self.closed = True
        self.drop_checks()
        for acq in self.waiting:
            acq.state = REFUSED
            self.notified.append(acq)
        self.waiting.clear()
        self.batches += 1
        for endpoint in range(MOST_ENDPOINTS):
            while True:
                conn = self.first_surplus(endpoint, core_first=True)
                if conn is None:
                    break
                self.doom(conn, 'pool_closed', False, self.batches, endpoint)
        return 0

    cdef int doom_acquired(self) except -1:
        cdef Conn conn
        cdef int found = 0
        self.drop_checks()
        self.batches += 1
        for conn in self.conns:
            if IS_CHECKED_OUT >> conn.state & 1:
                self.doom(conn, 'pool_closed', False, self.batches, conn.number)
                conn.closed_over = True
                if conn.holder is not None and conn.holder.state == SERVED:
                    conn.holder.state = REFUSED
                found += 1
            elif conn.state == CHECKING:
                self.doom(conn, 'pool_closed', False, self.batches, conn.number)
        return found
