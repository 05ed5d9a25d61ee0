"""Clients of a pool, for threads and for asyncio, of whom every acquire, request and release is counted and timed.

The tests talk to both from their own thread, in the same words.
"""

import asyncio
import collections
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable
from concurrent import futures
from dataclasses import dataclass
from typing import Any, final

import gcpool.asyncio
import gcpool.threading
from tests.contrib.servers import PATIENCE

__all__ = ['AsyncClient', 'Attempt', 'Client', 'Ledger', 'ThreadsClient', 'eventually']

# Seconds by which no call may outlast its time limit, on a machine that lets every thread run when it wants to.
OVERSHOOT = 0.5
# How often the canary sings, in seconds.
TICK = 0.01
# Seconds between two attempts of a worker: what fails at once should not become a race.
PACE = 0.01


def eventually(what: str, holds: Callable[[], bool]) -> None:
    """Wait until something holds of which nobody tells when it changes; fail if it does not come to that."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, f'it did not come to this: {what}'
        threading.Event().wait(0.01)


@final
class Canary:
    """A thread that wants nothing but to run now and then, and tells how late the machine has let it."""

    def __init__(self) -> None:
        #: Seconds, at the worst.
        self.lag = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._sing, name='canary', daemon=True)
        self._thread.start()

    def _sing(self) -> None:
        due = time.monotonic() + TICK
        while not self._stopping.wait(TICK):
            now = time.monotonic()
            self.lag = max(self.lag, now - due)
            due = now + TICK

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), 'the canary does not end'


@final
@dataclass
class Attempt:
    """One acquire, request and release. All times are monotonic ones in seconds."""

    endpoint: str
    timeout: float
    began: float
    ended: float = 0.0
    acquire_took: float = 0.0
    release_took: float = 0.0
    #: Of the connection, None if there was none.
    number: int | None = None
    #: 'acquire', 'request', 'answer' (a wrong one) or 'release' where it failed, '' where nothing did.
    failed: str = ''
    error: type[BaseException] | None = None
    message: str = ''

    def fails(self, where: str, exc: BaseException) -> None:
        # Without the exception itself, which holds on to whatever it went through.
        self.failed = where
        self.error = type(exc)
        self.message = f'{type(exc).__name__}: {exc}'

    def overlaps(self, begin: float, end: float) -> bool:
        return self.began <= end and self.ended >= begin


@final
class Ledger:
    """What a pool has had its manager do with each connection. Connections are told apart by a number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Kept, so that no other object gets the same id.
        self._connections: list[Any] = []
        self._numbers: dict[int, int] = {}
        self.endpoints: list[Any] = []
        self.disposed: collections.Counter[int] = collections.Counter()
        self.dead: collections.Counter[int] = collections.Counter()
        self.checks: list[int] = []

    def created(self, endpoint: Any, conn: Any) -> None:
        with self._lock:
            self._numbers[id(conn)] = len(self._connections)
            self._connections.append(conn)
            self.endpoints.append(endpoint)

    def number(self, conn: Any) -> int:
        return self._numbers[id(conn)]

    def numbers(self, endpoint: Any) -> set[int]:
        """Every connection that there ever was to an endpoint."""
        return {number for number, led_to in enumerate(self.endpoints) if led_to == endpoint}

    def open(self, endpoint: Any) -> set[int]:
        """Those of them that were not disposed of."""
        return self.numbers(endpoint) - set(self.disposed)

    def checking(self, conn: Any) -> None:
        self.checks.append(self.number(conn))

    def disposing(self, conn: Any) -> None:
        with self._lock:
            self.disposed[self.number(conn)] += 1

    def died(self, conn: Any) -> None:
        with self._lock:
            self.dead[self.number(conn)] += 1


