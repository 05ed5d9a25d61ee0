cdef struct ReleaseWatch:       # why each release at an endpoint takes core.lock; see release_watches.pxi
    unsigned int drained_at     # PoolCore.drains when the endpoint was last drained
    int drained                 # how many connections from before that are in use or being created
    int watchers                # how many waiters wait until no connection of the endpoint is in use
