cdef class ReleaseCoroutine

cdef class AsyncPool(PoolFacade):
    cdef OwnLoop own_loop                   # set once
    cdef ReadyConnections ready             # set once

    cdef int share_core(self) except -1
    cdef bint finish_in_core(self, Entry e, unsigned int lease_no) except -1
    cdef int doom_due_or_spawn(self, double now) except -1
    cdef object start_release(self, Entry e, unsigned int lease_no, bint waits)
    cdef object start_release_after_error(self, Entry e, unsigned int lease_no, object exc)
    cdef bint release_outside_loop(self, Lease context, object exc) except -1
    cdef object release_by_lookup(self, object conn, object endpoint)
    cdef ReleaseCoroutine new_release_coroutine(self)
    cdef int release_without_hook(self, Entry e, unsigned int lease_no) except -1
    cdef int release_if_still_held(self, Entry e, unsigned int lease_no, char state) except -1
    cdef object spawn_disposals(self)


cdef class AsyncConnectionContext(Lease):
    pass
