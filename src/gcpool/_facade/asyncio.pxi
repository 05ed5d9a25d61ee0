cdef object get_running_loop = running_loop


cdef extern from *:
    """
    /* Before Python 3.12 get_running_loop() asks the system for the process id at each call, which costs more than all
       the rest of a cycle. What it looks at first is an object in the thread's dict that is made anew whenever a loop
       begins or ends to run: while that object is the same, so is the running loop. (After a fork it is not valid any
       more; the pool knows that by its fork_epoch.) Later versions need no such mark, and have none. */
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
    """
    void *gcp_loop_mark() noexcept
    enum: GCP_HAS_LOOP_MARK


cdef class AsyncPool(PoolFacade):
    """Base of the pool for asyncio: what can be done at once is done here."""

    cdef inline int check_loop(self) except -1:
        cdef object loop
        if self.loop_fork_epoch == self._core.fork_epoch:
            if GCP_HAS_LOOP_MARK:
                if self.loop_mark is not None and <void *>self.loop_mark == gcp_loop_mark():
                    return 0
            else:
                loop = get_running_loop()
                if loop is self.loop:
                    return 0
        return self.bind()

    cdef inline int refuse_other_loop(self) except -1:
        # The same for what also happens where no loop runs: a coroutine that is finalised leaves its contexts.
        if (
            GCP_HAS_LOOP_MARK
            and self.loop_fork_epoch == self._core.fork_epoch
            and self.loop_mark is not None
            and <void *>self.loop_mark == gcp_loop_mark()
        ):
            return 0
        if running_loop_or_none() is not None:
            return self.check_loop()
        return 0

    cdef bint loop_runs_in_other_thread(self) except -1:
        # Whether the pool's loop is running, and not in this thread.
        loop = self.loop
        return loop is not None and running_loop_or_none() is not loop and loop.is_running()

    cdef inline bint in_own_loop(self) except -1:
        if self.loop_fork_epoch != self._core.fork_epoch:
            return False
        if GCP_HAS_LOOP_MARK and self.loop_mark is not None and <void *>self.loop_mark == gcp_loop_mark():
            return True
        return running_loop_or_none() is self.loop

    cdef int bind(self) except -1:
        cdef object loop = get_running_loop()
        cdef void *mark
        check_built(self)
        if loop is not self.loop or self.loop_fork_epoch != self._core.fork_epoch:
            if self.loop is not None and self.loop_fork_epoch == self._core.fork_epoch:
                raise EventLoopMismatch(
                    f'the pool belongs to the event loop {self.loop!r}, which used it first; it was now used from '
                    f'{loop!r}: expected one pool for each event loop'
                )
            self.loop = loop
            self.loop_fork_epoch = self._core.fork_epoch
        mark = gcp_loop_mark()
        self.loop_mark = <object>mark if mark != NULL else None
        return 0

    @property
    def _loop(self):
        # The loop that the pool belongs to: the running one, if it was not used before.
        self.check_loop()
        return self.loop

    @property
    def _bound_loop(self):
        # None while the pool was not used; does not bind it.
        return self.loop if self.loop_fork_epoch == self._core.fork_epoch else None

    @cython.binding(True)
    def acquire(self, endpoint, timeout=None):
        """Take a connection out of the pool, or create one.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds that all of it may take: waiting, checking, connecting. 0 is for not waiting, not even
            for a close: then only what is idle, or connected at once, can be had. None means the pool's
            ``acquire_timeout``.
        :return: a connection that nobody else has, to be given back with :py:meth:`release`
        :raises PoolTimeout: (a TimeoutError, and what ``asyncio.TimeoutError`` catches) when the time is over
        :raises ConnectionPoolClosedError: when the pool is closed, or is while this waits
        :raises EventLoopMismatch: when the pool belongs to another event loop
        :raises TypeError: when the endpoint is not hashable, or ``timeout`` is no number
        :raises ValueError: when ``timeout`` is negative or NaN
        :raises Exception: what the connection manager raises; nothing is lost then, nor when this is cancelled

        As in generic-connection-pool; those who wait are served first come, first served.
        """
        return new_coroutine(ACQUIRE, self, endpoint, timeout)

    @cython.binding(True)
    def release(self, conn, endpoint):
        """Give a connection back. The call itself does that, whatever becomes of the coroutine that it returns.

        :param conn: what :py:meth:`acquire` returned
        :param endpoint: the endpoint that it was acquired for
        :raises ConnectionNotAcquired: when it is not out, or of another endpoint; nothing is changed then
        :raises EventLoopMismatch: when the pool belongs to another event loop
        :raises Exception: what the manager's ``on_release`` raises; the connection is back all the same

        As in generic-connection-pool: without a background collector this also disposes of connections that are due.
        """
        cdef Entry e = self._core.find_acquired_by_identity(conn, endpoint)
        cdef object todo
        # Now, and not at the coroutine's first step, which may never come: the coroutine may be forgotten, or its task
        # cancelled before that step, which only ends the coroutine that a tracer has wrapped around this one.
        if e is None or not self.in_own_loop():
            return self.release_or_fail(conn, endpoint)
        todo = self.release_or_tell(e)
        return new_coroutine(RELEASED if todo is None else LEAVE, self, None, todo)

    cdef object release_or_fail(self, object conn, object endpoint):
        # release() in the unusual cases. An error is raised where the coroutine is awaited.
        cdef Entry e
        cdef object todo
        try:
            check_built(self)
            e = self._core.entry_to_release(conn, endpoint)
            if e is None:
                return new_coroutine(RELEASED, self, None, None)
            if not self.in_own_loop():
                # For another thread's loop, as in run_coroutine_threadsafe(pool.release(...), loop): done there.
                return new_coroutine(RELEASE, self, None, e)
            todo = self.release_or_tell(e)
        except Exception as exc:
            return new_coroutine(NOT_RELEASED, self, None, exc)
        return new_coroutine(RELEASED if todo is None else LEAVE, self, None, todo)

    def _arm(self, Waiter w not None):
        # What the waiter's task will wait on.
        cdef Signal signal
        self.check_loop()
        signal = Signal.__new__(Signal)
        signal.loop = self.loop
        w.notify = signal
        return signal

    def _connecting(self, Waiter w not None, call):
        # The manager's create(), whose connection is the ticket's in the moment in which it is returned.
        cdef CreateCall create = CreateCall.__new__(CreateCall)
        create.core = self._core
        create.ticket = w.served
        create.call = call
        return create

    def _take_disposal(self):
        # The manager's dispose() of the next connection that is to be closed; None if there is none.
        cdef Disposal disposal = Disposal.__new__(Disposal)
        disposal.pool = self
        disposal.core = self._core
        disposal.entry = self._core.take_doomed()
        return None if disposal.entry is None else disposal

    def _abandon(self, Waiter w not None):
        # The acquire has failed: give back what it holds. Signal handlers may raise in the Python part: once more then.
        cdef PoolCore core = self._core
        core.cancel(w, core.read_clock())
        if has_doomed(core):
            try:
                self._spawn_disposals()
            except BaseException:
                self._spawn_disposals()
                raise

    def _leave_without_hook(self, todo):
        # Give back what nobody asked the manager about, or not to the end.
        cdef Entry e
        if isinstance(todo, Entry):
            e = todo
            if gcp_load_char(&e.broken):
                self._core.retire_to_doomed(e, self._core.read_clock())
            elif self._hooks_release:
                self.release_unreset(e, False)
            else:
                self._release_entry(e)
        try:
            self._spawn_disposals()
        except BaseException:
            self._spawn_disposals()
            raise

    def _release_unreset(self, Entry e not None, bint hook_ended):
        self.release_unreset(e, hook_ended)

    def _doom_due(self):
        self.doom_due(self._core.read_clock())

    cdef object acquire_ready(self, object endpoint, object timeout):
        # A ready connection that needs no check and no hook, or MISSING.
        cdef Entry e
        self.check_loop()
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self._hooks_acquire or (self._checks and self.trusted_for <= 0):
            return MISSING_
        e = self._core.take_idle(endpoint, self._core.read_clock(), self.trusted_for)
        if e is None:
            return MISSING_
        return e.conn_

    cdef int abandon_entry(self, Entry e, unsigned int lease_no) except -1:
        # Its holder is being finalised, wherever that is: the loop belongs to a thread. A pool that is being collected
        # as garbage owns no entries any more.
        cdef bint current
        if self._core.entries is None or e not in self._core.entries or self.loop is None:
            return 0
        if e.fork_epoch != self._core.fork_epoch:
            return 0
        gcp_lock(&e.pool.lock)
        current = e.lease_no == lease_no and (e.state == ACQUIRED or e.state == RELEASING)
        gcp_unlock(&e.pool.lock)
        if not current:
            return 0
        if running_loop_or_none() is self.loop:
            self._leave_without_hook(e)
        elif not self.loop.is_closed():
            # By then somebody else may have it: looked at again.
            self.loop.call_soon_threadsafe(self._abandon_entry, e, lease_no)
        return 0

    def _abandon_entry(self, Entry e not None, unsigned int lease_no):
        self.abandon_entry(e, lease_no)

    cdef object release_or_tell(self, Entry e):
        # Give a connection back. None: done; the entry: its hook has to run first; MISSING: there is closing to do.
        if self._hooks_release or gcp_load_char(&e.broken):
            return e if self._core.begin_release(e) else None
        return self._release_entry(e)

    cpdef object _release_entry(self, Entry e):
        """Give an entry back, its hook done. MISSING when there is closing to do, else None."""
        cdef PoolCore core = self._core
        cdef double now = core.read_clock()
        pool_of(e)
        if not core.release_fast(e, now):
            core.release_locked(e, now, &core.doomed_for_caller)
        self.doom_due(now)
        return MISSING_ if has_doomed(core) else None

    def connection(self, endpoint, timeout=None):
        """An asynchronous context manager that acquires a connection and gives it back; as a decorator, at each call.

        When the block raises, the manager's ``is_broken`` is asked whether that broke the connection. A broken
        connection is closed; leaving the block waits for that for 0.1 s at most, and then closing goes on in the
        background. An error of ``is_broken`` is logged, and counts as a yes. Leaving raises what :py:meth:`release`
        does: ``ConnectionNotAcquired`` if the block has given the connection back itself, and what ``on_release``
        raises.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds that acquiring may take, 0 for not waiting; all as for :py:meth:`acquire`, which also
            says what entering raises
        :raises TypeError: when ``timeout`` is no number
        :raises ValueError: when ``timeout`` is negative or NaN
        """
        cdef AsyncConnectionContext context
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self.is_overridden():
            return self._connection_by_methods(endpoint, timeout)
        context = AsyncConnectionContext.__new__(AsyncConnectionContext)
        context.pool = self
        context.endpoint = endpoint
        context.timeout = timeout
        return context


