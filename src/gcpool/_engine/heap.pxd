cdef struct HeapItem:
    double key
    unsigned long long stamp
    void *item          # a HeapMember, borrowed


cdef struct Heap:       # [core]
    HeapItem *items
    Py_ssize_t used
    Py_ssize_t capacity
    Py_ssize_t reserved     # for how many members there is room whenever they are pushed


cdef class HeapMember:
    cdef Py_ssize_t heap_index              # [core] -1: not in a heap
