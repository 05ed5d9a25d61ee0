"""Managers that follow a script, and a pool with its books: the tests of both pools are written with these."""

from random import Random
from types import TracebackType
from typing import Any, final

from gcpool.asyncio import BaseConnectionManager, ConnectionPool
from gcpool.exceptions import DiscardConnection
from tests.asyncio_.runtime import Event, give_way, until
from tests.support import Clock, Connection, Interruption, Recorder


class Gate:
    """A point in a manager's method where one call waits until the test lets it continue.

    :param then: what the call does afterwards, as in a script
    """

    def __init__(self, then: object = None) -> None:
        self._then = then
        self._reached = Event()
        self._open = Event()

    def open(self) -> None:
        self._open.set()

    async def reached(self) -> None:
        """Wait until the call has reached this point."""
        await self._reached.wait('no call came to the gate')

    async def go_through(self) -> object:
        self._reached.set()
        await self._open.wait('nobody opened the gate')
        return self._then


class Pause:
    """Lets others run for a moment.

    :param turns: how often
    :param then: what the call does afterwards, as in a script
    """

    def __init__(self, turns: int, then: object = None) -> None:
        self._turns = turns
        self._then = then

    async def go_through(self) -> object:
        for _ in range(self._turns):
            await give_way()
        return self._then


async def follow(step: object) -> Any:
    """Do what a script says."""
    if isinstance(step, (Gate, Pause)):
        step = await step.go_through()
    if isinstance(step, BaseException):
        raise step
    return step


