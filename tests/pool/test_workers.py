"""How many connections a pool creates, checks and closes in the background at a time, and which come first."""

from typing import Any

import pytest

from gcpool.asyncio import NullConnectionPool
from tests.asyncio_.runtime import Job, spawn, until
from tests.pool.support import Case, CheckingManager, Gate


async def begin_creates(case: Case, endpoint: Any, count: int = 1) -> tuple[list[Gate], list['Job[Any]']]:
    """Have the pool begin to create connections that take until the test opens their gates."""
    gates, jobs = [], []
    for _ in range(count):
        gate = Gate()
        case.manager.script('create', gate)
        jobs.append(spawn(case.pool.acquire, endpoint))
        await gate.reached()
        gates.append(gate)
    return gates, jobs


async def test_a_job_beyond_max_workers_waits_and_is_done() -> None:
    async with Case(create_in_background=True, max_workers=1) as case:
        [gate], jobs = await begin_creates(case, 'a')
        jobs += [spawn(case.pool.acquire, endpoint) for endpoint in 'bc']
        await case.waiting(3)
        assert case.pool._core.jobs_at_work == 1
        assert case.manager.calls == ['create a']
        assert case.stats['creating'] == 3, 'it has its slot'
        gate.open()
        await case.release(*[await job.result() for job in jobs])
        assert case.manager.calls == ['create a', 'create b', 'create c']
        assert case.pool._core.jobs_at_work == 0


async def test_without_a_bound_a_server_that_does_not_answer_keeps_no_other_waiting() -> None:
    async with Case(create_in_background=True) as case:
        deaf = [await begin_creates(case, endpoint, 2) for endpoint in 'abcdefgh']
        assert case.pool._core.jobs_at_work == 16
        assert await case.cycle('healthy') == 'healthy1'
        for gates, jobs in deaf:
            for gate in gates:
                gate.open()
            await case.release(*[await job.result() for job in jobs])


@pytest.mark.parametrize('max_workers', [0, 8])
async def test_a_deaf_endpoint_beside_a_healthy_one_keeps_it_from_nothing(max_workers: int) -> None:
    async with Case(CheckingManager(), min_size=2, max_workers=max_workers) as case:
        await case.release(*await case.acquire('deaf', 3))
        case.pool.warm_up('deaf', 5)
        await case.pool.wait()
        gates = [Gate(), Gate()]
        # Its closes do not end, nor its connects.
        case.manager.script('dispose', gates[0])
        case.pool.suspend()
        await case.pool.drain('deaf')
        await gates[0].reached()
        case.manager.script('create', gates[1])
        case.pool.resume()
        await gates[1].reached()
        # The healthy one is filled, checked, drained and filled again.
        case.pool.warm_up('healthy', 2)
        await until(lambda: case.pool.get_stats('healthy')['idle'] == 2)
        assert await case.pool.check('healthy') == 0
        assert await case.cycle('healthy') == 'healthy1'
        await case.pool.drain('healthy')
        await until(lambda: {'healthy3', 'healthy4'} <= {*case.manager.living})
        await until(lambda: case.pool.get_stats('healthy')['idle'] == 2)
        for gate in gates:
            gate.open()


async def test_with_a_bound_creates_to_a_server_that_does_not_answer_leave_a_worker_to_closes() -> None:
    async with Case(create_in_background=True, max_workers=3) as case:
        await case.cycle('idle')
        gates, jobs = await begin_creates(case, 'deaf', 2)
        jobs.append(spawn(case.pool.acquire, 'healthy'))
        await case.waiting(3)
        await case.pool.drain('idle')
        await until(lambda: case.manager.living == [])
        assert case.manager.calls.count('create healthy') == 0, 'of three workers two may create'
        gates[0].open()
        await case.release(await jobs[2].result())
        gates[1].open()
        await case.release(*[await job.result() for job in jobs[:2]])


