cdef bint retire_entry(PoolCore core, Entry e, double now, bint to_doomed) except -1:
    cdef EndpointPool ep = pool_of(e)
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint late = False
    cdef int state
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    state = e.state
    if state == ACQUIRED or state == RELEASING:
        move(ep, e, e.state, CLOSING)
        ep.acquired -= 1
        ep.closing += 1
        core.closing += 1
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
    if state == ACQUIRED or state == RELEASING:
        return True
    if not gcp_load_char(&e.closed_while_out):
        raise ConnectionNotAcquired(f'the connection {e.conn_!r} is not acquired: its state is {STATES[state]}')
    forget_closed_while_out(core, e)
    return False
