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
        global cores
        self.expiry = IndexedHeap()
        self.wanting_slots = IndexedHeap()
        self.due_at = INFINITY
        self.wake_at = INFINITY
        gcp_lock(&cores_lock)
        self.following = cores
        if cores != NULL:
            (<PoolCore>cores).previous = <void *>self
        cores = <void *>self
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
        global cores
        cdef Ancestor *a
        gcp_lock(&cores_lock)
        if self.previous != NULL:
            (<PoolCore>self.previous).following = self.following
        else:
            cores = self.following
        if self.following != NULL:
            (<PoolCore>self.following).previous = self.previous
        gcp_unlock(&cores_lock)
        map_free(&self.by_identity)
        map_free(&self.by_hash)
        map_free(&self.by_spelling)
        map_free(&self.by_connection)
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
            # With the GIL nobody moves the tables meanwhile. Among many endpoints a cycle is a walk from one cache miss
            # to the next: ask for all of it at once.
            slot = table_find_slot(&self.by_identity.tables[0], <size_t><void *>endpoint)
        if slot != NULL:
            gcp_prefetch(<char *>slot.value + 64)
            gcp_prefetch(slot.hint)
            gcp_prefetch(<char *>slot.hint + 64)
            gcp_prefetch(slot.hint_conn)
            table_prefetch(&self.by_connection.tables[0], <size_t>slot.hint_conn)
            ep = <EndpointPool>slot.value
        else:
            ep = find_known_pool(self, endpoint)
            if ep is None:
                return None
        gcp_lock(&ep.lock)
        p = ep.core_head
        if p == NULL:
            p = ep.extra_tail
        # Where somebody waits nothing is idle, so this overtakes nobody.
        if p == NULL or gcp_load_int(&self.is_closed) or (<Entry>p).expires_at <= now:
            gcp_unlock(&ep.lock)
            return None
        if interval > 0 and (
            (<Entry>p).check_pending
            or now - (<Entry>p).used_at >= interval
            or (<Entry>p).verified_at != ep.distrust_count
        ):
            gcp_unlock(&ep.lock)
            return None
        e = <Entry>p
        if slot != NULL and slot.hint != p:
            slot.hint = p
            slot.hint_conn = <void *>e.conn_
        idle_unlink(ep, p)
        gcp_store_char(&e.state, ACQUIRED)
        ep.acquired += 1
        count_acquired(ep, e)
        gcp_unlock(&ep.lock)
        return e

    cdef bint release_fast(self, Entry e, double now, unsigned int lease_no) except -1:
        # The hot part of release(): False when nothing is done yet, because that takes the core's lock.
        # The lease number says which acquire it ends, so that it cannot end another user's (ANY_LEASE: unknown).
        cdef EndpointPool ep = e.pool
        cdef Waiter w
        cdef void *p
        cdef double deadline
        cdef bint closed, is_core
        if e.fork_epoch != self.fork_epoch:
            return True
        gcp_lock(&ep.lock)
        if not is_leased(e, lease_no):
            closed = gcp_load_char(&e.closed_while_out) and is_lease_of(e, lease_no)
            gcp_unlock(&ep.lock)
            if closed:
                forget_closed_while_out(self, e)
                return True
            refuse_release(e, lease_no)
        if (
            e.expires_at <= now
            or gcp_load_int(&self.is_closed)
            or gcp_load_int(&self.wanting_count)
            or ep.size > gcp_load_int(&self.max_size)
            or gcp_load_int(&self.size) > gcp_load_int(&self.total_max_size)
        ):
            gcp_unlock(&ep.lock)
            return False
        if ep.waiter_head != NULL:
            p = first_free(ep)
            if not gcp_try_incref(p):       # to drop the waiter takes the core's lock
                gcp_unlock(&ep.lock)
                return False
            w = <Waiter>p
            Py_DECREF(w)
            waiter_unlink(ep, p)
            gcp_store_char(&e.state, ACQUIRED)
            e.used_at = now
            count_acquired(ep, e)
            w.entry = e
            w.state = SERVED
            gcp_unlock(&ep.lock)
            w.notify()
            return True
        is_core = ep.acquired - 1 < gcp_load_int(&self.min_idle) - ep.core_idle
        deadline = e.expires_at
        if not is_core and now + self.idle_timeout < deadline:
            deadline = now + self.idle_timeout
        if deadline < e.heap_key:       # it has to be queued earlier than it is: that takes the core's lock
            gcp_unlock(&ep.lock)
            return False
        keep_idle(self, ep, e, now, is_core)
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

        A connection that has to be closed first is put among the doomed: dispose of those, then wait.

        :return: True when it was queued: it will be notified, once.
        """
        cdef EndpointPool ep
        cdef Entry e
        cdef void *p
        cdef void *chain = NULL
        cdef void *tail
        cdef bint queued = False
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
        tail = self.doomed_tail
        if ep.waiter_head == NULL or (<Waiter>ep.waiter_head).number > w.number:
            while True:
                p = ep.core_head
                if p == NULL:
                    p = ep.extra_tail
                if p == NULL:
                    break
                e = <Entry>p
                idle_unlink(ep, p)
                if e.expires_at <= now:
                    doom(self, ep, e)
                    continue
                gcp_store_char(&e.state, ACQUIRED)
                ep.acquired += 1
                count_acquired(ep, e)
                w.entry = e
                w.state = SERVED
                break
            if w.state == FRESH and ep.size < self.max_size and self.size < self.total_max_size:
                serve_ticket(self, ep, w)
        if w.state == FRESH and not ep.has_heap_slot:
            # Its last slot may come free at any time, without a request that could still fail.
            if not self.wanting_slots.make_room(self.wanting_slots.reserved + 1):
                forget_if_empty(self, ep)
                own(self, w, tail)
                gcp_unlock(&ep.lock)
                gcp_unlock(&self.lock)
                raise MemoryError
            self.wanting_slots.reserved += 1
            ep.has_heap_slot = True
        if w.state == FRESH:
            queued = True
            w.queued_at = now
            enqueue(self, ep, w)
            update_wants_slot(self, ep)
            advance_relief(self, now)
            # Slots that this acquire frees itself.
            if w.dead_entry is not None:
                count_as_relief(self, <void *>w.dead_entry)
            p = self.doomed_head if tail == NULL else (<Entry>tail).next
            while p != NULL:
                count_as_relief(self, p)
                p = (<Entry>p).next
        gcp_unlock(&ep.lock)
        if queued and self.wanting_count:
            chain = dispatch(self)
        own(self, w, tail)
        gcp_unlock(&self.lock)
        notify_all(chain)
        return queued

    def created(self, Entry ticket not None, object conn, double now, Waiter w=None):
        """Turn a ticket into an acquired connection.

        :param w: who keeps the connection if it is doomed
        :return: False when the pool was closed meanwhile: the connection is among the doomed.
        :raises ValueError: when the pool holds that connection already; the ticket is as it was
        :raises RuntimeError: in a process that was forked meanwhile; the connection is the parent's
        """
        cdef EndpointPool ep = pool_of(ticket)
        cdef void *tail
        cdef bint served
        cdef size_t s = shard_of(<size_t><void *>conn)
        cdef int failed = 0
        cdef bint known
        if ticket.fork_epoch != self.fork_epoch:
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
        gcp_lock(&self.by_connection.locks[s])
        known = table_find(&self.by_connection.tables[s], <size_t><void *>conn) != NULL
        if not known:
            failed = table_insert(&self.by_connection.tables[s], <size_t><void *>conn, <void *>ticket)
        gcp_unlock(&self.by_connection.locks[s])
        if failed:
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            raise MemoryError
        if known:
            ticket.conn_ = NOTHING      # the caller holds it, and it is somebody else's
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            self.entries.discard(ticket)
            raise ValueError(
                f'create() for endpoint {ep.endpoint!r} returned {conn!r}, which the pool holds already: '
                'expected a new connection'
            )
        self.created_ += 1
        ticket.used_at = now
        ticket.expires_at = min(now + self.max_lifetime, NEVER)
        ep.creating -= 1
        served = not self.is_closed
        if served:
            gcp_store_char(&ticket.state, ACQUIRED)
            ep.acquired += 1
            count_acquired(ep, ticket)
        else:
            tail = self.doomed_tail
            doom(self, ep, ticket)
            own(self, w, tail)
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        return served

    def failed(self, Waiter w not None):
        """Give a ticket back: there is no connection. Its slot goes to whoever waits for one."""
        cdef Entry e = w.served
        w.entry = None
        w.state = CANCELLED
        give_back_ticket(self, e, w)

    # -- aliveness --------------------------------------------------------------------------------------------------
    # What a check finds out about one connection says something about the endpoint's others: when one turns out to be
    # dead, all that were not looked at since are suspect.

    cpdef bint needs_check(self, Waiter w, double now, double interval):
        """Whether the connection that a waiter was served has to be checked before it is used.

        :param interval: seconds within which a connection that was used is taken to be alive, unless it is suspect
        """
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        cdef bint needed
        if w.entry.fork_epoch != self.fork_epoch:
            return False
        gcp_lock(&ep.lock)
        needed = (
            w.entry.check_pending
            or not now - w.entry.used_at < interval
            or w.entry.verified_at != ep.distrust_count
        )
        gcp_unlock(&ep.lock)
        return needed

    cpdef begin_check(self, Waiter w):
        """The connection that a waiter was served is about to be checked. If :py:meth:`end_check` does not come, it is
        checked again."""
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        if w.entry.fork_epoch != self.fork_epoch:
            return
        gcp_lock(&ep.lock)
        w.distrust_at_check = ep.distrust_count
        w.entry.check_pending = True
        gcp_unlock(&ep.lock)

    cpdef end_check(self, Waiter w):
        """The connection that a waiter was served was alive. If another one was found dead meanwhile, it is suspect
        again: it may have been asked before the server went."""
        cdef EndpointPool ep = pool_of(None if w is None else w.entry)
        if w.entry.fork_epoch != self.fork_epoch:
            return
        gcp_lock(&ep.lock)
        w.entry.verified_at = w.distrust_at_check
        w.entry.check_pending = False
        gcp_unlock(&ep.lock)

    cpdef mark_unchecked(self, Entry e):
        """What the manager was doing with a connection was cut off, or left out: it is checked before it is served."""
        cdef EndpointPool ep = pool_of(e)
        if e.fork_epoch != self.fork_epoch:
            return
        gcp_lock(&ep.lock)
        e.check_pending = True
        gcp_unlock(&ep.lock)

    cpdef bint is_out(self, Entry e):
        """Whether a connection that is being released still is: not if the pool was closed over it, or after a fork."""
        cdef EndpointPool ep = pool_of(e)
        cdef bint out
        if e.fork_epoch != self.fork_epoch:
            return False
        gcp_lock(&ep.lock)
        out = is_leased(e, ANY_LEASE)
        gcp_unlock(&ep.lock)
        return out

    cdef bint is_held(self, Entry e, unsigned int lease_no, char state):
        # Whether a connection is still as the holder of that lease left it.
        cdef EndpointPool ep = pool_of(e)
        cdef bint held
        if e.fork_epoch != self.fork_epoch:
            return False
        gcp_lock(&ep.lock)
        held = e.state == state and is_lease_of(e, lease_no)
        gcp_unlock(&ep.lock)
        return held

    cpdef bint retire(self, Entry e) except -1:
        """Take a connection that is out, and unfit, out of use for good.

        :raises ConnectionNotAcquired: when it is not out
        :return: whether the caller is to dispose of it, and then call :py:meth:`disposed` (not if the pool was closed
            over it, or a fork lies between)
        """
        return retire_entry(self, e, False)

    cpdef bint retire_to_doomed(self, Entry e) except -1:
        """The same, and it is among the doomed at once: whoever comes by disposes of it.

        :raises ConnectionNotAcquired: when it is not out
        :return: whether it is
        """
        return retire_entry(self, e, True)

    def distrust_endpoint(self, Entry e not None):
        """A connection turned out to be broken in its user's hands: whatever was not looked at since is suspect."""
        cdef EndpointPool ep = pool_of(e)
        if e.fork_epoch != self.fork_epoch:
            return
        gcp_lock(&ep.lock)
        ep.distrust_count += 1
        gcp_unlock(&ep.lock)

    def reject_dead(self, Waiter w not None):
        """What the waiter was served is dead: it is to be disposed of (:py:attr:`Waiter.dead_entry`), and the waiter to
        ask again before that, so that nobody comes between. Nothing is to be disposed of when the pool was closed over
        it during the check."""
        cdef Entry e = w.entry
        cdef EndpointPool ep = pool_of(e)
        cdef bint held
        if e.fork_epoch != self.fork_epoch:
            w.entry = None
            w.state = FRESH
            return
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        held = e.state == ACQUIRED
        if held:
            gcp_store_char(&e.state, CLOSING)
            ep.acquired -= 1
            ep.acquires -= 1
            ep.closing += 1
            self.closing += 1
            self.dead_ += 1
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

    cpdef Entry take_dead_entry(self, Waiter w):
        """The entry that was found dead, for whoever disposes of it now."""
        cdef Entry e
        if w is None:
            raise TypeError('expected a Waiter, got None')
        e = w.dead_entry
        w.dead_entry = None
        if w.keeps and e is not None:
            set_disposes(self, w, True)
        return e

    cpdef bint cancel(self, Waiter w, double now) except -1:
        """Take a waiter out of the queue; what it was served already goes to the next one, or back.

        :return: True when it was still waiting, so that it will not be notified.
        """
        cdef EndpointPool ep
        cdef Entry e
        cdef Entry dead_entry
        cdef void *tail
        cdef int state
        cdef bint waited = False
        if w is None:
            raise TypeError('expected a Waiter, got None')
        ep = w.pool
        dead_entry = w.dead_entry
        if ep is not None and ep.fork_epoch != self.fork_epoch:
            # The process was forked meanwhile. What it waited for, or holds, is the parent's.
            w.dead_entry = None
            w.entry = None
            w.state = CANCELLED
            return True
        if ep is None:
            w.state = CANCELLED
            return False
        gcp_lock(&self.lock)
        tail = self.doomed_tail
        gcp_lock(&ep.lock)
        waited = dequeue(self, ep, <void *>w)
        gcp_unlock(&ep.lock)
        if dead_entry is not None:
            queue_doomed(self, dead_entry)
        own(self, w, tail)
        gcp_unlock(&self.lock)
        w.dead_entry = None
        e = w.entry
        w.entry = None
        w.state = CANCELLED
        if e is None:
            return waited
        state = gcp_load_char(&e.state)
        if state == CREATING:
            give_back_ticket(self, e, w)
        elif state == ACQUIRED or gcp_load_char(&e.closed_while_out):
            self.mark_unchecked(e)      # its check, or what comes after it, did not come to its end
            self.release_locked(e, now, w)
        return waited

    def give_up(self, Waiter w not None):
        """A waiter's time is over: take it out of the queue unless it was served or refused in this very moment.

        :return: True when it is out; False when it will be, or has been, notified.
        """
        cdef EndpointPool ep = w.pool
        cdef bint waited
        if ep is None:
            return False
        if ep.fork_epoch != self.fork_epoch:
            return True
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        waited = dequeue(self, ep, <void *>w)
        if waited:
            self.timeouts += 1
        gcp_unlock(&ep.lock)
        gcp_unlock(&self.lock)
        return waited

    # -- releasing --------------------------------------------------------------------------------------------------

    cdef inline Entry find_acquired_by_identity(self, object conn, object endpoint):
        # The entry of a connection that is acquired, where that can be told without an error and without user code
        # (__eq__ of another endpoint object); else None.
        cdef Entry e = <Entry>map_get(&self.by_connection, <size_t><void *>conn)
        if e is None or gcp_load_char(&e.state) != ACQUIRED:
            return None
        if e.pool.endpoint is not endpoint and map_get(&self.by_identity, <size_t><void *>endpoint) is not e.pool:
            return None
        return e

    cdef Entry entry_to_release(self, object conn, object endpoint):
        """The entry of a connection that is to be given back, or None when there is nothing to do (it was out when the
        pool was closed over it, or belongs to the parent process)."""
        cdef Entry e = <Entry>map_get(&self.by_connection, <size_t><void *>conn)
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
            raise ConnectionNotAcquired(f'the connection {conn!r} is not acquired: its state is {e.state_name}')
        return e

    def entry_if_acquired(self, object conn, object endpoint):
        """The same, or None when it is not out, or another endpoint's. It changes nothing."""
        cdef Entry e = <Entry>map_get(&self.by_connection, <size_t><void *>conn)
        if e is None or gcp_load_char(&e.state) != ACQUIRED:
            return None
        return e if pool_is_for(self, e.pool, endpoint) else None

    cpdef bint begin_release(self, Entry e, unsigned int lease_no=ANY_LEASE) except -1:
        """Mark a connection whose ``on_release`` hook is about to run, so that it cannot be given back once more.

        :param lease_no: of the acquire that this ends, if that is known
        :raises ConnectionNotAcquired: when it is not acquired
        :return: False when there is nothing to release any more (the pool was closed over it, or a fork lies between)
        """
        cdef EndpointPool ep = pool_of(e)
        cdef bint begun, closed
        if e.fork_epoch != self.fork_epoch:
            return False
        gcp_lock(&ep.lock)
        begun = e.state == ACQUIRED and is_lease_of(e, lease_no)
        closed = gcp_load_char(&e.closed_while_out) and is_lease_of(e, lease_no)
        if begun:
            gcp_store_char(&e.state, RELEASING)
        gcp_unlock(&ep.lock)
        if not begun:
            if not closed:
                refuse_release(e, lease_no)
            forget_closed_while_out(self, e)
        return begun

    cpdef release(self, Entry e, double now, unsigned int lease_no=ANY_LEASE):
        """Give a connection back: to the first waiter, or to the idle ones, or to the doomed.

        :param lease_no: of the acquire that this ends, if that is known
        :raises ConnectionNotAcquired: when it is not out; nothing is changed then
        """
        pool_of(e)
        if not self.release_fast(e, now, lease_no):
            self.release_locked(e, now, None, lease_no)

    cdef int release_locked(self, Entry e, double now, Waiter keeper, unsigned int lease_no=ANY_LEASE) except -1:
        # What release_fast() leaves, under the core's lock. Whom it dooms the keeper disposes of, if there is one.
        cdef EndpointPool ep = e.pool
        cdef EndpointPool elder
        cdef Waiter w = None
        cdef void *first
        cdef void *chain = NULL
        cdef void *tail
        cdef double deadline
        cdef bint wake = False
        cdef bint close = False
        cdef bint is_relief = True
        cdef bint relief_missing
        cdef bint held_up
        cdef bint hand = False
        cdef bint late, closed
        cdef long long head, overtaken
        gcp_lock(&self.lock)
        tail = self.doomed_tail
        held_up = first_is_held_up(self)
        if not self.expiry.make_room(self.expiry.used + 1):
            close = True        # it cannot be queued for expiry, so it cannot be idle
        gcp_lock(&ep.lock)
        if not is_leased(e, lease_no):
            closed = gcp_load_char(&e.closed_while_out) and is_lease_of(e, lease_no)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            return forget_closed_while_out(self, e) if closed else refuse_release(e, lease_no)
        first = first_free(ep)
        while first != NULL and not gcp_try_incref(first):
            drop(ep, first)
            update_wants_slot(self, ep)
            first = first_free(ep)
        late = advance_relief(self, now)
        relief_missing = missing_relief(self, held_up) > 0
        if (
            self.is_closed
            or ep.size - ep.closing > self.max_size     # those that are being closed will be gone
            or self.size - self.closing > self.total_max_size
        ):
            close = True
            is_relief = False   # its slot is one too many
        elif e.expires_at <= now:
            # With a collector releases dispose of nothing, unless somebody waits for the slot.
            if not self.collects or ep.waiter_head != NULL or self.wanting_slots.used:
                close = True
        elif ep.waiter_head != NULL:
            hand = True
            if relief_missing:
                # An endpoint that has no connection of its own would wait for ever on one that is always busy: there
                # whoever came first goes first, at the price of a new connection. One that has some is expected to
                # serve itself, but not for ever either: they may be out for long.
                elder = <EndpointPool>self.wanting_slots.items[0].item
                head = <long long>(<Waiter>ep.waiter_head).number
                overtaken = head - <long long>self.wanting_slots.items[0].stamp
                if overtaken > (0 if elder.size == 0 else <long long>MAX_OVERTAKES * self.total_max_size):
                    hand = False
                    close = True
        elif relief_missing:
            close = True
        if close:
            ep.acquired -= 1
            doom(self, ep, e)
            if is_relief:
                count_as_relief(self, <void *>e)
        elif hand:
            w = <Waiter>first
            waiter_unlink(ep, first)
            gcp_store_char(&e.state, ACQUIRED)
            e.used_at = now
            count_acquired(ep, e)
            w.entry = e
            w.state = SERVED
            update_wants_slot(self, ep)
            chain = first
        else:
            keep_idle(self, ep, e, now, ep.acquired - 1 < self.min_idle - ep.core_idle)
            deadline = e.expires_at
            if not e.is_core and now + self.idle_timeout < deadline:
                deadline = now + self.idle_timeout
            if deadline < e.heap_key:
                if e.heap_key == INFINITY and e.heap_index < 0:
                    self.expiry.push(<void *>e, deadline, e.stamp)
                else:
                    self.expiry.rekey(<void *>e, deadline, e.stamp)
                e.heap_key = deadline
                set_due(self)
                if self.due_at < self.wake_at and self.due_at < NEVER:
                    wake = True
                    self.wake_at = self.due_at
        gcp_unlock(&ep.lock)
        if self.wanting_slots.used and (late or not (close or hand)):
            if w is None:
                chain = dispatch(self)
            else:
                w.next = dispatch(self)
        own(self, keeper, tail)
        gcp_unlock(&self.lock)
        if first != NULL and w is None:
            Py_DECREF(<Waiter>first)
        try:
            notify_all(chain)
        finally:
            if wake and self.wake_collector is not None:
                call_collector(self)
        return 0

    # -- closing connections ----------------------------------------------------------------------------------------

    @property
    def doomed(self):
        """How many connections are to be closed now."""
        return gcp_load_int(&self.doomed_count)

    cpdef Entry take_doomed(self):
        """The next entry to be closed, or None. Whoever takes it disposes of it and then calls :py:meth:`disposed`."""
        cdef Entry e = None
        if gcp_load_int(&self.doomed_count) == 0:
            return None
        gcp_lock(&self.lock)
        if self.doomed_head != NULL:
            e = <Entry>self.doomed_head
            self.doomed_head = e.next
            e.next = NULL
            if self.doomed_head == NULL:
                self.doomed_tail = NULL
            gcp_store_int(&self.doomed_count, self.doomed_count - 1)
        gcp_unlock(&self.lock)
        return e

    cpdef Entry take_own(self, Waiter w):
        """The next entry that a waiter keeps to dispose of (:py:meth:`Waiter.keep_doomed`), or None."""
        cdef Entry e = None
        if w is None:
            raise TypeError('expected a Waiter, got None')
        if gcp_load_pointer(&w.own_head) == NULL and not w.disposes:
            return None
        if w.pool.fork_epoch != self.fork_epoch:
            gcp_store_pointer(&w.own_head, NULL)    # the parent's
            w.own_tail = NULL
            return None
        gcp_lock(&self.lock)
        if w.own_head != NULL:
            e = <Entry>w.own_head
            gcp_store_pointer(&w.own_head, e.next)
            e.next = NULL
            if w.own_head == NULL:
                owns_nothing(self, <void *>w)
        gcp_unlock(&self.lock)
        set_disposes(self, w, e is not None)
        return e

    def doom_again(self, Entry e not None):
        """Put back what :py:meth:`take_doomed` gave: its dispose was not begun, and its taker cannot do it."""
        pool_of(e)
        if e.fork_epoch != self.fork_epoch:
            return
        gcp_lock(&self.lock)
        gcp_assert(e.state == CLOSING)
        queue_doomed(self, e)
        gcp_unlock(&self.lock)

    cpdef disposed(self, Entry e, Waiter w=None):
        """The dispose of a connection has ended, one way or the other: its slot is free.

        :param w: who keeps what is doomed at that, for the next one who waits
        """
        cdef EndpointPool ep = pool_of(e)
        cdef void *chain
        cdef void *served = NULL
        cdef void *tail
        cdef bint keep
        if e.fork_epoch != self.fork_epoch:
            return
        gcp_lock(&self.lock)
        gcp_lock(&ep.lock)
        gcp_assert(e.state == CLOSING)
        tail = self.doomed_tail
        gcp_store_char(&e.state, GONE)
        if e.is_relief:
            e.is_relief = False
            if e.relief_epoch == self.relief.epoch:
                self.relief.current -= 1
            elif e.relief_epoch == self.relief.epoch - 1:
                self.relief.previous -= 1
        keep = e.closed_while_out
        if e.heap_index >= 0:
            self.expiry.remove(<void *>e)
            set_due(self)
        e.heap_key = INFINITY
        ep.closing -= 1
        ep.size -= 1
        self.closing -= 1
        gcp_store_int(&self.size, self.size - 1)
        self.disposed_ += 1
        if not keep:
            map_remove(&self.by_connection, <size_t><void *>e.conn_, <void *>e)
        gcp_unlock(&ep.lock)
        if w is not None and w.pool is not None:
            set_disposes(self, w, w.own_head != NULL)
            served = serve_idler(self, w)
        chain = after_slot_freed(self, ep)
        if served != NULL:
            (<Waiter>served).next = chain
            chain = served
        own(self, w, tail)
        gcp_unlock(&self.lock)
        if not keep:
            self.entries.discard(e)
        notify_all(chain)

    cpdef int expired(self, double now, int limit) except -1:
        """Put the idle connections that are due among the doomed, in the order of their deadlines.

        :param limit: how many at most; 0 for ``int(log2(size + 1)) + 1`` (generic-connection-pool)
        :return: how many
        """
        cdef int found = 0
        cdef int size
        cdef void *p
        gcp_lock(&self.lock)
        if limit <= 0:
            limit = 1
            size = self.size + 1
            while size > 1:
                size >>= 1
                limit += 1
        while found < limit:
            p = evict(self, now)
            if p == NULL:
                break
            count_as_relief(self, p)
            found += 1
        gcp_unlock(&self.lock)
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
        set_due(self)
        due = self.due_at
        self.wake_at = due
        gcp_unlock(&self.lock)
        return None if due >= NEVER else due

    # -- the pool's end, and changes of its limits --------------------------------------------------------------------

    def close(self):
        """Refuse all that comes, refuse those who wait, doom what is idle. What is out is closed when it comes back."""
        cdef EndpointPool ep
        cdef Waiter w
        cdef void *p
        cdef void *chain
        cdef void **end
        failure = None
        gcp_lock(&self.lock)
        gcp_store_int(&self.is_closed, 1)
        # A thread that hangs in one dispose must not keep others from what else it would have to dispose of.
        while self.owners != NULL:
            share(self, self.owners)
        gcp_unlock(&self.lock)
        # Endpoint pools that appear from here on are empty: request() refuses.
        for ep in endpoint_pools(self):
            chain = NULL
            end = &chain
            gcp_lock(&self.lock)
            gcp_lock(&ep.lock)
            while ep.waiter_head != NULL:
                p = ep.waiter_head
                if not gcp_try_incref(p):
                    drop(ep, p)
                    continue
                w = <Waiter>p
                waiter_unlink(ep, p)
                w.state = REFUSED
                end[0] = p
                end = &w.next
            update_wants_slot(self, ep)
            while True:
                p = ep.core_head
                if p == NULL:
                    p = ep.extra_head
                if p == NULL:
                    break
                idle_unlink(ep, p)
                doom(self, ep, <Entry>p)
            forget_if_empty(self, ep)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
            try:
                notify_all(chain)
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
        cdef bint queued = False
        gcp_lock(&self.lock)
        if self.size:
            Py_INCREF(w)        # the list's reference
            w.next = self.closers
            self.closers = <void *>w
            w.state = QUEUED
            queued = True
        gcp_unlock(&self.lock)
        return queued

    def unwatch_empty(self, Waiter w not None):
        """Take a waiter out again.

        :return: True when it was still waiting, so that it will not be notified
        """
        cdef void **link
        cdef bint found = False
        gcp_lock(&self.lock)
        link = &self.closers
        while link[0] != NULL and not found:
            if link[0] == <void *>w:
                link[0] = w.next
                w.next = NULL
                w.state = CANCELLED
                found = True
            else:
                link = &(<Waiter>link[0]).next
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
            if e.state == ACQUIRED or e.state == RELEASING:
                ep.acquired -= 1
                gcp_store_char(&e.closed_while_out, True)
                doom(self, ep, e)
                count += 1
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
        return count

    def resize(self, *, min_idle=None, max_size=None, total_max_size=None):
        """Change the limits. Room that appears goes to those who wait; what is idle beyond a lower limit is doomed,
        what is out beyond it is closed when it comes back."""
        cdef EndpointPool ep
        cdef void *chain
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
            while ep.size - ep.closing > self.max_size:
                p = ep.extra_head
                if p == NULL:
                    p = ep.core_head
                if p == NULL:
                    break
                idle_unlink(ep, p)
                doom(self, ep, <Entry>p)
            if not ep.forgotten:
                update_wants_slot(self, ep)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.lock)
        gcp_lock(&self.lock)
        while self.size - self.closing > self.total_max_size and evict(self, INFINITY) != NULL:
            pass
        chain = dispatch(self)
        gcp_unlock(&self.lock)
        notify_all(chain)

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
            result = ep.acquired
        else:
            result = ep.core_idle + ep.extra_idle
        gcp_unlock(&ep.lock)
        return result

    def stats(self):
        """Gauges and counters of the whole pool, as a dict of ints."""
        return gauges_and_counters(self)

    def check_invariants(self):
        """Walk through everything and raise AssertionError where the books do not balance. For tests, at rest."""
        check_invariants_of(self)
