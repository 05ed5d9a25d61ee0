# -- finding the entry ---------------------------------------------------------------------------------------------

cdef inline Entry find_acquired_by_identity(PoolCore core, object conn, object endpoint):
    # The entry of an acquired connection, if it can be found without user code (__eq__ of another endpoint object) and
    # without an error; else None.
    cdef Entry e = find_entry(&core.directory, conn)
    if e is None or gcp_load_char(&e.state) != ACQUIRED:
        return None
    if (
        e.pool.endpoint is not endpoint
        and endpoint is not UNSET_ENDPOINT
        and find_by_identity(&core.directory, endpoint) is not e.pool
    ):
        return None
    return e


cdef inline Entry entry_to_release(PoolCore core, object conn, object endpoint):
    # None if there is nothing to do: close() has closed the connection while it was checked out, or the connection
    # belongs to the parent process.
    cdef void *p = find_connection(&core.directory, conn)
    if p == NULL:
        must_be_inherited(core, conn, endpoint)
        return None
    if (<Entry>p).pool.endpoint is not endpoint or gcp_load_char(&(<Entry>p).state) != ACQUIRED:
        return entry_if_to_release(core, owned_entry(p), endpoint)
    return owned_entry(p)


cdef Entry entry_if_to_release(PoolCore core, Entry e, object endpoint):
    must_be_for(core, e, endpoint)
    if gcp_load_char(&e.state) == RELEASING:    # an earlier release: it may wait for its turn in the loop
        must_be_out(core, e, ANY_LEASE)
    if gcp_load_char(&e.closed_while_out):
        forget_closed_while_out(core, e)
        return None
    return e


cdef int must_be_inherited(PoolCore core, object conn, object endpoint) except -1:
    if not is_inherited(core, conn):
        of_endpoint = '' if endpoint is UNSET_ENDPOINT else endpoint_text(core, endpoint)
        raise ConnectionNotAcquired(
            f'the connection {conn!r} does not belong to {pool_text(core)}, or is closed: '
            f'expected a connection that acquire({of_endpoint}) returned'
        )
    return 0


cdef int must_be_for(PoolCore core, Entry e, object endpoint) except -1:
    if endpoint is not UNSET_ENDPOINT and not pool_is_for(core, e.pool, endpoint):
        raise ConnectionNotAcquired(
            f'the connection {e.conn_!r} of {pool_text(core)} belongs to endpoint '
            f'{endpoint_text(core, e.pool.endpoint)}, '
            f'but was released to {endpoint_text(core, endpoint)}'
        )
    return 0


cdef Entry entry_if_acquired(PoolCore core, object conn, object endpoint):
    cdef Entry e = find_entry(&core.directory, conn)
    if e is None or gcp_load_char(&e.state) != ACQUIRED:
        return None
    return e if pool_is_for(core, e.pool, endpoint) else None


cdef bint begin_release(PoolCore core, Entry e, unsigned int lease_no) except -1:
    cdef EndpointPool ep = pool_of(e)
    cdef bint begun
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&ep.lock)
    begun = is_acquired_by(e, lease_no)
    if begun:
        move(ep, e, ACQUIRED, RELEASING)
    gcp_unlock(&ep.lock)
    if not begun:
        must_be_out(core, e, lease_no)
    return begun


cdef bint still_checked_out(PoolCore core, Entry e, unsigned int lease_no) except -1:
    cdef EndpointPool ep = pool_of(e)
    cdef bint out
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&ep.lock)
    out = is_checked_out_by(e, lease_no)
    gcp_unlock(&ep.lock)
    return out


cdef bint lease_goes_on(PoolCore core, Entry e, unsigned int lease_no, char state) except -1:
    # Whether the connection is still in the state in which the lease's holder left it. Not if another release has ended
    # the lease meanwhile.
    cdef EndpointPool ep = pool_of(e)
    cdef bint held
    if made_before_fork(core, e.fork_epoch):
        return False
    gcp_lock(&ep.lock)
    held = e.state == state and is_lease_of(e, lease_no)
    gcp_unlock(&ep.lock)
    return held


