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

cdef enum:              # Conn.job: what a worker does with it
    NO_JOB
    CLOSE_JOB
    CREATE_JOB
    CHECK_JOB

cdef enum:              # Acq.state
    NOTHING             # it has not asked yet, or has to ask again
    WAITS
    TICKET
    SERVED
    REFUSED             # the pool is closed, maybe over what the acquire was served
    TURNED_AWAY         # too many wait already
    FAILED              # the pool could not connect for it
    DOWN                # "fail_fast": nothing can come

cdef enum:
    ALL = -1            # in place of an endpoint
    NO_ENDPOINT = -2
    MOST_ENDPOINTS = 6
    ENDPOINT_HASHES = 2     # the endpoints have so many hashes: what is kept by the hash of an endpoint is shared

# Seconds, and up to twice as many, for which a connection that is being closed counts as relief.
cdef double RELIEF_TIME = 1.0

# Seconds of an epoch. Who came before the epoch before the previous one is overdue.
cdef double OVERTAKING_EPOCH = 0.3

# Seconds for which the place of one who gave up is kept; or half of that.
cdef double KEPT_PLACE_TIME = 10.0


cdef class Conn:
    """A connection, or a slot that somebody is connecting for. It is also what the core is given as connection."""

    cdef int endpoint
    cdef int state
    cdef int number             # in the order of the connects, from 1 on
    cdef int disposals          # how often its dispose has ended
    cdef bint detached          # its user has kept it
    cdef double expires_at
    cdef double used_at
    cdef long long released     # the number of the release that made it idle
    cdef bint is_core
    cdef bint closed_over       # the pool was closed over it while it was out
    cdef bint suspect
    cdef bint check_pending
    cdef bint drained           # it existed, or was being created, when its endpoint was drained
    cdef int uses
    cdef bint was_core          # before the pool checked it
    cdef long long relief_since     # the epoch in which it was doomed for those who wait; NO_RELIEF
    cdef long long batch        # of what was doomed in one step, in any order; 0: in its place
    cdef double since           # when its connect began, or, in use, when it was taken
    cdef str reason             # why it is closed
    cdef int job                # what a worker does with it
    cdef bint own               # the pool itself creates it
    cdef bint reserved          # and no worker has come for it yet
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
    cdef bint was_served        # something, once
    cdef bint was_idle          # what it was served
    cdef bint left_check        # it has left a check to the pool
    cdef bint asked
    cdef bint lost              # its connection was closed in its hands
    cdef double waits_from      # while its wait is not counted
    cdef bint outdated          # another connection was found dead since its check began
    cdef bint checking          # between begin_check() and end_check()
    cdef Conn create            # what the pool creates for it
    cdef object error           # why no connection could be created for it
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
ACQ_NAMES = ('nothing', 'waits', 'ticket', 'served', 'refused', 'turned away', 'failed', 'down')


