"""What the core owns it releases, what it only knows it forgets in time, and no user code runs under a lock."""

import gc
import os
import random
import subprocess
import sys
import textwrap
import tracemalloc
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gcpool._core import EndpointPool, Entry, PoolCore, Waiter
from tests.conftest import FREE_THREADED, QUICK
from tests.engine.model import KEPT_PLACE_TIME
from tests.engine.support import Acquire, Connection, Pool
from tests.support import collect_garbage

# -- live objects -----------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_left(living: Callable[..., int]) -> Iterator[None]:
    """There are as many entries, endpoint pools, waiters and cores after the test as before it."""
    kinds = (Entry, EndpointPool, Waiter, PoolCore, Connection)
    before = [living(kind) for kind in kinds]
    yield
    assert [living(kind) for kind in kinds] == before


@pytest.mark.usefixtures('nothing_left')
def test_a_pool_that_was_used_and_closed_leaves_nothing() -> None:
    pool = Pool(max_size=2, total_max_size=3)
    for _ in range(5):
        holders = pool.acquire_all('a', 2)
        waiters = [pool.ask('a'), pool.ask('b')]
        pool.release(*holders)
        pool.cancel(waiters[0])
        pool.dispose()
        pool.cancel(waiters[1])
    pool.core.close()
    assert pool.dispose() == ['a1', 'a2']


@pytest.mark.usefixtures('nothing_left')
def test_a_pool_that_is_dropped_with_everything_in_it_leaves_nothing() -> None:
    pool = Pool(max_size=2, total_max_size=3, min_idle=1)
    pool.fill('idle', 1)
    held = pool.acquire_all('a', 2)
    waiting = [pool.ask('a'), pool.ask('b'), pool.ask('b')]
    assert pool.core.doomed == 1
    del pool, held, waiting


@pytest.mark.usefixtures('nothing_left')
def test_a_pool_in_a_cycle_with_its_connections_and_hooks_is_collected() -> None:
    everything: list[object] = []
    pool = Pool(collects=True, wake_collector=everything.clear)
    everything.append(pool)
    for acquire in pool.acquire_all('a', 3):
        acquire.conn.pool = pool
        acquire.conn.acquire = acquire
        acquire.conn.endpoint = acquire.entry
    waiting = pool.ask('a')
    waiting.pool = pool  # type: ignore[attr-defined]
    core = weakref.ref(pool.core)
    del pool, acquire, waiting, everything  # pyright: ignore[reportPossiblyUnboundVariable]
    gc.collect()
    assert core() is None


@pytest.mark.parametrize('failing', range(4))
def test_a_connection_that_there_is_no_memory_for_is_disposed_of(failing: int) -> None:
    """The first entry of a pool, which had no table for connections before."""
    testcapi = pytest.importorskip('_testcapi')
    core = PoolCore(0, 1, 1, 60.0, 3600.0)
    waiter = Waiter('a')
    core.request(waiter, 0.0)
    ticket, conn, create = waiter.served, object(), core.created
    testcapi.set_nomemory(failing, failing + 1)
    try:
        create(ticket, conn, 0.0)
    except MemoryError:
        testcapi.remove_mem_hooks()
        del ticket
        core.cancel(waiter, 0.0)
        del waiter
        # Reuses the memory of what was freed too early.
        others = [Waiter('b') for _ in range(10)]
        doomed = core.take_doomed()
        assert doomed is not None
        assert doomed.conn is conn
        core.disposed(doomed, 0.0)
        del others
    finally:
        testcapi.remove_mem_hooks()
    core.check_invariants()
    assert core.size == core.acquired


