"""Endpoints with several spellings: what the manager's ``normalize`` returns counts, and it is called rarely."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from gcpool._core import PoolCore, Spelling
from gcpool.exceptions import ConnectionNotAcquired
from tests.engine.support import Acquire, Pool
from tests.engine.test_endpoints import Endpoint, HostileError, connected, cycle


class Speller:
    """A ``normalize`` that counts its calls, and maps the names of :py:class:`Endpoint` to lower case."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Callable[[Any], object] = lambda endpoint: Endpoint(endpoint.name.lower())

    def __call__(self, endpoint: Any) -> object:
        self.asked.append(endpoint)
        return self.answer(endpoint)

    def take(self) -> int:
        """Return how often it was called since the last time."""
        asked, self.asked = self.asked, []
        return len(asked)


def spelled(speller: Callable[[Any], object], **options: Any) -> Pool:
    pool = Pool(**options)
    pool.core = PoolCore(
        pool.core.min_idle,
        pool.core.max_size,
        pool.core.total_max_size,
        pool.core.idle_timeout,
        pool.core.max_lifetime,
        clock=pool.read_clock,
        normalize=speller,
    )
    return pool


def spellings(name: str, count: int) -> list[Endpoint]:
    """Return a number of them, no two of them equal."""
    letters = [{letter.lower(), letter.upper()} for letter in name]
    found = ['']
    for choice in letters:
        found = [start + letter for start in found for letter in sorted(choice)]
    assert len(found) >= count
    return [Endpoint(spelling) for spelling in found[:count]]


def test_all_spellings_of_an_endpoint_share_its_connections_and_its_limit() -> None:
    speller = Speller()
    pool = spelled(speller, max_size=1)
    first = connected(pool, Endpoint('A'), 'first')
    assert first.entry.endpoint == Endpoint('a')
    assert first.waiter.endpoint is first.entry.endpoint, 'what the manager is called with'
    for spelling in (Endpoint('a'), Endpoint('A')):
        waiting = pool.ask(spelling)
        assert waiting.answer == 'waits'
        assert pool.core.endpoint_size(spelling) == 1
        assert pool.cancel(waiting) is True
    assert pool.count('endpoints', 'size') == (1, 1)
    found = pool.core.find_acquired(first.conn, Endpoint('a'))
    assert found is not None
    assert found is first.entry
    pool.core.release(found, 0.0)
    assert pool.drain_idle(Endpoint('a')) == ['first']


def test_a_known_spelling_is_neither_normalized_nor_hashed_nor_compared() -> None:
    speller = Speller()
    pool = spelled(speller)
    known = spellings('abc', 8)
    pool.release(connected(pool, known[0], 'first'))
    for spelling in known:
        pool.release(pool.ask(spelling))
    speller.take()
    Endpoint.hashes = Endpoint.comparisons = 0
    for _ in range(3):
        for spelling in known:
            assert cycle(pool, spelling) == 'first'
            assert pool.core.endpoint_size(spelling) == 1
    assert speller.take() == 0
    assert (Endpoint.hashes, Endpoint.comparisons) == (0, 0)


def test_a_spelling_equal_to_a_known_one_is_not_normalized() -> None:
    speller = Speller()
    pool = spelled(speller)
    pool.release(connected(pool, Endpoint('ABC'), 'first'))
    for _ in range(3):
        for name in ('ABC', 'abc'):
            assert cycle(pool, Endpoint(name)) == 'first'
    assert speller.take() == 1


def test_an_endpoint_that_counts_as_itself_is_normalized_once() -> None:
    speller = Speller()
    pool = spelled(speller)
    endpoint = Endpoint('a')
    pool.release(connected(pool, endpoint, 'first'))
    assert cycle(pool, endpoint) == cycle(pool, Endpoint('a')) == 'first'
    speller.answer = lambda endpoint: endpoint
    other = Endpoint('B')
    pool.release(connected(pool, other, 'second'))
    assert cycle(pool, other) == cycle(pool, Endpoint('B')) == 'second'
    assert speller.take() == 2


def test_each_way_in_takes_any_spelling_and_remembers_it() -> None:
    ways: dict[str, Callable[[Pool, Acquire, Endpoint], object]] = {
        'request': lambda pool, held, spelling: pool.cancel(pool.ask(spelling)),
        'release': lambda pool, held, spelling: pool.core.find_acquired(held.conn, spelling),
        'entry_if_acquired': lambda pool, held, spelling: pool.core.entry_if_acquired(held.conn, spelling),
        'size': lambda pool, held, spelling: pool.core.endpoint_size(spelling),
    }
    for name, way in ways.items():
        speller = Speller()
        pool = spelled(speller, max_size=1)
        held = connected(pool, Endpoint('abc'), 'first')
        speller.take()
        spelling = Endpoint('aBC')
        for _ in range(3):
            way(pool, held, spelling)
            way(pool, held, Endpoint('aBC'))
        assert speller.take() == 1, name
        assert pool.count('endpoints', 'size') == (1, 1)


def test_a_release_to_a_spelling_of_another_endpoint_is_refused() -> None:
    pool = spelled(Speller())
    held = connected(pool, Endpoint('A'), 'first')
    _other = connected(pool, Endpoint('B'), 'other')
    for wrong in (Endpoint('b'), Endpoint('B'), Endpoint('c'), Endpoint('C')):
        with pytest.raises(ConnectionNotAcquired, match='belongs to endpoint a'):
            pool.core.find_acquired(held.conn, wrong)
        assert pool.core.entry_if_acquired(held.conn, wrong) is None
    assert pool.count('acquired', 'endpoints') == (2, 2)


