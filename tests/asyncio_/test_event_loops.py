"""Event loops that end, and coroutines that outlive them: nothing hangs, nothing is reported, the books balance."""

import asyncio
import contextvars
import gc
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gcpool._core import PARALLEL_DISPOSALS
from gcpool.asyncio import ConnectionPool
from tests.asyncio_.scenarios import ACQUIRES, CLOSES, POINTS, SCENARIOS, Scenario, count
from tests.asyncio_.stepping import (
    DAY,
    HOUR,
    LOOPS,
    BareManager,
    Connection,
    Interference,
    StagedManager,
    World,
    catch,
    close_loop,
    hand_timed,
    new_loop,
    no_complaints,
    run,
    turns,
    until,
)
from tests.pool.support import Manager
from tests.support import PATIENCE, dropped_pools

each_loop = pytest.mark.parametrize('kind', LOOPS)
each_manager = pytest.mark.parametrize('manager', [BareManager, StagedManager])

# asyncio's correct report on a task whose loop is closed before its end.
DESTROYED = 'Task was destroyed but it is pending!'


@contextmanager
def new_loops(kind: str) -> Iterator[Any]:
    """A loop that the test runs, stops and closes; anything that is reported fails the test."""
    with no_complaints() as watch:
        loop = new_loop(kind)
        watch(loop)
        try:
            yield loop
        finally:
            if not loop.is_closed():
                close_loop(loop)


def advance_for_a_while(loop: Any, turns_left: int = 200) -> None:
    """Advance the clock while the loop runs, and stop what does not end."""
    loop.advance(1.0)
    if turns_left:
        loop.call_soon(advance_for_a_while, loop, turns_left - 1)
    else:
        loop.stop()


# -- loops that end ---------------------------------------------------------------------------------------------------


async def begin_disposals(world: World, count: int, begun: int) -> None:
    """Start disposals that nothing waits for.

    :param begun: for how many turns of the loop they run
    """
    conns = [await world.acquire('a') for _ in range(count)]
    for conn in conns:
        world.let_go(conn)
        task = asyncio.get_running_loop().create_task(world.pool.release(conn, 'a'))
        await turns(1)
        task.cancel()
    await turns(begun)


class HangingManager(BareManager):
    """Its disposes end only when they are cancelled."""

    def __init__(self, points: int):
        super().__init__(points)
        self.hanging = self.most_hanging = 0

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        conn.disposals += 1
        self.hanging += 1
        self.most_hanging = max(self.most_hanging, self.hanging)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.hanging -= 1
            conn.closed = True
            self.open[endpoint] -= 1


@each_loop
@pytest.mark.parametrize('begun', range(4))
@pytest.mark.parametrize('points', [0, 1, 5])
def test_a_loop_ends_while_connections_are_disposed_of(kind: str, begun: int, points: int) -> None:
    """As asyncio.run ends a loop. Each dispose is called, and may go on for a moment."""
    with new_loops(kind) as loop:

        async def main() -> World:
            world = World(BareManager(0), max_size=5, idle_timeout=0, min_idle=0)
            world.manager.points = points
            await begin_disposals(world, 5, begun)
            return world

        world = loop.run_until_complete(main())
        close_loop(loop)
        assert [conn.disposals for conn in world.manager.created] == [1] * 5
        assert all(conn.closed for conn in world.manager.created)
        world.compare()
        assert world.pool.get_size() == 0


@each_loop
def test_a_loop_ends_while_disposals_hang(kind: str) -> None:
    """They get little time then; the loop does not wait for ever."""

    with new_loops(kind) as loop:

        async def main() -> World:
            world = World(HangingManager(0), max_size=100)
            conns = [await world.acquire('a') for _ in range(100)]
            for conn in conns:
                await world.release(conn)
            closing = asyncio.get_running_loop().create_task(world.pool.close())
            await turns(3)
            closing.cancel()
            return world

        world = loop.run_until_complete(main())
        loop.call_soon(advance_for_a_while, loop)
        close_loop(loop)
        assert [conn.disposals for conn in world.manager.created] == [1] * 100
        world.compare()
        assert world.pool.get_size() == 0


