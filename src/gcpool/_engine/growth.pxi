# GROWTH. The pool itself creates connections: for waiters in the background, up to a minimum, and in an outage. The
# dispatcher reserves a slot; a worker comes for it and gets a ticket that belongs to no acquire. When the connect has
# ended, its connection goes the way of one that is returned: to the oldest waiter, or it becomes idle.
#
# A reserved slot counts as a connection that is being created. Tickets are made when a worker comes, with no lock held,
# because they have to be allocated. If no worker can be had, the waiters get the slots, and connect themselves.

# How many connections to one endpoint are created at a time to reach a minimum.
cdef int MAX_FILLS = 2

# Seconds for which no minimum is filled after no worker could be had.
cdef double FILL_PAUSE = 0.2


@cython.final
@cython.no_gc_clear
cdef class Growth(HeapMember):
    """What the pool knows about an endpoint for which it creates connections itself."""

    def __cinit__(self):
        self.over_after = -1
        self.used_at = -INFINITY
        self.failed_at = -INFINITY


# -- which endpoints -----------------------------------------------------------------------------------------------

cdef int ensure_growth(PoolCore core, EndpointPool ep) except -1:
    # No lock is held. An endpoint pool with growth is owned by core.kept until it is forgotten: it may have no
    # connection and no waiter that owns it.
    cdef Growth new
    if ep.growth is not None:
        return 0
    new = Growth()
    new.pool = <void *>ep
    kept_of_this_process(core).add(ep)
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    if ep.growth is None:
        ep.growth = new
        if ep.forgotten:
            chain_append(&core.forgotten, new)
    gcp_unlock(&ep.lock)
    gcp_unlock(&core.lock)
    return 0


cdef set kept_of_this_process(PoolCore core):
    # In a forked child the set begins anew: a thread of the parent may have been about to change the old one.
    cdef set old = core.kept
    cdef set new
    if core.kept_epoch == core.fork_epoch:
        return old
    new = set()
    gcp_lock(&core.lock)
    if core.kept_epoch != core.fork_epoch:
        core.kept = new
        core.kept_epoch = core.fork_epoch
    gcp_unlock(&core.lock)
    return core.kept


