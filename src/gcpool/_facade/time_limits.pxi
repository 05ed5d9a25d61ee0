def monotonic():
    """Seconds on the pool's time line: the system's monotonic clock, exact."""
    return gcp_monotonic()


# THE LAST DISPOSES of a close(timeout), in seconds (also of an acquire, where no thread can be started). When the
# timeout has expired, each dispose still gets LEAST_DISPOSE_TIME. Several that hang would add up, so from 0.4 s (GRACE
# less LEAST_DISPOSE_TIME) after that on, each gets HASTY_DISPOSE_TIME. Never 0: many managers treat that as no limit.
cdef double LEAST_DISPOSE_TIME_ = 0.1
cdef double GRACE_ = 0.5
cdef double HASTY_DISPOSE_TIME = 0.001
LEAST_DISPOSE_TIME = LEAST_DISPOSE_TIME_
GRACE = GRACE_

# Maximum number of connections of a pool that are closed at the same time. One is not enough: its close may hang.
cdef int PARALLEL_DISPOSALS_ = 64
PARALLEL_DISPOSALS = PARALLEL_DISPOSALS_

# A timeout of this many seconds or more means no limit: a socket cannot wait longer.
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


cpdef object checked_seconds(str name, object value):
    """Check a caller's number of seconds. Returns it as a float or an int, which managers expect."""
    if not isinstance(value, (float, int)) or isinstance(value, bool):
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f'{name}={value!r}: expected seconds as a float, got {type(value).__name__}')
    try:
        if not isinstance(value, (float, int)):
            value = float(value)
        if <double>value >= 0:
            return value
    except OverflowError:
        raise ValueError(f'{name}={value!r}: expected seconds that a float can hold, or inf for no limit') from None
    raise ValueError(f'{name}={value!r}: expected seconds, 0 or more')


cdef inline object checked_timeout(object timeout):
    return None if timeout is None else checked_seconds('timeout', timeout)
