cdef class PoolCheck(ManagerCall):
    cdef AsyncPool pool
    cdef PoolCore core                      # kept here, too: a pool that is garbage may have dropped its reference
    cdef readonly Entry entry               # None: it has ended
