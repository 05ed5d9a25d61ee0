cdef void take_watchers(PoolCore core, Entry gone, Chain *notified) noexcept:
    # core.lock is held. The entry is gone: moves its watchers to the waiters that are to be notified, and, if the pool
    # is empty, those that watch for that. The chain of watchers borrows its members, as the queues do: otherwise a task
    # that nothing will ever resume could not be collected while it watches.
    cdef void *p = chain_take_all(&core.watchers)
    cdef void *following
    while p != NULL:
        following = (<Waiter>p).next
        if core.size == 0 if (<Waiter>p).entry is None else (<Waiter>p).entry is gone:
            # The reference first and the state last: a destructor that finds the state QUEUED waits for the lock, and
            # so cannot free the waiter before the reference is taken.
            if gcp_try_incref(p):
                gcp_store_int(&(<Waiter>p).state, SERVED)
                chain_append(notified, <Waiter>p)
        else:
            chain_append(&core.watchers, <Waiter>p)
        p = following


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
    watches = not made_before_fork(core, e.fork_epoch) and gcp_load_char(&e.state) != GONE and add_watcher(core, w, &core.watchers)
    gcp_unlock(&core.lock)
    return watches


cdef bint unwatch(PoolCore core, void *p) noexcept:
    # False if the waiter watches nothing. Called by its destructor, too: no reference to it is taken here.
    cdef bint found
    gcp_lock(&core.lock)
    found = chain_remove(&core.watchers, <Waiter>p) or chain_remove(&core.fill_watchers, <Waiter>p)
    if found:
        gcp_store_int(&(<Waiter>p).state, CANCELLED)
    gcp_unlock(&core.lock)
    return found
