"""Calls of the pool from within its callbacks and hooks: each works, or is refused with a reason; none deadlocks."""

from collections.abc import Callable
from typing import Any

import pytest

from gcpool.common import PoolEvent
from gcpool.exceptions import BaseError
from tests.asyncio_.runtime import Job, result_of, spawn, until
from tests.support import Connection

from .support import Case, JudgingManager

REFUSED = OSError('connection refused')


async def use(pool: Any) -> None:
    async with pool.connection('b', timeout=0):
        pass


async def use_and_discard(pool: Any) -> None:
    await pool.discard(await pool.acquire('b', timeout=0))


def suspend_and_resume(pool: Any) -> None:
    pool.suspend()
    pool.resume()


def look(pool: Any) -> None:
    assert repr(pool)
    assert pool.get_stats()['size'] <= pool.total_max_size
    assert pool.get_stats('a')['size'] <= pool.max_size
    pool.pop_stats()


# Those that close the pool are the last ones.
PLAIN: dict[str, Callable[[Any], Any]] = {
    'look': look,
    'suspend_and_resume': suspend_and_resume,
    'try_acquire': lambda pool: pool.try_acquire('none'),
    'warm_up': lambda pool: pool.warm_up('c', 1),
    'terminate': lambda pool: pool.terminate(),
}
CALLS: dict[str, Callable[[Any], Any]] = {
    **PLAIN,
    'use': use,
    'use_and_discard': use_and_discard,
    'check': lambda pool: pool.check(),
    'drain': lambda pool: pool.drain(),
    'forget': lambda pool: pool.forget('a'),
    'open': lambda pool: pool.open(),
    'resize': lambda pool: pool.resize(max_size=3, min_size=1),
    'wait': lambda pool: pool.wait(timeout=0),
    'wait_idle': lambda pool: pool.wait_idle(),
    'wait_idle_at_once': lambda pool: pool.wait_idle(timeout=0),
    'close': lambda pool: pool.close(),
    'close_at_once': lambda pool: pool.close(timeout=0),
    'close_without_waiting': lambda pool: pool.close(wait=False),
}
HOOKS = [
    'create',
    'dispose',
    'check_aliveness',
    'on_acquire',
    'on_release',
    'on_connection_dead',
    'is_broken',
]
# Plain in both runtimes.
PLAIN_HOOKS = ['normalize', 'is_refusal', 'is_hopeless', 'describe_endpoint']


class Calling(JudgingManager):
    """One of its hooks calls the pool, once."""

    def __init__(self, hook: str, call: Callable[[Any], Any]) -> None:
        super().__init__()
        self.hook = hook
        self.call: Callable[[Any], Any] | None = call
        self.pool: Any = None
        self.outcomes: list[BaseException | None] = []

    async def come_back(self, name: str) -> None:
        call = self.call
        if name != self.hook or call is None or self.pool is None:
            return
        self.call = None
        try:
            await result_of(call(self.pool))
            self.outcomes.append(None)
        except (BaseError, TimeoutError) as exc:
            self.outcomes.append(exc)

    def come_back_at_once(self, name: str) -> None:
        call = self.call
        if name != self.hook or call is None or self.pool is None:
            return
        self.call = None
        try:
            call(self.pool)
            self.outcomes.append(None)
        except BaseError as exc:
            self.outcomes.append(exc)

    async def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        await self.come_back('create')
        return await super().create(endpoint, timeout)

    async def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        await self.come_back('dispose')
        await super().dispose(endpoint, conn, timeout)

    async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        await self.come_back('check_aliveness')
        return await super().check_aliveness(endpoint, conn, timeout)

    async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        await self.come_back('on_acquire')

    async def on_release(self, endpoint: Any, conn: Connection) -> None:
        await self.come_back('on_release')

    async def on_connection_dead(self, endpoint: Any, conn: Connection) -> None:
        await self.come_back('on_connection_dead')

    async def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        await self.come_back('is_broken')
        return True

    def normalize(self, endpoint: Any) -> Any:
        self.come_back_at_once('normalize')
        return endpoint

    def is_refusal(self, endpoint: Any, exc: BaseException) -> bool:
        self.come_back_at_once('is_refusal')
        return 'full' in str(exc)

    def is_hopeless(self, endpoint: Any, exc: BaseException) -> bool:
        self.come_back_at_once('is_hopeless')
        return False

    def describe_endpoint(self, endpoint: Any) -> object:
        self.come_back_at_once('describe_endpoint')
        return endpoint


async def live(case: Case) -> None:
    """An outage, a server that is full, a use, one that fails, a check that finds it dead, and a drain."""
    pool = case.pool
    try:
        async with pool.connection('a', timeout=60):
            pass
        try:
            async with pool.connection('a', timeout=60):
                raise KeyError('mine')
        except KeyError:
            pass
        async with pool.connection('a', timeout=60):
            pass
        case.manager.script('check_aliveness', False)
        await pool.check()
        async with pool.connection('a', timeout=60):
            pass
        await pool.drain()
        await pool.close(timeout=1)
    except BaseError:
        # The call has closed the pool.
        assert pool.closed, 'the pool is refused though it is open'


async def end_of(case: Case, job: Job[None]) -> None:
    def ended() -> bool:
        case.clock.advance(0.05)
        return job.done

    await until(ended)
    await job.result()


async def run(manager: Calling, **options: Any) -> None:
    case = Case(
        manager,
        max_size=2,
        total_max_size=4,
        reconnect_timeout=0.01,
        wait_when_full=True,
        create_in_background=True,
        name='orders',
        **options,
    )
    manager.pool = case.pool
    case.manager.script('create', REFUSED, OSError('full'), REFUSED, REFUSED)
    job = spawn(live, case)
    await end_of(case, job)
    # The call itself may wait for what the others do.
    await until(lambda: bool(manager.outcomes))
    closing = spawn(case.pool.close, 0)
    await closing.result()
    await until(lambda: case.pool.get_size() == 0)
    case.pool._core.check_invariants()
    assert [conn.disposals for conn in manager.connections] == [1] * len(manager.connections)


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('hook', HOOKS)
async def test_a_hook_may_call_the_pool(hook: str, call: str) -> None:
    await run(Calling(hook, CALLS[call]))


@pytest.mark.parametrize('call', PLAIN)
@pytest.mark.parametrize('hook', PLAIN_HOOKS)
async def test_a_plain_hook_may_call_the_pool(hook: str, call: str) -> None:
    await run(Calling(hook, PLAIN[call]), on_event=lambda event: None)


@pytest.mark.parametrize('kind', ['connected', 'closed', 'outage_began'])
@pytest.mark.parametrize('call', CALLS)
async def test_on_event_may_call_the_pool(call: str, kind: str) -> None:
    manager = Calling('on_event', CALLS[call])

    async def on_event(event: PoolEvent) -> None:
        if event.kind == kind:
            await manager.come_back('on_event')

    await run(manager, on_event=on_event)


@pytest.mark.parametrize('call', CALLS)
async def test_reconnect_failed_may_call_the_pool(call: str) -> None:
    manager = Calling('reconnect_failed', CALLS[call])

    async def reconnect_failed(pool: Any, endpoint: Any, exc: BaseException) -> None:
        assert pool is manager.pool
        await manager.come_back('reconnect_failed')

    await run(manager, reconnect_failed=reconnect_failed)
