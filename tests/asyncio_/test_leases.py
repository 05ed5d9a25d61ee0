"""A coroutine that is driven by hand, or finalised in another thread, ends its own acquire, and nobody else's."""

import _thread
import asyncio
import gc
import signal
import sys
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from gcpool._core import Disposal
from gcpool._long_waits import Waits
from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import spawn, until
from tests.interrupting import interrupt
from tests.pool.support import Case, CheckingManager, JudgingManager, Manager
from tests.support import PATIENCE, Connection, Interruption
from tests.threads.runtime import Job as ThreadJob


@types.coroutine
def suspended() -> Generator[None, None, None]:
    """Be suspended once, by whoever drives this."""
    yield


class SuspendedManager(JudgingManager):
    """Is suspended once in each hook of a release and in each dispose.

    :ivar during: called when on_release goes on, with the hook's own connection still out
    """

    def __init__(self) -> None:
        super().__init__()
        self.during: Callable[[], object] = lambda: None

    async def on_release(self, endpoint: Any, conn: Connection) -> None:
        await suspended()
        self.during()
        await super().on_release(endpoint, conn)

    async def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        await suspended()
        return await super().is_broken(endpoint, conn, exc)


Rest = Coroutine[Any, Any, None]


def in_hook(rest: Rest) -> Rest:
    """A rest of a release, driven to its hook."""
    rest.send(None)
    return rest


def drop(rests: list[Rest]) -> None:
    rests.clear()


def drop_in_cycle(rests: list[Any]) -> None:
    rests.append(rests)


def close(rests: list[Rest]) -> None:
    rests.pop().close()


def throw(rests: list[Rest]) -> None:
    with suppress(OSError):
        rests.pop().throw(OSError('thrown'))


def finish(rests: list[Rest]) -> None:
    with suppress(StopIteration):
        while True:
            rests[0].send(None)


async def begin_leaving(case: Case, what: str) -> Rest:
    """A release of ``a1`` that is suspended in its hook."""
    if what == 'release':
        return in_hook(case.pool.release(await case.pool.acquire('a'), 'a'))
    context = case.pool.connection('a')
    await context.__aenter__()
    leaving: Any = context.__aexit__(OSError, OSError('mine'), None)
    return in_hook(leaving)


@pytest.mark.parametrize('what', ['release', 'exit by an error'])
@pytest.mark.parametrize('end', [drop, drop_in_cycle, close, throw], ids=lambda end: end.__name__)
async def test_a_hook_that_is_cut_off_ends_no_lease_of_who_waits(end: Callable[[list[Any]], None], what: str) -> None:
    async with Case(SuspendedManager(), max_size=1, check_interval=50) as case:
        rests = [await begin_leaving(case, what)]
        waiting = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        another = spawn(case.pool.acquire, 'a')
        await case.waiting(2)
        end(rests)
        del rests
        gc.collect()
        conn = await waiting.result()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not another.done
        assert case.stats['acquired'] == 1
        await case.release(conn)
        await case.release(await another.result())


async def test_a_hook_that_drives_its_own_release_changes_nothing() -> None:
    manager = SuspendedManager()
    async with Case(manager) as case:
        conn = await case.pool.acquire('a')
        rest = in_hook(case.pool.release(conn, 'a'))
        out: list[int] = []

        def drive() -> None:
            for step in (lambda: rest.send(None), lambda: rest.throw(OSError('thrown')), rest.close):
                with pytest.raises(ValueError, match='already executing'):
                    step()
                out.append(case.stats['acquired'])

        manager.during = drive
        finish([rest])
        assert out == [1, 1, 1]
        assert case.stats['idle'] == 1


async def test_a_dispose_that_drives_itself_keeps_its_slot() -> None:
    sizes: list[int] = []

    class Driving(Manager):
        async def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
            # The pool's coroutine that has called this, with no public name.
            disposal: Any = next(each for each in gc.get_referrers(entry) if isinstance(each, Disposal))
            for step in (lambda: disposal.send(None), lambda: disposal.throw(OSError('x')), disposal.close):
                with pytest.raises(ValueError, match='already executing'):
                    step()
                sizes.append(case.pool.get_size())
            await super().dispose(endpoint, conn)

    async with Case(Driving()) as case:
        entry = case.pool._core.find_acquired(await case.pool.acquire('a'), 'a')
        assert entry is not None
        await case.pool.release(entry.conn, 'a')
        await case.pool.close()
        assert sizes == [1, 1, 1]


# -- a step that is thrown in ------------------------------------------------------------------------------------------


class Deadline(float):
    """A signal arrives when it goes: with the frame of the coroutine that has it. No line of Python runs at that."""

    __del__ = _thread.interrupt_main


class Limit(float):
    """A time limit whose deadline is such a one."""

    def __radd__(self, other: float) -> float:
        return Deadline(other + float(self))


class Alarm(BaseException):
    """What the signal handler raises."""


def look_for_signals() -> None:
    """A call, after which the interpreter looks for signals at the latest."""


@pytest.fixture
def alarms() -> Iterator[list[Alarm]]:
    """Those that were raised."""
    raised: list[Alarm] = []

    def raise_alarm(number: int, frame: FrameType | None) -> None:
        raised.append(Alarm())
        raise raised[-1]

    before = signal.signal(signal.SIGINT, raise_alarm)
    try:
        yield raised
    finally:
        signal.signal(signal.SIGINT, before)


class PatientManager(CheckingManager):
    """Is suspended once in each check, and answers whatever is thrown in."""

    async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        try:
            await suspended()
        except OSError as exc:
            # It would keep the frames of the acquire alive.
            exc.__traceback__ = None
        return True


