"""Small wrong changes to the pool, each of which the simulator has to find: see :py:mod:`tests.simulation.mutants`.

The text of a change stands once in the sources, in whichever file: so it is kept short. The threading half is
generated anew from a changed asyncio half.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WrongChange:
    """A change that is wrong.

    :param found_by: the simulators that have to find it, each by itself
    :param old: the text that is replaced
    :param harm: what it would do to a user
    """

    name: str
    found_by: tuple[str, ...]
    old: str
    new: str
    harm: str


CORE = ('core',)
ALL = ('core', 'asyncio', 'threads')
FACADES = ('asyncio', 'threads')
ASYNCIO = ('asyncio',)
THREADS = ('threads',)

WRONG_CHANGES = (
    # -- slots: who gets one that is free, and when it is -------------------------------------------------------------
    WrongChange(
        'forgotten-dispatch',
        ALL,
        'dispatch(core, doomed, notified)',
        'pass',
        'both are closed, and yet who waits for a slot is never served: no close and no failed connect serves him',
    ),
    WrongChange(
        'forgotten-dispatch-at-resize',
        CORE,
        'pass\n    dispatch(core, &core.doomed_for_caller, &served)',
        'pass',
        'after the limits were raised, those who wait at the old ones wait on',
    ),
    WrongChange(
        'total-slot-freed-early',
        ALL,
        'if core.size >= core.total_max_size:\n            gcp_unlock',
        'if core.size - core.closing >= core.total_max_size:\n            gcp_unlock',
        'the server sees more sessions than total_max_size while connections are being closed',
    ),
    WrongChange(
        'endpoint-slot-freed-early',
        ALL,
        'if ep.size < core.max_size and core',
        'if ep.size - ep.counts[CLOSING] < core.max_size and core',
        'a server sees more sessions than max_size while its connections are being closed',
    ),
    WrongChange(
        'slot-lost-at-failed-connect',
        ALL,
        'free_slot(core, ep, ticket)',
        'gcp_store_char(&ticket.state, GONE)',
        'each refused connect takes a slot for good, until total_max_size of them have blocked the pool',
    ),
    WrongChange(
        'one-slot-only-wanted',
        ALL,
        'bint wants = head != NULL and ep.size < core.max_size',
        'bint wants = head != NULL and ep.size == 0',
        'who waits at an endpoint that has a connection is not served from a slot that comes free elsewhere',
    ),
    WrongChange(
        'nothing-closed-for-others',
        ALL,
        'while missing_relief(core) > 0:',
        'while missing_relief(core) > 1:',
        'at total_max_size a single endpoint in need waits beside the idle connections of others, for ever',
    ),
    WrongChange(
        'youngest-endpoint-first',
        CORE,
        'and a.stamp < b.stamp',
        'and a.stamp > b.stamp',
        'free slots go to the endpoint whose waiter came last; who came first may starve',
    ),
    WrongChange(
        'release-overlooks-who-wants-a-slot',
        CORE,
        'or gcp_load_int(&core.wanting_count)\n',
        '\n',
        'while one close hangs, a connection becomes idle although a waiter of another endpoint needs its slot',
    ),
    WrongChange(
        'starved-by-the-busy',
        CORE,
        'return CLOSE_FOR_OTHERS if missing_relief(core) > 0 and overtakes_too_often(core, ep) else HAND_OVER',
        'return HAND_OVER',
        'a busy endpoint hands its connections on to its own waiters for ever: a waiter of another starves',
    ),
    WrongChange(
        'no-slot-for-who-waits-at-none',
        CORE,
        '0 if eldest.size == 0 else <long long>MAX_OVERTAKES',
        '<long long>MAX_OVERTAKES',
        'a waiter at an endpoint without connections is overtaken by everybody at a busy one, dozens of times',
    ),
    WrongChange(
        'hanging-close-is-relief-for-ever',
        CORE,
        'core.relief.previous = core.relief.current if epoch == core.relief.epoch + 1 else 0',
        'core.relief.previous += core.relief.current',
        'one close that hangs keeps the pool from closing another idle connection for who waits',
    ),
    WrongChange(
        'ended-relief-still-counted',
        CORE,
        'core.relief.previous -= 1',
        'pass',
        'after a close that took a second, the next waiter of another endpoint waits up to 2 s for nothing',
    ),
    WrongChange(
        'ended-relief-goes-unnoticed',
        CORE,
        '(late or outcome == KEEP)',
        'outcome == KEEP',
        'while one close hangs, a busy pool closes nothing else for who waits, until a connection becomes idle',
    ),
    WrongChange(
        'served-and-still-wanting-a-slot',
        CORE,
        'chain_append(&served, <Waiter>first)\n        update_wants_slot(core, ep)',
        'chain_append(&served, <Waiter>first)',
        'idle connections are closed for a waiter who was handed a connection by then',
    ),
    WrongChange(
        'cancelled-and-still-wanting-a-slot',
        CORE,
        '(<Waiter>p).state = CANCELLED\n    update_wants_slot(core, ep)',
        '(<Waiter>p).state = CANCELLED',
        'idle connections are closed for waiters who have given up',
    ),
    WrongChange(
        'growth-passes-an-endpoint-by',
        CORE,
        'if not ep.forgotten:\n            update_wants_slot(core, ep)',
        'if False:\n            update_wants_slot(core, ep)',
        'after a resize to a higher max_size, who waits at an endpoint that was full waits on',
    ),
    WrongChange(
        'endpoint-forgotten-over-its-waiters',
        ALL,
        'if ep.size or ep.waiting or ep.forgotten:',
        'if ep.size or ep.forgotten:',
        'who waits for the first connection to an endpoint is forgotten together with it',
    ),
    # -- waiters ------------------------------------------------------------------------------------------------------
    WrongChange(
        'only-the-first-is-woken',
        ALL,
        '                failure = exc\n        p = following\n',
        '                failure = exc\n        p = NULL\n',
        'of several waiters that are served or refused at once, all but one sleep on',
    ),
    WrongChange(
        'place-in-the-queue-lost',
        CORE,
        'if ep.queue.tail != NULL and (<Waiter>ep.queue.tail).number > w.number:',
        'if False:',
        'who was served a dead connection queues again behind everybody who came later',
    ),
    WrongChange(
        'late-number',
        CORE,
        'gcp_lock(&core.lock)\n    number_locked(core, w)',
        'gcp_lock(&core.lock)',
        'who took an idle connection that was dead is behind those who came while it was being checked',
    ),
    WrongChange(
        'served-and-cancelled',
        ALL,
        'elif state == ACQUIRED or gcp_load_char(&e.closed_while_out):',
        'elif gcp_load_char(&e.closed_while_out):',
        'an acquire that is cancelled or interrupted when it was just served keeps the connection for good',
    ),
    WrongChange(
        'dropped-ticket',
        CORE,
        'give_back_ticket(self.core, self.entry, self.core.read_clock())',
        'pass',
        'an acquire that was dropped before it connected keeps its slot for good',
    ),
    WrongChange(
        'second-closer-displaces-the-first',
        ALL,
        'chain_append(&core.watchers, w)\n    gcp_store',
        'core.watchers.head = core.watchers.tail = <void *>w\n    gcp_store',
        'of two that wait in close() for the last connection, one waits for ever',
    ),
    # -- idle connections ---------------------------------------------------------------------------------------------
    WrongChange(
        'expired-connection-served',
        CORE,
        'or (<Entry>p).expires_at <= now\n',
        '\n',
        'a connection is served after its max_lifetime, when the firewall has forgotten it',
    ),
    WrongChange(
        'oldest-extra-first',
        CORE,
        'else ep.extra.tail',
        'else ep.extra.head',
        'all extra connections are kept in use in turn, so none of them is ever unused for idle_timeout',
    ),
    WrongChange(
        'one-core-connection-less',
        CORE,
        'return out_count(ep) - 1 <',
        'return out_count(ep) <',
        'the last of min_idle connections is closed after idle_timeout, and has to be made anew each time',
    ),
    WrongChange(
        'stale-deadline-is-believed',
        CORE,
        'if deadline == (<Entry>p).heap_key and stamp == d.queue.items[0].stamp:',
        'if deadline >= (<Entry>p).heap_key:',
        'a connection that is in use all the time is closed as one that was never used',
    ),
    WrongChange(
        'eviction-out-of-order',
        CORE,
        'if deadline == (<Entry>p).heap_key and stamp == d.queue.items[0].stamp:',
        'if deadline == (<Entry>p).heap_key:',
        'where deadlines tie, not the connection that was unused longest is closed for another endpoint',
    ),
    WrongChange(
        'dropped-out-of-the-expiry-queue',
        ALL,
        '            (<Entry>p).heap_key = INFINITY\n            heap_remove',
        '            heap_remove',
        'a connection that was in use when its time came is never due again: it stays open for ever when it is idle',
    ),
    WrongChange(
        'heap-hole-not-sifted-up',
        CORE,
        'heap_put(heap, i, heap.items[heap.used])\n        sift_up(heap, i)',
        'heap_put(heap, i, heap.items[heap.used])',
        'after a removal the expiry queue is out of order: connections are closed much too late',
    ),
    WrongChange(
        'one-too-many-expired',
        CORE,
        'while found < limit:',
        'while found <= limit:',
        'a release closes more connections than dispose_batch_size, and takes longer than it may',
    ),
    WrongChange(
        'collector-is-not-woken',
        ALL,
        'wake = schedule_locked',
        'schedule_locked',
        'the background collector sleeps on when the first connection becomes idle, and closes nothing',
    ),
    WrongChange(
        'shrinking-closes-too-many',
        CORE,
        'core.size - core.closing > core.total_max_size\n        and',
        'core.size > core.total_max_size\n        and',
        'a resize closes idle connections for those that are being closed already',
    ),
    # -- connections and their states ---------------------------------------------------------------------------------
    WrongChange(
        'two-releases-while-the-hook-runs',
        CORE,
        'move(ep, e, ACQUIRED, RELEASING)',
        'pass',
        'a connection that is released twice goes to the next user while on_release still works on it',
    ),
    WrongChange(
        'second-release-accepted',
        ALL,
        'return is_out(e) and',
        'return e.state != GONE and',
        'a connection that is released twice is idle twice, and goes to two users at once',
    ),
    WrongChange(
        'broken-connection-closed-twice',
        ('core', 'threads'),
        'if doomed != NULL:\n',
        'if doomed == NULL:\n            chain_append(&core.doomed_for_caller, e)\n        else:\n',
        "a connection that broke in its user's hands is closed by him, and once more by whoever comes by",
    ),
    WrongChange(
        'dead-connection-closed-twice',
        ALL,
        'w.dead_entry)\n        w.dead_entry = None',
        'w.dead_entry)',
        'an acquire that found a dead connection and is cancelled later has it closed a second time',
    ),
    WrongChange(
        'lease-number-stands-still',
        FACADES,
        'gcp_store_uint(&e.lease_no, e.lease_no + 1)',
        'pass',
        'leaving a block whose connection was released inside gives back the connection of its next user',
    ),
    WrongChange(
        'closed-while-out-then-released',
        ALL,
        'gcp_store_char(&e.closed_while_out, True)',
        'gcp_store_char(&e.closed_while_out, False)',
        'after close() was over, the release of a connection that was closed with it raises',
    ),
    WrongChange(
        'served-by-a-closed-pool',
        CORE,
        'served = not core.is_closed',
        'served = True',
        'a connect that ends after close() has begun serves its user instead of being refused and closed',
    ),
    WrongChange(
        'idle-in-a-closed-pool',
        ALL,
        'or gcp_load_int(&core.is_closed)\n        or gcp_load_int',
        'or gcp_load_int',
        'a connection that comes back to a closed pool becomes idle: close() waits for it for ever',
    ),
    WrongChange(
        'extras-outlive-the-pool',
        ALL,
        'first.head if first.head != NULL else then.head',
        'first.head',
        'close() leaves the extra idle connections open',
    ),
    # -- aliveness ----------------------------------------------------------------------------------------------------
    WrongChange(
        'closed-and-found-dead',
        ('core', 'asyncio'),
        'if held:\n            w.dead_entry = e',
        'if True:\n            w.dead_entry = e',
        'a connection that close() has closed while it was checked is closed a second time',
    ),
    WrongChange(
        'one-dead-says-nothing-of-others',
        CORE,
        'core.counters.dead += 1\n            ep.distrust_count += 1',
        'core.counters.dead += 1',
        'after a restart of the server each of its connections is served unchecked within check_interval',
    ),
    WrongChange(
        'check-trusted-over-a-later-death',
        CORE,
        'e.verified_at = w.distrust_at_check',
        'e.verified_at = e.pool.distrust_count',
        'a connection that answered just before the server went is served unchecked after that',
    ),
    WrongChange(
        'connect-trusted-over-a-later-death',
        CORE,
        'ticket.used_at = now',
        'ticket.used_at = now\n        ticket.verified_at = ep.distrust_count',
        'a connection half made when the server went is served unchecked the next time',
    ),
    WrongChange(
        'unfinished-check-is-trusted',
        CORE,
        'mark_unchecked(core, e)         #',
        'pass         #',
        'a connection whose check was cut off half-way is served unchecked to the next user',
    ),
    WrongChange(
        'the-dead-counted-as-served',
        CORE,
        'ep.acquires -= 1',
        'pass',
        'get_stats() counts connections as served that were found dead and went to nobody',
    ),
    # -- finding connections and endpoints again ----------------------------------------------------------------------
    WrongChange(
        'table-gap-left-open',
        ALL,
        'if ((j - home) & t.mask) >= ((j - i) & t.mask):',
        'if ((j - home) & t.mask) > ((j - i) & t.mask):',
        'after a removal some connections are not found any more: their release raises, and they are lost',
    ),
    WrongChange(
        'old-address-still-known',
        CORE,
        'forget_identity_locked(&core.directory, ep, old)',
        'pass',
        'an endpoint object at the address of a former one gets a connection to another server',
    ),
    # -- the compiled facades -----------------------------------------------------------------------------------------
    WrongChange(
        'failed-close-keeps-its-slot',
        THREADS,
        '        finally:\n            self._core.disposed(e, self',
        '            self._core.disposed(e, self',
        'a dispose that raises takes a slot for good',
    ),
    WrongChange(
        'interrupted-close-leaves-the-rest',
        THREADS,
        'self.dispose_entry(e, deadline, for_worker)\n            except BaseException as exc:',
        'self.dispose_entry(e, deadline, for_worker)\n            except Exception as exc:',
        'Ctrl-C in one dispose leaves the other connections half-closed, and those who wait for them waiting',
    ),
    WrongChange(
        'interrupted-acquire-keeps-what-it-has',
        THREADS,
        'except BaseException:\n            try:\n                self._core.cancel(',
        'except Exception:\n            try:\n                self._core.cancel(',
        'Ctrl-C in a check or in on_acquire loses the connection',
    ),
    WrongChange(
        'interrupted-hook-keeps-the-connection',
        THREADS,
        'self.release_unreset(e, isinstance(exc, Exception))',
        'isinstance(exc, Exception) and self.release_unreset(e, True)',
        'Ctrl-C in on_release loses the connection',
    ),
    WrongChange(
        'unreset-connection-served',
        FACADES,
        'if hook_ended or self._checks:',
        'if True:',
        'a connection whose on_release was cut off goes to the next user, with the transaction of the last one',
    ),
    WrongChange(
        'unreset-connection-unchecked',
        FACADES,
        'core.mark_unchecked(e)\n            core.release',
        'core.release',
        'a connection whose on_release was cut off is served without a check within check_interval',
    ),
    WrongChange(
        'cancellation-is-swallowed',
        ASYNCIO,
        'self.cancelled_ = True',
        'pass',
        'cancelling a task that waits for a connection ends in an error, or in a time-out',
    ),
    WrongChange(
        'cancelled-acquire-closes-nothing',
        ASYNCIO,
        'cancel(w, self._core.read_clock())\n        if has_doomed(self._core):',
        'cancel(w, self._core.read_clock())\n        if False:',
        'what a cancelled acquire gives back, and is to be closed for others, keeps its slot until somebody comes by',
    ),
    WrongChange(
        'forgotten-release-with-a-hook',
        ASYNCIO,
        'begin_lease(rest.lease, e, RELEASING)\n            rest',
        'rest',
        'a release that is not awaited, with an on_release, loses the connection',
    ),
    WrongChange(
        'closed-before-the-first-step',
        ASYNCIO,
        'self.pool.give_back_dropped(e, lease.lease_no, lease.state)',
        'pass',
        'a release whose coroutine is closed before it begins, as a task group that ends does, loses the connection',
    ),
    # -- the runtimes -------------------------------------------------------------------------------------------------
    WrongChange(
        'wait-beyond-the-time-limit',
        ASYNCIO,
        'call_later(remaining, signal',
        'call_later(2 * remaining + 1, signal',
        'an acquire waits more than twice as long as it may',
    ),
    WrongChange(
        'unclear-verdict-counts-as-whole',
        ASYNCIO,
        'e.break_()      # until',
        'pass            # until',
        'a connection whose is_broken raises, or is cancelled, goes to the next user',
    ),
    WrongChange(
        'one-broken-says-nothing-of-others',
        ASYNCIO,
        'self._core.distrust_endpoint(entry)\n',
        'pass\n',
        'after a restart of the server that a user has met, the next one gets another dead connection unchecked',
    ),
    WrongChange(
        'close-without-its-time-limit',
        ASYNCIO,
        'timeout = self._dispose_timeout\n        if deadline',
        'timeout = None\n        if deadline',
        'a dispose that hangs keeps its slot for ever, whatever dispose_timeout says',
    ),
    WrongChange(
        'one-close-at-a-time',
        ASYNCIO,
        'min(len(queue), PARALLEL_DISPOSALS)',
        'min(len(queue), 1)',
        'a dispose that hangs holds up all others',
    ),
    WrongChange(
        'served-after-its-close',
        FACADES,
        '        if not core.still_holds(waiter):',
        '        if False:',
        'an acquire whose on_acquire outlasts close() returns a connection that is closed',
    ),
    WrongChange(
        'tasks-outlive-the-pool',
        ASYNCIO,
        'await self._end_tasks(deadline)',
        'pass',
        'tasks of the pool are left in the loop when close() returns',
    ),
    WrongChange(
        'unreleased-connections-left-open',
        FACADES,
        'seconds(timeout)\n                )\n            await self._dispose_doomed(deadline)',
        'seconds(timeout)\n                )',
        'connections that are still in use when the time of close() is over stay open at the server',
    ),
    WrongChange(
        'time-limit-begins-anew',
        FACADES,
        'while True:\n            signal = self._arm(waiter)',
        'while True:\n            deadline = get_deadline(core.now(), timeout)\n            signal = self._arm(waiter)',
        'an acquire that meets dead connections takes a multiple of its time limit',
    ),
    # -- the workers --------------------------------------------------------------------------------------------------
    WrongChange(
        'collector-outlives-the-pool',
        FACADES,
        'self._worker.stop()',
        'pass',
        'the timer, or the thread, of a closed pool is left behind',
    ),
    WrongChange(
        'collector-works-once',
        ASYNCIO,
        'self._work(pool, COLLECTOR_PAUSE if task.cancelled() else 0.0)',
        'pass',
        'what becomes due after the first collection is not closed until somebody releases',
    ),
    WrongChange(
        'collector-sleeps-for-ever',
        THREADS,
        'if delay is None:\n',
        'if True:\n',
        'what becomes due after the first collection is not closed until something earlier is',
    ),
    WrongChange(
        'collector-deaf',
        THREADS,
        'at_work = self.at_work()\n        self._ring(self._news)',
        'at_work = self.at_work()',
        'the collector of threads sleeps on when something is due earlier, and does not end with its pool',
    ),
    # -- who closes ---------------------------------------------------------------------------------------------------
    WrongChange(
        'expired-left-to-a-release',
        CORE,
        'doom_idle(core, ep, <Entry>p, &core.doomed_for_worker)',
        'doom_idle(core, ep, <Entry>p, &core.doomed_for_caller)',
        'an expired connection that an acquire came upon keeps its slot until somebody releases, who closes it',
    ),
    WrongChange(
        'relief-of-a-second-long-past',
        CORE,
        'advance_relief(core, now)\n    gcp_lock(&ep.lock)\n    gcp_assert(e.',
        'gcp_lock(&ep.lock)\n    gcp_assert(e.',
        'a connection that is doomed when a close ends counts as relief for too short, and one too many is closed',
    ),
    WrongChange(
        'closed-in-use-makes-others-suspect',
        CORE,
        'if is_out(e):\n            ep.distrust_count += 1',
        'if True:\n            ep.distrust_count += 1',
        'a connection that was closed over its user has all others of the endpoint checked',
    ),
    WrongChange(
        'dead-connection-left-to-nobody',
        CORE,
        'count_as_relief(core, <void *>dead_entry)\n        if late:',
        'chain_take_entry(&core.doomed_for_worker)\n        if late:',
        'the dead connection of an acquire that is interrupted is never closed, and keeps its slot for good',
    ),
    WrongChange(
        'nobody-is-told-what-an-acquire-dooms',
        FACADES,
        'self._begin_disposals(deadline)\n',
        'pass\n',
        'an acquire at total_max_size waits until somebody else has a connection closed, maybe for ever',
    ),
    WrongChange(
        'what-is-due-left-to-nobody',
        FACADES,
        'await self._dispose_due()',
        'pass',
        'what the collector finds due is closed when somebody else comes by',
    ),
    WrongChange(
        'told-of-the-dead-before-the-close',
        FACADES,
        'await self._wait_until_closed(dead_entry, deadline, timeout)',
        'pass',
        'on_connection_dead is called while dispose is still at work on the connection',
    ),
    WrongChange(
        'a-closer-ends-though-it-was-called',
        THREADS,
        'pool._begin_disposals()\n',
        'pass\n',
        'a thread that was called in the moment in which it has waited long enough ends, and nobody closes',
    ),
    WrongChange(
        'one-closer-only',
        THREADS,
        'return self._start(crew)',
        'return bool(crew.threads) or self._start(crew)',
        'one dispose that hangs keeps all others from being closed',
    ),
    WrongChange(
        'no-second-closer-for-the-second',
        THREADS,
        'if gcp_load_int(&core.doomed_for_worker.count) > 1:',
        'if False:',
        'of two connections that are doomed at once one is closed after the other, if the first does not hang',
    ),
    WrongChange(
        'closed-by-nobody-without-a-thread',
        THREADS,
        'if not called:\n',
        'if False:\n',
        'where no thread can be started, an acquire at total_max_size waits for ever',
    ),
    WrongChange(
        'interrupted-before-it-calls-a-closer',
        THREADS,
        'self.begin_disposals(INFINITY if timeout is None else self._core.now())',
        'pass',
        'what a cancelled acquire gives back, and is to be closed for others, keeps its slot until somebody comes by',
    ),
    WrongChange(
        'closers-outlive-the-pool',
        THREADS,
        'closers = self._closers.stop()',
        'closers = []',
        'threads of the pool are left when close() returns',
    ),
    # -- what managers are asked --------------------------------------------------------------------------------------
    WrongChange(
        'hooks-mistaken-for-each-other',
        FACADES,
        'self.checks, self.acquire, self.release, self.dead',
        'self.checks, self.release, self.acquire, self.dead',
        "the on_release of a manager that has no on_acquire is never called: users see the last one's session",
    ),
    WrongChange(
        'endpoint-cap-not-passed-on',
        FACADES,
        'min_idle, max_size, total_max_size, idle_timeout, max_lifetime, collects, clock',
        'min_idle, total_max_size, total_max_size, idle_timeout, max_lifetime, collects, clock',
        'one endpoint gets more connections than max_size',
    ),
    WrongChange(
        'due-connections-left-to-nobody',
        FACADES,
        'if gcp_load_double(&core.deadlines.due_at) <= now and not (',
        'if gcp_load_double(&core.deadlines.due_at) <= now and core.collects and not (',
        'without a background collector idle connections are never closed, whatever idle_timeout says',
    ),
)
