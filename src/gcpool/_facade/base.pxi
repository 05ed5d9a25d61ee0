cdef extern from *:
    """
    /* The version of a type: it changes whenever an attribute of the type or of one of its bases is set, and is 0 until
       an attribute is looked up. So one load shows that no method was replaced. */
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


# The core of a pool whose __init__ was not called. It never has a connection, so the fast path finds none in it, and
# only the slow paths have to ask whether the pool was built.
cdef PoolCore UNBUILT = PoolCore(0, 0, 0, 0.0, 0.0)
PyObject_GC_UnTrack(<void *>UNBUILT)    # it is not a pool of the program, and never garbage


cdef int check_built(PoolFacade pool) except -1:
    if pool._core is UNBUILT:
        raise RuntimeError(f'{type(pool).__qualname__}.__init__() was not called: expected super().__init__(manager)')
    return 0


cdef inline bint is_overridden(PoolFacade pool) except -1:
    # Whether a subclass overrides acquire() or release(), or a tracer has replaced one on the pool or on its class.
    # Then connection() has to call that method.
    cdef unsigned int unpatched = gcp_load_uint(&pool.unpatched_version)
    if gcp_likely(unpatched and unpatched == gcp_version_of_type(pool) and not gcp_load_int(&pool.replaced)):
        return False
    return pool.look_for_overrides()


# Seconds that a check by the pool may take if there is no check_timeout.
cdef double POOL_CHECK_TIME = 5.0


cdef int warn_of_dropped_pool(PoolFacade pool) except -1:
    import warnings
    warnings.warn(
        f'{pool!r} was dropped and never closed: expected close(), or a with block of the pool',
        ResourceWarning,
        source=pool,
    )
    return 0


cdef class PoolFacade:
    """The common state of the compiled bases of both facades. Not for subclasses outside this package."""

    def __cinit__(self):
        self._core = UNBUILT

    def __init__(
        self,
        PoolCore core not None,
        object manager,
        *,
        Observer observer not None,
        object acquire_timeout,
        object dispose_timeout,
        int dispose_batch_size,
        bint checks,
        bint hooks_acquire,
        bint hooks_release,
        bint hooks_dead,
        bint judges,
        bint broken_on_cancel,
        double check_interval,
        object check_timeout,
        object create_timeout,
        object reconnect_failed,
        object refusal,
        object hopeless,
        bint watches_outages,
        object default_endpoint,
    ):
        if self._core is not UNBUILT:
            # With a new core, the connections that are checked out of the old one could not be released.
            raise RuntimeError(f'{type(self).__qualname__}.__init__() was already called')
        self._core = core
        self._manager = manager
        self._default_endpoint = default_endpoint
        self._observer = observer
        core.describe = observer.text
        core.name = observer.name
        self._acquire_timeout = acquire_timeout
        self._dispose_timeout = dispose_timeout
        self._dispose_batch_size = dispose_batch_size
        self._checks = checks
        self._hooks_acquire = hooks_acquire
        self._hooks_release = hooks_release
        self._hooks_dead = hooks_dead
        self._hooks_broken = judges or broken_on_cancel
        self._judges = judges
        self._broken_on_cancel = broken_on_cancel
        self._check_interval = check_interval
        self.trusted_for = check_interval if checks else 0.0
        self.checks_always = checks and check_interval <= 0
        self.needs_manager = hooks_acquire or self.checks_always
        self.asks_before_use = self.needs_manager or core.records_holders
        self._check_timeout = check_timeout
        self._check_limit = POOL_CHECK_TIME if check_timeout is None else check_timeout
        self._create_timeout = create_timeout
        self._reconnect_failed = reconnect_failed
        self._refusal = refusal
        self._hopeless = hopeless
        self._watches_outages = watches_outages

    def __del__(self):
        # At the end of the interpreter nothing is logged: the system closes open connections.
        if self._core is not None and self._core.size and not is_closed(self._core) and not gcp_is_finalizing():
            warn_of_dropped_pool(self)

    def _known_limits(self):
        # The limits of a pool that was built.
        check_built(self)
        return limits_of(self._core)

    cdef bint look_for_overrides(self) except -1:
        cdef unsigned int version
        cdef bint overridden
        acquire, release = self._own_methods
        type(self).acquire      # this look-up gives the type a version
        # The version is read before the methods are compared: one that is replaced after this changes the version.
        version = gcp_version_of_type(self)
        overridden = type(self).acquire is not acquire or type(self).release is not release
        gcp_store_uint(&self.unpatched_version, 0 if overridden else version)
        return overridden or gcp_load_int(&self.replaced)

    def _note_replaced(self, str name not None, bint replaced):
        # acquire or release was set on the pool itself, or deleted there.
        cdef int bit = 1 if name == 'acquire' else 2
        gcp_lock(&self._core.lock)
        gcp_store_int(&self.replaced, self.replaced | bit if replaced else self.replaced & ~bit)
        gcp_unlock(&self._core.lock)

    cdef inline int doom_due(self, double now) except -1:
        # Dooms up to dispose_batch_size expired connections. If there is a collector, it does that instead, unless its
        # thread has died and no other one can be started.
        cdef PoolCore core = self._core
        if gcp_load_double(&core.deadlines.due_at) <= now and not (core.collects and self._collector.ensure_running()):
            core.doom_due(now, self._dispose_batch_size)
        return 0

    cdef int release_unreset(self, Entry e, unsigned int lease_no, bint hook_ended) except -1:
        # Releases a connection whose on_release hook did not end well. If the hook ended with an error, the connection
        # is kept, as in generic-connection-pool. If the hook was cut off or left out, the connection may be in any
        # state: it is checked before it is served, or closed if the manager has no check.
        cdef PoolCore core = self._core
        if hook_ended or self._checks:
            core.mark_unchecked(e, lease_no)
            core.release(e, read_clock(core), lease_no)
        else:
            core.retire_to_doomed(e, read_clock(core), lease_no)
        return 0

    cdef int release_dropped_lease(self, Entry e, unsigned int lease_no, char state) except -1:
        # The holder of a lease was freed without releasing the connection. Another release may have done so.
        # Called in any thread.
        raise NotImplementedError

    def _checked_default_endpoint(self):
        return default_endpoint_of(self)

    def _tell(
        self, str kind, endpoint, str message not None, *args, str level='info', reason=None, duration=None, error=None
    ):
        # Reports an event at an endpoint to the log, and to on_event unless the kind is None. Called with no lock held.
        # The message begins with a placeholder for the endpoint; then come those for args.
        self._observer.tell(kind, endpoint, LEVELS[level], message, args, reason, duration, error, False)

    def _tell_of_pool(self, str kind, str message not None, *args, str level='info', reason=None, duration=None):
        # The same for an event of the pool.
        self._observer.tell(kind, NOTHING, LEVELS[level], message, args, reason, duration, None, False)

    def _tell_error(self, endpoint, str message not None, error):
        # Reports an exception of the program's function that no caller gets, with the traceback. The message begins as
        # for _tell(); the error is added to it.
        self._observer.tell(
            None, endpoint, ERROR, message + ': %s: %s', (type(error).__name__, error), None, None, error, True
        )

    def _note_connect_failed(self, Entry ticket not None, error, str level='debug'):
        tell_connect_failed(self, ticket, error, LEVELS[level])

    def _note_reset(self, endpoint, answer, after_error):
        # on_release has returned. Logs once that it has rolled back what a block has left open without raising. While
        # an exception propagates, also through a `finally` with the release, the user expects the rollback.
        if (
            answer is ROLLED_BACK and not after_error and sys.exc_info()[0] is None
            and gcp_change_int(&self._observer.told_of_rollback, False, True)
        ):
            self._observer.tell(
                None, endpoint, WARNING,
                'a transaction on a connection to %s was rolled back, because it was left open: commit it before the '
                'connection is returned, use a transaction block, or autocommit (logged once)', (), None, None,
                None, False
            )

    def _note_closed(self, Entry e not None, double begun, error):
        tell_closed(self, e, begun, error)

    cdef inline bint is_alive(self, object answer) except -1:
        # The result of check_aliveness().
        if answer is True or answer is False:
            return answer is True
        return check_answer(self._manager, answer)

    def _is_alive(self, answer):
        return self.is_alive(answer)

    def _must_check(self, Waiter w not None):
        # Whether the connection that a waiter was served has to be checked. Not if close() has closed it meanwhile: the
        # manager's methods must not see a closed connection. Nor if the connection was just created.
        if not self._checks or w.is_new or not self._core.still_holds(w):
            return False
        if w.is_checked:        # by the pool, just now
            return self._core.needs_check(w, self._core.now(), INFINITY)
        return self.checks_always or self._core.needs_check(w, self._core.now(), self.trusted_for)
