# Generated from tests/pool/test_lifecycle.py by .github/scripts/generate_threading.py; do not edit.

"""The beginning and the end of a pool: opened late, closed without waiting, terminated, dropped."""

import gc
import warnings
from typing import Any

import pytest

from gcpool.exceptions import ConnectionPoolClosedError, PoolInUse, PoolTimeout
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, Gate, HookedManager, JudgingManager, Manager
from tests.support import Connection, dropped_pools
from tests.threads.runtime import spawn, until

# -- open -------------------------------------------------------------------------------------------------------------


def test_a_pool_that_is_not_open_serves_nobody_and_calls_nothing() -> None:
    with Case(HookedManager(), open=False, background_collector=True) as case:
        assert 'not open' in repr(case.pool)
        for timeout in (None, 0, 1):
            with pytest.raises(ConnectionPoolClosedError, match="is not open yet: no connection to 'a' can"):
                case.pool.acquire('a', timeout=timeout)
        with pytest.raises(ConnectionPoolClosedError, match='not open yet'):
            case.pool.connection('a').__enter__()
        assert case.manager.calls == []
        assert case.stats['endpoints'] == 0
        case.pool.open()
        assert case.cycle('a') == 'a1'


def test_opening_twice_is_opening_once() -> None:
    with Case() as case:
        case.pool.open()
        conn = case.pool.acquire('a')
        case.pool.open()
        case.release(conn)
        assert case.cycle('a') == 'a1'


def test_a_closed_pool_cannot_be_opened_again() -> None:
    for is_open in (True, False):
        with Case(open=is_open) as case:
            case.pool.close()
            with pytest.raises(ConnectionPoolClosedError, match='is closed and cannot be opened again'):
                case.pool.open()
            with pytest.raises(ConnectionPoolClosedError, match='cannot be opened again'):
                case.pool.__enter__()
            with pytest.raises(ConnectionPoolClosedError, match='is closed'):
                case.pool.acquire('a')


def test_a_pool_that_is_not_opened_starts_nothing_and_is_dropped_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pool: ConnectionPool[str, Connection] = ConnectionPool(Manager(), open=False, background_collector=True)
        collector = pool._collector
        assert not getattr(collector, '_threads', [])
        assert getattr(collector, 'task', None) is None
        del pool
        gc.collect()


def test_what_is_to_happen_before_open_may_be_said_before_open() -> None:
    with Case(open=False) as case:
        case.pool.suspend()
        case.pool.drain()
        case.pool.wait_idle()
        case.pool.resume()
        case.pool.open()
        assert case.cycle('a') == 'a1'


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'open': 1}, TypeError, 'open=1: expected a bool, got int'),
        ({'open': None}, TypeError, 'open=None: expected a bool'),
        ({'close_timeout': 'soon'}, TypeError, "close_timeout='soon': expected seconds"),
        ({'close_timeout': -1}, ValueError, 'close_timeout=-1: expected seconds, 0 or more'),
    ],
)
def test_wrong_parameters_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ConnectionPool(Manager(), **options)


# -- the block of a pool ----------------------------------------------------------------------------------------------


def test_the_block_of_a_pool_opens_it_and_closes_it() -> None:
    with Case(open=False) as case:
        with case.pool as pool:
            assert pool is case.pool
            case.cycle('a')
            assert not pool.closed
        assert case.pool.closed
        assert case.manager.calls == ['create a', 'dispose a1']


def test_leaving_the_block_waits_for_close_timeout_and_no_longer() -> None:
    with Case(close_timeout=0.01) as case:
        assert case.pool.close_timeout == 0.01
        out = []

        def use() -> None:
            with case.pool:
                out.append(case.pool.acquire('a'))
                raise LookupError

        with pytest.raises(LookupError):
            use()
        assert case.manager.living == []
        case.release(*out)


def test_leaving_the_block_of_a_pool_that_was_closed_in_it_does_nothing_more() -> None:
    with Case(close_timeout=None) as case:
        with case.pool:
            case.cycle('a')
            case.pool.close()
        assert case.manager.calls == ['create a', 'dispose a1']


