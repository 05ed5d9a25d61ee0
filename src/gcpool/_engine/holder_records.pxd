cdef enum:
    FRAMES = 8              # stored if a connection was ready
    MOST_FRAMES = 12        # stored if none was: some of them are the pool's own, and are not shown
    SLOTS_LOOKED_AT = 8     # in the search for a record that is not in use


# Who has acquired a connection, and where. A release has nothing to do: the record stays with the connection until the
# next acquire overwrites it, or another connection takes it. It is about the connection's holder only while the
# connection is in use and the lease numbers are equal.
cdef struct HolderRecord:       # [shard] of PoolCore.holder_records
    PyObject *who               # a ThreadMark, a weak reference to a task, or NULL
    unsigned int lease_no
    char is_long                # may be held for as long as its user likes
    char count
    int offsets[MOST_FRAMES]
    PyObject *codes[MOST_FRAMES]


# Stands for a thread. Its end is seen by a ThreadEnd in the thread's own dict.
cdef class ThreadMark:
    cdef readonly unsigned long ident       # never changes
    cdef object thread                      # never changes; weak reference to the Thread, or None
    cdef str first_name                     # never changes
    cdef int ended                          # [relaxed]


cdef class ThreadEnd:
    cdef ThreadMark mark                    # never changes
