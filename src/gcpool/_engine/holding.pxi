# HOLDING. How long connections have been in use. While a connection is checked out, the links of its entry hold the
# time at which it was taken: see begin_use(). No list of these entries is kept, because that would cost each acquire: a
# query walks through all entries of the process.

cdef inline double held_since(Entry e) noexcept:
    # INFINITY if the connection is not in use.
    cdef double since = INFINITY
    if gcp_load_char(&e.state) == ACQUIRED or gcp_load_char(&e.state) == RELEASING:
        gcp_lock(&e.pool.lock)
        if is_checked_out(e):
            since = gcp_get_double(&e.prev)
        gcp_unlock(&e.pool.lock)
    return since


cdef double longest_held(PoolCore core, EndpointPool ep) except -1:
    # Seconds since the oldest acquire whose connection is still in use, of an endpoint or, with None, of all; 0 if none
    # is in use.
    cdef double since = INFINITY
    cdef Entry e
    for e in list(entries_of_this_process(core)):
        if ep is None or e.pool is ep:
            since = min(since, held_since(e))
    return max(read_clock(core) - since, 0.0) if since < INFINITY else 0.0
