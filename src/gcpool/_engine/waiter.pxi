@cython.final
@cython.no_gc_clear
cdef class Waiter:
    """One acquire in progress: it waits in an endpoint's queue, or holds the entry or the ticket that it was served.

    Whoever made it passes it to :py:meth:`PoolCore.cancel` when the acquire fails, whatever it holds then.
    """

    def __init__(self, object endpoint):
        if self.spare is not None or self.core is not None:
            raise RuntimeError('a waiter is for one acquire: expected a new one')
        self.endpoint = endpoint
        self.spare = Entry()
        self.state = FRESH

    def __del__(self):
        # The garbage collector calls this before it clears anything: nobody may find an endpoint that is cleared.
        self.leave()

    def __dealloc__(self):
        # Once more: __del__ may have run long ago, and another object's have revived the waiter.
        self.leave()

    cdef void leave(self) noexcept:
        # Whoever made it cancels it; this is for one that was dropped all the same. Its endpoint pool may have nobody
        # else: it must be forgotten before it goes with it.
        cdef EndpointPool ep = self.pool
        cdef int state = gcp_load_int(&self.state)
        cdef bint queued = state == QUEUED or state == DROPPED
        if queued and ep is None:
            unwatch(self.core, <void *>self)
        elif queued and not made_before_fork(self.core, ep.fork_epoch):
            gcp_lock(&self.core.lock)
            gcp_lock(&ep.lock)
            dequeue(self.core, ep, <void *>self)
            gcp_unlock(&ep.lock)
            gcp_unlock(&self.core.lock)
        elif self.core is not None and self.entry is not None and gcp_load_char(&self.entry.state) == CREATING:
            give_back_ticket(self.core, self.entry, self.core.read_clock())

    @property
    def queued(self):
        """Whether it waits. It has to be notified before it looks again."""
        return self.state == QUEUED

    @property
    def refused(self):
        """Whether the pool was closed, be it over what the waiter was served before it looked."""
        return self.state == REFUSED or (self.entry is not None and gcp_load_char(&self.entry.closed_while_out))

    @property
    def held(self):
        """The entry that it was served, or None."""
        return self.entry

    @property
    def served(self):
        """The entry that it was served. RuntimeError when it holds none."""
        if self.entry is None:
            raise RuntimeError('the waiter was served nothing')
        return self.entry

    @property
    def has_ticket(self):
        """Whether what it was served is a slot to connect for, not a connection."""
        return self.entry is not None and gcp_load_char(&self.entry.state) == CREATING

    def arm(self, object notify):
        """Set what is called, once and with no lock held, if it has to wait and is then served or refused."""
        self.notify = notify


cdef inline Waiter new_waiter(object endpoint):
    # Without a ticket: request() sees to that.
    cdef Waiter w = Waiter.__new__(Waiter)
    w.endpoint = endpoint
    return w


cdef int notify_all(Chain *chain) except -1:
    # No lock is held. The chain owns a reference to each of its waiters, and is empty afterwards.
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
        except BaseException as exc:    # one that cannot be woken (its loop is closed) must not keep the others asleep
            if failure is None:
                failure = exc
        p = following
    if failure is not None:
        raise failure
    return 0
