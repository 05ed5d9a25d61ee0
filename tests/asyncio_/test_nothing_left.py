"""What a pool leaves in its event loop: nothing after it is closed, and nothing of a request's while it lives."""

import asyncio
import contextlib
import contextvars
import gc
import inspect
import sys
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import ConnectionPoolClosedError
from tests.asyncio_.stepping import (
    HOOKS,
    HOUR,
    LOOPS,
    BareManager,
    Connection,
    JudgingManager,
    StagedManager,
    World,
    bounded,
    hand_timed,
    new_loop,
    no_complaints,
    run,
    turns,
    until,
)

each_loop = pytest.mark.parametrize('kind', LOOPS)
each_manager = pytest.mark.parametrize('manager', [BareManager, StagedManager])

# ---------------------------------------------------------------------------------------------------------------------
# Closed
# ---------------------------------------------------------------------------------------------------------------------


class HangingManager(BareManager):
    """Closes nothing before it is told to, or cancelled. Then it may still take its time."""

    deaf = False

    def __init__(self, points: int = 0) -> None:
        super().__init__(points)
        self.go_on = asyncio.Event()

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        conn.disposals += 1
        try:
            while True:
                try:
                    await self.go_on.wait()
                    return
                except asyncio.CancelledError:
                    if not self.deaf:
                        raise
        finally:
            conn.closed = True
            self.open[endpoint] -= 1


