# What take_idle() returns: the entry of a connection that was idle, or the connection itself, with a reference that is
# the caller's. NULL if no connection is ready.
cdef enum Taken:
    TAKEN_ENTRY
    TAKEN_CONNECTION


cdef inline void *take_idle(PoolCore core, object endpoint, double now, double interval, Taken what) except? NULL:
    # An idle connection, core ones first. NULL if none is ready, or if the endpoint is spelled as never before: then
    # the caller calls request(), which asks the manager about the spelling. With an interval, NULL also if the
    # connection was not used for that many seconds, or has to be checked for another reason.
    cdef Slot *slot = NULL
    cdef void *ep = NULL
    if GCP_SHARED_STAMP:
        slot = prefetch_endpoint(&core.directory, endpoint)
        if gcp_likely(slot != NULL):
            ep = slot.value     # no reference is taken: no Python code runs here that could free the endpoint pool
            gcp_lock(&(<EndpointPool>ep).lock)
    else:
        ep = lock_pool_borrowed(&core.directory, endpoint)
    if gcp_likely(ep != NULL):
        return take_idle_and_unlock(core, <EndpointPool>ep, slot, now, interval, what)
    return take_idle_if_known(core, endpoint, now, interval, what)


cdef void *take_idle_if_known(PoolCore core, object endpoint, double now, double interval, Taken what) except? NULL:
    cdef EndpointPool ep = find_known_pool(core, endpoint)
    if ep is None:
        return NULL
    gcp_lock(&ep.lock)
    return take_idle_and_unlock(core, ep, NULL, now, interval, what)


cdef inline void *take_idle_and_unlock(
    PoolCore core, EndpointPool ep, Slot *slot, double now, double interval, Taken what
) noexcept:
    cdef void *p = next_idle(core, ep)
    cdef bint is_core = p == ep.core.head
    cdef void *taken
    # This overtakes no waiter: an endpoint that has waiters has no idle connection.
    if (
        gcp_unlikely(p == NULL)
        or gcp_unlikely(gcp_load_int(&core.restrictions) != 0)
        or gcp_unlikely(lifetime_is_over(<Entry>p, now))
        or (interval > 0 and gcp_unlikely(must_be_checked(ep, <Entry>p, now, interval)))
    ):
        gcp_unlock(&ep.lock)
        return NULL
    if gcp_likely(slot != NULL):
        set_hint(slot, <Entry>p)
    if gcp_likely(is_core):
        unlink_first_core(ep, <Entry>p)
        lend_from(ep, <Entry>p, IDLE_CORE, now)
    else:
        linked_remove(&ep.extra, <Entry>p)
        lend_from(ep, <Entry>p, IDLE_EXTRA, now)
    taken = p if what == TAKEN_ENTRY else <void *>(<Entry>p).conn_
    Py_INCREF(<object>taken)    # under the lock: after that, close() may doom the entry, and a worker free it
    gcp_unlock(&ep.lock)
    return taken


cdef int adopt(PoolCore core, Waiter w, Entry e) except -1:
    w.core = core
    w.pool = pool_of(e)
    if core.normalize is not None:
        w.endpoint = w.pool.endpoint
    serve(w, e)
    gcp_lock(&core.lock)
    number_locked(core, w)
    gcp_unlock(&core.lock)
    return 0


cdef inline void number_locked(PoolCore core, Waiter w) noexcept:
    # core.lock is held. Numbers waiters by arrival. A waiter that was served a dead connection and asks again keeps its
    # number, and so its place in the queue.
    if w.number == 0:
        core.arrivals += 1
        w.number = core.arrivals


# -- request -------------------------------------------------------------------------------------------------------

