# How a core is made and freed, and which clock it reads.

cdef inline double read_clock(PoolCore core) except? -1:
    return gcp_monotonic_coarse() if uses_system_clock(core) else ask_clock(core)


cdef inline bint uses_system_clock(PoolCore core) noexcept:
    # The hot path calls this, and reads the clock itself: the result of read_clock() would be checked for an error.
    return gcp_likely(core.clock is None)


cdef double ask_clock(PoolCore core) except? -1:
    return core.clock()


cdef void enter_core(PoolCore core) noexcept:
    core.deadlines.due_at = core.deadlines.wake_at = INFINITY
    core.deadlines.by_use.kind = core.unserved.kind = SECOND_KIND
    core.checks.wake_at = INFINITY
    core.leaks_looked_for_at = core.leak_threshold = INFINITY
    gcp_lock(&cores_lock)
    linked_append(&cores, core)
    gcp_unlock(&cores_lock)


def build_core(
    PoolCore core not None,
    int min_idle,
    int max_size,
    int total_max_size,
    double idle_timeout,
    double max_lifetime,
    bint collects=False,
    object clock=None,
    object wake_collector=None,
    object normalize=None,
    *,
    int min_size=0,
    bint creates_in_background=False,
    int max_connecting=0,
    double reconnect_timeout=0.0,
    bint fails_fast=False,
    bint keeps_growth=False,
    double lifetime_jitter=0.0,
    unsigned int max_uses=0,
    double keepalive_interval=0.0,
    object wake_checker=None,
    object random=None,
    bint keeps_idle=True,
    int max_waiting=0,
    int max_workers=0,
    bint serves_oldest=False,
    bint counts_idle_only=False,
    object limits=None,
    bint opened=True,
    bint records_holders=False,
    double leak_threshold=INFINITY,
    object wake_leak_watch=None,
):
    """The constructor of PoolCore.

    :param min_idle: number of idle connections of an endpoint that are core
    :param max_size: maximum number of connections to an endpoint
    :param total_max_size: maximum number of connections
    :param idle_timeout: seconds after which an unused extra connection is due
    :param max_lifetime: seconds after which any connection is due
    :param collects: whether a collector closes expired connections, so that releases leave them to it
    :param clock: the clock to read instead of the system's monotonic one, for tests
    :param wake_collector: called, with no lock held, when a connection is due earlier than the collector knows;
        returns False if the collector could not be called
    :param normalize: called, with no lock held, for an endpoint that was not seen before; returns the endpoint to use
    :param lifetime_jitter: the largest fraction of max_lifetime by which a connection's lifetime is shortened
    :param max_uses: number of acquires after which a connection's release closes it; 0 for no limit
    :param keepalive_interval: seconds after its last use or check at which an idle connection is due for a check; 0 for
        never
    :param wake_checker: called, with no lock held, when a check is due earlier than :py:meth:`next_check` has returned;
        returns False if no worker could be called
    :param min_size: number of connections that are kept for each live endpoint
    :param creates_in_background: whether the pool connects for waiters, instead of the acquires themselves
    :param max_connecting: maximum number of connects to an endpoint at the same time; 0 for no limit
    :param reconnect_timeout: seconds after which an outage is reported; if more than 0, acquires wait while connects to
        an endpoint fail
    :param fails_fast: whether an acquire fails at once in an outage if none of the endpoint's connections is in use
    :param keeps_growth: whether any of these is in use, or acquires wait after refusals
    :param random: called, with no lock held; returns a number from 0 to 1, for jitter; None for no jitter of pauses
    :param keeps_idle: False if a connection is closed when it is returned, unless an acquire waits for it
    :param max_waiting: maximum number of waiters that are queued at an endpoint; 0 for no limit
    :param max_workers: maximum number of jobs that workers do at the same time; 0 for no limit
    :param serves_oldest: whether the extra connection that was unused for longest is served first
    :param counts_idle_only: whether min_idle is compared with the idle core connections alone, without those in use
    :param limits: any object, which is kept for :py:meth:`resize`
    :param opened: whether acquires are served before :py:meth:`open`
    :param records_holders: whether the core records who acquires a connection, and where
    :param leak_threshold: seconds in use after which a connection counts as leaked
    :param wake_leak_watch: called, with no lock held, when the search for leaks must begin
    """
    core.min_idle = min_idle
    core.max_size = max_size
    core.total_max_size = total_max_size
    core.idle_timeout = idle_timeout
    core.max_lifetime = max_lifetime
    core.collects = collects
    core.clock = clock
    core.wake_collector = wake_collector
    core.normalize = normalize
    core.max_waiting = max_waiting
    core.jobs.max_workers = max_workers
    core.serves_oldest = serves_oldest
    core.out_mask = 0 if counts_idle_only else -1
    core.limits_ = limits
    core.restrictions = 0 if opened else NOT_OPEN
    core.lifetime_jitter = lifetime_jitter
    core.max_uses = max_uses
    core.keepalive_interval = keepalive_interval
    core.wake_checker = wake_checker
    set_min_size(core, min_size)
    core.creates_in_background = creates_in_background
    core.max_connecting = max_connecting
    core.reconnect_timeout = reconnect_timeout
    core.first_delay = FIRST_DELAY
    core.max_delay = MAX_DELAY
    core.fails_fast = fails_fast
    core.keeps_growth = keeps_growth
    core.random = random
    core.pins = {}
    core.kept = set()
    core.keeps_idle = keeps_idle
    core.records_holders = records_holders
    core.leak_threshold = leak_threshold
    core.wake_leak_watch = wake_leak_watch


cdef void free_core(PoolCore core) noexcept:
    cdef Ancestor *a
    gcp_lock(&cores_lock)
    linked_remove(&cores, core)
    gcp_unlock(&cores_lock)
    directory_free(&core.directory)
    PyMem_Free(core.deadlines.queue.items)
    PyMem_Free(core.deadlines.by_use.items)
    PyMem_Free(core.wanting_slots.items)
    PyMem_Free(core.unserved.items)
    PyMem_Free(core.checks.timers.items)
    PyMem_Free(core.retries.items)
    PyMem_Free(core.overtaking.kept_places.slots)
    PyMem_Free(core.overtaking.kept_places_before.slots)
    PyMem_Free(core.ancestor_to_be)
    release_watches_free(core)
    free_records(core)
    while core.ancestor != NULL:
        a = core.ancestor
        core.ancestor = a.ancestor
        map_free(&a.connections)
        PyMem_Free(a)
