# How many spellings of one endpoint are known at a time, besides the one that normalize() gives.
cdef enum:
    MAX_SPELLINGS = 8


@cython.final
@cython.no_gc_clear
cdef class Spelling:
    """Another spelling of an endpoint, as far as the manager's ``normalize`` is concerned."""


cdef inline Py_hash_t hash_of(object endpoint) except? -1:
    try:
        return PyObject_Hash(endpoint)
    except TypeError as exc:
        raise TypeError(f'endpoint {endpoint!r} of type {type(endpoint).__name__}: expected a hashable object') from exc
