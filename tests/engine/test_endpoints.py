"""Finding an endpoint's pool: by identity, then by hash and equality, which are user code; and forgetting it."""

import gc
import tracemalloc
from collections.abc import Callable, Hashable

import pytest

from gcpool._core import EndpointPool, Entry
from gcpool.exceptions import ConnectionNotAcquired
from tests.engine.support import Acquire, Connection, Pool


class Endpoint:
    """Equal to another one of the same name; counts how often it is hashed and compared."""

    hashes = 0
    comparisons = 0

    def __init__(self, name: str, hash_: int | None = None) -> None:
        self.name = name
        self.hash = hash(name) if hash_ is None else hash_

    def __hash__(self) -> int:
        Endpoint.hashes += 1
        return self.hash

    def __eq__(self, other: object) -> bool:
        Endpoint.comparisons += 1
        return self.name == other.name if isinstance(other, Endpoint) else NotImplemented

    def __repr__(self) -> str:
        return self.name


@pytest.fixture
def calls() -> Callable[[], tuple[int, int]]:
    """Return how often endpoints were hashed and compared since the last call."""

    def take() -> tuple[int, int]:
        taken = Endpoint.hashes, Endpoint.comparisons
        Endpoint.hashes = Endpoint.comparisons = 0
        return taken

    take()
    return take


def connected(pool: Pool, endpoint: object, name: str) -> Acquire:
    """Acquire a new connection, which is not counted by its endpoint, because that would hash the endpoint."""
    acquire = pool.ask(endpoint)
    assert acquire.answer == 'ticket'
    pool.connect(acquire, Connection(name))
    return acquire


def cycle(pool: Pool, endpoint: object) -> str:
    """Acquire the idle connection and release it. Return its name."""
    entry = pool.core.try_acquire(endpoint, pool.now)
    assert entry is not None
    found = pool.core.find_acquired(entry.conn, endpoint)
    assert found is entry
    pool.core.release(entry, pool.now)
    name = entry.conn.name
    assert isinstance(name, str)
    return name


# -- identity and equality --------------------------------------------------------------------------------------------


def test_an_endpoint_seen_before_is_neither_hashed_nor_compared(calls: Callable[[], tuple[int, int]]) -> None:
    pool = Pool()
    endpoint = Endpoint('a')
    pool.release(connected(pool, endpoint, 'first'))
    assert calls()[0] == 1
    for _ in range(10):
        assert cycle(pool, endpoint) == 'first'
        waiting = pool.ask(endpoint)
        pool.release(waiting)
        assert pool.core.endpoint_size(endpoint) == 1
    assert calls() == (0, 0)


def test_an_equal_endpoint_is_hashed_and_compared_once(calls: Callable[[], tuple[int, int]]) -> None:
    pool = Pool()
    pool.release(connected(pool, Endpoint('a'), 'first'))
    again = Endpoint('a')
    calls()
    assert cycle(pool, again) == 'first'
    assert calls() == (1, 1)
    for _ in range(10):
        assert cycle(pool, again) == 'first'
    assert calls() == (0, 0), 'it is known by now'
    assert pool.count('endpoints', 'size') == (1, 1)


def test_the_first_and_the_latest_equal_endpoint_are_found_by_identity(calls: Callable[[], tuple[int, int]]) -> None:
    pool = Pool()
    first = Endpoint('a')
    pool.release(connected(pool, first, 'first'))
    others = [Endpoint('a') for _ in range(20)]
    for other in others:
        assert cycle(pool, other) == 'first'
    calls()
    assert cycle(pool, first) == cycle(pool, others[-1]) == 'first'
    assert calls() == (0, 0)
    assert cycle(pool, others[0]) == 'first'
    assert calls() == (1, 1), 'no more than one besides the first is kept: else they would pile up'


def test_endpoints_made_anew_for_each_acquire_do_not_pile_up(living: Callable[..., int]) -> None:
    pool = Pool()
    pool.release(connected(pool, Endpoint('a'), 'first'))
    for _ in range(1000):
        assert cycle(pool, Endpoint('a')) == 'first'
    assert living(Endpoint) <= 2


