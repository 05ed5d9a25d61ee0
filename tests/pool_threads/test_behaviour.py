# Generated from tests/pool/test_behaviour.py by .github/scripts/generate_threading.py; do not edit.

"""What programs rely on: which connection is served, which is kept, and which is disposed of, and when."""

import gc
import math
import weakref

import pytest

from gcpool.exceptions import PoolTimeout
from gcpool.threading import ConnectionPool
from tests.pool_threads.support import Case, CheckingManager, ForgetfulManager, Gate, HookedManager, Manager
from tests.support import Clock, Endpoint
from tests.threads.runtime import spawn, until

# ---- core and extra connections -----------------------------------------------------------------------------------


def test_a_connection_is_created_where_none_is_idle_and_served_again_after_its_release() -> None:
    with Case() as case:
        first = case.pool.acquire('a')
        second = case.pool.acquire('a')
        assert first is not second
        case.pool.release(first, 'a')
        assert case.pool.acquire('a') is first
        case.release(first, second)
        assert case.manager.calls == ['create a', 'create a']


def test_core_connections_are_served_in_turn() -> None:
    with Case(min_idle=3) as case:
        a1, a2, a3 = case.acquire('a', 3)
        case.release(a2, a1, a3)
        assert [case.cycle('a') for _ in range(7)] == ['a2', 'a1', 'a3', 'a2', 'a1', 'a3', 'a2']


def test_extra_connections_are_served_last_in_first_out() -> None:
    with Case(min_idle=0) as case:
        a1, a2, a3 = case.acquire('a', 3)
        case.release(a2, a1, a3)
        assert [conn.name for conn in case.acquire('a', 3)] == ['a3', 'a1', 'a2']
        case.release(a1, a2, a3)


def test_core_connections_are_served_before_extra_ones() -> None:
    with Case(min_idle=1) as case:
        a1, a2, a3 = case.acquire('a', 3)
        # When the last one is released, none is in use: it is core.
        case.release(a3, a2, a1)
        assert [conn.name for conn in case.acquire('a', 3)] == ['a1', 'a2', 'a3']
        case.release(a1, a2, a3)


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
def test_a_released_connection_is_extra_if_those_still_out_fill_what_the_core_has_free(
    min_idle: int, out: int, extra: list[str]
) -> None:
    with Case(min_idle=min_idle, max_size=5, idle_timeout=60, dispose_batch_size=100) as case:
        case.release(*case.acquire('a', out))
        # The release of another connection disposes of the extra ones, and of nothing else.
        case.clock.advance(60)
        b1 = case.pool.acquire('b')
        case.manager.take_calls()
        case.release(b1)
        disposed = [call.removeprefix('dispose ') for call in case.manager.take_calls()]
        assert sorted(set(disposed) - {'b1'}) == extra


def test_idle_core_connections_count_for_what_the_core_has_free() -> None:
    with Case(min_idle=2, idle_timeout=60) as case:
        a1, a2, a3 = case.acquire('a', 3)
        case.release(a1)  # 2 in use fill both places: extra
        case.release(a2)  # 1 in use leaves one of two: core
        case.release(a3)  # none in use, one place left: core
        assert [conn.name for conn in case.acquire('a', 3)] == ['a2', 'a3', 'a1']
        case.release(a1, a2, a3)


def test_an_extra_connection_is_disposed_of_after_idle_timeout_unused() -> None:
    with Case(min_idle=0, idle_timeout=60) as case:
        case.cycle('a')
        case.clock.advance(59)
        case.cycle('b')
        assert case.manager.take_calls() == ['create a', 'create b']
        case.clock.advance(1)
        case.cycle('b')
        assert case.manager.take_calls() == ['dispose a1']


def test_use_puts_the_end_of_an_extra_connection_off() -> None:
    with Case(min_idle=0, idle_timeout=60) as case:
        for _ in range(5):
            case.cycle('a')
            case.clock.advance(59)
        assert case.manager.calls == ['create a']
        case.clock.advance(1)
        case.cycle('b')
        assert case.manager.calls == ['create a', 'create b', 'dispose a1']


