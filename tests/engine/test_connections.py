"""Connections are found by identity, whatever their __eq__ says; a connection that is not in use cannot be released."""

from collections.abc import Callable

import pytest

from gcpool._core import Entry, Waiter
from gcpool.exceptions import BaseError, ConnectionNotAcquired
from tests.engine.support import Acquire, Connection, Pool


class HostileError(Exception):
    """What a hostile connection raises in every special method."""


class Hostile:
    """Must be found, kept and handed over without calling any of its methods."""

    def __hash__(self) -> int:
        raise HostileError('hash')

    def __eq__(self, other: object) -> bool:
        raise HostileError('eq')

    def __bool__(self) -> bool:
        raise HostileError('bool')

    def __len__(self) -> int:
        raise HostileError('len')


class AllEqual:
    """Equal to everything, with any hash."""

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return True


def whole_life(pool: Pool, conns: list[object]) -> None:
    """Everything that can happen to connections, compared by identity."""
    acquires = [pool.ask('a') for _ in conns]
    for acquire, conn in zip(acquires, conns, strict=True):
        pool.connect(acquire, conn)
        assert acquire.conn is conn
    for acquire, conn in zip(acquires, conns, strict=True):
        found = pool.core.find_acquired(conn, 'a')
        assert found is not None
        assert found is acquire.entry
        pool.core.release(found, pool.now)
        with pytest.raises(BaseError):
            pool.core.release(found, pool.now)
    again = [pool.acquire('a') for _ in conns]
    assert {id(acquire.conn) for acquire in again} == {id(conn) for conn in conns}
    waiting = pool.ask('a')
    pool.release(again[0])
    assert waiting.conn is again[0].conn
    pool.core.reject_dead(waiting.waiter)
    pool.cancel(waiting)
    for acquire in again[1:]:
        pool.release(acquire)
    pool.core.close()
    disposed = []
    while (entry := pool.core.take_doomed()) is not None:
        disposed.append(id(entry.conn))
        pool.core.disposed(entry, pool.now)
    pool.core.check_invariants()
    assert sorted(disposed) == sorted(id(conn) for conn in conns)
    assert pool.core.size == 0


@pytest.mark.parametrize(
    'make',
    [Hostile, AllEqual, dict, list, lambda: bytearray(b''), object, lambda: Connection('x'), lambda: range(1, 1)],
    ids=['hostile', 'all equal', 'dict', 'list', 'bytearray', 'object', 'connection', 'empty range'],
)
def test_connections_are_told_apart_by_identity_alone(make: Callable[[], object]) -> None:
    whole_life(Pool(min_idle=1, max_size=3), [make() for _ in range(3)])


def test_any_object_is_a_connection() -> None:
    whole_life(Pool(min_idle=1, max_size=7), [None, False, 0, '', (), NotImplemented, Ellipsis])


# -- create() returned a connection that is there already -------------------------------------------------------------


@pytest.mark.parametrize('state', ['acquired', 'idle', 'releasing', 'doomed', 'being closed'])
@pytest.mark.parametrize('endpoint', ['a', 'b'])
def test_a_connection_that_the_pool_holds_already_is_refused(state: str, endpoint: str) -> None:
    pool = Pool()
    holder = pool.acquire('a')
    conn = holder.conn
    if state == 'idle':
        pool.release(holder)
        held = pool.core.try_acquire('a', pool.now)
        assert held is not None
        pool.core.release(held, pool.now)
        pool.core.resize(pool.now, min_idle=0)
    elif state == 'releasing':
        assert pool.core.begin_release(holder.entry)
    elif state in {'doomed', 'being closed'}:
        pool.now = 100.0
        pool.release(holder)
        if state == 'being closed':
            [_entry] = pool.take_doomed()
    acquire = pool.ask('b') if state == 'idle' or endpoint == 'b' else pool.ask('a')
    assert acquire.answer == 'ticket'
    before = pool.stats
    with pytest.raises(ValueError, match='expected a new connection') as caught:
        pool.core.created(acquire.entry, conn, pool.now)
    assert repr(conn) in str(caught.value)
    assert acquire.answer == 'ticket', 'the ticket is as it was'
    pool.core.check_invariants()
    assert pool.stats == before
    assert pool.cancel(acquire) is False
    assert pool.stats['size'] == before['size'] - 1
    assert pool.stats['created'] == 1
    assert pool.core.doomed == (1 if state == 'doomed' else 0), 'it is not closed on top of that'


