cdef inline void queue_doomed(PoolCore core, Entry e) noexcept:
    # core.lock is held; the entry's state is CLOSING and it is in no idle list.
    e.next = NULL
    if core.doomed_tail != NULL:
        (<Entry>core.doomed_tail).next = <void *>e
    else:
        core.doomed_head = <void *>e
    core.doomed_tail = <void *>e
    gcp_store_int(&core.doomed_count, core.doomed_count + 1)


cdef inline void doom(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # Both locks are held; the caller has taken the entry off the count of its former state.
    gcp_store_char(&e.state, CLOSING)
    ep.closing += 1
    core.closing += 1
    queue_doomed(core, e)


cdef void own(PoolCore core, Waiter w, void *tail) noexcept:
    # core.lock is held, and was since `tail` was the end of the doomed: what stands after it is the waiter's.
    cdef void *first
    cdef void *p
    if w is None or not w.keeps or w.pool is None or core.doomed_tail == tail:
        return
    if tail == NULL:
        first = core.doomed_head
        core.doomed_head = NULL
    else:
        first = (<Entry>tail).next
        (<Entry>tail).next = NULL
    if w.own_tail == NULL:
        gcp_store_pointer(&w.own_head, first)
        w.next_owner = core.owners
        w.previous_owner = NULL
        if core.owners != NULL:
            (<Waiter>core.owners).previous_owner = <void *>w
        core.owners = <void *>w
    else:
        (<Entry>w.own_tail).next = first
    w.own_tail = core.doomed_tail
    core.doomed_tail = tail
    p = first
    while p != NULL:
        gcp_store_int(&core.doomed_count, core.doomed_count - 1)
        p = (<Entry>p).next


cdef void owns_nothing(PoolCore core, void *w) noexcept:
    # core.lock is held. As in share() no reference is taken.
    cdef void *previous = (<Waiter>w).previous_owner
    cdef void *next = (<Waiter>w).next_owner
    (<Waiter>w).own_tail = NULL
    if previous != NULL:
        (<Waiter>previous).next_owner = next
    else:
        core.owners = next
    if next != NULL:
        (<Waiter>next).previous_owner = previous
    (<Waiter>w).previous_owner = (<Waiter>w).next_owner = NULL
    gcp_store_pointer(&(<Waiter>w).own_head, NULL)      # last: whoever sees it may free the waiter


cdef void share(PoolCore core, void *w) noexcept:
    # core.lock is held. What the waiter keeps is among the doomed again. The destructor of the waiter may wait for
    # the lock: to take a reference and give it back would run that destructor once more.
    cdef void *p = (<Waiter>w).own_head
    cdef void *following
    owns_nothing(core, w)
    while p != NULL:
        following = (<Entry>p).next
        queue_doomed(core, <Entry>p)
        p = following


cdef int forget_closed_while_out(PoolCore core, Entry e) except -1:
    # The pool was closed over it, and now its user is through with it: nobody will ask for it again.
    cdef EndpointPool ep = e.pool
    cdef bint gone
    gcp_lock(&ep.lock)
    gone = e.closed_while_out and e.state == GONE
    gcp_store_char(&e.closed_while_out, False)
    gcp_unlock(&ep.lock)
    if gone:        # else it is still among the doomed, which do not own it: disposed() does this
        forget_connection(&core.directory, e)
        core.entries.discard(e)
    return 0


cdef void set_disposes(PoolCore core, Waiter w, bint disposes) noexcept:
    gcp_lock(&w.pool.lock)
    w.disposes = disposes
    gcp_unlock(&w.pool.lock)


cdef void disown(PoolCore core, Waiter w) noexcept:
    # It goes, and did not dispose of what it kept: whoever comes by does that.
    if w.pool.fork_epoch != core.fork_epoch:
        return
    gcp_lock(&core.lock)
    if w.own_head != NULL:
        share(core, <void *>w)
    gcp_unlock(&core.lock)
