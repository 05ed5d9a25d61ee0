cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030B0000
      /* There asyncio treats a Cython function as a coroutine function if this flag is set. */
      #define gcp_mark_coroutine_function(f) (((__pyx_CyFunctionObject *)(f))->flags |= __Pyx_CYFUNCTION_COROUTINE)
    #else
      #define gcp_mark_coroutine_function(f) ((void)(f))
    #endif
    """
    void gcp_mark_coroutine_function(object)


cdef int mark_coroutine_functions() except -1:
    for method in (AsyncPool.release, AsyncPool.discard):
        mark_coroutine_function(method)
    return 0


cdef int mark_coroutine_function(object method) except -1:
    # For mock's autospec, and other code that checks before a call whether its result has to be awaited.
    gcp_mark_coroutine_function(method)
    if sys.version_info >= (3, 12):
        import inspect
        inspect.markcoroutinefunction(method)
    elif sys.version_info >= (3, 11):
        from asyncio import coroutines
        method._is_coroutine = coroutines._is_coroutine
    return 0
