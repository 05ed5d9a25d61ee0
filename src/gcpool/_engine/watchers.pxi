cdef void take_watchers(PoolCore core, Entry gone, Chain *notified) noexcept:
    # core.lock is held, no other. Moves the watchers whose condition is met to the waiters to notify. `gone` is the
    # entry that is now gone, or None. The chain of watchers borrows its members, as the queues do: otherwise a task
    # that nothing will ever resume could not be collected while it watches.
    cdef void *p = chain_take_all(&core.watchers)
    cdef void *following
    while p != NULL:
        following = (<Waiter>p).next
        if is_watch_over(core, <Waiter>p, gone):
            end_use_watch(core, <Waiter>p)
            # The reference first and the state last: a destructor that finds the state QUEUED waits for the lock, and
            # so cannot free the waiter before the reference is taken.
            if gcp_try_incref(p):
                gcp_store_int(&(<Waiter>p).state, SERVED)
                chain_append(notified, <Waiter>p)
        else:
            chain_append(&core.watchers, <Waiter>p)
        p = following


cdef inline void tell_end_of_use(PoolCore core, Chain *notified) noexcept:
    # core.lock is held, no other. A connection may have been the last one of its endpoint that was in use.
    if core.release_watches.used:
        take_watchers(core, None, notified)


cdef bint is_watch_over(PoolCore core, Waiter w, Entry gone) noexcept:
    # core.lock is held.
    if w.watched is not None:
        return used_count_of(w.watched) == 0
    return core.size == 0 if w.entry is None else w.entry is gone


cdef int used_count_of(EndpointPool ep) noexcept:
    # Takes ep.lock; see used_count().
    cdef int used
    gcp_lock(&ep.lock)
    used = used_count(ep)
    gcp_unlock(&ep.lock)
    return used


cdef void end_use_watch(PoolCore core, Waiter w) noexcept:
    # core.lock is held. The waiter leaves the watchers.
    cdef ReleaseWatch *watch
    if w.watched is not None:
        watch = release_watch_of(core, w.watched)
        if watch != NULL:
            gcp_lock(&w.watched.lock)
            watch.watchers -= 1
            end_watch_if_unused(core, w.watched, watch)
            gcp_unlock(&w.watched.lock)


cdef bint watch_use(PoolCore core, Waiter w) except -1:
    # Has a waiter notified when an endpoint with connections in use no longer has any. False if there is none in use.
    # A connection that is being created counts as in use.
    cdef EndpointPool ep
    cdef ReleaseWatch *watch
    for ep in endpoint_pools(core):
        gcp_lock(&core.lock)
        if made_before_fork(core, ep.fork_epoch) or used_count_of(ep) == 0:
            gcp_unlock(&core.lock)
            continue
        gcp_lock(&ep.lock)
        watch = watch_releases(core, ep)
        if watch != NULL:
            watch.watchers += 1
        gcp_unlock(&ep.lock)
        if watch == NULL:
            gcp_unlock(&core.lock)
            raise MemoryError
        w.watched = ep
        add_watcher(core, w, &core.watchers)
        gcp_unlock(&core.lock)
        return True
    return False


cdef int count_use_watchers(PoolCore core) noexcept:
    cdef int count = 0
    cdef void *p
    gcp_lock(&core.lock)
    p = core.watchers.head
    while p != NULL:
        count += (<Waiter>p).watched is not None
        p = (<Waiter>p).next
    gcp_unlock(&core.lock)
    return count


cdef bint add_watcher(PoolCore core, Waiter w, Chain *watchers) noexcept:
    # core.lock is held.
    w.core = core
    chain_append(watchers, w)
    gcp_store_int(&w.state, QUEUED)
    gcp_enable_try_incref(w)
    return True


cdef bint watch_empty(PoolCore core, Waiter w) noexcept:
    cdef bint watches
    gcp_lock(&core.lock)
    watches = core.size > 0 and add_watcher(core, w, &core.watchers)
    gcp_unlock(&core.lock)
    return watches


cdef bint watch_gone(PoolCore core, Waiter w, Entry e) except -1:
    cdef bint watches
    pool_of(e)
    w.entry = e
    gcp_lock(&core.lock)
    watches = (
        not made_before_fork(core, e.fork_epoch)
        and gcp_load_char(&e.state) != GONE
        and add_watcher(core, w, &core.watchers)
    )
    gcp_unlock(&core.lock)
    return watches


cdef bint unwatch(PoolCore core, void *p) noexcept:
    # False if the waiter watches nothing. Called by its destructor, too: no reference to it is taken here.
    cdef bint found
    gcp_lock(&core.lock)
    found = chain_remove(&core.watchers, <Waiter>p) or chain_remove(&core.fill_watchers, <Waiter>p)
    if found:
        end_use_watch(core, <Waiter>p)
        gcp_store_int(&(<Waiter>p).state, CANCELLED)
    gcp_unlock(&core.lock)
    return found