def test_idle_timeout_counts_from_the_release_not_from_the_acquire() -> None:
    with Case(min_idle=0, idle_timeout=60) as case:
        conn = case.pool.acquire('a')
        case.clock.advance(1000)
        case.release(conn)
        case.clock.advance(59)
        assert case.cycle('a') == 'a1'
        assert case.manager.calls == ['create a']


def test_a_core_connection_outlives_idle_timeout_and_is_disposed_of_at_max_lifetime() -> None:
    with Case(min_idle=1, idle_timeout=60, max_lifetime=3600) as case:
        case.cycle('a')
        case.clock.advance(3599)
        case.cycle('b')
        assert case.manager.take_calls() == ['create a', 'create b']
        case.clock.advance(1)
        case.cycle('b')
        assert case.manager.take_calls() == ['dispose a1']


def test_max_lifetime_counts_from_the_creation_and_use_does_not_put_it_off() -> None:
    with Case(min_idle=0, idle_timeout=60, max_lifetime=100) as case:
        for _ in range(3):
            case.cycle('a')
            case.clock.advance(33)
        case.clock.advance(1)
        case.cycle('b')
        assert case.manager.calls == ['create a', 'create b', 'dispose a1']


def test_a_lifetime_reached_while_the_connection_is_out_takes_effect_at_its_release() -> None:
    with Case(min_idle=1, max_lifetime=3600) as case:
        conn = case.pool.acquire('a')
        case.clock.advance(5000)
        case.cycle('b')
        assert case.manager.take_calls() == ['create a', 'create b']
        case.release(conn)
        assert case.manager.take_calls() == ['dispose a1']
        assert case.pool.get_size() == 1


def test_an_idle_connection_whose_lifetime_is_over_is_not_served() -> None:
    with Case(min_idle=1, max_lifetime=3600, max_size=1) as case:
        case.cycle('a')
        case.clock.advance(3600)
        assert case.cycle('a') == 'a2'
        assert case.manager.calls == ['create a', 'dispose a1', 'create a']


def test_nothing_is_due_with_infinite_times() -> None:
    with Case(min_idle=0, idle_timeout=math.inf, max_lifetime=math.inf) as case:
        case.release(*case.acquire('a', 3))
        case.clock.advance(1e12)
        case.release(*case.acquire('a', 3))
        assert case.manager.calls == ['create a'] * 3


# ---- releases that dispose ----------------------------------------------------------------------------------------


def test_without_idle_time_and_core_a_released_connection_is_gone_when_release_returns() -> None:
    with Case(idle_timeout=0, min_idle=0) as case:
        a1, a2, a3 = case.acquire('a', 3)
        (b1,) = case.acquire('b', 1)
        case.manager.take_calls()
        for size, conn in ((3, a2), (2, b1), (1, a3), (0, a1)):
            case.release(conn)
            assert case.manager.take_calls() == [f'dispose {conn.name}']
            assert case.pool.get_size() == size


def test_without_a_lifetime_each_connection_is_gone_when_its_release_returns() -> None:
    with Case(idle_timeout=0, max_lifetime=0) as case:
        for seconds in [0, 1e-6] * 10:
            conn = case.pool.acquire('a')
            case.clock.advance(seconds)
            case.release(conn)
            assert case.pool.get_size() == 0


def test_what_is_due_at_the_same_time_is_disposed_of_in_the_order_of_release() -> None:
    with Case(HookedManager(), idle_timeout=0, min_idle=0, dispose_batch_size=10) as case:
        a1, a2, a3, a4 = case.acquire('a', 4)
        # A hook that raises keeps its release from disposing, so that expired connections accumulate.
        case.manager.script('on_release', ValueError(), ValueError(), ValueError())
        for conn in (a3, a1, a4):
            with pytest.raises(ValueError):
                case.release(conn)
        case.manager.take_calls()
        case.release(a2)
        assert case.manager.take_calls() == ['on_release a2', 'dispose a3', 'dispose a1', 'dispose a4', 'dispose a2']


