# How the pool for threads calls the manager's create() and check_aliveness(): for an acquire, and in a worker.

cdef int create_for_pool(SyncPool pool, Entry ticket) except -1:
    # Compiled, for the same reason as create_within().
    cdef double begun = pool._core.now()
    begin_create(ticket, begun)
    try:
        conn = expect_connection(pool, pool._manager.create(ticket.pool.endpoint, timeout=pool._create_timeout))
        grown_and_told(pool, ticket, conn, begun)
    except BaseException as exc:
        if gcp_load_char(&ticket.state) != CREATING:
            raise       # it has succeeded, and the exception is that of notifying a waiter
        try:
            pool._grow_failed(ticket, exc)
        finally:
            # is_refusal(), or a copy of the error, may have raised a BaseException.
            pool._core.grow_cancelled(ticket, read_clock(pool._core))
    else:
        pool._tell_end_of_outage(ticket)
    return 0


cdef bint check_by_pool(SyncPool pool, Entry e) except -1:
    # Checks a connection that is CHECKING, and closes it if it is dead. Returns whether it was.
    cdef PoolCore core = pool._core
    cdef bint answered = False
    cdef bint alive = False
    cdef bint dead = False
    try:
        alive = answers_by_pool(pool, e)
        answered = True
    except Exception as exc:
        pool._tell_error(e.pool.endpoint, 'a check of a connection to %s failed', exc)
    finally:
        dead = end_check_by_pool(core, e, answered, alive, read_clock(core), NULL)
        if dead:
            gcp_store_char(&e.broken, TO_BE_TOLD if pool._hooks_dead else SOUND)
        try:
            begin_disposals(pool, INFINITY)      # before this dispose, which may hang
        finally:
            if dead:
                dispose_entry(pool, e, INFINITY, True)
    return dead


cdef bint answers_by_pool(SyncPool pool, Entry e) except -1:
    endpoint = e.pool.endpoint
    try:
        return pool.is_alive(pool._manager.check_aliveness(endpoint, e.conn_, pool._check_limit))
    except TimeoutError as exc:
        tell_slow_check(pool, endpoint, pool._check_limit, exc)
        return False


cdef int tell_slow_check(SyncPool pool, object endpoint, object limit, object error) except -1:
    pool._tell(None, endpoint, 'a check of a connection to %s took longer than %g s: %s', limit, error)
    return 0


cdef int tell_dead(SyncPool pool, Entry e) except -1:
    # A connection that a check has found dead is closed, without a caller that waits for that.
    try:
        pool._manager.on_connection_dead(e.pool.endpoint, e.conn_)
    except Exception as exc:
        pool._tell_error(e.pool.endpoint, 'on_connection_dead() of a connection to %s failed', exc)
    return 0


cdef bint create_within(SyncPool pool, Waiter w, object timeout) except -1:
    # Compiled, so that no bytecode lies between create()'s return and created(): a signal handler that raised there
    # would lose the connection.
    cdef Entry ticket = w.served
    cdef double begun = pool._core.now()
    begin_create(ticket, begun)
    try:
        conn = expect_connection(pool, pool._manager.create(w.endpoint, timeout=timeout))
    except Exception as exc:
        tell_connect_failed(pool, ticket, exc)
        raise
    return created_and_told(pool, ticket, conn, begun)


cdef bint check_within(SyncPool pool, Waiter w, object timeout) except -1:
    # Whether the connection that the waiter was served is alive. The timeout is the rest of the acquire's.
    cdef Entry e = w.served
    cdef bint alive
    limit = timeout
    check_timeout_applies = pool._check_timeout is not None and (timeout is None or pool._check_timeout < timeout)
    if check_timeout_applies:
        limit = pool._check_timeout
    pool._core.begin_check(w)
    try:
        alive = pool.is_alive(pool._manager.check_aliveness(w.endpoint, e.conn_, limit))
    except TimeoutError as exc:
        if not check_timeout_applies:
            raise
        w.check_timed_out = True
        tell_slow_check(pool, w.endpoint, limit, exc)
        alive = False
    if alive:
        pool._core.end_check(w)
    return alive
