# How many later arrivals, for each connection that there may be, overtake somebody who waits at another endpoint before
# that one is given a connection that they would have been handed.
cdef enum:
    MAX_OVERTAKES = 8


@cython.final
@cython.no_gc_clear
cdef class PoolCore:
    """The state machine. All times are seconds on one monotonic line, all sizes numbers of connections.

    :param min_idle: how many idle connections of an endpoint are core
    :param max_size: how many connections an endpoint may have
    :param total_max_size: how many connections there may be
    :param idle_timeout: seconds after which an unused extra connection is due
    :param max_lifetime: seconds after which any connection is due
    :param collects: whether a background worker closes what is due, so that release leaves that to it
    :param clock: what to read the time from instead of the system's monotonic clock, for tests
    :param wake_collector: called, with no lock held, when something is due earlier than the worker was last told;
        returns False if no worker could be told
    :param normalize: called, with no lock held, for an endpoint that was not seen before; returns what it counts as
    """

    def __cinit__(self):
        self.deadlines.due_at = self.deadlines.wake_at = INFINITY
        gcp_lock(&cores_lock)
        linked_append(&cores, self)
        gcp_unlock(&cores_lock)

    def __init__(
        self,
        int min_idle,
        int max_size,
        int total_max_size,
        double idle_timeout,
        double max_lifetime,
        bint collects=False,
        object clock=None,
        object wake_collector=None,
        object normalize=None,
    ):
        self.min_idle = min_idle
        self.max_size = max_size
        self.total_max_size = total_max_size
        self.idle_timeout = idle_timeout
        self.max_lifetime = max_lifetime
        self.collects = collects
        self.clock = clock
        self.wake_collector = wake_collector
        self.normalize = normalize

    def __dealloc__(self):
        cdef Ancestor *a
        gcp_lock(&cores_lock)
        linked_remove(&cores, self)
        gcp_unlock(&cores_lock)
        directory_free(&self.directory)
        PyMem_Free(self.deadlines.queue.items)
        PyMem_Free(self.wanting_slots.items)
        PyMem_Free(self.ancestor_to_be)
        while self.ancestor != NULL:
            a = self.ancestor
            self.ancestor = a.ancestor
            map_free(&a.connections)
            PyMem_Free(a)

    # -- time -----------------------------------------------------------------------------------------------------

    cdef inline double read_clock(self) except? -1:
        if self.clock is None:
            return gcp_monotonic_coarse()
        return <double>self.clock()

    cpdef double now(self) except? -1:
        """The time in seconds, exact."""
        if self.clock is None:
            return gcp_monotonic()
        return <double>self.clock()

    # -- the hot path ----------------------------------------------------------------------------------------------

    cdef Entry take_idle(self, object endpoint, double now, double interval):
        """An idle connection, core ones first, or None: then :py:meth:`request` knows more.

        None, too, for another spelling of an endpoint that was not seen before: only request() asks the manager.

        :param interval: seconds; None, too, when it was not used within them, or is suspect. 0: never mind.
        """
        cdef EndpointPool ep
        cdef Entry e
        cdef void *p
        cdef Slot *slot = NULL
        if GCP_SHARED_STAMP:
            slot = prefetch_endpoint(&self.directory, endpoint)
        if slot != NULL:
            ep = <EndpointPool>slot.value
        else:
            ep = find_known_pool(self, endpoint)
            if ep is None:
                return None
        gcp_lock(&ep.lock)
        p = next_idle(ep)
        # Where somebody waits nothing is idle, so this overtakes nobody.
        if p == NULL or gcp_load_int(&self.is_closed) or (<Entry>p).expires_at <= now:
            gcp_unlock(&ep.lock)
            return None
        if interval > 0 and must_be_checked(ep, <Entry>p, now, interval):
            gcp_unlock(&ep.lock)
            return None
        e = <Entry>p
        if slot != NULL:
            set_hint(slot, e)
        unlink_idle(ep, e)
        lend(ep, e)
        gcp_unlock(&ep.lock)
        return e

    cdef bint release_fast(self, Entry e, double now) except -1:
        # The hot part of release(): False when nothing is done yet, because that takes the core's lock.
        cdef EndpointPool ep = e.pool
        cdef Waiter w
        cdef void *p
        cdef bint is_core
        if made_before_fork(self, e.fork_epoch):
            return True
        gcp_lock(&ep.lock)
        if not is_out(e):
            gcp_unlock(&ep.lock)
            must_be_out(self, e)
            return True
        if (
            e.expires_at <= now
            or gcp_load_int(&self.is_closed)
            or gcp_load_int(&self.wanting_count)
            or ep.size > gcp_load_int(&self.max_size)
            or gcp_load_int(&self.size) > gcp_load_int(&self.total_max_size)
        ):
            gcp_unlock(&ep.lock)
            return False
        p = ep.queue.head
        if p != NULL:
            if not gcp_try_incref(p):       # to drop the waiter takes the core's lock
                gcp_unlock(&ep.lock)
                return False
            w = <Waiter>p
            Py_DECREF(w)
            hand_over(ep, e, w, now)
            gcp_unlock(&ep.lock)
            w.notify()
            return True
        is_core = becomes_core(self, ep)
        if deadline_if_idle(self, e, is_core, now) < e.heap_key:     # to queue it earlier takes the core's lock
            gcp_unlock(&ep.lock)
            return False
        push_idle(self, ep, e, now, is_core)
        gcp_unlock(&ep.lock)
        return True

    # -- acquiring --------------------------------------------------------------------------------------------------

    def try_acquire(self, object endpoint, double now):
        """An idle connection's entry, or None when none is ready, or the endpoint is spelled as never before. Nothing
        is created, nobody waits."""
        return self.take_idle(endpoint, now, 0)

    cpdef adopt(self, Waiter w, Entry e):
        """Let a waiter hold an entry that :py:meth:`try_acquire` gave."""
        if w is None:
            raise TypeError('expected a Waiter, got None')
        w.core = self
        w.pool = pool_of(e)
        if self.normalize is not None:
            w.endpoint = w.pool.endpoint
        w.entry = e
        w.state = SERVED
        gcp_lock(&self.lock)
        if w.number == 0:
            self.arrivals += 1
            w.number = self.arrivals
        gcp_unlock(&self.lock)

    def request(self, Waiter w not None, double now):
        """Serve a waiter an idle connection or a ticket, or queue it, or refuse it: its properties tell.

        What has to be closed for that, and what the waiter found dead before, is doomed, and left to a worker.

        :return: True when it was queued: it will be notified, once.
        """
        cdef EndpointPool ep
        cdef Entry e
        cdef Entry dead_entry = w.dead_entry
        cdef void *p
        cdef Chain served = Chain(NULL, NULL, 0)
        cdef void *last
        cdef bint queued
        cdef bint late
        if w.state == QUEUED or w.entry is not None:
            raise RuntimeError('the waiter waits already, or holds what it was served')
        if w.spare is None:
            w.spare = Entry()
        while True:
            # created() adds the entry of a new connection to this set, and must not fail at that.
            entries_of_this_process(self)
            ep = find_or_add_pool(self, w.endpoint)
            w.core = self
            w.pool = ep
            if self.normalize is not None:
                w.endpoint = ep.endpoint        # what the manager's other methods are called with
            gcp_lock(&self.lock)
            if self.is_closed:
                w.state = REFUSED
                doom_dead(self, w)
                gcp_lock(&ep.lock)
                forget_if_empty(self, ep)
                gcp_unlock(&ep.lock)
                gcp_unlock(&self.lock)
                return False
            gcp_lock(&ep.lock)
            if not ep.forgotten and self.ancestor_to_be != NULL:    # or an __eq__ has forked, and this is the child
                break
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
        if w.number == 0:
            self.arrivals += 1
            w.number = self.arrivals
        w.state = FRESH
        late = advance_relief(self, now)
        last = self.doomed_for_worker.tail
        # In the region in which the waiter is served or queued: nobody comes between who could get the slot.
        doom_dead(self, w)
        if ep.queue.head == NULL or (<Waiter>ep.queue.head).number > w.number:
            while True:
                p = next_idle(ep)
                if p == NULL:
                    break
                e = <Entry>p
                if e.expires_at <= now:
                    doom_idle(self, ep, e, &self.doomed_for_worker)
                    continue
                unlink_idle(ep, e)
                lend(ep, e)
                serve(w, e)
                break
            if w.state == FRESH and ep.size < self.max_size and self.size < self.total_max_size:
                serve_ticket(self, ep, w)
        if w.state == FRESH and not ep.has_heap_slot:
            # Its last slot may come free at any time, without a request that could still fail.
            if not heap_make_room(&self.wanting_slots, self.wanting_slots.reserved + 1):
                forget_if_empty(self, ep)
                gcp_unlock(&ep.lock)
                gcp_unlock(&self.lock)
                raise MemoryError
            self.wanting_slots.reserved += 1
            ep.has_heap_slot = True
        queued = w.state == FRESH
        if queued:
            w.queued_at = now
            enqueue(self, ep, w)
            update_wants_slot(self, ep)
        # The slots that this acquire frees itself.
        p = self.doomed_for_worker.head if last == NULL else (<Entry>last).next
        while p != NULL:
            count_as_relief(self, p)
            p = (<Entry>p).next
        gcp_unlock(&ep.lock)
        if self.wanting_count and (queued or late):
            dispatch(self, &self.doomed_for_worker, &served)
        gcp_unlock(&self.lock)
        notify_all(&served)
        return queued

    def created(self, Entry ticket not None, object conn, double now):
        """Turn a ticket into an acquired connection.

        :return: False when the pool was closed meanwhile: the connection is among the doomed.
        :raises ValueError: when the pool holds that connection already; the ticket is as it was
        :raises RuntimeError: in a process that was forked meanwhile; the connection is the parent's
        """
        cdef EndpointPool ep = pool_of(ticket)
        cdef bint served
        cdef int outcome
        if made_before_fork(self, ticket.fork_epoch):
            Py_INCREF(conn)     # no finalizer may end the parent's session
            raise RuntimeError(f'the process was forked while a connection to {ep.endpoint!r} was created')
        ticket.conn_ = conn             # from here on cancel() has it disposed of
        try:
            self.entries.add(ticket)    # of this process: request() has called entries_of_this_process()
        except MemoryError:
            Py_INCREF(ticket)           # nobody else owns it until then
            raise
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        gcp_assert(ticket.state == CREATING)
        outcome = add_connection(&self.directory, ticket)
        if outcome == NO_MEMORY:
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            raise MemoryError
        if outcome == KNOWN_ALREADY:
            ticket.conn_ = NOTHING      # the caller holds it, and it is somebody else's
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            self.entries.discard(ticket)
            raise ValueError(
                f'create() for endpoint {ep.endpoint!r} returned {conn!r}, which the pool holds already: '
                'expected a new connection'
            )
        self.counters.created += 1
        ticket.used_at = now
        ticket.expires_at = min(now + self.max_lifetime, NEVER)
        served = not self.is_closed
        if served:
            lend(ep, ticket)
        else:
            doom(self, ep, ticket, &self.doomed_for_worker)
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        return served

    def failed(self, Waiter w not None, double now):
        """Give a ticket back: there is no connection. Its slot goes to whoever waits for one."""
        cdef Entry e = w.served
        w.entry = None
        w.state = CANCELLED
        give_back_ticket(self, e, now)

    # -- aliveness --------------------------------------------------------------------------------------------------
    # What a check finds out about one connection says something about the endpoint's others: when one turns out to be
    # dead, all that were not looked at since are suspect.

    cpdef bint needs_check(self, Waiter w, double now, double interval):
        """Whether the connection that a waiter was served has to be checked before it is used.

        :param interval: seconds within which a connection that was used is taken to be alive, unless it is suspect
        """
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        cdef bint needed
        if made_before_fork(self, w.entry.fork_epoch):
            return False
        gcp_lock(&ep.lock)
        needed = must_be_checked(ep, w.entry, now, interval)
        gcp_unlock(&ep.lock)
        return needed

    cpdef begin_check(self, Waiter w):
        """The connection that a waiter was served is about to be checked. If :py:meth:`end_check` does not come, it is
        checked again."""
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        if made_before_fork(self, w.entry.fork_epoch):
            return
        gcp_lock(&ep.lock)
        w.distrust_at_check = ep.distrust_count
        w.entry.check_pending = True
        gcp_unlock(&ep.lock)

    cpdef end_check(self, Waiter w):
        """The connection that a waiter was served was alive. If another one was found dead meanwhile, it is suspect
        again: it may have been asked before the server went."""
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        if made_before_fork(self, w.entry.fork_epoch):
            return
        gcp_lock(&ep.lock)
        w.entry.verified_at = w.distrust_at_check
        w.entry.check_pending = False
        gcp_unlock(&ep.lock)

    cpdef mark_unchecked(self, Entry e):
        """What the manager was doing with a connection was cut off, or left out: it is checked before it is served."""
        cdef EndpointPool ep = pool_of(e)
        if made_before_fork(self, e.fork_epoch):
            return
        gcp_lock(&ep.lock)
        e.check_pending = True
        gcp_unlock(&ep.lock)

    cpdef bint is_out(self, Entry e):
        """Whether a connection that is being released still is: not if the pool was closed over it, or after a fork."""
        cdef EndpointPool ep = pool_of(e)
        cdef bint out
        if made_before_fork(self, e.fork_epoch):
            return False
        gcp_lock(&ep.lock)
        out = is_out(e)
        gcp_unlock(&ep.lock)
        return out

    cpdef bint retire(self, Entry e, double now) except -1:
        """Take a connection that is out, and unfit, out of use for good.

        :raises ConnectionNotAcquired: when it is not out
        :return: whether the caller is to dispose of it, and then call :py:meth:`disposed` (not if the pool was closed
            over it, or a fork lies between)
        """
        return retire_entry(self, e, now, False)

    cpdef bint retire_to_doomed(self, Entry e, double now) except -1:
        """The same, and it is among the doomed at once: the next release disposes of it, if the caller does not.

        :raises ConnectionNotAcquired: when it is not out
        :return: whether it is
        """
        return retire_entry(self, e, now, True)

    def distrust_endpoint(self, Entry e not None):
        """A connection turned out to be broken in its user's hands: whatever was not looked at since is suspect.

        Not if it was closed while it was out: that is what broke it.
        """
        cdef EndpointPool ep = pool_of(e)
        if made_before_fork(self, e.fork_epoch):
            return
        gcp_lock(&ep.lock)
        if is_out(e):
            ep.distrust_count += 1
        gcp_unlock(&ep.lock)

    def reject_dead(self, Waiter w not None):
        """What the waiter was served is dead (:py:attr:`Waiter.dead_entry`). When the waiter asks again, or is cancelled,
        it is doomed, and not before, so that nobody comes between. Nothing is dead when the pool was closed over it
        during the check."""
        cdef Entry e = w.entry
        cdef EndpointPool ep = pool_of(e)
        cdef bint held
        if made_before_fork(self, e.fork_epoch):
            w.entry = None
            w.state = FRESH
            return
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        held = e.state == ACQUIRED
        if held:
            begin_closing(self, ep, e)
            ep.acquires -= 1
            self.counters.dead += 1
            ep.distrust_count += 1
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        if held:
            w.dead_entry = e
        else:
            forget_closed_while_out(self, e)
        w.entry = None
        w.state = FRESH

    cpdef bint still_holds(self, Waiter w):
        """Whether a waiter still holds what it was served: not if the pool was closed over it in a check or a hook."""
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        cdef bint held
        gcp_lock(&ep.lock)
        held = w.entry.state == ACQUIRED
        gcp_unlock(&ep.lock)
        return held

    cpdef bint cancel(self, Waiter w, double now) except -1:
        """Take a waiter out of the queue; what it was served already goes to the next one, or back.

        :return: True when it was still waiting, so that it will not be notified.
        """
        cdef EndpointPool ep
        cdef Entry e
        cdef Entry dead_entry
        cdef Chain served = Chain(NULL, NULL, 0)
        cdef int state
        cdef bint waited = False
        cdef bint late
        if w is None:
            raise TypeError('expected a Waiter, got None')
        ep = w.pool
        dead_entry = w.dead_entry
        if ep is not None and made_before_fork(self, ep.fork_epoch):
            # The process was forked meanwhile. What it waited for, or holds, is the parent's.
            w.dead_entry = None
            w.entry = None
            w.state = CANCELLED
            return True
        if ep is None:
            w.state = CANCELLED
            return False
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        waited = dequeue(self, ep, <void *>w)
        gcp_unlock(&ep.lock)
        if dead_entry is not None:
            late = advance_relief(self, now)
            doom_dead(self, w)
            count_as_relief(self, <void *>dead_entry)
            if late:
                dispatch(self, &self.doomed_for_worker, &served)
        gcp_unlock(&self.lock)
        e = w.entry
        w.entry = None
        w.state = CANCELLED
        notify_all(&served)
        if e is None:
            return waited
        state = gcp_load_char(&e.state)
        if state == CREATING:
            give_back_ticket(self, e, now)
        elif state == ACQUIRED or gcp_load_char(&e.closed_while_out):
            self.mark_unchecked(e)      # its check, or what comes after it, did not come to its end
            self.release_locked(e, now, &self.doomed_for_worker)
        return waited

    def give_up(self, Waiter w not None):
        """A waiter's time is over: take it out of the queue unless it was served or refused in this very moment.

        :return: True when it is out; False when it will be, or has been, notified.
        """
        cdef EndpointPool ep = w.pool
        cdef bint waited
        if ep is None:
            return False
        if made_before_fork(self, ep.fork_epoch):
            return True
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        waited = dequeue(self, ep, <void *>w)
        if waited:
            self.counters.timeouts += 1
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        return waited

    # -- releasing --------------------------------------------------------------------------------------------------

    cdef inline Entry find_acquired_by_identity(self, object conn, object endpoint):
        # The entry of a connection that is acquired, where that can be told without an error and without user code
        # (__eq__ of another endpoint object); else None.
        cdef Entry e = find_entry(&self.directory, conn)
        if e is None or gcp_load_char(&e.state) != ACQUIRED:
            return None
        if e.pool.endpoint is not endpoint and find_by_identity(&self.directory, endpoint) is not e.pool:
            return None
        return e

    cdef Entry entry_to_release(self, object conn, object endpoint):
        """The entry of a connection that is to be given back, or None when there is nothing to do (it was out when the
        pool was closed over it, or belongs to the parent process)."""
        cdef Entry e = find_entry(&self.directory, conn)
        cdef EndpointPool ep
        if e is None:
            if is_inherited(self, conn):
                return None
            raise ConnectionNotAcquired(
                f'the connection {conn!r} is not of this pool (or it is closed): '
                f'expected one that acquire({endpoint!r}) gave'
            )
        ep = e.pool
        if ep.endpoint is not endpoint and not pool_is_for(self, ep, endpoint):
            raise ConnectionNotAcquired(
                f'the connection {conn!r} belongs to endpoint {ep.endpoint!r}, it was given back to {endpoint!r}'
            )
        if gcp_load_char(&e.closed_while_out):
            forget_closed_while_out(self, e)
            return None
        return e

    def find_acquired(self, object conn, object endpoint):
        """The entry of a connection that is out.

        :raises ConnectionNotAcquired: when it is not, or not of that endpoint
        """
        cdef Entry e = self.entry_to_release(conn, endpoint)
        if e is not None and gcp_load_char(&e.state) != ACQUIRED:
            must_be_out(self, e)
            return None
        return e

    def entry_if_acquired(self, object conn, object endpoint):
        """The same, or None when it is not out, or another endpoint's. It changes nothing."""
        cdef Entry e = find_entry(&self.directory, conn)
        if e is None or gcp_load_char(&e.state) != ACQUIRED:
            return None
        return e if pool_is_for(self, e.pool, endpoint) else None

    cpdef bint begin_release(self, Entry e) except -1:
        """Mark a connection whose ``on_release`` hook is about to run, so that it cannot be given back once more.

        :raises ConnectionNotAcquired: when it is not acquired
        :return: False when there is nothing to release any more (the pool was closed over it, or a fork lies between)
        """
        cdef EndpointPool ep = pool_of(e)
        cdef bint acquired
        if made_before_fork(self, e.fork_epoch):
            return False
        gcp_lock(&ep.lock)
        acquired = e.state == ACQUIRED
        if acquired:
            move(ep, e, ACQUIRED, RELEASING)
        gcp_unlock(&ep.lock)
        if not acquired:
            must_be_out(self, e)
        return acquired

    cpdef release(self, Entry e, double now):
        """Give a connection back: to the first waiter, or to the idle ones, or to the doomed.

        :raises ConnectionNotAcquired: when it is not out; nothing is changed then
        """
        pool_of(e)
        if not self.release_fast(e, now):
            self.release_locked(e, now, &self.doomed_for_caller)

    cdef int release_locked(self, Entry e, double now, Chain *doomed) except -1:
        # What release_fast() leaves, under the core's lock.
        cdef EndpointPool ep = e.pool
        cdef EndpointPool elder
        cdef Waiter w = None
        cdef void *first
        cdef Chain served = Chain(NULL, NULL, 0)
        cdef bint wake = False
        cdef bint close = False
        cdef bint is_relief = True
        cdef bint relief_missing
        cdef bint hand = False
        cdef bint late
        cdef long long head, overtaken
        gcp_lock(&self.lock)
        if not heap_make_room(&self.deadlines.queue, self.deadlines.queue.used + 1):
            close = True        # it cannot be queued for expiry, so it cannot be idle
        gcp_lock(&ep.lock)
        if not is_out(e):
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            return must_be_out(self, e)
        first = first_waiter(self, ep)
        late = advance_relief(self, now)
        relief_missing = missing_relief(self) > 0
        if (
            self.is_closed
            or ep.size - ep.counts[CLOSING] > self.max_size    # those that are being closed will be gone
            or self.size - self.closing > self.total_max_size
        ):
            close = True
            is_relief = False   # its slot is one too many
        elif e.expires_at <= now:
            # With a collector releases dispose of nothing, unless somebody waits for the slot.
            if not self.collects or ep.queue.head != NULL or self.wanting_slots.used:
                close = True
        elif ep.queue.head != NULL:
            hand = True
            if relief_missing:
                # An endpoint that has no connection of its own would wait for ever on one that is always busy: there
                # whoever came first goes first, at the price of a new connection. One that has some is expected to
                # serve itself, but not for ever either: they may be out for long.
                elder = <EndpointPool>self.wanting_slots.items[0].item
                head = <long long>(<Waiter>ep.queue.head).number
                overtaken = head - <long long>self.wanting_slots.items[0].stamp
                if overtaken > (0 if elder.size == 0 else <long long>MAX_OVERTAKES * self.total_max_size):
                    hand = False
                    close = True
        elif relief_missing:
            close = True
        if close:
            doom(self, ep, e, doomed)
            if is_relief:
                count_as_relief(self, <void *>e)
        elif hand:
            w = <Waiter>first
            hand_over(ep, e, w, now)
            update_wants_slot(self, ep)
            chain_append(&served, w)
        else:
            push_idle(self, ep, e, now, becomes_core(self, ep))
            wake = schedule_locked(&self.deadlines, e, deadline_of(self, e))
        gcp_unlock(&ep.lock)
        if self.wanting_slots.used and (late or not (close or hand)):
            dispatch(self, doomed, &served)
        gcp_unlock(&self.lock)
        if first != NULL and w is None:
            Py_DECREF(<Waiter>first)
        try:
            notify_all(&served)
        finally:
            if wake and self.wake_collector is not None:
                call_collector(self)
        return 0

    # -- closing connections ----------------------------------------------------------------------------------------

    @property
    def doomed(self):
        """How many connections are to be closed now, by whoever."""
        return gcp_load_int(&self.doomed_for_caller.count) + gcp_load_int(&self.doomed_for_worker.count)

    @property
    def left_to_workers(self):
        """How many of them a worker is to close."""
        return gcp_load_int(&self.doomed_for_worker.count)

    cpdef Entry take_doomed(self):
        """The next entry to be closed, by whoever, or None. Its taker disposes of it, and then calls
        :py:meth:`disposed`."""
        cdef Entry e = take_from(self, &self.doomed_for_caller)
        return take_from(self, &self.doomed_for_worker) if e is None else e

    cpdef Entry take_doomed_for_caller(self):
        """The same, of those that releases, close() and resize() have doomed."""
        return take_from(self, &self.doomed_for_caller)

    cpdef Entry take_doomed_for_worker(self):
        """The same, of those that acquires and the collector have doomed."""
        return take_from(self, &self.doomed_for_worker)

    def doom_again(self, Entry e not None):
        """Put back what :py:meth:`take_doomed` gave: its dispose was not begun, and its taker cannot do it."""
        pool_of(e)
        if made_before_fork(self, e.fork_epoch):
            return
        gcp_lock(&self.lock)
        gcp_assert(e.state == CLOSING)
        chain_append(&self.doomed_for_worker, e)
        gcp_unlock(&self.lock)

    cpdef disposed(self, Entry e, double now, bint by_worker=False):
        """The dispose of a connection has ended, one way or the other: its slot is free.

        :param by_worker: whether a worker closes what is doomed at that, for the next one who waits
        """
        cdef EndpointPool ep = pool_of(e)
        cdef Chain served = Chain(NULL, NULL, 0)
        cdef bint keep
        if made_before_fork(self, e.fork_epoch):
            return
        gcp_lock(&self.lock)
        advance_relief(self, now)
        gcp_lock(&ep.lock)
        gcp_assert(e.state == CLOSING)
        if e.is_relief:
            e.is_relief = False
            if e.relief_epoch == self.relief.epoch:
                self.relief.current -= 1
            elif e.relief_epoch == self.relief.epoch - 1:
                self.relief.previous -= 1
        keep = e.closed_while_out
        unschedule_locked(&self.deadlines, e)
        free_slot(self, ep, e)
        self.counters.disposed += 1
        if not keep:
            forget_connection(&self.directory, e)
        gcp_unlock(&ep.lock)
        after_slot_freed(self, ep, e, doomed_of(self, by_worker), &served)
        gcp_unlock(&self.lock)
        if not keep:
            self.entries.discard(e)
        notify_all(&served)

    cpdef int expired(self, double now, int limit, bint for_worker=False) except -1:
        """Put the idle connections that are due among the doomed, in the order of their deadlines.

        :param limit: how many at most; 0 for ``int(log2(size + 1)) + 1`` (generic-connection-pool)
        :param for_worker: whether a worker is to close them
        :return: how many
        """
        cdef Chain *doomed = doomed_of(self, for_worker)
        cdef int found = 0
        cdef int size
        cdef void *p
        cdef Chain served = Chain(NULL, NULL, 0)
        cdef bint late
        gcp_lock(&self.lock)
        late = advance_relief(self, now)
        if limit <= 0:
            limit = 1
            size = self.size + 1
            while size > 1:
                size >>= 1
                limit += 1
        while found < limit:
            p = evict(self, now, doomed)
            if p == NULL:
                break
            count_as_relief(self, p)
            found += 1
        if late:
            dispatch(self, doomed, &served)
        gcp_unlock(&self.lock)
        notify_all(&served)
        return found

    def next_due(self):
        """When the next idle connection will be due, or None if none ever will: the collector may sleep till then."""
        cdef double due
        cdef void *p
        cdef EndpointPool ep
        gcp_lock(&self.lock)
        p = first_due_locked(self, INFINITY)
        if p != NULL:
            ep = (<Entry>p).pool
            gcp_unlock(&ep.lock)
        set_due_locked(&self.deadlines)
        due = self.deadlines.due_at
        self.deadlines.wake_at = due
        gcp_unlock(&self.lock)
        return None if due >= NEVER else due

    # -- the pool's end, and changes of its limits --------------------------------------------------------------------

    def close(self):
        """Refuse all that comes, refuse those who wait, doom what is idle. What is out is closed when it comes back."""
        cdef EndpointPool ep
        cdef Waiter w
        cdef void *p
        cdef Chain refused = Chain(NULL, NULL, 0)
        failure = None
        gcp_lock(&self.lock)
        gcp_store_int(&self.is_closed, 1)
        gcp_unlock(&self.lock)
        # Endpoint pools that appear from here on are empty: request() refuses.
        for ep in endpoint_pools(self):
            gcp_lock(&self.lock)
            gcp_lock(&ep.lock)
            while True:
                p = first_waiter(self, ep)
                if p == NULL:
                    break
                w = <Waiter>p
                waiter_unlink(ep, p)
                w.state = REFUSED
                chain_append(&refused, w)
            update_wants_slot(self, ep)
            while True:
                p = oldest_idle(&ep.core, &ep.extra)
                if p == NULL:
                    break
                doom_idle(self, ep, <Entry>p, &self.doomed_for_caller)
            forget_if_empty(self, ep)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            try:
                notify_all(&refused)
            except BaseException as exc:    # the other endpoints' waiters must not wait on
                if failure is None:
                    failure = exc
            w = None        # it may go with that, and not under the lock
        if failure is not None:
            raise failure

    def watch_empty(self, Waiter w not None):
        """Have a waiter notified when the pool has no connection left.

        :return: False when that is so already
        """
        cdef bint watches
        gcp_lock(&self.lock)
        watches = self.size > 0 and add_watcher(self, w)
        gcp_unlock(&self.lock)
        return watches

    def watch_gone(self, Waiter w not None, Entry e not None):
        """Have a waiter notified when a connection is closed.

        :return: False when that is so already, or in a forked child, where nobody closes it
        """
        cdef bint watches
        pool_of(e)
        w.entry = e
        gcp_lock(&self.lock)
        watches = not made_before_fork(self, e.fork_epoch) and gcp_load_char(&e.state) != GONE and add_watcher(self, w)
        gcp_unlock(&self.lock)
        return watches

    def unwatch(self, Waiter w not None):
        """Do not notify a waiter of what it watches any more.

        :return: True when it was still waiting, so that it will not be notified
        """
        cdef bint found
        gcp_lock(&self.lock)
        found = chain_remove(&self.watchers, w)
        if found:
            w.state = CANCELLED
        gcp_unlock(&self.lock)
        if found:
            Py_DECREF(w)
        return found

    def doom_acquired(self):
        """Doom every connection that is out, the oldest first; its release will do nothing.

        :return: how many
        """
        cdef Entry e
        cdef EndpointPool ep
        cdef int count = 0
        # The set alone has them in the order of their addresses, which differs from run to run.
        for e in sorted(entries_of_this_process(self), key=lambda x: (<Entry>x).expires_at):
            ep = e.pool
            gcp_lock(&self.lock)
            gcp_lock(&ep.lock)
            if is_out(e):
                gcp_store_char(&e.closed_while_out, True)
                doom(self, ep, e, &self.doomed_for_caller)
                count += 1
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
        return count

    def resize(self, double now, *, min_idle=None, max_size=None, total_max_size=None):
        """Change the limits. Room that appears goes to those who wait; what is idle beyond a lower limit is doomed,
        what is out beyond it is closed when it comes back."""
        cdef EndpointPool ep
        cdef Chain served = Chain(NULL, NULL, 0)
        cdef void *p
        cdef int min_idle_ = -1 if min_idle is None else min_idle
        cdef int max_size_ = -1 if max_size is None else max_size
        cdef int total_ = -1 if total_max_size is None else total_max_size
        gcp_lock(&self.lock)
        if min_idle_ < 0:
            min_idle_ = self.min_idle
        if max_size_ < 0:
            max_size_ = self.max_size
        if total_ < 0:
            total_ = self.total_max_size
        self.shrunk = self.shrunk or max_size_ < self.max_size or total_ < self.total_max_size
        gcp_store_int(&self.min_idle, min_idle_)
        gcp_store_int(&self.max_size, max_size_)
        gcp_store_int(&self.total_max_size, total_)
        gcp_unlock(&self.lock)
        for ep in endpoint_pools(self):
            gcp_lock(&self.lock)
            gcp_lock(&ep.lock)
            while ep.size - ep.counts[CLOSING] > self.max_size:
                p = oldest_idle(&ep.extra, &ep.core)
                if p == NULL:
                    break
                doom_idle(self, ep, <Entry>p, &self.doomed_for_caller)
            if not ep.forgotten:
                update_wants_slot(self, ep)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
        gcp_lock(&self.lock)
        advance_relief(self, now)
        while (
            self.size - self.closing > self.total_max_size
            and evict(self, INFINITY, &self.doomed_for_caller) != NULL
        ):
            pass
        dispatch(self, &self.doomed_for_caller, &served)
        gcp_unlock(&self.lock)
        notify_all(&served)

    # -- looking --------------------------------------------------------------------------------------------------

    @property
    def size(self):
        """How many connections there are."""
        return gcp_load_int(&self.size)

    @property
    def min_idle(self):
        """How many idle connections of an endpoint are core."""
        return gcp_load_int(&self.min_idle)

    @property
    def max_size(self):
        """How many connections an endpoint may have."""
        return gcp_load_int(&self.max_size)

    @property
    def total_max_size(self):
        """How many connections there may be."""
        return gcp_load_int(&self.total_max_size)

    @property
    def closed(self):
        """Whether :py:meth:`close` was called."""
        return bool(gcp_load_int(&self.is_closed))

    @property
    def acquired(self):
        """How many connections are out."""
        return self.stats()['acquired']

    def endpoint_size(self, object endpoint, object acquired=None):
        """How many connections an endpoint has: all (None), out (True), idle (False); 0 for an unknown endpoint."""
        cdef EndpointPool ep = find_pool(self, endpoint)
        cdef int result
        if ep is None:
            hash_of(endpoint)       # an empty pool has not looked whether it is an endpoint at all
            return 0
        gcp_lock(&ep.lock)
        if acquired is None:
            result = ep.size
        elif acquired:
            result = out_count(ep)
        else:
            result = idle_count(ep)
        gcp_unlock(&ep.lock)
        return result

    def stats(self):
        """Gauges and counters of the whole pool, as a dict of ints."""
        return gauges_and_counters(self)

    def check_invariants(self):
        """Walk through everything and raise AssertionError where the books do not balance. For tests, at rest."""
        check_invariants_of(self)
