# RECORDING who holds each connection, and where it was acquired (record_holders). An acquire stores code objects and
# offsets of instructions; lines are looked up when they are read. A table from entries to records, because an entry has
# no room for a reference: one more would cost each connection of every pool a cache line.

cdef extern from "Python.h":
    PyObject *PyObject_CallNoArgs(PyObject *)
    PyObject *PyWeakref_NewRef(PyObject *, PyObject *)
    PyObject *PyThreadState_GetDict()
    unsigned long PyThread_get_thread_ident() noexcept
    void PyErr_Clear()
    void Py_XDECREF_ "Py_XDECREF"(PyObject *)
    void Py_DECREF_ "Py_DECREF"(PyObject *)
    void Py_XINCREF_ "Py_XINCREF"(PyObject *)
    void Py_INCREF_ "Py_INCREF"(PyObject *)


@cython.final
cdef class ThreadMark:
    """A thread that has acquired a connection."""

    @property
    def name(self):
        """The name of the thread; after its end, the one that it had when it first acquired a connection."""
        thread = None if self.thread is None else self.thread()
        return self.first_name if thread is None else thread.name

    @property
    def has_ended(self):
        """Whether the thread has ended."""
        return bool(gcp_load_int(&self.ended))


@cython.final
cdef class ThreadEnd:
    def __dealloc__(self):
        # The thread ends: its dict is cleared.
        gcp_store_int(&self.mark.ended, True)
        if gcp_thread_mark() == <void *>self.mark:
            gcp_set_thread_mark(NULL)


cdef int make_thread_mark() except -1:
    # Once in each thread.
    import threading
    import weakref
    cdef ThreadMark mark = ThreadMark.__new__(ThreadMark)
    cdef ThreadEnd end = ThreadEnd.__new__(ThreadEnd)
    cdef PyObject *own = PyThreadState_GetDict()
    mark.ident = PyThread_get_thread_ident()
    mark.first_name = f'thread {mark.ident}'
    for thread in threading.enumerate():        # current_thread() would make a new one for a thread not known to it
        if thread.ident == mark.ident:
            mark.thread = weakref.ref(thread)
            mark.first_name = thread.name
    end.mark = mark
    if own == NULL:
        return 0
    (<dict>own)[ThreadEnd] = end
    gcp_set_thread_mark(<void *>mark)
    return 0


cdef PyObject *current_holder(PoolCore core) noexcept:
    # A new reference; NULL if no holder can be found. The thread has its mark.
    cdef PyObject *found = NULL
    cdef PyObject *task
    if core.records_tasks:
        task = PyObject_CallNoArgs(<PyObject *>current_task)
        if task != NULL and task != <PyObject *>None:
            found = PyWeakref_NewRef(task, NULL)
        Py_XDECREF_(task)
        if found != NULL:
            return found
        PyErr_Clear()           # no loop runs in this thread
    found = <PyObject *>gcp_thread_mark()
    Py_XINCREF_(found)
    return found


cdef HolderRecord *record_of(PoolCore core, size_t s, Entry e) noexcept:
    # The shard's lock is held. NULL if there is no memory, and for an entry that is in no books: it may be freed before
    # its record is dropped.
    cdef Table *t = &core.holder_records.shards[s].table
    cdef HolderRecord *record = <HolderRecord *>table_find(t, <size_t><void *>e)
    if gcp_likely(record != NULL):
        return record
    if gcp_load_char(&e.state) == GONE or made_before_fork(core, e.fork_epoch):
        return NULL
    record = take_unused_record(t, <size_t><void *>e)
    if record == NULL:
        record = <HolderRecord *>PyMem_Malloc(sizeof(HolderRecord))
        if record == NULL:
            return NULL
        memset(record, 0, sizeof(HolderRecord))
    if table_insert(t, <size_t><void *>e, record) < 0:      # never of one that was taken: its slot is free
        PyMem_Free(record)
        return NULL
    return record


# UNUSED RECORDS. A release leaves the record of its connection as it is. The next connection that needs a record and
# has none takes it: so about as many records are made as connections are in use at once, and an idle connection needs
# no memory for one. If none is found within a few slots of the table, one more is made.
# Example: a pool visits 100,000 endpoints one after the other. One record goes from connection to connection.

cdef HolderRecord *take_unused_record(Table *t, size_t key) noexcept:
    # The shard's lock is held. Takes a record of a connection that is not in use out of the table; NULL if it finds
    # none. The entries of a table are alive: code that frees an entry drops its record first.
    cdef HolderRecord *record
    cdef size_t i
    cdef int looked_at
    if t.used == 0:
        return NULL
    i = <size_t>(mix(key) >> t.shift)
    for looked_at in range(SLOTS_LOOKED_AT):
        record = <HolderRecord *>t.slots[i].value
        if record != NULL and not is_of_lease(record, <Entry><void *>t.slots[i].key):
            table_remove(t, t.slots[i].key, record)
            return record
        i = (i + 1) & t.mask
    return NULL