@cython.final
@cython.freelist(8)
@cython.no_gc_clear     # what it holds it gives back, also as part of a reference cycle
cdef class AsyncConnectionContext:
    """What ``pool.connection()`` returns. It can be entered again after it was left.

    It decorates coroutine functions, too, as in generic-connection-pool: each call acquires a connection and gives it
    back.
    """

    def __call__(self, function):
        if self.pool is None:
            raise RuntimeError(NO_POOL)
        return self.pool._decorate(function, self.endpoint, self.timeout)

    def __dealloc__(self):
        # Entered and never left: a signal handler raised between __aenter__ and the first step of what that returned.
        if self.entry is not None and self.pool is not None and self.pool._core is not None:
            self.pool.abandon_entry(self.entry, self.lease_no)

    def __aenter__(self):
        cdef AsyncPool pool = self.pool
        cdef Entry e
        if self.entry is not None:
            raise RuntimeError(ENTERED)
        if pool is None:
            raise RuntimeError(NO_POOL)
        pool.check_loop()
        if not pool._hooks_acquire and not (pool._checks and pool.trusted_for <= 0):
            e = pool._core.take_idle(self.endpoint, pool._core.read_clock(), pool.trusted_for)
            if e is not None:
                self.entry = e
                self.lease_no = e.lease_no
                return new_coroutine(READY, pool, None, e.conn_)
        return new_coroutine(ENTER, pool, self, self.timeout)

    def __aexit__(self, exc_type, exc, traceback):
        cdef AsyncPool pool = self.pool
        cdef Entry e = self.entry
        if e is None:
            raise RuntimeError('the connection context was not entered')
        pool.refuse_other_loop()
        self.entry = None
        todo = None
        if e.fork_epoch == pool._core.fork_epoch:
            if gcp_load_uint(&e.lease_no) != self.lease_no:
                raise ConnectionNotAcquired(
                    f'the connection {e.conn_!r} was given back inside its context, and is somebody else\'s by now'
                )
            if exc is not None and pool._hooks_broken:
                if pool._core.begin_release(e):
                    return new_coroutine(LEAVE_AFTER_ERROR, pool, exc, e)
                return new_coroutine(READY, pool, None, None)
            todo = pool.release_or_tell(e)
        return new_coroutine(READY if todo is None else LEAVE, pool, None, todo)
