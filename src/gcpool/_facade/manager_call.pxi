cdef extern from "Python.h":
    int PyIter_Send(object, object, PyObject **) except -1
    bint PyCoro_CheckExact(object)
    int PyErr_WarnEx(object, const char *, Py_ssize_t) except -1
    enum: PYGEN_RETURN


cdef object iterator_of(object awaitable):
    # The iterator that `await` steps through.
    if PyCoro_CheckExact(awaitable):
        return awaitable
    method = getattr(type(awaitable), '__await__', None)
    return awaitable if method is None else method(awaitable)


cdef object exception_of(object kind, object value, object traceback):
    # The exception that throw() was called with, in either of its forms.
    if value is None and traceback is None:
        return kind
    exc = value if isinstance(value, BaseException) else kind() if value is None else kind(value)
    return exc if traceback is None else exc.with_traceback(traceback)


cdef class ManagerCall:
    # Awaits a call of the manager. As soon as the call ends, returned() or failed() does what must not be left undone:
    # in Python code, a signal handler or a time limit could come in between.

    cdef inline int begin_step(self) except -1:
        # A method of the manager may step the coroutine that is calling it. Like a native coroutine this raises
        # ValueError, and the call continues: it has not ended, so nothing is given back.
        if self.at_work:
            raise ValueError('coroutine already executing')
        self.at_work = True
        return 0

    cdef object begin(self):
        return iterator_of(self.call)

    cdef object returned(self, object value):
        return value

    cdef int failed(self) except -1:
        return 0

    # asyncio's call graph asks each coroutine that has `cr_await` for its frame, and fails if that is None. So these
    # properties are those of the coroutine inside; if that has no frame, this object has none of the three.

    @property
    def cr_await(self):
        """What the call awaits."""
        return self.inner.cr_await

    @property
    def cr_code(self):
        """The code of the call."""
        return self.inner.cr_code

    @property
    def cr_frame(self):
        """The frame of the call."""
        return self.inner.cr_frame

    def __await__(self):
        return self

    def __iter__(self):
        return self

    cdef object step(self, object value, bint *has_returned):
        cdef PyObject *result = NULL
        self.begin_step()
        try:
            if self.inner is None:
                self.inner = self.begin()
            has_returned[0] = PyIter_Send(self.inner, value, &result) == PYGEN_RETURN
        except BaseException:
            self.failed()
            raise
        finally:
            self.at_work = False
        got = <object>result
        Py_DECREF(got)
        return self.returned(got) if has_returned[0] else got

    def __next__(self):
        cdef bint has_returned = False
        got = self.step(None, &has_returned)
        if not has_returned:
            return got
        if got is None:
            raise StopIteration     # compiled to the end without an exception, which costs next to nothing
        raise StopIteration(got)

    def send(self, value):
        cdef bint has_returned = False
        got = self.step(value, &has_returned)
        if not has_returned:
            return got
        raise StopIteration(got)

    def throw(self, kind, value=None, traceback=None):
        exc = exception_of(kind, value, traceback)
        self.begin_step()
        try:
            throw = getattr(self.inner, 'throw', None)
            if throw is None:
                raise exc
            return throw(exc)
        except StopIteration as stop:
            got = stop.value
        except BaseException:
            self.failed()
            raise
        finally:
            self.at_work = False
        raise StopIteration(self.returned(got))

    def close(self):
        close = getattr(self.inner, 'close', None)
        self.begin_step()
        try:
            if close is not None:
                close()
        finally:
            self.at_work = False
            self.failed()


@cython.final
cdef class CreateCall(ManagerCall):
    # create(). The connection is in the books as soon as it is returned.

    cdef object begin(self):
        if self.core is None:
            raise RuntimeError(NO_POOL)
        self.begun = self.core.now()
        begin_create(self.ticket, self.begun)
        return iterator_of(self.call)

    cdef object returned(self, object value):
        return created_and_told(self.pool, self.ticket, expect_connection(self.pool, value), self.begun)


@cython.final
@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class Growing(ManagerCall):
    """One connect by the pool itself on asyncio. As soon as it ends, its connection is in the books.

    A ticket whose connect neither succeeded nor failed is given back when this is freed.
    """

    def __repr__(self):
        if self.pool is None or self.ticket is None:
            return f'<{type(self).__qualname__} of no pool>'
        observer = self.pool._observer
        endpoint = observer.text(pool_of(self.ticket).endpoint)
        return f'<{type(self).__qualname__} of {observer.name!r} for {endpoint}: {self.ticket.state_name}>'

    @property
    def endpoint(self):
        """The endpoint to connect to."""
        return pool_of(self.ticket).endpoint

    @property
    def has_ended(self):
        """Whether the ticket was given back, or has become a connection."""
        return self.ticket is None or gcp_load_char(&self.ticket.state) != CREATING

    cdef object begin(self):
        if self.pool is None:
            raise RuntimeError(NO_POOL)
        self.begun = self.core.now()
        begin_create(self.ticket, self.begun)
        call = self.pool._manager.create(self.endpoint)
        self.pool._expect_awaitable(call, 'create')
        return iterator_of(call)

    cdef object returned(self, object value):
        return grown_and_told(self.pool, self.ticket, expect_connection(self.pool, value), self.begun)

    def put_back(self):
        """Give the ticket back, unless the connect has ended."""
        cdef Entry ticket = self.ticket
        self.ticket = None
        if ticket is not None:
            self.core.grow_cancelled(ticket, read_clock(self.core))

    def __dealloc__(self):
        if self.ticket is None or gcp_is_finalizing():
            return
        # A core that is being collected as garbage no longer has a set of endpoint pools.
        if self.core.kept is not None and self.ticket.pool in self.core.kept:
            self.put_back()
