cdef object iterator_of(object awaitable):
    # What `await` goes through.
    if PyCoro_CheckExact(awaitable):
        return awaitable
    method = getattr(type(awaitable), '__await__', None)
    return awaitable if method is None else method(awaitable)


cdef object exception_of(object kind, object value, object traceback):
    # What throw() was given, in either of its ways.
    if value is None and traceback is None:
        return kind
    exc = value if isinstance(value, BaseException) else kind() if value is None else kind(value)
    return exc if traceback is None else exc.with_traceback(traceback)


cdef class ManagerCall:
    # Awaits a call of the manager's, and does in the moment in which that ends what must not be left undone, whatever
    # comes between (a signal handler, a time limit) before the next line of Python.

    cdef object begin(self):
        return iterator_of(self.call)

    cdef object returned(self, object value):
        return value

    cdef int failed(self) except -1:
        return 0

    # asyncio's call graph asks each coroutine that has `cr_await` for its frame, and can do nothing with None. So these
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

    def __next__(self):
        return self.send(None)

    def send(self, value):
        cdef PyObject *result = NULL
        cdef int status
        try:
            if self.inner is None:
                self.inner = self.begin()
            status = PyIter_Send(self.inner, value, &result)
        except BaseException:
            self.failed()
            raise
        got = <object>result
        Py_DECREF(got)
        if status == PYGEN_NEXT:
            return got
        raise StopIteration(self.returned(got))

    def throw(self, kind, value=None, traceback=None):
        exc = exception_of(kind, value, traceback)
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
        raise StopIteration(self.returned(got))

    def close(self):
        close = getattr(self.inner, 'close', None)
        try:
            if close is not None:
                close()
        finally:
            self.failed()


@cython.final
cdef class CreateCall(ManagerCall):
    # create(): the connection is its ticket's in the moment in which it is returned.

    cdef object begin(self):
        if self.core is None:
            raise RuntimeError(NO_POOL)
        return iterator_of(self.call)

    cdef object returned(self, object value):
        return self.core.created(self.ticket, value, self.core.read_clock())


@cython.final
@cython.no_gc_clear     # what it holds it gives back, also as part of a reference cycle
cdef class Disposal(ManagerCall):
    """The dispose of one connection on asyncio. When it ends, or goes, the connection's slot is free."""

    @property
    def endpoint(self):
        """Where the connection leads."""
        return pool_of(self.entry).endpoint

    cdef object begin(self):
        if self.pool is None:
            raise RuntimeError(NO_POOL)
        return iterator_of(self.pool._manager.dispose(self.endpoint, self.entry.conn_))

    cdef object returned(self, object value):
        self.failed()

    cdef int failed(self) except -1:
        cdef Entry e = self.entry
        self.entry = None
        if e is not None:
            self.core.disposed(e, self.core.read_clock(), True)
        return 0

    def put_back(self):
        """Put the connection back among the doomed if its dispose was not begun. Otherwise that has ended here."""
        cdef Entry e = self.entry
        self.entry = None
        if e is not None:
            if self.inner is None:
                self.core.doom_again(e)
            else:
                self.core.disposed(e, self.core.read_clock(), True)

    def __dealloc__(self):
        # A core that is being collected as garbage owns no entries any more.
        if self.entry is not None and self.core.entries is not None:
            self.put_back()


@cython.final
cdef class Lane(ManagerCall):
    """The coroutine of a task that must not end before it has begun.

    asyncio throws a cancellation that comes before a task's first step into the coroutine. A coroutine of a
    Python function then ends without having run a line. asyncio.run() cancels all tasks in this way at its end.
    A lane begins all the same.

    :param begin: returns the coroutine that does the work. Called at the first step with None, or with what was thrown.
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


@cython.final
cdef class Signal:
    """What a task waits on: an ``asyncio.Future`` as far as tasks are concerned, that rings once.

    Its own, since a signal handler may raise inside of a Future's ``set_result``, which does not wake its task then.
    """

    def __call__(self):
        """Wake the task."""
        if self.rung:
            return
        self.rung = True
        failure = None
        for call in self.calls or ():
            try:
                self.call_soon(call)
            except BaseException as exc:
                if failure is None:
                    failure = exc
        if failure is not None:
            raise failure

    cdef int call_soon(self, list call) except -1:
        try:
            self.loop.call_soon(self._run, call, context=call[1])
        except BaseException:
            if self.loop.is_closed():
                # Its task will not run again, and gives back what it was served when its coroutine is finalised.
                return 0
            # A signal handler raised in it. Whether it came so far nobody knows: twice does no harm.
            self.loop.call_soon(self._run, call, context=call[1])
            raise
        return 0

    @cython.boundscheck(True)
    def _run(self, list call not None):
        callback = call[0]
        call[0] = None
        if callback is not None:
            callback(self)

    def add_done_callback(self, callback, *, context=None):
        """For the task."""
        cdef list call = [callback, context]
        if self.rung:
            self.call_soon(call)
        elif self.calls is None:
            self.calls = [call]
        else:
            self.calls.append(call)

    def cancel(self, msg=None):
        """For the task, when it is cancelled."""
        if self.rung:
            return False
        self.cancelled_ = True
        self.message = msg
        self()
        return True

    def done(self):
        """Whether it has rung, or was cancelled."""
        return self.rung

    def result(self):
        """None. CancelledError if it was cancelled."""
        if self.cancelled_:
            raise CancelledError() if self.message is None else CancelledError(self.message)

    def get_loop(self):
        """The loop that it belongs to."""
        return self.loop

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.rung:
            self._asyncio_future_blocking = True
            return self
        self.result()
        raise StopIteration