cdef class Model:
    """The pool."""

    cdef int min_idle
    cdef int max_size
    cdef int total_max_size
    cdef double idle_timeout
    cdef double max_lifetime
    cdef double lifetime_jitter
    cdef int max_uses           # 0: no limit
    cdef bint collects
    cdef int max_waiting
    cdef int max_workers
    cdef bint serves_oldest     # of the extra ones
    cdef bint counts_idle_only  # those that are out do not make up min_idle
    cdef bint keeps_idle        # False: what nobody waits for is closed
    cdef bint closed
    cdef bint suspended
    cdef bint failing           # while it is suspended, acquires that begin are refused
    cdef bint shrunk            # a limit was lowered, so that there may be more than it allows for a while
    cdef list conns             # all that have a slot
    cdef list waiting           # in the order of arrival, over all endpoints
    cdef list present           # endpoints, in the order of their first use
    # "The doomed": what is to be closed by whoever doomed it, or else by a release, and by a worker; each in its order.
    cdef list doomed
    cdef list doomed_for_worker
    cdef list to_check          # what waits for a worker to check it
    cdef list notified
    cdef list watchers
    cdef list told              # watchers
    cdef long long epoch        # the latest time that was told, in units of RELIEF_TIME
    cdef double latest          # the latest time that was told
    cdef list arrived_before    # epochs in which somebody has asked, and how many had arrived before that
    cdef dict wants             # endpoint that wants a slot -> the place and the arrival of its first waiter
    cdef dict unserved          # the same -> the place since which it waits, and an arrival, which breaks ties
    cdef long long place_epoch  # the latest time that was told, in units of half of KEPT_PLACE_TIME
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
    cdef long long broken_count
    cdef long long disposed_count
    cdef long long detached_count
    cdef dict closed_counts     # by reason
    cdef long long asked_count
    cdef long long cancelled_count
    cdef long long check_count
    cdef long long failed_check_count
    cdef unsigned long long wait_ns
    cdef unsigned long long create_ns
    cdef unsigned long long waits_timed
    cdef unsigned long long creates_timed
    cdef unsigned long long uses_timed
    cdef double use_time
    cdef long long wait_count
    cdef long long timeout_count
    cdef long long too_many_count
    cdef long long refused_count
    # -- growth: see _core_growth.pxi
    cdef int min_size
    cdef bint in_background
    cdef int max_connecting
    cdef double reconnect_timeout
    cdef bint fails_fast
    cdef bint grows             # all endpoints are remembered; else those that were pinned
    cdef double luck            # from 0 to 1
    cdef bint has_workers
    cdef bint opened
    cdef dict knowns            # endpoint -> Known
    cdef list short             # endpoints below their minimum, as that was noticed
    cdef list turns             # endpoints with reserved slots, in which they are served
    cdef list fill_watchers
    cdef double refill_at       # no minimum is filled before that; INFINITY: there is no pause
    cdef bint must_call

    def __cinit__(self):
        self.conns = []
        self.waiting = []
        self.present = []
        self.doomed = []
        self.doomed_for_worker = []
        self.to_check = []
        self.notified = []
        self.watchers = []
        self.told = []
        self.arrived_before = [(0, 0)]
        self.wants = {}
        self.unserved = {}
        self.closed_counts = dict.fromkeys(REASONS[1:], 0)
        self.left = {}
        self.sleeps_until = INFINITY
        self.has_workers = True
        self.opened = True
        self.knowns = {}
        self.short = []
        self.turns = []
        self.fill_watchers = []
        self.refill_at = INFINITY

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
        for endpoint in self.knowns:
            if is_remembered(self, endpoint):
                seen |= 1u << endpoint
        for endpoint in range(MOST_ENDPOINTS):
            found += seen >> endpoint & 1
        return found

    cdef int count_waiting(self, int endpoint) except -1:
        cdef Acq acq
        cdef int found = 0
        for acq in self.waiting:
            found += acq.endpoint == endpoint
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
                if self.wants_slot(acq.endpoint):
                    found.append(acq)
        found.sort(key=place_of)    # stable: where two endpoints of one hash share a place, by arrival
        return found

    cdef bint wants_slot(self, int endpoint) except -1:
        # Whether somebody waits who may have one more connection.
        if self.grows or self.knowns:
            return wants_slot(self, endpoint)
        return self.count(endpoint, IS_ANY) < self.max_size and self.head(endpoint) is not None

    cdef Conn next_idle(self, int endpoint):
        # DESIGN.md 1, COMPAT.md: core connections first, the one idle for longest; then the extra one released last,
        # or, with order='fifo', first.
        cdef Conn conn
        cdef Conn best = None
        for conn in self.conns:
            if conn.endpoint == endpoint and conn.state == IDLE:
                if (
                    best is None
                    or (conn.is_core and not best.is_core)
                    or (conn.is_core and best.is_core and conn.released < best.released)
                    or (
                        not conn.is_core
                        and not best.is_core
                        and (conn.released < best.released) == self.serves_oldest
                    )
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
        # With min_size a core one is kept as long as its endpoint lives.
        cdef double used_at = conn.used_at
        if conn.is_core:
            if self.min_size == 0 or is_busy(self, conn.endpoint):
                return conn.expires_at
            used_at = remember(self, conn.endpoint).used_at
        return min(conn.expires_at, used_at + self.idle_timeout)

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

    cdef Conn first_unused(self):
        cdef Conn conn
        cdef Conn first = None
        for conn in self.conns:
            if conn.state == IDLE and (
                first is None
                or conn.used_at < first.used_at
                or (conn.used_at == first.used_at and conn.released < first.released)
            ):
                first = conn
        return first

    cdef double next_due(self) except? -1:
        # When the collector is to come back. It sleeps until then, or until it is told of something due earlier.
        cdef Conn first = self.first_due()
        self.sleeps_until = INFINITY if first is None else self.deadline(first)
        return self.sleeps_until

    cdef bint may_be_closed_next(self, Conn conn) except -1:
        cdef Conn first
        if not self.doomed:
            return False
        first = self.doomed[0]
        return conn is first or conn.batch == first.batch != 0

    # -- what a question may bring about ------------------------------------------------------------------------------

    cdef int doom(self, Conn conn, str reason, bint for_worker, long long batch=0) except -1:
        conn.state = CLOSING
        conn.reason = reason
        conn.batch = batch
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

    cdef Conn evict_unused(self, bint for_worker, str reason):
        cdef Conn first = self.first_unused()
        if first is not None:
            self.doom(first, reason, for_worker)
        return first

    cdef Conn evict_due(self, double limit, bint for_worker):
        cdef Conn first = self.first_due()
        if first is None or self.deadline(first) > limit:
            return None
        self.doom(first, self.lifetime_reason(first) if first.expires_at <= limit else 'idle', for_worker)
        return first

    cdef bint needs_relief(self, int besides=NO_ENDPOINT) except -1:
        # "As many are doomed at a time as there are endpoints in need", and for RELIEF_TIME, up to twice that.
        cdef Acq acq
        cdef int needed = 0
        cdef Conn conn
        cdef int relief = 0
        for conn in self.conns:
            if conn.state == CLOSING and conn.relief_since >= self.epoch - 1:
                relief += 1
        for acq in self.wanting_slots():
            needed += acq.endpoint != besides
        return relief < needed

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
        self.latest = max(self.latest, now)
        self.epoch = max(before, <long long>(now / RELIEF_TIME))
        for conn in self.conns:
            if conn.state == CLOSING and before - 1 <= conn.relief_since < self.epoch - 1:
                ended = True
        return ended

    cdef Conn add_slot(self, int endpoint):
        cdef Conn conn = Conn.__new__(Conn)
        conn.endpoint = endpoint
        conn.since = INFINITY
        conn.relief_since = NO_RELIEF
        self.conns.append(conn)
        return conn

    cdef int take_ticket(self, Acq acq) except -1:
        cdef Conn conn = self.add_slot(acq.endpoint)
        conn.holder = acq
        acq.was_idle = False
        acq.conn = conn
        acq.was_served = True
        acq.state = TICKET
        begin_attempt(self, acq.endpoint, conn)
        return 0

    cdef int leave_queue(self, Acq acq) except -1:
        # What is created for it is for the next one then.
        cdef Conn ticket = acq.create
        self.waiting.remove(acq)
        if ticket is not None:
            acq.create = None
            cover(self, acq.endpoint, ticket)
        return 0

    cdef int fail(self, Acq acq, int state, object error) except -1:
        # Nothing can be created for one that waits.
        self.leave_queue(acq)
        acq.state = state
        acq.error = error
        self.notified.append(acq)
        self.note_wanting(acq.endpoint)
        return 0

    cdef int end_use(self, Conn conn, double now) except -1:
        self.use_time += now - conn.since
        self.uses_timed += 1
        note_used(self, conn.endpoint, now)
        return 0

    cdef int count_wait(self, Acq acq, double now) except -1:
        if acq.waits_from <= now:
            self.wait_ns += <unsigned long long>((now - acq.waits_from) * 1e9)
            self.waits_timed += 1
        acq.waits_from = INFINITY
        return 0

    cdef int count_create(self, Conn conn, double now) except -1:
        if conn.since <= now:
            self.create_ns += <unsigned long long>((now - conn.since) * 1e9)
            self.creates_timed += 1
        return 0

    cdef int count_asked(self, Acq acq) except -1:
        if not acq.asked or (acq.lost and not self.closed):
            acq.asked = True
            acq.lost = False
            self.asked_count += 1
        return 0

    cdef int take_conn(self, Acq acq, Conn conn, double now) except -1:
        conn.state = ACQUIRED
        conn.since = now
        conn.holder = acq
        acq.conn = conn
        acq.was_served = True
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
        # "One dispatcher": free slots go to waiters first, and then to minimums.
        self.serve_slots(for_worker)
        if self.short:
            fill(self)
        return 0

    cdef int serve_slots(self, bint for_worker) except -1:
        # A slot goes to whoever is overdue, else to whoever came first of all who may have one. Where the total cap is
        # reached, what was unused for longest is closed, one for each endpoint in need.
        cdef list wanting
        cdef int overdue
        cdef Acq acq
        cdef Conn conn
        while self.waiting and not self.suspended:
            wanting = self.wanting_slots()
            if not wanting:
                return 0
            if len(self.conns) >= self.total_max_size:
                while self.needs_relief():
                    conn = self.evict_unused(for_worker, 'evicted')
                    if conn is None:
                        return 0
                    self.count_as_relief(conn)
                return 0
            overdue = self.first_overdue(self.latest)
            acq = wanting[0] if overdue == NO_ENDPOINT else self.head(overdue)
            if pool_creates(self, acq.endpoint):
                reserve(self, acq.endpoint)
                self.note_wanting(acq.endpoint)
                self.note_served(acq.endpoint)
            else:
                self.serve_ticket(acq)
        return 0

    cdef int serve_ticket(self, Acq acq) except -1:
        self.leave_queue(acq)
        self.take_ticket(acq)
        self.note_wanting(acq.endpoint)
        self.note_served(acq.endpoint)
        self.notified.append(acq)
        return 0

    cdef int slot_freed(self, Conn gone, bint for_worker) except -1:
        cdef Watcher watcher
        note_short(self, gone.endpoint, self.latest)
        fail_where_nothing_comes(self, gone.endpoint)
        self.note_wanting(gone.endpoint)
        self.dispatch(for_worker)
        for watcher in self.watchers[:]:
            if watcher.conn is gone:
                self.watchers.remove(watcher)
                self.told.append(watcher)
        self.tell_if_empty()
        return 0

    cdef int tell_if_empty(self) except -1:
        cdef Watcher watcher
        if not self.conns:
            for watcher in self.watchers[:]:
                if watcher.conn is None:
                    self.watchers.remove(watcher)
                    self.told.append(watcher)
        return 0

    cdef int arrive(self, Acq acq) except -1:
        if not acq.arrival:
            self.arrivals += 1
            acq.arrival = self.arrivals
        return 0

    cdef int join_queue(self, Acq acq, Acq head, double now) except -1:
        # "Between endpoints": who gave up left the place to the next who comes to wait, within KEPT_PLACE_TIME.
        cdef Py_ssize_t i = 0
        cdef long long left, epoch = self.pass_place_time(now)
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
        self.note_wanting(acq.endpoint)
        return 0

    cdef int stop_waiting(self, Acq acq, double now) except -1:
        # It was not served: the next in its queue has its place then, or it is kept. Who did not wait leaves none.
        cdef Acq following
        cdef bint has_place = self.head(acq.endpoint) is acq and (now > acq.queued_at or acq.place != acq.arrival)
        cdef tuple left = (self.pass_place_time(now), acq.endpoint % ENDPOINT_HASHES)
        self.leave_queue(acq)
        following = self.head(acq.endpoint)
        if has_place and following is not None:
            following.place = min(following.place, acq.place)
        elif has_place:
            self.left[left] = min(acq.place, self.left.get(left, acq.place))
        self.note_wanting(acq.endpoint)
        return 0

    cdef long long pass_place_time(self, double now) except -1:
        self.place_epoch = max(self.place_epoch, <long long>(now / (KEPT_PLACE_TIME / 2)))
        return self.place_epoch

    cdef int pass_overtaking_time(self, double now) except -1:
        cdef long long epoch = <long long>(now / OVERTAKING_EPOCH)
        if epoch > self.last_epoch():
            self.arrived_before.append((epoch, self.arrivals))
            if len(self.arrived_before) > 4:    # the first one says nothing any more
                self.arrived_before.pop(0)
        return 0

    cdef long long last_epoch(self) except -1:
        return self.arrived_before[len(self.arrived_before) - 1][0]

    cdef long long overdue(self, double now) except -1:
        # The arrivals before the epoch before the previous one.
        cdef long long epoch, arrivals
        cdef long long oldest = max(<long long>(now / OVERTAKING_EPOCH), self.last_epoch()) - 2
        for epoch, arrivals in self.arrived_before:
            if epoch >= oldest:
                return arrivals
        return self.arrivals

    cdef int first_overdue(self, double now) except -3:
        # The endpoint that has waited for longest, if it is overdue.
        cdef int endpoint, first = NO_ENDPOINT
        for endpoint in self.unserved:
            if first == NO_ENDPOINT or self.unserved[endpoint] < self.unserved[first]:
                first = endpoint
        if first != NO_ENDPOINT and <double>self.unserved[first][0] >= self.overdue(now) + 1:
            return NO_ENDPOINT
        return first

    cdef int note_wanting(self, int endpoint) except -1:
        # An endpoint has other waiters, or another number of connections. It waits for a slot since its first waiter
        # came. If several wait and it has its share, it waits since it began to want a slot, or was served.
        cdef Acq first = self.head(endpoint)
        cdef int waiting = self.count_waiting(endpoint)
        cdef int size = self.count(endpoint, IS_ANY)
        cdef tuple head, known
        if first is None or not self.wants_slot(endpoint):
            self.wants.pop(endpoint, None)
            self.unserved.pop(endpoint, None)
            return 0
        head = first.place, first.arrival
        known = self.wants.get(endpoint)
        self.wants[endpoint] = head
        if known is None:
            self.unserved[endpoint] = self.arrivals + 0.5 if waiting > 1 and size else first.place, first.arrival
        elif known != head and (waiting == 1 or not self.has_share(endpoint)):
            self.unserved[endpoint] = head
        return 0

    cdef int note_served(self, int endpoint) except -1:
        if endpoint in self.unserved and self.has_share(endpoint):
            self.unserved[endpoint] = self.arrivals + 0.5, self.head(endpoint).arrival
        return 0

    cdef bint has_share(self, int endpoint) except -1:
        return (self.count(endpoint, IS_ANY) + 1) * len(self.wants) > self.total_max_size

    # -- what is asked ------------------------------------------------------------------------------------------------

    cdef bint try_acquire(self, Acq acq, double now) except -1:
        # What is due is not ready: it has to be closed, and request() does that.
        cdef Conn ready = self.next_idle(acq.endpoint)
        if self.closed or self.suspended or not self.opened or ready is None or ready.expires_at <= now:
            return False
        self.count_asked(acq)
        acq.was_idle = True
        self.take_conn(acq, ready, now)
        self.arrive(acq)
        return True

    cdef int request(self, Acq acq, double now) except -1:
        cdef Acq head
        cdef Conn conn
        cdef Conn dead_entry = acq.dead_entry
        cdef list doomed = []
        cdef bint relief_ended, pause_ended
        cdef bint begins = dead_entry is None and not acq.has_waited and not acq.left_check
        self.count_asked(acq)
        self.doom_dead(acq)
        relief_ended = self.pass_time(now)
        if self.closed or not self.opened:
            acq.state = REFUSED
            return 0
        self.pass_overtaking_time(now)
        self.arrive(acq)
        pause_ended = end_pause_if_over(self, acq.endpoint, now)
        head = self.head(acq.endpoint)
        if self.suspended or head is None or acq.arrival < head.arrival:
            conn = self.next_idle(acq.endpoint)
            while conn is not None and conn.expires_at <= now:
                self.doom(conn, self.lifetime_reason(conn), for_worker=True)
                doomed.append(conn)
                conn = self.next_idle(acq.endpoint)
            if self.suspended:
                # "Suspended": nobody is served. Who was served a dead connection has begun before, and waits.
                acq.state = REFUSED if self.failing and begins else acq.state
            elif conn is not None:
                acq.was_idle = True
                self.take_conn(acq, conn, now)
            elif may_connect(self, acq.endpoint) and len(self.conns) < self.total_max_size:
                if not pool_creates(self, acq.endpoint):
                    self.take_ticket(acq)
                    self.note_wanting(acq.endpoint)
            elif fails_at_once(self, acq.endpoint):
                acq.state = DOWN
                acq.error = remember(self, acq.endpoint).error
        if acq.state == REFUSED or acq.state == DOWN:
            pass
        elif acq.conn is None and not acq.was_served and 0 < self.max_waiting <= self.count_waiting(acq.endpoint):
            acq.state = TURNED_AWAY
            self.too_many_count += 1
        elif acq.conn is None:
            acq.state = WAITS
            if not acq.has_waited:
                acq.has_waited = True
                self.wait_count += 1
            # DESIGN.md 2.5: first come, first served. One that was served a dead connection has its old place.
            acq.waits_from = now
            self.join_queue(acq, head, now)
            shorten_pause(self, acq.endpoint)
        if dead_entry is not None:
            self.count_as_relief(dead_entry)
        for conn in doomed:
            self.count_as_relief(conn)
        if pause_ended or ((acq.state == WAITS or relief_ended) and self.wanting_slots()):
            self.dispatch(for_worker=True)
        return 0

    cdef int end_of_request(self, double now) except -1:
        end_step(self, now)
        return 0

    cdef int enter(self, Conn conn, int number, double now) except -1:
        # A connect has succeeded.
        conn.number = number
        conn.used_at = now
        conn.expires_at = now + self.max_lifetime * (1 - self.lifetime_jitter * self.luck)
        self.created_count += 1
        self.count_create(conn, now)
        return 0

    cdef bint created(self, Acq acq, int number, double now) except -1:
        cdef Conn conn = acq.conn
        self.enter(conn, number, now)
        if self.closed:
            acq.state = NOTHING
            acq.conn = None
            conn.holder = None
            self.doom(conn, 'pool_closed', for_worker=True)
            return False
        self.take_conn(acq, conn, now)
        connected(self, acq.endpoint, now)
        end_step(self, now)
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
        self.count_create(conn, now)
        give_up_attempt(self, conn.endpoint, conn, now)
        self.slot_freed(conn, for_worker=True)
        end_step(self, now)
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
            acq.lost = True
            return 0
        note_used(self, conn.endpoint, conn.used_at)
        conn.state = CLOSING
        conn.reason = 'dead'
        acq.dead_entry = conn
        self.suspect_others(conn.endpoint)
        self.dead_count += 1
        self.failed_check_count += 1
        self.acquire_count -= 1     # it was not served after all
        return 0

    cdef bint leave_check_to_pool(self, Acq acq, double now) except -1:
        cdef Conn conn = acq.conn
        cdef int others_out = 0 if self.counts_idle_only else self.count(conn.endpoint, IS_CHECKED_OUT) - 1
        if self.closed or conn.closed_over:
            return False
        conn.was_core = others_out < core_count(self, conn.endpoint) - self.count_core_idle(conn.endpoint)
        note_used(self, conn.endpoint, conn.used_at)
        conn.state = CHECKING
        conn.check_pending = True
        if not acq.was_idle:
            self.releases += 1
            conn.released = self.releases
        conn.holder = None
        self.acquire_count -= 1
        acq.conn = None
        acq.state = NOTHING
        acq.left_check = True
        if self.suspended:      # "Suspended": no check begins
            self.give_back(conn, now, for_worker=True)
        else:
            self.to_check.append(conn)
        return True

    cdef int begin_pool_check(self, Conn conn) except -1:
        conn.suspect = False
        conn.check_pending = True
        self.check_count += 1
        return 0

    cdef int room_for_jobs(self, int job) noexcept:
        # "Jobs": how many more of a kind may begin. Of all workers each kind leaves some to the others.
        cdef Conn conn
        cdef int of_kind = 0, all_kinds = 0
        cdef int most = 64 if job == CLOSE_JOB else 16 if job == CHECK_JOB else 1_000_000
        for conn in self.conns:
            of_kind += conn.job == job
            all_kinds += conn.job != NO_JOB
        if not self.max_workers:
            return most - of_kind
        if job == CHECK_JOB:
            most = min(most, max(self.max_workers // 2, 1))
        else:
            most = min(most, max(self.max_workers - 1, 1))
        return min(most - of_kind, self.max_workers - all_kinds)

    cdef bint end_pool_check(self, Conn conn, bint answered, bint alive, double now) except -1:
        # "Checks by the pool": alive or not known, it goes to a waiter, or back to its place.
        cdef bint relief_ended
        if conn.job == CHECK_JOB:
            conn.job = NO_JOB
        if answered and not alive:
            self.failed_check_count += 1
        if conn.state != CHECKING:
            return False
        if answered and not alive:
            relief_ended = self.pass_time(now)
            note_used(self, conn.endpoint, conn.used_at)
            self.doom(conn, 'dead', for_worker=True)
            self.count_as_relief(conn)
            self.suspect_others(conn.endpoint)
            self.dead_count += 1
            if relief_ended:
                self.dispatch(for_worker=True)
            end_step(self, now)
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

    cdef bint take_ready(self, Acq acq, double now, double interval) except -1:
        # The next one that needs no check and no close. Who waits comes first.
        cdef Conn conn
        cdef Conn best = None
        if self.closed or self.suspended or not self.opened or self.head(acq.endpoint) is not None:
            return False
        for conn in self.conns:
            if conn.endpoint != acq.endpoint or conn.state != IDLE or conn.expires_at <= now:
                continue
            if interval > 0 and (conn.suspect or conn.check_pending or now - conn.used_at >= interval):
                continue
            if (
                best is None
                or (conn.is_core and not best.is_core)
                or (conn.is_core and best.is_core and conn.released < best.released)
                or (
                    not conn.is_core
                    and not best.is_core
                    and (conn.released < best.released) == self.serves_oldest
                )
            ):
                best = conn
        if best is None:
            return False
        self.count_asked(acq)
        acq.was_idle = True
        self.take_conn(acq, best, now)
        self.arrive(acq)
        return True

    cdef int detach(self, Acq acq, double now) except -1:
        # Its user keeps it: its slot is free, and nobody closes it.
        cdef Conn conn = acq.conn
        acq.conn = None
        acq.state = NOTHING
        conn.holder = None
        self.end_use(conn, now)
        self.pass_time(now)
        conn.state = GONE
        conn.detached = True
        self.conns.remove(conn)
        self.detached_count += 1
        self.slot_freed(conn, for_worker=True)
        end_step(self, now)
        return 0

    cdef bint discard(self, Acq acq, bint queue, double now, str reason, bint by_user=False) except -1:
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
            self.broken_count += not by_user
            self.end_use(conn, now)
            if queue:
                self.doom(conn, reason, for_worker=False)
            if relief_ended:
                self.dispatch(for_worker=False)
            end_step(self, now)
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
        cdef bint relief_ended = self.pass_time(now)
        cdef bint has_become_idle
        conn.holder = None
        if conn.state != CHECKING:
            self.end_use(conn, now)
        has_become_idle = self.settle(conn, now, for_worker)
        note_used(self, conn.endpoint, conn.used_at)
        if self.waiting and (relief_ended or has_become_idle) and self.wanting_slots():
            self.dispatch(for_worker)
        end_step(self, now)
        return 0

    cdef bint settle(
        self, Conn conn, double now, bint for_worker, bint is_new=False, double used_at=-INFINITY
    ) except -1:
        # What becomes of a connection that was returned, checked or created. A new one was created for those who wait
        # at its endpoint, whose turn it is. Whether it is idle now.
        cdef int endpoint = conn.endpoint
        cdef Acq head = self.head(endpoint)
        cdef list wanting = self.wanting_slots()
        cdef bint relief_missing = bool(wanting) and self.needs_relief()
        cdef bint over = conn.expires_at <= now and not (is_new and head is not None)
        if is_new:
            conn.used_at = used_at
            note_used(self, endpoint, used_at)
        if (
            self.closed
            # What is being closed will be gone, and counts no more.
            or self.count(endpoint, IS_ANY) - self.count(endpoint, IS_CLOSING) > self.max_size
            or len(self.conns) - self.count(ALL, IS_CLOSING) > self.total_max_size
        ):
            # Its slot is one too many, and for nobody.
            self.doom(conn, 'pool_closed' if self.closed else 'shrunk', for_worker)
        elif conn.drained:
            self.doom(conn, 'drained', for_worker)
            self.count_as_relief(conn)
        elif over and (not self.collects or self.is_used_up(conn) or head is not None or wanting):
            # COMPAT.md: with a collector, a release closes nothing that nobody waits for.
            self.doom(conn, self.lifetime_reason(conn), for_worker)
            self.count_as_relief(conn)
        elif (
            not over
            and head is not None
            and not self.suspended
            and (
                is_new
                or not (wanting and self.needs_relief(endpoint) and self.waited_too_long(wanting[0], head, now))
            )
        ):
            self.leave_queue(head)
            conn.used_at = now
            head.was_idle = False
            self.take_conn(head, conn, now)
            self.note_wanting(endpoint)
            self.note_served(endpoint)
            self.notified.append(head)
        elif not over and not self.suspended and (head is not None or relief_missing):
            self.doom(conn, 'evicted', for_worker)
            self.count_as_relief(conn)
        elif not self.keeps_idle:
            self.doom(conn, 'idle', for_worker)
        else:
            self.keep(conn, used_at if is_new else now)
            return True
        return False

    cdef int keep(self, Conn conn, double used_at) except -1:
        # COMPAT.md: core as long as the idle core connections and those that are out do not make up min_idle.
        cdef int out = 0 if self.counts_idle_only else self.count(conn.endpoint, IS_CHECKED_OUT) - 1
        cdef int idle_core = self.count_core_idle(conn.endpoint)
        if conn.state == CHECKING:      # back to its place: only a release changes the order
            conn.is_core = conn.was_core and idle_core < core_count(self, conn.endpoint)
            conn.state = IDLE
        else:
            conn.is_core = out < core_count(self, conn.endpoint) - idle_core
            conn.state = IDLE
            conn.used_at = used_at
            self.releases += 1
            conn.released = self.releases
        if self.deadline(conn) < self.sleeps_until:
            self.wakes += 1
            self.sleeps_until = self.deadline(conn)
        return 0

    cdef bint waited_too_long(self, Acq elder, Acq head, double now) except -1:
        # "Between endpoints": an overdue one gets the slot; one that came earlier if it has no connection at all, or if
        # its first waiter has waited for as long, and the first in this queue has not.
        cdef long long overdue = self.overdue(now)
        cdef int first = self.first_overdue(now)
        if first != NO_ENDPOINT and first != head.endpoint:
            return True
        if elder.place >= head.place:
            return False
        return self.count(elder.endpoint, IS_ANY) == 0 or elder.place <= overdue < head.place

    cdef bint cancel(self, Acq acq, double now) except -1:
        cdef bint waited = acq.state == WAITS
        cdef Conn conn = acq.conn
        cdef Conn dead_entry = acq.dead_entry
        cdef bint relief_ended
        if waited:
            self.stop_waiting(acq, now)
            self.cancelled_count += 1
        self.count_wait(acq, now)
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
        end_step(self, now)
        return waited

    cdef bint give_up(self, Acq acq, double now) except -1:
        self.count_wait(acq, now)
        if acq.state != WAITS:
            return False
        self.stop_waiting(acq, now)
        acq.state = NOTHING
        self.timeout_count += 1
        end_step(self, now)
        return True

    cdef int disposed(self, Conn conn, double now, bint by_worker) except -1:
        # DESIGN.md 2.1: the slot is free when the dispose has ended, not before.
        self.pass_time(now)
        conn.state = GONE
        self.conns.remove(conn)
        self.disposed_count += 1
        self.closed_counts[conn.reason] += 1
        end_refusal(self, conn.endpoint, now)
        self.slot_freed(conn, by_worker)
        end_step(self, now)
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
            conn = self.evict_due(now, for_worker)
            if conn is None:
                break
            self.count_as_relief(conn)
            found += 1
        if relief_ended:
            self.dispatch(for_worker)
        end_step(self, now)
        return found

    cdef int sort_idle(self, int only=ALL) except -1:
        # Which are core with a new min_idle: too many become extra, the oldest first; too few are joined by extra ones,
        # the youngest first. The collector is told once of all that are due earlier now.
        cdef Conn conn, other
        cdef int endpoint, out
        cdef double earlier = self.sleeps_until
        for endpoint in range(MOST_ENDPOINTS):
            if only != ALL and endpoint != only:
                continue
            out = 0 if self.counts_idle_only else self.count(endpoint, IS_CHECKED_OUT)
            while self.count_core_idle(endpoint) > core_count(self, endpoint):
                conn = self.first_surplus(endpoint, core_first=True)
                conn.is_core = False
                earlier = min(earlier, self.deadline(conn))
            while self.count_core_idle(endpoint) + out < core_count(self, endpoint):
                conn = None
                for other in self.conns:
                    if other.endpoint == endpoint and other.state == IDLE and not other.is_core:
                        if conn is None or other.released > conn.released:
                            conn = other
                if conn is None:
                    break
                conn.is_core = True
        if earlier < self.sleeps_until:
            self.sleeps_until = earlier
            self.wakes += 1
        return 0

    cdef int resize(
        self, double now, int min_idle, int max_size, int total_max_size, int max_waiting, int max_workers, int min_size
    ) except -1:
        cdef Conn conn
        cdef int endpoint
        self.shrunk = self.shrunk or max_size < self.max_size or total_max_size < self.total_max_size
        self.min_idle = min_idle
        self.max_size = max_size
        self.total_max_size = total_max_size
        self.max_waiting = max_waiting
        self.max_workers = max_workers
        if min_size:
            for endpoint in self.present:
                remember(self, endpoint, now)
            self.grows = True
        self.min_size = min_size
        for endpoint in self.present:
            while self.count(endpoint, IS_ANY) - self.count(endpoint, IS_CLOSING) > max_size:
                conn = self.first_surplus(endpoint, core_first=False)
                if conn is None:
                    break
                self.doom(conn, 'shrunk', False)
        self.sort_idle()
        note_filled(self)
        for endpoint in self.present:
            if endpoint in self.knowns:
                note_short(self, endpoint, now)
            self.note_wanting(endpoint)
        self.pass_time(now)
        while (
            len(self.conns) - self.count(ALL, IS_CLOSING) > total_max_size
            and self.evict_unused(False, 'shrunk') is not None
        ):
            pass
        self.dispatch(for_worker=False)
        end_step(self, now)
        return 0

    cdef bint open(self, double now) except -1:
        if self.opened or self.closed:
            return False
        self.opened = True
        self.pass_time(now)
        self.dispatch(for_worker=True)
        end_step(self, now)
        return True

    cdef int close(self, double now) except -1:
        cdef Conn conn
        cdef Acq acq
        cdef int endpoint
        self.closed = True
        close_growth(self, now)
        self.drop_checks()
        for endpoint in self.present:
            for acq in self.waiting:
                if acq.endpoint == endpoint:
                    acq.state = REFUSED
                    self.notified.append(acq)
        self.waiting.clear()
        self.wants.clear()
        self.unserved.clear()
        for endpoint in self.present:
            while True:
                conn = self.first_surplus(endpoint, core_first=True)
                if conn is None:
                    break
                self.doom(conn, 'pool_closed', False)
        end_step(self, now)
        return 0

    cdef int drain(self, int endpoint, double now, bint idle_only) except -1:
        # 0 if the endpoint is unknown.
        # "Draining": what is idle is closed now, in the order in which it would be closed as surplus, core ones first.
        cdef Conn conn
        cdef bint relief_ended
        if self.count(endpoint, IS_ANY) == 0 and self.head(endpoint) is None and not is_remembered(self, endpoint):
            return 0
        relief_ended = self.pass_time(now)
        for conn in self.to_check[:]:
            if conn.endpoint == endpoint:
                self.to_check.remove(conn)
                self.doom(conn, 'drained', for_worker=True)
                self.count_as_relief(conn)
        while True:
            conn = self.first_surplus(endpoint, core_first=True)
            if conn is None:
                break
            self.doom(conn, 'drained', for_worker=True)
            self.count_as_relief(conn)
        for conn in self.conns:
            if conn.endpoint == endpoint and conn.state != CLOSING and not conn.reserved and not idle_only:
                conn.drained = True
        note_short(self, endpoint, now)
        if relief_ended:
            self.dispatch(for_worker=True)
        end_step(self, now)
        return 1

    cdef int note_present(self) except -1:
        # Endpoints are visited in the order of their first use. One that has nothing any more is forgotten.
        cdef int endpoint
        cdef bint is_present
        for endpoint in range(MOST_ENDPOINTS):
            is_present = (
                self.count(endpoint, IS_ANY) > 0 or self.head(endpoint) is not None or is_remembered(self, endpoint)
            )
            if is_present and endpoint not in self.present:
                self.present.append(endpoint)
            elif not is_present and endpoint in self.present:
                self.present.remove(endpoint)
        return 0

    cdef int resume(self, double now) except -1:
        # "Suspended": those who wait get what is idle at their endpoints, in their order, and then free slots.
        cdef Acq acq
        cdef Conn conn
        cdef int endpoint
        cdef list served = []
        cdef list doomed
        self.suspended = False
        self.failing = False
        self.pass_time(now)
        for endpoint in self.present:
            doomed = []
            while True:
                conn = self.next_idle(endpoint)
                if conn is not None and conn.expires_at <= now:
                    self.doom(conn, self.lifetime_reason(conn), for_worker=True)
                    doomed.append(conn)
                    continue
                acq = self.head(endpoint)
                if conn is None or acq is None:
                    break
                self.leave_queue(acq)
                acq.was_idle = True
                self.take_conn(acq, conn, now)
                self.notified.append(acq)
                if endpoint not in served:
                    served.append(endpoint)
            self.note_wanting(endpoint)
            for conn in doomed:
                self.count_as_relief(conn)
        for endpoint in served:
            if endpoint in self.unserved:
                acq = self.head(endpoint)
                self.unserved[endpoint] = self.arrivals + 0.5 if self.has_share(endpoint) else acq.place, acq.arrival
        self.dispatch(for_worker=True)
        end_step(self, now)
        return 0

    cdef int doom_acquired(self) except -1:
        cdef Conn conn
        cdef int found = 0
        self.drop_checks()
        self.batches += 1
        for conn in self.conns:
            if IS_CHECKED_OUT >> conn.state & 1:
                note_used(self, conn.endpoint, conn.used_at)
                self.doom(conn, 'pool_closed', False, self.batches)
                conn.closed_over = True
                if conn.holder is not None and conn.holder.state == SERVED:
                    conn.holder.state = REFUSED
                found += 1
            elif conn.state == CHECKING:
                conn.job = NO_JOB
                self.doom(conn, 'pool_closed', False, self.batches)
        return found
