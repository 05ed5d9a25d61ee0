"""``on_event`` of a pool on asyncio: it is called in a task of its own, and may do anything."""

import asyncio
import contextvars

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.common import PoolEvent
from gcpool.exceptions import ConnectionPoolClosedError
from tests.asyncio_.runtime import Event, until
from tests.pool.support import Case, Manager
from tests.support import PATIENCE, Connection

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar('VARIABLE')


async def test_a_coroutine_function_is_awaited_and_told_one_event_after_the_other() -> None:
    told = []

    async def on_event(event: PoolEvent) -> None:
        told.append(f'{event.kind} {event.endpoint} begins')
        await asyncio.sleep(0)
        told.append(f'{event.kind} {event.endpoint} ends')

    async with Case(name='orders', on_event=on_event) as case:
        await case.cycle('a')
        await case.cycle('b')
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        assert 'gcpool-orders-events' in tasks
        await until(lambda: len(told) == 4)
        await case.pool.close()
        assert told[:4] == ['connected a begins', 'connected a ends', 'connected b begins', 'connected b ends']
        assert len(told) == 8


async def test_the_task_has_an_empty_context() -> None:
    found = []
    VARIABLE.set('of a request')
    async with Case(on_event=lambda event: found.append(VARIABLE.get('nothing'))) as case:
        await case.cycle('a')
        await until(lambda: found == ['nothing'])


async def test_a_coroutine_function_may_acquire_the_very_connection_that_it_is_told_of() -> None:
    taken: list[str] = []

    async def on_event(event: PoolEvent) -> None:
        if event.kind == 'connected':
            async with case.pool.connection(event.endpoint, timeout=PATIENCE) as conn:
                taken.append(conn.name)

    async with Case(max_size=1, total_max_size=1, on_event=on_event) as case:
        for endpoint in 'abc':
            await case.cycle(endpoint)
            await until(lambda endpoint=endpoint: f'{endpoint}1' in taken)  # type: ignore[misc]
        await until(lambda: case.stats['in_use'] == 0)


@pytest.mark.parametrize('kind', ['connected', 'connect_failed', 'closed', 'timeout'])
async def test_a_coroutine_function_may_close_the_pool(kind: str) -> None:
    closed = Event()

    async def on_event(event: PoolEvent) -> None:
        if event.kind == kind:
            await case.pool.close()
            closed.set()

    async with Case(max_size=1, on_event=on_event) as case:
        case.manager.script('create', OSError('no'))
        with pytest.raises(OSError, match='no'):
            await case.pool.acquire('b')
        try:
            async with case.pool.connection('a'):
                with pytest.raises(TimeoutError):
                    await case.pool.acquire('a', timeout=0)
        except ConnectionPoolClosedError:
            assert case.pool._core.closed
        await case.pool.close()
        await closed.wait('close() does not return')
        assert case.pool.get_size() == 0


async def test_a_hanging_coroutine_function_does_not_keep_close_from_its_end() -> None:
    cancelled = []

    async def on_event(event: PoolEvent) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(event.kind)
            raise

    async with Case(on_event=on_event) as case:
        await case.cycle('a')
        await asyncio.sleep(0)
        assert await case.pool.close(timeout=0) == 0
        assert cancelled == ['connected']


def test_keyboard_interrupt_ends_the_program_and_later_events_are_told() -> None:
    """As one in a callback of the loop. (For SystemExit see test_system_exit.py.)"""
    told = []

    def on_event(event: PoolEvent) -> None:
        told.append(event.kind)
        if len(told) == 1:
            raise KeyboardInterrupt

    async def main() -> None:
        async with Case(on_event=on_event) as case:
            await case.cycle('a')
            await case.cycle('b')
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert told.count('connected') == 2


def test_what_was_not_told_when_the_loop_ends_hurts_nobody() -> None:
    told = []

    async def on_event(event: PoolEvent) -> None:
        await asyncio.sleep(3600)
        told.append(event.kind)

    async def main() -> Case:
        case = Case(on_event=on_event)
        await case.cycle('a')
        await case.cycle('b')
        return case

    case = asyncio.run(main())
    assert told == []
    case.pool._core.check_invariants()
    case.pool.terminate()


def test_what_happens_before_a_loop_uses_the_pool_is_told_there_first() -> None:
    told: list[str] = []
    pool: ConnectionPool[str, Connection] = ConnectionPool(Manager(), on_event=lambda event: told.append(event.kind))
    pool.suspend()
    pool.resume()

    async def use() -> None:
        await pool.release(await pool.acquire('a'))
        await pool.close()

    asyncio.run(use())
    assert told == ['suspended', 'resumed', 'connected', 'closed']


async def test_suspending_a_pool_that_no_loop_has_used_does_not_bind_it() -> None:
    told: list[str] = []
    pool: ConnectionPool[str, Connection] = ConnectionPool(Manager(), on_event=lambda event: told.append(event.kind))
    pool.suspend()
    pool.resume()
    assert pool._bound_loop is None
    await pool.drain()
    await until(lambda: told == ['suspended', 'resumed', 'drained'])
