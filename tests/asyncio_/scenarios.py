"""Operations of a pool, and the circumstances under which they are suspended: what the cancellation tests disturb."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from gcpool.exceptions import ConnectionPoolClosedError
from tests.asyncio_.stepping import (
    DAY,
    HOUR,
    BareManager,
    Connection,
    Interference,
    JudgingManager,
    StagedManager,
    World,
    hand_timed,
    turns,
    until,
)

# How often each method of the manager's awaits something.
POINTS = 2


class Boom(Exception):
    """An error of a manager or of a program."""


class Quake(BaseException):
    """An error that ``except Exception`` does not catch."""


class Scenario(NamedTuple):
    """An operation, and circumstances under which it is suspended in the ``places``."""

    name: str
    places: set[str]
    operate: 'Callable[[World], Any]'
    prepare: 'Callable[[World], Any] | None' = None
    manager: type[BareManager] = StagedManager
    settings: dict[str, Any] = {}  # noqa: RUF012 - nobody changes it

    def __repr__(self) -> str:
        return self.name

    @property
    def swallows(self) -> set[str]:
        """Where an error of the manager's is not raised: a user's own error comes first, and an outage goes on."""
        rides_out = {'reconnect_timeout', 'wait_when_full'} & self.settings.keys()
        return {'is_broken', 'create'} if rides_out else {'is_broken'}


def later(world: World, action: 'Callable[[], Any]') -> None:
    """Do something when the operation has been suspended for some turns, whatever happens to the operation."""

    async def wait_and_act() -> None:
        await turns(12)
        await action()

    world.spawn(wait_and_act())


# -- circumstances ----------------------------------------------------------------------------------------------------


async def one_idle(world: World) -> None:
    await world.filled('a')


async def one_idle_while_other_is_due(world: World) -> None:
    await world.filled('b')
    hand_timed().advance(999.5 * DAY)
    await world.filled('a')
    hand_timed().advance(DAY)


async def one_dead(world: World) -> None:
    await world.filled('a')
    world.manager.created[0].dead = True


async def one_out(world: World) -> None:
    conn = await world.acquire('a')
    later(world, lambda: world.release(conn))


async def one_out_dead(world: World) -> None:
    conn = await world.acquire('a')
    conn.dead = True
    later(world, lambda: world.release(conn))


async def one_failing(world: World) -> None:
    world.manager.failures['create'] = Boom()
    world.manager.points = 6

    async def fail() -> None:
        with pytest.raises(Boom):
            await world.pool.acquire('a')

    world.spawn(fail())
    await until(lambda: world.manager.calls['create'], 'it connects')


async def other_idle(world: World) -> None:
    await world.filled('b')


async def other_out(world: World) -> None:
    conn = await world.acquire('b')
    later(world, lambda: world.release(conn))


async def one_to_release(world: World) -> None:
    await world.acquire('a')


async def one_to_release_awaited(world: World) -> None:
    await world.acquire('a')
    world.spawn(world.visit('a'))
    await until(lambda: world.pool.get_stats()['waiting'], 'somebody waits')


async def one_to_release_awaited_elsewhere(world: World) -> None:
    await world.acquire('a')
    world.spawn(world.visit('b'))
    await until(lambda: world.pool.get_stats()['waiting'], 'somebody waits')


async def one_to_release_others_due(world: World) -> None:
    conn = await world.acquire('a')
    await world.filled('b', 'b', 'b')
    hand_timed().advance(2 * HOUR)
    assert list(world.out) == [conn]


async def idle_here_and_there(world: World) -> None:
    await world.filled('a', 'b', 'c')


async def one_awaited(world: World) -> None:
    await one_out(world)

    async def be_refused() -> None:
        with pytest.raises(ConnectionPoolClosedError):
            await world.pool.acquire('a')

    world.spawn(be_refused())
    await until(lambda: world.pool.get_stats()['waiting'], 'somebody waits')


# -- operations -------------------------------------------------------------------------------------------------------


async def acquire(world: World) -> Connection:
    return await world.acquire('a')


async def acquire_in_an_hour(world: World) -> Connection:
    return await world.acquire('a', HOUR)


async def enter(world: World) -> None:
    await world.visit_with('a')


async def enter_in_an_hour(world: World) -> None:
    await world.visit_with('a', HOUR)


async def release(world: World) -> None:
    (conn,) = world.out
    await world.release(conn)


async def leave(world: World) -> None:
    # Entering does not suspend it, so that only suspensions of the exit are counted.
    async with world.pool.connection('a') as conn:
        world.take(conn)
        world.let_go(conn)


async def leave_failing(world: World) -> None:
    await fail_inside(world, dead=False)


async def leave_broken(world: World) -> None:
    await fail_inside(world, dead=True)


async def fail_inside(world: World, dead: bool) -> None:
    try:
        async with world.pool.connection('a') as conn:
            world.take(conn)
            world.let_go(conn)
            conn.dead = dead
            raise LookupError
    except LookupError:
        pass


async def close(world: World) -> None:
    assert await world.pool.close() == 0


async def close_in_an_hour(world: World) -> None:
    assert await world.pool.close(HOUR) == 0


CHECK = {'check_aliveness', 'on_acquire'}
CREATE = {'create', 'on_acquire'}
DEAD = {'check_aliveness', 'pool', 'on_connection_dead', *CREATE}
TOTAL = {'total_max_size': 1}
NOTHING_IDLE = {'idle_timeout': 0, 'min_idle': 0}


def acquires() -> list[Scenario]:
    found = []
    for operate, name in ((acquire, 'acquire'), (acquire_in_an_hour, 'acquire_with_limit')):
        found += [
            Scenario(f'{name}_connecting', CREATE, operate),
            Scenario(f'{name}_connecting_bare', {'create'}, operate, manager=BareManager),
            Scenario(f'{name}_checking', CHECK, operate, one_idle),
            Scenario(f'{name}_finding_it_dead', DEAD, operate, one_dead),
            Scenario(f'{name}_waiting', {'pool', *CHECK}, operate, one_out),
            Scenario(f'{name}_waiting_bare', {'pool'}, operate, one_out, BareManager),
            Scenario(f'{name}_waiting_for_a_dead_one', DEAD, operate, one_out_dead),
            Scenario(f'{name}_waiting_for_a_slot', {'pool', *CREATE}, operate, one_failing),
            Scenario(f'{name}_evicting', {'pool', *CREATE}, operate, other_idle, settings=TOTAL),
            Scenario(f'{name}_waiting_elsewhere', {'pool', *CREATE}, operate, other_out, settings=TOTAL),
            Scenario(f'{name}_connecting_alone', CREATE, operate, settings=TOTAL),
            Scenario(f'{name}_checking_alone', CHECK, operate, one_idle, settings=TOTAL),
            Scenario(f'{name}_waiting_alone', {'pool', *CHECK}, operate, one_out, settings=TOTAL),
        ]
    return found


def enters() -> list[Scenario]:
    more = {'on_release'}
    return [
        Scenario('enter_connecting', CREATE | more, enter, None),
        Scenario('enter_checking', CHECK | more, enter, one_idle),
        Scenario('enter_with_limit_finding_it_dead', DEAD | more, enter_in_an_hour, one_dead),
        Scenario('enter_with_limit_waiting', {'pool', *CHECK} | more, enter_in_an_hour, one_out),
        Scenario('enter_evicting_bare', {'pool', 'create'}, enter, other_idle, BareManager, TOTAL),
    ]


ACQUIRES = acquires() + enters()
RELEASES = [
    Scenario('release', {'on_release'}, release, one_to_release),
    Scenario('release_disposing', {'pool'}, release, one_to_release, BareManager, NOTHING_IDLE),
    Scenario('release_hook_disposing', {'on_release', 'pool'}, release, one_to_release, settings=NOTHING_IDLE),
    Scenario('release_handing_over', {'on_release'}, release, one_to_release_awaited),
    Scenario(
        'release_for_elsewhere', {'on_release', 'pool'}, release, one_to_release_awaited_elsewhere, settings=TOTAL
    ),
    Scenario(
        'release_of_others',
        {'on_release', 'pool'},
        release,
        one_to_release_others_due,
        settings={'max_size': 3, 'min_idle': 1},
    ),
    Scenario('leave_failing', {*CHECK, 'is_broken', 'on_release'}, leave_failing, one_idle, JudgingManager),
    Scenario('leave_broken', {*CHECK, 'is_broken', 'pool'}, leave_broken, one_idle, JudgingManager),
    Scenario('leave_disposing', {'pool'}, leave, one_idle_while_other_is_due, BareManager),
]
CLOSES = [
    Scenario('close', {'pool'}, close, idle_here_and_there),
    Scenario('close_waiting', {'pool'}, close, one_out),
    Scenario('close_refusing', {'pool'}, close, one_awaited),
    Scenario('close_waiting_with_limit', {'pool'}, close_in_an_hour, one_out),
]
SCENARIOS = ACQUIRES + RELEASES + CLOSES


# -- playing them -----------------------------------------------------------------------------------------------------


async def play(
    scenario: Scenario,
    interference: Interference,
    wrap: 'Callable[[Any], Any] | None' = None,
    *,
    rivals: int = 0,
    points: int = POINTS,
) -> 'asyncio.Task[Any]':
    """Run an operation, and check what happens to the other tasks and to the pool.

    :param interference: what disturbs the operation
    :param wrap: runs the operation; it is awaited in a task
    :param rivals: how many tasks wait for a connection after it
    :return: the operation's task, done
    """
    world = World(scenario.manager(0), **scenario.settings)
    if scenario.prepare is not None:
        await scenario.prepare(world)
    world.manager.points = points

    def rivals_come() -> None:
        for number in range(rivals if scenario in ACQUIRES else 0):
            # If there is only one connection for all endpoints, also tasks at another endpoint.
            world.spawn(world.visit('b' if scenario.settings == TOTAL and number % 2 == 0 else 'a'))

    interference.at_first = rivals_come
    driven = interference.drive(scenario.operate(world))
    task = asyncio.get_running_loop().create_task(driven if wrap is None else wrap(driven))
    await until(task.done, f'{scenario} ends, {world.pool!r}, {interference.places}')
    if not task.cancelled() and isinstance(task.result(), Connection):
        await world.release(task.result())
    # From here on nothing else happens: the waiters must be served because of what has happened.
    await world.at_rest()
    if not world.pool._core.closed:
        # What the operation did not reach is still possible.
        await world.visit('a')
        await world.visit('b')
    await world.end(('a', 'b'))
    assert hand_timed().pending_timers() == 0
    return task


async def count(scenario: Scenario) -> int:
    """How often an operation is suspended."""
    interference = Interference()
    task = await play(scenario, interference)
    task.result()
    return len(interference.places)
