# How many spellings of one endpoint are known at a time, besides the one that normalize() gives.
cdef enum:
    MAX_SPELLINGS = 8


@cython.final
@cython.no_gc_clear
cdef class Spelling:
    """Another spelling of an endpoint, as far as the manager's ``normalize`` is concerned."""


cdef inline Py_hash_t hash_of(object endpoint) except? -1:
    try:
        return PyObject_Hash(endpoint)
    except TypeError as exc:
        raise TypeError(f'endpoint {endpoint!r} of type {type(endpoint).__name__}: expected a hashable object') from exc


cdef inline EndpointPool find_known_pool(PoolCore core, object endpoint):
    # By identity first: the hash of an endpoint may be Python code. None if the endpoint is unknown, or
    # spelled in a way that was not seen before: find() and request() then ask the manager.
    cdef EndpointPool ep = <EndpointPool>map_get(&core.by_identity, <size_t><void *>endpoint)
    cdef Py_hash_t hash_
    if ep is None and (gcp_load_int(&core.size) > 0 or gcp_load_int(&core.wanting_count)):
        hash_ = hash_of(endpoint)
        ep = find_by_hash(core, &core.by_hash, endpoint, hash_, NULL)
        if ep is None and core.normalize is not None:
            ep = find_by_hash(core, &core.by_spelling, endpoint, hash_, NULL)
        if ep is not None:
            set_alias(core, ep, endpoint)
    return ep


cdef EndpointPool find_pool(PoolCore core, object endpoint):
    # The pool of an endpoint, however the endpoint is spelled. None if it is unknown.
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
    # Whether the endpoint is that of the endpoint pool, or another spelling of it.
    cdef EndpointPool found
    if ep.endpoint is endpoint or map_get(&core.by_identity, <size_t><void *>endpoint) is ep:
        return True
    if ep.endpoint == endpoint:
        return True
    if core.normalize is None:
        return False
    found = find_pool(core, endpoint)
    # Where the pool was closed over its connections, the endpoint pool may be forgotten, or there is a new one.
    return found is ep or ep.endpoint == (normalized(core, endpoint) if found is None else found.endpoint)


cdef EndpointPool find_by_hash(PoolCore core, Map *where, object endpoint, Py_hash_t hash_, size_t *version):
    # In by_hash, or in by_spelling. __eq__ is user code: it runs between two looks at the table, and the search
    # starts again if that changed.
    cdef EndpointPool ep
    cdef void *found
    cdef bint equal
    cdef size_t n = 0, seen = 0
    cdef size_t s = shard_of(<size_t>hash_)
    cdef Table *t = &where.tables[s]
    while True:
        gcp_lock(&where.locks[s])
        if n == 0:
            seen = t.version
        elif seen != t.version:
            n = 0
            gcp_unlock(&where.locks[s])
            continue
        found = table_find_nth(t, <size_t>hash_, n)
        ep = <EndpointPool>found if found != NULL else None
        gcp_unlock(&where.locks[s])
        if ep is None:
            if version != NULL:
                version[0] = seen
            return None
        if where == &core.by_spelling:
            equal = has_spelling(ep, endpoint, hash_)
        else:
            equal = ep.endpoint is endpoint or ep.endpoint == endpoint
        if ep.fork_epoch != core.fork_epoch:    # __eq__ has forked, and this is the child
            n = 0
        elif equal:
            return ep
        else:
            n += 1
        ep = None       # forgotten meanwhile, maybe: then it goes with its endpoint, and not under the lock


cdef bint has_spelling(EndpointPool ep, object endpoint, Py_hash_t hash_) except -1:
    # Whether the endpoint is among the remembered spellings of the endpoint pool's own.
    cdef Spelling spelling
    cdef Spelling following
    gcp_lock(&ep.lock)
    spelling = ep.spellings
    gcp_unlock(&ep.lock)
    while spelling is not None:
        if spelling.hash == hash_ and (spelling.endpoint is endpoint or spelling.endpoint == endpoint):
            return True
        gcp_lock(&ep.lock)
        following = spelling.next
        gcp_unlock(&ep.lock)
        spelling = following
    return False


cdef object normalized(PoolCore core, object endpoint):
    # What the manager says that an endpoint counts as. normalize() is user code: no lock is held.
    hash_of(endpoint)
    counts_as = core.normalize(endpoint)
    if counts_as is None and endpoint is not None:
        raise TypeError(f'normalize() returned None for endpoint {endpoint!r}: expected what it counts as')
    return counts_as


cdef Spelling new_spelling(PoolCore core, object endpoint, object counts_as):
    # None if the two are equal: then either of them is found by the hash of the other. It runs __hash__ and
    # __eq__, so no lock is held. It allocates, so that add_spelling() cannot fail half-way.
    cdef Spelling new
    cdef Py_hash_t hash_ = hash_of(endpoint)
    cdef Py_hash_t hash_of_normalized
    try:
        hash_of_normalized = PyObject_Hash(counts_as)
    except Exception as exc:
        raise TypeError(
            f'normalize() returned {counts_as!r} of type {type(counts_as).__name__} for endpoint {endpoint!r}: '
            'expected a hashable object'
        ) from exc
    if counts_as is endpoint or (hash_ == hash_of_normalized and counts_as == endpoint):
        return None
    new = Spelling.__new__(Spelling)
    new.endpoint = endpoint
    new.hash = hash_
    return new


