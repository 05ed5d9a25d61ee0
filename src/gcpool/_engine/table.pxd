cdef struct Slot:
    size_t key          # an address or a hash
    void *value         # borrowed; NULL: the slot is free
    # In Directory.by_identity, with the GIL: the entry served last, and its connection. They are only prefetched, never
    # followed: both objects may have been freed. In Directory.by_hash, hint is a number: see Directory.added.
    void *hint
    void *hint_conn


cdef struct Table:      # open addressing, linear probing, no tombstones
    Slot *slots
    size_t mask
    int shift
    size_t used
    size_t version      # changes with every insertion and removal


cdef struct Shard:
    Table table
    gcp_mutex lock
    char padding[GCP_SHARD_PADDING]     # threads at different shards write to different cache lines


cdef struct Map:
    Shard shards[GCP_SHARDS]
