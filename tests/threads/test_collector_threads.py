"""The thread of the background collector: it does not end early. If there is none, because it was killed or cannot be
started, users of connections notice nothing, and what is due is disposed of all the same."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, final

import pytest

from gcpool._runtime_threads import IDLE_THREADS_TIME
from gcpool._workers.before_fork import dismiss_idle_threads, idle_threads, recall_dismissed
from gcpool._workers.collector_threads import SyncCollector
from gcpool.exceptions import DiscardConnection
from gcpool.threading import ConnectionPool
from tests.interrupting import interrupt
from tests.pool_threads.support import Case, JudgingManager, Manager
from tests.pool_threads.test_log_handlers import EVENTS, FailingHandler, evict, find_one_dead, raise_in_handler
from tests.programs.runner import run_program
from tests.support import PATIENCE, Interruption
from tests.threads.runtime import spawn, until

SHORT = 0.005


def thread_of(case: Case) -> threading.Thread:
    thread: threading.Thread = case.pool._collector._threads[-1].thread
    return thread


def kill(case: Case) -> threading.Thread:
    """End the collector's thread between two collections, like a library that raises an exception in another thread."""
    thread = thread_of(case)
    collector = case.pool._collector

    def die(_: object) -> bool:
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector, '_is_needed', die)
        patch.setattr(threading, 'excepthook', lambda args: None)
        collector._wake_all()
        until(lambda: not thread.is_alive())
    return thread


def warnings_of_starts(caplog: pytest.LogCaptureFixture) -> list[str]:
    # On a busy machine a thread may be too late for close(), which says so.
    return [record.message for record in caplog.records if 'cannot be started' in record.message]


@final
class NoThreads:
    """While it is ``on``, no thread can be started."""

    def __init__(self) -> None:
        self.on = True
        self.tried = 0
        self._start = threading.Thread.start

    def start(self, thread: threading.Thread) -> None:
        if self.on and thread.name.endswith('-collector'):
            self.tried += 1
            raise RuntimeError("can't start new thread")
        self._start(thread)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> NoThreads:
    none = NoThreads()
    monkeypatch.setattr(threading.Thread, 'start', lambda thread: NoThreads.start(none, thread))
    return none


# -- it does not end --------------------------------------------------------------------------------------------------


