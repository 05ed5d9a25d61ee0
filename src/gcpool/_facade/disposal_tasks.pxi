@cython.final
@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class Disposal(ManagerCall):
    """The dispose of one connection on asyncio. As soon as the dispose ends, the connection's slot is free.

    If a disposal is freed before it has begun, the connection becomes doomed again.
    """

    @property
    def endpoint(self):
        """The endpoint of the connection."""
        return pool_of(self.entry).endpoint

    @property
    def is_job(self):
        """Whether it counts among the jobs of the pool's workers."""
        return self.entry is not None and self.entry.job != NO_JOB

    cdef object begin(self):
        if self.pool is None:
            raise RuntimeError(NO_POOL)
        call = self.pool._manager.dispose(self.endpoint, self.entry.conn_)
        self.pool._expect_awaitable(call, 'dispose')
        return iterator_of(call)

    cdef object returned(self, object value):
        self.failed()

    cdef int failed(self) except -1:
        cdef Entry e = self.entry
        self.entry = None
        if e is not None:
            self.core.disposed(e, read_clock(self.core), True)
        return 0

    def put_back(self):
        """Make the connection doomed again if its dispose has not begun; otherwise end the dispose here."""
        cdef Entry e = self.entry
        self.entry = None
        if e is not None:
            if self.inner is None:
                self.core.doom_again(e)
            else:
                self.core.disposed(e, read_clock(self.core), True)

    def __dealloc__(self):
        if self.entry is None or gcp_is_finalizing():
            return
        # A core that is being collected as garbage no longer owns entries.
        if self.core.entries is not None and self.entry in self.core.entries:
            self.put_back()


@cython.final
cdef class Lane(ManagerCall):
    """The coroutine of a task that runs even if the task is cancelled before its first step.

    asyncio throws such a cancellation into the coroutine. A coroutine of a Python function then ends without having run
    a line, and asyncio.run() cancels all tasks at its end: the connections of this lane would never be closed.

    :param begin: called at the first step, with None or with the exception that was thrown; returns the coroutine that
        does the work
    """

    def __init__(self, begin):
        self.call = begin

    cdef object begin(self):
        return self.call(None)

    def throw(self, kind, value=None, traceback=None):
        if self.inner is None:
            self.inner = self.call(exception_of(kind, value, traceback))
            return self.send(None)
        return ManagerCall.throw(self, kind, value, traceback)