@each_loop
@pytest.mark.parametrize('begun', range(3))
@pytest.mark.parametrize('count', [8, 100])
def test_a_loop_that_ends_closes_side_by_side_what_waits_for_a_worker(kind: str, begun: int, count: int) -> None:
    """The task of the worker closes it all, with the help of others, and ends last."""
    manager = HangingManager(0)
    with new_loops(kind) as loop:

        async def main() -> World:
            world = World(manager, max_size=100, max_workers=1, min_idle=0, idle_timeout=HOUR)
            conns = [await world.acquire('a') for _ in range(count)]
            for conn in conns:
                await world.release(conn)
            core = world.pool._core
            assert core.doom_due(core.now() + DAY, count, True) == count
            world.pool._begin_disposals()
            await turns(begun)
            assert manager.most_hanging == (begun > 0)
            return world

        world = loop.run_until_complete(main())
        loop.call_soon(advance_for_a_while, loop)
        close_loop(loop)
        assert [conn.disposals for conn in world.manager.created] == [1] * count
        # The dispose that has begun is cut off.
        assert manager.most_hanging == min(count - 1, PARALLEL_DISPOSALS)
        assert world.pool.get_size() == 0


@each_loop
@each_manager
@pytest.mark.parametrize('begun', range(8))
def test_a_loop_ends_with_the_pool_in_use(kind: str, manager: Any, begun: int) -> None:
    with new_loops(kind) as loop:

        async def main() -> World:
            world = World(manager(1), max_size=2, total_max_size=3, idle_timeout=HOUR, background_collector=True)
            await world.filled('b')
            for endpoint in 'aaaabbbbcc':
                # Nothing waits for them, or for what they do when cancelled.
                world.spawn(world.visit(endpoint))
            world.spawn(world.pool.acquire('a', DAY))
            await turns(begun)
            return world

        world = loop.run_until_complete(main())
        close_loop(loop)
        world.pool._core.check_invariants()
        stats = world.pool.get_stats()
        assert stats['waiting'] == 0
        assert not world.manager.faults
        # The last acquire may have ended in time.
        assert stats['acquired'] in {len(world.out), len(world.out) + 1}
        world.pool.terminate()
        assert world.pool.get_size() == 0


@pytest.mark.parametrize('debug', [True, False])
@each_manager
def test_asyncio_run_ends_with_everything_under_way(manager: Any, debug: bool) -> None:
    """The real one, in real time."""
    worlds: list[Any] = []
    complaints: list[Any] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        created = manager(1, each=2, total=3)
        pool = ConnectionPool(created, max_size=2, total_max_size=3, min_idle=0, idle_timeout=0)

        async def visit(endpoint: str) -> None:
            async with pool.connection(endpoint):
                await turns(1)

        worlds.extend((pool, created, [asyncio.create_task(visit(endpoint)) for endpoint in 'aaabbbccc']))
        await turns(12)

    with no_complaints():
        asyncio.run(main(), debug=debug)
        pool, created, tasks = worlds
        assert all(task.done() for task in tasks)
        pool._core.check_invariants()
        stats = pool.get_stats()
        assert stats['acquired'] == stats['waiting'] == 0
        # A connection handed to a task that was cancelled in the same turn became idle again.
        assert stats['size'] == stats['idle'] == sum(created.open.values())
        assert sum(conn.disposals for conn in created.created) == len(created.created) - stats['size']
        assert all(conn.disposals <= 1 for conn in created.created)
        assert not created.faults
        assert not complaints
        pool.terminate()


def test_slow_callbacks_are_logged_and_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    created = StagedManager(2)

    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = 0.0
        pool = ConnectionPool(created, max_size=1, min_idle=0, idle_timeout=0)

        async def visit() -> None:
            async with pool.connection('a'):
                pass

        await asyncio.gather(visit(), visit(), visit())
        assert await pool.close() == 0

    with no_complaints(), caplog.at_level(logging.WARNING, 'asyncio'):
        asyncio.run(main(), debug=True)
    assert caplog.records
    assert [conn.disposals for conn in created.created] == [1]


# -- loops that are closed --------------------------------------------------------------------------------------------


class Stop:
    """Stops the loop when the operation is suspended there, and does not resume it."""

    def __init__(self) -> None:
        self.stopped = False

    def __call__(self, awaited: Any, coro: Any) -> None:
        self.stopped = True
        asyncio.get_running_loop().stop()


