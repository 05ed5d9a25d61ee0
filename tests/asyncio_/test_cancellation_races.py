"""Two events in one turn of the loop, in either order, and other things that happen to tasks: nothing is lost."""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from gcpool.exceptions import ConnectionNotAcquired, ConnectionPoolClosedError, PoolTimeout
from tests.asyncio_.stepping import (
    CANCELLATIONS,
    DAY,
    HOUR,
    LOOPS,
    BareManager,
    Connection,
    Interference,
    StagedManager,
    World,
    bounded,
    cancel_while_suspended,
    catch,
    hand_timed,
    run,
    throw,
    turns,
    until,
)

each_loop = pytest.mark.parametrize('kind', LOOPS)
each_manager = pytest.mark.parametrize('manager', [BareManager, StagedManager])


class Boom(Exception):
    """An error of a manager."""


class Quake(BaseException):
    """An error that ``except Exception`` does not catch."""


async def queue_up(world: World, *endpoints: str, timeout: float | None = None) -> 'list[asyncio.Task[Connection]]':
    """Let a number of tasks wait, in this order."""
    tasks = []
    for endpoint in endpoints:
        before = world.pool.get_stats()['waiting']
        tasks.append(asyncio.get_running_loop().create_task(world.acquire(endpoint, timeout)))
        await until(lambda before=before: world.pool.get_stats()['waiting'] > before, 'it waits')  # type: ignore[misc]
    return tasks


# -- hand-off and cancellation ----------------------------------------------------------------------------------------


def cancel_then_release(world: World, conn: Connection, task: 'asyncio.Task[Any]') -> Any:
    task.cancel()
    return world.release(conn)


async def release_then_cancel(world: World, conn: Connection, task: 'asyncio.Task[Any]') -> Any:
    await world.release(conn)
    task.cancel()


def cancel_twice_then_release(world: World, conn: Connection, task: 'asyncio.Task[Any]') -> Any:
    task.cancel()
    task.cancel()
    return world.release(conn)


async def cancel_release_cancel(world: World, conn: Connection, task: 'asyncio.Task[Any]') -> Any:
    task.cancel()
    await world.release(conn)
    task.cancel()


@each_loop
@pytest.mark.parametrize(
    'act',
    [cancel_then_release, release_then_cancel, cancel_twice_then_release, cancel_release_cancel],
    ids=lambda act: act.__name__,
)
@pytest.mark.parametrize('followers', [0, 1, 3])
@pytest.mark.parametrize('limit', [None, HOUR])
def test_release_and_cancel_in_one_turn(kind: str, act: Any, followers: int, limit: float | None) -> None:
    """The next waiter gets the connection."""

    async def main() -> None:
        world = World(BareManager(0))
        conn = await world.acquire()
        first, *others = await queue_up(world, *['a'] * (1 + followers), timeout=limit)
        await act(world, conn, first)
        await until(first.done, 'the cancelled one ends')
        assert first.cancelled()
        for other in others:
            await until(other.done, 'the next one is served')
            assert other.result() is conn
            await world.release(conn)
        assert len(world.manager.created) == 1
        await world.end()

    run(kind, main)


@each_loop
@each_manager
def test_served_and_cancelled_one_after_the_other(kind: str, manager: Any) -> None:
    """Each of many waiters except the last is cancelled in the turn in which it is served."""

    async def main() -> None:
        world = World(manager(0))
        conn = await world.acquire()
        *tasks, last = await queue_up(world, *['a'] * 6)
        await world.release(conn)
        for task in tasks:
            task.cancel()
        await until(last.done, 'the last one is served')
        assert last.result() is conn
        assert all(task.cancelled() for task in tasks)
        await world.end()

    run(kind, main)


@each_loop
def test_those_who_are_left_are_served_in_order(kind: str) -> None:
    async def main() -> None:
        world = World(BareManager(0))
        conn = await world.acquire()
        tasks = await queue_up(world, *['a'] * 7)
        for task in (tasks[1], tasks[4], tasks[6]):
            task.cancel()
        await turns()
        world.compare()
        order: list[asyncio.Task[Connection]] = []
        for task in (tasks[0], tasks[2], tasks[3], tasks[5]):
            task.add_done_callback(order.append)
        await world.release(conn)
        for task in (tasks[0], tasks[2], tasks[3], tasks[5]):
            await until(task.done, 'it is served')
            await world.release(task.result())
        await turns(2)
        assert order == [tasks[0], tasks[2], tasks[3], tasks[5]]
        await world.end()

    run(kind, main)


