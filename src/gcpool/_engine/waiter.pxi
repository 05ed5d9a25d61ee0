@cython.final
@cython.no_gc_clear
cdef class Waiter:
    """One acquire in progress: it waits in an endpoint's queue, or holds the entry or the ticket that it was served.

    When the acquire fails, its caller passes the waiter to :py:meth:`PoolCore.cancel`, whatever the waiter then holds.
    A waiter that is freed gives back whatever was not taken from it.
    """

    def __cinit__(self):
        self.waits_from = INFINITY

    def __init__(self, object endpoint):
        if self.spare is not None or self.core is not None:
            raise RuntimeError('a waiter is for one acquire: expected a new one')
        self.endpoint = endpoint
        self.spare = Entry()
        self.state = FRESH

    def __del__(self):
        # The garbage collector calls this before it clears anything. If the waiter left the queue only in __dealloc__,
        # a search could meet the endpoint pool that it keeps alive, with an endpoint that is already cleared.
        self.clean_up_dropped()

    def __dealloc__(self):
        # Once more: __del__ runs only once, and another object's __del__ may have revived the waiter after that.
        self.clean_up_dropped()

    cdef void clean_up_dropped(self) noexcept:
        # For a waiter that was dropped without having been cancelled: takes it out of the queue, or gives back what it
        # holds. It may hold the last reference to its endpoint pool: dequeue() takes that out of the directory, which
        # would otherwise lead to freed memory. At the end of the interpreter a connection that it holds is left alone:
        # a thread that was stopped may hold the locks for good.
        cdef EndpointPool ep = self.pool
        cdef int state = gcp_load_int(&self.state)
        cdef bint queued = state == QUEUED or state == BEING_FREED
        if queued and ep is None:
            unwatch(self.core, <void *>self)
        elif queued and not made_before_fork(self.core, ep.fork_epoch):
            gcp_lock(&self.core.lock)
            gcp_lock(&ep.lock)
            if dequeue(self.core, ep, <void *>self):
                self.core.counters.cancelled += 1
                count_unserved(self.core, <void *>self)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.core.lock)
        elif ep is None or made_before_fork(self.core, ep.fork_epoch) or gcp_is_finalizing():
            pass
        elif self.entry is not None or self.dead_entry is not None or self.counted == COUNTED_CONNECTING:
            self.waits_from = INFINITY      # no wait has ended
            cancel(self.core, self, read_clock(self.core))

    @property
    def queued(self):
        """Whether the waiter is queued. It will be notified, and nothing changes before that."""
        return gcp_load_int(&self.state) == QUEUED

    @property
    def refused(self):
        """Whether the waiter is not served, because the pool is closed, not open yet, or suspended; or whether the pool
        was closed after the waiter was served, and before it continued."""
        if gcp_load_int(&self.state) == REFUSED:
            return True
        return self.entry is not None and bool(gcp_load_char(&self.entry.closed_while_out))

    @property
    def turned_away(self):
        """Whether ``max_waiting`` waiters were already queued at the endpoint."""
        return gcp_load_int(&self.state) == TURNED_AWAY

    @property
    def refusal(self):
        """Why a waiter was refused: ``closed``, ``not open`` or ``suspended``."""
        cdef int restrictions = gcp_load_int(&self.refused_by)
        if gcp_load_int(&self.state) != REFUSED or restrictions & CLOSED:
            return 'closed'
        return 'not open' if restrictions & NOT_OPEN else 'suspended'

    @property
    def failed(self):
        """Whether no connection could be created for the waiter: :py:attr:`error` is the reason."""
        return gcp_load_int(&self.state) == FAILED

    @property
    def endpoint_is_down(self):
        """Whether the waiter must fail at once, because the endpoint is in an outage: its last error is
        :py:attr:`error`."""
        return gcp_load_int(&self.state) == ENDPOINT_DOWN

    @property
    def held(self):
        """The entry that the waiter was served, or None."""
        return self.entry

    @property
    def served(self):
        """The entry that the waiter was served. RuntimeError if it holds none."""
        if self.entry is None:
            raise RuntimeError('the waiter was served nothing')
        return self.entry

    @served.deleter
    def served(self):
        # From here on the connection is the acquirer's: the waiter does not give it back when it is freed.
        self.entry = None

    @property
    def has_ticket(self):
        """Whether the waiter was served a ticket: a slot to connect for, not a connection."""
        return self.entry is not None and gcp_load_char(&self.entry.state) == CREATING

    def interrupt(self, Waiter interrupted):
        """Set the waiter of this thread that waits while this one asks; None if there is none."""
        self.interrupts = None if interrupted is self else interrupted

    def arm(self, object notify):
        """Set the function to call, once and with no lock held, if the waiter is queued and then served or refused."""
        self.notify = notify


cdef inline Waiter new_waiter(object endpoint):
    # Without a spare entry: request() allocates that.
    cdef Waiter w = Waiter.__new__(Waiter)
    w.endpoint = endpoint
    return w


cdef inline void refuse(PoolCore core, Waiter w) noexcept:
    # core.lock is held. The waiter is not queued.
    gcp_store_int(&w.refused_by, core.restrictions)
    gcp_store_int(&w.state, REFUSED)
    count_unserved(core, <void *>w)


cdef inline Entry take_served(Waiter w):
    # From here on the entry is the caller's: the waiter does not give it back when it is freed.
    cdef Entry e = w.entry
    w.entry = None
    return e


cdef int notify_all(PoolCore core, Chain *chain) except -1:
    # No lock is held. The chain owns a reference to each of its waiters, and is empty afterwards. Calls a worker, too,
    # if the dispatcher has reserved slots for connections that the pool must create.
    cdef void *p = chain_take_all(chain)
    cdef void *following
    cdef Waiter w
    failure = None
    while p != NULL:
        w = <Waiter>p
        Py_DECREF(w)
        following = w.next
        w.next = NULL
        try:
            w.notify()
        except BaseException as exc:    # a waiter that cannot be woken (its loop is closed) must not delay the others
            if failure is None:
                failure = exc
        p = following
    if gcp_load_int(&core.must_call_workers) or gcp_load_int(&core.forgotten.count):
        try:
            drop_forgotten(core)
            call_workers(core)
        except BaseException as exc:
            if failure is None:
                failure = exc
    if failure is not None:
        raise failure
    return 0


cdef inline Waiter checked_waiter(Waiter w):
    if w is None:
        raise TypeError('expected a Waiter, got None')
    return w
