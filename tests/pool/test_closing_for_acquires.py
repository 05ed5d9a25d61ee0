"""What an acquire needs closed is closed beside it: it keeps its timeout, and is served when the close ends."""

import pytest

from gcpool.exceptions import PoolTimeout
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Gate, HookedManager, Manager


@pytest.mark.parametrize('timeout', [0, 0.01])
async def test_an_acquire_keeps_its_time_limit_while_a_dispose_hangs_that_it_needs(timeout: float) -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        await case.cycle('a')
        gate = Gate()
        case.manager.script('dispose', gate)
        with pytest.raises(PoolTimeout, match="waiting for a slot for 'b'"):
            await case.pool.acquire('b', timeout=timeout)
        await gate.reached()
        assert case.pool.get_size() == 1
        gate.open()
        assert await case.cycle('b') == 'b1'


@pytest.mark.parametrize(
    ('manager_class', 'message'),
    [
        (CheckingManager, "waiting for a connection to 'a': max_size=1 reached"),
        (HookedManager, "waiting for a dead connection to 'a' to be closed"),
    ],
)
@pytest.mark.parametrize('timeout', [0, 0.01])
async def test_an_acquire_keeps_its_time_limit_while_the_dispose_of_a_dead_connection_hangs(
    timeout: float, manager_class: type[Manager], message: str
) -> None:
    async with Case(manager_class(), max_size=1) as case:
        await case.cycle('a')
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        with pytest.raises(PoolTimeout, match=message):
            await case.pool.acquire('a', timeout=timeout)
        await gate.reached()
        assert case.pool.get_size() == 1
        gate.open()
        assert await case.cycle('a') == 'a2'


async def test_an_acquire_that_has_a_connection_of_another_endpoint_closed_is_served_when_the_close_ends() -> None:
    async with Case(max_size=1, total_max_size=2) as case:
        await case.cycle('a')
        held = await case.pool.acquire('b')
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.pool.acquire, 'c')
        await gate.reached()
        late = spawn(case.pool.acquire, 'd')
        await case.waiting(2)
        assert case.pool.get_size() == 2
        gate.open()
        c1 = await job.result()
        assert case.manager.take_calls() == ['create a', 'create b', 'dispose a1', 'create c']
        assert not late.done
        await case.release(held)
        await case.release(c1, await late.result())


async def test_connections_are_closed_beside_one_that_hangs() -> None:
    async with Case(max_size=1, total_max_size=3) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        gates = Gate(), Gate()
        case.manager.script('dispose', *gates)
        jobs = []
        for endpoint, gate in zip('xy', gates, strict=True):
            jobs.append(spawn(case.pool.acquire, endpoint))
            await gate.reached()
        jobs.append(spawn(case.pool.acquire, 'z'))
        await case.release(await jobs.pop(0).result())
        for gate in gates:
            gate.open()
        await case.release(*[await job.result() for job in jobs])


async def test_without_on_connection_dead_an_acquire_does_not_wait_for_a_dead_connection() -> None:
    async with Case(CheckingManager(), min_idle=2, max_size=2) as case:
        await case.release(*await case.acquire('a', 2))
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        a2 = await case.pool.acquire('a')
        assert a2.name == 'a2'
        await gate.reached()
        gate.open()
        await case.release(a2)


async def test_on_connection_dead_is_called_by_the_acquire_after_the_end_of_the_dispose() -> None:
    async with Case(HookedManager(), min_idle=2, max_size=2) as case:
        await case.release(*await case.acquire('a', 2))
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        case.manager.take_calls()
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        await case.cycle('b')
        assert 'on_connection_dead a1' not in case.manager.calls
        gate.open()
        await case.release(await job.result())
        calls = [call for call in case.manager.take_calls() if not call.endswith((' b', ' b1'))]
        assert calls == [
            'check_aliveness a1',
            'dispose a1',
            'on_connection_dead a1',
            'check_aliveness a2',
            'on_acquire a2',
            'on_release a2',
        ]


async def test_what_on_connection_dead_raises_reaches_the_acquire_and_loses_nothing() -> None:
    async with Case(HookedManager(), min_idle=2, max_size=2) as case:
        await case.release(*await case.acquire('a', 2))
        case.manager.script('check_aliveness', False)
        case.manager.script('on_connection_dead', OSError('no'))
        with pytest.raises(OSError, match='no'):
            await case.pool.acquire('a')
        assert case.stats['acquired'] == 0
        assert case.manager.living == ['a2']
        assert await case.cycle('a') == 'a2'


async def test_a_dead_connection_of_an_acquire_that_is_refused_is_closed() -> None:
    async with Case(HookedManager()) as case:
        await case.cycle('a')
        gate = Gate(False)
        case.manager.script('check_aliveness', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        closing = spawn(case.pool.close)
        await until(lambda: case.pool._core.closed)
        gate.open()
        with pytest.raises(Exception, match='is closed'):
            await job.result()
        assert await closing.result() == 0
        assert case.manager.living == []


# -- a close that hangs ------------------------------------------------------------------------------------------------

# A close is waited for until the next but one full second of the pool's clock. The test waits for that, too.
ALMOST_A_SECOND = 0.95


async def test_who_waits_for_a_close_that_hangs_has_another_connection_closed_though_nobody_comes_by() -> None:
    async with Case(total_max_size=3, max_size=3) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        gates = Gate(), Gate()
        case.manager.script('dispose', *gates)
        case.clock.advance(ALMOST_A_SECOND)
        job = spawn(case.pool.acquire, 'x')
        for gate in gates:
            await gate.reached()
            case.clock.advance(2)
        x1 = await job.result()
        assert case.pool.get_size() == 3
        for gate in gates:
            gate.open()
        await case.release(x1)


async def test_who_waited_before_a_release_began_a_close_that_hangs_has_another_connection_closed() -> None:
    async with Case(total_max_size=2, max_size=2) as case:
        a1, b1 = await case.pool.acquire('a'), await case.pool.acquire('b')
        job = spawn(case.pool.acquire, 'x')
        await case.waiting(1)
        gate = Gate()
        case.manager.script('dispose', gate)
        case.clock.advance(ALMOST_A_SECOND)
        hanging = spawn(case.release, a1)
        await gate.reached()
        await case.release(b1)
        assert case.stats['idle'] == 1
        case.clock.advance(2)
        x1 = await job.result()
        gate.open()
        await hanging.result()
        await case.release(x1)


async def test_who_waits_is_not_forgotten_when_the_one_gives_up_whose_dead_connection_hangs_in_its_close() -> None:
    async with Case(CheckingManager(), total_max_size=2, max_size=2) as case:
        await case.cycle('a')
        b1 = await case.pool.acquire('b')
        case.clock.advance(ALMOST_A_SECOND)
        check, close = Gate(False), Gate()
        case.manager.script('check_aliveness', check)
        case.manager.script('dispose', close)
        impatient = spawn(case.pool.acquire, 'a', timeout=0.05)
        await check.reached()
        job = spawn(case.pool.acquire, 'x')
        await case.waiting(1)
        check.open()
        await close.reached()
        with pytest.raises(PoolTimeout):
            await impatient.result()
        await case.release(b1)
        assert case.stats['idle'] == 1
        case.clock.advance(2)
        x1 = await job.result()
        close.open()
        await case.release(x1)
