# What the representation of an entry shows of its endpoint, which may hold a password. An endpoint pool does not refer
# to its core, because each reference would cost memory: the core is searched for.

cdef str shown_endpoint(EndpointPool ep):
    # No lock is held. The endpoint as the manager describes it; only its class if no pool has it any more.
    describe = describe_of(ep)
    if describe is NOTHING:
        return repr(UndescribedEndpoint(ep.endpoint))
    return repr(ep.endpoint) if describe is None else describe(ep.endpoint)


cdef object describe_of(EndpointPool ep):
    # PoolCore.describe of the core that has the endpoint pool; NOTHING if none has it. A core whose destructor waits
    # for the lock still has its attributes.
    cdef object found = NOTHING
    cdef void *p
    gcp_lock(&cores_lock)
    p = cores.head
    while p != NULL:
        if map_has(&(<PoolCore>p).directory.by_hash, <size_t>ep.hash, <void *>ep):
            found = (<PoolCore>p).describe
            break
        p = (<PoolCore>p).next
    gcp_unlock(&cores_lock)
    return found
