cdef struct Overtaking:
    double told                 # the latest time that the core has received
    int epoch                   # the latest time at which a waiter asked, in units of OVERTAKING_EPOCH
    unsigned long long current  # PoolCore.arrivals when this epoch began
    unsigned long long previous     # the same, when the epoch before it began
    unsigned long long overdue      # the same, when the epoch before that began
    int place_epoch             # the latest time at which a place was kept or given, in units of KEPT_PLACE_TIME / 2
    Table kept_places           # hash of an endpoint -> the place that its last waiter left in this place epoch
    Table kept_places_before    # the same, in the place epoch before it
