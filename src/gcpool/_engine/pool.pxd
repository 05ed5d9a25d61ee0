cdef class PoolCore:
    cdef object __weakref__
    cdef gcp_mutex lock
    cdef Map by_identity                    # [shard] address of an endpoint -> EndpointPool
    cdef Map by_hash                        # [shard] hash of an endpoint -> EndpointPool
    cdef Map by_spelling                    # [shard] hash of another spelling of an endpoint -> EndpointPool
    cdef Map by_connection                  # [shard] address of a connection -> Entry
    cdef Ancestor *ancestor                 # changes only in a forked child
    cdef Ancestor *ancestor_to_be           # [core] will be the ancestor of a forked child; NULL: no connection made
    cdef set entries                        # owns the entries of this process, and shows them to the garbage collector
    cdef IndexedHeap expiry                 # [core]
    cdef IndexedHeap wanting_slots          # [core] endpoint pools whose waiters want a slot and may have one
    cdef double due_at                      # [core] lowest key of the expiry queue; read without the lock
    cdef double wake_at                     # [core] when the collector will wake by itself
    cdef readonly object wake_collector     # set once; called outside the lock when something is due earlier
    cdef readonly object clock              # never changes; None: the system's
    cdef readonly object normalize          # never changes; None: an endpoint has no other spellings
    cdef int is_closed                      # [core]; read under [ep]
    cdef int wanting_count                  # [core] len(wanting_slots); read under [ep]
    cdef bint shrunk                        # [core] a limit was lowered once: sizes may be above it for a while
    cdef readonly int fork_epoch            # changes only in a forked child
    cdef int size                           # [core]; read without the lock
    cdef int closing                        # [core]
    cdef Relief relief                      # [core]
    cdef void *owners                       # [core] waiters that keep what they doomed
    cdef int min_idle                       # [core]; read under [ep]
    cdef int max_size                       # [core]; read under [ep]
    cdef int total_max_size                 # [core]; read under [ep]
    cdef readonly double idle_timeout       # never changes
    cdef readonly double max_lifetime       # never changes
    cdef readonly bint collects             # never changes: a background worker closes what is due
    cdef unsigned long long stamp           # orders releases on a build with the GIL
    cdef unsigned long long arrivals        # [core]
    cdef void *doomed_head                  # [core] to be closed, in this order
    cdef void *doomed_tail                  # [core]
    cdef int doomed_count                   # [core]; read without the lock
    cdef void *closers                      # [core] waiters for the pool to be empty
    cdef void *previous                     # list of all cores, for the forked child
    cdef void *following
    cdef unsigned long long acquires        # [core] of endpoints forgotten
    cdef unsigned long long created_        # [core]
    cdef unsigned long long create_errors   # [core]
    cdef unsigned long long dead_           # [core]
    cdef unsigned long long broken_         # [core]
    cdef unsigned long long disposed_       # [core]
    cdef unsigned long long waits           # [core]
    cdef unsigned long long timeouts        # [core]

    cdef double read_clock(self) except? -1
    cpdef double now(self) except? -1
    cpdef disposed(self, Entry e, Waiter w=*)
    cpdef Entry take_doomed(self)
    cpdef Entry take_own(self, Waiter w)
    cpdef int expired(self, double now, int limit) except -1
    cpdef bint cancel(self, Waiter w, double now) except -1
    cpdef adopt(self, Waiter w, Entry e)
    cpdef bint still_holds(self, Waiter w)
    cpdef bint begin_release(self, Entry e, unsigned int lease_no=*) except -1
    cpdef release(self, Entry e, double now, unsigned int lease_no=*)
    cpdef bint needs_check(self, Waiter w, double now, double interval)
    cpdef begin_check(self, Waiter w)
    cpdef end_check(self, Waiter w)
    cpdef mark_unchecked(self, Entry e)
    cpdef bint is_out(self, Entry e)
    cdef bint is_held(self, Entry e, unsigned int lease_no, char state)
    cpdef bint retire(self, Entry e) except -1
    cpdef bint retire_to_doomed(self, Entry e) except -1
    cdef Entry take_idle(self, object endpoint, double now, double interval)
    cdef Entry find_acquired_by_identity(self, object conn, object endpoint)
    cdef Entry entry_to_release(self, object conn, object endpoint)
    cdef int release_locked(self, Entry e, double now, Waiter keeper, unsigned int lease_no=*) except -1
    cdef bint release_fast(self, Entry e, double now, unsigned int lease_no) except -1
    cpdef Entry take_dead_entry(self, Waiter w)
