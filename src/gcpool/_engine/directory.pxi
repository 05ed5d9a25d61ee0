# Stands for an endpoint that the caller did not name: in an acquire for the default one, in a release for that of the
# connection. Not None, which may be an endpoint. A literal, because only literals can be the defaults in the signature
# that inspect reads from a compiled method.
cdef object UNSET_ENDPOINT = ...
UNSET = UNSET_ENDPOINT


cdef inline Py_hash_t hash_of(object endpoint) except? -1:
    try:
        return PyObject_Hash(endpoint)
    except TypeError as exc:
        raise TypeError(f'endpoint {endpoint!r} of type {type(endpoint).__name__}: expected a hashable object') from exc


cdef inline EndpointPool find_by_identity(Directory *d, object endpoint):
    cdef void *found = map_get(&d.by_identity, <size_t><void *>endpoint)
    if found == NULL:       # an if: Cython would test the type of a conditional expression at runtime
        return None
    return owned_pool(found)


cdef inline void *find_connection(Directory *d, object conn) noexcept:
    # The entry of a connection, with a reference that is the caller's. NULL if the connection is unknown.
    return map_get(&d.by_connection, <size_t><void *>conn)


cdef inline Entry entry_or_none(void *p):
    # Turns a pointer with a reference that the caller owns into an object. None for NULL.
    if p == NULL:
        return None
    return owned_entry(p)


cdef inline Entry find_entry(Directory *d, object conn):
    return entry_or_none(find_connection(d, conn))


# BORROWED. Without the GIL a reference to an object that another thread has made costs as much as a lock. What is
# in the tables is alive, and stays in them while the lock of its endpoint pool is held, because every function that
# takes an object out of a table holds that lock. So these two find an object, lock its endpoint pool and take no
# reference. They hold the shard's lock first, which is against the order of locks, so the other lock is only tried.
# They return NULL if the object is unknown, or if another thread has that lock. The caller then takes a reference
# first.

cdef inline void *lock_pool_borrowed(Directory *d, object endpoint) noexcept:
    cdef size_t key = <size_t><void *>endpoint
    cdef Shard *shard = &d.by_identity.shards[shard_of(key)]
    cdef void *ep
    gcp_lock(&shard.lock)
    ep = table_find(&shard.table, key)
    if ep != NULL and not gcp_try_lock(&(<EndpointPool>ep).lock):
        ep = NULL
    gcp_unlock(&shard.lock)
    return ep


cdef inline void *lock_entry_borrowed(Directory *d, object conn) noexcept:
    # The entry of a connection, with the lock of its endpoint pool held.
    cdef size_t key = <size_t><void *>conn
    cdef Shard *shard = &d.by_connection.shards[shard_of(key)]
    cdef void *e
    gcp_lock(&shard.lock)
    e = table_find(&shard.table, key)
    if e != NULL and not gcp_try_lock(&(<Entry>e).pool.lock):
        e = NULL
    gcp_unlock(&shard.lock)
    return e


cdef int add_connection(Directory *d, Entry e) noexcept:
    cdef size_t key = <size_t><void *>e.conn_
    cdef size_t s = shard_of(key)
    cdef int outcome = ADDED
    gcp_lock(&d.by_connection.shards[s].lock)
    if table_find(&d.by_connection.shards[s].table, key) != NULL:
        outcome = KNOWN_ALREADY
    elif table_insert(&d.by_connection.shards[s].table, key, <void *>e) < 0:
        outcome = NO_MEMORY
    gcp_unlock(&d.by_connection.shards[s].lock)
    return outcome


cdef inline void forget_connection(Directory *d, Entry e) noexcept:
    map_remove(&d.by_connection, <size_t><void *>e.conn_, <void *>e)


cdef inline Slot *prefetch_endpoint(Directory *d, object endpoint) noexcept:
    # PREFETCHING. Among many endpoints, a cycle goes from one cache miss to the next. So this prefetches at once
    # everything that a cycle at this endpoint will read. It needs the GIL: without that, another thread could move the
    # tables meanwhile. NULL if the endpoint is not found by its identity.
    cdef Slot *slot = table_find_slot(&d.by_identity.shards[0].table, <size_t><void *>endpoint)
    if gcp_likely(slot != NULL):
        gcp_prefetch(<char *>slot.value + 64)
        gcp_prefetch(slot.hint)
        gcp_prefetch(<char *>slot.hint + 64)
        gcp_prefetch(slot.hint_conn)
        table_prefetch(&d.by_connection.shards[0].table, <size_t>slot.hint_conn)
    return slot


cdef inline void set_hint(Slot *slot, Entry served) noexcept:
    if gcp_unlikely(slot.hint != <void *>served):
        slot.hint = <void *>served
        slot.hint_conn = <void *>served.conn_


cdef void directory_free(Directory *d) noexcept:
    map_free(&d.by_identity)
    map_free(&d.by_hash)
    map_free(&d.by_spelling)
    map_free(&d.by_connection)


