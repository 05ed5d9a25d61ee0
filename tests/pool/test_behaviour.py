"""What programs rely on: which connection is served, which is kept, and which is disposed of, and when."""

import gc
import math
import weakref

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import PoolTimeout
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, ForgetfulManager, Gate, HookedManager, Manager
from tests.support import Clock, Endpoint

# ---- core and extra connections -----------------------------------------------------------------------------------


async def test_a_connection_is_created_where_none_is_idle_and_served_again_after_its_release() -> None:
    async with Case() as case:
        first = await case.pool.acquire('a')
        second = await case.pool.acquire('a')
        assert first is not second
        await case.pool.release(first, 'a')
        assert await case.pool.acquire('a') is first
        await case.release(first, second)
        assert case.manager.calls == ['create a', 'create a']


async def test_core_connections_are_served_in_turn() -> None:
    async with Case(min_idle=3) as case:
        a1, a2, a3 = await case.acquire('a', 3)
        await case.release(a2, a1, a3)
        assert [await case.cycle('a') for _ in range(7)] == ['a2', 'a1', 'a3', 'a2', 'a1', 'a3', 'a2']


async def test_extra_connections_are_served_last_in_first_out() -> None:
    async with Case(min_idle=0) as case:
        a1, a2, a3 = await case.acquire('a', 3)
        await case.release(a2, a1, a3)
        assert [conn.name for conn in await case.acquire('a', 3)] == ['a3', 'a1', 'a2']
        await case.release(a1, a2, a3)


async def test_core_connections_are_served_before_extra_ones() -> None:
    async with Case(min_idle=1) as case:
        a1, a2, a3 = await case.acquire('a', 3)
        # When the last one is released, none is in use: it is core.
        await case.release(a3, a2, a1)
        assert [conn.name for conn in await case.acquire('a', 3)] == ['a1', 'a2', 'a3']
        await case.release(a1, a2, a3)


@pytest.mark.parametrize(
    ('min_idle', 'out', 'extra'),
    [
        (0, 1, ['a1']),
        (0, 3, ['a1', 'a2', 'a3']),
        (1, 1, []),
        (1, 2, ['a1']),
        (1, 4, ['a1', 'a2', 'a3']),
        (2, 2, []),
        (2, 3, ['a1']),
        (3, 5, ['a1', 'a2']),
        (5, 5, []),
    ],
)
async def test_a_released_connection_is_extra_if_those_still_out_fill_what_the_core_has_free(
    min_idle: int, out: int, extra: list[str]
) -> None:
    async with Case(min_idle=min_idle, max_size=5, idle_timeout=60, dispose_batch_size=100) as case:
        await case.release(*await case.acquire('a', out))
        # The release of another connection disposes of the extra ones, and of nothing else.
        case.clock.advance(60)
        b1 = await case.pool.acquire('b')
        case.manager.take_calls()
        await case.release(b1)
        disposed = [call.removeprefix('dispose ') for call in case.manager.take_calls()]
        assert sorted(set(disposed) - {'b1'}) == extra


async def test_idle_core_connections_count_for_what_the_core_has_free() -> None:
    async with Case(min_idle=2, idle_timeout=60) as case:
        a1, a2, a3 = await case.acquire('a', 3)
        await case.release(a1)  # 2 in use fill both places: extra
        await case.release(a2)  # 1 in use leaves one of two: core
        await case.release(a3)  # none in use, one place left: core
        assert [conn.name for conn in await case.acquire('a', 3)] == ['a2', 'a3', 'a1']
        await case.release(a1, a2, a3)


async def test_an_extra_connection_is_disposed_of_after_idle_timeout_unused() -> None:
    async with Case(min_idle=0, idle_timeout=60) as case:
        await case.cycle('a')
        case.clock.advance(59)
        await case.cycle('b')
        assert case.manager.take_calls() == ['create a', 'create b']
        case.clock.advance(1)
        await case.cycle('b')
        assert case.manager.take_calls() == ['dispose a1']


async def test_use_puts_the_end_of_an_extra_connection_off() -> None:
    async with Case(min_idle=0, idle_timeout=60) as case:
        for _ in range(5):
            await case.cycle('a')
            case.clock.advance(59)
        assert case.manager.calls == ['create a']
        case.clock.advance(1)
        await case.cycle('b')
        assert case.manager.calls == ['create a', 'create b', 'dispose a1']


