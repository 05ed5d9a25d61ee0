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
    # Awaits a call of the manager's. At the moment when the call ends, returned() or failed() does what must not be
    # left undone: in Python code, a signal handler or a time limit could come in between.

    cdef inline int begin_step(self) except -1:
        # A method of the manager may step the very coroutine that is calling it. Like a native coroutine this raises
        # ValueError, and the call goes on: it has not ended, so that nothing is given back.
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
    # create(). The connection is in the books at the moment when it is returned.

    cdef object begin(self):
        if self.core is None:
            raise RuntimeError(NO_POOL)
        return iterator_of(self.call)

    cdef object returned(self, object value):
        return self.core.created(self.ticket, value, read_clock(self.core))


@cython.final
@cython.no_gc_clear     # the coroutine inside still has to warn if nobody awaits it
cdef class ReleaseCoroutine(ManagerCall):
    """What ``release()`` returns if a hook is still to run. Other code takes it for a coroutine.

    A native coroutine is inside. Whatever ends that, this object releases the connection at the same moment. The inner
    coroutine cannot: an exception thrown into it before its first step ends it without a line of it having run, and the
    traceback keeps its frame, and everything that the frame holds, alive. When this object is freed, the inner
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
        # lines were to release is still checked out, those they were to close are still doomed, and nobody else knows.
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
            log.error('a release was refused, and its coroutine was closed before it raised the error: %s', failure)

    @property
    def __class__(self):
        return CoroutineType

    def __getattr__(self, name):
        return getattr(self.inner, name)


@cython.final
@cython.freelist(16)
@cython.no_gc_clear     # it still has to warn if nobody awaits it
cdef class Released:
    """What ``release()`` returns if nothing is left to do. Other code takes it for a coroutine.

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
    """What leaving a context returns if there is nothing to wait for: a coroutine that is done. There is only one."""

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


@cython.final
@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class Disposal(ManagerCall):
    """The dispose of one connection on asyncio. At the moment when the dispose ends, the connection's slot is free.

    A disposal that is freed before it has begun puts the connection back among the doomed.
    """

    @property
    def endpoint(self):
        """The endpoint of the connection."""
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
            self.core.disposed(e, read_clock(self.core), True)
        return 0

    def put_back(self):
        """Put the connection back among the doomed if its dispose has not begun; otherwise end the dispose here."""
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
        # A core that is being collected as garbage owns no entries any more.
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


@cython.final
cdef class Signal:
    """What a task awaits until it is woken, once. To the task it is an ``asyncio.Future``.

    It is not a Future, because a signal handler may raise inside a Future's ``set_result``, which then does not wake
    the task.
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
            self.schedule_call(call)
        except BaseException:
            if self.loop.is_closed():
                # The task will not run again. When its coroutine is finalised, that gives back what it was served.
                return 0
            # A signal handler raised inside call_soon(), before or after the call was scheduled. Twice does no harm.
            self.schedule_call(call)
            raise
        return 0

    cdef int schedule_call(self, list call) except -1:
        # A coroutine that is finalised in another thread gives back there what it holds. Only call_soon_threadsafe()
        # wakes the loop then.
        if running_loop_or_none() is self.loop:
            self.loop.call_soon(self._run, call, context=call[1])
        else:
            self.loop.call_soon_threadsafe(self._run, call, context=call[1])
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
        """Whether the signal has rung, or was cancelled."""
        return self.rung

    def result(self):
        """None, or CancelledError if the signal was cancelled."""
        if self.cancelled_:
            raise CancelledError() if self.message is None else CancelledError(self.message)

    def get_loop(self):
        """The loop that the signal belongs to."""
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