@final
class Raising(logging.Handler):
    """In the pool's own threads."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def emit(self, record: logging.LogRecord) -> None:
        if record.threadName is not None and record.threadName.startswith('gcpool-'):
            raise self.error


ERRORS = [OSError('no'), MemoryError(), Interruption('no'), SystemExit(1), KeyboardInterrupt()]


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    found: list[BaseException | None] = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda args: found.append(args.exc_value))
    return found


@pytest.fixture(params=[None, *ERRORS], ids=lambda error: 'logged' if error is None else type(error).__name__)
def handler(request: pytest.FixtureRequest) -> Iterator[Raising | None]:
    if request.param is None:
        yield None
        return
    logger = logging.getLogger('gcpool')
    handler, level = Raising(request.param), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


@pytest.mark.parametrize('error', ERRORS, ids=lambda error: type(error).__name__)
def test_the_collector_goes_on_whatever_dispose_and_a_log_handler_raise(
    error: BaseException, handler: Raising | None, unraisable: list[BaseException | None]
) -> None:
    with Case(background_collector=True, min_idle=0, idle_timeout=SHORT) as case:
        thread = thread_of(case)
        for _ in range(3):
            case.manager.script('dispose', error)
            case.cycle('a')
            case.clock.advance(SHORT)
            until(lambda: case.pool.get_size() == 0)
        assert thread_of(case) is thread
        assert thread.is_alive()
    if handler is not None:
        assert unraisable != []
        assert set(map(type, unraisable)) == {type(handler.error)}


# What an acquire has doomed is closed by a thread of the pool: there the exception reaches no caller.
IN_THE_CALLER = [(message, event) for message, event in EVENTS if event not in {evict, find_one_dead}]


@pytest.mark.parametrize('error', [SystemExit(1), KeyboardInterrupt(), Interruption('no')], ids=repr)
@pytest.mark.parametrize(('message', 'event'), IN_THE_CALLER, ids=[event.__name__ for _, event in IN_THE_CALLER])
def test_what_a_handler_raises_that_is_no_exception_reaches_the_thread_and_loses_nothing(
    message: str, event: Callable[[Case], Any], error: BaseException
) -> None:
    logger = logging.getLogger('gcpool')
    handler, level = FailingHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        raise_in_handler(message, event, handler, error)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


# -- it has ended -----------------------------------------------------------------------------------------------------


def test_a_thread_that_was_ended_is_replaced_by_the_next_release_that_finds_something_due() -> None:
    with Case(background_collector=True, min_idle=0, idle_timeout=60) as case:
        case.cycle('a')
        killed = kill(case)
        case.clock.advance(60)
        # The first one is due. This one is due later, and would not wake a running collector.
        case.cycle('b')
        assert thread_of(case) is not killed
        until(lambda: case.manager.living == ['b1'])


def test_a_thread_that_was_ended_is_replaced_when_something_is_due_earlier_than_anything_before() -> None:
    with Case(background_collector=True, min_idle=0, idle_timeout=SHORT) as case:
        killed = kill(case)
        case.cycle('a')
        assert thread_of(case) is not killed
        case.clock.advance(SHORT)
        until(lambda: case.pool.get_size() == 0)


def test_a_thread_that_was_ended_is_replaced_by_the_next_acquire_to_look_for_leaks() -> None:
    with Case(leak_threshold=60) as case:
        first = case.pool.acquire('a')
        killed = kill(case)
        second = case.pool.acquire('a')
        assert thread_of(case) is not killed
        case.pool.release(first)
        case.pool.release(second)


def test_a_thread_that_was_ended_stays_so_when_the_pool_is_closed() -> None:
    with Case(background_collector=True) as case:
        case.cycle('a')
        killed = kill(case)
        case.pool.close()
        assert not killed.is_alive()
        assert case.pool._collector._threads == []


def test_several_releases_at_once_replace_it_by_one() -> None:
    with Case(background_collector=True, min_idle=0, idle_timeout=60) as case:
        conns = [case.pool.acquire('a') for _ in range(8)]
        case.cycle('b')
        kill(case)
        case.clock.advance(60)
        barrier = threading.Barrier(8)

        def give_back(conn: Any) -> None:
            barrier.wait()
            case.release(conn)

        threads = [threading.Thread(target=give_back, args=(conn,)) for conn in conns]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: sum(thread.name.endswith('-collector') for thread in threading.enumerate()) == 1)
        until(lambda: 'b1' not in case.manager.living)
        assert thread_of(case).is_alive()


# -- none can be started ----------------------------------------------------------------------------------------------


def first_release(case: Case, no_threads: NoThreads) -> None:
    assert case.cycle('a') == 'a1'
    assert case.manager.living == ['a1']


def release_with_something_due(case: Case, no_threads: NoThreads) -> None:
    case.cycle('a')
    case.clock.advance(SHORT)
    case.cycle('b')
    assert case.manager.living == ['b1'], 'the release did what the collector would have done'


def release_of_what_is_due_itself(case: Case, no_threads: NoThreads) -> None:
    [conn] = case.acquire('a', 1)
    case.clock.advance(case.pool.max_lifetime)
    case.release(conn)
    assert case.manager.living == []


def release_in_a_context(case: Case, no_threads: NoThreads) -> None:
    case.cycle('b')
    case.clock.advance(SHORT)
    with case.pool.connection('a') as conn:
        pass
    assert case.manager.living == [conn.name]


def release_with_a_hook(case: Case, no_threads: NoThreads) -> None:
    case.cycle('b')
    case.clock.advance(SHORT)
    case.manager.script('on_release', DiscardConnection('doubtful'))
    case.cycle('a')
    assert case.manager.living == []


def acquire_of_what_is_due(case: Case, no_threads: NoThreads) -> None:
    case.cycle('a')
    case.clock.advance(case.pool.max_lifetime)
    assert case.cycle('a') == 'a2'


def many_releases(case: Case, no_threads: NoThreads) -> None:
    conns = case.acquire('a', 5)
    case.release(*conns)
    case.clock.advance(SHORT)
    for _ in range(5):
        case.cycle('b')
    assert case.manager.living == ['b1']


def close(case: Case, no_threads: NoThreads) -> None:
    case.cycle('a')
    assert case.pool.close() == 0
    assert case.manager.living == []


def a_thread_can_be_started_again(case: Case, no_threads: NoThreads) -> None:
    case.cycle('a')
    no_threads.on = False
    case.clock.advance(SHORT)
    case.cycle('b')
    assert thread_of(case).is_alive()
    until(lambda: case.manager.living == ['b1'])
    case.clock.advance(SHORT)
    until(lambda: case.manager.living == [])


def it_was_ended(case: Case, no_threads: NoThreads) -> None:
    no_threads.on = False
    case.cycle('a')
    kill(case)
    no_threads.on = True
    case.clock.advance(SHORT)
    case.cycle('b')
    assert case.manager.living == ['b1']


CASES: list[Callable[[Case, NoThreads], None]] = [
    first_release,
    release_with_something_due,
    release_of_what_is_due_itself,
    release_in_a_context,
    release_with_a_hook,
    acquire_of_what_is_due,
    many_releases,
    close,
    a_thread_can_be_started_again,
    it_was_ended,
]


@pytest.mark.parametrize('happens', CASES, ids=lambda happens: happens.__name__)
def test_where_no_thread_can_be_started_releases_do_what_is_due_and_raise_nothing(
    happens: Callable[[Case, NoThreads], None], no_threads: NoThreads, caplog: pytest.LogCaptureFixture
) -> None:
    with Case(JudgingManager(), background_collector=True, min_idle=0, idle_timeout=SHORT, max_lifetime=60) as case:
        happens(case, no_threads)
    said = warnings_of_starts(caplog)
    assert no_threads.tried > 0
    again = happens is it_was_ended
    assert len(said) == 1 + again, 'not once for each release'
    name = f'gcpool-{case.pool.name}-collector'
    text = f"thread {name} cannot be started, so releases close what is due: can't start new thread"
    assert said[0] == text


def test_a_pool_is_used_in_a_program_that_can_start_no_thread() -> None:
    run_program('fork_programs', 'no_thread_can_be_started')


def test_a_forked_child_that_can_start_no_thread_uses_the_pool() -> None:
    run_program('fork_programs', 'no_thread_can_be_started_in_the_child')


# -- it cannot even be made -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('error', [MemoryError(), RuntimeError('no'), Interruption('no')], ids=repr)
def test_where_not_even_a_thread_object_can_be_made_releases_do_what_is_due(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Case(background_collector=True, min_idle=0, idle_timeout=60) as case:
        case.cycle('a')
        kill(case)
        case.clock.advance(60)
        made = threading.Thread.__init__

        def refuse(thread: threading.Thread, *args: Any, **parameters: Any) -> None:
            if str(parameters.get('name')).endswith('-collector'):
                raise error
            made(thread, *args, **parameters)

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, '__init__', refuse)
            if isinstance(error, Interruption):
                with pytest.raises(Interruption):
                    case.cycle('b')
                assert case.manager.living == ['a1', 'b1']
            else:
                case.cycle('b')
                assert case.manager.living == ['b1'], 'the release did what the collector would have done'
                case.clock.advance(60)
        left = case.manager.living[1:]
        case.cycle('c')
        until(lambda: case.manager.living == [*left, 'c1'])
        assert thread_of(case).is_alive()
    said = warnings_of_starts(caplog)
    assert len(said) == (not isinstance(error, Interruption))


def test_a_thread_that_cannot_be_made_leaves_that_of_another_release_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two releases find that there is none, and start one. The first one fails, when the other one's is at work."""
    with Case(background_collector=True, min_idle=0, idle_timeout=60) as case:
        case.cycle('a')
        kill(case)
        fails, goes_on = threading.Event(), threading.Event()
        lock, made = threading.Lock, threading.Thread.__init__

        def hesitate() -> threading.Lock:
            if threading.current_thread().name == 'test-job':
                fails.set()
                assert goes_on.wait(PATIENCE)
            return lock()

        def refuse(thread: threading.Thread, *args: Any, **parameters: Any) -> None:
            if threading.current_thread().name == 'test-job':
                raise MemoryError
            made(thread, *args, **parameters)

        case.clock.advance(60)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, '__init__', refuse)
            patch.setattr(threading, 'Lock', hesitate)
            job = spawn(case.pool._collector.ensure_running)
            assert fails.wait(PATIENCE)
            assert case.pool._collector.ensure_running()
            until(lambda: case.pool.get_size() == 0)
            [collector] = [thread for thread in threading.enumerate() if thread.name.endswith('-collector')]
            goes_on.set()
            assert not job.result()
        assert case.pool.close() == 0
        collector.join(PATIENCE)
        assert not collector.is_alive()


