cdef extern from *:
    """
    /* THE CALLING THREAD, as a number that no other living thread has. Where possible in one instruction, as in
       CPython's _Py_ThreadId(): entering a context takes some nanoseconds in all. */
    static inline size_t gcp_this_thread(void) {
        size_t id;
    #if defined(_MSC_VER) && defined(_M_X64)
        id = (size_t)__readgsqword(48);
    #elif defined(__x86_64__) && defined(__APPLE__)
        __asm__("movq %%gs:0, %0" : "=r" (id));
    #elif defined(__x86_64__) && !defined(_WIN32) && defined(__LP64__)
        __asm__("movq %%fs:0, %0" : "=r" (id));
    #elif defined(__aarch64__) && defined(__APPLE__)
        __asm__("mrs %0, tpidrro_el0" : "=r" (id));
    #elif defined(__aarch64__) && !defined(_WIN32)
        __asm__("mrs %0, tpidr_el0" : "=r" (id));
    #else
        id = (size_t)PyThread_get_thread_ident();
    #endif
        return id;
    }
    """
    size_t gcp_this_thread() noexcept nogil


def is_entered_here(object thing, object pool):
    """Whether an object is a context of a pool for threads, and the calling thread has entered it."""
    cdef SyncConnectionContext context
    if type(thing) is not SyncConnectionContext:
        return False
    context = thing
    return (
        context.pool is pool
        and gcp_load_int(&context.use) == IN_USE
        and context.thread == gcp_this_thread()
        and is_lease_of_this_process(context)
    )


# The state of a context. It changes atomically, because two threads may enter or leave one context at once, and an
# endpoint's __eq__, or a hook, may do so while its own thread is entering or leaving the context.
cdef enum:
    UNUSED
    CHANGING
    IN_USE


@cython.final
@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class SyncConnectionContext(Lease):
    """What ``pool.connection()`` returns. It can be entered again after it was left.

    It also decorates functions, as in generic-connection-pool: each call acquires a connection and returns it.
    """

    def __call__(self, function):
        return decorate(self, function)

    # Not __getattr__, with which entering the context takes 10 % longer.
    @property
    def cursor(self):
        raise is_no_connection(self, 'cursor', 'with')

    @property
    def execute(self):
        raise is_no_connection(self, 'execute', 'with')

    def __enter__(self):
        cdef void *pool = <void *>self.pool
        cdef void *endpoint = <void *>self.endpoint
        cdef void *timeout = <void *>self.timeout
        cdef Entry e
        if gcp_load_int(&self.use) != UNUSED:
            raise RuntimeError(ENTERED)
        if pool == <void *>None:
            raise RuntimeError(NO_POOL)
        e = acquire_entry(<SyncPool>pool, <object>endpoint, <object>timeout)
        if not gcp_change_int(&self.use, UNUSED, CHANGING):
            # Another thread, or an __eq__ or a hook of this one, has entered the context meanwhile.
            release_entry(<SyncPool>pool, e, gcp_load_uint(&e.lease_no))
            raise RuntimeError(ENTERED)
        begin_current_lease(self, e)
        self.thread = gcp_this_thread()
        gcp_publish_int(&self.use, IN_USE)
        if gcp_unlikely(self.is_long):
            mark_long((<SyncPool>pool)._core, e)
        return e.conn_

    def __exit__(self, exc_type, exc, traceback):
        cdef void *pool = <void *>self.pool
        cdef unsigned int lease_no
        cdef Entry e
        if not gcp_change_int(&self.use, IN_USE, CHANGING):
            raise RuntimeError('the connection context was not entered')
        e = self.entry
        lease_no = self.lease_no
        self.entry = None
        gcp_publish_int(&self.use, UNUSED)
        if exc is not None and (<SyncPool>pool)._hooks_broken:
            (<SyncPool>pool).release_after_error(e, lease_no, exc)
        else:
            release_entry(<SyncPool>pool, e, lease_no)
        return None
