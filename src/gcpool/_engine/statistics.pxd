cdef enum:                  # Entry.reason: why a connection is closed; REASONS has the texts
    NOT_CLOSED
    BECAUSE_IDLE            # extra, and unused for idle_timeout
    BECAUSE_LIFETIME        # older than its lifetime
    BECAUSE_MAX_USES        # used as often as it may be
    BECAUSE_BROKEN          # unfit when it was returned, or its reset was cut off
    BECAUSE_DEAD            # a check found it dead
    BECAUSE_DISCARDED       # its user, or the manager, asked for that
    BECAUSE_DRAINED
    BECAUSE_SHRUNK          # beyond a limit that was lowered
    BECAUSE_EVICTED         # idle, or just returned, when another acquire needed the slot
    BECAUSE_POOL_CLOSED
    REASON_COUNT


cdef struct Counters:       # all [core], since the pool was made, or began anew in a forked child
    unsigned long long acquires             # of forgotten endpoint pools; the others count their own
    unsigned long long created
    unsigned long long create_errors
    unsigned long long refused
    unsigned long long dead
    unsigned long long broken
    unsigned long long disposed             # the sum of closed
    unsigned long long waits
    unsigned long long timeouts
    unsigned long long checks
    unsigned long long checks_failed
    unsigned long long[REASON_COUNT] closed     # by reason, at the end of the close
