# Checks whether the books balance. For tests, at rest: no locks are taken. Each function adds what it finds to the list
# of problems.

cdef int check_invariants_of(PoolCore core, bint one_clock) except -1:
    cdef EndpointPool ep
    cdef Entry e
    cdef int size = 0, closing = 0, checking = 0, wanting = 0, idle = 0
    problems = []
    by_pool = {}
    for e in entries_of_this_process(core):
        if e.state != GONE:
            by_pool.setdefault(id(e.pool), []).append(e)
            check_entry(core, e, one_clock, problems)
        elif not e.closed_while_out:
            problems.append(f'{e!r} is gone and still owned')
    for ep in endpoint_pools(core):
        check_counts(core, ep, by_pool.pop(id(ep), []), problems)
        check_lists(ep, problems)
        size += ep.size
        closing += ep.counts[CLOSING]
        checking += checking_count(ep)
        idle += idle_count(ep)
        check_release_watch(core, ep, problems)
        if ep.waiting and may_connect(core, ep) and has_uncovered_waiters(ep):
            wanting += 1
            if ep.heap_index < 0 or ep.second_index < 0:
                problems.append(f'{ep!r}: somebody waits for a slot and is not known to')
    if by_pool:
        problems.append(f'entries of unknown endpoints: {by_pool}')
    if idle and not core.keeps_idle:
        problems.append('connections are idle in a pool that keeps none')
    if size != core.size or closing != core.closing:
        problems.append(f'sizes {size}, {closing} by endpoint, {core.size}, {core.closing} in all')
    if core.size > core.total_max_size and not core.shrunk:
        problems.append('more than total_max_size connections')
    if wanting and core.size < core.total_max_size and not is_suspended(core):
        problems.append('somebody waits for a slot, and there is one')
    check_relief(core, wanting, idle, problems)
    check_jobs(core, problems)
    if core.checks.pending.count > checking:
        problems.append(f'{checking} are being checked, {core.checks.pending.count} are to be')
    check_heap(&core.deadlines.queue, 'the expiry queue', problems)
    check_heap(&core.deadlines.by_use, 'the order of use', problems)
    check_heap(&core.wanting_slots, 'the queue of endpoints', problems)
    check_heap(&core.unserved, 'the queue of endpoints that were not served', problems)
    if core.unserved.used != core.wanting_slots.used:
        problems.append(f'{core.wanting_slots.used} endpoints want a slot, {core.unserved.used} were not served')
    check_heap(&core.checks.timers, 'the queue of checks', problems)
    if core.check_timers is not None and core.checks.timers.used != len(core.check_timers):
        problems.append(f'{core.checks.timers.used} checks are queued, of {len(core.check_timers)} connections')
    if problems:
        raise AssertionError('; '.join(problems))
    return 0


cdef int check_entry(PoolCore core, Entry e, bint one_clock, list problems) except -1:
    cdef Heap *queue = &core.deadlines.queue
    if e.state != CREATING and find_entry(&core.directory, e.conn_) is not e:
        problems.append(f'{e!r} is not found by its connection')
    if core.deadlines.is_ordered_by_use and (e.heap_index < 0) != (e.second_index < 0):
        problems.append(f'{e!r} is in the expiry queue or in the order of use alone')
    if (
        one_clock
        and is_idle(e)
        and e.second_index >= 0
        and core.deadlines.by_use.items[e.second_index].key > e.used_at
    ):
        problems.append(f'{e!r} stands too late in the order of use')
    if is_idle(e) and e.heap_index < 0:
        problems.append(f'{e!r} is idle and not in the expiry queue')
    if e.heap_index >= 0:
        if e.heap_index >= queue.used or queue.items[e.heap_index].item != <void *>e:
            problems.append(f'{e!r} is not at its place in the expiry queue')
        elif queue.items[e.heap_index].key != e.heap_key:
            problems.append(f'{e!r} has another key in the expiry queue')
        if is_idle(e) and e.heap_key > latest_look_at(core, e):
            problems.append(f'{e!r} is queued later than its deadline')
    return 0


cdef double latest_look_at(PoolCore core, Entry idle) except? -1:
    # The life of an endpoint may end early, when a waiter gives up or a connection in use breaks. Its core connections
    # are then looked at when they would have been: idle_timeout after the last time. Without the test's own clock, that
    # time is unknown.
    cdef double deadline = deadline_of(core, idle, INFINITY)
    if core.min_size == 0 or idle.state != IDLE_CORE:
        return deadline
    if core.clock is None:
        return idle.expires_at
    return max(deadline, min(read_clock(core) + core.idle_timeout, idle.expires_at))


