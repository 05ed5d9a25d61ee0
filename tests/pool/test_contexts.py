"""``pool.connection()``: what is acquired at its beginning is released at its end, once, whatever happens between."""

import pytest

from gcpool.exceptions import ConnectionNotAcquired, PoolTimeout
from tests.asyncio_.runtime import spawn
from tests.pool.support import Case, Gate, HookedManager, Manager
from tests.support import Interruption

MANAGERS = pytest.mark.parametrize('manager_class', [Manager, HookedManager])


@MANAGERS
async def test_a_context_acquires_and_gives_back(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        async with case.pool.connection('a') as conn:
            assert conn.name == 'a1'
            assert await case.pool.get_endpoint_pool_size('a', acquired=True) == 1
        assert await case.pool.get_endpoint_pool_size('a', acquired=False) == 1


@MANAGERS
@pytest.mark.parametrize(
    'error', [lambda: KeyError('mine'), Interruption], ids=['Exception', 'BaseException'], indirect=True
)
async def test_an_exception_in_the_body_gives_the_connection_back_and_goes_on(
    manager_class: type[Manager], error: BaseException
) -> None:
    async with Case(manager_class()) as case:

        async def client() -> None:
            async with case.pool.connection('a'):
                raise error

        for _ in range(2):
            with pytest.raises(type(error)) as caught:
                await client()
            assert caught.value is error
            assert case.stats['idle'] == 1


async def test_nothing_is_acquired_before_a_context_is_entered() -> None:
    async with Case() as case:
        context = case.pool.connection('a')
        assert case.pool.get_size() == 0
        async with context:
            assert case.pool.get_size() == 1


@MANAGERS
async def test_a_context_can_be_used_again_after_it_was_left(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), min_idle=2) as case:
        await case.release(*await case.acquire('a', 2))
        context = case.pool.connection('a')
        names = []
        for _ in range(4):
            async with context as conn:
                names.append(conn.name)
        assert names == ['a1', 'a2', 'a1', 'a2']


async def test_contexts_nest_with_a_connection_each() -> None:
    async with Case() as case:
        async with case.pool.connection('a') as first, case.pool.connection('a') as second:
            assert first is not second
        assert case.stats['idle'] == 2


@pytest.mark.parametrize('one_more', [False, True])
async def test_clients_that_hold_one_and_take_another_need_one_more_than_all_can_hold_and_wait(one_more: bool) -> None:
    clients, each = 3, 2
    async with Case(max_size=clients * (each - 1) + one_more) as case:
        held = await case.acquire('a', clients * (each - 1))

        async def take_another(number: int) -> None:
            async with case.pool.connection('a'):
                pass
            await case.release(held[number])

        if not one_more:
            # Each waits for the others, for ever.
            with pytest.raises(PoolTimeout):
                await case.pool.acquire('a', timeout=0)
            await case.release(*held)
            return
        for job in [spawn(take_another, number) for number in range(clients)]:
            await job.result()
        assert case.stats['created'] == clients * (each - 1) + 1


