cdef int close(PoolCore core) except -1:
    cdef EndpointPool ep
    cdef Chain refused = Chain(NULL, NULL, 0)
    cdef double now = read_clock(core)
    failure = None
    gcp_lock(&core.lock)
    gcp_store_int(&core.is_closed, 1)
    take_fill_watchers(core, &refused)
    free_all_reserved(core, now, &refused)
    gcp_unlock(&core.lock)
    drop_pending_checks(core)
    try:
        notify_all(core, &refused)
    except BaseException as exc:
        failure = exc
    # Endpoint pools that appear from here on stay empty, because request() refuses.
    for ep in endpoint_pools(core):
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        refuse_waiters(core, ep, &refused)
        doom_all_idle(core, ep)
        forget_if_empty(core, ep)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
        try:
            notify_all(core, &refused)
        except BaseException as exc:    # a waiter that cannot be woken must not keep those of other endpoints asleep
            if failure is None:
                failure = exc
    if failure is not None:
        raise failure
    return 0


cdef void refuse_waiters(PoolCore core, EndpointPool ep, Chain *refused) noexcept:
    # Both locks are held.
    cdef void *p = first_waiter(core, ep)
    while p != NULL:
        waiter_unlink(ep, p)
        (<Waiter>p).state = REFUSED
        chain_append(refused, <Waiter>p)
        p = first_waiter(core, ep)
    update_wants_slot(core, ep)


cdef void doom_all_idle(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held.
    cdef void *p = oldest_idle(&ep.core, &ep.extra)
    while p != NULL:
        doom_idle(core, ep, <Entry>p, &core.doomed_for_caller, BECAUSE_POOL_CLOSED)
        p = oldest_idle(&ep.core, &ep.extra)


cdef tuple order_to_doom(object e):
    return gcp_load_double(&(<Entry>e).expires_at), (<Entry>e).stamp


cdef int doom_acquired(PoolCore core) except -1:
    cdef Entry e
    cdef EndpointPool ep
    cdef int count = 0
    drop_pending_checks(core)
    # Sorted, because the order of the set is that of the addresses: it differs from run to run, and no failure of a
    # simulation could be repeated.
    for e in sorted(entries_of_this_process(core), key=order_to_doom):
        ep = e.pool
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        if is_checked_out(e):
            gcp_store_char(&e.closed_while_out, True)
            doom(core, ep, e, &core.doomed_for_caller, BECAUSE_POOL_CLOSED)
            count += 1
        elif e.state == CHECKING:       # a check that hangs: it finds the connection closed when it ends
            end_checking(ep, e)
            doom(core, ep, e, &core.doomed_for_caller, BECAUSE_POOL_CLOSED)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
    return count


cdef int resize(
    PoolCore core, double now, int min_idle, int max_size, int total_max_size, int min_size
) except -1:
    # A limit below 0 stays as it is.
    cdef EndpointPool ep
    cdef Chain served = Chain(NULL, NULL, 0)
    set_limits(core, min_idle, max_size, total_max_size, min_size)
    for ep in endpoint_pools(core):
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        ep.core_size = max(core.core_size, 0 if ep.growth is None else ep.growth.pinned)
        doom_surplus(core, ep)
        schedule_core_idle(core, ep)
        if not ep.forgotten:
            note_short(core, ep, now)
            update_wants_slot(core, ep)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
    gcp_lock(&core.lock)
    advance_relief(core, now)
    while exceeds_total_max_size(core) and evict(core, INFINITY, &core.doomed_for_caller, BECAUSE_SHRUNK) != NULL:
        pass
    dispatch(core, &core.doomed_for_caller, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return 0


cdef void schedule_core_idle(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. A min_size may have been set, which gives core connections an idle time.
    cdef void *p = ep.core.head
    while p != NULL:
        schedule_locked(&core.deadlines, <Entry>p, deadline_if_idle(core, <Entry>p, True, (<Entry>p).used_at))
        p = (<Entry>p).next


cdef void set_limits(PoolCore core, int min_idle, int max_size, int total_max_size, int min_size) noexcept:
    gcp_lock(&core.lock)
    if min_size < 0:
        min_size = core.min_size
    if min_idle < 0:
        min_idle = core.min_idle
    if max_size < 0:
        max_size = core.max_size
    if total_max_size < 0:
        total_max_size = core.total_max_size
    core.shrunk = core.shrunk or max_size < core.max_size or total_max_size < core.total_max_size
    gcp_store_int(&core.min_idle, min_idle)
    set_min_size(core, min_size)
    gcp_store_int(&core.max_size, max_size)
    gcp_store_int(&core.total_max_size, total_max_size)
    gcp_unlock(&core.lock)


cdef void set_min_size(PoolCore core, int min_size) noexcept:
    # core.lock is held, or the core is being made. After core.min_idle was set.
    core.min_size = min_size
    gcp_store_int(&core.core_size, max(core.min_idle, min_size))
    core.core_idle_timeout = core.idle_timeout if min_size else INFINITY


cdef void doom_surplus(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Dooms the idle connections beyond max_size, the extra ones first.
    cdef void *p = oldest_idle(&ep.extra, &ep.core)
    while p != NULL and exceeds_max_size(core, ep):
        doom_idle(core, ep, <Entry>p, &core.doomed_for_caller, BECAUSE_SHRUNK)
        p = oldest_idle(&ep.extra, &ep.core)
