cdef struct Checks:
    Chain pending       # [core] entries that are CHECKING, whose check has not begun
    Heap timers         # [core] CheckTimers, by when their connections are to be checked, or an earlier time
    int is_late         # [core]; cleared without the lock: the worker would wake later than a check is due
    double wake_at      # [core] when the worker that calls begin_due_checks() will wake by itself
