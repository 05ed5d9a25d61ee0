# OVERTAKING. At the total limit a connection that is released at endpoint A goes to A's next waiter, even if a waiter
# of endpoint B came earlier: to serve B, the pool would have to close the connection and open another one. This is
# bounded in time, however many arrive meanwhile. An endpoint that has waited for 0.6 to 0.9 s is *overdue*, and gets
# the next connection that is released anywhere. Time is cut into epochs of 0.3 s (OVERTAKING_EPOCH). The core keeps the
# number of arrivals at the beginning of the last three: a waiter that arrived before the oldest of them is overdue.
#
# An endpoint has waited since its first waiter came. But while it is served and has its share already, it has waited
# since it was last served. Its share is total_max_size by the number of endpoints that want a slot. Otherwise one
# endpoint with a long queue would always be the one that has waited for longest. Example: 60 threads at A use 9 of 10
# connections for 0.5 s each, so A's first waiter has always waited for more than 2 s. One thread at B comes now and
# then. A was served a moment ago, so B is the first that is overdue. It gets a connection within 1.4 s and the time of
# a close and a connect.
#
# The bound does not grow with the holds. Where connections are held for longer than a second, closing one and opening
# another costs little against the hold; where they are held for a hundredth of that, 0.9 s are many holds. Two
# endpoints with long queues and equal shares are served all the time: neither becomes overdue, and nothing is closed.
#
# Waiters of different endpoints are compared by *place*. A waiter's place is its number, unless the waiter before it in
# the queue gave up: then it has inherited that waiter's place. If a waiter gives up and none is behind it, its place is
# kept for the next one that waits at the endpoint within 5 to 10 s (KEPT_PLACE_TIME). Otherwise an endpoint whose
# acquires time out and are tried again would start again each time. Example: B has 9 of 10 connections, all in use for
# minutes, and B's waiters give up after 0.5 s each. A passes the tenth connection on among its own waiters, which came
# after B's first one. After 0.9 s the pool closes it, and B's second waiter gets the slot.
#
# Places are kept by the hash of the endpoint, because the endpoint pool may be forgotten by then. Endpoints with equal
# hashes share a kept place.

cdef double OVERTAKING_EPOCH = 0.3
cdef double KEPT_PLACE_TIME = 10.0


cdef inline int epoch_of(double now, double length) noexcept:
    return <int>(max(min(now, 1e8), -1e8) / length)


cdef void advance_overtaking(PoolCore core, double now) noexcept:
    # core.lock is held. A waiter that arrives gets its number after this.
    cdef Overtaking *o = &core.overtaking
    cdef int epoch = epoch_of(now, OVERTAKING_EPOCH)
    cdef int passed = min(epoch - o.epoch, 3)
    while passed > 0:
        passed -= 1
        o.overdue = o.previous
        o.previous = o.current
        o.current = core.arrivals
    o.epoch = max(epoch, o.epoch)


cdef inline unsigned long long overdue_place(PoolCore core, double now) noexcept:
    # core.lock is held. The last place that is overdue. No waiter has arrived since the epoch that the core received
    # last.
    cdef Overtaking *o = &core.overtaking
    cdef int passed = epoch_of(now, OVERTAKING_EPOCH) - o.epoch
    if passed <= 0:
        return o.overdue
    if passed == 1:
        return o.previous
    return o.current if passed == 2 else core.arrivals


cdef void advance_kept_places(PoolCore core, double now) noexcept:
    # core.lock is held.
    cdef Overtaking *o = &core.overtaking
    cdef int epoch = epoch_of(now, KEPT_PLACE_TIME / 2)
    cdef int passed = min(epoch - o.place_epoch, 2)
    while passed > 0:
        passed -= 1
        PyMem_Free(o.kept_places_before.slots)
        o.kept_places_before = o.kept_places
        memset(&o.kept_places, 0, sizeof(Table))
    o.place_epoch = max(epoch, o.place_epoch)


