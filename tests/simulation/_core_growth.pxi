# What the naive pool creates itself, and which endpoints it cannot connect to: as tests/engine/growing.py has it,
# compiled. Everything is looked for by walking through all there is. The rules are those of OPERATIONS.md, sections 3
# and 4, and of docs/sizing.md and docs/reconnecting.md.

cdef enum:
    MAX_FILLS = 2           # connects to an endpoint at a time to reach its minimum, without max_connecting

cdef enum:                  # Outage.state
    PAUSING
    DUE                     # the next attempt may begin
    TRYING

cdef enum:                  # news
    BEGAN = 1
    REACHED = 2
    LASTS = 4
    ASKS_AGAIN = 8

cdef double FILL_PAUSE = 0.2
cdef double FIRST_DELAY = 0.010
cdef double MAX_DELAY = 5.0
cdef double MAX_DELAY_WITH_WAITERS = 0.1
cdef double FIRST_DELAY_IF_FULL = 0.050
cdef double MAX_DELAY_IF_FULL = 1.0
cdef double JITTER = 0.2
cdef double MEMORY_OF_OUTAGES = 10.0


cdef class Outage:
    """Connecting to the endpoint has failed, and has not succeeded since."""

    cdef int state
    cdef double began_at
    cdef double failed_at
    cdef double retry_at
    cdef double forgotten_at    # if nobody tries until then
    cdef double delay
    cdef bint is_refusal        # the server has said that it is full
    cdef bint is_hopeless       # no server has caused it: only what is created for a minimum waits for the pauses
    cdef bint told
    cdef Conn attempt           # None: a slot is reserved for it

    def __repr__(self):
        return f'<{("pausing", "due", "trying")[self.state]}, comes up at {self.comes_up_at()}>'

    cdef double comes_up_at(self) noexcept:
        if self.state == PAUSING:
            return self.retry_at
        return self.forgotten_at if self.state == DUE else INFINITY


cdef class Known:
    """What is remembered of an endpoint as long as it has connections, waiters, a pin or an outage."""

    cdef int pinned
    cdef bint filled
    cdef double used_at         # when a connection of it was in use last
    cdef double failed_at
    cdef object error
    cdef Outage outage

    def __repr__(self):
        return f'<pinned {self.pinned}, used at {self.used_at}, outage: {self.outage!r}>'


# -- what is remembered --------------------------------------------------------------------------------------------

cdef Known remember(Model m, int endpoint, double now=-INFINITY):
    cdef Known known = m.knowns.get(endpoint)
    cdef Conn conn
    if known is None:
        known = Known.__new__(Known)
        known.used_at = known.failed_at = -INFINITY
        for conn in m.conns:
            if conn.endpoint == endpoint and conn.state == IDLE:
                known.used_at = max(known.used_at, conn.used_at)
            elif conn.endpoint == endpoint and conn.state == CHECKING:
                known.used_at = now     # when it was in use last was not noted
        m.knowns[endpoint] = known
    return known


cdef Known known_of(Model m, int endpoint):
    # None where nothing is remembered: in a pool without any of this, of endpoints that were not pinned.
    return remember(m, endpoint) if m.grows else m.knowns.get(endpoint)


cdef Outage outage_of(Model m, int endpoint):
    cdef Known known = known_of(m, endpoint)
    return None if known is None else known.outage


cdef int note_used(Model m, int endpoint, double at) except -1:
    cdef Known known = known_of(m, endpoint)
    if known is not None:
        known.used_at = max(known.used_at, at)
    return 0


cdef bint is_remembered(Model m, int endpoint) except -1:
    cdef Known known = m.knowns.get(endpoint)
    return known is not None and not m.closed and (known.pinned > 0 or known.outage is not None)


cdef int forget_empty(Model m) except -1:
    cdef int endpoint
    for endpoint in list(m.knowns):
        if m.count(endpoint, IS_ANY) == 0 and m.head(endpoint) is None and not is_remembered(m, endpoint):
            del m.knowns[endpoint]
            if endpoint in m.short:
                m.short.remove(endpoint)
    return 0


cdef int count_own(Model m, int endpoint, bint reserved_only) except -1:
    cdef Conn conn
    cdef int found = 0
    for conn in m.conns:
        if conn.own and (endpoint == ALL or conn.endpoint == endpoint) and (conn.reserved or not reserved_only):
            found += 1
    return found


