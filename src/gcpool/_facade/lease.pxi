NO_POOL = 'the object belongs to no pool: expected one that a method of a pool returned'
ENTERED = 'the connection context is entered already: call connection() once more for a second one'


@cython.freelist(16)
@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class Lease:
    """One acquire of a connection. A lease that is freed while it holds the connection releases the connection.

    That happens to a context that was entered and never left: a signal handler may raise between ``__enter__`` and the
    block that ``__exit__`` guards (from Python 3.14 on), or between ``__aenter__`` and the first step of its coroutine.
    """

    def __dealloc__(self):
        if self.entry is None or gcp_is_finalizing():
            return
        # A pool that is being collected as garbage has no core, or one that no longer owns entries.
        if self.pool is not None and self.pool._core is not None:
            if self.pool._core.entries is not None and self.entry in self.pool._core.entries:
                try:
                    if self.pool._core.leak_threshold < INFINITY and self.state == ACQUIRED:
                        self.pool._holding.note_dropped(self.pool, self.entry, self.lease_no)
                finally:
                    self.pool.release_dropped_lease(self.entry, self.lease_no, self.state)

    def __repr__(self):
        if self.pool is None or self.pool._observer is None:
            return f'<{type(self).__qualname__} of no pool>'
        observer = self.pool._observer
        # If the lease is not a context, the endpoint is in its entry.
        endpoint = self.endpoint if self.entry is None or self.entry.pool is None else self.entry.pool.endpoint
        state = 'not entered' if self.entry is None else self.entry.state_name
        return f'<{type(self).__qualname__} of {observer.name!r} for {observer.text(endpoint)}: {state}>'

    @property
    def held(self):
        """The entry of the connection. RuntimeError if the lease has ended."""
        if self.entry is None:
            raise RuntimeError('the connection was returned')
        return self.entry

    @property
    def is_checked_out(self):
        """Whether the connection is still checked out: not if the lease has ended, if ``close()`` has closed the
        connection, or after a fork."""
        return self.entry is not None and self.pool._core.is_checked_out(self.entry, self.lease_no)


cdef inline int set_up(Lease context, PoolFacade pool, object endpoint, object timeout, bint is_long) except -1:
    context.pool = pool
    if gcp_unlikely(is_long):
        context.is_long = True
    context.endpoint = endpoint
    context.timeout = checked_timeout(timeout)
    return 0


cdef inline int begin_lease(Lease lease, Entry e, unsigned int lease_no, char state=ACQUIRED) except -1:
    lease.entry = e
    lease.lease_no = lease_no
    lease.state = state
    return 0


cdef inline int begin_current_lease(Lease lease, Entry e, char state=ACQUIRED) except -1:
    # For a connection that was just acquired: no other code can have released it since.
    return begin_lease(lease, e, gcp_load_uint(&e.lease_no), state)


cdef inline Entry entry_to_leave_with(Lease context):
    cdef Entry e = context.entry
    if e is None:
        raise RuntimeError('the connection context was not entered')
    context.entry = None
    return e


cdef inline int check_enterable(Lease context) except -1:
    if context.entry is not None:
        raise RuntimeError(ENTERED)
    if context.pool is None:
        raise RuntimeError(NO_POOL)
    return 0


cdef inline bint is_lease_of_this_process(Lease lease) noexcept:
    # Whether a lease holds a connection, and has not been inherited from the process that this one was forked from.
    return lease.entry is not None and not made_before_fork(lease.pool._core, lease.entry.fork_epoch)


cdef object decorate(Lease context, object function):
    if context.pool is None:
        raise RuntimeError(NO_POOL)
    return context.pool._decorate(function, context.endpoint, context.timeout, bool(context.is_long))


cdef object is_no_connection(object context, str name, str statement):
    # The error for an attribute of a connection that is looked up on the context itself.
    return AttributeError(
        f'{type(context).__name__!r} object has no attribute {name!r}: expected '
        f'`{statement} pool.connection(...) as conn`, and conn.{name}',
        name=name,
    )
