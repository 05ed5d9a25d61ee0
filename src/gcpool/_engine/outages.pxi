# OUTAGES. After a connect has failed, the endpoint is in an outage, until a connect succeeds. Then there is one attempt
# at a time, with pauses in between: 10 ms at first, doubled each time, at most 5 s, and each up to 20 % longer or
# shorter, because many pools may have lost the same server. While acquires wait, a pause is an eighth of that, at least
# 10 ms and at most 100 ms: then they are served soon after the server's return. If the server has reported that it is
# full, the pauses are 50 ms to 1 s, and end when one of the endpoint's connections is closed.
#
# Whether an outage keeps acquires from connecting themselves: see holds_back_acquires(). It always holds back the
# connects up to a minimum.
#
# An error that no server has caused, such as an endpoint that the manager does not know, is hopeless: a waiter gets it
# at once. There is no outage then, unless a minimum must be reached: only that waits for the pauses.

cdef enum:              # Growth.state
    UP
    PAUSING             # until retry_at
    RETRY_DUE           # the next attempt may begin
    TRYING              # it is under way, or a slot is reserved for it

cdef double FIRST_DELAY = 0.010
cdef double MAX_DELAY = 5.0
cdef double MAX_DELAY_WITH_WAITERS = 0.1
cdef double FIRST_DELAY_IF_FULL = 0.050
cdef double MAX_DELAY_IF_FULL = 1.0
cdef double JITTER = 0.2

# Seconds for which an endpoint without connections and waiters is remembered after its next attempt is due. If it were
# forgotten at once, an endpoint that is acquired once per second would begin with the shortest pause each time.
cdef double MEMORY_OF_OUTAGES = 10.0

# What a failure has changed; the facade reports it.
cdef enum:
    BEGAN = 1
    REACHED = 2                 # a waiter got the error: it need not be reported otherwise
    LASTS = 4                   # the outage has lasted for reconnect_timeout
    ASKS_AGAIN = 8              # the acquire continues to wait, and asks once more

OUTAGE_BEGAN = BEGAN
REACHED_WAITER = REACHED
RECONNECT_FAILED = LASTS
MAY_ASK_AGAIN = ASKS_AGAIN


cdef inline bint holds_back_acquires(PoolCore core, Growth g) noexcept:
    # Both locks are held.
    return not g.is_hopeless and (core.reconnect_timeout > 0 or core.fails_fast or g.is_refusal)


cdef inline bint waits_out(PoolCore core, Growth g) noexcept:
    # Both locks are held. Whether a waiter continues to wait after a connect by the pool itself has failed.
    return not g.is_hopeless and (core.reconnect_timeout > 0 or (g.state != UP and g.is_refusal))


cdef inline bint is_tracked(PoolCore core, Growth g) noexcept:
    # Both locks are held. Whether an outage would hold back acquires, or the connects up to a minimum.
    return holds_back_acquires(core, g) or core.min_size > 0 or g.pinned > 0


cdef inline bint is_in_outage(EndpointPool ep) noexcept:
    # ep.lock is held.
    return ep.growth is not None and ep.growth.state != UP


cdef inline bint is_held_off(EndpointPool ep) noexcept:
    # ep.lock is held. Whether connects fail, and it is not time for the next attempt.
    return is_in_outage(ep) and not may_attempt(ep.growth) and not ep.growth.is_refusal


cdef inline bint may_attempt(Growth g) noexcept:
    # ep.lock is held.
    return g.state == UP or g.state == RETRY_DUE