@pytest.mark.skipif(sys.platform == 'win32', reason='signals interrupt nothing there')
@pytest.mark.parametrize('how', ['acquire', 'enter'])
@pytest.mark.parametrize('thrown', [False, True], ids=['sent', 'thrown'])
async def test_an_acquire_that_ends_in_a_thrown_step_loses_nothing_to_a_signal(
    how: str, thrown: bool, alarms: list[Alarm]
) -> None:
    # A clock in Python would be where the signal is handled.
    pool: ConnectionPool[str, Connection] = ConnectionPool(PatientManager())
    got: list[Connection] = []
    await pool.release(await pool.acquire('a'), 'a')

    async def use() -> None:
        if how == 'acquire':
            got.append(await pool.acquire('a', Limit(3600.0)))
        else:
            async with pool.connection('a', Limit(3600.0)):
                pass
        look_for_signals()

    using = use()
    using.send(None)
    with suppress(Alarm, StopIteration):
        if thrown:
            using.throw(OSError('thrown'))
        else:
            using.send(None)
    del using
    assert len(alarms) == 1
    alarms.clear()
    await until(lambda: pool.get_stats()['acquired'] == len(got))
    for conn in got:
        await pool.release(conn, 'a')
    assert await pool.close(0) == 0


# -- in another thread than the loop's ---------------------------------------------------------------------------------


def in_thread(function: Callable[[], object]) -> None:
    """Do something in another thread, and wait for that."""
    job = ThreadJob(function)
    job.result()


def set_debug() -> None:
    """Have the loop refuse what is not safe for threads: called from another one, that does not wake it."""
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = PATIENCE


async def test_an_acquire_that_another_thread_ends_wakes_who_waits() -> None:
    set_debug()
    async with Case(PatientManager(), max_size=1) as case:
        await case.cycle('a')
        acquiring = case.pool.acquire('a')
        acquiring.send(None)
        waiting = spawn(case.pool.acquire, 'a')
        await case.waiting(1)
        in_thread(acquiring.close)
        await case.release(await waiting.result())


@pytest.mark.parametrize('how', ['acquire', 'release', 'context'])
async def test_what_another_thread_dooms_the_loop_closes(how: str) -> None:
    set_debug()
    async with Case(SuspendedManager() if how == 'release' else PatientManager(), total_max_size=1, max_size=1) as case:
        await case.cycle('a')
        parts: list[Any] = [case.pool.connection('a')] if how == 'context' else [case.pool.acquire('a')]
        if how == 'context':
            await parts[0].__aenter__()
        elif how == 'acquire':
            parts[0].send(None)
        else:
            parts[0] = in_hook(case.pool.release(await parts[0], 'a'))
        waiting = spawn(case.pool.acquire, 'b')
        await case.waiting(1)
        in_thread(parts.clear if how == 'context' else parts.pop().close)
        await case.release(await waiting.result())
        assert case.manager.living == ['b1']


async def test_what_another_thread_gives_back_is_collected() -> None:
    class GreetingManager(Manager):
        async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
            await suspended()

    set_debug()
    async with Case(GreetingManager(), min_idle=0, idle_timeout=0, background_collector=True) as case:
        acquiring = case.pool.acquire('a')
        acquiring.send(None)
        # The first one that becomes idle: the collector has no timer yet.
        in_thread(acquiring.close)
        await until(lambda: case.stats['size'] == 0)


async def test_a_context_that_another_thread_ends_does_not_break_what_was_released_and_is_another_s() -> None:
    async with Case(JudgingManager(), max_size=1) as case:

        async def use() -> None:
            async with case.pool.connection('a') as conn:
                await case.pool.release(conn, 'a')
                await suspended()

        using = use()
        using.send(None)
        conn = await case.pool.acquire('a')
        in_thread(using.close)
        await case.release(conn)
        assert await case.cycle('a') == 'a1'


@pytest.mark.parametrize('where', ['is_running', 'call_soon_threadsafe'])
async def test_a_signal_does_not_keep_what_another_thread_has_dropped(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unraisable: list[Any] = []
    async with Case() as case:
        contexts: list[Any] = []
        # Without the GIL an object is freed in the thread that made it, if that is still there.
        in_thread(lambda: contexts.append(case.pool.connection('a')))
        await contexts[0].__aenter__()
        monkeypatch.setattr(sys, 'unraisablehook', lambda report: unraisable.append(report.exc_type))
        interrupt(asyncio.get_running_loop(), where, monkeypatch)
        in_thread(contexts.clear)
        await until(lambda: case.stats['acquired'] == 0)
        assert unraisable == [Interruption]
        monkeypatch.undo()


async def test_a_signal_that_comes_as_a_wait_begins_leaves_nothing() -> None:
    class Interrupted(Waits):
        def __setitem__(self, signal: Any, waiter: Any) -> None:
            super().__setitem__(signal, waiter)
            raise Interruption('after the call')

    async with Case(max_size=1) as case:
        conn = await case.pool.acquire('a')
        case.pool._waits = Interrupted(case.pool)
        with pytest.raises(Interruption):
            await case.pool.acquire('a')
        assert not case.pool._waits
        case.pool._waits = Waits(case.pool)
        await case.release(conn)


async def test_a_collector_that_is_interrupted_leaves_nothing_open_for_who_waits() -> None:
    class Collector:
        def ensure_running(self) -> bool:
            raise Interruption('in the collector')

    async with Case(total_max_size=1, max_size=1, background_collector=True, idle_timeout=50) as case:
        await case.cycle('a')
        conn = await case.pool.acquire('a')
        waiting = spawn(case.pool.acquire, 'b')
        await case.waiting(1)
        collector, case.pool._collector = case.pool._collector, Collector()
        case.clock.advance(100)
        with suppress(Interruption):
            await case.pool.release(conn, 'a')
        case.pool._collector = collector
        await case.release(await waiting.result())