# -- release -------------------------------------------------------------------------------------------------------

cdef inline bint needs_core_lock(PoolCore core, EndpointPool ep, Entry e, double now) noexcept:
    # ep.lock is held. Whether the connection may have to be closed. Only release_with_core_lock() can decide that.
    return (
        gcp_unlikely(lifetime_is_over(e, now))
        or gcp_unlikely((gcp_load_int(&core.restrictions) | gcp_load_int(&core.wanting_count) | ep.is_watched) != 0)
        or gcp_unlikely(ep.size > gcp_load_int(&core.max_size))
        or gcp_unlikely(gcp_load_int(&core.size) > gcp_load_int(&core.total_max_size))
    )


cdef bint stays_queued(EndpointPool ep, Entry e, bint is_core) noexcept:
    # ep.lock is held. Whether an entry becomes idle that has no idle time, because its endpoint is pinned.
    return is_core and is_pinned(ep) and e.heap_key <= e.expires_at


cdef inline bint keep_if_simple(PoolCore core, EndpointPool ep, Entry e, double now) noexcept:
    # ep.lock is held, and the entry is checked out. Makes it idle. False if nothing was done: the connection may have
    # to be closed, a waiter wants it, or the entry has to be moved in the expiry queue.
    cdef bint is_core
    if needs_core_lock(core, ep, e, now) or gcp_unlikely(ep.queue.head != NULL):
        return False
    is_core = becomes_core(core, ep)
    if gcp_unlikely(deadline_if_idle(core, e, is_core, now) < e.heap_key) and not stays_queued(ep, e, is_core):
        return False        # moving the entry in the expiry queue: core.lock
    end_use(core, ep, e, now)
    push_idle(core, ep, e, now, is_core)
    return True


cdef inline bint release_if_simple(PoolCore core, object conn, object endpoint, double now) noexcept:
    # The whole of most releases: makes the connection idle without taking a reference and without running Python code.
    # False if nothing was done. The caller then takes the way that finds the endpoint by its hash, serves waiters, and
    # raises errors.
    cdef void *p = lock_entry_borrowed(&core.directory, conn)
    cdef void *ep
    cdef bint done
    if gcp_unlikely(p == NULL):
        return False
    ep = <void *>(<Entry>p).pool
    done = (
        (gcp_likely((<EndpointPool>ep).endpoint is endpoint) or endpoint is UNSET_ENDPOINT)
        and gcp_likely((<Entry>p).state == ACQUIRED)
        and gcp_likely(not gcp_load_char(&(<Entry>p).broken))
        and keep_if_simple(core, <EndpointPool>ep, <Entry>p, now)
    )
    gcp_unlock(&(<EndpointPool>ep).lock)
    return done


cdef inline bint release_fast(PoolCore core, Entry e, double now, unsigned int lease_no) except -1:
    # The releases that need only the lock of the entry's endpoint pool. False if nothing was done: the caller calls
    # release_with_core_lock() then. The lease number identifies the acquire that this ends: it never ends another
    # user's.
    cdef void *ep = <void *>e.pool      # lives as long as the entry: no reference is taken
    return release_fast_to(core, <EndpointPool>ep, e, now, lease_no)


cdef inline bint release_fast_to(
    PoolCore core, EndpointPool ep, Entry e, double now, unsigned int lease_no
) except -1:
    cdef bint kept
    if gcp_unlikely(made_before_fork(core, e.fork_epoch)):
        return True
    gcp_lock(&ep.lock)
    if gcp_unlikely(not is_checked_out_by(e, lease_no)):
        gcp_unlock(&ep.lock)
        must_be_out(core, e, lease_no)
        return True
    if gcp_unlikely(ep.queue.head != NULL) and not needs_core_lock(core, ep, e, now):
        return hand_over_and_unlock(e, ep, now)
    kept = keep_if_simple(core, ep, e, now)
    gcp_unlock(&ep.lock)
    return kept


