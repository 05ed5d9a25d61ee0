"""Connections that are replaced, and pauses: drain, suspend, resume, wait_idle."""

from typing import Any

import pytest

from gcpool.exceptions import (
    BaseError,
    ConnectError,
    ConnectionPoolClosedError,
    ConnectionPoolNotFound,
    PoolNotSuspended,
    PoolSuspended,
    PoolTimeout,
)
from gcpool.observers import PoolEvent
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Gate, HookedManager
from tests.support import Connection

# -- drain ------------------------------------------------------------------------------------------------------------


async def test_drain_closes_what_is_idle_and_what_is_in_use_when_it_comes_back() -> None:
    async with Case(max_size=3) as case:
        out, _, _ = conns = await case.acquire('a', 3)
        await case.release(*conns[1:])
        await case.pool.drain('a')
        await until(lambda: case.manager.living == ['a1'])
        # It counts until it is closed.
        assert await case.pool.get_endpoint_pool_size('a') == 1
        await case.release(out)
        await until(lambda: case.manager.living == [])
        assert case.stats['closed_drained'] == 3
        assert await case.cycle('a') == await case.cycle('a') == 'a4'


async def test_drain_of_one_endpoint_leaves_the_others_alone_and_without_one_drains_all() -> None:
    async with Case() as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
        await case.pool.drain('a')
        await until(lambda: case.manager.living == ['b1', 'c1'])
        await case.pool.drain()
        await until(lambda: case.manager.living == [])
        assert case.stats['closed_drained'] == 3


async def test_none_is_an_endpoint_to_drain() -> None:
    async with Case() as case:
        await case.cycle(None)
        await case.cycle('a')
        await case.pool.drain(None)
        await until(lambda: case.manager.living == ['a1'])


@pytest.mark.parametrize('idle_only', [False, True])
async def test_draining_an_unknown_endpoint_names_it_and_changes_nothing(idle_only: bool) -> None:
    events: list[PoolEvent] = []
    async with Case(name='orders', on_event=events.append) as case:
        await case.cycle('a')
        with pytest.raises(ConnectionPoolNotFound, match=r"^endpoint='b': pool 'orders' does not know it: "):
            await case.pool.drain('b', idle_only=idle_only)
        await case.pool.drain('a', idle_only=True)
        await until(lambda: case.stats['size'] == 0)
        await until(lambda: any(event.kind == 'drained' for event in events))
        # It has no connections and no waiters: the pool has forgotten it.
        with pytest.raises(ConnectionPoolNotFound, match="endpoint='a'"):
            await case.pool.drain('a', idle_only=idle_only)
        assert [event.endpoint for event in events if event.kind == 'drained'] == ['a']
        assert case.manager.calls == ['create a', 'dispose a1']
        assert case.stats['closed_drained'] == 1
        assert case.stats['endpoints'] == 0


async def test_an_unknown_endpoint_is_a_lookup_that_failed() -> None:
    async with Case() as case:
        with pytest.raises(KeyError) as caught:
            await case.pool.drain('a')
        assert type(caught.value) is ConnectionPoolNotFound
        assert issubclass(ConnectionPoolNotFound, BaseError)
        assert not issubclass(ConnectionPoolNotFound, ConnectError)
        assert str(caught.value) == caught.value.args[0]


async def test_an_endpoint_without_connections_may_be_drained_that_is_warmed_up_or_waited_for() -> None:
    async with Case(max_size=1) as case:
        case.pool.suspend()
        job = spawn(case.cycle, 'waited for')
        await case.waiting(1)
        case.pool.warm_up('warmed up', 1)
        await case.pool.drain('waited for')
        await case.pool.drain('warmed up')
        assert case.stats['size'] == 0
        case.pool.resume()
        await job.result()


async def test_forgetting_an_unknown_endpoint_does_nothing() -> None:
    events: list[PoolEvent] = []
    async with Case(on_event=events.append) as case:
        await case.cycle('a')
        await case.pool.forget('b')
        assert (case.stats['endpoints'], case.stats['idle'], case.stats['closing']) == (1, 1, 0)
        await case.pool.drain('a')
        await until(lambda: any(event.kind == 'drained' for event in events))
        assert [event.endpoint for event in events if event.kind == 'drained'] == ['a']


