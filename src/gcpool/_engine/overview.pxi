# A snapshot of all endpoints, for monitoring: a row for each, instead of a call and a dict for each.

cdef list endpoint_rows(PoolCore core):
    # (endpoint, idle, in use, creating, checking, closing, waiting) of each endpoint that the pool knows.
    cdef EndpointPool ep
    cdef Gauges gauges
    cdef bint known
    rows = []
    for ep in endpoint_pools(core):
        memset(&gauges, 0, sizeof(Gauges))
        gcp_lock(&ep.lock)
        known = not ep.forgotten
        if known:
            add_gauges(ep, &gauges)
        gcp_unlock(&ep.lock)
        if known:
            rows.append((
                ep.endpoint, gauges.idle, gauges.in_use, gauges.creating, gauges.checking, gauges.closing,
                gauges.waiting,
            ))
    return rows
