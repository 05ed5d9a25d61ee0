"""Garbage: finalizers that use a pool in the middle of whatever it does, and pools that are garbage themselves.

On a build with assertions Python code that comes back into the core while it holds a lock ends the process.
"""

import asyncio
import contextlib
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gcpool.asyncio
import gcpool.threading
from gcpool._workers import workers_threads
from gcpool.exceptions import BaseError, PoolTimeout
from tests.conftest import FREE_THREADED, QUICK, pool_threads
from tests.support import PATIENCE, collect_garbage, dropped_pools
from tests.threads.runtime import spawn, until

# Without the GIL each collection looks at all objects that there are.
ROUNDS = 30 if QUICK else 100 if FREE_THREADED else 300


@pytest.fixture(autouse=True)
def pools_are_dropped() -> Iterator[None]:
    """The tests are about pools that nobody closes: those with connections are warned of, and nothing else is."""
    with dropped_pools():
        yield


class Connection:
    """Something that can refer to anything."""

    referent: object = None


class Manager(gcpool.threading.BaseConnectionManager[Any, Any]):
    """Takes no lock, in the middle of which garbage could be collected."""

    referent: object = None

    def __init__(self, make: Callable[[], Any] = Connection) -> None:
        self.make = make
        self.created = 0
        self.disposed = 0
        self.fails = False

    def create(self, endpoint: Any, timeout: float | None = None) -> Any:
        if self.fails:
            raise OSError('no')
        self.created += 1
        return self.make()

    def dispose(self, endpoint: Any, conn: Any, timeout: float | None = None) -> None:
        self.disposed += 1


class HookedManager(Manager):
    """Overrides every method; each makes garbage."""

    def __init__(self, litter: Callable[[], object]) -> None:
        super().__init__()
        self.litter = litter
        self.checks = 0

    def check_aliveness(self, endpoint: Any, conn: Any, timeout: float | None = None) -> bool:
        self.litter()
        self.checks += 1
        return self.checks % 5 != 0

    def on_acquire(self, endpoint: Any, conn: Any) -> None:
        self.litter()

    def on_release(self, endpoint: Any, conn: Any) -> None:
        self.litter()

    def on_connection_dead(self, endpoint: Any, conn: Any) -> None:
        self.litter()


class AsyncManager(gcpool.asyncio.BaseConnectionManager[Any, Any]):
    """The same for asyncio."""

    async def create(self, endpoint: Any) -> Any:
        return Connection()

    async def dispose(self, endpoint: Any, conn: Any) -> None:
        return


@contextlib.contextmanager
def eager_collection() -> Iterator[None]:
    """Garbage is collected whenever something is allocated that could become some."""
    thresholds = gc.get_threshold()
    # What there is already would only make each collection longer.
    gc.collect()
    gc.freeze()
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Only counting references frees anything."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# ---------------------------------------------------------------------------------------------------------------------
# Finalizers that use the pool
# ---------------------------------------------------------------------------------------------------------------------


