# HISTOGRAMS of the times that are summed in statistics.pxi. Each bucket is twice as wide as the one before: the bucket
# of a time is its binary exponent, which costs no loop and no table. The memory does not depend on how much is counted.
#
# A use within one tick of the coarse clock, as in a warm cycle, is not recorded: that would cost the hot path. How many
# there were follows from the number of acquires when they are read: those that have ended and are in no bucket.

# The names of the histograms, in the order of the struct.
HISTOGRAMS = ('wait', 'create', 'use')
assert sizeof(Histograms) == len(HISTOGRAMS) * sizeof(Histogram)

# The upper bounds of the buckets, in seconds.
BUCKET_BOUNDS = tuple([2.0 ** (LOWEST_EXPONENT + i) for i in range(BUCKETS - 1)]) + (INFINITY,)


cdef inline int bucket_of(double seconds) noexcept:
    # A bound belongs to its bucket.
    return min(max(gcp_ceiling_exponent(seconds) - LOWEST_EXPONENT, 0), BUCKETS - 1) if seconds > 0 else 0


cdef inline void record(Histogram *h, double seconds) noexcept:
    # Under the lock that guards the histogram.
    h.counts[bucket_of(seconds)] += 1


cdef void record_use(PoolCore core, double seconds) noexcept:
    # ep.lock is held: uses at other endpoints may end at the same time. Longer than a tick, so this is not the hot
    # path.
    gcp_count_up(&core.histograms.use.counts[bucket_of(seconds)])


cdef void copy_histograms(PoolCore core, Histograms *found) noexcept:
    # core.lock is held.
    cdef int i
    found[0] = core.histograms
    for i in range(BUCKETS):
        found.use.counts[i] = gcp_load_ulonglong(&core.histograms.use.counts[i])


cdef void add_short_uses(PoolCore core, Histograms *found, unsigned long long acquires, int in_use) noexcept:
    # core.lock is held. Adds the uses that have ended and were not recorded. Those that close() has cut off have not.
    cdef unsigned long long known = <unsigned long long>in_use + core.cut_off_uses
    cdef int i
    for i in range(BUCKETS):
        known += found.use.counts[i]
    if acquires > known:
        found.use.counts[0] += acquires - known


cdef dict show_histograms(Histograms *found, Counters *counters):
    # By name.
    cdef Histogram *each = <Histogram *>found
    cdef unsigned long long[3] sums = [counters.wait_ns, counters.create_ns, counters.use_ns]
    cdef int n, i
    shown = {}
    for n in range(3):
        counts = tuple([each[n].counts[i] for i in range(BUCKETS)])
        shown[HISTOGRAMS[n]] = TimeHistogram(BUCKET_BOUNDS, counts, sums[n] * 1e-9)
    return shown
