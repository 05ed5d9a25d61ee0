cdef class Spelling:                        # a way to write an endpoint that normalize() knows as another one
    cdef object endpoint                    # never changes
    cdef Py_hash_t hash                     # never changes
    cdef Spelling next                      # [ep] the spelling seen before this one
