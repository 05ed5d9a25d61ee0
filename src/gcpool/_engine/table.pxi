# Tables map an address or a hash to an object. They borrow their references: another object owns each registered
# object, and removes it from the table before it is freed.

cdef inline uint64_t mix(size_t key) noexcept nogil:
    return <uint64_t>key * <uint64_t>0x9E3779B97F4A7C15u


cdef inline void *table_find(Table *t, size_t key) noexcept nogil:
    cdef size_t i
    if gcp_unlikely(t.used == 0):
        return NULL
    i = <size_t>(mix(key) >> t.shift)
    while gcp_likely(t.slots[i].value != NULL):
        if gcp_likely(t.slots[i].key == key):
            return t.slots[i].value
        i = (i + 1) & t.mask
    return NULL


cdef inline Slot *table_find_slot(Table *t, size_t key) noexcept nogil:
    cdef size_t i
    if gcp_unlikely(t.used == 0):
        return NULL
    i = <size_t>(mix(key) >> t.shift)
    while gcp_likely(t.slots[i].value != NULL):
        if gcp_likely(t.slots[i].key == key):
            return &t.slots[i]
        i = (i + 1) & t.mask
    return NULL


cdef inline void table_prefetch(Table *t, size_t key) noexcept nogil:
    if gcp_likely(t.used != 0):
        gcp_prefetch(&t.slots[mix(key) >> t.shift])


cdef void *table_find_nth(Table *t, size_t key, size_t n) noexcept nogil:
    cdef size_t i
    if t.used == 0:
        return NULL
    i = <size_t>(mix(key) >> t.shift)
    while t.slots[i].value != NULL:
        if t.slots[i].key == key:
            if n == 0:
                return t.slots[i].value
            n -= 1
        i = (i + 1) & t.mask
    return NULL


cdef void table_put(Table *t, size_t key, void *value, void *hint) noexcept nogil:
    cdef size_t i = <size_t>(mix(key) >> t.shift)
    while t.slots[i].value != NULL:
        i = (i + 1) & t.mask
    t.slots[i].key = key
    t.slots[i].value = value
    t.slots[i].hint = hint
    t.slots[i].hint_conn = NULL
    t.used += 1
    t.version += 1


cdef int table_resize(Table *t, size_t capacity) noexcept:
    # Returns -1 if there is no memory; the table is unchanged then.
    cdef Slot *old = t.slots
    cdef size_t i
    cdef size_t old_capacity = t.mask + 1 if old != NULL else 0
    cdef size_t version = t.version
    cdef Slot *slots = <Slot *>PyMem_Malloc(capacity * sizeof(Slot))
    if slots == NULL:
        return -1
    memset(slots, 0, capacity * sizeof(Slot))
    t.slots = slots
    t.mask = capacity - 1
    t.shift = 64
    while capacity > 1:
        capacity >>= 1
        t.shift -= 1
    t.used = 0
    for i in range(old_capacity):
        if old[i].value != NULL:
            table_put(t, old[i].key, old[i].value, old[i].hint)
    t.version = version + 1
    PyMem_Free(old)
    return 0


cdef inline int table_insert(Table *t, size_t key, void *value, void *hint=NULL) noexcept:
    if t.slots == NULL:
        if table_resize(t, 8) < 0:
            return -1
    elif (t.used + 1) * 8 > (t.mask + 1) * 7:     # dense: a small table in the cache is worth a few more probes
        if table_resize(t, (t.mask + 1) * 2) < 0:
            return -1
    table_put(t, key, value, hint)
    return 0


cdef bint table_remove(Table *t, size_t key, void *value) noexcept:
    cdef size_t i, j, home
    if t.used == 0:
        return False
    i = <size_t>(mix(key) >> t.shift)
    while t.slots[i].value != value or t.slots[i].key != key:
        if t.slots[i].value == NULL:
            return False
        i = (i + 1) & t.mask
    j = i
    while True:     # close the gap: a search ends at a free slot, and would not find the members behind it
        j = (j + 1) & t.mask
        if t.slots[j].value == NULL:
            break
        home = <size_t>(mix(t.slots[j].key) >> t.shift)
        if ((j - home) & t.mask) >= ((j - i) & t.mask):
            t.slots[i] = t.slots[j]
            i = j
    t.slots[i].value = NULL
    t.used -= 1
    t.version += 1
    if t.mask > 15 and t.used * 8 < t.mask:
        table_resize(t, (t.mask + 1) >> 1)      # if there is no memory for a smaller table, the larger one stays
    return True


cdef inline size_t shard_of(size_t key) noexcept nogil:
    return <size_t>(mix(key) >> 24) & (GCP_SHARDS - 1)


cdef inline void *map_get(Map *m, size_t key) noexcept:
    # Returns a new reference, which the caller owns; NULL if nothing is registered.
    cdef size_t s = shard_of(key)
    cdef void *found
    gcp_lock(&m.shards[s].lock)
    found = table_find(&m.shards[s].table, key)
    if found != NULL:
        gcp_prefetch(<char *>found + 64)
        # Under the lock: an object that is registered is alive, but may be removed and freed as soon as this unlocks.
        Py_INCREF(<object>found)
    gcp_unlock(&m.shards[s].lock)
    return found


cdef bint map_has(Map *m, size_t key, void *value) noexcept:
    cdef size_t s = shard_of(key)
    cdef size_t n = 0
    cdef void *found
    gcp_lock(&m.shards[s].lock)
    found = table_find_nth(&m.shards[s].table, key, n)
    while found != NULL and found != value:
        n += 1
        found = table_find_nth(&m.shards[s].table, key, n)
    gcp_unlock(&m.shards[s].lock)
    return found != NULL


cdef inline bint map_insert(Map *m, size_t key, void *value) noexcept:
    # False if there is no memory.
    cdef size_t s = shard_of(key)
    cdef int failed
    gcp_lock(&m.shards[s].lock)
    failed = table_insert(&m.shards[s].table, key, value)
    gcp_unlock(&m.shards[s].lock)
    return not failed


cdef bint map_remove(Map *m, size_t key, void *value) noexcept:
    cdef size_t s = shard_of(key)
    cdef bint removed
    gcp_lock(&m.shards[s].lock)
    removed = table_remove(&m.shards[s].table, key, value)
    gcp_unlock(&m.shards[s].lock)
    return removed


cdef void map_free(Map *m) noexcept:
    cdef int s
    for s in range(GCP_SHARDS):
        PyMem_Free(m.shards[s].table.slots)
    memset(m, 0, sizeof(Map))
