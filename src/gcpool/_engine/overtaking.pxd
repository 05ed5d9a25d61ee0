cdef struct Overtaking:
    int epoch                   # the latest time that the core was told, in units of MAX_OVERTAKING_TIME / 2
    unsigned long long current  # the last place that was served before another endpoint's, in this epoch; 0: none
    unsigned long long previous     # the same, in the epoch before it
    unsigned long long earlier      # the same, in all epochs before that
    Table kept_places           # hash of an endpoint -> the place that its last waiter left behind in this epoch
    Table kept_places_before    # the same, in the epoch before it
