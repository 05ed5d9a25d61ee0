# ---------------------------------------------------------------------------------------------------------------------
# The compiled bases of the facades
# ---------------------------------------------------------------------------------------------------------------------

cdef extern from *:
    """
    /* The version of a type, which changes whenever an attribute of the type or of one of its bases is set; 0 until an
       attribute is looked up. At the cost of one load it tells that no method was replaced. */
    static inline unsigned int gcp_version_of_type(PyObject *o) {
        PyTypeObject *type = Py_TYPE(o);
    #if PY_VERSION_HEX < 0x030C0000
        return PyType_HasFeature(type, Py_TPFLAGS_VALID_VERSION_TAG) ? type->tp_version_tag : 0;
    #elif defined(Py_GIL_DISABLED)
        return _Py_atomic_load_uint_relaxed(&type->tp_version_tag);
    #else
        return type->tp_version_tag;
    #endif
    }
    """
    unsigned int gcp_version_of_type(object) noexcept

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(void *)

# Seconds that a dispose gets though the time of close() or of an acquire is over already, and those that it gets where
# others have taken so long over theirs that the caller is LEAST_DISPOSE_TIME short of GRACE late. Never 0: to many
# managers that is no limit.
cdef double LEAST_DISPOSE_TIME_ = 0.1
cdef double GRACE_ = 0.5
cdef double HASTY_DISPOSE_TIME = 0.001
LEAST_DISPOSE_TIME = LEAST_DISPOSE_TIME_
GRACE = GRACE_

# Seconds that are no limit any more: a socket cannot wait longer.
cdef double ENDLESS_ = 9e9
ENDLESS = ENDLESS_


cpdef double dispose_time(double deadline, double now) noexcept:
    """Seconds that one more dispose gets, of several that have to be done by some time."""
    cdef double left = deadline - now
    if left > LEAST_DISPOSE_TIME_:
        return left
    if left > LEAST_DISPOSE_TIME_ - GRACE_:
        return LEAST_DISPOSE_TIME_
    return HASTY_DISPOSE_TIME


cdef inline object check_timeout(object timeout):
    # The seconds as the float or the int that managers expect.
    if not isinstance(timeout, (float, int)) or isinstance(timeout, bool):
        if isinstance(timeout, bool) or not isinstance(timeout, Real):
            raise TypeError(
                f'timeout {timeout!r} of type {type(timeout).__name__}: expected seconds as a float, or None'
            )
    try:
        if not isinstance(timeout, (float, int)):
            timeout = float(timeout)
        if <double>timeout >= 0:
            return timeout
    except OverflowError:
        pass                # beyond all floats
    raise ValueError(f'timeout {timeout!r}: expected seconds, 0 or more, or inf for no limit')


# The core of a pool that was made without its __init__: nothing is ever found in it, so that only what comes after that
# has to look.
cdef PoolCore UNBUILT = PoolCore(0, 0, 0, 0.0, 0.0)
PyObject_GC_UnTrack(<void *>UNBUILT)    # it is no pool of the program's, and never garbage


cdef int check_built(PoolFacade pool) except -1:
    if pool._core is UNBUILT:
        raise RuntimeError(f'{type(pool).__qualname__}.__init__() was not called: expected super().__init__(manager)')
    return 0


