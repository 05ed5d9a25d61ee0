# OVERTAKING. At the total cap a connection that is released at A goes to the next waiter of A, though a waiter of B
# may have come earlier: to serve that one it would have to be closed, and another one opened. But who was overtaken
# for MAX_OVERTAKING_TIME is overtaken no more. Time is cut into epochs of half of that. All who were overtaken in an
# epoch came before the last one who overtook in it, so that one number an epoch tells who they are. They are
# overtaken no more from the next but one epoch on, that is 5 to 10 s later.
#
# Between endpoints it is the *place* of a waiter that counts. That is its number, unless it came to the head of its
# queue when the one before gave up waiting: then it has the place of that one. Where nobody is behind, the place is
# kept for the next one who waits at the endpoint, in this epoch and the next one. So an endpoint whose waiters time
# out and come again does not begin anew each time. Example: B has 9 of 10 connections, which stay out, and its
# waiters give up each second. A hands its connection on to waiters of its own, who have come after the first one of
# B. After 5 to 10 s it is closed for B.
#
# Places are kept by the hash of the endpoint, which may be forgotten by then. Endpoints that have one hash share
# them.

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
        PyMem_Free(o.left_before.slots)
        o.left_before = o.left
        memset(&o.left, 0, sizeof(Table))
    o.epoch = max(epoch, o.epoch)


cdef inline bint is_overtaken(PoolCore core, unsigned long long place) noexcept:
    # core.lock is held. Whether an endpoint that wants a slot has an earlier place.
    return core.wanting_slots.used > 0 and core.wanting_slots.items[0].key < <double>place


cdef inline void note_overtaking(PoolCore core, unsigned long long place) noexcept:
    # core.lock is held.
    if is_overtaken(core, place):
        core.overtaking.current = max(core.overtaking.current, place)


cdef inline bint may_overtake(PoolCore core, unsigned long long place) noexcept:
    # core.lock is held. An endpoint that has no connection of its own would wait for ever on one that is always busy:
    # there whoever came first goes first, at the price of a new connection. One that has some is expected to serve
    # itself, but not for ever either: they may be out for long.
    cdef HeapItem *first = core.wanting_slots.items
    if not is_overtaken(core, place):
        return True
    return (<EndpointPool>first.item).size > 0 and first.key >= <double>core.overtaking.earlier


cdef void leave_place(PoolCore core, EndpointPool ep, Waiter w, double now) noexcept:
    # Both locks are held. The waiter is about to give up. If it is at the head of its queue, its place goes to the next
    # one there, or is kept. One that did not wait (a time limit of 0) leaves its place to nobody.
    cdef void *second = w.next
    if ep.queue.head != <void *>w or now <= w.queued_at:
        return
    advance_overtaking(core, now)
    if second != NULL:
        (<Waiter>second).place = w.place
    else:
        keep_place(&core.overtaking.left, <size_t>ep.hash, w.place)


cdef void keep_place(Table *left, size_t hash_, unsigned long long place) noexcept:
    # Without memory for it the place is lost.
    cdef Slot *slot = table_find_slot(left, hash_)
    if slot != NULL:
        slot.value = <void *>min(<size_t>slot.value, <size_t>place)
    elif <size_t>place == place:
        table_insert(left, hash_, <void *><size_t>place)


cdef unsigned long long take_place(Table *left, size_t hash_) noexcept:
    # 0 if none is kept.
    cdef void *place = table_find(left, hash_)
    if place != NULL:
        table_remove(left, hash_, place)
    return <size_t>place


cdef void give_place(PoolCore core, EndpointPool ep, Waiter w) noexcept:
    # Both locks are held. The waiter has joined the queue.
    cdef void *second = w.next
    cdef unsigned long long place = 0
    w.place = w.number
    if ep.queue.head != <void *>w:
        return
    if second != NULL:
        # It has come back to the head: the place goes with that.
        place = (<Waiter>second).place
        (<Waiter>second).place = (<Waiter>second).number
    else:
        place = take_place(&core.overtaking.left_before, <size_t>ep.hash)
        if place == 0:
            place = take_place(&core.overtaking.left, <size_t>ep.hash)
    if 0 < place < w.number:
        w.place = place
