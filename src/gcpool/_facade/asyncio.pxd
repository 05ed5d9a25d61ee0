cdef class ReleaseCoroutine

cdef class ReadyConnections:                # set once
    cdef PoolCore core
    cdef OwnLoop own_loop
    cdef double trusted_for                 # PoolFacade.trusted_for
    cdef bint none                          # none is ever ready: each is checked first, or has a hook called

    cdef Entry take(self, object endpoint)


cdef class AsyncPool(PoolFacade):
    cdef OwnLoop own_loop                   # set once
    cdef ReadyConnections ready             # set once

    cdef int share_core(self) except -1
    cdef bint give_back(self, Entry e, unsigned int lease_no) except -1
    cdef int doom_due_or_spawn(self, double now) except -1
    cdef object leave(self, Entry e, unsigned int lease_no)
    cdef object leave_after_error(self, Entry e, unsigned int lease_no, object exc)
    cdef bint leave_elsewhere(self, Lease context, object exc) except -1
    cdef object release_unusually(self, object conn, object endpoint)
    cdef ReleaseCoroutine new_rest(self)
    cdef int give_back_unasked(self, Entry e, unsigned int lease_no) except -1
    cdef int try_to_give_back(self, Entry e, unsigned int lease_no, char state) except -1
    cdef object spawn_disposals(self)


cdef class AsyncConnectionContext(Lease):
    pass
