# WHO CLOSES. A doomed entry goes at once onto the chain of the caller or of the workers. On threads, a release, close()
# and resize() close what they doom themselves: these connections are closed when the call returns. Connections that an
# acquire or the collector dooms are left to a worker, so that an acquire keeps its time limit however long a close
# takes. Those that the end of a close dooms for the next waiter go onto the same chain. On asyncio, tasks close, and
# take from both chains.

cdef inline Chain *doomed_of(PoolCore core, bint for_worker) noexcept:
    return &core.doomed_for_worker if for_worker else &core.doomed_for_caller


cdef inline int doomed_count(PoolCore core) noexcept:
    # How many connections are to be closed, by a caller or by a worker.
    return gcp_load_int(&core.doomed_for_caller.count) + gcp_load_int(&core.doomed_for_worker.count)


cdef inline bint has_doomed(PoolCore core) noexcept:
    return doomed_count(core) != 0


cdef inline void doom(PoolCore core, EndpointPool ep, Entry e, Chain *doomed, int reason) noexcept:
    # Both locks are held.
    begin_closing(core, ep, e, reason)
    chain_append(doomed, e)


cdef inline void doom_idle(PoolCore core, EndpointPool ep, Entry e, Chain *doomed, int reason) noexcept:
    # Both locks are held.
    unlink_idle(ep, e)
    doom(core, ep, e, doomed, reason)


cdef inline void doom_dead(PoolCore core, Waiter w) noexcept:
    # core.lock is held. Dooms the connection that a check of this waiter found dead: its state is CLOSING since
    # reject_dead(). The caller holds a reference to the entry, so that it is not freed here.
    if w.dead_entry is not None:
        if not made_before_fork(core, w.dead_entry.fork_epoch):
            core.connecting -= 1
            chain_append(&core.doomed_for_worker, w.dead_entry)
        w.dead_entry = None


cdef Entry take_from(PoolCore core, Chain *doomed):
    cdef Entry e = None
    cdef void *p
    if gcp_load_int(&doomed.count):
        gcp_lock(&core.lock)
        p = chain_take_entry(doomed)
        if p != NULL:
            e = <Entry>p
        gcp_unlock(&core.lock)
    return e


cdef Entry take_close(PoolCore core):
    # For a worker: the next entry to close. None if there is none, or no close may begin.
    cdef Entry e = None
    cdef void *p
    if closes_to_begin(core):
        gcp_lock(&core.lock)
        p = chain_take_entry(&core.doomed_for_worker) if room_for_jobs(core, CLOSE_JOB) else NULL
        if p != NULL:
            e = <Entry>p
            begin_job(core, e, CLOSE_JOB)
        gcp_unlock(&core.lock)
    return e


cdef int forget_closed_while_out(PoolCore core, Entry e) except -1:
    # close() closed the connection while it was checked out, and now its user has released it: its entry was kept for
    # that release only.
    cdef EndpointPool ep = e.pool
    cdef bint gone
    gcp_lock(&ep.lock)
    gone = e.closed_while_out and e.state == GONE
    gcp_store_char(&e.closed_while_out, False)
    if gone:        # else the entry is still doomed, and only core.entries owns it: disposed() will do this
        forget_connection(&core.directory, e)
    gcp_unlock(&ep.lock)
    if gone:
        core.entries.discard(e)
        drop_record(core, e)
    return 0


cdef int doom_again(PoolCore core, Entry e) except -1:
    pool_of(e)
    if not made_before_fork(core, e.fork_epoch):
        gcp_lock(&core.lock)
        gcp_assert(e.state == CLOSING)
        end_job(core, e)
        chain_append(&core.doomed_for_worker, e)
        gcp_unlock(&core.lock)
    return 0


cdef int disposed(PoolCore core, Entry e, double now, Chain *doomed) except -1:
    cdef EndpointPool ep = pool_of(e)
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef CheckTimer timer
    cdef bint keep
    if made_before_fork(core, e.fork_epoch):
        return 0
    timer = check_timer_of(core, e)
    gcp_lock(&core.lock)
    if timer is not None:
        drop_check_timer(core, timer)
    advance_relief(core, now)
    end_job(core, e)
    gcp_lock(&ep.lock)
    gcp_assert(e.state == CLOSING)
    keep = e.closed_while_out       # the release is still to come: see forget_closed_while_out()
    end_relief(core, e)
    unschedule_locked(&core.deadlines, e)
    free_slot(core, ep, e)
    end_refusal(core, ep, now)
    core.counters.disposed += 1
    core.counters.closed[<int>e.reason] += 1
    if not keep:
        forget_connection(&core.directory, e)
    gcp_unlock(&ep.lock)
    after_slot_freed(core, ep, e, now, doomed, &served)
    gcp_unlock(&core.lock)
    if timer is not None:
        core.check_timers.pop(e, None)
    if not keep:
        core.entries.discard(e)
        drop_record(core, e)
    notify_all(core, &served)
    return 0


cdef Entry take_from_either(PoolCore core):
    cdef Entry e = take_from(core, &core.doomed_for_caller)
    return take_from(core, &core.doomed_for_worker) if e is None else e
