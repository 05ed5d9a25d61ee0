cdef class Signal:                          # [loop]
    cdef public bint _asyncio_future_blocking   # for the task, which reads and clears it
    cdef object loop
    cdef list calls                         # [callback, context], the callback None when it was called
    cdef object message
    cdef bint rung
    cdef bint cancelled_

    cdef int call_soon(self, list call) except -1
    cdef int schedule_call(self, list call) except -1
