"""Which connections are checked before they are served, which are not served again, and what happens to those."""

import logging
import math
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import ConnectionPoolClosedError, DiscardConnection
from tests.asyncio_.runtime import spawn
from tests.pool.support import Case, CheckingManager, Gate, HookedManager, JudgingManager, Manager, OnlyJudging
from tests.support import Connection, Interruption

CHECK = 'check_aliveness'


def checks(case: Case) -> list[str]:
    """Return which connections were checked since the last call."""
    return [call.removeprefix('check_aliveness ') for call in case.manager.take_calls() if call.startswith(CHECK)]


# ---- check_interval -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('manager_class', [CheckingManager, HookedManager])
async def test_without_an_interval_each_acquire_checks(manager_class: type[CheckingManager]) -> None:
    async with Case(manager_class()) as case:
        for _ in range(3):
            await case.cycle('a')
        assert checks(case) == ['a1', 'a1']


@pytest.mark.parametrize('manager_class', [CheckingManager, HookedManager])
async def test_what_was_used_within_the_interval_is_not_checked(manager_class: type[CheckingManager]) -> None:
    async with Case(manager_class(), check_interval=5) as case:
        await case.cycle('a')
        for seconds in (0.0, 4.9, 4.9):
            case.clock.advance(seconds)
            await case.cycle('a')
        assert checks(case) == []
        case.clock.advance(5.0)
        async with case.pool.connection('a') as conn:
            assert conn.name == 'a1'
            case.clock.advance(9.0)
        assert checks(case) == ['a1']
        async with case.pool.connection('a'):
            pass
        assert checks(case) == []


async def test_a_check_that_was_due_does_not_change_who_is_served_next() -> None:
    async with Case(CheckingManager(), check_interval=5, min_idle=3) as case:
        await case.release(*await case.acquire('a', 3))
        case.clock.advance(5)
        assert [await case.cycle('a') for _ in range(4)] == ['a1', 'a2', 'a3', 'a1']
        assert checks(case) == ['a1', 'a2', 'a3']