async def test_an_endpoint_that_is_drained_over_and_over_while_it_is_used_is_never_called_unknown() -> None:
    async with Case(max_size=2) as case:
        kept = await case.pool.acquire('a')
        for _ in range(20):
            await case.cycle('a')
            await case.pool.drain('a')
        await case.release(kept)


async def test_connections_made_after_a_drain_become_idle_beside_drained_ones_in_use() -> None:
    async with Case() as case:
        old = await case.pool.acquire('a')
        await case.pool.drain('a')
        assert await case.cycle('a') == await case.cycle('a') == 'a2'
        await case.release(old)
        assert case.manager.living == ['a2']
        await case.pool.drain('a')
        await until(lambda: case.manager.living == [])


async def test_a_second_drain_takes_what_the_first_has_left() -> None:
    async with Case() as case:
        first = await case.pool.acquire('a')
        await case.pool.drain('a')
        second = await case.pool.acquire('a')
        await case.pool.drain('a')
        third = await case.pool.acquire('a')
        await case.release(first, second, third)
        assert case.manager.living == ['a3']
        assert case.stats['closed_drained'] == 2


async def test_a_connect_in_flight_is_drained_too() -> None:
    async with Case() as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        await case.pool.drain('a')
        assert await case.pool.get_endpoint_pool_size('a') == 1
        gate.open()
        await case.release(await job.result())
        assert case.manager.living == []
        assert case.stats['closed_drained'] == 1


async def test_a_connect_in_flight_that_fails_leaves_nothing_of_the_drain() -> None:
    async with Case() as case:
        gate = Gate(OSError('refused'))
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        await case.pool.drain()
        gate.open()
        with pytest.raises(OSError, match='refused'):
            await job.result()
        assert await case.cycle('a') == await case.cycle('a')