def begin(loop: Any, scenario: Scenario, number: int, rivals: int) -> World:
    """Run an operation up to one of its suspensions, and stop the loop there."""
    worlds: list[World] = []
    stop = Stop()

    async def main() -> None:
        world = World(scenario.manager(0), **scenario.settings)
        worlds.append(world)
        if scenario.prepare is not None:
            await scenario.prepare(world)
        world.manager.points = POINTS
        # It is held there until long after the loop has stopped.
        interference = Interference(stop, {number}, 1000)
        world.spawn(interference.drive_call(lambda: scenario.operate(world)))
        for _ in range(rivals if scenario in ACQUIRES else 0):
            world.spawn(world.visit('a'))

    starting = loop.create_task(main())
    loop.run_forever()
    assert starting.done()
    starting.result()
    assert stop.stopped
    return worlds[0]


def suspensions(kind: str, scenario: Scenario) -> int:
    return run(kind, lambda: count(scenario))


@each_loop
@pytest.mark.parametrize('scenario', SCENARIOS, ids=repr)
def test_a_loop_is_closed_under_an_operation(kind: str, scenario: Scenario) -> None:
    """Everything that its tasks held or waited for is returned when they are garbage-collected."""
    for number in range(suspensions(kind, scenario)):
        for rivals in (0, 2):
            messages: list[str] = []
            with no_complaints():
                loop = new_loop(kind)
                loop.set_exception_handler(lambda _loop, context, told=messages: told.append(context['message']))
                world = begin(loop, scenario, number, rivals)
                loop.close()
                # The pool keeps tasks alive that wait for it or dispose, as long as the pool exists.
                core = world.pool._core
                with dropped_pools():
                    world.tasks.clear()
                    del world.pool
                    gc.collect()
                assert set(messages) == {DESTROYED}
                core.check_invariants()
                stats = core.stats()
                assert stats['waiting'] == 0
                assert stats['acquired'] == len(world.out), f'at {number}: {stats}, out are {world.out}'
                assert stats['size'] == stats['idle'] + stats['acquired'] + core.doomed
                assert not world.manager.faults
                disposed = [conn for conn in world.manager.created if conn.disposals]
                assert all(conn.disposals == 1 for conn in disposed)
                assert stats['disposed'] == len(disposed)
                assert stats['size'] == len(world.manager.created) - len(disposed)


@each_loop
@pytest.mark.parametrize('steps', range(5))
def test_a_loop_is_closed_under_many_disposals(kind: str, steps: int) -> None:
    """One task then disposes of several connections."""
    messages: list[str] = []
    with no_complaints():
        loop = new_loop(kind)
        loop.set_exception_handler(lambda _loop, context: messages.append(context['message']))

        async def main() -> World:
            world = World(BareManager(0), max_size=150, total_max_size=150)
            conns = [await world.acquire('a') for _ in range(150)]
            for conn in conns:
                await world.release(conn)
            world.manager.points = 3
            asyncio.get_running_loop().create_task(world.pool.close())
            await turns(steps)
            return world

        world = loop.run_until_complete(main())
        loop.close()
        core = world.pool._core
        with dropped_pools(), warnings.catch_warnings():
            del world.pool
            # If it was not begun.
            warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
            gc.collect()
        core.check_invariants()
        assert set(messages) == {DESTROYED}
        disposed = [conn for conn in world.manager.created if conn.disposals]
        assert len(disposed) == core.stats()['disposed'] == (64 if steps > 2 else len(disposed))
        assert all(conn.disposals == 1 and conn.closed for conn in disposed)
        # The others are in the books.
        assert core.size == 150 - len(disposed) == core.doomed + core.stats()['idle']


@each_loop
@pytest.mark.parametrize('steps', range(6))
def test_a_loop_ends_while_the_collector_works(kind: str, steps: int) -> None:
    """While the loop ends, more connections become due: those of cancelled tasks."""
    with new_loops(kind) as loop:

        async def main() -> World:
            world = World(BareManager(1), background_collector=True, max_size=4, min_idle=0, idle_timeout=0)

            async def hold() -> None:
                async with world.pool.connection('a'):
                    await asyncio.get_running_loop().create_future()

            for _ in range(3):
                world.spawn(hold())
            await until(lambda: world.pool.get_stats()['acquired'] == 3, 'they have connections')
            world.spawn(world.visit('a'))
            await until(lambda: world.pool.get_stats()['idle'] or len(world.manager.created) > 3, 'one more comes')
            await turns(steps)
            return world

        world = loop.run_until_complete(main())
        close_loop(loop)
        world.pool._core.check_invariants()
        assert world.pool.get_stats()['acquired'] == 0
        assert all(conn.disposals <= 1 for conn in world.manager.created)
        world.pool.terminate()


