# MINIMUMS. The number of connections that an endpoint must have: min_size while it is live, or the size it is pinned
# with. Where it may have lost one, note_short() notes it; the dispatcher then reserves slots for what is missing.

# Maximum number of connections to one endpoint that are created at the same time to reach a minimum.
cdef int MAX_FILLS = 2


cdef inline void leave_short(PoolCore core, Growth g) noexcept:
    # core.lock is held.
    if g.is_short:
        linked_remove(&core.short, g)
        g.is_short = False


cdef inline double used_last(EndpointPool ep) noexcept:
    # ep.lock is held. When a connection of the endpoint was last returned: an idle one, or one that is being checked or
    # was closed since (Growth.used_at). The lists are in the order of releases. Where a release did not end the last
    # use, leave_check_to_pool() has noted that use.
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
    # Both locks are held. How many connections the endpoint must have.
    cdef int minimum = ep.growth.pinned
    if core.min_size > minimum and (is_busy(ep) or used_last(ep) + core.idle_timeout > now):
        minimum = core.min_size
    return min(minimum, core.max_size)


cdef void note_short(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. Each function that may leave the endpoint with fewer connections than its minimum calls this.
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
    cdef int limit = core.max_fills
    if limit == 0:
        limit = core.max_connecting if core.max_connecting else MAX_FILLS
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
