# CHECKS BY THE POOL. A connection that the pool checks in the background is CHECKING: neither idle nor checked out, and
# it has its slot. No acquire is served it, and none waits beside it as beside an idle one. If it is alive, it goes to
# the oldest waiter, which need not check it again, or back to its old place among the idle ones. A check does not count
# as a use: its idle time continues.
#
# Connections that were taken out for a check wait in Checks.pending for a worker.
#
# In a suspended pool no check begins. Those under way may end; connections that wait for one become idle, and are
# checked before they are served. A drained connection whose check is under way counts as in use until that ends.

cdef void begin_checking_idle(EndpointPool ep, Entry e) noexcept:
    # Both locks are held.
    e.mark.was_core = e.state == IDLE_CORE
    unlink_idle(ep, e)
    begin_checking(ep, e)


cdef void note_check_begins(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # Both locks are held. If another connection is found dead meanwhile, this one remains suspect, although it answers.
    core.counters.checks += 1
    e.verified_at = ep.distrust_count
    e.check_pending = True


cdef bint leave_check_to_pool(PoolCore core, Waiter w, double now) except -1:
    # False if the waiter no longer holds the connection, or the pool is closed. The acquire continues: it counts among
    # PoolCore.connecting until it asks again, or ends.
    cdef Entry e = entry_held_by(w)
    cdef EndpointPool ep = e.pool
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef bint held
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    held = is_acquired_by(e, w.lease_no) and not is_closed(core)
    if not held:
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
        return False
    e.mark.was_core = becomes_core(core, ep)
    e.check_pending = True
    if not w.was_idle:
        # Its user has returned it to this waiter. Others may have been in use since: see used_last().
        note_used(ep, used_last(ep))
        put_last(core, ep, e)
    begin_checking(ep, e)
    ep.acquires -= 1
    core.connecting += 1
    w.counted = COUNTED_CONNECTING
    w.check_timed_out = True
    w.entry = None
    w.state = FRESH
    if is_suspended(core):
        end_checking(ep, e, now)
        give_back_and_unlock(core, ep, e, now, True, &core.doomed_for_worker)
        return True
    chain_append(&core.checks.pending, e)
    gcp_unlock(&ep.lock)
    tell_end_of_use(core, &notified)
    gcp_unlock(&core.lock)
    notify_all(core, &notified)
    return True


cdef Entry take_check(PoolCore core):
    cdef Entry e = None
    cdef EndpointPool ep
    cdef void *p = NULL
    if checks_to_begin(core) == 0:
        return None
    gcp_lock(&core.lock)
    if room_for_jobs(core, CHECK_JOB) and not is_suspended(core):
        p = chain_take_entry(&core.checks.pending)
    if p != NULL:
        e = <Entry>p
        ep = e.pool
        gcp_lock(&ep.lock)
        note_check_begins(core, ep, e)
        gcp_unlock(&ep.lock)
        begin_job(core, e, CHECK_JOB)
    gcp_unlock(&core.lock)
    return e


cdef bint begin_check_of_idle(PoolCore core, Entry e) except -1:
    cdef EndpointPool ep = pool_of(e)
    cdef bint idle
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    idle = is_idle(e)
    if idle:
        begin_checking_idle(ep, e)
        note_check_begins(core, ep, e)
    gcp_unlock(&ep.lock)
    gcp_unlock(&core.lock)
    return idle


cdef bint end_check_by_pool(PoolCore core, Entry e, bint answered, bint alive, double now, Chain *doomed) except -1:
    # True if the connection is dead: without a chain the caller closes it. close() may have closed it meanwhile.
    cdef EndpointPool ep = pool_of(e)
    cdef CheckTimer timer
    cdef bint by_worker
    if made_before_fork(core, e.fork_epoch):
        return False
    timer = check_timer_of(core, e)
    gcp_lock(&core.lock)
    if timer is not None:
        timer.checked_at = now
    by_worker = e.job == CHECK_JOB
    if by_worker:
        end_job(core, e)
    gcp_lock(&ep.lock)
    if answered and not alive:
        core.counters.checks_failed += 1
    if e.state != CHECKING:
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
        return False
    end_checking(ep, e, now)
    if answered and not alive:
        if by_worker and doomed == NULL:
            begin_job(core, e, CLOSE_JOB)       # the same worker closes it
        doom_checked_and_unlock(core, ep, e, now, doomed)
        return True
    e.check_pending = not answered
    give_back_and_unlock(core, ep, e, now, True, &core.doomed_for_worker)
    return False


cdef int doom_checked_and_unlock(PoolCore core, EndpointPool ep, Entry e, double now, Chain *doomed) except -1:
    # Both locks are held.
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef bint relief_ended = advance_relief(core, now)
    begin_closing(core, ep, e, BECAUSE_DEAD)
    core.counters.dead += 1
    ep.distrust_count += 1
    count_as_relief(core, <void *>e)
    if doomed != NULL:
        chain_append(doomed, e)
    gcp_unlock(&ep.lock)
    if relief_ended:
        dispatch(core, &core.doomed_for_worker, &served)
    gcp_unlock(&core.lock)
    try:
        notify_all(core, &served)
    except BaseException:
        if doomed == NULL:      # the exception keeps the caller from closing the connection
            doom_again(core, e)
        raise
    return 0


cdef int give_up_checks(PoolCore core, double now) except -1:
    # No check may begin in the background: connections that wait for one become idle again, and are checked before they
    # are served.
    cdef EndpointPool ep
    cdef void *p
    failure = None
    while True:
        gcp_lock(&core.lock)
        p = chain_take_entry(&core.checks.pending)
        if p == NULL:
            gcp_unlock(&core.lock)
            break
        ep = (<Entry>p).pool
        gcp_lock(&ep.lock)
        (<Entry>p).check_pending = True
        end_checking(ep, <Entry>p, now)
        try:
            give_back_and_unlock(core, ep, <Entry>p, now, True, &core.doomed_for_worker)
        except BaseException as exc:    # a waiter that cannot be woken must not keep the others waiting
            if failure is None:
                failure = exc
    if failure is not None:
        raise failure
    return 0


cdef void doom_pending_checks(PoolCore core, EndpointPool ep, double now, int reason) noexcept:
    # Both locks are held. Dooms the connections that wait for a check at an endpoint.
    cdef Chain others = Chain(NULL, NULL, 0)
    cdef void *p = chain_take_entry(&core.checks.pending)
    while p != NULL:
        if (<Entry>p).pool is ep:
            end_checking(ep, <Entry>p, now)
            doom(core, ep, <Entry>p, &core.doomed_for_worker, reason)
            count_as_relief(core, p)
        else:
            chain_append(&others, <Entry>p)
        p = chain_take_entry(&core.checks.pending)
    core.checks.pending = others


cdef void drop_pending_checks(PoolCore core, Chain *doomed, double now) noexcept:
    # The pool is closed.
    cdef EndpointPool ep
    cdef void *p
    gcp_lock(&core.lock)
    p = chain_take_entry(&core.checks.pending)
    while p != NULL:
        ep = (<Entry>p).pool
        gcp_lock(&ep.lock)
        end_checking(ep, <Entry>p, now)
        doom(core, ep, <Entry>p, doomed, BECAUSE_POOL_CLOSED)
        gcp_unlock(&ep.lock)
        p = chain_take_entry(&core.checks.pending)
    gcp_unlock(&core.lock)


cdef list idle_entries(PoolCore core, object endpoint, bint of_all):
    # The idle entries, in one list per endpoint, in the order of their release.
    cdef EndpointPool ep = None
    cdef Entry e
    groups = {}
    if not of_all:
        ep = find_pool(core, endpoint)
        if ep is None:
            hash_of(endpoint)       # raises TypeError if the object cannot be an endpoint
            return []
    for e in sorted(entries_of_this_process(core), key=order_of_release):
        state = gcp_load_char(&e.state)
        if (state == IDLE_CORE or state == IDLE_EXTRA) and (of_all or e.pool is ep):
            groups.setdefault(id(e.pool), []).append(e)
    return list(groups.values())


cdef unsigned long long order_of_release(object e):
    return (<Entry>e).stamp