def test_a_connection_is_let_go_when_its_dispose_has_ended_and_no_earlier() -> None:
    pool = Pool(min_idle=0, idle_timeout=0.0)
    acquire = pool.acquire('a')
    conn = weakref.ref(acquire.conn)
    pool.release(acquire)
    pool.notified.clear()
    del acquire
    gc.collect()
    assert conn() is not None
    pool.core.doom_due(pool.now, 1)
    gc.collect()
    assert conn() is not None, 'it is among the doomed'
    entry = pool.core.take_doomed()
    assert entry is not None
    gc.collect()
    assert conn() is not None, 'it is being closed'
    pool.core.disposed(entry, pool.now)
    del entry
    gc.collect()
    assert conn() is None


@pytest.mark.parametrize('ending', ['gone', 'cancelled', 'failed', 'refused'])
def test_a_ticket_that_came_to_nothing_is_let_go(ending: str, living: Callable[..., int]) -> None:
    pool = Pool(max_size=1)
    before = living(Entry)
    acquire = pool.ask('a')
    if ending == 'gone':
        assert pool.core.created(acquire.entry, Connection('x'), pool.now)
        pool.now = 100.0
        pool.release(acquire)
        pool.dispose()
    elif ending == 'cancelled':
        pool.cancel(acquire)
    elif ending == 'failed':
        pool.core.create_failed(acquire.waiter, pool.now)
    else:
        pool.core.close()
        assert not pool.core.created(acquire.entry, Connection('x'), pool.now)
        pool.cancel(acquire)
        pool.dispose()
    del acquire
    assert living(Entry) == before
    assert living(EndpointPool) == 0


def test_what_was_closed_over_its_holder_is_let_go_when_that_gives_it_back(living: Callable[..., int]) -> None:
    pool = Pool()
    acquires = pool.acquire_all('a', 3)
    pool.core.close()
    pool.core.doom_acquired()
    pool.dispose()
    assert living(Entry) >= 3, 'their holders may still give them back'
    conns = [acquire.conn for acquire in acquires]
    del acquires
    for conn in conns:
        assert pool.core.find_acquired(conn, 'a') is None
    del conn, conns  # pyright: ignore[reportPossiblyUnboundVariable]
    assert (living(Entry), living(Connection)) == (0, 0)


def test_places_are_kept_in_little_memory_and_not_for_ever() -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=1, max_lifetime=1e9)
    _held = pool.acquire('held')
    endpoints, endpoint = [str(number) for number in range(20_000)], ''
    tracemalloc.start()
    try:
        waiting = None
        for endpoint in endpoints:
            waiting = Acquire(pool.core, endpoint, pool.notified.append)
            assert pool.core.request(waiting.waiter, pool.now)
            pool.now += 0.0001
            assert pool.core.give_up(waiting.waiter, pool.now)
        del waiting
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] / len(endpoints)
        pool.now += 2 * KEPT_PLACE_TIME
        pool.cancel(pool.ask('b'))
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] / len(endpoints)
    finally:
        tracemalloc.stop()
    assert (kept < 80, left < 8) == (True, True), (kept, left)
    pool.core.check_invariants()


# -- waiters that are dropped -----------------------------------------------------------------------------------------


class Silent:
    """An acquire to which nothing else refers, so that dropping it frees it."""

    def __init__(self, pool: Pool, endpoint: object) -> None:
        self.waiter = Waiter(endpoint)
        self.waiter.arm(int)
        pool.core.request(self.waiter, pool.now)


@pytest.mark.parametrize('dropped', [0, 1, 2])
def test_a_waiter_that_is_dropped_leaves_the_queue(dropped: int) -> None:
    pool = Pool(max_size=1)
    holder = pool.acquire('a')
    waiters: list[Any] = [Silent(pool, 'a') for _ in range(3)]
    assert pool.count('waiting') == (3,)
    waiters[dropped] = None
    gc.collect()
    pool.core.check_invariants()
    assert pool.count('waiting') == (2,)
    for waiter in filter(None, waiters):
        pool.core.release(holder.entry, pool.now)
        assert waiter.waiter.held is holder.entry


