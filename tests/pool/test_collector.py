"""The background collector: it disposes of what is due, so that releases need not, sleeps when nothing is, and ends
with its pool."""

import gc
import math
import weakref
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, ForgetfulManager, Gate, Manager
from tests.support import dropped_pools

# Seconds of the clock that the test sets, and of the real one: the minimum that a collector sleeps.
SHORT = 0.005


def wakeups(pool: ConnectionPool[Any, Any]) -> int:
    """How often the collector woke up."""
    collector = pool._collector
    assert collector is not None
    count: int = collector.wakeups
    return count


async def test_an_extra_connection_is_disposed_of_when_it_is_due_though_nobody_calls_the_pool() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=SHORT) as case:
        await case.release(*await case.acquire('a', 3))
        case.clock.advance(SHORT)
        await until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []


async def test_the_collector_disposes_of_all_that_is_due_whatever_dispose_batch_size_is() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=SHORT, dispose_batch_size=1) as case:
        await case.release(*await case.acquire('a', 5))
        case.clock.advance(SHORT)
        await until(lambda: case.pool.get_size() == 0)


async def test_a_deadline_farther_than_the_system_can_wait_is_kept() -> None:
    async with Case(background_collector=True, min_idle=1, idle_timeout=SHORT, max_lifetime=1e300) as case:
        a1, a2 = await case.acquire('a', 2)
        await case.release(a1, a2)
        case.clock.advance(SHORT)
        await until(lambda: case.pool.get_size() == 1)
        assert case.manager.living == ['a2']


async def test_a_core_connection_is_disposed_of_when_its_lifetime_is_over() -> None:
    async with Case(background_collector=True, min_idle=1, idle_timeout=SHORT, max_lifetime=2 * SHORT) as case:
        await case.cycle('core')
        x1, x2 = await case.acquire('x', 2)
        await case.release(x1)
        case.clock.advance(SHORT)
        await until(lambda: case.pool.get_size() == 2)
        assert case.manager.living == ['core1', 'x2']
        case.clock.advance(SHORT)
        await until(lambda: case.pool.get_size() == 1)
        assert case.manager.living == ['x2']
        await case.release(x2)


async def test_releases_dispose_of_nothing() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=0) as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        a1, a2 = await case.acquire('a', 2)
        await case.release(a1)
        await gate.reached()
        await case.release(a2)
        assert case.manager.calls == ['create a', 'create a', 'dispose a1']
        gate.open()
        await until(lambda: case.pool.get_size() == 0)


async def test_releases_dispose_of_nothing_of_what_the_collector_has_still_to_do() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=60) as case:
        conns = await case.acquire('a', 4)
        await case.release(*conns[:3])
        gates = Gate(), Gate(), Gate()
        case.manager.script('dispose', *gates)
        case.clock.advance(60)
        assert case.pool._collector is not None
        case.pool._collector.wake()
        for gate in gates:
            await gate.reached()
        disposed = [call for call in case.manager.calls if call.startswith('dispose')]
        await case.release(conns[3])
        assert [call for call in case.manager.calls if call.startswith('dispose')] == disposed
        for gate in gates:
            gate.open()
        await until(lambda: case.pool.get_size() == 1)


async def test_a_lifetime_reached_while_the_connection_is_out_is_the_collector_s_affair() -> None:
    async with Case(background_collector=True, max_lifetime=100) as case:
        conn = await case.pool.acquire('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        case.clock.advance(100)
        await case.release(conn)
        await gate.reached()
        gate.open()
        await until(lambda: case.pool.get_size() == 0)


async def test_nothing_wakes_the_collector_when_nothing_is_ever_due() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=math.inf, max_lifetime=math.inf) as case:
        for _ in range(100):
            await case.release(*await case.acquire('a', 3))
        assert wakeups(case.pool) == 0


async def test_use_does_not_wake_the_collector_while_nothing_is_due() -> None:
    async with Case(background_collector=True, min_idle=1, idle_timeout=60, max_lifetime=3600) as case:
        for _ in range(100):
            await case.release(*await case.acquire('a', 3))
            case.clock.advance(0.1)
        # The first idle connection told it how long to sleep, if it had to be told.
        assert wakeups(case.pool) <= 1
        assert case.pool.get_size() == 3


