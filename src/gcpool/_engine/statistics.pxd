cdef struct Counters:       # all [core], since the pool was made, or began anew in a forked child
    unsigned long long acquires             # of forgotten endpoint pools; the others count their own
    unsigned long long created
    unsigned long long create_errors
    unsigned long long dead
    unsigned long long broken
    unsigned long long disposed
    unsigned long long waits
    unsigned long long timeouts
    unsigned long long checks
    unsigned long long checks_failed
