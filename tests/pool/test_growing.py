"""Connections that the pool itself creates: in the background, up to a minimum, for endpoints that are warmed up."""

import logging
import threading
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import ConnectionPoolClosedError, PoolTimeout
from tests.asyncio_.runtime import spawn, until
from tests.support import Connection, Interruption

from .support import Case, Gate, HookedManager, Manager


async def test_an_acquire_takes_what_is_returned_while_the_pool_connects() -> None:
    async with Case(create_in_background=True, max_connecting=1) as case:
        (a1,) = await case.acquire('a', 1)
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        await case.release(a1)
        assert await job.result() is a1
        gate.open()
        await until(lambda: case.stats['idle'] == 1)
        await case.release(a1)
        assert case.manager.living == ['a1', 'a2']


@pytest.mark.parametrize(
    'parameters', [{'max_lifetime': 0}, {'lifetime_jitter': 1.0, '_random': lambda: 1.0}], ids=['0', 'jitter']
)
@pytest.mark.parametrize('collects', [False, True])
async def test_a_new_connection_is_served_once_though_its_lifetime_is_over(
    parameters: dict[str, Any], collects: bool
) -> None:
    # Created for who waits, and closed instead, it would be created again and again.
    async with Case(
        create_in_background=True, reconnect_timeout=60.0, background_collector=collects, **parameters
    ) as case:
        case.manager.script('create', OSError('refused'))
        jobs = [spawn(case.pool.acquire, 'a') for _ in range(3)]

        def served() -> bool:
            case.clock.advance(0.1)
            return all(job.done for job in jobs)

        await until(served)
        assert case.stats['created'] == 3
        await case.release(*[await job.result() for job in jobs])
        await until(lambda: case.stats['closed_lifetime'] == 3)


async def test_a_new_connection_is_served_without_a_check() -> None:
    async with Case(HookedManager(), create_in_background=True) as case:
        a1 = await case.pool.acquire('a')
        assert case.manager.take_calls() == ['create a', 'on_acquire a1']
        await case.release(a1)


async def test_the_error_of_a_connect_in_the_background_reaches_the_acquire() -> None:
    async with Case(create_in_background=True) as case:
        error = OSError('connection refused')
        case.manager.script('create', error)
        with pytest.raises(OSError, match='refused') as caught:
            await case.pool.acquire('a')
        assert caught.value is error
        assert case.stats['create_errors'] == 1
        assert await case.cycle('a') == 'a1'


async def test_what_is_no_exception_reaches_the_acquire_and_the_worker_goes_on() -> None:
    async with Case(create_in_background=True, max_connecting=1) as case:
        case.manager.script('create', Interruption('in create'))
        with pytest.raises(Interruption, match='in create'):
            await case.pool.acquire('a')
        assert await case.cycle('a') == 'a1'


async def test_a_connection_that_arrives_after_the_close_is_closed() -> None:
    gate = Gate()
    async with Case(create_in_background=True) as case:
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        closing = spawn(case.pool.close)
        with pytest.raises(ConnectionPoolClosedError):
            await job.result()
        gate.open()
        assert await closing.result() == 0
        assert case.pool.get_size() == 0


async def test_a_manager_that_returns_a_known_connection_is_told() -> None:
    async with Case(create_in_background=True) as case:
        a1 = await case.pool.acquire('a')
        case.manager.script('create', a1)
        with pytest.raises(ValueError, match='already holds'):
            await case.pool.acquire('a')
        await case.release(a1)


async def test_a_used_endpoint_is_filled_up_to_min_size() -> None:
    async with Case(min_size=3) as case:
        (a1,) = await case.acquire('a', 1)
        await until(lambda: case.stats['idle'] == 2)
        await case.release(a1)
        assert case.stats['size'] == 3
        case.clock.advance(60.0)
        (b1,) = await case.acquire('b', 1)
        await case.release(b1)
        await until(lambda: case.stats['endpoints'] == 1)


