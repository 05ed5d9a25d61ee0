cdef struct Ancestor:   # a process that this one was forked from. Nothing of it changes
    Map connections     # by_connection when it forked
    Ancestor *ancestor