@each_loop
@each_manager
def test_a_loop_is_closed_under_a_collector(kind: str, manager: Any) -> None:
    for steps in range(8):
        messages: list[str] = []
        with no_complaints():
            loop = new_loop(kind)
            loop.set_exception_handler(lambda _loop, context, told=messages: told.append(context['message']))

            async def main(steps: int = steps) -> World:
                world = World(manager(0), background_collector=True, max_size=4, min_idle=0)
                await world.filled('a', 'a', 'b', 'b')
                world.manager.points = 3
                hand_timed().advance(2 * HOUR)
                await turns(steps)
                return world

            world = loop.run_until_complete(main())
            loop.close()
            world.pool._core.check_invariants()
            with dropped_pools(), warnings.catch_warnings():
                del world.pool
                # A collector's task that had not begun.
                warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
                gc.collect()
            assert set(messages) <= {DESTROYED}
            assert all(conn.disposals <= 1 for conn in world.manager.created)


# -- coroutines that are ended outside of their loop ------------------------------------------------------------------


async def drive_by_hand(coro: Any, steps: int) -> bool:
    """Take a coroutine to one of its suspensions, without a task of its own.

    :return: whether it got there
    """
    for step in range(steps + 1):
        try:
            awaited = coro.send(None)
        except StopIteration:
            return False
        if awaited is not None:
            awaited._asyncio_future_blocking = False
        if step < steps:
            if awaited is None:
                await turns(1)
            else:
                await until(awaited.done, 'it can go on')
    return True


@each_loop
@pytest.mark.parametrize('scenario', [s for s in SCENARIOS if 'with_limit' not in s.name], ids=repr)
@pytest.mark.parametrize('end', ['close', 'drop'])
def test_a_coroutine_is_ended_while_its_loop_does_not_run(kind: str, scenario: Scenario, end: str) -> None:
    """By hand, or by the garbage collector. When the loop runs again, the next waiter gets what it held."""
    for number in range(suspensions(kind, scenario)):
        with new_loops(kind) as loop:
            coros: list[Any] = []

            async def main(number: int = number, coros: list[Any] = coros) -> World:
                world = World(scenario.manager(0), **scenario.settings)
                if scenario.prepare is not None:
                    await scenario.prepare(world)
                world.manager.points = POINTS
                coros.append(scenario.operate(world))
                driving = world.spawn(drive_by_hand(coros[0], number))
                if scenario in ACQUIRES:
                    await until(lambda: world.pool.get_size() or world.pool.get_stats()['waiting'], 'it has begun')
                    world.spawn(world.visit('a'))
                await until(driving.done, 'it is suspended there')
                assert driving.result()
                return world

            world = loop.run_until_complete(main())
            if end == 'close':
                coros[0].close()
            coros.clear()
            gc.collect()

            async def rest(world: World = world) -> None:
                if scenario not in CLOSES:
                    await until(lambda: all(task.done() for task in world.tasks), 'all are served')
                await world.at_rest()
                await world.end('ab')

            loop.run_until_complete(rest())


@each_loop
@pytest.mark.parametrize('scenario', [s for s in SCENARIOS if 'with_limit' not in s.name], ids=repr)
@pytest.mark.parametrize('background_collector', [True, False])
def test_a_coroutine_is_ended_when_its_loop_is_closed(
    kind: str, scenario: Scenario, background_collector: bool
) -> None:
    """The pool cannot be used any more, but its books balance."""
    for number in range(suspensions(kind, scenario)):
        messages: list[str] = []
        with no_complaints():
            loop = new_loop(kind)
            loop.set_exception_handler(lambda _loop, context, told=messages: told.append(context['message']))

            async def main(number: int = number) -> tuple[World, Any]:
                settings = {**scenario.settings, 'background_collector': background_collector}
                world = World(scenario.manager(0), **settings)
                if scenario.prepare is not None:
                    await scenario.prepare(world)
                world.manager.points = POINTS
                coro = scenario.operate(world)
                # If the collector disposes instead, it is suspended less often.
                assert await drive_by_hand(coro, number) or background_collector
                return world, coro

            world, coro = loop.run_until_complete(main())
            loop.close()
            coro.close()
            world.pool._core.check_invariants()
            world.tasks.clear()
            with dropped_pools(), warnings.catch_warnings():
                del world.pool
                # A collector's task that had not begun.
                warnings.filterwarnings('ignore', 'coroutine .* was never awaited', RuntimeWarning)
                gc.collect()
            assert set(messages) <= {DESTROYED}
            assert all(conn.disposals <= 1 for conn in world.manager.created)


