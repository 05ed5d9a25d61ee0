# What is known of an endpoint for which the pool itself may create connections. Its own object, because most pools
# create none: then an endpoint pool has only the reference.
cdef class Growth(HeapMember):              # heap: PoolCore.retries, key: when an attempt is due
    cdef void *pool                         # borrowed: the endpoint pool, which owns this
    cdef void *prev                         # [core] PoolCore.short
    cdef void *next                         # [core] PoolCore.short
    cdef void *next_reserved                # [core] PoolCore.reserved_head
    cdef double used_at                     # [core+ep] when the last of the closed connections was returned
    cdef bint is_short                      # [core] is in PoolCore.short
    cdef bint filled                        # [core+ep] since it was pinned, it has once had its size
    cdef bint counts_as_unfilled            # [core] it counts in PoolCore.unfilled
    cdef int pinned                         # [core+ep] the size that warm_up() asked for; 0: not pinned
    cdef int creating                       # [core+ep] creates by the pool itself, those only reserved included
    cdef int reserved                       # [core+ep] of these, slots for which no worker has come yet
    # -- the outage: see outages.pxi
    cdef int state                          # [core+ep]
    cdef bint is_refusal                    # [core+ep] the server has reported that it is full
    cdef bint is_hopeless                   # [core+ep] no server was asked: only the connects up to a minimum pause
    cdef bint told                          # [core+ep] reconnect_failed was called in this outage
    cdef void *attempt                      # [core+ep] the ticket of the one attempt; borrowed, only compared
    cdef double began_at                    # [core+ep]
    cdef double counts_from                 # [core+ep] since when reconnect_timeout counts
    cdef double failed_at                   # [core+ep]
    cdef double delay                       # [core+ep]
    cdef double retry_at                    # [core+ep]
    cdef double over_after                  # [core+ep] seconds that it lasted, until that is reported, or -1
    cdef object error                       # [core+ep] the last error of a connect, or None