@MANAGERS
async def test_a_context_cannot_be_entered_twice_at_a_time(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        context = case.pool.connection('a')
        async with context:
            with pytest.raises(RuntimeError, match='the connection context is entered already'):
                await context.__aenter__()
            assert case.stats['acquired'] == 1
        assert case.stats['acquired'] == 0


@MANAGERS
async def test_a_context_that_two_clients_wait_in_serves_one_and_refuses_the_other(
    manager_class: type[Manager],
) -> None:
    async with Case(manager_class(), max_size=2) as case:
        held = await case.acquire('a', 2)
        context = case.pool.connection('a')

        async def enter() -> str:
            try:
                await context.__aenter__()
            except RuntimeError as error:
                return str(error)
            return 'entered'

        jobs = [spawn(enter) for _ in range(2)]
        await case.waiting(2)
        await case.release(*held)
        outcomes = {await job.result() for job in jobs}
        refused = 'the connection context is entered already: call connection() once more for a second one'
        assert outcomes == {'entered', refused}
        assert case.stats['acquired'] == 1
        await context.__aexit__(None, None, None)
        assert case.stats['acquired'] == 0


async def test_a_context_cannot_be_left_that_was_not_entered() -> None:
    async with Case() as case:
        context = case.pool.connection('a')
        with pytest.raises(RuntimeError, match='the connection context was not entered'):
            await context.__aexit__(None, None, None)
        async with context:
            pass
        with pytest.raises(RuntimeError, match='the connection context was not entered'):
            await context.__aexit__(None, None, None)
        assert case.stats['idle'] == 1


@MANAGERS
async def test_a_connection_given_back_inside_its_context_makes_the_end_of_the_context_an_error(
    manager_class: type[Manager],
) -> None:
    async with Case(manager_class()) as case:
        context = case.pool.connection('a')
        conn = await context.__aenter__()
        await case.release(conn)
        with pytest.raises(ConnectionNotAcquired, match=r'<a1> of .* is not acquired'):
            await context.__aexit__(None, None, None)
        assert case.stats['idle'] == 1
        async with context:
            assert case.stats['acquired'] == 1


@MANAGERS
async def test_a_connection_that_is_somebody_else_s_by_now_is_not_given_back_by_a_context(
    manager_class: type[Manager],
) -> None:
    async with Case(manager_class()) as case:
        context = case.pool.connection('a')
        conn = await context.__aenter__()
        await case.release(conn)
        assert await case.pool.acquire('a') is conn
        with pytest.raises(ConnectionNotAcquired, match=r'<a1> of .* was released before, and another user has'):
            await context.__aexit__(None, None, None)
        assert case.stats['acquired'] == 1
        await case.release(conn)


async def test_a_connection_given_back_inside_its_context_and_disposed_of_makes_its_end_an_error() -> None:
    async with Case(min_idle=0, idle_timeout=0) as case:
        context = case.pool.connection('a')
        conn = await context.__aenter__()
        await case.release(conn)
        with pytest.raises(ConnectionNotAcquired):
            await context.__aexit__(None, None, None)
        assert conn.disposals == 1


@MANAGERS
async def test_a_context_that_could_not_be_entered_can_be_tried_again(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), max_size=1) as case:
        context = case.pool.connection('a', timeout=0)
        conn = await case.pool.acquire('a')
        with pytest.raises(PoolTimeout):
            await context.__aenter__()
        await case.release(conn)
        case.manager.script('check_aliveness', OSError())
        if manager_class is HookedManager:
            with pytest.raises(OSError):
                await context.__aenter__()
        async with context:
            assert case.stats['acquired'] == 1


@MANAGERS
async def test_a_context_is_handed_a_connection_like_an_acquire(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), max_size=1) as case:

        async def client() -> str:
            async with case.pool.connection('a') as conn:
                return conn.name

        conn = await case.pool.acquire('a')
        jobs = []
        for number in range(3):
            jobs.append(spawn(client))
            await case.waiting(number + 1)
        await case.release(conn)
        assert [await job.result() for job in jobs] == ['a1'] * 3


async def test_a_body_that_fails_and_a_release_that_fails_are_chained() -> None:
    async with Case(HookedManager()) as case:

        async def client() -> None:
            async with case.pool.connection('a'):
                raise KeyError('the body')

        case.manager.script('on_release', OSError('the hook'))
        with pytest.raises(OSError, match='the hook') as caught:
            await client()
        assert isinstance(caught.value.__context__, KeyError)
        assert case.stats['idle'] == 1


async def test_the_release_at_the_end_of_a_context_disposes_of_what_is_due() -> None:
    async with Case(min_idle=0, idle_timeout=0) as case:
        gate = Gate()
        case.manager.script('dispose', gate)

        async def client() -> None:
            async with case.pool.connection('a'):
                pass

        job = spawn(client)
        await gate.reached()
        assert not job.done
        gate.open()
        await job.result()
        assert case.pool.get_size() == 0
