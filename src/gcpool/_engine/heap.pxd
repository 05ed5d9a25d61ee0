cdef struct HeapItem:
    double key
    unsigned long long stamp
    void *item          # a HeapMember, borrowed


cdef enum:              # Heap.kind: a member can be in one heap of each kind
    BY_KEY
    BY_USE


cdef struct Heap:       # [core]
    int kind            # BY_KEY unless it is set
    HeapItem *items
    Py_ssize_t used
    Py_ssize_t capacity
    Py_ssize_t reserved     # how many members may be pushed at any time: the capacity is never less


cdef class HeapMember:
    cdef int heap_index                     # [core] its position in the heap BY_KEY; -1: in none
    cdef int use_index                      # [core] the same, in the heap BY_USE
