# Bucket i has the times up to 2 ** (LOWEST_EXPONENT + i) seconds that the one before does not have.
cdef enum:
    LOWEST_EXPONENT = -20   # the first bucket has those up to 1 us
    BUCKETS = 34            # the last one has those beyond 4,096 s: it has no bound


cdef struct Histogram:
    unsigned long long[BUCKETS] counts


# Only Histograms: they are handled as an array, in the order of HISTOGRAMS.
cdef struct Histograms:     # fixed memory: nothing is allocated when a time is recorded
    Histogram wait          # [core]
    Histogram create        # [core]
    Histogram use           # [atomic] without the uses that began and ended within one tick of the coarse clock
