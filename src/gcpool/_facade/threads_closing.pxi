# How the pool for threads closes connections: in the caller of a release, or in a worker.

cdef int dispose_due(SyncPool pool, double now) except -1:
    # The part of each release that closes expired and doomed connections.
    try:
        pool.doom_due(now)
    finally:            # a signal handler may raise in doom_due(), while it starts the collector's thread
        if has_doomed(pool._core):
            dispose_doomed(pool)
    return 0


cdef int dispose_doomed(SyncPool pool) except -1:
    # The caller closes what its release has doomed, and what an interrupted release has left behind. A worker is called
    # for an acquire that was interrupted before it called one.
    try:
        dispose_all(pool, &pool._core.doomed_for_caller, INFINITY)
    finally:
        begin_disposals(pool, INFINITY)
    return 0


cdef int dispose_all(SyncPool pool, Chain *doomed, double deadline) except -1:
    # An acquire may be waiting for each of these slots: an exception of one dispose must not prevent the next close.
    cdef Entry e
    cdef bint for_worker = doomed == &pool._core.doomed_for_worker
    failure = None
    while True:
        e = take_from(pool._core, doomed)
        if e is None:
            break
        try:
            dispose_entry(pool, e, deadline, for_worker)
        except BaseException as exc:
            if failure is None:
                failure = exc
    if failure is not None:
        raise failure
    return 0


cdef int dispose_entry(SyncPool pool, Entry e, double deadline, bint by_worker) except -1:
    cdef double left
    cdef double begun = pool._core.now()
    timeout = pool._dispose_timeout
    error = None
    failure = try_keep_one_idle(pool) if e.mark.relief == IS_RELIEF else None
    try:
        if deadline != INFINITY:
            left = dispose_time(deadline, pool._core.now())
            timeout = left if timeout is None else min(timeout, left)
        pool._manager.dispose(e.pool.endpoint, e.conn_, timeout=timeout)
    except BaseException as exc:
        error = exc
    finally:
        pool._core.disposed(e, read_clock(pool._core), by_worker)
    tell_closed(pool, e, begun, error, timeout)
    if error is not None and not isinstance(error, Exception):
        raise error
    if gcp_load_char(&e.broken) == TO_BE_TOLD:
        tell_dead(pool, e)
    if failure is not None:
        raise failure
    return 0


cdef int begin_disposals(SyncPool pool, double deadline) except -1:
    # Calls a worker to close what is doomed for workers, and to do the checks by the pool. If no thread can
    # be started, the caller closes it, and is late by no more than close() would be: see LEAST_DISPOSE_TIME; and
    # the acquire that is served a connection checks it.
    cdef bint called
    failure = None
    # A caller that has doomed a connection then looks which workers are waiting or looking; a worker that has left
    # these then looks for a job. The fences keep both in this order, so that one of the two sees the other.
    gcp_fence()
    if left_to_workers(pool._core) == 0:
        return 0
    if jobs_to_begin(pool._core) == 0 and not gcp_is_finalizing():
        return 0                # a worker at work begins them when it has ended its job
    try:
        called = pool._workers.call()
    except BaseException as exc:
        # A signal handler may have raised inside the call. No worker would close what is doomed, so call once more.
        failure = exc
        try:
            called = pool._workers.call()
        except BaseException:       # again: the caller closes it
            called = False
    if not called:
        try:
            pool._core.give_up_checks(read_clock(pool._core))
            if creates_to_begin(pool._core):
                pool._core.ask_workers()        # the waiters connect, unless a worker is available now
        finally:
            dispose_all(pool, &pool._core.doomed_for_worker, deadline)
    if failure is not None:
        raise failure
    return 0


cdef object try_keep_one_idle(SyncPool pool):
    # Has a worker call expire_relief() in time, if no waiting acquire does. Returns the exception of a signal handler
    # here, or None: the caller first finishes its own work.
    try:
        pool._workers.keep_one_for_timers()
    except BaseException as exc:
        return exc
    return None
