cdef struct Ancestor:   # what is known of a process that this one was forked from; never changes
    Map connections     # its by_connection at the time of the fork
    Ancestor *ancestor
