@cython.no_gc_clear
cdef class HeapMember:
    """Something that an :py:class:`IndexedHeap` can hold: it knows its place there."""

    def __cinit__(self):
        self.heap_index = -1


cdef inline bint before(HeapItem *a, HeapItem *b) noexcept nogil:
    return a.key < b.key or (a.key == b.key and a.stamp < b.stamp)


@cython.final
cdef class IndexedHeap:
    """A binary heap whose members know their places, so that any of them is moved or taken out in O(log n)."""

    def __dealloc__(self):
        PyMem_Free(self.items)

    def __len__(self):
        return self.used

    @cython.linetrace(False)
    cdef void begin_anew(self) noexcept nogil:
        # In a forked child. Another thread may have been about to move the items.
        self.items = NULL
        self.used = self.capacity = self.reserved = 0

    cdef bint make_room(self, Py_ssize_t room) noexcept:
        # False when there is no memory. It raises nothing: it is called under a lock.
        cdef Py_ssize_t capacity = self.capacity
        cdef HeapItem *items
        if room <= capacity:
            return True
        while capacity < room:
            capacity += (capacity >> 1) + 8
        items = <HeapItem *>PyMem_Realloc(self.items, capacity * sizeof(HeapItem))
        if items == NULL:
            return False
        self.items = items
        self.capacity = capacity
        return True

    cdef inline void put(self, Py_ssize_t i, HeapItem item) noexcept:
        self.items[i] = item
        (<HeapMember>item.item).heap_index = i

    cdef void sift_up(self, Py_ssize_t i) noexcept:
        cdef HeapItem item = self.items[i]
        cdef Py_ssize_t parent
        while i > 0:
            parent = (i - 1) >> 1
            if not before(&item, &self.items[parent]):
                break
            self.put(i, self.items[parent])
            i = parent
        self.put(i, item)

    cdef void sift_down(self, Py_ssize_t i) noexcept:
        cdef HeapItem item = self.items[i]
        cdef Py_ssize_t child
        while True:
            child = 2 * i + 1
            if child >= self.used:
                break
            if child + 1 < self.used and before(&self.items[child + 1], &self.items[child]):
                child += 1
            if not before(&self.items[child], &item):
                break
            self.put(i, self.items[child])
            i = child
        self.put(i, item)

    cdef void push(self, void *member, double key, unsigned long long stamp) noexcept:
        # Room was made before the lock's decisions were taken, or is reserved.
        gcp_assert(self.used < self.capacity)
        self.items[self.used].key = key
        self.items[self.used].stamp = stamp
        self.items[self.used].item = member
        self.used += 1
        self.sift_up(self.used - 1)

    cdef void rekey(self, void *member, double key, unsigned long long stamp) noexcept:
        cdef Py_ssize_t i = (<HeapMember>member).heap_index
        gcp_assert(i >= 0)
        self.items[i].key = key
        self.items[i].stamp = stamp
        self.sift_up(i)
        self.sift_down((<HeapMember>member).heap_index)

    cdef void remove(self, void *member) noexcept:
        cdef Py_ssize_t i = (<HeapMember>member).heap_index
        cdef HeapItem *smaller
        if i < 0:
            return
        (<HeapMember>member).heap_index = -1
        self.used -= 1
        if i != self.used:
            self.put(i, self.items[self.used])
            self.sift_up(i)
            self.sift_down((<HeapMember>self.items[i].item).heap_index)
        if self.capacity > 64 and self.used * 4 < self.capacity and self.reserved * 4 < self.capacity:
            smaller = <HeapItem *>PyMem_Realloc(self.items, (self.capacity >> 1) * sizeof(HeapItem))
            if smaller != NULL:
                self.items = smaller
                self.capacity >>= 1