async def test_a_check_in_flight_is_drained_too() -> None:
    async with Case(CheckingManager()) as case:
        await case.cycle('a')
        gate = Gate()
        case.manager.script('check_aliveness', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        await case.pool.drain('a')
        gate.open()
        conn = await job.result()
        assert conn.name == 'a1'
        await case.release(conn)
        assert case.manager.living == []


async def test_waiters_keep_their_order_and_get_new_connections() -> None:
    async with Case(max_size=2) as case:
        out = await case.acquire('a', 2)
        served: list[str] = []

        async def use(name: str) -> Connection:
            conn: Connection = await case.pool.acquire('a')
            served.append(name)
            return conn

        jobs = []
        for number, name in enumerate(['first', 'second']):
            jobs.append(spawn(use, name))
            await case.waiting(number + 1)
        await case.pool.drain('a')
        assert case.stats['waiting'] == 2
        await case.release(out[0])
        assert (await jobs[0].result()).name == 'a3'
        assert served == ['first']
        await case.release(out[1])
        assert (await jobs[1].result()).name == 'a4'
        await case.release(*[await job.result() for job in jobs])
        assert case.manager.living == ['a3', 'a4']


async def test_idle_only_leaves_those_in_use_alone() -> None:
    async with Case() as case:
        conns = await case.acquire('a', 2)
        await case.release(conns[1])
        await case.pool.drain('a', idle_only=True)
        await until(lambda: case.manager.living == ['a1'])
        await case.release(conns[0])
        assert await case.cycle('a') == 'a1'
        await case.pool.drain(idle_only=True)
        await until(lambda: case.manager.living == [])


async def test_drain_does_not_wait_for_a_close_that_hangs() -> None:
    async with Case() as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        await case.release(*await case.acquire('a', 3))
        await case.pool.drain('a')
        await gate.reached()
        await until(lambda: len(case.manager.living) == 0)
        gate.open()


async def test_drain_of_a_closed_pool_does_nothing() -> None:
    async with Case() as case:
        await case.cycle('a')
        await case.pool.close()
        await case.pool.drain()
        await case.pool.drain('a')


async def test_wrong_arguments_of_drain_change_nothing() -> None:
    async with Case() as case:
        await case.cycle('a')
        with pytest.raises(TypeError, match='expected a hashable object'):
            await case.pool.drain([])
        with pytest.raises(TypeError, match='idle_only=1: expected a bool'):
            await case.pool.drain('a', idle_only=1)  # type: ignore[arg-type]
        assert await case.cycle('a') == 'a1'


# -- suspend and resume -----------------------------------------------------------------------------------------------


async def test_a_suspended_pool_serves_nobody_and_then_all_in_order() -> None:
    async with Case(HookedManager(), max_size=2) as case:
        out = await case.acquire('a', 2)
        await case.release(out[1])
        served: list[int] = []

        async def use(number: int) -> None:
            async with case.pool.connection('a'):
                served.append(number)

        case.pool.suspend()
        assert case.stats['suspended'] == 1
        assert 'suspended' in repr(case.pool)
        case.manager.take_calls()
        jobs = []
        for number in range(5):
            jobs.append(spawn(use, number))
            await case.waiting(number + 1)
        # Not handed over.
        await case.release(out[0])
        assert case.stats['idle'] == 2
        assert case.stats['waiting'] == 5
        assert case.manager.take_calls() == ['on_release a1']
        case.pool.resume()
        for job in jobs:
            await job.result()
        assert sorted(served) == [0, 1, 2, 3, 4]
        assert case.stats['suspended'] == 0
        assert case.stats['created'] == 2


async def test_those_who_wait_are_served_first_come_first_served_after_resume() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        served: list[int] = []

        async def use(number: int) -> None:
            async with case.pool.connection('a'):
                served.append(number)

        jobs = [spawn(use, 0)]
        await case.waiting(1)
        case.pool.suspend()
        for number in range(1, 5):
            jobs.append(spawn(use, number))
            await case.waiting(number + 1)
        await case.release(conn)
        assert served == []
        case.pool.resume()
        for job in jobs:
            await job.result()
        assert served == [0, 1, 2, 3, 4]


async def test_free_slots_are_given_after_resume_also_under_the_total_limit() -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        await case.cycle('a')
        case.pool.suspend()
        jobs = []
        for number, endpoint in enumerate('bc'):
            jobs.append(spawn(case.cycle, endpoint))
            await case.waiting(number + 1)
        # Nothing is closed for waiters that are not served.
        assert case.manager.living == ['a1']
        case.pool.resume()
        assert [await job.result() for job in jobs] == ['b1', 'c1']


async def test_the_time_limits_of_acquires_go_on_while_the_pool_is_suspended() -> None:
    async with Case() as case:
        case.pool.suspend()
        for timeout in (0, 0.01):
            message = rf"timed out after {timeout:g} s waiting for a connection to 'a': the pool is suspended"
            with pytest.raises(PoolTimeout, match=message) as caught:
                await case.pool.acquire('a', timeout=timeout)
            assert caught.value.phase == 'suspended'
        assert case.stats['waiting'] == case.stats['endpoints'] == 0
        case.pool.resume()
        assert await case.cycle('a') == 'a1'


async def test_suspended_to_fail_acquires_fail_at_once_and_those_that_wait_go_on_waiting() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        waiter = spawn(case.cycle, 'a')
        await case.waiting(1)
        case.pool.suspend(fail=True)
        for endpoint in 'ab':
            with pytest.raises(PoolSuspended, match=f'is suspended: no connection to {endpoint!r} can be'):
                await case.pool.acquire(endpoint)
        assert case.stats['waiting'] == 1
        await case.release(conn)
        assert not waiter.done
        case.pool.resume()
        assert await waiter.result() == 'a1'
        assert case.stats['timeouts'] == 0


async def test_an_acquire_that_found_its_connection_dead_goes_on_waiting_in_a_pool_suspended_to_fail() -> None:
    async with Case(CheckingManager()) as case:
        await case.cycle('a')
        gate = Gate(False)
        case.manager.script('check_aliveness', gate)
        job = spawn(case.cycle, 'a')
        await gate.reached()
        case.pool.suspend(fail=True)
        gate.open()
        await case.waiting(1)
        case.pool.resume()
        assert await job.result() == 'a2'


async def test_suspending_again_changes_only_whether_acquires_fail() -> None:
    async with Case() as case:
        case.pool.suspend(fail=True)
        case.pool.suspend()
        job = spawn(case.cycle, 'a')
        await case.waiting(1)
        case.pool.suspend(fail=True)
        with pytest.raises(PoolSuspended):
            await case.pool.acquire('a')
        case.pool.resume()
        assert await job.result() == 'a1'


async def test_resume_without_suspend_is_an_error() -> None:
    async with Case() as case:
        with pytest.raises(PoolNotSuspended, match=r'<.*> is not suspended: expected suspend\(\) before resume\(\)'):
            case.pool.resume()
        case.pool.suspend()
        case.pool.resume()
        with pytest.raises(PoolNotSuspended):
            case.pool.resume()


async def test_a_connect_that_has_begun_ends_in_a_suspended_pool() -> None:
    async with Case() as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.cycle, 'a')
        await gate.reached()
        case.pool.suspend()
        idle = spawn(case.pool.wait_idle)
        await until(lambda: case.pool._core.watched_endpoints == 1)
        gate.open()
        assert await job.result() == 'a1'
        await idle.result()
        case.pool.resume()


