# ---------------------------------------------------------------------------------------------------------------------
# The compiled bases of the facades
# ---------------------------------------------------------------------------------------------------------------------

cdef object logger = logging.getLogger('gcpool')

# Seconds that a dispose gets when the time of close() is over already.
cdef double LEAST_DISPOSE_TIME_ = 0.1
LEAST_DISPOSE_TIME = LEAST_DISPOSE_TIME_


cdef inline int check_timeout(object timeout) except -1:
    if not isinstance(timeout, (float, int)) or isinstance(timeout, bool):
        raise TypeError(f'timeout {timeout!r} of type {type(timeout).__name__}: expected seconds as a float, or None')
    if not timeout >= 0:
        raise ValueError(f'timeout {timeout!r}: expected seconds, 0 or more')
    return 0


cdef class PoolFacade:
    """What the compiled bases of both facades hold. Not for subclasses outside this package."""

    def __init__(
        self,
        PoolCore core,
        object manager,
        *,
        object acquire_timeout,
        object dispose_timeout,
        int dispose_batch_size,
        bint checks,
        bint hooks_acquire,
        bint hooks_release,
        bint hooks_dead,
    ):
        self._core = core
        self._manager = manager
        self._acquire_timeout = acquire_timeout
        self._dispose_timeout = dispose_timeout
        self._dispose_batch_size = dispose_batch_size
        self._checks = checks
        self._hooks_acquire = hooks_acquire
        self._hooks_release = hooks_release
        self._hooks_dead = hooks_dead


cdef class SyncPool(PoolFacade):
    """Base of the pool for threads: what can be done without waiting, connecting or closing is done here."""

    def acquire(self, endpoint, timeout=None):
        """Take a connection out of the pool, or create one.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds to wait at most, 0 for not at all; None means the pool's ``acquire_timeout``
        :return: a connection that nobody else has, to be given back with :py:meth:`release`
        :raises PoolTimeout: (a TimeoutError) when the time is over
        :raises ConnectionPoolClosedError: when the pool is closed, or is while this waits
        :raises TypeError: when the endpoint is not hashable
        :raises Exception: what the connection manager raises; nothing is lost then

        As in generic-connection-pool; those who wait are served first come, first served.
        """
        cdef Entry e
        if timeout is not None:
            check_timeout(timeout)
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
        """A context manager that acquires a connection and gives it back.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds to wait at most, as for :py:meth:`acquire`, which also says what entering raises
        """
        cdef SyncConnectionContext context = SyncConnectionContext.__new__(SyncConnectionContext)
        if timeout is not None:
            check_timeout(timeout)
        context.pool = self
        context.endpoint = endpoint
        context.timeout = timeout
        return context

    cdef inline Entry acquire_entry(self, object endpoint, object timeout):
        cdef Entry e = self._core.take_idle(endpoint, self._core.read_clock())
        if e is None or self._checks or self._hooks_acquire:
            e = self.acquire_slowly(endpoint, timeout, e)
        return e

    cdef Entry acquire_slowly(self, object endpoint, object timeout, Entry e):
        # Signal handlers run between the bytecodes of Python code, never in here: whatever the Python parts raise, and
        # however often, the waiter is cancelled, and what it holds is given back.
        cdef Waiter w
        cdef bint dead = False
        if timeout is None:
            timeout = self._acquire_timeout
        w = Waiter(endpoint)
        try:
            if e is not None:
                self._core.adopt(w, e)
                if self._checks and not self._manager.check_aliveness(endpoint, e.conn_, timeout):
                    dead = True
                else:
                    if self._hooks_acquire:
                        self._manager.on_acquire(endpoint, e.conn_)
                    return e
            self._serve(w, timeout, dead)
            e = w.entry
            return e
        except BaseException:
            self.abandon(w)
            raise

    cdef int abandon(self, Waiter w) except -1:
        self._core.cancel(w, self._core.read_clock())
        self.drain(INFINITY)
        return 0

    cdef int release_entry(self, Entry e) except -1:
        cdef PoolCore core = self._core
        cdef double now
        if self._hooks_release:
            if not core.begin_release(e):
                return 0
            try:
                self._manager.on_release(e.pool.endpoint, e.conn_)
            except BaseException:
                core.release(e, core.read_clock())
                self.drain(INFINITY)
                raise
        now = core.read_clock()
        if core.release_entry(e, now):
            core.give_back(e, now)
        if not core.collects and gcp_load_double(&core.due_at) <= now:
            core.expired(now, self._dispose_batch_size)
        if gcp_load_int(&core.doomed_count):
            self.drain(INFINITY)
        return 0

    cdef int drain(self, double deadline) except -1:
        # Somebody may be waiting for each of these slots: go on whatever one of them raises.
        cdef Entry e
        failure = None
        while True:
            e = self._core.take_doomed()
            if e is None:
                break
            try:
                self.dispose_entry(e, deadline)
            except BaseException as exc:
                failure = failure or exc
        if failure is not None:
            raise failure
        return 0

    cdef int dispose_entry(self, Entry e, double deadline) except -1:
        cdef double left
        endpoint = e.pool.endpoint
        timeout = self._dispose_timeout
        try:
            if deadline != INFINITY:
                left = deadline - self._core.now()
                left = left if left > LEAST_DISPOSE_TIME_ else LEAST_DISPOSE_TIME_
                timeout = left if timeout is None else min(timeout, left)
            self._manager.dispose(endpoint, e.conn_, timeout=timeout)
        except TimeoutError as exc:
            logger.error('disposing of a connection to %r timed out: %s', endpoint, exc)
        except Exception as exc:
            logger.error('disposing of a connection to %r failed: %s: %s', endpoint, type(exc).__name__, exc)
        else:
            logger.debug('connection to %r disposed of', endpoint)
        finally:
            self._core.disposed(e)
        return 0

    def _create_within(self, Waiter w, timeout):
        # Between create's return and the entry there must be no bytecode: a signal there would lose the connection.
        cdef Entry ticket = w.entry
        return self._core.created(ticket, self._manager.create(w.endpoint, timeout=timeout), self._core.read_clock())

    def _dispose_dead(self, Waiter w):
        cdef Entry e = w.corpse
        w.corpse = None
        self.dispose_entry(e, INFINITY)

    def _dispose_doomed(self, deadline=None):
        self.drain(INFINITY if deadline is None else deadline)