@pytest.mark.parametrize('batch', [1, 2, 5])
def test_a_release_disposes_of_at_most_dispose_batch_size(batch: int) -> None:
    with Case(min_idle=0, idle_timeout=60, dispose_batch_size=batch, max_size=20) as case:
        case.release(*case.acquire('a', 12))
        busy = case.pool.acquire('b')
        case.clock.advance(60)
        left = 12
        while left:
            case.release(busy)
            left = max(left - batch, 0)
            assert case.pool.get_endpoint_pool_size('a') == left
            assert case.pool.acquire('b') is busy
        case.release(busy)


@pytest.mark.parametrize('size', [1, 2, 3, 6, 7, 8, 14, 15, 16, 31, 63, 100])
def test_by_default_a_release_disposes_of_the_logarithm_of_the_size_and_one(size: int) -> None:
    with Case(min_idle=0, idle_timeout=60, max_size=100) as case:
        conns = case.acquire('a', size)
        case.release(*conns[1:])
        case.clock.advance(60)
        case.manager.take_calls()
        case.release(conns[0])
        assert len(case.manager.take_calls()) == min(int(math.log2(size + 1)) + 1, size - 1)


def test_due_connections_of_all_endpoints_go_first_due_first() -> None:
    with Case(min_idle=0, idle_timeout=60, dispose_batch_size=10) as case:
        for endpoint in 'cab':
            case.cycle(endpoint)
            case.clock.advance(1)
        case.clock.advance(100)
        case.manager.take_calls()
        case.cycle('d')
        assert case.manager.take_calls() == ['create d', 'dispose c1', 'dispose a1', 'dispose b1']


# ---- the two limits -----------------------------------------------------------------------------------------------


def test_at_max_size_an_acquire_waits_for_a_release() -> None:
    with Case(max_size=2) as case:
        a1, a2 = case.acquire('a', 2)
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.release(a2)
        assert job.result() is a2
        case.release(a1, a2)
        assert case.manager.calls == ['create a', 'create a']


def test_max_size_is_that_of_each_endpoint() -> None:
    with Case(max_size=1) as case:
        conns = [case.pool.acquire(endpoint, timeout=0) for endpoint in 'abc']
        case.release(*conns)
        assert case.pool.get_size() == 3


@pytest.mark.parametrize('order', ['abc', 'bca', 'cba'])
def test_at_the_total_limit_the_idle_connection_unused_for_longest_is_closed(order: str) -> None:
    with Case(min_idle=0, idle_timeout=60, max_size=1, total_max_size=3) as case:
        for endpoint in order:
            case.cycle(endpoint)
            case.clock.advance(1)
        case.manager.take_calls()
        d1 = case.pool.acquire('d')
        assert case.manager.take_calls() == [f'dispose {order[0]}1', 'create d']
        e1 = case.pool.acquire('e')
        assert case.manager.take_calls() == [f'dispose {order[1]}1', 'create e']
        case.release(d1, e1)


def test_a_core_connection_used_again_is_not_the_one_that_is_closed() -> None:
    with Case(min_idle=1, idle_timeout=60, max_lifetime=100, max_size=2, total_max_size=2) as case:
        case.cycle('busy')  # until 1100
        case.clock.advance(30)
        case.cycle('core')  # until 1130
        case.clock.advance(1)
        case.cycle('busy')
        case.manager.take_calls()
        conn = case.pool.acquire('new')
        assert case.manager.take_calls() == ['dispose core1', 'create new']
        case.release(conn)


def test_a_core_connection_goes_before_an_extra_one_that_was_used_later() -> None:
    with Case(min_idle=1, idle_timeout=60, max_lifetime=100, max_size=2, total_max_size=3) as case:
        case.cycle('core')  # until 1100
        case.clock.advance(50)
        x1, x2 = case.acquire('x', 2)
        case.release(x1)  # extra: until 1110
        case.manager.take_calls()
        conn = case.pool.acquire('new')
        assert case.manager.take_calls() == ['dispose core1', 'create new']
        case.release(x2, conn)


