"""The threads that do a pool's jobs: there are as many as needed, they end, and if none can be started nothing stays
open, and nobody hangs."""

import ctypes
import gc
import logging
import math
import os
import threading
import weakref
from typing import Any

import pytest

from gcpool._workers.before_fork import idle_threads
from gcpool._workers.threads import Wakeup
from gcpool._workers.workers_threads import IDLE_TIME, SyncWorkers
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, CheckingManager, Gate, HookedManager, Manager
from tests.programs.runner import run_program
from tests.support import PATIENCE, Interruption, dropped_pools
from tests.threads.runtime import spawn, until


def workers(case: Case) -> list[threading.Thread]:
    return [thread for thread in case.pool._workers._threads() if thread.is_alive()]


def waiting(case: Case) -> list[threading.Thread]:
    return list(case.pool._workers._per_process.get().waiting)


def is_worker(thread: threading.Thread) -> bool:
    return thread.name.startswith('gcpool-') and thread.name.rpartition('-')[2].isdigit()


def until_ended(threads: list[threading.Thread]) -> None:
    """For threads that have left the pool: they take a moment to end."""
    until(lambda: not any(thread.is_alive() for thread in threads))


def close_one(case: Case, endpoint: str) -> None:
    """Acquire so that an idle connection of another endpoint is closed."""
    case.cycle(endpoint)
    until(lambda: len(waiting(case)) > 0)


# -- how many there are -----------------------------------------------------------------------------------------------


def test_there_is_none_before_something_is_closed_for_an_acquire() -> None:
    with Case(max_size=1, total_max_size=2, idle_timeout=0, min_idle=0, background_collector=False) as case:
        for endpoint in 'abcab':
            case.cycle(endpoint)
        assert workers(case) == []
        assert case.stats['disposed'] == 5, 'the releases have closed them'


def test_one_is_enough_for_one_close_after_the_other_and_it_has_a_name() -> None:
    with Case(max_size=1, total_max_size=1) as case:
        names = set()

        def dispose(endpoint: Any, conn: Any, timeout: float | None = None) -> None:
            names.add(threading.current_thread().name)
            Manager.dispose(case.manager, endpoint, conn, timeout)

        case.manager.dispose = dispose  # type: ignore[method-assign]
        case.cycle('a')
        for endpoint in 'bcdef':
            close_one(case, endpoint)
        assert names == {f'gcpool-{case.pool.name}-1'}
        assert len(workers(case)) == 1


def test_it_ends_when_nothing_is_to_be_closed_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('gcpool._workers.workers_threads.IDLE_TIME', 0.01)
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        for endpoint in 'bc':
            case.cycle(endpoint)
            until(lambda: case.pool._workers._threads() == [])
        assert waiting(case) == []


def test_of_two_that_are_started_at_once_where_one_is_enough_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    both_found_room = threading.Barrier(2)
    made = threading.Thread.__init__

    def make(thread: threading.Thread, *args: Any, **parameters: Any) -> None:
        if str(parameters.get('name')).startswith('gcpool-'):
            both_found_room.wait(PATIENCE)
        made(thread, *args, **parameters)

    with Case(max_workers=1) as case:
        process = case.pool._workers._per_process.get()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, '__init__', make)
            starts = [spawn(case.pool._workers._start, case.pool, process) for _ in range(2)]
            assert [start.result() for start in starts] == [True, True]
        assert [thread.name for thread in workers(case)] == [f'gcpool-{case.pool.name}-1']


def test_a_signal_handler_does_not_wait_for_the_thread_whose_start_it_has_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start
    late: list[threading.Thread] = []

    with Case(max_size=1, total_max_size=1, max_workers=1) as case:
        process = case.pool._workers._per_process.get()

        def start_late(thread: threading.Thread) -> None:
            if is_worker(thread) and not late:
                late.append(thread)
                # What a signal handler does that runs here.
                assert case.cycle('a') == 'a1'
                assert case.cycle('b') == 'b1'
            start(thread)

        monkeypatch.setattr(threading.Thread, 'start', start_late)
        assert case.pool._workers._start(case.pool, process)
        # There is one too many for a while; no more jobs are at work because of that.
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.pool.acquire, 'c')
        gate.reached()
        assert case.pool._core.jobs_at_work == 1
        gate.open()
        case.release(job.result())


