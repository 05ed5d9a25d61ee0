# RELIEF. At the total cap a waiter of endpoint A gets a slot only when a connection of another endpoint is closed.
# dispatch() starts one such close per endpoint that wants a slot, not one per waiter: each finished close calls it
# again. Closes already under way count, by any caller, but for 1 to 2 s only (RELIEF_TIME), because a dispose
# can hang. Example: A wants a slot, B's first close hangs. Within 2 s dispatch() closes a second idle connection of B.
#
# A call that dooms first passes the time to advance_relief(). Otherwise a close that begins now would belong to the
# second of the last time that the core received, and would soon, or at once, no longer count.

cdef double RELIEF_TIME = 1.0


cdef inline int missing_relief(PoolCore core) noexcept:
    # core.lock is held. How many more connections have to be closed for endpoints that want a slot.
    return <int>core.wanting_slots.used - core.relief.current - core.relief.previous


cdef inline bint others_need_relief(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. The same, for other endpoints than this one.
    return missing_relief(core) - (ep.heap_index >= 0) > 0


cdef inline void count_as_relief(PoolCore core, void *p) noexcept:
    # core.lock is held. The entry was doomed: its close is relief if more relief is needed.
    if missing_relief(core) > 0:
        (<Entry>p).mark.relief |= IS_RELIEF
        (<Entry>p).epoch.relief = core.relief.epoch
        core.relief.current += 1


cdef inline bint advance_relief(PoolCore core, double now) noexcept:
    # core.lock is held. Takes the present time. True if a close has stopped counting, so that dispatch() must be
    # called.
    cdef int epoch = <int>(max(min(now, 2e9), -2e9) / RELIEF_TIME)
    cdef bint ended
    core.overtaking.told = max(core.overtaking.told, now)
    if epoch <= core.relief.epoch:
        return False
    ended = core.relief.previous > 0 or (core.relief.current > 0 and epoch > core.relief.epoch + 1)
    core.relief.previous = core.relief.current if epoch == core.relief.epoch + 1 else 0
    core.relief.current = 0
    core.relief.epoch = epoch
    return ended


cdef double relief_ends_at(PoolCore core) noexcept:
    # core.lock is held. When the oldest close that counts as relief stops counting, unless it ends first. INFINITY if
    # none counts.
    if core.relief.previous > 0:
        return (core.relief.epoch + 1) * RELIEF_TIME
    return (core.relief.epoch + 2) * RELIEF_TIME if core.relief.current > 0 else INFINITY


cdef int expire_relief(PoolCore core, double now) except -1:
    cdef Chain served = Chain(NULL, NULL, 0)
    gcp_lock(&core.lock)
    if advance_relief(core, now):
        dispatch(core, &core.doomed_for_worker, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return 0


cdef inline void *doomed_after(PoolCore core, void *last) noexcept:
    # core.lock is held. The first entry behind `last` on the workers' chain; the first one of all if `last` is NULL.
    return core.doomed_for_worker.head if last == NULL else (<Entry>last).next


cdef inline void count_as_relief_after(PoolCore core, void *last) noexcept:
    # core.lock is held.
    cdef void *p = doomed_after(core, last)
    while p != NULL:
        count_as_relief(core, p)
        p = (<Entry>p).next


cdef inline void note_waiter_after(PoolCore core, void *last) noexcept:
    # core.lock is held. The entries behind `last` were doomed by a waiter that is queued now. That waiter will call
    # expire_relief() in time, so no worker has to stay idle for it (dispose_entry).
    cdef void *p = doomed_after(core, last)
    while p != NULL:
        (<Entry>p).mark.relief |= WAITER_EXPIRES_IT
        p = (<Entry>p).next


cdef inline void end_relief(PoolCore core, Entry e) noexcept:
    # core.lock is held. The close of the entry has ended.
    if e.mark.relief & IS_RELIEF:
        e.mark.relief &= ~IS_RELIEF
        if e.epoch.relief == core.relief.epoch:
            core.relief.current -= 1
        elif e.epoch.relief == core.relief.epoch - 1:
            core.relief.previous -= 1
