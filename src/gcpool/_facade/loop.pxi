# Functions of asyncio, as C globals. load_asyncio() sets them when gcpool.asyncio is imported, so that a program with
# threads only does not import asyncio.
cdef object get_running_loop = None
cdef object running_loop_or_none = None
cdef object CancelledError = None
cdef object current_task = None
cdef object frame_of_loop = None        # the code of the method that runs a step of a task


def load_asyncio():
    """Import asyncio for the pools that run on it."""
    global get_running_loop, running_loop_or_none, CancelledError, current_task, frame_of_loop
    import asyncio
    get_running_loop = asyncio.get_running_loop
    running_loop_or_none = asyncio._get_running_loop
    CancelledError = asyncio.CancelledError
    current_task = asyncio.current_task
    frame_of_loop = getattr(asyncio.Handle._run, '__code__', None)
    mark_coroutine_functions()


cdef extern from *:
    """
    /* THE MARK OF THE RUNNING LOOP. Before Python 3.12, get_running_loop() asks the system for the process id at each
       call, which costs more than the rest of a cycle. The first thing it reads is an object in the thread's dict,
       which is new whenever a loop starts or stops running: while the object is the same, so is the running loop.
       (After a fork the object is no longer valid, which the pool's fork_epoch shows.) Later versions have none. */
    #if PY_VERSION_HEX < 0x030C0000
      enum { GCP_HAS_LOOP_MARK = 1 };
      static void *gcp_loop_mark(void) {
          static PyObject *key = NULL;
          PyObject *dict = PyThreadState_GetDict();
          if (key == NULL) key = PyUnicode_InternFromString("__asyncio_running_event_loop__");
          if (key == NULL || dict == NULL) { PyErr_Clear(); return NULL; }
          return (void *)PyDict_GetItem(dict, key);
      }
    #else
      enum { GCP_HAS_LOOP_MARK = 0 };
      #define gcp_loop_mark() NULL
    #endif

    /* Calls a function without parameters; its C function directly if it has one. */
    static PyObject *gcp_call(PyObject *function) {
        if (PyCFunction_CheckExact(function) && PyCFunction_GET_FLAGS(function) == METH_NOARGS)
            return PyCFunction_GET_FUNCTION(function)(PyCFunction_GET_SELF(function), NULL);
        return PyObject_CallNoArgs(function);
    }
    """
    void *gcp_loop_mark() noexcept
    object gcp_call(object)
    enum: GCP_HAS_LOOP_MARK


@cython.final
cdef class OwnLoop:
    """The event loop that a pool belongs to: the one that used it first.

    An empty pool leaves a loop that is closed: the next loop that uses it becomes its own.
    """

    cdef inline int check(self) except -1:
        # Checks that the pool's loop is the running one. The first loop that uses the pool becomes the pool's.
        if self.fork_epoch == self.core.fork_epoch:
            if GCP_HAS_LOOP_MARK:
                if self.mark is not None and <void *>self.mark == gcp_loop_mark():
                    return 0
            elif gcp_call(get_running_loop) is self.loop:
                return 0
        return self.bind()

    cdef inline bint runs_here(self) except -1:
        if self.fork_epoch != self.core.fork_epoch:
            return False
        if GCP_HAS_LOOP_MARK and self.mark is not None and <void *>self.mark == gcp_loop_mark():
            return True
        return gcp_call(running_loop_or_none) is self.loop

    cdef bint runs_in_other_thread(self) except -1:
        loop = self.loop
        return loop is not None and running_loop_or_none() is not loop and loop.is_running()

    cdef bint call(self, object function, tuple args) except -1:
        # Has the loop call a function, from any thread. False if it was closed, perhaps just now: then the caller does
        # the same as for a loop that was already closed.
        cdef object loop = self.loop
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            if loop.is_closed():
                return False
            raise
        return True

    cdef bint may_leave(self) except -1:
        # Whether the pool is empty, and its loop will never run again.
        return (
            self.loop.is_closed()
            and self.core.is_empty
            and (self.tasks is None or all([task.done() for task in self.tasks]))
        )

    def describe_mismatch(self, loop):
        """Why the pool cannot be used from a loop."""
        if self.loop.is_closed():
            return (
                f'{pool_text(self.core)} belongs to the event loop {self.loop!r}, which is closed, and still has '
                f'{self.core.size} of its connections; it was now used from {loop!r}: expected close() before the loop '
                'ends, or terminate() and a new pool'
            )
        return (
            f'{pool_text(self.core)} belongs to the event loop {self.loop!r}, which used it first; '
            f'it was now used from {loop!r}: expected one pool for each event loop'
        )

    cdef int bind(self) except -1:
        cdef object loop = get_running_loop()
        cdef void *mark
        if self.core is UNBUILT:
            return 0
        if loop is not self.loop or self.fork_epoch != self.core.fork_epoch:
            if self.loop is not None and self.fork_epoch == self.core.fork_epoch:
                if not self.may_leave():
                    raise EventLoopMismatch(self.describe_mismatch(loop))
                forget_wake(self.core)      # the collector's timer has stayed in the other loop
            self.loop = loop
            self.fork_epoch = self.core.fork_epoch
        mark = gcp_loop_mark()
        self.mark = <object>mark if mark != NULL else None
        return 0