def test_the_endpoint_of_the_last_waiter_that_is_dropped_is_forgotten(living: Callable[..., int]) -> None:
    pool = Pool(max_size=1, total_max_size=1)
    holder = pool.acquire('a')
    others = [Silent(pool, f'b{number}') for number in range(20)]
    assert pool.count('endpoints', 'waiting') == (21, 20)
    del others
    gc.collect()
    pool.core.check_invariants()
    assert pool.count('endpoints', 'waiting') == (1, 0)
    assert living(EndpointPool) == 1
    pool.release(holder)
    assert pool.core.doomed == 0, 'nobody wants its slot any more'
    assert pool.ask('b0').answer == 'waits'
    assert pool.dispose() == ['a1']


def test_a_ticket_that_is_dropped_gives_its_slot_to_the_next_one() -> None:
    pool = Pool(max_size=1)
    ticket = Silent(pool, 'a')
    assert ticket.waiter.has_ticket
    waiting = pool.ask('a')
    del ticket
    gc.collect()
    pool.core.check_invariants()
    assert (waiting.answer, waiting.notified) == ('ticket', 1)
    assert pool.count('size', 'endpoints', 'create_errors') == (1, 1, 1)
    pool.cancel(waiting)
    assert pool.core.size == 0


def test_the_endpoint_of_a_ticket_that_is_dropped_is_forgotten(living: Callable[..., int]) -> None:
    pool = Pool()
    tickets = [Silent(pool, f'a{number}') for number in range(20)]
    assert pool.count('endpoints', 'size') == (20, 20)
    del tickets
    gc.collect()
    pool.core.check_invariants()
    assert pool.count('endpoints', 'size') == (0, 0)
    assert living(EndpointPool) == 0


def test_waiters_that_are_dropped_together_with_the_pool_do_no_harm(living: Callable[..., int]) -> None:
    pool = Pool(max_size=1, total_max_size=1)
    holder = pool.acquire('a')
    waiters = [Silent(pool, endpoint) for endpoint in 'aabbc']
    waiters[0].others = waiters  # type: ignore[attr-defined]
    holder.waiters = waiters  # type: ignore[attr-defined]
    pool.everything = (pool, holder, waiters)  # type: ignore[attr-defined]
    del pool, holder, waiters
    assert (living(PoolCore), living(Waiter), living(EndpointPool)) == (0, 0, 0)


# -- garbage that comes back into the pool ----------------------------------------------------------------------------


class Trash:
    """Garbage in a reference cycle. When it is collected, which may be at any allocation, it uses the pool."""

    live = 0
    collected = 0

    def __init__(self, pool: 'TrashyPool') -> None:
        self.pool = pool
        self.me = self
        Trash.live += 1

    def __del__(self) -> None:
        Trash.live -= 1
        Trash.collected += 1
        self.pool.use()


