cdef class Observer:
    cdef readonly str name                  # never changes
    cdef object describe                    # never changes; None: an endpoint is shown as it is
    cdef readonly object events             # set once; None: there is no on_event
    cdef int told_of_rollback               # [atomic] a transaction was rolled back, and that was logged
    cdef bint has_failed                    # describe() has raised, and that was logged
    cdef dict connect_errors                # endpoint -> when its last connect failed, and how, if others waited there

    cdef int tell(
        self, str kind, object endpoint, int level, str message, tuple args, object reason, object duration,
        object error, bint traceback
    ) except -1
