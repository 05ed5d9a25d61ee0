"""Task factories that wrap coroutines, delay them or begin them at once: each connection is closed once."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.asyncio_.stepping import (
    HOUR,
    LOOPS,
    BareManager,
    JudgingManager,
    World,
    bounded,
    catch,
    close_loop,
    eager_task_factory,
    hand_timed,
    new_loop,
    no_complaints,
    run,
    turns,
    until,
)
from tests.conftest import FREE_THREADED

Factory = Callable[..., Any]


def wrapping(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> 'asyncio.Task[Any]':
    """As tracers do."""
    options.pop('eager_start', None)

    async def wrap() -> Any:
        return await coro

    return asyncio.Task(wrap(), loop=loop, **options)


def late(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> 'asyncio.Task[Any]':
    options.pop('eager_start', None)

    async def wrap() -> Any:
        try:
            await asyncio.sleep(0)
            return await coro
        finally:
            coro.close()

    return asyncio.Task(wrap(), loop=loop, **options)


FACTORIES: list[Factory] = [wrapping, late]
if sys.version_info >= (3, 12):

    def eager_wrapping(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> 'asyncio.Task[Any]':
        async def wrap() -> Any:
            return await coro

        return eager_task_factory(loop, wrap(), **options)

    FACTORIES += [eager_task_factory, eager_wrapping]

each_loop = pytest.mark.parametrize('kind', LOOPS)
each_factory = pytest.mark.parametrize('factory', FACTORIES, ids=lambda factory: factory.__name__)


# ---------------------------------------------------------------------------------------------------------------------
# All the ways in which a pool closes a connection
# ---------------------------------------------------------------------------------------------------------------------


async def returned_and_due(world: World) -> None:
    await world.visit('a')


async def found_dead(world: World) -> None:
    await world.filled('a')
    world.manager.created[-1].dead = True
    await world.visit('a')


async def broken_by_its_user(world: World) -> None:
    async def use() -> None:
        async with world.pool.connection('a') as conn:
            conn.dead = True
            raise ValueError

    assert isinstance(await catch(use()), ValueError)


async def in_the_way_of_another_endpoint(world: World) -> None:
    await world.filled('a', 'b')
    await world.visit('c')


async def collected(world: World) -> None:
    await world.filled('a', 'b')
    hand_timed().advance(2 * HOUR)
    await until(lambda: world.pool.get_size() == 0, 'it collects')


async def left_by_a_cancelled_release(world: World) -> None:
    conn = await world.acquire('a')
    world.let_go(conn)
    task = world.spawn(world.pool.release(conn, 'a'))
    await turns(1)
    task.cancel()


async def closed(world: World) -> None:
    await world.filled('a', 'b')
    assert await bounded(world.close()) == 0
    assert world.pool.get_size() == 0


#: The ways, and the parameters of a pool for each.
WAYS: dict[Callable[[World], Coroutine[Any, Any, None]], dict[str, Any]] = {
    returned_and_due: {'idle_timeout': 0.0},
    found_dead: {},
    broken_by_its_user: {},
    in_the_way_of_another_endpoint: {},
    collected: {'background_collector': True},
    left_by_a_cancelled_release: {'idle_timeout': 0.0},
    closed: {},
}


@each_loop
@each_factory
@pytest.mark.parametrize('way', WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize('points', [0, 3])
def test_each_connection_is_closed(kind: str, factory: Factory, way: Any, points: int) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        for _ in range(3):  # more often than there are slots
            world = World(JudgingManager(points), max_size=2, total_max_size=2, min_idle=0, **WAYS[way])
            await way(world)
            await world.end('abc')

    run(kind, main)


@each_loop
@each_factory
@pytest.mark.parametrize('begun', range(4))
def test_a_loop_that_ends_has_closed_what_was_to_be_closed(kind: str, factory: Factory, begun: int) -> None:
    """As asyncio.run() ends a loop: all tasks are cancelled, some of them before their first step."""

    async def main() -> World:
        world = World(BareManager(0), max_size=5, idle_timeout=0, min_idle=0)
        world.manager.points = 5
        conns = [await world.acquire('a') for _ in range(5)]
        asyncio.get_running_loop().set_task_factory(factory)
        for conn in conns:
            world.let_go(conn)
            task = asyncio.get_running_loop().create_task(world.pool.release(conn, 'a'))
            await turns(1)
            task.cancel()
        await turns(begun)
        return world

    with no_complaints() as watch:
        loop = new_loop(kind)
        watch(loop)
        world = loop.run_until_complete(main())
        loop.set_task_factory(None)
        close_loop(loop)
        assert all(conn.closed and conn.disposals == 1 for conn in world.manager.created)
        assert world.pool.get_size() == 0


@each_loop
@pytest.mark.since_python(3, 12)
def test_a_close_that_ends_the_program_has_closed_all_among_eager_tasks(kind: str) -> None:
    worlds = []

    async def main() -> None:
        world = World(BareManager(0), max_size=5, idle_timeout=0, min_idle=0, dispose_batch_size=10)
        worlds.append(world)
        for _ in range(5):
            await world.pool.acquire('a')
        world.manager.failures['dispose'] = KeyboardInterrupt()
        asyncio.get_running_loop().set_task_factory(eager_task_factory)
        await world.pool.close(0)

    with no_complaints():
        loop = new_loop(kind)
        told: list[Any] = []
        # Nothing waits for the task that disposes; that its exception left the loop is reported again.
        loop.set_exception_handler(lambda _loop, context: told.append(type(context['exception'])))
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(main())
        loop.set_task_factory(None)
        close_loop(loop)
        [world] = worlds
        assert len(world.manager.created) == 5
        assert all(conn.closed and conn.disposals == 1 for conn in world.manager.created)
        assert world.pool.get_size() == 0
        gc.collect()
        assert told == [KeyboardInterrupt]


# ---------------------------------------------------------------------------------------------------------------------
# Real tracers
# ---------------------------------------------------------------------------------------------------------------------

# ddtrace has no wheels for Windows and free-threaded Python, and none for 3.15 yet.
TRACERS = ['sentry_sdk']
if sys.platform != 'win32' and sys.version_info < (3, 15) and not FREE_THREADED:
    TRACERS.append('ddtrace')

TRACED = """
import asyncio, sys
import gcpool.asyncio