class TrashyPool:
    """A pool in which any operation may be interrupted by another one."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pool = Pool(min_idle=1, max_size=3, total_max_size=6, idle_timeout=3.0, max_lifetime=20.0)
        self.core = self.pool.core
        self.acquires: deque[Acquire] = deque()
        self.depth = 0
        self.open = True

    def trash(self) -> None:
        if self.open and Trash.live < 50:
            Trash(self)
        if FREE_THREADED and self.rng.random() < 0.05:
            gc.collect()  # there allocations are counted by the hundred

    def use(self) -> None:
        if not self.open or self.depth > 2:
            return
        self.depth += 1
        try:
            self.step()
        finally:
            self.depth -= 1

    def step(self) -> None:
        rng, core, pool = self.rng, self.core, self.pool
        pool.now += 0.25
        self.trash()
        pool.notified.clear()
        choice = rng.randrange(9)
        if choice < 4 and len(self.acquires) < 20:
            acquire = Acquire(core, self.endpoint(), pool.notified.append)
            core.request(acquire.waiter, pool.now)
            self.acquires.append(acquire)
        elif choice < 7:
            self.acquires.rotate(rng.randrange(20))
            # Removed at once: it belongs to this call, whatever comes between.
            for acquire in self.take():
                self.end(acquire)
        elif choice == 7:
            core.doom_due(pool.now, 0)
            core.next_due()
        else:
            core.stats()
            core.endpoint_size(self.endpoint(), rng.choice([None, True, False]))
        self.dispose()

    def take(self) -> list[Acquire]:
        try:
            return [self.acquires.popleft()]
        except IndexError:
            return []

    def endpoint(self) -> object:
        # Created anew each time: it is hashed and compared in Python, which makes garbage.
        return TrashyEndpoint(self, self.rng.randrange(4))

    def end(self, acquire: Acquire) -> None:
        rng, core, pool = self.rng, self.core, self.pool
        if acquire.answer == 'ticket' and rng.random() < 0.8:
            core.created(acquire.entry, Connection('x'), pool.now)
            self.acquires.append(acquire)
        elif acquire.answer == 'served' and rng.random() < 0.8:
            entry = core.find_acquired(acquire.conn, acquire.endpoint)
            assert entry is not None
            assert entry is acquire.entry
            core.release(entry, pool.now)
        elif acquire.answer == 'waits' and rng.random() < 0.5:
            self.acquires.append(acquire)
        else:
            core.cancel(acquire.waiter, pool.now)

    def dispose(self) -> None:
        while (entry := self.core.take_doomed()) is not None:
            self.trash()
            self.core.disposed(entry, self.pool.now)

    def finish(self) -> None:
        self.open = False
        for acquire in self.acquires:
            self.core.cancel(acquire.waiter, self.pool.now)
        self.dispose()
        self.core.check_invariants()
        assert self.pool.count('acquired', 'waiting') == (0, 0)
        self.core.close()
        self.dispose()
        self.core.check_invariants()
        stats = self.pool.stats
        assert (stats['size'], stats['endpoints']) == (0, 0)
        assert stats['created'] == stats['disposed'] > 0


class TrashyEndpoint:
    def __init__(self, pool: TrashyPool, number: int) -> None:
        self.pool = pool
        self.number = number

    def __hash__(self) -> int:
        self.pool.trash()
        return self.number % 2

    def __eq__(self, other: object) -> bool:
        self.pool.trash()
        return isinstance(other, TrashyEndpoint) and self.number == other.number


@pytest.mark.parametrize('seed', range(2 if QUICK else 6))
def test_garbage_that_is_collected_at_any_allocation_may_use_the_pool(seed: int) -> None:
    trashy = TrashyPool(seed)
    Trash.collected = 0
    threshold = gc.get_threshold()
    gc.collect()
    gc.freeze()  # objects from before would be searched again and again
    gc.set_threshold(1)
    try:
        for _ in range(100 if QUICK else 400):
            trashy.use()
    finally:
        gc.set_threshold(*threshold)
    trashy.finish()
    collect_garbage()
    assert Trash.live == 0
    assert Trash.collected > 100


class Finalized(Connection):
    """An endpoint, a connection or a callback whose finalizer uses the pool."""

    def __init__(self, name: str, pool: Pool, used: list[str]) -> None:
        super().__init__(name)
        self.pool = pool
        self.used = used

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Finalized)

    def __call__(self) -> None:
        pass

    def __del__(self) -> None:
        self.pool.core.check_invariants()
        self.pool.release(self.pool.acquire('other'))
        self.pool.expire()
        self.used.append(self.name)


@pytest.mark.parametrize('what', ['connection', 'endpoint', 'notify'])
def test_what_the_core_lets_go_may_use_the_pool(what: str) -> None:
    """Its finalizer runs in the middle of the call that drops it, but under no lock."""
    pool = Pool(min_idle=0, max_size=2, idle_timeout=0.0)
    used: list[str] = []
    waiter = Waiter(Finalized('x', pool, used) if what == 'endpoint' else 'a')
    waiter.arm(Finalized('x', pool, used) if what == 'notify' else int)
    pool.core.request(waiter, pool.now)
    ticket = waiter.held
    assert ticket is not None
    conn = Finalized('x', pool, used) if what == 'connection' else Connection('y')
    pool.core.created(ticket, conn, pool.now)
    pool.core.release(ticket, pool.now)
    pool.core.doom_due(pool.now, 10)
    del ticket, waiter, conn
    pool.dispose()
    gc.collect()
    assert used == ['x']
    pool.core.check_invariants()


def test_the_latest_equal_endpoint_may_use_the_pool_when_another_one_takes_its_place() -> None:
    pool = Pool(min_idle=0, max_size=2, idle_timeout=0.0)
    used: list[str] = []
    holder = pool.ask(Finalized('first', pool, used))
    pool.connect(holder, Connection('y'))
    for name in ('second', 'third', 'fourth'):
        assert pool.core.endpoint_size(Finalized(name, pool, used)) == 1
    assert used == ['second', 'third']
    pool.release(holder)
    pool.expire()
    del holder
    gc.collect()
    assert sorted(used) == ['first', 'fourth', 'second', 'third']
    pool.core.check_invariants()


def test_an_endpoint_that_is_forgotten_while_it_is_compared_may_use_the_pool_when_it_goes() -> None:
    pool = Pool(min_idle=0, idle_timeout=0.0)
    sizes: list[int] = []

    class Expiring:
        """Has what is due closed while it is compared, which forgets the endpoint that it is compared with."""

        def __hash__(self) -> int:
            return 7

        def __eq__(self, other: object) -> bool:
            pool.expire()
            return False

        def __del__(self) -> None:
            sizes.append(pool.stats['size'])

    acquire = Silent(pool, Expiring())
    entry = acquire.waiter.held
    assert entry is not None
    pool.core.created(entry, Connection('y'), pool.now)
    pool.core.release(entry, pool.now)
    del acquire, entry
    assert sizes == []
    assert pool.core.endpoint_size(Expiring()) == 0
    assert sizes == [0, 0]
    pool.core.check_invariants()


# -- fork -------------------------------------------------------------------------------------------------------------

FORKED = """
    import os, sys
    from gcpool._core import Entry, PoolCore, Waiter

    class Connection:
        def __del__(self):
            if os.getpid() != parent:
                print('finalized in the child', flush=True)

    def counted(core):
        limits = 'min_idle', 'max_size', 'total_max_size'
        return {name: count for name, count in core.stats().items() if name not in limits}

    def ask(endpoint):
        waiter = Waiter(endpoint)
        waiter.arm(int)
        core.request(waiter, 0.0)
        return waiter

    def connect(waiter):
        assert core.created(waiter.held, Connection(), 0.0)
        return waiter

    def in_the_child(check):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            check()
            core.check_invariants()
            print('child done', flush=True)
            sys.exit(0)     # the whole way out, with all finalizers
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
        core.check_invariants()

    parent = os.getpid()
    core = PoolCore(1, 2, 3, 10.0, 100.0)
