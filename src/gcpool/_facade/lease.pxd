cdef class Lease:                           # [owner] one acquire of a connection; the contexts add no fields
    cdef PoolFacade pool
    cdef object endpoint
    cdef object timeout
    cdef Entry entry                        # None: holds nothing
    cdef unsigned int lease_no              # the number of this acquire of the entry
    cdef char is_long                       # of a context: its block may take as long as it likes
    cdef char state                         # the state of the entry while this holds it: ACQUIRED or RELEASING
    # Of a context for threads. Here, because contexts come from the free list of leases only if they are as large.
    cdef size_t thread                      # [owner] of a context for threads: the thread that has entered it
    cdef int use                            # [atomic] UNUSED, IN_USE, CHANGING: by the thread that owns the lease then
