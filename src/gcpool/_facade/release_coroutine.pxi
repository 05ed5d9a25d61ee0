@cython.final
@cython.no_gc_clear     # the inner coroutine still has to warn if it is never awaited
cdef class ReleaseCoroutine(ManagerCall):
    """The result of ``release()`` if a hook is still to run. To other code it is a coroutine.

    It wraps a native coroutine. Whatever ends that, this object releases the connection at the same moment. The inner
    coroutine cannot: an exception thrown into it before its first step ends it before any of its lines has run, and the
    traceback keeps its frame, and everything that the frame refers to, alive. When this object is freed, the inner
    coroutine ends first, because its frame refers to the lease, too.
    """

    cdef object begin(self):
        raise RuntimeError(NO_POOL)

    cdef object returned(self, object value):
        self.lease.entry = None
        self.failure = None
        return value

    cdef int failed(self) except -1:
        # A signal handler may raise between any two lines of the facade's Python code. Then the connection that these
        # lines had to release is still checked out, those that they had to close are still doomed, and nothing else
        # refers to them.
        cdef Lease lease = self.lease
        cdef Entry e
        self.failure = None
        if lease is None or lease.lease_no == ANY_LEASE:    # a release that is refused changes nothing
            return 0
        e = lease.entry
        try:
            if e is not None:
                lease.entry = None
                self.pool.release_dropped_lease(e, lease.lease_no, lease.state)
        finally:
            if has_doomed(self.pool._core):
                self.pool.spawn_disposals()
        return 0

    def close(self):
        failure = self.failure
        ManagerCall.close(self)
        if failure is not None:
            log.error(
                '%s: a release was refused, and its coroutine was closed before it raised the error: %s',
                self.pool._observer.name, failure,
            )

    @property
    def __class__(self):
        return CoroutineType

    def __getattr__(self, name):
        return getattr(self.inner, name)


@cython.final
@cython.freelist(16)
@cython.no_gc_clear     # it still has to warn if it is never awaited
cdef class Released:
    """The result of ``release()`` if nothing is left to do. To other code it is a coroutine.

    ``await`` ends at once. For everything else a native coroutine is made when it is first needed: making it costs more
    than the rest of a release.
    """

    cdef object real(self):
        if self.inner is None:
            self.inner = coroutine_of_release()
            if self.awaited:
                self.inner.close()
        return self.inner

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self.awaited or self.inner is not None:
            return self.real().send(None)
        self.awaited = True
        raise StopIteration     # compiled to the end without an exception

    def send(self, value):
        return self.real().send(value)

    def throw(self, kind, value=None, traceback=None):
        return self.real().throw(exception_of(kind, value, traceback))

    def close(self):
        self.real().close()

    @property
    def __class__(self):
        # For isinstance(): anyio up to 4.13 and others ask inspect.iscoroutine() about what a function has returned.
        return CoroutineType

    def __getattr__(self, name):
        return getattr(self.real(), name)

    def __dealloc__(self):
        if self.inner is None and not self.awaited:
            PyErr_WarnEx(RuntimeWarning, b"coroutine 'ConnectionPool.release' was never awaited", 1)


@cython.final
cdef class NothingLeft:
    """The result of leaving a context if there is nothing to wait for: a coroutine that is done. There is only one."""

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, kind, value=None, traceback=None):
        raise exception_of(kind, value, traceback)

    def close(self):
        pass


cdef NothingLeft NOTHING_LEFT = NothingLeft()
