# THE ONLY PLACE THAT REPORTS what happens to a pool: to the log, and to on_event. It is called with no lock held, and
# with the books in order, so a log handler may use the pool. on_event is called by a separate thread or task
# (_workers/events_*.py): it delays no acquire, and may wait for the pool.

cdef enum:              # levels of the log
    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40

LEVELS = {'debug': DEBUG, 'info': INFO, 'warning': WARNING, 'error': ERROR}

# The number of endpoints whose last connect errors are kept.
cdef int MAX_CONNECT_ERRORS = 64


@cython.final
cdef class Observer:
    """Reports what happens to a pool.

    :param name: the name of the pool
    :param describe: the manager's ``describe_endpoint``, or None
    :param events: ``events.put(event)`` queues an event for ``on_event``; None if there is none
    """

    def __init__(self, str name not None, object describe=None, object events=None):
        self.name = name
        self.describe = describe
        self.events = events
        self.connect_errors = {}

    def shown(self, endpoint):
        """What is shown in place of an endpoint: never the endpoint itself if the manager failed to describe it."""
        if self.describe is None:
            return endpoint
        try:
            return self.describe(endpoint)
        except Exception as exc:
            if not self.has_failed:
                self.has_failed = True
                log.log(
                    ERROR, '%s: describe_endpoint() failed: endpoints are shown by their class', (self.name,), None, exc
                )
            return UndescribedEndpoint(endpoint)

    @property
    def pool_text(self):
        """The pool in the message of an error."""
        return pool_text_of(self.name)

    def text(self, endpoint):
        """An endpoint in a message."""
        return self.text_of(self.shown(endpoint), endpoint)

    cdef int tell(
        self, str kind, object endpoint, int level, str message, tuple args, object reason, object duration,
        object error, bint traceback
    ) except -1:
        # The message begins with a placeholder for the endpoint, unless that is NOTHING: the event is about the pool.
        cdef bint logs = log.wants(level)
        cdef object shown = None
        if not logs and (kind is None or self.events is None):
            return 0
        if endpoint is not NOTHING:
            shown = self.shown(endpoint)
        if logs:
            if endpoint is not NOTHING:
                args = (self.text_of(shown, endpoint), *args)
            extra = {'pool': self.name, 'endpoint': shown, 'event': kind, 'reason': reason, 'duration': duration}
            log.log(level, '%s: ' + message, (self.name, *args), extra, error if traceback else None)
        if kind is not None and self.events is not None:
            self.events.put(PoolEvent(kind, self.name, shown, reason, duration, error))
        return 0

    def text_of(self, shown, endpoint):
        """The text for the result of :py:meth:`shown`."""
        try:
            return repr(shown)
        except Exception:
            return repr(UndescribedEndpoint(endpoint))

    def note_connect_error(self, endpoint, double now, error):
        """Keep the error of a connect, for acquires whose timeouts expire while they wait for the endpoint."""
        errors = self.connect_errors
        errors.pop(endpoint, None)
        while len(errors) >= MAX_CONNECT_ERRORS:
            try:
                errors.pop(next(iter(errors)), None)
            except (RuntimeError, StopIteration):   # another thread has changed it meanwhile
                break
        errors[endpoint] = now, without_frames(error)

    def connect_error(self, endpoint, double since):
        """The error of the last connect, if that ended after ``since``, and no later one succeeded; else None."""
        noted = self.connect_errors.get(endpoint) if self.connect_errors else None
        return noted[1] if noted is not None and noted[0] >= since else None

    def forget_connect_error(self, endpoint):
        """A connect succeeded, or no acquire waits any more."""
        if self.connect_errors:
            self.connect_errors.pop(endpoint, None)


@cython.final
cdef class UndescribedEndpoint:
    """Shown in place of an endpoint that cannot be described. It has no text of the endpoint, which may be a
    password."""

    cdef readonly str kind

    def __init__(self, endpoint):
        self.kind = type(endpoint).__qualname__

    def __repr__(self):
        return f'<an endpoint of class {self.kind}>'

    def __reduce__(self):
        return _undescribed_endpoint, (self.kind,)


