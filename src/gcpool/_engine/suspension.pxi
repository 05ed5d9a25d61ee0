# SUSPENSION. While the pool is suspended, no acquire is served: acquires queue, and connections that are released
# become idle, even if an acquire waits. An acquire that already holds a ticket or a connection continues. Waiters keep
# their places, so those that wait when suspend() is called are served in their turn after resume().
#
# resume() first ends the suspension and begins RESUMING, during which no acquire and no release takes the short path
# that looks only at one endpoint pool: such an acquire could take an idle connection before a waiter that resume() has
# not reached yet.

cdef inline bint is_closed(PoolCore core) noexcept:
    return gcp_load_int(&core.restrictions) & CLOSED != 0


cdef inline bint is_suspended(PoolCore core) noexcept:
    return gcp_load_int(&core.restrictions) & SUSPENDED != 0


cdef inline void restrict_locked(PoolCore core, int bits) noexcept:
    # core.lock is held.
    gcp_store_int(&core.restrictions, core.restrictions | bits)


cdef inline void allow_locked(PoolCore core, int bits) noexcept:
    # core.lock is held.
    gcp_store_int(&core.restrictions, core.restrictions & ~bits)


cdef inline bint begins_now(Waiter w) noexcept:
    # Whether an acquire asks for the first time. If not, it was served a dead connection and asks for another one.
    return w.dead_entry is None and not w.has_waited and not w.check_timed_out


cdef bint suspend(PoolCore core, bint fail) except -1:
    # False if the pool is closed. Connections that are idle meanwhile may be doomed, for a worker.
    cdef bint closed
    gcp_lock(&core.lock)
    closed = is_closed(core)
    if not closed:
        allow_locked(core, FAILING)
        restrict_locked(core, SUSPENDED | FAILING if fail else SUSPENDED)
    gcp_unlock(&core.lock)
    if not closed:
        give_up_checks(core, read_clock(core))
    return not closed


cdef list begin_resuming(PoolCore core):
    # No lock is held. Returns the endpoint pools; None if the pool is not suspended. On MemoryError it stays suspended.
    cdef int suspension
    gcp_lock(&core.lock)
    suspension = core.restrictions & (SUSPENDED | FAILING)
    if suspension:
        allow_locked(core, SUSPENDED | FAILING)
        restrict_locked(core, RESUMING)
    gcp_unlock(&core.lock)
    if not suspension:
        return None
    try:
        return endpoint_pools_in_order(core)
    except MemoryError:
        gcp_lock(&core.lock)
        restrict_locked(core, suspension)
        allow_locked(core, RESUMING)
        gcp_unlock(&core.lock)
        raise


cdef bint resume(PoolCore core, double now) except -1:
    # False if the pool is not suspended.
    cdef EndpointPool ep
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint serves
    pools = begin_resuming(core)
    if pools is None:
        return False
    for i, ep in enumerate(pools):
        gcp_lock(&core.lock)
        advance_relief(core, now)
        gcp_lock(&ep.lock)
        serves = serve_idle(core, ep, now, &served)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
        if not serves:
            pools[i] = None
    # Only now is it known how many endpoints want a slot, and so what the share of each is.
    for ep in pools:
        if ep is not None:
            gcp_lock(&core.lock)
            gcp_lock(&ep.lock)
            note_resumed(core, ep)
            gcp_unlock(&ep.lock)
            gcp_unlock(&core.lock)
    gcp_lock(&core.lock)
    allow_locked(core, RESUMING)
    advance_relief(core, now)
    dispatch(core, &core.doomed_for_worker, &served)
    wake_checker_again(core)
    gcp_unlock(&core.lock)
    try:
        notify_all(core, &served)
    finally:
        call_checker_if_late(core)
    return True


cdef bint serve_idle(PoolCore core, EndpointPool ep, double now, Chain *served) noexcept:
    # Both locks are held. Lends the idle connections to the waiters of the same endpoint, unless the pool was suspended
    # again. True if there were any.
    cdef void *e
    cdef void *p
    cdef void *last = core.doomed_for_worker.tail
    cdef bint served_here = False
    doom_expired_first(core, ep, now)
    while ep.queue.head != NULL and next_idle(core, ep) != NULL and not is_suspended(core) and not is_closed(core):
        p = first_waiter(core, ep)
        if p == NULL:
            break
        e = next_idle(core, ep)
        unlink_idle(ep, <Entry>e)
        waiter_unlink(ep, p)
        lend(ep, <Entry>e, now)
        serve(<Waiter>p, <Entry>e)
        chain_append(served, <Waiter>p)
        served_here = True
        doom_expired_first(core, ep, now)
    if not ep.forgotten:
        update_wants_slot(core, ep)
    count_as_relief_after(core, last)
    return served_here
