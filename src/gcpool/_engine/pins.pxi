# PINNED ENDPOINTS. warm_up() pins an endpoint: it has at least that many connections, whether it is used or not; and
# wait() waits until each pinned endpoint has had its size once.

cdef int pin(PoolCore core, object endpoint, int size, double now) except -1:
    # A size of 0 unpins.
    cdef EndpointPool ep
    cdef Chain notified = Chain(NULL, NULL, 0)
    cdef bint wake = False
    ensure_pins(core)
    while True:
        ep = find_or_add_pool(core, endpoint) if size else find_pool(core, endpoint)
        if ep is None:
            return 0
        # Noted first, so that a forked child fills it again.
        if size:
            core.pins[ep.endpoint] = size
        else:
            core.pins.pop(ep.endpoint, None)
        ensure_growth(core, ep, now)
        gcp_lock(&core.lock)
        advance_relief(core, now)
        gcp_lock(&ep.lock)
        if not ep.forgotten:
            break
        gcp_unlock(&ep.lock)
        gcp_unlock(&core.lock)
    ep.growth.pinned = size
    ep.growth.filled = False
    ep.core_size = max(core.core_size, size)
    wake = sort_idle(core, ep, now)
    note_filled(core, ep, &notified)
    note_short(core, ep, now)
    if size == 0:
        wake = reschedule_core_locked(core, ep, now) or wake
    forget_if_empty(core, ep)
    gcp_unlock(&ep.lock)
    dispatch(core, &core.doomed_for_worker, &notified)
    gcp_unlock(&core.lock)
    try:
        notify_all(core, &notified)
    finally:
        if wake and core.wake_collector is not None:
            call_collector(core)
    return 0


cdef void note_filled(PoolCore core, EndpointPool ep, Chain *notified) noexcept:
    # Both locks are held. Whether the endpoint has, or once had, the size that it was pinned with.
    cdef Growth g = ep.growth
    cdef bint counts
    if ep.size - ep.counts[CREATING] - ep.counts[CLOSING] >= min(g.pinned, core.max_size):
        g.filled = True
    counts = g.pinned > 0 and not g.filled
    core.unfilled += counts - g.counts_as_unfilled
    g.counts_as_unfilled = counts
    if core.unfilled == 0:
        take_fill_watchers(core, notified)


cdef void take_fill_watchers(PoolCore core, Chain *notified) noexcept:
    # core.lock is held. For the references, see take_watchers().
    cdef void *p = chain_take_all(&core.fill_watchers)
    cdef void *following
    while p != NULL:
        following = (<Waiter>p).next
        if gcp_try_incref(p):
            gcp_store_int(&(<Waiter>p).state, SERVED)
            chain_append(notified, <Waiter>p)
        p = following


cdef bint watch_filled(PoolCore core, Waiter w) except -1:
    cdef bint watches
    ensure_pins(core)
    gcp_lock(&core.lock)
    watches = core.unfilled > 0 and not is_closed(core) and add_watcher(core, w, &core.fill_watchers)
    gcp_unlock(&core.lock)
    return watches


cdef list unfilled_endpoints(PoolCore core):
    # (endpoint, connections that it has, its pinned size) of each that has not had its size yet.
    cdef EndpointPool ep
    cdef int has, wanted
    cdef bint unfilled
    found = []
    for ep in endpoint_pools_in_order(core):
        gcp_lock(&ep.lock)
        unfilled = ep.growth is not None and ep.growth.pinned > 0 and not ep.growth.filled
        has = ep.size - ep.counts[CREATING] - ep.counts[CLOSING]
        wanted = ep.growth.pinned if unfilled else 0
        gcp_unlock(&ep.lock)
        if unfilled:
            found.append((ep.endpoint, has, wanted))
    return found


cdef inline int ensure_pins(PoolCore core) except -1:
    # No lock is held. Each function that a forked child may call first calls this.
    if core.pins_epoch != core.fork_epoch:
        enter_pins(core, read_clock(core))
    return 0


cdef int enter_pins(PoolCore core, double now) except -1:
    # In a forked child: pins the endpoints that the parent had pinned. All of them, even if a signal handler raises.
    failure = None
    core.pins_epoch = core.fork_epoch
    for endpoint, size in list(core.pins.items()):
        try:
            pin(core, endpoint, size, now)
        except BaseException as exc:
            failure = exc
    if failure is not None:
        raise failure
    return 0