cdef bint growth_allows(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. Whether max_connecting, and an outage, let one more connect begin for a waiter.
    cdef Growth g = ep.growth
    if core.max_connecting and ep.counts[CREATING] >= core.max_connecting:
        return False
    return may_attempt(g) or not holds_back_acquires(core, g)


cdef inline bint may_connect(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. The same, and max_size has room.
    return has_room(core, ep) and (ep.growth is None or growth_allows(core, ep))


cdef double pause_of(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held.
    cdef Growth g = ep.growth
    cdef double pause = g.delay
    if ep.waiting and not g.is_refusal:
        pause = min(max(pause / 8, FIRST_DELAY), MAX_DELAY_WITH_WAITERS)
    return pause


cdef void schedule_retry(PoolCore core, EndpointPool ep, double retry_at) noexcept:
    # Both locks are held. If there is no memory to wait, the next attempt may begin at once.
    cdef Growth g = ep.growth
    g.retry_at = retry_at
    g.state = PAUSING
    rekey_retry(core, g, retry_at)
    if g.heap_index < 0:
        g.state = RETRY_DUE


cdef void rekey_retry(PoolCore core, Growth g, double key) noexcept:
    # core.lock is held.
    if g.heap_index >= 0:
        heap_rekey(&core.retries, <void *>g, key, 0)
    elif heap_make_room(&core.retries, core.retries.used + 1):
        heap_push(&core.retries, <void *>g, key, 0)
    if core.retries.used and core.retries.items[0].item == <void *>g:
        gcp_store_int(&core.must_call_workers, True)    # a worker has to look at the next timer


cdef int note_failure(
    PoolCore core, EndpointPool ep, void *ticket, bint is_refusal, bint is_hopeless, bint by_pool, double jitter,
    double now
) noexcept:
    # Both locks are held. A connect has failed. Failures of connects that began before the outage change nothing,
    # unless the server only now reports that it is full: then acquires are held back that were not before. A long
    # outage is reported after a connect by the pool itself: an acquire has no time to call reconnect_failed.
    cdef Growth g = ep.growth
    cdef int news = 0
    cdef double retry_at
    if is_hopeless and core.min_size == 0 and g.pinned == 0:
        give_up_attempt(core, g, ticket, now)
        return 0
    if g.state == UP and not is_tracked(core, g) and not is_refusal:
        g.failed_at = now
        return 0
    if g.state == UP:
        news = BEGAN
        g.began_at = g.counts_from = now
        g.over_after = -1
        g.told = False
    elif g.state != TRYING or g.attempt != ticket:
        if not is_refusal or g.is_refusal:
            return 0
        if g.state == TRYING:
            g.is_refusal = True
            g.delay = FIRST_DELAY_IF_FULL
            return 0
    if g.state == UP or g.is_refusal != is_refusal:
        g.is_refusal = is_refusal
        g.delay = FIRST_DELAY_IF_FULL if is_refusal else core.first_delay
    else:
        g.delay = min(g.delay * 2, MAX_DELAY_IF_FULL if is_refusal else core.max_delay)
    g.attempt = NULL
    g.is_hopeless = is_hopeless
    g.failed_at = now
    retry_at = now + pause_of(core, ep) * (1 + JITTER * jitter)
    if core.reconnect_timeout > 0 and (core.tells_again or not g.told):
        if now - g.counts_from >= core.reconnect_timeout:
            if by_pool:
                g.told = True
                g.counts_from = now
                news |= LASTS
        if now - g.counts_from < core.reconnect_timeout and (core.tells_again or not g.told):
            retry_at = min(retry_at, max(g.counts_from + core.reconnect_timeout, now + FIRST_DELAY * (1 - JITTER)))
    schedule_retry(core, ep, retry_at)
    return news


cdef void shorten_pause(PoolCore core, EndpointPool ep) noexcept:
    # Both locks are held. A waiter was queued.
    cdef Growth g = ep.growth
    if g.state == PAUSING and g.retry_at > g.failed_at + pause_of(core, ep):
        schedule_retry(core, ep, g.failed_at + pause_of(core, ep))


cdef inline bint end_pause_if_over(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. An acquire asks for a connection. On threads the timers may not have run, if no thread could
    # be started; with fail_fast, no acquire would ever try again. True if the pause has ended with this: the timer is
    # gone, so the caller then calls dispatch(), even if the acquire is lent an idle connection, or max_waiting turns it
    # away.
    if ep.growth.state != PAUSING or ep.growth.retry_at > now:
        return False
    allow_retry(core, ep.growth, now)
    update_wants_slot(core, ep)
    note_short(core, ep, now)
    return True


cdef void begin_attempt(PoolCore core, Growth g, void *ticket) noexcept:
    # Both locks are held. A ticket, or with NULL a slot, is given for a connect. In an outage that is the one attempt.
    if g.state == RETRY_DUE:
        heap_remove(&core.retries, <void *>g)
        g.state = TRYING
        g.attempt = ticket
    elif g.state == TRYING and g.attempt == NULL:
        g.attempt = ticket


cdef void give_up_attempt(PoolCore core, Growth g, void *ticket, double now) noexcept:
    # Both locks are held. A connect was given up, with neither a connection nor an error of its own.
    if g.state == TRYING and g.attempt == ticket:
        g.attempt = NULL
        allow_retry(core, g, now)


cdef void allow_retry(PoolCore core, Growth g, double now) noexcept:
    # Both locks are held.
    g.state = RETRY_DUE
    rekey_retry(core, g, now + max(MEMORY_OF_OUTAGES, 2 * g.delay))


cdef void end_outage(PoolCore core, Growth g, double now) noexcept:
    # Both locks are held. A connect has succeeded.
    if g.state != UP:
        forget_outage(core, g)
        g.over_after = now - g.began_at


cdef inline void forget_outage(PoolCore core, Growth g) noexcept:
    # Both locks are held.
    heap_remove(&core.retries, <void *>g)
    g.state = UP
    g.attempt = NULL
    g.is_refusal = False
    g.is_hopeless = False


cdef void end_refusal(PoolCore core, EndpointPool ep, double now) noexcept:
    # Both locks are held. One of the endpoint's connections was closed: the server may have room for another one.
    if ep.growth is not None and ep.growth.state == PAUSING and ep.growth.is_refusal:
        allow_retry(core, ep.growth, now)


cdef bint note_retries_due(PoolCore core, double now) noexcept:
    # core.lock is held, no other. True if an attempt may begin, so that dispatch() must be called.
    cdef Growth g
    cdef EndpointPool ep
    cdef bint due = False
    while core.retries.used and core.retries.items[0].key <= now:
        g = <Growth>core.retries.items[0].item
        ep = <EndpointPool>g.pool
        gcp_lock(&ep.lock)
        if g.state == PAUSING:
            allow_retry(core, g, now)
            update_wants_slot(core, ep)
            note_short(core, ep, now)
            due = True
        else:               # no acquire has asked for long
            forget_outage(core, g)
            forget_if_empty(core, ep)
        gcp_unlock(&ep.lock)
    return due


cdef object seconds_of_ended_outage(EndpointPool ep):
    # How long the last outage lasted, once; None if none has ended since the last call.
    cdef double seconds = -1
    gcp_lock(&ep.lock)
    if ep.growth is not None:
        seconds = ep.growth.over_after
        ep.growth.over_after = -1
    gcp_unlock(&ep.lock)
    return None if seconds < 0 else seconds


cdef object last_connect_error(PoolCore core, object endpoint, double since):
    # The last error of a connect, if the outage continues, or the error is not older than `since`. None if there is
    # none.
    cdef EndpointPool ep = find_pool(core, endpoint)
    error = None
    if ep is not None:
        gcp_lock(&ep.lock)
        if ep.growth is not None and (ep.growth.state != UP or ep.growth.failed_at >= since):
            error = ep.growth.error
        gcp_unlock(&ep.lock)
    return error


# -- for the drop-ins ----------------------------------------------------------------------------------------------

cdef int set_times(PoolCore core, double max_lifetime, double reconnect_timeout) except -1:
    # Whether acquires wait out an outage does not change: waiters that are queued now rely on it.
    if (reconnect_timeout > 0) != (core.reconnect_timeout > 0):
        raise ValueError('reconnect_timeout: whether it is 0 cannot be changed')
    gcp_lock(&core.lock)
    gcp_store_double(&core.max_lifetime, max_lifetime)
    core.reconnect_timeout = reconnect_timeout
    gcp_unlock(&core.lock)
    return 0


cdef void set_pace(PoolCore core, double first_delay, double max_delay, bint tells_again, int max_fills) noexcept:
    gcp_lock(&core.lock)
    core.first_delay = first_delay
    core.max_delay = max_delay
    core.tells_again = tells_again
    core.max_fills = max_fills
    gcp_unlock(&core.lock)


cdef int retry_now(PoolCore core, object endpoint, double now) except -1:
    # A caller that is not a waiter asks for connections: a pause between two attempts ends.
    cdef EndpointPool ep = find_pool(core, endpoint)
    cdef Chain served = Chain(NULL, NULL, 0)
    if ep is None:
        return 0
    gcp_lock(&core.lock)
    gcp_lock(&ep.lock)
    if not ep.forgotten and ep.growth is not None and ep.growth.state == PAUSING:
        allow_retry(core, ep.growth, now)
        update_wants_slot(core, ep)
        note_short(core, ep, now)
    gcp_unlock(&ep.lock)
    dispatch(core, &core.doomed_for_worker, &served)
    gcp_unlock(&core.lock)
    notify_all(core, &served)
    return 0
