cdef struct Relief:
    int epoch           # the latest time that was told, in units of RELIEF_TIME
    int current         # how many were doomed in this epoch for those who want a slot, and are not closed yet
    int previous        # the same, doomed in the epoch before it
