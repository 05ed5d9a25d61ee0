"""How long connections live, and what ends them early: jitter, a number of uses, a block that is cut off."""

from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Duck, HookedManager, JudgingManager, Manager
from tests.support import Connection, Interruption

# ---- lifetime_jitter ----------------------------------------------------------------------------------------------


async def test_connections_that_were_created_together_do_not_end_together() -> None:
    drawn = [0.0, 0.5, 0.9]
    async with Case(
        max_lifetime=100, idle_timeout=100, lifetime_jitter=0.2, min_idle=3, _random=lambda: drawn.pop(0)
    ) as case:
        await case.release(*await case.acquire('a', 3))
        living = []
        for seconds in (81.9, 0.2, 7.8, 0.2, 9.8, 0.2):
            case.clock.advance(seconds)
            case.pool._core.doom_due(case.clock(), 10)
            living.append(case.pool.get_size() - case.pool._core.doomed)
        assert living == [3, 2, 2, 1, 1, 0]
        assert drawn == []


async def test_without_jitter_nothing_is_drawn() -> None:
    async with Case(max_lifetime=100, _random=lambda: 1 / 0) as case:
        await case.cycle('a')


# ---- max_uses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('collector', [False, True])
@pytest.mark.parametrize('manager_class', [Manager, HookedManager])
async def test_the_release_after_so_many_uses_closes(manager_class: type[Manager], collector: bool) -> None:
    async with Case(manager_class(), max_uses=3, background_collector=collector) as case:
        assert [await case.cycle('a') for _ in range(7)] == ['a1'] * 3 + ['a2'] * 3 + ['a3']
        assert case.manager.living == ['a3']
        assert case.stats['closed_max_uses'] == case.stats['disposed'] == 2


async def test_one_use_is_a_new_connection_each_time() -> None:
    async with Case(max_uses=1) as case:
        assert [await case.cycle('a') for _ in range(3)] == ['a1', 'a2', 'a3']
        assert case.manager.living == []


async def test_a_connection_that_is_handed_over_is_used_once_more() -> None:
    async with Case(max_uses=2, max_size=1) as case:
        conn = await case.pool.acquire('a')
        jobs = [spawn(case.pool.acquire, 'a')]
        await case.waiting(1)
        await case.release(conn)
        assert await jobs[0].result() is conn
        jobs.append(spawn(case.pool.acquire, 'a'))
        await case.waiting(1)
        await case.release(conn)
        fresh = await jobs[1].result()
        assert fresh.name == 'a2'
        await case.release(fresh)


async def test_a_context_and_a_check_of_the_pool_count_as_what_they_are() -> None:
    async with Case(CheckingManager(), max_uses=2) as case:
        async with case.pool.connection('a') as conn:
            assert conn.name == 'a1'
        for _ in range(3):
            await case.pool.check()
        async with case.pool.connection('a') as conn:
            assert conn.name == 'a1'
        await until(lambda: case.pool.get_size() == 0)


# ---- broken_on_cancel ---------------------------------------------------------------------------------------------


class Outstanding(HookedManager):
    """A reply may be outstanding when a block is cut off. There is no is_broken."""

    broken_on_cancel = True


class OutstandingOrJudged(JudgingManager):
    """The same, and has an is_broken."""

    broken_on_cancel = True


class OutstandingDuck(Duck):
    """The same, without gcpool's base class."""

    broken_on_cancel = True


async def leave(pool: ConnectionPool[Any, Any], error: BaseException) -> None:
    async def use() -> None:
        async with pool.connection('a'):
            raise error

    with pytest.raises(type(error)) as caught:
        await use()
    assert caught.value is error


@pytest.mark.parametrize('manager_class', [Outstanding, OutstandingOrJudged])
@pytest.mark.parametrize('error', [KeyboardInterrupt, SystemExit, GeneratorExit, Interruption])
async def test_a_block_that_is_cut_off_breaks_the_connection(
    manager_class: type[HookedManager], error: type[BaseException]
) -> None:
    async with Case(manager_class(), check_interval=1000, min_idle=2) as case:
        await case.release(*await case.acquire('a', 2))
        case.manager.take_calls()
        await leave(case.pool, error())
        await until(lambda: case.manager.calls[-1:] == ['on_connection_dead a1'])
        assert case.manager.take_calls() == ['on_acquire a1', 'dispose a1', 'on_connection_dead a1']
        assert case.stats['broken'] == 1
        # It says nothing about the others.
        assert await case.cycle('a') == 'a2'
        assert 'check_aliveness a2' not in case.manager.take_calls()


async def test_an_error_of_the_block_does_not() -> None:
    async with Case(Outstanding()) as case:
        await leave(case.pool, OSError())
        assert case.manager.take_calls() == ['create a', 'on_acquire a1', 'on_release a1']
    async with Case(OutstandingOrJudged()) as case:
        await leave(case.pool, OSError())
        assert case.manager.take_calls() == ['create a', 'on_acquire a1', 'is_broken a1', 'on_release a1']
        case.manager.script('is_broken', True)
        await leave(case.pool, OSError())
        assert case.stats['broken'] == 1


