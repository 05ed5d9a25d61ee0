cdef class Waiter:
    cdef readonly object endpoint           # [owner] as the caller wrote it; once the pool is found, its own
    cdef PoolCore core                      # [owner] whose queue it was in
    cdef EndpointPool pool                  # [owner]
    cdef Entry entry                        # [ep] while queued, else [owner]; of a watcher: what is to be gone
    cdef Entry spare                        # [ep] the ticket that it may get: nothing is allocated under a lock
    cdef readonly Entry dead_entry          # [owner] found dead and not doomed yet, or None
    cdef object notify                      # [owner] before it is queued; called once after, outside every lock
    cdef int state                          # [ep]
    cdef unsigned long long number          # set once: order of arrival
    cdef void *prev                         # [ep]
    cdef void *next                         # [ep]; afterwards links those to be notified
    cdef double queued_at                   # [owner]
    cdef bint has_waited                    # [core]
    cdef unsigned int distrust_at_check     # [owner] EndpointPool.distrust_count when the check of its connection began

    cdef void leave(self) noexcept
