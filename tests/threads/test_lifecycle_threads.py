"""The life of a pool for threads: its end in signal handlers, and workers that raise."""

import signal
import sys
import threading
from typing import Any

import pytest

from gcpool.exceptions import ConnectionPoolClosedError, PoolInUse
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, Gate, HookedManager, Manager
from tests.support import PATIENCE, Connection, Interruption
from tests.threads.runtime import spawn, until


def locks_of_threading() -> list[Any]:
    """The locks that a thread needs at its start, at its end, and to be joined."""
    names = ('_active_limbo_lock', '_shutdown_locks_lock')
    return [getattr(threading, name) for name in names if hasattr(threading, name)]


@pytest.mark.parametrize('lock', locks_of_threading())
def test_terminate_needs_no_lock_that_the_thread_it_interrupts_may_hold(lock: Any) -> None:
    """A signal handler may run in the middle of ``Thread.start()`` or ``Thread.join()``."""
    with Case(HookedManager(), background_collector=True, max_size=2, total_max_size=2) as case:
        conns = case.acquire('a', 2)
        case.release(conns[0])
        with lock:
            case.pool.terminate()
        with pytest.raises(ConnectionPoolClosedError):
            case.pool.acquire('a')
        until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []
        case.release(conns[1])


@pytest.mark.parametrize('where', ['create', 'dispose', 'on_release', 'check_aliveness'])
def test_terminate_in_a_signal_handler_that_interrupts_a_method_of_the_manager(where: str) -> None:
    with Case(HookedManager()) as case:

        class Interrupting(HookedManager):
            def begin(self, name: str, subject: object) -> Any:
                step = super().begin(name, subject)
                if name == where and not case.pool.closed:
                    signal.raise_signal(signal.SIGALRM)
                return step

        idle_timeout = 0 if where == 'dispose' else 60
        pool: ConnectionPool[str, Connection] = ConnectionPool(Interrupting(), min_idle=0, idle_timeout=idle_timeout)
        manager: Any = pool._manager
        case.pool.close()
        previous = signal.signal(signal.SIGALRM, lambda *_: pool.terminate())
        closed = False
        case_pool, case.pool = case.pool, pool
        try:
            for _ in range(2):
                pool.release(pool.acquire('a'), 'a')
        except ConnectionPoolClosedError:
            closed = True
        finally:
            case.pool = case_pool
            signal.signal(signal.SIGALRM, previous)
        assert pool.closed
        assert closed
        until(lambda: pool.get_size() == 0)
        assert [conn.disposals for conn in manager.connections] == [1] * len(manager.connections)


def test_terminate_in_a_signal_handler_ends_an_acquire_that_its_thread_waits_in() -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        previous = signal.signal(signal.SIGALRM, lambda *_: case.pool.terminate())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            with pytest.raises(ConnectionPoolClosedError):
                case.pool.acquire('a', timeout=PATIENCE)
        finally:
            signal.signal(signal.SIGALRM, previous)
        assert conn.disposals == 1
        case.release(conn)


@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_a_dispose_that_raises_system_exit_keeps_no_drained_connection_open() -> None:
    """As a callback that ends the interpreter, in a thread that is the pool's."""
    with Case() as case:
        case.release(*case.acquire('a', 5))
        case.manager.script('dispose', SystemExit(1), SystemExit(2), KeyboardInterrupt())
        case.pool.drain('a')
        until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []
        assert case.stats['closed_drained'] == 5


def test_a_context_that_another_thread_has_entered_does_not_count_as_one_s_own() -> None:
    with Case() as case:
        gate = Gate()

        def use() -> None:
            with case.pool.connection('a'):
                gate.go_through()

        user = spawn(use)
        gate.reached()
        closer = spawn(case.pool.close)
        until(lambda: case.pool.closed)
        gate.open()
        assert closer.result() == 0
        user.result()


def test_a_context_counts_as_entered_until_it_is_left() -> None:
    with Case() as case:
        context = case.pool.connection('a')
        for _ in range(2):
            with context, pytest.raises(PoolInUse):
                case.pool.wait_idle()
            case.pool.wait_idle()


class Patcher:
    """Of a package that may have patched threads."""

    def __init__(self, patched: bool) -> None:
        self.patched = patched

    def is_module_patched(self, name: str) -> bool:  # gevent's
        return self.patched and name == 'threading'

    def is_monkey_patched(self, name: str) -> bool:  # eventlet's
        return self.patched and name == 'thread'


@pytest.mark.parametrize('module', ['gevent.monkey', 'eventlet.patcher'])
def test_a_call_is_refused_where_green_threads_were_merely_imported(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, Patcher(False))
    with Case() as case:
        with case.pool.connection('a'), pytest.raises(PoolInUse):
            case.pool.wait_idle()
        case.pool.wait_idle()


@pytest.mark.parametrize('module', ['gevent.monkey', 'eventlet.patcher'])
def test_a_call_is_not_refused_where_green_threads_share_one_thread(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, Patcher(True))
    with Case() as case:
        context = case.pool.connection('a')
        context.__enter__()
        job = spawn(case.pool.wait_idle)
        until(lambda: case.pool._core.watched_endpoints == 1)
        context.__exit__(None, None, None)
        job.result()


def test_many_threads_suspend_resume_drain_and_use() -> None:
    with Case(Manager(), max_size=3) as case:
        ends = threading.Event()

        def use() -> int:
            count = 0
            while not ends.is_set():
                with case.pool.connection('a', timeout=PATIENCE):
                    count += 1
            return count

        jobs = [spawn(use) for _ in range(6)]
        for _ in range(50):
            case.pool.suspend()
            case.pool.drain('a')
            case.pool.wait_idle(timeout=PATIENCE)
            assert case.stats['acquired'] == 0
            case.pool.resume()
        ends.set()
        assert all(job.result() for job in jobs)
        until(lambda: case.pool._core.watched_endpoints == 0)


@pytest.mark.parametrize('place', ['_end_checks', '_dispose_doomed'])
def test_a_close_that_a_signal_handler_ends_leaves_nothing_open(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Case(HookedManager(), background_collector=True, min_idle=3) as case:
        case.release(*case.acquire('a', 3))

        def interrupted(*args: Any) -> None:
            monkeypatch.undo()
            raise Interruption

        monkeypatch.setattr(ConnectionPool, place, interrupted)
        with pytest.raises(Interruption):
            case.pool.close()
        assert case.pool.closed
        until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []
