"""Many tasks, cancelled at random turns of the loop, with managers that fail at random and connections that live
briefly.

All randomness comes from one seed and time is moved by hand, so that a failure can be repeated: run the same seed.
"""

import asyncio
import random
from typing import Any

import pytest

from gcpool.exceptions import ConnectionPoolClosedError, PoolTimeout
from tests.asyncio_.stepping import (
    LOOPS,
    Connection,
    StagedManager,
    World,
    hand_timed,
    in_turns,
    run,
    turns,
    until,
)
from tests.conftest import QUICK

SEEDS = range(4 if QUICK else 16)
TURNS = 600
CLIENTS = 30
ENDPOINTS = 'abcde'


class Boom(Exception):
    """An error of a manager, or of a client."""


class Quake(BaseException):
    """An error that ``except Exception`` does not catch."""


# Exceptions that a client may see.
EXPECTED = (Boom, Quake, PoolTimeout, ConnectionPoolClosedError, asyncio.TimeoutError, asyncio.CancelledError)


class ErraticManager(StagedManager):
    """Takes any time, and fails at random."""

    def __init__(self, chance: random.Random, log: list[str]):
        super().__init__(0)
        self.chance = chance
        self.log = log
        self.erratic = True
        self.forced = False

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        if self.forced:
            # close() does not wait for ever for its user.
            conn.user = None
        await super().dispose(endpoint, conn)

    async def pass_through(self, name: str) -> None:
        self.log.append(name)
        if not self.erratic:
            return
        self.points = self.chance.choice((0, 0, 1, 1, 2, 5))
        await super().pass_through(name)
        roll = self.chance.random()
        if roll < 0.05:
            raise Boom
        if roll < 0.08 and name != 'dispose':
            # In the background only the loop would be told of it.
            raise Quake
        if roll < 0.10 and name != 'dispose':
            raise asyncio.CancelledError

    async def check_aliveness(self, endpoint: str, conn: Connection) -> bool:
        if self.erratic and self.chance.random() < 0.1:
            conn.dead = True
        return await super().check_aliveness(endpoint, conn)


def beside(coro: Any) -> 'asyncio.Task[Any]':
    """A task whose end need not be known: the task that awaits it may be cancelled first."""
    task: asyncio.Task[Any] = asyncio.ensure_future(coro)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