cdef void add_spelling(PoolCore core, EndpointPool ep, Spelling new):
    # Beyond MAX_SPELLINGS the oldest spelling is forgotten: a program that spells an endpoint in another way each
    # time must not fill the memory.
    cdef Spelling _oldest = None    # goes when the lock is free again
    cdef void *p
    cdef void *before = NULL
    cdef int count = 1
    cdef size_t s = shard_of(<size_t>new.hash)
    cdef int failed = 1
    gcp_lock(&ep.lock)
    if not ep.forgotten:
        gcp_lock(&core.by_spelling.locks[s])
        failed = table_insert(&core.by_spelling.tables[s], <size_t>new.hash, <void *>ep)
        gcp_unlock(&core.by_spelling.locks[s])
    if not failed:          # else there was no memory for it, and the manager is asked again
        add_identity(core, ep, new.endpoint)
        new.next = ep.spellings
        ep.spellings = new
        p = <void *>new
        while (<Spelling>p).next is not None:
            before = p
            p = <void *>(<Spelling>p).next
            count += 1
        if count > MAX_SPELLINGS:
            _oldest = <Spelling>p
            forget_spelling(core, ep, p)
            (<Spelling>before).next = None
    gcp_unlock(&ep.lock)


cdef void forget_spelling(PoolCore core, EndpointPool ep, void *p) noexcept:
    # ep.lock is held.
    map_remove(&core.by_spelling, <size_t>(<Spelling>p).hash, <void *>ep)
    map_remove(&core.by_identity, <size_t><void *>(<Spelling>p).endpoint, <void *>ep)


cdef EndpointPool find_or_add_pool(PoolCore core, object endpoint):
    cdef EndpointPool ep
    cdef Spelling new
    if core.normalize is None:
        ep = <EndpointPool>map_get(&core.by_identity, <size_t><void *>endpoint)
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
    cdef int failed = 0
    cdef bint added = False
    while True:
        version = 0
        ep = find_by_hash(core, &core.by_hash, endpoint, hash_, &version)
        if ep is not None:
            set_alias(core, ep, endpoint)
            return ep
        if new is None:
            new = EndpointPool()
            new.endpoint = endpoint
            new.hash = hash_
        new.fork_epoch = core.fork_epoch
        gcp_lock(&core.by_hash.locks[s])
        if core.by_hash.tables[s].version == version:
            failed = table_insert(&core.by_hash.tables[s], <size_t>hash_, <void *>new)
            added = not failed
        gcp_unlock(&core.by_hash.locks[s])
        if failed:
            raise MemoryError
        if added:
            # Another thread may have found it by its hash, used it and had it forgotten.
            gcp_lock(&new.lock)
            if not new.forgotten:
                add_identity(core, new, endpoint)
            gcp_unlock(&new.lock)
            return new


cdef bint add_identity(PoolCore core, EndpointPool ep, object endpoint) noexcept:
    # ep.lock is held. False when there is no memory: then it is found by its hash.
    cdef size_t s = shard_of(<size_t><void *>endpoint)
    cdef int failed
    gcp_lock(&core.by_identity.locks[s])
    failed = table_insert(&core.by_identity.tables[s], <size_t><void *>endpoint, <void *>ep)
    gcp_unlock(&core.by_identity.locks[s])
    return not failed


cdef void set_alias(PoolCore core, EndpointPool ep, object endpoint):
    # Many programs build an equal endpoint somewhere else and then use that one object all the time.
    cdef object old = endpoint      # holds the reference until the lock is free again
    gcp_lock(&ep.lock)
    if not ep.forgotten and ep.alias is not endpoint and ep.endpoint is not endpoint:
        old = ep.alias
        if old is not None:
            map_remove(&core.by_identity, <size_t><void *>old, <void *>ep)
        ep.alias = endpoint if add_identity(core, ep, endpoint) else None
    gcp_unlock(&ep.lock)


cdef void forget_if_empty(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. The caller holds a reference to ep, so that nothing is let go here.
    cdef void *p
    if ep.size or ep.waiting or ep.forgotten:
        return
    ep.forgotten = True
    if ep.has_heap_slot:
        ep.has_heap_slot = False
        core.wanting_slots.reserved -= 1
    if ep.heap_index >= 0:
        core.wanting_slots.remove(<void *>ep)
        gcp_store_int(&core.wanting_count, <int>core.wanting_slots.used)
    map_remove(&core.by_hash, <size_t>ep.hash, <void *>ep)
    map_remove(&core.by_identity, <size_t><void *>ep.endpoint, <void *>ep)
    if ep.alias is not None:
        map_remove(&core.by_identity, <size_t><void *>ep.alias, <void *>ep)
    p = <void *>ep.spellings
    while p != <void *>None:
        forget_spelling(core, ep, p)
        p = <void *>(<Spelling>p).next
    core.acquires += ep.acquires


cdef list endpoint_pools(PoolCore core):
    cdef list found = []
    cdef list room
    cdef Py_ssize_t used, n
    cdef size_t version, i
    cdef int s
    cdef Table *t
    for s in range(GCP_SHARDS):
        # Appending may collect garbage, that is run code that changes the table: then the shard is read again.
        while True:
            t = &core.by_hash.tables[s]
            gcp_lock(&core.by_hash.locks[s])
            version = t.version
            used = <Py_ssize_t>t.used
            gcp_unlock(&core.by_hash.locks[s])
            room = [None] * used
            gcp_lock(&core.by_hash.locks[s])
            if t.version == version:
                n = 0
                if t.slots != NULL:
                    for i in range(t.mask + 1):
                        if t.slots[i].value != NULL:
                            room[n] = <EndpointPool>t.slots[i].value
                            n += 1
                gcp_unlock(&core.by_hash.locks[s])
                found.extend(room)
                break
            gcp_unlock(&core.by_hash.locks[s])
    return found
