@cython.final
@cython.no_gc_clear
cdef class EndpointPool(HeapMember):
    """The entries and waiters of one endpoint."""

    def __repr__(self):
        return f'<EndpointPool of {self.endpoint!r}, size {self.size}, {self.waiting} waiting>'


# Everything here needs the lock of the endpoint pool.

# -- states --------------------------------------------------------------------------------------------------------

cdef inline void move(EndpointPool ep, Entry e, int old, int new) noexcept:
    # With core.lock, too, where CREATING or CLOSING is one of the states.
    gcp_assert(e.state == old)
    ep.counts[old] -= 1
    ep.counts[new] += 1
    gcp_store_char(&e.state, new)


cdef inline void take_slot(PoolCore core, EndpointPool ep, Entry ticket) noexcept:
    # With core.lock. Both limits leave room.
    gcp_store_char(&ticket.state, CREATING)
    ep.counts[CREATING] += 1
    ep.size += 1
    gcp_store_int(&core.size, core.size + 1)


cdef inline void free_slot(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # With core.lock. The entry is a ticket without a connection, or its connection is closed.
    core.closing -= e.state == CLOSING
    ep.counts[<int>e.state] -= 1
    gcp_store_char(&e.state, GONE)
    ep.size -= 1
    gcp_store_int(&core.size, core.size - 1)


cdef inline void begin_closing(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # With core.lock. An idle entry has to leave its list before: leave_idle().
    move(ep, e, e.state, CLOSING)
    core.closing += 1


cdef inline int idle_count(EndpointPool ep) noexcept:
    return ep.counts[IDLE_CORE] + ep.counts[IDLE_EXTRA]


cdef inline int out_count(EndpointPool ep) noexcept:
    return ep.counts[ACQUIRED] + ep.counts[RELEASING]


# -- idle entries --------------------------------------------------------------------------------------------------

cdef inline void *next_idle(EndpointPool ep) noexcept:
    # Which is served next: the core ones in turn, then the extra one that was used last, so that those which are not
    # needed become due.
    return ep.core.head if ep.core.head != NULL else ep.extra.tail


cdef inline void *oldest_idle(Linked *first, Linked *then) noexcept:
    return first.head if first.head != NULL else then.head


cdef inline void unlink_idle(EndpointPool ep, Entry e) noexcept:
    # The caller moves the entry on.
    if e.state == IDLE_CORE:
        linked_remove(&ep.core, e)
    else:
        linked_remove(&ep.extra, e)


cdef inline bint becomes_core(PoolCore core, EndpointPool ep) noexcept:
    # Whether an entry that is out is to be a core one when it is idle: not while those that stay out could be enough.
    return out_count(ep) - 1 < gcp_load_int(&core.min_idle) - ep.counts[IDLE_CORE]


cdef inline void push_idle(PoolCore core, EndpointPool ep, Entry e, double now, bint is_core) noexcept:
    # The expiry queue is not touched, see schedule_locked().
    e.used_at = now
    if GCP_SHARED_STAMP:
        core.stamp += 1
        e.stamp = core.stamp
    else:
        ep.stamp += 1
        e.stamp = ep.stamp
    if is_core:
        move(ep, e, e.state, IDLE_CORE)
        linked_append(&ep.core, e)
    else:
        move(ep, e, e.state, IDLE_EXTRA)
        linked_append(&ep.extra, e)


# -- serving -------------------------------------------------------------------------------------------------------

cdef inline bint must_be_checked(EndpointPool ep, Entry e, double now, double interval) noexcept:
    # Before the entry is served: a check or a hook was cut off, it was not used within the interval, or another
    # connection of the endpoint was found dead since it was last seen alive.
    return e.check_pending or not now - e.used_at < interval or e.verified_at != ep.distrust_count


cdef inline void lend(EndpointPool ep, Entry e) noexcept:
    # Idle entries are unlinked before.
    move(ep, e, e.state, ACQUIRED)
    cdef unsigned int lease_no = e.lease_no + 1
    gcp_store_uint(&e.lease_no, lease_no + (lease_no == ANY_LEASE))
    ep.acquires += 1


cdef inline void hand_over(EndpointPool ep, Entry e, Waiter w, double now) noexcept:
    # From the holder who gives it back to the waiter at the head of the queue.
    waiter_unlink(ep, <void *>w)
    e.used_at = now
    lend(ep, e)
    serve(w, e)


# -- the queue -----------------------------------------------------------------------------------------------------

cdef inline void waiter_unlink(EndpointPool ep, void *p) noexcept:
    linked_remove(&ep.queue, <Waiter>p)
    ep.waiting -= 1


cdef void drop(PoolCore core, EndpointPool ep, void *p) noexcept:
    # With core.lock. gcp_try_incref() has failed: the destructor of the waiter waits for these locks, and does the rest
    # of dequeue() then.
    waiter_unlink(ep, p)
    gcp_store_int(&(<Waiter>p).state, DROPPED)
    update_wants_slot(core, ep)


cdef void *first_waiter(PoolCore core, EndpointPool ep) noexcept:
    # With core.lock. The head of the queue with a reference, which is given back when no lock is held; or NULL.
    while ep.queue.head != NULL and not gcp_try_incref(ep.queue.head):
        drop(core, ep, ep.queue.head)
    return ep.queue.head
