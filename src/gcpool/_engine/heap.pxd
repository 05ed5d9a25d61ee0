cdef struct HeapItem:
    double key
    unsigned long long stamp
    void *item          # a HeapMember, borrowed


cdef enum:              # Heap.kind: a member can be in one heap of each kind
    FIRST_KIND
    SECOND_KIND         # Deadlines.by_use, PoolCore.unserved


cdef struct Heap:       # [core]
    int kind
    HeapItem *items
    Py_ssize_t used
    Py_ssize_t capacity
    Py_ssize_t reserved     # how many members may be pushed at any time: the capacity is never less


cdef class HeapMember:
    cdef int heap_index                     # [core] its position in a heap of the first kind; -1: in none
    cdef int second_index                   # [core] the same, of the second kind
