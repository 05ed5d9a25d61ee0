cdef class Hold:                            # [owner]
    cdef PoolFacade engine                  # set once
    cdef dict elsewhere                     # set once
    cdef object conn_
    cdef Entry entry                        # None: holds nothing
    cdef unsigned int lease_no              # the number of this acquire of the entry


cdef class HoldCall(ManagerCall):
    cdef Hold hold                          # None: the call has ended
    cdef bint ends_hold