# -- close(wait=False) ------------------------------------------------------------------------------------------------


def test_close_without_waiting_refuses_wakes_and_closes_what_is_idle() -> None:
    with Case(max_size=2) as case:
        out = case.acquire('a', 2)
        case.cycle('b')
        waiter = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        assert case.pool.close(wait=False) == 2
        with pytest.raises(ConnectionPoolClosedError):
            waiter.result()
        with pytest.raises(ConnectionPoolClosedError):
            case.pool.acquire('a')
        until(lambda: case.manager.living == ['a1', 'a2'])
        assert case.pool.closed
        # What is in use is closed when it comes back.
        case.release(out[0])
        assert case.manager.living == ['a2']
        job = spawn(case.pool.close)
        case.release(out[1])
        assert job.result() == 0
        assert case.stats['closed_pool_closed'] == 3


def test_close_without_waiting_does_not_wait_for_a_close_that_hangs() -> None:
    with Case() as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        case.release(*case.acquire('a', 2))
        assert case.pool.close(wait=False) == 0
        gate.reached()
        until(lambda: case.manager.connections[1].disposals == 1)
        gate.open()
        assert case.pool.close() == 0


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'wait': 0}, TypeError, 'wait=0: expected a bool, got int'),
        ({'wait': False, 'timeout': 1.0}, ValueError, r'timeout=1\.0 with wait=False: expected one of the two'),
        ({'timeout': -1}, ValueError, 'timeout=-1'),
    ],
)
def test_wrong_arguments_do_not_close_the_pool(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with Case() as case:
        with pytest.raises(error, match=message):
            case.pool.close(**options)
        assert not case.pool.closed
        assert case.cycle('a') == 'a1'


# -- terminate --------------------------------------------------------------------------------------------------------


def test_terminate_closes_everything_also_what_is_in_use() -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        case.cycle('b')
        waiter = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.pool.terminate()
        assert case.pool.closed
        with pytest.raises(ConnectionPoolClosedError):
            waiter.result()
        until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []
        # Its release does nothing.
        case.release(conn)
        case.pool.terminate()
        assert case.stats['disposed'] == 2


def test_terminating_a_pool_that_was_never_used_does_nothing() -> None:
    for is_open in (True, False):
        with Case(open=is_open) as case:
            case.pool.terminate()
            assert case.pool.closed
            assert case.manager.calls == []


@pytest.mark.parametrize('end', ['terminate', 'close', 'close without waiting'])
def test_a_connect_in_flight_is_closed_when_it_arrives_and_not_waited_for(end: str) -> None:
    with Case() as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        gate.reached()
        if end == 'terminate':
            case.pool.terminate()
        elif end == 'close':
            assert case.pool.close(timeout=0.01) == 0
        else:
            assert case.pool.close(wait=False) == 1
        assert not job.done
        gate.open()
        with pytest.raises(ConnectionPoolClosedError, match='was closed while a connection'):
            job.result()
        until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []


# -- waiting for oneself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('method', ['close', 'wait_idle'])
def test_a_call_in_a_block_that_would_wait_for_the_block_is_refused(method: str) -> None:
    with Case() as case:
        with case.pool.connection('b'), case.pool.connection('a'):
            for _ in range(2):
                with pytest.raises(PoolInUse, match=rf'^{method}\(\) of <.*> was called inside a block of connection'):
                    getattr(case.pool, method)()
            assert not case.pool.closed
        getattr(case.pool, method)()


def test_a_call_in_a_block_with_a_time_limit_is_not_refused() -> None:
    with Case() as case, case.pool.connection('a'):
        with pytest.raises(PoolTimeout, match=r'1 connections were still in use after 0\.01 s'):
            case.pool.wait_idle(timeout=0.01)
        assert case.pool.close(timeout=0) == 1


def test_a_call_in_a_block_that_was_left_or_belongs_to_another_pool_is_not_refused() -> None:
    with Case() as case, Case() as other:
        left = case.pool.connection('a')
        with left:
            pass
        with other.pool.connection('a'):
            case.pool.wait_idle()
            case.pool.close()


@pytest.mark.parametrize('method', ['close', 'wait_idle'])
def test_a_call_beside_the_block_of_another_user_waits_for_it(method: str) -> None:
    with Case() as case:
        gate = Gate()

        def use() -> None:
            with case.pool.connection('a'):
                gate.go_through()

        user = spawn(use)
        gate.reached()
        job = spawn(getattr(case.pool, method))
        if method == 'close':
            until(lambda: case.pool.closed)
        else:
            until(lambda: case.pool._core.watched_endpoints == 1)
        assert not job.done
        gate.open()
        job.result()
        user.result()


class ClosingManager(JudgingManager):
    """Closes its pool, or waits for it, in one of its methods.

    :param hook: in which
    :param method: how
    """

    def __init__(self, hook: str, method: str) -> None:
        super().__init__()
        self.hook = hook
        self.method = method
        self.pool: ConnectionPool[Any, Connection] | None = None
        self.errors: list[BaseException] = []

    def call(self, hook: str) -> None:
        pool = self.pool
        if hook == self.hook and pool is not None:
            self.pool = None
            try:
                getattr(pool, self.method)()
            except PoolInUse as exc:
                self.errors.append(exc)

    def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        self.call('create')
        return super().create(endpoint, timeout)

    def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        self.call('dispose')
        super().dispose(endpoint, conn, timeout)

    def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        self.call('check_aliveness')
        return super().check_aliveness(endpoint, conn, timeout)

    def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        self.call('on_acquire')

    def on_release(self, endpoint: Any, conn: Connection) -> None:
        self.call('on_release')

    def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        self.call('is_broken')
        return False


@pytest.mark.parametrize('method', ['close', 'wait_idle'])
@pytest.mark.parametrize('hook', ['create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken'])
def test_a_call_in_a_method_of_the_manager_that_would_wait_for_it_is_refused(hook: str, method: str) -> None:
    manager = ClosingManager(hook, method)
    with Case(manager, min_idle=0, idle_timeout=3600) as case:
        manager.pool = case.pool

        def use() -> None:
            with case.pool.connection('a'):
                raise LookupError

        for _ in range(2):
            with pytest.raises(LookupError):
                use()
        case.clock.advance(3600)
        case.cycle('b')
        until(lambda: len(manager.errors) == 1)
        assert f"was called inside the manager's {hook}()" in str(manager.errors[0])
        assert not case.pool.closed


def test_a_method_of_the_manager_may_close_another_pool() -> None:
    with Case() as case:
        manager = ClosingManager('on_release', 'close')
        manager.pool = case.pool
        with Case(manager) as other:
            other.cycle('a')
        assert manager.errors == []
        assert case.pool.closed


# -- dropped ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('state', ['idle', 'in use'])
def test_a_pool_that_is_dropped_with_connections_gives_a_warning(state: str) -> None:
    pool: ConnectionPool[str, Connection] = ConnectionPool(Manager())
    conn = pool.acquire('a')
    if state == 'idle':
        pool.release(conn, 'a')
    shown = repr(pool)
    with dropped_pools() as texts:
        del pool
        gc.collect()
    assert texts == [
        f'ResourceWarning: {shown} was dropped and never closed: expected close(), or a with block of the pool'
    ]


@pytest.mark.parametrize('end', ['close', 'close without waiting', 'terminate', 'unused'])
def test_a_pool_that_is_dropped_in_order_gives_none(end: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pool: ConnectionPool[str, Connection] = ConnectionPool(Manager())
        if end != 'unused':
            conn = pool.acquire('a')
            pool.release(pool.acquire('a'), 'a')
            if end == 'close':
                assert pool.close(timeout=0) == 1
            elif end == 'terminate':
                pool.terminate()
            else:
                assert pool.close(wait=False) == 1
            pool.release(conn, 'a')
        core = pool._core
        until(lambda: core.size == 0)
        del pool
        gc.collect()
