# The user's calls besides acquire and release: taking a connection that is ready now, and having the pool close one, or
# forget it.

# -- an idle connection or nothing ---------------------------------------------------------------------------------

cdef Entry take_ready(PoolCore core, object endpoint, double now, double interval):
    # An idle connection that is served without a check, or None. Nothing is doomed: expired connections are closed
    # later.
    cdef void *taken = take_idle(core, endpoint, now, interval, TAKEN_ENTRY)
    cdef EndpointPool ep
    if taken != NULL:
        return owned_entry(taken)
    must_be_open(core, endpoint)
    ep = find_pool(core, endpoint)
    return None if ep is None else take_any_ready(core, ep, now, interval)


cdef int must_be_open(PoolCore core, object endpoint) except -1:
    hash_of(endpoint)
    if is_closed(core):
        raise ConnectionPoolClosedError(
            f'{pool_text(core)} is closed: no connection to {endpoint_text(core, endpoint)} can be acquired'
        )
    if gcp_load_int(&core.restrictions) & NOT_OPEN:
        raise ConnectionPoolClosedError(
            f'{pool_text(core)} is not open yet: '
            f'no connection to {endpoint_text(core, endpoint)} can be acquired before open()'
        )
    return 0


cdef Entry take_any_ready(PoolCore core, EndpointPool ep, double now, double interval):
    # The next idle connection needs a check, or its lifetime is over. Another one may need no check: one that was used
    # recently, behind one that was not. Costs O(n) in the number of the endpoint's idle connections.
    cdef Entry e = None
    cdef void *p
    if made_before_fork(core, ep.fork_epoch):       # normalize() or an __eq__ has forked, and this is the child
        return None
    gcp_lock(&ep.lock)
    if ep.queue.head == NULL and not gcp_load_int(&core.restrictions):
        p = first_ready(ep, ep.core.head, True, now, interval)
        if p == NULL:
            p = first_ready(ep, next_extra(core, ep), core.serves_oldest, now, interval)
        if p != NULL:
            e = <Entry>p
            unlink_idle(ep, e)
            lend(ep, e, now)
    gcp_unlock(&ep.lock)
    return e


cdef void *first_ready(EndpointPool ep, void *p, bint forwards, double now, double interval) noexcept:
    # ep.lock is held. The first entry from `p` on that is ready; NULL if there is none.
    while p != NULL and not is_ready(ep, <Entry>p, now, interval):
        p = (<Entry>p).next if forwards else (<Entry>p).prev
    return p


cdef inline bint is_ready(EndpointPool ep, Entry e, double now, double interval) noexcept:
    # ep.lock is held.
    return not lifetime_is_over(e, now) and not (interval > 0 and must_be_checked(ep, e, now, interval))


# -- discard and detach --------------------------------------------------------------------------------------------

# A connection that its user discards or detaches leaves the pool in this call, and its lease has ended: of two calls,
# or of a call and a release, one finds it ACQUIRED, and the other raises. Entry.given_up shows the context around the
# user's block that there is nothing left to return.

cdef Entry entry_of(PoolCore core, object conn):
    # None if the connection belongs to the parent process.
    cdef Entry e = find_entry(&core.directory, conn)
    if e is None:
        must_be_inherited(core, conn, UNSET_ENDPOINT)
    return e


cdef bint detach(PoolCore core, Entry e, double now) except -1:
    cdef EndpointPool ep = pool_of(e)
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef CheckTimer timer
    cdef bint out
    if made_before_fork(core, e.fork_epoch):
        return False
    timer = check_timer_of(core, e)
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    out = is_acquired_by(e, ANY_LEASE)
    if out:
        if timer is not None:
            drop_check_timer(core, timer)
        gcp_store_char(&e.given_up, True)
        end_use(core, ep, e, now)
        advance_relief(core, now)
        note_used(ep, now)
        unschedule_locked(&core.deadlines, e)
        free_slot(core, ep, e)
        core.counters.detached += 1
        forget_connection(&core.directory, e)
    gcp_unlock(&ep.lock)
    if out:
        after_slot_freed(core, ep, e, now, &core.doomed_for_worker, &served)
    gcp_unlock(&core.lock)
    if not out:
        must_not_be_closed(core, e)
        must_be_out(core, e, ANY_LEASE)
        return False
    if timer is not None:
        core.check_timers.pop(e, None)
    core.entries.discard(e)
    drop_record(core, e)
    notify_all(core, &served)
    return True


cdef int must_not_be_closed(PoolCore core, Entry e) except -1:
    if gcp_load_char(&e.closed_while_out):
        raise ConnectionNotAcquired(
            f'the connection {e.conn_!r} of {pool_text(core)} was closed by close(): '
            'expected one to detach that is still open'
        )
    return 0
