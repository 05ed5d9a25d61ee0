@cython.final
@cython.no_gc_clear
cdef class EndpointPool(HeapMember):
    """The entries and waiters of one endpoint."""

    def __repr__(self):
        return f'<EndpointPool of {self.endpoint!r}, size {self.size}, {self.waiting} waiting>'


cdef inline void move(EndpointPool ep, Entry e, int old, int new) noexcept:
    # ep.lock is held, and core.lock if either state is CREATING or CLOSING.
    gcp_assert(e.state == old)
    ep.counts[old] -= 1
    ep.counts[new] += 1
    gcp_store_char(&e.state, new)


cdef inline void idle_unlink(EndpointPool ep, void *p) noexcept:
    # ep.lock is held
    if (<Entry>p).state == IDLE_CORE:
        ep.core_idle -= 1
        linked_remove(&ep.core, <Entry>p)
    else:
        ep.extra_idle -= 1
        linked_remove(&ep.extra, <Entry>p)


cdef inline void waiter_unlink(EndpointPool ep, void *p) noexcept:
    # ep.lock is held
    linked_remove(&ep.queue, <Waiter>p)
    ep.waiting -= 1


cdef inline void drop(EndpointPool ep, void *p) noexcept:
    # ep.lock and the core's are held, and gcp_try_incref() has failed: the destructor of the waiter waits for these
    # locks, and does the rest of dequeue() then.
    waiter_unlink(ep, p)
    gcp_store_int(&(<Waiter>p).state, DROPPED)


cdef inline void count_acquired(EndpointPool ep, Entry e) noexcept:
    gcp_store_uint(&e.lease_no, e.lease_no + 1)
    ep.acquires += 1


cdef inline void keep_idle(PoolCore core, EndpointPool ep, Entry e, double now, bint is_core) noexcept:
    # ep.lock is held. The expiry queue is not touched: an entry whose deadline went up is looked at again when its
    # old one comes up.
    ep.acquired -= 1
    move(ep, e, e.state, IDLE_CORE if is_core else IDLE_EXTRA)
    e.used_at = now
    if GCP_SHARED_STAMP:
        core.stamp += 1
        e.stamp = core.stamp
    else:
        ep.stamp += 1
        e.stamp = ep.stamp
    e.is_core = is_core
    if is_core:
        ep.core_idle += 1
        linked_append(&ep.core, e)
    else:
        ep.extra_idle += 1
        linked_append(&ep.extra, e)