cdef class PoolFacade:
    """What the compiled bases of both facades hold. Not for subclasses outside this package."""

    def __cinit__(self):
        self._core = UNBUILT

    def __init__(
        self,
        PoolCore core not None,
        object manager,
        *,
        object acquire_timeout,
        object dispose_timeout,
        int dispose_batch_size,
        bint checks,
        bint hooks_acquire,
        bint hooks_release,
        bint hooks_dead,
        bint hooks_broken,
        double check_interval,
        object check_timeout,
    ):
        if self._core is not UNBUILT:
            # What is out of the old core must not come back to a new one.
            raise RuntimeError(f'{type(self).__qualname__}.__init__() was called already')
        self._core = core
        self._manager = manager
        self._acquire_timeout = acquire_timeout
        self._dispose_timeout = dispose_timeout
        self._dispose_batch_size = dispose_batch_size
        self._checks = checks
        self._hooks_acquire = hooks_acquire
        self._hooks_release = hooks_release
        self._hooks_dead = hooks_dead
        self._hooks_broken = hooks_broken
        self._check_interval = check_interval
        self.fresh_for = check_interval if checks else 0.0
        self._check_timeout = check_timeout

    cdef inline bint is_overridden(self) except -1:
        # Whether acquire() or release() is not this class's: a subclass overrides it, or a tracer has replaced it on
        # the pool or on its class. connection() has to call that method, then.
        if self.replaced is None and self.plain_type and self.plain_type == gcp_version_of_type(self):
            return False
        return self.find_overrides()

    cdef bint find_overrides(self) except -1:
        cdef unsigned int version
        cdef bint overridden
        base = SyncPool if isinstance(self, SyncPool) else AsyncPool
        type(self).acquire      # this look-up gives the type a version
        # Read before the comparison: a method that is replaced after this changes the version.
        version = gcp_version_of_type(self)
        overridden = type(self).acquire is not base.acquire or type(self).release is not base.release
        self.plain_type = 0 if overridden else version
        return overridden or bool(self.replaced)

    def _note_replaced(self, str name not None, bint replaced):
        # acquire or release was set on the pool itself, or that was undone.
        if self.replaced is None:
            self.replaced = set()
        if replaced:
            self.replaced.add(name)
        else:
            self.replaced.discard(name)

    cdef inline int find_due(self, double now) except -1:
        # Each release disposes of up to dispose_batch_size connections that are due, unless a background collector
        # does: its thread may have died, and cannot always be started.
        cdef PoolCore core = self._core
        if gcp_load_double(&core.due_at) <= now and not (core.collects and self._worker.at_work()):
            core.expired(now, self._dispose_batch_size)
        return 0

    cdef int give_back_untidied(self, Entry e, bint whole) except -1:
        # Its on_release hook did not come to its end: with an error, which leaves that to the manager
        # (generic-connection-pool), or it was cut off or left out. Then the connection is checked before it is served
        # again, or, where nothing is checked, not served again.
        cdef PoolCore core = self._core
        if whole or self._checks:
            core.doubt(e)
            core.release(e, core.read_clock())
        else:
            core.discard(e)
        return 0

    def _must_check(self, Waiter w not None):
        # Whether what a waiter was served has to be checked first. Not if the pool was closed over it: it is closed by
        # now, and no method of the manager is to see it.
        if not self._checks or not self._core.confirm(w):
            return False
        return self.fresh_for <= 0 or self._core.doubts(w, self._core.now(), self.fresh_for)