async def test_idle_timeout_counts_from_the_release_not_from_the_acquire() -> None:
    async with Case(min_idle=0, idle_timeout=60) as case:
        conn = await case.pool.acquire('a')
        case.clock.advance(1000)
        await case.release(conn)
        case.clock.advance(59)
        assert await case.cycle('a') == 'a1'
        assert case.manager.calls == ['create a']


async def test_a_core_connection_outlives_idle_timeout_and_is_disposed_of_at_max_lifetime() -> None:
    async with Case(min_idle=1, idle_timeout=60, max_lifetime=3600) as case:
        await case.cycle('a')
        case.clock.advance(3599)
        await case.cycle('b')
        assert case.manager.take_calls() == ['create a', 'create b']
        case.clock.advance(1)
        await case.cycle('b')
        assert case.manager.take_calls() == ['dispose a1']


async def test_max_lifetime_counts_from_the_creation_and_use_does_not_put_it_off() -> None:
    async with Case(min_idle=0, idle_timeout=60, max_lifetime=100) as case:
        for _ in range(3):
            await case.cycle('a')
            case.clock.advance(33)
        case.clock.advance(1)
        await case.cycle('b')
        assert case.manager.calls == ['create a', 'create b', 'dispose a1']


async def test_a_lifetime_reached_while_the_connection_is_out_takes_effect_at_its_release() -> None:
    async with Case(min_idle=1, max_lifetime=3600) as case:
        conn = await case.pool.acquire('a')
        case.clock.advance(5000)
        await case.cycle('b')
        assert case.manager.take_calls() == ['create a', 'create b']
        await case.release(conn)
        assert case.manager.take_calls() == ['dispose a1']
        assert case.pool.get_size() == 1


async def test_an_idle_connection_whose_lifetime_is_over_is_not_served() -> None:
    async with Case(min_idle=1, max_lifetime=3600, max_size=1) as case:
        await case.cycle('a')
        case.clock.advance(3600)
        assert await case.cycle('a') == 'a2'
        assert case.manager.calls == ['create a', 'dispose a1', 'create a']


async def test_nothing_is_due_with_infinite_times() -> None:
    async with Case(min_idle=0, idle_timeout=math.inf, max_lifetime=math.inf) as case:
        await case.release(*await case.acquire('a', 3))
        case.clock.advance(1e12)
        await case.release(*await case.acquire('a', 3))
        assert case.manager.calls == ['create a'] * 3


# ---- releases that dispose ----------------------------------------------------------------------------------------


async def test_without_idle_time_and_core_a_released_connection_is_gone_when_release_returns() -> None:
    async with Case(idle_timeout=0, min_idle=0) as case:
        a1, a2, a3 = await case.acquire('a', 3)
        (b1,) = await case.acquire('b', 1)
        case.manager.take_calls()
        for size, conn in ((3, a2), (2, b1), (1, a3), (0, a1)):
            await case.release(conn)
            assert case.manager.take_calls() == [f'dispose {conn.name}']
            assert case.pool.get_size() == size


async def test_without_a_lifetime_each_connection_is_gone_when_its_release_returns() -> None:
    async with Case(idle_timeout=0, max_lifetime=0) as case:
        for seconds in [0, 1e-6] * 10:
            conn = await case.pool.acquire('a')
            case.clock.advance(seconds)
            await case.release(conn)
            assert case.pool.get_size() == 0


async def test_what_is_due_at_the_same_time_is_disposed_of_in_the_order_of_release() -> None:
    async with Case(HookedManager(), idle_timeout=0, min_idle=0, dispose_batch_size=10) as case:
        a1, a2, a3, a4 = await case.acquire('a', 4)
        # A hook that raises keeps its release from disposing, so that expired connections accumulate.
        case.manager.script('on_release', ValueError(), ValueError(), ValueError())
        for conn in (a3, a1, a4):
            with pytest.raises(ValueError):
                await case.release(conn)
        case.manager.take_calls()
        await case.release(a2)
        assert case.manager.take_calls() == ['on_release a2', 'dispose a3', 'dispose a1', 'dispose a4', 'dispose a2']


