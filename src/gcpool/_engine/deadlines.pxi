# The end of a lifetime without end: after all others, and yet a deadline, so that the connection can be evicted.
cdef double NEVER = DBL_MAX


cdef inline void set_due(PoolCore core) noexcept:
    gcp_store_double(&core.due_at, core.expiry.items[0].key if core.expiry.used else INFINITY)


cdef void *first_due_locked(PoolCore core, double limit) noexcept:
    # The idle entry whose deadline comes first, if the queue says that it is not after `limit`, with its endpoint
    # pool's lock held; else NULL. core.lock is held, no other. Keys in the queue are never later than the
    # deadlines, so the first one that is up to date is the minimum.
    cdef void *p
    cdef EndpointPool ep
    cdef double deadline
    cdef unsigned long long stamp
    while core.expiry.used and core.expiry.items[0].key <= limit:
        p = core.expiry.items[0].item
        ep = (<Entry>p).pool
        gcp_lock(&ep.lock)
        if (<Entry>p).state != IDLE:
            (<Entry>p).heap_key = INFINITY
            core.expiry.remove(p)
            gcp_unlock(&ep.lock)
            continue
        deadline = (<Entry>p).expires_at
        stamp = (<Entry>p).stamp
        if not (<Entry>p).is_core and (<Entry>p).used_at + core.idle_timeout < deadline:
            deadline = (<Entry>p).used_at + core.idle_timeout
        if deadline == (<Entry>p).heap_key and stamp == core.expiry.items[0].stamp:
            return p
        (<Entry>p).heap_key = deadline
        core.expiry.rekey(p, deadline, stamp)
        gcp_unlock(&ep.lock)
    return NULL


cdef void *evict(PoolCore core, double limit, Chain *doomed) noexcept:
    # Doom the idle connection whose deadline comes first, if that is not after `limit`. Only core.lock is held.
    cdef void *p = first_due_locked(core, limit)
    cdef EndpointPool ep
    if p != NULL:
        ep = (<Entry>p).pool
        idle_unlink(ep, p)
        (<Entry>p).heap_key = INFINITY
        core.expiry.remove(p)
        doom(core, ep, <Entry>p, doomed)
        gcp_unlock(&ep.lock)
    set_due(core)
    return p


cdef int call_collector(PoolCore core) except -1:
    try:
        if core.wake_collector() is False:
            forget_wake(core)
    except BaseException:
        # A signal handler raised in it, maybe. Nothing else would tell the collector of what is due: so once more.
        forget_wake(core)
        core.wake_collector()
        raise
    return 0


cdef void forget_wake(PoolCore core) noexcept:
    # The collector was not told: the next connection that is queued for expiry tries again.
    gcp_lock(&core.lock)
    core.wake_at = INFINITY
    gcp_unlock(&core.lock)