cdef class SyncPool(PoolFacade):
    """Base of the pool for threads: what can be done without waiting, connecting or closing is done here."""

    def acquire(self, endpoint, timeout=None):
        """Take a connection out of the pool, or create one.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds that all of it may take: waiting, checking, connecting. 0 is for not waiting: then only
            what is idle, or connected at once, can be had. None means the pool's ``acquire_timeout``.
        :return: a connection that nobody else has, to be given back with :py:meth:`release`
        :raises PoolTimeout: (a TimeoutError) when the time is over
        :raises ConnectionPoolClosedError: when the pool is closed, or is while this waits
        :raises TypeError: when the endpoint is not hashable, or ``timeout`` is no number
        :raises ValueError: when ``timeout`` is negative or NaN
        :raises Exception: what the connection manager raises; nothing is lost then

        As in generic-connection-pool; those who wait are served first come, first served.
        """
        cdef Entry e
        if timeout is not None:
            timeout = check_timeout(timeout)
        e = self.acquire_entry(endpoint, timeout)
        return e.conn_

    def release(self, conn, endpoint):
        """Give a connection back.

        :param conn: what :py:meth:`acquire` returned
        :param endpoint: the endpoint that it was acquired for
        :raises ConnectionNotAcquired: when it is not out, or of another endpoint; nothing is changed then
        :raises Exception: what the manager's ``on_release`` raises; the connection is back all the same

        As in generic-connection-pool: without a background collector this also disposes of connections that are due.
        """
        cdef Entry e = self._core.find_out(conn, endpoint)
        if e is not None:
            self.release_entry(e)

    def connection(self, endpoint, timeout=None):
        """A context manager that acquires a connection and gives it back; as a decorator, around each call.

        When the block raises, the manager's ``is_broken`` is asked whether that broke the connection; one that is
        broken is disposed of. An error of ``is_broken`` is logged, and counts as a yes. Leaving raises what
        :py:meth:`release` does: ``ConnectionNotAcquired`` if the block has given the connection back itself, and what
        ``on_release`` raises.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds that acquiring may take, 0 for not waiting; all as for :py:meth:`acquire`, which also
            says what entering raises
        :raises TypeError: when ``timeout`` is no number
        :raises ValueError: when ``timeout`` is negative or NaN
        """
        cdef SyncConnectionContext context
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self.is_overridden():
            return self._connection_by_methods(endpoint, timeout)
        context = SyncConnectionContext.__new__(SyncConnectionContext)
        context.pool = self
        context.endpoint = endpoint
        context.timeout = timeout
        return context

    cdef inline Entry acquire_entry(self, object endpoint, object timeout):
        cdef Entry e = self._core.take_idle(endpoint, self._core.read_clock(), self.fresh_for)
        if e is None or self._hooks_acquire or (self._checks and self.fresh_for <= 0):
            e = self.acquire_slowly(endpoint, timeout, e)
        return e

    cdef Entry acquire_slowly(self, object endpoint, object timeout, Entry e):
        # Signal handlers run between the bytecodes of Python code, never in here: whatever the Python parts raise, and
        # however often, the waiter is cancelled, and what it holds is given back.
        cdef Waiter w
        cdef bint dead = False
        since = None
        check_built(self)
        if timeout is None:
            timeout = self._acquire_timeout
        try:
            w = Waiter(endpoint)
            if timeout is not None and timeout >= ENDLESS_:
                timeout = None          # managers know no other way to say it
        except BaseException:       # there is no memory
            if e is not None:
                self._core.give_back(e, self._core.read_clock(), None)
            raise
        w.keeps = True
        try:
            if e is not None:
                self._core.adopt(w, e)
                # With an interval, take_idle() leaves to _serve() what needs a check.
                if self._checks and self.fresh_for <= 0:
                    if timeout is not None:
                        since = self._core.now()    # a check that takes its time leaves less for what follows
                    dead = not self._check_within(w, timeout)
                if not dead:
                    if self._hooks_acquire and self._core.confirm(w):
                        self._manager.on_acquire(w.endpoint, e.conn_)
                    if not self._core.confirm(w):
                        raise ConnectionPoolClosedError(
                            f'the pool was closed while a connection to {endpoint!r} was acquired'
                        )
                    return e
            self._serve(w, timeout, dead, since)
            e = w.entry
            return e
        except BaseException:
            try:
                self._core.cancel(w, self._core.read_clock())
            finally:
                self.drain_own(w, INFINITY if timeout is None else self._core.now())
            raise

    cdef int drain_own(self, Waiter w, double deadline) except -1:
        # What the waiter's acquire has doomed. The others belong to somebody else, who is at it: another endpoint's
        # dispose may take longer than this acquire has time.
        cdef Entry e
        failure = None
        while True:
            e = self._core.take_own(w)
            if e is None:
                break
            try:
                self.dispose_entry(e, deadline, w)
            except BaseException as exc:
                if failure is None:
                    failure = exc
        if failure is not None:
            raise failure
        return 0

    cdef int release_entry(self, Entry e) except -1:
        if (self._hooks_release or e.broken) and not self._core.begin_release(e):
            return 0
        return self.finish_release(e)

    cdef int release_after_error(self, Entry e, object exc) except -1:
        # The block of a context raised, and the manager can tell whether that broke the connection.
        cdef PoolCore core = self._core
        if not core.begin_release(e):
            return 0
        try:
            self._judge(e, exc)
        finally:
            self.finish_release(e)
        return 0

    def _judge(self, Entry e not None, exc):
        # Ask the manager whether what its user's block raised broke a connection. It has until it says something else.
        e.broken = True
        try:
            e.broken = bool(self._manager.is_broken(e.pool.endpoint, e.conn_, exc))
        except Exception as failure:
            log.error(
                'is_broken() for a connection to %r failed, it is disposed of: %s: %s',
                e.pool.endpoint, type(failure).__name__, failure,
            )

    cdef int discard_entry(self, Entry e) except -1:
        cdef PoolCore core = self._core
        core.suspect(e)
        if not core.condemn(e):
            return 0
        try:
            self.dispose_entry(e, INFINITY, None)
            if self._hooks_dead:
                self._manager.on_connection_dead(e.pool.endpoint, e.conn_)
        finally:
            self.dispose_due()
        return 0

    cdef int finish_release(self, Entry e) except -1:
        # The rest of it: with a hook begin_release() came before.
        cdef PoolCore core = self._core
        cdef double now
        if e.broken:
            return self.discard_entry(e)
        if self._hooks_release and core.is_out(e):
            try:
                self._manager.on_release(e.pool.endpoint, e.conn_)
            except DiscardConnection as exc:
                core.discard(e)
                try:
                    log.info('a connection to %r is disposed of: %s', e.pool.endpoint, exc)
                finally:
                    self.dispose_due()
                return 0
            except BaseException as exc:
                # Disposes of nothing that is due, as in generic-connection-pool.
                self.give_back_untidied(e, isinstance(exc, Exception))
                self.drain(INFINITY)
                raise
        now = core.read_clock()
        if core.release_entry(e, now):
            core.give_back(e, now, None)
        self.find_due(now)
        if gcp_load_int(&core.doomed_count):
            self.drain(INFINITY)
        return 0

    cdef int dispose_due(self) except -1:
        # What each release does for the connections that are due, and for those that are to be closed.
        self.find_due(self._core.read_clock())
        return self.drain(INFINITY)

    cdef int drain(self, double deadline) except -1:
        # Somebody may be waiting for each of these slots: go on whatever one of them raises.
        cdef Entry e
        failure = None
        while True:
            e = self._core.take_doomed()
            if e is None:
                break
            try:
                self.dispose_entry(e, deadline, None)
            except BaseException as exc:
                if failure is None:
                    failure = exc
        if failure is not None:
            raise failure
        return 0

    cdef int dispose_entry(self, Entry e, double deadline, Waiter w) except -1:
        # What its end dooms for the next one who waits is the waiter's to dispose of, if there is one.
        cdef double left
        endpoint = e.pool.endpoint
        timeout = self._dispose_timeout
        try:
            if deadline != INFINITY:
                left = dispose_time(deadline, self._core.now())
                timeout = left if timeout is None else min(timeout, left)
            self._manager.dispose(endpoint, e.conn_, timeout=timeout)
        except TimeoutError as exc:
            log.error('disposing of a connection to %r timed out: %s', endpoint, exc)
        except Exception as exc:
            log.error('disposing of a connection to %r failed: %s: %s', endpoint, type(exc).__name__, exc)
        else:
            log.debug('connection to %r disposed of', endpoint)
        finally:
            self._core.disposed(e, w)
        return 0

    def _create_within(self, Waiter w not None, timeout):
        # Between create's return and the entry there must be no bytecode: a signal there would lose the connection.
        cdef Entry ticket = w.served
        return self._core.created(ticket, self._manager.create(w.endpoint, timeout=timeout), self._core.read_clock(), w)

    def _check_within(self, Waiter w not None, timeout):
        # Whether what the waiter was served is alive; the timeout is what is left of the acquire's.
        cdef Entry e = w.served
        cdef bint alive
        limit = timeout
        own = self._check_timeout is not None and (timeout is None or self._check_timeout < timeout)
        if own:
            limit = self._check_timeout
        self._core.begin_check(w)
        try:
            alive = bool(self._manager.check_aliveness(w.endpoint, e.conn_, limit))
        except TimeoutError as exc:
            if not own:
                raise
            log.info('a check of a connection to %r took longer than %s s: %s', w.endpoint, limit, exc)
            alive = False
        if alive:
            self._core.end_check(w)
        return alive

    def _dispose_dead(self, Waiter w not None, deadline, timeout):
        cdef Entry e = self._core.take_corpse(w)
        if e is not None:
            self.dispose_entry(e, INFINITY if deadline is None else deadline, w)
            self._dispose_own(w, deadline)

    def _dispose_own(self, Waiter w not None, deadline):
        # What the waiter's request has doomed.
        self.drain_own(w, INFINITY if deadline is None else deadline)

    def _dispose_doomed(self, deadline=None):
        self.drain(INFINITY if deadline is None else deadline)


