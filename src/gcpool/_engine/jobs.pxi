# JOBS. What workers do: close, create and check connections. The core hands the jobs out, and counts those at work. So
# a bound holds for threads and tasks alike. What a caller closes or checks itself is not a job.
#
# Without max_workers there are as many workers as jobs, so that no job waits for another one, except for two kinds: at
# most PARALLEL_DISPOSALS closes and PARALLEL_CHECKS checks are at work at the same time. Creates have the limits of the
# sizes and max_connecting.
#
# With max_workers, a free worker takes a close first, because that frees a slot; then a create, for which an acquire
# may wait; and last a check, for which none does. A job that hangs keeps its worker. So no kind of job gets all
# workers: creates and closes each leave one to the others, and checks leave half of them. Example: of 4 workers, 3 may
# hang in creates to a server that does not answer, and closes continue. With one worker, a job that hangs delays all
# others.

cdef int PARALLEL_CHECKS_ = 16
PARALLEL_CHECKS = PARALLEL_CHECKS_


cdef inline int share_of(int kind, int workers) noexcept:
    # How many of the workers may do jobs of a kind at the same time.
    cdef int most = workers if workers else 0x7FFFFFFF
    if kind == CLOSE_JOB:
        return min(PARALLEL_DISPOSALS_, max(most - 1, 1))
    if kind == CREATE_JOB:
        return max(most - 1, 1)
    return min(PARALLEL_CHECKS_, max(most // 2, 1))


cdef inline int room_for_jobs(PoolCore core, int kind) noexcept:
    # How many more jobs of a kind may begin. Read without the lock, or with it.
    cdef int workers = gcp_load_int(&core.jobs.max_workers)
    cdef int room = share_of(kind, workers) - gcp_load_int(&core.jobs.at_work[kind])
    if workers:
        room = min(room, workers - gcp_load_int(&core.jobs.all_at_work))
    return max(room, 0)


cdef inline int left_to_workers(PoolCore core) noexcept:
    # How many connections wait for a worker to close or check them, whether that may begin or not.
    return gcp_load_int(&core.doomed_for_worker.count) + gcp_load_int(&core.checks.pending.count)


cdef inline int closes_to_begin(PoolCore core) noexcept:
    # How many connections a worker may begin to close now. Read without the lock.
    return min(gcp_load_int(&core.doomed_for_worker.count), room_for_jobs(core, CLOSE_JOB))


cdef inline int creates_to_begin(PoolCore core) noexcept:
    # The same, for creates.
    return min(gcp_load_int(&core.reserved), room_for_jobs(core, CREATE_JOB))


cdef inline int checks_to_begin(PoolCore core) noexcept:
    # The same, for checks.
    return min(gcp_load_int(&core.checks.pending.count), room_for_jobs(core, CHECK_JOB))


cdef inline int jobs_to_begin(PoolCore core) noexcept:
    # How many jobs of any kind may begin now. Read without the lock.
    cdef int workers = gcp_load_int(&core.jobs.max_workers)
    cdef int jobs = closes_to_begin(core) + creates_to_begin(core) + checks_to_begin(core)
    return max(min(jobs, workers - gcp_load_int(&core.jobs.all_at_work)), 0) if workers else jobs


cdef inline void begin_job(PoolCore core, Entry e, int kind) noexcept:
    # core.lock is held. The job has ended when the connection is closed, created or checked, or that was given up.
    gcp_assert(e.job == NO_JOB)
    e.job = kind
    gcp_store_int(&core.jobs.at_work[kind], core.jobs.at_work[kind] + 1)
    gcp_store_int(&core.jobs.all_at_work, core.jobs.all_at_work + 1)


cdef inline void end_job(PoolCore core, Entry e) noexcept:
    # core.lock is held. Does nothing if no worker has begun one for the entry: the caller closes or checks it.
    if e.job != NO_JOB:
        gcp_store_int(&core.jobs.at_work[<int>e.job], core.jobs.at_work[<int>e.job] - 1)
        gcp_store_int(&core.jobs.all_at_work, core.jobs.all_at_work - 1)
        e.job = NO_JOB
