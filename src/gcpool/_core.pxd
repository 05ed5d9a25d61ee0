# Declarations of the compiled core. Every mutable field says which lock guards it:
#   [core]     PoolCore.lock
#   [ep]       EndpointPool.lock of the endpoint pool concerned
#   [core+ep]  written under both, so it may be read under either
#   [owner]    only the thread or task that owns the object
# Locks are taken in the order core, endpoint pool, shard, and at most one of each kind at a time. On a build with the
# GIL all of them are empty: a locked region runs no Python code, so the GIL makes it atomic.

cdef extern from *:
    """
    #include <time.h>

    #ifdef HAVE_FORK
      #include <pthread.h>
      #include <unistd.h>
      #define gcp_call_in_child(f) ((void)pthread_atfork(NULL, NULL, (f)))
      #define gcp_process_id() ((long)getpid())
    #else
      #define gcp_call_in_child(f) ((void)(f))
      #define gcp_process_id() 0L
    #endif

    /* Take a reference that is never given back. Needs no thread state; the process must have one thread only. */
    #define gcp_keep_for_good(o) Py_SET_REFCNT((PyObject *)(o), Py_REFCNT((PyObject *)(o)) + 1)

    #ifdef Py_GIL_DISABLED
      typedef PyMutex gcp_mutex;
      #define gcp_is_locked(m) ((m)->_bits & 1)
      #define gcp_lock(m) PyMutex_Lock(m)
      #define gcp_unlock(m) PyMutex_Unlock(m)
      /* Endpoint lookups of different threads should not meet at one lock. */
      enum { GCP_SHARDS = 16, GCP_SHARED_STAMP = 0 };
      #define gcp_load_int(p) _Py_atomic_load_int_relaxed(p)
      #define gcp_store_int(p, v) _Py_atomic_store_int_relaxed((p), (v))
      static inline double gcp_load_double(double *p) {
          union { int64_t i; double d; } u;
          u.i = _Py_atomic_load_int64_relaxed((int64_t *)p);
          return u.d;
      }
      static inline void gcp_store_double(double *p, double v) {
          union { int64_t i; double d; } u;
          u.d = v;
          _Py_atomic_store_int64_relaxed((int64_t *)p, u.i);
      }
    #else
      typedef unsigned char gcp_mutex;
      #define gcp_is_locked(m) 0
      enum { GCP_SHARDS = 1, GCP_SHARED_STAMP = 1 };
      #ifdef GCPOOL_ASSERT
        /* Python code that runs inside a locked region would show itself here, by coming back into the core. */
        static void gcp_lock(gcp_mutex *m) {
            if (*m) Py_FatalError("gcpool: the lock is taken already: Python code ran under it");
            *m = 1;
        }
        static void gcp_unlock(gcp_mutex *m) {
            if (!*m) Py_FatalError("gcpool: the lock is not taken");
            *m = 0;
        }
      #else
        #define gcp_lock(m) ((void)(m))
        #define gcp_unlock(m) ((void)(m))
      #endif
      #define gcp_load_int(p) (*(p))
      #define gcp_store_int(p, v) (*(p) = (v))
      #define gcp_load_double(p) (*(p))
      #define gcp_store_double(p, v) (*(p) = (v))
    #endif

    /* Asks for a cache line ahead of its use. */
    #if defined(__GNUC__) || defined(__clang__)
      #define gcp_prefetch(p) __builtin_prefetch((const char *)(p))
    #else
      #define gcp_prefetch(p) ((void)(p))
    #endif

    #ifdef GCPOOL_ASSERT
      #define GCP_ASSERTS 1
      #define gcp_assert(c) do { if (!(c)) Py_FatalError("gcpool: assertion failed: " #c); } while (0)
    #else
      #define GCP_ASSERTS 0
      #define gcp_assert(c) ((void)0)
    #endif

    /* Monotonic seconds. The coarse one lags by a timer tick (some ms) where the system has such a clock, and costs a
       fifth; both run on one time line. */
    #if defined(_WIN32)
      #define WIN32_LEAN_AND_MEAN
      #include <windows.h>
      static double gcp_monotonic(void) {
          static double scale = 0.0;
          LARGE_INTEGER v;
          if (scale == 0.0) { QueryPerformanceFrequency(&v); scale = 1.0 / (double)v.QuadPart; }
          QueryPerformanceCounter(&v);
          return (double)v.QuadPart * scale;
      }
      #define gcp_monotonic_coarse gcp_monotonic
    #else
      static inline double gcp_read_clock(clockid_t id) {
          struct timespec t;
          clock_gettime(id, &t);
          return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
      }
      #if defined(__APPLE__)
        static double gcp_monotonic(void) { return gcp_read_clock(CLOCK_UPTIME_RAW); }
        static double gcp_monotonic_coarse(void) { return gcp_read_clock(CLOCK_UPTIME_RAW_APPROX); }
      #elif defined(CLOCK_MONOTONIC_COARSE)
        static double gcp_monotonic(void) { return gcp_read_clock(CLOCK_MONOTONIC); }
        static double gcp_monotonic_coarse(void) { return gcp_read_clock(CLOCK_MONOTONIC_COARSE); }
      #else
        static double gcp_monotonic(void) { return gcp_read_clock(CLOCK_MONOTONIC); }
        static double gcp_monotonic_coarse(void) { return gcp_read_clock(CLOCK_MONOTONIC); }
      #endif
    #endif
    """
    ctypedef struct gcp_mutex:
        pass
    void gcp_lock(gcp_mutex *) noexcept nogil
    void gcp_unlock(gcp_mutex *) noexcept nogil
    bint gcp_is_locked(gcp_mutex *) noexcept nogil
    void gcp_call_in_child(void (*)() noexcept) noexcept
    long gcp_process_id() noexcept nogil
    void gcp_keep_for_good(void *) noexcept nogil
    int gcp_load_int(int *) noexcept nogil
    void gcp_store_int(int *, int) noexcept nogil
    double gcp_load_double(double *) noexcept nogil
    void gcp_store_double(double *, double) noexcept nogil
    void gcp_assert(bint) noexcept nogil
    void gcp_prefetch(void *) noexcept nogil
    double gcp_monotonic() noexcept nogil
    double gcp_monotonic_coarse() noexcept nogil
    enum: GCP_SHARDS
    enum: GCP_SHARED_STAMP
    enum: GCP_ASSERTS