# What an acquire gets; the first line that applies decides:
#
#   the pool is closed, or not open yet                         REFUSE
#   the pool is suspended; if acquires that begin are to fail   QUEUE; REFUSE
#   the waiter that it interrupts was served                    TAKE_OVER
#   a waiter that arrived earlier is queued at the endpoint     QUEUE, or TURN_AWAY
#   a connection of the endpoint is idle                        LEND_IDLE
#   the limits, and an outage if there is one, allow one more
#   connection                                                  CONNECT
#     but the pool itself creates it                            QUEUE, or TURN_AWAY
#   with fail_fast: the endpoint is in an outage (and not just
#   full), it is not time for the next attempt, and none of its
#   connections is in use                                       FAIL
#   otherwise                                                   QUEUE, or TURN_AWAY
cdef enum:
    REFUSE
    TAKE_OVER
    TURN_AWAY       # max_waiting acquires are queued at the endpoint, and this one has been served nothing yet
    QUEUE
    LEND_IDLE
    CONNECT
    FAIL


cdef int decide_request(PoolCore core, EndpointPool ep, Waiter w, Waiter interrupted, bint begins) noexcept:
    # Both locks are held.
    if core.restrictions & (CLOSED | NOT_OPEN):
        return REFUSE
    if is_suspended(core):
        return REFUSE if core.restrictions & FAILING and begins else queue_or_turn_away(core, ep, w)
    if interrupted is not None:
        if can_take_over(interrupted):
            return TAKE_OVER
        come_before(w, interrupted)
    if ep.queue.head != NULL and (<Waiter>ep.queue.head).number < w.number:
        return queue_or_turn_away(core, ep, w)
    if next_idle(core, ep) != NULL:
        return LEND_IDLE
    if may_connect(core, ep) and pool_has_room(core):
        return queue_or_turn_away(core, ep, w) if pool_creates(core, ep) else CONNECT
    if core.fails_fast and is_held_off(ep) and out_count(ep) == 0:
        return FAIL
    return queue_or_turn_away(core, ep, w)


cdef inline int queue_or_turn_away(PoolCore core, EndpointPool ep, Waiter w) noexcept:
    # Both locks are held. A waiter that was served a dead connection and asks again is always queued: it has its place.
    if core.max_waiting and ep.waiting >= core.max_waiting and w.lease_no == ANY_LEASE:
        return TURN_AWAY
    return QUEUE


