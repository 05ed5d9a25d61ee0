"""The timers of a pool on asyncio: if one is lost, the next call that needs it restores it."""

import asyncio
import math
from typing import Any

import pytest

from gcpool._workers.collector_asyncio import AsyncCollector
from gcpool._workers.core_timer import CoreTimer
from gcpool._workers.loop_timer import LoopTimer
from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import spawn, until
from tests.interrupting import interrupt
from tests.pool.support import Case, Gate
from tests.support import Clock, Interruption

SHORT = 0.005


async def test_a_collector_that_could_not_set_its_timer_is_set_going_by_the_next_release(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    due_in = ConnectionPool._due_in

    def fail(pool: ConnectionPool[Any, Any]) -> float | None:
        if pool._collector.task is not None or failures:
            return due_in(pool)
        raise MemoryError

    async with Case(background_collector=True, min_idle=0, idle_timeout=SHORT) as case:
        await case.cycle('a')
        case.clock.advance(SHORT)
        # At the end of its first run.
        monkeypatch.setattr(ConnectionPool, '_due_in', fail)
        await until(lambda: failures != [])
        assert isinstance(failures[0]['exception'], MemoryError)
        assert case.pool.get_size() == 0
        collector: Any = case.pool._collector
        assert (collector._timer._handle, collector.task) == (None, None)
        [conn, other] = await case.acquire('a', 2)
        await case.release(conn)
        case.clock.advance(SHORT)
        collector._timer.cancel()
        await case.release(other)
        await until(lambda: case.manager.living == [other.name])


async def test_releases_find_the_timer_set_though_it_fires_at_once() -> None:
    """uvloop's timers do not know their time then."""
    async with Case(background_collector=True, min_idle=0, idle_timeout=0) as case:
        await case.release(*await case.acquire('a', 2))
        assert case.pool._collector._timer._handle is not None
        await until(lambda: case.manager.living == [])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer counts as lost as soon as its time has passed."""
    monkeypatch.setattr('gcpool._workers.loop_timer.TIMER_LATENESS', 0.0)


async def until_failed() -> None:
    """Wait for the one error that reaches the event loop."""
    loop = asyncio.get_running_loop()
    failures: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: failures.append(context))
    await until(lambda: failures != [])
    assert isinstance(failures[0]['exception'], Interruption)


async def until_past(time: float) -> None:
    """Wait until a time of the event loop's has passed."""
    loop = asyncio.get_running_loop()
    await until(lambda: time < loop.time())


@pytest.mark.parametrize('owner', [LoopTimer, AsyncCollector])
async def test_a_signal_that_comes_as_the_collector_s_timer_rings_does_not_end_collecting(
    owner: type[Any], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(owner, '_fire', monkeypatch)
    async with Case(background_collector=True, min_idle=0, idle_timeout=SHORT) as case:
        await case.cycle('a')
        collector: Any = case.pool._collector
        handle = collector._timer._handle
        await until_failed()
        await until_past(collector._timer._fires_at)
        case.clock.advance(SHORT)
        await case.cycle('a')
        assert collector._timer._handle is not handle
        case.clock.advance(SHORT)
        await until(lambda: case.manager.living == [])


@pytest.mark.parametrize(
    ('owner', 'name'),
    [(LoopTimer, '_fire'), (CoreTimer, '_fire'), (Clock, '__call__'), (ConnectionPool, '_begin_disposals')],
)
async def test_a_signal_that_comes_as_the_pool_looks_again_does_not_keep_it_from_that(
    owner: type[Any], name: str, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rings = asyncio.Event()
    interrupt(owner, name, monkeypatch, when=rings.is_set)
    async with Case(max_size=1, total_max_size=2) as case:
        core_timer = case.pool._timer

        def ring_soon() -> None:
            """The closes that are going on stop counting, and the timer rings at the next turn of the loop."""
            case.clock.advance(2.0)
            core_timer._due = math.inf
            core_timer.set(case.pool)

        for endpoint in 'ac':
            await case.cycle(endpoint)
        gate = Gate()
        case.manager.script('dispose', gate)
        waiter = spawn(case.pool.acquire, 'b')
        await gate.reached()
        ring_soon()
        handle = core_timer._timer._handle
        assert handle is not None
        rings.set()
        await until_failed()
        if name == '_fire':
            await until_past(core_timer._timer._fires_at)
            # As an acquire does that has doomed a connection.
            case.pool._spawn_disposals()
        if name != '__call__':
            assert core_timer._timer._handle not in {None, handle}
            ring_soon()
        await case.release(await waiter.result())
        gate.open()