@each_loop
def test_a_pool_goes_on_when_its_loop_runs_again(kind: str) -> None:
    with new_loops(kind) as loop:

        async def build() -> World:
            world = World(StagedManager(1), background_collector=True, min_idle=0)
            await world.filled('a')
            return world

        world = loop.run_until_complete(build())
        for _ in range(3):
            # Becomes due while the loop does not run.
            loop.advance(2 * HOUR)
            loop.run_until_complete(until(lambda: world.pool.get_size() == 0, 'it collects'))
            loop.run_until_complete(world.visit('a'))
        loop.run_until_complete(world.end())


# -- exceptions that end loops ----------------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize('exc_type', [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    'name', ['create', 'check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead', 'dispose']
)
def test_an_exception_that_stops_the_loop(kind: str, name: str, exc_type: type[BaseException]) -> None:
    """Nothing is lost if the loop goes on."""
    if name == 'dispose' and exc_type is SystemExit:
        return  # in a task of the pool, which logs it: see test_system_exit.py
    with new_loops(kind) as loop:

        async def build() -> World:
            world = World(StagedManager(0), max_size=2)
            await world.filled('a', 'a')
            if name in {'create', 'on_connection_dead', 'dispose'}:
                for conn in world.manager.created:
                    conn.dead = True
            world.manager.points = 1
            world.manager.failures[name] = exc_type()
            return world

        world = loop.run_until_complete(build())
        told: list[Any] = []
        if name == 'dispose':
            # Nothing waits for the task that disposes; that its exception left the loop is reported again.
            loop.set_exception_handler(lambda _loop, context: told.append(type(context['exception'])))
        tasks = [loop.create_task(world.visit('a')) for _ in range(4)]
        with pytest.raises(exc_type):
            loop.run_until_complete(asyncio.wait(tasks))
        loop.run_until_complete(asyncio.wait(tasks))
        outcomes = [task.exception() for task in tasks]
        if name != 'dispose':
            assert [type(exc) for exc in outcomes].count(exc_type) == 1
            assert outcomes.count(None) == 3
        else:
            assert outcomes == [None] * 4
            gc.collect()
            assert told == [exc_type]
        loop.run_until_complete(world.end())


# -- contexts ---------------------------------------------------------------------------------------------------------

who: contextvars.ContextVar[str] = contextvars.ContextVar('who', default='nobody')


class ContextManager(StagedManager):
    """Records the context in which its methods are called."""

    def __init__(self, points: int = 2):
        super().__init__(points)
        self.seen: list[tuple[str, str]] = []

    async def pass_through(self, name: str) -> None:
        self.seen.append((name, who.get()))
        await super().pass_through(name)
        if name == 'on_acquire':
            who.set(f'{who.get()} with a connection')


@each_loop
def test_the_methods_of_a_manager_run_in_the_context_of_whom_they_serve(kind: str) -> None:
    async def main() -> None:
        manager = ContextManager()
        world = World(manager, min_idle=0, idle_timeout=0)

        async def visit(name: str) -> str:
            who.set(name)
            async with world.pool.connection('a') as conn:
                world.take(conn)
                seen = who.get()
                world.let_go(conn)
            return seen

        assert await visit('me') == 'me with a connection'
        assert manager.seen == [
            ('create', 'me'),
            ('on_acquire', 'me'),
            ('on_release', 'me with a connection'),
            ('dispose', 'me with a connection'),
        ]
        manager.seen.clear()
        context = contextvars.copy_context()
        task = context.run(asyncio.get_running_loop().create_task, visit('other'))
        assert await task == 'other with a connection'
        assert {name for _, name in manager.seen} == {'other', 'other with a connection'}
        assert who.get() == 'me with a connection'
        await world.end()

    run(kind, main)