cdef bint request(PoolCore core, Waiter w, double now) except -1:
    cdef Entry _dead_entry = w.dead_entry       # holds the reference until no lock is held
    cdef EndpointPool ep = find_and_lock_both(core, w)
    cdef Waiter interrupted = interrupted_by(ep, w)
    cdef void *last = core.doomed_for_worker.tail
    cdef Entry e
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint relief_ended = advance_relief(core, now)
    cdef bint begins = begins_now(w)
    cdef bint out_of_memory = False
    cdef bint pause_ended = False
    cdef int outcome
    advance_overtaking(core, now)
    number_locked(core, w)
    w.is_new = False
    # In the same locked region in which the waiter is served or queued: otherwise another acquire could get the slot of
    # the dead connection in between.
    doom_dead(core, w)
    doom_expired_first(core, ep, now)
    if ep.growth is not None and not is_closed(core):
        pause_ended = end_pause_if_over(core, ep, now)
    outcome = decide_request(core, ep, w, interrupted, begins)
    if outcome == TAKE_OVER:
        take_over(w, interrupted)
    elif outcome == REFUSE:
        refuse(core, w)
        forget_if_empty(core, ep)
    elif outcome == TURN_AWAY:
        w.state = TURNED_AWAY
        count_unserved(core, <void *>w)
        core.counters.too_many += 1
    elif outcome == FAIL:
        w.state = ENDPOINT_DOWN
        count_unserved(core, <void *>w)
        w.error = ep.growth.error
    elif outcome == LEND_IDLE:
        e = <Entry>next_idle(core, ep)
        unlink_idle(ep, e)
        lend(ep, e, now)
        serve(w, e)
    elif outcome == CONNECT:
        serve_ticket(core, ep, w)
        if ep.heap_index >= 0:      # waiters that came later wanted a slot, and this may be the last one
            update_wants_slot(core, ep)
    elif reserve_heap_slot(core, ep):
        w.queued_at = w.waits_from = now
        advance_kept_places(core, now)
        enqueue(core, ep, w)
        if ep.growth is not None:
            shorten_pause(core, ep)
        update_wants_slot(core, ep)
    else:
        w.state = FRESH
        forget_if_empty(core, ep)
        out_of_memory = True
    count_as_relief_after(core, last)       # what this acquire has doomed frees slots, too
    gcp_unlock(&ep.lock)
    if pause_ended or (core.wanting_count and (outcome == QUEUE or relief_ended)):
        dispatch(core, &core.doomed_for_worker, &served)
    if outcome == QUEUE:
        note_waiter_after(core, last)
    if _dead_entry is not None:
        tell_end_of_use(core, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    if out_of_memory:
        raise MemoryError
    return outcome == QUEUE


cdef bint request_ticket(PoolCore core, Waiter w) except -1:
    # The short form of request() for a waiter that gets a ticket at once, and for whom nothing has to be closed. False
    # if nothing was done: an endpoint wants a slot, or the waiter has to be lent a connection, queued or refused.
    cdef object as_written = w.endpoint
    cdef EndpointPool ep = find_and_lock_both(core, w)
    cdef bint connects
    number_locked(core, w)
    connects = not core.wanting_count and decide_request(core, ep, w, None, True) == CONNECT
    if connects:
        serve_ticket(core, ep, w)
    else:
        forget_if_empty(core, ep)
    gcp_unlock(&ep.lock)
    gcp_unlock(&core.lock)
    if not connects:
        w.endpoint = as_written     # error messages name the endpoint as the caller wrote it
    return connects


cdef EndpointPool find_and_lock_both(PoolCore core, Waiter w):
    # Returns the endpoint pool of the waiter's endpoint, with its lock and core.lock held. The search runs user code
    # (__hash__, __eq__, normalize) with no lock held, and starts again if the endpoint pool is forgotten by now, or if
    # that code has forked the process.
    cdef EndpointPool ep
    if w.state == QUEUED or w.entry is not None:
        raise RuntimeError('the waiter already waits, or holds what it was served')
    if w.spare is None:
        w.spare = Entry()
    while True:
        # Allocates the set to which created() will add the entry. By then there is a connection that could get lost.
        entries_of_this_process(core)
        ensure_pins(core)
        ep = find_or_add_pool(core, w.endpoint)
        if w.pool is not None and made_before_fork(core, w.pool.fork_epoch):
            w.counted = NOT_COUNTED         # its count is not part of this process's books
        w.core = core
        w.pool = ep
        if core.normalize is not None:
            w.endpoint = ep.endpoint        # the manager's other methods are called with this spelling
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        # ancestor_to_be is NULL if an __eq__ has forked the process, and this is the child: allocate the child's own.
        if is_closed(core) or (not ep.forgotten and core.ancestor_to_be != NULL):
            count_again(core, w)
            return ep
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)


