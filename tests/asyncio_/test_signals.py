"""A signal that arrives in an acquire, in a release or at the ends of a context, and whose handler raises.

The signal arrives when the pool reads its clock, at each of these reads in turn. No Python code runs in the clock, so
the handler runs where the interpreter next checks for signals: after the call of the compiled code that read the clock,
or, if that was no call, later. Either the user has the connection then, or the pool has it back.
"""

import _thread
import itertools
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest

from gcpool.asyncio import ConnectionPool
from tests.asyncio_.runtime import until
from tests.pool.support import CheckingManager, HookedManager, JudgingManager, Manager
from tests.support import Connection

pytestmark = [
    pytest.mark.skipif(sys.platform == 'win32', reason='signals interrupt nothing there'),
    # A handler may raise between the call that creates a coroutine and its first step, also the manager's.
    pytest.mark.filterwarnings('ignore:coroutine .* was never awaited:RuntimeWarning'),
]

# More often than the clock is read in a cycle and by the test.
LOOKS = 30


class Alarm(BaseException):
    """What the handler raises."""


class SignallingClock:
    """Its time is the number of the signal that arrives at a read: SIGHUP and SIGQUIT, which have no effect because
    they have no handler, and one SIGINT between them."""

    def __init__(self) -> None:
        self.numbers: deque[int] = deque()
        self.handled = 0
        # Compiled to the end: interrupt_main() returns None, so that each number is passed on.
        interrupt: Any = _thread.interrupt_main
        self.read: Callable[[], Any] = itertools.filterfalse(interrupt, iter(self.numbers.popleft, None)).__next__
        self.arm(0)
        self.disarm()

    def arm(self, looks: int) -> None:
        self.numbers.clear()
        self.numbers.extend([signal.SIGHUP] * looks + [signal.SIGINT] + [signal.SIGQUIT] * 1000)

    def disarm(self) -> bool:
        """Whether the signal has arrived."""
        arrived = signal.SIGINT not in self.numbers
        self.numbers.clear()
        self.numbers.extend([signal.SIGHUP] * 1000)
        return arrived

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.handled += 1
        raise Alarm


@pytest.fixture
def clock() -> Iterator[SignallingClock]:
    clock = SignallingClock()
    quiet = (signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.signal(number, signal.SIG_DFL) for number in quiet}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, clock.handle)
    try:
        yield clock
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def look_for_signals() -> None:
    """A call, after which the interpreter checks for signals at the latest."""


Pool = ConnectionPool[str, Connection]
Use = Callable[[Pool, str], Awaitable[Connection | None]]


async def acquire(pool: Pool, endpoint: str) -> Connection | None:
    conn = None
    with suppress(Alarm):
        conn = await pool.acquire(endpoint)
        look_for_signals()
    return conn


async def acquire_in_time(pool: Pool, endpoint: str) -> Connection | None:
    conn = None
    with suppress(Alarm):
        conn = await pool.acquire(endpoint, timeout=3600.0)
        look_for_signals()
    return conn


async def release(pool: Pool, endpoint: str) -> None:
    conn = await acquire(pool, endpoint)
    if conn is not None:
        with suppress(Alarm):
            await pool.release(conn, endpoint)
            look_for_signals()


async def enter_and_leave(pool: Pool, endpoint: str) -> None:
    with suppress(Alarm):
        async with pool.connection(endpoint):
            look_for_signals()
        look_for_signals()


async def leave_by_an_error(pool: Pool, endpoint: str) -> None:
    with suppress(Alarm):
        with suppress(KeyError):
            async with pool.connection(endpoint):
                raise KeyError
        look_for_signals()


@pytest.mark.parametrize('idle', [True, False], ids=['idle', 'new'])
@pytest.mark.parametrize(
    'use', [acquire, acquire_in_time, release, enter_and_leave, leave_by_an_error], ids=lambda use: use.__name__
)
@pytest.mark.parametrize('manager_class', [Manager, CheckingManager, HookedManager, JudgingManager])
async def test_nothing_is_lost_to_a_signal(
    manager_class: type[Manager], use: Use, idle: bool, clock: SignallingClock
) -> None:
    manager = manager_class()
    pool: Pool = ConnectionPool(manager, _clock=clock.read, total_max_size=1000)
    arrived = 0
    for looks in range(LOOKS):
        endpoint = 'a' if idle else f'endpoint {looks}'
        if idle:
            await pool.release(await pool.acquire(endpoint), endpoint)
        clock.arm(looks)
        conn = await use(pool, endpoint)
        arrived += clock.disarm()
        await until(lambda conn=conn: pool.get_stats()['acquired'] == (conn is not None))  # type: ignore[misc]
        if conn is not None:
            await pool.release(conn, endpoint)
    assert clock.handled == arrived
    # At each read of a use, and finally beyond them.
    assert 0 < arrived < LOOKS
    assert await pool.close(0) == 0
    pool._core.check_invariants()
    assert manager.living == []