def test_they_do_not_keep_a_forgotten_pool() -> None:
    pool: ConnectionPool[Any, Any] = ConnectionPool(Manager(), max_size=1, total_max_size=1)
    process = pool._workers._per_process.get()
    for endpoint in 'ab':
        pool.release(pool.acquire(endpoint), endpoint)
    until(lambda: len(process.waiting) == 1)
    [thread] = process.threads()
    gone = weakref.ref(pool)
    with dropped_pools() as warnings:
        del pool
        gc.collect()
    assert gone() is None
    assert len(warnings) == 1
    thread.join(PATIENCE)
    assert not thread.is_alive()


# -- how long they stay -----------------------------------------------------------------------------------------------


def test_one_waits_ten_seconds_for_the_next_job_and_then_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    def wait(self: Wakeup, timeout: float | None) -> bool:
        asked.append(timeout)
        return False

    monkeypatch.setattr(Wakeup, 'wait', wait)
    with Case(max_size=1) as case:
        for count in (1, 2):
            case.cycle('a')
            case.pool.drain()
            until(lambda count=count: len(asked) == count and workers(case) == [])  # type: ignore[misc]
        # When the next job comes, there is one again.
        assert asked == [IDLE_TIME, IDLE_TIME] == [10.0, 10.0]
        assert case.manager.living == []


def test_one_that_waits_does_the_next_job_and_no_other_is_started() -> None:
    with Case(max_size=1) as case:
        seen = set()
        for _ in range(5):
            case.cycle('a')
            case.pool.drain()
            until(lambda: case.manager.living == [] and len(waiting(case)) == 1)
            seen.add(workers(case)[0])
        assert [thread.name for thread in seen] == [f'gcpool-{case.pool.name}-1']
        assert all(thread.daemon for thread in seen)


def test_there_are_as_many_as_jobs_and_they_are_numbered() -> None:
    with Case(create_in_background=True) as case:
        gates, jobs = [Gate() for _ in range(5)], []
        for endpoint, gate in enumerate(gates):
            case.manager.script('create', gate)
            jobs.append(spawn(case.pool.acquire, endpoint))
            gate.reached()
        until(lambda: len(workers(case)) == 5)
        assert {thread.name for thread in workers(case)} == {f'gcpool-{case.pool.name}-{n}' for n in range(1, 6)}
        for gate in gates:
            gate.open()
        case.release(*[job.result() for job in jobs])


