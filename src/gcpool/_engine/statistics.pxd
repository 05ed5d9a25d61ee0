cdef enum:                  # Entry.reason: why a connection is closed; REASONS has the texts
    NOT_CLOSED
    BECAUSE_IDLE            # extra, and unused for idle_timeout
    BECAUSE_LIFETIME        # older than its lifetime
    BECAUSE_MAX_USES        # used max_uses times
    BECAUSE_BROKEN          # unfit when it was returned, or its reset was cut off
    BECAUSE_DEAD            # a check found it dead
    BECAUSE_DISCARDED       # closed at the request of its user, or of the manager
    BECAUSE_DRAINED
    BECAUSE_SHRUNK          # beyond a limit that was lowered
    BECAUSE_EVICTED         # idle, or just returned, when another acquire needed the slot
    BECAUSE_POOL_CLOSED
    REASON_COUNT


# Only unsigned long longs: they are handled as an array, in the order of COUNTERS. To add a counter, add a field here
# and its name there, at the same place.
cdef struct Counters:       # all [core], since the pool was made, or was reset in a forked child
    unsigned long long asked                # acquires that ended without a connection; the others are added when read
    unsigned long long acquires             # of forgotten endpoint pools; the others count their own
    unsigned long long waits
    unsigned long long timeouts
    unsigned long long cancelled
    unsigned long long too_many
    unsigned long long created
    unsigned long long create_errors
    unsigned long long refused
    unsigned long long checks
    unsigned long long checks_failed
    unsigned long long dead
    unsigned long long broken
    unsigned long long detached
    unsigned long long leaks
    unsigned long long disposed             # the sum of closed
    unsigned long long[REASON_COUNT] closed     # by reason, at the end of the close
    unsigned long long wait_ns
    unsigned long long create_ns
    unsigned long long use_ns               # computed when read: see PoolCore.use_time


cdef enum:                  # Waiter.counted: how an acquire is counted that continues, or has ended
    NOT_COUNTED             # it continues, or it was served
    COUNTED_UNSERVED
    COUNTED_SERVED          # it continues: close() closed the connection that it was served
    COUNTED_CONNECTING      # it continues, and will ask again: it has left a check to the pool


cdef struct Gauges:         # of an endpoint, or summed
    int size
    int idle
    int in_use
    int creating
    int checking
    int closing
    int waiting
    int endpoints