cdef inline bint is_needed(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Whether an endpoint pool without connections and waiters is to be remembered.
    return ep.growth is not None and not is_closed(core) and (ep.growth.pinned > 0 or ep.growth.state != UP)


cdef void leave_growth(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. The endpoint pool is forgotten.
    cdef Growth g = ep.growth
    if g is None:
        return
    leave_short(core, g)
    heap_remove(&core.retries, <void *>g)
    chain_append(&core.forgotten, g)


cdef int drop_forgotten(PoolCore core) except -1:
    # No lock is held.
    cdef EndpointPool ep
    cdef void *p
    while gcp_load_int(&core.forgotten.count):
        ep = None
        gcp_lock(&core.lock)
        p = chain_take_growth(&core.forgotten)
        if p != NULL:
            ep = <EndpointPool>(<Growth>p).pool
        gcp_unlock(&core.lock)
        if ep is not None:
            core.kept.discard(ep)
    return 0


# -- minimums ------------------------------------------------------------------------------------------------------

cdef inline void leave_short(PoolCore core, Growth g) noexcept:
    # core.lock is held.
    if g.is_short:
        linked_remove(&core.short, g)
        g.is_short = False


cdef inline double used_last(EndpointPool ep) noexcept:
    # ep.lock is held. When a connection of the endpoint was last returned; only those count that are idle, or were
    # closed since (Growth.used_at).
    cdef double at = -INFINITY if ep.growth is None else ep.growth.used_at
    if ep.core.tail != NULL:
        at = max(at, (<Entry>ep.core.tail).used_at)
    if ep.extra.tail != NULL:
        at = max(at, (<Entry>ep.extra.tail).used_at)
    return at


cdef inline bint is_pinned(EndpointPool ep) noexcept:
    # ep.lock is held.
    return ep.growth is not None and ep.growth.pinned > 0


cdef inline bint is_busy(EndpointPool ep) noexcept:
    # ep.lock is held. Whether the endpoint is live, however long ago a connection was returned.
    return out_count(ep) > 0 or ep.waiting > 0 or is_pinned(ep)


cdef int minimum_of(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. How many connections the endpoint is to have at least.
    cdef int minimum = ep.growth.pinned
    if core.min_size > minimum and (is_busy(ep) or used_last(ep) + core.idle_timeout > now):
        minimum = core.min_size
    return min(minimum, core.max_size)


cdef void note_short(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. Whatever may leave the endpoint with fewer connections than its minimum calls this.
    cdef Growth g = ep.growth
    if g is None:
        return
    if ep.size >= minimum_of(core, ep, now) or is_closed(core) or ep.forgotten:
        leave_short(core, g)
    elif not g.is_short:
        g.is_short = True
        linked_append(&core.short, g)


cdef inline bint may_fill(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held, and the endpoint is short of its minimum.
    cdef int limit = core.max_connecting if core.max_connecting else MAX_FILLS
    return has_room(core, ep) and ep.counts[CREATING] < limit and may_attempt(ep.growth)


cdef void fill_minimums(PoolCore core) noexcept:
    # core.lock is held, no other. Not before the pool is open, nor while it is suspended: open() and resume() come
    # here. Waiters come first: those that want a slot get all that are free. An endpoint that may not be filled now
    # leaves the list, and comes back when a connect or a pause has ended.
    cdef Growth g
    cdef EndpointPool ep
    if core.fills_paused or core.restrictions:
        return
    while core.short.head != NULL and core.wanting_slots.used == 0 and pool_has_room(core):
        g = <Growth>core.short.head
        ep = <EndpointPool>g.pool
        gcp_lock(&ep.lock)
        leave_short(core, g)
        if ep.size < max(g.pinned, core.min_size) and may_fill(core, ep):
            reserve_create(core, ep)
            if ep.size < max(g.pinned, core.min_size):
                g.is_short = True
                linked_append(&core.short, g)
        gcp_unlock(&ep.lock)


# -- pinned endpoints ----------------------------------------------------------------------------------------------

cdef int pin(PoolCore core, object endpoint, int size, double now) except -1:
    # A size of 0 unpins.
    cdef EndpointPool ep
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef bint wake = False
    ensure_pins(core)
    while True:
        ep = find_or_add_pool(core, endpoint) if size else find_pool(core, endpoint)
        if ep is None:
            return 0
        # Noted first, so that a forked child fills it again.
        if size:
            core.pins[ep.endpoint] = size
        else:
            core.pins.pop(ep.endpoint, None)
        ensure_growth(core, ep)
        gcp_lock(&core.lock)
        advance_relief(core, now)
        gcp_lock(&ep.lock)
        if not ep.forgotten:
            break
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
    ep.growth.pinned = size
    ep.growth.filled = False
    ep.core_size = max(core.core_size, size)
    wake = sort_idle(core, ep, now)
    note_filled(core, ep, &notified)
    note_short(core, ep, now)
    if size == 0:
        wake = reschedule_core_locked(core, ep, now) or wake
    forget_if_empty(core, ep)
    gcp_unlock(&ep.lock)
    dispatch(core, &core.doomed_for_worker, &notified)
    gcp_unlock(&core.lock)
    try:
        notify_all(core, &notified)
    finally:
        if wake and core.wake_collector is not None:
            call_collector(core)
    return 0


cdef void note_filled(PoolCore core, EndpointPool ep, Chain *notified) noexcept:
    # Both locks are held. Whether the endpoint has, or once had, the size that it was pinned with.
    cdef Growth g = ep.growth
    cdef bint counts
    if ep.size - ep.counts[CREATING] - ep.counts[CLOSING] >= min(g.pinned, core.max_size):
        g.filled = True
    counts = g.pinned > 0 and not g.filled
    core.unfilled += counts - g.counted
    g.counted = counts
    if core.unfilled == 0:
        take_fill_watchers(core, notified)


cdef void take_fill_watchers(PoolCore core, Chain *notified) noexcept:
    # core.lock is held. For the references, see take_watchers().
    cdef void *p = chain_take_all(&core.fill_watchers)
    cdef void *following
    while p != NULL:
        following = (<Waiter>p).next
        if gcp_try_incref(p):
            gcp_store_int(&(<Waiter>p).state, SERVED)
            chain_append(notified, <Waiter>p)
        p = following


cdef bint watch_filled(PoolCore core, Waiter w) except -1:
    cdef bint watches
    ensure_pins(core)
    gcp_lock(&core.lock)
    watches = core.unfilled > 0 and not is_closed(core) and add_watcher(core, w, &core.fill_watchers)
    gcp_unlock(&core.lock)
    return watches


cdef list unfilled_endpoints(PoolCore core):
    # (endpoint, connections that it has, its pinned size) of each that has not had its size yet.
    cdef EndpointPool ep
    cdef int has, wanted
    cdef bint unfilled
    found = []
    for ep in endpoint_pools(core):
        gcp_lock(&ep.lock)
        unfilled = ep.growth is not None and ep.growth.pinned > 0 and not ep.growth.filled
        has = ep.size - ep.counts[CREATING] - ep.counts[CLOSING]
        wanted = ep.growth.pinned if unfilled else 0
        gcp_unlock(&ep.lock)
        if unfilled:
            found.append((ep.endpoint, has, wanted))
    return found


cdef inline int ensure_pins(PoolCore core) except -1:
    # No lock is held. Whatever a forked child may do first with the pool calls this.
    if core.pins_epoch != core.fork_epoch:
        enter_pins(core, read_clock(core))
    return 0


cdef int enter_pins(PoolCore core, double now) except -1:
    # In a forked child: pins the endpoints that the parent had pinned. All of them, even if a signal handler raises.
    failure = None
    core.pins_epoch = core.fork_epoch
    for endpoint, size in list(core.pins.items()):
        try:
            pin(core, endpoint, size, now)
        except BaseException as exc:
            failure = exc
    if failure is not None:
        raise failure
    return 0


# -- reserved slots ------------------------------------------------------------------------------------------------

cdef void reserve_create(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held, and both limits allow one more connection.
    cdef Growth g = ep.growth
    gcp_assert(has_room(core, ep) and pool_has_room(core))
    ep.counts[CREATING] += 1
    set_size(core, ep, ep.size + 1)
    gcp_store_int(&core.size, core.size + 1)
    gcp_store_int(&core.reserved, core.reserved + 1)
    g.creating += 1
    g.reserved += 1
    if g.reserved == 1:
        append_reserved(core, g)
    begin_attempt(core, g, NULL)
    gcp_store_int(&core.must_call_workers, True)


cdef inline void append_reserved(PoolCore core, Growth g) noexcept:
    # core.lock is held.
    g.next_reserved = NULL
    if core.reserved_tail == NULL:
        core.reserved_head = <void *>g
    else:
        (<Growth>core.reserved_tail).next_reserved = <void *>g
    core.reserved_tail = <void *>g


cdef Growth take_reserved(PoolCore core):
    # core.lock is held. Takes one reserved slot; None if there is none. The endpoints are served in turn.
    cdef Growth g
    if core.reserved_head == NULL:
        return None
    g = <Growth>core.reserved_head
    core.reserved_head = g.next_reserved
    if core.reserved_head == NULL:
        core.reserved_tail = NULL
    g.next_reserved = NULL
    gcp_store_int(&core.reserved, core.reserved - 1)
    g.reserved -= 1
    if g.reserved:
        append_reserved(core, g)
    return g


cdef void free_reserved(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. A slot that take_reserved() has taken is not needed.
    ep.growth.creating -= 1
    ep.counts[CREATING] -= 1
    set_size(core, ep, ep.size - 1)
    gcp_store_int(&core.size, core.size - 1)
    give_up_attempt(core, ep.growth, NULL, now)


cdef void free_all_reserved(PoolCore core, double now, Chain *notified) noexcept:
    # core.lock is held, no other. The pool is closed.
    cdef Growth g = take_reserved(core)
    cdef EndpointPool ep
    while g is not None:
        ep = <EndpointPool>g.pool
        gcp_lock(&ep.lock)
        free_reserved(core, ep, now)
        forget_if_empty(core, ep)
        gcp_unlock(&ep.lock)
        g = take_reserved(core)
    if core.size == 0:
        take_watchers(core, None, notified)


cdef int call_workers(PoolCore core) except -1:
    # No lock is held. Calls a worker, because slots are reserved, or the next timer is another one. If none can be had,
    # the waiters connect.
    if not gcp_load_int(&core.must_call_workers):
        return 0
    gcp_store_int(&core.must_call_workers, False)
    # A closed pool has no reserved slots, and terminate() starts no thread.
    if core.call_workers is None or is_closed(core):
        return 0
    failure = None
    gcp_fence()     # as in SyncPool.begin_disposals(): what is reserved is seen before it is looked who is free
    try:
        called = core.call_workers()
    except BaseException as exc:
        # A signal handler may have raised inside the call. No worker would come, so call once more.
        failure = exc
        try:
            called = core.call_workers()
        except BaseException:       # again: the waiters connect
            called = False
    core.lacks_workers = called is False
    if core.lacks_workers:
        hand_reserved_to_waiters(core)
    if failure is not None:
        raise failure
    return 0


cdef int hand_reserved_to_waiters(PoolCore core) except -1:
    # No worker can be had. A slot without a waiter is freed, and goes to a waiter of another endpoint if one wants it.
    # Minimums are filled after a pause, if there is anybody then who runs the timers.
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef double now = read_clock(core)
    cdef Growth g
    cdef EndpointPool ep
    cdef void *p
    gcp_lock(&core.lock)
    advance_relief(core, now)
    while True:
        g = take_reserved(core)
        if g is None:
            serve_slots(core, &core.doomed_for_worker, &served)     # this may reserve more
            g = take_reserved(core)
            if g is None:
                break
        ep = <EndpointPool>g.pool
        gcp_lock(&ep.lock)
        free_reserved(core, ep, now)
        p = NULL
        if not is_suspended(core) and may_connect(core, ep) and pool_has_room(core):
            p = first_waiter(core, ep)
        if p != NULL:
            waiter_unlink(ep, p)
            serve_ticket(core, ep, <Waiter>p)
            chain_append(&served, <Waiter>p)
        update_wants_slot(core, ep)
        if p != NULL:
            note_served(core, ep)
        note_short(core, ep, now)
        forget_if_empty(core, ep)
        gcp_unlock(&ep.lock)
    if core.short.head != NULL:
        core.fills_paused = True
        core.refill_at = now + FILL_PAUSE
    gcp_store_int(&core.must_call_workers, False)
    if core.size == 0:
        take_watchers(core, None, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return 0


# -- the pool's own connects ---------------------------------------------------------------------------------------

cdef Entry take_create(PoolCore core, double now):
    # For a worker: a ticket of the pool's own, or None if there is nothing to create. No lock is held.
    cdef Entry ticket = Entry()
    cdef Growth g
    cdef EndpointPool ep
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef bint found = False
    entries_of_this_process(core)
    gcp_lock(&core.lock)
    advance_relief(core, now)
    while not found:
        g = take_reserved(core)
        if g is None:
            break
        ep = <EndpointPool>g.pool
        gcp_lock(&ep.lock)
        found = may_begin_reserved(core, ep)
        if found:
            limit_uses(ticket, core.max_uses)
            ticket.pool = ep
            ticket.fork_epoch = core.fork_epoch
            ticket.verified_at = ep.distrust_count
            ticket.epoch.birth = core.drains
            begin_attempt(core, g, <void *>ticket)
            cover_waiter(ep, <void *>ticket)
            update_wants_slot(core, ep)
            gcp_unlock(&ep.lock)
        else:
            free_reserved(core, ep, now)
            gcp_unlock(&ep.lock)
            after_slot_freed(core, ep, None, now, &core.doomed_for_worker, &notified)
    gcp_unlock(&core.lock)
    try:
        notify_all(core, &notified)
    except BaseException:
        if found:           # nobody would connect for it
            grow_cancelled(core, ticket, now)
        raise
    return ticket if found else None


cdef bint may_begin_reserved(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Whether a slot that take_reserved() has taken is still needed: those who waited may have got
    # other connections meanwhile. And whether its connect may begin: since the slot was reserved, a limit may have been
    # lowered, or an outage may have begun, in which there is one attempt at a time.
    cdef Growth g = ep.growth
    cdef bint held_back = not may_attempt(g) and not (g.state == TRYING and g.attempt == NULL)
    cdef int begun = g.creating - g.reserved - 1
    if exceeds_max_size(core, ep) or exceeds_total_max_size(core):
        return False
    if ep.waiting > begun and not (held_back and holds_back_askers(core, g)):
        return True
    return ep.size <= max(g.pinned, core.min_size) and not held_back


cdef void cover_waiter(EndpointPool ep, void *ticket) noexcept:
    # ep.lock is held. The ticket is created for the oldest waiter without one.
    cdef void *p = first_uncovered(ep)
    if p != NULL:
        (<Waiter>p).create = ticket


cdef void *waiter_of(EndpointPool ep, void *ticket) noexcept:
    # ep.lock is held. The waiter for whom the ticket was created; NULL if it does not wait any more.
    cdef void *p = ep.queue.head
    while p != NULL and (<Waiter>p).create != ticket:
        p = (<Waiter>p).next
    return p


cdef void pass_on_create(EndpointPool ep, void *p) noexcept:
    # ep.lock is held. The waiter leaves the queue otherwise than with its own create, which goes on for the oldest one
    # that has none.
    cdef void *create = (<Waiter>p).create
    if create != NULL:
        (<Waiter>p).create = NULL
        cover_waiter(ep, create)


cdef bint grown(PoolCore core, Entry ticket, object conn, double now) except -1:
    # The pool's own connect has succeeded. False if the connection is doomed: the pool was closed meanwhile.
    cdef EndpointPool ep = pool_of(ticket)
    cdef Settled settled
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef void *asker
    cdef double used_at
    cdef int outcome = enter_connection(core, ticket, conn, now)
    settled.outcome = KEEP
    settled.first = NULL
    settled.wake = False
    if outcome == ADDED:
        advance_relief(core, now)
        ep.growth.creating -= 1
        asker = waiter_of(ep, <void *>ticket)
        if asker != NULL:
            (<Waiter>asker).create = NULL
        move(ep, ticket, CREATING, ACQUIRED)
        begin_use(ticket, now)
        # The endpoint is not live for longer because of this: as if it was returned when the last one was.
        used_at = used_last(ep)
        settled = settle(core, ep, ticket, True, now, used_at if used_at > -INFINITY and not ep.waiting else now,
                         False, &core.doomed_for_worker, &served)
        if settled.outcome == HAND_OVER:
            (<Waiter>settled.first).is_new = True
        end_outage(core, ep.growth, now)
        note_filled(core, ep, &served)
        note_short(core, ep, now)
        update_wants_slot(core, ep)
    gcp_unlock(&ep.lock)
    if outcome == ADDED:
        dispatch(core, &core.doomed_for_worker, &served)
    gcp_unlock(&core.lock)
    return end_of_grown(core, ticket, conn, outcome, &settled, &served)


cdef bint end_of_grown(
    PoolCore core, Entry ticket, object conn, int outcome, Settled *settled, Chain *served
) except -1:
    # No lock is held.
    raise_unless_added(core, ticket, conn, outcome)
    end_settling(core, settled, served)
    call_checker_if_late(core)
    return settled.outcome == HAND_OVER or settled.outcome == KEEP


cdef int grow_failed(
    PoolCore core, Entry ticket, object error, object kept_error, bint is_refusal, double now
) except -1:
    # The pool's own connect has failed. Returns what there is to tell. Where no outage holds acquires back, the waiter
    # for whom it was gets the error, or else the oldest one without a create. The pool keeps a copy of the error: what
    # is raised has a traceback, with all that its frames hold.
    cdef EndpointPool ep = pool_of(ticket)
    cdef Growth g = ep.growth
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef void *p
    cdef int news
    cdef double jitter = jitter_of(core)
    _old_error = None
    if made_before_fork(core, ticket.fork_epoch):
        return 0
    if not end_own_create(core, ep, ticket, now):
        return 0
    count_failure(core, is_refusal)
    p = waiter_of(ep, <void *>ticket)
    if p != NULL:
        (<Waiter>p).create = NULL
    else:
        p = first_uncovered(ep)
    _old_error = g.error
    g.error = kept_error
    news = note_failure(core, ep, <void *>ticket, is_refusal, True, jitter, now)
    if p != NULL and not waits_out(core, g) and fail_waiter(core, ep, p, FAILED, error, &notified):
        news |= REACHED
    note_short(core, ep, now)
    gcp_unlock(&ep.lock)
    after_slot_freed(core, ep, ticket, now, &core.doomed_for_worker, &notified)
    gcp_unlock(&core.lock)
    notify_all(core, &notified)
    return news


cdef bint end_own_create(PoolCore core, EndpointPool ep, Entry ticket, double now) noexcept:
    # No lock is held; if this returns True, both are. False if grown() has ended the create, and raised after that.
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    if ticket.state != CREATING:
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
        return False
    advance_relief(core, now)
    count_create(core, ticket, now)
    if ticket.conn_ is not NOTHING:     # connected, but grown() could not take it into the books
        doom(core, ep, ticket, &core.doomed_for_worker, BECAUSE_DISCARDED)
    else:
        free_slot(core, ep, ticket)
    ep.growth.creating -= 1
    return True


cdef int grow_cancelled(PoolCore core, Entry ticket, double now) except -1:
    # The pool's own connect was given up: its task was cancelled, or its loop was closed.
    cdef EndpointPool ep = pool_of(ticket)
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef void *p
    if made_before_fork(core, ticket.fork_epoch):
        return 0
    if not end_own_create(core, ep, ticket, now):
        return 0
    core.counters.create_errors += 1
    p = waiter_of(ep, <void *>ticket)
    if p != NULL:
        (<Waiter>p).create = NULL
    give_up_attempt(core, ep.growth, <void *>ticket, now)
    note_short(core, ep, now)
    gcp_unlock(&ep.lock)
    after_slot_freed(core, ep, ticket, now, &core.doomed_for_worker, &notified)
    gcp_unlock(&core.lock)
    notify_all(core, &notified)
    return 0


cdef inline double jitter_of(PoolCore core) except? -2:
    # From -1 to 1. Drawn with no lock held.
    return 0.0 if core.random is None else 2 * <double>core.random() - 1


cdef inline void count_failure(PoolCore core, bint is_refusal) noexcept:
    # core.lock is held.
    core.counters.create_errors += 1
    core.counters.refused += is_refusal


cdef void *first_uncovered(EndpointPool ep) noexcept:
    # ep.lock is held. The oldest waiter for whom no connection is being created.
    cdef void *p = ep.queue.head
    while p != NULL and (<Waiter>p).create != NULL:
        p = (<Waiter>p).next
    return p


cdef bint fail_waiter(
    PoolCore core, EndpointPool ep, void *p, int state, object error, Chain *notified
) noexcept:
    # Both locks are held. A queued waiter gets the error of a connect. False if it is just being freed.
    if not gcp_try_incref(p):
        return False
    waiter_unlink(ep, p)
    (<Waiter>p).error = error
    (<Waiter>p).state = state
    count_unserved(core, p)
    chain_append(notified, <Waiter>p)
    update_wants_slot(core, ep)
    return True


cdef void fail_where_nothing_comes(PoolCore core, EndpointPool ep, Chain *notified) noexcept:
    # Both locks are held. With fail_fast, a waiter at an endpoint in an outage waits for a connection in use, or for
    # the create that the pool has begun for it. If there is neither, it fails as an acquire does that comes now.
    cdef Growth g = ep.growth
    cdef void *p
    if not core.fails_fast or g is None or g.state != PAUSING or g.is_refusal or out_count(ep) > 0:
        return
    p = first_uncovered(ep)
    while p != NULL:
        if not fail_waiter(core, ep, p, ENDPOINT_DOWN, g.error, notified):
            unlink_being_freed(core, ep, p)
        p = first_uncovered(ep)


# -- a connect of an acquire ---------------------------------------------------------------------------------------

cdef int connect_failed(
    PoolCore core, Waiter w, object kept_error, bint is_refusal, bint may_ask_again, double now
) except -1:
    # The connect of an acquire has failed. Returns what there is to tell; with ASKS_AGAIN the waiter holds nothing,
    # and goes on waiting. Without it everything is as it was: the waiter is cancelled next.
    cdef Entry ticket = w.entry
    cdef EndpointPool ep = pool_of(ticket)
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef int news
    cdef bint asks_again = may_ask_again and (is_refusal or core.reconnect_timeout > 0)
    cdef double jitter = jitter_of(core)
    _old_error = None
    if made_before_fork(core, ticket.fork_epoch) or ticket.conn_ is not NOTHING or ep.growth is None:
        return 0
    gcp_lock(&core.lock)
    advance_relief(core, now)
    gcp_lock(&ep.lock)
    _old_error = ep.growth.error
    ep.growth.error = kept_error
    news = note_failure(core, ep, <void *>ticket, is_refusal, False, jitter, now)
    if asks_again:
        free_slot(core, ep, ticket)
        core.connecting -= 1
        count_create(core, ticket, now)
        count_unserved(core, <void *>w)     # until it asks again
        count_failure(core, is_refusal)
        w.state = FRESH
        news |= ASKS_AGAIN
    else:
        core.counters.refused += is_refusal     # the error itself is counted when the waiter is cancelled
        update_wants_slot(core, ep)
    gcp_unlock(&ep.lock)
    if asks_again:
        after_slot_freed(core, ep, ticket, now, &core.doomed_for_worker, &notified)
    gcp_unlock(&core.lock)
    if asks_again:
        w.entry = None
        notify_all(core, &notified)
    return news


cdef void note_connected(PoolCore core, EndpointPool ep, double now, Chain *notified) noexcept:
    # Both locks are held. An acquire has connected.
    if ep.growth is not None:
        advance_relief(core, now)
        end_outage(core, ep.growth, now)
        note_filled(core, ep, notified)
        note_short(core, ep, now)
        update_wants_slot(core, ep)