@each_loop
@pytest.mark.parametrize('release_first', [True, False])
def test_time_limit_over_in_the_turn_of_the_hand_over(kind: str, release_first: bool) -> None:
    """A task that was handed a connection keeps it: its wait succeeded."""

    async def main() -> None:
        world = World(BareManager(0))
        conn = await world.acquire()
        first, second = await queue_up(world, 'a', 'a', timeout=HOUR)
        if release_first:
            await world.release(conn)
            hand_timed().advance(DAY)
        else:
            hand_timed().advance(DAY)
            await world.release(conn)
        await until(lambda: first.done() and second.done(), 'both end')
        assert first.result() is conn
        with pytest.raises(PoolTimeout):
            second.result()
        assert world.pool.get_stats()['timeouts'] == 1
        await world.end()

    run(kind, main)


@each_loop
def test_time_limit_over_cancelled_and_handed_over_in_one_turn(kind: str) -> None:
    async def main() -> None:
        world = World(BareManager(0))
        conn = await world.acquire()
        first, second = await queue_up(world, 'a', 'a', timeout=HOUR)
        hand_timed().advance(HOUR / 2)
        (third,) = await queue_up(world, 'a', timeout=DAY)
        hand_timed().advance(HOUR)
        await world.release(conn)
        first.cancel()
        await until(lambda: first.done() and second.done(), 'two end')
        assert first.cancelled()
        # When the first task gave up the connection, the second was next, and had not looked at the clock yet.
        assert second.result() is conn
        assert not third.done()
        await world.release(conn)
        await until(third.done, 'the third is served')
        assert third.result() is conn
        await world.end()

    run(kind, main)


@each_loop
def test_cancelled_and_the_pool_closed_in_one_turn(kind: str) -> None:
    async def main() -> None:
        for order in ('close first', 'cancel first'):
            world = World(BareManager(0))
            conn = await world.acquire()
            first, second = await queue_up(world, 'a', 'a')
            if order == 'cancel first':
                first.cancel()
            closing = world.spawn(world.pool.close())
            await until(lambda world=world: world.pool._core.closed, 'it is closed')  # type: ignore[misc]
            first.cancel()
            await world.release(conn)
            await until(closing.done, 'it closes')
            assert first.cancelled()
            with pytest.raises(ConnectionPoolClosedError):
                second.result()
            await world.end()

    run(kind, main)


@each_loop
def test_the_hooks_do_not_see_what_the_pool_was_closed_over(kind: str) -> None:
    """The pool is closed, and the time of close() is over, between the hand-over or a check and the next step."""

    class ClosingManager(StagedManager):
        world: World

        async def check_aliveness(self, endpoint: str, conn: Connection) -> bool:
            alive = await super().check_aliveness(endpoint, conn)
            await self.world.pool.close(0)
            return alive

    async def main() -> None:
        manager = ClosingManager(1)
        manager.world = world = World(manager)
        conn = await world.acquire('a')
        (task,) = await queue_up(world, 'a')
        await world.release(conn)
        await until(task.done, 'it is refused')
        with pytest.raises(ConnectionPoolClosedError):
            task.result()
        assert manager.calls['on_acquire'] == 1
        await world.end()

        world = World(StagedManager(0))
        conn = await world.acquire('a')
        (task,) = await queue_up(world, 'a')
        await world.release(conn)
        # The task has been handed the connection, and has not run yet.
        assert await world.pool.close(0) == 1
        await until(task.done, 'it is refused')
        with pytest.raises(ConnectionPoolClosedError):
            task.result()
        assert world.manager.calls['check_aliveness'] == 0
        await world.end()

    run(kind, main)


# -- before the first step --------------------------------------------------------------------------------------------


