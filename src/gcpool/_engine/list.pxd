cdef struct Chain:      # entries, linked by their `next`, first in, first out
    void *head
    void *tail
    int count           # read without the lock
