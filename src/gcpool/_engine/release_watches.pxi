# RELEASE WATCHES. Most releases look only at their endpoint pool, and make the connection idle (release_fast). But a
# drained connection must not become idle, and wait_idle() has to learn when the last connection in use is returned. An
# endpoint pool that is watched for that sends each release to release_with_core_lock(). So the releases at other
# endpoints take only one lock.

cdef inline ReleaseWatch *release_watch_of(PoolCore core, EndpointPool ep) noexcept:
    # core.lock is held. NULL if the endpoint is not watched.
    return <ReleaseWatch *>table_find(&core.release_watches, <size_t><void *>ep)


cdef ReleaseWatch *watch_releases(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. NULL if there is no memory.
    cdef ReleaseWatch *watch = release_watch_of(core, ep)
    if watch == NULL:
        watch = <ReleaseWatch *>PyMem_Malloc(sizeof(ReleaseWatch))
        if watch == NULL:
            return NULL
        memset(watch, 0, sizeof(ReleaseWatch))
        if table_insert(&core.release_watches, <size_t><void *>ep, watch) < 0:
            PyMem_Free(watch)
            return NULL
        ep.is_watched = True
    return watch


cdef void end_watch_if_unused(PoolCore core, EndpointPool ep, ReleaseWatch *watch) noexcept:
    # Both locks are held.
    if watch.drained == 0 and watch.watchers == 0:
        table_remove(&core.release_watches, <size_t><void *>ep, watch)
        PyMem_Free(watch)
        ep.is_watched = False


cdef void release_watches_free(PoolCore core) noexcept:
    cdef size_t i
    cdef Table *t = &core.release_watches
    if t.slots != NULL:
        for i in range(t.mask + 1):
            PyMem_Free(t.slots[i].value)
        PyMem_Free(t.slots)
