"""asyncio driven by hand.

A loop whose clock moves only when told to; a coroutine that is disturbed at a chosen suspension; a manager all of whose
methods are suspended a known number of times; and a world around one pool that keeps its own books and compares them
with the pool's.

Nothing here waits for real time: what has not happened after a limited number of loop turns counts as never happening.
"""

import asyncio
import gc
import heapq
import sys
import types
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Coroutine, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from gcpool.asyncio import BaseConnectionManager, ConnectionPool

ResultT = TypeVar('ResultT')

# uvloop does not exist on Windows. If it should be installed and is not, its tests are skipped.
LOOPS = ['asyncio'] if sys.platform == 'win32' else ['asyncio', 'uvloop']

# Loop turns after which something counts as never happening.
PATIENCE = 2000

# Seconds on the loop's clock: a time limit that is not reached unless a test moves the clock by DAY.
HOUR = 3600.0
DAY = 24 * HOUR


# ---------------------------------------------------------------------------------------------------------------------
# Loops
# ---------------------------------------------------------------------------------------------------------------------


class HandTimed:
    """Replaces a loop's clock by one that stands still: only ``advance`` moves it, and only then timers fire."""

    def __init__(self) -> None:
        super().__init__()
        self._time = 1000.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._timer_number = 0

    def time(self) -> float:
        return self._time

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        assert isinstance(self, asyncio.AbstractEventLoop)
        if self.is_closed():
            raise RuntimeError('Event loop is closed')
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if when <= self._time:
            self.call_soon(self._ring, timer)
        else:
            self._timer_number += 1
            heapq.heappush(self._timers, (when, self._timer_number, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        # Set by TimerHandle.cancel(); advance() omits these timers.
        return

    def advance(self, seconds: float) -> None:
        """Move the clock. Timers that are due then run in the next turn, in the order of their times."""
        assert isinstance(self, asyncio.AbstractEventLoop)
        self._time += seconds
        while self._timers and self._timers[0][0] <= self._time:
            self.call_soon(self._ring, heapq.heappop(self._timers)[2])

    @staticmethod
    def _ring(timer: asyncio.TimerHandle) -> None:
        # The timer may have been cancelled earlier in this turn.
        if not timer.cancelled():
            timer._run()

    def close(self) -> None:
        self._timers.clear()
        super().close()  # type: ignore[misc]

    def pending_timers(self) -> int:
        """Return how many timers have neither fired nor been cancelled."""
        return sum(not timer.cancelled() for _, _, timer in self._timers)


def new_loop(kind: str, *, debug: bool = False) -> Any:
    """A loop with a clock that stands still."""
    if kind == 'asyncio':
        base: Any = asyncio.SelectorEventLoop
    else:
        base = pytest.importorskip('uvloop').Loop
    loop = type('HandTimedLoop', (HandTimed, base), {})()
    loop.set_debug(debug)
    # The clock jumps inside callbacks.
    loop.slow_callback_duration = float('inf')
    return loop


@contextmanager
def no_complaints() -> Iterator[Callable[[asyncio.AbstractEventLoop], None]]:
    """Fail if anything is reported to a loop's exception handler, or cannot be raised where it happens.

    asyncio and the interpreter report in this way that a task was destroyed while pending, an exception never
    retrieved, or a coroutine never awaited.

    :return: a function that adds a loop
    """
    found: list[str] = []

    def watch(loop: asyncio.AbstractEventLoop) -> None:
        loop.set_exception_handler(lambda _loop, context: found.append(f'{context}'))

    def unraisable(report: Any) -> None:
        found.append(f'{report.err_msg}: {report.object!r}: {report.exc_value!r}')

    previous = sys.unraisablehook
    sys.unraisablehook = unraisable
    # So that garbage collection in this test does not have to search everything that exists. Nothing is thawed
    # afterwards, because the next test would have to search all of it again.
    gc.collect()
    gc.freeze()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            yield watch
            # Twice: finalizers of the first round may leave what the second finds.
            gc.collect()
            gc.collect()
    finally:
        sys.unraisablehook = previous
    assert not found, '\n'.join(found)


def run(
    kind: str, main: Callable[[], Coroutine[Any, Any, ResultT]], *, debug: bool = False, eager: bool = False
) -> ResultT:
    """Run a coroutine function in a hand-timed loop; fails if it leaves anything behind."""
    with no_complaints() as watch:
        loop = new_loop(kind, debug=debug)
        watch(loop)
        if eager:
            loop.set_task_factory(eager_task_factory)
        try:
            result: ResultT = loop.run_until_complete(main())
            left = asyncio.all_tasks(loop)
            assert not left, f'tasks are left: {left}'
        finally:
            close_loop(loop)
    return result


def eager_task_factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> 'asyncio.Task[Any]':
    """asyncio's own does not accept what some versions of the loops pass."""
    options['eager_start'] = True
    return asyncio.Task(coro, loop=loop, **options)


def close_loop(loop: Any) -> None:
    """End a loop as ``asyncio.run`` does."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def hand_timed() -> Any:
    """The running loop."""
    return asyncio.get_running_loop()


async def turns(count: int = 1) -> None:
    """Let the loop turn a number of times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], what: str, patience: int = PATIENCE) -> None:
    """Let the loop turn until a condition holds."""
    for _ in range(patience):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f'not within {patience} turns of the loop: {what}')


