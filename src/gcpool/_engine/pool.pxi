# PoolCore: the calls of a facade, each forwarded to a function in the file of its part. This file is longer than the
# others because Cython takes a class from one file only: it has only the calls, and their descriptions.

@cython.final
@cython.no_gc_clear
cdef class PoolCore:
    """The state machine. All times are seconds on one monotonic line, all sizes numbers of connections.

    Its parameters are those of :py:func:`build_core`.
    """

    def __cinit__(self):
        enter_core(self)

    def __init__(self, *sizes_and_times, **parameters):
        build_core(self, *sizes_and_times, **parameters)

    def __dealloc__(self):
        free_core(self)

    # -- time ---------------------------------------------------------------------------------------------------------

    cpdef double now(self) except? -1:
        """The time in seconds, exact."""
        return gcp_monotonic() if self.clock is None else ask_clock(self)

    # -- acquiring ----------------------------------------------------------------------------------------------------

    def take_ready(self, object endpoint, double now, double interval):
        """The entry of an idle connection that is served without a check, or None. Nothing is created or closed.

        :param interval: seconds within which a used connection counts as alive; 0 if none is ever checked
        :raises ConnectionPoolClosedError: when the pool is closed
        """
        return take_ready(self, endpoint, now, interval)

    cpdef adopt(self, Waiter w, Entry e):
        """Let a waiter hold an entry that :py:meth:`try_acquire` gave."""
        adopt(self, checked_waiter(w), e)

    def request(self, Waiter w not None, double now):
        """Serve a waiter an idle connection or a ticket, or queue it, or refuse it. Its properties show which.

        Connections that have to be closed for that, and one that the waiter found dead before, are doomed, for a
        worker.

        :return: True if the waiter was queued: it will be notified, once
        """
        return request(self, w, now)

    def created(self, Entry ticket not None, object conn, double now):
        """Turn a ticket into an acquired connection.

        :return: False if the pool was closed meanwhile: the connection is doomed then
        :raises ValueError: when the pool already holds that connection; the ticket is unchanged
        :raises RuntimeError: in a process that was forked meanwhile; the connection is the parent's
        """
        return created(self, ticket, conn, now)

    cpdef begin_create(self, Entry ticket, double now):
        """The connect for a ticket begins: the time until it ends is counted."""
        begin_create_if_ticket(ticket, now)

    def end_wait(self, Waiter w not None, double now):
        """A waiter was notified, and its acquire continues: the time that it has waited is counted."""
        end_wait(self, w, now)

    def create_failed(self, Waiter w not None, double now):
        """Give a ticket back: there is no connection. The slot goes to a waiter that wants one, if there is any."""
        create_failed(self, w, now)

    def must_hold(self, Waiter w not None, object endpoint):
        """The end of an acquire: raises if the waiter no longer holds its connection.

        :raises ConnectionPoolClosedError: when the pool was closed meanwhile, and the connection with it
        :raises ConnectionNotAcquired: when a check or a hook has released the connection
        """
        must_hold(self, w, endpoint)

    cpdef bint still_holds(self, Waiter w) except -1:
        """Whether a waiter still holds its connection: not if a check or a hook has released it, or
        :py:meth:`doom_acquired` closed it meanwhile."""
        return still_holds(self, w)

    cpdef bint cancel(self, Waiter w, double now) except -1:
        """Take a waiter out of the queue. A connection that it was already served is given back, or goes to the next
        waiter.

        :return: True if the waiter was still queued, so that it will not be notified
        """
        return cancel(self, checked_waiter(w), now)

    def give_up(self, Waiter w not None, object now=None):
        """A waiter's timeout has expired: take it out of the queue, unless it was just served or refused.

        :param now: None for the present time
        :return: True if it has left the queue; False if it was, or will be, notified
        """
        return give_up(self, w, read_clock(self) if now is None else now)

    def connect_failed(self, Waiter w not None, object kept_error, bint is_refusal, bint may_ask_again, double now):
        """An acquire could not connect. With :py:data:`MAY_ASK_AGAIN` its waiter holds nothing, and asks again.

        :param kept_error: a copy of the error, for the pool to keep
        :param may_ask_again: whether the acquire has time left
        :return: the news to report, as flags
        """
        entry_held_by(w)
        return connect_failed(self, w, kept_error, is_refusal, may_ask_again, now)

    # -- connects by the pool itself ----------------------------------------------------------------------------------

    def set_workers(self, object call not None):
        """Set what is called, with no lock held, when there is something to connect to, or the next timer has changed.

        It returns False if no worker is available: then waiters connect themselves.
        """
        self.call_workers = call

    def ask_workers(self):
        """Call a worker once more, because the one that would have come has ended."""
        call_workers_again(self)

    @property
    def has_creates(self):
        """Whether :py:meth:`take_create` may return a ticket."""
        return gcp_load_int(&self.reserved) > 0

    cpdef Entry take_create(self, double now):
        """A ticket that belongs to no acquire, or None: there is nothing to connect to."""
        return take_create(self, now)

    cpdef bint grown(self, Entry ticket, object conn, double now) except -1:
        """Turn a ticket from :py:meth:`take_create` into a connection, for the oldest waiter or as an idle one.

        Raises what :py:meth:`created` raises.

        :return: False if the connection is doomed
        """
        return grown(self, ticket, conn, now)

    def grow_failed(
        self, Entry ticket not None, object error, object kept_error, bint is_refusal, double now,
        bint is_hopeless=False
    ):
        """The connect for a ticket from :py:meth:`take_create` has failed.

        :param error: what a waiter raises
        :param kept_error: a copy of it, for the pool to keep
        :param is_hopeless: whether no server has caused it: the waiter gets it, even where others wait until an outage
            ends
        :return: the news to report, as flags
        """
        return grow_failed(self, ticket, error, kept_error, is_refusal, is_hopeless, now)

    cpdef int grow_cancelled(self, Entry ticket, double now) except -1:
        """Give back a ticket from :py:meth:`take_create`: its connect was cut off."""
        return grow_cancelled(self, ticket, now)

    def pin(self, object endpoint, int size, double now):
        """Keep this many connections to an endpoint, whether it is used or not. 0 unpins it."""
        pin(self, endpoint, size, now)

    def watch_filled(self, Waiter w not None):
        """Have a waiter notified when each pinned endpoint has had its size once, or the pool is closed.

        :return: False if that has already happened
        """
        return watch_filled(self, w)

    def unfilled_endpoints(self):
        """``(endpoint, connections, size)`` of each pinned endpoint that has not had its size yet."""
        return unfilled_endpoints(self)

    def set_times(self, double max_lifetime, double reconnect_timeout):
        """Set times while the pool is in use: the lifetime of connections created from now on, and the seconds of an
        outage that :py:data:`RECONNECT_FAILED` reports, more than 0."""
        set_times(self, max_lifetime, reconnect_timeout)

    def set_pace(self, double first_delay, double max_delay, bint tells_again, int max_fills):
        """Set how the pool itself connects.

        :param first_delay: seconds of the first pause after a failure; each further pause is twice as long
        :param max_delay: seconds of the longest pause
        :param tells_again: whether :py:data:`RECONNECT_FAILED` is reported again after each further reconnect_timeout
        :param max_fills: maximum number of connects up to a minimum at the same time; 0 for the default
        """
        set_pace(self, first_delay, max_delay, tells_again, max_fills)

    def retry_now(self, object endpoint, double now):
        """End the pause between two attempts to connect, if there is one."""
        retry_now(self, endpoint, now)

    def ended_outage(self, Entry e not None):
        """Seconds that the last outage of a connection's endpoint lasted, once, after it has ended; else None."""
        return seconds_of_ended_outage(pool_of(e))

    def last_connect_error(self, object endpoint, double since):
        """The last error of a connect, if the outage continues or the error is not older than ``since``; else None."""
        return last_connect_error(self, endpoint, since)

    # -- checks -------------------------------------------------------------------------------------------------------

    cpdef bint needs_check(self, Waiter w, double now, double interval):
        """Whether the connection that a waiter was served has to be checked before it is used.

        :param interval: seconds within which a used connection counts as alive, unless it is suspect
        """
        return needs_check(self, w, now, interval)

    cpdef begin_check(self, Waiter w):
        """A check of the connection that a waiter was served begins.

        If :py:meth:`end_check` is not called after it, the connection is checked again before it is served.
        """
        begin_check(self, w)

    cpdef end_check(self, Waiter w):
        """The check has found the connection alive.

        If another one was found dead meanwhile, the connection remains suspect: the server may have stopped since it
        answered.
        """
        end_check(self, w)

    cpdef mark_unchecked(self, Entry e, unsigned int lease_no=ANY_LEASE):
        """A hook or a check was cut off, or left out: the connection is checked before it is served."""
        mark_unchecked(self, e, lease_no)

    def reject_dead(self, Waiter w not None):
        """A check has found dead the connection that the waiter was served (:py:attr:`Waiter.dead_entry`).

        It is doomed when the waiter asks again or is cancelled, and not before: otherwise another acquire could get its
        slot in between. If :py:meth:`doom_acquired` closed it during the check, it does not count as dead.
        """
        reject_dead(self, w)

    # -- checks by the pool, in the background ------------------------------------------------------------------------

    cpdef bint leave_check_to_pool(self, Waiter w, double now) except -1:
        """Have the pool check the connection that a waiter was served. The waiter may ask again.

        :return: False if nothing was done: the waiter no longer holds the connection, or the pool is closed
        """
        return leave_check_to_pool(self, w, now)

    @property
    def checks_to_begin(self):
        """How many checks workers may begin now."""
        return checks_to_begin(self)

    cpdef int begin_due_checks(self, double now) except -1:
        """Take out the idle connections that are due for a check, one of each endpoint. A worker checks them.

        :return: how many
        """
        return begin_due_checks(self, now)

    def next_check(self):
        """When :py:meth:`begin_due_checks` must be called, or None if nothing will be due."""
        return none_if_endless(next_check(self), INFINITY)

    cpdef Entry take_check(self):
        """The next entry whose connection a worker must check, or None. The worker then calls
        :py:meth:`end_check_by_pool`."""
        return take_check(self)

    cpdef bint begin_check_of_idle(self, Entry e) except -1:
        """Begin a check by the pool of a connection, if it is idle. The caller then calls
        :py:meth:`end_check_by_pool`."""
        return begin_check_of_idle(self, e)

    cpdef bint end_check_by_pool(self, Entry e, object alive, double now) except -1:
        """A check by the pool has ended. A live connection goes to a waiter, or becomes idle in its old place.

        :param alive: what the check has found; None if it was cut off, without a result
        :return: whether the connection is dead; it is doomed then, for a worker
        """
        return end_check_by_pool(self, e, alive is not None, alive is True, now, &self.doomed_for_worker)

    def give_up_checks(self, double now):
        """No worker can check: the connections that wait for a check are checked before they are served."""
        give_up_checks(self, now)

    def idle_entries(self, object endpoint=...):
        """The idle entries of an endpoint; of all if none is given. A list for each, in the order of release."""
        return idle_entries(self, endpoint, endpoint is UNSET_ENDPOINT)

    # -- releasing ----------------------------------------------------------------------------------------------------

    def entry_if_acquired(self, object conn, object endpoint):
        """The entry of an acquired connection. None if it is not acquired, or belongs to another endpoint."""
        return entry_if_acquired(self, conn, endpoint)

    cpdef bint begin_release(self, Entry e, unsigned int lease_no=ANY_LEASE) except -1:
        """Mark a connection whose ``on_release`` hook is about to run, so that it cannot be released a second time.

        :param lease_no: of the acquire that this ends, if that is known
        :raises ConnectionNotAcquired: when it is not acquired
        :return: False if there is nothing to release (:py:meth:`doom_acquired` closed it, or after a fork)
        """
        return begin_release(self, e, lease_no)

    cpdef release(self, Entry e, double now, unsigned int lease_no=ANY_LEASE):
        """Release a connection: it is handed to the first waiter, becomes idle, or is doomed.

        :param lease_no: of the acquire that this ends, if that is known
        :raises ConnectionNotAcquired: when it is not checked out; nothing is changed then
        """
        release(self, e, now, lease_no)

    cpdef bint is_checked_out(self, Entry e, unsigned int lease_no=ANY_LEASE):
        """Whether a connection is still checked out: not if :py:meth:`doom_acquired` closed it, or after a fork."""
        return still_checked_out(self, e, lease_no)

    cpdef bint retire(self, Entry e, double now, unsigned int lease_no=ANY_LEASE, bint discarded=False) except -1:
        """Take an unfit checked-out connection out of use for good.

        :param lease_no: of the acquire that this ends, if that is known
        :param discarded: whether its user or the manager asked for that; if not, the connection is broken
        :raises ConnectionNotAcquired: when it is not checked out
        :return: whether the caller must close it, and then call :py:meth:`disposed` (not if :py:meth:`doom_acquired`
            closed it, or after a fork)
        """
        return retire(self, e, now, NULL, lease_no, reason_to_retire(discarded))

    cpdef bint retire_to_doomed(
        self, Entry e, double now, unsigned int lease_no=ANY_LEASE, bint discarded=False, bint was_fit=False
    ) except -1:
        """Take a checked-out connection out of use for good and doom it: the next release closes it, or the caller.

        :param discarded: as for :py:meth:`retire`
        :param was_fit: whether it is not counted as broken
        :raises ConnectionNotAcquired: when it is not checked out
        :return: whether it was doomed
        """
        return retire(
            self, e, now, &self.doomed_for_caller, lease_no, reason_to_retire(discarded), False, was_fit
        )

    cpdef bint discard(self, Entry e, double now, bint to_doomed=False) except -1:
        """The user has the pool close an acquired connection. The endpoint's other connections are not suspect.

        :param to_doomed: whether it is doomed; otherwise the caller closes it, and then calls :py:meth:`disposed`
        :raises ConnectionNotAcquired: when it is not acquired
        :return: whether it is to be closed (not if :py:meth:`doom_acquired` closed it, or after a fork)
        """
        return retire(self, e, now, doomed_of(self, False) if to_doomed else NULL, ANY_LEASE, BECAUSE_DISCARDED, True)

    def detach(self, Entry e not None, double now):
        """The user keeps an acquired connection for good: the pool forgets it, and its slot is free.

        :raises ConnectionNotAcquired: when it is not acquired, or :py:meth:`doom_acquired` closed it; nothing is
            changed then
        :return: whether it was the pool's (not after a fork)
        """
        return detach(self, e, now)

    def distrust_endpoint(self, Entry e not None, unsigned int lease_no=ANY_LEASE):
        """A connection broke while in use: the endpoint's connections that are not seen alive after that are suspect.

        Not if :py:meth:`doom_acquired` closed it while it was checked out: then that has broken it.
        """
        distrust_endpoint(self, e, lease_no)

    # -- closing connections ------------------------------------------------------------------------------------------

    @property
    def doomed(self):
        """How many connections are to be closed now, by the caller or a worker."""
        return doomed_count(self)

    cpdef Entry take_doomed(self):
        """The next entry to be closed, of either chain, or None. The caller closes it, and then calls
        :py:meth:`disposed`."""
        return take_from_either(self)

    cpdef Entry take_doomed_for_worker(self):
        """For a worker: the next entry to be closed that an acquire or the collector has doomed, or None.

        Also None if no more closes may be at work.
        """
        return take_close(self)

    def doom_again(self, Entry e not None):
        """Put back an entry from :py:meth:`take_doomed`: its close has not begun, and the caller cannot do it."""
        doom_again(self, e)

    cpdef disposed(self, Entry e, double now, bint by_worker=False):
        """The close of a connection has ended, with or without an error: its slot is free.

        :param by_worker: whether a worker closes what this dooms for the next waiter
        """
        disposed(self, e, now, doomed_of(self, by_worker))

    cpdef int doom_due(self, double now, int limit, bint for_worker=False) except -1:
        """Doom the idle connections that are due, in the order of their deadlines.

        :param limit: how many at most; 0 for ``int(log2(size + 1)) + 1`` (generic-connection-pool)
        :param for_worker: whether a worker must close them
        :return: how many were doomed
        """
        return doom_due(self, now, limit, doomed_of(self, for_worker))

    def next_due(self):
        """When the next idle connection will be due, or None if none ever will. The collector may sleep until then."""
        return none_if_endless(next_due(self), NEVER)

    cpdef double relief_ends_at(self) noexcept:
        """When a close that has not ended stops counting for the waiters that want a slot. :py:meth:`expire_relief` is
        to be called then, and not before. inf if no close counts."""
        return read_with_core_lock(self, relief_ends_at)

    cpdef double next_timer(self) noexcept:
        """When :py:meth:`run_timers` must be called: a close stops counting then, or an attempt to connect is due.

        inf if nothing will be due.
        """
        return read_with_core_lock(self, next_timer)

    def run_timers(self, double now, bint by_worker=True):
        """Do what is due.

        :param by_worker: whether the caller then looks for connections to create, so that no worker has to be called
        """
        run_timers(self, now, by_worker)

    def expire_relief(self, double now):
        """Doom another idle connection, for a worker, if a close for waiters that want a slot has stopped counting."""
        expire_relief(self, now)

    # -- opening, closing, suspending and resizing --------------------------------------------------------------------

    def open(self, double now):
        """Serve acquires, and create connections, from now on.

        :return: False if the pool is already open, or closed
        """
        return open_(self, now)

    def close(self, bint for_worker=False):
        """Refuse new and queued waiters, and doom idle connections. Those in use are closed when they are released.

        :param for_worker: whether a worker must close the idle ones
        """
        close(self, doomed_of(self, for_worker))

    def forget_closed(self, Entry e not None):
        """No release will come of a connection that :py:meth:`doom_acquired` closed: forget it now."""
        forget_closed_while_out(self, e)

    def watch_empty(self, Waiter w not None):
        """Have a waiter notified when the pool has no connection left.

        :return: False if it already has none
        """
        return watch_empty(self, w)

    def watch_use(self, Waiter w not None):
        """Have a waiter notified when one of the endpoints with connections in use no longer has any.

        :return: False if no connection is in use, or being created
        """
        return watch_use(self, w)

    def watch_gone(self, Waiter w not None, Entry e not None):
        """Have a waiter notified when a connection is closed.

        :return: False if it already is, or in a forked child, which does not close it
        """
        return watch_gone(self, w, e)

    def unwatch(self, Waiter w not None):
        """End what :py:meth:`watch_empty`, :py:meth:`watch_use` or :py:meth:`watch_gone` began.

        :return: True if the waiter was still watching, so that it will not be notified
        """
        return unwatch(self, <void *>w)

    def doom_acquired(self):
        """Doom every connection that is checked out, the oldest first. Their releases will do nothing.

        :return: how many
        """
        return doom_acquired(self)

    def suspend(self, bint fail=False):
        """Stop serving until :py:meth:`resume`: acquires are queued.

        :param fail: whether acquires that begin are refused instead
        :return: False if the pool is closed
        """
        return suspend(self, fail)

    def resume(self, double now):
        """Serve the waiters, and new acquires.

        :return: False if the pool was not suspended
        """
        return resume(self, now)

    def drain(self, object endpoint, double now, bint idle_only=False):
        """Doom the idle connections of an endpoint, for a worker; those in use are closed when they are released.

        :param idle_only: whether those in use are left alone
        :return: False if the endpoint is unknown: it has no connections, and no minimum
        :raises TypeError: when the endpoint is not hashable
        """
        return drain_endpoint(self, endpoint, now, idle_only) == 1

    def drain_all(self, double now, bint idle_only=False):
        """:py:meth:`drain` for every endpoint."""
        drain(self, endpoint_pools_in_order(self), now, idle_only)

    def resize(
        self,
        double now,
        *,
        min_idle=None,
        max_size=None,
        total_max_size=None,
        min_size=None,
        max_waiting=None,
        max_workers=None,
        object limits=None,
        object expected=None,
    ):
        """Change the limits; None leaves one unchanged.

        When a limit is raised, waiters are served. Idle connections beyond a lowered limit are doomed; connections in
        use beyond it are closed when they are released.

        :param limits: replaces :py:attr:`limits`
        :param expected: the value of :py:attr:`limits` that the caller has read
        :return: False if it is now another object: then nothing was changed
        """
        cdef LimitsToSet to_set = limits_to_set(
            min_idle, max_size, total_max_size, min_size, max_waiting, max_workers
        )
        return resize(self, now, to_set, limits, expected)

    @property
    def limits(self):
        """The object that the facade keeps for the limits: the one last passed to :py:meth:`resize` or to the
        constructor."""
        return limits_of(self)

    # -- looking ------------------------------------------------------------------------------------------------------

    @property
    def size(self):
        """The number of connections."""
        return gcp_load_int(&self.size)

    @property
    def min_idle(self):
        """The number of idle connections of an endpoint that are core."""
        return gcp_load_int(&self.min_idle)

    @property
    def min_size(self):
        """The number of connections that are kept for each live endpoint."""
        return gcp_load_int(&self.min_size)

    @property
    def max_size(self):
        """The maximum number of connections to an endpoint."""
        return gcp_load_int(&self.max_size)

    @property
    def total_max_size(self):
        """The maximum number of connections."""
        return gcp_load_int(&self.total_max_size)

    @property
    def max_waiting(self):
        """The maximum number of waiters that are queued at an endpoint; 0 for no limit."""
        return gcp_load_int(&self.max_waiting)

    @property
    def max_workers(self):
        """The maximum number of jobs that workers do at the same time; 0 for no limit."""
        return gcp_load_int(&self.jobs.max_workers)

    @property
    def order(self):
        """Which extra connection is served first: ``lifo``, the one used last, or ``fifo``."""
        return 'fifo' if self.serves_oldest else 'lifo'

    @property
    def keep(self):
        """What is compared with min_idle: ``size``, with the connections in use, or ``idle``."""
        return 'size' if self.out_mask else 'idle'

    @property
    def closed(self):
        """Whether :py:meth:`close` was called."""
        return is_closed(self)

    @property
    def opened(self):
        """Whether acquires are served, or were until the pool was closed."""
        return gcp_load_int(&self.restrictions) & NOT_OPEN == 0

    @property
    def is_suspended(self):
        """Whether no acquire is served until :py:meth:`resume`."""
        return is_suspended(self)

    @property
    def is_empty(self):
        """Whether the pool has neither a connection nor a waiter."""
        return is_empty(self)

    @property
    def used(self):
        """How many connections are in use, or are being created by an acquire."""
        return count_used(self)

    def endpoint_size(self, object endpoint, object acquired=None):
        """The number of connections to an endpoint: all (None), checked out (True), idle (False)."""
        return endpoint_size(self, endpoint, acquired)

    def holders(self, object endpoint=None, bint of_all=True):
        """The connections in use: a list of seconds, endpoint, entry, lease number, who holds it (a ThreadMark, a weak
        reference to a task, or None), where it was acquired (pairs of code and line, innermost first), whether it may
        be held for long, and whether nothing refers to it any more.

        :param endpoint: the endpoint, unless ``of_all``
        """
        cdef EndpointPool ep = None if of_all else find_pool(self, endpoint)
        return [] if ep is None and not of_all else holders_of(self, ep)

    def who_holds(self, object endpoint=None, bint of_all=True):
        """Who holds the connections in use, as :py:meth:`holders` shows it: one element for each.

        :param endpoint: the endpoint, unless ``of_all``
        """
        cdef EndpointPool ep = None if of_all else find_pool(self, endpoint)
        return [] if ep is None and not of_all else who_holds(self, ep)

    def current_holder(self):
        """What :py:meth:`holders` shows for the calling thread or task; None if there is nothing."""
        cdef PyObject *who
        if gcp_thread_mark() == NULL:
            make_thread_mark()
        who = current_holder(self)
        if who == NULL:
            return None
        found = <object>who
        Py_DECREF_(who)
        return found

    @property
    def holders_are_tasks(self):
        """Whether the holders of connections are tasks, and not threads."""
        return bool(self.records_tasks)

    def mark_long(self, Entry e not None):
        """The connection may be held for as long as its user likes: it is not a leak. Called by its holder."""
        mark_long(self, e)

    def returned_at(self, Entry e not None, unsigned int lease_no):
        """When a lease has ended: None if it has not, infinite if that is no longer known."""
        return returned_at(e, lease_no)

    def count_leak(self):
        """A connection was found leaked."""
        count_leak(self)

    @property
    def next_look_for_leaks(self):
        """When the next search for leaks is due; infinite if none is."""
        return gcp_load_double(&self.leaks_looked_for_at)

    def look_for_leaks_again(self, double now, bint goes_on):
        """A search is made. The next acquire calls :py:attr:`wake_leak_watch` unless ``goes_on``."""
        gcp_store_double(&self.leaks_looked_for_at, now + leak_interval(self) if goes_on else INFINITY)

    def readiness(self):
        """Whether acquires would be served now: how many connections there are, and which endpoints are in trouble.

        :return: the numbers of connections, of idle ones, of those in use, of waiters, of endpoints with an idle
            connection or room for one; and of the endpoints in trouble a list of (one of ``TROUBLES``, the endpoint,
            its numbers in use and waiting, the last connect error or None)
        """
        return readiness_of(self)

    def stats(self, bint pops=False, bint since_built=False):
        """Gauges and counters of the whole pool, with its histograms.

        :param pops: whether the counters are reset after this
        :param since_built: whether they are those since the pool was built, regardless of resets
        """
        return gauges_and_counters(self, pops, since_built)

    def endpoint_stats(self, object endpoint, bint looks_for_longest=True):
        """The gauges of an endpoint.

        :param looks_for_longest: whether ``longest_held`` is computed, which reads each connection of the pool; else 0
        """
        return endpoint_gauges(self, endpoint, looks_for_longest)

    def endpoint_rows(self):
        """A row for each endpoint: the endpoint, and how many are idle, in use, being created, checked, closed; how
        many acquires wait."""
        return endpoint_rows(self)

    # -- for tests ----------------------------------------------------------------------------------------------------

    @property
    def watched_endpoints(self):
        """The number of endpoints whose releases all take the core's lock."""
        return <int>self.release_watches.used

    @property
    def use_watchers(self):
        """The number of waiters until no connection of an endpoint is in use."""
        return count_use_watchers(self)

    def try_acquire(self, object endpoint, double now):
        """The entry of an idle connection. None if none is ready, or if the endpoint is spelled as never before.

        Nothing is created, and this does not wait.
        """
        return entry_or_none(take_idle(self, endpoint, now, 0, TAKEN_ENTRY))

    def find_acquired(self, object conn, object endpoint):
        """The entry of a connection that is checked out.

        :raises ConnectionNotAcquired: when it is not, or belongs to another endpoint
        """
        return find_checked_out(self, conn, endpoint)

    cpdef Entry take_doomed_for_caller(self):
        """The next entry to be closed that a release, close() or resize() has doomed for its caller, or None."""
        return take_from(self, &self.doomed_for_caller)

    @property
    def reserved(self):
        """How many connections workers must create now."""
        return gcp_load_int(&self.reserved)

    @property
    def left_to_workers(self):
        """How many connections wait for a worker to close or check them."""
        return left_to_workers(self)

    @property
    def jobs_to_begin(self):
        """How many connections workers may begin to close, create or check now."""
        return jobs_to_begin(self)

    @property
    def jobs_at_work(self):
        """How many connections workers are closing, creating or checking."""
        return gcp_load_int(&self.jobs.all_at_work)

    @property
    def acquired(self):
        """The number of connections that are checked out."""
        return self.stats()['acquired']

    def check_invariants(self, bint one_clock=True):
        """Raise AssertionError if the books do not balance. For tests, at rest.

        :param one_clock: whether all times that the core received are of one clock. If not, a return may have an
            earlier time than the return before it.
        """
        check_invariants_of(self, one_clock)
