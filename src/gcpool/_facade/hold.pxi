# HOLDS. A drop-in for another pool takes and returns connections in its own Python code, around that of this package.
# There a signal handler may raise where a function begins, after each call, and at each jump back; a connection that
# the code then holds is lost if nothing else refers to it. A hold does. Connections are assigned to it and removed by
# assignment, not by a call, because after an assignment the interpreter does not check for signals.

ALREADY_ENTERED = 'the block is entered already: call connection() once more for a second one'


@cython.no_gc_clear     # its destructor needs what it refers to, also as part of a reference cycle
cdef class Hold:
    """A connection on its way between a pool and its client, in the Python code of a drop-in.

    If the hold is freed, or :py:meth:`give_up` is called, while it has a connection that is still in use, the
    connection is closed: it may be in any state.

    :param engine: the pool of this package
    :param elsewhere: by the ids of connections, a list with one item: a thread or task that takes out the item returns
        the connection. If a hold takes it out first, the hold gives up the connection instead.
    """

    def __init__(self, PoolFacade engine not None, dict elsewhere not None):
        self.engine = engine
        self.elsewhere = elsewhere

    def __dealloc__(self):
        if self.entry is None or gcp_is_finalizing():
            return
        # As in a Lease: a pool that is being collected as garbage no longer owns entries.
        if self.engine._core is not None:
            if self.engine._core.entries is not None and self.entry in self.engine._core.entries:
                give_connection_up(self)

    @property
    def conn(self):
        """The assigned connection, None if the hold has ended. A connection that is not in use is not held."""
        return self.conn_

    @conn.setter
    def conn(self, conn):
        begin_hold(self, conn)

    @property
    def used_ms(self):
        """Whole milliseconds since the last assignment to ``conn``."""
        return <long long>(1000.0 * (gcp_monotonic() - self.began))

    def give_up(self):
        """Close the connection, if it is still in use by the client of this hold."""
        give_connection_up(self)


cdef int begin_hold(Hold hold, object conn) except -1:
    cdef Entry e = None
    if hold.engine is None:
        raise RuntimeError(NO_POOL)
    if conn is not None and not (hold.elsewhere and id(conn) in hold.elsewhere):
        e = find_acquired_by_identity(hold.engine._core, conn, UNSET_ENDPOINT)
    hold.conn_ = conn
    hold.entry = e
    if e is not None:
        hold.lease_no = gcp_load_uint(&e.lease_no)
    hold.began = gcp_monotonic()
    return 0


cdef inline int end_hold(Hold hold) except -1:
    hold.entry = None
    hold.conn_ = None
    return 0


cdef int give_connection_up(Hold hold) except -1:
    cdef Entry e = hold.entry
    key = id(hold.conn_)
    cdef list job = hold.elsewhere.get(key) if e is not None and hold.elsewhere else None
    end_hold(hold)
    if e is None:
        return 0
    if job is not None:
        try:
            job.pop()
        except IndexError:      # the thread or task has begun, and returns the connection
            return 0
        hold.elsewhere.pop(key, None)
    if lease_goes_on(hold.engine._core, e, hold.lease_no, ACQUIRED):
        gcp_store_char(&e.broken, CUT_OFF)
        hold.engine.release_dropped_lease(e, hold.lease_no, ACQUIRED)
    return 0


cdef Entry entry_of_client(object pool, object conn):
    # The entry of a connection that is returned to the pool of a drop-in. None if a client does not have it, or has
    # already returned it.
    cdef PoolFacade engine = pool._engine
    cdef dict elsewhere = pool._resetting
    if elsewhere and id(conn) in elsewhere:
        return None
    return find_acquired_by_identity(engine._core, conn, UNSET_ENDPOINT)


cdef Hold hold_of(object pool, object conn, Entry e, unsigned int lease_no):
    cdef Hold hold = Hold.__new__(Hold)
    hold.engine = pool._engine
    hold.elsewhere = pool._resetting
    hold.conn_ = conn
    hold.entry = e
    hold.lease_no = lease_no
    return hold


@cython.no_gc_clear
cdef class Block(Hold):
    """A context whose ``_enter(pool, timeout)`` takes a connection from a drop-in's pool and sets ``conn``, and whose
    ``_leave(pool, conn, exc_type, exc, traceback)`` returns it.

    These receive the attributes as arguments, because an argument costs less than an attribute of a compiled class.

    :param pool: the pool of the drop-in
    :param timeout: for ``_enter()``
    """

    def __init__(self, pool, timeout):
        self.engine = pool._engine
        self.elsewhere = pool._resetting
        self._pool = pool
        self._timeout = timeout


# -- threads -------------------------------------------------------------------------------------------------------

