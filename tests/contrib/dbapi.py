"""A database driver without a database, for the tests of the pools for SQLAlchemy."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.contrib.servers import PATIENCE

# Seconds, for waits that are to end by their time limit.
SOON = 0.02


class FakeError(Exception):
    """What the driver raises."""


class FakeConnection:
    """A DBAPI connection that notes what is done with it.

    :param driver: what made it
    :param number: how many connections were made before this one
    """

    def __init__(self, driver: 'FakeDriver', number: int) -> None:
        self.driver = driver
        self.number = number
        self.calls: list[str] = []

    def __repr__(self) -> str:
        return f'<FakeConnection {self.number}>'

    @property
    def closed(self) -> bool:
        return 'close' in self.calls

    def commit(self) -> None:
        self.calls.append('commit')

    def rollback(self) -> None:
        self.calls.append('rollback')

    def cursor(self) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.calls.append('close')
        self.driver.closed_by.append(threading.get_ident())


class FakeDriver:
    """Connects, or raises what it is told to.

    :ivar made: its connections, in order
    :ivar failure: raised by the next connects, if not None
    :ivar before: called in each connect
    """

    def __init__(self) -> None:
        self.made: list[FakeConnection] = []
        self.closed_by: list[int] = []
        self.failure: BaseException | None = None
        self.before: Callable[[], object] = lambda: None

    def connect(self) -> Any:
        self.before()
        if self.failure is not None:
            raise self.failure
        self.made.append(FakeConnection(self, len(self.made)))
        return self.made[-1]

    @property
    def open(self) -> list[int]:
        """The numbers of the connections that are not closed."""
        return [conn.number for conn in self.made if not conn.closed]


def number_of(conn: Any) -> int:
    """Which of the driver's connections a checked-out one is."""
    number: int = conn.dbapi_connection.number
    return number


def wait_for_waiters(pool: Any, count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while pool._pool.get_stats()['waiting'] < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def pass_a_tick() -> None:
    """Wait until the clock by which SQLAlchemy dates connections and their invalidation shows a later time."""
    now = time.time()
    while time.time() <= now:
        time.sleep(0.001)


@contextmanager
def waiting(pool: Any, executor: ThreadPoolExecutor, count: int = 1) -> Iterator[list['Future[Any]']]:
    """Checkouts in threads, that wait for a connection, one after the other."""
    futures = []
    for number in range(count):
        futures.append(executor.submit(pool.connect))
        wait_for_waiters(pool, number + 1)
    yield futures
