# THE CONNECT OF AN ACQUIRE, AND HOW IT ENDS: with success, with an error, or given up. A new connection is entered in
# the books here, also where the pool itself has connected.

cdef int enter_connection(PoolCore core, Entry ticket, object conn, double now) except -1:
    # A connect has succeeded: enters the connection in the books. Returns what add_connection() returns, with both
    # locks held; if this raises, none is.
    cdef EndpointPool ep = pool_of(ticket)
    cdef CheckTimer timer
    cdef double lifetime = gcp_load_double(&core.max_lifetime)
    cdef int outcome
    if made_before_fork(core, ticket.fork_epoch):
        Py_INCREF(conn)     # never given back: a finalizer of the connection would end the parent's session
        endpoint = endpoint_text(core, ep.endpoint)
        raise RuntimeError(f'the process was forked while {pool_text(core)} created a connection to {endpoint}')
    ticket.conn_ = conn             # from here on cancel() has the connection closed
    try:
        core.entries.add(ticket)    # of this process: request() has called entries_of_this_process()
    except MemoryError:
        Py_INCREF(ticket)           # never given back: the set does not own the ticket, and the doomed only borrow it
        raise
    if core.lifetime_jitter > 0:
        lifetime *= 1 - core.lifetime_jitter * <double>core.random()
    timer = new_check_timer(core, ticket)
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    gcp_assert(ticket.state == CREATING)
    outcome = add_connection(&core.directory, ticket)
    if outcome == KNOWN_ALREADY:
        ticket.conn_ = NOTHING      # not to be closed: another entry has this connection. The caller holds a reference
    elif outcome == ADDED:
        core.counters.created += 1
        count_create(core, ticket, now)
        ticket.used_at = now
        ticket.expires_at = min(now + lifetime, NEVER)
        ticket.stamp = gcp_next_stamp(&core.stamp, &ep.marks)       # until its first release: for doom_acquired()
        if timer is not None:
            push_check_timer(core, timer, now)
    return outcome


cdef int raise_unless_added(PoolCore core, Entry ticket, object conn, int outcome) except -1:
    # No lock is held.
    if outcome != ADDED and core.check_timers is not None:
        core.check_timers.pop(ticket, None)
    if outcome == NO_MEMORY:
        raise MemoryError
    if outcome == KNOWN_ALREADY:
        core.entries.discard(ticket)
        raise ValueError(
            f'create() for endpoint {endpoint_text(core, ticket.pool.endpoint)} returned {conn!r}, '
            f'which {pool_text(core)} already holds: expected a new connection'
        )
    return 0


cdef bint created(PoolCore core, Entry ticket, object conn, double now) except -1:
    cdef EndpointPool ep = pool_of(ticket)
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef int outcome = enter_connection(core, ticket, conn, now)
    cdef bint served = outcome == ADDED and not is_closed(core)
    if served:
        lend(ep, ticket, now)
        note_connected(core, ep, now, &notified)
    elif outcome == ADDED:
        core.counters.asked += 1
        doom(core, ep, ticket, &core.doomed_for_worker, BECAUSE_POOL_CLOSED)
    core.connecting -= outcome == ADDED
    gcp_unlock(&ep.lock)
    if served and ep.growth is not None:
        dispatch(core, &core.doomed_for_worker, &notified)
    gcp_unlock(&core.lock)
    raise_unless_added(core, ticket, conn, outcome)
    notify_all(core, &notified)
    call_checker_if_late(core)
    return served


cdef int create_failed(PoolCore core, Waiter w, double now) except -1:
    cdef Entry ticket = w.served
    w.entry = None
    w.state = CANCELLED
    w.counted = COUNTED_UNSERVED        # by return_ticket()
    return return_ticket(core, ticket, now)


cdef int return_ticket(PoolCore core, Entry ticket, double now) except -1:
    cdef EndpointPool ep = ticket.pool
    cdef Chain served = Chain(NULL, NULL, 0)
    if made_before_fork(core, ticket.fork_epoch):
        return 0
    gcp_lock(&core.lock)
    advance_relief(core, now)
    gcp_lock(&ep.lock)
    gcp_assert(ticket.state == CREATING)
    core.counters.create_errors += 1
    core.counters.asked += 1
    core.connecting -= 1
    count_create(core, ticket, now)
    if ticket.conn_ is not NOTHING:     # connected, but created() could not enter it in the books
        doom(core, ep, ticket, &core.doomed_for_worker, BECAUSE_DISCARDED)
        count_as_relief(core, <void *>ticket)
        if ep.growth is not None:
            give_up_attempt(core, ep.growth, <void *>ticket, now)
            update_wants_slot(core, ep)
        gcp_unlock(&ep.lock)
        dispatch(core, &core.doomed_for_worker, &served)
    else:
        free_slot(core, ep, ticket)
        if ep.growth is not None:
            give_up_attempt(core, ep.growth, <void *>ticket, now)
        gcp_unlock(&ep.lock)
        after_slot_freed(core, ep, ticket, now, &core.doomed_for_worker, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return 0


cdef int connect_failed(
    PoolCore core, Waiter w, object kept_error, bint is_refusal, bint may_ask_again, double now
) except -1:
    # The connect of an acquire has failed. Returns the news to report; with ASKS_AGAIN the waiter holds nothing, and
    # continues to wait. Without it nothing has changed: the waiter is cancelled next.
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
    news = note_failure(core, ep, <void *>ticket, is_refusal, False, False, jitter, now)
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


cdef int begin_create_if_ticket(Entry ticket, double now) except -1:
    pool_of(ticket)
    if gcp_load_char(&ticket.state) == CREATING:
        begin_create(ticket, now)
    return 0