class NamingManager(Manager):
    """Notes in which threads it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[str] = set()

    def create(self, endpoint: Any, timeout: float | None = None) -> Any:
        self.threads.add(threading.current_thread().name)
        return super().create(endpoint, timeout)

    def dispose(self, endpoint: Any, conn: Any, timeout: float | None = None) -> None:
        self.threads.add(threading.current_thread().name)
        super().dispose(endpoint, conn, timeout)


def test_many_short_closes_start_few_threads() -> None:
    manager = NamingManager()
    with Case(manager, max_size=300, total_max_size=300) as case:
        case.release(*case.acquire('a', 300))
        manager.threads.clear()
        case.pool.drain()
        until(lambda: case.pool.get_size() == 0)
        # 64 closes may be at work. A thread may be started while another one takes the job that it is for.
        assert 1 <= len(manager.threads) < 100


def test_with_a_bound_there_are_never_more() -> None:
    manager = NamingManager()
    with Case(manager, create_in_background=True, max_workers=2, max_connecting=0) as case:
        jobs = [spawn(case.pool.acquire, endpoint) for endpoint in range(30)]
        case.release(*[job.result() for job in jobs])
        case.pool.drain()
        until(lambda: case.pool.get_size() == 0)
        assert manager.threads <= {f'gcpool-{case.pool.name}-{number}' for number in (1, 2)}


def test_one_that_calls_a_hook_that_hangs_holds_up_no_other_job() -> None:
    with Case(HookedManager(), create_in_background=True) as case:
        gate = Gate()
        case.manager.script('on_connection_dead', gate)
        case.manager.script('check_aliveness', False)
        case.cycle('a')
        job = spawn(case.pool.check)
        gate.reached()
        assert case.cycle('b') == 'b1'
        gate.open()
        assert job.result() == 1


def test_a_process_that_ends_without_close_says_nothing() -> None:
    run_program('worker_programs', 'end_beside_workers')


# -- none can be started ----------------------------------------------------------------------------------------------


@pytest.fixture(params=['no thread', 'no memory', 'the interpreter ends'])
def no_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == 'the interpreter ends':
        monkeypatch.setattr('gcpool._workers.workers_threads.SyncWorkers._is_finalizing', lambda _: True)
    else:
        start = threading.Thread.start
        error = MemoryError() if request.param == 'no memory' else RuntimeError("can't start new thread")

        def refuse(thread: threading.Thread) -> None:
            if is_worker(thread):
                raise error
            start(thread)

        monkeypatch.setattr(threading.Thread, 'start', refuse)
    return str(request.param)


def test_where_no_thread_can_be_started_an_acquire_closes_itself(
    no_thread: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Case(HookedManager(), max_size=1, total_max_size=1) as case:
        case.cycle('a')
        assert case.cycle('b') == 'b1'
        case.manager.script('check_aliveness', False)
        case.manager.take_calls()
        assert case.cycle('b') == 'b2'
        assert case.manager.take_calls()[:3] == ['check_aliveness b1', 'dispose b1', 'on_connection_dead b1']
        case.manager.script('dispose', Interruption('in dispose'))
        with pytest.raises(Interruption, match='in dispose'):
            case.cycle('a')
        assert case.pool.get_size() == 0
        assert case.cycle('a') == 'a2'
        assert workers(case) == []
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == (no_thread != 'the interpreter ends'), 'not once for each acquire'


def test_an_acquire_that_closes_itself_has_a_dispose_end_in_time(no_thread: str) -> None:
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        case.manager.timeouts.clear()
        case.pool.release(case.pool.acquire('b', timeout=0), 'b')
        assert case.manager.timeouts == [0.1, 0]


def test_the_collector_closes_itself_where_no_further_thread_can_be_started(no_thread: str) -> None:
    with Case(background_collector=True, min_idle=0, idle_timeout=0.005) as case:
        case.cycle('a')
        case.clock.advance(0.005)
        until(lambda: case.pool.get_size() == 0)


# -- they are interrupted, or die -------------------------------------------------------------------------------------


def test_an_acquire_that_is_interrupted_where_it_calls_a_thread_has_it_closed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        call = type(case.pool._workers).call
        errors = [Interruption('in call')]

        def interrupted(self: Any) -> bool:
            if errors:
                raise errors.pop()
            return bool(call(self))

        monkeypatch.setattr(type(case.pool._workers), 'call', interrupted)
        with pytest.raises(Interruption, match='in call'):
            case.pool.acquire('b')
        until(lambda: case.pool.get_size() == 0)
        assert case.cycle('b') == 'b1'


@pytest.mark.parametrize('where', ['before', 'after'])
def test_an_acquire_that_is_interrupted_while_a_thread_is_started_has_it_closed_all_the_same(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    errors = [Interruption('in start')]

    def interrupted(thread: threading.Thread) -> None:
        if not is_worker(thread) or not errors:
            start(thread)
            return
        if where == 'after':
            start(thread)
        raise errors.pop()

    monkeypatch.setattr(threading.Thread, 'start', interrupted)
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        with pytest.raises(Interruption, match='in start'):
            case.pool.acquire('b')
        until(lambda: case.pool.get_size() == 0)
        assert case.cycle('b') == 'b1'


def test_an_acquire_that_is_interrupted_where_it_has_timed_out_and_a_thread_is_to_stand_by_raises_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keep_one_for_timers = SyncWorkers.keep_one_for_timers
    calls: list[str] = []

    def interrupted(self: SyncWorkers) -> None:
        calls.append('keep_one_for_timers')
        if len(calls) == 2:
            raise Interruption('in keep_one_for_timers')
        keep_one_for_timers(self)

    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        monkeypatch.setattr(SyncWorkers, 'keep_one_for_timers', interrupted)
        # The first call comes at the end of the wait, the second one when the waiter has given up.
        with pytest.raises(Interruption, match='in keep_one_for_timers') as caught:
            case.pool.acquire('b', timeout=0.01)
        assert isinstance(caught.value.__context__, TimeoutError)
        assert case.stats['waiting'] == 0
        gate.open()


def test_a_thread_that_somebody_ended_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('threading.excepthook', lambda args: None)
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        close_one(case, 'b')
        [killed] = workers(case)
        assert killed.ident is not None
        until(lambda: killed in idle_threads)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(killed.ident), ctypes.py_object(SystemExit))
        # The exception comes when the thread runs next, which is when there is something to close.
        assert case.cycle('c') == 'c1'
        until(lambda: not killed.is_alive())
        close_one(case, 'd')
        assert workers(case) not in ([], [killed])


def test_the_last_thread_goes_on_after_an_exception_if_no_other_one_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Case(create_in_background=True, reconnect_timeout=60.0, max_workers=1) as case:
        case.manager.script('create', OSError('the server is away'))
        waiter = spawn(case.pool.acquire, 'a')
        until(lambda: case.pool._core.next_timer() < math.inf and len(waiting(case)) > 0)
        [killed] = workers(case)
        assert killed.ident is not None

        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, 'start', refuse)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(killed.ident), ctypes.py_object(SystemExit))
            case.pool._workers.call()
            until(lambda: any('continues after an error' in record.message for record in caplog.records))
            assert workers(case) == [killed]
            # The acquire began to wait while there was a thread for the next attempt: it makes none itself.
            case.clock.advance(10.0)
            assert waiter.result() is not None
        case.release(waiter.result())


def test_an_exception_that_somebody_raises_in_a_thread_during_a_dispose_ends_that_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        for error in (KeyboardInterrupt(), SystemExit(1), Interruption('in dispose')):
            case.manager.script('dispose', error)
            case.cycle('b')
            case.cycle('a')
        assert workers(case) != []
    assert caplog.text.count('continues after an error') == 3


def test_system_exit_of_a_create_fails_its_acquire_alone(caplog: pytest.LogCaptureFixture) -> None:
    with Case(create_in_background=True, max_workers=1) as case:
        case.manager.script('create', SystemExit(1))
        with pytest.raises(SystemExit):
            case.pool.acquire('a')
        assert case.cycle('b') == 'b1'
        assert case.pool._core.jobs_at_work == 0


def test_a_log_handler_that_raises_ends_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[str] = []

    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raised.append(record.getMessage())
            raise SystemExit('in a log handler')

    handler = Broken()
    log = logging.getLogger('gcpool')
    monkeypatch.setattr(log, 'propagate', False)
    # The guard of the log writes to the standard error output what the handler raises.
    monkeypatch.setattr('sys.unraisablehook', lambda unraisable: None)
    log.addHandler(handler)
    try:
        with Case(max_workers=1) as case:
            for endpoint in 'abc':
                case.cycle(endpoint)
            case.manager.script('dispose', RuntimeError('in dispose'), SystemExit('in dispose'))
            case.pool.drain()
            until(lambda: case.manager.living == [] and case.pool.get_size() == 0)
            assert case.cycle('d') == 'd1'
    finally:
        log.removeHandler(handler)
    assert raised != []


def test_where_no_thread_can_be_started_an_acquire_connects_itself(no_thread: str) -> None:
    with Case(create_in_background=True, max_workers=1) as case:
        assert case.cycle('a') == case.cycle('a') == 'a1'
        conns = case.acquire('b', 3)
        case.release(*conns)
        assert workers(case) == []


# -- one is kept idle for relief --------------------------------------------------------------------------------------


@pytest.mark.parametrize('called', ['while it waits', 'while it starts'])
def test_a_thread_that_stood_by_and_is_called_has_another_one_stand_by_in_its_place(
    called: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close of a1 for the waiter hangs, c1 expires and hangs, too, and in time d1 is closed for the waiter."""
    run = SyncWorkers._run
    starting, goes_on = threading.Event(), threading.Event()

    def run_late(self: SyncWorkers, *args: Any) -> None:
        starting.set()
        assert goes_on.wait(PATIENCE)
        run(self, *args)

    if called == 'while it waits':
        goes_on.set()
    monkeypatch.setattr(SyncWorkers, '_run', run_late)
    with Case(max_size=1, total_max_size=3, idle_timeout=8.0, max_lifetime=8.0, background_collector=True) as case:
        process = case.pool._workers._per_process.get()
        c = case.pool.acquire('c')
        case.clock.advance(7.0)
        a, d = case.pool.acquire('a'), case.pool.acquire('d')
        waiter = spawn(case.pool.acquire, 'b')
        case.waiting(1)
        gates = Gate(), Gate()
        case.manager.script('dispose', *gates)
        release = spawn(case.release, a)
        gates[0].reached()
        assert starting.wait(PATIENCE)
        until(lambda: [*process.waiting] == workers(case))
        case.release(c, d)
        # A moment before the close of a1 stops counting.
        case.clock.advance(1.995)
        case.pool._collector.wake()
        if called == 'while it starts':
            until(lambda: not process.wakeup._lock.locked())
            goes_on.set()
        gates[1].reached()
        # On a busy machine there may be one more.
        assert len(workers(case)) >= 2
        assert case.manager.living == ['d1']
        case.clock.advance(0.01)
        case.release(waiter.result())
        for gate in gates:
            gate.open()
        release.result()


