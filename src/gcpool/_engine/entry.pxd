cdef enum:                  # Entry.mark.relief, bits
    IS_RELIEF = 1           # its close counts as relief, in epoch.relief
    WAITER_EXPIRES_IT = 2   # the waiter that had it doomed calls expire_relief() in time


cdef union EntryMark:
    char was_core           # while the state is CHECKING: whether it was idle core before
    char relief             # once it is doomed


cdef union EntryEpoch:
    unsigned int birth      # PoolCore.drains when the connect began; until the entry is doomed
    int relief              # Relief.epoch when the entry was doomed; of an entry that is relief


cdef class Entry(HeapMember):               # heap: Deadlines.queue, key: its deadline or an earlier time
    cdef object conn_                       # set once, by the ticket's owner
    cdef EndpointPool pool                  # set once, before the entry is shared
    cdef void *prev                         # [ep] idle list
    cdef void *next                         # [ep] idle list; [core] list of the doomed
    cdef double expires_at                  # [ep] end of its lifetime; set at birth, and by its last use: use_up()
    # -- 64 bytes
    cdef char state                         # [ep]
    cdef char closed_while_out              # [ep] set by close(): the entry's release does nothing
    cdef char broken                        # [owner] the connection is unfit: its release closes it
    cdef char check_pending                 # [ep] check before serving, however recently it was used
    cdef unsigned int lease_no              # [ep] how often the connection was acquired
    cdef double used_at                     # [ep]
    cdef double heap_key                    # [core+ep] infinite: not in the expiry queue
    cdef unsigned long long stamp           # [ep] order of release
    cdef int fork_epoch                     # never changes; PoolCore.fork_epoch at birth
    cdef unsigned int verified_at           # [ep] EndpointPool.distrust_count when the connection was last seen alive
    cdef EntryMark mark                     # [core]
    cdef char job                           # [core] what a worker does with it
    cdef char given_up                      # [ep] discarded or detached by its user: the end of a context does nothing
    cdef char reason                        # [core] why it is closed; set when it is doomed
    cdef EntryEpoch epoch                   # [core]
