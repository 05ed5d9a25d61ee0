# The names of the counters, in the order of the struct. One without a name is not shown.
COUNTERS = (
    'asked', 'acquires', 'waits', 'timeouts', 'cancelled', 'too_many', 'created', 'create_errors', 'refused', 'checks',
    'checks_failed', 'dead', 'broken', 'detached', 'leaks', 'disposed', '',
    *['closed_' + reason for reason in REASONS[1:]], 'wait_ns', 'create_ns', 'use_ns',
)
assert sizeof(Counters) == len(COUNTERS) * sizeof(unsigned long long)


cdef inline unsigned long long nanoseconds(double seconds) noexcept:
    return <unsigned long long>(seconds * 1e9) if seconds > 0 else 0


# -- how long ------------------------------------------------------------------------------------------------------

# While a connection is checked out, its entry is in no list: the links hold the time of the acquire instead. So the sum
# of the times of use costs no memory in an entry, and no cache line in a cycle.

cdef inline void begin_use(Entry e, double now) noexcept:
    # ep.lock is held. The entry has left its list.
    gcp_put_double(&e.prev, now)


cdef inline void end_use(PoolCore core, EndpointPool ep, Entry e, double now) noexcept:
    # ep.lock is held. The entry is checked out, and in no list yet. Within one tick of the coarse clock, as in a warm
    # cycle, there is nothing to add.
    cdef double since = gcp_get_double(&e.prev)
    if gcp_unlikely(since < now):
        ep.marks.use_time += now - since
        record_use(core, now - since)


cdef inline void count_wait(PoolCore core, Waiter w, double now) noexcept:
    # core.lock is held. The wait of a waiter has ended, in any way. Counts each wait once.
    if w.waits_from <= now:
        core.counters.wait_ns += nanoseconds(now - w.waits_from)
        record(&core.histograms.wait, now - w.waits_from)
    w.waits_from = INFINITY


cdef inline void begin_create(Entry ticket, double now) noexcept:
    # Called by the ticket's owner.
    ticket.used_at = max(now, 0.0)


cdef inline void count_create(PoolCore core, Entry ticket, double now) noexcept:
    # core.lock is held. A connect has ended, with a connection or without one. It began at used_at, if it has begun.
    if ticket.used_at <= now:
        core.counters.create_ns += nanoseconds(now - ticket.used_at)
        record(&core.histograms.create, now - ticket.used_at)


cdef inline void uncount_connecting(PoolCore core, Waiter w) noexcept:
    # core.lock is held. The waiter asks again, or its acquire ends.
    if w.counted == COUNTED_CONNECTING:
        core.connecting -= 1
        w.counted = NOT_COUNTED


cdef inline void count_unserved(PoolCore core, void *w) noexcept:
    # core.lock is held. The acquire of the waiter ends without a connection. Counts each acquire once.
    uncount_connecting(core, <Waiter>w)
    if (<Waiter>w).counted == NOT_COUNTED:
        (<Waiter>w).counted = COUNTED_UNSERVED
        core.counters.asked += 1


cdef inline void count_again(PoolCore core, Waiter w) noexcept:
    # core.lock is held. The waiter asks, and may have given up before. If it is refused because its connection was
    # closed while it held it, it is counted once.
    uncount_connecting(core, w)
    if w.counted == COUNTED_UNSERVED:
        core.counters.asked -= 1
    if w.counted != COUNTED_SERVED or not is_closed(core):
        w.counted = NOT_COUNTED


# -- gauges and counters -------------------------------------------------------------------------------------------

cdef inline void add_gauges(EndpointPool ep, Gauges *g) noexcept:
    # ep.lock is held.
    g.size += ep.size
    g.idle += idle_count(ep)
    g.in_use += out_count(ep)
    g.creating += ep.counts[CREATING]
    g.checking += checking_count(ep)
    g.closing += ep.counts[CLOSING]
    g.waiting += ep.waiting
    g.endpoints += 1


cdef object show_gauges(PoolCore core, Gauges *g, double longest_held):
    return PoolStats({
        'size': g.size,
        'idle': g.idle,
        'in_use': g.in_use,
        'acquired': g.in_use,
        'creating': g.creating,
        'checking': g.checking,
        'closing': g.closing,
        'waiting': g.waiting,
        'endpoints': g.endpoints,
        'suspended': 1 if is_suspended(core) else 0,
        'min_idle': gcp_load_int(&core.min_idle),
        'max_size': gcp_load_int(&core.max_size),
        'total_max_size': gcp_load_int(&core.total_max_size),
        'min_size': core.min_size,
        'max_waiting': gcp_load_int(&core.max_waiting),
        'max_workers': gcp_load_int(&core.jobs.max_workers),
        'longest_held': nanoseconds(longest_held),
    })


