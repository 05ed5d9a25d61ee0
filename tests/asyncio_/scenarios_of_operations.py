"""What a pool does besides acquire and release, and acquires that the pool itself connects for: more scenarios.

It connects here in the background, up to a minimum and in an outage: what an operation no longer waits for goes on, and
comes to the next waiter.
"""

import pytest

from gcpool.exceptions import EndpointDown
from tests.asyncio_.scenarios import (
    CHECK,
    CREATE,
    NOTHING_IDLE,
    Boom,
    Scenario,
    acquire,
    acquire_in_an_hour,
    enter,
    idle_here_and_there,
    later,
    one_dead,
    one_out,
    one_out_dead,
    one_to_release,
    one_to_release_awaited,
    other_idle,
    release,
)
from tests.asyncio_.stepping import HOUR, BareManager, Connection, StagedManager, World, hand_timed, turns, until


class FullManager(StagedManager):
    """Its server says that it is full."""

    def is_refusal(self, endpoint: str, exc: BaseException) -> bool:
        return isinstance(exc, Boom)


# -- circumstances ----------------------------------------------------------------------------------------------------


def let_time_go_on(world: World) -> None:
    """In each turn of the loop a hundredth of a second passes, so that attempts to connect become due."""
    loop = hand_timed()

    def turn() -> None:
        if not world.pool.closed:
            loop.advance(0.01)
            loop.call_soon(turn)

    turn()


async def down_for_a_while(world: World) -> None:
    world.manager.failures['create'] = Boom()
    let_time_go_on(world)


async def in_an_outage(world: World) -> None:
    world.manager.failures['create'] = Boom()
    with pytest.raises(Boom):
        await world.pool.acquire('a')
    let_time_go_on(world)


async def suspended_for_a_while(world: World) -> None:
    await world.filled('a')
    world.pool.suspend()

    async def resume() -> None:
        world.pool.resume()

    later(world, resume)


async def one_connecting(world: World) -> None:
    world.manager.points = 8
    world.spawn(world.visit('a'))
    await until(lambda: world.manager.calls['create'], 'it connects')


async def pinned(world: World) -> None:
    world.pool.warm_up('a', 1)


async def two_pinned(world: World) -> None:
    world.pool.warm_up('a', 2)
    world.pool.warm_up('b', 1)


async def pinned_in_an_outage(world: World) -> None:
    await down_for_a_while(world)
    world.pool.warm_up('a', 1)


async def pinned_and_filled(world: World) -> None:
    world.pool.warm_up('a', 1)
    await world.pool.wait(HOUR)


async def one_dead_among_two(world: World) -> None:
    await world.filled('a', 'a', 'b')
    world.manager.created[0].dead = True


# -- operations -------------------------------------------------------------------------------------------------------


async def wait(world: World) -> None:
    await world.pool.wait(None)


async def wait_in_an_hour(world: World) -> None:
    await world.pool.wait(HOUR)


async def wait_idle(world: World) -> None:
    await world.pool.wait_idle(HOUR)


async def check(world: World) -> None:
    await world.pool.check()


async def discard(world: World) -> None:
    (conn,) = world.out
    world.let_go(conn)
    await world.pool.discard(conn)


async def drain(world: World) -> None:
    await world.pool.drain()
    await turns(3)


async def forget(world: World) -> None:
    await world.pool.forget('a')
    await turns(3)


async def make_smaller(world: World) -> None:
    await world.pool.resize(max_size=1)


async def fail_at_once(world: World) -> Connection | None:
    try:
        return await world.acquire('a')
    except (Boom, EndpointDown):
        return None


BACKGROUND = {'create_in_background': True}
RIDES_OUT = {'reconnect_timeout': HOUR}
IN_TURN = {'max_connecting': 1, 'max_size': 2}
FULL = {'wait_when_full': True}
FAILS = {'fail_fast': True}
KEEPS = {'min_size': 1}
NULL = {**NOTHING_IDLE, '_keeps_idle': False}

