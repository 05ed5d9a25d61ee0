cdef struct Deadlines:
    Heap queue          # [core] the expiry queue: entries by key, which is the deadline or an earlier time
    double due_at       # [core] the lowest key in the queue; read without the lock
    double wake_at      # [core] when the collector will wake by itself