@pytest.mark.parametrize('batch', [1, 2, 5])
async def test_a_release_disposes_of_at_most_dispose_batch_size(batch: int) -> None:
    async with Case(min_idle=0, idle_timeout=60, dispose_batch_size=batch, max_size=20) as case:
        await case.release(*await case.acquire('a', 12))
        busy = await case.pool.acquire('b')
        case.clock.advance(60)
        left = 12
        while left:
            await case.release(busy)
            left = max(left - batch, 0)
            assert await case.pool.get_endpoint_pool_size('a') == left
            assert await case.pool.acquire('b') is busy
        await case.release(busy)


@pytest.mark.parametrize('size', [1, 2, 3, 6, 7, 8, 14, 15, 16, 31, 63, 100])
async def test_by_default_a_release_disposes_of_the_logarithm_of_the_size_and_one(size: int) -> None:
    async with Case(min_idle=0, idle_timeout=60, max_size=100) as case:
        conns = await case.acquire('a', size)
        await case.release(*conns[1:])
        case.clock.advance(60)
        case.manager.take_calls()
        await case.release(conns[0])
        assert len(case.manager.take_calls()) == min(int(math.log2(size + 1)) + 1, size - 1)


async def test_due_connections_of_all_endpoints_go_first_due_first() -> None:
    async with Case(min_idle=0, idle_timeout=60, dispose_batch_size=10) as case:
        for endpoint in 'cab':
            await case.cycle(endpoint)
            case.clock.advance(1)
        case.clock.advance(100)
        case.manager.take_calls()
        await case.cycle('d')
        assert case.manager.take_calls() == ['create d', 'dispose c1', 'dispose a1', 'dispose b1']


# ---- the two limits -----------------------------------------------------------------------------------------------


async def test_at_max_size_an_acquire_waits_for_a_release() -> None:
    async with Case(max_size=2) as case:
        a1, a2 = await case.acquire('a', 2)
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        await case.release(a2)
        assert await job.result() is a2
        await case.release(a1, a2)
        assert case.manager.calls == ['create a', 'create a']


async def test_max_size_is_that_of_each_endpoint() -> None:
    async with Case(max_size=1) as case:
        conns = [await case.pool.acquire(endpoint, timeout=0) for endpoint in 'abc']
        await case.release(*conns)
        assert case.pool.get_size() == 3


@pytest.mark.parametrize('order', ['abc', 'bca', 'cba'])
async def test_at_the_total_limit_the_idle_connection_unused_for_longest_is_closed(order: str) -> None:
    async with Case(min_idle=0, idle_timeout=60, max_size=1, total_max_size=3) as case:
        for endpoint in order:
            await case.cycle(endpoint)
            case.clock.advance(1)
        case.manager.take_calls()
        d1 = await case.pool.acquire('d')
        assert case.manager.take_calls() == [f'dispose {order[0]}1', 'create d']
        e1 = await case.pool.acquire('e')
        assert case.manager.take_calls() == [f'dispose {order[1]}1', 'create e']
        await case.release(d1, e1)


async def test_a_core_connection_used_again_is_not_the_one_that_is_closed() -> None:
    async with Case(min_idle=1, idle_timeout=60, max_lifetime=100, max_size=2, total_max_size=2) as case:
        await case.cycle('busy')  # until 1100
        case.clock.advance(30)
        await case.cycle('core')  # until 1130
        case.clock.advance(1)
        await case.cycle('busy')
        case.manager.take_calls()
        conn = await case.pool.acquire('new')
        assert case.manager.take_calls() == ['dispose core1', 'create new']
        await case.release(conn)


async def test_a_core_connection_goes_before_an_extra_one_that_was_used_later() -> None:
    async with Case(min_idle=1, idle_timeout=60, max_lifetime=100, max_size=2, total_max_size=3) as case:
        await case.cycle('core')  # until 1100
        case.clock.advance(50)
        x1, x2 = await case.acquire('x', 2)
        await case.release(x1)  # extra: until 1110
        case.manager.take_calls()
        conn = await case.pool.acquire('new')
        assert case.manager.take_calls() == ['dispose core1', 'create new']
        await case.release(x2, conn)


