cdef Linked cores                       # [cores_lock] all cores that are alive, for a forked child
cdef gcp_mutex cores_lock
cdef long process = gcp_process_id()    # the process in which the pools were made, or last began anew


@cython.linetrace(False)
cdef void begin_anew_in_child() noexcept:
    # THE CHILD'S SIDE OF fork(). The C library calls this at the end of fork(). A server in C may fork without telling
    # Python: then the child has no thread state. So nothing here or below calls the interpreter, allocates or frees.
    global process
    cdef void *p = cores.head
    memset(&cores_lock, 0, sizeof(gcp_mutex))
    process = gcp_process_id()
    while p != NULL:
        begin_anew(<PoolCore>p)
        p = (<PoolCore>p).next


def reset_after_fork():
    """In a forked child: begin every pool anew, empty, and leave the parent's connections alone.

    Does nothing if begin_anew_in_child() has run in this process: the pools may have been used since.
    """
    if process != gcp_process_id():
        begin_anew_in_child()


# Both are registered, because each misses some forks: the first misses forks that bypass the C library, the second
# forks that C code makes without telling Python.
gcp_call_in_child(begin_anew_in_child)
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=reset_after_fork)


cdef set entries_of_this_process(PoolCore core):
    # The set of this process's entries. What a forked child will need is allocated here, before there is a connection
    # that it could inherit, because the child cannot allocate.
    cdef set found = None
    cdef set new
    cdef Ancestor *a
    gcp_lock(&core.lock)
    if core.ancestor_to_be != NULL:
        found = core.entries
    gcp_unlock(&core.lock)
    if found is not None:
        return found
    new = set()
    a = <Ancestor *>PyMem_Malloc(sizeof(Ancestor))
    if a == NULL:
        raise MemoryError
    memset(a, 0, sizeof(Ancestor))
    gcp_lock(&core.lock)
    if core.ancestor_to_be == NULL:
        core.entries = new
        core.ancestor_to_be = a
        a = NULL
    gcp_unlock(&core.lock)
    PyMem_Free(a)
    return core.entries


cdef inline bint made_before_fork(PoolCore core, int fork_epoch) noexcept nogil:
    # Whether an entry or an endpoint pool belongs to a process that this one was forked from. None of this process's
    # books has it, so a call must not change them for it.
    return fork_epoch != core.fork_epoch


cdef bint is_inherited(PoolCore core, object conn) noexcept:
    # Whether the connection belongs to a process that this one was forked from.
    cdef Ancestor *a = core.ancestor
    while a != NULL:
        if table_find(&a.connections.shards[shard_of(<size_t><void *>conn)].table, <size_t><void *>conn) != NULL:
            return True
        a = a.ancestor
    return False


@cython.linetrace(False)
cdef void begin_anew(PoolCore core) noexcept nogil:
    # See begin_anew_in_child(). Another thread may have been in a locked region when the process was copied, so the old
    # structures are not walked: they may be half changed. The parent's connections are kept for good, beyond the end of
    # the interpreter: a finalizer that says goodbye on a shared socket would end the parent's session.
    cdef Ancestor *a = core.ancestor_to_be
    cdef int s
    core.fork_epoch += 1
    memset(&core.lock, 0, sizeof(gcp_mutex))
    if a != NULL:           # else this process has created no connection that the child could inherit
        for s in range(GCP_SHARDS):
            if not gcp_is_locked(&core.directory.by_connection.shards[s].lock):
                a.connections.shards[s].table = core.directory.by_connection.shards[s].table
        a.ancestor = core.ancestor
        core.ancestor = a
        core.ancestor_to_be = NULL
        gcp_keep_for_good(<void *>core.entries)
    memset(&core.directory, 0, sizeof(Directory))
    # The items of the heaps are not freed either: another thread may have been about to reallocate them.
    memset(&core.deadlines, 0, sizeof(Deadlines))
    core.deadlines.due_at = core.deadlines.wake_at = INFINITY
    memset(&core.wanting_slots, 0, sizeof(Heap))
    core.wanting_count = 0
    core.size = 0
    core.closing = 0
    core.relief.current = 0
    core.relief.previous = 0
    memset(&core.overtaking, 0, sizeof(Overtaking))
    memset(&core.doomed_for_caller, 0, sizeof(Chain))
    memset(&core.doomed_for_worker, 0, sizeof(Chain))
    memset(&core.watchers, 0, sizeof(Chain))
    memset(&core.counters, 0, sizeof(Counters))


# -- close, resize ------------------------------------------------------------------------------------------------