cdef struct Slot:
    size_t key          # an address or a hash
    void *value         # borrowed; NULL: the slot is free
    void *hint          # PoolCore.by_identity, with the GIL: the entry served last, and its connection. Addresses to
    void *hint_conn     # ask the memory for, never followed: they may be of what is gone


cdef struct Table:      # open addressing, linear probing, no tombstones
    Slot *slots
    size_t mask
    int shift
    size_t used
    size_t version      # changes with every insertion and removal


cdef struct Map:
    Table tables[GCP_SHARDS]
    gcp_mutex locks[GCP_SHARDS]


cdef struct Ancestor:   # a process that this one was forked from. Nothing of it changes
    Map connections     # by_connection when it forked
    Ancestor *ancestor


cdef struct HeapItem:
    double key
    unsigned long long stamp
    void *item          # a HeapMember, borrowed


cdef class PoolCore


cdef class Spelling:                        # a way to write an endpoint that normalize() knows as another one
    cdef object endpoint                    # never changes
    cdef Py_hash_t hash                     # never changes
    cdef Spelling next                      # [ep] the spelling seen before this one


cdef class HeapMember:
    cdef Py_ssize_t heap_index              # [core] -1: not in a heap


cdef class IndexedHeap:
    cdef HeapItem *items                    # [core]
    cdef Py_ssize_t used                    # [core]
    cdef Py_ssize_t capacity                # [core]
    cdef Py_ssize_t promised                # [core] how many places nobody has to reserve any more

    cdef void begin_anew(self) noexcept nogil
    cdef bint make_room(self, Py_ssize_t room) noexcept
    cdef void put(self, Py_ssize_t i, HeapItem item) noexcept
    cdef void sift_up(self, Py_ssize_t i) noexcept
    cdef void sift_down(self, Py_ssize_t i) noexcept
    cdef void push(self, void *member, double key, unsigned long long stamp) noexcept
    cdef void rekey(self, void *member, double key, unsigned long long stamp) noexcept
    cdef void remove(self, void *member) noexcept