def test_a_memory_address_used_again_is_no_known_endpoint() -> None:
    pool = Pool()
    pool.release(connected(pool, Endpoint('a'), 'of a'))
    pool.release(connected(pool, Endpoint('b'), 'of b'))
    for _ in range(200):
        # Each of them is freed at once or replaced as the latest, so that the next one may get its address.
        assert cycle(pool, Endpoint('a')) == 'of a'
        assert cycle(pool, Endpoint('b')) == 'of b'
        assert pool.core.try_acquire(Endpoint('c'), pool.now) is None
    assert pool.count('endpoints') == (2,)


def test_distinct_endpoints_of_equal_hash_are_kept_apart() -> None:
    pool = Pool(max_size=1, total_max_size=1000)
    held = {}
    for number in range(200):
        held[number] = connected(pool, Endpoint(f'e{number}', 7), f'c{number}')
    pool.core.check_invariants()
    assert pool.count('endpoints') == (200,)
    for number, acquire in held.items():
        assert pool.core.endpoint_size(Endpoint(f'e{number}', 7), True) == 1
        pool.release(acquire)
    for number in range(0, 200, 2):  # forget every second one: the others must still be found
        entry = pool.core.try_acquire(Endpoint(f'e{number}', 7), pool.now)
        assert entry is not None
    pool.core.close()
    pool.dispose()
    pool.core.check_invariants()
    assert pool.count('endpoints') == (100,)
    for number in range(200):
        assert pool.core.endpoint_size(Endpoint(f'e{number}', 7)) == (1 if number % 2 == 0 else 0)


def test_endpoints_of_clustered_hashes_are_found_whatever_is_forgotten_between() -> None:
    """When an endpoint is removed, its table moves what is stored behind it."""
    pool = Pool(min_idle=0, max_size=1, total_max_size=10_000, idle_timeout=10.0)
    for number in range(600):
        pool.now = float(number)
        pool.release(connected(pool, Endpoint(f'e{number}', number % 5), f'c{number}'))
        pool.core.doom_due(pool.now, 2 if number % 3 else 5)
        pool.dispose()
        pool.core.check_invariants()
        alive = (
            [n for n in range(number + 1) if pool.core.endpoint_size(Endpoint(f'e{n}', n % 5))]
            if number % 50 == 0
            else []
        )
        assert len(alive) == (pool.core.size if alive else 0)
    assert 0 < pool.core.size <= 12


@pytest.mark.parametrize(
    'endpoint', [None, 0, '', (), False, 0.0, b'', frozenset(), -1, 2**70, float('nan'), ('host', 1), Ellipsis, int]
)
def test_any_hashable_object_is_an_endpoint(endpoint: Hashable) -> None:
    pool = Pool()
    pool.release(connected(pool, endpoint, 'first'))
    assert cycle(pool, endpoint) == 'first'
    assert pool.core.endpoint_size(endpoint) == 1
    assert pool.core.endpoint_size('another') == 0


def test_endpoints_that_python_holds_equal_are_one() -> None:
    pool = Pool()
    pool.release(connected(pool, 1, 'first'))
    for endpoint in (1.0, True, 1 + 0j):
        assert cycle(pool, endpoint) == 'first'
    assert pool.count('endpoints') == (1,)


def test_none_and_what_is_equal_to_none_are_one_endpoint() -> None:
    class LikeNone:
        def __hash__(self) -> int:
            return hash(None)

        def __eq__(self, other: object) -> bool:
            return other is None or isinstance(other, LikeNone)

    pool = Pool()
    like, again = LikeNone(), LikeNone()
    pool.release(connected(pool, like, 'first'))
    for endpoint in (None, like, again, None, again):
        assert cycle(pool, endpoint) == 'first'
    assert pool.count('endpoints') == (1,)


def test_an_endpoint_whose_hash_changes_is_found_by_identity_and_forgotten() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    endpoint = Endpoint('a')
    pool.release(connected(pool, endpoint, 'first'))
    endpoint.hash += 1
    assert cycle(pool, endpoint) == 'first'
    pool.now = 10.0
    assert pool.expire() == ['first']
    assert pool.count('endpoints') == (0,)
    assert pool.core.endpoint_size(endpoint) == 0


# -- user code that fails ---------------------------------------------------------------------------------------------


class HostileError(Exception):
    """What the endpoints below raise."""


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return 'Unhashable()'


class FailingHash:
    def __hash__(self) -> int:
        raise HostileError('hash')


class FailingEq:
    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        raise HostileError('eq')


class FailingTruth:
    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> 'FailingTruth':  # type: ignore[override]
        return self

    def __bool__(self) -> bool:
        raise HostileError('bool')


