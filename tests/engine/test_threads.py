"""Threads that use one core at the same time. Without the GIL they really do."""

import random
import sys
import threading
from collections.abc import Iterator

import pytest

from gcpool._core import PoolCore, Waiter
from tests.conftest import QUICK
from tests.engine.support import Connection

# Seconds that nothing here takes unless something is broken.
LONG = 60.0


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    """With the GIL, threads switch as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Endpoint:
    """Equal to another one of its number, and created anew all the time."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return self.number % 3

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and self.number == other.number


class Case:
    """A core, and a record of what the server would see of it."""

    def __init__(self, min_idle: int, max_size: int, total_max_size: int, seconds: tuple[float, float]) -> None:
        self.core = PoolCore(min_idle, max_size, total_max_size, *seconds, clock=self.clock)
        self.max_size = max_size
        self.total_max_size = total_max_size
        self.lock = threading.Lock()
        self.time = 0.0
        self.open: dict[int, int] = {}
        self.made = 0
        self.in_use: set[int] = set()
        self.failures: list[BaseException] = []

    def clock(self) -> float:
        with self.lock:
            self.time += 0.001
            return self.time

    def create(self, endpoint: int) -> Connection:
        with self.lock:
            self.made += 1
            self.open[endpoint] = self.open.get(endpoint, 0) + 1
            assert self.open[endpoint] <= self.max_size
            assert sum(self.open.values()) <= self.total_max_size
            conn = Connection(f'{endpoint}.{self.made}')
            conn.endpoint = endpoint  # type: ignore[attr-defined]
            return conn

    def dispose_all(self) -> None:
        while (entry := self.core.take_doomed()) is not None:
            with self.lock:
                assert id(entry.conn) not in self.in_use
                self.open[entry.conn.endpoint] -= 1
            self.core.disposed(entry, self.clock())

    def use(self, conn: Connection) -> None:
        with self.lock:
            assert id(conn) not in self.in_use, 'two have it'
            self.in_use.add(id(conn))

    def stop_using(self, conn: Connection) -> None:
        with self.lock:
            self.in_use.remove(id(conn))


class Client:
    """One thread: acquires, in each way that can go wrong, and releases."""

    def __init__(self, case: Case, seed: int, steps: int) -> None:
        self.case = case
        self.rng = random.Random(seed)
        self.steps = steps

    def run(self) -> None:
        try:
            for _ in range(self.steps):
                self.cycle()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.case.failures.append(error)

    def cycle(self) -> None:
        rng, case, core = self.rng, self.case, self.case.core
        number = rng.randrange(5)
        endpoint = Endpoint(number)
        signal = threading.Event()
        waiter = Waiter(endpoint)
        waiter.arm(signal.set)
        entry = core.try_acquire(endpoint, case.clock())
        if entry is not None:
            core.adopt(waiter, entry)
        elif core.request(waiter, case.clock()):
            case.dispose_all()
            if rng.random() < 0.1 and core.cancel(waiter, case.clock()):
                case.dispose_all()
                return
            if rng.random() < 0.1 and core.give_up(waiter):
                return
            assert signal.wait(LONG), 'nobody served it'
        case.dispose_all()
        if waiter.has_ticket and rng.random() < 0.9:
            ticket = waiter.held
            assert ticket is not None
            assert core.created(ticket, case.create(number), case.clock())
        held = waiter.held
        if held is None or waiter.has_ticket or rng.random() < 0.05:
            core.cancel(waiter, case.clock())
            case.dispose_all()
            return
        assert held.conn.endpoint == number
        case.use(held.conn)
        core.endpoint_size(Endpoint(rng.randrange(5)))
        case.stop_using(held.conn)
        if rng.random() < 0.1:
            core.reject_dead(waiter)
            core.cancel(waiter, case.clock())
        else:
            found = core.find_acquired(held.conn, Endpoint(number))
            assert found is not None
            assert found is held
            if rng.random() < 0.2:
                assert core.begin_release(found)
            core.release(found, case.clock())
        if rng.random() < 0.2:
            core.doom_due(case.clock(), 0)
            core.next_due()
            core.stats()
        case.dispose_all()


@pytest.mark.stress
@pytest.mark.parametrize(
    ('limits', 'seconds'),
    [((1, 3, 100), (0.5, 5.0)), ((2, 3, 7), (0.05, 1.0)), ((0, 2, 4), (0.0, 1.0)), ((1, 1, 1), (0.01, 0.1))],
)
def test_whatever_threads_do_the_caps_hold_and_nothing_is_lost(
    limits: tuple[int, int, int], seconds: tuple[float, float]
) -> None:
    case = Case(*limits, seconds)
    clients = [Client(case, seed, 200 if QUICK else 1000) for seed in range(8)]
    threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert case.failures == []
    assert not any(thread.is_alive() for thread in threads)
    core = case.core
    core.check_invariants()
    stats = core.stats()
    assert (stats['acquired'], stats['waiting'], stats['size']) == (0, 0, stats['idle'])
    assert stats['size'] == sum(case.open.values())
    core.close()
    case.dispose_all()
    core.check_invariants()
    stats = core.stats()
    assert (stats['size'], stats['endpoints']) == (0, 0)
    assert stats['created'] == stats['disposed'] == case.made > 0