def counted(manager_class: type, ledger: Ledger) -> type:
    """A subclass of a manager's class that also keeps the ledger."""
    base: Any = manager_class
    if issubclass(manager_class, gcpool.threading.BaseConnectionManager):

        class Counted(base):  # type: ignore[misc,unused-ignore]
            def create(self, endpoint: Any, timeout: float | None = None) -> Any:
                conn = super().create(endpoint, timeout)
                ledger.created(endpoint, conn)
                return conn

            def dispose(self, endpoint: Any, conn: Any, timeout: float | None = None) -> None:
                ledger.disposing(conn)
                super().dispose(endpoint, conn, timeout)

            def check_aliveness(self, endpoint: Any, conn: Any, timeout: float | None = None) -> bool:
                ledger.checking(conn)
                return bool(super().check_aliveness(endpoint, conn, timeout))

            def on_connection_dead(self, endpoint: Any, conn: Any) -> None:
                ledger.died(conn)
                super().on_connection_dead(endpoint, conn)

        return Counted

    class AsyncCounted(base):  # type: ignore[misc,unused-ignore]
        async def create(self, endpoint: Any) -> Any:
            conn = await super().create(endpoint)
            ledger.created(endpoint, conn)
            return conn

        async def dispose(self, endpoint: Any, conn: Any) -> None:
            ledger.disposing(conn)
            await super().dispose(endpoint, conn)

        async def check_aliveness(self, endpoint: Any, conn: Any) -> bool:
            ledger.checking(conn)
            return bool(await super().check_aliveness(endpoint, conn))

        async def on_connection_dead(self, endpoint: Any, conn: Any) -> None:
            ledger.died(conn)
            await super().on_connection_dead(endpoint, conn)

    return AsyncCounted


class Client(ABC):
    """A pool, and those who use it.

    :param manager_class: of the connection manager
    :param arguments: what the manager is made with
    :param timeout: seconds that each acquire may wait; ``timeouts`` has others for some endpoints, and may be changed
    :param answer_timeout: seconds that the driver waits for an answer of the endpoint ``main``
    :param request: what is done with a connection; it has a bound of its own
    :param pool_parameters: what the pool is made with
    """

    def __init__(
        self,
        manager_class: type,
        arguments: dict[str, Any],
        *,
        timeout: float,
        answer_timeout: float,
        request: Callable[[Any], Any],
        **pool_parameters: Any,
    ) -> None:
        self.ledger = Ledger()
        self.timeouts = collections.defaultdict[str, float](lambda: timeout)
        self.answer_timeout = answer_timeout
        self._request = request
        manager = counted(manager_class, self.ledger)(**arguments)
        self.pool: Any = self._make_pool(manager, pool_parameters)
        self._attempts: list[Attempt] = []
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._canary = Canary()

    @property
    def overshoot(self) -> float:
        """Seconds by which no call may have outlasted its time limit, this machine being as busy as it is."""
        return OVERSHOOT + self._canary.lag

    @abstractmethod
    def _make_pool(self, manager: Any, parameters: dict[str, Any]) -> Any: ...

    @abstractmethod
    def visit(self, endpoint: str, meanwhile: Callable[[], object] | None = None) -> Attempt:
        """Acquire a connection, use it for one request, give it back.

        :param meanwhile: called while the connection is out, before the request
        """

    @abstractmethod
    def fill(self, endpoint: str, count: int) -> list[int]:
        """Acquire that many connections at once and give them back.

        :return: their numbers
        """

    @abstractmethod
    def start_load(self, endpoint: str, workers: int, hold: float = 0.0) -> None:
        """Have that many workers visit an endpoint again and again.

        :param hold: seconds for which each keeps its connection before the request
        """

    @abstractmethod
    def stop_load(self) -> None:
        """Have the workers end, and wait for that."""

    @abstractmethod
    def leave_open(self, endpoint: str, leave: Callable[[Any], Any], meanwhile: Callable[[], object]) -> float:
        """Acquire a connection, do something to it, let something happen, and give it back.

        :return: how many seconds it took to give it back
        """

    @abstractmethod
    def close_pool(self, timeout: float) -> float:
        """Close the pool.

        :return: how many seconds that took
        """

    def shut_down(self) -> None:
        """End what the client itself has started."""
        self._canary.stop()

    @abstractmethod
    def size(self, endpoint: str) -> int:
        """How many connections the pool has to an endpoint."""

    def _note(self, attempt: Attempt) -> Attempt:
        attempt.ended = time.monotonic()
        with self._changed:
            self._attempts.append(attempt)
            self._changed.notify_all()
        return attempt

    def attempts(self, endpoint: str | None = None, *, since: float = 0.0) -> list[Attempt]:
        """What was tried, of one endpoint or of all, and was not begun before some time."""
        with self._changed:
            return [
                attempt
                for attempt in self._attempts
                if (endpoint is None or attempt.endpoint == endpoint) and attempt.began >= since
            ]

    def failures(self, endpoint: str | None = None, *, since: float = 0.0) -> list[Attempt]:
        """Those of them that failed."""
        return [attempt for attempt in self.attempts(endpoint, since=since) if attempt.failed]

    def wait_for_successes(self, endpoint: str, count: int, *, since: float = 0.0) -> None:
        """Wait until that many attempts, begun since then, have succeeded."""
        self._wait_for(endpoint, count, since, failed=False)

    def wait_for_failures(self, endpoint: str, count: int, *, since: float = 0.0) -> None:
        """Wait until that many attempts, begun since then, have failed."""
        self._wait_for(endpoint, count, since, failed=True)

    def _wait_for(self, endpoint: str, count: int, since: float, *, failed: bool) -> None:
        def enough() -> bool:
            found = sum(
                attempt.endpoint == endpoint and attempt.began >= since and bool(attempt.failed) is failed
                for attempt in self._attempts
            )
            return found >= count

        with self._changed:
            done = self._changed.wait_for(enough, PATIENCE)
        assert done, f'no {count} attempts {"failed" if failed else "succeeded"}: {self.attempts(endpoint)[-10:]}'

    def stats(self) -> dict[str, int]:
        """The pool's gauges and counters."""
        found: dict[str, int] = self.pool.get_stats()
        return found