# The order of the fields is that of two cache lines: with many endpoints a cycle costs what it misses. A line ends
# where the comment says so (on a 64-bit build with the GIL); the sizes make the allocator begin each object at a line.

cdef class EndpointPool(HeapMember):        # heap: PoolCore.starving, key: number of the waiter at the head
    cdef gcp_mutex lock
    cdef void *core_head                    # [ep] idle core connections, first in, first out
    cdef void *core_tail                    # [ep]
    cdef void *extra_tail                   # [ep] idle extra connections, last in, first out
    cdef void *waiter_head                  # [ep] first come, first served
    # -- 64 bytes
    cdef int acquired                       # [ep]
    cdef int core_idle                      # [ep]
    cdef int extra_idle                     # [ep]
    cdef readonly int size                  # [core+ep] idle, acquired, creating and closing together
    cdef unsigned long long acquires        # [ep]
    cdef readonly object endpoint           # never changes
    cdef unsigned long long stamp           # [ep] orders releases within one reading of the coarse clock
    cdef void *extra_head                   # [ep]
    cdef int waiting                        # [ep]
    cdef int creating                       # [core+ep]
    cdef int closing                        # [core+ep]
    cdef char forgotten                     # [core+ep]
    cdef char has_place                     # [core] one of PoolCore.starving is promised to it
    # -- 128 bytes
    cdef void *waiter_tail                  # [ep]
    cdef object alias                       # [ep] another object equal to the endpoint, the last one seen
    cdef Py_hash_t hash                     # never changes
    cdef int generation                     # never changes; PoolCore.generation at birth
    cdef unsigned int suspicion             # [ep] how often a connection was found dead, or broken
    cdef Spelling spellings                 # [ep] other spellings of the endpoint, the latest first


cdef class Entry(HeapMember):               # heap: PoolCore.expiry, key: its deadline or an earlier one
    cdef object conn_                       # set once, by the ticket's owner
    cdef EndpointPool pool                  # set once, before the entry is shared
    cdef void *prev                         # [ep] idle list
    cdef void *next                         # [ep] idle list; [core] list of the doomed
    cdef double expires_at                  # set once: end of its lifetime
    # -- 64 bytes
    cdef char state                         # [ep]
    cdef char is_core                       # [ep] says which idle list
    cdef char forced                        # [ep] closed while it was out: its release is nothing
    cdef char broken                        # [owner] unfit: its release disposes of it
    cdef unsigned int turn                  # [ep] how often it was acquired
    cdef double used_at                     # [ep]
    cdef double heap_key                    # [core+ep] infinite: not in the expiry queue
    cdef unsigned long long stamp           # [ep] order of release
    cdef int generation                     # never changes; PoolCore.generation at birth
    cdef unsigned int trust                 # [ep] EndpointPool.suspicion when it was last known to be alive
    cdef char unsure                        # [ep] a check or a hook was cut off: to be checked, however fresh
    cdef char helps                         # [core] doomed for somebody who waits for a slot: PoolCore.helping
    cdef char padding[2]
    cdef int help_epoch                     # [core] when it was doomed for them: PoolCore.help_epoch


