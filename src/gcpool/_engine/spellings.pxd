cdef class Spelling:                        # an endpoint for which normalize() returned the endpoint pool's own
    cdef object endpoint                    # never changes
    cdef Py_hash_t hash                     # never changes
    cdef Spelling next                      # [ep] the spelling seen before this one
