# What both pools do for try_acquire(), discard() and detach(), and for calls that name no endpoint.

cdef object default_endpoint_of(PoolFacade pool):
    check_built(pool)
    if pool._default_endpoint is UNSET_ENDPOINT:
        raise TypeError(
            f'no endpoint was given, and {pool._manager!r} has no default_endpoint: expected an endpoint'
        )
    return pool._default_endpoint


cdef Entry take_ready_of(PoolFacade pool, object endpoint):
    cdef Entry e
    if endpoint is UNSET_ENDPOINT:
        endpoint = default_endpoint_of(pool)
    check_built(pool)
    if pool.needs_manager:
        must_be_open(pool._core, endpoint)
        return None
    e = take_ready(pool._core, endpoint, read_clock(pool._core), pool.trusted_for)
    if e is not None and pool._core.records_holders:
        note_holder_or_release(pool._core, e)
    return e


cdef int note_holder_or_release(PoolCore core, Entry e) except -1:
    # For a connection that was just acquired: its caller has no other guard.
    if gcp_likely(gcp_thread_mark() != NULL) and gcp_likely(not must_wake_leak_watch(core)):
        record_holder(core, e, FRAMES)
        return 0
    try:
        note_holder(core, e, FRAMES)
    except BaseException:
        core.release(e, read_clock(core))
        raise
    return 0


cdef int detach_from(PoolFacade pool, object conn) except -1:
    cdef Entry e
    check_built(pool)
    e = entry_of(pool._core, conn)
    if e is not None:
        detach(pool._core, e, read_clock(pool._core))
    return 0


# -- threads -------------------------------------------------------------------------------------------------------

cdef int discard_now(SyncPool pool, object conn) except -1:
    cdef PoolCore core = pool._core
    cdef Entry e
    check_built(pool)
    e = entry_of(core, conn)
    if e is None or not retire(core, e, read_clock(core), NULL, ANY_LEASE, BECAUSE_DISCARDED, True):
        return 0
    try:
        dispose_entry(pool, e, INFINITY, False)
    finally:
        dispose_due(pool, read_clock(core))
    return 0


# -- asyncio -------------------------------------------------------------------------------------------------------

cdef object start_discard(AsyncPool pool, object conn):
    # Discards now, and not at the coroutine's first step, which may never come. Returns what is left to await.
    cdef ReleaseCoroutine coroutine
    cdef Entry e
    try:
        check_built(pool)
        e = entry_of(pool._core, conn)
        if e is not None and not pool.own_loop.runs_here():
            coroutine = pool.new_release_coroutine()
            begin_current_lease(coroutine.lease, e)
            coroutine.inner = pool._discard_in_loop(coroutine.lease)
            return coroutine
        if e is None or not pool._core.discard(e, read_clock(pool._core), True):
            return coroutine_of_discard()
    except Exception as exc:
        return coroutine_of_failed_discard(exc)
    return pool._wait_for_discard(pool.spawn_disposals())


cdef int release_now(AsyncPool pool, Entry e) except -1:
    # A release whose caller awaits nothing, in any thread.
    cdef PoolCore core = pool._core
    cdef Lease lease
    cdef unsigned int lease_no
    if pool.own_loop.runs_here():
        remaining = pool.start_release(e, ANY_LEASE, False)
        if remaining is not None:
            pool._spawn_release(remaining)
        return 0
    if not begin_release(core, e, ANY_LEASE):
        return 0
    # From here on no other release succeeds. If the loop ends before it does the rest, the lease releases the
    # connection.
    lease_no = gcp_load_uint(&e.lease_no)
    lease = Lease.__new__(Lease)
    lease.pool = pool
    begin_lease(lease, e, lease_no, RELEASING)
    if pool.own_loop.runs_in_other_thread() and pool.own_loop.call(pool._finish_release_in_loop, (lease,)):
        return 0
    lease.entry = None
    pool.release_dropped_lease(e, lease_no, RELEASING)
    return 0


cdef int finish_release_in_loop(AsyncPool pool, Lease lease) except -1:
    # The rest of a release that another thread has begun.
    cdef ReleaseCoroutine remaining
    cdef Entry e = lease.entry
    if e is None:
        return 0
    if pool._hooks_release or gcp_load_char(&e.broken):
        remaining = pool.new_release_coroutine()
        remaining.lease = lease
        remaining.inner = pool._discard(lease) if gcp_load_char(&e.broken) else pool._finish_release(lease)
        pool._spawn_release(remaining)
        return 0
    lease.entry = None
    try:
        if pool.finish_in_core(e, lease.lease_no):
            pool.spawn_disposals()
    except ConnectionNotAcquired:       # another release was faster: it had found the connection before this one began
        pass
    return 0