@pytest.mark.parametrize('endpoint', [Unhashable(), [], {}, ([],), set()], ids=repr)
def test_an_unhashable_endpoint_is_refused_with_an_error_that_names_it(endpoint: object) -> None:
    pool = Pool()
    acquire = Acquire(pool.core, endpoint, pool.notified.append)
    with pytest.raises(TypeError) as caught:
        pool.core.request(acquire.waiter, pool.now)
    assert str(caught.value) == f'endpoint {endpoint!r} of type {type(endpoint).__name__}: expected a hashable object'
    assert acquire.answer == 'nothing'
    assert pool.core.cancel(acquire.waiter, pool.now) is False
    assert pool.count('size', 'endpoints', 'waiting') == (0, 0, 0)
    pool.fill('a', 1)
    with pytest.raises(TypeError, match='expected a hashable object'):
        pool.core.try_acquire(endpoint, pool.now)
    with pytest.raises(TypeError, match='expected a hashable object'):
        pool.core.endpoint_size(endpoint)
    pool.core.check_invariants()
    assert pool.count('size', 'idle', 'endpoints') == (1, 1, 1)


@pytest.mark.parametrize('kind', [FailingHash, FailingEq, FailingTruth])
def test_an_endpoint_that_raises_leaves_the_pool_as_it_was(kind: type) -> None:
    pool = Pool()
    pool.release(connected(pool, Endpoint('seven', 7), 'first'))
    before = pool.stats
    endpoint = kind()
    acquire = Acquire(pool.core, endpoint, pool.notified.append)
    for action in (
        lambda: pool.core.request(acquire.waiter, pool.now),
        lambda: pool.core.try_acquire(endpoint, pool.now),
        lambda: pool.core.endpoint_size(endpoint),
    ):
        with pytest.raises(HostileError):
            action()
        pool.core.check_invariants()
        assert pool.stats == before
    assert acquire.answer == 'nothing'
    assert pool.core.cancel(acquire.waiter, pool.now) is False
    assert pool.stats == before
    assert cycle(pool, Endpoint('seven', 7)) == 'first'


def test_a_known_endpoint_that_raises_when_compared_with_others_is_still_served() -> None:
    pool = Pool()
    endpoint = FailingEq()
    pool.release(connected(pool, endpoint, 'first'))
    assert cycle(pool, endpoint) == 'first'
    with pytest.raises(HostileError):
        pool.kept.append(pool.ask(Endpoint('seven', 7)))
    assert cycle(pool, endpoint) == 'first'
    assert pool.count('endpoints', 'idle') == (1, 1)


@pytest.mark.parametrize('kind', [FailingHash, FailingEq, FailingTruth, Unhashable])
def test_a_release_to_an_endpoint_that_raises_changes_nothing(kind: type) -> None:
    pool = Pool()
    acquire = connected(pool, Endpoint('seven', 7), 'first')
    before = pool.stats
    with pytest.raises((HostileError, ConnectionNotAcquired)):
        pool.core.find_acquired(acquire.conn, kind())
    pool.core.check_invariants()
    assert pool.stats == before
    pool.release(acquire)


# -- user code that comes back into the pool --------------------------------------------------------------------------


class Reentrant(Endpoint):
    """Runs code of the test when it is compared, a given number of times."""

    def __init__(self, name: str, hash_: int | None = None) -> None:
        super().__init__(name, hash_)
        self.actions: list[Callable[[], object]] = []

    __hash__ = Endpoint.__hash__

    def __eq__(self, other: object) -> bool:
        if self.actions:
            self.actions.pop(0)()
        return super().__eq__(other)


def test_an_endpoint_that_is_forgotten_while_it_is_compared_is_not_used_any_more() -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    known = Reentrant('a', 7)
    pool.release(connected(pool, known, 'first'))
    pool.now = 10.0

    def forget() -> None:
        assert pool.expire() == ['first']
        assert pool.count('endpoints') == (0,)

    known.actions = [forget]
    acquire = pool.ask(Endpoint('a', 7))
    assert acquire.answer == 'ticket'
    assert pool.count('endpoints', 'size') == (1, 1)
    assert known.actions == []


