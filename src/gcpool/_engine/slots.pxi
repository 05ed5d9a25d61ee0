cdef void serve_ticket(PoolCore core, EndpointPool ep, Waiter w) noexcept:
    # Both locks are held, and both limits allow one more connection. The waiter's spare entry becomes its ticket.
    cdef Entry e = w.spare
    limit_uses(e, core.max_uses)
    serve(w, e)
    w.was_idle = False
    w.lease_no = following_lease(w.lease_no)    # created() begins its first lease
    w.spare = None
    e.pool = ep
    e.fork_epoch = core.fork_epoch
    e.verified_at = ep.distrust_count   # now, not after the connect: an outage may come in the middle of it
    core.connecting += 1
    take_slot(core, ep, e)
    if ep.growth is not None:
        begin_attempt(core, ep.growth, <void *>e)


cdef void enqueue(PoolCore core, EndpointPool ep, Waiter w) noexcept:
    # Both locks are held. The queue is ordered by number: a waiter that was served a dead connection and asks again
    # comes before all that arrived after it. It is older than nearly all others, so the search begins at the front. The
    # waiter of a signal handler has the number of the waiter that it interrupts, and comes before that.
    cdef void *following = NULL
    if ep.queue.tail != NULL and (<Waiter>ep.queue.tail).number >= w.number:
        following = ep.queue.head
        while (<Waiter>following).number < w.number:
            following = (<Waiter>following).next
    linked_insert(&ep.queue, w, following)
    give_place(core, ep, w)
    ep.waiting += 1
    w.state = QUEUED
    gcp_enable_try_incref(w)
    if not w.has_waited:
        w.has_waited = True
        core.counters.waits += 1


cdef bint dequeue(PoolCore core, EndpointPool ep, void *p) noexcept:
    # Both locks are held. False if the waiter is no longer queued.
    cdef bint queued = (<Waiter>p).state == QUEUED
    if not queued and (<Waiter>p).state != BEING_FREED:
        return False
    if queued:
        waiter_unlink(ep, p)
    (<Waiter>p).state = CANCELLED
    update_wants_slot(core, ep)
    forget_if_empty(core, ep)
    return True


cdef inline bint shows_first_waiter(HeapItem *item, EndpointPool ep) noexcept:
    # Both locks are held. The heap orders endpoints by the place of their first waiter, and those that share a place by
    # its number.
    return item.stamp == (<Waiter>ep.queue.head).number and item.key == <double>(<Waiter>ep.queue.head).place


cdef void update_wants_slot(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. An endpoint pool wants a slot while it has waiters for which the pool is not already creating
    # connections, and one more connect may begin. Each function that changes that calls this, or dispatch() would not
    # serve these waiters. The heap has room: see reserve_heap_slot().
    cdef void *head = ep.queue.head
    cdef bint wants = head != NULL and may_connect(core, ep) and has_uncovered_waiters(ep)
    if wants and ep.heap_index < 0:
        heap_push(&core.wanting_slots, <void *>ep, <double>(<Waiter>head).place, (<Waiter>head).number)
        begin_to_want(core, ep)
    elif wants and not shows_first_waiter(&core.wanting_slots.items[ep.heap_index], ep):
        heap_rekey(&core.wanting_slots, <void *>ep, <double>(<Waiter>head).place, (<Waiter>head).number)
        note_first_waiter(core, ep)
    elif not wants and ep.heap_index >= 0:
        heap_remove(&core.wanting_slots, <void *>ep)
        heap_remove(&core.unserved, <void *>ep)
    gcp_store_int(&core.wanting_count, <int>core.wanting_slots.used)


cdef inline bint has_uncovered_waiters(EndpointPool ep) noexcept:
    # Both locks are held. Each create by the pool itself counts for one waiter, also if it was begun for another one.
    return ep.growth is None or ep.waiting > ep.growth.creating


cdef inline bint pool_creates(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Whether the pool itself connects, and not an acquire.
    if core.creates_in_background:
        return True
    if not is_in_outage(ep) or ep.growth.is_hopeless:
        return False
    return core.reconnect_timeout > 0 or ep.growth.is_refusal


cdef void dispatch(PoolCore core, Chain *doomed, Chain *served) noexcept:
    # core.lock is held, no other. THE ONLY DISPATCHER: free slots go to waiters first, and then to minimums.
    serve_slots(core, doomed, served)
    fill_minimums(core)


cdef void serve_slots(PoolCore core, Chain *doomed, Chain *served) noexcept:
    # core.lock is held, no other. Gives free slots to the endpoints that want one, oldest waiter first, but before that
    # to those that are overdue. Where the total limit is reached, dooms idle connections of other endpoints instead.
    # In a closed pool close() is about to refuse the waiters, and for a slot that is reserved no worker would come.
    cdef void *p
    cdef EndpointPool ep
    cdef Waiter w
    while core.wanting_slots.used and not core.restrictions & (SUSPENDED | CLOSED):
        ep = <EndpointPool>first_wanting(core)
        gcp_lock(&ep.lock)
        if (
            ep.queue.head == NULL
            or not may_connect(core, ep)
            or not has_uncovered_waiters(ep)
            or not shows_first_waiter(&core.wanting_slots.items[ep.heap_index], ep)
        ):
            update_wants_slot(core, ep)
            gcp_unlock(&ep.lock)
            continue
        if not pool_has_room(core):
            gcp_unlock(&ep.lock)
            # One close per endpoint that wants a slot is enough for now: when a close ends, this is called again.
            while missing_relief(core) > 0:
                p = evict_unused(core, doomed, BECAUSE_EVICTED)
                if p == NULL:
                    break
                count_as_relief(core, p)
            break
        if pool_creates(core, ep):
            reserve_create(core, ep)
            update_wants_slot(core, ep)
            note_served(core, ep)
            gcp_unlock(&ep.lock)
            continue
        p = ep.queue.head
        if not gcp_try_incref(p):
            unlink_being_freed(core, ep, p)
            gcp_unlock(&ep.lock)
            continue
        w = <Waiter>p
        waiter_unlink(ep, p)
        serve_ticket(core, ep, w)
        update_wants_slot(core, ep)
        note_served(core, ep)
        gcp_unlock(&ep.lock)
        chain_append(served, w)


cdef void after_slot_freed(
    PoolCore core, EndpointPool ep, Entry gone, double now, Chain *doomed, Chain *notified
) noexcept:
    # core.lock is held, no other. The end of each close, and of each connect that failed, comes here.
    gcp_lock(&ep.lock)
    note_short(core, ep, now)
    fail_where_nothing_comes(core, ep, notified)
    update_wants_slot(core, ep)
    gcp_unlock(&ep.lock)
    dispatch(core, doomed, notified)
    # Not before that: an endpoint that is live, and has lost its only connection, may just have got a slot for another.
    gcp_lock(&ep.lock)
    forget_if_empty(core, ep)
    gcp_unlock(&ep.lock)
    take_watchers(core, gone, notified)