NO_POOL = 'made by hand, and of no pool: expected what a method of a pool returned'
ENTERED = 'the connection context is entered already: call connection() once more for a second one'


@cython.final
@cython.freelist(8)
@cython.no_gc_clear     # what it holds it gives back, also as part of a reference cycle
cdef class SyncConnectionContext:
    """What ``pool.connection()`` returns. It can be entered again after it was left.

    It decorates functions, too, as in generic-connection-pool: each call acquires a connection and gives it back.
    """

    def __call__(self, function):
        if self.pool is None:
            raise RuntimeError(NO_POOL)
        return self.pool._decorate(function, self.endpoint, self.timeout)

    def __enter__(self):
        cdef Entry e
        if self.entry is not None:
            raise RuntimeError(ENTERED)
        if self.pool is None:
            raise RuntimeError(NO_POOL)
        e = self.pool.acquire_entry(self.endpoint, self.timeout)
        if self.entry is not None:      # by another thread, while this one waited
            self.pool.release_entry(e)
            raise RuntimeError(ENTERED)
        self.entry = e
        self.turn = e.turn
        return e.conn_

    def __exit__(self, exc_type, exc, traceback):
        cdef Entry e = self.entry
        if e is None:
            raise RuntimeError('the connection context was not entered')
        self.entry = None
        if e.generation == self.pool._core.generation:
            if e.turn != self.turn:
                raise ConnectionNotAcquired(
                    f'the connection {e.conn_!r} was given back inside its context, and is somebody else\'s by now'
                )
            if exc is not None and self.pool._hooks_broken:
                self.pool.release_after_error(e, exc)
            else:
                self.pool.release_entry(e)
        return None

    def __dealloc__(self):
        if self.entry is not None:
            self.abandon()

    cdef int abandon(self) except -1:
        # Entered and never left. From 3.14 on signals are looked for between __enter__ and the block that __exit__
        # guards: where a handler raises there, this object goes, and with it what it holds. (So it is with the
        # generators of contextlib, in any version.) A pool that is being collected as garbage owns no entries any more.
        cdef Entry e = self.entry
        cdef PoolCore core
        self.entry = None
        if self.pool is not None and self.pool._core is not None:
            core = self.pool._core
            if core.entries is not None and e in core.entries and e.turn == self.turn and core.is_out(e):
                self.pool.release_entry(e)
        return 0


