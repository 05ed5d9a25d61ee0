cdef void *cores = NULL                 # [cores_lock] all that are alive, for the forked child
cdef gcp_mutex cores_lock
cdef long process = gcp_process_id()    # in which the pools were made, or last begun anew


@cython.linetrace(False)
cdef void begin_anew_in_child() noexcept:
    # The C library calls this in the child, at the end of fork(). A server in C may fork without telling Python, and
    # the child then has no thread state: nothing of the interpreter is called here or below, and nothing is allocated
    # or freed.
    global process
    cdef void *p = cores
    memset(&cores_lock, 0, sizeof(gcp_mutex))
    process = gcp_process_id()
    while p != NULL:
        (<PoolCore>p).begin_anew()
        p = (<PoolCore>p).following


def reset_after_fork():
    """In a forked child: begin every pool anew, empty, and leave the parent's connections alone.

    Does nothing if begin_anew_in_child() has run in this process: the pools may have been used since.
    """
    if process != gcp_process_id():
        begin_anew_in_child()


# Both are registered, since each misses some forks: the first those that bypass the C library, the second those in C.
gcp_call_in_child(begin_anew_in_child)
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=reset_after_fork)