# -- may somebody connect? -----------------------------------------------------------------------------------------

cdef bint may_attempt(Model m, int endpoint) except -1:
    cdef Outage outage = outage_of(m, endpoint)
    return outage is None or outage.state == DUE


cdef bint holds_back(Model m, int endpoint) except -1:
    # Whether in an outage acquires do not connect themselves.
    cdef Outage outage = outage_of(m, endpoint)
    if outage is not None and outage.is_hopeless:
        return False
    return m.reconnect_timeout > 0 or m.fails_fast or (outage is not None and outage.is_refusal)


cdef bint may_connect(Model m, int endpoint) except -1:
    # "Size", "max_connecting", "Outages": whether one more connect may begin for a waiter.
    if m.count(endpoint, IS_ANY) >= m.max_size:
        return False
    if known_of(m, endpoint) is None:
        return True
    if 0 < m.max_connecting <= m.count(endpoint, 1 << CREATING):
        return False
    return may_attempt(m, endpoint) or not holds_back(m, endpoint)


cdef bint pool_creates(Model m, int endpoint) except -1:
    cdef Outage outage = outage_of(m, endpoint)
    return m.in_background or (outage is not None and waits_out(m, outage))


cdef bint waits_out(Model m, Outage outage) except -1:
    # Whether those who wait go on waiting after a connect has failed.
    if outage is None:
        return m.reconnect_timeout > 0
    return not outage.is_hopeless and (m.reconnect_timeout > 0 or outage.is_refusal)


cdef bint wants_slot(Model m, int endpoint) except -1:
    # Whether somebody waits for whom nothing is created yet, though it might be.
    return m.count_waiting(endpoint) > count_own(m, endpoint, False) and may_connect(m, endpoint)


cdef bint fails_at_once(Model m, int endpoint) except -1:
    # "fail_fast": connects fail, it is not time for the next attempt, and nothing can come back.
    cdef Outage outage = outage_of(m, endpoint)
    return (
        m.fails_fast
        and outage is not None
        and outage.state != DUE
        and not outage.is_refusal
        and m.count(endpoint, IS_CHECKED_OUT) == 0
    )


# -- minimums ------------------------------------------------------------------------------------------------------

cdef int core_count(Model m, int endpoint) except -1:
    # How many idle connections of an endpoint are core.
    cdef Known known = m.knowns.get(endpoint)
    return max(m.min_idle, m.min_size, 0 if known is None else known.pinned)


cdef bint is_busy(Model m, int endpoint) except -1:
    cdef Known known = known_of(m, endpoint)
    if known is not None and known.pinned:
        return True
    return m.count(endpoint, IS_CHECKED_OUT) > 0 or m.head(endpoint) is not None


cdef int minimum_of(Model m, int endpoint, double now) except -1:
    cdef Known known = known_of(m, endpoint)
    cdef int minimum
    if known is None:
        return 0
    minimum = known.pinned
    if is_busy(m, endpoint) or known.used_at + m.idle_timeout > now:
        minimum = max(minimum, m.min_size)
    return min(minimum, m.max_size)


cdef int note_short(Model m, int endpoint, double now) except -1:
    # Something has changed at an endpoint: it may have too few connections now.
    cdef bint is_short = m.count(endpoint, IS_ANY) < minimum_of(m, endpoint, now) and not m.closed
    if is_short and endpoint not in m.short:
        m.short.append(endpoint)
    elif not is_short and endpoint in m.short:
        m.short.remove(endpoint)
    return 0


cdef int fill(Model m) except -1:
    # "Waiters come first"; each endpoint that is short gets one slot in turn, while there is room.
    cdef int endpoint, aim, limit
    if m.refill_at < INFINITY or m.suspended or m.closed or not m.opened:
        return 0
    while m.short and len(m.conns) < m.total_max_size and not m.wanting_slots():
        endpoint = m.short.pop(0)
        aim = max(remember(m, endpoint).pinned, m.min_size)
        limit = m.max_connecting if m.max_connecting else MAX_FILLS
        if (
            m.count(endpoint, IS_ANY) < min(aim, m.max_size)
            and m.count(endpoint, 1 << CREATING) < limit
            and may_attempt(m, endpoint)
        ):
            reserve(m, endpoint)
            if m.count(endpoint, IS_ANY) < aim:
                m.short.append(endpoint)
    return 0


