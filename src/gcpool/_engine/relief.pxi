# RELIEF. At the total cap a waiter of endpoint A gets a slot only when a connection of another endpoint is closed.
# dispatch() starts one such close per endpoint that wants a slot, not one per waiter: each finished close calls it
# again. Closes already under way count, whoever started them, but for 1 to 2 s only (HELP_TIME), because a dispose can
# hang.
# Example: A wants a slot, B's first close hangs. Within 2 s dispatch() closes a second idle connection of B.

cdef double HELP_TIME = 1.0


cdef inline bint needs_relief(PoolCore core) noexcept:
    # core.lock is held.
    return core.helping_now + core.helping_before < <int>core.starving.used


cdef inline int missing_relief(PoolCore core, bint held_up) noexcept:
    # core.lock is held. How many more connections to close. An endpoint that could not use a slot yet needs no help
    # but what it is held up by.
    cdef int helping = core.helping_now + core.helping_before
    return <int>core.starving.used - helping - (held_up and helping == 0)


cdef inline void count_as_relief(PoolCore core, void *p) noexcept:
    # core.lock is held. The entry is being closed.
    if needs_relief(core):
        (<Entry>p).helps = True
        (<Entry>p).help_epoch = core.help_epoch
        core.helping_now += 1


cdef inline bint advance_relief(PoolCore core, double now) noexcept:
    # core.lock is held. Whether that ends the time of some help.
    cdef int epoch = <int>(max(min(now, 2e9), -2e9) / HELP_TIME)
    cdef bint ended
    if epoch <= core.help_epoch:
        return False
    ended = core.helping_before > 0 or (core.helping_now > 0 and epoch > core.help_epoch + 1)
    core.helping_before = core.helping_now if epoch == core.help_epoch + 1 else 0
    core.helping_now = 0
    core.help_epoch = epoch
    return ended
