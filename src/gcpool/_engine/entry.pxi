cdef object NOTHING = type('_Nothing', (), {'__slots__': ()})()     # the connection of a ticket


@cython.final
@cython.no_gc_clear
cdef class Entry(HeapMember):
    """The pool's record of one connection; while it is being created: the ticket to do so."""

    def __cinit__(self):
        self.conn_ = NOTHING
        self.state = CREATING
        self.heap_key = INFINITY

    @property
    def conn(self):
        """The connection. AttributeError while it is being created."""
        if self.conn_ is NOTHING:
            raise AttributeError('the entry has no connection yet')
        return self.conn_

    @property
    def endpoint(self):
        """Where the connection leads. AttributeError if nobody was served the entry."""
        if self.pool is None:
            raise AttributeError('the entry belongs to no endpoint yet')
        return self.pool.endpoint

    @property
    def state_name(self):
        """One of creating, idle, acquired, releasing, closing, gone."""
        return STATES[gcp_load_char(&self.state)]

    @property
    def lease_no(self):
        """How often the connection was acquired."""
        return gcp_load_uint(&self.lease_no)

    @property
    def is_broken(self):
        """Whether its holder said that it is unfit (:py:meth:`break_`)."""
        return bool(gcp_load_char(&self.broken))

    def break_(self):
        """Have the next release dispose of it. Called by its holder."""
        gcp_store_char(&self.broken, True)

    def mark_sound(self):
        """Take :py:meth:`break_` back."""
        gcp_store_char(&self.broken, False)

    def __repr__(self):
        return f'<Entry {self.state_name} at {id(self):#x}>'


cdef inline EndpointPool pool_of(Entry e):
    # Entries and waiters can be made by hand. Those that no core served lead nowhere.
    if e is None or e.pool is None:
        raise RuntimeError('there is no entry, or one that no pool ever served')
    return e.pool


cdef enum:
    ANY_LEASE = 0       # of a release that names the connection only, and cannot know which acquire's end it is
    FIRST_LEASE = 1


cdef inline bint is_idle(Entry e) noexcept:
    return e.state == IDLE_CORE or e.state == IDLE_EXTRA


cdef inline bint is_out(Entry e) noexcept:
    return e.state == ACQUIRED or e.state == RELEASING


cdef inline bint is_lease_of(Entry e, unsigned int lease_no) noexcept:
    # Whether nobody has acquired the connection since that lease began.
    return lease_no == ANY_LEASE or gcp_load_uint(&e.lease_no) == lease_no


cdef inline bint is_leased(Entry e, unsigned int lease_no) noexcept:
    # Whether the connection is still out, and by that lease. ep.lock is held.
    return is_out(e) and is_lease_of(e, lease_no)


cdef inline void serve(Waiter w, Entry e) noexcept:
    w.entry = e
    w.lease_no = gcp_load_uint(&e.lease_no)
    if w.lease_no == ANY_LEASE:         # a ticket: created() is to begin its first lease
        w.lease_no = FIRST_LEASE
    w.state = SERVED


cdef int must_be_out(PoolCore core, Entry e, unsigned int lease_no) except -1:
    # Called, with no lock held, where an entry that its holder gives back is not out, or not by that lease. That is an
    # error, unless the pool was closed while it was out: then its release does nothing, and is the end of the entry.
    # Nobody can acquire it after that: its lease number, which is looked at second, is the last one.
    cdef bint closed = gcp_load_char(&e.closed_while_out)
    if not is_lease_of(e, lease_no):
        raise ConnectionNotAcquired(f'the connection {e.conn_!r} was given back before, and is somebody else\'s by now')
    if not closed:
        raise ConnectionNotAcquired(f'the connection {e.conn_!r} is not acquired: its state is {e.state_name}')
    forget_closed_while_out(core, e)
    return 0
