# The state of a context. It changes atomically, because two threads may enter or leave one context at once, and an
# endpoint's __eq__, or a hook, may do so while its own thread is entering or leaving the context.
cdef enum:
    UNUSED
    CHANGING
    IN_USE


@cython.final
@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class SyncConnectionContext(Lease):
    """What ``pool.connection()`` returns. It can be entered again after it was left.

    It also decorates functions, as in generic-connection-pool: each call acquires a connection and returns it.
    """

    def __call__(self, function):
        return decorate(self, function)

    def __enter__(self):
        cdef void *pool = <void *>self.pool
        cdef void *endpoint = <void *>self.endpoint
        cdef void *timeout = <void *>self.timeout
        cdef Entry e
        if gcp_load_int(&self.use) != UNUSED:
            raise RuntimeError(ENTERED)
        if pool == <void *>None:
            raise RuntimeError(NO_POOL)
        e = acquire_entry(<SyncPool>pool, <object>endpoint, <object>timeout)
        if not gcp_change_int(&self.use, UNUSED, CHANGING):
            # Another thread, or an __eq__ or a hook of this one, has entered the context meanwhile.
            release_entry(<SyncPool>pool, e, gcp_load_uint(&e.lease_no))
            raise RuntimeError(ENTERED)
        begin_current_lease(self, e)
        gcp_publish_int(&self.use, IN_USE)
        return e.conn_

    def __exit__(self, exc_type, exc, traceback):
        cdef void *pool = <void *>self.pool
        cdef unsigned int lease_no
        cdef Entry e
        if not gcp_change_int(&self.use, IN_USE, CHANGING):
            raise RuntimeError('the connection context was not entered')
        e = self.entry
        lease_no = self.lease_no
        self.entry = None
        gcp_publish_int(&self.use, UNUSED)
        if exc is not None and (<SyncPool>pool)._hooks_broken:
            (<SyncPool>pool).release_after_error(e, lease_no, exc)
        else:
            release_entry(<SyncPool>pool, e, lease_no)
        return None