# -- it ends for a fork -----------------------------------------------------------------------------------------------


def until_idle(*cases: Case) -> None:
    """Wait until the collectors have nothing to do."""
    until(lambda: {thread_of(case) for case in cases} <= {*idle_threads})


def test_a_collector_is_started_again_after_a_fork_that_was_interrupted_where_it_had_just_been_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Case(background_collector=True) as case:
        until_idle(case)
        ended = thread_of(case)
        interrupt(SyncCollector, 'dismiss', monkeypatch, at_end=True)
        with pytest.raises(Interruption, match='in dismiss'):
            dismiss_idle_threads()
        recall_dismissed()
        assert thread_of(case) is not ended
        assert thread_of(case).is_alive()


def test_a_collector_is_started_again_after_a_fork_though_starting_another_one_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Case(background_collector=True) as case, Case(background_collector=True) as other:
        until_idle(case, other)
        dismiss_idle_threads()
        interrupt(SyncCollector, 'recall', monkeypatch)
        with pytest.raises(Interruption, match='in recall'):
            recall_dismissed()
        assert sorted(each.pool._collector._lives() for each in (case, other)) == [False, True]


# -- close() ----------------------------------------------------------------------------------------------------------


class SlowToEnd(ConnectionPool[Any, Any]):
    """A pool whose collector, when it has closed everything, waits before it is through."""

    def __init__(self, **parameters: Any) -> None:
        self.reached = threading.Event()
        self.goes_on = threading.Event()
        super().__init__(Manager(), background_collector=True, **parameters)

    def _due_in(self) -> float | None:
        self.reached.set()
        assert self.goes_on.wait(PATIENCE)
        return super()._due_in()


