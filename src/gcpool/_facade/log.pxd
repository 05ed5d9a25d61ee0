cdef class GuardedLogger:
    cdef str name                           # never changes
    cdef object logger                      # set once, by the first message

    cdef int write(self, str level, object message, tuple args) except -1
    cdef bint wants(self, int level) except -1
    cdef int log(self, int level, str message, tuple args, dict extra, object error) except -1
    cdef int write_unraisable(self, object exc) except -1
