cdef class PoolFacade:                     # set once
    cdef readonly PoolCore _core
    cdef readonly object _manager
    cdef readonly object _default_endpoint  # UNSET: the manager has none
    cdef readonly Observer _observer
    cdef readonly object _acquire_timeout
    cdef readonly object _dispose_timeout
    cdef readonly int _dispose_batch_size
    cdef readonly bint _checks
    cdef readonly bint _hooks_acquire
    cdef readonly bint _hooks_release
    cdef readonly bint _hooks_dead
    cdef readonly bint _hooks_broken        # a block that raises may break the connection: _judge() decides
    cdef readonly double _check_interval
    cdef double trusted_for                 # _check_interval, or 0 if the manager has no check
    cdef bint checks_always                 # each connection is checked before it is served
    cdef bint asks_before_use               # a ready connection needs a check, or a hook, or its holder is recorded
    cdef bint needs_manager                 # it needs a check, or a hook
    cdef readonly object _check_timeout
    cdef readonly object _create_timeout    # of connects by the pool itself
    cdef readonly object _reconnect_failed
    cdef readonly object _refusal           # the manager's is_refusal, if acquires wait after refusals; else None
    cdef readonly object _hopeless          # the manager's is_hopeless, or that of its base class
    cdef readonly bint _watches_outages     # failed connects are reported to the core
    cdef unsigned int unpatched_version     # [relaxed] version of the type if acquire and release are the base's, or 0
    cdef int replaced                       # [core]; read without the lock. Set on the pool: 1 acquire, 2 release
    # The state of the Python halves. These are slots, because since 3.12 the interpreter finds the methods of an object
    # slowly once the object has its own dict, and even ConnectionPool[...]() would make one.
    cdef public object _tasks
    cdef public object _waits               # on asyncio: the waiter of each task that waits; logs those that last long
    cdef public object _collector
    cdef public object _workers
    cdef public object _waiting             # on threads: the waiter in each thread that waits, by the thread's identity
    cdef public object _close_timeout
    cdef public object _holding             # what is known of those who hold connections
    cdef public object __orig_class__
    cdef readonly bint _judges              # the manager has is_broken()
    cdef readonly bint _broken_on_cancel
    cdef readonly double _check_limit       # seconds that a check by the pool may take

    cdef inline bint is_alive(self, object answer) except -1
    cdef bint look_for_overrides(self) except -1
    cdef int doom_due(self, double now) except -1
    cdef int release_unreset(self, Entry e, unsigned int lease_no, bint hook_ended) except -1
    cdef int release_dropped_lease(self, Entry e, unsigned int lease_no, char state) except -1