async def test_a_suspended_pool_that_is_closed_refuses_those_who_wait() -> None:
    async with Case() as case:
        await case.cycle('a')
        case.pool.suspend()
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        assert await case.pool.close() == 0
        with pytest.raises(ConnectionPoolClosedError, match='is closed'):
            await job.result()
        with pytest.raises(ConnectionPoolClosedError, match='is closed: expected an open pool to suspend'):
            case.pool.suspend()
        # So that what shuts down in the wrong order ends in order.
        case.pool.resume()
        with pytest.raises(ConnectionPoolClosedError, match='is closed'):
            await case.pool.acquire('a')


async def test_connections_whose_lifetime_ends_in_a_suspended_pool_are_not_served_after_it() -> None:
    async with Case(max_lifetime=10, idle_timeout=10) as case:
        await case.release(*await case.acquire('a', 2))
        case.pool.suspend()
        job = spawn(case.cycle, 'a')
        await case.waiting(1)
        case.clock.advance(10)
        case.pool.resume()
        assert await job.result() == 'a3'
        await until(lambda: case.manager.living == ['a3'])


async def test_a_failover_is_a_drain_in_a_suspended_pool() -> None:
    async with Case(max_size=2) as case:
        old = await case.acquire('a', 2)
        await case.release(old[1])
        case.pool.suspend()
        job = spawn(case.cycle, 'a')
        await case.waiting(1)
        await case.pool.drain('a')
        idle = spawn(case.pool.wait_idle)
        await until(lambda: case.pool._core.watched_endpoints == 1)
        assert not idle.done
        await case.release(old[0])
        await idle.result()
        case.pool.resume()
        assert await job.result() == 'a3'


@pytest.mark.parametrize('fail', [1, None, 'yes'])
async def test_wrong_arguments_do_not_suspend_the_pool(fail: Any) -> None:
    async with Case() as case:
        with pytest.raises(TypeError, match=r'fail=.*: expected a bool'):
            case.pool.suspend(fail=fail)
        assert await case.cycle('a') == 'a1'


# -- wait_idle --------------------------------------------------------------------------------------------------------


async def test_wait_idle_returns_at_once_if_nothing_is_in_use() -> None:
    async with Case() as case:
        await case.pool.wait_idle()
        await case.cycle('a')
        await case.pool.wait_idle(timeout=0)


async def test_wait_idle_waits_for_every_endpoint_and_all_who_wait_are_told() -> None:
    async with Case() as case:
        conns = [await case.pool.acquire(endpoint) for endpoint in 'abca']
        jobs = [spawn(case.pool.wait_idle) for _ in range(3)]
        await until(lambda: case.pool._core.use_watchers == 3)
        for conn in conns[:-1]:
            await case.release(conn)
        with pytest.raises(PoolTimeout, match='1 connections were still in use after 0 s'):
            await case.pool.wait_idle(timeout=0)
        assert not any(job.done for job in jobs)
        await case.release(conns[-1])
        for job in jobs:
            await job.result()
        assert case.pool._core.watched_endpoints == 0