def _undescribed_endpoint(str kind not None):
    cdef UndescribedEndpoint undescribed = UndescribedEndpoint.__new__(UndescribedEndpoint)
    undescribed.kind = kind
    return undescribed


def without_frames(error):
    """A copy of an exception for the pool to keep.

    The exception itself keeps the frames of its traceback alive, and with them all local variables of the callers.
    """
    import copy
    try:
        twin = copy.copy(error)
        if type(twin) is type(error) and str(twin) == str(error):
            return twin
    except Exception:
        pass
    return ConnectError(f'{type(error).__name__}: {error}')


cdef str pool_text(PoolCore core):
    # The pool in a message of the core.
    return 'the pool' if core.name is None else pool_text_of(core.name)


cdef inline str pool_text_of(object name):
    return f'pool {name!r}'


cdef str endpoint_text(PoolCore core, object endpoint):
    # An endpoint in a message of the core.
    return repr(endpoint) if core.describe is None else core.describe(endpoint)


# -- connects and closes, in both runtimes ----------------------------------------------------------------------------

cdef inline object expect_connection(PoolFacade pool, object conn):
    # The result of create(). TypeError if that is not a connection.
    if conn is None or PyCoro_CheckExact(conn):
        refuse_connection(pool._manager, conn)
    return conn


cdef int tell_connected(PoolFacade pool, Entry ticket, double begun) except -1:
    cdef object endpoint = ticket.pool.endpoint
    pool._observer.forget_connect_error(endpoint)
    return pool._observer.tell(
        'connected', endpoint, DEBUG, 'connection to %s created', (), None, max(pool._core.now() - begun, 0.0), None,
        False
    )


cdef bint created_and_told(PoolFacade pool, Entry ticket, object conn, double begun) except -1:
    # create() has returned to an acquire: enters the connection in the books, and reports it.
    cdef bint served = created(pool._core, ticket, conn, pool._core.now())
    tell_connected(pool, ticket, begun)
    return served


cdef bint grown_and_told(PoolFacade pool, Entry ticket, object conn, double begun) except -1:
    # The same for a connect by the pool itself.
    cdef bint kept = grown(pool._core, ticket, conn, pool._core.now())
    tell_connected(pool, ticket, begun)
    return kept


cdef int tell_connect_failed(PoolFacade pool, Entry ticket, object error, int level=DEBUG) except -1:
    # create() has raised. An acquire still has its ticket, and gives it back next.
    cdef double now = pool._core.now()
    cdef object endpoint = ticket.pool.endpoint
    if gcp_load_int(&ticket.pool.waiting):
        pool._observer.note_connect_error(endpoint, now, error)
    return pool._observer.tell(
        'connect_failed', endpoint, level, 'no connection to %s created: %s: %s', (type(error).__name__, error), None,
        max(now - ticket.used_at, 0.0), error, False
    )


cdef int tell_closed(PoolFacade pool, Entry e, double begun, object error, object limit=None) except -1:
    # A connection is closed, and its slot is free. The error is the exception of its dispose, or None. The limit is
    # that of the dispose, in seconds.
    cdef object reason = REASONS[<int>gcp_load_char(&e.reason)]
    cdef double duration = max(pool._core.now() - begun, 0.0)
    if not isinstance(error, Exception):        # any other is raised: its receiver logs it
        return pool._observer.tell(
            'closed', e.pool.endpoint, DEBUG, 'connection to %s closed: %s', (reason,), reason, duration, error, False
        )
    if isinstance(error, TimeoutError):
        how, args = 'timed out: %s', (str(error) or (f'the limit was {limit:g} s' if limit is not None else ''),)
    else:
        how, args = 'failed: %s: %s', (type(error).__name__, error)
    return pool._observer.tell(
        'closed', e.pool.endpoint, ERROR, f'closing a connection to %s {how} [{reason}]', args, reason, duration, error,
        True,
    )