cdef class Waiter:
    cdef readonly object endpoint           # [owner] as the caller wrote it; once the pool is found, its own
    cdef PoolCore core                      # [owner] whose queue it was in
    cdef EndpointPool pool                  # [owner]
    cdef Entry entry                        # [ep] while queued, else [owner]
    cdef Entry spare                        # [ep] the ticket that it may get: nothing is allocated under a lock
    cdef Entry corpse                       # [owner] found dead and not disposed of yet
    cdef object notify                      # [owner] before it is queued; called once after, outside every lock
    cdef int state                          # [ep]
    cdef unsigned long long number          # set once: order of arrival
    cdef void *prev                         # [ep]
    cdef void *next                         # [ep]; afterwards links those to be notified
    cdef double queued_at                   # [owner]
    cdef bint has_waited                    # [core]
    cdef char keeps                         # [owner] what it dooms is its own to dispose of
    cdef char disposes                      # [ep] it is at it
    cdef void *own_head                     # [core] that, in this order
    cdef void *own_tail                     # [core]
    cdef void *previous_owner               # [core] list of those who keep any: PoolCore.owners
    cdef void *next_owner                   # [core]
    cdef unsigned int suspicion             # [owner] EndpointPool.suspicion when the check of its connection began


cdef class PoolCore:
    cdef object __weakref__
    cdef gcp_mutex lock
    cdef Map by_identity                    # [shard] address of an endpoint -> EndpointPool
    cdef Map by_hash                        # [shard] hash of an endpoint -> EndpointPool
    cdef Map by_spelling                    # [shard] hash of another spelling of an endpoint -> EndpointPool
    cdef Map by_connection                  # [shard] address of a connection -> Entry
    cdef Ancestor *ancestor                 # changes only in a forked child
    cdef Ancestor *ancestor_to_be           # [core] will be the ancestor of a forked child; NULL: no connection made
    cdef set entries                        # made by own_entries(); owns the entries, and shows them to the collector
    cdef IndexedHeap expiry                 # [core]
    cdef IndexedHeap starving               # [core] endpoint pools whose waiters want a slot and may have one
    cdef double due_at                      # [core] lowest key of the expiry queue; read without the lock
    cdef double wake_at                     # [core] when the collector will wake by itself
    cdef readonly object wake_collector     # set once; called outside the lock when something is due earlier
    cdef readonly object clock              # never changes; None: the system's
    cdef readonly object normalize          # never changes; None: an endpoint has no other spellings
    cdef int is_closed                      # [core]; read under [ep]
    cdef int starving_count                 # [core]; read under [ep]
    cdef bint shrunk                        # [core] a limit was lowered once: sizes may be above it for a while
    cdef readonly int generation            # changes only in a forked child
    cdef readonly int size                  # [core]; read without the lock
    cdef int closing                        # [core]
    cdef int help_epoch                     # [core] the latest time that was told, in units of HELP_TIME
    cdef int helping_now                    # [core] how many are being closed for those who wait, since that
    cdef int helping_before                 # [core] the same, doomed in the epoch before it
    cdef void *owners                       # [core] waiters that keep what they doomed
    cdef readonly int min_idle              # [core]; read under [ep]
    cdef readonly int max_size              # [core]; read under [ep]
    cdef readonly int total_max_size        # [core]; read under [ep]
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
    cpdef bint confirm(self, Waiter w)
    cpdef bint begin_release(self, Entry e) except -1
    cpdef release(self, Entry e, double now)
    cpdef bint doubts(self, Waiter w, double now, double interval)
    cpdef begin_check(self, Waiter w)
    cpdef end_check(self, Waiter w)
    cpdef doubt(self, Entry e)
    cpdef bint is_out(self, Entry e)
    cpdef bint condemn(self, Entry e) except -1
    cpdef bint discard(self, Entry e) except -1
    cdef bint take_out(self, Entry e, bint queue) except -1
    cdef EndpointPool find(self, object endpoint)
    cdef EndpointPool find_seen(self, object endpoint)
    cdef EndpointPool find_in(self, Map *where, object endpoint, Py_hash_t hash_, size_t *version)
    cdef bint is_spelled(self, EndpointPool ep, object endpoint, Py_hash_t hash_) except -1
    cdef bint leads_to(self, EndpointPool ep, object endpoint) except -1
    cdef object normalized(self, object endpoint)
    cdef EndpointPool find_or_add(self, object endpoint)
    cdef EndpointPool find_or_add_equal(self, object endpoint, Py_hash_t hash_)
    cdef Spelling new_spelling(self, object endpoint, object counts_as)
    cdef void add_spelling(self, EndpointPool ep, Spelling new)
    cdef void forget_spelling(self, EndpointPool ep, void *p) noexcept
    cdef bint add_identity(self, EndpointPool ep, object endpoint) noexcept
    cdef void set_alias(self, EndpointPool ep, object endpoint)
    cdef void forget_if_empty(self, EndpointPool ep) noexcept
    cdef Entry take_idle(self, object endpoint, double now, double interval)
    cdef Entry find_at_once(self, object conn, object endpoint)
    cdef Entry find_out(self, object conn, object endpoint)
    cdef int let_go(self, Entry e) except -1
    cdef int give_back(self, Entry e, double now, Waiter keeper) except -1
    cdef int release_entry(self, Entry e, double now) except -1
    cdef void keep_idle(self, EndpointPool ep, Entry e, double now, bint is_core) noexcept
    cdef void doom(self, EndpointPool ep, Entry e) noexcept
    cdef void queue_doomed(self, Entry e) noexcept
    cpdef Entry take_corpse(self, Waiter w)
    cdef void set_due(self) noexcept
    cdef void *settle(self, double limit) noexcept
    cdef void *evict(self, double limit) noexcept
    cdef void own(self, Waiter w, void *tail) noexcept
    cdef void disown(self, Waiter w) noexcept
    cdef void *serve_idler(self, Waiter w) noexcept
    cdef void owns_nothing(self, Waiter w) noexcept
    cdef void share(self, Waiter w) noexcept
    cdef void set_disposes(self, Waiter w, bint disposes) noexcept
    cdef bint needs_help(self) noexcept
    cdef bint first_is_held_up(self) noexcept
    cdef int lacking(self, bint held_up) noexcept
    cdef void help(self, void *p) noexcept
    cdef bint pass_time(self, double now) noexcept
    cdef void serve_ticket(self, EndpointPool ep, Waiter w) noexcept
    cdef void enqueue(self, EndpointPool ep, Waiter w) noexcept
    cdef bint dequeue(self, EndpointPool ep, void *p) noexcept
    cdef void starve(self, EndpointPool ep) noexcept
    cdef void *dispatch(self) noexcept
    cdef void *after_slot_freed(self, EndpointPool ep) noexcept
    cdef void *take_closers(self) noexcept
    cdef int call_collector(self) except -1
    cdef void forget_wake(self) noexcept
    cdef int fail(self, Entry ticket, Waiter w) except -1
    cdef list endpoint_pools(self)
    cdef void begin_anew(self) noexcept nogil
    cdef set own_entries(self)
    cdef bint is_inherited(self, object conn) noexcept


