"""``check_timeout``: a check that takes too long is ended, and its connection counts as dead."""

import asyncio
from typing import Any

import pytest

from gcpool.exceptions import PoolTimeout
from tests.asyncio_.stepping import DAY, HOUR, LOOPS, StagedManager, World, hand_timed, run, until

each_loop = pytest.mark.parametrize('kind', LOOPS)


class Hanging(StagedManager):
    """Its checks end when they are cancelled, or never."""

    checks = 0

    async def check_aliveness(self, endpoint: str, conn: Any) -> bool:
        self.checks += 1
        await until(lambda: False, 'it is cancelled')
        return True


def is_checked(world: World, times: int = 1) -> Any:
    return until(lambda: getattr(world.manager, 'checks', 0) >= times, 'it is being checked')


@each_loop
@pytest.mark.parametrize('limit', [None, 2 * HOUR], ids=['no limit', 'a longer limit'])
def test_what_does_not_answer_in_time_is_dead(kind: str, limit: float | None) -> None:
    async def main() -> None:
        world = World(Hanging(0), check_timeout=HOUR)
        await world.filled('a')
        job = world.spawn(world.visit('a', limit))
        await is_checked(world)
        hand_timed().advance(HOUR - 1)
        assert not job.done()
        hand_timed().advance(2)
        await job
        assert (world.pool.get_stats()['dead'], world.pool.get_stats()['created']) == (1, 2)
        world.manager.__class__ = StagedManager
        await world.end(('a',))

    run(kind, main)


@each_loop
def test_the_acquire_s_own_limit_ends_it_when_that_comes_first(kind: str) -> None:
    async def main() -> None:
        world = World(Hanging(0), check_timeout=DAY)
        await world.filled('a')
        job = asyncio.get_running_loop().create_task(world.visit('a', HOUR))
        await is_checked(world)
        hand_timed().advance(HOUR + 1)
        with pytest.raises(PoolTimeout, match='check_aliveness'):
            await job
        assert (world.pool.get_stats()['dead'], world.pool.get_stats()['idle']) == (0, 1)
        world.manager.__class__ = StagedManager
        await world.end(('a',))

    run(kind, main)


@each_loop
def test_a_cancellation_is_no_timeout(kind: str) -> None:
    async def main() -> None:
        world = World(Hanging(0), check_timeout=HOUR)
        await world.filled('a')
        job = world.spawn(world.visit('a'))
        await is_checked(world)
        job.cancel()
        await until(job.done, 'it is cancelled')
        assert job.cancelled()
        assert (world.pool.get_stats()['dead'], world.pool.get_stats()['idle']) == (0, 1)
        world.manager.__class__ = StagedManager
        await world.end(('a',))

    run(kind, main)


@each_loop
def test_a_timeout_of_the_manager_s_own_reaches_the_caller(kind: str) -> None:
    async def main() -> None:
        world = World(StagedManager(0), check_timeout=HOUR)
        await world.filled('a')
        world.manager.failures['check_aliveness'] = TimeoutError('mine')
        with pytest.raises(TimeoutError, match='mine'):
            await world.pool.acquire('a')
        assert (world.pool.get_stats()['dead'], world.pool.get_stats()['idle']) == (0, 1)
        await world.end(('a',))

    run(kind, main)


@each_loop
def test_a_check_that_swallows_its_cancellation_has_not_answered(kind: str) -> None:
    class Swallowing(Hanging):
        async def check_aliveness(self, endpoint: str, conn: Any) -> bool:
            try:
                return await super().check_aliveness(endpoint, conn)
            except asyncio.CancelledError:
                return True

    async def main() -> None:
        world = World(Swallowing(0), check_timeout=HOUR)
        await world.filled('a')
        job = world.spawn(world.visit('a'))
        await is_checked(world)
        hand_timed().advance(HOUR + 1)
        await job
        assert world.pool.get_stats()['dead'] == 1
        world.manager.__class__ = StagedManager
        await world.end(('a',))

    run(kind, main)