class Manager(Recorder, BaseConnectionManager[Any, Connection]):
    """Overrides only the required methods.

    ``timeouts`` lists the time limit that each method was passed, parallel to ``calls``: a pool on asyncio passes none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.timeouts: list[float | None] = []

    async def create(self, endpoint: Any, timeout: float | None = None) -> Connection:
        step = self.begin('create', endpoint)
        self.timeouts.append(timeout)
        self.opening(endpoint)
        try:
            conn: Connection | None = await follow(step)
        except BaseException:
            self.closed(endpoint)
            raise
        if conn is None:
            return self.connect(endpoint)
        self.closed(endpoint)
        return conn

    async def dispose(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> None:
        step = self.begin('dispose', conn)
        self.timeouts.append(timeout)
        conn.disposals += 1
        try:
            await follow(step)
        finally:
            self.closed(endpoint)


class CheckingManager(Manager):
    """Checks connections, and has no other hook."""

    async def check_aliveness(self, endpoint: Any, conn: Connection, timeout: float | None = None) -> bool:
        step = self.begin('check_aliveness', conn)
        self.timeouts.append(timeout)
        alive = await follow(step)
        return alive is None or alive


class HookedManager(CheckingManager):
    """Overrides every method."""

    async def on_acquire(self, endpoint: Any, conn: Connection) -> None:
        await follow(self.begin('on_acquire', conn))

    async def on_release(self, endpoint: Any, conn: Connection) -> None:
        await follow(self.begin('on_release', conn))

    async def on_connection_dead(self, endpoint: Any, conn: Connection) -> None:
        await follow(self.begin('on_connection_dead', conn))


class JudgingManager(HookedManager):
    """Also tells whether an exception broke a connection; as a script says, otherwise no."""

    async def is_broken(self, endpoint: Any, conn: Connection, exc: BaseException) -> bool:
        return bool(await follow(self.begin('is_broken', conn)))


class OnlyResetting(Manager):
    """Has no hook but on_release."""

    on_release = HookedManager.on_release


class OnlyJudging(Manager):
    """Has no hook but is_broken."""

    is_broken = JudgingManager.is_broken


class FlakyManager(JudgingManager):
    """Lets others run at each call, and then fails at random.

    :param random: the source of randomness
    """

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    def begin(self, name: str, subject: object) -> Any:
        super().begin(name, subject)
        fate = self._random.random()
        outcome: object = None
        if fate < 0.1:
            outcome = Interruption(name) if fate < 0.02 and name != 'dispose' else OSError(name)
        elif fate < 0.2 and name == 'check_aliveness':
            outcome = False
        elif fate < 0.3 and name == 'on_release':
            outcome = DiscardConnection(name)
        elif fate < 0.3 and name == 'is_broken':
            outcome = True
        return Pause(self._random.randrange(3), outcome)


class ForgetfulManager(BaseConnectionManager[Any, object]):
    """Keeps no reference to anything."""

    creates = True
    finds_alive = True

    async def create(self, endpoint: Any, timeout: float | None = None) -> object:
        if not self.creates:
            raise OSError('no')
        return object()

    async def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
        pass

    async def check_aliveness(self, endpoint: Any, conn: object, timeout: float | None = None) -> bool:
        return self.finds_alive


class Duck:
    """A manager that does not inherit from gcpool."""

    async def create(self, endpoint: Any, timeout: float | None = None) -> object:
        return object()

    async def dispose(self, endpoint: Any, conn: object, timeout: float | None = None) -> None:
        pass


@final
class Case:
    """A pool, a manager that records, and a clock that only the test advances.

    At the end everything must have been returned, and the books must balance: every connection disposed of once, and
    never more of them than the pool may have.

    :param manager: if not a :py:class:`Manager`
    :param pool_class: if not the pool itself
    :param options: the parameters of the pool
    """

    def __init__(
        self,
        manager: Manager | None = None,
        *,
        pool_class: type[ConnectionPool[Any, Any]] = ConnectionPool,
        **options: Any,
    ) -> None:
        self.clock = Clock()
        self.manager = Manager() if manager is None else manager
        self.detached: list[Connection] = []
        self.pool: ConnectionPool[Any, Connection] = pool_class(self.manager, _clock=self.clock, **options)

    async def __aenter__(self) -> 'Case':
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.manager.forget_script()
        out = await self.pool.close(timeout=0)
        if exc is None:
            assert out == 0, f'the test left {out} connections out'
            await until(lambda: self.pool.get_size() == 0)
            self.check_books()

    def check_books(self) -> None:
        """Compare what the manager saw with what it may see. At rest, with the pool closed."""
        self.pool._core.check_invariants()
        wrong = [conn for conn in self.manager.connections if conn.disposals != (conn not in self.detached)]
        assert [(conn, conn.disposals) for conn in wrong] == []
        assert self.manager.open.total() == 0
        assert self.manager.total_peak <= self.pool.total_max_size
        assert max(self.manager.peak.values(), default=0) <= self.pool.max_size
        left = {name: count for name, count in self.stats.items() if name in GAUGES and count}
        assert left == {}
        assert self.stats['created'] == len(self.manager.connections)
        assert self.stats['detached'] == len(self.detached)
        assert self.stats['created'] == self.stats['disposed'] + self.stats['detached']

    @property
    def stats(self) -> dict[str, int]:
        return self.pool.get_stats()

    async def acquire(self, endpoint: Any, count: int) -> list[Connection]:
        """Acquire several connections."""
        return [await self.pool.acquire(endpoint) for _ in range(count)]

    async def release(self, *conns: Connection) -> None:
        """Release connections, in this order."""
        for conn in conns:
            await self.pool.release(conn, conn.endpoint)

    def detach(self, conn: Connection) -> None:
        """Detach a connection: from then on it is the test's."""
        self.pool.detach(conn)
        self.manager.closed(conn.endpoint)
        self.detached.append(conn)

    async def cycle(self, endpoint: Any) -> str:
        """Acquire a connection and release it.

        :return: its name
        """
        conn = await self.pool.acquire(endpoint)
        await self.pool.release(conn, endpoint)
        return conn.name

    async def waiting(self, count: int) -> None:
        """Wait until this many acquires are queued."""
        await until(lambda: self.stats['waiting'] == count)


GAUGES = frozenset({'size', 'idle', 'acquired', 'waiting', 'endpoints'})