cdef bint hand_over_and_unlock(Entry e, EndpointPool ep, double now) except -1:
    cdef Waiter w
    cdef void *p = ep.queue.head
    if not gcp_try_incref(p):       # the waiter's destructor runs: taking it out of the queue needs core.lock
        gcp_unlock(&ep.lock)
        return False
    w = <Waiter>p
    Py_DECREF(w)
    hand_over(ep, e, w, now)
    gcp_unlock(&ep.lock)
    w.notify()
    return True


# What happens to a released connection; the first line that applies decides:
#
#   the pool is closed, or more connections exist than a limit
#   allows, without those that are being closed already             CLOSE_SURPLUS: the slot is not reused
#   it is drained                                                   CLOSE_DRAINED
#   it was used max_uses times                                      CLOSE_FOR_OTHERS
#   its lifetime is over; if a collector will close it, only
#   if an acquire waits, at any endpoint                            CLOSE_FOR_OTHERS
#     but it is new, and an acquire waits at its endpoint           as if its lifetime was not over
#   the pool is suspended                                           KEEP
#   an acquire waits at the endpoint                                HAND_OVER
#     but another endpoint must not be overtaken any longer, and
#     not enough connections are being closed for others            CLOSE_FOR_OTHERS
#   other endpoints want more slots than are being freed            CLOSE_FOR_OTHERS
#   the pool keeps no idle connections                              CLOSE_IDLE
#   there is no memory to queue it for expiry                       CLOSE_FOR_OTHERS
#   otherwise                                                       KEEP
cdef enum:
    CLOSE_SURPLUS
    CLOSE_DRAINED
    CLOSE_FOR_OTHERS
    CLOSE_IDLE
    HAND_OVER
    KEEP


# In a pool that keeps no idle connections, keep_if_simple() keeps none either: no entry is ever in the expiry queue,
# and inserting one needs core.lock.
cdef int decide_release(PoolCore core, EndpointPool ep, Entry e, bint is_new, double now) noexcept:
    # Both locks are held. A new connection was created for the waiters at its endpoint: the dispatcher has decided
    # whose turn it is. If it was closed for others, it would be created again, and two endpoints could repeat that for
    # ever. The same holds with a max_lifetime of 0, with which each connection serves one acquire.
    cdef bint somebody_waits = ep.queue.head != NULL
    if is_closed(core) or exceeds_max_size(core, ep) or exceeds_total_max_size(core):
        return CLOSE_SURPLUS
    if is_drained(core, ep, e):
        return CLOSE_DRAINED
    if lifetime_is_over(e, now) and not (is_new and somebody_waits):
        if not core.collects or is_used_up(e) or somebody_waits or core.wanting_slots.used:
            return CLOSE_FOR_OTHERS
    elif is_suspended(core):
        pass
    elif somebody_waits:
        if is_new or not others_need_relief(core, ep) or may_overtake(core, ep, now):
            return HAND_OVER
        return CLOSE_FOR_OTHERS
    elif missing_relief(core) > 0:
        return CLOSE_FOR_OTHERS
    if not core.keeps_idle:
        return CLOSE_IDLE
    return KEEP if heap_make_room(&core.deadlines.queue, core.deadlines.queue.used + 1) else CLOSE_FOR_OTHERS


cdef struct Settled:
    int outcome
    void *first         # the oldest waiter, with a reference, or NULL
    bint wake           # the collector must be called