cdef int pin(Model m, int endpoint, int size, double now) except -1:
    cdef Known known
    if size == 0 and m.count(endpoint, IS_ANY) == 0 and m.head(endpoint) is None and not is_remembered(m, endpoint):
        return 0
    known = remember(m, endpoint, now)
    known.pinned = size
    known.filled = False
    m.pass_time(now)
    note_filled(m)
    m.sort_idle(endpoint)
    note_short(m, endpoint, now)
    forget_empty(m)
    m.dispatch(for_worker=True)
    end_step(m, now)
    return 0


cdef list unfilled(Model m):
    cdef Known known
    cdef int endpoint, has
    cdef list found = []
    for endpoint in sorted(m.knowns):
        known = m.knowns[endpoint]
        if known.pinned and not known.filled:
            has = m.count(endpoint, IS_ANY) - m.count(endpoint, 1 << CREATING | IS_CLOSING)
            found.append((endpoint, has, known.pinned))
    return found


cdef int note_filled(Model m) except -1:
    cdef int endpoint, has, size
    cdef bint all_are = True
    for endpoint, has, size in unfilled(m):
        (<Known>m.knowns[endpoint]).filled = has >= min(size, m.max_size)
        all_are = all_are and has >= min(size, m.max_size)
    if m.fill_watchers and (all_are or m.closed):
        m.told += m.fill_watchers
        m.fill_watchers.clear()
    return 0


# -- slots ---------------------------------------------------------------------------------------------------------

cdef int reserve(Model m, int endpoint) except -1:
    cdef Conn slot = m.add_slot(endpoint)
    slot.own = slot.reserved = True
    if endpoint not in m.turns:
        m.turns.append(endpoint)
    begin_attempt(m, endpoint, None)
    m.must_call = True
    return 0


cdef Conn take_reserved(Model m):
    # The endpoints are served in turn.
    cdef int endpoint
    cdef Conn conn
    cdef Conn slot = None
    if not m.turns:
        return None
    endpoint = m.turns.pop(0)
    for conn in m.conns:
        if conn.reserved and conn.endpoint == endpoint:
            if slot is not None:
                m.turns.append(endpoint)
                break
            slot = conn
    slot.reserved = False
    return slot


cdef int free_slot(Model m, Conn slot, double now) except -1:
    m.conns.remove(slot)
    slot.state = GONE
    give_up_attempt(m, slot.endpoint, None, now)
    return 0


cdef Conn take_create(Model m, double now):
    # A worker begins a create, if one is still needed, and max_workers leaves room for it.
    cdef Conn slot
    while True:
        slot = take_reserved(m) if m.room_for_jobs(CREATE_JOB) > 0 else None
        if slot is None or may_begin(m, slot):
            break
        free_slot(m, slot, now)
        m.pass_time(now)
        m.slot_freed(slot, for_worker=True)
    if slot is not None:
        slot.suspect = False    # what was found dead before this says nothing about it
        begin_attempt(m, slot.endpoint, slot)
        cover(m, slot.endpoint, slot)
        m.note_wanting(slot.endpoint)
        slot.job = CREATE_JOB
    end_step(m, now)
    return slot


cdef bint may_begin(Model m, Conn slot) except -1:
    # Whether a reserved slot is still needed, and its connect may begin.
    cdef int endpoint = slot.endpoint
    cdef Outage outage = outage_of(m, endpoint)
    cdef int begun = count_own(m, endpoint, False) - count_own(m, endpoint, True) - 1
    cdef bint held_back = outage is not None and not (
        outage.state == DUE or (outage.state == TRYING and outage.attempt is None)
    )
    if m.count(endpoint, IS_ANY) - m.count(endpoint, IS_CLOSING) > m.max_size:
        return False
    if <int>len(m.conns) - m.count(ALL, IS_CLOSING) > m.total_max_size:
        return False
    if m.count_waiting(endpoint) > begun and not (held_back and holds_back(m, endpoint)):
        return True
    return m.count(endpoint, IS_ANY) <= max(remember(m, endpoint).pinned, m.min_size) and not held_back


cdef Acq first_uncovered(Model m, int endpoint):
    cdef Acq acq
    for acq in m.waiting:
        if acq.endpoint == endpoint and acq.create is None:
            return acq
    return None


