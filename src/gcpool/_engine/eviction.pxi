# EVICTION. At the total limit the idle connection that was unused for longest is closed for another endpoint, core or
# extra: the deadlines say nothing about that. Example: 10 connections, one host that every request needs and 1,000
# hosts seen once each. A core connection to the busy host is due before those that were created after it, so it would
# be closed every 10 requests.
#
# The order by last use is a second heap over the entries of the expiry queue, as lazy as that: a key is never later
# than the last use, and an entry whose key comes up is put back under its true one. An entry is in both heaps or in
# none, so the hot path needs no additional test (keep_if_simple). The heap is made when an eviction first needs it,
# because it takes memory that a pool below its limit does not need: each connection then existing is visited once.
# Where there is no memory for it, the deadlines decide.

cdef void *evict_unused(PoolCore core, Chain *doomed, int reason) noexcept:
    # Only core.lock is held. Dooms the idle connection that was unused for longest.
    cdef bint ordered = order_by_use_locked(&core.deadlines)
    cdef void *p = first_unused_locked(core) if ordered else first_due_locked(core, INFINITY)
    return doom_first_locked(core, p, doomed, reason)


cdef void *first_unused_locked(PoolCore core) noexcept:
    # core.lock is held, no other. Returns the idle entry that was unused for longest, and holds the lock of its
    # endpoint pool then; else NULL. Equal times, of one reading of the coarse clock, are ordered by the release.
    cdef Deadlines *d = &core.deadlines
    cdef void *p
    cdef EndpointPool ep
    while d.by_use.used:
        p = d.by_use.items[0].item
        ep = (<Entry>p).pool
        gcp_lock(&ep.lock)
        if not is_idle(<Entry>p):
            remove_from_heaps_locked(d, p)
        elif (<Entry>p).used_at == d.by_use.items[0].key and (<Entry>p).stamp == d.by_use.items[0].stamp:
            return p
        else:
            heap_rekey(&d.by_use, p, (<Entry>p).used_at, (<Entry>p).stamp)
        gcp_unlock(&ep.lock)
    return NULL


cdef bint order_by_use_locked(Deadlines *d) noexcept:
    # core.lock is held, no other. Makes the heap, unless it is there. False if there is no memory.
    cdef Py_ssize_t i
    cdef void *p
    cdef EndpointPool ep
    if d.is_ordered_by_use:
        return True
    if not heap_make_room(&d.by_use, d.queue.used):
        return False
    for i in range(d.queue.used):
        p = d.queue.items[i].item
        ep = (<Entry>p).pool
        gcp_lock(&ep.lock)
        heap_put(&d.by_use, i, HeapItem((<Entry>p).used_at, (<Entry>p).stamp, p))
        gcp_unlock(&ep.lock)
    d.by_use.used = d.queue.used
    for i in range(d.by_use.used >> 1, -1, -1):
        if i < d.by_use.used:
            sift_down(&d.by_use, i)
    d.is_ordered_by_use = True
    return True


cdef inline void add_by_use_locked(Deadlines *d, Entry e) noexcept:
    # Both locks are held. The entry has entered the expiry queue, or has been moved in it.
    if d.is_ordered_by_use and e.second_index < 0:
        if heap_make_room(&d.by_use, d.by_use.used + 1):
            heap_push(&d.by_use, <void *>e, e.used_at, e.stamp)
        else:
            forget_order_by_use_locked(d)


cdef void forget_order_by_use_locked(Deadlines *d) noexcept:
    # core.lock is held. The next eviction makes the heap again.
    cdef Py_ssize_t i
    for i in range(d.by_use.used):
        (<Entry>d.by_use.items[i].item).second_index = -1
    d.by_use.used = 0
    d.is_ordered_by_use = False