async def test_warm_up_creates_connections_and_wait_waits_for_them() -> None:
    async with Case() as case:
        case.pool.warm_up('a', 2)
        case.pool.warm_up('b', 1)
        await case.pool.wait()
        assert (case.stats['size'], case.stats['idle']) == (3, 3)
        await case.pool.wait()
        case.pool.warm_up('a', 0)
        case.pool.warm_up('b', 0)


async def test_warm_up_without_a_size_is_for_min_size() -> None:
    async with Case(min_size=2) as case:
        case.pool.warm_up('a')
        await case.pool.wait()
        assert case.stats['idle'] == 2


async def test_a_forgotten_endpoint_is_closed_and_not_filled_again() -> None:
    async with Case() as case:
        case.pool.warm_up('a', 2)
        await case.pool.wait()
        (a1,) = await case.acquire('a', 1)
        await case.pool.forget('a')
        await case.pool.forget('never seen')
        await until(lambda: case.stats['size'] == 1)
        await case.release(a1)
        await until(lambda: case.stats['endpoints'] == 0)
        assert case.stats['closed_drained'] == case.stats['created'] == 2


async def test_three_concurrent_waits_end_when_the_pool_is_filled() -> None:
    """In psycopg_pool the second wait() is refused with a bare AssertionError."""
    gate = Gate()
    async with Case() as case:
        case.manager.script('create', gate)
        case.pool.warm_up('a', 1)
        await gate.reached()
        jobs = [spawn(case.pool.wait) for _ in range(3)]
        for limit in (0, 0.005):
            # One whose time is up takes nothing from the others.
            with pytest.raises(PoolTimeout, match="it has 0 of 1 for 'a' connections"):
                await case.pool.wait(timeout=limit)
        assert not any(job.done for job in jobs)
        gate.open()
        for job in jobs:
            await job.result()


async def test_wait_tells_what_is_missing_and_why() -> None:
    async with Case() as case:
        case.pool.warm_up('main', 1)
        await case.pool.wait()
        case.manager.script('create', *[OSError('connection refused')] * 1000)
        case.pool.warm_up('main', 3)
        await until(lambda: case.stats['create_errors'] > 0)
        with pytest.raises(PoolTimeout, match=r"within 0 s: it has 1 of 3 for 'main' connections") as caught:
            await case.pool.wait(timeout=0)
        assert str(caught.value.__cause__) == 'connection refused'


async def test_wait_of_a_pool_that_is_not_open_says_so() -> None:
    async with Case(open=False, name='orders') as case:
        case.pool.warm_up('a', 2)
        with pytest.raises(
            PoolTimeout, match="'orders' was not filled within 0 s: it is not open yet, and has 0"
        ) as late:
            await case.pool.wait(timeout=0)
        assert (late.value.pool, late.value.phase, late.value.waited) == ('orders', 'open', 0)
        assert case.manager.calls == []
        job = spawn(case.pool.wait)
        await case.pool.open()
        await job.result()
        assert case.stats['idle'] == 2
        case.pool.suspend()
        case.pool.warm_up('a', 3)
        with pytest.raises(PoolTimeout, match='it is suspended, and has 2 of 3') as late:
            await case.pool.wait(timeout=0)
        assert late.value.phase == 'suspended'
        case.pool.resume()
        await case.pool.wait()


async def test_endpoints_that_are_seen_once_do_not_stay_with_min_size() -> None:
    count = 1000
    async with Case(min_size=1, total_max_size=count) as case:
        for endpoint in range(count):
            await case.cycle(endpoint)
        assert case.stats['endpoints'] == case.stats['size'] == count
        case.clock.time += 3600.0
        # An acquire anywhere closes some of what is due.
        for _ in range(count):
            await case.cycle('last')
            if case.stats['endpoints'] == 1:
                break
        await until(lambda: case.stats['endpoints'] == 1)
        assert (case.stats['size'], case.stats['created']) == (1, count + 1), 'none is replaced'


async def test_wait_ends_when_the_pool_is_closed() -> None:
    gate = Gate()
    async with Case() as case:
        case.manager.script('create', gate)
        case.pool.warm_up('a', 1)
        waiting = spawn(case.pool.wait)
        await gate.reached()
        closing = spawn(case.pool.close)
        with pytest.raises(ConnectionPoolClosedError, match='there are no connections to wait for'):
            await waiting.result()
        gate.open()
        await closing.result()
        with pytest.raises(ConnectionPoolClosedError):
            await case.pool.wait()
        with pytest.raises(ConnectionPoolClosedError, match="'a' cannot be warmed up"):
            case.pool.warm_up('a', 1)