def test_an_extra_connection_goes_before_a_core_one_that_was_used_later() -> None:
    with Case(min_idle=1, idle_timeout=60, max_lifetime=100, max_size=2, total_max_size=3) as case:
        x1, x2 = case.acquire('x', 2)
        case.release(x1)  # extra: until 1060
        case.cycle('core')  # until 1100
        case.manager.take_calls()
        conn = case.pool.acquire('new')
        assert case.manager.take_calls() == ['dispose x1', 'create new']
        case.release(x2, conn)


def test_use_changes_which_idle_connection_goes_first() -> None:
    with Case(min_idle=0, idle_timeout=60, total_max_size=2, max_size=1) as case:
        case.cycle('a')
        case.clock.advance(1)
        case.cycle('b')
        case.clock.advance(1)
        case.cycle('a')
        case.manager.take_calls()
        case.cycle('c')
        assert case.manager.take_calls() == ['dispose b1', 'create c']


def test_at_the_total_limit_the_endpoint_s_own_idle_connection_is_served_and_nothing_closed() -> None:
    with Case(max_size=1, total_max_size=2) as case:
        case.cycle('a')
        case.cycle('b')
        assert case.cycle('b') == 'b1'
        assert case.cycle('a') == 'a1'
        assert case.manager.calls == ['create a', 'create b']


def test_with_all_connections_out_at_the_total_limit_an_acquire_waits() -> None:
    with Case(max_size=1, total_max_size=2) as case:
        a1, b1 = case.pool.acquire('a'), case.pool.acquire('b')
        assert case.pool.is_full
        job = spawn(case.pool.acquire, 'c')
        case.waiting(1)
        case.release(a1)
        c1 = job.result()
        assert case.manager.calls == ['create a', 'create b', 'dispose a1', 'create c']
        case.release(b1, c1)


def test_one_who_waits_at_max_size_has_no_idle_connection_of_another_endpoint_closed() -> None:
    with Case(max_size=1, total_max_size=2) as case:
        a1 = case.pool.acquire('a')
        case.cycle('b')
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.release(a1)
        assert job.result() is a1
        case.release(a1)
        assert case.manager.calls == ['create a', 'create b']


@pytest.mark.parametrize('given_back', ['a', 'b'])
def test_one_who_waits_at_the_total_limit_takes_what_comes_back_first(given_back: str) -> None:
    with Case(max_size=2, total_max_size=2) as case:
        out = {endpoint: case.pool.acquire(endpoint) for endpoint in 'ab'}
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.manager.take_calls()
        case.release(out.pop(given_back))
        served = job.result()
        assert case.manager.calls == ([] if given_back == 'a' else ['dispose b1', 'create a'])
        case.release(served, *out.values())


def test_those_who_need_a_slot_at_the_same_time_have_one_idle_connection_closed_each() -> None:
    with Case(min_idle=3, max_size=3, total_max_size=3) as case:
        case.release(*case.acquire('a', 3))
        gates = [Gate(), Gate()]
        case.manager.script('dispose', *gates)
        jobs = []
        for gate, endpoint in zip(gates, 'bc', strict=True):
            jobs.append(spawn(case.pool.acquire, endpoint))
            gate.reached()
        assert case.cycle('a') == 'a3'
        for gate in gates:
            gate.open()
        assert sorted([(job.result()).name for job in jobs]) == ['b1', 'c1']
        assert sorted(case.manager.living) == ['a3', 'b1', 'c1']
        case.release(*case.manager.connections[3:])


def test_a_slot_counts_until_its_dispose_has_ended() -> None:
    with Case(idle_timeout=0, min_idle=0, max_size=1) as case:
        gate = Gate()
        case.manager.script('dispose', gate)
        a1 = case.pool.acquire('a')
        release = spawn(case.pool.release, a1, 'a')
        gate.reached()
        assert case.pool.get_size() == 1
        acquire = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        assert case.manager.calls == ['create a', 'dispose a1']
        gate.open()
        release.result()
        a2 = acquire.result()
        assert case.manager.take_calls() == ['create a', 'dispose a1', 'create a']
        case.release(a2)


