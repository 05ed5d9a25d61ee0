# CREATES BY THE POOL ITSELF. A worker takes a ticket, connects, and reports the outcome.

cdef Entry take_create(PoolCore core, double now):
    # For a worker: a ticket that belongs to no acquire, or None if there is nothing to create, or no create may begin.
    # No lock is held.
    cdef Entry ticket = Entry()
    cdef Growth g
    cdef EndpointPool ep
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef bint found = False
    entries_of_this_process(core)
    gcp_lock(&core.lock)
    while not found:
        g = take_reserved(core) if room_for_jobs(core, CREATE_JOB) else None
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
            begin_job(core, ticket, CREATE_JOB)
        else:
            free_reserved(core, ep, now)
            gcp_unlock(&ep.lock)
            advance_relief(core, now)
            after_slot_freed(core, ep, None, now, &core.doomed_for_worker, &notified)
    gcp_unlock(&core.lock)
    try:
        notify_all(core, &notified)
    except BaseException:
        if found:           # no worker would connect for it
            grow_cancelled(core, ticket, now)
        raise
    return ticket if found else None


cdef bint may_begin_reserved(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Whether a slot that take_reserved() has taken is still needed: the waiters may have got
    # other connections meanwhile. And whether its connect may begin: since the slot was reserved, a limit may have been
    # lowered, or an outage may have begun, in which there is one attempt at a time.
    cdef Growth g = ep.growth
    cdef bint held_back = not may_attempt(g) and not (g.state == TRYING and g.attempt == NULL)
    cdef int begun = g.creating - g.reserved - 1
    if exceeds_max_size(core, ep) or exceeds_total_max_size(core):
        return False
    if ep.waiting > begun and not (held_back and holds_back_acquires(core, g)):
        return True
    return ep.size <= max(g.pinned, core.min_size) and not held_back


cdef void cover_waiter(EndpointPool ep, void *ticket) noexcept:
    # ep.lock is held. The ticket is created for the oldest waiter without one.
    cdef void *p = first_uncovered(ep)
    if p != NULL:
        (<Waiter>p).create = ticket


cdef void *waiter_of(EndpointPool ep, void *ticket) noexcept:
    # ep.lock is held. The waiter for whom the ticket was created; NULL if it no longer waits.
    cdef void *p = ep.queue.head
    while p != NULL and (<Waiter>p).create != ticket:
        p = (<Waiter>p).next
    return p


cdef void pass_on_create(EndpointPool ep, void *p) noexcept:
    # ep.lock is held. The waiter leaves the queue without the connection of its create, which is then for the oldest
    # waiter that has none.
    cdef void *create = (<Waiter>p).create
    if create != NULL:
        (<Waiter>p).create = NULL
        cover_waiter(ep, create)


cdef bint grown(PoolCore core, Entry ticket, object conn, double now) except -1:
    # A connect by the pool itself has succeeded. False if the connection is doomed: the pool was closed meanwhile.
    cdef EndpointPool ep = pool_of(ticket)
    cdef Settled settled
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef void *asker
    cdef double used_at = now
    cdef int outcome = enter_connection(core, ticket, conn, now)
    settled.outcome = KEEP
    settled.first = NULL
    settled.wake = False
    end_job(core, ticket)
    if outcome == ADDED:
        advance_relief(core, now)
        ep.growth.creating -= 1
        asker = waiter_of(ep, <void *>ticket)
        if asker != NULL:
            (<Waiter>asker).create = NULL
        # If no connection is in use or being checked, and no acquire waits, this does not keep the endpoint live for
        # longer: as if the connection was returned when the last one was.
        if out_count(ep) == 0 and checking_count(ep) == 0 and ep.waiting == 0:
            used_at = used_last(ep)
        move(ep, ticket, CREATING, ACQUIRED)
        begin_use(ticket, now)
        end_outage(core, ep.growth, now)
        update_wants_slot(core, ep)     # if settle() dooms the connection, its slot is for the waiter without a create
        settled = settle(core, ep, ticket, True, now, used_at if used_at > -INFINITY else now,
                         False, &core.doomed_for_worker, &served)
        if settled.outcome == HAND_OVER:
            (<Waiter>settled.first).is_new = True
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
    PoolCore core, Entry ticket, object error, object kept_error, bint is_refusal, bint is_hopeless, double now
) except -1:
    # A connect by the pool itself has failed. Returns the news to report. If no outage holds acquires back, its waiter
    # gets the error, or else the oldest waiter without a create. The pool keeps a copy of the error: the raised one has
    # a traceback, with all that its frames refer to.
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
    news = note_failure(core, ep, <void *>ticket, is_refusal, is_hopeless, True, jitter, now)
    if p != NULL and (is_hopeless or not waits_out(core, g)) and fail_waiter(core, ep, p, FAILED, error, &notified):
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
    end_job(core, ticket)
    count_create(core, ticket, now)
    ep.growth.creating -= 1
    if ticket.conn_ is not NOTHING:     # connected, but grown() could not enter it in the books
        doom(core, ep, ticket, &core.doomed_for_worker, BECAUSE_DISCARDED)
        update_wants_slot(core, ep)
        count_as_relief(core, <void *>ticket)
    else:
        free_slot(core, ep, ticket)
    return True


cdef int grow_cancelled(PoolCore core, Entry ticket, double now) except -1:
    # A connect by the pool itself was given up: its task was cancelled, or its loop was closed.
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
    # ep.lock is held. The oldest waiter for which no connection is being created.
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
    # the create that the pool has begun for it. If there is neither, it fails as a new acquire does.
    cdef Growth g = ep.growth
    cdef void *p
    if not core.fails_fast or g is None or g.state != PAUSING or g.is_refusal or out_count(ep) > 0:
        return
    p = first_uncovered(ep)
    while p != NULL:
        if not fail_waiter(core, ep, p, ENDPOINT_DOWN, g.error, notified):
            unlink_being_freed(core, ep, p)
        p = first_uncovered(ep)
