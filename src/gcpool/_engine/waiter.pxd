cdef class Waiter:
    cdef readonly object endpoint           # [owner] as the caller wrote it; with normalize(), then that of the pool
    cdef PoolCore core                      # [owner] the core that the acquire asks
    cdef EndpointPool pool                  # [owner]
    cdef Entry entry                        # [ep] while queued, else [owner]; of a watcher: the entry that it watches
    cdef unsigned int lease_no              # [ep] while queued, else [owner]: the lease number of its entry
    cdef Entry spare                        # [ep] becomes the ticket, so that nothing is allocated under a lock
    cdef readonly Waiter interrupts         # [owner] the waiter that this acquire's signal handler interrupts, or None
    cdef readonly Entry dead_entry          # [owner] found dead and not doomed yet, or None
    cdef object notify                      # [owner] until the waiter is queued; then called once, with no lock held
    cdef int state                          # [ep]
    cdef int refused_by                     # [ep] PoolCore.restrictions when the waiter was refused
    cdef EndpointPool watched               # [owner] of a watcher: the endpoint pool whose uses it watches
    cdef unsigned long long number          # set once: order of arrival
    cdef unsigned long long place           # [ep] its number, or an earlier one that it inherited: see overtaking.pxi
    cdef void *prev                         # [ep]
    cdef void *next                         # [ep]; after the queue, links the waiters to notify
    cdef double queued_at                   # [owner]
    cdef readonly double waits_from         # [owner] infinite: it does not wait, or its wait is counted
    cdef char counted                       # [core] NOT_COUNTED, ..
    cdef bint has_waited                    # [core]
    cdef char was_idle                      # [ep] while queued, else [owner]: what it was served was idle before
    cdef char is_checked                    # [ep] while queued, else [owner]: what it was served was just checked
    cdef public bint check_timed_out        # [owner] a check took check_timeout: from now on the pool checks for it
    cdef void *create                       # [ep] while queued: the ticket with which the pool itself connects for it
    cdef bint is_new                        # [owner] it was served a connection that was just created
    cdef readonly object error              # [ep] while queued, else [owner]: why no connection could be created for it
    cdef unsigned int distrust_at_check     # [owner] EndpointPool.distrust_count when the check began

    cdef void clean_up_dropped(self) noexcept
