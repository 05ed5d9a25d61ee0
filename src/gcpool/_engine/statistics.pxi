cdef dict gauges_and_counters(PoolCore core):
    cdef EndpointPool ep
    cdef unsigned long long acquires
    cdef unsigned long long created, create_errors, dead, broken, disposed, waits, timeouts
    cdef int size, idle = 0, acquired = 0, waiting = 0, endpoints = 0
    pools = endpoint_pools(core)
    gcp_lock(&core.lock)
    size = core.size
    acquires = core.acquires
    created = core.created_
    create_errors = core.create_errors
    dead = core.dead_
    broken = core.broken_
    disposed = core.disposed_
    waits = core.waits
    timeouts = core.timeouts
    gcp_unlock(&core.lock)
    for ep in pools:
        gcp_lock(&ep.lock)
        if not ep.forgotten:
            endpoints += 1
            acquires += ep.acquires
            idle += ep.core_idle + ep.extra_idle
            acquired += ep.acquired
            waiting += ep.waiting
        gcp_unlock(&ep.lock)
    return {
        'size': size,
        'idle': idle,
        'acquired': acquired,
        'waiting': waiting,
        'endpoints': endpoints,
        'acquires': acquires,
        'created': created,
        'create_errors': create_errors,
        'dead': dead,
        'broken': broken,
        'disposed': disposed,
        'waits': waits,
        'timeouts': timeouts,
    }