cdef inline bint is_of_lease(HolderRecord *record, Entry e) noexcept:
    # Whether the connection is in use by the holder that the record is about. Without the GIL, another thread may have
    # acquired the connection just now, and not have recorded it: then the record is not about that lease.
    cdef char state = gcp_load_char(&e.state)
    return (state == ACQUIRED or state == RELEASING) and record.lease_no == gcp_load_uint(&e.lease_no)


cdef void release_references(HolderRecord *record) noexcept:
    # No lock is held.
    cdef int i
    Py_XDECREF_(record.who)
    for i in range(record.count):
        Py_DECREF_(record.codes[i])


cdef void record_holder(PoolCore core, Entry e, int limit) noexcept:
    # No lock is held, and the caller has just acquired the connection. Where there is no memory, nothing is recorded.
    cdef size_t s = shard_of(<size_t><void *>e)
    cdef HolderRecord fresh
    cdef HolderRecord *record
    fresh.lease_no = gcp_load_uint(&e.lease_no)
    fresh.who = current_holder(core)
    fresh.count = gcp_walk_frames(fresh.codes, fresh.offsets, limit, <void *>frame_of_loop)
    gcp_lock(&core.holder_records.shards[s].lock)
    record = record_of(core, s, e)
    if record != NULL:
        exchange(record, &fresh)
    gcp_unlock(&core.holder_records.shards[s].lock)
    release_references(&fresh)


cdef inline void exchange(HolderRecord *record, HolderRecord *fresh) noexcept:
    # The shard's lock is held. Only what is used is copied.
    cdef PyObject *who = record.who
    cdef PyObject *code
    cdef char count = record.count
    cdef int i
    record.lease_no = fresh.lease_no
    record.is_long = False
    record.who = fresh.who
    fresh.who = who
    for i in range(max(count, fresh.count)):
        code = record.codes[i]
        record.codes[i] = fresh.codes[i]
        record.offsets[i] = fresh.offsets[i]
        fresh.codes[i] = code
    record.count = fresh.count
    fresh.count = count


cdef int note_holder(PoolCore core, Entry e, int limit) except -1:
    # The same, and wakes the search for leaks, if none is under way. If that raises, the caller gives the connection
    # back.
    if gcp_thread_mark() == NULL:
        make_thread_mark()
    record_holder(core, e, limit)
    if must_wake_leak_watch(core):
        gcp_store_double(&core.leaks_looked_for_at, read_clock(core) + leak_interval(core))
        try:
            core.wake_leak_watch()
        except BaseException:       # maybe of a signal handler: the next acquire wakes it
            gcp_store_double(&core.leaks_looked_for_at, INFINITY)
            raise
    return 0


cdef inline bint must_wake_leak_watch(PoolCore core) noexcept:
    return core.leak_threshold < INFINITY and gcp_load_double(&core.leaks_looked_for_at) == INFINITY


cdef inline double leak_interval(PoolCore core) noexcept:
    return min(core.leak_threshold, LEAK_INTERVAL)


cdef double LEAK_INTERVAL = 1.0     # seconds between two searches for leaks while connections are in use


cdef int mark_long(PoolCore core, Entry e) except -1:
    cdef size_t s = shard_of(<size_t><void *>e)
    cdef HolderRecord *record
    gcp_lock(&core.holder_records.shards[s].lock)
    record = <HolderRecord *>table_find(&core.holder_records.shards[s].table, <size_t><void *>e)
    if record != NULL:
        record.is_long = True
    gcp_unlock(&core.holder_records.shards[s].lock)
    return 0


cdef int drop_record(PoolCore core, Entry e) except -1:
    # No lock is held. The entry is gone.
    cdef size_t s = shard_of(<size_t><void *>e)
    cdef Table *t = &core.holder_records.shards[s].table
    cdef HolderRecord *record
    if not core.records_holders:
        return 0
    gcp_lock(&core.holder_records.shards[s].lock)
    record = <HolderRecord *>table_find(t, <size_t><void *>e)
    if record != NULL:
        table_remove(t, <size_t><void *>e, record)
    gcp_unlock(&core.holder_records.shards[s].lock)
    if record != NULL:
        release_references(record)
        PyMem_Free(record)
    return 0


cdef void free_records(PoolCore core) noexcept:
    # The core is being freed.
    cdef Table *t
    cdef int s
    cdef size_t i
    for s in range(GCP_SHARDS):
        t = &core.holder_records.shards[s].table
        if t.slots != NULL:
            for i in range(t.mask + 1):
                if t.slots[i].value != NULL:
                    release_references(<HolderRecord *>t.slots[i].value)
                    PyMem_Free(t.slots[i].value)
    map_free(&core.holder_records)


