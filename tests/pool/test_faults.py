"""What the pool does when something goes wrong: nothing is lost, no waiter is forgotten, and the caller is told."""

import logging
from random import Random
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import BaseError, ConnectionNotAcquired, PoolTimeout
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, FlakyManager, Gate, HookedManager, Manager, Pause, follow
from tests.support import PATIENCE, Connection, Interruption

ERRORS = pytest.mark.parametrize(
    'error', [lambda: OSError('broken'), Interruption], ids=['Exception', 'BaseException'], indirect=True
)


def without_counters(case: Case) -> dict[str, int]:
    """The gauges of the pool."""
    return {name: case.stats[name] for name in ('size', 'idle', 'acquired', 'waiting', 'endpoints')}


# ---- create raises ------------------------------------------------------------------------------------------------


@ERRORS
async def test_create_that_raises_reaches_the_caller_and_nothing_is_counted(error: BaseException) -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        case.manager.script('create', error)
        with pytest.raises(type(error)) as caught:
            await case.pool.acquire('a')
        assert caught.value is error
        assert not any(without_counters(case).values())
        assert case.stats['create_errors'] == 1
        assert await case.cycle('a') == 'a1'


@ERRORS
async def test_create_that_raises_leaves_its_slot_to_one_who_waits_at_the_endpoint(error: BaseException) -> None:
    async with Case(max_size=1) as case:
        gate = Gate(error)
        case.manager.script('create', gate)
        first = spawn(case.pool.acquire, 'a')
        await gate.reached()
        second = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        gate.open()
        with pytest.raises(type(error)):
            await first.result()
        await case.release(await second.result())
        assert case.manager.calls == ['create a', 'create a']


@ERRORS
async def test_create_that_raises_after_an_eviction_leaves_an_empty_slot(error: BaseException) -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        await case.cycle('a')
        case.manager.script('create', error)
        with pytest.raises(type(error)):
            await case.pool.acquire('b')
        assert case.pool.get_size() == 0
        assert case.manager.calls == ['create a', 'dispose a1', 'create b']
        await case.cycle('a')


async def test_create_that_raises_a_timeout_of_its_own_reaches_the_caller_as_it_is() -> None:
    async with Case() as case:
        error = TimeoutError('the server does not answer')
        case.manager.script('create', error)
        with pytest.raises(TimeoutError) as caught:
            await case.pool.acquire('a', timeout=60)
        assert caught.value is error
        assert case.pool.get_size() == 0


async def test_create_that_returns_a_connection_of_the_pool_once_more_is_refused() -> None:
    async with Case() as case:
        a1 = await case.pool.acquire('a')
        case.manager.script('create', a1)
        with pytest.raises(ValueError, match=r"create\(\) for endpoint 'b' returned <a1>, .*: expected a new"):
            await case.pool.acquire('b')
        assert case.pool.get_size() == 1
        assert a1.disposals == 0
        await case.release(a1)


# ---- check_aliveness raises, on_acquire raises --------------------------------------------------------------------


@ERRORS
@pytest.mark.parametrize('method', ['check_aliveness', 'on_acquire'])
async def test_a_method_that_raises_on_the_way_out_leaves_the_connection_idle(
    method: str, error: BaseException
) -> None:
    async with Case(HookedManager()) as case:
        await case.cycle('a')
        case.manager.script(method, error)
        with pytest.raises(type(error)) as caught:
            await case.pool.acquire('a')
        assert caught.value is error
        assert without_counters(case) == {'size': 1, 'idle': 1, 'acquired': 0, 'waiting': 0, 'endpoints': 1}
        assert await case.cycle('a') == 'a1'
        assert case.manager.calls.count('create a') == 1


@ERRORS
@pytest.mark.parametrize('method', ['check_aliveness', 'on_acquire'])
async def test_a_method_that_raises_inside_a_context_leaves_the_connection_idle(
    method: str, error: BaseException
) -> None:
    async with Case(HookedManager()) as case:
        await case.cycle('a')
        case.manager.script(method, error)
        context = case.pool.connection('a')
        with pytest.raises(type(error)):
            await context.__aenter__()
        assert case.stats['idle'] == 1
        async with context as conn:
            assert conn.name == 'a1'