async def test_the_collector_wakes_no_more_often_than_something_is_due() -> None:
    manager = Manager()
    pool: ConnectionPool[str, Any] = ConnectionPool(
        manager, background_collector=True, min_idle=0, idle_timeout=20 * SHORT, max_lifetime=3600
    )
    conns = [await pool.acquire('a') for _ in range(5)]
    for conn in conns:
        await pool.release(conn, 'a')
    await until(lambda: pool.get_size() == 0)
    # Once to be told of the first deadline, and once for each; twice if a timer fired slightly early.
    assert wakeups(pool) <= 1 + 2 * len(conns)
    assert await pool.close() == 0


async def test_an_earlier_deadline_wakes_the_collector_from_a_longer_sleep() -> None:
    async with Case(background_collector=True, min_idle=1, idle_timeout=SHORT, max_lifetime=1e6) as case:
        await case.cycle('core')  # it sleeps a million seconds
        x1, x2 = await case.acquire('x', 2)
        await case.release(x1)
        case.clock.advance(SHORT)
        await until(lambda: case.pool.get_size() == 2)
        assert case.manager.living == ['core1', 'x2']
        await case.release(x2)


async def test_a_connection_used_meanwhile_is_not_disposed_of_at_its_old_deadline() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=60) as case:
        await case.cycle('a')
        case.clock.advance(40)
        await case.cycle('a')
        case.clock.advance(40)
        assert case.pool._collector is not None
        case.pool._collector.wake()
        other = await case.pool.acquire('other')
        assert await case.cycle('a') == 'a1'
        await case.release(other)


async def test_what_the_collector_disposes_of_makes_room_for_one_who_waits() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=0, max_size=1, total_max_size=1) as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        await case.cycle('a')
        await gate.reached()
        job = spawn(case.pool.acquire, 'b')
        await case.waiting(1)
        gate.open()
        await case.release(await job.result())


async def test_the_collector_goes_on_after_a_dispose_that_raised() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=0) as case:
        case.manager.script('dispose', OSError(), OSError())
        for number in range(5):
            await case.cycle(number)
            await until(lambda: case.pool.get_size() == 0)
        assert case.manager.living == []


async def test_close_stops_the_collector_and_disposes_of_the_rest() -> None:
    async with Case(background_collector=True, min_idle=0, idle_timeout=SHORT) as case:
        await case.release(*await case.acquire('a', 3))
        assert await case.pool.close() == 0
        assert case.manager.living == []
        count = wakeups(case.pool)
        case.clock.advance(1000)
        assert await case.pool.close() == 0
        assert wakeups(case.pool) <= count + 1


async def test_a_connection_given_back_after_close_is_disposed_of_by_its_release() -> None:
    async with Case(background_collector=True) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.close)
        await until(lambda: case.pool._core.closed)
        await case.release(conn)
        assert conn.disposals == 1
        assert await job.result() == 0


@pytest.mark.parametrize('idle_timeout', [0, 3600, math.inf])
async def test_a_pool_that_nobody_holds_is_collected_with_its_collector(idle_timeout: float) -> None:
    pool: ConnectionPool[str, object] = ConnectionPool(
        ForgetfulManager(), background_collector=True, min_idle=0, idle_timeout=idle_timeout, max_lifetime=math.inf
    )
    conn = await pool.acquire('a')
    await pool.release(conn, 'a')
    gone = weakref.ref(pool)
    core_gone = weakref.ref(pool._core)
    manager_gone = weakref.ref(pool._manager)

    def is_gone() -> bool:
        gc.collect()
        return (gone(), core_gone(), manager_gone()) == (None, None, None)

    with dropped_pools():
        del pool
        # A collector that is at work refers to it until it is done. tests/conftest.py checks that its thread ends.
        await until(is_gone)


async def test_a_pool_without_a_collector_has_none() -> None:
    async with Case() as case:
        assert case.pool._collector is None
