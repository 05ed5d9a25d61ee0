"""The beginning and the end of a pool: opened late, closed without waiting, terminated, dropped."""

import gc
import warnings
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import ConnectionPoolClosedError, PoolInUse, PoolTimeout
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, Gate, HookedManager, JudgingManager, Manager
from tests.support import Connection, dropped_pools

# -- open -------------------------------------------------------------------------------------------------------------


async def test_a_pool_that_is_not_open_serves_nobody_and_calls_nothing() -> None:
    async with Case(HookedManager(), open=False, background_collector=True) as case:
        assert 'not open' in repr(case.pool)
        for timeout in (None, 0, 1):
            with pytest.raises(ConnectionPoolClosedError, match="is not open yet: no connection to 'a' can"):
                await case.pool.acquire('a', timeout=timeout)
        with pytest.raises(ConnectionPoolClosedError, match='not open yet'):
            await case.pool.connection('a').__aenter__()
        assert case.manager.calls == []
        assert case.stats['endpoints'] == 0
        await case.pool.open()
        assert await case.cycle('a') == 'a1'


async def test_opening_twice_is_opening_once() -> None:
    async with Case() as case:
        await case.pool.open()
        conn = await case.pool.acquire('a')
        await case.pool.open()
        await case.release(conn)
        assert await case.cycle('a') == 'a1'


async def test_a_closed_pool_cannot_be_opened_again() -> None:
    for is_open in (True, False):
        async with Case(open=is_open) as case:
            await case.pool.close()
            with pytest.raises(ConnectionPoolClosedError, match='is closed and cannot be opened again'):
                await case.pool.open()
            with pytest.raises(ConnectionPoolClosedError, match='cannot be opened again'):
                await case.pool.__aenter__()
            with pytest.raises(ConnectionPoolClosedError, match='is closed'):
                await case.pool.acquire('a')


async def test_a_pool_that_is_not_opened_starts_nothing_and_is_dropped_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pool: ConnectionPool[str, Connection] = ConnectionPool(Manager(), open=False, background_collector=True)
        collector = pool._collector
        assert not getattr(collector, '_threads', [])
        assert getattr(collector, 'task', None) is None
        del pool
        gc.collect()


async def test_what_is_to_happen_before_open_may_be_said_before_open() -> None:
    async with Case(open=False) as case:
        case.pool.suspend()
        await case.pool.drain()
        await case.pool.wait_idle()
        case.pool.resume()
        await case.pool.open()
        assert await case.cycle('a') == 'a1'


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'open': 1}, TypeError, 'open=1: expected a bool, got int'),
        ({'open': None}, TypeError, 'open=None: expected a bool'),
        ({'close_timeout': 'soon'}, TypeError, "close_timeout='soon': expected seconds"),
        ({'close_timeout': -1}, ValueError, 'close_timeout=-1: expected seconds, 0 or more'),
    ],
)
async def test_wrong_parameters_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ConnectionPool(Manager(), **options)


# -- the block of a pool ----------------------------------------------------------------------------------------------


async def test_the_block_of_a_pool_opens_it_and_closes_it() -> None:
    async with Case(open=False) as case:
        async with case.pool as pool:
            assert pool is case.pool
            await case.cycle('a')
            assert not pool.closed
        assert case.pool.closed
        assert case.manager.calls == ['create a', 'dispose a1']


async def test_leaving_the_block_waits_for_close_timeout_and_no_longer() -> None:
    async with Case(close_timeout=0.01) as case:
        assert case.pool.close_timeout == 0.01
        out = []

        async def use() -> None:
            async with case.pool:
                out.append(await case.pool.acquire('a'))
                raise LookupError

        with pytest.raises(LookupError):
            await use()
        assert case.manager.living == []
        await case.release(*out)


async def test_leaving_the_block_of_a_pool_that_was_closed_in_it_does_nothing_more() -> None:
    async with Case(close_timeout=None) as case:
        async with case.pool:
            await case.cycle('a')
            await case.pool.close()
        assert case.manager.calls == ['create a', 'dispose a1']