@cython.final
@cython.freelist(8)
cdef class SyncConnectionContext:
    """What ``pool.connection()`` returns. It can be entered again after it was left."""

    def __enter__(self):
        cdef Entry e
        if self.entry is not None:
            raise RuntimeError('the connection context is entered already: call connection() once more for a second one')
        e = self.pool.acquire_entry(self.endpoint, self.timeout)
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
            self.pool.release_entry(e)
        return None


cdef class AsyncPool(PoolFacade):
    """Base of the pool for asyncio: what can be done at once is done here."""

    cdef inline int check_loop(self) except -1:
        cdef object loop = get_running_loop()
        if loop is not self.loop or self.loop_generation != self._core.generation:
            self.bind(loop)
        return 0

    cdef int bind(self, object loop) except -1:
        if self.loop is not None and self.loop_generation == self._core.generation:
            raise EventLoopMismatch(
                f'the pool belongs to the event loop {self.loop!r}, which used it first; it was now used from {loop!r}: '
                'expected one pool for each event loop'
            )
        self.loop = loop
        self.loop_generation = self._core.generation
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

    def _try_acquire(self, endpoint, timeout=None):
        """A ready connection that needs no check and no hook, or MISSING."""
        cdef Entry e
        self.check_loop()
        if timeout is not None:
            check_timeout(timeout)
        if self._checks or self._hooks_acquire:
            return MISSING_
        e = self._core.take_idle(endpoint, self._core.read_clock())
        if e is None:
            return MISSING_
        return e.conn_

    def _try_release(self, conn, endpoint):
        """Give a connection back. None: done; an entry: its hook has to run first; MISSING: there is closing to do."""
        cdef Entry e
        self.check_loop()
        e = self._core.find_out(conn, endpoint)
        if e is None:
            return None
        return self.release_or_tell(e)

    cdef object release_or_tell(self, Entry e):
        if self._hooks_release:
            return e if self._core.begin_release(e) else None
        return self._release_entry(e)

    cpdef object _release_entry(self, Entry e):
        """Give an entry back, its hook done. MISSING when there is closing to do, else None."""
        cdef PoolCore core = self._core
        cdef double now = core.read_clock()
        if core.release_entry(e, now):
            core.give_back(e, now)
        if not core.collects and gcp_load_double(&core.due_at) <= now:
            core.expired(now, self._dispose_batch_size)
        return MISSING_ if gcp_load_int(&core.doomed_count) else None

    def connection(self, endpoint, timeout=None):
        """An asynchronous context manager that acquires a connection and gives it back.

        :param endpoint: where to connect, any hashable
        :param timeout: seconds to wait at most, as for :py:meth:`acquire`, which also says what entering raises
        """
        cdef AsyncConnectionContext context = AsyncConnectionContext.__new__(AsyncConnectionContext)
        if timeout is not None:
            check_timeout(timeout)
        context.pool = self
        context.endpoint = endpoint
        context.timeout = timeout
        return context


@cython.final
@cython.freelist(8)
cdef class Outcome:
    # An awaitable that is done.

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        value = self.value
        self.value = None
        if value is None:
            raise StopIteration
        raise StopIteration(value)


@cython.final
@cython.freelist(8)
cdef class AsyncConnectionContext:
    """What ``pool.connection()`` returns. It can be entered again after it was left."""

    def __aenter__(self):
        cdef AsyncPool pool = self.pool
        cdef Entry e
        cdef Outcome outcome
        if self.entry is not None:
            raise RuntimeError('the connection context is entered already: call connection() once more for a second one')
        pool.check_loop()
        if not pool._checks and not pool._hooks_acquire:
            e = pool._core.take_idle(self.endpoint, pool._core.read_clock())
            if e is not None:
                self.entry = e
                self.turn = e.turn
                outcome = Outcome.__new__(Outcome)
                outcome.value = e.conn_
                return outcome
        return pool._enter(self, self.endpoint, self.timeout)

    def _hold(self, Entry e):
        self.entry = e
        self.turn = e.turn

    def __aexit__(self, exc_type, exc, traceback):
        cdef AsyncPool pool = self.pool
        cdef Entry e = self.entry
        if e is None:
            raise RuntimeError('the connection context was not entered')
        self.entry = None
        todo = None
        if e.generation == pool._core.generation:
            if e.turn != self.turn:
                raise ConnectionNotAcquired(
                    f'the connection {e.conn_!r} was given back inside its context, and is somebody else\'s by now'
                )
            todo = pool.release_or_tell(e)
        if todo is None:
            return Outcome.__new__(Outcome)
        return pool._finish_release(todo)
