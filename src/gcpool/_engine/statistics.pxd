cdef struct Counters:       # since the process began; see PoolCore.stats()
    unsigned long long acquires             # [core] of endpoint pools that are forgotten; theirs have the others
    unsigned long long created
    unsigned long long create_errors
    unsigned long long dead
    unsigned long long broken
    unsigned long long disposed
    unsigned long long waits
    unsigned long long timeouts
