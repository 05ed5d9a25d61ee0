cdef struct Deadlines:
    Heap queue          # [core] the expiry queue: entries by key, which is the deadline or an earlier time
    Heap by_use         # [core] the same entries by their last use: see eviction.pxi
    bint is_ordered_by_use      # [core] by_use is kept: an eviction has needed it
    double due_at       # [core] the lowest key in the queue; read without the lock
    double wake_at      # [core] when the collector will wake by itself