cdef extern from *:
    """
    /* Before Python 3.12 get_running_loop() asks the system for the process id at each call, which costs more than all
       the rest of a cycle. What it looks at first is an object in the thread's dict that is made anew whenever a loop
       begins or ends to run: while that object is the same, so is the running loop. (After a fork it is not valid any
       more; the pool knows that by its generation.) Later versions need no such mark, and have none. */
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
        if self.loop_generation == self._core.generation:
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
            and self.loop_generation == self._core.generation
            and self.loop_mark is not None
            and <void *>self.loop_mark == gcp_loop_mark()
        ):
            return 0
        if running_loop_or_none() is not None:
            return self.check_loop()
        return 0

    cdef bint elsewhere(self) except -1:
        # Whether the pool's loop is running, and not in this thread.
        loop = self.loop
        return loop is not None and running_loop_or_none() is not loop and loop.is_running()

    cdef inline bint in_own_loop(self) except -1:
        if self.loop_generation != self._core.generation:
            return False
        if GCP_HAS_LOOP_MARK and self.loop_mark is not None and <void *>self.loop_mark == gcp_loop_mark():
            return True
        return running_loop_or_none() is self.loop

    cdef int bind(self) except -1:
        cdef object loop = get_running_loop()
        cdef void *mark
        check_built(self)
        if loop is not self.loop or self.loop_generation != self._core.generation:
            if self.loop is not None and self.loop_generation == self._core.generation:
                raise EventLoopMismatch(
                    f'the pool belongs to the event loop {self.loop!r}, which used it first; it was now used from '
                    f'{loop!r}: expected one pool for each event loop'
                )
            self.loop = loop
            self.loop_generation = self._core.generation
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
        return self.loop if self.loop_generation == self._core.generation else None

    @cython.binding(True)
    def acquire(self, endpoint, timeout=None):
        """Take a connection out of the pool, or create one.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds that all of it may take: waiting, checking, connecting. 0 is for not waiting: then only
            what is idle, or connected at once, can be had. None means the pool's ``acquire_timeout``.
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
        cdef Entry e = self._core.find_at_once(conn, endpoint)
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
            e = self._core.find_out(conn, endpoint)
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

    def _take_disposal(self, Waiter w=None):
        # The manager's dispose() of the next connection that is to be closed, or of the one that the waiter found dead;
        # None if there is none.
        cdef Disposal disposal = Disposal.__new__(Disposal)
        disposal.pool = self
        disposal.core = self._core
        disposal.entry = self._core.take_doomed() if w is None else self._core.take_corpse(w)
        return None if disposal.entry is None else disposal

    def _abandon(self, Waiter w not None):
        # The acquire has failed: give back what it holds. Signal handlers may raise in the Python part: once more then.
        cdef PoolCore core = self._core
        core.cancel(w, core.read_clock())
        if gcp_load_int(&core.doomed_count):
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
            if e.broken:
                self._core.discard(e)
            elif self._hooks_release:
                self.give_back_untidied(e, False)
            else:
                self._release_entry(e)
        try:
            self._spawn_disposals()
        except BaseException:
            self._spawn_disposals()
            raise

    def _give_back_untidied(self, Entry e not None, bint whole):
        self.give_back_untidied(e, whole)

    def _find_due(self):
        self.find_due(self._core.read_clock())

    cdef object acquire_ready(self, object endpoint, object timeout):
        # A ready connection that needs no check and no hook, or MISSING.
        cdef Entry e
        self.check_loop()
        if timeout is not None:
            timeout = check_timeout(timeout)
        if self._hooks_acquire or (self._checks and self.fresh_for <= 0):
            return MISSING_
        e = self._core.take_idle(endpoint, self._core.read_clock(), self.fresh_for)
        if e is None:
            return MISSING_
        return e.conn_

    cdef int abandon_entry(self, Entry e, unsigned int turn) except -1:
        # Its holder is being finalised, wherever that is: the loop belongs to a thread. A pool that is being collected
        # as garbage owns no entries any more.
        cdef bint current
        if self._core.entries is None or e not in self._core.entries or self.loop is None:
            return 0
        if e.generation != self._core.generation:
            return 0
        gcp_lock(&e.pool.lock)
        current = e.turn == turn and (e.state == ACQUIRED or e.state == RELEASING)
        gcp_unlock(&e.pool.lock)
        if not current:
            return 0
        if running_loop_or_none() is self.loop:
            self._leave_without_hook(e)
        elif not self.loop.is_closed():
            # By then somebody else may have it: looked at again.
            self.loop.call_soon_threadsafe(self._abandon_entry, e, turn)
        return 0

    def _abandon_entry(self, Entry e not None, unsigned int turn):
        self.abandon_entry(e, turn)

    cdef object release_or_tell(self, Entry e):
        # Give a connection back. None: done; the entry: its hook has to run first; MISSING: there is closing to do.
        if self._hooks_release or e.broken:
            return e if self._core.begin_release(e) else None
        return self._release_entry(e)

    cpdef object _release_entry(self, Entry e):
        """Give an entry back, its hook done. MISSING when there is closing to do, else None."""
        cdef PoolCore core = self._core
        cdef double now = core.read_clock()
        pool_of(e)
        if core.release_entry(e, now):
            core.give_back(e, now, None)
        self.find_due(now)
        return MISSING_ if gcp_load_int(&core.doomed_count) else None

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
        coroutine.turn = (<Entry>argument).turn
    return coroutine


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
            self.core.disposed(e)
        return 0

    def let_go(self):
        """Put the connection back among the doomed if its dispose was not begun. Otherwise that has ended here."""
        cdef Entry e = self.entry
        self.entry = None
        if e is not None:
            if self.inner is None:
                self.core.doom_again(e)
            else:
                self.core.disposed(e)

    def __dealloc__(self):
        # A core that is being collected as garbage owns no entries any more.
        if self.entry is not None and self.core.entries is not None:
            self.let_go()


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
                    (<Entry>self.argument).broken |= self.kind == LEAVE_AFTER_ERROR
                    self.pool.abandon_entry(self.argument, self.turn)
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
            if e.turn != self.turn:
                raise ConnectionNotAcquired(
                    f'the connection {e.conn_!r} was given back before, and is somebody else\'s by now'
                )
            todo = pool.release_or_tell(e) if e.generation == pool._core.generation else None
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
            context.turn = w.entry.turn
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
            if e.generation != self.pool._core.generation:
                return 0
            gcp_lock(&e.pool.lock)
            left = e.state == RELEASING and e.turn == self.turn
            gcp_unlock(&e.pool.lock)
            if left:
                e.broken |= self.kind == LEAVE_AFTER_ERROR
        if left or (gcp_load_int(&self.pool._core.doomed_count) and not self.pool.elsewhere()):
            self.pool._leave_without_hook(self.argument if left else None)
        return 0

    cdef int end_unbegun(self) except -1:
        # A task was cancelled before its first step, or a task group that is shutting down did not take the coroutine.
        self.state = FINISHED
        if self.pool is not None and RELEASE <= self.kind <= LEAVE_AFTER_ERROR:
            if self.kind == LEAVE_AFTER_ERROR:
                (<Entry>self.argument).broken = True    # in doubt: nobody was asked
            if isinstance(self.argument, Entry) and (self.kind == RELEASE or self.pool.elsewhere()):
                self.pool.abandon_entry(self.argument, self.turn)
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
            self.pool.abandon_entry(self.entry, self.turn)

    def __aenter__(self):
        cdef AsyncPool pool = self.pool
        cdef Entry e
        if self.entry is not None:
            raise RuntimeError(ENTERED)
        if pool is None:
            raise RuntimeError(NO_POOL)
        pool.check_loop()
        if not pool._hooks_acquire and not (pool._checks and pool.fresh_for <= 0):
            e = pool._core.take_idle(self.endpoint, pool._core.read_clock(), pool.fresh_for)
            if e is not None:
                self.entry = e
                self.turn = e.turn
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
        if e.generation == pool._core.generation:
            if e.turn != self.turn:
                raise ConnectionNotAcquired(
                    f'the connection {e.conn_!r} was given back inside its context, and is somebody else\'s by now'
                )
            if exc is not None and pool._hooks_broken:
                if pool._core.begin_release(e):
                    return new_coroutine(LEAVE_AFTER_ERROR, pool, exc, e)
                return new_coroutine(READY, pool, None, None)
            todo = pool.release_or_tell(e)
        return new_coroutine(READY if todo is None else LEAVE, pool, None, todo)