@pytest.mark.parametrize(
    ('size', 'error', 'message'),
    [
        (11, ValueError, 'size=11 is greater than max_size=10'),
        (-1, ValueError, 'size=-1: expected 0 or more'),
        (True, TypeError, 'size=True: expected a number of connections'),
        ('2', TypeError, "size='2': expected a number of connections"),
        (None, ValueError, 'size=None: expected a number of connections, because the pool has no min_size'),
    ],
)
async def test_a_wrong_size_changes_nothing(size: Any, error: type[Exception], message: str) -> None:
    async with Case() as case:
        with pytest.raises(error, match=message):
            case.pool.warm_up('a', size)
        assert case.stats['endpoints'] == 0


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'min_size': 11, 'max_size': 10}, ValueError, 'min_size=11 is greater than max_size=10'),
        ({'min_size': -1}, ValueError, 'min_size=-1: expected 0 or more'),
        ({'create_in_background': 1}, TypeError, 'create_in_background=1: expected a bool'),
        ({'max_connecting': -1}, ValueError, 'max_connecting=-1: expected 0 or more'),
        ({'max_connecting': 1.5}, TypeError, r'max_connecting=1\.5: expected a number of connections'),
        ({'create_timeout': 0}, ValueError, 'create_timeout=0: expected more than 0 seconds'),
        ({'create_timeout': 'soon'}, TypeError, "create_timeout='soon': expected seconds"),
        ({'reconnect_timeout': -1}, ValueError, 'reconnect_timeout=-1: expected seconds, 0 or more'),
        ({'reconnect_failed': print}, ValueError, 'reconnect_failed was given without reconnect_timeout'),
        ({'reconnect_failed': 5, 'reconnect_timeout': 1}, TypeError, 'reconnect_failed=5: expected a function'),
        ({'wait_when_full': True}, ValueError, r'wait_when_full=True: .* has no method is_refusal\(\)'),
        ({'wait_when_full': 'yes'}, TypeError, "wait_when_full='yes': expected a bool"),
        ({'fail_fast': None}, TypeError, 'fail_fast=None: expected a bool'),
        ({'fail_fast': True, 'reconnect_timeout': 5}, ValueError, r'fail_fast=True and reconnect_timeout=5\.0'),
    ],
)
def test_a_wrong_parameter_is_told(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ConnectionPool(Manager(), **options)


def test_max_connecting_is_two_in_the_background() -> None:
    assert ConnectionPool(Manager()).max_connecting == 0
    assert ConnectionPool(Manager(), create_in_background=True).max_connecting == 2
    assert ConnectionPool(Manager(), create_in_background=True, max_connecting=0).max_connecting == 0


class CountingManager(Manager):
    """Counts how many connects are under way at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._guard = threading.Lock()
        self.under_way = 0
        self.most = 0

    async def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        with self._guard:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            return await super().create(endpoint, timeout)
        finally:
            with self._guard:
                self.under_way -= 1


async def test_max_connecting_also_limits_acquires_that_connect_themselves() -> None:
    manager = CountingManager()
    async with Case(manager, max_connecting=2) as case:
        gates = [Gate() for _ in range(5)]
        manager.script('create', *gates)
        jobs = [spawn(case.pool.acquire, 'a') for _ in range(5)]
        for gate in gates:
            await gate.reached()
            gate.open()
        conns = [await job.result() for job in jobs]
        assert manager.most == 2
        await case.release(*conns)


async def test_a_filled_pool_at_rest_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, 'gcpool')
    async with Case(min_size=2, create_in_background=True, reconnect_timeout=5.0, background_collector=True) as case:
        await case.cycle('a')
        await until(lambda: case.stats['idle'] == 2)
        assert case.pool._core.next_timer() == float('inf')
    assert caplog.text == ''