@each_loop
@each_manager
@pytest.mark.parametrize('idle', [True, False])
def test_acquire_cancelled_before_its_first_step(kind: str, manager: Any, idle: bool) -> None:
    async def main() -> None:
        world = World(manager(1))
        if idle:
            await world.filled('a')
        task = asyncio.get_running_loop().create_task(world.pool.acquire('a'))
        task.cancel()
        await turns(3)
        assert task.cancelled()
        await world.at_rest()
        await world.end()

    run(kind, main)


@each_loop
@each_manager
@pytest.mark.parametrize('settings', [{}, {'idle_timeout': 0, 'min_idle': 0}, {'max_lifetime': 0, 'idle_timeout': 0}])
@pytest.mark.parametrize('awaited', [True, False])
def test_release_cancelled_before_its_first_step(kind: str, manager: Any, settings: Any, awaited: bool) -> None:
    """The connection is returned all the same."""

    async def main() -> None:
        world = World(manager(1), **settings)
        conn = await world.acquire()
        waiting = await queue_up(world, 'a') if awaited else []
        world.let_go(conn)
        task = asyncio.get_running_loop().create_task(world.pool.release(conn, 'a'))
        task.cancel()
        await until(task.done, 'it ends')
        assert task.cancelled()
        for other in waiting:
            await until(other.done, 'whoever waited is served')
            await world.release(other.result())
        await world.at_rest()
        await world.end()

    run(kind, main)


@each_loop
def test_release_twice_cancelled_before_its_first_step(kind: str) -> None:
    """It is an error all the same, and changes nothing."""

    async def main() -> None:
        world = World(BareManager(0))
        await world.filled('a')
        conn = world.manager.created[0]
        task = asyncio.get_running_loop().create_task(world.pool.release(conn, 'a'))
        task.cancel()
        await until(task.done, 'it ends')
        assert task.cancelled() or isinstance(task.exception(), ConnectionNotAcquired)
        await world.end()

    run(kind, main)


@each_loop
def test_close_cancelled_before_its_first_step(kind: str) -> None:
    async def main() -> None:
        world = World(BareManager(1))
        await world.filled('a')
        task = asyncio.get_running_loop().create_task(world.pool.close())
        task.cancel()
        await until(task.done, 'it ends')
        assert not world.pool._core.closed
        await world.end()

    run(kind, main)


@each_loop
@each_manager
def test_shielded_release_of_a_cancelled_task(kind: str, manager: Any) -> None:
    async def main() -> None:
        world = World(manager(2))
        conn = await world.acquire()
        world.let_go(conn)

        async def give_back() -> None:
            await asyncio.shield(world.pool.release(conn, 'a'))

        task = asyncio.get_running_loop().create_task(give_back())
        await turns(1)
        task.cancel()
        await until(task.done, 'it ends')
        await until(lambda: world.pool.get_stats()['acquired'] == 0, 'the connection is back')
        await turns(5)
        await world.end()

    run(kind, main)


@each_loop
@each_manager
def test_exit_cancelled_before_its_first_step(kind: str, manager: Any) -> None:
    """As in ``create_task(context.__aexit__(...))``, which shields and exit stacks may do."""

    async def main() -> None:
        for settings in ({}, {'idle_timeout': 0, 'min_idle': 0}):
            world = World(manager(1), **settings)
            context: Any = world.pool.connection('a')
            world.take(conn := await context.__aenter__())
            (waiting,) = await queue_up(world, 'a')
            world.let_go(conn)
            task: asyncio.Task[None] = asyncio.get_running_loop().create_task(
                drive(context.__aexit__(None, None, None))
            )
            await until(task.done, 'it ends')
            task.result()
            await until(waiting.done, 'whoever waited is served')
            await world.end()

    async def drive(leaving: Any) -> None:
        task = asyncio.ensure_future(leaving)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(kind, main)


# -- tasks that nobody holds ------------------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize('limit', [None, HOUR])
def test_a_waiting_task_that_nobody_holds_is_served(kind: str, limit: float | None) -> None:
    """Loops keep weak references to tasks; what a task waits for must keep it alive, as a lock of asyncio does."""

    async def main() -> None:
        world = World(BareManager(0))
        conn = await world.acquire()
        done: list[Connection] = []

        async def work() -> None:
            async with world.pool.connection('a', limit) as mine:
                done.append(mine)

        for _ in range(3):
            asyncio.get_running_loop().create_task(work())
        await until(lambda: world.pool.get_stats()['waiting'] == 3, 'they wait')
        gc.collect()
        assert world.pool.get_stats()['waiting'] == 3
        await world.release(conn)
        await until(lambda: len(done) == 3, 'they are served')
        await world.end()

    run(kind, main)


