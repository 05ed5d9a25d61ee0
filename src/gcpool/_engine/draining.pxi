# DRAINING. A connection is drained if its connect began before its endpoint was drained. drain() dooms the idle ones,
# each once in its life, and only counts those in use, being created, or being checked by the pool: their releases, or
# the ends of the checks, will close them. To tell these from later ones, PoolCore.drains goes up with each drain, and
# each entry has noted it when its connect began.

cdef inline bint is_drained(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # core.lock is held. Only for entries that are not being closed. Compared as a difference, because it may overflow.
    cdef ReleaseWatch *watch = release_watch_of(core, ep)
    return watch != NULL and watch.drained > 0 and <int>(watch.drained_at - e.epoch.birth) > 0


cdef inline void note_end_of_use(PoolCore core, EndpointPool ep, Entry e) noexcept:
    # Both locks are held. The entry was in use or being created, and is about to be closed or gone.
    cdef ReleaseWatch *watch
    if core.release_watches.used and is_drained(core, ep, e):
        watch = release_watch_of(core, ep)
        watch.drained -= 1
        end_watch_if_unused(core, ep, watch)


cdef bint drain_pool(PoolCore core, EndpointPool ep, double now, bint idle_only) noexcept:
    # Both locks are held. False if there is no memory; then only connections that wait for a check were doomed.
    cdef ReleaseWatch *watch = NULL
    cdef int begun
    cdef void *p
    if checking_count(ep):
        doom_pending_checks(core, ep, now, BECAUSE_DRAINED)
    begun = begun_count(ep)
    if not idle_only and begun:
        watch = watch_releases(core, ep)
        if watch == NULL:
            return False
    p = oldest_idle(&ep.core, &ep.extra)
    while p != NULL:
        doom_idle(core, ep, <Entry>p, &core.doomed_for_worker, BECAUSE_DRAINED)
        count_as_relief(core, p)
        p = oldest_idle(&ep.core, &ep.extra)
    if watch != NULL:
        core.drains += 1
        watch.drained_at = core.drains
        watch.drained = begun
    return True


cdef int drain(PoolCore core, list pools, double now, bint idle_only) except -1:
    # No lock is held. Returns how many of them the pool has not forgotten meanwhile.
    cdef EndpointPool ep
    cdef bint relief_ended = False
    cdef bint known, done
    cdef int count = 0
    cdef Chain served = Chain(NULL, NULL, 0)
    for ep in pools:
        gcp_lock(&core.lock)
        relief_ended = advance_relief(core, now) or relief_ended
        gcp_lock(&ep.lock)
        known = not ep.forgotten and not made_before_fork(core, ep.fork_epoch)
        done = not known or drain_pool(core, ep, now, idle_only)
        note_short(core, ep, now)
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
        if not done:
            raise MemoryError
        count += known
    gcp_lock(&core.lock)
    if relief_ended:
        dispatch(core, &core.doomed_for_worker, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return count


cdef int drain_endpoint(PoolCore core, object endpoint, double now, bint idle_only) except -1:
    # 0 if the endpoint is unknown. One that was forgotten just now may be known again, from an acquire in between.
    cdef EndpointPool ep
    while True:
        ep = find_pool(core, endpoint)
        if ep is None:
            hash_of(endpoint)
            return 0
        if drain(core, [ep], now, idle_only) or not ep.forgotten:
            return 1