{trace}

class Manager(gcpool.asyncio.BaseConnectionManager):
    open = closings = 0

    async def create(self, endpoint):
        await asyncio.sleep(0)
        self.open += 1
        return object()

    async def dispose(self, endpoint, conn):
        await asyncio.sleep(0)
        self.open -= 1
        self.closings += 1


async def visit(pool, endpoint):
    async with pool.connection(endpoint):
        await asyncio.sleep(0)


async def main():
    begin_tracing()
    manager = Manager()
    pool = gcpool.asyncio.ConnectionPool(
        manager, max_size=2, total_max_size=2, min_idle=0, idle_timeout=0, acquire_timeout=20, background_collector=True
    )
    for _ in range(20):
        with request():
            await asyncio.gather(*(asyncio.create_task(visit(pool, each)) for each in 'abcabc'))
    assert await pool.close() == 0
    assert (manager.open, pool.get_size()) == (0, 0), (manager.open, pool)
    assert manager.closings >= 20, manager.closings
    assert traced(), 'nothing was traced'
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith('gcpool-')]


if {uvloop}:
    import uvloop

    loop = uvloop.new_event_loop()
else:
    loop = asyncio.new_event_loop()
loop.run_until_complete(asyncio.wait_for(main(), 60))
loop.close()
print('all closed')
"""

DDTRACE = """
import os
os.environ.update(DD_INSTRUMENTATION_TELEMETRY_ENABLED='0', DD_REMOTE_CONFIGURATION_ENABLED='0')
import ddtrace
from ddtrace.trace import TraceFilter, tracer

spans = []


class Keep(TraceFilter):
    def process_trace(self, trace):
        spans.extend(trace)
        return None


tracer.configure(trace_processors=[Keep()])
ddtrace.patch(asyncio=True)


def begin_tracing():
    pass


def request():
    return tracer.trace('request')


def traced():
    return spans
"""

SENTRY = """
import sentry_sdk
from sentry_sdk.integrations.asyncio import AsyncioIntegration

events = []


def begin_tracing():
    sentry_sdk.init(
        dsn='http://key@127.0.0.1:9/1',
        traces_sample_rate=1.0,
        integrations=[AsyncioIntegration()],
        before_send_transaction=lambda event, hint: events.append(event),
    )


def request():
    return sentry_sdk.start_transaction(op='request', name='request')


def traced():
    return [span for event in events for span in event['spans'] if 'asyncio' in span['origin']]
"""


@pytest.mark.parametrize('kind', LOOPS)
@pytest.mark.parametrize('package', TRACERS)
def test_each_connection_is_closed_under_a_tracer(package: str, kind: str) -> None:
    pytest.importorskip(package)
    program = TRACED.format(trace={'ddtrace': DDTRACE, 'sentry_sdk': SENTRY}[package], uvloop=kind == 'uvloop')
    # The packages' own warnings do not concern gcpool.
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', program], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, 'all closed\n'), done.stderr
