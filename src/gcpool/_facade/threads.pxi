# -- the hot path -----------------------------------------------------------------------------------------------------

# Without the GIL, a reference to an object that several threads use costs as much as a lock. A variable of type void *
# takes none: the core, the pool and the endpoint live as long as the object that refers to them.

cdef inline Entry acquire_entry(SyncPool pool, object endpoint, object timeout):
    cdef void *core = <void *>pool._core
    cdef double now = gcp_monotonic_coarse() if uses_system_clock(<PoolCore>core) else ask_clock(<PoolCore>core)
    cdef void *e = take_idle(<PoolCore>core, endpoint, now, pool.trusted_for, TAKEN_ENTRY)
    if gcp_unlikely(e == NULL) or gcp_unlikely(pool.asks_before_use):
        return pool.acquire_slowly(endpoint, timeout, entry_or_none(e))
    return owned_entry(e)


cdef inline int release_entry(SyncPool pool, Entry e, unsigned int lease_no) except -1:
    cdef void *core = <void *>pool._core
    if gcp_unlikely(pool._hooks_release) or gcp_unlikely(gcp_load_char(&e.broken) != SOUND):
        return pool.release_by_manager(e, lease_no)
    return finish_in_core(pool, <PoolCore>core, e, lease_no)


cdef inline int finish_in_core(SyncPool pool, PoolCore core, Entry e, unsigned int lease_no) except -1:
    # The end of a release: no hook has to run, or it has run.
    cdef double now = gcp_monotonic_coarse() if uses_system_clock(core) else ask_clock(core)
    if gcp_unlikely(not release_fast(core, e, now, lease_no)):
        release_with_core_lock(core, e, now, &core.doomed_for_caller, lease_no)
    return dispose_if_due(pool, core, now)


cdef inline int dispose_if_due(SyncPool pool, PoolCore core, double now) except -1:
    if gcp_unlikely(gcp_load_double(&core.deadlines.due_at) <= now) or gcp_unlikely(has_doomed(core)):
        dispose_due(pool, now)
    return 0


