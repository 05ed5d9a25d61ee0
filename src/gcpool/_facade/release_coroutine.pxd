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
