cdef Linked cores                       # [cores_lock] all cores that are alive, for a forked child
cdef gcp_mutex cores_lock
cdef long process = gcp_process_id()    # the process in which the pools were made, or last began anew


@cython.linetrace(False)
cdef void begin_anew_in_child() noexcept:
    # THE CHILD'S SIDE OF fork(). The C library calls this at the end of fork(). A server in C may fork without
    # notifying Python: then the child has no thread state. So nothing here or below calls the interpreter, allocates or
    # frees.
    global process
    cdef void *p = cores.head
    memset(&cores_lock, 0, sizeof(gcp_mutex))
    process = gcp_process_id()
    while p != NULL:
        begin_anew(<PoolCore>p)
        p = (<PoolCore>p).next


def reset_after_fork():
    """In a forked child: reset every pool to empty, and leave the parent's connections alone.

    Does nothing if begin_anew_in_child() has run in this process: the pools may have been used since.
    """
    if process != gcp_process_id():
        begin_anew_in_child()


# Both are registered, because each misses some forks: the first misses forks that bypass the C library, the second
# forks that C code makes without notifying Python.
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
    timers = {} if core.keepalive_interval > 0 else None
    a = <Ancestor *>PyMem_Malloc(sizeof(Ancestor))
    if a == NULL:
        raise MemoryError
    memset(a, 0, sizeof(Ancestor))
    gcp_lock(&core.lock)
    if core.ancestor_to_be == NULL:
        core.entries = new
        core.check_timers = timers
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
    # the interpreter: a finalizer that closes a session on a shared socket would end the parent's session.
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
        gcp_keep_for_good(<void *>core.check_timers)
    memset(&core.directory, 0, sizeof(Directory))
    # The items of the heaps are not freed either: another thread may have been about to reallocate them.
    memset(&core.deadlines, 0, sizeof(Deadlines))
    core.deadlines.due_at = core.deadlines.wake_at = INFINITY
    memset(&core.wanting_slots, 0, sizeof(Heap))
    memset(&core.unserved, 0, sizeof(Heap))
    core.deadlines.by_use.kind = core.unserved.kind = SECOND_KIND
    core.wanting_count = 0
    core.size = 0
    core.closing = 0
    core.connecting = 0
    core.relief.current = 0
    core.relief.previous = 0
    memset(&core.overtaking, 0, sizeof(Overtaking))
    memset(&core.release_watches, 0, sizeof(Table))
    memset(&core.checks, 0, sizeof(Checks))
    core.checks.wake_at = INFINITY
    memset(&core.jobs.at_work, 0, sizeof(core.jobs.at_work))
    core.jobs.all_at_work = 0
    memset(&core.doomed_for_caller, 0, sizeof(Chain))
    memset(&core.doomed_for_worker, 0, sizeof(Chain))
    memset(&core.watchers, 0, sizeof(Chain))
    memset(&core.fill_watchers, 0, sizeof(Chain))
    memset(&core.forgotten, 0, sizeof(Chain))
    memset(&core.retries, 0, sizeof(Heap))
    memset(&core.short, 0, sizeof(Linked))
    core.reserved = 0
    core.reserved_head = NULL
    core.reserved_tail = NULL
    core.must_call_workers = False
    core.fills_paused = False
    core.unfilled = 0
    memset(&core.counters, 0, sizeof(Counters))
    memset(&core.popped, 0, sizeof(Counters))
    memset(&core.histograms, 0, sizeof(Histograms))
    memset(&core.popped_histograms, 0, sizeof(Histograms))
    core.cut_off_uses = 0
    memset(&core.holder_records, 0, sizeof(Map))
    core.leaks_looked_for_at = INFINITY
    core.use_time = 0
