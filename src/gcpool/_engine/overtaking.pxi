# OVERTAKING. At the total limit a connection that is released at endpoint A goes to A's next waiter, even if a waiter
# of endpoint B came earlier: to serve B, the pool would have to close the connection and open another one. This is
# bounded. Time is cut into epochs of MAX_OVERTAKING_TIME / 2. All waiters that were overtaken in an epoch came before
# the last waiter that overtook in it, so one number per epoch says which waiters they are. From two epochs later on,
# that is after 5 to 10 s, they are not overtaken any more.
#
# Waiters of different endpoints are compared by *place*. A waiter's place is its number, unless the waiter before it in
# the queue gave up: then it has inherited that waiter's place. If a waiter gives up and none is behind it, its place is
# kept for the next one that waits at the endpoint, in this epoch or the next. Otherwise an endpoint whose acquires time
# out and are tried again would begin anew each time. Example: B has 9 of 10 connections, all in use for minutes, and
# B's waiters give up after a second each. A passes the tenth connection on among its own waiters, which came after B's
# first one. After 5 to 10 s the pool closes it, and B gets the slot.
#
# Places are kept by the hash of the endpoint, because the endpoint pool may be forgotten by then. Endpoints with equal
# hashes share a kept place.

cdef double MAX_OVERTAKING_TIME = 10.0


cdef void advance_overtaking(PoolCore core, double now) noexcept:
    # core.lock is held.
    cdef Overtaking *o = &core.overtaking
    cdef int epoch = <int>(max(min(now, 1e9), -1e9) / (MAX_OVERTAKING_TIME / 2))
    cdef int passed = min(epoch - o.epoch, 2)
    while passed > 0:
        passed -= 1
        o.earlier = max(o.earlier, o.previous)
        o.previous = o.current
        o.current = 0
        PyMem_Free(o.kept_places_before.slots)
        o.kept_places_before = o.kept_places
        memset(&o.kept_places, 0, sizeof(Table))
    o.epoch = max(epoch, o.epoch)


cdef inline bint is_overtaken(PoolCore core, unsigned long long place) noexcept:
    # core.lock is held. Whether the first waiter of some endpoint that wants a slot has an earlier place.
    return core.wanting_slots.used > 0 and core.wanting_slots.items[0].key < <double>place


cdef inline void note_overtaking(PoolCore core, unsigned long long place) noexcept:
    # core.lock is held.
    if is_overtaken(core, place):
        core.overtaking.current = max(core.overtaking.current, place)


cdef inline bint may_overtake(PoolCore core, unsigned long long place) noexcept:
    # core.lock is held. Whether a waiter with this place may be served before the first endpoint that wants a slot.
    # An endpoint without a connection would wait for ever while another one is always busy, so it is never overtaken,
    # at the price of a new connection. An endpoint with connections is expected to serve its waiters itself, but its
    # connections may stay in use for long: it is overtaken until the bound is reached.
    cdef HeapItem *first = core.wanting_slots.items
    if not is_overtaken(core, place):
        return True
    return (<EndpointPool>first.item).size > 0 and first.key >= <double>core.overtaking.earlier


cdef void leave_place(PoolCore core, EndpointPool ep, Waiter w, double now) noexcept:
    # Both locks are held. The waiter is about to leave the queue unserved. If it is at the head, its place goes to the
    # next waiter, or is kept. A waiter that did not wait (a timeout of 0) leaves no place of its own, because trying
    # often must not count; but it passes on the place that it got from another waiter.
    cdef void *second = w.next
    if ep.queue.head != <void *>w or (now <= w.queued_at and w.place == w.number):
        return
    advance_overtaking(core, now)
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