@pytest.mark.parametrize('look', ['try_acquire', 'endpoint_size'])
def test_an_endpoint_that_is_forgotten_while_it_is_looked_at_has_nothing(look: str) -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    known = Reentrant('a', 7)
    pool.release(connected(pool, known, 'first'))
    pool.now = 10.0
    known.actions = [pool.expire]
    if look == 'try_acquire':
        assert pool.core.try_acquire(Endpoint('a', 7), pool.now) is None
    else:
        assert pool.core.endpoint_size(Endpoint('a', 7)) == 0
    assert pool.count('endpoints') == (0,)
    pool.core.check_invariants()


def test_an_equal_endpoint_that_is_added_during_a_comparison_is_used() -> None:
    pool = Pool()
    other = Reentrant('b', 7)
    connected(pool, other, 'of b')
    added = []
    other.actions = [lambda: added.append(connected(pool, Endpoint('a', 7), 'of a'))]
    acquire = pool.ask(Endpoint('a', 7))
    assert acquire.answer == 'ticket'
    assert pool.count('endpoints', 'size') == (2, 3)
    assert pool.core.endpoint_size(Endpoint('a', 7)) == 2


def test_a_table_that_grows_and_shrinks_during_a_comparison_is_searched_anew() -> None:
    pool = Pool(min_idle=0, max_size=2, total_max_size=10_000, idle_timeout=10.0)
    known = Reentrant('a', 7)
    pool.release(connected(pool, known, 'of a'))
    others = [Endpoint(f'o{number}', 7 + number) for number in range(500)]

    def grow() -> None:
        for number, other in enumerate(others):
            pool.release(connected(pool, other, f'c{number}'))

    def shrink() -> None:
        pool.now += 10.0
        pool.core.doom_due(pool.now, 1000)
        pool.dispose()

    known.actions = [grow]
    assert pool.core.endpoint_size(Endpoint('a', 7)) == 1
    assert pool.count('endpoints') == (501,)
    known.actions = [shrink]
    assert pool.core.endpoint_size(Endpoint('a', 7)) == 0
    assert pool.count('endpoints', 'size') == (0, 0)


def test_an_endpoint_is_found_though_one_before_it_is_forgotten_during_the_search() -> None:
    """Both have one hash: a search that went on by count would miss the second one, which is the first now."""
    pool = Pool(min_idle=0, idle_timeout=10.0)
    first, second = Reentrant('b', 7), Endpoint('a', 7)
    pool.release(connected(pool, first, 'of b'))
    pool.now = 5.0
    pool.release(connected(pool, second, 'of a'))
    pool.now = 10.0
    first.actions = [pool.expire]
    entry = pool.core.try_acquire(Endpoint('a', 7), pool.now)
    assert first.actions == []
    assert entry is not None
    assert entry.conn.name == 'of a'
    assert pool.count('endpoints') == (1,)


def test_a_release_during_which_the_connection_is_given_back_is_an_error() -> None:
    pool = Pool()
    known = Reentrant('a', 7)
    acquire = connected(pool, known, 'first')
    known.actions = [lambda: pool.release(acquire)]
    with pytest.raises(ConnectionNotAcquired, match='idle'):
        pool.core.find_acquired(acquire.conn, Endpoint('a', 7))
    assert pool.count('idle', 'acquired') == (1, 0)


# -- forgetting -------------------------------------------------------------------------------------------------------


def test_an_endpoint_with_nothing_left_is_forgotten(living: Callable[..., int]) -> None:
    pool = Pool(max_size=1)
    ticket, waiting = pool.ask('a'), pool.ask('a')
    assert living(EndpointPool) == 1
    pool.cancel(waiting)
    assert pool.count('endpoints') == (1,)
    pool.core.create_failed(ticket.waiter, pool.now)
    assert pool.count('endpoints') == (0,)
    del ticket, waiting
    assert living(EndpointPool) == 0


def test_an_endpoint_where_somebody_waits_is_not_forgotten() -> None:
    pool = Pool(max_size=1, total_max_size=1)
    holder, waiting = pool.acquire('a'), pool.ask('b')
    assert pool.count('endpoints') == (2,)
    pool.release(holder)
    pool.dispose()
    assert waiting.answer == 'ticket'
    assert pool.count('endpoints') == (1,)


def test_the_objects_of_forgotten_endpoints_are_let_go(living: Callable[..., int]) -> None:
    pool = Pool(min_idle=0, idle_timeout=10.0)
    pool.release(connected(pool, Endpoint('a'), 'first'))
    cycle(pool, Endpoint('a'))
    pool.now = 10.0
    pool.expire()
    pool.notified.clear()
    assert living(Endpoint) == 0


