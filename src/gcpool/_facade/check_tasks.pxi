@cython.final
@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class PoolCheck(ManagerCall):
    """The check of one connection by the pool, on asyncio. A check that is freed before it was ended has no result."""

    @property
    def endpoint(self):
        """The endpoint of the connection."""
        return pool_of(self.entry).endpoint

    cdef object begin(self):
        if self.pool is None:
            raise RuntimeError(NO_POOL)
        call = self.pool._manager.check_aliveness(self.endpoint, self.entry.conn_)
        self.pool._expect_awaitable(call, 'check_aliveness')
        return iterator_of(call)

    def end(self, object alive):
        """The end of the check.

        :param alive: what it has found; None if it was cut off, without a result
        :return: whether the connection is dead, and must be closed
        """
        cdef Entry e = self.entry
        self.entry = None
        return e is not None and self.core.end_check_by_pool(e, alive, read_clock(self.core))

    def __dealloc__(self):
        if self.entry is None or gcp_is_finalizing():
            return
        # A core that is being collected as garbage no longer owns entries.
        if self.core.entries is not None and self.entry in self.core.entries:
            self.end(None)


cdef PoolCheck new_pool_check(AsyncPool pool, Entry e):
    cdef PoolCheck check = PoolCheck.__new__(PoolCheck)
    check.pool = pool
    check.core = pool._core
    check.entry = e
    return check