cdef inline EndpointPool find_known_pool(PoolCore core, object endpoint):
    # By identity first, because the hash of an endpoint may be Python code. None if the endpoint is unknown, or its
    # spelling is: find_pool() and find_or_add_pool() then ask the manager. An endpoint pool has connections or waiters,
    # or it is pinned or in an outage: then it is in core.kept.
    cdef EndpointPool ep = find_by_identity(&core.directory, endpoint)
    cdef Py_hash_t hash_
    if ep is None and (gcp_load_int(&core.size) > 0 or gcp_load_int(&core.wanting_count) or len(core.kept)):
        hash_ = hash_of(endpoint)
        ep = find_by_hash(core, &core.directory.by_hash, endpoint, hash_, NULL)
        if ep is None and core.normalize is not None:
            ep = find_by_hash(core, &core.directory.by_spelling, endpoint, hash_, NULL)
        if ep is not None:
            set_alias(core, ep, endpoint)
    return ep


cdef EndpointPool find_pool(PoolCore core, object endpoint):
    # The pool of an endpoint, in any spelling. None if the endpoint is unknown.
    cdef EndpointPool ep = find_known_pool(core, endpoint)
    cdef Spelling new
    if ep is None and core.normalize is not None:
        counts_as = normalized(core, endpoint)
        new = new_spelling(core, endpoint, counts_as)
        ep = find_known_pool(core, counts_as)
        if ep is not None and new is not None:
            add_spelling(core, ep, new)
    return ep


cdef bint pool_is_for(PoolCore core, EndpointPool ep, object endpoint) except -1:
    # Whether the endpoint is the endpoint pool's own, or another spelling of that.
    cdef EndpointPool found
    if ep.endpoint is endpoint or find_by_identity(&core.directory, endpoint) is ep:
        return True
    if ep.endpoint == endpoint:
        return True
    if core.normalize is None:
        return False
    found = find_pool(core, endpoint)
    # close() may have closed the connection while it was checked out. Then the endpoint pool of its entry may be
    # forgotten, and the directory may know none, or a new one, for that endpoint: compare the endpoints.
    return found is ep or ep.endpoint == (normalized(core, endpoint) if found is None else found.endpoint)


cdef EndpointPool find_by_hash(PoolCore core, Map *where, object endpoint, Py_hash_t hash_, size_t *version):
    # Searches by_hash or by_spelling. __eq__ is user code: it runs between two reads of the table, with no lock held,
    # and the search starts again if the table has changed between them. If the endpoint is not found, the caller gets
    # the version of the table.
    cdef EndpointPool ep
    cdef void *found
    cdef bint equal
    cdef size_t n = 0, seen = 0
    cdef size_t s = shard_of(<size_t>hash_)
    cdef Table *t = &where.shards[s].table
    while True:
        gcp_lock(&where.shards[s].lock)
        if n == 0:
            seen = t.version
        elif seen != t.version:
            n = 0
            gcp_unlock(&where.shards[s].lock)
            continue
        found = table_find_nth(t, <size_t>hash_, n)
        ep = <EndpointPool>found if found != NULL else None
        gcp_unlock(&where.shards[s].lock)
        if ep is None:
            if version != NULL:
                version[0] = seen
            return None
        if where == &core.directory.by_spelling:
            equal = has_spelling(ep, endpoint, hash_)
        else:
            equal = ep.endpoint is endpoint or ep.endpoint == endpoint
        if made_before_fork(core, ep.fork_epoch):    # __eq__ has forked the process, and this is the child
            n = 0
        elif equal:
            return ep
        else:
            n += 1
        ep = None       # the endpoint pool may be forgotten by now: its last reference must not be dropped under a lock


cdef EndpointPool find_or_add_pool(PoolCore core, object endpoint):
    cdef EndpointPool ep
    cdef Spelling new
    if core.normalize is None:
        ep = find_by_identity(&core.directory, endpoint)
        return find_or_add_by_hash(core, endpoint, hash_of(endpoint)) if ep is None else ep
    ep = find_known_pool(core, endpoint)
    if ep is not None:
        return ep
    counts_as = normalized(core, endpoint)
    new = new_spelling(core, endpoint, counts_as)
    ep = find_or_add_by_hash(core, counts_as, hash_of(counts_as))
    if new is not None:
        add_spelling(core, ep, new)
    return ep


