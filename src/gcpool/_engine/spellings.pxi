# SPELLINGS. With normalize(), several endpoints count as one. Their endpoint pool remembers its last spellings, so that
# the manager is asked only once for each spelling.

# How many spellings of one endpoint are remembered, besides the one that normalize() returns.
cdef enum:
    MAX_SPELLINGS = 8


@cython.final
@cython.no_gc_clear
cdef class Spelling:
    """Another spelling of an endpoint: the manager's ``normalize`` returns the same for both."""


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
    # Asks the manager what an endpoint counts as. normalize() is user code, so no lock is held.
    hash_of(endpoint)
    counts_as = core.normalize(endpoint)
    if counts_as is None and endpoint is not None:
        raise TypeError(f'normalize() returned None for endpoint {endpoint!r}: expected the endpoint to use')
    return counts_as


cdef Spelling new_spelling(PoolCore core, object endpoint, object counts_as):
    # None if the two endpoints are equal: then each is found by the hash of the other. No lock is held, since __hash__
    # and __eq__ run here. The spelling is allocated here, so that add_spelling() cannot fail half-way.
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
    # Beyond MAX_SPELLINGS the oldest spelling is forgotten: otherwise a program that spells an endpoint differently
    # each time would fill the memory.
    cdef Spelling _oldest = None    # holds the reference until no lock is held
    cdef void *p
    cdef void *before = NULL
    cdef int count = 1
    gcp_lock(&ep.lock)
    # If there is no memory for the spelling, the manager will be asked again.
    if not ep.forgotten and map_insert(&core.directory.by_spelling, <size_t>new.hash, <void *>ep):
        add_identity_locked(&core.directory, ep, new.endpoint)
        new.next = ep.spellings
        ep.spellings = new
        p = <void *>new
        while (<Spelling>p).next is not None:
            before = p
            p = <void *>(<Spelling>p).next
            count += 1
        if count > MAX_SPELLINGS:
            _oldest = <Spelling>p
            forget_spelling_locked(&core.directory, ep, p)
            (<Spelling>before).next = None
    gcp_unlock(&ep.lock)


cdef void forget_spelling_locked(Directory *d, EndpointPool ep, void *p) noexcept:
    map_remove(&d.by_spelling, <size_t>(<Spelling>p).hash, <void *>ep)
    forget_identity_locked(d, ep, (<Spelling>p).endpoint)