# -- close() and fork() -----------------------------------------------------------------------------------------------


def test_close_waits_for_what_a_thread_is_closing_and_no_thread_outlives_it() -> None:
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.pool.acquire, 'b', timeout=0.01)
        gate.reached()
        threads = workers(case)
        with pytest.raises(TimeoutError):
            job.result()
        closing = spawn(case.pool.close)
        until(lambda: case.pool._core.closed)
        assert not closing.done
        gate.open()
        assert closing.result() == 0
        until_ended(threads)
        assert case.pool.get_size() == 0


def test_close_does_not_wait_longer_than_it_may_and_says_what_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.pool.acquire, 'b', timeout=0.01)
        gate.reached()
        with pytest.raises(TimeoutError):
            job.result()
        assert case.pool.close(timeout=0) == 0
        assert 'closing the pool: threads that are still closing a connection: 1' in caplog.text
        assert case.pool.get_size() == 1
        gate.open()
        until(lambda: case.pool.get_size() == 0)


def test_no_thread_waits_for_more_after_close() -> None:
    with Case(max_size=1, total_max_size=2) as case:
        for endpoint in 'abc':
            case.cycle(endpoint)
        until(lambda: len(waiting(case)) == 1)
        [thread] = workers(case)
        assert case.pool.close() == 0
        until_ended([thread])