@final
class ThreadsClient(Client):
    """The users are threads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def _make_pool(self, manager: Any, parameters: dict[str, Any]) -> Any:
        return gcpool.threading.ConnectionPool(manager, **parameters)

    def visit(self, endpoint: str, meanwhile: Callable[[], object] | None = None) -> Attempt:
        attempt = Attempt(endpoint, self.timeouts[endpoint], time.monotonic())
        context = self.pool.connection(endpoint, attempt.timeout)
        try:
            conn = context.__enter__()
        except Exception as exc:  # noqa: BLE001  (counted)
            attempt.fails('acquire', exc)
            return self._note(attempt)
        finally:
            attempt.acquire_took = time.monotonic() - attempt.began
        attempt.number = self.ledger.number(conn)
        if meanwhile is not None:
            meanwhile()
        raised: tuple[Any, Any, Any] = (None, None, None)
        try:
            self._request(conn)
        except Exception as exc:  # noqa: BLE001  (counted)
            attempt.fails('answer' if isinstance(exc, AssertionError) else 'request', exc)
            raised = sys.exc_info()
        began = time.monotonic()
        try:
            context.__exit__(*raised)
        except Exception as exc:  # noqa: BLE001  (counted)
            attempt.fails('release', exc)
        finally:
            attempt.release_took = time.monotonic() - began
            del raised
        return self._note(attempt)

    def fill(self, endpoint: str, count: int) -> list[int]:
        connections = [self.pool.acquire(endpoint, PATIENCE) for _ in range(count)]
        for conn in connections:
            self.pool.release(conn, endpoint)
        return [self.ledger.number(conn) for conn in connections]

    def start_load(self, endpoint: str, workers: int, hold: float = 0.0) -> None:
        threads = [
            threading.Thread(target=self._work, args=(endpoint, hold), name='load', daemon=True) for _ in range(workers)
        ]
        self._threads += threads
        for thread in threads:
            thread.start()

    def _work(self, endpoint: str, hold: float) -> None:
        try:
            while not self._stopping.wait(PACE):
                self.visit(endpoint, lambda: self._stopping.wait(hold))
        except BaseException as exc:
            self._errors.append(exc)
            raise

    def stop_load(self) -> None:
        self._stopping.set()
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        stuck = sum(thread.is_alive() for thread in self._threads)
        assert not stuck, f'{stuck} workers do not end'
        assert not self._errors, self._errors
        self._threads.clear()
        self._stopping.clear()

    def leave_open(self, endpoint: str, leave: Callable[[Any], Any], meanwhile: Callable[[], object]) -> float:
        conn = self.pool.acquire(endpoint, PATIENCE)
        leave(conn)
        meanwhile()
        began = time.monotonic()
        self.pool.release(conn, endpoint)
        return time.monotonic() - began

    def close_pool(self, timeout: float) -> float:
        began = time.monotonic()
        self.pool.close(timeout)
        return time.monotonic() - began

    def shut_down(self) -> None:
        try:
            self.stop_load()
            self.close_pool(0.0)
        finally:
            super().shut_down()

    def size(self, endpoint: str) -> int:
        found: int = self.pool.get_endpoint_pool_size(endpoint)
        return found


@final
class AsyncClient(Client):
    """The users are tasks of an event loop, which runs in a thread of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self.unhandled: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda _loop, context: self.unhandled.append(context))
        super().__init__(*args, **kwargs)
        self._tasks: list[futures.Future[None]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name='load-loop', daemon=True)
        self._thread.start()

    def _make_pool(self, manager: Any, parameters: dict[str, Any]) -> Any:
        return gcpool.asyncio.ConnectionPool(manager, **parameters)

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def visit(self, endpoint: str, meanwhile: Callable[[], object] | None = None) -> Attempt:
        attempt: Attempt = self._call(self._visit(endpoint, meanwhile))
        return attempt

    async def _visit(self, endpoint: str, meanwhile: Callable[[], object] | None = None, hold: float = 0.0) -> Attempt:
        attempt = Attempt(endpoint, self.timeouts[endpoint], time.monotonic())
        context = self.pool.connection(endpoint, attempt.timeout)
        try:
            conn = await context.__aenter__()
        except Exception as exc:  # noqa: BLE001  (counted)
            attempt.fails('acquire', exc)
            return self._note(attempt)
        finally:
            attempt.acquire_took = time.monotonic() - attempt.began
        attempt.number = self.ledger.number(conn)
        if meanwhile is not None:
            await self._loop.run_in_executor(None, meanwhile)
        if hold:
            await asyncio.sleep(hold)
        raised: tuple[Any, Any, Any] = (None, None, None)
        try:
            await self._request(conn)
        except Exception as exc:  # noqa: BLE001  (counted)
            attempt.fails('answer' if isinstance(exc, AssertionError) else 'request', exc)
            raised = sys.exc_info()
        began = time.monotonic()
        try:
            await context.__aexit__(*raised)
        except Exception as exc:  # noqa: BLE001  (counted)
            attempt.fails('release', exc)
        finally:
            attempt.release_took = time.monotonic() - began
            del raised
        return self._note(attempt)

    def fill(self, endpoint: str, count: int) -> list[int]:
        async def fill() -> list[int]:
            connections = [await self.pool.acquire(endpoint, PATIENCE) for _ in range(count)]
            for conn in connections:
                await self.pool.release(conn, endpoint)
            return [self.ledger.number(conn) for conn in connections]

        found: list[int] = self._call(fill())
        return found

    def start_load(self, endpoint: str, workers: int, hold: float = 0.0) -> None:
        self._tasks += [
            asyncio.run_coroutine_threadsafe(self._work(endpoint, hold), self._loop) for _ in range(workers)
        ]

    async def _work(self, endpoint: str, hold: float) -> None:
        while not self._stopping.is_set():
            await self._visit(endpoint, hold=hold)
            await asyncio.sleep(PACE)

    def stop_load(self) -> None:
        self._stopping.set()
        done, stuck = futures.wait(self._tasks, PATIENCE)
        assert not stuck, f'{len(stuck)} workers do not end'
        for task in done:
            task.result()
        self._tasks.clear()
        self._stopping.clear()

    def leave_open(self, endpoint: str, leave: Callable[[Any], Any], meanwhile: Callable[[], object]) -> float:
        async def leave_open() -> float:
            conn = await self.pool.acquire(endpoint, PATIENCE)
            await leave(conn)
            await self._loop.run_in_executor(None, meanwhile)
            began = time.monotonic()
            await self.pool.release(conn, endpoint)
            return time.monotonic() - began

        took: float = self._call(leave_open())
        return took

    def close_pool(self, timeout: float) -> float:
        async def close() -> float:
            began = time.monotonic()
            await self.pool.close(timeout)
            return time.monotonic() - began

        took: float = self._call(close())
        return took

    def shut_down(self) -> None:
        try:
            self.stop_load()
            self.close_pool(0.0)
            self._call(self._settle())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive(), 'the event loop does not end'
            self._loop.close()
            super().shut_down()
        # asyncpg says that when it rolls back what a user left open.
        unhandled = [context for context in self.unhandled if not context['message'].startswith('Resetting connection')]
        assert not unhandled, unhandled

    async def _settle(self) -> None:
        # What a driver does in the background when a connection was aborted.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, left = await asyncio.wait(others, timeout=PATIENCE / 2)
            assert not left, left
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()

    def size(self, endpoint: str) -> int:
        found: int = self._call(self._size(endpoint))
        return found

    async def _size(self, endpoint: str) -> int:
        found: int = await self.pool.get_endpoint_pool_size(endpoint)
        return found


def messages(attempts: Iterable[Attempt]) -> list[str]:
    """Attempts that failed, for the message of an assertion."""
    return [f'{attempt.failed}: {attempt.message}' for attempt in attempts]