# -- close(wait=False) ------------------------------------------------------------------------------------------------


async def test_close_without_waiting_refuses_wakes_and_closes_what_is_idle() -> None:
    async with Case(max_size=2) as case:
        out = await case.acquire('a', 2)
        await case.cycle('b')
        waiter = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        assert await case.pool.close(wait=False) == 2
        with pytest.raises(ConnectionPoolClosedError):
            await waiter.result()
        with pytest.raises(ConnectionPoolClosedError):
            await case.pool.acquire('a')
        await until(lambda: case.manager.living == ['a1', 'a2'])
        assert case.pool.closed
        # What is in use is closed when it comes back.
        await case.release(out[0])
        assert case.manager.living == ['a2']
        job = spawn(case.pool.close)
        await case.release(out[1])
        assert await job.result() == 0
        assert case.stats['closed_pool_closed'] == 3


async def test_close_without_waiting_does_not_wait_for_a_close_that_hangs() -> None:
    async with Case() as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        await case.release(*await case.acquire('a', 2))
        assert await case.pool.close(wait=False) == 0
        await gate.reached()
        await until(lambda: case.manager.connections[1].disposals == 1)
        gate.open()
        assert await case.pool.close() == 0


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'wait': 0}, TypeError, 'wait=0: expected a bool, got int'),
        ({'wait': False, 'timeout': 1.0}, ValueError, r'timeout=1\.0 with wait=False: expected one of the two'),
        ({'timeout': -1}, ValueError, 'timeout=-1'),
    ],
)
async def test_wrong_arguments_do_not_close_the_pool(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    async with Case() as case:
        with pytest.raises(error, match=message):
            await case.pool.close(**options)
        assert not case.pool.closed
        assert await case.cycle('a') == 'a1'


# -- terminate --------------------------------------------------------------------------------------------------------


async def test_terminate_closes_everything_also_what_is_in_use() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        await case.cycle('b')
        waiter = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        case.pool.terminate()
        assert case.pool.closed
        with pytest.raises(ConnectionPoolClosedError):
            await waiter.result()
        await until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []
        # Its release does nothing.
        await case.release(conn)
        case.pool.terminate()
        assert case.stats['disposed'] == 2


async def test_terminating_a_pool_that_was_never_used_does_nothing() -> None:
    for is_open in (True, False):
        async with Case(open=is_open) as case:
            case.pool.terminate()
            assert case.pool.closed
            assert case.manager.calls == []


@pytest.mark.parametrize('end', ['terminate', 'close', 'close without waiting'])
async def test_a_connect_in_flight_is_closed_when_it_arrives_and_not_waited_for(end: str) -> None:
    async with Case() as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        if end == 'terminate':
            case.pool.terminate()
        elif end == 'close':
            assert await case.pool.close(timeout=0.01) == 0
        else:
            assert await case.pool.close(wait=False) == 1
        assert not job.done
        gate.open()
        with pytest.raises(ConnectionPoolClosedError, match='was closed while a connection'):
            await job.result()
        await until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []


# -- waiting for oneself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('method', ['close', 'wait_idle'])
async def test_a_call_in_a_block_that_would_wait_for_the_block_is_refused(method: str) -> None:
    async with Case() as case:
        async with case.pool.connection('b'), case.pool.connection('a'):
            for _ in range(2):
                with pytest.raises(PoolInUse, match=rf'^{method}\(\) of <.*> was called inside a block of connection'):
                    await getattr(case.pool, method)()
            assert not case.pool.closed
        await getattr(case.pool, method)()


async def test_a_call_in_a_block_with_a_time_limit_is_not_refused() -> None:
    async with Case() as case, case.pool.connection('a'):
        with pytest.raises(PoolTimeout, match=r'1 connections were still in use after 0\.01 s'):
            await case.pool.wait_idle(timeout=0.01)
        assert await case.pool.close(timeout=0) == 1


async def test_a_call_in_a_block_that_was_left_or_belongs_to_another_pool_is_not_refused() -> None:
    async with Case() as case, Case() as other:
        left = case.pool.connection('a')
        async with left:
            pass
        async with other.pool.connection('a'):
            await case.pool.wait_idle()
            await case.pool.close()


@pytest.mark.parametrize('method', ['close', 'wait_idle'])
async def test_a_call_beside_the_block_of_another_user_waits_for_it(method: str) -> None:
    async with Case() as case:
        gate = Gate()

        async def use() -> None:
            async with case.pool.connection('a'):
                await gate.go_through()

        user = spawn(use)
        await gate.reached()
        job = spawn(getattr(case.pool, method))
        if method == 'close':
            await until(lambda: case.pool.closed)
        else:
            await until(lambda: case.pool._core.watched_endpoints == 1)
        assert not job.done
        gate.open()
        await job.result()
        await user.result()


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

    async def call(self, hook: str) -> None:
        pool = self.pool
        if hook == self.hook and pool is not None:
            self.pool = None
            try:
                await getattr(pool, self.method)()
            except PoolInUse as exc:
                self.errors.append(exc)

    async def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        await self.call('create')
        return await super().create(endpoint, timeout)

    async def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        await self.call('dispose')
        await super().dispose(endpoint, conn, timeout)

    async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        await self.call('check_aliveness')
        return await super().check_aliveness(endpoint, conn, timeout)

    async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        await self.call('on_acquire')

    async def on_release(self, endpoint: Any, conn: Connection) -> None:
        await self.call('on_release')

    async def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        await self.call('is_broken')
        return False


@pytest.mark.parametrize('method', ['close', 'wait_idle'])
@pytest.mark.parametrize('hook', ['create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'is_broken'])
async def test_a_call_in_a_method_of_the_manager_that_would_wait_for_it_is_refused(hook: str, method: str) -> None:
    manager = ClosingManager(hook, method)
    async with Case(manager, min_idle=0, idle_timeout=3600) as case:
        manager.pool = case.pool

        async def use() -> None:
            async with case.pool.connection('a'):
                raise LookupError

        for _ in range(2):
            with pytest.raises(LookupError):
                await use()
        case.clock.advance(3600)
        await case.cycle('b')
        await until(lambda: len(manager.errors) == 1)
        assert f"was called inside the manager's {hook}()" in str(manager.errors[0])
        assert not case.pool.closed


async def test_a_method_of_the_manager_may_close_another_pool() -> None:
    async with Case() as case:
        manager = ClosingManager('on_release', 'close')
        manager.pool = case.pool
        async with Case(manager) as other:
            await other.cycle('a')
        assert manager.errors == []
        assert case.pool.closed


# -- dropped ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('state', ['idle', 'in use'])
async def test_a_pool_that_is_dropped_with_connections_gives_a_warning(state: str) -> None:
    pool: ConnectionPool[str, Connection] = ConnectionPool(Manager())
    conn = await pool.acquire('a')
    if state == 'idle':
        await pool.release(conn, 'a')
    shown = repr(pool)
    with dropped_pools() as texts:
        del pool
        gc.collect()
    assert texts == [
        f'ResourceWarning: {shown} was dropped and never closed: expected close(), or a with block of the pool'
    ]


@pytest.mark.parametrize('end', ['close', 'close without waiting', 'terminate', 'unused'])
async def test_a_pool_that_is_dropped_in_order_gives_none(end: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        pool: ConnectionPool[str, Connection] = ConnectionPool(Manager())
        if end != 'unused':
            conn = await pool.acquire('a')
            await pool.release(await pool.acquire('a'), 'a')
            if end == 'close':
                assert await pool.close(timeout=0) == 1
            elif end == 'terminate':
                pool.terminate()
            else:
                assert await pool.close(wait=False) == 1
            await pool.release(conn, 'a')
        core = pool._core
        await until(lambda: core.size == 0)
        del pool
        gc.collect()
