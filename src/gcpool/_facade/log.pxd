cdef class GuardedLogger:
    cdef str name                           # never changes
    cdef object logger                      # set once, by the first message

    cdef int write(self, str level, object message, tuple args) except -1
    cdef int write_unraisable(self, object exc) except -1