async def test_nor_does_it_without_the_attribute() -> None:
    async with Case(HookedManager()) as case:
        await leave(case.pool, KeyboardInterrupt())
        assert case.manager.take_calls() == ['create a', 'on_acquire a1', 'on_release a1']


async def test_a_manager_that_knows_nothing_of_gcpool_may_say_so() -> None:
    manager: Any = OutstandingDuck()
    pool: ConnectionPool[str, Any] = ConnectionPool(manager)
    await leave(pool, OSError())
    assert pool.get_stats()['broken'] == 0
    await leave(pool, SystemExit())
    assert pool.get_stats()['broken'] == 1
    await pool.close()


async def test_a_context_around_replaced_methods_does_the_same() -> None:
    class Traced(ConnectionPool[Any, Any]):
        async def acquire(self, endpoint: Any = ..., timeout: float | None = None) -> Any:
            return await super().acquire(endpoint, timeout)

    async with Case(Outstanding(), pool_class=Traced) as case:
        await leave(case.pool, Interruption())
        assert case.stats['broken'] == 1


# ---- hooks that return nonsense, and hooks that are misspelt --------------------------------------------------------


class NothingCreated(Manager):
    """Forgets to return what it has created, once."""

    forgets = True

    async def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        if self.forgets:
            self.forgets = False
            return None  # type: ignore[return-value]
        return await super().create(endpoint, timeout)


@pytest.mark.parametrize('wait', [False, True])
async def test_a_create_that_returns_none_is_told(wait: bool) -> None:
    async with Case(NothingCreated(), max_size=1) as case:
        with pytest.raises(
            TypeError, match=r'create\(\) of connection_manager .* returned None: expected a connection'
        ):
            await case.pool.acquire('a')
        assert (case.stats['size'], case.stats['create_errors']) == (0, 1)
        assert await case.cycle('a') == 'a1'


@pytest.mark.parametrize('answer', [0, 1, 'PONG', object()], ids=['0', '1', 'text', 'object'])
@pytest.mark.parametrize('limit', [None, 50.0])
async def test_a_check_that_returns_no_bool_is_told(answer: object, limit: float | None) -> None:
    async with Case(CheckingManager(), check_timeout=limit) as case:
        await case.cycle('a')
        case.manager.script('check_aliveness', answer)
        with pytest.raises(
            TypeError, match=r'check_aliveness\(\) of connection_manager .* returned .*: expected a bool'
        ):
            await case.pool.acquire('a')
        assert (case.stats['idle'], case.stats['dead']) == (1, 0)
        assert await case.cycle('a') == 'a1'


async def test_a_check_that_returns_nothing_is_told() -> None:
    class Forgetful(Manager):
        async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> Any:
            self.begin('check_aliveness', conn)

    async with Case(Forgetful()) as case:
        await case.cycle('a')
        with pytest.raises(TypeError, match=r'returned None: expected a bool'):
            await case.pool.acquire('a')


async def test_the_bools_of_numpy_are_bools() -> None:
    class bool_:  # noqa: N801 - as in numpy
        def __init__(self, value: bool) -> None:
            self.value = value

        def __bool__(self) -> bool:
            return self.value

    async with Case(CheckingManager()) as case:
        await case.cycle('a')
        case.manager.script('check_aliveness', bool_(True), bool_(False))
        assert [await case.cycle('a') for _ in range(2)] == ['a1', 'a2']


@pytest.mark.parametrize(
    ('name', 'hook'),
    [
        ('on_aquire', 'on_acquire'),
        ('on_acquired', 'on_acquire'),
        ('onAcquire', 'on_acquire'),
        ('on_realease', 'on_release'),
        ('on_relaese', 'on_release'),
        ('check_alivness', 'check_aliveness'),
        ('check_alivenes', 'check_aliveness'),
        ('on_conection_daed', 'on_connection_dead'),
        ('is_brocken', 'is_broken'),
        ('normalise', 'normalize'),
        ('is_refusel', 'is_refusal'),
        ('describe_endpiont', 'describe_endpoint'),
    ],
)
async def test_a_method_that_looks_like_a_misspelt_hook_is_refused(name: str, hook: str) -> None:
    async def method(self: Any, endpoint: Any, conn: Any) -> None:
        pass

    for base in (Manager, Duck):
        manager: Any = type('Misspelt', (base,), {name: method})()
        with pytest.raises(TypeError, match=rf'^{name}\(\) of connection_manager .* looks like a misspelt {hook}\(\)'):
            ConnectionPool(manager)


@pytest.mark.parametrize(
    'name',
    [
        'acquire',
        'release',
        'connection',
        'on_acquired_count',
        'check',
        'is_open',
        'is_token',
        'is_frozen',
        'normal',
        'created',
        'disposed',
        '_on_aquire',
        'on_require',
        'describe',
    ],
)
async def test_other_methods_are_not(name: str) -> None:
    manager = type('Other', (Manager,), {name: lambda self: None})()
    ConnectionPool(manager)


async def test_who_has_the_hook_may_have_a_method_like_it_and_attributes_are_nobody_s_business() -> None:
    class Both(HookedManager):
        on_release = HookedManager.on_release
        is_brokn = True

        def on_released(self) -> None:
            pass

    ConnectionPool(Both())