@each_loop
def test_whoever_waited_goes_on_in_its_own_context(kind: str) -> None:
    async def main() -> None:
        manager = ContextManager(1)
        world = World(manager)
        seen: list[str] = []

        async def visit(name: str) -> None:
            who.set(name)
            await world.visit('a')
            seen.append(who.get())

        tasks = [asyncio.get_running_loop().create_task(visit(name)) for name in ('first', 'second', 'third')]
        for task in tasks:
            await until(task.done, 'it is served')
        assert seen == [f'{name} with a connection' for name in ('first', 'second', 'third')]
        assert [name for method, name in manager.seen if method == 'on_acquire'] == ['first', 'second', 'third']
        await world.end()

    run(kind, main)


# -- eager tasks ------------------------------------------------------------------------------------------------------

if sys.version_info >= (3, 12):

    @each_loop
    @pytest.mark.parametrize('points', [0, 2])
    @each_manager
    @pytest.mark.parametrize('background_collector', [True, False])
    def test_eager_tasks(kind: str, manager: Any, points: int, background_collector: bool) -> None:
        """The pool's own tasks also begin, and may end, where they are created."""

        async def main() -> None:
            for settings in ({'min_idle': 0, 'idle_timeout': 0}, {'max_lifetime': 0, 'idle_timeout': 0}, {}):
                world = World(manager(points), max_size=2, background_collector=background_collector, **settings)
                for endpoint in 'aaaabb':
                    world.spawn(world.visit(endpoint))
                await until(lambda world=world: all(task.done() for task in world.tasks), 'all are served')  # type: ignore[misc]
                hand_timed().advance(1.0)
                await world.at_rest()
                if settings:
                    await until(lambda world=world: world.pool.get_size() == 0, 'all are disposed of')  # type: ignore[misc]
                await world.end('ab')

        run(kind, main, eager=True)

    @each_loop
    def test_an_eager_task_that_need_not_wait_is_done_at_once(kind: str) -> None:
        async def main() -> None:
            world = World(BareManager(0))
            await world.filled('a')
            task: asyncio.Task[Connection] = asyncio.get_running_loop().create_task(world.pool.acquire('a'))
            assert task.done()
            conn = task.result()
            assert asyncio.get_running_loop().create_task(world.pool.release(conn, 'a')).done()
            await world.end()

        run(kind, main, eager=True)


@each_loop
def test_what_is_thrown_into_a_coroutine_that_did_not_begin(kind: str) -> None:
    """An acquire took nothing; a release has released."""

    async def main() -> None:
        world = World(StagedManager(1))
        conn = await world.acquire('a')
        for exc in (KeyboardInterrupt(), ValueError(), GeneratorExit()):
            acquire: Any = world.pool.acquire('b')
            with pytest.raises(type(exc)) as caught:
                acquire.throw(exc)
            assert caught.value is exc
        assert world.pool.get_size() == 1
        world.let_go(conn)
        release: Any = world.pool.release(conn, 'a')
        with pytest.raises(KeyboardInterrupt):
            release.throw(KeyboardInterrupt())
        assert world.pool.get_stats()['acquired'] == 0
        assert isinstance(await catch(world.pool.release(conn, 'a')), RuntimeError)
        await world.end()

    run(kind, main)


def test_a_release_where_no_loop_runs_gives_the_connection_back() -> None:
    """A coroutine that is closed between two runs of its loop reaches its `finally` there."""
    manager = Manager()
    pool: ConnectionPool[Any, Any] = ConnectionPool(manager, max_size=1)

    async def use() -> None:
        conn = await pool.acquire('a')
        try:
            await asyncio.Event().wait()
        finally:
            await pool.release(conn, 'a')

    async def begin() -> Any:
        coroutine = use()
        coroutine.send(None)
        assert pool.get_stats()['acquired'] == 1
        return coroutine

    loop = asyncio.new_event_loop()
    try:
        coroutine = loop.run_until_complete(begin())
        with pytest.raises(RuntimeError, match='no running event loop'):
            coroutine.close()
        conn = loop.run_until_complete(pool.acquire('a', PATIENCE))
        assert manager.connections == [conn]
        loop.run_until_complete(pool.close(0))
    finally:
        loop.close()


def test_warm_up_in_a_running_loop_begins_there_at_once() -> None:
    pool = ConnectionPool(Manager())

    async def main() -> None:
        pool.warm_up('a', 2)
        for _ in range(10):
            await asyncio.sleep(0)
        assert pool.get_stats()['idle'] == 2
        await pool.close()

    asyncio.run(main())
