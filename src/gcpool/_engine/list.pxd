cdef struct Linked:     # doubly linked: a member has the fields prev and next
    void *head          # borrowed, as all links are
    void *tail


cdef struct Chain:      # singly linked, first in, first out: a member has the field next
    void *head
    void *tail
    int count           # that of the doomed is read without the lock