def test_after_a_duplicate_the_ticket_can_still_be_carried_out() -> None:
    pool = Pool()
    holder, acquire = pool.acquire('a'), pool.ask('a')
    with pytest.raises(ValueError, match='expected a new connection'):
        pool.core.created(acquire.entry, holder.conn, pool.now)
    pool.connect(acquire)
    assert acquire.conn is not holder.conn


def test_a_connection_that_is_gone_may_come_again() -> None:
    pool = Pool(min_idle=0, idle_timeout=0.0)
    conn = Connection('again')
    for _ in range(3):
        acquire = pool.ask('a')
        pool.connect(acquire, conn)
        pool.release(acquire)
        assert pool.expire() == ['again']
    assert pool.count('created', 'disposed') == (3, 3)


# -- releases that are not due ----------------------------------------------------------------------------------------


def assert_refused(pool: Pool, conn: object, endpoint: object, *words: str) -> None:
    before = pool.stats
    with pytest.raises(ConnectionNotAcquired) as caught:
        pool.core.find_acquired(conn, endpoint)
    for word in words:
        assert word in str(caught.value)
    assert isinstance(caught.value, BaseError)
    pool.core.check_invariants()
    assert pool.stats == before


def test_a_connection_given_back_twice_is_an_error() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    entry = acquire.entry
    pool.release(acquire)
    assert_refused(pool, acquire.conn, 'a', '<a1>', 'idle')
    before = pool.stats
    with pytest.raises(ConnectionNotAcquired, match='idle'):
        pool.core.release(entry, pool.now)
    with pytest.raises(ConnectionNotAcquired, match='idle'):
        pool.core.begin_release(entry)
    assert pool.stats == before
    assert pool.drain_idle('a') == ['a1'], 'it is there once'


@pytest.mark.parametrize('waits', [False, True])
def test_the_end_of_one_acquire_is_not_that_of_the_next(waits: bool) -> None:
    """A release that names its acquire (a context's) cannot return what another user has acquired meanwhile."""
    pool = Pool(max_size=1)
    first = pool.acquire('a')
    entry, lease_no = first.entry, first.entry.lease_no
    if waits:
        second = pool.ask('a')
        pool.release(first)
    else:
        pool.release(first)
        second = pool.acquire('a')
    assert second.entry is entry
    before = pool.stats
    for _ in range(2):
        for give_back in (
            lambda: pool.core.release(entry, pool.now, lease_no),
            lambda: pool.core.begin_release(entry, lease_no),
        ):
            with pytest.raises(
                ConnectionNotAcquired, match=r'<a1> of the pool was released before, .* acquired it since'
            ):
                give_back()
        assert pool.stats == before
        # Again, when the pool was closed while the second user had it: that user's release does nothing then, and is no
        # error.
        pool.core.close()
        pool.core.doom_acquired()
        before = pool.stats
    pool.core.release(entry, pool.now, entry.lease_no)


def test_a_connection_given_back_twice_while_its_hook_runs_is_an_error() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    assert pool.core.begin_release(acquire.entry) is True
    assert_refused(pool, acquire.conn, 'a', 'releasing')
    with pytest.raises(ConnectionNotAcquired, match='releasing'):
        pool.core.begin_release(acquire.entry)
    pool.core.release(acquire.entry, pool.now)
    assert pool.count('idle', 'acquired') == (1, 0)


def test_a_connection_handed_to_the_next_one_is_given_back_by_that_one() -> None:
    """The core cannot tell who releases a connection: it refuses only a connection that is not in use."""
    pool = Pool(max_size=1)
    holder, waiting = pool.acquire('a'), pool.ask('a')
    pool.release(holder)
    assert waiting.entry.lease_no == 2
    pool.release(waiting)
    assert_refused(pool, holder.conn, 'a', 'idle')


