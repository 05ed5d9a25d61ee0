# Binary heaps whose members know their positions, so that any member is moved or removed in O(log n).

@cython.no_gc_clear
cdef class HeapMember:
    """What a heap can hold: an object that knows its position there."""

    def __cinit__(self):
        self.heap_index = self.second_index = -1


cdef inline int *index_in(Heap *heap, void *member) noexcept:
    return &(<HeapMember>member).second_index if heap.kind == SECOND_KIND else &(<HeapMember>member).heap_index


cdef inline bint before(HeapItem *a, HeapItem *b) noexcept nogil:
    return a.key < b.key or (a.key == b.key and a.stamp < b.stamp)


cdef bint heap_make_room(Heap *heap, Py_ssize_t room) noexcept:
    # False if there is no memory. Raises nothing, because it is called under a lock.
    cdef Py_ssize_t capacity = heap.capacity
    cdef HeapItem *items
    if room <= capacity:
        return True
    while capacity < room:
        capacity += (capacity >> 1) + 8
    items = <HeapItem *>PyMem_Realloc(heap.items, capacity * sizeof(HeapItem))
    if items == NULL:
        return False
    heap.items = items
    heap.capacity = capacity
    return True


cdef inline void heap_put(Heap *heap, Py_ssize_t i, HeapItem item) noexcept:
    heap.items[i] = item
    index_in(heap, item.item)[0] = <int>i


cdef void sift_up(Heap *heap, Py_ssize_t i) noexcept:
    cdef HeapItem item = heap.items[i]
    cdef Py_ssize_t parent
    while i > 0:
        parent = (i - 1) >> 1
        if not before(&item, &heap.items[parent]):
            break
        heap_put(heap, i, heap.items[parent])
        i = parent
    heap_put(heap, i, item)


cdef void sift_down(Heap *heap, Py_ssize_t i) noexcept:
    cdef HeapItem item = heap.items[i]
    cdef Py_ssize_t child
    while True:
        child = 2 * i + 1
        if child >= heap.used:
            break
        if child + 1 < heap.used and before(&heap.items[child + 1], &heap.items[child]):
            child += 1
        if not before(&heap.items[child], &item):
            break
        heap_put(heap, i, heap.items[child])
        i = child
    heap_put(heap, i, item)


cdef void heap_push(Heap *heap, void *member, double key, unsigned long long stamp) noexcept:
    # The caller has made room before it decided anything, or has a place reserved: a push that failed in the middle of
    # a locked region would leave the books half changed.
    gcp_assert(heap.used < heap.capacity)
    heap.items[heap.used].key = key
    heap.items[heap.used].stamp = stamp
    heap.items[heap.used].item = member
    heap.used += 1
    sift_up(heap, heap.used - 1)


cdef void heap_rekey(Heap *heap, void *member, double key, unsigned long long stamp) noexcept:
    cdef Py_ssize_t i = index_in(heap, member)[0]
    gcp_assert(i >= 0)
    heap.items[i].key = key
    heap.items[i].stamp = stamp
    sift_up(heap, i)
    sift_down(heap, index_in(heap, member)[0])


cdef void heap_remove(Heap *heap, void *member) noexcept:
    cdef Py_ssize_t i = index_in(heap, member)[0]
    cdef HeapItem *smaller
    if i < 0:
        return
    index_in(heap, member)[0] = -1
    heap.used -= 1
    if i != heap.used:
        heap_put(heap, i, heap.items[heap.used])
        sift_up(heap, i)
        sift_down(heap, index_in(heap, heap.items[i].item)[0])
    if heap.capacity > 64 and heap.used * 4 < heap.capacity and heap.reserved * 4 < heap.capacity:
        smaller = <HeapItem *>PyMem_Realloc(heap.items, (heap.capacity >> 1) * sizeof(HeapItem))
        if smaller != NULL:
            heap.items = smaller
            heap.capacity >>= 1
