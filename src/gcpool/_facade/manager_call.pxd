cdef class ManagerCall:                     # [owner]
    cdef object call
    cdef object inner                       # None: not begun
    cdef bint at_work                       # a step of the call is running

    cdef int begin_step(self) except -1
    cdef object begin(self)
    cdef object step(self, object value, bint *has_returned)
    cdef object returned(self, object value)
    cdef int failed(self) except -1


cdef class CreateCall(ManagerCall):
    cdef PoolCore core
    cdef Entry ticket
    cdef object manager


cdef class Growing(ManagerCall):
    cdef AsyncPool pool
    cdef PoolCore core                      # kept here, too: a pool that is garbage may have dropped its reference
    cdef readonly Entry ticket              # None: it has ended