cdef EndpointPool find_or_add_by_hash(PoolCore core, object endpoint, Py_hash_t hash_):
    cdef EndpointPool ep
    cdef EndpointPool new = None
    cdef size_t version
    cdef size_t s = shard_of(<size_t>hash_)
    cdef unsigned int number
    cdef int failed = 0
    cdef bint added = False
    while True:
        version = 0
        ep = find_by_hash(core, &core.directory.by_hash, endpoint, hash_, &version)
        if ep is not None:
            set_alias(core, ep, endpoint)
            return ep
        if new is None:
            new = EndpointPool()
            new.endpoint = endpoint
            new.hash = hash_
        new.fork_epoch = core.fork_epoch
        gcp_lock(&core.directory.by_hash.shards[s].lock)
        if core.directory.by_hash.shards[s].table.version == version:
            number = gcp_load_uint(&core.directory.added) + 1
            gcp_store_uint(&core.directory.added, number)
            failed = table_insert(
                &core.directory.by_hash.shards[s].table, <size_t>hash_, <void *>new, <void *><size_t>number
            )
            added = not failed
        gcp_unlock(&core.directory.by_hash.shards[s].lock)
        if failed:
            raise MemoryError
        if added:
            # Another thread may have found the new endpoint pool by its hash, used it, and emptied it already. Then it
            # is forgotten, and must not be found by identity.
            gcp_lock(&new.lock)
            new.core_size = gcp_load_int(&core.core_size)       # now that resize() would find it
            if not new.forgotten:
                add_identity_locked(&core.directory, new, endpoint)
            gcp_unlock(&new.lock)
            if gcp_load_int(&core.keeps_growth):
                ensure_growth(core, new, -INFINITY)
            return new


cdef bint add_identity_locked(Directory *d, EndpointPool ep, object endpoint) noexcept:
    # False if there is no memory: then the endpoint pool is found by the hash of the endpoint.
    return map_insert(&d.by_identity, <size_t><void *>endpoint, <void *>ep)


cdef inline void forget_identity_locked(Directory *d, EndpointPool ep, object endpoint) noexcept:
    map_remove(&d.by_identity, <size_t><void *>endpoint, <void *>ep)


cdef void set_alias(PoolCore core, EndpointPool ep, object endpoint):
    # Remembers an object that is equal to the endpoint. Many programs build such an object once and keep using it: then
    # it is found by identity, and its hash is computed once only.
    cdef object old = endpoint      # holds the reference to the old alias until no lock is held
    gcp_lock(&ep.lock)
    if not ep.forgotten and ep.alias is not endpoint and ep.endpoint is not endpoint:
        old = ep.alias
        if old is not None:
            forget_identity_locked(&core.directory, ep, old)
        ep.alias = endpoint if add_identity_locked(&core.directory, ep, endpoint) else None
    gcp_unlock(&ep.lock)


cdef void forget_if_empty(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. The caller holds a reference to ep, so that no object is freed here.
    cdef void *p
    if ep.size or ep.waiting or ep.forgotten or must_be_remembered(core, ep):
        return
    ep.forgotten = True
    forget_growth(core, ep)
    if ep.has_heap_slot:
        ep.has_heap_slot = False
        core.wanting_slots.reserved -= 1
        core.unserved.reserved -= 1
    update_wants_slot(core, ep)
    map_remove(&core.directory.by_hash, <size_t>ep.hash, <void *>ep)
    forget_identity_locked(&core.directory, ep, ep.endpoint)
    if ep.alias is not None:
        forget_identity_locked(&core.directory, ep, ep.alias)
    p = <void *>ep.spellings
    while p != <void *>None:
        forget_spelling_locked(&core.directory, ep, p)
        p = <void *>(<Spelling>p).next
    core.counters.acquires += ep.acquires
    core.use_time += ep.marks.use_time


cdef list endpoint_pools(PoolCore core):
    # In any order: for callers that change nothing.
    return found_pools(core, None)


cdef list endpoint_pools_in_order(PoolCore core):
    # In the order of their first use, so that the order of serving and closing does not depend on hashes.
    cdef list numbers = []
    cdef list found = found_pools(core, numbers)
    cdef Py_ssize_t i
    return [found[i] for i in sorted(range(len(found)), key=numbers.__getitem__)]


cdef list found_pools(PoolCore core, list numbers):
    # All endpoint pools, and, unless that is None, their numbers in the order of first use.
    cdef list found = []
    cdef list room
    cdef size_t *hints
    cdef Py_ssize_t used, n
    cdef size_t version, i
    cdef int s
    cdef Table *t
    for s in range(GCP_SHARDS):
        # Making the list may collect garbage, which may run code that changes the table. So the list is made with no
        # lock held, and the shard is read again if it has changed.
        while True:
            t = &core.directory.by_hash.shards[s].table
            gcp_lock(&core.directory.by_hash.shards[s].lock)
            version = t.version
            used = <Py_ssize_t>t.used
            gcp_unlock(&core.directory.by_hash.shards[s].lock)
            room = [None] * used
            hints = <size_t *>PyMem_Malloc(max(used, 1) * sizeof(size_t))
            if hints == NULL:
                raise MemoryError
            gcp_lock(&core.directory.by_hash.shards[s].lock)
            if t.version == version:
                n = 0
                if t.slots != NULL:
                    for i in range(t.mask + 1):
                        if t.slots[i].value != NULL:
                            room[n] = <EndpointPool>t.slots[i].value
                            hints[n] = <size_t>t.slots[i].hint
                            n += 1
                gcp_unlock(&core.directory.by_hash.shards[s].lock)
                try:
                    if numbers is not None:
                        numbers.extend([hints[n] for n in range(used)])
                finally:
                    PyMem_Free(hints)
                found.extend(room)
                break
            gcp_unlock(&core.directory.by_hash.shards[s].lock)
            PyMem_Free(hints)
    return found