# ---- time limits --------------------------------------------------------------------------------------------------


def test_a_time_limit_of_zero_does_not_wait() -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a', timeout=0)
        with pytest.raises(PoolTimeout):
            case.pool.acquire('a', timeout=0)
        case.release(conn)
        assert case.pool.acquire('a', timeout=0) is conn
        case.release(conn)


@pytest.mark.parametrize('timeout', [0, 0.01])
def test_a_time_limit_reached_is_a_timeout_error_and_takes_the_waiter_out(timeout: float) -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        with pytest.raises(TimeoutError) as caught:
            case.pool.acquire('a', timeout=timeout)
        assert type(caught.value) is PoolTimeout
        assert case.stats['waiting'] == 0
        assert case.stats['timeouts'] == 1
        case.release(conn)
        assert case.stats['idle'] == 1


def test_acquire_timeout_is_the_limit_of_those_that_say_nothing() -> None:
    with Case(max_size=1, acquire_timeout=0.01) as case:
        conn = case.pool.acquire('a')
        with pytest.raises(TimeoutError, match=r'after 0\.01 s'):
            case.pool.acquire('a')
        with pytest.raises(TimeoutError, match=r'after 0\.01 s'):
            case.pool.acquire('a', timeout=None)
        with pytest.raises(TimeoutError, match=r'after 0\.02 s'):
            case.pool.acquire('a', timeout=0.02)
        context = case.pool.connection('a')
        with pytest.raises(TimeoutError, match=r'after 0\.01 s'):
            context.__enter__()
        case.release(conn)


@pytest.mark.parametrize('timeout', [None, math.inf, 1e300])
def test_without_a_time_limit_an_acquire_waits_for_as_long_as_it_takes(timeout: float | None) -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a', timeout=timeout)
        case.waiting(1)
        case.clock.advance(1e9)
        case.release(conn)
        conn = job.result()
        case.release(conn)


def test_the_message_of_a_timeout_says_what_was_waited_for() -> None:
    with Case(name='orders', max_size=1, total_max_size=3) as case:
        conn = case.pool.acquire('a')
        expected = (
            "pool 'orders': timed out after 0 s waiting for a connection to 'a': "
            'max_size=1 reached (1 in use, 0 waiting)'
        )
        with pytest.raises(PoolTimeout) as caught:
            case.pool.acquire('a', timeout=0)
        assert str(caught.value) == expected
        case.release(conn)


# ---- first come, first served -------------------------------------------------------------------------------------


def test_waiters_are_served_in_the_order_of_their_arrival() -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        jobs = []
        for number in range(10):
            jobs.append(spawn(case.pool.acquire, 'a'))
            case.waiting(number + 1)
        for job in jobs:
            assert not any(job.done for job in jobs)
            case.release(conn)
            assert job.result() is conn
            jobs = jobs[1:]
        case.release(conn)


def test_a_releaser_cannot_overtake_a_waiter() -> None:
    with Case(max_size=1) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.release(conn)
        with pytest.raises(PoolTimeout):
            case.pool.acquire('a', timeout=0)
        case.release(job.result())


def test_slots_that_become_free_under_the_total_limit_go_to_the_longest_waiting_endpoint_first() -> None:
    with Case(max_size=1, total_max_size=2, min_idle=0, idle_timeout=0) as case:
        held = [case.pool.acquire('x'), case.pool.acquire('y')]
        jobs = []
        for number, endpoint in enumerate('cab'):
            jobs.append(spawn(case.pool.acquire, endpoint))
            case.waiting(number + 1)
        for conn in held:
            case.release(conn)
        c1, a1 = jobs[0].result(), jobs[1].result()
        assert [c1.name, a1.name] == ['c1', 'a1']
        assert case.stats['waiting'] == 1
        case.release(a1)
        case.release(c1, jobs[2].result())


