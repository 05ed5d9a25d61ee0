cdef struct Deadlines:
    Heap queue          # [core] the expiry queue: entries, by their deadlines or earlier times
    double due_at       # [core] lowest key in the queue; read without the lock
    double wake_at      # [core] when the collector will wake by itself
