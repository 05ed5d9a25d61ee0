# READINESS. Whether an acquire would be served at once now, without doing anything for it: for PoolCore.readiness().

cdef enum:              # what keeps acquires of an endpoint waiting
    NO_TROUBLE
    AT_MAX_SIZE         # it has max_size connections, and none is idle
    IN_OUTAGE           # its connects fail
    SERVER_IS_FULL      # its server refuses connections

TROUBLES = ('', 'max_size', 'outage', 'full')


cdef int trouble_of(PoolCore core, EndpointPool ep) noexcept:
    # ep.lock is held.
    if is_in_outage(ep):
        return SERVER_IS_FULL if ep.growth.is_refusal else IN_OUTAGE
    return AT_MAX_SIZE if idle_count(ep) == 0 and ep.size >= gcp_load_int(&core.max_size) else NO_TROUBLE


cdef tuple readiness_of(PoolCore core):
    cdef EndpointPool ep
    cdef Gauges gauges, own
    cdef int trouble
    cdef int usable = 0
    cdef list troubled = []
    memset(&gauges, 0, sizeof(Gauges))
    for ep in endpoint_pools(core):
        error = None
        memset(&own, 0, sizeof(Gauges))
        gcp_lock(&ep.lock)
        trouble = trouble_of(core, ep)
        if trouble == IN_OUTAGE:
            error = ep.growth.error
        add_gauges(ep, &own)
        add_gauges(ep, &gauges)
        gcp_unlock(&ep.lock)
        usable += trouble == NO_TROUBLE or own.idle > 0
        if trouble != NO_TROUBLE:
            troubled.append((TROUBLES[trouble], ep.endpoint, own.in_use, own.waiting, error))
    return gauges.size, gauges.idle, gauges.in_use, gauges.waiting, usable, troubled