# -- looking -------------------------------------------------------------------------------------------------------

cdef tuple read_record(PoolCore core, Entry e, unsigned int lease_no):
    # Who holds a connection, where it was acquired, and whether it may be held for long. None, (), False if that was
    # not recorded.
    cdef size_t s = shard_of(<size_t><void *>e)
    cdef HolderRecord copied
    cdef HolderRecord *record
    cdef int i
    gcp_lock(&core.holder_records.shards[s].lock)
    record = <HolderRecord *>table_find(&core.holder_records.shards[s].table, <size_t><void *>e)
    if record != NULL and record.lease_no != lease_no:
        record = NULL
    if record != NULL:
        copied = record[0]
        Py_XINCREF_(copied.who)
        for i in range(copied.count):
            Py_INCREF_(copied.codes[i])
    gcp_unlock(&core.holder_records.shards[s].lock)
    if record == NULL:
        return None, (), False
    try:
        who = <object>copied.who if copied.who != NULL else None
        places = tuple([
            (<object>copied.codes[i], gcp_line_of(copied.codes[i], copied.offsets[i])) for i in range(copied.count)
        ])
        return who, places, bool(copied.is_long)
    finally:
        release_references(&copied)


cdef object read_who(PoolCore core, Entry e, unsigned int lease_no):
    # As read_record(), without the places.
    cdef size_t s = shard_of(<size_t><void *>e)
    cdef HolderRecord *record
    cdef PyObject *who = NULL
    gcp_lock(&core.holder_records.shards[s].lock)
    record = <HolderRecord *>table_find(&core.holder_records.shards[s].table, <size_t><void *>e)
    if record != NULL and record.lease_no == lease_no:
        who = record.who
        Py_XINCREF_(who)
    gcp_unlock(&core.holder_records.shards[s].lock)
    if who == NULL:
        return None
    found = <object>who
    Py_DECREF_(who)
    return found


cdef list who_holds(PoolCore core, EndpointPool ep):
    # One for each connection in use, of an endpoint or, with None, of all.
    cdef Entry e
    cdef unsigned int lease_no
    cdef bint held
    cdef list found = []
    for e in list(entries_of_this_process(core)):
        if ep is not None and e.pool is not ep:
            continue
        gcp_lock(&e.pool.lock)
        held = is_checked_out(e)
        lease_no = e.lease_no
        gcp_unlock(&e.pool.lock)
        if held:
            found.append(read_who(core, e, lease_no))
    return found


cdef list holders_of(PoolCore core, EndpointPool ep):
    # The connections in use, of an endpoint or, with None, of all.
    cdef Entry e
    cdef double since
    cdef double now = read_clock(core)
    cdef unsigned int lease_no = ANY_LEASE
    cdef bint is_dropped
    cdef list found = []
    for e in list(entries_of_this_process(core)):
        if ep is not None and e.pool is not ep:
            continue
        since = INFINITY
        gcp_lock(&e.pool.lock)
        if is_checked_out(e):
            since = gcp_get_double(&e.prev)
            lease_no = e.lease_no
        gcp_unlock(&e.pool.lock)
        if since < INFINITY:
            is_dropped = has_no_holder(e)
            who, places, is_long = read_record(core, e, lease_no)
            found.append((max(now - since, 0.0), e.pool.endpoint, e, lease_no, who, places, is_long, is_dropped))
    return found


cdef bint has_no_holder(Entry e) noexcept:
    # Whether a connection in use is referred to by its entry alone, and the entry by nothing that would release it: its
    # user has dropped it. The entry itself is referred to by PoolCore.entries, the list of holders_of(), and its loop.
    return gcp_reference_count(<void *>e.conn_) == 1 and gcp_reference_count(<void *>e) <= 3


cdef bint is_held(Entry e, unsigned int lease_no) noexcept:
    # Whether a lease has not ended. No lock is held.
    cdef bint held
    gcp_lock(&e.pool.lock)
    held = is_checked_out_by(e, lease_no)
    gcp_unlock(&e.pool.lock)
    return held


cdef object returned_at(Entry e, unsigned int lease_no):
    # When a lease has ended: None if it has not, INFINITY if the connection was closed or acquired again since.
    if is_held(e, lease_no):
        return None
    return e.used_at if is_lease_of(e, lease_no) and is_idle(e) else INFINITY


cdef int count_leak(PoolCore core) except -1:
    gcp_lock(&core.lock)
    core.counters.leaks += 1
    gcp_unlock(&core.lock)
    return 0