cdef class SyncPool(PoolFacade):
    """Base of the pool for threads: what can be done without waiting, connecting or closing is done here."""

    def acquire(self, endpoint=..., timeout=None):
        """Take a connection out of the pool, or create one.

        :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
        :param timeout: seconds for the whole call: waiting, checking and connecting. 0 does not wait, not even for a
            close: it succeeds only if a connection is idle, or can be created at once. None uses the pool's
            ``acquire_timeout``.
        :return: a connection for the caller's exclusive use, to be returned with :py:meth:`release`
        :raises PoolTimeout: (a TimeoutError) when the timeout expires
        :raises ConnectionPoolClosedError: when the pool is closed, or is closed while this waits
        :raises TypeError: when the endpoint is not hashable, or ``timeout`` is not a number
        :raises ValueError: when ``timeout`` is negative or NaN
        :raises Exception: what the connection manager raises; no connection is lost then

        As in generic-connection-pool. Waiters are served first come, first served.
        """
        cdef void *core = <void *>self._core
        cdef void *conn
        cdef double now
        if gcp_unlikely(endpoint is UNSET_ENDPOINT):
            endpoint = default_endpoint_of(self)
        if gcp_unlikely(timeout is not None) or gcp_unlikely(self.asks_before_use):
            return acquire_entry(self, endpoint, checked_timeout(timeout)).conn_
        now = gcp_monotonic_coarse() if uses_system_clock(<PoolCore>core) else ask_clock(<PoolCore>core)
        conn = take_idle(<PoolCore>core, endpoint, now, self.trusted_for, TAKEN_CONNECTION)
        if gcp_unlikely(conn == NULL):
            return self.acquire_slowly(endpoint, None, None).conn_
        return owned_object(conn)

    def release(self, conn, endpoint=...):
        """Return a connection to the pool.

        :param conn: what :py:meth:`acquire` returned
        :param endpoint: the endpoint that the connection was acquired for; if it is given, it is compared
        :raises ConnectionNotAcquired: when it is not in use, or belongs to another endpoint; nothing is changed then
        :raises Exception: what the manager's ``on_release`` raises; the connection is returned all the same

        As in generic-connection-pool, without a background collector this also closes connections that are due.
        """
        cdef void *core = <void *>self._core
        cdef double now = gcp_monotonic_coarse() if uses_system_clock(<PoolCore>core) else ask_clock(<PoolCore>core)
        if gcp_likely(not self._hooks_release) and gcp_likely(release_if_simple(<PoolCore>core, conn, endpoint, now)):
            dispose_if_due(self, <PoolCore>core, now)
        else:
            self.release_slowly(conn, endpoint)

    def try_acquire(self, endpoint=...):
        """Take an idle connection that is ready for use, or nothing. Neither waits nor connects, checks or closes.

        Waiters come first. A connection whose check is due, or whose lifetime is over, is not taken, nor is any if the
        manager has an ``on_acquire``, or checks each connection (``check_interval=0``): then this always returns None.

        :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
        :return: a connection, to be returned with :py:meth:`release`, or None
        :raises ConnectionPoolClosedError: when the pool is closed
        :raises TypeError: when the endpoint is not hashable
        """
        cdef Entry e = take_ready_of(self, endpoint)
        return None if e is None else e.conn_

    def discard(self, conn):
        """Close a connection that was acquired, instead of returning it. It is closed when this returns.

        No hook is called. The endpoint's other connections are not suspected. Inside of ``with pool.connection()``, the
        end of the block does nothing then.

        :param conn: what :py:meth:`acquire` returned
        :raises ConnectionNotAcquired: when it is not in use; nothing is changed then
        """
        discard_now(self, conn)

    def detach(self, conn):
        """Keep a connection that was acquired: the pool forgets it and never closes it, and its slot is free at once.

        No hook is called. Inside of ``with pool.connection()``, the end of the block does nothing then.

        :param conn: what :py:meth:`acquire` returned
        :raises ConnectionNotAcquired: when it is not in use, or ``close()`` has closed it; nothing is changed then
        """
        try:
            detach_from(self, conn)
        finally:
            begin_disposals(self, INFINITY)

    def connection(self, endpoint=..., timeout=None, *, bint long=False):
        """A context manager that acquires a connection and returns it; as a decorator, around each call.

        When the block raises, the manager's ``is_broken`` is asked whether the exception broke the connection. A broken
        connection is closed. An error of ``is_broken`` is logged, and counts as a yes. Leaving raises what
        :py:meth:`release` raises: ``ConnectionNotAcquired`` if the block has returned the connection itself, and what
        ``on_release`` raises.

        :param endpoint: where to connect, any hashable; the manager's ``default_endpoint`` if it is not given
        :param timeout: seconds that acquiring may take, as for :py:meth:`acquire`; entering raises what that raises
        :param long: whether the block may take longer than ``leak_threshold``: then it is no leak
        :raises TypeError: when ``timeout`` is not a number
        :raises ValueError: when ``timeout`` is negative or NaN
        """
        cdef SyncConnectionContext context
        if gcp_unlikely(endpoint is UNSET_ENDPOINT):
            endpoint = default_endpoint_of(self)
        if gcp_unlikely(is_overridden(self)):
            return self._connection_by_methods(endpoint, checked_timeout(timeout), long)
        context = SyncConnectionContext.__new__(SyncConnectionContext)
        set_up(context, self, endpoint, timeout, long)
        return context

    cdef Entry acquire_slowly(self, object endpoint, object timeout, Entry e):
        # Compiled, because signal handlers run between the bytecodes of Python code and never here. Whatever the Python
        # parts raise, and however often, the waiter is cancelled, and what it holds is given back.
        cdef Waiter w
        cdef bint dead = False
        cdef bint ready
        since = None
        if e is not None and not self.needs_manager:    # only its holder is to be recorded
            note_holder_or_release(self._core, e)
            return e
        check_built(self)
        if timeout is None:
            timeout = self._acquire_timeout
        try:
            w = new_waiter(endpoint)
            if timeout is not None and timeout >= ENDLESS_:
                timeout = None          # to managers, only None means no limit
        except BaseException:       # there is no memory
            if e is not None:
                self._core.release(e, read_clock(self._core))
                dispose_all(self, &self._core.doomed_for_caller, INFINITY)
            raise
        try:
            if e is not None:
                self._core.adopt(w, e)
                # With an interval, take_idle() has not taken a connection that needs a check: _serve() does.
                if self.checks_always:
                    if timeout is not None:
                        since = self._core.now()    # the time that the check takes counts, too
                    dead = self._core.still_holds(w) and not check_within(self, w, timeout)
                ready = not dead
            else:
                ready = self.connect_at_once(w, timeout)
            if ready:
                if self._hooks_acquire and self._core.still_holds(w):
                    self._manager.on_acquire(w.endpoint, w.entry.conn_)
                must_hold(self._core, w, endpoint)
            else:
                self._serve(w, timeout, dead, since)
            return take_served(w)
        except BaseException:
            interrupted = None
            try:
                self._core.cancel(w, read_clock(self._core))
            finally:
                if self._core.relief_ends_at() < INFINITY:
                    interrupted = try_keep_one_idle(self)
                begin_disposals(self, INFINITY if timeout is None else self._core.now())
            if interrupted is not None:
                raise interrupted
            raise

    cdef bint connect_at_once(self, Waiter w, object timeout) except -1:
        # If the limits allow one more connection and no endpoint wants a slot, connects without the steps of _serve()
        # (arming, queueing, checking). False if nothing was done: _serve() is needed.
        if self._watches_outages or not request_ticket(self._core, w):
            return False
        if not create_within(self, w, timeout):
            raise ConnectionPoolClosedError(
                f'{pool_text(self._core)} was closed while a connection to {endpoint_text(self._core, w.endpoint)} '
                'was created'
            )
        if self._core.keeps_growth:     # as in _connect()
            begin_disposals(self, INFINITY if timeout is None else self._core.now() + timeout)
        return True

    cdef int release_slowly(self, object conn, object endpoint) except -1:
        cdef Entry e = entry_to_release(self._core, conn, endpoint)
        if e is not None:
            release_entry(self, e, ANY_LEASE)
        return 0

    cdef int release_by_manager(self, Entry e, unsigned int lease_no) except -1:
        # A release for which the manager is called: on_release, or dispose if the connection is broken.
        if not self._core.begin_release(e, lease_no):
            return 0
        lease_no = gcp_load_uint(&e.lease_no)       # later actions of the hook must not end another user's lease
        return self.finish_release(e, lease_no, False)

    cdef int release_after_error(self, Entry e, unsigned int lease_no, object exc) except -1:
        # The block of a context has raised. The manager is asked whether that broke the connection.
        if not self._core.begin_release(e, lease_no):
            return 0
        gcp_store_char(&e.broken, True)     # until the manager has answered: is_broken() may be interrupted
        try:
            self._judge(e, exc)
        finally:
            self.finish_release(e, lease_no, True)
        return 0

    cdef int release_dropped_lease(self, Entry e, unsigned int lease_no, char state) except -1:
        if lease_goes_on(self._core, e, lease_no, state):
            try:
                release_entry(self, e, lease_no)
            except ConnectionNotAcquired:       # another thread was faster
                pass
        return 0

    cdef int discard_entry(self, Entry e, unsigned int lease_no) except -1:
        cdef PoolCore core = self._core
        if gcp_load_char(&e.broken) != CUT_OFF:
            core.distrust_endpoint(e, lease_no)
        if not core.retire(e, read_clock(core), lease_no):
            return 0
        try:
            dispose_entry(self, e, INFINITY, False)
            if self._hooks_dead:
                self._manager.on_connection_dead(e.pool.endpoint, e.conn_)
        finally:
            dispose_due(self, read_clock(core))
        return 0

    cdef int finish_release(self, Entry e, unsigned int lease_no, bint after_error) except -1:
        # The rest of a release, after begin_release().
        cdef PoolCore core = self._core
        if gcp_load_char(&e.broken):
            return self.discard_entry(e, lease_no)
        if self._hooks_release and core.is_checked_out(e, lease_no):
            try:
                answer = self._manager.on_release(e.pool.endpoint, e.conn_)
                if answer is not None:
                    self._note_reset(e.pool.endpoint, answer, after_error)
            except DiscardConnection as exc:
                core.retire_to_doomed(e, read_clock(core), lease_no, True, not exc.broken)
                try:
                    self._tell(None, e.pool.endpoint, 'on_release asked to close a connection to %s: %s', exc)
                finally:
                    dispose_due(self, read_clock(core))
                return 0
            except BaseException as exc:
                # Closes no expired connections, as in generic-connection-pool.
                self.release_unreset(e, lease_no, isinstance(exc, Exception))
                dispose_doomed(self)
                raise
        return finish_in_core(self, core, e, lease_no)

    def _work_next(self):
        # For a worker: closes, creates or checks one connection, in this order. False if none may begin.
        cdef PoolCore core = self._core
        cdef Entry e
        gcp_fence()     # as in begin_disposals(): this worker is no longer looking
        e = take_close(core)
        if e is not None:
            dispose_entry(self, e, INFINITY, True)
            return True
        if creates_to_begin(core):
            e = core.take_create(read_clock(core))
            if e is not None:
                create_for_pool(self, e)
                return True
        e = core.take_check()
        if e is not None:
            check_by_pool(self, e)
        return e is not None

    def _check_idle(self, Entry e not None):
        # Checks a connection in the caller's thread, if it is idle. Returns whether it was dead.
        return self._core.begin_check_of_idle(e) and check_by_pool(self, e)

    def _check_loop(self):
        check_built(self)

    def _create_within(self, Waiter w not None, timeout):
        return create_within(self, w, timeout)

    def _check_within(self, Waiter w not None, timeout):
        return check_within(self, w, timeout)

    def _and_close(self, call, *args):
        # Calls the core, and then calls a worker for what that has doomed. Compiled, so that no signal handler raises
        # in between. If there is no worker, the caller closes.
        try:
            return call(*args)
        finally:
            begin_disposals(self, self._core.now())

    def _begin_disposals(self, deadline=None):
        begin_disposals(self, INFINITY if deadline is None else deadline)

    def _dispose_doomed(self, deadline=None):
        # For close(): closes everything that is doomed, on both chains.
        cdef double end = INFINITY if deadline is None else deadline
        try:
            dispose_all(self, &self._core.doomed_for_caller, end)
        finally:
            dispose_all(self, &self._core.doomed_for_worker, end)

    def _leave_doomed_to_workers(self):
        # For an interrupted close(): workers close what it has doomed for itself.
        cdef Entry e = take_from(self._core, &self._core.doomed_for_caller)
        try:
            while e is not None:
                doom_again(self._core, e)
                e = take_from(self._core, &self._core.doomed_for_caller)
        finally:
            begin_disposals(self, self._core.now())
