# SUSPECTS. One dead connection casts doubt on the endpoint's others: those that were not seen alive since are suspect,
# and are checked before they are served. No list is walked for that: EndpointPool.distrust_count goes up, and an entry
# is suspect while its verified_at differs from that.

cdef inline Entry entry_held_by(Waiter w):
    # The entry that a waiter holds. RuntimeError if it holds none: Python code can make a waiter itself.
    pool_of(None if w is None else w.entry)
    return w.entry


cdef bint needs_check(PoolCore core, Waiter w, double now, double interval) except -1:
    cdef Entry e = entry_held_by(w)
    cdef bint needed
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&e.pool.lock)
    needed = must_be_checked(e.pool, e, now, interval)
    gcp_unlock(&e.pool.lock)
    return needed


cdef int begin_check(PoolCore core, Waiter w) except -1:
    cdef Entry e = entry_held_by(w)
    if not made_before_fork(core, e.fork_epoch):
        gcp_lock(&core.lock)
        core.counters.checks += 1
        gcp_lock(&e.pool.lock)
        w.distrust_at_check = e.pool.distrust_count
        e.check_pending = True
        gcp_unlock(&e.pool.lock)
        gcp_unlock(&core.lock)
    return 0


cdef int end_check(PoolCore core, Waiter w) except -1:
    cdef Entry e = entry_held_by(w)
    if not made_before_fork(core, e.fork_epoch):
        gcp_lock(&e.pool.lock)
        if is_lease_of(e, w.lease_no):
            e.verified_at = w.distrust_at_check
            e.check_pending = False
        gcp_unlock(&e.pool.lock)
    return 0


cdef bint still_holds(PoolCore core, Waiter w) except -1:
    cdef Entry e = entry_held_by(w)
    cdef bint held
    if made_before_fork(core, e.fork_epoch):    # the check or the hook has forked, and this is the child
        return True
    gcp_lock(&e.pool.lock)
    held = is_acquired_by(e, w.lease_no)
    gcp_unlock(&e.pool.lock)
    return held


cdef int mark_unchecked(PoolCore core, Entry e, unsigned int lease_no) except -1:
    cdef EndpointPool ep = pool_of(e)
    if not made_before_fork(core, e.fork_epoch):
        gcp_lock(&ep.lock)
        if is_lease_of(e, lease_no):
            e.check_pending = True
        gcp_unlock(&ep.lock)
    return 0


cdef int distrust_endpoint(PoolCore core, Entry e, unsigned int lease_no) except -1:
    cdef EndpointPool ep = pool_of(e)
    if not made_before_fork(core, e.fork_epoch):
        gcp_lock(&ep.lock)
        if is_checked_out_by(e, lease_no):
            ep.distrust_count += 1
        gcp_unlock(&ep.lock)
    return 0


cdef int reject_dead(PoolCore core, Waiter w) except -1:
    cdef Entry e = w.entry
    cdef EndpointPool ep = pool_of(e)
    cdef bint held
    if not made_before_fork(core, e.fork_epoch):
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        held = is_acquired_by(e, w.lease_no)
        if held:
            begin_closing(core, ep, e, BECAUSE_DEAD)
            ep.acquires -= 1
            core.connecting += 1    # until the waiter asks again, or is cancelled: doom_dead()
            core.counters.checks_failed += 1
            core.counters.dead += 1
            ep.distrust_count += 1
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
        if held:
            w.dead_entry = e
        else:
            w.counted = COUNTED_SERVED
            if is_lease_of(e, w.lease_no):
                forget_closed_while_out(core, e)
    w.entry = None
    w.state = FRESH
    return 0


cdef bint retire(
    PoolCore core, Entry e, double now, Chain *doomed, unsigned int lease_no, int reason, bint by_user=False,
    bint was_fit=False
) except -1:
    # Takes a checked-out connection out of use for good. Without a chain the caller closes it. For its user, see
    # taking.pxi.
    cdef EndpointPool ep = pool_of(e)
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint relief_ended = False
    cdef bint out
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    out = is_acquired_by(e, lease_no) if by_user else is_checked_out_by(e, lease_no)
    if by_user and (out or e.closed_while_out):
        gcp_store_char(&e.given_up, True)
    if out:
        end_use(core, ep, e, now)
        note_used(ep, now)
        begin_closing(core, ep, e, reason)
        core.counters.broken += not (by_user or was_fit)
        relief_ended = advance_relief(core, now)
        count_as_relief(core, <void *>e)
        if doomed != NULL:
            chain_append(doomed, e)
    gcp_unlock(&ep.lock)
    if relief_ended:
        dispatch(core, &core.doomed_for_caller, &served)
    tell_end_of_use(core, &served)
    gcp_unlock(&core.lock)
    try:
        notify_all(core, &served)
    except BaseException:
        if out and doomed == NULL:      # the exception keeps the caller from closing the connection
            doom_again(core, e)
        raise
    if not out:
        must_be_out(core, e, lease_no)
    return out


cdef inline int reason_to_retire(bint discarded) noexcept:
    return BECAUSE_DISCARDED if discarded else BECAUSE_BROKEN