async def test_an_extra_connection_goes_before_a_core_one_that_was_used_later() -> None:
    async with Case(min_idle=1, idle_timeout=60, max_lifetime=100, max_size=2, total_max_size=3) as case:
        x1, x2 = await case.acquire('x', 2)
        await case.release(x1)  # extra: until 1060
        await case.cycle('core')  # until 1100
        case.manager.take_calls()
        conn = await case.pool.acquire('new')
        assert case.manager.take_calls() == ['dispose x1', 'create new']
        await case.release(x2, conn)


async def test_use_changes_which_idle_connection_goes_first() -> None:
    async with Case(min_idle=0, idle_timeout=60, total_max_size=2, max_size=1) as case:
        await case.cycle('a')
        case.clock.advance(1)
        await case.cycle('b')
        case.clock.advance(1)
        await case.cycle('a')
        case.manager.take_calls()
        await case.cycle('c')
        assert case.manager.take_calls() == ['dispose b1', 'create c']


async def test_at_the_total_limit_the_endpoint_s_own_idle_connection_is_served_and_nothing_closed() -> None:
    async with Case(max_size=1, total_max_size=2) as case:
        await case.cycle('a')
        await case.cycle('b')
        assert await case.cycle('b') == 'b1'
        assert await case.cycle('a') == 'a1'
        assert case.manager.calls == ['create a', 'create b']


async def test_with_all_connections_out_at_the_total_limit_an_acquire_waits() -> None:
    async with Case(max_size=1, total_max_size=2) as case:
        a1, b1 = await case.pool.acquire('a'), await case.pool.acquire('b')
        assert case.pool.is_full
        job = spawn(case.pool.acquire, 'c')
        await case.waiting(1)
        await case.release(a1)
        c1 = await job.result()
        assert case.manager.calls == ['create a', 'create b', 'dispose a1', 'create c']
        await case.release(b1, c1)


async def test_one_who_waits_at_max_size_has_no_idle_connection_of_another_endpoint_closed() -> None:
    async with Case(max_size=1, total_max_size=2) as case:
        a1 = await case.pool.acquire('a')
        await case.cycle('b')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        await case.release(a1)
        assert await job.result() is a1
        await case.release(a1)
        assert case.manager.calls == ['create a', 'create b']


@pytest.mark.parametrize('given_back', ['a', 'b'])
async def test_one_who_waits_at_the_total_limit_takes_what_comes_back_first(given_back: str) -> None:
    async with Case(max_size=2, total_max_size=2) as case:
        out = {endpoint: await case.pool.acquire(endpoint) for endpoint in 'ab'}
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        case.manager.take_calls()
        await case.release(out.pop(given_back))
        served = await job.result()
        assert case.manager.calls == ([] if given_back == 'a' else ['dispose b1', 'create a'])
        await case.release(served, *out.values())


async def test_those_who_need_a_slot_at_the_same_time_have_one_idle_connection_closed_each() -> None:
    async with Case(min_idle=3, max_size=3, total_max_size=3) as case:
        await case.release(*await case.acquire('a', 3))
        gates = [Gate(), Gate()]
        case.manager.script('dispose', *gates)
        jobs = []
        for gate, endpoint in zip(gates, 'bc', strict=True):
            jobs.append(spawn(case.pool.acquire, endpoint))
            await gate.reached()
        assert await case.cycle('a') == 'a3'
        for gate in gates:
            gate.open()
        assert sorted([(await job.result()).name for job in jobs]) == ['b1', 'c1']
        assert sorted(case.manager.living) == ['a3', 'b1', 'c1']
        await case.release(*case.manager.connections[3:])


async def test_a_slot_counts_until_its_dispose_has_ended() -> None:
    async with Case(idle_timeout=0, min_idle=0, max_size=1) as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        a1 = await case.pool.acquire('a')
        release = spawn(case.pool.release, a1, 'a')
        await gate.reached()
        assert case.pool.get_size() == 1
        acquire = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        assert case.manager.calls == ['create a', 'dispose a1']
        gate.open()
        await release.result()
        a2 = await acquire.result()
        assert case.manager.take_calls() == ['create a', 'dispose a1', 'create a']
        await case.release(a2)


