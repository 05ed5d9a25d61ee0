def monotonic():
    """Seconds on the pool's time line: the system's monotonic clock, exact."""
    return gcp_monotonic()


# THE LAST DISPOSES of a close(timeout), in seconds (also of an acquire, where no thread can be started). When the
# timeout has expired, each dispose still gets LEAST_DISPOSE_TIME. Several that hang would add up, so from 0.4 s (GRACE
# less LEAST_DISPOSE_TIME) after that on, each gets HASTY_DISPOSE_TIME. Never 0: many managers take that for no limit.
cdef double LEAST_DISPOSE_TIME_ = 0.1
cdef double GRACE_ = 0.5
cdef double HASTY_DISPOSE_TIME = 0.001
LEAST_DISPOSE_TIME = LEAST_DISPOSE_TIME_
GRACE = GRACE_

# How many connections of a pool are closed at the same time, at most. One at a time would not do: its close may hang.
PARALLEL_DISPOSALS = 64

# A timeout of so many seconds or more means no limit: a socket cannot wait longer.
cdef double ENDLESS_ = 9e9
ENDLESS = ENDLESS_


cpdef double dispose_time(double deadline, double now) noexcept:
    """Seconds that one more dispose gets, of several that have to be done by a deadline."""
    cdef double left = deadline - now
    if left > LEAST_DISPOSE_TIME_:
        return left
    if left > LEAST_DISPOSE_TIME_ - GRACE_:
        return LEAST_DISPOSE_TIME_
    return HASTY_DISPOSE_TIME


cdef inline object checked_timeout(object timeout):
    # The timeout as a float or an int, which managers expect. An error of the caller is raised here.
    if not isinstance(timeout, (float, int)) or isinstance(timeout, bool):
        if isinstance(timeout, bool) or not isinstance(timeout, Real):
            raise TypeError(
                f'timeout {timeout!r} of type {type(timeout).__name__}: expected seconds as a float, or None'
            )
    try:
        if not isinstance(timeout, (float, int)):
            timeout = float(timeout)
        if <double>timeout >= 0:
            return timeout
    except OverflowError:
        pass                # beyond all floats
    raise ValueError(f'timeout {timeout!r}: expected seconds, 0 or more, or inf for no limit')