def test_the_acquires_of_forgotten_endpoints_are_still_counted() -> None:
    pool = Pool(min_idle=0, idle_timeout=0.0)
    for number in range(10):
        pool.release(connected(pool, f'e{number}', 'x'))
        pool.expire()
    assert pool.count('endpoints', 'acquires', 'created') == (0, 10, 10)


def test_the_memory_of_forgotten_endpoints_comes_back(living: Callable[..., int]) -> None:
    pool = Pool(min_idle=0, max_size=1, total_max_size=100_000, idle_timeout=10.0)
    pool.fill('warm', 1)
    pool.now += 10.0
    pool.expire()

    def cycle_many() -> int:
        acquires = [Acquire(pool.core, ('endpoint', number), pool.notified.append) for number in range(2_000)]
        for acquire in acquires:
            assert not pool.core.request(acquire.waiter, pool.now)
            pool.core.created(acquire.entry, object(), pool.now)
        waiting = [Acquire(pool.core, ('endpoint', number), pool.notified.append) for number in range(2_000)]
        for waiter in waiting:
            assert pool.core.request(waiter.waiter, pool.now)
        for waiter in waiting:
            assert pool.core.cancel(waiter.waiter, pool.now)
        for acquire in acquires:
            pool.core.release(acquire.entry, pool.now)
        assert pool.count('endpoints') == (2_000,)
        pool.now += 10.0
        assert pool.core.doom_due(pool.now, 10_000) == 2_000
        while (entry := pool.core.take_doomed()) is not None:
            pool.core.disposed(entry, pool.now)
        return pool.core.size

    tracemalloc.start()
    try:
        cycle_many()
        growths = []
        # What is kept is kept each time; memory that a thread of another test allocates meanwhile is counted here, too.
        for _ in range(3):
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(3):
                assert cycle_many() == 0
            gc.collect()
            after, peak = tracemalloc.get_traced_memory()
            assert peak - before > 500_000, 'else it was not measured'
            growths.append(after - before)
            if growths[-1] < 20_000:
                break
    finally:
        tracemalloc.stop()
    assert min(growths) < 20_000
    assert living(EndpointPool) == 0
    pool.core.check_invariants()


# -- the order in which they are visited ------------------------------------------------------------------------------

# Their hashes are in another order, and some collide.
NAMES = [Endpoint(f'e{i}', (i * 7919) % 31 << 20) for i in range(40)]


def make_used() -> Pool:
    """A pool whose endpoints were used one after the other; every third one was forgotten, and used again at last."""
    pool = Pool(max_size=2, total_max_size=200, min_idle=2)
    for name in NAMES:
        pool.fill(name, 2)
    for name in NAMES[::3]:
        pool.core.drain(name, pool.now)
    pool.dispose()
    for name in NAMES[::3]:
        pool.fill(name, 2)
    return pool


ORDER = [name for name in NAMES if name not in NAMES[::3]] + NAMES[::3]


def endpoints_of(entries: list[Entry]) -> list[object]:
    return list(dict.fromkeys(entry.endpoint for entry in entries))


def test_all_are_drained_in_the_order_of_first_use() -> None:
    pool = make_used()
    pool.core.drain_all(pool.now)
    assert endpoints_of(pool.take_doomed()) == ORDER


def test_all_are_shrunk_in_the_order_of_first_use() -> None:
    pool = make_used()
    assert pool.core.resize(pool.now, max_size=1, limits=None, expected=None)
    entries = pool.take_doomed()
    assert len(entries) == len(NAMES)
    assert endpoints_of(entries) == ORDER


def test_all_are_closed_and_refused_in_the_order_of_first_use() -> None:
    pool = make_used()
    kept = [pool.acquire(name) for name in reversed(NAMES)]
    kept += [pool.acquire(name) for name in reversed(NAMES)]
    waiting = [pool.ask(name) for name in reversed(NAMES)]
    pool.core.close()
    assert [acquire.endpoint for acquire in pool.notified] == ORDER
    assert {acquire.answer for acquire in waiting} == {'refused'}
    pool.release(*kept)


def test_all_are_served_after_a_suspension_in_the_order_of_first_use() -> None:
    pool = make_used()
    pool.core.suspend()
    waiting = [pool.ask(name) for name in reversed(NAMES)]
    pool.core.resume(pool.now)
    assert [acquire.endpoint for acquire in pool.notified] == ORDER
    assert {acquire.answer for acquire in waiting} == {'served'}