# ---- time limits --------------------------------------------------------------------------------------------------


async def test_a_time_limit_of_zero_does_not_wait() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a', timeout=0)
        with pytest.raises(PoolTimeout):
            await case.pool.acquire('a', timeout=0)
        await case.release(conn)
        assert await case.pool.acquire('a', timeout=0) is conn
        await case.release(conn)


@pytest.mark.parametrize('timeout', [0, 0.01])
async def test_a_time_limit_reached_is_a_timeout_error_and_takes_the_waiter_out(timeout: float) -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        with pytest.raises(TimeoutError) as caught:
            await case.pool.acquire('a', timeout=timeout)
        assert type(caught.value) is PoolTimeout
        assert case.stats['waiting'] == 0
        assert case.stats['timeouts'] == 1
        await case.release(conn)
        assert case.stats['idle'] == 1


async def test_acquire_timeout_is_the_limit_of_those_that_say_nothing() -> None:
    async with Case(max_size=1, acquire_timeout=0.01) as case:
        conn = await case.pool.acquire('a')
        with pytest.raises(TimeoutError, match=r'after 0\.01 s'):
            await case.pool.acquire('a')
        with pytest.raises(TimeoutError, match=r'after 0\.01 s'):
            await case.pool.acquire('a', timeout=None)
        with pytest.raises(TimeoutError, match=r'after 0\.02 s'):
            await case.pool.acquire('a', timeout=0.02)
        context = case.pool.connection('a')
        with pytest.raises(TimeoutError, match=r'after 0\.01 s'):
            await context.__aenter__()
        await case.release(conn)


@pytest.mark.parametrize('timeout', [None, math.inf, 1e300])
async def test_without_a_time_limit_an_acquire_waits_for_as_long_as_it_takes(timeout: float | None) -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a', timeout=timeout)
        await case.waiting(1)
        case.clock.advance(1e9)
        await case.release(conn)
        conn = await job.result()
        await case.release(conn)


async def test_the_message_of_a_timeout_says_what_was_waited_for() -> None:
    async with Case(name='orders', max_size=1, total_max_size=3) as case:
        conn = await case.pool.acquire('a')
        expected = (
            "pool 'orders': timed out after 0 s waiting for a connection to 'a': "
            'max_size=1 reached (1 in use, 0 waiting)'
        )
        with pytest.raises(PoolTimeout) as caught:
            await case.pool.acquire('a', timeout=0)
        assert str(caught.value) == expected
        await case.release(conn)


# ---- first come, first served -------------------------------------------------------------------------------------


async def test_waiters_are_served_in_the_order_of_their_arrival() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        jobs = []
        for number in range(10):
            jobs.append(spawn(case.pool.acquire, 'a'))
            await case.waiting(number + 1)
        for job in jobs:
            assert not any(job.done for job in jobs)
            await case.release(conn)
            assert await job.result() is conn
            jobs = jobs[1:]
        await case.release(conn)


async def test_a_releaser_cannot_overtake_a_waiter() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        await case.release(conn)
        with pytest.raises(PoolTimeout):
            await case.pool.acquire('a', timeout=0)
        await case.release(await job.result())


async def test_slots_that_become_free_under_the_total_limit_go_to_the_longest_waiting_endpoint_first() -> None:
    async with Case(max_size=1, total_max_size=2, min_idle=0, idle_timeout=0) as case:
        held = [await case.pool.acquire('x'), await case.pool.acquire('y')]
        jobs = []
        for number, endpoint in enumerate('cab'):
            jobs.append(spawn(case.pool.acquire, endpoint))
            await case.waiting(number + 1)
        for conn in held:
            await case.release(conn)
        c1, a1 = await jobs[0].result(), await jobs[1].result()
        assert [c1.name, a1.name] == ['c1', 'a1']
        assert case.stats['waiting'] == 1
        await case.release(a1)
        await case.release(c1, await jobs[2].result())


# ---- hooks --------------------------------------------------------------------------------------------------------


