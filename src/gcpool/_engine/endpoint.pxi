@cython.final
@cython.no_gc_clear
cdef class EndpointPool(HeapMember):
    """The entries and waiters of one endpoint."""

    def __repr__(self):
        return f'<EndpointPool of {shown_endpoint(self)}, size {self.size}, {self.waiting} waiting>'


# Everything here is called with ep.lock held. Where a comment says "with core.lock", both are held.

# -- states --------------------------------------------------------------------------------------------------------

cdef inline void move(EndpointPool ep, Entry e, int old, int new) noexcept:
    # With core.lock if one of the states is CREATING or CLOSING.
    gcp_assert(e.state == old)
    ep.counts[old] -= 1
    ep.counts[new] += 1
    gcp_store_char(&e.state, new)


cdef inline void begin_checking(EndpointPool ep, Entry e) noexcept:
    # With core.lock. An idle entry has left its list before: unlink_idle().
    note_used(ep, e.used_at)
    ep.counts[<int>e.state] -= 1
    gcp_store_char(&e.state, CHECKING)


cdef inline void end_checking(EndpointPool ep, Entry e, double now) noexcept:
    # With core.lock. For a moment the entry counts as being released: the caller then decides what becomes of it. The
    # use that this ends has just begun, so that no time of use is counted.
    gcp_assert(e.state == CHECKING)
    begin_use(e, now)
    ep.counts[RELEASING] += 1
    gcp_store_char(&e.state, RELEASING)


cdef inline void take_slot(PoolCore core, EndpointPool ep, Entry ticket) noexcept:
    # With core.lock. Both limits leave room.
    gcp_store_char(&ticket.state, CREATING)
    ep.counts[CREATING] += 1
    ticket.epoch.birth = core.drains
    ep.size += 1
    gcp_store_int(&core.size, core.size + 1)