cdef Settled settle(
    PoolCore core, EndpointPool ep, Entry e, bint is_new, double now, double used_at, bint was_checked, Chain *doomed,
    Chain *served
) noexcept:
    # Both locks are held, and the entry is checked out. Decides what happens to its connection, and does it. The caller
    # gives back the reference to the first waiter, with no lock held, unless the connection was handed over.
    cdef Settled settled
    settled.first = first_waiter(core, ep)
    settled.wake = False
    settled.outcome = decide_release(core, ep, e, is_new, now)
    if settled.outcome != HAND_OVER:
        end_use(core, ep, e, now)
    if not was_checked:
        e.used_at = used_at
    if settled.outcome == CLOSE_SURPLUS:
        doom(core, ep, e, doomed, BECAUSE_POOL_CLOSED if is_closed(core) else BECAUSE_SHRUNK)
    elif settled.outcome == CLOSE_DRAINED:
        doom(core, ep, e, doomed, BECAUSE_DRAINED)
        count_as_relief(core, <void *>e)
    elif settled.outcome == CLOSE_FOR_OTHERS:
        doom(core, ep, e, doomed, lifetime_reason(e) if lifetime_is_over(e, now) else BECAUSE_EVICTED)
        count_as_relief(core, <void *>e)
    elif settled.outcome == CLOSE_IDLE:
        doom(core, ep, e, doomed, BECAUSE_IDLE)
    elif settled.outcome == HAND_OVER:
        hand_over(ep, e, <Waiter>settled.first, now)
        (<Waiter>settled.first).is_checked = was_checked and not e.check_pending
        chain_append(served, <Waiter>settled.first)
        update_wants_slot(core, ep)
        note_served(core, ep)
    else:
        if was_checked:
            return_idle(core, ep, e)
        else:
            push_idle(core, ep, e, used_at, becomes_core(core, ep))
        settled.wake = schedule_locked(&core.deadlines, e, deadline_of(core, e, now))
    return settled


cdef int release_with_core_lock(PoolCore core, Entry e, double now, Chain *doomed, unsigned int lease_no) except -1:
    # The releases that release_fast() leaves: they may close the connection, or move it in the expiry queue.
    cdef EndpointPool ep = e.pool
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    if is_checked_out_by(e, lease_no):
        return give_back_and_unlock(core, ep, e, now, False, doomed)
    gcp_unlock(&ep.lock)
    gcp_unlock(&core.lock)
    return must_be_out(core, e, lease_no)


cdef int give_back_and_unlock(
    PoolCore core, EndpointPool ep, Entry e, double now, bint was_checked, Chain *doomed
) except -1:
    # Both locks are held, and the entry is checked out. The end of a release, and of a check by the pool.
    cdef Chain served = Chain(NULL, NULL, 0)
    cdef Settled settled
    cdef bint relief_ended = advance_relief(core, now)
    settled = settle(core, ep, e, False, now, now, was_checked, doomed, &served)
    gcp_unlock(&ep.lock)
    if core.wanting_slots.used and (relief_ended or settled.outcome == KEEP):
        dispatch(core, doomed, &served)
    tell_end_of_use(core, &served)
    gcp_unlock(&core.lock)
    end_settling(core, &settled, &served)
    return 0


cdef int end_settling(PoolCore core, Settled *settled, Chain *served) except -1:
    # No lock is held.
    if settled.first != NULL and settled.outcome != HAND_OVER:
        Py_DECREF(<Waiter>settled.first)
    try:
        notify_all(core, served)
    finally:
        if settled.wake and core.wake_collector is not None:
            call_collector(core)
    return 0


cdef int release(PoolCore core, Entry e, double now, unsigned int lease_no) except -1:
    pool_of(e)
    if not release_fast(core, e, now, lease_no):
        release_with_core_lock(core, e, now, &core.doomed_for_caller, lease_no)
    return 0


cdef Entry find_checked_out(PoolCore core, object conn, object endpoint):
    cdef Entry e = entry_to_release(core, conn, endpoint)
    if e is not None and gcp_load_char(&e.state) != ACQUIRED:
        must_be_out(core, e, ANY_LEASE)
        return None
    return e
