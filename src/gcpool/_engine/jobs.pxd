cdef enum:              # Entry.job: what a worker does with the connection
    NO_JOB
    CLOSE_JOB
    CREATE_JOB
    CHECK_JOB
    JOB_KINDS


cdef struct Jobs:
    int max_workers             # [core]; read without the lock: how many jobs may be at work at a time; 0: no limit
    int at_work[JOB_KINDS]      # [core]; read without the lock: jobs that workers have begun and not ended, by kind
    int all_at_work             # [core]; read without the lock