async def test_the_manager_is_called_in_this_order() -> None:
    async with Case(HookedManager(), min_idle=0, idle_timeout=60) as case:
        await case.cycle('a')
        assert case.manager.take_calls() == ['create a', 'on_acquire a1', 'on_release a1']
        await case.cycle('a')
        assert case.manager.take_calls() == ['check_aliveness a1', 'on_acquire a1', 'on_release a1']
        case.clock.advance(60)
        await case.cycle('b')
        assert case.manager.take_calls() == ['create b', 'on_acquire b1', 'on_release b1', 'dispose a1']


async def test_a_connection_handed_over_to_one_who_waits_is_checked_like_an_idle_one() -> None:
    async with Case(HookedManager(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        case.manager.take_calls()
        await case.release(conn)
        assert await job.result() is conn
        assert case.manager.take_calls() == ['on_release a1', 'check_aliveness a1', 'on_acquire a1']
        await case.release(conn)


@pytest.mark.parametrize('manager_class', [Manager, CheckingManager, HookedManager])
async def test_a_manager_with_any_of_the_hooks_pools_the_same_way(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), min_idle=1) as case:
        for _ in range(3):
            async with case.pool.connection('a') as first, case.pool.connection('a') as second:
                assert first is not second
        assert [call for call in case.manager.calls if call.startswith('create')] == ['create a', 'create a']


async def test_a_connection_out_is_neither_served_nor_disposed_of() -> None:
    async with Case(min_idle=0, idle_timeout=0, max_lifetime=1) as case:
        held = await case.pool.acquire('a')
        case.clock.advance(100)
        for _ in range(5):
            assert await case.cycle('a') != held.name
        assert held.disposals == 0
        await case.release(held)


# ---- sizes --------------------------------------------------------------------------------------------------------


async def test_sizes_count_all_or_those_out_or_the_idle_ones() -> None:
    async with Case() as case:
        a1, a2, a3 = await case.acquire('a', 3)
        (b1,) = await case.acquire('b', 1)
        await case.release(a2)
        assert case.pool.get_size() == 4
        assert await case.pool.get_endpoint_pool_size('a') == 3
        assert await case.pool.get_endpoint_pool_size('a', acquired=None) == 3
        assert await case.pool.get_endpoint_pool_size('a', acquired=True) == 2
        assert await case.pool.get_endpoint_pool_size('a', acquired=False) == 1
        assert await case.pool.get_endpoint_pool_size('b', True) == 1
        assert await case.pool.get_endpoint_pool_size('b', False) == 0
        await case.release(a1, a3, b1)


async def test_an_unknown_endpoint_has_size_zero_and_is_not_made_known_by_asking() -> None:
    async with Case() as case:
        for acquired in (None, True, False):
            assert await case.pool.get_endpoint_pool_size('a', acquired) == 0
        assert case.stats['endpoints'] == 0


async def test_a_connection_that_is_being_created_counts() -> None:
    async with Case(max_size=1) as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        assert case.pool.get_size() == await case.pool.get_endpoint_pool_size('a') == 1
        assert await case.pool.get_endpoint_pool_size('a', True) == 0
        assert await case.pool.get_endpoint_pool_size('a', False) == 0
        with pytest.raises(PoolTimeout):
            await case.pool.acquire('a', timeout=0)
        gate.open()
        await case.release(await job.result())


async def test_is_full_tells_whether_the_total_limit_is_reached() -> None:
    async with Case(max_size=1, total_max_size=2, min_idle=0, idle_timeout=0) as case:
        full = [case.pool.is_full]
        a1 = await case.pool.acquire('a')
        full.append(case.pool.is_full)
        b1 = await case.pool.acquire('b')
        full.append(case.pool.is_full)
        await case.release(a1)
        full.append(case.pool.is_full)
        await case.release(b1)
        assert full == [False, False, True, False]


async def test_the_statistics_count_what_happened() -> None:
    async with Case(CheckingManager(), max_size=2) as case:
        a1, a2 = await case.acquire('a', 2)
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        assert case.stats['waiting'] == 1
        await case.release(a1)
        assert await job.result() is a1
        with pytest.raises(PoolTimeout):
            await case.pool.acquire('a', timeout=0)
        case.manager.script('create', OSError())
        with pytest.raises(OSError):
            await case.pool.acquire('b')
        await case.release(a1, a2)
        case.manager.script('check_aliveness', False)
        await case.cycle('a')
        await until(lambda: case.stats['disposed'] == 1)
        assert {name: count for name, count in case.stats.items() if count and not name.endswith('_ns')} == {
            'size': 1,
            'idle': 1,
            'endpoints': 1,
            'min_idle': 1,
            'max_size': 2,
            'total_max_size': 100,
            'asked': 6,
            'acquires': 4,
            'created': 2,
            'create_errors': 1,
            'checks': 3,
            'checks_failed': 1,
            'dead': 1,
            'disposed': 1,
            'closed_dead': 1,
            'waits': 2,
            'timeouts': 1,
        }


# ---- endpoints ----------------------------------------------------------------------------------------------------


async def test_equal_endpoints_are_one_endpoint() -> None:
    async with Case() as case:
        conn = await case.pool.acquire(Endpoint('a'))
        await case.pool.release(conn, Endpoint('a'))
        assert await case.pool.acquire(Endpoint('a')) is conn
        assert await case.pool.get_endpoint_pool_size(Endpoint('a'), True) == 1
        await case.pool.release(conn, Endpoint('a'))


async def test_endpoints_with_the_same_hash_are_different_endpoints() -> None:
    class Colliding(Endpoint):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Colliding) and other.name == self.name

        def __hash__(self) -> int:
            return 1

    async with Case() as case:
        conns = [await case.pool.acquire(Colliding(name)) for name in 'abcdefgh']
        for conn, name in zip(conns, 'abcdefgh', strict=True):
            await case.pool.release(conn, Colliding(name))
        for conn, name in zip(conns, 'abcdefgh', strict=True):
            assert await case.pool.acquire(Colliding(name)) is conn
        await case.release(*conns)


