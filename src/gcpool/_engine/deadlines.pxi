# THE EXPIRY QUEUE IS LAZY. An entry's key in the queue is never later than its deadline. An acquire, or a release that
# makes the deadline later, leaves the entry where it is: so both cost O(1). When the old key comes up,
# first_due_locked() looks at the entry and puts it back under its true deadline.

# The deadline of a connection that never expires: later than all others, and yet finite, so that the connection is in
# the expiry queue and can be evicted for another endpoint.
cdef double NEVER = DBL_MAX


cdef inline double deadline_if_idle(PoolCore core, Entry e, bint is_core, double used_at) noexcept:
    # The end of the connection's lifetime, or the end of its idle time if that comes first. A core connection has no
    # idle time, or, with min_size, that of its endpoint: deadline_of() computes that, and this is never later.
    cdef double idle_timeout = core.core_idle_timeout if is_core else core.idle_timeout
    if used_at + idle_timeout < e.expires_at:
        return used_at + idle_timeout
    return e.expires_at


cdef double deadline_of(PoolCore core, Entry idle, double limit) noexcept:
    # The lock of the endpoint pool is held. While a live endpoint is in use, its core connections are looked at again
    # after each idle_timeout.
    cdef double deadline = deadline_if_idle(core, idle, idle.state == IDLE_CORE, idle.used_at)
    cdef EndpointPool ep = idle.pool
    if idle.state != IDLE_CORE or deadline == idle.expires_at:
        return deadline
    if is_pinned(ep):
        return idle.expires_at
    if not is_busy(ep):
        return min(used_last(ep) + core.idle_timeout, idle.expires_at)
    if idle.heap_key < INFINITY:
        deadline = idle.heap_key
    if deadline <= limit < INFINITY:
        deadline += core.idle_timeout
    elif limit < INFINITY:      # the key may be of a time at which the endpoint was pinned
        deadline = min(deadline, limit + core.idle_timeout)
    return min(deadline, idle.expires_at)


cdef inline void set_due_locked(Deadlines *d) noexcept:
    gcp_store_double(&d.due_at, d.queue.items[0].key if d.queue.used else INFINITY)


cdef bint schedule_locked(Deadlines *d, Entry e, double deadline) noexcept:
    # There is room in the queue. True if the collector would wake too late: then the caller calls it.
    if deadline >= e.heap_key:
        return False
    if e.heap_index < 0:
        heap_push(&d.queue, <void *>e, deadline, e.stamp)
    else:
        heap_rekey(&d.queue, <void *>e, deadline, e.stamp)
    e.heap_key = deadline
    add_by_use_locked(d, e)
    set_due_locked(d)
    if d.due_at < d.wake_at and d.due_at < NEVER:
        d.wake_at = d.due_at
        return True
    return False


cdef bint reschedule_core_locked(PoolCore core, EndpointPool ep, double now) noexcept:
    # The lock of the endpoint pool is held, too. The endpoint is no longer pinned: its core connections may be due
    # earlier. True if the collector would wake too late.
    cdef void *p = ep.core.head
    cdef bint wake = False
    while p != NULL:
        wake |= schedule_locked(&core.deadlines, <Entry>p, deadline_of(core, <Entry>p, now))
        p = (<Entry>p).next
    return wake


cdef void unschedule_locked(Deadlines *d, Entry e) noexcept:
    remove_from_heaps_locked(d, <void *>e)
    set_due_locked(d)


cdef inline void remove_from_heaps_locked(Deadlines *d, void *p) noexcept:
    # An entry is in both heaps or in none: a release of an entry that is in none puts it into both. The caller then
    # calls set_due_locked().
    (<Entry>p).heap_key = INFINITY
    heap_remove(&d.queue, p)
    heap_remove(&d.by_use, p)


