cdef inline void chain_append(Chain *chain, Entry e) noexcept:
    e.next = NULL
    if chain.tail != NULL:
        (<Entry>chain.tail).next = <void *>e
    else:
        chain.head = <void *>e
    chain.tail = <void *>e
    gcp_store_int(&chain.count, chain.count + 1)


cdef inline void *chain_take(Chain *chain) noexcept:
    # The first entry, or NULL.
    cdef void *p = chain.head
    if p != NULL:
        chain.head = (<Entry>p).next
        (<Entry>p).next = NULL
        if chain.head == NULL:
            chain.tail = NULL
        gcp_store_int(&chain.count, chain.count - 1)
    return p