cdef int cover(Model m, int endpoint, Conn ticket) except -1:
    # A create is for the oldest waiter that has none.
    cdef Acq acq = first_uncovered(m, endpoint)
    if acq is not None:
        acq.create = ticket
    return 0


cdef Acq uncover(Model m, Conn ticket):
    # The create has ended: the one that it was for, if that still waits.
    cdef Acq acq
    for acq in m.waiting:
        if acq.create is ticket:
            acq.create = None
            return acq
    return None


# -- the ends of the pool's own creates ----------------------------------------------------------------------------

cdef bint grown(Model m, Conn ticket, int number, double now) except -1:
    cdef int endpoint = ticket.endpoint
    cdef Known known = remember(m, endpoint)
    cdef double used_at
    m.pass_time(now)
    m.enter(ticket, number, now)
    ticket.own = False
    ticket.job = NO_JOB
    uncover(m, ticket)
    # The endpoint is not live for longer because of this, unless it is busy.
    used_at = now
    if known.used_at > -INFINITY and m.head(endpoint) is None:
        if m.count(endpoint, IS_CHECKED_OUT | 1 << CHECKING) == 0:
            used_at = known.used_at
    ticket.state = ACQUIRED
    # What becomes of the connection is decided by who wants a slot now that the outage is over.
    end_outage(m, endpoint)
    m.note_wanting(endpoint)
    note_used(m, endpoint, used_at)
    m.settle(ticket, now, True, True, used_at)
    note_filled(m)
    note_short(m, endpoint, now)
    m.note_wanting(endpoint)
    m.dispatch(for_worker=True)
    end_step(m, now)
    return ticket.state != CLOSING


cdef int end_create(Model m, Conn ticket, double now) except -1:
    m.pass_time(now)
    m.count_create(ticket, now)
    m.create_error_count += 1
    m.conns.remove(ticket)
    ticket.state = GONE
    return 0


cdef int grow_failed(
    Model m, Conn ticket, object error, bint is_refusal, bint is_hopeless, double now
) except -1:
    cdef int endpoint = ticket.endpoint
    cdef Known known = remember(m, endpoint)
    cdef Acq acq
    cdef int news
    end_create(m, ticket, now)
    m.refused_count += is_refusal
    acq = uncover(m, ticket)
    if acq is None:
        acq = first_uncovered(m, endpoint)
    known.error = error
    news = note_failure(m, endpoint, ticket, is_refusal, is_hopeless, True, now)
    if acq is not None and (is_hopeless or not waits_out(m, known.outage)):
        m.fail(acq, FAILED, error)
        news |= REACHED
    m.slot_freed(ticket, for_worker=True)
    end_step(m, now)
    return news


cdef int grow_cancelled(Model m, Conn ticket, double now) except -1:
    end_create(m, ticket, now)
    uncover(m, ticket)
    give_up_attempt(m, ticket.endpoint, ticket, now)
    m.slot_freed(ticket, for_worker=True)
    end_step(m, now)
    return 0


# -- the creates of acquires ---------------------------------------------------------------------------------------

cdef int connected(Model m, int endpoint, double now) except -1:
    if known_of(m, endpoint) is not None:
        m.pass_time(now)
        end_outage(m, endpoint)
        note_filled(m)
        note_short(m, endpoint, now)
        m.note_wanting(endpoint)
        m.dispatch(for_worker=True)
    return 0


cdef int connect_failed(
    Model m, Acq acq, object error, bint is_refusal, bint may_ask_again, double now
) except -1:
    cdef Conn ticket = acq.conn
    cdef Known known = known_of(m, ticket.endpoint)
    cdef int news
    if known is None:
        return 0
    m.pass_time(now)
    known.error = error
    m.refused_count += is_refusal
    news = note_failure(m, ticket.endpoint, ticket, is_refusal, False, False, now)
    if not (may_ask_again and (is_refusal or m.reconnect_timeout > 0)):
        m.note_wanting(ticket.endpoint)
        return news         # it is cancelled next
    m.create_error_count += 1
    m.count_create(ticket, now)
    m.conns.remove(ticket)
    ticket.state = GONE
    ticket.holder = None
    acq.conn = None
    acq.state = NOTHING
    m.slot_freed(ticket, for_worker=True)
    end_step(m, now)
    return news | ASKS_AGAIN