@each_loop
def test_a_closing_task_that_nobody_holds_closes(kind: str) -> None:
    async def main() -> None:
        world = World(BareManager(0))
        conn = await world.acquire()
        done: list[int] = []

        async def work() -> None:
            done.append(await world.pool.close())

        asyncio.get_running_loop().create_task(work())
        await turns(3)
        gc.collect()
        await world.release(conn)
        await until(lambda: done == [0], 'it is closed')
        await world.end()

    run(kind, main)


# -- disposals --------------------------------------------------------------------------------------------------------


class HangingManager(BareManager):
    """Its disposals end when told to, or are cancelled."""

    def __init__(self, points: int = 0):
        super().__init__(points)
        self.hanging: list[asyncio.Future[None]] = []

    async def pass_through(self, name: str) -> None:
        if name == 'dispose':
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.hanging.append(future)
            await future
        await super().pass_through(name)

    def end_disposals(self) -> None:
        for future in self.hanging:
            if not future.done():
                future.set_result(None)


class HangingCheckedManager(HangingManager):
    """Reports connections as dead."""

    async def check_aliveness(self, endpoint: str, conn: Connection) -> bool:
        return not conn.dead


@each_loop
def test_a_disposal_that_hangs_does_not_take_an_acquire_past_its_time_limit(kind: str) -> None:
    async def evicted() -> World:
        world = World(HangingManager(), total_max_size=1)
        await world.filled('b')
        return world

    async def dead() -> World:
        world = World(HangingCheckedManager())
        await world.filled('a')
        world.manager.created[0].dead = True
        return world

    async def main() -> None:
        for prepare in (evicted, dead):
            world = await prepare()
            (task,) = await queue_up(world, 'a', timeout=HOUR)
            manager = world.manager
            assert isinstance(manager, HangingManager)
            await until(lambda manager=manager: manager.hanging, 'it disposes')  # type: ignore[misc]
            hand_timed().advance(DAY)
            await until(task.done, 'the time is over')
            with pytest.raises(PoolTimeout, match='3600 s'):
                task.result()
            assert world.pool.get_size() == 1, 'the slot is free again when the disposal has ended'
            manager.end_disposals()
            await world.at_rest()
            assert world.pool.get_size() == 0
            world.manager.pass_through = BareManager(0).pass_through  # type: ignore[method-assign]
            await world.end()

    run(kind, main)


@each_loop
def test_a_disposal_that_hangs_does_not_hold_up_others(kind: str) -> None:
    """An acquire that finds an expired connection need not wait for its close if another one may be created."""

    async def main() -> None:
        world = World(HangingManager(), max_size=2, max_lifetime=HOUR)
        await world.filled('a')
        hand_timed().advance(2 * HOUR)
        task = world.spawn(world.acquire('a'))
        await until(task.done, 'it is served')
        manager = world.manager
        assert isinstance(manager, HangingManager)
        await until(lambda: len(manager.hanging) == 1, 'the other one is disposed of')
        manager.end_disposals()
        world.manager.pass_through = BareManager(0).pass_through  # type: ignore[method-assign]
        await world.end()

    run(kind, main)


@each_loop
def test_dispose_timeout_frees_the_slot(kind: str) -> None:
    async def main() -> None:
        world = World(HangingManager(), dispose_timeout=HOUR, idle_timeout=0, min_idle=0)
        conn = await world.acquire()
        releasing = world.spawn(world.release(conn))
        await turns(3)
        (task,) = await queue_up(world, 'a')
        assert not releasing.done()
        hand_timed().advance(DAY)
        await until(task.done, 'it is served')
        await until(releasing.done, 'it is released')
        world.manager.pass_through = BareManager(0).pass_through  # type: ignore[method-assign]
        await world.end()

    run(kind, main)


