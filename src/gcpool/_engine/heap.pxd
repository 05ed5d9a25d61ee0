cdef struct HeapItem:
    double key
    unsigned long long stamp
    void *item          # a HeapMember, borrowed


cdef class HeapMember:
    cdef Py_ssize_t heap_index              # [core] -1: not in a heap


cdef class IndexedHeap:
    cdef HeapItem *items                    # [core]
    cdef Py_ssize_t used                    # [core]
    cdef Py_ssize_t capacity                # [core]
    cdef Py_ssize_t reserved                # [core] for how many members there is room whenever they are pushed

    cdef void begin_anew(self) noexcept nogil
    cdef bint make_room(self, Py_ssize_t room) noexcept
    cdef void put(self, Py_ssize_t i, HeapItem item) noexcept
    cdef void sift_up(self, Py_ssize_t i) noexcept
    cdef void sift_down(self, Py_ssize_t i) noexcept
    cdef void push(self, void *member, double key, unsigned long long stamp) noexcept
    cdef void rekey(self, void *member, double key, unsigned long long stamp) noexcept
    cdef void remove(self, void *member) noexcept
