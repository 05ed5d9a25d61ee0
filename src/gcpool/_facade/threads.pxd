cdef class SyncPool(PoolFacade):
    cdef Entry acquire_slowly(self, object endpoint, object timeout, Entry e)
    cdef int release_slowly(self, object conn, object endpoint) except -1
    cdef int release_by_manager(self, Entry e, unsigned int lease_no) except -1
    cdef int finish_release(self, Entry e, unsigned int lease_no, bint after_error) except -1
    cdef int release_after_error(self, Entry e, unsigned int lease_no, object exc) except -1
    cdef int discard_entry(self, Entry e, unsigned int lease_no) except -1
    cdef bint connect_at_once(self, Waiter w, object timeout) except -1