cdef int close(PoolCore core) except -1:
    cdef EndpointPool ep
    cdef Chain refused = Chain(NULL, NULL, 0)
    failure = None
    gcp_lock(&core.lock)
    gcp_store_int(&core.is_closed, 1)
    gcp_unlock(&core.lock)
    # Endpoint pools that appear from here on stay empty, because request() refuses.
    for ep in endpoint_pools(core):
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        refuse_waiters(core, ep, &refused)
        doom_all_idle(core, ep)
        forget_if_empty(core, ep)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
        try:
            notify_all(&refused)
        except BaseException as exc:    # a waiter that cannot be woken must not keep those of other endpoints asleep
            if failure is None:
                failure = exc
    if failure is not None:
        raise failure
    return 0


cdef void refuse_waiters(PoolCore core, EndpointPool ep, Chain *refused) noexcept:
    # Both locks are held.
    cdef void *p = first_waiter(core, ep)
    while p != NULL:
        waiter_unlink(ep, p)
        (<Waiter>p).state = REFUSED
        chain_append(refused, <Waiter>p)
        p = first_waiter(core, ep)
    update_wants_slot(core, ep)


cdef void doom_all_idle(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held.
    cdef void *p = oldest_idle(&ep.core, &ep.extra)
    while p != NULL:
        doom_idle(core, ep, <Entry>p, &core.doomed_for_caller)
        p = oldest_idle(&ep.core, &ep.extra)


cdef int doom_acquired(PoolCore core) except -1:
    cdef Entry e
    cdef EndpointPool ep
    cdef int count = 0
    # Sorted, because the order of the set is that of the addresses: it differs from run to run, and no failure of a
    # simulation could be repeated.
    for e in sorted(entries_of_this_process(core), key=lambda x: (<Entry>x).expires_at):
        ep = e.pool
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        if is_checked_out(e):
            gcp_store_char(&e.closed_while_out, True)
            doom(core, ep, e, &core.doomed_for_caller)
            count += 1
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
    return count


cdef int resize(PoolCore core, double now, int min_idle, int max_size, int total_max_size) except -1:
    # A limit below 0 stays as it is.
    cdef EndpointPool ep
    cdef Chain served = Chain(NULL, NULL, 0)
    set_limits(core, min_idle, max_size, total_max_size)
    for ep in endpoint_pools(core):
        gcp_lock(&core.lock)
        gcp_lock(&ep.lock)
        doom_surplus(core, ep)
        if not ep.forgotten:
            update_wants_slot(core, ep)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
    gcp_lock(&core.lock)
    advance_relief(core, now)
    while exceeds_total_max_size(core) and evict(core, INFINITY, &core.doomed_for_caller) != NULL:
        pass
    dispatch(core, &core.doomed_for_caller, &served)
    gcp_unlock(&core.lock)
    notify_all(&served)
    return 0


cdef void set_limits(PoolCore core, int min_idle, int max_size, int total_max_size) noexcept:
    gcp_lock(&core.lock)
    if min_idle < 0:
        min_idle = core.min_idle
    if max_size < 0:
        max_size = core.max_size
    if total_max_size < 0:
        total_max_size = core.total_max_size
    core.shrunk = core.shrunk or max_size < core.max_size or total_max_size < core.total_max_size
    gcp_store_int(&core.min_idle, min_idle)
    gcp_store_int(&core.max_size, max_size)
    gcp_store_int(&core.total_max_size, total_max_size)
    gcp_unlock(&core.lock)


cdef void doom_surplus(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Dooms the idle connections beyond max_size, the extra ones first.
    cdef void *p = oldest_idle(&ep.extra, &ep.core)
    while p != NULL and exceeds_max_size(core, ep):
        doom_idle(core, ep, <Entry>p, &core.doomed_for_caller)
        p = oldest_idle(&ep.extra, &ep.core)


# -- watching ------------------------------------------------------------------------------------------------------

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


cdef bint add_watcher(PoolCore core, Waiter w) noexcept:
    # core.lock is held.
    w.core = core
    chain_append(&core.watchers, w)
    gcp_store_int(&w.state, QUEUED)
    gcp_enable_try_incref(w)
    return True


cdef bint watch_empty(PoolCore core, Waiter w) noexcept:
    cdef bint watches
    gcp_lock(&core.lock)
    watches = core.size > 0 and add_watcher(core, w)
    gcp_unlock(&core.lock)
    return watches


cdef bint watch_gone(PoolCore core, Waiter w, Entry e) except -1:
    cdef bint watches
    pool_of(e)
    w.entry = e
    gcp_lock(&core.lock)
    watches = not made_before_fork(core, e.fork_epoch) and gcp_load_char(&e.state) != GONE and add_watcher(core, w)
    gcp_unlock(&core.lock)
    return watches


cdef bint unwatch(PoolCore core, void *p) noexcept:
    # False if the waiter watches nothing. Called by its destructor, too: no reference to it is taken here.
    cdef bint found
    gcp_lock(&core.lock)
    found = chain_remove(&core.watchers, <Waiter>p)
    if found:
        gcp_store_int(&(<Waiter>p).state, CANCELLED)
    gcp_unlock(&core.lock)
    return found