class HangingJudge(HangingManager):
    """Judges every connection whose user's block raised as broken."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: list[Connection] = []

    async def is_broken(self, endpoint: str, conn: Connection, exc: BaseException) -> bool:
        return True

    async def on_connection_dead(self, endpoint: str, conn: Connection) -> None:
        assert conn.closed
        self.dead.append(conn)


def of_the_pool() -> 'list[asyncio.Task[Any]]':
    return [task for task in asyncio.all_tasks() if task.get_name().startswith('gcpool-')]


async def nothing_under_way(world: World) -> None:
    await world.filled('a', 'b')


async def collecting(world: World) -> None:
    await world.filled('a', 'a', 'b')
    hand_timed().advance(2 * HOUR)


async def about_to_collect(world: World) -> None:
    await world.filled('a', 'b')


async def released_by_tasks_that_were_cancelled(world: World) -> None:
    conns = [await world.acquire('a') for _ in range(3)]
    hand_timed().advance(2000 * 24 * HOUR)
    for conn in conns:
        world.let_go(conn)
        task = world.spawn(world.pool.release(conn, 'a'))
        await turns(1)
        task.cancel()


async def somebody_waits(world: World) -> None:
    conn = await world.acquire('c')
    for timeout in (None, HOUR):
        world.tasks.add(asyncio.ensure_future(refused(world, timeout)))
    await until(lambda: world.pool.get_stats()['waiting'] == 2, 'they wait')
    world.spawn(world.release(conn))


async def refused(world: World, limit: float | None) -> None:
    # Whether it is served before the pool is closed depends on the order of events.
    with contextlib.suppress(ConnectionPoolClosedError):
        await world.visit('c', limit)


@each_loop
@each_manager
@pytest.mark.parametrize(
    'under_way',
    [nothing_under_way, about_to_collect, collecting, released_by_tasks_that_were_cancelled, somebody_waits],
    ids=lambda case: case.__name__,
)
@pytest.mark.parametrize('steps', range(8))
@pytest.mark.parametrize('timeout', [None, HOUR])
def test_a_loop_may_be_closed_as_soon_as_the_pool_is(
    kind: str, manager: Any, under_way: Any, steps: int, timeout: float | None
) -> None:
    """The pool is closed at each step of its work. asyncio.run() would hide what is left, by ending the loop."""
    with no_complaints() as watch:
        loop = new_loop(kind)
        watch(loop)

        async def prepare() -> World:
            world = World(
                manager(2), max_size=1 if under_way is somebody_waits else 3, min_idle=0, background_collector=True
            )
            await under_way(world)
            await turns(steps)
            return world

        world = loop.run_until_complete(prepare())
        left = loop.run_until_complete(world.close(timeout))
        assert left == 0
        assert not [task for task in asyncio.all_tasks(loop) if task.get_name().startswith('gcpool-')]
        # What belongs to the test.
        loop.run_until_complete(asyncio.wait(world.tasks)) if world.tasks else None
        if under_way is not somebody_waits:
            assert loop.pending_timers() == 0
        loop.close()
        assert world.pool.get_size() == 0
        assert all(conn.disposals == 1 for conn in world.manager.created)


@each_loop
@pytest.mark.parametrize('collector', [False, True])
@pytest.mark.parametrize('timeout', [0, 5.0])
def test_disposals_that_hang_are_cancelled_when_the_time_of_close_is_over(
    kind: str, collector: bool, timeout: float
) -> None:
    """Also disposals that were begun before, without a limit of their own."""

    async def main() -> None:
        world = World(HangingManager(), max_size=3, min_idle=0, background_collector=collector)
        await world.filled('a', 'a', 'b')
        hand_timed().advance(2 * HOUR)
        if not collector:
            world.spawn(world.visit('c'))
        await until(of_the_pool, 'they are being closed')
        closing = asyncio.ensure_future(world.pool.close(timeout))
        await until_in_time(closing)
        assert not of_the_pool()
        assert world.pool.get_size() == 0
        assert all(conn.disposals == 1 for conn in world.manager.created)
        await asyncio.gather(*world.tasks, return_exceptions=True)

    run(kind, main)


async def until_in_time(future: 'asyncio.Future[Any]') -> None:
    """Advance the clock until something is done."""
    for _ in range(200):
        await turns(20)
        if future.done():
            return
        hand_timed().advance(0.1)
    raise AssertionError(f'{future!r} does not end')


@each_loop
def test_close_does_not_wait_for_a_dispose_that_ignores_its_cancellation(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        manager = HangingManager()
        manager.deaf = True
        world = World(manager, max_size=3)
        await world.filled('a')
        closing = asyncio.ensure_future(world.pool.close(1.0))
        await until_in_time(closing)
        assert closing.result() == 0
        assert 'tasks that did not end when they were cancelled: 1' in caplog.text
        (task,) = of_the_pool()
        manager.go_on.set()
        await bounded(task)

    run(kind, main)


@each_loop
def test_a_dispose_may_close_the_pool(kind: str) -> None:
    async def main() -> None:
        world = World(BareManager(0), max_size=3, min_idle=0, idle_timeout=0)
        dispose = world.manager.dispose
        closed: list[int] = []

        async def close_first(endpoint: str, conn: Connection) -> None:
            world.manager.dispose = dispose  # type: ignore[method-assign]
            await dispose(endpoint, conn)
            closed.append(await world.pool.close(1.0))

        world.manager.dispose = close_first  # type: ignore[method-assign]
        releasing = asyncio.ensure_future(world.visit('a'))
        await until_in_time(releasing)
        assert closed == [0]
        assert not of_the_pool()

    run(kind, main)


@each_loop
def test_a_hook_may_close_the_pool_in_a_task_of_its_own(kind: str) -> None:
    class Closing(HangingJudge):
        async def on_connection_dead(self, endpoint: str, conn: Connection) -> None:
            await asyncio.get_running_loop().create_task(world.pool.close())

    manager = Closing()
    world: World

    async def main() -> None:
        nonlocal world
        world = World(manager)
        manager.go_on.set()

        async def use() -> None:
            async with world.pool.connection('a'):
                raise LookupError

        using = asyncio.ensure_future(use())
        await until_in_time(using)
        assert isinstance(using.exception(), LookupError)
        closing = asyncio.ensure_future(world.pool.close())
        await until_in_time(closing)
        assert closing.result() == 0
        await turns(5)
        assert not of_the_pool()

    run(kind, main)


# ---------------------------------------------------------------------------------------------------------------------
# Left
# ---------------------------------------------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize('manager', [HangingManager, HangingJudge])
@pytest.mark.parametrize('error', [LookupError, asyncio.TimeoutError, asyncio.CancelledError])
def test_whoever_leaves_a_broken_connection_waits_a_moment_for_its_end(
    kind: str, manager: Any, error: type[BaseException]
) -> None:
    """So that a timeout around the block holds, even if the server does not answer. The slot is free when the
    connection is closed."""

    async def main() -> None:
        hanging: HangingManager = manager()
        world = World(hanging)

        async def use() -> None:
            async with world.pool.connection('a') as conn:
                if manager is HangingManager:
                    world.pool._core.entry_if_acquired(conn, 'a').break_()  # type: ignore[union-attr]
                raise error

        began = hand_timed().time()
        using = asyncio.ensure_future(use())
        await until_in_time(using)
        assert hand_timed().time() - began < 0.5
        assert using.cancelled() if error is asyncio.CancelledError else isinstance(using.exception(), error)
        assert world.pool.get_size() == 1
        following = world.spawn(world.visit('a'))
        await turns(20)
        assert not following.done()
        hanging.go_on.set()
        await until(following.done, 'the slot is free')
        await world.at_rest()
        assert world.manager.created[0].closed
        assert getattr(world.manager, 'dead', world.manager.created[:1]) == world.manager.created[:1]
        await world.end()

    run(kind, main)


# ---------------------------------------------------------------------------------------------------------------------
# Contexts
# ---------------------------------------------------------------------------------------------------------------------


class Request:
    """What a program puts into the context of each request."""


request: contextvars.ContextVar[Request] = contextvars.ContextVar('request')


async def released(world: World) -> None:
    await world.visit('a')


async def waited_within_a_limit(world: World) -> None:
    conn = await world.acquire('a')
    waiting = asyncio.ensure_future(world.visit('a', 100 * HOUR))
    await until(lambda: world.pool.get_stats()['waiting'], 'it waits')
    await world.release(conn)
    await bounded(waiting)


async def left_a_context(world: World) -> None:
    await world.visit_with('a', HOUR)


async def found_one_dead(world: World) -> None:
    world.manager.created[0].dead = True
    await world.visit('a', 1000 * HOUR)


@each_loop
@each_manager
@pytest.mark.parametrize(
    'use', [released, waited_within_a_limit, left_a_context, found_one_dead], ids=lambda case: case.__name__
)
def test_a_pool_keeps_nothing_of_the_context_of_a_request(kind: str, manager: Any, use: Any) -> None:
    async def main() -> None:
        world = World(manager(1), background_collector=True, min_idle=0, idle_timeout=100 * HOUR)
        if use is found_one_dead:
            await world.filled('a')

        async def serve() -> weakref.ref[Request]:
            mine = Request()
            request.set(mine)
            await use(world)
            return weakref.ref(mine)

        task = asyncio.get_running_loop().create_task(serve())
        kept = await task
        del task
        await turns(3)
        gc.collect()
        assert world.pool.get_size() == 1
        assert kept() is None
        await world.end()

    run(kind, main)


# ---------------------------------------------------------------------------------------------------------------------
# What other code takes for a coroutine
# ---------------------------------------------------------------------------------------------------------------------

QUESTIONS: list[Callable[[Any], bool]] = [
    inspect.iscoroutine,
    inspect.isawaitable,
    asyncio.iscoroutine,
    lambda value: isinstance(value, types.CoroutineType),
    lambda value: isinstance(value, Coroutine),
    lambda value: isinstance(value, Awaitable),
]


@each_loop
def test_what_acquire_and_release_return_is_a_coroutine_to_everybody(kind: str) -> None:
    async def main() -> None:
        world = World(BareManager(0))
        for idle in (False, True):
            acquiring = world.pool.acquire('a')
            assert [ask(acquiring) for ask in QUESTIONS] == [True] * len(QUESTIONS), idle
            conn = await acquiring
            releasing = world.pool.release(conn, 'a')
            assert [ask(releasing) for ask in QUESTIONS] == [True] * len(QUESTIONS)
            await releasing
        await world.end()

    run(kind, main)


@each_loop
def test_tools_that_ask_tasks_what_they_await_are_answered(kind: str) -> None:
    """As asyncio's call graph does: it takes a frame from each coroutine that has ``cr_await``."""

    async def main() -> None:
        world = World(JudgingManager(2))
        seen: set[str] = set()

        async def look() -> None:
            for task in asyncio.all_tasks():
                if sys.version_info >= (3, 14):
                    # A task that has not begun has only the frame of a native coroutine.
                    asyncio.format_call_graph(task)
                coro: Any = task.get_coro()
                frames = []
                while hasattr(coro, 'cr_await'):
                    frames.append(coro.cr_frame)
                    seen.add(coro.cr_code.co_name)
                    coro = coro.cr_await
                assert None not in frames
                assert len(frames) == len(set(frames)), 'no frame is told twice'

        async def use() -> None:
            async with world.pool.connection('a', HOUR) as conn:
                conn.dead = True
                raise LookupError

        using, visiting = asyncio.ensure_future(use()), asyncio.ensure_future(world.visit('a'))
        for _ in range(100):
            await turns(1)
            await look()
        assert isinstance(using.exception(), LookupError)
        visiting.result()
        assert seen >= set(HOOKS) - {'check_aliveness'}
        await world.end()

    run(kind, main)


@pytest.mark.parametrize('kind', LOOPS)
def test_task_groups_of_anyio_take_them(kind: str) -> None:
    anyio = pytest.importorskip('anyio')

    async def main() -> None:
        pool = ConnectionPool[str, Connection](BareManager(0, each=3), max_size=3)
        conns = [await pool.acquire('a') for _ in range(3)]
        async with anyio.create_task_group() as group:
            for conn in conns:
                group.start_soon(pool.release, conn, 'a')
        assert pool.get_stats()['acquired'] == 0
        async with anyio.create_task_group() as group:
            group.start_soon(pool.acquire, 'a')
        assert pool.get_stats()['acquired'] == 1
        assert await pool.close(0) == 1

    loop = new_loop(kind)
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
