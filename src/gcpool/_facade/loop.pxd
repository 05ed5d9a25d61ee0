cdef class OwnLoop:                         # [loop]
    cdef PoolCore core                      # set once
    cdef object loop                        # None: no loop has used the pool
    cdef object mark                        # see gcp_loop_mark()
    cdef int fork_epoch
    cdef set tasks                          # the pool's own tasks

    cdef int check(self) except -1
    cdef bint runs_here(self) except -1
    cdef bint runs_in_other_thread(self) except -1
    cdef int bind(self) except -1
    cdef bint call(self, object function, tuple args) except -1
    cdef bint may_leave(self) except -1
