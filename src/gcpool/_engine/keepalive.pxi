# KEEPALIVE. An idle connection is due for a check when it was neither used nor checked for keepalive_interval. Each
# connection has a timer in a queue that is as lazy as the expiry queue: an acquire or a release does not touch it. When
# a timer's time comes, the connection may have been used since: then the timer is put back under the true time.
# The timers are separate objects, found by the entry in PoolCore.check_timers: most pools have none, and an entry has
# no room for the fields.
#
# Nothing becomes due while the pool is suspended; resume() wakes the worker.

# The largest fraction by which an interval is shortened, so that connections created together are not checked together.
cdef double KEEPALIVE_JITTER = 0.1

# One connection of each endpoint is checked at a time. Those that become due meanwhile are put off for this fraction of
# the interval.
cdef double KEEPALIVE_PUT_OFF = 0.05


@cython.final
@cython.no_gc_clear
cdef class CheckTimer(HeapMember):
    """When the connection of an entry must be checked."""


cdef CheckTimer new_check_timer(PoolCore core, Entry ticket):
    # None without keepalive. The caller pushes it, with push_check_timer().
    cdef CheckTimer timer
    if core.keepalive_interval <= 0:
        return None
    timer = CheckTimer.__new__(CheckTimer)
    timer.entry = ticket
    timer.interval = core.keepalive_interval * (1 - KEEPALIVE_JITTER * <double>core.random())
    core.check_timers[ticket] = timer       # of this process: request() has called entries_of_this_process()
    return timer


cdef void push_check_timer(PoolCore core, CheckTimer timer, double now) noexcept:
    # core.lock is held. The caller then calls call_checker_if_late(). If there is no memory for it, this connection is
    # not checked in the background.
    cdef Checks *checks = &core.checks
    cdef double due = now + timer.interval
    if not heap_make_room(&checks.timers, checks.timers.used + 1):
        return
    timer.checked_at = now
    heap_push(&checks.timers, <void *>timer, due, 0)
    if due < checks.wake_at:
        checks.wake_at = due
        gcp_store_int(&checks.is_late, True)


cdef CheckTimer check_timer_of(PoolCore core, Entry e):
    # None without keepalive.
    return None if core.check_timers is None else core.check_timers.get(e)


cdef void drop_check_timer(PoolCore core, CheckTimer timer) noexcept:
    # core.lock is held. The connection is closed; the caller then takes the timer out of core.check_timers.
    heap_remove(&core.checks.timers, <void *>timer)
    if core.checks.timers.used == 0:
        core.checks.wake_at = INFINITY      # the next timer wakes the worker, in whichever loop it is by then


cdef inline int call_checker_if_late(PoolCore core) except -1:
    # No lock is held.
    if gcp_load_int(&core.checks.is_late):
        gcp_store_int(&core.checks.is_late, False)
        if core.wake_checker is not None:
            call_checker(core)
    return 0


cdef int call_checker(PoolCore core) except -1:
    # Like call_collector().
    try:
        if core.wake_checker() is False:
            forget_checker(core)
    except BaseException:
        forget_checker(core)
        core.wake_checker()
        raise
    return 0


cdef inline void wake_checker_again(PoolCore core) noexcept:
    # core.lock is held. The pool is no longer suspended. The caller then calls call_checker_if_late().
    if core.checks.timers.used:
        gcp_store_int(&core.checks.is_late, True)


cdef void forget_checker(PoolCore core) noexcept:
    gcp_lock(&core.lock)
    core.checks.wake_at = INFINITY
    gcp_unlock(&core.lock)


cdef double due_for_check(CheckTimer timer, double now) noexcept:
    # The lock of the entry's endpoint pool is held. A connection that is not idle will not be due before this; more is
    # not known.
    cdef Entry e = timer.entry
    if not is_idle(e):
        return now + timer.interval
    return max(e.used_at, timer.checked_at) + timer.interval


cdef int begin_due_checks(PoolCore core, double now) except -1:
    # Takes out the idle connections that are due for a check, one of each endpoint. Returns how many.
    cdef Heap *timers = &core.checks.timers
    cdef CheckTimer timer
    cdef Entry e
    cdef EndpointPool ep
    cdef double due
    cdef int found = 0
    gcp_lock(&core.lock)
    while timers.used and timers.items[0].key <= now and not core.restrictions:
        timer = <CheckTimer>timers.items[0].item
        e = timer.entry
        ep = e.pool
        gcp_lock(&ep.lock)
        due = due_for_check(timer, now)
        if due <= now and checking_count(ep):
            due = now + timer.interval * KEEPALIVE_PUT_OFF
        elif due <= now:
            begin_checking_idle(ep, e)
            chain_append(&core.checks.pending, e)
            timer.checked_at = now
            due = now + timer.interval
            found += 1
        gcp_unlock(&ep.lock)
        heap_rekey(timers, <void *>timer, due, 0)
    gcp_unlock(&core.lock)
    return found


cdef double next_check(PoolCore core) noexcept:
    # When begin_due_checks() must be called next. The core assumes that the worker then wakes by itself.
    cdef Heap *timers = &core.checks.timers
    cdef CheckTimer timer
    cdef EndpointPool ep
    cdef double due, key = INFINITY
    gcp_lock(&core.lock)
    while timers.used and not core.restrictions:
        timer = <CheckTimer>timers.items[0].item
        key = timers.items[0].key
        ep = timer.entry.pool
        gcp_lock(&ep.lock)
        due = due_for_check(timer, key) if is_idle(timer.entry) else key
        gcp_unlock(&ep.lock)
        if due <= key:
            break
        heap_rekey(timers, <void *>timer, due, 0)
        key = INFINITY
    core.checks.wake_at = key
    gcp_unlock(&core.lock)
    return key