cdef class GuardedLogger:
    cdef object logger                      # never changes

    cdef int write(self, object method, object message, tuple args) except -1
    cdef int write_unraisable(self, object exc) except -1


cdef class PoolFacade:                     # set once
    cdef readonly PoolCore _core
    cdef readonly object _manager
    cdef readonly object _acquire_timeout
    cdef readonly object _dispose_timeout
    cdef readonly int _dispose_batch_size
    cdef readonly bint _checks
    cdef readonly bint _hooks_acquire
    cdef readonly bint _hooks_release
    cdef readonly bint _hooks_dead
    cdef readonly bint _hooks_broken
    cdef readonly double _check_interval
    cdef double fresh_for                   # _check_interval, or 0 where nothing is ever checked
    cdef readonly object _check_timeout
    cdef unsigned int plain_type            # [relaxed] version of the type if it replaces neither acquire nor release
    cdef set replaced                       # names of those set on the pool itself; None: neither ever was
    # What the Python halves keep. In slots: since 3.12 the interpreter finds the methods of an object the slow way once
    # the object has a dict of its own, which even ConnectionPool[...]() would give it.
    cdef public object _tasks
    cdef public object _signals
    cdef public object _worker
    cdef public object __orig_class__

    cdef bint is_overridden(self) except -1
    cdef bint find_overrides(self) except -1
    cdef int find_due(self, double now) except -1
    cdef int give_back_untidied(self, Entry e, bint whole) except -1


