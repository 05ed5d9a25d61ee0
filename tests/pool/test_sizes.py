"""How many connections there are, which are kept and served first, how many acquires wait; resize()."""

import contextlib
import math
import pickle
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import BaseError, ConnectionPoolClosedError, TooManyRequests
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Gate, HookedManager, Manager
from tests.support import Connection

# ---- limits that adapt --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'max_size': 200}, (1, 200, 200)),
        ({'max_size': 20}, (1, 20, 100)),
        ({'total_max_size': 5}, (1, 5, 5)),
        ({'total_max_size': 1}, (1, 1, 1)),
        ({'min_idle': 20}, (20, 20, 100)),
        ({'min_idle': 150}, (150, 150, 150)),
        ({'min_idle': 20, 'total_max_size': 30}, (20, 20, 30)),
        ({'min_idle': 5, 'total_max_size': 8}, (5, 8, 8)),
        ({'min_idle': 0, 'max_size': 1}, (0, 1, 100)),
    ],
)
def test_a_limit_that_is_not_given_adapts_to_those_that_are(
    options: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    pool = ConnectionPool(Manager(), **options)
    assert (pool.min_idle, pool.max_size, pool.total_max_size) == expected


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'max_lifetime': 30}, (30.0, 30.0)),
        ({'max_lifetime': 90}, (60.0, 90.0)),
        ({'max_lifetime': 0}, (0.0, 0.0)),
        ({'max_lifetime': math.inf}, (60.0, math.inf)),
        ({'idle_timeout': 90}, (90.0, 3600.0)),
    ],
)
def test_an_idle_timeout_that_is_not_given_is_at_most_max_lifetime(
    options: dict[str, Any], expected: tuple[float, float]
) -> None:
    pool = ConnectionPool(Manager(), **options)
    assert (pool.idle_timeout, pool.max_lifetime) == expected


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'max_size': 200, 'total_max_size': 100}, 'max_size=200 is greater than total_max_size=100'),
        ({'min_idle': 1, 'max_size': 10, 'total_max_size': 9}, 'max_size=10 is greater than total_max_size=9'),
        ({'min_idle': 10, 'max_size': 9}, 'min_idle=10 is greater than max_size=9'),
        ({'min_idle': 10, 'total_max_size': 9}, 'min_idle=10 is greater than total_max_size=9'),
        ({'min_size': 5, 'total_max_size': 3}, 'min_size=5 is greater than total_max_size=3'),
        ({'idle_timeout': 60, 'max_lifetime': 30}, 'idle_timeout=60.0 is greater than max_lifetime=30.0'),
    ],
)
def test_limits_that_are_given_and_contradict_each_other_stay_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f'^{message}: expected at most that$'):
        ConnectionPool(Manager(), **options)


# ---- resize() -----------------------------------------------------------------------------------------------------


async def test_growth_serves_those_who_wait_at_once() -> None:
    async with Case(max_size=1, total_max_size=2) as case:
        held = await case.acquire('a', 1) + await case.acquire('b', 1)
        jobs = [spawn(case.pool.acquire, 'a') for _ in range(3)]
        await case.waiting(3)
        await case.pool.resize(max_size=2)
        assert case.stats['waiting'] == 3, 'total_max_size is reached'
        await case.pool.resize(max_size=3, total_max_size=4)
        await until(lambda: sum(job.done for job in jobs) == 2)
        await case.release(held[0])
        conns = [await job.result() for job in jobs]
        assert sorted(conn.name for conn in conns) == ['a1', 'a2', 'a3']
        await case.release(held[1], *conns)
        assert (case.pool.max_size, case.pool.total_max_size) == (3, 4)


async def test_surplus_idle_connections_are_closed_when_resize_returns_and_those_in_use_on_their_return() -> None:
    async with Case(min_idle=0, max_size=6) as case:
        conns = await case.acquire('a', 6)
        await case.release(*conns[:3])
        case.manager.take_calls()
        await case.pool.resize(max_size=2)
        assert sorted(case.manager.take_calls()) == ['dispose a1', 'dispose a2', 'dispose a3']
        await case.release(conns[3])
        assert case.manager.take_calls() == ['dispose a4']
        await case.release(*conns[4:])
        assert case.manager.take_calls() == []
        assert case.pool.get_size() == 2
        await case.pool.resize(max_size=6)