cdef int fail_where_nothing_comes(Model m, int endpoint) except -1:
    cdef Outage outage
    cdef Acq acq
    if m.fails_fast:
        outage = outage_of(m, endpoint)
        while outage is not None and outage.state == PAUSING and fails_at_once(m, endpoint):
            acq = first_uncovered(m, endpoint)
            if acq is None:
                break
            m.fail(acq, DOWN, remember(m, endpoint).error)
    return 0


# -- outages -------------------------------------------------------------------------------------------------------

cdef int note_failure(
    Model m, int endpoint, Conn ticket, bint is_refusal, bint is_hopeless, bint by_pool, double now
) except -1:
    # "The pauses". One that began before the outage says nothing new, unless it is the first to be told that the server
    # is full.
    cdef Known known = remember(m, endpoint)
    cdef Outage outage = known.outage
    cdef int news = 0
    cdef double retry_at
    if is_hopeless and m.min_size == 0 and known.pinned == 0:
        give_up_attempt(m, endpoint, ticket, now)
        return 0
    if outage is None:
        known.failed_at = now
        if not (holds_back(m, endpoint) or m.min_size > 0 or known.pinned > 0 or is_refusal):
            return 0
        news = BEGAN
        outage = known.outage = Outage.__new__(Outage)
        outage.began_at = now
        outage.is_refusal = is_refusal
        outage.delay = FIRST_DELAY_IF_FULL if is_refusal else FIRST_DELAY
    else:
        if outage.state != TRYING or outage.attempt is not ticket:
            if not is_refusal or outage.is_refusal:
                return 0
            if outage.state == TRYING:
                outage.is_refusal = True
                outage.delay = FIRST_DELAY_IF_FULL
                return 0
        if outage.is_refusal != is_refusal:
            outage.is_refusal = is_refusal
            outage.delay = FIRST_DELAY_IF_FULL if is_refusal else FIRST_DELAY
        else:
            outage.delay = min(outage.delay * 2, MAX_DELAY_IF_FULL if is_refusal else MAX_DELAY)
    outage.attempt = None
    outage.is_hopeless = is_hopeless
    known.failed_at = outage.failed_at = now
    retry_at = now + pause_of(m, endpoint, outage) * (1 + JITTER * (2 * m.luck - 1))
    if m.reconnect_timeout > 0 and not outage.told:
        if now - outage.began_at >= m.reconnect_timeout:
            outage.told = by_pool       # an acquire has no time to tell it
            news |= LASTS if by_pool else 0
        else:
            retry_at = min(retry_at, max(outage.began_at + m.reconnect_timeout, now + FIRST_DELAY * (1 - JITTER)))
    pause_until(m, outage, retry_at)
    return news


cdef double pause_of(Model m, int endpoint, Outage outage) except -1:
    if outage.is_refusal or m.head(endpoint) is None:
        return outage.delay
    return min(max(outage.delay / 8, FIRST_DELAY), MAX_DELAY_WITH_WAITERS)


cdef int pause_until(Model m, Outage outage, double retry_at) except -1:
    outage.state = PAUSING
    outage.retry_at = retry_at
    call_if_first(m, outage)
    return 0


cdef int allow_retry(Model m, Outage outage, double now) except -1:
    outage.state = DUE
    outage.forgotten_at = now + max(MEMORY_OF_OUTAGES, 2 * outage.delay)
    call_if_first(m, outage)
    return 0


cdef int call_if_first(Model m, Outage outage) except -1:
    # Whoever waits for the next timer has to be told if that is another one.
    if outage.comes_up_at() <= next_retry(m):
        m.must_call = True
    return 0


cdef double next_retry(Model m) except -1:
    cdef Known known
    cdef double at = INFINITY
    for known in m.knowns.values():
        if known.outage is not None:
            at = min(at, known.outage.comes_up_at())
    return at


cdef int shorten_pause(Model m, int endpoint) except -1:
    # Somebody waits.
    cdef Outage outage = outage_of(m, endpoint)
    cdef double retry_at
    if outage is not None and outage.state == PAUSING:
        retry_at = outage.failed_at + pause_of(m, endpoint, outage)
        if outage.retry_at > retry_at:
            pause_until(m, outage, retry_at)
    return 0


