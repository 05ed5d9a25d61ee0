cdef class PoolCoroutine:                   # [owner]
    cdef AsyncPool pool
    cdef object endpoint
    cdef object argument
    cdef object inner
    cdef int kind
    cdef int state
    cdef unsigned int lease_no              # that of the entry that a LEAVE gives back
    cdef Waiter waiter                      # of an ACQUIRE or ENTER that has to wait

    cdef object first_step(self)
    cdef object end_inner(self, object value)
    cdef int end_unbegun(self) except -1
    cdef int see_to_entry(self) except -1
