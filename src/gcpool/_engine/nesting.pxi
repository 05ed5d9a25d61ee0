# NESTING. A signal handler may acquire while its own thread waits. A connection that the thread's waiter is served
# cannot be used before the handler returns. So the handler's waiter comes before the waiter that it interrupts, if both
# are for one endpoint, and takes over what that waiter was served meanwhile. The interrupted waiter then asks again,
# with its old number. Example: max_size is 1, the main thread waits, and its handler acquires. The returned connection
# is served to the handler. Without this each of the two would wait for the other.

cdef inline Waiter interrupted_by(EndpointPool ep, Waiter w):
    # The waiter that the handler in which w asks has interrupted, if it is for the same endpoint; else None.
    return w.interrupts if w.interrupts is not None and w.interrupts.pool is ep else None


cdef inline void come_before(Waiter w, Waiter interrupted) noexcept:
    # Both locks are held. Equal numbers stand in the queue in this order: see enqueue().
    if interrupted.number < w.number and interrupted.state == QUEUED:
        w.number = interrupted.number


cdef inline bint can_take_over(Waiter interrupted) noexcept:
    # Both locks are held. A ticket can be taken over, too: its owner has not begun to connect.
    return (
        interrupted.state == SERVED
        and interrupted.entry is not None
        and (interrupted.entry.state == CREATING or is_acquired_by(interrupted.entry, interrupted.lease_no))
    )


cdef inline void take_over(Waiter w, Waiter interrupted) noexcept:
    # Both locks are held. The lease continues with another owner.
    serve(w, interrupted.entry)
    w.is_new = interrupted.is_new
    interrupted.entry = None
    interrupted.state = FRESH
