# RESERVED SLOTS. A reserved slot counts as a connection that is being created. Tickets are made when a worker comes,
# with no lock held, because they have to be allocated. If no worker is available, the waiters get the slots, and
# connect themselves.

# Seconds during which no minimum is filled after no worker was available.
cdef double FILL_PAUSE = 0.2


cdef void reserve_create(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held, and both limits allow one more connection.
    cdef Growth g = ep.growth
    gcp_assert(has_room(core, ep) and pool_has_room(core))
    ep.counts[CREATING] += 1
    ep.size += 1
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
    ep.size -= 1
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
    # No lock is held. Calls a worker, because slots are reserved, or the next timer has changed. If none is available,
    # the waiters connect.
    if not gcp_load_int(&core.must_call_workers):
        return 0
    gcp_store_int(&core.must_call_workers, False)
    # A closed pool has no reserved slots, and terminate() starts no thread.
    if core.call_workers is None or is_closed(core):
        return 0
    failure = None
    gcp_fence()     # as in begin_disposals(): the reserved slots are visible before free workers are counted
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
    # No worker is available. A slot without a waiter is freed, and goes to a waiter of another endpoint if one wants
    # it. Minimums are filled after a pause, at the next run of the timers.
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


cdef int call_workers_again(PoolCore core) except -1:
    gcp_store_int(&core.must_call_workers, True)
    return call_workers(core)