# ---- hooks --------------------------------------------------------------------------------------------------------


def test_the_manager_is_called_in_this_order() -> None:
    with Case(HookedManager(), min_idle=0, idle_timeout=60) as case:
        case.cycle('a')
        assert case.manager.take_calls() == ['create a', 'on_acquire a1', 'on_release a1']
        case.cycle('a')
        assert case.manager.take_calls() == ['check_aliveness a1', 'on_acquire a1', 'on_release a1']
        case.clock.advance(60)
        case.cycle('b')
        assert case.manager.take_calls() == ['create b', 'on_acquire b1', 'on_release b1', 'dispose a1']


def test_a_connection_handed_over_to_one_who_waits_is_checked_like_an_idle_one() -> None:
    with Case(HookedManager(), max_size=1) as case:
        conn = case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        case.manager.take_calls()
        case.release(conn)
        assert job.result() is conn
        assert case.manager.take_calls() == ['on_release a1', 'check_aliveness a1', 'on_acquire a1']
        case.release(conn)


@pytest.mark.parametrize('manager_class', [Manager, CheckingManager, HookedManager])
def test_a_manager_with_any_of_the_hooks_pools_the_same_way(manager_class: type[Manager]) -> None:
    with Case(manager_class(), min_idle=1) as case:
        for _ in range(3):
            with case.pool.connection('a') as first, case.pool.connection('a') as second:
                assert first is not second
        assert [call for call in case.manager.calls if call.startswith('create')] == ['create a', 'create a']


def test_a_connection_out_is_neither_served_nor_disposed_of() -> None:
    with Case(min_idle=0, idle_timeout=0, max_lifetime=1) as case:
        held = case.pool.acquire('a')
        case.clock.advance(100)
        for _ in range(5):
            assert case.cycle('a') != held.name
        assert held.disposals == 0
        case.release(held)


# ---- sizes --------------------------------------------------------------------------------------------------------


def test_sizes_count_all_or_those_out_or_the_idle_ones() -> None:
    with Case() as case:
        a1, a2, a3 = case.acquire('a', 3)
        (b1,) = case.acquire('b', 1)
        case.release(a2)
        assert case.pool.get_size() == 4
        assert case.pool.get_endpoint_pool_size('a') == 3
        assert case.pool.get_endpoint_pool_size('a', acquired=None) == 3
        assert case.pool.get_endpoint_pool_size('a', acquired=True) == 2
        assert case.pool.get_endpoint_pool_size('a', acquired=False) == 1
        assert case.pool.get_endpoint_pool_size('b', True) == 1
        assert case.pool.get_endpoint_pool_size('b', False) == 0
        case.release(a1, a3, b1)


def test_an_unknown_endpoint_has_size_zero_and_is_not_made_known_by_asking() -> None:
    with Case() as case:
        for acquired in (None, True, False):
            assert case.pool.get_endpoint_pool_size('a', acquired) == 0
        assert case.stats['endpoints'] == 0


def test_a_connection_that_is_being_created_counts() -> None:
    with Case(max_size=1) as case:
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        gate.reached()
        assert case.pool.get_size() == case.pool.get_endpoint_pool_size('a') == 1
        assert case.pool.get_endpoint_pool_size('a', True) == 0
        assert case.pool.get_endpoint_pool_size('a', False) == 0
        with pytest.raises(PoolTimeout):
            case.pool.acquire('a', timeout=0)
        gate.open()
        case.release(job.result())


def test_is_full_tells_whether_the_total_limit_is_reached() -> None:
    with Case(max_size=1, total_max_size=2, min_idle=0, idle_timeout=0) as case:
        full = [case.pool.is_full]
        a1 = case.pool.acquire('a')
        full.append(case.pool.is_full)
        b1 = case.pool.acquire('b')
        full.append(case.pool.is_full)
        case.release(a1)
        full.append(case.pool.is_full)
        case.release(b1)
        assert full == [False, False, True, False]


