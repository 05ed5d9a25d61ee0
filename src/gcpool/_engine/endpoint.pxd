# CACHE LINES. Here and in Entry, the fields that a cycle uses stand together in as few cache lines as possible: among
# many endpoints, a cycle costs what it misses in the cache. The comments say where a line ends (on a 64-bit build with
# the GIL). The sizes of the objects make the allocator begin each of them at a line.

cdef class EndpointPool(HeapMember):        # heap: PoolCore.wanting_slots, key: place of the first waiter
    cdef gcp_mutex lock
    cdef char forgotten                     # [core+ep]
    cdef char has_heap_slot                 # [core] a place in PoolCore.wanting_slots is reserved
    cdef char is_watched                    # [core+ep] it has a ReleaseWatch: each release takes core.lock
    cdef readonly int size                  # [core+ep] the sum of the counts, and of those that are CHECKING
    cdef Linked core                        # [ep] idle core connections, first in, first out
    cdef Linked extra                       # [ep] idle extra connections, last in, first out
    # -- 64 bytes
    cdef int[6] counts                      # [ep] of the entries, by state but CHECKING; [core+ep] CREATING, CLOSING
    cdef int waiting                        # [ep]
    cdef int core_size                      # [core+ep] PoolCore.core_size, or the pinned size
    cdef unsigned long long acquires        # [ep]
    cdef readonly object endpoint           # never changes
    cdef gcp_marks marks                    # [ep] seconds of use; without the GIL also the last release's stamp
    cdef Linked queue                       # [ep] the waiters, first come, first served
    # -- 128 bytes: the line ends in the middle of `queue`, whose head every release looks at
    cdef object alias                       # [ep] the object equal to the endpoint that was seen last
    cdef Py_hash_t hash                     # never changes
    cdef int fork_epoch                     # never changes; PoolCore.fork_epoch at birth
    cdef unsigned int distrust_count        # [ep] how often a connection was found dead, or broken
    cdef Spelling spellings                 # [ep] other spellings of the endpoint, the latest first
    cdef Growth growth                      # [core+ep] set once; None: the pool itself creates no connection for it