def test_a_stranger_given_back_is_an_error() -> None:
    pool = Pool()
    pool.kept.append(pool.acquire('a'))
    assert_refused(pool, Connection('stranger'), 'a', '<stranger>', "acquire('a')")
    assert_refused(pool, None, 'a', 'None')


def test_a_connection_of_another_pool_given_back_is_an_error() -> None:
    pool, other = Pool(), Pool()
    acquire = other.acquire('a')
    assert_refused(pool, acquire.conn, 'a', '<a1>')
    other.release(acquire)


@pytest.mark.parametrize('known', [True, False])
def test_a_connection_given_back_to_the_wrong_endpoint_is_an_error(known: bool) -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    if known:
        pool.kept.append(pool.acquire('b'))
    assert_refused(pool, acquire.conn, 'b', '<a1>', "'a'", "'b'")
    assert_refused(pool, acquire.conn, ['a'], "['a']")
    pool.release(acquire)


@pytest.mark.parametrize('taken', [True, False])
def test_a_connection_given_back_while_it_is_being_closed_is_an_error(taken: bool) -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    pool.now = 100.0
    pool.release(acquire)
    entries = pool.take_doomed() if taken else []
    assert_refused(pool, acquire.conn, 'a', 'closing')
    with pytest.raises(ConnectionNotAcquired, match='closing'):
        pool.core.release(acquire.entry, pool.now)
    for entry in entries:
        pool.core.disposed(entry, pool.now)


def test_a_connection_given_back_after_it_was_closed_is_an_error() -> None:
    pool = Pool()
    acquire = pool.acquire('a')
    conn, entry = acquire.conn, acquire.entry
    pool.now = 100.0
    pool.release(acquire)
    pool.dispose()
    assert_refused(pool, conn, 'a', 'does not belong to the pool')
    with pytest.raises(ConnectionNotAcquired, match='gone'):
        pool.core.release(entry, pool.now)
    with pytest.raises(ConnectionNotAcquired, match='gone'):
        pool.core.begin_release(entry)
    pool.core.check_invariants()


def test_an_entry_of_no_endpoint_says_so() -> None:
    entry = Entry()
    with pytest.raises(AttributeError, match='no endpoint'):
        _ = entry.endpoint
    with pytest.raises(AttributeError, match='no connection'):
        _ = entry.conn
    assert entry.state_name == 'creating'
    assert 'creating' in repr(entry)


def test_an_entry_counts_how_often_its_connection_was_acquired() -> None:
    pool = Pool(max_size=1)
    acquire = pool.acquire('a')
    entry = acquire.entry
    assert entry.lease_no == 1
    for turn in range(2, 6):
        pool.release(acquire)
        acquire = pool.acquire('a')
        assert acquire.entry is entry
        assert entry.lease_no == turn
    waiting = pool.ask('a')
    pool.release(acquire)
    assert waiting.entry.lease_no == 6


def test_a_waiter_says_what_it_is() -> None:
    waiter = Waiter('a')
    assert waiter.endpoint == 'a'
    assert [waiter.queued, waiter.refused, waiter.has_ticket] == [False] * 3
    assert waiter.held is None
    assert waiter.dead_entry is None


def test_a_pool_says_what_it_is() -> None:
    pool = Pool(min_idle=1, max_size=2, total_max_size=3, idle_timeout=4.0, max_lifetime=5.0)
    core = pool.core
    limits = (core.min_idle, core.max_size, core.total_max_size, core.idle_timeout, core.max_lifetime, core.collects)
    assert limits == (1, 2, 3, 4.0, 5.0, False)
    assert (core.closed, core.acquired, core.size, core.doomed, core.fork_epoch) == (False, 0, 0, 0, 0)
    pool.now = 123.0
    assert core.now() == 123.0
    assert core.clock == pool.read_clock
    held = Acquire(core, 'a', pool.notified.append)
    pool.ask_again(held)
    pool.connect(held)
    assert core.acquired == 1
