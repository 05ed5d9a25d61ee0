# GROWTH. The pool itself creates connections: for waiters in the background, up to a minimum, and in an outage. The
# dispatcher reserves a slot; a worker comes for it and gets a ticket that belongs to no acquire. When the connect has
# ended, its connection is treated as a returned one: it goes to the oldest waiter, or becomes idle.

@cython.final
@cython.no_gc_clear
cdef class Growth(HeapMember):
    """What the pool knows about an endpoint for which it creates connections itself."""

    def __cinit__(self):
        self.over_after = -1
        self.used_at = -INFINITY
        self.failed_at = -INFINITY


cdef int ensure_growth(PoolCore core, EndpointPool ep, double now) except -1:
    # No lock is held. An endpoint pool with growth is owned by core.kept until it is forgotten: it may have no
    # connection and no waiter that owns it. From here on begin_checking() notes when a connection was in use last. A
    # connection that is already being checked is not in the lists, and counts as used now.
    cdef Growth new
    if ep.growth is not None:
        return 0
    new = Growth()
    new.pool = <void *>ep
    kept_of_this_process(core).add(ep)
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    if ep.growth is None:
        new.used_at = now if checking_count(ep) else last_use_of_idle(ep)
        ep.growth = new
        if ep.forgotten:
            chain_append(&core.forgotten, new)
    gcp_unlock(&ep.lock)
    gcp_unlock(&core.lock)
    return 0


cdef double last_use_of_idle(EndpointPool ep) noexcept:
    # ep.lock is held. Looks at each idle entry: the last one returned need not be the last one used (used_last()).
    cdef double at = -INFINITY
    cdef void *p = ep.core.head
    while p != NULL:
        at = max(at, (<Entry>p).used_at)
        p = (<Entry>p).next
    p = ep.extra.head
    while p != NULL:
        at = max(at, (<Entry>p).used_at)
        p = (<Entry>p).next
    return at


cdef set kept_of_this_process(PoolCore core):
    # In a forked child the set is new: a thread of the parent may have been about to change the old one.
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


cdef inline bint must_be_remembered(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. For an endpoint pool without connections and waiters.
    return ep.growth is not None and not is_closed(core) and (ep.growth.pinned > 0 or ep.growth.state != UP)


cdef void forget_growth(PoolCore core, EndpointPool ep) noexcept:
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
