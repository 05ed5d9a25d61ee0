cdef class SyncPool(PoolFacade):
    cdef Entry acquire_slowly(self, object endpoint, object timeout, Entry e)
    cdef int release_slowly(self, object conn, object endpoint) except -1
    cdef int release_by_manager(self, Entry e, unsigned int lease_no) except -1
    cdef int finish_release(self, Entry e, unsigned int lease_no, bint after_error) except -1
    cdef int release_after_error(self, Entry e, unsigned int lease_no, object exc) except -1
    cdef int discard_entry(self, Entry e, unsigned int lease_no) except -1
    cdef int dispose_due(self, double now) except -1
    cdef bint connect_at_once(self, Waiter w, object timeout) except -1
    cdef bint check_within(self, Waiter w, object timeout) except -1
    cdef bint check_by_pool(self, Entry e) except -1
    cdef bint answers_by_pool(self, Entry e) except -1
    cdef int tell_dead(self, Entry e) except -1
    cdef int create_for_pool(self, Entry ticket) except -1
    cdef bint create_within(self, Waiter w, object timeout) except -1
    cdef int begin_disposals(self, double deadline) except -1
    cdef int dispose_doomed(self) except -1
    cdef int dispose_all(self, Chain *doomed, double deadline) except -1
    cdef object try_keep_one_idle(self)
    cdef int dispose_entry(self, Entry e, double deadline, bint by_worker) except -1
