cdef object coroutine_of_entering = acquired
cdef object coroutine_of_release = released
cdef object coroutine_of_refusal = not_released
cdef object coroutine_of_discard = discarded
cdef object coroutine_of_failed_discard = not_discarded


cdef inline object new_released():
    # The coroutine of a release that is done. Measured, in ns a cycle: with the GIL, Released 199 and a native
    # coroutine 238; without it 307 and 272, since there no new object gets the memory of the last one.
    return Released.__new__(Released) if GCP_SHARED_STAMP else coroutine_of_release()


cdef class AsyncPool(PoolFacade):
    """Base of the pool for asyncio: what can be done without waiting is done here."""

    def __cinit__(self):
        self.share_core()

    def __init__(self, core, manager, **options):
        PoolFacade.__init__(self, core, manager, **options)
        self.share_core()

    cdef int share_core(self) except -1:
        self.own_loop = OwnLoop.__new__(OwnLoop)
        self.own_loop.core = self._core
        self._tasks = self.own_loop.tasks = set()
        self.ready = ReadyConnections.__new__(ReadyConnections)
        self.ready.core = self._core
        self.ready.own_loop = self.own_loop
        self.ready.default_endpoint = self._default_endpoint
        self.ready.trusted_for = self.trusted_for
        self.ready.asks_before_use = self.asks_before_use
        self.ready.needs_manager = self.needs_manager
        self._core.records_tasks = True
        if type(self) is not AsyncPool:
            # In a slot, where acquire() finds it at the lowest cost. Not by setattr(): a subclass's __setattr__ may
            # need state that its __init__ has not set up yet.
            object.__setattr__(self, '_ready', self.ready)
        return 0

    def _check_loop(self):
        # Raises if the pool belongs to another loop.
        check_built(self)
        self.own_loop.check()

    def _runs_in_other_thread(self):
        # Whether the pool's loop runs in another thread: then only its thread-safe methods may be called.
        return self.own_loop.runs_in_other_thread()

    def _call_in_loop(self, function, *args):
        # Has the pool's loop call a function, from any thread. False if the loop is closed.
        return self.own_loop.call(function, args)

    def _bind_running_loop(self):
        # Binds a pool that no loop has used yet to the one that runs here, if any. Returns the pool's loop, or None.
        if self._bound_loop is None and running_loop_or_none() is not None:
            self.own_loop.check()
        return self._bound_loop

    @property
    def _bound_loop(self):
        # The loop that the pool belongs to; None if no loop has used it. Unlike own_loop.check(), this binds nothing.
        return self.own_loop.loop if self.own_loop.fork_epoch == self._core.fork_epoch else None

    @cython.binding(True)
    def release(self, conn, endpoint=...):
        """Return a connection to the pool. The call itself does that, whatever becomes of the coroutine it returns.

        :param conn: what :py:meth:`acquire` returned
        :param endpoint: the endpoint that the connection was acquired for; if it is given, it is compared
        :raises ConnectionNotAcquired: when it is not in use, or belongs to another endpoint; nothing is changed then
        :raises EventLoopMismatch: when the pool belongs to another event loop
        :raises Exception: what the manager's ``on_release`` raises; the connection is returned all the same

        As in generic-connection-pool, without a background collector this also closes connections that are due.
        """
        cdef Entry e = find_acquired_by_identity(self._core, conn, endpoint)
        # Release now, and not at the coroutine's first step, which may never come. The coroutine may be dropped, or its
        # task cancelled before that step: this only ends the coroutine that a tracer has wrapped around it.
        if e is None or not self.own_loop.runs_here():
            return self.release_by_lookup(conn, endpoint)
        remaining = self.start_release(e, ANY_LEASE, True)
        return new_released() if remaining is None else remaining

    def release_nowait(self, conn, endpoint=...):
        """Return a connection to the pool from code that cannot await: a finaliser, a callback, another thread.

        After this call the connection is returned, or is on its way: a second release raises. ``on_release`` runs in a
        task of the pool, in an empty context; what it raises is logged. From another thread, the pool's event loop does
        the rest. If that no longer runs, so that no hook can be awaited, the connection is returned without
        ``on_release``: it is checked before it is served, or closed if the manager has no check.

        :param conn: what :py:meth:`acquire` returned
        :param endpoint: the endpoint that the connection was acquired for; if it is given, it is compared
        :raises ConnectionNotAcquired: when it is not in use, or belongs to another endpoint; nothing is changed then
        """
        cdef Entry e
        check_built(self)
        e = entry_to_release(self._core, conn, endpoint)
        if e is not None:
            release_now(self, e)

    def _finish_release_in_loop(self, Lease lease not None):
        finish_release_in_loop(self, lease)

    def try_acquire(self, endpoint=...):
        """Take an idle connection that is ready for use, or nothing. Neither waits nor connects, checks or closes.

        Waiters come first. A connection whose check is due, or whose lifetime is over, is not taken, nor is any if the
        manager has an ``on_acquire``, or checks each connection (``check_interval=0``): then this always returns None.

        :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
        :return: a connection, to be returned with :py:meth:`release`, or None
        :raises ConnectionPoolClosedError: when the pool is closed
        :raises EventLoopMismatch: when the pool belongs to another event loop
        :raises TypeError: when the endpoint is not hashable
        """
        cdef Entry e
        self.own_loop.check()
        e = take_ready_of(self, endpoint)
        return None if e is None else e.conn_

    @cython.binding(True)
    def discard(self, conn):
        """Close a connection that was acquired, instead of returning it. The call itself takes it out of the pool.

        Awaiting waits until the connection is closed; if that is cancelled, the close goes on. No hook is called. The
        endpoint's other connections are not suspected. Inside of ``async with pool.connection()``, the end of the block
        does nothing then.

        :param conn: what :py:meth:`acquire` returned
        :raises ConnectionNotAcquired: when it is not in use; nothing is changed then
        :raises EventLoopMismatch: when the pool belongs to another event loop
        """
        return start_discard(self, conn)

    def _begin_discard_in_loop(self, Lease lease not None):
        # A discard that was called outside of the loop. Whether there is something to close.
        cdef Entry e = lease.entry
        try:
            self.own_loop.check()
        except EventLoopMismatch:
            lease.entry = None          # a discard that is refused changes nothing
            raise
        lease.entry = None
        return self._core.discard(e, read_clock(self._core), True)

    def detach(self, conn):
        """Keep a connection that was acquired: the pool forgets it and never closes it, and its slot is free at once.

        May be called in any thread. No hook is called. Inside of ``async with pool.connection()``, the end of the block
        does nothing then.

        :param conn: what :py:meth:`acquire` returned
        :raises ConnectionNotAcquired: when it is not in use, or ``close()`` has closed it; nothing is changed then
        """
        try:
            detach_from(self, conn)
        finally:
            if has_doomed(self._core):
                self.spawn_disposals()

    cdef object release_by_lookup(self, object conn, object endpoint):
        # The releases that need more than a lookup in the directory. An error is raised where the coroutine is awaited.
        cdef ReleaseCoroutine coroutine
        cdef Entry e
        try:
            check_built(self)
            e = entry_to_release(self._core, conn, endpoint)
            if e is None:
                return new_released()
            if not self.own_loop.runs_here():
                # Called outside the loop, as in run_coroutine_threadsafe(pool.release(...), loop): released in there.
                coroutine = self.new_release_coroutine()
                begin_current_lease(coroutine.lease, e)
                coroutine.inner = self._release_in_loop(coroutine.lease)
                return coroutine
            remaining = self.start_release(e, ANY_LEASE, True)
        except Exception as exc:
            coroutine = self.new_release_coroutine()
            coroutine.inner = coroutine_of_refusal(exc)
            coroutine.failure = exc
            return coroutine
        return new_released() if remaining is None else remaining

    def _start_release_in_loop(self, Lease lease not None):
        # A release that was called outside of the loop: returns what is left to await, or None.
        cdef Entry e = lease.entry
        try:
            self.own_loop.check()
        except EventLoopMismatch:
            lease.entry = None          # a release that is refused changes nothing
            raise
        # If no loop runs, such as where a coroutine is finalised in another thread, check() has raised another error.
        # The lease then still has the entry, and releases the connection when it is freed.
        remaining = self.start_release(e, lease.lease_no, True)
        lease.entry = None
        return remaining

    cdef object start_release(self, Entry e, unsigned int lease_no, bint waits):
        # Releases a connection. Returns what is left to await, or None: a hook, and, if it waits, closes.
        cdef ReleaseCoroutine remaining
        if self._hooks_release or gcp_load_char(&e.broken):
            remaining = self.new_release_coroutine()
            if not self._core.begin_release(e, lease_no):
                return None
            begin_current_lease(remaining.lease, e, RELEASING)
            if gcp_load_char(&e.broken):
                remaining.inner = self._discard(remaining.lease)
            else:
                remaining.inner = self._finish_release(remaining.lease)
            return remaining
        if self.finish_in_core(e, lease_no):
            tasks = self.spawn_disposals()
            if waits:
                return self._wait_for_disposals(tasks)
        return None

    cdef object start_release_after_error(self, Entry e, unsigned int lease_no, object exc):
        # The end of a context whose block raised exc. The manager is asked whether the connection broke.
        cdef ReleaseCoroutine remaining = self.new_release_coroutine()
        if not self._core.begin_release(e, lease_no):
            return None
        e.break_()      # until the manager has answered: is_broken() may be interrupted
        begin_current_lease(remaining.lease, e, RELEASING)
        remaining.inner = self._release_after_error(remaining.lease, exc)
        return remaining

    cdef bint release_outside_loop(self, Lease context, object exc) except -1:
        # Leaves a context whose coroutine is finalised outside the pool's loop. False if it can be left as usual.
        cdef Entry e
        if running_loop_or_none() is not None:
            self.own_loop.check()       # another one is refused
        elif self.own_loop.runs_in_other_thread():
            e = entry_to_leave_with(context)
            if exc is not None and self._hooks_broken and lease_goes_on(self._core, e, context.lease_no, ACQUIRED):
                e.break_()              # unknown: the manager is not asked
            self.release_dropped_lease(e, context.lease_no, ACQUIRED)
            return True
        return False

    cdef ReleaseCoroutine new_release_coroutine(self):
        # For the rest of a release, which must be awaited. If it never is, its lease releases the connection.
        cdef ReleaseCoroutine remaining = ReleaseCoroutine.__new__(ReleaseCoroutine)
        remaining.pool = self
        remaining.lease = Lease.__new__(Lease)
        remaining.lease.pool = self
        return remaining

    def _arm(self, Waiter w not None):
        # Returns what the waiter's task will await.
        cdef Signal signal
        check_built(self)
        self.own_loop.check()
        signal = Signal.__new__(Signal)
        signal.loop = self.own_loop.loop
        w.notify = signal
        if gcp_load_int(&self._core.reserved):
            self._spawn_creates()       # the creates that were requested before the pool had a loop
        elif self._core.next_timer() < INFINITY:
            self._timer.set(self)       # for timed actions of a loop that has since been closed
        return signal

    def _connecting(self, Waiter w not None, call):
        # Calls the manager's create(). Its connection belongs to the ticket as soon as it is returned.
        cdef CreateCall create = CreateCall.__new__(CreateCall)
        create.core = self._core
        create.pool = self
        create.ticket = w.served
        create.call = call
        return create

    def _take_growing(self):
        # The manager's create() for the next ticket of take_create(); None if there is none.
        cdef Growing growing = Growing.__new__(Growing)
        growing.pool = self
        growing.core = self._core
        growing.ticket = take_create(self._core, read_clock(self._core))
        return None if growing.ticket is None else growing

    def _take_disposal(self, bint for_all=False):
        # The manager's dispose() of the next doomed connection; None if there is none. Those left to workers only if
        # one may begin, or if the caller closes all.
        cdef Disposal disposal = Disposal.__new__(Disposal)
        disposal.pool = self
        disposal.core = self._core
        if for_all or is_closed(self._core):
            disposal.entry = self._core.take_doomed()
        else:
            disposal.entry = self._core.take_doomed_for_caller()
            if disposal.entry is None:
                disposal.entry = take_close(self._core)
        return None if disposal.entry is None else disposal

    def _take_check(self):
        # The check of the next connection that must be checked in the background; None if there is none now.
        cdef Entry e = self._core.take_check()
        return None if e is None else new_pool_check(self, e)

    def _begin_check_of_idle(self, Entry e not None):
        # The check of a connection; None if it is not idle.
        return new_pool_check(self, e) if self._core.begin_check_of_idle(e) else None

    def _abandon(self, Waiter w not None):
        # The acquire has failed: gives back what its waiter holds.
        try:
            self._core.cancel(w, read_clock(self._core))
        finally:            # a signal handler may raise in cancel(), where that wakes the next waiter
            if has_doomed(self._core):
                self.spawn_disposals()
            if checks_to_begin(self._core) > 0:
                self._spawn_checks()

    cdef int release_without_hook(self, Entry e, unsigned int lease_no) except -1:
        # Releases a connection without awaiting a hook, because its release was dropped or cut off.
        try:
            if gcp_load_char(&e.broken):
                self._core.retire_to_doomed(e, read_clock(self._core), lease_no)
            elif self._hooks_release:
                self.release_unreset(e, lease_no, False)
            else:
                self.finish_in_core(e, lease_no)
        finally:
            self.spawn_disposals()
        return 0

    def _and_close(self, call, *args):
        # Calls the core, and then starts the closes of what that has doomed. Compiled, so that no signal handler raises
        # in between.
        try:
            return call(*args)
        finally:
            if has_doomed(self._core):
                self.spawn_disposals()

    cdef object spawn_disposals(self):
        # Returns the tasks that close what is doomed. A signal handler may raise in the Python part, and nothing would
        # close these connections: then once more.
        try:
            return self._spawn_disposals()
        except BaseException:
            self._spawn_disposals()
            raise

    # The calls by which the coroutines of a release end its lease. They do nothing with a lease that has ended: the
    # release was given up (closed, or cut off by an exception), and its coroutine continues anyway.

    def _finish_in_core(self, Lease lease not None):
        # Releases the connection after its hook. True if connections are to be closed.
        if lease.entry is not None:
            self.finish_in_core(lease.entry, lease.lease_no)
            lease.entry = None
        return has_doomed(self._core)

    def _release_unreset(self, Lease lease not None, bint hook_ended):
        if lease.entry is not None:
            self.release_unreset(lease.entry, lease.lease_no, hook_ended)
            lease.entry = None

    def _retire(self, Lease lease not None, bint broken, bint was_fit=False):
        # Dooms the connection. Returns whether it must be closed now: not if close() has already closed it, or after a
        # fork.
        cdef Entry e = lease.entry
        cdef bint retired
        if e is None:
            return False
        if broken and gcp_load_char(&e.broken) != CUT_OFF:
            self._core.distrust_endpoint(e, lease.lease_no)
        retired = self._core.retire_to_doomed(e, self._core.now(), lease.lease_no, not broken, was_fit)
        lease.entry = None
        return retired

    def _doom_due(self):
        self.doom_due(read_clock(self._core))

    cdef int release_dropped_lease(self, Entry e, unsigned int lease_no, char state) except -1:
        try:
            self.release_if_still_held(e, lease_no, state)
        except BaseException:
            # A signal handler raised, perhaps before anything was done: once more.
            self.release_if_still_held(e, lease_no, state)
            raise
        return 0

    cdef int release_if_still_held(self, Entry e, unsigned int lease_no, char state) except -1:
        # Called in any thread. Only the pool's loop can close connections, in its tasks.
        if self.own_loop.loop is None or not lease_goes_on(self._core, e, lease_no, state):
            return 0
        # Another acquire may have taken the connection by then, so the loop looks at it again.
        if not self.own_loop.runs_in_other_thread() or not self.own_loop.call(
            self._release_dropped_lease, (e, lease_no, state)
        ):
            self.release_without_hook(e, lease_no)
        return 0

    def _release_dropped_lease(self, Entry e not None, unsigned int lease_no, char state):
        self.release_dropped_lease(e, lease_no, state)

    cdef bint finish_in_core(self, Entry e, unsigned int lease_no) except -1:
        # Releases a connection whose hook, if any, is done. True if connections are to be closed.
        cdef PoolCore core = self._core
        cdef double now = gcp_monotonic_coarse() if uses_system_clock(core) else ask_clock(core)
        if gcp_unlikely(not release_fast(core, e, now, lease_no)):
            release_with_core_lock(core, e, now, &core.doomed_for_caller, lease_no)
        if gcp_unlikely(gcp_load_double(&core.deadlines.due_at) <= now):
            self.doom_due_or_spawn(now)
        return has_doomed(core)

    cdef int doom_due_or_spawn(self, double now) except -1:
        # A separate function, because a try block inside finish_in_core() would slow every release down measurably.
        try:
            self.doom_due(now)
        except BaseException:   # a signal handler raised in it, while it set the collector's timer
            if has_doomed(self._core):
                self.spawn_disposals()
            raise
        return 0

    def connection(self, endpoint=..., timeout=None, *, bint long=False):
        """An asynchronous context manager that acquires a connection and returns it; as a decorator, around each call.

        When the block raises, the manager's ``is_broken`` is asked whether the exception broke the connection. A broken
        connection is closed; leaving the block waits at most 0.1 s for that, and the close goes on in the background.
        An error of ``is_broken`` is logged, and counts as a yes. Leaving raises what :py:meth:`release` raises:
        ``ConnectionNotAcquired`` if the block has returned the connection itself, and what ``on_release`` raises.

        :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
        :param timeout: seconds that acquiring may take, as for :py:meth:`acquire`; entering raises what that raises
        :param long: whether the block may take longer than ``leak_threshold``: then it is no leak
        :raises TypeError: when ``timeout`` is not a number
        :raises ValueError: when ``timeout`` is negative or NaN
        """
        cdef AsyncConnectionContext context
        if gcp_unlikely(endpoint is UNSET_ENDPOINT):
            endpoint = default_endpoint_of(self)
        if gcp_unlikely(is_overridden(self)):
            return self._connection_by_methods(endpoint, checked_timeout(timeout), long)
        context = AsyncConnectionContext.__new__(AsyncConnectionContext)
        set_up(context, self, endpoint, timeout, long)
        return context