def test_close_waits_for_the_end_of_the_collector() -> None:
    pool = SlowToEnd()
    assert pool.reached.wait(PATIENCE)
    [collector] = pool._collector._threads
    thread = collector.thread
    join = thread.join

    def go_on_and_join(timeout: float) -> None:
        assert 0 < timeout <= IDLE_THREADS_TIME
        pool.goes_on.set()
        join(PATIENCE)

    thread.join = go_on_and_join
    assert pool.close() == 0
    assert not thread.is_alive()
    assert pool._collector._threads == []


def test_close_does_not_wait_for_the_collector_longer_than_it_may(caplog: pytest.LogCaptureFixture) -> None:
    pool = SlowToEnd()
    assert pool.reached.wait(PATIENCE)
    assert pool.close(timeout=0) == 0
    assert 'closing the pool: threads that are still closing a connection: 1' in caplog.text
    pool.goes_on.set()
    until(lambda: pool._collector._threads == [])


def test_close_says_nothing_of_an_idle_collector_that_has_not_noticed_yet(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool: ConnectionPool[Any, Any] = ConnectionPool(Manager(), background_collector=True)
    [collector] = pool._collector._threads
    assert collector.thread is not None
    until(lambda: collector.thread in idle_threads)
    with monkeypatch.context() as patch:
        patch.setattr(pool._collector, '_wake_all', lambda: None)
        assert pool.close(timeout=0) == 0
    assert collector.thread.is_alive()
    assert caplog.text == ''
    pool._collector._wake_all()
    collector.thread.join(PATIENCE)
    assert not collector.thread.is_alive()


def test_a_dispose_in_the_collector_that_closes_the_pool_does_not_wait_for_its_own_thread(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # No other thread can be started: the collector closes by itself.
    monkeypatch.setattr('gcpool._workers.workers_threads.SyncWorkers._is_finalizing', lambda _: True)
    with Case(background_collector=True, min_idle=0, idle_timeout=SHORT) as case:
        thread = thread_of(case)
        closed_by = []

        def dispose(endpoint: Any, conn: Any, timeout: float | None = None) -> None:
            case.pool.close(timeout=0)
            closed_by.append(threading.current_thread())
            Manager.dispose(case.manager, endpoint, conn, timeout)

        case.manager.dispose = dispose  # type: ignore[method-assign]
        case.cycle('a')
        case.clock.advance(SHORT)
        until(lambda: not thread.is_alive())
        assert closed_by == [thread]
    assert caplog.records == []
