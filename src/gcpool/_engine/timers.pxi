# TIMERS. Timed actions, which happen without a call of the pool: a close stops counting as relief, the next attempt to
# connect to an endpoint in an outage is due, and minimums must be filled that could not be before. On asyncio a timer
# of the loop does that, on threads an idle worker.

cdef double next_timer(PoolCore core) noexcept:
    # core.lock is held. INFINITY if nothing is due.
    cdef double at = relief_ends_at(core)
    if core.fills_paused:
        at = min(at, core.refill_at)
    return min(at, core.retries.items[0].key) if core.retries.used else at


cdef int run_timers(PoolCore core, double now, bint by_worker) except -1:
    # A worker that calls this then looks for work. So no worker need be called for the slots that this reserves.
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint relief_ended
    cdef bint retries_due
    cdef bint fills_due
    gcp_lock(&core.lock)
    relief_ended = advance_relief(core, now)
    retries_due = note_retries_due(core, now)
    fills_due = core.fills_paused and core.refill_at <= now
    if fills_due:
        core.fills_paused = False
    if relief_ended or retries_due or fills_due:
        dispatch(core, &core.doomed_for_worker, &served)
    if by_worker:
        gcp_store_int(&core.must_call_workers, False)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return 0


cdef double read_with_core_lock(PoolCore core, double (*when)(PoolCore) noexcept) noexcept:
    # No lock is held.
    cdef double at
    gcp_lock(&core.lock)
    at = when(core)
    gcp_unlock(&core.lock)
    return at


cdef object none_if_endless(double at, double endless):
    return None if at >= endless else at