async def test_a_pool_that_is_made_smaller_and_larger_never_has_more_than_its_limit() -> None:
    """resize(4, 4) from 2 to 4 made six connections in psycopg_pool."""
    async with Case(min_idle=2, max_size=4) as case:
        held = await case.acquire('a', 4)
        await case.pool.resize(max_size=2)
        jobs = [spawn(case.pool.acquire, 'a') for _ in range(4)]
        await case.waiting(4)
        await case.release(held.pop(), held.pop())
        assert (case.pool.get_size(), case.stats['waiting']) == (2, 4), 'nobody gets the slots that were too many'
        await case.pool.resize(min_idle=4, max_size=4)
        await until(lambda: sum(job.done for job in jobs) == 2)
        assert case.pool.get_size() == 4
        await case.release(*held)
        conns = [await job.result() for job in jobs]
        await case.release(*conns)
        assert (case.manager.peak['a'], case.pool.get_size()) == (4, 4)


async def test_resize_does_not_overshoot_while_connects_are_under_way() -> None:
    """In psycopg_pool, resize(4, 4) from 2 to 4 made six connections when two were being created."""
    async with Case(min_size=2, max_size=4, max_connecting=4, create_in_background=True) as case:
        held = await case.acquire('a', 2)
        gates = [Gate(), Gate()]
        case.manager.script('create', *gates)
        jobs = [spawn(case.pool.acquire, 'a') for _ in range(2)]
        for gate in gates:
            await gate.reached()
        await case.pool.resize(min_size=4, max_size=4)
        assert case.pool.get_size() == 4
        await case.release(*held)
        for gate in gates:
            gate.open()
        await case.release(*[await job.result() for job in jobs])
        await until(lambda: case.stats['creating'] == 0)
        assert (case.manager.peak['a'], case.stats['created'], case.pool.get_size()) == (4, 4, 4)


