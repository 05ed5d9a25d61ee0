"""A signal handler may raise wherever a pool runs Python code: nothing stays open, and who can be served is served."""

import asyncio
import contextlib
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import spawn
from tests.interrupting import interrupt
from tests.pool.support import Case, Manager, OnlyJudging, OnlyResetting
from tests.support import Connection, Interruption


def note_errors() -> list[BaseException]:
    """Note the errors that only the event loop sees, from now on."""
    errors: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context['exception']))
    return errors


@pytest.mark.parametrize('queued', [False, True], ids=['before', 'after'])
async def test_a_waiter_that_is_being_woken_is_woken(queued: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        waiter = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        interrupt(asyncio.get_running_loop(), 'call_soon', monkeypatch, at_end=queued)
        with pytest.raises(Interruption):
            await case.release(conn)
        assert await waiter.result() is conn
        await case.release(conn)


async def test_what_create_has_returned_is_in_the_books_whatever_comes_next() -> None:
    class InterruptedPool(ConnectionPool[Any, Any]):
        async def _bounded(self, *args: Any, **kwargs: Any) -> Any:
            await super()._bounded(*args, **kwargs)
            raise Interruption

    async with Case(pool_class=InterruptedPool) as case:
        with pytest.raises(Interruption):
            await case.pool.acquire('a')
        assert (case.stats['created'], case.stats['acquired']) == (1, 0)
        await case.pool.close()
        assert case.manager.calls == ['create a', 'dispose a1']


async def test_a_connection_counts_as_broken_if_the_manager_could_not_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Case(OnlyJudging()) as case:
        raised = interrupt(ConnectionPool, '_judge', monkeypatch)
        with pytest.raises(Interruption):
            async with case.pool.connection('a'):
                raise ValueError
        assert len(raised) == 1
        await case.pool.close()
        assert case.stats['broken'] == 1


@pytest.mark.parametrize('place', ['_dispose_doomed', '_spawn_disposals', '_dispose_in_turn'])
async def test_what_a_release_has_doomed_is_closed_for_who_waits(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a hook the disposals of a release begin when it is called.
    manager = OnlyResetting() if place == '_dispose_doomed' else Manager()
    async with Case(manager, max_size=1, total_max_size=1) as case:
        conn = await case.pool.acquire('a')
        waiter = spawn(case.pool.acquire, 'b')
        await case.waiting(1)
        errors = note_errors()
        raised = interrupt(ConnectionPool, place, monkeypatch)
        with contextlib.suppress(Interruption):
            await case.release(conn)
        await case.release(await waiter.result())
        assert len(raised) == 1
        await case.pool.close()
    assert errors in ([], raised)


async def test_close_closes_all_though_the_end_of_a_task_is_not_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without a Case, which would close the pool a second time if the first close did not end.
    manager = Manager()
    pool: ConnectionPool[str, Connection] = ConnectionPool(manager, min_idle=0, idle_timeout=0)
    errors = note_errors()
    raised = interrupt(ConnectionPool, '_lane_ended', monkeypatch)
    await pool.release(await pool.acquire('a'), 'a')
    await pool.close()
    assert len(raised) == 1
    assert errors == raised
    assert pool.get_size() == 0
    assert manager.living == []


@pytest.mark.parametrize(('place', 'after'), [('_dispose', 0), ('_spawn_disposal', 0), ('_take_disposal', 1)])
async def test_a_dispose_that_was_not_begun_is_left_to_the_next_task(
    place: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Case(min_idle=0, idle_timeout=0, dispose_batch_size=10, background_collector=True) as case:
        conns = await case.acquire('a', 3)
        errors = note_errors()
        raised = interrupt(ConnectionPool, place, monkeypatch, after=after)
        with contextlib.suppress(Interruption):
            await case.release(*conns)
            await case.pool.close()
        await case.pool.close()
        assert len(raised) == 1
        assert [conn.disposals for conn in conns] == [1] * 3
        assert case.pool.get_size() == 0
    assert errors in ([], raised)