@ERRORS
async def test_on_acquire_that_raises_for_a_new_connection_leaves_it_idle(error: BaseException) -> None:
    async with Case(HookedManager()) as case:
        case.manager.script('on_acquire', error)
        with pytest.raises(type(error)):
            await case.pool.acquire('a')
        assert case.manager.take_calls() == ['create a', 'on_acquire a1']
        assert case.stats['idle'] == 1
        assert await case.cycle('a') == 'a1'


@ERRORS
@pytest.mark.parametrize('method', ['check_aliveness', 'on_acquire'])
async def test_a_connection_handed_to_one_whose_check_or_hook_raises_goes_to_the_next(
    method: str, error: BaseException
) -> None:
    async with Case(HookedManager(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        first = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        second = spawn(case.pool.acquire, 'a')
        await case.waiting(2)
        case.manager.script(method, error)
        await case.release(conn)
        with pytest.raises(type(error)):
            await first.result()
        assert await second.result() is conn
        await case.release(conn)


# ---- on_release raises --------------------------------------------------------------------------------------------


@ERRORS
async def test_on_release_that_raises_reaches_the_caller_and_the_connection_is_idle(error: BaseException) -> None:
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        case.manager.script('on_release', error)
        with pytest.raises(type(error)) as caught:
            await case.release(conn)
        assert caught.value is error
        assert case.stats['idle'] == 1
        assert await case.cycle('a') == 'a1'


@ERRORS
async def test_on_release_that_raises_keeps_its_release_from_disposing_of_others(error: BaseException) -> None:
    async with Case(HookedManager(), min_idle=0, idle_timeout=60) as case:
        a1, a2 = await case.acquire('a', 2)
        await case.release(a1)
        case.clock.advance(60)
        case.manager.script('on_release', error)
        with pytest.raises(type(error)):
            await case.release(a2)
        assert case.manager.living == ['a1', 'a2']
        await case.cycle('b')
        assert case.manager.living == ['a2', 'b1']


@ERRORS
async def test_on_release_that_raises_hands_the_connection_to_one_who_waits(error: BaseException) -> None:
    async with Case(HookedManager(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        case.manager.script('on_release', error)
        with pytest.raises(type(error)):
            await case.release(conn)
        assert await job.result() is conn
        await case.release(conn)


@ERRORS
async def test_on_release_that_raises_at_the_end_of_a_lifetime_still_disposes_of_the_connection(
    error: BaseException,
) -> None:
    async with Case(HookedManager(), max_size=1, max_lifetime=100) as case:
        conn = await case.pool.acquire('a')
        case.clock.advance(100)
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        case.manager.script('on_release', error)
        with pytest.raises(type(error)):
            await case.release(conn)
        assert (await job.result()).name == 'a2'
        assert conn.disposals == 1
        await case.release(await case.pool.acquire('b'), *[c for c in case.manager.connections if c.name == 'a2'])


@ERRORS
async def test_on_release_that_raises_at_the_end_of_a_context_reaches_the_caller(error: BaseException) -> None:
    async with Case(HookedManager()) as case:
        context = case.pool.connection('a')
        await context.__aenter__()
        case.manager.script('on_release', error)
        with pytest.raises(type(error)):
            await context.__aexit__(None, None, None)
        assert case.stats['idle'] == 1
        async with context:
            assert case.stats['acquired'] == 1


# ---- dispose raises -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (lambda: OSError('broken pipe'), "closing a connection to 'a' failed: OSError: broken pipe"),
        (lambda: TimeoutError('too slow'), "closing a connection to 'a' timed out: too slow"),
    ],
    ids=['failed', 'timed out'],
    indirect=['error'],
)
async def test_dispose_that_raises_is_logged_and_the_connection_counts_as_gone(
    error: Exception, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Case(min_idle=0, idle_timeout=0, max_size=1, total_max_size=1) as case:
        case.manager.script('dispose', error)
        await case.cycle('a')
        assert case.pool.get_size() == 0
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert [(record.name, record.getMessage()) for record in errors] == [
            ('gcpool', f'{case.pool.name}: {message} [idle]')
        ]
        assert await case.cycle('b') == 'b1'


async def test_dispose_that_raises_does_not_keep_the_others_of_a_batch_from_being_disposed_of() -> None:
    async with Case(min_idle=0, idle_timeout=60, dispose_batch_size=10) as case:
        await case.release(*await case.acquire('a', 4))
        case.clock.advance(60)
        case.manager.script('dispose', OSError(), None, OSError(), OSError())
        await case.cycle('b')
        assert case.manager.living == ['b1']


async def test_dispose_that_raises_for_an_evicted_connection_does_not_keep_the_acquire_from_its_slot() -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        await case.cycle('a')
        case.manager.script('dispose', OSError())
        assert await case.cycle('b') == 'b1'


# ---- connections found dead ---------------------------------------------------------------------------------------


async def test_a_dead_connection_is_disposed_of_and_then_reported_and_the_next_idle_one_is_tried() -> None:
    async with Case(HookedManager(), min_idle=3) as case:
        await case.release(*await case.acquire('a', 3))
        case.manager.take_calls()
        case.manager.script('check_aliveness', False, False)
        conn = await case.pool.acquire('a')
        assert conn.name == 'a3'
        assert case.manager.take_calls() == [
            'check_aliveness a1',
            'dispose a1',
            'on_connection_dead a1',
            'check_aliveness a2',
            'dispose a2',
            'on_connection_dead a2',
            'check_aliveness a3',
            'on_acquire a3',
        ]
        assert case.pool.get_size() == 1
        assert case.stats['dead'] == 2
        await case.release(conn)


@pytest.mark.parametrize('manager_class', [CheckingManager, HookedManager])
async def test_where_all_idle_connections_are_dead_one_is_created(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), min_idle=3, max_size=3, total_max_size=3) as case:
        await case.release(*await case.acquire('a', 3))
        case.manager.script('check_aliveness', False, False, False)
        assert await case.cycle('a') == 'a4'
        await until(lambda: case.manager.living == ['a4'])


async def test_a_dead_connection_s_slot_is_its_finder_s_even_where_others_wait() -> None:
    async with Case(CheckingManager(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        first = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        second = spawn(case.pool.acquire, 'a')
        await case.waiting(2)
        case.manager.script('check_aliveness', False)
        await case.release(conn)
        a2 = await first.result()
        assert a2.name == 'a2'
        assert case.stats['waiting'] == 1
        await case.release(a2)
        assert await second.result() is a2
        await case.release(a2)


async def test_nobody_gets_ahead_while_a_dead_connection_is_disposed_of() -> None:
    async with Case(CheckingManager(), max_size=1) as case:
        await case.cycle('a')
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        finder = spawn(case.pool.acquire, 'a')
        await gate.reached()
        with pytest.raises(PoolTimeout):
            await case.pool.acquire('a', timeout=0)
        late = spawn(case.pool.acquire, 'a')
        await case.waiting(2)
        gate.open()
        a2 = await finder.result()
        assert not late.done
        await case.release(a2)
        await case.release(await late.result())


async def test_a_dead_connection_is_disposed_of_while_everything_else_goes_on() -> None:
    async with Case(CheckingManager(), min_idle=2, max_size=2) as case:
        await case.release(*await case.acquire('a', 2))
        gate = Gate()
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', gate)
        a2 = await case.pool.acquire('a')
        assert a2.name == 'a2'
        await gate.reached()
        await case.cycle('b')
        with pytest.raises(PoolTimeout):
            await case.pool.acquire('a', timeout=0)
        assert case.pool.get_size() == 3
        gate.open()
        await until(lambda: case.pool.get_size() == 2)
        await case.release(a2)


async def test_a_hanging_close_that_no_waiter_needs_delays_no_waiter() -> None:
    async with Case(min_idle=0, idle_timeout=10, total_max_size=3, max_size=3) as case:
        b1 = await case.pool.acquire('b')
        await case.cycle('a')
        case.clock.advance(10)
        gate = Gate()
        case.manager.script('dispose', gate)
        job = spawn(case.release, b1)
        await gate.reached()
        await case.cycle('c')
        held = [await case.pool.acquire(endpoint, timeout=PATIENCE) for endpoint in 'xy']
        assert case.stats['idle'] == 0
        gate.open()
        await job.result()
        await case.release(*held)


async def test_the_search_goes_on_where_disposing_of_a_dead_connection_fails() -> None:
    async with Case(CheckingManager(), max_size=1) as case:
        await case.cycle('a')
        case.manager.script('check_aliveness', False)
        case.manager.script('dispose', OSError())
        assert await case.cycle('a') == 'a2'


@ERRORS
async def test_on_connection_dead_that_raises_reaches_the_caller_and_the_dead_one_is_gone(
    error: BaseException,
) -> None:
    async with Case(HookedManager(), min_idle=2, max_size=2) as case:
        await case.release(*await case.acquire('a', 2))
        case.manager.script('check_aliveness', False)
        case.manager.script('on_connection_dead', error)
        with pytest.raises(type(error)) as caught:
            await case.pool.acquire('a')
        assert caught.value is error
        assert case.manager.living == ['a2']
        assert without_counters(case) == {'size': 1, 'idle': 1, 'acquired': 0, 'waiting': 0, 'endpoints': 1}


@ERRORS
async def test_on_connection_dead_that_raises_leaves_the_slot_to_one_who_waits(error: BaseException) -> None:
    async with Case(HookedManager(), max_size=1) as case:
        await case.cycle('a')
        gate = Gate(error)
        case.manager.script('check_aliveness', False)
        case.manager.script('on_connection_dead', gate)
        first = spawn(case.pool.acquire, 'a')
        await gate.reached()
        second = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        gate.open()
        with pytest.raises(type(error)):
            await first.result()
        await case.release(await second.result())


@ERRORS
async def test_a_dead_connection_whose_successor_cannot_be_created_is_gone(error: BaseException) -> None:
    async with Case(HookedManager(), max_size=1) as case:
        await case.cycle('a')
        case.manager.script('check_aliveness', False)
        case.manager.script('create', error)
        with pytest.raises(type(error)):
            await case.pool.acquire('a')
        assert case.manager.calls[-3:] == ['dispose a1', 'on_connection_dead a1', 'create a']
        assert case.pool.get_size() == 0


async def test_a_dead_connection_found_within_a_time_limit_is_replaced_within_what_is_left() -> None:
    async with Case(CheckingManager(), max_size=2) as case:
        a1, a2 = await case.acquire('a', 2)
        await case.release(a1)
        case.manager.script('check_aliveness', False)
        assert await case.cycle('a') == 'a3'
        await case.release(a2)


# ---- a slot is freed, somebody waits elsewhere --------------------------------------------------------------------


@pytest.mark.parametrize(
    'how', ['release', 'lifetime', 'create raises', 'check raises', 'on_acquire raises', 'on_release raises', 'dead']
)
async def test_a_slot_freed_at_one_endpoint_goes_to_one_who_waits_at_another(how: str) -> None:
    async with Case(HookedManager(), max_size=1, total_max_size=1) as case:
        error = OSError('on purpose')
        gate = Gate(error)
        if how in {'release', 'lifetime', 'on_release raises'}:
            conn = await case.pool.acquire('a')
            waiter = spawn(case.pool.acquire, 'b')
            await case.waiting(1)
            if how == 'lifetime':
                case.clock.advance(1e6)
            if how == 'on_release raises':
                case.manager.script('on_release', error)
                with pytest.raises(OSError, match='on purpose'):
                    await case.release(conn)
            else:
                await case.release(conn)
        else:
            if how == 'create raises':
                case.manager.script('create', gate)
            else:
                await case.cycle('a')
                if how == 'dead':
                    case.manager.script('check_aliveness', False)
                method = {'check raises': 'check_aliveness', 'dead': 'on_connection_dead'}.get(how, 'on_acquire')
                case.manager.script(method, gate)
            first = spawn(case.pool.acquire, 'a')
            await gate.reached()
            waiter = spawn(case.pool.acquire, 'b')
            await case.waiting(1)
            gate.open()
            with pytest.raises(OSError, match='on purpose'):
                await first.result()
        case.manager.forget_script()
        b1 = await waiter.result()
        assert b1.name == 'b1'
        assert case.manager.total_peak == 1
        await case.release(b1)


# ---- releases that are not due ------------------------------------------------------------------------------------


def check_refusal(caught: 'pytest.ExceptionInfo[BaseException]', *parts: str) -> None:
    """The error is of all the types that programs expect, and its message has these parts."""
    assert type(caught.value) is ConnectionNotAcquired
    assert isinstance(caught.value, (BaseError, RuntimeError))
    assert isinstance(caught.value, ValueError)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
async def test_a_second_release_is_refused_and_changes_nothing(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), min_idle=2) as case:
        a1, a2 = await case.acquire('a', 2)
        await case.release(a1)
        before = case.stats
        case.manager.take_calls()
        with pytest.raises(ConnectionNotAcquired) as caught:
            await case.release(a1)
        check_refusal(caught, '<a1>', 'is not acquired', 'idle')
        assert case.stats == before
        assert case.manager.take_calls() == []
        assert await case.cycle('a') == 'a1'
        await case.release(a2)


async def test_a_release_of_what_was_disposed_of_is_refused() -> None:
    async with Case(min_idle=0, idle_timeout=0) as case:
        conn = await case.pool.acquire('a')
        await case.release(conn)
        with pytest.raises(ConnectionNotAcquired) as caught:
            await case.release(conn)
        check_refusal(caught, '<a1>', 'does not belong to')
        assert conn.disposals == 1


@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
async def test_a_release_of_a_stranger_is_refused_and_changes_nothing(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case, Case() as other:
        conn = await case.pool.acquire('a')
        foreign = await other.pool.acquire('a')
        before = case.stats
        case.manager.take_calls()
        strangers: list[Any] = [foreign, Connection('a', 1), None, 'a', []]
        for stranger in strangers:
            with pytest.raises(ConnectionNotAcquired) as caught:
                await case.pool.release(stranger, 'a')
            check_refusal(caught, repr(stranger), 'does not belong to', "acquire('a')")
        assert case.stats == before
        assert case.manager.take_calls() == []
        await case.release(conn)
        await other.release(foreign)


@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
async def test_a_release_to_the_wrong_endpoint_is_refused_and_changes_nothing(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        conn, other = await case.pool.acquire('a'), await case.pool.acquire('b')
        before = case.stats
        case.manager.take_calls()
        wrong_endpoints: list[Any] = ['b', 'unknown', None, []]
        for wrong in wrong_endpoints:
            with pytest.raises(ConnectionNotAcquired) as caught:
                await case.pool.release(conn, wrong)
            check_refusal(caught, '<a1>', "'a'", repr(wrong))
        assert case.stats == before
        assert case.manager.take_calls() == []
        await case.release(conn, other)


async def test_a_release_while_on_release_runs_is_refused() -> None:
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        gate = Gate()
        case.manager.script('on_release', gate)
        job = spawn(case.pool.release, conn, 'a')
        await gate.reached()
        with pytest.raises(ConnectionNotAcquired) as caught:
            await case.release(conn)
        check_refusal(caught, '<a1>', 'releasing')
        assert await case.pool.get_endpoint_pool_size('a', acquired=True) == 1
        gate.open()
        await job.result()
        assert case.stats['idle'] == 1


async def test_a_connection_is_found_by_identity_not_by_its_hash_or_equality() -> None:
    class Unfriendly:
        """Neither hashable nor comparable."""

        def __eq__(self, other: object) -> bool:
            raise AssertionError('compared')

        __hash__ = None  # type: ignore[assignment]

    class UnfriendlyManager(Manager):
        def connect(self, endpoint: object) -> Any:
            return Unfriendly()

    manager = UnfriendlyManager()
    pool: ConnectionPool[str, Any] = ConnectionPool(manager)
    conns = [await pool.acquire('a') for _ in range(3)]
    for conn in conns:
        await pool.release(conn, 'a')
    assert await pool.get_endpoint_pool_size('a', acquired=False) == 3
    await pool.close()


# ---- all at once --------------------------------------------------------------------------------------------------

CYCLES = 100


@pytest.mark.stress
@pytest.mark.parametrize('seed', range(3))
async def test_sixteen_clients_with_failing_hooks_and_tiny_lifetimes_break_no_rule(seed: int) -> None:
    async with Case(
        FlakyManager(Random(seed)), min_idle=1, max_size=3, total_max_size=5, idle_timeout=0.5, max_lifetime=2
    ) as case:
        held: set[str] = set()
        failures: set[object] = set()

        async def client(number: int) -> int:
            random = Random(f'{seed} {number}')
            served = 0
            for _ in range(CYCLES):
                case.clock.advance(random.random() / 10)
                try:
                    conn = await case.pool.acquire(random.choice('abc'), timeout=random.choice([None, None, 0, 0.001]))
                except (OSError, Interruption):
                    continue
                assert conn.name not in held
                assert conn.disposals == 0
                held.add(conn.name)
                await follow(Pause(random.randrange(4)))
                served += 1
                held.remove(conn.name)
                try:
                    await case.release(conn)
                except (OSError, Interruption) as error:
                    failures.update(error.args)
            return served

        jobs = [spawn(client, number) for number in range(16)]
        served = [await job.result() for job in jobs]
        assert min(served) > 0
        assert failures == {'on_release'}
        case.pool._core.check_invariants()
        assert without_counters(case)['waiting'] == without_counters(case)['acquired'] == 0
        assert case.stats['acquires'] >= sum(served)