"""


def run_forked(script: str) -> None:
    done = subprocess.run(
        [sys.executable, '-X', 'faulthandler', '-c', textwrap.dedent(FORKED) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, 'child done\n', '')


if hasattr(os, 'fork'):

    def test_a_forked_child_starts_empty_and_uses_nothing_of_the_parents() -> None:
        run_forked("""
            idle, out = connect(ask('a')), connect(ask('a'))
            core.release(idle.held, 0.0)

            def check():
                assert not any(counted(core).values()), core.stats()
                assert core.fork_epoch == 1
                assert core.next_due() is None
                assert core.try_acquire('a', 0.0) is None
                new = ask('a')
                core.created(new.held, object(), 0.0)
                core.release(new.held, 0.0)
                assert core.doom_due(100.0, 10) == 1
                core.disposed(core.take_doomed(), 100.0)
                assert core.find_acquired(out.held.conn, 'a') is None
                assert core.size == 0

            in_the_child(check)
            assert core.stats()['idle'] == core.stats()['acquired'] == 1
        """)

    @pytest.mark.parametrize('way', ['cancel', 'give_up', 'drop', 'exit'])
    def test_a_waiter_of_the_parents_is_none_in_the_child(way: str) -> None:
        run_forked(f"""
            out = [connect(ask('a')), connect(ask('a')), connect(ask('b'))]
            waiters = [ask('a'), ask('b'), ask('b'), ask('c')]
            assert core.stats()['waiting'] == 4
            way = {way!r}

            def check():
                new = [ask('a'), ask('a'), ask('b'), ask('c')]
                while waiters:
                    waiter = waiters.pop()
                    if way == 'cancel':
                        assert core.cancel(waiter, 0.0) is True
                    elif way == 'give_up':
                        assert core.give_up(waiter) is True
                    elif way == 'exit':
                        out.append(waiter)
                    core.check_invariants()
                assert [waiter.has_ticket for waiter in new] == [True, True, True, False]
                assert core.stats()['timeouts'] == 0
                globals()['new'] = new

            in_the_child(check)
            assert core.stats()['waiting'] == 4
        """)

    @pytest.mark.parametrize('way', ['release', 'begin_release', 'cancel', 'reject_dead', 'finish the hook'])
    def test_a_connection_of_the_parents_is_left_alone_by_the_child(way: str) -> None:
        run_forked(f"""
            way = {way!r}
            out = connect(ask('a'))
            if way == 'finish the hook':
                assert core.begin_release(out.held)

            def check():
                if way in ('release', 'finish the hook'):
                    core.release(out.held, 0.0)
                elif way == 'begin_release':
                    assert core.begin_release(out.held) is False
                elif way == 'cancel':
                    core.cancel(out, 0.0)
                else:
                    core.reject_dead(out)
                    assert out.dead_entry is None
                    core.request(out, 0.0)
                    assert out.has_ticket
                    core.cancel(out, 0.0)
                assert core.stats()['size'] == core.stats()['idle'] == core.doomed == 0

            in_the_child(check)
            assert core.stats()['acquired'] == 1
        """)

    @pytest.mark.parametrize('way', ['created', 'failed', 'cancel'])
    def test_a_ticket_of_the_parents_is_none_in_the_child(way: str) -> None:
        run_forked(f"""
            way = {way!r}
            ticket = ask('a')

            def check():
                if way == 'created':
                    try:
                        core.created(ticket.held, Connection(), 0.0)
                    except RuntimeError as error:
                        assert 'forked' in str(error)
                    else:
                        raise AssertionError('half of what the parent has was taken')
                elif way == 'failed':
                    core.create_failed(ticket, 0.0)
                else:
                    core.cancel(ticket, 0.0)
                assert not any(counted(core).values())

            in_the_child(check)
            assert core.size == 1
        """)

    def test_what_was_found_dead_before_the_fork_is_not_disposed_of_by_the_child() -> None:
        run_forked("""
            waiter = connect(ask('a'))
            core.reject_dead(waiter)

            def check():
                core.cancel(waiter, 0.0)
                assert core.doomed == 0

            in_the_child(check)
            core.cancel(waiter, 0.0)
            assert core.doomed == 1
        """)

    def test_what_is_being_closed_at_the_fork_is_closed_by_the_parent_alone() -> None:
        run_forked("""
            waiters = [connect(ask('a')), connect(ask('a'))]
            for waiter in waiters:
                core.release(waiter.held, 1000.0)
            closing = core.take_doomed()

            def check():
                assert core.take_doomed() is None
                core.disposed(closing, 1000.0)
                assert not any(counted(core).values())

            in_the_child(check)
            assert core.doomed == 1
        """)
