cdef class Hold:                            # [owner]
    cdef PoolFacade engine                  # set once
    cdef dict elsewhere                     # set once
    cdef object conn_
    cdef Entry entry                        # None: holds nothing
    cdef unsigned int lease_no              # the number of this acquire of the entry
    cdef double began                       # when the connection was assigned


cdef class Block(Hold):
    cdef readonly object _pool              # set once: the pool of the drop-in
    cdef readonly object _timeout           # set once


cdef class HoldCall(ManagerCall):
    cdef Hold hold                          # None: the call has ended
    cdef bint ends_hold
