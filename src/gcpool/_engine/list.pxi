# Lists of objects that hold the links themselves: nothing is allocated under a lock. A list borrows its members; where
# it owns references to them, whoever adds and takes them counts those. No function here takes a reference for a while
# either: a member may be in its destructor, and giving the reference back would run the destructor once more.

ctypedef fused Member:
    Entry
    Waiter
    PoolCore


cdef inline void linked_append(Linked *list, Member member) noexcept:
    member.next = NULL
    member.prev = list.tail
    if list.tail != NULL:
        (<Member>list.tail).next = <void *>member
    else:
        list.head = <void *>member
    list.tail = <void *>member


cdef inline void linked_insert(Linked *list, Member member, void *following) noexcept:
    # Before another member, or at the end (NULL).
    cdef void *after = list.tail if following == NULL else (<Member>following).prev
    member.prev = after
    member.next = following
    if after != NULL:
        (<Member>after).next = <void *>member
    else:
        list.head = <void *>member
    if following != NULL:
        (<Member>following).prev = <void *>member
    else:
        list.tail = <void *>member


cdef inline void linked_remove(Linked *list, Member member) noexcept:
    cdef void *prev = member.prev
    cdef void *next = member.next
    if prev != NULL:
        (<Member>prev).next = next
    else:
        list.head = next
    if next != NULL:
        (<Member>next).prev = prev
    else:
        list.tail = prev
    member.prev = NULL
    member.next = NULL


cdef inline void chain_append(Chain *chain, Member member) noexcept:
    member.next = NULL
    if chain.tail != NULL:
        (<Member>chain.tail).next = <void *>member
    else:
        chain.head = <void *>member
    chain.tail = <void *>member
    gcp_store_int(&chain.count, chain.count + 1)


cdef inline void *chain_take_entry(Chain *chain) noexcept:
    # The first member, or NULL. Only entries are taken one by one.
    cdef void *p = chain.head
    if p != NULL:
        chain.head = (<Entry>p).next
        (<Entry>p).next = NULL
        if chain.head == NULL:
            chain.tail = NULL
        gcp_store_int(&chain.count, chain.count - 1)
    return p


cdef inline bint chain_remove(Chain *chain, Member member) noexcept:
    # In O(n). False when it is no member.
    cdef void *before = NULL
    cdef void *p = chain.head
    while p != <void *>member:
        if p == NULL:
            return False
        before = p
        p = (<Member>p).next
    if before != NULL:
        (<Member>before).next = member.next
    else:
        chain.head = member.next
    if chain.tail == p:
        chain.tail = before
    member.next = NULL
    gcp_store_int(&chain.count, chain.count - 1)
    return True


cdef inline void *chain_take_all(Chain *chain) noexcept:
    # Returns the first, each of which leads to the next.
    cdef void *head = chain.head
    chain.head = chain.tail = NULL
    gcp_store_int(&chain.count, 0)
    return head
