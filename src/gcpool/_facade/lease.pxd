cdef class Lease:                           # [owner] one acquire of a connection; the contexts add no fields
    cdef PoolFacade pool
    cdef object endpoint
    cdef object timeout
    cdef Entry entry                        # None: holds nothing
    cdef unsigned int lease_no              # the number of this acquire of the entry
    cdef char state                         # the state of the entry while this holds it: ACQUIRED or RELEASING