cdef inline void free_slot(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # With core.lock. The entry is a ticket without a connection, or its connection is closed.
    if e.state == CLOSING:
        core.closing -= 1
    else:
        note_end_of_use(core, ep, e)
    ep.counts[<int>e.state] -= 1
    gcp_store_char(&e.state, GONE)
    ep.size -= 1
    gcp_store_int(&core.size, core.size - 1)


cdef inline void note_used(EndpointPool ep, double at) noexcept:
    # With core.lock. A connection of the endpoint was in use until then, and will not become idle.
    if ep.growth is not None:
        ep.growth.used_at = max(ep.growth.used_at, at)


cdef inline void begin_closing(PoolCore core, EndpointPool ep, Entry e, int reason) noexcept:
    # With core.lock. An idle entry has left its list before: unlink_idle().
    note_used(ep, e.used_at)
    gcp_store_char(&e.reason, reason)
    e.mark.relief = 0
    if not is_idle(e):
        note_end_of_use(core, ep, e)
    move(ep, e, e.state, CLOSING)
    core.closing += 1


cdef inline bint has_room(PoolCore core, EndpointPool ep) noexcept:
    # Whether max_size allows one more connection. A connection that is being closed has its slot until that has ended.
    return ep.size < core.max_size


cdef inline bint pool_has_room(PoolCore core) noexcept:
    # The same, for total_max_size. Needs only core.lock.
    return core.size < core.total_max_size


cdef inline bint exceeds_max_size(PoolCore core, EndpointPool ep) noexcept:
    # Whether a connection has to be closed because max_size was lowered. Those that are being closed do not count.
    return ep.size - ep.counts[CLOSING] > core.max_size


cdef inline bint exceeds_total_max_size(PoolCore core) noexcept:
    # The same, for total_max_size. Needs only core.lock.
    return core.size - core.closing > core.total_max_size


cdef inline int idle_count(EndpointPool ep) noexcept:
    return ep.counts[IDLE_CORE] + ep.counts[IDLE_EXTRA]


cdef inline int out_count(EndpointPool ep) noexcept:
    return ep.counts[ACQUIRED] + ep.counts[RELEASING]


cdef inline int checking_count(EndpointPool ep) noexcept:
    # Has no field: the rest of the size is being checked by the pool.
    return ep.size - idle_count(ep) - out_count(ep) - ep.counts[CREATING] - ep.counts[CLOSING]


cdef inline int used_count(EndpointPool ep) noexcept:
    # How many connections are in use, or are being created by an acquire.
    return out_count(ep) + ep.counts[CREATING] - (0 if ep.growth is None else ep.growth.creating)


cdef inline int begun_count(EndpointPool ep) noexcept:
    # How many connections are in use, or are being checked by the pool, or created by an acquire or by the pool. Slots
    # that are only reserved do not count.
    return out_count(ep) + checking_count(ep) + ep.counts[CREATING] - (0 if ep.growth is None else ep.growth.reserved)


# -- idle entries --------------------------------------------------------------------------------------------------

cdef inline void *next_extra(PoolCore core, EndpointPool ep) noexcept:
    # The extra entry that is served first.
    return ep.extra.head if core.serves_oldest else ep.extra.tail


cdef inline void *next_idle(PoolCore core, EndpointPool ep) noexcept:
    # The entry that is served next. Core entries are served in turn, so that each of them is used. Then comes the extra
    # entry that was used last, so that unneeded extra entries stay unused until they are due; or, with order='fifo',
    # the one that was unused for longest.
    if gcp_likely(ep.core.head != NULL):
        return ep.core.head
    return next_extra(core, ep)


cdef inline void *oldest_idle(Linked *first, Linked *then) noexcept:
    return first.head if first.head != NULL else then.head


cdef inline void unlink_idle(EndpointPool ep, Entry e) noexcept:
    # Takes an idle entry out of its list. The caller then changes its state.
    if e.state == IDLE_CORE:
        linked_remove(&ep.core, e)
    else:
        linked_remove(&ep.extra, e)


cdef inline void unlink_first_core(EndpointPool ep, Entry e) noexcept:
    # The same, of the core entry that is served next. Its links are left as they are: begin_use() comes next.
    ep.core.head = e.next
    if e.next != NULL:
        (<Entry>e.next).prev = NULL
    else:
        ep.core.tail = NULL


cdef inline bint becomes_core(PoolCore core, EndpointPool ep) noexcept:
    # Whether a checked-out entry becomes core when it is returned: not if the idle core entries and the other
    # checked-out ones are min_idle or more, or as many as the endpoint's minimum. With keep='idle' those that are
    # checked out do not count.
    return ((out_count(ep) - 1) & core.out_mask) < ep.core_size - ep.counts[IDLE_CORE]


cdef inline void put_last(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # In the order of releases.
    e.stamp = gcp_next_stamp(&core.stamp, &ep.marks)


cdef inline void push_idle(PoolCore core, EndpointPool ep, Entry e, double now, bint is_core) noexcept:
    # Makes an entry idle. The expiry queue stays as it is: see schedule_locked().
    e.used_at = now
    put_last(core, ep, e)
    if gcp_likely(is_core):
        move(ep, e, e.state, IDLE_CORE)
        linked_append(&ep.core, e)
    else:
        move(ep, e, e.state, IDLE_EXTRA)
        linked_append(&ep.extra, e)


cdef void return_idle(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # Makes an entry that the pool has checked idle again, in its old place: the lists are in the order of release. It
    # is core again, unless others have become core instead.
    cdef bint is_core = e.mark.was_core and ep.counts[IDLE_CORE] < ep.core_size
    move(ep, e, RELEASING, IDLE_CORE if is_core else IDLE_EXTRA)
    insert_by_release(&ep.core if is_core else &ep.extra, e)


# -- serving -------------------------------------------------------------------------------------------------------

cdef inline bint must_be_checked(EndpointPool ep, Entry e, double now, double interval) noexcept:
    # Whether the connection is checked before it is served: a check or a hook was cut off, the connection was not used
    # within the interval, or another one of the endpoint was found dead since this one was last seen alive.
    return e.check_pending or not now - e.used_at < interval or e.verified_at != ep.distrust_count


cdef inline void lend(EndpointPool ep, Entry e, double now) noexcept:
    # An idle entry has left its list before: unlink_idle().
    lend_from(ep, e, e.state, now)


cdef inline void lend_from(EndpointPool ep, Entry e, int state, double now) noexcept:
    # The same, where the state is known. The lease number skips ANY_LEASE when it overflows: see MAX_USES.
    move(ep, e, state, ACQUIRED)
    cdef unsigned int lease_no = e.lease_no + 1
    if gcp_unlikely(lease_no == ANY_LEASE):
        lease_no = FIRST_LEASE
        use_up(e)
    gcp_store_uint(&e.lease_no, lease_no)
    ep.acquires += 1
    begin_use(e, now)


cdef inline void hand_over(EndpointPool ep, Entry e, Waiter w, double now) noexcept:
    # Gives the entry, which its holder returns, to the waiter at the head of the queue.
    waiter_unlink(ep, <void *>w)
    e.used_at = now
    end_use(w.core, ep, e, now)
    lend(ep, e, now)
    serve(w, e)
    w.was_idle = False


# -- the queue -----------------------------------------------------------------------------------------------------

cdef inline void waiter_unlink(EndpointPool ep, void *p) noexcept:
    linked_remove(&ep.queue, <Waiter>p)
    ep.waiting -= 1
    if (<Waiter>p).create != NULL:
        pass_on_create(ep, p)


cdef void unlink_being_freed(PoolCore core, EndpointPool ep, void *p) noexcept:
    # With core.lock. gcp_try_incref() has failed: the destructor of the waiter is waiting for these locks, and will do
    # the rest of dequeue().
    waiter_unlink(ep, p)
    gcp_store_int(&(<Waiter>p).state, BEING_FREED)
    update_wants_slot(core, ep)


cdef void *first_waiter(PoolCore core, EndpointPool ep) noexcept:
    # With core.lock. The waiter at the head of the queue; NULL if there is none. The caller gets a reference, and gives
    # it back when no lock is held.
    while ep.queue.head != NULL and not gcp_try_incref(ep.queue.head):
        unlink_being_freed(core, ep, ep.queue.head)
    return ep.queue.head
