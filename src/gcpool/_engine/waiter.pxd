cdef class Waiter:
    cdef readonly object endpoint           # [owner] as the caller wrote it; once the pool is found, its own
    cdef PoolCore core                      # [owner] whose queue it was in
    cdef EndpointPool pool                  # [owner]
    cdef Entry entry                        # [ep] while queued, else [owner]
    cdef Entry spare                        # [ep] the ticket that it may get: nothing is allocated under a lock
    cdef readonly Entry dead_entry          # [owner] found dead and not disposed of yet, or None
    cdef object notify                      # [owner] before it is queued; called once after, outside every lock
    cdef int state                          # [ep]
    cdef unsigned long long number          # set once: order of arrival
    cdef void *prev                         # [ep]
    cdef void *next                         # [ep]; afterwards links those to be notified
    cdef double queued_at                   # [owner]
    cdef bint has_waited                    # [core]
    cdef char keeps                         # [owner] what it dooms is its own to dispose of
    cdef char disposes                      # [ep] it is at it
    cdef void *own_head                     # [core] that, in this order; read without the lock
    cdef void *own_tail                     # [core]
    cdef void *previous_owner               # [core] list of those who keep any: PoolCore.owners
    cdef void *next_owner                   # [core]
    cdef unsigned int distrust_at_check     # [owner] EndpointPool.distrust_count when the check of its connection began

    cdef void leave(self) noexcept