def test_the_statistics_count_what_happened() -> None:
    with Case(CheckingManager(), max_size=2) as case:
        a1, a2 = case.acquire('a', 2)
        job = spawn(case.pool.acquire, 'a')
        case.waiting(1)
        assert case.stats['waiting'] == 1
        case.release(a1)
        assert job.result() is a1
        with pytest.raises(PoolTimeout):
            case.pool.acquire('a', timeout=0)
        case.manager.script('create', OSError())
        with pytest.raises(OSError):
            case.pool.acquire('b')
        case.release(a1, a2)
        case.manager.script('check_aliveness', False)
        case.cycle('a')
        until(lambda: case.stats['disposed'] == 1)
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


def test_equal_endpoints_are_one_endpoint() -> None:
    with Case() as case:
        conn = case.pool.acquire(Endpoint('a'))
        case.pool.release(conn, Endpoint('a'))
        assert case.pool.acquire(Endpoint('a')) is conn
        assert case.pool.get_endpoint_pool_size(Endpoint('a'), True) == 1
        case.pool.release(conn, Endpoint('a'))


def test_endpoints_with_the_same_hash_are_different_endpoints() -> None:
    class Colliding(Endpoint):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Colliding) and other.name == self.name

        def __hash__(self) -> int:
            return 1

    with Case() as case:
        conns = [case.pool.acquire(Colliding(name)) for name in 'abcdefgh']
        for conn, name in zip(conns, 'abcdefgh', strict=True):
            case.pool.release(conn, Colliding(name))
        for conn, name in zip(conns, 'abcdefgh', strict=True):
            assert case.pool.acquire(Colliding(name)) is conn
        case.release(*conns)


@pytest.mark.parametrize('endpoint', ['a', ('host', 80), 1, None, frozenset({1}), b'a', 1.5], ids=repr)
def test_an_endpoint_is_any_hashable(endpoint: object) -> None:
    with Case() as case:
        with case.pool.connection(endpoint) as conn:
            assert conn.endpoint == endpoint
        assert case.pool.get_endpoint_pool_size(endpoint) == 1


@pytest.mark.parametrize('how', ['due', 'evicted', 'dead', 'lifetime', 'create fails', 'times out', 'closed'])
def test_an_endpoint_with_no_connection_left_is_forgotten(how: str) -> None:
    clock = Clock()
    manager = ForgetfulManager()
    pool = ConnectionPool(manager, min_idle=0, idle_timeout=60, max_size=1, total_max_size=1, _clock=clock)
    endpoint = Endpoint('a')
    gone = weakref.ref(endpoint)
    other = Endpoint('other')
    if how == 'create fails':
        manager.creates = False
        with pytest.raises(OSError, match='no'):
            pool.acquire(endpoint)
    elif how == 'times out':
        conn = pool.acquire(other)
        with pytest.raises(PoolTimeout):
            pool.acquire(endpoint, timeout=0)
        pool.release(conn, other)
    else:
        conn = pool.acquire(endpoint)
        clock.advance(1e6 if how == 'lifetime' else 1)
        pool.release(conn, endpoint)
        if how == 'dead':
            manager.finds_alive = manager.creates = False
            with pytest.raises(OSError, match='no'):
                pool.acquire(endpoint)
        elif how == 'due':
            clock.advance(60)
        elif how == 'closed':
            assert pool.close() == 0
        if how in {'due', 'evicted'}:
            with pool.connection(other):
                assert pool.get_endpoint_pool_size(endpoint) == 0
    assert pool.get_endpoint_pool_size(endpoint) == 0
    assert pool.get_stats()['endpoints'] == (how in {'due', 'evicted', 'times out'})
    del endpoint
    gc.collect()
    assert gone() is None
    assert pool.close() == 0


def test_a_thousand_endpoints_leave_nothing_behind() -> None:
    with Case(min_idle=0, idle_timeout=0) as case:
        for number in range(1000):
            case.cycle(number)
        assert case.stats['endpoints'] == 0
        assert case.pool.get_size() == 0