async def in_turns(count: int) -> None:
    """Await a future that is done after some turns of the loop."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def count_down(left: int) -> None:
        if left:
            loop.call_soon(count_down, left - 1)
        elif not future.done():
            future.set_result(None)

    count_down(count)
    await future


# ---------------------------------------------------------------------------------------------------------------------
# Disturbances
# ---------------------------------------------------------------------------------------------------------------------

HOOKS = ('create', 'dispose', 'check_aliveness', 'on_acquire', 'on_release', 'on_connection_dead', 'is_broken')


def place(coro: Any) -> str:
    """Return the manager's method in which a coroutine is suspended, or 'pool' for the pool itself."""
    found = 'pool'
    while coro is not None:
        code = getattr(coro, 'cr_code', None)
        if code is not None and code.co_name in HOOKS:
            found = code.co_name
        coro = getattr(coro, 'cr_await', None)
    return found


class ClosedByHand(Exception):
    """The result of a coroutine that was closed while suspended."""


class Interference:
    """Drives a coroutine, passes its suspensions on to the loop, and does something at some of them.

    :param act: called with what the coroutine awaits and the coroutine; an exception that it returns is thrown into the
        coroutine at once
    :param at: the numbers of the suspensions at which it is called
    :param hold: for how many more turns the coroutine is suspended there, whatever happens to what it awaits
    :ivar at_first: called at the first suspension
    """

    def __init__(
        self, act: 'Callable[[Any, Any], BaseException | None] | None' = None, at: Container[int] = (), hold: int = 0
    ) -> None:
        self._act = act
        self._at = at
        self._hold = hold
        self.places: list[str] = []
        self.acted = 0
        self.at_first: Callable[[], object] = lambda: None

    async def drive(self, coro: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run the coroutine."""
        result: ResultT = await self._pass_on(coro)
        return result

    async def drive_call(self, function: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        """Run a coroutine that is created when this begins.

        Where garbage is finalised in order of age (with the GIL), the outer coroutine is then finalised first.
        """
        result: ResultT = await self._pass_on(function())
        return result

    @types.coroutine
    def _pass_on(self, coro: Any) -> Generator[Any, Any, Any]:
        thrown: BaseException | None = None
        while True:
            try:
                awaited = coro.send(None) if thrown is None else coro.throw(thrown)
            except StopIteration as stop:
                return stop.value
            thrown = None
            number = len(self.places)
            self.places.append(place(coro))
            if number == 0:
                self.at_first()
            extra = 0
            if self._act is not None and number in self._at:
                self.acted += 1
                extra = self._hold
                thrown = self._act(awaited, coro)
                if isinstance(thrown, ClosedByHand):
                    raise thrown
            try:
                if thrown is not None:
                    raise thrown
                for _ in range(extra):
                    yield
                yield awaited
            except GeneratorExit:
                # As `await` does. The coroutine may have been finalised before this: free-threaded Python finalises
                # garbage in the order of addresses.
                coro.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - whatever the task is thrown, the coroutine is
                thrown = exc
                if getattr(awaited, '_asyncio_future_blocking', None):
                    # The suspension was not passed on.
                    awaited._asyncio_future_blocking = False


def cancel_at_once(awaited: Any, coro: Any) -> None:
    """Cancel the task at the moment in which it is being suspended."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


def cancel_while_suspended(awaited: Any, coro: Any) -> None:
    """Cancel the task in the next turn."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)


def cancel_when_done(awaited: Any, coro: Any) -> None:
    """Cancel the task when what it awaits is done, before the task has run again."""
    task = asyncio.current_task()
    assert task is not None
    if asyncio.isfuture(awaited):
        awaited.add_done_callback(lambda _: task.cancel())
    else:
        asyncio.get_running_loop().call_soon(task.cancel)


CANCELLATIONS = [cancel_at_once, cancel_while_suspended, cancel_when_done]


def throw(exc: BaseException) -> 'Callable[[Any, Any], BaseException]':
    """Throw an exception into the coroutine."""
    return lambda awaited, coro: exc


def close_by_hand(awaited: Any, coro: Any) -> BaseException:
    """Close the coroutine, as the garbage collector does."""
    coro.close()
    return ClosedByHand()


def let_time_pass(awaited: Any, coro: Any) -> None:
    """Let all timeouts expire."""
    hand_timed().advance(DAY)


# ---------------------------------------------------------------------------------------------------------------------
# A manager and a world
# ---------------------------------------------------------------------------------------------------------------------


class Connection:
    """A connection of these tests, with a record of its life."""

    def __init__(self, number: int, endpoint: str):
        self.number = number
        self.endpoint = endpoint
        self.disposals = 0
        self.closed = False
        self.dead = False
        self.user: object = None

    def __repr__(self) -> str:
        return f'<connection {self.number} to {self.endpoint}>'


class BareManager(BaseConnectionManager[str, Connection]):
    """Creates and disposes; every method is suspended ``points`` times, and a failing method takes a turn to clean up.

    :param points: how often
    :param total: connections that the server accepts in all
    :param each: connections that the server accepts per endpoint
    """

    def __init__(self, points: int = 2, *, each: int = 1, total: int = 100):
        self.points = points
        self.each = each
        self.total = total
        self.created: list[Connection] = []
        self.open: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.faults: list[str] = []
        self.failures: dict[str, BaseException] = {}

    async def pass_through(self, name: str) -> None:
        """Be suspended, alternately on a future and on a bare yield; then fail if this method is told to."""
        self.calls[name] += 1
        try:
            for point in range(self.points):
                if point % 2:
                    await asyncio.sleep(0)
                else:
                    await in_turns(2)
        except GeneratorExit:
            raise
        except BaseException:
            # Cleaning up takes a turn.
            await asyncio.sleep(0)
            raise
        failure = self.failures.pop(name, None)
        if failure is not None:
            raise failure

    async def create(self, endpoint: str) -> Connection:
        self.open[endpoint] += 1
        if self.open[endpoint] > self.each or sum(self.open.values()) > self.total:
            self.faults.append(f'more connections than may be: {self.open}')
        try:
            await self.pass_through('create')
        except BaseException:
            self.open[endpoint] -= 1
            raise
        conn = Connection(len(self.created), endpoint)
        self.created.append(conn)
        return conn

    async def dispose(self, endpoint: str, conn: Connection) -> None:
        self.see('dispose', endpoint, conn)
        conn.disposals += 1
        if conn.user is not None:
            self.faults.append(f'{conn!r} was disposed of while {conn.user!r} used it')
        try:
            await self.pass_through('dispose')
        finally:
            conn.closed = True
            self.open[endpoint] -= 1

    def see(self, name: str, endpoint: str, conn: Connection) -> None:
        """Record what is wrong about being called with this connection."""
        if conn.endpoint != endpoint:
            self.faults.append(f'{name}({endpoint!r}, {conn!r}): the wrong endpoint')
        if conn.disposals and name != 'on_connection_dead':
            self.faults.append(f'{name}({endpoint!r}, {conn!r}) after its dispose')


class StagedManager(BareManager):
    """Has all the hooks."""

    async def check_aliveness(self, endpoint: str, conn: Connection) -> bool:
        self.see('check_aliveness', endpoint, conn)
        await self.pass_through('check_aliveness')
        return not conn.dead

    async def on_acquire(self, endpoint: str, conn: Connection) -> None:
        self.see('on_acquire', endpoint, conn)
        await self.pass_through('on_acquire')

    async def on_release(self, endpoint: str, conn: Connection) -> None:
        self.see('on_release', endpoint, conn)
        await self.pass_through('on_release')

    async def on_connection_dead(self, endpoint: str, conn: Connection) -> None:
        self.see('on_connection_dead', endpoint, conn)
        if not conn.closed:
            self.faults.append(f'{conn!r} is dead and was not disposed of first')
        await self.pass_through('on_connection_dead')


class JudgingManager(StagedManager):
    """Also tells whether an exception broke a connection: if the connection is dead."""

    async def is_broken(self, endpoint: str, conn: Connection, exc: BaseException) -> bool:
        self.see('is_broken', endpoint, conn)
        await self.pass_through('is_broken')
        return conn.dead


class World:
    """One pool, its users, and books about who has which connection.

    :param manager: the pool's
    :param settings: the pool's
    """

    def __init__(self, manager: BareManager, **settings: Any):
        settings.setdefault('max_size', 1)
        settings.setdefault('total_max_size', 100)
        settings.setdefault('idle_timeout', HOUR)
        settings.setdefault('max_lifetime', 1000 * DAY)
        manager.each = settings['max_size']
        manager.total = settings['total_max_size']
        self.manager = manager
        self.pool: ConnectionPool[str, Connection] = ConnectionPool(manager, _clock=hand_timed().time, **settings)
        self.out: dict[Connection, object] = {}
        self.tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> 'asyncio.Task[Any]':
        """Start a coroutine in a task."""
        task = asyncio.get_running_loop().create_task(coro)
        self.tasks.add(task)
        return task

    def take(self, conn: Connection, user: object = 'somebody') -> None:
        """Record that a connection was acquired."""
        assert conn.user is None, f'{conn!r} is with {conn.user!r}, and now also with {user!r}'
        assert not conn.disposals, f'{conn!r} was served after its dispose'
        conn.user = user
        self.out[conn] = user

    def let_go(self, conn: Connection) -> None:
        """Record that a connection is being returned."""
        conn.user = None
        del self.out[conn]

    async def acquire(self, endpoint: str = 'a', timeout: float | None = None) -> Connection:
        """Acquire a connection and record it."""
        conn = await self.pool.acquire(endpoint, timeout)
        self.take(conn)
        return conn

    async def release(self, conn: Connection) -> None:
        """Return a connection and record it."""
        self.let_go(conn)
        await self.pool.release(conn, conn.endpoint)

    async def visit(self, endpoint: str = 'a', timeout: float | None = None) -> None:
        """Acquire a connection and return it."""
        await self.release(await self.acquire(endpoint, timeout))

    async def visit_with(self, endpoint: str = 'a', timeout: float | None = None) -> None:
        """Acquire and return with ``async with``."""
        async with self.pool.connection(endpoint, timeout) as conn:
            self.take(conn)
            self.let_go(conn)

    async def filled(self, *endpoints: str) -> None:
        """Create one idle connection at each endpoint (several, if it is named several times)."""
        for conn in [await self.acquire(endpoint) for endpoint in endpoints]:
            await self.release(conn)

    async def at_rest(self) -> None:
        """Let everything that was begun end, and compare the books."""
        await until(lambda: all(task.done() for task in self.tasks), f'all are served: {self.tasks}, {self.pool!r}')
        await until(lambda: not self.pool._tasks, f'all disposals end: {self.pool._tasks}')
        for task in self.tasks:
            if not task.cancelled():
                task.result()
        self.tasks.clear()
        self.compare()
        assert self.pool.get_stats()['waiting'] == 0
        assert not self.pool._waits

    def compare(self) -> None:
        """Compare the books."""
        self.pool._core.check_invariants()
        stats = self.pool.get_stats()
        assert not self.manager.faults, self.manager.faults
        assert stats['acquired'] == len(self.out), f'{stats}, out are {self.out}'
        assert stats['size'] == sum(self.manager.open.values()), f'{stats}, open are {self.manager.open}'
        assert stats['created'] == len(self.manager.created)
        assert stats['disposed'] == sum(conn.disposals for conn in self.manager.created)
        for endpoint, count in self.manager.open.items():
            assert self.pool._core.endpoint_size(endpoint) == count

    async def give_all_back(self) -> None:
        for conn in list(self.out):
            await self.release(conn)

    async def close(self, timeout: float | None = None) -> int:
        """Close the pool, and check that it leaves nothing in the loop."""
        forced = await self.pool.close(timeout)
        assert not self.pool._tasks
        collector = self.pool._collector
        assert collector is None or (collector.task is None and collector._timer._handle is None)
        return forced

    async def end(self, endpoints: Iterable[str] = ('a',)) -> None:
        """Check that the pool still works, close it, and check that nothing was lost or disposed of twice."""
        await self.give_all_back()
        await self.at_rest()
        if not self.pool._core.closed:
            for endpoint in endpoints:
                await self.visit(endpoint)
        assert await bounded(self.close()) == 0
        await self.at_rest()
        assert self.pool.get_size() == 0
        assert not self.pool._core.doomed
        wrong = {conn: conn.disposals for conn in self.manager.created if conn.disposals != 1}
        assert not wrong, f'disposals: {wrong}'


async def bounded(awaitable: Awaitable[ResultT]) -> ResultT:
    """Await something that must end within a limited number of turns."""
    future = asyncio.ensure_future(awaitable)
    try:
        await until(future.done, f'{awaitable!r} ends')
    except BaseException:
        future.cancel()
        raise
    return future.result()


async def catch(coro: Any) -> Any:
    """Return what a coroutine raises, or else returns."""
    try:
        return await coro
    except BaseException as exc:  # noqa: BLE001 - the loop must not see it
        return exc
