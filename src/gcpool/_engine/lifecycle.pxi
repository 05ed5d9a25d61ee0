cdef bint open_(PoolCore core, double now) except -1:
    # False if the pool is open already, or closed.
    cdef bint opens
    cdef Chain served = Chain(NULL, NULL, 0)
    gcp_lock(&core.lock)
    opens = core.restrictions & NOT_OPEN != 0 and not is_closed(core)
    if opens:
        allow_locked(core, NOT_OPEN)
        advance_relief(core, now)
        dispatch(core, &core.doomed_for_worker, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return opens


cdef int close(PoolCore core, Chain *doomed) except -1:
    cdef EndpointPool ep
    cdef Chain refused = Chain(NULL, NULL, 0)
    cdef double now = read_clock(core)
    failure = None
    gcp_lock(&core.lock)
    restrict_locked(core, CLOSED)
    core.fills_paused = False
    take_fill_watchers(core, &refused)
    free_all_reserved(core, now, &refused)
    gcp_unlock(&core.lock)
    drop_pending_checks(core, doomed, now)
    try:
        notify_all(core, &refused)
    except BaseException as exc:
        failure = exc
    # Endpoint pools that appear from here on stay empty, because request() refuses.
    for ep in endpoint_pools_in_order(core):
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        refuse_waiters(core, ep, &refused)
        doom_all_idle(core, ep, doomed)
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
        refuse(core, <Waiter>p)
        chain_append(refused, <Waiter>p)
        p = first_waiter(core, ep)
    update_wants_slot(core, ep)


cdef void doom_all_idle(PoolCore core, EndpointPool ep, Chain *doomed) noexcept:
    # Both locks are held.
    cdef void *p = oldest_idle(&ep.core, &ep.extra)
    while p != NULL:
        doom_idle(core, ep, <Entry>p, doomed, BECAUSE_POOL_CLOSED)
        p = oldest_idle(&ep.core, &ep.extra)


cdef tuple order_to_doom(object e):
    return gcp_load_double(&(<Entry>e).expires_at), (<Entry>e).stamp


cdef int doom_acquired(PoolCore core) except -1:
    cdef Entry e
    cdef EndpointPool ep
    cdef int count = 0
    cdef double now = read_clock(core)
    cdef Chain notified = Chain(NULL, NULL, 0)
    drop_pending_checks(core, &core.doomed_for_caller, now)
    # Sorted, because the order of the set is that of the addresses: it differs from run to run, and no failure of a
    # simulation could be repeated.
    for e in sorted(entries_of_this_process(core), key=order_to_doom):
        ep = e.pool
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        if is_checked_out(e):
            gcp_store_char(&e.closed_while_out, True)
            core.cut_off_uses += 1
            doom(core, ep, e, &core.doomed_for_caller, BECAUSE_POOL_CLOSED)
            count += 1
        elif e.state == CHECKING:       # a check that hangs: it finds the connection closed when it ends
            end_job(core, e)
            end_checking(ep, e, now)
            doom(core, ep, e, &core.doomed_for_caller, BECAUSE_POOL_CLOSED)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
    gcp_lock(&core.lock)
    tell_end_of_use(core, &notified)
    gcp_unlock(&core.lock)
    notify_all(core, &notified)
    return count


cdef struct LimitsToSet:    # below 0: stays as it is
    int min_idle
    int max_size
    int total_max_size
    int min_size
    int max_waiting
    int max_workers


cdef bint resize(PoolCore core, double now, LimitsToSet to_set, object limits, object expected) except -1:
    cdef EndpointPool ep
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint wake = False
    if not set_limits(core, &to_set, limits, expected):
        return False
    if to_set.min_size > 0:
        gcp_store_int(&core.keeps_growth, True)
    for ep in endpoint_pools_in_order(core):
        if gcp_load_int(&core.keeps_growth):
            ensure_growth(core, ep, now)
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        ep.core_size = max(core.core_size, 0 if ep.growth is None else ep.growth.pinned)
        doom_surplus(core, ep)
        if sort_idle(core, ep, now):
            wake = True
        if not ep.forgotten:
            if ep.growth is not None:
                note_filled(core, ep, &served)
            note_short(core, ep, now)
            update_wants_slot(core, ep)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
    gcp_lock(&core.lock)
    advance_relief(core, now)
    while exceeds_total_max_size(core) and evict_unused(core, &core.doomed_for_caller, BECAUSE_SHRUNK) != NULL:
        pass
    dispatch(core, &core.doomed_for_caller, &served)
    gcp_unlock(&core.lock)
    try:
        notify_all(core, &served)
    finally:
        if wake and core.wake_collector is not None:
            call_collector(core)
    return True


cdef inline int changed(int limit, int to_set) noexcept:
    return limit if to_set < 0 else to_set


cdef bint set_limits(PoolCore core, LimitsToSet *to_set, object limits, object expected) noexcept:
    # False if another call has changed the limits that the caller expected, and against which it has checked the new
    # ones.
    cdef object _before         # holds the reference until no lock is held
    cdef int max_size, total_max_size
    gcp_lock(&core.lock)
    _before = core.limits_
    if _before is not expected:
        gcp_unlock(&core.lock)
        return False
    core.limits_ = limits
    max_size = changed(core.max_size, to_set.max_size)
    total_max_size = changed(core.total_max_size, to_set.total_max_size)
    core.shrunk = core.shrunk or max_size < core.max_size or total_max_size < core.total_max_size
    gcp_store_int(&core.min_idle, changed(core.min_idle, to_set.min_idle))
    set_min_size(core, changed(core.min_size, to_set.min_size))
    gcp_store_int(&core.max_size, max_size)
    gcp_store_int(&core.total_max_size, total_max_size)
    gcp_store_int(&core.max_waiting, changed(core.max_waiting, to_set.max_waiting))
    gcp_store_int(&core.jobs.max_workers, changed(core.jobs.max_workers, to_set.max_workers))
    gcp_unlock(&core.lock)
    return True


cdef object limits_of(PoolCore core):
    gcp_lock(&core.lock)
    found = core.limits_
    gcp_unlock(&core.lock)
    return found


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


cdef bint sort_idle(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. min_idle may have changed: idle connections beyond it become extra, so that they expire, and
    # extra ones below it become core, so that they do not. Also, a min_size may have been set, which gives core
    # connections an idle time. True if the collector would wake too late.
    cdef void *p
    cdef bint wake = False
    while ep.counts[IDLE_CORE] > ep.core_size:
        p = ep.core.head
        linked_remove(&ep.core, <Entry>p)
        move(ep, <Entry>p, IDLE_CORE, IDLE_EXTRA)
        insert_by_release(&ep.extra, <Entry>p)
        if schedule_locked(&core.deadlines, <Entry>p, deadline_of(core, <Entry>p, now)):
            wake = True
    while ep.extra.tail != NULL and ep.counts[IDLE_CORE] + (out_count(ep) & core.out_mask) < ep.core_size:
        p = ep.extra.tail
        linked_remove(&ep.extra, <Entry>p)
        move(ep, <Entry>p, IDLE_EXTRA, IDLE_CORE)
        insert_by_release(&ep.core, <Entry>p)
    p = ep.core.head
    while p != NULL:
        if schedule_locked(
            &core.deadlines, <Entry>p, deadline_if_idle(core, <Entry>p, True, (<Entry>p).used_at)
        ):
            wake = True
        p = (<Entry>p).next
    return wake


cdef void insert_by_release(Linked *idle, Entry e) noexcept:
    # The lock of the endpoint pool is held. The list is in the order of the releases. The entry may have been unused
    # for longest: the search begins with those.
    cdef void *following = idle.head
    while following != NULL and (<Entry>following).stamp < e.stamp:
        following = (<Entry>following).next
    linked_insert(idle, e, following)


cdef LimitsToSet limits_to_set(
    object min_idle,
    object max_size,
    object total_max_size,
    object min_size,
    object max_waiting,
    object max_workers,
) except *:
    # None leaves a limit as it is.
    cdef LimitsToSet to_set
    to_set.min_idle = -1 if min_idle is None else min_idle
    to_set.max_size = -1 if max_size is None else max_size
    to_set.total_max_size = -1 if total_max_size is None else total_max_size
    to_set.min_size = -1 if min_size is None else min_size
    to_set.max_waiting = -1 if max_waiting is None else max_waiting
    to_set.max_workers = -1 if max_workers is None else max_workers
    return to_set