def test_spellings_do_not_pile_up_and_go_with_their_endpoint(living: Callable[..., int]) -> None:
    speller = Speller()
    pool = spelled(speller, min_idle=0, idle_timeout=10.0)
    known = spellings('abcdefgh', 100)
    last = weakref.ref(known[0])
    pool.release(connected(pool, known[0], 'first'))
    while known:
        last = weakref.ref(known[0])
        pool.release(pool.ask(known.pop(0)))
    assert speller.take() == 100
    assert living(Spelling) == 8
    assert living(Endpoint) <= 8 + 2, 'those, the one that counts and the latest'
    pool.now = 10.0
    pool.expire()
    pool.notified.clear()
    gc.collect()
    assert pool.count('endpoints') == (0,)
    assert living(Spelling) == 0
    assert living(Endpoint) == 0
    assert last() is None


def test_a_memory_address_used_again_is_no_known_spelling() -> None:
    pool = spelled(Speller())
    pool.release(connected(pool, Endpoint('A'), 'of a'))
    pool.release(connected(pool, Endpoint('B'), 'of b'))
    for number in range(200):
        for name in ('a', 'b'):
            # Each of them is freed or takes another one's place, so that the next one may get its address.
            acquire = pool.ask(Endpoint(name if number % 2 else name.upper()))
            assert acquire.conn.name == f'of {name}'
            pool.release(acquire)
        assert pool.core.endpoint_size(Endpoint('C')) == 0
    assert pool.count('endpoints') == (2,)


def unhashable(endpoint: Endpoint) -> object:
    return [endpoint]


def nothing(endpoint: Endpoint) -> object:
    return None


class FailingHash:
    def __hash__(self) -> int:
        raise HostileError('hash')

    def __repr__(self) -> str:
        return 'FailingHash()'


def raising(endpoint: Endpoint) -> object:
    raise HostileError('normalize')


@pytest.mark.parametrize(
    ('answer', 'error', 'message'),
    [
        (unhashable, TypeError, r'normalize\(\) returned \[A\] of type list for endpoint A: expected a hashable'),
        (
            lambda _: FailingHash(),
            TypeError,
            r'returned FailingHash\(\) of type FailingHash for endpoint A: expected a',
        ),
        (nothing, TypeError, r'normalize\(\) returned None for endpoint A: expected the endpoint to use'),
        (raising, HostileError, 'normalize'),
    ],
)
def test_an_error_of_normalize_reaches_the_caller_and_changes_nothing(
    answer: Callable[[Any], object], error: type[Exception], message: str
) -> None:
    speller = Speller()
    pool = spelled(speller)
    held = connected(pool, Endpoint('a'), 'first')
    before = pool.stats
    speller.answer = answer
    acquire = Acquire(pool.core, Endpoint('A'), pool.notified.append)
    for way in (
        lambda: pool.core.request(acquire.waiter, pool.now),
        lambda: pool.core.endpoint_size(Endpoint('A')),
        lambda: pool.core.find_acquired(held.conn, Endpoint('A')),
    ):
        with pytest.raises(error, match=message):
            way()
        pool.core.check_invariants()
        assert pool.stats == before
    assert acquire.answer == 'nothing'
    assert pool.core.cancel(acquire.waiter, pool.now) is False
    assert pool.core.find_acquired(held.conn, Endpoint('a')) is held.entry


def test_an_unhashable_spelling_is_refused_before_normalize_is_asked() -> None:
    speller = Speller()
    pool = spelled(speller)
    with pytest.raises(TypeError, match=r'endpoint \[\] of type list: expected a hashable object'):
        pool.core.endpoint_size([])
    acquire = Acquire(pool.core, [], pool.notified.append)
    with pytest.raises(TypeError, match=r'endpoint \[\] of type list: expected a hashable object'):
        pool.core.request(acquire.waiter, pool.now)
    assert speller.take() == 0


def test_none_may_be_an_endpoint_that_counts_as_none() -> None:
    pool = spelled(lambda endpoint: endpoint)
    pool.release(connected(pool, None, 'first'))
    assert cycle(pool, None) == 'first'


def test_normalize_may_come_back_into_the_pool() -> None:
    """It is called with no lock held: whatever it does is done, and the spelling is looked up again."""
    speller = Speller()
    pool = spelled(speller, min_idle=0, idle_timeout=10.0)

    def come_back(endpoint: Endpoint) -> object:
        pool.core.check_invariants()
        if endpoint.name == 'A' and pool.core.size:
            pool.now = 20.0
            pool.expire()
        return Endpoint(endpoint.name.lower())

    speller.answer = come_back
    pool.release(connected(pool, Endpoint('a'), 'first'))
    acquire = pool.ask(Endpoint('A'))
    assert acquire.answer == 'ticket'
    assert pool.count('endpoints', 'size') == (1, 1)


def test_a_spelling_is_forgotten_while_it_is_compared() -> None:
    speller = Speller()
    pool = spelled(speller, min_idle=0, idle_timeout=10.0)

    class Reentrant(Endpoint):
        actions: list[Callable[[], object]]

        __hash__ = Endpoint.__hash__

        def __eq__(self, other: object) -> bool:
            if self.actions:
                self.actions.pop()()
            return super().__eq__(other)

    known = Reentrant('A', 7)
    known.actions = []
    pool.release(connected(pool, known, 'first'))
    pool.now = 10.0
    known.actions = [pool.expire]
    assert pool.core.endpoint_size(Endpoint('A', 7)) == 0
    assert known.actions == []
    pool.core.check_invariants()