cdef int gather(PoolCore core, Gauges *gauges, Counters *counters, Histograms *histograms) except -1:
    cdef EndpointPool ep
    cdef double use_time
    cdef int connecting
    pools = endpoint_pools(core)
    memset(gauges, 0, sizeof(Gauges))
    gcp_lock(&core.lock)
    counters[0] = core.counters
    use_time = core.use_time
    connecting = core.connecting
    gcp_unlock(&core.lock)
    for ep in pools:
        gcp_lock(&ep.lock)
        if not ep.forgotten:
            add_gauges(ep, gauges)
            counters.acquires += ep.acquires
            use_time += ep.marks.use_time
        gcp_unlock(&ep.lock)
    counters.asked += counters.acquires + gauges.waiting + connecting
    counters.use_ns = nanoseconds(use_time)
    gcp_lock(&core.lock)
    copy_histograms(core, histograms)
    add_short_uses(core, histograms, counters.acquires, gauges.in_use)
    gcp_unlock(&core.lock)
    return 0


cdef void subtract_popped(
    unsigned long long *totals, unsigned long long *popped, size_t count, bint pops
) noexcept:
    # core.lock is held. A pop notes what it has shown, so that each event is shown by exactly one pop, even of two
    # simultaneous ones: nothing is set to 0, and an event that happens meanwhile is in the next pop.
    cdef unsigned long long total
    cdef size_t i
    for i in range(count):
        total = max(totals[i], popped[i])
        totals[i] = total - popped[i]
        if pops:
            popped[i] = total


cdef object gauges_and_counters(PoolCore core, bint pops, bint since_built):
    # The counters and the histograms are those since the last pop, or since the pool was built.
    cdef Gauges gauges
    cdef Counters counters
    cdef Histograms histograms
    cdef unsigned long long *totals = <unsigned long long *>&counters
    cdef size_t i
    gather(core, &gauges, &counters, &histograms)
    if not since_built:
        gcp_lock(&core.lock)
        subtract_popped(
            totals, <unsigned long long *>&core.popped, sizeof(Counters) // sizeof(unsigned long long), pops
        )
        subtract_popped(
            <unsigned long long *>&histograms, <unsigned long long *>&core.popped_histograms,
            sizeof(Histograms) // sizeof(unsigned long long), pops
        )
        gcp_unlock(&core.lock)
    stats = show_gauges(core, &gauges, longest_held(core, None) if gauges.in_use else 0.0)
    for i in range(sizeof(Counters) // sizeof(unsigned long long)):
        if COUNTERS[i]:
            stats[COUNTERS[i]] = totals[i]
    stats.histograms = show_histograms(&histograms, &counters)
    return stats


cdef object endpoint_gauges(PoolCore core, object endpoint, bint looks_for_longest):
    # Without a search for the connection held for longest, the cost does not depend on the number of connections.
    cdef Gauges gauges
    cdef EndpointPool ep = find_pool(core, endpoint)
    memset(&gauges, 0, sizeof(Gauges))
    if ep is None:
        hash_of(endpoint)       # raises TypeError if the object cannot be an endpoint: an empty pool has not tried
        return show_gauges(core, &gauges, 0.0)
    gcp_lock(&ep.lock)
    if not ep.forgotten:
        add_gauges(ep, &gauges)
    gcp_unlock(&ep.lock)
    return show_gauges(core, &gauges, longest_held(core, ep) if gauges.in_use and looks_for_longest else 0.0)


cdef int count_used(PoolCore core) except -1:
    cdef EndpointPool ep
    cdef int used = 0
    for ep in endpoint_pools(core):
        used += used_count_of(ep)
    return used


cdef int count_waiters(PoolCore core) except -1:
    cdef EndpointPool ep
    cdef int waiting = 0
    for ep in endpoint_pools(core):
        gcp_lock(&ep.lock)
        waiting += ep.waiting
        gcp_unlock(&ep.lock)
    return waiting


cdef int endpoint_size(PoolCore core, object endpoint, object acquired) except -1:
    cdef EndpointPool ep = find_pool(core, endpoint)
    cdef int size
    if ep is None:
        hash_of(endpoint)       # raises TypeError if the object cannot be an endpoint: an empty pool has not tried
        return 0
    gcp_lock(&ep.lock)
    if acquired is None:
        size = ep.size
    elif acquired:
        size = out_count(ep)
    else:
        size = idle_count(ep)
    gcp_unlock(&ep.lock)
    return size


cdef bint is_empty(PoolCore core) except -1:
    return gcp_load_int(&core.size) == 0 and core.watchers.count == 0 and count_waiters(core) == 0
