# LISTS. The members hold the links themselves, so that nothing is allocated under a lock. A list borrows its members.
# Where it must own references to them, the code that adds and takes the members counts these references. No function
# here takes a reference, not even for a moment: a member may be in its destructor, and giving the reference back would
# run the destructor a second time.

ctypedef fused Member:
    Entry
    Waiter
    Growth
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
    # Insert a member before the following one; NULL: at the end.
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
    # Take the first member; NULL if there is none. Only entries are taken one by one.
    cdef void *p = chain.head
    if p != NULL:
        chain.head = (<Entry>p).next
        (<Entry>p).next = NULL
        if chain.head == NULL:
            chain.tail = NULL
        gcp_store_int(&chain.count, chain.count - 1)
    return p


cdef inline void *chain_take_growth(Chain *chain) noexcept:
    # The same, for a chain of Growth.
    cdef void *p = chain.head
    if p != NULL:
        chain.head = (<Growth>p).next
        (<Growth>p).next = NULL
        if chain.head == NULL:
            chain.tail = NULL
        gcp_store_int(&chain.count, chain.count - 1)
    return p


cdef inline bint chain_remove(Chain *chain, Member member) noexcept:
    # Costs O(n). False if the chain has no such member.
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
    # Empty the chain. Returns its first member, from which the links lead to the others; NULL if there is none.
    cdef void *head = chain.head
    chain.head = chain.tail = NULL
    gcp_store_int(&chain.count, 0)
    return head