async def test_wait_idle_that_times_out_leaves_nothing_behind() -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        for timeout in (0, 0.01):
            with pytest.raises(PoolTimeout, match=f'1 connections were still in use after {timeout:g} s'):
                await case.pool.wait_idle(timeout=timeout)
        assert case.pool._core.watched_endpoints == 0
        await case.release(conn)


@pytest.mark.parametrize('outcome', ['broken', 'dead', 'refused'])
async def test_wait_idle_learns_of_every_end_of_a_use(outcome: str) -> None:
    async with Case(CheckingManager()) as case:
        gate = Gate(OSError() if outcome == 'refused' else False if outcome == 'dead' else None)
        if outcome == 'refused':
            case.manager.script('create', gate)
            user = spawn(case.pool.acquire, 'a')
        else:
            await case.cycle('a')
            case.manager.script('check_aliveness', gate)
            case.manager.script('create', OSError())
            user = spawn(case.pool.acquire, 'a')
        await gate.reached()
        job = spawn(case.pool.wait_idle)
        await until(lambda: case.pool._core.watched_endpoints == 1)
        gate.open()
        if outcome == 'broken':
            conn = await user.result()
            entry = case.pool._core.entry_if_acquired(conn, 'a')
            assert entry is not None
            entry.break_()
            await case.release(conn)
        else:
            with pytest.raises(OSError):
                await user.result()
        await job.result()


async def test_wrong_arguments_of_wait_idle_are_refused() -> None:
    async with Case() as case:
        with pytest.raises(TypeError, match="timeout='soon'"):
            await case.pool.wait_idle(timeout='soon')  # type: ignore[arg-type]
        with pytest.raises(ValueError, match='timeout=-1'):
            await case.pool.wait_idle(timeout=-1)


# -- connections of the pool's own ------------------------------------------------------------------------------------


async def test_what_is_drained_is_replaced_up_to_the_minimum() -> None:
    async with Case(max_size=3) as case:
        case.pool.warm_up('a', 2)
        await case.pool.wait()
        conn = await case.pool.acquire('a')
        await case.pool.drain('a')
        await until(lambda: case.stats['created'] == 3)
        await case.release(conn)
        await until(lambda: case.manager.living == ['a3', 'a4'])


async def test_nothing_is_created_for_a_minimum_while_the_pool_is_suspended() -> None:
    async with Case() as case:
        case.pool.suspend()
        case.pool.warm_up('a', 2)
        await case.pool.wait_idle()
        assert case.manager.calls == []
        case.pool.resume()
        await case.pool.wait()
        assert case.manager.living == ['a1', 'a2']


async def test_nothing_is_created_for_a_minimum_before_the_pool_is_open() -> None:
    async with Case(open=False) as case:
        case.pool.warm_up('a', 2)
        await case.pool.wait_idle()
        assert case.manager.calls == []
        await case.pool.open()
        await case.pool.wait()
        assert case.manager.living == ['a1', 'a2']


async def test_a_connect_of_the_pool_s_own_is_drained_too_and_no_use_to_wait_for() -> None:
    async with Case() as case:
        gate = Gate()
        case.manager.script('create', gate)
        case.pool.warm_up('a', 1)
        await case.pool.wait_idle()
        await gate.reached()
        await case.pool.wait_idle()
        await case.pool.drain('a')
        gate.open()
        await until(lambda: case.manager.living == ['a2'])
        assert case.stats['closed_drained'] == 1
        assert case.pool._core.watched_endpoints == 0


async def test_a_connect_in_the_background_ends_idle_in_a_suspended_pool_and_serves_its_waiter_later() -> None:
    async with Case(create_in_background=True) as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.cycle, 'a')
        await gate.reached()
        case.pool.suspend()
        gate.open()
        await until(lambda: case.stats['idle'] == 1)
        assert case.stats['waiting'] == 1
        case.pool.resume()
        assert await job.result() == 'a1'
