cdef struct Relief:
    int epoch           # the latest time that the core received, in units of RELIEF_TIME
    int current         # how many closes for endpoints that want a slot began in this epoch, and have not ended
    int previous        # the same, of the epoch before it