@each_loop
def test_cancelled_release_leaves_the_slot_taken_until_the_disposal_has_ended(kind: str) -> None:
    async def main() -> None:
        world = World(HangingManager(), idle_timeout=0, min_idle=0)
        conn = await world.acquire()
        releasing = asyncio.get_running_loop().create_task(world.release(conn))
        await turns(3)
        releasing.cancel()
        await until(releasing.done, 'it ends')
        assert releasing.cancelled()
        (task,) = await queue_up(world, 'a')
        await turns(5)
        assert not task.done()
        assert isinstance(world.manager, HangingManager)
        world.manager.end_disposals()
        await until(task.done, 'it is served')
        world.manager.pass_through = BareManager(0).pass_through  # type: ignore[method-assign]
        await world.end()

    run(kind, main)


@contextmanager
def interfere_with(name: str, interference: Interference) -> Iterator[None]:
    """Disturb the pools' tasks that run the coroutine of this method."""
    method = getattr(ConnectionPool, name)

    def interfered_with(*args: Any) -> Coroutine[Any, Any, Any]:
        return interference.drive(method(*args))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConnectionPool, name, interfered_with)
        yield


@each_loop
@pytest.mark.parametrize('exc_type', [None, Boom, TimeoutError])
def test_the_task_that_disposes_is_interfered_with(kind: str, exc_type: Any) -> None:
    """It disposes of the other connections, too, and their slots become free."""

    async def play(interference: Interference) -> None:
        world = World(BareManager(0), max_size=4, total_max_size=4, idle_timeout=HOUR, min_idle=0)
        conns = [await world.acquire('a') for _ in range(4)]
        world.manager.points = 2
        tasks = await queue_up(world, 'b', 'b', 'c', 'c')
        with interfere_with('_dispose_in_turn', interference):
            hand_timed().advance(2 * HOUR)
            # Each takes a slot that waiters at other endpoints want.
            for conn in conns:
                world.spawn(world.release(conn))
            for task in tasks:
                await until(task.done, 'whoever waits is served')
            await world.at_rest()
        await world.end('abc')

    async def main() -> None:
        interference = Interference()
        await play(interference)
        assert 'dispose' in interference.places
        for number in range(len(interference.places)):
            for act in CANCELLATIONS if exc_type is None else [throw(exc_type())]:
                interference = Interference(act, {number})
                await play(interference)
                assert interference.acted == 1

    run(kind, main)


@each_loop
def test_disposals_cancelled_before_their_first_step(kind: str) -> None:
    async def main() -> None:
        world = World(BareManager(2), max_size=4, max_lifetime=HOUR)
        conns = [await world.acquire('a') for _ in range(4)]
        for conn in conns:
            await world.release(conn)
        closing = world.spawn(world.pool.close())
        await until(lambda: world.pool._tasks, 'they are about to be disposed of')
        tasks = list(world.pool._tasks)
        for task in tasks:
            task.cancel()
        assert await bounded(closing) == 0
        assert all(conn.disposals == 1 and conn.closed for conn in conns)
        await world.end()

    run(kind, main)


@each_loop
@each_manager
def test_dispose_raises_what_is_no_exception(kind: str, manager: Any) -> None:
    """The loop's exception handler is told; the slots become free, and the other connections are disposed of."""

    async def main() -> None:
        world = World(manager(0), max_size=3, idle_timeout=HOUR, min_idle=0)
        await world.filled('a', 'a', 'a')
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        told: list[BaseException] = []
        loop.set_exception_handler(lambda _loop, context: told.append(context['exception']))
        quake = world.manager.failures['dispose'] = Quake()
        await world.end(())
        await turns(2)
        gc.collect()
        assert told == [quake]
        loop.set_exception_handler(handler)

    run(kind, main)


# -- the collector ----------------------------------------------------------------------------------------------------