def test_a_dispose_that_closes_the_pool_does_not_wait_for_its_own_thread() -> None:
    with Case(max_size=1, total_max_size=1) as case:
        case.cycle('a')
        ended = threading.Event()

        def dispose(endpoint: Any, conn: Any, timeout: float | None = None) -> None:
            case.pool.close(timeout=0)
            Manager.dispose(case.manager, endpoint, conn, timeout)
            ended.set()

        case.manager.dispose = dispose  # type: ignore[method-assign]
        with pytest.raises(Exception, match='is closed'):
            case.pool.acquire('b')
        assert ended.wait(PATIENCE)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='processes do not fork there')
@pytest.mark.parametrize('at_work', [True, False])
def test_a_child_of_a_fork_has_no_thread_of_its_parent_s_and_starts_its_own(at_work: bool) -> None:
    run_program('fork_programs', 'child_beside_workers', at_work)


# -- the collector ----------------------------------------------------------------------------------------------------


def test_a_dispose_that_hangs_does_not_hold_up_the_collector() -> None:
    with Case(CheckingManager(), background_collector=True, min_idle=0, idle_timeout=0.005) as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        for endpoint in 'abc':
            case.cycle(endpoint)
            case.clock.advance(0.005)
            if endpoint == 'a':
                gate.reached()
        until(lambda: case.manager.living == [] and case.pool.get_size() == 1)
        gate.open()
