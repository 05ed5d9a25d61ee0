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


cdef class ReleaseCoroutine(ManagerCall):
    cdef AsyncPool pool
    cdef Lease lease
    cdef object failure                     # of a release that is refused, until it is raised


cdef class Released:
    cdef object inner                       # made when it is asked for
    cdef bint awaited

    cdef object real(self)


cdef class NothingLeft:
    pass


cdef class Disposal(ManagerCall):
    cdef AsyncPool pool
    cdef PoolCore core                      # kept here, too: a pool that is garbage may have dropped its reference
    cdef readonly Entry entry               # None: it has ended


cdef class Lane(ManagerCall):
    pass


cdef class Signal:                          # [loop]
    cdef public bint _asyncio_future_blocking   # for the task, which reads and clears it
    cdef object loop
    cdef list calls                         # [callback, context], the callback None when it was called
    cdef object message
    cdef bint rung
    cdef bint cancelled_

    cdef int call_soon(self, list call) except -1
    cdef int schedule_call(self, list call) except -1