@each_loop
@pytest.mark.parametrize('cancel', CANCELLATIONS, ids=lambda act: act.__name__)
def test_the_collector_is_cancelled_at_each_await(kind: str, cancel: Any) -> None:
    """What it was about to dispose of is disposed of, and it goes on collecting."""

    async def play(interference: Interference) -> None:
        world = World(BareManager(2), background_collector=True, min_idle=0, max_size=3)
        with interfere_with('_collect', interference):
            await world.filled('a', 'a', 'b')
            hand_timed().advance(2 * HOUR)
            await until(lambda: world.pool.get_size() == 0, 'it collects')
            await world.at_rest()
            for _ in range(2):
                await world.filled('a', 'b')
                hand_timed().advance(2 * HOUR)
                await until(lambda: world.pool.get_size() == 0, 'it collects again')
                await world.at_rest()
        await world.end()
        assert hand_timed().pending_timers() == 0

    async def main() -> None:
        interference = Interference()
        await play(interference)
        assert len(interference.places) >= 3
        for number in range(len(interference.places)):
            interference = Interference(cancel, {number})
            await play(interference)
            assert interference.acted == 1

    run(kind, main)


@each_loop
def test_the_collector_is_cancelled_before_its_first_step(kind: str) -> None:
    async def main() -> None:
        world = World(BareManager(2), background_collector=True, min_idle=0, max_size=3)
        await world.filled('a', 'a', 'b')
        known = asyncio.all_tasks()
        hand_timed().advance(2 * HOUR)
        await until(lambda: asyncio.all_tasks() - known, 'it is about to collect')
        for task in asyncio.all_tasks() - known:
            task.cancel()
        await turns(3)
        await world.filled('b')
        hand_timed().advance(2 * HOUR)
        await until(lambda: world.pool.get_size() == 0, 'it collects')
        await world.at_rest()
        await world.end()

    run(kind, main)


# -- managers that do as they like with a cancellation ----------------------------------------------------------------


class StubbornManager(StagedManager):
    """Goes on when it is cancelled."""

    async def pass_through(self, name: str) -> None:
        try:
            await super().pass_through(name)
        except asyncio.CancelledError:
            await asyncio.sleep(0)


@each_loop
@pytest.mark.parametrize('cancel', CANCELLATIONS, ids=lambda act: act.__name__)
def test_a_manager_that_swallows_cancellations(kind: str, cancel: Any) -> None:
    """A manager may do so; the connection that it returns all the same belongs to the acquirer."""

    async def main() -> None:
        for number in range(4):
            world = World(StubbornManager(2))
            interference = Interference(cancel, {number})
            task = world.spawn(interference.drive(world.acquire('a')))
            await until(task.done, 'it ends')
            assert interference.acted == 1
            assert isinstance(task.result(), Connection)
            await world.end()

    run(kind, main)


@each_loop
def test_a_manager_that_connects_although_the_time_is_over(kind: str) -> None:
    async def main() -> None:
        for number in range(4):
            world = World(StubbornManager(2))
            interference = Interference(lambda awaited, coro: hand_timed().advance(DAY), {number})
            task = asyncio.get_running_loop().create_task(interference.drive(world.acquire('a', HOUR)))
            await until(task.done, 'it ends')
            # Both are right as long as nothing is lost: the connection, or that the next step had no time left.
            assert isinstance(await catch(task), (Connection, PoolTimeout))
            await world.end()

    run(kind, main)


@each_loop
def test_a_manager_that_cancels_itself(kind: str) -> None:
    """A CancelledError that the manager raises by itself reaches the acquirer unchanged."""

    async def main() -> None:
        for name in ('create', 'check_aliveness', 'on_acquire', 'on_release'):
            world = World(StagedManager(1))
            if name != 'create':
                await world.filled('a')
            world.manager.failures[name] = asyncio.CancelledError('of the manager')
            task = asyncio.get_running_loop().create_task(world.visit('a'))
            await until(task.done, 'it ends')
            assert task.cancelled()
            await world.at_rest()
            await world.end()

    run(kind, main)


class CancellingManager(BareManager):
    """Raises a CancelledError of its own at the end of each dispose."""

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        await super().dispose(endpoint, conn)
        raise asyncio.CancelledError('of the manager')