cdef class SyncPool(PoolFacade):
    cdef Entry acquire_entry(self, object endpoint, object timeout)
    cdef Entry acquire_slowly(self, object endpoint, object timeout, Entry e)
    cdef int release_entry(self, Entry e) except -1
    cdef int finish_release(self, Entry e) except -1
    cdef int release_after_error(self, Entry e, object exc) except -1
    cdef int discard_entry(self, Entry e) except -1
    cdef int dispose_due(self) except -1
    cdef int drain(self, double deadline) except -1
    cdef int drain_own(self, Waiter w, double deadline) except -1
    cdef int dispose_entry(self, Entry e, double deadline, Waiter w) except -1


cdef class SyncConnectionContext:           # [owner]
    cdef SyncPool pool
    cdef object endpoint
    cdef object timeout
    cdef Entry entry                        # None: not entered
    cdef unsigned int turn                  # which acquire of the entry it is

    cdef int abandon(self) except -1


cdef class AsyncPool(PoolFacade):
    cdef object loop                        # [loop] the one that the pool belongs to
    cdef object loop_mark                   # [loop] see gcp_loop_mark()
    cdef int loop_generation                # [loop]

    cdef int check_loop(self) except -1
    cdef int refuse_other_loop(self) except -1
    cdef bint elsewhere(self) except -1
    cdef bint in_own_loop(self) except -1
    cdef int bind(self) except -1
    cdef object acquire_ready(self, object endpoint, object timeout)
    cdef object release_or_tell(self, Entry e)
    cdef object release_or_fail(self, object conn, object endpoint)
    cdef int abandon_entry(self, Entry e, unsigned int turn) except -1
    cpdef object _release_entry(self, Entry e)


cdef class AsyncConnectionContext:
    cdef AsyncPool pool
    cdef object endpoint
    cdef object timeout
    cdef Entry entry
    cdef unsigned int turn


cdef class PoolCoroutine:                   # [owner]
    cdef AsyncPool pool
    cdef object endpoint
    cdef object argument
    cdef object inner
    cdef int kind
    cdef int state
    cdef unsigned int turn                  # that of the entry that a LEAVE gives back
    cdef Waiter waiter                      # of an ACQUIRE or ENTER that has to wait

    cdef object first_step(self)
    cdef object end_inner(self, object value)
    cdef int end_unbegun(self) except -1
    cdef int see_to_entry(self) except -1


cdef class ManagerCall:                     # [owner]
    cdef object call
    cdef object inner                       # None: not begun

    cdef object begin(self)
    cdef object returned(self, object value)
    cdef int failed(self) except -1


cdef class CreateCall(ManagerCall):
    cdef PoolCore core
    cdef Entry ticket


cdef class Disposal(ManagerCall):
    cdef AsyncPool pool
    cdef PoolCore core                      # kept here, too: a pool that is garbage may have dropped its reference
    cdef readonly Entry entry               # None: it has ended


cdef class Lane(ManagerCall):
    pass


cdef class Signal:                          # [loop]
    cdef public bint _asyncio_future_blocking   # for the task, which reads and clears it
    cdef object loop
    cdef list calls                         # [callback, context], the callback None when it was called
    cdef object message
    cdef bint rung
    cdef bint cancelled_

    cdef int call_soon(self, list call) except -1