cdef bint end_pause_if_over(Model m, int endpoint, double now) except -1:
    cdef Outage outage = outage_of(m, endpoint)
    if outage is None or outage.state != PAUSING or outage.retry_at > now:
        return False
    allow_retry(m, outage, now)
    m.note_wanting(endpoint)
    note_short(m, endpoint, now)
    return True


cdef int retry_now(Model m, int endpoint, double now) except -1:
    # Somebody asks who is no waiter.
    cdef Outage outage
    if m.count(endpoint, IS_ANY) == 0 and m.head(endpoint) is None and not is_remembered(m, endpoint):
        return 0
    outage = outage_of(m, endpoint)
    if outage is not None and outage.state == PAUSING:
        allow_retry(m, outage, now)
        m.note_wanting(endpoint)
        note_short(m, endpoint, now)
    m.dispatch(for_worker=True)
    end_step(m, now)
    return 0


cdef int begin_attempt(Model m, int endpoint, Conn ticket) except -1:
    cdef Outage outage = outage_of(m, endpoint)
    if outage is not None and outage.state == DUE:
        outage.state = TRYING
        outage.attempt = ticket
    elif outage is not None and outage.state == TRYING and outage.attempt is None:
        outage.attempt = ticket
    return 0


cdef int give_up_attempt(Model m, int endpoint, Conn ticket, double now) except -1:
    # It has ended, and says nothing about the server.
    cdef Outage outage = outage_of(m, endpoint)
    if outage is not None and outage.state == TRYING and outage.attempt is ticket:
        allow_retry(m, outage, now)
    return 0


cdef int end_outage(Model m, int endpoint) except -1:
    remember(m, endpoint).outage = None
    return 0


cdef int end_refusal(Model m, int endpoint, double now) except -1:
    # One of its connections was closed: the server may have room.
    cdef Outage outage = outage_of(m, endpoint)
    if outage is not None and outage.state == PAUSING and outage.is_refusal:
        allow_retry(m, outage, now)
    return 0


# -- timers and workers --------------------------------------------------------------------------------------------

cdef int run_timers(Model m, double now, bint by_worker) except -1:
    cdef bint is_due = m.pass_time(now)
    cdef Known known
    cdef int endpoint, first
    while next_retry(m) <= now:
        first = NO_ENDPOINT
        for endpoint in m.knowns:
            known = m.knowns[endpoint]
            if known.outage is not None and known.outage.comes_up_at() == next_retry(m):
                first = endpoint
        known = m.knowns[first]
        if known.outage.state == PAUSING:
            allow_retry(m, known.outage, now)
            m.note_wanting(first)
            note_short(m, first, now)
            is_due = True
        else:
            known.outage = None
            forget_empty(m)
    if m.refill_at <= now:
        m.refill_at = INFINITY
        is_due = True
    if is_due:
        m.dispatch(for_worker=True)
    if by_worker:
        m.must_call = False
    end_step(m, now)
    return 0


cdef int hand_over_slots(Model m, double now) except -1:
    # There is no worker: the waiters get the slots. Minimums are filled later.
    cdef Conn slot
    cdef Acq acq
    m.pass_time(now)
    while True:
        slot = take_reserved(m)
        if slot is None:
            m.serve_slots(for_worker=True)
            slot = take_reserved(m)
        if slot is None:
            break
        free_slot(m, slot, now)
        acq = m.head(slot.endpoint)
        if (
            acq is not None
            and not m.suspended
            and <int>len(m.conns) < m.total_max_size
            and may_connect(m, slot.endpoint)
        ):
            m.serve_ticket(acq)
        m.note_wanting(slot.endpoint)
        note_short(m, slot.endpoint, now)
        forget_empty(m)
    if m.short:
        m.refill_at = now + FILL_PAUSE
    m.must_call = False
    m.tell_if_empty()
    return 0


cdef int close_growth(Model m, double now) except -1:
    cdef Conn slot
    m.refill_at = INFINITY
    while True:
        slot = take_reserved(m)
        if slot is None:
            break
        free_slot(m, slot, now)
    m.tell_if_empty()
    return 0


cdef int end_step(Model m, double now) except -1:
    # The end of whatever was asked.
    if not m.knowns:
        m.must_call = False
        return 0
    note_filled(m)
    if m.must_call:
        m.must_call = False
        if not m.closed and not m.has_workers:
            hand_over_slots(m, now)
    forget_empty(m)
    return 0