@pytest.mark.parametrize(
    ('changes', 'error', 'message'),
    [
        ({'max_size': 2}, ValueError, 'min_idle=3 is greater than max_size=2: expected at most that'),
        ({'min_idle': 5, 'max_waiting': 7}, ValueError, 'min_idle=5 is greater than max_size=4: expected at most that'),
        (
            {'min_idle': 1, 'max_size': 9},
            ValueError,
            'max_size=9 is greater than total_max_size=8: expected at most that',
        ),
        ({'total_max_size': 3}, ValueError, 'max_size=4 is greater than total_max_size=3: expected at most that'),
        ({'max_size': 0}, ValueError, 'max_size=0: expected 1 or more, and at most 2147483647'),
        ({'max_size': 5, 'max_waiting': -1}, ValueError, 'max_waiting=-1: expected 0 or more, and at most 2147483647'),
        ({'max_size': '5'}, TypeError, "max_size='5': expected a number of connections as an int, got str"),
        ({'max_waiting': True}, TypeError, 'max_waiting=True: expected a number of acquires as an int, got bool'),
    ],
)
async def test_limits_that_are_refused_change_nothing(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    async with Case(min_idle=3, max_size=4, total_max_size=8, max_waiting=2) as case:
        conns = await case.acquire('a', 4)
        await case.release(*conns)
        case.manager.take_calls()
        with pytest.raises(error) as caught:
            await case.pool.resize(**changes)
        assert (type(caught.value), str(caught.value)) == (error, message)
        limits = case.pool.min_idle, case.pool.max_size, case.pool.total_max_size, case.pool.max_waiting
        assert limits == (3, 4, 8, 2)
        assert (case.manager.take_calls(), case.stats['idle']) == ([], 4)


async def test_limits_are_passed_to_resize_by_name() -> None:
    async with Case() as case:
        resize: Any = case.pool.resize
        with pytest.raises(TypeError):
            await resize(3)
        with pytest.raises(TypeError, match='idle_timeout'):
            await resize(idle_timeout=3)
        await resize()
        assert case.pool.max_size == 10


async def test_a_limit_that_was_never_given_goes_on_adapting() -> None:
    async with Case(max_size=5) as case:
        await case.pool.resize(max_size=300)
        assert case.pool.total_max_size == 300
        await case.pool.resize(max_size=20)
        assert case.pool.total_max_size == 100
        await case.pool.resize(total_max_size=50)
        with pytest.raises(ValueError, match='max_size=60 is greater than total_max_size=50'):
            await case.pool.resize(max_size=60)


async def test_a_lower_min_idle_lets_idle_connections_expire_and_a_higher_one_keeps_them() -> None:
    async with Case(min_idle=3, idle_timeout=60, max_lifetime=3600) as case:
        await case.release(*await case.acquire('a', 5))
        await case.pool.resize(min_idle=4)
        case.clock.advance(100)
        await case.cycle('b')
        assert case.pool.get_size() == 5
        await case.pool.resize(min_idle=1)
        await case.cycle('b')
        assert case.pool.get_size() == 2


async def test_a_closed_pool_cannot_be_resized() -> None:
    pool = ConnectionPool(Manager())
    await pool.close()
    with pytest.raises(ConnectionPoolClosedError, match='can no longer be changed'):
        await pool.resize(max_size=5)
    assert pool.max_size == 10


async def test_a_pool_without_its_init_cannot_be_resized() -> None:
    pool: ConnectionPool[str, Connection] = ConnectionPool.__new__(ConnectionPool)
    with pytest.raises(RuntimeError, match=r'ConnectionPool.__init__\(\) was not called'):
        await pool.resize(max_size=5)


async def test_many_resizes_at_once_leave_the_limits_of_one_of_them_each() -> None:
    async with Case(min_idle=0, max_size=5, total_max_size=50) as case:
        jobs = [spawn(case.pool.resize, max_size=size) for size in (3, 7, 9)]
        jobs += [spawn(case.pool.resize, max_waiting=count) for count in (4, 5)]
        for job in jobs:
            await job.result()
        assert case.pool.max_size in {3, 7, 9}
        assert case.pool.max_waiting in {4, 5}


async def test_a_dispose_that_fails_does_not_keep_the_limits_from_changing() -> None:
    async with Case(min_idle=0) as case:
        await case.release(*await case.acquire('a', 3))
        case.manager.script('dispose', OSError('no'))
        await case.pool.resize(max_size=1)
        assert (case.pool.get_size(), case.pool.max_size) == (1, 1)
        await case.pool.resize(max_size=10)


class ResizingManager(HookedManager):
    """Resizes the pool from within its methods."""

    case: Case

    async def on_release(self, endpoint: Any, conn: Connection) -> None:
        await super().on_release(endpoint, conn)
        await self.case.pool.resize(max_size=2)

    async def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        with contextlib.suppress(ConnectionPoolClosedError):
            await self.case.pool.resize(max_size=1)
        await super().dispose(endpoint, conn, timeout)


async def test_the_manager_s_methods_may_resize_the_pool() -> None:
    manager = ResizingManager()
    async with Case(manager, min_idle=0, max_size=4) as case:
        manager.case = case
        conns = await case.acquire('a', 4)
        await case.release(*conns)
        assert (case.pool.get_size(), case.pool.max_size) == (2, 2)
        manager.peak.clear()
        manager.total_peak = 0


# ---- order and keep -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('order', 'expected'), [('lifo', ['a3'] * 4), ('fifo', ['a1', 'a2', 'a3', 'a1'])])
async def test_extra_connections_are_served_in_the_order_that_was_chosen(order: str, expected: list[str]) -> None:
    async with Case(min_idle=0, order=order) as case:
        await case.release(*await case.acquire('a', 3))
        assert [await case.cycle('a') for _ in range(4)] == expected
        assert case.pool.order == order


@pytest.mark.parametrize(('keep', 'left'), [('size', 1), ('idle', 2)])
async def test_with_keep_idle_connections_in_use_do_not_make_up_the_minimum(keep: str, left: int) -> None:
    async with Case(min_idle=2, idle_timeout=0, keep=keep) as case:
        held, *conns = await case.acquire('a', 4)
        await case.release(*conns)
        await case.cycle('b')
        assert await case.pool.get_endpoint_pool_size('a', acquired=False) == left
        await case.release(held)
        assert case.pool.keep == keep


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'order': 'random'}, ValueError, "order='random': expected 'lifo' or 'fifo'"),
        ({'order': None}, TypeError, "order=None: expected 'lifo' or 'fifo', got NoneType"),
        ({'keep': 'all'}, ValueError, "keep='all': expected 'size' or 'idle'"),
        ({'keep': True}, TypeError, "keep=True: expected 'size' or 'idle', got bool"),
    ],
)
def test_an_unknown_order_is_refused_by_name(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        ConnectionPool(Manager(), **options)
    assert (type(caught.value), str(caught.value)) == (error, message)


# ---- max_waiting --------------------------------------------------------------------------------------------------


async def test_the_one_too_many_is_told_at_once_and_the_others_are_served() -> None:
    async with Case(max_size=1, max_waiting=2) as case:
        conn = await case.pool.acquire('a')
        jobs = [spawn(case.pool.acquire, 'a') for _ in range(2)]
        await case.waiting(2)
        with pytest.raises(TooManyRequests) as caught:
            await case.pool.acquire('a')
        assert str(caught.value) == (
            f"too many acquires wait for a connection to 'a' of {case.pool.name!r}: max_waiting=2 reached"
        )
        assert (caught.value.endpoint, caught.value.limit, caught.value.pool) == ('a', 2, case.pool.name)
        assert isinstance(caught.value, BaseError)
        context = case.pool.connection('a')
        with pytest.raises(TooManyRequests):
            await context.__aenter__()
        await case.release(await case.pool.acquire('b'))
        assert (case.stats['too_many'], case.stats['waits'], case.stats['timeouts']) == (2, 2, 0)
        for job in jobs:
            await case.release(conn)
            conn = await job.result()
        await case.release(conn)


def test_the_error_can_be_pickled() -> None:
    error = TooManyRequests(3, 'a', 'orders')
    again = pickle.loads(pickle.dumps(error))
    assert (again.limit, again.endpoint, again.pool, str(again)) == (3, 'a', 'orders', str(error))


async def test_one_who_finds_a_dead_connection_is_not_turned_away() -> None:
    async with Case(CheckingManager(), max_size=1, max_waiting=1) as case:
        assert await case.cycle('a') == 'a1'
        gate = Gate(then=False)
        case.manager.script('check_aliveness', gate)
        early = spawn(case.pool.acquire, 'a')
        await gate.reached()
        late = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        gate.open()
        conn = await early.result()
        assert conn.name == 'a2'
        assert case.stats['too_many'] == 0
        await case.release(conn)
        await case.release(await late.result())


async def test_max_waiting_can_be_changed() -> None:
    async with Case(max_size=1, max_waiting=1) as case:
        conn = await case.pool.acquire('a')
        jobs = [spawn(case.pool.acquire, 'a')]
        await case.waiting(1)
        await case.pool.resize(max_waiting=0)
        jobs += [spawn(case.pool.acquire, 'a') for _ in range(3)]
        await case.waiting(4)
        await case.pool.resize(max_waiting=4)
        assert case.pool.max_waiting == 4
        with pytest.raises(TooManyRequests, match='max_waiting=4 reached'):
            await case.pool.acquire('a', timeout=0)
        for job in jobs:
            await case.release(conn)
            conn = await job.result()
        await case.release(conn)


# ---- the connection unused for longest ----------------------------------------------------------------------------


async def test_a_host_that_every_request_needs_keeps_its_connection_at_the_total_limit() -> None:
    """Among a thousand new ones, at most five times in OPERATIONS.md; here never."""
    async with Case(total_max_size=10) as case:
        for number in range(1000):
            assert await case.cycle('hot') == 'hot1'
            await case.cycle(f'host {number} ')
            case.clock.advance(0.01)


# ---- between endpoints --------------------------------------------------------------------------------------------


async def test_one_who_waits_beside_a_saturated_endpoint_gets_what_is_returned_after_a_second() -> None:
    """Two tenants at the total limit, one with a long queue and holds of 0.5 s: all who wait there came earlier."""
    async with Case(min_idle=0, max_size=10, total_max_size=10) as case:
        held = await case.acquire('saturated', 10)
        queue = [spawn(case.pool.acquire, 'saturated') for _ in range(20)]
        await case.waiting(20)
        for _ in range(2):
            light = spawn(case.pool.acquire, 'light')
            await case.waiting(21)
            case.clock.advance(0.5)
            await case.release(held.pop(0))
            await case.waiting(20)
            assert not light.done, 'it is overtaken for a while'
            case.clock.advance(0.5)
            await case.release(held.pop(0))
            conn = await light.result()
            await case.release(conn)
            await case.waiting(18)
            queue += [spawn(case.pool.acquire, 'saturated') for _ in range(2)]
            await case.waiting(20)
        while queue:
            if held:
                await case.release(held.pop())
            await until(lambda: any(job.done for job in queue))
            job = next(job for job in queue if job.done)
            queue.remove(job)
            held.append(await job.result())
        await case.release(*held)


async def test_no_minimum_is_kept_of_connections_that_are_closed_at_once() -> None:
    """Each would be replaced at once, for ever."""
    async with Case(max_lifetime=0) as case:
        with pytest.raises(ValueError, match=r'^min_size=1 with max_lifetime=0\.0: expected a max_lifetime greater'):
            ConnectionPool(Manager(), min_size=1, max_lifetime=0)
        with pytest.raises(ValueError, match=r'^min_size=1 with max_lifetime=0\.0: expected'):
            await case.pool.resize(min_size=1)
        with pytest.raises(ValueError, match=r'size=2 with max_lifetime=0\.0: expected'):
            case.pool.warm_up('a', 2)
        case.pool.warm_up('a', 0)
        assert case.pool.min_size == 0
        await case.cycle('a')
        assert case.stats['created'] == 1