class Storm:
    """Clients of one pool, and what happens to them.

    :param seed: of all randomness
    """

    def __init__(self, seed: int):
        self.chance = random.Random(seed)
        self.log: list[str] = []
        self.served = 0
        manager = ErraticManager(self.chance, self.log)
        self.world = World(
            manager,
            max_size=3,
            total_max_size=6,
            min_idle=self.chance.choice((0, 1, 3)),
            idle_timeout=self.chance.choice((0.0, 5.0, 20.0)),
            max_lifetime=self.chance.choice((20.0, 60.0)),
            acquire_timeout=self.chance.choice((None, 15.0)),
            dispose_timeout=self.chance.choice((None, 3.0)),
            background_collector=self.chance.random() < 0.5,
        )
        self.made: list[asyncio.Task[Any]] = []
        self.clients: list[asyncio.Task[None]] = []
        self.ending = False

    def make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> 'asyncio.Task[Any]':
        """A task factory that records tasks in order."""
        options.pop('eager_start', None)
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        self.made.append(task)
        return task

    def limit(self) -> float | None:
        return self.chance.choice((None, None, 0, 1.0, 10.0, 30.0))

    async def use(self, conn: Connection) -> None:
        self.served += 1
        self.world.take(conn)
        try:
            for _ in range(self.chance.randrange(4)):
                await asyncio.sleep(0)
            if self.chance.random() < 0.1:
                raise Boom
        finally:
            self.world.let_go(conn)

    async def by_context(self, endpoint: str) -> None:
        async with self.world.pool.connection(endpoint, self.limit()) as conn:
            await self.use(conn)

    async def by_hand(self, endpoint: str) -> None:
        conn = await self.world.pool.acquire(endpoint, self.limit())
        try:
            await self.use(conn)
        finally:
            if self.chance.random() < 0.3:
                await asyncio.shield(beside(self.world.pool.release(conn, endpoint)))
            else:
                await self.world.pool.release(conn, endpoint)

    async def by_wait_for(self, endpoint: str) -> None:
        await asyncio.wait_for(beside(self.by_context(endpoint)), self.chance.choice((1.0, 10.0, 40.0)))

    async def by_gather(self, endpoint: str) -> None:
        other = self.chance.choice(ENDPOINTS)
        await asyncio.gather(self.by_context(endpoint), self.by_context(other), return_exceptions=False)

    async def client(self, number: int) -> None:
        try:
            while not self.ending:
                endpoint = self.chance.choice(ENDPOINTS)
                visit = self.chance.choice((self.by_context, self.by_hand, self.by_wait_for, self.by_gather))
                self.log.append(f'{number} {visit.__name__} {endpoint}')
                try:
                    await visit(endpoint)
                except EXPECTED as exc:
                    self.log.append(f'{number} {type(exc).__name__}')
                    if isinstance(exc, asyncio.CancelledError) and self.chance.random() < 0.5:
                        raise
                    await in_turns(self.chance.randrange(3))
        except asyncio.CancelledError:
            self.log.append(f'{number} gone')
            raise

    def enter_client(self) -> None:
        number = len(self.clients)
        self.clients.append(asyncio.get_running_loop().create_task(self.client(number)))

    async def blow(self) -> None:
        """Let the loop run for many turns."""
        loop = hand_timed()
        loop.set_task_factory(self.make_task)
        for _ in range(CLIENTS):
            self.enter_client()
        for _ in range(TURNS):
            self.world.pool._core.check_invariants()
            self.check_faults()
            if self.chance.random() < 0.2:
                loop.advance(self.chance.choice((0.1, 1.0, 5.0)))
            if self.chance.random() < 0.3:
                # Clients, their parts that have a task of their own, and tasks of the pool.
                alive = [task for task in self.made if not task.done()]
                for victim in self.chance.sample(alive, min(len(alive), self.chance.randrange(4))):
                    victim.cancel()
                self.made = alive
            while sum(not client.done() for client in self.clients) < CLIENTS:
                self.enter_client()
            await asyncio.sleep(0)

    def check_faults(self) -> None:
        assert not self.world.manager.faults, self.world.manager.faults

    async def close(self) -> None:
        """Close the pool in the middle of it, with a short timeout."""
        self.ending = True
        manager = self.world.manager
        assert isinstance(manager, ErraticManager)
        manager.forced = True
        closing = [asyncio.get_running_loop().create_task(self.world.pool.close(limit)) for limit in (30.0, 3.0, None)]
        closing[self.chance.randrange(2)].cancel()
        await turns(2)
        closing[2].cancel()

        def closed() -> bool:
            hand_timed().advance(0.5)
            return all(task.done() for task in closing)

        await until(closed, 'it closes')
        assert any(not task.cancelled() and task.result() >= 0 for task in closing)
        self.world.pool._core.check_invariants()

    async def subside(self) -> None:
        """End the storm, and check what is left."""
        self.ending = True

        def quiet() -> bool:
            # Timeouts of operations that are still running.
            hand_timed().advance(1.0)
            return all(task.done() for task in self.made)

        await until(quiet, 'all come to an end')
        hand_timed().set_task_factory(None)
        for client in self.clients:
            if not client.cancelled():
                client.result()
        manager = self.world.manager
        assert isinstance(manager, ErraticManager)
        manager.erratic = False
        # gather() leaves the others running when one fails.
        await turns(5)
        await self.world.at_rest()
        await self.world.end(ENDPOINTS)


async def play(seed: int, *, close: bool = False) -> list[str]:
    storm = Storm(seed)
    await storm.blow()
    if close:
        await storm.close()
    await storm.subside()
    stats = storm.world.pool.get_stats()
    storm.log.append(f'{stats}')
    # There were enough disturbances.
    assert storm.served > 50
    assert min(stats['created'], stats['dead'], stats['waits'], stats['create_errors']) > 0
    for name in ('Boom', 'Quake', 'PoolTimeout', 'CancelledError', 'gone'):
        assert any(line.endswith(name) for line in storm.log), f'no {name}'
    return storm.log


@pytest.mark.stress
@pytest.mark.parametrize('kind', LOOPS)
@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('close', [False, True])
def test_storm(kind: str, seed: int, close: bool) -> None:
    run(kind, lambda: play(seed, close=close))


@pytest.mark.parametrize('kind', LOOPS)
def test_a_storm_is_the_same_every_time(kind: str) -> None:
    """Otherwise a seed would not reproduce a failure."""
    first, second = (run(kind, lambda: play(1)) for _ in range(2))
    assert first == second