cdef int check_counts(PoolCore core, EndpointPool ep, list entries, list problems) except -1:
    cdef Entry e
    owned = [0] * (CHECKING + 1)
    for e in entries:
        owned[<int>e.state] += 1
    counts = [*[ep.counts[i] for i in range(CHECKING)], checking_count(ep)]
    # Without the tickets: they are not in core.entries, but belong to the waiters that connect.
    if counts[IDLE_CORE:] != owned[IDLE_CORE:]:
        problems.append(f'{ep!r} counts {counts}, owned are {owned}')
    if min(counts) < 0:
        problems.append(f'{ep!r} counts {counts}')
    if ep.size > core.max_size and not core.shrunk:
        problems.append(f'{ep!r} has more than max_size connections')
    if ep.size == 0 and ep.waiting == 0 and not must_be_remembered(core, ep):
        problems.append(f'{ep!r} is empty and not forgotten')
    if ep.waiting and idle_count(ep) and not is_suspended(core):
        problems.append(f'{ep!r}: somebody waits beside an idle connection')
    return 0


cdef int check_release_watch(PoolCore core, EndpointPool ep, list problems) except -1:
    cdef ReleaseWatch *watch = release_watch_of(core, ep)
    cdef void *p = core.watchers.head
    cdef int watchers = 0
    while p != NULL:
        watchers += (<Waiter>p).watched is ep
        p = (<Waiter>p).next
    if watchers != (0 if watch == NULL else watch.watchers):
        problems.append(f'{ep!r}: {watchers} waiters wait for the end of its use, and others are counted')
    if watch != NULL and not 0 < watch.drained + watch.watchers <= begun_count(ep) + watch.watchers:
        problems.append(f'{ep!r}: {watch.drained} drained connections are out, of {begun_count(ep)}')
    if ep.is_watched != (watch != NULL):
        problems.append(f'{ep!r} has a release watch, and says the opposite, or it has none')
    return 0


cdef int check_lists(EndpointPool ep, list problems) except -1:
    cdef void *p
    cdef int core = 0, extra = 0, waiting = 0
    cdef unsigned long long last = 0
    p = ep.core.head
    while p != NULL:
        core += (<Entry>p).state == IDLE_CORE
        p = (<Entry>p).next
    p = ep.extra.head
    while p != NULL:
        extra += (<Entry>p).state == IDLE_EXTRA
        p = (<Entry>p).next
    if core != ep.counts[IDLE_CORE] or extra != ep.counts[IDLE_EXTRA]:
        problems.append(f'{ep!r} lists {core} idle core and {extra} extra connections, and counts others')
    p = ep.queue.head
    while p != NULL:
        waiting += 1
        if (<Waiter>p).number < last or (<Waiter>p).state != QUEUED:
            problems.append(f'{ep!r}: the queue is out of order')
        last = (<Waiter>p).number
        p = (<Waiter>p).next
    if waiting != ep.waiting:
        problems.append(f'{ep!r} counts {ep.waiting} waiters and lists {waiting}')
    return 0


cdef int check_relief(PoolCore core, int wanting, int idle, list problems) except -1:
    cdef Entry e
    cdef int relief = 0
    for e in entries_of_this_process(core):
        relief += e.state == CLOSING and e.mark.relief & IS_RELIEF != 0 and e.epoch.relief >= core.relief.epoch - 1
    if relief != core.relief.current + core.relief.previous:
        problems.append(f'{relief} are relief, {core.relief.current} and {core.relief.previous} are counted')
    if relief < wanting and idle and not is_suspended(core):
        problems.append('somebody waits for a slot beside an idle connection of another endpoint')
    return 0


cdef int check_jobs(PoolCore core, list problems) except -1:
    cdef Entry e
    cdef int kind
    owned = [0] * JOB_KINDS
    for e in entries_of_this_process(core):
        owned[<int>e.job] += 1
    counts = [core.jobs.at_work[kind] for kind in range(JOB_KINDS)]
    # Without the creates: their tickets are not in core.entries.
    if counts[CLOSE_JOB] != owned[CLOSE_JOB] or counts[CHECK_JOB] != owned[CHECK_JOB]:
        problems.append(f'{counts} jobs are counted, {owned} are at work')
    if core.jobs.all_at_work != sum(counts) or min(counts) < 0:
        problems.append(f'{core.jobs.all_at_work} jobs are counted in all, {counts} by kind')
    return 0


cdef int check_heap(Heap *heap, str name, list problems) except -1:
    cdef Py_ssize_t i
    for i in range(heap.used):
        if index_in(heap, heap.items[i].item)[0] != i:
            problems.append(f'a member of {name} does not know its place')
        if i and before(&heap.items[i], &heap.items[(i - 1) >> 1]):
            problems.append(f'{name} is not a heap')
    return 0