async def test_with_a_bound_closes_that_hang_leave_a_worker_to_creates() -> None:
    async with Case(create_in_background=True, max_workers=2) as case:
        await case.cycle('a')
        await case.cycle('b')
        gate = Gate()
        case.manager.script('dispose', gate)
        await case.pool.drain()
        await gate.reached()
        assert case.pool._core.left_to_workers == 1
        assert case.pool._core.jobs_to_begin == 0
        assert await case.cycle('c') == 'c1'
        gate.open()
        await until(lambda: case.manager.living == ['c1'])


async def test_with_a_bound_checks_leave_half_of_the_workers() -> None:
    async with Case(CheckingManager(), keepalive_interval=1e-3, max_workers=4, _random=lambda: 0.0) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        gates = Gate(), Gate()
        case.manager.script('check_aliveness', *gates)
        case.clock.advance(1e-3)
        for gate in gates:
            await gate.reached()
        assert case.stats['checking'] == 3
        assert case.pool._core.jobs_at_work == 2
        await case.pool.drain('c')
        await until(lambda: case.stats['closed_drained'] == 1)
        for gate in gates:
            gate.open()
        await until(lambda: case.stats['checking'] == 0)


async def test_a_free_worker_closes_first_then_creates_and_checks_last() -> None:
    async with Case(
        CheckingManager(), create_in_background=True, keepalive_interval=1e-3, max_workers=1, _random=lambda: 0.0
    ) as case:
        await case.cycle('closed')
        await case.cycle('checked')
        [gate], jobs = await begin_creates(case, 'first')
        case.clock.advance(1e-3)
        await until(lambda: case.stats['checking'] == 2)
        jobs.append(spawn(case.pool.acquire, 'created'))
        await case.waiting(2)
        await case.pool.drain('closed')
        case.manager.take_calls()
        gate.open()
        conns = [await job.result() for job in jobs]
        await until(lambda: case.stats['checking'] == 0)
        assert case.manager.take_calls() == ['dispose closed1', 'create created', 'check_aliveness checked1']
        await case.release(*conns)


async def test_what_a_release_closes_does_not_wait_for_a_worker() -> None:
    async with Case(create_in_background=True, max_workers=1, min_idle=0, idle_timeout=0) as case:
        conn = await case.pool.acquire('b')
        [gate], [job] = await begin_creates(case, 'a')
        await case.release(conn)
        assert case.manager.living == []
        gate.open()
        await case.release(await job.result())


async def test_a_raised_bound_begins_what_waits() -> None:
    async with Case(create_in_background=True, max_workers=1) as case:
        [gate], [job] = await begin_creates(case, 'a')
        other = spawn(case.pool.acquire, 'b')
        await case.waiting(2)
        await case.pool.resize(max_workers=3)
        assert case.pool.max_workers == case.stats['max_workers'] == 3
        await case.release(await other.result())
        gate.open()
        await case.release(await job.result())


async def test_a_lowered_bound_holds_for_what_begins_then() -> None:
    async with Case(create_in_background=True) as case:
        gates, jobs = await begin_creates(case, 'a', 2)
        await case.pool.resize(max_workers=1)
        jobs.append(spawn(case.pool.acquire, 'b'))
        await case.waiting(3)
        gates[0].open()
        await case.waiting(2)
        assert case.manager.calls.count('create b') == 0
        gates[1].open()
        await case.release(*[await job.result() for job in jobs])


async def test_a_pool_that_is_closed_closes_what_waits_for_a_worker() -> None:
    async with Case(max_workers=1) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        gate = Gate()
        case.manager.script('dispose', gate)
        await case.pool.drain()
        await gate.reached()
        closing = spawn(case.pool.close)
        await until(lambda: case.pool.get_size() == 1)
        gate.open()
        assert await closing.result() == 0


async def test_the_error_of_a_job_ends_that_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with Case(max_workers=1) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        case.manager.script('dispose', RuntimeError('in dispose'), TimeoutError())
        await case.pool.drain()
        await until(lambda: case.manager.living == [])
        assert case.pool._core.jobs_at_work == 0
    assert 'in dispose' in caplog.text


async def test_a_null_pool_has_the_bound_too() -> None:
    async with Case(pool_class=NullConnectionPool, max_workers=2) as case:
        assert case.pool.max_workers == 2
        await case.cycle('a')
