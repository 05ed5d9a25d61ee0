cdef class GuardedLogger:
    cdef object logger                      # never changes

    cdef int write(self, object method, object message, tuple args) except -1
    cdef int write_unraisable(self, object exc) except -1
