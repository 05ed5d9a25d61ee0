cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030B0000
      /* There a function of Cython says by this flag whether asyncio is to take it for a coroutine function. */
      #define gcp_mark_coroutine_function(f) (((__pyx_CyFunctionObject *)(f))->flags |= __Pyx_CYFUNCTION_COROUTINE)
    #else
      #define gcp_mark_coroutine_function(f) ((void)(f))
    #endif

    typedef int (*gcp_send_function)(PyObject *, PyObject *, void **);
    static gcp_send_function gcp_send_of_coroutine;

    static PySendResult gcp_am_send(PyObject *self, PyObject *arg, PyObject **result) {
        *result = NULL;
        return (PySendResult)gcp_send_of_coroutine(self, arg, (void **)result);
    }

    /* From 3.12 to 3.14 `await` asks what is no coroutine of the interpreter's own through tp_iternext, and takes the
       value out of the StopIteration at once. Making one costs more than a whole cycle, so one is used again and again,
       while nobody else holds it; gcp_forget_stop() lets go of the value when the coroutine is. From 3.15 on `await`
       asks through am_send: only what drives a coroutine by hand comes here, and what that leaves in the exception
       would stay. */
    #if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED)
      static PyObject *gcp_stop = NULL;
      static int gcp_reuse_stop(PyObject *value) {
          PyStopIterationObject *stop = (PyStopIterationObject *)gcp_stop;
          PyObject *old;
          /* Whoever caught it by hand left a traceback in it, and with that the frames of his functions. */
          if (stop == NULL || Py_REFCNT(stop) != 1 || stop->traceback || stop->context || stop->cause || stop->dict) {
              Py_CLEAR(gcp_stop);
              gcp_stop = PyObject_CallNoArgs(PyExc_StopIteration);
              if (gcp_stop == NULL) return 0;
              stop = (PyStopIterationObject *)gcp_stop;
          }
          old = stop->value;
          stop->value = Py_NewRef(value);
          PyErr_SetRaisedException(Py_NewRef(gcp_stop));
          /* Last: its finalizer may come back here. The one that is raised is not taken for another value then. */
          Py_XDECREF(old);
          return 1;
      }
      static void gcp_forget_stop(void) {
          PyObject *value;
          if (gcp_stop != NULL && Py_REFCNT(gcp_stop) == 1) {
              value = ((PyStopIterationObject *)gcp_stop)->value;
              ((PyStopIterationObject *)gcp_stop)->value = Py_NewRef(Py_None);
              Py_XDECREF(value);
          }
      }
    #else
      static int gcp_reuse_stop(PyObject *value) {
          PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, value, NULL);
          if (stop == NULL) return 0;
          PyErr_SetObject(PyExc_StopIteration, stop);
          Py_DECREF(stop);
          return 1;
      }
      #define gcp_forget_stop() ((void)0)
    #endif

    static PyObject *gcp_iternext(PyObject *self) {
        void *result = NULL;
        int status = gcp_send_of_coroutine(self, Py_None, &result);
        PyObject *value = (PyObject *)result;
        if (status == PYGEN_NEXT) return value;
        if (status == PYGEN_RETURN) {
            /* NULL alone means that None is returned. */
            if (value != Py_None) gcp_reuse_stop(value);
            Py_DECREF(value);
        }
        return NULL;
    }

    /* Cython has no spelling for am_send, and its __next__ can only return a value by raising. The type is final. (What
       it has as __next__ stays for those who call that by its name.) */
    static void gcp_install_send(PyObject *type, gcp_send_function send) {
        gcp_send_of_coroutine = send;
        ((PyTypeObject *)type)->tp_iternext = gcp_iternext;
        ((PyTypeObject *)type)->tp_as_async->am_send = gcp_am_send;
        PyType_Modified((PyTypeObject *)type);
    }
    """
    ctypedef int (*gcp_send_function)(object, object, void **) except -1
    void gcp_mark_coroutine_function(object)
    void gcp_install_send(object, gcp_send_function)
    void gcp_forget_stop()

cdef extern from "Python.h":
    int PyIter_Send(object, object, PyObject **) except -1
    bint PyCoro_CheckExact(object)
    int PyErr_WarnEx(object, const char *, Py_ssize_t) except -1
    enum:
        PYGEN_RETURN
        PYGEN_NEXT

cdef enum:          # PoolCoroutine.kind
    ACQUIRE
    ENTER           # the beginning of a context that has to wait, or to call the manager
    RELEASE         # a release that was called outside of the pool's loop, and is done in it
    LEAVE           # the end of a context, the rest of a release
    LEAVE_AFTER_ERROR   # the end of a context whose block raised: the manager is asked about the connection
    RELEASED        # a release that was done when it was called
    NOT_RELEASED    # a release that has failed: awaiting it raises the error
    READY           # an end of a context that has a value to return and nothing to do

cdef enum:          # PoolCoroutine.state
    NOT_STARTED
    WAITING         # the inner coroutine does the rest
    FINISHED


cdef inline PoolCoroutine new_coroutine(int kind, AsyncPool pool, object endpoint, object argument):
    cdef PoolCoroutine coroutine = PoolCoroutine.__new__(PoolCoroutine)
    coroutine.kind = kind
    coroutine.pool = pool
    coroutine.endpoint = endpoint
    coroutine.argument = argument
    if isinstance(argument, Entry) and RELEASE <= kind <= LEAVE_AFTER_ERROR:
        coroutine.lease_no = gcp_load_uint(&(<Entry>argument).lease_no)
    return coroutine


async def _nothing():
    pass


@cython.final
@cython.freelist(16)
@cython.no_gc_clear     # what it holds it gives back, also as part of a reference cycle
cdef class PoolCoroutine:
    """What ``acquire()`` and ``release()`` of an asyncio pool return: a coroutine to asyncio and to ``await``.

    Compiled, since most of them never wait: they are done at their first step. One that has to wait goes on as a
    coroutine of the facade.
    """

    def __dealloc__(self):
        gcp_forget_stop()
        if self.state == NOT_STARTED and self.kind != READY:
            if RELEASE <= self.kind <= LEAVE_AFTER_ERROR and self.pool is not None and self.pool._core is not None:
                # Nobody will go on with it.
                if isinstance(self.argument, Entry):
                    if self.kind == LEAVE_AFTER_ERROR:
                        (<Entry>self.argument).break_()
                    self.pool.abandon_entry(self.argument, self.lease_no)
                elif self.pool.loop is None or self.pool.loop.is_closed():
                    pass                    # what is doomed remains so
                elif running_loop_or_none() is self.pool.loop:
                    self.pool._spawn_disposals()
                else:
                    self.pool.loop.call_soon_threadsafe(self.pool._spawn_disposals)
            PyErr_WarnEx(
                RuntimeWarning,
                b"coroutine 'ConnectionPool.acquire' was never awaited"
                if self.kind <= ENTER
                else b"coroutine 'ConnectionPool.release' was never awaited",
                1,
            )

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        # For those who call it by its name; the slot is gcp_iternext's.
        return self.send(None)

    cdef object first_step(self):
        # What it returns, or MISSING when the inner coroutine has to go on.
        cdef AsyncPool pool = self.pool
        cdef Entry e
        self.state = FINISHED
        if pool is None:
            raise RuntimeError(NO_POOL)
        if self.kind == ACQUIRE:
            value = pool.acquire_ready(self.endpoint, self.argument)
            if value is not MISSING_:
                return value
            self.waiter = Waiter(self.endpoint)
            self.inner = pool._acquire_unready(self.waiter, self.argument)
        elif self.kind == ENTER:
            self.waiter = Waiter((<AsyncConnectionContext>self.endpoint).endpoint)
            self.inner = pool._acquire_unready(self.waiter, self.argument)
        elif self.kind == RELEASE:
            e = <Entry>self.argument
            pool.check_loop()
            if gcp_load_uint(&e.lease_no) != self.lease_no:
                raise ConnectionNotAcquired(
                    f'the connection {e.conn_!r} was given back before, and is somebody else\'s by now'
                )
            todo = pool.release_or_tell(e) if e.fork_epoch == pool._core.fork_epoch else None
            if todo is None:
                return None
            self.kind = LEAVE
            self.argument = todo
            self.inner = pool._finish_release(todo)
        elif self.kind == LEAVE:
            self.inner = pool._finish_release(self.argument)
        elif self.kind == LEAVE_AFTER_ERROR:
            self.inner = pool._release_after_error(self.argument, self.endpoint)
        elif self.kind == NOT_RELEASED:
            failure, self.argument = self.argument, None
            raise failure
        else:
            return self.argument
        self.state = WAITING
        return MISSING_

    cdef object end_inner(self, object value):
        # The inner coroutine has returned. Here, so that nothing can come between that and whoever is served.
        cdef Waiter w = self.waiter
        cdef AsyncConnectionContext context
        self.state = FINISHED
        self.inner = None
        self.waiter = None
        if w is None:
            return value
        w.served        # else it raises
        if self.kind == ENTER:
            context = <AsyncConnectionContext>self.endpoint
            if context.entry is not None:       # another task entered it while this one waited
                self.pool._abandon(w)
                raise RuntimeError(ENTERED)
            context.entry = w.entry
            context.lease_no = w.entry.lease_no
        return w.entry.conn_

    cdef int see_to_entry(self) except -1:
        # A signal handler may raise between any two lines of the facade's Python code. The connection that they were
        # about to give back is then still acquired, what they were to close is still doomed, and nobody else knows.
        cdef Entry e
        cdef Waiter w = self.waiter
        cdef bint left = False
        self.state = FINISHED
        self.inner = None
        self.waiter = None
        if w is not None:
            self.pool._abandon(w)
        if self.kind != LEAVE and self.kind != LEAVE_AFTER_ERROR:
            return 0
        if isinstance(self.argument, Entry):
            e = <Entry>self.argument
            if e.fork_epoch != self.pool._core.fork_epoch:
                return 0
            gcp_lock(&e.pool.lock)
            left = e.state == RELEASING and e.lease_no == self.lease_no
            gcp_unlock(&e.pool.lock)
            if left and self.kind == LEAVE_AFTER_ERROR:
                e.break_()
        if left or (has_doomed(self.pool._core) and not self.pool.loop_runs_in_other_thread()):
            self.pool._leave_without_hook(self.argument if left else None)
        return 0

    cdef int end_unbegun(self) except -1:
        # A task was cancelled before its first step, or a task group that is shutting down did not take the coroutine.
        self.state = FINISHED
        if self.pool is not None and RELEASE <= self.kind <= LEAVE_AFTER_ERROR:
            if self.kind == LEAVE_AFTER_ERROR:
                (<Entry>self.argument).break_()     # in doubt: nobody was asked
            if isinstance(self.argument, Entry) and (self.kind == RELEASE or self.pool.loop_runs_in_other_thread()):
                self.pool.abandon_entry(self.argument, self.lease_no)
            else:
                self.pool._leave_without_hook(self.argument)
        return 0

    def send(self, value):
        """Go on, as ``send()`` of a coroutine."""
        cdef void *result = NULL
        cdef int status = coroutine_send(self, value, &result)
        got = <object>result
        Py_DECREF(got)
        if status == PYGEN_NEXT:
            return got
        raise StopIteration(got)

    def throw(self, kind, value=None, traceback=None):
        """Go on with an exception, as ``throw()`` of a coroutine. What a release has still to do is begun first."""
        cdef int state = self.state
        exc = exception_of(kind, value, traceback)
        if state == NOT_STARTED:
            self.end_unbegun()
            inner = _nothing()
        elif state == WAITING:
            inner = self.inner
        else:
            raise RuntimeError('cannot reuse already awaited coroutine')
        try:
            return inner.throw(exc)
        except StopIteration as stop:       # it has returned all the same
            value = stop.value
        except BaseException:
            self.see_to_entry()
            raise
        raise StopIteration(self.end_inner(value))

    def close(self):
        """End it, as ``close()`` of a coroutine. What a release has still to do is begun first."""
        inner = self.inner
        if self.state == NOT_STARTED:
            self.end_unbegun()
            if self.kind == NOT_RELEASED:
                log.error('a release that was closed before its first step was not due: %s', self.argument)
        self.state = FINISHED
        if inner is not None:
            try:
                inner.close()
            finally:
                self.see_to_entry()

    @property
    def __class__(self):
        # For isinstance(): anyio up to 4.13 and others ask inspect.iscoroutine() of what a function has returned.
        return CoroutineType

    @property
    def __name__(self):
        return 'acquire' if self.kind <= ENTER else 'release'

    @property
    def __qualname__(self):
        return 'ConnectionPool.acquire' if self.kind <= ENTER else 'ConnectionPool.release'

    @property
    def cr_await(self):
        """What the inner coroutine awaits, or None."""
        return None if self.inner is None else self.inner.cr_await

    @property
    def cr_code(self):
        """The code of the inner coroutine, or None."""
        return None if self.inner is None else self.inner.cr_code

    @property
    def cr_origin(self):
        """None: where the coroutine was made is not recorded."""
        return None

    @property
    def cr_frame(self):
        """The frame of that one, or None."""
        return None if self.inner is None else self.inner.cr_frame

    @property
    def cr_running(self):
        """Whether it is being executed."""
        return False if self.inner is None else self.inner.cr_running

    @property
    def cr_suspended(self):
        """Whether it waits."""
        return self.state == WAITING and not self.cr_running


cdef int coroutine_send(object self, object value, void **result) except -1:
    cdef PoolCoroutine coroutine = <PoolCoroutine>self
    cdef PyObject *sent = NULL
    cdef int status
    if coroutine.state == NOT_STARTED:
        returned = coroutine.first_step()
        if returned is not MISSING_:
            Py_INCREF(returned)
            result[0] = <void *>returned
            return PYGEN_RETURN
        value = None
    elif coroutine.state == FINISHED:
        raise RuntimeError('cannot reuse already awaited coroutine')
    inner = coroutine.inner
    try:
        status = PyIter_Send(inner, value, &sent)
    except BaseException:
        coroutine.see_to_entry()
        raise
    if status == PYGEN_RETURN:
        returned = <object>sent
        Py_DECREF(returned)
        returned = coroutine.end_inner(returned)
        Py_INCREF(returned)
        sent = <PyObject *>returned
    result[0] = <void *>sent
    return status


gcp_install_send(PoolCoroutine, coroutine_send)


def _mark_coroutine_functions():
    # For mock's autospec, and whoever else asks before a call whether the result will have to be awaited.
    for method in (AsyncPool.acquire, AsyncPool.release):
        gcp_mark_coroutine_function(method)
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(method)
        elif sys.version_info >= (3, 11):
            method._is_coroutine = asyncio_coroutines._is_coroutine


_mark_coroutine_functions()
