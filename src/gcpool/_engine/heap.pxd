cdef struct HeapItem:
    double key
    unsigned long long stamp
    void *item          # a HeapMember, borrowed


cdef struct Heap:       # [core]
    HeapItem *items
    Py_ssize_t used
    Py_ssize_t capacity
    Py_ssize_t reserved     # how many members may be pushed at any time: the capacity is never less


cdef class HeapMember:
    cdef Py_ssize_t heap_index              # [core] -1: not in a heap