@cython.no_gc_clear
cdef class SyncBlock(Block):
    """Base of the block of a pool for threads.

    Compiled, so that no signal handler can raise before ``_enter()`` or ``_leave()`` has begun or after it has ended.
    """

    def __enter__(self):
        if self.entry is not None:
            raise RuntimeError(ALREADY_ENTERED)
        try:
            return self._enter(self._pool, self._timeout)
        except BaseException:
            give_connection_up(self)
            raise

    def __exit__(self, exc_type, exc, traceback):
        try:
            answer = self._leave(self._pool, self.conn_, exc_type, exc, traceback)
        except BaseException:
            give_connection_up(self)
            raise
        end_hold(self)
        return answer


@cython.final
cdef class SyncTaking:
    """``taking[endpoint, timeout]`` acquires a connection from a pool for threads, as ``acquire`` does."""
    cdef SyncPool pool

    def __init__(self, SyncPool pool not None):
        self.pool = pool

    def __getitem__(self, key):
        endpoint, timeout = key
        if self.pool is None:
            raise RuntimeError(NO_POOL)
        return acquire_entry(self.pool, endpoint, checked_timeout(timeout)).conn_


@cython.final
cdef class SyncReady:
    """``ready[endpoint]`` takes a connection that needs no check and no hook; itself if there is none."""
    cdef SyncPool pool

    def __init__(self, SyncPool pool not None):
        self.pool = pool

    def __getitem__(self, endpoint):
        cdef SyncPool pool = self.pool
        cdef void *conn = NULL
        if pool is None:
            raise RuntimeError(NO_POOL)
        if not pool.asks_before_use:
            conn = take_idle(pool._core, endpoint, read_clock(pool._core), pool.trusted_for, TAKEN_CONNECTION)
        return self if conn == NULL else owned_object(conn)


@cython.binding(True)
def sync_returning(function):
    """Make a method ``putconn(conn)`` of a pool for threads from a function. If that fails, the connection is closed.

    The function is not called if the pool's ``_is_returned_as_it_is(conn)`` returns that there is nothing to do.
    """
    @cython.binding(True)
    def putconn(pool, conn):
        cdef Entry e = entry_of_client(pool, conn)
        cdef unsigned int lease_no = 0 if e is None else gcp_load_uint(&e.lease_no)
        try:
            if e is not None and pool._is_returned_as_it_is(conn):
                conn._pool = None
                pool._engine.release(conn)
            else:
                function(pool, conn)
        except BaseException:
            give_connection_up(hold_of(pool, conn, e, lease_no))
            raise

    return update_wrapper(putconn, function)


# -- asyncio -------------------------------------------------------------------------------------------------------

@cython.final
@cython.no_gc_clear     # the inner coroutine still has to warn if it is never awaited
cdef class HoldCall(ManagerCall):
    """A coroutine that holds a connection. As soon as it fails, the connection is given up."""

    cdef object returned(self, object value):
        if self.ends_hold:
            end_hold(self.hold)
        self.hold = None
        return value

    cdef int failed(self) except -1:
        cdef Hold hold = self.hold
        if hold is not None:
            self.hold = None
            give_connection_up(hold)
        return 0

    @property
    def __class__(self):
        return CoroutineType

    def __getattr__(self, name):
        return getattr(self.inner, name)


cdef HoldCall call_with_hold(object coroutine, Hold hold, bint ends_hold):
    cdef HoldCall call = HoldCall.__new__(HoldCall)
    call.inner = coroutine
    call.hold = hold
    call.ends_hold = ends_hold
    return call


@cython.no_gc_clear
cdef class AsyncBlock(Block):
    """Base of the block of a pool for asyncio."""

    def __aenter__(self):
        if self.entry is not None:
            raise RuntimeError(ALREADY_ENTERED)
        return call_with_hold(self._enter(self._pool, self._timeout), self, False)

    def __aexit__(self, exc_type, exc, traceback):
        leaving = self._leave(self._pool, self.conn_, exc_type, exc, traceback)
        return call_with_hold(leaving, self, True)


@cython.binding(True)
def async_returning(function):
    """Make a method ``putconn(conn)`` of a pool for asyncio from a coroutine function.

    If its coroutine fails, or is dropped, the connection is closed. The call itself returns the connection if the
    pool's ``_is_returned_as_it_is(conn)`` returns that there is nothing to do.
    """
    @cython.binding(True)
    def putconn(pool, conn):
        cdef Entry e = entry_of_client(pool, conn)
        cdef unsigned int lease_no = 0 if e is None else gcp_load_uint(&e.lease_no)
        try:
            if e is not None and pool._is_returned_as_it_is(conn):
                conn._pool = None
                return pool._engine.release(conn)
            return call_with_hold(function(pool, conn), hold_of(pool, conn, e, lease_no), True)
        except BaseException:
            give_connection_up(hold_of(pool, conn, e, lease_no))
            raise

    update_wrapper(putconn, function)
    mark_coroutine_function(putconn)
    return putconn
