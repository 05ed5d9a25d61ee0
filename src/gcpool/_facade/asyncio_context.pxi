def is_entered(object thing, object pool):
    """Whether an object is a context of a pool for asyncio, and is entered."""
    return (
        type(thing) is AsyncConnectionContext
        and (<AsyncConnectionContext>thing).pool is pool
        and is_lease_of_this_process(<AsyncConnectionContext>thing)
    )


@cython.final
@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class AsyncConnectionContext(Lease):
    """What ``pool.connection()`` returns. It can be entered again after it was left.

    It also decorates coroutine functions, as in generic-connection-pool: each call acquires a connection and returns
    it.
    """

    def __call__(self, function):
        return decorate(self, function)

    # Not __getattr__, with which entering the context takes 10 % longer.
    @property
    def cursor(self):
        raise is_no_connection(self, 'cursor', 'async with')

    @property
    def execute(self):
        raise is_no_connection(self, 'execute', 'async with')

    def __aenter__(self):
        cdef AsyncPool pool
        cdef Entry e
        check_enterable(self)
        pool = <AsyncPool>self.pool
        e = pool.ready.take(self.endpoint)
        if e is None:
            return pool._enter(self, self.endpoint, self.timeout)
        begin_current_lease(self, e)
        if gcp_unlikely(self.is_long):
            mark_long(pool._core, e)
        return coroutine_of_entering(e.conn_)

    @property
    def conn(self):
        """The connection. RuntimeError if the context is not entered."""
        return self.held.conn

    @property
    def waiter(self):
        """Set to the waiter that was served: the context takes the connection from it.

        It is assigned, not passed to a call, because after a call the interpreter checks for signals: a handler that
        raised there would end ``__aenter__`` after the context was entered.
        """
        raise AttributeError('waiter can only be set')

    @waiter.setter
    def waiter(self, Waiter w not None):
        w.served        # raises if the waiter holds nothing
        if self.entry is not None:      # another task has entered while this one waited
            (<AsyncPool>self.pool)._abandon(w)
            raise RuntimeError(ENTERED)
        begin_lease(self, take_served(w), w.lease_no)
        if self.is_long:
            mark_long(self.pool._core, self.entry)

    def __aexit__(self, exc_type, exc, traceback):
        cdef AsyncPool pool = <AsyncPool>self.pool
        cdef Entry e
        cdef bint waits
        if pool is not None and not pool.own_loop.runs_here() and pool.release_outside_loop(self, exc):
            return NOTHING_LEFT
        e = entry_to_leave_with(self)
        if exc is not None and pool._hooks_broken:
            remaining = pool.start_release_after_error(e, self.lease_no, exc)
        else:
            # A coroutine that is closed cannot await anything.
            waits = exc is None or not isinstance(exc, GeneratorExit)
            remaining = pool.start_release(e, self.lease_no, waits)
        return NOTHING_LEFT if remaining is None else remaining