@each_loop
def test_disposes_that_cancel_themselves_do_not_cut_off_the_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are the others given less time, as they are where the loop ends."""
    count = 100
    limits: list[float | None] = []
    dispose = ConnectionPool._dispose

    async def note_limit(pool: ConnectionPool[Any, Any], disposal: Any, deadline: float | None) -> None:
        limits.append(deadline)
        await dispose(pool, disposal, deadline)

    async def main() -> None:
        world = World(CancellingManager(0), max_size=count)
        conns = [await world.acquire('a') for _ in range(count)]
        for conn in conns:
            await world.release(conn)
        assert await bounded(world.close()) == 0
        assert world.pool.get_size() == 0
        await world.end()

    monkeypatch.setattr(ConnectionPool, '_dispose', note_limit)
    run(kind, main)
    assert len(limits) == count
    # Before Python 3.11 a task does not tell who cancels it.
    if sys.version_info >= (3, 11):
        assert set(limits) == {None}


@each_loop
def test_cancelled_by_itself_before_it_waits(kind: str) -> None:
    """A cancellation that is already requested when acquire begins takes effect at the next await, not before."""

    async def main() -> None:
        world = World(BareManager(0))
        await world.filled('a')

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            # Does not wait, so the cancellation does not take effect in it.
            async with world.pool.connection('a') as conn:
                assert conn is world.manager.created[0]
            await world.pool.acquire('b')

        task = asyncio.get_running_loop().create_task(work())
        world.manager.points = 1
        await until(task.done, 'it ends')
        assert task.cancelled()
        await world.end()

    run(kind, main)


@each_loop
def test_gathered_acquires_of_which_one_fails(kind: str) -> None:
    async def main() -> None:
        world = World(StagedManager(2), max_size=3)
        world.manager.failures['create'] = Boom()
        acquires = asyncio.gather(*[world.acquire('a') for _ in range(6)])
        with pytest.raises(Boom):
            await bounded(acquires)
        await until(lambda: len(world.out) == 3, 'as many as may be are served')
        await world.give_all_back()
        await until(lambda: len(world.out) == 2, 'the others are served')
        await world.end()

    run(kind, main)


@each_loop
@pytest.mark.parametrize('count', [200])
def test_many_waiters_cancelled_at_once(kind: str, count: int) -> None:
    async def main() -> None:
        world = World(BareManager(0), max_size=2)
        conns = [await world.acquire(), await world.acquire()]
        tasks = [asyncio.get_running_loop().create_task(world.acquire('a')) for _ in range(count)]
        await turns()
        assert world.pool.get_stats()['waiting'] == count
        for task in tasks[::-2]:
            task.cancel()
        await turns(2)
        world.compare()
        assert world.pool.get_stats()['waiting'] == count // 2
        for conn in conns:
            world.spawn(world.release(conn))
        for task in tasks[::2]:
            await until(task.done, 'it is served')
            await world.release(task.result())
        await world.end()

    run(kind, main)


HookT = Callable[[Any, Any], Any]


@each_loop
def test_time_limits_within_time_limits(kind: str) -> None:
    """Pools inside managers of pools: each timeout cancels its own part, whichever expires first."""

    async def main() -> None:
        for inner_limit, outer_limit in ((60.0, HOUR), (HOUR, 60.0), (60.0, 60.0)):
            inner = World(StagedManager(3))

            class Nested(BareManager):
                async def create(self, endpoint: str, inner: World = inner, limit: float = inner_limit) -> Connection:
                    await inner.visit('a', limit)
                    return await super().create(endpoint)

            for seconds in (61.0, DAY):
                outer = World(Nested(2))

                def let_pass(awaited: Any, coro: Any, seconds: float = seconds) -> None:
                    hand_timed().advance(seconds)

                interference = Interference(let_pass, {1}, 8)
                task = asyncio.get_running_loop().create_task(interference.drive(outer.acquire('a', outer_limit)))
                await until(task.done, 'it ends')
                exc = task.exception()
                assert isinstance(exc, PoolTimeout)
                if sys.version_info >= (3, 11):
                    assert task.cancelling() == 0
                await outer.at_rest()
                await inner.at_rest()
                hand_timed().advance(DAY)
                await outer.end()
            await inner.end()

    run(kind, main)


def test_pools_of_these_tests_are_what_they_seem() -> None:
    """The manager with hooks has all of them, the bare one none."""
    bare: Any = ConnectionPool(BareManager())
    staged: Any = ConnectionPool(StagedManager())
    for name in ('_checks', '_hooks_acquire', '_hooks_release', '_hooks_dead'):
        assert not getattr(bare, name)
        assert getattr(staged, name)
    assert cancel_while_suspended in CANCELLATIONS
