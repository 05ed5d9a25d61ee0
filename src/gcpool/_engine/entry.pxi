cdef object NOTHING = type('_Nothing', (), {'__slots__': ()})()     # stands in a ticket: even None may be a connection


cdef enum:      # Entry.broken
    SOUND
    BROKEN      # the connection broke, and others of the endpoint may have
    CUT_OFF     # its use was cut off: it may be in any state
    TO_BE_TOLD  # a check found it dead: the thread or task that closes it notifies the manager


@cython.final
@cython.no_gc_clear
cdef class Entry(HeapMember):
    """The pool's record of one connection. While the connection is being created, the record is a ticket."""

    def __cinit__(self):
        self.conn_ = NOTHING
        self.state = CREATING
        self.heap_key = INFINITY
        self.used_at = INFINITY     # of a ticket: until its connect begins

    @property
    def conn(self):
        """The connection. AttributeError while it is being created."""
        if self.conn_ is NOTHING:
            raise AttributeError('the entry has no connection yet')
        return self.conn_

    @property
    def endpoint(self):
        """The endpoint of the connection. AttributeError if the entry was never served."""
        if self.pool is None:
            raise AttributeError('the entry belongs to no endpoint yet')
        return self.pool.endpoint

    @property
    def state_name(self):
        """One of creating, idle, acquired, releasing, checking, closing, gone."""
        return STATES[gcp_load_char(&self.state)]

    @property
    def reason(self):
        """Why the connection is closed: a text such as ``idle``, one of ``REASONS``. None before it is doomed."""
        cdef int reason = gcp_load_char(&self.reason)
        return None if reason == NOT_CLOSED else REASONS[reason]

    @property
    def lease_no(self):
        """The number of the last acquire of the connection. The first one is 1, or, with ``max_uses``, another one."""
        return gcp_load_uint(&self.lease_no)

    @property
    def is_broken(self):
        """Whether the holder has marked the connection as unfit (:py:meth:`break_`)."""
        return bool(gcp_load_char(&self.broken))

    @property
    def is_given_up(self):
        """Whether the holder has discarded or detached the connection, so that there is nothing to return."""
        return bool(gcp_load_char(&self.given_up))

    def break_(self):
        """Have the next release close the connection. Called by the holder."""
        gcp_store_char(&self.broken, BROKEN)

    def mark_cut_off(self):
        """Like :py:meth:`break_`, but the endpoint's other connections are not suspect. Called by the holder."""
        gcp_store_char(&self.broken, CUT_OFF)

    def mark_to_be_told(self):
        """Have the thread or task that closes the connection notify the manager that it was dead. Called before
        that."""
        gcp_store_char(&self.broken, TO_BE_TOLD)

    def mark_sound(self):
        """Undo :py:meth:`break_`. Called by the holder."""
        gcp_store_char(&self.broken, False)

    def __repr__(self):
        # For debugging: no message of the pool shows it.
        endpoint = 'no endpoint' if self.pool is None else shown_endpoint(self.pool)
        return f'<Entry of {endpoint}: {self.state_name} at {id(self):#x}>'


cdef inline EndpointPool pool_of(Entry e):
    # Python code can make an entry itself, which has no endpoint pool. Without this check the core would take None for
    # the endpoint pool, and write to None's memory.
    if e is None or e.pool is None:
        raise RuntimeError('expected an entry that a pool has served')
    return e.pool


cdef enum:
    ANY_LEASE = 0       # for a release that names only the connection, and cannot know which acquire it ends
    FIRST_LEASE = 1


cdef inline bint is_idle(Entry e) noexcept:
    return e.state == IDLE_CORE or e.state == IDLE_EXTRA


cdef inline bint is_checked_out(Entry e) noexcept:
    return e.state == ACQUIRED or e.state == RELEASING


cdef inline bint is_lease_of(Entry e, unsigned int lease_no) noexcept:
    # Whether the connection was not acquired again since that lease began.
    return lease_no == ANY_LEASE or gcp_load_uint(&e.lease_no) == lease_no


cdef inline bint is_checked_out_by(Entry e, unsigned int lease_no) noexcept:
    # ep.lock is held.
    return is_checked_out(e) and is_lease_of(e, lease_no)


cdef inline bint is_acquired_by(Entry e, unsigned int lease_no) noexcept:
    # ep.lock is held. Checked out, and no hook of a release runs.
    return e.state == ACQUIRED and is_lease_of(e, lease_no)


cdef inline bint lifetime_is_over(Entry e, double now) noexcept:
    return e.expires_at <= now


# MAX_USES. Each lease has a number. With max_uses, the first number is such that the last one overflows, which lend()
# looks at anyway: so a lease costs the same with max_uses and without it. Then the connection's lifetime is over, and
# its release closes it.

cdef double USED_UP = -INFINITY     # Entry.expires_at of a connection that was used max_uses times


cdef inline unsigned int following_lease(unsigned int lease_no) noexcept:
    # The lease number skips ANY_LEASE when it overflows.
    lease_no += 1
    return lease_no + (lease_no == ANY_LEASE)


cdef inline void limit_uses(Entry e, unsigned int max_uses) noexcept:
    # The entry is new. 0: no limit except that of the numbers.
    gcp_store_uint(&e.lease_no, 0 - max_uses)


cdef void use_up(Entry e) noexcept:
    # The lease number has overflowed. Also without max_uses: a lease that was dropped long ago must not have the same
    # number.
    gcp_store_double(&e.expires_at, USED_UP)


cdef inline bint is_used_up(Entry e) noexcept:
    return e.expires_at == USED_UP


cdef inline int lifetime_reason(Entry e) noexcept:
    # The reason to close a connection whose lifetime is over.
    return BECAUSE_MAX_USES if is_used_up(e) else BECAUSE_LIFETIME


cdef inline void serve(Waiter w, Entry e) noexcept:
    w.entry = e
    w.lease_no = gcp_load_uint(&e.lease_no)
    w.is_checked = False
    w.was_idle = True
    w.state = SERVED


cdef int must_be_out(PoolCore core, Entry e, unsigned int lease_no) except -1:
    # No lock is held. A release has found that the entry is not checked out, or not by that lease. That is an error,
    # unless close() closed the connection while it was checked out: then the release only forgets the entry; or unless
    # a context ends whose block has discarded or detached the connection. The lease number is read after
    # closed_while_out, and so is the last one: no acquire gets a closed entry.
    cdef bint closed = gcp_load_char(&e.closed_while_out)
    if lease_no != ANY_LEASE and gcp_load_char(&e.given_up) and is_lease_of(e, lease_no):
        return 0
    if not is_lease_of(e, lease_no):
        raise ConnectionNotAcquired(
            f'the connection {e.conn_!r} of {pool_text(core)} was released before, '
            'and another user has acquired it since'
        )
    if not closed:
        raise ConnectionNotAcquired(
            f'the connection {e.conn_!r} of {pool_text(core)} is not acquired: its state is {e.state_name}'
        )
    forget_closed_while_out(core, e)
    return 0