async def test_a_connection_that_is_handed_over_counts_as_just_used() -> None:
    async with Case(CheckingManager(), check_interval=5, max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        case.clock.advance(100)
        await case.pool.release(conn, 'a')
        assert await job.result() is conn
        assert checks(case) == []
        await case.release(conn)


async def test_an_infinite_interval_never_checks() -> None:
    async with Case(CheckingManager(), check_interval=math.inf) as case:
        await case.cycle('a')
        case.clock.advance(50)
        await case.cycle('a')
        assert checks(case) == []


async def test_an_interval_without_a_check_changes_nothing() -> None:
    async with Case(Manager(), check_interval=5) as case:
        await case.cycle('a')
        case.clock.advance(6)
        assert await case.cycle('a') == 'a1'


async def test_a_connection_found_dead_after_the_interval_is_replaced() -> None:
    async with Case(HookedManager(), check_interval=5) as case:
        await case.cycle('a')
        case.clock.advance(5)
        case.manager.script(CHECK, False)
        case.manager.take_calls()
        assert await case.cycle('a') == 'a2'
        assert case.manager.take_calls() == [
            'check_aliveness a1',
            'dispose a1',
            'on_connection_dead a1',
            'create a',
            'on_acquire a2',
            'on_release a2',
        ]


# ---- suspects -----------------------------------------------------------------------------------------------------


async def test_after_one_dead_connection_the_others_are_checked_once_each() -> None:
    async with Case(CheckingManager(), check_interval=50, min_idle=4) as case:
        await case.release(*await case.acquire('a', 4))
        await case.release(*await case.acquire('b', 2))
        case.clock.advance(10)
        # a1 is used until later: 50 s after the others only they are due.
        await case.cycle('a')
        case.clock.advance(45)
        case.manager.script(CHECK, False)
        held = [await case.pool.acquire('a')]
        assert held[0].name == 'a3'
        # a3 and a4 would have been due anyway; a1 is only suspect.
        assert checks(case) == ['a2', 'a3']
        held += await case.acquire('a', 2)
        assert [conn.name for conn in held] == ['a3', 'a4', 'a1']
        assert checks(case) == ['a4', 'a1']
        await case.release(*held)
        for _ in range(3):
            await case.cycle('a')
        assert checks(case) == []
        await case.cycle('b')
        assert checks(case) == ['b1']
        await case.cycle('b')


async def test_only_the_same_endpoint_is_suspect() -> None:
    async with Case(JudgingManager(), check_interval=50, min_idle=2) as case:
        for endpoint in 'ab':
            await case.release(*await case.acquire(endpoint, 2))
        await break_one(case)
        case.manager.take_calls()
        assert [await case.cycle('b'), await case.cycle('b'), await case.cycle('a')] == ['b1', 'b2', 'a2']
        assert checks(case) == ['a2']


async def test_what_is_created_after_a_dead_one_is_not_suspect() -> None:
    async with Case(JudgingManager(), check_interval=50) as case:
        await case.cycle('a')
        await break_one(case)
        assert await case.cycle('a') == 'a2'
        case.manager.take_calls()
        assert await case.cycle('a') == 'a2'
        assert checks(case) == []


async def test_a_connection_in_use_when_another_is_found_dead_is_suspect_after_its_release() -> None:
    async with Case(JudgingManager(), check_interval=50, min_idle=2) as case:
        conns = await case.acquire('a', 2)
        await case.release(conns[0])
        await break_one(case)
        await case.release(conns[1])
        case.manager.take_calls()
        assert await case.cycle('a') == 'a2'
        assert checks(case) == ['a2']
        assert await case.cycle('a') == 'a2'
        assert checks(case) == []


async def test_several_dead_ones_of_one_outage_do_not_make_new_ones_suspect() -> None:
    async with Case(JudgingManager(), check_interval=50, min_idle=3) as case:
        await case.release(*await case.acquire('a', 3))
        await break_one(case)
        case.manager.script(CHECK, False, False)
        assert await case.cycle('a') == 'a4'
        case.manager.take_calls()
        assert await case.cycle('a') == 'a4'
        assert checks(case) == []


async def test_a_connection_from_between_two_outages_is_suspect_when_an_older_one_is_dead() -> None:
    async with Case(JudgingManager(), check_interval=50, min_idle=3) as case:
        a1, a2 = await case.acquire('a', 2)
        await case.release(a1)
        await break_one(case)
        # Suspect since the first outage, and in use until after the second.
        a3 = await case.pool.acquire('a')
        await case.release(a2)
        case.manager.script(CHECK, False)
        await case.release(a3)
        case.manager.take_calls()
        assert [await case.cycle('a') for _ in range(2)] == ['a3', 'a3']
        assert checks(case) == ['a2', 'a3']


async def test_a_connection_checked_before_another_is_found_dead_is_checked_again() -> None:
    async with Case(JudgingManager(), check_interval=5, min_idle=2) as case:
        conns = await case.acquire('a', 2)
        await case.release(*conns)
        case.clock.advance(5)
        gate = Gate()
        case.manager.script(CHECK, gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        case.manager.script(CHECK, False)
        a3 = await case.pool.acquire('a')
        assert a3.name == 'a3'
        gate.open()
        a1 = await job.result()
        await case.release(a1, a3)
        case.manager.take_calls()
        assert [await case.cycle('a') for _ in range(3)] == ['a1', 'a3', 'a1']
        assert checks(case) == ['a1']


async def test_a_check_that_fails_leaves_a_suspect() -> None:
    async with Case(CheckingManager(), check_interval=5) as case:
        await case.cycle('a')
        case.clock.advance(5)
        for error in (OSError('no'), Interruption('no')):
            case.manager.script(CHECK, error)
            with pytest.raises(type(error)):
                await case.pool.acquire('a')
            assert checks(case) == ['a1']
        assert await case.cycle('a') == 'a1'
        assert checks(case) == ['a1']
        assert await case.cycle('a') == 'a1'
        assert checks(case) == []


async def test_a_check_that_fails_and_then_finds_it_dead_makes_the_others_suspect() -> None:
    async with Case(JudgingManager(), check_interval=5, min_idle=2) as case:
        await case.release(*await case.acquire('a', 2))
        case.clock.advance(3)
        a1, a2 = await case.acquire('a', 2)
        await case.release(a2)
        case.clock.advance(3)
        await case.release(a1)
        case.clock.advance(3)
        # Only a2 is due. Its check is interrupted, and the next one finds it dead; a1 was used 3 s ago.
        case.manager.script(CHECK, Interruption('cut off'), False)
        with pytest.raises(Interruption):
            await case.pool.acquire('a')
        case.manager.take_calls()
        held = await case.acquire('a', 2)
        assert [conn.name for conn in held] == ['a1', 'a3']
        assert checks(case) == ['a2']
        await case.release(*held)
        assert [await case.cycle('a') for _ in range(3)] == ['a1', 'a3', 'a1']
        assert checks(case) == ['a1']


async def test_a_connection_being_created_when_another_is_found_dead_is_suspect() -> None:
    async with Case(JudgingManager(), check_interval=50) as case:
        await case.cycle('a')
        a1 = await case.pool.acquire('a')
        gate = Gate()
        case.manager.script('create', gate)
        job = spawn(case.pool.acquire, 'a')
        await gate.reached()
        await case.release(a1)
        await break_one(case)
        gate.open()
        await case.release(await job.result())
        case.manager.take_calls()
        assert await case.cycle('a') == 'a2'
        assert checks(case) == ['a2']


@pytest.mark.parametrize('error', [lambda: OSError('no'), Interruption], ids=['error', 'interruption'], indirect=True)
async def test_after_a_hook_that_failed_it_is_checked(error: BaseException) -> None:
    async with Case(HookedManager(), check_interval=50) as case:
        case.manager.script('on_release', error)
        conn = await case.pool.acquire('a')
        with pytest.raises(type(error)):
            await case.pool.release(conn, 'a')
        assert await case.cycle('a') == 'a1'
        assert checks(case) == ['a1']
        assert await case.cycle('a') == 'a1'
        assert checks(case) == []


async def test_a_connection_whose_on_acquire_fails_is_checked_each_time() -> None:
    async with Case(HookedManager(), check_interval=50) as case:
        await case.cycle('a')
        for _ in range(3):
            case.manager.script('on_acquire', OSError('no'))
            with pytest.raises(OSError):
                await case.pool.acquire('a')
        assert checks(case) == ['a1', 'a1']
        case.manager.script(CHECK, False)
        assert await case.cycle('a') == 'a2'


# ---- check_timeout ------------------------------------------------------------------------------------------------


async def test_a_check_that_raises_a_timeout_of_its_own_reaches_the_caller() -> None:
    async with Case(CheckingManager()) as case:
        await case.cycle('a')
        case.manager.script(CHECK, TimeoutError('mine'))
        with pytest.raises(TimeoutError, match='mine'):
            await case.pool.acquire('a')
        assert case.stats['idle'] == 1
        assert case.stats['dead'] == 0


# ---- is_broken ----------------------------------------------------------------------------------------------------


async def use(pool: ConnectionPool[Any, Connection], endpoint: str, error: BaseException) -> None:
    """Use a connection, with this outcome."""
    async with pool.connection(endpoint):
        raise error


async def fail(case: Case, error: BaseException, endpoint: str = 'a') -> None:
    with pytest.raises(type(error)) as caught:
        await use(case.pool, endpoint, error)
    assert caught.value is error


async def break_one(case: Case) -> None:
    """Use the next connection that is served, and break it."""
    case.manager.script('is_broken', True)
    await fail(case, OSError('gone'))


@pytest.mark.parametrize('error', [lambda: OSError('gone'), Interruption], ids=['error', 'interruption'], indirect=True)
async def test_what_is_broken_is_disposed_of_and_not_served_again(error: BaseException) -> None:
    async with Case(JudgingManager()) as case:
        case.manager.script('is_broken', True)
        await fail(case, error)
        assert case.manager.take_calls() == [
            'create a',
            'on_acquire a1',
            'is_broken a1',
            'dispose a1',
            'on_connection_dead a1',
        ]
        assert (case.stats['broken'], case.stats['dead'], case.stats['size']) == (1, 0, 0)
        assert await case.cycle('a') == 'a2'


@pytest.mark.parametrize('error', [lambda: OSError('mine'), Interruption], ids=['error', 'interruption'], indirect=True)
async def test_what_is_not_broken_is_released_as_usual(error: BaseException) -> None:
    async with Case(JudgingManager()) as case:
        await fail(case, error)
        assert case.manager.take_calls() == ['create a', 'on_acquire a1', 'is_broken a1', 'on_release a1']
        assert await case.cycle('a') == 'a1'
        assert case.stats['broken'] == 0


async def test_is_broken_is_not_called_when_nothing_was_raised() -> None:
    async with Case(JudgingManager()) as case:
        async with case.pool.connection('a'):
            pass
        assert case.manager.take_calls() == ['create a', 'on_acquire a1', 'on_release a1']


@pytest.mark.parametrize('hooks', [True, False])
async def test_is_broken_receives_what_was_raised(hooks: bool) -> None:
    told: list[tuple[Any, Connection, BaseException]] = []

    class Listening(Manager):
        async def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
            told.append((endpoint, conn, exc))
            return False

    class ListeningToAll(HookedManager):
        is_broken = Listening.is_broken

    async with Case(ListeningToAll() if hooks else Listening()) as case:
        error = OSError('mine')
        await fail(case, error, 'b')
        assert told == [('b', case.manager.connections[0], error)]
        told.clear()


@pytest.mark.parametrize('hooks', [True, False])
async def test_when_is_broken_fails_the_connection_is_disposed_of(
    hooks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with Case(JudgingManager() if hooks else OnlyJudging()) as case:
        case.manager.script('is_broken', ZeroDivisionError('oops'))
        with caplog.at_level(logging.ERROR, 'gcpool'):
            await fail(case, OSError('mine'))
        assert "is_broken() failed for a connection to 'a'" in caplog.text
        assert 'ZeroDivisionError: oops' in caplog.text
        assert (case.stats['broken'], case.stats['size']) == (1, 0)


async def test_when_is_broken_is_interrupted_the_connection_is_disposed_of() -> None:
    async with Case(JudgingManager()) as case:
        case.manager.script('is_broken', Interruption('oops'))
        with pytest.raises(Interruption, match='oops'):
            await use(case.pool, 'a', OSError('mine'))
        assert (case.stats['broken'], case.stats['acquired']) == (1, 0)


async def test_a_slot_that_a_broken_connection_frees_goes_to_who_waits() -> None:
    async with Case(JudgingManager(), max_size=1) as case:
        case.manager.script('is_broken', True)

        async def client() -> str:
            async with case.pool.connection('a') as conn:
                return conn.name

        jobs = []

        async def fail_when_somebody_waits() -> None:
            async with case.pool.connection('a'):
                jobs.append(spawn(client))
                await case.waiting(1)
                raise OSError('gone')

        with pytest.raises(OSError, match='gone'):
            await fail_when_somebody_waits()
        assert await jobs[0].result() == 'a2'


async def test_a_broken_connection_whose_dispose_fails_is_gone_all_the_same() -> None:
    async with Case(JudgingManager()) as case:
        case.manager.script('dispose', OSError('no'))
        await break_one(case)
        assert case.stats['size'] == 0


async def test_what_the_hook_raises_after_a_broken_connection_reaches_the_caller() -> None:
    async with Case(JudgingManager()) as case:
        case.manager.script('is_broken', True)
        case.manager.script('on_connection_dead', OSError('from the hook'))
        with pytest.raises(OSError, match='from the hook') as caught:
            await use(case.pool, 'a', KeyError('mine'))
        assert isinstance(caught.value.__context__, KeyError)
        assert case.stats['size'] == 0


async def test_is_broken_is_not_called_for_a_connection_closed_while_in_use() -> None:
    async with Case(JudgingManager()) as case:

        async def fail_when_the_pool_is_closed() -> None:
            async with case.pool.connection('a'):
                assert await case.pool.close(timeout=0) == 1
                raise OSError('mine')

        with pytest.raises(OSError, match='mine'):
            await fail_when_the_pool_is_closed()
        assert 'is_broken a1' not in case.manager.calls
        with pytest.raises(ConnectionPoolClosedError):
            await case.pool.acquire('a')


async def test_an_ambiguous_result_of_is_broken_counts_as_broken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Ambiguous:
        def __bool__(self) -> bool:
            raise ZeroDivisionError('neither')

    class Undecided(HookedManager):
        async def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
            return Ambiguous()  # type: ignore[return-value]

    class Plain(ConnectionPool[Any, Connection]):
        async def release(self, conn: Connection, endpoint: Any) -> None:  # type: ignore[override]
            await super().release(conn, endpoint)

    for pool in (ConnectionPool(Undecided()), Plain(Undecided())):
        with caplog.at_level(logging.ERROR, 'gcpool'):
            await fail_in(pool, OSError('mine'))
        assert 'ZeroDivisionError: neither' in caplog.text
        assert (pool.get_stats()['broken'], pool.get_stats()['size']) == (1, 0)
        caplog.clear()


async def fail_in(pool: ConnectionPool[Any, Connection], error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        await use(pool, 'a', error)
    assert caught.value is error


async def test_no_hook_sees_a_connection_closed_while_is_broken_runs() -> None:
    async with Case(JudgingManager()) as case:
        gate = Gate(False)
        case.manager.script('is_broken', gate)
        job = spawn(fail, case, OSError('mine'))
        await gate.reached()
        assert await case.pool.close(timeout=0) == 1
        gate.open()
        await job.result()
        assert case.manager.calls[-1] == 'dispose a1'


async def test_a_subclass_that_gives_out_something_of_its_own_keeps_its_users_errors() -> None:
    class Wrapping(ConnectionPool[Any, Any]):
        async def acquire(self, endpoint: Any, timeout: float | None = None) -> Any:  # type: ignore[override]
            return [await super().acquire(endpoint, timeout)]

        async def release(self, conn: Any, endpoint: Any) -> None:  # type: ignore[override]
            await super().release(conn[0], endpoint)

    pool = Wrapping(JudgingManager())
    await fail_in(pool, KeyError('mine'))
    assert pool.get_stats()['idle'] == 1
    await pool.close()


async def test_a_subclass_s_release_sees_broken_connections_too() -> None:
    released = []

    class Counting(ConnectionPool[Any, Connection]):
        async def release(self, conn: Connection, endpoint: Any) -> None:  # type: ignore[override]
            released.append(conn.name)
            await super().release(conn, endpoint)

    manager = JudgingManager()
    pool = Counting(manager)
    for broken in (True, False):
        manager.script('is_broken', broken)
        with pytest.raises(OSError, match='mine'):
            await use(pool, 'a', OSError('mine'))
    assert released == ['a1', 'a2']
    assert manager.living == ['a2']
    assert pool.get_stats()['broken'] == 1
    await pool.close()


# ---- DiscardConnection --------------------------------------------------------------------------------------------


async def test_what_on_release_discards_is_disposed_of_and_release_returns() -> None:
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        case.manager.script('on_release', DiscardConnection('in the middle of something'))
        case.manager.take_calls()
        await case.pool.release(conn, 'a')
        assert case.manager.take_calls() == ['on_release a1', 'dispose a1']
        assert (case.stats['broken'], case.stats['size']) == (1, 0)


async def test_what_on_release_discards_though_it_was_fit_does_not_count_as_broken() -> None:
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        case.manager.script('on_release', DiscardConnection('it was the last request', broken=False))
        await case.pool.release(conn, 'a')
        assert (case.stats['broken'], case.stats['closed_discarded'], case.stats['size']) == (0, 1, 0)


async def test_a_subclass_of_discard_connection_that_does_not_call_its_init_discards_as_well() -> None:
    class WornOut(DiscardConnection):
        def __init__(self, uses: int) -> None:
            self.uses = uses

    async with Case(HookedManager()) as case:
        case.manager.script('on_release', WornOut(7))
        await case.cycle('a')
        assert case.stats['broken'] == 1
        assert case.pool.get_size() == 0


async def test_a_release_that_discards_disposes_of_what_is_due() -> None:
    async with Case(HookedManager(), min_idle=0, idle_timeout=10) as case:
        await case.cycle('a')
        case.clock.advance(10)
        case.manager.script('on_release', DiscardConnection())
        await case.cycle('b')
        assert case.pool.get_size() == 0


async def test_what_on_release_discards_at_the_end_of_a_context_is_disposed_of() -> None:
    async with Case(HookedManager()) as case:
        case.manager.script('on_release', DiscardConnection())
        async with case.pool.connection('a'):
            pass
        assert case.manager.living == []
        case.manager.script('on_release', DiscardConnection())
        await fail(case, OSError('mine'))
        assert case.manager.living == []


async def test_the_slot_of_what_was_discarded_goes_to_who_waits() -> None:
    async with Case(HookedManager(), max_size=1) as case:
        conn = await case.pool.acquire('a')
        job = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        case.manager.script('on_release', DiscardConnection())
        await case.pool.release(conn, 'a')
        other = await job.result()
        assert other.name == 'a2'
        await case.release(other)


async def test_what_is_discarded_makes_nothing_suspect() -> None:
    async with Case(HookedManager(), check_interval=50, min_idle=2) as case:
        conns = await case.acquire('a', 2)
        case.manager.script('on_release', DiscardConnection())
        await case.release(*conns)
        assert await case.cycle('a') == 'a2'
        assert checks(case) == []


async def test_a_connection_closed_while_in_use_and_discarded_is_disposed_of_once() -> None:
    async with Case(HookedManager()) as case:
        conn = await case.pool.acquire('a')
        gate = Gate(DiscardConnection())
        case.manager.script('on_release', gate)
        job = spawn(case.pool.release, conn, 'a')
        await gate.reached()
        assert await case.pool.close(timeout=0) == 1
        gate.open()
        await job.result()
        assert conn.disposals == 1
