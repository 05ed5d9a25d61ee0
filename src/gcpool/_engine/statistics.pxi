cdef dict gauges_and_counters(PoolCore core):
    cdef EndpointPool ep
    cdef Counters counters
    cdef int reason, size, idle = 0, acquired = 0, checking = 0, waiting = 0, endpoints = 0
    pools = endpoint_pools(core)
    gcp_lock(&core.lock)
    size = core.size
    counters = core.counters
    gcp_unlock(&core.lock)
    for ep in pools:
        gcp_lock(&ep.lock)
        if not ep.forgotten:
            endpoints += 1
            counters.acquires += ep.acquires
            idle += idle_count(ep)
            acquired += out_count(ep)
            checking += ep.checking
            waiting += ep.waiting
        gcp_unlock(&ep.lock)
    stats = {
        'size': size,
        'idle': idle,
        'acquired': acquired,
        'checking': checking,
        'waiting': waiting,
        'endpoints': endpoints,
        'acquires': counters.acquires,
        'created': counters.created,
        'create_errors': counters.create_errors,
        'dead': counters.dead,
        'broken': counters.broken,
        'disposed': counters.disposed,
        'waits': counters.waits,
        'timeouts': counters.timeouts,
        'checks': counters.checks,
        'checks_failed': counters.checks_failed,
    }
    for reason in range(1, REASON_COUNT):
        stats['closed_' + REASONS[reason]] = counters.closed[reason]
    return stats


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