cdef inline bint has_share(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Whether the endpoint has its share: one more connection would be more than that.
    return (<long long>ep.size + 1) * core.wanting_slots.used > core.total_max_size


cdef inline double place_of_now(PoolCore core) noexcept:
    # core.lock is held. Between the last waiter that has arrived and the next one.
    return core.arrivals + 0.5


cdef inline bint is_overdue(PoolCore core, double since, double now) noexcept:
    # core.lock is held. Whether a place, or the time between two of them, was long enough ago.
    return since <= overdue_place(core, now) + 0.5


cdef inline void *first_wanting(PoolCore core) noexcept:
    # core.lock is held, and some endpoint pool wants a slot. The endpoint pool that gets the next slot: if any is
    # overdue, the one that has waited for longest; else the one whose first waiter has the earliest place.
    if is_overdue(core, core.unserved.items[0].key, core.overtaking.told):
        return core.unserved.items[0].item
    return core.wanting_slots.items[0].item


cdef bint may_overtake(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. Whether the first waiter of an endpoint may be served before all others that want a slot.
    # An endpoint without a connection would wait for ever while another one is always busy, so it is never overtaken
    # by those that came later, at the price of a new connection. An endpoint with connections is expected to serve its
    # waiters itself, but its connections may stay in use for long: it is overtaken until it is overdue. Its further
    # waiters are then not overtaken by new ones.
    cdef HeapItem *first = core.wanting_slots.items
    cdef double place = <double>(<Waiter>ep.queue.head).place
    if core.wanting_slots.used == 0:
        return True
    if core.unserved.items[0].item != <void *>ep and is_overdue(core, core.unserved.items[0].key, now):
        return False
    if first.key >= place:
        return True
    if (<EndpointPool>first.item).size == 0:
        return False
    return not is_overdue(core, first.key, now) or is_overdue(core, place, now)


cdef void begin_to_want(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. The endpoint pool has just become one of those that want a slot.
    # If several already wait, the endpoint was full until now, and served its waiters itself.
    cdef void *head = ep.queue.head
    cdef double since = place_of_now(core) if ep.waiting > 1 and ep.size > 0 else <double>(<Waiter>head).place
    heap_push(&core.unserved, <void *>ep, since, (<Waiter>head).number)


cdef void note_first_waiter(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Another waiter is at the head of its queue, or has another place.
    cdef void *head = ep.queue.head
    if ep.waiting == 1 or not has_share(core, ep):
        heap_rekey(&core.unserved, <void *>ep, <double>(<Waiter>head).place, (<Waiter>head).number)


cdef void note_served(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. A waiter of the endpoint pool was just served.
    if ep.second_index >= 0 and has_share(core, ep):
        heap_rekey(&core.unserved, <void *>ep, place_of_now(core), (<Waiter>ep.queue.head).number)


cdef void note_resumed(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. resume() has served waiters of this endpoint pool, and of others. The results of
    # note_first_waiter() meanwhile depend on the order of the endpoint pools, because fewer and fewer of them wanted a
    # slot.
    cdef void *head = ep.queue.head
    cdef double since
    if ep.second_index >= 0:
        since = place_of_now(core) if has_share(core, ep) else <double>(<Waiter>head).place
        heap_rekey(&core.unserved, <void *>ep, since, (<Waiter>head).number)


cdef void leave_place(PoolCore core, EndpointPool ep, Waiter w, double now) noexcept:
    # Both locks are held. The waiter is about to leave the queue unserved. If it is at the head, its place goes to the
    # next waiter, or is kept. A waiter that did not wait (a timeout of 0) leaves no place of its own, because trying
    # often must not count; but it passes on the place that it got from another waiter.
    cdef void *second = w.next
    if ep.queue.head != <void *>w or (now <= w.queued_at and w.place == w.number):
        return
    advance_kept_places(core, now)
    if second != NULL:
        (<Waiter>second).place = min((<Waiter>second).place, w.place)
    else:
        keep_place(&core.overtaking.kept_places, <size_t>ep.hash, w.place)


cdef void keep_place(Table *kept, size_t hash_, unsigned long long place) noexcept:
    # If there is no memory to keep the place, it is lost.
    cdef Slot *slot = table_find_slot(kept, hash_)
    if slot != NULL:
        slot.value = <void *>min(<size_t>slot.value, <size_t>place)
    elif <size_t>place == place:
        table_insert(kept, hash_, <void *><size_t>place)


cdef unsigned long long take_place(Table *kept, size_t hash_) noexcept:
    # Takes the kept place out of the table. 0 if none is kept for this hash.
    cdef void *place = table_find(kept, hash_)
    if place != NULL:
        table_remove(kept, hash_, place)
    return <size_t>place


cdef void give_place(PoolCore core, EndpointPool ep, Waiter w) noexcept:
    # Both locks are held. The waiter has just joined the queue. At its head it gets the place that was kept, if any.
    cdef void *second = w.next
    cdef unsigned long long place = 0
    if w.place == 0:        # else it has been served a dead connection, and keeps its place
        w.place = w.number
    if ep.queue.head != <void *>w:
        return
    if second != NULL:
        # A waiter that was served a dead connection has come back before those that arrived later. The place belongs to
        # the head of the queue: it moves from the waiter that was there.
        place = (<Waiter>second).place
        (<Waiter>second).place = (<Waiter>second).number
    else:
        place = take_place(&core.overtaking.kept_places_before, <size_t>ep.hash)
        if place == 0:
            place = take_place(&core.overtaking.kept_places, <size_t>ep.hash)
    if 0 < place < w.place:
        w.place = place
