cdef class Lease:                           # [owner] one acquire of a connection; all that a context has, too
    cdef PoolFacade pool
    cdef object endpoint
    cdef object timeout
    cdef Entry entry                        # None: nothing is held
    cdef unsigned int lease_no              # which acquire of the entry it is
    cdef char state                         # that of the entry as long as this has it: ACQUIRED, or RELEASING
