cdef int check_invariants_of(PoolCore core) except -1:
    cdef EndpointPool ep
    cdef Entry e
    cdef void *p
    cdef int total = 0, closing = 0, in_heap = 0, wanting = 0, relief = 0
    cdef Py_ssize_t i
    cdef dict counts
    problems = []
    pools = endpoint_pools(core)
    by_pool = {}
    for e in entries_of_this_process(core):
        if e.state != GONE:
            by_pool.setdefault(id(e.pool), []).append(e)
        elif not e.closed_while_out:
            problems.append(f'{e!r} is gone and still owned')
    for ep in pools:
        counts = dict.fromkeys(range(7), 0)
        for e in by_pool.pop(id(ep), ()):
            counts[e.state] += 1
            if e.state == CLOSING and e.is_relief and e.relief_epoch >= core.relief.epoch - 1:
                relief += 1
            if e.state != CREATING and find_entry(&core.directory, e.conn_) is not e:
                problems.append(f'{e!r} is not found by its connection')
            if is_idle(e) and e.heap_index < 0:
                problems.append(f'{e!r} is idle and not in the expiry queue')
            if e.heap_index >= 0:
                in_heap += 1
                if core.deadlines.queue.items[e.heap_index].item != <void *>e:
                    problems.append(f'{e!r} is not at its place in the expiry queue')
                if core.deadlines.queue.items[e.heap_index].key != e.heap_key:
                    problems.append(f'{e!r} has another key in the expiry queue')
                if is_idle(e) and e.heap_key > deadline_of(core, e):
                    problems.append(f'{e!r} is queued later than its deadline')
        listed = []
        p = ep.core.head
        while p != NULL:
            listed.append(<Entry>p)
            p = (<Entry>p).next
        if len(listed) != ep.counts[IDLE_CORE]:
            problems.append(f'{ep!r} counts {ep.counts[IDLE_CORE]} core connections and lists {len(listed)}')
        p = ep.extra.head
        while p != NULL:
            listed.append(<Entry>p)
            p = (<Entry>p).next
        if len(listed) != idle_count(ep):
            problems.append(f'{ep!r} counts {idle_count(ep)} idle connections and lists {len(listed)}')
        waiting = 0
        last = 0
        p = ep.queue.head
        while p != NULL:
            waiting += 1
            if (<Waiter>p).number <= last or (<Waiter>p).state != QUEUED:
                problems.append(f'{ep!r}: the queue is out of order')
            last = (<Waiter>p).number
            p = (<Waiter>p).next
        if waiting != ep.waiting:
            problems.append(f'{ep!r} counts {ep.waiting} waiters and lists {waiting}')
        # Tickets are owned by whoever connects.
        if [ep.counts[i] for i in range(1, 6)] != [counts[i] for i in range(1, 6)]:
            problems.append(f'{ep!r} counts {[ep.counts[i] for i in range(6)]}, owned {counts}')
        if ep.size != sum([ep.counts[i] for i in range(6)]):
            problems.append(f'{ep!r}: the size is not the sum of its parts')
        if ep.size > core.max_size and not core.shrunk:
            problems.append(f'{ep!r} has more than max_size connections')
        if ep.size == 0 and ep.waiting == 0:
            problems.append(f'{ep!r} is empty and not forgotten')
        if ep.waiting and idle_count(ep):
            problems.append(f'{ep!r}: somebody waits beside an idle connection')
        if ep.waiting and ep.size < core.max_size:
            wanting += 1
            if ep.heap_index < 0:
                problems.append(f'{ep!r}: somebody waits for a slot and is not known to')
        total += ep.size
        closing += ep.counts[CLOSING]
    if by_pool:
        problems.append(f'entries of unknown endpoints: {by_pool}')
    for i in range(1, core.deadlines.queue.used):
        if before(&core.deadlines.queue.items[i], &core.deadlines.queue.items[(i - 1) >> 1]):
            problems.append('the expiry queue is not a heap')
    for i in range(1, core.wanting_slots.used):
        if before(&core.wanting_slots.items[i], &core.wanting_slots.items[(i - 1) >> 1]):
            problems.append('the queue of endpoints is not a heap')
    if in_heap != core.deadlines.queue.used:
        problems.append(f'{core.deadlines.queue.used} in the expiry queue, {in_heap} of them owned')
    if total != core.size or closing != core.closing:
        problems.append(f'sizes {total}, {closing} by endpoint, {core.size}, {core.closing} in all')
    if core.size > core.total_max_size and not core.shrunk:
        problems.append('more than total_max_size connections')
    if wanting and core.size < core.total_max_size:
        problems.append('somebody waits for a slot, and there is one')
    if relief != core.relief.current + core.relief.previous:
        problems.append(f'{relief} are relief, {core.relief.current} and {core.relief.previous} are counted')
    if relief < wanting and any([idle_count(ep) for ep in pools]):
        problems.append('somebody waits for a slot beside an idle connection of another endpoint')
    if problems:
        raise AssertionError('; '.join(problems))
    return 0