cdef void doom_expired_first(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. Dooms the idle connections that would be served next but have exceeded their lifetime.
    cdef void *p = next_idle(core, ep)
    while p != NULL and lifetime_is_over(<Entry>p, now):
        doom_idle(core, ep, <Entry>p, &core.doomed_for_worker, lifetime_reason(<Entry>p))
        p = next_idle(core, ep)


cdef bint reserve_heap_slot(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Reserves a place among the endpoints that want a slot. An endpoint pool with waiters may come
    # to want one at any time, for example in a release, which could not report that there is no memory. False if there
    # is none now.
    if ep.has_heap_slot:
        return True
    if not (
        heap_make_room(&core.wanting_slots, core.wanting_slots.reserved + 1)
        and heap_make_room(&core.unserved, core.unserved.reserved + 1)
    ):
        return False
    core.wanting_slots.reserved += 1
    core.unserved.reserved += 1
    ep.has_heap_slot = True
    return True


# -- the end of an acquire -----------------------------------------------------------------------------------------

cdef bint cancel(PoolCore core, Waiter w, double now) except -1:
    cdef EndpointPool ep = w.pool
    cdef Entry e
    cdef Entry dead_entry = w.dead_entry
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint waited
    cdef bint relief_ended
    if ep is None:
        w.state = CANCELLED
        return False
    if made_before_fork(core, ep.fork_epoch):
        # What the waiter waited for, or holds, belongs to the parent process.
        w.dead_entry = None
        w.entry = None
        w.state = CANCELLED
        return True
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    leave_place(core, ep, w, now)
    waited = dequeue(core, ep, <void *>w)
    if waited:
        core.counters.cancelled += 1
    count_wait(core, w, now)
    if w.entry is None:     # else what it holds counts it
        count_unserved(core, <void *>w)
    gcp_unlock(&ep.lock)
    if dead_entry is not None:
        relief_ended = advance_relief(core, now)
        doom_dead(core, w)
        count_as_relief(core, <void *>dead_entry)
        if relief_ended:
            dispatch(core, &core.doomed_for_worker, &served)
        tell_end_of_use(core, &served)
    gcp_unlock(&core.lock)
    e = w.entry
    w.entry = None
    w.state = CANCELLED
    try:
        notify_all(core, &served)
    finally:
        if e is not None:
            release_unused(core, e, w.lease_no, now)
    return waited


cdef int release_unused(PoolCore core, Entry e, unsigned int lease_no, double now) except -1:
    # Gives back a ticket or a connection that an acquire was served and did not pass on to its user. Not if the lease
    # has already ended: a check or a hook may have released the connection, and another user may have it.
    cdef int state = gcp_load_char(&e.state)
    if state == CREATING:
        return_ticket(core, e, now)
    elif (state == ACQUIRED or gcp_load_char(&e.closed_while_out)) and is_lease_of(e, lease_no):
        mark_unchecked(core, e, lease_no)       # the check of the connection, or its on_acquire, was cut off
        try:
            release_with_core_lock(core, e, now, &core.doomed_for_worker, lease_no)
        except ConnectionNotAcquired:           # another thread was faster
            pass
    return 0


cdef int must_hold(PoolCore core, Waiter w, object endpoint) except -1:
    if still_holds(core, w):
        return note_holder(core, w.entry, MOST_FRAMES) if core.records_holders else 0
    if is_closed(core):
        raise ConnectionPoolClosedError(
            f'{pool_text(core)} was closed while a connection to {endpoint_text(core, endpoint)} was acquired'
        )
    raise ConnectionNotAcquired(
        f'the manager of {pool_text(core)} released the connection {w.entry.conn_!r} during its own acquire: '
        'expected check_aliveness() and on_acquire() not to release it'
    )


cdef int end_wait(PoolCore core, Waiter w, double now) except -1:
    # The waiter was notified, and its acquire continues.
    if w.waits_from != INFINITY and not made_before_fork(core, w.pool.fork_epoch):
        gcp_lock(&core.lock)
        count_wait(core, w, now)
        gcp_unlock(&core.lock)
    return 0


cdef bint give_up(PoolCore core, Waiter w, double now) except -1:
    cdef EndpointPool ep = w.pool
    cdef bint waited
    if ep is None:
        return False
    if made_before_fork(core, ep.fork_epoch):
        return True
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    leave_place(core, ep, w, now)
    waited = dequeue(core, ep, <void *>w)
    if waited:
        core.counters.timeouts += 1
        count_unserved(core, <void *>w)
    count_wait(core, w, now)
    gcp_unlock(&ep.lock)
    gcp_unlock(&core.lock)
    return waited
