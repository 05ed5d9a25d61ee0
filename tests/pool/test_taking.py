"""``try_acquire``, ``release`` without an endpoint, ``discard`` and ``detach``."""

from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import ConnectionNotAcquired, ConnectionPoolClosedError
from tests.asyncio_.runtime import spawn, until
from tests.pool.support import Case, CheckingManager, Gate, HookedManager, JudgingManager, Manager, OnlyResetting
from tests.support import Connection, Endpoint, Interruption

MANAGERS = pytest.mark.parametrize('manager_class', [Manager, HookedManager, JudgingManager])
TAKEN_OUT = pytest.mark.parametrize('how', ['discard', 'detach'])

LIMITS = frozenset({'min_idle', 'max_size', 'total_max_size'})


async def take_out(case: Case, conn: Connection, how: str) -> None:
    if how == 'detach':
        case.detach(conn)
    else:
        await case.pool.discard(conn)


# ---- an idle connection or nothing --------------------------------------------------------------------------------


async def test_an_idle_connection_is_taken_and_none_created() -> None:
    async with Case() as case:
        assert case.pool.try_acquire('a') is None
        assert case.manager.calls == []
        await case.cycle('a')
        conn = case.pool.try_acquire('a')
        assert conn is not None
        assert conn is case.manager.connections[0]
        assert case.pool.try_acquire('a') is None
        assert case.pool.try_acquire('b') is None
        await case.pool.release(conn, 'a')
        assert case.manager.calls == ['create a']


async def test_one_that_has_to_be_checked_is_not_taken_and_another_one_is() -> None:
    async with Case(CheckingManager(), min_idle=3, check_interval=5.0) as case:
        first, second = await case.acquire('a', 2)
        await case.release(first)
        case.clock.advance(3.0)
        await case.release(second)
        case.clock.advance(3.0)
        assert case.pool.try_acquire('a') is second
        assert case.pool.try_acquire('a') is None, 'the other one is to be checked'
        assert await case.pool.acquire('a') is first
        await case.release(first, second)


@pytest.mark.parametrize(
    ('manager_class', 'options'), [(CheckingManager, {}), (HookedManager, {'check_interval': 60.0})]
)
async def test_where_each_connection_takes_a_check_or_a_hook_none_is_ever_ready(
    manager_class: type[Manager], options: dict[str, Any]
) -> None:
    async with Case(manager_class(), **options) as case:
        await case.cycle('a')
        case.manager.calls.clear()
        assert case.pool.try_acquire('a') is None
        assert case.manager.calls == []
        with pytest.raises(TypeError, match='expected a hashable object'):
            case.pool.try_acquire([])
        await case.pool.close()
        with pytest.raises(ConnectionPoolClosedError, match='is closed'):
            case.pool.try_acquire('a')


async def test_one_whose_lifetime_is_over_is_not_taken_and_not_closed() -> None:
    async with Case(max_lifetime=60.0) as case:
        await case.cycle('a')
        case.clock.advance(60.0)
        assert case.pool.try_acquire('a') is None
        assert case.manager.calls == ['create a']


async def test_nobody_who_waits_is_overtaken() -> None:
    async with Case(max_size=1) as case:
        [conn] = await case.acquire('a', 1)
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        assert case.pool.try_acquire('a') is None
        await case.release(conn)
        assert case.pool.try_acquire('a') is None
        await case.release(await job.result())


async def test_trying_at_a_closed_pool_or_for_no_endpoint_is_an_error() -> None:
    async with Case() as case:
        await case.cycle('a')
        with pytest.raises(TypeError, match=r'endpoint \[\] of type list: expected a hashable object'):
            case.pool.try_acquire([])
        with pytest.raises(TypeError, match='has no default_endpoint: expected an endpoint'):
            case.pool.try_acquire()
        await case.pool.close()
        with pytest.raises(ConnectionPoolClosedError, match="is closed: no connection to 'a'"):
            case.pool.try_acquire('a')


async def test_a_pool_whose_init_was_not_called_says_so() -> None:
    class Forgetful(ConnectionPool[str, Connection]):
        def __init__(self) -> None:
            pass

    pool = Forgetful()
    conn = Connection('a', 1)
    for call in (pool.try_acquire, pool.detach):
        with pytest.raises(RuntimeError, match='__init__'):
            call(conn)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match='__init__'):
        await pool.discard(conn)


# ---- release without an endpoint ----------------------------------------------------------------------------------