@pytest.mark.parametrize('endpoint', ['a', ('host', 80), 1, None, frozenset({1}), b'a', 1.5], ids=repr)
async def test_an_endpoint_is_any_hashable(endpoint: object) -> None:
    async with Case() as case:
        async with case.pool.connection(endpoint) as conn:
            assert conn.endpoint == endpoint
        assert await case.pool.get_endpoint_pool_size(endpoint) == 1


@pytest.mark.parametrize('how', ['due', 'evicted', 'dead', 'lifetime', 'create fails', 'times out', 'closed'])
async def test_an_endpoint_with_no_connection_left_is_forgotten(how: str) -> None:
    clock = Clock()
    manager = ForgetfulManager()
    pool = ConnectionPool(manager, min_idle=0, idle_timeout=60, max_size=1, total_max_size=1, _clock=clock)
    endpoint = Endpoint('a')
    gone = weakref.ref(endpoint)
    other = Endpoint('other')
    if how == 'create fails':
        manager.creates = False
        with pytest.raises(OSError, match='no'):
            await pool.acquire(endpoint)
    elif how == 'times out':
        conn = await pool.acquire(other)
        with pytest.raises(PoolTimeout):
            await pool.acquire(endpoint, timeout=0)
        await pool.release(conn, other)
    else:
        conn = await pool.acquire(endpoint)
        clock.advance(1e6 if how == 'lifetime' else 1)
        await pool.release(conn, endpoint)
        if how == 'dead':
            manager.finds_alive = manager.creates = False
            with pytest.raises(OSError, match='no'):
                await pool.acquire(endpoint)
        elif how == 'due':
            clock.advance(60)
        elif how == 'closed':
            assert await pool.close() == 0
        if how in {'due', 'evicted'}:
            async with pool.connection(other):
                assert await pool.get_endpoint_pool_size(endpoint) == 0
    assert await pool.get_endpoint_pool_size(endpoint) == 0
    assert pool.get_stats()['endpoints'] == (how in {'due', 'evicted', 'times out'})
    del endpoint
    gc.collect()
    assert gone() is None
    assert await pool.close() == 0


async def test_a_thousand_endpoints_leave_nothing_behind() -> None:
    async with Case(min_idle=0, idle_timeout=0) as case:
        for number in range(1000):
            await case.cycle(number)
        assert case.stats['endpoints'] == 0
        assert case.pool.get_size() == 0