class Litter:
    """Makes cyclic garbage that runs a function when it is collected.

    What the function raises is kept: nobody would see it.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.made = 0
        self.errors: list[BaseException] = []
        self.collected = 0
        self._finalizing = False

    def __call__(self) -> None:
        # Not in a finalizer: that would be garbage without end.
        if not self._finalizing:
            self.made += 1
            Piece(self)

    def finalize(self) -> None:
        self.collected += 1
        if self._finalizing:
            return
        self._finalizing = True
        try:
            self.function()
        except BaseException as exc:  # noqa: BLE001 - the test looks at them
            self.errors.append(exc)
        finally:
            self._finalizing = False


class Piece:
    """A piece of cyclic garbage."""

    def __init__(self, litter: Litter) -> None:
        self.litter = litter
        self.itself = self

    def __del__(self) -> None:
        self.litter.finalize()


def use_in_every_way(pool: gcpool.threading.ConnectionPool[Any, Any], manager: Manager, litter: Litter) -> None:
    """Go through the ways into the core, making garbage between them."""
    for n in range(ROUNDS):
        litter()
        endpoint = ('endpoint', n % 7)
        conn = pool.acquire(endpoint)
        litter()
        with contextlib.suppress(PoolTimeout), pool.connection(endpoint, 0):
            litter()
        pool.get_stats()
        litter()
        pool.get_endpoint_pool_size(('endpoint', n % 7))
        pool.release(conn, ('endpoint', n % 7))
        litter()
        with contextlib.suppress(BaseError):
            pool.release(conn, endpoint)
        manager.fails = True
        with contextlib.suppress(OSError):
            pool.acquire(('another', n))
        manager.fails = False
        litter()


@pytest.mark.parametrize('hooks', [False, True])
def test_finalizers_may_use_the_pool_wherever_they_run(hooks: bool) -> None:
    def finalize() -> None:
        stats = pool.get_stats()
        assert stats['size'] <= 6
        # There may be none to be had: other connections are out.
        with contextlib.suppress(PoolTimeout, OSError):
            conn = pool.acquire('finalizer', 0)
            pool.release(conn, 'finalizer')
        with contextlib.suppress(PoolTimeout, OSError), pool.connection(('endpoint', 1), 0):
            pool.get_endpoint_pool_size('finalizer')

    litter = Litter(finalize)
    manager = HookedManager(litter) if hooks else Manager()
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(
        manager, max_size=2, total_max_size=6, min_idle=0, idle_timeout=0
    )
    with eager_collection():
        use_in_every_way(pool, manager, litter)
        gc.collect()
        pool._core.check_invariants()
        litter()
        pool.close()
    gc.collect()
    assert litter.collected == litter.made > ROUNDS
    assert [error for error in litter.errors if not isinstance(error, BaseError)] == []
    pool._core.check_invariants()
    assert manager.created == manager.disposed


def test_finalizers_may_use_the_pool_in_any_thread() -> None:
    def finalize() -> None:
        with contextlib.suppress(PoolTimeout), pool.connection('a', 0):
            pool.get_stats()

    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(
        Manager(), max_size=3, total_max_size=6, min_idle=0, idle_timeout=0
    )
    litters = [Litter(finalize) for _ in range(6)]

    def work(litter: Litter) -> None:
        for n in range(ROUNDS):
            litter()
            with pool.connection('abc'[n % 3]):
                litter()

    with eager_collection():
        for job in [spawn(work, litter) for litter in litters]:
            job.result()
    gc.collect()
    assert [litter.errors for litter in litters] == [[]] * 6
    assert sum(litter.collected for litter in litters) == 6 * 2 * ROUNDS
    pool._core.check_invariants()
    pool.close()
    assert pool.get_size() == 0


def test_finalizers_may_use_an_asyncio_pool_wherever_they_run() -> None:
    async def main() -> None:
        pool: gcpool.asyncio.ConnectionPool[Any, Any] = gcpool.asyncio.ConnectionPool(
            AsyncManager(), max_size=2, total_max_size=4, min_idle=0, idle_timeout=0
        )
        tasks: set[asyncio.Task[None]] = set()

        async def use() -> None:
            with contextlib.suppress(PoolTimeout):
                async with pool.connection('finalizer', 0):
                    pool.get_stats()

        def finalize() -> None:
            pool.get_stats()
            if len(tasks) < 5:
                tasks.add(task := asyncio.get_running_loop().create_task(use()))
                task.add_done_callback(tasks.discard)

        litter = Litter(finalize)

        async def work(name: str) -> None:
            for n in range(ROUNDS // 5):
                litter()
                async with pool.connection((name, n % 3)):
                    litter()
                    await asyncio.sleep(0)

        with eager_collection():
            await asyncio.gather(*[work(name) for name in 'abcdef'])
        gc.collect()
        while tasks:
            await asyncio.wait(tasks)
        assert litter.errors == []
        assert litter.collected == litter.made
        await pool.close()
        pool._core.check_invariants()

    asyncio.run(main())


def test_an_endpoint_s_own_methods_may_use_the_pool() -> None:
    """Its hash and comparison while it is looked for, and its finalizer when it is forgotten."""
    busy = False
    calls = {'hash': 0, 'eq': 0, 'del': 0}

    def use(what: str) -> None:
        nonlocal busy
        calls[what] += 1
        if busy:
            return
        busy = True
        try:
            with contextlib.suppress(PoolTimeout), pool.connection('other', 0):
                pool.get_stats()
        finally:
            busy = False

    class Endpoint:
        def __init__(self, number: int) -> None:
            self.number = number

        def __hash__(self) -> int:
            use('hash')
            return self.number % 3

        def __eq__(self, other: object) -> bool:
            use('eq')
            return isinstance(other, Endpoint) and other.number == self.number

        def __del__(self) -> None:
            use('del')

    manager = Manager()
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(
        manager, max_size=2, total_max_size=5, idle_timeout=0, min_idle=0
    )
    for n in range(ROUNDS):
        first = pool.acquire(Endpoint(n))
        with pool.connection(Endpoint(n + 1)), pool.connection(Endpoint(n)) as second:
            assert first is not second
        assert pool.get_endpoint_pool_size(Endpoint(n)) >= 1
        pool.release(first, Endpoint(n))
    pool._core.check_invariants()
    pool.close()
    assert min(calls.values()) >= ROUNDS
    assert manager.created == manager.disposed


def test_a_connection_s_finalizer_may_use_the_pool() -> None:
    finalized = 0

    class Goodbye:
        def __del__(self) -> None:
            nonlocal finalized
            finalized += 1
            # Of connections like this one there would be no end.
            assert pool.get_stats()['size'] <= 4
            assert pool.get_endpoint_pool_size('b') <= 2
            with contextlib.suppress(BaseError):
                pool.release(self, 'a')

    manager = Manager(Goodbye)
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(
        manager, max_size=2, total_max_size=4, idle_timeout=0, min_idle=0
    )
    with eager_collection():
        for _ in range(ROUNDS):
            with pool.connection('a'), pool.connection('a'), pool.connection('b'):
                pass
    gc.collect()
    assert finalized == manager.created == manager.disposed == 3 * ROUNDS
    pool._core.check_invariants()
    pool.close()


# ---------------------------------------------------------------------------------------------------------------------
# Pools that are garbage
# ---------------------------------------------------------------------------------------------------------------------


def idle(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    conns = [pool.acquire('a') for _ in range(3)]
    for conn in conns:
        conn.referent = pool
        pool.release(conn, 'a')


def out(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    for endpoint in 'ab':
        pool.acquire(endpoint).referent = pool


def manager_refers(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    pool._manager.referent = pool
    pool.release(pool.acquire('a'), 'a')


def endpoint_refers(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    class Endpoint:
        referent: object = None

    endpoint = Endpoint()
    endpoint.referent = pool
    pool.release(pool.acquire(endpoint), endpoint)


def context_is_entered(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    context = pool.connection('a')
    context.__enter__().referent = context


def context_of_garbage(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    """The same, with others in the pool that go in any order."""
    idle(pool)
    context_is_entered(pool)
    conn = pool.acquire('a')
    conn.referent = [pool, pool.connection('b')]
    conn.referent[1].__enter__().referent = conn


def somebody_timed_out(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    conns = [pool.acquire('a') for _ in range(pool.max_size)]
    for conn in conns:
        conn.referent = pool
    with pytest.raises(PoolTimeout):
        pool.acquire('a', 0)
    with pytest.raises(PoolTimeout):
        pool.acquire('a', 0.001)


def closed(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    conn = pool.acquire('a')
    conn.referent = pool
    assert pool.close(0) == 1


def clock_refers(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    clock: Any = pool._core.clock
    clock.referent = pool
    pool.release(pool.acquire('a'), 'a')


class Clock:
    referent: object = None

    def __call__(self) -> float:
        return 1000.0


@pytest.mark.parametrize(
    'use',
    [
        idle,
        out,
        manager_refers,
        endpoint_refers,
        context_is_entered,
        context_of_garbage,
        somebody_timed_out,
        closed,
        clock_refers,
    ],
)
@pytest.mark.parametrize('collector', [False, True])
def test_a_pool_in_a_reference_cycle_is_collected(
    use: Callable[[gcpool.threading.ConnectionPool[Any, Any]], None], collector: bool
) -> None:
    options: dict[str, Any] = {'_clock': Clock()} if use is clock_refers else {}
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(
        Manager(), max_size=8, background_collector=collector, **options
    )
    use(pool)
    references: list[weakref.ref[Any]] = [weakref.ref(pool), weakref.ref(pool._core)]
    options.clear()
    del pool
    # The collector may be looking at it right now.
    until(lambda: gc.collect() >= 0 and all(reference() is None for reference in references))
    until(lambda: not pool_threads())


def abandon_waiters(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    conns = [pool.acquire('a') for _ in range(pool.max_size)]

    def wait() -> None:
        with contextlib.suppress(PoolTimeout):
            pool.acquire('a', 0.001)

    for job in [spawn(wait) for _ in range(3)]:
        job.result()
    for conn in conns:
        pool.release(conn, 'a')


def nothing(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    """A pool that was never used."""


def cycle(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    pool.release(pool.acquire('a'), 'a')
    with pool.connection('b'), pool.connection(('c', 1)):
        pass


def keep_out(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    pool.acquire('a')


def fail(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    pool._manager.fails = True
    with contextlib.suppress(OSError):
        pool.acquire('a')


def close(pool: gcpool.threading.ConnectionPool[Any, Any]) -> None:
    cycle(pool)
    pool.close()


@pytest.mark.parametrize('use', [nothing, cycle, keep_out, abandon_waiters, fail, close])
def test_a_pool_that_nobody_holds_is_freed_at_once(
    use: Callable[[gcpool.threading.ConnectionPool[Any, Any]], None],
) -> None:
    """Without the garbage collector: the pool itself makes no reference cycles."""
    with no_collection():
        pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(Manager(), max_size=2)
        use(pool)
        references: list[weakref.ref[Any]] = [weakref.ref(pool), weakref.ref(pool._core), weakref.ref(pool._manager)]
        del pool
        # In a thread that has just ended something may be on its way out.
        until(lambda: all(reference() is None for reference in references))


def test_connections_go_with_their_pool() -> None:
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(Manager())
    conns = [pool.acquire('a') for _ in range(3)]
    references = [weakref.ref(conn) for conn in conns]
    pool.release(conns.pop(), 'a')
    pool.release(conns.pop(), 'a')
    conns.clear()
    gc.collect()
    assert all(reference() is not None for reference in references)
    del pool
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_a_disposed_connection_is_held_by_nobody() -> None:
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(
        Manager(), idle_timeout=0, min_idle=0
    )
    with no_collection():
        conn = pool.acquire('a')
        reference = weakref.ref(conn)
        pool.release(conn, 'a')
        del conn
        assert reference() is None
        with pool.connection('a') as conn:
            reference = weakref.ref(conn)
        del conn
        assert reference() is None
        conn = pool.acquire('a')
        reference = weakref.ref(conn)
        assert pool.close(0) == 1
        pool.release(conn, 'a')
        del conn
        assert reference() is None


@pytest.mark.parametrize('collector', [False, True])
def test_finalizers_of_a_dying_pool_s_connections_may_use_it(collector: bool) -> None:
    uses = []

    class Goodbye(Connection):
        pool: Any = None

        def __del__(self) -> None:
            if self.pool is None:
                return
            self.pool.get_stats()
            with contextlib.suppress(BaseError):
                self.pool.release(self, 'a')
            with contextlib.suppress(BaseError), self.pool.connection('a', 0), self.pool.connection('b', 0):
                self.pool.get_endpoint_pool_size('a')
            self.pool._core.check_invariants()
            uses.append(self.pool.close(0))

    for _ in range(20):
        pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(
            Manager(Goodbye), background_collector=collector
        )
        conns = [pool.acquire('a') for _ in range(4)]
        conn: Any = None
        for conn in conns:
            conn.pool = pool
        for conn in conns[:2]:
            pool.release(conn, 'a')
        reference = weakref.ref(pool)
        del conn, conns, pool
        until(lambda reference=reference: gc.collect() >= 0 and reference() is None)  # type: ignore[misc]
    assert len(uses) >= 20 * 4


def test_an_endpoint_that_is_forgotten_is_held_by_nobody() -> None:
    class Endpoint:
        """Hashed by identity."""

    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(
        Manager(), idle_timeout=0, min_idle=0, max_size=1, total_max_size=1
    )
    with no_collection():
        endpoint: Endpoint | None = Endpoint()
        reference = weakref.ref(endpoint)
        with pool.connection(endpoint):
            other: Endpoint | None = Endpoint()
            waited = weakref.ref(other)
            with pytest.raises(PoolTimeout) as caught:
                pool.acquire(other, 0)
        del caught, endpoint, other
        until(lambda: reference() is None and waited() is None)
    pool.close()


def test_a_context_that_dies_entered_gives_its_connection_back() -> None:
    """As a generator of contextlib does."""
    manager = Manager()
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(manager, max_size=1)
    for _ in range(20):
        context = pool.connection('a', 0)
        context.__enter__()
        del context
        gc.collect(0)
        assert pool.get_stats()['idle'] == 1
    assert manager.created == 1
    pool._core.check_invariants()
    pool.close()


def test_a_context_that_dies_entered_gives_nothing_back_that_was_given_back() -> None:
    manager = Manager()
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(manager, max_size=1)
    context = pool.connection('a')
    conn = context.__enter__()
    pool.release(conn, 'a')
    assert pool.acquire('a') is conn
    del context
    gc.collect(0)
    assert pool.get_stats()['acquired'] == 1
    pool.release(conn, 'a')
    pool._core.check_invariants()
    pool.close()


def test_a_context_that_dies_entered_in_a_reference_cycle_gives_its_connection_back() -> None:
    manager = Manager()
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(manager, max_size=1)
    for _ in range(20):
        cell: list[Any] = [pool.connection('a', 0)]
        cell[0].__enter__()
        cell.append(cell)
        del cell
        gc.collect()
        assert pool.get_stats()['idle'] == 1
    pool._core.check_invariants()
    pool.close()


# ---------------------------------------------------------------------------------------------------------------------
# asyncio
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('collector', [False, True])
def test_an_asyncio_pool_that_nobody_holds_is_collected_while_its_loop_runs(collector: bool) -> None:
    async def main() -> None:
        pool: gcpool.asyncio.ConnectionPool[Any, Any] = gcpool.asyncio.ConnectionPool(
            AsyncManager(), idle_timeout=60.0, min_idle=0, background_collector=collector
        )
        conn: Any = None
        for conn in [await pool.acquire('a') for _ in range(3)]:
            conn.referent = pool
            await pool.release(conn, 'a')
        reference = weakref.ref(pool)
        del conn, pool
        # Whatever the loop has still to do for it.
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
        assert reference() is None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_timer_of_a_forgotten_asyncio_pool_does_nothing() -> None:
    async def main() -> None:
        pool: gcpool.asyncio.ConnectionPool[Any, Any] = gcpool.asyncio.ConnectionPool(
            AsyncManager(), idle_timeout=0.001, min_idle=0, background_collector=True
        )
        await pool.release(await pool.acquire('a'), 'a')
        collector = pool._collector
        del pool
        gc.collect()
        done = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, done.set)
        await asyncio.wait_for(done.wait(), PATIENCE)
        assert collector._pool() is None
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_forgotten_asyncio_pool_is_collected_with_the_tasks_that_wait_in_it() -> None:
    """A loop that has stopped for good: the tasks, the pool, and the connections are each other's."""

    async def start(pool: gcpool.asyncio.ConnectionPool[Any, Any]) -> list['asyncio.Task[Any]']:
        conn = await pool.acquire('a')
        conn.referent = pool
        tasks = [asyncio.ensure_future(pool.acquire('a')) for _ in range(5)]
        await asyncio.sleep(0)
        assert pool.get_stats()['waiting'] == 5
        # One of them was served and has not seen it.
        await pool.release(conn, 'a')
        return tasks

    pool: gcpool.asyncio.ConnectionPool[Any, Any] = gcpool.asyncio.ConnectionPool(AsyncManager(), max_size=1)
    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(start(pool))
    task = None
    for task in tasks:
        # Else asyncio reports that they were destroyed.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    references: list[weakref.ref[Any]] = [weakref.ref(pool), weakref.ref(pool._core), *map(weakref.ref, tasks)]
    del task, tasks, loop, pool
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_reference_counts_of_shared_objects_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A count too few would free what others use, some time later."""
    endpoint = ('endpoint', threading.get_ident())
    manager = HookedManager(lambda: None)
    pool: gcpool.threading.ConnectionPool[Any, Any] = gcpool.threading.ConnectionPool(manager, max_size=2)
    conn = pool.acquire(endpoint)
    pool.release(conn, endpoint)

    # A thread that closes what was found dead holds the pool.
    monkeypatch.setattr(workers_threads, 'IDLE_TIME', 0.001)

    def counts() -> list[int]:
        until(lambda: not pool_threads())
        collect_garbage()
        return [sys.getrefcount(subject) for subject in (endpoint, pool, manager, conn)]

    def use() -> None:
        for n in range(100):
            pool.release(pool.acquire(endpoint), endpoint)
            with pool.connection(endpoint), contextlib.suppress(PoolTimeout), pool.connection(endpoint, 0):
                pool.get_stats()
                pool.get_endpoint_pool_size(endpoint, acquired=bool(n % 2))
                with contextlib.suppress(PoolTimeout):
                    pool.acquire(endpoint, 0)

    manager.checks = -(10**6)
    use()
    before = counts()
    use()
    assert counts() == before
    pool.close()