cdef void *first_due_locked(PoolCore core, double limit) noexcept:
    # core.lock is held, no other. Returns the idle entry whose deadline comes first, if that is not after `limit`, and
    # holds the lock of its endpoint pool then; else NULL. Keys are never later than deadlines, so the first entry whose
    # key is up to date has the earliest deadline.
    cdef Deadlines *d = &core.deadlines
    cdef void *p
    cdef EndpointPool ep
    cdef double deadline
    cdef unsigned long long stamp
    while d.queue.used and d.queue.items[0].key <= limit:
        p = d.queue.items[0].item
        ep = (<Entry>p).pool
        gcp_lock(&ep.lock)
        if not is_idle(<Entry>p):
            remove_from_heaps_locked(d, p)
            gcp_unlock(&ep.lock)
            continue
        deadline = deadline_of(core, <Entry>p, limit)
        stamp = (<Entry>p).stamp
        if deadline == (<Entry>p).heap_key and stamp == d.queue.items[0].stamp:
            return p
        (<Entry>p).heap_key = deadline
        heap_rekey(&d.queue, p, deadline, stamp)
        gcp_unlock(&ep.lock)
    return NULL


cdef void *evict_due(PoolCore core, double limit, Chain *doomed) noexcept:
    # Only core.lock is held. Dooms the idle connection whose deadline comes first, if that is not after `limit`.
    cdef void *p = first_due_locked(core, limit)
    cdef bint is_old = p != NULL and lifetime_is_over(<Entry>p, limit)
    return doom_first_locked(core, p, doomed, lifetime_reason(<Entry>p) if is_old else BECAUSE_IDLE)


cdef void *doom_first_locked(PoolCore core, void *p, Chain *doomed, int reason) noexcept:
    # core.lock is held, and the lock of the endpoint pool of the idle entry, which this gives back. No entry: NULL.
    cdef EndpointPool ep
    if p == NULL:
        set_due_locked(&core.deadlines)     # the search may have put entries back or taken some out
        return NULL
    ep = (<Entry>p).pool
    unschedule_locked(&core.deadlines, <Entry>p)
    doom_idle(core, ep, <Entry>p, doomed, reason)
    gcp_unlock(&ep.lock)
    return p


cdef int call_collector(PoolCore core) except -1:
    try:
        if core.wake_collector() is False:
            forget_wake(core)
    except BaseException:
        # A signal handler may have raised inside the call. Nothing else would wake the collector, and the connection
        # would stay open: so call it once more.
        forget_wake(core)
        core.wake_collector()
        raise
    return 0


cdef void forget_wake(PoolCore core) noexcept:
    # The collector was not called. Without this, the core would assume that it wakes in time, and not call it again.
    gcp_lock(&core.lock)
    core.deadlines.wake_at = INFINITY
    gcp_unlock(&core.lock)


cdef int doom_due(PoolCore core, double now, int limit, Chain *doomed) except -1:
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef int found = 0
    cdef int size
    cdef void *p
    cdef bint relief_ended
    gcp_lock(&core.lock)
    relief_ended = advance_relief(core, now)
    if limit <= 0:
        limit = 1
        size = core.size + 1
        while size > 1:
            size >>= 1
            limit += 1
    while found < limit:
        p = evict_due(core, now, doomed)
        if p == NULL:
            break
        count_as_relief(core, p)
        found += 1
    if relief_ended:
        dispatch(core, doomed, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return found


cdef double next_due(PoolCore core) noexcept:
    # When the next entry is due. The core assumes that the collector then wakes by itself; from NEVER on it does not.
    cdef double due
    cdef void *p
    cdef EndpointPool ep
    gcp_lock(&core.lock)
    p = first_due_locked(core, INFINITY)
    if p != NULL:
        ep = (<Entry>p).pool
        gcp_unlock(&ep.lock)
    set_due_locked(&core.deadlines)
    due = core.deadlines.due_at
    core.deadlines.wake_at = due
    gcp_unlock(&core.lock)
    return due