OPERATIONS = [
    Scenario('acquire_in_background', {'pool', 'on_acquire'}, acquire, settings=BACKGROUND),
    Scenario('acquire_in_background_bare', {'pool'}, acquire, None, BareManager, BACKGROUND),
    Scenario('acquire_in_background_with_limit', {'pool', 'on_acquire'}, acquire_in_an_hour, settings=BACKGROUND),
    Scenario('acquire_in_background_waiting', {'pool', *CHECK}, acquire, one_out, settings=BACKGROUND),
    Scenario(
        'acquire_in_background_dead', {'pool', 'on_connection_dead', *CHECK}, acquire, one_out_dead, settings=BACKGROUND
    ),
    Scenario(
        'acquire_in_background_elsewhere',
        {'pool', 'on_acquire'},
        acquire,
        other_idle,
        settings=BACKGROUND | {'total_max_size': 1},
    ),
    Scenario('enter_in_background', {'pool', 'on_acquire', 'on_release'}, enter, settings=BACKGROUND),
    Scenario('acquire_in_outage', {'pool', *CREATE}, acquire, down_for_a_while, settings=RIDES_OUT),
    Scenario(
        'acquire_in_outage_with_limit', {'pool', *CREATE}, acquire_in_an_hour, down_for_a_while, settings=RIDES_OUT
    ),
    Scenario(
        'acquire_in_outage_in_background',
        {'pool', 'on_acquire'},
        acquire,
        down_for_a_while,
        settings=RIDES_OUT | BACKGROUND,
    ),
    Scenario('acquire_at_a_full_server', {'pool', *CREATE}, acquire, down_for_a_while, FullManager, FULL),
    Scenario('acquire_failing_faster', {'create'}, fail_at_once, in_an_outage, BareManager, FAILS),
    Scenario('acquire_in_turn', {'pool', *CREATE}, acquire, one_connecting, settings=IN_TURN),
    Scenario('acquire_suspended', {'pool', *CHECK}, acquire, suspended_for_a_while),
    Scenario('acquire_kept', CREATE, acquire, settings=KEEPS),
    Scenario('acquire_kept_dead', {'pool', 'on_connection_dead', *CHECK, *CREATE}, acquire, one_dead, settings=KEEPS),
    Scenario('acquire_null', CREATE, acquire, settings=NULL),
    Scenario('acquire_null_waiting', {'pool', *CHECK}, acquire, one_out, settings=NULL),
    Scenario('release_null', {'on_release', 'pool'}, release, one_to_release, settings=NULL),
    Scenario('release_null_handing_over', {'on_release'}, release, one_to_release_awaited, settings=NULL),
    Scenario('release_last_use', {'on_release', 'pool'}, release, one_to_release, settings={'max_uses': 1}),
    Scenario(
        'release_last_use_kept',
        {'on_release', 'pool'},
        release,
        one_to_release_awaited,
        settings={'max_uses': 1, **KEEPS},
    ),
    Scenario(
        'release_last_use_background',
        {'on_release', 'pool'},
        release,
        one_to_release_awaited,
        settings={'max_uses': 1, **BACKGROUND},
    ),
    Scenario('wait', {'pool'}, wait, pinned),
    Scenario('wait_for_two', {'pool'}, wait_in_an_hour, two_pinned, settings={'max_size': 2}),
    Scenario('wait_in_outage', {'pool'}, wait, pinned_in_an_outage),
    Scenario('wait_idle', {'pool'}, wait_idle, one_out),
    Scenario('check', {'pool'}, check, one_dead_among_two, settings={'max_size': 2}),
    Scenario('check_kept', {'pool'}, check, one_dead_among_two, settings={'max_size': 2, 'min_size': 2}),
    Scenario('discard', {'pool'}, discard, one_to_release),
    Scenario('discard_awaited', {'pool'}, discard, one_to_release_awaited),
    Scenario('discard_awaited_in_background', {'pool'}, discard, one_to_release_awaited, settings=BACKGROUND),
    Scenario('drain', {'pool'}, drain, idle_here_and_there),
    Scenario('drain_kept', {'pool'}, drain, pinned_and_filled, settings=KEEPS),
    Scenario('forget', {'pool'}, forget, pinned_and_filled),
    Scenario('resize', {'pool'}, make_smaller, one_dead_among_two, settings={'max_size': 2}),
]
