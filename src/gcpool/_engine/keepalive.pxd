cdef class CheckTimer(HeapMember):          # heap: Checks.timers, key: when its connection is to be checked, or earlier
    cdef Entry entry                        # never changes
    cdef double interval                    # never changes; keepalive_interval, up to 10 % shorter
    cdef double checked_at                  # [core] when the connection was created, or last checked by the pool
