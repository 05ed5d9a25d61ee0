cdef class AsyncPool(PoolFacade):
    cdef object loop                        # [loop] the one that the pool belongs to
    cdef object loop_mark                   # [loop] see gcp_loop_mark()
    cdef int loop_fork_epoch                # [loop]

    cdef int check_loop(self) except -1
    cdef int refuse_other_loop(self) except -1
    cdef bint loop_runs_in_other_thread(self) except -1
    cdef bint in_own_loop(self) except -1
    cdef int bind(self) except -1
    cdef object acquire_ready(self, object endpoint, object timeout)
    cdef object release_or_tell(self, Entry e)
    cdef object release_or_fail(self, object conn, object endpoint)
    cdef int abandon_entry(self, Entry e, unsigned int lease_no) except -1
    cpdef object _release_entry(self, Entry e)


cdef class AsyncConnectionContext:
    cdef AsyncPool pool
    cdef object endpoint
    cdef object timeout
    cdef Entry entry
    cdef unsigned int lease_no