@MANAGERS
async def test_a_release_needs_no_endpoint(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        for endpoint in ('a', Endpoint('b'), None):
            conn = await case.pool.acquire(endpoint)
            await case.pool.release(conn)
            assert await case.pool.get_endpoint_pool_size(endpoint, acquired=False) == 1
            with pytest.raises(ConnectionNotAcquired):
                await case.pool.release(conn)


async def test_a_release_without_an_endpoint_hands_over_to_who_waits() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        await case.pool.release(conn)
        assert await job.result() is conn
        await case.pool.release(conn)


async def test_a_stranger_or_a_wrong_endpoint_is_refused() -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        wrong: list[Any] = ['b', None, []]
        for endpoint in wrong:
            with pytest.raises((ConnectionNotAcquired, TypeError)):
                await case.pool.release(conn, endpoint)
        with pytest.raises(ConnectionNotAcquired, match=r'expected a connection that acquire\(\) returned'):
            await case.pool.release(Connection('a', 7))
        await case.pool.release(conn)


# ---- discard and detach -------------------------------------------------------------------------------------------


@MANAGERS
async def test_a_discarded_connection_is_closed_and_counted(manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        conn = await case.pool.acquire('a')
        case.manager.calls.clear()
        await case.pool.discard(conn)
        assert case.manager.calls == ['dispose a1'], 'no hook is called'
        assert conn.disposals == 1
        assert case.pool.get_size() == 0
        assert {name: count for name, count in case.stats.items() if count and name not in LIMITS} == {
            'asked': 1,
            'acquires': 1,
            'created': 1,
            'disposed': 1,
            'closed_discarded': 1,
        }


@MANAGERS
async def test_a_detached_connection_is_the_user_s_and_its_slot_is_free_at_once(manager_class: type[Manager]) -> None:
    async with Case(manager_class(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        case.manager.calls.clear()
        case.detach(conn)
        other = await job.result()
        assert other is not conn
        assert case.manager.calls[0] == 'create a'
        await case.pool.release(other)
        await case.pool.close()
        assert conn.disposals == 0
        assert case.stats['detached'] == 1


@TAKEN_OUT
@MANAGERS
async def test_what_was_taken_out_cannot_be_returned_or_taken_out_again(how: str, manager_class: type[Manager]) -> None:
    async with Case(manager_class()) as case:
        conn = await case.pool.acquire('a')
        await take_out(case, conn, how)
        for match in ('does not belong to .*, or is closed',):
            with pytest.raises(ConnectionNotAcquired, match=match):
                await case.pool.release(conn, 'a')
            with pytest.raises(ConnectionNotAcquired, match=match):
                await case.pool.release(conn)
            with pytest.raises(ConnectionNotAcquired, match=match):
                await case.pool.discard(conn)
            with pytest.raises(ConnectionNotAcquired, match=match):
                case.pool.detach(conn)


async def test_what_is_idle_or_unknown_cannot_be_taken_out() -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        await case.pool.release(conn)
        for stranger in (conn, Connection('a', 7), None):
            with pytest.raises(ConnectionNotAcquired):
                await case.pool.discard(stranger)  # type: ignore[arg-type]
            with pytest.raises(ConnectionNotAcquired):
                case.pool.detach(stranger)  # type: ignore[arg-type]
        assert case.stats['idle'] == 1


@TAKEN_OUT
@MANAGERS
@pytest.mark.parametrize('fails', [None, KeyError('mine'), Interruption('mine')])
async def test_the_end_of_a_context_does_nothing_then(
    how: str, manager_class: type[Manager], fails: BaseException | None
) -> None:
    async with Case(manager_class()) as case:

        async def client() -> None:
            async with case.pool.connection('a') as conn:
                case.manager.calls.clear()
                await take_out(case, conn, how)
                if fails is not None:
                    raise fails

        if fails is None:
            await client()
        else:
            with pytest.raises(type(fails)):
                await client()
        assert case.manager.calls == (['dispose a1'] if how == 'discard' else [])
        assert case.pool.get_size() == 0


@TAKEN_OUT
@pytest.mark.parametrize('manager_class', [Manager, JudgingManager])
async def test_nor_does_the_end_of_a_context_around_a_subclass_s_own_methods(
    how: str, manager_class: type[Manager]
) -> None:
    released: list[Any] = []

    class Traced(ConnectionPool[Any, Connection]):
        async def release(self, conn: Connection, endpoint: Any = ...) -> None:
            released.append(conn)
            await super().release(conn, endpoint)

    async with Case(manager_class(), pool_class=Traced) as case:
        for fails in (False, True):
            try:
                async with case.pool.connection('a') as conn:
                    await take_out(case, conn, how)
                    assert not fails
            except AssertionError:
                assert fails
        assert released == []
        async with case.pool.connection('a') as conn:
            pass
        assert released == [conn]


async def test_a_context_that_was_left_after_a_discard_can_be_entered_again() -> None:
    async with Case() as case:
        context = case.pool.connection('a')
        for name in ('a1', 'a2'):
            async with context as conn:
                assert conn.name == name
                await case.pool.discard(conn)


async def test_the_others_of_the_endpoint_are_not_suspect_after_a_discard() -> None:
    async with Case(CheckingManager(), check_interval=60.0) as case:
        first, second = await case.acquire('a', 2)
        await case.release(second)
        await case.pool.discard(first)
        assert await case.pool.acquire('a') is second
        assert 'check_aliveness a2' not in case.manager.calls
        await case.release(second)


async def test_a_discard_frees_the_slot_for_who_waits() -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        await case.pool.discard(conn)
        assert (await job.result()).name == 'a2'
        await case.pool.release(case.manager.connections[1])


async def test_a_dispose_that_fails_at_a_discard_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        case.manager.script('dispose', OSError('no'))
        await case.pool.discard(conn)
        assert "closing a connection to 'a' failed: OSError: no" in caplog.text
        assert case.pool.get_size() == 0


@TAKEN_OUT
async def test_taking_out_while_the_connection_is_being_returned_is_refused(how: str) -> None:
    gate = Gate()
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        case.manager.script('on_release', gate)
        job = spawn(case.pool.release, conn, 'a')
        await gate.reached()
        with pytest.raises(ConnectionNotAcquired, match='its state is releasing'):
            await take_out(case, conn, how)
        gate.open()
        await job.result()
        assert case.stats['idle'] == 1


@TAKEN_OUT
async def test_a_hook_may_not_take_out_what_it_was_called_for(how: str) -> None:
    """on_release raises DiscardConnection to have a connection closed."""

    class Meddler(OnlyResetting):
        async def on_release(self, endpoint: Any, conn: Connection) -> None:
            await take_out(case, conn, how)

    async with Case(Meddler()) as case:
        conn = await case.pool.acquire('a')
        with pytest.raises(ConnectionNotAcquired, match='its state is releasing'):
            await case.pool.release(conn, 'a')
        assert case.stats['idle'] == 1


@TAKEN_OUT
@pytest.mark.parametrize('hook', ['on_acquire', 'check_aliveness'])
async def test_an_acquire_whose_hook_takes_its_connection_out_says_so(how: str, hook: str) -> None:
    class Meddler(HookedManager):
        async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
            if hook == 'on_acquire':
                await take_out(case, conn, how)

        async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
            if hook == 'check_aliveness':
                await take_out(case, conn, how)
            return True

    async with Case(Meddler()) as case:
        if hook == 'check_aliveness':
            await case.cycle('a')
        with pytest.raises(ConnectionNotAcquired, match='released the connection'):
            await case.pool.acquire('a')
        await until(lambda: case.pool.get_size() == 0)


@TAKEN_OUT
async def test_the_last_connection_of_a_closing_pool_may_be_taken_out(how: str) -> None:
    async with Case() as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.close)
        await until(lambda: case.pool._core.closed)
        await take_out(case, conn, how)
        assert await job.result() == 0


@pytest.mark.parametrize('where', ['outside', 'in a context'])
async def test_what_close_has_closed_is_not_detached_and_a_discard_of_it_does_nothing(where: str) -> None:
    async with Case() as case:
        if where == 'outside':
            first, second = await case.acquire('a', 2)
            assert await case.pool.close(timeout=0) == 2
            with pytest.raises(ConnectionNotAcquired, match=r'was closed by close\(\)'):
                case.pool.detach(first)
            await case.pool.release(first)
            await case.pool.discard(second)
            with pytest.raises(ConnectionNotAcquired):
                await case.pool.release(second)
        else:
            async with case.pool.connection('a') as first, case.pool.connection('a') as second:
                assert await case.pool.close(timeout=0) == 2
                with pytest.raises(ConnectionNotAcquired, match=r'was closed by close\(\)'):
                    case.pool.detach(first)
                await case.pool.discard(second)
        assert case.stats['closed_pool_closed'] == 2


async def test_detaching_serves_another_endpoint_at_the_total_limit() -> None:
    async with Case(max_size=1, total_max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'b')
        await case.waiting(1)
        case.detach(conn)
        assert (await job.result()).name == 'b1'
        await case.pool.release(case.manager.connections[1])


async def test_a_manager_may_return_what_was_detached_from_another_pool() -> None:
    async with Case() as case, Case() as other:
        conn = await case.pool.acquire('a')
        case.detach(conn)
        other.manager.script('create', conn)
        assert await other.pool.acquire('a') is conn
        other.detach(conn)
        assert other.stats['detached'] == 1
        other.detached.clear()
        other.pool._core.check_invariants()
        assert other.stats['size'] == 0
        other.detached.append(conn)
        other.manager.connections.append(conn)
        other.manager.open.clear()
