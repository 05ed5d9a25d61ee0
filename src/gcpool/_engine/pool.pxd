cdef class PoolCore:
    cdef object __weakref__
    cdef gcp_mutex lock
    cdef Directory directory                # [shard] finds endpoint pools and entries
    cdef Ancestor *ancestor                 # the process that this one was forked from; changes only in a forked child
    cdef Ancestor *ancestor_to_be           # [core] what a forked child needs; NULL: no connection was created
    cdef set entries                        # owns the entries of this process, and shows them to the garbage collector
    cdef Deadlines deadlines
    cdef Heap wanting_slots                 # [core] endpoint pools whose waiters want a slot and may have one
    cdef Heap unserved                      # [core] the same, by the place since which they wait: see overtaking.pxi
    cdef readonly object wake_collector     # set once; called with no lock held when something is due earlier
    cdef readonly object clock              # never changes; None: the system's
    cdef public object describe             # set before the first use: the text of an endpoint; None: its repr
    cdef readonly object normalize          # never changes; None: an endpoint has no other spellings
    cdef int restrictions                   # [core]; read under [ep]
    cdef int wanting_count                  # [core] wanting_slots.used; read under [ep]
    cdef bint shrunk                        # [core] a limit was lowered: sizes may exceed it for a while
    cdef readonly int fork_epoch            # changes only in a forked child
    cdef int size                           # [core]; read without the lock
    cdef int closing                        # [core]
    cdef int connecting                     # [core] tickets of acquires, and acquires that will ask again
    cdef Relief relief                      # [core]
    cdef Overtaking overtaking              # [core]
    cdef Table release_watches              # [core] address of an endpoint pool -> its ReleaseWatch, if it has one
    cdef unsigned int drains                # [core] how often an endpoint was drained
    cdef int min_idle                       # [core]; read under [ep]
    cdef int max_size                       # [core]; read under [ep]
    cdef int total_max_size                 # [core]; read under [ep]
    cdef int max_waiting                    # [core] 0: no limit
    cdef object limits_                     # [core] what the facade keeps about the limits, or None
    cdef int out_mask                       # never changes; all bits: connections in use make up min_idle, too; or 0
    cdef bint serves_oldest                 # never changes; order='fifo'
    cdef readonly double idle_timeout       # never changes
    cdef readonly double max_lifetime       # [relaxed]
    cdef readonly bint collects             # never changes: a background worker closes what is due
    cdef readonly bint keeps_idle           # never changes; False: without a waiter, a returned connection is closed
    cdef unsigned long long stamp           # orders releases on a build with the GIL
    cdef unsigned long long arrivals        # [core]
    cdef Chain doomed_for_caller            # [core] closed by the call that doomed them, or else by the next release
    cdef Chain doomed_for_worker            # [core] closed by a worker
    cdef Jobs jobs
    cdef Chain watchers                     # [core] waiters until an entry is gone, or the pool is empty
    cdef Chain fill_watchers                # [core] waiters until every pinned endpoint has had its size
    cdef Heap retries                       # [core] Growth of endpoints in an outage
    cdef Linked short                       # [core] Growth of endpoints with fewer connections than their minimum
    cdef int reserved                       # [core]; read without the lock: slots reserved for the pool's creates
    cdef void *reserved_head                # [core] Growth of endpoints with reserved slots
    cdef void *reserved_tail                # [core]
    cdef Chain forgotten                    # [core] Growth of forgotten endpoint pools that core.kept still owns
    cdef set kept                           # owns the endpoint pools with growth; seen by the garbage collector
    cdef int must_call_workers              # [core]; read without the lock
    cdef int unfilled                       # [core] pinned endpoints that have not had their size yet
    cdef int min_size                       # [core]; read under [ep]
    cdef int core_size                      # [core]; read under [ep]: min_idle or min_size, whichever is more
    cdef double core_idle_timeout           # [core]; read under [ep]: idle_timeout with min_size, else infinite
    cdef readonly int max_connecting                 # never changes; 0: no limit
    # 0: a failed connect raises in its acquire. Whether it is 0 never changes.
    cdef readonly double reconnect_timeout           # [core]
    cdef double first_delay                 # [core] seconds of the first pause of an outage
    cdef double max_delay                   # [core] seconds of the longest pause
    cdef bint tells_again                   # [core] reconnect_failed is called again after each reconnect_timeout
    cdef int max_fills                      # [core] connects up to a minimum at the same time; 0: the default
    cdef readonly bint creates_in_background         # never changes
    cdef readonly bint fails_fast                    # never changes
    cdef int keeps_growth                   # [relaxed] every endpoint pool has its Growth; once set, it stays
    cdef bint fills_paused                  # [core] no worker was available: no minimum is filled before refill_at
    cdef double refill_at                   # [core]
    cdef int kept_epoch                     # [core] fork_epoch in which `kept` was made
    cdef dict pins                          # endpoint -> size: what a forked child fills again
    cdef int pins_epoch                     # fork_epoch in which the pins were last entered
    cdef readonly bint lacks_workers        # [relaxed] no worker was available when one was last called
    cdef object call_workers                # set once; called with no lock held; False: no worker is available
    cdef void *prev                         # [cores_lock] list of all cores
    cdef void *next                         # [cores_lock]
    cdef Counters counters                  # [core]
    cdef Counters popped                    # [core] what pop_stats() has shown
    cdef double use_time                    # [core] seconds of use, of forgotten endpoint pools
    cdef readonly bint records_holders      # never changes; who acquires a connection, and where, is recorded
    cdef bint records_tasks                 # set once: the holders are tasks
    cdef readonly double leak_threshold     # never changes; infinite: there is no search for leaks
    cdef readonly object wake_leak_watch    # never changes; called with no lock held when the search must begin
    cdef double leaks_looked_for_at         # [relaxed] when the next search for leaks is due; infinite: none is
    cdef Map holder_records                 # [shard] address of an entry -> its HolderRecord
    cdef Histograms histograms
    cdef Histograms popped_histograms       # [core] what pop_stats() has shown
    cdef unsigned long long cut_off_uses    # [core] connections that close() has closed while they were in use
    cdef Checks checks
    cdef readonly double lifetime_jitter    # never changes
    cdef readonly double keepalive_interval     # never changes; 0: idle connections are not checked in the background
    cdef dict check_timers                  # with keepalive: owns the timers of this process, by entry
    cdef readonly object wake_checker       # set once; called with no lock held when a check is due earlier
    cdef readonly unsigned int max_uses     # never changes; 0: no limit
    cdef readonly object random             # never changes; called with no lock held, returns a number in [0, 1)
    cdef public object name                 # set before the first use: the name of the pool, for messages; or None

    cpdef double now(self) except? -1
    cpdef disposed(self, Entry e, double now, bint by_worker=*)
    cpdef Entry take_doomed(self)
    cpdef Entry take_doomed_for_caller(self)
    cpdef Entry take_doomed_for_worker(self)
    cpdef int doom_due(self, double now, int limit, bint for_worker=*) except -1
    cpdef double relief_ends_at(self) noexcept
    cpdef double next_timer(self) noexcept
    cpdef Entry take_create(self, double now)
    cpdef bint grown(self, Entry ticket, object conn, double now) except -1
    cpdef int grow_cancelled(self, Entry ticket, double now) except -1
    cpdef bint cancel(self, Waiter w, double now) except -1
    cpdef adopt(self, Waiter w, Entry e)
    cpdef begin_create(self, Entry ticket, double now)
    cpdef bint still_holds(self, Waiter w) except -1
    cpdef bint begin_release(self, Entry e, unsigned int lease_no=*) except -1
    cpdef release(self, Entry e, double now, unsigned int lease_no=*)
    cpdef bint needs_check(self, Waiter w, double now, double interval)
    cpdef begin_check(self, Waiter w)
    cpdef end_check(self, Waiter w)
    cpdef bint leave_check_to_pool(self, Waiter w, double now) except -1
    cpdef int begin_due_checks(self, double now) except -1
    cpdef Entry take_check(self)
    cpdef bint begin_check_of_idle(self, Entry e) except -1
    cpdef bint end_check_by_pool(self, Entry e, object alive, double now) except -1
    cpdef mark_unchecked(self, Entry e, unsigned int lease_no=*)
    cpdef bint is_checked_out(self, Entry e, unsigned int lease_no=*)
    cpdef bint retire(self, Entry e, double now, unsigned int lease_no=*, bint discarded=*) except -1
    cpdef bint retire_to_doomed(
        self, Entry e, double now, unsigned int lease_no=*, bint discarded=*, bint was_fit=*
    ) except -1
    cpdef bint discard(self, Entry e, double now, bint to_doomed=*) except -1
