cdef bint retire_entry(PoolCore core, Entry e, double now, bint to_doomed) except -1:
    cdef EndpointPool ep = pool_of(e)
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint late = False
    cdef bint out
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    out = is_out(e)
    if out:
        begin_closing(core, ep, e)
        core.counters.broken += 1
        late = advance_relief(core, now)
        count_as_relief(core, <void *>e)
        if to_doomed:
            chain_append(&core.doomed_for_caller, e)
    gcp_unlock(&ep.lock)
    if late:
        dispatch(core, &core.doomed_for_caller, &served)
    gcp_unlock(&core.lock)
    notify_all(&served)
    if not out:
        must_be_out(core, e)
    return out
